"""Reading a map in one call: maps whose regions, cycles, exponents and dimensions are known by formula; the JSON file."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import dynsys
from dynsys.analysis.comparison import Estimate, Invariant, compare, kaplan_yorke
from dynsys.analysis.lyapunov import LyapunovSpectrum, kaplan_yorke_dimension
from dynsys.analysis.structure import structure
from dynsys.analysis.structure_file import read_structure, write_structure
from dynsys.errors import DataError, InvalidValue, UnknownName
from dynsys.status import Status
from dynsys.systems import load_system

from .fit_cases import circle
from .structure_cases import Affine, Folded, Logistic, SkewTent

A = 0.4
# of the skew tent map: the invariant density is uniform, so a share a of the time is spent on the left branch
TENT_EXPONENT = -A * np.log(A) - (1 - A) * np.log(1 - A)


@pytest.fixture(scope="module")
def tent():
    other = np.asarray(dynsys.rollout(SkewTent(A), jnp.array([0.2718]), 20_000))
    return structure(SkewTent(A), np.array([0.1234]), dt=0.5, data=other, max_period=5, starts=500, outward=lambda x: 10 * x + 3)


def row(found, name):
    return next(row for row in found.invariants if row.name == name)


def test_the_tent_maps_regions_and_symbols(tent):
    assert tent.code.n_symbols == 2
    # the right branch is visited 1 - a of the time; independent draws have a standard deviation of 0.0035
    assert_allclose(tent.code.shares, [1 - A, A], atol=0.015)
    assert_array_equal(tent.code.codes, [[True], [False]])
    assert tent.code.graph_entropy == pytest.approx(np.log(2))
    assert tent.code.dt == 0.5
    assert_array_equal(tent.code.labels == 0, tent.states[:, 0] > A)


def test_the_tent_maps_cycles_and_their_places(tent):
    # necklaces of two symbols that are not powers of shorter ones
    assert [len(tent.cycles.of_period(k)) for k in range(1, 6)] == [2, 1, 2, 3, 6]
    assert_allclose(sorted(cycle.points[0, 0] for cycle in tent.cycles.fixed_points), [0.0, 1 / (2 - A)], atol=1e-9)
    for cycle, place in zip(tent.cycles, tent.positions, strict=True):
        assert_allclose(place, 10 * cycle.points + 3, atol=1e-12)
        assert cycle.n_unstable == 1
    assert_allclose(tent.observed, 10 * tent.states + 3)
    assert tent.size == pytest.approx(10, abs=0.1)


def test_exponents_and_dimensions_of_the_tent_map(tent):
    assert tent.spectrum.maximal == pytest.approx(TENT_EXPONENT / 0.5, abs=4 * tent.spectrum.errors[0] + 1e-3)
    found = row(tent, "Lyapunov exponent 1")
    assert (found.model.value, found.data, found.unit) == (tent.spectrum.maximal, None, "1/time")
    assert row(tent, "Kaplan-Yorke dimension").model == Estimate(1.0, 0.0)
    for name, value, tolerance in (("correlation dimension", 1.0, 0.06), ("maximal exponent from the series", TENT_EXPONENT / 0.5, 0.25)):
        found = row(tent, name)
        assert found.model.value == pytest.approx(value, abs=tolerance)
        assert found.data.value == pytest.approx(value, abs=tolerance)
        assert found.data.value != found.model.value
        assert 0 < found.model.error < 0.3


def test_an_orbit_may_be_given():
    orbit = np.asarray(dynsys.rollout(SkewTent(A), jnp.array([0.3]), 1000))
    found = structure(SkewTent(A), orbit, max_period=1, starts=50)
    assert_array_equal(found.states, orbit)
    assert found.start == orbit[0]
    assert row(found, "Lyapunov exponent 1").unit == "1/step"
    cut = orbit.copy()
    cut[700:] = np.nan
    assert len(structure(SkewTent(A), cut, max_period=1, starts=50).states) == 700


def test_a_smooth_system_of_the_database_beside_its_own_facts():
    henon = load_system("Henon")
    found = structure(henon, henon.start, dt=1.0, system="Henon", max_period=2)
    assert found.code is None
    # x = 1 - a x^2 + b x, and the orbit of period 2 of a > 3/4 (1 - b)^2
    a, b = 1.4, 0.3
    x = (-(1 - b) + np.array([-1, 1]) * np.sqrt((1 - b) ** 2 + 4 * a)) / (2 * a)
    assert_allclose(sorted(place[0, 0] for place in found.positions[:2]), x, atol=1e-9)
    assert [cycle.period for cycle in found.cycles] == [1, 1, 2]
    assert_allclose(found.distances, 0.0, atol=1e-9)  # the model is the system
    assert found.spectrum.exponents.sum() == pytest.approx(np.log(b), abs=1e-9)
    for i in (1, 2):
        both = row(found, f"Lyapunov exponent {i}")
        assert both.deviation() < 5
        assert both.system.value == load_system("Henon").record.fact("lyapunov_spectrum").value[i - 1]
    assert row(found, "Kaplan-Yorke dimension").deviation() < 5
    partly = structure(henon, henon.start, system="Henon", columns=("y",), max_period=1, outward=lambda x: x[:, 1:])
    assert_allclose(np.sort(partly.equilibria[:, 0]), b * x, atol=1e-9)
    assert structure(henon, henon.start, system="Henon", columns=("voltage", "y")).equilibria is None


def test_what_goes_wrong_is_a_note():
    away = structure(Folded(2.0), np.array([1.0]), max_period=1, starts=50)
    assert (away.code, away.spectrum, away.invariants) == (None, None, ())
    assert "leaves all bounds after 0 steps" in away.notes[0]
    assert_allclose(away.cycles.fixed_points[0].points, [[-1.0]], atol=1e-9)  # the search goes on
    assert np.isnan(away.size)
    settled = structure(Folded(0.5), np.array([1.0]), max_period=1, starts=50)
    assert settled.code.n_symbols == 1
    assert settled.spectrum.maximal == pytest.approx(np.log(0.5))
    assert any("settles at one point" in note for note in settled.notes)
    assert not any("turn of the orbit" in note for note in settled.notes)
    assert row(settled, "Kaplan-Yorke dimension").model.value == 0
    assert settled.cycles.fixed_points[0].stable
    dead = structure(Folded(0.0), np.array([1.0]), max_period=1, starts=50)  # J = 0
    assert dead.spectrum.maximal == -np.inf
    smooth = structure(Affine(0.5), np.array([1.0]))
    assert smooth.code is None
    assert_allclose(smooth.cycles.fixed_points[0].points, [[2.0]], atol=1e-9)


def test_a_reconstruction_speaks_in_the_users_units():
    found = dynsys.fit(circle(400), model="var", set=["model.delays=1"], progress=False)
    read = found.structure(starts=50)
    # the data turn about (10, -3), which an exact linear model has as its only fixed point
    assert_allclose(read.positions[0], [[10.0, -3.0]], atol=1e-6)
    assert_allclose(read.observed.max(axis=0), [15.0, -2.0], atol=0.01)
    assert read.dt == pytest.approx(0.1)
    assert any(
        "A turn of the orbit takes about 32 steps" in note and "searched (max_period = 1)" in note for note in read.notes
    )  # 2 pi / 0.2 = 31.4
    assert row(read, "Lyapunov exponent 1").system is None
    named = dataclasses.replace(found, source="Henon", parts=())
    known = named.structure(starts=50)
    assert row(known, "Lyapunov exponent 1").system is not None
    assert row(known, "correlation dimension").data is None
    changed = dataclasses.replace(named, notes=("parameters changed: a=1.2",)).structure(circle(400), starts=50)
    assert row(changed, "Lyapunov exponent 1").system is None
    assert row(changed, "maximal exponent from the series").data is not None


@pytest.mark.parametrize(
    ("states", "about", "message"),
    [
        (np.zeros(2), {}, r"states must have shape \(1,\) or \(T, 1\), got \(2,\)"),
        (np.zeros((3, 4)), {}, "latent states, not observed"),
        (np.zeros((0, 1)), {}, "got"),
        (np.zeros(1), {"points": 10}, "points >= 200"),
        (np.zeros(1), {"max_period": 0}, "max_period >= 1"),
        (np.zeros(1), {"starts": 0}, "starts >= 1"),
    ],
)
def test_static_mistakes_are_refused(states, about, message):
    with pytest.raises(InvalidValue, match=message):
        structure(SkewTent(A), states, **about)


def test_an_unknown_system_is_refused():
    with pytest.raises(UnknownName, match="Lorentz"):
        structure(SkewTent(A), np.array([0.1]), system="Lorentz")


# the table


def spectrum(exponents, errors):
    exponents = np.array(exponents, float)
    return LyapunovSpectrum(exponents, np.array(errors, float), kaplan_yorke_dimension(exponents), 1000, None, Status.SUCCESS)


def test_the_error_of_the_dimension_is_that_of_resampled_exponents():
    found = kaplan_yorke(spectrum([0.9, 0.001, -14.5], [0.02, 0.02, 0.3]))
    draws = np.random.default_rng(0).normal([0.9, 0.0, -14.5], [0.02, 0.02, 0.3], (4000, 3))
    sample = [kaplan_yorke_dimension(draw) for draw in draws]
    assert found.value == pytest.approx(np.mean(sample), abs=2e-4)
    assert found.error == pytest.approx(np.std(sample), rel=0.1)  # linear propagation; 4000 draws know it to 1 %


def test_an_exponent_within_its_error_of_zero_counts_as_zero():
    assert kaplan_yorke(spectrum([-1e-6, -1.0], [1e-5, 0.1])).value == 1.0
    assert kaplan_yorke(spectrum([-1e-2, -1.0], [1e-5, 0.1])).value == 0.0
    assert np.isnan(kaplan_yorke(dataclasses.replace(spectrum([1.0, 0.5], [0.1, 0.1]), kaplan_yorke=np.nan)).value)


def test_deviations_are_in_joint_errors():
    both = Invariant("x", "", "", Estimate(1.0, 0.3), Estimate(2.0, 0.4), Estimate(9.0, 0.1))
    assert both.deviation() == pytest.approx(2.0)  # 1 / hypot(0.3, 0.4): the data come before the system
    assert dataclasses.replace(both, data=None, system=None).deviation() is None


def test_series_that_have_no_exponent_are_explained():
    constant, nan = np.ones((500, 1)), np.full((500, 1), np.nan)
    rows, notes = compare(constant, None, data=nan)
    assert all(row.model is None and row.data is None for row in rows)
    assert any(note.startswith("Free run of the model: it settles") for note in notes)
    assert any(note.startswith("Data: ") and "finite" in note for note in notes)
    assert compare(None, None) == ((), ())


# the file


@pytest.mark.parametrize("case", ["tent", "dead", "away", "smooth"])
def test_the_file_holds_everything(case, tent, tmp_path):
    given = {
        "tent": lambda: tent,
        "dead": lambda: structure(Folded(0.0), np.array([1.0]), max_period=1, starts=50),
        "away": lambda: structure(Folded(2.0), np.array([1.0]), max_period=1, starts=50),
        "smooth": lambda: structure(load_system("Henon"), np.array([0.1, 0.1]), system="Henon"),
    }[case]()
    path = write_structure(given, tmp_path / "structure.json")
    told = json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert told["model"] == given.model
    read = read_structure(path)
    assert read.states is None
    assert_allclose(read.observed, given.observed, rtol=1e-6)
    for field in dataclasses.fields(given):
        mine, theirs = getattr(given, field.name), getattr(read, field.name)
        if field.name in ("model", "digest", "dim", "dt", "notes", "invariants"):
            assert repr(mine) == repr(theirs), field.name  # NaN is not equal to itself
        if field.name in ("start", "equilibria"):
            assert_array_equal(mine, theirs)
    assert (read.code is None) == (given.code is None)
    if given.code is not None:
        for name in ("labels", "counts", "codes"):
            assert_array_equal(getattr(read.code, name), getattr(given.code, name))
    assert (read.spectrum is None) == (given.spectrum is None)
    if given.spectrum is not None:
        assert_array_equal(read.spectrum.exponents, given.spectrum.exponents)
        assert read.spectrum.status is given.spectrum.status
    assert len(read.cycles) == len(given.cycles)
    pairs = [*zip(read.cycles, given.cycles, strict=True), *zip(read.cycles.virtual, given.cycles.virtual, strict=True)]
    for mine, theirs in pairs:
        for name in ("points", "eigenvalues", "regions"):
            assert_array_equal(getattr(mine, name), getattr(theirs, name))
        assert (mine.virtual, mine.residual, mine.kind) == (theirs.virtual, theirs.residual, theirs.kind)
    for mine, theirs in zip(read.positions, given.positions, strict=True):
        assert_array_equal(mine, theirs)
    assert read.cycles.notes == given.cycles.notes


def test_the_file_lists_symbols_for_other_languages(tent, tmp_path):
    told = json.loads(write_structure(tent, tmp_path / "s.json").read_text())
    regions = told["regions"]
    assert regions["codes"] == ["1", "0"]
    assert sum(length for _, length in regions["labels"]) == len(tent.code.labels)
    assert np.sum([count for *_, count in regions["transitions"]]) == len(tent.code.labels) - 1
    assert regions["entropies"]["graph"] == pytest.approx(np.log(2))
    assert regions["forbidden"] == []  # a full shift


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "can't be read"),
        ("{", "no JSON"),
        ('{"format": "other"}', "holds no structure"),
        ('{"format": "dynsys-structure-1"}', "damaged"),
    ],
)
def test_other_files_are_refused(text, message, tmp_path):
    path = tmp_path / "structure.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_structure(path)


def test_the_digest_is_of_the_parameters(tent):
    assert tent.digest != structure(SkewTent(0.41), np.array([0.1]), max_period=1, starts=50).digest


@pytest.mark.parametrize(("r", "period"), [(3.83, 3), (3.5, 4), (3.2, 2)])
def test_the_cycle_on_which_a_run_has_settled_is_listed(r, period):
    """The logistic map in a periodic window; only fixed points are searched, and the cycle is read off the run."""
    read = structure(Logistic(r), np.array([0.3]), max_period=1, starts=20, points=2000, transient=2000)
    (found,) = read.cycles.of_period(period)
    points = found.points[:, 0]
    assert_allclose(r * points * (1 - points), np.roll(points, -1), atol=1e-13)
    assert_allclose(found.eigenvalues[0].real, np.prod(r * (1 - 2 * points)), atol=1e-12)  # chain rule
    assert found.stable
    assert len(read.positions) == len(read.cycles)
    again = structure(Logistic(r), np.array([0.3]), max_period=period, starts=200, points=2000, transient=2000)
    assert sum(cycle.stable for cycle in again.cycles.of_period(period)) == 1  # found by the search too, and listed once

"""`dynsys structure` and `dynsys figures`, run in this process: what they print and write, and how they refuse."""

import dataclasses
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynsys
from dynsys.analysis.structure_file import read_structure
from dynsys.models.alrnn import ALRNN
from dynsys.models.observation import IdentityObservation
from dynsys.report.figure_files import naming_of
from dynsys.report.structure_basins import basin_map
from dynsys_datasets.series import write_series

from .fit_cases import circle

PICTURES = {"regions", "transitions", "code", "cycles", "eigenvalues", "basins"}


def lozi(scale: float = 1.0):
    """The Lozi map x' = 1 - a |x| + y, y' = b x as an AL-RNN with states (y, x, -x): x = relu(x) - relu(-x), |x| is their sum."""
    a, b = 1.7, 0.5
    W = jnp.array([[0.0, b, -b], [1.0, -a, -a], [-1.0, a, a]])
    h = jnp.array([0.0, 1.0, -1.0])
    return ALRNN(jnp.zeros(3), W * scale, h, jnp.zeros((3, 0)), IdentityObservation(n_obs=2, dim=3), 2)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run folder whose model is the Lozi map, seen as (y, x) in the user's units; one of a smooth model; the data of both."""
    folder = tmp_path_factory.mktemp("structure")
    found = dynsys.fit(circle(300), model="var", set=["model.delays=1"], progress=False)
    (folder / "smooth").mkdir()
    found.save(folder / "smooth" / "model.h5")
    (folder / "lozi").mkdir()
    start = (0.0, 0.1)
    exact = dataclasses.replace(found, model=lozi(), last=lozi(), start=start, source="lozi")
    exact.save(folder / "lozi" / "model.h5")
    write_series(exact.simulate(3000, start=exact.simulate(5)), folder / "lozi.csv")
    write_series(circle(300), folder / "circle.csv")
    return folder


FEW = ["--max-period", "2", "--starts", "200", "--points", "2000"]


def test_structure_prints_and_writes_what_is_known_of_the_lozi_map(run, place):
    code, out, err = run("structure", place / "lozi", *FEW)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert "visits 2 linear regions" in lines[0]
    assert lines[-1] == f"structure: {place / 'lozi' / 'structure.json'}"
    read = read_structure(place / "lozi" / "structure.json")
    a, b = 1.7, 0.5
    # x = 1 / (1 + a - b) on the right, 1 / (1 - a - b) on the left; the model sees (y, x) = (b x, x), standardised
    x = np.array([1 / (1 + a - b), 1 / (1 - a - b)])
    found = dynsys.load(place / "lozi")
    wanted = found.preparation.backward(np.stack([b * x, x], axis=1))
    np.testing.assert_allclose(sorted(p[0, 1] for p in read.positions[:2]), sorted(wanted[:, 1]), atol=1e-8)
    assert [cycle.period for cycle in read.cycles] == [1, 1, 2]
    assert any(line.split()[:3] == ["saddle", "1", "1"] for line in lines)
    assert "Lyapunov exponent 1 [1/s]" in out  # the recording's unit of time
    # Sprott 2003: 0.4702 a step, and a step is 0.1 s; 64,000 steps have a standard error of about 0.001
    assert read.spectrum.maximal * 0.1 == pytest.approx(0.4702, abs=0.01)


def test_structure_as_json_with_data_elsewhere(run, place, tmp_path):
    code, out, _ = run("structure", place / "lozi", place / "lozi.csv", *FEW, "--json", "--out", tmp_path / "s.json")
    assert code == 0
    told = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert told == json.loads((tmp_path / "s.json").read_text())
    rows = {row["name"]: row for row in told["invariants"]}
    both = rows["correlation dimension"]
    # the data are another orbit of the same map, of dimension 1.40 (Sprott 2003: 1.384 +- 0.031); 2,000 points are few
    assert both["data"] != both["model"]
    for name in ("data", "model"):
        assert both[name]["value"] == pytest.approx(1.40, abs=0.12)
    assert told["fixed_points"] == 2


def test_figures_of_a_run(run, place, tmp_path):
    run("structure", place / "lozi", *FEW)
    before = (place / "lozi" / "structure.json").read_bytes()
    code, out, err = run("figures", place / "lozi", place / "circle.csv", "--format", "svg", "--out", tmp_path / "made")
    assert (code, err) == (0, "")
    assert {path.stem for path in (tmp_path / "made").iterdir()} == PICTURES | {"attractor", "overlay", "spectra"}
    assert out.splitlines() == [str(tmp_path / "made" / line.split("/")[-1]) for line in out.splitlines()]
    assert (place / "lozi" / "structure.json").read_bytes() == before  # it is of this model, and taken as it is
    code, out, _ = run("figures", place / "lozi")
    assert code == 0
    assert {path.name for path in (place / "lozi" / "figures").iterdir()} == {f"{name}.pdf" for name in PICTURES}
    assert "no attractor: it compares with data: name the recording after the run folder" in out


def test_the_report_shows_what_is_known_or_leaves_it_out(run, place, tmp_path):
    run("structure", place / "lozi", *FEW)
    assert run("report", place / "lozi", place / "lozi.csv")[0] == 0
    page = (place / "lozi" / "report.html").read_text()
    assert "A free run of 2,000 steps visits 2 linear regions" in page  # as it was asked for above; the default is 20,000
    assert page.count('<figure class="still"') == len(PICTURES)
    assert run("report", place / "lozi", place / "lozi.csv", "--out", tmp_path / "short.html", "--no-structure")[0] == 0
    assert 'id="structure"' not in (tmp_path / "short.html").read_text()


def test_a_structure_of_another_model_is_not_drawn(run, place, tmp_path):
    run("structure", place / "lozi", *FEW)
    other = tmp_path / "other"
    other.mkdir()
    dataclasses.replace(dynsys.load(place / "lozi"), model=lozi(0.9)).save(other / "model.h5")
    (other / "structure.json").write_bytes((place / "lozi" / "structure.json").read_bytes())
    assert run("figures", other, "--format", "png")[0] == 0
    assert read_structure(other / "structure.json").digest != read_structure(place / "lozi" / "structure.json").digest


def test_a_smooth_model_is_read_as_far_as_it_goes(run, place):
    code, out, _ = run("structure", place / "smooth", "--starts", "50")
    assert code == 0
    assert out.startswith("1 fixed point and no cycles were found")
    code, out, _ = run("figures", place / "smooth", "--format", "png")
    assert code == 0
    assert "no regions: a model of class VAR is not piecewise linear" in out
    assert {path.stem for path in (place / "smooth" / "figures").iterdir()} >= {"cycles", "eigenvalues"}


def test_basins_of_the_lozi_map_are_in_the_users_units(place):
    found = dynsys.load(place / "lozi")
    read = read_structure(place / "lozi" / "structure.json")
    told, why = basin_map(found, read, naming_of(found), resolution=(24, 18))
    assert why == ""
    low, high = read.observed.min(axis=0), read.observed.max(axis=0)
    np.testing.assert_allclose([told.x[0], told.x[-1]], [low[0] - (high - low)[0] / 2, high[0] + (high - low)[0] / 2])
    assert (told.xlabel, told.ylabel) == ("a [mV]", "b [mV]")
    assert told.names == ("chaotic or quasi-periodic",)
    # starts far left of the saddle at x = -0.83 leave; the starts nearest to the attractor's points stay
    assert (told.labels == -1).any()
    nearest = [(np.abs(told.y - b).argmin(), np.abs(told.x - a).argmin()) for a, b in read.observed[::50]]
    assert np.mean([told.labels[place] == 0 for place in nearest]) > 0.9
    swapped, _ = basin_map(found, read, naming_of(found), resolution=(18, 24), columns=(1, 0))
    assert (told.labels == swapped.labels.T).mean() > 0.9  # the same plane; cells of the boundary may differ
    big = dataclasses.replace(found, model=ALRNN.init(2, dim=2000, n_relu=1, key=jax.random.key(0)))
    assert basin_map(big, read, naming_of(found))[1].startswith("a model of 2000 states would take too long")


def test_the_knee_of_a_scan(run, place, tmp_path):
    folder = tmp_path / "scan"
    rows = []
    for P, best in ((0, 9.0), (1, 1.0)):
        (folder / f"P-{P:02d}").mkdir(parents=True)
        dynsys.load(place / "lozi").save(folder / f"P-{P:02d}" / "model.h5")
        rows.append({"P": P, "best": best, "median": best + 1, "scores": [best, best + 1], "regions": P + 1, "main_regions": P + 1})
    (folder / "scan.json").write_text(json.dumps({"format": "dynsys-scan-1", "scanned": "P", "knee": 1, "words": "", "rows": rows}))
    code, out, _ = run("figures", folder, "--format", "png")
    assert code == 0
    assert (folder / "figures" / "knee.png").read_bytes().startswith(b"\x89PNG")
    assert f"dynsys figures {folder / 'P-01'}" in out
    code, _, err = run("structure", folder)
    assert code == 2
    assert "is the folder of a scan" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["structure", "{p}"], "there is no model here"),
        (["structure", "{p}/absent"], "there is no model here"),
        (["figures", "{p}"], "there is no model here"),
        (["structure", "{p}/lozi", "{p}/absent.csv"], "absent.csv"),
        (["structure", "{p}/lozi", "--out", "{p}/s.txt"], "ends in .json"),
        (["structure", "{p}/lozi", "--out", "{p}/none/s.json"], "there is no folder"),
        (["structure", "{p}/lozi", "--max-period", "0"], "max_period >= 1"),
        (["structure", "{p}/lozi", "--system", "Lorentz"], "Did you mean 'Lorenz'"),
        (["figures", "{p}/lozi", "--out", "{p}/circle.csv"], "is a file"),
        (["figures", "{p}/lozi", "--plane", "a,c"], "unknown variable 'c'; known: a, b"),
        (["figures", "{p}/lozi", "--plane", "a"], "two different variables"),
    ],
)
def test_wrong_uses_are_one_line(run, place, words, message):
    code, _, err = run(*(word.format(p=place) for word in words))
    assert code == 2
    assert err.startswith("dynsys: ")
    assert err.count("\n") == 1
    assert message in err


def test_a_negative_seed_is_refused(run, place):
    code, _, err = run("structure", place / "lozi", "--seed", "-1")
    assert code == 2
    assert "Invalid value for '--seed'" in err


def test_folders_that_can_not_be_written(run, place, tmp_path, monkeypatch):
    """The pictures go elsewhere, and a folder of pictures that can't be made is refused before any work."""
    code, _, _ = run("structure", place / "lozi", *FEW, "--out", tmp_path / "s.json")
    assert code == 0
    locked = tmp_path / "locked"
    locked.mkdir()
    (locked / "model.h5").write_bytes((place / "lozi" / "model.h5").read_bytes())
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: real(path, mode) and not (mode == os.W_OK and Path(path).is_relative_to(locked)))
    code, _, err = run("figures", locked, "--format", "png")
    assert (code, err.count("\n")) == (2, 1)
    assert "is read-only. Give another folder with --out." in err
    code, _, err = run("figures", locked, "--format", "png", "--out", tmp_path / "pictures")
    assert (code, err) == (0, "")
    assert (tmp_path / "pictures" / "cycles.png").is_file()
    assert not (locked / "structure.json").exists()


@pytest.mark.parametrize("command", ["structure", "figures"])
def test_stopped_by_the_user(run, place, command, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("dynsys.reconstruct.reconstruction.Reconstruction.structure", stop)
    code, _, err = run(command, place / "smooth", "--system", "Lorenz")  # what is known of another system is not used
    assert code == 130
    assert "dynsys: stopped." in err


def test_unknown_formats_are_refused(run, place):
    code, _, err = run("figures", place / "lozi", "--format", "gif")
    assert code == 2
    assert "'pdf', 'png', 'svg'" in err

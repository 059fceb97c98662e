"""The search for cycles: maps with known cycles, the exhaustive truth on random maps, records, ill-posed input."""

import importlib.util
from fractions import Fraction
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from dynsys.analysis.piecewise import Cycle, all_cycles, find_cycles
from dynsys.analysis.piecewise.words import canonical, root, solved
from dynsys.dynamics import AbstractMap
from dynsys.errors import InvalidValue
from dynsys.models.alrnn import ALRNN, MaskedALRNN
from dynsys.models.observation import IdentityObservation
from dynsys.models.shallow import ShallowPLRNN
from dynsys.status import Status


def _script():
    found = importlib.util.spec_from_file_location("bench_cycles", Path(__file__).parents[2] / "scripts" / "bench_cycles.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


BENCH = _script()
NECKLACES = [2, 1, 2, 3, 6, 9, 18, 30]


def scalar(left, right, offset, corner=0.0):
    """x' = offset + left (x - corner) for x < corner, with slope right beyond."""
    numbers = {"A": [left], "W1": [[right - left]], "W2": [[1.0]], "h1": [offset - left * corner], "h2": [-corner], "C": np.zeros((1, 0))}
    return ShallowPLRNN(**{name: np.array(value) for name, value in numbers.items()}, observation=IdentityObservation(n_obs=1, dim=1))


def lozi(a, b):
    """x' = 1 - a |x| + y, y' = b x, state (x, y): two units in the hidden layer, relu(x) and relu(-x)."""
    numbers = {
        "A": [0.0, 0.0],
        "W1": [[-a, -a, 1.0, -1.0], [b, -b, 0.0, 0.0]],
        "W2": [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]],
        "h1": [1.0, 0.0],
        "h2": np.zeros(4),
        "C": np.zeros((2, 0)),
    }
    return ShallowPLRNN(**{name: np.array(value) for name, value in numbers.items()}, observation=IdentityObservation(n_obs=2, dim=2))


def step_lozi(z, a, b):
    return np.array([1 - a * abs(z[0]) + z[1], b * z[0]])


def alrnn(A, W, h, n_relu=1):
    return BENCH.alrnn(np.array(A, float), np.array(W, float), np.array(h, float), n_relu)


def test_the_full_tent_map_has_all_cycles():
    found = find_cycles(scalar(2.5, -1 / 0.6, 1.0, 0.4), 8)
    assert found.status is Status.SUCCESS
    assert [len(found.of_period(k)) for k in range(1, 9)] == NECKLACES
    for cycle in found:
        x = cycle.points[:, 0]
        np.testing.assert_allclose(np.where(x < 0.4, x / 0.4, (1 - x) / 0.6), np.roll(x, -1), atol=1e-13)
        np.testing.assert_allclose(cycle.eigenvalues, [np.prod(np.where(x < 0.4, 2.5, -1 / 0.6))], rtol=1e-12)
        assert cycle.n_unstable == 1
        assert not cycle.virtual


@pytest.mark.parametrize(("a", "b"), [(1.7, 0.5), (1.4, 0.3)])
def test_lozi_fixed_points_and_two_cycle_by_formula(a, b):
    found = find_cycles(lozi(a, b), 2)
    right, left = 1 / (1 + a - b), 1 / (1 - a - b)
    points = sorted(cycle.points[0, 0] for cycle in found.fixed_points)
    np.testing.assert_allclose(points, [left, right], atol=1e-13)
    for cycle in found.fixed_points:
        x, y = cycle.points[0]
        assert y == pytest.approx(b * x)
        roots = np.roots([1.0, a * np.sign(x), -b])  # lambda^2 + a sign(x) lambda - b = 0
        np.testing.assert_allclose(np.sort(cycle.eigenvalues.real), np.sort(roots), atol=1e-12)
        assert cycle.kind == "saddle"
    (two,) = found.of_period(2)
    size = (1 - b) ** 2 + a**2
    np.testing.assert_allclose(np.sort(two.points[:, 0]), [(1 - b - a) / size, (1 - b + a) / size], atol=1e-13)
    np.testing.assert_allclose(step_lozi(two.points[0], a, b), two.points[1], atol=1e-13)


def test_a_two_cycle_that_does_not_exist_yet_is_virtual():
    a, b = 0.45, 0.5  # real if and only if a > 1 - b
    found = find_cycles(lozi(a, b), 2)
    assert [cycle.period for cycle in found] == [1]
    assert found.cycles[0].stable
    size = (1 - b) ** 2 + a**2
    virtual = [cycle for cycle in found.virtual if cycle.period == 2]
    expected = np.sort([(1 - b - a) / size, (1 - b + a) / size])
    near = [cycle for cycle in virtual if np.allclose(np.sort(cycle.points[:, 0]), expected, atol=1e-12)]
    assert near
    assert all(cycle.virtual and cycle.residual < 1e-12 for cycle in virtual)
    # both points are positive: their own regions are not those of the word
    assert (near[0].points[:, 0] > 0).all()
    assert not near[0].regions[:, 0].all()


def test_a_border_collision_from_virtual_over_the_border_to_real():
    # slopes 0.5 and 2, so both sides have the fixed point -mu / (slope - 1): real on both sides for mu < 0, on none for mu > 0
    before, at, after = (find_cycles(scalar(0.5, 2.0, mu), 1) for mu in (-0.5, 0.0, 0.5))
    assert sorted(cycle.points[0, 0] for cycle in before) == pytest.approx([-1.0, 0.5])
    assert sorted(cycle.stable for cycle in before) == [False, True]
    assert len(after) == 0
    assert sorted(cycle.points[0, 0] for cycle in after.virtual) == pytest.approx([-0.5, 1.0])
    assert "No cycle was found" in after.notes[-1]
    assert [cycle.points[0, 0] for cycle in at] == pytest.approx([0.0], abs=1e-13)
    assert any("border collision" in note for note in at.notes)
    assert not any("border collision" in note for note in before.notes)


def check(number, **settings):
    row = BENCH.compare(number, **settings)
    assert row["false"] == 0, row
    assert row["extra"] == 0, row
    assert row["residual"] < 1e-9, row  # in units of the state; relative to it 1e-10 (`false`)
    return row["cycles"], row["missed"]


def test_random_maps_against_the_exhaustive_truth():
    # numbers whose truth is quick; together they have cycles of every period to 8
    cycles, missed = np.sum([check(number) for number in (20, 22, 23, 39, 45, 55, 78, 95)], axis=0)
    assert cycles >= 200
    assert missed <= 0.02 * cycles


@pytest.mark.slow
def test_many_random_maps_against_the_exhaustive_truth():
    cycles, missed = np.sum([check(number) for number in range(100, 130)], axis=0)
    assert cycles >= 60
    assert missed <= 0.02 * cycles


def test_driven_units_add_no_cycles():
    # the Lozi map inside an AL-RNN with M = 20, P = 10: one cycle for each of the Lozi map, by the contraction of what it drives
    truth = all_cycles(BENCH.lozi(), 8, box=(np.full(3, -2.0), np.full(3, 2.0)))
    found = find_cycles(BENCH.driven_by_lozi(20, 10, 0), 8)
    assert [len(found.of_period(k)) for k in range(1, 9)] == [len(truth.of_period(k)) for k in range(1, 9)]
    known = {round(cycle.eigenvalues[0].real, 6) for cycle in truth}
    assert {round(cycle.eigenvalues[0].real, 6) for cycle in found} == known


def test_records_have_no_duplicates_and_least_periods():
    found = find_cycles(BENCH.lozi(), 10)
    words = [canonical(cycle.regions) for cycle in found]
    assert len(set(words)) == len(words) > 15
    for cycle in found:
        assert len(root(cycle.regions)) == cycle.period
        z = cycle.points[0]
        for t in range(cycle.period):  # (y, x, -x): an independent step
            np.testing.assert_allclose(z, cycle.points[t], atol=1e-12)
            y, x, _ = cycle.points[t]
            z = np.array([0.5 * x, 1 - 1.7 * abs(x) + y, -(1 - 1.7 * abs(x) + y)])
        np.testing.assert_allclose(z, cycle.points[0], atol=1e-12)
        assert cycle.residual < 1e-13
    assert [cycle.period for cycle in found] == sorted(cycle.period for cycle in found)


def test_long_unstable_words_are_solved_to_rounding():
    # x' = s_t x + h_t with the product of the slopes far beyond 1 / eps: against exact fractions
    rng = np.random.default_rng(0)
    slopes, offsets = rng.choice([-5.0, 4.0, 6.0], size=40), rng.integers(-3, 4, size=40).astype(float)
    J, c = Fraction(1), Fraction(0)
    for s, h in zip(slopes, offsets, strict=True):
        J, c = Fraction(s) * J, Fraction(s) * c + Fraction(h)
    assert abs(J) > 10**25
    z, exact = c / (1 - J), []
    for s, h in zip(slopes, offsets, strict=True):
        exact.append(float(z))
        z = Fraction(s) * z + Fraction(h)
    found = solved(slopes[None, :, None, None], offsets[None, :, None])
    np.testing.assert_allclose(found[0, :, 0], exact, atol=1e-14)


def test_words_in_many_dimensions_solve_their_equations():
    rng = np.random.default_rng(1)
    J, h = rng.normal(size=(3, 7, 5, 5)), rng.normal(size=(3, 7, 5))
    z = solved(J, h)
    np.testing.assert_allclose((J @ z[..., None])[..., 0] + h, np.roll(z, -1, axis=1), atol=1e-11)


def test_singular_maps_are_explained():
    # x' = x + h_0 and y' = 0.5 y + 1: no fixed point, or a whole line of them; then x' = -x: one fixed point, a line of 2-cycles
    for A, h, longest in (([1.0, 0.5], [0.5, 1.0], 1), ([1.0, 0.5], [0.0, 1.0], 1), ([-1.0, 0.5], [0.0, 1.0], 2)):
        found = find_cycles(alrnn(A, np.zeros((2, 2)), h), longest, starts=100)
        assert found.status is Status.SUCCESS
        assert any("eigenvalue 1" in note for note in found.notes)
        assert [cycle.period for cycle in found] == ([1] if A[0] == -1.0 else [])


def test_a_line_of_fixed_points_hidden_by_rounding():
    rng = np.random.default_rng(2)
    V = rng.normal(size=(3, 3))
    J = V @ np.diag([1.0, 0.5, 0.3]) @ np.linalg.inv(V)  # I - J is singular but for rounding, and h is in its range
    found = find_cycles(alrnn(np.zeros(3), J, (np.eye(3) - J) @ rng.normal(size=3), n_relu=0), 3)
    assert len(found) == 0
    assert any("eigenvalue 1" in note for note in found.notes)


@pytest.mark.parametrize("corner", [0.1, 0.3, 1 / 3, 0.7, 1e3 / 7])
def test_a_collision_away_from_zero_is_one_fixed_point(corner):
    found = find_cycles(scalar(0.3, -2.1, corner, corner), 1)  # the corner is the fixed point of both sides, up to rounding
    assert [cycle.points[0, 0] for cycle in found] == pytest.approx([corner], rel=1e-12)
    assert any("border collision" in note for note in found.notes)


@pytest.mark.parametrize("key", range(4))
def test_a_solution_a_hair_beyond_the_border_leads_to_the_real_one(key):
    # x' = mu - x / 2 for x > 0, mu + x / 2 for x < 0, whose fixed point 2 mu lies beyond 0 by less than 1e-9 of the box; one start only
    mu = 4e-10
    found = find_cycles(scalar(0.5, -0.5, mu), 1, starts=1, box=([-1.0], [1.0]), key=key)
    assert [cycle.points[0, 0] for cycle in found] == pytest.approx([mu / 1.5], rel=1e-6)


def test_few_starts_are_enough_to_say_what_they_find():
    model = lozi(1.7, 0.5)
    for starts in (1, 2, 3, 9, 12):  # less than one for each of the eight periods in some round
        found = find_cycles(model, 8, starts=starts)
        assert found.status is Status.SUCCESS
        for cycle in found:
            np.testing.assert_allclose(step_lozi(cycle.points[-1], 1.7, 0.5), cycle.points[0], atol=1e-12)


@pytest.mark.parametrize(
    ("eigenvalues", "kind"),
    [
        ([np.exp(1j), np.exp(-1j)], "centre"),
        ([np.exp(1j), np.exp(-1j), 0.5], "centre"),
        ([1.0, 0.5 + 0.3j, 0.5 - 0.3j], "non-hyperbolic"),  # what turns is not what lies on the border
        ([2.0, np.exp(1j), np.exp(-1j)], "non-hyperbolic"),
        ([-1.0, 0.5], "non-hyperbolic"),
        ([2.0, 0.5 + 0.3j, 0.5 - 0.3j], "saddle-focus"),
        ([-2.0, -0.5], "saddle"),
        ([0.5 + 0.3j, 0.5 - 0.3j, 0.1], "stable spiral"),
        ([0.9, 0.5 + 0.3j, 0.5 - 0.3j], "stable node"),  # the slowest direction decides
        ([np.nan, np.nan], "non-hyperbolic"),
    ],
)
def test_kinds_by_their_eigenvalues(eigenvalues, kind):
    assert Cycle(np.zeros((1, len(eigenvalues))), np.array(eigenvalues, complex), 0.0).kind == kind


def test_nothing_found_divergence_and_linear_maps_are_explained():
    none = find_cycles(scalar(-2.0, 2.0, 1.0), 4)  # x' = 1 + 2 |x| > x: every orbit diverges
    assert none.status is Status.SUCCESS
    assert len(none) == 0
    assert "No cycle was found" in none.notes[-1]
    assert "more starts" in none.notes[-1]
    expanding = find_cycles(alrnn([3.0, 2.0], np.zeros((2, 2)), [1.0, 1.0]), 3)
    np.testing.assert_allclose(expanding.cycles[0].points, [[-0.5, -1.0]])
    assert expanding.cycles[0].kind == "unstable node"
    plain = find_cycles(alrnn([0.5, -0.5], np.zeros((2, 2)), [1.0, 1.0], n_relu=0), 3)
    np.testing.assert_allclose(plain.cycles[0].points, [[2.0, 2 / 3]])
    assert len(plain) == 1


class Cubic(AbstractMap):
    dim: int = 1
    n_obs: int = 1
    n_inputs: int = 0

    def step(self, z, u=None):
        return z - 0.1 * z**3

    def observe(self, z):
        return z

    def lift(self, x):
        return x


def test_other_maps_and_broken_parameters_are_explained():
    smooth = find_cycles(Cubic(), 2)
    assert smooth.status is Status.FAILED
    assert "not piecewise linear" in smooth.notes[0]
    assert "fixed_points" in smooth.notes[0]
    broken = find_cycles(alrnn([np.inf, 0.5], np.zeros((2, 2)), [0.0, 1.0]), 2)
    assert broken.status is Status.FAILED
    assert "not finite" in broken.notes[0]


def test_the_scale_of_the_state_does_not_matter():
    # the AL-RNN is homogeneous: h -> c h scales every cycle by c
    small, large = (find_cycles(alrnn(np.zeros(3), BENCH.lozi().W, factor * BENCH.lozi().h, 2), 6) for factor in (1e-5, 1e5))
    assert len(small) == len(large) == 8
    scaled = sorted(np.round(cycle.points[:, 1].max() * 1e5, 6) for cycle in small)
    np.testing.assert_allclose(scaled, sorted(np.round(cycle.points[:, 1].max() * 1e-5, 6) for cycle in large), atol=2e-6)


def test_settings():
    model = BENCH.lozi()
    only = find_cycles(model, periods=[6], starts=2000)
    assert {cycle.period for cycle in only} == {1, 2, 6}
    again = find_cycles(model, periods=[6], starts=2000)
    np.testing.assert_array_equal(only.cycles[-1].points, again.cycles[-1].points)
    orbit = np.array(jax.vmap(lambda x: jnp.stack([0.1 * x, x, -x]))(jnp.linspace(-0.5, 0.5, 50)))
    assert len(find_cycles(model, 4, states=orbit, starts=500)) >= 4
    boxed = find_cycles(model, 4, box=(np.full(3, -1.0), np.full(3, 1.5)), starts=500)
    assert dict(boxed.about)["box"] == ((-1.0,) * 3, (1.5,) * 3)
    few = find_cycles(model, 10, max_cycles=3)
    assert few.status is Status.MAX_STEPS
    assert "max_cycles=3" in few.notes[0]
    masked = find_cycles(MaskedALRNN.of(jax.tree.map(jnp.asarray, model)), 6)
    assert len(masked) == 8
    with jax.enable_x64(False):
        single = find_cycles(jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), model), 4)
    assert len(single) == 4
    assert all(cycle.residual < 1e-13 for cycle in single)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"periods": [0]}, "at least 1"),
        ({"periods": []}, "at least 1"),
        ({"starts": 0}, "starts, iterations and max_cycles >= 1"),
        ({"tolerance": 0.0}, "tolerance > 0"),
        ({"states": np.zeros((5, 2))}, r"shape \(T, 3\)"),
        ({"box": (np.zeros(3), np.zeros(3))}, "low < high"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(InvalidValue, match=message):
        find_cycles(ALRNN.init(3, dim=3, n_relu=2, key=jr.key(0)), 3, **settings)

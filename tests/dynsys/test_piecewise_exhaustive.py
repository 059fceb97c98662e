"""Exhaustive cycles: counts and multipliers of the tent map by formula, brute force over all words of regions, ill-posed maps."""

import itertools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from dynsys.analysis.piecewise import all_cycles, regions_in_box
from dynsys.analysis.piecewise.polytope import box, cut
from dynsys.analysis.piecewise.words import canonical
from dynsys.dynamics import AbstractMap
from dynsys.errors import InvalidValue
from dynsys.models.alrnn import ALRNN
from dynsys.models.observation import IdentityObservation
from dynsys.models.shallow import ShallowPLRNN
from dynsys.status import Status

NECKLACES = [2, 1, 2, 3, 6, 9, 18, 30]  # (1/k) sum_{d | k} mu(k/d) 2^d: cycles of the full shift on two symbols
PEAK = 0.4


def scalar(left, right, offset, corner=0.0):
    """x' = offset + left (x - corner) for x < corner, with slope right beyond: a shallow PLRNN with one unit."""
    numbers = {"A": [left], "W1": [[right - left]], "W2": [[1.0]], "h1": [offset - left * corner], "h2": [-corner], "C": np.zeros((1, 0))}
    return ShallowPLRNN(**{name: np.array(value) for name, value in numbers.items()}, observation=IdentityObservation(n_obs=1, dim=1))


def tent():
    """The skew tent map of [0, 1] with its peak at 0.4."""
    return scalar(1 / PEAK, -1 / (1 - PEAK), 1.0, PEAK)


def shallow(seed, dim, hidden, gain):
    rng = np.random.default_rng(seed)
    W1, W2 = gain * rng.normal(size=(dim, hidden)) / np.sqrt(hidden), rng.normal(size=(hidden, dim))
    rest = {"h1": rng.normal(size=dim), "h2": rng.normal(size=hidden), "C": np.zeros((dim, 0))}
    return ShallowPLRNN(A=rng.uniform(-0.9, 0.9, dim), W1=W1, W2=W2, observation=IdentityObservation(n_obs=dim, dim=dim), **rest)


def linear(A, W, h):
    dim = len(h)
    seen = IdentityObservation(n_obs=dim, dim=dim)
    return ALRNN(A=np.array(A, float), W=np.array(W, float), h=np.array(h, float), C=np.zeros((dim, 0)), observation=seen, n_relu=1)


def brute(model, max_period, low, high):
    """Canonical words of all cycles inside the box, by solving every word over the regions that meet it."""
    codes = regions_in_box(model, low, high).codes
    maps = [tuple(np.asarray(part) for part in model.affine(jnp.asarray(code))) for code in codes]
    found = set()
    for k in range(1, max_period + 1):
        for word in itertools.product(range(len(codes)), repeat=k):
            J, c = np.eye(model.dim), np.zeros(model.dim)
            for r in word:
                J, c = maps[r][0] @ J, maps[r][0] @ c + maps[r][1]
            z = np.linalg.solve(np.eye(model.dim) - J, c)
            for r in word:
                inside = (z > low).all() and (z < high).all()
                if not inside or not np.array_equal(np.asarray(model.W2) @ z + np.asarray(model.h2) > 0, codes[r]):
                    break
                z = maps[r][0] @ z + maps[r][1]
            else:
                letters = codes[list(word)]
                if not any(k % d == 0 and np.array_equal(letters, np.roll(letters, d, axis=0)) for d in range(1, k)):
                    found.add(canonical(letters))
    return found


def test_the_full_tent_map_has_all_cycles_with_known_multipliers():
    found = all_cycles(tent(), 8, box=([-0.1], [1.1]))
    assert found.status is Status.SUCCESS
    assert [len(found.of_period(k)) for k in range(1, 9)] == NECKLACES
    for cycle in found:
        x = cycle.points[:, 0]
        np.testing.assert_allclose(np.where(x < PEAK, x / PEAK, (1 - x) / (1 - PEAK)), np.roll(x, -1), atol=1e-13)
        slopes = np.where(x < PEAK, 1 / PEAK, -1 / (1 - PEAK))
        np.testing.assert_allclose(cycle.eigenvalues, [np.prod(slopes)], rtol=1e-12)
        np.testing.assert_array_equal(cycle.regions[:, 0], x > PEAK)
        assert cycle.residual < 1e-13
        assert min(np.abs(x - np.roll(x, s)).max() for s in range(1, len(x))) > 1e-6 if len(x) > 1 else True  # least period


def test_every_word_of_a_period_is_another_cycle():
    found = all_cycles(tent(), 7, box=([-0.1], [1.1]))
    words = {cycle.regions.tobytes() for cycle in found.of_period(7)}
    shifts = {np.roll(cycle.regions, s, axis=0).tobytes() for cycle in found.of_period(7) for s in range(7)}
    assert len(words) == 18
    assert len(shifts) == 2**7 - 2  # every binary word but the two constant ones


@pytest.mark.parametrize("seed", [18, 26, 31, 38])
def test_against_brute_force_over_words(seed):
    model, low, high = shallow(seed, 2, 3, 3.0), np.full(2, -4.0), np.full(2, 4.0)
    found = all_cycles(model, 4, box=(low, high))
    inside = [cycle for cycle in found if ((cycle.points > low) & (cycle.points < high)).all()]
    expected = brute(model, 4, low, high)
    assert {canonical(cycle.regions) for cycle in inside} == expected
    assert len(inside) == len(expected)


def test_brute_force_cases_have_cycles_of_several_periods():
    low, high = np.full(2, -4.0), np.full(2, 4.0)
    periods = [cycle.period for seed in (18, 26, 31, 38) for cycle in all_cycles(shallow(seed, 2, 3, 3.0), 4, box=(low, high))]
    assert set(periods) == {1, 2, 3, 4}


def test_all_codes_give_the_fixed_points_in_any_dimension():
    model = ALRNN.init(2, dim=12, n_relu=8, key=jr.key(0))
    rng = np.random.default_rng(14)
    model = ALRNN(A=model.A, W=rng.normal(size=(12, 12)) * 0.5, h=rng.normal(size=12), C=model.C, observation=model.observation, n_relu=8)
    found = all_cycles(model, 1)
    expected = []
    for code in itertools.product([False, True], repeat=8):
        J = np.diag(np.asarray(model.A)) + model.W * np.r_[np.ones(4), code][None]
        z = np.linalg.solve(np.eye(12) - J, model.h)
        if np.array_equal(z[4:] > 0, code):
            expected.append(z)
    assert len(found) == len(expected) == 10
    for cycle in found:
        assert min(np.abs(cycle.points[0] - z).max() for z in expected) < 1e-10


def test_the_budget_and_the_size_are_explained():
    few = all_cycles(tent(), 8, box=([-0.1], [1.1]), limit=20)
    assert few.status is Status.MAX_STEPS
    assert "limit=20" in few.notes[0]
    large = all_cycles(ALRNN.init(2, dim=5, n_relu=2, key=jr.key(0)), 2)
    assert large.status is Status.FAILED
    assert "find_cycles" in large.notes[0]


def test_the_default_box_holds_the_attractor():
    assert [len(all_cycles(tent(), 4).of_period(k)) for k in range(1, 5)] == NECKLACES[:4]


def test_an_eigenvalue_one_is_a_note():
    for h, line in (([0.5, 1.0], "no"), ([0.0, 1.0], "a line of")):  # x' = x + h_0, y' = y/2 + h_1: no fixed point, a line of them
        found = all_cycles(linear([1.0, 0.5], np.zeros((2, 2)), h), 2, box=(np.full(2, -3.0), np.full(2, 3.0)))
        assert found.status is Status.SUCCESS, line
        assert len(found) == 0
        assert any("eigenvalue 1" in note for note in found.notes)


def test_a_border_collision_is_one_fixed_point_and_a_note():
    # x' = mu + slope x with slopes 0.5 and -2: a fixed point on either side for mu < 0 and mu > 0; both meet at x = 0 for mu = 0
    at = {mu: all_cycles(scalar(0.5, -2.0, mu), 1) for mu in (-1.0, 0.0, 1.0)}
    assert [cycle.points[0, 0] for cycle in at[-1.0]] == pytest.approx([-2.0])
    assert [cycle.points[0, 0] for cycle in at[1.0]] == pytest.approx([1 / 3])
    assert [cycle.points[0, 0] for cycle in at[0.0]] == pytest.approx([0.0], abs=1e-14)
    assert any("border collision" in note for note in at[0.0].notes)
    assert not any("border collision" in note for note in (*at[1.0].notes, *at[-1.0].notes))


def test_a_solution_a_hair_beyond_the_border_is_no_fixed_point():
    # slopes 1.5 and -0.5: fixed points -2 mu and mu / 1.5 for mu > 0, none for mu < 0; here all within 1e-9 of the box of the border
    box = ([-1.0], [1.0])
    assert len(all_cycles(scalar(1.5, -0.5, -4e-10), 2, box=box)) == 0
    # slopes 0.5 and -0.5: mu / 1.5 alone, though 2 mu solves the other side's equation
    (one,) = (found := all_cycles(scalar(0.5, -0.5, 4e-10), 2, box=box)).cycles
    assert one.points[0, 0] == pytest.approx(4e-10 / 1.5, rel=1e-6)
    assert one.residual < 1e-15
    assert found.notes[0].startswith("1 cycles (periods [1]) have a point on a switching manifold")


class Logistic(AbstractMap):
    dim: int = 1
    n_obs: int = 1
    n_inputs: int = 0

    def step(self, z, u=None):
        return 4 * z * (1 - z)

    def observe(self, z):
        return z

    def lift(self, x):
        return x


def test_other_maps_and_broken_parameters_are_explained():
    smooth = all_cycles(Logistic(), 2)
    assert smooth.status is Status.FAILED
    assert "fixed_points" in smooth.notes[0]
    broken = all_cycles(linear([np.nan, 0.5], np.zeros((2, 2)), [0.0, 1.0]), 2)
    assert broken.status is Status.FAILED
    assert "not finite" in broken.notes[0]
    with pytest.raises(InvalidValue, match="max_period >= 1"):
        all_cycles(tent(), 0)
    with pytest.raises(InvalidValue, match="low < high"):
        all_cycles(tent(), 2, box=([1.0], [0.0]))


def test_single_precision_models_are_solved_in_double():
    with jax.enable_x64(False):
        single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tent())
        found = all_cycles(single, 3, box=([-0.1], [1.1]))
    assert len(found) == 5
    assert all(cycle.residual < 1e-14 and cycle.points.dtype == np.float64 for cycle in found)


def test_a_cut_cube():
    cube = box(np.zeros(3), np.ones(3))
    corner = cube.carrying((cube.vertices.sum(axis=1) - 0.5)[:, None])
    below, above = cut(corner, 0, 1e-12)
    assert below is not None
    assert above is not None
    assert len(below.vertices) == 4  # a tetrahedron
    assert len(above.vertices) == 10  # a cube without one corner
    through = cube.carrying((cube.vertices @ [1.0, -1.0, 0.0])[:, None])  # through four corners: two prisms
    assert [len(part.vertices) for part in cut(through, 0, 1e-12)] == [6, 6]
    missed = cube.carrying((cube.vertices.sum(axis=1) + 0.0)[:, None])  # touches the corner 0 only
    assert cut(missed, 0, 1e-12) == (None, missed)


def test_cuts_through_common_corners_leave_simplices():
    # x > y, y > z, x > z: all through the diagonal of the cube, whose ends then lie on up to five constraints
    cube = box(np.zeros(3), np.ones(3))
    parts = [cube.carrying(cube.vertices @ np.array([[1.0, 0.0, 1.0], [-1.0, 1.0, 0.0], [0.0, -1.0, -1.0]]))]
    for function in range(3):
        parts = [part for whole in parts for part in cut(whole, function, 1e-12) if part is not None]
    assert [len(part.vertices) for part in parts] == [4] * 6  # the six orders of three numbers

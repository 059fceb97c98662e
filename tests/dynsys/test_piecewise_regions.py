"""Regions: counts by formula (Zaslavsky), feasibility by linear programming, and the model's own codes."""

import itertools
import time
from math import comb

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.optimize import linprog

from dynsys.analysis.piecewise import regions, regions_in_box, visited_regions
from dynsys.dynamics import AbstractMap
from dynsys.errors import InvalidValue
from dynsys.models.alrnn import ALRNN
from dynsys.models.dendritic import ClippedDendriticPLRNN
from dynsys.models.observation import IdentityObservation
from dynsys.models.shallow import ClippedShallowPLRNN, ShallowPLRNN
from dynsys.status import Status


def shallow(W2, h2, kind=ShallowPLRNN):
    W2, h2 = np.asarray(W2, float), np.asarray(h2, float)
    hidden, dim = W2.shape
    rest = {"A": np.full(dim, 0.5), "W1": np.ones((dim, hidden)), "h1": np.zeros(dim), "C": np.zeros((dim, 0))}
    return kind(W2=W2, h2=h2, observation=IdentityObservation(n_obs=dim, dim=dim), **rest)


def alrnn(dim, n_relu):
    return ALRNN.init(2, dim=dim, n_relu=n_relu, key=jr.key(0))


class Smooth(AbstractMap):
    dim: int = 2
    n_obs: int = 2
    n_inputs: int = 0

    def step(self, z, u=None):
        return jnp.tanh(z)

    def observe(self, z):
        return z

    def lift(self, x):
        return x


def listed(found):
    return {tuple(code) for code in np.asarray(found.codes).tolist()}


def feasible(model, low, high):
    """The codes of the cells of the open box that have a ball of radius 1e-7 inside, by one linear program a code."""
    normals, offsets = (np.asarray(part) for part in model.switching())
    length = np.linalg.norm(normals, axis=1)
    found = set()
    for code in itertools.product([False, True], repeat=len(offsets)):
        sign = np.where(code, -1.0, 1.0)
        rows, right = np.c_[sign[:, None] * normals, length], -sign * offsets
        borders = np.r_[np.c_[np.eye(len(low)), np.ones(len(low))], np.c_[-np.eye(len(low)), np.ones(len(low))]]
        bounds = [(None, None)] * len(low) + [(0, 1)]
        best = linprog(np.r_[np.zeros(len(low)), -1.0], np.r_[rows, borders], np.r_[right, high, -np.asarray(low)], bounds=bounds)
        if best.status == 0 and -best.fun > 1e-7:
            found.add(code)
    return found


@pytest.mark.parametrize(("dim", "n_relu"), [(4, 3), (40, 40)])  # one word of 32 bits, two words
def test_labels_are_the_models_own_codes_by_falling_count(dim, n_relu):
    model = alrnn(dim, n_relu)
    states = np.repeat(np.random.default_rng(0).normal(size=(50, dim)), np.arange(1, 51), axis=0)
    found = visited_regions(model, states)
    np.testing.assert_array_equal(found.codes[found.labels], np.asarray(jax.vmap(model.region)(jnp.asarray(states))))
    assert len(found) == len(listed(found))
    assert (np.diff(found.counts) <= 0).all()
    np.testing.assert_array_equal(np.bincount(found.labels), found.counts)


def test_states_that_are_not_finite_have_no_region():
    states = np.array([[1.0, 1.0], [np.nan, 1.0], [-1.0, 1.0], [1.0, np.inf], [1.0, 2.0]])
    found = visited_regions(alrnn(2, 2), states)
    np.testing.assert_array_equal(found.labels, [0, -1, 1, -1, 0])
    np.testing.assert_array_equal(found.codes, [[True, True], [False, True]])
    assert len(visited_regions(alrnn(2, 2), np.full((3, 2), np.nan))) == 0


def test_two_codes_with_one_hash_stay_two(monkeypatch):
    model = alrnn(40, 40)
    states = np.random.default_rng(0).normal(size=(300, 40))
    expected = visited_regions(model, states)
    monkeypatch.setattr(regions, "_hashed", lambda words: np.zeros(len(words), np.uint64))
    found = visited_regions(model, states)
    np.testing.assert_array_equal(found.codes[found.labels], expected.codes[expected.labels])
    assert len(found) == len(expected) == 300


def test_a_million_states_within_a_second():
    model, states = alrnn(20, 10), np.random.default_rng(0).normal(size=(1_000_000, 20))
    clock = []
    for _ in range(3):
        begin = time.process_time()
        found = visited_regions(model, states)
        clock.append(time.process_time() - begin)
    assert len(found) == 2**10
    assert found.counts.sum() == 1_000_000
    assert min(clock) < 1.0  # 0.08 s of processor time


@pytest.mark.parametrize(("dim", "rows"), [(1, 5), (2, 7), (3, 6), (4, 6)])
def test_general_position_has_zaslavskys_number(dim, rows):
    rng = np.random.default_rng(dim)
    W2, h2 = rng.normal(size=(rows, dim)), rng.normal(size=rows)
    corners = [np.linalg.solve(W2[list(some)], -h2[list(some)]) for some in itertools.combinations(range(rows), dim)]
    reach = 2.0 * np.abs(corners).max() * np.ones(dim)  # every vertex lies inside, and so every region
    found = regions_in_box(shallow(W2, h2), -reach, reach)
    assert found.status is Status.SUCCESS
    assert len(found) == len(listed(found)) == sum(comb(rows, i) for i in range(dim + 1))


@pytest.mark.parametrize(("dim", "rows"), [(2, 5), (3, 6), (4, 5)])
def test_hyperplanes_through_one_point(dim, rows):
    # not simple: all cells share a vertex. 2 sum_{i < M} C(R - 1, i) (Cover 1965)
    W2 = np.random.default_rng(rows).normal(size=(rows, dim))
    found = regions_in_box(shallow(W2, np.zeros(rows)), -np.ones(dim), np.ones(dim))
    assert len(listed(found)) == 2 * sum(comb(rows - 1, i) for i in range(dim))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("kind", "rows"), [(ShallowPLRNN, 6), (ClippedShallowPLRNN, 3)])
def test_a_small_box_against_linear_programs(seed, kind, rows):
    rng = np.random.default_rng(seed)
    model = shallow(rng.normal(size=(rows, 3)), rng.normal(size=rows), kind)
    low = rng.normal(size=3) - 1.0
    assert listed(regions_in_box(model, low, low + 2.0)) == feasible(model, low, low + 2.0)


def test_equal_hyperplanes_and_rows_of_zeros():
    plain = [[1.0, 1.0], [1.0, -2.0]]
    model = shallow([*plain, [2.0, 2.0], [-1.0, -1.0], [0.0, 0.0], [0.0, 0.0]], [0.0, 0.1, 0.0, 0.0, 1.0, -1.0])
    found = regions_in_box(model, -np.ones(2), np.ones(2))
    expected = {(a, b, a, not a, True, False) for a, b in listed(regions_in_box(shallow(plain, [0.0, 0.1]), -np.ones(2), np.ones(2)))}
    assert listed(found) == expected
    assert len(expected) == 4


def test_coordinate_planes_are_products():
    model = alrnn(12, 10)
    assert len(listed(regions_in_box(model, -np.ones(12), np.ones(12)))) == 2**10
    assert listed(regions_in_box(model, np.full(12, 0.1), np.ones(12))) == {(True,) * 10}
    cut = regions_in_box(model, -np.ones(12), np.ones(12), limit=100)
    assert cut.status is Status.MAX_STEPS
    assert len(listed(cut)) == 100
    assert "1024 regions" in cut.notes[0]
    huge = regions_in_box(alrnn(1100, 1100), -np.ones(1100), np.ones(1100), limit=10)  # 2^1100 is beyond the floating-point numbers
    assert huge.status is Status.MAX_STEPS
    assert len(listed(huge)) == 10
    assert "about 10^331 regions" in huge.notes[0]
    thresholds = ClippedDendriticPLRNN.init(2, dim=3, bases=4, key=jr.key(1))
    low, high = np.array([-1.0, -2.0, -3.0]), np.array([1.5, 2.5, 0.5])
    at = np.concatenate([np.asarray(thresholds.H), np.zeros((1, 3))])
    inside = ((at > low) & (at < high)).sum(axis=0)
    found = regions_in_box(thresholds, low, high)
    assert len(listed(found)) == np.prod(np.add(inside, 1))
    sampled = visited_regions(thresholds, np.random.default_rng(0).uniform(low, high, (200_000, 3)))
    assert listed(sampled) <= listed(found)
    assert len(sampled) == len(found)


def test_what_can_not_be_listed_is_explained():
    wide = regions_in_box(ShallowPLRNN.init(2, dim=9, hidden=4, key=jr.key(0)), -np.ones(9), np.ones(9))
    assert wide.status is Status.FAILED
    assert "visited_regions" in wide.notes[0]
    many = regions_in_box(shallow(np.random.default_rng(0).normal(size=(9, 2)), np.zeros(9)), -np.ones(2), np.ones(2), limit=5)
    assert many.status is Status.MAX_STEPS
    assert "more than 5 regions" in many.notes[0]
    smooth = regions_in_box(Smooth(), -np.ones(2), np.ones(2))
    assert smooth.status is Status.FAILED
    assert "fixed_points" in smooth.notes[0]
    linear = regions_in_box(alrnn(3, 0), -np.ones(3), np.ones(3))
    assert linear.codes.shape == (1, 0)


def test_bad_input_is_named():
    model = alrnn(3, 2)
    with pytest.raises(InvalidValue, match=r"states must have shape \(T, 3\), got \(5, 2\)"):
        visited_regions(model, np.zeros((5, 2)))
    with pytest.raises(InvalidValue, match="low < high"):
        regions_in_box(model, np.ones(3), np.zeros(3))
    with pytest.raises(InvalidValue, match=r"shape \(3,\)"):
        regions_in_box(model, np.zeros(2), np.ones(2))
    with pytest.raises(InvalidValue, match="not piecewise linear"):
        visited_regions(Smooth(), np.zeros((5, 2)))

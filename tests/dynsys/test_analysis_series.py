"""Dimension and exponent of a series alone: uniform sets, maps with known values, Lorenz, and brute force on small sets."""

import numpy as np
import pytest

from dynsys.analysis import correlation_dimension, maximal_exponent_from_data
from dynsys.analysis.dimension import _pair_counts, takens
from dynsys.analysis.exponent_from_data import neighbour_pairs
from dynsys.analysis.neighbours import default_theiler, embed
from dynsys.errors import InvalidValue
from dynsys.integrate import simulate_system


@pytest.fixture(scope="module")
def lorenz():
    return np.asarray(simulate_system("Lorenz", 100_000, dt=0.02, rtol=1e-8, atol=1e-8).trajectories[0])


def henon(points):
    states, (x, y) = np.empty((points, 2)), (0.1, 0.1)
    for t in range(points + 100):
        x, y = 1.0 - 1.4 * x * x + y, 0.3 * x
        states[max(0, t - 100)] = x, y
    return states


def logistic(points, x=0.3):
    states = np.empty(points)
    for t in range(points):
        states[t] = x = 4.0 * x * (1.0 - x)
    return states


@pytest.mark.parametrize(("dimension", "tolerance"), [(1, 0.01), (2, 0.04), (3, 0.1)])
def test_uniform_cubes_have_their_dimension(dimension, tolerance):
    # C(r) of a cube falls below the pure power near its faces: the slope lies a little under the dimension
    points = np.random.default_rng(0).random((15_000, dimension))
    found = correlation_dimension(points, theiler=0)
    assert found.dimension == pytest.approx(dimension, abs=tolerance)
    assert found.takens == pytest.approx(dimension, abs=2 * tolerance)
    assert found.fit[1] / found.fit[0] > 7.9


def test_a_circle_is_a_line_and_a_torus_a_surface():
    t = 0.37 * np.arange(8_000)
    circle = np.stack([np.cos(t), np.sin(t)], axis=1)
    assert correlation_dimension(circle, theiler=0).dimension == pytest.approx(1.0, abs=0.02)
    torus = np.concatenate([circle, np.cos(2**0.5 * t)[:, None], np.sin(2**0.5 * t)[:, None]], axis=1)
    assert correlation_dimension(torus, theiler=0).dimension == pytest.approx(2.0, abs=0.08)


def test_henon_lies_between_the_published_values():
    # Grassberger & Procaccia 1983: 1.21 +- 0.01 (1.25 +- 0.02 by their fit at smaller radii)
    states = henon(40_000)
    found = correlation_dimension(states)
    assert 1.18 < found.dimension < 1.26
    assert found.takens == pytest.approx(found.dimension, abs=0.03)
    # delays of one coordinate of Henon are the other coordinate, scaled
    assert correlation_dimension(states[:, 0], dimension=2).dimension == pytest.approx(found.dimension, abs=0.05)


def test_lorenz_has_dimension_2_05(lorenz):
    found = correlation_dimension(lorenz)
    assert found.dimension == pytest.approx(2.05, abs=0.05)
    assert 0 < found.error < 0.1
    assert found.points <= 30_000
    assert found.every == 4
    inside = (found.radii >= found.fit[0]) & (found.radii <= found.fit[1])
    line = np.polyfit(np.log(found.radii[inside]), np.log(found.sums[inside]), 1)[0]
    assert line == pytest.approx(found.dimension, rel=1e-9)
    again = correlation_dimension(lorenz, fit=found.fit)
    assert again.dimension == pytest.approx(found.dimension, rel=1e-9)


def test_pairs_are_counted_as_by_brute_force():
    states = np.random.default_rng(1).random((200, 2))
    radii, lags = np.array([0.05, 0.1, 0.3, 0.5]), 3
    distance = np.linalg.norm(states[:, None] - states[None], axis=2)
    apart = np.abs(np.subtract.outer(np.arange(200), np.arange(200))) > lags
    groups = np.array_split(np.arange(200), 8)
    wanted = [[(distance[g] <= r)[apart[g]].sum() for r in radii] for g in groups]
    np.testing.assert_array_equal(_pair_counts(states, radii, lags), wanted)


def test_takens_of_a_power_law_is_its_power():
    radii = 2.0 ** np.arange(-8, 1)
    sums = radii**1.7
    assert takens(sums, np.diff(np.log(sums)) / np.diff(np.log(radii))) == pytest.approx(1.7)


def test_neighbours_are_the_nearest_outside_the_window():
    states = np.random.default_rng(2).random((300, 2)).cumsum(0) * 0.05
    first, second = neighbour_pairs(states, 250, 12, 250)
    distance = np.linalg.norm(states[:250, None] - states[None, :250], axis=2)
    distance[np.abs(np.subtract.outer(np.arange(250), np.arange(250))) <= 12] = np.inf
    np.testing.assert_array_equal(first, np.arange(250))
    np.testing.assert_array_equal(second, distance.argmin(1))


def test_exponent_of_the_logistic_map_is_ln_2():
    found = maximal_exponent_from_data(logistic(5000))
    assert found.exponent == pytest.approx(np.log(2), rel=0.05)
    assert abs(found.exponent - np.log(2)) < 5 * found.error + 0.01
    assert found.times[0] == 0
    assert len(found.curve) == len(found.times)


def test_exponent_of_lorenz_from_its_states_and_from_one_coordinate(lorenz):
    found = maximal_exponent_from_data(lorenz[:30_000], dt=0.02)
    assert found.exponent == pytest.approx(0.906, rel=0.1)
    assert found.error < 0.1
    line = (found.times >= found.fit[0]) & (found.times <= found.fit[1])
    assert np.polyfit(found.times[line], found.curve[line], 1)[0] == pytest.approx(found.exponent, rel=1e-9)
    assert found.curve[line].max() < found.saturation
    embedded = maximal_exponent_from_data(lorenz[:30_000, 0], dt=0.02, delay=5, dimension=4)
    assert embedded.exponent == pytest.approx(0.906, rel=0.15)


def test_exponent_counts_time_in_units_of_dt_and_takes_a_given_fit():
    series = henon(5000)
    one, two = (maximal_exponent_from_data(series, dt=dt, fit=(2 * dt, 9 * dt)) for dt in (1.0, 0.5))
    assert two.exponent == pytest.approx(2 * one.exponent, rel=1e-9)
    assert one.fit == (2.0, 9.0)
    assert one.exponent == pytest.approx(0.419, rel=0.05)


def test_a_torus_has_exponent_zero():
    t = 0.1 * np.arange(5000)
    torus = np.stack([np.cos(t), np.sin(t), np.cos(2**0.5 * t), np.sin(2**0.5 * t)], axis=1)
    assert abs(maximal_exponent_from_data(torus, dt=0.1).exponent) < 1e-6  # two rotations are an isometry


def test_the_default_window_is_the_mean_period():
    assert default_theiler(np.cos(2 * np.pi * np.arange(4000) / 40)[:, None]) == pytest.approx(40, abs=1)


def test_embedding_by_its_definition():
    vectors = embed("here", np.arange(200.0)[:, None], 3, 3)
    np.testing.assert_array_equal(vectors[0], [0, 3, 6])
    assert vectors.shape == (194, 3)


@pytest.mark.parametrize("measure", [correlation_dimension, maximal_exponent_from_data])
def test_bad_series_and_settings_are_named(measure):
    series = henon(500)
    for wrong, words in (
        (np.full(500, 1.0), "constant"),
        (np.full(500, np.nan), "NaN"),
        (series[:20], "shape"),
        (np.zeros((3, 9, 2)), "shape"),
    ):
        with pytest.raises(InvalidValue, match=words):
            measure(wrong)
    for settings in (
        {"theiler": -1},
        {"delay": 0},
        {"dimension": 0},
        {"fit": (1e9, 2e9)},
        {"theiler": 400},
        {"delay": 300, "dimension": 3},
    ):
        with pytest.raises(InvalidValue, match=measure.__name__):
            measure(series, **settings)
    with pytest.raises(InvalidValue, match="dt"):
        maximal_exponent_from_data(series, dt=0.0)
    with pytest.raises(InvalidValue, match="largest"):
        correlation_dimension(series, largest=2.0)

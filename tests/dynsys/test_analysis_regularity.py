"""0-1 test, sample entropy, order parameter: known regimes, closed forms, brute force by the definition."""

import numpy as np
import pytest
from scipy.special import erf

from dynsys.analysis import kuramoto_order, sample_entropy, zero_one_test
from dynsys.analysis.zero_one import displacements
from dynsys.errors import InvalidValue


def logistic(r, points, x=0.3, transient=1000):
    states = np.empty(points)
    for t in range(points + transient):
        x = r * x * (1.0 - x)
        states[max(0, t - transient)] = x
    return states


@pytest.mark.parametrize(("r", "chaos"), [(4.0, True), (3.97, True), (3.55, False), (3.83, False)])
def test_zero_one_tells_chaos_from_cycles_of_the_logistic_map(r, chaos):
    found = zero_one_test(logistic(r, 3000))
    assert found.every == 1
    assert found.K > 0.95 if chaos else abs(found.K) < 0.05


def test_zero_one_is_near_zero_for_two_frequencies_and_near_one_for_a_fine_chaotic_flow():
    t = np.arange(5000)
    assert abs(zero_one_test(np.sin(t) + np.cos(2**0.5 * t)).K) < 0.05
    state, xs = np.array([1.0, 2.0, 20.0]), np.empty(30_000)

    def field(z):
        return np.array([10.0 * (z[1] - z[0]), z[0] * (28.0 - z[2]) - z[1], z[0] * z[1] - 8 / 3 * z[2]])

    for k in range(len(xs)):
        a = field(state)
        b = field(state + 0.01 * a)
        state = state + 0.01 * (a + b) / 2 * 1.0
        xs[k] = state[0]
    fine = zero_one_test(xs)
    assert fine.K > 0.95
    assert fine.every > 5
    assert zero_one_test(xs, every=1).K < fine.K  # sampled too finely, chaos looks regular


def test_displacements_by_their_definition():
    walk = np.cumsum(np.random.default_rng(0).standard_normal(300) * (1 + 2j)) + 50
    wanted = [np.mean(np.abs(walk[n : n + 270] - walk[:270]) ** 2) for n in range(1, 31)]
    np.testing.assert_allclose(displacements(walk, 30), wanted, rtol=1e-9)


def test_zero_one_does_not_see_an_added_constant_or_scale():
    series = logistic(3.7, 2000)
    # the oscillating term that the mean drives is subtracted
    shifted, scaled = zero_one_test(series + 3.0).K, zero_one_test(5 * series).K
    np.testing.assert_allclose(shifted, scaled, atol=0.02)


@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize("delay", [1, 2])
def test_sample_entropy_by_its_definition(dimension, delay):
    x = np.random.default_rng(3).random(150)
    found = sample_entropy(x, dimension=dimension, delay=delay, tolerance=0.4)
    rows, r, a, b = len(x) - dimension * delay, 0.4 * x.std(), 0, 0
    for i in range(rows):
        for j in range(i):
            same = [abs(x[i + k * delay] - x[j + k * delay]) <= r for k in range(dimension + 1)]
            b += all(same[:dimension])
            a += all(same)
    assert (found.longer, found.shorter) == (a, b)
    assert found.entropy == pytest.approx(-np.log(a / b))


def test_sample_entropy_of_white_noise_is_the_closed_form():
    # P(|X - Y| <= r) = erf(r / (2 s)) for two independent normal numbers of deviation s
    runs = [sample_entropy(np.random.default_rng(k).standard_normal(1500)) for k in range(16)]
    values, errors = np.array([run.entropy for run in runs]), np.array([run.error for run in runs])
    wanted = -np.log(erf(0.1))
    assert values.mean() == pytest.approx(wanted, abs=4 * errors.mean() / 4)
    assert 0.25 < values.std() / errors.mean() < 1.5  # the error bar has the size of the scatter, and is rather too large


def test_sample_entropy_ends_of_the_scale():
    period = np.tile([0.0, 1.0, 3.0, 2.0], 100)
    assert sample_entropy(period).entropy == pytest.approx(0.0, abs=1e-12)
    rare = sample_entropy(np.random.default_rng(0).random(60), dimension=3, tolerance=0.02)
    assert not np.isfinite(rare.entropy)
    assert rare.longer == 0


def test_order_parameter_by_formula():
    t = np.linspace(0.0, 3.0, 50)
    together = kuramoto_order(np.stack([t, t, t + 2 * np.pi], axis=1))
    np.testing.assert_allclose(together.r, 1.0)
    np.testing.assert_allclose(together.psi, np.angle(np.exp(1j * t)), atol=1e-12)
    spread = 2 * np.pi * np.arange(5) / 5
    np.testing.assert_allclose(kuramoto_order(t[:, None] + spread[None]).r, 0.0, atol=1e-12)
    np.testing.assert_allclose(kuramoto_order(t[:, None] + spread[None], harmonic=5).r, 1.0)
    gap = 0.8
    pair = kuramoto_order(np.stack([t - gap / 2, t + gap / 2], axis=1))
    np.testing.assert_allclose(pair.r, np.cos(gap / 2))
    assert pair.mean == pytest.approx(np.cos(gap / 2))


def test_order_parameter_of_independent_phases():
    # |mean of N unit vectors|^2 has mean 1 / N
    phases = np.random.default_rng(0).uniform(-np.pi, np.pi, (4000, 100))
    assert (kuramoto_order(phases).r ** 2).mean() == pytest.approx(1 / 100, rel=0.08)


def test_bad_input_is_named():
    x = logistic(4.0, 500)
    for call, words in (
        (lambda: zero_one_test(np.stack([x, x], 1)), "one observation"),
        (lambda: zero_one_test(x, n_cut=400), "n_cut"),
        (lambda: zero_one_test(x, every=0), "every"),
        (lambda: zero_one_test(x[:100]), "200"),
        (lambda: sample_entropy(np.stack([x, x], 1)), "one observation"),
        (lambda: sample_entropy(x, tolerance=0.0), "tolerance"),
        (lambda: sample_entropy(x, dimension=480), "stretches"),
        (lambda: kuramoto_order(x), r"\(T, N\)"),
        (lambda: kuramoto_order(np.full((4, 2), np.inf)), "inf"),
        (lambda: kuramoto_order(np.zeros((4, 2)), harmonic=0), "harmonic"),
    ):
        with pytest.raises(InvalidValue, match=words):
            call()

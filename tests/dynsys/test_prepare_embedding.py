"""Embedding rules on systems whose answers are known: a sine wave, Hénon, Lorenz, Rössler, noise."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dynsys.errors import DataError, InvalidValue, UnknownName
from dynsys.prepare import embedding, filters, neighbours
from dynsys_datasets.samples import load_sample


def henon(points):
    x = np.zeros((points + 100, 2))
    for t in range(points + 99):
        x[t + 1] = 1 - 1.4 * x[t, 0] ** 2 + x[t, 1], 0.3 * x[t, 0]
    return x[100:, :1]


def lorenz(points, dt):
    """Classical Runge-Kutta with steps of at most 0.01; the first 10 time units are left out."""
    substeps = max(1, round(dt / 0.01))
    h, state, found = dt / substeps, (1.0, 1.0, 20.0), []

    def field(x, y, z):
        return 10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z

    for _ in range(points + round(10 / dt)):
        for _sub in range(substeps):
            a = field(*state)
            b = field(*(s + h / 2 * v for s, v in zip(state, a, strict=True)))
            c = field(*(s + h / 2 * v for s, v in zip(state, b, strict=True)))
            d = field(*(s + h * v for s, v in zip(state, c, strict=True)))
            state = tuple(s + h / 6 * (p + 2 * q + 2 * r + v) for s, p, q, r, v in zip(state, a, b, c, d, strict=True))
        found.append(state)
    return np.array(found[-points:])


@pytest.fixture(scope="module")
def lorenz_x():
    return lorenz(8000, 0.02)[:, :1]


def sine(points, period, phase=0.3):
    return np.sin(2 * np.pi * np.arange(points) / period + phase)[:, None]


def test_embed_is_the_literal_loop():
    x = np.random.default_rng(0).standard_normal((30, 2))
    found = embedding.embed(x, delay=3, dimension=4)
    assert found.shape == (21, 8)
    for i in range(21):
        for j in range(4):
            assert_array_equal(found[i, 2 * j : 2 * j + 2], x[i + 9 - 3 * j])


def test_embed_refuses_short_trajectories_and_bad_numbers():
    assert embedding.embed(np.zeros((10, 1)), 3, 4).shape == (1, 4)
    with pytest.raises(DataError, match=r"9 samples is shorter than the window of 10 samples \(dimension 4, delay 3\)"):
        embedding.embed(np.zeros((9, 1)), 3, 4)
    with pytest.raises(InvalidValue, match="delay=0"):
        embedding.embed(np.zeros((9, 1)), 0, 4)


def test_sine_wave_has_its_1_over_e_lag_and_its_information_minimum_at_a_quarter():
    period = 97.3
    x = sine(30_000, period)
    # autocorrelation cos(2 pi k / P) = 1/e; the estimator's taper (1 - k/T) moves the lag by about k/T = 0.1 % of k
    assert_allclose(embedding.decorrelation_lag([x], 60), np.arccos(np.exp(-1)) * period / (2 * np.pi), rtol=5e-3)
    # information is symmetric about a quarter of the period, P/4 = 24.3. A little noise: without it x[t-k] takes two values for
    # each x[t], which the cells of any histogram see or not by chance
    x += 0.3 * np.random.default_rng(0).standard_normal(x.shape)
    assert abs(int(embedding.information_minimum([x], 60)[0]) - period / 4) < 3


def test_information_of_known_pairs():
    x = np.random.default_rng(0).permutation(np.arange(32 * 400.0))[:, None]
    # x with itself: every one of the 32 equally filled bins is known, log 32 nats
    assert_allclose(embedding.mutual_information([x], 0), np.log(32), rtol=1e-6)
    # independent: the plug-in bias (B - 1)^2 / 2T = 0.0375 nats (Miller 1955)
    assert_allclose(embedding.mutual_information([x], 1), 31**2 / (2 * x.size), rtol=0.15)


def test_pooled_trajectories_do_not_touch():
    """Two pieces of one sine wave with opposite sign: joined end to end they would still each have the same lags."""
    x = sine(4000, 50.0)
    one, two = embedding.decorrelation_lag([x], 40), embedding.decorrelation_lag([x, -x[:3000], x[:10]], 40)
    assert_allclose(one, two, rtol=5e-3)
    # an information of cut pieces is that of the pairs within them: here of two pairs, which are equal
    assert_allclose(embedding.mutual_information([np.array([[0.0], [1.0]]), np.array([[0.0], [1.0]])], 1), 0.0)


def test_cao_finds_two_dimensions_for_henon():
    e1, e2 = neighbours.cao([henon(8000)], 1, 6)
    assert e1[0] < 0.5  # one value does not tell the state
    assert (e1[1:] > 0.85).all()  # two do; Cao 1997, fig. 1: E1 stays near 1 from m = 2 on
    assert embedding.cao_dimension([henon(8000)], 1)[0] == 2
    assert np.abs(e2 - 1).max() > 0.3  # deterministic


def test_cao_finds_three_dimensions_for_lorenz(lorenz_x):
    # box dimension 2.06: not 2. Cao 1997, fig. 3 finds 3
    assert embedding.cao_dimension([lorenz_x], 8)[0] == 3


def test_cao_tells_noise_from_dynamics():
    x = np.random.default_rng(0).standard_normal((6000, 1))
    e1, e2 = neighbours.cao([x], 1, 6)
    assert_allclose(e2, 1.0, atol=0.1)  # the new coordinate's gap does not depend on m (Cao 1997, fig. 5)
    assert e1[2] < 0.9


def test_cao_of_short_data_is_not_a_number():
    e1, _ = neighbours.cao([np.random.default_rng(0).standard_normal((10, 1))], 2, 8)
    assert np.isnan(e1).all()


def test_neighbours_come_from_the_other_half():
    x = np.arange(100.0)[:, None]
    here, there = neighbours.halves([x], 5)
    assert here[0].max() < there[0].min()
    assert here[0].size + there[0].size == 100
    groups = neighbours.halves([x[:50], x[:30], x[:25], x[:4]], 5)
    assert [sum(len(p) for p in g) for g in groups] == [50, 55]


def test_gather_is_the_literal_index():
    x = np.arange(40.0)[:, None]
    found = neighbours.gather([x, x[:3]], np.array([0, -4, 2]), 10)
    assert_array_equal(found[:, 0, 0] - 4, found[:, 1, 0])
    assert_array_equal(found[:, 0, 0] + 2, found[:, 2, 0])
    assert found[0, 0, 0] == 4
    assert 8 <= len(found) <= 10


def test_noise_amplification_by_hand():
    """Two points, one neighbour each in the other half: L from the definition, written out."""
    a, b = np.array([0.0, 1.0, 3.0]), np.array([0.2, 1.5, 2.0])
    found = neighbours.noise_amplification([a[:, None], b[:, None]], 1, 2, 1, neighbours=1)
    s = np.std(np.concatenate([a, b]))
    eps2 = ((1.0 - 1.5) ** 2 + (0.0 - 0.2) ** 2) / s**2  # 2 / (k (k+1)) * the one squared distance, k = 1
    sigma2 = ((3.0 - 2.0) / 2) ** 2 / s**2 / eps2  # variance of the two futures over eps^2
    assert_allclose(found, 0.5 * np.log10(sigma2 * eps2), rtol=1e-12)


def test_noise_amplification_is_invariant_under_scale_and_prefers_a_state(lorenz_x):
    one = neighbours.noise_amplification([lorenz_x], 6, 3, 16)
    assert_allclose(neighbours.noise_amplification([1e3 * lorenz_x + 5], 6, 3, 16), one, rtol=1e-9)
    # one coordinate is no state, and delays of two samples span a needle; both amplify at least twice as much (0.3 in L)
    assert one + 0.3 < neighbours.noise_amplification([lorenz_x], 6, 1, 16)
    assert one + 0.15 < neighbours.noise_amplification([lorenz_x], 1, 3, 16)


def test_rules_on_henon_choose_neighbouring_iterates():
    x = [henon(6000)]
    for rule in ("noise-amplification", "autocorrelation"):
        choice = embedding.choose(x, rule=rule)
        assert (choice.delay, choice.dimension) == (1, 2), choice


def test_default_rule_on_lorenz(lorenz_x):
    choice = embedding.choose([lorenz_x], rule="noise-amplification")
    # three coordinates make the attractor; the window (m-1) d is between a tenth and a whole of the 0.75 s cycle (37 samples)
    assert choice.dimension >= 3
    assert 4 <= (choice.dimension - 1) * choice.delay <= 37
    assert any("noise amplification" in line for line in choice.words)


def test_default_rule_is_not_fooled_by_a_slow_drift(lorenz_x):
    """A wave twice as large and 2000 samples long hides the dynamics from the autocorrelation, not from the rule."""
    drift = 2 * lorenz_x.std() * sine(len(lorenz_x), 2000.0)
    assert embedding.decorrelation_lag([lorenz_x + drift], 2000)[0] > 300  # the drift's own lag, 0.19 * 2000
    choice = embedding.choose([lorenz_x + drift], rule="noise-amplification")
    assert choice.dimension >= 3
    assert 4 <= (choice.dimension - 1) * choice.delay <= 56  # up to one and a half cycles of 37; fooled, it takes hundreds
    assert "without a slow drift" in choice.words[0]
    assert "drift" not in embedding.choose([lorenz_x], rule="noise-amplification").words[0]


def test_default_rule_on_the_ecg_finds_what_training_found_best():
    """Seven delays of 4 samples at 90 Hz gave the best free runs of all that were trained (docs/preparation.md); 8 x 3 is as good."""
    x = load_sample("ecg").trajectories[0][:]
    x = filters.gaussian_smooth(filters.remove_gaussian_trend(x, 180.0), 3.0)[::4]
    for part in (x[:18900], x[8000:]):
        choice = embedding.choose([part], rule="noise-amplification")
        assert (choice.delay, choice.dimension) in {(4, 6), (4, 7), (3, 8), (4, 8), (3, 9)}, choice


def test_window_rule_spans_half_a_cycle():
    period = 60.0
    x = [sine(6000, period) + 0.01 * np.random.default_rng(0).standard_normal((6000, 1))]
    choice = embedding.choose(x, rule="window")
    assert choice.delay == round(np.arccos(np.exp(-1)) * period / (2 * np.pi))  # 11
    assert choice.dimension == round(period / 2 / choice.delay)  # 3
    assert embedding.choose(x, rule="window", delay=5).dimension == 6


@pytest.mark.parametrize("rule", embedding.RULES)
def test_what_is_given_is_kept(rule, lorenz_x):
    assert embedding.choose([lorenz_x], rule=rule, delay=7).delay == 7
    assert embedding.choose([lorenz_x], rule=rule, dimension=5).dimension == 5
    both = embedding.choose([lorenz_x], rule=rule, delay=7, dimension=5)
    assert (both.delay, both.dimension) == (7, 5)


@pytest.mark.parametrize("rule", embedding.RULES)
@pytest.mark.parametrize(
    "make",
    [
        lambda rng: [rng.standard_normal((16, 1))],
        lambda rng: [rng.standard_normal((40, 1)), rng.standard_normal((17, 1)), rng.standard_normal((1, 1))],
        lambda rng: [np.round(rng.standard_normal((500, 1)))],  # many exact repetitions
        lambda rng: [sine(800, 20.0)],  # exactly periodic: all distances 0
        lambda rng: [np.arange(300.0)[:, None]],  # a ramp never decorrelates
        lambda rng: [rng.standard_normal((400, 1)).cumsum(axis=0)],
        lambda rng: [rng.standard_normal((300, 3))],
    ],
)
def test_every_rule_gives_a_window_that_fits(rule, make):
    x = make(np.random.default_rng(3))
    choice = embedding.choose(x, rule=rule)
    assert choice.delay >= 1
    assert 1 <= choice.dimension <= embedding.MAX_DIMENSION
    assert (choice.dimension - 1) * choice.delay <= max(map(len, x)) // 2


def test_refusals():
    with pytest.raises(UnknownName, match="Did you mean 'window'"):
        embedding.choose([np.zeros((50, 1))], rule="windows")
    with pytest.raises(DataError, match="longest trajectory has 9 samples"):
        embedding.choose([np.zeros((9, 1))], rule="window")

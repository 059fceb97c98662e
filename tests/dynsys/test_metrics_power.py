"""Spectra and D_H: tones with known spectra, scipy's filter and a direct sum as independent computations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from dynsys.analysis import autocorrelation, dominant_period, power_spectrum
from dynsys.analysis.spectrum import smooth
from dynsys.errors import InvalidValue
from dynsys.metrics import power_spectrum_distance
from dynsys.metrics.power import hellinger, spectral_distance

T = 1000


def tones(*cycles_and_power, steps=T):
    """A sum of sines, each with a whole number of cycles in the series, so that its line fills one bin."""
    t = np.arange(steps)
    return sum(np.sqrt(power) * np.sin(2 * np.pi * cycles * t / steps + 0.3) for cycles, power in cycles_and_power)[:, None]


def test_two_line_spectra_in_closed_form():
    true, made = tones((50, 0.5), (120, 0.5)), tones((50, 0.9), (120, 0.1))
    exact = np.sqrt(1 - np.sqrt(0.5 * 0.9) - np.sqrt(0.5 * 0.1))
    # rounding puts 1e-32 of the power into each of 500 empty bins: 1e-8 at most after the roots
    assert power_spectrum_distance(true, made, smoothing=0.0) == pytest.approx(exact, abs=1e-7)
    assert power_spectrum_distance(tones((50, 1.0)), tones((120, 1.0)), smoothing=0.0) == pytest.approx(1.0, abs=1e-7)


def test_two_smoothed_lines_in_closed_form():
    sigma, gap = 20.0, 60  # each line becomes a Gaussian that ends at 4 sigma; their overlap is a sum over the common bins
    kernel = np.exp(-0.5 * (np.arange(-80, 81) / sigma) ** 2)
    overlap = np.sqrt(kernel[gap:] * kernel[:-gap]).sum() / kernel.sum()
    value = power_spectrum_distance(tones((200, 1.0)), tones((200 + gap, 1.0)), smoothing=sigma)
    assert value == pytest.approx(np.sqrt(1 - overlap), abs=1e-7)
    assert value == pytest.approx(np.sqrt(1 - np.exp(-(gap**2) / (8 * sigma**2))), abs=5e-3)  # two whole Gaussians


def test_amplitude_offset_phase_and_direction_of_time_play_no_part():
    rng = np.random.default_rng(0)
    true, made = rng.normal(size=(T, 2)).cumsum(axis=0), rng.normal(size=(T, 2))
    value = power_spectrum_distance(true, made)
    assert 0.3 < value < 1.0
    assert power_spectrum_distance(true * 7.0 - 3.0, made * 0.1 + 50.0) == pytest.approx(value, rel=1e-9)
    assert power_spectrum_distance(true[::-1], np.roll(made, 100, axis=0)) == pytest.approx(value, rel=1e-9)
    assert power_spectrum_distance(made, true) == pytest.approx(value, rel=1e-12)
    assert power_spectrum_distance(true, true) == 0.0


def test_dead_and_diverged_runs_get_the_largest_distance():
    rng = np.random.default_rng(1)
    true = rng.normal(size=(T, 2))
    half_dead = true.copy()
    half_dead[:, 1] = 0.3 + 1e-12 * rng.normal(size=T)  # rounding noise round a fixed point is no dynamics
    broken = true.copy()
    broken[-1, 0] = np.nan
    assert power_spectrum_distance(true, half_dead) == pytest.approx(0.5, abs=1e-12)
    assert power_spectrum_distance(true, np.full((T, 2), 0.1)) == 1.0
    assert power_spectrum_distance(true, broken) == 1.0
    assert power_spectrum_distance(true, np.full((T, 2), np.inf)) == 1.0
    assert power_spectrum_distance(true, np.stack([true, broken, half_dead, true])) == pytest.approx((0 + 1 + 0.5 + 0) / 4)


def test_length_cuts_both_series():
    rng = np.random.default_rng(2)
    true, made = rng.normal(size=(T, 1)), rng.normal(size=(T + 500, 1))
    assert power_spectrum_distance(true, made) == power_spectrum_distance(true, made[:T])
    assert power_spectrum_distance(true, made, length=400) == power_spectrum_distance(true[:400], made[:400])
    with pytest.raises(InvalidValue, match=r"length must be in \[2, 1000\]"):
        power_spectrum_distance(true, made, length=1200)


def test_inside_jit_as_outside():
    rng = np.random.default_rng(3)
    true, made = rng.normal(size=(300, 3)).cumsum(axis=0), rng.normal(size=(2, 300, 3))
    made[1, :, 2] = 0.0
    value = power_spectrum_distance(true, made, smoothing=5.0)
    assert float(jax.jit(lambda x: spectral_distance(true, x, smoothing=5.0))(jnp.asarray(made))) == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("sigma", [0.4, 2.0, 20.0])
def test_smoothing_is_scipys(sigma):
    x = np.random.default_rng(4).normal(size=(301, 2)) ** 2
    np.testing.assert_allclose(smooth(x, sigma), gaussian_filter1d(x, sigma, axis=0), rtol=1e-12, atol=1e-14)


def test_hellinger_of_two_coins():
    p, q = np.array([0.3, 0.7]), np.array([0.6, 0.4])
    assert hellinger(p, q) == pytest.approx(np.sqrt(1 - np.sqrt(0.18) - np.sqrt(0.28)), rel=1e-12)


@pytest.mark.parametrize(
    ("true", "made", "settings", "message"),
    [
        (np.zeros((9, 1)), np.ones((9, 1)), {}, "column 0 of true is constant"),
        (np.eye(9)[:, :1], np.ones((9, 2)), {}, "N=1 columns but made has 2"),
        (np.eye(9)[:, :1], np.ones((9, 1)), {"smoothing": -1.0}, "smoothing must be at least 0"),
        (np.full((9, 1), np.nan), np.ones((9, 1)), {}, "true holds NaN"),
        (np.ones(9), np.ones(9), {}, "got shape"),
    ],
)
def test_bad_input_is_named(true, made, settings, message):
    with pytest.raises(InvalidValue, match=message):
        power_spectrum_distance(true, made, **settings)


def test_power_spectrum_of_a_tone():
    frequencies, power = power_spectrum(tones((125, 1.0)), dt=0.01)
    assert power.shape == (T // 2 + 1, 1)
    assert frequencies[np.argmax(power[:, 0])] == pytest.approx(12.5)  # 125 cycles in 1000 * 0.01 units of time
    np.testing.assert_allclose(power.sum(axis=0), 1.0, rtol=1e-12)
    assert power_spectrum(tones((125, 1.0))[:, 0], length=500)[1].shape == (251,)
    assert np.isnan(power_spectrum(np.ones(10))[1]).all()


@pytest.mark.parametrize("period", [7.3, 37.3, 141.0])
def test_dominant_period_between_two_bins(period):
    t = np.arange(4000) * 0.5
    x = np.sin(2 * np.pi * t / period) + 0.3 * np.random.default_rng(5).normal(size=4000)
    # a bin is 1 / 2000 of a cycle per unit of time; found to 0.2 of it under this noise
    assert dominant_period(x, 0.5) == pytest.approx(period, rel=0.2 * period / 2000)
    assert dominant_period(np.stack([x, np.zeros(4000)], axis=1), 0.5) == pytest.approx(dominant_period(x, 0.5))


def test_dominant_period_of_nothing():
    assert np.isnan(dominant_period(np.ones(100), 1.0))
    with pytest.raises(InvalidValue, match="at least 8 points"):
        dominant_period(np.arange(5.0), 1.0)
    with pytest.raises(InvalidValue, match="dt > 0"):
        dominant_period(np.arange(50.0), 0.0)


def test_autocorrelation_is_the_direct_sum():
    x = np.random.default_rng(6).normal(size=(500, 2)).cumsum(axis=0)
    centred = x - x.mean(axis=0)
    direct = np.array([(centred[: 500 - lag] * centred[lag:]).sum(axis=0) for lag in range(500)])
    np.testing.assert_allclose(autocorrelation(x, 499), direct / direct[0], atol=1e-12)
    np.testing.assert_allclose(autocorrelation(x[:, 0], 20), direct[:21, 0] / direct[0, 0], atol=1e-12)
    with pytest.raises(InvalidValue, match=r"max_lag must be in \[0, 499\]"):
        autocorrelation(x, 500)
    with pytest.raises(InvalidValue, match="NaN or inf"):
        autocorrelation(np.array([1.0, np.nan, 2.0]), 1)

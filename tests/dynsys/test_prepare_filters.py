"""Filters against their formulas: frequency response, scipy's Gaussian filter, a straight line, block means."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.ndimage import gaussian_filter1d

from dynsys.errors import InvalidValue
from dynsys.prepare import filters


@pytest.mark.parametrize(("sigma", "frequency"), [(3.0, 0.02), (3.0, 0.05), (3.0, 0.1), (20.0, 0.005), (1.5, 0.2)])
def test_gaussian_gain_is_that_of_the_formula_without_delay(sigma, frequency):
    t = np.arange(4000)
    x = np.cos(2 * np.pi * frequency * t)[:, None]
    inner = slice(400, -400)  # the mirrored edges change a sine wave's phase
    gain = np.exp(-0.5 * (2 * np.pi * frequency * sigma) ** 2)
    # the cut at 4 sigma leaves out 6e-5 of the weight
    assert_allclose(filters.gaussian_smooth(x, sigma)[inner], gain * x[inner], atol=2e-4)
    assert_allclose(filters.remove_gaussian_trend(x, sigma)[inner], (1 - gain) * x[inner], atol=2e-4)


@pytest.mark.parametrize("sigma", [0.4, 1.0, 3.25, 30.0])
def test_gaussian_is_scipys_with_mirrored_edges(sigma):
    x = np.random.default_rng(0).standard_normal((200, 3)) + 1e6
    wanted = gaussian_filter1d(x, sigma, axis=0, mode="reflect", radius=int(np.ceil(4 * sigma)))
    # 1e6 in double precision has steps of 1e-10; without the mean taken out first the FFT would lose more
    assert_allclose(filters.gaussian_smooth(x, sigma), wanted, atol=2e-9, rtol=0)


def test_gaussian_longer_than_the_series_is_its_mean_roughly():
    x = np.random.default_rng(1).standard_normal((20, 1))
    assert_allclose(filters.gaussian_smooth(x, 500.0), np.full_like(x, x.mean()), atol=1e-3)


def test_constant_and_single_row_are_left_alone():
    assert_allclose(filters.gaussian_smooth(np.full((50, 2), 7.0), 3.0), 7.0, rtol=1e-14)
    assert_allclose(filters.gaussian_smooth(np.array([[3.0]]), 3.0), 3.0)
    assert_allclose(filters.remove_linear_trend(np.array([[3.0]])), 0.0)


def test_linear_trend_is_the_least_squares_line():
    rng = np.random.default_rng(2)
    t = np.arange(300.0)
    x = np.stack([2.0 - 0.03 * t, rng.standard_normal(300).cumsum()], axis=1)
    found = filters.remove_linear_trend(x)
    assert_allclose(found[:, 0], 0.0, atol=1e-12)
    slope, level = np.polyfit(t, x[:, 1], 1)
    assert_allclose(found[:, 1], x[:, 1] - slope * t - level, atol=1e-10)


def test_downsampling_and_block_means_against_a_loop():
    x = np.arange(22.0).reshape(11, 2)
    assert_allclose(filters.downsample(x, 4), x[[0, 4, 8]])
    assert_allclose(filters.average_inputs(x, 4), [x[0:4].mean(axis=0), x[4:8].mean(axis=0), x[8:11].mean(axis=0)])
    assert filters.average_inputs(x, 1) is x


@pytest.mark.parametrize("sigma", [0.0, -1.0, np.nan, np.inf])
def test_bad_sigma(sigma):
    with pytest.raises(InvalidValue, match="sigma must be a positive number of samples"):
        filters.gaussian_kernel(sigma)

"""Peaks of a series whose peaks are known."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dynsys.analysis.events import peaks
from dynsys.errors import InvalidValue


def pulses(times, heights, dt=0.01, length=10.0):
    t = np.arange(0.0, length, dt)
    return sum(h * np.exp(-0.5 * ((t - c) / 0.03) ** 2) for c, h in zip(times, heights, strict=True))


def test_times_and_heights_of_known_pulses():
    centres, heights = np.array([1.0, 2.5, 3.2, 8.0]), np.array([1.0, 0.7, 2.0, 1.5])
    times, found = peaks(pulses(centres, heights), dt=0.01, prominence=0.5, refractory=0.25)
    assert_allclose(times, centres, atol=1e-9)  # the centres lie on the grid
    assert_allclose(found, heights, rtol=1e-6)


def test_small_and_close_peaks_are_left_out():
    x = pulses([1.0, 1.15, 4.0], [1.0, 0.8, 0.3])
    times, _ = peaks(x, dt=0.01, prominence=0.5, refractory=0.25)
    assert_allclose(times, [1.0], atol=1e-9)


def test_values_that_are_not_finite_end_the_search():
    x = pulses([1.0, 4.0], [1.0, 1.0])
    x[200:] = np.nan
    assert len(peaks(x, dt=0.01, prominence=0.5, refractory=0.25)[0]) == 1


@pytest.mark.parametrize("wrong", [{"dt": 0.0}, {"prominence": -1.0}, {"refractory": 0.0}])
def test_settings_must_be_positive(wrong):
    with pytest.raises(InvalidValue, match="must be positive"):
        peaks(np.zeros(10), **{"dt": 0.1, "prominence": 1.0, "refractory": 1.0, **wrong})

"""The 0-1 test for chaos: a scalar series drives a walk in the plane, and only chaos makes the walk diffuse.

    p(n) + i q(n) = sum_{j<=n} x_j exp(i j c)
    M(n) = < |(p, q)(j + n) - (p, q)(j)|^2 >_j,     D(n) = M(n) - <x>^2 (1 - cos n c) / (1 - cos c)
    K_c  = correlation of (1, ..., n_cut) with (D(1), ..., D(n_cut)),     K = median of K_c over many c

K is near 1 for chaos (M grows linearly) and near 0 for periodic and quasi-periodic motion (M stays bounded).
Source: Gottwald & Melbourne, SIAM J. Appl. Dyn. Syst. 8, 129 (2009), section 3: the correlation method with the oscillation of M removed.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Float, Real

from dynsys.analysis.neighbours import finite_series
from dynsys.analysis.spectrum import autocorrelation
from dynsys.errors import InvalidValue

_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


@dataclasses.dataclass(frozen=True)
class ZeroOneTest:
    """K, the median of `values` (C,) at the frequencies `c` (C,); `points` were used, `every`-th of the series."""

    K: float
    values: Float[np.ndarray, " C"]
    c: Float[np.ndarray, " C"]
    points: int
    every: int


def zero_one_test(
    x: Real[Any, "..."], *, every: int | None = None, frequencies: int = 100, n_cut: int | None = None, points: int = 5000
) -> ZeroOneTest:
    """The 0-1 test on an observation (T,) or (T, 1): K near 1 says chaos, near 0 regular motion.

    every: use every k-th sample; a finely sampled flow looks regular, so the default is the first lag at which the
    autocorrelation falls below 1/e (1 for most maps). frequencies: how many c, spread over (pi/5, 4 pi/5) by the golden ratio.
    n_cut: the longest displacement, at most and by default a tenth of the points used. points: used at most.

    Noise looks like chaos: test a deterministic series. Weak chaos needs long series to reach 1. Raises InvalidValue for bad
    settings, or a series that is not finite, constant, of several columns or shorter than 200 points after thinning.
    """
    who = "zero_one_test"
    series = finite_series(who, x)
    if series.shape[1] != 1:
        raise InvalidValue(f"{who}: x must be one observation, shape (T,) or (T, 1), got shape {np.shape(x)}. Pass one column.")
    if frequencies < 1 or points < 200 or (every is not None and every < 1):
        raise InvalidValue(f"{who}: needs frequencies >= 1, points >= 200 and every >= 1, got {frequencies=}, {points=}, {every=}.")
    thin = _decay(series[:, 0]) if every is None else int(every)
    values = series[::thin, 0][:points]
    count = len(values)
    if count < 200:
        raise InvalidValue(f"{who}: {len(series)} points give {count} with every={thin}; wanted at least 200. Pass a longer series.")
    longest = count // 10 if n_cut is None else int(n_cut)
    if not 2 <= longest <= count // 10:
        raise InvalidValue(f"{who}: n_cut must be in [2, {count // 10}] for {count} points, got n_cut={n_cut}.")
    values = values / values.std()
    c = math.pi / 5 + 3 * math.pi / 5 * np.mod(_GOLDEN * np.arange(1, frequencies + 1), 1.0)
    found = np.array([_correlation(values, float(one), longest) for one in c])
    return ZeroOneTest(float(np.median(found)), found, c, count, thin)


def _correlation(values: Float[np.ndarray, " T"], c: float, longest: int) -> float:
    """K_c of a series, with displacements over 1, ..., `longest` samples."""
    walk = np.cumsum(values * np.exp(1j * c * np.arange(1, len(values) + 1)))
    n = np.arange(1, longest + 1)
    moved = displacements(walk, longest) - values.mean() ** 2 * (1 - np.cos(n * c)) / (1 - math.cos(c))
    return float(np.corrcoef(n, moved)[0, 1])


def displacements(walk: np.ndarray, longest: int) -> Float[np.ndarray, " K"]:
    """Mean of |walk[j + n] - walk[j]|^2 over the first T - longest j, for n = 1, ..., longest, by one FFT; (T,) -> (longest,)."""
    walk = walk - walk.mean()
    rows = len(walk) - longest
    size = 1 << (len(walk) + rows).bit_length()
    cross = np.fft.ifft(np.fft.fft(walk, size) * np.conj(np.fft.fft(walk[:rows], size)))[1 : longest + 1].real
    power = np.concatenate([[0.0], np.cumsum(np.abs(walk) ** 2)])
    n = np.arange(1, longest + 1)
    return (power[n + rows] - power[n] + power[rows] - 2 * cross) / rows


def _decay(values: Float[np.ndarray, " T"]) -> int:
    """The first lag at which the autocorrelation is below 1/e, a hundredth of the series at most."""
    most = max(1, len(values) // 100)
    below = np.flatnonzero(autocorrelation(values, most) < 1 / math.e)
    return int(below[0]) if below.size else most

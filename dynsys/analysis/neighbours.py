"""What the analyses of series by their near neighbours share: checked states, delay embedding, a window in time."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float, Real

from dynsys.errors import InvalidValue


def finite_series(who: str, x: Real[Any, "..."], *, least: int = 50) -> Float[np.ndarray, "T N"]:
    """A series (T,) or (T, N) as float64 (T, N); InvalidValue if it has another shape, is too short, not finite or constant."""
    series = np.asarray(x, dtype=float)
    series = series[:, None] if series.ndim == 1 else series
    if series.ndim != 2 or len(series) < least or series.shape[1] == 0:
        raise InvalidValue(f"{who}: x must have shape (T,) or (T, N) with at least {least} points, got shape {np.shape(x)}.")
    if not np.isfinite(series).all():
        raise InvalidValue(f"{who}: x holds NaN or inf. Drop or interpolate these points first.")
    if (series == series[0]).all():
        raise InvalidValue(f"{who}: x is constant, so there is nothing to measure.")
    return series


def embed(who: str, series: Float[np.ndarray, "T N"], delay: int, dimension: int) -> Float[np.ndarray, "S D"]:
    """Delay vectors (x[t], x[t + delay], ..., x[t + (dimension - 1) delay]) of a series, (T - (dimension - 1) delay, N dimension)."""
    if delay < 1 or dimension < 1:
        raise InvalidValue(f"{who}: delay and dimension must be at least 1, got {delay=}, {dimension=}.")
    rows = len(series) - (dimension - 1) * delay
    if rows < 50:
        raise InvalidValue(
            f"{who}: {len(series)} points give {max(rows, 0)} delay vectors with {delay=}, {dimension=}; wanted at least 50."
        )
    return np.concatenate([series[j * delay : j * delay + rows] for j in range(dimension)], axis=1)


def default_theiler(series: Float[np.ndarray, "T N"]) -> int:
    """The mean period in samples, rounded up: 1 / the mean frequency of the power spectra of the standardised columns.

    Rosenstein et al. 1993 exclude neighbours in time up to it. A tenth of the series at most.
    """
    spread = series.std(0)
    scaled = (series - series.mean(0)) / np.where(spread > 0, spread, 1.0)
    power = (np.abs(np.fft.rfft(scaled, axis=0)) ** 2).sum(1)
    frequency = np.fft.rfftfreq(len(series))
    return min(math.ceil(power.sum() / (frequency * power).sum()), len(series) // 10)

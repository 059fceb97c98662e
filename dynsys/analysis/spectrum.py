"""Power spectra and autocorrelation of time series, by FFT.

    P(f) = |sum_t (x_t - mean) exp(-2 pi i f t)|^2,    smoothed by a Gaussian over frequency bins, sum_f P(f) = 1

The mean is removed first: it would fill the lowest bin and, once smoothed, its neighbours. No taper is applied. The same
spectrum serves the figures and the score D_H (dynsys.metrics.power).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Real

from dynsys.analysis.arrays import namespace
from dynsys.errors import InvalidValue

TRUNCATE = 4.0  # the Gaussian kernel ends at this many standard deviations, as in scipy.ndimage


def smooth(power: Real[Any, "F ..."], sigma: float) -> Real[Any, "F ..."]:
    """Gaussian smoothing along the first axis, sigma in bins, the ends reflected (d c b a | a b c d | d c b a).

    Works on NumPy arrays and on traced or accelerator JAX arrays. sigma = 0 leaves the array as it is.
    """
    radius = int(TRUNCATE * sigma + 0.5)
    if radius == 0:
        return power
    xp = namespace(power)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    columns = xp.reshape(power, (power.shape[0], -1))
    padded = xp.pad(columns, ((radius, radius), (0, 0)), mode="symmetric")
    weights = xp.asarray(kernel, dtype=padded.dtype)
    if xp is np:
        smoothed = np.stack([np.convolve(column, weights, mode="valid") for column in padded.T], axis=1)
    else:
        smoothed = jax.vmap(lambda column: jnp.convolve(column, weights, mode="valid"), 1, 1)(padded)
    return smoothed.reshape(power.shape)


def normalised_power(x: Real[Any, "T N"], smoothing: float) -> Float[Any, "F N"]:
    """Power spectrum of every column, smoothed and divided by its sum, (T, N) -> (T // 2 + 1, N); usable inside jit.

    A constant column gives 0 / 0 = NaN; the caller decides what that means.
    """
    xp = namespace(x)
    x = xp.asarray(x, dtype=float)
    power = smooth(xp.abs(xp.fft.rfft(x - x.mean(axis=0, keepdims=True), axis=0)) ** 2, smoothing)
    return power / power.sum(axis=0, keepdims=True)


def power_spectrum(
    x: Real[Any, "..."], *, dt: float = 1.0, smoothing: float = 0.0, length: int | None = None
) -> tuple[Float[np.ndarray, " F"], Float[np.ndarray, "F ..."]]:
    """Frequencies (F,) in cycles per unit of time and the normalised power (F,) or (F, N) of a series (T,) or (T, N).

    dt: sampling interval. smoothing: sigma of the Gaussian, in frequency bins. length: use only the first `length` points.
    Raises InvalidValue for a series that is shorter than 2 points or not finite, and for bad settings.
    A constant column has no spectrum: its power is NaN.
    """
    series = _finite("power_spectrum", x)[:length]
    if not dt > 0 or not smoothing >= 0 or len(series) < 2:
        raise InvalidValue(
            f"power_spectrum: needs dt > 0, smoothing >= 0 and at least 2 points, got dt={dt}, smoothing={smoothing}, {len(series)} points."
        )
    columns = series.reshape(len(series), -1)
    constant = columns.max(axis=0) == columns.min(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        power = np.where(constant, np.nan, normalised_power(columns, smoothing))
    return np.fft.rfftfreq(len(series), dt), power.reshape(-1, *series.shape[1:])


def dominant_period(x: Real[Any, "..."], dt: float, *, smoothing: float = 2.0) -> float:
    """The period at the highest peak of the smoothed power spectrum, in units of dt's time; (T,) or (T, N) -> float.

    The normalised spectra of the columns are added. The peak is refined by a parabola through the logarithms of three bins,
    so a pure tone between two bins is found to about a tenth of a bin. Bin 0 is left out: a trend is not a period. NaN if
    every column is constant. Raises InvalidValue for fewer than 8 points, values that are not finite, or dt <= 0.
    """
    series = _finite("dominant_period", x)
    if len(series) < 8:
        raise InvalidValue(f"dominant_period: needs at least 8 points, got {len(series)}.")
    frequencies, power = power_spectrum(series.reshape(len(series), -1), dt=dt, smoothing=smoothing)
    alive = np.isfinite(power).all(axis=0)
    if not alive.any():
        return float("nan")
    total = power[:, alive].sum(axis=1)
    peak = 1 + int(np.argmax(total[1:]))
    shift = 0.0
    if 1 < peak < len(total) - 1:
        below, here, above = np.log(np.maximum(total[peak - 1 : peak + 2], np.finfo(float).tiny))
        curvature = below - 2 * here + above
        shift = 0.5 * (below - above) / curvature if curvature < 0 else 0.0
    return float(1.0 / (frequencies[1] * (peak + np.clip(shift, -0.5, 0.5))))


def autocorrelation(x: Real[Any, "..."], max_lag: int) -> Float[np.ndarray, "L ..."]:
    """Autocorrelation at lags 0, ..., max_lag of every column; (T,) or (T, N) -> (max_lag + 1,) or (max_lag + 1, N).

    r_k = sum_t (x_t - mean)(x_{t+k} - mean) / sum_t (x_t - mean)^2, the usual estimator whose sums are all divided by T
    (Box & Jenkins 1976), by a zero-padded FFT. A constant column gives NaN. Raises InvalidValue unless
    0 <= max_lag < T and the values are finite.
    """
    series = _finite("autocorrelation", x)
    steps = len(series)
    if not 0 <= max_lag < steps:
        raise InvalidValue(f"autocorrelation: max_lag must be in [0, {steps - 1}] for {steps} points, got max_lag={max_lag}.")
    columns = series.reshape(steps, -1)
    size = 1 << (steps + max_lag).bit_length()  # room for the largest lag, so that the circular product does not wrap
    spectrum = np.fft.rfft(columns - columns.mean(axis=0), size, axis=0)
    covariance = np.fft.irfft(np.abs(spectrum) ** 2, size, axis=0)[: max_lag + 1]
    constant = columns.max(axis=0) == columns.min(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.where(constant, np.nan, covariance / covariance[:1])
    return correlation.reshape(-1, *series.shape[1:])


def _finite(who: str, x: Any) -> Float[np.ndarray, "..."]:
    """The series as a float64 NumPy array, (T,) or (T, N), checked."""
    series = np.asarray(x, dtype=float)
    if series.ndim not in (1, 2) or 0 in series.shape:
        raise InvalidValue(f"{who}: x must have shape (T,) or (T, N) with at least one point, got shape {series.shape}.")
    if not np.isfinite(series).all():
        raise InvalidValue(f"{who}: x holds NaN or inf. Drop or interpolate these points first.")
    return series

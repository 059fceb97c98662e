"""Series at irregular times: the gap to the next sample is one more input, and delays are measured in time.

    gap[i] = (t[i+1] - t[i]) / dt,    delayed x[j](t[i]) = x(t[i] - j d dt), by linear interpolation

dt is the typical interval, the median of all steps. The last gap of a trajectory, after which nothing is known, is 1.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from dynsys.errors import DataError
from dynsys.prepare.settings import PreparationConfig
from dynsys_datasets.series import TimeSeries


def typical_interval(series: TimeSeries) -> float:
    """The median step between samples, in the series' unit of time. Raises DataError if there are not two samples in a row."""
    steps = np.concatenate([np.diff(t) for t in times_of(series)])
    if steps.size == 0:
        raise DataError(f"{series.source or 'TimeSeries'}: no trajectory has two samples, so there is no interval between samples.")
    return float(np.median(steps))


def times_of(series: TimeSeries) -> list[Float[np.ndarray, " T"]]:
    """The times of every trajectory; counted from 0 if only the interval is known."""
    if series.times is not None:
        return [np.asarray(t, float) for t in series.times]
    return [series.dt * np.arange(length) for length in series.lengths]


def gaps(times: Float[np.ndarray, " T"], dt: float) -> Float[np.ndarray, "T 1"]:
    """The gap after every sample, in intervals dt; 1 after the last."""
    return np.append(np.diff(times) / dt, 1.0)[:, None]


def embed_at(x: Float[np.ndarray, "T N"], times: Float[np.ndarray, " T"], lag: float, dimension: int) -> Float[np.ndarray, "S D"]:
    """Delay vectors (x(t), x(t - lag), ...) at those of the times that reach back far enough, (T, N), (T,) -> (S, m N).

    The S rows are the last ones. Raises DataError if no time does.
    """
    window = (dimension - 1) * lag
    first = int(np.searchsorted(times, times[0] + window * (1 - 1e-12)))
    if first >= len(times):
        raise DataError(
            f"delay embedding: a trajectory over a time of {times[-1] - times[0]:.6g} is shorter than the window of {window:.6g}."
        )
    now = times[first:]
    delayed = [[np.interp(now - j * lag, times, x[:, n]) for n in range(x.shape[1])] for j in range(1, dimension)]
    return np.column_stack([x[first:], *(column for columns in delayed for column in columns)])


def even(trajectories: Sequence[Any], times: Sequence[np.ndarray], dt: float) -> list[np.ndarray]:
    """The trajectories on an even grid of step dt, by linear interpolation: for the choice of delays, which counts rows."""
    found = []
    for x, t in zip(trajectories, times, strict=True):
        grid = t[0] + dt * np.arange(int((t[-1] - t[0]) / dt * (1 + 1e-12)) + 1)
        found.append(np.column_stack([np.interp(grid, t, np.asarray(x[:, n], float)) for n in range(x.shape[1])]))
    return found


def check_config(config: PreparationConfig, where: str) -> None:
    """Raise DataError for what can't be done to irregular samples: trend, smoothing and downsampling count rows."""
    if config.filtered or config.downsample > 1:
        raise DataError(
            f"{where}: the samples are irregular, and detrend={config.detrend!r}, smooth_width={config.smooth_width:g}, "
            f"downsample={config.downsample} work on even samples. Leave them out, or call .resample(dt) first."
        )

"""Bringing a series to an even grid: linear interpolation, or the mean over a step when the grid is coarser.

    fine grid     y(t) = linear interpolation of the points
    coarse grid   y(t) = (F(t + dt/2) - F(t - dt/2)) / dt,   F = integral of the linear interpolation

The mean is exact for the piecewise-linear signal and suppresses what the coarse grid can't show (a boxcar low-pass).
"""

import itertools
from typing import TYPE_CHECKING

import numpy as np

from dynsys_datasets.errors import DataError

if TYPE_CHECKING:
    from dynsys_datasets.series.timeseries import TimeSeries

COARSER = 1.5
MOST_POINTS = 10**9


def resample(series: "TimeSeries", dt: float, max_gap: float | None) -> "TimeSeries":
    """`series` on an even grid of step dt; see TimeSeries.resample."""
    where = series.source[:60] or "TimeSeries"
    if not (np.isfinite(dt) and dt > 0):
        raise DataError(f"{where}: resample needs a positive dt, got dt={dt}.")
    if max_gap is not None and not max_gap > 0:
        raise DataError(f"{where}: resample needs a positive max_gap, got max_gap={max_gap}.")
    loaded = series.load()
    made: dict[str, list[np.ndarray]] = {"values": [], "times": [], "inputs": []}
    longest, cuts, lost, averaged = 0.0, 0, 0, False
    for i, values in enumerate(loaded.trajectories):
        t = np.arange(len(values)) * loaded.dt if loaded.times is None else loaded.times[i]
        pieces = _pieces(t, max_gap)
        cuts += len(pieces) - 1
        for a, b in pieces:
            if b - a < 2:
                lost += 1
                continue
            own = t[a:b]
            longest = max(longest, float(np.diff(own).max()))
            coarse = dt >= COARSER * float(np.median(np.diff(own)))
            averaged |= coarse
            grid = _grid(where, own, dt)
            method = _means if coarse else _interpolated
            made["times"].append(grid)
            made["values"].append(method(own, np.asarray(values)[a:b], grid, dt))
            if loaded.inputs is not None:
                made["inputs"].append(method(own, np.asarray(loaded.inputs[i])[a:b], grid, dt))
    if not made["values"]:
        raise DataError(
            f"{where}: nothing is left after resampling with max_gap={max_gap}: every piece between gaps is a single point. Use a "
            "larger max_gap."
        )
    how = "the mean over each step" if averaged else "linear interpolation"
    note = f"resampled to dt={dt:.6g} by {how}; the longest step bridged was {longest:.6g}"
    if cuts:
        note += f"; cut at {cuts} gaps longer than {max_gap:.6g}" + (f", {lost} single points between gaps dropped" if lost else "")
    inputs = tuple(made["inputs"]) if loaded.inputs is not None else None
    unit = series.time_unit
    return loaded.replace(
        values=tuple(made["values"]),
        times=tuple(made["times"]),
        inputs=inputs,
        dt=dt if max(map(len, made["times"])) > 1 else None,
        time_unit=unit,
        notes=(*series.notes, note),
    )


def _pieces(times: np.ndarray, max_gap: float | None) -> list[tuple[int, int]]:
    """Ranges of rows between gaps."""
    cuts = [] if max_gap is None else [int(i) + 1 for i in np.flatnonzero(np.diff(times) > max_gap)]
    borders = [0, *cuts, times.size]
    return list(itertools.pairwise(borders))


def _grid(where: str, times: np.ndarray, dt: float) -> np.ndarray:
    """t0, t0 + dt, ... up to the last time (a rounding error of the last step is forgiven)."""
    steps = (times[-1] - times[0]) / dt
    if steps > MOST_POINTS:
        raise DataError(f"{where}: dt={dt:.6g} would make {steps:.3g} points. Use a larger dt.")
    count = int(np.floor(steps + 1e-6)) + 1
    return times[0] + dt * np.arange(count)


def _interpolated(times: np.ndarray, values: np.ndarray, grid: np.ndarray, dt: float) -> np.ndarray:
    return np.stack([np.interp(grid, times, column) for column in values.T], axis=1)


def _means(times: np.ndarray, values: np.ndarray, grid: np.ndarray, dt: float) -> np.ndarray:
    """Mean of the linear interpolation over [t - dt/2, t + dt/2], narrower at the ends."""
    steps = np.diff(times)[:, None]
    areas = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(steps * (values[1:] + values[:-1]) / 2, axis=0)])
    slopes = np.diff(values, axis=0) / steps

    def integral(t: np.ndarray) -> np.ndarray:
        k = np.clip(np.searchsorted(times, t, side="right") - 1, 0, times.size - 2)
        s = (t - times[k])[:, None]
        return areas[k] + values[k] * s + slopes[k] * s**2 / 2

    # near the ends the window shrinks but stays centred, down to the point itself: a straight line stays what it is
    half = np.minimum(dt / 2, np.minimum(grid - times[0], times[-1] - grid))
    narrow = half < 1e-6 * dt
    half[narrow] = dt
    means = (integral(grid + half) - integral(grid - half)) / (2 * half)[:, None]
    means[narrow] = _interpolated(times, values, grid[narrow], dt)
    return means

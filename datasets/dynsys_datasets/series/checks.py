"""The rules that times and values obey, each with the error that says where they don't."""

from collections.abc import Callable, Sequence

import numpy as np

from dynsys_datasets.errors import DataError
from dynsys_datasets.series.lazy import ArrayLike, blocks

# steps may differ from their median by this fraction: the jitter of ordinary clocks, far below what a model of one step can tell
STEP_TOLERANCE = 1e-3


def check_times(times: np.ndarray, where: str, row_name: Callable[[int], str] | None = None) -> None:
    """DataError unless `times` (T,) are finite and strictly increasing; `row_name` says how to call a row."""
    name = row_name or (lambda row: f"row {row}")
    bad = np.flatnonzero(~np.isfinite(times))
    if bad.size:
        raise DataError(
            f"{where}, {name(bad[0])}: the time is {times[bad[0]]}. {bad.size} of {times.size} times are not finite numbers; "
            "times can't be filled in: correct the file, or read it without them (time=False) and give dt."
        )
    steps = np.diff(times)
    bad = np.flatnonzero(steps <= 0)
    if bad.size:
        row = int(bad[0]) + 1
        kind = "twice (duplicate)" if steps[row - 1] == 0 else f"after {times[row - 1]!s} (unsorted)"
        raise DataError(
            f"{where}, {name(row)}: the time {times[row]!s} comes {kind}. {bad.size} of {steps.size} steps do not go forward; "
            "sort the rows by time and remove repeated ones, mark separate recordings by an episode column, or pass time=False if this "
            "column is no time."
        )


def sampling_interval(times: Sequence[np.ndarray], where: str) -> float:
    """The one sampling interval of regular times, in their own unit; DataError says which steps are off.

    Regular means: every step within 0.1 % of the median step, or every time within rounding of an even grid (times
    written with three decimals, or stored as float32).
    """
    intervals = [(_interval(t, where, i if len(times) > 1 else None), t) for i, t in enumerate(times) if t.size > 1]
    if not intervals:
        raise DataError(f"{where}: no trajectory has two points, so there is no sampling interval. Give dt.")
    dt = sum(t[-1] - t[0] for _, t in intervals) / sum(t.size - 1 for _, t in intervals)
    for i, (own, t) in enumerate(intervals):
        if abs(own - dt) > STEP_TOLERANCE * dt + 2 * _rounding(t) / (t.size - 1):
            raise DataError(
                f"{where}: trajectory {i} is sampled every {own:.6g}, all together every {dt:.6g}. "
                f"One model has one step: call .resample(dt={own:.6g}) to bring all trajectories to one interval."
            )
    return float(dt)


def check_same_interval(where: str, dt: float, times: Sequence[np.ndarray]) -> None:
    """DataError if the dt that a caller gave is not the one of the times (to 0.1 %, or to the rounding of the times)."""
    for t in times:
        if t.size < 2 or _fits(t, dt):
            continue
        found = _interval(t, where, None)
        raise DataError(
            f"{where}: dt={dt:.6g} was given, but the times go in steps of {found:.6g}. "
            f"Leave dt out, or call .resample(dt={dt:.6g}) to change the sampling, or pass time=False to ignore the times."
        )


def _fits(times: np.ndarray, dt: float) -> bool:
    """True if the times are the grid of step dt, up to jitter or rounding."""
    if np.all(np.abs(np.diff(times) - dt) <= STEP_TOLERANCE * dt):
        return True
    quantum = _rounding(times)
    return bool(quantum <= 0.4 * dt and np.abs(times - times[0] - dt * np.arange(times.size)).max() <= 2.001 * quantum)


def _interval(times: np.ndarray, where: str, trajectory: int | None) -> float:
    """The mean step of one trajectory's times; DataError if the steps are uneven."""
    steps = np.diff(times)
    median = float(np.median(steps))
    bad = np.flatnonzero(np.abs(steps - median) > STEP_TOLERANCE * median)
    if bad.size and not _rounded_grid(times):
        shown = ", ".join(f"step {i} (rows {i} to {i + 1}) is {steps[i]:.6g}" for i in bad[:3])
        place = where if trajectory is None else f"{where}, trajectory {trajectory}"
        raise DataError(
            f"{place}: irregular sampling: expected steps of {median:.6g}, but {shown}{', ...' if bad.size > 3 else ''}; "
            f"{bad.size} of {steps.size} steps differ. Call .resample(dt={median:.6g}) to interpolate onto an even grid, "
            f"with max_gap={2 * median:.6g} to cut at longer gaps instead of bridging them."
        )
    return float((times[-1] - times[0]) / steps.size)


def _rounded_grid(times: np.ndarray) -> bool:
    """True if the times are an even grid that was rounded for storage, to decimals or to float32."""
    index = np.arange(times.size) - (times.size - 1) / 2
    slope = float(index @ (times - times.mean()) / (index @ index))
    residual = np.abs(times - times.mean() - slope * index).max()
    quantum = _rounding(times)
    # half a quantum is the rounding itself, the rest is what it does to the fitted line; a quantum near the step could hide a lost row
    return bool(quantum <= 0.401 * slope and residual <= 0.6 * quantum)


def _rounding(times: np.ndarray) -> float:
    """The quantum that times were rounded to: 10**-d for d decimals (d <= 9), or the spacing of float32; 0 if neither."""
    for decimals in range(10):
        scaled = times * 10.0**decimals
        # 1e-6 of a quantum, or the float64 rounding of a large number
        if np.all(np.abs(scaled - np.rint(scaled)) <= np.maximum(1e-6, 1e-15 * np.abs(scaled))):
            return 10.0**-decimals
    if np.abs(times).max() < 1e38 and np.array_equal(times, times.astype(np.float32).astype(np.float64)):
        return float(np.spacing(np.float32(np.abs(times).max())))
    return 0.0


def bad_rows(array: ArrayLike) -> np.ndarray:
    """(T,) bool: rows that hold NaN or inf; read block by block."""
    return np.concatenate([~np.isfinite(block).all(axis=1) for _, block in blocks(array)])


def first_bad(array: ArrayLike, bad: np.ndarray) -> tuple[int, int, float]:
    """(row, column, number) of the first NaN or inf, given the rows that have one."""
    row = int(np.argmax(bad))
    line = array[row : row + 1][0]
    column = int(np.argmax(~np.isfinite(line)))
    return row, column, float(line[column])


def constant_columns(arrays: Sequence[ArrayLike]) -> list[int]:
    """Columns whose range over all trajectories is nothing but rounding (8 units in the last place of the largest value)."""
    low, high = np.inf, -np.inf
    for array in arrays:
        for _, block in blocks(array):
            low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
    size = np.maximum(np.abs(low), np.abs(high))
    return [int(i) for i in np.flatnonzero(high - low <= 8 * np.finfo(np.float64).eps * size)]


def as_numbers(where: str, what: str, array: np.ndarray) -> np.ndarray:
    """The array as float64; DataError that says what to do with objects, text, complex numbers, dates and records."""
    if array.dtype.kind in "biuf":
        return np.ascontiguousarray(array, dtype=np.float64)
    raise DataError(f"{where}: {what} holds {_REFUSED.get(array.dtype.kind, f'{array.dtype} values')}")


_REFUSED = {
    "O": "Python objects, which are never loaded from files (they could run code). Convert to an array of numbers, e.g. np.asarray(x, "
    "dtype=float).",
    "U": "text, not numbers. Convert it to numbers, or leave it out.",
    "S": "text, not numbers. Convert it to numbers, or leave it out.",
    "c": "complex numbers. Save real and imaginary part as two columns, or the magnitude.",
    "M": "dates, not numbers. Save them as seconds from the start.",
    "m": "time differences, not numbers. Save them as seconds.",
    "V": "records (a structured type). Save each field as a column of a plain array.",
}

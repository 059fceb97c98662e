"""From what a reader found to a TimeSeries: episodes, times, missing values; each error names the file and the line.

missing="error"        NaN, inf and empty cells are errors
missing="interpolate"  linear in time between the neighbours; rows at a trajectory's ends, which have none, are cut off
missing="drop"         incomplete rows go; the trajectory is cut there, so that time is never glued together
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynsys_datasets.errors import DataError
from dynsys_datasets.series import checks
from dynsys_datasets.series.lazy import ArrayLike, LazyArray, rows
from dynsys_datasets.series.options import Options
from dynsys_datasets.series.timeseries import TimeSeries


def row_number(row: int) -> str:
    """How an error calls a row of an array."""
    return f"row {row}"


def cell_number(row: int, column: int, found: float) -> str:
    """How an error calls the content of a cell of an array; `column` counts observed columns, then inputs."""
    return f"{found}"


@dataclass(frozen=True)
class Raw:
    """What a reader found: one entry a trajectory, columns chosen, nothing judged yet."""

    values: tuple[ArrayLike, ...]
    names: tuple[str, ...] | None = None
    times: tuple[np.ndarray, ...] | None = None
    inputs: tuple[ArrayLike, ...] | None = None
    input_names: tuple[str, ...] | None = None
    dt: float | None = None
    units: str | tuple[str, ...] | None = None
    time_unit: str | None = None
    source: str | None = None
    notes: tuple[str, ...] = ()
    row_name: Callable[[int], str] = row_number
    cell_text: Callable[[int, int, float], str] = cell_number
    starts: tuple[int, ...] | None = None


def finish(where: str, raw: Raw, options: Options) -> TimeSeries:
    """The series of a file called `where`; DataError for everything that can't stand in one."""
    _check_shapes(where, raw)
    for i, t in enumerate(raw.times or ()):
        checks.check_times(t, where, lambda row, i=i: raw.row_name(_start(raw, i) + row) + _of(raw, i))
    raw = _missing(where, raw, options)
    dt = raw.dt if options.dt is None else float(options.dt)
    if options.dt is not None and raw.dt is not None and abs(raw.dt - options.dt) > checks.STEP_TOLERANCE * raw.dt:
        raise DataError(
            f"{where}: dt={options.dt:.6g} was asked for, but the file says {raw.dt:.6g}. Leave dt out, or call "
            f".resample(dt={options.dt:.6g})."
        )
    if dt is not None and raw.times is not None:
        checks.check_same_interval(where, dt, raw.times)
    # made under the file's name, which its errors then bear
    series = TimeSeries(
        raw.values,
        dt=dt,
        times=raw.times,
        inputs=raw.inputs,
        names=raw.names,
        input_names=raw.input_names,
        units=raw.units,
        time_unit=raw.time_unit,
        source=where,
        notes=raw.notes,
    )
    return series if raw.source is None else series.replace(source=raw.source)


def split_episodes(where: str, labels: Sequence[object], row_name: Callable[[int], str] = row_number) -> list[tuple[int, int]]:
    """Ranges of rows with one label; DataError if a label comes back after another one, or is missing."""
    borders, seen = [], set()
    last: object = None
    for row, label in enumerate(labels):
        if row and label == last:
            continue
        if label is None or label == "" or label != label:
            raise DataError(f"{where}, {row_name(row)}: the episode is missing. Every row must say which episode it belongs to.")
        if label in seen:
            raise DataError(
                f"{where}, {row_name(row)}: episode {label!r} begins again after episode {last!r}. Sort the rows by episode, then time."
            )
        seen.add(label)
        borders.append(row)
        last = label
    return list(zip(borders, [*borders[1:], len(labels)], strict=True))


def _start(raw: Raw, trajectory: int) -> int:
    return 0 if raw.starts is None else raw.starts[trajectory]


def _of(raw: Raw, trajectory: int) -> str:
    return f" of trajectory {trajectory}" if raw.starts is None and len(raw.values) > 1 else ""


def _check_shapes(where: str, raw: Raw) -> None:
    if not raw.values:
        raise DataError(f"{where}: holds no trajectory.")
    for i, values in enumerate(raw.values):
        if not values.shape[0] or not values.shape[1]:
            raise DataError(
                f"{where}: trajectory {i} is empty, shape {tuple(values.shape)}. There must be at least one row and one column of numbers."
            )
        for what, found in (("times", raw.times), ("inputs", raw.inputs)):
            if found is not None and (len(found) != len(raw.values) or len(found[i]) != len(values)):
                count = len(found[i]) if i < len(found) else 0
                raise DataError(
                    f"{where}: trajectory {i} has {len(values)} rows but {count} {what}. There must be one a row; pass time=False to "
                    "ignore times."
                )


def _missing(where: str, raw: Raw, options: Options) -> Raw:
    """The raw series without NaN and inf, by the caller's choice; lazy ones are left to `TimeSeries.check` unless dropped."""
    lazy = any(isinstance(a, LazyArray) for a in (*raw.values, *(raw.inputs or ())))
    if lazy and options.missing == "error":
        return raw
    if lazy and options.missing == "interpolate":
        raise DataError(f'{where}: missing="interpolate" needs the values in memory. Pass lazy=False, or missing="drop".')
    n_obs = raw.values[0].shape[1]
    bad = []
    for i, values in enumerate(raw.values):
        bad.append(checks.bad_rows(values) | (checks.bad_rows(raw.inputs[i]) if raw.inputs is not None else False))
    affected, total = sum(int(b.sum()) for b in bad), sum(b.size for b in bad)
    if not affected:
        return raw
    if options.missing == "error":
        i = next(i for i, b in enumerate(bad) if b.any())
        row = int(np.argmax(bad[i]))
        line = np.concatenate([np.atleast_1d(raw.values[i][row]), np.atleast_1d(raw.inputs[i][row]) if raw.inputs is not None else []])
        column = int(np.argmax(~np.isfinite(line)))
        names = [*(raw.names or [f"x{k}" for k in range(n_obs)]), *(raw.input_names or [f"u{k}" for k in range(line.size - n_obs)])]
        kind = "not a finite number" if np.isinf(line[column]) else "not a number"
        place = f"{raw.row_name(_start(raw, i) + row)}{_of(raw, i)}"
        found = raw.cell_text(_start(raw, i) + row, column, float(line[column]))
        raise DataError(
            f"{where}, {place}: column {names[column]!r} holds {found}, {kind}. "
            f'{affected} of {total} rows are affected; pass missing="interpolate" to fill them. missing="drop" cuts the recording there '
            "instead."
        )
    return _dropped(where, raw, bad, affected, total) if options.missing == "drop" else _interpolated(where, raw, bad)


def _cut(raw: Raw, pieces: Sequence[tuple[int, int, int]], note: str) -> Raw:
    """(trajectory, first, last) ranges as the new trajectories."""

    def cut(arrays: Sequence[ArrayLike] | None) -> Any:
        return None if arrays is None else tuple(rows(arrays[i], a, b) for i, a, b in pieces)

    starts = None if raw.starts is None else tuple(_start(raw, i) + a for i, a, _ in pieces)
    return dataclasses.replace(
        raw, values=cut(raw.values), times=cut(raw.times), inputs=cut(raw.inputs), starts=starts, notes=(*raw.notes, note)
    )


def _dropped(where: str, raw: Raw, bad: Sequence[np.ndarray], affected: int, total: int) -> Raw:
    pieces = []
    for i, rows_bad in enumerate(bad):
        edges = np.flatnonzero(np.diff(np.concatenate([[True], rows_bad, [True]]).astype(np.int8)))
        pieces += [(i, int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    if not pieces:
        raise DataError(f"{where}: every row misses a value, so nothing is left to read after dropping. Choose columns that are measured.")
    return _cut(
        raw, pieces, f"dropped {affected} of {total} rows with missing values; cut there into {len(pieces)} trajectories (from {len(bad)})"
    )


def _interpolated(where: str, raw: Raw, bad: Sequence[np.ndarray]) -> Raw:
    values, inputs, pieces, filled, longest, lost = [], [], [], 0, 0, 0
    for i, rows_bad in enumerate(bad):
        arrays = [np.array(raw.values[i]), *([np.array(raw.inputs[i])] if raw.inputs is not None else [])]
        t = np.arange(rows_bad.size) if raw.times is None else raw.times[i]
        good = [np.flatnonzero(np.isfinite(column)) for array in arrays for column in array.T]
        if any(g.size == 0 for g in good):
            raise DataError(
                f"{where}: a column of trajectory {i} holds no number at all, so it can't be interpolated. Leave it out with columns=[...]."
            )
        first, last = max(int(g[0]) for g in good), min(int(g[-1]) for g in good) + 1
        if last <= first:
            raise DataError(
                f"{where}: no row of trajectory {i} lies between measured values of all columns. Leave a column out with columns=[...]."
            )
        for array in arrays:
            for column in array.T:
                hole = ~np.isfinite(column)
                column[hole] = np.interp(t[hole], t[~hole], column[~hole])
                filled += int(hole[first:last].sum())
                edges = np.flatnonzero(np.diff(np.concatenate([[False], hole[first:last], [False]]).astype(np.int8)))
                longest = max(longest, int((edges[1::2] - edges[::2]).max(initial=0)))
        values.append(arrays[0])
        inputs += arrays[1:]
        pieces.append((i, first, last))
        lost += rows_bad.size - (last - first)
    note = f"interpolated {filled} missing values linearly (longest gap {longest} rows)" + (
        f"; cut {lost} incomplete rows at the ends" if lost else ""
    )
    return _cut(dataclasses.replace(raw, values=tuple(values), inputs=tuple(inputs) if raw.inputs is not None else None), pieces, note)

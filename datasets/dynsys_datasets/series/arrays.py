"""From named arrays (npz, HDF5, MATLAB, netCDF) to a raw series: which array holds the values, the times, the inputs.

Values: `dataset=`, else the array called `values`, else the only array that can be one. (T,) and (T, N) are one trajectory,
(E, T, N) are E of them, a group of arrays is one trajectory each. Beside them are recognised: times (an array called time, t,
...), dt, the sampling rate (sampling_rate_hz, sampling_rate, sfreq, fs), names, units.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dynsys_datasets.errors import DataError, did_you_mean
from dynsys_datasets.series.assemble import Raw, split_episodes
from dynsys_datasets.series.checks import as_numbers
from dynsys_datasets.series.lazy import ArrayLike, LazyArray, rows, take
from dynsys_datasets.series.options import Options
from dynsys_datasets.series.roles import assign_roles, check_unique, is_time_name, unit_of

LAZY_BYTES = 256_000_000
RATES = ("sampling_rate_hz", "sampling_rate", "sampling_frequency", "sfreq", "fs")
STEPS = ("dt", "sampling_interval")
NAMES = ("names", "columns", "channels", "channel_names")


@dataclass(frozen=True)
class Entry:
    """One named array of a file; `kind` is the letter of numpy's dtype.kind, `lazy(episode)` reads slices where possible."""

    shape: tuple[int, ...]
    kind: str
    read: Callable[[], np.ndarray]
    lazy: Callable[[int | None], LazyArray] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    type_name: str = ""

    @property
    def is_scalar(self) -> bool:
        """True for one number or one text."""
        return int(np.prod(self.shape, dtype=object)) == 1

    @property
    def float_bytes(self) -> int:
        """Bytes in memory as float64."""
        return 8 * int(np.prod(self.shape, dtype=object))


def from_entries(
    where: str, entries: Mapping[str, Entry], options: Options, about: Mapping[str, Any] | None = None, *, episodes: bool = True
) -> Raw:
    """The raw series of a file's arrays; `about` holds the file's own attributes, `episodes` allows (E, T, N)."""
    if not entries:
        raise DataError(f"{where}: holds no array.")
    chosen = list(_choose(where, entries, options))
    stacked = options.dataset is None and len(chosen) > 1
    values: list[ArrayLike] = []
    names: tuple[str, ...] | None = None
    if stacked:
        values = [np.stack([_read(where, name, entries[name]).reshape(-1) for name in chosen], axis=1)]
        names = tuple(chosen)
    else:
        for name in chosen:
            values += _trajectories(where, name, entries[name], options, episodes)
        if values[0].shape[1] == 1:
            names = (chosen[0].rsplit("/", 1)[-1],) if len(chosen) == 1 else None
    main = chosen[0]
    if any(v.shape[1] != values[0].shape[1] for v in values):
        widths = ", ".join(f"{name!r} {entries[name].shape}" for name in chosen[:6])
        raise DataError(
            f"{where}: the arrays of {options.dataset!r} have different numbers of columns: {widths}. Name one of them with dataset=."
        )
    beside = _Beside(where, entries, main, {**(about or {}), **entries[main].attributes})
    time_name = _time_name(where, entries, main, options)
    times = None if time_name is None else _split_times(where, time_name, _read(where, time_name, entries[time_name]), values)
    inputs, input_names, column_inputs = None, None, options.inputs
    if options.inputs and len(options.inputs) == 1 and options.inputs[0] in entries:
        inputs = tuple(_trajectories(where, str(options.inputs[0]), entries[str(options.inputs[0])], options, episodes))
        column_inputs = None
    dt, unit = beside.sampling()
    if time_name is not None:
        unit = str(entries[time_name].attributes.get("units", "")).split(" ")[0] or unit_of(time_name.rsplit("/", 1)[-1]) or unit
    raw = Raw(tuple(values), names, times, inputs, input_names, dt, beside.units(), unit)
    columns = None if stacked else options.columns
    own = names or beside.names(values[0].shape[1])
    return _with_roles(
        where, raw, own, Options(columns=columns, time=_column_only(options.time, time_name), episode=options.episode, inputs=column_inputs)
    )


def _with_roles(where: str, raw: Raw, names: Sequence[str] | None, options: Options) -> Raw:
    """Choose columns of (T, N) arrays, and take time and episode columns out of them."""
    width = raw.values[0].shape[1]
    called = list(names) if names else [f"x{i}" for i in range(width)]
    check_unique(where, called)
    roles = assign_roles(where, called, options, named=names is not None and options.time is not False)
    values = tuple(take(v, roles.observed) for v in raw.values)
    times, unit = raw.times, raw.time_unit
    if roles.time is not None and times is None:
        times, unit = tuple(_column(v, roles.time) for v in raw.values), roles.time_unit
    inputs = raw.inputs if not roles.inputs else tuple(take(v, roles.inputs) for v in raw.values)
    if roles.episode is not None:
        count = len(raw.values)
        if count > 1:
            raise DataError(f"{where}: holds {count} trajectories already, so there can't be an episode column. Leave episode out.")
        pieces = split_episodes(where, _column(raw.values[0], roles.episode).tolist())
        values = tuple(rows(values[0], a, b) for a, b in pieces)
        times = None if times is None else tuple(times[0][a:b] for a, b in pieces)
        inputs = None if inputs is None else tuple(rows(inputs[0], a, b) for a, b in pieces)
    return Raw(
        values,
        tuple(called[i] for i in roles.observed),
        times,
        inputs,
        tuple(called[i] for i in roles.inputs) if roles.inputs else None,
        raw.dt,
        raw.units,
        unit,
    )


def _column(values: ArrayLike, number: int) -> np.ndarray:
    return np.asarray(take(values, [number])[:]).reshape(-1)


def _column_only(time: str | int | bool | None, time_name: str | None) -> str | int | bool | None:
    """The `time` option as far as it names a column: an array that holds the times settles it."""
    return False if time_name is not None else time


def _choose(where: str, entries: Mapping[str, Entry], options: Options) -> tuple[str, ...]:
    """The names of the arrays that hold the values."""
    if options.dataset is not None:
        return _named(where, entries, options.dataset.strip("/"))
    if options.columns and all(isinstance(c, str) and c in entries for c in options.columns):
        chosen = tuple(str(c) for c in options.columns)
        lengths = {name: int(np.prod(entries[name].shape, dtype=object)) for name in chosen}
        if len(set(lengths.values())) > 1 or any(max(entries[n].shape, default=0) != lengths[n] for n in chosen):
            raise DataError(
                f"{where}: the columns are arrays of different shape: {describe({n: entries[n] for n in chosen})}. Each must be (T,)."
            )
        return chosen
    asked = {str(column) for column in (options.inputs or ())} | {str(options.time)}
    found = [name for name in _candidates(entries) if name not in asked]
    roots = [name for name in found if name.rsplit("/", 1)[-1] == "values"]
    found = roots if len(roots) == 1 else found
    if len(found) == 1:
        return (found[0],)
    if not found:
        raise DataError(f"{where}: no array of numbers that could be a time series; it holds {describe(entries)}.")
    raise DataError(
        f"{where}: several arrays could be the values: {describe({n: entries[n] for n in found})}. Name one with dataset=..., or "
        "several (T,) arrays with columns=[...]."
    )


def _named(where: str, entries: Mapping[str, Entry], name: str) -> tuple[str, ...]:
    """The array of this name, or the arrays of the group of this name in natural order."""
    if name in entries:
        return (name,)
    inside = {key: entry for key, entry in entries.items() if key.startswith(f"{name}/") and "/" not in key[len(name) + 1 :]}
    found = _candidates(inside)
    values = [key for key in found if key.rsplit("/", 1)[-1] == "values"]
    found = values or found
    if found:
        return tuple(sorted(found, key=lambda key: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", key)]))
    raise DataError(f"{where}: there is no dataset {name!r}; it holds {describe(entries)}.{did_you_mean(name, entries)}")


def _candidates(entries: Mapping[str, Entry]) -> list[str]:
    """Names of the arrays that may be values: numbers, not one number, not called like a time."""
    return [n for n, e in entries.items() if e.kind in "biuf" and e.shape and not e.is_scalar and not is_time_name(n.rsplit("/", 1)[-1])]


def describe(entries: Mapping[str, Entry], limit: int = 20) -> str:
    """The arrays with shape and type, for errors."""
    shown = [f"{name!r} {tuple(e.shape)} {e.type_name or e.kind}" for name, e in list(entries.items())[:limit]]
    return ", ".join(shown) + (f", ... ({len(entries)} in all)" if len(entries) > limit else "")


def _read(where: str, name: str, entry: Entry) -> np.ndarray:
    if entry.kind not in "biuf":
        as_numbers(
            where,
            f"{name!r}",
            np.empty(0, dtype={"U": "U1", "S": "S1", "c": complex, "M": "M8[s]", "m": "m8[s]", "V": "V1"}.get(entry.kind, object)),
        )
    return as_numbers(where, f"{name!r}", entry.read())


def _trajectories(where: str, name: str, entry: Entry, options: Options, episodes: bool) -> list[ArrayLike]:
    """The (T, N) arrays of one entry, lazy if they are large or the caller wants it."""
    if len(entry.shape) not in ((1, 2, 3) if episodes else (1, 2)):
        wanted = "(T,), (T, N) or (E, T, N)" if episodes else "(T,) or (T, N)"
        raise DataError(
            f"{where}: {name!r} has shape {tuple(entry.shape)}, wanted {wanted}. Choose or reshape: x.reshape(len(x), -1) makes every "
            "row a time."
        )
    if 0 in entry.shape:
        raise DataError(f"{where}: {name!r} is empty, shape {tuple(entry.shape)}.")
    lazy = options.lazy if options.lazy is not None else entry.float_bytes > LAZY_BYTES
    if lazy and entry.lazy is not None and entry.kind in "biuf":
        return [entry.lazy(i) for i in range(entry.shape[0])] if len(entry.shape) == 3 else [entry.lazy(None)]
    if options.lazy:
        raise DataError(
            f"{where}: can't be read in slices (lazy=True); only HDF5, MATLAB 7.3 and netCDF-4 can. Convert it with "
            "write_series(series, 'x.h5')."
        )
    array = _read(where, name, entry)
    return list(array) if array.ndim == 3 else [array.reshape(len(array), -1)]


def _time_name(where: str, entries: Mapping[str, Entry], main: str, options: Options) -> str | None:
    """The array that holds the times: asked for, or beside the values and called like a time."""
    if options.time is False:
        return None
    if isinstance(options.time, str):
        return options.time.strip("/") if options.time.strip("/") in entries else None
    if options.time is not None and options.time is not True:
        return None
    folder = main.rsplit("/", 1)[0] + "/" if "/" in main else ""
    found = [
        n
        for n, e in entries.items()
        if n.startswith(folder)
        and "/" not in n[len(folder) :]
        and is_time_name(n[len(folder) :])
        and e.kind in "biuf"
        and not e.is_scalar
        and n != main
    ]
    if len(found) > 1:
        raise DataError(
            f"{where}: several arrays look like the times: {', '.join(map(repr, found))}. Say which with time=..., or time=False."
        )
    return found[0] if found else None


def _split_times(where: str, name: str, times: np.ndarray, values: Sequence[ArrayLike]) -> tuple[np.ndarray, ...]:
    """(T,) times for each trajectory from (T,), (T, 1), (1, T) or (E, T); trajectories of equal length may share them."""
    lengths = {len(v) for v in values}
    flat = times.reshape(-1)
    if len(lengths) == 1 and flat.size == len(values[0]):
        return tuple(flat for _ in values)
    if times.ndim == 2 and len(lengths) == 1 and times.shape == (len(values), len(values[0])):
        return tuple(times)
    shown = ", ".join(str(len(v)) for v in values[:5])
    raise DataError(
        f"{where}: {name!r} has shape {times.shape}, the trajectories have {shown} rows. There must be one time a row; pass time=False "
        "to ignore it."
    )


@dataclass(frozen=True)
class _Beside:
    """The small facts beside the values: scalars, texts and attributes, looked up without regard to case."""

    where: str
    entries: Mapping[str, Entry]
    main: str
    attributes: Mapping[str, Any]

    def _find(self, keys: Sequence[str]) -> Any:
        folder = self.main.rsplit("/", 1)[0] + "/" if "/" in self.main else ""
        small = {n.lower(): e for n, e in self.entries.items() if n != self.main and e.float_bytes <= 1_000_000}
        attributes = {str(k).lower(): v for k, v in self.attributes.items()}
        for key in keys:
            for name in (folder.lower() + key, key):
                if name in small and small[name].kind in "biufUSO":
                    return small[name].read()
            if key in attributes:
                return attributes[key]
        return None

    def sampling(self) -> tuple[float | None, str | None]:
        """(dt, time unit) from a scalar called dt or a sampling rate in Hz; DataError if it is no positive number."""
        for keys, unit in ((STEPS, None), (RATES, "s")):
            found = self._find(keys)
            if found is None:
                continue
            flat = np.ravel(np.asarray(found))
            good = flat.size == 1 and flat.dtype.kind in "iuf" and np.isfinite(flat[0]) and flat[0] > 0
            if not good:
                raise DataError(
                    f"{self.where}: {keys[0]} is {found!r}, wanted one positive number. Correct it, or name the values and give times."
                )
            return (float(flat[0]), None) if unit is None else (1.0 / float(flat[0]), unit)
        return None, None

    def names(self, width: int) -> tuple[str, ...] | None:
        """Names of the columns, if an array of as many texts is there."""
        found = self._find(NAMES)
        flat = (
            []
            if found is None
            else [item.decode("utf-8", "replace") if isinstance(item, bytes) else item for item in np.ravel(np.asarray(found)).tolist()]
        )
        return tuple(flat) if len(flat) == width and all(isinstance(item, str) and item.strip() for item in flat) else None

    def units(self) -> str | None:
        """The unit of the values, if one text says it."""
        found = self._find(("units", "unit"))
        flat = [] if found is None else np.ravel(np.asarray(found)).tolist()
        text = flat[0] if len(flat) == 1 else None
        text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        return text if isinstance(text, str) and text else None

"""From what a user gives (arrays, lists, one or many) to the checked arrays of a TimeSeries."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dynsys_datasets.errors import DataError
from dynsys_datasets.series import checks
from dynsys_datasets.series.lazy import ArrayLike, LazyArray


def short(source: str) -> str:
    """How errors call a series: its source, cut to 60 characters."""
    return (source if len(source) <= 60 else f"{source[:57]}...") or "TimeSeries"


def row_counts(arrays: Sequence[Any]) -> str:
    """The lengths of the first arrays, for errors."""
    shown = ", ".join(str(len(a)) for a in arrays[:5])
    return f"{shown}{', ...' if len(arrays) > 5 else ''}"


def one_by_one(values: Any) -> list[Any]:
    """The arrays of a sequence of arrays; [values] if it is one array (or nested lists of numbers)."""
    if isinstance(values, list | tuple) and values and all(hasattr(v, "shape") and len(v.shape) for v in values):
        return list(values)
    return [values]


def as_trajectories(where: str, what: str, values: Any) -> tuple[ArrayLike, ...]:
    """(T_i, N) float64 arrays from what a user gave; DataError if they can't be."""
    found: list[ArrayLike] = []
    parts = one_by_one(values)
    for i, part in enumerate(parts):
        if isinstance(part, LazyArray):
            found.append(part)
            continue
        try:
            array = np.asarray(part)
        except ValueError as error:
            raise DataError(
                f"{where}: {what} are no array of numbers ({error}). Rows must have equal length; give trajectories as a list of arrays."
            ) from None
        array = checks.as_numbers(where, what, array)
        if array.ndim == 3 and len(parts) == 1:
            found.extend(array)
        elif array.ndim in (1, 2):
            found.append(array[:, None] if array.ndim == 1 else array)
        else:
            raise DataError(
                f"{where}: {what} must be (T, N), (T,), (E, T, N) or a list of (T, N) arrays; got shape "
                f"{array.shape}{f' at position {i}' if i else ''}."
            )
    if not found:
        raise DataError(f"{where}: {what} hold no trajectory.")
    for i, array in enumerate(found):
        if not array.shape[0] or not array.shape[1]:
            raise DataError(f"{where}: trajectory {i} of {what} is empty, shape {array.shape}. It needs at least one row and one column.")
        if array.shape[1] != found[0].shape[1]:
            raise DataError(
                f"{where}: trajectory {i} of {what} has {array.shape[1]} columns, the first has {found[0].shape[1]}. All must have the "
                "same columns."
            )
    return tuple(found)


def as_times(where: str, times: Any, lengths: Sequence[int]) -> tuple[np.ndarray, ...]:
    """(T_i,) strictly increasing float64 arrays of these lengths; DataError if they can\'t be."""
    parts = one_by_one(times)
    if len(parts) == 1 and np.ndim(parts[0]) == 2:
        parts = list(np.asarray(parts[0]))
    arrays = [checks.as_numbers(where, "times", np.asarray(part)) for part in parts]
    if any(t.ndim != 1 for t in arrays) or [t.size for t in arrays] != list(lengths):
        shapes = ", ".join(str(t.shape) for t in arrays[:5])
        raise DataError(
            f"{where}: times have the shapes {shapes}, the trajectories have {', '.join(map(str, lengths[:5]))} rows. Give one time a "
            "row, one array a trajectory."
        )
    for i, t in enumerate(arrays):
        checks.check_times(t, where if len(arrays) == 1 else f"{where}, trajectory {i}")
    return tuple(arrays)


def as_names(where: str, what: str, names: Sequence[str] | None, letter: str, count: int) -> tuple[str, ...]:
    """One tidy, unique name a column, `letter` and number by default; DataError if they are too few, repeated or empty."""
    if names is None:
        return tuple(f"{letter}{i}" for i in range(count))
    tidy = (names,) if isinstance(names, str) else tuple(" ".join(str(name).split()) for name in names)
    if len(tidy) != count:
        raise DataError(f"{where}: got {len(tidy)} {what} for {count} columns: {', '.join(tidy[:10])}. Give one name a column.")
    unprintable = [name for name in tidy if any(ord(letter) < 32 or "\ud800" <= letter <= "\udfff" for letter in name)]
    if unprintable:
        raise DataError(f"{where}: {unprintable[0]!a} in {what} holds control characters. Use plain text for names.")
    repeated = sorted({name for name in tidy if tidy.count(name) > 1}) if len(set(tidy)) < count else []
    if repeated or "" in tidy:
        problem = f"the name {repeated[0]!r} is a duplicate" if repeated else "a name is empty"
        raise DataError(f"{where}: {problem} in {what}. Every column needs a name of its own.")
    return tidy

"""Which column plays which part: observed, input, time, episode. By keyword, else by name.

A column is taken as the time without being asked if it is called time, elapsed time, times, timestamp, t, seconds, date,
datetime or year (upper or lower case; "T" is left alone, it may be a temperature), optionally with a unit: "time (ms)", "time [s]", "t_s".
It is taken as the episode if it is called episode, trajectory or trial.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dynsys_datasets.errors import DataError, did_you_mean
from dynsys_datasets.series.options import Column, Options

EPISODE_NAMES = ("episode", "trajectory", "trial")
TIME = re.compile(
    r"(?P<name>time|elapsed time|times|timestamp|t|seconds|date|datetime|year)\s*"
    r"(?:[\(\[]\s*(?P<unit>[^\)\]]*?)\s*[\)\]]|_(?P<suffix>s|ms|us|min|h|d))?",
    re.IGNORECASE,
)
UNITS = {"seconds": "s", "sec": "s", "milliseconds": "ms", "year": "years"}


@dataclass(frozen=True)
class Roles:
    """Column numbers by role; `time_unit` is what the time column's name says."""

    observed: tuple[int, ...]
    inputs: tuple[int, ...] = ()
    time: int | None = None
    episode: int | None = None
    time_unit: str | None = None


def is_time_name(name: str) -> bool:
    """True if a column or an array of this name is the time."""
    found = TIME.fullmatch(name.strip())
    return found is not None and found["name"] != "T"


def unit_of(name: str) -> str | None:
    """The unit of time that a name tells, e.g. "ms" for "time (ms)"."""
    found = TIME.fullmatch(name.strip())
    return None if found is None else found["unit"] or found["suffix"] or UNITS.get(found["name"].lower())


def assign_roles(where: str, names: Sequence[str], options: Options, *, named: bool = True) -> Roles:
    """The roles of a table's columns; `named` is False if the names are our own x0, x1, ... and tell nothing.

    Raises DataError for columns that are not there, asked for twice, or if nothing is left to observe.
    """
    time = _single(where, names, "time", options.time, named, is_time_name)
    episode = _single(where, names, "episode", options.episode, named, lambda name: name.strip().lower() in EPISODE_NAMES)
    inputs = tuple(find(where, names, column) for column in options.inputs or ())
    taken = {column for column in (time, episode, *inputs) if column is not None}
    if options.columns is None:
        observed = tuple(i for i in range(len(names)) if i not in taken)
    else:
        observed = tuple(find(where, names, column) for column in options.columns)
    asked = [*observed, *inputs, *(c for c in (time, episode) if c is not None)]
    twice = sorted({names[i] for i in asked if asked.count(i) > 1})
    if twice:
        raise DataError(f"{where}: column {twice[0]!r} was asked for twice. A column is observed, an input, the time or the episode, once.")
    if not observed:
        raise DataError(
            f"{where}: no column is left to observe; it holds {', '.join(map(repr, names))}. A series needs values beside time, episode "
            "and inputs."
        )
    return Roles(observed, inputs, time, episode, None if time is None or not named else unit_of(names[time]))


def find(where: str, names: Sequence[str], column: Column) -> int:
    """The number of a column from its name or number; DataError with a close match."""
    if isinstance(column, str):
        if column in names:
            return list(names).index(column)
        raise DataError(f"{where}: there is no column {column!r}; it holds {listing(names)}.{did_you_mean(column, names)}")
    if isinstance(column, bool) or not -len(names) <= column < len(names):
        raise DataError(f"{where}: there is no column number {column}; it has {len(names)}, counted from 0: {listing(names)}.")
    return int(column) % len(names)


def check_unique(where: str, names: Sequence[str]) -> None:
    """DataError if two columns have the same name."""
    if len(set(names)) < len(names):
        name = next(name for name in names if list(names).count(name) > 1)
        places = [i + 1 for i, other in enumerate(names) if other == name]
        raise DataError(
            f"{where}: the column name {name!r} is a duplicate (columns {', '.join(map(str, places))}). Give every column a name of its "
            "own."
        )


def listing(names: Sequence[str], limit: int = 20) -> str:
    """Names in quotes, the first `limit`."""
    return ", ".join(map(repr, names[:limit])) + (f", ... ({len(names)} in all)" if len(names) > limit else "")


def _single(where: str, names: Sequence[str], role: str, asked: Column | bool | None, named: bool, detect) -> int | None:
    """The column of a role that at most one column has."""
    if asked is False:
        return None
    if asked is not None and asked is not True:
        return find(where, names, asked)
    found = [i for i, name in enumerate(names) if named and detect(name)]
    if len(found) > 1:
        raise DataError(
            f"{where}: several columns look like the {role}: {listing([names[i] for i in found])}. Say which with {role}=..., or "
            f"{role}=False."
        )
    if asked is True and not found:
        raise DataError(f"{where}: no column looks like the {role}; it holds {listing(names)}. Say which with {role}=...")
    return found[0] if found else None

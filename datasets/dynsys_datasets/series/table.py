"""From the columns of a table (text or parquet) to trajectories, times and inputs."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from dynsys_datasets.errors import DataError
from dynsys_datasets.series.assemble import Raw, row_number, split_episodes
from dynsys_datasets.series.options import Options
from dynsys_datasets.series.roles import Roles

# h:mm:ss.fff or m:ss.fff; the year 1 stands for "no date"
CLOCK = re.compile(r"'?(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2}(?:\.\d*)?)'?", re.ASCII)
MIDNIGHT = datetime(1, 1, 1)


@dataclass(frozen=True)
class Table:
    """Columns by number: `numbers` as (T,) arrays, `words` as lists (episode labels, dates)."""

    names: Sequence[str]
    numbers: Mapping[int, np.ndarray]
    words: Mapping[int, Sequence[Any]]
    n_rows: int
    row_name: Callable[[int], str] = row_number
    cell_text: Callable[[int, int], str | None] = lambda row, column: None


def from_table(where: str, table: Table, roles: Roles, about: Mapping[str, Any], notes: Sequence[str] = ()) -> Raw:
    """The raw series of a table's columns; `about` is the description that `write_series` adds."""
    if not table.n_rows:
        raise DataError(f"{where}: has column names but no row of data. Was the file written to its end?")
    times, unit = None, roles.time_unit
    if roles.time is not None:
        if roles.time in table.words:
            times, note = _seconds(where, table.words[roles.time], table.row_name)
            unit, notes = "s", (*notes, note)
        else:
            times = table.numbers[roles.time]
    ranges = [(0, table.n_rows)]
    if roles.episode is not None:
        labels = table.words[roles.episode] if roles.episode in table.words else table.numbers[roles.episode].tolist()
        ranges = split_episodes(where, labels, table.row_name)
    values = np.stack([table.numbers[i] for i in roles.observed], axis=1)
    inputs = np.stack([table.numbers[i] for i in roles.inputs], axis=1) if roles.inputs else None
    order = (*roles.observed, *roles.inputs)
    return Raw(
        values=tuple(values[a:b] for a, b in ranges),
        names=tuple(table.names[i] for i in roles.observed),
        times=None if times is None else tuple(times[a:b] for a, b in ranges),
        inputs=None if inputs is None else tuple(inputs[a:b] for a, b in ranges),
        input_names=None if inputs is None else tuple(table.names[i] for i in roles.inputs),
        dt=about.get("dt"),
        units=tuple(about["units"]) if isinstance(about.get("units"), list) else about.get("units"),
        time_unit=about.get("time_unit", unit),
        source=about.get("source"),
        notes=(*about.get("notes", ()), *notes),
        row_name=table.row_name,
        cell_text=lambda row, column, found: table.cell_text(row, order[column]) or f"{found}",
        starts=tuple(a for a, _ in ranges),
    )


METADATA_KINDS = {
    "dt": (int, float),
    "units": (str, list),
    "time_unit": str,
    "source": str,
    "notes": list,
    "time": str,
    "episode": str,
    "inputs": list,
    "separator": str,
}


def metadata_options(where: str, about: Mapping[str, Any], options: Options) -> Options:
    """The options with the roles that `write_series` noted, unless the caller says otherwise; DataError for a damaged note."""
    for key, value in about.items():
        kind = METADATA_KINDS.get(key)
        fits = kind is not None and (value is None or isinstance(value, kind))
        if fits and isinstance(value, list):
            fits = all(isinstance(item, str) for item in value)
        if fits and key == "dt":
            fits = value is None or (isinstance(value, int | float) and 0 < value < float("inf"))
        if not fits:
            raise DataError(
                f"{where}, line 1: the description has {key}={value!r}, which can't be read. Delete this line to read the file as a "
                "plain table."
            )
    if not about:
        return options
    return dataclasses.replace(
        options,
        time=options.time if options.time is not None else about.get("time") or False,
        episode=options.episode if options.episode is not None else about.get("episode") or False,
        inputs=options.inputs if options.inputs is not None else tuple(about.get("inputs") or ()),
    )


def _seconds(where: str, dates: Sequence[Any], row_name: Callable[[int], str]) -> tuple[np.ndarray, str]:
    """Dates as seconds since the first one, and the note that says so."""
    found: list[datetime] = []
    for row, date in enumerate(dates):
        try:
            clock = CLOCK.fullmatch(date) if isinstance(date, str) else None
            if clock is not None:
                hours, minutes, seconds = clock.groups()
                found.append(MIDNIGHT + timedelta(hours=int(hours or 0), minutes=int(minutes), seconds=float(seconds)))
            else:
                found.append(date if isinstance(date, datetime) else datetime.fromisoformat(date))
        except (TypeError, ValueError, OverflowError):
            raise DataError(
                f"{where}, {row_name(row)}: the time {str(date)!r} is neither a number "
                "nor a date like 2024-05-31T14:00:00 nor a clock like 1:02:03.5. "
                "Write times as numbers or ISO dates, or pass time=False."
            ) from None
    try:
        seconds = np.array([(date - found[0]).total_seconds() for date in found])
    except TypeError:
        raise DataError(f"{where}: some dates have a time zone and some have none. Write all in one way.") from None
    if found[0].year == MIDNIGHT.year:
        return seconds + (found[0] - MIDNIGHT).total_seconds(), "times were converted from hours:minutes:seconds to seconds"
    return seconds, f"times are seconds since {found[0].isoformat()}"

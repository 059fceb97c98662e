"""Parquet tables by pyarrow (extra `files`): roles of columns as in text tables, nulls are missing values."""

from pathlib import Path
from typing import Any

import numpy as np

from dynsys_datasets.errors import DataError, require
from dynsys_datasets.series.assemble import Raw
from dynsys_datasets.series.checks import as_numbers
from dynsys_datasets.series.guard import reading, refuse_absurd
from dynsys_datasets.series.options import Options
from dynsys_datasets.series.roles import Roles, assign_roles, check_unique
from dynsys_datasets.series.table import Table, from_table

# dictionary and run-length coding pack repeated numbers far better than deflate; a constant column is refused later anyway
BEST_RUNS = 1000


def read_parquet(path: Path, options: Options) -> Raw:
    """The series of a Parquet table; only the columns that are needed are read."""
    arrow = require("pyarrow.parquet", extra="files", who="reading Parquet")
    where = path.name
    with reading(path, "Parquet"):
        file = arrow.ParquetFile(path, memory_map=False)
        names, n_rows = [str(name) for name in file.schema_arrow.names], int(file.metadata.num_rows)
    refuse_absurd(where, "the table", 8 * n_rows * max(1, len(names)), BEST_RUNS * path.stat().st_size)
    check_unique(where, names)
    roles = assign_roles(where, names, options)
    notes = ()
    index = {i for i, name in enumerate(names) if name.startswith("__index_level_")}
    if options.columns is None and index & set(roles.observed):
        roles = Roles(tuple(i for i in roles.observed if i not in index), roles.inputs, roles.time, roles.episode, roles.time_unit)
        notes = ("left out the row index of pandas",)
        if not roles.observed:
            raise DataError(f"{where}: holds only a row index. A series needs values.")
    needed = [i for i in (*roles.observed, *roles.inputs, roles.time, roles.episode) if i is not None]
    with reading(path, "Parquet"):
        columns = {i: file.read(columns=[names[i]], use_threads=False).column(0) for i in needed}
        wrong = [names[i] for i in needed if len(columns[i]) != n_rows]
        if wrong:
            raise DataError(
                f"{where}: column {wrong[0]!r} does not have the {n_rows} rows that the file announces. It is damaged; save it again."
            )
        words = {i: columns[i].to_pylist() for i in (roles.episode,) if i is not None}
        if roles.time is not None and str(columns[roles.time].type).startswith(("timestamp", "date", "string", "large_string")):
            words[roles.time] = _dates(columns[roles.time])
        arrays = {i: columns[i].to_numpy(zero_copy_only=False) for i in needed if i not in words}
    numbers = {i: _numbers(where, names[i], array, columns[i]) for i, array in arrays.items()}
    return from_table(where, Table(names, numbers, words, n_rows), roles, {}, notes)


def _dates(column: Any) -> list[Any]:
    """Dates as datetime objects or ISO texts."""
    return [value if isinstance(value, str) or not hasattr(value, "isoformat") else value.isoformat() for value in column.to_pylist()]


def _numbers(where: str, name: str, array: np.ndarray, column: Any) -> np.ndarray:
    """A column as (T,) float64, null as NaN; DataError that shows the first text if it holds texts."""
    if array.dtype.kind == "O" and str(column.type) in ("bool", "null"):
        return np.array([np.nan if value is None else float(value) for value in array])
    if array.dtype.kind not in "biuf":
        row, shown = next(((i, v) for i, v in enumerate(column.to_pylist()) if v is not None), (0, None))
        raise DataError(
            f"{where}, row {row}: column {name!r} holds {str(shown)[:60]!r}, not a number (its type is {column.type}). Convert it, or "
            "leave the column out with columns=[...]."
        )
    return as_numbers(where, f"column {name!r}", array)

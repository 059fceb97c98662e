"""Writing a series so that reading it back gives the same series: csv and HDF5, whole or not at all.

The file is written under another name in the same folder and renamed at the end, so that nobody ever sees half of it.
"""

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dynsys_datasets.errors import DataError, did_you_mean
from dynsys_datasets.files import check_target, replacing
from dynsys_datasets.series.hdf5 import FORMAT
from dynsys_datasets.series.lazy import ArrayLike, blocks
from dynsys_datasets.series.text import METADATA
from dynsys_datasets.series.timeseries import TimeSeries

SEPARATORS = {".csv": ",", ".txt": ",", ".tsv": "\t"}


def write_series(series: TimeSeries, path: str | os.PathLike[str]) -> None:
    """Write a series as csv (.csv, .tsv, .txt) or HDF5 (.h5, .hdf5); `read_series` gives back an equal one.

    A text table has a column for the episode (if there are several trajectories), the time, the values and the inputs, and
    a first comment line with units, source, notes and roles (pandas.read_csv(path, comment="#") skips it). Numbers are
    written with all digits. HDF5 is written in slices. Raises DataError for another extension or a path that can't be written.
    """
    file = Path(path)
    check_writable(file)
    with replacing(file) as temporary:
        _WRITERS[file.suffix.lower()](series, temporary, file)


def check_writable(path: str | os.PathLike[str]) -> None:
    """DataError if `write_series` could not write there; ask it before a long computation."""
    file = Path(path)
    extension = file.suffix.lower()
    if extension not in _WRITERS:
        raise DataError(f"{file.name}: can't write {extension!r}; known: {', '.join(_WRITERS)}.{did_you_mean(extension, _WRITERS)}")
    check_target(file)


def _about(series: TimeSeries, **roles: Any) -> str:
    """The description as JSON, without what is unknown."""
    units = list(series.units) if isinstance(series.units, tuple) else series.units
    facts = {
        "dt": series.given_dt,
        "units": units,
        "time_unit": series.time_unit,
        "source": series.source,
        "notes": list(series.notes),
        **roles,
    }
    return json.dumps({key: value for key, value in facts.items() if value is not None})


def _free(name: str, taken: Sequence[str]) -> str:
    """`name`, with underscores until no column has it."""
    while name in taken:
        name += "_"
    return name


def _write_text(series: TimeSeries, temporary: Path, path: Path) -> None:
    names, n_obs = list(series.names), series.n_obs
    for name in series.input_names:
        names.append(_free(name, names))
    time = _free("time", names) if series.times is not None else None
    episode = _free("episode", names) if series.n_trajectories > 1 else None
    separator = SEPARATORS[path.suffix.lower()]
    about = _about(series, separator=separator, time=time, episode=episode, inputs=names[n_obs:] or None)
    with temporary.open("x", encoding="utf-8", newline="") as file:
        file.write(f"{METADATA}{about}\n")
        csv.writer(file, delimiter=separator, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(
            [*([episode] if episode else []), *([time] if time else []), *names]
        )
        for i, values in enumerate(series.trajectories):
            for start, block in blocks(values):
                parts: list[ArrayLike] = [block]
                if series.times is not None:
                    parts.insert(0, series.times[i][start : start + len(block), None])
                if series.inputs is not None:
                    parts.append(series.inputs[i][start : start + len(block)])
                prefix = f"{i}{separator}" if episode else ""
                table = np.concatenate([np.asarray(part) for part in parts], axis=1)
                file.writelines(f"{prefix}{separator.join(map(repr, row))}\n" for row in table.tolist())


def _write_hdf5(series: TimeSeries, temporary: Path, path: Path) -> None:
    import h5py

    about = _about(series, names=list(series.names), input_names=list(series.input_names), trajectories=series.n_trajectories)
    with h5py.File(temporary, "x") as file:
        file.attrs["format"] = FORMAT
        file.create_dataset("about", data=about)
        for i in range(series.n_trajectories):
            for key, arrays in (("values", series.trajectories), ("times", series.times), ("inputs", series.inputs)):
                if arrays is None:
                    continue
                found = file.create_dataset(f"series/{i}/{key}", shape=arrays[i].shape, dtype="f8")
                for start, block in blocks(arrays[i]):
                    found[start : start + len(block)] = block


_WRITERS = {".h5": _write_hdf5, ".hdf5": _write_hdf5} | dict.fromkeys(SEPARATORS, _write_text)

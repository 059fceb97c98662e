"""HDF5: any dataset (T,), (T, N) or (E, T, N), a group of datasets, or the layout that `write_series` makes.

/            attribute format = "dynsys series 1"
    /about       JSON: names, units, dt, source, ...
/series/0    values (T, N), times (T,), inputs (T, K); /series/1, ...
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dynsys_datasets.errors import DataError
from dynsys_datasets.series.arrays import LAZY_BYTES, Entry, from_entries
from dynsys_datasets.series.assemble import Raw
from dynsys_datasets.series.guard import reading, refuse_absurd
from dynsys_datasets.series.lazy import ArrayLike, LazyArray, take
from dynsys_datasets.series.options import Options
from dynsys_datasets.series.roles import assign_roles
from dynsys_datasets.series.table import metadata_options

FORMAT = "dynsys series 1"


def read_hdf5(path: Path, options: Options) -> Raw:
    """The series of an HDF5 file; large arrays stay in the file and are read in slices."""
    entries, about = hdf5_entries(path)
    if about.get("format") == FORMAT and options.dataset is None:
        return _own(path, entries, options)
    return from_entries(path.name, entries, options, about)


def hdf5_entries(path: Path, *, transposed: bool = False) -> tuple[dict[str, Entry], dict[str, Any]]:
    """All datasets by path (without the first /), and the attributes of the file; `transposed` for MATLAB's order."""
    import h5py

    entries: dict[str, Entry] = {}
    size = path.stat().st_size

    def visit(name: str, found: Any) -> None:
        if isinstance(found, h5py.Dataset) and found.shape is not None:
            entries[name] = _entry(path, name, found, size, transposed)

    with reading(path, "HDF5"), h5py.File(path, "r") as file:
        file.visititems(visit)
        return entries, dict(file.attrs)


def _entry(path: Path, name: str, found: Any, size: int, transposed: bool) -> Entry:
    import h5py

    stored = tuple(int(n) for n in found.shape)
    shape = stored[::-1] if transposed else stored
    text = h5py.check_string_dtype(found.dtype) is not None
    kind = "U" if text else found.dtype.kind
    attributes = {key: _attribute(found.attrs, key) for key in found.attrs}
    if kind in "biuf" and not found.is_virtual and not found.external:
        refuse_absurd(path.name, f"dataset {name!r} of shape {shape}", found.dtype.itemsize * int(np.prod(stored, dtype=object)), size)

    def read() -> np.ndarray:
        with reading(path, "HDF5"), h5py.File(path, "r") as file:
            dataset: Any = file[name]
            array = np.asarray(dataset.asstr()[...] if text else dataset[...])
            return array.T if transposed else array

    def lazy(episode: int | None) -> LazyArray:
        rows, columns = ((*shape, 1) if len(shape) == 1 else shape)[-2:]
        return LazyArray(str(path.resolve()), name, 0, rows, columns, episode=episode, transposed=transposed and len(shape) == 2)

    return Entry(shape, kind, read, None if transposed and len(shape) == 3 else lazy, attributes, "text" if text else str(found.dtype))


def _attribute(attributes: Any, key: str) -> Any:
    """An attribute, or None if it is of a kind that h5py can't read (it is only a side note)."""
    try:
        return attributes[key]
    except (OSError, TypeError, ValueError, KeyError, RuntimeError):
        return None


def _own(path: Path, entries: Mapping[str, Entry], options: Options) -> Raw:
    """The layout of `write_series`."""
    where = path.name
    try:
        about = json.loads(str(entries["about"].read()))
        names, input_names = tuple(map(str, about.pop("names"))), tuple(map(str, about.pop("input_names")))
        count = int(about.pop("trajectories"))
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        raise DataError(
            f"{where}: the description of the series is damaged. Read it as plain arrays with dataset='series/0'; it holds "
            f"{', '.join(list(entries)[:10])}."
        ) from None
    metadata_options(where, about, options)
    keys = [key for key in ("values", "times", "inputs") if f"series/0/{key}" in entries]
    lost = (
        [f"series/{i}/{key}" for i in range(count) for key in (*keys, "values") if f"series/{i}/{key}" not in entries]
        if 0 < count <= len(entries)
        else ["series/0/values"]
    )
    if lost:
        raise DataError(
            f"{where}: dataset {lost[0]!r} is missing: {count} trajectories were announced. The file is damaged; write it again."
        )
    total = sum(entry.float_bytes for entry in entries.values())
    lazy = options.lazy if options.lazy is not None else total > LAZY_BYTES

    def get(i: int, key: str) -> ArrayLike:
        entry = entries[f"series/{i}/{key}"]
        if entry.kind not in "biuf" or len(entry.shape) != (1 if key == "times" else 2):
            raise DataError(
                f"{where}: 'series/{i}/{key}' has shape {entry.shape} and type {entry.type_name}. The file is damaged; write it again."
            )
        return entry.lazy(None) if lazy and entry.lazy is not None and key != "times" else np.asarray(entry.read(), dtype=np.float64)

    values = [get(i, "values") for i in range(count)]
    if any(v.shape[1] != len(names) for v in values):
        raise DataError(
            f"{where}: the description names {len(names)} columns, the values have another number. The file is damaged; write it again."
        )
    roles = assign_roles(where, names, Options(columns=options.columns, inputs=None), named=False)
    units = about.get("units")
    return Raw(
        values=tuple(take(v, roles.observed) for v in values),
        names=tuple(names[i] for i in roles.observed),
        times=tuple(np.asarray(get(i, "times")) for i in range(count)) if "times" in keys and options.time is not False else None,
        inputs=tuple(get(i, "inputs") for i in range(count)) if "inputs" in keys else None,
        input_names=input_names if "inputs" in keys else None,
        dt=about.get("dt"),
        units=tuple(units[i] for i in roles.observed)
        if isinstance(units, list) and len(units) == len(names)
        else units
        if isinstance(units, str)
        else None,
        time_unit=about.get("time_unit"),
        source=about.get("source"),
        notes=tuple(about.get("notes", ())),
    )

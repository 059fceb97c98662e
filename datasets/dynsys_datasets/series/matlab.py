"""MATLAB files: v4 to v7 by matlab5.py, v7.3 by h5py, where arrays lie transposed. A row vector is a series, not one row."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dynsys_datasets.series.arrays import Entry, from_entries
from dynsys_datasets.series.assemble import Raw
from dynsys_datasets.series.guard import reading, refuse_absurd
from dynsys_datasets.series.hdf5 import hdf5_entries
from dynsys_datasets.series.matlab5 import Variable, variables
from dynsys_datasets.series.options import Options

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
KINDS = {"double": "f", "single": "f", "logical": "b", "char": "U", "complex": "c"} | dict.fromkeys(
    ("sparse", "cell", "struct", "object", "function", "opaque"), "O"
)


def read_matlab(path: Path, options: Options) -> Raw:
    """The series of the variables of a .mat file; see arrays.py for which variable is what."""
    with reading(path, "a MATLAB file"), path.open("rb") as file:
        head = file.read(520)
    if HDF5_SIGNATURE in (head[:8], head[512:520]):
        return from_entries(path.name, _version_73(path), options)
    return from_entries(path.name, _version_5(path), options)


def _version_73(path: Path) -> dict[str, Entry]:
    """Numbers and texts of a v7.3 file; cells and structs are listed, but can't be read."""
    entries, _ = hdf5_entries(path, transposed=True)
    found = {}
    for name, entry in entries.items():
        if name.startswith(("#refs#", "#subsystem#")):
            continue
        kind = entry.attributes.get("MATLAB_class", b"double")
        kind = kind.decode("ascii", "replace") if isinstance(kind, bytes) else str(kind)
        listed = KINDS.get(kind, entry.kind)
        found[name] = _as_vector(Entry(entry.shape, listed if listed in "OU" else entry.kind, entry.read, entry.lazy, {}, kind))
    return found


def _version_5(path: Path) -> dict[str, Entry]:
    """The variables of a v4 to v7 file."""
    size = path.stat().st_size
    with reading(path, "a MATLAB file"):
        found = variables(path.read_bytes())
    entries = {}
    for variable in found:
        kind = KINDS.get(variable.type_name, variable.type_name[0] if "int" in variable.type_name else "O")
        if kind in "biuf":
            refuse_absurd(
                path.name, f"variable {variable.name!r} of shape {variable.shape}", int(np.prod(variable.shape, dtype=object)), size
            )
        entries[variable.name] = _as_vector(Entry(variable.shape, kind, _guarded(path, variable), type_name=variable.type_name))
    return entries


def _guarded(path: Path, variable: Variable) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        with reading(path, "a MATLAB file"):
            return variable.read()

    return read


def _as_vector(entry: Entry) -> Entry:
    """(1, T) and (T, 1) as (T,); everything else as it is."""
    if len(entry.shape) != 2 or 1 not in entry.shape:
        return entry
    read: Any = lambda: entry.read().reshape(-1)  # noqa: E731
    lazy = entry.lazy if entry.shape[1] == 1 else None
    return Entry((entry.shape[0] * entry.shape[1],), entry.kind, read, lazy, entry.attributes, entry.type_name)

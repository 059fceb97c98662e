"""NumPy's own files: npy (one array) and npz (several, by name). Pickled objects are never loaded."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from dynsys_datasets.errors import DataError
from dynsys_datasets.series.arrays import Entry, from_entries
from dynsys_datasets.series.assemble import Raw
from dynsys_datasets.series.checks import as_numbers
from dynsys_datasets.series.guard import reading, refuse_absurd
from dynsys_datasets.series.options import Options


def read_npy(path: Path, options: Options) -> Raw:
    """The series of one array in a .npy file: (T,), (T, N) or (E, T, N)."""
    where, size = path.name, path.stat().st_size
    if options.dataset is not None:
        raise DataError(f"{where}: holds one array without a name, but dataset={options.dataset!r} was asked for. Leave dataset out.")
    with reading(path, "a NumPy array"), path.open("rb") as file:
        shape, dtype = _header(file)
        start = file.tell()
    as_numbers(where, "the array", np.empty(0, dtype=dtype))
    claimed = dtype.itemsize * int(np.prod(shape, dtype=object))
    if start + claimed > size:
        raise DataError(
            f"{where}: the header claims {claimed:,} bytes for shape {shape}, but only {size - start:,} follow. The file is truncated; "
            "copy or save it again."
        )

    def read() -> np.ndarray:
        with reading(path, "a NumPy array"):
            return np.load(path, allow_pickle=False)

    return from_entries(where, {"values": Entry(shape, dtype.kind, read, type_name=str(dtype))}, options)


def read_npz(path: Path, options: Options) -> Raw:
    """The series of the arrays in a .npz file; see arrays.py for which array is what."""
    where, size = path.name, path.stat().st_size
    entries = {}
    with reading(path, "a NumPy archive"), zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.filename.endswith(".npy"):
                continue
            refuse_absurd(where, f"{member.filename!r}", member.file_size, size)
            with archive.open(member) as file:
                shape, dtype = _header(file)
            claimed = dtype.itemsize * int(np.prod(shape, dtype=object))
            if not dtype.hasobject and claimed > member.file_size:
                raise DataError(
                    f"{where}: {member.filename!r} claims {claimed:,} bytes for shape {shape}, but has {member.file_size:,}. The file "
                    "is damaged; save it again."
                )
            name = member.filename.removesuffix(".npy")
            entries[name] = Entry(shape, dtype.kind, _reader(path, member.filename), type_name=str(dtype))
    return from_entries(where, entries, options)


def _reader(path: Path, member: str):
    def read() -> np.ndarray:
        with reading(path, "a NumPy archive"), zipfile.ZipFile(path) as archive:
            return np.lib.format.read_array(io.BytesIO(archive.read(member)), allow_pickle=False)

    return read


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array from its header, before any memory is taken."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"format version {version}")
    shape, _, dtype = read(file)
    return tuple(int(n) for n in shape), dtype

"""netCDF: version 4 by h5py (it is HDF5), the classic version 3 by scipy. Packing by the CF conventions is undone.

value = scale_factor * stored + add_offset,   stored == _FillValue means missing
"""

import dataclasses
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dynsys_datasets.series.arrays import Entry, from_entries
from dynsys_datasets.series.assemble import Raw
from dynsys_datasets.series.guard import reading, refuse_absurd
from dynsys_datasets.series.hdf5 import hdf5_entries
from dynsys_datasets.series.lazy import LazyArray, unpack
from dynsys_datasets.series.options import Options

NO_VARIABLE = b"This is a netCDF dimension but not a netCDF variable"


def read_netcdf(path: Path, options: Options) -> Raw:
    """The series of the variables (time,) or (time, N) of a netCDF file; see arrays.py for which variable is what."""
    with reading(path, "netCDF"), path.open("rb") as file:
        classic = file.read(3) == b"CDF"
    if classic:
        return from_entries(path.name, _classic(path), options, episodes=False)
    entries, about = hdf5_entries(path)
    variables = {name: _unpacked(entry) for name, entry in entries.items() if not bytes(_text(entry, "NAME")).startswith(NO_VARIABLE)}
    return from_entries(path.name, variables, options, about, episodes=False)


def _text(entry: Entry, key: str) -> bytes:
    found = entry.attributes.get(key, b"")
    return found.encode() if isinstance(found, str) else found if isinstance(found, bytes) else b""


def _classic(path: Path) -> dict[str, Entry]:
    import scipy.io

    entries = {}
    with reading(path, "netCDF"):
        # from memory: a header that claims too much then meets the end of the bytes, not the allocator
        file = scipy.io.netcdf_file(io.BytesIO(path.read_bytes()), mmap=False)
        for name, variable in file.variables.items():
            data = np.asarray(variable.data)
            refuse_absurd(path.name, f"variable {name!r}", data.nbytes, path.stat().st_size)
            native = data.astype(data.dtype.newbyteorder("="))
            attributes = {
                key: value.decode("utf-8", "replace") if isinstance(value, bytes) else value for key, value in variable._attributes.items()
            }
            entries[name] = _unpacked(Entry(native.shape, native.dtype.kind, _constant(native), None, attributes, str(native.dtype)))
    return entries


def _constant(array: np.ndarray) -> Callable[[], np.ndarray]:
    return lambda: array


def _number(attributes: Mapping[str, Any], *keys: str) -> float | None:
    """The first of these attributes that is one number."""
    for key in keys:
        flat = np.ravel(np.asarray(attributes.get(key)))
        if flat.size == 1 and flat.dtype.kind in "iuf":
            return float(flat[0])
    return None


def _unpacked(entry: Entry) -> Entry:
    """The entry with packing undone, both in memory and in slices."""
    scale, offset = _number(entry.attributes, "scale_factor"), _number(entry.attributes, "add_offset")
    fill = _number(entry.attributes, "_FillValue", "missing_value")
    if entry.kind not in "biuf" or (scale is None and offset is None and fill is None):
        return entry
    scale, offset = 1.0 if scale is None else scale, 0.0 if offset is None else offset

    def read() -> np.ndarray:
        return unpack(np.asarray(entry.read(), dtype=np.float64), scale, offset, fill)

    def lazy(episode: int | None, inner: Any = entry.lazy) -> LazyArray:
        return dataclasses.replace(inner(episode), scale=scale, offset=offset, fill=fill)

    return Entry(entry.shape, "f", read, None if entry.lazy is None else lazy, entry.attributes, entry.type_name)

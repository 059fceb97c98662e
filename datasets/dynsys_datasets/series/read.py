"""One function for every file of time series: the extension picks the reader, all readers share the rules and the errors."""

import difflib
import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from dynsys_datasets.errors import DataError, did_you_mean
from dynsys_datasets.series.assemble import Raw, finish
from dynsys_datasets.series.options import Options, as_columns, as_separator, check_options, choice
from dynsys_datasets.series.timeseries import Number, TimeSeries

_HERE = "dynsys_datasets.series"
READERS = {
    ".csv": f"{_HERE}.text:read_text",
    ".tsv": f"{_HERE}.text:read_text",
    ".txt": f"{_HERE}.text:read_text",
    ".npy": f"{_HERE}.numpy_files:read_npy",
    ".npz": f"{_HERE}.numpy_files:read_npz",
    ".h5": f"{_HERE}.hdf5:read_hdf5",
    ".hdf5": f"{_HERE}.hdf5:read_hdf5",
    ".mat": f"{_HERE}.matlab:read_matlab",
    ".nc": f"{_HERE}.netcdf:read_netcdf",
    ".parquet": f"{_HERE}.parquet:read_parquet",
}


def open_formats() -> tuple[str, ...]:
    """The file extensions that `read_series` can read."""
    return tuple(READERS)


def read_series(
    path: str | os.PathLike[str],
    *,
    dataset: str | None = None,
    columns: str | int | Sequence[str | int] | None = None,
    time: str | int | bool | None = None,
    episode: str | int | bool | None = None,
    inputs: str | int | Sequence[str | int] | None = None,
    header: bool | str = "auto",
    separator: str = "auto",
    missing: str = "error",
    dt: Number | None = None,
    lazy: bool | str = "auto",
) -> TimeSeries:
    """Read a time series from a file: csv, tsv, txt, npy, npz, h5, hdf5, mat, nc or parquet.

    `dataset`: which array or group of a file with several. `columns`: the observed columns by name or number, all by
    default. `time`, `episode`: the columns (or for times, the array) with these parts; found by name by default (see
    `dynsys_datasets.series.roles`), False: none. `inputs`: columns or array of external inputs. `header`, `separator`: for
    text. `missing`: "error", "interpolate" (linearly in time) or "drop" (incomplete rows go, the trajectory is cut there).
    `dt`: the sampling interval, if the file does not tell it. `lazy`: leave values in the file and read slices
    (HDF5, MATLAB 7.3, netCDF-4); "auto" does so above 256 MB; then `TimeSeries.check` looks for NaN, not this function.

    Raises DataError, with file, line or row, what was found and what to do, for every file that can't be used as asked;
    MissingExtra for Parquet without pyarrow.
    """
    options = Options(
        dataset=dataset,
        columns=as_columns(columns),
        time=time,
        episode=episode,
        inputs=as_columns(inputs),
        header=choice("header", header),
        separator=as_separator(separator),
        missing=missing,
        dt=None if dt is None else float(dt),
        lazy=choice("lazy", lazy),
    )
    options = check_options(options)
    file = Path(path)
    read = _reader(file)
    if options.lazy and file.suffix.lower() not in (".h5", ".hdf5", ".mat", ".nc"):
        raise DataError(
            f"{file.name}: can't be read in slices (lazy=True); only HDF5, MATLAB 7.3 and netCDF-4 can. Convert it with "
            "write_series(series, 'x.h5')."
        )
    return finish(file.name, read(file, options), options)


def _reader(path: Path) -> Callable[[Path, Options], Raw]:
    """The reader for an existing, non-empty file of a known extension; DataError for any other path."""
    if "\0" in str(path):
        raise DataError(f"{str(path)!r}: is no path, it holds a null character.")
    try:
        exists, folder, is_file = path.exists(), path.is_dir(), path.is_file()
        size = path.stat().st_size if is_file else 0
    except OSError as error:
        raise DataError(f"{path}: can't be opened ({error.strerror}).") from None
    if folder:
        inside = [p.name for p in sorted(path.iterdir()) if p.suffix.lower() in READERS][:10]
        raise DataError(
            f"{path}: is a folder, not a file. "
            + (f"It holds {', '.join(inside)}; read one of them." if inside else "It holds no file that can be read.")
        )
    if not exists:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1) if path.parent.is_dir() else []
        raise DataError(f"{path}: there is no such file." + (f" Did you mean {near[0]!r}?" if near else " Check the path."))
    if not is_file:
        raise DataError(f"{path}: is no ordinary file. Copy the data into one.")
    extension = path.suffix.lower()
    if extension not in READERS:
        raise DataError(
            f"{path.name}: unknown extension {extension!r}; known: {', '.join(READERS)}.{did_you_mean(extension, READERS)} "
            "Rename the file if it is one of these, or convert it (docs/files.md shows how)."
        )
    if not size:
        raise DataError(f"{path.name}: is empty (0 bytes). Was it written to its end?")
    module, _, function = READERS[extension].partition(":")
    return getattr(importlib.import_module(module), function)

"""Random bytes, and good files with bytes changed, fed to every reader: an error of ours, or a sound series; never anything else."""

import functools
import os
import warnings

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
from hypothesis import HealthCheck, example, given, settings, strategies as st

from dynsys_datasets.errors import DynsysError
from dynsys_datasets.series import TimeSeries, open_formats, read_series, write_series
from dynsys_datasets.series.sniff import is_missing, is_number
from dynsys_datasets.series.text import _Parser

X = np.random.default_rng(2).normal(size=(12, 2))
EXAMPLES = int(os.environ.get("DYNSYS_FUZZ_EXAMPLES", "60"))
QUICK = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=EXAMPLES)
MAGIC = (
    b"\x93NUMPY\x01\x00",
    b"PK\x03\x04",
    b"\x89HDF\r\n\x1a\n",
    b"CDF\x01",
    b"CDF\x02",
    b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM",
    b"PAR1",
    b"# dynsys series: ",
)


def read(path, content: bytes, **options) -> None:
    """Read bytes as a file of this kind; a series that comes out must be sound."""
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            series = read_series(path, **options)
        except DynsysError:
            return
    assert series.n_points >= 1
    for values in series.trajectories:
        assert values[:].dtype == np.float64
        assert np.isfinite(values[:]).all()


@functools.cache
def good_files(folder) -> dict[str, list[bytes]]:
    """Whole files of each kind, by extension."""
    full = TimeSeries([X, X[:5]], times=[np.arange(12) / 10, np.arange(5) / 10], inputs=[X, X[:5]], names=["a", "b"], units="mV")
    found: dict[str, list[bytes]] = {}

    def keep(name: str, make) -> None:
        make(folder / name)
        extension = "." + name.rsplit(".", 1)[1]
        found.setdefault(extension, []).append((folder / name).read_bytes())

    for name in ("own.csv", "own.tsv", "own.h5", "own.hdf5"):
        keep(name, lambda path: write_series(full, path))
    frame = pd.DataFrame({"episode": [1] * 6 + [2] * 6, "time": np.arange(12), "x": X[:, 0], "y": X[:, 1]})
    keep("plain.csv", lambda path: frame.to_csv(path, index=False))
    keep("plain.txt", lambda path: np.savetxt(path, X, header="x y"))
    keep("plain.npy", lambda path: np.save(path, X))
    keep("plain.npz", lambda path: np.savez(path, values=X, dt=0.1, names=["a", "b"], time=np.arange(12)))
    keep("small.npz", lambda path: np.savez_compressed(path, values=X))
    keep("plain.mat", lambda path: scipy.io.savemat(path, {"values": X, "t": np.arange(12.0), "s": {"a": 1}, "c": [X, "text"]}))
    keep("small.mat", lambda path: scipy.io.savemat(path, {"values": X}, do_compression=True))
    keep("old.mat", lambda path: scipy.io.savemat(path, {"values": X}, format="4"))
    keep("new.mat", _matlab_73)
    keep("new.nc", _hdf5)
    keep("plain.h5", _hdf5)
    keep("old.nc", _netcdf)
    keep("plain.parquet", lambda path: frame.to_parquet(path))
    return found


def _hdf5(path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("values", data=X, chunks=(4, 2), compression="gzip")
        file["time"] = np.arange(12.0)
        file["values"].attrs["units"] = "mV"


def _matlab_73(path) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        file["values"] = X.T
        file["values"].attrs["MATLAB_class"] = np.bytes_("double")


def _netcdf(path) -> None:
    with scipy.io.netcdf_file(path, "w") as file:
        file.createDimension("time", 12)
        file.createVariable("values", "f8", ("time",))[:] = X[:, 0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("good")


@pytest.mark.parametrize("extension", open_formats())
@QUICK
@given(content=st.binary(max_size=400), magic=st.sampled_from((b"", *MAGIC)))
@example(content=b"\0" * 400, magic=b"")
@example(content=b"\xff" * 400, magic=b"")
def test_random_bytes(tmp_path, extension, content, magic):
    read(tmp_path / f"x{extension}", magic + content)


@pytest.mark.parametrize("extension", open_formats())
@QUICK
@given(data=st.data())
def test_good_files_with_changed_bytes(tmp_path, folder, extension, data):
    content = bytearray(data.draw(st.sampled_from(good_files(folder)[extension])))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    options = data.draw(st.sampled_from([{}, {"missing": "drop"}, {"missing": "interpolate"}]))
    read(tmp_path / f"x{extension}", bytes(content), **options)


@pytest.mark.parametrize("extension", [".csv", ".tsv", ".txt"])
@settings(QUICK, max_examples=2 * EXAMPLES)
@given(
    content=st.text(st.sampled_from("0123456789.,;\t -+eEnaifNA/\"'#\n\r\u0663_|xyt\xe9"), max_size=120),
    options=st.fixed_dictionaries(
        {},
        optional={
            "header": st.booleans(),
            "missing": st.sampled_from(["error", "interpolate", "drop"]),
            "columns": st.sampled_from(["x", 0, [0, 1], [-1]]),
            "time": st.sampled_from(["t", 0, True, False]),
            "episode": st.sampled_from([0, 1, False]),
            "separator": st.sampled_from([",", ";", "tab", "space"]),
        },
    ),
)
def test_random_tables(tmp_path, extension, content, options):
    read(tmp_path / f"x{extension}", content.encode(), **options)


NUMBERS = st.sampled_from(
    ["1", "-2.5", "1e3", ".5", "5.", "+7", "nan", "inf", "", "n/a", "1_0", "0x1", "1,5", "\u0663", "1d3", "x", " 2 ", "--1", "1e", "e1"]
)


@QUICK
@given(cells=st.lists(NUMBERS, min_size=1, max_size=12))
def test_the_fast_way_takes_no_cell_that_the_careful_way_refuses(cells):
    """Columns go through float() in blocks; cell by cell the grammar of sniff.py decides. Both must agree."""

    def converted(column: list[str]) -> tuple[list[float], tuple | None]:
        parser = _Parser("x.csv", 1, 1, ["x"], [0], [], False)
        return parser._converted(column, 0).tolist(), parser.wrong

    whole, wrong = converted(cells)
    single = [converted([cell]) for cell in cells]
    # a no-break space is no part of a number but is stripped by float(); with it the block is not ASCII and is read with care
    careful, careful_wrong = converted([*cells, "\xa01"])
    assert np.array_equal(whole, careful[:-1], equal_nan=True)
    assert (wrong is None) == all(cell_wrong is None for _, cell_wrong in single)
    assert careful_wrong is not None
    for cell, (_, cell_wrong) in zip(cells, single, strict=True):
        assert (cell_wrong is None) == (is_number(cell) or is_missing(cell))

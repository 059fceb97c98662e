"""Bad files and bad calls: each raises a DataError whose text names the place, what was found and what to do."""

import io
import os
import zipfile

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io

from dynsys_datasets.errors import DataError, UnknownName
from dynsys_datasets.samples import load_sample
from dynsys_datasets.series import TimeSeries, read_series, write_series

RNG = np.random.default_rng(0)
GOOD = RNG.normal(size=(50, 3))


def text(name: str, content: str | bytes, **options):
    """A case that writes a text file and reads it."""

    def case(folder):
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(data)
        read_series(folder / name, **options)

    return case


def rows(count: int, change: dict[int, str], header: str = "time,lead1,lead2") -> str:
    """A good table of `count` rows in which some lines are replaced; line 1 is the header."""
    lines = [header, *(f"{i / 100},{np.sin(i)},{np.cos(i)}" for i in range(count))]
    for line, content in change.items():
        lines[line - 1] = content
    return "\n".join(lines) + "\n"


def arrays(name: str, options: dict | None = None, **content):
    """A case that writes an npz, HDF5 or MATLAB file and reads it."""

    def case(folder):
        path = folder / name
        if name.endswith("npz"):
            np.savez(path, **content)
        elif name.endswith("mat"):
            scipy.io.savemat(path, content)
        else:
            with h5py.File(path, "w") as file:
                for key, value in content.items():
                    file[key.replace("__", "/")] = value
        read_series(path, **(options or {}))

    return case


def npy(array, name="x.npy", **options):
    def case(folder):
        np.save(folder / name, array, allow_pickle=True)
        read_series(folder / name, **options)

    return case


def truncated(name: str, keep: float):
    """A good file of this kind, cut."""

    def case(folder):
        path = folder / name
        if name.endswith("npy"):
            np.save(path, GOOD)
        elif name.endswith("npz"):
            np.savez_compressed(path, values=GOOD)
        elif name.endswith("mat"):
            scipy.io.savemat(path, {"values": GOOD})
        elif name.endswith("parquet"):
            pd.DataFrame(GOOD, columns=list("abc")).to_parquet(path)
        else:
            write_series(TimeSeries(GOOD), path)
        data = path.read_bytes()
        path.write_bytes(data[: int(keep * len(data))])
        read_series(path)

    return case


def claims_too_much(folder):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 3)})
    (folder / "x.npy").write_bytes(header.getvalue() + b"\0" * 80)
    read_series(folder / "x.npy")


def npz_claims_too_much(folder):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 3)})
    with zipfile.ZipFile(folder / "x.npz", "w") as archive:
        archive.writestr("values.npy", header.getvalue() + b"\0" * 80)
    read_series(folder / "x.npz")


def hdf5_claims_too_much(folder):
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("values", shape=(10**12, 3), dtype="f8", chunks=(1000, 3))
    read_series(folder / "x.h5")


def folder_instead(folder):
    (folder / "run.csv").mkdir()
    (folder / "run.csv" / "a.csv").write_text("1\n")
    read_series(folder / "run.csv")


def almost_the_name(folder):
    (folder / "ecg.csv").write_text("1\n2\n")
    read_series(folder / "egc.csv")


def fifo(folder):
    os.mkfifo(folder / "x.csv")
    read_series(folder / "x.csv")


def duplicate_names_parquet(folder):
    pd.DataFrame({"a": ["x", "y"], "b": [1.0, 2.0]}).to_parquet(folder / "x.parquet")
    read_series(folder / "x.parquet")


def parquet_null(folder):
    pd.DataFrame({"a": [1.0, None, 3.0], "b": [1.0, 2.0, 4.0]}).to_parquet(folder / "x.parquet")
    read_series(folder / "x.parquet")


def netcdf_3d(folder):
    with scipy.io.netcdf_file(folder / "x.nc", "w") as file:
        for name, size in (("time", 5), ("lat", 3), ("lon", 4)):
            file.createDimension(name, size)
        file.createVariable("sst", "f8", ("time", "lat", "lon"))[:] = RNG.normal(size=(5, 3, 4))
    read_series(folder / "x.nc")


def own_hdf5_damaged(folder):
    write_series(TimeSeries([GOOD, GOOD]), folder / "x.h5")
    with h5py.File(folder / "x.h5", "a") as file:
        del file["series/1/values"]
    read_series(folder / "x.h5")


def own_csv_damaged(folder):
    write_series(TimeSeries(GOOD), folder / "x.csv")
    content = (folder / "x.csv").read_text().split("\n", 1)[1]
    (folder / "x.csv").write_text("# dynsys series: {broken\n" + content)
    read_series(folder / "x.csv")


def irregular(folder):
    t = np.arange(100) * 0.01
    t[40:] += 0.05
    np.savez(folder / "x.npz", values=GOOD[:100].repeat(2, axis=0), t=t)
    return read_series(folder / "x.npz").dt


def call(function):
    return lambda folder: function()


SERIES = TimeSeries(GOOD, names=["a", "b", "speed"])

CASES = {
    # text tables
    "text in a number column": (
        text("ecg.csv", rows(54000, {1204: "12.02,0.5,n/a", 1300: "12.98,0.5,n/a", 1301: "12.99,,0.1"})),
        [
            "ecg.csv, line 1204: column 'lead2' holds 'n/a', not a number. 3 of 54000 rows are affected; "
            'pass missing="interpolate" to fill them.',
        ],
    ),
    "a word that no one can fill": (
        text("a.csv", rows(10, {4: "0.02,sinus,0.1"}), missing="interpolate"),
        ["a.csv, line 4", "'lead1'", "'sinus'", "columns="],
    ),
    "empty cell": (text("a.csv", "x,y\n1,2\n,3\n2,4\n"), ["line 3", "'x' holds ''", 'missing="interpolate"']),
    "NaN": (text("a.csv", "x,y\n1,2\n2,NaN\n4,5\n"), ["line 3", "'y' holds nan", "1 of 3 rows"]),
    "inf": (text("a.csv", "x,y\n1,2\n2,-inf\n4,5\n"), ["line 3", "'y' holds -inf", "not a finite number"]),
    "underscore is no number": (text("a.csv", "x,y\n1,2\n2,1_0\n4,5\n"), ["line 3", "'1_0', not a number"]),
    "other digits are no numbers": (text("a.csv", "x,y\n1,2\n2,\u0663\n4,5\n"), ["line 3", "'\u0663'"]),
    "decimal comma": (text("a.csv", "x;y\n1,5;2\n2,5;3\n"), ["'1,5'", "write 1.5"]),
    "unequal rows": (text("a.csv", "x,y\n1,2\n1,2,3\n4,5\n"), ["a.csv, line 3", "has 3 cells", "has 2"]),
    "truncated last row": (text("a.csv", "x,y,z\n1,2,3\n4,5,6\n7,8"), ["line 4", "2 cells", "truncated"]),
    "empty line inside": (text("a.csv", "x,y\n1,2\n\n4,5\n"), ["line 3", "empty"]),
    "empty line in a single column": (text("a.csv", "x\n1\n\n4\n"), ["line 3", "holds ''"]),
    "only a header": (text("a.csv", "x,y\n"), ["a.csv", "no row"]),
    "only comments": (text("a.csv", "# nothing\n# here\n"), ["a.csv", "only comments"]),
    "only a time column": (text("a.csv", "time\n1\n2\n"), ["no column is left to observe"]),
    "only an index": (text("a.csv", ",\n0,\n1,\n", header=True), ["a.csv"]),
    "duplicate column names": (text("a.csv", "x,y,x\n1,2,3\n4,5,6\n"), ["'x'", "duplicate", "1, 3"]),
    "unknown column": (text("a.csv", "lead1,lead2\n1,2\n3,4\n", columns=["laed2"]), ["no column 'laed2'", "Did you mean 'lead2'"]),
    "column number out of range": (text("a.csv", "1,2\n3,4\n", columns=[5]), ["no column number 5", "it has 2"]),
    "column asked for twice": (text("a.csv", "x,y\n1,2\n3,4\n", columns=["x"], inputs=["x"]), ["'x'", "twice"]),
    "unsorted times": (text("a.csv", rows(10, {6: "0.9,1,2"})), ["a.csv, line 7", "unsorted", "1 of 9 steps"]),
    "duplicate times": (text("a.csv", rows(10, {6: "0.03,1,2"})), ["a.csv, line 6", "0.03", "duplicate"]),
    "NaN in the time": (text("a.csv", rows(10, {6: "nan,1,2"}), missing="interpolate"), ["line 6", "time is nan"]),
    "time that is no time": (text("a.csv", "time,x\nnoon,1\nevening,2\n"), ["line 2", "'noon'", "ISO"]),
    "time zones mixed": (text("a.csv", "time,x\n2024-01-01T00:00:00,1\n2024-01-01T00:00:01+01:00,2\n"), ["time zone"]),
    "two time columns": (text("a.csv", "time,seconds,x\n1,1,1\n2,2,2\n"), ["'time', 'seconds'", "time=False"]),
    "no such time column": (text("a.csv", "x,y\n1,2\n3,4\n", time="stamp"), ["no column 'stamp'"]),
    "episode comes back": (text("a.csv", "episode,x\n1,1\n2,2\n1,3\n"), ["line 4", "episode '1' begins again"]),
    "episode missing": (text("a.csv", "episode,x\n1,1\n,2\n1,3\n"), ["line 3", "episode is missing"]),
    "header or data": (text("a.csv", "0,1,2\n0.5,1.5,2.5\n0.1,1.5,2.5\n"), ["header=True", "header=False"]),
    "header half numbers": (text("a.csv", "x,1.5\n1,2\n3,4\n"), ["'x'", "'1.5'", "header=False"]),
    "binary file called csv": (text("a.csv", b"\x89HDF\r\n\x1a\n\0\0\0"), ["a.csv", "is not text"]),
    "UTF-16": (text("a.csv", "x,y\n1,2\n".encode("utf-16")), ["UTF-16", "UTF-8"]),
    "Latin-1 header": (text("a.csv", "temp\xe9rature,y\n1,2\n".encode("latin-1")), ["not UTF-8", "\\udce9"]),
    "damaged description": (own_csv_damaged, ["line 1", "damaged"]),
    "description with a wrong dt": (text("a.csv", '# dynsys series: {"dt": -1}\n"x"\n1\n2\n'), ["dt=-1"]),
    # options
    "bad missing": (text("a.csv", "1\n2\n", missing="interpolat"), ["missing='interpolat'", "Did you mean 'interpolate'"]),
    "bad separator": (text("a.csv", "1\n2\n", separator="::"), ["separator='::'", "comma"]),
    "bad header": (text("a.csv", "1\n2\n", header="yes"), ["header='yes'", "True, False"]),
    "negative dt": (text("a.csv", "1\n2\n", dt=-0.1), ["dt must be a positive number", "-0.1"]),
    "dt against times": (text("a.csv", rows(10, {}), dt=0.02), ["dt=0.02", "steps of 0.01", ".resample(dt=0.02)"]),
    "dt against the file": (arrays("x.npz", {"dt": 0.1}, values=GOOD, dt=0.2), ["dt=0.1", "0.2"]),
    "no columns": (text("a.csv", "1\n2\n", columns=[]), ["columns is empty"]),
    "lazy csv": (text("a.csv", "1\n2\n", lazy=True), ["lazy=True", "HDF5"]),
    "every row dropped": (text("a.csv", "x,y\n1,\n,2\n", missing="drop"), ["a.csv", "every row"]),
    "column without numbers": (text("a.csv", "x,y\n1,\n2,\n", missing="interpolate"), ["a.csv", "no number at all"]),
    # paths
    "missing file": (almost_the_name, ["no such file", "Did you mean 'ecg.csv'"]),
    "empty file": (text("a.csv", ""), ["a.csv: is empty"]),
    "a folder": (folder_instead, ["is a folder", "a.csv"]),
    "unknown extension": (text("a.edf", "1"), ["unknown extension '.edf'", ".csv", ".mat"]),
    "misspelt extension": (text("a.hdf", "1"), ["unknown extension '.hdf'", "Did you mean '.hdf5'"]),
    "no extension": (text("a", "1"), ["unknown extension ''"]),
    "a pipe": (fifo, ["no ordinary file"]),
    # numpy
    "truncated npy": (truncated("x.npy", 0.5), ["x.npy", "truncated"]),
    "npy without header": (truncated("x.npy", 0.01), ["x.npy", "truncated"]),
    "truncated npz": (truncated("x.npz", 0.5), ["x.npz", "truncated"]),
    "npy claims absurd size": (claims_too_much, ["x.npy", "claims 24,000,000,000,000 bytes"]),
    "npz claims absurd size": (npz_claims_too_much, ["values.npy", "claims 24,000,000,000,000 bytes"]),
    "pickled objects": (npy(np.array([{}, []], dtype=object)), ["x.npy", "objects", "never loaded"]),
    "complex numbers": (npy(GOOD + 1j), ["complex", "real and imaginary"]),
    "strings": (npy(np.array(["a", "b"])), ["text, not numbers"]),
    "records": (npy(np.zeros(3, dtype=[("a", "f8"), ("b", "f8")])), ["records"]),
    "dates": (npy(np.array(["2020-01-01"], dtype="M8[D]")), ["dates", "seconds"]),
    "4-D": (npy(np.zeros((2, 2, 2, 2))), ["(2, 2, 2, 2)", "(E, T, N)"]),
    "zero rows": (npy(np.zeros((0, 3))), ["x.npy", "empty, shape (0, 3)"]),
    "a scalar": (npy(np.float64(3.0)), ["x.npy", "no array"]),
    "NaN in npy": (npy(np.where(np.arange(150).reshape(50, 3) == 52, np.nan, GOOD)), ["x.npy, row 17", "'x1' holds nan", "1 of 50 rows"]),
    "NaN in the second trajectory": (npy(np.where(np.arange(24).reshape(2, 4, 3) == 14, np.nan, 1.0)), ["row 0 of trajectory 1", "'x2'"]),
    "dataset of npy": (npy(GOOD, dataset="values"), ["one array without a name"]),
    "several arrays": (arrays("x.npz", a=GOOD, b=GOOD), ["several arrays", "'a' (50, 3) float64", "dataset="]),
    "no array": (arrays("x.npz", a=np.array("hello")), ["no array of numbers", "'a'"]),
    "unknown key": (
        arrays("x.npz", {"dataset": "valeus"}, values=GOOD),
        ["no dataset 'valeus'", "'values' (50, 3)", "Did you mean 'values'"],
    ),
    "times of another length": (arrays("x.npz", values=GOOD, time=np.arange(49.0)), ["'time' has shape (49,)", "50 rows", "time=False"]),
    "sampling rate 0": (arrays("x.npz", values=GOOD, fs=0.0), ["sampling_rate_hz", "positive"]),
    "columns of unequal length": (arrays("x.npz", {"columns": ["u", "v"]}, u=np.ones(3), v=np.ones(4)), ["different shape", "'u' (3,)"]),
    # HDF5, MATLAB, netCDF, Parquet
    "missing HDF5 path": (
        arrays("x.h5", {"dataset": "run/signals"}, run__signal=GOOD),
        ["no dataset 'run/signals'", "'run/signal' (50, 3)", "Did you mean"],
    ),
    "truncated HDF5": (truncated("x.h5", 0.5), ["x.h5", "truncated"]),
    "HDF5 claims absurd size": (hdf5_claims_too_much, ["'values'", "claims 24,000,000,000,000 bytes"]),
    "HDF5 text": (arrays("x.h5", {"dataset": "note"}, note=np.array([b"a", b"b"], dtype="S1")), ["'note'", "text"]),
    "HDF5 group of unequal columns": (
        arrays("x.h5", {"dataset": "g"}, g__a=GOOD, g__b=GOOD[:, :2]),
        ["different numbers of columns", "'g/a' (50, 3)"],
    ),
    "HDF5 trajectory lost": (own_hdf5_damaged, ["'series/1/values' is missing"]),
    "HDF5 that is none": (text("x.h5", "x,y\n1,2\n"), ["x.h5", "can't be read as HDF5"]),
    "truncated mat": (truncated("x.mat", 0.5), ["x.mat", "MATLAB"]),
    "mat struct": (arrays("x.mat", {"dataset": "s"}, s={"a": GOOD}), ["'s'", "objects"]),
    "mat several": (arrays("x.mat", a=GOOD, b=GOOD), ["several arrays", "'a' (50, 3) double"]),
    "truncated parquet": (truncated("x.parquet", 0.5), ["x.parquet", "Parquet"]),
    "text in parquet": (duplicate_names_parquet, ["x.parquet, row 0", "column 'a' holds 'x'"]),
    "null in parquet": (parquet_null, ["x.parquet, row 1", "column 'a' holds nan", "1 of 3 rows"]),
    "netCDF with a map": (netcdf_3d, ["'sst' has shape (5, 3, 4)", "reshape"]),
    "netCDF that is none": (text("x.nc", "nothing"), ["x.nc", "can't be read"]),
    # the series itself
    "irregular sampling": (irregular, ["irregular", "expected steps of 0.01", "step 39", "0.06", ".resample(dt=0.01)"]),
    "NaN at check": (call(lambda: TimeSeries([[1.0], [np.nan], [2.0]]).check()), ["row 1", "'x0' holds nan", "1 of 3 rows"]),
    "inf in inputs": (
        call(lambda: TimeSeries(GOOD, inputs=np.where(np.arange(50) == 3, np.inf, 1.0)).check()),
        ["row 3", "input 'u0' holds inf"],
    ),
    "constant column": (
        call(lambda: TimeSeries(np.stack([np.arange(9.0), np.full(9, 0.1)], 1)).check()),
        ["'x1' is constant (0.1", "columns=['x0']"],
    ),
    "fewer points than a window": (call(lambda: SERIES.check(window=200)), ["has 50 points", "window of 200"]),
    "transposed": (call(lambda: TimeSeries(GOOD.T).check(window=20)), ["3 points", "transposed"]),
    "ragged list": (call(lambda: TimeSeries([[1.0, 2.0], [3.0]])), ["equal length"]),
    "trajectories of unequal columns": (call(lambda: TimeSeries([GOOD, GOOD[:, :2]])), ["trajectory 1", "2 columns, the first has 3"]),
    "empty trajectory": (call(lambda: TimeSeries([GOOD, GOOD[:0]])), ["trajectory 1", "empty"]),
    "inputs of unequal length": (call(lambda: TimeSeries(GOOD, inputs=GOOD[:40])), ["inputs have 40", "values have 50"]),
    "times of unequal length": (call(lambda: TimeSeries(GOOD, times=np.arange(49))), ["(49,)", "50 rows"]),
    "unsorted times in memory": (call(lambda: TimeSeries(GOOD, times=np.arange(50)[::-1])), ["row 1", "unsorted", "49 of 49"]),
    "dt against times in memory": (call(lambda: TimeSeries(GOOD, times=np.arange(50), dt=2)), ["dt=2", "steps of 1"]),
    "zero dt": (call(lambda: TimeSeries(GOOD, dt=0.0)), ["dt must be a positive"]),
    "too few names": (call(lambda: TimeSeries(GOOD, names=["a"])), ["1 names for 3 columns"]),
    "repeated names": (call(lambda: TimeSeries(GOOD, names=["a", "b", "a"])), ["'a' is a duplicate"]),
    "too few units": (call(lambda: TimeSeries(GOOD, units=["mV"])), ["1 units for 3 columns"]),
    "complex in memory": (call(lambda: TimeSeries(GOOD + 1j)), ["complex"]),
    "unknown column of a series": (call(lambda: SERIES.select("sped")), ["no column 'sped'", "Did you mean 'speed'"]),
    "column number of a series": (call(lambda: SERIES.select(3)), ["no column 3"]),
    "empty slice": (call(lambda: SERIES.slice(100)), ["holds no row"]),
    "fractions": (call(lambda: SERIES.split((0.5, 0.2))), ["sum to 1"]),
    "an empty part": (call(lambda: TimeSeries(GOOD[:3]).split((0.9, 0.05, 0.05))), ["part 1", "no row"]),
    "map that loses rows": (call(lambda: SERIES.map(lambda x: x[1:])), ["keep the rows"]),
    "resample by zero": (call(lambda: SERIES.resample(0.0)), ["positive dt"]),
    "resample too fine": (call(lambda: SERIES.resample(1e-12)), ["larger dt"]),
    "all gaps": (call(lambda: SERIES.resample(1.0, max_gap=0.5)), ["nothing is left"]),
    "unknown argument": (call(lambda: SERIES.replace(valeus=GOOD)), ["'valeus'", "values"]),
    "write to another format": (call(lambda: write_series(SERIES, "x.npy")), ["can't write '.npy'", ".csv"]),
    "write into no folder": (lambda folder: write_series(SERIES, folder / "no" / "x.csv"), ["there is no folder"]),
    "write over a folder": (lambda folder: write_series(SERIES, folder), ["can't write"]),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_says_where_what_and_what_to_do(name, tmp_path):
    case, words = CASES[name]
    with pytest.raises(DataError) as raised:
        case(tmp_path)
    for word in words:
        assert word in str(raised.value)


def test_unknown_sample_offers_a_close_name():
    with pytest.raises(UnknownName, match="Did you mean 'ecg'"):
        load_sample("ekg")


def test_there_are_many_cases():
    assert len(CASES) >= 45

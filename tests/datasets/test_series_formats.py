"""Files of every kind, made by the libraries that people use, against the numbers that went into them."""

import itertools

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose

from dynsys_datasets.series import TimeSeries, open_formats, read_series, write_series

RNG = np.random.default_rng(1)
X = RNG.normal(size=(40, 3))
T = np.arange(40) * 0.02
NAMES = ("a", "b", "c")


def same(series, values, times=None, names=None):
    """Numbers to the last bit: nothing between file and series may round."""
    assert np.array_equal(series.trajectories[0][:], values)
    if times is not None:
        assert np.array_equal(series.times[0], times)
    if names is not None:
        assert series.names == names


# text


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", " "])
@pytest.mark.parametrize("header", [True, False])
def test_separator_and_header_are_detected(tmp_path, separator, header):
    frame = pd.DataFrame(X, columns=["time", "a", "b"])
    frame["time"] = T
    frame.to_csv(tmp_path / "x.txt", sep=separator, header=header, index=False)
    series = read_series(tmp_path / "x.txt", time=None if header else 0)
    same(series, X[:, 1:], T, ("a", "b") if header else ("x1", "x2"))
    assert series.dt == pytest.approx(0.02)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_byte_order_mark(tmp_path, newline, mark):
    (tmp_path / "x.csv").write_bytes((mark + newline.join(["x,y", "1,2", "3,4", ""])).encode())
    same(read_series(tmp_path / "x.csv"), [[1, 2], [3, 4]], names=("x", "y"))


def test_numpy_savetxt_with_its_header(tmp_path):
    np.savetxt(tmp_path / "x.txt", X, header="a b c")
    same(read_series(tmp_path / "x.txt"), X, names=NAMES)
    np.savetxt(tmp_path / "y.csv", X, delimiter=",")
    same(read_series(tmp_path / "y.csv"), X, names=("x0", "x1", "x2"))


def test_pandas_index_is_left_out_and_noted(tmp_path):
    pd.DataFrame(X, columns=list(NAMES)).to_csv(tmp_path / "x.csv")
    series = read_series(tmp_path / "x.csv")
    same(series, X, names=NAMES)
    assert "index" in series.notes[0]


def test_numbered_columns_with_a_header_of_words_and_numbers(tmp_path):
    pd.DataFrame(X, index=pd.Index(T, name="time")).to_csv(tmp_path / "x.csv")
    same(read_series(tmp_path / "x.csv"), X, T, ("0", "1", "2"))


def test_quoted_names_with_separators(tmp_path):
    (tmp_path / "x.csv").write_text('"lead 1, filtered","lead ""2"""\n1,2\n"3",4\n')
    same(read_series(tmp_path / "x.csv"), [[1, 2], [3, 4]], names=("lead 1, filtered", 'lead "2"'))


def test_columns_time_inputs_and_text_that_nobody_asked_for(tmp_path):
    (tmp_path / "x.csv").write_text("when (ms),u,x,label,y\n0,1,2,rest,3\n5,4,5,rest,6\n10,7,8,beat,9\n")
    series = read_series(tmp_path / "x.csv", time="when (ms)", inputs="u", columns=["y", "x"])
    same(series, [[3, 2], [6, 5], [9, 8]], [0, 5, 10], ("y", "x"))
    assert np.array_equal(series.inputs[0], [[1], [4], [7]])
    assert series.input_names == ("u",)


@pytest.mark.parametrize(("name", "unit"), [("Time [ms]", "ms"), ("t_s", "s"), ("seconds", "s"), ("YEAR", "years"), ("timestamp", None)])
def test_a_time_column_is_known_by_its_name(tmp_path, name, unit):
    (tmp_path / "x.csv").write_text(f"x,{name}\n1,0\n2,1\n4,2\n")
    series = read_series(tmp_path / "x.csv")
    same(series, [[1], [2], [4]], [0, 1, 2])
    assert series.time_unit == unit
    assert read_series(tmp_path / "x.csv", time=False).n_obs == 2


def test_temperature_is_no_time(tmp_path):
    (tmp_path / "x.csv").write_text("T,x\n20,0\n19,1\n18,2\n")
    assert read_series(tmp_path / "x.csv").names == ("T", "x")


def test_dates_become_seconds(tmp_path):
    (tmp_path / "x.csv").write_text("date,x\n2024-02-28 23:59:59.5,0\n2024-02-29 00:00:00,1\n2024-02-29 00:00:00.5,3\n")
    series = read_series(tmp_path / "x.csv")
    same(series, [[0], [1], [3]], [0, 0.5, 1])
    assert (series.time_unit, series.dt) == ("s", 0.5)
    assert "2024-02-28T23:59:59.5" in series.notes[0]


@pytest.mark.parametrize(
    ("unit", "times"), [("seconds", ["0.000", "0.003", "0.006"]), ("hh:mm:ss.mmm", ["0:00.000", "0:00.003", "0:00.006"])]
)
def test_exports_of_physionet_with_a_row_of_units(tmp_path, unit, times):
    lines = [
        "'Elapsed time','MLII','V5'",
        f"'{unit}','mV','mV'",
        *(f"'{t}',-0.145,{i}" if ":" in t else f"{t},-0.145,{i}" for i, t in enumerate(times)),
    ]
    (tmp_path / "x.csv").write_text("\n".join(lines))
    series = read_series(tmp_path / "x.csv")
    assert np.array_equal(series.trajectories[0], [[-0.145, 0], [-0.145, 1], [-0.145, 2]])
    assert_allclose(series.times[0], [0, 0.003, 0.006], atol=1e-12)
    assert (series.names, series.units, series.time_unit) == (("MLII", "V5"), ("mV", "mV"), "s")
    assert "line 2 was read as the units" in series.notes


def test_episodes_of_unequal_length(tmp_path):
    (tmp_path / "x.csv").write_text("episode,t,x\nleft,0,1\nleft,1,2\nright,0,3\nright,1,4\nright,2,5\n")
    series = read_series(tmp_path / "x.csv")
    assert series.lengths == (2, 3)
    assert np.array_equal(series.trajectories[1][:, 0], [3, 4, 5])
    assert np.array_equal(series.times[1], [0, 1, 2])


@given(
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(allow_nan=False, allow_infinity=False))
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_every_double_survives_pandas_csv(tmp_path, values):
    pd.DataFrame(values, columns=[f"q{i}" for i in range(values.shape[1])]).to_csv(tmp_path / "x.csv", index=False)
    same(read_series(tmp_path / "x.csv"), values)


# missing values


def test_interpolation_is_linear_in_time_and_noted(tmp_path):
    (tmp_path / "x.csv").write_text("t,x,y\n0,,1\n1,1,1\n2,n/a,2\n4,NA,3\n5,5,4\n6,6,\n")
    series = read_series(tmp_path / "x.csv", missing="interpolate")
    # x runs from 1 at t=1 to 5 at t=5; the first row misses x and the last misses y, with nothing beyond to interpolate from
    same(series, [[1, 1], [2, 2], [4, 3], [5, 4]], [1, 2, 4, 5])
    assert "interpolated 2 missing values" in series.notes[-1]
    assert "longest gap 2 rows" in series.notes[-1]
    assert "cut 2 incomplete rows" in series.notes[-1]


def test_dropping_cuts_and_never_glues_time(tmp_path):
    (tmp_path / "x.csv").write_text("x,y\n,1\n1,1\n2,2\n,3\ninf,3\n5,4\n")
    series = read_series(tmp_path / "x.csv", missing="drop", dt=0.5)
    assert [v.tolist() for v in series.trajectories] == [[[1, 1], [2, 2]], [[5, 4]]]
    assert series.dt == 0.5
    assert "dropped 3 of 6 rows" in series.notes[-1]


# arrays


def test_npy(tmp_path):
    for array in (X, X.astype(np.float32), np.asfortranarray(X), X[:, 0], np.arange(5), X > 0):
        np.save(tmp_path / "x.npy", array)
        same(read_series(tmp_path / "x.npy"), array.reshape(len(array), -1).astype(float))
    np.save(tmp_path / "x.npy", X.reshape(4, 10, 3))
    assert read_series(tmp_path / "x.npy").lengths == (10,) * 4
    np.save(tmp_path / "x.npy", np.column_stack([T, X, T]))
    series = read_series(tmp_path / "x.npy", time=0, columns=[1, 3], inputs=2, dt=0.02)
    same(series, X[:, [0, 2]], T, ("x1", "x3"))
    assert np.array_equal(series.inputs[0][:, 0], X[:, 1])


def test_npz_with_rate_names_and_units(tmp_path):
    np.savez(tmp_path / "x.npz", values=X, sampling_rate_hz=250.0, names=np.array(NAMES), units="mV", other=X)
    series = read_series(tmp_path / "x.npz")
    same(series, X, names=NAMES)
    assert (series.dt, series.time_unit, series.units) == (0.004, "s", "mV")
    assert read_series(tmp_path / "x.npz", columns=["c", "a"]).names == ("c", "a")
    assert read_series(tmp_path / "x.npz", dataset="other").n_obs == 3


def test_npz_with_times_inputs_and_separate_columns(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", u=X[:, 0], v=X[:, 1], t=T, drive=X)
    series = read_series(tmp_path / "x.npz", columns=["v", "u"], inputs="drive")
    same(series, X[:, [1, 0]], T, ("v", "u"))
    assert np.array_equal(series.inputs[0], X)


@pytest.mark.parametrize("lazy", [True, False])
def test_hdf5_of_any_layout(tmp_path, lazy):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("run/signal", data=X.astype("f4"), chunks=(7, 2), compression="gzip")
        file["run/time"] = T
        file["run/signal"].attrs["units"] = "V"
        file["cube"] = X.reshape(4, 10, 3)
        for i in (10, 2, 1):
            file[f"many/trial{i}"] = X[:i]
    series = read_series(tmp_path / "x.h5", dataset="run/signal", lazy=lazy)
    same(series, X.astype("f4").astype(float), T)
    assert (series.is_lazy, series.units) == (lazy, "V")
    assert np.array_equal(read_series(tmp_path / "x.h5", dataset="/cube", lazy=lazy).trajectories[2][:], X[20:30])
    assert read_series(tmp_path / "x.h5", dataset="many", lazy=lazy).lengths == (1, 2, 10)
    picked = read_series(tmp_path / "x.h5", dataset="run/signal", lazy=lazy, columns=[2, 0])
    assert np.array_equal(picked.trajectories[0][5:9], X[5:9, [2, 0]].astype("f4"))


@pytest.mark.parametrize("compressed", [False, True])
def test_matlab_version_5(tmp_path, compressed):
    scipy.io.savemat(tmp_path / "x.mat", {"data": X, "t": T, "fs": 50.0}, do_compression=compressed)
    same(read_series(tmp_path / "x.mat"), X, T)
    scipy.io.savemat(tmp_path / "row.mat", {"v": X[:, 0]}, oned_as="row")
    same(read_series(tmp_path / "row.mat"), X[:, :1], names=("v",))


@pytest.mark.parametrize("lazy", [True, False])
def test_matlab_version_73_is_turned(tmp_path, lazy):
    with h5py.File(tmp_path / "x.mat", "w", userblock_size=512) as file:
        file["data"] = X.T
        file["data"].attrs["MATLAB_class"] = np.bytes_("double")
        file["label"] = np.frombuffer(b"abc", np.uint8).astype(np.uint16)[:, None]
        file["label"].attrs["MATLAB_class"] = np.bytes_("char")
        file["t"] = T[:, None]
    with (tmp_path / "x.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    series = read_series(tmp_path / "x.mat", lazy=lazy)
    same(series, X, T)
    assert series.is_lazy is lazy
    assert np.array_equal(series.trajectories[0][3:8], X[3:8])


@pytest.mark.parametrize("version", [3, 4])
def test_netcdf_is_unpacked(tmp_path, version):
    """CF packing: value = scale * stored + offset, _FillValue is missing."""
    stored = np.array([[1, 2], [3, 4], [-99, 6], [7, 9]], dtype="i2")
    facts = {"scale_factor": 0.5, "add_offset": 10.0, "_FillValue": np.int16(-99), "units": "K"}
    if version == 3:
        with scipy.io.netcdf_file(tmp_path / "x.nc", "w") as file:
            file.createDimension("time", 4)
            file.createDimension("site", 2)
            time = file.createVariable("time", "f8", ("time",))
            time[:], time.units = np.arange(4.0), "days since 1950-01-01"
            sst = file.createVariable("sst", "i2", ("time", "site"))
            sst[:] = stored
            for key, value in facts.items():
                setattr(sst, key, value)
    else:
        with h5py.File(tmp_path / "x.nc", "w") as file:
            file["time"], file["site"] = np.arange(4.0), np.zeros(2, "f4")
            file["time"].attrs["units"] = "days since 1950-01-01"
            file["site"].make_scale("This is a netCDF dimension but not a netCDF variable.         2")
            file["time"].make_scale("time")
            file["sst"] = stored
            file["sst"].dims[0].attach_scale(file["time"])
            file["sst"].dims[1].attach_scale(file["site"])
            file["sst"].attrs.update(facts)
    series = read_series(tmp_path / "x.nc", missing="drop")
    assert [v.tolist() for v in series.trajectories] == [[[10.5, 11], [11.5, 12]], [[13.5, 14.5]]]
    assert (series.units, series.time_unit, series.dt) == ("K", "days", 1.0)
    if version == 4:
        lazily = read_series(tmp_path / "x.nc", lazy=True)
        assert np.array_equal(lazily.trajectories[0][:], [[10.5, 11], [11.5, 12], [np.nan, 13], [13.5, 14.5]], equal_nan=True)


def test_parquet(tmp_path):
    frame = pd.DataFrame(X, columns=list(NAMES))
    frame["time"] = pd.date_range("2024-01-01", periods=40, freq="20ms")
    frame["trial"] = ["one"] * 15 + ["two"] * 25
    frame.to_parquet(tmp_path / "x.parquet")
    series = read_series(tmp_path / "x.parquet")
    assert (series.lengths, series.names, series.time_unit) == ((15, 25), NAMES, "s")
    assert np.array_equal(np.concatenate([v[:] for v in series.trajectories]), X)
    assert series.dt == pytest.approx(0.02)
    pq.write_table(pa.table({"a": pa.array([1, None, 3]), "flag": pa.array([True, False, True])}), tmp_path / "y.parquet")
    same(read_series(tmp_path / "y.parquet", missing="interpolate"), [[1, 1], [2, 0], [3, 1]])


# writing


def examples():
    """Series with every combination of the parts that a file must carry."""
    two = [X, X[:7]]
    for many, times, inputs, units in itertools.product(
        (False, True), (None, "even", "uneven"), (False, True), (None, "mV", ["mV", "mV", "K"])
    ):
        values = two if many else [X]
        t = None if times is None else [np.sort(RNG.random(len(v))) if times == "uneven" else T[: len(v)] for v in values]
        yield TimeSeries(
            values,
            dt=0.02 if times is None and many else None,
            times=t,
            inputs=[v[:, :2] ** 2 for v in values] if inputs else None,
            names=("time", '#odd, "name"', "Größe") if many else None,
            input_names=("episode", "u") if inputs else None,
            units=units,
            time_unit="s" if times else None,
            source="a text with\nlines",
            notes=("cut", "filled 3"),
        )


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.h5"])
def test_writing_and_reading_is_the_identity(tmp_path, name):
    for series in examples():
        write_series(series, tmp_path / name)
        assert read_series(tmp_path / name) == series
        assert [p.name for p in tmp_path.iterdir()] == [name]


finite = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)


@given(
    values=hnp.arrays(np.float64, st.tuples(st.integers(1, 5), st.just(2)), elements=finite),
    names=st.lists(words, min_size=2, max_size=2),
    source=st.text(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@pytest.mark.parametrize("name", ["x.csv", "x.h5"])
def test_any_numbers_and_names_survive(tmp_path, name, values, names, source):
    if len({" ".join(n.split()) for n in names} - {""}) < 2:
        return
    series = TimeSeries(values, names=names, source=source)
    write_series(series, tmp_path / name)
    assert read_series(tmp_path / name) == series


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    series = TimeSeries(X)
    write_series(series, tmp_path / "x.csv")
    monkeypatch.setattr("dynsys_datasets.series.write.blocks", lambda array: (_ for _ in ()).throw(RuntimeError("power cut")))
    with pytest.raises(RuntimeError, match="power cut"):
        write_series(TimeSeries(X * 2), tmp_path / "x.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["x.csv"]
    monkeypatch.undo()
    assert read_series(tmp_path / "x.csv") == series


def test_every_reader_exists():
    assert set(open_formats()) == {".csv", ".tsv", ".txt", ".npy", ".npz", ".h5", ".hdf5", ".mat", ".nc", ".parquet"}

"""What a TimeSeries does: its sampling interval, cutting, resampling, reading in slices; and the samples."""

import pickle
import time
import tracemalloc

import h5py
import numpy as np
import pytest
from numpy.testing import assert_allclose

from dynsys_datasets.errors import DataError
from dynsys_datasets.samples import load_sample, sample_names
from dynsys_datasets.series import LazyArray, TimeSeries, read_series, write_series

RNG = np.random.default_rng(3)
X = RNG.normal(size=(100, 3))


# shapes


@pytest.mark.parametrize(
    ("values", "lengths", "n_obs"),
    [
        (X, (100,), 3),
        (X[:, 0], (100,), 1),
        (X.reshape(4, 25, 3), (25,) * 4, 3),
        ([X, X[:7]], (100, 7), 3),
        ([X[:, 0], X[:7, 0]], (100, 7), 1),
        ([1.0, 2.0, 4.0], (3,), 1),
        ([[1, 2], [3, 4], [5, 6]], (3,), 2),
    ],
)
def test_what_counts_as_trajectories(values, lengths, n_obs):
    series = TimeSeries(values)
    assert (series.lengths, series.n_obs, series.n_trajectories, series.n_points) == (lengths, n_obs, len(lengths), sum(lengths))
    assert all(v.dtype == np.float64 for v in series.trajectories)


def test_float64_is_not_copied_and_nothing_can_be_set():
    series = TimeSeries(X)
    assert np.shares_memory(series.trajectories[0], X)
    with pytest.raises(AttributeError):
        series.names = ("a",)  # pyright: ignore[reportAttributeAccessIssue]


def test_select_keeps_order_units_and_names():
    series = TimeSeries(X, names=["a", "b", "c"], units=["V", "A", "K"], inputs=X).select(["c", 0])
    assert (series.names, series.units, series.n_inputs) == (("c", "a"), ("K", "V"), 3)
    assert np.array_equal(series.trajectories[0], X[:, [2, 0]])


# the sampling interval


def test_without_dt_and_times_a_step_is_one_sample():
    series = TimeSeries(X)
    assert (series.dt, series.time_unit) == (1.0, "samples")


@pytest.mark.parametrize(
    "times",
    [
        np.arange(100) / 360,
        1e6 + np.arange(100) / 360,
        np.round(np.arange(100) / 360, 3),
        (np.arange(100) / 360).astype(np.float32),
        (1000 + np.arange(100) / 360).astype(np.float32),
    ],
)
def test_even_times_are_regular_also_when_rounded(times):
    # the interval comes from the first and the last time, each off by at most one rounding (1e-3 s at worst) over 99 steps
    assert_allclose(TimeSeries(X, times=times).dt, 1 / 360, atol=1.1e-3 / 99)


@pytest.mark.parametrize("change", ["gap", "lost row", "jitter", "two rates"])
def test_uneven_times_are_irregular(change):
    times = np.arange(101) * 0.01
    if change == "gap":
        times[50:] += 0.03
    if change == "jitter":
        times += 1e-3 * np.sin(np.arange(101))
    if change == "two rates":
        times[50:] = times[50] + np.arange(51) * 0.02
    times = np.delete(times, 30 if change == "lost row" else 100)
    series = TimeSeries(X, times=times)
    assert not series.is_regular
    with pytest.raises(DataError, match=r"irregular sampling: expected steps of"):
        series.check()


def test_whole_seconds_with_a_lost_row_are_not_taken_for_rounding():
    with pytest.raises(DataError, match="step 3"):
        _ = TimeSeries(X[:6], times=[0, 1, 2, 3, 5, 6]).dt


def test_trajectories_of_different_rates():
    with pytest.raises(DataError, match=r"sampled every"):
        _ = TimeSeries([X, X], times=[np.arange(100), np.arange(100) * 2.0]).dt


# cutting


@pytest.mark.parametrize("length", [7, 10, 99, 100])
def test_split_is_chronological_and_complete(length):
    series = TimeSeries([X[:length], X[:100]], times=[np.arange(length) / 10, np.arange(100) / 10], inputs=[X[:length], X[:100]])
    parts = series.split((0.7, 0.15, 0.15))
    for i in (0, 1):
        assert np.array_equal(np.concatenate([p.trajectories[i] for p in parts]), series.trajectories[i])
        assert np.array_equal(np.concatenate([p.times[i] for p in parts]), series.times[i])
        assert np.array_equal(np.concatenate([p.inputs[i] for p in parts]), series.inputs[i])
    assert parts[0].lengths == (round(0.7 * length), 70)
    assert all(p.dt == pytest.approx(0.1) for p in parts)


def test_pieces_of_rounded_times_keep_the_interval_of_the_whole():
    series = TimeSeries(X, times=np.round(np.arange(100) / 360, 3))
    piece = series.slice(1, 3)
    assert piece.dt == series.dt
    assert piece.select(0).dt == series.dt


def test_slice_counts_within_each_trajectory():
    series = TimeSeries([X, X[:10]])
    assert series.slice(20).lengths == (80,)
    assert series.slice(-5).lengths == (5, 5)
    assert series.slice(0, 15).lengths == (15, 10)


def test_map_may_change_the_columns():
    mapped = TimeSeries([X, X[:7]], names=["a", "b", "c"]).map(lambda v: v[:, :2] ** 2, names=["p", "q"])
    assert (mapped.names, mapped.lengths) == (("p", "q"), (100, 7))
    assert np.array_equal(mapped.trajectories[1], X[:7, :2] ** 2)


# resampling


def test_resampling_a_sine_on_irregular_times():
    times = np.sort(RNG.random(4000)) * 10
    series = TimeSeries(np.sin(times), times=times, inputs=3 * times + 1)
    made = series.resample(0.01)
    assert made.is_regular
    assert made.dt == pytest.approx(0.01)
    grid = times[0] + 0.01 * np.arange(made.lengths[0])
    assert_allclose(made.times[0], grid)
    # linear interpolation (and the mean over 0.01, whose error is 0.01**2 / 24) is off by at most gap**2 / 8 for a sine
    assert_allclose(made.trajectories[0][:, 0], np.sin(grid), atol=np.diff(times).max() ** 2 / 8 + 0.01**2 / 8 + 2e-5)
    assert_allclose(made.inputs[0][:, 0], 3 * grid + 1, rtol=1e-12)
    assert "resampled to dt=0.01" in made.notes[-1]


def test_fine_grid_interpolates_and_coarse_grid_averages():
    series = TimeSeries(np.arange(101.0) ** 2, dt=1.0)
    assert_allclose(series.resample(0.5).trajectories[0][:4, 0], [0, 0.5, 1, 2.5])
    # the mean over four steps around t of the line through the squares is t**2 plus 4/3 (the parabola) plus 1/6 (its chords)
    assert_allclose(series.resample(4.0).trajectories[0][1:-1, 0], np.arange(4, 100, 4) ** 2 + 4 / 3 + 1 / 6)


def test_a_coarse_grid_does_not_fold_fast_parts_into_slow_ones():
    t = np.arange(10_000) / 1000
    # 99 Hz sampled at 100 Hz would come back as a full-size 1 Hz wave; the mean leaves sin(0.99 pi) / (0.99 pi) = 1 % of it
    made = TimeSeries(np.sin(2 * np.pi * 99 * t), times=t).resample(0.01)
    assert np.abs(made.trajectories[0][1:-1]).max() < 0.012


def test_long_gaps_are_cut_when_asked():
    times = np.concatenate([np.arange(50), 100 + np.arange(50)]) * 0.1
    series = TimeSeries(X, times=times)
    assert series.resample(0.1).lengths == (150,)
    made = series.resample(0.1, max_gap=0.5)
    assert made.lengths == (50, 50)
    assert "cut at 1 gaps" in made.notes[-1]
    assert_allclose(np.concatenate(made.trajectories), X, atol=1e-9)


# reading in slices


@pytest.fixture
def large(tmp_path):
    """An HDF5 file of 40 MB and what is in it; large enough to see a copy, small enough for a test."""
    values = np.random.default_rng(4).normal(size=(1_000_000, 5))
    with h5py.File(tmp_path / "large.h5", "w") as file:
        file["values"] = values
    return tmp_path / "large.h5", values


def test_lazy_values_are_read_slice_by_slice(large, monkeypatch):
    path, values = large
    series = read_series(path, lazy=True)
    lazy = series.trajectories[0]
    assert isinstance(lazy, LazyArray)
    seen = []
    original = h5py.Dataset.__getitem__
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda self, key, **more: seen.append(key) or original(self, key, **more))
    part = series.slice(1000, 900_000).select([3, 1]).trajectories[0]
    assert seen == []
    assert np.array_equal(part[10:12], values[1010:1012][:, [3, 1]])
    assert np.array_equal(part[-1], values[899_999, [3, 1]])
    assert np.array_equal(part[4:20:5], values[1004:1020:5][:, [3, 1]])
    assert [key[0].stop - key[0].start for key in seen] == [2, 1, 16]


def test_memory_stays_bounded(large, tmp_path):
    path, values = large
    tracemalloc.start()
    series = read_series(path, lazy=True)
    series.check(window=100)
    train, _, test = series.split()
    write_series(test, tmp_path / "test.h5")
    total = sum(block.sum() for _, _, block in train.blocks())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # two blocks of 16 MB (one in use while the next is read) and a byte a row; the file has 40 MB, a copy of it is 40 MB more
    assert peak < 36e6
    assert total == pytest.approx(values[:700_000].sum(), abs=1e-6)
    assert np.array_equal(read_series(tmp_path / "test.h5").trajectories[0], values[850_000:])


def test_lazy_finds_nan_at_check_and_drops_it(large):
    path, _ = large
    with h5py.File(path, "a") as file:
        file["values"][700_123, 2] = np.nan
    series = read_series(path, lazy=True)
    with pytest.raises(DataError, match=r"row 700123: column 'x2' holds nan"):
        series.check()
    assert read_series(path, lazy=True, missing="drop").lengths == (700_123, 299_876)
    with pytest.raises(DataError, match="lazy=False"):
        read_series(path, lazy=True, missing="interpolate")


def test_lazy_can_be_pickled_and_says_when_the_file_is_gone(large):
    path, values = large
    series = pickle.loads(pickle.dumps(read_series(path, lazy=True)))  # noqa: S301
    assert np.array_equal(series.trajectories[0][5:7], values[5:7])
    assert np.array_equal(np.asarray(series.slice(0, 3).trajectories[0]), values[:3])
    path.unlink()
    with pytest.raises(DataError, match="not there any more"):
        series.trajectories[0][0:1]


def test_files_above_the_limit_stay_on_disk(large, monkeypatch):
    monkeypatch.setattr("dynsys_datasets.series.arrays.LAZY_BYTES", 10_000_000)
    assert read_series(large[0]).is_lazy
    assert not read_series(large[0], lazy=False).is_lazy


def test_a_table_of_100_000_rows_is_read_at_once(tmp_path):
    values = RNG.normal(size=(100_000, 5))
    write_series(TimeSeries(values), tmp_path / "x.csv")
    start = time.perf_counter()
    series = read_series(tmp_path / "x.csv")
    # measured 0.25 s; the bound is loose because other work may share the machine
    assert time.perf_counter() - start < 3
    assert np.array_equal(series.trajectories[0], values)


# samples


@pytest.mark.parametrize("name", sample_names())
def test_samples_are_fit_to_train_on(name):
    series = load_sample(name)
    assert series.check(window=100) is series
    assert series.source
    assert series.time_unit in ("s", "years")


def test_ecg():
    series = load_sample("ecg")
    assert (series.lengths, series.names, series.units, series.dt) == ((108_000,), ("MLII",), "mV", 1 / 360)
    assert "Moody & Mark" in series.source
    # the recorder has steps of 5 microvolt
    steps = series.trajectories[0] * 200
    assert_allclose(steps, np.rint(steps), atol=1e-9)
    assert (series.trajectories[0].min(), series.trajectories[0].max()) == (-3.485, 3.65)


def test_sunspots_peak_in_1957():
    series = load_sample("sunspots")
    assert (series.times[0][0], series.times[0][-1], series.dt) == (1700, 2008, 1.0)
    assert series.times[0][series.trajectories[0][:, 0].argmax()] == 1957


def test_elnino_is_unrolled_month_by_month():
    series = load_sample("elnino")
    assert (series.lengths, series.dt) == ((61 * 12,), 1 / 12)
    assert series.trajectories[0][11:13, 0].tolist() == [21.8, 24.19]
    # the yearly wave stands out: the spectrum peaks at one cycle a year
    spectrum = np.abs(np.fft.rfft(series.trajectories[0][:, 0] - series.trajectories[0].mean()))
    assert spectrum.argmax() == 61

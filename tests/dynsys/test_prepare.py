"""Preparation: exact round trips, alignment against literal loops, chunks against the whole, and its refusals."""

import dataclasses
import json

import h5py
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from dynsys.errors import DataError, DynsysError, InvalidValue, UnknownName
from dynsys.prepare import LazyRows, Preparation, PreparationConfig, filters
from dynsys.prepare.learning import moments
from dynsys_datasets.series import TimeSeries
from dynsys_datasets.series.lazy import LazyArray


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def walk(points=600, columns=1, seed=0):
    return 5 + 2 * noise(points, columns, seed=seed) + np.sin(np.arange(points) / 7)[:, None]


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("standardise", [True, False])
def test_forward_then_backward_is_the_recording(columns, standardise):
    x = walk(columns=columns) * np.array([1e-3, 1.0, 1e5])[:columns]
    config = PreparationConfig(standardise=standardise, embedding="delay", delay=3, dimension=4, downsample=2)
    prep = Preparation.learn(TimeSeries(x, dt=0.5), config)
    made = prep.forward(TimeSeries(x, dt=0.5))
    assert made.trajectories[0].shape == (300 - 9, 4 * columns)
    assert_allclose(prep.backward(made.trajectories[0]), x[::2][9:], rtol=1e-12)
    assert_allclose(prep.backward(made.trajectories[0][0]), x[18], rtol=1e-12)  # a single state
    assert_allclose(prep.backward(np.stack(made.trajectories * 2))[1], x[18::2], rtol=1e-12)  # a batch
    assert made.dt == 1.0
    assert (made.offset, made.step) == (18, 2)


def test_standardised_columns_have_mean_0_and_deviation_1():
    train = TimeSeries([walk(400, 2), walk(300, 2, seed=1)])
    made = np.concatenate(Preparation.learn(train).forward(train).trajectories)
    assert_allclose(made.mean(axis=0), 0, atol=1e-13)
    assert_allclose(made.std(axis=0), 1, rtol=1e-13)


@given(cuts=st.lists(st.integers(1, 999), max_size=12, unique=True), offset=st.sampled_from([0.0, 1e4, -1e8]))
@settings(deadline=None, max_examples=40)
def test_moments_in_chunks_are_those_of_the_whole(cuts, offset):
    x = noise(1000, 3) * np.array([1.0, 10.0, 1e-3]) + offset
    mean, std = moments(np.split(x, sorted(cuts)))
    # the mean is rounded to eps * |offset|, which relative to the smallest deviation of 1e-3 is 2e-13 |offset|; a few of those
    assert_allclose(mean, x.mean(axis=0), rtol=1e-14, atol=1e-14)
    assert_allclose(std, x.std(axis=0), rtol=1e-12 + 1e-12 * abs(offset))


def test_row_and_input_are_those_of_the_literal_loop():
    """Row i is recording row (i + (m-1) d) k; its input is the mean of the k inputs from there on."""
    k, d, m = 3, 2, 4
    lengths = (100, 101, 102, 20)
    x = [walk(n, 2, seed=n) for n in lengths]
    u = [noise(n, 2, seed=n + 1) * [1.0, 50.0] + 7 for n in lengths]
    train = TimeSeries(x, inputs=u, dt=0.1, names=["a", "b"])
    prep = Preparation.learn(train, PreparationConfig(embedding="delay", delay=d, dimension=m, downsample=k))
    made = prep.forward(train)
    assert made.names == ("a", "b", "a[t-2]", "b[t-2]", "a[t-4]", "b[t-4]", "a[t-6]", "b[t-6]")
    for values, inputs, states, held in zip(x, u, made.trajectories, made.inputs, strict=True):
        kept = list(range(0, len(values), k))
        assert len(states) == len(held) == len(kept) - (m - 1) * d
        for i in range(len(states)):
            now = kept[i + (m - 1) * d]
            assert now == made.offset + i * made.step
            for j in range(m):
                past = now - j * d * k
                assert_allclose(states[i, 2 * j : 2 * j + 2], (values[past] - prep.mean) / prep.scale, rtol=1e-13)
            mean_input = np.mean([inputs[r] for r in range(now, min(now + k, len(inputs)))], axis=0)
            assert_allclose(held[i], (mean_input - prep.input_mean) / prep.input_scale, rtol=1e-12, atol=1e-13)
    assert_allclose(prep.forward_inputs(u[0][prep.history - 1 :]), made.inputs[0], rtol=1e-13)


def test_inputs_are_standardised_and_constant_ones_survive():
    u = np.stack([1e4 * noise(500), np.full(500, 3.0)], axis=1)
    train = TimeSeries(walk(500, 2), inputs=u)
    made = Preparation.learn(train).forward(train)
    assert_allclose(np.std(made.inputs[0], axis=0), [1, 0], atol=1e-12)
    raw = Preparation.learn(train, PreparationConfig(standardise=False)).forward(train)
    assert_array_equal(raw.inputs[0], u)


def test_filters_act_in_order_on_each_trajectory_by_itself():
    x = [walk(500), walk(300, seed=1)]
    config = PreparationConfig(standardise=False, detrend="gaussian", detrend_width=5.0, smooth_width=2.0, downsample=3, embedding="none")
    made = Preparation.learn(TimeSeries(x, dt=0.1), config).forward(TimeSeries(x, dt=0.1))
    for values, found in zip(x, made.trajectories, strict=True):
        assert_allclose(found, filters.gaussian_smooth(filters.remove_gaussian_trend(values, 50.0), 2.0)[::3], rtol=1e-13)
    linear = Preparation.learn(TimeSeries(x), PreparationConfig(detrend="linear", embedding="none")).forward(TimeSeries(x))
    assert_allclose(np.polyfit(np.arange(500), linear.trajectories[0][:, 0], 1), 0, atol=1e-12)


def test_auto_embeds_one_column_only_unless_asked():
    one, two = TimeSeries(walk(500, 1)), TimeSeries(walk(500, 2))
    assert Preparation.learn(two).dimension == 1
    assert Preparation.learn(two, PreparationConfig(dimension=3)).n_prepared == 6
    assert Preparation.learn(two, PreparationConfig(embedding="delay", rule="window")).dimension > 1
    assert Preparation.learn(one, PreparationConfig(embedding="none")).n_prepared == 1
    slow = TimeSeries(np.sin(np.arange(2000) / 9.0) + 0.01 * noise(2000))
    assert Preparation.learn(slow).dimension > 1


def test_chosen_once_and_the_same_for_every_part():
    train, test = TimeSeries(walk(800), dt=0.1), TimeSeries(3 * walk(200, seed=5), dt=0.1)
    prep = Preparation.learn(train)
    assert_allclose(prep.mean, np.mean(train.trajectories[0]), rtol=1e-13)
    made = prep.forward(test).trajectories[0]
    assert_allclose(prep.backward(made), test.trajectories[0][prep.history - 1 :], rtol=1e-12)


# lazy recordings


@pytest.fixture
def recording(tmp_path):
    x, u = walk(1000, 2), noise(1000, 1)
    with h5py.File(tmp_path / "r.h5", "w") as file:
        file["x"], file["u"] = x, u
    lazy = TimeSeries(
        (LazyArray(str(tmp_path / "r.h5"), "x", 0, 1000, 2),), inputs=(LazyArray(str(tmp_path / "r.h5"), "u", 0, 1000, 1),), dt=0.1
    )
    return lazy, TimeSeries(x, inputs=u, dt=0.1)


@pytest.mark.parametrize(
    "config",
    [
        PreparationConfig(),
        PreparationConfig(downsample=3),
        PreparationConfig(embedding="delay", delay=2, dimension=4),
        PreparationConfig(embedding="delay", delay=2, dimension=4, downsample=7),
    ],
)
def test_lazy_rows_are_those_in_memory(recording, config, monkeypatch):
    monkeypatch.setattr("dynsys.prepare.learning.BLOCK_ROWS", 64)
    lazy, loaded = recording
    prep, whole = Preparation.learn(lazy, config), Preparation.learn(loaded, config)
    assert_allclose(prep.mean, whole.mean, rtol=1e-14)
    assert_allclose(prep.scale, whole.scale, rtol=1e-14)
    slices, wanted = prep.forward(lazy), prep.forward(loaded)
    for found, true in zip((*slices.trajectories, *slices.inputs), (*wanted.trajectories, *wanted.inputs), strict=True):
        assert isinstance(found, LazyRows)
        assert found.shape == true.shape
        assert_array_equal(np.asarray(found), true)
        for index in (slice(0, 1), slice(5, 40), slice(-3, None), slice(10, 10), slice(None, None, 5), slice(None, None, -1)):
            assert_array_equal(found[index], true[index])
        assert_array_equal(found[-1], true[-1])
        with pytest.raises(IndexError):
            found[len(true)]


def test_lazy_slices_read_only_what_they_need(recording):
    prep = Preparation.learn(recording[1], PreparationConfig(embedding="delay", delay=2, dimension=4, downsample=3))
    asked = []

    class Watched:
        def __len__(self):
            return 1000

        def __getitem__(self, rows):
            asked.append(rows)
            return recording[1].trajectories[0][rows]

    found = prep.forward(recording[0]).trajectories[0]
    watched = dataclasses.replace(found, source=Watched())
    assert_array_equal(watched[10:20], found[10:20])
    assert [(r.start, r.stop) for r in asked] == [(30, 57 + prep.history)]


def test_filters_bring_a_lazy_recording_into_memory(recording):
    config = PreparationConfig(smooth_width=2.0)
    lazy, loaded = (Preparation.learn(series, config).forward(series) for series in recording)
    assert isinstance(lazy.trajectories[0], np.ndarray)
    assert_array_equal(lazy.trajectories[0], loaded.trajectories[0])


def test_transform_slice_is_forward_on_the_same_rows():
    x = walk(200, 2)
    prep = Preparation.learn(TimeSeries(x), PreparationConfig(delay=3, dimension=2, downsample=2))
    assert_array_equal(prep.transform_slice(x[20:90]), prep.forward(TimeSeries(x)).trajectories[0][10:42])
    smooth = Preparation.learn(TimeSeries(x), PreparationConfig(smooth_width=1.0))
    with pytest.raises(InvalidValue, match="need the whole trajectory"):
        smooth.transform_slice(x)


# model files


@pytest.mark.parametrize(
    "config",
    [
        PreparationConfig(),
        PreparationConfig(detrend="gaussian", detrend_width=1 / 3, smooth_width=0.1 + 0.2, downsample=2, rule="window"),
        PreparationConfig(standardise=False, detrend="linear", delay=2, dimension=3),
    ],
)
def test_json_round_trip_is_exact(config):
    train = TimeSeries(walk(700) * np.pi, inputs=noise(700) / 3, dt=1 / 360, time_unit="s", names=["µV"])
    prep = Preparation.learn(train, config)
    again = Preparation.from_json(prep.to_json())
    assert again == prep
    for one, two in zip(prep.mean + prep.scale + (prep.dt,), again.mean + again.scale + (again.dt,), strict=True):
        assert one.hex() == two.hex()
    assert_array_equal(again.forward(train).trajectories[0], prep.forward(train).trajectories[0])


def broken(**changes):
    good = json.loads(Preparation.learn(TimeSeries(walk(300, 2))).to_json())
    return json.dumps(good | changes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "null",
        '{"config": {}}',
        "[" * 100_000,
        broken(mean=[0.0]),
        broken(mean=["a", "b"]),
        broken(scale=[1.0, 0.0]),
        broken(scale=[1.0, -1.0]),
        broken(scale=[1.0, float("nan")]),
        broken(dt=0.0),
        broken(dt="1"),
        broken(delay=0),
        broken(dimension=1.5),
        broken(extra=1),
        broken(names=[], mean=[], scale=[]),
        broken(config={"unknown": 1}),
        broken(config={"rule": ["window"]}),
        broken(config={"downsample": 0}),
        broken(config={"smooth_width": "a"}),
        broken(config=None),
    ],
)
def test_other_json_is_refused(text):
    with pytest.raises(DataError, match=r"Preparation\.from_json"):
        Preparation.from_json(text)


def test_good_json_is_not_refused():
    assert Preparation.from_json(broken()).n_obs == 2  # or the test above could not fail


def test_summary_says_all_that_was_chosen():
    train = TimeSeries(walk(3000), dt=1 / 360, time_unit="s", names=["lead"])
    config = PreparationConfig(detrend="gaussian", detrend_width=0.5, smooth_width=3.0, downsample=4, delay=4, dimension=7)
    text = "\n".join(Preparation.learn(train, config).summary())
    for part in (
        "sigma 0.5 s subtracted",
        "sigma 3 samples (0.008333 s), not causal",
        "every 4. row kept, dt 0.00277778 -> 0.0111111 s",
        "lead (",
        "7 values 4 rows (0.04444 s) apart, a window of 0.2667 s",
        "as given",
    ):
        assert part in text
    auto = "\n".join(Preparation.learn(train).summary())
    assert "rule 'noise-amplification'" in auto


# refusals


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"detrend": "gausian"}, UnknownName, "Did you mean 'gaussian'"),
        ({"embedding": "delays"}, UnknownName, "Did you mean 'delay'"),
        ({"rule": "windows"}, UnknownName, "Did you mean 'window'"),
        ({"detrend": "gaussian"}, InvalidValue, "needs detrend_width"),
        ({"detrend_width": 1.0}, InvalidValue, "nothing else has one"),
        ({"detrend": "gaussian", "detrend_width": 0.0}, InvalidValue, "must be positive"),
        ({"smooth_width": -1.0}, InvalidValue, "smooth_width must be 0 or more"),
        ({"smooth_width": float("nan")}, InvalidValue, "smooth_width must be 0 or more"),
        ({"downsample": 0}, InvalidValue, "downsample must be a whole number"),
        ({"delay": -1}, InvalidValue, "delay must be a whole number"),
        ({"dimension": True}, InvalidValue, "dimension must be a whole number"),
        ({"embedding": "none", "delay": 3}, InvalidValue, "Use embedding='delay'"),
    ],
)
def test_settings_that_can_not_work(settings, error, text):
    with pytest.raises(error, match=text):
        PreparationConfig(**settings)


def test_series_that_do_not_fit():
    prep = Preparation.learn(TimeSeries(walk(300, 2), dt=0.1, names=["a", "b"]), PreparationConfig(delay=3, dimension=4, downsample=2))
    for series, text in (
        (TimeSeries(walk(300, 3), dt=0.1, source="new.csv"), "new.csv: 3 columns .* trained on 2 .*a, b"),
        (TimeSeries(walk(300, 2), dt=0.2), "sampled every 0.2, .* 0.1"),
        (TimeSeries(walk(300, 2), dt=0.1, inputs=noise(300)), "1 inputs, .* trained with 0"),
        (TimeSeries([walk(300, 2), walk(18, 2)], dt=0.1), "trajectory 1: 18 rows, fewer than the 19"),
    ):
        with pytest.raises(DataError, match=text):
            prep.forward(series)
    assert prep.forward(TimeSeries(walk(19, 2), dt=0.1)).trajectories[0].shape == (1, 8)
    with pytest.raises(InvalidValue, match="wanted 8 prepared columns"):
        prep.backward(np.zeros((5, 3)))
    with pytest.raises(DataError, match="forward_inputs"):
        prep.forward_inputs(np.zeros((5, 1)))


def test_columns_with_nothing_in_them():
    ramp = np.stack([noise(300), 2.0 + 0.5 * np.arange(300)], axis=1)
    with pytest.raises(DataError, match="'ramp' is constant once it is prepared"):
        Preparation.learn(TimeSeries(ramp, names=["x", "ramp"]), PreparationConfig(detrend="linear"))
    with pytest.raises(DataError, match="'x0' is constant"):
        Preparation.learn(TimeSeries(np.tile([1.0, 2.0], 100)), PreparationConfig(downsample=2))
    bad = walk(300, 2)
    bad[7, 1] = np.nan
    with pytest.raises(DataError, match="'x1' holds NaN or inf"):
        Preparation.learn(TimeSeries(bad))


@given(
    points=st.integers(1, 120),
    columns=st.integers(1, 3),
    downsample=st.integers(1, 5),
    delay=st.none() | st.integers(1, 6),
    dimension=st.none() | st.integers(1, 5),
    smooth=st.sampled_from([0.0, 0.5, 4.0]),
)
@settings(deadline=None, max_examples=60)
def test_any_setting_prepares_or_says_why(points, columns, downsample, delay, dimension, smooth):
    series = TimeSeries(walk(points, columns), dt=1.0)
    config = PreparationConfig(downsample=downsample, delay=delay, dimension=dimension, smooth_width=smooth)
    try:
        prep = Preparation.learn(series, config)
        made = prep.forward(series)
    except DynsysError as error:
        message = str(error)
    else:
        message = ""
    if message:
        assert len(message) > 40  # a sentence, not a symptom
        return
    assert made.trajectories[0].shape == (-(-points // downsample) - (prep.dimension - 1) * prep.delay, columns * prep.dimension)
    assert np.isfinite(made.trajectories[0]).all()

"""Series at irregular times: gaps reach the model, delays are measured in time, and discrete models refuse with what to do."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import dynsys
from dynsys.errors import DataError
from dynsys.prepare.irregular import embed_at, gaps, typical_interval
from dynsys.prepare.preparation import Preparation
from dynsys.prepare.settings import PreparationConfig
from dynsys_datasets.series import TimeSeries

from .fit_cases import TINY, circle

SMALL = ("model.hidden=16", "model.depth=1", *TINY[1:])


def thinned(series, share=0.3, seed=0):
    """The series without some of its rows; the times stay."""
    kept = np.random.default_rng(seed).random(series.lengths[0]) > share
    times = series.dt * np.flatnonzero(kept)
    return TimeSeries(series.trajectories[0][kept], times=times, names=series.names, units=series.units, source="thinned")


def test_gaps_and_delays_are_measured_in_time():
    times = np.array([0.0, 0.1, 0.3, 0.35, 0.6])
    assert_allclose(gaps(times, 0.1)[:, 0], [1, 2, 0.5, 2.5, 1], atol=1e-12)
    line = np.column_stack([2 * times, 1 - times])  # linear interpolation of a line is exact
    found = embed_at(line, times, 0.15, 3)
    assert_allclose(
        found, [[*(2 * t, 1 - t), *(2 * (t - 0.15), 1.15 - t), *(2 * (t - 0.3), 1.3 - t)] for t in (0.3, 0.35, 0.6)], atol=1e-12
    )
    with pytest.raises(DataError, match=r"over a time of 0\.6 is shorter than the window of 0\.8"):
        embed_at(line, times, 0.4, 3)


def test_preparation_keeps_the_times_and_comes_back_from_its_text():
    series = thinned(circle())
    assert_allclose(typical_interval(series), 0.1)
    preparation = Preparation.learn(series, PreparationConfig(delay=3, dimension=2))
    again = Preparation.from_json(preparation.to_json())
    assert again == preparation
    assert again.gapped
    assert "irregular" in " ".join(preparation.summary())
    data = preparation.forward(series)
    (x,), (u,) = data.trajectories, data.inputs
    assert x.shape[1] == 4
    assert data.n_inputs == 0
    assert_allclose(u[:-1, 0], np.diff(series.times[0][-len(x) :]) / 0.1, atol=1e-9)
    # the delayed columns, against the noiseless rotation at those times: linear interpolation over gaps of at most 5 steps of 0.2 rad
    phase = 0.2 * (series.times[0][-len(x) :] / 0.1 - 3)
    assert np.abs(preparation.backward(x[:, 2:]) - np.column_stack([10 + 5 * np.cos(phase), -3 + np.sin(phase)])).max() < 5 * 0.5**2
    # even samples at half the rate are one more irregular sampling
    slower = TimeSeries(series.trajectories[0], dt=0.2, names=series.names)
    assert_allclose(preparation.forward(slower).inputs[0][:-1], 2.0, atol=1e-9)


@pytest.mark.parametrize("change", [{"downsample": 2}, {"smooth_width": 1.0}, {"detrend": "linear"}])
def test_what_counts_rows_is_refused(change):
    with pytest.raises(DataError, match=r"samples are irregular.*\.resample"):
        Preparation.learn(thinned(circle()), PreparationConfig(**change))


def test_a_discrete_model_refuses_and_says_what_to_do():
    with pytest.raises(DataError, match=r"irregular sampling: .*\.resample\(dt=0\.1\).*model of continuous time .*neural-ode.*alrnn steps"):
        dynsys.fit(thinned(circle()), model="alrnn", progress=False)


def test_a_model_of_even_samples_refuses_uneven_ones():
    preparation = Preparation.learn(circle())
    with pytest.raises(DataError, match=r"irregular times, but the model was trained on even samples.*neural-ode"):
        preparation.forward(thinned(circle()))


def test_an_irregular_fit_forecasts_what_comes_between_and_after(tmp_path):
    whole = circle(800)
    series = thinned(whole)
    settings = [*SMALL, "training.steps=600", "training.chunk=100", "training.batch=16", "training.learning_rate=0.005", "training.seeds=1"]
    found = dynsys.fit(series, model="neural-ode", set=settings, out=tmp_path / "run", progress=False)
    assert found.status.ok
    assert found.model.n_inputs == 0
    past = series.slice(0, 300)
    made = found.forecast(past, 20)
    phase = 0.2 * (made.times[0] / 0.1)  # even steps of the typical interval, right after the last irregular one
    assert_allclose(np.diff(made.times[0]), 0.1, atol=1e-9)
    true = np.column_stack([10 + 5 * np.cos(phase), -3 + np.sin(phase)])
    # a rotation of 20 steps is learned to a few percent of its radius in this short training
    assert np.abs((made.trajectories[0] - true) / [5.0, 1.0]).max() < 0.2
    errors = {dict(score.settings)["steps"]: score.value for score in found.scores if score.name == "prediction_error"}
    assert errors[1] < 1e-3  # steps over gaps of 1 to 5 intervals, in standardised units
    loaded = dynsys.load(tmp_path / "run")
    assert loaded.preparation.gapped
    assert_allclose(loaded.forecast(past, 5).trajectories[0], made.trajectories[0][:5], atol=1e-6)
    assert loaded.simulate(50).trajectories[0].shape == (50, 2)
    assert loaded.evaluate(whole)[0].name == "d_stsp_binned"  # even samples too


def test_gaps_matter():
    """The same rows with the wrong times are predicted much worse: the model does use the gap."""
    series = thinned(circle(800))
    settings = [*SMALL, "training.steps=800", "training.chunk=100", "training.learning_rate=0.005", "training.seeds=1"]
    found = dynsys.fit(series, model="neural-ode", set=settings, progress=False)
    wrong = TimeSeries(series.trajectories[0], dt=0.1, names=series.names)

    def one_step(data):
        return next(score.value for score in found.evaluate(data) if score.name == "prediction_error")

    assert one_step(wrong) > 10 * one_step(series)

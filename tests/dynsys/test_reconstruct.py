"""`fit` and what it returns: known systems are found again, and everything comes out in the user's units and times."""

import dataclasses
import json

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import config as jaxtyping_config
from numpy.testing import assert_allclose, assert_array_equal

import dynsys
from dynsys.errors import DataError, InvalidValue, UnknownName
from dynsys.reconstruct import pipeline
from dynsys.status import Status
from dynsys_datasets.series import LazyArray, TimeSeries, read_series, write_series

from .fit_cases import TINY, circle, driven, orbit, rotation

LINEAR = ("model.dim=2", "model.n_relu=0", "training.window=10", "training.chunk=500", "training.checkpoints=1", "training.clip=none")
ONE_STEP = (
    "training.forcing=generalised",
    "training.alpha=1",
    "training.learning_rate=0.03",
    "training.final_learning_rate=1e-3",
    "training.optimizer=adam",
)
SMALL = ("selection.steps=100", "selection.starts=2", "training.precision=float64")


def quiet(series, *changes, **about):
    return dynsys.fit(series, set=[*TINY, *changes], progress=False, **({"seeds": 1, "steps": 10} | about))


@pytest.fixture(scope="module")
def linear():
    """A rotation of 500 points, learned by a linear model of one-step prediction."""
    return dynsys.fit(circle(500), model="alrnn", seeds=1, steps=2000, set=[*LINEAR, *ONE_STEP, *SMALL], progress=False)


@pytest.fixture(scope="module")
def pushed():
    """A driven linear system, likewise."""
    return dynsys.fit(driven(), model="alrnn", seeds=1, steps=2000, set=[*LINEAR, *ONE_STEP, *SMALL], progress=False)


@pytest.fixture(scope="module")
def tiny():
    return quiet(circle())


def future(points, steps):
    """What follows circle(points)."""
    return circle(points + steps).trajectories[0][points:]


def test_a_linear_system_is_found_and_continued_in_the_users_units(linear):
    assert linear.status is Status.SUCCESS
    made = linear.forecast(circle(500), 20)
    # the trained matrix is good to about 1e-4, the error grows by as much a step, amplitudes are 5 and 1
    assert_allclose(made.trajectories[0], future(500, 20), atol=0.02)
    assert_allclose(made.times[0], 0.1 * (499 + np.arange(1, 21)), rtol=1e-12)
    assert (made.names, made.units, made.time_unit) == (("a", "b"), "mV", "s")
    errors = {dict(score.settings)["steps"]: score.value for score in linear.scores if score.name == "prediction_error"}
    assert errors[1] < 1e-6


def test_the_series_own_times_are_continued(linear):
    times = 1000.0 + 0.1 * np.arange(300)
    made = linear.forecast(circle(300, times=times, dt=None), 3)
    assert_allclose(made.times[0], times[-1] + 0.1 * np.arange(1, 4), rtol=1e-12)
    assert linear.forecast(circle(300), 1).trajectories[0].shape == (1, 2)


def test_simulate_begins_at_its_start(linear):
    run = linear.simulate(50)
    assert run.dt == pytest.approx(0.1)
    assert_allclose(run.trajectories[0], circle(50).trajectories[0], atol=0.05)
    other = linear.simulate(4, start=circle(200))
    assert_allclose(other.trajectories[0][0], circle(200).trajectories[0][-1], atol=1e-9)
    assert_allclose(other.trajectories[0][1:], future(200, 3), atol=0.01)


def test_every_trajectory_is_continued(linear):
    series = circle(100)
    two = TimeSeries([series.trajectories[0][:60], series.trajectories[0][:90]], dt=0.1, names=["a", "b"])
    made = linear.forecast(two, 5)
    assert made.lengths == (5, 5)
    for values, points in zip(made.trajectories, (60, 90), strict=True):
        assert_allclose(values, future(points, 5), atol=0.01)


def test_a_driven_system_is_found_and_continued_with_its_inputs(pushed):
    series = driven()
    ahead = np.random.default_rng(5).normal(size=(15, 1))
    x = series.trajectories[0][-1]
    u = np.concatenate([series.inputs[0][-1:], ahead])
    wanted = orbit(rotation(0.3, 0.9), 16, start=x, inputs=u, drive=np.array([[0.5], [0.1]]))[1:]
    made = pushed.forecast(series, 15, inputs=ahead[:14])  # the input at the last row drives the first step
    assert_allclose(made.trajectories[0], wanted, atol=0.05)
    run = pushed.simulate(10, inputs=series.inputs[0])
    assert_allclose(run.trajectories[0], series.trajectories[0][:10], atol=0.05)


def test_downsampling_and_delay_embedding_keep_units_and_times():
    """One column, N = 1: every second row, three delays; the forecast's first point is two samples after the last row."""
    column = circle(500).select("a")
    preparation = ("preparation.downsample=2", "preparation.delay=2", "preparation.dimension=3")
    found = dynsys.fit(
        column, model="alrnn", seeds=1, steps=3000, set=[*LINEAR, "model.dim=3", *ONE_STEP, *SMALL, *preparation], progress=False
    )
    assert found.dt == pytest.approx(0.2)
    for points in (400, 401):  # the last row is always the one continued from
        made = found.forecast(circle(points).select("a"), 6)
        assert_allclose(made.times[0], 0.1 * (points - 1) + 0.2 * np.arange(1, 7), rtol=1e-12)
        assert_allclose(made.trajectories[0], circle(points + 12).select("a").trajectories[0][points + 1 :: 2], atol=0.05)
    assert made.names == ("a",)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda r: r.forecast(circle().select("a"), 5), "1 columns .*trained on 2"),
        (lambda r: r.forecast(circle(dt=0.2), 5), "sampled every 0.2, but the model was trained on data sampled every 0.1"),
        (lambda r: r.evaluate(circle(10)), "at least 20 rows"),
        (lambda r: r.evaluate(circle().select("b")), "1 columns"),
        (lambda r: r.evaluate(circle(), starts=0), "starts must be at least 1, got starts=0"),
        (lambda r: r.evaluate(circle(), horizon=0), "horizon=0"),
        (lambda r: r.forecast(circle(), 0), "steps must be at least 1"),
        (lambda r: r.simulate(0), "points must be .*at least 1"),
        (lambda r: r.simulate(5, inputs=np.zeros((5, 1))), "trained without inputs"),
        (lambda r: r.forecast(circle(inputs=np.zeros((400, 1))), 5), "1 inputs, but the model was trained with 0"),
    ],
)
def test_wrong_uses_are_refused(tiny, attempt, words):
    with pytest.raises((DataError, InvalidValue), match=words):
        attempt(tiny)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda r: r.simulate(5), "the model has 1 inputs; pass inputs="),
        (lambda r: r.forecast(driven(), 5), "the model has 1 inputs; pass inputs="),
        (lambda r: r.forecast(driven(), 5, inputs=np.zeros((3, 1))), "5 steps need 5 rows of inputs after downsampling, got 4"),
        (lambda r: r.forecast(driven(), 5, inputs=np.zeros((5, 2))), r"shape \(T, 1\), got \(5, 2\)"),
        (lambda r: r.forecast(driven(), 5, inputs=np.zeros(5)), r"shape \(T, 1\), got \(5,\)"),
        (lambda r: r.simulate(5, inputs=np.zeros((4, 2))), r"shape \(T, 1\), got \(4, 2\)"),
        (
            lambda r: r.forecast(TimeSeries(driven().trajectories, dt=1.0), 5, inputs=np.zeros((5, 1))),
            "0 inputs, but the model was trained with 1",
        ),
    ],
)
def test_wrong_inputs_are_refused(pushed, attempt, words):
    with pytest.raises((DataError, InvalidValue), match=words):
        attempt(pushed)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model": "alrn"}, UnknownName, r"unknown model 'alrn'.*Did you mean 'alrnn'\?"),
        ({"set": ["model.hiden=3"]}, UnknownName, r"option of clipped-shallow-plrnn 'hiden'.*Did you mean 'hidden'\?"),
        ({"set": ["model.hidden=many"]}, InvalidValue, "model.hidden: expected int, got 'many'"),
        ({"set": ["model.hidden=0"]}, InvalidValue, "hidden must be a whole number of at least 1, got hidden=0"),
        ({"set": ["model.observation=affin"]}, UnknownName, "Did you mean 'affine'"),
        ({"set": ["training.optimizer=radamm"]}, UnknownName, r"optimizer 'radamm'.*Did you mean 'radam'\?"),
        ({"set": ["training.alpha=2"]}, InvalidValue, r"must be in \[0, 1\], got"),
        ({"set": ["training.window=300"]}, DataError, "fewer than one training window of 300"),
        ({"set": ["training.manifold_share=2"]}, InvalidValue, "manifold_share must be in"),
        ({"set": "training.steps=3"}, InvalidValue, "set must be a list of texts"),
        ({"seeds": 0}, InvalidValue, "training.seeds must be at least 1"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_a_folder_is_made(tmp_path, changes, error, words):
    with pytest.raises(error, match=words):
        dynsys.fit(circle(300), out=tmp_path / "run", progress=False, **({"steps": 10} | changes))
    assert not (tmp_path / "run").exists()


def test_what_is_no_series_is_refused():
    jaxtyping_config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(InvalidValue, match=r"expected a TimeSeries, got a ndarray. Make one"):
            dynsys.fit(np.zeros((100, 2)))
    finally:
        jaxtyping_config.update("jaxtyping_disable", False)
    values = circle(100).trajectories[0].copy()
    values[7, 1] = np.nan
    with pytest.raises(DataError, match=r"row 7|7"):
        dynsys.fit(TimeSeries(values, dt=1.0))
    with pytest.raises(DataError, match="constant"):
        dynsys.fit(TimeSeries(np.ones((100, 1)), dt=1.0))


def test_several_seeds_and_trajectories_and_no_test_part():
    series = TimeSeries([circle(120).trajectories[0], circle(200).trajectories[0], circle(60).trajectories[0]], dt=0.1)
    found = quiet(series, "split.test=0", seeds=2)
    assert len(found.outcome.scores) == len(found.ensemble) == 2
    assert found.scores == ()
    assert len(found.parts) == 2
    assert [part.n_trajectories for part in found.parts] == [3, 3]
    assert found.outcome.best == int(np.argmin(found.outcome.scores))


def test_the_same_call_gives_the_same_model_and_another_seed_another(tiny):
    again, other = quiet(circle()), quiet(circle(), "training.seed=1")
    assert_array_equal(again.model.W1, tiny.model.W1)
    assert again.scores == tiny.scores
    assert not np.array_equal(other.model.W1, tiny.model.W1)


def test_save_and_load_give_an_equal_reconstruction(tiny, pushed, tmp_path):
    import jax

    for i, found in enumerate((tiny, pushed)):
        back = dynsys.load(found.save(tmp_path / f"{i}.h5"))
        for name in ("preparation", "settings", "outcome", "start", "units", "source", "notes", "scores", "status", "dt"):
            assert getattr(back, name) == getattr(found, name), name
        for mine, theirs in ((back.model, found.model), (back.last, found.last)):
            assert jax.tree.structure(mine) == jax.tree.structure(theirs)
            for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
                assert_array_equal(a, b)
                assert a.dtype == b.dtype
    assert_array_equal(dynsys.load(tmp_path / "0.h5").simulate(30).trajectories[0], tiny.simulate(30).trajectories[0])


def test_a_file_larger_than_what_may_be_resident_trains_from_slices(tmp_path, monkeypatch):
    """20,000 rows of 2 columns with 10,000 numbers resident: every chunk reads one block of 4,096 rows."""
    write_series(circle(20_000), tmp_path / "long.h5")
    series = read_series(tmp_path / "long.h5")
    if not series.is_lazy:  # the reader keeps small files in memory; ask for the lazy form
        from dynsys_datasets.series.lazy import LazyArray as Lazy

        with h5py.File(tmp_path / "long.h5") as file:
            shape = file["series/0/values"].shape
        series = series.replace(values=[Lazy(str(tmp_path / "long.h5"), "series/0/values", 0, shape[0], shape[1])])
    assert series.is_lazy
    reads = []
    read = LazyArray._read
    monkeypatch.setattr(LazyArray, "_read", lambda self, first, last: reads.append(last - first) or read(self, first, last))
    whole = quiet(series, "training.resident=10000", "selection.starts=2")
    assert whole.status in (Status.SUCCESS, Status.DEAD)
    before = len(reads)
    trainer = pipeline.make_trainer(whole.settings, whole.preparation.forward(whole.parts[0]), series)
    del reads[:]
    trainer.source.windows(3)
    assert before > 0
    assert sum(reads) <= 5_000  # 10,000 numbers of 2 columns


def test_a_float64_model_keeps_its_precision_without_the_global_switch(linear, tmp_path):
    """In a plain process, where JAX makes float32 of everything unless asked."""
    import os
    import subprocess
    import sys

    path = linear.save(tmp_path / "model.h5")
    wanted = linear.forecast(circle(200), 5).trajectories[0]
    code = (
        "import json, sys, dynsys\nfrom tests_cases import circle\nfound = dynsys.load(sys.argv[1])\n"
        "made = found.forecast(circle(200), 5).trajectories[0]\nfound.evaluate(circle(100), starts=1)\n"
        "print(json.dumps([str(found.model.A.dtype), made.tolist()]))"
    )
    (tmp_path / "tests_cases.py").write_text((__import__("pathlib").Path(__file__).parent / "fit_cases.py").read_text())
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code, path], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    dtype, made = json.loads(done.stdout)
    assert dtype == "float64"
    assert_allclose(made, wanted, rtol=1e-12)


def test_states_that_are_not_seen_are_led_to_their_values_before_a_forecast():
    # a rotation by one radian seen in one coordinate: each forced step shrinks the hidden error by cos(1), so 50 end it
    turns = np.cos(np.arange(320.0))[:, None]
    series = TimeSeries(turns[:300], dt=1.0)
    changes = ["preparation.embedding=none", "preparation.standardise=false", "model.dim=2", "model.n_relu=0", "training.window=10"]
    found = dynsys.fit(series, model="alrnn", steps=10, seeds=1, set=[*changes, "selection.steps=20"], progress=False)
    c, s = np.cos(1.0), np.sin(1.0)
    exact = eqx.tree_at(
        lambda m: (m.A, m.W, m.h), found.model, (jnp.zeros(2), jnp.asarray([[c, -s], [s, c]]).astype(jnp.float32), jnp.zeros(2))
    )
    exact = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), exact)
    made = dataclasses.replace(found, model=exact).forecast(series, 20)
    assert_allclose(made.trajectories[0], turns[300:], atol=1e-4)  # float32; a hidden state of zero is wrong by up to 1

"""Settings chosen from the data: the rules of docs/choose.md, on series whose noise, dimension and time scale are known."""

import jax.random as jr
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose

from dynsys.config import Options
from dynsys.errors import InvalidValue, UnknownName
from dynsys.prepare.preparation import Prepared
from dynsys.reconstruct.defaults import NOISY, make_forcing, make_model, make_models, make_optimizer, resolve, sparse_interval
from dynsys.reconstruct.settings import FitSettings, ModelSettings, TrainingSettings
from dynsys.train.forcing import Adaptive, Annealed, Constant, FreeRunning, GeneralizedForcing, SparseForcing

from .model_cases import TRAINED


def data(columns=3, points=1000, period=40.0, offset=0):
    phase = 2 * np.pi * np.arange(points)[:, None] / period + np.arange(columns)[None, :]
    return Prepared((np.sin(phase),), None, 1.0, tuple("abcdefgh"[:columns]), offset, 1)


def chosen(noise=0.0, model="clipped-shallow-plrnn", training=None, **about):
    settings = FitSettings(model=ModelSettings(model), training=training or TrainingSettings())
    return resolve(settings, data(**about), noise)


def test_noisy_and_clean_data_are_trained_differently():
    noisy, clean, wide = (chosen(0.05)[0].training, chosen(0.0)[0].training, chosen(0.0, columns=5)[0].training)
    assert (noisy.window, noisy.alpha, noisy.final_learning_rate) == (100, 0.15, pytest.approx(1e-4))
    assert (clean.window, clean.alpha, clean.final_learning_rate) == (100, 0.2, pytest.approx(1e-5))
    assert (wide.window, wide.alpha) == (50, 0.3)
    assert chosen(0.0, columns=5, offset=8)[0].training.alpha == 0.2  # delays of a few columns are no dimension
    assert noisy.learning_rate == clean.learning_rate == 1e-3
    assert noisy.forcing == clean.forcing == "adaptive"
    assert noisy.interval is None
    assert chosen(NOISY)[0].training.alpha == 0.15
    assert chosen(0.99 * NOISY)[0].training.alpha == 0.2


def test_an_alrnn_is_forced_sparsely():
    training = chosen(0.05, model="alrnn")[0].training
    assert (training.forcing, training.alpha, training.window) == ("sparse", None, 100)
    assert training.final_learning_rate == pytest.approx(1e-5)
    assert training.interval == sparse_interval(data(), 100)


@pytest.mark.parametrize("model", TRAINED)
def test_nothing_is_left_open_and_each_choice_is_told(model):
    settings, words = chosen(0.05, model=model)
    training = settings.training
    assert None not in (training.window, training.forcing, training.learning_rate, training.final_learning_rate)
    make_forcing(training)
    changed = [word.partition(" = ")[0] for word in words]
    before = TrainingSettings()
    assert sorted(changed) == sorted(name for name in vars(before) if getattr(before, name) is None and getattr(training, name) is not None)
    assert all(": " in word for word in words)


def test_what_the_user_set_stays():
    mine = TrainingSettings(window=7, forcing="annealed", alpha=0.01, learning_rate=0.5, final_learning_rate=0.25)
    settings, words = chosen(0.05, training=mine)
    assert settings.training == mine
    assert words == ()
    assert resolve(settings, data(), 0.0)[0] == settings


@pytest.mark.parametrize(("points", "window"), [(1000, 100), (200, 50), (9, 2), (4, 2)])
def test_windows_are_at_most_a_quarter_of_the_data(points, window):
    assert chosen(points=points)[0].training.window == window


@pytest.mark.parametrize("period", [40, 100, 400])
def test_the_sparse_interval_of_a_sine_is_known(period):
    """The autocorrelation cos(2 pi k / p) falls below 1/e at k = p arccos(1/e) / 2 pi = .190 p; 0.6 of that, to a step."""
    lag = np.ceil(period * np.arccos(np.exp(-1.0)) / (2 * np.pi))
    # of a finite stretch, the estimate is off by a lag or so
    assert_allclose(sparse_interval(data(points=50 * period, period=period), 10_000), 0.6 * lag, atol=1.1)


def test_the_sparse_interval_stays_within_bounds():
    assert sparse_interval(data(period=400, points=4000), 30) == 10  # a third of a window
    assert sparse_interval(data(period=2.5), 100) == 2
    assert sparse_interval(data(period=2.5), 3) == 2


@pytest.mark.parametrize(
    ("training", "forcing"),
    [
        (TrainingSettings(forcing="sparse", interval=9, complete=True), SparseForcing(9, complete=True)),
        (TrainingSettings(forcing="generalised", alpha=0.4), GeneralizedForcing(Constant(0.4))),
        (TrainingSettings(forcing="annealed", alpha=0.4), GeneralizedForcing(Annealed(floor=0.4))),
        (TrainingSettings(forcing="adaptive", alpha=0.1), GeneralizedForcing(Adaptive(start=0.3, floor=0.1))),
        (TrainingSettings(forcing="adaptive", alpha=0.6), GeneralizedForcing(Adaptive(start=0.6, floor=0.6))),
        (TrainingSettings(forcing="free"), FreeRunning()),
    ],
)
def test_forcing_is_what_its_name_says(training, forcing):
    assert make_forcing(training) == forcing


def test_the_rate_falls_exponentially_from_first_to_last():
    training = TrainingSettings(optimizer="sgd", learning_rate=0.1, final_learning_rate=0.001, steps=100)
    optimizer, one = make_optimizer(training), np.ones(())
    state, rates = optimizer.init(one), []
    for _ in range(101):
        change, state = optimizer.update(one, state, one)
        rates.append(-float(change))
    assert_allclose(rates, 0.1 * 0.01 ** (np.arange(101) / 100), rtol=1e-6)


@pytest.mark.parametrize("name", ["adabelief", "adam", "adamw", "lion", "nadam", "radam", "rmsprop", "sgd", "yogi"])
def test_every_optimizer_of_the_list_exists(name):
    assert isinstance(make_optimizer(TrainingSettings(optimizer=name)), optax.GradientTransformation)


@pytest.mark.parametrize("name", ["radan", "chain", "__name__", "apply_updates"])
def test_other_names_are_no_optimizers(name):
    with pytest.raises(UnknownName, match=f"unknown optimizer '{name}'; known: adabelief, adam"):
        make_optimizer(TrainingSettings(optimizer=name))


def options(**pairs):
    return Options(tuple(pairs.items()))


def test_options_reach_the_model():
    model = make_model("alrnn", options(dim=9, n_relu=4, observation="affine"), n_obs=3, n_inputs=2, key=jr.key(0))
    assert (model.dim, model.n_relu, model.n_obs, model.n_inputs) == (9, 4, 3, 2)


@pytest.mark.parametrize(
    ("name", "pairs", "error", "words"),
    [
        (
            "alrnn",
            {"n_relus": 3},
            UnknownName,
            r"unknown option of alrnn 'n_relus'; known: dim, n_relu, observation. Did you mean 'n_relu'\?",
        ),
        ("alrnn", {"key": 3}, UnknownName, "unknown option of alrnn 'key'"),
        ("alrnn", {"n_obs": 3}, UnknownName, "unknown option of alrnn 'n_obs'"),
        ("alrnn", {"dim": "big"}, InvalidValue, "model.dim: expected int, got 'big'"),
        ("alrnn", {"dim": 2.5}, InvalidValue, "model.dim: expected int, got 2.5"),
        ("alrnn", {"dim": True}, InvalidValue, "model.dim: expected int, got True"),
        ("shallow-plrnn", {"hidden": 2.5}, InvalidValue, "model.hidden: expected int, got 2.5"),
        ("alrnn", {"observation": 1}, InvalidValue, "model.observation: expected str, got 1"),
        ("alrnn", {"dim": 2}, InvalidValue, "n_obs must be at most dim"),
        ("alrn", {}, UnknownName, r"unknown model 'alrn'.*Did you mean 'alrnn'\?"),
    ],
)
def test_options_that_a_model_does_not_take(name, pairs, error, words):
    with pytest.raises(error, match=words):
        make_model(name, options(**pairs), n_obs=3, n_inputs=0, key=jr.key(0))


def test_seeds_differ_and_the_same_seed_gives_the_same():
    first = make_models(FitSettings(training=TrainingSettings(seeds=2)), n_obs=3, n_inputs=0)
    more = make_models(FitSettings(training=TrainingSettings(seeds=3)), n_obs=3, n_inputs=0)
    other = make_models(FitSettings(training=TrainingSettings(seeds=2, seed=1)), n_obs=3, n_inputs=0)
    np.testing.assert_array_equal(first[1].W1, more[1].W1)
    assert not np.array_equal(first[0].W1, first[1].W1)
    assert not np.array_equal(first[0].W1, other[0].W1)

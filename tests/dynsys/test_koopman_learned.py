"""Learned Koopman models: orbits by powers equal steps, losses equal their formulas, linear systems are found, periods are chosen."""

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.linalg
from numpy.testing import assert_allclose, assert_array_equal

import dynsys
from dynsys import registry
from dynsys.dynamics import AbstractMap, Gapped, rollout
from dynsys.errors import InvalidValue, UnknownName
from dynsys.models.koopman.autoencoder import KoopmanAutoencoder
from dynsys.models.koopman.diagonal import DiagonalKoopman
from dynsys.models.koopman.lifted import AbstractLifted
from dynsys.models.koopman.reencoding import choose_reencoding
from dynsys.train.forced import forced_run
from dynsys.train.forcing import FreeRunning, SparseForcing
from dynsys.train.loss import Loss
from dynsys_datasets.series import TimeSeries

from .fit_cases import TINY, circle, driven, orbit, rotation
from .model_cases import LEARNED_LIFTED, astype, make

SMALL = (*TINY, "model.depth=1")


def by_steps(model, z, inputs, steps):
    """The definition of an orbit."""
    return AbstractMap.orbit(model, z, steps, inputs)


def diagonal(n_inputs=0, modes=3, **options):
    return make("koopman-diagonal", n_inputs, modes=modes, **options)


# orbits


@pytest.mark.parametrize("n_inputs", [0, 2, 9])  # 9: more than the blocks are for
@pytest.mark.parametrize("steps", [1, 5, 16, 40, 97])  # a block of either kind is full, begun, or one of many
def test_an_orbit_is_its_steps(n_inputs, steps):
    model = diagonal(n_inputs)
    z = jr.normal(jr.key(1), (model.dim,))
    us = jr.normal(jr.key(2), (steps, n_inputs)) if n_inputs else None
    # a hundred products in float64, rounded in another order
    assert_allclose(rollout(model, z, steps, us), by_steps(model, z, us, steps), atol=1e-10)


@pytest.mark.parametrize("reencode", [1, 3])
def test_an_orbit_that_is_encoded_anew_is_its_steps(reencode):
    model = diagonal(2).reencoded(reencode)
    assert not model.parallel
    z = model.lift(jr.normal(jr.key(1), (3,)))
    us = jr.normal(jr.key(2), (7, 2))
    made = rollout(model, z, 7, us)
    y = z[:6]
    for t in range(7):
        y = model.advance(y, us[t])
        if (t + 1) % reencode == 0:
            y = model.encode(model.decode(y))
        assert_allclose(made[t, :6], y, atol=1e-12)
    free = rollout(model.reencoded(0), z[:6], 7, us)
    assert not np.allclose(made[:, :6], free, atol=1e-3)


@pytest.mark.parametrize("n_inputs", [0, 2])
def test_a_thousand_steps_in_float32_equal_those_one_by_one(n_inputs):
    model = astype(diagonal(n_inputs, modes=32), jnp.float32)
    z = jr.normal(jr.key(1), (4, 64), jnp.float32)
    us = jr.normal(jr.key(2), (4, 1000, n_inputs), jnp.float32) if n_inputs else None
    axes = (0, 0 if n_inputs else None)
    made = jax.jit(jax.vmap(lambda z, u: model.orbit(z, 1000, u), axes))(z, us)
    wanted = jax.jit(jax.vmap(lambda z, u: by_steps(model, z, u, 1000), axes))(z, us)
    assert made.dtype == jnp.float32
    # the promise of this model: 1e-4 of the size of its states, here of order one to ten
    assert float(jnp.max(jnp.abs(made - wanted))) < 1e-4 * max(1.0, float(jnp.max(jnp.abs(wanted))))
    assert float(jnp.max(jnp.abs(wanted[:, -1]))) > 0.1  # there is something left to compare


@pytest.mark.parametrize("n_inputs", [0, 2])
def test_gradients_through_an_orbit_are_those_through_its_steps(n_inputs):
    model = diagonal(n_inputs)
    z = jr.normal(jr.key(1), (model.dim,))
    us = jr.normal(jr.key(2), (43, n_inputs)) if n_inputs else None

    def gradients(run):
        return jax.jit(jax.grad(lambda given: jnp.sum(jnp.sin(run(*given)))))((model, z))

    ours, wanted = gradients(lambda m, z: m.orbit(z, 43, us)), gradients(lambda m, z: by_steps(m, z, us, 43))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
        assert_allclose(a, b, rtol=1e-9, atol=1e-10)  # sums over 43 steps in float64
    assert float(jnp.max(jnp.abs(ours[0].angle))) > 0.1


def test_a_free_run_is_trained_through_its_orbit():
    model = diagonal()
    assert model.parallel
    assert not diagonal(2).parallel
    xs = jr.normal(jr.key(1), (50, 2, 3))
    by_orbit = forced_run(model, FreeRunning(), jnp.asarray(0.0), xs)
    stepwise = forced_run(model, SparseForcing(49), jnp.asarray(1.0), xs)  # forced at the start, where it is lifted, alone
    assert_allclose(by_orbit, stepwise, atol=1e-12)
    program = str(jax.make_jaxpr(lambda xs: forced_run(model, FreeRunning(), jnp.asarray(0.0), xs))(xs))
    assert "length=49" not in program  # no loop over time


# the diagonal map


@pytest.mark.parametrize("key", range(3))
def test_no_parameters_make_a_diagonal_model_grow(key):
    model = diagonal(key=key)
    leaves = [5.0 * jr.normal(k, leaf.shape) for k, leaf in zip(jr.split(jr.key(key), 2), (model.log_rate, model.angle), strict=True)]
    model = eqx.tree_at(lambda m: (m.log_rate, m.angle), model, tuple(leaves))
    assert np.max(np.abs(model.eigenvalues)) < 1
    sizes = np.linalg.norm(np.asarray(rollout(model, jnp.ones(6), 50)).reshape(50, 2, 3), axis=1)
    assert np.all(np.diff(sizes, axis=0) <= 1e-14)


def test_the_matrix_has_the_eigenvalues_and_makes_the_step():
    model = diagonal()
    both = np.concatenate([model.eigenvalues, model.eigenvalues.conj()])
    assert_allclose(np.sort_complex(np.linalg.eigvals(model.matrix)), np.sort_complex(both), atol=1e-12)
    for each in (model, make("koopman-autoencoder")):
        y = jr.normal(jr.key(1), (each.dim,))
        assert_allclose(each.matrix @ y, each.advance(y), atol=1e-14)
        assert_allclose(jax.jacfwd(each.step)(y), each.jacobian(y), atol=1e-14)


@pytest.mark.parametrize("gap", [1e-3, 1.0, 4.7])
def test_a_step_over_a_gap_is_the_exponential_of_the_generator(gap):
    model = diagonal(2)
    r, w = np.diag(np.exp(model.log_rate)), np.diag(model.angle)
    generator = np.block([[-r, -w], [w, -r]])
    whole = np.block([[generator, np.asarray(model.B)], [np.zeros((2, 8))]])  # the input is held: its derivative is zero
    y, u = np.asarray(jr.normal(jr.key(1), (6,))), np.asarray(jr.normal(jr.key(2), (2,)))
    wanted = (scipy.linalg.expm(gap * whole) @ np.concatenate([y, u]))[:6]
    assert_allclose(model.over(y, u, gap), wanted, atol=1e-13)
    assert_allclose(model.over(jnp.asarray(y), u, jnp.asarray(gap)), wanted, atol=1e-13)


def test_slow_modes_keep_their_digits_in_float32():
    slow = eqx.tree_at(lambda m: (m.log_rate, m.angle), diagonal(1, modes=1), (jnp.array([-16.0]), jnp.array([1e-5])))
    exact, single = slow._held(), astype(slow, jnp.float32)._held()
    # (l - 1) / (-r + i w) as it stands would lose all but two of float32's seven digits
    assert_allclose(single, exact, rtol=1e-6)
    assert_allclose(exact, slow.B, atol=1e-6)  # g = 1 + 5e-6 i, and B is of order 0.1


# the loss


def literal_loss(model, states, xs, reconstruction, consistency, discount):
    """The formula of the module, point by point."""
    codes = np.array([model.encode(x) for x in xs])
    again = np.mean([(np.asarray(model.decode(y)) - x) ** 2 for y, x in zip(codes, xs, strict=True)])
    size = np.mean(codes**2)
    weights = [discount ** (t - 1) for t in range(1, len(xs))]
    off = [w * np.mean((states[t + 1][: model.n_latent] - codes[t + 1]) ** 2) for t, w in enumerate(weights)]
    return reconstruction * again + consistency * sum(off) / sum(weights) / size


@pytest.mark.parametrize("name", LEARNED_LIFTED)
def test_the_own_loss_is_its_formula(name):
    model = make(name, reconstruction=0.7, consistency=1.3, discount=0.9, reencode=2)
    xs = np.asarray(jr.normal(jr.key(1), (6, 3)))
    states = np.asarray(jr.normal(jr.key(2), (6, model.dim)))
    assert_allclose(model.own_loss(jnp.asarray(states), jnp.asarray(xs)), literal_loss(model, states, xs, 0.7, 1.3, 0.9), rtol=1e-12)
    silent = make(name, reconstruction=0.0, consistency=0.0, reencode=2)
    assert silent.own_loss(jnp.asarray(states), jnp.asarray(xs)) == 0.0


@pytest.mark.parametrize("name", LEARNED_LIFTED)
def test_the_trainer_adds_the_own_loss(name):
    loud, silent = make(name), make(name, reconstruction=0.0, consistency=0.0)
    xs = jr.normal(jr.key(1), (6, 2, 3))
    about = (FreeRunning(), jnp.asarray(0.0), xs, xs, None)
    states = forced_run(loud, *about[:3])
    extra = np.mean([loud.own_loss(states[:, b], xs[:, b]) for b in range(2)])
    assert extra > 0.1
    assert_allclose(Loss()(loud, *about) - Loss()(silent, *about), extra, rtol=1e-10)


def test_gapped_models_keep_their_own_loss():
    model = diagonal()
    xs, states = jr.normal(jr.key(1), (5, 3)), jr.normal(jr.key(2), (5, 6))
    assert_allclose(Gapped(model).own_loss(states, xs), model.own_loss(states, xs))


def perfect(n_inputs=0):
    """An autoencoder that is right: y = E x, and A = E M E^-1 for x[t+1] = M x[t] + D u[t]."""
    E, M, D = np.array([[2.0, 1.0], [0.5, 1.5]]), rotation(0.3, 0.95), np.array([[0.5], [0.1]])
    model = KoopmanAutoencoder.init(2, n_inputs, latent=2, depth=0, key=jr.key(0))
    parts = ((E,), (np.zeros(2),), (np.linalg.inv(E),), (np.zeros(2),), E @ M @ np.linalg.inv(E), E @ D if n_inputs else np.zeros((2, 0)))
    where = lambda m: (m.encoder_W, m.encoder_b, m.decoder_W, m.decoder_b, m.A, m.B)  # noqa: E731
    return eqx.tree_at(where, model, jax.tree.map(jnp.asarray, parts)), M, D


def test_a_perfect_autoencoder_has_no_loss():
    model, M, _ = perfect()
    xs = jnp.asarray(orbit(M, 30))[:, None, :]
    # squares of rounding errors of float64
    assert float(Loss()(model, FreeRunning(), jnp.asarray(0.0), xs, xs, None)) < 1e-28
    wrong = eqx.tree_at(lambda m: m.A, model, 0.99 * model.A)
    assert float(wrong.own_loss(forced_run(wrong, FreeRunning(), jnp.asarray(0.0), xs)[:, 0], xs[:, 0])) > 1e-4


def test_with_skip_an_observation_is_decoded_as_it_was_encoded():
    model = KoopmanAutoencoder.init(3, latent=5, skip=True, key=jr.key(0))
    x, z = jr.normal(jr.key(1), (3,)), jr.normal(jr.key(2), (5,))
    assert_array_equal(model.observe(model.lift(x)), x)
    assert_array_equal(model.observe(model.correct(z, x)), x)
    assert model.decoder_W == ()
    assert model.dim == 5


@pytest.mark.parametrize("latent", [1, 2, 5])
def test_a_fresh_map_is_stable_and_turns_slowly(latent):
    values = np.linalg.eigvals(KoopmanAutoencoder.init(1, latent=latent, key=jr.key(latent)).matrix)
    assert len(values) == latent
    assert np.all((np.abs(values) > 0.94) & (np.abs(values) < 1))
    assert np.all(np.abs(np.angle(values)) <= 0.5)


# fits


@pytest.mark.parametrize(("name", "size"), [("koopman-autoencoder", "model.latent=2"), ("koopman-diagonal", "model.modes=1")])
def test_the_eigenvalues_of_a_linear_system_are_found(name, size):
    rng = np.random.default_rng(0)
    series = TimeSeries([orbit(rotation(0.3, 0.95), 40, start) for start in rng.normal(size=(20, 2))], dt=1.0)
    training = ("training.window=20", "training.chunk=100", "training.learning_rate=0.02", "training.batch=16")
    settings = [*SMALL, *training, size, "model.depth=0", "split.test=0.0", "split.validation=0.0"]
    found = dynsys.fit(series, model=name, steps=600, seeds=1, set=settings, progress=False)
    values = np.linalg.eigvals(np.asarray(found.last.matrix, float))
    # a linear model of linear data without noise, in float32; what is left is the optimiser's last step size
    assert_allclose(np.sort_complex(values), 0.95 * np.exp([-0.3j, 0.3j]), atol=5e-3)


@pytest.mark.parametrize("name", LEARNED_LIFTED)
def test_a_driven_fit_is_stored_and_forecasts_as_before(name, tmp_path):
    series = driven(300)
    found = dynsys.fit(series, model=name, steps=20, seeds=1, set=SMALL, out=tmp_path / "run", progress=False)
    again = dynsys.load(tmp_path / "run")
    assert type(again.model) is registry.lookup("model", name)
    assert found.settings.training.forcing == "free"
    assert np.isfinite(found.history[-1].loss)
    u = series.inputs[0][:20]
    assert_array_equal(again.simulate(20, inputs=u).trajectories[0], found.simulate(20, inputs=u).trajectories[0])


def test_an_irregular_series_is_fitted_by_the_diagonal_model():
    whole = circle(300)
    kept = np.random.default_rng(0).random(300) > 0.3
    series = TimeSeries(whole.trajectories[0][kept], times=0.1 * np.flatnonzero(kept), names=whole.names)
    found = dynsys.fit(series, model="koopman-diagonal", steps=20, seeds=1, set=SMALL, progress=False)
    assert isinstance(found.model, DiagonalKoopman)
    assert found.simulate(5).trajectories[0].shape == (5, 2)


class Stopped(BaseException):
    """Nothing catches it."""


@pytest.mark.parametrize("name", ["koopman-diagonal", pytest.param("koopman-autoencoder", marks=pytest.mark.slow)])
def test_a_fit_that_was_stopped_goes_on_to_the_bit(name, tmp_path):
    def fit(folder, tell=False):
        settings = [*SMALL, "training.checkpoints=100"]
        return dynsys.fit(circle(100), model=name, steps=30, seeds=1, set=settings, out=tmp_path / folder, progress=tell)

    def stop(told):
        if told.step >= 20:
            raise Stopped

    fit("whole")
    with pytest.raises(Stopped):
        fit("stopped", stop)
    fit("stopped")
    with h5py.File(tmp_path / "whole/model.h5") as a, h5py.File(tmp_path / "stopped/model.h5") as b:
        names = []
        a["model"].visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        assert len(names) > 5
        for name in names:
            assert_array_equal(a["model"][name][()], b["model"][name][()])


# encoding anew


class Truncated(AbstractLifted):
    """The logistic map x' = r x (1 - x) on (x, x^2): x is advanced exactly, its square is left as it was."""

    rate: float = 3.7
    n_obs: int = 1
    n_inputs: int = 0
    delays: int = 1
    reencode: int = eqx.field(static=True, default=0)

    @property
    def n_latent(self):
        return 2

    def encode(self, w):
        return jnp.concatenate([w, w**2])

    def decode(self, y):
        return y[:1]

    def advance(self, y, u=None):
        return jnp.stack([self.rate * (y[0] - y[1]), y[1]])


def logistic(points, start=0.3, rate=3.7):
    x = [start]
    for _ in range(points - 1):
        x.append(rate * x[-1] * (1 - x[-1]))
    return np.array(x)[:, None]


def test_the_best_period_is_the_one_that_errs_least():
    series = [logistic(60)]
    chosen = choose_reencoding(Truncated(), series, periods=(0, 2, 1, 5))
    assert chosen.period == 1
    errors = dict(chosen.errors)
    assert tuple(errors) == (0, 2, 1, 5)
    # encoded at every step it is the map itself; a chaotic run of 32 steps grows rounding by e^(0.35 * 32) = 1e5
    assert errors[1] < 1e-8
    assert min(errors[0], errors[2], errors[5]) > 0.1
    assert chosen.reencoded(Truncated()).reencode == 1
    # period 2 again, as a loop: the error is that of runs from the points where the module says that they begin
    x, total = series[0][:, 0], []
    for row in np.unique(np.linspace(5, 59 - 32, 4).astype(int)):
        y, made = np.array([x[row], x[row] ** 2]), []
        for t in range(32):
            y = np.array([3.7 * (y[0] - y[1]), y[1]])
            with np.errstate(all="ignore"):
                y = np.array([y[0], y[0] ** 2]) if (t + 1) % 2 == 0 else y
            made.append(y[0])
        with np.errstate(all="ignore"):
            off = np.abs(np.array(made) - x[row + 1 : row + 33]) / x.std()
        total.append(np.minimum(np.nan_to_num(off, nan=2.0, posinf=2.0), 2.0))
    assert_allclose(errors[2], np.mean(total), rtol=1e-6)


def test_equal_periods_keep_the_first_and_inputs_are_aligned():
    model, M, D = perfect(1)
    u = np.random.default_rng(0).normal(size=(80, 1))
    x = orbit(M, 80, inputs=u, drive=D)
    chosen = choose_reencoding(model, [x, x[:5]], [u, u[:5]], periods=(0, 1))  # five points are too few, and left out
    assert max(error for _, error in chosen.errors) < 1e-10
    shifted = choose_reencoding(model, [x], [np.roll(u, 1, axis=0)], periods=(0,))
    assert shifted.errors[0][1] > 0.1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"periods": ()}, "no period given"),
        ({"periods": (-1,)}, "reencode must be a whole number of at least 0"),
        ({"share": 1.0}, "share must be between 0 and 1"),
        ({"series": [np.ones((50, 2))]}, r"n_obs=1 components, the series have 2 columns"),
        ({"inputs": [np.ones((60, 1))]}, "takes n_inputs=0, inputs were given"),
    ],
)
def test_what_no_period_can_be_chosen_from_is_refused(change, words):
    with pytest.raises(InvalidValue, match=words):
        choose_reencoding(**({"model": Truncated(), "series": [logistic(60)]} | change))


@pytest.mark.parametrize("cls", [KoopmanAutoencoder, DiagonalKoopman])
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"depth": -1}, InvalidValue, "depth must be a whole number of at least 0"),
        ({"hidden": 0}, InvalidValue, "hidden must be a whole number of at least 1"),
        ({"decoder": "mpl"}, UnknownName, "Did you mean 'mlp'"),
        ({"activation": "tan"}, UnknownName, "Did you mean 'tanh'"),
        ({"consistency": -1.0}, InvalidValue, "weights of the loss can't be negative"),
        ({"discount": 0.0}, InvalidValue, r"discount must be in \(0, 1\]"),
        ({"reencode": -2}, InvalidValue, "reencode must be a whole number"),
    ],
)
def test_impossible_options_are_refused(cls, options, error, words):
    with pytest.raises(error, match=words):
        cls.init(2, key=jr.key(0), **options)


def test_impossible_latent_sizes_are_refused():
    with pytest.raises(InvalidValue, match=r"latent must exceed n_obs=2, got latent=2"):
        KoopmanAutoencoder.init(2, latent=2, skip=True, key=jr.key(0))
    with pytest.raises(InvalidValue, match="modes must be a whole number"):
        DiagonalKoopman.init(2, modes=0, key=jr.key(0))

"""Koopman VAE: its bound and its linear map against formulas, what is missing is not read, and known scores of generated series."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import norm

from dynsys.dynamics import rollout, warm_up
from dynsys.errors import InvalidValue
from dynsys.metrics.generated import discriminative_score, predictive_score
from dynsys.models.koopman.vae import KoopmanVAE, divergence, windows_of
from dynsys.models.koopman.vae_training import circle_penalty, fit_koopman_vae, likelihood, linear_map, own_start, prediction_loss

from .model_cases import astype, waves


@functools.cache
def small(delays=1):
    """A model of two columns with every parameter away from zero."""
    model, rng = KoopmanVAE.init(2, latent=3, hidden=6, delays=delays, key=jr.key(0)), np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf) + 0.2 * rng.uniform(size=leaf.shape)), model)


def turns(count, length, seed, noise=0.05):
    """Sines of one frequency, random phase and amplitude, and their cosines: linear with eigenvalues exp(+-0.5 i)."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, (count, 1)) + 0.5 * np.arange(length)[None, :]
    size = rng.uniform(0.7, 1.3, (count, 1))
    x = np.stack([size * np.cos(angle), 3 + 2 * size * np.sin(angle)], axis=-1)
    return x + noise * rng.normal(size=x.shape)


# the bound and the linear map


def test_the_divergence_is_that_of_two_normal_distributions():
    a, b, mu, s = jnp.array([0.3, -1.2]), jnp.array([0.5, 0.9]), np.array([2.0, -1.0]), np.array([0.1, 3.0])
    x = np.linspace(-60, 60, 2_000_001)
    total = 0.0
    for i in range(2):
        at, size = mu[i] + s[i] * float(a[i]), s[i] * float(b[i])
        total += np.sum(norm.pdf(x, at, size) * (norm.logpdf(x, at, size) - norm.logpdf(x, mu[i], s[i]))) * (x[1] - x[0])
    assert_allclose(divergence(a, b), total, rtol=1e-6)
    assert_allclose(divergence(jnp.zeros(2), jnp.ones(2)), 0.0, atol=1e-15)


def test_the_likelihood_is_that_of_what_was_seen():
    model = small()
    zs, xs = jr.normal(jr.key(2), (5, 3)), np.array(jr.normal(jr.key(3), (5, 2)))
    xs[1, 0] = xs[3, 1] = np.nan
    made, noise = np.asarray(jax.vmap(model.decode)(zs)), np.asarray(model.noise)
    data = np.asarray(model.mean) + np.asarray(model.scale) * xs
    each = norm.logpdf(data, made, noise) + np.log(np.asarray(model.scale))  # densities of the standardised columns
    assert_allclose(likelihood(model, jnp.asarray(xs), zs), np.nansum(each), rtol=1e-12)


def test_a_is_the_least_squares_solution():
    rng = np.random.default_rng(0)
    zs = rng.normal(size=(7, 9, 3))
    before, after = zs[:, :-1].reshape(-1, 3), zs[:, 1:].reshape(-1, 3)
    wanted = np.linalg.lstsq(before, after, rcond=None)[0].T
    assert_allclose(linear_map(jnp.asarray(zs)), wanted, atol=1e-4)  # the ridge is 1e-5 of the mean square
    A = rng.normal(size=(3, 3)) / 2
    path = [rng.normal(size=(20, 3))]
    for _ in range(5):
        path.append(path[-1] @ A.T)
    zs = jnp.asarray(np.stack(path, axis=1))
    assert_allclose(linear_map(zs), A, atol=1e-3)
    assert_allclose(prediction_loss(jnp.asarray(A), zs), 0.0, atol=1e-20)
    off = np.mean((np.asarray(zs)[:, 1:] - np.asarray(zs)[:, :-1]) ** 2) / np.mean(np.asarray(zs) ** 2)
    assert_allclose(prediction_loss(jnp.eye(3), zs), off, rtol=1e-12)


def test_the_penalty_draws_eigenvalues_onto_and_into_the_circle():
    basis = np.random.default_rng(0).normal(size=(4, 4))
    turn = 1.1 * np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    block = np.zeros((4, 4))
    block[:2, :2], block[2, 2], block[3, 3] = turn, 0.8, -1.05
    A = jnp.asarray(basis @ block @ np.linalg.inv(basis))
    assert_allclose(circle_penalty(A, 0), 2 * 0.1**2 + 0.05**2, rtol=1e-9)
    assert_allclose(circle_penalty(A, 4), 2 * 0.1**2 + 0.05**2 + 0.2**2, rtol=1e-9)
    assert_allclose(circle_penalty(0.5 * A, 0), 0.0, atol=1e-15)
    slope = jax.grad(circle_penalty)(A, 4)
    for i, j in ((0, 0), (1, 3), (3, 2)):
        h = jnp.zeros((4, 4)).at[i, j].set(1e-6)
        assert_allclose(slope[i, j], (circle_penalty(A + h, 4) - circle_penalty(A - h, 4)) / 2e-6, rtol=1e-5, atol=1e-8)


def test_sequences_begin_as_the_data_do():
    model, xs = small(), jnp.asarray(2 + np.random.default_rng(0).normal(size=(4000, 2, 2)))
    fitted = own_start(model, xs, jnp.ones((4000, 2)), jr.key(1))
    es = jax.vmap(model.states)(xs, jnp.ones((4000, 2)))[:, 0]
    a, b = (np.asarray(part) for part in jax.vmap(lambda e: model.correction(jnp.zeros(6), e))(es))
    # 4,000 draws of size 1: a standard error of 0.016 of the mean, 0.022 of a variance
    assert_allclose(fitted.start_mean, a.mean(axis=0), atol=0.08)
    assert_allclose(fitted.start_root @ fitted.start_root.T, np.cov(a.T) + np.diag(np.mean(b**2, axis=0)), atol=0.11)
    normals = jnp.zeros((2, 3))
    assert_allclose(fitted.draw(normals, jnp.ones(2))[0], model.begin(fitted.start_mean), atol=1e-12)


# what is read


def test_what_is_missing_is_not_read_and_gaps_are():
    model = small()
    xs, times = np.random.default_rng(0).normal(size=(1, 6, 2)), np.arange(6.0)
    xs[0, 2] = np.nan
    kept = np.arange(6) != 2
    gaps = [np.diff(t, prepend=t[0] - 1) for t in (times, times[kept])]
    whole, without = (model.states(jnp.asarray(x), jnp.asarray(g)) for x, g in ((xs[0], gaps[0]), (xs[0, kept], gaps[1])))
    assert_allclose(whole[kept], without, atol=1e-14)  # the point does not count, the time does
    assert not np.allclose(model.states(jnp.asarray(xs[0, kept]), jnp.ones(5)), without, atol=1e-6)
    xs[0, 4, 1] = np.nan
    assert np.isfinite(model.reconstruct(xs)).all()
    assert not np.allclose(model.states(jnp.asarray(xs[0]), jnp.asarray(gaps[0]))[4], whole[4], atol=1e-6)


def test_a_posterior_that_corrects_nothing_is_the_prior():
    model = eqx.tree_at(lambda m: (m.start_mean, m.start_root), small(), (jnp.zeros(3), jnp.eye(3)))
    silent = eqx.tree_at(lambda m: (m.Q, m.U, m.q), model, (0 * model.Q, 0 * model.U, jnp.array([0.0] * 3 + [40.0] * 3)))
    normals, gaps = jr.normal(jr.key(4), (7, 3)), jnp.linspace(0.5, 2.0, 7)
    zs, kl = silent.posterior(jr.normal(jr.key(5), (7, 2)), normals, gaps)
    assert_allclose(zs, model.draw(normals, gaps), atol=1e-12)
    assert_allclose(kl, 0.0, atol=1e-12)
    assert np.all(model.posterior(jr.normal(jr.key(5), (7, 2)), normals, gaps)[1] > 0)
    assert not np.allclose(model.draw(normals, jnp.ones(7)), model.draw(normals, gaps), atol=1e-6)


def test_encoding_a_window_is_the_posterior_of_a_series_of_its_points():
    model = small(delays=3)
    x = jr.normal(jr.key(6), (3, 2))
    standard = (x - model.mean[None, :]) / model.scale[None, :]
    zs, _ = model.posterior(standard, jnp.zeros((3, 3)), jnp.ones(3))
    assert_allclose(model.encode(x[::-1].ravel()), zs[-1], atol=1e-13)
    assert_allclose(model.reconstruct(x[None])[0, -1], model.decode(zs[-1]), atol=1e-13)
    z = warm_up(model, jnp.concatenate([x[:1], x]))
    assert_allclose(z[:3], zs[-1], atol=1e-13)
    assert_allclose(rollout(model, z, 4)[-1, :3], jnp.linalg.matrix_power(model.matrix, 4) @ zs[-1], atol=1e-12)


def test_generated_series_have_their_shape_and_seed():
    model = small()
    made = model.generate(4, 6, key=jr.key(0))
    assert made.shape == (4, 6, 2)
    assert np.array_equal(made, model.generate(4, 6, key=jr.key(0)))
    assert not np.allclose(made, model.generate(4, 6, key=jr.key(1)))
    assert_allclose(made, model.generate(4, 6, times=np.arange(6) + 7.0, key=jr.key(0)), atol=1e-12)
    assert not np.allclose(made, model.generate(4, 6, times=2.0 * np.arange(6), key=jr.key(0)))
    clean = model.generate(2000, 6, noise=False, key=jr.key(0))
    off = model.generate(2000, 6, key=jr.key(0)) - clean
    assert_allclose(off.std(axis=(0, 1)), model.noise, rtol=0.05)  # 12,000 numbers: 0.7 % a standard error


# training


@pytest.fixture(scope="module")
def trained():
    xs = turns(400, 12, seed=0)
    mean, scale = xs.mean(axis=(0, 1)), xs.std(axis=(0, 1))
    model = astype(KoopmanVAE.init(2, latent=4, hidden=16, mean=mean, scale=scale, key=jr.key(0)), jnp.float32)
    return fit_koopman_vae(model, xs, steps=1000, batch=32, learning_rate=1e-2, gamma=1.0, unit=2, key=jr.key(1))


@pytest.mark.slow  # 1,000 updates
def test_a_trained_model_makes_series_like_those_it_saw(trained):
    assert trained.status.ok
    model, true = trained.model, turns(400, 12, seed=1)
    assert trained.elbos[-50:].mean() > trained.elbos[:50].mean() + 10
    made = np.asarray(model.generate(400, 12, key=jr.key(2)))
    assert_allclose(made.mean(axis=(0, 1)), true.mean(axis=(0, 1)), atol=0.25)
    assert_allclose(made.std(axis=(0, 1)), true.std(axis=(0, 1)), rtol=0.15)
    # 320 series to train on, 160 to test on: 0.04 is one standard error; independent points would be told apart at once
    assert discriminative_score(true, made, steps=300, key=jr.key(3)) < 0.3
    shuffled = np.random.default_rng(0).permuted(true, axis=1)
    assert discriminative_score(true, shuffled, steps=300, key=jr.key(3)) > 0.4


@pytest.mark.slow
def test_the_linear_map_of_a_trained_model_turns_as_the_data_do(trained):
    values = np.linalg.eigvals(np.asarray(trained.model.A, float))
    assert np.abs(values).max() < 1.02  # the penalty
    assert np.abs(values[:, None] - np.exp([[0.5j, -0.5j]])).min(axis=0).max() < 0.1
    assert trained.unexplained[-50:].mean() < 0.1
    x = turns(50, 12, seed=3)
    off = np.asarray(trained.model.reconstruct(x)) - x
    assert off.std() < 0.35 * x.std(axis=(0, 1)).mean()


def test_training_with_missing_values_is_repeated_by_its_seed():
    xs = turns(40, 8, seed=0)
    xs[np.random.default_rng(0).uniform(size=xs.shape) < 0.3] = np.nan
    model = eqx.tree_at(lambda m: (m.mean, m.scale), small(), (jnp.array([0.0, 3.0]), jnp.array([1.0, 2.0])))
    options = {"steps": 30, "batch": 8}
    a, b, c = (fit_koopman_vae(model, xs, **options, key=jr.key(k)) for k in (1, 1, 2))
    assert a.status.ok
    assert np.isfinite(a.elbos).all()
    assert all(np.array_equal(p, q) for p, q in zip(jax.tree.leaves(a.model), jax.tree.leaves(b.model), strict=True))
    assert not np.allclose(a.model.R, c.model.R)
    assert np.array_equal(a.model.mean, model.mean)


def test_a_training_that_fails_says_so():
    model = small()
    broken = eqx.tree_at(lambda m: m.R, model, jnp.full_like(model.R, jnp.nan))
    found = fit_koopman_vae(broken, turns(40, 8, seed=0), steps=30, batch=8, key=jr.key(0))
    assert not found.status.ok


@pytest.mark.slow
def test_a_stable_model_does_not_grow():
    model = KoopmanVAE.from_series([waves(200)], length=10, latent=6, hidden=8, steps=100, batch=8, stable=True)
    assert np.abs(np.linalg.eigvals(model.A)).max() < 1 + 1e-9  # 1.02 without


def test_windows_are_all_stretches_of_long_trajectories():
    runs = [np.arange(12.0).reshape(6, 2), np.arange(4.0).reshape(2, 2), 100 + np.arange(8.0).reshape(4, 2)]
    cut = windows_of(runs, 3)
    assert cut.shape == (4 + 2, 3, 2)
    assert_allclose(cut[1], runs[0][1:4], atol=0)
    assert_allclose(cut[-1], runs[2][1:4], atol=0)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda: fit_koopman_vae(small(), np.zeros((3, 6, 1)), key=jr.key(0)), r"\(B, T, N\) with T >= 2 and N=2"),
        (lambda: fit_koopman_vae(small(), np.zeros((3, 6, 2)), unit=4, key=jr.key(0)), "unit=4 eigenvalues can't lie on the circle"),
        (lambda: fit_koopman_vae(small(), np.zeros((3, 6, 2)), alpha=-1.0, key=jr.key(0)), "alpha must be a finite number"),
        (lambda: fit_koopman_vae(small(), np.zeros((3, 6, 2)), np.zeros(6), key=jr.key(0)), "times must increase"),
        (lambda: small().generate(2, 6, times=np.arange(5), key=jr.key(0)), r"times must have shape \(T,\) or \(B, T\)"),
        (lambda: small().generate(0, 6, key=jr.key(0)), "count must be a whole number of at least 1"),
        (lambda: small().reconstruct(np.zeros((3, 6, 3))), r"\(B, T, 2\)"),
        (lambda: KoopmanVAE.init(2, latent=0, key=jr.key(0)), "latent must be"),
        (lambda: KoopmanVAE.from_series([waves(60, 2)], length=1), "length must be a whole number of at least 2"),
        (lambda: discriminative_score(np.zeros((9, 1, 2)), np.zeros((9, 1, 2)), key=jr.key(0)), "one T >= 2 and N"),
        (lambda: discriminative_score(np.ones((2, 6, 2)), np.ones((9, 6, 2)), key=jr.key(0)), "leaves none to train or none to test on"),
        (lambda: predictive_score(np.full((9, 6, 2), np.nan), np.ones((9, 6, 2)), key=jr.key(0)), "true holds NaN or inf"),
        (lambda: predictive_score(np.ones((9, 6, 1)), np.ones((9, 6, 1)), column=-1, key=jr.key(0)), "use column=None"),
    ],
)
def test_bad_input_is_explained(attempt, words):
    with pytest.raises(InvalidValue, match=words):
        attempt()


# scores


def autoregressive(count, length, seed, a=0.8, noise=1.0):
    """x[t+1] = a x[t] + noise, from its stationary distribution, (B, T, 1)."""
    rng = np.random.default_rng(seed)
    x = [noise / np.sqrt(1 - a * a) * rng.normal(size=(count, 1))]
    for _ in range(length - 1):
        x.append(a * x[-1] + noise * rng.normal(size=(count, 1)))
    return np.stack(x, axis=1)


def test_two_halves_of_one_set_are_not_told_apart_and_other_sets_are():
    x = autoregressive(1200, 12, seed=0)
    options = {"steps": 300, "key": jr.key(0)}
    # 240 held-out series: a standard error of 0.03
    assert discriminative_score(x[:600], x[600:], **options) < 0.1
    assert discriminative_score(x[:600], autoregressive(600, 12, seed=1, a=-0.8), **options) > 0.45
    assert discriminative_score(x[:600], x[600:] + 20, **options) == 0.5


def test_the_predictive_score_of_an_autoregressive_process_is_its_innovations_size():
    true, options = autoregressive(600, 12, seed=0), {"steps": 400, "key": jr.key(0)}
    floor = np.sqrt(2 / np.pi)  # the mean of |N(0, 1)|, which the best forecast leaves; 6,600 forecasts give it to 1 %
    same = predictive_score(true, autoregressive(600, 12, seed=1), **options)
    assert_allclose(same, floor, rtol=0.06)
    # taught by white noise, the forecast is 0 and leaves the mean of |N(0, 1 / (1 - 0.64))|
    white = predictive_score(true, autoregressive(600, 12, seed=1, a=0.0, noise=5 / 3), **options)
    assert_allclose(white, floor * 5 / 3, rtol=0.06)
    both = np.concatenate([true[:, :-1], 10 * true[:, 1:]], axis=2)  # the second column is ten times the first, one step ahead
    assert_allclose(predictive_score(both, both, column=0, **options), 0.0, atol=0.35)

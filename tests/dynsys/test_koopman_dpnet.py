"""DPNet: the scores against their formulas, and processes whose transfer operator is known exactly or computed independently."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.linalg import expm, sqrtm
from scipy.special import comb

from dynsys.dynamics import rollout, warm_up
from dynsys.errors import InvalidValue, UnknownName
from dynsys.models.koopman.data import Data
from dynsys.models.koopman.dpnet import DPNet, _pairs
from dynsys.models.koopman.dpnet_training import covariances, distortion, objective, projection_score, relaxed_score, train
from dynsys.models.koopman.network_dictionary import NetworkDictionary
from dynsys.models.regressed import free_run

from .koopman_cases import near
from .model_cases import waves

QUICK: dict[str, Any] = {"features": 12, "hidden": 32, "batch": 512}


def leading(model, count):
    values = np.linalg.eigvals(model.A)
    return values[np.argsort(-np.abs(values))][:count]


def features(count=200, columns=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, columns)) @ rng.normal(size=(columns, columns))
    return x, 0.5 * x + rng.normal(size=x.shape) + 3.0


def test_scores_are_their_formulas():
    x, y = features()
    whole = np.cov(x.T, y.T, bias=True)
    C_X, C_Y, C_XY = whole[:3, :3], whole[3:, 3:], whole[:3, 3:]
    found = covariances(jnp.asarray(x), jnp.asarray(y))
    for a, b in zip(found, (C_X, C_Y, C_XY), strict=True):
        assert_allclose(a, b, atol=1e-12)
    norms = np.linalg.norm(C_X, 2) * np.linalg.norm(C_Y, 2)
    assert_allclose(relaxed_score(*found), np.linalg.norm(C_XY) ** 2 / norms, rtol=1e-12)
    middle = np.linalg.inv(sqrtm(C_X)) @ C_XY @ np.linalg.inv(sqrtm(C_Y))
    assert_allclose(projection_score(*found), np.linalg.norm(middle) ** 2, rtol=1e-5)  # the floor of 1e-6 beside variances near 1
    assert relaxed_score(*found) <= projection_score(*found)
    values = np.linalg.eigvalsh(C_X)
    assert_allclose(distortion(found[0]), np.sum(values**2 - values - np.log(values)), rtol=1e-5)
    assert_allclose(distortion(jnp.eye(3)), 0.0, atol=1e-5)


def test_the_objective_has_a_gradient_where_features_depend_on_each_other_and_where_they_are_white():
    rng = np.random.default_rng(0)
    v = rng.normal(size=(300, 2))
    psi = jax.tree.map(jnp.asarray, NetworkDictionary.learn(v, features=5, hidden=3, depth=1, rng=rng))  # five functions of three units
    for score in ("relaxed", "projection"):
        slope = jax.grad(lambda psi, score=score: objective(psi, jnp.asarray(v[:-1]), jnp.asarray(v[1:]), 1.0, score))(psi)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))
    white = jax.grad(lambda C: relaxed_score(C, C, 0.5 * C) - distortion(C))(jnp.eye(3))
    assert np.isfinite(white).all()


def test_a_fresh_network_has_white_features():
    rng = np.random.default_rng(0)
    v = rng.normal(size=(500, 2))
    psi = np.asarray(NetworkDictionary.learn(v, features=6, hidden=32, rng=rng)(v))
    assert_allclose(psi.mean(axis=0), 0.0, atol=1e-10)
    assert_allclose(np.cov(psi.T, bias=True), np.eye(6), atol=1e-8)


def test_pairs_never_join_two_trajectories():
    runs = [np.arange(5.0)[:, None], 100 + np.arange(2500.0)[:, None]]
    data = Data.of("test", runs, None, 2)
    v, before = _pairs(data)
    now, after = (data.mean + data.scale * v[rows, :1] for rows in (before, before + 1))
    assert_allclose(after - now, 1.0, atol=1e-9)
    assert len(before) == 3 + 2498


def test_training_raises_the_score_and_is_repeated_by_its_seed():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 6))  # five columns of white noise, which a fresh network sees as much as the one that has a memory
    for t in range(299):
        x[t + 1, 0] = 0.95 * x[t, 0] + 0.3 * x[t + 1, 0]
    psi = NetworkDictionary.learn(x, features=2, hidden=16, depth=1, rng=rng)
    options: dict[str, Any] = {"score": "relaxed", "gamma": 1.0, "batch": 299, "learning_rate": 3e-3}
    trained, values = train(psi, x, np.arange(299), steps=200, seed=1, **options)
    again, _ = train(psi, x, np.arange(299), steps=200, seed=1, **options)
    before, after = jnp.asarray(x[:-1]), jnp.asarray(x[1:])
    start, end = (float(objective(net, before, after, 1.0, "relaxed")) for net in (psi, trained))
    assert_allclose(values[0], start, rtol=1e-3)  # float32
    assert end > start + 0.1
    assert end < 2.0  # two squared singular values of at most 1, minus a distortion that is not negative
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(trained), jax.tree.leaves(again), strict=True))


def test_an_ornstein_uhlenbeck_process():
    """Eigenvalues exp(-k theta t). The path of 100,000 points has some 10,000 independent ones: 1 % of error in the third eigenvalue."""
    rng, a = np.random.default_rng(0), np.exp(-0.1)
    x, push = np.zeros(100_000), np.sqrt(1 - a * a) * rng.normal(size=100_000)
    for t in range(len(x) - 1):
        x[t + 1] = a * x[t] + push[t]
    model = DPNet.from_series([x[:, None]], **QUICK, steps=1500, key=0)
    assert_allclose(leading(model, 4), [1.0, a, a**2, a**3], rtol=0.02)
    # the expectation of the next point is a x, the read-out included
    for start in (-1.0, 0.5, 1.5):
        assert_allclose(free_run(model, np.array([[start]]), 3)[:, 0], start * a ** np.arange(1, 4), atol=0.05)


def double_well(lag, beta, seed=0):
    """Paths of dx = -V'(x) dt + sqrt(2/beta) dW, V = (x^2 - 1)^2, every `lag`; and the operator's leading eigenvalues from a fine grid.

    The grid's rates between neighbours are (1/(beta h^2)) exp(-beta (V[j] - V[i]) / 2), which have the density exp(-beta V) at rest.
    """
    rng, dt = np.random.default_rng(seed), 2e-3
    x, path = np.sign(rng.normal(size=200)), []
    for step in range(250 * round(lag / dt)):
        x = x - 4 * x * (x * x - 1) * dt + np.sqrt(2 * dt / beta) * rng.normal(size=200)
        if step % round(lag / dt) == 0:
            path.append(x)
    grid = np.linspace(-2.5, 2.5, 401)
    V, h = (grid**2 - 1) ** 2, grid[1] - grid[0]
    rate = np.zeros((401, 401))
    for i, j in ((np.arange(400), np.arange(1, 401)), (np.arange(1, 401), np.arange(400))):
        rate[i, j] = np.exp(-beta * (V[j] - V[i]) / 2) / (beta * h * h)
    rate -= np.diag(rate.sum(axis=1))
    return [run[:, None] for run in np.stack(path, axis=1)], np.sort(np.linalg.eigvals(expm(lag * rate)).real)[::-1]


def test_the_slow_eigenvalue_of_a_double_well():
    runs, values = double_well(lag=0.5, beta=2.5)
    model = DPNet.from_series(runs, **QUICK, steps=800, key=0)
    found = leading(model, 3).real
    # some 2,500 crossings in 50,000 points: 2 % of the rate, and 1 - lambda is about 0.1; the third mode has the error of OU above
    assert_allclose(1 - found[1], 1 - values[1], rtol=0.1)
    assert abs(found[2] - values[2]) < 0.03
    # the eigenfunction tells the wells apart
    kinds, vectors = np.linalg.eig(model.A.T)
    v = np.real(vectors[:, np.argmin(np.abs(kinds - found[1]))])
    sides = np.array([model.encode(np.array([s])) @ v for s in (-1.1, -0.9, 0.9, 1.1)])
    assert np.array_equal(np.sign(sides * sides[-1]), [-1, -1, 1, 1])


def test_the_noisy_logistic_map():
    """x' = 4 x (1 - x) + noise of density c cos^20(pi u), modulo 1: an operator of rank 21; a quadrature gives its eigenvalues."""
    order, rng = 20, np.random.default_rng(0)
    m = np.arange(-order // 2, order // 2 + 1)
    share = np.asarray(comb(order, m + order // 2)) / comb(order, order // 2)  # Fourier coefficients of the density, that of 0 being 1
    x = (np.arange(200_000) + 0.5) / 200_000  # midpoints
    F = 4 * x * (1 - x)
    plain, turned = (np.exp(2j * np.pi * m[:, None] * at[None, :]) for at in (x, F))
    # e_n after one step has the expectation share[n] e_n(F(x)); its coefficients on e_m(F) need <e_m, e_n(F)>
    K = share[None, :] * (plain.conj() @ turned.T) / len(x)
    exact = np.asarray(np.linalg.eigvals(K))
    exact = exact[np.argsort(-np.abs(exact))]
    assert_allclose(exact[:3][np.argsort(exact[:3].imag)], [-0.193 - 0.191j, 1.0, -0.193 + 0.191j], atol=2e-3)  # as published
    u = np.linspace(-0.5, 0.5, 4001)
    mass = np.cumsum(np.cos(np.pi * u) ** order)
    path = [0.3]
    for push in np.interp(rng.random(30_000), mass / mass[-1], u):
        path.append((4 * path[-1] * (1 - path[-1]) + push) % 1.0)
    model = DPNet.from_series([np.array(path)[:, None]], **QUICK, steps=1000, learning_rate=3e-3, key=0)
    # an error of 0.04 of 0.27: the exact eigenfunctions turn twenty times over the interval, 12 features of a small network do not
    assert near(leading(model, 3), exact[:3]) < 0.06


def test_runs_stay_in_latent_space_and_delays_are_led():
    model = jax.tree.map(jnp.asarray, DPNet.from_series([waves(200, 2)], features=6, hidden=8, depth=1, steps=20, delays=3))
    x = jnp.asarray(waves(200, 2)[50:60])
    z = warm_up(model, x)
    assert_allclose(z[: model.n_latent], model.encode(x[:-4:-1].ravel()), atol=1e-12)
    after = rollout(model, z, 5)[:, : model.n_latent]
    assert_allclose(after[-1], jnp.linalg.matrix_power(model.matrix, 5) @ z[: model.n_latent], atol=1e-9)
    assert_allclose(after[:, 0], 1.0, atol=1e-12)  # the constant stays
    assert model.memory == 2
    assert model.n_latent == 7


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"score": "relax"}, UnknownName, "Did you mean 'relaxed'"),
        ({"activation": "relu"}, UnknownName, "relu"),
        ({"features": 0}, InvalidValue, "features must be a whole number of at least 1, got features=0"),
        ({"batch": 1}, InvalidValue, "batch must be a whole number of at least 2"),
        ({"gamma": -1.0}, InvalidValue, "gamma must be a finite number of at least 0"),
        ({"learning_rate": 1e30, "steps": 20}, InvalidValue, "did not stay finite|not finite"),
        ({"delays": 300}, InvalidValue, "points for delays=300, the longest has 200"),
        ({"reencode": -1}, InvalidValue, "reencode must be a whole number"),
    ],
)
def test_bad_settings_are_explained(options, error, words):
    with pytest.raises(error, match=words):
        DPNet.from_series([waves(200, 2)], **options)

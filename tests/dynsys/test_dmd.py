"""DMD and its relatives: exact on linear systems, unbiased under noise where they claim it, exact with inputs and delays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from dynsys.dynamics import rollout, warm_up
from dynsys.errors import InvalidValue
from dynsys.models.koopman.dmd import DMD, METHODS, HankelDMD
from dynsys.models.koopman.havok import HAVOK
from dynsys.models.regressed import free_run

from .koopman_cases import linear_runs, linear_system, near


def in_jax(model):
    return jax.tree.map(jnp.asarray, model)


@pytest.mark.parametrize("method", METHODS)
def test_a_linear_system_is_recovered(method):
    runs, _, values = linear_runs()
    model = DMD.from_series(runs, method=method, centre=False)
    assert model.n_latent == 4  # of equal errors the largest rank
    assert near(np.linalg.eigvals(model.A), values) < 1e-10
    forecast = free_run(model, runs[0][:1], 40)
    assert_allclose(forecast, runs[0][1:], atol=1e-10)


def test_noise_damps_least_squares_and_not_the_others():
    """Means over 20 data sets: least squares is off by its known bias, the other two by their scatter / sqrt(20) only."""
    off, values = {}, linear_system()[1]
    for method in METHODS:
        found = []
        for seed in range(20):
            runs, _, _ = linear_runs(count=20, steps=60, noise=0.02, seed=seed)
            eigenvalues = np.linalg.eigvals(DMD.from_series(runs, method=method, centre=False, rank=4).A)
            found.append([eigenvalues[np.argmin(np.abs(eigenvalues - value))] for value in values])
        off[method] = float(np.abs(np.mean(found, axis=0) - values).max())
    assert off["exact"] > 3e-3
    assert off["total"] < off["exact"] / 5
    assert off["forward-backward"] < off["exact"] / 3


def test_with_control_both_matrices_are_recovered():
    A, values = linear_system()
    rng = np.random.default_rng(1)
    B = rng.normal(size=(4, 2))
    inputs, runs = rng.normal(size=(3, 50, 2)), []
    for us in inputs:
        path = [rng.normal(size=4)]
        for u in us[:-1]:
            path.append(A @ path[-1] + B @ u)
        runs.append(np.array(path))
    model = DMD.from_series(runs, inputs=list(inputs), centre=False)
    assert near(np.linalg.eigvals(model.A), values) < 1e-10
    made = rollout(in_jax(model), in_jax(model).lift(jnp.asarray(runs[0][0])), 49, jnp.asarray(inputs[0][:-1]))
    assert_allclose(jax.vmap(in_jax(model).observe)(made), runs[0][1:], atol=1e-8)
    with pytest.raises(InvalidValue, match="method='exact' only"):
        DMD.from_series(runs, inputs=list(inputs), method="total")
    with pytest.raises(InvalidValue, match="one array"):
        DMD.from_series(runs, inputs=list(inputs[:2]))


def test_delays_make_one_observable_enough():
    runs, _, values = linear_runs(steps=60)
    seen = [x[:, :1] for x in runs]
    model = HankelDMD.from_series(seen, delays=4, centre=False)
    assert near(np.linalg.eigvals(model.A), values) < 1e-8  # the windows' condition number is about 1e6
    z = warm_up(in_jax(model), jnp.asarray(seen[0][:4]))
    made = jax.vmap(in_jax(model).observe)(rollout(in_jax(model), z, 30))
    assert_allclose(made[:, 0], seen[0][4:34, 0], atol=1e-8)
    chosen = HankelDMD.from_series(seen, centre=False)
    assert chosen.delays >= 4
    assert near(np.linalg.eigvals(chosen.A), values) < 1e-7


@pytest.mark.parametrize("method", METHODS)
def test_an_affine_system_is_recovered_with_its_constant(method):
    runs, _, values = linear_runs()
    shift = np.array([3.0, -1.0, 0.5, 10.0])
    moved = [x + shift[None, :] for x in runs]  # x' = A x + (I - A) shift
    model = DMD.from_series(moved, method=method)
    assert near(np.linalg.eigvals(model.A), [*values, 1.0]) < 1e-9
    assert_allclose(free_run(model, moved[0][:1], 40), moved[0][1:], atol=1e-8)
    assert_allclose(model.decode(model.step(model.lift(shift))), shift, atol=1e-8)  # its fixed point


def test_rank_truncates_to_the_leading_directions():
    runs, _, _ = linear_runs()
    model = DMD.from_series(runs, rank=2, centre=False)
    whole = np.concatenate([x[:-1] for x in runs])
    leading = np.linalg.svd(whole, full_matrices=False)[2][:2]
    # the same plane: the projectors agree
    assert_allclose(model.Q @ model.Q.T, leading.T @ leading, atol=1e-10)
    pairs = np.concatenate([x[:-1] for x in runs]) @ leading.T, np.concatenate([x[1:] for x in runs]) @ leading.T
    direct = np.linalg.lstsq(*pairs, rcond=None)[0].T
    assert near(np.linalg.eigvals(model.A), np.linalg.eigvals(direct)) < 1e-10


def test_blocks_do_not_matter(monkeypatch):
    runs, _, _ = linear_runs(count=2, steps=300)
    whole = DMD.from_series(runs, rank=4, centre=False)
    monkeypatch.setattr("dynsys.models.koopman.dmd.BLOCK", 7)
    blocks = DMD.from_series(runs, rank=4, centre=False)
    signs = np.sign(np.sum(blocks.Q * whole.Q, axis=0))  # singular vectors are unique up to theirs
    assert_allclose(signs[:, None] * blocks.A * signs[None, :], whole.A, atol=1e-10)


def test_more_columns_than_points():
    """A travelling pattern of two waves on 500 points from 30 snapshots: rank 4, eigenvalues exp(+-i w)."""
    s, t = np.linspace(0, 1, 500)[None, :], np.arange(30)[:, None]
    x = np.sin(2 * np.pi * 3 * s - 0.2 * t) + 0.5 * np.cos(2 * np.pi * 7 * s + 0.5 * t)
    model = DMD.from_series([x], rank=4, centre=False)
    assert near(np.linalg.eigvals(model.A), np.exp(1j * np.array([0.2, -0.2, 0.5, -0.5]))) < 1e-10
    with pytest.raises(InvalidValue, match=r"rank=10, but the data have only 4 independent directions"):
        DMD.from_series([x], rank=10, centre=False)


def test_stable_moves_growing_modes_onto_the_circle():
    grown = [1.02 ** np.arange(40)[:, None] * np.ones((1, 2)) * np.array([[1.0, 2.0]])]
    free = DMD.from_series(grown, rank=1, centre=False)
    held = DMD.from_series(grown, rank=1, centre=False, stable=True)
    assert_allclose(np.linalg.eigvals(free.A), 1.02, atol=1e-10)
    assert_allclose(np.linalg.eigvals(held.A), 1.0, atol=1e-10)


def test_havok_rebuilds_a_series_from_its_forcing():
    """Two incommensurate waves: rank 4 coordinates are exact, so the driven run gives the series back to rounding."""
    t = np.arange(400)
    x = (np.sin(0.11 * t) + 0.7 * np.cos(0.29 * t))[:, None]
    model = HAVOK.from_series([x], delays=20, rank=4, centre=False)
    coordinates, forcing = model.coordinates(x), model.intermittent(x)
    assert_allclose(coordinates[:-1].T @ coordinates[:-1] / (len(coordinates) - 1), np.eye(4), atol=1e-8)
    z = jnp.concatenate([jnp.asarray(coordinates[0, :-1]), jnp.asarray(x[19::-1].ravel())])
    made = rollout(in_jax(model), z, 300, jnp.asarray(forcing[:300]))
    assert_allclose(made[:, :3], coordinates[1:301, :-1], atol=1e-6)
    with pytest.raises(InvalidValue, match="only 4 independent directions"):
        HAVOK.from_series([x], delays=20, rank=9, centre=False)


@pytest.mark.parametrize(
    ("series", "options", "words"),
    [
        ([np.ones((1, 2))], {}, "needs a trajectory of at least 2 points"),
        ([np.array([[0.0, 1.0]] * 5 + [[np.nan, 1.0]])], {}, r"trajectory 1, row 5, column 1 is nan"),
        ([np.zeros((5, 2)), np.zeros((5, 3))], {}, "of the same columns"),
        ([np.eye(5)], {"method": "magic"}, "method must be one of exact, total, forward-backward, got 'magic'"),
        ([np.eye(5)], {"rank": 0}, "rank must be a whole number of at least 1"),
        ([np.eye(5)], {"reencode": -1}, "reencode must be a whole number of at least 0"),
    ],
)
def test_what_can_not_be_fitted_is_refused_in_words(series, options, words):
    with pytest.raises(InvalidValue, match=words):
        DMD.from_series(series, **options)

"""Koopman models against computations written anew: what a second look at every formula found, and what it found right."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.linalg import solve_continuous_lyapunov

from dynsys.analysis.residual import koopman_spectrum
from dynsys.dynamics import rollout, warm_up
from dynsys.errors import InvalidValue
from dynsys.models.koopman.candidate import Candidate, within_circle
from dynsys.models.koopman.data import Data
from dynsys.models.koopman.diagonal import DiagonalKoopman
from dynsys.models.koopman.dictionary import Custom, Monomials
from dynsys.models.koopman.dmd import DMD, HankelDMD, Rows, _run
from dynsys.models.koopman.edmd import EDMD
from dynsys.models.koopman.generator import GeneratorEDMD
from dynsys.models.koopman.kernel_edmd import KernelEDMD
from dynsys.models.regressed import Holdout

from .koopman_cases import near, runs_of


def test_the_ridge_of_dmd_damps_weak_directions_only():
    """Ridge regression written out in the data's own coordinates; the penalty ridge s_1^2 is the same in any rotated basis."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)) * np.array([1.0, 1e-2, 1e-4])
    model = DMD.from_series([x], rank=3, centre=False, ridge=1e-5)
    before, after = x[:-1], x[1:]
    penalty = 1e-5 * np.linalg.norm(before, 2) ** 2 * np.eye(3)
    direct = np.linalg.solve(before.T @ before + penalty, before.T @ after).T
    assert_allclose(model.Q @ model.A @ model.Q.T, direct, atol=1e-10)
    with pytest.raises(InvalidValue, match="method='total' has no ridge"):
        DMD.from_series([x], rank=3, method="total", ridge=1e-5)


def test_the_ridge_of_dmd_with_control_counts_inputs_by_their_size():
    """Inputs in other units give the same A, and B in those units."""
    rng = np.random.default_rng(0)
    u, x = rng.normal(size=(100, 1)), np.zeros((100, 2))
    for t in range(99):
        x[t + 1] = np.array([0.9 * x[t, 0] + u[t, 0], 0.5 * x[t, 1] + 0.1 * x[t, 0]])
    one, other = (DMD.from_series([x], inputs=[scale * u], rank=2, ridge=1e-3) for scale in (1.0, 1e6))
    assert_allclose(other.A, one.A, atol=1e-10)
    assert_allclose(1e6 * other.B, one.B, atol=1e-10)
    assert np.abs(one.B - DMD.from_series([x], inputs=[u], rank=2).B).max() > 1e-4  # the ridge does act


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("turn", [np.array([[0.0, -0.98], [0.98, 0.0]]), np.diag([0.95, -0.95])])
def test_forward_backward_finds_eigenvalues_that_sum_to_zero(turn, noise):
    """A quarter turn a step: the square of its matrix is a multiple of -I, which has many roots. The scatter at this noise is 0.02."""
    basis = np.array([[1.0, 0.8], [0.0, 0.6]])
    A = basis @ turn @ np.linalg.inv(basis)
    for seed in range(15):
        rng = np.random.default_rng(seed)
        runs = [x + noise * rng.normal(size=x.shape) for x in runs_of(lambda x: x @ A.T, rng.normal(size=(5, 2)), 30)]
        model = DMD.from_series(runs, rank=2, centre=False, method="forward-backward")
        assert near(np.linalg.eigvals(model.A), np.linalg.eigvals(A)) < (0.1 if noise else 1e-10)


@pytest.mark.parametrize("period", [0, 1, 3])
@pytest.mark.parametrize("centre", [False, True])
def test_ranks_are_chosen_on_runs_that_the_model_makes(period, centre):
    """Of a rank too small for the windows, so that encoding anew changes them."""
    rng = np.random.default_rng(0)
    x = np.sin(0.3 * np.arange(80))[:, None] + 0.3 * rng.normal(size=(80, 2))
    data = Data.of("test", [x], None, 3, centre=centre, standardise=False)
    held = Holdout.of([x])
    made = _run(data, held, *Rows.of(data).fit(3, "exact", 0.0, constant=centre), period)
    model = jax.tree.map(jnp.asarray, HankelDMD.from_series([x], delays=3, rank=3, centre=centre, reencode=period))
    for run, (_, row) in zip(made, held.starts, strict=True):
        z = warm_up(model, jnp.asarray(x[row - 2 : row + 1]))
        assert_allclose(jax.vmap(model.observe)(rollout(model, z, len(run))), run, atol=1e-12)


def test_total_least_squares_uses_the_directions_that_are_there():
    """Two pairs have two directions about the mean of all points and one about their own; the fit goes through both pairs."""
    x = np.array([[1.0, 0.0], [0.3, 1.0], [-0.5, 0.4]])
    model = DMD.from_series([x], rank=2, method="total")
    assert_allclose([model.decode(model.advance(model.encode(row))) for row in x[:2]], x[1:], atol=1e-12)
    slope = np.dot(x[2] - x[1], x[1] - x[0]) / np.dot(x[1] - x[0], x[1] - x[0])  # A is the outer product of the two differences
    assert_allclose(np.sort(np.abs(np.linalg.eigvals(model.A))), np.sort([0.0, 1.0, abs(slope)]), atol=1e-7)


def test_settings_can_be_chosen_on_many_short_trajectories():
    """An equal share of each would be shorter than a pair; their inputs and rows stay together."""
    rng = np.random.default_rng(0)
    series = [rng.normal(size=(10, 1)) for _ in range(100)]
    data = Data.of("test", series, series, 2)
    tail = data.tail(100)
    assert [len(x) for x in tail.series] == [10] * 10
    assert tail.inputs is not None
    assert all(np.array_equal(x, u) for x, u in zip(tail.series, tail.inputs, strict=True))
    assert tail.cut(Holdout.of(list(tail.series)).ends).pairs == 60  # 8 of 10 points each, so 7 windows
    long = Data.of("test", [rng.normal(size=(5000, 1)), rng.normal(size=(3000, 1))], None, 1).tail(1000)
    assert [len(x) for x in long.series] == [625, 375]


def test_a_rank_that_keeps_rounding_is_refused_without_a_ridge():
    rng = np.random.default_rng(4)
    x, W, mix = rng.normal(size=(60, 2)), rng.normal(size=(2, 6)), rng.normal(size=(6, 9))
    waves = Custom(lambda v: np.cos(v @ W) @ mix)  # nine functions, six of them independent: 9 with 1 and the variables
    with pytest.raises(InvalidValue, match=r"rank=12 with ridge=0 .* the normal matrix has rank 9 of 12.* at most 9"):
        EDMD.from_series([x], dictionary=waves, ridge=0.0, rank=12)
    cut = EDMD.from_series([x], dictionary=waves, ridge=0.0, rank=9)
    assert np.sum(np.abs(np.linalg.eigvals(cut.A)) > 1e-9) <= 9


def test_an_overflow_at_the_last_point_of_a_driven_series_is_named():
    x, u = np.linspace(0.0, 1.0, 30)[:, None] ** 20, np.ones((30, 1)) * np.arange(30)[:, None]
    steep = Custom(lambda v: np.exp(np.where(v[..., :1] > 4.0, 1000.0, v[..., :1])), ("steep",))
    with pytest.raises(InvalidValue, match="'steep' overflows"):
        EDMD.from_series([x], dictionary=steep, inputs=[u], ridge=1e-10)


@pytest.mark.parametrize(
    ("A", "wanted"),
    [
        (np.array([[0.5, 1.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 1.0 + 1e-14]]), np.array([0.5, 0.5, 1.0])),
        (np.array([[1.02, 1.0], [0.0, 1.02]]), np.array([1.0, 1.0])),
    ],
)
def test_a_matrix_with_parallel_eigenvectors_keeps_all_eigenvalues_within_the_circle(A, wanted):
    """Built anew from its eigenvectors, a Jordan block loses one of its two directions."""
    held = within_circle(A)
    assert_allclose(np.sort(np.abs(np.linalg.eigvals(held))), wanted, atol=1e-7)  # a double eigenvalue: the root of the rounding
    assert np.linalg.matrix_rank(held) == len(A)


@pytest.mark.parametrize("inputs", [None, jnp.zeros((0, 1))])
def test_an_orbit_of_no_steps_is_empty(inputs):
    model = DiagonalKoopman.init(2, 1, modes=3, hidden=4, key=jr.key(0))
    assert rollout(model, model.lift(jnp.ones(2)), 0, inputs).shape == (0, 6)


def test_what_the_generator_can_not_be_fitted_to_is_explained():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 2))
    with pytest.raises(InvalidValue, match=r"at least 6 points, since a derivative is taken from five, got lengths \[5\]"):
        GeneratorEDMD.from_series([x[:5]])
    for diffusion in (np.full((20, 2, 1), np.nan), np.ones((20, 2, 0))):
        with pytest.raises(InvalidValue, match=r"diffusion finite and \(T, N, S\)"):
            GeneratorEDMD.from_derivatives(x, -x, diffusion, degree=1)


def test_a_spectrum_says_that_it_is_not_that_of_a_run_encoded_anew():
    runs = runs_of(lambda x: 1 - 1.2 * x**2, np.random.default_rng(0).uniform(-0.5, 0.5, (5, 1)), 30)
    model = EDMD.from_series(runs, degree=3, ridge=1e-10)
    assert koopman_spectrum(model, runs).notes == ()
    every = koopman_spectrum(model.reencoded(2), runs)
    assert any("reencode=2" in line and "latent matrix" in line for line in every.words())
    assert_allclose(every.values, koopman_spectrum(model, runs).values)


# What was checked and found right.


@pytest.mark.parametrize("block", [1, 4, 1000])
def test_moments_of_short_driven_runs_with_delays_are_those_of_pairs_one_by_one(block, monkeypatch):
    rng = np.random.default_rng(0)
    series = [rng.normal(size=(n, 2)) for n in (5, 9, 3, 4, 30, 4)]
    inputs = [rng.normal(size=(len(x), 2)) for x in series]
    monkeypatch.setattr("dynsys.models.koopman.candidate.BLOCK", block)
    data, candidate = Data.of("test", series, inputs, 3), Candidate(Monomials(2), bilinear=True)
    before, after = [], []
    for x, u in zip(series, inputs, strict=True):
        lifted = [candidate.lift(data.standard(np.concatenate([x[t], x[t - 1], x[t - 2]]))) for t in range(2, len(x))]
        for t, (psi, following) in enumerate(pairwise(lifted), start=2):
            before.append(np.concatenate([psi, u[t], u[t, 0] * psi, u[t, 1] * psi]))
            after.append(following)
    X, Y = np.array(before), np.array(after)
    found = candidate.summed(data)
    assert found.count == len(X) == data.pairs
    for matrix, direct in ((found.G, X.T @ X), (found.A, X.T @ Y), (found.L, Y.T @ Y)):
        assert_allclose(matrix, direct / len(X), atol=1e-12)


def test_reduced_rank_kernel_regression_in_its_dual_form():
    """L K u = s^2 (K + n g) u with u^T K (K + n g) u = 1; f(y) is predicted by k(., X) U (K U)^T f(Y)."""
    rng = np.random.default_rng(0)
    x = np.zeros((120, 2))
    for t in range(119):
        x[t + 1] = np.array([0.9 * x[t, 0] + 0.2 * x[t, 1], 0.5 * x[t, 1]]) + 0.3 * rng.normal(size=2)
    model = KernelEDMD.from_series([x], width=1.3, ridge=1e-3, rank=4)
    v = (x - x.mean(axis=0)) / x.std(axis=0)

    def k(a, b):
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / (2 * 1.3**2))

    K, both, after = k(v[:-1], v[:-1]), k(v[1:], v[:-1]), k(v[1:], v[1:])
    penalised = K + 119 * 1e-3 * np.eye(119)
    values, U = np.linalg.eig(np.linalg.solve(penalised, after @ K))
    U = np.real(U[:, np.argsort(-np.real(values))[:4]])
    U = U / np.sqrt(np.sum(U * (K @ penalised @ U), axis=0))
    assert near(np.linalg.eigvals(model.M), np.linalg.eigvals((K @ U).T @ both @ U)) < 1e-9
    made = x.mean(axis=0) + x.std(axis=0) * (k(v[:5], v[:-1]) @ U @ ((K @ U).T @ v[1:]))
    assert_allclose([model.decode(model.advance(model.encode(row))) for row in x[:5]], made, atol=1e-10)


def test_the_generator_of_a_driven_pair_forgets_its_start_and_keeps_the_second_moments():
    """dx = A x dt + S dW with correlated noise: E[x x^T] tends to P, A P + P A^T = -S S^T; in standardised variables here."""
    A, S = np.array([[-1.0, 0.5], [-0.2, -0.7]]), np.array([[0.5, 0.2], [0.0, 0.4]])
    x = np.random.default_rng(0).normal(size=(200, 2)) + np.array([[1.0, 2.0]])
    model = GeneratorEDMD.from_derivatives(x, x @ A.T, np.broadcast_to(S, (200, 2, 2)), degree=2, dt=0.1)
    P = solve_continuous_lyapunov(A, -S @ S.T)
    y = np.linalg.matrix_power(model.A, 2000) @ model.encode(np.array([0.3, 0.1]))
    rest, scale = -model.mean / model.scale, np.outer(model.scale, model.scale)
    wanted = P / scale + np.outer(rest, rest)
    assert_allclose(y, [1.0, *rest, wanted[0, 0], wanted[0, 1], wanted[1, 1]], atol=1e-10)


def test_held_inputs_of_the_diagonal_model_solve_its_equation():
    model = DiagonalKoopman.init(2, 1, modes=3, hidden=4, key=jr.key(0))
    y, u = np.asarray(model.lift(jnp.ones(2))), 0.7
    rate, B = -np.exp(np.asarray(model.log_rate)) + 1j * np.asarray(model.angle), np.asarray(model.B)[:, 0]
    for gap in (1.0, 2.7):
        exact = np.exp(rate * gap) * (y[:3] + 1j * y[3:]) + (np.exp(rate * gap) - 1) / rate * (B[:3] + 1j * B[3:]) * u
        made = np.asarray(model.over(jnp.asarray(y), jnp.array([u]), gap))
        assert_allclose(made[:3] + 1j * made[3:], exact, atol=1e-12)


def test_residuals_with_delays_over_several_steps_are_those_of_the_eigenfunctions():
    rng = np.random.default_rng(0)
    runs = [rng.normal(size=(n, 2)).cumsum(axis=0) * 0.1 for n in (40, 7, 25)]
    model = HankelDMD.from_series(runs, delays=3, rank=4)
    found = koopman_spectrum(model, runs, steps=2)
    encoded = [np.stack([model.encode(np.concatenate([x[t], x[t - 1], x[t - 2]])) for t in range(2, len(x))]) for x in runs]
    before, after = (np.concatenate([rows[a:b] for rows in encoded]) @ found.vectors for a, b in ((0, -2), (2, None)))
    missed = np.sqrt(np.mean(np.abs(after - found.values[None, :] ** 2 * before) ** 2, axis=0))
    assert_allclose(np.mean(np.abs(before) ** 2, axis=0), 1.0, atol=1e-10)
    assert_allclose(found.residuals, missed, atol=1e-10)


@pytest.mark.parametrize("period", [1, 3])
def test_a_run_encoded_anew_with_delays_and_inputs_is_the_one_written_out(period):
    rng = np.random.default_rng(0)
    u, x = rng.uniform(-1, 1, (200, 1)), np.zeros((200, 1))
    for t in range(1, 199):
        x[t + 1] = 0.5 * x[t] - 0.3 * x[t - 1] ** 2 + 0.3 * u[t]
    model = jax.tree.map(jnp.asarray, EDMD.from_series([x], degree=2, delays=2, inputs=[u], ridge=1e-10)).reencoded(period)
    z = jnp.asarray(model.correct(model.step(model.lift(x[20]), u[20]), x[21]))
    made = jax.vmap(model.observe)(rollout(model, z, 7, jnp.asarray(u[21:28])))
    w, path = np.concatenate([x[21], x[20]]), []
    y = np.asarray(model.encode(w))
    for t in range(7):
        y = np.asarray(model.A) @ y + np.asarray(model.B) @ u[21 + t]
        w = np.concatenate([np.asarray(model.decode(y)), w[:1]])
        y = np.asarray(model.encode(w)) if (t + 1) % period == 0 else y
        path.append(w[:1])
    assert_allclose(made, path, atol=1e-10)
    if period == 1:  # then it is the map itself
        assert_allclose(made, x[22:29], atol=1e-5)

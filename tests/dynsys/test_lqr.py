"""Regulators against the optimum computed another way: least squares over all inputs, scipy's equations, a scalar formula."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from dynsys.control.lqr import continuous_lqr, finite_lqr, lqr, lqr_of, time_varying_lqr
from dynsys.dynamics import Discretized
from dynsys.errors import InvalidValue

from .control_cases import Pendulum, linear_problem


def best_inputs(A, B, Q, R, F, x, steps):
    """The optimum over all inputs at once, from the normal equations of the stacked problem, (T, K), and its cost."""
    M, K = B.shape
    powers = [np.linalg.matrix_power(A, t) for t in range(steps + 1)]
    free = np.concatenate([p @ x for p in powers])
    driven = np.zeros(((steps + 1) * M, steps * K))
    for t in range(1, steps + 1):
        for s in range(t):
            driven[t * M : (t + 1) * M, s * K : (s + 1) * K] = powers[t - 1 - s] @ B
    W = np.kron(np.eye(steps + 1), Q)
    W[-M:, -M:] = F
    H = driven.T @ W @ driven + np.kron(np.eye(steps), R)
    u = np.linalg.solve(H, -driven.T @ W @ free)
    states = free + driven @ u
    return u.reshape(steps, K), states @ W @ states + u @ np.kron(np.eye(steps), R) @ u


def test_a_finite_horizon_equals_least_squares_over_all_inputs():
    A, B, Q, R, F = linear_problem()
    x = np.array([1.0, -2.0, 0.5])
    found = finite_lqr(A, B, Q, R, F, 12)
    wanted, cost = best_inputs(A, B, Q, R, F, x, 12)
    assert_allclose(x @ found.P[0] @ x, cost, rtol=1e-12)
    state = x
    for t in range(12):
        u = -np.asarray(found.K[t]) @ state
        assert_allclose(u, wanted[t], atol=1e-10)
        state = A @ state + B @ u


def test_an_infinite_horizon_is_the_limit_of_finite_ones_and_stable():
    A, B, Q, R, F = linear_problem()
    found = lqr(A, B, Q, R)
    assert_allclose(found.K, finite_lqr(A, B, Q, R, F, 400).K[0], atol=1e-10)
    assert np.abs(found.eigenvalues).max() < 1


def test_a_scalar_regulator_with_a_cross_term():
    """dx/dt = a x + b u, cost q x^2 + r u^2 + 2 n x u: p is the larger root of (b p + n)^2 / r = 2 a p + q."""
    a, b, q, r, n = 0.5, 2.0, 3.0, 0.7, 0.4
    roots = np.roots([b * b / r, 2 * b * n / r - 2 * a, n * n / r - q])
    found = lqr([[a]], [[b]], [[q]], [[r]], [[n]], continuous=True)
    assert_allclose(found.P, [[roots.max()]], rtol=1e-10)
    assert_allclose(found.K, [[(b * roots.max() + n) / r]], rtol=1e-10)


def test_time_varying_weights():
    """The first step's weights are those of the first step: with no weight after it, the rest of the horizon costs nothing."""
    A, B, Q, R, _ = linear_problem()
    many = [np.stack([m] * 5) for m in (A, B, Q, R)]
    many[2][1:] = 0.0
    found = time_varying_lqr(*(jnp.asarray(m) for m in many), jnp.zeros((3, 3)))  # pyright: ignore[reportCallIssue]
    assert_allclose(found.K[0], np.zeros((2, 3)), atol=1e-12)
    assert_allclose(found.P[0], Q, atol=1e-12)
    assert_allclose(found.P[1], np.zeros((3, 3)), atol=1e-12)


def test_the_riccati_equation_in_continuous_time():
    """A scalar with q = 1, a = 0, b = r = 1, end 0: p(t) = tanh(T - t)."""
    times = np.linspace(0, 3, 31)
    found = continuous_lqr([[0.0]], [[1.0]], [[1.0]], [[1.0]], [[0.0]], times)
    assert_allclose(found.P[:, 0, 0], np.tanh(3 - times), atol=1e-9)
    assert_allclose(found.K[:, 0, 0], np.tanh(3 - times[:-1]), atol=1e-9)


def test_a_nonlinear_system_at_its_equilibrium():
    """The pendulum upright: A = [[0, 1], [15, 0]], B = [0, 3], by hand; the map's regulator tends to the flow's as dt falls."""
    flow = Pendulum()
    found = lqr_of(flow, np.zeros(2), np.zeros(1), np.eye(2), np.eye(1))
    assert_allclose(found.K, lqr([[0.0, 1.0], [15.0, 0.0]], [[0.0], [3.0]], np.eye(2), np.eye(1), continuous=True).K, atol=1e-12)
    dt = 1e-3
    discrete = lqr_of(Discretized(flow, dt), np.zeros(2), np.zeros(1), dt * np.eye(2), dt * np.eye(1))  # pyright: ignore[reportCallIssue]
    assert_allclose(discrete.K, found.K, rtol=0.02)
    with pytest.raises(InvalidValue, match="is no equilibrium: the state moves by"):
        lqr_of(flow, np.array([1.0, 0.0]), np.zeros(1), np.eye(2), np.eye(1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"B": np.zeros((3, 2))}, "no gain stabilises this system: its mode with eigenvalue .* is not stable and no input reaches it"),
        ({"R": -np.eye(2)}, "R must be positive definite"),
        ({"Q": np.eye(2)}, r"wants A \(M, M\).*Q \(2, 2\)"),
        ({"A": np.full((3, 3), np.nan)}, "NaN or inf"),
    ],
)
def test_what_can_not_be_regulated_is_refused_in_words(change, words):
    A, B, Q, R, _ = linear_problem()
    with pytest.raises(InvalidValue, match=words):
        lqr(**{"A": A, "B": B, "Q": Q, "R": R} | change)

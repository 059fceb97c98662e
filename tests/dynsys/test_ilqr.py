"""Planners against exact answers: LQR, a quadratic program by cvxpy, finite differences, brute force over active sets."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from dynsys.control import small
from dynsys.control.augmented import constrained_ilqr
from dynsys.control.boxqp import _newton, box_step
from dynsys.control.cost import Function, Quadratic
from dynsys.control.ilqr import Search, backward, first_that_pays, ilqr, ilqr_starts, limits, total, trajectory
from dynsys.control.lqr import finite_lqr
from dynsys.dynamics import Discretized
from dynsys.errors import InvalidValue
from dynsys.status import Status

from .control_cases import LinearMap, Pendulum, linear_problem


def linear(seed=0, K=2):
    A, B, Q, R, F = linear_problem(seed, K=K)
    return (A, B, Q, R, F), LinearMap(jnp.asarray(A), jnp.asarray(B)), Quadratic.of(Q, R, F)  # pyright: ignore[reportCallIssue]


def by_program(A, B, Q, R, F, x, steps, low, high, most=None) -> Any:
    """The inputs (T, K) and cost of the constrained problem, by cvxpy."""
    import cvxpy

    z, u = cvxpy.Variable((steps + 1, len(x))), cvxpy.Variable((steps, B.shape[1]))
    cost = cvxpy.quad_form(z[steps], F)
    rules = [z[0] == x, u >= low, u <= high]
    for t in range(steps):
        cost += cvxpy.quad_form(z[t], Q) + cvxpy.quad_form(u[t], R)
        rules.append(z[t + 1] == A @ z[t] + B @ u[t])
        if most is not None:
            rules.append(z[t + 1, 0] <= most)
    problem = cvxpy.Problem(cvxpy.Minimize(cost), rules)
    problem.solve(solver=cvxpy.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    return np.asarray(u.value), float(np.asarray(problem.value))


@pytest.mark.parametrize("second_order", [False, True])
def test_a_linear_quadratic_problem_takes_one_iteration(second_order):
    (A, B, Q, R, F), model, cost = linear()
    x = np.array([1.0, -2.0, 0.5])
    plan = ilqr(model, cost, x, np.zeros((20, 2)), search=Search(iterations=1, second_order=second_order))
    exact = finite_lqr(A, B, Q, R, F, 20)
    assert plan.iterations == 1
    assert_allclose(plan.cost, x @ exact.P[0] @ x, rtol=1e-12)
    state = x
    for t in range(20):
        assert_allclose(plan.inputs[t], -np.asarray(exact.K[t]) @ state, atol=1e-8)
        state = A @ state + B @ np.asarray(plan.inputs[t])
    done = ilqr(model, cost, x, np.zeros((20, 2)))
    assert done.status is Status.SUCCESS
    assert_allclose(done.gains, -np.asarray(exact.K), atol=1e-8)


@pytest.mark.parametrize("K", [1, 2, 4])
def test_a_box_constrained_problem_equals_the_quadratic_program(K):
    (A, B, Q, R, F), model, cost = linear(K=K)
    x = np.array([2.0, -3.0, 1.0])
    wanted, value = by_program(A, B, Q, R, F, x, 15, -0.3, 0.4)
    plan = ilqr(model, cost, x, np.zeros((15, K)), low=-0.3, high=0.4, search=Search(iterations=500, tolerance=1e-15))
    assert np.sum(np.isclose(np.abs(wanted - 0.05), 0.35, atol=1e-6)) > 3  # limits that matter
    assert_allclose(plan.cost, value, rtol=1e-8)
    assert_allclose(plan.inputs, wanted, atol=1e-6)
    assert np.all(plan.inputs >= -0.3)
    assert np.all(plan.inputs <= 0.4)


def test_a_state_constraint_equals_the_quadratic_program():
    (A, B, Q, R, F), model, cost = linear()
    x = np.array([0.5, -3.0, 1.0])
    free = ilqr(model, cost, x, np.zeros((12, 2)), low=-2.0, high=2.0)
    most = 0.5 * float(jnp.max(free.states[1:, 0]))
    wanted, value = by_program(A, B, Q, R, F, x, 12, -2.0, 2.0, most)

    def kept(z, u, t):
        return jnp.where(t > 0, z[:1] - most, -1.0)

    plan = constrained_ilqr(model, cost, x, np.zeros((12, 2)), kept, low=-2.0, high=2.0, tolerance=1e-8, rounds=60)
    assert plan.status.ok
    assert float(jnp.max(plan.states[1:, 0])) <= most + 1e-8
    assert value > free.cost + 1e-3  # the constraint costs something
    assert_allclose(plan.cost, value, rtol=1e-6)
    assert_allclose(plan.inputs, wanted, atol=1e-4)


def test_an_infeasible_constraint_is_a_status():
    _, model, cost = linear()
    plan = constrained_ilqr(model, cost, np.ones(3), np.zeros((5, 2)), lambda z, u, t: z[:1] + 100.0, low=-0.1, high=0.1, rounds=4)
    assert plan.status is Status.FAILED
    assert plan.violation > 50


@pytest.mark.parametrize("K", [1, 2, 3, 5])
def test_a_box_step_is_the_best_of_all_active_sets(K):
    rng = np.random.default_rng(K)
    step, newton = jax.jit(box_step), jax.jit(_newton)
    for _ in range(20):
        root = rng.normal(size=(K, K))
        H, g = root @ root.T + 0.1 * np.eye(K), 3 * rng.normal(size=K)
        low, high = -rng.uniform(0.05, 1, K), rng.uniform(0.05, 1, K)
        best, at = np.inf, np.zeros(K)
        for held in itertools.product((-1, 0, 1), repeat=K):
            held = np.array(held)
            v = np.where(held < 0, low, np.where(held > 0, high, 0.0))
            free = held == 0
            if free.any():
                v[free] = np.linalg.solve(H[np.ix_(free, free)], -(g + H @ v)[free])
            if np.all(v >= low - 1e-12) and np.all(v <= high + 1e-12) and 0.5 * v @ H @ v + g @ v < best:
                best, at = 0.5 * v @ H @ v + g @ v, v
        found, free = step(*(jnp.asarray(a) for a in (H, g, low, high)))
        assert_allclose(found, at, atol=1e-8)
        inside = (np.asarray(found) > low + 1e-7) & (np.asarray(found) < high - 1e-7)
        assert np.array_equal(np.asarray(free), inside)
        assert_allclose(newton(*(jnp.asarray(a) for a in (H, g, low, high)))[0], at, atol=1e-8)


@pytest.mark.parametrize("second_order", [False, True])
def test_the_backward_pass_knows_the_gradient(second_order):
    """At k the expected change is g_1 + g_2 / 2; g_1 = k . dJ/du, checked by differentiating J through the whole rollout."""
    model, cost = Discretized(Pendulum(), 0.05), Quadratic.of([1.0, 0.1], [0.01], [10.0, 1.0], goal=[0.0, 0.0])  # pyright: ignore[reportCallIssue]
    us = 0.3 * jax.random.normal(jax.random.key(0), (15, 1))
    z = jnp.array([1.0, 0.0])
    zs = trajectory(model, z, us)
    low, high = limits("test", None, None, 1)
    k, gains, g1, _, sound = backward(model, cost, zs, us, low, high, jnp.asarray(0.0), Search(second_order=second_order))
    # along the closed loop u = k + K (z - zs): the derivative of J by alpha at 0

    def along(alpha):
        def advance(z, now):
            old, u, k, gain = now
            u = u + alpha * k + gain @ (z - old)
            return model.step(z, u), (z, u)

        last, (states, inputs) = jax.lax.scan(advance, z, (zs[:-1], us, k, gains))
        return total(model, cost, jnp.concatenate([states, last[None]]), inputs)

    assert bool(sound) or second_order
    assert_allclose(jax.grad(along)(0.0), g1, rtol=1e-9)


def test_the_pendulum_swings_up_inside_its_limits():
    """From hanging with |u| <= 2: the torque holds it up to 8 degrees only, so it has to swing; 100 steps of 0.05."""
    model = Discretized(Pendulum(), 0.05)  # pyright: ignore[reportCallIssue]
    cost = Quadratic.of([1.0, 0.1], [0.1], [1000.0, 100.0])
    guess = 0.01 * np.random.default_rng(0).normal(size=(100, 1))
    plan = ilqr(model, cost, [np.pi, 0.0], guess, low=-2.0, high=2.0, search=Search(on="states", factor=2.0, iterations=500))
    assert np.abs(plan.inputs).max() <= 2.0
    assert_allclose(np.abs(plan.states[-1]), 0.0, atol=0.1)
    start = total(model, cost, trajectory(model, jnp.array([np.pi, 0.0]), jnp.asarray(guess)), jnp.asarray(guess))
    assert plan.cost < 0.3 * float(start)


def test_many_starts_give_the_best_of_single_ones():
    model = Discretized(Pendulum(), 0.05)  # pyright: ignore[reportCallIssue]
    cost = Quadratic.of([1.0, 0.1], [0.1], [100.0, 10.0])
    guesses = np.random.default_rng(0).normal(size=(3, 40, 1))
    best, costs = ilqr_starts(model, cost, [np.pi, 0.0], guesses, low=-2.0, high=2.0, search=Search(iterations=20))
    singles = [ilqr(model, cost, [np.pi, 0.0], u, low=-2.0, high=2.0, search=Search(iterations=20)).cost for u in guesses]
    assert_allclose(costs, singles, rtol=1e-6)  # 20 iterations of a chaotic search: rounding grows a little
    assert best.cost == costs.min()


def test_step_sizes_tried_at_once_or_in_turn_give_the_same_plan():
    """With steps that have to be shortened: a full one would leave the first trajectory far behind."""
    model = Discretized(Pendulum(), 0.05)  # pyright: ignore[reportCallIssue]
    cost = Quadratic.of([1.0, 0.1], [0.01], [1000.0, 100.0])
    guess = 0.1 * np.random.default_rng(0).normal(size=(60, 1))
    plans = [
        ilqr(model, cost, [np.pi, 0.0], guess, low=-2.0, high=2.0, search=Search(iterations=6, at_once=at_once))
        for at_once in (False, True)
    ]
    assert_allclose(plans[0].inputs, plans[1].inputs, atol=1e-8)  # six iterations let rounding grow a little
    assert_allclose(plans[0].cost, plans[1].cost, rtol=1e-9)
    full = ilqr(model, cost, [np.pi, 0.0], guess, low=-2.0, high=2.0, search=Search(iterations=6, step_sizes=(1.0,)))
    assert abs(full.cost - plans[0].cost) > 1e-3 * full.cost


def test_the_first_step_size_that_pays_is_taken():
    sizes, expected = jnp.array([1.0, 0.5, 0.25, 0.1]), jnp.zeros(4)

    def run(alpha, expected, most):
        return alpha, -alpha, 2 * alpha, alpha <= most

    for at_once in (False, True):
        for most, taken in ((2.0, 1.0), (0.3, 0.25), (0.01, 0.1)):
            found = first_that_pays(lambda a, e, m=most: run(a, e, m), sizes, expected, jnp.asarray(True), at_once)
            assert float(found[0]) == taken
            assert bool(found[3]) == (most > 0.05)


@pytest.mark.parametrize("n", [1, 2, 3, 12])
def test_small_matrices_multiply_as_large_ones_do(n):
    rng = np.random.default_rng(n)
    A, B, b = rng.normal(size=(n, n + 1)), rng.normal(size=(n + 1, n)), rng.normal(size=n + 1)
    assert_allclose(small.product(jnp.asarray(A), jnp.asarray(B)), A @ B, atol=1e-12)
    assert_allclose(small.applied(jnp.asarray(A), jnp.asarray(b)), A @ b, atol=1e-12)
    H = A @ A.T
    assert_allclose(H @ small.solve(jnp.asarray(H), jnp.asarray(A)), A, atol=1e-8)
    assert bool(small.positive(jnp.asarray(H)))
    assert not bool(small.positive(jnp.asarray(H - 1.001 * np.linalg.eigvalsh(H)[0] * np.eye(n))))


def test_angles_are_compared_around_the_circle():
    cost = Quadratic.of([1.0, 1.0], [1.0], goal=[0.0, 0.0], angles=(0,))
    zero = jnp.zeros(1)
    assert_allclose(cost.stage(jnp.array([2 * np.pi + 0.1, 0.0]), zero, 0), 0.01, atol=1e-12)
    assert_allclose(cost.final(jnp.array([-0.1, 0.2])), 0.05, atol=1e-12)


def test_costs_of_the_user_may_change_with_time():
    _, model, _ = linear()
    cost = Function(lambda x, u, t: jnp.where(t == 2, 10.0, 0.1) * x @ x + u @ u, lambda x: x @ x)
    plan = ilqr(model, cost, np.ones(3), np.zeros((5, 2)), search=Search(tolerance=1e-14))
    again = total(model, cost, plan.states, plan.inputs)
    assert_allclose(plan.cost, again, rtol=1e-12)
    gradient = jax.grad(lambda us: total(model, cost, trajectory(model, jnp.ones(3), us), us))(plan.inputs)
    assert_allclose(gradient, 0.0, atol=1e-6)


def test_a_run_that_diverges_is_a_status():
    model = LinearMap(1e200 * jnp.eye(2), jnp.ones((2, 1)))  # pyright: ignore[reportCallIssue]
    plan = ilqr(model, Quadratic.of([1.0, 1.0], [1.0]), np.ones(2), np.zeros((5, 1)))
    assert plan.status is Status.DIVERGED


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, c: ilqr(m, c, np.ones(2), np.zeros((5, 2))), r"wants a start \(3,\) and inputs \(T, 2\), got \(2,\)"),
        (lambda m, c: ilqr(m, c, np.ones(3), np.zeros((5, 2)), low=1.0, high=-1.0), "low must not be above high"),
        (lambda m, c: Search(on="gains"), "on must be 'inputs' or 'states'"),
        (lambda m, c: Quadratic.of([1.0, 1.0], [1.0], goal=[0.0]), r"goal \(N,\)"),
    ],
)
def test_bad_problems_are_refused_in_words(call, words):
    _, model, cost = linear()
    with pytest.raises(InvalidValue, match=words):
        call(model, cost)

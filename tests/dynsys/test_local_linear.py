"""Learned locally-linear iLQR against exact answers: products of matrices, ridge regressions one by one, LQR, iLQR on the true model."""

import warnings

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dynsys.control.controller import Following
from dynsys.control.cost import Function, Quadratic
from dynsys.control.ilqr import ilqr, total, trajectory
from dynsys.control.local_linear import LocalSearch, local_ilqr, local_ilqr_rig
from dynsys.control.lqr import finite_lqr, time_varying_lqr
from dynsys.control.markov import (
    burn_in,
    locally_linear,
    markov_correlation,
    markov_least_squares,
    markov_transitions,
    policy_gradient,
    regulator,
    spd_solve,
)
from dynsys.control.rig import environment_rig
from dynsys.dynamics import AbstractMap
from dynsys.errors import InvalidValue
from dynsys.status import Status

from .control_cases import LinearMap, linear_problem

T = 6


class Swing(AbstractMap):
    """theta'' = sin theta + u by Euler's method with dt = 0.2, theta = 0 upright."""

    dim: int = eqx.field(static=True, default=2)
    n_obs: int = eqx.field(static=True, default=2)
    n_inputs: int = eqx.field(static=True, default=1)

    def step(self, z, u=None):
        return jnp.stack([z[0] + 0.2 * z[1], z[1] + 0.2 * (jnp.sin(z[0]) + u[0])])

    def observe(self, z):
        return z

    def lift(self, x):
        return x


def time_varying(seed, M, K):
    """Random (A, B, gains) along T steps."""
    rng = np.random.default_rng(seed)
    return 0.6 * rng.normal(size=(T, M, M)), rng.normal(size=(T, M, K)), 0.3 * rng.normal(size=(T, K, M))


def exact_psi(A, B, gains):
    """dx[t]/du[s] under the gains, by products of matrices."""
    M, K = B.shape[1:]
    psi = np.zeros((T + 1, T, M, K))
    for s in range(T):
        psi[s + 1, s] = B[s]
        for t in range(s + 1, T):
            psi[t + 1, s] = (A[t] + B[t] @ gains[t]) @ psi[t, s]
    return psi


def closed_loop(A, B, gains, w):
    """Deviations (N, T + 1, M) under u = K x + w from 0."""
    x = np.zeros((len(w), T + 1, A.shape[1]))
    for t in range(T):
        x[:, t + 1] = x[:, t] @ (A[t] + B[t] @ gains[t]).T + w[:, t] @ B[t].T
    return x


def signs(seed, N, K, size=1e-3):
    return size * np.random.default_rng(seed).choice([-1.0, 1.0], size=(N, T, K))


def j(*arrays):
    return [jnp.asarray(a) for a in arrays]


@pytest.mark.parametrize(("M", "K"), [(2, 1), (3, 2)])
@pytest.mark.parametrize(("estimate", "N"), [(markov_least_squares, 30), (markov_transitions, 9)])
def test_markov_parameters_of_a_linear_system_are_exact(estimate, N, M, K):
    A, B, gains = time_varying(0, M, K)
    w = signs(1, N, K)
    x = closed_loop(A, B, gains, w)
    wanted = exact_psi(A, B, gains)
    # 1e-8: floors of 1e-13 in the normal equations, whose condition is up to 1e4 here
    assert_allclose(estimate(*j(w, x, np.ones(N)), 0.0), wanted, atol=1e-8)
    w[3], x[3] = 7.0, -5.0  # nonsense of weight 0 counts for nothing
    weight = np.ones(N)
    weight[3] = 0.0
    assert_allclose(estimate(*j(w, x, weight), 0.0), wanted, atol=1e-8)


def test_correlation_is_exact_for_all_signs_and_unbiased_for_random_ones():
    A, B, gains = time_varying(0, 2, 1)
    every = 1e-3 * (2.0 * ((np.arange(64)[:, None] >> np.arange(T)[None, :]) & 1) - 1)[:, :, None]
    x = closed_loop(A, B, gains, every)
    wanted = exact_psi(A, B, gains)
    assert_allclose(markov_correlation(*j(every, x, np.ones(64)), 0.0), wanted, atol=1e-10)  # columns orthogonal to each other and to 1
    w = signs(2, 20_000, 1)
    found = markov_correlation(*j(w, closed_loop(A, B, gains, w), np.ones(len(w))), 0.0)
    # one entry's standard error is below |psi of a row| / sqrt(N) = 0.02; 5 of them
    assert_allclose(found, wanted, atol=5 * np.sqrt((wanted**2).sum((1, 3))).max() / np.sqrt(len(w)))


@pytest.mark.parametrize("N", [5, 40])
def test_one_cholesky_gives_the_ridge_regression_of_every_step(N):
    """With fewer rollouts (5) than inputs (12) too, on states that no linear system made."""
    rng = np.random.default_rng(0)
    w, x, ridge = signs(0, N, 2), rng.normal(size=(N, T + 1, 3)), 0.1
    psi = np.asarray(markov_least_squares(*j(w, x, np.ones(N)), ridge))
    for t in range(1, T + 1):
        W = w[:, :t].reshape(N, -1)
        p = np.linalg.solve(W.T @ W + ridge * N * 1e-6 * np.eye(W.shape[1]), W.T @ x[:, t])  # N sigma^2 is the mean square
        assert_allclose(psi[t, :t], p.reshape(t, 2, 3).transpose(0, 2, 1), rtol=1e-9, atol=1e-9 * np.abs(p).max())
    assert_array_equal(psi[np.arange(T + 1)[:, None] <= np.arange(T)[None, :]], 0.0)


@pytest.mark.parametrize(("M", "K"), [(2, 1), (3, 2), (6, 2)])
def test_the_factorisation_returns_the_model_after_the_burn_in(M, K):
    A, B, gains = time_varying(3, M, K)
    psi = exact_psi(A, B, gains)
    found_A, found_B = locally_linear(*j(psi, gains))
    first = burn_in(M, K)
    assert first == -(-M // K)
    assert_allclose(found_B, B, atol=1e-12)
    scale = np.abs(A).max()
    assert_allclose(found_A[first:], A[first:], atol=1e-6 * scale)  # Gram matrices of condition up to 1e8 at the first of them
    assert np.abs(np.asarray(found_A[0]) - A[0]).max() > 0.01  # nothing has moved yet, so nothing is known
    assert_allclose(
        exact_psi(np.asarray(found_A), np.asarray(found_B), gains), psi, atol=1e-5
    )  # but what can be reached is right, to the floor of 1e-8 times the condition
    windowed = locally_linear(*j(psi, gains), window=first)
    assert_allclose(windowed[0][first:], A[first:], atol=1e-6 * scale)


def test_small_systems_are_solved():
    rng = np.random.default_rng(0)
    for M in (1, 2, 3, 8, 9):
        root, rows = rng.normal(size=(4, M, M)), rng.normal(size=(4, M, 3))
        H = root @ root.transpose(0, 2, 1) + np.eye(M)
        assert_allclose(spd_solve(*j(H, rows)), np.linalg.solve(H, rows), atol=1e-11)


def test_the_regulator_is_that_of_lqr_with_cross_terms():
    """u = v - R^-1 C x turns a cross term C into one without: A - B R^-1 C, Q - C'R^-1 C."""
    M, K = 3, 2
    A, B, _ = time_varying(4, M, K)
    _, _, Q, R, F = linear_problem(0, M, K)
    C = 0.05 * np.random.default_rng(0).normal(size=(K, M))
    Qs, Rs, Cs = np.concatenate([np.tile(Q, (T, 1, 1)), F[None]]), np.tile(R, (T, 1, 1)), np.tile(C, (T, 1, 1))
    gains, H = regulator(*j(A, B, Qs, Rs, Cs), 0)
    shift = np.linalg.solve(R, C)
    plain = time_varying_lqr(A - B @ shift, B, np.tile(Q - C.T @ shift, (T, 1, 1)), Rs, F)
    assert_allclose(gains, -np.asarray(plain.K) - shift[None], atol=1e-10)
    assert_allclose(H, R[None] + B.transpose(0, 2, 1) @ np.asarray(plain.P[1:]) @ B, atol=1e-10)
    late, _ = regulator(*j(A, B, Qs, Rs, Cs), 2)
    assert_array_equal(late[:2], 0.0)
    assert_allclose(late[2:], gains[2:], atol=1e-12)


def test_the_gradient_is_that_of_the_closed_loop():
    A, B, gains = time_varying(5, 3, 2)
    cost = Function(lambda x, u, t: jnp.sum(jnp.cos(x)) * (1 + t) + jnp.sum(u**4) + x[0] * u[1], lambda x: jnp.sum(x**3))
    v, start = j(np.random.default_rng(0).normal(size=(T, 2)), np.ones(3))

    def run(v):
        xs, us = [start], []
        for t in range(T):
            us.append(v[t] + gains[t] @ (xs[-1] - nominal[t]))
            xs.append(A[t] @ xs[-1] + B[t] @ us[-1])
        return jnp.stack(xs), jnp.stack(us)

    nominal = jnp.zeros((T + 1, 3))
    nominal, us = run(v)  # u = inputs + K (x - nominal), so along the nominal trajectory itself the inputs are us
    J = jax.grad(lambda v: sum((cost.stage(x, u, t) for t, (x, u) in enumerate(zip(*run(v), strict=False))), cost.final(run(v)[0][-1])))(us)
    slopes = [jax.grad(cost.stage, argnums=(0, 1))(nominal[t], us[t], t) for t in range(T)]
    cost_x = jnp.stack([s[0] for s in slopes] + [jax.grad(cost.final)(nominal[-1])])
    found = policy_gradient(*j(exact_psi(A, B, gains), gains), cost_x, jnp.stack([s[1] for s in slopes]))
    assert_allclose(found, J, rtol=1e-10, atol=1e-10)


def linear():
    A, B, Q, R, F = linear_problem(0)
    exact = finite_lqr(A, B, Q, R, F, 12)
    x = np.array([1.0, -2.0, 0.5])
    return LinearMap(*j(A, B)), Quadratic.of(Q, R, F), x, exact, float(x @ exact.P[0] @ x)  # pyright: ignore[reportCallIssue]


def test_a_linear_quadratic_problem_ends_at_the_optimum_of_lqr():
    model, cost, x, exact, least = linear()
    found = local_ilqr(model, cost, x, np.zeros((12, 2)), search=LocalSearch(iterations=40, rollouts=40, ridge=0.0))
    assert found.plan.status is Status.SUCCESS
    assert_allclose(found.plan.cost, least, rtol=1e-10)
    first = burn_in(3, 2)
    assert_allclose(found.plan.gains[first:], -np.asarray(exact.K[first:]), atol=1e-5)
    assert_array_equal(found.plan.gains[:first], 0.0)
    assert_allclose(found.plan.cost, total(model, cost, found.plan.states, found.plan.inputs), rtol=1e-12)
    # every rollout is counted: the first guess, then 40 perturbed ones and 4 step sizes an iteration
    assert_array_equal(found.rollouts, 1 + 44 * np.arange(len(found.rollouts)))
    assert found.plan.iterations == len(found.costs) - 1


def test_the_published_search_gets_there_without_gains():
    model, cost, x, _, least = linear()
    found = local_ilqr(model, cost, x, np.zeros((12, 2)), search=LocalSearch.published(iterations=300, rollouts=30, gains=False))
    assert_allclose(found.plan.cost, least, rtol=1e-4)
    assert_array_equal(found.plan.gains, 0.0)


def test_the_pendulum_swings_up_as_cheaply_as_on_the_true_model():
    model, cost, start = Swing(), Quadratic.of([1.0, 0.5], [1.0]), [3.4, 0.6]  # pyright: ignore[reportCallIssue]
    best = ilqr(model, cost, start, np.zeros((25, 1)))
    found = local_ilqr(model, cost, start, np.zeros((25, 1)), search=LocalSearch.published(iterations=235))
    assert found.rollouts[-1] <= 5000
    assert found.plan.cost <= best.cost * 1.0005
    ours = local_ilqr(model, cost, start, np.zeros((25, 1)), search=LocalSearch(iterations=20))
    assert ours.rollouts[-1] <= 500
    assert best.cost * (1 - 1e-9) <= ours.plan.cost <= best.cost * 1.0005
    again = local_ilqr(model, cost, start, np.zeros((25, 1)), search=LocalSearch(iterations=20))
    assert_array_equal(ours.plan.inputs, again.plan.inputs)  # the same key, the same answer
    assert_allclose(trajectory(model, jnp.asarray(start), ours.plan.inputs), ours.plan.states, atol=1e-6)
    assert Following.of(ours.plan).act(np.array(start), 0)[0].shape == (1,)


def test_only_rollouts_are_needed():
    """A step that can't be differentiated: it leaves JAX."""

    class Outside(Swing):
        def step(self, z, u=None):
            def outside(z, u):
                return np.array([z[0] + 0.2 * z[1], z[1] + 0.2 * (np.sin(z[0]) + u[0])])

            return jax.pure_callback(outside, jax.ShapeDtypeStruct((2,), z.dtype), z, u, vmap_method="sequential")

    cost, guess = Quadratic.of([1.0, 0.5], [1.0]), np.zeros((5, 1))
    with pytest.raises(ValueError, match="JVP"):
        ilqr(Outside(), cost, [1.0, 0.0], guess)  # pyright: ignore[reportCallIssue]
    search = LocalSearch(iterations=5, rollouts=6)
    found = local_ilqr(Outside(), cost, [1.0, 0.0], guess, search=search)  # pyright: ignore[reportCallIssue]
    assert found.plan.cost < 0.95 * found.costs[0]


def numpy_rig(start, spoil=lambda call, states: states):
    """The pendulum in NumPy; `spoil` may change what the n-th call returns."""
    calls = []

    def rig(policies):
        states = np.zeros((len(policies), policies.horizon + 1, 2))
        states[:, 0] = start
        for row, act in zip(states, policies, strict=True):
            for t in range(policies.horizon):
                u = act(t, row[t])
                row[t + 1] = row[t] + 0.2 * np.array([row[t, 1], np.sin(row[t, 0]) + u[0]])
        calls.append(len(policies))
        return spoil(len(calls), states)

    return rig


COST = Quadratic.of([1.0, 0.5], [0.1])
FEW = LocalSearch(iterations=6, rollouts=12)


@pytest.mark.parametrize("search", [FEW, LocalSearch.published(iterations=6, rollouts=12)])
def test_both_doors_give_the_same(search):
    """With limits that matter (the free optimum pushes with up to 3.5)."""
    guess = 0.1 * np.random.default_rng(0).normal(size=(10, 1))
    inside = local_ilqr(Swing(), COST, [2.0, 0.0], guess, low=-1.5, high=1.0, search=search, key=3)  # pyright: ignore[reportCallIssue]
    outside = local_ilqr_rig(numpy_rig([2.0, 0.0]), COST, guess, n_obs=2, low=-1.5, high=1.0, search=search, key=3)
    assert_allclose(outside.costs, inside.costs, rtol=1e-8)
    assert_array_equal(outside.rollouts, inside.rollouts)
    assert_allclose(outside.plan.inputs, inside.plan.inputs, atol=1e-6)  # rounding over sigma = 1e-3, some iterations of it
    assert_allclose(outside.plan.gains, inside.plan.gains, atol=1e-4)
    assert outside.states.shape == (outside.rollouts[-1], 11, 2)
    # what was collected is what was applied: the model reproduces it
    last = outside.states[-1]
    assert_allclose(trajectory(Swing(), jnp.asarray(last[0]), jnp.asarray(outside.inputs[-1])), last, atol=1e-12)  # pyright: ignore[reportCallIssue]
    assert inside.states.shape == (0, 11, 2)


def test_limits_are_kept_and_the_optimum_inside_them_is_found():
    model, guess = Swing(), np.zeros((10, 1))  # pyright: ignore[reportCallIssue]
    best = ilqr(model, COST, [2.0, 0.0], guess, low=-1.5, high=1.0)
    found = local_ilqr_rig(numpy_rig([2.0, 0.0]), COST, guess, n_obs=2, low=-1.5, high=1.0, search=LocalSearch(iterations=15, rollouts=12))
    held = np.isclose(np.asarray(best.inputs), -1.5)
    assert held.sum() > 2
    assert found.inputs.min() >= -1.5  # every input of every rollout
    assert found.inputs.max() <= 1.0
    assert_allclose(found.plan.cost, best.cost, rtol=1e-4)
    assert_array_equal(np.asarray(found.plan.gains)[np.isclose(found.plan.inputs, -1.5)], 0.0)


def test_rollouts_that_fail_are_left_out():
    def some(call, states):
        if len(states) == 12:
            states[::3, 4:] = np.nan
        return states

    whole = local_ilqr_rig(numpy_rig([1.0, 0.0]), COST, np.zeros((5, 1)), n_obs=2, search=FEW)
    found = local_ilqr_rig(numpy_rig([1.0, 0.0], some), COST, np.zeros((5, 1)), n_obs=2, search=FEW)
    assert found.plan.status is whole.plan.status is Status.SUCCESS
    assert_allclose(found.plan.cost, whole.plan.cost, rtol=1e-4)  # 8 rollouts for 5 unknowns a step, six iterations
    assert np.isnan(found.states).any()


def test_a_search_without_enough_rollouts_gives_up_with_what_it_has():
    def all_but_the_first(call, states):
        return states if call == 1 else np.full_like(states, np.nan)

    found = local_ilqr_rig(numpy_rig([1.0, 0.0], all_but_the_first), COST, np.zeros((5, 1)), n_obs=2, search=LocalSearch(rollouts=12))
    assert found.plan.status is Status.DIVERGED
    assert len(found.costs) == 11  # patience: ten iterations
    assert found.rollouts[-1] == 1 + 10 * 12
    assert np.isfinite(found.plan.cost)
    assert_array_equal(found.plan.inputs, 0.0)
    never = local_ilqr(Swing(), COST, [np.nan, 0.0], np.zeros((10, 1)), low=-1.5, high=1.0, search=FEW)  # pyright: ignore[reportCallIssue]
    assert never.plan.status is Status.DIVERGED
    assert_array_equal(never.rollouts, [1])


def test_a_search_none_of_whose_steps_keeps_its_promise_says_so():
    def disappoints(call, states):
        return states + 5.0 if len(states) == 4 else states  # the four step sizes

    found = local_ilqr_rig(numpy_rig([1.0, 0.0], disappoints), COST, np.zeros((5, 1)), n_obs=2, search=LocalSearch(rollouts=12))
    assert found.plan.status is Status.STOPPED
    assert_array_equal(found.costs, np.full(11, found.costs[0]))
    whole = local_ilqr_rig(numpy_rig([1.0, 0.0]), COST, np.zeros((5, 1)), n_obs=2, search=LocalSearch(rollouts=12))
    assert whole.plan.status is Status.SUCCESS  # refused steps at the optimum promise nothing


def test_a_step_whose_rollout_fails_is_halved():
    def fragile(call, states):
        states[np.abs(states[:, -1, 1]) > 3.0] = np.nan
        return states

    search = LocalSearch.published(iterations=12, rollouts=12, optimizer=optax.sgd(20.0))
    found = local_ilqr_rig(numpy_rig([1.0, 0.0], fragile), COST, np.zeros((5, 1)), n_obs=2, search=search)
    assert_array_equal(found.costs[:3], found.costs[0])  # steps of 20 and 10 times the gradient break it
    assert found.plan.cost < found.costs[0]


@pytest.mark.parametrize(("error", "status"), [(RuntimeError("the motor is hot"), Status.FAILED), (KeyboardInterrupt(), Status.STOPPED)])
def test_what_was_collected_is_kept_when_the_rig_raises(error, status):
    def breaks(call, states):
        if call == 4:
            raise error
        return states

    found = local_ilqr_rig(numpy_rig([1.0, 0.0], breaks), COST, np.zeros((5, 1)), n_obs=2, search=FEW)
    assert found.plan.status is status
    assert ("the motor is hot" in found.reason) is (status is Status.FAILED)
    assert found.states.shape == (1 + 12 + 4, 6, 2)
    assert found.plan.cost < found.costs[0]
    assert len(found.costs) == 2

    def at_once(call, states):
        raise error

    with pytest.raises(type(error)):  # nothing is lost yet, so it is the caller's to see
        local_ilqr_rig(numpy_rig([1.0, 0.0], at_once), COST, np.zeros((5, 1)), n_obs=2, search=FEW)


class Bench(gymnasium.Env):
    """The pendulum as an environment; it ends beyond |theta| = 2 and breaks at u > 5."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-10.0, 10.0, (1,), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.z = np.array([1.0, 0.0]) + 0.1 * self.np_random.normal(size=2)
        return self.z.copy(), {"double": 2 * self.z}

    def step(self, action):
        if action[0] > 5:
            raise RuntimeError("torque")
        self.z = self.z + 0.2 * np.array([self.z[1], np.sin(self.z[0]) + action[0]])
        return self.z.copy(), 0.0, bool(abs(self.z[0]) > 2), False, {"double": 2 * self.z}


def test_an_environment_is_a_rig():
    env = Bench()
    start = env.reset(seed=7)[0]
    guess = np.zeros((5, 1))
    found = local_ilqr_rig(environment_rig(env, 5, seed=7), COST, guess, n_obs=2, search=FEW)
    assert found.plan.status is Status.SUCCESS
    assert_array_equal(found.states[:, 0], np.tile(start, (len(found.states), 1)))
    assert_allclose(found.plan.cost, ilqr(Swing(), COST, start, guess).cost, rtol=1e-4)  # pyright: ignore[reportCallIssue]
    double = local_ilqr_rig(environment_rig(env, 5, seed=7, see=lambda x, info: info["double"]), COST, guess, n_obs=2, search=FEW)
    assert_allclose(double.states[0], 2 * found.states[0])


@pytest.mark.parametrize(("push", "words"), [(4.9, "terminated"), (6.0, "raised RuntimeError at step 0: torque")])
def test_an_environment_that_ends_early_costs_a_rollout_and_says_so(push, words):
    with pytest.warns(UserWarning, match=words):
        found = local_ilqr_rig(environment_rig(Bench(), 5), COST, np.full((5, 1), push), n_obs=2, search=FEW)
    assert found.plan.status is Status.DIVERGED
    assert np.isnan(found.states[0, -1]).all()
    assert np.isfinite(found.states[0, 0]).all()
    short = gymnasium.wrappers.TimeLimit(Bench(), 4)
    with pytest.warns(UserWarning, match="max_episode_steps"):
        local_ilqr_rig(environment_rig(short, 5), COST, np.zeros((5, 1)), n_obs=2, search=FEW)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a limit at the horizon is no failure
        local_ilqr_rig(environment_rig(gymnasium.wrappers.TimeLimit(Bench(), 5), 5), COST, np.zeros((5, 1)), n_obs=2, search=FEW)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: LocalSearch(estimator="guess"), "estimator must be one of least-squares, correlation, transitions, got 'guess'"),
        (lambda: LocalSearch(sigma=0.0), "sigma > 0"),
        (lambda: LocalSearch(gains=False), "'cost' with gains.*published"),
        (lambda: LocalSearch(step_sizes=()), "step_sizes must be positive"),
        (lambda: local_ilqr(Swing(), COST, [0.0], np.zeros((5, 1))), r"local_ilqr: wants a start \(2,\)"),  # pyright: ignore[reportCallIssue]
        (
            lambda: local_ilqr(Swing(), COST, np.zeros(2), np.zeros((5, 1)), search=LocalSearch.published(Q=np.eye(3))),  # pyright: ignore[reportCallIssue]
            r"Q \(2, 2\)",
        ),
        (lambda: local_ilqr_rig(numpy_rig([0.0, 0.0]), COST, np.zeros(5), n_obs=2), r"inputs \(T, K\)"),
        (lambda: local_ilqr_rig(lambda p: np.zeros((1, 5, 2)), COST, np.zeros((5, 1)), n_obs=2), r"\(1, 6, 2\), got \(1, 5, 2\)"),
        (lambda: environment_rig(Bench(), 0), "horizon must be at least 1"),
        (lambda: local_ilqr_rig(environment_rig(Bench(), 4), COST, np.zeros((5, 1)), n_obs=2), "made for 4 steps, but .* over 5"),
    ],
)
def test_misuse_is_refused_in_words(call, words):
    with pytest.raises(InvalidValue, match=words):
        call()

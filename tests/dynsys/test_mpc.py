"""Predictive control against LQR, bounded least squares, and the same problem written out with cvxpy."""

import cvxpy as cp
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import lsq_linear

from dynsys.control.constraints import Constraints
from dynsys.control.lqr import lqr
from dynsys.control.mpc import MPC
from dynsys.control.mpc_forms import Banded, Condensed
from dynsys.control.mpc_program import Program, program
from dynsys.control.mpc_system import linearised
from dynsys.dynamics import Discretized, rollout
from dynsys.errors import InvalidValue
from dynsys.models.koopman.dictionary import Monomials
from dynsys.models.koopman.edmd import EDMD
from dynsys.status import Status

from .control_cases import Pendulum, linear_problem

DT = 0.1
A = np.array([[1.0, DT], [0.0, 1.0]])
B = np.array([[DT**2 / 2], [DT]])
Q, R = np.diag([1.0, 0.1]), np.array([[0.1]])


def first(controller, x, state=None):
    """The input and the prediction from x."""
    u, state = controller.act(np.asarray(x, float), controller.init() if state is None else state)
    return u, state.prediction


def written_out(A, B, Q, R, P, x, T, low, high, rate=None, x_high=None, last=None, price=None, goal=0.0):
    """The problem with every state a variable, by cvxpy: inputs, and the multipliers of x <= x_high."""
    n, k = B.shape
    X, U, S = cp.Variable((T + 1, n)), cp.Variable((T, k)), cp.Variable((T, n), nonneg=True)
    kept = [X[0] == x, low <= U, high >= U] + [X[t + 1] == A @ X[t] + B @ U[t] for t in range(T)]
    if rate is not None:
        kept += [cp.abs(U[0] - last) <= rate, cp.abs(U[1:] - U[:-1]) <= rate]
    limit = X[1:] <= (1e6 if x_high is None else np.broadcast_to(x_high, (T, n))) + S
    cost = sum(cp.quad_form(X[t] - goal, Q) + cp.quad_form(U[t], R) for t in range(T)) + cp.quad_form(X[T] - goal, P)
    problem = cp.Problem(
        cp.Minimize(cost + (0 if price is None else price * cp.sum(S))), kept + [limit] + ([S == 0] if price is None else [])
    )
    problem.solve(solver="CLARABEL")
    assert problem.status == "optimal"
    return U.value, limit.dual_value


def test_without_active_constraints_it_is_lqr_whatever_the_horizon():
    A, B, Q, R, _ = linear_problem()
    x = np.array([1.0, -2.0, 0.5])
    for horizon in (1, 7, 30):
        u, found = first(MPC.of(A, B, Q, R, Constraints.of(3, 2, low=-99, high=99), horizon=horizon), x)
        regulator = lqr(A, B, Q, R)
        assert_allclose(u, -regulator.K @ x, atol=1e-6)
        assert_allclose(found.cost, x @ regulator.P @ x, rtol=1e-6)
        assert found.status is Status.SUCCESS


@pytest.mark.parametrize("solver", ["CLARABEL", "OSQP", "SCS"])
def test_box_inputs_equal_bounded_least_squares(solver):
    """The stacked problem |root(Q) x|^2 + |root(R) u|^2 over u in a box, with responses found by simulating unit inputs."""
    A, B, Q, R, F = linear_problem()
    x, T = np.array([1.0, -2.0, 0.5]), 10

    def residuals(u):
        z, parts = x, []
        for t in range(T):
            parts += [np.linalg.cholesky(Q).T @ z, np.linalg.cholesky(R).T @ u[t]]
            z = A @ z + B @ u[t]
        return np.concatenate([*parts, np.linalg.cholesky(F).T @ z])

    free = residuals(np.zeros((T, 2)))
    J = np.stack([residuals(e.reshape(T, 2)) - free for e in np.eye(2 * T)], axis=1)
    wanted = lsq_linear(J, -free, (-0.3, 0.5), tol=1e-14, method="bvls").x.reshape(T, 2)
    assert np.isclose(wanted, -0.3).any()
    assert np.isclose(wanted, 0.5).any()
    _, found = first(MPC.of(A, B, Q, R, Constraints.of(3, 2, low=-0.3, high=0.5), final=F, horizon=T, solver=solver), x)
    assert_allclose(found.inputs, wanted, atol=1e-6 if solver == "CLARABEL" else 2e-5 if solver == "OSQP" else 2e-3)  # their own tolerances
    assert_allclose(found.cost, np.sum((J @ wanted.ravel() + free) ** 2), rtol=1e-4)


def test_rates_limits_goals_and_ends_equal_the_problem_written_out():
    T, x, goal = 15, np.array([-1.0, 0.3]), np.array([0.5, 0.0])
    limits = Constraints.of(2, 1, low=-1, high=1, rate=0.25, x_high=[np.inf, 0.6])
    controller = MPC.of(A, B, Q, R, limits, goal=goal, horizon=T)
    wanted, _ = written_out(A, B, Q, R, np.asarray(controller.P), x, T, -1, 1, 0.25, [1e6, 0.6], np.zeros(1), goal=goal)
    _u, found = first(controller, x)
    assert_allclose(found.inputs, wanted, atol=1e-6)
    assert np.isclose(found.observations[:, 1].max(), 0.6)
    assert np.isclose(np.abs(np.diff(found.inputs[:, 0])).max(), 0.25)
    _, ended = first(MPC.of(A, B, Q, R, Constraints.of(2, 1, low=-4, high=4, end_low=-0.01, end_high=0.01), horizon=T), x)
    assert ended.status.ok
    assert np.abs(ended.observations[-1]).max() <= 0.01 + 1e-7
    _, general = first(MPC.of(A, B, Q, R, Constraints.of(2, 1, G=[[1.0, 1.0]], g=[-0.2]), horizon=T), x)
    assert np.isclose((general.observations[1:] @ np.ones(2)).max(), -0.2)


def test_a_loop_keeps_its_limits_and_reaches_a_goal_that_moves():
    goals = np.concatenate([np.zeros((20, 2)), np.tile([1.0, 0.0], (1, 1))])
    limits = Constraints.of(2, 1, low=-1, high=1, rate=0.3, x_low=[-np.inf, -0.5], x_high=[np.inf, 0.5])
    controller = MPC.of(A, B, Q, R, limits, goal=goals)
    x, state, inputs, xs = np.zeros(2), controller.init(), [0.0], []
    for _ in range(120):
        u, state = controller.act(x, state)
        assert state.prediction.status.ok, state.prediction.explanation
        inputs.append(u[0])
        x = A @ x + B @ u
        xs.append(x)
    assert np.abs(inputs).max() <= 1.0
    assert np.abs(np.diff(inputs)).max() <= 0.3 + 1e-7
    assert np.abs(np.stack(xs)[:, 1]).max() <= 0.5 + 1e-6
    assert abs(xs[0][0]) > 0  # it sees the goal coming, 20 steps ahead
    assert_allclose(x, [1.0, 0.0], atol=1e-3)


@pytest.mark.parametrize(("soft", "x_high", "broken", "softened"), [(None, 1.2, 0, 0), (0.5, 1.2, 0, 2), (None, -0.5, 4, 0)])
def test_both_ways_to_write_the_program_have_the_same_solution(soft, x_high, broken, softened):
    A, B, Q, R, F = linear_problem()
    limits = Constraints.of(3, 2, low=-0.5, high=0.4, rate=0.3, x_high=x_high, G=[[1.0, 1.0, 0.0]], g=[0.8], soft=soft, end_low=-0.9)
    controller = MPC.of(A, B, Q, R, limits, c=0.05 * np.ones(3), goal=[0.3, 0.0, 0.0], final=F, horizon=8)
    arrays = {name: np.asarray(getattr(controller, name)) for name in ("A", "B", "c", "C", "d", "Q", "R", "P")}
    arrays |= {"C": np.eye(3) + 0.1 * A, "d": 0.1 * np.ones(3)}  # an observation that is not the state
    now = np.array([1.0, -1.5, 0.5]), np.array([0.1, 0.2]), np.full((8, 3), 0.2), np.full((8, 2), 0.1), np.array([0.1, 0.0, 0.2])
    one, other = (Program(arrays, limits, 8, "CLARABEL", form).solve(*now) for form in (Banded, Condensed))
    assert_allclose(one.inputs, other.inputs, atol=1e-6)
    for mine, theirs in ((one.broken, other.broken), (one.softened, other.softened)):
        assert [(b.name, b.steps) for b in mine] == [(b.name, b.steps) for b in theirs]
        assert_allclose([b.amount for b in mine], [b.amount for b in theirs], atol=1e-4)
    assert (len(one.broken), len(one.softened)) == (broken, softened)


def test_what_can_not_be_kept_is_named_with_its_steps_and_the_loop_goes_on():
    """Full braking makes every position as low as it can be, so it breaks the limit at the fewest steps and by the least."""
    controller = MPC.of(A, B, Q, R, Constraints.of(2, 1, low=-1, high=1, x_low=[-np.inf, -3], x_high=[0.5, 3]))
    x = np.array([1.0, 0.0])
    u, found = first(controller, x)
    braked, at = [x], []
    for t in range(1, 21):
        braked.append(A @ braked[-1] - B[:, 0])
        at += [t] if braked[-1][0] > 0.5 else []
    assert found.status is Status.FAILED
    assert [(b.name, b.steps) for b in found.broken] == [("x[0] <= 0.5", tuple(at))]
    assert_allclose(found.broken[0].amount, braked[1][0] - 0.5, atol=1e-4)
    assert_allclose(u, [-1.0], atol=1e-4)
    assert "x[0] <= 0.5 is broken by 0.495 at steps 1 to" in found.explanation
    state, statuses = controller.init(), []
    for _ in range(60):
        u, state = controller.act(x, state)
        statuses.append(state.prediction.status.ok)
        x = A @ x + B @ u
    assert not statuses[0]
    assert statuses[-1]
    assert np.abs(x).max() < 0.02


def test_inputs_that_contradict_their_rates_are_named_too():
    controller = MPC.of(A, B, Q, R, Constraints.of(2, 1, low=-1, high=1, rate=0.25))
    start = controller.init()
    u, found = first(controller, [0.0, 0.0], type(start)(None, np.array([3.0]), 0))
    assert found.status is Status.FAILED
    assert {b.name[:2] for b in found.broken} <= {"du", "u["}
    assert_allclose(sum(b.amount for b in found.broken), 1.75, atol=1e-3)  # 3 - 0.25 - 1 has to be given by one or shared
    assert np.abs(u) <= 1.0


def test_a_soft_limit_is_kept_if_its_price_is_above_the_multiplier_and_sold_below():
    T, x = 15, np.array([-1.0, 0.0])

    def controller(soft):
        return MPC.of(A, B, Q, R, Constraints.of(2, 1, low=-2, high=2, x_high=[9.0, 0.4], soft=soft), horizon=T)

    hard, multipliers = written_out(A, B, Q, R, np.asarray(controller(None).P), x, T, -2, 2, x_high=[9.0, 0.4])
    threshold = float(np.max(multipliers))
    _, dear = first(controller(1.1 * threshold), x)
    assert_allclose(dear.inputs, hard, atol=1e-5)
    assert dear.softened == ()
    assert dear.status.ok
    _, cheap = first(controller(0.5 * threshold), x)
    wanted, _ = written_out(A, B, Q, R, np.asarray(controller(None).P), x, T, -2, 2, x_high=[9.0, 0.4], price=0.5 * threshold)
    assert_allclose(cheap.inputs, wanted, atol=1e-5)
    assert cheap.status.ok
    assert cheap.broken == ()
    assert [b.name for b in cheap.softened] == ["x[1] <= 0.4"]


def slow_manifold_runs(count=20, steps=20):
    """x1' = 0.95 x1, x2' = 0.5 x2 + (0.95^2 - 0.5) x1^2 + u: exactly linear on (x1, x2, x1^2)."""
    rng = np.random.default_rng(0)
    step = lambda x, u: np.array([0.95 * x[0], 0.5 * x[1] + (0.95**2 - 0.5) * x[0] ** 2 + u[0]])  # noqa: E731
    series, inputs = [], []
    for _ in range(count):
        x, us = [rng.normal(size=2)], rng.normal(size=(steps, 1))
        for u in us:
            x.append(step(x[-1], u))
        series.append(np.stack(x))
        inputs.append(np.concatenate([us, us[-1:]]))
    return step, series, inputs


def test_where_lifting_is_exact_it_is_mpc_on_the_lifted_system_and_better_than_on_the_linearised_one():
    step, series, inputs = slow_manifold_runs()
    limits = Constraints.of(2, 1, low=-1.5, high=1.5)
    model = EDMD.from_series(series, inputs=inputs, dictionary=Monomials(2), ridge=0.0)
    weights = np.diag([0.0, 1.0]), np.array([[0.01]])
    controller = MPC.lifted(model, *weights, limits, horizon=10)
    exact = np.array([[0.95, 0, 0], [0, 0.5, 0.95**2 - 0.5], [0, 0, 0.95**2]]), np.array([[0.0], [1.0], [0.0]])
    lifted = MPC.of(*exact, np.diag([0.0, 1.0, 0.0]), weights[1], Constraints.of(3, 1, low=-1.5, high=1.5), horizon=10)
    plain = MPC.of(np.diag([0.95, 0.5]), exact[1][:2], *weights, limits, horizon=10)
    costs = []
    for which in (controller, plain):
        x, state, cost = np.array([2.0, 1.0]), which.init(), 0.0
        for _ in range(40):
            u, state = which.act(x, state)
            if which is controller:
                wanted, _ = lifted.act(np.array([*x, x[0] ** 2]), lifted.init())
                assert_allclose(u, wanted, atol=1e-5)  # the fit has to find the operator from data first
            cost += x[1] ** 2 + 0.01 * u[0] ** 2
            x = step(x, u)
        costs.append(cost)
    assert costs[0] < 0.7 * costs[1]


def test_a_model_with_delays_predicts_as_it_runs():
    _, series, inputs = slow_manifold_runs()
    model = EDMD.from_series(series, inputs=inputs, dictionary=Monomials(2), delays=2, ridge=1e-10)
    controller = MPC.lifted(model, np.eye(2), np.eye(1), horizon=6, final=np.eye(2))
    state, z = controller.init(), None
    for x in series[0][:3]:
        z = model.lift(jnp.asarray(x)) if z is None else model.correct(model.step(z, jnp.asarray(state.last)), jnp.asarray(x))
        _, state = controller.act(x, state)
    found = state.prediction
    run = rollout(model, z, 6, jnp.asarray(found.inputs))
    assert_allclose(found.observations[1:], jax.vmap(model.observe)(run), atol=1e-9)


def test_a_map_is_linearised_anywhere():
    model = Discretized(Pendulum(), 0.05)  # pyright: ignore[reportCallIssue]
    z, u = np.array([1.0, 0.5]), np.array([0.3])
    a, b, c = linearised(model, z, u)
    assert_allclose(a @ z + b @ u + c, model.step(jnp.asarray(z), jnp.asarray(u)), atol=1e-12)
    assert_allclose(a, model.jacobian(jnp.asarray(z), jnp.asarray(u)), atol=1e-12)
    controller = MPC.of(*linearised(model, np.zeros(2), np.zeros(1))[:2], Q, R, Constraints.of(2, 1, low=-6, high=6))
    x, state, step = np.array([0.3, 0.0]), controller.init(), jax.jit(model.step)
    for _ in range(80):
        u, state = controller.act(x, state)
        x = np.asarray(step(jnp.asarray(x), jnp.asarray(u)))
    assert np.abs(x).max() < 1e-3


def test_a_goal_off_the_origin_is_held_by_its_resting_input():
    a, c = np.array([[0.9, 0.1], [0.0, 0.8]]), np.array([0.0, 0.05])
    goal = np.array([0.5, 0.5])  # 0.9 * 0.5 + 0.1 * 0.5 = 0.5, so an input on the second state holds it
    controller = MPC.of(a, [[0.0], [1.0]], Q, R, c=c, goal=goal)
    assert_allclose(controller.rest, [[0.5 - 0.4 - 0.05]], atol=1e-12)
    assert_allclose(first(controller, goal)[0], controller.rest[0], atol=1e-7)
    assert_allclose(first(controller, goal)[1].cost, 0.0, atol=1e-9)


def test_the_program_is_written_once_and_the_module_holds_only_what_can_be_stored():
    controller = MPC.of(A, B, Q, R, Constraints.of(2, 1, low=-1, high=1))
    arrays = {name: np.asarray(getattr(controller, name)) for name in ("A", "B", "c", "C", "d", "Q", "R", "P")}
    again = jax.tree.map(lambda leaf: jnp.asarray(leaf) if eqx.is_array_like(leaf) and np.ndim(leaf) else leaf, controller)
    other = {name: getattr(again, name) for name in arrays}
    assert program(arrays, controller.constraints, 20, "CLARABEL") is program(other, again.constraints, 20, "CLARABEL")
    assert np.array_equal(first(controller, [1.0, 0.0])[0], first(again, [1.0, 0.0])[0])
    for leaf in jax.tree.leaves(controller):
        assert isinstance(leaf, int | float | str) or np.isfinite(np.asarray(leaf)).all()


def test_a_solver_that_fails_moves_the_last_plan_on(monkeypatch):
    controller = MPC.of(A, B, Q, R, Constraints.of(2, 1, low=-1, high=1), horizon=9)
    u, state = controller.act(np.array([1.0, 0.0]), controller.init())
    monkeypatch.setattr("dynsys.control.qp.Clarabel.solve", lambda *_: (None, "CLARABEL: out of luck"))
    v, after = controller.act(A @ np.array([1.0, 0.0]) + B @ u, state)
    assert after.prediction.status is Status.FAILED
    assert after.prediction.explanation == "CLARABEL: out of luck"
    assert_allclose(v, state.prediction.inputs[1], atol=1e-8)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda: first(MPC.of(A, B, Q, R), [np.nan, 0.0]), "the observation holds NaN or inf"),
        (lambda: first(MPC.of(A, B, Q, R), np.zeros(3)), r"wants an observation \(2,\)"),
        (lambda: MPC.of(A, B[:1], Q, R), r"wants A \(M, M\), B"),
        (lambda: MPC.of(A, B, np.eye(3), R), r"Q must be finite, \(2, 2\)"),
        (lambda: MPC.of(A, B, -np.eye(2), R), "Q must be positive semidefinite"),
        (lambda: MPC.of(A, B, Q, 0 * R), "R must be positive definite"),
        (lambda: MPC.of(A, B, Q, R, Constraints.of(3, 1)), "the constraints are for 3 observations and 1 inputs"),
        (lambda: MPC.of(A, B, Q, R, goal=np.zeros(3)), r"goal must be finite, \(2,\)"),
        (lambda: MPC.of(A, B, Q, R, rest=np.zeros(3)), r"rest must be finite, \(1,\)"),
        (lambda: MPC.of(A, B, Q, R, horizon=0), "horizon must be at least 1"),
        (lambda: MPC.of(2 * np.eye(2), B, Q, R), "no gain stabilises this system"),
        (lambda: first(MPC.of(A, B, Q, R, solver="NOPE"), [0.0, 0.0]), "solver must be one that cvxpy finds here"),
        (lambda: MPC.lifted(Discretized(Pendulum(), 0.1), Q, R), "needs a Koopman model with inputs, got Discretized"),  # pyright: ignore
        (lambda: Constraints.of(2, 1, low=1, high=-1), "low must not be above high"),
        (lambda: Constraints.of(2, 1, x_low=np.zeros(3)), r"x_low and x_high must be numbers or \(2,\)"),
        (lambda: Constraints.of(2, 1, rate=-1), "rate must be at least 0"),
        (lambda: Constraints.of(2, 1, G=np.eye(2)), "G and g come together"),
        (lambda: Constraints.of(2, 1, x_high=1, soft=0.0), "soft must be positive"),
        (lambda: Constraints.of(2, 1, x_high=1, soft=[1.0, 2.0, 3.0]), "one for each of 2 rows"),
    ],
)
def test_what_can_not_be_done_is_refused_in_words(attempt, words):
    with pytest.raises(InvalidValue, match=words):
        attempt()


def test_a_bilinear_model_is_refused():
    _, series, inputs = slow_manifold_runs()
    model = EDMD.from_series(series, inputs=inputs, dictionary=Monomials(2), ridge=1e-8, bilinear=True)
    with pytest.raises(InvalidValue, match="not linear in state and input"):
        MPC.lifted(eqx.tree_at(lambda m: m.N, model, np.ones_like(model.N)), Q, R)


def test_a_controller_from_a_file_acts_as_the_one_that_was_written(tmp_path):
    from dynsys.control.store import load_controller, save_controller

    A, B = np.array([[1.0, 0.1], [0.0, 1.0]]), np.array([[0.005], [0.1]])
    mpc = MPC.of(A, B, np.eye(2), np.eye(1), Constraints.of(2, 1, low=-1.0, high=1.0, x_high=[np.inf, 0.5]), horizon=10)
    save_controller(mpc, tmp_path / "mpc.h5")
    again, x = load_controller(tmp_path / "mpc.h5"), np.array([1.0, 0.2])
    assert np.array_equal(again.act(x, again.init())[0], mpc.act(x, mpc.init())[0])

"""Controllers with a known answer: a regulator, a plan followed, the pendulum swung up by planning at every step."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from dynsys.control.controller import Following, LinearFeedback, RecedingHorizon
from dynsys.control.cost import Quadratic
from dynsys.control.ilqr import ilqr
from dynsys.control.lqr import finite_lqr, lqr
from dynsys.dynamics import Discretized
from dynsys.errors import InvalidValue

from .control_cases import LinearMap, Pendulum, linear_problem


def test_a_regulator_goes_to_its_goal_inside_the_limits():
    A, B, Q, R, _ = linear_problem()
    goal = np.array([1.0, 0.0, 0.0])
    rest = np.linalg.lstsq(B, goal - A @ goal, rcond=None)[0]
    drift = goal - A @ goal - B @ rest  # what no constant input cancels is added, so that the goal is an equilibrium
    controller = LinearFeedback.of(lqr(A, B, Q, R), goal, rest, low=-1.0, high=1.0)
    x, state = goal + 0.1, controller.init()
    for _ in range(200):
        u, state = controller.act(x, state)
        assert np.all(np.abs(u) <= 1.0)
        x = A @ x + B @ u + drift
    assert_allclose(x, goal, atol=1e-8)


def test_a_regulator_of_angles_takes_the_short_way():
    controller = LinearFeedback.of(lqr([[1.0]], [[0.1]], [[1.0]], [[1.0]]), [0.0], [0.0], angles=(0,))
    assert_allclose(controller.act(np.array([2 * np.pi - 0.1]), ())[0], controller.act(np.array([-0.1]), ())[0], atol=1e-12)


def test_a_plan_is_followed_with_its_gains():
    """On the linear problem the plan's feedback is the optimal one, also from a disturbed state."""
    A, B, Q, R, F = linear_problem()
    model = LinearMap(jnp.asarray(A), jnp.asarray(B))  # pyright: ignore[reportCallIssue]
    x = np.array([1.0, -2.0, 0.5])
    controller = Following.of(ilqr(model, Quadratic.of(Q, R, F), x, np.zeros((20, 2))))
    exact, state = finite_lqr(A, B, Q, R, F, 20), controller.init()
    x = x + 0.3
    for t in range(20):
        u, state = controller.act(x, state)
        assert_allclose(u, -np.asarray(exact.K[t]) @ x, atol=1e-7)
        x = A @ x + B @ u
    assert state == 20


def test_planning_at_every_step_swings_the_pendulum_up():
    model = Discretized(Pendulum(), 0.05)  # pyright: ignore[reportCallIssue]
    cost = Quadratic.of([1.0, 0.1], [0.001], [3.0, 0.3], angles=(0,))
    controller = RecedingHorizon.of(model, cost, low=-2.0, high=2.0)
    state, x = controller.init(0), np.array([np.pi, 0.0])
    for _ in range(150):
        u, state = controller.predict(x, state)
        assert np.abs(u).max() <= 2.0
        x = np.asarray(model.step(jnp.asarray(x), jnp.asarray(u)))
    assert abs(np.mod(x[0] + np.pi, 2 * np.pi) - np.pi) < 0.05
    assert abs(x[1]) < 0.05


def test_the_same_key_gives_the_same_inputs():
    model = Discretized(Pendulum(), 0.05)  # pyright: ignore[reportCallIssue]
    controller = RecedingHorizon.of(model, Quadratic.of([1.0, 0.1], [0.01]), low=-2.0, high=2.0, horizon=10)
    x = np.array([1.0, 0.0])
    first, second, other = (controller.act(x, controller.init(key))[0] for key in (1, 1, 2))
    assert np.array_equal(first, second)
    assert other.shape == (1,)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda c: c.act(np.zeros(5), c.init()), r"wants an observation \(2,\), got \(5,\)"),
        (lambda c: c.act(np.array([np.nan, 0.0]), c.init()), "the observation holds NaN or inf"),
        (lambda c: RecedingHorizon.of(c.model, c.cost, low=-np.inf, high=2.0), "low and high must be finite"),
        (lambda c: RecedingHorizon.of(c.model, c.cost, low=-1.0, high=1.0, starts=0), "must be at least 1"),
    ],
)
def test_what_a_controller_can_not_do_is_refused_in_words(attempt, words):
    model = Discretized(Pendulum(), 0.05)  # pyright: ignore[reportCallIssue]
    controller = RecedingHorizon.of(model, Quadratic.of([1.0, 0.1], [0.01]), low=-2.0, high=2.0, horizon=10)
    with pytest.raises(InvalidValue, match=words):
        attempt(controller)

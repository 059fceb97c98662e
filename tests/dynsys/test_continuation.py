"""Planning through easier problems: the same answer where there is one, a better one where there are many."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from dynsys.control.continuation import ilqr_through
from dynsys.control.cost import Quadratic
from dynsys.control.ilqr import Search, ilqr
from dynsys.dynamics import Discretized
from dynsys.errors import InvalidValue

from .control_cases import LinearMap, Pendulum, linear_problem


def test_a_convex_problem_has_the_same_answer_by_any_way():
    A, B, Q, R, F = linear_problem(0)
    model, cost = LinearMap(jnp.asarray(A), jnp.asarray(B)), Quadratic.of(Q, R, F)  # pyright: ignore[reportCallIssue]
    x, search = np.array([1.0, -2.0, 0.5]), Search(tolerance=1e-15)
    easy = (cost.weighted(inputs=30.0, end=0.1), search)
    direct = ilqr(model, cost, x, np.zeros((8, 2)), low=-0.5, high=0.5, search=search)
    through = ilqr_through(model, [easy, (cost, search)], x, np.zeros((8, 2)), low=-0.5, high=0.5)
    assert_allclose(through.inputs, direct.inputs, atol=1e-6)
    assert_allclose(through.cost, direct.cost, rtol=1e-12)
    first = ilqr(model, easy[0], x, np.zeros((8, 2)), low=-0.5, high=0.5, search=search)
    assert np.abs(first.inputs - direct.inputs).max() > 1e-2  # the first problem is another one
    last = ilqr(model, cost, x, first.inputs, low=-0.5, high=0.5, search=search)
    assert through.iterations == first.iterations + last.iterations


def test_the_pendulum_swings_up_sooner_by_dearer_inputs():
    """In 40 iterations in all, where the problem alone leaves a cost that is much higher."""
    model = Discretized(Pendulum(), 0.05)  # pyright: ignore[reportCallIssue]
    cost = Quadratic.of([0.5, 0.05], [0.0125], [500.0, 500.0])
    guess = 0.1 * np.random.default_rng(0).normal(size=(100, 1))
    alone = ilqr(model, cost, [np.pi, 0.0], guess, low=-2.0, high=2.0, search=Search(iterations=40, on="states", factor=2.0, mu=1e-6))
    half = Search(iterations=20, on="states", factor=2.0, mu=1e-6)
    stages = [(cost.weighted(inputs=10.0, end=0.1), half), (cost, half)]
    plan = ilqr_through(model, stages, [np.pi, 0.0], guess, low=-2.0, high=2.0)
    assert plan.iterations <= 40
    assert np.abs(plan.inputs).max() <= 2.0
    assert_allclose(np.abs(plan.states[-1]), 0.0, atol=0.1)
    assert plan.cost < 0.9 * alone.cost


def test_weights_scale_what_they_name():
    cost = Quadratic.of([1.0, 2.0], [3.0], [4.0, 5.0], C=[[0.5], [0.25]], goal=[0.1, 0.2], rest=[0.3])
    x, u = jnp.array([1.0, -1.0]), jnp.array([2.0])
    off, push = np.array([0.9, -1.2]), 1.7
    other = cost.weighted(states=4.0, inputs=9.0, end=2.0)
    # 4 (1 * .81 + 2 * 1.44) + 9 * 3 * 1.7^2 + 6 * 2 (off . C) 1.7
    stage = 4 * (off[0] ** 2 + 2 * off[1] ** 2) + 27 * push**2 + 12 * (0.5 * off[0] + 0.25 * off[1]) * push
    assert_allclose(other.stage(x, u, 0), stage, rtol=1e-12)
    assert_allclose(other.final(x), 2 * (4 * off[0] ** 2 + 5 * off[1] ** 2), rtol=1e-12)
    assert_allclose(other.goal, cost.goal)


def test_no_stage_is_refused_in_words():
    A, B, *_ = linear_problem(0)
    model = LinearMap(jnp.asarray(A), jnp.asarray(B))  # pyright: ignore[reportCallIssue]
    with pytest.raises(InvalidValue, match="at least one"):
        ilqr_through(model, [], np.ones(3), np.zeros((5, 2)))

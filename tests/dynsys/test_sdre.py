"""State-dependent Riccati control: the equation against scipy, a scalar formula, exact factorisations, and a cart that LQR drops."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from numpy.testing import assert_allclose

from dynsys.control.controller import LinearFeedback
from dynsys.control.factored import Learned, Written, learn, transitions
from dynsys.control.lqr import lqr, lqr_of
from dynsys.control.riccati import gain, riccati
from dynsys.control.sdre import SDRE, OnSegment
from dynsys.dynamics import AbstractFlow, Discretized
from dynsys.errors import InvalidValue
from dynsys.status import Status

from .control_cases import LinearMap, Pendulum, linear_problem


class Cart(AbstractFlow):
    """A pole on a cart, z = (place, angle from upright, their rates): masses 1 and 0.1, length 0.5, by Lagrange's equations."""

    dim: int = 4
    n_inputs: int = 1

    def field(self, t, z, u=None):
        s, c = jnp.sin(z[1]), jnp.cos(z[1])
        push = (0.0 if u is None else u[0]) + 0.1 * 0.5 * z[3] ** 2 * s
        turn = (9.81 * s - c * push / 1.1) / (0.5 * (1.0 - 0.1 * c**2 / 1.1))
        return jnp.stack([z[2], z[3], (push - 0.1 * 0.5 * turn * c) / 1.1, turn])


@functools.cache
def stepper(flow, dt):
    """One compiled step of a kind of flow."""
    return jax.jit(Discretized(flow(), dt).step)


def ends(flow, controller, x, seconds=6.0, dt=0.02):
    """Where the closed loop of a kind of flow is at the end, or inf if it ran away."""
    step, state = stepper(flow, dt), controller.init()
    for _ in range(round(seconds / dt)):
        u, state = controller.act(x, state)
        x = np.asarray(step(jnp.asarray(x), jnp.asarray(u)))
        if not np.abs(x).max() < 1e3:
            return np.inf
    return float(np.abs(x).max())


@pytest.mark.parametrize("continuous", [False, True])
def test_doubling_solves_the_riccati_equation(continuous):
    rng, solve = np.random.default_rng(0), jax.jit(gain, static_argnames="continuous")
    for scale in (0.3, 1.0, 3.0) * 3:
        A, B, root = scale * rng.normal(size=(4, 4)), rng.normal(size=(4, 2)), rng.normal(size=(4, 2))
        Q, R = root @ root.T, np.diag([0.5, 2.0])  # Q of rank 2
        wanted = lqr(A, B, Q, R, continuous=continuous)
        found, sound = solve(*(jnp.asarray(a) for a in (A, B, Q, R)), continuous=continuous)
        assert bool(sound)
        assert_allclose(found, wanted.K, rtol=0, atol=1e-7 * np.abs(wanted.K).max())  # the equation's own conditioning takes digits
    P = jax.jit(riccati, static_argnames="continuous")(*(jnp.asarray(a) for a in (A, B, Q, R)), continuous=continuous)
    assert_allclose(P, wanted.P, atol=1e-6 * wanted.P.max())


@pytest.mark.parametrize("continuous", [False, True])
def test_what_no_gain_stabilises_is_known(continuous):
    solve = jax.jit(gain, static_argnames="continuous")
    stuck = jnp.asarray([[1.5, 0.0], [1.0, 0.2]])
    assert not bool(solve(stuck, jnp.asarray([[0.0], [1.0]]), jnp.eye(2), jnp.eye(1), continuous=continuous)[1])
    unseen = solve(jnp.asarray([[1.5]]), jnp.eye(1), jnp.zeros((1, 1)), jnp.eye(1), continuous=continuous)  # Q sees nothing: P stays 0
    assert not bool(unseen[1])


def test_a_scalar_by_its_formula():
    """x' = (1 + x^2) x + u: k = a + sqrt(a^2 + q / r) with a = 1 + x^2, so the closed loop is x' = -sqrt(a^2 + q / r) x everywhere."""
    factored = Written(lambda x: (1 + x**2)[:, None], lambda x: jnp.ones((1, 1)), 1, True)  # pyright: ignore[reportCallIssue]
    controller = SDRE.of(factored, [2.0], [0.5], [0.0], [0.0])
    state = controller.init()
    for x in (-3.0, 0.1, 2.0):
        a = 1 + x**2
        u, state = controller.act(np.array([x]), state)
        assert_allclose(u, [-(a + np.sqrt(a**2 + 4.0)) * x], rtol=1e-9)
    assert (state.steps, state.failed) == (3, 0)


def test_a_factorisation_on_the_segment_is_exact():
    goal, rest, x = jnp.asarray([np.pi, 0.0]), jnp.zeros(1), jnp.asarray([1.0, -2.0])
    for system in (Pendulum(), Discretized(Pendulum(), 0.05)):  # pyright: ignore[reportCallIssue]
        made = OnSegment(system)  # pyright: ignore[reportCallIssue]
        A, B = jax.jit(made.matrices)(x, goal, rest)
        assert_allclose(A @ (x - goal), made.rate(x, rest) - made.rate(goal, rest), atol=1e-12)
        assert_allclose(B[:, 0], made.rate(x, jnp.ones(1)) - made.rate(x, rest), atol=1e-3)  # exact for a flow that is affine in u
        near, _ = jax.jit(made.matrices)(goal, goal, rest)
        assert_allclose(near, jax.jacfwd(made.rate)(goal, rest), atol=1e-12)


def test_on_a_linear_map_it_is_lqr_and_it_holds_a_goal_off_the_origin():
    A, B, Q, R, _ = linear_problem()
    system = LinearMap(jnp.asarray(A), jnp.asarray(B))  # pyright: ignore[reportCallIssue]
    x = np.array([1.0, -2.0, 0.5])
    controller = SDRE.of(system, Q, R, np.zeros(3), np.zeros(2))
    assert_allclose(controller.act(x, controller.init())[0], -lqr(A, B, Q, R).K @ x, atol=1e-9)
    pendulum = Pendulum()
    goal = np.array([0.5, 0.0])
    rest = np.array([-5.0 * np.sin(0.5)])  # 15 sin(0.5) + 3 u = 0
    held = SDRE.of(pendulum, [1.0, 1.0], [1.0], goal, rest)
    assert_allclose(held.init().K, lqr_of(pendulum, goal, rest, np.eye(2), np.eye(1)).K, atol=1e-9)
    step, state, z = stepper(Pendulum, 0.02), held.init(), np.array([-2.0, 0.0])
    for _ in range(500):
        u, state = held.act(z, state)
        z = np.asarray(step(jnp.asarray(z), jnp.asarray(u)))
    assert_allclose(z, goal, atol=1e-6)
    limited = SDRE.of(pendulum, [1.0, 1.0], [1.0], goal, rest, low=-3.0, high=3.0)
    assert_allclose(limited.act(np.array([-2.0, 0.0]), limited.init())[0], [3.0])


def test_where_no_gain_stabilises_the_last_one_is_kept():
    factored = Written(lambda x: jnp.ones((1, 1)), lambda x: (1 - x)[:, None], 1, True)  # pyright: ignore[reportCallIssue]
    controller = SDRE.of(factored, [1.0], [1.0], [0.0], [0.0])
    before = controller.act(np.array([0.5]), controller.init())[1]
    u, state = controller.act(np.array([1.0]), before)
    assert state.status is Status.FAILED
    assert (state.failed, state.steps) == (1, 2)
    assert_allclose(u, -before.K[0])
    assert controller.act(np.array([0.5]), state)[1].status is Status.SUCCESS


@pytest.mark.slow
def test_a_learned_factorisation_catches_a_pole_that_lqr_drops():
    """From the same data: LQR about the learned linearisation and about least squares, against the learned state-dependent gain.

    At 1.25 rad the exact factorisation holds the pole too, so that this asks of learning no more than there is.
    """
    flow, rng = Cart(), np.random.default_rng(0)
    x = rng.uniform(-1, 1, (2000, 4)) * np.array([1.0, 1.5, 3.0, 5.0])
    u = rng.uniform(-20, 20, (2000, 1))
    y = np.asarray(jax.vmap(lambda x, u: flow.field(0.0, x, u))(jnp.asarray(x), jnp.asarray(u)))
    fit = learn(x, u, y, goal=np.zeros(4), rest=np.zeros(1), continuous=True, hidden=24, steps=1500, batch=128, key=jr.key(0))
    assert fit.error < 0.02
    assert fit.losses.shape == (1500,)
    assert_allclose(fit.factored.rate(jnp.zeros(4), jnp.zeros(1)), np.zeros(4), atol=1e-12)  # the goal is an equilibrium, learned or not
    Q, R, start = [1.0, 1.0, 0.1, 0.1], [0.1], np.array([0.0, 1.25, 0.0, 0.0])
    linear = np.linalg.lstsq(np.concatenate([x, u], axis=1), y, rcond=None)[0]
    for A, B in (fit.linear, (linear[:4].T, linear[4:].T)):
        regulator = lqr(A, B, np.diag(Q), np.diag(R), continuous=True)
        assert ends(Cart, LinearFeedback.of(regulator, np.zeros(4), np.zeros(1)), 0.3 * start) < 0.05
        assert ends(Cart, LinearFeedback.of(regulator, np.zeros(4), np.zeros(1)), start) == np.inf
    for system in (flow, fit.factored):
        assert ends(Cart, SDRE.of(system, Q, R, np.zeros(4), np.zeros(1)), start) < 0.05


def test_a_map_is_learned_from_trajectories():
    """x' = 0.9 x - 0.2 x^3 + (1 + 0.5 x) u: of one state f(x) = A(x) x determines A, so it can be compared."""
    rng, series, inputs = np.random.default_rng(1), [], []
    for _ in range(40):
        x, us = [rng.uniform(-1.2, 1.2, 1)], rng.uniform(-0.5, 0.5, (15, 1))
        for v in us:
            x.append(0.9 * x[-1] - 0.2 * x[-1] ** 3 + (1 + 0.5 * x[-1]) * v)
        series.append(np.stack(x))
        inputs.append(us)
    x, u, y = transitions(series, inputs)
    assert x.shape == u.shape == y.shape == (600, 1)
    assert_allclose(y, 0.9 * x - 0.2 * x**3 + (1 + 0.5 * x) * u, atol=1e-12)
    fit = learn(x, u, y, goal=[0.0], rest=[0.0], continuous=False, hidden=16, steps=800, gauge=0.0, key=jr.key(0))
    again = learn(x, u, y, goal=[0.0], rest=[0.0], continuous=False, hidden=16, steps=800, gauge=0.0, key=jr.key(0))
    assert np.array_equal(fit.losses, again.losses)
    for at in (-0.8, 0.5, 0.9):
        A, B = fit.factored.matrices(jnp.asarray([at]), jnp.zeros(1), jnp.zeros(1))
        assert_allclose([A[0, 0], B[0, 0]], [0.9 - 0.2 * at**2, 1 + 0.5 * at], atol=0.03)  # the fit's own error, about 1 %


class Twice(LinearMap):
    """Shows twice its state."""

    A: jax.Array = eqx.field(default_factory=lambda: jnp.eye(2))
    B: jax.Array = eqx.field(default_factory=lambda: jnp.ones((2, 1)))

    def observe(self, z):
        return 2 * z


def made(**change):
    data = {"x": np.ones((9, 2)), "u": np.ones((9, 1)), "y": np.ones((9, 2)), "goal": np.zeros(2), "rest": np.zeros(1)}
    return learn(**(data | change), continuous=True, key=jr.key(0))


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda: SDRE.of(Pendulum(), [1.0, 1.0], [1.0], [1.0, 0.0], [0.0]), "is no equilibrium"),
        (lambda: SDRE.of(Pendulum(), [1.0], [1.0], [0.0, 0.0], [0.0]), r"Q must be finite, \(2, 2\)"),
        (lambda: SDRE.of(Pendulum(), [1.0], [1.0], [0.0], [0.0]), r"wants goal \(2,\), a state of the Pendulum"),
        (lambda: SDRE.of(Twice(), [1.0, 1.0], [1.0], [0.0, 0.0], [0.0]), "does not observe its whole state as it is"),
        (lambda: SDRE.of(Pendulum(), [1.0, 1.0], [0.0], [0.0, 0.0], [0.0]), "R must be positive definite"),
        (lambda: SDRE.of(Pendulum(), [1.0, 1.0], [1.0], [0.0, 0.0], [0.0, 0.0]), r"rest \(1,\)"),
        (lambda: SDRE.of(Pendulum(), [1.0, 1.0], [1.0], [0.0, 0.0], [0.0]).predict(np.full(2, np.nan)), "holds NaN or inf"),
        (
            lambda: SDRE.of(LinearMap(2 * jnp.eye(2), jnp.asarray([[1.0], [0.0]])), [1, 1], [1], [0, 0], [0]),  # pyright: ignore
            "no gain stabilises the goal",
        ),
        (lambda: made(u=np.ones((8, 1))), r"wants x \(S, 2\), u \(S, 1\)"),
        (lambda: made(x=np.full((9, 2), np.nan)), "hold NaN or inf"),
        (lambda: made(holdout=0.9), "9 samples are too few"),
        (lambda: made(steps=0), "must be at least 1"),
    ],
)
def test_what_can_not_be_done_is_refused_in_words(attempt, words):
    with pytest.raises(InvalidValue, match=words):
        attempt()


def test_a_learned_controller_holds_only_arrays_and_numbers():
    one, none = np.eye(1), np.zeros(1)
    fit = Learned(one, one, (np.ones((2, 1)), np.ones((2, 2))), (np.zeros(2), np.zeros(2)), none, none, np.ones(1), True)  # pyright: ignore
    at = eqx.tree_at(lambda m: m.goal, fit, np.full(1, 0.7))
    assert_allclose(at.rate(jnp.full(1, 0.7), jnp.zeros(1)), [0.0])  # of a flow, at its goal
    assert_allclose(dataclasses.replace(at, continuous=False).rate(jnp.full(1, 0.7), jnp.zeros(1)), [0.7])  # of a map
    for leaf in jax.tree.leaves(SDRE.of(fit, [1.0], [1.0], [0.0], [0.0])):
        assert np.asarray(leaf).dtype.kind in "fib"

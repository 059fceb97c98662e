"""Candidates and policies: positive by construction, zero at the goal, of the degree they say; attacks find what is planted."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.linalg import solve_discrete_lyapunov

from dynsys.dynamics import AbstractFlow, AbstractMap
from dynsys.errors import InvalidValue, UnknownName
from dynsys.verify.attack import Loop, attack, inward
from dynsys.verify.level import largest_level
from dynsys.verify.lyapunov import (
    NeuralLyapunov,
    PiecewiseAffineLyapunov,
    PiecewiseQuadraticLyapunov,
    PolynomialLyapunov,
    QuadraticLyapunov,
    monomials,
)
from dynsys.verify.network import Network
from dynsys.verify.policy import NeuralPolicy, SaturatedLinear
from dynsys.verify.symbolic import SymbolicLyapunov

GOAL = np.array([0.3, -0.2])


def candidates():
    net = Network.init((2, 8, 3), key=jr.key(0))
    leaky = Network.init((2, 8, 3), activation="leaky", key=jr.key(1))
    R, goal = jr.normal(jr.key(2), (2, 2)), jnp.asarray(GOAL)
    powers = [(1, 0), (0, 1), (2, 0), (1, 1), (0, 2)]
    return {
        "quadratic": QuadraticLyapunov.of([[2.0, 0.5], [0.5, 1.0]], GOAL),
        "polynomial": PolynomialLyapunov.of(np.random.default_rng(0).normal(size=(3, 5)), powers, 0.1, GOAL),
        "neural": NeuralLyapunov(net=net, R=R, goal=goal, eps=0.1),
        "neural-absolute": NeuralLyapunov(net=leaky, R=R, goal=goal, eps=0.1, form="absolute"),
        "affine": PiecewiseAffineLyapunov.of([[1, 0], [-1, 0.5], [0, 1], [0, -2]], GOAL),
        "piecewise": PiecewiseQuadraticLyapunov.of([np.eye(2), 2 * np.eye(2)], [[1.0, 1.0]], [-0.05], GOAL),
        "symbolic": SymbolicLyapunov.of("2*(x - 0.5*y)**2 + y**2 + (1 - cos(x)) + log(1 + (x*y)**2)", ("x", "y"), GOAL),
    }


@pytest.mark.parametrize("name", candidates())
def test_a_candidate_is_zero_at_the_goal_and_positive_elsewhere(name):
    V = candidates()[name]
    assert float(V.value(V.goal)) == 0.0
    d = jr.normal(jr.key(3), (2000, 2)) * jnp.exp(jr.uniform(jr.key(4), (2000, 1), minval=-12.0, maxval=4.0))
    assert float(jnp.min(jax.vmap(V.value)(V.goal[None, :] + d))) > 0


@pytest.mark.parametrize("name", candidates())
def test_near_the_goal_v_grows_as_its_degree_says(name):
    V = candidates()[name]
    d = jnp.asarray([0.6, -0.8])
    small, smaller = (float(V.value(V.goal + r * d)) for r in (1e-4, 5e-5))
    assert_allclose(small / smaller, 2.0**V.degree, rtol=1e-2)  # the next power is r smaller: 1e-4 times its factor


def test_the_lyapunov_equation_is_solved_and_its_ellipse_measured():
    A = np.array([[0.9, 0.4], [-0.1, 0.7]])
    V = QuadraticLyapunov.of_linear(A)
    assert_allclose(V.P, solve_discrete_lyapunov(A.T, np.eye(2)), atol=1e-12)
    assert_allclose(A.T @ V.P @ A - V.P, -np.eye(2), atol=1e-10)
    C = np.array([[-1.0, 3.0], [0.0, -0.5]])
    P = np.asarray(QuadraticLyapunov.of_linear(C, continuous=True).P)
    assert_allclose(C.T @ P + P @ C, -np.eye(2), atol=1e-10)
    assert_allclose(QuadraticLyapunov.of(np.diag([4.0, 1.0])).volume(9.0), np.pi * 1.5 * 3.0, rtol=1e-12)
    assert_allclose(QuadraticLyapunov.of(np.eye(3)).volume(4.0), 4 / 3 * np.pi * 8, rtol=1e-12)
    with pytest.raises(InvalidValue, match=r"eigenvalue 1\.1"):
        QuadraticLyapunov.of_linear([[1.1]])


def test_monomials_are_products_of_powers():
    d = jnp.asarray([2.0, 3.0])
    assert_allclose(monomials(d, ((1, 0), (0, 2), (2, 1), (3, 0))), [2, 9, 12, 8])


def test_a_piecewise_quadratic_takes_the_matrix_of_its_region():
    P = [k * np.eye(2) for k in (1.0, 2.0, 3.0, 4.0)]
    V = PiecewiseQuadraticLyapunov.of(P, np.eye(2), np.zeros(2))
    corners = [[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]  # bit 0 is the first border
    assert_allclose([V.value(jnp.asarray(x)) for x in corners], [2, 4, 6, 8])


def test_what_can_not_be_positive_is_refused():
    net = Network.init((2, 4, 1), key=jr.key(0))
    with pytest.raises(InvalidValue, match="positive definite"):
        QuadraticLyapunov.of([[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(InvalidValue, match="eps must be positive"):
        NeuralLyapunov(net=net, R=jnp.eye(2), goal=jnp.zeros(2), eps=0.0)
    with pytest.raises(InvalidValue, match="not positive in the direction"):
        PiecewiseAffineLyapunov.of([[1, 0], [-1, 0], [0, 1]])
    with pytest.raises(InvalidValue, match="floor must be positive"):
        PolynomialLyapunov.of(np.eye(2), [(1, 0), (0, 1)], 0.0)
    with pytest.raises(InvalidValue, match="not all zero"):
        PolynomialLyapunov.of(np.eye(2), [(0, 0), (0, 1)], 1.0)
    with pytest.raises(UnknownName, match="tanh"):
        Network.init((2, 4, 1), activation="tan", key=jr.key(0))


def test_policies_rest_at_the_goal_and_keep_their_limits():
    net = Network.init((2, 8, 1), key=jr.key(5))
    linear = SaturatedLinear.of([[1.0, 2.0]], GOAL, [0.1], -0.5, 0.5)
    neural = NeuralPolicy.of(net, [[1.0, 2.0]], GOAL, [0.1], -0.5, 0.5)
    x = 3 * jr.normal(jr.key(6), (500, 2))
    for policy in (linear, neural):
        assert float(policy(jnp.asarray(GOAL))[0]) == 0.1
        u = jax.vmap(policy)(x)
        assert float(jnp.min(u)) == -0.5
        assert float(jnp.max(u)) == 0.5
    assert_allclose(linear(jnp.asarray(GOAL + np.array([0.1, -0.1]))), [0.2])
    with pytest.raises(InvalidValue, match="rest must lie inside"):
        SaturatedLinear.of([[1.0]], rest=[1.0], low=-0.5, high=0.5)


class Turning(AbstractMap):
    """A contraction by 0.9 everywhere but in a disc of radius `width` around (0.6, 0.3), where x grows by 1.2."""

    width: float = 0.02
    dim: int = eqx.field(static=True, default=2)
    n_obs: int = eqx.field(static=True, default=2)
    n_inputs: int = eqx.field(static=True, default=0)

    def step(self, z, u=None):
        away = jnp.sum((z - jnp.asarray([0.6, 0.3])) ** 2) / self.width**2
        return z * (0.9 + 0.3 * jnp.exp(-away))

    def observe(self, z):
        return z

    def lift(self, x):
        return x


def test_an_attack_finds_a_planted_violation_and_nothing_where_there_is_none():
    V = QuadraticLyapunov.of(np.eye(2))
    found = attack(V, Loop(Turning(), None), -1.0, 1.0, level=0.9, rate=0.01, starts=2048)  # the disc fills 3e-4 of the box
    assert found.found
    assert float(jnp.max(jnp.linalg.norm(found.states - jnp.asarray([[0.6, 0.3]]), axis=1))) < 0.05
    step = jax.vmap(Turning().step)(found.states)
    assert bool(jnp.all(jax.vmap(V.value)(step) > 0.99 * jax.vmap(V.value)(found.states)))
    assert not attack(V, Loop(Turning(), None), -1.0, 1.0, level=0.36, rate=0.01, starts=512).found  # the disc is outside


def test_an_attack_on_a_flow_sees_the_rate():
    class Slow(AbstractFlow):
        dim: int = 2
        n_inputs: int = 0

        def field(self, t, z, u=None):
            return -z

    V = QuadraticLyapunov.of(np.diag([1.0, 3.0]))  # dV/dt = -2 V exactly
    assert not attack(V, Loop(Slow(), None), -1.0, 1.0, level=0.5, rate=1.999, starts=64, steps=5).found
    assert attack(V, Loop(Slow(), None), -1.0, 1.0, level=0.5, rate=2.001, starts=64, steps=5).found


def test_the_largest_level_is_where_the_first_violation_begins():
    V = QuadraticLyapunov.of(np.eye(2))
    found = largest_level(V, Loop(Turning(), None), -1.0, 1.0, rate=0.01, samples=20_000, rounds=4)
    radius = 0.02 * np.sqrt(np.log(0.3 / (np.sqrt(0.99) - 0.9)))  # where 0.9 + 0.3 exp(-s^2) squared is 0.99
    truth = (np.hypot(0.6, 0.3) - radius) ** 2
    assert_allclose(found.level, truth, rtol=5e-3)  # 0.1 % is taken off, and the attack ends near the nearest point
    assert_allclose(found.volume, np.pi * found.level, atol=4 * found.error)
    faces = largest_level(V, Loop(Turning(width=1e-9), None), -1.0, 1.0, rate=0.01, samples=2000, rounds=2)
    assert_allclose(faces.level, 1.0, rtol=2e-3)  # the circle that touches the box


def test_a_candidate_that_fails_at_the_goal_has_no_level():
    grows = Turning(width=1e9)  # the disc is everywhere: a factor of 1.2
    assert largest_level(QuadraticLyapunov.of(np.eye(2)), Loop(grows, None), -1.0, 1.0, samples=20_000).level == 0.0


def test_inward_stops_at_the_level():
    V = QuadraticLyapunov.of(np.eye(2), GOAL)
    x = inward(V, jnp.asarray([5.0, 5.0]), jnp.asarray(0.25))
    assert 0.24 < float(V.value(x)) <= 0.25


def test_a_box_without_the_goal_is_refused():
    with pytest.raises(InvalidValue, match="hold the goal"):
        attack(QuadraticLyapunov.of(np.eye(2)), Loop(Turning(), None), 0.5, 1.0, level=1.0)

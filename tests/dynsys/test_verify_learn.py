"""Learning candidates and controllers: better than a plain quadratic that is known to be poor, checked by simulation."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from numpy.testing import assert_allclose

from dynsys.dynamics import AbstractFlow, AbstractMap
from dynsys.errors import InvalidValue
from dynsys.status import Status
from dynsys.verify.cegis import by_certify
from dynsys.verify.learn import Recipe, learn
from dynsys.verify.lyapunov import QuadraticLyapunov
from dynsys.verify.policy import SaturatedLinear
from dynsys.verify.start import lqr_start

QUICK = Recipe(steps=500, batch=256, adversaries=64)  # pyright: ignore[reportCallIssue]
LIMIT = 0.5


class Unstable(AbstractMap):
    """x1 grows by 1.1 a step against an input of at most 0.5, x2 follows: no controller returns from |x1| > 5."""

    dim: int = eqx.field(static=True, default=2)
    n_obs: int = eqx.field(static=True, default=2)
    n_inputs: int = eqx.field(static=True, default=1)

    def step(self, z, u=None):
        return jnp.stack([1.1 * z[0] + u[0], 0.5 * z[1] + 0.3 * z[0]])

    def observe(self, z):
        return z

    def lift(self, x):
        return x


class ReverseVanDerPol(AbstractFlow):
    dim: int = 2
    n_inputs: int = 0

    def field(self, t, z, u=None):
        return jnp.stack([-z[1], z[0] - (1 - z[0] ** 2) * z[1]])


@pytest.fixture(scope="module")
def unstable():
    V, policy = lqr_start(Unstable(), [0, 0], [0], -6, 6, input_low=-LIMIT, input_high=LIMIT, hidden=(8, 8), features=4)
    return V, policy, learn(Unstable(), V, -6, 6, policy=policy, rate=0.01, recipe=QUICK)


def test_a_start_is_one_at_the_border_of_the_box_and_decreases_near_the_goal():
    V, policy = lqr_start(Unstable(), [0, 0], [0], -6, 6, input_low=-LIMIT, input_high=LIMIT)
    R = np.asarray(V.R)
    assert_allclose(np.max(np.diag(R.T @ R)) * 36, 1.0, rtol=1e-9)  # the quadratic part, on the axis where it is largest
    x = 1e-3 * jr.normal(jr.key(0), (200, 2))
    after = jax.vmap(lambda z: V.value(Unstable().step(z, policy(z))))(x)
    assert bool(jnp.all(after < jax.vmap(V.value)(x)))


def test_learning_enlarges_the_set_of_the_plain_quadratic_but_not_beyond_what_is_possible(unstable):
    _, _, found = unstable
    assert found.status is Status.SUCCESS
    assert found.volume > 1.1 * found.quadratic_level.volume  # it is 1.3 to 2 times, with room for another machine's rounding
    x = jr.uniform(jr.key(1), (20_000, 2), minval=-6.0, maxval=6.0)
    inside = jax.vmap(found.V.value)(x) <= found.level
    assert float(jnp.max(jnp.abs(x[:, 0])[inside])) < 5.0
    assert_allclose(float(jnp.mean(inside)) * 144, found.volume, atol=5 * np.hypot(found.error, 144 * 0.5 / np.sqrt(20_000)))


def test_every_trajectory_from_the_learned_set_stays_in_it_and_goes_to_the_goal(unstable):
    _, _, found = unstable
    x = jr.uniform(jr.key(2), (5000, 2), minval=-6.0, maxval=6.0)
    x = x[jax.vmap(found.V.value)(x) <= found.level]
    assert len(x) > 500
    step = jax.jit(jax.vmap(lambda z: Unstable().step(z, found.policy(z))))
    value = jax.vmap(found.V.value)
    for _ in range(60):
        before, x = value(x), step(x)
        assert bool(jnp.all(value(x) <= 0.99 * before + 1e-12))
        assert float(jnp.max(jnp.abs(x))) < 6
    assert float(jnp.max(value(x))) < 0.56 * found.level  # 0.99^60 = 0.547


def test_the_limits_and_the_goal_are_not_trained(unstable):
    V, policy, found = unstable
    assert float(found.policy.high[0]) == LIMIT == -float(found.policy.low[0])
    assert_allclose(found.policy.goal, 0.0, atol=0)
    assert found.V.R.dtype == jnp.float64
    assert float(jnp.max(jnp.abs(found.V.R - V.R))) > 0
    assert float(jnp.max(jnp.abs(found.policy.K - policy.K))) > 0


def test_the_same_key_gives_the_same_result_and_a_fixed_policy_stays():
    recipe = Recipe(steps=20, batch=64, adversaries=16)  # pyright: ignore[reportCallIssue]
    V, policy = lqr_start(Unstable(), [0, 0], [0], -6, 6, input_low=-LIMIT, input_high=LIMIT, hidden=(4,), features=2)
    once, again = (learn(Unstable(), V, -6, 6, policy=policy, train_policy=False, recipe=recipe, key=7) for _ in range(2))
    assert all(bool(jnp.all(a == b)) for a, b in zip(jax.tree.leaves(once.V), jax.tree.leaves(again.V), strict=True))
    assert all(bool(jnp.all(a == b)) for a, b in zip(jax.tree.leaves(once.policy), jax.tree.leaves(policy), strict=True))
    assert once.loss.shape == (20,)


def test_counterexamples_of_a_verifier_are_trained_on_until_it_is_content():
    recipe = Recipe(steps=20, batch=64, adversaries=16)  # pyright: ignore[reportCallIssue]
    V, policy = lqr_start(Unstable(), [0, 0], [0], -6, 6, input_low=-LIMIT, input_high=LIMIT, hidden=(4,), features=2)
    asked = []

    def refutes_once(V, policy, level):
        asked.append(level)
        return (False, [[1.0, 2.0]]) if len(asked) == 1 else (True, [])

    found = learn(Unstable(), V, -6, 6, policy=policy, train_policy=False, recipe=recipe, verifier=refutes_once)
    assert found.proved
    assert found.rounds == 2 == len(asked)
    assert found.level == asked[-1]

    levels = []

    def unsure(V, policy, level):
        levels.append(level)
        return False, []

    undecided = learn(Unstable(), V, -6, 6, policy=policy, train_policy=False, recipe=recipe, verifier=unsure, rounds=1)
    assert undecided.status is Status.MAX_STEPS
    assert not undecided.proved
    assert_allclose(np.array(levels[1:]) / levels[:-1], 0.95)


def test_a_candidate_without_parameters_is_refused():
    with pytest.raises(InvalidValue, match="nothing to train"):
        learn(ReverseVanDerPol(), QuadraticLyapunov.of(np.eye(2)), -3, 3)
    with pytest.raises(InvalidValue, match="steps, batch"):
        Recipe(steps=0)  # pyright: ignore[reportCallIssue]


@pytest.mark.slow
def test_a_function_alone_fills_most_of_a_region_of_attraction():
    from dynsys.verify.lyapunov import NeuralLyapunov
    from dynsys.verify.network import Network

    P = np.asarray(QuadraticLyapunov.of_linear([[0.0, -1.0], [1.0, -1.0]], continuous=True).P)
    net = Network.init((2, 16, 16, 8), last=0.1, key=jr.key(0))
    R = np.linalg.cholesky(P / P.max() / 9).T
    V = NeuralLyapunov(net=net, R=jnp.asarray(R), goal=jnp.zeros(2), eps=1e-4)
    recipe = Recipe(steps=4000, growth=0.1, margin=0.02)  # pyright: ignore[reportCallIssue]
    found = learn(ReverseVanDerPol(), V, -2.9, 2.9, rate=0.001, recipe=recipe)
    area = 13.72  # within the limit cycle, by the shoelace formula over an RK4 orbit of step 1e-3
    assert 0.9 * area < found.volume < area
    assert found.volume > 1.8 * found.quadratic_level.volume


def test_branch_and_bound_answers_as_a_verifier():
    V, policy = lqr_start(Unstable(), [0, 0], [0], -6, 6, input_low=-LIMIT, input_high=LIMIT)
    linear = SaturatedLinear.of(policy.K, low=-LIMIT, high=LIMIT)
    quadratic = QuadraticLyapunov.of(np.asarray(V.R.T @ V.R))
    ask = by_certify(Unstable(), -40.0, 40.0, rest=[0.0], rate=0.01)
    assert ask(quadratic, linear, 1e-3) == (True, [])  # |x| is small: nothing saturates, the regulator's own cost-to-go decreases
    proved, states = ask(quadratic, linear, 0.95)  # beyond |x1| = 5 the loop diverges
    assert not proved
    after = quadratic.value(Unstable().step(jnp.asarray(states[0]), linear(jnp.asarray(states[0]))))
    assert float(after) > 0.99 * float(quadratic.value(jnp.asarray(states[0]))) - 1e-12

"""Lipschitz-bounded imitation: the constant really is one, what it forbids, and the closed-loop bound where everything is known."""

import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from numpy.testing import assert_allclose

from dynsys.control.imitation import cayley, imitate
from dynsys.control.imitation_bound import Loop, closed_loop_bound, covering_radius
from dynsys.control.lqr import lqr
from dynsys.errors import InvalidValue

from .control_cases import LinearMap

A, B = np.array([[1.0, 0.1], [0.0, 1.0]]), np.array([[0.005], [0.1]])
K = lqr(A, B, np.diag([1.0, 0.1]), np.eye(1)).K
STEEP = float(np.linalg.norm(K, 2))


def demonstrations(side=40):
    """The regulator's inputs on a grid of the square [-1, 1]^2."""
    x = np.stack(np.meshgrid(*[np.linspace(-1, 1, side)] * 2), axis=-1).reshape(-1, 2)
    return x, -x @ K.T


@pytest.fixture(scope="module")
def follower():
    x, u = demonstrations()
    return imitate(x, u, lipschitz=1.2 * STEEP, hidden=16, steps=1500, key=jr.key(0))


@pytest.mark.parametrize("shape", [(4, 4), (7, 3), (1, 4)])
def test_a_cayley_transform_is_orthogonal(shape):
    W = jax.jit(cayley)(3 * jr.normal(jr.key(0), shape))
    small = W.T @ W if shape[0] >= shape[1] else W @ W.T
    assert_allclose(small, np.eye(min(shape)), atol=1e-12)


def test_the_constant_is_kept_by_all_pairs_and_by_the_steepest_ones():
    """Random experts that are much too steep: pairs far and near, and a search for the steepest direction by power iteration."""
    rng = np.random.default_rng(0)
    x, u = rng.normal(size=(300, 3)), 20 * rng.normal(size=(300, 2))
    policy = imitate(x, u, lipschitz=2.0, hidden=16, steps=300, key=jr.key(1)).policy
    assert policy.lipschitz <= 2.0 * (1 + 1e-12)
    a = rng.normal(size=(5000, 3))
    steepest = 0.0
    for size in (1e-3, 0.1, 3.0):
        b = a + size * rng.normal(size=a.shape)
        steepest = max(steepest, float(np.max(np.linalg.norm(policy.inputs(a) - policy.inputs(b), axis=1) / np.linalg.norm(a - b, axis=1))))
    for at in a[:30]:
        v = rng.normal(size=3)
        J = np.stack([(policy.inputs((at + 1e-6 * e)[None]) - policy.inputs((at - 1e-6 * e)[None]))[0] / 2e-6 for e in np.eye(3)], axis=1)
        for _ in range(30):
            v = J.T @ (J @ v)
            v /= np.linalg.norm(v) + 1e-300
        steepest = max(steepest, float(np.linalg.norm(J @ v)))
    assert 1.2 < steepest <= 2.0 * (1 + 1e-6)  # differences of 1e-6 have eight digits left; such an expert uses what it may


def test_an_expert_that_is_not_too_steep_is_followed(follower):
    """Relative to the largest input on the square, |K|_1."""
    x, u = demonstrations()
    assert follower.error < 0.05 * np.abs(K).sum()
    assert follower.rms <= follower.error
    assert follower.losses[-1] < 0.01 * follower.losses[0]
    assert_allclose(np.linalg.norm(follower.policy.inputs(x) - u, axis=1).max(), follower.error)
    assert_allclose(follower.policy.act(x[3], ())[0], follower.policy.inputs(x[3:4])[0], atol=1e-14)


def on_a_line(**options):
    """Half as steep as the expert, from demonstrations along its steepest direction."""
    along = np.linspace(-1, 1, 41)[:, None] * K / STEEP
    return imitate(along, -along @ K.T, lipschitz=0.5 * STEEP, hidden=8, steps=600, key=jr.key(0), **options)


def test_what_a_small_constant_forbids():
    """At +-r K/|K| the expert's inputs are 2 r |K| apart, the policy's at most 2 r L: one of them is off by r (|K| - L) or more."""
    found = on_a_line()
    assert found.error >= 0.5 * STEEP - 1e-9
    assert found.error < 0.6 * STEEP  # a line of half the slope is among the best


def test_limits_clip():
    free, kept = on_a_line().policy, on_a_line(low=-0.2, high=0.3).policy
    x = 3 * demonstrations(12)[0]
    assert np.array_equal(kept.inputs(x), np.clip(free.inputs(x), -0.2, 0.3))
    assert kept.inputs(x).min() == -0.2
    assert kept.inputs(x).max() == 0.3


def test_the_closed_loop_stays_within_its_bound(follower):
    """On the square that the demonstrations cover; with and without noise on what the policy sees."""
    x, _ = demonstrations()
    loop = Loop.linear(A, B, K)
    assert loop.estimated == ()
    assert_allclose(loop.expert_lipschitz, STEEP)
    closed = A - B @ K
    for t in range(60):  # the constants hold
        assert np.linalg.norm(np.linalg.matrix_power(closed, t), 2) <= loop.overshoot * loop.decay**t
    radius = covering_radius(x, [-1.0, -1.0], [1.0, 1.0], cells=200)
    assert np.sqrt(2) / 39 < radius < 1.4 * np.sqrt(2) / 39  # half the diagonal of a grid cell of 2/39, plus that of a search cell
    rng, steps = np.random.default_rng(0), 150
    for noise in (0.0, 0.02):
        bound = closed_loop_bound(follower, loop, radius=radius, steps=steps, noise=noise)
        worst, missed = np.zeros(steps + 1), 0.0
        for _ in range(20):
            angle = rng.uniform(0, 2 * np.pi)
            here = there = 0.6 * np.array([np.cos(angle), np.sin(angle)])
            push = rng.normal(size=2)
            for t in range(steps):
                u, _ = follower.policy.act(here + noise * push / np.linalg.norm(push), ())
                missed = max(missed, float(np.linalg.norm(u + K @ here)))
                here, there = A @ here + B @ u, closed @ there
                assert np.abs(here).max() <= 1.0  # where the demonstrations are
                worst[t + 1] = max(worst[t + 1], np.linalg.norm(here - there))
        assert np.all(worst <= bound.deviation)
        known = closed_loop_bound(dataclasses.replace(follower, error=missed), loop, radius=0.0, steps=steps)  # with the error on the way
        assert np.all(worst <= known.deviation)
        assert worst.max() > 0.05 * known.limit  # so it is a bound of this, not of anything
        assert known.limit <= bound.limit
        assert_allclose(bound.deviation[-1], bound.limit, rtol=0.02)


def test_the_bound_is_the_worst_of_a_scalar_case(follower):
    """x' = x / 2 + d with |d| <= l_u eps: the sum of the series, reached by the constant disturbance."""
    loop = Loop(input_gain=2.0, expert_lipschitz=1.0, overshoot=1.0, decay=0.5)
    bound = closed_loop_bound(follower, loop, radius=0.0, steps=5)
    x, path = 0.0, [0.0]
    for _ in range(5):
        x = 0.5 * x + 2.0 * follower.error
        path.append(x)
    assert_allclose(bound.deviation, path, rtol=1e-12)
    assert_allclose(bound.limit, 4 * follower.error)
    L = follower.policy.lipschitz
    assert_allclose(closed_loop_bound(follower, loop, radius=0.1, steps=5, noise=0.2).limit, 4 * (follower.error + 0.1 * (L + 1) + 0.2 * L))
    assert closed_loop_bound(follower, Loop(1.0, 1.0, 1.0, 1.0), radius=0.1, steps=2).limit == np.inf


def test_sampled_constants_come_close_to_the_exact_ones_from_below():
    system = LinearMap(jnp.asarray(A), jnp.asarray(B))  # pyright: ignore[reportCallIssue]
    points = np.random.default_rng(0).uniform(-1, 1, (40, 2))
    found, exact = Loop.sampled(system, lambda x: -K @ x, points, steps=60, key=jr.key(0)), Loop.linear(A, B, K)
    assert len(found.estimated) == 4
    assert_allclose(found.input_gain, exact.input_gain, rtol=1e-6)
    assert 0.95 * exact.expert_lipschitz < found.expert_lipschitz <= exact.expert_lipschitz * (1 + 1e-6)
    radius = np.abs(np.linalg.eigvals(A - B @ K)).max()
    assert radius - 0.01 < found.decay < (1 + radius) / 2 + 0.01
    assert found.overshoot >= 1.0


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda: imitate(np.zeros((3, 2)), np.zeros((4, 1)), lipschitz=1.0, key=jr.key(0)), r"wants x \(S, N\) and u \(S, K\)"),
        (lambda: imitate(np.full((3, 2), np.nan), np.zeros((3, 1)), lipschitz=1.0, key=jr.key(0)), "hold NaN or inf"),
        (lambda: imitate(np.zeros((3, 2)), np.zeros((3, 1)), lipschitz=0.0, key=jr.key(0)), "lipschitz must be positive"),
        (lambda: imitate(np.zeros((3, 2)), np.zeros((3, 1)), lipschitz=1.0, hidden=3, key=jr.key(0)), "hidden must be an even number"),
        (lambda: Loop.linear(2 * A, B, 0 * K), "the expert's loop is not stable"),
        (lambda: covering_radius(np.zeros((3, 2)), [0.0], [1.0]), "low < high"),
        (lambda: covering_radius(np.zeros((3, 6)), np.zeros(6), np.ones(6)), "too large"),
    ],
)
def test_what_can_not_be_done_is_refused_in_words(attempt, words):
    with pytest.raises(InvalidValue, match=words):
        attempt()


def test_an_observation_that_is_not_finite_is_refused(follower):
    with pytest.raises(InvalidValue, match="holds NaN or inf"):
        follower.policy.act(np.array([np.nan, 0.0]), ())
    with pytest.raises(InvalidValue, match=r"wants an observation \(2,\)"):
        follower.policy.act(np.zeros(3), ())
    for leaf in jax.tree.leaves(follower.policy):
        assert np.asarray(leaf).dtype.kind in "fib"

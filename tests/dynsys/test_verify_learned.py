"""Learned piecewise-linear models under a saturated regulator: certificates against mixed-integer programs and matrix inequalities."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import linprog

from dynsys.control.lqr import lqr_of
from dynsys.dynamics import AbstractPiecewiseLinear
from dynsys.errors import InvalidValue
from dynsys.models.alrnn import ALRNN
from dynsys.models.shallow import ClippedShallowPLRNN, ShallowPLRNN
from dynsys.verify.certify import Outcome, certify
from dynsys.verify.loop import ClosedLoop
from dynsys.verify.lyapunov import NeuralLyapunov, PiecewiseAffineLyapunov
from dynsys.verify.mixed_integer import largest_increase, norm_faces, rectified
from dynsys.verify.network import Network
from dynsys.verify.piecewise_lmi import Regulated, piecewise_quadratic
from dynsys.verify.policy import SaturatedLinear

CONTRACTION = 0.93  # of V at the goal, by construction
FACES = 8  # V's are padded to as many by repeating one, so that all cases of a kind are one program


def scalar_loop():
    """z+ = z / 2 + max(z, 0) + u, u = -z within +-1/2: 1.5 z where z > 0, unstable without input."""
    model = ALRNN.init(1, 1, dim=1, n_relu=1, key=jr.key(0))
    numbers = jnp.asarray([0.5]), jnp.ones((1, 1)), jnp.ones((1, 1))
    model = eqx.tree_at(lambda m: (m.A, m.W, m.C), model, numbers)
    policy = SaturatedLinear.of([[1.0]], low=-0.5, high=0.5)
    return ClosedLoop.of(model, policy, goal=[0.0], rest=[0.0])


def learned_model(kind, seed, goal):
    """A random model with one input and two (AL-RNN) or three rectified units, its offset such that the goal is a fixed point."""
    key, goal = jr.key(seed), jnp.asarray(goal)
    C = jr.normal(jr.key(seed + 100), (2, 1))
    if kind == "alrnn":
        model = ALRNN.init(2, 1, dim=2, n_relu=2, key=key)
        model = eqx.tree_at(lambda m: (m.A, m.W, m.C), model, (1.4 * model.A, 3 * model.W, C))
        return eqx.tree_at(lambda m: m.h, model, goal - model.step(goal))
    model = (ShallowPLRNN if kind == "shallow" else ClippedShallowPLRNN).init(2, 1, dim=2, hidden=3, key=key)
    model = eqx.tree_at(lambda m: (m.A, m.C), model, (1.4 * model.A, C))
    return eqx.tree_at(lambda m: m.h1, model, goal - model.step(goal))


def learned_loop(kind, seed, goal, limit=0.5):
    """A model with its regulator, within limits that the far part of every box below meets."""
    model = learned_model(kind, seed, goal)
    K = lqr_of(model, goal, np.zeros(1), np.eye(2), 0.3 * np.eye(1)).K
    return ClosedLoop.of(model, SaturatedLinear.of(K, goal=goal, low=-limit, high=limit), goal=goal, rest=[0.0])


def contracting_gauge(loop):
    """V with V(A d) <= CONTRACTION V(d) for the linear parts A beside the goal, and equality somewhere if V is no cube.

    The cube's faces and their preimages r A / CONTRACTION, until none cuts off more (Blanchini, IEEE TAC 39, 1994).
    """
    sides = [jax.jacfwd(loop.step)(loop.goal + jnp.asarray(side)) for side in ([1e-3, 1e-3], [-1e-3, -1e-3])]
    rows = [sign * axis for axis in np.eye(2) for sign in (1.0, -1.0)]
    for row in rows:
        for A in np.asarray(sides):
            face = row @ A / CONTRACTION
            farthest = linprog(-face, A_ub=np.array(rows), b_ub=np.ones(len(rows)), bounds=(None, None))
            if -farthest.fun > 1 + 1e-9:
                rows.append(face)  # visited later by the loop over rows
    return np.array(rows)


# model, goal, then V's rate of decrease and a level that are true, and ones that are false; open loop: spectral radius 0.8 to 1.4.
# The levels are 3 % to either side of the largest one, as bisection with the mixed-integer program found it.
CASES = [
    ("alrnn", 1, (0.3, -0.2), (0.01, 0.3535), (0.01, 0.3794)),
    ("alrnn", 2, (0.3, -0.2), (0.01, 0.2267), (0.01, 0.2434)),
    ("alrnn", 3, (0.3, 0.0), (0.01, 2.327), (0.01, 2.498)),
    ("alrnn", 4, (0.3, -0.2), (0.01, 2.9), (0.01, 3.1)),  # V is the cube here: 3.1 is outside of the box
    ("shallow", 0, (0.2, 0.1), (0.01, 0.9574), (0.01, 1.0277)),
    ("shallow", 2, (0.2, 0.1), (0.01, 0.5393), (0.01, 0.5789)),
    ("shallow", 5, (0.2, 0.1), (0.01, 0.4069), (0.01, 0.4368)),
    ("alrnn", 1, (0.3, -0.2), (0.06, 0.1), (0.08, 0.1)),  # 1 - CONTRACTION = 0.07 is the largest rate at the goal
    ("shallow", 5, (0.2, 0.1), (0.06, 0.1), (0.08, 0.1)),
]


def test_a_scalar_loop_has_the_largest_increase_of_the_formula():
    # V = |z|. Beyond 1/2 the input is at its limit: V(z+) - (1 - rate) V(z) = (0.5 + rate) z - 0.5, positive from z = 0.5 / (0.5 + rate)
    loop, V = scalar_loop(), norm_faces(np.eye(1))
    for level, rate, sign in ((0.9, 0.0, 1), (0.97, 0.02, -1), (1.5, 0.02, 1), (2.0, 0.1, -1)):
        V = norm_faces(sign * np.eye(1))  # the same V, its faces in either order
        found = largest_increase(loop, V, domain=([-4.0], [4.0]), rate=rate, level=level)
        there = (0.5 + rate) * level - 0.5
        nearest = -(0.5 - rate) * found.floor  # below 1/2: 0.5 z - (1 - rate) z, largest at the smallest z
        assert_allclose(found.bound, max(there, nearest), atol=found.tolerance)
        assert found.verdict is (level < 0.5 / (0.5 + rate))
        if there > 0:
            assert_allclose(found.state, [level], rtol=1e-6)
            assert_allclose(found.value, there, atol=found.tolerance)
    assert found.tolerance < 1e-4
    assert largest_increase(loop, V, domain=([-4.0], [4.0]), rate=0.0, level=1.0).verdict is None  # V(z+) = V(z) at z = 1
    assert not largest_increase(loop, V, domain=([-0.7], [4.0]), rate=0.0, level=0.9).inside


@pytest.mark.parametrize(("kind", "seed", "goal"), [("alrnn", 1, (0.3, -0.2)), ("clipped", 1, (0.2, 0.1))])
def test_the_program_finds_what_a_fine_grid_finds(kind, seed, goal):
    loop, rate, level = learned_loop(kind, seed, goal), 0.01, 0.6
    V = PiecewiseAffineLyapunov.of(contracting_gauge(loop), goal)
    found = largest_increase(loop, V, domain=(np.array(goal) - 3, np.array(goal) + 3), rate=rate, level=level)
    side = np.linspace(-level, level, 601)  # the cube is among V's faces, so that {V <= level} lies in it
    states = jnp.asarray(goal + np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2))
    before, after = (jax.vmap(V.value)(x) for x in (states, jax.vmap(loop.step)(states)))
    best = float(jnp.max(jnp.where((before <= level) & (before >= found.floor), after - (1 - rate) * before, -jnp.inf)))
    assert best <= found.bound + found.tolerance
    assert best > found.bound - 0.02 * level  # grid steps of 0.002, slopes of a few units
    assert_allclose(found.value, found.bound, atol=2 * found.tolerance)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}-rate-{case[3][0]}")
def test_certificate_and_mixed_integer_program_agree(case):
    kind, seed, goal, *claims = case
    loop = learned_loop(kind, seed, goal)
    rows = contracting_gauge(loop)
    V = PiecewiseAffineLyapunov.of(rows, goal)
    padded = PiecewiseAffineLyapunov.of(np.vstack([rows, np.repeat(rows[:1], FACES - len(rows), axis=0)]), goal)
    box = np.array(goal) - 3, np.array(goal) + 3
    for (rate, level), true in zip(claims, (True, False), strict=True):
        program = largest_increase(loop, V, domain=box, rate=rate, level=level)
        proof: Any = certify(loop, padded, domain=box, rate=rate, level=level, seconds=60)
        assert program.verdict is true
        assert proof.outcome is (Outcome.PROVED if true else Outcome.COUNTEREXAMPLE), proof.reason
        if not true and program.inside:  # both states fail by the loop's own arithmetic
            for state in (program.state, proof.counterexample.state):
                before, after = (float(V.value(x)) for x in (jnp.asarray(state), loop.step(state)))
                assert after > (1 - rate) * before
                assert before <= level * (1 + 1e-9)


@pytest.mark.slow  # a program of its own to compile
def test_a_norm_beside_a_linear_network_is_decided_as_its_faces_are():
    goal = (0.2, 0.1)
    loop = learned_loop("shallow", 0, goal)
    weight, R = jnp.asarray([[0.1, -0.2]]), jnp.asarray([[1.0, 0.1], [0.0, 1.0]])
    V = NeuralLyapunov(net=Network((weight,), (jnp.ones(1),)), R=R, goal=jnp.asarray(goal), eps=0.01, form="absolute")
    faces = norm_faces(np.vstack([weight, 0.01 * np.eye(2) + R.T @ R]), goal)
    x = jr.normal(jr.key(5), (2,))
    assert_allclose(V.value(x), faces.value(x), rtol=1e-12)
    box = np.array(goal) - 3, np.array(goal) + 3
    for level in (0.3, 3.0):
        program = largest_increase(loop, faces, domain=box, rate=0.01, level=level)
        proof = certify(loop, V, domain=box, rate=0.01, level=level, seconds=60)
        assert program.verdict is (level == 0.3)
        assert proof.proved is program.verdict
        assert proof.proved or proof.counterexample is not None


def test_matrix_inequalities_and_the_certificate_agree_on_a_quadratic():
    pytest.importorskip("cvxpy")
    goal = np.array([0.3, -0.2])
    loop: Any = learned_loop("alrnn", 1, goal, limit=50.0)  # out of reach in the box, so that the loop is linear region by region
    plant, policy = loop.plant, loop.policy
    regulated = Regulated(plant, policy.K, loop.goal, jnp.zeros(1))  # pyright: ignore[reportCallIssue]
    box = goal - 1.0, goal + 1.0
    found = piecewise_quadratic(regulated, goal, low=box[0], high=box[1], rate=0.01, common=True)
    assert found.exact
    proof = certify(loop, found.V, domain=box, rate=0.01, level=0.999 * found.level, seconds=60)
    assert proof.proved
    pieces: Any = piecewise_quadratic(regulated, goal, low=box[0], high=box[1], rate=0.01)
    assert pieces.exact
    states = jnp.asarray(np.random.default_rng(0).uniform(*box, size=(4000, 2)))
    before, after = (jax.vmap(pieces.V.value)(x) for x in (states, jax.vmap(loop.step)(states)))
    assert jnp.all((before > pieces.level) | (after <= 0.99 * before))
    assert jnp.sum(before <= pieces.level) > 200  # the sample is none of states outside alone


def test_what_is_no_sum_of_rectifiers_is_refused():
    class Product(AbstractPiecewiseLinear):
        """max(z1, 0) where z2 > 0, else 0: the two borders do not add up."""

        dim: int = 2
        n_obs: int = 2
        n_inputs: int = 0

        def step(self, z, u=None):
            return jnp.where((z[0] > 0) & (z[1] > 0), 0.5 * z[0], 0.0) * jnp.ones(2)

        def observe(self, z):
            return z

        def lift(self, x):
            return x

        def region(self, z):
            return z > 0

        def affine(self, region):
            return 0.5 * jnp.outer(jnp.ones(2), jnp.asarray([1.0, 0.0])) * jnp.all(region), jnp.zeros(2)

        def switching(self):
            return jnp.eye(2), jnp.zeros(2)

    with pytest.raises(InvalidValue, match="no sum of one rectifier a border"):
        rectified(ClosedLoop.of(Product(), goal=jnp.zeros(2)))
    disturbed = scalar_loop()
    with pytest.raises(InvalidValue, match="without disturbances"):
        rectified(eqx.tree_at(lambda x: (x.low, x.high), disturbed, (jnp.zeros(1), jnp.ones(1))))

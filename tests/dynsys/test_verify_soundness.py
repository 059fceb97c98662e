"""Soundness before speed: false claims are never proved, planted faults are found, true claims with a known answer are proved."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsys.verify.certify import Outcome, certify
from dynsys.verify.lyapunov import QuadraticLyapunov

from . import verify_cases as cases

BOX = ([-3.0, -3.0], [3.0, 3.0])
QUICK = dict(seconds=20.0, boxes=200_000, keep_leaves=False)
# What a false claim of this battery is made of; each draw is random and compiles nothing new.


def stable_pair(rng, continuous, scale=1.0):
    """A random stable matrix, and P of its Lyapunov equation with the decrease Q = P * scale of the largest possible rate."""
    if continuous:
        A = cases.spectral(rng, 1.0) - rng.uniform(1.1, 2.0) * np.eye(2)
    else:
        A = cases.spectral(rng, rng.uniform(0.3, 0.95))
    return A, QuadraticLyapunov.of_linear(A, continuous=continuous)


def best_rate(A, P, continuous):
    """The exact largest rate of x'Px along a linear system: an eigenvalue of a pencil."""
    from scipy.linalg import eigh

    if continuous:
        return float(eigh(-(A.T @ P + P @ A), P, eigvals_only=True)[0])
    return 1 - float(eigh(A.T @ P @ A, P, eigvals_only=True)[-1])


def border(V, domain):
    """The largest level whose ellipse stays inside the domain: x_i^2 <= level inverse(P)_ii."""
    return float(np.min(np.asarray(domain[1]) ** 2 / np.diag(np.linalg.inv(np.asarray(V.P)))))


def false_claim(kind, rng):
    """(loop, V, level, rate) of a claim that is false."""
    if kind == "unstable map":  # |eigenvalue| above 1: no V at all decreases
        A = cases.spectral(rng, rng.uniform(1.0001, 1.5))
        P = np.eye(2) + 0.5 * np.diag(rng.uniform(size=2))
        return cases.linear_map(A), QuadraticLyapunov.of(P), rng.uniform(0.1, 3.0), 0.0
    if kind == "rate of a map":
        A, V = stable_pair(rng, False)
        rate = best_rate(A, np.asarray(V.P), False)
        return cases.linear_map(A), V, border(V, BOX) * rng.uniform(0.1, 0.9), rate + (1 - rate) * 10 ** rng.uniform(-6, -1)
    if kind == "level of a map":  # the ellipse leaves the domain
        A, V = stable_pair(rng, False)
        return cases.linear_map(A), V, border(V, BOX) * (1 + 10 ** rng.uniform(-6, 0)), 0.0
    if kind == "sliver of a map":  # a bump of relative size 1e-4 throws the state outwards
        A, V = stable_pair(rng, False)
        level = border(V, BOX) * 0.8
        direction = np.linalg.cholesky(np.linalg.inv(np.asarray(V.P))) @ _unit(rng)
        place = np.sqrt(level) * rng.uniform(0.2, 0.9) * direction
        return cases.linear_map(A, place, 3e-4, 5.0), V, level, 0.0
    if kind == "rate of a flow":
        A, V = stable_pair(rng, True)
        rate = best_rate(A, np.asarray(V.P), True)
        return cases.linear_flow(A), V, border(V, BOX) * rng.uniform(0.1, 0.9), rate * (1 + 10 ** rng.uniform(-6, -1)) + 1e-6
    if kind == "level of a flow":  # dx/dt = -a x + b |x|^2 x: the basin is |x|^2 < a / b
        a, b = rng.uniform(0.5, 2.0), rng.uniform(0.5, 2.0)
        level = a / b * (1 + 10 ** rng.uniform(-5, 0))
        return cases.linear_flow(-a * np.eye(2), b), QuadraticLyapunov.of(np.eye(2)), level, 0.0
    raise KeyError(kind)


def true_claim(kind, rng):
    """(loop, V, level, rate) of a claim that is true with a margin of a per cent."""
    if kind == "map":
        A, V = stable_pair(rng, False)
        rate = best_rate(A, np.asarray(V.P), False)
        return cases.linear_map(A), V, border(V, BOX) * 0.9, 0.99 * rate
    if kind == "flow":
        A, V = stable_pair(rng, True)
        return cases.linear_flow(A), V, border(V, BOX) * 0.9, 0.99 * best_rate(A, np.asarray(V.P), True)
    if kind == "gradient":  # the exact basin, up to a per cent
        a, b = rng.uniform(0.5, 2.0), rng.uniform(0.5, 2.0)
        return cases.linear_flow(-a * np.eye(2), b), QuadraticLyapunov.of(np.eye(2)), 0.99 * min(a / b, 9.0), 0.0
    raise KeyError(kind)


def _unit(rng):
    v = rng.normal(size=2)
    return v / np.linalg.norm(v)


FALSE = ("unstable map", "rate of a map", "level of a map", "sliver of a map", "rate of a flow", "level of a flow")
TRUE = ("map", "flow", "gradient")


def check_false(kind, count, seed):
    rng = np.random.default_rng(seed)
    outcomes = []
    for _ in range(count):
        loop, V, level, rate = false_claim(kind, rng)
        proof = certify(loop, V, domain=BOX, rate=rate, level=level, **QUICK)
        assert not proof.proved, (kind, level, rate)
        if proof.counterexample is not None:
            really_false(loop, V, proof, rate, level)
        outcomes.append(proof.outcome)
    return outcomes


def really_false(loop, V, proof, rate, level):
    """The counterexample, once more in plain floats."""
    shown = proof.counterexample
    x = jnp.asarray(shown.state)
    assert float(V.value(x)) <= level * (1 + 1e-12)
    if shown.what == "V does not decrease":
        after = loop.advance(x, jnp.asarray(shown.disturbance))
        if loop.continuous:
            assert float(jax.jvp(V.value, (x,), (after,))[1]) > -rate * float(V.value(x)) - 1e-12
        else:
            assert float(V.value(after)) > (1 - rate) * float(V.value(x)) - 1e-12
    else:
        assert np.any(np.abs(shown.state) >= 3 - 1e-6) or np.any(np.abs(loop.advance(x, jnp.zeros(0))) >= 3)


@pytest.mark.parametrize("kind", FALSE)
def test_false_claims_are_not_proved(kind):
    outcomes = check_false(kind, 4, seed=1)
    if kind in ("unstable map", "level of a flow", "sliver of a map"):  # violations of finite size are found
        assert outcomes.count(Outcome.COUNTEREXAMPLE) == len(outcomes)


@pytest.mark.slow
def test_two_hundred_false_claims():
    outcomes = [outcome for i, kind in enumerate(FALSE) for outcome in check_false(kind, 34, seed=100 + i)]
    assert len(outcomes) >= 200


@pytest.mark.parametrize("kind", TRUE)
def test_true_claims_are_proved(kind):
    rng = np.random.default_rng(2)
    for _ in range(4):
        loop, V, level, rate = true_claim(kind, rng)
        assert certify(loop, V, domain=BOX, rate=rate, level=level, **QUICK).proved, (kind, level, rate)


@pytest.mark.slow
def test_a_hundred_true_claims():
    rng = np.random.default_rng(3)
    made = []
    for i in range(100):
        loop, V, level, rate = true_claim(TRUE[i % 3], rng)
        made.append(certify(loop, V, domain=BOX, rate=rate, level=level, **QUICK).proved)
    assert sum(made) >= 95


@pytest.mark.slow
def test_a_hole_would_hide_an_unstable_goal():
    """dx/dt = 1e-3 x near 0, stable outside: only what happens in the smallest neighbourhood makes the claim false."""

    class Weak(cases.LinearFlow):
        def field(self, t, z, u=None):
            r = jnp.dot(z, z)
            return self.cubic * z - r / (r + 1e-12) * z

    for growth, proved in ((1e-3, False), (-1e-3, True)):
        loop = eqx.tree_at(lambda z: z.plant, cases.linear_flow(np.eye(2)), Weak(jnp.eye(2), jnp.asarray(growth)))
        proof = certify(loop, QuadraticLyapunov.of(np.eye(2)), domain=BOX, rate=0.0, level=1.0, **QUICK)
        assert proof.proved == proved


class Leaping(cases.LinearMap):
    """Half of a small neighbourhood of the goal is thrown out of the set; at the goal itself, and elsewhere, all is well."""

    def step(self, z, u=None):
        return jnp.where((z[0] < 0) & (jnp.max(jnp.abs(z)) < 0.1), 3.0, 0.5 * z)


def test_a_choice_of_formulas_next_to_the_goal_is_not_hidden_by_the_declared_equilibrium():
    loop = cases.linear_map(np.eye(2) * 0.5)
    plant = loop.plant
    loop = eqx.tree_at(lambda loop: loop.plant, loop, Leaping(plant.A, plant.place, plant.width, plant.depth))
    proof = certify(loop, QuadraticLyapunov.of(np.eye(2)), domain=([-5, -5], [5, 5]), rate=0.01, level=1.0, seconds=20.0, boxes=100_000)
    assert proof.outcome is not Outcome.PROVED


class Rectified(cases.LinearMap):
    """A rectifier written as a choice, next to the goal: a choice between two formulas that agree where they meet."""

    def step(self, z, u=None):
        return 0.5 * jnp.where(z > 0, z, 0.0) - 0.3 * jnp.maximum(-z, 0.0)


def test_a_rectifier_written_as_a_choice_is_still_proved_at_the_goal():
    loop = cases.linear_map(np.eye(2) * 0.5)
    plant = loop.plant
    loop = eqx.tree_at(lambda loop: loop.plant, loop, Rectified(plant.A, plant.place, plant.width, plant.depth))
    proof = certify(loop, QuadraticLyapunov.of(np.eye(2)), domain=([-5, -5], [5, 5]), rate=0.01, level=1.0, seconds=20.0, boxes=100_000)
    assert proof.outcome is Outcome.PROVED

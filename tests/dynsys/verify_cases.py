"""Loops with known answers for the tests of certificates: linear ones, an inverted pendulum, and a plant with a planted fault."""

import jax.numpy as jnp
import numpy as np

from dynsys.dynamics import AbstractFlow, AbstractMap
from dynsys.verify.loop import ClosedLoop
from dynsys.verify.lyapunov import AbstractLyapunov, QuadraticLyapunov
from dynsys.verify.policy import SaturatedLinear


class LinearMap(AbstractMap):
    """x+ = A x + B u + bump at one place: `depth` times the state within `width` of `place`."""

    A: jnp.ndarray
    place: jnp.ndarray
    width: jnp.ndarray
    depth: jnp.ndarray

    @property
    def dim(self):
        return self.A.shape[0]

    @property
    def n_obs(self):
        return self.A.shape[0]

    @property
    def n_inputs(self):
        return 0

    def step(self, z, u=None):
        near = jnp.maximum(1 - jnp.max(jnp.abs(z - self.place)) / self.width, 0.0)
        return self.A @ z + self.depth * near * z

    def observe(self, z):
        return z

    def lift(self, x):
        return x


class LinearFlow(AbstractFlow):
    """dx/dt = A x + cubic |x|^2 x."""

    A: jnp.ndarray
    cubic: jnp.ndarray

    @property
    def dim(self):
        return self.A.shape[0]

    @property
    def n_inputs(self):
        return 0

    def field(self, t, z, u=None):
        return self.A @ z + self.cubic * jnp.dot(z, z) * z


class InvertedPendulum(AbstractFlow):
    """Angle from upright and its rate; mass 0.15, length 0.5, friction 0.1, gravity 9.81."""

    dim: int = 2
    n_inputs: int = 1

    def field(self, t, z, u=None):
        mass, length, friction, gravity = 0.15, 0.5, 0.1, 9.81
        return jnp.stack([z[1], (mass * gravity * length * jnp.sin(z[0]) - friction * z[1] + u[0]) / (mass * length**2)])


class NormLyapunov(AbstractLyapunov):
    """|R d|_1, as a function of which nothing but its value is told."""

    R: jnp.ndarray
    goal: jnp.ndarray

    @property
    def degree(self):
        return 1

    def value(self, x):
        return jnp.sum(jnp.abs(self.R @ (x - self.goal)))


def euler(flow, t, z, u, dt):
    return z + dt * flow.field(t, z, u)


def linear_map(A, place=(1.0, 1.0), width=1.0, depth=0.0):
    plant = LinearMap(jnp.asarray(A), jnp.asarray(place), jnp.asarray(float(width)), jnp.asarray(float(depth)))
    return ClosedLoop.of(plant, goal=np.zeros(len(A)))


def linear_flow(A, cubic=0.0):
    return ClosedLoop.of(LinearFlow(jnp.asarray(A), jnp.asarray(float(cubic))), goal=np.zeros(len(A)))


def regulated(plant, linear, Q, R, limit, goal=None, rest=None):
    """A plant under the saturated regulator of `linear` (the plant or its discretisation), and the regulator's cost-to-go."""
    from dynsys.control.lqr import lqr_of

    goal = np.zeros(plant.dim) if goal is None else np.asarray(goal, float)
    rest = np.zeros(plant.n_inputs) if rest is None else np.asarray(rest, float)
    found = lqr_of(linear, goal, rest, Q, R)
    policy = SaturatedLinear.of(found.K, goal, rest, -limit, limit)
    return ClosedLoop.of(plant, policy, goal=goal, rest=rest), QuadraticLyapunov.of(found.P, goal)


def spectral(rng, radius, n=2):
    """A random matrix of that spectral radius."""
    A = rng.normal(size=(n, n))
    return A * radius / np.max(np.abs(np.linalg.eigvals(A)))

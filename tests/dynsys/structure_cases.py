"""Small maps with known structure, shared by the tests that read and draw it."""

import equinox as eqx
import jax.numpy as jnp

from dynsys.dynamics import AbstractMap, AbstractPiecewiseLinear


class Seen(AbstractMap):
    """A map whose states are all observed, and that has no inputs."""

    @property
    def n_obs(self):
        return self.dim

    @property
    def n_inputs(self):
        return 0

    def observe(self, z):
        return z

    def lift(self, x):
        return x


class SkewTent(Seen, AbstractPiecewiseLinear):
    """z / a below a, (1 - z) / (1 - a) above: conjugate to the full shift on two symbols."""

    a: float = 0.4
    dim: int = eqx.field(static=True, default=1)

    def step(self, z, u=None):
        return jnp.where(z > self.a, (1 - z) / (1 - self.a), z / self.a)

    def region(self, z):
        return z > self.a

    def affine(self, region):
        J = jnp.where(region, -1 / (1 - self.a), 1 / self.a)
        return J[:, None], jnp.where(region, 1 / (1 - self.a), 0.0)

    def switching(self):
        return jnp.ones((1, 1)), -jnp.full(1, self.a)


class Affine(Seen):
    """rate * z + 1, in one dimension, known to be nothing but a map."""

    rate: float = 0.5
    dim: int = eqx.field(static=True, default=1)

    def step(self, z, u=None):
        return self.rate * z + 1.0


class Folded(Seen, AbstractPiecewiseLinear):
    """The same, said to have a region on each side of 0."""

    rate: float = 0.5
    dim: int = eqx.field(static=True, default=1)

    def step(self, z, u=None):
        return self.rate * z + 1.0

    def region(self, z):
        return z > 0

    def affine(self, region):
        return jnp.full((1, 1), self.rate), jnp.ones(1)

    def switching(self):
        return jnp.ones((1, 1)), jnp.zeros(1)


class Logistic(Seen):
    """r z (1 - z)."""

    r: float
    dim: int = eqx.field(static=True, default=1)

    def step(self, z, u=None):
        return self.r * z * (1 - z)

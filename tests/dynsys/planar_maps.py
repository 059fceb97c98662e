"""Piecewise-linear maps in closed form, two affine pieces that meet on a line, for the tests of manifolds, basins and bifurcations."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from dynsys.dynamics import AbstractPiecewiseLinear


class TwoPieces(AbstractPiecewiseLinear):
    """z -> left z + h where z[0] < 0, right z + h where z[0] > 0; continuous if the matrices differ in their first column alone."""

    left: jnp.ndarray
    right: jnp.ndarray
    h: jnp.ndarray

    @property
    def dim(self):
        return self.h.shape[0]

    @property
    def n_obs(self):
        return self.dim

    @property
    def n_inputs(self):
        return 0

    def step(self, z, u=None):
        return jnp.where(z[0] > 0, self.right, self.left) @ z + self.h

    def observe(self, z):
        return z

    def lift(self, x):
        return x

    def region(self, z):
        return z[:1] > 0

    def affine(self, region):
        return jnp.where(region[0], self.right, self.left), self.h

    def switching(self):
        return jnp.eye(self.dim)[:1], jnp.zeros(1)


def two_pieces(left, right, h):
    return TwoPieces(*(jnp.asarray(np.asarray(a, float)) for a in (left, right, h)))


def lozi(a=1.7, b=0.5):
    """x' = 1 - a|x| + y, y' = b x (Lozi 1978)."""
    return two_pieces([[a, 1], [b, 0]], [[-a, 1], [b, 0]], [1, 0])


class Chain(AbstractPiecewiseLinear):
    """A map of the line through the given corners, straight between and beyond them."""

    slopes: jnp.ndarray
    corners: jnp.ndarray
    start: jnp.ndarray
    dim: int = eqx.field(static=True, default=1)
    n_obs: int = eqx.field(static=True, default=1)
    n_inputs: int = eqx.field(static=True, default=0)

    def step(self, z, u=None):
        bends = jnp.diff(self.slopes) * jnp.maximum(z[0] - self.corners, 0.0)
        return (self.start + self.slopes[0] * z[0] + bends.sum())[None]

    def observe(self, z):
        return z

    def lift(self, x):
        return x

    def region(self, z):
        return z[0] - self.corners > 0

    def affine(self, region):
        slope = self.slopes[0] + jnp.where(region, jnp.diff(self.slopes), 0.0).sum()
        return slope[None, None], (self.start - jnp.where(region, jnp.diff(self.slopes) * self.corners, 0.0).sum())[None]

    def switching(self):
        return jnp.ones((len(self.corners), 1)), -self.corners


def chain(slopes, corners, start):
    return Chain(*(jnp.asarray(np.asarray(a, float)) for a in (slopes, corners, start)))

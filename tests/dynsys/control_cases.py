"""Small systems for planners: a linear map, a pendulum and a cart with a pole, with their usual costs."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dynsys.dynamics import AbstractFlow, AbstractMap


class LinearMap(AbstractMap):
    """z' = A z + B u, all observed."""

    A: Float[Array, "M M"]
    B: Float[Array, "M K"]

    @property
    def dim(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.A.shape[0]

    @property
    def n_obs(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.A.shape[0]

    @property
    def n_inputs(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.B.shape[1]

    def step(self, z, u=None):
        return self.A @ z if u is None else self.A @ z + self.B @ u

    def observe(self, z):
        return z

    def lift(self, x):
        return x


class Pendulum(AbstractFlow):
    """theta'' = 1.5 g sin theta + 3 u, theta = 0 upright: Gymnasium's constants (g = 10, m = l = 1)."""

    dim: int = eqx.field(static=True, default=2)
    n_inputs: int = eqx.field(static=True, default=1)

    def field(self, t, z, u=None):
        return jnp.stack([z[1], 15.0 * jnp.sin(z[0]) + (0.0 if u is None else 3.0 * u[0])])


def linear_problem(seed=0, M=3, K=2):
    """A random stable-ish (A, B) and weights (Q, R, F), all float64."""
    rng = np.random.default_rng(seed)
    A = np.linalg.qr(rng.normal(size=(M, M)))[0] * 1.02
    B = rng.normal(size=(M, K))

    def positive(n):
        root = rng.normal(size=(n, n))
        return root @ root.T / n + 0.1 * np.eye(n)

    return A, B, positive(M), positive(K), positive(M)

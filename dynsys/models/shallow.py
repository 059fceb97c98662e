"""Shallow PLRNN and its clipped form: one hidden layer of H rectified units.

    shallow   z[t+1] = A z[t] + W1 relu(W2 z[t] + h2) + h1 + C u[t]
    clipped   z[t+1] = A z[t] + W1 [relu(W2 z[t] + h2) - relu(W2 z[t])] + h1 + C u[t]

A is diagonal. In the clipped form each unit adds at most |h2_i|, so with every |A_i| < 1 all orbits stay bounded.
Source: Hess, Monfared, Brenner, Durstewitz, ICML 2023, eqs. 3-4 and theorem 1.
"""

import abc
from typing import Any

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float

from dynsys.dynamics import AnyState
from dynsys.models.base import AbstractRNN, check_sizes, input_matrix, matvec, relu, uniform
from dynsys.models.observation import AbstractObservation, make_observation


class AbstractShallowRNN(AbstractRNN):
    """The parameters of both forms and their random start; `hidden` is H."""

    A: Float[Any, " M"]
    W1: Float[Any, "M H"]
    W2: Float[Any, "H M"]
    h1: Float[Any, " M"]
    h2: Float[Any, " H"]
    C: Float[Any, "M K"]
    observation: AbstractObservation

    @classmethod
    def init(
        cls,
        n_obs: int,
        n_inputs: int = 0,
        *,
        dim: int | None = None,
        hidden: int = 200,
        observation: str = "identity",
        key: Array,
    ) -> "AbstractShallowRNN":
        """Random parameters for N observed components and K inputs; `dim` is M (default N), `hidden` is H."""
        dim = n_obs if dim is None else dim
        check_sizes(cls.__name__, dim=dim, hidden=hidden, n_obs=n_obs)
        keys = jr.split(key, 6)
        return cls(  # pyright: ignore[reportCallIssue]
            A=jr.uniform(keys[0], (dim,), minval=0.5, maxval=0.9),
            W1=uniform(keys[1], (dim, hidden), hidden),
            W2=uniform(keys[2], (hidden, dim), dim),
            h1=jnp.zeros(dim),
            h2=uniform(keys[3], (hidden,), 1),
            C=input_matrix(dim, n_inputs, key=keys[4]),
            observation=make_observation(observation, dim, n_obs, key=keys[5]),
        )

    @abc.abstractmethod
    def hidden_units(self, z: AnyState) -> Any:
        """What the hidden layer passes on, (M,) -> (H,)."""

    def unit_rows(self) -> tuple[Any, ...]:
        """W1, h1 by rows."""
        return self.W1, self.h1[:, None]

    def latent(self, z: AnyState) -> AnyState:
        """A z + W1 hidden(z) + h1."""
        return self.A * z + matvec(self.W1, self.hidden_units(z)) + self.h1


class ShallowPLRNN(AbstractShallowRNN):
    """The shallow PLRNN; its free run can diverge."""

    def hidden_units(self, z: AnyState) -> Any:
        """relu(W2 z + h2)."""
        return relu(matvec(self.W2, z) + self.h2)

    def region(self, z: Float[Array, " M"]) -> Bool[Array, " R"]:
        """Which hidden units are active, (H,)."""
        return matvec(self.W2, z) + self.h2 > 0

    def switching(self) -> tuple[Float[Array, "R M"], Float[Array, " R"]]:
        """W2 and h2."""
        return jnp.asarray(self.W2), jnp.asarray(self.h2)

    def frozen(self, z: Float[Array, " M"], region: Bool[Array, " R"]) -> Float[Array, " M"]:
        """A z + W1 r(W2 z + h2) + h1."""
        return self.A * z + matvec(self.W1, jnp.where(region, matvec(self.W2, z) + self.h2, 0.0)) + self.h1

    def affine(self, region: Bool[Array, " R"]) -> tuple[Float[Array, "M M"], Float[Array, " M"]]:
        """diag(A) + W1 D W2 and h1 + W1 D h2."""
        open_units = self.W1 * region[None, :]
        return jnp.diag(self.A) + open_units @ self.W2, self.h1 + open_units @ self.h2


class ClippedShallowPLRNN(AbstractShallowRNN):
    """The clipped shallow PLRNN; bounded when every |A_i| < 1."""

    def hidden_units(self, z: AnyState) -> Any:
        """relu(W2 z + h2) - relu(W2 z)."""
        drive = matvec(self.W2, z)
        return relu(drive + self.h2) - relu(drive)

    def region(self, z: Float[Array, " M"]) -> Bool[Array, " R"]:
        """Signs of W2 z + h2, then of W2 z, (2 H,)."""
        drive = matvec(self.W2, z)
        return jnp.concatenate([drive + self.h2 > 0, drive > 0])

    def switching(self) -> tuple[Float[Array, "R M"], Float[Array, " R"]]:
        """W2 twice, with h2 and with zeros."""
        return jnp.concatenate([self.W2, self.W2]), jnp.concatenate([self.h2, jnp.zeros_like(self.h2)])

    def frozen(self, z: Float[Array, " M"], region: Bool[Array, " R"]) -> Float[Array, " M"]:
        """A z + W1 [r(W2 z + h2) - r'(W2 z)] + h1."""
        shifted, plain = jnp.split(region, 2)
        drive = matvec(self.W2, z)
        hidden = jnp.where(shifted, drive + self.h2, 0.0) - jnp.where(plain, drive, 0.0)
        return self.A * z + matvec(self.W1, hidden) + self.h1

    def affine(self, region: Bool[Array, " R"]) -> tuple[Float[Array, "M M"], Float[Array, " M"]]:
        """diag(A) + W1 (D - D') W2 and h1 + W1 D h2."""
        shifted, plain = jnp.split(region, 2)
        slopes = self.W1 * (shifted.astype(self.W1.dtype) - plain)[None, :]
        return jnp.diag(self.A) + slopes @ self.W2, self.h1 + (self.W1 * shifted[None, :]) @ self.h2

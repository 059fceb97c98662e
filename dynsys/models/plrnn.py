"""Piecewise-linear RNN (PLRNN), and its mean-centred form.

    PLRNN          z[t+1] = A z[t] + W relu(z[t]) + h + C u[t]
    mean-centred   z[t+1] = A z[t] + W relu(z[t] - mean(z[t])) + h + C u[t]

A is diagonal. W is a full matrix here; in the 2017 paper its diagonal is zero, a special case that training may leave.
Sources: Durstewitz, PLoS Comput Biol 2017, eq. 1; mean-centring: Brenner, Hess, Mikhaeil, Bereska, Monfared, Kuo,
Durstewitz, ICML 2022.
"""

import abc
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from array_api_compat import array_namespace
from jaxtyping import Array, Bool, Float

from dynsys.dynamics import AnyState
from dynsys.models.base import AbstractRNN, check_sizes, default_dim, input_matrix, matvec, relu, uniform
from dynsys.models.observation import AbstractObservation, make_observation


class AbstractDenseRNN(AbstractRNN):
    """z[t+1] = A z + W relu(P z) + h with a fixed projection P of the states before rectification."""

    A: Float[Any, " M"]
    W: Float[Any, "M M"]
    h: Float[Any, " M"]
    C: Float[Any, "M K"]
    observation: AbstractObservation

    @classmethod
    def init(
        cls, n_obs: int, n_inputs: int = 0, *, dim: int | None = None, observation: str = "identity", key: Array
    ) -> "AbstractDenseRNN":
        """Random parameters for N observed components and K inputs; `dim` is M (default: 20, or 2 N if more)."""
        dim = default_dim(n_obs) if dim is None else dim
        check_sizes(cls.__name__, dim=dim, n_obs=n_obs)
        keys = jr.split(key, 4)
        return cls(  # pyright: ignore[reportCallIssue]
            A=jr.uniform(keys[0], (dim,), minval=0.5, maxval=0.9),
            W=0.2 * uniform(keys[1], (dim, dim), dim),  # contracting at the start, so that no window overflows
            h=jnp.zeros(dim),
            C=input_matrix(dim, n_inputs, key=keys[2]),
            observation=make_observation(observation, dim, n_obs, key=keys[3]),
        )

    @abc.abstractmethod
    def project(self, z: AnyState) -> AnyState:
        """P z, what is rectified."""

    def unit_rows(self) -> tuple[Any, ...]:
        """W, h by rows."""
        return self.W, self.h[:, None]

    def latent(self, z: AnyState) -> AnyState:
        """A z + W relu(P z) + h."""
        return self.A * z + matvec(self.W, relu(self.project(z))) + self.h

    def region(self, z: Float[Array, " M"]) -> Bool[Array, " R"]:
        """Which rectified units are active, (M,)."""
        return self.project(z) > 0

    def switching(self) -> tuple[Float[Array, "R M"], Float[Array, " R"]]:
        """The planes (P z)_i = 0."""
        unit = jnp.eye(self.dim, dtype=self.A.dtype)
        return jax.vmap(self.project)(unit).T, jnp.zeros(self.dim, self.A.dtype)

    def frozen(self, z: Float[Array, " M"], region: Bool[Array, " R"]) -> Float[Array, " M"]:
        """A z + W r(P z) + h."""
        return self.A * z + matvec(self.W, jnp.where(region, self.project(z), 0.0)) + self.h


class PLRNN(AbstractDenseRNN):
    """The standard PLRNN: M states, each rectified, at most 2**M linear regions."""

    def project(self, z: AnyState) -> AnyState:
        """z itself."""
        return z

    def affine(self, region: Bool[Array, " R"]) -> tuple[Float[Array, "M M"], Float[Array, " M"]]:
        """diag(A) + W D(r) and h."""
        return jnp.diag(self.A) + self.W * region[None, :], jnp.asarray(self.h)


class MeanCenteredPLRNN(AbstractDenseRNN):
    """The PLRNN whose states are centred before rectification: a layer norm that stays piecewise linear."""

    def project(self, z: AnyState) -> AnyState:
        """z minus the mean of its components."""
        return z - array_namespace(z).mean(z)

    def affine(self, region: Bool[Array, " R"]) -> tuple[Float[Array, "M M"], Float[Array, " M"]]:
        """diag(A) + W D(r) (I - 1/M) and h."""
        rectified = self.W * region[None, :]
        return jnp.diag(self.A) + rectified - rectified.mean(axis=1, keepdims=True), jnp.asarray(self.h)

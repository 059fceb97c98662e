"""Dendritic PLRNN and its clipped form: each state passes through a basis of B hinges.

    dendritic   z[t+1] = A z[t] + W sum_b alpha_b relu(z[t] - H_b) + h + C u[t]
    clipped     z[t+1] = A z[t] + W sum_b alpha_b [relu(z[t] - H_b) - relu(z[t])] + h + C u[t]

A is diagonal, W a full matrix, H_b (M,) the thresholds of basis b.
Source: Brenner, Hess, Mikhaeil, Bereska, Monfared, Kuo, Durstewitz, ICML 2022, eqs. 2-3 and theorem 1 (boundedness).
"""

import abc
from typing import Any

import jax.numpy as jnp
import jax.random as jr
from array_api_compat import array_namespace
from jaxtyping import Array, Bool, Float

from dynsys.dynamics import AnyState
from dynsys.models.base import AbstractRNN, check_sizes, default_dim, input_matrix, matvec, relu, uniform
from dynsys.models.observation import AbstractObservation, make_observation


class AbstractDendriticRNN(AbstractRNN):
    """The parameters of both forms and their random start; `bases` is B."""

    A: Float[Any, " M"]
    W: Float[Any, "M M"]
    h: Float[Any, " M"]
    alpha: Float[Any, " B"]
    H: Float[Any, "B M"]
    C: Float[Any, "M K"]
    observation: AbstractObservation

    @classmethod
    def init(
        cls,
        n_obs: int,
        n_inputs: int = 0,
        *,
        dim: int | None = None,
        bases: int = 20,
        observation: str = "identity",
        key: Array,
    ) -> "AbstractDendriticRNN":
        """Random parameters; `dim` is M (20, or 2 N), thresholds are spread over three standard deviations."""
        dim = default_dim(n_obs) if dim is None else dim
        check_sizes(cls.__name__, dim=dim, bases=bases, n_obs=n_obs)
        keys = jr.split(key, 6)
        return cls(  # pyright: ignore[reportCallIssue]
            A=jr.uniform(keys[0], (dim,), minval=0.5, maxval=0.9),
            W=0.2 * uniform(keys[1], (dim, dim), dim),  # contracting at the start, so that no window overflows
            h=jnp.zeros(dim),
            alpha=uniform(keys[2], (bases,), bases),
            H=jr.uniform(keys[3], (bases, dim), minval=-3.0, maxval=3.0),
            C=input_matrix(dim, n_inputs, key=keys[4]),
            observation=make_observation(observation, dim, n_obs, key=keys[5]),
        )

    @abc.abstractmethod
    def dendrite(self, z: AnyState) -> AnyState:
        """The sum over the bases, (M,) -> (M,)."""

    def unit_rows(self) -> tuple[Any, ...]:
        """W, h by rows."""
        return self.W, self.h[:, None]

    def latent(self, z: AnyState) -> AnyState:
        """A z + W dendrite(z) + h."""
        return self.A * z + matvec(self.W, self.dendrite(z)) + self.h


class DendriticPLRNN(AbstractDendriticRNN):
    """The dendritic PLRNN; its free run can diverge."""

    def dendrite(self, z: AnyState) -> AnyState:
        """sum_b alpha_b relu(z - H_b)."""
        return self.alpha @ relu(z[None, :] - self.H)

    def region(self, z: Float[Array, " M"]) -> Bool[Array, " R"]:
        """Which hinges are open, (B * M,)."""
        return (z[None, :] > self.H).reshape(-1)

    def switching(self) -> tuple[Float[Array, "R M"], Float[Array, " R"]]:
        """The planes z_i = H_bi, basis after basis."""
        return _coordinate_planes(self.H)

    def affine(self, region: Bool[Array, " R"]) -> tuple[Float[Array, "M M"], Float[Array, " M"]]:
        """diag(A) + W diag(alpha D) and h - W (alpha D H)."""
        weighted = self.alpha[:, None] * region.reshape(self.H.shape)
        return jnp.diag(self.A) + self.W * weighted.sum(0)[None, :], self.h - self.W @ (weighted * self.H).sum(0)


class ClippedDendriticPLRNN(AbstractDendriticRNN):
    """The clipped dendritic PLRNN; bounded when every |A_i| < 1."""

    def dendrite(self, z: AnyState) -> AnyState:
        """sum_b alpha_b [relu(z - H_b) - relu(z)]."""
        return self.alpha @ relu(z[None, :] - self.H) - array_namespace(z).sum(self.alpha) * relu(z)

    def region(self, z: Float[Array, " M"]) -> Bool[Array, " R"]:
        """Which hinges are open, then which states are positive, ((B + 1) * M,)."""
        return jnp.concatenate([(z[None, :] > self.H).reshape(-1), z > 0])

    def switching(self) -> tuple[Float[Array, "R M"], Float[Array, " R"]]:
        """The planes z_i = H_bi, basis after basis, then z_i = 0."""
        return _coordinate_planes(jnp.concatenate([self.H, jnp.zeros_like(self.H[:1])]))

    def affine(self, region: Bool[Array, " R"]) -> tuple[Float[Array, "M M"], Float[Array, " M"]]:
        """diag(A) + W diag(alpha D - sum(alpha) D') and h - W (alpha D H)."""
        open_hinges = region[: self.H.size].reshape(self.H.shape)
        weighted = self.alpha[:, None] * open_hinges
        slopes = weighted.sum(0) - self.alpha.sum() * region[self.H.size :]
        return jnp.diag(self.A) + self.W * slopes[None, :], self.h - self.W @ (weighted * self.H).sum(0)


def _coordinate_planes(thresholds: Float[Any, "B M"]) -> tuple[Float[Array, "B*M M"], Float[Array, " B*M"]]:
    """The manifolds z_i - H_bi = 0 as normals and offsets."""
    count, dim = thresholds.shape
    return jnp.tile(jnp.eye(dim, dtype=thresholds.dtype), (count, 1)), -thresholds.reshape(-1)

"""Observation models: how a latent state is seen, x = g(z), and a state that is seen as x.

    identity       x = z[:N],        lift(x) = (x, 0)
    learned-lift   x = z[:N],        lift(x) = (x, (B^T x)[N:])
    affine         x = B z + b,      lift(x) = pinv(B) (x - b)

With more latent units than observed ones, `lift` of the first leaves the others at zero, the second has learned where they start
(Brenner et al., NeurIPS 2024), the third takes the smallest state; with fewer, `affine` has the least-squares state.
"""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from array_api_compat import array_namespace
from jaxtyping import Array, Float

from dynsys.dynamics import AnyObservation, AnyState
from dynsys.errors import InvalidValue
from dynsys.models.arrays import zeros
from dynsys.registry import lookup


class AbstractObservation(eqx.Module):
    """Maps M latent states to N observations and back; array-agnostic like the models that hold it."""

    n_obs: eqx.AbstractVar[int]

    @abc.abstractmethod
    def observe(self, z: AnyState) -> AnyObservation:
        """The observation of a state, (M,) -> (N,)."""

    @abc.abstractmethod
    def lift(self, x: AnyObservation) -> AnyState:
        """A state that is seen as x, (N,) -> (M,)."""

    @abc.abstractmethod
    def correct(self, z: AnyState, x: AnyObservation) -> AnyState:
        """The nearest state to z that is seen as x (for N > M: as nearly as can be), (M,), (N,) -> (M,)."""

    def prepared(self) -> "AbstractObservation":
        """The same observation with what depends on the parameters alone computed once, for use inside loops."""
        return self


class IdentityObservation(AbstractObservation):
    """The first N latent components are the observation; needs N <= M."""

    n_obs: int = eqx.field(static=True)
    dim: int = eqx.field(static=True)

    @classmethod
    def init(cls, dim: int, n_obs: int, *, key: Array) -> "IdentityObservation":
        """The identity; it has no parameters, so the key is not used."""
        return cls(n_obs=n_obs, dim=dim)

    def __check_init__(self):
        if self.n_obs > self.dim:
            raise InvalidValue(
                f"IdentityObservation: n_obs must be at most dim, got n_obs={self.n_obs} with dim={self.dim}. "
                "For a latent space smaller than the data use observation='affine'."
            )

    def observe(self, z: AnyState) -> AnyObservation:
        """The first N components."""
        return z[: self.n_obs]

    def lift(self, x: AnyObservation) -> AnyState:
        """x, followed by M - N zeros."""
        if self.dim == self.n_obs:
            return x
        return array_namespace(x).concat([x, zeros(self.dim - self.n_obs, like=x)])

    def correct(self, z: AnyState, x: AnyObservation) -> AnyState:
        """z with its first N components replaced by x."""
        if self.dim == self.n_obs:
            return x
        return array_namespace(z).concat([x, z[self.n_obs :]])


class LearnedLift(AbstractObservation):
    """The first N latent components are the observation, and a linear map of it is the start of the others; needs N <= M.

    Of B (N, M) the first N columns have no effect: they are there because published models have them.
    """

    B: Float[Any, "N M"]

    @classmethod
    def init(cls, dim: int, n_obs: int, *, key: Array) -> "LearnedLift":
        """B uniform in +-1/sqrt(N)."""
        return cls(B=jr.uniform(key, (n_obs, dim), minval=-(n_obs**-0.5), maxval=n_obs**-0.5))  # pyright: ignore[reportCallIssue]

    def __check_init__(self):
        if self.B.shape[0] > self.B.shape[1]:
            raise InvalidValue(
                f"LearnedLift: n_obs must be at most dim, got n_obs={self.B.shape[0]} with dim={self.B.shape[1]}. "
                "For a latent space smaller than the data use observation='affine'."
            )

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """N, the number of rows of B."""
        return self.B.shape[0]

    def observe(self, z: AnyState) -> AnyObservation:
        """The first N components."""
        return z[: self.n_obs]

    def lift(self, x: AnyObservation) -> AnyState:
        """x, followed by the last M - N components of B^T x."""
        return array_namespace(x).concat([x, x @ self.B[:, self.n_obs :]])

    def correct(self, z: AnyState, x: AnyObservation) -> AnyState:
        """z with its first N components replaced by x."""
        return array_namespace(z).concat([x, z[self.n_obs :]])


class AffineObservation(AbstractObservation):
    """x = B z + b, with the pseudo-inverse of B as its inverse; trained with the model."""

    B: Float[Any, "N M"]
    b: Float[Any, " N"]
    inverse: Float[Any, "M N"] | None = None

    @classmethod
    def init(cls, dim: int, n_obs: int, *, key: Array) -> "AffineObservation":
        """B with orthonormal columns (or rows, if N < M), b = 0: a random projection that keeps lengths."""
        tall = jnp.linalg.qr(jr.normal(key, (max(dim, n_obs), min(dim, n_obs))))[0]
        return cls(B=tall if n_obs >= dim else tall.T, b=jnp.zeros(n_obs))  # pyright: ignore[reportCallIssue]

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """N, the number of rows of B."""
        return self.B.shape[0]

    def observe(self, z: AnyState) -> AnyObservation:
        """B z + b."""
        return self.B @ z + self.b

    def lift(self, x: AnyObservation) -> AnyState:
        """The least-squares (N > M) or minimum-norm (N < M) state for x."""
        return self._inverse(x) @ (x - self.b)

    def correct(self, z: AnyState, x: AnyObservation) -> AnyState:
        """The smallest change of z after which the observation is (nearest to) x."""
        return z + self._inverse(x) @ (x - self.observe(z))

    def prepared(self) -> "AffineObservation":
        """The same observation with pinv(B) at hand: an SVD at every time step would be most of the time of training."""
        return AffineObservation(B=self.B, b=self.b, inverse=array_namespace(self.B).linalg.pinv(self.B))  # pyright: ignore[reportCallIssue]

    def _inverse(self, x: AnyObservation) -> Any:
        return array_namespace(x).linalg.pinv(self.B) if self.inverse is None else self.inverse


def make_observation(kind: str, dim: int, n_obs: int, *, key: Array) -> AbstractObservation:
    """The observation model of a registered name, such as 'identity' or 'affine'. Raises UnknownName for any other."""
    return lookup("observation", kind).init(dim, n_obs, key=key)

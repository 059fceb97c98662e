"""What all piecewise-linear RNNs share: an additive input C u, an observation model, exact Jacobians by region."""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from array_api_compat import array_namespace
from jaxtyping import Array, Float

from dynsys.dynamics import AbstractPiecewiseLinear, AnyInput, AnyObservation, AnyState
from dynsys.errors import InvalidValue
from dynsys.models.observation import AbstractObservation


class AbstractRNN(AbstractPiecewiseLinear):
    """A piecewise-linear RNN, z[t+1] = latent(z[t]) + C u[t], seen through an observation model."""

    A: eqx.AbstractVar[Float[Any, " M"]]
    C: eqx.AbstractVar[Float[Any, "M K"]]
    observation: eqx.AbstractVar[AbstractObservation]

    @abc.abstractmethod
    def latent(self, z: AnyState) -> AnyState:
        """The autonomous part of `step`, (M,) -> (M,)."""

    def step(self, z: AnyState, u: AnyInput = None) -> AnyState:
        """The next state, (M,), (K,) -> (M,); without u the input's term is left out."""
        return self.latent(z) if u is None or self.n_inputs == 0 else self.latent(z) + matvec(self.C, u)

    @property
    def dim(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """M, the number of latent states."""
        return self.A.shape[-1]

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """N, the number of observed components."""
        return self.observation.n_obs

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """K, the number of external inputs."""
        return self.C.shape[-1]

    def observe(self, z: AnyState) -> AnyObservation:
        """The observation of a state, (M,) -> (N,)."""
        return self.observation.observe(z)

    def lift(self, x: AnyObservation) -> AnyState:
        """A state that is seen as x, (N,) -> (M,)."""
        return self.observation.lift(x)

    def correct(self, z: AnyState, x: AnyObservation) -> AnyState:
        """The nearest state to z that is seen as x, (M,), (N,) -> (M,)."""
        return self.observation.correct(z, x)

    def prepared(self) -> "AbstractRNN":
        """The same model with the inverse of its observation at hand."""
        return eqx.tree_at(lambda model: model.observation, self, self.observation.prepared())

    @abc.abstractmethod
    def unit_rows(self) -> tuple[Any, ...]:
        """Every parameter array with one row a latent unit, except A: what feeds the units besides themselves."""

    def clamped(self, limit: float) -> "AbstractRNN":
        """The same model with every |A_i| at most `limit`; below 1 the orbits of the clipped forms are bounded."""
        return eqx.tree_at(lambda model: model.A, self, jnp.clip(self.A, -limit, limit))


def matvec(W: Any, z: Any) -> Any:
    """W z, written as z W^T: under vmap the batch then is the rows of one matrix product (two to three times faster on CPU)."""
    return z @ W.T


def relu(z: Any) -> Any:
    """max(z, 0) on any array library, with derivative 0 at 0 as the region code has it."""
    xp = array_namespace(z)
    return xp.where(z > 0, z, xp.zeros_like(z))


def uniform(key: Array, shape: tuple[int, ...], fan_in: int) -> Float[Array, "..."]:
    """Uniform numbers in +-1/sqrt(fan_in), the usual start of a linear layer."""
    bound = 1.0 / fan_in**0.5
    return jr.uniform(key, shape, minval=-bound, maxval=bound)


def input_matrix(dim: int, n_inputs: int, *, key: Array) -> Float[Array, "M K"]:
    """C of shape (dim, n_inputs), uniform; empty for an autonomous model."""
    return uniform(key, (dim, n_inputs), max(n_inputs, 1)) * 0.1 if n_inputs else jnp.zeros((dim, 0))


def check_sizes(who: str, **sizes: int) -> None:
    """Raise InvalidValue unless every named size is a whole number of at least 1."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise InvalidValue(f"{who}: {name} must be a whole number of at least 1, got {name}={size!r}.")


def default_dim(n_obs: int) -> int:
    """The number of latent states when the user names none: 20, or twice the observed components if that is more."""
    return max(20, 2 * n_obs)

"""Almost-linear RNN (AL-RNN): a piecewise-linear map with few rectified units.

    z[t+1] = A z[t] + W phi(z[t]) + h + C u[t],    phi(z) = (z[:M-P], relu(z[M-P:]))

A is diagonal. The P rectified units cut the state space into at most 2**P linear regions.
Source: Brenner, Hemmer, Monfared, Durstewitz, NeurIPS 2024, eq. 5.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from array_api_compat import array_namespace
from jaxtyping import Array, Bool, Float

from dynsys.dynamics import AnyState
from dynsys.errors import InvalidValue
from dynsys.models.base import AbstractRNN, check_sizes, default_dim, input_matrix, matvec, relu, uniform
from dynsys.models.observation import AbstractObservation, make_observation


class ALRNN(AbstractRNN):
    """M latent states, the last P of them rectified (`n_relu`); P = M is a PLRNN, P = 0 is linear."""

    A: Float[Any, " M"]
    W: Float[Any, "M M"]
    h: Float[Any, " M"]
    C: Float[Any, "M K"]
    observation: AbstractObservation
    n_relu: int = eqx.field(static=True)
    forcing: ClassVar[str] = "sparse"  # dense forcing keeps it almost linear

    def __check_init__(self):
        if not 0 <= self.n_relu <= self.A.shape[-1]:
            raise InvalidValue(
                f"ALRNN: n_relu must be in [0, dim], got n_relu={self.n_relu} with dim={self.A.shape[-1]}. "
                "n_relu counts rectified units; n_relu=dim is a PLRNN."
            )

    @classmethod
    def init(
        cls,
        n_obs: int,
        n_inputs: int = 0,
        *,
        dim: int | None = None,
        n_relu: int | None = None,
        observation: str = "identity",
        key: Array,
    ) -> "ALRNN":
        """Random parameters for N observed components and K inputs; `dim` is M (20, or 2 N), `n_relu` is P (M // 2)."""
        dim = default_dim(n_obs) if dim is None else dim
        check_sizes("ALRNN", dim=dim, n_obs=n_obs)
        keys = jr.split(key, 4)
        return cls(  # pyright: ignore[reportCallIssue]
            A=jr.uniform(keys[0], (dim,), minval=0.5, maxval=0.9),
            W=0.2 * uniform(keys[1], (dim, dim), dim),  # contracting at the start, so that no window overflows
            h=jnp.zeros(dim),
            C=input_matrix(dim, n_inputs, key=keys[2]),
            observation=make_observation(observation, dim, n_obs, key=keys[3]),
            n_relu=dim // 2 if n_relu is None else n_relu,
        )

    def unit_rows(self) -> tuple[Any, ...]:
        """W, h by rows."""
        return self.W, self.h[:, None]

    def latent(self, z: AnyState) -> AnyState:
        """A z + W phi(z) + h."""
        linear = self.dim - self.n_relu
        phi = array_namespace(z).concat([z[:linear], relu(z[linear:])])
        return self.A * z + matvec(self.W, phi) + self.h

    def region(self, z: Float[Array, " M"]) -> Bool[Array, " R"]:
        """Which of the P rectified units are active, (P,)."""
        return z[self.dim - self.n_relu :] > 0

    def switching(self) -> tuple[Float[Array, "R M"], Float[Array, " R"]]:
        """The coordinate planes z_i = 0 of the rectified units."""
        return jnp.eye(self.dim, dtype=self.A.dtype)[self.dim - self.n_relu :], jnp.zeros(self.n_relu, self.A.dtype)

    def frozen(self, z: Float[Array, " M"], region: Bool[Array, " R"]) -> Float[Array, " M"]:
        """A z + W (z[:M-P], r z[M-P:]) + h."""
        linear = self.dim - self.n_relu
        return self.A * z + matvec(self.W, jnp.concatenate([z[:linear], jnp.where(region, z[linear:], 0.0)])) + self.h

    def affine(self, region: Bool[Array, " R"]) -> tuple[Float[Array, "M M"], Float[Array, " M"]]:
        """diag(A) + W D(r) and h, D = 1 for the linear units."""
        passing = jnp.concatenate([jnp.ones(self.dim - self.n_relu, dtype=bool), region])
        return jnp.diag(self.A) + self.W * passing[None, :], jnp.asarray(self.h)

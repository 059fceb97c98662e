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


class MaskedALRNN(AbstractRNN):
    """An AL-RNN whose rectified units are data: `rectified` (M,) marks them, so that models of every P are one program.

    Of all M units' signs, `region` has those of the rectified ones; the others read False.
    """

    A: Float[Any, " M"]
    W: Float[Any, "M M"]
    h: Float[Any, " M"]
    C: Float[Any, "M K"]
    observation: AbstractObservation
    rectified: Bool[Any, " M"]
    forcing: ClassVar[str] = ALRNN.forcing

    @classmethod
    def of(cls, model: ALRNN) -> "MaskedALRNN":
        """The same map with its last P units marked."""
        rectified = jnp.arange(model.dim) >= model.dim - model.n_relu
        return cls(model.A, model.W, model.h, model.C, model.observation, rectified)  # pyright: ignore[reportCallIssue]

    def fixed(self) -> ALRNN:
        """The same map with P as a number; the marked units must be the last ones, as `of` makes them."""
        return ALRNN(self.A, self.W, self.h, self.C, self.observation, int(self.rectified.sum()))  # pyright: ignore[reportCallIssue]

    def unit_rows(self) -> tuple[Any, ...]:
        """W, h by rows."""
        return self.W, self.h[:, None]

    def latent(self, z: AnyState) -> AnyState:
        """A z + W phi(z) + h."""
        xp = array_namespace(z)
        phi = xp.where((z > 0) | ~self.rectified, z, xp.zeros_like(z))
        return self.A * z + matvec(self.W, phi) + self.h

    def region(self, z: Float[Array, " M"]) -> Bool[Array, " R"]:
        """Which units are rectified and active, (M,)."""
        return (z > 0) & self.rectified

    def switching(self) -> tuple[Float[Array, "R M"], Float[Array, " R"]]:
        """The coordinate planes z_i = 0 of the rectified units; a row of zeros, which no state is beyond, for the others."""
        return jnp.diag(jnp.asarray(self.rectified, self.A.dtype)), jnp.zeros_like(self.A)

    def frozen(self, z: Float[Array, " M"], region: Bool[Array, " R"]) -> Float[Array, " M"]:
        """A z + W D(r) z + h."""
        return self.A * z + matvec(self.W, jnp.where(region | ~self.rectified, z, 0.0)) + self.h

    def affine(self, region: Bool[Array, " R"]) -> tuple[Float[Array, "M M"], Float[Array, " M"]]:
        """diag(A) + W D(r) and h, D = 1 for the units that are not rectified."""
        return jnp.diag(self.A) + self.W * (region | ~self.rectified)[None, :], jnp.asarray(self.h)

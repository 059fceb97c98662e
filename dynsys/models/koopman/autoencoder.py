"""Linearly recurrent autoencoder: encoder network, linear map, decoder network, trained together along free runs.

    y[0] = encode(x[0]),    y[t+1] = A y[t] + B u[t],    x[t] = decode(y[t])

With `skip` the latent state begins with the observation itself, y = (x, net(x)), and decoding takes it from there: no decoder has to be
learned, and an observation is decoded as it was encoded. A fresh A turns the latent components in pairs, by small angles and with
moduli just below 1. The loss is in `dynsys.models.koopman.network`.
Source: Otto & Rowley, SIAM J. Appl. Dyn. Syst. 18, 558 (2019).
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from array_api_compat import array_namespace
from jaxtyping import Array, Float

from dynsys.dynamics import AnyInput, AnyObservation
from dynsys.errors import InvalidValue
from dynsys.models.base import input_matrix, matvec
from dynsys.models.koopman.network import AbstractAutoencoder, Offsets, Weights, random_networks

MODULI = (0.95, 0.999)  # of the eigenvalues of a fresh A
ANGLES = (0.0, 0.5)  # of the same, radians a step


class KoopmanAutoencoder(AbstractAutoencoder):
    """Encoder, linear map of the latent state, decoder, trained along runs.

    A is (L, L). With `skip` the encoder network gives the L - N further components, and there are no decoder layers.
    """

    encoder_W: Weights
    encoder_b: Offsets
    decoder_W: Weights
    decoder_b: Offsets
    A: Float[Any, "L L"]
    B: Float[Any, "L K"]
    activation: str = eqx.field(static=True, default="tanh")
    skip: bool = eqx.field(static=True, default=False)
    reconstruction: float = eqx.field(static=True, default=1.0)
    consistency: float = eqx.field(static=True, default=1.0)
    discount: float = eqx.field(static=True, default=1.0)
    reencode: int = eqx.field(static=True, default=0)

    @classmethod
    def init(
        cls,
        n_obs: int,
        n_inputs: int = 0,
        *,
        latent: int | None = None,
        hidden: int = 64,
        depth: int = 2,
        activation: str = "tanh",
        decoder: str = "mlp",
        skip: bool = False,
        reconstruction: float = 1.0,
        consistency: float = 1.0,
        discount: float = 1.0,
        reencode: int = 0,
        key: Array,
    ) -> "KoopmanAutoencoder":
        """Random parameters for N observed components and K inputs.

        latent: L, by default 16 or 2 N + 2 if that is more. `depth` hidden layers of `hidden` units in the encoder and, unless decoder is
        'linear', in the decoder. skip: the latent state holds the observation (needs latent > N; decoder plays no part).
        reconstruction, consistency, discount: of the loss. reencode: see `dynsys.models.koopman.lifted`.
        Raises InvalidValue for sizes or weights that can't be, UnknownName for a decoder or an activation that is not there.
        """
        latent = max(16, 2 * n_obs + 2) if latent is None else latent
        if skip and not latent > n_obs:
            raise InvalidValue(
                f"{cls.__name__}: with skip the latent state holds the observation and more, so latent must exceed n_obs={n_obs}, "
                f"got latent={latent}."
            )
        nets, drive, turns = jr.split(key, 3)
        made = latent - n_obs if skip else latent
        layers = random_networks(cls.__name__, n_obs, made, hidden=hidden, depth=depth, decoder=decoder, key=nets)
        if skip:
            layers |= {"decoder_W": (), "decoder_b": ()}
        return cls(
            **layers,
            A=turning(latent, key=turns),
            B=input_matrix(latent, n_inputs, key=drive),
            activation=activation,
            skip=skip,
            reconstruction=reconstruction,
            consistency=consistency,
            discount=discount,
            reencode=reencode,
        )  # pyright: ignore[reportCallIssue]

    @property
    def n_latent(self) -> int:
        """L, the rows of A."""
        return self.A.shape[-1]

    @property
    def matrix(self) -> Float[Any, "L L"]:
        """A."""
        return self.A

    def encode(self, w: Float[Any, " N"]) -> Float[Any, " L"]:
        """net(x), or (x, net(x)), (N,) -> (L,)."""
        y = super().encode(w)
        return array_namespace(w).concat([w, y]) if self.skip else y

    def decode(self, y: Float[Any, " L"]) -> AnyObservation:
        """net(y), or the first N components, (L,) -> (N,)."""
        return y[: self.n_obs] if self.skip else super().decode(y)

    def advance(self, y: Float[Any, " L"], u: AnyInput = None) -> Float[Any, " L"]:
        """A y + B u, (L,), (K,) -> (L,)."""
        y = matvec(self.A, y)
        return y if u is None or self.n_inputs == 0 else y + matvec(self.B, u)


def turning(size: int, *, key: Array) -> Float[Array, "L L"]:
    """A matrix that turns pairs of components by random angles, with eigenvalues just inside the unit circle; an odd last one shrinks."""
    radius, angle = jr.split(key)
    pairs = (size + 1) // 2
    moduli = jnp.repeat(jr.uniform(radius, (pairs,), minval=MODULI[0], maxval=MODULI[1]), 2)[:size]
    angles = jr.uniform(angle, (size // 2,), minval=ANGLES[0], maxval=ANGLES[1])
    cos = jnp.concatenate([jnp.repeat(jnp.cos(angles), 2), jnp.ones(size % 2)])
    sin = jnp.zeros(max(size - 1, 0)).at[0::2].set(jnp.sin(angles)) if size > 1 else jnp.zeros(0)
    return moduli[:, None] * (jnp.diag(cos) - jnp.diag(sin, 1) + jnp.diag(sin, -1))

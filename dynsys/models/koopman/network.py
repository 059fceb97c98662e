"""What the learned Koopman models share: an encoder and a decoder that are small networks, and the loss of an autoencoder.

    y[0] = encode(x[0]),    y[t+1] = advance(y[t], u[t]),    x[t] = decode(y[t])

    net(v)      v[l+1] = act(W[l] v[l] + b[l]),   the last layer is linear

    loss = mean_t (decode(y[t]) - x[t])^2                               the trainer's own term, along a free run
           + r mean_t (decode(encode(x[t])) - x[t])^2                   `reconstruction`
           + c sum_t d^(t-1) |y[t] - encode(x[t])|^2 / (e sum_t d^(t-1)),  t = 1, 2, ...    `consistency`, `discount`

e is the mean of |encode(x[t])|^2 over the window, so that nothing is gained by a small latent space. Otto & Rowley divide every summand
by its own size, and discount the first term too; here the data are standardised and the first term counts all steps alike.
Source: Otto & Rowley, SIAM J. Appl. Dyn. Syst. 18, 558 (2019), sec. 2.
"""

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from dynsys.dynamics import AnyObservation
from dynsys.errors import InvalidValue, UnknownName
from dynsys.models.base import check_sizes, matvec, uniform
from dynsys.models.fields import ACTIVATIONS, activate
from dynsys.models.koopman.lifted import AbstractLinear, check_period

DECODERS = ("mlp", "linear")

Weights = tuple[Float[Any, "_ _"], ...]
Offsets = tuple[Float[Any, " _"], ...]


class AbstractAutoencoder(AbstractLinear):
    """A lifted model with a network as encoder and one as decoder; `forcing` is free, so that training is a free run."""

    encoder_W: eqx.AbstractVar[Weights]
    encoder_b: eqx.AbstractVar[Offsets]
    decoder_W: eqx.AbstractVar[Weights]
    decoder_b: eqx.AbstractVar[Offsets]
    B: eqx.AbstractVar[Float[Any, "L K"]]
    activation: eqx.AbstractVar[str]
    reconstruction: eqx.AbstractVar[float]
    consistency: eqx.AbstractVar[float]
    discount: eqx.AbstractVar[float]

    forcing: ClassVar[str] = "free"

    def __check_init__(self):
        who = type(self).__name__
        check_period(who, self.reencode)
        if self.activation not in ACTIVATIONS:
            raise UnknownName("activation", self.activation, ACTIVATIONS)
        if self.reconstruction < 0 or self.consistency < 0:
            weights = f"reconstruction={self.reconstruction}, consistency={self.consistency}"
            raise InvalidValue(f"{who}: weights of the loss can't be negative, got {weights}.")
        if not 0 < self.discount <= 1:
            raise InvalidValue(
                f"{who}: discount must be in (0, 1], got discount={self.discount}: the weight of a step beside the one before."
            )

    @property
    def delays(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """1: a learned encoder sees one point. Delays are columns of the prepared data (`preparation.dimension`)."""
        return 1

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """N, the columns of the encoder's first layer."""
        return self.encoder_W[0].shape[-1]

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """K, the columns of B."""
        return self.B.shape[-1]

    def encode(self, w: Float[Any, " N"]) -> Float[Any, " L"]:
        """The encoder network, (N,) -> (L,)."""
        return network(self.encoder_W, self.encoder_b, w, self.activation)

    def decode(self, y: Float[Any, " L"]) -> AnyObservation:
        """The decoder network, (L,) -> (N,)."""
        return network(self.decoder_W, self.decoder_b, y, self.activation)

    def jacobian(self, z: Float[Array, " M"], u: Float[Array, " K"] | None = None) -> Float[Array, "M M"]:
        """`matrix`, wherever z lies; by differentiation if the state is encoded anew on the way."""
        return super().jacobian(z, u) if self.reencode else jnp.asarray(self.matrix)

    def own_loss(self, states: Float[Array, "T M"], xs: Float[Array, "T N"]) -> Float[Array, ""] | float:
        """Reconstruction of the data, and the distance of the free run from the encoded data; see the module."""
        total = 0.0
        if not self.reconstruction and not self.consistency:
            return total
        encoded = jax.vmap(self.encode)(xs)
        if self.reconstruction:
            total = total + self.reconstruction * jnp.mean((jax.vmap(self.decode)(encoded) - xs) ** 2)
        if self.consistency:
            off = jnp.mean((states[1:, : self.n_latent] - encoded[1:]) ** 2, axis=1)
            weights = self.discount ** jnp.arange(len(off), dtype=off.dtype)
            size = jnp.mean(encoded**2) + jnp.finfo(off.dtype).eps
            total = total + self.consistency * (off @ weights) / (jnp.sum(weights) * size)
        return total


def network(W: Weights, b: Offsets, v: Float[Any, " I"], activation: str) -> Float[Any, " O"]:
    """The output of the last, linear layer, (I,) -> (O,); array-agnostic."""
    for weights, offsets in zip(W[:-1], b[:-1], strict=True):
        v = activate(activation, matvec(weights, v) + offsets)
    return matvec(W[-1], v) + b[-1]


def random_network(sizes: Sequence[int], *, key: Array) -> tuple[Weights, Offsets]:
    """Random layers from sizes[0] inputs to sizes[-1] outputs; the last layer's offsets are 0."""
    keys = jr.split(key, 2 * len(sizes))
    pairs = list(itertools.pairwise(sizes))
    W = tuple(jr.normal(k, (after, before)) / before**0.5 for k, (before, after) in zip(keys, pairs, strict=False))
    b = [uniform(k, (after,), before) for k, (before, after) in zip(keys[len(sizes) :], pairs, strict=False)]
    return W, (*b[:-1], jnp.zeros(sizes[-1]))


def random_networks(who: str, n_obs: int, latent: int, *, hidden: int, depth: int, decoder: str, key: Array) -> dict[str, Any]:
    """Encoder and decoder as keywords of a model: `depth` hidden layers of `hidden` units each; depth=0 or decoder='linear' has none.

    Raises InvalidValue for sizes that can't be, UnknownName for another decoder.
    """
    check_sizes(who, n_obs=n_obs, latent=latent, hidden=hidden)
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 0:
        raise InvalidValue(
            f"{who}: depth must be a whole number of at least 0, got depth={depth!r}: the hidden layers of encoder and decoder."
        )
    if decoder not in DECODERS:
        raise UnknownName("decoder", decoder, DECODERS)
    there, back = jr.split(key)
    encoder_W, encoder_b = random_network([n_obs, *[hidden] * depth, latent], key=there)
    decoder_W, decoder_b = random_network([latent, *[hidden] * (0 if decoder == "linear" else depth), n_obs], key=back)
    return {"encoder_W": encoder_W, "encoder_b": encoder_b, "decoder_W": decoder_W, "decoder_b": decoder_b}

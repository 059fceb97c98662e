"""A small feed-forward network whose parts the bounds of this package know: matrices, tanh or leaky rectifiers.

y[l+1] = act(W[l] y[l] + b[l]),   the last layer is linear;   act: tanh(y), or max(y, y / 100) for "leaky"
"""

import itertools

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from dynsys.errors import InvalidValue, UnknownName

ACTIVATIONS = ("tanh", "leaky")
LEAK = 0.01


class Network(eqx.Module):
    """Weights W[l] (after, before), offsets b[l] (after,), and the activation by name."""

    W: tuple[Float[Array, "_ _"], ...]
    b: tuple[Float[Array, " _"], ...]
    activation: str = eqx.field(static=True, default="tanh")

    def __check_init__(self):
        if self.activation not in ACTIVATIONS:
            raise UnknownName("activation", self.activation, ACTIVATIONS)

    @classmethod
    def init(cls, sizes: tuple[int, ...], *, activation: str = "tanh", last: float = 1.0, key: Array) -> "Network":
        """Random, with `sizes` = (inputs, hidden, ..., outputs); `last` scales the last layer. InvalidValue for a size below 1."""
        if len(sizes) < 2 or min(sizes) < 1:
            raise InvalidValue(f"Network: sizes must be at least two positive numbers, (inputs, hidden, ..., outputs), got {sizes}.")
        keys = jr.split(key, 2 * (len(sizes) - 1))
        layers = list(itertools.pairwise(sizes))
        W = [jr.normal(k, (after, before)) / before**0.5 for k, (before, after) in zip(keys, layers, strict=False)]
        b = [jr.uniform(k, (after,), minval=-1.0) / before**0.5 for k, (before, after) in zip(keys[len(layers) :], layers, strict=True)]
        return cls((*W[:-1], last * W[-1]), tuple(b), activation)  # pyright: ignore[reportCallIssue]

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " p"]:
        """The output of the last, linear layer, (n,) -> (p,)."""
        for W, b in zip(self.W[:-1], self.b[:-1], strict=True):
            y = W @ x + b
            x = jnp.tanh(y) if self.activation == "tanh" else jnp.maximum(y, LEAK * y)
        return self.W[-1] @ x + self.b[-1]

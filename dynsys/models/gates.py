"""What cells share: their nonlinearities on any array library, and recurrent matrices that are masked or of low rank."""

from typing import Any

import jax.numpy as jnp
from array_api_compat import array_namespace
from jaxtyping import Array, Float

from dynsys.models.base import relu, uniform
from dynsys.models.wiring import Wiring


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)) without overflow."""
    return 0.5 * array_namespace(x).tanh(0.5 * x) + 0.5


def softplus(x: Any) -> Any:
    """log(1 + exp(x)) > 0 without overflow."""
    xp = array_namespace(x)
    return xp.logaddexp(x, xp.zeros_like(x))


def inverse_softplus(y: Any) -> Any:
    """The x with softplus(x) = y > 0."""
    return y + jnp.log(-jnp.expm1(-y))


def lecun_tanh(x: Any) -> Any:
    """1.7159 tanh(0.666 x): variance near 1 is kept (LeCun, Bottou, Orr, Muller, 1998; 2/3 rounded as authors' implementations do)."""
    return 1.7159 * array_namespace(x).tanh(0.666 * x)


def silu(x: Any) -> Any:
    """x sigmoid(x)."""
    return x * sigmoid(x)


def tanh(x: Any) -> Any:
    """Hyperbolic tangent."""
    return array_namespace(x).tanh(x)


ACTIVATIONS = {"lecun-tanh": lecun_tanh, "tanh": tanh, "relu": relu, "silu": silu}


def factors(wiring: Wiring, heads: int, *, key: Array) -> tuple[Float[Array, "_ _"], ...]:
    """A random recurrent matrix (S, heads S); for a wiring of rank r its best approximation by (S, heads r), (heads r, S).

    The factors are U sqrt(D) and sqrt(D) V of the truncated singular value decomposition of each head (Tumma et al. 2023).
    """
    S, r = wiring.units, wiring.rank
    whole = uniform(key, (S, heads * S), S)
    if r is None:
        return (whole,)
    parts = [jnp.linalg.svd(part, full_matrices=False) for part in jnp.split(whole, heads, axis=1)]
    left = [U[:, :r] * jnp.sqrt(d[:r])[None, :] for U, d, _ in parts]
    right = [jnp.sqrt(d[:r])[:, None] * V[:r] for _, d, V in parts]
    return jnp.concatenate(left, axis=1), jnp.concatenate(right, axis=0)


def masked(matrices: tuple[Any, ...], masks: tuple[Any, ...], heads: int) -> Any:
    """The recurrent matrix (S, heads S) of its factors, head by head, times the second of (sensory, recurrent) masks if there are any."""
    R = matrices[0]
    if len(matrices) == 2:
        left, right = matrices
        r = right.shape[0] // heads
        blocks = [slice(i * r, (i + 1) * r) for i in range(heads)]
        R = array_namespace(left).concat([left[:, block] @ right[block] for block in blocks], axis=1)
    return R * masks[1] if masks else R

"""Random numbers without a state: a hash of a few counters, many times faster on a CPU than a cryptographic generator.

The four-word hash of Jarzynski & Olano, Hash Functions for GPU Rendering, Journal of Computer Graphics Techniques 9(3), 2020 (pcg4d): a
linear congruential step on each word, then two rounds in which every word is changed by a product of two others.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32


def pcg4d(x: UInt32[Array, "*B"], y: UInt32[Array, "*B"], z: UInt32[Array, "*B"], w: UInt32[Array, "*B"]) -> tuple[Array, ...]:
    """Four words of 32 bits from four counters."""
    a, c = np.uint32(1664525), np.uint32(1013904223)
    x, y, z, w = (v * a + c for v in (x, y, z, w))
    x = x + y * w
    y = y + z * x
    z = z + x * y
    w = w + y * z
    x, y, z, w = (v ^ (v >> np.uint32(16)) for v in (x, y, z, w))
    x = x + y * w
    y = y + z * x
    z = z + x * y
    w = w + y * z
    return x, y, z, w


def hashed_uniform(seed: UInt32[Array, ""], lane: UInt32[Array, "*B"], count: UInt32[Array, "*B"], n: int) -> Float[Array, "n *B"]:
    """n uniform numbers in (0, 1) for each (lane, count), float32: the upper 23 bits of a word and a half, which 24 bits hold exactly."""
    found: list[Array] = []
    for group in range((n + 3) // 4):
        found += pcg4d(lane, count, jnp.full_like(lane, group), jnp.broadcast_to(seed, lane.shape))
    bits = jnp.stack(found[:n]) >> np.uint32(9)
    return (bits.astype(jnp.float32) + jnp.float32(0.5)) * jnp.float32(2.0**-23)


def hashed_normal(seed: UInt32[Array, ""], lane: UInt32[Array, ""], n: int) -> Float[Array, " n"]:
    """n independent standard normal numbers, |x| < 5.3, float32."""
    return jnp.sqrt(jnp.float32(2)) * jax.scipy.special.erfinv(2 * hashed_uniform(seed, lane, jnp.zeros_like(lane), n) - 1)

"""The box-constrained quadratic step of a planner: min 1/2 v'Hv + g'v, low <= v <= high, for H positive definite, exactly.

For one input the answer is a clipped quotient. For few inputs every way to hold components at their limits is tried at once, 3^K small
solves, of which the one that satisfies the conditions of Karush, Kuhn and Tucker is the answer. For more, a projected Newton method
(Bertsekas, SIAM J. Control Optim. 20, 221 (1982)), as in Tassa, Mansard, Todorov, ICRA 2014. The gain of a component that is held is zero.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dynsys.control.small import solve

MOST_TRIED = 3  # inputs up to which all active sets are tried
NEWTON = 20


def box_step(
    H: Float[Array, "K K"], g: Float[Array, " K"], low: Float[Array, " K"], high: Float[Array, " K"]
) -> tuple[Float[Array, " K"], Bool[Array, " K"]]:
    """(the minimiser v, which components are free), (K,) each."""
    K = g.shape[0]
    if K == 1:
        free = -g / H[0]
        v = jnp.clip(free, low, high)
        return v, (free > low) & (free < high)
    return _tried(H, g, low, high) if K <= MOST_TRIED else _newton(H, g, low, high)


def solve_free(H: Float[Array, "K K"], rows: Float[Array, "K M"], free: Bool[Array, " K"]) -> Float[Array, "K M"]:
    """-H_ff^-1 rows_f on the free components, zero on the held ones: the gain of a step."""
    if H.shape[0] == 1:
        return jnp.where(free[:, None], -rows / H, 0.0)
    return -jnp.where(free[:, None], solve(_masked(H, free), jnp.where(free[:, None], rows, 0.0)), 0.0)


def _masked(H: Array, free: Array) -> Array:
    both = free[:, None] & free[None, :]
    return jnp.where(both, H, jnp.eye(H.shape[0], dtype=H.dtype))


def _tried(H: Array, g: Array, low: Array, high: Array) -> Any:
    """All active sets: -1 at the lower limit, 1 at the upper one, 0 free."""
    sets = jnp.asarray(np.array(list(itertools.product((0, -1, 1), repeat=g.shape[0]))))
    finite = lambda x: jnp.where(jnp.isfinite(x), x, 0.0)  # noqa: E731  (an infinite limit is never held)

    def one(held: Array) -> tuple[Array, Array, Array]:
        free = held == 0
        at = jnp.where(held < 0, finite(low), jnp.where(held > 0, finite(high), 0.0))
        rest = jnp.where(free, g + H @ at, 0.0)
        v = at - jnp.where(free, solve(_masked(H, free), rest[:, None])[:, 0], 0.0)
        slope = H @ v + g
        scale = 1e-9 * (1.0 + jnp.max(jnp.abs(g)))
        inside = jnp.where(free, jnp.maximum(low - v, v - high), -1.0)
        pushed = jnp.where(held < 0, -slope, jnp.where(held > 0, slope, -1.0))
        possible = jnp.where(held < 0, jnp.isfinite(low), jnp.where(held > 0, jnp.isfinite(high), True))
        worst = jnp.maximum(jnp.max(inside) / (1.0 + jnp.max(jnp.abs(v))), jnp.max(pushed) / (1.0 + jnp.max(jnp.abs(g))))
        return v, free, jnp.where(jnp.all(possible), jnp.maximum(worst - scale, 0.0), jnp.inf)

    v, free, broken = jax.vmap(one)(sets)
    best = jnp.argmin(broken)
    return jnp.clip(v[best], low, high), free[best]


def _newton(H: Array, g: Array, low: Array, high: Array) -> Any:
    """Projected Newton from the clipped unconstrained step, with a halving line search."""

    def slope(v: Array) -> Array:
        return H @ v + g

    def value(v: Array) -> Array:
        return 0.5 * v @ H @ v + g @ v

    def freed(v: Array) -> Array:
        s = slope(v)
        return ~(((v <= low) & (s > 0)) | ((v >= high) & (s < 0)))

    sizes = 0.5 ** jnp.arange(10, dtype=g.dtype)

    def body(_: Any, v: Array) -> Array:
        free = freed(v)
        move = -jnp.where(free, jnp.linalg.solve(_masked(H, free), jnp.where(free, slope(v), 0.0)), 0.0)
        tried = jnp.clip(v[None, :] + sizes[:, None] * move[None, :], low[None, :], high[None, :])
        values = jax.vmap(value)(tried)
        best = jnp.argmin(values)
        return jnp.where(values[best] < value(v), tried[best], v)

    v = jax.lax.fori_loop(0, NEWTON, body, jnp.clip(jnp.linalg.solve(H, -g), low, high))
    return v, freed(v)

"""The largest violation of a claimed decrease that an attack finds; below 0 if the claim holds wherever it looked.

    map     F(x) = max_w V(step(x, w)) / V(x) - (1 - rate),       flow    F(x) = max_w (grad V . field)(x, w) / V(x) + rate

`attack` tells states with F > 0 only; asked for a larger rate it tells all that it climbed to, whatever the sign of F. Disturbances w are
the corners of their box and its middle.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from dynsys.precision import x64
from dynsys.verify.attack import attack, increase, inward, outside, scattered
from dynsys.verify.loop import CORNERS, ClosedLoop
from dynsys.verify.lyapunov import AbstractLyapunov

SHIFT = 1e6  # of the rate of a flow, for which every state counts as a violation


@dataclass(frozen=True)
class Violation:
    """The largest F and its state (n,), nan if no state counted; tried: how many states were looked at.

    outside: by how much x+ of a map leaves the box at most, in half-widths (negative: it stays inside; nan: a flow).
    """

    largest: float
    state: Float[np.ndarray, " n"]
    outside: float
    tried: int


class Adverse(eqx.Module):
    """A loop under the disturbance, among corners and middle (q, p), that raises V most; for `attack` and `increase`."""

    loop: ClosedLoop
    V: AbstractLyapunov
    w: Float[Array, "q p"]

    @property
    def continuous(self) -> bool:
        """Whether the plant is a flow."""
        return self.loop.continuous

    def step(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """x+ or dx/dt under it."""
        moved = jax.vmap(lambda w: self.loop.advance(x, w))(self.w)
        if self.w.shape[0] == 1:
            return moved[0]
        if self.continuous:
            rise = jax.vmap(lambda f: jax.jvp(self.V.value, (x,), (f,))[1])(moved)
        else:
            rise = jax.vmap(self.V.value)(moved)
        return moved[jnp.argmax(rise)]


def adverse(loop: ClosedLoop, V: AbstractLyapunov) -> Adverse:
    """See Adverse; at most CORNERS corners."""
    low, high = np.asarray(loop.low), np.asarray(loop.high)
    corners = [np.where(bits, high, low) for bits in itertools.islice(itertools.product([False, True], repeat=len(low)), CORNERS)]
    with x64():
        chosen = np.stack([0.5 * (low + high), *corners]) if len(low) else np.zeros((1, 0))
        return Adverse(loop, V, jnp.asarray(chosen))  # pyright: ignore[reportCallIssue]


def decrease(loop: ClosedLoop, V: AbstractLyapunov, x: Any, rate: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """At states x (S, n): F (S,), V (S,) and the next states of a map, (S, n) (of a flow x itself)."""
    with x64():
        found = _increases(V, adverse(loop, V), jnp.asarray(x, float), jnp.asarray(rate, float))
    return tuple(np.asarray(z) for z in found)  # pyright: ignore[reportReturnType]


def largest(
    loop: ClosedLoop,
    V: AbstractLyapunov,
    low: Any,
    high: Any,
    level: float,
    *,
    rate: float,
    core: float = 0.0,
    starts: int = 2048,
    steps: int = 50,
    key: Any = 0,
) -> Violation:
    """The largest F in {core < V <= level} inside the box [low, high] (n,), by `steps` of projected gradient ascent from `starts` states.

    With a core, at as many random states instead: an ascent would go below it. Errors as of `attack`.
    """
    with x64():
        low, high = jnp.asarray(low, float), jnp.asarray(high, float)
        shift = SHIFT * (1.0 + float(rate)) if loop.continuous else 2.0
        tried = starts * (steps + 1)
        if core > 0:  # an ascent would go below the core, where nothing is claimed
            key = jr.key(key) if isinstance(key, int) else key
            x = np.asarray(_drawn(V, low, high, jnp.asarray(level, float), key, tried))
        else:
            x = np.asarray(attack(V, adverse(loop, V), low, high, level, rate=rate + shift, starts=starts, steps=steps, key=key).states)
        if not len(x):
            return Violation(float("nan"), np.full(loop.dim, np.nan), float("nan"), tried)
        F, value, after = decrease(loop, V, x, rate)
        counts = value > core
        left = float("nan")
        if not loop.continuous:
            counts = counts & (np.asarray(jax.vmap(V.value)(jnp.asarray(after))) > core) if core > 0 else counts
            left = float(np.max(np.asarray(jax.vmap(lambda y: outside(y, low, high))(jnp.asarray(after)))))
    best = int(np.argmax(np.where(counts, F, -np.inf)))
    return Violation(float(F[best]) if counts[best] else float("nan"), x[best], left, tried)


@eqx.filter_jit
def _drawn(V: AbstractLyapunov, low: Array, high: Array, level: Array, key: Array, count: int) -> Array:
    """States of {V <= level}, many on its border."""
    return jax.vmap(lambda y: inward(V, y, level))(scattered(key, count, V.goal, low, high, smallest=1e-2))


@eqx.filter_jit
def _increases(V: AbstractLyapunov, loop: Adverse, x: Array, rate: Array) -> tuple[Array, Array, Array]:
    return jax.vmap(lambda y: increase(V, loop, y, rate))(x)

"""The largest level at which no counterexample is known, and the volume of its set.

The set is {x in the box: V(x) <= level}, off the faces of the box (`inside`): the level stays below the least V on them. A map can do
without, since its next state must lie in the box; a flow could leave through a face.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from dynsys.precision import x64
from dynsys.verify.attack import attack, box_of, real, scattered
from dynsys.verify.frames import enclosing
from dynsys.verify.lyapunov import AbstractLyapunov

SHRINK = 0.999  # a level below a counterexample by this factor
NEXT_TO = 1e-4  # of the box: a counterexample this near to the goal leaves no level


class Level(eqx.Module):
    """level: 0 if the candidate fails next to the goal. volume of the set, with its standard error; both from random states."""

    level: float
    volume: float
    error: float


def largest_level(
    V: AbstractLyapunov,
    loop: Any,
    low: Any,
    high: Any,
    *,
    rate: float = 0.0,
    inside: bool = True,
    samples: int = 200_000,
    rounds: int = 8,
    key: Array | int = 0,
) -> Level:
    """The level below every counterexample that `samples` random states and `rounds` attacks find; a guess to hand to a proof.

    loop, rate: as `attack` takes them. inside: keep the set off the faces of the box; flows always do.
    """
    with x64():
        low, high = box_of("largest_level", low, high, V.goal)
        drawn, faces, *more = jr.split(jr.key(key) if isinstance(key, int) else key, rounds + 2)
        wall = float(_least_on_faces(V, on_faces(faces, samples // 10, low, high), low, high))
        x = scattered(drawn, samples, V.goal, low, high, enclosing(V, wall, low, high))
        value, bad = _evaluate(V, loop, x, low, high, jnp.asarray(rate, float))
        level = float(jnp.min(jnp.where(bad, value, jnp.inf))) * SHRINK
        if bool(jnp.any(bad & _next_to(x, V.goal, low, high))):
            level = 0.0
        if inside or loop.continuous:
            level = min(level, wall * SHRINK)
        level = min(level, float(jnp.max(value)))
        for now in more:
            found = attack(V, loop, low, high, level, rate=rate, key=now) if level > 0 else None
            if found is None or not found.found:
                break
            near = bool(jnp.any(_next_to(found.states, V.goal, low, high)))
            level = 0.0 if near else float(jnp.min(jax.vmap(V.value)(found.states))) * SHRINK
        return Level(level, *volume_in(V, level, low, high, enclosing(V, level, low, high), key=drawn, samples=samples))  # pyright: ignore[reportCallIssue]


@eqx.filter_jit
def _share(V: AbstractLyapunov, level: Array, low: Array, high: Array, cube: Array, key: Array, samples: int) -> Array:
    x = V.goal[None, :] + jr.uniform(key, (samples, len(low)), minval=-1.0) @ cube.T
    return jnp.mean((jax.vmap(V.value)(x) <= level) & jnp.all((x >= low[None, :]) & (x <= high[None, :]), axis=1))


def volume_in(
    V: AbstractLyapunov, level: float, low: Any, high: Any, cube: Any, *, key: Array, samples: int = 400_000
) -> tuple[float, float]:
    """The volume of {V <= level} between low and high (n,) in the cube goal + cube [-1, 1]^n, and its standard error, by uniform states."""
    with x64():
        low, high, cube = (jnp.asarray(z, float) for z in (low, high, cube))
        share = float(_share(V, jnp.asarray(level, float), low, high, cube, key, samples))
        whole = 2.0 ** len(low) * abs(float(jnp.linalg.det(cube)))
        return whole * share, whole * float(np.sqrt(share * (1 - share) / samples))


def _next_to(x: Array, goal: Array, low: Array, high: Array) -> Array:
    return jnp.max(jnp.abs(x - goal[None, :]) / (high - low)[None, :], axis=1) < NEXT_TO


def on_faces(key: Array, count: int, low: Array, high: Array) -> Float[Array, "C n"]:
    """Random states on the faces of a box, (count, n); every face equally often."""
    where, which = jr.split(key)
    n = low.shape[0]
    x = jr.uniform(where, (count, n), low.dtype, minval=low[None, :], maxval=high[None, :])
    face = jr.randint(which, (count,), 0, 2 * n)
    here = (face % n)[:, None] == jnp.arange(n)[None, :]
    return jnp.where(here, jnp.where((face < n)[:, None], low[None, :], high[None, :]), x)


@eqx.filter_jit
def _evaluate(V: AbstractLyapunov, loop: Any, x: Array, low: Array, high: Array, rate: Array) -> tuple[Array, Array]:
    """V and whether a state is a counterexample at some level."""
    infinite = jnp.asarray(jnp.inf, low.dtype)
    return jax.vmap(V.value)(x), jax.lax.map(lambda y: real(V, loop, y, low, high, infinite, rate), x, batch_size=4096) > 0


@eqx.filter_jit
def _least_on_faces(V: AbstractLyapunov, x: Array, low: Array, high: Array, steps: int = 100) -> Array:
    """The least V on the faces, by descent along each face from states on it."""
    fixed = (x == low[None, :]) | (x == high[None, :])

    def descend(x: Array, i: Array) -> tuple[Array, Array]:
        slope = jnp.where(fixed, 0.0, jax.vmap(jax.grad(V.value))(x))
        x = jnp.clip(x - (0.05 * 0.95**i) * (high - low)[None, :] * jnp.sign(slope), low[None, :], high[None, :])
        return x, jnp.min(jax.vmap(V.value)(x))

    return jnp.minimum(jnp.min(jax.vmap(V.value)(x)), jnp.min(jax.lax.scan(descend, x, jnp.arange(steps))[1]))

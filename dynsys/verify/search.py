"""The search of one proof: the cube around the goal from its surface, then every box outside it; limits; counterexamples re-checked."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from dynsys.verify import branch, claim
from dynsys.verify.affine import Affine
from dynsys.verify.branch import Search
from dynsys.verify.claim import LEAST
from dynsys.verify.interpret import bounded
from dynsys.verify.loop import ClosedLoop
from dynsys.verify.proof import Counterexample

FACE_LEAST = 2.0**-12
FACE_BOXES = 20_000
SMALLEST_HOLE = 30  # halvings
STACK = 64  # batches
PAUSE = 0.5  # seconds between looks at the clock
STICKS_OUT = "the level set reaches the border of the cube"
Told = Callable[[float, int, float], Any]


@dataclass(frozen=True)
class Limits:
    """When to stop: seconds, boxes, boxes waiting in memory; the size of a batch; whether proved boxes are kept."""

    seconds: float = 600.0
    boxes: int = 50_000_000
    waiting: int = 20_000_000
    batch: int = 1024
    leaves: bool = True


@dataclass(frozen=True)
class Claimed:
    """A claim ready to be proved."""

    loop: ClosedLoop
    V: Any
    numbers: claim.Numbers
    shape: claim.Shape
    domain: tuple[np.ndarray, np.ndarray]


@eqx.filter_jit
def _face_turns(
    c: tuple[ClosedLoop, Any, claim.Numbers], shape: claim.Shape, state: branch.Loop, batch: int, least: Array, most: Array
) -> branch.Loop:
    loop, V, numbers = c
    sq = claim.squares(numbers, shape)

    def evaluate(mid: Array, rad: Array) -> tuple[claim.Bounds, Array, Array]:
        bounds = jax.vmap(lambda m, r: claim.on_face(loop, V, numbers, shape, sq, m, r))(mid, rad)
        return bounds, jnp.zeros(batch, bool), mid

    return branch.turns(evaluate, state, batch, least, most)


@eqx.filter_jit
def _box_turns(
    c: tuple[ClosedLoop, Any, claim.Numbers], shape: claim.Shape, state: branch.Loop, batch: int, least: Array, most: Array, noise: Array
) -> branch.Loop:
    loop, V, numbers = c
    sq = claim.squares(numbers, shape)

    def evaluate(mid: Array, rad: Array) -> tuple[claim.Bounds, Array, Array]:
        bounds = jax.vmap(lambda m, r: claim.on_box(loop, V, numbers, shape, sq, m, r))(mid, rad)
        return bounds, *jax.vmap(lambda m, r: claim.refutes(loop, V, numbers, shape, m, r, noise))(mid, rad)

    return branch.turns(evaluate, state, batch, least, most)


def hole(claimed: Claimed, limits: Limits, began: float) -> tuple[float, int, float]:
    """The largest cube, 2^-1, 2^-2, ... of the whole, in which the claim holds for all r; else 0; boxes; seconds to compile."""
    seen, compiling = 0, 0.0
    batch = min(limits.batch, 256)
    for halvings in range(1, SMALLEST_HOLE):
        numbers = eqx.tree_at(lambda c: c.r0, claimed.numbers, jnp.asarray(2.0**-halvings))
        search = branch.start(*branch.faces(claimed.shape.n, claimed.loop.low.shape[0]))
        turns = 4
        while search.open and not search.aside and search.boxes < FACE_BOXES:
            clock = time.perf_counter()
            state, waiting = branch.blank(search, batch, STACK)
            state = _face_turns(
                (claimed.loop, claimed.V, numbers), claimed.shape, state, batch, jnp.asarray(FACE_LEAST), jnp.asarray(turns)
            )
            search = branch.collected(search, state, waiting, keep=False)
            if seen == 0 and search.boxes and compiling == 0:
                compiling = time.perf_counter() - clock
            turns = min(2 * turns, 32)
        seen += search.boxes
        if not search.open and not search.aside:
            return 2.0**-halvings, search.boxes, compiling
        if time.perf_counter() - began - compiling > limits.seconds:
            break
    return 0.0, seen, compiling


def search_boxes(
    claimed: Claimed, search: Search, limits: Limits, began: float, progress: Told | None
) -> tuple[Search, str, Counterexample | None, float]:
    """Branch and bound until an end: (search, reason unless proved, counterexample, seconds of compilation)."""
    c, noise, turns, compiling = (claimed.loop, claimed.V, claimed.numbers), 1e-12, 1, 0.0
    least, first = jnp.asarray(LEAST), True
    already = search.boxes
    while search.open:
        clock = time.perf_counter()
        state, waiting = branch.blank(search, limits.batch, STACK)
        if first:
            state_now = _box_turns(c, claimed.shape, state, limits.batch, least, jnp.asarray(0), jnp.asarray(noise))
            jax.block_until_ready(state_now)
            first, compiling = False, time.perf_counter() - clock
            clock = time.perf_counter()
        left = max(1, (limits.boxes - (search.boxes - already)) // limits.batch)
        state = _box_turns(c, claimed.shape, state, limits.batch, least, jnp.asarray(min(turns, left)), jnp.asarray(noise))
        search = branch.collected(search, state, waiting, limits.leaves)
        now = time.perf_counter()
        turns = max(1, min(4 * turns, int(turns * PAUSE / max(now - clock, 1e-6))))
        spent = now - began - compiling
        stopped = progress(search.volume, search.boxes, spent) if progress is not None else False
        if search.point is not None:
            shown = refuted(claimed, search.point)
            if shown is not None:
                return search, f"false: {shown.what}", shown, compiling
            noise *= 1e3
            search = search._replace(point=None)
        if not search.open:
            break
        if spent > limits.seconds or search.boxes - already >= limits.boxes or stopped is True:
            reason = "stopped" if stopped is True else ("time" if spent > limits.seconds else "boxes")
            return search, f"{reason}: the limit was met", None, compiling
        if sum(len(x[0]) for x in search.open) > limits.waiting:
            return search, "memory: too many open boxes", None, compiling
        if sum(len(x[0]) for x in search.aside) > 64 * limits.batch:
            return search, f"width: boxes of relative half-width {LEAST:.0e} are not proved; the claim may be tight there", None, compiling
    reason = "width: some boxes of the least width are not proved; the claim may be tight there" if search.aside else ""
    return search, reason, None, compiling


def refuted(claimed: Claimed, point: np.ndarray) -> Counterexample | None:
    """A counterexample at a point (y, scaled disturbance) if bounds of the claim there show it to be false."""
    n, cored = claimed.shape.n, claimed.shape.cored
    found = _at_point((claimed.loop, claimed.V, claimed.numbers), claimed.shape, jnp.asarray(point))
    x, w, value, out, left, rise = (np.asarray(z) for z in found)
    level = float(claimed.numbers.level)
    if not value[1] <= level:
        return None
    whats = [
        ("the level set leaves the domain", out),
        (STICKS_OUT, level - value[1] if np.max(np.abs(point[:n])) >= 1 else -1.0),
        ("V is not positive", -value[1] if not cored and np.any(x != np.asarray(claimed.loop.goal)) else -1.0),
        ("x+ leaves the domain", left),
        ("V does not decrease", rise),
    ]
    for what, excess in whats:
        if excess > 0 or (excess == 0 and what in (STICKS_OUT, "V is not positive")):  # these claim strict inequalities
            return Counterexample(x, w, what, float(0.5 * (value[0] + value[1])), float(excess))
    return None


@eqx.filter_jit
def _at_point(c: tuple[ClosedLoop, Any, claim.Numbers], shape: claim.Shape, point: Array) -> tuple[Array, ...]:
    """At a point: x, w, bounds of V, and lower bounds of how far x and x+ are outside the domain, and of what V rises too much."""
    (loop, V, numbers), n = c, shape.n
    x = loop.goal + numbers.T @ point[:n]
    w = jnp.clip(0.5 * (loop.low + loop.high) + 0.5 * (loop.high - loop.low) * point[n:], loop.low, loop.high)
    here = Affine(x, None, jnp.zeros(n))
    value = claim.lift(bounded(lambda V, x: V.value(x), V, here))
    after = claim.lift(bounded(lambda loop, x, w: loop.advance(x, w), loop, here, w))
    out = jnp.max(jnp.maximum(numbers.low - x, x - numbers.high))
    low, high = value.range()
    if shape.continuous:
        slope = claim.lift(bounded(lambda V, x, f: jax.jvp(V.value, (x,), (f,))[1], V, here, after))
        rise = slope.plus(value.times(numbers.rate)).range()[0]
        above, left = low > numbers.core, -jnp.ones(())
    else:
        V_after = claim.lift(bounded(lambda V, x: V.value(x), V, after))
        rise = V_after.minus(value.minus(value.times(numbers.rate))).range()[0]
        above = V_after.range()[0] > numbers.core
        low_after, high_after = after.range()
        left = jnp.max(jnp.maximum(numbers.low - high_after, low_after - numbers.high))
    return x, w, jnp.stack([low, high]), out, left, jnp.where(above, rise, -1.0)

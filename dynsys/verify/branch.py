"""Branch and bound over boxes, in one compiled loop: take boxes from a stack, bound them, drop what is proved, halve the rest.

A box is mid +- rad in coordinates where the whole is [-1, 1]^N; mid and rad are dyadic, so that halving is exact. The stack lies on the
device and has a fixed size; when it is full, its bottom moves to the host and comes back when the top is empty. A box no wider than
`least` that is not proved is put aside, not dropped. The loop pauses every so often, so that a caller sees progress and can stop it; a
paused search is a `Search` of plain arrays and goes on where it was.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

SLACK = 4  # batches of room: two for the children, the rest so that reading never wraps


class Stack(NamedTuple):
    """Boxes (S, N) and (S, N), of which the first `filled` are there."""

    mid: Array
    rad: Array
    filled: Array


class Leaves(NamedTuple):
    """Proved boxes with what was found: lower bound of V and upper bound of the decrease, (L, 2)."""

    mid: Array
    rad: Array
    bounds: Array
    filled: Array


class Loop(NamedTuple):
    """The state of the compiled loop: what is open, proved, put aside; a point that may refute the claim; counts."""

    stack: Stack
    leaves: Leaves
    aside: Stack
    found: Array
    point: Array
    volume: Array
    boxes: Array
    turns: Array


class Search(NamedTuple):
    """A search that can go on: open boxes, put aside, proved (each a list of arrays), the proved share of the volume, the boxes seen."""

    open: list[tuple[np.ndarray, np.ndarray]]
    aside: list[tuple[np.ndarray, np.ndarray]]
    leaves: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
    volume: float
    boxes: int
    point: np.ndarray | None


def start(mid: np.ndarray, rad: np.ndarray) -> Search:
    """A search that has yet to see its boxes, (S, N) each."""
    return Search([(mid, rad)], [], [], 0.0, 0, None)


def grid(n: int, extra: int, cells: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """About `cells` equal boxes of [-1, 1]^n, none across 0 in the first coordinates, times all of [-1, 1]^extra; (S, n + extra)."""
    halvings = (
        [max(1, int(np.log2(cells)) // n)] * n if n <= np.log2(cells) else [1] * int(np.log2(cells)) + [0] * (n - int(np.log2(cells)))
    )
    axes = [(np.arange(2**k) + 0.5) * 2.0 ** (1 - k) - 1 for k in halvings]
    mid = np.stack([x.ravel() for x in np.meshgrid(*axes, indexing="ij")], axis=1)
    rad = np.broadcast_to(2.0 ** -np.array(halvings, float), mid.shape)
    whole = np.zeros((len(mid), extra))
    return np.concatenate([mid, whole], axis=1), np.concatenate([rad, whole + 1], axis=1)


def faces(n: int, extra: int) -> tuple[np.ndarray, np.ndarray]:
    """The 2n faces of [-1, 1]^n, times all of [-1, 1]^extra."""
    mid = np.concatenate([np.eye(n), -np.eye(n)])
    rad = np.concatenate([1 - np.eye(n)] * 2)
    whole = np.zeros((2 * n, extra))
    return np.concatenate([mid, whole], axis=1), np.concatenate([rad, whole + 1], axis=1)


def turn(evaluate: Callable[[Array, Array], tuple[Any, Array, Array]], state: Loop, batch: int, least: Array) -> Loop:
    """One batch. evaluate: boxes (B, N), (B, N) -> (their Bounds, whether each seems to refute the claim (B,), where (B, N))."""
    taken = jnp.minimum(state.stack.filled, batch)
    first = state.stack.filled - taken
    mid, rad = (jax.lax.dynamic_slice_in_dim(x, first, batch) for x in state.stack[:2])
    there = jnp.arange(batch) < taken
    bounds, refuted, points = evaluate(mid, rad)
    proved = there & bounds.proved
    tiny = there & ~proved & (jnp.max(rad, axis=1) <= least)
    split = there & ~proved & ~tiny
    which = jnp.argmax(bounds.scores, axis=1)
    half = jnp.where(jax.nn.one_hot(which, mid.shape[1], dtype=bool), 0.5 * rad, 0.0)
    rows, n = _packed(split)
    low, high = (x[rows] for x in (mid - half, mid + half))
    thin = (rad - half)[rows]
    stack_mid, stack_rad = (
        jax.lax.dynamic_update_slice_in_dim(jax.lax.dynamic_update_slice_in_dim(x, a, first, 0), b, first + n, 0)
        for x, a, b in ((state.stack.mid, low, high), (state.stack.rad, thin, thin))
    )
    rows, m = _packed(proved)
    made = (mid[rows], rad[rows], jnp.stack([bounds.value, bounds.margin], axis=1)[rows])
    leaves = [jax.lax.dynamic_update_slice_in_dim(x, new, state.leaves.filled, 0) for x, new in zip(state.leaves[:3], made, strict=True)]
    rows, k = _packed(tiny)
    aside = [
        jax.lax.dynamic_update_slice_in_dim(x, new[rows], state.aside.filled, 0) for x, new in zip(state.aside[:2], (mid, rad), strict=True)
    ]
    refuted = refuted & (split | tiny)
    share = jnp.prod(jnp.where(rad > 0, rad, 1.0), axis=1)
    return Loop(
        Stack(stack_mid, stack_rad, first + 2 * n),
        Leaves(leaves[0], leaves[1], leaves[2], state.leaves.filled + m),
        Stack(aside[0], aside[1], state.aside.filled + k),
        state.found | jnp.any(refuted),
        jnp.where(state.found, state.point, points[jnp.argmax(refuted)]),
        state.volume + jnp.sum(jnp.where(proved, share, 0.0)),
        state.boxes + taken,
        state.turns + 1,
    )


def turns(evaluate: Callable[[Array, Array], tuple[Any, Array, Array]], state: Loop, batch: int, least: Array, most: Array) -> Loop:
    """Batches until nothing is left, something needs the host, or `most` have been done."""

    def goes_on(s: Loop) -> Array:
        room = (
            (s.stack.filled <= s.stack.mid.shape[0] - SLACK * batch)
            & (s.leaves.filled <= s.leaves.mid.shape[0] - batch)
            & (s.aside.filled <= s.aside.mid.shape[0] - batch)
        )
        return (s.stack.filled > 0) & room & ~s.found & (s.turns < most)

    return jax.lax.while_loop(goes_on, lambda s: turn(evaluate, s, batch, least), state)


def blank(search: Search, batch: int, size: int) -> tuple[Loop, list[tuple[np.ndarray, np.ndarray]]]:
    """A loop state with as many open boxes as fit in a stack of `size` batches, and the open boxes that wait."""
    rows, waiting = size * batch, list(search.open)
    width = waiting[0][0].shape[1]
    mid, rad, filled = np.zeros((rows, width)), np.zeros((rows, width)), 0
    room = rows // 2
    while waiting and filled < room:
        m, r = waiting.pop()
        take = min(len(m), room - filled)
        if take < len(m):
            waiting.append((m[:-take], r[:-take]))
        mid[filled : filled + take], rad[filled : filled + take] = m[len(m) - take :], r[len(m) - take :]
        filled += take
    zero = jnp.zeros((), jnp.int64)
    empty = np.zeros((rows, width))
    return Loop(
        Stack(jnp.asarray(mid), jnp.asarray(rad), jnp.asarray(filled, jnp.int64)),
        Leaves(jnp.asarray(empty), jnp.asarray(empty), jnp.zeros((rows, 2)), zero),
        Stack(jnp.zeros((2 * batch, width)), jnp.zeros((2 * batch, width)), zero),
        jnp.asarray(False),
        jnp.zeros(width),
        jnp.zeros(()),
        zero,
        zero,
    ), waiting


def collected(search: Search, state: Loop, waiting: list[tuple[np.ndarray, np.ndarray]], keep: bool) -> Search:
    """The search after a pause of the loop. keep: whether proved boxes are kept."""

    def rows(x: Any, count: Array) -> tuple[np.ndarray, ...]:
        return tuple(np.asarray(z)[: int(count)] for z in x)

    aside, leaves = list(search.aside), list(search.leaves)
    still = list(waiting)
    if int(state.stack.filled):
        still.append(rows(state.stack[:2], state.stack.filled))  # pyright: ignore[reportArgumentType]
    if int(state.aside.filled):
        aside.append(rows(state.aside[:2], state.aside.filled))  # pyright: ignore[reportArgumentType]
    if keep and int(state.leaves.filled):
        leaves.append(rows(state.leaves[:3], state.leaves.filled))  # pyright: ignore[reportArgumentType]
    point = np.asarray(state.point) if bool(state.found) else None
    return Search(still, aside, leaves, search.volume + float(state.volume), search.boxes + int(state.boxes), point)


def _packed(which: Array) -> tuple[Array, Array]:
    """Row numbers with the chosen ones in front, and how many they are."""
    return jnp.nonzero(which, size=which.shape[0], fill_value=0)[0], jnp.sum(which)

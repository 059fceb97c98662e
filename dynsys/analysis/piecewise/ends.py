"""Where orbits ended: on a known stable cycle, on another attractor, or nowhere.

Attractors that are not known are told apart by the cells of a coarse grid that the tails of the orbits visit: orbits that share
a cell, or have points nearer to each other than half a cell, belong to one attractor, and so does a chain of such orbits (union-find
over orbits and cells). Everything here expects to run within `x64()`.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.csgraph
from jaxtyping import Array, Float, Int
from scipy.spatial import KDTree

from dynsys.analysis.piecewise.cycle import Cycle
from dynsys.analysis.piecewise.newton import newton_direction
from dynsys.analysis.piecewise.verified import same_cycle, verified
from dynsys.dynamics import AbstractMap

DIVERGED = -1
UNCLEAR = -2  # bounded, but on none of the attractors that are kept
_TABLE = 1 << 22  # numbers of the tails that are kept at a time
_STATES = 1 << 21  # states of all tails together that are compared
_CELLS = 1 << 13  # cells that a sample of the tails may visit; with more the grid is made coarser
_THIN = 1e-4  # a cell is at least this share of a coordinate's size
_POLISH = 4  # steps of Newton's method from the end of an orbit
_SHOWN = 5000  # points of an attractor that are kept


@dataclasses.dataclass(frozen=True)
class Attractor:
    """Where points of a basin end: points (n, M) on it, its period in steps if it is a cycle, and its share of the slice.

    cycle: the given cycle that it is, or the record of one that was found here. A limit cycle of a flow is sampled by its map at ever
    new phases: no period.
    """

    points: Float[np.ndarray, "n M"]
    share: float
    period: int | None
    cycle: Cycle | None = None

    @property
    def name(self) -> str:
        """'fixed point', '3-cycle', or 'chaotic or quasi-periodic'."""
        if self.period is None:
            return "chaotic or quasi-periodic"
        return "fixed point" if self.period == 1 else f"{self.period}-cycle"


def sort_ends(
    model: AbstractMap,
    z0: Float[np.ndarray, "B M"],
    z: Float[np.ndarray, "B M"],
    stable: list[Cycle],
    *,
    tail: int,
    cells: int,
    limit: float,
    max_attractors: int,
) -> tuple[Int[np.ndarray, " B"], list[Attractor], list[str]]:
    """Labels, attractors and notes of orbits that began at z0 and came to z; a coordinate beyond the limit has diverged."""
    labels = np.full(len(z), UNCLEAR)
    bounded = (np.abs(z) < limit).all(1)  # not so for NaN
    labels[~bounded] = DIVERGED
    size = np.median(np.abs(z0), axis=0)  # not the largest: a few orbits may come from far
    size = np.maximum(size, np.median(np.abs(z[bounded]), axis=0)) if bounded.any() else size
    size = np.maximum(size, 1e-3 * max(float(size.max()), 1e-9))
    for n, cycle in enumerate(stable):
        near = (np.abs(z[:, None] - cycle.points) / size).max(2).min(1) < 1e-6  # not so for NaN
        labels[near & (labels == UNCLEAR)] = n
    (lanes,) = np.nonzero(labels == UNCLEAR)
    attractors, notes = [Attractor(c.points, 0.0, c.period, c) for c in stable], []
    if len(lanes):
        tails = _Tails(model, z, lanes, tail, limit)
        labels[lanes], more, left_out, slow = _told_apart(tails, stable, size, cells, max_attractors)
        attractors += more
        if left_out:
            notes.append(
                f"{left_out} more sets, of orbits that share no cell or stay on an unstable cycle, are labelled {UNCLEAR}: raise steps, "
                "tail or max_attractors, or lower cells. A conservative map has no attractors at all."
            )
        if slow:
            notes.append(
                f"{slow} of the attractors are orbits that hardly move in their last {tails.short} steps, but do not repeat: they may "
                "be on their way to one that is listed. Raise steps (for a flow, dt)."
            )
    attractors = [dataclasses.replace(attractor, share=float((labels == n).mean())) for n, attractor in enumerate(attractors)]
    return labels, attractors, notes


class _Tails:
    """The next `tail` states of the chosen lanes (n of B), computed block by block."""

    def __init__(self, model: AbstractMap, z: np.ndarray, lanes: np.ndarray, tail: int, limit: float):
        self.model, self.starts, self.tail, self.limit = model, z[lanes], tail, limit

    @property
    def short(self) -> int:
        """How many of the states are enough where all lanes are compared."""
        return min(self.tail, max(16, _STATES // len(self.starts)))

    def of(self, chosen: Any, length: int) -> np.ndarray:
        """The first states (length, b, M) of some of the lanes; those of a lane that diverges are NaN."""
        z = self.starts[chosen]
        room = 1 << (len(z) - 1).bit_length()  # few shapes, few compilations
        filled = np.concatenate([z, np.repeat(z[:1], room - len(z), axis=0)])
        orbit = np.array(_tail(self.model, jnp.asarray(filled), length))[:, : len(z)]
        orbit[:, ~(np.abs(orbit) < self.limit).all((0, 2))] = np.nan
        return orbit

    def blocks(self) -> list[np.ndarray]:
        """Lanes (b,) of each block."""
        count = max(1, _TABLE // (self.short * self.starts.shape[1]))
        return [np.arange(i, min(i + count, len(self.starts))) for i in range(0, len(self.starts), count)]

    def period(self, lane: int, size: np.ndarray) -> int | None:
        """The smallest number of steps after which the end of an orbit repeats, to 1e-5 of the size; None if it does not."""
        orbit = self.of(np.array([lane]), self.tail)[:, 0] / size
        half = len(orbit) // 2
        found = (p for p in range(1, half + 1) if np.abs(orbit[half:] - orbit[half - p : len(orbit) - p]).max() <= 1e-5)
        return next(found, None)

    def cycle(self, lane: int, size: np.ndarray) -> Cycle | None:
        """The cycle at which an orbit ends: its last states, where they repeat, and Newton's method from there; None if there is none."""
        period = self.period(lane, size)
        if period is None:
            return None
        end = Z = self.of(np.array([lane]), self.tail)[-period:, 0]
        for _ in range(_POLISH):
            Z = Z + np.asarray(_direction(self.model, jnp.asarray(Z)))
        near = bool((np.abs(Z - end) <= 0.01 * size).all())  # not so for NaN: I - J can be singular
        found = verified(self.model, Z if near else end, 1e-9 * size)
        return found if found.residual <= 1e-9 * max(1.0, float(np.abs(found.points).max())) else None


def _equal(one: Cycle, other: Cycle, size: np.ndarray) -> bool:
    return one.period == other.period and same_cycle(one.points, other.points[None], 1e-6 * size)


@eqx.filter_jit
def _direction(model: AbstractMap, Z: Array) -> Array:
    return newton_direction(model, Z)[1]


def _told_apart(
    tails: _Tails, stable: list[Cycle], size: np.ndarray, cells: int, max_attractors: int
) -> tuple[np.ndarray, list[Attractor], int, int]:
    """Labels of the lanes, the attractors that are not known, how many small ones were left out, and how many stay in one cell."""
    lane, cell, places, width = _visited(tails, size, cells)
    n = len(tails.starts)
    known = [cycle.points for cycle in stable]
    near = KDTree(np.concatenate([places, *known]) / width).query_pairs(0.5, p=np.inf, output_type="ndarray")
    edges = np.concatenate([np.stack([lane, n + cell], axis=1), n + near])
    nodes = n + len(places) + sum(map(len, known))
    graph = scipy.sparse.coo_matrix((np.ones(len(edges), np.int8), tuple(edges.T)), shape=(nodes, nodes))
    component = np.asarray(scipy.sparse.csgraph.connected_components(graph, directed=False)[1])
    labels, at = np.full(n, UNCLEAR), n + len(places)
    for c, cycle in enumerate(stable):  # on the way to a known cycle
        labels[component[:n] == component[at]] = c
        at += cycle.period
    seen = np.zeros(n, bool)
    seen[lane] = True
    labels[~seen] = DIVERGED
    kinds, counts = np.unique(component[:n][labels == UNCLEAR], return_counts=True)
    order = np.argsort(-counts, kind="stable")[: max(0, max_attractors - len(stable))]
    attractors, left_out, slow = [], len(kinds) - len(order), 0
    for name in kinds[order]:
        members = (component[:n] == name) & (labels == UNCLEAR)
        first = int(np.argmax(members))
        cycle = tails.cycle(first, size)
        if cycle is None:
            visited = places[component[n : n + len(places)] == name]
            attractor, slow = Attractor(visited[:_SHOWN], 0.0, None), slow + (len(visited) == 1)
        elif cycle.n_unstable:  # a start exactly on a boundary of basins
            left_out += 1
            continue
        else:
            attractor = Attractor(cycle.points, 0.0, cycle.period, cycle)
        cycles = [*stable, *(other.cycle for other in attractors)]  # slow orbits, from several sides, can end at one cycle
        same = (i for i, other in enumerate(cycles) if cycle is not None and other is not None and _equal(cycle, other, size))
        index = next(same, len(cycles))
        labels[members] = index
        attractors += [attractor] if index == len(cycles) else []
    return labels, attractors, left_out, slow


def _visited(tails: _Tails, size: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (lane, cell) of bounded lanes and the cells that they visit, a point in each cell (c, M), and the width of a cell (M,)."""
    sample = tails.of(slice(None, None, max(1, len(tails.starts) // 256)), tails.tail).reshape(-1, len(size))
    finite = np.isfinite(sample[:, 0])
    sample = sample[finite] if finite.any() else tails.starts
    low, high = np.quantile(sample, (0.02, 0.98), axis=0)
    while True:  # coarse enough for many orbits to meet in a cell
        width = np.maximum(1.1 * (high - low) / cells, _THIN * size)
        if cells <= 4 or len(np.unique(_hash(np.floor((sample[:, None] - low) / width).astype(np.int64)))) <= _CELLS:
            break
        cells //= 2
    lanes, names, points = [], [], []
    for block in tails.blocks():
        orbit = tails.of(block, tails.short)
        block, orbit = block[good := np.isfinite(orbit[0, :, 0])], orbit[:, good]
        hashed = _hash(np.floor((orbit - low) / width).astype(np.int64))
        lane = np.broadcast_to(block, hashed.shape)
        pairs, first = np.unique(np.stack([lane.ravel(), hashed.ravel()], axis=1), axis=0, return_index=True)
        lanes.append(pairs[:, 0])
        names.append(pairs[:, 1])
        points.append(orbit.reshape(-1, orbit.shape[-1])[first])
    _, first, cell = np.unique(np.concatenate(names), return_index=True, return_inverse=True)
    return np.concatenate(lanes), cell.reshape(-1), np.concatenate(points)[first], width


@eqx.filter_jit
def _tail(model: AbstractMap, z: Array, steps: int) -> Array:
    def advance(z: Array, _: None) -> tuple[Array, Array]:
        z = jax.vmap(lambda state: model.step(state))(z)
        return z, z

    return jax.lax.scan(advance, z, None, length=steps)[1]


def _hash(cell: Int[np.ndarray, "T B M"]) -> Int[np.ndarray, "T B"]:
    """One number of 64 bits for each cell; that two of a million cells agree has a probability of 1e-7."""
    found = np.zeros(cell.shape[:2], np.uint64)
    for i in range(cell.shape[2]):
        found = (found ^ cell[..., i].astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        found ^= found >> np.uint64(29)
    return found.astype(np.int64)

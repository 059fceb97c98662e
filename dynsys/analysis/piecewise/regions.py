"""Which linear regions a piecewise-linear map has: those that an orbit visits, and those that exist in a box.

    region(z) = N z + b > 0, row by row;   two states with equal codes share one affine map

R hyperplanes cut M dimensions into at most sum_{i <= M} C(R, i) regions (Zaslavsky 1975; Buck 1943), 2**R if R <= M.
"""

import dataclasses
import math
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Real, UInt

from dynsys.analysis.arrays import as_float, check_series
from dynsys.analysis.piecewise.polytope import Polytope, box, cut
from dynsys.dynamics import AbstractMap, AbstractPiecewiseLinear
from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys.status import Status

_CHUNK = 1 << 16  # states whose codes are packed at a time
_MAX_DIM = 8  # a box has 2**M corners to begin with
_THIN = 1e-10  # cells thinner than this share of the box are left out


@dataclasses.dataclass(frozen=True)
class VisitedRegions:
    """The n regions of T states, most visited first: labels (T,), codes (n, R), counts (n,). A state that is not finite has label -1."""

    labels: Int[np.ndarray, " T"]
    codes: Bool[np.ndarray, "n R"]
    counts: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.codes)


@dataclasses.dataclass(frozen=True)
class RegionsInBox:
    """The n regions that meet an open box, codes (n, R). status MAX_STEPS: more than the limit; FAILED: see notes."""

    codes: Bool[np.ndarray, "n R"]
    status: Status = Status.SUCCESS
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.codes)


def visited_regions(model: AbstractMap, states: Real[Any, "T M"]) -> VisitedRegions:
    """The sequence of linear regions of an orbit, (T, M) -> labels (T,), as numbers by falling number of visits.

    Codes of more than 32 bits are told apart by a hash, which is checked. Raises InvalidValue for a shape that is
    not (T, dim) and for a model without regions.
    """
    reason = not_piecewise(model)
    if reason:
        raise InvalidValue(f"visited_regions: {reason}")
    check_series("visited_regions", "states", states)
    if np.shape(states)[1] != model.dim:
        raise InvalidValue(
            f"visited_regions: states must have shape (T, {model.dim}), got {np.shape(states)}: latent states, not observed."
        )
    with x64():
        pieces: AbstractPiecewiseLinear = as_float(model)
        words, finite = _packed(pieces, np.asarray(states))
        rank, first, counts = _ranked(words, finite)
        codes = np.asarray(_codes(pieces, jnp.asarray(np.asarray(states)[first], float)))
    return VisitedRegions(rank, codes, counts)


def regions_in_box(model: AbstractMap, low: Real[Any, " M"], high: Real[Any, " M"], *, limit: int = 100_000) -> RegionsInBox:
    """Every linear region that meets the open box low < z < high, exactly, but for cells thinner than 1e-10 of the box.

    Where all hyperplanes are coordinate planes (AL-RNN, PLRNN, dendritic) the cells are products of intervals, for any M. Otherwise
    the box is cut by one hyperplane after the other, for M up to 8; in more dimensions, and for a model without regions, status is
    FAILED, and a note says so. Raises InvalidValue for corners that are not finite, of the wrong shape or order.
    """
    reason = not_piecewise(model)
    if reason:
        return RegionsInBox(np.zeros((0, 0), bool), Status.FAILED, (reason,))
    low, high = check_box("regions_in_box", model.dim, low, high)
    normals, offsets = hyperplanes(cast(AbstractPiecewiseLinear, model))
    if (np.count_nonzero(normals, axis=1) <= 1).all():
        return _products(normals, offsets, low, high, limit)
    if model.dim > _MAX_DIM:
        note = (
            f"Hyperplanes in general position in {model.dim} dimensions: cells are cut exactly in at most {_MAX_DIM}. "
            "Use visited_regions on a long free run, or on random states of the box, for those that matter."
        )
        return RegionsInBox(np.zeros((0, len(offsets)), bool), Status.FAILED, (note,))
    return _cells(normals, offsets, low, high, limit)


def hyperplanes(model: AbstractPiecewiseLinear) -> tuple[Float[np.ndarray, "R M"], Float[np.ndarray, " R"]]:
    """The switching manifolds N z + b = 0 in float64."""
    with x64():
        normals, offsets = as_float(model).switching()
        return np.asarray(normals, float), np.asarray(offsets, float)


def not_piecewise(model: AbstractMap) -> str:
    """Why the model has no regions to look at, with what to do instead; empty if it has."""
    if not isinstance(model, AbstractPiecewiseLinear):
        return (
            f"{type(model).__name__} is not piecewise linear, so it has no linear regions. "
            "Use fixed_points(model, period=k): Newton's method from many starts, for any map."
        )
    arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(model) if eqx.is_inexact_array_like(leaf)]
    if not all(np.isfinite(array).all() for array in arrays):
        return f"{type(model).__name__} has parameters that are not finite. Train it again, or load another checkpoint."
    return ""


def check_box(who: str, dim: int, low: Any, high: Any) -> tuple[Float[np.ndarray, " M"], Float[np.ndarray, " M"]]:
    """The corners in float64; InvalidValue unless both have shape (dim,), are finite, and low < high."""
    low, high = np.asarray(low, float), np.asarray(high, float)
    if low.shape != (dim,) or high.shape != (dim,):
        raise InvalidValue(f"{who}: the corners of the box must have shape ({dim},), got {low.shape} and {high.shape}.")
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise InvalidValue(f"{who}: the box must be finite with low < high in every coordinate, got low={low} and high={high}.")
    return low, high


@eqx.filter_jit
def _codes(model: AbstractPiecewiseLinear, states: Float[Array, "n M"]) -> Bool[Array, "n R"]:
    return jax.vmap(model.region)(states)


@eqx.filter_jit
def _pack(model: AbstractPiecewiseLinear, states: Float[Array, "n M"]) -> tuple[UInt[Array, "n words"], Bool[Array, " n"]]:
    """The code of every state as whole numbers of 32 bits each, and whether the state is finite."""
    codes = jax.vmap(model.region)(states)
    padded = jnp.pad(codes, ((0, 0), (0, max(-codes.shape[1] % 32, 32 * (not codes.shape[1]))))).reshape(codes.shape[0], -1, 32)
    powers = jnp.uint32(1) << jnp.arange(32, dtype=jnp.uint32)
    # the sum of a state is not finite if one of its entries is not: one pass instead of a mask
    return jnp.where(padded, powers[None, None], jnp.uint32(0)).sum(-1, dtype=jnp.uint32), jnp.isfinite((0.0 * states).sum(-1))


def _packed(model: AbstractPiecewiseLinear, states: np.ndarray) -> tuple[UInt[np.ndarray, "T words"], Bool[np.ndarray, " T"]]:
    """`_pack` by chunks, the last one filled up, so that there is one program."""
    size = min(_CHUNK, 1 << (len(states) - 1).bit_length())
    words, finite = [], []
    for start in range(0, len(states), size):
        chunk = states[start : start + size]
        filled = np.pad(chunk, ((0, size - len(chunk)), (0, 0))) if len(chunk) < size else chunk
        packed, good = _pack(model, jnp.asarray(filled, float))
        words.append(np.asarray(packed)[: len(chunk)])
        finite.append(np.asarray(good)[: len(chunk)])
    return np.concatenate(words), np.concatenate(finite)


def _ranked(words: np.ndarray, finite: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels by falling count (T,), the first state of each region (n,) and the counts (n,)."""
    where = None if finite.all() else np.flatnonzero(finite)
    kept = words if where is None else words[where]
    first, inverse, counts = _distinct(_hashed(kept))
    if words.shape[1] > 1 and not np.array_equal(kept[first][inverse], kept):  # two codes with one hash: never seen, but possible
        _, first, inverse, counts = np.unique(kept, axis=0, return_index=True, return_inverse=True, return_counts=True)
    first = first if where is None else where[first]
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    labels = np.full(len(words), -1, np.int64)
    labels[slice(None) if where is None else where] = rank[inverse]
    return labels, first[order], counts[order]


def _hashed(words: np.ndarray) -> np.ndarray:
    """One number a code: the code itself up to 32 bits, else a hash of its words to 64 bits."""
    if words.shape[1] == 1:
        return words[:, 0]
    mixed = np.zeros(len(words), np.uint64)
    for column in words.T:
        mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio (Knuth's multiplicative hash)
        mixed ^= mixed >> np.uint64(32)
    return mixed


def _distinct(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """np.unique's index, inverse and counts; by counting instead of sorting where the numbers are small."""
    if not len(keys) or keys.max() >= 1 << 22:
        return np.unique(keys, return_index=True, return_inverse=True, return_counts=True)[1:]
    counts = np.bincount(keys)
    values = np.flatnonzero(counts)
    rank = np.zeros(len(counts), np.int64)
    rank[values] = np.arange(len(values))
    first = np.zeros(len(counts), np.int64)
    first[keys[::-1]] = np.arange(len(keys))[::-1]  # the last write wins: the earliest state
    return first[values], rank[keys], counts[values]


def _products(normals: np.ndarray, offsets: np.ndarray, low: np.ndarray, high: np.ndarray, limit: int) -> RegionsInBox:
    """Coordinate planes only: the cells are products of intervals, one choice of interval a coordinate."""
    axes = []  # for every coordinate that is cut: its rows and their codes, interval by interval
    for axis in range(len(low)):
        rows = np.flatnonzero(normals[:, axis])
        at = -offsets[rows] / normals[rows, axis]
        inner = np.unique(at[(at > low[axis]) & (at < high[axis])])
        edges = np.concatenate([[low[axis]], inner, [high[axis]]])
        edges = edges[np.concatenate([[True], np.diff(edges) > _THIN * (high[axis] - low[axis])])]
        middle = (edges[1:] + edges[:-1]) / 2
        if rows.size:
            axes.append((rows, middle[:, None] * normals[rows, axis] + offsets[rows] > 0))
    sizes = [len(codes) for _, codes in axes]
    total = math.prod(sizes)
    codes = np.tile(offsets > 0, (min(total, limit), 1))  # right for rows of zeros; the others follow
    index = np.arange(len(codes))
    for (rows, choice), size in zip(axes, sizes, strict=True):
        codes[:, rows] = choice[index % size]
        index = index // size
    if total > limit:
        number = f"{total}" if total < 10**9 else f"about 10^{math.log10(total):.0f}"
        note = f"The box holds {number} regions; the first {limit} are listed. Raise limit for all."
        return RegionsInBox(codes, Status.MAX_STEPS, (note,))
    return RegionsInBox(codes)


def _cells(normals: np.ndarray, offsets: np.ndarray, low: np.ndarray, high: np.ndarray, limit: int) -> RegionsInBox:
    """General position: every hyperplane cuts the cells that it crosses."""
    whole = box(low, high)
    values = whole.vertices @ normals.T + offsets
    scale = np.abs(values).max(axis=0)
    cells: list[tuple[Polytope, tuple[bool, ...]]] = [(whole.carrying(values / np.where(scale > 0, scale, 1.0)), ())]
    for row in range(len(offsets)):
        parts = [(cut(cell, row, _THIN), code) for cell, code in cells]
        cells = [(part, (*code, side)) for pair, code in parts for part, side in zip(pair, (False, True), strict=True) if part is not None]
        if len(cells) > limit:
            done = f"{len(cells)} after {row + 1} of {len(offsets)} hyperplanes"
            note = f"The box holds more than {limit} regions: {done}. Raise limit, or shrink the box."
            return RegionsInBox(np.zeros((0, len(offsets)), bool), Status.MAX_STEPS, (note,))
    return RegionsInBox(np.array([code for _, code in cells], bool).reshape(len(cells), len(offsets)))

"""Convex polytopes by their vertices, cut by hyperplanes: what regions in a box and exhaustive cycles are made of.

    cut by f = 0, f affine:   new vertices v_i + f_i / (f_i - f_j) (v_j - v_i) on every edge (i, j) with f_i > 0 > f_j

Two vertices share an edge if and only if no third one lies on all the constraints that both of them lie on (double description:
Fukuda & Prodon 1996, proposition 7), so that the polytopes need not be simple. Each vertex carries the values of any number of
affine functions beside its position; the cut interpolates them alike.
"""

import dataclasses
import itertools

import numpy as np
from jaxtyping import Bool, Float


@dataclasses.dataclass(frozen=True)
class Polytope:
    """V vertices in M dimensions, rows (V, M + F): the position, then F affine functions of it; tight (V, C): the constraints met."""

    rows: Float[np.ndarray, "V functions"]
    tight: Bool[np.ndarray, "V C"]
    dim: int

    @property
    def vertices(self) -> Float[np.ndarray, "V M"]:
        """The positions (V, M)."""
        return self.rows[:, : self.dim]

    @property
    def values(self) -> Float[np.ndarray, "V F"]:
        """The affine functions at the vertices (V, F)."""
        return self.rows[:, self.dim :]

    def carrying(self, values: Float[np.ndarray, "V F"]) -> "Polytope":
        """The same polytope with other affine functions at its vertices."""
        return Polytope(np.concatenate([self.vertices, values], axis=1), self.tight, self.dim)


def box(low: Float[np.ndarray, " M"], high: Float[np.ndarray, " M"]) -> Polytope:
    """The box low <= z <= high with its 2**M corners and 2 M constraints."""
    upper = np.array(list(itertools.product([False, True], repeat=len(low))), bool).reshape(-1, len(low))
    return Polytope(np.where(upper, high, low), np.concatenate([upper, ~upper], axis=1), len(low))


def cut(polytope: Polytope, function: int, tolerance: float) -> tuple[Polytope | None, Polytope | None]:
    """The parts where the affine function of that index is <= 0 and where it is > 0; None for a part without interior.

    A vertex within `tolerance` of 0 lies on the hyperplane; a part that reaches no further than that is left out.
    """
    value = polytope.values[:, function]
    above, below = np.flatnonzero(value > tolerance), np.flatnonzero(value < -tolerance)
    if not above.size:
        return polytope, None
    if not below.size:
        return None, polytope
    first, second = _edges(polytope, above, below)
    share = (value[first] / (value[first] - value[second]))[:, None]
    rows = polytope.rows[first] + share * (polytope.rows[second] - polytope.rows[first])
    rows[:, polytope.dim + function] = 0.0
    tight = polytope.tight[first] & polytope.tight[second]
    on = np.flatnonzero(np.abs(value) <= tolerance)

    def part(inside: np.ndarray) -> Polytope:
        kept = np.concatenate([inside, on])
        met = np.concatenate([polytope.tight[kept], tight])
        flag = np.arange(len(met)) >= len(inside)  # the vertices that lie on the new hyperplane
        met = np.concatenate([met, flag[:, None]], axis=1)
        # a constraint met by fewer than M vertices bounds no facet
        return Polytope(np.concatenate([polytope.rows[kept], rows]), met[:, met.sum(axis=0) >= polytope.dim], polytope.dim)

    return part(below), part(above)


def _edges(polytope: Polytope, above: np.ndarray, below: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The edges with one end in `above` and the other in `below`."""
    tight = polytope.tight.astype(np.float32)
    i, j = np.nonzero(tight[above] @ tight[below].T >= polytope.dim - 1)
    i, j = above[i], below[j]
    if (polytope.tight.sum(axis=1) == polytope.dim).all():
        return i, j  # a simple polytope: M - 1 common constraints are an edge
    common = tight[i] * tight[j]
    ends = (common @ tight.T == common.sum(axis=1, keepdims=True)).sum(axis=1)  # vertices on all the common constraints
    return i[ends == 2], j[ends == 2]

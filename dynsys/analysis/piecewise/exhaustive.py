"""All cycles in a box, by following every admissible word of regions: the truth that a search is measured by.

    P(r_0 ... r_t) = {z_0 : z_s in r_s and in the box, s = 0 ... t},    z_s = J_s z_0 + c_s

is a convex polytope. It is cut by the switching manifolds pulled back to z_0, which gives the words one letter longer; a word with
no polytope has no orbit, so none of its continuations has. A cycle needs to be found from one of its shifts alone: only prefixes
of Lyndon words, the smallest among their shifts, are followed (Duval 1988). At length k the affine equation (I - J) z = c decides.
It shares with `find_cycles` the record of a found word, nothing else.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool

from dynsys.analysis.arrays import as_float
from dynsys.analysis.piecewise.cycle import Cycle, Cycles, ordered
from dynsys.analysis.piecewise.polytope import Polytope, box as corners, cut
from dynsys.analysis.piecewise.regions import hyperplanes, not_piecewise
from dynsys.analysis.piecewise.starts import state_box
from dynsys.analysis.piecewise.words import affine_maps, border_distances, border_note, cycles_of_words, merged, singular_note, solve_each
from dynsys.dynamics import AbstractMap, AbstractPiecewiseLinear
from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys.status import Status

MAX_DIM = 4  # polytopes of more dimensions have too many vertices
MAX_CODES = 16  # up to 2**16 regions are solved for fixed points, wherever they are
_THIN = 1e-11  # a polytope thinner than this share of the pulled-back box is left out
_FAR = 1e12  # solutions this many boxes away come from a matrix that is singular but for rounding
_MISS = 1e-10  # the largest residual of a cycle, relative to max(1, |z|)
_NEAR = 1e-7  # solutions this near their regions go on to the exact check


def all_cycles(
    model: AbstractMap, max_period: int = 1, *, box: tuple[Any, Any] | None = None, limit: int = 200_000, key: int = 0
) -> Cycles:
    """Every fixed point, and every cycle to `max_period` steps that lies in a box.

    Fixed points: for up to 16 switching manifolds all 2**R codes are solved, so they are found wherever they lie and for any M.
    Cycles (and fixed points for more manifolds): M <= 4; all their points lie in box = (low (M,), high (M,)), by default the range
    of free runs from random states (seed `key`), widened. limit: words of all lengths that may be followed; beyond it status is
    MAX_STEPS and cycles may be missing. Cycles that fill a line or a plane (an eigenvalue 1) are counted in a note, not listed.
    A model that is not piecewise linear gives status FAILED and a note. Raises InvalidValue for max_period < 1 or a bad box.
    """
    reason = not_piecewise(model)
    if reason:
        return Cycles((), status=Status.FAILED, notes=(reason,))
    if max_period < 1 or limit < 1:
        raise InvalidValue(f"all_cycles: needs max_period >= 1 and limit >= 1, got {max_period=}, {limit=}.")
    with x64():
        pieces: AbstractPiecewiseLinear = as_float(model)
        planes = hyperplanes(pieces)
        by_code, by_word = len(planes[1]) <= MAX_CODES, model.dim <= MAX_DIM
        if not by_word and (max_period > 1 or not by_code):
            return _impossible(model.dim, len(planes[1]))
        low, high, _ = state_box("all_cycles", pieces, planes, None, box, np.random.default_rng(key))
        notes: list[str] = []
        scale = float(np.maximum(np.abs(low), np.abs(high)).max())
        words: list[np.ndarray] = list(_fixed_codes(pieces, planes, scale)) if by_code else []
        status, counts = Status.SUCCESS, {"words": 0}
        if max_period > 1 or not by_code:
            tree = _Tree(pieces, planes, low, high, max_period, limit)
            words += tree.run()
            counts["words"] = tree.followed
            if tree.followed >= limit:
                status = Status.MAX_STEPS
                notes.append(
                    f"The search ended after limit={limit} words: cycles may be missing. Raise limit, or shrink the box or max_period."
                )
        found, singular = cycles_of_words(pieces, words, planes, scale)
    # a solution that lies beyond a border by a hair is one of the word's map, but not of the model's own step
    real = [c for c in found if not c.virtual and c.period <= max_period and c.residual <= _MISS * max(1.0, float(np.abs(c.points).max()))]
    inside = merged([c for c in real if (by_code and c.period == 1) or ((c.points >= low) & (c.points <= high)).all()], scale)
    notes += _notes(inside, singular, planes, scale)
    about = {"max_period": max_period, "box": (tuple(low), tuple(high)), "limit": limit, **counts}
    return Cycles(ordered(inside), status=status, notes=tuple(notes), about=tuple(about.items()))


def _notes(cycles: list[Cycle], singular: int, planes: tuple[np.ndarray, np.ndarray], scale: float) -> list[str]:
    notes = [] if cycles else ["There is no cycle in the box up to this period."]
    notes += border_note(cycles, planes, scale)
    if singular:
        notes.append(singular_note(singular))
    return notes


def _impossible(dim: int, rows: int) -> Cycles:
    note = (
        f"An exhaustive search needs M <= {MAX_DIM} (or max_period=1 and at most {MAX_CODES} switching manifolds), "
        f"got M={dim} with {rows}. Use find_cycles, which searches in any dimension."
    )
    return Cycles((), status=Status.FAILED, notes=(note,))


def _fixed_codes(model: AbstractPiecewiseLinear, planes: tuple[np.ndarray, np.ndarray], scale: float) -> Bool[np.ndarray, "n 1 R"]:
    """The codes whose affine map has its fixed point in their region, or nearly so, of all 2**R; singular ones stay in."""
    rows = len(planes[1])
    codes = (np.arange(1 << rows)[:, None] >> np.arange(rows) & 1).astype(bool)
    kept = []
    for start in range(0, len(codes), 4096):
        some = codes[start : start + 4096]
        J, h = affine_maps(model, some)
        with np.errstate(all="ignore"):
            z = solve_each(np.eye(model.dim) - J, h[..., None])[..., 0]
            distance = border_distances(z, planes)
            reach = _NEAR * np.maximum(scale, np.abs(z).max(axis=1))
        kept.append(some[~(np.where(some, -distance, distance).max(axis=1, initial=-np.inf) > reach)])
    return np.concatenate(kept)[:, None]


class _Tree:
    """The depth-first walk over words."""

    def __init__(self, model: AbstractPiecewiseLinear, planes: Any, low: np.ndarray, high: np.ndarray, max_period: int, limit: int):
        normals, offsets = planes
        one = np.eye(model.dim)
        # the box itself as 2 M more functions, -z + low and z - high, which must not be positive
        self.normals, self.offsets = np.concatenate([normals, -one, one]), np.concatenate([offsets, low, -high])
        self.rows, self.max_period, self.limit, self.model = len(offsets), max_period, limit, model
        size = np.abs(self.normals) @ np.maximum(np.abs(low), np.abs(high)) + np.abs(self.offsets)
        self.tolerance = _THIN * np.where(size > 0, size, 1.0)
        self.whole, self.followed = corners(low, high), 0
        self.maps: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}

    def run(self) -> list[np.ndarray]:
        """The Lyndon words (k, R) whose cycle lies in their regions, or nearly so."""
        found: list[np.ndarray] = []
        one = np.eye(self.model.dim)
        stack: list[tuple[list[bytes], int, Polytope, np.ndarray, np.ndarray]] = [([], 1, self.whole, one, np.zeros(len(one)))]
        while stack and self.followed < self.limit:
            word, period, polytope, J, c = stack.pop()
            for letter, part in self._children(polytope, J, c):
                duval = _duval(word, period, letter)
                if duval is None:
                    continue
                self.followed += 1
                longer = [*word, letter]
                A, h = self._map(letter)
                JJ, cc = A @ J, A @ c + h
                if duval == len(longer) and self._returns(part, JJ, cc):
                    found.append(np.array([np.frombuffer(code, bool) for code in longer]))
                if len(longer) < self.max_period:
                    stack.append((longer, duval, part, JJ, cc))
        return found

    def _children(self, polytope: Polytope, J: np.ndarray, c: np.ndarray) -> list[tuple[bytes, Polytope]]:
        """The regions that z_t = J z_0 + c can be in, with the polytope of z_0 for each."""
        parts = [polytope.carrying((polytope.vertices @ J.T + c) @ self.normals.T + self.offsets)]
        for row in range(self.rows, len(self.offsets)):  # into the box
            parts = [kept for part in parts if (kept := cut(part, row, self.tolerance[row])[0]) is not None]
        for row in range(self.rows):
            parts = [half for part in parts for half in cut(part, row, self.tolerance[row]) if half is not None]
        return [(self._code(part), part) for part in parts]

    def _code(self, part: Polytope) -> bytes:
        values = part.values[:, : self.rows]  # of one sign, but for what lies on a manifold
        return (values.max(axis=0) > -values.min(axis=0)).tobytes()

    def _map(self, letter: bytes) -> tuple[np.ndarray, np.ndarray]:
        if letter not in self.maps:
            self.maps[letter] = affine_maps(self.model, np.frombuffer(letter, bool))
        return self.maps[letter]

    def _returns(self, part: Polytope, J: np.ndarray, c: np.ndarray) -> bool:
        """Whether the cycle of the word lies in the polytope of its start points, by a margin; True where it is undetermined."""
        z = solve_each(np.eye(len(c))[None] - J[None], c[None, :, None])[0, :, 0]
        low, high = part.vertices.min(axis=0), part.vertices.max(axis=0)
        size = np.abs(self.whole.rows).max()
        return not ((z < low - _NEAR * size) | (z > high + _NEAR * size)).any() or bool((np.abs(z) > _FAR * size).any())


def _duval(word: list[bytes], period: int, letter: bytes) -> int | None:
    """The period of the longest Lyndon prefix after one more letter; None if no shift-minimal word begins like this."""
    if not word:
        return 1
    against = word[len(word) - period]
    if letter < against:
        return None
    return period if letter == against else len(word) + 1

"""Fixed points and cycles of a piecewise-linear map, by a heuristic search over words of regions.

    word r_0 ... r_{k-1}:   z* = (I - J_k)^-1 c_k,   z_k = J_k z_0 + c_k the composition of the regions' affine maps
    next word:              s_t = region(z_t) along the (virtual) cycle of the present word,  until s = r: then it is real

Many words move side by side; each is a lane of one compiled program for all periods. A lane ends when its word is real, when it
comes to a word that was met before (the rest of that way is known), or after `iterations` moves; then a new word takes its place.
Source: SCYFI, Eisenmann, Monfared, Goering, Durstewitz, NeurIPS 2023, algorithm 1.
"""

import heapq
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt

from dynsys.analysis.arrays import as_float
from dynsys.analysis.piecewise.cycle import Cycles, ordered
from dynsys.analysis.piecewise.regions import hyperplanes, not_piecewise
from dynsys.analysis.piecewise.starts import Starter, free_runs, random_states, run_length, state_box
from dynsys.analysis.piecewise.words import ON_BORDER, border_note, cycles_of_words, merged, singular_note
from dynsys.dynamics import AbstractMap, AbstractPiecewiseLinear
from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys.status import Status

_LANES = 1024  # words that move side by side
_FAR = 1e6  # a free run this many boxes away is lost
_VIRTUAL = 32  # virtual cycles that are kept
_SHARES = (0.6, 0.25, 0.15)  # of the starts: the first round, then two rounds around what was found


def find_cycles(
    model: AbstractMap,
    max_period: int = 8,
    *,
    periods: Sequence[int] | None = None,
    starts: int = 10_000,
    states: Any = None,
    box: tuple[Any, Any] | None = None,
    iterations: int = 40,
    tolerance: float = 1e-10,
    max_cycles: int = 10_000,
    key: int = 0,
) -> Cycles:
    """Cycles with periods 1, ..., max_period (or those in `periods`, and their divisors) of a piecewise-linear map without input.

    starts: the total number of different words that the search starts from, over all periods; periods share them evenly, and what
    a short period can't use goes to the longer ones. Words come from free runs from random states of box = (low (M,), high (M,))
    and from rows of `states` (T, M), latent states such as an orbit's; default of the box: the range of `states` or of a free
    run, widened. iterations: moves of a word. tolerance: largest residual |F(z_t) - z_{t+1}| of a cycle by the model's own
    step in float64, relative to max(1, |z|). max_cycles: where to stop. key: seed of the starts.

    What is not found is not proved absent: see `all_cycles`. The 32 virtual cycles nearest to being real stand apart. A model that
    is not piecewise linear gives status FAILED and a note. Raises InvalidValue for settings out of range.
    """
    wanted = sorted({int(k) for k in (range(1, max_period + 1) if periods is None else periods)})
    _check(wanted, starts, iterations, tolerance, max_cycles)
    reason = not_piecewise(model)
    if reason:
        return Cycles((), status=Status.FAILED, notes=(reason,))
    with x64():
        search = _Search(as_float(model), states, box, iterations, max_cycles, np.random.default_rng(key), max(wanted))
        status = search.run(wanted, starts)
        return search.result(wanted, status, tolerance, {"periods": tuple(wanted), "starts": starts, "iterations": iterations, "key": key})


class _Search:
    """The state of one call: lanes, words met, words that turned out real, and the best virtual ones."""

    def __init__(
        self,
        model: AbstractPiecewiseLinear,
        states: Any,
        box: Any,
        iterations: int,
        max_cycles: int,
        rng: np.random.Generator,
        longest: int,
    ):
        self.model, self.iterations, self.max_cycles, self.rng, self.longest = model, iterations, max_cycles, rng, longest
        self.planes = hyperplanes(model)
        self.notes: list[str] = []
        low, high, states = state_box("find_cycles", model, self.planes, states, box, rng)
        self.scale = float(max(np.abs(low).max(), np.abs(high).max()))
        self.low, self.high = low, high
        orbits = free_runs(model, random_states(low, high, states, rng), run_length(longest), _FAR * self.scale)
        self.starter = Starter(orbits, rng)
        self.met: set[int] = set()
        self.real: dict[int, np.ndarray] = {}  # hash of a word -> the word
        self.virtual: list[tuple[float, int, np.ndarray]] = []  # a heap, the farthest from being real first
        self.counts = {"words started": 0, "words met": 0, "words singular": 0, "words ended by the budget": 0}

    def run(self, periods: list[int], starts: int) -> Status:
        """Spend the budget, in rounds of starts."""
        left, weights = starts, np.ones(len(periods))
        for part, share in enumerate(np.cumsum(_SHARES)):
            due = max(round(starts * share) - (starts - left), 0)  # rounding up may have spent more than was due
            budget = np.ceil(due * weights / weights.sum()).astype(int)
            words = [self._words(k, int(count), bool(part)) for k, count in zip(periods, budget, strict=True)]
            used = self._follow(words)
            left -= sum(used.values())
            # what a period could not use, since it has too few different words, goes to the others; more to those with many cycles
            fruit = np.bincount([len(word) for word in self.real.values()], minlength=self.longest + 1)
            weights = np.array([(used[k] / max(count, 1) + 0.01) * (1 + fruit[k]) ** 0.5 for k, count in zip(periods, budget, strict=True)])
            if len(self.real) >= self.max_cycles:
                self.notes.append(f"The search ended with max_cycles={self.max_cycles} words of cycles found: there are more.")
                return Status.MAX_STEPS
        return Status.SUCCESS

    def _words(self, k: int, count: int, around: bool) -> Bool[np.ndarray, "n k R"]:
        """New words; or half of them new, half neighbours of words found real or nearly so."""
        best = [word for word in (*self.real.values(), *(word for _, _, word in self.virtual)) if k % len(word) == 0] if around else []
        if not best or count < 2:
            return self.starter.words(k, count)
        fresh = self.starter.words(k, count // 2)
        pick = self.rng.integers(len(best), size=count - len(fresh))
        return np.concatenate([self.starter.neighbours(np.stack([np.tile(best[i], (k // len(best[i]), 1)) for i in pick])), fresh])

    def _follow(self, words: list[np.ndarray]) -> dict[int, int]:
        """Move words until each ends, the longest first; how many different ones there were of each length. Each entry is (n, k, R)."""
        queue = [word for group in reversed(words) for word in group]
        word = np.zeros((_LANES, self.longest, self.planes[1].size), bool)
        k, moves = [1] * _LANES, [-1] * _LANES  # -1: the lane is free
        at, used = 0, dict.fromkeys(range(1, self.longest + 1), 0)
        while True:
            free = [lane for lane in range(_LANES) if moves[lane] < 0]
            for lane, fill in zip(free, queue[at : at + _LANES], strict=False):
                word[lane, : len(fill)], k[lane], moves[lane], at = fill, len(fill), 0, at + 1
            busy = [lane for lane in range(_LANES) if moves[lane] >= 0]
            if not busy or len(self.real) >= self.max_cycles:
                return used
            new, away, here, there = self._move(word, np.where(np.array(moves) >= 0, k, 1))
            for lane in busy:
                if moves[lane] == 0:  # a start: is it new?
                    if here[lane] in self.met:
                        moves[lane] = -1
                        continue
                    self.met.add(here[lane])
                    self.counts["words started"] += 1
                    used[k[lane]] += 1
                moves[lane] = self._judge(word[lane, : k[lane]], away[lane], here[lane], there[lane], moves[lane])
            word = new

    def _judge(self, word: np.ndarray, away: float, here: int, there: int, moves: int) -> int:
        """Moves so far of a lane after this one; -1 if its way ends here."""
        if away <= ON_BORDER * self.scale:
            self.real[here] = word.copy()
            if here == there:
                return -1  # else a point lies beyond a border by a hair: the word on its other side may be the real one
        elif not math.isfinite(away):
            self.counts["words singular"] += 1
            return -1
        elif len(self.virtual) < _VIRTUAL or -away > self.virtual[0][0]:
            entry = (-away, here, word.copy())
            (heapq.heappush if len(self.virtual) < _VIRTUAL else heapq.heappushpop)(self.virtual, entry)
        if there in self.met:
            return -1
        self.met.add(there)
        if moves + 1 >= self.iterations:
            self.counts["words ended by the budget"] += 1
            return -1
        return moves + 1

    def _move(self, word: np.ndarray, k: np.ndarray) -> tuple[np.ndarray, list[float], list[int], list[int]]:
        numbers = (*self.planes, word, k, np.asarray(self.scale))
        new, away, here, there = (np.array(part) for part in _move(self.model, *(jnp.asarray(number) for number in numbers)))
        return new, away.tolist(), here.tolist(), there.tolist()

    def result(self, periods: list[int], status: Status, tolerance: float, about: dict[str, Any]) -> Cycles:
        """Records of the words found, verified by the model's own step."""
        found, singular = cycles_of_words(self.model, list(self.real.values()), self.planes, self.scale)
        real = [cycle for cycle in found if not cycle.virtual]
        good = [cycle for cycle in real if cycle.residual <= tolerance * max(1.0, float(np.abs(cycle.points).max()))]
        nearly = cycles_of_words(self.model, [word for _, _, word in sorted(self.virtual, reverse=True)], self.planes, self.scale)[0]
        virtual = merged([cycle for cycle in nearly if cycle.virtual], self.scale)
        cycles = merged(good, self.scale)
        notes = [*self.notes, *border_note(cycles, self.planes, self.scale)]
        singular += self.counts["words singular"]
        if singular:
            notes.append(singular_note(singular))
        if len(good) < len(real):
            notes.append(f"{len(real) - len(good)} candidates were rejected: their residual is above tolerance={tolerance:g}.")
        if not cycles:
            notes.append(
                "No cycle was found. There may be none: if so, every orbit diverges or is not periodic. Else try more starts, states "
                "of a free run, a box where cycles are expected, or longer periods."
            )
        counts = {**self.counts, "words met": len(self.met), "rejected": len(real) - len(good)}
        about = {**about, "box": (tuple(self.low), tuple(self.high)), **counts}
        return Cycles(ordered(cycles), tuple(virtual), status, tuple(notes), tuple(about.items()))


@eqx.filter_jit
def _move(
    model: AbstractPiecewiseLinear,
    normals: Float[Array, "R M"],
    offsets: Float[Array, " R"],
    word: Bool[Array, "B K R"],
    k: Int[Array, " B"],
    scale: Float[Array, ""],
) -> tuple[Bool[Array, "B K R"], Float[Array, " B"], UInt[Array, " B"], UInt[Array, " B"]]:
    """The regions of the cycle of each word; how far its points lie outside the word's regions; both words' shift-free hashes.

    The composed map is read off M + 1 points, the corners of a simplex as large as the states, pushed through the word.
    """
    lanes = word.shape[0]
    dim = normals.shape[1]
    push = jax.vmap(jax.vmap(model.frozen, (0, None)))
    corners = jnp.concatenate([scale * jnp.eye(dim), jnp.zeros((1, dim))])

    def compose(t: Array, points: Array) -> Array:
        return jnp.where((t < k)[:, None, None], push(points, word[:, t]), points)

    moved = jax.lax.fori_loop(0, k.max(), compose, jnp.broadcast_to(corners, (lanes, *corners.shape)))
    c = moved[:, dim]
    J = jnp.swapaxes(moved[:, :dim] - c[:, None], 1, 2) / scale
    z = jnp.linalg.solve(jnp.eye(dim)[None] - J, c[..., None])[..., 0]
    singular = ~(jnp.abs(z) < scale / jnp.finfo(z.dtype).eps / 10).all(1)

    length = jnp.linalg.norm(normals, axis=1)
    length = jnp.where(length > 0, length, 1.0)

    def visit(t: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        z, new, away = carry
        value = (z @ normals.T + offsets[None]) / length[None]
        code, here = value > 0, (t < k)
        outside = jnp.where(code != word[:, t], jnp.abs(value), 0.0).max(axis=1, initial=0.0)
        new = new.at[:, t].set(code & here[:, None])
        return jax.vmap(model.frozen)(z, word[:, t]), new, jnp.where(here, jnp.maximum(away, outside), away)

    _, new, away = jax.lax.fori_loop(0, k.max(), visit, (z, jnp.zeros_like(word), jnp.zeros(lanes)))
    return new, jnp.where(singular, jnp.inf, away), _hash(word, k), _hash(new, k)


def _hash(word: Bool[Array, "B K R"], k: Int[Array, " B"]) -> UInt[Array, " B"]:
    """64 bits of a word that its cyclic shifts share: the smallest of the shifts' polynomial hashes."""
    longest, rows = word.shape[1:]
    weights = jnp.asarray(np.random.default_rng(0).integers(1 << 63, size=rows + longest, dtype=np.uint64) * 2 + 1)
    letters = jnp.where(word, weights[None, None, :rows], jnp.uint64(0)).sum(2, dtype=jnp.uint64)
    letters = (letters ^ (letters >> jnp.uint64(31))) * jnp.uint64(0x9E3779B97F4A7C15)
    letters = letters ^ (letters >> jnp.uint64(29))
    place = jnp.arange(longest)[None]
    inside = place < k[:, None]

    def shifted(shift: Array, smallest: Array) -> Array:
        turned = jnp.take_along_axis(letters, (place + shift) % k[:, None], axis=1)
        found = jnp.where(inside, turned * weights[None, rows:], jnp.uint64(0)).sum(1, dtype=jnp.uint64)
        return jnp.where(shift < k, jnp.minimum(smallest, found), smallest)

    largest = jnp.full(word.shape[0], jnp.iinfo(jnp.uint64).max)
    return jax.lax.fori_loop(0, k.max(), shifted, largest) + k.astype(jnp.uint64)


def _check(periods: list[int], starts: int, iterations: int, tolerance: float, max_cycles: int) -> None:
    if not periods or periods[0] < 1:
        raise InvalidValue(f"find_cycles: periods must be whole numbers of at least 1, got {periods}.")
    if starts < 1 or iterations < 1 or max_cycles < 1 or not tolerance > 0:
        raise InvalidValue(
            "find_cycles: needs starts, iterations and max_cycles >= 1 and tolerance > 0, "
            f"got {starts=}, {iterations=}, {max_cycles=}, {tolerance=}."
        )

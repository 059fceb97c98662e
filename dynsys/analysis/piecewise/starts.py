"""Where the search for cycles starts: words that orbits visit, words of regions that exist, and neighbours of good words.

A word of an orbit that nearly closes is the best start: a cycle within the attractor has a neighbourhood that orbits visit. Random
words of visited regions lead to what no orbit stays near: saddles, repellers, cycles outside the attractor.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dynsys.analysis.piecewise.regions import check_box
from dynsys.analysis.piecewise.words import affine_maps, solve_each
from dynsys.dynamics import AbstractPiecewiseLinear
from dynsys.errors import InvalidValue

_RUNS, _STEPS = 256, 240  # free runs from random states, and their length beside the period


@dataclasses.dataclass(frozen=True)
class Orbits:
    """Free runs: states (runs, T, M), their codes (runs, T, R), and up to where each is finite and not beyond reach (runs,)."""

    states: Float[np.ndarray, "runs T M"]
    codes: Bool[np.ndarray, "runs T R"]
    length: np.ndarray


def state_box(
    who: str, model: AbstractPiecewiseLinear, planes: tuple[np.ndarray, np.ndarray], states: Any, box: Any, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """(low (M,), high (M,), states (T, M) or None): the box given, else the range of the states given or of free runs, widened by half.

    The runs start from normal states three times as large as the distance of the switching manifolds, and of the fixed points of
    random regions (virtual or not), from the origin; if none of them stays near, the box is as large as these starts.
    """
    if states is not None:
        states = np.asarray(states, float)
        if states.ndim != 2 or states.shape[1] != model.dim:
            raise InvalidValue(f"{who}: states must be latent states of shape (T, {model.dim}), got {states.shape}.")
        states = states[np.isfinite(states).all(axis=1)]
        states = states if len(states) else None
    if box is not None:
        if len(box) != 2:
            raise InvalidValue(f"{who}: box must be (low, high), two corners of shape ({model.dim},), got {len(box)} entries.")
        return *check_box(who, model.dim, *box), states
    around = states
    if around is None:
        size = 3.0 * _state_size(model, planes, rng)
        runs = free_runs(model, size * rng.normal(size=(_RUNS, model.dim)), _STEPS, 100.0 * size)
        stayed = runs.length == _STEPS
        around = (
            runs.states[stayed, _STEPS // 2 :].reshape(-1, model.dim)
            if stayed.any()
            else size * np.array([[-1.0], [1.0]]) * np.ones(model.dim)
        )
    low, high = around.min(axis=0), around.max(axis=0)
    # a coordinate that rests (a stable fixed point) gets the width of its distance from the origin, or of the widest one
    width = np.maximum(high - low, 0.1 * max(float((high - low).max()), float(np.abs(around).max()), 1e-3))
    return low - width / 2, high + width / 2, states


def _state_size(model: AbstractPiecewiseLinear, planes: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> float:
    """A length typical of the states of the model."""
    normals, offsets = planes
    length = np.linalg.norm(normals, axis=1)
    planes_at = np.abs(offsets[length > 0]) / length[length > 0]
    J, h = affine_maps(model, rng.random((64, len(offsets))) < 0.5)
    with np.errstate(all="ignore"):
        fixed = np.abs(solve_each(np.eye(model.dim) - J, h[..., None])[..., 0]).max(axis=1, initial=0.0)
    sizes = [np.median(found) for found in (planes_at[planes_at > 0], fixed[np.isfinite(fixed) & (fixed > 0)]) if len(found)]
    return float(max(sizes, default=1.0))


@eqx.filter_jit
def _free(model: AbstractPiecewiseLinear, z: Float[Array, "n M"], steps: int) -> tuple[Array, Array]:
    def advance(z: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
        return jax.vmap(lambda state: model.step(state))(z), (z, jax.vmap(model.region)(z))

    states, codes = jax.lax.scan(advance, z, None, length=steps)[1]
    return jnp.swapaxes(states, 0, 1), jnp.swapaxes(codes, 0, 1)


def free_runs(model: AbstractPiecewiseLinear, z: Float[np.ndarray, "n M"], steps: int, reach: float) -> Orbits:
    """The runs from states z; a run ends where it is further than `reach` from the origin."""
    states, codes = (np.asarray(part) for part in _free(model, jnp.asarray(z), steps))
    with np.errstate(invalid="ignore"):
        lost = ~(np.abs(states) <= reach).all(axis=2)
    return Orbits(states, codes, np.where(np.any(lost, axis=1), np.argmax(lost, axis=1), steps))


def random_states(low: np.ndarray, high: np.ndarray, states: np.ndarray | None, rng: np.random.Generator) -> Float[np.ndarray, "n M"]:
    """Where runs begin: in the box, some of them in a box four times as wide, and on given states."""
    z = low + (high - low) * rng.random((_RUNS, len(low)))
    z[::4] += 3.0 * (z[::4] - (low + high) / 2)
    if states is not None:
        z[1::4] = states[rng.integers(len(states), size=len(z[1::4]))]
    return z


def run_length(max_period: int) -> int:
    """Steps of a free run."""
    return _STEPS + 2 * max_period


class Starter:
    """Makes start words from free runs and from the codes of the model."""

    def __init__(self, orbits: Orbits, rng: np.random.Generator):
        self.orbits, self.rng = orbits, rng
        at = np.arange(orbits.codes.shape[1])
        flat = orbits.codes[at[None, :] < orbits.length[:, None]]
        # each region once, so that the rare ones are drawn as often as the frequent ones
        self.regions = np.unique(flat, axis=0) if flat.size else np.zeros((1, orbits.codes.shape[2]), bool)

    def words(self, k: int, count: int) -> Bool[np.ndarray, "n k R"]:
        """About `count` words of length k: three parts from orbits (two of them those that close best), two random."""
        made = [self._closing(k, 2 * count // 5), self._segments(k, count // 5), self._random(k, count - 3 * (count // 5))]
        words = np.concatenate(made)
        return words[self.rng.permutation(len(words))]

    def neighbours(self, words: Bool[np.ndarray, "n k R"]) -> Bool[np.ndarray, "n k R"]:
        """Words that differ from the given ones by a few bits or by the region of one point."""
        n, k, rows = words.shape
        changed = words.copy()
        for _ in range(2 if rows else 0):
            which = np.flatnonzero(self.rng.random(n) < 0.7)
            changed[which, self.rng.integers(k, size=len(which)), self.rng.integers(rows, size=len(which))] ^= True
        which = np.flatnonzero(self.rng.random(n) < 0.3)
        changed[which, self.rng.integers(k, size=len(which))] = self.regions[self.rng.integers(len(self.regions), size=len(which))]
        return changed

    def _closing(self, k: int, count: int) -> Bool[np.ndarray, "n k R"]:
        """The segments of orbits whose end is nearest to their beginning; a word can be among them often."""
        length = self.orbits.states.shape[1] - k
        with np.errstate(all="ignore"):
            gap = np.abs(self.orbits.states[:, k:] - self.orbits.states[:, :length]).max(axis=2)
        gap[(np.arange(length)[None, :] >= (self.orbits.length - k)[:, None])] = np.inf
        flat = gap.ravel()
        best = np.argpartition(flat, min(count, flat.size - 1))[:count]
        best = best[np.isfinite(flat[best])]
        return self._at(best // length, best % length, k)

    def _segments(self, k: int, count: int) -> Bool[np.ndarray, "n k R"]:
        """Segments of orbits, the beginnings of runs as often as all later ones together."""
        room = self.orbits.length - k
        runs = np.flatnonzero(room > 0)
        if not runs.size:
            return self._random(k, count)
        runs = self.rng.choice(runs, count)
        first = (self.rng.random(count) ** 3 * room[runs]).astype(int)
        return self._at(runs, first, k)

    def _at(self, runs: np.ndarray, first: np.ndarray, k: int) -> Bool[np.ndarray, "n k R"]:
        return self.orbits.codes[runs[:, None], first[:, None] + np.arange(k)]

    def _random(self, k: int, count: int) -> Bool[np.ndarray, "n k R"]:
        """Words of visited regions in random order; in one of four all bits are random."""
        words = self.regions[self.rng.integers(len(self.regions), size=(count, k))]
        wild = np.arange(count) % 4 == 0
        words[wild] = self.rng.random((int(wild.sum()), k, words.shape[2])) < 0.5
        return words

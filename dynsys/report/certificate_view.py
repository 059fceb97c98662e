"""What the report of a certificate shows, as plain arrays: planes through the goal, region of attraction, decrease, trajectories.

    Proof, ClosedLoop, V -> view_of -> CertificateView        (the only part of the report that simulates)

x = goal + T y: the boxes of a proof are in y, and its claim is about the cube |y_i| <= 1 only. Where V <= level outside of the cube, V
counts as infinite (`Basin.values`) or as twice the level (`Plane.S`). Planes are slices: all other coordinates are at the goal.
"""

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys.verify.basin import AWAY, CONVERGED, Basin, basin, fates, paths
from dynsys.verify.certify import Proof
from dynsys.verify.loop import ClosedLoop
from dynsys.verify.lyapunov import AbstractLyapunov
from dynsys.verify.routine import volume_of
from dynsys.verify.violation import Violation, decrease, largest

PLANES = 3
ZOOM = 2.5  # sizes of the set that a plane shows at most
ARROWS = 17
COARSE = 17  # points a side of the grids that planes are chosen by


@dataclass(frozen=True)
class Plane:
    """The slice of coordinates i and j: x (X,), y (Y,); V, the plain quadratic's V and fates, (Y, X); arrows (A, A, 2) at ax, ay (A,).

    S (Y, X): V, but above the level outside of the cube of the proof, so that {S <= level} is the set of the claim.
    """

    i: int
    j: int
    x: Float[np.ndarray, " X"]
    y: Float[np.ndarray, " Y"]
    V: Float[np.ndarray, "Y X"]
    S: Float[np.ndarray, "Y X"]
    plain: Float[np.ndarray, "Y X"] | None
    codes: Int[np.ndarray, "Y X"]
    ax: Float[np.ndarray, " A"]
    ay: Float[np.ndarray, " A"]
    arrows: Float[np.ndarray, "A A 2"]


@dataclass(frozen=True)
class Side:
    """A proof with the volume of its set and the error of that; (0, 0) if nothing is proved."""

    proof: Proof
    V: AbstractLyapunov
    volume: tuple[float, float]


@dataclass(frozen=True)
class CertificateView:
    """Everything that is drawn and said.

    names (n): of the states; low, high (n,): the box that was simulated in, the domain if it is bounded; F (I,): relative excess over the
    claimed decrease at states of the set; times (T,), lines (S, T, n), heights (S, T): trajectories and V along them; roles (S,): "inside",
    "outside" or "leaves"; elsewhere (E, n): starts where V <= level outside of the cube of the proof, of which nothing is claimed.
    """

    loop: ClosedLoop
    main: Side
    plain: Side | None
    names: tuple[str, ...]
    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]
    bounded: bool
    basin: Basin
    planes: tuple[Plane, ...]
    F: Float[np.ndarray, " I"]
    worst: Violation
    times: Float[np.ndarray, " T"]
    lines: Float[np.ndarray, "S T n"]
    heights: Float[np.ndarray, "S T"]
    roles: tuple[str, ...]
    elsewhere: Float[np.ndarray, "E n"]

    @property
    def proof(self) -> Proof:
        """The proof that the report is of."""
        return self.main.proof


def view_of(
    proof: Proof,
    loop: ClosedLoop,
    V: AbstractLyapunov,
    *,
    names: Sequence[str] | None = None,
    baseline: tuple[Proof, AbstractLyapunov] | None = None,
    samples: int = 4096,
    resolution: int = 120,
    key: Any = 0,
) -> CertificateView:
    """Simulate and evaluate what the report shows. baseline: as in `write_certificate_report`. samples: starts; resolution: points a side.

    Raises InvalidValue for names that do not fit.
    """
    n = loop.dim
    names = tuple(f"x{i + 1}" for i in range(n)) if names is None else tuple(names)
    if len(names) != n:
        raise InvalidValue(f"write_certificate_report: names must have one name a state, {n}, got {len(names)}.")
    with x64(), ThreadPoolExecutor(1) as beside:  # what the attack compiles takes as long as the simulation
        low, high, bounded = _window(proof, loop)
        attacked = beside.submit(largest, loop, V, low, high, proof.level, rate=proof.rate, core=proof.core, key=key)
        plain = None if baseline is None else baseline[1]
        found = basin(loop, V, proof.level, low, high, samples=samples, inside=max(samples // 2, 1), core=proof.core, key=key)
        found, elsewhere = _in_cube(found, proof, loop)
        starts, roles = _starts(found, low, high)
        followed = beside.submit(paths, loop, starts, low, high, key=key)
        size = np.max(np.abs(found.inner - np.asarray(loop.goal)), axis=0)
        pairs = _pairs(loop, V, proof, low, high, size)
        planes = _planes(loop, V, plain, proof, low, high, size, pairs, resolution if n == 2 else max(resolution // 2, 2))
        F, value, after = decrease(loop, V, found.inner, proof.rate)
        counts = value > proof.core
        if proof.core > 0 and not loop.continuous:
            counts = counts & (_values(V, after) > proof.core)
        worst = _worst(attacked.result(), np.where(counts, F, -np.inf), found.inner, proof, loop)
        times, lines = followed.result()
        heights = _values(V, lines.reshape(-1, n)).reshape(lines.shape[:2])
        main = Side(proof, V, _volume(V, proof, low, high))
        other = None if baseline is None else Side(*baseline, _volume(baseline[1], baseline[0], low, high))
    return CertificateView(
        loop, main, other, names, low, high, bounded, found, planes, F[counts], worst, times, lines, heights, roles, elsewhere
    )  # fmt: skip


def _window(proof: Proof, loop: ClosedLoop) -> tuple[np.ndarray, np.ndarray, bool]:
    """The domain, or where it is infinite 1.5 times what the cube of y covers; and whether it is finite."""
    low, high = (np.asarray(side, float) for side in proof.domain)
    reach = 1.5 * np.sum(np.abs(proof.frame), axis=1)
    goal = np.asarray(loop.goal)
    bounded = bool(np.isfinite(low).all() and np.isfinite(high).all())
    return np.where(np.isfinite(low), low, goal - reach), np.where(np.isfinite(high), high, goal + reach), bounded


def _outside(proof: Proof, goal: Any, states: np.ndarray) -> np.ndarray:
    """Which states (S, n) lie outside of the cube that the claim is about."""
    return np.max(np.abs(np.linalg.solve(proof.frame, (states - np.asarray(goal)).T)), axis=0) > 1


def _in_cube(found: Basin, proof: Proof, loop: ClosedLoop) -> tuple[Basin, np.ndarray]:
    """The basin with the set of the claim for {V <= level}, and the starts of the latter that are not in it."""
    off = (found.values <= found.level) & _outside(proof, loop.goal, found.starts)
    inner_off = _outside(proof, loop.goal, found.inner)
    elsewhere = np.concatenate([found.starts[off], found.inner[inner_off]])
    values = np.where(off, np.inf, found.values)
    return replace(found, values=values, inner=found.inner[~inner_off], inner_codes=found.inner_codes[~inner_off]), elsewhere


def _worst(attacked: Violation, F: np.ndarray, inner: np.ndarray, proof: Proof, loop: ClosedLoop) -> Violation:
    """What the attack found in the cube, or the largest F of states `inner` where that is larger."""
    if bool(_outside(proof, loop.goal, attacked.state[None])[0]):
        attacked = replace(attacked, largest=float("nan"), state=np.full(loop.dim, np.nan))
    best = int(np.argmax(F))
    if np.isfinite(F[best]) and not F[best] <= attacked.largest:
        return replace(attacked, largest=float(F[best]), state=inner[best])
    return attacked


def _volume(V: AbstractLyapunov, proof: Proof, low: np.ndarray, high: np.ndarray) -> tuple[float, float]:
    return volume_of(V, proof, low, high, jax.random.key(0))


def _pairs(
    loop: ClosedLoop, V: AbstractLyapunov, proof: Proof, low: np.ndarray, high: np.ndarray, size: np.ndarray
) -> list[tuple[int, int]]:
    """The planes to draw: of many, those whose slices are shared most evenly by set, rest of the region of attraction, and outside."""
    every = list(itertools.combinations(range(loop.dim), 2))
    if len(every) <= PLANES:
        return every
    rough = np.concatenate([_grid(loop, low, high, size, pair, COARSE)[2] for pair in every])
    arrives = fates(loop, rough, low, high, arrived=_arrived(V, proof)).codes == CONVERGED
    inside = _values(V, rough) <= proof.level
    kinds = np.stack([inside, ~inside & arrives, ~inside & ~arrives]).reshape(3, len(every), -1)
    marks = 1 - np.sum(np.square(np.mean(kinds, axis=2)), axis=0)
    return [every[k] for k in sorted(np.argsort(-marks, kind="stable")[:PLANES].tolist())]


def _planes(
    loop: ClosedLoop,
    V: AbstractLyapunov,
    plain: AbstractLyapunov | None,
    proof: Proof,
    low: np.ndarray,
    high: np.ndarray,
    size: np.ndarray,
    pairs: list[tuple[int, int]],
    count: int,
) -> tuple[Plane, ...]:
    """One plane a pair, `count` points a side; all are simulated together, which compiles once."""
    if not pairs:
        return ()
    grids = [_grid(loop, low, high, size, pair, count) for pair in pairs]
    coarse = [_grid(loop, low, high, size, pair, ARROWS) for pair in pairs]
    states = np.concatenate([grid[2] for grid in grids])
    shape = (len(pairs), count, count)
    codes = fates(loop, states, low, high, arrived=_arrived(V, proof)).codes.reshape(shape)
    value = _values(V, states)
    S = np.where((value <= proof.level) & _outside(proof, loop.goal, states), 2 * proof.level, value).reshape(shape)
    value = value.reshape(shape)
    beside = None if plain is None else _values(plain, states).reshape(shape)
    moved = np.asarray(_moves(loop, jnp.asarray(np.concatenate([grid[2] for grid in coarse])))).reshape(len(pairs), ARROWS, ARROWS, -1)
    return tuple(
        Plane(*pair, *grids[k][:2], value[k], S[k], None if beside is None else beside[k], codes[k], *coarse[k][:2], moved[k][..., pair])
        for k, pair in enumerate(pairs)
    )


def _grid(
    loop: ClosedLoop, low: np.ndarray, high: np.ndarray, size: np.ndarray, pair: tuple[int, int], count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cell middles of the part of the plane that is shown, (count,) each, and the states, (count^2, n), rows of equal y together."""
    goal = np.asarray(loop.goal)
    axes = []
    for k in pair:
        a, b = max(low[k], goal[k] - ZOOM * size[k]), min(high[k], goal[k] + ZOOM * size[k])
        axes.append(a + (b - a) * (np.arange(count) + 0.5) / count)
    x, y = axes
    states = np.tile(goal, (count * count, 1))
    states[:, pair[0]], states[:, pair[1]] = (z.ravel() for z in np.meshgrid(x, y))
    return x, y, states


def _arrived(V: AbstractLyapunov, proof: Proof) -> Any:
    return None if proof.core <= 0 else (lambda x: V.value(x) <= proof.core)


def _starts(found: Basin, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Starts of trajectories, far from each other: near the border of the set, outside it and converging, outside and leaving."""
    half = (high - low) / 2
    outside = found.values > found.level
    lost = outside & (found.codes == AWAY)
    edge = np.linalg.norm((found.inner - found.inner.mean(axis=0)) / half, axis=1)
    groups = (
        ("inside", found.inner[edge >= np.quantile(edge, 0.5)], 5),
        ("outside", found.starts[outside & (found.codes == CONVERGED)], 3),
        ("leaves", found.starts[lost][found.values[lost] <= np.quantile(found.values[lost], 0.3)] if lost.any() else found.starts[lost], 3),
    )
    starts, roles = [], []
    for role, states, count in groups:
        chosen = _spread(states / half, count)
        starts.append(states[chosen])
        roles += [role] * len(chosen)
    return np.concatenate(starts), tuple(roles)


def _spread(points: np.ndarray, count: int) -> list[int]:
    """Rows that are far from each other: each next one is the farthest from those before."""
    if not len(points):
        return []
    chosen = [0]
    gap = np.linalg.norm(points - points[0], axis=1)
    while len(chosen) < min(count, len(points)):
        chosen.append(int(np.argmax(gap)))
        gap = np.minimum(gap, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return chosen


def _values(V: AbstractLyapunov, states: np.ndarray) -> np.ndarray:
    return np.asarray(_evaluated(V, jnp.asarray(states)))


@eqx.filter_jit
def _evaluated(V: AbstractLyapunov, states: Array) -> Array:
    return jax.vmap(V.value)(states)


@eqx.filter_jit
def _moves(loop: ClosedLoop, states: Array) -> Array:
    """The velocities of a flow, the displacements of a map."""
    moved = jax.vmap(loop.step)(states)
    return moved if loop.continuous else moved - states

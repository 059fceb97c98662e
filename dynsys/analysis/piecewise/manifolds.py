"""Stable and unstable manifolds of the cycles of a piecewise-linear map, grown from the flat piece at the cycle.

    unstable, one direction    D_0 = [s, lambda s] v,  D_{n+1} = F^k(D_n)     (F^2k if lambda < 0)
    stable, one direction      D_0 = the flat piece,   D_{n+1} = F^-1(D_n): the preimages through every region's affine inverse
    more directions            a cloud of points: a random sample of the flat piece's fundamental shell, iterated in the same way

A polyline is broken wherever it crosses a switching manifold (segment growing across regions), so its image is an exact polyline
and has no more vertices than the manifold has folds. A map that is not invertible has stable sets of many pieces. The map must be
continuous, as that of every model of dynsys is.
"""

import dataclasses
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dynsys.analysis.arrays import as_float
from dynsys.analysis.piecewise.cycle import HYPERBOLIC, Cycle
from dynsys.analysis.piecewise.polyline import broken, chained, cut_at, lengths
from dynsys.analysis.piecewise.preimages import Inverse
from dynsys.analysis.piecewise.regions import not_piecewise
from dynsys.analysis.piecewise.saddle import Saddle, saddle_of
from dynsys.analysis.piecewise.verified import padded, regions_of
from dynsys.dynamics import AbstractMap, AbstractPiecewiseLinear
from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys.status import Status

_SHELL = 256  # points of the fundamental shell of a manifold of two or more dimensions


@dataclasses.dataclass(frozen=True)
class Manifold:
    """The grown part of the `which` ('stable' or 'unstable') manifold of `cycle`, of `dimension` d.

    d = 1: curves, polylines (_, M). Unstable: two for each point of the cycle, from that point outwards (points of the cycle in
    order; first the side of the eigenvector, then the other). Stable: the pieces of the set, first those through the cycle.
    d >= 2: cloud (n, M), points on the manifold. status MAX_STEPS: max_points ended it; FAILED: nothing could be grown. notes: why.
    """

    cycle: Cycle
    which: str
    dimension: int
    curves: tuple[Float[np.ndarray, "_ M"], ...] = ()
    cloud: Float[np.ndarray, "_ M"] = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))
    status: Status = Status.SUCCESS
    notes: tuple[str, ...] = ()

    @property
    def length(self) -> float:
        """Total length of the curves, in the state's units."""
        return float(sum(lengths(curve)[-1] for curve in self.curves))

    @property
    def points(self) -> Float[np.ndarray, "n M"]:
        """All vertices of the curves, or the cloud."""
        return np.concatenate(self.curves) if self.curves else self.cloud


def grow_manifold(
    model: AbstractMap,
    cycle: Cycle,
    which: str = "unstable",
    *,
    length: float | None = None,
    iterations: int = 30,
    max_points: int = 50_000,
    bound: float | None = None,
    regions: Any = None,
    key: int = 0,
) -> Manifold:
    """The stable or unstable manifold of a cycle (k, M) of a piecewise-linear map, as exact polylines or as a cloud of points.

    length: where to cut each unstable branch, or the total of a stable set, in the state's units. iterations: how often the
    piece at the cycle is carried on, k steps each time (2 k along a negative unstable eigenvalue). max_points: the most
    vertices. bound: coordinates larger than this are not followed; default a hundred times the cycle's largest (at least 1).
    regions (C, R): codes whose inverses a stable manifold is followed through; default all (up to 4096), else those that random
    orbits visit. key: seed of the cloud and of those orbits.

    What can't be grown (a virtual cycle, a point on a switching manifold, no such direction, a singular Jacobian) is said in
    status and notes, and so is a model without regions. Raises InvalidValue for another word for `which`, or limits below 1.
    """
    if which not in ("unstable", "stable"):
        raise InvalidValue(f"grow_manifold: which must be 'unstable' or 'stable', got {which!r}.")
    if iterations < 1 or max_points < 4 or (length is not None and not length > 0):
        raise InvalidValue(
            f"grow_manifold: needs iterations >= 1, max_points >= 4 and length > 0, got {iterations=}, {max_points=}, {length=}."
        )
    reason = not_piecewise(model)
    if reason or not isinstance(model, AbstractPiecewiseLinear):
        return Manifold(cycle, which, 0, status=Status.FAILED, notes=(reason,))
    with x64():
        model = cast(AbstractPiecewiseLinear, as_float(model))
        codes = regions_of(model, cycle.points) if cycle.regions is None else cycle.regions
        saddle = saddle_of(model, cycle, codes)
        limit = 100 * max(1.0, float(np.abs(cycle.points).max())) if bound is None else bound
        task = _Task(model, cycle, saddle, which, np.inf if length is None else length, iterations, max_points, limit, regions, key)
        return task.run()


@dataclasses.dataclass(frozen=True)
class _Task:
    model: AbstractPiecewiseLinear
    cycle: Cycle
    saddle: Saddle
    which: str
    length: float
    iterations: int
    max_points: int
    bound: float
    regions: Any
    key: int

    def run(self) -> Manifold:
        """The manifold, or why there is none."""
        growth = self.cycle.growth
        d = int((growth > HYPERBOLIC).sum() if self.which == "unstable" else (growth < -HYPERBOLIC).sum())
        reason = ""
        if self.cycle.virtual:
            reason = "The cycle is virtual: it is no orbit of the map and has no manifolds."
        elif d == 0:
            reason = f"The cycle has no {self.which} direction."
        elif self.saddle.margins.min(initial=np.inf) <= 1e-12 * max(1.0, float(np.abs(self.saddle.points).max())):
            reason = "A point of the cycle lies on a switching manifold, where the map has no derivative: no eigenvectors define manifolds."
        if reason:
            return Manifold(self.cycle, self.which, d, status=Status.FAILED, notes=(reason,))
        if self.which == "stable":
            return self._cloud(d) if d > 1 else self._stable_curves()
        found = self._cloud(d) if d > 1 else self._unstable_curves()
        factor = float(np.exp(growth[0]))
        total = factor**self.iterations
        if total > 10:
            return found
        note = f"It expands by only {factor:.4g} a return, {total:.3g} in all: raise iterations to see more than the flat piece."
        return dataclasses.replace(found, notes=(*found.notes, note))

    def _unstable_curves(self) -> Manifold:
        """Both branches at every point."""
        curves: list[np.ndarray] = []
        notes: list[str] = []
        budget = self.max_points // (2 * self.cycle.period)
        for t in range(self.cycle.period):
            saddle = self.saddle.from_point(t)
            Q, B = saddle.subspace(unstable=True)
            v, factor = _pointing(Q[:, 0]), float(B[0, 0])
            forward, backward = saddle.interval(v)
            if factor < 0:  # two returns bring a branch back to its own side, and both must stay in the regions
                forward, backward = min(forward, backward / -factor), min(backward, forward / -factor)
            returns = self.cycle.period * (1 if factor > 0 else 2)
            stretch = factor if factor > 0 else factor**2
            for side, reach in ((v, forward), (-v, backward)):
                curve, note = self._branch(saddle.points[0], side, min(reach, self.bound), stretch, returns, budget)
                curves.append(curve)
                notes += [note] if note and note not in notes else []
        full = any(note.startswith("max_points") for note in notes)
        return Manifold(self.cycle, "unstable", 1, tuple(curves), status=Status.MAX_STEPS if full else Status.SUCCESS, notes=tuple(notes))

    def _branch(self, z: np.ndarray, v: np.ndarray, reach: float, stretch: float, returns: int, budget: int) -> tuple[np.ndarray, str]:
        """One branch from z along v, and why it ended before its length and iterations did."""
        start = reach / stretch
        curve = [np.stack([z, z + start * v])]
        piece = np.stack([z + start * v, z + reach * v])
        total, count, note = start, 2, ""
        for n in range(self.iterations + 1):
            total, count = total + lengths(piece)[-1], count + len(piece) - 1
            curve.append(piece[1:])
            if total >= self.length or n == self.iterations:
                break
            if lengths(piece)[-1] <= 1e-12 * total:
                note = "A branch ended in an attractor: its images shrink to a point."
                break
            if np.abs(piece).max() > self.bound:
                note = f"A branch was left where it passed the bound {self.bound:g}."
                break
            for _ in range(returns):
                piece = image(self.model, broken(piece, self.saddle.normals, self.saddle.offsets))
                if count + len(piece) > budget:
                    break
            if count + len(piece) > budget:
                note = f"max_points={self.max_points} ended a branch at length {total:.4g}."
                break
        return cut_at(np.concatenate(curve), self.length), note

    def _stable_curves(self) -> Manifold:
        """The flat pieces through the cycle's points, then their preimages, generation by generation."""
        inverse = Inverse.of(self.model, self.regions, self.cycle, self.bound, self.key)
        k, notes = self.cycle.period, list(inverse.notes)
        flat = []
        for t in range(k):
            saddle = self.saddle.from_point(t)
            Q, B = saddle.subspace(unstable=False)
            v, factor = _pointing(Q[:, 0]), float(B[0, 0])
            forward, backward = (min(reach, self.bound) for reach in saddle.interval(v))
            if factor < 0:
                forward, backward = min(forward, backward / -factor), min(backward, forward / -factor)
            flat.append(np.stack([saddle.points[0] - backward * v, saddle.points[0] + forward * v])[None])
        # a point that maps into the flat piece of point t + 1 from the region of point t lies on the flat piece of t already
        first = [inverse.segments(flat[(t + 1) % k], without=self.saddle.codes[t]) for t in range(k)]
        kept, piece = [*flat], np.concatenate(first)
        status = Status.SUCCESS
        for n in range(self.iterations * k):
            if not len(piece):
                notes.append(
                    "The stable set ends: its last pieces have no preimages" + (" within the bound." if self.bound < np.inf else ".")
                )
                break
            if 2 * sum(len(part) for part in (*kept, piece)) > self.max_points:
                status = Status.MAX_STEPS
                notes.append(f"max_points={self.max_points} ended the stable set after {n} steps back.")
                break
            kept.append(piece)
            if sum(np.linalg.norm(part[:, 1] - part[:, 0], axis=1).sum() for part in kept) >= self.length:
                break
            piece = inverse.segments(piece)
        curves = chained(np.concatenate(kept), 1e-9 * max(1.0, float(np.abs(self.cycle.points).max())))
        curves.sort(key=lambda curve: not any((curve == part[0, 0]).all(1).any() for part in flat))
        return Manifold(self.cycle, "stable", 1, tuple(curves), status=status, notes=tuple(notes))

    def _cloud(self, d: int) -> Manifold:
        """Points of the fundamental shell at every point of the cycle, and their images or preimages."""
        rng = np.random.default_rng(self.key)
        unstable, notes = self.which == "unstable", []
        inverse = None if unstable else Inverse.of(self.model, self.regions, self.cycle, self.bound, self.key)
        shells, k = [], self.cycle.period
        size = max(2, min(_SHELL, self.max_points // (4 * k)))
        for t in range(k):
            saddle = self.saddle.from_point(t)
            ball = saddle.ball(unstable)
            if ball is None or not np.isfinite(ball.radius):
                ball = None if ball is None else dataclasses.replace(ball, radius=self.bound)
            if ball is None:
                return Manifold(self.cycle, self.which, d, status=Status.FAILED, notes=("The map is singular on this manifold.",))
            shells.append(saddle.points[0] + ball.sample(size, rng, shell=unstable) @ ball.Q.T)
        piece = np.concatenate(shells)
        kept, most = [piece], len(piece) if unstable else 4 * len(piece)
        every = -(-self.iterations * k * most // self.max_points)  # the images that are kept, if not all fit
        for n in range(1, self.iterations * k + 1):
            piece = image(self.model, piece) if inverse is None else inverse.points(piece)
            piece = piece[(np.abs(piece) <= self.bound).all(1)]
            piece = rng.permutation(piece)[:most] if len(piece) > most else piece
            if not len(piece):
                notes.append("The points left the bound, or have no preimages.")
                break
            if n % every == 0:
                kept.append(piece)
        notes += [] if inverse is None else inverse.notes
        return Manifold(self.cycle, self.which, d, cloud=np.concatenate(kept), notes=tuple(notes))


@eqx.filter_jit
def _image(model: AbstractPiecewiseLinear, points: Array) -> Array:
    return jax.vmap(lambda z: model.step(z))(points)


def image(model: AbstractPiecewiseLinear, points: Float[np.ndarray, "n M"]) -> Float[np.ndarray, "n M"]:
    """One step of every row; NaN where it overflows."""
    return np.asarray(_image(model, jnp.asarray(padded(points, 1024))))[: len(points)]


def _pointing(v: np.ndarray) -> np.ndarray:
    """The unit vector with its largest component positive, so that 'the side of the eigenvector' has a meaning."""
    v = v / np.linalg.norm(v)
    return v * np.sign(v[np.argmax(np.abs(v))])

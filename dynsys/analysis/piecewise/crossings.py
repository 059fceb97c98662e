"""Homoclinic and heteroclinic points: where the unstable manifold of one cycle crosses the stable manifold of the same or another.

    The target's local stable set is flat: {z in region(z_t) : l_t . (z - z_t) = 0 and the orbit stays in the cycle's regions},
    l_t the left eigenvector of its one unstable direction. On a straight piece a -> b of the unstable manifold inside the region
    the crossing is at s = l.(a - z_t) / l.(a - b), exactly; its orbit is then followed in the flat set until it is safe there.

Every homoclinic orbit enters the local set, so a long enough unstable manifold finds every one of them, in any number of
dimensions. In the plane a grown stable manifold can be given too, which finds the crossings that lie further back.
"""

import dataclasses
from typing import Any, cast

import numpy as np
import scipy.sparse.csgraph
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree

from dynsys.analysis.arrays import as_float
from dynsys.analysis.piecewise.cycle import Cycle
from dynsys.analysis.piecewise.manifolds import Manifold, image
from dynsys.analysis.piecewise.polyline import broken, meetings
from dynsys.analysis.piecewise.regions import not_piecewise
from dynsys.analysis.piecewise.saddle import Saddle, saddle_of
from dynsys.analysis.piecewise.verified import regions_of, same_cycle
from dynsys.dynamics import AbstractMap, AbstractPiecewiseLinear
from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys.status import Status

_RETURNS = 2000  # how long a crossing is followed until it is safe in the flat set


@dataclasses.dataclass(frozen=True)
class Crossings:
    """Points (n, M) that come from the cycle `source` (backward in time) and go to the cycle `target` (forward).

    orbits (n,): points with one number lie on one orbit, n_orbits of them. angles (n,): between the unstable manifold and the
    stable one, in radians; 0 would be a tangency, NaN where not computed. homoclinic: source and target are the same cycle.
    """

    source: Cycle
    target: Cycle
    points: Float[np.ndarray, "n M"]
    orbits: Int[np.ndarray, " n"]
    angles: Float[np.ndarray, " n"]
    homoclinic: bool
    status: Status = Status.SUCCESS
    notes: tuple[str, ...] = ()

    @property
    def n_orbits(self) -> int:
        """How many different orbits the points belong to, as far as the manifold was grown."""
        return int(self.orbits.max(initial=-1)) + 1

    def __len__(self) -> int:
        return len(self.points)


def crossings(model: AbstractMap, unstable: Manifold, target: Cycle | None = None, *, stable: Manifold | None = None) -> Crossings:
    """Homoclinic or heteroclinic points of a piecewise-linear map on a grown unstable manifold of one dimension.

    target: the cycle whose stable manifold is crossed; default the one that `unstable` belongs to (homoclinic points). It must have
    one unstable direction: with more, a curve does not meet its stable manifold in general. stable: a grown stable manifold of the
    target in M = 2; its crossings with `unstable` are then found segment by segment, beyond the flat piece too.

    Points of the cycles themselves are left out. What can't be computed is said in status and notes. Raises InvalidValue if
    `unstable` is not an unstable manifold or `stable` is not a stable one of the target.
    """
    target = unstable.cycle if target is None else target
    if unstable.which != "unstable" or (
        stable is not None and (stable.which != "stable" or stable.cycle.points.shape != target.points.shape)
    ):
        raise InvalidValue(
            "crossings: needs an unstable manifold, and as stable= a stable manifold of the target; got "
            f"{unstable.which!r}{'' if stable is None else f' and {stable.which!r}'}. Grow them with grow_manifold(model, cycle, which)."
        )
    M = target.points.shape[1]
    reason = not_piecewise(model)
    if not reason and not unstable.curves:
        reason = "The unstable manifold has no curves: crossings are found for one unstable direction." + " ".join(("", *unstable.notes))
    elif not reason and stable is not None and (M != 2 or not stable.curves):
        reason = "Two grown manifolds are compared as curves in the plane: leave stable= out in other dimensions."
    elif not reason and stable is None and target.n_unstable != 1:
        reason = (
            f"The target has {target.n_unstable} unstable directions; a curve crosses its stable manifold transversally only if that is 1."
        )
    elif not reason and stable is None and target.n_unstable == M:
        reason = "The target repels in every direction: only its own points and their preimages come to it."
    elif not reason and target.virtual:
        reason = "The target is virtual: it is no orbit of the map."
    same = target.period == unstable.cycle.period and same_cycle(target.points, unstable.cycle.points[None], np.full(M, 1e-8))
    if reason or not isinstance(model, AbstractPiecewiseLinear):
        none = np.zeros((0, M))
        return Crossings(unstable.cycle, target, none, np.zeros(0, int), np.zeros(0), same, Status.FAILED, (reason,))
    with x64():
        model = cast(AbstractPiecewiseLinear, as_float(model))
        if stable is None:
            codes = regions_of(model, target.points) if target.regions is None else target.regions
            points, angles, notes = _local(model, unstable, saddle_of(model, target, codes))
        else:
            found = [meetings(one, other) for one in unstable.curves for other in stable.curves]
            points, angles, notes = np.concatenate(found), np.full(sum(map(len, found)), np.nan), []
        size = max(1.0, float(np.abs(target.points).max()))
        away = np.ones(len(points), bool)
        for z in np.concatenate([target.points, unstable.cycle.points]):
            away &= np.abs(points - z).max(1, initial=0.0) > 1e-7 * size
        points, angles = points[away], angles[away]
        orbits = _orbits(model, points, target.points, size)
    if not len(points):
        notes.append("No crossing: grow the unstable manifold further; there may be none.")
    return Crossings(unstable.cycle, target, points, orbits, angles, same, notes=tuple(notes))


def _local(model: AbstractPiecewiseLinear, unstable: Manifold, target: Saddle) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Crossings with the flat stable sets at all points of the target: points (n, M), angles (n,), notes."""
    size = max(1.0, float(np.abs(target.points).max()))
    points, angles, unsure = [np.zeros((0, target.points.shape[1]))], [np.zeros(0)], 0
    curves = [broken(curve, target.normals, target.offsets) for curve in unstable.curves]
    middles = [regions_of(model, (curve[1:] + curve[:-1]) / 2) for curve in curves]
    for t in range(len(target.points)):
        saddle = target.from_point(t)
        left = np.linalg.svd(saddle.subspace(unstable=False)[0].T)[2][-1]
        for curve, codes in zip(curves, middles, strict=True):
            height = (curve - saddle.points[0]) @ left
            here = (codes == saddle.codes[0]).all(1)
            (at,) = np.nonzero(here & (height[:-1] * height[1:] <= 0) & (height[:-1] != height[1:]))
            s = height[at] / (height[at] - height[at + 1])
            step = curve[at + 1] - curve[at]
            found = curve[at] + s[:, None] * step
            stays, known = _stays(saddle, found, size)
            unsure += int((~known).sum())
            points.append(found[stays])
            angles.append(np.arcsin(np.minimum(1.0, np.abs(step @ left) / np.linalg.norm(step, axis=1)))[stays])
    notes = (
        [f"{unsure} crossings were left out: {_RETURNS} returns did not show whether they stay in the target's regions."] if unsure else []
    )
    kept, angle = np.concatenate(points), np.concatenate(angles)
    return kept, angle, notes


def _stays(saddle: Saddle, points: Float[np.ndarray, "n M"], size: float) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Whether the orbit of each point of the flat plane stays in the cycle's regions for ever, and whether that could be decided."""
    ball = saddle.ball(unstable=False)
    if ball is None:  # no stable direction: only the cycle itself converges to it
        return np.zeros(len(points), bool), np.ones(len(points), bool)
    x = (points - saddle.points[0]) @ ball.Q
    rates = saddle.pushed(ball.Q).reshape(-1, ball.Q.shape[1])
    margins = saddle.margins.reshape(-1)
    inside, safe = np.ones(len(points), bool), np.zeros(len(points), bool)
    slack = 1e-12 * size * np.linalg.norm(saddle.normals, axis=1).max(initial=1.0)
    for _ in range(_RETURNS):
        inside &= ((x @ rates.T) <= margins + slack).all(1)
        safe = ball.inside(x)
        if (safe | ~inside).all():
            break
        x = x @ ball.B.T
    return inside & safe, safe | ~inside


def _orbits(
    model: AbstractPiecewiseLinear, points: Float[np.ndarray, "n M"], cycle: Float[np.ndarray, "k M"], size: float
) -> Int[np.ndarray, " n"]:
    """Numbers of the orbits: points belong together if they are the same, or one maps onto the other in 1 to k steps.

    Equal means within 1e-8 of their distance to the cycle, because all orbits come as near to each other there as one likes.
    """
    n = len(points)
    if not n:
        return np.zeros(0, int)
    ahead = [points]
    for _ in range(len(cycle)):
        ahead.append(image(model, ahead[-1]))
    tree: Any = KDTree(points)
    links = []
    for queries, neighbour in ((points, 2), *((images, 1) for images in ahead[1:])):  # a point's first neighbour is itself
        distance, hit = tree.query(queries, k=[neighbour])
        gap = np.linalg.norm(queries[:, None] - cycle, axis=-1).min(1)
        (near,) = np.nonzero(distance[:, 0] <= 1e-8 * gap + 1e-13 * size)
        links.append(np.stack([near, hit[near, 0]], axis=1))
    i, j = np.concatenate(links).T
    graph = scipy.sparse.coo_matrix((np.ones(len(i)), (i, j)), shape=(n, n))
    labels = scipy.sparse.csgraph.connected_components(graph, directed=False)[1]
    return np.unique(labels, return_inverse=True)[1].astype(int)

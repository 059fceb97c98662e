"""The inverse of a piecewise-linear map: none, one or several preimages, each by the inverse of one region's affine map.

F(x) = z  <=>  for some region r:  x = J(r)^-1 (z - h(r))  and  region(x) = r
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from dynsys.analysis.piecewise.cycle import Cycle
from dynsys.analysis.piecewise.polyline import clipped
from dynsys.analysis.piecewise.regions import hyperplanes, visited_regions
from dynsys.analysis.piecewise.words import affine_maps
from dynsys.dynamics import AbstractPiecewiseLinear, rollout
from dynsys.errors import InvalidValue

_ALL = 12  # switching rows up to which every code is tried
_SINGULAR = 1e-12  # reciprocal condition number of a map without a useful inverse


@dataclasses.dataclass(frozen=True)
class Inverse:
    """The inverses x = inverses[c] (z - h[c]) of C regions, within |x_i| <= bound. notes: what is left out."""

    codes: Bool[np.ndarray, "C R"]
    inverses: Float[np.ndarray, "C M M"]
    h: Float[np.ndarray, "C M"]
    normals: Float[np.ndarray, "R M"]
    offsets: Float[np.ndarray, " R"]
    bound: float
    notes: tuple[str, ...]

    @classmethod
    def of(cls, model: AbstractPiecewiseLinear, regions: Any, cycle: Cycle, bound: float, key: int) -> "Inverse":
        """Through the given regions (C, R); by default through all 2^R codes, or those that random orbits visit if R > 12."""
        normals, offsets = hyperplanes(model)
        rows, notes = len(offsets), []
        if regions is not None:
            codes = np.asarray(regions, bool)
            if codes.ndim != 2 or codes.shape[1] != rows:
                raise InvalidValue(f"grow_manifold: regions must be codes of shape (C, {rows}), got {codes.shape}.")
        elif rows <= _ALL:
            codes = (np.arange(1 << rows)[:, None] >> np.arange(rows)) & 1 > 0
        else:
            size = max(1.0, float(np.abs(cycle.points).max()))
            starts = cycle.points[0] + size * np.random.default_rng(key).normal(size=(200, model.dim))
            orbits = np.asarray(jax.vmap(lambda z: rollout(model, z, 100))(jnp.asarray(starts))).reshape(-1, model.dim)
            seen = np.concatenate([starts, orbits[np.isfinite(orbits).all(1)], cycle.points])
            codes = visited_regions(model, seen).codes
            notes.append(f"Preimages are sought in the {len(codes)} regions that random orbits visit; pass regions= to name others.")
        J, h = affine_maps(model, codes)
        values = np.linalg.svd(J, compute_uv=False)
        good = values[:, -1] > _SINGULAR * values[:, 0]
        if not good.all():
            notes.append(
                f"{int((~good).sum())} of {len(good)} regions have a singular map: preimages through them, planes or nothing, are left out."
            )
        return cls(codes[good], np.linalg.inv(J[good]), h[good], normals, offsets, bound, tuple(notes))

    def segments(self, segments: Float[np.ndarray, "n 2 M"], without: Bool[np.ndarray, " R"] | None = None) -> Float[np.ndarray, "m 2 M"]:
        """The preimages of straight segments, cut at the borders of the regions and at the bound; one region can be left out."""
        M = segments.shape[-1]
        found = [np.zeros((0, 2, M))]
        walls = np.concatenate([np.eye(M), -np.eye(M)]), np.full(2 * M, self.bound)
        for code, inverse, h in zip(self.codes, self.inverses, self.h, strict=True):
            if without is not None and np.array_equal(code, without):
                continue
            back = (segments - h) @ inverse.T
            side = np.where(code, 1.0, -1.0)
            normals, offsets = np.concatenate([side[:, None] * self.normals, walls[0]]), np.concatenate([side * self.offsets, walls[1]])
            part = clipped(back[:, 0], back[:, 1], normals, offsets)
            long = np.linalg.norm(part[:, 1] - part[:, 0], axis=1) > 1e-12 * np.maximum(1.0, np.abs(part).max((1, 2)))
            found.append(part[long])
        return np.concatenate(found)

    def points(self, points: Float[np.ndarray, "n M"]) -> Float[np.ndarray, "m M"]:
        """All preimages of points."""
        found = [np.zeros((0, points.shape[-1]))]
        for code, inverse, h in zip(self.codes, self.inverses, self.h, strict=True):
            back = (points - h) @ inverse.T
            found.append(back[((back @ self.normals.T + self.offsets > 0) == code).all(1)])
        return np.concatenate(found)

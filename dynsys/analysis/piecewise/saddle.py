"""The neighbourhood of a cycle of a piecewise-linear map, where its invariant manifolds are flat and known exactly.

    z = z_t + y stays in the cycle's regions as long as no row of N (z_t + J_{t-1}...J_0 y) + b changes its sign within the k steps.
    Along an eigenvector this is an interval, in a subspace an ellipsoid {y = Q x : x^T P x <= rho^2} that the map shrinks.

P solves the discrete Lyapunov equation B^T P B - P = -1 of the map B in the subspace (its inverse, if it expands).
"""

import dataclasses
from functools import cached_property
from typing import Any, cast

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float

from dynsys.analysis.piecewise.cycle import HYPERBOLIC, Cycle
from dynsys.analysis.piecewise.regions import hyperplanes
from dynsys.analysis.piecewise.verified import composed
from dynsys.analysis.piecewise.words import affine_maps
from dynsys.dynamics import AbstractPiecewiseLinear


@dataclasses.dataclass(frozen=True)
class Ball:
    """The flat piece y = Q x, x^T P x <= radius^2, of an invariant manifold of dimension d; B (d, d) is the k-step map in x."""

    Q: Float[np.ndarray, "M d"]
    B: Float[np.ndarray, "d d"]
    P: Float[np.ndarray, "d d"]
    radius: float

    def inside(self, x: Float[np.ndarray, "n d"]) -> Bool[np.ndarray, " n"]:
        """Which rows lie in the ball."""
        return np.einsum("nd,de,ne->n", x, self.P, x) <= self.radius**2

    def sample(self, count: int, rng: np.random.Generator, *, shell: bool) -> Float[np.ndarray, "n d"]:
        """Random points in the ball; shell: only those that leave it in one return, one of every orbit that leaves."""
        d = len(self.B)
        x = rng.normal(size=(count, d))
        x *= self.radius / np.sqrt(np.einsum("nd,de,ne->n", x, self.P, x))[:, None]  # on its surface
        least = np.zeros(count)
        if shell:
            ahead = x @ self.B.T
            least = self.radius / np.sqrt(np.einsum("nd,de,ne->n", ahead, self.P, ahead))
        share = rng.random(count)
        return x * (least**d + share * (1 - least**d))[:, None] ** (1 / d)


@dataclasses.dataclass(frozen=True)
class Saddle:
    """A cycle with the affine maps of its points; seen from points[0]. Use `from_point` for the others."""

    points: Float[np.ndarray, "k M"]
    codes: Bool[np.ndarray, "k R"]
    jacobians: Float[np.ndarray, "k M M"]
    normals: Float[np.ndarray, "R M"]
    offsets: Float[np.ndarray, " R"]

    def from_point(self, t: int) -> "Saddle":
        """The same cycle with point t as the first."""
        points, codes, jacobians = (np.roll(a, -t, axis=0) for a in (self.points, self.codes, self.jacobians))
        return Saddle(points, codes, jacobians, self.normals, self.offsets)

    @cached_property
    def return_map(self) -> Float[np.ndarray, "M M"]:
        """J_{k-1} ... J_0."""
        return composed(self.jacobians)

    @cached_property
    def margins(self) -> Float[np.ndarray, "k R"]:
        """How far inside its region each point lies, |N z_t + b| row by row; inf for a row of zeros, which never switches."""
        return np.where(np.abs(self.normals).max(1) > 0, np.abs(self.points @ self.normals.T + self.offsets), np.inf)

    def pushed(self, Q: Float[np.ndarray, "M d"]) -> Float[np.ndarray, "k R d"]:
        """The rates N J_{t-1}...J_0 Q at which displacements y = Q x move the rows, signed towards the border as positive."""
        rates, side = [], np.where(self.points @ self.normals.T + self.offsets > 0, -1.0, 1.0)
        for t, J in enumerate(self.jacobians):
            rates.append(side[t][:, None] * (self.normals @ Q))
            Q = J @ Q
        return np.stack(rates)

    def interval(self, v: Float[np.ndarray, " M"]) -> tuple[float, float]:
        """How far one can go along v and along -v with all k steps in the cycle's regions; inf without a border."""
        rates = self.pushed(v[:, None])[..., 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            forward = np.where(rates > 0, self.margins / rates, np.inf).min(initial=np.inf)
            backward = np.where(rates < 0, -self.margins / rates, np.inf).min(initial=np.inf)
        return float(forward), float(backward)

    def subspace(self, unstable: bool) -> tuple[Float[np.ndarray, "M d"], Float[np.ndarray, "d d"]]:
        """An orthonormal basis Q of the unstable (stable) directions of the return map, and the return map in it."""
        sort = (lambda re, im: np.hypot(re, im) > 1 + HYPERBOLIC) if unstable else (lambda re, im: np.hypot(re, im) < 1 - HYPERBOLIC)
        T, Z, d = cast(Any, scipy.linalg.schur(self.return_map, output="real", sort=sort))
        return Z[:, :d], T[:d, :d]

    def ball(self, unstable: bool) -> Ball | None:
        """The flat piece of the unstable (stable) manifold at points[0]; None if the subspace is empty or its map is singular."""
        Q, B = self.subspace(unstable)
        if not len(B) or (unstable and np.linalg.cond(B) > 1e12):
            return None
        shrinking = np.linalg.inv(B) if unstable else B
        P = scipy.linalg.solve_discrete_lyapunov(shrinking.T, np.eye(len(B)))
        reach = np.sqrt(np.einsum("krd,de,kre->kr", rates := self.pushed(Q), np.linalg.inv(P), rates))
        with np.errstate(divide="ignore", invalid="ignore"):
            radius = np.where(reach > 0, self.margins / reach, np.inf).min(initial=np.inf)
        return Ball(Q, B, P, float(radius))


def saddle_of(model: AbstractPiecewiseLinear, cycle: Cycle, codes: Bool[np.ndarray, "k R"]) -> Saddle:
    """The affine maps of a cycle, within `x64()`."""
    return Saddle(cycle.points, codes, affine_maps(model, codes)[0], *hyperplanes(model))

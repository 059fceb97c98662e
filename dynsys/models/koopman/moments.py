"""Second moments of lifted pairs, block by block: all that a regression or a residual needs, in memory independent of the series.

    G = mean psi(x) psi(x)^T,    A = mean psi(x) psi(y)^T,    L = mean psi(y) psi(y)^T,    y the point after x

    K = G^+ A,    psi(y)^T ~ psi(x)^T K;    an eigenvector K v = lambda v gives the eigenfunction phi(x) = psi(x)^T v

The columns are scaled to unit mean square before G is factorised, which saves as many digits as their sizes differ by; a ridge is
relative to the largest eigenvalue of that scaled matrix. In float32 such matrices are useless.
Sources: Williams, Kevrekidis, Rowley, J. Nonlinear Sci. 25, 1307 (2015), eqs. 10 to 14; L: Colbrook & Townsend, CPAM 77, 221 (2024).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from dynsys.errors import InvalidValue
from dynsys.models.koopman.lifted import windows

BLOCK = 2000  # rows that are lifted at a time: their features stay in the cache

Lift = Callable[[np.ndarray], np.ndarray]  # windows (R, V) -> features (R, F)
Features = Float[np.ndarray, "R F"]


@dataclass(frozen=True)
class Moments:
    """The moments of `count` pairs; F features before (with inputs there are more of them), O after."""

    G: Float[np.ndarray, "F F"]
    A: Float[np.ndarray, "F O"]
    L: Float[np.ndarray, "O O"]
    count: int

    @classmethod
    def of(cls, runs: Iterable[np.ndarray]) -> "Moments":
        """From lifted stretches of trajectories; each row follows the one before it, and pairs never join two stretches."""
        G = A = L = np.zeros((0, 0))
        count = 0
        for psi in runs:
            if len(psi) < 2:
                continue
            if count == 0:
                G, A, L = (np.zeros((psi.shape[1],) * 2) for _ in range(3))
            here = psi[:-1].T @ psi[:-1]
            G += here
            L += here + np.outer(psi[-1], psi[-1]) - np.outer(psi[0], psi[0])
            A += psi[:-1].T @ psi[1:]
            count += len(psi) - 1
        if count == 0:
            raise InvalidValue("Moments: there is no pair of points; give a trajectory of at least two (after its delays).")
        return cls(G / count, A / count, L / count, count)

    @classmethod
    def of_pairs(cls, before: np.ndarray, after: np.ndarray, weights: np.ndarray | None = None) -> "Moments":
        """From features of R pairs (x, y) that need not be parts of a trajectory; weights (R,) sum to 1 (default: all equal)."""
        if before.shape != after.shape or len(before) == 0:
            raise InvalidValue(f"Moments: pairs need features of one shape, got {before.shape} and {after.shape}.")
        w = np.full((len(before), 1), 1.0 / len(before)) if weights is None else np.reshape(weights, (-1, 1))
        return cls(before.T @ (w * before), before.T @ (w * after), after.T @ (w * after), len(before))

    def solve(self, ridges: Any = 0.0, rank: int | None = None) -> Float[np.ndarray, "*R F O"]:
        """K for a ridge, or for each of several (R,); of the leading `rank` directions only, if given."""
        return self.regress(self.A, ridges, rank)

    def regress(self, target: Float[np.ndarray, "F P"], ridges: Any = 0.0, rank: int | None = None) -> Float[np.ndarray, "*R F P"]:
        """(G + ridge)^-1 target for moments with any target, mean psi(x) t^T, (F, O)."""
        size, values, vectors = self.spectrum
        kept = slice(None) if rank is None else slice(-rank, None)
        values, vectors = values[kept], vectors[:, kept]
        ridges = np.asarray(ridges, float)
        power = np.maximum(values, 0.0) + ridges[..., None] * values[-1]
        gain = np.where(power > 0, 1.0 / np.where(power > 0, power, 1.0), 0.0)
        projected = vectors.T @ (target / size[:, None])
        return (vectors @ (gain[..., None] * projected)) / size[:, None]

    @property
    def spectrum(self) -> tuple[Float[np.ndarray, " F"], Float[np.ndarray, " F"], Float[np.ndarray, "F F"]]:
        """The columns' root mean squares, and eigenvalues (rising) and eigenvectors of the scaled G."""
        size = np.sqrt(np.maximum(np.diag(self.G), 0.0))
        size = np.where(size > 0, size, 1.0)
        values, vectors = np.linalg.eigh(self.G / np.outer(size, size))
        return size, values, vectors


def lifted_runs(lift: Lift, series: Sequence[Any], delays: int = 1, block: int = BLOCK) -> Iterable[np.ndarray]:
    """Features of all windows of trajectories [(T, N), ...], `block` pairs at a time; arrays on disk are read as they are needed."""
    for x in series:
        rows = x.shape[0] - delays + 1
        for a in range(0, rows - 1, block):
            stretch = np.asarray(x[a : min(a + block + delays, x.shape[0])], float)
            yield lift(windows(stretch, delays))

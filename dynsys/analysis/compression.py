"""The Koopman operator on the span of a dictionary, in functions q that are orthonormal over the data.

    q(x) = psi(x)^T W,    mean q^* q = I,    q(y) = q(x) A + e,    mean q^* e = 0,    mean e^* e = R^T R

A (r, r) is what the span sees of the operator, R how the operator leaves the span. For a function g = q c and any number z

    mean |g(y) - z g(x)|^2 / mean |g(x)|^2 = (|(A - z) c|^2 + |R c|^2) / |c|^2

which is res(z, g)^2 of residual dynamic mode decomposition, as a sum of squares. Moments know R^T R = W^T L W - A^T A only as a
difference of large numbers, so residuals below about the root of the machine's precision are lost in them; from the features
themselves R is found by orthogonal factorisation, and residuals of 1e-12 are seen.
Source: Colbrook & Townsend, Commun. Pure Appl. Math. 77, 221 (2024), sec. 3; the orthonormal form: Colbrook, Ayton, Szoke,
J. Fluid Mech. 955, A21 (2023).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float

from dynsys.errors import InvalidValue
from dynsys.models.koopman.moments import Moments

EPS = float(np.finfo(float).eps)
CUT_MOMENTS = 1e-13  # directions whose share of G is below this one are rounding
CUT_FEATURES = 1e-12  # the same for singular values of the features


@dataclass(frozen=True)
class Compression:
    """A (r, r), R (., r) and the basis W (F, r) of the text above.

    coordinates (r, F): of the functions psi, projected onto the basis: psi^T c ~ q (coordinates c). strengths (r,): eigenvalues
    of G, its columns scaled to unit mean square, in rising order. rounding: the error of a residual in the strongest
    direction. count: pairs.
    """

    A: Float[np.ndarray, "r r"]
    R: Float[np.ndarray, "_ r"]
    W: Float[np.ndarray, "F r"]
    coordinates: Float[np.ndarray, "r F"]
    strengths: Float[np.ndarray, " r"]
    rounding: float
    count: int

    @classmethod
    def of(cls, moments: Moments, rank: int | None = None) -> "Compression":
        """From moments; of the leading `rank` directions only, if given. Raises InvalidValue for a bad rank or moments of zero."""
        size, strengths, vectors = moments.spectrum
        kept = _kept("Compression.of", strengths, CUT_MOMENTS, rank)
        strengths = strengths[kept]
        vectors, root = vectors[:, kept], np.sqrt(strengths)
        W, back = vectors / root / size[:, None], root[:, None] * vectors.T * size
        A = W.T @ moments.A @ W
        left, how = np.linalg.eigh(W.T @ moments.L @ W - A.T @ A)
        R = np.sqrt(np.maximum(left, 0.0))[:, None] * how.T
        return cls(A, R, W, back, strengths, float(np.sqrt(EPS * strengths[-1])), moments.count)

    @classmethod
    def of_pairs(
        cls,
        before: Float[np.ndarray, "P F"],
        after: Float[np.ndarray, "_ _"],
        weights: Float[np.ndarray, " _"] | None = None,
        rank: int | None = None,
    ) -> "Compression":
        """From the features of P pairs; weights (P,) sum to 1 (default: all equal). It takes memory for a few copies of them."""
        who = "Compression.of_pairs"
        if before.shape != after.shape or before.shape[0] == 0 or (weights is not None and weights.shape != before.shape[:1]):
            raise InvalidValue(f"{who}: pairs need features of one shape and a weight each, got {before.shape} and {after.shape}.")
        root = np.full((len(before), 1), len(before) ** -0.5) if weights is None else np.sqrt(weights)[:, None]
        if not (np.isfinite(before).all() and np.isfinite(after).all() and np.isfinite(root).all()):
            raise InvalidValue(f"{who}: features and weights must be finite, weights not negative. Drop such pairs first.")
        before, after = root * before, root * after
        size = np.linalg.norm(before, axis=0)
        size = np.where(size > 0, size, 1.0)
        left, singular, right = np.linalg.svd(before / size, full_matrices=False)
        left, singular, right = left[:, ::-1], singular[::-1], right[::-1]  # rising, as eigenvalues are
        kept = _kept(who, singular, CUT_FEATURES, rank)
        left, singular = left[:, kept], singular[kept]
        W, back = right[kept].T / singular / size[:, None], singular[:, None] * right[kept] * size
        moved = after @ W
        A = left.T @ moved
        R = np.asarray(np.linalg.qr(moved - left @ A, mode="r"))
        return cls(A, R, W, back, singular**2, float(EPS * singular[-1]), len(before))

    def operator(self, ridge: float = 0.0) -> Float[np.ndarray, "r r"]:
        """The regression with a ridge (relative to the largest strength) in this basis: A itself for 0."""
        if not 0 <= ridge < np.inf:
            raise InvalidValue(f"Compression: ridge must be a finite number of at least 0, got ridge={ridge}.")
        return (self.strengths / (self.strengths + ridge * self.strengths[-1]))[:, None] * self.A

    def residual(self, z: Complex[np.ndarray, " S"], C: Complex[np.ndarray, "r S"]) -> Float[np.ndarray, " S"]:
        """res(z, q c) of S pairs, a column of C (r, S) each."""
        own, left = self.A @ C - C * z[None, :], self.R @ C
        norm = np.linalg.norm(C, axis=0)
        return np.hypot(np.linalg.norm(own, axis=0), np.linalg.norm(left, axis=0)) / np.where(norm > 0, norm, 1.0)

    def floors(self, C: Complex[np.ndarray, "r S"]) -> Float[np.ndarray, " S"]:
        """Residuals of the functions q c below these can't be told from rounding: more so the more they use weak directions."""
        return self.rounding * np.linalg.norm(C / np.sqrt(self.strengths)[:, None], axis=0) / np.linalg.norm(C, axis=0)

    @property
    def expansion(self) -> float:
        """The largest | |g(y)|^2 / |g(x)|^2 - 1 | in means over the data, of all functions g: 0 if the data's measure is invariant."""
        return float(np.abs(np.linalg.eigvalsh(self.A.T @ self.A + self.R.T @ self.R) - 1.0).max())


def compressed(source: Moments | Compression, rank: int | None = None) -> Compression:
    """The compression of moments, or the one that is given."""
    return Compression.of(source, rank) if isinstance(source, Moments) else source


def _kept(who: str, values: np.ndarray, cut: float, rank: int | None) -> slice:
    if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int | np.integer) or not 1 <= rank <= len(values)):
        raise InvalidValue(f"{who}: rank must be a whole number in [1, {len(values)}], got rank={rank!r}: directions that are kept.")
    if not np.isfinite(values).all() or not values[-1] > 0:
        raise InvalidValue(f"{who}: the features are all zero or not finite on the data; look at the dictionary and at the data.")
    sound = int(np.sum(values > cut * values[-1]))
    return slice(len(values) - (sound if rank is None else min(sound, int(rank))), None)

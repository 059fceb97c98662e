"""Kernels: k(v, c) = <phi(v), phi(c)>, the inner product of functions of two windows that are never written out.

    gaussian      exp(-r^2 / (2 w^2)),  r = |v - c|
    matern-1/2    exp(-r/w)
    matern-3/2    (1 + sqrt(3) r/w) exp(-sqrt(3) r/w)
    matern-5/2    (1 + sqrt(5) r/w + 5 r^2 / (3 w^2)) exp(-sqrt(5) r/w)
    polynomial    (v . c + offset)^p: all monomials of degree 0 to p at once

The models standardise v, so the width w is in standard deviations. A Matern kernel of order nu suits functions with fewer than nu + V/2
derivatives; the Gaussian one, its limit, smooth ones.

`Landmarks` spans the functions k(z, .) of a few windows z: the pivots of a Cholesky factorisation of the kernel matrix, each the window
that those before it explain worst. With all pivots down to rounding nothing is lost; with fewer it is a Nystrom approximation.
Sources: Rasmussen & Williams, Gaussian Processes for Machine Learning, MIT Press (2006), sec. 4.2; pivots: Fine & Scheinberg, JMLR 2,
243 (2001).
"""

import abc
import math
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float

from dynsys.errors import InvalidValue, did_you_mean

ORDERS = {"matern-1/2": 1, "matern-3/2": 3, "matern-5/2": 5}  # 2 nu
KERNELS = ("gaussian", *ORDERS, "polynomial")
EXPLAINED = 1e-13  # of the largest k(v, v): what is left of a window when it counts as spanned by the landmarks


class AbstractKernel(eqx.Module):
    """A positive definite function of two windows of V variables."""

    @abc.abstractmethod
    def __call__(self, v: Float[Any, "*R V"], centres: Float[Any, "C V"]) -> Any:
        """k(v, c) for every centre c, (..., V), (C, V) -> (..., C); array-agnostic."""

    @abc.abstractmethod
    def gram(self, v: Float[np.ndarray, "R V"], centres: Float[np.ndarray, "C V"]) -> Float[np.ndarray, "R C"]:
        """The same for many windows at once, in NumPy and without an array of shape (R, C, V)."""

    @abc.abstractmethod
    def power(self, v: Float[np.ndarray, "R V"]) -> Float[np.ndarray, " R"]:
        """k(v, v) of every window."""


class AbstractRadial(AbstractKernel):
    """A kernel of the distance alone, with k(v, v) = 1."""

    width: eqx.AbstractVar[float]

    @abc.abstractmethod
    def profile(self, square: Any) -> Any:
        """The kernel as a function of r^2 / w^2."""

    def __check_init__(self):
        if isinstance(self.width, bool) or not 0 < self.width < math.inf:
            raise InvalidValue(
                f"{type(self).__name__}: width must be positive and finite, got width={self.width}: "
                "the distance, in standard deviations, over which values are related."
            )

    def __call__(self, v: Float[Any, "*R V"], centres: Float[Any, "C V"]) -> Any:
        """By differences: r^2 has no rounding of the size of |v|^2."""
        xp = array_namespace(v)
        off = v[..., None, :] - xp.reshape(centres, (1,) * (len(v.shape) - 1) + tuple(centres.shape))
        return self.profile(xp.sum(off * off, axis=-1) / self.width**2)

    def gram(self, v: Float[np.ndarray, "R V"], centres: Float[np.ndarray, "C V"]) -> Float[np.ndarray, "R C"]:
        """By SciPy's distances, which are differences too."""
        from scipy.spatial.distance import cdist

        return self.profile(cdist(v / self.width, centres / self.width, "sqeuclidean"))

    def power(self, v: Float[np.ndarray, "R V"]) -> Float[np.ndarray, " R"]:
        """1."""
        return np.ones(len(v))


class Gaussian(AbstractRadial):
    """exp(-r^2 / (2 w^2)); gamma = 1 / (2 w^2) where others write exp(-gamma r^2)."""

    width: float = eqx.field(static=True)

    def profile(self, square: Any) -> Any:
        """As above."""
        return array_namespace(square).exp(-0.5 * square)


class Matern(AbstractRadial):
    """The kernels of order nu = 1/2, 3/2, 5/2; `twice` is 2 nu."""

    width: float = eqx.field(static=True)
    twice: int = eqx.field(static=True)

    def __check_init__(self):
        if self.twice not in ORDERS.values():
            raise InvalidValue(f"Matern: twice (2 nu) must be 1, 3 or 5, got twice={self.twice}.")

    def profile(self, square: Any) -> Any:
        """As above; the slope at r = 0 is 0, which it is but for nu = 1/2, where there is none."""
        xp = array_namespace(square)
        away = square > 0
        square = self.twice * square
        r = xp.where(away, xp.sqrt(xp.where(away, square, xp.ones_like(square))), xp.zeros_like(square))
        factor = 1.0 if self.twice == 1 else 1.0 + r if self.twice == 3 else 1.0 + r + square / 3.0
        return factor * xp.exp(-r)


class Polynomial(AbstractKernel):
    """(v . c + offset)^degree."""

    degree: int = eqx.field(static=True)
    offset: float = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        if isinstance(self.degree, bool) or not isinstance(self.degree, int) or self.degree < 1 or not 0 <= self.offset < math.inf:
            raise InvalidValue(
                f"Polynomial: degree must be a whole number of at least 1 and offset finite and not negative, "
                f"got degree={self.degree!r}, offset={self.offset}."
            )

    def __call__(self, v: Float[Any, "*R V"], centres: Float[Any, "C V"]) -> Any:
        """As above."""
        return (v @ centres.T + self.offset) ** self.degree

    def gram(self, v: Float[np.ndarray, "R V"], centres: Float[np.ndarray, "C V"]) -> Float[np.ndarray, "R C"]:
        """As above."""
        return self(v, centres)

    def power(self, v: Float[np.ndarray, "R V"]) -> Float[np.ndarray, " R"]:
        """(|v|^2 + offset)^degree."""
        return ((v * v).sum(axis=1) + self.offset) ** self.degree


def kernel_of(name: str, width: float, degree: int, offset: float = 1.0) -> AbstractKernel:
    """The kernel of a name in KERNELS; the width is that of the radial ones, degree and offset those of the polynomial one.

    Raises InvalidValue for another name or numbers that can't be used.
    """
    if name == "gaussian":
        return Gaussian(float(width))
    if name in ORDERS:
        return Matern(float(width), ORDERS[name])
    if name == "polynomial":
        return Polynomial(degree, float(offset))
    raise InvalidValue(f"kernel must be one of {', '.join(KERNELS)}, got {name!r}.{did_you_mean(str(name), KERNELS)}")


@dataclass(frozen=True)
class Landmarks:
    """Orthonormal functions psi = L^-1 k(Z, .) that span k(z, .) of the landmarks Z (C, V), with k(Z, Z) = L L^T."""

    kernel: AbstractKernel
    Z: Float[np.ndarray, "C V"]
    L: Float[np.ndarray, "C C"]

    @classmethod
    def among(cls, kernel: AbstractKernel, v: Float[np.ndarray, "R V"], most: int) -> "Landmarks":
        """At most `most` of the windows v, fewer if these explain the others to rounding; takes an array of shape (R, R)."""
        from scipy.linalg.lapack import dpstrf  # pyright: ignore[reportAttributeAccessIssue]

        K = kernel.gram(v, v)
        factor, pivots, rank, _ = dpstrf(K.T, tol=EXPLAINED * float(kernel.power(v).max()), lower=1, overwrite_a=1)
        kept = max(1, min(rank, most))
        return cls(kernel, v[pivots[:kept] - 1], np.tril(factor[:kept, :kept]))

    def __call__(self, v: Float[np.ndarray, "R V"]) -> Float[np.ndarray, "R C"]:
        """psi of every window."""
        from scipy.linalg import solve_triangular

        return solve_triangular(self.L, self.kernel.gram(v, self.Z).T, lower=True, overwrite_b=True, check_finite=False).T

    def coefficients(self, W: Float[np.ndarray, "C r"]) -> Float[np.ndarray, "C r"]:
        """U of the same functions in the kernel's own terms: psi(v)^T W = k(v, Z) U."""
        from scipy.linalg import solve_triangular

        return solve_triangular(self.L.T, W)

"""Pseudospectra of a Koopman operator: how nearly every point of the plane is an eigenvalue, not only those that a regression names.

    res(z) = min over g in the span of mean^(1/2) |g(y) - z g(x)|^2,    mean |g(x)|^2 = 1
           = smallest singular value of [A - z; R]                      (the letters of dynsys.analysis.compression)

res(z) < eps puts z into the eps-pseudospectrum of the operator (of infinite dimension), with nothing spurious; a larger dictionary
only lowers it. The minimiser g is a pseudo-eigenfunction: it moves as z^t for about 1 / res(z) steps.
Source: Colbrook & Townsend, Commun. Pure Appl. Math. 77, 221 (2024), algorithm 3.
"""

from typing import Any

import numpy as np
from jaxtyping import Complex, Float

from dynsys.analysis.compression import EPS, Compression, compressed
from dynsys.errors import InvalidValue
from dynsys.models.koopman.moments import Moments

CHUNK = 1 << 21  # complex numbers in the matrices that are factorised at a time
BLURRED = 100 * EPS**0.5  # squares below this one (relative) lose digits: these points are done again without squaring


def pseudospectrum(source: Moments | Compression, grid: Complex[np.ndarray, "*G"], *, rank: int | None = None) -> Float[np.ndarray, "*G"]:
    """res(z) at every point of a grid of any shape. From moments it can't fall below about 1e-8; a `Compression.of_pairs` sees less.

    rank: directions of the moments that are kept. Raises InvalidValue for a grid that is not finite.
    """
    space, z = compressed(source, rank), np.asarray(grid, complex)
    if not np.isfinite(z).all():
        raise InvalidValue("pseudospectrum: the grid holds NaN or inf.")
    points, where = np.unique(np.real(z).ravel() + 1j * np.abs(np.imag(z)).ravel(), return_inverse=True)  # moments are real
    found = np.empty(len(points))
    A, r = space.A.astype(complex), len(space.A)
    quadratic, eye = A.T @ A + space.R.T @ space.R, np.eye(r)
    for a in range(0, len(points), max(1, CHUNK // r**2)):
        one = points[a : a + max(1, CHUNK // r**2), None, None]
        square = quadratic[None] - one * A.T[None] - one.conj() * A[None] + np.abs(one) ** 2 * eye[None]
        found[a : a + len(one)] = np.linalg.eigvalsh(square)[:, 0]
    size = np.abs(points) ** 2 + np.linalg.norm(quadratic, 2)
    blurred = np.flatnonzero(found < BLURRED * size)
    found = np.sqrt(np.maximum(found, 0.0))
    for i in blurred:
        found[i] = np.linalg.svd(_stack(space, points[i]), compute_uv=False)[-1]
    return found[where.ravel()].reshape(z.shape)


def pseudo_eigenfunction(source: Moments | Compression, z: Any, *, rank: int | None = None) -> tuple[float, Complex[np.ndarray, " F"]]:
    """res(z), and the coefficients (F,) of the function that attains it, g = psi^T v with mean |g|^2 = 1."""
    space = compressed(source, rank)
    _, singular, right = np.linalg.svd(_stack(space, complex(z)))
    return float(singular[-1]), space.W @ right[-1].conj()


def unit_grid(radius: float = 1.5, resolution: int = 50) -> Complex[np.ndarray, "res res"]:
    """A square grid of `resolution`^2 points with |real|, |imag| <= radius; imaginary parts rise along the first axis."""
    if not 0 < radius < np.inf or resolution < 2:
        raise InvalidValue(f"unit_grid: needs a positive radius and a resolution of at least 2, got {radius=}, {resolution=}.")
    axis = np.linspace(-radius, radius, resolution)
    axis = (axis - axis[::-1]) / 2  # symmetric to the last digit: conjugate points are done once
    return axis[None, :] + 1j * axis[:, None]


def _stack(space: Compression, z: complex) -> Complex[np.ndarray, "_ r"]:
    return np.concatenate([space.A - z * np.eye(len(space.A)), space.R.astype(complex)])

"""Quadratic forms on a box, bounded exactly: y'M y = |U y|^2 - |D y|^2 + y'E y, with E of the size of rounding.

`Square.of` takes the factors from the eigenvectors of M; `enclosed` finds E by comparing their products with M in bounded arithmetic, so
that nothing is believed about the eigenvectors. What is concave, -|D y|^2 plus a plane, lies below its tangent at any point; at its
largest point in the box, which a few sweeps over the coordinates find, the tangent loses nothing.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dynsys.verify.affine import TINY, Affine, U, lift

SWEEPS = 3
NOTHING = 1e-11  # of the largest eigenvalue: what counts as the rounding of zero


class Factors(eqx.Module):
    """D and U, (n, n)."""

    down: Float[Array, "n n"]
    up: Float[Array, "n n"]

    @classmethod
    def of(cls, M: np.ndarray, *, concave: bool = False) -> "Factors":
        """Of the symmetric part of M. concave: without U, for a form to which |U y|^2 is not added elsewhere; then E is what is left."""
        values, vectors = np.linalg.eigh(0.5 * (M + M.T))
        values = np.where(np.abs(values) <= NOTHING * np.max(np.abs(values)), np.minimum(values, 0.0), values)
        down, up = (np.sqrt(np.maximum(side, 0.0))[:, None] * vectors.T for side in (-values, values))
        return cls(jnp.asarray(down), jnp.zeros_like(jnp.asarray(up)) if concave else jnp.asarray(up))


class Square(NamedTuple):
    """The factors, K = D'D, and bounds of |E|, all (n, n)."""

    down: Array
    up: Array
    K: Array
    off: Array


def enclosed(M: Affine, factors: Factors) -> Square:
    """A form whose matrix is known within bounds."""
    n = len(factors.down)
    products = [product(lift(R.T), lift(R)) for R in (factors.down, factors.up)]
    E = M.plus(products[0]).minus(products[1])
    off = E.moved(lambda z: 0.5 * (z + z.T))  # y'E y sees the symmetric part
    size = (jnp.abs(off.c) + off.e) * (1 + 8 * U)
    K = factors.down.T @ factors.down
    # -|D y|^2 and its tangent are evaluated with K instead of D'D
    lost = 4 * (n + 4) * U * (jnp.abs(factors.down).T @ jnp.abs(factors.down)) + TINY
    return Square(factors.down, factors.up, K, size + 6 * lost)


def product(x: Affine, y: Affine) -> Affine:
    """x y of matrices known within bounds."""
    return x.contracted(lambda W, q: q @ W, y, x.shape[1])


class Upper(NamedTuple):
    """sup of the form plus an affine number over xi in [-1, 1]^N: the total; the plane above it, from its highest point, by coordinate."""

    total: Array
    at_best: Array
    slope: Array
    best: Array
    pad: Array
    widths: Array

    def on_faces(self) -> Array:
        """The bound with one coordinate at 1 (first row) or -1, (2, N)."""
        return jnp.stack([self._elsewhere(1.0), self._elsewhere(-1.0)])

    def _elsewhere(self, xi: float) -> Array:
        terms = jnp.abs(self.slope) - self.slope * self.best
        return self.at_best + (jnp.sum(terms) - terms) + self.slope * (xi - self.best) + self.pad


def upper(square: Square | None, mid: Array, rad: Array, form: Affine) -> Upper:
    """See Upper; y = mid + rad xi, (N,). The form is of the first n coordinates; its |U y|^2 is in the affine number already."""
    a = jnp.zeros_like(mid) if form.a is None else form.a
    share = form.e * rad / jnp.maximum(jnp.sum(rad), TINY)
    spread = jnp.sum(jnp.abs(a))
    if square is None:
        total = form.c + spread + form.e
        pad = 8 * (len(mid) + 4) * U * (jnp.abs(form.c) + spread + form.e) + TINY
        return Upper(total + pad, form.c + jnp.zeros(()), a, jnp.zeros_like(mid), form.e + pad, jnp.abs(a) + share)
    n = square.K.shape[0]
    m, r, b = mid[:n], rad[:n], a[:n]
    best = peak(square.K, m, r, b)
    y = m + r * best
    Ky = square.K @ y
    slope = jnp.concatenate([b - 2 * r * Ky, a[n:]])
    best = jnp.concatenate([best, jnp.sign(a[n:])])
    at_best = form.c - jnp.dot(y, Ky) + jnp.dot(a, best)
    terms = jnp.abs(slope) - slope * best
    far = jnp.abs(m) + r
    reach = jnp.dot(far, jnp.abs(square.K) @ far)
    size = jnp.abs(form.c) + 3 * reach + 2 * spread + form.e
    pad = form.e + jnp.dot(far, square.off @ far) * (1 + 8 * n * U) + 16 * (len(mid) + n + 8) * U * size + TINY
    bent = jnp.concatenate([jnp.abs(b - 2 * r * (square.K @ m)) + r * (jnp.abs(square.K) @ r), jnp.abs(a[n:])])
    return Upper(at_best + jnp.sum(terms) + pad, at_best, slope, best, pad, bent + share)


def opposite(square: Square | None, mid: Array, rad: Array, form: Affine) -> Array:
    """Upper bound of minus a form without U, plus an affine number."""
    if square is None:
        return upper(None, mid, rad, form).total
    n, a = square.K.shape[0], jnp.zeros_like(mid) if form.a is None else form.a
    m, r, far = mid[:n], rad[:n], jnp.abs(mid[:n]) + rad[:n]
    Km, size = square.K @ m, jnp.abs(square.K)
    total = form.c + jnp.dot(m, Km) + jnp.sum(jnp.abs(a[:n] + 2 * r * Km)) + jnp.sum(jnp.abs(a[n:])) + jnp.dot(r, size @ r) + form.e
    about = jnp.abs(form.c) + 4 * jnp.dot(far, size @ far) + jnp.sum(jnp.abs(a)) + form.e
    return total + jnp.dot(far, square.off @ far) * (1 + 8 * n * U) + 16 * (len(mid) + n + 8) * U * about + TINY


def peak(K: Array, mid: Array, rad: Array, a: Array) -> Array:
    """About where -(mid + rad xi)'K(mid + rad xi) + a'xi is largest over xi in [-1, 1]^n: sweeps over the coordinates, each by formula."""
    xi, n = jnp.zeros_like(mid), len(mid)
    curve = 2 * jnp.diag(K) * rad * rad
    for _ in range(SWEEPS if n > 1 else 1):
        for i in range(n):
            slope = a[i] - 2 * rad[i] * jnp.dot(K[i], mid + rad * xi)
            step = jnp.where(curve[i] > 0, slope / jnp.where(curve[i] > 0, curve[i], 1.0), jnp.sign(slope))
            xi = xi.at[i].set(jnp.clip(xi[i] + step, -1.0, 1.0))
    return xi

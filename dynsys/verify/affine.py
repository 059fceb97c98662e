"""Affine numbers: a function on a box, as a plane and an error that no rounding escapes.

    q(xi) = c + sum_i a[i] xi[i] + (something within +-e),    xi in [-1, 1]^n

c and e have the shape of the quantity, a has one more axis in front. A bare array is an exact constant; a number whose a is None is a
constant known within e.
All arithmetic is ordinary float64: its rounding is bounded afterwards and added to e, from the sizes of what was added and multiplied,
so that nothing needs a rounding mode. U is the unit roundoff; every count below is at least twice what a sum of that many terms can lose,
in any order and with or without fused products. TINY covers underflow, also where the machine flushes subnormals to zero.
NaN means that nothing is known: no comparison with it proves anything.

Sources: Stolfi & de Figueiredo, Self-Validated Numerical Methods (1997), ch. 3; Higham, Accuracy and Stability (2002), secs. 3.1 and 3.5.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from dynsys.verify.functions import Smooth

U = 2.0**-53
TINY = 1e-290


class Verdict(NamedTuple):
    """What is known of a comparison: where it surely holds, where it surely does not; and what was compared."""

    yes: Array
    no: Array
    left: Any = None
    right: Any = None


class Affine:
    """See the module. Operations take and give Affine numbers; the other side of one may be an exact array."""

    def __init__(self, c: Array, a: Array | None, e: Array):
        self.c, self.a, self.e = c, a, e

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the quantity."""
        return self.c.shape

    @property
    def spread(self) -> Array:
        """sum_i |a[i]|."""
        return jnp.zeros_like(self.c) if self.a is None else jnp.sum(jnp.abs(self.a), axis=0)

    @property
    def size(self) -> Array:
        """|c| + sum_i |a[i]|: what rounding is relative to."""
        return jnp.abs(self.c) + self.spread

    @property
    def radius(self) -> Array:
        """An upper bound of |q - c|."""
        return (self.spread + self.e) * (1 + 16 * U) + TINY

    def range(self) -> tuple[Array, Array]:
        """Lower and upper bounds."""
        rad = self.reach()
        return self.c - rad, self.c + rad

    def to(self, shape: tuple[int, ...]) -> "Affine":
        """The number repeated to a shape."""
        if self.shape == shape:
            return self
        return self.moved(lambda x: jnp.broadcast_to(x, shape))

    def moved(self, move: Callable[[Array], Array]) -> "Affine":
        """With its entries picked, placed or repeated by `move`, which does no arithmetic."""
        return Affine(move(self.c), None if self.a is None else jax.vmap(move)(self.a), move(self.e))

    def plus(self, other: Any) -> "Affine":
        """The sum."""
        if not isinstance(other, Affine):  # an exact constant: only c is rounded
            x = self.to(jnp.broadcast_shapes(self.shape, jnp.shape(other)))
            c = x.c + other
            return Affine(c, x.a, x.e * (1 + 4 * U) + (4 * U * jnp.abs(c) + TINY))
        x, y = _pair(self, other)
        c = x.c + y.c
        a = y.a if x.a is None else (x.a if y.a is None else x.a + y.a)
        return _padded(c, a, x.e + y.e, 4 * U, jnp.abs(c) + (0 if a is None else jnp.sum(jnp.abs(a), axis=0)))

    def negated(self) -> "Affine":
        """The number with its sign turned."""
        return Affine(-self.c, None if self.a is None else -self.a, self.e)

    def minus(self, other: Any) -> "Affine":
        """The difference."""
        return self.plus(other.negated() if isinstance(other, Affine) else -other)

    def times(self, other: Any) -> "Affine":
        """The product: squares xi_i^2 lie in [0, 1], which halves their share of the error; other second-order terms go into it."""
        if not isinstance(other, Affine):
            return self.scaled(other)
        x, y = _pair(self, other)
        if y.a is None:
            return x.scaled(y.c, y.e)
        if x.a is None:
            return y.scaled(x.c, x.e)
        Rx, Ry = x.spread, y.spread
        Mx, My = jnp.abs(x.c) + Rx, jnp.abs(y.c) + Ry
        n, squares = x.a.shape[0], x.a * y.a
        a = x.c[None] * y.a + y.c[None] * x.a
        c = x.c * y.c + 0.5 * jnp.sum(squares, axis=0)
        second = Rx * Ry - 0.5 * jnp.sum(jnp.abs(squares), axis=0)
        e = second + x.e * My + y.e * Mx + x.e * y.e
        return _padded(c, a, e, (16 + 4 * n) * U, Mx * My, TINY * (1 + Mx + My + x.e + y.e))

    def scaled(self, factor: Any, off: Any = None) -> "Affine":
        """The product with a constant, exact or known within `off`."""
        shape = jnp.broadcast_shapes(self.shape, jnp.shape(factor))
        x, k = self.to(shape), jnp.broadcast_to(factor, shape)
        a = None if x.a is None else k[None] * x.a
        e = jnp.abs(k) * ((1 + 16 * U) * x.e + 4 * U * x.size + TINY) + TINY
        if off is not None:
            e = e + off * (x.size + x.e + TINY) * (1 + 16 * U)
        return Affine(k * x.c, a, e * (1 + 8 * U))

    def flat(self) -> "Affine":
        """The number without its plane: a constant known within its radius."""
        return self if self.a is None else Affine(self.c, None, self.radius)

    def up_to(self, r: Array) -> "Affine":
        """The number times something in [0, r]."""
        half = 0.5 * r
        x = self.scaled(half)
        return Affine(x.c, x.a, (x.e + half * (self.size + self.e)) * (1 + 16 * U))

    def contracted(self, apply: Callable[[Array, Array], Array], weight: Any, terms: int) -> "Affine":
        """A sum of `terms` products with a constant: apply(weight, q), linear in both."""
        g = 4 * (terms + 4) * U
        inexact = isinstance(weight, Affine)
        W = weight.c if inexact else weight
        size = self.size
        e = apply(jnp.abs(W), self.e * (1 + g) + g * size + TINY)
        if inexact:
            e = e + apply(weight.e * (1 + g), size + self.e)
        c, a = apply(W, self.c), None if self.a is None else jax.vmap(lambda x: apply(W, x))(self.a)
        return Affine(c, a, e * (1 + g) + TINY * (1 + terms))

    def bent(self, slope: Array, low: Array, high: Array, lost: Array) -> "Affine":
        """slope * (q - c) + something in [low, high]; `lost` bounds the rounding of low and high. NaN where a bound is NaN."""
        c, half = 0.5 * (low + high), 0.5 * (high - low)
        a = None if self.a is None else slope[None] * self.a
        e = jnp.abs(slope) * self.e + half + lost
        return _padded(c, a, e, 8 * U, jnp.abs(low) + jnp.abs(high) + jnp.abs(slope) * self.spread, TINY * (1 + jnp.abs(slope)))

    def reach(self) -> Array:
        """A radius that also covers the rounding of c - radius and c + radius."""
        rad = self.radius
        return rad + 4 * U * (jnp.abs(self.c) + rad)

    def smooth(self, f: Smooth) -> "Affine":
        """f of the number: the tangent at c with the curvature, or where that is better the flattest line of a monotone f, or its limits.

        With z in c +- rad and f' >= s: f(c - rad) + s (z - c + rad) <= f(z) <= f(c + rad) + s (z - c - rad).
        """
        rad = self.reach()
        low, high = self.c - rad, self.c + rad
        slopes, bends, at = f.slope_at(self.c), f.bends(self.c, rad), f.enclosed(self.c)
        slope, half_square = 0.5 * (slopes[0] + slopes[1]), 0.5 * rad * rad
        off = (slopes[1] - slopes[0]) * rad
        lo, hi = at[0] + half_square * jnp.minimum(bends[0], 0.0) - off, at[1] + half_square * jnp.maximum(bends[1], 0.0) + off
        if f.wave:
            flat, lo2, hi2 = jnp.zeros_like(slope), jnp.full_like(slope, f.limits[0]), jnp.full_like(slope, f.limits[1])
        else:
            flat = f.least_slope(low, high)
            lo2, hi2 = f.enclosed(low)[0] + flat * rad, f.enclosed(high)[1] - flat * rad
        curved = hi - lo + 2 * jnp.abs(slope) * self.e < hi2 - lo2 + 2 * jnp.abs(flat) * self.e
        curved = curved | jnp.isnan(hi2 - lo2)
        slope, lo, hi = jnp.where(curved, slope, flat), jnp.where(curved, lo, lo2), jnp.where(curved, hi, hi2)
        lost = 16 * U * (jnp.abs(lo) + jnp.abs(hi) + jnp.abs(slope) * (rad + jnp.abs(self.c)))
        return self.bent(slope, lo, hi, jnp.where(f.defined(low, high), lost, jnp.nan))

    def rectified(self, leak: Any = 0.0) -> "Affine":
        """max(q, 0) - leak max(-q, 0), leak <= 1: itself, leak times it, or between the chord and its parallel through zero."""
        low, high = self.range()
        chord = jnp.clip((high - leak * low) / jnp.where(high > low, high - low, 1.0), leak, 1.0)
        slope = jnp.where(low >= 0, 1.0, jnp.where(high <= 0, leak, chord))
        crossing = (low < 0) & (high > 0)
        above = jnp.maximum((1 - slope) * high, (leak - slope) * low)
        above = jnp.where(crossing, above * (1 + 8 * U) + TINY, jnp.where((low >= 0) | (high <= 0), 0.0, jnp.nan))
        # slope * q = slope * (q - c) + slope * c
        at = slope * self.c
        return self.bent(slope, at, at + above, 8 * U * (jnp.abs(at) + above))

    def absolute(self) -> "Affine":
        """|q|."""
        return self.rectified(-1.0)

    def verdict(self, strict: bool) -> Verdict:
        """Of q > 0, or of q >= 0."""
        low, high = self.range()
        return Verdict(low > 0, high <= 0) if strict else Verdict(low >= 0, high < 0)

    def sign(self) -> "Affine":
        """-1, 0 or 1."""
        low, high = self.range()
        known = jnp.where(low > 0, 1.0, jnp.where(high < 0, -1.0, 0.0))
        return Affine(known, None, jnp.where(known == 0, 1.0, 0.0))

    def hull(self, other: "Affine") -> "Affine":
        """What contains both numbers."""
        x, y = _pair(self, other)
        apart = x.minus(y)
        c = 0.5 * (x.c + y.c)
        a = None if x.a is None and y.a is None else 0.5 * (_coefficients(x, y) + _coefficients(y, x))
        e = 0.5 * apart.size + jnp.maximum(x.e, y.e)
        return _padded(c, a, e, 16 * U, x.size + y.size)

    def chosen(self, which: Array, other: "Affine") -> "Affine":
        """Entry by entry this number where `which`, else the other."""
        x, y = _pair(self, other)
        a = None if x.a is None and y.a is None else jnp.where(which[None], _coefficients(x, y), _coefficients(y, x))
        return Affine(jnp.where(which, x.c, y.c), a, jnp.where(which, x.e, y.e))

    def part(self, low: float, high: float) -> "Affine":
        """The number times something in [low, high]."""
        return self.scaled(0.5 * (low + high), 0.5 * (high - low) * (1 + 8 * U))

    @staticmethod
    def joined(join: Callable[..., Array], parts: Sequence[Any]) -> "Affine":
        """Several numbers put together by `join`, which does no arithmetic."""
        lifted = [lift(x) for x in parts]
        n = next((x.a.shape[0] for x in lifted if x.a is not None), None)
        a = None
        if n is not None:
            a = jax.vmap(lambda *xs: join(*xs))(*(jnp.zeros((n, *x.shape)) if x.a is None else x.a for x in lifted))
        return Affine(join(*(x.c for x in lifted)), a, join(*(x.e for x in lifted)))


jax.tree_util.register_pytree_node(Affine, lambda x: ((x.c, x.a, x.e), None), lambda _, parts: Affine(*parts))


def lift(x: Any) -> Affine:
    """An exact array as a number."""
    if isinstance(x, Affine):
        return x
    x = jnp.asarray(x, jnp.float64)
    return Affine(x, None, jnp.zeros_like(x))


def between(low: Array, high: Array) -> Affine:
    """An unknown constant between two bounds."""
    c = 0.5 * (low + high)
    e = 0.5 * (high - low)
    return Affine(c, None, e * (1 + 8 * U) + 8 * U * (jnp.abs(low) + jnp.abs(high)) + TINY)


def variables(mid: Array, rad: Array) -> Affine:
    """The box mid + rad xi, (n,), exactly: rad >= 0, mid and rad as they are."""
    return Affine(mid, jnp.diag(rad), jnp.zeros_like(mid))


def _pair(x: Any, y: Any) -> tuple[Affine, Affine]:
    x, y = lift(x), lift(y)
    shape = jnp.broadcast_shapes(x.shape, y.shape)
    return x.to(shape), y.to(shape)


def _coefficients(x: Affine, like: Affine) -> Array:
    if x.a is not None:
        return x.a
    return jnp.zeros_like(like.a)  # pyright: ignore[reportArgumentType]


def _padded(c: Array, a: Array | None, e: Array, relative: float, size: Array, tiny: Any = TINY) -> Affine:
    return Affine(c, a, e * (1 + 32 * U) + relative * size + tiny)

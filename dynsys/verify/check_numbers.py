"""Enclosures of the checker: a polynomial of degree 2 on a box and an error, for many boxes and all entries of a vector at once.

    q(xi) = c + sum_i a[i] xi[i] + sum_(i<=j) Q[i, j] xi[i] xi[j] + (something within +-e),     xi in [-1, 1]^N

`p` (B, k, M) holds c, a and the upper triangle of Q for B boxes and k entries; M = 1 + N + N(N+1)/2, or 1 for what does not depend on xi.
`e` (B, k). A B of 1 stands for any number of boxes.

Rounding: U = 2^-53 bounds the relative error of one operation, and sums of products in any order lose at most (terms + 2) U of the sum of
the sizes. Each rule adds twice that, relative to the sum of |p|, to e. GROW covers that e itself is computed in floats; TINY covers
underflow. An exact zero stays one (e = 0), which the proof near the goal relies on. NaN: nothing is known; no comparison with it is true.
sin, tanh ... of numpy are taken to be within LIBM (relative) of the truth, and exact at 0 (log and sqrt at 1), as their slopes there are.

Sources: Makino & Berz, Int. J. Pure Appl. Math. 4 (2003) (Taylor models); Higham, Accuracy and Stability (2002), sec. 3.1 (rounding).
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

U = 2.0**-53
TINY = 1e-290
GROW = 1 + 2.0**-40
LIBM = 2.0**-47


class Model:
    """See the module."""

    def __init__(self, p: np.ndarray, e: np.ndarray):
        self.p, self.e = p, e

    @staticmethod
    def constant(value: np.ndarray) -> "Model":
        """An exact vector (k,), for any number of boxes."""
        value = np.asarray(value, float).reshape(1, -1)
        return Model(value[..., None], np.zeros_like(value))

    @staticmethod
    def between(low: np.ndarray, high: np.ndarray) -> "Model":
        """Something unknown between bounds (B, k)."""
        mid, half = 0.5 * (low + high), 0.5 * (high - low)
        return Model(mid[..., None], (half + 4 * U * (np.abs(low) + np.abs(high))) * GROW)

    @staticmethod
    def box(mid: np.ndarray, rad: np.ndarray) -> "Model":
        """The coordinates mid + rad xi of boxes, (B, N) each, exactly."""
        count, n = mid.shape
        p = np.zeros((count, n, width(n)))
        p[:, :, 0] = mid
        p[:, np.arange(n), 1 + np.arange(n)] = rad
        return Model(p, np.zeros_like(mid))

    @property
    def size(self) -> np.ndarray:
        """The sum of |p|, (B, k)."""
        return np.sum(np.abs(self.p), axis=-1)

    @property
    def zero(self) -> np.ndarray:
        """Where it is exactly zero, (B, k)."""
        return (self.size == 0) & (self.e == 0)

    @property
    def compact(self) -> "Model":
        """The same without coefficients, if all of them are zero: its bounds then lose nothing."""
        return Model(self.p[..., :1], self.e) if not self.p[..., 1:].any() else self

    def add(self, other: "Model") -> "Model":
        """The sum."""
        x, y = paired(self, other)
        p = x + y
        return Model(p, (self.e + other.e + 2 * U * np.sum(np.abs(p), axis=-1)) * GROW)

    def neg(self) -> "Model":
        """The number with its sign turned."""
        return Model(-self.p, self.e)

    def sub(self, other: "Model") -> "Model":
        """The difference."""
        return self.add(other.neg())

    def mul(self, other: "Model") -> "Model":
        """The product; its terms of degree 3 and 4 go into the error."""
        x, y = (other, self) if self.p.shape[-1] == 1 else (self, other)
        both = x.size * y.size
        e = x.e * y.size + y.e * x.size + x.e * y.e + 8 * U * both + TINY * ((x.size + x.e > 0) & (y.size + y.e > 0))
        if y.p.shape[-1] == 1:
            return Model(x.p * y.p, e * GROW)
        px, py = np.broadcast_arrays(x.p, y.p)
        n, (i, j) = variables(px.shape[-1]), triangle(px.shape[-1])
        c, d, a, b = px[..., :1], py[..., :1], px[..., 1 : n + 1], py[..., 1 : n + 1]
        P, Q = px[..., n + 1 :], py[..., n + 1 :]
        squares = a[..., i] * b[..., j] + np.where(i == j, 0.0, a[..., j] * b[..., i])
        p = np.concatenate([c * d, c * b + d * a, c * Q + d * P + squares], axis=-1)
        A, B, S, R = (np.sum(np.abs(z), axis=-1) for z in (a, b, P, Q))
        return Model(p, (e + A * R + S * B + S * R) * GROW)

    def matrix(self, W: np.ndarray) -> "Model":
        """W times the vector, W (m, k) exact."""
        loss = 2 * (W.shape[1] + 2) * U
        e = self.e + loss * self.size + TINY * (self.size + self.e > 0)
        return Model(np.matmul(W, self.p), np.matmul(np.abs(W), e[..., None])[..., 0] * GROW)

    def sums(self, terms: int) -> "Model":
        """The sums of each `terms` entries in a row."""
        p = self.p.reshape(self.p.shape[0], -1, terms, self.p.shape[-1])
        e = (self.e + 2 * (terms + 2) * U * self.size).reshape(self.e.shape[0], -1, terms)
        return Model(np.sum(p, axis=2), np.sum(e, axis=2) * GROW)

    def pick(self, index: np.ndarray) -> "Model":
        """The entries of these numbers, in this order."""
        return Model(self.p[:, index], self.e[:, index])

    def join(self, others: Sequence["Model"]) -> "Model":
        """The entries of all, one vector after the other."""
        parts = [self, *others]
        count, most = (max(x.p.shape[axis] for x in parts) for axis in (0, 2))
        p = [np.broadcast_to(padded(x.p, most), (count, x.p.shape[1], most)) for x in parts]
        return Model(np.concatenate(p, axis=1), np.concatenate([np.broadcast_to(x.e, (count, x.e.shape[1])) for x in parts], axis=1))

    def where(self, mask: np.ndarray, other: "Model") -> "Model":
        """This number where the mask (B, k) is true, else the other."""
        x, y = paired(self, other)
        return Model(np.where(mask[..., None], x, y), np.where(mask, self.e, other.e))

    def hull(self, other: "Model") -> "Model":
        """What contains both numbers."""
        x, y = paired(self, other)
        half = 0.5 * np.sum(np.abs(x - y), axis=-1)
        size = np.sum(np.abs(x) + np.abs(y), axis=-1)
        return Model(0.5 * (x + y), (half + np.maximum(self.e, other.e) + 4 * U * size) * GROW)

    def range(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds, (B, k) each: exact for the terms a xi + q xi^2 of each coordinate; products of two are at their worst."""
        if self.p.shape[-1] == 1:
            slack = 4 * U * (self.size + self.e) * (self.e > 0)
            return self.p[..., 0] - self.e - slack, self.p[..., 0] + self.e + slack
        n, (i, j) = variables(self.p.shape[-1]), triangle(self.p.shape[-1])
        a, Q = np.abs(self.p[..., 1 : n + 1]), self.p[..., n + 1 :]
        q = Q[..., i == j]
        cross = np.sum(np.abs(Q[..., i != j]), axis=-1)
        slack = cross + self.e + 2 * (self.p.shape[-1] + 8) * U * (self.size + self.e)
        return self.p[..., 0] + np.sum(-best(a, -q), axis=-1) - slack, self.p[..., 0] + np.sum(best(a, q), axis=-1) + slack

    def lead(self) -> tuple[np.ndarray, np.ndarray]:
        """Bounds of what decides the sign."""
        return self.range()

    def relu(self) -> "Model":
        """max(q, 0): itself, zero, or between a line through zero and its parallel."""
        low, high = self.range()
        crossing = (low < 0) & (high > 0)
        line = np.where(crossing, high / np.where(crossing, high - low, 1.0), 0.0)
        above = np.maximum((1 - line) * high, -line * low) * GROW + TINY
        p = line[..., None] * self.p
        p[..., 0] += 0.5 * above
        bent = Model(p, (line * self.e + 0.5 * above + 4 * U * (line * self.size + above) + TINY) * GROW)
        nothing = Model(np.zeros_like(p), np.zeros_like(bent.e))
        known = self.where(low >= 0, nothing.where(high <= 0, bent))
        return Model(known.p, np.where(np.isfinite(high - low), known.e, np.nan))

    def smooth(self, f: "Smooth") -> "Model":
        """f by Taylor's formula at c with the third derivative, or as a constant between its least and largest value, entry by entry."""
        low, high = self.range()
        c = self.p[..., 0]
        reach = np.maximum(high - c, c - low) * GROW
        value, slope, bend = f.value(c), f.slope(c), 0.5 * f.bend(c)
        shift = Model(np.concatenate([np.zeros_like(c)[..., None], self.p[..., 1:]], axis=-1), self.e)
        square = shift.mul(shift)
        p = slope[..., None] * shift.p + bend[..., None] * square.p
        p[..., 0] += value
        size = np.abs(value) + np.abs(slope) * shift.size + np.abs(bend) * square.size
        e = np.abs(slope) * shift.e + np.abs(bend) * square.e + f.third(low, high) * reach**3 / 6 + 8 * U * size
        e = e + 2 * LIBM * (np.abs(value) + f.steep(slope) * reach + f.sharp(2 * bend) * reach**2)
        least, most = f.limits(low, high)
        half = 0.5 * (most - least) + 2 * LIBM * (np.abs(most) + np.abs(least))
        flat = Model(np.zeros_like(p), half * GROW)
        flat.p[..., 0] = 0.5 * (most + least)
        e = np.where((c == f.sure) & (low == c) & (high == c), 0.0, e * GROW + TINY * (reach > 0))
        made = flat.where(flat.e < e, Model(p, e))
        return Model(made.p, np.where(f.defined(low, high), made.e, np.nan))


def width(n: int) -> int:
    """M for n variables."""
    return 1 + n + n * (n + 1) // 2


@functools.cache
def variables(m: int) -> int:
    """n for M = m."""
    return next(n for n in range(m) if width(n) == m)


@functools.cache
def triangle(m: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns of the upper triangle, in the order of p."""
    return np.triu_indices(variables(m))


def best(a: np.ndarray, q: np.ndarray) -> np.ndarray:
    """max over xi in [-1, 1] of a xi + q xi^2, for a >= 0."""
    inside = (q < 0) & (a < -2 * q)
    return np.where(inside, a * a / np.where(inside, -4 * q, 1.0), a + q)


def padded(p: np.ndarray, m: int) -> np.ndarray:
    """p with zeros for the coefficients that it lacks."""
    return p if p.shape[-1] == m else np.concatenate([p, np.zeros((*p.shape[:-1], m - p.shape[-1]))], axis=-1)


def paired(x: Model, y: Model) -> tuple[np.ndarray, np.ndarray]:
    """The coefficients of two numbers, as many for both."""
    most = max(x.p.shape[-1], y.p.shape[-1])
    return padded(x.p, most), padded(y.p, most)


Array = np.ndarray


class Smooth(NamedTuple):
    """A name, f, its first two derivatives, and a bound of the size of the third over [low, high].

    shape: "rising", "falling" or "wave" (between -1 and 1); unit: the derivatives are computed from numbers of about this size; domain:
    where f is defined and smooth; sure: where f and f' have no error.
    """

    name: str
    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    bend: Callable[[Array], Array]
    third: Callable[[Array, Array], Array]
    shape: str = "rising"
    unit: float = 0.0
    domain: str = "all"
    sure: float = 0.0

    def steep(self, slope: Array) -> Array:
        """The scale of errors of f'."""
        return 4 * (np.abs(slope) + self.unit)

    def sharp(self, bend: Array) -> Array:
        """The scale of errors of f''."""
        return 8 * (np.abs(bend) + self.unit)

    def limits(self, low: Array, high: Array) -> tuple[Array, Array]:
        """Least and most over [low, high], up to the error of f."""
        if self.shape == "wave":
            return np.full_like(low, -1.0), np.full_like(high, 1.0)
        first, last = self.value(low), self.value(high)
        return (first, last) if self.shape == "rising" else (last, first)

    def defined(self, low: Array, high: Array) -> Array:
        """Where f is defined and smooth on all of [low, high]."""
        known = {"all": low <= high, "positive": low > 0, "above -1": low > -1, "not zero": (low > 0) | (high < 0)}
        return known[self.domain] & np.isfinite(high - low)

    def slopes(self, whole: tuple[Array, Array], low: Array, high: Array) -> Model:
        """f' over [low, high], which lies in `whole`, as something between bounds."""
        c, reach = 0.5 * (low + high), 0.5 * (high - low) + 4 * U * (np.abs(low) + np.abs(high))
        slope, bend = self.slope(c), np.abs(self.bend(c)) * GROW + self.third(*whole) * reach
        off = bend * reach + 2 * LIBM * (self.steep(slope) + self.sharp(bend) * reach)
        off = np.where((low == self.sure) & (high == self.sure), 0.0, off)
        return Model.between(slope - off, slope + np.where(self.defined(*whole), off, np.nan))

    def bends(self, low: Array, high: Array) -> Model:
        """f'' over [low, high]."""
        c, reach = 0.5 * (low + high), 0.5 * (high - low) + 4 * U * (np.abs(low) + np.abs(high))
        bend = self.bend(c)
        off = self.third(low, high) * reach * GROW + 2 * LIBM * self.sharp(bend)
        return Model.between(bend - off, bend + np.where(self.defined(low, high), off, np.nan))


def _all(bound: float) -> Callable[[Array, Array], Array]:
    return lambda low, high: np.full_like(low, bound)


def _nearest(low: Array, high: Array) -> Array:
    return np.maximum(np.maximum(low, -high), 0.0)


def _tanh_slope(z: Array) -> Array:
    t = np.tanh(z)
    return (1 - t) * (1 + t)


def _tanh_third(low: Array, high: Array) -> Array:
    """|tanh'''| = 2 s |1 - 3 tanh^2| <= 4 s, and <= 2 everywhere, with s = tanh' at the point nearest to zero."""
    return np.minimum(2.0, 4.0 * _tanh_slope(_nearest(low, high)) + 1e-12)


def _logistic(z: Array) -> Array:
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, small) / (1 + small)


def _logistic_slope(z: Array) -> Array:
    return 0.25 * _tanh_slope(0.5 * z)


SMOOTH = {
    "sin": Smooth("sin", np.sin, np.cos, lambda z: -np.sin(z), _all(1.0), "wave", 1.0),
    "cos": Smooth("cos", np.cos, lambda z: -np.sin(z), lambda z: -np.cos(z), _all(1.0), "wave", 1.0),
    "tanh": Smooth("tanh", np.tanh, _tanh_slope, lambda z: -2 * np.tanh(z) * _tanh_slope(z), _tanh_third, unit=1.0),
    "logistic": Smooth("logistic", _logistic, _logistic_slope, lambda z: -np.tanh(0.5 * z) * _logistic_slope(z), _all(0.125), unit=1.0),
    "atan": Smooth("atan", np.arctan, lambda z: 1 / (1 + z * z), lambda z: -2 * z / (1 + z * z) ** 2, _all(2.0), unit=1.0),
    "exp": Smooth("exp", np.exp, np.exp, np.exp, lambda low, high: np.exp(high) * (1 + 1e-9)),
    "log": Smooth("log", np.log, lambda z: 1 / z, lambda z: -1 / z**2, lambda low, high: (2 + 1e-9) / low**3, domain="positive", sure=1.0),
    "sqrt": Smooth(
        "sqrt",
        np.sqrt,
        lambda z: 0.5 / np.sqrt(z),
        lambda z: -0.25 / z**1.5,
        lambda low, high: (0.375 + 1e-9) / low**2.5,
        domain="positive",
        sure=1.0,
    ),
    "reciprocal": Smooth(
        "reciprocal",
        lambda z: 1 / z,
        lambda z: -1 / z**2,
        lambda z: 2 / z**3,
        lambda low, high: (6 + 1e-9) / _nearest(low, high) ** 4,
        "falling",
        domain="not zero",
        sure=1.0,
    ),
}

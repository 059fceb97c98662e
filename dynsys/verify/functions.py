"""Smooth functions of one number, with bounds of their slope and of their curvature over an interval.

What a library's sin, tanh, exp ... returns is taken to be within LIBM (relative) of the truth: 32 units in the last place, where the
worst that was measured is 5. That is an assumption, and a proof says so.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

LIBM = 2.0**-47
FLOOR = 1e-290
Range = tuple[Array, Array]


class Smooth(NamedTuple):
    """f, f' and f''; how to bound the last two over an interval; the least and most f; where it is defined; what f and f' are at a point.

    third: a bound of |f'''|, if there is one; else f' and f'' are monotone wherever f is defined. steep, sharp: bounds of |f'| and |f''|.
    falling: whether f' is largest at 0 and falls to both sides; if there is a `third` and it is not, f is a wave.
    """

    name: str
    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    bend: Callable[[Array], Array]
    third: float | None = None
    steep: float = math.inf
    sharp: float = math.inf
    falling: bool = False
    limits: tuple[float, float] = (-math.inf, math.inf)
    defined: Callable[[Array, Array], Array] = lambda low, high: low <= high
    at: tuple[float, float, float | None] | None = None  # (z, f(z), f'(z)), exact; None: f'(z) is no float64 number

    @property
    def wave(self) -> bool:
        """Whether f is neither monotone nor of monotone slope."""
        return self.third is not None and not self.falling

    def enclosed(self, z: Array) -> Range:
        """f(z)."""
        return self._apart(self.value(z), 0.0)

    def slope_at(self, z: Array) -> Range:
        """f'(z)."""
        return self._apart(self.slope(z), 0.0 if self.third is None else self.steep)

    def least_slope(self, low: Array, high: Array) -> Array:
        """A lower bound of f' between low and high, for a function that is no wave: f' is smallest at an end."""
        return jnp.minimum(self.slope_at(low)[0], self.slope_at(high)[0])

    def slopes(self, c: Array, rad: Array) -> Range:
        """Bounds of f' over c +- rad."""
        if self.third is None:
            ends = self.slope_at(c - rad), self.slope_at(c + rad)
            return jnp.minimum(ends[0][0], ends[1][0]), jnp.maximum(ends[0][1], ends[1][1])
        low, high = self.slope_at(c)
        reach = self.sharp * rad * (1 + 2.0**-50)
        return jnp.maximum(low - reach, 0.0 if self.falling else -self.steep), jnp.minimum(high + reach, self.steep)

    def bends(self, c: Array, rad: Array) -> Range:
        """Bounds of f'' over c +- rad."""
        if self.third is None:
            ends = self._apart(self.bend(c - rad), 0.0), self._apart(self.bend(c + rad), 0.0)
            return jnp.minimum(ends[0][0], ends[1][0]), jnp.maximum(ends[0][1], ends[1][1])
        low, high = self._apart(self.bend(c), self.sharp)
        reach = self.third * rad * (1 + 2.0**-50)
        return jnp.maximum(low - reach, -self.sharp), jnp.minimum(high + reach, self.sharp)

    def _apart(self, f: Array, scale: float) -> Range:
        pad = 4 * LIBM * (jnp.abs(f) + scale) + FLOOR
        return f - pad, f + pad


def _positive(low: Array, high: Array) -> Array:
    return low > 0


def _one_sided(low: Array, high: Array) -> Array:
    return (low > 0) | (high < 0)


def _tanh_slope(z: Array) -> Array:
    t = jnp.tanh(z)
    return (1 - t) * (1 + t)


def _tanh_bend(z: Array) -> Array:
    t = jnp.tanh(z)
    return -2 * t * ((1 - t) * (1 + t))


def _logistic_slope(z: Array) -> Array:
    s = jax.nn.sigmoid(z)
    return s * (1 - s)


def _logistic_bend(z: Array) -> Array:
    s = jax.nn.sigmoid(z)
    return s * (1 - s) * (1 - 2 * s)


def _atan_bend(z: Array) -> Array:
    w = 1 / (1 + z * z)
    return -2 * z * w * w


def _erf_slope(z: Array) -> Array:
    return 2 / math.sqrt(math.pi) * jnp.exp(-z * z)


# The bounds are rounded up. |tanh''| is largest where tanh = 1/sqrt 3, |logistic''| where logistic = (3 +- sqrt 3)/6, |atan''| at 1/sqrt 3,
# |erf''| at 1/sqrt 2; the third derivatives are largest at 0.
SIN = Smooth("sin", jnp.sin, jnp.cos, lambda z: -jnp.sin(z), 1.0, 1.0, 1.0, limits=(-1.0, 1.0), at=(0.0, 0.0, 1.0))
COS = Smooth("cos", jnp.cos, lambda z: -jnp.sin(z), lambda z: -jnp.cos(z), 1.0, 1.0, 1.0, limits=(-1.0, 1.0), at=(0.0, 1.0, 0.0))
TANH = Smooth("tanh", jnp.tanh, _tanh_slope, _tanh_bend, 2.0, 1.0, 0.7699, True, (-1.0, 1.0), at=(0.0, 0.0, 1.0))
LOGISTIC = Smooth("logistic", jax.nn.sigmoid, _logistic_slope, _logistic_bend, 0.125, 0.25, 0.0963, True, (0.0, 1.0), at=(0.0, 0.5, 0.25))
ATAN = Smooth("atan", jnp.arctan, lambda z: 1 / (1 + z * z), _atan_bend, 2.0, 1.0, 0.6496, True, (-1.5708, 1.5708), at=(0.0, 0.0, 1.0))
ERF = Smooth(
    "erf",
    jax.scipy.special.erf,
    _erf_slope,
    lambda z: -2 * z * _erf_slope(z),
    2.2568,
    1.1284,
    0.9679,
    True,
    (-1.0, 1.0),
    at=(0.0, 0.0, None),
)
EXP = Smooth("exp", jnp.exp, jnp.exp, jnp.exp, at=(0.0, 1.0, 1.0))
EXPM1 = Smooth("expm1", jnp.expm1, jnp.exp, jnp.exp, at=(0.0, 0.0, 1.0))
LOG = Smooth("log", jnp.log, lambda z: 1 / z, lambda z: -1 / (z * z), defined=_positive, at=(1.0, 0.0, 1.0))
LOG1P = Smooth(
    "log1p",
    jnp.log1p,
    lambda z: 1 / (1 + z),
    lambda z: -1 / ((1 + z) * (1 + z)),
    defined=lambda low, high: low > -1,
    at=(0.0, 0.0, 1.0),
)
RECIPROCAL = Smooth(
    "reciprocal", lambda z: 1 / z, lambda z: -1 / (z * z), lambda z: 2 / (z * z * z), defined=_one_sided, at=(1.0, 1.0, -1.0)
)
SQRT = Smooth("sqrt", jnp.sqrt, lambda z: 0.5 / jnp.sqrt(z), lambda z: -0.25 / (z * jnp.sqrt(z)), defined=_positive, at=(1.0, 1.0, 0.5))
RSQRT = Smooth(
    "rsqrt",
    lambda z: 1 / jnp.sqrt(z),
    lambda z: -0.5 / (z * jnp.sqrt(z)),
    lambda z: 0.75 / (z * z * jnp.sqrt(z)),
    defined=_positive,
    at=(1.0, 1.0, -0.5),
)


def power(p: float) -> Smooth:
    """z^p for z > 0."""
    return Smooth("pow", lambda z: z**p, lambda z: p * z ** (p - 1), lambda z: p * (p - 1) * z ** (p - 2), defined=_positive)


FUNCTIONS = {f.name: f for f in (SIN, COS, TANH, LOGISTIC, ATAN, ERF, EXP, EXPM1, LOG, LOG1P, RECIPROCAL, SQRT, RSQRT)}

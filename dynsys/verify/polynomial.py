"""Polynomials as vectors of coefficients over a fixed list of monomials, with the linear maps that sums of squares need.

A space holds the monomials in n variables of at most a degree. Coefficients may be floats, fractions, or expressions of a solver.
"""

import functools
import itertools
from fractions import Fraction
from typing import Any

import numpy as np

from dynsys.dynamics import AbstractFlow
from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys.verify.exact import fractions

Power = tuple[int, ...]


def powers(n: int, low: int, high: int) -> list[Power]:
    """Exponents of all monomials in n variables of degree low to high, by degree."""
    return [power for power in sorted(itertools.product(range(high + 1), repeat=n), key=lambda p: (sum(p), p)) if low <= sum(power) <= high]


class Space:
    """All polynomials in n variables of at most `degree`."""

    def __init__(self, n: int, degree: int):
        self.n, self.degree = n, degree
        self.powers = powers(n, 0, degree)
        self.index = {power: i for i, power in enumerate(self.powers)}
        self.size = len(self.powers)

    def times(self, factor: np.ndarray, most: int | None = None) -> np.ndarray:
        """The matrix (size, size) of multiplication by a polynomial; columns whose product is of too high a degree are zero."""
        made = np.zeros((self.size, self.size), factor.dtype)
        if made.dtype == object:
            made.fill(Fraction(0))
        terms = [(self.powers[i], factor[i]) for i in range(self.size) if factor[i] != 0]
        top = max((sum(power) for power, _ in terms), default=0)
        for j, power in enumerate(self.powers):
            if sum(power) + top <= self.degree:
                for other, value in terms:
                    made[self.index[tuple(a + b for a, b in zip(power, other, strict=True))], j] += value
        return made

    def gram(self, basis: list[Power]) -> np.ndarray:
        """The matrix (size, K * K) that turns the flattened G (K, K) into the coefficients of m' G m."""
        K = len(basis)
        made = np.zeros((self.size, K * K))
        for i, j in itertools.product(range(K), repeat=2):
            made[self.index[tuple(a + b for a, b in zip(basis[i], basis[j], strict=True))], i * K + j] = 1.0
        return made

    def derivative(self, axis: int) -> np.ndarray:
        """The matrix (size, size) of the derivative by one variable."""
        made = np.zeros((self.size, self.size))
        for j, power in enumerate(self.powers):
            if power[axis]:
                lower = tuple(p - (i == axis) for i, p in enumerate(power))
                made[self.index[lower], j] = power[axis]
        return made

    def values(self, x: np.ndarray) -> np.ndarray:
        """The monomials at points (B, n), as (B, size)."""
        return np.prod(np.asarray(x)[:, None, :] ** np.array(self.powers)[None], axis=2)

    def along(self, field: list[np.ndarray]) -> np.ndarray:
        """The matrix (size, size) of V -> grad V . field."""
        slopes = (self.derivative(axis) for axis in range(self.n))
        parts = [self.times(f) @ (fractions(slope) if f.dtype == object else slope) for f, slope in zip(field, slopes, strict=True)]
        return functools.reduce(np.add, parts)

    def lift(self, terms: dict[Power, Any], dtype: Any = float) -> np.ndarray:
        """Coefficients (size,) of a sum of terms."""
        made = np.zeros(self.size, dtype)
        if dtype is object:
            made.fill(Fraction(0))
        for power, value in terms.items():
            made[self.index[power]] = value
        return made


def polynomial_field(flow: AbstractFlow, goal: Any, degree: int, inputs: Any = None) -> list[dict[Power, float]]:
    """The right-hand side of a polynomial flow in d = x - goal, one {exponents: coefficient} a state, by interpolation.

    Coefficients below 1e-10 of the largest are rounding and left out; those of the goal's own velocity must be. Raises InvalidValue for a
    field that is no polynomial of at most this degree (compared at other points), or a goal that is no equilibrium.
    """
    goal = np.asarray(goal, float)
    space = Space(len(goal), degree)
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (4 * space.size + 20, len(goal)))
    with x64():
        f = np.array([np.asarray(flow.field(0.0, goal + d, inputs), float) for d in x])
    half = 3 * space.size
    c = np.linalg.lstsq(space.values(x[:half]), f[:half], rcond=None)[0]
    size = max(float(np.abs(f).max()), 1e-300)
    miss = float(np.abs(space.values(x) @ c - f).max()) / size
    if not miss < 1e-9:
        raise InvalidValue(
            f"polynomial_field: the field is no polynomial of degree {degree} at most: it differs by {miss:.2g} of its size. Raise the "
            "degree; a field with sin, exp or limits needs branch and bound (certify)."
        )
    c = np.where(np.abs(c) < 1e-10 * size, 0.0, _rounded(c))
    if np.any(c[0] != 0):
        raise InvalidValue(f"polynomial_field: the goal is no equilibrium, the field there is {c[0].tolist()}.")
    return [{power: float(v) for power, v in zip(space.powers, column, strict=True) if v != 0} for column in c.T]


def _rounded(c: np.ndarray) -> np.ndarray:
    """The nearest numbers of 12 digits where that changes no more than interpolation may have: 0.9999999999999 is meant to be 1."""
    short = np.array([float(f"{v:.11e}") for v in c.ravel()]).reshape(c.shape)
    return short

"""Dictionaries: the nonlinear functions of a window that a Koopman model adds to 1 and the window itself.

    monomials    all products of 2 to P of the variables
    hermite      products of Hermite polynomials He_p, of total degree 2 to P: orthogonal for Gaussian data
    radial       functions of the distance r to C centres: r^2 log r, exp(-(r/w)^2), or 1/sqrt(1 + (r/w)^2)
    fourier      sqrt(2/C) cos(W v + phase) with random W: a Gaussian kernel of width w in the limit of many
    waves        cos and sin of k v for every variable, k = 1..P: for angles
    product      every product of one function of a dictionary with one of another
    joined       the functions of several dictionaries
    custom       functions of the user

The variables v are standardised by the model that holds the dictionary, so widths are in standard deviations.
Sources: Williams, Kevrekidis, Rowley, J. Nonlinear Sci. 25, 1307 (2015), sec. 3; Rahimi & Recht, NIPS 2007 (random Fourier features).
"""

import abc
import math
import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float

from dynsys.errors import InvalidValue
from dynsys.models.autoregressive import monomials, n_monomials, recipe
from dynsys.models.base import check_sizes

Rows = Float[Any, "... V"]
RADIAL = ("thin-plate", "gaussian", "inverse-multiquadric")
_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


class AbstractDictionary(eqx.Module):
    """F functions of V variables; array-agnostic, on the last axis: (..., V) -> (..., F)."""

    @abc.abstractmethod
    def __call__(self, v: Rows) -> Any:
        """The functions' values, (..., V) -> (..., F)."""

    @abc.abstractmethod
    def terms(self, variables: tuple[str, ...]) -> tuple[str, ...]:
        """The functions in words, for messages and tables."""

    def columns(self, v: Float[np.ndarray, "V R"]) -> Float[np.ndarray, "F R"]:
        """The values in NumPy with one row a function, (V, R) -> (F, R): the layout in which long rows are multiplied fast."""
        return np.asarray(self(v.T)).T

    @classmethod
    @abc.abstractmethod
    def learn(cls, v: Float[np.ndarray, "R V"], *, rng: np.random.Generator) -> Any:
        """The dictionary for standardised data v (R, V); options are further keywords."""


class Monomials(AbstractDictionary):
    """Products of 2 to `degree` variables."""

    degree: int = eqx.field(static=True)

    def __check_init__(self):
        check_sizes("Monomials", degree=self.degree)

    @classmethod
    def learn(cls, v: Float[np.ndarray, "R V"], *, degree: int = 3, rng: np.random.Generator) -> "Monomials":
        """degree: the highest."""
        return cls(degree=degree)

    def __call__(self, v: Rows) -> Any:
        """(..., V) -> (..., F), lower degrees first."""
        return monomials(v, self.degree)[..., v.shape[-1] :]

    def columns(self, v: Float[np.ndarray, "V R"]) -> Float[np.ndarray, "F R"]:
        """(V, R) -> (F, R), each degree from the one below."""
        made, level, a = np.empty((n_terms(len(v), self.degree), v.shape[1])), v, 0
        for parents, variables in recipe(len(v), self.degree):
            a, level = a + len(parents), np.multiply(level[parents], v[variables], out=made[a : a + len(parents)])
        return made

    def terms(self, variables: tuple[str, ...]) -> tuple[str, ...]:
        """Such as 'x²·y'."""
        return tuple(_product(powers, variables) for powers in exponents(len(variables), self.degree))


class Hermite(AbstractDictionary):
    """Products of probabilists' Hermite polynomials of total degree 2 to `degree`."""

    degree: int = eqx.field(static=True)

    def __check_init__(self):
        check_sizes("Hermite", degree=self.degree)

    @classmethod
    def learn(cls, v: Float[np.ndarray, "R V"], *, degree: int = 3, rng: np.random.Generator) -> "Hermite":
        """degree: the highest total degree."""
        return cls(degree=degree)

    def __call__(self, v: Rows) -> Any:
        """(..., V) -> (..., F); He[p+1] = v He[p] - p He[p-1]."""
        xp = array_namespace(v)
        levels = [xp.ones_like(v), v]
        for p in range(1, self.degree):
            levels.append(v * levels[p] - p * levels[p - 1])
        columns = [math_product([levels[p][..., i] for i, p in enumerate(powers) if p]) for powers in exponents(v.shape[-1], self.degree)]
        return xp.stack(columns, axis=-1) if columns else v[..., :0]

    def terms(self, variables: tuple[str, ...]) -> tuple[str, ...]:
        """Such as 'He₂(x)·y', written by degrees."""
        named = []
        for powers in exponents(len(variables), self.degree):
            named.append("·".join(name if p == 1 else f"He{p}({name})" for name, p in zip(variables, powers, strict=True) if p))
        return tuple(named)


class RadialBasis(AbstractDictionary):
    """Functions of the distance to `centres` (C, V); `width` in standard deviations, which 'thin-plate' does without."""

    centres: Float[Any, "C V"]
    width: float = eqx.field(static=True)
    shape: str = eqx.field(static=True)

    def __check_init__(self):
        if self.shape not in RADIAL or not 0 < self.width < math.inf:
            raise InvalidValue(
                f"RadialBasis: shape must be one of {', '.join(RADIAL)} and width positive, got {self.shape!r}, {self.width}."
            )

    @classmethod
    def learn(
        cls,
        v: Float[np.ndarray, "R V"],
        *,
        features: int = 100,
        width: float | None = None,
        shape: str = "thin-plate",
        rng: np.random.Generator,
    ) -> "RadialBasis":
        """features: C centres, by k-means. width: None: twice the median distance of a centre to its nearest one."""
        from scipy.cluster.vq import kmeans2
        from scipy.spatial.distance import cdist

        check_sizes("RadialBasis", features=features)
        if features > len(v):
            raise InvalidValue(f"RadialBasis: {features} centres need as many points, got {len(v)}. Ask for fewer features.")
        rows = v[rng.permutation(len(v))[:20_000]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an empty cluster keeps its last centre, which is as good
            centres = np.asarray(kmeans2(rows, rows[:features], minit="matrix", iter=10, missing="warn")[0])
        centres = np.where(np.isfinite(centres), centres, rows[:features])
        if width is None:
            apart = cdist(centres, centres) + np.where(np.eye(len(centres)) > 0, np.inf, 0.0)
            width = 2.0 * float(np.median(apart.min(axis=1))) if len(centres) > 1 else 1.0
        return cls(centres=centres, width=max(float(width), 1e-6), shape=shape)

    def __call__(self, v: Rows) -> Any:
        """(..., V) -> (..., C)."""
        xp = array_namespace(v)
        off = v[..., None, :] - xp.reshape(self.centres, (1,) * (len(v.shape) - 1) + tuple(self.centres.shape))
        square = xp.sum(off * off, axis=-1)
        if self.shape == "gaussian":
            return xp.exp(-square / self.width**2)
        if self.shape == "inverse-multiquadric":
            return 1.0 / xp.sqrt(1.0 + square / self.width**2)
        safe = xp.where(square > 1e-24, square, xp.full_like(square, 1e-24))  # r^2 log r and its slope are 0 at r = 0
        return 0.5 * square * xp.log(safe)

    def terms(self, variables: tuple[str, ...]) -> tuple[str, ...]:
        """By the number of the centre."""
        return tuple(f"{self.shape} function {i + 1}" for i in range(self.centres.shape[0]))


class FourierFeatures(AbstractDictionary):
    """sqrt(2/C) cos(W v + phase), W normal with standard deviation 1 / width and phase uniform."""

    W: Float[Any, "C V"]
    phase: Float[Any, " C"]

    @classmethod
    def learn(
        cls, v: Float[np.ndarray, "R V"], *, features: int = 200, width: float | None = None, rng: np.random.Generator
    ) -> "FourierFeatures":
        """features: C. width: of the Gaussian kernel, in standard deviations; None: sqrt(V)."""
        check_sizes("FourierFeatures", features=features)
        wide = v.shape[1] ** 0.5 if width is None else width
        if not 0 < wide < math.inf:
            raise InvalidValue(f"FourierFeatures: width must be positive and finite, got {width}.")
        return cls(W=rng.normal(size=(features, v.shape[1])) / wide, phase=rng.uniform(0, 2 * np.pi, features))

    def __call__(self, v: Rows) -> Any:
        """(..., V) -> (..., C)."""
        xp = array_namespace(v)
        phase = xp.reshape(self.phase, (1,) * (len(v.shape) - 1) + (-1,))
        return (2.0 / self.W.shape[0]) ** 0.5 * xp.cos(v @ self.W.T + phase)

    def terms(self, variables: tuple[str, ...]) -> tuple[str, ...]:
        """By number."""
        return tuple(f"random wave {i + 1}" for i in range(self.W.shape[0]))


class Waves(AbstractDictionary):
    """cos(k v) and sin(k v), k = 1..degree, of every variable times its `rate` (so that standardised angles turn by 2 pi)."""

    rate: Float[Any, " V"]
    degree: int = eqx.field(static=True)

    @classmethod
    def learn(cls, v: Float[np.ndarray, "R V"], *, degree: int = 3, period: float | None = None, rng: np.random.Generator) -> "Waves":
        """degree: P. period: of every standardised variable, in standard deviations; None: its range."""
        check_sizes("Waves", degree=degree)
        turn = np.full(v.shape[1], period) if period is not None else np.maximum(np.ptp(v, axis=0), 1e-12)
        return cls(rate=2 * np.pi / turn, degree=degree)

    def __call__(self, v: Rows) -> Any:
        """(..., V) -> (..., 2 P V)."""
        xp = array_namespace(v)
        angle = v * xp.reshape(self.rate, (1,) * (len(v.shape) - 1) + (-1,))
        return xp.concat([part(k * angle) for k in range(1, self.degree + 1) for part in (xp.cos, xp.sin)], axis=-1)

    def terms(self, variables: tuple[str, ...]) -> tuple[str, ...]:
        """Such as 'cos(2 x)'."""
        return tuple(f"{part}({k} {name})" for k in range(1, self.degree + 1) for part in ("cos", "sin") for name in variables)


class Product(AbstractDictionary):
    """Every product of a function of `first` (or a variable) with one of `second`."""

    first: AbstractDictionary
    second: AbstractDictionary

    @classmethod
    def learn(cls, v: Float[np.ndarray, "R V"], *, rng: np.random.Generator) -> "Product":
        """Squares of variables times three random waves: an example; make your own with Product(first, second)."""
        return cls(Monomials(2), FourierFeatures.learn(v, features=3, rng=rng))  # pyright: ignore[reportCallIssue]

    def __call__(self, v: Rows) -> Any:
        """(..., V) -> (..., (V + F1) F2)."""
        xp = array_namespace(v)
        a, b = xp.concat([v, self.first(v)], axis=-1), self.second(v)
        return xp.reshape(a[..., :, None] * b[..., None, :], (*v.shape[:-1], a.shape[-1] * b.shape[-1]))

    def terms(self, variables: tuple[str, ...]) -> tuple[str, ...]:
        """The factors' words joined."""
        return tuple(f"{a}·{b}" for a in (*variables, *self.first.terms(variables)) for b in self.second.terms(variables))


class Joined(AbstractDictionary):
    """The functions of several dictionaries, one after another."""

    parts: tuple[AbstractDictionary, ...]

    @classmethod
    def learn(cls, v: Float[np.ndarray, "R V"], *, degree: int = 2, features: int = 50, rng: np.random.Generator) -> "Joined":
        """Monomials to a degree, and thin-plate functions; make your own with Joined((first, second, ...))."""
        return cls((Monomials(degree), RadialBasis.learn(v, features=features, rng=rng)))  # pyright: ignore[reportCallIssue]

    def __call__(self, v: Rows) -> Any:
        """(..., V) -> (..., F1 + F2 + ...)."""
        return array_namespace(v).concat([part(v) for part in self.parts], axis=-1)

    def terms(self, variables: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the parts."""
        return tuple(term for part in self.parts for term in part.terms(variables))


class Custom(AbstractDictionary):
    """Functions of the user: `function` maps (..., V) -> (..., F), on the array libraries that are to be used. Files can't hold it."""

    function: Callable[[Any], Any] = eqx.field(static=True)
    words: tuple[str, ...] = eqx.field(static=True, default=())

    @classmethod
    def learn(cls, v: Float[np.ndarray, "R V"], *, rng: np.random.Generator) -> "Custom":
        """Can't be learned; pass Custom(function)."""
        raise InvalidValue("Custom: has no settings by name; pass the object, dictionary=Custom(function).")

    def __call__(self, v: Rows) -> Any:
        """(..., V) -> (..., F)."""
        return self.function(v)

    def terms(self, variables: tuple[str, ...]) -> tuple[str, ...]:
        """As given, or by number."""
        count = int(np.shape(self.function(np.zeros((1, len(variables)))))[-1])
        return self.words if len(self.words) == count else tuple(f"function {i + 1}" for i in range(count))


def exponents(variables: int, degree: int) -> tuple[tuple[int, ...], ...]:
    """The powers of each variable in the monomials of degree 2 to `degree`, in the order of `Monomials`."""
    found: list[tuple[int, ...]] = []
    level = [tuple(int(i == j) for j in range(variables)) for i in range(variables)]
    last = list(range(variables))
    for _ in range(2, degree + 1):
        grown = [(p, v) for p, top in zip(level, last, strict=True) for v in range(top, variables)]
        level = [tuple(n + (j == v) for j, n in enumerate(p)) for p, v in grown]
        last = [v for _, v in grown]
        found += level
    return tuple(found)


def n_terms(variables: int, degree: int) -> int:
    """How many monomials of degree 2 to `degree` there are."""
    return n_monomials(variables, degree) - variables


def math_product(factors: list[Any]) -> Any:
    """The product of arrays."""
    total = factors[0]
    for factor in factors[1:]:
        total = total * factor
    return total


def _product(powers: tuple[int, ...], variables: tuple[str, ...]) -> str:
    return "·".join(name + (str(p).translate(_SUPERSCRIPT) if p > 1 else "") for name, p in zip(variables, powers, strict=True) if p)

"""Polynomial autoregression: the next step as a polynomial of the last points, by ridge regression.

    x[t+1] = x[t] + W^T p(v) + b,    v = ((x[t] - m) / s, (x[t-d] - m) / s, ..., (x[t-(k-1)d] - m) / s)

p(v) holds all monomials of degree 1 to P of the k N numbers v. Three models are special cases:

    var                    P = 1, d = 1: linear vector autoregression (Luetkepohl, New Introduction to Multiple Time Series, 2005)
    nvar                   P = 2 or 3: next-generation reservoir (Gauthier, Bollt, Griffith, Barbosa, Nat. Commun. 12, 5564, 2021)
    polynomial-flow-map    d = 1, P up to 7: the flow over one sampling interval, a smooth map, as a Taylor polynomial

Several points help where the next step is no polynomial of one (they stand for derivatives) and where there is noise (they
average it). The settings left open are chosen by free runs; see `dynsys.models.regressed`.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import equinox as eqx
import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float

from dynsys.dynamics import AnyObservation, AnyState
from dynsys.errors import InvalidValue
from dynsys.models.regressed import AbstractDelayed, Holdout, box, checked_options, checked_series, moments
from dynsys.models.ridge import BLOCK, Regression

MOST_FEATURES = 500  # of the settings that are tried
LARGEST = 2500  # features, where nothing smaller does what is asked for
MOST_ROWS = 10_000  # of a longer series, settings are tried on so many evenly spread rows; the last fit takes all
RIDGES = 10.0 ** np.arange(-28, 1, 2)
STABLE_STEPS = 1000  # a model that is kept stays within one range of the data for so long, if any of the best does
CANDIDATES = 8


class AbstractPolynomialMap(AbstractDelayed):
    """x[t+1] = x[t] + W^T p(v) + b, kept inside the box [low, high]: a run that diverges rests there and stays finite."""

    W: Float[Any, "F N"]
    b: Float[Any, " N"]
    mean: Float[Any, " N"]
    scale: Float[Any, " N"]
    low: Float[Any, " N"]
    high: Float[Any, " N"]
    delays: int = eqx.field(static=True)
    stride: int = eqx.field(static=True)
    degree: int = eqx.field(static=True)

    grid: ClassVar[tuple[tuple[int, int, int], ...]]  # (delays, stride, highest degree) that are tried
    lowest: ClassVar[int] = 1  # the lowest degree that is tried

    def __check_init__(self):
        who, wanted = type(self).__name__, self.W.shape[0]
        if min(self.delays, self.stride, self.degree) < 1 or self.degree > wanted or self.delays > wanted:
            raise InvalidValue(f"{who}: delays={self.delays}, stride={self.stride}, degree={self.degree} do not fit {wanted} features.")
        if n_monomials(self.delays * self.n_obs, self.degree) != wanted:
            raise InvalidValue(f"{who}: {self.delays * self.n_obs} variables of degree {self.degree} do not make {wanted} features.")

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """N, the number of observed components."""
        return self.b.shape[-1]

    @property
    def memory(self) -> int:
        """(k - 1) d."""
        return (self.delays - 1) * self.stride

    def following(self, z: AnyState) -> AnyObservation:
        """The next observation, (M,) -> (N,)."""
        xp = array_namespace(z)
        points = xp.reshape(z, (-1, self.n_obs))[:: self.stride]
        v = xp.reshape((points - self.mean[None, :]) / self.scale[None, :], (-1,))
        x = z[: self.n_obs] + monomials(v, self.degree) @ self.W + self.b
        return xp.minimum(xp.maximum(x, self.low), self.high)

    @classmethod
    def _fit(
        cls, series: Sequence[Any], delays: int | None, stride: int | None, degree: int | None, ridge: float | None, bound: float
    ) -> Any:
        who = cls.__name__
        checked_options(who, least={"delays": 1, "stride": 1, "degree": 1}, delays=delays, stride=stride, degree=degree, ridge=ridge)
        long = checked_series(who, series)
        mean, scale = moments(long)
        standard = [(x - mean[None, :]) / scale[None, :] for x in long]
        low, high = box(long, bound)
        sizes = tuple(_allowed(cls, standard, delays, stride, degree))
        ridges = RIDGES if ridge is None else np.array([float(ridge)])
        k, d, p, r = _chosen(standard, sizes, ridges)
        W, b = _regression(standard, k, d, p, None).solve(n_monomials(k * len(mean), p), np.array([r]))
        return cls(W=W[0] * scale[None, :], b=b[0] * scale, mean=mean, scale=scale, low=low, high=high, delays=k, stride=d, degree=p)  # pyright: ignore[reportCallIssue]


class VAR(AbstractPolynomialMap):
    """Linear vector autoregression of order `delays`."""

    grid: ClassVar[tuple[tuple[int, int, int], ...]] = tuple((k, 1, 1) for k in (1, 2, 3, 5, 10, 20))

    @classmethod
    def from_series(
        cls, series: Sequence[Any], *, delays: int | None = None, ridge: float | None = None, bound: float = 10.0, key: Any = None
    ) -> "VAR":
        """Fit to trajectories [(T_i, N), ...]. delays: the order k. ridge: see dynsys.models.ridge. bound: how many ranges of the data
        a run may leave them by. What is None is chosen by free runs on the end of the series."""
        return cls._fit(series, delays, 1, 1, ridge, bound)


class NVAR(AbstractPolynomialMap):
    """Next-generation reservoir: points `stride` apart, their squares and products (degree 2; or 3)."""

    grid: ClassVar[tuple[tuple[int, int, int], ...]] = ((1, 1, 2), *((k, d, 2) for k in (2, 3, 4) for d in (1, 2, 4)))
    lowest: ClassVar[int] = 2

    @classmethod
    def from_series(
        cls,
        series: Sequence[Any],
        *,
        delays: int | None = None,
        stride: int | None = None,
        degree: int = 2,
        ridge: float | None = None,
        bound: float = 10.0,
        key: Any = None,
    ) -> "NVAR":
        """Fit to trajectories [(T_i, N), ...]. delays: k. stride: steps between delayed points. degree of the monomials. ridge: see
        dynsys.models.ridge. bound: how many ranges of the data a run may leave them by. What is None is chosen by free runs."""
        return cls._fit(series, delays, stride, degree, ridge, bound)


class PolynomialFlowMap(AbstractPolynomialMap):
    """The flow over one sampling interval as a polynomial of the last points."""

    grid: ClassVar[tuple[tuple[int, int, int], ...]] = ((1, 1, 7), (2, 1, 6), (3, 1, 5), (4, 1, 5), (6, 1, 4), (10, 1, 3))

    @classmethod
    def from_series(
        cls,
        series: Sequence[Any],
        *,
        delays: int | None = None,
        degree: int | None = None,
        ridge: float | None = None,
        bound: float = 10.0,
        key: Any = None,
    ) -> "PolynomialFlowMap":
        """Fit to trajectories [(T_i, N), ...]. delays: how many points k. degree of the polynomial. ridge: see dynsys.models.ridge.
        bound: how many ranges of the data a run may leave them by. What is None is chosen by free runs on the end of the series."""
        return cls._fit(series, delays, 1, degree, ridge, bound)


def n_monomials(variables: int, degree: int) -> int:
    """How many monomials of degree 1 to `degree` there are."""
    return math.comb(variables + degree, degree) - 1


def monomials(v: Any, degree: int) -> Any:
    """All monomials of degree 1 to `degree` of the last axis, (..., D) -> (..., F), lower degrees first; on any array library."""
    levels = [v]
    for parents, variables in recipe(v.shape[-1], degree):
        levels.append(levels[-1][..., parents] * v[..., variables])
    return v if degree == 1 else array_namespace(v).concat(levels, axis=-1)


@functools.lru_cache(maxsize=64)
def recipe(variables: int, degree: int) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """For each degree from 2: which monomial of the degree below is multiplied by which variable."""
    steps, last = [], np.arange(variables)  # `last`: the highest variable in each monomial of the degree before
    for _ in range(2, degree + 1):
        parents = np.repeat(np.arange(len(last)), variables - last)
        factors = np.concatenate([np.arange(v, variables) for v in last])
        steps.append((parents, factors))
        last = factors
    return tuple(steps)


def _allowed(
    cls: type[AbstractPolynomialMap], series: list[np.ndarray], delays: int | None, stride: int | None, degree: int | None
) -> Iterable[tuple[int, int, tuple[int, ...]]]:
    """(delays, stride, degrees) to try: those of the grid that fit what is asked for, without too many features.

    Raises InvalidValue if nothing is left.
    """
    n, rows_of = series[0].shape[1], lambda k, d: sum(max(0, round(0.85 * len(x)) - (k - 1) * d - 1) for x in series)
    tops: dict[tuple[int, int], int] = {}
    for k, d, top in cls.grid:
        pair = (k if delays is None else delays, d if stride is None else stride)
        tops[pair] = max(top, tops.get(pair, 0))
    degrees = range(cls.lowest, max(tops.values()) + 1) if degree is None else (degree,)
    sizes = [(n_monomials(k * n, p), k, d, p) for (k, d), top in tops.items() for p in degrees if p <= top or degree is not None]
    possible = [size for size in sizes if rows_of(*size[1:3]) > 0 and size[0] <= LARGEST]
    fitting = [size for size in possible if size[0] <= min(MOST_FEATURES, rows_of(*size[1:3]))]
    found = fitting or sorted(possible)[:1]  # a ridge copes with more features than rows, if it must
    for k, d in tops:
        chosen = tuple(p for _, other, e, p in found if (other, e) == (k, d))
        if chosen:
            yield k, d, chosen
    if not found:
        raise InvalidValue(
            f"{cls.__name__}: no setting fits {sum(len(x) for x in series)} points of {n} columns with at most {LARGEST} features. "
            "Give fewer delays or a lower degree, or more points."
        )


def _regression(series: Sequence[np.ndarray], k: int, d: int, degree: int, most: int | None) -> Regression:
    """The factorised regression of x[t+1] - x[t] on the monomials, of at most about `most` evenly spread rows."""
    memory = (k - 1) * d
    pairs = [(x, np.arange(memory, len(x) - 1)) for x in series if len(x) > memory + 1]
    total = sum(len(rows) for _, rows in pairs)
    every = 1 if most is None else max(1, total // most)

    def blocks() -> Iterable[tuple[np.ndarray, np.ndarray]]:
        for x, rows in pairs:
            kept = rows[::every]
            for a in range(0, len(kept), BLOCK):
                t = kept[a : a + BLOCK]
                v = np.concatenate([x[t - j * d] for j in range(k)], axis=1)
                yield monomials(v, degree), x[t + 1] - x[t]

    return Regression.of(blocks)


def _chosen(
    series: list[np.ndarray], sizes: tuple[tuple[int, int, tuple[int, ...]], ...], ridges: np.ndarray
) -> tuple[int, int, int, float]:
    """The (delays, stride, degree, ridge) whose free runs on the end of the series err least and, if any do, stay near the data."""
    if len(sizes) == 1 and len(sizes[0][2]) == 1 and len(ridges) == 1:
        k, d, degrees = sizes[0]
        return k, d, degrees[0], float(ridges[0])
    held, n = Holdout.of(series), series[0].shape[1]
    whole = np.concatenate(series)
    limits = whole.min(axis=0) - np.ptp(whole, axis=0), whole.max(axis=0) + np.ptp(whole, axis=0)
    tried = []
    for k, d, degrees in sizes:
        windows = held.windows((k - 1) * d + 1)
        regression = _regression(held.fitted, k, d, max(degrees), MOST_ROWS)
        for p in degrees:
            W, b = regression.solve(n_monomials(k * n, p), ridges)
            errors = held.error(_runs(windows, held.true.shape[1], k, d, p, W, b, limits))
            tried += [(float(e), i, k, d, p, float(r), W[i], b[i]) for i, (e, r) in enumerate(zip(errors, ridges, strict=True))]
    tried.sort(key=lambda t: t[0])
    for _, _, k, d, p, r, W, b in tried[:CANDIDATES]:
        run = _runs(held.windows((k - 1) * d + 1)[-1:], STABLE_STEPS, k, d, p, W[None], b[None], limits)
        if np.all(run > limits[0]) and np.all(run < limits[1]):
            return k, d, p, r
    return tried[0][2:6]


def _runs(
    windows: np.ndarray, steps: int, k: int, d: int, degree: int, W: np.ndarray, b: np.ndarray, limits: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Free runs of R models from S windows at once, standardised and kept inside the limits, (R, S, steps, N)."""
    n, memory = b.shape[-1], (k - 1) * d
    path = np.empty((len(W), len(windows), memory + 1 + steps, n))
    path[:, :, : memory + 1] = windows[None]
    lags = d * np.arange(k)
    with np.errstate(all="ignore"):
        for t in range(memory, memory + steps):
            v = path[:, :, t - lags].reshape(len(W), len(windows), k * n)
            x = path[:, :, t] + monomials(v, degree) @ W + b[:, None]
            path[:, :, t + 1] = np.minimum(np.maximum(x, limits[0]), limits[1])
    return path[:, :, memory + 1 :]

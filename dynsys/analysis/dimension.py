"""Correlation dimension of a series: how does the number of pairs of states within r grow with r? (Grassberger & Procaccia 1983.)

    C(r) = part of the pairs (i, j), |i - j| > theiler, with |y[i] - y[j]| <= r,      C(r) ~ r^D2 for small r
    D2    = slope of ln C against ln r over a range that is chosen by its straightness and returned
    Takens: D = C(r0) / integral of C(r) / r from 0 to r0        a second opinion without a line, r0 the upper end of the range

Pairs are counted exactly with KD-trees. Sources: Grassberger & Procaccia, Physica D 9, 189 (1983); the window in time: Theiler,
Phys. Rev. A 34, 2427 (1986); Takens, Lect. Notes Math. 1125, 99 (1985).
"""

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Float, Real
from scipy.spatial import KDTree

from dynsys.analysis.neighbours import default_theiler, embed, finite_series
from dynsys.errors import InvalidValue

_PER_DOUBLING = 4  # radii
_DOUBLINGS = 16  # at most, below the largest radius
_GROUPS = 8  # of consecutive points, for the error bar
_LEAST_PAIRS = 1000  # where a fit may begin
_LEAST_SPAN = math.log(8.0)  # of a fit, in ln r; shorter ones only if there is none


@dataclasses.dataclass(frozen=True)
class CorrelationDimension:
    """The dimension and how it was found; `fit` is the range of `radii` whose slope it is, `takens` the second opinion.

    `error` joins the standard error over 8 groups of points and half the difference between the slopes of the two halves of
    the fit range. `radii` (R,), `sums` (R,) = C(r), `slopes` (R - 1,) between neighbouring radii; `points` were used, `every`-th
    of the series; `theiler` in samples of the series. NaN with an infinite error if there are too few pairs for a line.
    """

    dimension: float
    error: float
    takens: float
    radii: Float[np.ndarray, " R"]
    sums: Float[np.ndarray, " R"]
    slopes: Float[np.ndarray, " S"]
    fit: tuple[float, float]
    points: int
    every: int
    theiler: int


def correlation_dimension(
    x: Real[Any, "..."],
    *,
    delay: int = 1,
    dimension: int = 1,
    theiler: int | None = None,
    fit: tuple[float, float] | None = None,
    points: int = 30_000,
    largest: float = 0.05,
) -> CorrelationDimension:
    """The correlation dimension of a series (T,) or (T, N) of states, or of the delay embedding of an observation.

    delay, dimension: of the embedding, in samples (default: the rows are states). theiler: only pairs further apart in time
    count (default: the mean period). fit: range of radii (from, to) of the line; default: of all ranges that begin at 1000
    pairs or more and span a factor of 8, the one with the smallest residual for its rise. points: states used at most, every
    k-th of them. largest: the largest radius holds this part of the pairs.

    Distances are Euclidean, in the units of x: scale the columns first if their units differ. A D-dimensional attractor needs
    far more than 10^(D/2) points. Raises InvalidValue for bad settings, or a series that is not finite, constant or too short.
    """
    who = "correlation_dimension"
    series = finite_series(who, x)
    if points < 100 or not 0 < largest <= 1 or (theiler is not None and theiler < 0):
        raise InvalidValue(f"{who}: needs points >= 100, 0 < largest <= 1 and theiler >= 0, got {points=}, {largest=}, {theiler=}.")
    states = embed(who, series, delay, dimension)
    window = default_theiler(series) if theiler is None else int(theiler)
    every = -(-len(states) // points)
    states, lags = states[::every], window // every
    if len(states) < 100 + 2 * lags:
        raise InvalidValue(f"{who}: {len(states)} states are too few for theiler={window}; wanted at least {100 + 2 * lags}.")
    radii = _radii(states, largest)
    counts = _pair_counts(states, radii, lags)
    totals = counts.sum(0)
    sums = totals / ((len(states) - lags) * (len(states) - lags - 1))
    keep = totals > 0
    radii, sums, counts, totals = radii[keep], sums[keep], counts[:, keep], totals[keep]
    x_, y_ = np.log(radii), np.log(sums)
    slopes = np.diff(y_) / np.diff(x_)
    span = _given(who, fit, radii) if fit is not None else _straightest(x_, y_, totals)
    if span is None:
        return CorrelationDimension(math.nan, math.inf, math.nan, radii, sums, slopes, (math.nan, math.nan), len(states), every, window)
    begin, end = span
    rows, middle = slice(begin, end + 1), (begin + end) // 2
    value = _slope(x_[rows], y_[rows])
    groups = [_slope(x_[rows], np.log(np.maximum(part[rows], 0.5))) for part in counts]
    halves = (_slope(x_[begin : middle + 1], y_[begin : middle + 1]), _slope(x_[middle : end + 1], y_[middle : end + 1]))
    # twice: every group is paired with all points, so that only half of the influence of its own points shows
    error = math.hypot(2 * float(np.std(groups, ddof=1)) / math.sqrt(_GROUPS), 0.5 * abs(halves[1] - halves[0]))
    fitted = float(radii[begin]), float(radii[end])
    return CorrelationDimension(
        value, error, takens(sums[: end + 1], slopes[:end]), radii, sums, slopes, fitted, len(states), every, window
    )


def takens(sums: Float[np.ndarray, " R"], slopes: Float[np.ndarray, " S"]) -> float:
    """Takens' estimator C(r0) / integral of C d ln r up to the last radius, C a power law between two radii and below the first."""
    rising = slopes > 0
    parts = np.diff(sums)[rising] / slopes[rising]
    first = sums[0] / slopes[rising][0] if rising.any() else math.inf
    return float(sums[-1] / (first + parts.sum()))


def _radii(states: Float[np.ndarray, "T D"], largest: float) -> Float[np.ndarray, " R"]:
    """Radii in geometric progression up to the quantile `largest` of the distances of random pairs."""
    a, b = np.random.default_rng(0).integers(0, len(states), (2, 20_000))
    distance = np.linalg.norm(states[a] - states[b], axis=1)
    top = float(np.quantile(distance[distance > 0], largest))
    return top * 2.0 ** (np.arange(-_DOUBLINGS * _PER_DOUBLING, 1) / _PER_DOUBLING)


def _pair_counts(states: Float[np.ndarray, "T D"], radii: Float[np.ndarray, " R"], lags: int) -> Float[np.ndarray, "G R"]:
    """Ordered pairs within each radius whose first member lies in each group, without those at most `lags` apart."""
    tree: Any = KDTree(states)
    parts = np.array_split(np.arange(len(states)), _GROUPS)
    counts = np.array([tree.count_neighbors(KDTree(states[part]), radii) for part in parts], dtype=float)
    bounds = np.array([part[0] for part in parts] + [len(states)])
    for lag in range(lags + 1):
        distance = np.linalg.norm(states[lag:] - states[: len(states) - lag], axis=1)
        close = np.flatnonzero(distance <= radii[-1])
        place = np.searchsorted(radii, distance[close])
        for member in (close,) if lag == 0 else (close, close + lag):
            group = np.searchsorted(bounds, member, side="right") - 1
            near = np.bincount(group * len(radii) + place, minlength=_GROUPS * len(radii)).reshape(_GROUPS, len(radii))
            counts -= np.cumsum(near, axis=1)
    return counts


def _straightest(x: Float[np.ndarray, " R"], y: Float[np.ndarray, " R"], totals: Float[np.ndarray, " R"]) -> tuple[int, int] | None:
    """First and last index of the line: the smallest residual for its rise among all ranges that are long enough."""
    first = int(np.searchsorted(totals, 2 * _LEAST_PAIRS))
    least = min(_LEAST_SPAN, x[-1] - x[first]) if first < len(x) - 4 else 0.0
    if least < math.log(2.0):
        return None
    best = []
    for begin in range(first, len(x) - 4):
        for end in range(begin + 4, len(x)):
            if x[end] - x[begin] >= least - 1e-9:
                slope = _slope(x[begin : end + 1], y[begin : end + 1])
                residual = float(np.std(y[begin : end + 1] - slope * x[begin : end + 1]))
                best.append((residual / max(slope * (x[end] - x[begin]), 1e-12), begin, end))
    return min(best)[1:]


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    """Slope of the least-squares line."""
    centred = x - x.mean()
    return float((centred * y).sum() / (centred**2).sum())


def _given(who: str, fit: tuple[float, float], radii: Float[np.ndarray, " R"]) -> tuple[int, int]:
    """The indices of a range of radii that the caller chose."""
    inside = np.flatnonzero((radii >= fit[0] * (1 - 1e-9)) & (radii <= fit[1] * (1 + 1e-9)))
    if len(inside) < 3:
        raise InvalidValue(
            f"{who}: fit={fit} holds {len(inside)} of the radii with pairs, {radii[0]:.3g} to {radii[-1]:.3g}; wanted at least 3."
        )
    return int(inside[0]), int(inside[-1])

"""The maximal Lyapunov exponent from a series alone: how fast do neighbours part? (Rosenstein, Collins, De Luca 1993.)

    S(k) = < ln |y[i + k] - y[n(i) + k]| >_i,     n(i): nearest neighbour of y[i] with |i - n(i)| > theiler
    lambda_1 = slope of S(k) against k dt where S is straight: after the neighbours turned into the unstable direction,
               before their distance is as large as the attractor

y is a series of states, or a delay embedding (x[t], x[t + delay], ..., x[t + (dimension - 1) delay]) of an observation.
Source: Physica D 65, 117 (1993); the window in time: Theiler, Phys. Rev. A 34, 2427 (1986).
"""

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Real
from scipy.spatial import KDTree

from dynsys.analysis.neighbours import default_theiler, embed, finite_series
from dynsys.errors import InvalidValue

_RISES = (np.arange(0.0, 0.16, 0.05), np.arange(0.5, 0.66, 0.05))
"""Where a fit may begin and end, as parts of the way of S from its first value to that of random pairs. Later the pairs that
part fastest have reached the size of the attractor, and S bends: ranges from 0.3 to 0.7 gave 10 % less for Lorenz and Chen."""
_GROUPS = 10  # of consecutive reference points, for the error bar


@dataclasses.dataclass(frozen=True)
class ExponentFromData:
    """The exponent (per unit of time) and how it was found; `fit` is the range of `times` whose slope it is.

    `error` joins the standard error over 10 groups of reference points and what the choice of the range matters: the spread of
    the slopes of all ranges tried, or half the difference between the halves of a range that was given. It leaves out the bias of
    the method, about 10 % for Lorenz and up to 30 % for other flows: the mean log distance bends before its pairs all saturate.
    `times` (K,) and `curve` (K,) are k dt and S(k), `saturation` is the mean log distance of random pairs, `references` the
    number of pairs followed, `theiler` the window in samples.
    """

    exponent: float
    error: float
    times: Float[np.ndarray, " K"]
    curve: Float[np.ndarray, " K"]
    fit: tuple[float, float]
    saturation: float
    references: int
    theiler: int


def maximal_exponent_from_data(
    x: Real[Any, "..."],
    *,
    dt: float = 1.0,
    delay: int = 1,
    dimension: int = 1,
    theiler: int | None = None,
    horizon: int | None = None,
    fit: tuple[float, float] | None = None,
    references: int = 5000,
) -> ExponentFromData:
    """The maximal Lyapunov exponent of a series (T,) or (T, N), per unit of time, from the divergence of neighbours.

    dt: sampling interval. delay, dimension: of the delay embedding, in samples (default: the rows are states already).
    theiler: neighbours are more than this many samples apart in time (default: the mean period). horizon: samples over which
    pairs are followed (default: grown until S has risen by 0.8 of its way, a quarter of the series at most). fit: range of
    times (from, to) of the line; default: of the ranges from 0 - 0.15 to 0.5 - 0.65 of the way of S that last a mean period, the
    one with the smallest residual for its rise. references: pairs followed at most, evenly spaced in time.

    It measures what the data show: with noise, S begins at the noise level and the slope is too small; for a limit cycle or a
    torus the exponent is about 0 within its error. A straight part that rises by less than about 2 (a factor of 7 in distance)
    proves little: a high-dimensional attractor needs more points than one has (20-dimensional Lorenz-96: 25 % too small with
    60,000). NaN with an infinite error if no range can be fitted. Raises InvalidValue for bad settings, a series that is not
    finite, or one that is too short.
    """
    who = "maximal_exponent_from_data"
    series = finite_series(who, x)
    if not dt > 0 or references < 2 * _GROUPS or (theiler is not None and theiler < 0) or (horizon is not None and horizon < 2):
        raise InvalidValue(
            f"{who}: needs dt > 0, references >= {2 * _GROUPS}, theiler >= 0 and horizon >= 2, "
            f"got {dt=}, {references=}, {theiler=}, {horizon=}."
        )
    window = default_theiler(series) if theiler is None else int(theiler)
    states = embed(who, series, delay, dimension)
    longest = len(states) // 4 if horizon is None else int(horizon)
    if len(states) < longest + 2 * window + 10 * _GROUPS:
        raise InvalidValue(
            f"{who}: {len(states)} states are too few for horizon={longest} and theiler={window}; wanted at least "
            f"{longest + 2 * window + 10 * _GROUPS}. Pass a longer series, or a smaller theiler or horizon."
        )
    first, second = neighbour_pairs(states, len(states) - longest, window, references)
    if len(first) < 2 * _GROUPS:
        raise InvalidValue(
            f"{who}: only {len(first)} points have a neighbour more than theiler={window} samples away. "
            "Pass a longer series or a smaller theiler."
        )
    saturation = _saturation(states)
    steps = longest if horizon is not None else min(longest, 32)
    logs = _log_distances(states, first, second, steps)
    while steps < longest and _rise(np.nanmean(logs, 0), saturation).max() < 0.8:
        steps = min(longest, 2 * steps)
        logs = _log_distances(states, first, second, steps)
    curve, times = np.nanmean(logs, 0), dt * np.arange(logs.shape[1])
    tried = [_given(who, fit, times)] if fit is not None else _ranges(curve, saturation, default_theiler(series))
    if not tried:
        return ExponentFromData(math.nan, math.inf, times, curve, (math.nan, math.nan), saturation, len(first), window)
    begin, end = tried[0]
    rows, middle = slice(begin, end + 1), (begin + end) // 2
    if len(tried) > 1:
        choice = float(np.std([_slope(times[a : b + 1], curve[a : b + 1]) for a, b in tried]))
    else:
        choice = 0.5 * abs(
            _slope(times[begin : middle + 1], curve[begin : middle + 1]) - _slope(times[middle : end + 1], curve[middle : end + 1])
        )
    groups = [_slope(times[rows], np.nanmean(part[:, rows], 0)) for part in np.array_split(logs, _GROUPS)]
    error = math.hypot(float(np.std(groups, ddof=1)) / math.sqrt(_GROUPS), choice)
    span = float(times[begin]), float(times[end])
    return ExponentFromData(_slope(times[rows], curve[rows]), error, times, curve, span, saturation, len(first), window)


def neighbour_pairs(
    states: Float[np.ndarray, "T D"], last: int, window: int, references: int
) -> tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"]]:
    """Indices of points and of their nearest neighbours, both below `last` and more than `window` apart; equal points are none.

    About `references` points, evenly spaced; those without such a neighbour are left out.
    """
    tree: Any = KDTree(states[:last])
    first = np.unique(np.linspace(0, last - 1, min(references, last)).astype(int))
    second = np.full(len(first), -1)
    open_, count = np.arange(len(first)), 4
    while len(open_):
        distance, index = tree.query(states[first[open_]], k=min(count, last))
        allowed = (np.abs(index - first[open_][:, None]) > window) & (distance > 0)
        found, place = allowed.any(1), allowed.argmax(1)
        second[open_[found]] = index[found, place[found]]
        open_ = open_[~found]
        if count >= min(last, 2 * window + 64):  # only more neighbours in time, or copies of the point, would follow
            break
        count *= 4
    good = second >= 0
    return first[good], second[good]


def _log_distances(states: Float[np.ndarray, "T D"], first: np.ndarray, second: np.ndarray, steps: int) -> Float[np.ndarray, "P K"]:
    """ln of the distance of every pair after 0, ..., steps - 1 samples; NaN where two states are equal."""
    found = np.empty((len(first), steps))
    for k in range(steps):
        found[:, k] = np.linalg.norm(states[first + k] - states[second + k], axis=1)
    with np.errstate(divide="ignore"):
        logs = np.log(found)
    return np.where(np.isfinite(logs), logs, np.nan)


def _saturation(states: Float[np.ndarray, "T D"]) -> float:
    """Mean log distance of random pairs of states."""
    a, b = np.random.default_rng(0).integers(0, len(states), (2, 20_000))
    distance = np.linalg.norm(states[a] - states[b], axis=1)
    return float(np.log(distance[distance > 0]).mean())


def _rise(curve: Float[np.ndarray, " K"], saturation: float) -> Float[np.ndarray, " K"]:
    """Which part of its way to saturation S has risen."""
    way = saturation - curve[0]
    return (curve - curve[0]) / way if way > 0 else np.zeros_like(curve)


def _ranges(curve: Float[np.ndarray, " K"], saturation: float, least: int) -> list[tuple[int, int]]:
    """First and last indices of the ranges to fit, that with the smallest residual for its rise first; none if S rises nowhere.

    Ranges last at least `least` samples if any does, since S of a flow swings with its period.
    """
    rise, found = _rise(curve, saturation), []
    highest = rise.max()
    if highest < _RISES[1].min():  # pairs never part (a limit cycle, a torus), or the horizon is short: all after the first turn
        return [(least, len(curve) - 1)] if len(curve) > least + 4 else []
    for low in _RISES[0]:
        for high in _RISES[1][_RISES[1] <= highest]:
            begin, end = int(np.argmax(rise >= low)), int(np.argmax(rise >= high))
            if end - begin >= 2:
                k, part = np.arange(begin, end + 1), curve[begin : end + 1]
                slope = _slope(k, part)
                residual = float(np.std(part - slope * k))
                found.append((end - begin < least, residual / max(slope * (end - begin), 1e-12), begin, end))
    return [(begin, end) for short, _, begin, end in sorted(found) if short == min(found)[0]]


def _slope(times: np.ndarray, values: np.ndarray) -> float:
    """Slope of the least-squares line."""
    centred = times - times.mean()
    return float((centred * values).sum() / (centred**2).sum())


def _given(who: str, fit: tuple[float, float], times: Float[np.ndarray, " K"]) -> tuple[int, int]:
    """The indices of a range of times that the caller chose."""
    inside = np.flatnonzero((times >= fit[0] - 1e-12) & (times <= fit[1] + 1e-12))
    if len(inside) < 4:
        raise InvalidValue(
            f"{who}: fit={fit} holds {len(inside)} of the times 0 to {times[-1]:g}, wanted at least 4. Pass a longer horizon?"
        )
    return int(inside[0]), int(inside[-1])

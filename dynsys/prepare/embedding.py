"""Delay embedding, and the rules that choose its delay d and dimension m from data.

    x[t]  ->  (x[t], x[t-d], ..., x[t-(m-1)d])

Block order: the first N coordinates are the present observation, the next N that at t-d, and so on. The rules:

- noise-amplification: the (d, m) at which noise disturbs the prediction least, the minimum of L (Uzal, Grinblat, Verdes 2011);
  of all that come within `TOLERANCE` of it, the one with the fewest coordinates, then the shortest delay.
- autocorrelation: d where the autocorrelation falls below 1/e, m by Cao's method (Cao 1997) at that d.
- mutual-information: d at the first minimum of the average mutual information (Fraser & Swinney, Phys. Rev. A 33, 1134
  (1986)), m by Cao's method at that d.
- window: d as in autocorrelation, m = round(period / (2 d)): the delays span half a dominant cycle.

docs/preparation.md has the measurement that made the first one the default. All distances are in standard deviations.
With several components, L is that of the joint embedding; the other rules look at each component by itself and take the
median delay and the largest dimension.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from dynsys.analysis import spectrum
from dynsys.errors import DataError, InvalidValue, UnknownName
from dynsys.prepare.filters import remove_gaussian_trend
from dynsys.prepare.neighbours import Trajectories, cao, noise_amplification

MAX_DIMENSION = 10
"""The largest dimension that a rule chooses; ask for a larger one by name."""
CAO_THRESHOLD = 0.9
"""Cao's E1 counts as saturated from here on."""
TOLERANCE = 0.02
"""L this close to its minimum counts as equal: 5 % in the noise of a prediction."""
SHORTEST = 16
"""Samples that a trajectory needs for a delay to be chosen."""


@dataclass(frozen=True)
class Choice:
    """A delay and a dimension in samples, and how they were found, in words."""

    delay: int
    dimension: int
    words: tuple[str, ...]


def embed(x: Float[np.ndarray, "T N"], delay: int, dimension: int) -> Float[np.ndarray, "S D"]:
    """Delay vectors, (T, N) -> (T - (m-1) d, m N); row i is that of time i + (m-1) d.

    Raises DataError if the trajectory is shorter than the window, InvalidValue unless delay and dimension are at least 1.
    """
    if delay < 1 or dimension < 1:
        raise InvalidValue(f"embed: delay and dimension must be at least 1, got delay={delay}, dimension={dimension}.")
    newest = (dimension - 1) * delay
    rows = x.shape[0] - newest
    if rows < 1:
        raise DataError(
            f"delay embedding: a trajectory of {x.shape[0]} samples is shorter than the window of {newest + 1} samples "
            f"(dimension {dimension}, delay {delay}). Give longer trajectories, or set a smaller delay or dimension."
        )
    return np.concatenate([x[newest - j * delay : newest - j * delay + rows] for j in range(dimension)], axis=1)


def choose(trajectories: Trajectories, *, rule: str, delay: int | None = None, dimension: int | None = None) -> Choice:
    """Delay and dimension for (T, N) trajectories by a rule; what is given is kept and only the rest is chosen.

    Raises UnknownName for a rule that does not exist, DataError if no trajectory has `SHORTEST` samples.
    """
    if rule not in RULES:
        raise UnknownName("embedding rule", rule, RULES)
    if delay is not None and dimension is not None:
        return Choice(delay, dimension, ("delay and dimension as given",))
    longest = max(x.shape[0] for x in trajectories)
    if longest < SHORTEST:
        raise DataError(
            f"delay embedding: the longest trajectory has {longest} samples; choosing a delay needs {SHORTEST}. "
            "Give longer trajectories, or set delay and dimension."
        )
    found = RULES[rule](trajectories, longest // 4, delay, dimension)
    fits = 1 + (longest // 2) // found.delay
    if found.dimension > fits and dimension is None:
        found = Choice(found.delay, fits, (*found.words, f"dimension cut to {fits}: the window must fit into half a trajectory"))
    given = "delay" if delay is not None else "dimension" if dimension is not None else None
    return found if given is None else Choice(found.delay, found.dimension, (f"{given} as given", *found.words))


def decorrelation_lag(trajectories: Trajectories, max_lag: int) -> Float[np.ndarray, " N"]:
    """The lag at which the autocorrelation falls below 1/e, between samples by a straight line; `max_lag` where it never does.

    Autocorrelations of several trajectories are averaged with their energies as weights.
    """
    total, energy = np.zeros((max_lag + 1, trajectories[0].shape[1])), 0.0
    for x in trajectories:
        lags = min(max_lag, x.shape[0] - 1)
        power = np.var(x, axis=0) * x.shape[0]
        total[: lags + 1] += np.nan_to_num(spectrum.autocorrelation(x, lags)) * power[None, :]
        energy = energy + power
    curve = total / np.where(energy > 0, energy, 1.0)[None, :] - np.exp(-1)
    found = np.full(curve.shape[1], float(max_lag))
    for i, column in enumerate(curve.T):
        if (column < 0).any():
            first = int((column < 0).argmax())
            found[i] = first - 1 + column[first - 1] / (column[first - 1] - column[first])
    return found


def mutual_information(trajectories: Trajectories, lag: int) -> Float[np.ndarray, " N"]:
    """Average mutual information of x[t] and x[t-lag] in nats, (N,).

    Plug-in estimate from a histogram of B x B cells whose edges are the B-quantiles of the component, B = sqrt(T / 5) within
    4..32, so that a cell would hold 5 points on average if the two were independent.
    """
    bins = int(np.clip(np.sqrt(sum(x.shape[0] for x in trajectories) / 5), 4, 32))
    return np.array([_information(codes, lag, bins) for codes in _codes(trajectories, bins)])


def information_minimum(trajectories: Trajectories, max_lag: int) -> Int[np.ndarray, " N"]:
    """First lag in 1..max_lag with no more mutual information than the one before and less than all up to 1.5 lag + 2, (N,).

    0 where there is none. The lags after it keep a ripple of the estimate from counting as a minimum.
    """
    bins = int(np.clip(np.sqrt(sum(x.shape[0] for x in trajectories) / 5), 4, 32))
    found = []
    for codes in _codes(trajectories, bins):
        curve: list[float] = []
        low = 0
        for lag in range(1, max_lag + 1):
            last = lag + lag // 2 + 2
            curve += [_information(codes, k, bins) for k in range(len(curve), last + 1)]
            if curve[lag] <= curve[lag - 1] and curve[lag] < min(curve[lag + 1 : last + 1]):
                low = lag
                break
        found.append(low)
    return np.array(found)


def _codes(trajectories: Trajectories, bins: int) -> list[list[Int[np.ndarray, " _"]]]:
    """For each component, the number of the quantile bin of every sample of every trajectory."""
    edges = np.quantile(np.concatenate(list(trajectories)), np.linspace(0, 1, bins + 1)[1:-1], axis=0)
    return [[np.searchsorted(edges[:, i], x[:, i], side="right") for x in trajectories] for i in range(edges.shape[1])]


def _information(codes: list[Int[np.ndarray, " _"]], lag: int, bins: int) -> float:
    """Mutual information in nats between the codes and themselves `lag` samples earlier."""
    joint = np.zeros(bins * bins)
    for code in codes:
        if code.size > lag:
            joint += np.bincount(code[lag:] * bins + code[: code.size - lag], minlength=bins * bins)
    p = joint.reshape(bins, bins) / max(joint.sum(), 1.0)
    independent = np.outer(p.sum(axis=1), p.sum(axis=0))
    seen = p > 0
    return float(np.sum(p[seen] * np.log(p[seen] / independent[seen])))


def _lag(trajectories: Trajectories, max_lag: int) -> tuple[int, str]:
    lag = float(np.median(decorrelation_lag(trajectories, max_lag)))
    return max(1, round(lag)), f"1/e lag of the autocorrelation {lag:.3g} samples"


def _minimum(trajectories: Trajectories, max_lag: int) -> tuple[int, str]:
    """First minimum of the mutual information; the 1/e lag where it has none within five of those."""
    lag, words = _lag(trajectories, max_lag)
    minima = information_minimum(trajectories, min(max_lag, 5 * lag + 5))
    if (minima > 0).any():
        found = round(float(np.median(minima[minima > 0])))
        return max(1, found), f"first minimum of the mutual information {found} samples"
    return lag, f"{words} (the mutual information has no minimum)"


def _without_drift(trajectories: Trajectories, max_lag: int) -> tuple[Trajectories, str]:
    """The trajectories without a slow drift, if they have one: a wandering baseline has a long 1/e lag of its own.

    If the 1/e lag falls to less than a quarter once a Gaussian trend as wide as the lag is subtracted, it was the drift's.
    """
    words = ""
    lag, _ = _lag(trajectories, max_lag)
    while lag >= 4:
        rest = [remove_gaussian_trend(x, float(lag)) for x in trajectories]
        shorter, _ = _lag(rest, max_lag)
        if 4 * shorter >= lag:
            break
        words = f"chosen without a slow drift, whose 1/e lag is {lag} samples (detrend='gaussian' removes it from the data too)"
        trajectories, lag = rest, shorter
    return trajectories, words


def cao_dimension(trajectories: Trajectories, delay: int) -> tuple[int, str]:
    """Smallest m with Cao's E1(m) above the threshold, at most MAX_DIMENSION, and the finding in words; E1(2) first."""
    found, curves = [], []
    largest = max(1, min(MAX_DIMENSION, max(x.shape[0] for x in trajectories) // (4 * delay) - 1))
    for i in range(trajectories[0].shape[1]):
        e1, _ = cao([x[:, i : i + 1] for x in trajectories], delay, largest)
        reached = e1 >= CAO_THRESHOLD
        found.append(int(reached.argmax()) + 1 if reached.any() else largest)
        curves.append(e1)
    m = max(found)
    shown = ", ".join(f"{value:.2f}" for value in curves[found.index(m)])
    return m, f"Cao's E1 for dimensions 1 to {largest}: {shown}"


def _by_autocorrelation(x: Trajectories, max_lag: int, delay: int | None, dimension: int | None) -> Choice:
    d, words = _lag(x, max_lag) if delay is None else (delay, "")
    return _with_cao(x, d, dimension, words)


def _by_information(x: Trajectories, max_lag: int, delay: int | None, dimension: int | None) -> Choice:
    d, words = _minimum(x, max_lag) if delay is None else (delay, "")
    return _with_cao(x, d, dimension, words)


def _with_cao(x: Trajectories, delay: int, dimension: int | None, words: str) -> Choice:
    m, more = cao_dimension(x, delay) if dimension is None else (dimension, "")
    return Choice(delay, m, tuple(w for w in (words, more) if w))


def _by_window(x: Trajectories, max_lag: int, delay: int | None, dimension: int | None) -> Choice:
    d, words = _lag(x, max_lag) if delay is None else (delay, "delay as given")
    if dimension is not None:
        return Choice(d, dimension, (words,))
    longest = max(x, key=len)
    period = spectrum.dominant_period(longest, 1.0, smoothing=max(2.0, len(longest) / 500))
    if not period <= len(longest) / 10:
        m, more = cao_dimension(x, d)
        return Choice(d, m, (words, f"no dominant cycle shorter than a tenth of the data; {more}"))
    m = int(np.clip(round(period / (2 * d)), 2, MAX_DIMENSION))
    return Choice(d, m, (words, f"dominant period {period:.3g} samples; the window spans half of it"))


def _by_amplification(x: Trajectories, max_lag: int, delay: int | None, dimension: int | None) -> Choice:
    """The grid: up to 8 delays, evenly spaced in their logarithm, up to 1.5 q; windows up to 6 q; futures up to 3 q.

    q is the first minimum of the mutual information, a quarter of a cycle for a sine wave.
    """
    x, drift = _without_drift(x, max_lag)
    q, words = _minimum(x, max_lag)
    delays = [delay] if delay is not None else sorted({round(float(d)) for d in np.geomspace(1, max(1.0, 1.5 * q), 8)})
    dimensions = [dimension] if dimension is not None else list(range(1, MAX_DIMENSION + 1))
    cells = [(d, m) for d in delays for m in dimensions if (m - 1) * d <= max(6 * q, (dimensions[0] - 1) * d)]
    score = {cell: noise_amplification(x, *cell, 3 * q) for cell in cells}
    score = {cell: value for cell, value in score.items() if np.isfinite(value)}
    if not score:
        return _with_cao(x, delay or q, dimension, f"{words}; too few samples to measure the noise amplification")
    best = min(score.values())
    m, d = min((m, d) for (d, m), value in score.items() if value <= best + TOLERANCE)
    more = f"log10 noise amplification {score[d, m]:.2f} here, {best:.2f} at best of {len(score)} embeddings tried"
    return Choice(d, m, tuple(w for w in (drift, words, more) if w))


RULES: dict[str, Callable[[Trajectories, int, int | None, int | None], Choice]] = {
    "noise-amplification": _by_amplification,
    "autocorrelation": _by_autocorrelation,
    "mutual-information": _by_information,
    "window": _by_window,
}

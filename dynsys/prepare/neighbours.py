"""What near neighbours in a delay embedding tell about it: Cao's E1 and E2, and the noise amplification L.

    E1(m) = E(m+1) / E(m),   E(m) = mean_i |y_i(m+1) - y_n(m+1)| / |y_i(m) - y_n(m)|       n: nearest neighbour of i at m
    L     = log10 sqrt( <sigma^2(x)> / <1 / eps^2(x)> ),   sigma^2(x) = var(future | near x) / eps^2(x)

E1 rises to 1 once neighbours are neighbours because of the dynamics and not of the projection (Cao, Physica D 110, 43 (1997),
eqs. 1-3). L is small where neighbours that are eps apart have the same future: noise of that size disturbs the prediction
least. Source of L: Uzal, Grinblat, Verdes, Phys. Rev. E 84, 016223 (2011); in it also the average over horizons.

Neighbours of the points in one half of the data are sought in the other half, so that none is near merely because it is near in
time (Theiler 1986), with nothing to choose.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree

Trajectories = Sequence[Float[np.ndarray, "_ N"]]

RESOLUTION = 1e-3
"""Distances below this part of a standard deviation count as this: quantised or exactly periodic data would give 0 / 0."""


def halves(trajectories: Trajectories, window: int) -> tuple[Trajectories, Trajectories]:
    """Two groups of about equal size. Whole trajectories are dealt out, longest first; a single one is cut in the middle.

    Trajectories not longer than `window` samples are left out; a group is empty if there is not enough for two.
    """
    pieces = [x for x in trajectories if x.shape[0] > window]
    if len(pieces) == 1:
        middle = pieces[0].shape[0] // 2
        pieces = [pieces[0][:middle], pieces[0][middle:]] if middle > window else pieces
    groups: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    sizes = [0, 0]
    for x in sorted(pieces, key=lambda piece: -piece.shape[0]):
        smaller = int(sizes[1] < sizes[0])
        groups[smaller].append(x)
        sizes[smaller] += x.shape[0]
    return groups


def gather(pieces: Trajectories, offsets: Int[np.ndarray, " J"], points: int) -> Float[np.ndarray, "S J N"]:
    """x[t + offsets] for about `points` times t, evenly spaced, (S, J, N); offsets may be negative (the past)."""
    first, last = min(0, int(offsets.min())), max(0, int(offsets.max()))
    rows = [max(0, x.shape[0] - (last - first)) for x in pieces]
    every = max(1, -(-sum(rows) // points))
    found = [x[np.arange(-first, r - first, every)[:, None] + offsets[None, :]] for x, r in zip(pieces, rows, strict=True) if r]
    return np.concatenate(found) if found else np.zeros((0, offsets.size, 1))


def query(library: Float[np.ndarray, "S D"], states: Float[np.ndarray, "Q D"], neighbours: int) -> Int[np.ndarray, "Q k"]:
    """Rows of the `neighbours` nearest points of the library to each state, nearest first (Euclidean)."""
    index: Any = KDTree(library).query(states, k=neighbours)[1]
    return np.reshape(index, (len(states), neighbours))


def cao(
    series: Trajectories, delay: int, max_dimension: int = 10, *, points: int = 5000
) -> tuple[Float[np.ndarray, " M"], Float[np.ndarray, " M"]]:
    """Cao's E1(m) and E2(m), m = 1..max_dimension, of one observed component ((T, 1) arrays): two arrays (max_dimension,).

    E1 saturates at 1 from the smallest sufficient dimension on. E2 = E*(m+1) / E*(m), E* = mean gap in the new coordinate,
    stays at 1 for noise and departs from it somewhere for a deterministic series. Maximum norm; at most `points` vectors a half.
    NaN if the data are too short.
    """
    steps = max_dimension + 1
    offsets = delay * np.arange(steps + 1)
    groups = [gather(group, offsets, points)[:, :, 0] / _spread(series) for group in halves(series, int(offsets[-1]))]
    ratio, gap = np.full(steps, np.nan), np.full(steps, np.nan)
    if min(len(group) for group in groups) >= 2:
        for m in range(1, steps + 1):
            ratios, gaps = [], []
            for here, there in (groups, groups[::-1]):
                near, index = KDTree(there[:, :m]).query(here[:, :m], p=np.inf)
                near, new = np.maximum(near, RESOLUTION), np.maximum(np.abs(here[:, m] - there[index, m]), RESOLUTION)
                ratios.append(np.maximum(near, new) / near)
                gaps.append(new)
            ratio[m - 1], gap[m - 1] = np.mean(np.concatenate(ratios)), np.mean(np.concatenate(gaps))
    return ratio[1:] / ratio[:-1], gap[1:] / gap[:-1]


def noise_amplification(
    trajectories: Trajectories,
    delay: int,
    dimension: int,
    horizon: int,
    *,
    neighbours: int = 3,
    points: int = 10_000,
    queries: int = 1500,
) -> float:
    """L of the embedding (delay, dimension) of (T, N) trajectories; smaller is better, a difference of 0.3 is a factor of 2.

    The future is the mean over up to 16 evenly spaced steps in 1..horizon and over the components. `queries` points a half
    look for `neighbours` among at most `points` of the other half. NaN if the data are too short.
    """
    past = -delay * np.arange(dimension)
    future = np.unique(np.linspace(1, horizon, min(horizon, 16)).round().astype(int))
    offsets = np.concatenate([past, future])
    spread = _spread(trajectories)
    groups = [gather(group, offsets, points) / spread for group in halves(trajectories, int(offsets.max() - offsets.min()))]
    if min(len(group) for group in groups) < neighbours:
        return float("nan")
    sigma2, eps2 = [], []
    for here, there in (groups, groups[::-1]):
        here = here[:: max(1, len(here) // queries)]
        states, library = (g[:, :dimension].reshape(len(g), -1) for g in (here, there))
        index = query(library, states, neighbours)
        cloud = np.concatenate([states[:, None], library[index]], axis=1)
        fates = np.concatenate([here[:, None, dimension:], there[index][:, :, dimension:]], axis=1)
        size = 2 / neighbours * np.sum((cloud - cloud.mean(axis=1, keepdims=True)) ** 2, axis=(1, 2))
        eps2.append(np.maximum(size, RESOLUTION**2))
        sigma2.append(fates.var(axis=1).mean(axis=(1, 2)) / eps2[-1])
    return float(0.5 * np.log10(max(float(np.mean(np.concatenate(sigma2)) / np.mean(1 / np.concatenate(eps2))), 1e-30)))


def _spread(trajectories: Trajectories) -> Float[np.ndarray, " N"]:
    """Standard deviation of each component over all trajectories, (N,); 1 where a component is constant."""
    spread = np.concatenate(list(trajectories)).std(axis=0)
    return np.where(spread > 0, spread, 1.0)

"""A rough estimate of the observation noise in a time series, for the defaults of training.

    differences   sigma_p = std(D^p x) / sqrt(binomial(2p, p)),     D^p: p-th difference, p = 1..10
    neighbours    sigma_n = rms of (x[t+1] - a.y[t] - b) / sqrt(1 + |a|^2),     y: delay vector, (a, b) fitted to its neighbours

White noise of standard deviation sigma has D^p of standard deviation sigma sqrt(binomial(2p, p)), and what is smooth vanishes under
D^p: good for data that are sampled densely (15 points a cycle or more). For sparsely sampled data and maps, what neighbours in
the reconstructed state space can't predict is noise, in the target and in the inputs of a local linear map alike. Both contain what
they fail to remove of the signal, so the smaller one counts.
"""

import numpy as np
from jaxtyping import Float
from scipy.special import comb

from dynsys.prepare.neighbours import Trajectories, gather, halves, query
from dynsys_datasets.series import TimeSeries

ORDERS = 10
ROWS = 50_000
DIMENSIONS = (2, 3, 4, 6, 8)
RIDGE = 1e-9


def suggest_noise_level(train: TimeSeries) -> float:
    """Standard deviation of the noise over that of the data, median over the components; between 0 and 1, good to a factor of about 2.

    At most about 50,000 rows are looked at, the first of each trajectory. Limits: noise that is correlated in time (smoothed or
    slowly drifting) counts as signal; fast or random dynamics, and a jump a cycle, count as noise if neighbours don't predict
    them; data of high dimension and few points give too much; with very little noise (below 1 %) the number is an upper bound.
    0 if every trajectory is shorter than 3 samples or constant.
    """
    share = min(1.0, ROWS / train.n_points)
    pieces = [np.asarray(x[: max(1, int(len(x) * share))], dtype=np.float64) for x in train.trajectories]
    spread = np.concatenate(pieces).std(axis=0)
    if not (spread > 0).all():
        pieces = [x[:, spread > 0] for x in pieces]
        spread = spread[spread > 0]
    if not spread.size:
        return 0.0
    scaled = [x / spread[None, :] for x in pieces]
    return float(np.median(np.minimum(np.minimum(difference_noise(scaled), neighbour_noise(scaled)), 1.0)))


def difference_noise(trajectories: Trajectories) -> Float[np.ndarray, " N"]:
    """Smallest of the estimates by p-th differences, p = 1..10, in the data's units, (N,); inf if every trajectory is a single row."""
    best = np.full(trajectories[0].shape[1], np.inf)
    for order in range(1, ORDERS + 1):
        found = [np.diff(x, order, axis=0) for x in trajectories if x.shape[0] > order]
        if not found or sum(map(len, found)) < 2:
            break
        best = np.minimum(best, np.sqrt(np.mean(np.concatenate(found) ** 2, axis=0) / comb(2 * order, order)))
    return best


def neighbour_noise(trajectories: Trajectories, *, points: int = 10_000, queries: int = 1000) -> Float[np.ndarray, " N"]:
    """Smallest residual of local linear one-step predictions over several embeddings, in the data's units, (N,).

    Delay 1, all components, 2 to 8 coordinates; neighbours come from the other half of the data. inf if the data are too short.
    """
    n = trajectories[0].shape[1]
    best = np.full(n, np.inf)
    for m in sorted({max(1, round(d / n)) for d in DIMENSIONS}):
        offsets = np.concatenate([np.arange(0, -m, -1), [1]])
        groups = [gather(group, offsets, points) for group in halves(trajectories, m)]
        size = m * n
        neighbours = 3 * (size + 1)
        if min(len(group) for group in groups) < 2 * neighbours:
            continue
        parts = [_residuals(here[:: max(1, len(here) // queries)], there, neighbours) for here, there in (groups, groups[::-1])]
        squares, gains = (np.mean(np.concatenate(part), axis=0) for part in zip(*parts, strict=True))
        best = np.minimum(best, np.sqrt(squares / (1 + np.maximum(gains, 0))))
    return best


def _residuals(
    here: Float[np.ndarray, "Q J N"], there: Float[np.ndarray, "S J N"], neighbours: int
) -> tuple[Float[np.ndarray, "Q N"], Float[np.ndarray, "Q N"]]:
    """Squared errors of the local linear prediction of the last row of each window, and |a|^2 without the part that is fitted noise.

    Slopes fitted to few, near neighbours scatter by s^2 tr G^-1, s^2 the variance of the fit's residual and G the Gram matrix of
    the neighbours: taken off, or the noise of noisy data would be divided away.
    """
    states, library = (g[:, :-1].reshape(len(g), -1) for g in (here, there))
    index = query(library, states, neighbours)
    inputs, targets = library[index], there[index, -1]
    centre, level = inputs.mean(axis=1), targets.mean(axis=1)
    inputs, targets = inputs - centre[:, None], targets - level[:, None]
    gram = np.einsum("qki,qkj->qij", inputs, inputs)
    gram += (RIDGE * np.trace(gram, axis1=1, axis2=2) + 1e-300)[:, None, None] * np.eye(states.shape[1])[None]
    slope = np.linalg.solve(gram, np.einsum("qki,qkn->qin", inputs, targets))
    left = targets - np.einsum("qki,qin->qkn", inputs, slope)
    scatter = np.sum(left**2, axis=1) / (neighbours - 1 - states.shape[1]) * np.trace(np.linalg.inv(gram), axis1=1, axis2=2)[:, None]
    made = level + np.einsum("qi,qin->qn", states - centre, slope)
    return (here[:, -1] - made) ** 2, np.sum(slope**2, axis=1) - scatter

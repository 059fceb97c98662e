"""Scoring free runs: which of many trained models has the data's long-run behaviour.

    score = D_stsp(pooled) + 3 D_H + 8 x (share of dead runs) + 8 x (share of points outside the data's box)
            + max(0, D_stsp(worst run) - veto)

Several starts and long runs, because (trials on 112 Lorenz models) pooled D_stsp of 15 starts x 10,000 steps ranks models
with a rank correlation of .89 to the truth, that of a single start with .46 and the training loss with .59; the worst start
unveils a second, spurious attractor that single runs miss. From six dimensions on, D_stsp is that of the first three principal
components of the data.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dynsys.dynamics import AbstractMap, rollout, warm_up
from dynsys.metrics.divergence import MAX_BINNED, VisitHistogram, principal_components
from dynsys.metrics.power import spectral_distance
from dynsys.train.trainer import WORST_SCORE, Scored

LARGEST_EXCERPT = 200_000  # rows of the data that the histogram is made from
DIVERGED = 1e30  # a run that gets there is as good as infinite
DEAD_SPREAD = 1e-3  # a run whose last fifth spreads less than this share of the data is dead
LARGEST_VETO = 6.0  # nats; a run that is trapped on another attractor scores above 10


def dtype_of(model: AbstractMap) -> np.dtype:
    """The precision of a model's parameters; float64 for a model that has none."""
    leaves = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
    return np.dtype(leaves[0].dtype if leaves else float)


@eqx.filter_jit
def free_runs(model: AbstractMap, starts: Float[Array, "B W N"], steps: int, past: Any = None, inputs: Any = None) -> Float[Array, "B S N"]:
    """Observations of free runs, (B, W, N) -> (B, steps, N), that begin at the last of W observed points.

    The model is led along the W points first (z = correct(step(z), x)), so that states which are not observed find their
    values; W = 1 is a lifted start. past (B, W-1, K) and inputs (B, steps, K) drive a driven model.
    """

    def one(x: Array, led_by: Any, u: Any) -> Array:
        return jax.vmap(model.observe)(rollout(model, warm_up(model, x, led_by), steps, u))

    axes = (0, None if past is None else 0, None if inputs is None else 0)
    return jax.vmap(one, axes)(starts, past, inputs)


class FreeRunScorer:
    """Scores models by free runs from many starts; made once from the prepared training and validation series.

    Runs of a driven model follow the data's inputs from their start, so they are as long as the inputs last. memory: points that
    lead a model to each start.
    """

    def __init__(
        self,
        trajectories: Sequence[Any],
        inputs: Sequence[Any] | None = None,
        *,
        starts: int = 15,
        steps: int = 10_000,
        bins: int | None = None,
        smoothing: float | None = None,
        veto: float | None = None,
        memory: int = 0,
        seed: int = 0,
    ):
        rng = np.random.default_rng(seed)
        lengths = np.array([x.shape[0] for x in trajectories])
        memory = min(memory, int(lengths.max()) // 4)
        self.steps = steps if inputs is None else int(min(steps, max(1, lengths.max() // 2)))
        room = lengths - (1 if inputs is None else self.steps + memory)
        ends = np.cumsum(np.maximum(room, 0))
        picks = np.sort(rng.integers(0, ends[-1], starts))
        which = np.searchsorted(ends, picks, side="right")
        rows = picks - np.where(which > 0, ends[which - 1], 0)
        pairs = list(zip(which.tolist(), rows.tolist(), strict=True))
        self.starts = np.stack([_window(trajectories[i], a, memory) for i, a in pairs])
        driven = None if inputs is None else np.stack([np.asarray(inputs[i][a : a + memory + self.steps]) for i, a in pairs])
        self.past, self.inputs = (None, None) if driven is None else (driven[:, :memory], driven[:, memory:])

        self.true = _excerpt(trajectories, self.steps)
        whole = np.concatenate(self.true)
        self.spread = whole.std(axis=0)
        self.projected = whole.shape[1] > MAX_BINNED
        if self.projected:  # the images of the unit vectors are the axes
            self.centre = whole.mean(axis=0)
            self.axes = principal_components(whole, self.centre[None, :] + np.eye(whole.shape[1]))[1]
        plane = self._project(whole)
        self.bins = sensible_bins(len(whole)) if bins is None else bins
        self.histogram = VisitHistogram.of(plane, bins=self.bins)
        self.length = min(self.steps, max(len(x) for x in self.true))
        pieces = [x[i : i + self.length] for x in self.true for i in range(0, len(x) - self.length + 1, self.length)]
        self.segments = np.stack(pieces[:: max(1, len(pieces) // starts)])
        self.smoothing = max(1.0, 20.0 * min(1.0, self.length / 5000)) if smoothing is None else smoothing
        self.veto = self._natural_veto() if veto is None else veto

    def __call__(self, model: AbstractMap) -> Scored:
        """The score of a model and its parts."""
        dtype = dtype_of(model)
        past, inputs = (None if rows is None else jnp.asarray(rows, dtype) for rows in (self.past, self.inputs))
        return self.score(np.asarray(free_runs(model, jnp.asarray(self.starts, dtype), self.steps, past, inputs), float))

    def score(self, runs: np.ndarray) -> Scored:
        """The score of free runs (B, S, N)."""
        runs = np.where(np.abs(runs) < DIVERGED, runs, np.inf)  # before it overflows in a spectrum
        finite = np.isfinite(runs).all(axis=(1, 2))
        tail = np.where(np.isfinite(runs), runs, 0.0)[:, 4 * self.steps // 5 :]
        dead = ~finite | (tail.std(axis=1) < DEAD_SPREAD * self.spread[None, :]).all(axis=1)
        flat = np.where(np.isfinite(runs), runs, 1e30)
        plane = self._project(flat.reshape(-1, runs.shape[-1])).reshape(*runs.shape[:2], -1)
        pooled = float(self.histogram.divergence(plane))
        worst = float(np.max(self.histogram.each(plane)))
        spectra = float(spectral_distance(self.segments, runs[:, : self.length], smoothing=self.smoothing))
        outside = float(self.histogram.outside(plane))
        total = pooled + 3.0 * spectra + 8.0 * (float(dead.mean()) + outside) + max(0.0, worst - self.veto)
        if dead.all():
            total = WORST_SCORE
        return Scored(
            total, (("d_stsp", pooled), ("worst_start", worst), ("d_h", spectra), ("dead", float(dead.mean())), ("outside", outside))
        )

    def _project(self, x: np.ndarray) -> np.ndarray:
        return (x - self.centre[None, :]) @ self.axes if self.projected else x

    def _natural_veto(self) -> float:
        """1 + three times what the least typical true stretch as long as a run scores, at most LARGEST_VETO.

        The stretches are part of the histogram, so for series not much longer than a run this is a low bar.
        """
        worst = max(float(self.histogram.divergence(self._project(segment))) for segment in self.segments)
        return min(1.0 + 3.0 * worst, LARGEST_VETO)


def _window(trajectory: Any, row: int, memory: int) -> np.ndarray:
    """The points row, ..., row + memory of a trajectory, (memory + 1, N); the last ones where there are no more, fewer in a short one."""
    first = max(0, min(row, len(trajectory) - memory - 1))
    points = np.asarray(trajectory[first : first + memory + 1])
    return np.concatenate([points[:1].repeat(memory + 1 - len(points), axis=0), points])


def sensible_bins(points: int) -> int:
    """30 bins a dimension, as is usual, or fewer (down to 5) for series of less than 10,000 points that would not fill them."""
    return int(np.clip(round(30 * (points / 10_000) ** (1 / 3)), 5, 30))


def _excerpt(trajectories: Sequence[Any], steps: int) -> list[np.ndarray]:
    """The trajectories, or evenly spread stretches as long as a run if they hold too many rows."""
    total = sum(x.shape[0] for x in trajectories)
    if total <= LARGEST_EXCERPT:
        return [np.asarray(x[:], float) for x in trajectories]
    stretches = [(x, a) for x in trajectories for a in range(0, max(1, x.shape[0] - steps + 1), steps)]
    rows = min(steps, max(x.shape[0] for x in trajectories))
    kept = np.linspace(0, len(stretches) - 1, min(len(stretches), max(1, LARGEST_EXCERPT // rows))).astype(int)
    return [np.asarray(stretches[i][0][stretches[i][1] : stretches[i][1] + steps], float) for i in kept.tolist()]

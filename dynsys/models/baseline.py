"""The forecasts that any model has to beat: the mean, the last value, and the past repeated.

    mean          x[t+1] = the mean of the series
    persistence   x[t+1] = x[t]
    parrot        x[t+1] = the point that followed the most similar stretch of the series, and so on from there

Context parroting: Zhang & Gilpin, Context parroting: a simple but tough-to-beat baseline for foundation models in scientific
machine learning (2025); the method of analogues goes back to Lorenz, J. Atmos. Sci. 26, 636 (1969).
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float, Int

from dynsys.dynamics import AnyObservation, AnyState
from dynsys.errors import InvalidValue
from dynsys.models.regressed import AbstractDelayed, Holdout, Regressed, as_numpy, checked_options, checked_series, free_run, moments

LIBRARY = 20_000  # rows that a parrot remembers unless told otherwise
DELAYS = (1, 2, 3, 5, 10, 20)


class Mean(AbstractDelayed):
    """Forecasts the mean of the series."""

    mean: Float[Any, " N"]

    @classmethod
    def from_series(cls, series: Sequence[Any], *, key: Any = None) -> "Mean":
        """The mean of trajectories [(T_i, N), ...] over all points."""
        return cls(mean=np.concatenate(checked_series(cls.__name__, series, 1)).mean(axis=0))  # pyright: ignore[reportCallIssue]

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """N, the number of observed components."""
        return self.mean.shape[-1]

    def following(self, z: AnyState) -> AnyObservation:
        """The mean, whatever the state."""
        return self.mean + 0.0 * z


class Persistence(AbstractDelayed):
    """Forecasts that nothing changes."""

    n_obs: int = eqx.field(static=True)

    @classmethod
    def from_series(cls, series: Sequence[Any], *, key: Any = None) -> "Persistence":
        """Only the number of columns of trajectories [(T_i, N), ...] matters."""
        return cls(n_obs=checked_series(cls.__name__, series, 1)[0].shape[1])  # pyright: ignore[reportCallIssue]

    def following(self, z: AnyState) -> AnyObservation:
        """The state itself."""
        return z


class Parrot(Regressed):
    """Finds the stretch of the series most like the last points, and repeats what came after it.

    z = (x[t], ..., x[t-D+1], p): the last D points, newest first, and the row p of the library that x[t] resembles. A step reads
    on: p becomes `successor[p]`, x that row. `correct` and `lift` look for the nearest row anew. Where a trajectory ends, its
    successor is that of its own nearest row, so a run never ends; a long one is periodic.
    """

    library: Float[Any, "L DN"]
    successor: Int[Any, " L"]
    scale: Float[Any, " N"]
    delays: int = eqx.field(static=True)

    def __check_init__(self):
        if self.delays < 1 or self.library.shape[-1] != self.delays * self.scale.shape[-1]:
            raise InvalidValue(f"Parrot: a library of shape {self.library.shape} does not hold delays={self.delays} points a row.")

    @classmethod
    def from_series(cls, series: Sequence[Any], *, delays: int | None = None, library: int = LIBRARY, key: Any = None) -> "Parrot":
        """Remember trajectories [(T_i, N), ...]. delays: how many points are compared, D; None: chosen by free runs on the end of the
        series. library: how many rows are remembered at most; the last ones of longer series."""
        checked_options(cls.__name__, least={"delays": 1, "library": 2}, delays=delays, library=library)
        long = checked_series(cls.__name__, series)
        return cls._of(long, _chosen(long, library) if delays is None else delays, library)

    @classmethod
    def _of(cls, series: list[np.ndarray], delays: int, library: int) -> "Parrot":
        if max(len(x) for x in series) < delays + 2:
            raise InvalidValue(
                f"Parrot: {delays} delays need a trajectory of {delays + 2} points, the longest has {max(map(len, series))}."
            )
        parts, following, ends, rows = [], [], [], 0
        for x in [x for x in series if len(x) >= delays + 2][::-1]:
            x = x[-(library - rows + delays - 1) :] if rows < library else x[:0]
            if len(x) >= delays + 2:
                parts.append(np.concatenate([x[delays - 1 - j : len(x) - j] for j in range(delays)], axis=1))
                following.append(np.arange(rows + 1, rows + 1 + len(parts[-1])))
                rows += len(parts[-1])
                ends.append(rows - 1)
        found, successor = np.concatenate(parts), np.concatenate(following)
        scale = moments(series)[1]
        for end in ends:
            successor[end] = _analogue(found / np.tile(scale, delays)[None, :], end, ends) + 1
        return cls(library=found, successor=successor.astype(np.int32), scale=scale, delays=delays)  # pyright: ignore[reportCallIssue]

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """N, the number of observed components."""
        return self.scale.shape[-1]

    @property
    def dim(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """M = D N + 1."""
        return self.delays * self.n_obs + 1

    @property
    def memory(self) -> int:
        """D - 1."""
        return self.delays - 1

    def step(self, z: AnyState, u: Any = None) -> AnyState:
        """The library's next row in front; its number goes with it."""
        xp = array_namespace(z)
        last = xp.clip(z[-1:], 0.0, self.library.shape[0] - 1.0)
        row = xp.take(xp.asarray(self.successor), xp.astype(last, xp.int32), axis=0)
        x = xp.take(self.library, row, axis=0)[0, : self.n_obs]
        return xp.concat([x, z[: -self.n_obs - 1], xp.astype(row, z.dtype)])

    def observe(self, z: AnyState) -> AnyObservation:
        """The newest point."""
        return z[: self.n_obs]

    def lift(self, x: AnyObservation) -> AnyState:
        """The state that has always been at x, with the nearest row: a poor start; see `dynsys.dynamics.warm_up`."""
        return self._pointed(array_namespace(x).concat([x] * self.delays))

    def correct(self, z: AnyState, x: AnyObservation) -> AnyState:
        """The state with its newest point replaced, and the row nearest to it."""
        return self._pointed(array_namespace(z).concat([x, z[self.n_obs : -1]]))

    def _pointed(self, points: Any) -> Any:
        xp = array_namespace(points)
        weights = xp.concat([1.0 / self.scale] * self.delays)
        distances = xp.sum(((self.library - points[None, :]) * weights[None, :]) ** 2, axis=1)
        row = xp.argmin(distances)
        return xp.concat([points, xp.astype(xp.reshape(row, (1,)), points.dtype)])


def _analogue(rows: np.ndarray, end: int, ends: Sequence[int]) -> int:
    """The row most like row `end`, that has a successor and is no part of the same passage.

    The passage reaches back from the end until a row is as far away as the rows are on average.
    """
    distances = ((rows - rows[end][None, :]) ** 2).sum(axis=1)
    first = max([0, *(other + 1 for other in ends if other < end)])
    far = np.flatnonzero(distances[first:end] > distances.mean())
    allowed = np.ones(len(rows), bool)
    allowed[first + int(far[-1]) + 1 if far.size else end : end + 1] = False
    allowed[list(ends)] = False
    return int(np.argmin(np.where(allowed, distances, np.inf)))


def _chosen(series: list[np.ndarray], library: int) -> int:
    """The number of delays whose free runs on the end of the series err least."""
    held = Holdout.of(series)
    errors = {}
    for delays in DELAYS:
        if max(len(x) for x in held.fitted) >= delays + 2:
            model = as_numpy(Parrot._of(held.fitted, delays, library))
            made = np.stack([free_run(model, window, held.true.shape[1]) for window in held.windows(delays)])
            errors[delays] = float(held.error(made))
    return min(errors, key=lambda delays: errors[delays])

"""Models that are fitted in closed form: `from_series` takes the place of random parameters and training.

Their settings are chosen on the last 15 % of the series: fit on the rest, run free from a few of its points, keep the settings
with the smallest error

    error = mean over starts, steps and components of min(|x - f| / sd, 2),

then fit again on everything. A chaotic run forgets its start, so an error is worth no more than being wrong altogether (about 2
standard deviations). All of this is small linear algebra in float64 NumPy: nothing is compiled, and a fit takes a fraction of a
second. `free_run` forecasts without compilation as well.
"""

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float, Real

from dynsys.dynamics import AbstractMap, AnyObservation, AnyState
from dynsys.errors import InvalidValue

VALIDATION = 0.15  # share of every trajectory, at its end, on which settings are chosen
FEWEST = 10  # points that a fit needs
LONGEST_RUN = 300  # steps of a validation run; longer ones tell no more about a chaotic system
SATURATED = 2.0  # standard deviations: the error of a forecast that has nothing to do with the data


class Regressed(AbstractMap):
    """A map that is fitted in closed form from time series; autonomous, so without inputs, unless its class says `driven`."""

    random: ClassVar[bool] = False  # whether the key matters: then several seeds are worth their time
    trains: ClassVar[bool] = False  # whether from_series trains a network itself, for `steps` updates
    driven: ClassVar[bool] = False  # whether from_series takes inputs=[(T_i, K), ...]; u[t] acts between the points t and t + 1

    @classmethod
    @abc.abstractmethod
    def from_series(cls, series: Sequence[Any], *, key: Any = None) -> "Regressed":
        """The model of trajectories [(T_i, N), ...] in their own units, with float64 NumPy arrays.

        key: a JAX key, a whole number or None (the same as 0); it matters where `random` is True. Settings of a model are
        further keywords; those left None are chosen on the end of the series. Raises InvalidValue for series or settings that
        can't be used.
        """

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """0: without inputs, as most of these models are."""
        return 0


class AbstractDelayed(Regressed):
    """A model on the last points of the series, newest first: z = (x[t], x[t-1], ..., x[t-memory])."""

    @abc.abstractmethod
    def following(self, z: AnyState) -> AnyObservation:
        """The next observation, (M,) -> (N,)."""

    @property
    def dim(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """M = N (memory + 1)."""
        return self.n_obs * (self.memory + 1)

    def step(self, z: AnyState, u: Any = None) -> AnyState:
        """The next point in front, the oldest left out."""
        x = self.following(z)
        return x if self.memory == 0 else array_namespace(z).concat([x, z[: -self.n_obs]])

    def observe(self, z: AnyState) -> AnyObservation:
        """The newest point."""
        return z[: self.n_obs]

    def lift(self, x: AnyObservation) -> AnyState:
        """The state that has always been at x: a poor start for a moving system; see `dynsys.dynamics.warm_up`."""
        return x if self.memory == 0 else array_namespace(x).concat([x] * (self.memory + 1))

    def correct(self, z: AnyState, x: AnyObservation) -> AnyState:
        """The state with its newest point replaced."""
        return x if self.memory == 0 else array_namespace(z).concat([x, z[self.n_obs :]])


def free_run(model: AbstractMap, context: Real[Any, "L N"], steps: int) -> Float[np.ndarray, "steps N"]:
    """The forecast of the `steps` points after a context, (steps, N), in plain NumPy float64: nothing is compiled.

    The model is led along the last `memory` + 1 points of the context; a shorter context makes a poorer start. Autonomous
    models only. Raises InvalidValue for an empty context or one of other columns.
    """
    context = np.asarray(context, float)
    if context.ndim != 2 or len(context) == 0 or context.shape[1] != model.n_obs or steps < 0:
        raise InvalidValue(f"free_run: needs a context of shape (L, {model.n_obs}) and steps >= 0, got {context.shape} and {steps=}.")
    if model.n_inputs:
        raise InvalidValue(f"free_run: the model takes n_inputs={model.n_inputs}; use dynsys.dynamics.rollout with its inputs.")
    model = as_numpy(model)
    context = context[-(model.memory + 1) :]
    z, made = model.lift(context[0]), np.empty((steps, model.n_obs))
    with np.errstate(all="ignore"):  # a diverging run is inf or NaN, as it would be on any other library
        for x in context[1:]:
            z = model.correct(model.step(z), x)
        for t in range(steps):
            z = model.step(z)
            made[t] = model.observe(z)
    return made


def as_numpy(model: Any) -> Any:
    """The same model with NumPy arrays for its parameters."""
    return jax.tree.map(np.asarray, model)


def checked_series(who: str, series: Sequence[Any], fewest: int = FEWEST) -> list[Float[np.ndarray, "T N"]]:
    """The trajectories as float64 arrays; those of less than `fewest` points are left out.

    Raises InvalidValue if none is long enough, the columns differ, or a number is not finite.
    """
    found = [np.asarray(x[:] if hasattr(x, "__getitem__") else x, float) for x in series]
    if not found or any(x.ndim != 2 for x in found) or len({x.shape[1] for x in found}) != 1 or found[0].shape[1] == 0:
        raise InvalidValue(f"{who}: needs trajectories [(T, N), ...] of the same columns, got shapes {[x.shape for x in found][:5]}.")
    long = [x for x in found if len(x) >= fewest]
    if not long:
        raise InvalidValue(f"{who}: needs a trajectory of at least {fewest} points, the longest has {max(len(x) for x in found)}.")
    if not all(np.isfinite(x).all() for x in long):
        raise InvalidValue(f"{who}: the series holds NaN or inf. Fill or drop these points first.")
    return long


def moments(series: Sequence[np.ndarray]) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Mean and standard deviation of the columns, (N,) each; 1 for a constant column."""
    whole = np.concatenate(series)
    scale = whole.std(axis=0)
    return whole.mean(axis=0), np.where(scale > 1e-13 * np.abs(whole).max(axis=0), scale, 1.0)


def box(series: Sequence[np.ndarray], bound: float) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """The range of the columns widened by `bound` times itself on each side, (N,) each; a run of a model stays inside.

    Raises InvalidValue unless bound is positive and finite.
    """
    if not 0 < bound < np.inf:
        raise InvalidValue(f"bound must be positive and finite, got bound={bound}: how many ranges of the data a run may leave them by.")
    whole = np.concatenate(series)
    low, high = whole.min(axis=0), whole.max(axis=0)
    margin = bound * np.where(high > low, high - low, 1.0)
    return low - margin, high + margin


def generator(key: Any) -> np.random.Generator:
    """A NumPy generator from a JAX key, a whole number, or None (as 0)."""
    if isinstance(key, jax.Array):
        key = np.asarray(jax.random.key_data(key)).ravel().tolist()
    return np.random.default_rng(0 if key is None else key)


def checked_options(who: str, *, least: dict[str, int] | None = None, **options: Any) -> None:
    """Raise InvalidValue unless every option is None, or a number of at least `least` (for those named there) or 0 and finite."""
    least = {} if least is None else least
    for name, value in options.items():
        if name in least and value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least[name]):
            raise InvalidValue(f"{who}: {name} must be a whole number of at least {least[name]}, got {name}={value!r}.")
        if name not in least and value is not None and (isinstance(value, bool) or not 0 <= value < np.inf):
            raise InvalidValue(f"{who}: {name} must be a finite number of at least 0, got {name}={value!r}.")


@dataclass(frozen=True)
class Holdout:
    """The end of every trajectory, kept for the choice of settings.

    `ends` holds the length of each trajectory's first part; run s begins after row `starts[s]` = (trajectory, row) and is
    compared with `true[s]` (H, N).
    """

    series: tuple[np.ndarray, ...]
    ends: tuple[int, ...]
    starts: tuple[tuple[int, int], ...]
    true: Float[np.ndarray, "S H N"]
    scale: Float[np.ndarray, " N"]

    @classmethod
    def of(cls, series: Sequence[np.ndarray], share: float = VALIDATION) -> "Holdout":
        """Cut the trajectories; runs start at four places (twelve in long series) and last 60 % of a part, at most 300 steps."""
        ends = tuple(len(x) - max(1, round(share * len(x))) for x in series)
        rooms = [len(x) - end for x, end in zip(series, ends, strict=True)]
        length = int(min(LONGEST_RUN, max(1, round(0.6 * max(rooms)))))
        usable = [i for i, room in enumerate(rooms) if room >= length]
        kept = [usable[int(j)] for j in np.unique(np.linspace(0, len(usable) - 1, 8).astype(int))]
        each = -(-(4 if max(rooms) < 1000 else 12) // len(kept))
        starts = []
        for i in kept:
            rows = np.unique(np.linspace(ends[i] - 1, len(series[i]) - 1 - length, each).astype(int))
            starts += [(i, int(row)) for row in rows]
        true = np.stack([series[i][row + 1 : row + 1 + length] for i, row in starts])
        return cls(tuple(series), ends, tuple(starts), true, moments(series)[1])

    @property
    def fitted(self) -> list[np.ndarray]:
        """The first parts, which settings are tried on."""
        return [x[:end] for x, end in zip(self.series, self.ends, strict=True)]

    def windows(self, rows: int) -> Float[np.ndarray, "S rows N"]:
        """The last `rows` points before each run, its start included; where there are fewer, the first one repeats."""
        return np.stack([self.series[i][np.maximum(np.arange(row - rows + 1, row + 1), 0)] for i, row in self.starts])

    def error(self, made: Float[np.ndarray, "*C S H N"]) -> Float[np.ndarray, "*C"]:
        """The error of free runs from all starts, (..., S, H, N) -> (...); infinite numbers count as saturated."""
        with np.errstate(all="ignore"):
            off = np.abs((made - self.true) / np.reshape(self.scale, (1,) * (made.ndim - 1) + (-1,)))
        return np.asarray(np.minimum(np.nan_to_num(off, nan=SATURATED, posinf=SATURATED), SATURATED).mean(axis=(-1, -2, -3)))

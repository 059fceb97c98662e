"""How a registered model learns one series: in closed form where it can, else by `dynsys.fit`; afterwards both answer the same calls."""

import abc
import dataclasses
import functools
from typing import Any

import numpy as np

from dynsys import registry
from dynsys.benchmark.entry import Entry
from dynsys.errors import InvalidValue

EXPONENT_STEPS = 20_000
LONG_RUN = 5_000  # steps from which a compiled free run beats one in NumPy, compilation included


class Learned(abc.ABC):
    """A model that has learned a series; everything goes in and out in the units of that series."""

    @abc.abstractmethod
    def forecast(self, context: np.ndarray, steps: int) -> np.ndarray:
        """The `steps` points after a context (T, N), (steps, N); rows after a divergence are NaN."""

    @abc.abstractmethod
    def exponent(self, context: np.ndarray, dt: float) -> float:
        """The maximal Lyapunov exponent per unit of time of a free run that begins after a context (T, N)."""


def check_entry(entry: Entry) -> None:
    """UnknownName or InvalidValue for options and settings that the entry's model does not take, before any data are read."""
    from dynsys.config import with_settings
    from dynsys.models.regressed import Regressed
    from dynsys.reconstruct import FitSettings
    from dynsys.reconstruct.defaults import checked_options

    cls = registry.lookup("model", entry.name)
    closed = issubclass(cls, Regressed)
    if closed and entry.settings:
        raise InvalidValue(f"{entry.label}: {entry.name} is fitted in closed form and has no {entry.settings[0]}. Leave it out.")
    chosen = with_settings(FitSettings(), [f"model.name={entry.name}", *_changes(entry)])
    checked_options(entry.name, cls.from_series if closed else cls.init, chosen.model.options)


def learn(entry: Entry, train: np.ndarray, *, dt: float, seed: int) -> Learned:
    """Let a model learn `train` (T, N), sampled every dt, in float64 where it is fitted in closed form."""
    from dynsys.models.regressed import Regressed

    cls = registry.lookup("model", entry.name)
    if issubclass(cls, Regressed):
        return _in_closed_form(cls, entry, train, seed)
    return _by_training(entry, train, dt, seed)


@dataclasses.dataclass(frozen=True)
class _ClosedForm(Learned):
    """A model of standardised columns."""

    model: Any
    mean: np.ndarray
    scale: np.ndarray

    def forecast(self, context: np.ndarray, steps: int) -> np.ndarray:
        from dynsys.models.regressed import free_run

        standard = (context - self.mean) / self.scale
        made = free_run(self.model, standard, steps) if steps < LONG_RUN else _compiled_run(self.model, standard, steps)
        return made * self.scale + self.mean

    def exponent(self, context: np.ndarray, dt: float) -> float:
        import jax.numpy as jnp

        from dynsys.dynamics import warm_up
        from dynsys.metrics import lyapunov_max
        from dynsys.precision import x64

        with x64():
            z = np.asarray(warm_up(self.model, jnp.asarray((context - self.mean) / self.scale)))
        return lyapunov_max(self.model, z, steps=EXPONENT_STEPS, dt=dt)


def _compiled_run(model: Any, context: np.ndarray, steps: int) -> np.ndarray:
    """The same as `free_run`, compiled: worth its second of compiling for long runs."""
    import jax.numpy as jnp

    from dynsys.precision import x64

    with x64():
        return np.asarray(_free_run()(model, jnp.asarray(context[-(model.memory + 1) :]), steps))


@functools.cache
def _free_run() -> Any:
    """The compiled function, made once, so that models of the same shapes share it."""
    import equinox as eqx
    import jax

    from dynsys.dynamics import rollout, warm_up

    @eqx.filter_jit
    def run(model: Any, context: Any, steps: int) -> Any:
        return jax.vmap(model.observe)(rollout(model, warm_up(model, context), steps))

    return run


def _in_closed_form(cls: Any, entry: Entry, train: np.ndarray, seed: int) -> _ClosedForm:
    mean, scale = train.mean(axis=0), train.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    key = None
    if cls.random:
        import jax.random as jr

        key = jr.key(seed)
    model = cls.from_series([(train - mean) / scale], key=key, **dict(entry.options))
    return _ClosedForm(model, mean, scale)


@dataclasses.dataclass(frozen=True)
class _Trained(Learned):
    """A reconstruction."""

    found: Any
    dt: float

    def forecast(self, context: np.ndarray, steps: int) -> np.ndarray:
        from dynsys_datasets.series import TimeSeries

        return np.asarray(self.found.forecast(TimeSeries(context, dt=self.dt), steps).trajectories[0])

    def exponent(self, context: np.ndarray, dt: float) -> float:
        from dynsys.metrics import lyapunov_max

        prepared = self.found.preparation.forward(_series(context, dt))
        z = np.asarray(self.found.model.lift(np.asarray(prepared.trajectories[0])[-1]))
        return lyapunov_max(self.found.model, z, steps=EXPONENT_STEPS, dt=dt)


def _series(values: np.ndarray, dt: float) -> Any:
    from dynsys_datasets.series import TimeSeries

    return TimeSeries(values, dt=dt)


def _by_training(entry: Entry, train: np.ndarray, dt: float, seed: int) -> _Trained:
    from dynsys.reconstruct import fit

    usual = ["training.seeds=1", f"training.seed={seed}", "split.test=0.0"]
    found = fit(_series(train, dt), model=entry.name, set=[*usual, *_changes(entry)], progress=False)
    return _Trained(found, dt)


def _changes(entry: Entry) -> list[str]:
    return [*(f"model.{name}={_written(value)}" for name, value in entry.options), *entry.settings]


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

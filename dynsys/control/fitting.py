"""A model of an environment from experience: any registered model with inputs, fitted in closed form or trained.

Closed-form models are fitted as they are; they are told which columns are angles and where observations have bounds if they take
`angles`, `low` and `high`. Others see standardised columns. Trained models go through `dynsys.reconstruct.fit`, with short windows.
"""

import dataclasses
import inspect
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from dynsys import registry
from dynsys.control.experience import Experience
from dynsys.control.members import InUnits
from dynsys.control.settings import ControlSettings
from dynsys.control.task import Task
from dynsys.dynamics import AbstractMap
from dynsys.errors import DataError, InvalidValue
from dynsys.models.regressed import Regressed, moments
from dynsys.precision import x64
from dynsys.prepare.preparation import PreparationConfig
from dynsys.reconstruct import fit
from dynsys.reconstruct.defaults import checked_options
from dynsys.reconstruct.settings import FitSettings, SelectionSettings, SplitSettings
from dynsys_datasets.series import TimeSeries

TRIALS = 5  # free runs that choose among trained models
RUN = 40  # steps of each


def check_model(settings: ControlSettings) -> None:
    """Raise UnknownName or InvalidValue unless the model of the settings can be fitted with inputs and its options are known."""
    cls = registry.lookup("model", settings.model.name)
    if issubclass(cls, Regressed):
        if not cls.driven:
            driven = [n for n in registry.names("model") if getattr(registry.lookup("model", n), "driven", False)]
            raise InvalidValue(
                f"{settings.model.name}: takes no inputs, so it can't be controlled. In closed form these do: {', '.join(driven)}; and "
                "every trained model, such as clipped-shallow-plrnn."
            )
        checked_options(settings.model.name, cls.from_series, settings.model.options)
    else:
        checked_options(settings.model.name, cls.init, settings.model.options)


def fitted(
    experience: Experience, task: Task, bounds: tuple[np.ndarray, np.ndarray], settings: ControlSettings, key: jax.Array
) -> tuple[AbstractMap, ...]:
    """`planner.members` models of the experience in the units of the observations, float64. bounds: of the observations, (N,) each.

    Raises DataError or InvalidValue for experience that the model can't be fitted to.
    """
    cls = registry.lookup("model", settings.model.name)
    with x64():
        if issubclass(cls, Regressed):
            return _solved(cls, experience, task, bounds, settings, key)
    return _trained(experience, settings, key)


def _solved(
    cls: type[Regressed],
    experience: Experience,
    task: Task,
    bounds: tuple[np.ndarray, np.ndarray],
    settings: ControlSettings,
    key: jax.Array,
) -> tuple[AbstractMap, ...]:
    xs, us = experience.series()
    options = checked_options(settings.model.name, cls.from_series, settings.model.options)
    takes = inspect.signature(cls.from_series).parameters
    own = {"angles": task.angles, "low": bounds[0], "high": bounds[1]}
    told = {name: value for name, value in own.items() if name in takes and name not in options}
    keys = [jr.fold_in(key, member) for member in range(settings.planner.members if cls.random else 1)]
    if "angles" in takes:
        return tuple(_arrays(cls.from_series(xs, inputs=us, **told, **options, key=k)) for k in keys)  # pyright: ignore[reportCallIssue]
    (mean, std), (input_mean, input_std) = moments(xs), moments(us)
    xs, us = [(x - mean[None, :]) / std[None, :] for x in xs], [(u - input_mean[None, :]) / input_std[None, :] for u in us]
    models = [_arrays(cls.from_series(xs, inputs=us, **options, key=k)) for k in keys]  # pyright: ignore[reportCallIssue]
    return tuple(_in_units(model, (mean, std, input_mean, input_std)) for model in models)


def _trained(experience: Experience, settings: ControlSettings, key: jax.Array) -> tuple[AbstractMap, ...]:
    xs, us = experience.series()
    window = settings.training.window or int(max(2, min(25, max(len(x) for x in xs) // 2)))
    long = [i for i, x in enumerate(xs) if len(x) >= max(window, 8)]
    if not long:
        raise DataError(f"{settings.model.name}: no episode has {max(window, 8)} points. Set a shorter training.window, or collect more.")
    series = TimeSeries([xs[i] for i in long], dt=1.0, inputs=[us[i] for i in long], source="experience")
    seed = int(np.asarray(jr.key_data(key)).ravel()[-1] % 2**31)
    chosen = FitSettings(
        model=settings.model,
        training=dataclasses.replace(settings.training, window=window, seeds=settings.planner.members, seed=seed),
        selection=SelectionSettings(starts=TRIALS, steps=RUN),
        split=SplitSettings(0.0, 0.0),
        preparation=PreparationConfig(embedding="none"),
    )
    found = fit(series, settings=chosen, progress=False)
    p = found.preparation
    with x64():
        about = tuple(np.asarray(part) for part in (p.mean, p.scale, p.input_mean, p.input_scale))
        members = [_in_units(_double(model), about) for model in found.ensemble]
    return tuple(members)


def _in_units(model: AbstractMap, about: Sequence[np.ndarray]) -> InUnits:
    return InUnits(model, *(jnp.asarray(part) for part in about))  # pyright: ignore[reportCallIssue, reportArgumentType]


def _arrays(model: AbstractMap) -> AbstractMap:
    return jax.tree.map(jnp.asarray, model)


def _double(model: AbstractMap) -> AbstractMap:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, float) if np.asarray(leaf).dtype.kind == "f" else leaf, model)

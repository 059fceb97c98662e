"""Fitting the models that need no training: from_series on the training part, once a seed, scored like trained ones.

The choice of their settings is their own (on the end of the training part); the free-run score of the pipeline only ranks the seeds
of those that are random.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr

from dynsys import registry
from dynsys.dynamics import AbstractMap
from dynsys.errors import DataError
from dynsys.models.regressed import Regressed
from dynsys.prepare.preparation import Prepared
from dynsys.reconstruct.defaults import checked_options
from dynsys.reconstruct.settings import FitSettings
from dynsys.status import Status
from dynsys.train.trainer import WORST_SCORE, Scored, Trained


def is_closed_form(settings: FitSettings) -> bool:
    """Whether the model of these settings is fitted in closed form."""
    return issubclass(registry.lookup("model", settings.model.name), Regressed)


def resolve(settings: FitSettings) -> tuple[FitSettings, tuple[str, ...]]:
    """The settings as they apply: float64, and one seed for a model without random numbers; and what was chosen, in words."""
    name, training = settings.model.name, dataclasses.replace(settings.training, precision="float64")
    cls = registry.lookup("model", name)
    words = (f"training = none: {name} is fitted in closed form, in float64",)
    if cls.trains:
        words = (f"training = its own: {name} has its options under model, such as model.steps; those of training are not used",)
    if not cls.random:
        training = dataclasses.replace(training, seeds=1)
        words = (*words, f"seeds = 1: {name} has no random numbers")
    return dataclasses.replace(settings, training=training), words


def solve(settings: FitSettings, data: Prepared) -> tuple[AbstractMap, ...]:
    """One fitted model a seed. Raises DataError for a series with inputs, InvalidValue for settings or data that can't be used."""
    name, options = settings.model.name, settings.model.options
    cls = registry.lookup("model", name)
    if data.inputs is not None and not cls.driven:
        raise DataError(
            f"{name}: is autonomous, but the recording has {data.inputs[0].shape[1]} input columns. Leave them out, or choose a model "
            "that takes inputs, such as edmd or clipped-shallow-plrnn."
        )
    known = checked_options(name, cls.from_series, options)
    root = jr.fold_in(jr.key(settings.training.seed), 1)
    driven = {} if data.inputs is None else {"inputs": data.inputs}
    keys = [jr.fold_in(root, seed) for seed in range(settings.training.seeds)]
    fitted = (cls.from_series(data.trajectories, **known, **driven, key=key) for key in keys)
    return tuple(jax.tree.map(jnp.asarray, model) for model in fitted)


def scored(models: tuple[AbstractMap, ...], scorer: Callable[[AbstractMap], Scored]) -> Trained:
    """The fitted models with their free-run scores, as if trained: kept and last are the same, and there is no history."""
    scores = tuple(min(scorer(model).total, WORST_SCORE) for model in models)
    status = tuple(Status.DEAD if score >= WORST_SCORE else Status.SUCCESS for score in scores)
    return Trained(kept=models, last=models, scores=scores, kept_at=(0,) * len(models), history=(), status=status)

"""Settings that the user left open, chosen from the data: its length, dimension and noise.

The rules come from trials (docs/choose.md): noisy data want little forcing (alpha .15) and long windows, clean and
higher-dimensional data more forcing (.3), shorter windows and a lower final learning rate; an AL-RNN wants sparse forcing.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array

from dynsys import registry
from dynsys.analysis.spectrum import autocorrelation
from dynsys.config import Options
from dynsys.dynamics import AbstractMap
from dynsys.errors import InvalidValue, UnknownName
from dynsys.prepare.preparation import Prepared
from dynsys.reconstruct.settings import FitSettings, TrainingSettings
from dynsys.train.forcing import AbstractForcing, Adaptive, Annealed, Constant, FreeRunning, GeneralizedForcing, SparseForcing

NOISY = 0.01  # standard deviation of observation noise over that of the data


def resolve(settings: FitSettings, data: Prepared, noise_level: float) -> tuple[FitSettings, tuple[str, ...]]:
    """Fill every None of the training settings; returns the settings and what was chosen and why, in words."""
    training, words = settings.training, []
    cls = registry.lookup("model", settings.model.name)
    noisy = noise_level >= NOISY
    dims = data.trajectories[0].shape[1]
    kind = "noisy" if noisy else "clean"

    def choose(name: str, value: Any, why: str) -> None:
        nonlocal training
        if getattr(training, name) is None:
            training = dataclasses.replace(training, **{name: value})
            words.append(f"{name} = {value}: {why}")

    longest = max(x.shape[0] for x in data.trajectories)
    usual = 100 if noisy or dims < 4 or cls.forcing == "sparse" else 50
    choose("window", int(max(2, min(usual, longest // 4))), f"{usual} is usual for such data; at most a quarter of {longest} rows")
    choose("forcing", cls.forcing, f"the kind that suits {settings.model.name}")
    if training.forcing == "sparse":
        interval = sparse_interval(data, training.window or usual)
        choose("interval", interval, "0.6 of the time in which the autocorrelation falls to 1/e")
    if training.forcing in ("generalised", "adaptive", "annealed"):
        alpha = 0.15 if noisy else 0.3 if dims >= 4 and len(data.names) == dims and not _embedded(data) else 0.2
        choose("alpha", alpha, f"{kind} data (noise about {100 * noise_level:.2g} %) of dimension {dims}")
    choose("learning_rate", 1e-3, "works for all models here")
    final = (training.learning_rate or 1e-3) * (0.1 if noisy and cls.forcing != "sparse" else 0.01)
    choose("final_learning_rate", final, f"{kind} data")
    return dataclasses.replace(settings, training=training), tuple(words)


def sparse_interval(data: Prepared, window: int) -> int:
    """Steps between two sparse forcings: 0.6 times the 1/e lag of the mean autocorrelation, from 2 to a third of a window."""
    longest = np.asarray(max(data.trajectories, key=len)[:50_000])
    lags = min(len(longest) // 2, 2000)
    mean = np.asarray(autocorrelation(longest, lags)).reshape(lags + 1, -1).mean(axis=1)
    below = np.flatnonzero(mean < np.exp(-1.0))
    lag = int(below[0]) if below.size else lags
    return int(np.clip(round(0.6 * lag), 2, max(2, window // 3)))


def make_forcing(training: TrainingSettings) -> AbstractForcing:
    """The forcing object of resolved settings."""
    alpha = training.alpha if training.alpha is not None else 0.0
    makers = {
        "sparse": lambda: SparseForcing(interval=training.interval or 2, complete=training.complete),
        "generalised": lambda: GeneralizedForcing(Constant(alpha), complete=training.complete),
        "annealed": lambda: GeneralizedForcing(Annealed(floor=alpha), complete=training.complete),
        "adaptive": lambda: GeneralizedForcing(Adaptive(start=max(0.3, alpha), floor=alpha), complete=training.complete),
        "free": FreeRunning,
    }
    return makers[training.forcing or "adaptive"]()


def chunk_of(steps: int, largest: int) -> int:
    """Updates in one compiled call: at most `largest`, and such that whole calls add up to `steps` rounded up by a few."""
    calls = -(-steps // largest)
    return -(-steps // (5 * calls)) * 5


def make_optimizer(training: TrainingSettings) -> optax.GradientTransformation:
    """The optax optimiser of a name, with a rate that decays exponentially from the first to the final one over the run.

    Raises UnknownName for a name that optax lacks.
    """
    first, last = training.learning_rate or 1e-3, training.final_learning_rate or 1e-4
    schedule = optax.exponential_decay(first, training.steps, last / first, end_value=last)
    maker = getattr(optax, training.optimizer, None)
    known = ("adabelief", "adam", "adamw", "lion", "nadam", "radam", "rmsprop", "sgd", "yogi")
    if maker is None or training.optimizer not in known:
        raise UnknownName("optimizer", training.optimizer, known)
    return maker(schedule)


def make_model(name: str, options: Options, *, n_obs: int, n_inputs: int, key: Array) -> AbstractMap:
    """A registered model with random parameters; its options are checked against what its `init` takes.

    Raises UnknownName for a model or an option that does not exist, InvalidValue for one of the wrong type.
    """
    cls = registry.lookup("model", name)
    return cls.init(n_obs, n_inputs, **checked_options(name, cls.init, options), key=key)


def checked_options(name: str, maker: Callable[..., Any], options: Options) -> dict[str, Any]:
    """The options of a model as keywords of what makes it, checked against its keyword-only arguments; errors as in `make_model`."""
    takes = {p.name: p for p in inspect.signature(maker).parameters.values() if p.kind is p.KEYWORD_ONLY and p.name != "key"}
    found = {}
    for option, value in options.pairs:
        if option not in takes:
            raise UnknownName(f"option of {name}", option, takes)
        annotation = takes[option].annotation
        wanted = annotation.__name__ if isinstance(annotation, type) else str(annotation)
        plain = {"int": int, "str": str, "float": (int, float), "bool": bool}
        allowed = next((types for word, types in plain.items() if word in wanted), object)
        if not isinstance(value, allowed) or (isinstance(value, bool) and "bool" not in wanted):
            raise InvalidValue(f"model.{option}: expected {wanted.replace(' | None', '')}, got {value!r}.")
        found[option] = float(value) if isinstance(value, int) and "float" in wanted else value
    return found


def make_models(settings: FitSettings, *, n_obs: int, n_inputs: int) -> tuple[AbstractMap, ...]:
    """One model a seed, from keys folded into the run's seed."""
    root = jr.fold_in(jr.key(settings.training.seed), 1)
    seeds = range(settings.training.seeds)
    return tuple(
        make_model(settings.model.name, settings.model.options, n_obs=n_obs, n_inputs=n_inputs, key=jr.fold_in(root, i)) for i in seeds
    )


def _embedded(data: Prepared) -> bool:
    return data.offset > 0

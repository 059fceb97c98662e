"""Names of everything that a user can choose, resolved late.

One table per kind maps a name to "module:attribute". Third parties add theirs through the entry-point groups
`dynsys.models`, `dynsys.observations`, `dynsys.cells`, `dynsys.flows`, `dynsys.metrics` and `dynsys.solvers`; those never override a
built-in name.
"""

import functools
import importlib
from importlib.metadata import entry_points
from typing import Any

from dynsys_datasets.errors import UnknownName

MODELS = {
    "plrnn": "dynsys.models.plrnn:PLRNN",
    "mean-centered-plrnn": "dynsys.models.plrnn:MeanCenteredPLRNN",
    "dendritic-plrnn": "dynsys.models.dendritic:DendriticPLRNN",
    "clipped-dendritic-plrnn": "dynsys.models.dendritic:ClippedDendriticPLRNN",
    "shallow-plrnn": "dynsys.models.shallow:ShallowPLRNN",
    "clipped-shallow-plrnn": "dynsys.models.shallow:ClippedShallowPLRNN",
    "alrnn": "dynsys.models.alrnn:ALRNN",
    "mean": "dynsys.models.baseline:Mean",
    "persistence": "dynsys.models.baseline:Persistence",
    "parrot": "dynsys.models.baseline:Parrot",
    "var": "dynsys.models.autoregressive:VAR",
    "nvar": "dynsys.models.autoregressive:NVAR",
    "polynomial-flow-map": "dynsys.models.autoregressive:PolynomialFlowMap",
    "esn": "dynsys.models.reservoir:EchoStateNetwork",
}

METRICS = {
    "d_stsp_binned": "dynsys.metrics.divergence:state_space_divergence_binned",
    "d_stsp_gmm": "dynsys.metrics.divergence:state_space_divergence_gmm",
    "fraction_outside": "dynsys.metrics.divergence:fraction_outside",
    "d_h": "dynsys.metrics.power:power_spectrum_distance",
    "prediction_error": "dynsys.metrics.forecast:prediction_error",
    "valid_prediction_time": "dynsys.metrics.forecast:valid_prediction_time",
    "smape": "dynsys.metrics.forecast:smape",
    "mase": "dynsys.metrics.forecast:mase",
    "lyapunov_max": "dynsys.metrics.invariants:lyapunov_max",
}

SOLVERS = {
    "tsit5": "diffrax:Tsit5",
    "dopri5": "diffrax:Dopri5",
    "dopri8": "diffrax:Dopri8",
    "kvaerno5": "diffrax:Kvaerno5",
}

OBSERVATIONS = {
    "identity": "dynsys.models.observation:IdentityObservation",
    "affine": "dynsys.models.observation:AffineObservation",
}

CELLS: dict[str, str] = {}

FLOWS: dict[str, str] = {}

_TABLES = {"model": MODELS, "observation": OBSERVATIONS, "cell": CELLS, "flow": FLOWS, "metric": METRICS, "solver": SOLVERS}


@functools.cache
def table(kind: str) -> dict[str, str]:
    """All names of a kind ('model', 'observation', 'cell', 'flow', 'metric', 'solver') with their targets, built-in ones first."""
    if kind not in _TABLES:
        raise UnknownName("kind", kind, _TABLES)
    found = dict(_TABLES[kind])
    for point in entry_points(group=f"dynsys.{kind}s"):
        found.setdefault(point.name, point.value)
    return found


def names(kind: str) -> tuple[str, ...]:
    """Registered names of a kind, in table order."""
    return tuple(table(kind))


def lookup(kind: str, name: str) -> Any:
    """The class or function behind a name; UnknownName with close matches if there is none."""
    targets = table(kind)
    if name not in targets:
        raise UnknownName(kind, name, targets)
    module, _, attribute = targets[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def name_of(kind: str, target: type) -> str:
    """The registered name of a class; UnknownName if it was never registered."""
    wanted = f"{target.__module__}:{target.__qualname__}"
    for name, value in table(kind).items():
        if value == wanted:
            return name
    raise UnknownName(kind, wanted, table(kind).values())

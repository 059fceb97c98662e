"""Names of everything that a user can choose, resolved late.

One table per kind maps a name to "module:attribute". Third parties add theirs through the entry-point groups
`dynsys.models`, `dynsys.observations`, `dynsys.cells`, `dynsys.flows`, `dynsys.dictionaries`, `dynsys.controllers`, `dynsys.costs`,
`dynsys.policies`, `dynsys.lyapunovs`, `dynsys.metrics` and `dynsys.solvers`; those never override a built-in name. Parts are what models
and controllers are wrapped in; policies and candidates of Lyapunov functions are what proofs are about.
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
    "random-features": "dynsys.models.random_features:RandomFeatures",
    "dmd": "dynsys.models.koopman.dmd:DMD",
    "hankel-dmd": "dynsys.models.koopman.dmd:HankelDMD",
    "edmd": "dynsys.models.koopman.edmd:EDMD",
    "kernel-edmd": "dynsys.models.koopman.kernel_edmd:KernelEDMD",
    "generator-edmd": "dynsys.models.koopman.generator:GeneratorEDMD",
    "ltc": "dynsys.models.liquid_maps:LTCMap",
    "conductance-ltc": "dynsys.models.liquid_maps:ConductanceLTCMap",
    "cfc": "dynsys.models.liquid_maps:CfCMap",
    "cfc-mixed": "dynsys.models.liquid_maps:CfCMixedMap",
    "neural-ode": "dynsys.models.neural_ode:NeuralODE",
    "dpnet": "dynsys.models.koopman.dpnet:DPNet",
    "koopman-vae": "dynsys.models.koopman.vae:KoopmanVAE",
    "koopman-autoencoder": "dynsys.models.koopman.autoencoder:KoopmanAutoencoder",
    "koopman-diagonal": "dynsys.models.koopman.diagonal:DiagonalKoopman",
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
    "learned-lift": "dynsys.models.observation:LearnedLift",
    "affine": "dynsys.models.observation:AffineObservation",
}

CELLS: dict[str, str] = {
    "ltc": "dynsys.models.liquid:LTC",
    "conductance-ltc": "dynsys.models.liquid:ConductanceLTC",
    "cfc": "dynsys.models.closed_form_cell:CfC",
    "lstm": "dynsys.models.gated:LSTM",
    "gru": "dynsys.models.gated:GRU",
    "mixed-memory": "dynsys.models.composed:MixedMemory",
    "stacked": "dynsys.models.composed:Stacked",
    "flow": "dynsys.models.flow_cell:FlowCell",
}

FLOWS: dict[str, str] = {
    "liquid": "dynsys.models.liquid:LiquidFlow",
    "mlp": "dynsys.models.fields:MLPField",
    "second-order": "dynsys.models.fields:SecondOrderField",
    "hamiltonian": "dynsys.models.fields:HamiltonianField",
    "known": "dynsys.models.universal:Known",
    "universal": "dynsys.models.universal:Universal",
}

DICTIONARIES: dict[str, str] = {
    "monomials": "dynsys.models.koopman.dictionary:Monomials",
    "hermite": "dynsys.models.koopman.dictionary:Hermite",
    "radial": "dynsys.models.koopman.dictionary:RadialBasis",
    "fourier": "dynsys.models.koopman.dictionary:FourierFeatures",
    "waves": "dynsys.models.koopman.dictionary:Waves",
    "network": "dynsys.models.koopman.network_dictionary:NetworkDictionary",
    "product": "dynsys.models.koopman.dictionary:Product",
    "joined": "dynsys.models.koopman.dictionary:Joined",
}

CONTROLLERS: dict[str, str] = {
    "linear-feedback": "dynsys.control.controller:LinearFeedback",
    "following": "dynsys.control.controller:Following",
    "receding-horizon": "dynsys.control.controller:RecedingHorizon",
    "mpc": "dynsys.control.mpc:MPC",
    "sdre": "dynsys.control.sdre:SDRE",
    "lipschitz-policy": "dynsys.control.imitation:LipschitzPolicy",
}

COSTS: dict[str, str] = {
    "quadratic": "dynsys.control.cost:Quadratic",
    "scaled": "dynsys.control.cost:Scaled",
    "seen": "dynsys.control.task:Seen",
    "bordered": "dynsys.control.task:Bordered",
    "over-members": "dynsys.control.members:OverMembers",
    "learned-reward": "dynsys.control.reward:LearnedReward",
    "mountain-car": "dynsys.control.known:MountainCarCost",
    "reacher": "dynsys.control.known:ReacherCost",
}

PARTS: dict[str, str] = {
    "side-by-side": "dynsys.control.members:SideBySide",
    "in-units": "dynsys.control.members:InUnits",
    "constraints": "dynsys.control.constraints:Constraints",
    "on-segment": "dynsys.control.sdre:OnSegment",
    "learned-factors": "dynsys.control.factored:Learned",
}

POLICIES: dict[str, str] = {
    "saturated-linear": "dynsys.verify.policy:SaturatedLinear",
    "neural-policy": "dynsys.verify.policy:NeuralPolicy",
    "network": "dynsys.verify.network:Network",
}

LYAPUNOVS: dict[str, str] = {
    "quadratic": "dynsys.verify.lyapunov:QuadraticLyapunov",
    "polynomial": "dynsys.verify.lyapunov:PolynomialLyapunov",
    "neural": "dynsys.verify.lyapunov:NeuralLyapunov",
    "piecewise-affine": "dynsys.verify.lyapunov:PiecewiseAffineLyapunov",
    "piecewise-quadratic": "dynsys.verify.lyapunov:PiecewiseQuadraticLyapunov",
    "symbolic": "dynsys.verify.symbolic:SymbolicLyapunov",
}

_TABLES = {
    "model": MODELS,
    "observation": OBSERVATIONS,
    "cell": CELLS,
    "flow": FLOWS,
    "dictionary": DICTIONARIES,
    "controller": CONTROLLERS,
    "cost": COSTS,
    "part": PARTS,
    "policy": POLICIES,
    "lyapunov": LYAPUNOVS,
    "metric": METRICS,
    "solver": SOLVERS,
}


_PLURALS = {"dictionary": "dictionaries", "policy": "policies"}


@functools.cache
def table(kind: str) -> dict[str, str]:
    """All names of a kind, a key of `_TABLES`, with their targets, built-in ones first."""
    if kind not in _TABLES:
        raise UnknownName("kind", kind, _TABLES)
    found = dict(_TABLES[kind])
    for point in entry_points(group=f"dynsys.{_PLURALS.get(kind, f'{kind}s')}"):
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

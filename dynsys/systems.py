"""Systems of the chaos database (or of a user's own file) as nouns whose parameters are arrays.

    flow = load_system("Lorenz", rho=45.0)        flow.field(t, z), flow.start, flow.dt
    sweep = flow.sweep(rho=jnp.linspace(20, 90, 71))     every parameter carries a leading axis, for jax.vmap and solve

    kind          noun                equation
    flow, field   SystemFlow          dz/dt = field(t, z, u)
    map           SystemMap           z[t+1] = step(z, u)
    delay         SystemDelay         dz/dt = field(t, z(t), z(t - lags), u)
    sde           SystemStochastic    dz = field(t, z, u) dt + diffusion(t, z, u) dW

The record (equations, facts) is static, so that two flows of one system share their compiled code.
"""

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Float

from dynsys.dynamics import AbstractFlow, AbstractMap, AnyInput, AnyObservation, AnyState
from dynsys.errors import DataError, InvalidValue, UnknownName
from dynsys.precision import x64
from dynsys_datasets.catalogue import SystemRecord, system


class SystemFlow(AbstractFlow):
    """A flow dz/dt = field(t, z, u) from a system file; `parameters` are its leaves, float64 whatever JAX's setting."""

    parameters: dict[str, Any]
    record: SystemRecord = eqx.field(static=True)

    @property
    def dim(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """M, the number of states."""
        return self.record.dim

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """K, the number of inputs."""
        return self.record.n_inputs

    @property
    def names(self) -> tuple[str, ...]:
        """One name for each state."""
        return self.record.state_names

    @property
    def start(self) -> np.ndarray:
        """A state on the attractor of the file's own parameters, (M,), float64."""
        return self.record.start

    @property
    def dt(self) -> float:
        """The usual sampling interval, in the system's unit of time."""
        return self.record.dt

    def field(self, t: Any, z: AnyState, u: AnyInput = None) -> AnyState:
        """The right-hand side of the file, (), (M,), (K,) -> (M,), on the array library of z."""
        return self.record.field(t, _traced(z, self.parameters), u, self.parameters)

    def sweep(self, **values: Any) -> "SystemFlow":
        """The same flow with a leading axis B on every parameter: those named take `values` (B, ...), the others repeat."""
        return swept(self, values)


class SystemMap(AbstractMap):
    """A map z[t+1] = step(z, u) from a system file, all states observed; `parameters` are its leaves, float64."""

    parameters: dict[str, Any]
    record: SystemRecord = eqx.field(static=True)

    @property
    def dim(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """M, the number of states."""
        return self.record.dim

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """N = M: every state is observed."""
        return self.record.dim

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """K, the number of inputs."""
        return self.record.n_inputs

    @property
    def names(self) -> tuple[str, ...]:
        """One name for each state."""
        return self.record.state_names

    @property
    def start(self) -> np.ndarray:
        """A state on the attractor of the file's own parameters, (M,), float64."""
        return self.record.start

    @property
    def dt(self) -> float:
        """1: time is counted in steps."""
        return self.record.dt

    def step(self, z: AnyState, u: AnyInput = None) -> AnyState:
        """The right-hand side of the file, (M,), (K,) -> (M,), on the array library of z."""
        return self.record.field(0.0, _traced(z, self.parameters), u, self.parameters)

    def observe(self, z: AnyState) -> AnyObservation:
        """The state itself."""
        return z

    def lift(self, x: AnyObservation) -> AnyState:
        """The observation itself."""
        return x

    def sweep(self, **values: Any) -> "SystemMap":
        """The same map with a leading axis B on every parameter: those named take `values` (B, ...), the others repeat."""
        return swept(self, values)


class SystemStochastic(AbstractFlow):
    """A stochastic system dz = field dt + diffusion dW from a system file; each state has its own Wiener process.

    Its field is the drift, so that as a flow it is the same system without noise.
    """

    parameters: dict[str, Any]
    record: SystemRecord = eqx.field(static=True)

    @property
    def dim(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """M, the number of states."""
        return self.record.dim

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """K, the number of inputs."""
        return self.record.n_inputs

    @property
    def names(self) -> tuple[str, ...]:
        """One name for each state."""
        return self.record.state_names

    @property
    def start(self) -> np.ndarray:
        """A state that the system visits, (M,), float64."""
        return self.record.start

    @property
    def dt(self) -> float:
        """The usual sampling interval, in the system's unit of time."""
        return self.record.dt

    @property
    def calculus(self) -> str:
        """'ito' or 'stratonovich': how the product of diffusion and noise is meant."""
        return self.record.file.calculus

    def field(self, t: Any, z: AnyState, u: AnyInput = None) -> AnyState:
        """The drift, (), (M,), (K,) -> (M,), on the array library of z."""
        return self.record.field(t, _traced(z, self.parameters), u, self.parameters)

    def diffusion(self, t: Any, z: AnyState, u: AnyInput = None) -> AnyState:
        """The amplitude of the noise of every state, (), (M,), (K,) -> (M,), on the array library of z."""
        return self.record.diffusion(t, _traced(z, self.parameters), u, self.parameters)

    def sweep(self, **values: Any) -> "SystemStochastic":
        """The same system with a leading axis B on every parameter: those named take `values` (B, ...), the others repeat."""
        return swept(self, values)


class SystemDelay(eqx.Module):
    """A delay equation dz/dt = field(t, z(t), z(t - lags)) from a system file; its state is the whole past, not a vector.

    lags: the delays (L,) in the file's unit of time, or (B, L) after a sweep, as numbers: a delay decides how much past is
    kept, so it can't be traced. `load_system` and `sweep` compute them from the parameters; a parameter that is replaced
    otherwise leaves them as they are.
    """

    parameters: dict[str, Any]
    record: SystemRecord = eqx.field(static=True)
    lags: tuple[Any, ...] = eqx.field(static=True)

    @property
    def dim(self) -> int:
        """M, the number of states."""
        return self.record.dim

    @property
    def n_inputs(self) -> int:
        """K, the number of inputs."""
        return self.record.n_inputs

    @property
    def names(self) -> tuple[str, ...]:
        """One name for each state."""
        return self.record.state_names

    @property
    def start(self) -> np.ndarray:
        """A state (M,), float64; as a past it stands for having been constant."""
        return self.record.start

    @property
    def dt(self) -> float:
        """The usual sampling interval, in the system's unit of time."""
        return self.record.dt

    def field(self, t: Any, z: AnyState, delayed: Float[Any, "L M"], u: AnyInput = None) -> AnyState:
        """The right-hand side, (), (M,), (L, M), (K,) -> (M,), on the array library of z; row j of `delayed` is z(t - lags[j])."""
        return self.record.field(t, _traced(z, self.parameters), u, self.parameters, delayed)

    def sweep(self, **values: Any) -> "SystemDelay":
        """The same system with a leading axis B on every parameter: those named take `values` (B, ...), the others repeat."""
        found = swept(self, values)
        lanes = len(next(iter(found.parameters.values())))
        lags = tuple(_lags(self.record, {name: value[lane] for name, value in found.parameters.items()}) for lane in range(lanes))
        return dataclasses.replace(found, lags=lags)


def load_system(name_or_path: str | Path, /, **parameters: Any) -> SystemFlow | SystemMap | SystemDelay | SystemStochastic:
    """A system of the database by its exact name, or a user's .toml file, with some parameters or sizes changed.

    `load_system("Lorenz", rho=45)`, `load_system("Lorenz96", n=40, F=10)`. Raises UnknownName for a system or a parameter
    that is not there (with close matches), DataError if the file is wrong, InvalidValue if a value has the wrong shape or a
    new size does not fit a vector parameter.
    """
    record = system(name_or_path)
    sizes = dict(record.file.sizes)
    for name in parameters:
        if name not in record.parameters and name not in sizes:
            raise UnknownName(f"parameter of {record.name}", name, [*record.parameters, *sizes])
    changed = {name: value for name, value in parameters.items() if name in sizes}
    record = _resized(record, changed) if changed else record
    known = record.parameters
    values = {name: _parameter(record.name, name, parameters.get(name, value), value.shape) for name, value in known.items()}
    if record.kind == "delay":
        return SystemDelay(parameters=values, record=record, lags=_lags(record, values))  # pyright: ignore[reportCallIssue]
    make = {"map": SystemMap, "sde": SystemStochastic}.get(record.kind, SystemFlow)
    return make(parameters=values, record=record)  # pyright: ignore[reportCallIssue]


def _resized(record: SystemRecord, sizes: dict[str, Any]) -> SystemRecord:
    """The record with other sizes; InvalidValue if vector parameters have one of those sizes as their length."""
    try:
        return record.resized(**sizes)
    except DataError as error:
        lengths = {length for name, length in record.file.sizes if name in sizes}
        tied = [f"{p.name} {p.shape}" for p in record.file.parameters if lengths & set(p.shape)]
        if not tied:
            raise
        shown = ", ".join(f"{name}={value}" for name, value in sizes.items())
        raise InvalidValue(
            f"{record.name}: {shown} does not fit the parameters whose lengths are that size too: {', '.join(tied)}. Change both in the "
            'file, or write them there as definitions of the index that follow any size: [define] "w[i]" = "1 + 0.1*i". ' + f"({error})"
        ) from None


def _lags(record: SystemRecord, parameters: dict[str, Any]) -> tuple[float, ...]:
    """The delays (L,) as numbers; InvalidValue unless they are positive, finite and independent of what is being traced."""
    known = {
        name: np.full(value.shape, np.nan)[()] if isinstance(value, Tracer) else np.asarray(value) for name, value in parameters.items()
    }
    lags = record.lags(known)
    if not lags:
        raise InvalidValue(f"{record.name}: kind = 'delay' but no equation has a delay(...); use kind = 'flow'.")
    for lag in lags:
        if not 0 < lag < np.inf:
            traced = any(isinstance(value, Tracer) for value in parameters.values()) and np.isnan(lag)
            why = "can't be traced or differentiated by; pass it as a number, or use sweep" if traced else "must be positive"
            raise InvalidValue(f"{record.name}: a delay {why}, got {lag}. The delays are {lags}.")
    return lags


def _traced(z: Any, parameters: dict[str, Any]) -> Any:
    """A NumPy state as a JAX array if a parameter is being traced: a gradient by parameters at `flow.start`."""
    return jnp.asarray(z) if isinstance(z, np.ndarray) and any(isinstance(p, Tracer) for p in parameters.values()) else z


def _parameter(who: str, name: str, value: Any, shape: tuple[int, ...]) -> Any:
    if isinstance(value, str):
        raise InvalidValue(f"{who}: {name} must be a number or an array of shape {shape}, got the text {value!r}.")
    with x64():
        found = jnp.asarray(value, dtype=jnp.float64)
    if found.shape != shape:
        raise InvalidValue(
            f"{who}: {name} must have shape {shape}, got {found.shape}. For many values at once use load_system(...).sweep({name}=values)."
        )
    return found


Swept = TypeVar("Swept", SystemFlow, SystemMap, SystemDelay, SystemStochastic)


def swept(flow: Swept, values: dict[str, Any]) -> Swept:
    """`flow` with a leading axis on every parameter; InvalidValue unless all named values have one length B."""
    who = f"{flow.record.name}.sweep"
    if not values:
        raise InvalidValue(f"{who}: no parameter was named; known: {', '.join(flow.parameters)}.")
    with x64():
        arrays = {name: jnp.asarray(value, dtype=jnp.float64) for name, value in values.items()}
        for name, array in arrays.items():
            if name not in flow.parameters:
                raise UnknownName(f"parameter of {flow.record.name}", name, flow.parameters)
            if array.shape[1:] != flow.parameters[name].shape or array.ndim == 0:
                raise InvalidValue(f"{who}: {name} must have shape (B, *{flow.parameters[name].shape}), got {array.shape}.")
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            raise InvalidValue(f"{who}: all values must have one length, got {lengths}. For a grid, pass the flattened np.meshgrid.")
        size = next(iter(lengths.values()))
        spread = {
            name: arrays[name] if name in arrays else jnp.broadcast_to(value[None], (size, *value.shape))
            for name, value in flow.parameters.items()
        }
    return eqx.tree_at(lambda tree: tree.parameters, flow, spread)

"""Systems of the chaos database (or of a user's own file) as flows and maps whose parameters are arrays.

    flow = load_system("Lorenz", rho=45.0)        flow.field(t, z), flow.start, flow.dt
    sweep = flow.sweep(rho=jnp.linspace(20, 90, 71))     every parameter carries a leading axis, for jax.vmap and solve

The record (equations, facts) is static, so that two flows of one system share their compiled code.
"""

from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from dynsys.dynamics import AbstractFlow, AbstractMap, AnyInput, AnyObservation, AnyState
from dynsys.errors import InvalidValue, UnknownName
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


def load_system(name_or_path: str | Path, /, **parameters: Any) -> SystemFlow | SystemMap:
    """A system of the database by its exact name, or a user's .toml file, with some parameters or sizes changed.

    `load_system("Lorenz", rho=45)`, `load_system("Lorenz96", n=40, F=10)`. Raises UnknownName for a system or a parameter
    that is not there (with close matches), DataError if the file is wrong, InvalidValue if a value has the wrong shape.
    """
    record = system(name_or_path)
    known = record.parameters
    sizes = dict(record.file.sizes)
    for name in parameters:
        if name not in known and name not in sizes:
            raise UnknownName(f"parameter of {record.name}", name, [*known, *sizes])
    changed = {name: value for name, value in parameters.items() if name in sizes}
    record = record.resized(**changed) if changed else record
    if record.kind not in ("flow", "map", "field"):
        raise InvalidValue(
            f"{record.name}: load_system makes flows and maps, this system has kind {record.kind!r}. "
            "Its equations are functions of its record: dynsys_datasets.catalogue.system(...).field."
        )
    values = {name: _parameter(record.name, name, parameters.get(name, value), value.shape) for name, value in known.items()}
    make = SystemMap if record.kind == "map" else SystemFlow
    return make(parameters=values, record=record)  # pyright: ignore[reportCallIssue]


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


Swept = TypeVar("Swept", SystemFlow, SystemMap)


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

"""Known equations, as a flow of standardised coordinates, alone or with a network that learns what they lack.

    known      dz/ds = (dt / scale) f(mean + scale z; theta)       f: a system of the database, s counts sampling intervals
    universal  dz/ds = (known(z[:N]), 0) + net(z, u)

The state is z = (x - mean) / scale as the preparation of a series makes it, and dt is the sampling interval in the system's unit
of time. f may be wrong (its parameters can be trained) or incomplete (the network adds to it, and further states that it does not
know). A fresh network is zero: training starts from the known system. `NeuralODE(flow=..., n_obs=...)` makes a map of either.
Source: Rackauckas et al., arXiv:2001.04385 (2020).
"""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Array, Float

from dynsys import registry
from dynsys.dynamics import AbstractFlow, AnyInput, AnyState
from dynsys.errors import InvalidValue, UnknownName
from dynsys.models.fields import AbstractNetworkField
from dynsys_datasets.catalogue import SystemRecord, names, system


class Known(AbstractFlow):
    """A system of the database, kind 'flow', in standardised coordinates; made by `Known.of`.

    system: its name. setting: JSON text of mean, scale, dt, the fixed parameters and the names of the trained ones, whose
    values are the arrays `theta`. So nothing but theta can be trained, and a model file holds all of it.
    """

    system: str = eqx.field(static=True)
    setting: str = eqx.field(static=True)
    theta: tuple[Float[Any, "..."], ...]

    def __check_init__(self):
        record, held = _record(self.system), _held(self.setting)
        wanted = {"mean": record.dim, "scale": record.dim}
        for name, size in wanted.items():
            if len(held[name]) != size:
                raise InvalidValue(f"Known: {self.system} has {size} states, got {name} with {len(held[name])} numbers.")
        if not all(s > 0 for s in held["scale"]) or not held["dt"] > 0:
            raise InvalidValue(f"Known: scale and dt must be positive, got scale={held['scale']}, dt={held['dt']}.")
        if len(held["train"]) != len(self.theta):
            raise InvalidValue(f"Known: {len(held['train'])} parameters are trained, got {len(self.theta)} arrays.")
        for name in [*held["train"], *held["parameters"]]:
            if name not in record.parameters:
                raise UnknownName(f"parameter of {self.system}", name, record.parameters)

    @classmethod
    def of(
        cls,
        system: str,
        *,
        mean: Any = 0.0,
        scale: Any = 1.0,
        dt: float = 1.0,
        parameters: Mapping[str, Any] | None = None,
        train: Sequence[str] = (),
    ) -> "Known":
        """The system of that name with some `parameters` changed, those named in `train` trainable.

        mean, scale: () or (N,), in the system's units; dt: the sampling interval in its unit of time. Raises UnknownName for a
        system or a parameter that is not there, InvalidValue for one that is no flow or sizes that do not fit.
        """
        record = _record(system)
        given = dict(parameters or {})
        for name in [*given, *train]:
            if name not in record.parameters:
                raise UnknownName(f"parameter of {system}", name, record.parameters)
        for name, value in given.items():
            if np.shape(value) != np.shape(record.parameters[name]):
                shapes = f"{np.shape(record.parameters[name])}, got {np.shape(value)}"
                raise InvalidValue(f"Known: parameter {name} of {system} must have shape {shapes}.")
        values = {name: given.get(name, value) for name, value in record.parameters.items()}
        held = {
            "mean": _numbers(mean, record.dim),
            "scale": _numbers(scale, record.dim),
            "dt": float(dt),
            "parameters": {name: np.asarray(value, float).tolist() for name, value in values.items() if name not in train},
            "train": list(train),
        }
        theta = tuple(jnp.asarray(values[name], dtype=jnp.zeros(()).dtype) for name in train)
        return cls(system=system, setting=json.dumps(held), theta=theta)  # pyright: ignore[reportCallIssue]

    @property
    def dim(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """N, the number of states of the system."""
        return _record(self.system).dim

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """K, the number of inputs of the system, in its own units."""
        return _record(self.system).n_inputs

    @property
    def parameters(self) -> dict[str, Any]:
        """All parameters by name: numbers where they are fixed, arrays where they are trained."""
        held = _held(self.setting)
        return {**held["parameters"], **dict(zip(held["train"], self.theta, strict=True))}

    def field(self, t: Any, z: AnyState, u: AnyInput = None) -> AnyState:
        """The right-hand side for one sampling interval, (), (N,), (K,) -> (N,); t in sampling intervals."""
        held = _held(self.setting)
        mean, scale = _like(held["mean"], z), _like(held["scale"], z)
        values = {name: _like(value, z) if isinstance(value, list) else value for name, value in self.parameters.items()}
        rate = _record(self.system).field(t * held["dt"], mean + scale * z, u, values)
        return held["dt"] * rate / scale


class Universal(AbstractFlow):
    """Known equations of the first N states, and a network that adds to the rates of change of all M states."""

    known: AbstractFlow
    network: AbstractFlow

    def __check_init__(self):
        if self.network.dim < self.known.dim or self.network.n_inputs < self.known.n_inputs:
            raise InvalidValue(
                f"Universal: the network must take all states and inputs of the known equations ({self.known.dim} and "
                f"{self.known.n_inputs}), got dim={self.network.dim}, n_inputs={self.network.n_inputs}."
            )

    @classmethod
    def init(
        cls,
        known: AbstractFlow,
        n_inputs: int = 0,
        *,
        dim: int | None = None,
        field: str = "mlp",
        hidden: int = 32,
        depth: int = 2,
        activation: str = "tanh",
        scale: float = 0.0,
        key: Array,
    ) -> "Universal":
        """Known equations and a network field of M = `dim` states (default N); its last layer is zero unless `scale` says otherwise."""
        kind = registry.lookup("flow", field)
        if not issubclass(kind, AbstractNetworkField):
            raise InvalidValue(f"Universal: field={field!r} is not made of a network alone; known: mlp, second-order, hamiltonian.")
        dim = known.dim if dim is None else dim
        sizes = {"hidden": hidden, "depth": depth, "activation": activation, "scale": scale}
        return cls(known=known, network=kind.init(dim, max(n_inputs, known.n_inputs), **sizes, key=key))  # pyright: ignore[reportCallIssue]

    @property
    def dim(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """M, the states of the network."""
        return self.network.dim

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """K, the inputs of the network; the known equations take the first of them."""
        return self.network.n_inputs

    def field(self, t: Any, z: AnyState, u: AnyInput = None) -> AnyState:
        """Known plus learnt rate of change, (), (M,), (K,) -> (M,)."""
        size, takes = self.known.dim, self.known.n_inputs
        learnt = self.network.field(t, z, u)
        known = self.known.field(t, z[:size], u[:takes] if u is not None and takes else None)
        if size == self.dim:
            return known + learnt
        return array_namespace(z).concat([known + learnt[:size], learnt[size:]])


@functools.cache
def _record(name: str) -> SystemRecord:
    """The record of a system of the database; no file's path, which a model file must not name."""
    if name not in names():
        raise UnknownName("system", name, names())
    record = system(name)
    if record.kind not in ("flow", "field"):
        raise InvalidValue(f"Known: {name} is of kind {record.kind!r}; known equations are those of a flow.")
    return record


@functools.lru_cache(maxsize=256)
def _held(setting: str) -> dict[str, Any]:
    try:
        held = dict(json.loads(setting))
        return {name: held[name] for name in ("mean", "scale", "dt", "parameters", "train")}
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidValue(f"Known: the setting is not the JSON text that Known.of writes ({error}).") from None


def _numbers(value: Any, size: int) -> list[float]:
    found = np.asarray(value, float)
    if found.shape not in ((), (size,)) or not np.all(np.isfinite(found)):
        raise InvalidValue(f"Known: mean and scale must be finite numbers of shape () or ({size},), got {value!r}.")
    return np.broadcast_to(found, (size,)).tolist()


def _like(values: Any, z: Any) -> Any:
    """Numbers as an array of the library, dtype and device of z."""
    place = {"device": z.device} if type(z).__module__.startswith("torch") else {}
    return array_namespace(z).asarray(values, dtype=z.dtype, **place)

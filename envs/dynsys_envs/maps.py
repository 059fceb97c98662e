"""Maps that the tasks are made of: a flow with a push on some of its states, a system of the database, what observes its whole state."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from array_api_compat import array_namespace
from jax.core import Tracer

from dynsys.dynamics import AbstractFlow, AbstractMap, AnyInput, AnyObservation, AnyState
from dynsys.errors import InvalidValue
from dynsys.systems import SystemDelay, SystemFlow, SystemMap, SystemStochastic, load_system


class AbstractSeen(AbstractMap):
    """A map that observes its whole state."""

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """N = M."""
        return self.dim

    def observe(self, z: AnyState) -> AnyObservation:
        """The state itself."""
        return z

    def lift(self, x: AnyObservation) -> AnyState:
        """The observation itself."""
        return x


class Pushed(AbstractFlow):
    """A flow with one input added to the equation of each state in `states`: dz/dt = field(t, z) + sum_k u[k] e_states[k]."""

    flow: AbstractFlow
    states: tuple[int, ...] = eqx.field(static=True)

    @property
    def dim(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """M, as the flow has it."""
        return self.flow.dim

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """K, the number of pushed states."""
        return len(self.states)

    def field(self, t: Any, z: AnyState, u: AnyInput = None) -> AnyState:
        """The time derivative, (), (M,), (K,) -> (M,)."""
        rate = self.flow.field(t, z)
        if u is None:
            return rate
        xp = array_namespace(z)
        at = {state: k for k, state in enumerate(self.states)}
        return rate + xp.stack([u[at[i]] if i in at else xp.zeros_like(z[i]) for i in range(self.dim)])


def system_named(name: str, /, **parameters: Any) -> SystemFlow | SystemMap:
    """A system of the database that is a flow, a field or a map, its scalar parameters as plain numbers, which fit any precision.

    Raises UnknownName for a system or parameter that is not there, InvalidValue for a delay equation or a stochastic one.
    """
    traced = {key: value for key, value in parameters.items() if isinstance(value, Tracer)}
    found = load_system(name, **{key: value for key, value in parameters.items() if key not in traced})
    if isinstance(found, SystemDelay | SystemStochastic):
        raise InvalidValue(
            f"{name} is of kind {found.record.kind!r}; an environment needs a flow, a field or a map: a state of M numbers, no noise."
        )
    plain = {key: value.item() if value.ndim == 0 else value for key, value in found.parameters.items()}
    return eqx.tree_at(lambda tree: tree.parameters, found, {**plain, **traced}, is_leaf=lambda leaf: isinstance(leaf, dict))


def flow_named(name: str, /, **parameters: Any) -> SystemFlow:
    """As `system_named`, for a system that is known to be a flow or a field."""
    found = system_named(name, **parameters)
    if isinstance(found, SystemMap):
        raise InvalidValue(f"{name} is a map; this needs a flow.")
    return found


def is_timed(flow: AbstractFlow, z: np.ndarray) -> bool:
    """Whether the field depends on the time explicitly, judged at a few times."""
    rates = [np.asarray(jax.device_get(flow.field(t, z))) for t in (0.0, 0.3717, 1.9135)]
    return any(not np.array_equal(rates[0], rate) for rate in rates[1:])

"""Any flow with inputs as a cell: the hidden state follows the flow while the input is held.

    dh/dt = field(t, h, x) for a time gap,    y = h

With a network as the field this is the neural ODE as a sequence model (a continuous-time RNN).
"""

from typing import Any

import equinox as eqx
from jaxtyping import Array, Float

from dynsys import registry
from dynsys.dynamics import AbstractFlow, Discretized
from dynsys.errors import InvalidValue
from dynsys.models.base import check_sizes
from dynsys.models.cell import AbstractCell, AnyFeatures, AnyHidden


class FlowCell(AbstractCell):
    """A flow in units of one gap, by `substeps` steps of the classical Runge-Kutta method over each gap."""

    flow: AbstractFlow
    substeps: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        check_sizes("FlowCell", substeps=self.substeps)
        if self.flow.n_inputs < 1:
            raise InvalidValue("FlowCell: the flow must take inputs, got n_inputs=0; a cell is driven by its inputs.")

    @classmethod
    def init(cls, n_in: int, *, units: int = 32, hidden: int = 64, depth: int = 1, substeps: int = 1, key: Array) -> "FlowCell":
        """A network with `depth` hidden layers of `hidden` units as the field of `units` hidden states."""
        check_sizes("FlowCell", n_in=n_in, units=units)
        field = registry.lookup("flow", "mlp").init(units, n_in, hidden=hidden, depth=depth, key=key)
        return cls(flow=field, substeps=substeps)  # pyright: ignore[reportCallIssue]

    @property
    def n_in(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """I, the inputs of the flow."""
        return self.flow.n_inputs

    @property
    def n_state(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """S, the states of the flow."""
        return self.flow.dim

    @property
    def n_out(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """O = S: all of them are read."""
        return self.flow.dim

    def step(self, h: AnyHidden, x: AnyFeatures, gap: Any) -> AnyHidden:
        """The state of the flow a time `gap` later."""
        return Discretized(self.flow, 1.0, substeps=self.substeps).over(h, x, gap)  # pyright: ignore[reportCallIssue]

    def read(self, h: AnyHidden) -> Float[Any, " O"]:
        """The state itself."""
        return h

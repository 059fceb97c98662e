"""The noun of recurrent networks in continuous time: a cell, which is told its input and the time since the last one.

    h' = step(h, x, gap),    y = read(h)

A cell is half of two things: of a map on z = (x, h) that reads its own output (`dynsys.models.recurrent`), and of a sequence model,
inputs to targets (`dynsys.models.sequence`). Unbatched and array-agnostic, like every model.
"""

import abc
from typing import Any

import equinox as eqx
from jaxtyping import Float

AnyHidden = Float[Any, " S"]
AnyFeatures = Float[Any, " I"]


class AbstractCell(eqx.Module):
    """A recurrent cell: `n_in` is I, the inputs; `n_state` S, the hidden numbers; `n_out` O, those that are read out."""

    n_in: eqx.AbstractVar[int]
    n_state: eqx.AbstractVar[int]
    n_out: eqx.AbstractVar[int]

    @abc.abstractmethod
    def step(self, h: AnyHidden, x: AnyFeatures, gap: Any) -> AnyHidden:
        """The hidden state after input x has acted for a time `gap`, (S,), (I,), () -> (S,)."""

    @abc.abstractmethod
    def read(self, h: AnyHidden) -> Float[Any, " O"]:
        """What is read out of a hidden state, (S,) -> (O,)."""

    def prepared(self) -> "AbstractCell":
        """The same cell with what depends on its parameters alone computed once, for use inside loops; by default itself."""
        return self

"""Cells and sequence models in PyTorch: recurrent networks that are told the time since their last input.

h[t] = step(h[t-1], x[t], gap[t]),    y[t] = read(h[t])

x (T, I) or (B, T, I)    gaps (T,) or (B, T), in sampling intervals; None: 1 everywhere    h (S,) or (B, S)
"""

from typing import TYPE_CHECKING, Any

import jax

from dynsys.errors import require
from dynsys.interop.torch_module import TorchModule
from dynsys.models.base import matvec
from dynsys.models.cell import AbstractCell
from dynsys.models.driven import AbstractDriven
from dynsys.models.sequence import SequenceModel

if TYPE_CHECKING:
    import torch
else:
    torch = require("torch", extra="torch", who="dynsys.interop.torch")


class TorchCell(TorchModule):
    """A cell as an nn.Module: `n_in` is I, `n_state` S, `n_out` O."""

    def __init__(self, model: AbstractCell):
        super().__init__(model)
        self.n_in, self.n_state, self.n_out = model.n_in, model.n_state, model.n_out

    def forward(self, xs: Any, gaps: Any = None, h: Any = None) -> "tuple[torch.Tensor, torch.Tensor]":
        """What is read out at every point of a sequence, (B, T, I) -> (B, T, O), and the last hidden state (B, S).

        h: the hidden state before the sequence; zeros if None. Without a batch the shapes are (T, I), (T, O) and (S,).
        """
        xs = self._tensor("forward", "xs", xs, (None, self.n_in))
        gaps = self._tensor("forward", "gaps", gaps, (xs.shape[-2],), optional=True)
        h = xs.new_zeros(self.n_state) if h is None else self._tensor("forward", "h", h, (self.n_state,))
        return self._call(_run, (xs, 2), (gaps, 1), (h, 1))

    def step(self, h: Any, x: Any, gap: Any = 1.0) -> "torch.Tensor":
        """The hidden state after input x has acted for a time `gap`, (S,), (I,), () -> (S,) or with a batch B before each."""
        h, x = self._tensor("step", "h", h, (self.n_state,)), self._tensor("step", "x", x, (self.n_in,))
        gap = self._tensor("step", "gap", gap, ())
        return self._call(lambda cell, h, x, gap: cell.step(h, x, gap), (h, 1), (x, 1), (gap, 0))

    def read(self, h: Any) -> "torch.Tensor":
        """What is read out of a hidden state, (S,) -> (O,) or (B, S) -> (B, O)."""
        return self._call(lambda cell, h: cell.read(h), (self._tensor("read", "h", h, (self.n_state,)), 1))


class TorchSequence(TorchModule):
    """A sequence model as an nn.Module: inputs to targets, at every step or after the last one."""

    def __init__(self, model: SequenceModel):
        super().__init__(model)
        self.n_in = model.cell.n_in

    def forward(self, xs: Any, gaps: Any = None) -> "torch.Tensor":
        """Targets of sequences, (B, T, I), (B, T) -> (B, T, P), or (B, P) if only the last step is asked for; B may be missing."""
        xs = self._tensor("forward", "xs", xs, (None, self.n_in))
        gaps = self._tensor("forward", "gaps", gaps, (xs.shape[-2],), optional=True)
        return self._call(_targets, (xs, 2), (gaps, 1))


def _targets(model: SequenceModel, xs: "torch.Tensor", gaps: Any) -> "torch.Tensor":
    """One sequence: (T, P), or (P,) of the last step."""
    outputs, _ = _run(model.cell, xs, gaps, xs.new_zeros(model.cell.n_state))
    return matvec(model.W, outputs[-1] if model.last else outputs) + model.b


def _run(cell: Any, xs: "torch.Tensor", gaps: Any, h: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """One sequence: outputs (T, O) and the last hidden state (S,). What the inputs alone decide is computed for all times at once."""
    cell, outputs = cell.prepared(), []
    driven = isinstance(cell, AbstractDriven)
    advance, drives = (cell.advance, torch.vmap(cell.drive)(xs)) if driven else (cell.step, xs)
    for t in range(xs.shape[0]):
        now = jax.tree.map(lambda rows, t=t: rows[t], drives)  # a drive may be a tuple of arrays
        h = advance(h, now, 1.0 if gaps is None else gaps[t])
        outputs.append(cell.read(h))
    return torch.stack(outputs), h

"""Cells made of cells: with a memory of an LSTM before them, or one upon the other.

    mixed memory   (y, c) = lstm.step((h, c), x),  h' = cell.step(y, x, gap)
    stacked        h1' = first.step(h1, x, gap),  h2' = second.step(h2, first.read(h1'), gap), ...

In the first the LSTM keeps gradients from vanishing and the cell keeps the time. Source of the first: Lechner, Hasani,
arXiv:2006.04418, section 4 (mixed memory).
"""

import dataclasses
from typing import Any

from array_api_compat import array_namespace
from jaxtyping import Array, Float

from dynsys.errors import InvalidValue
from dynsys.models.cell import AnyFeatures, AnyHidden
from dynsys.models.driven import AbstractDriven, AnyDrive, Reverse
from dynsys.models.gated import LSTM


class MixedMemory(AbstractDriven):
    """The hidden state is that of the cell, then the memory c of the LSTM, S = 2 Y."""

    lstm: LSTM
    cell: AbstractDriven

    def __check_init__(self):
        if self.lstm.n_out != self.cell.n_state or self.lstm.n_in != self.cell.n_in:
            raise InvalidValue(
                f"MixedMemory: the LSTM must have the inputs and as many outputs as the cell has hidden numbers, got {self.lstm.n_in} and "
                f"{self.lstm.n_out} for {self.cell.n_in} and {self.cell.n_state}."
            )

    @classmethod
    def init(cls, cell: AbstractDriven, *, key: Array) -> "MixedMemory":
        """The cell with a random LSTM that fits it."""
        return cls(lstm=LSTM.init(cell.n_in, cell.n_state, key=key), cell=cell)  # pyright: ignore[reportCallIssue]

    @property
    def n_in(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """I, as the cell has it."""
        return self.cell.n_in

    @property
    def n_state(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Twice that of the cell."""
        return 2 * self.cell.n_state

    @property
    def n_out(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """O, as the cell has it."""
        return self.cell.n_out

    @property
    def reverse(self) -> Reverse:
        """As the cell has it."""
        return self.cell.reverse

    def drive(self, x: AnyFeatures) -> AnyDrive:
        """The drive of the LSTM, then that of the cell."""
        return self.lstm.drive(x), self.cell.drive(x)

    def advance(self, h: AnyHidden, drive: AnyDrive, gap: Any) -> AnyHidden:
        """The LSTM, then the cell from its output."""
        Y = self.lstm.n_out
        mixed = self.lstm.advance(h, drive[0], gap)
        return array_namespace(h).concat([self.cell.advance(mixed[:Y], drive[1], gap), mixed[Y:]])

    def advance_all(self, h: Float[Array, "B S"], drive: AnyDrive, gap: Float[Array, " B"]) -> Float[Array, "B S"]:
        """Both for a batch."""
        Y = self.lstm.n_out
        mixed = self.lstm.advance_all(h, drive[0], gap)
        return array_namespace(h).concat([self.cell.advance_all(mixed[:, :Y], drive[1], gap), mixed[:, Y:]], axis=1)

    def read(self, h: AnyHidden) -> Float[Any, " O"]:
        """What the cell reads out."""
        return self.cell.read(h[: self.cell.n_state])

    def prepared(self) -> "MixedMemory":
        """With the prepared cell."""
        return dataclasses.replace(self, cell=self.cell.prepared())


class Stacked(AbstractDriven):
    """Each cell reads the one before; the hidden states follow one another, and the last cell is read out."""

    cells: tuple[AbstractDriven, ...]

    def __check_init__(self):
        if not self.cells:
            raise InvalidValue("Stacked: needs at least one cell, got none.")
        for i, (below, above) in enumerate(zip(self.cells, self.cells[1:], strict=False)):
            if below.n_out != above.n_in:
                raise InvalidValue(f"Stacked: cell {i + 1} takes {above.n_in} inputs, but cell {i} reads out {below.n_out}.")

    @property
    def n_in(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """I, the inputs of the first cell."""
        return self.cells[0].n_in

    @property
    def n_state(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The hidden numbers of all cells."""
        return sum(cell.n_state for cell in self.cells)

    @property
    def n_out(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """O, as the last cell has it."""
        return self.cells[-1].n_out

    @property
    def reverse(self) -> Reverse:
        """As the cell has it that keeps least."""
        among = {cell.reverse for cell in self.cells}
        return "by-sample" if "by-sample" in among else "recomputed" if "recomputed" in among else "stored"

    def drive(self, x: AnyFeatures) -> AnyDrive:
        """The drive of the first cell; the others are driven from within."""
        return self.cells[0].drive(x)

    def advance(self, h: AnyHidden, drive: AnyDrive, gap: Any) -> AnyHidden:
        """From the first cell to the last."""
        states, at = [], 0
        for i, cell in enumerate(self.cells):
            drive = cell.drive(self.cells[i - 1].read(states[-1])) if i else drive
            states.append(cell.advance(h[at : at + cell.n_state], drive, gap))
            at += cell.n_state
        return array_namespace(h).concat(states)

    def read(self, h: AnyHidden) -> Float[Any, " O"]:
        """What the last cell reads out."""
        return self.cells[-1].read(h[self.n_state - self.cells[-1].n_state :])

    def prepared(self) -> "Stacked":
        """With the prepared cells."""
        return dataclasses.replace(self, cells=tuple(cell.prepared() for cell in self.cells))

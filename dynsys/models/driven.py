"""Cells whose input acts through a drive that does not depend on the state.

    step(h, x, gap) = advance(h, drive(x), gap)

Along a sequence whose inputs are all known the drives come first, in one product over all T*B points, and only `advance` stays in
the loop over time (`dynsys.models.sequence`), which is also what the two hints at the end are for.
"""

import abc
from typing import Any, Literal

import jax
from jaxtyping import Array, Float

from dynsys.models.cell import AbstractCell, AnyFeatures, AnyHidden

AnyDrive = Any  # an array (D,), or a tuple of arrays and of such tuples
Reverse = Literal["stored", "recomputed", "by-sample"]


class AbstractDriven(AbstractCell):
    """A cell that says what of its step the input alone decides."""

    @abc.abstractmethod
    def drive(self, x: AnyFeatures) -> AnyDrive:
        """What the input contributes, (I,) -> arrays of the cell's own choice."""

    @abc.abstractmethod
    def advance(self, h: AnyHidden, drive: AnyDrive, gap: Any) -> AnyHidden:
        """The hidden state after a drive has acted for a time `gap`, (S,), drive, () -> (S,)."""

    def step(self, h: AnyHidden, x: AnyFeatures, gap: Any) -> AnyHidden:
        """The hidden state after input x has acted for a time `gap`."""
        return self.advance(h, self.drive(x), gap)

    def advance_all(self, h: Float[Array, "B S"], drive: AnyDrive, gap: Float[Array, " B"]) -> Float[Array, "B S"]:
        """`advance` of a batch; a cell overrides it where it knows a faster order of the same operations."""
        return jax.vmap(self.advance)(h, drive, gap)

    @property
    def reverse(self) -> Reverse:
        """What the reverse pass along a sequence does with the activations inside a step.

        They are stored, as automatic differentiation does; or computed again from the state, where a step has many of them; or
        computed again one sample at a time, where a step has them for every pair of neurons, so that a batch leaves the nearest cache.
        """
        return "stored"

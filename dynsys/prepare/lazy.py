"""Prepared rows of a recording that stays in its file: read, scaled and embedded slice by slice."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class LazyRows:
    """Prepared rows of an array that stays in its file: x[a:b] reads and prepares only what rows a..b-1 need.

    Row a starts at row lead + a * step of the source and reaches over `span` rows of it.
    """

    source: Any
    shape: tuple[int, int]
    lead: int
    step: int
    span: int
    function: Callable[[np.ndarray], np.ndarray]

    ndim = 2
    dtype = np.dtype(np.float64)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | np.integer | slice) -> np.ndarray:
        """Rows of a slice, (S, N'), or one row, (N',)."""
        if not isinstance(index, slice):
            row = int(index)
            if not -len(self) <= row < len(self):
                raise IndexError(f"row {row} of an array of {len(self)} rows")
            return self[row % len(self) : row % len(self) + 1][0]
        first, last, step = index.indices(len(self))
        if step < 1:
            return self[:][index]
        if last <= first:
            return np.zeros((0, self.shape[1]))
        start = self.lead + first * self.step
        stop = min(len(self.source), self.lead + (last - 1) * self.step + self.span)
        return self.function(np.asarray(self.source[start:stop], dtype=np.float64))[::step]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All rows in memory."""
        return self[:] if dtype is None else self[:].astype(dtype)

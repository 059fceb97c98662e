"""An array that stays in its HDF5 file: rows are read when they are asked for, so a file may be larger than memory.

    x[a:b] -> rows a..b-1, (b - a, N) float64

The object holds the path, the dataset and a range, no open file: it can be pickled, sent to another process and kept.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynsys_datasets.series.guard import reading

BLOCK_BYTES = 16_000_000


@dataclass(frozen=True)
class LazyArray:
    """Rows `start`..`stop`-1 of an HDF5 dataset as a (T, N) float64 array; a 1-D dataset has N = 1.

    `columns` chooses columns, `episode` the first index of an (E, T, N) dataset; `transposed` is for MATLAB's order (N, T).
    Numbers become `scale * number + offset`, and `fill` becomes NaN (the packing of netCDF).
    """

    path: str
    dataset: str
    start: int
    stop: int
    n_columns: int
    columns: tuple[int, ...] | None = None
    episode: int | None = None
    transposed: bool = False
    scale: float = 1.0
    offset: float = 0.0
    fill: float | None = None

    ndim = 2
    dtype = np.dtype(np.float64)

    @property
    def shape(self) -> tuple[int, int]:
        """(T, N)."""
        return self.stop - self.start, self.n_columns if self.columns is None else len(self.columns)

    @property
    def nbytes(self) -> int:
        """Bytes that the whole array would take in memory."""
        return 8 * self.shape[0] * self.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | np.integer | slice) -> np.ndarray:
        """Row `index`, (N,), or the rows of a slice, (S, N); nothing else is read from the file."""
        if isinstance(index, slice):
            first, last, step = index.indices(len(self))
            if step < 1:
                return self[:][index]
            return self._read(first, max(first, last))[::step]
        row = int(index)
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of an array of {len(self)} rows")
        row %= len(self)
        return self._read(row, row + 1)[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The whole array in memory."""
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype)

    def rows(self, start: int, stop: int) -> "LazyArray":
        """The same array cut to rows start..stop-1; nothing is read."""
        return dataclasses.replace(self, start=self.start + start, stop=self.start + stop)

    def take(self, columns: Sequence[int]) -> "LazyArray":
        """The same array with these columns only; nothing is read."""
        kept = range(self.n_columns) if self.columns is None else self.columns
        wanted = tuple(kept[i] for i in columns)
        return dataclasses.replace(self, columns=None if wanted == tuple(range(self.n_columns)) else wanted)

    def _columns(self) -> tuple[slice, list[int]]:
        """(the range of columns to read, which of these to keep): a range costs HDF5 far less than a choice."""
        if self.columns is None:
            return slice(None), list(range(self.n_columns))
        low = min(self.columns)
        return slice(low, max(self.columns) + 1), [i - low for i in self.columns]

    def _read(self, first: int, last: int) -> np.ndarray:
        """Rows first..last-1 from the file."""
        import h5py

        with reading(self.path, "HDF5"), h5py.File(self.path, "r") as file:
            found: Any = file[self.dataset]
            low, high = self.start + first, self.start + last
            span, picked = self._columns()
            prefix = () if self.episode is None else (self.episode,)
            if found.ndim - len(prefix) == 1:
                block = found[(*prefix, slice(low, high))][:, None]
            elif self.transposed:
                block = found[(*prefix, span, slice(low, high))].T
            else:
                block = found[(*prefix, slice(low, high), span)]
        block = np.ascontiguousarray(block, dtype=np.float64)
        if picked != list(range(block.shape[1])):
            block = np.take(block, picked, axis=1)
        return unpack(block, self.scale, self.offset, self.fill)


ArrayLike = np.ndarray | LazyArray


def unpack(block: np.ndarray, scale: float, offset: float, fill: float | None) -> np.ndarray:
    """`scale * block + offset` with `fill` as NaN; the block itself if there is nothing to do."""
    if fill is not None:
        block = np.where(block == fill, np.nan, block)
    return block if scale == 1.0 and offset == 0.0 else scale * block + offset


def rows(array: ArrayLike, start: int, stop: int) -> ArrayLike:
    """Rows start..stop-1, still lazy if the array is."""
    return array.rows(start, stop) if isinstance(array, LazyArray) else array[start:stop]


def take(array: ArrayLike, columns: Sequence[int]) -> ArrayLike:
    """Some columns, still lazy if the array is."""
    if isinstance(array, LazyArray):
        return array.take(columns)
    return array if list(columns) == list(range(array.shape[1])) else np.ascontiguousarray(array[:, list(columns)])


def blocks(array: ArrayLike) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, rows in memory) of blocks of about 16 MB; one block if the array is in memory."""
    if not isinstance(array, LazyArray):
        yield 0, array
        return
    size = max(1, BLOCK_BYTES // (8 * max(1, array.shape[1])))
    for start in range(0, len(array), size):
        yield start, array[start : start + size]

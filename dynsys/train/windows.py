"""Windows: short stretches of all trajectories, drawn at random on the device without copying the series.

All trajectories lie end to end in one array (L, N); a window never crosses from one into the next. A draw picks a valid
start uniformly and slices, so its cost depends on batch and length, not on L.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int

from dynsys.errors import DataError, InvalidValue


class Windows(eqx.Module):
    """A series on the device, from which windows of `length` points are drawn.

    `first` (E,) holds the row at which each trajectory begins, `ends` (E,) the running count of valid starts.
    """

    values: Float[Array, "L N"]
    inputs: Float[Array, "L K"] | None
    first: Int[Array, " E"]
    ends: Int[Array, " E"]
    length: int = eqx.field(static=True)

    @classmethod
    def of(
        cls,
        trajectories: Sequence[Any],
        inputs: Sequence[Any] | None = None,
        *,
        length: int,
        dtype: Any = jnp.float32,
    ) -> "Windows":
        """Put trajectories [(T_i, N), ...] (and inputs [(T_i, K), ...]) on the device.

        Trajectories shorter than `length` are left out; raises DataError if all are, InvalidValue for length < 2.
        """
        lengths = np.array([len(trajectory) for trajectory in trajectories], int)
        _check_length(length, lengths)
        usable = np.flatnonzero(lengths >= length).tolist()
        values = np.concatenate([np.asarray(trajectories[i]) for i in usable])
        driven = None if inputs is None else jnp.asarray(np.concatenate([np.asarray(inputs[i]) for i in usable]), dtype)
        starts = np.concatenate([[0], np.cumsum(lengths[usable])[:-1]])
        return cls(
            values=jnp.asarray(values, dtype),
            inputs=driven,
            first=jnp.asarray(starts, jnp.int32),
            ends=jnp.asarray(np.cumsum(lengths[usable] - length + 1), jnp.int32),
            length=length,
        )

    @property
    def count(self) -> int:
        """How many different windows there are."""
        return int(self.ends[-1])

    def draw(self, batch: int, *, key: Array) -> tuple[Float[Array, "T B N"], Float[Array, "T B K"] | None]:
        """`batch` windows drawn uniformly with replacement; time first, as the training loop steps through it."""
        pick = jr.randint(key, (batch,), 0, self.ends[-1])
        which = jnp.searchsorted(self.ends, pick, side="right")
        before = jnp.where(which > 0, self.ends[jnp.maximum(which - 1, 0)], 0)
        start = self.first[which] + pick - before

        def cut(rows: Array) -> Array:
            return jax.vmap(lambda s: jax.lax.dynamic_slice_in_dim(rows, s, self.length), out_axes=1)(start)

        return cut(self.values), None if self.inputs is None else cut(self.inputs)


class Streamed:
    """Windows of a series that stays on disk: blocks of consecutive rows, a new random set for every chunk of training.

    `resident` bounds the numbers held at a time. The blocks of chunk k depend on (seed, k) alone, so a resumed run reads
    the same ones. A trajectory is picked in proportion to its windows over the windows of one block of it, so that in the long
    run every trajectory gives its share, however short; one that is shorter than a block fills it only in part. Raises as
    `Windows.of`.
    """

    def __init__(
        self,
        trajectories: Sequence[Any],
        inputs: Sequence[Any] | None = None,
        *,
        length: int,
        seed: int = 0,
        resident: int = 2**24,
        dtype: Any = jnp.float32,
    ):
        width = trajectories[0].shape[1] + (0 if inputs is None else inputs[0].shape[1])
        self.lengths = np.array([trajectory.shape[0] for trajectory in trajectories])
        _check_length(length, self.lengths)
        self.rows = min(max(16 * length, 4096), int(self.lengths.max()))
        self.blocks = max(1, resident // (self.rows * width))
        self.trajectories, self.inputs, self.length, self.seed, self.dtype = trajectories, inputs, length, seed, dtype
        windows = np.maximum(0, self.lengths - length + 1)
        self.share = windows / np.maximum(1, np.minimum(windows, self.rows - length + 1))

    def windows(self, chunk: int) -> Windows:
        """What chunk number `chunk` draws from; always of the same shapes."""
        rng = np.random.default_rng((self.seed, chunk))
        which = np.sort(rng.choice(len(self.share), self.blocks, p=self.share / self.share.sum()))
        held = np.minimum(self.lengths[which], self.rows)
        first = rng.integers(0, self.lengths[which] - held + 1)

        def cut(arrays: Sequence[Any]) -> Array:
            blocks = np.zeros((self.blocks, self.rows, arrays[0].shape[1]))
            for block, i, start, count in zip(blocks, which.tolist(), first.tolist(), held.tolist(), strict=True):
                block[:count] = arrays[i][start : start + count]
            return jnp.asarray(blocks.reshape(-1, blocks.shape[2]), self.dtype)

        return Windows(  # pyright: ignore[reportCallIssue]
            values=cut(self.trajectories),
            inputs=None if self.inputs is None else cut(self.inputs),
            first=jnp.asarray(self.rows * np.arange(self.blocks), jnp.int32),
            ends=jnp.asarray(np.cumsum(held - self.length + 1), jnp.int32),
            length=self.length,
        )


def _check_length(length: int, lengths: np.ndarray) -> None:
    if length < 2:
        raise InvalidValue(f"Windows: length must be at least 2 (one step ahead), got length={length}.")
    if lengths.size == 0 or lengths.max() < length:
        raise DataError(
            f"no trajectory is as long as one training window: the longest has {lengths.max(initial=0)} points, "
            f"a window has {length}. Pass a shorter window (--set training.window=...) or more data."
        )

"""What a preparation learns from the training part: mean and scale in one pass, and an excerpt on which delays are chosen.

    n = n1 + n2,   mean = m1 + (m2 - m1) n2 / n,   S = S1 + S2 + (m2 - m1)^2 n1 n2 / n,   scale^2 = S / n

Blocks are merged as in Chan, Golub, LeVeque, Am. Stat. 37, 242 (1983), eq. 2.1: no cancellation of a sum of squares, and no
more than a block of a lazy recording in memory.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from dynsys.errors import DataError
from dynsys.prepare import filters
from dynsys.prepare.settings import PreparationConfig
from dynsys_datasets.series import TimeSeries

BLOCK_ROWS = 65_536
EXCERPT_ROWS = 100_000
"""Delay and dimension are chosen on at most about this many prepared rows, in up to 4 stretches of each trajectory."""


def moments(blocks: Iterable[Float[np.ndarray, "_ N"]]) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Mean and standard deviation (divided by the number of rows) of all blocks together, each (N,), in one pass.

    Blocks are merged as in Chan, Golub, LeVeque 1983, eq. 2.1, without the cancellation of the sum of squares.
    """
    count, mean, squares = 0, np.zeros(()), np.zeros(())
    for block in blocks:
        own = block.mean(axis=0)
        shift, total = own - mean, count + len(block)
        squares = squares + ((block - own[None, :]) ** 2).sum(axis=0) + shift**2 * (count * len(block) / total)
        mean, count = mean + shift * (len(block) / total), total
    return mean, np.sqrt(squares / max(count, 1))


def filtered(x: Any, config: PreparationConfig, dt: float) -> Float[np.ndarray, "S N"]:
    """Trend, smoothing and downsampling of a whole trajectory."""
    x = np.asarray(x[:], dtype=np.float64)
    if config.detrend == "linear":
        x = filters.remove_linear_trend(x)
    if config.detrend == "gaussian" and config.detrend_width is not None:
        x = filters.remove_gaussian_trend(x, config.detrend_width / dt)
    if config.smooth_width > 0:
        x = filters.gaussian_smooth(x, config.smooth_width)
    return filters.downsample(x, config.downsample)


def blocks(x: Any, every: int = 1) -> Iterator[np.ndarray]:
    """Rows 0, k, 2k, ... of an array that may be lazy, block by block."""
    size = BLOCK_ROWS * every
    for start in range(0, len(x), size):
        yield np.asarray(x[start : start + size], dtype=np.float64)[::every]


def standard(train: TimeSeries, config: PreparationConfig) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale of the columns after filtering, (N,) each; zeros and ones if they are not to be standardised."""
    if config.filtered:
        mean, scale = moments(filtered(x, config, train.dt) for x in train.trajectories)
        size = np.max([np.abs(np.asarray(x[:])).max(axis=0) for x in train.trajectories], axis=0)
    else:
        mean, scale = moments(block for x in train.trajectories for block in blocks(x, config.downsample))
        size = np.abs(mean)
    where = train.source or "TimeSeries"
    if not np.isfinite(scale).all():
        column = train.names[int(np.argmin(np.isfinite(scale)))]
        raise DataError(f"{where}: column {column!r} holds NaN or inf, or numbers too large to square. Fill, drop or rescale them first.")
    flat = np.flatnonzero(scale <= 1e-13 * size)
    if flat.size:
        raise DataError(
            f"{where}: column {train.names[flat[0]]!r} is constant once it is prepared "
            f"(detrend={config.detrend!r}, downsample={config.downsample}), so there is nothing to learn in it. "
            "Leave the column out, or change the preparation."
        )
    return (mean, scale) if config.standardise else (np.zeros_like(mean), np.ones_like(scale))


def excerpt(train: TimeSeries, config: PreparationConfig) -> list[np.ndarray]:
    """At most about EXCERPT_ROWS filtered rows: whole trajectories, or up to 4 evenly spaced stretches of each."""
    k = config.downsample
    share = min(1.0, EXCERPT_ROWS * k / train.n_points)
    found = []
    for x in train.trajectories:
        whole: Any = filtered(x, config, train.dt) if config.filtered else x
        step = 1 if config.filtered else k
        parts = 1 if share == 1.0 else 4
        length = int(len(whole) * share / parts)
        starts = np.linspace(0, len(whole) - length, parts).astype(int)
        found += [np.asarray(whole[a : a + length], dtype=np.float64)[::step] for a in starts if length]
    return found or [np.asarray(train.trajectories[0][: BLOCK_ROWS * k], dtype=np.float64)[::k]]

"""Trajectories and their inputs as the closed-form Koopman models read them: block by block, from memory or from a file.

One pass takes mean, standard deviation and range, and finds numbers that are not finite; what settings are chosen on, or centres
learned from, is a sample that fits in memory. So a fit needs memory for its features and one block, not for the series.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from dynsys.errors import InvalidValue
from dynsys.models.koopman.lifted import windows

READ = 100_000  # rows that are read at a time in the first pass
CHOICE = 20_000  # rows, the last ones, on which settings are chosen
FEWEST = 400  # rows, beside the delays, of a trajectory's end on which settings are chosen
SAMPLE = 20_000  # windows from which a dictionary learns


@dataclass(frozen=True)
class Stretch:
    """Windows v (R, V) of one or several runs, one after another; `first` and `last` are the rows at which runs begin and end.

    u (R - runs, K) holds the inputs between the windows, if any.
    """

    v: Float[np.ndarray, "R V"]
    u: Float[np.ndarray, "P K"] | None
    first: np.ndarray
    last: np.ndarray

    @classmethod
    def of(cls, runs: Sequence[tuple[np.ndarray, np.ndarray | None]]) -> "Stretch":
        """Of runs (v, u)."""
        ends = np.cumsum([len(v) for v, _ in runs])
        starts = np.append(0, ends[:-1])
        if len(runs) == 1:
            return cls(*runs[0], starts, ends - 1)
        us = None if runs[0][1] is None else np.concatenate([u for _, u in runs if u is not None])
        return cls(np.concatenate([v for v, _ in runs]), us, starts, ends - 1)

    def pairs(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of rows (R, ...) that belong to the windows: those before, and those one point after."""
        if len(self.first) == 1:
            return rows[:-1], rows[1:]
        kept = np.ones(len(rows), bool)
        kept[self.last] = False
        at = np.flatnonzero(kept)
        return rows[at], rows[at + 1]


@dataclass(frozen=True)
class Data:
    """Trajectories [(T_i, N), ...] and inputs [(T_i, K), ...] or None, with their moments; arrays may lie on disk."""

    series: tuple[Any, ...]
    inputs: tuple[Any, ...] | None
    delays: int
    mean: Float[np.ndarray, " N"]
    scale: Float[np.ndarray, " N"]
    low: Float[np.ndarray, " N"]
    high: Float[np.ndarray, " N"]

    @classmethod
    def of(
        cls, who: str, series: Sequence[Any], inputs: Sequence[Any] | None, delays: int, *, centre: bool = True, standardise: bool = True
    ) -> "Data":
        """Check and measure. Trajectories of fewer than delays + 1 points are left out. Without `centre` windows keep their mean, without
        `standardise` their scale.

        Raises InvalidValue if none is long enough, shapes do not fit, or a number is not finite.
        """
        found = [x if hasattr(x, "shape") else np.asarray(x, float) for x in series]
        if not found or any(len(x.shape) != 2 for x in found) or len({x.shape[1] for x in found}) != 1 or found[0].shape[1] == 0:
            raise InvalidValue(
                f"{who}: needs trajectories [(T, N), ...] of the same columns, got shapes {[x.shape for x in found][:5]}. "
                "Of a single trajectory x give [x]."
            )
        driven = None if inputs is None else [u if hasattr(u, "shape") else np.asarray(u, float) for u in inputs]
        if driven is not None and (
            len(driven) != len(found) or any(len(u.shape) != 2 or len(u) < len(x) - 1 for u, x in zip(driven, found, strict=True))
        ):
            raise InvalidValue(
                f"{who}: inputs must be one array (T_i, K) a trajectory, got {[u.shape for u in driven][:5]} "
                f"for {[x.shape for x in found][:5]}."
            )
        long = [i for i, x in enumerate(found) if x.shape[0] > delays]
        if not long:
            longest = max(x.shape[0] for x in found)
            raise InvalidValue(
                f"{who}: needs a trajectory of at least {delays + 1} points for delays={delays}, the longest has {longest}. "
                "Give longer trajectories or fewer delays."
            )
        kept, us = tuple(found[i] for i in long), None if driven is None else tuple(driven[i] for i in long)
        mean, scale, low, high = _measured(who, kept)
        if us is not None:
            _measured(f"{who}: inputs", us)
        mean, scale = mean if centre else np.zeros_like(mean), scale if standardise else np.ones_like(scale)
        return cls(kept, us, delays, mean, scale, low, high)

    @property
    def n_inputs(self) -> int:
        """K."""
        return 0 if self.inputs is None else int(self.inputs[0].shape[1])

    @property
    def variables(self) -> int:
        """V = D N, the numbers in a window."""
        return self.delays * len(self.mean)

    @property
    def pairs(self) -> int:
        """How many pairs of windows follow one another."""
        return sum(max(0, x.shape[0] - self.delays) for x in self.series)

    @property
    def names(self) -> tuple[str, ...]:
        """x1, x2, ..., and x1[-1] for the point before, and so on."""
        n = len(self.mean)
        return tuple(f"x{i + 1}" + (f"[-{d}]" if d else "") for d in range(self.delays) for i in range(n))

    def standard(self, w: Float[np.ndarray, "*R V"]) -> Float[np.ndarray, "*R V"]:
        """Windows in standard deviations."""
        if self.delays == 1:
            return (w - self.mean) / self.scale
        return (w - np.tile(self.mean, self.delays)) / np.tile(self.scale, self.delays)

    def runs(self, block: int) -> Iterator["Stretch"]:
        """All standardised windows, about `block` pairs at a time; short trajectories share a block."""
        waiting: list[tuple[np.ndarray, np.ndarray | None]] = []
        rows = 0
        for i, x in enumerate(self.series):
            for a in range(0, x.shape[0] - self.delays, block):
                b = min(a + block + self.delays, x.shape[0])
                v = self.standard(windows(np.asarray(x[a:b], float), self.delays))
                u = None if self.inputs is None else np.asarray(self.inputs[i][a + self.delays - 1 : b - 1], float)
                waiting.append((v, u))
                rows += len(v) - 1
                if rows >= block:
                    yield Stretch.of(waiting)
                    waiting, rows = [], 0
        if waiting:
            yield Stretch.of(waiting)

    def sample(self, rows: int = SAMPLE) -> Float[np.ndarray, "R V"]:
        """At most about `rows` standardised windows, from evenly spread stretches."""
        total, parts = self.pairs, []
        for x in self.series:
            share = max(2, round(rows * (x.shape[0] - self.delays) / total))
            pieces = min(10, max(1, share // 100))
            each = -(-share // pieces)
            for a in np.unique(np.linspace(0, max(0, x.shape[0] - each - self.delays), pieces).astype(int)).tolist():
                parts.append(self.standard(windows(np.asarray(x[a : a + each + self.delays], float), self.delays)))
        return np.concatenate(parts)

    def tail(self, rows: int = CHOICE) -> "Data":
        """The ends of the trajectories, about `rows` in all, in memory; moments stay those of the whole.

        Of many trajectories evenly spread ones are taken, so that an end has FEWEST points beside its delays, or is a whole trajectory.
        """
        each = self._length(range(len(self.series))) / len(self.series)
        count = -(-rows // max(1, round(min(each, max(FEWEST + self.delays, rows / len(self.series))))))
        taken = np.unique(np.linspace(0, len(self.series) - 1, min(count, len(self.series))).round().astype(int)).tolist()
        share = min(1.0, rows / self._length(taken))
        kept, us = [], []
        for i in taken:
            x = self.series[i]
            start = max(0, x.shape[0] - max(self.delays + 1, round(share * x.shape[0])))
            kept.append(np.asarray(x[start:], float))
            us += [] if self.inputs is None else [np.asarray(self.inputs[i][start : x.shape[0]], float)]
        return self._with(tuple(kept), None if self.inputs is None else tuple(us))

    def _length(self, which: Any) -> int:
        return sum(self.series[i].shape[0] for i in which)

    def cut(self, ends: Sequence[int]) -> "Data":
        """The first `ends[i]` rows of every trajectory."""
        return self._with(tuple(x[:end] for x, end in zip(self.series, ends, strict=True)), self.inputs)

    def _with(self, series: tuple[Any, ...], inputs: tuple[Any, ...] | None) -> "Data":
        return Data(series, inputs, self.delays, self.mean, self.scale, self.low, self.high)

    def box(self, bound: float) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
        """The range of the columns widened by `bound` times itself on each side. Raises InvalidValue unless that is positive and finite."""
        if not 0 < bound < np.inf:
            raise InvalidValue(
                f"bound must be positive and finite, got bound={bound}: how many ranges of the data a point may leave them by."
            )
        margin = bound * np.where(self.high > self.low, self.high - self.low, 1.0)
        return self.low - margin, self.high + margin


def _measured(who: str, arrays: Sequence[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean, standard deviation (1 for a constant column), lowest and highest of the columns."""
    count, shift, total, squares, low, high = 0, None, 0.0, 0.0, np.inf, -np.inf
    for i, x in enumerate(arrays):
        for a in range(0, x.shape[0], READ):
            block = np.array(np.asarray(x[a : a + READ], float).T, order="C")  # long rows are summed many times as fast
            least, most = block.min(axis=1), block.max(axis=1)  # NaN and inf show in these
            if not (np.isfinite(least).all() and np.isfinite(most).all()):
                row, column = np.argwhere(~np.isfinite(block.T))[0].tolist()
                raise InvalidValue(
                    f"{who}: trajectory {i + 1}, row {a + row}, column {column + 1} is {block[column, row]}; the series holds NaN or inf. "
                    "Fill or drop these points first."
                )
            shift = block.mean(axis=1) if shift is None else shift
            block -= shift[:, None]
            count, total = count + block.shape[1], total + block.sum(axis=1)
            squares = squares + np.einsum("nt,nt->n", block, block)
            low, high = np.minimum(low, least), np.maximum(high, most)
    offset = total / count
    scale = np.sqrt(np.maximum(squares / count - offset**2, 0.0))
    largest = np.maximum(np.abs(low), np.abs(high))
    return np.asarray(shift) + offset, np.where(scale > 1e-13 * largest, scale, 1.0), np.asarray(low), np.asarray(high)

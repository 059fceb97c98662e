"""A time series: one or many trajectories of unequal length, with times, inputs, names and units.

    trajectory i:  values (T_i, N) float64,  times (T_i,) or none,  inputs (T_i, K) or none

Values may stay in an HDF5 file (`LazyArray`) and are then read in slices. A series is never changed: methods give new ones.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynsys_datasets.errors import DataError, did_you_mean
from dynsys_datasets.series import checks, resampling, shaping
from dynsys_datasets.series.lazy import ArrayLike, LazyArray, blocks, rows, take

Number = float | int | np.number
Integer = int | np.integer


@dataclass(frozen=True, init=False, eq=False, repr=False)
class TimeSeries:
    """One or many trajectories of N observed quantities.

    `values`: one (T, N) or (T,) array, an (E, T, N) array, or a sequence of (T_i, N) arrays; arrays that are float64
    already are not copied. `times`: (T,), or one array a trajectory; strictly increasing, or None. `dt`: the sampling
    interval in `time_unit`; needed only without times. `inputs`: like `values`, K columns. `units`: one text for all
    columns or one a column. `notes` say what was filled, dropped or resampled; reports repeat them.

    Raises DataError for empty, ragged, non-numeric or mismatched arrays, unsorted times and repeated names. NaN and inf
    may stand in the values: `check` finds them.
    """

    trajectories: tuple[ArrayLike, ...]
    times: tuple[np.ndarray, ...] | None
    inputs: tuple[ArrayLike, ...] | None
    names: tuple[str, ...]
    input_names: tuple[str, ...]
    units: str | tuple[str, ...] | None
    time_unit: str | None
    source: str
    notes: tuple[str, ...]
    given_dt: float | None

    def __init__(
        self,
        values: Any,
        *,
        dt: Number | None = None,
        times: Any = None,
        inputs: Any = None,
        names: Sequence[str] | None = None,
        input_names: Sequence[str] | None = None,
        units: str | Sequence[str] | None = None,
        time_unit: str | None = None,
        source: str = "",
        notes: Sequence[str] = (),
    ):
        where = shaping.short(source)
        trajectories = shaping.as_trajectories(where, "values", values)
        times = None if times is None else shaping.as_times(where, times, [len(v) for v in trajectories])
        inputs = None if inputs is None else shaping.as_trajectories(where, "inputs", inputs)
        if inputs is not None and [len(u) for u in inputs] != [len(v) for v in trajectories]:
            raise DataError(
                f"{where}: inputs have {shaping.row_counts(inputs)} rows, values have {shaping.row_counts(trajectories)}. "
                "There must be one row of inputs for every row of values, in every trajectory."
            )
        if dt is not None and not (np.isfinite(dt) and dt > 0):
            raise DataError(
                f"{where}: dt must be a positive number, got dt={dt}. It is the sampling interval in the unit of time that you want."
            )
        n_inputs = 0 if inputs is None else inputs[0].shape[1]
        _put(
            self,
            trajectories=trajectories,
            times=times,
            inputs=inputs,
            names=shaping.as_names(where, "names", names, "x", trajectories[0].shape[1]),
            input_names=shaping.as_names(where, "input_names", input_names, "u", n_inputs),
            units=units if units is None or isinstance(units, str) else tuple(units),
            time_unit="samples" if times is None and dt is None else time_unit,
            source=source,
            notes=tuple(notes),
            given_dt=None if dt is None else float(dt),
        )
        if isinstance(self.units, tuple) and len(self.units) != self.n_obs:
            raise DataError(f"{where}: got {len(self.units)} units for {self.n_obs} columns. Give one text for all, or one a column.")
        if dt is not None and times is not None:
            checks.check_same_interval(where, float(dt), times)

    # what it is

    @property
    def n_trajectories(self) -> int:
        """How many trajectories there are."""
        return len(self.trajectories)

    @property
    def n_obs(self) -> int:
        """N, the number of observed quantities."""
        return self.trajectories[0].shape[1]

    @property
    def n_inputs(self) -> int:
        """K, the number of external inputs; 0 without inputs."""
        return 0 if self.inputs is None else self.inputs[0].shape[1]

    @property
    def lengths(self) -> tuple[int, ...]:
        """T_i of every trajectory."""
        return tuple(len(v) for v in self.trajectories)

    @property
    def n_points(self) -> int:
        """All rows of all trajectories."""
        return sum(self.lengths)

    @property
    def is_lazy(self) -> bool:
        """True if some values or inputs stay in their file."""
        return any(isinstance(a, LazyArray) for a in (*self.trajectories, *(self.inputs or ())))

    @functools.cached_property
    def dt(self) -> float:
        """The sampling interval in `time_unit`; 1.0 (`samples`) if neither dt nor times are known.

        Raises DataError if the times are irregular, with the first steps that are off and the call that resamples.
        """
        if self.given_dt is not None:
            return self.given_dt
        return 1.0 if self.times is None else checks.sampling_interval(self.times, self._name)

    @property
    def is_regular(self) -> bool:
        """True if all trajectories share one sampling interval."""
        try:
            return self.dt > 0
        except DataError:
            return False

    def __repr__(self) -> str:
        shortest, longest = min(self.lengths), max(self.lengths)
        lengths = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
        if self.n_trajectories > 1:
            lengths = f"{self.n_trajectories} trajectories of {lengths}"
        names = ", ".join(self.names[:6]) + (", ..." if self.n_obs > 6 else "")
        step = f"every {self.dt:.6g} {self.time_unit or ''}".rstrip() if self.is_regular else "at irregular times"
        inputs = f", inputs {', '.join(self.input_names[:6])}" if self.n_inputs else ""
        return f"TimeSeries({lengths} points {step}, {names}{inputs}{', lazy' if self.is_lazy else ''})"

    def __eq__(self, other: object) -> bool:
        """Equal if every array (NaN equals NaN) and every text is."""
        if not isinstance(other, TimeSeries):
            return NotImplemented
        plain = ("names", "input_names", "units", "time_unit", "source", "notes", "given_dt", "lengths")
        if any(getattr(self, name) != getattr(other, name) for name in plain):
            return False
        pairs = ((self.trajectories, other.trajectories), (self.times, other.times), (self.inputs, other.inputs))
        return all(_same(ours, theirs) for ours, theirs in pairs)

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    # new series from this one

    def replace(self, **changes: Any) -> "TimeSeries":
        """A copy with some arguments of the constructor changed (`values=`, `times=`, `names=`, `dt=`, `notes=`, ...)."""
        kept: dict[str, Any] = {"values": self.trajectories, "dt": self.given_dt}
        kept |= {key: getattr(self, key) for key in ("times", "inputs", "names", "input_names", "units", "time_unit", "source", "notes")}
        if changes.keys() - kept:
            raise DataError(f"TimeSeries.replace: unknown argument {min(changes.keys() - kept)!r}; known: {', '.join(kept)}.")
        return TimeSeries(**(kept | changes))

    def select(self, columns: str | Integer | Sequence[str | Integer]) -> "TimeSeries":
        """Some of the observed columns, by name or index, in the order asked for; DataError for an unknown one."""
        wanted = [columns] if isinstance(columns, str | int | np.integer) else list(columns)
        where = [self._column(column) for column in wanted]
        if not where:
            raise DataError(f"{self._name}: select got no column; there are {', '.join(self.names)}.")
        units = tuple(self.units[i] for i in where) if isinstance(self.units, tuple) else self.units
        return self.replace(values=tuple(take(v, where) for v in self.trajectories), names=[self.names[i] for i in where], units=units)

    def slice(self, start: Integer | None = None, stop: Integer | None = None) -> "TimeSeries":
        """Rows start..stop-1 of every trajectory (negative numbers count from its end); those left empty go away."""
        return self._cut([slice(start, stop).indices(length)[:2] for length in self.lengths], f"rows {start} to {stop}")

    def split(self, fractions: Sequence[Number] = (0.7, 0.15, 0.15)) -> "tuple[TimeSeries, ...]":
        """Parts of every trajectory in order of time: the first `fractions[0]` of each, then the next, and so on.

        Fractions are positive and sum to 1; borders are rounded to rows. Raises DataError if a part would have no row.
        """
        shares = np.asarray(fractions, dtype=np.float64)
        if shares.ndim != 1 or not np.all(shares > 0) or abs(shares.sum() - 1) > 1e-9:
            raise DataError(f"TimeSeries.split: fractions must be positive and sum to 1, got {tuple(fractions)}.")
        borders = [np.rint(np.concatenate([[0.0], shares.cumsum()]) * length).astype(int) for length in self.lengths]
        return tuple(
            self._cut([(int(b[i]), int(b[i + 1])) for b in borders], f"part {i} of the split {tuple(fractions)}")
            for i in range(shares.size)
        )

    def load(self) -> "TimeSeries":
        """The same series with everything in memory."""
        if not self.is_lazy:
            return self
        inputs = None if self.inputs is None else tuple(u[:] for u in self.inputs)
        return self.replace(values=tuple(v[:] for v in self.trajectories), inputs=inputs)

    def map(self, function: Callable[[np.ndarray], Any], names: Sequence[str] | None = None) -> "TimeSeries":
        """`function` applied to the values of every trajectory, (T_i, N) -> (T_i, N'), in memory.

        New names are x0, x1, ... if N changes and `names` is not given. Raises DataError if the number of rows changes.
        """
        mapped = shaping.as_trajectories(self._name, "the result of map", [function(v[:]) for v in self.trajectories])
        if tuple(len(v) for v in mapped) != self.lengths:
            raise DataError(
                f"{self._name}: map must keep the rows: it made {shaping.row_counts(mapped)} "
                f"rows from {shaping.row_counts(self.trajectories)}."
            )
        same = mapped[0].shape[1] == self.n_obs
        return self.replace(values=mapped, names=names or (self.names if same else None), units=self.units if same else None)

    def resample(self, dt: Number, max_gap: Number | None = None) -> "TimeSeries":
        """Values and inputs on an even grid of step `dt` from each trajectory's first time.

        Linear interpolation; for a grid at least 1.5 times coarser than the data, the mean of the interpolated signal over
        one step, so that fast parts do not fold into slow ones. Steps longer than `max_gap` cut the trajectory instead of
        being bridged. What was done goes into the notes. Raises DataError if nothing is left.
        """
        return resampling.resample(self, float(dt), None if max_gap is None else float(max_gap))

    def blocks(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """(trajectory, first row, values in memory) of blocks of about 16 MB (a trajectory in memory is one block)."""
        for i, values in enumerate(self.trajectories):
            for start, block in blocks(values):
                yield i, start, block

    def check(self, window: Integer | None = None, *, irregular: bool = False) -> "TimeSeries":
        """The series itself, if it can be trained on; DataError otherwise, with what to do.

        Looks for NaN and inf, constant columns, irregular sampling (unless `irregular` allows it), and no trajectory of at least
        `window` points.
        """
        for kind, arrays, names in (("column", self.trajectories, self.names), ("input", self.inputs or (), self.input_names)):
            for i, array in enumerate(arrays):
                bad = checks.bad_rows(array)
                if bad.any():
                    row, column, found = checks.first_bad(array, bad)
                    raise DataError(
                        f"{self._name}, trajectory {i}, row {row}: {kind} {names[column]!r} holds {found}, not a finite number. "
                        f'{bad.sum()} of {bad.size} rows are affected; read the file with missing="interpolate" or "drop", or correct it.'
                    )
        self._check_length(window)
        constant = checks.constant_columns(self.trajectories)
        if constant:
            first = self.trajectories[0][0:1][0, constant[0]]
            others = [name for i, name in enumerate(self.names) if i not in constant]
            raise DataError(
                f"{self._name}: column {self.names[constant[0]]!r} is constant ({first:.6g} in all {self.n_points} rows), so there is "
                "nothing to learn in it. " + (f"Leave it out: columns={others[:10]}." if others else "Choose another recording.")
            )
        if not irregular:
            self.dt  # noqa: B018 (raises if irregular)
        return self

    def _check_length(self, window: Integer | None) -> None:
        longest = max(self.lengths)
        needed = 2 if window is None else window
        if longest < needed:
            turned = " Rows are times: is the array transposed?" if self.n_obs > longest else ""
            raise DataError(
                f"{self._name}: the longest of {self.n_trajectories} trajectories has {longest} points, fewer than one training window "
                f"of {needed}. "
                f"Use shorter windows or a longer recording.{turned}"
            )

    @property
    def _name(self) -> str:
        return shaping.short(self.source)

    def _column(self, column: str | Integer) -> int:
        if isinstance(column, str):
            if column not in self.names:
                raise DataError(f"{self._name}: no column {column!r}; there are {', '.join(self.names)}.{did_you_mean(column, self.names)}")
            return self.names.index(column)
        if not -self.n_obs <= column < self.n_obs:
            raise DataError(f"{self._name}: no column {column}; there are {self.n_obs}, counted from 0: {', '.join(self.names)}.")
        return int(column) % self.n_obs

    def _cut(self, ranges: Sequence[tuple[int, int]], what: str) -> "TimeSeries":
        """Rows a..b-1 of every trajectory, without the empty ones."""
        kept = [(i, int(a), int(b)) for i, (a, b) in enumerate(ranges) if b > a]
        if not kept:
            raise DataError(f"{self._name}: {what} holds no row; the trajectories have {shaping.row_counts(self.trajectories)} rows.")

        def cut(arrays: Sequence[Any] | None) -> tuple[Any, ...] | None:
            return None if arrays is None else tuple(rows(arrays[i], a, b) for i, a, b in kept)

        # pieces may be too short to show the interval that the whole shows
        dt = self.dt if self.is_regular and (self.times is not None or self.given_dt is not None) else None
        return self.replace(values=cut(self.trajectories), times=cut(self.times), inputs=cut(self.inputs), dt=dt)


def _put(series: TimeSeries, **fields: Any) -> None:
    for name, value in fields.items():
        object.__setattr__(series, name, value)


def _same(ours: Sequence[Any] | None, theirs: Sequence[Any] | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return len(ours) == len(theirs) and all(np.array_equal(a[:], b[:], equal_nan=True) for a, b in zip(ours, theirs, strict=True))

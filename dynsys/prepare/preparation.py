"""What happens to a time series before a model sees it, and the way back into the user's units.

    values  - trend  ->  smooth  ->  every k-th row  ->  (x - mean) / scale  ->  (x[t], x[t-d], ..., x[t-(m-1)d])

Everything is learned once, from the training part, and kept in a frozen `Preparation`; `forward` does the same to any series,
`backward` undoes the scaling of the first N coordinates. The trend is not put back, and neither is what smoothing removed:
outputs are in the user's units, about the trend. Trend and smoothing are not causal (see dynsys.prepare.filters). Trajectories
never touch each other, nor do the training, validation and test parts if each is given to `forward` by itself.
Irregular samples (see dynsys.prepare.irregular) keep their times: the gap to the next one becomes the last input.

Row i of a prepared trajectory is row (i + (m-1) d) k of the recording; its input is the mean over the k rows from there on.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from dynsys.errors import DataError, InvalidValue
from dynsys.prepare import filters
from dynsys.prepare.embedding import choose, embed
from dynsys.prepare.irregular import check_config, embed_at, even, gaps, times_of, typical_interval
from dynsys.prepare.lazy import LazyRows
from dynsys.prepare.learning import blocks, excerpt, filtered, moments, standard
from dynsys.prepare.settings import PreparationConfig
from dynsys_datasets.series import TimeSeries


@dataclass(frozen=True)
class Prepared:
    """What a model is trained on: trajectories (T_i', N'), inputs (T_i', K) or None, the interval between rows, the columns' names.

    Row i of each is row `offset + i * step` of the recording, unless `gapped`: then the last input is the gap to the next row. Arrays are
    in memory, or LazyRows if the recording is lazy and unfiltered.
    """

    trajectories: tuple[np.ndarray | LazyRows, ...]
    inputs: tuple[np.ndarray | LazyRows, ...] | None
    dt: float
    names: tuple[str, ...]
    offset: int
    step: int
    gapped: bool = False

    @property
    def n_inputs(self) -> int:
        """K, the external inputs, without the gap."""
        return (0 if self.inputs is None else self.inputs[0].shape[1]) - self.gapped


@dataclass(frozen=True)
class Preparation:
    """A preparation with everything that was chosen or learned in it; made by `learn`, kept in model files by `to_json`.

    mean, scale: (N,) in the user's units; input_mean, input_scale: (K,). dt: sampling interval of the recording, before
    downsampling; the typical one if `gapped`: learned from irregular samples, whose gaps are the last input. delay and dimension
    are 1 without embedding. choice: how they were found, in words.
    """

    config: PreparationConfig
    names: tuple[str, ...]
    dt: float
    time_unit: str | None
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    input_mean: tuple[float, ...]
    input_scale: tuple[float, ...]
    delay: int
    dimension: int
    choice: tuple[str, ...]
    gapped: bool = False

    @classmethod
    def learn(cls, train: TimeSeries, config: PreparationConfig | None = None, *, gapped: bool | None = None) -> "Preparation":
        """Learn mean, scale, delay and dimension from the training part; lazy series are read in blocks.

        gapped: whether other parts may be irregular; by default whether this one is.

        Raises DataError for NaN or inf, a column that is constant once it is detrended, and trajectories that are too short.
        """
        config = PreparationConfig() if config is None else config
        gapped = not train.is_regular if gapped is None else gapped
        if gapped:
            check_config(config, train.source or "TimeSeries")
            train = train.load()
        dt = typical_interval(train) if gapped else float(train.dt)
        mean, scale = standard(train, config)
        input_mean, input_scale = np.zeros(train.n_inputs), np.ones(train.n_inputs)
        if train.inputs is not None and config.standardise:
            input_mean, input_scale = moments(block for u in train.inputs for block in blocks(u))
            input_scale = np.where(input_scale > 0, input_scale, 1.0)
        delay, dimension, words = 1, 1, ("one observation is the state",)
        asked = config.delay is not None or config.dimension is not None
        if config.embedding == "delay" or (config.embedding == "auto" and (train.n_obs == 1 or asked)):
            rows = even(train.trajectories, times_of(train), dt) if gapped else excerpt(train, config)
            sample = [(x - mean) / scale for x in rows]
            found = choose(sample, rule=config.rule, delay=config.delay, dimension=config.dimension)
            delay, dimension = found.delay, found.dimension
            given = config.delay is not None and config.dimension is not None
            words = found.words if given else (f"rule '{config.rule}'", *found.words)
        return cls(
            config=config,
            names=train.names,
            dt=dt,
            time_unit=train.time_unit,
            mean=_numbers(mean),
            scale=_numbers(scale),
            input_mean=_numbers(input_mean),
            input_scale=_numbers(input_scale),
            delay=int(delay),
            dimension=int(dimension),
            choice=tuple(words),
            gapped=gapped,
        )

    @property
    def n_obs(self) -> int:
        """N, the columns of the recording."""
        return len(self.mean)

    @property
    def n_prepared(self) -> int:
        """N' = m N, the columns that a model sees."""
        return self.n_obs * self.dimension

    @property
    def history(self) -> int:
        """Rows of the recording that one prepared row needs: (m-1) d k + 1."""
        return (self.dimension - 1) * self.delay * self.config.downsample + 1

    @property
    def prepared_dt(self) -> float:
        """Time between prepared rows, in the series' unit of time."""
        return self.dt * self.config.downsample

    @property
    def prepared_names(self) -> tuple[str, ...]:
        """Names of the N' columns: x, y, x[t-4], y[t-4], ... (delays in prepared rows)."""
        delayed = (f"{name}[t-{j * self.delay}]" for j in range(1, self.dimension) for name in self.names)
        return (*self.names, *delayed)

    def forward(self, series: TimeSeries) -> Prepared:
        """Prepare any series of the same columns and sampling interval.

        Learned from irregular samples, it prepares any sampling; the gaps are the last column of the inputs. Raises DataError if
        columns, inputs or dt are not those of the training part, or a trajectory is shorter than `history`.
        """
        self._check(series)
        if self.gapped:
            return self._forward_gapped(series.load())
        lazy = series.is_lazy and not self.config.filtered
        step, offset = self.config.downsample, self.history - 1
        rows = [-(-length // step) - offset // step for length in series.lengths]
        if lazy:
            values = tuple(
                LazyRows(x, (n, self.n_prepared), 0, step, self.history, self.transform_slice)
                for x, n in zip(series.trajectories, rows, strict=True)
            )
        else:
            values = tuple(self._finish(filtered(x, self.config, self.dt)) for x in series.trajectories)
        inputs = None
        if series.inputs is not None:
            inputs = tuple(
                LazyRows(u, (n, series.n_inputs), offset, step, step, self._scale_inputs) for u, n in zip(series.inputs, rows, strict=True)
            )
            inputs = inputs if lazy else tuple(u[:] for u in inputs)
        return Prepared(values, inputs, self.prepared_dt, self.prepared_names, offset, step)

    def transform_slice(self, x: Float[np.ndarray, "T N"]) -> Float[np.ndarray, "S D"]:
        """Prepare consecutive rows of a recording, (T, N) -> (ceil(T / k) - (m-1) d, N'), as if they were all there is.

        Equal to the same rows of `forward` if the first row is one that downsampling keeps. Raises InvalidValue if a trend or
        smoothing is part of the preparation: those need the whole trajectory.
        """
        if self.config.filtered:
            raise InvalidValue(
                f"Preparation.transform_slice: detrend={self.config.detrend!r} and smooth_width={self.config.smooth_width} "
                "need the whole trajectory. Use forward, which reads it into memory."
            )
        return self._finish(np.asarray(x, dtype=np.float64)[:: self.config.downsample])

    def forward_inputs(self, u: Float[np.ndarray, "T K"]) -> Float[np.ndarray, "S K"]:
        """Inputs of a free run, one row a sample of the recording, in the user's units -> one row a step of the model.

        The mean over each k rows, scaled as in training; the first row acts on the step that starts at the first row.
        """
        if u.ndim != 2 or u.shape[1] != len(self.input_mean):
            raise DataError(f"Preparation.forward_inputs: wanted inputs of shape (T, {len(self.input_mean)}), got {u.shape}.")
        return self._scale_inputs(np.asarray(u, dtype=np.float64))

    def backward(self, x: Any) -> np.ndarray:
        """The present observation in the user's units, (..., N') -> (..., N) float64. The trend is not added back."""
        x = np.asarray(x, dtype=np.float64)
        if x.ndim < 1 or x.shape[-1] not in (self.n_prepared, self.n_obs):
            raise InvalidValue(
                f"Preparation.backward: wanted {self.n_prepared} prepared columns (or the first {self.n_obs}), got shape {x.shape}."
            )
        shape = (1,) * (x.ndim - 1) + (self.n_obs,)
        return x[..., : self.n_obs] * np.reshape(self.scale, shape) + np.reshape(self.mean, shape)

    def summary(self) -> tuple[str, ...]:
        """What is done, in words, a line a step."""
        from dynsys.prepare.summary import describe

        return describe(self)

    def to_json(self) -> str:
        """Everything as JSON; `from_json` gives an equal object, to the last bit of every number."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Preparation":
        """The preparation that `to_json` wrote. Raises DataError for anything else."""
        from dynsys.prepare.summary import parse

        return parse(text)

    def _forward_gapped(self, series: TimeSeries) -> Prepared:
        values, inputs = [], []
        for i, (x, times) in enumerate(zip(series.trajectories, times_of(series), strict=True)):
            standard = (np.asarray(x, float) - np.reshape(self.mean, (1, -1))) / np.reshape(self.scale, (1, -1))
            values.append(embed_at(standard, times, self.delay * self.dt, self.dimension))
            drive = [] if series.inputs is None else [self._scale_inputs(np.asarray(series.inputs[i][:], float))]
            inputs.append(np.column_stack([*drive, gaps(times, self.dt)])[-len(values[-1]) :])
        return Prepared(tuple(values), tuple(inputs), self.dt, self.prepared_names, self.history - 1, 1, gapped=True)

    def _finish(self, x: Float[np.ndarray, "T N"]) -> Float[np.ndarray, "S D"]:
        """Scale and embed rows that are filtered and downsampled."""
        return embed((x - np.reshape(self.mean, (1, -1))) / np.reshape(self.scale, (1, -1)), self.delay, self.dimension)

    def _scale_inputs(self, u: Float[np.ndarray, "T K"]) -> Float[np.ndarray, "S K"]:
        return (filters.average_inputs(u, self.config.downsample) - np.reshape(self.input_mean, (1, -1))) / np.reshape(
            self.input_scale, (1, -1)
        )

    def _check(self, series: TimeSeries) -> None:
        where = series.source or "TimeSeries"
        if series.n_obs != self.n_obs:
            raise DataError(
                f"{where}: {series.n_obs} columns ({', '.join(series.names[:10])}), but the model was trained on {self.n_obs} "
                f"({', '.join(self.names[:10])}). Choose the same columns: columns={list(self.names[:10])}."
            )
        if series.n_inputs != len(self.input_mean):
            raise DataError(
                f"{where}: {series.n_inputs} inputs, but the model was trained with {len(self.input_mean)}. Give the same inputs."
            )
        if self.gapped:
            window = (self.dimension - 1) * self.delay * self.dt
            for i, times in enumerate(times_of(series)):
                if times[-1] - times[0] < window:
                    raise DataError(
                        f"{where}, trajectory {i}: spans a time of {times[-1] - times[0]:.6g}, less than the {window:.6g} of one delay "
                        f"vector (dimension {self.dimension}, delay {self.delay * self.dt:.6g}). Leave this trajectory out."
                    )
            return
        if not series.is_regular:
            raise DataError(
                f"{where}: sampled at irregular times, but the model was trained on even samples. Call .resample(dt={self.dt:.6g}), "
                "or train a model of continuous time (neural-ode, ltc, cfc) on irregular samples."
            )
        if abs(series.dt - self.dt) > 1e-3 * self.dt:
            raise DataError(
                f"{where}: sampled every {series.dt:.6g}, but the model was trained on data sampled every "
                f"{self.dt:.6g} {self.time_unit or ''}. Call .resample(dt={self.dt:.6g}), or give dt if it was only unknown."
            )
        for i, length in enumerate(series.lengths):
            if length < self.history:
                raise DataError(
                    f"{where}, trajectory {i}: {length} rows, fewer than the {self.history} that one delay vector spans "
                    f"(dimension {self.dimension}, delay {self.delay}, every {self.config.downsample}. row). Leave this trajectory out, "
                    "or set a smaller delay or dimension."
                )


def _numbers(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)

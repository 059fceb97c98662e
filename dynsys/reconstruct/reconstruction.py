"""A reconstruction: a trained model with the preparation of its data, so that everything goes in and out in the user's units."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import dynsys
from dynsys.analysis.arrays import as_float
from dynsys.analysis.comparison import LONGEST
from dynsys.analysis.structure import Structure, structure
from dynsys.config import from_toml, to_toml
from dynsys.dynamics import AbstractMap, warm_up
from dynsys.errors import DataError, InvalidValue
from dynsys.metrics.score import Score
from dynsys.models.koopman.lifted import AbstractLinear
from dynsys.models.store import read_model, read_text, write_model, write_text
from dynsys.precision import x64
from dynsys.prepare.preparation import Preparation
from dynsys.reconstruct.evaluation import evaluate, lead_of, run_from
from dynsys.reconstruct.settings import FitSettings
from dynsys.reconstruct.timed import at_typical_gaps, with_gaps
from dynsys.status import Status
from dynsys.train.trainer import Row
from dynsys_datasets.catalogue import names
from dynsys_datasets.files import replacing
from dynsys_datasets.series import TimeSeries

MODEL_FILE = "model.h5"
FORMAT = "dynsys-reconstruction-1"
LINEAR_REMEDY = (
    "The free run is constant or leaves the data: a linear run comes to rest, grows or only oscillates, so it has no chaotic attractor. "
    "Its eigenvalues and short forecasts hold nevertheless. A model of nonlinear functions, such as edmd, moves on with model.reencode=1. "
    "A network may need more steps."
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How the training went, for every seed: kept score and update, and Status; `choices` are the settings found from the data."""

    scores: tuple[float, ...]
    kept_at: tuple[int, ...]
    status: tuple[str, ...]
    best: int
    choices: tuple[str, ...]
    noise_level: float
    seconds: float
    skipped: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Reconstruction:
    """What `fit` returns and `load` reads. `model` works in prepared coordinates; all methods here in the user's units.

    last: the same seed's parameters at the end of training. start: the prepared points that lead to
    the one at which free runs begin by default, in a row (N' numbers for a model without a memory).
    Only after `fit`: parts, the training, validation and test part of the recording; history, the lines of the training;
    ensemble, the kept model of every seed.
    """

    model: AbstractMap
    last: AbstractMap
    preparation: Preparation
    settings: FitSettings
    outcome: Outcome
    start: tuple[float, ...]
    units: str | tuple[str, ...] | None
    source: str
    notes: tuple[str, ...]
    scores: tuple[Score, ...] = ()
    parts: tuple[TimeSeries, ...] = ()
    history: tuple[Row, ...] = ()
    ensemble: tuple[AbstractMap, ...] = ()

    def __repr__(self) -> str:
        scores = ", ".join(f"{score.name} {score.value:.3g}" for score in self.scores if score.name in ("d_stsp_binned", "d_h"))
        size = f"{self.model.dim} states, {self.preparation.n_prepared} of them seen"
        return f"Reconstruction({self.settings.model.name}, {size}, {self.status.value}; {scores or 'no scores'})"

    @property
    def status(self) -> Status:
        """How the kept seed's training ended; `remedy` says what to try if it is not ok."""
        return Status(self.outcome.status[self.outcome.best])

    @property
    def remedy(self) -> str:
        """What to try next, in words: that of the status, or what a linear Koopman model needs."""
        model = self.model
        if self.status is Status.DEAD and isinstance(model, AbstractLinear) and not model.reencode:
            return LINEAR_REMEDY
        return self.status.remedy

    @property
    def dt(self) -> float:
        """The sampling interval of everything that comes out (the recording's, times the downsampling)."""
        return self.preparation.prepared_dt

    def simulate(self, points: int, *, start: TimeSeries | None = None, inputs: np.ndarray | None = None) -> TimeSeries:
        """A free run of `points` points, its start included.

        start: a series whose end is the start (default: where the training data began); inputs (points * downsampling, K) for a
        driven model. A run that leaves every bound holds NaN or inf; its note says so. Raises InvalidValue for inputs that
        are missing or too few, DataError for a start that does not fit.
        """
        if isinstance(points, bool) or not isinstance(points, int | np.integer) or points < 1:
            raise InvalidValue(f"simulate: points must be a whole number of at least 1, got points={points!r}.")
        if start is not None:
            _check_series("simulate", start)
        begin = np.reshape(self.start, (-1, self.preparation.n_prepared))
        first, past = (begin, None) if start is None else self._end(start, 0)[:2]
        driven = at_typical_gaps(self._inputs("simulate", inputs, points - 1), points - 1, self.preparation)
        if past is None and self.preparation.gapped:  # the inputs of the first training points are not kept: their mean, 0
            past = at_typical_gaps(np.zeros((len(begin) - 1, self.model.n_inputs)), len(begin) - 1, self.preparation)
        run = run_from(with_gaps(self.model, self.preparation), first[None], points, driven, past)[0]
        return self._series([run], f"free run of {points} points of a {type(self.model).__name__} trained on {self.source}")

    def forecast(self, series: TimeSeries, steps: int, *, inputs: np.ndarray | None = None) -> TimeSeries:
        """Continue every trajectory of a series by `steps` points, (steps, N) each; the first is one interval after its end.

        A model with states that one observation does not show is led along the end of the series first. inputs (steps *
        downsampling - 1, K) or more rows: what drives the model after the end; the last row of the series' own inputs drives
        the first step. Raises DataError for a series that does not fit.
        """
        _check_series("forecast", series)
        if steps < 1:
            raise InvalidValue(f"forecast: steps must be at least 1, got steps={steps}.")
        runs, times = [], []
        for i in range(series.n_trajectories):
            first, past, known = self._end(series, i)
            if inputs is not None and np.shape(inputs)[1:] != (self.model.n_inputs,) and self.model.n_inputs:
                raise InvalidValue(f"forecast: inputs must have shape (T, {self.model.n_inputs}), got {np.shape(inputs)}.")
            coming = None if inputs is None or known is None else np.concatenate([known, np.asarray(inputs, float)])
            driven = self._inputs("forecast", inputs if coming is None else coming, steps)
            driven = at_typical_gaps(driven, steps, self.preparation)
            runs.append(run_from(with_gaps(self.model, self.preparation), first[None], steps + 1, driven, past)[0, 1:])
            last = float(series.times[i][-1]) if series.times is not None else (series.lengths[i] - 1) * series.dt
            times.append(last + self.dt * np.arange(1, steps + 1))
        return self._series(runs, f"forecast of {steps} points by a {type(self.model).__name__} trained on {self.source}", times)

    def evaluate(self, series: TimeSeries, **settings: Any) -> tuple[Score, ...]:
        """All scores on a series the model has not seen; keywords as in `dynsys.reconstruct.evaluation.evaluate`."""
        _check_series("evaluate", series)
        with x64(self.settings.training.precision == "float64"):
            return evaluate(self.model, self.preparation, self.preparation.forward(series), **settings)

    def structure(self, series: TimeSeries | None = None, *, system: str | None = None, **settings: Any) -> Structure:
        """Regions, symbols, fixed points, cycles, exponents and dimensions of the model, with positions in the user's units.

        series: a recording to compare with (default: the training part, after `fit`). system: the true system, by name (default: the
        source of the recording, if it is a system of the database as it stands there). Other keywords as in
        `dynsys.analysis.structure.structure`. A model with inputs is read without them, and not compared with data.
        """
        known = self.source in names() and not any("parameters changed" in note for note in self.notes)
        given = series if series is not None else self.parts[0] if self.parts else None
        data = None
        if given is not None and not self.model.n_inputs:
            trajectories = self.preparation.forward(given).trajectories
            data = np.asarray(max(trajectories, key=len)[:LONGEST], float)
        with x64():
            start = warm_up(as_float(self.model), jnp.asarray(np.reshape(self.start, (-1, self.preparation.n_prepared))))
        return structure(
            self.model,
            np.asarray(start),
            dt=self.dt,
            data=data,
            system=self.source if system is None and known else system,
            columns=self.preparation.names,
            outward=self.preparation.backward,
            **settings,
        )

    def save(self, path: str | Path) -> Path:
        """Write a model file (HDF5, atomic), from which `dynsys.load` makes an equal reconstruction."""
        import h5py

        path = Path(path)
        about = {
            "outcome": dataclasses.asdict(self.outcome),
            "start": self.start,
            "units": self.units,
            "source": self.source,
            "notes": self.notes,
            "scores": [score.to_json() for score in self.scores],
        }
        with replacing(path) as temporary, h5py.File(temporary, "w") as file:
            write_text(file, "format", FORMAT)
            write_text(file, "version", dynsys.__version__)
            for name, text in (
                ("about", json.dumps(about)),
                ("preparation", self.preparation.to_json()),
                ("settings", to_toml(self.settings)),
            ):
                file.create_dataset(name, data=np.frombuffer(text.encode(), np.uint8))
            write_model(file.create_group("model"), self.model)
            write_model(file.create_group("last"), self.last)
        return path

    def _end(self, series: TimeSeries, trajectory: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """What leads to the very end of a trajectory: prepared rows (W, N'), their inputs (W - 1, K), the input of the last row."""
        every = self.preparation.config.downsample
        rows = series.lengths[trajectory]
        one = series.replace(
            values=[series.trajectories[trajectory]],
            times=None if series.times is None else [series.times[trajectory]],
            inputs=None if series.inputs is None else [series.inputs[trajectory]],
        ).slice((rows - 1) % every, None)
        prepared = self.preparation.forward(one)
        lead = min(lead_of(self.model), len(prepared.trajectories[0]) - 1)
        window = np.asarray(prepared.trajectories[0][-lead - 1 :], float)
        past = None if prepared.inputs is None else np.asarray(prepared.inputs[0][-lead - 1 :], float)[:lead]
        known = None if series.inputs is None else np.asarray(series.inputs[trajectory][rows - 1 : rows], float)
        return window, past, known

    def _inputs(self, who: str, inputs: np.ndarray | None, steps: int) -> np.ndarray | None:
        if self.model.n_inputs == 0:
            if inputs is not None:
                raise InvalidValue(f"{who}: the model was trained without inputs; leave them out.")
            return None
        if inputs is None:
            raise InvalidValue(f"{who}: the model has {self.model.n_inputs} inputs; pass inputs=, one row a sample.")
        if np.ndim(inputs) != 2:
            raise InvalidValue(f"{who}: inputs must have shape (T, {self.model.n_inputs}), got {np.shape(inputs)}.")
        prepared = self.preparation.forward_inputs(np.asarray(inputs, float))
        if len(prepared) < steps:
            raise InvalidValue(f"{who}: {steps} steps need {steps} rows of inputs after downsampling, got {len(prepared)}.")
        return prepared[: max(steps, 1)]

    def _series(self, runs: list[np.ndarray], source: str, times: list[np.ndarray] | None = None) -> TimeSeries:
        values = [self.preparation.backward(run) for run in runs]
        notes = () if all(np.isfinite(v).all() for v in values) else (f"The run diverged. {Status.DIVERGED.remedy}",)
        about: dict[str, Any] = {"dt": self.dt} if times is None else {"times": times}
        return TimeSeries(
            values,
            **about,
            names=self.preparation.names,
            units=self.units,
            time_unit=self.preparation.time_unit,
            source=source,
            notes=notes,
        )


def _check_series(who: str, series: Any) -> None:
    if not isinstance(series, TimeSeries):
        raise InvalidValue(f"{who}: expected a TimeSeries, got a {type(series).__name__}. Make one: TimeSeries(values, dt=...).")


def load(path: str | Path) -> Reconstruction:
    """Read a reconstruction from a run folder or a model file.

    Raises DataError if there is none, or it is damaged, from elsewhere, or names a model that is not registered.
    """
    import h5py

    path = Path(path)
    file_path = path / MODEL_FILE if path.is_dir() else path
    if not file_path.is_file():
        there = ", ".join(sorted(p.name for p in path.iterdir())[:10]) if path.is_dir() else "nothing"
        raise DataError(
            f"{file_path}: there is no model here (found: {there or 'nothing'}). Give a run folder of dynsys fit, or a model file."
        )
    where = str(file_path)
    try:
        with h5py.File(file_path, "r") as file:
            found = read_text(file, "format") if "format" in file.attrs else "none"
            if found != FORMAT:
                raise DataError(f"{where}: not a model file of this version of dynsys (format {found!r}, wanted {FORMAT!r}).")
            texts = {name: _text(file[name], where) for name in ("about", "preparation", "settings")}
            models = {name: read_model(file[name], where) for name in ("model", "last")}
        about = json.loads(texts["about"])
        preparation = Preparation.from_json(texts["preparation"])
        outcome: Any = {key: tuple(value) if isinstance(value, list) else value for key, value in about["outcome"].items()}
        loaded = Reconstruction(
            model=models["model"],
            last=models["last"],
            preparation=preparation,
            settings=from_toml(FitSettings, texts["settings"], where=where),
            outcome=Outcome(**outcome),
            start=tuple(about["start"]),
            units=tuple(about["units"]) if isinstance(about["units"], list) else about["units"],
            source=about["source"],
            notes=tuple(about["notes"]),
            scores=tuple(Score.from_json(text) for text in about["scores"]),
        )
        _check(loaded, where)
    except DataError as error:
        raise error if str(error).startswith(where) else DataError(f"{where}: {error}") from None
    except Exception as error:  # h5py and broken texts raise many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{where}: can't be read as a model file ({reason}). Is it complete?") from None
    return loaded


def _check(loaded: Reconstruction, where: str) -> None:
    wanted = loaded.preparation.n_prepared
    for model in (loaded.model, loaded.last):
        if model.n_obs != wanted or model.n_inputs != len(loaded.preparation.input_mean):
            raise DataError(
                f"{where}: the model observes {model.n_obs} columns and takes {model.n_inputs} inputs, its preparation makes {wanted} and "
                f"{len(loaded.preparation.input_mean)}. It is damaged."
            )
    outcome, start = loaded.outcome, np.asarray(loaded.start, float)
    if start.ndim != 1 or start.size % wanted or not 0 < start.size <= wanted * (loaded.model.memory + 1) or not np.isfinite(start).all():
        raise DataError(f"{where}: the start of a free run must be {wanted} finite numbers. It is damaged.")
    if not 0 <= outcome.best < len(outcome.scores) or len({len(outcome.scores), len(outcome.kept_at), len(outcome.status)}) != 1:
        raise DataError(f"{where}: says that seed {outcome.best} of {len(outcome.scores)} was kept. It is damaged.")
    for status in outcome.status:
        Status(status)


def _text(dataset: Any, where: str) -> str:
    if dataset.size > 2**26 or dataset.id.get_storage_size() < dataset.size:
        raise DataError(f"{where}: claims a text of {dataset.size:,} characters. It is damaged.")
    return bytes(np.asarray(dataset[()], np.uint8)).decode()

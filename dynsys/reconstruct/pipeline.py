"""`fit`: the one call from a time series to a reconstruction.

    check -> split in time -> learn the preparation on the training part -> fill in settings -> train all seeds at once,
    scoring free runs -> keep the best -> score it on the test part -> run folder

A model that is fitted in closed form takes the place of the training.

A run folder that was begun is gone on with from its last checkpoint, to the bit of the uninterrupted run.
"""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax.random as jr
import numpy as np

import dynsys
from dynsys import registry
from dynsys.config import to_toml, with_settings
from dynsys.dynamics import AbstractMap, AbstractTimed
from dynsys.errors import DataError, InvalidValue
from dynsys.metrics.score import Score
from dynsys.precision import x64
from dynsys.prepare.irregular import even
from dynsys.prepare.noise import suggest_noise_level
from dynsys.prepare.preparation import Preparation, Prepared
from dynsys.progress import shown
from dynsys.reconstruct import closed_form
from dynsys.reconstruct.defaults import chunk_of, make_forcing, make_models, make_optimizer, resolve
from dynsys.reconstruct.evaluation import evaluate
from dynsys.reconstruct.folder import CHECKPOINT_FILE, RunFolder
from dynsys.reconstruct.reconstruction import MODEL_FILE, Outcome, Reconstruction, load
from dynsys.reconstruct.scoring import FreeRunScorer
from dynsys.reconstruct.settings import FitSettings
from dynsys.reconstruct.timed import with_gaps, without_gaps
from dynsys.train.checkpoint import load_checkpoint, save_checkpoint
from dynsys.train.loss import Loss
from dynsys.train.trainer import Plan, Progress, Run, Scored, Trained, Trainer
from dynsys.train.windows import Streamed, Windows
from dynsys_datasets.series import TimeSeries

SAVE_EVERY = 20.0  # seconds between checkpoints on disk, besides those at scores


@dataclasses.dataclass(frozen=True)
class Parts:
    """A recording cut in time, raw and prepared; `test` is None if no share was kept for it."""

    train: TimeSeries
    validation: TimeSeries | None
    test: TimeSeries | None


@dataclasses.dataclass(frozen=True)
class Beginning:
    """What is known before the training; nothing in `settings` is open any more, `words` say what was chosen and why.

    `data` is the prepared training part, `noise` the level of noise in it.
    """

    settings: FitSettings
    words: tuple[str, ...]
    parts: Parts
    preparation: Preparation
    data: Prepared
    noise: float


def fit(
    series: TimeSeries,
    *,
    model: str | None = None,
    seeds: int | None = None,
    steps: int | None = None,
    settings: FitSettings | None = None,
    set: Sequence[str] = (),
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | bool = True,
) -> Reconstruction:
    """Reconstruct the dynamical system behind a time series.

    series: the recording, any number of trajectories. model, seeds, steps: the settings most often changed; `settings` holds all,
    and `set` changes single ones as on the command line ("model.dim=20"). out: a run folder (config.toml, model.h5,
    checkpoint.h5, history.csv, scores.json); without it nothing is written. A folder that holds the beginning of this very run
    is gone on with; one that holds another run is an error unless `overwrite`. progress: True shows a bar (plain lines where
    there is no terminal), False nothing; or a function that is called after every chunk of training.

    Raises DataError for a series that can't be used as it is, InvalidValue or UnknownName for settings that can't work. A
    training that failed is no exception: see `Reconstruction.status`.
    """
    began = time.perf_counter()
    begun = begin("fit", series, chosen_settings(settings, model, seeds, steps, set))
    chosen, parts, preparation, data = begun.settings, begun.parts, begun.preparation, begun.data
    folder = None if out is None else RunFolder(Path(out))
    mark = fingerprint(chosen, series)
    if folder is not None and folder.is_finished(mark, overwrite=overwrite):
        return dataclasses.replace(load(folder.path), parts=present(parts), history=folder.rows(mark))

    training = chosen.training
    with x64(training.precision == "float64"):
        if closed_form.is_closed_form(chosen):
            models = closed_form.solve(chosen, data)
            if folder is not None:
                folder.begin(mark, to_toml(chosen), overwrite=overwrite)
            trained = closed_form.scored(models, make_scorer(chosen, preparation, parts, data, models[0].memory))
            skipped = (0,) * len(models)
        else:
            models = untrained(chosen, data)
            trainer = make_trainer(chosen, data, series, models)
            scorer = make_scorer(chosen, preparation, parts, data, models[0].memory)
            run = trainer.begin()
            if folder is not None:
                folder.begin(mark, to_toml(chosen), overwrite=overwrite)
            checkpoint = None if folder is None else folder.path / CHECKPOINT_FILE
            if checkpoint is not None and checkpoint.exists():
                run = load_checkpoint(checkpoint, run, fingerprint=mark)
            with shown(progress) as tell:
                train(trainer, run, scorer, checkpoint, mark, folder, tell)
            trained = without_gaps(trainer.result(run))
            skipped = tuple(int(n) for n in np.asarray(run.state.skipped))
        scores = scores_of_test_part(trained, preparation, parts, training.seed)
    best = trained.best
    reconstruction = Reconstruction(
        model=trained.kept[best],
        last=trained.last[best],
        preparation=preparation,
        settings=chosen,
        outcome=_outcome(trained, skipped, begun, time.perf_counter() - began),
        start=tuple(_first_rows(data, trained.kept[best].memory + 1).ravel().tolist()),
        units=series.units,
        source=series.source,
        notes=series.notes,
        scores=scores,
        parts=present(parts),
        history=trained.history,
        ensemble=trained.kept,
    )
    if folder is not None:
        folder.write_history(reconstruction.history)
        folder.write_scores(reconstruction.scores, reconstruction.outcome)
        reconstruction.save(folder.path / MODEL_FILE)
    return reconstruction


def begin(who: str, series: TimeSeries, settings: FitSettings) -> Beginning:
    """Check, split and prepare a recording, and fill in the settings. Raises as `fit`, in whose name (`who`) it speaks."""
    if not isinstance(series, TimeSeries):
        raise InvalidValue(
            f"{who}: expected a TimeSeries, got a {type(series).__name__}. Make one: TimeSeries(values, dt=...), or read_series(file)."
        )
    if series.n_obs > 2 * max(series.lengths):
        raise DataError(
            f"{series.source or 'TimeSeries'}: {series.n_obs} columns of at most {max(series.lengths)} points; it looks transposed. "
            "Rows are points in time: TimeSeries(values.T)."
        )
    series.check(irregular=True)
    if not series.is_regular:
        _check_timed(series, settings.model.name)
    parts = split(series, settings)
    preparation = Preparation.learn(parts.train, settings.preparation, gapped=not series.is_regular)
    data = preparation.forward(parts.train)
    noise = suggest_noise_level(_present_columns(data, preparation))
    chosen, words = closed_form.resolve(settings) if closed_form.is_closed_form(settings) else resolve(settings, data, noise)
    return Beginning(chosen, words, parts, preparation, data, noise)


def split(series: TimeSeries, settings: FitSettings) -> Parts:
    """Cut every trajectory in time. Raises DataError if what is left to train on is too short for a window."""
    shares = settings.split
    wanted = (1.0 - shares.validation - shares.test, shares.validation, shares.test)
    pieces = iter(series.split(tuple(share for share in wanted if share)) if max(wanted) < 1 else (series,))
    train, validation, test = (next(pieces) if share else None for share in wanted)
    if train is None:
        raise InvalidValue("split: nothing is left to train on.")
    if settings.training.window is not None:
        train.check(window=settings.training.window, irregular=True)
    return Parts(train, validation, test)


def fingerprint(settings: FitSettings, series: TimeSeries) -> str:
    """A digest of all settings and of the recording (of evenly spread rows, for a file that stays on disk)."""
    digest = hashlib.sha256(f"{dynsys.__version__}\n{to_toml(settings)}\n{series.names}\n".encode())
    digest.update(repr(series.dt if series.is_regular else "irregular").encode())
    for arrays in (series.trajectories, series.inputs or (), () if series.is_regular else series.times or ()):
        for array in arrays:
            digest.update(str(array.shape).encode())
            if isinstance(array, np.ndarray):
                digest.update(np.ascontiguousarray(array).tobytes())
            else:
                for row in np.linspace(0, array.shape[0] - 1, 64).astype(int).tolist():
                    digest.update(np.asarray(array[row : row + 1], float).tobytes())
    return digest.hexdigest()


def _outcome(trained: Trained, skipped: tuple[int, ...], begun: Beginning, seconds: float) -> Outcome:
    return Outcome(
        scores=trained.scores,
        kept_at=trained.kept_at,
        status=tuple(status.value for status in trained.status),
        best=trained.best,
        choices=begun.words,
        noise_level=begun.noise,
        seconds=seconds,
        skipped=skipped,
    )


def chosen_settings(
    settings: FitSettings | None, model: str | None, seeds: int | None, steps: int | None, changes: Sequence[str]
) -> FitSettings:
    """The settings that the arguments of `fit` ask for. Raises InvalidValue or UnknownName for what can't be."""
    chosen = FitSettings() if settings is None else settings
    if isinstance(changes, str):
        raise InvalidValue(f"fit: set must be a list of texts such as ['model.dim=20'], got the text {changes!r}.")
    short = (("model.name", model), ("training.seeds", seeds), ("training.steps", steps))
    return with_settings(chosen, [*(f"{name}={value}" for name, value in short if value is not None), *changes])


def untrained(settings: FitSettings, data: Prepared) -> tuple[AbstractMap, ...]:
    """The models of all seeds before their training."""
    models = make_models(settings, n_obs=data.trajectories[0].shape[1], n_inputs=data.n_inputs)
    return tuple(with_gaps(model, data) for model in models)


def make_trainer(
    settings: FitSettings,
    data: Prepared,
    series: TimeSeries,
    models: tuple[AbstractMap, ...] | None = None,
    streams: Sequence[int] | None = None,
) -> Trainer:
    """The trainer of the settings, for other models and streams of random numbers than those of the seeds if given."""
    training = settings.training
    models = untrained(settings, data) if models is None else models
    size = sum(x.shape[0] for x in data.trajectories) * (models[0].n_obs + models[0].n_inputs)
    about = {"length": training.window, "dtype": training.precision}
    if series.is_lazy and size > training.resident:
        windows = Streamed(data.trajectories, data.inputs, seed=training.seed, resident=training.resident, **about)
    else:
        windows = Windows.of(data.trajectories, data.inputs, **about)
    plan = Plan(
        steps=training.steps,
        batch=training.batch,
        chunk=chunk_of(training.steps, training.chunk),
        checkpoints=training.checkpoints,
        noise=training.noise,
        clip=training.clip,
        bound=training.bound,
    )
    return Trainer(
        models,
        windows,
        forcing=make_forcing(training),
        optimizer=make_optimizer(training),
        loss=Loss(l2=training.l2, manifold=training.manifold, manifold_share=training.manifold_share),
        plan=plan,
        streams=streams,
        key=jr.fold_in(jr.key(training.seed), 2),
    )


def make_scorer(settings: FitSettings, preparation: Preparation, parts: Parts, data: Prepared, memory: int = 0) -> FreeRunScorer:
    """What scores free runs against the training and validation parts."""
    trajectories, inputs = list(data.trajectories), None if data.inputs is None else list(data.inputs)
    if parts.validation is not None and min(parts.validation.lengths) >= preparation.history:
        more = preparation.forward(parts.validation)
        trajectories += more.trajectories
        inputs = None if inputs is None or more.inputs is None else inputs + list(more.inputs)
    choice = settings.selection
    return FreeRunScorer(
        trajectories,
        inputs,
        starts=choice.starts,
        steps=choice.steps,
        bins=choice.bins,
        smoothing=choice.smoothing,
        veto=choice.veto,
        memory=memory,
        seed=settings.training.seed,
    )


def train(
    trainer: Trainer,
    run: Run,
    scorer: Callable[[AbstractMap], Scored],
    checkpoint: Path | None,
    mark: str,
    folder: RunFolder | None,
    tell: Callable[[Progress], None],
) -> None:
    """Go on with a run to its end, with checkpoints and history on disk; Ctrl-C leaves the last whole chunk there."""
    saved = time.perf_counter()
    whole = _snapshot(run)

    def save(run: Run) -> None:
        nonlocal saved
        if checkpoint is not None and folder is not None:
            save_checkpoint(run, checkpoint, fingerprint=mark)
            folder.write_history(run.history)
            saved = time.perf_counter()

    try:
        for told in trainer.run(run, scorer, save):
            whole = _snapshot(run)
            tell(told)
            if time.perf_counter() - saved > SAVE_EVERY:
                save(run)
    except KeyboardInterrupt:  # perhaps in the middle of a chunk, so `run` may be half updated
        save(whole)
        raise


def _snapshot(run: Run) -> Run:
    """The run as it is now; only what is changed in place is copied."""
    return dataclasses.replace(run, best_score=run.best_score.copy(), best_step=run.best_step.copy(), history=list(run.history))


def _check_timed(series: TimeSeries, name: str) -> None:
    """DataError for irregular samples and a model in discrete time: what is irregular, and what to do."""
    if not issubclass(registry.lookup("model", name), AbstractTimed):
        timed = [other for other in registry.names("model") if issubclass(registry.lookup("model", other), AbstractTimed)]
        try:
            series.dt  # noqa: B018 (raises, with the steps that are off and the call that resamples)
        except DataError as error:
            raise DataError(f"{error} Or fit a model of continuous time ({', '.join(timed)}); {name} steps in equal times.") from None


def _present_columns(data: Prepared, preparation: Preparation) -> TimeSeries:
    """The prepared series without its delays (of a long file: its first rows), at even times: what a model sees of the noise."""
    rows = [_at_even_times(data, i, 100_000)[:, : preparation.n_obs] for i in range(len(data.trajectories))]
    return TimeSeries(rows, dt=data.dt)


def _first_rows(data: Prepared, count: int) -> np.ndarray:
    """The rows that lead to the default start of a free run, at even times."""
    return _at_even_times(data, 0, count)[:count]


def _at_even_times(data: Prepared, trajectory: int, rows: int) -> np.ndarray:
    """The first prepared rows of a trajectory; of an irregular one interpolated at the typical interval."""
    x = np.asarray(data.trajectories[trajectory][:rows], float)
    if not data.gapped or data.inputs is None or len(x) < 2:
        return x
    steps = np.asarray(data.inputs[trajectory][: len(x) - 1], float)[:, -1]
    return even([x], [np.append(0.0, np.cumsum(steps))], 1.0)[0]


def scores_of_test_part(trained: Trained, preparation: Preparation, parts: Parts, seed: int) -> tuple[Score, ...]:
    """The scores of the best model on the test part; none if there is no such part."""
    if parts.test is None:
        return ()
    try:
        prepared = preparation.forward(parts.test)
        return evaluate(trained.kept[trained.best], preparation, prepared, seed=seed)
    except DataError:  # a test part shorter than one delay vector or 20 rows: nothing to score, which the report says
        return ()


def present(parts: Parts) -> tuple[TimeSeries, ...]:
    """The parts that there are."""
    return tuple(part for part in (parts.train, parts.validation, parts.test) if part is not None)

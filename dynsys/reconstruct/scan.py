"""How many rectified units does a recording need? AL-RNNs of every P and seed, trained together, and the knee of their scores.

P enters as data (a mask of the rectified units), so one compiled program trains and scores all of them. Seed s of every P begins with
the same weights and sees the same windows, so what differs is P; and it is seed s of `fit` with n_relu = P.

    knee = the smallest P with  best(P) <= min best + max(0.1 drop, spread)

best(P): the lowest free-run score of its seeds; drop: from the highest best(P) of a P that lives at all to the lowest; spread: how far
the best seed is ahead of the second, in the middle over P. A tenth of the drop is where the curve has turned; below the spread two P
can't be told apart. Best and not median, because the question is whether P units can do it. The rule depends neither on how far
beyond the knee the scan goes nor on the scale of P, as the distance to a chord would.
Source: Brenner, Hemmer, Monfared, Durstewitz, NeurIPS 2024 (score over P; few units suffice).
"""

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dynsys.analysis.symbols import symbolic_code
from dynsys.config import to_toml, with_settings
from dynsys.dynamics import AbstractPiecewiseLinear, rollout
from dynsys.errors import DataError, InvalidValue
from dynsys.models.alrnn import MaskedALRNN
from dynsys.precision import x64
from dynsys.progress import shown
from dynsys.reconstruct.folder import CHECKPOINT_FILE, SCAN_FILE, RunFolder
from dynsys.reconstruct.pipeline import (
    Beginning,
    begin,
    chosen_settings,
    fingerprint,
    make_scorer,
    make_trainer,
    present,
    scores_of_test_part,
    train,
    untrained,
)
from dynsys.reconstruct.reconstruction import MODEL_FILE, Outcome, Reconstruction, load
from dynsys.reconstruct.scoring import dtype_of
from dynsys.reconstruct.settings import FitSettings
from dynsys.train.checkpoint import load_checkpoint
from dynsys.train.trainer import WORST_SCORE, Progress, Trained
from dynsys_datasets.series import TimeSeries

SCANNED = ("P",)  # what `dynsys scan` knows
FORMAT = "dynsys-scan-1"
DROP = 0.1  # share of the drop that counts as the foot of the curve
POINTS = 20_000  # of the free run whose regions are counted
TRANSIENT = 1000  # points before them
MAIN = 0.01  # share of the time from which a region is a main one


@dataclasses.dataclass(frozen=True)
class ScanRow:
    """One P: the free-run scores of its seeds (low is good; 1e6 is dead), and what the best one's free run visits.

    regions: linear regions visited in 20,000 points after 1,000; main_regions: those with at least 1 % of the time; 0 if it diverged.
    """

    n_relu: int
    scores: tuple[float, ...]
    regions: int
    main_regions: int

    @property
    def best(self) -> float:
        """The lowest score."""
        return min(self.scores)

    @property
    def median(self) -> float:
        """The median of the scores; 1e6 where half of them or more are dead, for the mean of a score and of no score says nothing."""
        upper = sorted(self.scores)[len(self.scores) // 2]
        return WORST_SCORE if upper >= WORST_SCORE else float(np.median(self.scores))


@dataclasses.dataclass(frozen=True, eq=False)
class Scan:
    """What `scan_relu` returns and `load_scan` reads: a row and the best seed's reconstruction for every P, smallest first."""

    rows: tuple[ScanRow, ...]
    reconstructions: tuple[Reconstruction, ...]

    def __repr__(self) -> str:
        return f"Scan(P = {', '.join(str(row.n_relu) for row in self.rows)}; knee {self.knee})"

    @property
    def knee(self) -> int | None:
        """The smallest P that does about as well as any, as the module defines it; None if every model is dead."""
        return knee(self.rows)

    @property
    def words(self) -> str:
        """The knee in a sentence."""
        if self.knee is None:
            return "No knee: the free run of every model dies or diverges. Train longer, or see what fit says of one P."
        return f"Knee at P = {self.knee}: the smallest P whose best score is within {allowance(self.rows):.3g} of the lowest."

    def at(self, n_relu: int) -> Reconstruction:
        """The reconstruction of one P. Raises InvalidValue for a P that was not scanned."""
        for row, found in zip(self.rows, self.reconstructions, strict=True):
            if row.n_relu == n_relu:
                return found
        raise InvalidValue(f"Scan: P={n_relu} was not scanned; there are {', '.join(str(row.n_relu) for row in self.rows)}.")


def allowance(rows: Sequence[ScanRow]) -> float:
    """max(0.1 drop, spread) of the module's definition; NaN if every model is dead."""
    alive = [row for row in rows if row.best < WORST_SCORE]
    if not alive:
        return float("nan")
    drop = max(row.best for row in alive) - min(row.best for row in alive)
    ranked = [sorted(row.scores) for row in alive]
    ahead = [scores[1] - scores[0] for scores in ranked if len(scores) > 1 and scores[1] < WORST_SCORE]
    return max(DROP * drop, float(np.median(ahead)) if ahead else 0.0)


def knee(rows: Sequence[ScanRow]) -> int | None:
    """The smallest P whose best score is within the allowance of the lowest; None if every model is dead."""
    alive = [row for row in rows if row.best < WORST_SCORE]
    limit = min((row.best for row in alive), default=0.0) + allowance(rows)
    return min((row.n_relu for row in alive if row.best <= limit), default=None)


def scan_relu(
    series: TimeSeries,
    *,
    values: Sequence[int] = (0, 1, 2, 3, 5, 10),
    seeds: int | None = 3,
    steps: int | None = None,
    settings: FitSettings | None = None,
    set: Sequence[str] = (),
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | bool = True,
) -> Scan:
    """Train AL-RNNs with P = each of `values` rectified units, `seeds` of each, all together, and find the knee of the scores.

    The other arguments are those of `fit`. out: a folder for scan.json, config.toml, history.csv, checkpoint.h5, and a run folder
    for the best seed of every P (P-00, P-01, ...), which `dynsys.load` reads. A scan that was stopped goes on there, to the bit.

    Raises as `fit`; InvalidValue for values outside 0 ... dim or settings of another model.
    """
    began = time.perf_counter()
    whole = chosen_settings(settings, None if settings is not None else "alrnn", seeds, steps, set)
    _check(whole)
    begun = begin("scan_relu", series, whole)
    values = _values(values)
    mark = fingerprint(begun.settings, series) + f" P {values}"
    folder = None if out is None else RunFolder(Path(out), SCAN_FILE)
    if folder is not None and folder.is_finished(mark, overwrite=overwrite):
        return load_scan(folder.path)
    each = [with_settings(begun.settings, [f"model.n_relu={P}"]) for P in values]
    with x64(begun.settings.training.precision == "float64"):
        models = tuple(MaskedALRNN.of(model) for one in each for model in untrained(one, begun.data))  # pyright: ignore[reportArgumentType]
        count = begun.settings.training.seeds
        trainer = make_trainer(begun.settings, begun.data, series, models, list(range(count)) * len(values))
        run = trainer.begin()
        if folder is not None:
            _begin_folder(folder, mark, to_toml(begun.settings), overwrite)
        checkpoint = None if folder is None else folder.path / CHECKPOINT_FILE
        if checkpoint is not None and checkpoint.exists():
            run = load_checkpoint(checkpoint, run, fingerprint=mark)
        scorer = make_scorer(begun.settings, begun.preparation, begun.parts, begun.data)
        with shown(progress) as tell:
            train(trainer, run, scorer, checkpoint, mark, folder, tell)
        trained, skipped = trainer.result(run), np.asarray(run.state.skipped)
        if folder is not None:
            folder.write_history(trained.history)
        rows, found = [], []
        for i, (P, one) in enumerate(zip(values, each, strict=True)):
            members = slice(i * count, (i + 1) * count)
            mine = _part(trained, members)
            seconds = (time.perf_counter() - began) / len(values)
            outcome = Outcome(
                scores=mine.scores,
                kept_at=mine.kept_at,
                status=tuple(status.value for status in mine.status),
                best=mine.best,
                choices=begun.words,
                noise_level=begun.noise,
                seconds=seconds,
                skipped=tuple(skipped[members].tolist()),
            )
            reconstruction = _reconstruction(mine, outcome, one, begun, series)
            rows.append(ScanRow(P, mine.scores, *_regions(mine.kept[mine.best], np.array(reconstruction.start))))
            found.append(reconstruction)
            if folder is not None:
                _write(folder.path / f"P-{P:02d}", reconstruction, fingerprint(one, series))
    scan = Scan(tuple(rows), tuple(found))
    if folder is not None:
        folder.write_text(SCAN_FILE, _to_json(scan))
    return scan


def load_scan(path: str | Path) -> Scan:
    """The scan in a run folder. Raises DataError if there is none, or it is damaged."""
    file = Path(path) / SCAN_FILE
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            raise DataError(f"{file}: not a scan of this version of dynsys (format {told['format']!r}, wanted {FORMAT!r}).")
        rows = tuple(
            ScanRow(int(row["P"]), tuple(map(float, row["scores"])), int(row["regions"]), int(row["main_regions"])) for row in told["rows"]
        )
    except OSError:
        raise DataError(f"{file}: there is no finished scan here. Give the folder of a dynsys scan.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: can't be read as a scan ({error}). Run the scan again with --overwrite.") from None
    return Scan(rows, tuple(load(Path(path) / f"P-{row.n_relu:02d}") for row in rows))


def _check(settings: FitSettings) -> None:
    if settings.model.name != "alrnn":
        raise InvalidValue(f"scan_relu: P counts the rectified units of an alrnn; the settings have model.name={settings.model.name!r}.")
    if settings.model.options.get("n_relu") is not None:
        raise InvalidValue("scan_relu: model.n_relu is what is scanned; leave it out, and give its values as values=.")


def _values(values: Sequence[int]) -> tuple[int, ...]:
    whole = all(isinstance(P, int | np.integer) and not isinstance(P, bool) and P >= 0 for P in values)
    if not whole or not len(values):
        raise InvalidValue(f"scan_relu: values must be whole numbers of at least 0, at least one of them, got {values!r}.")
    return tuple(sorted({int(P) for P in values}))


def _begin_folder(folder: RunFolder, mark: str, config: str, overwrite: bool) -> None:
    folder.begin(mark, config, overwrite=overwrite)
    for part in folder.path.glob("P-[0-9]*") if overwrite else ():
        RunFolder(part).clear()
        if not any(part.iterdir()):
            part.rmdir()


def _part(trained: Trained, members: slice) -> Trained:
    """What became of some members, as of a training of theirs alone."""
    first, last = members.start, members.stop
    history = tuple(dataclasses.replace(row, seed=row.seed - first) for row in trained.history if first <= row.seed < last)
    about: Any = {name: getattr(trained, name)[members] for name in ("kept", "last", "scores", "kept_at", "status")}
    return Trained(**about, history=history)


def _reconstruction(trained: Trained, outcome: Outcome, settings: FitSettings, begun: Beginning, series: TimeSeries) -> Reconstruction:
    kept: Any = trained.kept
    last: Any = trained.last
    return Reconstruction(
        model=kept[trained.best].fixed(),
        last=last[trained.best].fixed(),
        preparation=begun.preparation,
        settings=settings,
        outcome=outcome,
        start=tuple(np.asarray(begun.data.trajectories[0][:1], float).ravel().tolist()),
        units=series.units,
        source=series.source,
        notes=series.notes,
        scores=scores_of_test_part(trained, begun.preparation, begun.parts, settings.training.seed),
        parts=present(begun.parts),
        history=trained.history,
        ensemble=tuple(model.fixed() for model in kept),
    )


def _regions(model: Any, start: np.ndarray) -> tuple[int, int]:
    """Regions visited by a free run from an observed point, without inputs, and those with at least 1 % of the time."""
    states = np.asarray(_orbit(model, jnp.asarray(start, dtype_of(model)), TRANSIENT + POINTS))[TRANSIENT:]
    if not np.isfinite(states).all():
        return 0, 0
    code = symbolic_code(model, states)
    return code.n_symbols, code.n_above(MAIN)


@eqx.filter_jit
def _orbit(model: AbstractPiecewiseLinear, start: Float[Array, " N"], steps: int) -> Float[Array, "T M"]:
    return rollout(model, model.lift(start), steps)


def _write(path: Path, found: Reconstruction, mark: str) -> None:
    folder = RunFolder(path)
    folder.begin(mark, to_toml(found.settings), overwrite=False)
    folder.write_history(found.history)
    folder.write_scores(found.scores, found.outcome)
    found.save(path / MODEL_FILE)


def _to_json(scan: Scan) -> str:
    rows = [
        {
            "P": row.n_relu,
            "best": row.best,
            "median": row.median,
            "scores": row.scores,
            "regions": row.regions,
            "main_regions": row.main_regions,
        }
        for row in scan.rows
    ]
    told = {"format": FORMAT, "scanned": "P", "knee": scan.knee, "words": scan.words, "rows": rows}
    return json.dumps(told, indent=2, allow_nan=False) + "\n"

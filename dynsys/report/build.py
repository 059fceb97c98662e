"""From a reconstruction to its report: the free run beside the recording, in the user's units.

test part -> prepared -> free run from its first state -> ReportContent -> one HTML page
"""

import dataclasses
import datetime
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import wasserstein_distance

import dynsys
from dynsys.analysis.spectrum import power_spectrum
from dynsys.analysis.structure import Structure, digest_of
from dynsys.analysis.structure_file import STRUCTURE_FILE, read_structure
from dynsys.config import to_toml
from dynsys.dynamics import AbstractPiecewiseLinear
from dynsys.errors import DataError, DynsysError, InvalidValue
from dynsys.metrics.score import Score
from dynsys.models.koopman.lifted import AbstractLinear
from dynsys.models.regressed import Regressed
from dynsys.prepare.preparation import Prepared
from dynsys.reconstruct import Reconstruction
from dynsys.reconstruct.evaluation import run_from
from dynsys.reconstruct.timed import with_gaps
from dynsys.report import page
from dynsys.report.content import Histogram, History, ReportContent, Spectrum
from dynsys.report.koopman_view import koopman_view
from dynsys.report.structure_basins import basin_map
from dynsys.report.structure_view import Naming
from dynsys_datasets.series import TimeSeries

Events = Callable[[np.ndarray, float], Sequence[tuple[str, str | None, np.ndarray]]]
UNEVEN = "The samples are irregular: time axes and spectra count rows of the mean interval, and events are not counted."
LONGEST = 100_000  # points of the free run
OVERLAY = 600  # points of the overlay
FEW_STARTS = 2000  # of the search for cycles
LARGE = 100  # states of a smooth model beyond which a report does not compute its structure
COARSE = (48, 36)  # points of the basin picture


def write_report(
    found: Reconstruction,
    path: str | Path,
    *,
    title: str | None = None,
    command: str = "",
    events: Events | None = None,
    points: int | None = None,
    series: TimeSeries | None = None,
    structure: Structure | bool = True,
) -> Path:
    """Write report.html of a reconstruction that still has its data (`found.parts`), or against a series; returns the path.

    events: a function of (values (T, N), dt) that lists (name, unit, values) of what happens in a series, such as beat
    intervals; their histograms are compared. points: length of the free run that events are counted in (default: that of the
    part shown, at most 100,000). structure: what was read off the model; True takes structure.json beside the page if it is of this
    model, or computes it with few starts, which takes seconds; False leaves it out.
    Raises InvalidValue if the reconstruction has no data, MissingExtra (extra 'report') without plotly or matplotlib.
    """
    if series is not None:
        found = dataclasses.replace(found, scores=found.evaluate(series), parts=(series,))
    content = content_of(found, title=title, command=command, events=events, points=points)
    content = _with_spectrum(found, content)
    large = found.model.dim > LARGE and not isinstance(found.model, AbstractPiecewiseLinear)
    read = _structure(found, Path(path).parent, large) if structure is True else structure or None
    if structure is True and read is None:
        words = f"Reading the structure of {found.model.dim} states takes a while: call dynsys structure, and a report shows it then."
        content = dataclasses.replace(content, data_notes=(*content.data_notes, words))
    if read is not None:
        naming = Naming(content.names, content.units, content.time_unit, content.delay)
        content = dataclasses.replace(content, structure=read, basins=basin_map(found, read, naming, resolution=COARSE)[0])
    return page.write_report(content, path)


def content_of(
    found: Reconstruction,
    *,
    title: str | None = None,
    command: str = "",
    events: Events | None = None,
    points: int | None = None,
) -> ReportContent:
    """Everything that the report of a reconstruction shows; keywords as in `write_report`."""
    if not found.parts:
        raise InvalidValue("write_report: this reconstruction was loaded without its data; pass series=, the recording to compare with.")
    part, data = _shown(found)
    longest = int(np.argmax([len(x) for x in data.trajectories]))
    true = np.asarray(data.trajectories[longest][:LONGEST], float)
    inputs = None if data.inputs is None else np.asarray(data.inputs[longest][:LONGEST], float)
    length = len(true) if points is None or inputs is not None else points
    past = min(found.model.memory, len(true) // 4)  # what leads a model to its start is not shown
    led, driven = (None, None) if inputs is None else (inputs[:past], inputs[past:])
    rows = length - past if points is None or inputs is not None else length
    made = run_from(with_gaps(found.model, data), true[None, : past + 1], rows, driven, led)[0]
    true = true[past:]
    preparation = found.preparation
    shown, whole_run = preparation.backward(true), preparation.backward(made)
    run = whole_run[: len(shown)]
    dt = found.dt * (float(np.mean(inputs[:, -1])) if data.gapped and inputs is not None else 1.0)
    overlay = min(OVERLAY, len(shown), len(run))
    return ReportContent(
        title=title or f"{Path(found.source or 'recording').name}: {found.settings.model.name}",
        command=command,
        created=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        names=preparation.names,
        units=found.units if isinstance(found.units, str) or found.units is None else ", ".join(found.units),
        dt=dt,
        time_unit=preparation.time_unit or "units of time",
        true=shown,
        made=run,
        overlay_true=shown[:overlay],
        overlay_made=run[:overlay],
        scores=tuple(_named(score) for score in found.scores),
        histories=_histories(found),
        spectrum=_spectrum(shown, run, dt),
        histograms=() if events is None or data.gapped else _histograms(found, whole_run, events),
        summary=_summary(found),
        settings_toml=to_toml(found.settings),
        versions=_versions(),
        warnings=_warnings(found, whole_run),
        preparation=tuple(_pair(line) for line in (*preparation.summary(), *found.outcome.choices)),
        data_notes=(*found.notes, UNEVEN) if data.gapped else found.notes,
        seed_values=(("validation score", found.outcome.scores),),
        seconds=found.outcome.seconds,
        delay=preparation.delay if preparation.dimension > 1 else None,
        part=part,
    )


def _with_spectrum(found: Reconstruction, content: ReportContent) -> ReportContent:
    """The spectrum of a linear Koopman model on the part shown; a note says why if there is none."""
    if not isinstance(found.model, AbstractLinear):
        return content
    try:
        part, data = _shown(found)
        words = f"the {part} part of the recording" if part != "whole" else "the recording"
        return dataclasses.replace(content, koopman=koopman_view(found, data, words=words))
    except (DynsysError, ArithmeticError, ValueError, MemoryError) as error:  # a section less is no failure
        return dataclasses.replace(content, data_notes=(*content.data_notes, f"No Koopman spectrum: {error}"))


def _structure(found: Reconstruction, folder: Path, large: bool) -> Structure | None:
    """What is known of this very model in the folder of the page, or a smaller search now unless the model is large."""
    try:
        known = read_structure(folder / STRUCTURE_FILE)
    except DataError:  # there is none, or it is damaged
        known = None
    if known is not None and known.digest == digest_of(found.model):
        return known
    starts = FEW_STARTS if isinstance(found.model, AbstractPiecewiseLinear) else None
    return None if large else found.structure(starts=starts)


def _shown(found: Reconstruction) -> tuple[str, Prepared]:
    """The last part of the recording that is long enough to show, and its name."""
    split = found.settings.split
    cut = [name for name, share in (("training", 1.0), ("validation", split.validation), ("test", split.test)) if share]
    names = cut if len(cut) == len(found.parts) else ["whole"] * len(found.parts)
    for name, series in reversed(list(zip(names, found.parts, strict=True))):
        if max(series.lengths) >= found.preparation.history + 20:
            return name, found.preparation.forward(series)
    raise InvalidValue("write_report: no part of the recording has 20 rows after preparation; there is nothing to show.")


def _named(score: Score) -> Score:
    """Forecast errors of different lead times stand under different names."""
    steps = dict(score.settings).get("steps")
    return dataclasses.replace(score, name=f"{score.name}, {steps} steps") if score.name == "prediction_error" else score


def _histories(found: Reconstruction) -> tuple[History, ...]:
    histories = []
    for seed, kept in enumerate(found.outcome.kept_at):
        rows = [row for row in found.history if row.seed == seed and row.score is not None]
        if rows:
            histories.append(
                History(
                    seed=seed,
                    steps=np.array([row.step for row in rows]),
                    loss=np.array([row.loss for row in rows]),
                    alpha=np.array([row.strength for row in rows]),
                    scores=np.array([np.nan if row.score is None else row.score.total for row in rows]),
                    kept=kept or None,
                    chosen=seed == found.outcome.best,
                )
            )
    return tuple(histories)


def _spectrum(true: np.ndarray, made: np.ndarray, dt: float) -> Spectrum | None:
    length = min(len(true), len(made))
    if length < 16 or not np.isfinite(made[:length]).all():
        return None
    smoothing = max(1.0, length / 5000)
    frequencies, seen = power_spectrum(true[:length], dt=dt, smoothing=smoothing)
    run = power_spectrum(made[:length], dt=dt, smoothing=smoothing)[1]
    return Spectrum(frequencies=frequencies, true=seen, made=run, note=f"{length} points each, smoothed over {smoothing:.2g} bins")


def _histograms(found: Reconstruction, made: np.ndarray, events: Events) -> tuple[Histogram, ...]:
    """Events of the whole recording beside those of the free run."""
    seen: dict[str, list[np.ndarray]] = {}
    for part in found.parts:
        for trajectory in found.preparation.forward(part).trajectories:
            for name, _, values in events(found.preparation.backward(np.asarray(trajectory[:], float)), found.dt):
                seen.setdefault(name, []).append(values)
    histograms = []
    for name, unit, values in events(made, found.dt):
        true = np.concatenate(seen[name])
        distance = float(wasserstein_distance(true, values)) if len(true) and len(values) else None
        histograms.append(Histogram(name=name, unit=unit, true=true, made=values, distance=distance))
    return tuple(histograms)


def _summary(found: Reconstruction) -> tuple[str, ...]:
    model, outcome = found.model, found.outcome
    size = sum(int(np.size(leaf)) for leaf in _arrays(model))
    updates = f"trained for {found.settings.training.steps:,} updates" if any(outcome.kept_at) else "fitted in closed form"
    if isinstance(model, Regressed) and model.trains:
        updates = "trained by its own method"
    kept = f"seed {outcome.best}, update {outcome.kept_at[outcome.best]:,}"
    if len(outcome.scores) == 1:
        how = f"It was {updates} ({kept})." if any(outcome.kept_at) else f"It was {updates}."
    else:
        how = f"{len(outcome.scores)} seeds were {updates}; the one with the best free run was kept ({kept})."
    name = found.settings.model.name
    lines = [
        f"{'An' if name[0] in 'aeio' else 'A'} {name} with {model.dim} latent states and {size:,} parameters was fitted to "
        f"{found.source or 'a recording'}.",
        how,
    ]
    for score in found.scores:
        if score.floor is not None and score.name == "d_stsp_binned":
            lines.append(f"D_stsp {score.value:.3g}; two halves of the data differ by {score.floor:.3g}, a guide to what can be reached.")
    return tuple(lines)


def _warnings(found: Reconstruction, run: np.ndarray) -> tuple[str, ...]:
    warnings = []
    if not found.status.ok:
        warnings.append(f"{found.status.value}: {found.remedy}")
    if not np.isfinite(run).all():
        warnings.append("The free run left every bound; it is shown up to there.")
    if not found.scores:
        warnings.append("There are no scores: no test part was kept, or it is shorter than 20 rows.")
    return tuple(warnings)


def _versions() -> tuple[tuple[str, str], ...]:
    def of(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "absent"

    about = (("dynsys", dynsys.__version__), ("Python", platform.python_version()), ("machine", platform.platform()))
    return (*about, *((name, of(name)) for name in ("jax", "equinox", "optax", "numpy", "scipy")))


def _arrays(model: object) -> list[Any]:
    import equinox as eqx
    import jax

    return jax.tree.leaves(eqx.filter(model, eqx.is_array))


def _pair(line: str) -> tuple[str, str]:
    what, _, rest = line.partition(":")
    return (what.strip(), rest.strip()) if rest else (line, "")

"""`dynsys spectrum`: the eigenvalues of a Koopman model, each with the residual that says how far to trust it.

`dynsys.cli` adds it to its own commands. Heavy imports stand inside the command.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from dynsys.commands import Columns, Dataset, Dt, Episode, Inputs, Missing, MissingOption, Time, read_recording
from dynsys.structure_commands import load_run, own_columns, working
from dynsys_datasets.errors import DataError, InvalidValue

ROWS = 30  # eigenpairs in the table of a terminal


def spectrum(
    run: Annotated[Path, typer.Argument(help="A run folder or model file of a Koopman model, such as edmd.")],
    file: Annotated[str | None, typer.Argument(help="A recording to test it on, best one that it has not seen.")] = None,
    steps: Annotated[int, typer.Option(help="Steps of a residual. Finely sampled data need more than one.")] = 1,
    limit: Annotated[float, typer.Option(help="Eigenpairs of a residual up to this one are trusted.")] = 0.05,
    as_json: Annotated[bool, typer.Option("--json", help="Print the JSON file instead of the table.")] = False,
    out: Annotated[Path | None, typer.Option(help="Where to write it. Default: spectrum.json beside the model.")] = None,
    columns: Columns = None,
    inputs: Inputs = None,
    time: Time = None,
    episode: Episode = None,
    dataset: Dataset = None,
    missing: MissingOption = Missing.error,
    dt: Dt = None,
) -> None:
    """The eigenvalues of a Koopman model with growth rates, frequencies, and the residuals that tell real ones from spurious ones.

    A residual is the relative error of an eigenfunction over one step of the recording; without a recording it is not known. Writes
    spectrum.json. The pictures: dynsys figures RUN FILE.
    """
    from dynsys.analysis.koopman_file import SPECTRUM_FILE, StoredSpectrum, to_json, write_spectrum
    from dynsys.analysis.structure import digest_of
    from dynsys.report.koopman_view import koopman_view, untested, verdict
    from dynsys_datasets.files import check_target

    if steps < 1:
        raise InvalidValue(f"--steps {steps}: must be at least 1: sampling intervals between the two points of a pair.")
    if not limit > 0:
        raise InvalidValue(f"--limit {limit}: must be positive: the largest residual that is trusted.")
    found = load_run(run)
    _check_kind(run, found)
    target = out or (run if run.is_dir() else run.parent) / SPECTRUM_FILE
    if target.suffix.lower() != ".json":
        raise InvalidValue(f"--out {target}: the spectrum is a JSON file; give a name that ends in .json.")
    check_target(target)
    about = {"inputs": inputs, "time": time, "episode": episode, "dataset": dataset, "missing": missing, "dt": dt}
    names, words, notes = found.preparation.prepared_names, (), ()
    if file is None:
        tested = untested(found.model, found.dt)
    else:
        series = read_recording(file, columns=columns or own_columns(found), **about)
        with working("testing the eigenvalues"):
            view = koopman_view(found, found.preparation.forward(series), words=file, steps=steps, limit=limit, pictures=False)
        tested, notes = view.spectrum, view.notes
        words = (*tested.words(limit, most=10), *notes)
    verdicts = tuple(verdict(tested, i, limit) for i in range(len(tested.values)))
    unit = found.preparation.time_unit or "units of time"
    model = type(found.model).__name__
    stored = StoredSpectrum(tested, model, digest_of(found.model), file or "", names, unit, limit, verdicts, words)
    write_spectrum(stored, target)
    if as_json:
        typer.echo(json.dumps(to_json(stored), allow_nan=False, indent=1))
        return
    _print(stored)
    typer.echo(f"spectrum: {target}")


def _check_kind(run: Path, found: Any) -> None:
    """Raise DataError unless the model is a linear Koopman model."""
    from dynsys.models.koopman.lifted import AbstractLinear

    if isinstance(found.model, AbstractLinear):
        return
    from dynsys import registry

    fitting = [name for name in registry.names("model") if _is_linear(registry.lookup("model", name))]
    raise DataError(
        f"{run}: its model is a {type(found.model).__name__}, which has no Koopman spectrum. Models that have one: {', '.join(fitting)}. "
        "Fixed points, cycles and exponents of any model: dynsys structure."
    )


def _is_linear(kind: Any) -> bool:
    from dynsys.models.koopman.lifted import AbstractLinear

    return isinstance(kind, type) and issubclass(kind, AbstractLinear)


def _print(stored: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    from dynsys.report.koopman_section import cells, heads
    from dynsys.report.koopman_view import rows_of

    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 140)  # a log need not fold a table
    found = stored.spectrum
    rows = rows_of(found)
    if stored.data:
        console.print(f"{stored.model}, tested on {stored.data}", highlight=False, markup=False, soft_wrap=True)
    else:
        said = f"{stored.model}: {len(found.values)} eigenvalues, not tested. Name a recording after the run folder for their residuals."
        console.print(said, highlight=False, markup=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    *numbers, last = (text.replace("[", r"\[") for text in heads(stored.time_unit))
    for text in numbers:
        table.add_column(text, justify="right", no_wrap=True)
    table.add_column(last)
    for i in rows[:ROWS]:
        table.add_row(*cells(found, int(i), stored.limit))
    console.print(table)
    if len(rows) > ROWS:
        console.print(f"… and {len(rows) - ROWS:,} more in the file", highlight=False)
    for line in stored.words:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

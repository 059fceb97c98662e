"""The commands that read a model and draw it: `dynsys structure` and `dynsys figures`.

`dynsys.cli` adds them to its own. Heavy imports stand inside the commands.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from dynsys.commands import Columns, Dataset, Dt, Episode, Inputs, Missing, MissingOption, Time, read_recording
from dynsys_datasets.errors import DataError, InvalidValue, UnknownName

MaxPeriod = Annotated[int | None, typer.Option(help="Longest period of the cycles, in steps. Default: 8; of a smooth model 1.")]
Starts = Annotated[int | None, typer.Option(help="Starts of the search. Default: 10,000; of a smooth model 1,000 or less.")]
System = Annotated[str | None, typer.Option(help="The true system, if it is known: its facts stand beside the model's.")]


class Format(StrEnum):
    """The formats of pictures."""

    pdf = "pdf"
    png = "png"
    svg = "svg"


def structure(
    run: Annotated[Path, typer.Argument(help="A run folder or model file.")],
    file: Annotated[str | None, typer.Argument(help="A recording to compare with, such as the one it was trained on.")] = None,
    max_period: MaxPeriod = None,
    starts: Starts = None,
    points: Annotated[int, typer.Option(help="Steps of the free run that is read.")] = 20_000,
    system: System = None,
    seed: Annotated[int, typer.Option(min=0, help="Where all random numbers begin.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the JSON file instead of the table.")] = False,
    out: Annotated[Path | None, typer.Option(help="Where to write it. Default: structure.json beside the model.")] = None,
    columns: Columns = None,
    inputs: Inputs = None,
    time: Time = None,
    episode: Episode = None,
    dataset: Dataset = None,
    missing: MissingOption = Missing.error,
    dt: Dt = None,
) -> None:
    """Read a model: its regions and symbols, all fixed points and cycles, exponents and dimensions beside those of the data.

    Writes structure.json, which dynsys figures and dynsys report use.
    """
    from dynsys.analysis.structure_file import STRUCTURE_FILE, to_json, write_structure
    from dynsys_datasets.files import check_target

    found = load_run(run)
    target = out or (run if run.is_dir() else run.parent) / STRUCTURE_FILE
    if target.suffix.lower() != ".json":
        raise InvalidValue(f"--out {target}: the structure is a JSON file; give a name that ends in .json.")
    check_target(target)
    about = {"columns": columns, "inputs": inputs, "time": time, "episode": episode, "dataset": dataset, "missing": missing, "dt": dt}
    series = None if file is None else read_recording(file, **{**about, "columns": columns or own_columns(found)})
    with working("reading the model"):
        read = found.structure(series, system=system, max_period=max_period, starts=starts, points=points, key=seed)
    write_structure(read, target)
    if as_json:
        typer.echo(json.dumps(to_json(read), allow_nan=False, indent=1))
        return
    _print(read, found)
    typer.echo(f"structure: {target}")


def figures(
    run: Annotated[Path, typer.Argument(help="A run folder, a model file, or the folder of a dynsys scan.")],
    file: Annotated[str | None, typer.Argument(help="A recording to compare with, such as the one it was trained on.")] = None,
    format: Annotated[Format, typer.Option(help="Of the pictures.")] = Format.pdf,
    out: Annotated[Path | None, typer.Option(help="The folder of the pictures. Default: figures in the run folder.")] = None,
    system: System = None,
    plane: Annotated[str | None, typer.Option(help="The two variables of the basin picture, by comma. Default: the first two.")] = None,
    columns: Columns = None,
    inputs: Inputs = None,
    time: Time = None,
    episode: Episode = None,
    dataset: Dataset = None,
    missing: MissingOption = Missing.error,
    dt: Dt = None,
) -> None:
    """Write the pictures of a run as a paper could print them: regions, transition graph, cycles, eigenvalues and more.

    What dynsys structure found is drawn; without its file it is computed first, with the default settings. With a recording, the
    pictures of the report are drawn too, and those of a Koopman model's spectrum, with the steps and limit of spectrum.json if dynsys
    spectrum wrote it; of a scan over P, the scores with their knee.
    """
    from dynsys.reconstruct.folder import SCAN_FILE
    from dynsys.report.figure_files import naming_of, write_figures, write_knee
    from dynsys.report.structure_basins import basin_map

    folder = out or (run if run.is_dir() else run.parent) / "figures"
    if folder.exists() and not folder.is_dir():
        raise InvalidValue(f"--out {folder}: is a file; give the name of a folder.")
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not os.access(there, os.W_OK):
        raise DataError(f"{folder}: can't be written, for {there} is read-only. Give another folder with --out.")
    if (run / SCAN_FILE).is_file():
        from dynsys.reconstruct.scan import load_scan

        scan = load_scan(run)
        typer.echo(f"{write_knee(scan, folder, format.value)}")
        typer.echo(scan.words)
        one = scan.rows[-1].n_relu if scan.knee is None else scan.knee
        typer.echo(f"The pictures of one model: dynsys figures {run / f'P-{one:02d}'}")
        return
    found = load_run(run)
    about = {"columns": columns, "inputs": inputs, "time": time, "episode": episode, "dataset": dataset, "missing": missing, "dt": dt}
    series = None if file is None else read_recording(file, **{**about, "columns": columns or own_columns(found)})
    shown = _plane(found, plane)
    with working("reading the model"):
        koopman, without = koopman_of(run, found, series, file, shown)
        read = _known(run, found, series, system)
    content = None
    if series is not None:
        import dataclasses

        from dynsys.report.build import content_of

        content = content_of(dataclasses.replace(found, parts=(series,)))
    naming = naming_of(found)
    with working("drawing"):
        basins, why = basin_map(found, read, naming, columns=shown)
        written, absent = write_figures(read, naming, folder, format.value, content=content, basins=basins, koopman=koopman)
    for path in written:
        typer.echo(f"{path}")
    for name, reason in (*absent, *without) if basins is not None else (*absent, ("basins", why), *without):
        typer.echo(f"no {name}: {reason}")


def load_run(run: Path) -> Any:
    """A reconstruction; DataError that names what was given."""
    from dynsys.reconstruct import load
    from dynsys.reconstruct.folder import SCAN_FILE

    if (run / SCAN_FILE).is_file():
        raise DataError(f"{run}: is the folder of a scan, with one run folder for every P. Give one of them, such as {run / 'P-02'}.")
    return load(run)


def _plane(found: Any, names: str | None) -> tuple[int, int]:
    """Two columns that the model sees, by name."""
    known = list(found.preparation.prepared_names)
    if names is None:
        return 0, 1
    asked = [name.strip() for name in names.split(",")]
    for name in asked:
        if name not in known:
            raise UnknownName("variable", name, known)
    if len(set(asked)) != 2:
        raise InvalidValue(f"--plane {names}: expected two different variables, such as {','.join(known[:2])}.")
    return known.index(asked[0]), known.index(asked[1])


def koopman_of(run: Path, found: Any, series: Any, file: str | None, plane: tuple[int, int]) -> tuple[Any, tuple[tuple[str, str], ...]]:
    """The view of a Koopman model on a recording, and why there is none; nothing of another model."""
    from dynsys.analysis.koopman_file import SPECTRUM_FILE, read_spectrum
    from dynsys.analysis.structure import digest_of
    from dynsys.models.koopman.lifted import AbstractLinear
    from dynsys.report.koopman_view import koopman_view

    if not isinstance(found.model, AbstractLinear):
        return None, ()
    if series is None:
        return None, (("koopman_*", "it is tested on data: name the recording after the run folder"),)
    about, path = {}, (run if run.is_dir() else run.parent) / SPECTRUM_FILE
    with contextlib.suppress(DataError):  # there is none, or it is damaged
        stored = read_spectrum(path)
        if stored.digest == digest_of(found.model) and stored.spectrum.count:
            about = {"steps": stored.spectrum.steps, "limit": stored.limit}
    try:
        return koopman_view(found, found.preparation.forward(series), words=str(file), plane=plane, **about), ()
    except InvalidValue as error:
        return None, (("koopman_*", str(error)),)


def _known(run: Path, found: Any, series: Any, system: str | None) -> Any:
    """structure.json of the run if it is of this model and nothing else is asked for, else computed and written there."""
    from dynsys.analysis.structure import digest_of
    from dynsys.analysis.structure_file import STRUCTURE_FILE, read_structure, write_structure

    path = (run if run.is_dir() else run.parent) / STRUCTURE_FILE
    if path.is_file() and system is None:
        read = read_structure(path)
        if read.digest == digest_of(found.model):
            return read
    read = found.structure(series, system=system)
    if run.is_dir() and os.access(run, os.W_OK):
        write_structure(read, path)
    return read


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """A sign of life in a terminal, gone when the work is done; Ctrl-C ends the program with a line and code 130."""
    from rich.console import Console

    console = Console(stderr=True)
    try:
        with console.status(what):
            yield
    except KeyboardInterrupt:
        console.print("\ndynsys: stopped.", soft_wrap=True)
        raise typer.Exit(130) from None


def _print(read: Any, found: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    from dynsys.report.content import number
    from dynsys.report.figure_files import naming_of
    from dynsys.report.structure_section import cycle_rows, estimate, summary, unit_of

    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 140)  # a log need not fold a table
    naming = naming_of(found)
    for line in summary(read):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    rows = cycle_rows(read)
    if rows:
        names = naming.names[:5]
        table = Table("kind", box=None, pad_edge=False)
        for name in ("period", "unstable", "largest |λ|", *names):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("regions", overflow="fold")
        for period, kind, unstable, largest, place, word in rows[:40]:
            table.add_row(kind, str(period), str(unstable), number(largest, 5), *(number(x) for x in place[: len(names)]), word)
        console.print(table)
        if len(rows) > 40:
            console.print(f"… and {len(rows) - 40:,} more in the file", highlight=False)
    if read.invariants:
        table = Table("quantity", box=None, pad_edge=False)
        shown = [name for name in ("model", "data", "system") if any(getattr(row, name) is not None for row in read.invariants)]
        for name in shown:
            table.add_column("true system" if name == "system" else name, justify="right", no_wrap=True)
        for row in read.invariants:
            unit = f" [{unit_of(row.unit, naming)}]" if row.unit else ""
            table.add_row(_plain(row.name + unit), *(estimate(getattr(row, name)) for name in shown))
        console.print(table)
    for note in dict.fromkeys(read.notes):
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(text)  # brackets are no markup


def own_columns(found: Any) -> list[str] | None:
    """The columns that a model was trained on, unless they have no names of their own."""
    names = list(found.preparation.names)
    return None if all(name == f"x{i}" for i, name in enumerate(names)) else names

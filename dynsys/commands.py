"""The commands beyond one model: `dynsys scan`, `benchmark`, `leaderboard`, `dataset build`, `show`; and how a command reads a recording.

`dynsys.cli` adds them to its own. Heavy imports stand inside the commands.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from dynsys_datasets.errors import DataError, InvalidValue, UnknownName

dataset = typer.Typer(name="dataset", help="The series of all systems in one file.", no_args_is_help=True, add_completion=False)


class Missing(StrEnum):
    """What to do with cells that hold no number."""

    error = "error"
    interpolate = "interpolate"
    drop = "drop"


Columns = Annotated[str | None, typer.Option(help="Observed columns: names or numbers, separated by commas. Default: all.")]
Inputs = Annotated[str | None, typer.Option(help="Columns that are external inputs, separated by commas.")]
Time = Annotated[str | None, typer.Option(help="The time column. Default: found by its name; 'none': there is none.")]
Episode = Annotated[str | None, typer.Option(help="The column that numbers the trajectories. Default: found by its name; 'none'.")]
Dataset = Annotated[str | None, typer.Option(help="Which array or group of a file that holds several.")]
MissingOption = Annotated[Missing, typer.Option("--missing", help="Cells without a number: stop, interpolate in time, or drop the rows.")]
Dt = Annotated[float | None, typer.Option(help="Sampling interval, if the file does not tell it.")]
TimeUnit = Annotated[str | None, typer.Option(help="The unit of time, such as s, if the file does not tell it.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Systems = Annotated[str | None, typer.Option(help="Names, .toml files or collections (chaos, non-polynomial, maps), by commas.")]
Jobs = Annotated[int | None, typer.Option(help="Processes at once. Default: one a core.")]


def benchmark(
    out: Annotated[Path, typer.Option(help="The folder of the results; a run that was stopped goes on there.")],
    models: Annotated[str, typer.Option(help="Models by commas, with settings in brackets: alrnn[n_relu=5],esn. See dynsys list models.")],
    systems: Systems = None,
    protocols: Annotated[str, typer.Option(help="Names or .toml files by commas. See dynsys list protocols.")] = "forecast-2023",
    seeds: Annotated[int, typer.Option(help="Seeds of model and noise.")] = 1,
    data: Annotated[
        Path | None, typer.Option(help="A file of dynsys dataset build. Default: data.h5 in the folder, made if need be.")
    ] = None,
    executor: Annotated[str, typer.Option(help="local, or ray.")] = "local",
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster, such as auto. Default: start one here.")] = None,
    jobs: Jobs = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds that one task may take.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run the tasks again that failed.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Train and score models on all systems; one row a task, in out/results.sqlite.

    Run the same command again to go on after a stop, or add models, systems, seeds and protocols: what has a row is not repeated.
    """
    from dynsys.benchmark import Store, benchmark as run, table
    from dynsys.benchmark.entry import split_entries

    console = _console(quiet)
    with _stopped("benchmark"), _counting(console, "series") as built, _counting(console, "tasks") as told:
        ran = run(
            split_entries(models),
            out=out,
            systems=systems,
            protocols=_listed(protocols),
            seeds=seeds,
            data=data,
            executor=executor,
            address=address,
            jobs=jobs,
            timeout=timeout,
            retry_failed=retry_failed,
            progress=lambda seen: told(seen.done, seen.tasks, _row_words(seen.row)),
            building=lambda done, total, seen: built(done, total, f"{seen.label}{_failed(seen.reason)}"),
        )
    words = f"{ran.tasks} tasks: {ran.before} had a row, {ran.ran} ran, {ran.failed} failed. Results: {ran.path}"
    console.print(words, highlight=False, soft_wrap=True)
    store = Store(ran.path)
    for protocol in _listed(protocols):
        name = Path(protocol).stem if protocol.endswith(".toml") else protocol
        _print_table(console, table(store, name))


def leaderboard(
    folder: Annotated[Path, typer.Argument(help="The folder of a benchmark.")],
    protocol: Annotated[str | None, typer.Option(help="Only this protocol. Default: all that have rows.")] = None,
    score: Annotated[str | None, typer.Option(help="Rank by this score. Default: the protocol's own.")] = None,
    systems: Systems = None,
    html: Annotated[Path | None, typer.Option(help="Where to write the page. Default: leaderboard.html in the folder.")] = None,
    no_html: Annotated[bool, typer.Option("--no-html", help="Only the table in the terminal.")] = False,
) -> None:
    """The table of a benchmark, in the terminal and as an HTML page that needs no network."""
    from dynsys.benchmark import Store, table
    from dynsys.benchmark.dataset import resolve_systems
    from dynsys.benchmark.leaderboard import protocols_of
    from dynsys.benchmark.runner import RESULTS

    console = _console(False)
    store = Store(folder / RESULTS, must_exist=True)
    chosen = None if systems is None else resolve_systems(systems)
    for name in protocols_of(store) if protocol is None else (protocol,):
        try:
            _print_table(console, table(store, name, score, chosen))
        except (DataError, UnknownName):  # another protocol may have rows of these systems, or this score
            if protocol is not None:
                raise
            console.print(f"{name}: no rows with this score for these systems", highlight=False, markup=False)
    for row in [row for row in store.rows(protocol) if row.status == "failed"][:10]:
        console.print(f"failed: {row.model} on {row.system} ({row.protocol}, seed {row.seed}): {row.reason}", highlight=False, markup=False)
    if not no_html:
        from dynsys.report.leaderboard import write_leaderboard

        path = write_leaderboard(store, html or folder / "leaderboard.html", protocol=protocol, score=score, systems=chosen)
        console.print(f"page: {path}", highlight=False, soft_wrap=True)


def scan(
    what: Annotated[str, typer.Argument(help="What is scanned: P, the number of rectified units of an AL-RNN.")],
    file: Annotated[str, typer.Argument(help="The recording, as for dynsys fit.")],
    out: Annotated[Path, typer.Option(help="The run folder; a scan that was stopped goes on there.")],
    values: Annotated[str, typer.Option(help="The values, by commas.")] = "0,1,2,3,5,10",
    seeds: Annotated[int, typer.Option(help="Models of each value; the best is kept.")] = 3,
    steps: Annotated[int | None, typer.Option(help="Training updates.")] = None,
    config: Annotated[Path | None, typer.Option(help="A settings file, such as the config.toml of another run.")] = None,
    set: Annotated[list[str] | None, typer.Option("--set", help="Change one setting: --set training.window=50. Repeatable.")] = None,
    columns: Columns = None,
    inputs: Inputs = None,
    time: Time = None,
    episode: Episode = None,
    dataset: Dataset = None,
    missing: MissingOption = Missing.error,
    dt: Dt = None,
    time_unit: TimeUnit = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew in a folder that holds another scan.")] = False,
    quiet: Quiet = False,
) -> None:
    """Find how many rectified units a recording needs: train models of every P and seed together, and find the knee of the score.

    Writes scan.json, and for every P the run folder of its best seed: P-00, P-01, ...
    """
    from dynsys.config import read_config
    from dynsys.progress import TrainingProgress
    from dynsys.reconstruct import FitSettings
    from dynsys.reconstruct.scan import SCANNED, scan_relu

    if what not in SCANNED:
        raise UnknownName("quantity to scan", what, SCANNED)
    console = _console(quiet)
    about = {"columns": columns, "inputs": inputs, "time": time, "episode": episode, "dataset": dataset, "missing": missing, "dt": dt}
    series = read_recording(file, **about)
    series = series if time_unit is None else series.replace(time_unit=time_unit)
    known = {"seeds": seeds, "steps": steps, "settings": None if config is None else read_config(FitSettings, config)}
    console.print(f"{series}", highlight=False, markup=False)
    with _stopped("scan"), TrainingProgress(console) as progress:
        found = scan_relu(
            series, values=_whole_numbers(values), **known, set=set or [], out=out, overwrite=overwrite, progress=progress.update
        )
    _print_scan(console, found)
    console.print(f"run folder: {out}", highlight=False, soft_wrap=True)


def show(
    system: Annotated[str, typer.Argument(help="A system of the database, or a .toml file.")],
    latex: Annotated[bool, typer.Option("--latex", help="Print only the equations, as LaTeX.")] = False,
) -> None:
    """What is known of a system: equations, constants, facts with their errors, and where it comes from."""
    from rich.markdown import Markdown

    from dynsys_datasets.catalogue import system as find
    from dynsys_datasets.page import page

    record = find(system)
    console = _console(False)
    if latex:
        console.print(record.latex(), highlight=False, markup=False, soft_wrap=True)
        return
    console.print(Markdown(page(record, formulas=False)))


@dataset.callback()
def _dataset() -> None:
    """The series of all systems in one file."""


@dataset.command("build")
def build(
    out: Annotated[Path, typer.Option(help="The HDF5 file; one that is there gets the systems that it lacks.")],
    systems: Annotated[str, typer.Option(help="Names, .toml files or collections (chaos, non-polynomial, maps), by commas.")] = "chaos",
    per_period: Annotated[int, typer.Option(help="Points in one dominant period.")] = 100,
    points: Annotated[int, typer.Option(help="Points of the series: training part, then test part.")] = 1200,
    validation: Annotated[int, typer.Option(help="Points of the validation series, 0 for none.")] = 1200,
    long: Annotated[int, typer.Option(help="Points of each of the two long series, 0 for none.")] = 100_000,
    rtol: Annotated[float, typer.Option(help="Relative tolerance of a step.")] = 1e-9,
    no_check: Annotated[bool, typer.Option("--no-check", help="Do not integrate the first Lyapunov time again by another method.")] = False,
    jobs: Jobs = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make a file anew that was made by another recipe.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Make the training, validation, test and long series of systems, in parallel; goes on after a stop."""
    from dynsys.benchmark import Recipe, build as run

    console = _console(quiet)
    recipe = Recipe(per_period=per_period, points=points, validation=validation, long=long, rtol=rtol, check=not no_check)
    began = time.monotonic()
    with _stopped("build"), _counting(console, "systems") as told:
        built = run(
            out,
            systems=systems,
            recipe=recipe,
            jobs=jobs,
            overwrite=overwrite,
            progress=lambda done, total, seen: told(done, total, f"{seen.label}{_failed(seen.reason)}"),
        )
    for name, reason in built.failed:
        console.print(f"failed: {name}: {reason}", highlight=False, markup=False, soft_wrap=True)
    words = f"{len(built.systems)} systems, {built.reused} were there, {len(built.failed)} failed, {time.monotonic() - began:.1f} s"
    console.print(f"{built.path}: {words}", highlight=False, soft_wrap=True)
    if built.failed:
        raise typer.Exit(1)


def read_recording(file: str, **about: Any) -> Any:
    """A recording from a file, or a sample by 'sample:NAME'."""
    if file.startswith("sample:"):
        from dynsys_datasets.samples import load_sample

        sample, columns = load_sample(file.removeprefix("sample:")), about.pop("columns", None)
        given = [name for name, value in about.items() if value not in (None, "error")]
        if given:
            raise InvalidValue(f"{file}: samples are read as they are; leave out --{given[0]}.")
        return sample if columns is None else sample.select(columns_of(columns))
    from dynsys_datasets.series import read_series

    for name in ("columns", "inputs"):
        if isinstance(about.get(name), str):
            about[name] = columns_of(about[name])
    for name in ("time", "episode"):
        if about.get(name) is not None:
            about[name] = False if about[name] == "none" else number(about[name])
    given = {name: value for name, value in about.items() if value is not None}
    return read_series(file, **given)


def columns_of(names: str | list[str]) -> list[str | int]:
    """The columns of a text such as 'a,2': names and numbers."""
    return [number(part.strip()) for part in names.split(",")] if isinstance(names, str) else [*names]


def number(text: str) -> str | int:
    """A whole number if the text is one, else the text."""
    return int(text) if text.lstrip("-").isdigit() else text


def _whole_numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InvalidValue(f"--values {text!r}: expected whole numbers by commas, such as 0,1,2,3,5,10.") from None


def _print_scan(console: Any, found: Any) -> None:
    from rich.table import Table

    drawn = Table(box=None, pad_edge=False)
    for name in ("P", "best", "median", "seeds", "regions", "≥ 1 % of time"):
        drawn.add_column(name, justify="left" if name == "seeds" else "right", overflow="fold")
    for row in found.rows:
        scores = (_scored(row.best), _scored(row.median), ", ".join(_scored(score) for score in row.scores))
        regions = (str(row.regions), str(row.main_regions)) if row.regions else ("diverged", "–")
        drawn.add_row(f"{row.n_relu}{' <' * (row.n_relu == found.knee)}", *scores, *regions)
    console.print(drawn)
    console.print(found.words, highlight=False, markup=False, soft_wrap=True)


def _scored(score: float) -> str:
    from dynsys.train.trainer import WORST_SCORE

    return "dead" if score >= WORST_SCORE else f"{score:.3g}"


def _print_table(console: Any, found: Any) -> None:
    from rich.markup import escape
    from rich.table import Table

    seeds = f"{found.seeds} seed{'s' * (found.seeds > 1)}"
    drawn = Table(title=f"{found.protocol}: {found.score}, {len(found.systems)} systems, {seeds}", title_justify="left")
    for name in ("model", "median", "quartiles", "mean rank", "systems", "no success", "s a task"):
        drawn.add_column(name, justify="left" if name == "model" else "right", overflow="fold", no_wrap=name == "quartiles")
    for place in found.places:
        quartiles = f"{place.lower:.4g} to {place.upper:.4g}"
        last = (f"{place.rank:.2f}", str(place.systems), f"{100 * place.failed:.0f} %", f"{place.seconds:.2f}")
        drawn.add_row(escape(place.model), f"{place.median:.4g}", quartiles, *last)
    console.print(drawn)


def _row_words(row: Any) -> str:
    scores = ", ".join(f"{name} {value:.4g}" for name, value in row.scores[:3])
    failed = _failed(row.reason if row.status == "failed" else None)
    return f"{row.protocol} {row.system} {row.model} seed {row.seed}: {scores or row.status}{failed}"


def _failed(reason: str | None) -> str:
    return f" FAILED: {reason}" if reason else ""


@contextlib.contextmanager
def _stopped(what: str) -> Iterator[None]:
    """Ctrl-C ends the program with a line that says how to go on, and code 130; typer would end without a word."""
    try:
        yield
    except KeyboardInterrupt:
        from rich.console import Console

        Console(stderr=True).print(f"\ndynsys: stopped. The {what} goes on from here when the same command is given again.", soft_wrap=True)
        raise typer.Exit(130) from None


@contextlib.contextmanager
def _counting(console: Any, what: str) -> Iterator[Callable[[int, int, str], None]]:
    """A function (done, all, words) that draws a bar in a terminal; a log gets about twenty lines, and every failure."""
    bar: Any = None
    task: Any = None
    began, printed = time.monotonic(), -1.0

    def tell(done: int, total: int, words: str) -> None:
        nonlocal bar, task, printed
        if console.is_terminal and not console.quiet:
            if bar is None:
                from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

                columns = (TextColumn(what), BarColumn(bar_width=24), TextColumn("{task.completed}/{task.total}"), TimeElapsedColumn())
                bar = Progress(
                    *columns, TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[words]}", markup=False), console=console
                )
                bar.start()
                task = bar.add_task(what, total=total, words="")
            if "FAILED" in words:
                bar.console.print(words, highlight=False, markup=False, soft_wrap=True)
            bar.update(task, completed=done, total=total, words=words)
        elif "FAILED" in words or done >= total or done >= printed + total / 20:
            printed = done
            console.print(
                f"{what} {done}/{total}  {time.monotonic() - began:.0f} s  {words}", highlight=False, markup=False, soft_wrap=True
            )

    try:
        yield tell
    finally:
        if bar is not None:
            bar.stop()


def _console(quiet: bool) -> Any:
    from rich.console import Console

    console = Console(quiet=quiet)
    if not console.is_terminal:
        console.width = max(console.width, 120)  # a log need not fold a table
    return console


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]

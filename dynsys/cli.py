"""The command line: fit, evaluate, forecast, simulate, report, list; scan, benchmark, leaderboard, show and dataset build from `commands`.

Heavy imports stand inside the commands, so that `dynsys --help` answers at once.
"""

import json
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from dynsys import certify_commands, commands, control_commands, koopman_commands, structure_commands
from dynsys.commands import (
    Columns,
    Dataset,
    Dt,
    Episode,
    Inputs,
    Missing,
    MissingOption,
    Quiet,
    Time,
    TimeUnit,
    number as _number,
    read_recording as _read,
)
from dynsys_datasets.errors import DynsysError, InvalidValue, MissingExtra

app = typer.Typer(
    name="dynsys",
    help="From time series to the dynamical system that made them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Kind(StrEnum):
    """What `dynsys list` can list."""

    models = "models"
    systems = "systems"
    metrics = "metrics"
    solvers = "solvers"
    samples = "samples"
    protocols = "protocols"
    environments = "environments"


NoStructure = Annotated[bool, typer.Option("--no-structure", help="Leave regions, fixed points and exponents out of the report.")]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        import dynsys

        print(f"dynsys {dynsys.__version__}")
        raise typer.Exit


@app.command()
def fit(
    file: Annotated[str, typer.Argument(help="The recording: csv, tsv, npy, npz, h5, mat, nc, parquet; or sample:ecg.")],
    out: Annotated[Path, typer.Option(help="The run folder.")],
    model: Annotated[str | None, typer.Option(help="The model; see dynsys list models.")] = None,
    config: Annotated[Path | None, typer.Option(help="A settings file, such as the config.toml of another run.")] = None,
    set: Annotated[list[str] | None, typer.Option("--set", help="Change one setting: --set training.window=50. Repeatable.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Models trained at once; the best is kept.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training updates.")] = None,
    columns: Columns = None,
    inputs: Inputs = None,
    time: Time = None,
    episode: Episode = None,
    dataset: Dataset = None,
    missing: MissingOption = Missing.error,
    dt: Dt = None,
    time_unit: TimeUnit = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew in a folder that holds another run.")] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Do not write report.html.")] = False,
    no_structure: NoStructure = False,
    quiet: Quiet = False,
) -> None:
    """Reconstruct the dynamical system behind a recording.

    Scales, delay-embeds a single column, trains several seeds at once, keeps the model whose free run is most like the data,
    scores it on the last part of the recording, and writes the run folder. A run that was stopped goes on where it was when the
    same command is given again.
    """
    from dynsys.config import read_config
    from dynsys.progress import TrainingProgress
    from dynsys.reconstruct import FitSettings, fit as run

    console = _console(quiet)
    series = _read(file, columns=columns, inputs=inputs, time=time, episode=episode, dataset=dataset, missing=missing, dt=dt)
    series = series if time_unit is None else series.replace(time_unit=time_unit)
    settings = None if config is None else read_config(FitSettings, config)
    console.print(f"{series}", highlight=False, markup=False)
    for note in series.notes:
        console.print(f"note: {note}", highlight=False, markup=False)
    known = {"model": model, "seeds": seeds, "steps": steps, "settings": settings, "set": set or [], "out": out, "overwrite": overwrite}
    try:
        with TrainingProgress(console) as progress:
            found = run(series, **known, progress=progress.update)
    except KeyboardInterrupt:  # here, because typer ends without a word
        print("\ndynsys: stopped. The fit goes on from here when the same command is given again.", file=sys.stderr)
        raise typer.Exit(130) from None
    for line in (*found.preparation.summary(), *found.outcome.choices):
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    _print_scores(console, found.scores)
    _print_outcome(console, found)
    if not no_report:
        from dynsys.report.build import write_report

        try:
            console.print(
                f"report: {write_report(found, out / 'report.html', command=_command(), structure=not no_structure)}",
                highlight=False,
                soft_wrap=True,
            )
        except MissingExtra as error:  # the model is made and stored; a missing picture is no failure
            console.print(f"no report: {error}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"run folder: {out}", highlight=False, soft_wrap=True)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder or model file.")],
    file: Annotated[str, typer.Argument(help="A recording of the same columns that the model has not seen.")],
    starts: Annotated[int, typer.Option(help="Free runs and forecasts from so many starts.")] = 8,
    horizon: Annotated[int, typer.Option(help="Steps of the forecasts that are scored.")] = 100,
    lyapunov: Annotated[float | None, typer.Option(help="The true system's maximal exponent, per unit of time, if known.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with every definition and setting.")] = False,
    columns: Columns = None,
    inputs: Inputs = None,
    time: Time = None,
    episode: Episode = None,
    dataset: Dataset = None,
    missing: MissingOption = Missing.error,
    dt: Dt = None,
) -> None:
    """All scores of a model on a recording, with their definitions, settings and floors."""
    from dynsys.reconstruct import load

    found = load(run)
    series = _read(file, columns=columns or _own(found), inputs=inputs, time=time, episode=episode, dataset=dataset, missing=missing, dt=dt)
    scores = found.evaluate(series, starts=starts, horizon=horizon, lyapunov=lyapunov)
    if as_json:
        print(json.dumps([json.loads(score.to_json()) for score in scores], indent=2))
        return
    console = _console(False)
    _print_scores(console, scores)
    for score in scores:
        settings = ", ".join(f"{name}={value}" for name, value in score.settings)
        console.print(f"\n{score.name} ({settings})\n  {score.definition}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def forecast(
    run: Annotated[Path, typer.Argument(help="A run folder or model file.")],
    start: Annotated[str, typer.Option("--from", help="The recording to continue; its last rows are the start.")],
    steps: Annotated[int, typer.Option(help="How many points to forecast.")],
    out: Annotated[Path, typer.Option(help="Where to write them: .csv, .tsv or .h5.")],
    inputs_file: Annotated[str | None, typer.Option("--inputs-from", help="A recording of the coming inputs, for a driven model.")] = None,
    columns: Columns = None,
    inputs: Inputs = None,
    time: Time = None,
    episode: Episode = None,
    dataset: Dataset = None,
    missing: MissingOption = Missing.error,
    dt: Dt = None,
) -> None:
    """Continue a recording with a model."""
    import numpy as np

    from dynsys.reconstruct import load
    from dynsys_datasets.series import write_series

    _keep(out, start, inputs_file)
    found = load(run)
    series = _read(
        start, columns=columns or _own(found), inputs=inputs, time=time, episode=episode, dataset=dataset, missing=missing, dt=dt
    )
    driven = None if inputs_file is None else np.asarray(_read(inputs_file).trajectories[0][:])
    made = found.forecast(series, steps, inputs=driven)
    write_series(made, out)
    _say_written(made, out)


@app.command()
def simulate(
    what: Annotated[str, typer.Argument(help="A system of the database, a .toml file, or a run folder.")],
    points: Annotated[int, typer.Option(help="How many points.")],
    out: Annotated[Path, typer.Option(help="Where to write them: .csv, .tsv or .h5.")],
    dt: Annotated[float | None, typer.Option(help="Sampling interval; default: the system's own.")] = None,
    trajectories: Annotated[int, typer.Option(help="So many runs, from starts beside the usual one, or with noises of their own.")] = 1,
    observe: Annotated[str | None, typer.Option(help="States that are kept: names or numbers, separated by commas. Default: all.")] = None,
    sweep: Annotated[str | None, typer.Option(help="One run for each value: rho=20,30,40, or rho=20:40:5 with first:last:step.")] = None,
    noise: Annotated[float, typer.Option(help="Observation noise, as a share of each column's standard deviation.")] = 0.0,
    transient: Annotated[int | None, typer.Option(help="Points thrown away first.")] = None,
    set: Annotated[list[str] | None, typer.Option("--set", help="Change a parameter: --set rho=30. Repeatable.")] = None,
    solver: Annotated[
        str | None, typer.Option(help="Default: dopri8, see dynsys list solvers; of a stochastic system, its method.")
    ] = None,
    rtol: Annotated[float, typer.Option(help="Relative tolerance of a step.")] = 1e-9,
    atol: Annotated[float, typer.Option(help="Absolute tolerance of a step.")] = 1e-9,
    step: Annotated[float | None, typer.Option(help="Longest inner step, of delay and stochastic equations and fields.")] = None,
    seed: Annotated[int, typer.Option(help="Where all random numbers begin.")] = 0,
    start: Annotated[str | None, typer.Option("--from", help="A recording whose end is where a run folder's model starts.")] = None,
    inputs_file: Annotated[str | None, typer.Option("--inputs-from", help="A recording of the inputs of a driven model.")] = None,
) -> None:
    """A time series of a known system, or a free run of a reconstructed one."""
    from dynsys_datasets.series import write_series

    _keep(out, what, start, inputs_file)
    path = Path(what)
    if path.is_dir() or path.suffix in (".h5", ".hdf5"):
        from dynsys.reconstruct import load

        given = {"dt": dt, "trajectories": trajectories - 1, "observe": observe, "sweep": sweep, "noise": noise, "set": set}
        given |= {"transient": transient, "solver": solver, "step": step}
        wrong = [f"--{name}" for name, value in given.items() if value not in (None, 0, [])]
        if wrong:
            raise InvalidValue(f"{what}: is a reconstruction; {', '.join(wrong)} belongs to systems. Leave it out.")
        import numpy as np

        found = load(path)
        begin = None if start is None else _read(start, columns=_own(found), dt=None)
        driven = None if inputs_file is None else np.asarray(_read(inputs_file).trajectories[0][:])
        made = found.simulate(points, start=begin, inputs=driven)
    else:
        from dynsys.integrate import simulate_system

        parameters = dict(_parameter(assignment) for assignment in set or [])
        about: dict[str, Any] = {"dt": dt, "noise": noise, "transient": transient, "parameters": parameters or None, "key": seed}
        about |= {"n_trajectories": trajectories, "observe": None if observe is None else _states(observe), "sweep": _swept(sweep)}
        made = simulate_system(what, points, solver=solver, rtol=rtol, atol=atol, step=step, **about)
    write_series(made, out)
    _say_written(made, out)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run folder or model file.")],
    file: Annotated[str, typer.Argument(help="A recording to compare with, such as the one it was trained on.")],
    out: Annotated[Path | None, typer.Option(help="Where to write it; default: report.html beside the model.")] = None,
    columns: Columns = None,
    inputs: Inputs = None,
    time: Time = None,
    episode: Episode = None,
    dataset: Dataset = None,
    missing: MissingOption = Missing.error,
    dt: Dt = None,
    no_structure: NoStructure = False,
) -> None:
    """Write the report of a model against any recording: one HTML page that needs no network."""
    from dynsys.reconstruct import load
    from dynsys.report.build import write_report

    found = load(run)
    series = _read(file, columns=columns or _own(found), inputs=inputs, time=time, episode=episode, dataset=dataset, missing=missing, dt=dt)
    target = out or (run if run.is_dir() else run.parent) / "report.html"
    if target.suffix.lower() not in (".html", ".htm"):
        raise InvalidValue(f"--out {target}: the report is an HTML page; give a name that ends in .html.")
    print(f"report: {write_report(found, target, command=_command(), series=series, structure=not no_structure)}")


@app.command("list")
def list_(kind: Annotated[Kind, typer.Argument(help="What to list.")]) -> None:
    """What there is to choose from: models, systems, metrics, solvers, samples, protocols of the benchmark, environments."""
    from dynsys import registry

    if kind is Kind.systems:
        from dynsys_datasets.catalogue import names, system

        rows = [(name, f"{system(name).kind}, {system(name).dim}-D: {system(name).file.about}") for name in names()]
    elif kind is Kind.environments:
        from dynsys.control.collect import environments

        rows = environments()
    elif kind is Kind.protocols:
        from dynsys.benchmark import load_protocol, protocol_names

        rows = [(name, load_protocol(name).about) for name in protocol_names()]
    elif kind is Kind.samples:
        from dynsys_datasets.samples import load_sample, sample_names

        rows = [(name, repr(load_sample(name))) for name in sample_names()]
    else:
        table = kind.value.removesuffix("s")
        rows = [(name, (registry.lookup(table, name).__doc__ or "").strip().splitlines()[0]) for name in registry.names(table)]
    width = max(len(name) for name, _ in rows)
    for name, words in rows:
        print(f"{name:<{width}}  {words}")


app.command()(commands.benchmark)
app.command()(commands.leaderboard)
app.command()(commands.scan)
app.command()(commands.show)
app.command()(structure_commands.structure)
app.command()(structure_commands.figures)
app.command()(koopman_commands.spectrum)
app.command()(control_commands.control)
app.command()(control_commands.play)
app.command()(certify_commands.certify)
app.command()(certify_commands.verify)
app.add_typer(commands.dataset)


def main() -> None:
    """The entry point: errors that dynsys raises on purpose are one line on stderr and exit code 2."""
    try:
        app()
    except DynsysError as error:
        print(f"dynsys: {_as_options(str(error))}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:
        print(f"dynsys: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}.", file=sys.stderr)
        sys.exit(2)
    except MemoryError:
        print("dynsys: not enough memory. HDF5 files are read in slices; see docs/files.", file=sys.stderr)
        sys.exit(2)


def _as_options(text: str) -> str:
    """An error's advice in the words of the command line: missing="drop" becomes --missing drop."""
    text = re.sub(r"\bcolumns=\[([^\]]*)\]", lambda m: "--columns " + m.group(1).replace("'", "").replace(", ", ","), text)
    text = re.sub(r"\b(time|episode)=False", r"--\1 none", text)
    return re.sub(r"(?<!resample\()\b(missing|dataset|time|episode|inputs|dt)=(['\"]?)([\w.]+)\2", r"--\1 \3", text)


def _console(quiet: bool) -> Any:
    from rich.console import Console

    return Console(quiet=quiet)


def _command() -> str:
    import shlex

    return shlex.join(["dynsys", *sys.argv[1:]])


def _keep(out: Path, *inputs: str | None) -> None:
    """Refuse, before the work begins, to write over what was read, or where nothing can be written."""
    from dynsys_datasets.series import check_writable

    check_writable(out)
    for file in inputs:
        if file is not None and out.exists() and Path(file).exists() and out.samefile(file):
            raise InvalidValue(f"--out {out}: is the file that was read; give another name.")


def _own(found: Any) -> list[str] | None:
    """The columns that a model was trained on, unless they have no names of their own."""
    names = list(found.preparation.names)
    return None if all(name == f"x{i}" for i, name in enumerate(names)) else names


def _parameter(assignment: str) -> tuple[str, Any]:
    name, _, value = assignment.partition("=")
    try:
        return name.strip(), float(value) if "." in value or "e" in value.lower() else int(value)
    except ValueError:
        raise InvalidValue(f"--set {assignment!r}: expected name=number, such as rho=30.") from None


def _states(names: str) -> list[str | int]:
    """Names or numbers separated by commas that stand outside brackets: x,u[0,3]."""
    return [_number(part.strip()) for part in re.split(r",(?![^\[]*\])", names)]


def _swept(text: str | None) -> dict[str, list[float]] | None:
    """rho=20,30,40, or rho=20:40:5 with the last value included."""
    if text is None:
        return None
    name, _, values = text.partition("=")
    try:
        if ":" not in values:
            return {name.strip(): [float(value) for value in values.split(",")]}
        first, last, step = (float(part) for part in values.split(":"))
        count = (last - first) / step
        if not 0 <= count < 1e6:
            raise ValueError
    except (ValueError, ZeroDivisionError):
        raise InvalidValue(f"--sweep {text!r}: expected name=value,value,... or name=first:last:step, such as rho=20:40:5.") from None
    return {name.strip(): [first + i * step for i in range(int(count + 1e-9) + 1)]}


def _say_written(series: Any, path: Path) -> None:
    print(f"{path}: {series}")
    for note in series.notes:
        print(f"note: {note}", file=sys.stderr)


def _print_scores(console: Any, scores: Any) -> None:
    from rich.table import Table

    if not scores:
        console.print("No scores: the test part is too short, or none was kept for it (split.test).")
        return
    table = Table("score", "value", "floor", "over starts", box=None, pad_edge=False)
    for score in scores:
        steps = dict(score.settings).get("steps")
        name = f"{score.name} ({steps} steps)" if score.name == "prediction_error" else score.name
        floor = "" if score.floor is None else f"{score.floor:.3g}"
        table.add_row(name, f"{score.value:.4g}", floor, "" if score.spread is None else f"{score.spread[0]:.3g} … {score.spread[1]:.3g}")
    console.print(table)


def _print_outcome(console: Any, found: Any) -> None:
    seeds = zip(found.outcome.scores, found.outcome.kept_at, found.outcome.status, strict=True)
    for seed, (score, step, status) in enumerate(seeds):
        mark = "  <- kept" if seed == found.outcome.best else ""
        console.print(f"seed {seed}: validation score {score:.3g} at step {step}, {status}{mark}", highlight=False)
    if not found.status.ok:
        console.print(f"warning: {found.status.value}. {found.remedy}", highlight=False, soft_wrap=True)

"""`dynsys control`: learn to control a Gymnasium environment; `dynsys play`: the controller at work.

`dynsys.cli` adds them to its own commands. Heavy imports stand inside the commands.
"""

import contextlib
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from dynsys_datasets.errors import DataError, InvalidValue

Env = Annotated[str, typer.Argument(help="A Gymnasium id, such as Pendulum-v1 or dynsys/CartPoleSwingUp-v0. dynsys list environments.")]
Record = Annotated[Path | None, typer.Option(help="Write an episode as an animated GIF: play the first one, control one more.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


class Method(StrEnum):
    """How a controller is found."""

    model = "model"
    local_ilqr = "local-ilqr"


def control(
    env: Env,
    out: Annotated[Path, typer.Option(help="The run folder; a run that was stopped goes on there.")],
    method: Annotated[
        Method | None, typer.Option(help="model: plan on a learned model (default); local-ilqr: descend along rollouts of the system.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model that is learned. Default: random-features. See dynsys list models.")] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="Environment steps to learn from, the random ones included. Default: 1000. local-ilqr does not count."),
    ] = None,
    episodes: Annotated[int | None, typer.Option(help="Episodes played at the end, not learned from. Default: 10.")] = None,
    seed: Annotated[int | None, typer.Option(help="Where all random numbers begin.")] = None,
    config: Annotated[Path | None, typer.Option(help="A settings file, such as the config.toml of another run.")] = None,
    set: Annotated[
        list[str] | None, typer.Option("--set", help="Change one setting: --set planner.horizon=60, --set environment.g=9.81. Repeatable.")
    ] = None,
    record: Record = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew in a folder that holds another run.")] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no report.html.")] = False,
    quiet: Quiet = False,
) -> None:
    """Learn to control an environment from few steps: collect, fit a model, plan on it, act, add, repeat.

    Writes config.toml, experience.h5, history.csv, controller.h5, scores.json and report.html into the run folder.
    """
    from dynsys.config import read_config, with_settings
    from dynsys.control.collect import make_environment
    from dynsys.control.loop import learn_to_control
    from dynsys.control.settings import ControlSettings

    if record is not None:
        _check_gif(record)
    asked = {"method": method and method.value, "model.name": model, "steps": steps, "episodes": episodes, "seed": seed}
    changes = [f"{name}={value}" for name, value in asked.items() if value is not None]
    base = ControlSettings() if config is None else read_config(ControlSettings, config)
    settings = with_settings(base, [f'environment.id="{env}"', *changes, *(set or [])])
    _see_here(env)
    world = make_environment(env, settings.environment.options, render_mode=None)
    console = _console(quiet)
    if record is not None:
        _check_drawn(settings)

    if settings.method == "local-ilqr":
        from dynsys.control.local_loop import learn_locally as learn
    else:
        learn = learn_to_control
    already = _episodes_in(out)
    try:
        with _told(console) as tell:
            found = learn(world, settings, out=out, overwrite=overwrite, progress=tell)
    except KeyboardInterrupt:
        console.print(f"stopped. What was collected is in {out}; the same command goes on from there.", highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None
    finally:
        world.close()
    if found.played is not None:
        _print_played(console, found.played)
    _warn(console, found, already)
    if not no_report:
        from dynsys.report.control_page import write_control_report

        path = write_control_report(found, out / "report.html", command=shlex.join(["dynsys", *sys.argv[1:]]))
        console.print(f"report: {path}", highlight=False, soft_wrap=True)
    if record is not None:
        _record(settings, found.controller, record, console)
    if not found.status.ok:
        raise DataError(f"{env}: {found.reason} The run folder {out} holds what was collected, and a controller made of it.")


def play(
    run: Annotated[Path, typer.Argument(help="A run folder of dynsys control.")],
    episodes: Annotated[int, typer.Option(help="How many episodes.")] = 10,
    seed: Annotated[int, typer.Option(help="The seed of the first episode; the next ones count on.")] = 0,
    record: Record = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Play episodes with the controller of a run: returns, lengths and how long decisions take."""
    from dynsys.config import read_config
    from dynsys.control.collect import make_environment
    from dynsys.control.play import play as played_with
    from dynsys.control.settings import ControlSettings
    from dynsys.control.store import load_controller

    if episodes < 1 or seed < 0:
        raise InvalidValue(f"play: needs --episodes >= 1 and --seed >= 0, got {episodes} and {seed}.")
    if record is not None:
        _check_gif(record)
    controller = load_controller(run)
    path = run / "config.toml"
    if not path.is_file():
        raise DataError(f"{run}: has no config.toml, which names the environment. Give a run folder of dynsys control.")
    settings = read_config(ControlSettings, path)
    _see_here(settings.environment.id)
    mode = None if record is None else "rgb_array"
    world = make_environment(settings.environment.id, settings.environment.options, render_mode=mode)
    try:
        found = played_with(world, controller, episodes, seed=seed, record=record)
    finally:
        world.close()
    if as_json:
        typer.echo(json.dumps(found.summary(), indent=1))
    else:
        _print_played(_console(False), found)
        if record is not None:
            typer.echo(f"recording: {record}")
    if not found.status.ok:
        raise DataError(f"{settings.environment.id}: {found.reason}")


def _see_here(env: str) -> None:
    """Let "module:Id" name a file in the current folder, as `python -m` would find it."""
    if ":" in env and "" not in sys.path:
        sys.path.insert(0, "")


def _episodes_in(out: Path) -> int:
    """How many episodes a run folder holds already; 0 if it is overwritten, new, or damaged (which the run itself will tell)."""
    path = out / "history.csv"
    return max(0, len(path.read_text(encoding="utf-8").splitlines()) - 1) if path.is_file() else 0


def _warn(console: Any, found: Any, already: int) -> None:
    """What a reader of the numbers should know."""
    planned = [row for row in found.history if row.kind == "planned" and row.error == row.error]
    if found.status.ok and found.reason:
        console.print(f"note: {found.reason}", highlight=False, soft_wrap=True)
    if already and already == len(found.history):
        words = f"nothing new was learned: the folder holds {found.experience.steps} steps already. Raise --steps to go on."
        console.print(words, highlight=False, soft_wrap=True)
    if planned and planned[-1].error >= 1:
        words = "warning: the model's forecasts are no better than 'nothing changes'. Raise --steps or training.steps, or change --model."
        console.print(words, highlight=False, soft_wrap=True)


def _check_gif(record: Path) -> None:
    from dynsys_datasets.files import check_target

    if record.suffix.lower() != ".gif":
        raise InvalidValue(f"--record {record}: recordings are animated GIFs; give a name that ends in .gif.")
    check_target(record)


def _check_drawn(settings: Any) -> None:
    """Before anything is learned."""
    from dynsys.control.collect import make_environment
    from dynsys.control.play import check_drawn

    world = make_environment(settings.environment.id, settings.environment.options, render_mode="rgb_array")
    try:
        check_drawn(world)
    finally:
        world.close()


def _record(settings: Any, controller: Any, record: Path, console: Any) -> None:
    """One more episode, drawn."""
    from dynsys.control.collect import make_environment
    from dynsys.control.play import play as played_with

    world = make_environment(settings.environment.id, settings.environment.options, render_mode="rgb_array")
    try:
        played_with(world, controller, 1, seed=settings.seed, record=record)
    finally:
        world.close()
    console.print(f"recording: {record}", highlight=False, soft_wrap=True)


def _console(quiet: bool) -> Any:
    from rich.console import Console

    return Console(quiet=quiet)


@contextlib.contextmanager
def _told(console: Any) -> Iterator[Callable[[Any], None]]:
    """A line an episode; in a terminal a bar of the environment's steps below them."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("steps"), BarColumn(bar_width=30), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("steps", total=None)

        def tell(told: Any) -> None:
            bar.update(task, completed=told.steps, total=told.of)
            if told.row is not None:
                bar.console.print(_line(told), highlight=False, soft_wrap=True)

        yield tell


def _line(told: Any) -> str:
    row = told.row
    error = "" if row.error != row.error else f"  model error {row.error:.2g}"
    timing = "" if row.plan_median != row.plan_median else f"  {row.plan_median:.1f} ms a decision"
    return f"step {told.steps}/{told.of}  {row.kind} episode of {row.length}: return {row.total:.4g}{error}{timing}"


def _print_played(console: Any, played: Any) -> None:
    about = played.summary()
    for episode in played.episodes if len(played.episodes) <= 20 else ():
        ended = "terminated" if episode.terminated else "truncated" if episode.truncated else "broken off"
        console.print(f"seed {episode.seed}: return {episode.total:.4g} in {episode.steps} steps, {ended}", highlight=False)
    if about["mean"] is None:
        return
    spread = "" if about["standard_error"] is None else f" ± {about['standard_error']:.3g} (standard error)"
    count = f"{len(played.episodes)} episode{'s' if len(played.episodes) > 1 else ''}"
    words = f"{count}: mean return {about['mean']:.5g}{spread}, worst {about['worst']:.5g}"
    if about["plan_ms_median"] is not None:
        words += f"; a decision takes {about['plan_ms_median']:.2f} ms (95 %: {about['plan_ms_95']:.2f} ms)"
    console.print(words, highlight=False, soft_wrap=True)

"""`dynsys certify`: find a Lyapunov function of a closed loop and prove it; `dynsys verify`: check a certificate from its file alone.

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

from dynsys import certify_options as options, certify_words
from dynsys_datasets.errors import DataError, InvalidValue


class Controller(StrEnum):
    """Who closes the loop."""

    lqr = "lqr"
    none = "none"


class Candidate(StrEnum):
    """Which kind of function."""

    quadratic = "quadratic"
    neural = "neural"
    symbolic = "symbolic"
    sos = "sos"


def certify(
    target: Annotated[str, typer.Argument(help="A system (name, or a .toml file of yours), or a run folder with a learned model.")],
    domain: Annotated[str, typer.Option(help='The box of states: "-3..3,-8..8", one range a state, or one for all.')],
    out: Annotated[Path, typer.Option(help="The certificate, a .h5 file.")],
    controller: Annotated[
        Controller, typer.Option(help="lqr: the regulator of the linearised system, inside the limits; none.")
    ] = Controller.lqr,
    candidate: Annotated[
        Candidate,
        typer.Option(help="The function: quadratic; neural, trained with the controller; symbolic, a formula; sos, sums of squares."),
    ] = Candidate.quadratic,
    train: Annotated[bool, typer.Option("--train", help="The same as --candidate neural.")] = False,
    limit: Annotated[str | None, typer.Option(help="The largest |u - rest|: one number, or one an input.")] = None,
    inputs: Annotated[str | None, typer.Option(help='Or the inputs themselves: "0..5.96,0..5.96", one range for each.')] = None,
    goal: Annotated[str | None, typer.Option(help='The equilibrium: "0,0". Default: found near the middle of the domain.')] = None,
    rest: Annotated[str | None, typer.Option(help="The inputs that hold it. Default: 0.")] = None,
    rate: Annotated[
        float | None, typer.Option(help="Claimed decrease, of a map a step (0.001), of a flow a unit of time (1 % of the linear).")
    ] = None,
    level: Annotated[float | None, typer.Option(help="The level of the set. Default: the largest that can be proved.")] = None,
    dt: Annotated[float | None, typer.Option(help="Make a flow a map by Euler steps of this length.")] = None,
    weights: Annotated[
        str | None,
        typer.Option(help='Diagonal weights of the regulator: "1,1;0.1", states before inputs; one for all will do. Default: ones.'),
    ] = None,
    parameter: Annotated[list[str] | None, typer.Option("--set", help="A parameter of the system: --set m=0.15. Repeatable.")] = None,
    seconds: Annotated[float, typer.Option(help="Time limit of every search for a proof.")] = 60.0,
    boxes: Annotated[int, typer.Option(min=1, help="And the most boxes that it may look at.")] = 50_000_000,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with a proof that a limit stopped, a file that ends in .unfinished.h5.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Where random numbers begin.")] = 0,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no page beside the certificate.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Find a Lyapunov function of a closed loop, prove it, and write a certificate that can be checked again.

    The plain quadratic of the linearised loop is always tried first. What is proved: on the set {V <= level} V decreases at the rate along
    every trajectory, which therefore stays there and goes to the equilibrium. A proof that meets a limit, or Ctrl-C, is kept beside OUT.
    """
    from rich.console import Console

    from dynsys_datasets.files import check_target

    if out.suffix.lower() != ".h5":
        raise InvalidValue(f"--out {out}: a certificate is an HDF5 file; give a name that ends in .h5.")
    check_target(out)
    options.parsed("--domain", domain, "state")
    options.positive(limit, **{"--rate": rate, "--level": level, "--dt": dt, "--seconds": seconds})
    console = Console(quiet=quiet)
    with console.status(f"loading {target}"):
        from dynsys.verify.certificate import save_certificate
        from dynsys.verify.routine import certified
        from dynsys.verify.unfinished import load_unfinished

        plant, names, about = _plant(target, parameter or [], dt)
    low, high = options.ranges("--domain", domain, plant.dim, "state")
    Q, R = options.weights(weights, plant)
    kind = "neural" if train else candidate.value
    with _watched(console) as (tell, watch):
        found = certified(
            plant,
            low,
            high,
            goal=options.numbers("--goal", goal, plant.dim),
            rest=options.numbers("--rest", rest, plant.n_inputs),
            controller=controller.value if plant.n_inputs else "none",
            limit=options.numbers("--limit", limit, plant.n_inputs),
            inputs=None if inputs is None else options.ranges("--inputs", inputs, plant.n_inputs, "input"),
            candidate=kind,
            rate=rate,
            level=level,
            Q=Q,
            R=R,
            seconds=seconds,
            boxes=boxes,
            names=names,
            key=seed,
            resume=None if resume is None else load_unfinished(resume, plant),
            progress=tell,
            watch=watch,
        )
    proof = found.proof
    if proof.proved or found.other is not None:
        console.print(certify_words.proved(found, kind), highlight=False, soft_wrap=True)
    about = {
        **about,
        "states": ", ".join(names),
        "controller": certify_words.controller(found.loop),
        "command": _command(),
        **({"candidate" if found.proof is not found.plain[2] else "beside": found.words} if found.words else {}),
    }
    if proof.proved:
        replaced = " (in place of the one that was there)" if out.exists() else ""
        save_certificate(proof, found.loop, found.V, out, about=about, volume=found.volume)
        console.print(f"certificate: {out}{replaced}", highlight=False, soft_wrap=True)
    kept = _keep(found, out, about)
    if not no_report:
        from dynsys.report.certificate_page import write_certificate_report

        page = out.with_suffix(".html")
        baseline = None if found.proof is found.plain[2] else (found.plain[2], found.plain[1])
        with console.status("simulating and drawing the report"):
            write_certificate_report(proof, found.loop, found.V, page, names=names, title=target, command=_command(), baseline=baseline)
        console.print(f"report: {page}", highlight=False, soft_wrap=True)
    if not proof.proved:
        raise DataError(f"{target}: {certify_words.failed(proof, names)} No certificate is written. {kept or certify_words.remedy(proof)}")
    if kept:
        console.print(kept, highlight=False, soft_wrap=True)


def verify(
    file: Annotated[Path, typer.Argument(help="A certificate of dynsys certify.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """Check a certificate from its file alone, by a small checker that shares no code with the search."""
    from dynsys.verify.checker import check

    if file.is_dir():
        raise DataError(f"{file}: is a folder. Give a certificate, a .h5 file that dynsys certify wrote.")
    if not file.is_file():
        raise DataError(f"{file}: there is no such file. Give a certificate that dynsys certify wrote.")
    verdict = check(file)
    if as_json:
        about = {"about": verdict.about, "volume": verdict.stated_volume[0] if verdict.valid else None, "seconds": verdict.seconds}
        told = {"valid": verdict.valid, "reason": verdict.reason, "claim": verdict.claim, "boxes": verdict.boxes, **about}
        typer.echo(json.dumps(told))
    elif verdict.readable:
        if any(verdict.about.values()):
            typer.echo("in the words of its author:")
        for name, value in verdict.about.items():
            if value:
                typer.echo(f"  {name}: {value}")
        typer.echo(f"claim: {verdict.claim}")
        if verdict.valid:
            size, error = verdict.stated_volume
            typer.echo(f"volume of the set: {size:.5g}" + (f" ± {error:.2g}" if error else ""))
            typer.echo(f"valid: {verdict.boxes} boxes checked in {verdict.seconds:.1f} s")
    if not verdict.readable:
        raise DataError(f"{file}: {verdict.reason}")
    if not verdict.valid:
        raise DataError(f"{file}: the certificate is not valid: {verdict.reason}")


def _plant(target: str, parameters: list[str], dt: float | None) -> tuple[Any, tuple[str, ...], dict[str, str]]:
    """The plant, the names of its states, and what it is."""
    from dynsys.dynamics import AbstractFlow, Discretized, euler

    if target.lower().endswith((".h5", ".hdf5")):
        raise InvalidValue(f"{target}: is no plant. Give a system or a run folder; a certificate is checked by dynsys verify.")
    if Path(target).is_dir():
        if parameters or dt is not None:
            raise InvalidValue("--set and --dt are for systems; a learned model has neither.")
        return _learned(Path(target))
    from dynsys.systems import SystemFlow, SystemMap, load_system

    plant = load_system(target, **dict(options.parameter(text) for text in parameters))
    if not isinstance(plant, SystemFlow | SystemMap) or plant.record.kind == "field":
        raise InvalidValue(f"{target}: is of kind {plant.record.kind!r}; a certificate needs a flow or a map.")
    names, about = plant.names, {"system": target, "parameters": " ".join(parameters)}
    if dt is None:
        return plant, names, about
    if not isinstance(plant, AbstractFlow):
        raise InvalidValue(f"--dt {dt}: {target} is a map already.")
    return Discretized(plant, dt, euler), names, {**about, "dt": f"{dt} (Euler)"}  # pyright: ignore[reportCallIssue]


def _learned(run: Path) -> tuple[Any, tuple[str, ...], dict[str, str]]:
    """The model of a run of dynsys fit (in its prepared units) or of dynsys control (in those of the observations)."""
    from dynsys.control.controller import RecedingHorizon
    from dynsys.control.store import CONTROLLER_FILE, load_controller

    if (run / CONTROLLER_FILE).is_file():
        controller = load_controller(run)
        if not isinstance(controller, RecedingHorizon) or controller.copies > 1:
            raise InvalidValue(f"{run}: holds a {type(controller).__name__}; a certificate needs a run with one learned model.")
        from dynsys.control.ilqr import doubled
        from dynsys.precision import x64

        with x64():
            model = doubled(controller.model)
        return model, tuple(f"z{i}" for i in range(model.dim)), {"system": f"learned model of {run.name}", "model": type(model).__name__}
    from dynsys.structure_commands import load_run

    found = load_run(run)
    about = {"system": f"learned model of {run.name}, in prepared units", "model": type(found.model).__name__}
    return found.model, tuple(f"z{i}" for i in range(found.model.dim)), about


def _command() -> str:
    return shlex.join(["dynsys", *sys.argv[1:]])


def _keep(found: Any, out: Path, about: dict[str, Any]) -> str:
    """Write what a limit stopped, and say how to go on; "" if nothing did."""
    from dynsys.verify.unfinished import save_unfinished

    if found.unfinished is None:
        return ""
    loop, V, proof = found.unfinished
    path = save_unfinished(proof, loop, V, out.with_suffix(".unfinished.h5"), about)
    left_out = ("--resume", "--boxes") if proof.reason.startswith("boxes") else ("--resume",)
    words, skip = [], False
    for word in sys.argv[1:]:
        if not skip and word.split("=")[0] not in left_out:
            words.append(word)
        skip = word in left_out
    again = shlex.join(["dynsys", *words, "--resume", str(path)])
    left = len(proof.remaining[0])
    return f"The proof ({proof.boxes} boxes seen, {left} open; {proof.reason}) is kept in {path} and goes on with: {again}"


@contextlib.contextmanager
def _watched(console: Any) -> Iterator[tuple[Callable[[str], None], Callable[[float, int, float], bool]]]:
    """tell(words) and watch(proved share, boxes, seconds): a bar in a terminal; True from watch once Ctrl-C was pressed.

    The first Ctrl-C lets a proof end at its next pause, so that it can be kept; the second one ends the program at once.
    """
    import signal
    import threading

    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=30), TaskProgressColumn(),
        TextColumn("{task.fields[words]}"), TimeElapsedColumn(),
    )  # fmt: skip
    stopped, last = [False], [0, 0.0]

    def interrupted(number: int, frame: Any) -> None:
        if stopped[0]:
            raise KeyboardInterrupt
        stopped[0] = True
        typer.echo("\ndynsys: stopping at the next pause of the proof, which is kept. Ctrl-C again stops at once.", err=True)

    with Progress(*columns, console=console, transient=True, disable=console.quiet or not console.is_terminal) as bar:
        task = bar.add_task("proof", total=1.0, words="", visible=False)

        def tell(words: str) -> None:
            console.print(words, highlight=False, soft_wrap=True, markup=False)
            bar.update(task, description=words if len(words) < 40 else "working", completed=0, words="", visible=True)

        def watch(share: float, boxes: int, seconds: float) -> bool:
            new, spent = (boxes - last[0], seconds - last[1]) if boxes >= last[0] and seconds > last[1] else (boxes, seconds)
            last[:] = boxes, seconds
            pace = f"{boxes:,} boxes, {new / spent:,.0f} a second" if spent > 0 else f"{boxes:,} boxes"
            bar.update(task, completed=share, words=pace, visible=True)
            return stopped[0]

        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, interrupted) if main else None
        try:
            yield tell, watch
        except KeyboardInterrupt:
            typer.echo("dynsys: stopped; nothing is kept.", err=True)
            raise typer.Exit(130) from None
        finally:
            if main:
                signal.signal(signal.SIGINT, before)

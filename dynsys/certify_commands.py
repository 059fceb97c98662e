"""`dynsys certify`: find a Lyapunov function of a closed loop and prove it; `dynsys verify`: check a certificate from its file alone.

`dynsys.cli` adds them to its own commands. Heavy imports stand inside the commands.
"""

import json
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from dynsys_datasets.errors import DataError, InvalidValue


class Controller(StrEnum):
    """Who closes the loop."""

    lqr = "lqr"
    none = "none"


class Candidate(StrEnum):
    """Which kind of function."""

    quadratic = "quadratic"
    neural = "neural"


def certify(
    target: Annotated[str, typer.Argument(help="A system (name, or a .toml file of yours), or a run folder with a learned model.")],
    domain: Annotated[str, typer.Option(help='The box of states: "-3..3,-8..8", one range a state.')],
    out: Annotated[Path, typer.Option(help="The certificate, a .h5 file.")],
    controller: Annotated[
        Controller, typer.Option(help="lqr: the regulator of the linearised system, inside the limits; none.")
    ] = Controller.lqr,
    candidate: Annotated[
        Candidate, typer.Option(help="The kind of function; neural ones are trained, with the controller.")
    ] = Candidate.quadratic,
    train: Annotated[bool, typer.Option("--train", help="The same as --candidate neural.")] = False,
    limit: Annotated[str | None, typer.Option(help="The largest |u - rest|: one number, or one an input.")] = None,
    goal: Annotated[str | None, typer.Option(help='The equilibrium: "0,0". Default: found near the middle of the domain.')] = None,
    rest: Annotated[str | None, typer.Option(help="The inputs that hold it. Default: 0.")] = None,
    rate: Annotated[
        float | None, typer.Option(help="Claimed decrease, of a map a step (0.001), of a flow a unit of time (1 % of the linear).")
    ] = None,
    level: Annotated[float | None, typer.Option(help="The level of the set. Default: the largest that can be proved.")] = None,
    dt: Annotated[float | None, typer.Option(help="Make a flow a map by Euler steps of this length.")] = None,
    weights: Annotated[
        str | None, typer.Option(help='Diagonal weights of the regulator: "1,1;0.1", states before inputs. Default: ones.')
    ] = None,
    parameter: Annotated[list[str] | None, typer.Option("--set", help="A parameter of the system: --set m=0.15. Repeatable.")] = None,
    seconds: Annotated[float, typer.Option(help="Time limit of every search for a proof.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Where random numbers begin.")] = 0,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no page beside the certificate.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Find a Lyapunov function of a closed loop, prove it, and write a certificate that can be checked again.

    The plain quadratic of the linearised loop is always tried first. What is proved: on the set {V <= level} V decreases at the rate along
    every trajectory, which therefore stays there and goes to the equilibrium.
    """
    from rich.console import Console

    from dynsys.verify.certificate import save_certificate
    from dynsys.verify.routine import certified
    from dynsys_datasets.files import check_target

    if out.suffix.lower() != ".h5":
        raise InvalidValue(f"--out {out}: a certificate is an HDF5 file; give a name that ends in .h5.")
    check_target(out)
    console = Console(quiet=quiet)
    plant, names, about = _plant(target, parameter or [], dt)
    low, high = _box(domain, plant.dim, names)
    Q, R = _weights(weights, plant)
    found = certified(
        plant,
        low,
        high,
        goal=_numbers("--goal", goal, plant.dim),
        rest=_numbers("--rest", rest, plant.n_inputs),
        controller=controller.value if plant.n_inputs else "none",
        limit=_numbers("--limit", limit, plant.n_inputs),
        candidate="neural" if train else candidate.value,
        rate=rate,
        level=level,
        Q=Q,
        R=R,
        seconds=seconds,
        key=seed,
        progress=lambda words: console.print(words, highlight=False),
    )
    proof = found.proof
    console.print(_words(found), highlight=False, soft_wrap=True)
    if proof.proved:
        save_certificate(proof, found.loop, found.V, out, about={**about, "command": shlex.join(["dynsys", *sys.argv[1:]])})
        console.print(f"certificate: {out}", highlight=False, soft_wrap=True)
    if not no_report:
        from dynsys.report.certificate_page import write_certificate_report

        page = out.with_suffix(".html")
        baseline = None if found.proof is found.plain[2] else found.plain[2]
        command = shlex.join(["dynsys", *sys.argv[1:]])
        write_certificate_report(proof, found.loop, found.V, page, names=names, title=target, command=command, baseline=baseline)
        console.print(f"report: {page}", highlight=False, soft_wrap=True)
    if not proof.proved:
        raise DataError(f"{target}: not proved ({proof.reason}). {proof.outcome.remedy} No certificate is written.")


def verify(
    file: Annotated[Path, typer.Argument(help="A certificate of dynsys certify.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """Check a certificate from its file alone, by a small checker that shares no code with the search."""
    from dynsys.verify.checker import check

    if not file.is_file():
        raise DataError(f"{file}: there is no such file. Give a certificate that dynsys certify wrote.")
    verdict = check(file)
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "valid": verdict.valid,
                    "reason": verdict.reason,
                    "claim": verdict.claim,
                    "boxes": verdict.boxes,
                    "seconds": verdict.seconds,
                }
            )
        )
    else:
        typer.echo(verdict.claim)
        why = f": {verdict.reason}" if verdict.reason else ""
        typer.echo(f"{'valid' if verdict.valid else 'NOT valid'}: {verdict.boxes} boxes checked in {verdict.seconds:.1f} s{why}")
    if not verdict.valid:
        raise DataError(f"{file}: the certificate is not valid: {verdict.reason}")


def _plant(target: str, parameters: list[str], dt: float | None) -> tuple[Any, tuple[str, ...], dict[str, str]]:
    """The plant, the names of its states, and what it is."""
    from dynsys.dynamics import AbstractFlow, Discretized, euler

    if Path(target).is_dir():
        if parameters or dt is not None:
            raise InvalidValue("--set and --dt are for systems; a learned model has neither.")
        return _learned(Path(target))
    from dynsys.systems import SystemFlow, SystemMap, load_system

    plant = load_system(target, **dict(_parameter(text) for text in parameters))
    if not isinstance(plant, SystemFlow | SystemMap):
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


def _parameter(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError:
        raise InvalidValue(f"--set {text!r}: expected name=number, such as m=0.15.") from None


def _box(text: str, dim: int, names: tuple[str, ...]) -> tuple[list[float], list[float]]:
    """Low and high of "-3..3,-8..8"."""
    parts = [part.split("..") for part in text.split(",")]
    try:
        ranges = [(float(low), float(high)) for low, high in parts]
    except ValueError:
        raise InvalidValue(f'--domain {text!r}: expected one range a state, such as "-3..3,-8..8".') from None
    if len(ranges) == 1:
        ranges = ranges * dim
    if len(ranges) != dim or any(not low < high for low, high in ranges):
        raise InvalidValue(f"--domain {text!r}: wants {dim} ranges with low < high, for {', '.join(names)}.")
    return [low for low, _ in ranges], [high for _, high in ranges]


def _numbers(option: str, text: str | None, count: int) -> list[float] | None:
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise InvalidValue(f'{option} {text!r}: expected numbers such as "0,0".') from None
    if len(values) == 1:
        values = values * count
    if len(values) != count:
        raise InvalidValue(f"{option} {text!r}: wants {count} numbers, got {len(values)}.")
    return values


def _weights(text: str | None, plant: Any) -> tuple[Any, Any]:
    if text is None:
        return None, None
    import numpy as np

    states, _, inputs = text.partition(";")
    return np.diag(_numbers("--weights", states, plant.dim) or []), np.diag(_numbers("--weights", inputs or "1", plant.n_inputs) or [])


def _words(found: Any) -> str:
    proof, (volume, error) = found.proof, found.volume
    if not proof.proved:
        return f"{proof.outcome.value}: {proof.reason}"
    what = "plain quadratic" if found.proof is found.plain[2] else "trained function"
    refuted = "" if proof.bracket[1] != proof.bracket[1] else f" (refuted at {proof.bracket[1]:.6g})"
    beside = "" if found.proof is found.plain[2] else f"; the plain quadratic proves {found.plain[3][0]:.5g}"
    about = f"{proof.boxes + proof.face_boxes} boxes in {proof.seconds:.2f} s, compilation {proof.compile_seconds:.1f} s"
    size = f"{volume:.5g}" + (f" ± {error:.2g}" if error else "")
    return f"proved: {what}, level {proof.level:.6g}{refuted}, volume {size}{beside}; rate {proof.rate:.3g}; {about}"

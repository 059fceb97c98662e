#!/usr/bin/env python3
"""Recompute the facts of the chaos database and write them into its files, with error and provenance.

    scripts/regenerate_facts.py                    all flows, maps and delay systems whose facts are not of this version
    scripts/regenerate_facts.py --jobs 2           in two processes
    scripts/regenerate_facts.py --force Lorenz     again, whatever the version; a user's own .toml file works too
    scripts/regenerate_facts.py --dry              compute and print, write nothing
    scripts/regenerate_facts.py --starts           first replace [start] by a state after a long transient

Prints one JSON row a system: facts, how they were computed, flags (a check that failed, by name). A killed run goes on where it
stopped. Facts, each with the standard error over 16 segments of one run:
    lyapunov_spectrum      QR on the derivative of a fourth-order step, per unit of time (per step for a map)
    mean_divergence        mean trace of the Jacobian of the field (of ln |det J| for a map); the sum of the exponents equals it
    kaplan_yorke           j + (lambda_1 + ... + lambda_j) / |lambda_{j+1}|
    correlation_dimension  Grassberger and Procaccia's, of the standardised states (an angle as its sine and
                           cosine; of a delay equation, of seven points of the past a sixth of the delay apart)
    period                 1 / f at the highest peak of f S(f), S the sum of the power spectra of the standardised states
    mean, std              of each state, angles wrapped
"""

import argparse
import json
import math
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import _facts
import numpy as np

import dynsys
from dynsys.benchmark.workers import work as pool_of
from dynsys.systems import load_system
from dynsys_datasets.catalogue import names, path_of, system

SCRIPT = "scripts/regenerate_facts.py"
FACTS = ("lyapunov_spectrum", "mean_divergence", "kaplan_yorke", "correlation_dimension", "period", "mean", "std")
KINDS = ("flow", "map", "delay")


def current(path: Path) -> bool:
    """Whether the file has facts of this version of the library, the correlation dimension (of version 0.1.0, too) among them."""
    computed = system(path).file.computed
    versions = {entry.version for entry in computed if entry.script == SCRIPT}
    return versions == {dynsys.__version__} and "correlation_dimension" in {entry.name for entry in computed}


def written(value: np.ndarray, error: np.ndarray) -> tuple[str, str]:
    """Value and error as TOML, to the second digit of the error."""
    if value.ndim:
        texts = [written(v, e) for v, e in zip(value, error, strict=True)]
        return f"[{', '.join(v for v, _ in texts)}]", f"[{', '.join(e for _, e in texts)}]"
    if not np.isfinite(error) or error < 1e-10:
        return (f"{float(value):.10g}" if value % 1 else f"{float(value):.1f}"), "0.0"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{float(value):.{max(digits, 1)}f}", f"{float(error):.{max(digits, 1)}f}"


def entries(facts: dict[str, _facts.Fact]) -> str:
    """The [[computed]] tables as TOML text; a fact that is not a number is left out."""
    lines = []
    for name in FACTS:
        if name in facts and np.isfinite(facts[name][0]).all():
            value, error = written(*facts[name])
            lines += ["[[computed]]", f'name = "{name}"', f"value = {value}", f"error = {error}"]
            lines += [f'script = "{SCRIPT}"', f'version = "{dynsys.__version__}"', ""]
    return "\n".join(lines)


def replace_computed(text: str, facts: dict[str, _facts.Fact]) -> str:
    """The file's text with new [[computed]] tables; they are the last part of a file."""
    head, *old = text.split("[[computed]]")
    if any(re.search(r"^\[", part, re.MULTILINE) for part in old):
        raise SystemExit(f"a table follows [[computed]]; wanted it before: {text.splitlines()[0]}")
    return head.rstrip() + "\n\n" + entries(facts)


def rewrite(path: Path, text: str) -> None:
    """Replace a file at once, so that a killed run leaves the old one or the new one."""
    partial = path.with_suffix(".toml.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def on_attractor(name: str, text: str) -> str:
    """The file's text with [start] replaced by a state after 20,000 intervals from a start slightly moved."""
    flow = load_system(name)
    if flow.record.kind == "delay":
        raise SystemExit(f"{name}: --starts is for flows and maps; a delay equation starts with a constant past.")
    begin = flow.start + 1e-2 * np.random.default_rng(0).standard_normal(flow.record.dim)
    setting = _facts.Setting(flow) if flow.record.kind == "map" else _facts.Setting(flow, flow.record.dt, 16, 1, _facts.rk4)
    state = flow.record.wrap(_facts.series(setting, begin, 20_000)[1])
    lines, position = [], 0
    for family in flow.record.file.state:
        block = flow.record.file.block(family)
        part = [f"{number:.6g}" for number in state[position:][: block.size]]
        part = [number if "." in number or "e" in number else number + ".0" for number in part]
        position += block.size
        lines.append(f"{family.name} = {part[0]}" if not block.shape else f"{family.name} = [{', '.join(part)}]")
    return re.sub(r"\[start\]\n(?:[^\[\n][^\n]*\n)+", "[start]\n" + "\n".join(lines) + "\n", text)


def work(name: str, seconds: float, dry: bool, starts: bool) -> dict[str, object]:
    """Compute the facts of one system, write them unless `dry`, and return the row to print."""
    path, begin = Path(name) if name.endswith(".toml") else path_of(name), time.perf_counter()
    try:
        if starts:
            rewrite(path, on_attractor(str(path), path.read_text(encoding="utf-8")))
        found = _facts.compute(str(path), seconds)
        if found.facts and "DIVERGED" not in found.flags and not dry:
            rewrite(path, replace_computed(path.read_text(encoding="utf-8"), found.facts))
    except Exception as error:  # one system that fails must not end the run of the others
        found = _facts.Found(flags={"FAILED": f"{type(error).__name__}: {error}"[:300]})
    row = {key: [np.round(value, 6).tolist(), np.round(doubt, 6).tolist()] for key, (value, doubt) in found.facts.items()}
    return {"system": name, "seconds": round(time.perf_counter() - begin, 1), "flags": found.flags, **found.notes, **row}


def rows(todo: list[str], jobs: int, settings: tuple[float, bool, bool]) -> Iterator[dict[str, object]]:
    """The row of every system as it is done, in `jobs` processes of one thread each."""
    if jobs == 1:
        yield from (work(name, *settings) for name in todo)
        return
    for outcome in pool_of(work, [(name, (name, *settings)) for name in todo], jobs=jobs):
        yield outcome.value or {"system": outcome.label, "seconds": round(outcome.seconds, 1), "flags": {"FAILED": outcome.reason}}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("systems", nargs="*", help="names or .toml files; default: all flows, maps and delay systems without inputs")
    parser.add_argument("--seconds", type=float, default=20.0, help="time for each system after compilation")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--force", action="store_true", help="also systems whose facts are of this version")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    parser.add_argument("--starts", action="store_true", help="replace [start] first")
    options = parser.parse_args()
    known = [name for kind in KINDS for name in names(kind) if system(name).n_inputs == 0]
    todo = options.systems or known
    if not options.force and not options.dry:
        todo = [name for name in todo if not current(Path(name) if name.endswith(".toml") else path_of(name))]
    flagged = 0
    for row in rows(todo, options.jobs, (options.seconds, options.dry, options.starts)):
        flagged += bool(row["flags"])
        print(json.dumps(row), flush=True)
    print(f"{len(todo)} systems computed, {flagged} with flags", file=sys.stderr)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Recompute the facts of the chaos database and write them into its files, with error and provenance.

    scripts/regenerate_facts.py                    all flows and maps; prints one JSON row a system
    scripts/regenerate_facts.py Lorenz my.toml     some of them, or a user's own file
    scripts/regenerate_facts.py --dry              compute and print, write nothing
    scripts/regenerate_facts.py --starts           first replace [start] by a state after a long transient

Facts, each with the standard error of the mean over 16 segments of one run:
    lyapunov_spectrum   QR on the derivative of a fourth-order step, per unit of time (per step for a map)
    mean_divergence     mean trace of the Jacobian of the field (of ln |det J| for a map); the sum of the exponents equals it
    kaplan_yorke        j + (lambda_1 + ... + lambda_j) / |lambda_{j+1}|
    period              1 / f at the highest peak of f S(f), S the sum of the power spectra of the standardised states
    mean, std           of each state, angles wrapped
"""

import argparse
import json
import math
import re
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.signal import welch

import dynsys
from dynsys.analysis.lyapunov import kaplan_yorke_dimension, lyapunov_spectrum
from dynsys.integrate import simulate_system
from dynsys.precision import x64
from dynsys.systems import SystemFlow, SystemMap, load_system
from dynsys_datasets.catalogue import names, path_of

SEGMENTS = 16
FACTS = ("lyapunov_spectrum", "mean_divergence", "kaplan_yorke", "period", "mean", "std")


def facts(name: str, points: int, steps: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Every fact of a system: value and error, arrays of one shape."""
    flow = load_system(name)
    series = simulate_system(name, points, transient=2000)
    values = np.asarray(series.trajectories[0])
    found = {}
    substeps = 1 if isinstance(flow, SystemMap) else 4
    run = lyapunov_spectrum(
        flow, values[-1], steps=steps, transient=steps // 20, dt=flow.dt / substeps, segments=SEGMENTS, every=1 if substeps == 1 else 4
    )
    found["lyapunov_spectrum"] = run.exponents, run.errors
    found["mean_divergence"] = over_segments(divergence(flow, values))
    found["kaplan_yorke"] = np.asarray(run.kaplan_yorke), kaplan_yorke_error(run.exponents, run.errors)
    if isinstance(flow, SystemFlow):
        periods = np.array([dominant_period(part, flow.dt) for part in np.array_split(values, SEGMENTS)])
        found["period"] = np.asarray(dominant_period(values, flow.dt, SEGMENTS)), np.asarray(periods.std(ddof=1) / math.sqrt(SEGMENTS))
    found["mean"] = over_segments(values)
    deviations = np.array([part.std(0) for part in np.array_split(values, SEGMENTS)])
    found["std"] = values.std(0), deviations.std(0, ddof=1) / math.sqrt(SEGMENTS)
    return found


def over_segments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean over time and its standard error from independent segments."""
    means = np.array([part.mean(0) for part in np.array_split(values, SEGMENTS)])
    return np.asarray(values.mean(0)), np.asarray(means.std(0, ddof=1) / math.sqrt(SEGMENTS))


def divergence(flow: SystemFlow | SystemMap, values: np.ndarray) -> np.ndarray:
    """Local rate of change of volume at each state, (T,)."""

    def rate(z: jax.Array) -> jax.Array:
        if isinstance(flow, SystemMap):
            return jnp.linalg.slogdet(flow.jacobian(z))[1]
        return jnp.trace(flow.jacobian(0.0, z))

    with x64():
        return np.asarray(eqx.filter_jit(jax.vmap(rate))(jnp.asarray(values)))


def kaplan_yorke_error(exponents: np.ndarray, errors: np.ndarray, draws: int = 1000) -> np.ndarray:
    """Spread of the dimension when the exponents vary by their errors."""
    generator = np.random.default_rng(0)
    samples = exponents + errors * generator.standard_normal((draws, len(exponents)))
    return np.asarray(np.std([kaplan_yorke_dimension(np.sort(sample)[::-1]) for sample in samples]))


def dominant_period(values: np.ndarray, dt: float, parts: int = 1) -> float:
    """1/f at the highest peak of f S(f), the peak placed by a parabola through three points of its logarithm."""
    scaled = (values - values.mean(0)) / values.std(0)
    frequency, power = welch(scaled, fs=1 / dt, nperseg=len(values) // (4 * parts), axis=0)
    weight = frequency * power.sum(1)
    top = int(np.clip(np.argmax(weight), 1, len(weight) - 2))
    left, middle, right = np.log(weight[top - 1 : top + 2] + 1e-300)
    offset = 0.5 * (left - right) / (left - 2 * middle + right)
    return 1 / (frequency[top] + offset * (frequency[1] - frequency[0]))


def written(value: np.ndarray, error: np.ndarray) -> tuple[str, str]:
    """Value and error as TOML, to the second digit of the error."""
    if value.ndim:
        texts = [written(v, e) for v, e in zip(value, error, strict=True)]
        return f"[{', '.join(v for v, _ in texts)}]", f"[{', '.join(e for _, e in texts)}]"
    if not np.isfinite(error) or error < 1e-10:
        return f"{float(value):.10g}" if value % 1 else f"{float(value):.1f}", "0.0"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{float(value):.{max(digits, 1)}f}", f"{float(error):.{max(digits, 1)}f}"


def entries(found: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """The [[computed]] tables as TOML text."""
    lines = []
    for name in FACTS:
        if name in found:
            value, error = written(*found[name])
            lines += ["[[computed]]", f'name = "{name}"', f"value = {value}", f"error = {error}"]
            lines += ['script = "scripts/regenerate_facts.py"', f'version = "{dynsys.__version__}"', ""]
    return "\n".join(lines)


def on_attractor(name: str, text: str) -> str:
    """The file's text with [start] replaced by a state after 20,000 points; a conservative system keeps its start."""
    flow = load_system(name)
    begin = flow.start + 1e-2 * np.random.default_rng(0).standard_normal(flow.dim)
    state = np.asarray(simulate_system(name, 1, start=begin, transient=20_000).trajectories[0])[0]
    lines, position = [], 0
    for family in flow.record.file.state:
        block = flow.record.file.block(family)
        part = [
            f"{number:.6g}" if "." in f"{number:.6g}" or "e" in f"{number:.6g}" else f"{number:.1f}"
            for number in state[position:][: block.size]
        ]
        position += block.size
        lines.append(f"{family.name} = {part[0]}" if not block.shape else f"{family.name} = [{', '.join(part)}]")
    return re.sub(r"\[start\]\n(?:[^\[\n][^\n]*\n)+", "[start]\n" + "\n".join(lines) + "\n", text)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("systems", nargs="*", help="names or .toml files; default: all flows and maps")
    parser.add_argument("--points", type=int, default=200_000, help="points of the series for period, mean and std")
    parser.add_argument("--steps", type=int, default=16_000_000, help="steps of the run for the exponents")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    parser.add_argument("--starts", action="store_true", help="replace [start] first")
    options = parser.parse_args()
    for name in options.systems or (*names("flow"), *names("map")):
        path = Path(name) if name.endswith(".toml") else path_of(name)
        begin = time.perf_counter()
        text = path.read_text(encoding="utf-8")
        if options.starts:
            text = on_attractor(name, text)
            path.write_text(text, encoding="utf-8")
        found = facts(str(path), options.points, options.steps)
        if not options.dry:
            path.write_text(text.split("[[computed]]")[0].rstrip() + "\n\n" + entries(found), encoding="utf-8")
        row = {name: [np.round(value, 6).tolist(), np.round(error, 6).tolist()] for name, (value, error) in found.items()}
        print(json.dumps({"system": name, "seconds": round(time.perf_counter() - begin, 1), **row}), flush=True)


if __name__ == "__main__":
    main()

"""How fast many trajectories of Lorenz are: `dynsys.integrate` against torchdiffeq, scipy and diffrax, in one process.

    fixed      4,096 starts, 2,000 steps of RK4 to t = 10     rival: torchdiffeq, batched (its 'rk4' is the 3/8 rule); beside it
               our Tsit5, which costs more a step and errs less
    adaptive   4,096 starts, 100 states to t = 10 at 1e-8     rivals: torchdiffeq dopri5 (one shared step), diffrax Tsit5 under
               vmap, scipy DOP853 one by one (some trajectories, scaled up). Ours runs at 6e-9, so that its error is no larger
    lyapunov   the spectrum to 0.002 after compilation, from 256 orbits; error from the published 0.9056, 0, -14.5723

Float64. Errors over the first 64 lanes from a reference at 1e-13 (Dopri8): root mean square over all asked times, and median and
maximum over the lanes of a lane's largest error. All programs run by turns, so that other load meets all; medians are shown.
Compiling is in `first_call_s` alone; `cpu_ms` is processor time, which other load changes less. One JSON row for each case and
program; a rival's row has `ratio`, its time over ours, beside the ratio that was asked for. `--toy` makes everything small.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import diffrax
import jax
import numpy as np
from scipy.integrate import solve_ivp

from dynsys.analysis.lyapunov import lyapunov_spectrum
from dynsys.integrate.ensemble import ensemble, ensemble_adaptive
from dynsys.integrate.lanes import usable_cores
from dynsys.integrate.solve import solve
from dynsys.systems import load_system

PUBLISHED = np.array([0.9056, 0.0, -14.5723])  # Sprott, Chaos and Time-Series Analysis, 2003
END, TOLERANCE = 10.0, 1e-8
OURS = 6e-9  # the tolerance at which our error is no larger than the smallest of the rivals at 1e-8
Run = Callable[[], np.ndarray]  # states (B, T, 3)


def starts(lanes: int) -> np.ndarray:
    """States on and around the attractor, (B, 3)."""
    return load_system("Lorenz").start + np.random.default_rng(0).normal(size=(lanes, 3))


def torch_field() -> Any:
    """Lorenz for torchdiffeq, (B, 3) -> (B, 3)."""
    import torch

    def field(t: Any, z: Any) -> Any:
        x, y, w = z.unbind(-1)
        return torch.stack([10.0 * (y - x), x * (28.0 - w) - y, x * y - (8.0 / 3.0) * w], -1)

    return field


def torch_run(z0: np.ndarray, times: np.ndarray, threads: int, **options: Any) -> Run:
    """torchdiffeq's `odeint` of all lanes together."""
    import torch
    from torchdiffeq import odeint

    field, start, asked = torch_field(), torch.tensor(z0), torch.tensor(times)

    def run() -> np.ndarray:
        torch.set_num_threads(threads)
        with torch.no_grad():
            return odeint(field, start, asked, **options).numpy().swapaxes(0, 1)

    return run


def diffrax_run(z0: np.ndarray, times: np.ndarray) -> Run:
    """diffrax's Tsit5, one solve a lane under vmap, written as its documentation does."""

    def field(t: Any, z: Any, args: Any) -> Any:
        x, y, w = z
        return jax.numpy.stack([10.0 * (y - x), x * (28.0 - w) - y, x * y - (8.0 / 3.0) * w])

    def one(z: Any, asked: Any) -> Any:
        controller, saved = diffrax.PIDController(rtol=TOLERANCE, atol=TOLERANCE), diffrax.SaveAt(ts=asked)
        term = diffrax.ODETerm(field)
        return diffrax.diffeqsolve(
            term, diffrax.Tsit5(), 0.0, END, None, z, saveat=saved, stepsize_controller=controller, max_steps=100_000
        ).ys

    every = jax.jit(jax.vmap(one, in_axes=(0, None)))

    def run() -> np.ndarray:
        with jax.enable_x64(True):
            return np.asarray(every(jax.numpy.asarray(z0), jax.numpy.asarray(times)))

    return run


def scipy_run(z0: np.ndarray, times: np.ndarray) -> Run:
    """scipy's DOP853, one lane after the other."""

    def field(t: float, z: np.ndarray) -> list[float]:
        x, y, w = z
        return [10.0 * (y - x), x * (28.0 - w) - y, x * y - (8.0 / 3.0) * w]

    def run() -> np.ndarray:
        return np.stack([solve_ivp(field, (0, END), z, "DOP853", times, rtol=TOLERANCE, atol=TOLERANCE).y.T for z in z0])

    return run


def timed(run: Run) -> tuple[float, float, np.ndarray]:
    """Seconds that a run takes, seconds of processor time, and what it gives."""
    begun, busy = time.perf_counter(), time.process_time()
    states = run()
    return time.perf_counter() - begun, time.process_time() - busy, states


def by_turns(
    case: str, ours: str, runs: dict[str, tuple[Run, float, dict[str, Any]]], truth: np.ndarray, rounds: int
) -> list[dict[str, Any]]:
    """One row a program; `runs` holds the run, the factor that scales its time up, and what the row should say besides."""
    first, times, busy, found = {}, {name: [] for name in runs}, {name: [] for name in runs}, {}
    for name, (run, _, _) in runs.items():
        first[name] = timed(run)[0]
    for _ in range(rounds):
        for name, (run, scale, _) in runs.items():
            seconds, processor, found[name] = timed(run)
            times[name].append(scale * seconds)
            busy[name].append(scale * processor)
    medians = {name: statistics.median(of) for name, of in times.items()}
    rows = []
    for name, (_, scale, says) in runs.items():
        wrong = found[name][: len(truth)]
        wrong = np.abs(wrong - truth[: len(wrong)])
        row = {"case": case, "program": name, "ms": round(1e3 * medians[name], 2), "ms_best": round(1e3 * min(times[name]), 2)}
        row |= {
            "cpu_ms": round(1e3 * statistics.median(busy[name]), 2),
            "first_call_s": round(first[name], 2),
            "error_rms": float(f"{np.sqrt(np.mean(wrong**2)):.2g}"),
            "error_median": float(f"{np.median(wrong.max((1, 2))):.2g}"),
            "error_max": float(f"{wrong.max():.2g}"),
        }
        if name != ours:
            row |= {"ratio": round(medians[name] / medians[ours], 1)}
            row |= {"cpu_ratio": round(statistics.median(busy[name]) / statistics.median(busy[ours]), 1)}
        rows.append(row | ({"extrapolated_from": len(found[name])} if scale != 1 else {}) | says | machine())
    return rows


def machine() -> dict[str, Any]:
    """What a row says of where it was measured."""
    return {"jax": jax.__version__, "cpus": usable_cores(), "machine": platform.processor() or platform.machine()}


def fixed(lanes: int, rounds: int, steps: int) -> list[dict[str, Any]]:
    """The rows of RK4 with fixed steps."""
    flow, z0, times = load_system("Lorenz"), starts(lanes), np.array([0.0, END])
    truth = np.asarray(solve(flow, z0[:64], times, solver="dopri8", rtol=1e-13, atol=1e-13).states)
    runs: dict[str, Any] = {
        f"ensemble {method}": (
            lambda method=method: np.asarray(ensemble(flow, z0, dt=END / steps, steps=steps, method=method).states),
            1.0,
            {},
        )
        for method in ("rk4", "tsit5")
    }
    for threads in sorted({1, usable_cores()}):
        says = {"target": 20.0, "threads": threads}
        run = torch_run(z0, times, threads, method="rk4", options={"step_size": END / steps})
        runs[f"torchdiffeq rk4, {threads} threads"] = (run, 1.0, says)
    return by_turns("fixed", "ensemble rk4", runs, truth, rounds)


def adaptive(lanes: int, rounds: int, few: int) -> list[dict[str, Any]]:
    """The rows of error control."""
    flow, z0, times = load_system("Lorenz"), starts(lanes), np.linspace(0.0, END, 101)
    truth = np.asarray(solve(flow, z0[:64], times, solver="dopri8", rtol=1e-13, atol=1e-13).states)
    runs: dict[str, Any] = {
        "ensemble_adaptive": (
            lambda: np.asarray(ensemble_adaptive(flow, z0, times, rtol=OURS, atol=OURS).states),
            1.0,
            {"tolerance": OURS},
        ),
        "diffrax tsit5, vmap": (diffrax_run(z0, times), 1.0, {"target": 5.0}),
        "scipy dop853, one by one": (scipy_run(z0[:few], times), lanes / few, {}),
    }
    for threads in sorted({1, usable_cores()}):
        run = torch_run(z0, times, threads, method="dopri5", rtol=TOLERANCE, atol=TOLERANCE)
        runs[f"torchdiffeq dopri5, {threads} threads"] = (run, 1.0, {"target": 10.0, "threads": threads})
    return by_turns("adaptive", "ensemble_adaptive", runs, truth, rounds)


def lyapunov(lanes: int, rounds: int, steps: int) -> list[dict[str, Any]]:
    """The row of the spectrum of Lorenz."""
    flow, z0 = load_system("Lorenz"), starts(lanes)

    def run() -> np.ndarray:
        found = lyapunov_spectrum(flow, z0, steps=steps, transient=2000, dt=0.01, segments=1)
        return np.stack([found.exponents, found.errors])

    first = timed(run)[0]
    times, busy, found = zip(*(timed(run) for _ in range(rounds)), strict=True)
    row: dict[str, Any] = {"case": "lyapunov", "orbits": lanes, "T": lanes * steps * 0.01, "ms": round(1e3 * statistics.median(times), 1)}
    row |= {"cpu_ms": round(1e3 * statistics.median(busy), 1), "first_call_s": round(first, 2)}
    row |= {"exponents": found[0][0].round(5).tolist(), "standard_errors": found[0][1].round(5).tolist()}
    row |= {"error": np.abs(found[0][0] - PUBLISHED).round(5).tolist(), "target": "0.002 in under 500 ms"}
    return [row | machine()]


def main() -> None:
    """Print one JSON row for each case and program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--case", action="append", choices=["fixed", "adaptive", "lyapunov"], help="only this case; may be repeated")
    parser.add_argument("--lanes", type=int, help="trajectories of `fixed` and `adaptive` (4,096)")
    parser.add_argument("--rounds", type=int, help="turns of all programs (5); medians are shown")
    given = parser.parse_args()
    lanes, rounds = given.lanes or (8 if given.toy else 4096), given.rounds or (1 if given.toy else 5)
    cases: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "fixed": lambda: fixed(lanes, rounds, 500 if given.toy else 2000),
        "adaptive": lambda: adaptive(lanes, rounds, min(lanes, 2 if given.toy else 16)),
        "lyapunov": lambda: lyapunov(4 if given.toy else 256, rounds, 100 if given.toy else 20_000),
    }
    for name, rows in cases.items():
        for row in rows() if given.case is None or name in given.case else []:
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

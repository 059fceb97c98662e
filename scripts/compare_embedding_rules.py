#!/usr/bin/env python3
"""Which rule for delay and dimension serves best? Every rule on the same series; one JSON row a case, then tables in Markdown.

The rule sees the first half of a series (one observed component, with the noise). Its embedding is then judged on the second:

- fnn: fraction of false nearest neighbours, |x[t+d] gap| > 10 times their distance, or > 2 standard deviations (Kennel, Brown,
  Abarbanel, Phys. Rev. A 45, 3403 (1992), eqs. 4-5), neighbours from the other half of the second half.
- L: log10 noise amplification there (Uzal, Grinblat, Verdes 2011), futures up to half a cycle. The default rule minimises it on the
  first half with its own guess of the horizon, so it is no independent judge of that rule; the errors below are.
- error_1, error_10, error_half: root mean square error, in standard deviations of the clean series, of local linear predictions 1
  step, 10 steps and half a cycle ahead; 3 (m + 1) neighbours from the first half, up to 2000 starts in the second. Neighbours and
  starts carry the noise, the truth is clean (for recordings it is the recording).

"window, cycle known" is the window rule with the cycle's length given to it (0.75 s for Lorenz, the mean beat for the ECG, ...)
instead of the highest peak of the spectrum. No training is done.

Usage: python scripts/compare_embedding_rules.py [--toy] [--points 10000]
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.integrate import solve_ivp

from dynsys.prepare import PreparationConfig, embed, filters
from dynsys.prepare.embedding import MAX_DIMENSION, RULES, choose
from dynsys.prepare.neighbours import gather, halves, noise_amplification, query
from dynsys_datasets.samples import load_sample


@dataclass(frozen=True)
class Case:
    """A series of one component, its cycle in samples, and whether noise may be added to it."""

    name: str
    make: Callable[[int], np.ndarray]
    period: float
    simulated: bool = True


def flow(field, start, dt, skip=100.0):
    """First component of an ordinary differential equation, sampled every dt after `skip` units of time."""

    def make(points):
        times = skip + dt * np.arange(points)
        found = solve_ivp(field, (0, times[-1]), start, t_eval=times, method="DOP853", rtol=1e-9, atol=1e-9)
        return found.y[0]

    return make


def lorenz(t, s):
    """Lorenz 1963: sigma 10, rho 28, beta 8/3."""
    return [10 * (s[1] - s[0]), s[0] * (28 - s[2]) - s[1], s[0] * s[1] - 8 / 3 * s[2]]


def rossler(t, s):
    """Rössler 1976: a = b = 0.2, c = 5.7."""
    return [-s[1] - s[2], s[0] + 0.2 * s[1], 0.2 + s[2] * (s[0] - 5.7)]


def lorenz96(t, s):
    """Lorenz 1996: F = 8."""
    return (np.roll(s, -1) - np.roll(s, 2)) * np.roll(s, 1) - s + 8


def mackey_glass(points, step=0.1, delay=17.0, skip=500):
    """Mackey & Glass 1977: x' = 0.2 x(t-17) / (1 + x(t-17)^10) - 0.1 x, every 1; Runge-Kutta 4, the delayed value interpolated linearly."""
    back, every = round(delay / step), round(1 / step)
    x = np.full((points + skip) * every + back + 1, 1.2)
    x[: back + 1] = 0.5 + 0.7 * np.arange(back + 1) / back
    for i in range(back, len(x) - 1):
        old, new = x[i - back], x[i - back + 1]
        made = [0.2 * v / (1 + v**10) for v in (old, (old + new) / 2, new)]
        a = made[0] - 0.1 * x[i]
        b = made[1] - 0.1 * (x[i] + step / 2 * a)
        c = made[1] - 0.1 * (x[i] + step / 2 * b)
        d = made[2] - 0.1 * (x[i] + step * c)
        x[i + 1] = x[i] + step / 6 * (a + 2 * b + 2 * c + d)
    return x[back + 1 + skip * every :: every][:points]


def ecg(points):
    """The ECG sample as docs/preparation.md prepares it: trend of 0.5 s, smoothing of 3 samples, every 4th kept (90 Hz)."""
    x = load_sample("ecg").trajectories[0][:]
    return filters.gaussian_smooth(filters.remove_gaussian_trend(x, 180.0), 3.0)[::4, 0]


def sample(name):
    """A sample that ships with the package, as it is."""
    return lambda points: load_sample(name).trajectories[0][:, 0]


CASES = (
    Case("Lorenz x, dt 0.02", flow(lorenz, [1.0, 1.0, 20.0], 0.02), 37.5),
    Case("Lorenz x, dt 0.005", flow(lorenz, [1.0, 1.0, 20.0], 0.005), 150),
    Case("Rössler x, dt 0.15", flow(rossler, [1.0, 1.0, 0.0], 0.15), 39.2),
    Case("Lorenz-96 n=5, dt 0.05", flow(lorenz96, 8 + 0.01 * np.arange(5.0), 0.05), 30),
    Case("Lorenz-96 n=20, dt 0.05", flow(lorenz96, 8 + 0.01 * np.arange(20.0), 0.05), 30),
    Case("Mackey-Glass 17, dt 1", mackey_glass, 50),
    Case("ECG, 90 Hz", ecg, 53.5, simulated=False),
    Case("sunspots, yearly", sample("sunspots"), 11, simulated=False),
    Case("El Niño, monthly", sample("elnino"), 12, simulated=False),
)


CYCLE_KNOWN = "window, cycle known"
COMPARED = (*RULES, CYCLE_KNOWN)


def false_neighbours(x, delay, dimension):
    """Fraction of nearest neighbours that the next delay coordinate parts; NaN if there are fewer than 10 points a half."""
    offsets = -delay * np.arange(dimension + 1)
    here, there = (gather(group, offsets, 4000)[:, :, 0] for group in halves([x], dimension * delay))
    if min(len(here), len(there)) < 10:
        return float("nan")
    index = query(there[:, :dimension], here[:, :dimension], 1)[:, 0]
    gap = np.abs(here[:, dimension] - there[index, dimension])
    near = np.linalg.norm(here[:, :dimension] - there[index, :dimension], axis=1)
    return float(np.mean((gap > 10 * near) | (np.hypot(gap, near) > 2 * x.std())))


def prediction_errors(x, clean, delay, dimension, horizons):
    """Local linear predictions of the second half from the first; root mean square error at each horizon."""
    half, newest, last = len(x) // 2, (dimension - 1) * delay, max(horizons)
    library = embed(x[:half], delay, dimension)[:-last]
    starts = embed(x[half:], delay, dimension)[:-last]
    chosen = np.unique(np.linspace(0, len(starts) - 1, 2000).astype(int))
    index = query(library, starts[chosen], min(3 * (dimension + 1), len(library)))
    near = library[index]
    centre = near.mean(axis=1, keepdims=True)
    gram = np.einsum("qki,qkj->qij", near - centre, near - centre)
    gram += (1e-9 * np.trace(gram, axis1=1, axis2=2) + 1e-300)[:, None, None] * np.eye(dimension)
    errors = []
    for horizon in horizons:
        future = x[newest + index + horizon, 0]
        level = future.mean(axis=1, keepdims=True)
        slope = np.linalg.solve(gram, np.einsum("qki,qk->qi", near - centre, future - level)[..., None])[..., 0]
        made = level[:, 0] + np.einsum("qi,qi->q", starts[chosen] - centre[:, 0], slope)
        errors.append(float(np.sqrt(np.mean((made - clean[half + newest + chosen + horizon, 0]) ** 2))))
    return errors


def judge(case, clean, noise, rule):
    """One row: what the rule chose from the first half, and how good it is."""
    clean = (clean - clean.mean()) / clean.std()
    x = (clean + noise * np.random.default_rng(0).standard_normal(clean.size))[:, None]
    half, begun = x.shape[0] // 2, time.perf_counter()
    choice = choose([x[:half]], rule=rule.split(",")[0])
    if rule == CYCLE_KNOWN:
        choice = replace(choice, dimension=int(np.clip(round(case.period / (2 * choice.delay)), 2, MAX_DIMENSION)))
    seconds = time.perf_counter() - begun
    horizon = max(2, round(case.period / 2))
    errors = prediction_errors(x, clean[:, None], choice.delay, choice.dimension, (1, 10, horizon))
    return {
        "case": case.name,
        "noise": noise,
        "rule": rule,
        "delay": choice.delay,
        "dimension": choice.dimension,
        "window_cycles": round((choice.dimension - 1) * choice.delay / case.period, 3),
        "fnn": round(false_neighbours(x[half:], choice.delay, choice.dimension), 4),
        "L": round(noise_amplification([x[half:]], choice.delay, choice.dimension, horizon), 3),
        "error_1": round(errors[0], 5),
        "error_10": round(errors[1], 4),
        "error_half": round(errors[2], 4),
        "seconds": round(seconds, 2),
    }


def tables(rows):
    """Two Markdown tables: every case, and each rule's errors as multiples of the best rule's (geometric mean over cases)."""
    lines = [
        "| case | noise | rule | d x m | window / cycle | fnn | L | error 1 | error 10 | error half cycle | s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r['case']} | {r['noise']} | {r['rule']} | {r['delay']} x {r['dimension']} | {r['window_cycles']:.2f} | {r['fnn']:.3f} "
            f"| {r['L']:.2f} | {r['error_1']:.4f} | {r['error_10']:.3f} | {r['error_half']:.3f} | {r['seconds']:.1f} |"
        )
    measures = ("error_1", "error_10", "error_half")
    lines += ["", "| rule | error 1 | error 10 | error half cycle | all | worst case | mean L | s |", "|---|---|---|---|---|---|---|---|"]
    best = {
        (r["case"], r["noise"], m): min(s[m] for s in rows if (s["case"], s["noise"]) == (r["case"], r["noise"]))
        for r in rows
        for m in measures
    }
    for rule in COMPARED:
        own = [r for r in rows if r["rule"] == rule]
        ratio = np.array([[r[m] / best[r["case"], r["noise"], m] for m in measures] for r in own])
        mean = np.exp(np.log(ratio).mean(axis=0))
        lines.append(
            f"| {rule} | {mean[0]:.2f} | {mean[1]:.2f} | {mean[2]:.2f} | {np.exp(np.log(ratio).mean()):.2f} | {ratio.max():.1f} "
            f"| {np.mean([r['L'] for r in own]):.3f} | {np.mean([r['seconds'] for r in own]):.1f} |"
        )
    return "\n".join(lines)


def main():
    """Run all cases and print rows and tables."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--points", type=int, default=20_000, help="length of the simulated series")
    options.add_argument("--toy", action="store_true", help="two cases, 2000 points: seconds, to see that it runs")
    given = options.parse_args()
    cases, points = ([CASES[0], CASES[7]], 2000) if given.toy else (CASES, given.points)
    rows = []
    for case in cases:
        clean = case.make(points)
        for noise in (0.0, 0.05) if case.simulated else (0.0,):
            for rule in COMPARED:
                rows.append(judge(case, clean, noise, rule))
                print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
    print(f"\n{points} points a simulated series; Python {platform.python_version()}, NumPy {np.__version__}, {platform.machine()}.\n")
    print(tables(rows))
    default = PreparationConfig().rule
    print(f"\nDefault rule: {default}", file=sys.stderr)


if __name__ == "__main__":
    main()

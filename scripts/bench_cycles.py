"""Cycles of piecewise-linear maps: the search over regions against the exhaustive truth, and its speed.

    truth   100 random maps, AL-RNNs (P <= 4) and shallow PLRNNs (H <= 10) by turns, M = 2 to 4: every cycle to period 8 in a box, by
            `all_cycles`, against what `find_cycles` finds in its default budget. `missed` must be few, `false` none (residual
            below 1e-10), `extra` none (found in the box, but not by the exhaustive search)
    speed   two AL-RNNs, M = 20, P = 10: a random one with spectral radius about 1 and a chaotic orbit, and the Lozi map driving 17
            contracting units, whose cycles are known. Cycles to period 20 from 10,000 starts in all, and from 10,000 a period; the
            sequence of regions of 1,000,000 states

How the maps are drawn: A uniform in +-0.9; W, W1 (of gain 1 to 3 over the root of their width), W2, h, h1, h2 normal. A draw is
kept if one of 30 orbits is bounded and, for numbers 2 to 7 of every eight, moreover: for 2 and 3 it moves, for 4 to 7 it is chaotic
(a change of 1e-9 grows past 1e-4 in 300 steps). The box is twice as wide as the search's default. One JSON row a map, then a summary.
Compiling is in the first of two calls (`first_call_s`). `--toy` makes everything small; `--case NAME` picks one.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dynsys.analysis.piecewise.exhaustive import all_cycles
from dynsys.analysis.piecewise.regions import visited_regions
from dynsys.analysis.piecewise.search import find_cycles
from dynsys.analysis.piecewise.words import canonical
from dynsys.models.alrnn import ALRNN
from dynsys.models.observation import IdentityObservation
from dynsys.models.shallow import ShallowPLRNN
from dynsys.precision import x64


def alrnn(A: np.ndarray, W: np.ndarray, h: np.ndarray, n_relu: int) -> ALRNN:
    """The model that sees all its states."""
    seen = IdentityObservation(n_obs=len(A), dim=len(A))
    return ALRNN(A=A, W=W, h=h, C=np.zeros((len(A), 0)), observation=seen, n_relu=n_relu)  # pyright: ignore[reportCallIssue]


def draw(kind: str, rng: np.random.Generator) -> Any:
    """One random map."""
    M, gain = int(rng.integers(2, 5)), rng.uniform(1.0, 3.0)
    A = rng.uniform(-0.9, 0.9, M)
    if kind == "alrnn":
        W = gain * rng.normal(size=(M, M)) / np.sqrt(M)
        return alrnn(A, W, rng.normal(size=M), int(rng.integers(1, M + 1)))
    H = int(rng.integers(2, 11))
    W1, W2 = gain * rng.normal(size=(M, H)) / np.sqrt(H), rng.normal(size=(H, M))
    seen, none = IdentityObservation(n_obs=M, dim=M), np.zeros((M, 0))
    return ShallowPLRNN(A=A, W1=W1, W2=W2, h1=rng.normal(size=M), h2=rng.normal(size=H), C=none, observation=seen)  # pyright: ignore[reportCallIssue]


def behaviour(model: Any, rng: np.random.Generator) -> set[str]:
    """Of 30 orbits, after 300 steps: is one bounded, does a bounded one move, is one chaotic?"""
    z = np.repeat(3.0 * rng.normal(size=(30, model.dim)), 2, axis=0)
    z[1::2] += 1e-9
    run = []
    with np.errstate(all="ignore"):
        for _ in range(300):
            if isinstance(model, ALRNN):
                cut = model.dim - model.n_relu
                z = z * model.A + np.concatenate([z[:, :cut], np.maximum(z[:, cut:], 0)], axis=1) @ model.W.T + model.h
            else:
                z = z * model.A + np.maximum(z @ model.W2.T + model.h2, 0) @ model.W1.T + model.h1
            run.append(z)
        bounded = np.abs(run[-1]).max(1) < 100
        moves = bounded & (np.abs(run[-1] - run[-2]).max(1) > 1e-3)
        apart = np.abs(np.stack(run[-20:])[:, ::2] - np.stack(run[-20:])[:, 1::2]).max((0, 2))
        chaotic = bounded[::2] & bounded[1::2] & (apart > 1e-4)
    return {name for name, found in (("bounded", bounded), ("moves", moves), ("chaotic", chaotic)) if found.any()}


def random_map(number: int) -> Any:
    """The map of this number; see the module."""
    rng = np.random.default_rng(number)
    wanted = ("bounded", "moves", "chaotic", "chaotic")[number // 2 % 4]
    while True:
        model = draw("alrnn" if number % 2 else "shallow", rng)
        if wanted in behaviour(model, rng):
            with x64():
                return jax.tree.map(jnp.asarray, model)


def compare(number: int, *, max_period: int = 8, starts: int = 10_000, limit: int = 50_000) -> dict[str, Any]:
    """Search and truth of one map."""
    model = random_map(number)
    began = time.perf_counter()
    found = find_cycles(model, max_period, starts=starts)
    searched = time.perf_counter() - began
    low, high = (np.array(side) for side in dict(found.about)["box"])
    low, high = low - (high - low) / 2, high + (high - low) / 2
    began = time.perf_counter()
    truth = all_cycles(model, max_period, box=(low, high), limit=limit)
    seconds = time.perf_counter() - began
    known = {canonical(cycle.regions): cycle for cycle in truth if cycle.regions is not None}
    seen = {canonical(cycle.regions): cycle for cycle in found if cycle.regions is not None}
    inside = {word for word, cycle in seen.items() if ((cycle.points >= low) & (cycle.points <= high)).all()}
    return {
        "case": "truth",
        "number": number,
        "model": type(model).__name__,
        "dim": model.dim,
        "rectified": model.n_relu if isinstance(model, ALRNN) else model.h2.shape[0],
        "exhaustive": truth.status.value,
        "cycles": len(known),
        "by_period": [len(truth.of_period(k)) for k in range(1, max_period + 1)],
        "found": len(seen),
        "missed": len(known.keys() - seen.keys()),
        "extra": len(inside - known.keys()) if truth.status.ok else 0,
        "false": sum(cycle.residual > 1e-10 * max(1.0, float(np.abs(cycle.points).max())) for cycle in found),
        "residual": max((cycle.residual for cycle in found), default=0.0),
        "words": dict(truth.about)["words"],
        "truth_s": round(seconds, 2),
        "search_s": round(searched, 2),
    }


def truth(toy: bool, count: int) -> None:
    """All maps, and the summary."""
    settings = {"max_period": 4, "starts": 500, "limit": 2000} if toy else {}
    rows = []
    for number in range(2 if toy else count):
        rows.append(compare(number, **settings))
        print(json.dumps(rows[-1]), flush=True)
    total = {name: sum(row[name] for row in rows) for name in ("cycles", "missed", "extra", "false")}
    share = 1 - total["missed"] / max(total["cycles"], 1)
    periods = np.sum([row["by_period"] for row in rows], axis=0).tolist()
    complete = sum(row["exhaustive"] == "success" for row in rows)
    worst = max(row["residual"] for row in rows)
    print(
        json.dumps(
            {
                "case": "truth summary",
                "maps": len(rows),
                "complete": complete,
                **total,
                "by_period": periods,
                "share": share,
                "residual": worst,
            }
        )
    )


def trained_like(dim: int, n_relu: int, seed: int) -> ALRNN:
    """An AL-RNN whose mean linear part has spectral radius 1.05, with a bounded free run."""
    rng = np.random.default_rng(seed)
    while True:
        A, W, h = rng.uniform(0.0, 0.6, dim), rng.normal(size=(dim, dim)) / np.sqrt(dim), 0.5 * rng.normal(size=dim)
        passing = np.where(np.arange(dim) < dim - n_relu, 1.0, 0.5)
        W *= 1.05 / np.abs(np.linalg.eigvals(np.diag(A) + W * passing)).max()
        model = alrnn(A, W, h, n_relu)
        if "chaotic" in behaviour(model, rng):
            with x64():
                return jax.tree.map(jnp.asarray, model)


def lozi(a: float = 1.7, b: float = 0.5) -> ALRNN:
    """The Lozi map x' = 1 - a |x| + y, y' = b x as an AL-RNN of (y, x, -x), the last two rectified."""
    W = np.array([[0.0, b, -b], [1.0, -a, -a], [-1.0, a, a]])
    return alrnn(np.zeros(3), W, np.array([0.0, 1.0, -1.0]), 2)


def driven_by_lozi(dim: int, n_relu: int, seed: int) -> ALRNN:
    """An AL-RNN in which the Lozi map drives contracting units: its cycles are those of the Lozi map, one for one."""
    rng, core = np.random.default_rng(seed), lozi()
    where = [0, dim - 2, dim - 1]
    A, W, h = rng.uniform(0.0, 0.5, dim), rng.normal(size=(dim, dim)), rng.normal(size=dim)
    A[where], h[where], W[where] = 0.0, core.h, 0.0
    others = np.setdiff1d(np.arange(dim), where)
    inner = W[np.ix_(others, others)]
    W[np.ix_(others, others)] = 0.4 * inner / np.linalg.norm(inner, 2)  # with A: every step contracts by 0.9 or more
    W[np.ix_(where, where)] = core.W
    return alrnn(A, W, h, n_relu)


def timed(run: Callable[[], Any], repeats: int = 3) -> tuple[Any, dict[str, float]]:
    """The result, with the time of the first call and of the best of the later ones."""
    found, clock = None, []
    for _ in range(1 + repeats):
        began, busy = time.perf_counter(), time.process_time()
        found = run()
        clock.append((time.perf_counter() - began, time.process_time() - busy))
    best = min(clock[1:])
    return found, {"first_call_s": round(clock[0][0], 2), "seconds": round(best[0], 3), "cpu_s": round(best[1], 3)}


def speed(toy: bool) -> None:
    """Search and region sequence at the size that the project asks for."""
    machine = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    dim, n_relu, longest, starts = (5, 3, 4, 200) if toy else (20, 10, 20, 10_000)
    known = all_cycles(lozi(), 4 if toy else 16, box=(np.full(3, -2.0), np.full(3, 2.0)))
    for kind, model in (("random", trained_like(dim, n_relu, seed=0)), ("driven by the Lozi map", driven_by_lozi(dim, n_relu, seed=0))):
        for name, total in (("in all", starts), ("a period", starts * longest)):
            found, times = timed(
                lambda model=model, total=total: find_cycles(model, longest, starts=total), repeats=1 if total > 10**5 else 2
            )
            about = dict(found.about)
            row = {"case": "speed", "model": kind, "starts": f"{starts} {name}", "dim": dim, "rectified": n_relu, "longest": longest}
            counts = {"cycles": len(found), "words_started": about["words started"], "words_met": about["words met"]}
            if kind != "random":
                longest_known = dict(known.about)["max_period"]
                counts |= {f"known_to_{longest_known}": len(known), "found_of_them": sum(cycle.period <= longest_known for cycle in found)}
            residual = max((cycle.residual for cycle in found), default=0.0)
            print(json.dumps({**row, **times, "target_s": 20, **counts, "residual": residual, **machine}), flush=True)
    states = np.random.default_rng(0).normal(size=(10_000 if toy else 1_000_000, dim))
    visited, times = timed(lambda: visited_regions(model, states))
    print(
        json.dumps({"case": "speed, regions", "states": len(states), "regions": len(visited), **times, "target_s": 1, **machine}),
        flush=True,
    )


def main() -> None:
    """Print the rows of the chosen cases."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--case", choices=["truth", "speed"])
    parser.add_argument("--maps", type=int, default=100)
    given = parser.parse_args()
    if given.case in (None, "truth"):
        truth(given.toy, given.maps)
    if given.case in (None, "speed"):
        speed(given.toy)


if __name__ == "__main__":
    main()

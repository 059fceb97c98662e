"""Milliseconds a step of model predictive control: ours, cvxpy with parameters, and cvxpy with the problem written anew at every step.

    python scripts/bench_mpc.py

One JSON row a way. All control the same double integrator (step 0.1) in the same closed loop, with limits on the input, on its change and
on the speed, and the regulator's cost-to-go at the end. `first_ms` is the first step of a way, which writes the problem (imports are done
before), `median_ms` and `worst_ms` are of the others. `error` is the largest difference of an input from that of cvxpy with Clarabel. The
ways of cvxpy have every state as a variable, as its users write it. A time is of `act`, or of setting the parameters and solving, whole.
`load` is the number of processes that wanted a processor over the last minute.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import clarabel  # noqa: F401  (imported before the clock starts)
import cvxpy as cp
import numpy as np
import osqp  # noqa: F401

from dynsys.control.constraints import Constraints
from dynsys.control.mpc import MPC

DT, STEPS = 0.1, 100
A, B = np.array([[1.0, DT], [0.0, 1.0]]), np.array([[DT**2 / 2], [DT]])
Q, R = np.diag([1.0, 0.1]), np.array([[0.1]])
HIGH, RATE, SPEED = 1.0, 0.3, 0.4
Way = Callable[[np.ndarray, np.ndarray], np.ndarray]  # the state and the input before -> the input


def rows(toy: bool = False) -> list[dict[str, Any]]:
    """One row a way and horizon."""
    found = []
    for horizon in (5,) if toy else (20, 50):
        steps = 8 if toy else STEPS
        limits = Constraints.of(2, 1, low=-HIGH, high=HIGH, rate=RATE, x_low=[-np.inf, -SPEED], x_high=[np.inf, SPEED])
        P = MPC.of(A, B, Q, R, limits, horizon=horizon).P
        reference = _run(_written(horizon, P, "CLARABEL", anew=False), steps)[0]
        ways: dict[str, Way] = {}
        for solver in ("CLARABEL", "OSQP"):
            ways[f"dynsys, {solver}"] = _ours(limits, horizon, solver)
            ways[f"cvxpy with parameters, {solver}"] = _written(horizon, P, solver, anew=False)
        ways["cvxpy written anew, CLARABEL"] = _written(horizon, P, "CLARABEL", anew=True)
        for name, way in ways.items():
            inputs, times = _run(way, steps)
            found.append(
                {
                    "way": name,
                    "horizon": horizon,
                    "steps": steps,
                    "first_ms": round(1e3 * times[0], 3),
                    "median_ms": round(1e3 * statistics.median(times[1:]), 3),
                    "worst_ms": round(1e3 * max(times[1:]), 3),
                    "error": float(f"{np.abs(inputs - reference).max():.1e}"),
                    "load": round(os.getloadavg()[0], 1),
                }
            )
    return found


def _run(way: Way, steps: int) -> tuple[np.ndarray, list[float]]:
    x, u, inputs, times = np.array([1.0, 0.0]), np.zeros(1), [], []
    for _ in range(steps):
        began = time.perf_counter()
        u = way(x, u)
        times.append(time.perf_counter() - began)
        inputs.append(u)
        x = A @ x + B @ u
    return np.stack(inputs), times


def _ours(limits: Constraints, horizon: int, solver: str) -> Way:
    controller = MPC.of(A, B, Q, R, limits, horizon=horizon, solver=solver)
    states = [controller.init()]

    def act(x: np.ndarray, before: np.ndarray) -> np.ndarray:
        u, states[0] = controller.act(x, states[0])
        return u

    return act


def _written(horizon: int, P: np.ndarray, solver: str, anew: bool) -> Way:
    accurate = {"eps_abs": 1e-8, "eps_rel": 1e-8, "max_iter": 20_000} if solver == "OSQP" else {}
    kept: list[Any] = []

    def write() -> tuple[Any, ...]:
        X, U, start, last = cp.Variable((horizon + 1, 2)), cp.Variable((horizon, 1)), cp.Parameter(2), cp.Parameter(1)
        limits = [X[0] == start, X[1:] == X[:-1] @ A.T + U @ B.T, cp.abs(U) <= HIGH, cp.abs(X[1:, 1]) <= SPEED]
        limits += [cp.abs(U[0] - last) <= RATE, cp.abs(U[1:] - U[:-1]) <= RATE]
        cost = cp.sum_squares(X[:-1] @ np.sqrt(Q)) + cp.sum_squares(U @ np.sqrt(R)) + cp.quad_form(X[horizon], cp.psd_wrap(P))
        return cp.Problem(cp.Minimize(cost), limits), U, start, last

    def act(x: np.ndarray, before: np.ndarray) -> np.ndarray:
        if anew or not kept:
            kept[:] = write()
        problem, U, start, last = kept
        start.value, last.value = x, before
        problem.solve(solver=solver, warm_start=True, **accurate)
        return np.array(U.value[0])

    return act


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="tiny sizes: does it run?")
    for row in rows(parser.parse_args().toy):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

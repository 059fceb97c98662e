"""Learned locally-linear iLQR: how far from the optimum after how many rollouts, and how long an iteration takes.

Two problems over T = 25 steps, ten random starts each, from inputs that hold the system at rest; no limits on the inputs:

    pendulum    theta'' = sin theta + u (theta = 0 upright), Euler's method, dt = 0.2;  N = 20, sigma = 1e-3
                J = sum theta^2 + omega^2 / 2 + u^2, the same at the end;  starts pi + U(-1, 1), U(-1, 1): a swing-up
    quadrotor   x'' = -u1 sin theta, y'' = u1 cos theta - 9.81, theta'' = u2, Euler's method, dt = 0.1;  N = 100, sigma = 1e-4
                J = sum |(x, y, theta)|^2 + 0.1 |velocities|^2 + 0.1 |u - (9.81, 0)|^2, ten times the terms in the state at the end;
                starts U(-2, 2) for x and y, U(-1, 1) for the others

T, the integrator, dt of the pendulum, N and sigma are those of Pfrommer, Simchowitz, Westenbroek, Matni, Tu, ICML 2023; the equations'
constants, dt of the quadrotor, weights and starts are this program's. The optimum of a start is the best of nine searches by iLQR on the
true model. Searches: `published` with and without gains, by both estimators of the paper (Adam; learning rate 0.1 and 1.0 for the
pendulum and the quadrotor, chosen on other starts), and ours (the metric "cost") with least squares and with few rollouts.

`suboptimality` is the median of J / J* - 1 over the starts, best so far, at each number of rollouts, all counted; `reached` says for how
many starts a search got within 1 %. Time an iteration is that of a compiled search of many iterations without its compilation, median of
several. `--toy`: does it run? One JSON row a search.
"""

import argparse
import json
import platform
import statistics
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from dynsys.control.cost import AbstractCost, Quadratic
from dynsys.control.ilqr import Search, ilqr_starts
from dynsys.control.local_linear import LocalSearch, local_ilqr
from dynsys.dynamics import AbstractFlow, AbstractMap, Discretized
from dynsys.precision import x64

T, STARTS, GRAVITY = 25, 10, 9.81
BUDGETS = (100, 200, 500, 1000, 2000, 5000, 10_000, 25_000, 50_000)


class Pendulum(AbstractFlow):
    """theta'' = sin theta + u."""

    dim: int = eqx.field(static=True, default=2)
    n_inputs: int = eqx.field(static=True, default=1)

    def field(self, t: Any, z: Any, u: Any = None) -> Any:
        """As above."""
        return jnp.stack([z[1], jnp.sin(z[0]) + u[0]])


class Quadrotor(AbstractFlow):
    """A planar quadrotor of unit mass and inertia: thrust u1, torque u2."""

    dim: int = eqx.field(static=True, default=6)
    n_inputs: int = eqx.field(static=True, default=2)

    def field(self, t: Any, z: Any, u: Any = None) -> Any:
        """As above."""
        return jnp.concatenate([z[3:], jnp.stack([-u[0] * jnp.sin(z[2]), u[0] * jnp.cos(z[2]) - GRAVITY, u[1]])])


def euler(flow: AbstractFlow, t: Any, z: Any, u: Any, dt: Any) -> Any:
    """One step of Euler's method."""
    return z + dt * flow.field(t, z, u)


class Problem(eqx.Module):
    """A system, its cost, starts (S, M), first inputs (T, K), and the optimum of each start (S,)."""

    name: str
    model: AbstractMap
    cost: AbstractCost
    starts: np.ndarray
    rest: np.ndarray
    best: np.ndarray


def problems(n_starts: int) -> list[Problem]:
    """Both, with their optima."""
    rng = np.random.default_rng(2)
    pendulum = np.stack([np.pi + rng.uniform(-1, 1, n_starts), rng.uniform(-1, 1, n_starts)], axis=1)
    quadrotor = np.concatenate([rng.uniform(-2, 2, (n_starts, 2)), rng.uniform(-1, 1, (n_starts, 4))], axis=1)
    weights = np.array([1.0, 1.0, 1.0, 0.1, 0.1, 0.1])
    return [
        _solved("pendulum", Pendulum(), 0.2, Quadratic.of([1.0, 0.5], [1.0]), pendulum, np.zeros((T, 1))),
        _solved(
            "quadrotor",
            Quadrotor(),
            0.1,
            Quadratic.of(weights, [0.1, 0.1], 10 * weights, rest=[GRAVITY, 0.0]),
            quadrotor,
            np.tile([GRAVITY, 0.0], (T, 1)),
        ),
    ]


def _solved(name: str, flow: AbstractFlow, dt: float, cost: AbstractCost, starts: np.ndarray, rest: np.ndarray) -> Problem:
    model = Discretized(flow, dt, euler)  # pyright: ignore[reportCallIssue]
    noise = np.random.default_rng(1).normal(size=(8, *rest.shape))
    guesses = np.concatenate([rest[None], rest[None] + noise])
    search = Search(iterations=500, on="states", tolerance=1e-13)
    best = [ilqr_starts(model, cost, start, guesses, search=search)[0].cost for start in starts]
    return Problem(name, model, cost, starts, rest, np.array(best))


def searches(problem: Problem, toy: bool) -> dict[str, LocalSearch]:
    """What is compared, by name."""
    pendulum = problem.name == "pendulum"
    N, sigma = (20, 1e-3) if pendulum else (100, 1e-4)
    size: dict[str, Any] = {"rollouts": N, "sigma": sigma, "iterations": 5 if toy else 480}
    paper = {**size, "optimizer": optax.adam(0.1 if pendulum else 1.0)}
    found = {
        "published": LocalSearch.published(**paper),
        "published, no gains": LocalSearch.published(gains=False, **paper),
        "published, correlation": LocalSearch.published(estimator="correlation", **paper),
        "published, correlation, no gains": LocalSearch.published(estimator="correlation", gains=False, **paper),
        "cost metric": LocalSearch(**{**size, "iterations": 5 if toy else 60}),
        "cost metric, transitions": LocalSearch(
            estimator="transitions", **{**size, "rollouts": 6 if pendulum else 12, "iterations": 5 if toy else 60}
        ),
    }
    return dict(list(found.items())[::4]) if toy else found


def row(problem: Problem, name: str, search: LocalSearch, toy: bool) -> dict[str, Any]:
    """Suboptimality against rollouts, and the time of an iteration."""
    curves, counts = [], np.array([])
    for i, start in enumerate(problem.starts):
        found = local_ilqr(problem.model, problem.cost, start, problem.rest, search=search, key=i)
        costs = np.full(search.iterations + 1, np.inf)
        costs[: len(found.costs)] = found.costs
        curves.append(np.minimum.accumulate(costs) / problem.best[i] - 1)
        counts = found.rollouts if len(found.rollouts) > len(counts) else counts
    curves = np.array(curves)
    most = 1 + (search.rollouts + len(search.step_sizes)) * np.arange(search.iterations + 1)
    at = {n: int(np.searchsorted(most, n, side="right")) - 1 for n in BUDGETS if n <= 1.1 * most[-1]}
    return {
        "benchmark": "local-ilqr",
        "problem": problem.name,
        "search": name,
        "rollouts_an_iteration": search.rollouts + len(search.step_sizes),
        "sigma": search.sigma,
        "suboptimality": {str(n): float(f"{np.median(curves[:, i]):.3g}") for n, i in at.items()},
        "worst_at_the_end": float(f"{curves[:, -1].max():.3g}"),
        "reached": int((curves[:, -1] < 0.01).sum()),
        "starts": len(curves),
        "ms_an_iteration": round(_milliseconds(problem, search, toy), 4),
        "device": f"{jax.default_backend()} {platform.machine()}",
    }


def _milliseconds(problem: Problem, search: LocalSearch, toy: bool) -> float:
    """An iteration of a compiled search from the first start, with steps so small that none is ever refused."""
    from dynsys.control.local_linear import learn, weights_of

    iterations = 5 if toy else 1000
    made = {name: getattr(search, name) for name in ("rollouts", "sigma", "estimator", "gains", "metric", "step_sizes")}
    timed = LocalSearch(iterations=iterations, optimizer=optax.adam(1e-6), **made)
    T, K = problem.rest.shape
    with x64():
        z, us, none = jnp.asarray(problem.starts[0]), jnp.asarray(problem.rest), jnp.full(K, jnp.inf)
        weights = weights_of("bench", timed, T, z.size, K)
        times = []
        for _ in range(2 if toy else 12):
            began = time.perf_counter()
            jax.block_until_ready(learn(problem.model, problem.cost, z, us, -none, none, timed, weights, jr.key(0)))
            times.append(1e3 * (time.perf_counter() - began) / iterations)
    return statistics.median(times[1:])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="few starts and iterations: does it run?")
    toy = parser.parse_args().toy
    for problem in problems(2 if toy else STARTS):
        for name, search in searches(problem, toy).items():
            print(json.dumps(row(problem, name, search, toy)), flush=True)

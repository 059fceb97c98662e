"""Swing-ups by iLQR with exact input limits, from random first inputs: how often the goal is reached, at what cost, and how long it takes.

Problems: T = 100 steps of dt = 0.05, Runge-Kutta of order four, from hanging at rest. Inputs u in [-1, 1] are shares of the limit.

    cart-pole  masses 1 and 0.1, point mass at length 0.5, |F| <= 10, g = 9.81;  J = 1/2 (sum 0.1 |x|^2 + 0.01 u^2) + 1/2 1000 |x_T|^2
    pendulum   Gymnasium's constants, |torque| <= 2;  J = 1/2 (sum theta^2 + 0.1 omega^2 + 0.1 u^2) + 1/2 1000 |x_T|^2

x is the distance from standing upright at rest, angles unwrapped. First inputs: tanh(s N(0, 1)) for s = 0.01, 0.1 and 1. The settings
were chosen on starts of other keys. `reach`: every component of the last state within 0.1 of the goal. `within_5_percent`: J at most 1.05
times the best known. Ways: "reach" and "cost" are `ilqr_through` (easier weights first; they differ in weights and iterations), "alone" is
`ilqr` on the problem itself. Rival: a textbook Gauss-Newton iLQR in JAX, compiled whole, inputs squashed by tanh, backtracking line search
and Levenberg's regularisation, in float32 and float64; its cost charges v, where u = tanh(v), as is usual with such planners, or u. Its J
is that of the problem above. ms: median and largest over the starts, one solve at a time, compiled before, conversion of the result
included; cpu_ms: processor time a solve. XLA runs loops of more than 1 KiB a step piece by piece; the environment variable
XLA_FLAGS=--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=65536 has it compile them whole. `--toy` makes everything
small. One JSON row a case.
"""

import argparse
import functools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from dynsys.control.continuation import ilqr_through
from dynsys.control.cost import Quadratic
from dynsys.control.ilqr import Search, ilqr, total, trajectory
from dynsys.dynamics import AbstractFlow, Discretized
from dynsys.precision import x64

STEPS, STARTS, SCALES, HELD_OUT = 100, 64, (0.01, 0.1, 1.0), 2026
BEST_KNOWN = {"cart-pole": 28.602, "pendulum": 217.381}  # by searches from several hundred starts and several ways to ease the weights


class CartPole(AbstractFlow):
    """(place, angle from upright, and their rates); a point mass on a massless rod."""

    dim: int = eqx.field(static=True, default=4)
    n_inputs: int = eqx.field(static=True, default=1)

    def field(self, t: Any, z: Any, u: Any = None) -> Any:
        """(M + m sin^2) x'' = F + m sin (l w^2 - g cos),  l theta'' = g sin - x'' cos."""
        M, m, length, g = 1.0, 0.1, 0.5, 9.81
        _, theta, v, w = z
        s, c = jnp.sin(theta), jnp.cos(theta)
        a = (10.0 * u[0] + m * s * (length * w**2 - g * c)) / (M + m * s**2)
        return jnp.stack([v, w, a, (g * s - a * c) / length])


class Pendulum(AbstractFlow):
    """theta'' = 3 g / (2 l) sin theta + 3 / (m l^2) torque, with g = 10, m = l = 1 and torque = 2 u."""

    dim: int = eqx.field(static=True, default=2)
    n_inputs: int = eqx.field(static=True, default=1)

    def field(self, t: Any, z: Any, u: Any = None) -> Any:
        """As above."""
        return jnp.stack([z[1], 15.0 * jnp.sin(z[0]) + 6.0 * u[0]])


def problem(name: str) -> tuple[Discretized, Quadratic, np.ndarray]:
    """Model, cost and start."""
    if name == "cart-pole":
        cost = Quadratic.of([0.05] * 4, [0.005], [500.0] * 4)
        return Discretized(CartPole(), 0.05), cost, np.array([0.0, np.pi, 0.0, 0.0])  # pyright: ignore[reportCallIssue]
    cost = Quadratic.of([0.5, 0.05], [0.05], [500.0] * 2)
    return Discretized(Pendulum(), 0.05), cost, np.array([np.pi, 0.0])  # pyright: ignore[reportCallIssue]


def ways(name: str, toy: bool) -> dict[str, Callable[..., Any]]:
    """How to plan: way -> (model, cost, start, inputs) -> Plan."""

    def search(iterations: int, tolerance: float = 1e-6) -> Search:
        return Search(iterations=5 if toy else iterations, on="states", mu=1e-6, factor=2.0, tolerance=tolerance)

    def through(first: dict[str, float], *iterations: int) -> Callable[..., Any]:
        def plan(model: Any, cost: Any, start: Any, inputs: Any) -> Any:
            middle = [(cost.weighted(inputs=10.0), search(iterations[1]))] if len(iterations) == 3 else []
            stages = [(cost.weighted(**first), search(iterations[0], 1e-8)), *middle, (cost, search(iterations[-1]))]
            return ilqr_through(model, stages, start, inputs, low=-1.0, high=1.0)

        return plan

    def alone(model: Any, cost: Any, start: Any, inputs: Any) -> Any:
        return ilqr(model, cost, start, inputs, low=-1.0, high=1.0, search=search(500, 1e-8))

    if name == "cart-pole":
        return {
            "reach": through({"inputs": 100.0, "end": 0.1}, 60, 5),
            "cost": through({"inputs": 30.0, "end": 0.1}, 450, 60, 30),
            "alone": alone,
        }
    return {"reach": through({"inputs": 10.0, "end": 0.1}, 30, 30), "alone": alone}


def textbook(model: Discretized, cost: Quadratic, start: Any, vs: Any, iterations: int, squashed: bool) -> Any:
    """Gauss-Newton iLQR for v with u = tanh(v); backward pass, then step sizes 1, 1/2 ... until the cost falls.

    Returns v and the iterations. mu, added to Q_vv, doubles where the backward pass or the line search fails and halves where they succeed.
    """
    M = model.dim

    def step(z: Any, v: Any) -> Any:
        return model.step(z, jnp.tanh(v))

    def stage(z: Any, v: Any) -> Any:
        return cost.stage(z, jnp.tanh(v) if squashed else v, 0)

    def run(zs: Any, vs: Any, k: Any, K: Any, alpha: Any) -> Any:
        def advance(z: Any, now: Any) -> Any:
            old, v, k, K = now
            v = v + alpha * k + K @ (z - old)
            after = step(z, v)
            return after, (after, v)

        _, (rest, vs) = jax.lax.scan(advance, zs[0], (zs[:-1], vs, k, K))
        zs = jnp.concatenate([zs[:1], rest])
        return zs, vs, jnp.sum(jax.vmap(stage)(zs[:-1], vs)) + cost.final(zs[-1])

    def improve(state: Any) -> Any:
        zs, vs, J, mu, i, _ = state
        A, B = jax.vmap(jax.jacfwd(step, (0, 1)))(zs[:-1], vs)
        lz, lv = jax.vmap(jax.grad(stage, (0, 1)))(zs[:-1], vs)
        (lzz, _), (lvz, lvv) = jax.vmap(jax.hessian(stage, (0, 1)))(zs[:-1], vs)

        def back(value: Any, now: Any) -> Any:
            V1, V2 = value
            A, B, lz, lv, lzz, lvz, lvv = now
            Qz, Qv = lz + A.T @ V1, lv + B.T @ V1
            Qzz, Qvz, Qvv = lzz + A.T @ V2 @ A, lvz + B.T @ V2 @ A, lvv + B.T @ V2 @ B
            H = Qvv + mu * jnp.eye(len(Qv), dtype=mu.dtype)
            k, K = -Qv / H[0], -Qvz / H
            V1 = Qz + K.T @ (Qvv @ k + Qv) + Qvz.T @ k
            V2 = Qzz + K.T @ Qvv @ K + K.T @ Qvz + Qvz.T @ K
            return (V1, 0.5 * (V2 + V2.T)), (k, K, H[0, 0], k @ Qv)

        value = jax.grad(cost.final)(zs[-1]), jax.hessian(cost.final)(zs[-1])
        _, (k, K, H, slope) = jax.lax.scan(back, value, (A, B, lz, lv, lzz, lvz, lvv), reverse=True)
        sound, slope = jnp.all(H > 0), jnp.sum(slope)

        def shorter(now: Any) -> Any:
            alpha = 0.5 * now[0]
            return alpha, run(zs, vs, k, K, alpha)

        def wanted(now: Any) -> Any:
            alpha, (_, _, value) = now
            return sound & ~(value < J + 1e-4 * alpha * slope) & (alpha > 1e-4)

        one = jnp.ones((), mu.dtype)
        alpha, (zs_new, vs_new, J_new) = jax.lax.while_loop(wanted, shorter, (one, run(zs, vs, k, K, one)))
        took = sound & (J_new < J + 1e-4 * alpha * slope)
        done = (took & (J - J_new < 1e-7 * (1 + J)) & (mu < 1e-4)) | (mu > 1e8)
        keep = functools.partial(jnp.where, took)
        return keep(zs_new, zs), keep(vs_new, vs), keep(J_new, J), jnp.where(took, mu / 2, jnp.maximum(2 * mu, 1e-6)), i + 1, done

    zs, vs, J = run(jnp.tile(start[None], (len(vs) + 1, 1)), vs, 0 * vs, jnp.zeros((*vs.shape, M), vs.dtype), 0.0)
    first = (zs, vs, J, jnp.asarray(1e-6, vs.dtype), 0, jnp.asarray(False))
    found = jax.lax.while_loop(lambda now: ~now[5] & (now[4] < iterations), improve, first)
    return found[1], found[4]


def rows(toy: bool, short: bool = False) -> Iterator[dict[str, Any]]:
    """One row a problem, scale and way; short: the ways "reach" and "cost" only, for timings on an idle machine."""
    count, scales = (2, SCALES[:1]) if toy else (STARTS, SCALES)
    for name in ("cart-pole", "pendulum"):
        with x64():
            model, cost, start = problem(name)
            draws = {s: np.tanh(s * np.asarray(jr.normal(jr.key(HELD_OUT), (count, STEPS, 1)))) for s in scales}
            judge = eqx.filter_jit(lambda us, m=model, c=cost, z=start: _judged(m, c, jnp.asarray(z), us))
        found = []
        for way, plan in ways(name, toy).items():
            for s in () if short and way == "alone" else scales:
                found.append(_row(name, way, "float64", s, draws[s], functools.partial(plan, model, cost, start), judge))
        for squashed in () if short else (False, True):
            for precision in ("float64",) if toy else ("float32", "float64"):
                rival = _rival(model, cost, start, precision, squashed, 5 if toy else 500)
                way = "textbook, u costs" if squashed else "textbook, v costs"
                for s in scales:
                    found.append(_row(name, way, precision, s, draws[s], rival, judge))
        best = min(BEST_KNOWN[name], *(row["costs"].min() for row in found))
        for row in found:
            share = 100.0 * float(np.mean(row.pop("costs") <= 1.05 * best))
            yield {**row, "best_known": round(float(best), 3), "within_5_percent": round(share, 1)}


class _Found:
    """What the rival found, in the words of a Plan."""

    def __init__(self, inputs: Any, iterations: Any):
        self.inputs, self.iterations = np.asarray(inputs), int(iterations)


def _rival(model: Any, cost: Any, start: Any, precision: str, squashed: bool, iterations: int) -> Callable[..., Any]:
    single = precision == "float32"
    with x64():
        cost = jax.tree.map(lambda leaf: leaf.astype(precision), cost)

    @jax.jit
    def solve(vs: Any) -> Any:
        vs, spent = textbook(model, cost, jnp.asarray(start, precision), vs, iterations, squashed)
        return jnp.tanh(vs), spent

    def plan(inputs: Any) -> Any:
        with x64(not single):
            return _Found(*solve(jnp.asarray(np.arctanh(np.clip(inputs, -0.999999, 0.999999)), precision)))

    return plan


def _judged(model: Any, cost: Any, start: Any, us: Any) -> tuple[Any, Any]:
    zs = trajectory(model, start, us)
    return total(model, cost, zs, us), jnp.max(jnp.abs(zs[-1]))


def _row(name: str, way: str, precision: str, scale: float, draws: Any, plan: Any, judge: Any) -> dict[str, Any]:
    began = time.perf_counter()
    plan(draws[0])
    first = time.perf_counter() - began
    ms, costs, ends, iterations = [], [], [], []
    busy = time.process_time()
    for us in draws:
        began = time.perf_counter()
        made = plan(us)
        ms.append(1e3 * (time.perf_counter() - began))
        iterations.append(made.iterations)
        ends.append(np.asarray(made.inputs))
    busy = 1e3 * (time.process_time() - busy) / len(draws)
    with x64():
        judged = [judge(jnp.asarray(us, float)) for us in ends]
    costs, off = (np.nan_to_num(np.array([float(j[i]) for j in judged]), nan=np.inf) for i in (0, 1))
    return {
        "benchmark": "ilqr",
        "problem": name,
        "way": way,
        "precision": precision,
        "scale": scale,
        "starts": len(draws),
        "reach": round(100.0 * float(np.mean(off < 0.1)), 1),
        "cost_median": round(float(np.median(costs)), 3),
        "cost_90": round(float(np.quantile(costs, 0.9)), 3),
        "costs": costs,
        "iterations_median": statistics.median(iterations),
        "ms": round(statistics.median(ms), 2),
        "ms_largest": round(max(ms), 2),
        "ms_least": round(min(ms), 2),
        "cpu_ms": round(busy, 2),
        "first_call_s": round(first, 2),
        "largest_input": max(float(np.max(np.abs(us))) for us in ends),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "device": f"{jax.default_backend()} {platform.machine()}",
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="small sizes: does it run?")
    parser.add_argument("--short", action="store_true", help="only the ways 'reach' and 'cost'")
    chosen = parser.parse_args()
    for row in rows(chosen.toy, chosen.short):
        print(json.dumps(row), flush=True)

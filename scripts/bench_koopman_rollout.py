"""A latent rollout of the diagonal Koopman model, by powers of its eigenvalues and step by step: the same numbers, and how long it takes.

    sequential   jit(vmap(lax.scan of model.step))         parallel   jit(vmap(model.orbit))

Both give the states (batch, steps, L) of the same model from the same starts in float32. They are timed in turns of 12 calls in one
process: `ms` is the median of each, `least_ms` the smallest, `ratio` that of the medians. `error` is the largest difference between the
two, `relative` the same over the largest state. Cases: D complex eigenvalues (L = 2 D) with and without inputs, and the gradient of a
training loss along a free run of 1,000 steps (`forced_run`, whose sequential form is its hand-made reverse pass; a driven model is
trained by that alone). `--toy` makes everything small. One JSON row a case.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from dynsys.dynamics import AbstractMap
from dynsys.models.koopman.diagonal import DiagonalKoopman
from dynsys.train.forced import forced_run
from dynsys.train.forcing import FreeRunning, SparseForcing

BATCH, STEPS, OBSERVED = 32, 1000, 3


def rows(toy: bool) -> list[dict[str, Any]]:
    """One row a case; small ones if `toy`."""
    steps, batch, sizes = (50, 4, (4,)) if toy else (STEPS, BATCH, (32, 64))
    found = [_rollout_row(modes, n_inputs, batch, steps) for modes in sizes for n_inputs in (0, 2)]
    return found + [_gradient_row(modes, batch, steps) for modes in sizes]


def _model(modes: int, n_inputs: int) -> DiagonalKoopman:
    model = DiagonalKoopman.init(OBSERVED, n_inputs, modes=modes, hidden=16, depth=1, key=jr.key(0))
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, model)


def _rollout_row(modes: int, n_inputs: int, batch: int, steps: int) -> dict[str, Any]:
    model = _model(modes, n_inputs)
    starts = jr.normal(jr.key(1), (batch, model.dim), jnp.float32)
    inputs = jr.normal(jr.key(2), (batch, steps, n_inputs), jnp.float32) if n_inputs else None

    arrays, static = eqx.partition(model, eqx.is_array)
    axes = (0, 0 if n_inputs else None)

    @jax.jit
    def sequential(arrays: Any, starts: Any, inputs: Any) -> Any:
        whole = eqx.combine(arrays, static)
        return jax.vmap(lambda z, u: AbstractMap.orbit(whole, z, steps, u), axes)(starts, inputs)

    @jax.jit
    def parallel(arrays: Any, starts: Any, inputs: Any) -> Any:
        whole = eqx.combine(arrays, static)
        return jax.vmap(lambda z, u: whole.orbit(z, steps, u), axes)(starts, inputs)

    return _row("rollout", modes, n_inputs, batch, steps, {"sequential": sequential, "parallel": parallel}, (arrays, starts, inputs))


def _gradient_row(modes: int, batch: int, steps: int) -> dict[str, Any]:
    model = _model(modes, 0)
    xs = jr.normal(jr.key(3), (steps + 1, batch, OBSERVED), jnp.float32)

    def by(forcing: Any) -> Callable[..., Any]:
        @eqx.filter_jit
        @eqx.filter_grad
        def gradient(model: AbstractMap, xs: Any) -> Any:
            states = forced_run(model, forcing, jnp.zeros((), jnp.float32), xs)
            return jnp.mean((jax.vmap(jax.vmap(model.observe))(states[1:]) - xs[1:]) ** 2)

        return lambda *given: jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradient(*given))])

    ways = {"sequential": by(_Stepwise()), "parallel": by(FreeRunning())}
    return _row("gradient", modes, 0, batch, steps, ways, (model, xs))


class _Stepwise(SparseForcing):
    """A free run that is no FreeRunning, so that it is made step by step."""

    interval: int = eqx.field(static=True, default=1)

    def apply(self, model: AbstractMap, z: Any, x: Any, t: Any, strength: Any) -> Any:
        """z."""
        return z


def _row(what: str, modes: int, n_inputs: int, batch: int, steps: int, ways: dict[str, Any], given: tuple[Any, ...]) -> dict[str, Any]:
    made = {name: np.asarray(way(*given)) for name, way in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    rounds, calls = (1, 3) if steps < STEPS else (7, 12)
    for _ in range(rounds):
        for name, way in ways.items():
            jax.block_until_ready(way(*given))  # so that the allocator holds memory of this size
            for _ in range(calls):
                began = time.perf_counter()
                jax.block_until_ready(way(*given))
                times[name].append(1e3 * (time.perf_counter() - began))
    ms = {name: statistics.median(values) for name, values in times.items()}
    ratio = ms["sequential"] / ms["parallel"]
    error = float(np.max(np.abs(made["parallel"] - made["sequential"])))
    return {
        "benchmark": "koopman-rollout",
        "case": what,
        "modes": modes,
        "latent": 2 * modes,
        "inputs": n_inputs,
        "batch": batch,
        "steps": steps,
        "sequential_ms": round(ms["sequential"], 3),
        "parallel_ms": round(ms["parallel"], 3),
        "sequential_least_ms": round(min(times["sequential"]), 3),
        "parallel_least_ms": round(min(times["parallel"]), 3),
        "ratio": round(ratio, 2),
        "error": error,
        "relative": error / float(np.max(np.abs(made["sequential"]))),
        "device": f"{jax.default_backend()} {platform.machine()}",
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="small sizes: does it run?")
    for row in rows(parser.parse_args().toy):
        print(json.dumps(row), flush=True)

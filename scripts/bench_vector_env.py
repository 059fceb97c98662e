"""Environment steps per second of many pendulums, with automatic resets: one compiled step, the gymnasium interface, gymnasium's own.

    python scripts/bench_vector_env.py

One JSON row a way. `million_steps_per_second` is the median of several runs, `best` the fastest; `step` is one call of the compiled step a
step, `loop` a compiled loop of them, `gymnasium` the interface of gymnasium.vector with NumPy arrays in and out (actions checked, outputs
copied). Actions are the same at each step. `load` is the number of processes that wanted a processor over the last minute, before and
after: a figure taken with more than there are processors says little. gymnasium's SyncVectorEnv runs its Pendulum-v1 one by one, in a
smaller batch that makes no difference to its speed.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from dynsys_envs.batch import Reset, advance, begin
from dynsys_envs.registry import task
from dynsys_envs.vector import VectorEnvironment

BATCH, STEPS, REPEATS, SYNC = 16_384, 200, 7, 16


def rows(toy: bool = False) -> list[dict[str, Any]]:
    """One row a way of stepping; at toy size 64 environments."""
    batch, steps, repeats = (64, 5, 2) if toy else (BATCH, STEPS, REPEATS)
    actions = np.random.default_rng(0).uniform(-2, 2, (batch, 1)).astype(np.float32)
    found: list[dict[str, Any]] = []
    for reset in (Reset.NEXT, Reset.SAME):
        found.append(_row(f"step, autoreset {reset.value}", batch, steps, repeats, _stepper(batch, actions, reset)))
    found.append(_row("loop, autoreset next", batch, steps, repeats, _loop(batch, actions, steps)))
    for mode in ("NextStep", "SameStep"):
        envs = VectorEnvironment("Pendulum", batch, autoreset_mode=mode)
        envs.reset(seed=0)
        found.append(_row(f"gymnasium, {mode}", batch, steps, repeats, _repeated(envs, actions)))
    few = min(batch, SYNC)
    theirs = gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make("Pendulum-v1")] * few)
    theirs.reset(seed=0)
    found.append(_row("gymnasium's SyncVectorEnv of Pendulum-v1", few, min(steps, 50), repeats, _repeated(theirs, actions[:few])))
    return found


def _row(way: str, batch: int, steps: int, repeats: int, run: Callable[[int], None]) -> dict[str, Any]:
    before = os.getloadavg()[0]
    began = time.perf_counter()
    run(1)
    compiled = time.perf_counter() - began
    run(steps)
    rates = []
    for _ in range(repeats):
        began = time.perf_counter()
        run(steps)
        rates.append(batch * steps / (time.perf_counter() - began) / 1e6)
    return {
        "case": "pendulum",
        "way": way,
        "batch": batch,
        "million_steps_per_second": float(f"{statistics.median(rates):.4g}"),
        "best": float(f"{max(rates):.4g}"),
        "first_call_s": round(compiled, 3),
        "processors": os.cpu_count(),
        "load": [round(before, 1), round(os.getloadavg()[0], 1)],
        "device": jax.devices()[0].device_kind,
    }


def _stepper(batch: int, actions: np.ndarray, reset: Reset) -> Callable[[int], None]:
    """Calls of the compiled step, with all that gymnasium would be told among its outputs."""
    environment = task("Pendulum")
    fleet, u = begin(environment, batch), jnp.asarray(actions)

    @jax.jit
    def step(fleet: Any, u: Any) -> Any:
        fleet, outcome = advance(environment, fleet, u, reset=reset)
        told = (outcome.observations, outcome.rewards, outcome.terminated, outcome.truncated)
        return fleet, (*told, outcome.last_observations, outcome.last_states) if reset is Reset.SAME else told

    def run(steps: int) -> None:
        now, told = fleet, None
        for _ in range(steps):
            now, told = step(now, u)
        jax.block_until_ready(told)

    return run


def _loop(batch: int, actions: np.ndarray, longest: int) -> Callable[[int], None]:
    """A compiled loop; the sums of observations and rewards stand for what a program would do with them."""
    environment = task("Pendulum")
    fleet, u = begin(environment, batch), jnp.asarray(actions)

    @jax.jit
    def loop(fleet: Any) -> Any:
        def body(fleet: Any, _: None) -> Any:
            fleet, outcome = advance(environment, fleet, u, reset=Reset.NEXT)
            return fleet, (outcome.observations.sum(0), outcome.rewards.sum())

        return jax.lax.scan(body, fleet, None, length=longest)

    return lambda steps: jax.block_until_ready(loop(fleet)) and None


def _repeated(envs: Any, actions: np.ndarray) -> Callable[[int], None]:
    def run(steps: int) -> None:
        for _ in range(steps):
            envs.step(actions)

    return run


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="tiny sizes: does it run?")
    for row in rows(parser.parse_args().toy):
        print(json.dumps(row))


if __name__ == "__main__":
    main()

"""Local regularisation: how many evaluations of the field a trained neural ODE costs, with and without, and at what test error.

    cubic spiral   dx/dt = A (x^3),  A = [[-0.1, 2], [-2, -0.1]],   x(0) in [-2, 2]^2,   26 points in [0, 2.5]
    field          net(z), 2-50-50-2 with tanh, trained on 64 trajectories by `train_trajectories`, Adam, the same updates for both

Evaluations: one adaptive solve of 64 other trajectories at the tolerance of training; error: root mean square to the truth there, in
units of its standard deviation. One JSON row a seed and weight, then one with the means and their ratio. The problem is that of Chen et
al. (NeurIPS 2018), the regulariser that of Pal, Edelman, Rackauckas (ICML 2023). `--toy` makes everything small.
"""

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from dynsys.dynamics import AbstractFlow
from dynsys.integrate import solve
from dynsys.integrate.differentiable import solve_batch
from dynsys.models.fields import MLPField
from dynsys.train.trajectories import train_trajectories

TOLERANCE = 1e-6


class CubicSpiral(AbstractFlow):
    """The true field."""

    dim: int = eqx.field(static=True, default=2)
    n_inputs: int = eqx.field(static=True, default=0)

    def field(self, t: Any, z: Any, u: Any = None) -> Any:
        """A z^3."""
        cubes = z**3
        return jnp.stack([-0.1 * cubes[0] + 2.0 * cubes[1], -2.0 * cubes[0] - 0.1 * cubes[1]])


def trajectories(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Times (T,) and exact states (B, T, 2)."""
    starts = np.random.default_rng(seed).uniform(-2, 2, (count, 2))
    times = np.linspace(0.0, 2.5, 26)
    return times, np.asarray(solve(CubicSpiral(), starts, times).states)


def row(seed: int, weight: float, toy: bool) -> dict[str, Any]:
    """Train once; evaluations and error on trajectories that were not trained on."""
    times, train = trajectories(4 if toy else 64, seed)
    _, test = trajectories(4 if toy else 64, 1000 + seed)
    field = MLPField.init(2, hidden=8 if toy else 50, key=jr.key(seed))
    steps = 5 if toy else 2500
    optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, steps, 0.01))
    options = {"rtol": TOLERANCE, "atol": TOLERANCE, "batch": 128, "segment": 5, "steps": steps, "optimizer": optimizer}
    begun, used = time.perf_counter(), time.process_time()
    fit = train_trajectories(field, train, times, regularise=weight, key=jr.key(seed), **options)
    jax.block_until_ready(fit.losses)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - used
    found = solve_batch(fit.flow, jnp.asarray(test[:, 0], jnp.float32), times, rtol=TOLERANCE, atol=TOLERANCE)
    error = float(np.sqrt(np.mean((np.asarray(found.states) - test) ** 2)) / np.std(test))
    facts = {"evaluations": int(found.evaluations), "test_error": error, "status": fit.status.value, "skipped": int(fit.skipped)}
    return {"case": "cubic-spiral", "seed": seed, "weight": weight, **facts, "seconds": seconds, "cpu_s": cpu}


def rows(weights: tuple[float, ...], seeds: int = 3, toy: bool = False) -> Iterator[dict[str, Any]]:
    """One row a seed and weight (the first of which should be 0), then for every other weight the means beside those of the first."""
    made: dict[float, list[dict[str, Any]]] = {weight: [] for weight in weights}
    for seed in range(1 if toy else seeds):
        for weight in weights:
            made[weight].append(row(seed, weight, toy))
            yield made[weight][-1]
    mean = {weight: {k: float(np.mean([r[k] for r in found])) for k in ("evaluations", "test_error")} for weight, found in made.items()}
    for weight in weights[1:]:
        ratios = {f"{name}_ratio": mean[weight][name] / mean[weights[0]][name] for name in mean[weight]}
        yield {"case": "cubic-spiral, mean", "weight": weight, **mean[weight], **ratios, "target": 0.75}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--toy", action="store_true", help="tiny sizes: does it run?")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 1e-4])
    given = parser.parse_args()
    for found in rows(tuple(given.weights), given.seeds, given.toy):
        print(json.dumps({key: round(value, 6) if isinstance(value, float) else value for key, value in found.items()}), flush=True)


if __name__ == "__main__":
    main()

"""Local regularisation: how many evaluations of the field a trained neural ODE costs, with and without, and at what test error.

    annuli         a disc (radius < 1) and a ring around it (1.3 to 1.8) as x(0) in the plane; at t = 1 the first state must be -1 or 1.
                   field net(z), 3-50-50-3 with tanh: one state more, which starts at 0. 256 points train, 512 others test.
    cubic-spiral   dx/dt = A (x^3),  A = [[-0.1, 2], [-2, -0.1]],   x(0) in [-2, 2]^2,   26 points in [0, 2.5]
                   field net(z), 2-50-50-2 with tanh, trained on 64 trajectories; 64 others test. The true field itself costs much to solve.

Both are trained by `train_trajectories` with Adam, the same updates with and without. Evaluations: one adaptive solve of the test set at
the tolerance of training; error: root mean square there, in units of the standard deviation of the truth. One JSON row a seed and
weight, then one with the means and their ratio. The problems are those of Dupont et al. (NeurIPS 2019) and Chen et al. (NeurIPS 2018),
the regulariser that of Pal, Edelman, Rackauckas (ICML 2023). `--toy` makes everything small.
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

TOLERANCES = {"annuli": 1e-5, "cubic-spiral": 1e-6}


class CubicSpiral(AbstractFlow):
    """The true field."""

    dim: int = eqx.field(static=True, default=2)
    n_inputs: int = eqx.field(static=True, default=0)

    def field(self, t: Any, z: Any, u: Any = None) -> Any:
        """A z^3."""
        cubes = z**3
        return jnp.stack([-0.1 * cubes[0] + 2.0 * cubes[1], -2.0 * cubes[0] - 0.1 * cubes[1]])


def spirals(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Times (T,) and exact states (B, T, 2)."""
    starts = np.random.default_rng(seed).uniform(-2, 2, (count, 2))
    times = np.linspace(0.0, 2.5, 26)
    return times, np.asarray(solve(CubicSpiral(), starts, times).states)


def annuli(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Times (2,) and series (B, 2, 2): a point of the plane, then its label; the second column is not known at the end."""
    rng = np.random.default_rng(seed)
    inner = rng.random(count) < 0.5
    radius = np.sqrt(np.where(inner, rng.uniform(0, 1, count), rng.uniform(1.3**2, 1.8**2, count)))
    angle = rng.uniform(0, 2 * np.pi, count)
    start = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    end = np.stack([np.where(inner, -1.0, 1.0), np.full(count, np.nan)], axis=1)
    return np.array([0.0, 1.0]), np.stack([start, end], axis=1)


def row(problem: str, seed: int, weight: float, toy: bool) -> dict[str, Any]:
    """Train once; evaluations and error on a test set."""
    tolerance, hidden, steps = TOLERANCES[problem], 8 if toy else 50, 5 if toy else 1500 if problem == "annuli" else 2500
    if problem == "annuli":
        (times, train), (_, test) = annuli(8 if toy else 256, seed), annuli(8 if toy else 512, 1000 + seed)
        field, segment = MLPField.init(3, hidden=hidden, scale=1.0, key=jr.key(seed)), None
    else:
        (times, train), (_, test) = spirals(4 if toy else 64, seed), spirals(4 if toy else 64, 1000 + seed)
        field, segment = MLPField.init(2, hidden=hidden, key=jr.key(seed)), 5
    optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, steps, 0.01))
    options = {"rtol": tolerance, "atol": tolerance, "batch": 128, "segment": segment, "steps": steps, "optimizer": optimizer}
    begun, used = time.perf_counter(), time.process_time()
    fit = train_trajectories(field, train, times, regularise=weight, key=jr.key(seed), **options)
    jax.block_until_ready(fit.losses)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - used
    starts = np.zeros((len(test), field.dim), np.float32)
    starts[:, :2] = test[:, 0]
    found = solve_batch(fit.flow, jnp.asarray(starts), times, rtol=tolerance, atol=tolerance)
    made, true = np.asarray(found.states)[:, 1:, :2], test[:, 1:]
    error = float(np.sqrt(np.nanmean((made - true) ** 2)) / np.nanstd(true))
    facts = {"evaluations": int(found.evaluations), "test_error": error, "status": fit.status.value, "skipped": int(fit.skipped)}
    return {"case": problem, "seed": seed, "weight": weight, **facts, "seconds": seconds, "cpu_s": cpu}


def rows(problem: str, weights: tuple[float, ...], seeds: int = 3, toy: bool = False) -> Iterator[dict[str, Any]]:
    """One row a seed and weight (the first of which should be 0), then for every other weight the means beside those of the first."""
    made: dict[float, list[dict[str, Any]]] = {weight: [] for weight in weights}
    for seed in range(1 if toy else seeds):
        for weight in weights:
            made[weight].append(row(problem, seed, weight, toy))
            yield made[weight][-1]
    mean = {weight: {k: float(np.mean([r[k] for r in found])) for k in ("evaluations", "test_error")} for weight, found in made.items()}
    for weight in weights[1:]:
        ratios = {f"{name}_ratio": mean[weight][name] / mean[weights[0]][name] for name in mean[weight]}
        yield {"case": f"{problem}, mean", "weight": weight, **mean[weight], **ratios, "target": 0.75}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--toy", action="store_true", help="tiny sizes: does it run?")
    parser.add_argument("--problem", choices=sorted(TOLERANCES), default="annuli")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 0.03, 0.1])
    given = parser.parse_args()
    for found in rows(given.problem, tuple(given.weights), given.seeds, given.toy):
        print(json.dumps({key: round(value, 6) if isinstance(value, float) else value for key, value in found.items()}), flush=True)


if __name__ == "__main__":
    main()

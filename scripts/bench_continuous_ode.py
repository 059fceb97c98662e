"""Neural ODEs beside torchdiffeq: forward, backward and Adam update of one adaptive solve, in one process, from the same weights.

    dz/dt = net(z), 3-64-64-3 with tanh, 64 starts, 50 times in [0, 1], rtol = atol = 1e-5, float32, loss = mean square to targets

Ours: `solve_batch` (Tsitouras 5(4)), each adjoint. Theirs: `odeint` and `odeint_adjoint` (dopri5) at 1 and at 2 threads, of which the
faster counts. Blocks of both are timed by turns, so that other load meets both; losses are compared before. `rows(toy)` gives one
dictionary a case; the command prints them as JSON, one a line. `--toy` makes everything small.
"""

import argparse
import json
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
import optax

from dynsys.integrate.differentiable import solve_batch
from dynsys.models.fields import MLPField

TOLERANCE, RATE, BLOCK = 1e-5, 1e-3, 4
TARGETS = {"odeint": 6.0, "odeint_adjoint": 7.0}


def problem(toy: bool) -> dict[str, Any]:
    """The field (its last layer not shrunk, so that the solve has something to do), starts, times and targets."""
    hidden, batch, points = (8, 4, 5) if toy else (64, 64, 50)
    rng = np.random.default_rng(0)
    return {
        "flow": MLPField.init(3, hidden=hidden, scale=1.0, key=jr.key(0)),
        "z0": rng.normal(size=(batch, 3)).astype(np.float32),
        "times": np.linspace(0.0, 1.0, points).astype(np.float32),
        "target": rng.normal(size=(batch, points, 3)).astype(np.float32),
    }


def ours(given: dict[str, Any], adjoint: str) -> tuple[Callable[[], Any], dict[str, Any]]:
    """An update that keeps its state, and its first loss, evaluations and seconds of compiling."""
    z0, times, target = (jnp.asarray(given[name]) for name in ("z0", "times", "target"))
    params, static = eqx.partition(given["flow"], eqx.is_inexact_array)
    optimizer = optax.adam(RATE)
    longest = 64 if adjoint == "direct" else 1000

    @jax.jit
    def update(params: Any, state: Any) -> Any:
        def loss(params: Any) -> Any:
            found = solve_batch(eqx.combine(params, static), z0, times, rtol=TOLERANCE, atol=TOLERANCE, adjoint=adjoint, max_steps=longest)
            return jnp.mean((found.states - target) ** 2), found.evaluations

        (value, evaluations), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        moves, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, moves), state, value, evaluations

    begun = time.perf_counter()
    kept = [*jax.block_until_ready(update(params, optimizer.init(params)))]
    facts = {"loss": float(kept[2]), "evaluations": int(kept[3]), "compile_s": round(time.perf_counter() - begun, 1)}

    def step() -> None:
        kept[:] = jax.block_until_ready(update(kept[0], kept[1]))

    return step, facts


def theirs(given: dict[str, Any], name: str) -> tuple[Callable[[], Any], dict[str, Any]]:
    """The same in PyTorch, with the same weights."""
    import torch
    import torchdiffeq

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            as_parameter = lambda a: torch.nn.Parameter(torch.tensor(np.asarray(a)))  # noqa: E731
            self.W = torch.nn.ParameterList([as_parameter(a) for a in given["flow"].W])
            self.b = torch.nn.ParameterList([as_parameter(a) for a in given["flow"].b])
            self.calls = 0

        def forward(self, t: Any, z: Any) -> Any:
            self.calls += 1
            for W, b in zip(self.W[:-1], self.b, strict=False):
                z = torch.tanh(torch.nn.functional.linear(z, W, b))
            return torch.nn.functional.linear(z, self.W[-1], self.b[-1])

    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    z0, times, target = (torch.tensor(given[key]) for key in ("z0", "times", "target"))
    integrate = getattr(torchdiffeq, name)

    def step() -> tuple[float, int, int]:
        net.calls = 0
        optimizer.zero_grad()
        found = integrate(net, z0, times, rtol=TOLERANCE, atol=TOLERANCE, method="dopri5")
        loss = ((found.transpose(0, 1) - target) ** 2).mean()
        forward = net.calls
        loss.backward()
        optimizer.step()
        return loss.item(), forward, net.calls - forward

    loss, forward, backward = step()
    return step, {"loss": loss, "evaluations": forward, "evaluations_backward": backward}


def by_turns(steps: dict[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, float]]:
    """Median and least milliseconds of every step, on the clock and of the processor; blocks of a few steps take turns.

    The first of a block is not counted: the threads of the engine before it are still spinning.
    """
    wall: dict[str, list[float]] = {name: [] for name in steps}
    cpu: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            step()
            for _ in range(BLOCK):
                begun, used = time.perf_counter(), time.process_time()
                step()
                cpu[name].append(1e3 * (time.process_time() - used))
                wall[name].append(1e3 * (time.perf_counter() - begun))
    return {
        name: {"ms": statistics.median(wall[name]), "least_ms": min(wall[name]), "cpu_ms": statistics.median(cpu[name])} for name in steps
    }


def rows(toy: bool = False, rounds: int | None = None) -> Iterator[dict[str, Any]]:
    """One row a solver and adjoint; those of torchdiffeq say how many times longer they take than ours, and what was aimed at."""
    import torch

    given = problem(toy)
    rounds = rounds or (2 if toy else 15)
    facts: dict[str, dict[str, Any]] = {}
    steps: dict[str, Callable[[], Any]] = {}
    for adjoint in ("checkpointed", "direct", "backsolve"):
        steps[adjoint], facts[adjoint] = ours(given, adjoint)
    for threads in (1, 2):
        for name in TARGETS:
            torch.set_num_threads(threads)
            key = f"{name}-{threads}"
            step, facts[key] = theirs(given, name)

            def alone(step: Callable[[], Any] = step, threads: int = threads) -> None:
                torch.set_num_threads(threads)
                step()

            steps[key] = alone
    losses = [fact["loss"] for fact in facts.values()]
    apart = max(losses) - min(losses)
    fast = {key: step for key, step in steps.items() if key == "checkpointed" or key.startswith("odeint-")}
    slow = {key: step for key, step in steps.items() if key not in fast}
    timed = by_turns(fast, rounds) | by_turns({"checkpointed-again": steps["checkpointed"], **slow}, max(3, rounds // 5))
    again = timed.pop("checkpointed-again")
    machine = {"machine": platform.processor() or platform.machine(), "jax": jax.__version__, "torch": torch.__version__}
    for adjoint in ("checkpointed", "direct", "backsolve"):
        yield {"case": f"neural-ode solve_batch {adjoint}", **timed[adjoint], **facts[adjoint], "losses_apart": apart, **machine}
    for name, target in TARGETS.items():
        best = min((f"{name}-{threads}" for threads in (1, 2)), key=lambda key: timed[key]["ms"])
        beside = timed["checkpointed"] if best in fast else again
        ratios = {f"times_{key}": timed[best][key] / beside[key] for key in ("ms", "least_ms", "cpu_ms")}
        row = {"case": f"neural-ode torchdiffeq {name}", "threads": int(best[-1]), **timed[best], **facts[best]}
        yield {**row, **ratios, "target": target, **machine}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--toy", action="store_true", help="tiny sizes: does it run?")
    parser.add_argument("--rounds", type=int, default=None, help="timed blocks of each")
    given = parser.parse_args()
    for row in rows(given.toy, given.rounds):
        print(json.dumps({key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()}))


if __name__ == "__main__":
    main()

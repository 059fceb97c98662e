"""How fast training is: updates a second of `Trainer.advance` against a plain PyTorch loop over time, in one process.

    update = draw 16 windows + forced run + loss + gradient + RAdam, in float32, from the same parameters

PyTorch draws its windows by one index, steps with fused products and additions, takes the loss of all steps at once, and is
timed at 1 and 2 threads, of which the faster counts. Both engines are timed by turns, so that other load meets both. Before,
loss and gradient of one batch are compared. Compiling is timed apart. One JSON row a case and ensemble size, each in a process
of its own, whose peak memory before PyTorch is imported is the row's. `--toy` makes everything small.
"""

import argparse
import dataclasses
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from dynsys.registry import lookup
from dynsys.train.ensemble import usable_cores
from dynsys.train.forcing import AbstractForcing, Constant, GeneralizedForcing, SparseForcing
from dynsys.train.loss import Loss
from dynsys.train.trainer import Plan, Trainer
from dynsys.train.windows import Windows

BATCH, POINTS, RATE = 16, 20_000, 1e-4
SPARSE, DENSE = SparseForcing(16), GeneralizedForcing(Constant(0.15))


@dataclasses.dataclass(frozen=True)
class Case:
    """A model and its windows; `target` is how many times faster than PyTorch one seed should be, None without a rival."""

    model: str
    options: dict[str, int]
    n_obs: int
    window: int
    forcing: AbstractForcing
    ensembles: tuple[int, ...] = (1, 8, 32)
    target: float | None = None


CASES = {
    "alrnn": Case("alrnn", {"dim": 20, "n_relu": 2}, 3, 200, SPARSE, target=20),
    "shallow": Case("shallow-plrnn", {"hidden": 512}, 16, 50, DENSE, target=4),
    "reconstruct-3": Case("clipped-shallow-plrnn", {"hidden": 200}, 3, 100, DENSE, (1, 5)),
    "reconstruct-7": Case("clipped-shallow-plrnn", {"hidden": 200}, 7, 100, DENSE, (1, 4)),
}
TOYS = {
    "alrnn": dataclasses.replace(CASES["alrnn"], window=20, ensembles=(1,)),
    "shallow": dataclasses.replace(CASES["shallow"], window=10, options={"hidden": 32}, ensembles=(1,)),
}


def trainer(case: Case, seeds: int, chunk: int) -> Trainer:
    """The library's own training loop, without clipping because the rival does not clip."""
    series = np.random.default_rng(0).normal(size=(POINTS, case.n_obs))
    models = tuple(lookup("model", case.model).init(case.n_obs, key=jr.key(i), **case.options) for i in range(seeds))
    windows = Windows.of([series], length=case.window)
    plan = Plan(batch=BATCH, chunk=chunk, clip=None)
    return Trainer(models, windows, forcing=case.forcing, optimizer=optax.radam(RATE), plan=plan, key=jr.key(0))


def torch_loss(case: Case) -> Callable[[dict[str, Any], Any], Any]:
    """The loss of a batch (T, B, N) by a loop over time, from parameters by name."""
    import torch

    def alrnn(p: dict[str, Any], xs: Any) -> Any:
        linear, turned = p["A"].shape[0] - case.options["n_relu"], p["W"].t()
        z, seen = torch.nn.functional.pad(xs[0], (0, p["A"].shape[0] - case.n_obs)), []
        for t, x in enumerate(xs[:-1].unbind()):
            if t and t % case.forcing.interval == 0:
                z = torch.cat([x, z[:, case.n_obs :]], 1)
            phi = torch.cat([z[:, :linear], torch.relu(z[:, linear:])], 1)
            z = torch.addcmul(torch.addmm(p["h"], phi, turned), p["A"], z)
            seen.append(z)
        return torch.nn.functional.mse_loss(torch.stack(seen)[:, :, : case.n_obs], xs[1:])

    def shallow(p: dict[str, Any], xs: Any) -> Any:
        W1, W2 = p["W1"].t(), p["W2"].t()
        z, seen = xs[0], []
        for x in xs[:-1].unbind():
            z = torch.lerp(z, x, case.forcing.alpha.value)
            z = torch.addcmul(torch.addmm(p["h1"], torch.relu(torch.addmm(p["h2"], z, W2)), W1), p["A"], z)
            seen.append(z)
        return torch.nn.functional.mse_loss(torch.stack(seen), xs[1:])

    return {"alrnn": alrnn, "shallow-plrnn": shallow}[case.model]


class Rival:
    """The PyTorch trainer of one seed, from the parameters of our first."""

    def __init__(self, case: Case, ours: Trainer):
        import torch

        self.torch, self.loss, self.window = torch, torch_loss(case), case.window
        model = ours.model(ours.params, 0)
        names = [field.name for field in dataclasses.fields(model) if eqx.is_inexact_array(getattr(model, field.name))]
        self.parameters = {name: torch.nn.Parameter(torch.tensor(np.asarray(getattr(model, name)))) for name in names if name != "C"}
        self.series = torch.tensor(np.asarray(ours.source.values))
        self.offsets = torch.arange(case.window)[:, None]
        self.optimizer = torch.optim.RAdam(list(self.parameters.values()), lr=RATE)

    def update(self) -> None:
        """One update of the parameters."""
        starts = self.torch.randint(0, POINTS - self.window + 1, (BATCH,))
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(self.parameters, self.series[starts + self.offsets]).backward()
        self.optimizer.step()

    def compare(self, case: Case, ours: Trainer) -> dict[str, float]:
        """Loss of both on one batch, and how far loss and gradient differ, relative to their size."""
        xs, _ = ours.source.draw(BATCH, key=jr.key(1))
        strength = jnp.asarray(case.forcing.initial(), jnp.float32)
        value = eqx.filter_jit(eqx.filter_value_and_grad(lambda model: Loss()(model, case.forcing, strength, xs, xs, None)))
        mine, gradient = value(ours.model(ours.params, 0))
        self.optimizer.zero_grad(set_to_none=True)
        theirs = self.loss(self.parameters, self.torch.tensor(np.asarray(xs)))
        theirs.backward()
        gaps = [float(np.max(np.abs(getattr(gradient, name) - p.grad.numpy()))) for name, p in self.parameters.items()]
        size = max(float(p.grad.abs().max()) for p in self.parameters.values())
        mine, theirs = float(mine), float(theirs.detach())
        wrong = abs(mine - theirs) / theirs
        if not wrong <= 1e-5:
            raise SystemExit(f"bench_train: the losses differ: {mine} here, {theirs} with PyTorch; the times compare nothing.")
        return {"loss": mine, "loss_torch": theirs, "loss_gap": wrong, "gradient_gap": max(gaps) / size}


def timed(work: Callable[[], Any]) -> float:
    """Seconds that the work takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def measure(name: str, case: Case, seeds: int, chunk: int, rounds: int) -> dict[str, Any]:
    """The row of a case with `seeds` models trained together."""
    ours = trainer(case, seeds, chunk)
    state, first = ours.begin().state, jnp.asarray(0)

    def advance() -> None:
        jax.block_until_ready(ours.advance(state, ours.source, ours.key, first))

    compile_s, times, theirs = timed(advance), [timed(advance)], {1: [], 2: []}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**10 if sys.platform != "darwin" else 2**20)
    row: dict[str, Any] = {"case": name, "model": case.model, **case.options, "n_obs": case.n_obs, "window": case.window}
    row |= {"batch": BATCH, "seeds": seeds, "peak_mb": round(peak)}
    rival = Rival(case, ours) if case.target and seeds == 1 else None
    if rival is not None:
        row |= rival.compare(case, ours)
        rival.update()
    updates = max(2, chunk // 10)
    for _ in range(rounds):
        for threads in theirs if rival else ():
            rival.torch.set_num_threads(threads)
            theirs[threads].append(timed(lambda: [rival.update() for _ in range(updates)]) / updates)
        times.append(timed(advance))
    ms = 1e3 * statistics.median(times) / chunk
    row |= {"ms": round(ms, 3), "ms_best": round(1e3 * min(times) / chunk, 3), "member_updates_per_s": round(1e3 * seeds / ms)}
    row["compile_s"] = round(compile_s - statistics.median(times), 2)
    if rival is not None:
        medians = {threads: 1e3 * statistics.median(of) for threads, of in theirs.items()}
        threads = min(medians, key=medians.__getitem__)
        row |= {"ms_torch": round(medians[threads], 3), "ms_torch_best": round(1e3 * min(theirs[threads]), 3), "torch_threads": threads}
        row |= {"ratio": round(medians[threads] / ms, 2), "target": case.target, "torch": rival.torch.__version__}
    return row | {"jax": jax.__version__, "cpus": usable_cores(), "machine": platform.processor() or platform.machine()}


def main() -> None:
    """Print one JSON row a case and ensemble size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--case", action="append", choices=list(CASES), help="only this case; may be repeated")
    parser.add_argument("--seeds", type=int, help="only this ensemble size, measured in this process")
    parser.add_argument("--rounds", type=int, default=9, help="turns of both engines; medians are shown")
    given = parser.parse_args()
    cases = {name: case for name, case in (TOYS if given.toy else CASES).items() if given.case is None or name in given.case}
    for name, case in cases.items():
        for seeds in case.ensembles if given.seeds is None else (given.seeds,):
            if given.toy or given.seeds is not None:
                chunk = 10 if given.toy else 50
                print(json.dumps(measure(name, case, seeds, chunk, 2 if given.toy else given.rounds)), flush=True)
                continue
            same = [f"--case={name}", f"--seeds={seeds}", f"--rounds={given.rounds}"]
            subprocess.run([sys.executable, __file__, *same], check=True)


if __name__ == "__main__":
    main()

"""How fast liquid networks train: forward, backward and update of a sequence model against ncps, from the same weights.

    update = loss of 32 sequences of 100 steps with 8 inputs at every step + gradient + Adam, 32 units, in float32

Both engines are timed by turns in one process, so that other load meets both; ncps at 1 and 2 threads, of which the faster counts.
Before, the losses are compared. Compiling is timed apart. `rows()` yields one row a case; run as a script it prints them as JSON.
ncps, a package for comparison, is needed: pip install --no-deps ncps. `--toy` makes everything small.
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

from dynsys.models.closed_form_cell import CfC
from dynsys.models.gates import inverse_softplus
from dynsys.models.liquid import ConductanceLTC
from dynsys.models.sequence import SequenceModel
from dynsys.train.ensemble import SERIAL, usable_cores

RATE = 1e-3
SIZES = {"units": 32, "inputs": 8, "length": 100, "batch": 32}
TOY = {"units": 6, "inputs": 3, "length": 10, "batch": 4}
TARGETS = {"conductance-ltc": 4.0, "cfc": 3.0}


def numbers(tensor: Any) -> jax.Array:
    """A tensor of PyTorch as a JAX array."""
    return jnp.asarray(tensor.detach().numpy())


def conductance_from(cell: Any) -> ConductanceLTC:
    """The LTC cell of ncps (with positive parameters by softplus, or clipped ones) as ours, with the same weights."""
    p = {name: numbers(value) for name, value in cell.state_dict().items()}
    raw = (lambda x: x) if isinstance(cell.make_positive_fn, _softplus()) else inverse_softplus
    return ConductanceLTC(
        raw_w=raw(p["w"]),
        mu=p["mu"],
        gamma=p["sigma"],
        E=p["erev"],
        raw_w_in=raw(p["sensory_w"]),
        mu_in=p["sensory_mu"],
        gamma_in=p["sensory_sigma"],
        E_in=p["sensory_erev"],
        raw_leak=raw(p["gleak"]),
        e=p["vleak"],
        raw_c=raw(p["cm"]),
        scale=p["input_w"],
        shift=p["input_b"],
        out_scale=p["output_w"],
        out_shift=p["output_b"],
        mask_in=p["sensory_sparsity_mask"].astype(jnp.int32),
        mask=p["sparsity_mask"].astype(jnp.int32),
        unfoldings=cell._ode_unfolds,
    )


def _softplus() -> type:
    import torch

    return torch.nn.Softplus


def cfc_from(cell: Any, activation: str = "lecun-tanh") -> CfC:
    """The CfC cell of ncps as ours, with the same weights."""
    p = {name: numbers(value) for name, value in cell.state_dict().items()}
    inputs, S = cell.input_size, cell.hidden_size
    names = ("ff1",) if cell.mode == "pure" else ("ff1", "ff2", "time_a", "time_b")
    W = jnp.concatenate([p[f"{name}.weight"] for name in names]).T
    bias = jnp.concatenate([p[f"{name}.bias"] for name in names])
    layers = [(p[f"backbone.{2 * i}.weight"].T, p[f"backbone.{2 * i}.bias"]) for i in range(cell.backbone_layers)]
    (first, c), *rest = [*layers, (W, bias)]
    masks = ()
    if cell.sparsity_mask is not None:  # of the first two heads alone
        mask = numbers(cell.sparsity_mask).T.astype(jnp.int32)
        whole = jnp.concatenate([mask if name.startswith("ff") else jnp.ones_like(mask) for name in names], axis=1)
        masks = whole[:inputs], whole[inputs:]
    return CfC(
        V=first[:inputs],
        recurrent=(first[inputs:],),
        c=c,
        layers=tuple(weights for weights, _ in rest),
        biases=tuple(bias for _, bias in rest),
        asymptote=(p["A"][0], p["w_tau"][0]) if cell.mode == "pure" else (),
        masks=masks,
        n_out=S,
        mode=cell.mode.replace("_", "-"),
        activation=activation,
    )


class Pair:
    """One case: the same sequence model here and in PyTorch with ncps, and the same data."""

    def __init__(self, name: str, units: int, inputs: int, length: int, batch: int):
        import torch
        from ncps import torch as ncps
        from ncps.wirings import FullyConnected

        torch.manual_seed(0)
        if name == "cfc":
            self.net = ncps.CfC(inputs, units)
            cell = cfc_from(self.net.rnn_cell)
        else:
            self.net = ncps.LTC(inputs, FullyConnected(units))
            cell = conductance_from(self.net.rnn_cell)
        self.torch, self.head = torch, torch.nn.Linear(units, 1)
        self.model = eqx.tree_at(
            lambda m: (m.W, m.b),
            SequenceModel.init(cell, 1, key=jr.key(0)),
            (numbers(self.head.weight), numbers(self.head.bias)),
        )
        draw = np.random.default_rng(0).normal
        xs, ys = draw(size=(length, batch, inputs)).astype(np.float32), draw(size=(length, batch, 1)).astype(np.float32)
        self.xs, self.ys = jnp.asarray(xs), jnp.asarray(ys)
        self.xs_torch, self.ys_torch = (torch.tensor(a.swapaxes(0, 1)) for a in (xs, ys))
        trained = [p for p in (*self.net.parameters(), *self.head.parameters()) if p.requires_grad]
        self.optimizer_torch, self.optimizer = torch.optim.Adam(trained, RATE), optax.adam(RATE)
        self.state = self.optimizer.init(eqx.filter(self.model, eqx.is_inexact_array))

        @eqx.filter_jit(compiler_options=SERIAL)
        def update(model: SequenceModel, state: Any) -> Any:
            loss = lambda model: jnp.mean((model.batched(self.xs) - self.ys) ** 2)  # noqa: E731
            value, gradient = eqx.filter_value_and_grad(loss)(model)
            change, state = self.optimizer.update(gradient, state)
            return eqx.apply_updates(model, change), state, value

        self.advance = update

    def ours(self) -> float:
        """One update here; the loss before it."""
        self.model, self.state, loss = jax.block_until_ready(self.advance(self.model, self.state))
        return float(loss)

    def theirs(self) -> float:
        """One update with ncps; the loss before it."""
        self.optimizer_torch.zero_grad(set_to_none=True)
        loss = self.torch.nn.functional.mse_loss(self.head(self.net(self.xs_torch)[0]), self.ys_torch)
        loss.backward()
        self.optimizer_torch.step()
        return float(loss.detach())


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds on the clock and of all cores that the work takes, and what it returns."""
    begun, used = time.perf_counter(), time.process_time()
    found = work()
    return time.perf_counter() - begun, time.process_time() - used, found


def row(name: str, rounds: int, toy: bool = False) -> dict[str, Any]:
    """The row of a case."""
    sizes = TOY if toy else SIZES
    pair = Pair(name, **sizes)
    compile_s, _, mine = timed(pair.ours)
    losses = [(mine, pair.theirs())] + [(pair.ours(), pair.theirs()) for _ in range(2)]  # and after one and two updates
    gap = max(abs(a - b) / abs(b) for a, b in losses)
    if not gap <= 1e-4:
        raise SystemExit(f"bench_continuous_liquid: the losses of {name} differ: {losses} (here, ncps); the times compare nothing.")
    mine, theirs = [], {1: [], 2: []}
    for _ in range(rounds):
        for threads, times in theirs.items():
            pair.torch.set_num_threads(threads)
            times.append(timed(pair.theirs)[:2])
        mine.append(timed(pair.ours)[:2])
    ms = lambda times, which: round(1e3 * statistics.median(t[which] for t in times), 2)  # noqa: E731
    threads = min(theirs, key=lambda n: ms(theirs[n], 0))
    found = {"case": name, **sizes, "unfoldings": 6} if name == "conductance-ltc" else {"case": name, **sizes}
    found |= {"loss": losses[0][0], "loss_gap": gap, "ms": ms(mine, 0), "ms_ncps": ms(theirs[threads], 0), "ncps_threads": threads}
    found |= {"cpu_ms": ms(mine, 1), "cpu_ms_ncps": ms(theirs[1], 1), "compile_s": round(compile_s, 2)}
    found |= {"ratio": round(found["ms_ncps"] / found["ms"], 2), "cpu_ratio": round(found["cpu_ms_ncps"] / found["cpu_ms"], 2)}
    found |= {"target": TARGETS[name], "torch": pair.torch.__version__, "jax": jax.__version__, "cpus": usable_cores()}
    return found | {"machine": platform.processor() or platform.machine()}


def rows(rounds: int = 9, toy: bool = False) -> Iterator[dict[str, Any]]:
    """One row a case."""
    for name in TARGETS:
        yield row(name, 2 if toy else rounds, toy)


def main() -> None:
    """Print one JSON row a case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--rounds", type=int, default=9, help="turns of both engines; medians are shown")
    given = parser.parse_args()
    for found in rows(given.rounds, given.toy):
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()

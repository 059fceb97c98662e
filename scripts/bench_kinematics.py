"""Predict the next frame of a walking robot seen at irregular times: liquid networks, GRU, LSTM, neural ODE and simple rules.

    python scripts/make_kinematics.py --out kinematics
    python scripts/bench_kinematics.py --data kinematics

One JSON row for each environment and model: mean and spread over seeds of the test error (mean squared, in standard deviations of the
training part, over all frames after the first 8 of a window), parameters, seconds of training a seed. The input is the frame and the time
until the next one, the target the next frame; every model predicts the change from the present frame.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from dynsys.models.closed_form_cell import CfC
from dynsys.models.composed import MixedMemory
from dynsys.models.flow_cell import FlowCell
from dynsys.models.gated import GRU, LSTM
from dynsys.models.liquid import LTC, ConductanceLTC
from dynsys.models.sequence import SequenceModel
from dynsys.models.wiring import full
from dynsys.train.sequences import Sequences, fit_sequences

LENGTH, STRIDE, WARM = 40, 20, 8
SHARES = (0.7, 0.15)  # of the episodes: training and validation; the rest is for the test


def cell(name: str, n_in: int, units: int, key):
    """A cell of a name of the table."""
    wiring = full(n_in, units)
    make = {
        "ltc": lambda: LTC.init(wiring, key=key),
        "conductance-ltc": lambda: ConductanceLTC.init(wiring, key=key),
        "cfc": lambda: CfC.init(wiring, key=key),
        "cfc-mixed": lambda: MixedMemory.init(CfC.init(wiring, key=key), key=jr.fold_in(key, 1)),
        "gru-gap": lambda: GRU.init(n_in, units, key=key),
        "lstm": lambda: LSTM.init(n_in, units, key=key),
        "neural-ode": lambda: FlowCell.init(n_in, units=units, hidden=units, key=key),
    }
    return make[name]()


def load(path: Path) -> tuple[list[Sequences], np.ndarray]:
    """Windows of the training, validation and test episodes; targets are changes of standardised frames."""
    with np.load(path) as file:
        values, times = file["values"], file["times"]
    count = len(values)
    a, b = round(SHARES[0] * count), round((SHARES[0] + SHARES[1]) * count)
    mean, scale = values[:a].mean(axis=(0, 1)), values[:a].std(axis=(0, 1)) + 1e-9
    values = np.clip((values - mean) / scale, -10, 10)
    dt = np.median(np.diff(times, axis=1))
    parts = []
    for rows in (slice(0, a), slice(a, b), slice(b, count)):
        xs, gaps, ys = [], [], []
        for x, t in zip(values[rows], times[rows], strict=True):
            for first in range(0, len(x) - LENGTH, STRIDE):
                window = slice(first, first + LENGTH)
                xs.append(x[window])
                gaps.append(np.diff(t[first : first + LENGTH + 1]) / dt)
                ys.append(np.diff(x[first : first + LENGTH + 1], axis=0))
        parts.append(Sequences.of(np.array(xs), np.array(ys), np.array(gaps)))
    return parts, scale


def test_error(model: SequenceModel, data: Sequences) -> float:
    """Mean squared error after the first WARM frames of a window."""
    made = jnp.swapaxes(eqx.filter_jit(lambda m, d: m.batched(jnp.swapaxes(d.inputs, 0, 1), d.gaps.T))(model, data), 0, 1)
    return float(jnp.mean((made - data.targets)[:, WARM:] ** 2))


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("kinematics"))
    parser.add_argument("--models", default="ltc,conductance-ltc,cfc,cfc-mixed,gru-gap,lstm,neural-ode")
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--toy", action="store_true", help="made-up data and tiny sizes: does it run?")
    asked = parser.parse_args()
    if asked.toy:
        asked.units, asked.steps, asked.batch, asked.seeds, asked.models = 8, 4, 4, 1, "cfc,gru-gap,neural-ode"
        asked.data = Path(tempfile.mkdtemp())
        times = np.sort(np.random.default_rng(0).permuted(np.tile(np.arange(100), (7, 1)), axis=1)[:, :90], axis=1) * 0.05
        np.savez(asked.data / "waves.npz", values=np.sin(times[:, :, None] * np.array([3.0, 5.0])), times=times)
    for path in sorted(asked.data.glob("*.npz")):
        (train, validation, test), _ = load(path)
        about = {"environment": path.stem, "train": train.count, "test": test.count, "device": jax.devices()[0].device_kind}
        still = float(jnp.mean(test.targets[:, WARM:] ** 2))
        print(json.dumps({"model": "persistence", "error": still, "parameters": 0, "seconds": 0.0, **about}), flush=True)
        where = (test.inputs + test.targets)[:, WARM:]
        centre = (train.inputs + train.targets).mean(axis=(0, 1))
        mean = float(jnp.mean((where - centre[None, None]) ** 2))
        print(json.dumps({"model": "mean", "error": mean, "parameters": 0, "seconds": 0.0, **about}), flush=True)
        for name in asked.models.split(","):
            columns, targets = train.inputs.shape[2], train.targets.shape[2]
            keys = [jr.split(jr.key(seed)) for seed in range(asked.seeds)]
            models = [SequenceModel.init(cell(name, columns, asked.units, a), targets, key=b) for a, b in keys]
            begun = time.perf_counter()
            fitted = fit_sequences(models, train, validation, steps=asked.steps, batch=asked.batch, key=jr.key(7))
            seconds = time.perf_counter() - begun
            errors = [test_error(model, test) for model in fitted.models]
            row = {
                "model": name,
                "error": float(np.mean(errors)),
                "spread": [float(np.min(errors)), float(np.max(errors))],
                "parameters": sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(models[0], eqx.is_inexact_array))),
                "seconds": round(seconds / asked.seeds, 1),
                "validation": [round(loss, 5) for loss in fitted.losses],
                "status": [status.value for status in fitted.status],
            }
            print(json.dumps(row | about), flush=True)


if __name__ == "__main__":
    main()

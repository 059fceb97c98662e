"""Reconstruct Lorenz-63 and a real ECG from even samples, and from those that are left when 30 % are dropped at random.

    python scripts/bench_irregular.py

One JSON row for each recording, model and sampling: D_stsp of a free run at even times against the even test part, beside its floor, the
one-step error there, and the seconds of training. The models are trained with forcing by `dynsys.fit`; the test part is the same for both
samplings and never thinned.
"""

import argparse
import json
import time

import jax
import numpy as np

import dynsys
from dynsys.integrate import simulate_system
from dynsys.prepare import filters
from dynsys_datasets.series import TimeSeries

DROPPED = 0.3
MODELS = {
    "neural-ode": ("model.hidden=64", "model.depth=2", "training.learning_rate=0.002"),
    "cfc": ("model.units=32", "model.backbone=64", "training.learning_rate=0.002"),
}


def lorenz(points: int) -> TimeSeries:
    """Lorenz-63 every 0.02."""
    return simulate_system("Lorenz", points=points, dt=0.02, key=0).replace(source="lorenz")


def ecg(points: int) -> TimeSeries:
    """The ECG sample at 90 Hz, without trend, as docs/preparation.md prepares it."""
    x = dynsys.load_sample("ecg").trajectories[0][:]
    x = filters.gaussian_smooth(filters.remove_gaussian_trend(x, 180.0), 3.0)[::4]
    return TimeSeries(x[:points], dt=4 / 360, names=["mV"], time_unit="s", source="ecg")


def thinned(series: TimeSeries, share: float, seed: int) -> TimeSeries:
    """The series without a random share of its rows; the times stay."""
    kept = np.random.default_rng(seed).random(series.lengths[0]) >= share
    times = series.dt * np.flatnonzero(kept)
    values = np.asarray(series.trajectories[0][:])[kept]
    return TimeSeries(values, times=times, names=series.names, time_unit=series.time_unit, source=series.source)


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=30_000)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--recordings", default="lorenz,ecg")
    parser.add_argument("--set", action="append", default=[], help="change a setting, as in dynsys fit")
    parser.add_argument("--toy", action="store_true", help="tiny sizes: does it run?")
    asked = parser.parse_args()
    if asked.toy:
        asked.points, asked.steps, asked.seeds, asked.recordings = 1500, 20, 1, "lorenz"
        asked.set += ["training.chunk=10", "training.checkpoints=1", "selection.steps=100", "selection.starts=2", "training.window=10"]
    for recording in asked.recordings.split(","):
        whole = {"lorenz": lorenz, "ecg": ecg}[recording](asked.points)
        learned, test = whole.split((0.7, 0.3))
        for name in asked.models.split(","):
            for share in (0.0, DROPPED):
                series = thinned(learned, share, 0) if share else learned
                settings = ["split.test=0", f"model.name={name}", *MODELS[name], "training.checkpoints=12", *asked.set]
                began = time.perf_counter()
                found = dynsys.fit(series, steps=asked.steps, seeds=asked.seeds, set=settings, progress=False)
                scores = found.evaluate(test)
                d_stsp = next(score for score in scores if score.name == "d_stsp_binned")
                d_h = next(score for score in scores if score.name == "d_h")
                one = next(score for score in scores if score.name == "prediction_error")
                row = {
                    "recording": whole.source,
                    "model": name,
                    "dropped": share,
                    "points": series.lengths[0],
                    "d_stsp": round(d_stsp.value, 4),
                    "floor": None if d_stsp.floor is None else round(d_stsp.floor, 4),
                    "d_h": round(d_h.value, 4),
                    "one_step_error": float(f"{one.value:.4g}"),
                    "embedding": [found.preparation.dimension, found.preparation.delay],
                    "validation": [round(score, 3) for score in found.outcome.scores],
                    "status": found.status.value,
                    "seconds": round(time.perf_counter() - began, 1),
                    "device": jax.devices()[0].device_kind,
                }
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

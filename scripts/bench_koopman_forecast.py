"""Forecasts of Koopman models beside a clipped shallow PLRNN, on ten chaotic systems and on the Kuramoto-Sivashinsky field.

    python scripts/bench_koopman_forecast.py [--systems Lorenz,Rossler] [--models edmd,kernel-edmd] [--steps 6000] [--toy]

One JSON row for each system, model and way to run it. Learned: 5,000 points, 50 a period (the field: 8,000 points, one a unit of
time), the last 15 % for validation; tested: 20 free runs from points spread over 3,000 more. `lyapunov_times`: the median valid
prediction time (threshold 0.4 standard deviations) in Lyapunov times; `error`: the median normalised error over the first Lyapunov
time, where the mean of the data has about 1; `d_stsp`: of one long free run (of the field on 3 principal components). Koopman models
run in latent space (`reencode` 0), and encoded anew with the period that free runs on the validation part choose; those in closed form
are fitted again for that. Everything goes through `dynsys.fit`.
"""

import argparse
import dataclasses
import json
import time
from typing import Any

import numpy as np

import dynsys
from dynsys.integrate import simulate_system
from dynsys.metrics import principal_components, state_space_divergence_binned, valid_prediction_times
from dynsys.models.koopman.lifted import AbstractLifted
from dynsys.models.koopman.reencoding import choose_reencoding
from dynsys_datasets.catalogue import system
from dynsys_datasets.series import TimeSeries

SYSTEMS = ("Lorenz", "Rossler", "Chua", "Halvorsen", "Thomas", "Chen", "Aizawa", "SprottB", "Lorenz96", "Hadley")
FIELD = "KuramotoSivashinsky"
FIELD_EXPONENT = 0.048  # at L = 22: Cvitanovic, Davidchack, Siminos, SIADS 9, 1 (2010)
MODELS: dict[str, tuple[str, ...]] = {
    "edmd": (),
    "kernel-edmd": (),
    "koopman-autoencoder": ("model.latent=64", "model.hidden=100", "training.window=50", "training.learning_rate=0.001"),
    "clipped-shallow-plrnn": ("model.hidden=100",),
}
OF_FIELD = {
    "edmd": ("model.degree=2", "model.ridge=1e-8"),
    "koopman-autoencoder": ("model.latent=128", "model.hidden=200", "training.window=20", "training.learning_rate=0.001"),
    "clipped-shallow-plrnn": ("model.hidden=500",),
}
STARTS = 20


def data_of(name: str, toy: bool) -> tuple[TimeSeries, np.ndarray, float]:
    """The series to learn from, the test rows (T, N), and the maximal exponent per unit of time."""
    record = system(name)
    if name == FIELD:
        learned, dt, exponent = 400 if toy else 8000, 1.0, FIELD_EXPONENT
    else:
        fact = record.fact("lyapunov_spectrum")
        if fact is None or record.period is None:
            raise SystemExit(f"{name}: its period and exponents are not known.")
        learned, dt, exponent = 400 if toy else 5000, record.period / 50, float(np.max(fact.value))
    tested = 150 if toy else 3000
    whole = simulate_system(name, points=learned + tested, dt=dt, key=0)
    x = np.asarray(whole.trajectories[0][:], float)
    return TimeSeries(x[:learned], dt=dt, names=whole.names, source=name), x[learned:], exponent


def scored(found: Any, test: np.ndarray, exponent: float, toy: bool) -> dict[str, float]:
    """The scores of a reconstruction on the test rows."""
    dt, memory = found.dt, max(1, found.model.memory + 1)
    horizon = int(np.clip(round(8 / exponent / dt), 20, len(test) // 2))
    rows = np.linspace(memory, len(test) - horizon - 1, 3 if toy else STARTS).astype(int)
    true = np.stack([test[row : row + horizon] for row in rows])
    made = np.stack(
        [
            np.asarray(found.forecast(TimeSeries(test[row - memory : row], dt=dt, names=found.preparation.names), horizon).trajectories[0])
            for row in rows
        ]
    )
    scale = test.std(axis=0)
    times = valid_prediction_times(true, made, dt=dt, lyapunov=exponent, scale=scale)
    first = max(1, round(1 / exponent / dt))
    with np.errstate(all="ignore"):
        off = np.sqrt(np.mean(((made - true)[:, :first] / scale) ** 2, axis=(1, 2)))
    run = np.asarray(found.forecast(TimeSeries(test[:memory], dt=dt, names=found.preparation.names), len(test) - memory).trajectories[0])
    x, y = (values / scale for values in (test[memory:], np.nan_to_num(np.clip(run, -1e6, 1e6), nan=1e6)))
    if x.shape[1] > 5:
        x, y = principal_components(x, y, 3)
    return {
        "lyapunov_times": round(float(np.median(times)), 3),
        "error": float(f"{np.median(np.nan_to_num(off, nan=1e6, posinf=1e6)):.3g}"),
        "d_stsp": round(float(state_space_divergence_binned(x, y)), 3),
    }


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", default=",".join((*SYSTEMS, FIELD)))
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--steps", type=int, default=6000, help="updates of the trained models")
    parser.add_argument("--toy", action="store_true", help="tiny sizes: does it run?")
    asked = parser.parse_args()
    small = (
        ["training.chunk=10", "training.checkpoints=1", "selection.steps=50", "selection.starts=2", "training.window=10"]
        if asked.toy
        else []
    )
    if asked.toy:
        asked.systems, asked.steps = "Lorenz", 10
    for name in asked.systems.split(","):
        series, test, exponent = data_of(name, asked.toy)
        for model in asked.models.split(","):
            settings = (OF_FIELD if name == FIELD and model in OF_FIELD else MODELS)[model]
            trained = model in ("koopman-autoencoder", "clipped-shallow-plrnn")
            changes = ["split.test=0", *settings, *(small if trained else [])]
            began = time.perf_counter()
            found = dynsys.fit(series, model=model, steps=asked.steps if trained else None, seeds=1, set=changes, progress=False)
            seconds = round(time.perf_counter() - began, 1)
            base = {"system": name, "model": model, "seconds": seconds}
            if model == "koopman-autoencoder":  # checkpoints are kept by their attractor, and a linear run has none: the last model
                found = dataclasses.replace(found, model=found.last)
            print(json.dumps({**base, "reencode": 0, **scored(found, test, exponent, asked.toy)}), flush=True)
            if isinstance(found.model, AbstractLifted):
                if not trained:  # its settings are chosen by free runs, so they are to be of the kind that follows
                    found = dynsys.fit(series, model=model, seeds=1, set=[*changes, "model.reencode=1"], progress=False)
                held = [np.asarray(x) for x in found.preparation.forward(found.parts[1]).trajectories]
                period = choose_reencoding(found.model, held).period
                again = dataclasses.replace(found, model=found.model.reencoded(period))
                if period or not trained:
                    print(json.dumps({**base, "reencode": period, **scored(again, test, exponent, asked.toy)}), flush=True)


if __name__ == "__main__":
    main()

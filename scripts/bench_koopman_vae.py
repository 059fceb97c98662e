"""Series made by a Koopman VAE beside real ones: discriminative and predictive scores, with none and with a share of the points dropped.

    python scripts/bench_koopman_vae.py

One JSON row for each set, generator and dropped share; means and standard deviations over seeds. Sets: `sines`, five independent columns
sin(f t + p), f and p uniform in [0, 0.1], scaled to [0, 1], as the authors of the scores generate them (TimeGAN; Yoon et al. 2019), and
windows of 24 points of the ECG sample, every fourth of its points. Generators: `real`, other real series (the floor of both scores);
`gaussian`, one normal distribution of whole series with the mean and covariance of the training set; `koopman-vae`. The first two see
everything; the dropped points are single values, at random. `predictive` forecasts the last column from the others where there are several
(as the authors do), all from all otherwise.
"""

import argparse
import json
import time
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import dynsys
from dynsys.metrics.generated import discriminative_score, predictive_score
from dynsys.models.koopman.vae import KoopmanVAE
from dynsys.models.koopman.vae_training import fit_koopman_vae

LENGTH = 24


def sines(count: int, rng: np.random.Generator) -> np.ndarray:
    """Independent series (B, T, 5)."""
    f, p = rng.uniform(0, 0.1, (2, count, 1, 5))
    return 0.5 * (np.sin(f * np.arange(LENGTH)[None, :, None] + p) + 1)


def ecg(count: int, rng: np.random.Generator) -> np.ndarray:
    """Windows (B, T, 1) of the recording, in mV at 90 Hz, from random places."""
    x = np.asarray(dynsys.load_sample("ecg").trajectories[0][:], float)[::4]
    starts = rng.choice(len(x) - LENGTH, count, replace=count > len(x) - LENGTH)
    return x[starts[:, None] + np.arange(LENGTH)[None, :]]


def gaussian(xs: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Series of the normal distribution with the mean and covariance of xs."""
    flat = xs.reshape(len(xs), -1)
    return rng.multivariate_normal(flat.mean(axis=0), np.cov(flat.T), count, method="eigh").reshape(count, *xs.shape[1:])


def vae(xs: np.ndarray, count: int, seed: int, asked: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """Series of a Koopman VAE trained on xs, NaN where missing, and what there is to tell of it."""
    mean, scale = np.nanmean(xs, axis=(0, 1)), np.nanstd(xs, axis=(0, 1))
    keys = jr.split(jr.key(seed), 3)
    model = KoopmanVAE.init(xs.shape[-1], latent=asked.latent, hidden=asked.hidden, mean=mean, scale=scale, key=keys[0])
    model = jax.tree.map(lambda a: a.astype(jnp.float32), model)
    began = time.perf_counter()
    found = fit_koopman_vae(model, xs, steps=asked.steps, learning_rate=asked.learning_rate, key=keys[1])
    seconds = time.perf_counter() - began
    made = np.asarray(found.model.generate(count, LENGTH, noise=asked.noise, key=keys[2]), float)
    told = {
        "largest_eigenvalue": round(float(np.abs(np.linalg.eigvals(np.asarray(found.model.A, float))).max()), 4),
        "unexplained": float(f"{found.unexplained[-50:].mean():.2g}"),
        "status": found.status.value,
        "train_seconds": round(seconds, 1),
    }
    return made, told


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="series in a set")
    parser.add_argument("--steps", type=int, default=3000, help="updates of the VAE")
    parser.add_argument("--latent", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-2)
    parser.add_argument("--noise", action="store_true", help="add the observation noise that the model has learned")
    parser.add_argument("--score-steps", type=int, default=1000)
    parser.add_argument("--score-hidden", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", default="sines,ecg")
    parser.add_argument("--dropped", default="0,0.3,0.5")
    parser.add_argument("--toy", action="store_true", help="tiny sizes: does it run?")
    asked = parser.parse_args()
    if asked.toy:
        asked.count, asked.steps, asked.score_steps, asked.seeds, asked.sets, asked.dropped = 40, 5, 5, 1, "sines", "0.3"
        asked.latent, asked.hidden = 3, 4
    for name in asked.sets.split(","):
        make = {"sines": sines, "ecg": ecg}[name]
        cases = [("real", 0.0), ("gaussian", 0.0), *[("koopman-vae", float(share)) for share in asked.dropped.split(",")]]
        for kind, share in cases:
            scores, told = [], {}
            for seed in range(asked.seeds):
                rng = np.random.default_rng(seed)
                xs, other = make(asked.count, rng), make(asked.count, rng)
                seen = np.where(rng.random(xs.shape) < share, np.nan, xs)
                made = other
                if kind == "gaussian":
                    made = gaussian(xs, asked.count, rng)
                elif kind == "koopman-vae":
                    made, told = vae(seen, asked.count, seed, asked)
                options = {"hidden": asked.score_hidden, "steps": asked.score_steps, "key": jr.key(seed)}
                column = -1 if xs.shape[-1] > 1 else None
                scores.append((discriminative_score(xs, made, **options), predictive_score(xs, made, column=column, **options)))
            mean, spread = np.mean(scores, axis=0), np.std(scores, axis=0)
            row = {
                "set": name,
                "generator": kind,
                "dropped": share,
                "discriminative": round(float(mean[0]), 4),
                "discriminative_sd": round(float(spread[0]), 4),
                "predictive": round(float(mean[1]), 4),
                "predictive_sd": round(float(spread[1]), 4),
                **told,
                "series": asked.count,
                "seeds": asked.seeds,
                "steps": asked.steps,
                "score_hidden": asked.score_hidden,
                "score_steps": asked.score_steps,
                "device": jax.devices()[0].device_kind,
            }
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

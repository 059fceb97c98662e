"""Contents for the tests of the report: small, with every part filled, in 1, 2, 3 and 5 variables."""

import numpy as np

from dynsys.metrics.score import Score
from dynsys.report import Histogram, History, ReportContent, Spectrum


def history(seed: int = 0, *, count: int = 30, chosen: bool = True) -> History:
    steps = np.arange(1, count + 1) * 100
    fall = np.exp(-steps / 1000)
    return History(seed=seed, steps=steps, loss=fall + 0.01, alpha=fall, scores=3 * fall + 0.2, kept=1000, chosen=chosen)


def content(n: int = 3, rows: int = 600, **changes) -> ReportContent:
    """A quasi-periodic orbit of n variables and the same one a little later as its reconstruction."""
    time = np.arange(rows)[:, None] * 0.05
    true = np.sin(time * np.sqrt(np.arange(2, n + 2))[None, :]) + 0.3 * np.cos(time)
    made = np.roll(true, 5, axis=0)
    frequencies = np.linspace(0.0, 10.0, 101)
    power = 1 / (1 + frequencies[:, None] ** 2) * np.ones((1, n))
    beats = Histogram(name="beat interval", unit="s", true=np.linspace(0.6, 0.9, 50), made=np.linspace(0.61, 0.93, 70), distance=0.02)
    fields = {
        "title": "A quasi-periodic orbit",
        "command": "dynsys fit orbit.csv --out runs/orbit",
        "created": "2026-01-02 03:04 UTC",
        "names": tuple("abcdefgh"[:n]),
        "units": "mV",
        "dt": 0.05,
        "time_unit": "s",
        "true": true,
        "made": made,
        "overlay_true": true[:200],
        "overlay_made": made[:200],
        "scores": (
            Score("d_stsp_binned", 0.25, 0.125, "KL(true || made) in nats.", (("bins", 30), ("pad", 0.1)), (0.25, 0.5)),
            Score("prediction_error", 2.5e-5, None, "Mean squared error.", (("n", 20),)),
        ),
        "histories": (history(0), history(1, chosen=False)),
        "spectrum": Spectrum(frequencies=frequencies, true=power, made=1.1 * power),
        "histograms": (beats,),
        "summary": ("A model was fitted.",),
        "settings_toml": "[model]\nname = 'alrnn'\n",
        "versions": (("dynsys", "0.1.0"), ("jax", "0.10")),
        "warnings": ("One run died.",),
        "preparation": (("Scaling", "standardised"),),
        "data_notes": ("3 rows were interpolated.",),
        "seed_values": (("d_stsp_binned", (0.25, 0.4, float("nan"))),),
        "seconds": 125.0,
    }
    return ReportContent(**(fields | changes))

"""Reconstruct a real, arrhythmic ECG and write runs/demo/report.html: what scripts/demo runs once all is installed.

MIT-BIH record 208, lead MLII, 5 minutes at 360 Hz, with sinus and ectopic beats. The recipe: remove the baseline (Gaussian of
0.5 s), smooth (3 samples), keep every 4th sample; the delay embedding (7 values, 4 samples apart) is found by itself.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from scipy.stats import wasserstein_distance

import dynsys
from dynsys.analysis.events import peaks
from dynsys.progress import TrainingProgress
from dynsys.reconstruct.evaluation import run_from
from dynsys.report.build import content_of, write_report
from dynsys.report.figures import hero, static_figures

RECIPE = (
    "preparation.detrend=gaussian",
    "preparation.detrend_width=0.5",
    "preparation.smooth_width=3",
    "preparation.downsample=4",
    "model.hidden=400",
    "training.window=100",
    "training.alpha=0.2",
    "training.final_learning_rate=1e-6",
    "training.checkpoints=20",
)
FREE = 100_000  # points of each free run: 18.5 minutes
STARTS = 4


def beats(values: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """Times and heights of the R peaks and ectopic beats, of at least 0.5 mV prominence and 0.25 s apart."""
    return peaks(values[:, 0], dt=dt, prominence=0.5, refractory=0.25)


def events(values: np.ndarray, dt: float) -> list[tuple[str, str | None, np.ndarray]]:
    """What the report compares: intervals between beats and heights of beats."""
    times, heights = beats(values, dt)
    return [("beat interval", "s", np.diff(times)), ("peak height", "mV", heights)]


def main() -> int:
    """Fit, check the free runs, write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "runs" / "demo")
    parser.add_argument("--steps", type=int, default=24_000)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], help="change a setting, as in dynsys fit")
    parser.add_argument("--figures", type=Path, help="also write pictures for the documentation into this folder")
    given = parser.parse_args()
    began = time.perf_counter()
    console = Console()
    series = dynsys.load_sample("ecg")
    console.print(f"{series}", highlight=False)
    with TrainingProgress(console) as progress:
        settings = (*RECIPE, f"training.seed={given.seed}", *given.set)
        found = dynsys.fit(
            series, seeds=given.seeds, steps=given.steps, set=settings, out=given.out, overwrite=True, progress=progress.update
        )
    for line in found.preparation.summary():
        console.print(f"  {line}", highlight=False)
    healthy = check(found, console)
    command = " ".join(["scripts/demo", *sys.argv[1:]])
    title = "A heart, reconstructed: ECG of MIT-BIH record 208"
    write_report(found, given.out / "report.html", title=title, command=command, events=events, points=FREE)
    if given.figures is not None:
        given.figures.mkdir(parents=True, exist_ok=True)
        content = content_of(found, title=title, command=command, events=events, points=FREE)
        hero(content, given.figures / "ecg.png")
        static_figures(content, given.figures)
    console.print(f"{time.perf_counter() - began:.0f} s in all", highlight=False)
    return 0 if healthy else 1


def check(found: dynsys.Reconstruction, console: Console) -> bool:
    """Does the free run go on beating from every start, within the data's range, at the recording's rate? Prints what it finds."""
    preparation = found.preparation
    parts = [preparation.forward(part).trajectories[0] for part in found.parts]
    recording = np.concatenate([preparation.backward(part)[:, 0] for part in parts])
    seen = [beats(preparation.backward(part), found.dt) for part in parts]
    intervals, heights = np.concatenate([np.diff(t) for t, _ in seen]), np.concatenate([h for _, h in seen])
    low, high = recording.min(), recording.max()
    margin = 0.5 * (high - low)
    rows = np.linspace(0, len(parts[-1]) - 1, STARTS).astype(int)
    runs = run_from(found.model, parts[-1][rows], FREE)
    good = True
    told = f"recording: {len(intervals)} intervals, mean {intervals.mean():.3f} s; range {low:.2f} to {high:.2f} mV"
    console.print(told, highlight=False)
    for start, run in enumerate(runs):
        values = preparation.backward(run)
        times, peak = beats(values, found.dt)
        made = np.diff(times)
        pause = max(made.max(initial=0.0), FREE * found.dt - (times[-1] if len(times) else 0.0))
        inside = bool(np.all((values[:, 0] > low - margin) & (values[:, 0] < high + margin)))
        ratio = made.mean() / intervals.mean() if len(made) else np.nan
        fine = inside and pause < 6.0 and abs(ratio - 1) < 0.1
        good &= fine
        distances = (wasserstein_distance(intervals, made), wasserstein_distance(heights, peak)) if len(made) else (np.nan, np.nan)
        told = f"start {start}: {len(made)} intervals, mean x{ratio:.2f}, longest pause {pause:.1f} s, within range: {inside}, "
        told += f"Wasserstein {distances[0]:.3f} s and {distances[1]:.2f} mV -> {'good' if fine else 'FAILS'}"
        console.print(told, highlight=False, soft_wrap=True)
    return good


if __name__ == "__main__":
    sys.exit(main())

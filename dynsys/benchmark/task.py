"""One task of the benchmark: a model learns one system's series under one protocol, and is scored.

forecast:     learn on `train`, free run from its end, sMAPE, MASE and valid prediction time on raw values of `test`
reconstruct:  learn on `train`, free run as long as `test` from its first states, D_stsp, D_H, maximal exponent
"""

import contextlib
import dataclasses
import math
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

from dynsys.benchmark.dataset import Series
from dynsys.benchmark.entry import Entry
from dynsys.benchmark.protocol import Protocol
from dynsys.benchmark.store import Row

LEAD = 500  # observed points that lead a model to its start, where there are so many
PICTURE = 1500  # points of the attractor that are kept for the leaderboard
PLANES = 3  # principal components of the test series on which D_stsp is taken when there are too many columns for bins


@dataclasses.dataclass(frozen=True)
class Task:
    """Protocol, system (with what is known of it), model and seed."""

    protocol: Protocol
    series: Series
    entry: Entry
    seed: int

    @property
    def key(self) -> tuple[str, str, str, int]:
        """(protocol, system, model, seed)."""
        return self.protocol.name, self.series.name, self.entry.label, self.seed


@dataclasses.dataclass(frozen=True)
class Result:
    """A row with the pictures of the made and the true attractor, (points, columns), if it is the first seed."""

    row: Row
    picture: np.ndarray | None = None
    truth: np.ndarray | None = None


def run_task(task: Task) -> Result:
    """Do the task; a model that raises is a row with status 'failed' and the reason, one that diverges has status 'diverged'."""
    _forget_peak()
    began = time.perf_counter()
    protocol, system, model, seed = task.key
    base = {"protocol": protocol, "system": system, "model": model, "seed": seed, "versions": versions()}
    try:
        train, test = task.protocol.parts(task.series, task.seed)
        scores, made, fit_seconds = (_forecast if task.protocol.kind == "forecast" else _reconstruct)(task, train, test)
    except Exception as error:  # whatever a model does, the benchmark goes on
        from dynsys.benchmark.workers import one_line

        return Result(Row(**base, status="failed", reason=one_line(error), seconds=time.perf_counter() - began, memory_mb=_peak()))
    finite = bool(np.isfinite(made).all())
    row = Row(
        **base,
        status="success" if finite else "diverged",
        reason="" if finite else f"the free run is not finite from point {int(np.argmin(np.isfinite(made).all(axis=1)))} on",
        scores=tuple(scores.items()),
        seconds=time.perf_counter() - began,
        fit_seconds=fit_seconds,
        memory_mb=_peak(),
    )
    return Result(row, _thinned(made), _thinned(test)) if seed == 0 else Result(row)


def _forecast(task: Task, train: np.ndarray, test: np.ndarray) -> tuple[dict[str, float], np.ndarray, float]:
    from dynsys.metrics import mase, smape, valid_prediction_time

    learned, seconds = _learn(task, train)
    made = learned.forecast(train, len(test))
    tame = np.where(np.isfinite(made), made, 1e30)
    scores = {"smape": smape(test, tame), "mase": mase(test, tame, train)}
    scale = np.maximum(train.std(axis=0), 1e-12)
    steps = valid_prediction_time(test, made, dt=1.0, scale=scale)
    scores["vpt"] = steps * task.series.dt * (task.series.lyapunov or 0.0) if (task.series.lyapunov or 0.0) > 0 else math.nan
    scores["vpt_periods"] = steps / task.series.per_period
    return scores, made, seconds


def _reconstruct(task: Task, train: np.ndarray, test: np.ndarray) -> tuple[dict[str, float], np.ndarray, float]:
    from dynsys.metrics import fraction_outside, power_spectrum_distance, principal_components, state_space_divergence_binned
    from dynsys.metrics.divergence import MAX_BINNED

    learned, seconds = _learn(task, train)
    made = learned.forecast(test[:LEAD], len(test))
    mean, scale = train.mean(axis=0), np.maximum(train.std(axis=0), 1e-12)
    x, y, known = ((values - mean) / scale for values in (test, made, train))
    planes = [x, y, known]
    if x.shape[1] > MAX_BINNED:
        planes = [*principal_components(x, y, PLANES), principal_components(x, known, PLANES)[1]]
    scores = {"d_stsp": state_space_divergence_binned(planes[0], planes[1]), "outside": fraction_outside(planes[0], planes[1])}
    scores["d_stsp_of_training"] = state_space_divergence_binned(planes[0], planes[2])
    scores["d_h"] = power_spectrum_distance(x, y) if np.isfinite(y).all() else 1.0
    found = learned.exponent(test[:LEAD], task.series.dt)
    scores["lyapunov"] = found
    if task.series.lyapunov:
        scores["lyapunov_error"] = abs(found - task.series.lyapunov) / abs(task.series.lyapunov)
    return scores, made, seconds


def _learn(task: Task, train: np.ndarray) -> tuple[Any, float]:
    """The model after learning, and the seconds that took."""
    from dynsys.benchmark.learner import learn

    began = time.perf_counter()
    learned = learn(task.entry, train, dt=task.series.dt, seed=task.seed)
    return learned, time.perf_counter() - began


def versions() -> tuple[tuple[str, str], ...]:
    """The versions that a result may depend on, and the device."""
    from importlib.metadata import version

    import dynsys

    packages = [(name, version(name)) for name in ("jax", "numpy", "scipy")]
    return (("dynsys", dynsys.__version__), *packages, ("python", platform.python_version()), ("machine", platform.machine()))


def _thinned(points: np.ndarray) -> np.ndarray:
    """At most PICTURE rows and three columns; values that are not finite are left out."""
    stride = max(1, len(points) // PICTURE) if len(points) > 10 * PICTURE else 1
    kept = points[: PICTURE * stride : stride, :3]
    return kept[np.isfinite(kept).all(axis=1)].astype(np.float32)


def _forget_peak() -> None:
    """Let the kernel measure the peak of this process anew (Linux; elsewhere the peak is that of the worker so far)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak() -> float | None:
    """Peak memory of this process in MB, or None where the system does not tell."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    try:
        import resource
        import sys
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)

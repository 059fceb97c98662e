"""Where the states of a model are drawn, and in which colours: coordinates, regions, kinds of cycles. NumPy only.

    N = 1: delay coordinates (x(t), x(t-τ), x(t-2τ));  N = 2, 3: the variables;  N > 3: three principal components of the orbit

A cycle is drawn where an orbit that stays on it would be: in delay coordinates a fixed point is (x, x, x), and point j of a
k-cycle is (x_j, x_{j-τ}, x_{j-2τ}), indices taken modulo k.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Real

from dynsys.analysis.piecewise.cycle import Cycle
from dynsys.report.content import number
from dynsys.report.views import decorrelation_lag, short, with_unit

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#6a51a3", "#8c564b", "#1b7837")
REST = "#b9c0c8"  # regions beyond the last colour
KINDS = {  # kind of cycle: colour, marker of matplotlib
    "stable": ("#009E73", "o"),
    "saddle": ("#D55E00", "D"),
    "saddle-focus": ("#CC79A7", "s"),
    "unstable": ("#E69F00", "^"),
    "on the border": ("#22262b", "X"),
}


@dataclass(frozen=True)
class Naming:
    """Names (N,) and unit of the observed variables, unit of time, and the delay in samples for a single variable (None: chosen)."""

    names: tuple[str, ...]
    units: str | None = None
    time_unit: str = "units of time"
    delay: int | None = None


@dataclass(frozen=True, eq=False)
class Scene:
    """An orbit in D = 2 or 3 coordinates (T, D); point t is state `first` + t. `lag`, or `mean` and `axes`, place other points."""

    points: Float[np.ndarray, "T D"]
    labels: tuple[str, ...]
    first: int = 0
    note: str = ""
    lag: int | None = None
    mean: np.ndarray | None = None
    axes: np.ndarray | None = None

    def place(self, cycle: Real[np.ndarray, "k N"]) -> Float[np.ndarray, "k D"]:
        """The points of a cycle in the coordinates of the scene."""
        if self.lag is not None:
            return np.stack([np.roll(cycle[:, 0], j * self.lag) for j in range(len(self.labels))], axis=1)
        return np.asarray(cycle, float) if self.axes is None else (cycle - self.mean) @ self.axes


def scene_of(observed: Real[np.ndarray, "T N"], naming: Naming, dt: float | None) -> Scene:
    """The coordinates that an observed orbit is drawn in; an orbit of fewer than two points has a scene too."""
    observed = np.asarray(observed, float)
    n = observed.shape[1]
    labels = tuple(with_unit(name, naming.units) for name in naming.names)
    if n == 1:
        lag = naming.delay or (decorrelation_lag(observed[:, 0]) if len(observed) > 3 else 1)
        lag = max(1, min(lag, (len(observed) - 1) // 2))
        name = short(naming.names[0], 8)
        texts = (f"{name}(t)", f"{name}(t − τ)", f"{name}(t − 2τ)")
        length = max(len(observed) - 2 * lag, 0)
        columns = [observed[(2 - j) * lag : (2 - j) * lag + length, 0] for j in range(3)]
        time = "" if dt is None else f" ({number(lag * dt)} {naming.time_unit})"
        note = f"Delay coordinates with τ = {lag} samples{time}."
        return Scene(np.stack(columns, axis=1), tuple(with_unit(text, naming.units) for text in texts), 2 * lag, note, lag=lag)
    if n > 3 and len(observed) > 3:
        scale = observed.std(axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        mean = observed.mean(axis=0)
        size, vectors = np.linalg.eigh(np.cov(((observed - mean[None]) / scale[None]).T))
        axes = vectors[:, ::-1][:, :3]
        axes = axes * np.where(axes[np.abs(axes).argmax(0), range(3)] < 0, -1.0, 1.0)[None]
        share = size[-3:].sum() / max(size.sum(), np.finfo(float).tiny)
        note = f"The first three principal components of the orbit, each of the {n} variables standardised ({share:.0%} of the variance)."
        axes = axes / scale[:, None]
        return Scene((observed - mean[None]) @ axes, ("PC 1", "PC 2", "PC 3"), 0, note, mean=mean, axes=axes)
    return Scene(observed[:, :3], labels[:3])


def region_colour(label: int) -> str:
    """The colour of a region by its rank: ten colours, then grey."""
    return COLOURS[label] if 0 <= label < len(COLOURS) else REST


def kind_of(cycle: Cycle) -> str:
    """Which of `KINDS` it is drawn as."""
    if not cycle.hyperbolic:
        return "on the border"
    if cycle.stable:
        return "stable"
    return "unstable" if cycle.kind.startswith("unstable") else cycle.kind


def planes(dimension: int) -> tuple[tuple[int, int], ...]:
    """The pairs of coordinates whose planes are drawn side by side."""
    return {1: ((0, 0),), 2: ((0, 1),)}.get(dimension, ((0, 1), (0, 2), (1, 2)))


def window(labels: Real[np.ndarray, " T"], turn: int) -> int:
    """How many steps a code bar shows: some ten turns of the orbit, 200 to 2,000, and at most all."""
    return int(min(len(labels), np.clip(12 * turn, 200, 2000)))


def spread_rows(count: int, limit: int) -> np.ndarray:
    """At most `limit` rows of `count`, at equal distances."""
    return np.unique(np.linspace(0, max(count - 1, 0), min(count, limit)).astype(int)) if count else np.zeros(0, int)

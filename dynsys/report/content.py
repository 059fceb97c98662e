"""What a report says: plain values, filled by the caller, checked once here.

    run folder  ->  ReportContent  ->  one HTML page, or pictures for a paper

Nothing in this package trains, simulates or scores. All series are in the user's units; letters as everywhere:
T true points, S made points, N observed variables, L points of the overlay, F frequencies, C checkpoints.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dynsys.analysis.structure import Structure
from dynsys.errors import InvalidValue
from dynsys.metrics.score import Score
from dynsys.report.koopman_view import KoopmanView


@dataclass(frozen=True, kw_only=True)
class History:
    """The training of one seed at its C checkpoints.

    `scores` are those of the validation part, lower is better; `kept` is the step whose model was kept (None: no model of
    this seed was usable); `chosen` marks the seed that the report is about. Raises InvalidValue if lengths differ.
    """

    seed: int
    steps: np.ndarray  # (C,) updates
    loss: np.ndarray  # (C,)
    alpha: np.ndarray  # (C,) forcing strength, 0..1
    scores: np.ndarray  # (C,)
    kept: int | None = None
    chosen: bool = False
    score_name: str = "validation score"

    def __post_init__(self):
        for name in ("steps", "loss", "alpha", "scores"):
            _want_shape("History", name, getattr(self, name), np.shape(self.steps)[:1], "one value a checkpoint")


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Power spectra of the true data and of the free run on one grid of frequencies (cycles per unit of time).

    Raises InvalidValue if shapes differ.
    """

    frequencies: np.ndarray  # (F,)
    true: np.ndarray  # (F, N)
    made: np.ndarray  # (F, N)
    note: str = ""  # how they were computed, shown in the caption

    def __post_init__(self):
        _want_shape("Spectrum", "frequencies", self.frequencies, np.shape(self.frequencies)[:1], "one value a frequency")
        for name in ("true", "made"):
            _want_shape("Spectrum", name, getattr(self, name), (len(self.frequencies), *np.shape(self.true)[1:2]), "(F, N)")


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """A quantity of events that the user cares for (beat intervals, peak heights): all its values, true and made.

    `distance` is the Wasserstein-1 distance between the two sets in `unit`; None if it was not computed.
    """

    name: str
    unit: str | None
    true: np.ndarray  # (n,)
    made: np.ndarray  # (m,)
    distance: float | None = None

    def __post_init__(self):
        for name in ("true", "made"):
            _want_shape("Histogram", name, getattr(self, name), np.shape(getattr(self, name))[:1], "a list of values")


@dataclass(frozen=True, kw_only=True)
class BasinMap:
    """Where starts on a plane through a state of the attractor go: labels (ny, nx); -1 leaves all bounds, -2 is not decided.

    x (nx,), y (ny,): two observed variables in the user's units. names: of the attractors. marks (m, 2): the stable fixed points
    and cycles, trace (t, 2): the free run, both projected on the plane. Raises InvalidValue if shapes do not fit together.
    """

    labels: np.ndarray  # (ny, nx)
    x: np.ndarray  # (nx,)
    y: np.ndarray  # (ny,)
    xlabel: str
    ylabel: str
    names: tuple[str, ...]
    marks: np.ndarray  # (m, 2)
    trace: np.ndarray  # (t, 2)
    note: str = ""

    def __post_init__(self):
        _want_shape("BasinMap", "labels", self.labels, (len(self.y), len(self.x)), "one label a point of the grid")


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """Everything that the report shows.

    `overlay_true` and `overlay_made` begin at the same state, after which the model runs freely. A free run may hold NaN or
    inf where it died. `preparation` holds (what, what was chosen and why);
    `seed_values` adds the single seeds to the table of scores. Raises InvalidValue if shapes do not fit together,
    if `dt` is not positive or if a true series is empty.
    """

    title: str
    command: str
    created: str
    names: tuple[str, ...]
    units: str | None
    dt: float
    time_unit: str
    true: np.ndarray  # (T, N)
    made: np.ndarray  # (S, N)
    overlay_true: np.ndarray  # (L, N)
    overlay_made: np.ndarray  # (L, N)
    scores: tuple[Score, ...]
    histories: tuple[History, ...]
    spectrum: Spectrum | None
    histograms: tuple[Histogram, ...]
    summary: tuple[str, ...]
    settings_toml: str
    versions: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...] = ()
    preparation: tuple[tuple[str, str], ...] = ()
    data_notes: tuple[str, ...] = ()
    seed_values: tuple[tuple[str, tuple[float, ...]], ...] = ()  # name of a score, its value for every seed
    seconds: float | None = None
    delay: int | None = None  # samples; for delay coordinates of a single variable, chosen from `true` if None
    part: str = "test"  # the part of the recording that `true` is
    structure: Structure | None = None  # regions, fixed points, cycles and exponents of the model
    basins: BasinMap | None = None
    koopman: KoopmanView | None = None  # of a linear Koopman model: its eigenpairs, tested on the part

    def __post_init__(self):
        n = len(self.names)
        if not self.dt > 0:
            raise InvalidValue(f"ReportContent: dt must be positive, got dt={self.dt}. It is the sampling interval in {self.time_unit!r}.")
        for name in ("true", "made", "overlay_true", "overlay_made"):
            value = getattr(self, name)
            _want_shape("ReportContent", name, value, (*np.shape(value)[:1], n), "one row a time step and one column a name")
            if not len(value):
                raise InvalidValue(f"ReportContent: {name} has no rows; the report needs at least one time step of it.")
        for name, column in zip(self.names, np.any(np.isfinite(self.true), axis=0).tolist(), strict=True):
            if not column:
                raise InvalidValue(f"ReportContent: column {name!r} of true holds no finite number. Leave this column out.")
        if len(self.overlay_true) != len(self.overlay_made):
            raise InvalidValue(
                f"ReportContent: overlay_true and overlay_made must have equal length, got {len(self.overlay_true)} and "
                f"{len(self.overlay_made)}. Cut both to the common window."
            )
        if self.spectrum is not None and self.spectrum.true.shape[1] != n:
            raise InvalidValue(f"ReportContent: spectrum has {self.spectrum.true.shape[1]} columns, but there are {n} names.")
        if self.delay is not None and self.delay < 1:
            raise InvalidValue(f"ReportContent: delay must be at least 1 sample, got delay={self.delay}. Leave it out to have it chosen.")


def number(value: Any, digits: int = 3) -> str:
    """A number as the report prints it: three significant digits, `not finite` for NaN, `–` for None."""
    if value is None:
        return "–"
    try:
        value = float(value)
    except (TypeError, ValueError):
        return str(value)
    if np.isnan(value):
        return "not finite"
    if np.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.{digits}g}"
    if "e" in text and 1e-4 <= abs(value) < 1e7:
        text = f"{value:.0f}"
    mantissa, _, exponent = text.partition("e")
    mantissa = mantissa.replace("-", "−")
    return f"{mantissa}·10^{int(exponent)}".replace("^-", "^−") if exponent else mantissa


def _want_shape(where: str, name: str, value: Any, shape: tuple[int, ...], meaning: str) -> None:
    if np.shape(value) != shape or len(shape) == 0:
        raise InvalidValue(f"{where}: {name} must have shape {shape} ({meaning}), got {np.shape(value)}.")

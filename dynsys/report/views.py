"""From long series to what a picture can carry: projection, thinning, boxes. NumPy only.

    N = 1: delay coordinates (x(t), x(t-τ), x(t-2τ));  N = 2, 3: the variables;  N > 3: three principal components

A picture must not hide what happened, so thinning keeps both ends and all extremes, and a free run that leaves the drawn box
is counted in the caption.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Real

from dynsys.report.content import ReportContent, number

POINTS = 20_000  # of one trace
DOTS = 8_000  # of one trace in the plane, where each is an element of the page
PANELS = 6  # variables drawn in one figure


@dataclass(frozen=True)
class View:
    """The attractor as it is drawn, in 2 or 3 coordinates; rows of NaN break the line between stretches."""

    true: np.ndarray  # (t, D)
    made: np.ndarray  # (s, D)
    labels: tuple[str, ...]
    low: np.ndarray  # (D,)
    high: np.ndarray  # (D,)
    lines: bool  # False: dots, for maps whose successive points are far apart
    notes: tuple[str, ...]


def thin_series(values: Real[np.ndarray, " T"], limit: int = POINTS, *, at: Float[np.ndarray, " T"] | None = None) -> Int[np.ndarray, " n"]:
    """Rows of a series to draw, at most `limit`: both ends, and minimum and maximum of each of (limit - 2)/2 stretches.

    The stretches are equal in `at` (ascending places on the axis; the row numbers if None), so that a logarithmic axis keeps
    its left end. Infinities count as NaN; a stretch without a finite value stays as a gap.
    """
    count = len(values)
    if count <= limit:
        return np.arange(count)
    at = np.arange(count, dtype=float) if at is None else at
    stretches = max((limit - 2) // 2, 1)
    stretch = np.clip(((at - at[0]) / (at[-1] - at[0]) * stretches).astype(int), 0, stretches - 1)
    first = np.flatnonzero(np.diff(stretch, prepend=-1))
    bad = ~np.isfinite(values)
    low = np.lexsort((np.where(bad, np.inf, values), stretch))[first]  # sorted within each stretch, its least value first
    high = np.lexsort((np.where(bad, np.inf, -values), stretch))[first]
    return np.unique(np.concatenate([[0, count - 1], low, high]))


def thin_orbit(values: Float[np.ndarray, "T D"], limit: int = POINTS, *, lines: bool = True) -> Float[np.ndarray, "t D"]:
    """Points of an orbit to draw, at most `limit` rows: stretches spread over the whole run, both ends, all extremes.

    Within a stretch no point is left out, so that a line keeps its shape; a row of NaN stands between stretches. With
    lines=False single points are taken at equal distances instead.
    """
    count, dim = values.shape
    if count <= limit:
        return values
    finite = np.where(np.isfinite(values), values, np.nan)
    seen = [axis for axis in range(dim) if not np.all(np.isnan(finite[:, axis]))]
    peaks = np.array([f(finite[:, axis]) for axis in seen for f in (np.nanargmin, np.nanargmax)], int)
    if not lines:
        rows = np.linspace(0, count - 1, max(limit - len(peaks), 2)).astype(int)
        return values[np.unique(np.concatenate([rows, peaks]))]
    pieces = int(np.clip(limit // 500, 2, 20))
    around = max(limit // (20 * dim), 1)  # points drawn about each extreme
    length = max((limit - len(peaks) * (around + 1) - pieces) // pieces, 1)
    starts = np.linspace(0, count - length, pieces).astype(int)
    near = np.clip(peaks[:, None] + np.arange(around) - around // 2, 0, count - 1)
    rows = np.unique(np.concatenate([(starts[:, None] + np.arange(length)).ravel(), near.ravel(), peaks]))
    gaps = np.flatnonzero(np.diff(rows) > 1) + 1
    return np.insert(values[rows].astype(float), gaps, np.nan, axis=0)


def smooth(values: Float[np.ndarray, "T D"]) -> bool:
    """Whether successive points lie close to each other (a flow) or jump (a map): median step < 0.8 standard deviations."""
    if len(values) < 3:
        return True
    scale = np.nanstd(values, axis=0)
    step = np.nanmedian(np.abs(np.diff(values, axis=0)), axis=0)
    return bool(np.median(step / np.where(scale > 0, scale, 1.0)) < 0.8)


def decorrelation_lag(values: Float[np.ndarray, " T"]) -> int:
    """First lag, in samples, at which the autocorrelation is below 1/e; at least 1."""
    x = np.nan_to_num(values - np.nanmean(values))
    spectrum = np.abs(np.fft.rfft(x, 2 * len(x))) ** 2
    correlation = np.fft.irfft(spectrum)[: len(x)]
    below = np.flatnonzero(correlation < correlation[0] / np.e)
    return max(1, min(int(below[0]) if len(below) else 1, (len(x) - 1) // 3))


def project(content: ReportContent, limit: int = POINTS) -> View:
    """The attractor of the content in the coordinates that it is drawn in, thinned, with the box of both axes."""
    true, made, notes = _clean(content.true), _clean(content.made), []
    labels = tuple(with_unit(name, content.units) for name in content.names)
    if true.shape[1] == 1:
        delay = content.delay or decorrelation_lag(true[:, 0])
        delay = max(1, min(delay, (min(len(true), len(made)) - 1) // 2))
        true, made = _delayed(true[:, 0], delay), _delayed(made[:, 0], delay)
        name = short(content.names[0], 8)
        labels = tuple(with_unit(text, content.units) for text in (f"{name}(t)", f"{name}(t − τ)", f"{name}(t − 2τ)"))
        notes.append(f"Delay coordinates with τ = {delay} samples ({number(delay * content.dt)} {content.time_unit}).")
    elif true.shape[1] > 3:
        true, made, share = _principal(true, made)
        labels = ("PC 1", "PC 2", "PC 3")
        notes.append(
            f"The first three principal components of the {content.part} data, each of the {len(content.names)} variables "
            f"standardised; they carry {share:.0%} of its variance. The free run is projected on the same axes."
        )
    low, high, outside = _box(true, made)
    lines = smooth(true)
    limit = limit if lines or len(labels) == 3 else min(limit, DOTS)
    total = len(made)
    made = np.where(outside[:, None], np.nan, made)
    if outside.any():
        notes.append(f"{outside.sum():,} of {total:,} points of the free run are not finite or lie outside the drawn box.")
    long = [f"{len(series):,} of the {who}" for who, series in ((f"{content.part} data", true), ("free run", made)) if len(series) > limit]
    if long:
        how = "in stretches spread over the whole run" if lines else "at equal distances"
        notes.append(f"About {limit:,} points are drawn of {' and '.join(long)}, {how}, ends and extremes included.")
    return View(thin_orbit(true, limit, lines=lines), thin_orbit(made, limit, lines=lines), labels, low, high, lines, tuple(notes))


def forecast_error(content: ReportContent) -> Float[np.ndarray, " L"]:
    """Distance between truth and free run over the overlay window: root mean square over variables, in standard deviations of `true`."""
    scale = np.nanstd(content.true, axis=0)
    with np.errstate(invalid="ignore", over="ignore"):
        error = (np.asarray(content.overlay_made, float) - content.overlay_true) / np.where(scale > 0, scale, 1.0)[None, :]
        error = np.sqrt(np.mean(error**2, axis=1))
    return np.where(np.isfinite(error), error, np.nan)


def series_range(true: Real[np.ndarray, " L"], made: Real[np.ndarray, " L"]) -> tuple[float, float]:
    """Axis range of an overlay panel: that of the truth, widened to hold the free run by at most half of itself."""
    low, high, _ = _box(_clean(true)[:, None], _clean(made)[:, None])
    return float(low[0]), float(high[0])


def histogram(true: Real[np.ndarray, " n"], made: Real[np.ndarray, " m"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Common edges (k+1,) and the densities (k,) of two sets of values; bins by the Freedman–Diaconis rule, 8 to 60 of them.

    The edges span the true values and the central 99 % of the made ones. Returns three empty arrays if no value is finite.
    """
    true, made = true[np.isfinite(true)], made[np.isfinite(made)]
    ends = [
        np.array([values.min(), values.max()]) if i == 0 else np.quantile(values, [0.005, 0.995])
        for i, values in enumerate((true, made))
        if len(values)
    ]
    if not ends:
        return np.zeros(0), np.zeros(0), np.zeros(0)
    low, high = float(np.min(ends)), float(np.max(ends))
    if not high > low:
        low, high = low - 0.5, high + 0.5
    base = true if len(true) else made
    width = 2 * np.subtract(*np.quantile(base, [0.75, 0.25])) / max(len(base), 1) ** (1 / 3)
    bins = int(np.clip((high - low) / width, 8, 60)) if width > 0 else 20
    edges = np.linspace(low, high, bins + 1)
    size = edges[1] - edges[0]
    return edges, *(np.histogram(values, edges)[0] / (max(len(values), 1) * size) for values in (true, made))


def with_unit(name: str, unit: str | None) -> str:
    """`name [unit]`, or the name alone, both cut to what fits beside an axis."""
    return f"{short(name)} [{short(unit, 10)}]" if unit else short(name)


def short(text: str, length: int = 18) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def panel_columns(content: ReportContent) -> tuple[int, ...]:
    """The variables that get a panel of their own: the first six."""
    return tuple(range(min(len(content.names), PANELS)))


def panel_label(content: ReportContent, column: int) -> str:
    """Name and unit of a variable beside its panel; shorter where several low panels are stacked."""
    label = with_unit(content.names[column], content.units)
    return short(label, 16) if len(content.names) > 1 else label


def _clean(values: np.ndarray) -> np.ndarray:
    """As float64, infinities turned into NaN."""
    values = np.asarray(values, float)
    return np.where(np.isfinite(values), values, np.nan)


def _delayed(x: np.ndarray, delay: int) -> np.ndarray:
    length = len(x) - 2 * delay
    if length < 1:
        return np.repeat(x[:1, None], 3, axis=1)
    return np.stack([x[2 * delay :], x[delay : delay + length], x[:length]], axis=1)


def _principal(true: np.ndarray, made: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    mean, scale = np.nanmean(true, axis=0), np.nanstd(true, axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    true, made = (true - mean[None, :]) / scale[None, :], (made - mean[None, :]) / scale[None, :]
    size, axes = np.linalg.eigh(np.cov(np.nan_to_num(true), rowvar=False))
    axes = axes[:, ::-1][:, :3]
    axes = axes * np.where(axes[np.abs(axes).argmax(0), range(3)] < 0, -1.0, 1.0)[None, :]  # a sign that does not depend on the solver
    return true @ axes, made @ axes, float(size[-3:].sum() / max(size.sum(), np.finfo(float).tiny))


def _box(true: np.ndarray, made: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Low and high (D,) of the axes, and which made points (S,) are outside: the true range, widened by at most half of it."""
    low = np.where(np.isfinite(true), true, np.inf).min(axis=0)
    high = np.where(np.isfinite(true), true, -np.inf).max(axis=0)
    low, high = np.where(low <= high, low, 0.0), np.where(low <= high, high, 1.0)  # a column without a number
    width = np.where(high > low, high - low, 1.0)
    inside = np.all((made >= low - 0.5 * width) & (made <= high + 0.5 * width), axis=1)
    if inside.any():
        low, high = np.minimum(low, made[inside].min(axis=0)), np.maximum(high, made[inside].max(axis=0))
    margin = 0.04 * np.where(high > low, high - low, 1.0)
    return low - margin, high + margin, ~inside

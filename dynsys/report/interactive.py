"""The figures that can be turned, zoomed and read off: plain dictionaries for plotly.js, without colours.

Each trace carries a role (`true`, `made`, `kept`, `other`, `mark`, `reference`); page.js gives it the colour of the reader's
light or dark scheme. Arrays travel as base64 of float32, five bytes a number.
"""

import base64
import html
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dynsys.report.content import ReportContent, number
from dynsys.report.views import forecast_error, histogram, panel_columns, panel_label, project, series_range, short, thin_series, with_unit

TRUE, MADE = "data", "reconstruction"
Span = tuple[float | int, float | int]  # from, to


@dataclass
class Plot:
    """One figure: traces and layout of plotly.js, its height in pixels, and whether it needs WebGL."""

    height: int
    webgl: bool = False
    traces: list[dict[str, Any]] = field(default_factory=list)
    layout: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        self.layout.setdefault("annotations", [])

    def panel(self, index: int, x: Span, y: Span, x_title: str, y_title: str, **axes: dict[str, Any]) -> str:
        """Add a pair of axes on a rectangle of the figure (fractions); returns the suffix of their names."""
        suffix = "" if index == 0 else str(index + 1)
        self.layout[f"xaxis{suffix}"] = {"domain": x, "anchor": f"y{suffix}", "title": {"text": x_title}, **axes.get("x_axis", {})}
        self.layout[f"yaxis{suffix}"] = {"domain": y, "anchor": f"x{suffix}", "title": {"text": y_title}, **axes.get("y_axis", {})}
        return suffix

    def line(self, role: str, x: np.ndarray, y: np.ndarray, suffix: str, **trace: Any) -> None:
        """Add one curve; keywords overrule the trace's defaults."""
        base = {"type": "scatter", "mode": "lines", "meta": {"role": role}, "x": packed(x), "y": packed(y), "showlegend": False}
        self.traces.append(base | {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"} | trace)

    def title(self, text: str, x: float, y: float) -> None:
        """Put a heading at a place of the figure (fractions)."""
        place = {"x": x, "y": y, "xref": "paper", "yref": "paper", "xanchor": "center", "yanchor": "bottom", "showarrow": False}
        self.layout["annotations"].append({"text": text, "font": {"size": 14}, **place})


def packed(values: np.ndarray) -> dict[str, str]:
    """An array as plotly.js reads it: base64 of its float32 bytes; values that float32 can't hold become gaps."""
    with np.errstate(over="ignore"):
        array = np.asarray(values, np.float32)
    array = np.where(np.isfinite(array), array, np.float32(np.nan))
    return {"dtype": "f4", "bdata": base64.b64encode(array.astype("<f4").tobytes()).decode("ascii")}


def plain(text: str) -> str:
    """A user's text for plotly.js, which reads a little HTML: `<` and `&` shown as they are."""
    return html.escape(text, quote=False)


def attractor(content: ReportContent) -> Plot:
    """True and reconstructed attractor beside each other, on the same axes."""
    view = project(content)
    mode = "lines" if view.lines else "markers"
    labels = [plain(label) for label in view.labels]
    if len(labels) == 2:
        plot = Plot(470)
        for i, (role, points) in enumerate((("true", view.true), ("made", view.made))):
            x, y = ({"range": [view.low[k], view.high[k]]} for k in (0, 1))
            suffix = plot.panel(i, ((0, 0.47), (0.53, 1))[i], (0, 0.94), labels[0], labels[1], x_axis=x, y_axis=y)
            plot.line(role, points[:, 0], points[:, 1], suffix, mode=mode, hoverinfo="x+y", line={"width": 1.2}, marker={"size": 1.8})
    else:
        plot = Plot(560, webgl=True)
        for i, (role, points) in enumerate((("true", view.true), ("made", view.made))):
            axes = {f"{axis}axis": {"title": {"text": labels[k]}, "range": [view.low[k], view.high[k]]} for k, axis in enumerate("xyz")}
            scene = "scene" if i == 0 else "scene2"
            plot.layout[scene] = {**axes, "aspectmode": "cube", "domain": {"x": ((0, 0.495), (0.505, 1))[i], "y": (0, 0.95)}}
            xyz = {axis: packed(points[:, k]) for k, axis in enumerate("xyz")}
            style = {"type": "scatter3d", "mode": mode, "meta": {"role": role}, "scene": scene, "showlegend": False}
            plot.traces.append(
                style | xyz | {"line": {"width": 1.6 if len(points) > 5000 else 2.4}, "marker": {"size": 1.3}, "hoverinfo": "x+y+z"}
            )
    plot.title(TRUE, 0.24, 0.95)
    plot.title(MADE, 0.76, 0.95)
    return plot


def overlay(content: ReportContent) -> Plot:
    """The true series and the free run from the same start, a panel a variable, and their distance below."""
    columns = panel_columns(content)
    time = np.arange(len(content.overlay_true)) * content.dt
    tall = 130 if len(columns) > 1 else 220
    plot = Plot(60 + tall * len(columns) + 150)
    tops = _rows([tall] * len(columns) + [110], gap=26)
    for i, column in enumerate(columns):
        pair = (content.overlay_true[:, column], content.overlay_made[:, column])
        y_axis = {"range": series_range(*pair)}
        title = plain(panel_label(content, column))
        suffix = plot.panel(
            i, (0, 1), tops[i], "", title, x_axis={"showticklabels": False, "matches": _last_x(len(columns))}, y_axis=y_axis
        )
        for role, values, label in zip(("true", "made"), pair, (TRUE, MADE), strict=True):
            keep = thin_series(values)
            plot.line(role, time[keep], values[keep], suffix, name=label, showlegend=i == 0, line={"width": 1.5})
    error = forecast_error(content)
    x_title = f"time after the start of the free run [{plain(short(content.time_unit, 13))}]"
    suffix = plot.panel(len(columns), (0, 1), tops[-1], x_title, "distance [sd]", y_axis=log_axis([error]))
    keep = thin_series(error)
    plot.line("mark", time[keep], error[keep], suffix, name="distance", line={"width": 1.4})
    level = np.full(2, np.sqrt(2))
    plot.line("reference", time[[0, -1]], level, suffix, name="unrelated states", line={"dash": "dash", "width": 1.2})
    plot.layout["legend"] = {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"}
    return plot


def spectra(content: ReportContent) -> Plot | None:
    """Power against frequency, both axes logarithmic, a panel a variable; None if the content has no spectrum."""
    if content.spectrum is None or not np.any(content.spectrum.frequencies > 0):
        return None
    columns = panel_columns(content)
    across = min(len(columns), 3)
    down = -(-len(columns) // across)
    plot = Plot(60 + 270 * down)
    widths, heights = _columns(across), _rows([200] * down, gap=70)
    use = content.spectrum.frequencies > 0
    hertz = content.spectrum.frequencies[use]
    for i, column in enumerate(columns):
        title = plain(short(content.names[column]))
        log, power = log_axis([hertz]), log_axis([content.spectrum.true[use, column], content.spectrum.made[use, column]])
        y_title = "power" if i % across == 0 else ""
        x_title = f"{title}: frequency [1/{plain(short(content.time_unit, 13))}]"
        suffix = plot.panel(i, widths[i % across], heights[i // across], x_title, y_title, x_axis=log, y_axis=power)
        for role, values, label in (("true", content.spectrum.true, TRUE), ("made", content.spectrum.made, MADE)):
            height = np.where(values[use, column] > 0, values[use, column], np.nan)
            keep = thin_series(height, 1500, at=np.log(hertz))
            plot.line(role, hertz[keep], height[keep], suffix, name=label, showlegend=i == 0, line={"width": 1.4})
    plot.layout["legend"] = {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"}
    return plot


def histograms(content: ReportContent) -> Plot | None:
    """Densities of the user's events, made over true; None if there are none."""
    if not content.histograms:
        return None
    across = min(len(content.histograms), 3)
    down = -(-len(content.histograms) // across)
    plot = Plot(60 + 260 * down)
    widths, heights = _columns(across), _rows([200] * down, gap=70)
    for i, events in enumerate(content.histograms):
        edges, true, made = histogram(np.asarray(events.true, float), np.asarray(events.made, float))
        x_title = plain(with_unit(events.name, events.unit))
        y_title = "density" if i % across == 0 else ""
        suffix = plot.panel(i, widths[i % across], heights[i // across], x_title, y_title, y_axis={"rangemode": "tozero"})
        for role, values, label in (("true", true, TRUE), ("made", made, MADE)):
            x, y = steps_of(edges, values)
            fill = {"fill": "tozeroy"} if role == "true" else {}
            plot.line(role, x, y, suffix, name=label, showlegend=i == 0, line={"width": 1.6}, **fill)
    plot.layout["legend"] = {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"}
    return plot


def training(content: ReportContent) -> Plot | None:
    """Loss, forcing strength and validation score of every seed over the updates; None without a history."""
    runs = [run for run in content.histories if len(run.steps)]
    if not runs:
        return None
    plot = Plot(310)
    titles = ("loss", "forcing strength α", plain(runs[0].score_name))
    for i, (title, key, widths) in enumerate(zip(titles, ("loss", "alpha", "scores"), _columns(3), strict=True)):
        log = key != "alpha" and log_worthy([getattr(run, key) for run in runs])
        axis = log_axis([getattr(run, key) for run in runs]) if log else {}
        axis |= {"range": [-0.04, 1.04]} if key == "alpha" else {}
        suffix = plot.panel(i, widths, (0, 1), "update", title, y_axis=axis)
        for run in sorted(runs, key=lambda run: run.chosen):
            role, label = ("kept", f"seed {run.seed} (chosen)") if run.chosen else ("other", f"seed {run.seed}")
            values = np.asarray(getattr(run, key), float)
            steps = np.asarray(run.steps, float)
            keep = thin_series(values, 2000)
            style = {"name": label, "mode": "lines+markers" if len(keep) < 2 else "lines", "line": {"width": 2.2 if run.chosen else 1.2}}
            plot.line(role, steps[keep], values[keep], suffix, **style)
            at = np.flatnonzero(steps == run.kept)[:1]
            if key == "scores" and len(at):
                marker = {"size": 10 if run.chosen else 6, "symbol": "circle"}
                plot.line(role, steps[at], values[at], suffix, mode="markers", marker=marker, name=f"kept model of {label}")
    return plot


def log_worthy(curves: list[np.ndarray]) -> bool:
    """Whether a logarithmic axis shows the curves: all finite values positive, and they span more than a factor of five."""
    values = np.concatenate([np.asarray(curve, float).ravel() for curve in curves])
    values = values[np.isfinite(values)]
    return bool(len(values) and values.min() > 0 and values.max() > 5 * values.min())


def log_axis(curves: list[np.ndarray]) -> dict[str, Any]:
    """A logarithmic axis with a tick every so many decades, or at 1, 2 and 5 if it spans less than one and a half."""
    values = np.concatenate([np.asarray(curve, float).ravel() for curve in curves])
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return {}
    low, high = float(np.log10(values.min())), float(np.log10(values.max()))
    axis: dict[str, Any] = {"type": "log", "exponentformat": "power"}
    if high - low > 1.5:
        return axis | {"dtick": float(np.ceil((high - low) / 6))}
    ticks = [digit * 10.0**power for power in range(int(np.floor(low)), int(np.ceil(high)) + 1) for digit in (1, 2, 5)]
    return axis | {"exponentformat": "none", "tickvals": ticks, "ticktext": [number(tick) for tick in ticks]}


def steps_of(edges: np.ndarray, heights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The outline of a histogram, from zero to zero: (2k+2,) abscissae and heights."""
    if not len(edges):
        return np.zeros(0), np.zeros(0)
    return np.repeat(edges, 2), np.concatenate([[0.0], np.repeat(heights, 2), [0.0]])


def _rows(pixels: list[int], *, gap: int) -> list[Span]:
    """Vertical domains of stacked panels, top first."""
    total = sum(pixels) + gap * (len(pixels) - 1)
    tops = [1 - (sum(pixels[:i]) + gap * i) / total for i in range(len(pixels))]
    return [(max(top - size / total, 0.0), top) for top, size in zip(tops, pixels, strict=True)]


def _columns(count: int) -> list[Span]:
    gap = 0.085
    width = (1 - gap * (count - 1)) / count
    return [(i * (width + gap), min(i * (width + gap) + width, 1.0)) for i in range(count)]


def _last_x(panels: int) -> str:
    return f"x{panels + 1}"

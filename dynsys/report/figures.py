"""Still pictures: for a paper, for the README, and for a reader of the page without WebGL or on paper.

    static_figures(content, folder) -> attractor, overlay, spectra, history, histograms
    hero(content, path)             -> one wide picture of true and reconstructed attractor over the time series

Colours and style are those of dynsys.report.canvas.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from dynsys.errors import InvalidValue
from dynsys.report.canvas import (
    BLUE,
    FORMATS,
    GREY,
    INK,
    ORANGE,
    STYLE,
    canvas,
    encoded,
    few_colours,
    load_matplotlib,
    margins,
    safe,
    write,
)
from dynsys.report.content import ReportContent, number
from dynsys.report.interactive import MADE, TRUE, log_axis, log_worthy, steps_of
from dynsys.report.views import (
    View,
    forecast_error,
    histogram,
    panel_columns,
    panel_label,
    project,
    series_range,
    short,
    thin_series,
    with_unit,
)


def static_figures(content: ReportContent, folder: str | os.PathLike[str], format: str = "png") -> tuple[Path, ...]:
    """Write attractor, overlay, spectra, history and histograms as files of one format; returns the paths written.

    `format` is png (200 dpi), pdf or svg. What the content does not have (no spectrum, no history) is left out. The folder is
    made if needed. Raises InvalidValue for another format and MissingExtra if matplotlib is absent.
    """
    if format not in FORMATS:
        raise InvalidValue(f"static_figures: format must be one of {', '.join(FORMATS)}, got {format!r}.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, data in pictures(content, format, dpi=200).items():
        written.append(write(folder / f"{name}.{format}", data))
    return tuple(written)


def pictures(content: ReportContent, format: str = "png", *, dpi: int = 110, small: bool = False) -> dict[str, bytes]:
    """All still pictures as bytes, by name: attractor, overlay and, where there is something to show, spectra, histograms, history.

    small=True keeps 128 colours of a png. Raises MissingExtra if matplotlib is absent.
    """
    drawers = {"attractor": _attractor, "overlay": _overlay, "spectra": _spectra, "histograms": _histograms, "history": _history}
    matplotlib = load_matplotlib()
    made = {}
    with matplotlib.rc_context(STYLE):
        for name, draw in drawers.items():
            figure = draw(content)
            if figure is not None:
                data = encoded(figure, format, dpi)
                made[name] = few_colours(data) if small and format == "png" else data
    return made


def hero(content: ReportContent, path: str | os.PathLike[str]) -> Path:
    """Write the one wide picture (1600 x 900 if png): true attractor left, reconstructed right, the time series below.

    The suffix of the path chooses png, pdf or svg. Raises InvalidValue for another one, MissingExtra without matplotlib.
    """
    path = Path(path)
    if path.suffix[1:] not in FORMATS:
        raise InvalidValue(f"hero: the file must end in .png, .pdf or .svg, got {path.name!r}.")
    with load_matplotlib().rc_context(STYLE | {"font.size": 15, "axes.linewidth": 1.0}):
        figure = canvas(16.0, 9.0)
        figure.text(0.03, 0.945, safe(content.title), fontsize=24, fontweight="bold", va="center")
        view = project(content)
        depth = len(view.labels) == 3
        for place, role in (((0.03, 0.30, 0.46, 0.60), "true"), ((0.51, 0.30, 0.46, 0.60), "made")):
            if not depth:
                place = (place[0] + 0.04, place[1] + 0.08, place[2] - 0.06, place[3] - 0.11)
            _cloud(figure, place, view, role, bare=True)
            label = TRUE if role == "true" else MADE
            figure.text(place[0] + place[2] / 2, 0.88, label, color=BLUE if role == "true" else ORANGE, fontsize=19, ha="center")
        axes = figure.add_axes((0.06, 0.085, 0.91, 0.185))
        _compare(axes, content, 0, width=1.8)
        axes.set_xlabel(safe(f"time [{short(content.time_unit, 13)}]"))
        axes.set_ylabel(safe(with_unit(content.names[0], content.units)))
        data = encoded(figure, path.suffix[1:], 100)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write(path, data)


def _attractor(content: ReportContent) -> Any:
    view = project(content)
    depth = len(view.labels) == 3
    figure = canvas(10.0, 4.9 if depth else 4.4)
    for i, role in enumerate(("true", "made")):
        left = 0.5 * i
        place = (left + 0.01, 0.03, 0.44, 0.88) if depth else (left + 0.07, 0.14, 0.40, 0.76)
        _cloud(figure, place, view, role)
        figure.text(place[0] + place[2] / 2, 0.95, TRUE if i == 0 else MADE, color=(BLUE, ORANGE)[i], ha="center", fontsize=12)
    return figure


def _cloud(figure: Any, place: tuple[float, float, float, float], view: View, role: str, *, bare: bool = False) -> None:
    """One attractor in a rectangle of the figure, in 2 or 3 coordinates."""
    points, color = (view.true, BLUE) if role == "true" else (view.made, ORANGE)
    depth = points.shape[1] == 3
    axes = figure.add_axes(place, projection="3d") if depth else figure.add_axes(place)
    width = float(np.clip(40 / np.sqrt(len(points)), 0.55, 1.2))
    style: dict[str, Any] = {"lw": width, "alpha": 0.8} if view.lines else {"ls": "", "marker": ".", "ms": 1.5, "mew": 0}
    axes.plot(*points.T, color=color, rasterized=len(points) > 5000, clip_on=not bare, **style)
    axes.set_xlim(view.low[0], view.high[0])
    axes.set_ylim(view.low[1], view.high[1])
    axes.set_xlabel(safe(view.labels[0]))
    axes.set_ylabel(safe(view.labels[1]))
    if not depth:
        return
    axes.set_zlim(view.low[2], view.high[2])
    axes.set_zlabel(safe(view.labels[2]))
    axes.locator_params(nbins=5)
    axes.set_box_aspect(None, zoom=1.55 if bare else 0.9)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_pane_color((1, 1, 1, 0))
    if bare:
        axes.set_axis_off()


def _overlay(content: ReportContent) -> Any:
    columns = panel_columns(content)
    tall = 1.15 if len(columns) > 1 else 1.9
    figure = canvas(10.0, 1.0 + tall * len(columns) + 1.3)
    rows = figure.subplots(len(columns) + 1, 1, sharex=True, height_ratios=[tall] * len(columns) + [1.1])
    for axes, column in zip(rows, columns, strict=False):
        _compare(axes, content, column)
        axes.set_ylabel(safe(panel_label(content, column)))
    rows[0].legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.2)
    error = forecast_error(content)
    time = np.arange(len(error)) * content.dt
    rows[-1].axhline(np.sqrt(2), color=GREY, ls="--", lw=0.9)
    rows[-1].plot(time, np.where(error > 0, error, np.nan), color=INK, lw=1.0)
    _logarithmic(rows[-1].yaxis, [error])
    rows[-1].set(xlabel=safe(f"time after the start of the free run [{short(content.time_unit, 13)}]"), ylabel="distance [sd]")
    for axes in rows:
        axes.yaxis.set_label_coords(-0.06, 0.5)
    margins(figure, top=0.32, gap=0.12)
    return figure


def _compare(axes: Any, content: ReportContent, column: int, *, width: float = 1.1) -> None:
    """True series and free run of one variable."""
    time = np.arange(len(content.overlay_true)) * content.dt
    pair = (content.overlay_true[:, column], content.overlay_made[:, column])
    for values, color, label in zip(pair, (BLUE, ORANGE), (TRUE, MADE), strict=True):
        keep = thin_series(values)
        axes.plot(time[keep], np.where(np.isfinite(values[keep]), values[keep], np.nan), color=color, lw=width, label=label)
    axes.set_ylim(*series_range(*pair))
    axes.set_xlim(time[0], max(time[-1], content.dt))


def _spectra(content: ReportContent) -> Any:
    if content.spectrum is None or not np.any(content.spectrum.frequencies > 0):
        return None
    columns = panel_columns(content)
    panels = _grid(len(columns), 2.9)
    use = content.spectrum.frequencies > 0
    for axes, column in zip(panels, columns, strict=True):
        for values, color, label in ((content.spectrum.true, BLUE, TRUE), (content.spectrum.made, ORANGE, MADE)):
            height = values[use, column]
            axes.plot(content.spectrum.frequencies[use], np.where(height > 0, height, np.nan), color=color, lw=1.0, label=label)
        _logarithmic(axes.xaxis, [content.spectrum.frequencies[use]])
        _logarithmic(axes.yaxis, [content.spectrum.true[use, column], content.spectrum.made[use, column]])
        axes.set(xlabel=safe(f"{short(content.names[column])}: frequency [1/{short(content.time_unit, 13)}]"))
    panels[0].set_ylabel("power")
    panels[0].legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.2)
    return panels[0].figure


def _histograms(content: ReportContent) -> Any:
    if not content.histograms:
        return None
    panels = _grid(len(content.histograms), 2.7)
    for axes, events in zip(panels, content.histograms, strict=True):
        edges, true, made = histogram(np.asarray(events.true, float), np.asarray(events.made, float))
        axes.fill_between(*steps_of(edges, true), color=BLUE, alpha=0.25, lw=0)
        axes.plot(*steps_of(edges, true), color=BLUE, lw=1.1, label=TRUE)
        axes.plot(*steps_of(edges, made), color=ORANGE, lw=1.3, label=MADE)
        axes.set(xlabel=safe(with_unit(events.name, events.unit)), ylim=(0, None))
    panels[0].set_ylabel("density")
    panels[0].legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.2)
    return panels[0].figure


def _history(content: ReportContent) -> Any:
    runs = sorted((run for run in content.histories if len(run.steps)), key=lambda run: run.chosen)
    if not runs:
        return None
    panels = _grid(3, 2.9)
    for axes, key, title in zip(panels, ("loss", "alpha", "scores"), ("loss", "forcing strength α", runs[0].score_name), strict=True):
        for run in runs:
            color, width = (ORANGE, 1.8) if run.chosen else (GREY, 0.9)
            values = np.asarray(getattr(run, key), float)
            values = np.where(np.isfinite(values), values, np.nan)
            axes.plot(run.steps, values, color=color, lw=width, marker="." if len(values) < 2 else "")
            at = np.flatnonzero(np.asarray(run.steps) == run.kept)[:1]
            if key == "scores" and len(at):
                axes.plot(np.asarray(run.steps)[at], values[at], color=color, marker="o", ms=6 if run.chosen else 4, ls="")
        if key == "alpha":
            axes.set_ylim(-0.04, 1.04)
        elif log_worthy([getattr(run, key) for run in runs]):
            _logarithmic(axes.yaxis, [getattr(run, key) for run in runs])
        axes.set(xlabel="update", title=safe(title))
    return panels[0].figure


def _logarithmic(axis: Any, curves: list[np.ndarray]) -> None:
    """Make an axis logarithmic, with the same ticks as in the live figure; it stays linear if no value is positive."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    ticks = log_axis(curves)
    if not ticks:
        return
    (axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale)("log")
    axis.set_minor_formatter(NullFormatter())
    if "tickvals" in ticks:
        axis.set_major_locator(FixedLocator(ticks["tickvals"]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def _grid(count: int, tall: float) -> list[Any]:
    """Up to three panels a row, each row `tall` inches high."""
    across = min(count, 3)
    down = -(-count // across)
    figure = canvas(10.0, tall * down)
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes in panels[count:]:
        axes.set_visible(False)
    margins(figure, top=0.35, gap=0.45)
    return list(panels[:count])

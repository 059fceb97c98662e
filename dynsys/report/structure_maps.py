"""Pictures of scans: scores over P with their knee, basins of attraction on a plane, branches over a parameter.

All of them take plain arrays, so that they draw what `dynsys scan`, `basins` and `follow` found, and anything else of that shape.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Real

from dynsys.analysis.piecewise.branches import Branches
from dynsys.report.canvas import BLUE, GREY, INK, ORANGE, canvas, safe
from dynsys.report.content import BasinMap
from dynsys.report.interactive import log_worthy
from dynsys.report.structure_view import COLOURS

DEAD = 1e6  # the score of a model whose free run dies
AWAY, UNDECIDED = "#ffffff", "#d9dde2"
EVENTS = ("o", "D", "s", "^", "v", "P", "X", "*")


@dataclasses.dataclass(frozen=True)
class Line:
    """One branch: parameter values (n,), heights (n, c) (c points of a cycle, or one), which are stable (n,), its name."""

    values: Float[np.ndarray, " n"]
    heights: Float[np.ndarray, "n c"]
    stable: Bool[np.ndarray, " n"]
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Event:
    """A bifurcation: where it is drawn, and what it is called."""

    value: float
    height: float
    kind: str


def knee_figure(
    values: Sequence[int],
    scores: Sequence[Sequence[float]],
    knee: int | None,
    *,
    allowance: float = float("nan"),
    regions: Sequence[int] = (),
) -> Any:
    """Free-run scores of all seeds over the number P of rectified units, the best of each joined; below, the regions visited."""
    figure = canvas(6.4, 4.2 if len(regions) else 3.4)
    ratios = (3, 1) if len(regions) else (1,)
    panels = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    axes = panels[0]
    table = [np.asarray(row, float) for row in scores]
    alive = [row[(row < DEAD) & np.isfinite(row)] for row in table]
    place = np.arange(len(values))
    for at, row in zip(place, alive, strict=True):
        axes.plot(np.full(len(row), at), row, ls="", marker="o", ms=4.5, mfc="none", mec=GREY, mew=0.9, zorder=2)
    best = np.array([row.min() if len(row) else np.nan for row in alive])
    axes.plot(place, best, color=BLUE, marker="o", ms=5, lw=1.5, zorder=3)
    if np.isfinite(best).any():
        if log_worthy([row for row in alive if len(row)]):
            axes.set_yscale("log")
        if np.isfinite(allowance):
            axes.axhspan(float(np.nanmin(best)), float(np.nanmin(best)) + allowance, color=BLUE, alpha=0.09, lw=0, zorder=0)
    if knee is not None and knee in values:
        at = list(values).index(knee)
        axes.plot(at, best[at], ls="", marker="o", ms=12, mfc="none", mec=ORANGE, mew=1.8, zorder=4)
        axes.annotate(f"knee: P = {knee}", (at, best[at]), xytext=(12, 12), textcoords="offset points", color=ORANGE, fontweight="bold")
    for at, row, good in zip(place, table, alive, strict=True):
        if len(good) < len(row):
            axes.text(at, 1.01, f"{len(row) - len(good)} dead", transform=axes.get_xaxis_transform(), ha="center", va="bottom", fontsize=8)
    if not np.isfinite(best).any():  # no scores, so no scale of scores
        axes.set(yticks=[])
        axes.text(0.5, 0.5, "the free run of every model dies", transform=axes.transAxes, ha="center", va="center", color=INK)
    axes.set_ylabel("free-run score")
    if len(regions):
        panels[1].bar(place, regions, width=0.5, color=GREY)
        panels[1].set_ylabel("regions")
        for at, count in zip(place, regions, strict=True):
            panels[1].text(at, count, f"{count:,}" if count else "diverged", ha="center", va="bottom", fontsize=8)
        panels[1].set_ylim(0, max([*regions, 1]) * 1.35)
    panels[-1].set(xticks=place, xticklabels=[str(value) for value in values], xlabel="rectified units P", xlim=(-0.5, len(values) - 0.5))
    figure.subplots_adjust(left=0.12, right=0.97, bottom=0.13, top=0.93, hspace=0.12)
    figure.align_ylabels()
    return figure


def basins_figure(found: BasinMap) -> Any:
    """Which attractor the orbit of each start on a plane goes to, with the free run and the stable cycles projected on it."""
    from matplotlib.colors import ListedColormap
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    figure = canvas(8.0, 4.4)
    axes = figure.add_axes((0.095, 0.13, 0.505, 0.83))
    x, y, labels = found.x, found.y, found.labels
    shown = np.clip(labels, -2, len(COLOURS) - 1) + 2
    colours = ListedColormap([UNDECIDED, AWAY, *(_pale(colour) for colour in COLOURS)])
    step = [0.5 * (axis[-1] - axis[0]) / max(len(axis) - 1, 1) for axis in (x, y)]
    extent = (x[0] - step[0], x[-1] + step[0], y[0] - step[1], y[-1] + step[1])
    scale = {"cmap": colours, "vmin": -0.5, "vmax": len(COLOURS) + 1.5, "interpolation": "nearest"}
    axes.imshow(shown, origin="lower", extent=extent, aspect="auto", **scale)
    handles = []
    for label, count in zip(*(part.tolist() for part in np.unique(labels, return_counts=True)), strict=True):
        fill = _pale(COLOURS[min(label, len(COLOURS) - 1)]) if label >= 0 else AWAY if label == -1 else UNDECIDED
        name = {-1: "leaves all bounds", -2: "not decided"}.get(label) or (
            found.names[label] if label < len(found.names) else f"attractor {label}"
        )
        handles.append(Patch(fc=fill, ec=GREY, lw=0.6, label=f"{name}, {count / labels.size:.1%}"))
    if len(found.trace):
        axes.plot(*found.trace.T, ls="", marker=".", ms=1.3, mew=0, color=INK, alpha=0.5, rasterized=True)
        handles.append(Line2D([], [], ls="", marker=".", ms=5, color=INK, label="free run (projected)"))
    if len(found.marks):
        style = {"ls": "", "marker": "X", "ms": 8, "mfc": INK, "mec": "white", "mew": 0.9}
        axes.plot(*found.marks.T, **style)
        handles.append(Line2D([], [], label="stable cycle (projected)", **style))
    for spine in axes.spines.values():
        spine.set_visible(True)
    axes.set(xlabel=safe(found.xlabel), ylabel=safe(found.ylabel), xlim=extent[:2], ylim=extent[2:])
    figure.legend(handles=handles, loc="center left", bbox_to_anchor=(0.61, 0.55))
    return figure


def bifurcation_figure(
    lines: Sequence[Line], events: Sequence[Event] = (), *, xlabel: str, ylabel: str, cloud: Real[Any, "p 2"] | None = None
) -> Any:
    """Branches over a parameter: solid where stable, dashed where not; events as marks. cloud (p, 2): attractors behind them."""
    from matplotlib.lines import Line2D

    figure = canvas(7.6, 4.4)
    axes = figure.add_axes((0.1, 0.13, 0.62, 0.83))
    if cloud is not None and len(cloud):
        axes.plot(*np.asarray(cloud, float).T, ls="", marker=".", ms=1.0, mew=0, color=GREY, alpha=0.6, rasterized=True, zorder=1)
    handles = []
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        for rows, style in ((line.stable, "-"), (~line.stable, "--")):
            keep = rows.copy()
            if style == "--":  # as far as the neighbours: no gap where stability changes
                keep[1:] |= rows[:-1]
                keep[:-1] |= rows[1:]
            for column in line.heights.T:
                axes.plot(line.values, np.where(keep, column, np.nan), ls=style, lw=1.5 if style == "-" else 1.1, color=colour, zorder=2)
        if line.name and len(lines) <= len(COLOURS):
            handles.append(Line2D([], [], color=colour, lw=1.6, label=line.name))
    kinds = list(dict.fromkeys(event.kind for event in events))
    low, high = axes.get_ylim()  # of the branches: one that vanishes at infinity is marked at the edge
    axes.set_ylim(low, high)
    for event in events:
        mark, height = EVENTS[kinds.index(event.kind) % len(EVENTS)], min(max(event.height, low), high)
        axes.plot(event.value, height, ls="", clip_on=False, marker=mark, ms=7, mfc="white", mec=INK, mew=1.2, zorder=4)
    handles += [Line2D([], [], color=INK, lw=1.5, label="stable"), Line2D([], [], color=INK, lw=1.1, ls="--", label="unstable")]
    for number, kind in enumerate(kinds):
        style = {"marker": EVENTS[number % len(EVENTS)], "ms": 7, "mfc": "white", "mec": INK, "mew": 1.2}
        handles.append(Line2D([], [], ls="", label=kind, **style))
    axes.set(xlabel=safe(xlabel), ylabel=safe(ylabel))
    figure.legend(handles=handles, loc="center left", bbox_to_anchor=(0.735, 0.55))
    return figure


def branches_figure(found: Branches, *, xlabel: str, ylabel: str, coordinate: int = 0, cloud: Real[Any, "p 2"] | None = None) -> Any:
    """What `follow` found, in one coordinate of the state; keywords else as in `bifurcation_figure`."""
    names = ["equilibrium" if one.continuous else "fixed point" if one.period == 1 else f"{one.period}-cycle" for one in found.branches]
    lines = [Line(one.values, one.coordinate(coordinate), one.stable, name) for one, name in zip(found.branches, names, strict=True)]
    events = [Event(event.value, float(event.points[0, coordinate]), event.kind) for event in found.events]
    return bifurcation_figure(lines, events, xlabel=xlabel, ylabel=ylabel, cloud=cloud)


def _pale(colour: str) -> tuple[float, ...]:
    """A colour mixed with white, so that marks stand out on areas of it."""
    return tuple(0.55 * int(colour[i : i + 2], 16) / 255 + 0.45 for i in (1, 3, 5))

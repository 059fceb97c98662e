"""Pictures of what was read off a map: regions, cycles, eigenvalues, and the symbolic code under the time series.

    regions       the attractor, each state in the colour of its region
    cycles        fixed points and cycles drawn into the attractor, by kind
    eigenvalues   those of all cycles, with the unit circle
    code          the time series over a bar of the regions visited

Every function takes plain arrays and records and returns a figure of matplotlib; the pictures in `structure_graph` and
`structure_maps` are made in the same way.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Real

from dynsys.analysis.piecewise.cycle import Cycle
from dynsys.report.canvas import GREY, INK, canvas, safe
from dynsys.report.structure_view import KINDS, REST, Scene, kind_of, planes, region_colour, spread_rows
from dynsys.report.views import smooth, thin_series

POINTS = 12_000  # states drawn
NAMED = 10  # regions in a legend
LOOPS = 12  # cycles of period above 1 that are drawn
FAINT = "#c9ced4"


def regions_figure(scene: Scene, labels: Int[np.ndarray, " T"]) -> Any:
    """The attractor coloured by region; labels (T,) of the states behind the points of the scene, 0 the most visited."""
    labels = labels[scene.first : scene.first + len(scene.points)]
    depth = scene.points.shape[1] == 3
    figure = canvas(6.2, 4.2)
    place = (-0.02, 0.0, 0.75, 1.0) if depth else (0.11, 0.13, 0.59, 0.83)
    axes = figure.add_axes(place, projection="3d") if depth else figure.add_axes(place)
    rows = spread_rows(len(scene.points), POINTS)
    size = float(np.clip(6e4 / max(len(rows), 1), 1.5, 14))
    colours = np.array([region_colour(label) for label in range(NAMED)] + [REST])[np.minimum(labels[rows], NAMED)]
    axes.scatter(*scene.points[rows].T, c=colours, s=size, lw=0, rasterized=len(rows) > 3000, **({"depthshade": False} if depth else {}))
    _name_axes(axes, scene, range(scene.points.shape[1]))
    counts = np.bincount(labels[labels >= 0])
    handles = [_dot(region_colour(label), f"region {label}: {_share(counts[label], counts)}") for label in range(min(len(counts), NAMED))]
    if len(counts) > NAMED:
        handles.append(_dot(REST, f"{len(counts) - NAMED:,} more: {_share(int(counts[NAMED:].sum()), counts)}"))
    figure.legend(
        handles=handles, loc="center left", bbox_to_anchor=(0.735, 0.52), title=f"{len(counts):,} regions visited", alignment="left"
    )
    return figure


def cycles_figure(
    scene: Scene, cycles: Sequence[Cycle], positions: Sequence[np.ndarray], truth: Float[np.ndarray, "E N"] | None = None
) -> Any:
    """Fixed points and the shortest cycles in the attractor, by kind; positions: of each its (k, N) observations.

    truth: fixed points of the true system, as crosses. Points far outside the attractor are left out, and counted in the legend.
    """
    pairs = planes(scene.points.shape[1])
    figure = canvas(10.0 if len(pairs) > 1 else 6.4, 3.7 if len(pairs) > 1 else 4.6)
    panels = figure.subplots(1, len(pairs), squeeze=False)[0]
    low, high = _limits(scene)
    placed = [(cycle, scene.place(position)) for cycle, position in zip(cycles, positions, strict=True)]
    inside = [(cycle, points) for cycle, points in placed if ((points >= low) & (points <= high)).all()]
    fixed = [pair for pair in inside if pair[0].period == 1]
    loops = [pair for pair in inside if pair[0].period > 1]
    for axes, (i, j) in zip(panels, pairs, strict=True):
        _backdrop(axes, scene, i, j)
        for cycle, points in loops[:LOOPS]:
            colour = KINDS[kind_of(cycle)][0]
            ring = points[np.r_[0 : len(points), 0]]
            axes.plot(ring[:, i], ring[:, j], color=colour, lw=0.8, marker=".", ms=4, alpha=0.85, zorder=3)
        for cycle, points in fixed:
            colour, marker = KINDS[kind_of(cycle)]
            axes.plot(points[:, i], points[:, j], ls="", marker=marker, ms=7.5, mfc=colour, mec="white", mew=0.9, zorder=5)
        if truth is not None and len(truth):
            known = np.concatenate([scene.place(point[None]) for point in truth])
            known = known[((known >= low) & (known <= high)).all(axis=1)]
            axes.plot(known[:, i], known[:, j], ls="", marker="+", ms=13, mew=1.4, color=INK, zorder=6)
        axes.set(xlim=(low[i], high[i]), ylim=(low[j], high[j]))
        _name_axes(axes, scene, (i, j))
    handles = _cycle_legend(fixed, loops, truth is not None and len(truth) > 0, len(placed) - len(inside))
    figure.subplots_adjust(left=0.07 if len(pairs) > 1 else 0.12, right=0.985, bottom=0.28, top=0.97, wspace=0.32)
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=min(4 if len(pairs) > 1 else 2, max(len(handles), 1)),
        bbox_to_anchor=(0.5, 0.0),
        columnspacing=1.4,
    )
    return figure


def eigenvalues_figure(cycles: Sequence[Cycle], virtual: Sequence[Cycle] = ()) -> Any:
    """Eigenvalues of all cycles in the complex plane, a k-cycle's shrunk to one step: |λ|^(1/k) at the angle of λ.

    Filled: fixed points and cycles by kind; hollow: virtual ones. The circle is the border of stability.
    """
    figure = canvas(6.6, 4.2)
    axes = figure.add_axes((0.1, 0.13, 0.53, 0.84))
    turn = np.linspace(0, 2 * np.pi, 400)
    axes.plot(np.cos(turn), np.sin(turn), color=GREY, lw=1.0, zorder=1)
    axes.axhline(0, color="#e3e6ea", lw=0.7, zorder=0)
    axes.axvline(0, color="#e3e6ea", lw=0.7, zorder=0)
    handles, seen = [], [np.zeros((0, 2))]
    for cycle in virtual:
        axes.plot(*per_step(cycle).T, ls="", marker="o", ms=4, mfc="none", mec=GREY, mew=0.6, zorder=2)
    for kind, (colour, marker) in KINDS.items():
        for short, name in ((True, "fixed point"), (False, "cycle")):
            some = [cycle for cycle in cycles if kind_of(cycle) == kind and (cycle.period == 1) == short]
            if not some:
                continue
            at = np.concatenate([per_step(cycle) for cycle in some])
            seen.append(at)
            style = {"ms": 6.5, "mec": "white", "mew": 0.7} if short else {"ms": 3.2, "mec": colour, "mew": 0.0}
            axes.plot(*at.T, ls="", marker=marker, mfc=colour, zorder=4 if short else 3, **style)
            handles.append(_mark(colour, marker, f"{kind}, {_count(len(some), name)}", style["ms"]))
    if virtual:
        handles.append(_mark("none", "o", f"{_count(len(virtual), 'virtual one')}", 4, edge=GREY))
    handles.append(_line(GREY, "unit circle"))
    size = max(1.15, 1.08 * float(np.abs(np.concatenate(seen)).max(initial=0.0)))
    axes.set(xlim=(-size, size), ylim=(-size, size), aspect="equal", xlabel="Re λ (per step)", ylabel="Im λ (per step)")
    figure.legend(handles=handles, loc="center left", bbox_to_anchor=(0.64, 0.55))
    return figure


def code_figure(series: Real[np.ndarray, " T"], labels: Int[np.ndarray, " T"], *, name: str, dt: float | None, time_unit: str) -> Any:
    """One observed variable over a bar whose colour is the region of each step."""
    figure = canvas(9.6, 3.2)
    top, bar = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
    step = 1.0 if dt is None else dt
    time = np.arange(len(series)) * step
    keep = thin_series(np.asarray(series, float), 4000)
    line = {"ls": "-", "lw": 1.0} if smooth(np.asarray(series, float)[:, None]) else {"ls": "-", "lw": 0.5, "marker": ".", "ms": 3}
    top.plot(time[keep], series[keep], color=INK, **line)
    change = np.flatnonzero(np.concatenate([[True], labels[1:] != labels[:-1]]))
    length = np.diff(np.concatenate([change, [len(labels)]])) * step
    bar.bar(time[change], 1.0, width=length, align="edge", color=[region_colour(label) for label in labels[change].tolist()], lw=0)
    bar.set(ylim=(0, 1), yticks=[], xlabel=safe("time [steps]" if dt is None else f"time [{time_unit}]"))
    bar.set_ylabel("region", rotation=0, ha="right", va="center")
    top.set_ylabel(safe(name))
    top.set_xlim(0, max(len(series) * step, step))
    shown = np.unique(labels)
    handles = [_dot(region_colour(label), str(label)) for label in shown[shown < NAMED].tolist()]
    if (shown >= NAMED).any():
        handles.append(_dot(REST, f"{int((shown >= NAMED).sum())} more"))
    figure.subplots_adjust(left=0.085, right=0.985, bottom=0.16, top=0.88, hspace=0.08)
    figure.legend(handles=handles, loc="upper right", ncols=len(handles), bbox_to_anchor=(0.99, 1.0), columnspacing=0.9, handletextpad=0.1)
    return figure


def per_step(cycle: Cycle) -> Float[np.ndarray, "M 2"]:
    """(Re, Im) of the eigenvalues of a k-cycle with their moduli brought to one step, |λ|^(1/k), and their angles kept."""
    radius, angle = np.abs(cycle.eigenvalues) ** (1.0 / cycle.period), np.angle(cycle.eigenvalues)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _backdrop(axes: Any, scene: Scene, i: int, j: int) -> None:
    """The attractor in pale grey."""
    points = scene.points[: 2 * POINTS]
    style: dict[str, Any] = {"lw": 0.45} if smooth(points) else {"ls": "", "marker": ".", "ms": 1.6, "mew": 0}
    axes.plot(points[:, i], points[:, j], color=FAINT, rasterized=len(points) > 3000, zorder=1, **style)


def _limits(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """The box of the attractor with a quarter of its width on every side."""
    if not len(scene.points):
        return np.full(scene.points.shape[1], -1.0), np.full(scene.points.shape[1], 1.0)
    low, high = scene.points.min(axis=0), scene.points.max(axis=0)
    wide = np.where(high > low, high - low, 1.0)
    return low - 0.25 * wide, high + 0.25 * wide


def _cycle_legend(fixed: list[Any], loops: list[Any], truth: bool, outside: int) -> list[Any]:
    handles = []
    for kind, (colour, marker) in KINDS.items():
        points = sum(kind_of(cycle) == kind for cycle, _ in fixed)
        rings = [cycle.period for cycle, _ in loops[:LOOPS] if kind_of(cycle) == kind]
        if points:
            handles.append(_mark(colour, marker, f"{kind} ({_count(points, 'fixed point')})", 7))
        if rings:
            span = f"{min(rings)}" if min(rings) == max(rings) else f"{min(rings)}–{max(rings)}"
            handles.append(_line(colour, f"{kind} ({_count(len(rings), 'cycle')}, period {span})", marker="."))
    if truth:
        handles.append(_mark(INK, "+", "fixed points of the true system", 10))
    more = len(loops) - LOOPS
    if more > 0:
        handles.append(_mark("none", "", f"{_count(more, 'longer cycle')} not drawn", 1))
    if outside:
        handles.append(_mark("none", "", f"{outside} outside this box", 1))
    return handles


def _name_axes(axes: Any, scene: Scene, which: Any) -> None:
    for setter, k in zip(("set_xlabel", "set_ylabel", "set_zlabel"), which, strict=False):
        getattr(axes, setter)(safe(scene.labels[k]))
    if hasattr(axes, "zaxis"):
        axes.locator_params(nbins=5)
        axes.set_box_aspect(None, zoom=0.9)
        for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
            axis.set_pane_color((1, 1, 1, 0))


def _share(count: Any, counts: np.ndarray) -> str:
    share = float(count) / max(int(counts.sum()), 1)
    return f"{share:.1%}" if share >= 0.001 else "< 0.1%"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' if n != 1 else ''}"


def _dot(colour: str, text: str) -> Any:
    return _mark(colour, "o", text, 6)


def _mark(colour: str, marker: str, text: str, size: float | int, *, edge: str | None = None) -> Any:
    from matplotlib.lines import Line2D

    edge = edge or (colour if marker == "+" else "none")
    return Line2D([], [], ls="", marker=marker or None, mfc=colour, mec=edge, mew=1.2 if marker == "+" else 0.6, ms=size, label=text)


def _line(colour: str, text: str, marker: str | None = None) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, lw=1.2, marker=marker, ms=5, label=text)

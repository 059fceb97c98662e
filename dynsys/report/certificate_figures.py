"""The pictures of a certificate: the set on the region of attraction, trajectories, where boxes were split, the decrease.

CertificateView -> matplotlib figures, each wide, or narrow for a telephone; None where there is nothing to draw
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from dynsys.report.canvas import BLUE, GREY, INK, ORANGE, canvas, safe
from dynsys.report.certificate_view import CertificateView, Plane
from dynsys.report.content import number
from dynsys.report.views import short
from dynsys.verify.basin import AWAY, CONVERGED, UNDECIDED

WIDE, NARROW, LINE = 10.0, 4.3, 0.21  # inches: two widths, a line of a legend
FILLS = {CONVERGED: ("#d7e8f4", "goes to the goal"), AWAY: ("#ffffff", "leaves"), UNDECIDED: ("#e4e4e4", "neither in the simulated time")}
LEVELS = (0.25, 0.5, 0.75, 1.5, 2.0, 4.0, 8.0)  # of the level of the set: thin lines
ROLES = {"inside": (BLUE, "from the set"), "outside": ("#009E73", "from outside, to the goal"), "leaves": (ORANGE, "from outside, leaves")}
BOXES = 40_000  # boxes that are drawn, the smallest first
BINS = 60


def region_figure(view: CertificateView, wide: bool) -> Any:
    """Level sets of V over the simulated region of attraction, with arrows: the plane, or slices; beside it trajectories in the plane."""
    if len(view.names) == 1:
        return _line(view, wide)
    flat = len(view.names) == 2
    figure, panels = _panels(2 if flat else len(view.planes), 3.9 if flat or wide else 3.4, wide)
    if not flat and wide and len(view.planes) == 3:
        figure.set_figheight(3.4)
    for axes, plane in zip(panels, view.planes * (2 if flat else 1), strict=True):
        _plane(axes, view, plane)
    if flat:
        _trajectories(panels[1], view)
    _legend(figure, _keys(view, flat), wide)
    for axes, plane in zip(panels, view.planes, strict=False):  # at last: their angles depend on the shape of the panels
        _arrows(axes, plane)
    return figure


def boxes_figure(view: CertificateView, wide: bool) -> Any:
    """Left the boxes that were bounded, by size, and those that are left; right how many of each size. None without boxes.

    In n dimensions the smallest box at each place of two coordinates is drawn.
    """
    boxes = boxes_of(view)
    if boxes is None:
        return None
    figure, (left, right) = _panels(2, 3.9 if wide else 3.4, wide)
    _boxes(figure, left, view, boxes)
    proof, n = view.proof, len(view.names)
    _, rad, bounds = proof.leaves
    depth = np.round(-np.sum(np.log2(rad[:, :n]), axis=1)).astype(int)
    for which, colour, label in (
        (bounds[:, 0] <= proof.level, BLUE, "boxes that meet the set"),
        (bounds[:, 0] > proof.level, GREY, "boxes outside the set"),
    ):
        sizes, counts = np.unique(depth[which], return_counts=True)
        right.plot(sizes, counts, color=colour, marker="o", ms=4, lw=1.1, label=label)
    right.set_yscale("log")
    right.xaxis.set_major_locator(_whole_numbers())
    right.set(xlabel="halvings of the whole", ylabel="boxes")
    keys = [_patch(ORANGE, "not proved")] if boxes.left.any() else []
    keys += [_stroke(INK, 1.4, "border of the set")] if n == 2 else []
    _legend(figure, [*_own_keys(right), *keys], wide)
    return figure


def _boxes(figure: Any, axes: Any, view: CertificateView, boxes: "Boxes") -> None:
    from matplotlib.collections import PolyCollection

    few = len(boxes.corners) < 4000
    style: dict[str, Any] = {"linewidths": 0.25 if few else 0.0, "edgecolors": "white" if few else "none", "rasterized": True}
    axes.add_collection(PolyCollection(list(boxes.corners[~boxes.meets]), facecolors="#d5d9de", **style))
    inside = boxes.meets & ~boxes.left
    if inside.any():
        coloured = PolyCollection(list(boxes.corners[inside]), array=boxes.depth[inside], cmap="viridis_r", **style)
        low, high = boxes.depth[inside].min(), boxes.depth[inside].max()
        coloured.set_clim(low, max(high, low + 1))
        axes.add_collection(coloured)
        bar = figure.colorbar(coloured, ax=axes, fraction=0.05, pad=0.02)
        bar.ax.set_xlabel("halvings", fontsize=8.5)
        bar.locator = _whole_numbers()
        bar.update_ticks()
    if boxes.left.any():
        axes.add_collection(PolyCollection(list(boxes.corners[boxes.left]), facecolors=ORANGE, edgecolors=ORANGE, linewidths=0.8))
    axes.autoscale_view()
    axes.margins(0.02)
    axes.locator_params(axis="x", nbins=6)
    axes.set(xlabel=boxes.labels[0], ylabel=boxes.labels[1])
    if len(view.names) == 2:
        plane, limits = view.planes[0], (axes.get_xlim(), axes.get_ylim())
        axes.contour(plane.x, plane.y, plane.S, levels=[view.proof.level], colors=[INK], linewidths=1.4)
        axes.set(xlim=limits[0], ylim=limits[1])


def decrease_figure(view: CertificateView, wide: bool) -> Any:
    """Left a histogram of the relative excess over the claimed decrease, with the largest that was found; right V along trajectories."""
    figure, (left, right) = _panels(2, 3.1, wide)
    _histogram(left, view)
    _heights(right, view)
    _legend(figure, _own_keys(left, right), wide)
    return figure


def _plane(axes: Any, view: CertificateView, plane: Plane) -> None:
    from matplotlib.colors import ListedColormap

    level, proof = view.proof.level, view.proof
    dx, dy = (0.5 * (z[1] - z[0]) for z in (plane.x, plane.y))
    extent = (plane.x[0] - dx, plane.x[-1] + dx, plane.y[0] - dy, plane.y[-1] + dy)
    colours = ListedColormap([FILLS[AWAY][0], FILLS[UNDECIDED][0], FILLS[CONVERGED][0]])
    axes.imshow(
        plane.codes, origin="lower", extent=extent, aspect="auto", cmap=colours, vmin=-1.5, vmax=1.5, interpolation="nearest", zorder=0
    )
    axes.contour(plane.x, plane.y, plane.V, levels=level * np.array(LEVELS), colors=[GREY], linewidths=0.6, zorder=1)
    if plane.plain is not None and view.plain is not None and view.plain.proof.proved:
        axes.contour(
            plane.x,
            plane.y,
            plane.plain,
            levels=[view.plain.proof.level],
            colors=["#CC79A7"],
            linewidths=1.6,
            linestyles="dashed",
            zorder=4,
        )
    axes.contour(
        plane.x, plane.y, plane.S, levels=[level], colors=[BLUE], linewidths=2.4, linestyles="solid" if proof.proved else "dashed", zorder=5
    )
    goal = np.asarray(view.loop.goal)
    axes.plot(goal[plane.i], goal[plane.j], marker="o", ms=4.5, color=INK, zorder=6)
    if proof.counterexample is not None:
        at = proof.counterexample.state
        axes.plot(at[plane.i], at[plane.j], ls="", marker="X", ms=10, mfc=ORANGE, mec="white", mew=1.0, zorder=7)
    axes.set(xlim=extent[:2], ylim=extent[2:], xlabel=safe(short(view.names[plane.i], 24)), ylabel=safe(short(view.names[plane.j], 24)))


def _arrows(axes: Any, plane: Plane) -> None:
    """Directions as they look on the paper; all arrows have the same length."""
    box = axes.get_window_extent()
    x = plane.arrows[..., 0] / (plane.x[-1] - plane.x[0]) * box.width
    y = plane.arrows[..., 1] / (plane.y[-1] - plane.y[0]) * box.height
    size = np.hypot(x, y)
    moves = np.isfinite(size) & (size > 0)
    angle = np.degrees(np.arctan2(np.where(moves, y, 0.0), np.where(moves, x, 0.0)))
    one = np.where(moves, 1.0, 0.0)
    style = {"color": "#5d6771", "pivot": "mid", "scale": 24, "width": 0.0032, "headwidth": 4, "headlength": 4.5, "headaxislength": 4}
    axes.quiver(plane.ax, plane.ay, one, np.zeros_like(one), angles=angle, zorder=3, **style)


def _trajectories(axes: Any, view: CertificateView) -> None:
    for line, role in zip(view.lines, view.roles, strict=True):
        colour, dots = ROLES[role][0], not view.loop.continuous
        axes.plot(*line.T, color=colour, lw=0.8 if dots else 1.1, marker="." if dots else "", ms=3, zorder=6)
        axes.plot(*line[0], marker="o", ms=4.5, color=colour, mec="white", mew=0.6, zorder=7)


def _line(view: CertificateView, wide: bool) -> Any:
    """V over the only coordinate, in the colour of where starts end."""
    figure, (axes,) = _panels(1, 3.2, wide)
    order = np.argsort(view.basin.starts[:, 0])
    x, V, codes = view.basin.starts[order, 0], view.basin.values[order], view.basin.codes[order]
    axes.plot(x, V, color=INK, lw=1.2, label="V")
    axes.fill_between(x, 0, 1, where=codes == CONVERGED, transform=axes.get_xaxis_transform(), color=FILLS[CONVERGED][0], lw=0)
    axes.axhline(view.proof.level, color=BLUE, lw=2.0, ls="-" if view.proof.proved else "--", label="level")
    axes.set(xlabel=safe(view.names[0]), ylabel="V", ylim=(0, min(V.max(), 4 * view.proof.level)))
    _legend(figure, [_patch(FILLS[CONVERGED][0], FILLS[CONVERGED][1]), *_own_keys(axes)], wide)
    return figure


def _histogram(axes: Any, view: CertificateView) -> None:
    F = view.F[np.isfinite(view.F)]
    if len(F):
        low, high = float(np.quantile(F, 0.005)), float(F.max())
        high = max(high, view.worst.largest if np.isfinite(view.worst.largest) else high, 0.0)
        edges = np.linspace(low, high + 0.04 * max(high - low, 1e-12), BINS + 1)
        axes.hist(np.clip(F, edges[0], edges[-1]), edges, color=BLUE, alpha=0.45, lw=0, label="left: states of the set")
        axes.set_yscale("log")
    if np.isfinite(view.worst.largest):
        axes.axvline(view.worst.largest, color=ORANGE, lw=2.2, label="left: largest that was found")
    axes.axvline(0.0, color=INK, lw=1.2, ls="--", label="left: limit of the claim")
    axes.set(xlabel="(dV/dt + rate V) / V" if view.loop.continuous else "(V(x+) − (1 − rate) V) / V", ylabel="states")


def _heights(axes: Any, view: CertificateView) -> None:
    rate, t = view.proof.rate, view.times
    claimed = np.exp(-rate * t) if view.loop.continuous else (1 - rate) ** t
    axes.plot(
        t, claimed, color=GREY, lw=4.0, alpha=0.6, label="right: bound that is claimed of V"
    )  # wide and behind: a curve on it is seen
    seen = set()
    for height, role in zip(view.heights, view.roles, strict=True):
        colour, label = ROLES[role][0], f"right: {ROLES[role][1]}"
        shown = np.where(np.isfinite(height) & (height > 0), height / view.proof.level, np.nan)
        axes.plot(view.times, shown, color=colour, lw=1.0, label=None if role in seen else label)
        seen.add(role)
    axes.set_yscale("log")
    axes.set_ylim(1e-8, min(1e3, 3 * max(1.0, float(np.nanmax(view.heights)) / view.proof.level)))
    axes.set(xlabel="time" if view.loop.continuous else "step", ylabel="V / level", xlim=(t[0], t[-1]))


@dataclass(frozen=True)
class Boxes:
    """Corners (B, 4, 2), halvings, whether they meet the set, whether they are left (B,), largest first; two axis labels."""

    corners: Float[np.ndarray, "B 4 2"]
    depth: Float[np.ndarray, " B"]
    meets: Bool[np.ndarray, " B"]
    left: Bool[np.ndarray, " B"]
    labels: tuple[str, str]


def boxes_of(view: CertificateView) -> Boxes | None:
    """The boxes of a proof in the two coordinates that were split most; None in one dimension, or if none are kept."""
    proof, n = view.proof, len(view.names)
    mid, rad, bounds = proof.leaves
    rest_mid, rest_rad = proof.remaining
    if n < 2 or not len(mid) + len(rest_mid):
        return None
    left = np.arange(len(mid) + len(rest_mid)) >= len(mid)
    meets = np.concatenate([bounds[:, 0] <= proof.level, np.ones(len(rest_mid), bool)])
    mid, rad = np.concatenate([mid, rest_mid])[:, :n], np.concatenate([rad, rest_rad])[:, :n]
    depth = -np.sum(np.log2(rad), axis=1)
    split = np.sum(-np.log2(rad)[meets], axis=0) if meets.any() else np.zeros(n)
    pair = sorted(np.argsort(-split, kind="stable")[:2].tolist())
    keys = np.column_stack([mid[:, pair], rad[:, pair]])
    order = np.lexsort((depth, left, meets))[::-1]  # what is kept of equal ones: those left, then in the set, then the smallest
    _, first = np.unique(keys[order], axis=0, return_index=True)
    keep = order[first]
    keep = keep[np.argsort(depth[keep], kind="stable")][-BOXES:]
    m, r = mid[keep][:, pair], rad[keep][:, pair]
    corners = m[:, None, :] + r[:, None, :] * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])[None]
    frame, goal = proof.frame, np.asarray(view.loop.goal)
    straight = np.count_nonzero(frame - np.diag(np.diag(frame))) == 0
    if n == 2:
        corners = goal + corners @ frame.T
    elif straight:
        corners = goal[pair] + corners * np.diag(frame)[pair]
    labels = [safe(short(view.names[k], 24)) if n == 2 or straight else f"y{k + 1}" for k in pair]
    return Boxes(corners, depth[keep], meets[keep], left[keep], (labels[0], labels[1]))


def _panels(count: int, tall: float, wide: bool) -> tuple[Any, Any]:
    """A figure with `count` panels side by side, or one below the other, each `tall` inches high."""
    figure = canvas(WIDE if wide else NARROW, tall * (1 if wide else count))
    shape = (1, count) if wide else (count, 1)
    return figure, figure.subplots(*shape, squeeze=False).ravel()


def _legend(figure: Any, keys: Sequence[Any], wide: bool) -> None:
    """One legend above all panels, for which the figure grows."""
    width, height = figure.get_size_inches()
    across = 3 if wide else 1
    room = LINE * -(-len(keys) // across)
    figure.set_figheight(height + room)
    height += room
    right = 0.2 if wide or not any(axes.get_label() == "<colorbar>" for axes in figure.axes) else 0.45  # room for its numbers
    rows = 1 if wide else len([axes for axes in figure.axes if axes.get_label() != "<colorbar>"])
    figure.subplots_adjust(
        left=0.75 / width,
        right=1 - right / width,
        bottom=0.5 / height,
        top=1 - (0.15 + room) / height,
        hspace=0.3 if rows > 1 else 0,
        wspace=0.3,
    )
    figure.legend(handles=list(keys), loc="upper left", bbox_to_anchor=(0.65 / width, 1 - 0.03 / height), ncols=across, borderaxespad=0.0)


def _keys(view: CertificateView, flat: bool) -> list[Any]:
    proof, codes = view.proof, np.concatenate([plane.codes.ravel() for plane in view.planes])
    what = "certified set" if proof.proved else "claimed set, not proved"
    keys = [_stroke(BLUE, 2.4, f"{what}, V ≤ {number(proof.level, 4)}", "-" if proof.proved else "--")]
    if view.plain is not None and view.plain.proof.proved:
        keys.append(_stroke("#CC79A7", 1.6, "plain quadratic's certified set", "--"))
    keys.append(_stroke(GREY, 0.8, "other levels of V"))
    keys += [_patch(*FILLS[code]) for code in FILLS if np.any(codes == code)]
    if flat:
        keys += [_stroke(colour, 1.1, words) for role, (colour, words) in ROLES.items() if role in view.roles]
    if proof.counterexample is not None:
        from matplotlib.lines import Line2D

        keys.append(Line2D([], [], ls="", marker="X", ms=9, mfc=ORANGE, mec="white", label="counterexample"))
    return keys


def _own_keys(*panels: Any) -> list[Any]:
    return [handle for axes in panels for handle in axes.get_legend_handles_labels()[0]]


def _stroke(colour: str, width: float, label: str, style: str = "-") -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, lw=width, ls=style, label=label)


def _patch(colour: str, label: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(fc=colour, ec=GREY, lw=0.6, label=label)


def _whole_numbers() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(6, integer=True)

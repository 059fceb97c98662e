"""The transition graph of a symbolic code: regions as discs, arrows for where the orbit goes when it leaves a region.

    disc    area by the share of the time; the number below its name is the probability p of staying one more step
    arrow   width by the probability of going there, given that the orbit leaves:  q_ij = N_ij / sum_{k != i} N_ik

A finely sampled flow stays in a region for many steps, so that p is near 1 and all other transitions would be hairlines; q shows them.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from dynsys.analysis.symbols import SymbolicCode
from dynsys.report.canvas import INK, canvas
from dynsys.report.structure_view import region_colour

NODES = 30  # regions drawn
DETAILED = 12  # regions up to which words stand beside the discs
TEXTS = 5  # regions up to which arrows carry their probability
FAINTEST = 0.01  # arrows below this probability are left out in graphs of more regions


def graph_figure(code: SymbolicCode, centres: Float[np.ndarray, "n D"] | None = None) -> Any:
    """The graph of the 30 most visited regions, on a circle in the order of the angles of their centres (n, D), if given."""
    shown = min(code.n_symbols, NODES)
    counts, stay, leave = graph_arrays(code, shown)
    order = np.arange(shown) if centres is None or centres.shape[1] < 2 else circle_order(centres[:shown])
    angle = np.empty(shown)
    angle[order] = np.pi / 2 - 2 * np.pi * np.arange(shown) / max(shown, 1)
    at = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (0.0 if shown == 1 else 1.0)
    share = counts / max(len(code.labels), 1)
    most = min(0.30, 2.0 / max(shown, 1))
    radius = np.clip(most * np.sqrt(share / max(float(share.max()), 1e-12)), 0.35 * most if shown > DETAILED else 0.5 * most, most)
    figure = canvas(5.6, 4.5)
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.93))
    _arrows(axes, at, radius, leave, few=shown <= TEXTS)
    _discs(axes, at, radius, share, stay, detail=shown <= DETAILED)
    reach = 1.0 + most + (0.3 if shown <= DETAILED else 0.05)
    wide = reach + (0.5 if 2 < shown <= DETAILED else 0.0)  # words stand beside the discs
    axes.set(xlim=(-wide, wide), ylim=(-reach, reach), aspect="equal")
    axes.set_axis_off()
    if code.n_symbols > shown:
        left = 1.0 - float(share.sum())
        figure.text(0.03, 0.955, f"The {shown} most visited of {code.n_symbols:,} regions; the others take {left:.1%} of the time.")
    return figure


def graph_arrays(code: SymbolicCode, shown: int) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"], Float[np.ndarray, "n n"]]:
    """Counts (n,), the probability of staying (n,) and of going from i to j on leaving i (n, n), of the first `shown` regions."""
    stay, leave, away = np.zeros(shown), np.zeros((shown, shown)), np.zeros(shown)
    for edge in code.edges:
        if edge.source >= shown:
            continue
        if edge.source == edge.target:
            stay[edge.source] = edge.probability
            continue
        away[edge.source] += edge.count
        if edge.target < shown:
            leave[edge.source, edge.target] = edge.count
    return code.counts[:shown], stay, leave / np.maximum(away, 1)[:, None]


def circle_order(centres: Float[np.ndarray, "n D"]) -> Int[np.ndarray, " n"]:
    """The regions in the order of the angles of their centres about the middle, in the plane of the two widest directions."""
    spread = centres - centres.mean(axis=0, keepdims=True)
    plane = spread @ np.linalg.svd(spread, full_matrices=False)[2][:2].T if len(centres) > 2 else spread[:, :2]
    return np.argsort(-np.arctan2(plane[:, -1], plane[:, 0]), kind="stable")


def _discs(axes: Any, at: np.ndarray, radius: np.ndarray, share: np.ndarray, stay: np.ndarray, *, detail: bool) -> None:
    from matplotlib.patches import Circle

    for i, (place, size) in enumerate(zip(at, radius, strict=True)):
        axes.add_patch(Circle(tuple(place), size, fc=region_colour(i), ec="white", lw=1.2, zorder=4))
        dark = region_colour(i) in ("#0072B2", "#009E73", "#D55E00", "#6a51a3", "#8c564b", "#1b7837")
        text = {"ha": "center", "va": "center", "zorder": 6, "color": "white" if dark else INK}
        if not detail:
            axes.text(*place, str(i), fontsize=8, **text)
            continue
        axes.text(place[0], place[1], str(i), fontsize=13, fontweight="bold", **text)
        words = f"{share[i]:.1%} of time" + (f"\nstays: p = {_p(float(stay[i]))}" if stay[i] > 0 else "")
        out = place if np.abs(place).max() > 0 else np.array([0.0, -1.0])
        beyond = place + out / max(float(np.linalg.norm(out)), 1e-9) * (size + 0.13)
        side = "center" if abs(out[0]) < 0.3 else "left" if out[0] > 0 else "right"
        beyond = beyond - np.array([0.1, 0.0]) * np.sign(out[0]) * (side != "center")
        axes.text(*beyond, words, ha=side, va="bottom" if out[1] > 0.3 else "top" if out[1] < -0.3 else "center", fontsize=8, zorder=6)


def _arrows(axes: Any, at: np.ndarray, radius: np.ndarray, leave: np.ndarray, *, few: bool) -> None:
    """Curved arrows, so that there and back are two; from rim to rim."""
    from matplotlib.patches import FancyArrowPatch

    for i, j in np.argwhere(leave > (0 if few else FAINTEST)).tolist():
        q, way = float(leave[i, j]), at[j] - at[i]
        length = float(np.linalg.norm(way))
        if length == 0:
            continue
        bend = 0.18
        ahead, side = way / length, np.array([way[1], -way[0]]) / length
        tilt = math.atan(2 * bend)  # of the curve where it leaves the discs
        begin = at[i] + radius[i] * (math.cos(tilt) * ahead + math.sin(tilt) * side)
        end = at[j] + (radius[j] + 0.015) * (-math.cos(tilt) * ahead + math.sin(tilt) * side)
        width = 0.5 + 3.5 * q if len(at) <= DETAILED else 0.3 + 2.0 * q
        style = f"-|>,head_length={2.4 + 1.2 * width},head_width={1.2 + 0.7 * width}"
        arrow = FancyArrowPatch(
            tuple(begin),
            tuple(end),
            connectionstyle=f"arc3,rad={bend}",
            arrowstyle=style,
            lw=width,
            color=region_colour(i),
            alpha=0.35 + 0.6 * q,
            shrinkA=0,
            shrinkB=0,
            zorder=2,
            mutation_scale=1.0,
        )
        axes.add_patch(arrow)
        if few:
            middle = (begin + end) / 2 + side * bend * float(np.linalg.norm(end - begin)) * 0.5
            box = {"fc": "white", "ec": "none", "pad": 0.8, "alpha": 0.85}
            axes.text(*middle, _p(q), fontsize=8, ha="center", va="center", zorder=5, bbox=box)


def _p(value: float) -> str:
    """A probability that is not rounded to 1 or 0."""
    if value in (0.0, 1.0):
        return f"{value:.0f}"
    return f"{value:.3f}" if 0.0005 <= value < 0.9995 else "> 0.999" if value > 0.5 else "< 0.001"

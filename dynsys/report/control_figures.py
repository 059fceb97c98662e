"""The pictures of a control run: return against steps, trajectories with limits, model error, and how long decisions take.

    rows of the history, played episodes -> matplotlib figures, each `wide` or narrow, for a telephone

A number that is not finite is left out of a picture; the tables of the page have it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from dynsys.control.experience import Episode
from dynsys.control.history import Row
from dynsys.report.canvas import BLUE, GREY, INK, ORANGE, canvas, margins, safe
from dynsys.report.content import number
from dynsys.report.interactive import log_worthy, steps_of
from dynsys.report.views import short, thin_series

Published = Sequence[tuple[str, int, float]]  # what, environment steps, mean return
WIDE, NARROW, LINE = 10.0, 4.3, 0.2  # inches: two widths, a line of a legend
SLOW = 20.0  # milliseconds a decision: 50 Hz
DASHES = ((0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)), (0, (1, 3)))
KINDS = {"random": ("random inputs", GREY), "planned": ("planned", ORANGE)}
INKS = (INK, BLUE, ORANGE)  # of the episodes whose trajectories are drawn


def searches(rows: Sequence[Row]) -> bool:
    """Whether the rows are iterations of a search, not episodes."""
    return any(row.kind == "iteration" for row in rows)


def returns_figure(rows: Sequence[Row], returns: Float[np.ndarray, " E"], published: Published, wide: bool) -> Any:
    """Left the return of every collected episode (or the cost of every iteration), right those of the played ones; None without any.

    Published results are lines across the panels of returns, and points where their steps are among ours.
    """
    searched = searches(rows)
    panels = [name for name, has in (("cost" if searched else "collected", rows), ("played", len(returns))) if has]
    if not panels:
        return None
    figure, every = _panels(len(panels), 3.0, wide, ratios=(2.3, 1.0))
    for axes, name in zip(every, panels, strict=True):
        if name == "cost":
            _cost(axes, rows)
        else:
            _collected(axes, rows) if name == "collected" else _played(axes, returns)
            _levels(axes, returns, published)
    _legend(figure, every, wide)
    return figure


def _collected(axes: Any, rows: Sequence[Row]) -> None:
    totals = np.array([row.total for row in rows], float)
    steps = np.array([row.steps for row in rows])
    planned = np.array([row.kind == "planned" for row in rows])
    axes.plot(steps[planned], _finite(totals[planned]), color=ORANGE, lw=0.9, alpha=0.6)
    for kind, (label, color) in KINDS.items():
        for cut in (False, True):
            which = np.array([row.kind == kind and (row.ended == "cut off") is cut for row in rows])
            if which.any():
                words = f"{label}, cut off" if cut else label
                look: dict[str, Any] = {"marker": "o", "ms": 6, "ls": "", "color": color, "mfc": "white" if cut else color}
                axes.plot(steps[which], _finite(totals[which]), label=words, zorder=3, **look)
    axes.set(xlabel="environment steps", ylabel="return", xlim=(0, 1.04 * steps.max()))


def _cost(axes: Any, rows: Sequence[Row]) -> None:
    """The cost of every iteration of a search, which is minus its `total`."""
    rows = [row for row in rows if row.kind == "iteration"]
    costs = -np.array([row.total for row in rows], float)
    axes.plot([row.steps for row in rows], _finite(costs), color=ORANGE, lw=1.3, marker="." if len(rows) < 60 else "", label="iterations")
    if log_worthy([costs]):
        axes.set_yscale("log")
    axes.set(xlabel="environment steps", ylabel="cost of the plan", xlim=(0, 1.04 * max(row.steps for row in rows)))


def _played(axes: Any, returns: Float[np.ndarray, " E"]) -> None:
    axes.plot(np.arange(len(returns)) + 1, _finite(returns), color=BLUE, marker="o", ms=5, ls="", label="played at the end", zorder=3)
    axes.set(xlabel="played episode", ylabel="return", xlim=(0.4, len(returns) + 0.6))
    axes.set_xticks(np.unique(np.linspace(1, len(returns), min(len(returns), 6)).round()))


def _levels(axes: Any, returns: Float[np.ndarray, " E"], published: Published) -> None:
    """The mean of the played episodes with its standard error, and what others report."""
    good = returns[np.isfinite(returns)]
    if len(good):
        error = good.std(ddof=1) / np.sqrt(len(good)) if len(good) > 1 else 0.0
        axes.axhspan(good.mean() - error, good.mean() + error, color=BLUE, alpha=0.18, lw=0)
        axes.axhline(good.mean(), color=BLUE, lw=1.2, label="mean of the played ± standard error" if len(good) > 1 else "the played return")
    for (what, steps, value), dashes in zip(published, DASHES * len(published), strict=False):
        after = f", {steps:,} steps" if steps else ""
        axes.axhline(value, color=INK, lw=1.0, ls=dashes, label=safe(f"{short(what, 40)}{after}: {number(value)}"))
        if 0 < steps <= axes.get_xlim()[1]:
            axes.plot([steps], [value], color=INK, marker="D", ms=4.5)


def trajectories_figure(
    episodes: Sequence[tuple[str, Episode]],
    names: Sequence[str],
    low: Float[np.ndarray, " K"] | None,
    high: Float[np.ndarray, " K"] | None,
    wide: bool,
    *,
    inputs: int,
) -> Any:
    """Observed components over the steps, a panel for each of `names`, and below `inputs` of the inputs between their limits (dashed).

    episodes: (label, episode), at most three.
    """
    count = len(names) + inputs
    across = 2 if wide and count > 5 else 1
    down = -(-count // across)
    figure = canvas(WIDE if wide else NARROW, 1.25 * down + 0.6)
    panels = figure.subplots(down, across, squeeze=False, sharex=True).T.ravel()
    for place, axes in enumerate(panels[:count]):
        k = place - len(names)
        for (label, episode), color in zip(episodes, INKS, strict=False):
            values = episode.observations[:, place] if k < 0 else episode.inputs[:, k]
            keep = thin_series(values)
            style = {"drawstyle": "steps-post"} if k >= 0 else {}
            axes.plot(keep, values[keep], color=color, lw=1.1, label=safe(label), **style)
        axes.set_ylabel(safe(short(names[place], 16)) if k < 0 else f"input {k}")
        if k >= 0:
            for limit in (low, high):
                if limit is not None and np.isfinite(limit[k]):
                    axes.axhline(float(limit[k]), color=INK, lw=0.9, ls="--")
        axes.margins(x=0.01, y=0.08)
        axes.yaxis.set_label_coords(-0.065 if wide and across == 1 else -0.14, 0.5)
    for axes in panels[count:]:
        axes.set_visible(False)
    for column in range(across):
        last = min((column + 1) * down, count) - 1
        panels[last].set_xlabel("step")
        panels[last].tick_params(labelbottom=True)
    _legend(figure, panels[:1], wide, gap=0.18)
    return figure


def field_figure(episode: Episode, wide: bool) -> Any:
    """All observed components of an episode as a picture, steps to the right; each in units of its largest size, -1 to 1."""
    values = episode.observations.T
    largest = np.abs(values).max(axis=1, keepdims=True)
    figure, (axes,) = _panels(1, 3.2, wide)
    extent = (-0.5, values.shape[1] - 0.5, len(values) - 0.5, -0.5)
    drawn = axes.imshow(
        values / np.where(largest > 0, largest, 1.0), aspect="auto", cmap="RdBu_r", vmin=-1, vmax=1, extent=extent, interpolation="nearest"
    )
    axes.set(xlabel="step", ylabel="observed component")
    figure.colorbar(drawn, ax=axes, fraction=0.04 if wide else 0.1, pad=0.015, ticks=(-1, 0, 1))
    return figure


def error_figure(rows: Sequence[Row], wide: bool) -> Any:
    """The one-step error of the model on every episode it had not seen, logarithmic; None if no model was judged."""
    judged = [row for row in rows if np.isfinite(row.error) and row.error > 0]
    if not judged:
        return None
    figure, (axes,) = _panels(1, 2.7, wide)
    axes.axhline(1.0, color=INK, lw=0.9, ls="--")
    axes.plot([row.steps for row in judged], [row.error for row in judged], color=ORANGE, marker="o", ms=5, lw=1.0)
    axes.set_yscale("log")
    axes.set(xlabel="environment steps", ylabel="one-step error", xlim=(0, 1.04 * judged[-1].steps))
    return figure


def timing_figure(rows: Sequence[Row], milliseconds: Float[np.ndarray, " D"], wide: bool) -> Any:
    """Median and 95 % of the milliseconds a decision took in every planned episode, and all decisions of the played ones; None without."""
    timed = [row for row in rows if np.isfinite(row.plan_median) and row.plan_median > 0]
    decisions = milliseconds[np.isfinite(milliseconds) & (milliseconds > 0)]
    panels = [draw for draw, has in ((_along, timed), (_spread, len(decisions))) if has]
    if not panels:
        return None
    figure, every = _panels(len(panels), 3.1, wide)
    for axes, draw in zip(every, panels, strict=True):
        draw(axes, timed, decisions)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.2, columnspacing=1.2)
    margins(figure, top=0.35, gap=0.4)
    return figure


def _along(axes: Any, rows: Sequence[Row], decisions: Float[np.ndarray, " D"]) -> None:
    steps = [row.steps for row in rows]
    median, late = np.array([row.plan_median for row in rows]), _finite(np.array([row.plan_late for row in rows], float))
    axes.vlines(steps, median, late, color=ORANGE, lw=1.0, alpha=0.6)
    axes.plot(steps, median, color=ORANGE, marker="o", ms=5, ls="", label="median")
    axes.plot(steps, late, color=ORANGE, marker="_", ms=8, mew=1.6, ls="", label="95 %")
    axes.axhline(SLOW, color=INK, lw=0.9, ls="--", label="50 Hz")
    axes.set_yscale("log")
    axes.set(xlabel="environment steps", ylabel="ms a decision", xlim=(0, 1.04 * max(steps)))
    _plain(axes.yaxis)


def _spread(axes: Any, rows: Sequence[Row], decisions: Float[np.ndarray, " D"]) -> None:
    middle = np.median(decisions)
    edges = np.geomspace(min(decisions.min(), middle / 1.5), max(decisions.max(), 1.5 * middle), 41)
    counts = np.histogram(np.clip(decisions, edges[0], edges[-1]), edges)[0]  # geomspace rounds its ends
    axes.fill_between(*steps_of(edges, counts), color=BLUE, alpha=0.35, lw=0, label="played decisions")
    axes.axvline(middle, color=BLUE, lw=1.4, label="median")
    axes.axvline(SLOW, color=INK, lw=0.9, ls="--", label="50 Hz")
    axes.set_xscale("log")
    axes.set(xlabel="ms a decision", ylabel="decisions", ylim=(0, None))
    _plain(axes.xaxis)


def _panels(count: int, tall: float, wide: bool, *, ratios: tuple[float, ...] = (1.0, 1.0)) -> tuple[Any, Any]:
    """A figure with `count` panels side by side, or one below the other, each `tall` inches high."""
    figure = canvas(WIDE if wide else NARROW, tall * (1 if wide else count))
    if wide:
        every = figure.subplots(1, count, squeeze=False, width_ratios=ratios[:count]).ravel()
    else:
        every = figure.subplots(count, 1, squeeze=False).ravel()
    margins(figure, top=0.15, gap=0.4)
    return figure, every


def _legend(figure: Any, every: Any, wide: bool, *, gap: float = 0.4) -> None:
    """One legend above all panels, the last panel first, for which the figure grows; what stands in several panels stands in it once."""
    found: dict[str, Any] = {}
    for axes in reversed(every):
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    across = 3 if wide else 1
    room = LINE * -(-len(found) // across)
    figure.set_figheight(figure.get_figheight() + room)
    margins(figure, top=0.2 + room, gap=gap)
    place = (0.8 / WIDE if wide else 0.02, 1.0 - 0.03 / figure.get_figheight())
    figure.legend(found.values(), found.keys(), loc="upper left", bbox_to_anchor=place, ncols=across, borderaxespad=0.0)


def _plain(axis: Any) -> None:
    """1, 2 and 5 of every decade as plain numbers on a logarithmic axis of milliseconds; only 1 where there are many decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 300 * low else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axis.set_minor_formatter(NullFormatter())


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)

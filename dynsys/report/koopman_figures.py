"""Figures of a Koopman spectrum; each function takes a `KoopmanView` and returns a figure of matplotlib.

Residuals are coloured on a logarithmic scale about the limit: blue below, orange above. Numbers are those of the eigenpairs in the
table of the report, from 1.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dynsys.report.canvas import BLUE, GREY, INK, ORANGE, canvas, safe
from dynsys.report.content import number
from dynsys.report.koopman_view import Functions, KoopmanView, Levels, leading
from dynsys.report.structure_view import COLOURS
from dynsys.report.views import short, with_unit

BARS = 12  # observed variables drawn as bars; more are lines
MODES = 6  # eigenpairs whose modes are drawn
MARKS = 12  # trusted frequencies marked in the spectral measure
SPREAD = 20.0  # the colours of residuals span the limit over this to the limit times this
MASS = 0.99  # share of the measure inside the drawn frequencies
FAINT = "#e3e6ea"


def eigenvalues_figure(view: KoopmanView) -> Any:
    """Unit circle and rates, coloured by residual on a logarithmic scale."""
    from matplotlib.colors import LogNorm

    found, good = view.spectrum, view.spectrum.trusts(view.limit)
    values, rates = found.values, found.continuous
    finite = np.isfinite(found.residuals)
    shown = np.where(finite, found.residuals, np.inf).clip(view.limit / SPREAD, view.limit * SPREAD)
    norm = LogNorm(view.limit / SPREAD, view.limit * SPREAD)
    figure = canvas(9.6, 4.4)
    plane, right = figure.add_axes((0.075, 0.13, 0.38, 0.83)), figure.add_axes((0.535, 0.13, 0.33, 0.83))
    turn = np.linspace(0, 2 * np.pi, 400)
    plane.plot(np.cos(turn), np.sin(turn), color=GREY, lw=1.0, zorder=1)
    for axes in (plane, right):
        axes.axhline(0, color=FAINT, lw=0.7, zorder=0)
        axes.axvline(0, color=FAINT, lw=0.7, zorder=0)
    size = float(np.clip(1.08 * np.abs(values).max(initial=1.0), 1.15, 1.6))
    outside = int(np.sum(np.maximum(np.abs(np.real(values)), np.abs(np.imag(values))) > size))
    plane.set(xlim=(-size, size), ylim=(-size, size), aspect="equal", xlabel="Re λ (per step)", ylabel="Im λ (per step)")
    near = (found.residuals <= 5 * view.limit) & ~view.constant
    box = rates[(near if near.any() else np.abs(values) > 0.02) & np.isfinite(np.real(rates))]
    unit = _per(view)
    right.set(xlabel=safe(f"growth rate [{unit}]"), ylabel=safe(f"frequency [{unit}]"))
    x, y = _range(np.real(box), 0.1 / found.dt), _range(np.imag(box) / (2 * np.pi), 0.1 / found.dt)
    right.set(xlim=x, ylim=y)
    right.locator_params(nbins=5)
    beyond = int(np.sum(~((np.real(rates) >= x[0]) & (np.real(rates) <= x[1]) & (found.frequencies >= y[0]) & (found.frequencies <= y[1]))))
    for axes, at in ((plane, (np.real(values), np.imag(values))), (right, (np.real(rates), found.frequencies))):
        colours = _scale()(norm(shown))
        for rows, style in (
            (~good, {"facecolors": "none", "edgecolors": colours[~good], "s": 22, "lw": 1.1}),
            (good, {"c": colours[good], "s": 34, "lw": 0}),
        ):
            axes.scatter(at[0][rows], at[1][rows], zorder=3 + int(rows is good), **style)
    _residual_bar(figure, (0.89, 0.13, 0.016, 0.56), norm, view.limit)
    handles = [
        _mark("o", f"trusted ({int(good.sum())})", INK),
        _mark("o", f"not trusted ({int((~good).sum())})", "none", INK),
        _line(GREY, "unit circle"),
    ]
    if outside:
        handles.append(_mark("", f"left: {outside} outside", "none"))
    if beyond:
        handles.append(_mark("", f"right: {beyond} outside", "none"))
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.868, 0.985), handlelength=1.0, handletextpad=0.4, fontsize=8.5, borderaxespad=0
    )
    return figure


def pseudospectrum_figure(view: KoopmanView, levels: Levels) -> Any:
    """Filled contours of log10 res, with the unit circle and the eigenvalues."""
    figure = canvas(6.8, 4.6)
    axes = figure.add_axes((0.1, 0.12, 0.575, 0.85))
    floor = max(levels.floor, 1e-12)
    depth = np.log10(np.clip(levels.res, floor, None))
    low = max(min(np.floor(2 * float(np.quantile(depth, 0.005))), np.floor(2 * np.log10(view.limit / 3))) / 2, -8.0)
    step = 0.25 if low >= -3 else 0.5 if low >= -5 else 1.0
    heights = np.arange(low, 0.25 + step, step)
    drawn = axes.contourf(levels.axis, levels.axis, np.maximum(depth, low), levels=heights, cmap="Blues_r", extend="max", zorder=0)
    axes.contour(levels.axis, levels.axis, depth, levels=heights, colors="white", linewidths=0.4, linestyles="solid", zorder=1)
    axes.contour(levels.axis, levels.axis, levels.res, levels=[view.limit], colors=ORANGE, linewidths=1.3, zorder=2)
    turn = np.linspace(0, 2 * np.pi, 400)
    axes.plot(np.cos(turn), np.sin(turn), color=INK, lw=0.8, ls=(0, (4, 3)), zorder=2)
    good, values = view.spectrum.trusts(view.limit), view.spectrum.values
    axes.scatter(np.real(values[~good]), np.imag(values[~good]), s=20, facecolors="none", edgecolors=INK, lw=0.9, zorder=3)
    axes.scatter(np.real(values[good]), np.imag(values[good]), s=26, c=INK, edgecolors="white", lw=0.7, zorder=4)
    edge = float(levels.axis[-1])
    axes.set(xlim=(-edge, edge), ylim=(-edge, edge), aspect="equal", xlabel="Re z (per step)", ylabel="Im z (per step)")
    bar = figure.colorbar(drawn, cax=figure.add_axes((0.72, 0.12, 0.024, 0.5)))
    ticks = list(range(int(np.ceil(low)), 1))
    bar.set_ticks(ticks, labels=[_power(tick) for tick in ticks])
    bar.set_label("res(z)")
    bar.outline.set_visible(False)
    handles = [
        _mark("o", "trusted eigenvalue", INK),
        _mark("o", "eigenvalue, not trusted", "none", INK),
        _line(ORANGE, f"res(z) = {view.limit:g}"),
    ]
    handles.append(_line(INK, "unit circle", (0, (4, 3))))
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.69, 0.97), fontsize=8.5, borderaxespad=0)
    return figure


def eigenfunctions_figure(view: KoopmanView, found: Functions) -> Any:
    """A column for every function; modulus above phase for complex ones."""
    if found.kind == "line":
        return _lines_figure(view, found)
    values = [_real(one) if np.imag(view.spectrum.values[k]) == 0 else one for k, one in zip(found.numbers, found.values, strict=True)]
    wave = any(np.iscomplexobj(one) for one in values)
    count = len(values)
    width = max(2.8 * count + 0.35, 3.4)
    figure = canvas(width, 4.9 if wave else 2.9)
    panels = figure.subplots(2 if wave else 1, count, squeeze=False)
    labels = _function_labels(view, found)
    for c, (k, one) in enumerate(zip(found.numbers, values, strict=True)):
        paired = np.iscomplexobj(one)
        head = panels[0, c]
        seen = np.abs(one) if paired else one
        high = float(found.top[c]) or 1.0
        about: dict[str, Any] = (
            {"cmap": "viridis", "vmin": 0.0, "vmax": high} if paired else {"cmap": "RdBu_r", "vmin": -high, "vmax": high}
        )
        image = _paint(head, found, seen, about)
        _bar(
            figure,
            image,
            head,
            [0, high] if paired else [-high, 0, high],
            ["0", number(high, 2)] if paired else [number(-high, 2), "0", number(high, 2)],
        )
        value = view.spectrum.values[k]
        head.set_title(f"{k + 1}: λ = {_value(value)}\n{'modulus' if paired else 'value'}", fontsize=8.5, loc="left")
        if wave and paired:
            image = _paint(panels[1, c], found, np.angle(one), {"cmap": "twilight", "vmin": -np.pi, "vmax": np.pi})
            _bar(figure, image, panels[1, c], [-np.pi, 0, np.pi], ["−π", "0", "π"])
            panels[1, c].set_title("phase", fontsize=8.5, loc="left")
        elif wave:
            panels[1, c].set_visible(False)
        lowest = panels[1, c] if wave and paired else head
        lowest.set_xlabel(safe(labels[0]))
    for row in panels:
        row[0].set_ylabel(safe(labels[1]))
    if not panels[-1, 0].get_visible():
        panels[0, 0].set_ylabel(safe(labels[1]))
    figure.subplots_adjust(
        left=0.75 / width, right=1 - 0.6 / width, bottom=0.1 if wave else 0.17, top=0.91 if wave else 0.85, wspace=0.62, hspace=0.38
    )
    return figure


def _lines_figure(view: KoopmanView, found: Functions) -> Any:
    figure = canvas(7.6, 3.5)
    axes = figure.add_axes((0.09, 0.15, 0.58, 0.8))
    handles = []
    for c, (k, one) in enumerate(zip(found.numbers, found.values, strict=True)):
        value = view.spectrum.values[k]
        one = _real(one) if np.imag(value) == 0 else one
        axes.plot(found.x, np.real(one), color=COLOURS[c], lw=1.5)
        if np.iscomplexobj(one):
            axes.plot(found.x, np.imag(one), color=COLOURS[c], lw=1.1, ls="--")
        handles.append(_line(COLOURS[c], f"{k + 1}: λ = {_value(value)}"))
    inside = found.values[:, (found.x >= found.near[:, 0].min()) & (found.x <= found.near[:, 0].max())]
    high = 1.1 * float(np.abs(inside).max(initial=1e-12))
    axes.plot(found.near[:, 0], np.full(len(found.near), -high), ls="", marker="|", ms=7, mew=0.5, color=GREY, alpha=0.5, clip_on=False)
    if np.any(np.imag(view.spectrum.values[found.numbers])):
        handles += [_line(INK, "real part"), _line(INK, "imaginary part", "--")]
    axes.set(ylim=(-high, high), xlim=(found.x[0], found.x[-1]), xlabel=safe(_function_labels(view, found)[0]), ylabel="eigenfunction")
    figure.legend(handles=handles, loc="center left", bbox_to_anchor=(0.69, 0.55), fontsize=8.5)
    return figure


def modes_figure(view: KoopmanView) -> Any:
    """|mode| of the leading trusted pairs: bars over the variables, lines for many, bars over the pairs for one variable."""
    modes = np.zeros((len(view.spectrum.values), 1)) if view.spectrum.modes is None else view.spectrum.modes
    size, rows = np.abs(modes[:, : view.n_obs]), leading(view, MODES)
    heights = size[rows].max(axis=1)
    rows = rows[heights >= 0.01 * heights.max()]
    figure = canvas(8.4, 3.3)
    axes = figure.add_axes((0.1, 0.2 if view.n_obs <= BARS else 0.15, 0.56, 0.75))
    texts = [f"{k + 1}: λ = {_value(view.spectrum.values[k])}" for k in rows]
    place = np.arange(view.n_obs)
    if view.n_obs == 1:
        axes.bar(np.arange(len(rows)), size[rows, 0], color=[COLOURS[c] for c in range(len(rows))], width=0.65)
        axes.set(xticks=np.arange(len(rows)), xticklabels=[str(k + 1) for k in rows], xlabel="eigenpair")
    elif view.n_obs <= BARS:
        width = 0.8 / len(rows)
        for c, k in enumerate(rows):
            axes.bar(place + (c - (len(rows) - 1) / 2) * width, size[k], width=0.92 * width, color=COLOURS[c])
        axes.set(xticks=place)
        axes.set_xticklabels([safe(short(name, 10)) for name in view.columns[: view.n_obs]], rotation=0 if view.n_obs <= 6 else 40)
    else:
        for c, k in enumerate(rows):
            axes.plot(place, size[k], color=COLOURS[c], lw=1.2)
        axes.set(xlabel="observed variable, by number", xlim=(0, view.n_obs - 1))
    axes.set_ylabel("|mode| [sd]")
    handles = [_line(COLOURS[c], text, width=3.0 if view.n_obs <= BARS else 1.4) for c, text in enumerate(texts)]
    figure.legend(handles=handles, loc="center left", bbox_to_anchor=(0.68, 0.55), fontsize=8.5)
    return figure


def measure_figure(view: KoopmanView) -> Any:
    """Density over frequency, with the frequencies of trusted eigenvalues."""
    found, measure = view.spectrum, view.measure
    figure = canvas(8.4, 3.2)
    axes = figure.add_axes((0.09, 0.17, 0.61, 0.78))
    handles = [_line(BLUE, "spectral measure")]
    if measure is not None:
        scale = 4 * np.pi * found.dt / max(measure.mass, np.finfo(float).tiny)  # of both signs of the angle, per unit of frequency
        frequency, density = measure.frequencies(found.dt), scale * measure.density
        total = np.cumsum(np.maximum(density, 0.0))
        last = int(np.searchsorted(total, MASS * total[-1])) if total[-1] > 0 else len(total) - 1
        right = min(1.5 * float(frequency[min(last + 1, len(frequency) - 1)]), float(frequency[-1]))
        height = float(density.max(initial=1e-12))
        lowest = float(np.clip(0.5 * density[frequency <= right].min(initial=height), 1e-4 * height, 0.01 * height))
        axes.semilogy(frequency, np.maximum(density, lowest), color=BLUE, lw=1.1, zorder=3)
        axes.set(xlim=(0, right), ylim=(lowest, 2 * height))
        rows = np.flatnonzero(found.trusts(view.limit) & ~view.constant & (np.imag(found.values) > 0))
        inside = rows[found.frequencies[rows] <= right]
        for k in inside[:MARKS]:
            axes.axvline(found.frequencies[k], color=ORANGE, lw=1.0, ls=(0, (4, 2)), zorder=2)
            axes.annotate(
                str(k + 1),
                (found.frequencies[k], 1.0),
                xycoords=("data", "axes fraction"),
                color=ORANGE,
                fontsize=7.5,
                ha="center",
                va="bottom",
            )
        handles.append(
            _line(ORANGE, f"trusted eigenvalues ({min(len(inside), MARKS)})" if len(inside) else "no trusted frequency here", (0, (4, 2)))
        )
        if len(rows) > min(len(inside), MARKS):
            handles.append(_mark("", f"{len(rows) - min(len(inside), MARKS)} more not drawn", "none"))
    axes.set(xlabel=safe(f"frequency [{_per(view)}]"), ylabel="share of the variance, density")
    figure.legend(handles=handles, loc="center left", bbox_to_anchor=(0.72, 0.55), fontsize=8.5)
    return figure


def _paint(axes: Any, found: Functions, values: np.ndarray, about: dict[str, Any]) -> Any:
    if found.kind == "points":
        return axes.scatter(found.x, found.y, c=values, s=4, lw=0, rasterized=True, **about)
    image = axes.pcolormesh(found.x, found.y, values, shading="nearest", rasterized=True, **about)
    axes.plot(*found.near.T, ls="", marker=".", ms=1.4, mew=0, color=INK, alpha=0.45, rasterized=True)
    axes.set(xlim=(found.x[0], found.x[-1]), ylim=(found.y[0], found.y[-1]))
    return image


def _bar(figure: Any, image: Any, axes: Any, ticks: Sequence[float | int], texts: Sequence[str]) -> None:
    place = axes.inset_axes((1.04, 0.0, 0.05, 1.0))
    bar = figure.colorbar(image, cax=place)
    bar.set_ticks(ticks, labels=texts)
    bar.ax.tick_params(labelsize=7.5, length=2)
    bar.outline.set_visible(False)


def _real(values: np.ndarray) -> np.ndarray:
    """A real eigenfunction, its largest value positive: a sign that does not depend on the solver."""
    one = np.real(values)
    return one if one.flat[int(np.nanargmax(np.abs(one)))] >= 0 else -one


def _function_labels(view: KoopmanView, found: Functions) -> tuple[str, str]:
    i, j = (view.columns[k] for k in found.columns)
    return with_unit(i, view.units), with_unit(f"{short(j, 8)}(t − {found.lag})" if found.lag else j, view.units)


def _residual_bar(figure: Any, place: tuple[float, float, float, float], norm: Any, limit: float) -> None:
    from matplotlib.cm import ScalarMappable

    bar = figure.colorbar(ScalarMappable(norm, _scale()), cax=figure.add_axes(place), extend="both")
    bar.set_label("residual")
    ticks = [limit / SPREAD, limit, limit * SPREAD]
    bar.set_ticks(ticks, labels=[number(ticks[0], 2), f"{number(limit, 2)}\nlimit", number(ticks[2], 2)])
    bar.minorticks_off()
    bar.outline.set_visible(False)


def _scale() -> Any:
    """Blues up to the limit, oranges beyond it."""
    from matplotlib.colors import LinearSegmentedColormap

    ends = [(0.0, "#08306b"), (0.25, BLUE), (0.5, "#7cc0ea"), (0.5, "#f2b04a"), (0.75, ORANGE), (1.0, "#7f2704")]
    return LinearSegmentedColormap.from_list("residual", ends)


def _range(values: np.ndarray, least: float) -> tuple[float, float]:
    """From the smallest to the largest of the values and 0, and a margin; `least` if they are all 0 to rounding."""
    low, high = min(float(values.min(initial=0.0)), 0.0), max(float(values.max(initial=0.0)), 0.0)
    if high - low < 1e-6 * least:
        return -least, least
    return low - 0.12 * (high - low), high + 0.12 * (high - low)


def _value(value: Any) -> str:
    return number(value.real, 4) if value.imag == 0 else f"{number(value.real, 4)} ± {number(abs(value.imag), 4)}i"


def _per(view: KoopmanView) -> str:
    return "1/time" if view.time_unit in ("dimensionless", "units of time") else f"1/{short(view.time_unit, 13)}"


def _power(exponent: int) -> str:
    return "1" if exponent == 0 else f"$10^{{{exponent}}}$"


def _mark(marker: str, text: str, fill: str, edge: str = "none") -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], ls="", marker=marker or None, mfc=fill, mec=edge, mew=1.0, ms=6, label=text)


def _line(colour: str, text: str, style: Any = "-", width: float = 1.3) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, lw=width, ls=style, label=text)

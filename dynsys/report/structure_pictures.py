"""From a `Structure` to all its pictures, as bytes by name, with captions and the reasons for those that can't be drawn.

regions, transitions, code     of a piecewise-linear model whose orbit lives
cycles, eigenvalues            of any model of which a fixed point or cycle was found
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from dynsys.analysis.neighbours import default_theiler
from dynsys.analysis.structure import Structure
from dynsys.report.canvas import STYLE, encoded, few_colours, load_matplotlib
from dynsys.report.content import BasinMap
from dynsys.report.structure_figures import code_figure, cycles_figure, eigenvalues_figure, regions_figure
from dynsys.report.structure_graph import DETAILED, FAINTEST, NODES, TEXTS, graph_figure
from dynsys.report.structure_maps import basins_figure
from dynsys.report.structure_view import Naming, Scene, scene_of, window
from dynsys.report.views import with_unit

CODED = ("regions", "transitions", "code")
CYCLIC = ("cycles", "eigenvalues")
LEAST = 0.25  # share of the time that the regions which are drawn must take, for their pictures to say anything


def structure_pictures(
    found: Structure, naming: Naming, format: str = "png", *, basins: BasinMap | None = None, dpi: int = 110, small: bool = False
) -> dict[str, bytes]:
    """Every picture that there is something for, by name. Raises MissingExtra if matplotlib is absent."""
    matplotlib = load_matplotlib()
    made = {}
    with matplotlib.rc_context(STYLE):
        for name, draw in drawers(found, naming, basins).items():
            data = encoded(draw(), format, dpi)
            made[name] = few_colours(data) if small and format == "png" else data
    return made


def drawers(found: Structure, naming: Naming, basins: BasinMap | None = None) -> dict[str, Callable[[], Any]]:
    """A function for every picture that can be drawn, in reading order."""
    scene = scene_of(found.observed, naming, found.dt)
    work: dict[str, Callable[[], Any]] = {}
    code = found.code
    if code is not None and not _illegible(found):
        steps = window(code.labels, default_theiler(found.observed) if found.observed.std() > 0 else 1)
        about: dict[str, Any] = {"name": with_unit(naming.names[0], naming.units), "dt": found.dt, "time_unit": naming.time_unit}
        work["regions"] = lambda: regions_figure(scene, code.labels)
        work["transitions"] = lambda: graph_figure(code, _centres(scene, code.labels, code.n_symbols))
        work["code"] = lambda: code_figure(found.observed[:steps, 0], code.labels[:steps], **about)
    if len(found.cycles):
        work["cycles"] = lambda: cycles_figure(scene, found.cycles.cycles, found.positions, found.equilibria)
        work["eigenvalues"] = lambda: eigenvalues_figure(found.cycles.cycles, found.cycles.virtual)
    if basins is not None:
        work["basins"] = lambda: basins_figure(basins)
    return work


def captions(found: Structure, naming: Naming) -> dict[str, str]:
    """What stands below each picture, as plain text."""
    note = scene_of(found.observed, naming, found.dt).note
    unit = "" if naming.time_unit in ("dimensionless", "units of time") else f" {naming.time_unit}"
    step = "step" if found.dt is None else f"step of {found.dt:.3g}{unit}"
    known = found.equilibria is not None and len(found.equilibria) > 0
    return {
        "regions": f"A free run of the model, each state in the colour of its linear region; 0 is the most visited. {note}".strip(),
        "transitions": _graph_caption(found, step),
        "code": "The first observed variable, and below it the region of every step.",
        "cycles": "Fixed points and cycles of the model in its attractor (grey). "
        + ("Crosses: the fixed points of the true system. " if known else "")
        + note,
        "eigenvalues": "Eigenvalues of all fixed points and cycles, those of a k-cycle brought to one step: |λ|^(1/k) at the angle of λ. "
        "Outside the circle a direction is unstable. Hollow: virtual cycles, which solve the equations of regions that they do not visit.",
    }


def _graph_caption(found: Structure, step: str) -> str:
    """What the graph says; graphs of many regions carry no numbers, see `graph_figure`."""
    n = 0 if found.code is None else found.code.n_symbols
    stay = f"; p: the probability to stay one more {step}" if n <= DETAILED else ""
    width = "their width, and the number on them," if n <= TEXTS else "their width"
    faint = "" if n <= TEXTS else f" Those below {FAINTEST:.0%} are left out."
    return (
        f"Discs: regions, their area by the share of the time{stay}. "
        f"Arrows: where the run goes when it leaves a region; {width} is the probability of each way out.{faint}"
    )


def missing(found: Structure) -> tuple[tuple[str, str], ...]:
    """(picture, why there is none) of all that `drawers` leaves out."""
    reasons = []
    if found.code is None:
        why = "its orbit leaves all bounds" if found.spectrum is None else f"a model of class {found.model} is not piecewise linear"
        reasons += [(name, why) for name in CODED]
    elif why := _illegible(found):
        reasons += [(name, why) for name in CODED]
    if not len(found.cycles):
        reasons += [(name, "no fixed point or cycle was found") for name in CYCLIC]
    return tuple(reasons)


def _illegible(found: Structure) -> str:
    """Why pictures of the regions would show nothing; empty if they would show something."""
    code = found.code
    share = 1.0 if code is None else float(np.sort(code.shares)[::-1][:NODES].sum())
    if code is None or share >= LEAST:
        return ""
    return f"the {NODES} most visited of {code.n_symbols:,} regions take {share:.1%} of the time; fewer rectified units give larger regions"


def _centres(scene: Scene, labels: np.ndarray, n: int) -> np.ndarray:
    """The mean place of the states of every region that is drawn, (n, D)."""
    labels = labels[scene.first : scene.first + len(scene.points)]
    shown = min(n, NODES)
    keep = labels < shown
    sums = np.zeros((shown, scene.points.shape[1]))
    np.add.at(sums, labels[keep], scene.points[keep])
    return sums / np.maximum(np.bincount(labels[keep], minlength=shown), 1)[:, None]

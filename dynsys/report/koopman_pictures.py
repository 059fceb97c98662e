"""From a `KoopmanView` to all its pictures, as bytes by name, with captions.

koopman_eigenvalues      on the unit circle and as rates; colour: residual, filled: trusted, hollow: not
koopman_pseudospectrum   contours of res(z) with the eigenvalues on top
koopman_eigenfunctions   trusted ones: real ones by value, complex ones by modulus and phase
koopman_modes            how much of every observed variable moves with each of them
koopman_measure          the spectral measure of the first observed variable, with the trusted frequencies
"""

from collections.abc import Callable
from typing import Any

from dynsys.report.canvas import STYLE, encoded, few_colours, load_matplotlib
from dynsys.report.content import number
from dynsys.report.koopman_figures import (
    MODES,
    eigenfunctions_figure,
    eigenvalues_figure,
    measure_figure,
    modes_figure,
    pseudospectrum_figure,
)
from dynsys.report.koopman_view import Functions, KoopmanView, leading

NAMES = ("koopman_eigenvalues", "koopman_pseudospectrum", "koopman_eigenfunctions", "koopman_modes", "koopman_measure")


def koopman_pictures(view: KoopmanView, format: str = "png", *, dpi: int = 110, small: bool = False) -> dict[str, bytes]:
    """Every picture that there is something for, by name. Raises MissingExtra if matplotlib is absent."""
    matplotlib = load_matplotlib()
    made = {}
    with matplotlib.rc_context(STYLE):
        for name, draw in drawers(view).items():
            data = encoded(draw(), format, dpi)
            made[name] = few_colours(data) if small and format == "png" and name != NAMES[2] else data  # that one has three scales
    return made


def drawers(view: KoopmanView) -> dict[str, Callable[[], Any]]:
    """A function for every picture that can be drawn, in reading order."""
    work: dict[str, Callable[[], Any]] = {NAMES[0]: lambda: eigenvalues_figure(view)}
    levels, functions, measure = view.levels, view.functions, view.measure
    if levels is not None:
        work[NAMES[1]] = lambda: pseudospectrum_figure(view, levels)
    if functions is not None:
        work[NAMES[2]] = lambda: eigenfunctions_figure(view, functions)
    if view.spectrum.modes is not None and len(leading(view, MODES)):
        work[NAMES[3]] = lambda: modes_figure(view)
    if measure is not None:
        work[NAMES[4]] = lambda: measure_figure(view)
    return work


def captions(view: KoopmanView) -> dict[str, str]:
    """What stands below each picture, as plain text."""
    told = {
        NAMES[0]: f"Eigenvalues, coloured by residual on {view.data}: filled ones are trusted (residual of at most {view.limit:g}), hollow "
        "ones are not. Left in the plane of one step, right as rates, log(λ)/dt.",
        NAMES[3]: "The rms share of every observed variable that moves with an eigenfunction, |mode|, in standard deviations of the "
        "variable. Numbers are those of the table; of conjugate pairs one is drawn. Shares are not orthogonal and need not add up to one.",
    }
    if (levels := view.levels) is not None:
        least = f" Values below {number(levels.floor, 2)} are rounding." if levels.floor > 1e-6 else ""
        kept = (
            ""
            if levels.rank == levels.size
            else f" Computed in the leading {levels.rank} of {levels.size} directions, which raises values."
        )
        told[NAMES[1]] = (
            "How nearly each number of the plane is an eigenvalue: the least residual of any function of the dictionary. Where it is large "
            f"there is no spectrum that these functions see; an eigenvalue of the regression there is spurious.{least}{kept}"
        )
    if (functions := view.functions) is not None:
        told[NAMES[2]] = _functions_caption(view, functions)
    if (measure := view.measure) is not None:
        told[NAMES[4]] = (
            f"Spectral measure of {view.columns[0]} about its mean: how its variance splits into frequencies. {measure.note} "
            "Lines: frequencies of trusted eigenvalues."
        )
    return told


def _functions_caption(view: KoopmanView, found: Functions) -> str:
    i, j = (view.columns[k] for k in found.columns)
    some = bool(view.spectrum.trusts(view.limit)[found.numbers].all())
    what = "Trusted eigenfunctions:" if some else "None but constants is trusted; drawn are doubtful eigenfunctions:"
    what += " those that carry most of the observed variables, each of mean square 1 over the data, "
    where = {
        "line": f"over {i}; below, where the data are (marks).",
        "plane": f"over {i} and {j}"
        + (", the other variables at their mean; dots: data near this plane." if len(view.columns) > 2 else "; dots: data."),
        "points": f"in points of the data, {i} against " + (f"itself {found.lag} samples earlier." if found.lag else f"{j}."),
    }[found.kind]
    far = "Nothing is drawn far from the data. " if found.kind == "plane" else ""
    waves = "Complex ones: real part solid, imaginary part dashed." if found.kind == "line" else "Complex ones as modulus and phase."
    return f"{what}{where} {far}{waves}"

"""Exponents and dimensions of a model beside those of the data, and of the true system where they are known.

    from the equations   exponents lambda_i and Kaplan-Yorke dimension        model | .    | system
    from a series        maximal exponent, correlation dimension              model | data | system (dimension only)

A row compares like with like: the estimates from a series are made in the same way, with the same number of points and the same
scales, from the model's free run and from the data, so that both carry the same bias. Those of a system are the computed
facts of its record. Errors are standard errors; see the functions that are named for what is in them.
"""

import dataclasses
import math
import warnings
from typing import Any

import numpy as np
from jaxtyping import Float, Real

from dynsys.analysis.dimension import correlation_dimension
from dynsys.analysis.exponent_from_data import maximal_exponent_from_data
from dynsys.analysis.lyapunov import LyapunovSpectrum, kaplan_yorke_dimension
from dynsys.errors import InvalidValue
from dynsys_datasets.catalogue import SystemRecord

LONGEST = 20_000  # points of a series that are used
_SETTLED = 1e-6  # a spread below this share of the scale is no motion


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number and its standard error."""

    value: float
    error: float


@dataclasses.dataclass(frozen=True)
class Invariant:
    """One row: what it is, in which unit, how it was found, and what it is for model, data and system (None: not known)."""

    name: str
    unit: str
    definition: str
    model: Estimate | None = None
    data: Estimate | None = None
    system: Estimate | None = None

    def deviation(self) -> float | None:
        """|model - reference| in joint standard errors, the reference being the data, else the system; None without both."""
        reference = self.data or self.system
        if self.model is None or reference is None:
            return None
        error = math.hypot(self.model.error, reference.error)
        return abs(self.model.value - reference.value) / error if error > 0 else None


def compare(
    run: Real[Any, "T N"] | None,
    spectrum: LyapunovSpectrum | None,
    *,
    data: Real[Any, "S N"] | None = None,
    record: SystemRecord | None = None,
    dt: float | None = None,
) -> tuple[tuple[Invariant, ...], tuple[str, ...]]:
    """The rows of the table, and notes on what could not be computed and why.

    run (T, N): the observed free run of a model; spectrum: its exponents; data (S, N): the same columns of the recording, sampled
    alike; record: the system behind the data, with its computed facts. dt: time a step; None counts steps, and then a system of
    another unit of time has no place in the table.
    """
    unit = "1/step" if dt is None else "1/time"
    rows, notes = _from_equations(spectrum, record, unit)
    if run is None and data is None:
        return rows, notes
    longest = min(len(x) for x in (run, data) if x is not None)
    series = {name: np.asarray(x, float)[: min(longest, LONGEST)] for name, x in (("model", run), ("data", data)) if x is not None}
    scale = series["data" if "data" in series else "model"].std(axis=0)
    found: dict[str, tuple[Estimate | None, Estimate | None]] = {}
    for name, x in series.items():
        exponent, dimension, words = _from_series(x / np.where(scale > 0, scale, 1.0), dt)
        found[name] = exponent, dimension
        notes += tuple(f"{'Free run of the model' if name == 'model' else 'Data'}: {word}" for word in words)
    exponents, dimensions = ({name: pair[i] for name, pair in found.items()} for i in (0, 1))
    return (
        *rows,
        Invariant("maximal exponent from the series", unit, "Rosenstein, Collins, De Luca 1993", **exponents),
        Invariant("correlation dimension", "", "Grassberger, Procaccia 1983", **dimensions, system=_fact(record, "correlation_dimension")),
    ), notes


def kaplan_yorke(spectrum: LyapunovSpectrum) -> Estimate:
    """The Lyapunov dimension with the standard error that follows from those of the exponents, taken as independent.

    The exponent nearest to zero counts as zero if it is so within two standard errors: a limit cycle has dimension 1, not 0.
    NaN if the exponents that are known do not determine it.
    """
    exponents, errors = spectrum.exponents, spectrum.errors
    if not np.isfinite(spectrum.exponents[0]) or math.isnan(spectrum.kaplan_yorke):
        return Estimate(math.nan, math.inf)
    nearest = int(np.argmin(np.abs(exponents)))
    tolerance = float(abs(exponents[nearest])) if abs(exponents[nearest]) <= 2 * errors[nearest] else 0.0
    value = kaplan_yorke_dimension(exponents, tolerance=tolerance)
    j = math.floor(value)
    if j == 0 or j >= len(exponents):
        return Estimate(value, 0.0)
    # D = j + S / |lambda|: dD = dS / |lambda| + S dlambda / lambda^2
    below, total = abs(float(exponents[j])), float(exponents[:j].sum())
    spread = math.sqrt(float((errors[:j] ** 2).sum()) + (total * float(errors[j]) / below) ** 2) / below
    return Estimate(value, spread if math.isfinite(spread) else 0.0)


def _from_equations(
    spectrum: LyapunovSpectrum | None, record: SystemRecord | None, unit: str
) -> tuple[tuple[Invariant, ...], tuple[str, ...]]:
    fact = None if record is None else record.fact("lyapunov_spectrum")
    known = [] if fact is None else list(zip(np.atleast_1d(fact.value), np.atleast_1d(fact.error), strict=True))
    shown = max(len(known), 2)
    rows, notes = [], []
    for i in range(shown if spectrum is not None else len(known)):
        model = None
        if spectrum is not None and i < len(spectrum.exponents) and not math.isnan(spectrum.exponents[i]):
            model = Estimate(float(spectrum.exponents[i]), float(spectrum.errors[i]))
        system = Estimate(float(known[i][0]), float(known[i][1])) if i < len(known) else None
        if model is not None or system is not None:
            rows.append(Invariant(f"Lyapunov exponent {i + 1}", unit, "QR along an orbit", model=model, system=system))
    found = None if spectrum is None else kaplan_yorke(spectrum)
    if spectrum is not None and found is not None and math.isnan(found.value):
        found = None
        if spectrum.status.ok:
            notes.append(f"The Kaplan-Yorke dimension is not determined by the first {len(spectrum.exponents)} exponents.")
    reference = _fact(record, "kaplan_yorke")
    if found is not None or reference is not None:
        rows.append(Invariant("Kaplan-Yorke dimension", "", "Kaplan, Yorke 1979", model=found, system=reference))
    return tuple(rows), tuple(notes)


def _from_series(x: Float[np.ndarray, "T N"], dt: float | None) -> tuple[Estimate | None, Estimate | None, tuple[str, ...]]:
    """Maximal exponent, correlation dimension and what stood in their way."""
    if len(x) < 2 or not np.isfinite(x).all():
        return None, None, ("no exponent and no dimension from the series: too few points that are finite.",)
    if (x[len(x) // 2 :].std(axis=0) < _SETTLED).all():
        return None, None, ("it settles at one point, so there is no exponent and no dimension to measure.",)
    estimates: list[Estimate | None] = []
    notes = []
    for work in (_exponent, _dimension):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", RuntimeWarning)  # means of no pairs, on a periodic orbit
            try:
                found = work(x, dt)
            except InvalidValue as error:
                found = None
                notes.append(f"{error}")
        if found is not None and math.isnan(found.value):
            notes.append(f"no {'straight part of the divergence curve' if work is _exponent else 'scaling range'} was found.")
            found = None
        estimates.append(found)
    return estimates[0], estimates[1], tuple(notes)


def _exponent(x: Float[np.ndarray, "T N"], dt: float | None) -> Estimate:
    found = maximal_exponent_from_data(x, dt=1.0 if dt is None else dt, references=2000)
    return Estimate(found.exponent, found.error)


def _dimension(x: Float[np.ndarray, "T N"], dt: float | None) -> Estimate:
    found = correlation_dimension(x, points=10_000)
    return Estimate(found.dimension, found.error)


def _fact(record: SystemRecord | None, name: str) -> Estimate | None:
    fact = None if record is None else record.fact(name)
    if fact is None or isinstance(fact.value, tuple) or isinstance(fact.error, tuple):
        return None
    return Estimate(float(fact.value), float(fact.error))

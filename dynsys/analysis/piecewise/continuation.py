"""Bifurcations: fixed points, cycles and equilibria followed over a parameter of a system, or from one model to another.

    branches = follow(lambda rho: load_system("Lorenz", rho=rho), np.linspace(0, 30, 61))

At each value new cycles are searched; every one that is on no known branch is traced in both directions, for a smooth system by
pseudo-arclength (`arclength`), for a piecewise-linear one in its known regions (`border`).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dynsys.analysis.piecewise import arclength, border
from dynsys.analysis.piecewise.arclength import Curves
from dynsys.analysis.piecewise.border import Borders
from dynsys.analysis.piecewise.branches import Branch, Branches, Event
from dynsys.analysis.piecewise.cycle import Cycle
from dynsys.analysis.piecewise.newton import fixed_points
from dynsys.analysis.piecewise.search import find_cycles
from dynsys.analysis.piecewise.verified import System, in_double, same_cycle
from dynsys.analysis.piecewise.words import canonical
from dynsys.dynamics import AbstractFlow, AbstractMap, AbstractPiecewiseLinear
from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys.status import Status


def follow(
    family: Callable[[float], System],
    values: Any,
    *,
    max_period: int = 2,
    starts: int = 300,
    searches: int | None = None,
    cycles: Sequence[tuple[float, Cycle]] = (),
    states: Any = None,
    box: tuple[Any, Any] | None = None,
    bound: float | None = None,
    key: int = 0,
) -> Branches:
    """Branches of cycles (maps: periods up to max_period) or equilibria (flows) of family(value), and their bifurcations.

    family: a function of one number; `between` and `along` make one of models. values (n,): the range, and how finely branches are
    sampled, n >= 2. starts: of the search at a value, see fixed_points and find_cycles. searches: at how many of the values new
    cycles are searched, spread evenly; default all. cycles: known ones, as (value, cycle), traced before any search. states, box:
    where to search. bound: coordinates beyond it are not followed; default ten times a typical cycle's.

    A value of an event is as exact as the cycles are (about 1e-9 of the range; 1e-6 where branches cross). Cycles that live only
    between two values of the search are missed. Raises InvalidValue for fewer than two values, and for a family whose members are no
    maps or flows of one dimension.
    """
    values = np.unique(np.asarray(values, float))
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise InvalidValue(f"follow: values must be at least two different finite numbers, got {values}.")
    if max_period < 1 or starts < 1 or (searches is not None and searches < 0):
        raise InvalidValue(f"follow: needs max_period >= 1, starts >= 1 and searches >= 0, got {max_period=}, {starts=}, {searches=}.")
    with x64():
        first, last = family(float(values[0])), family(float(values[-1]))
        if not (isinstance(first, AbstractMap | AbstractFlow) and isinstance(last, type(first)) and last.dim == first.dim):
            raise InvalidValue(f"follow: family(value) must be a map or a flow of one dimension for all values, got {first} and {last}.")

        def doubled(value: float) -> System:
            return in_double(family(float(value)))

        count = len(values) if searches is None else min(searches, len(values))
        where = values[np.unique(np.linspace(0, len(values) - 1, count).round().astype(int))] if count else values[:0]
        seeds = [*cycles]
        for value in where:
            found = _searched(doubled(value), max_period, starts, states, box, key)
            seeds += [(float(value), cycle) for cycle in found]
        scale = max(float(np.median([np.abs(cycle.points).max() for _, cycle in seeds])) if seeds else 0.0, 1e-3)
        limit = 10 * scale if bound is None else bound
        seeds = [(value, cycle) for value, cycle in seeds if np.abs(cycle.points).max() <= limit]
        trace = _piecewise if isinstance(first, AbstractPiecewiseLinear) else _smooth
        branches, events, notes = trace(doubled, values, seeds, scale, limit)
    if not branches:
        return Branches((), (), Status.FAILED, (*notes, "No cycle was found to follow: give box or states, more starts, or cycles=."))
    events = sorted(_named(events, branches, float(np.ptp(values)), scale), key=lambda event: event.value)
    return Branches(tuple(branches), tuple(events), notes=tuple(dict.fromkeys(notes)))


def _searched(system: System, max_period: int, starts: int, states: Any, box: Any, key: int) -> list[Cycle]:
    if isinstance(system, AbstractPiecewiseLinear):
        return list(find_cycles(system, max_period, starts=starts, states=states, box=box, key=key))
    periods = [1] if isinstance(system, AbstractFlow) else list(range(1, max_period + 1))
    return list(fixed_points(system, period=periods, starts=starts, states=states, box=box, key=key, rounds=3, max_cycles=200))


def _smooth(
    family: Callable[[float], System], values: np.ndarray, seeds: list[tuple[float, Cycle]], scale: float, bound: float
) -> tuple[list[Branch], list[Event], list[str]]:
    """Branches of a smooth system through the seeds, each once."""
    curves = Curves(family, float(values[0]), float(values[-1]), scale, 1.0 / (len(values) - 1), bound)
    branches: list[Branch] = []
    events: list[Event] = []
    notes: list[str] = []
    for value, cycle in seeds:
        if any(_passes(curves, branch, value, cycle.points, 1e-5 * scale) for branch in branches):
            continue
        places, found, why = curves.trace(cycle.points, value)
        notes += [why] if why else []
        if len(places) > 1:
            events += [dataclasses.replace(event, branch=len(branches)) for event in found]
            branches.append(arclength.branch_of(places, curves.continuous))
    return branches, events, notes


def _passes(curves: Curves, branch: Branch, value: float, points: Float[np.ndarray, "k M"], close: float) -> bool:
    """Whether a branch contains a cycle at a value."""
    if branch.period != len(points):
        return False
    low, high = branch.values[:-1], branch.values[1:]
    (straddling,) = np.nonzero((low - value) * (high - value) <= 0)
    for i in straddling:
        a, b = branch.points[i], branch.points[i + 1]
        share = 0.0 if low[i] == high[i] else (value - low[i]) / (high[i] - low[i])
        guess = a + share * (b - a)
        refined = curves.at(guess, value)
        candidates = guess[None] if refined is None else np.stack([refined, a, b])
        if same_cycle(points, candidates, max(close, 0.02 * np.abs(b - a).max()) if refined is None else close):
            return True
    return False


def _piecewise(
    family: Callable[[float], System], values: np.ndarray, seeds: list[tuple[float, Cycle]], scale: float, bound: float
) -> tuple[list[Branch], list[Event], list[str]]:
    """Branches of a piecewise-linear map through the seeds, each once: by value and word."""
    own = np.array([value for value, _ in seeds if values[0] <= value <= values[-1]])
    values = np.union1d(values, own)  # a known cycle need not live at any of the given values
    borders = Borders(family, values, scale)
    seen: set[tuple[float, bytes]] = set()
    branches: list[Branch] = []
    events: list[Event] = []
    notes: list[str] = []
    for value, cycle in seeds:
        index = int(np.argmin(np.abs(values - value)))
        word, at = cycle.regions, float(values[index])
        if word is None or (at, canonical(word)) in seen or not borders.admissible(borders.solve(word, at)):
            continue
        places, found, more = borders.trace(word, index)
        kept = [place for place in places if np.abs(place.Z).max() <= bound]
        notes += more
        notes += [f"Part of a branch, where a coordinate passed {bound:.4g}, was left out."] if len(kept) < len(places) else []
        seen |= {(place.value, canonical(place.word)) for place in places}
        if kept:
            events += [dataclasses.replace(event, branch=len(branches)) for event in found]
            branches.append(border.branch_of(kept))
    return branches, events, notes


def _named(events: list[Event], branches: list[Branch], width: float, scale: float) -> list[Event]:
    """Events that belong together made one.

    A branch point with another branch's fold is a pitchfork, with its branch point a transcritical bifurcation. The end of a k-cycle
    on a shorter one lies at that one's flip, where it is located sharply.
    """

    def beside(event: Event, *kinds: str) -> list[Event]:
        return [
            other
            for other in events
            if other.kind in kinds
            and other is not event
            and abs(other.value - event.value) < 2e-3 * width
            and np.abs(other.points[:, None] - event.points[None]).max(2).min() < 0.05 * scale
        ]

    kept: list[Event] = []
    used: list[Event] = []
    for event in events:
        if event.kind == "merges":
            used += [event, *(other for other in beside(event, "fold") if other.branch == event.branch)]
            flip = next((other for other in beside(event, "flip") if branches[other.branch].period < branches[event.branch].period), None)
            what = event.what if flip is None else f"{event.what}, branch {flip.branch}"
            kept.append(dataclasses.replace(event, value=event.value if flip is None else flip.value, what=what))
    for event in events:
        near = [other for other in beside(event, "branch point", "fold") if other.branch != event.branch and not _in(other, used)]
        if event.kind != "branch point" or _in(event, used) or not near:
            continue
        fold = next((other for other in near if other.kind == "fold"), None)
        other = (fold or near[0]).branch
        kind = "transcritical" if fold is None else "pitchfork"
        what = f"branch {other} crosses and stability changes hands" if fold is None else f"the two halves of branch {other} meet here"
        used += [event, *near]
        kept.append(dataclasses.replace(event, kind=kind, what=what))
    return kept + [event for event in events if not _in(event, used)]


def _in(event: Event, events: list[Event]) -> bool:
    """By identity: events hold arrays."""
    return any(event is other for other in events)


def between(first: Any, second: Any) -> Callable[[float], Any]:
    """A family of models for `follow`: every real parameter goes in a straight line from `first` (at 0) to `second` (at 1).

    Raises InvalidValue if the two differ in class, sizes or settings.
    """
    return along([first, second])


def along(models: Sequence[Any]) -> Callable[[float], Any]:
    """A family through several models, such as the checkpoints of a training: model i at the value i, straight lines between.

    Raises InvalidValue for fewer than two models, and if they differ in class, sizes or settings.
    """
    if len(models) < 2:
        raise InvalidValue(f"along: needs at least two models to go between, got {len(models)}.")
    with x64():
        parts = [eqx.partition(in_double(model), eqx.is_inexact_array) for model in models]
    shapes = [[leaf.shape for leaf in jax.tree.leaves(arrays)] for arrays, _ in parts]
    trees = [jax.tree.structure(arrays) for arrays, _ in parts]
    for i in range(1, len(models)):
        if trees[i] != trees[0] or shapes[i] != shapes[0]:
            raise InvalidValue(
                f"along: model {i} ({type(models[i]).__name__}) differs from model 0 ({type(models[0]).__name__}) in class, sizes or "
                "settings; only models of equal structure can be joined."
            )

    def family(value: float) -> Any:
        i = min(max(int(np.floor(value)), 0), len(models) - 2)
        share = value - i
        with x64():
            arrays = jax.tree.map(lambda a, b: jnp.asarray(a + share * (b - a), float), parts[i][0], parts[i + 1][0])
        return eqx.combine(arrays, parts[0][1])

    return family

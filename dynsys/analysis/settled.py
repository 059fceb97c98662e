"""The cycle on which an orbit has settled, read off the orbit itself: no search finds one of hundreds of steps as surely."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dynsys.analysis.arrays import as_float
from dynsys.analysis.piecewise.cycle import Cycle, Cycles, ordered
from dynsys.analysis.piecewise.verified import composed, pointwise, same_cycle, verified
from dynsys.dynamics import AbstractMap
from dynsys.precision import x64

EXACT = 1e-10  # the residual up to which a cycle counts as one, per unit of size


def repeats(states: Float[np.ndarray, "T N"]) -> int | None:
    """The steps after which the second half of a run repeats itself, to 1e-6 of its extent; 1 at rest, None if it does not."""
    half = len(states) // 2
    if not half:
        return None
    close = 1e-6 * np.ptp(states, axis=0, keepdims=True).max(initial=0.0)
    near = np.flatnonzero((np.abs(states[:-1] - states[-1:]) <= close).all(axis=1))[::-1]
    for steps in (len(states) - 1 - near).tolist():
        if steps <= half and (np.abs(states[half:] - states[half - steps : len(states) - steps]) <= close).all():
            return steps
    return None


def settled_cycle(model: AbstractMap, states: Float[np.ndarray, "T M"]) -> Cycle | None:
    """The cycle at the end of an orbit (T, M), made exact by Newton's method; None if the orbit does not repeat itself."""
    period = repeats(states)
    if period is None:
        return None
    with x64():
        wide = as_float(model)
        points = np.array(states[-period:], float)
        size = max(1.0, float(np.abs(points).max()))
        for _ in range(5):
            values, jacobians = pointwise(wide, points)
            miss = values - np.roll(points, -1, axis=0)
            if np.abs(miss).max() <= 1e-3 * EXACT * size:
                break
            points = points + _correction(miss, jacobians)
        found = verified(wide, points, jnp.asarray(1e-9 * size))
    return found if found.residual <= EXACT * size else None


def with_settled(cycles: Cycles, model: AbstractMap, states: Float[np.ndarray, "T M"]) -> Cycles:
    """The cycles of a search, and the one on which the orbit has settled if it is not among them."""
    found = settled_cycle(model, states)
    if found is None:
        return cycles
    close = 1e-7 * max(1.0, float(np.abs(found.points).max()))
    others = [cycle.points for cycle in cycles.of_period(found.period)]
    if others and same_cycle(found.points, np.stack(others), close):
        return cycles
    return dataclasses.replace(cycles, cycles=ordered([*cycles, found]))


def _correction(miss: Float[np.ndarray, "k M"], jacobians: Float[np.ndarray, "k M M"]) -> Float[np.ndarray, "k M"]:
    """One Newton step of f(z_i) = z_(i+1): the change of the first point by the composed map, that of the others one after another."""
    total = np.zeros(miss.shape[1])
    for J, error in zip(jacobians, miss, strict=True):
        total = J @ total + error
    first = np.linalg.lstsq(np.eye(len(total)) - composed(jacobians), total, rcond=None)[0]
    changes = [first]
    for J, error in zip(jacobians[:-1], miss[:-1], strict=True):
        changes.append(J @ changes[-1] + error)
    return np.array(changes)

"""Basins of attraction of a reconstruction on the plane of two observed variables.

    z0(a, b) = start + a (lift(x + e_i) - lift(x)) + b (lift(x + e_j) - lift(x)),   x = observe(start)

start is a state on the attractor, so that the plane meets it; what is not observed stays as it is there.
"""

import jax.numpy as jnp
import numpy as np

from dynsys.analysis.arrays import as_float
from dynsys.analysis.piecewise.basins import basins
from dynsys.analysis.structure import Structure
from dynsys.precision import x64
from dynsys.reconstruct import Reconstruction
from dynsys.report.content import BasinMap
from dynsys.report.structure_view import Naming
from dynsys.report.views import with_unit

STEPS = 1000  # before the ends of the orbits are compared
TRACE = 3000  # points of the free run that are drawn
_COST = 4e10  # multiplications of the matrices of all steps: some ten seconds of a core


def basin_map(
    found: Reconstruction, read: Structure, naming: Naming, *, resolution: tuple[int, int] = (120, 90), columns: tuple[int, int] = (0, 1)
) -> tuple[BasinMap | None, str]:
    """The map over two of the observed variables, twice as wide as the attractor; or None and the reason why there is none."""
    preparation, model = found.preparation, found.model
    if preparation.n_prepared < 2:
        return None, "the model observes one variable only"
    if not len(read.observed):
        return None, "its orbit leaves all bounds"
    cost = resolution[0] * resolution[1] * STEPS * model.dim**2
    if cost > _COST:
        return None, f"a model of {model.dim} states would take too long; call dynsys.analysis.piecewise.basins"
    with x64():
        wide = as_float(model)
        x = np.asarray(wide.observe(jnp.asarray(read.start)), float)
        base = np.asarray(wide.lift(jnp.asarray(x)), float)
        steps = [np.asarray(wide.lift(jnp.asarray(x + np.eye(len(x))[i])), float) - base for i in columns]
    # columns of the delay embedding have the scale of the variable that they delay
    at = [i % preparation.n_obs for i in columns]
    scale, mean = (np.array([values[i] for i in at]) for values in (preparation.scale, preparation.mean))
    place = x[list(columns)] * scale + mean
    low, high = read.observed.min(axis=0)[at], read.observed.max(axis=0)[at]
    wide_by = np.where(high > low, high - low, 1.0) / 2
    low, high = low - wide_by, high + wide_by
    low, high = (low - place) / scale, (high - place) / scale
    # pairs of near cells are counted in all dimensions, so that many of them need a coarse grid
    about = {"cells": 8, "tail": 64} if model.dim > 4 else {"cells": 48, "tail": 256}
    stable = [cycle for cycle in read.cycles if cycle.stable]
    extent = (low[0], high[0], low[1], high[1])
    told = basins(model, read.start, steps[0], steps[1], extent, resolution, steps=STEPS, cycles=stable, **about)
    marks = np.concatenate([_projected(found, cycle.points, columns, scale, mean) for cycle in stable]) if stable else np.zeros((0, 2))
    trace = read.observed[:TRACE][:, at] if preparation.dimension == 1 else np.zeros((0, 2))
    labels = [with_unit(preparation.prepared_names[i], naming.units) for i in columns]
    axes = {"x": told.x * scale[0] + place[0], "y": told.y * scale[1] + place[1], "xlabel": labels[0], "ylabel": labels[1]}
    names = tuple(attractor.name for attractor in told.attractors)
    note = f"Starts on a plane through the attractor, by where their orbits are after {STEPS:,} steps."
    if any(attractor.period is None for attractor in told.attractors):
        note += f" An attractor that does not repeat itself within {about['tail'] // 2} steps is called chaotic or quasi-periodic,"
        note += " even if it is a longer cycle."
    return BasinMap(labels=told.labels, **axes, names=names, marks=marks, trace=trace, note=note), ""


def _projected(found: Reconstruction, points: np.ndarray, columns: tuple[int, int], scale: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Latent points (k, M) in two observed columns, in the user's units (k, 2)."""
    with x64():
        wide = as_float(found.model)
        seen = np.array([np.asarray(wide.observe(jnp.asarray(point)), float) for point in points])
    return seen[:, list(columns)] * scale[None, :] + mean[None, :]

"""Basins of attraction on a two-dimensional slice of state space: every point of a grid is iterated, and asked where it ended.

    z0(x, y) = origin + x axis_x + y axis_y   ->   diverged (-1), a known stable cycle, or another bounded attractor

How attractors that are not known are told apart: see `dynsys.analysis.piecewise.ends`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dynsys.analysis.piecewise.cycle import Cycle
from dynsys.analysis.piecewise.ends import DIVERGED, Attractor, sort_ends
from dynsys.analysis.piecewise.verified import System, in_double
from dynsys.dynamics import AbstractFlow, AbstractMap, Discretized
from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys.systems import SystemFlow, SystemStochastic


@dataclasses.dataclass(frozen=True)
class Basins:
    """labels (ny, nx): the index in `attractors`, -1 where the orbit diverged, -2 where it stayed bounded but its end is unclear.

    x (nx,), y (ny,): coordinates along the axes; labels[j, i] belongs to origin + x[i] axis_x + y[j] axis_y.
    """

    labels: Int[np.ndarray, "ny nx"]
    x: Float[np.ndarray, " nx"]
    y: Float[np.ndarray, " ny"]
    attractors: tuple[Attractor, ...]
    steps: int
    notes: tuple[str, ...] = ()

    @property
    def diverged(self) -> float:
        """The share of the slice from which orbits diverge."""
        return float((self.labels == DIVERGED).mean())


def basins(
    system: System,
    origin: Any,
    axis_x: Any,
    axis_y: Any,
    extent: Any,
    resolution: int | tuple[int, int] = 200,
    *,
    steps: int = 1000,
    cycles: Sequence[Cycle] | None = None,
    dt: float | None = None,
    tail: int = 256,
    cells: int = 64,
    bound: float = 1e6,
    max_attractors: int = 20,
) -> Basins:
    """Which attractor each point of a slice goes to: origin (M,) + x axis_x (M,) + y axis_y (M,) for x, y in the extent.

    extent: (x from, x to, y from, y to). resolution: points along each axis, or (nx, ny). steps: how long orbits run before
    their tails of `tail` steps are compared. cycles: cycles that are known (find_cycles, fixed_points); the stable ones get the first
    labels, in the given order. dt: for a flow, the length of a step (one of Runge-Kutta, order 4); default that of a database system.
    cells: of the coarse grid, along each coordinate of the attractors' range (fewer if these would be too many to meet in); two
    attractors nearer than a cell count as one.
    bound: an orbit beyond it, in units of the largest start (at least 1), has diverged. max_attractors: the most labels; smaller ones
    are unclear.

    Attractors other than the given ones are ordered by their share. Raises InvalidValue for shapes, and for a flow without dt.
    """
    nx, ny = (resolution, resolution) if isinstance(resolution, int) else resolution
    step_map, notes = _as_map(system, dt)
    _check(step_map.dim, origin, axis_x, axis_y, extent, nx, ny, steps, tail, cells)
    x, y = np.linspace(extent[0], extent[1], nx), np.linspace(extent[2], extent[3], ny)
    with x64():
        step_map = in_double(step_map)
        o, u, v = (np.asarray(a, float) for a in (origin, axis_x, axis_y))
        z0 = o + y[:, None, None] * v + x[None, :, None] * u
        z0 = z0.reshape(-1, step_map.dim)
        limit = bound * max(1.0, float(np.abs(z0).max()))
        z = np.array(_iterate(step_map, jnp.asarray(z0), jnp.asarray(steps), jnp.asarray(limit)))
        stable = [cycle for cycle in cycles or () if cycle.stable and not cycle.virtual]
        labels, attractors, told = sort_ends(step_map, z0, z, stable, tail=tail, cells=cells, limit=limit, max_attractors=max_attractors)
    if len(stable) < len(cycles or ()):
        notes.append(f"{len(cycles or ()) - len(stable)} of the given cycles are not stable and have no basin.")
    notes += told
    return Basins(labels.reshape(ny, nx), x, y, tuple(attractors), steps, tuple(notes))


@eqx.filter_jit
def _iterate(model: AbstractMap, z: Array, steps: Array, limit: Array) -> Array:
    """The states after `steps` steps; one that has passed the limit stays where it is, as NaN if it is no number."""

    def body(_: Array, z: Array) -> Array:
        ahead = jax.vmap(lambda state: model.step(state))(z)
        gone = ~(jnp.abs(z) < limit).all(1)
        return jnp.where(gone[:, None], z, ahead)

    return jax.lax.fori_loop(0, steps, body, z)


def _as_map(system: System, dt: float | None) -> tuple[AbstractMap, list[str]]:
    if isinstance(system, AbstractMap):
        return system, []
    if dt is None and isinstance(system, SystemFlow | SystemStochastic):
        dt = system.dt
    if dt is None:
        raise InvalidValue(
            "basins: a flow needs dt, the length of one integration step in its own unit of time. Try a 100th of its period."
        )
    return Discretized(flow=system, dt=dt), _autonomous(system)  # pyright: ignore[reportCallIssue]


def _autonomous(flow: AbstractFlow) -> list[str]:
    with x64():
        z = jnp.asarray(np.linspace(0.1, 0.9, flow.dim))
        if np.allclose(flow.field(0.0, z), flow.field(0.37, z), rtol=1e-12, atol=1e-12, equal_nan=True):
            return []
    return ["The field depends on time: every step sees it at t = 0, so these are not the basins of the driven system."]


def _check(dim: int, origin: Any, axis_x: Any, axis_y: Any, extent: Any, nx: int, ny: int, steps: int, tail: int, cells: int) -> None:
    for name, value in {"origin": origin, "axis_x": axis_x, "axis_y": axis_y}.items():
        if np.shape(value) != (dim,):
            raise InvalidValue(f"basins: {name} must be a latent state of shape ({dim},), got shape {np.shape(value)}.")
    if np.shape(extent) != (4,) or not (extent[0] <= extent[1] and extent[2] <= extent[3]):
        raise InvalidValue(f"basins: extent must be (x from, x to, y from, y to), got {extent}.")
    if min(nx, ny, steps, cells) < 1 or tail < 2:
        raise InvalidValue(
            f"basins: resolution, steps and cells must be at least 1 and tail at least 2, got {nx=}, {ny=}, {steps=}, {tail=}, {cells=}."
        )

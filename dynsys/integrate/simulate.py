"""From the name of a system to a time series: integrate, let the transient pass, wrap the angles, add noise.

x[k] = z(k dt) + noise * std(z) * xi[k],   xi independent standard normal numbers
"""

from pathlib import Path
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from dynsys.dynamics import AbstractMap
from dynsys.errors import DataError, InvalidValue
from dynsys.integrate.solve import solve
from dynsys.precision import x64
from dynsys.status import Status
from dynsys.systems import SystemFlow, SystemMap, load_system
from dynsys_datasets.series.timeseries import TimeSeries

DEFAULT_TRANSIENT = 1000


def simulate_system(
    name_or_path: str | Path,
    points: int,
    *,
    dt: float | None = None,
    start: Any = None,
    transient: int | None = None,
    noise: float = 0.0,
    parameters: dict[str, Any] | None = None,
    solver: str | diffrax.AbstractSolver = "dopri8",
    rtol: float = 1e-9,
    atol: float = 1e-9,
    max_steps: int | None = None,
    wrap: bool = True,
    key: Array | int = 0,
) -> TimeSeries:
    """A time series of `points` rows of a system of the database, or of a user's .toml file, in float64.

    dt: the sampling interval in the system's unit of time (default: the file's; a map has 1). start: (M,), or (B, M) for B
    trajectories; default: the file's. transient: how many points are thrown away first; default: none from the file's own
    start with its own parameters, else 1000. noise: standard deviation of added observation noise as a fraction of each
    column's. parameters: values (or sizes) that replace the file's, as in `load_system`. max_steps: default 1000 a point.
    wrap: angles that the file declares lie in [-period/2, period/2). key: a JAX key or a whole number, for the noise.

    Raises InvalidValue for wrong arguments, UnknownName for names, DataError if the file is wrong or the run fails, with
    the remedy. The same arguments give the same series on the same machine; a chaotic path differs between machines.
    """
    for label, value, least in (("points", points, 1), ("transient", transient or 0, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise InvalidValue(f"simulate_system: {label} must be a whole number of at least {least}, got {label}={value!r}.")
    if not (np.isfinite(noise) and noise >= 0):
        raise InvalidValue(f"simulate_system: noise must be at least 0, got noise={noise}: it is a fraction of each column's deviation.")
    flow = load_system(name_or_path, **(parameters or {}))
    record = flow.record
    if dt is not None and isinstance(flow, SystemMap):
        raise InvalidValue(f"simulate_system: {record.name} is a map and has no dt, got dt={dt}; leave it out.")
    if dt is not None and not (np.isfinite(dt) and dt > 0):
        raise InvalidValue(f"simulate_system: dt must be positive, got dt={dt}: the sampling interval in {record.file.time.unit}.")
    if transient is None:
        transient = 0 if start is None and not parameters else DEFAULT_TRANSIENT
    begin = np.asarray(flow.start if start is None else start, dtype=np.float64)
    if begin.ndim not in (1, 2) or begin.shape[-1] != flow.dim or not np.all(np.isfinite(begin)):
        raise InvalidValue(
            f"simulate_system: start must be finite with shape (M,) or (B, M), M={flow.dim} ({', '.join(flow.names[:8])}), "
            f"got shape {begin.shape}."
        )
    _check_field(flow, begin)
    step, total = flow.dt if dt is None else float(dt), points + transient
    if isinstance(flow, SystemMap):
        states, status = iterate(flow, begin, total)
    else:
        times = np.arange(max(total, 2)) * step
        limit = 1000 * total + 10_000 if max_steps is None else max_steps
        solution = solve(flow, begin, times, solver=solver, rtol=rtol, atol=atol, max_steps=limit)
        states, status = np.asarray(solution.states)[..., :total, :], solution.status
    if not status.ok:
        reached = int(np.min(np.sum(np.isfinite(states).all(-1), -1)))
        raise DataError(f"{record.name}: the simulation ended at point {reached} of {total} ({status.value}). {status.remedy}")
    states = states[..., transient:, :]
    states = _with_noise(record.wrap(states) if wrap else states, noise, key)
    notes = () if not noise else (f"observation noise of {noise:g} standard deviations added",)
    return TimeSeries(states, dt=step, names=flow.names, time_unit=record.file.time.unit, source=record.name, notes=notes)


def _check_field(flow: SystemFlow | SystemMap, begin: np.ndarray) -> None:
    """DataError that names the equations that have no finite value at the start, before an integrator runs into them."""
    with np.errstate(all="ignore"):
        found = np.atleast_2d([flow.record.field(0.0, z, None, flow.parameters) for z in np.atleast_2d(begin)])
    bad = ~np.isfinite(found)
    if np.any(bad):
        lane, first = np.argwhere(bad)[0]
        which = ", ".join(name for name, wrong in zip(flow.names, bad[lane], strict=True) if wrong)
        raise DataError(
            f"{flow.record.name}: the equation of {which} is {found[lane, first]} at the start "
            f"{np.array2string(np.atleast_2d(begin)[lane], precision=6, threshold=8)}. Pass another start=..., or see whether the "
            "equation divides by zero or takes a root or logarithm of a negative number there."
        )


def iterate(flow: AbstractMap, start: np.ndarray, points: int) -> tuple[np.ndarray, Status]:
    """The start and the points - 1 states after it, (points, M) or (B, points, M), and DIVERGED if they do not stay finite."""
    with x64():
        states = np.asarray(_iterate(flow, jnp.asarray(start), points))
    return states, Status.SUCCESS if np.all(np.isfinite(states)) else Status.DIVERGED


@eqx.filter_jit
def _iterate(flow: AbstractMap, start: Float[Array, "*B M"], points: int) -> Float[Array, "*B T M"]:
    def orbit(z: Array) -> Array:
        return jax.lax.scan(lambda state, _: (flow.step(state), state), z, None, length=points)[1]

    return orbit(start) if start.ndim == 1 else jax.vmap(orbit)(start)


def _with_noise(states: np.ndarray, noise: float, key: Array | int) -> np.ndarray:
    if not noise:
        return states
    with x64():
        numbers = np.asarray(jr.normal(jr.key(key) if isinstance(key, int) else key, states.shape, dtype=jnp.float64))
    deviation = states.reshape(-1, states.shape[-1]).std(0)
    return states + noise * deviation * numbers

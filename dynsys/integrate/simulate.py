"""From the name of a system to a time series: integrate, let the transient pass, wrap the angles, add noise, choose what is seen.

x[k] = z(k dt) + noise * std(z) * xi[k],   xi independent standard normal numbers

kind     made by                                                             step inside a sampling interval
flow     `solve`, error control by rtol and atol                             chosen by the solver
map      iteration                                                           -
delay    `solve_delay` from a constant past                                  chosen by rtol, or `step`
sde      `solve_stochastic`                                                  a tenth of dt, or `step`
field    `solve_field`                                                       the file's, or `step`
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from dynsys.dynamics import AbstractMap
from dynsys.errors import DataError, InvalidValue
from dynsys.integrate.delay import solve_delay
from dynsys.integrate.solve import solve
from dynsys.integrate.stochastic import solve_stochastic
from dynsys.precision import x64
from dynsys.status import Status
from dynsys.systems import SystemDelay, SystemFlow, SystemMap, SystemStochastic, load_system
from dynsys_datasets.series.timeseries import TimeSeries

DEFAULT_TRANSIENT = 1000
_DELAYS = 20  # of the largest delay pass before a constant past is forgotten
_SUBSTEPS = 10  # of a stochastic system in a sampling interval

AnySystem = SystemFlow | SystemMap | SystemDelay | SystemStochastic


def simulate_system(
    name_or_path: str | Path,
    points: int,
    *,
    dt: float | None = None,
    start: Any = None,
    n_trajectories: int = 1,
    spread: float = 0.01,
    sweep: Mapping[str, Any] | None = None,
    observe: str | int | Sequence[str | int] | None = None,
    transient: int | None = None,
    noise: float = 0.0,
    parameters: dict[str, Any] | None = None,
    solver: str | diffrax.AbstractSolver | None = None,
    rtol: float = 1e-9,
    atol: float = 1e-9,
    step: float | None = None,
    max_steps: int | None = None,
    wrap: bool = True,
    key: Array | int = 0,
) -> TimeSeries:
    """A time series of `points` rows of a system of the database, or of a user's .toml file, in float64.

    dt: the sampling interval in the system's unit of time (default: the file's; a map has 1). start: (M,), or (B, M) for B
    trajectories; default: the file's; a delay equation takes it as a constant past. n_trajectories: so many runs; all but
    the first begin `spread` standard deviations off the start, in a random direction; those of a stochastic system begin at
    the start and have their own noise. sweep: one parameter with its values, {"rho": [20, 25, 30]}: one trajectory each,
    with the value as its input column. observe: the states that are kept, names or numbers (default: all).

    transient: how many points are thrown away first. Default: none from the file's own start with its own parameters, else
    1000; for a delay equation 20 delays. noise: standard deviation of added observation noise as a fraction of each
    column's. parameters: values (or sizes) that replace the file's, as in `load_system`. solver: of a flow, 'dopri8' by
    default; of a stochastic system, the method of `solve_stochastic`. rtol, atol: tolerances for flows; rtol also chooses
    the step of a delay equation. step: the longest inner step, for delay, sde and field. max_steps: of a flow, default 1000
    a point. wrap: angles that the file declares lie in [-period/2, period/2). key: a JAX key or a whole number, for the
    observation noise, the starts and the Wiener processes.

    Raises InvalidValue for wrong arguments, UnknownName for names, DataError if the file is wrong or the run fails, with
    the remedy. The same arguments give the same series on the same machine; a chaotic path differs between machines.
    """
    for label, value, least in (("points", points, 1), ("transient", transient or 0, 0), ("n_trajectories", n_trajectories, 1)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise InvalidValue(f"simulate_system: {label} must be a whole number of at least {least}, got {label}={value!r}.")
    for label, value, what in (("noise", noise, "a fraction of each column's"), ("spread", spread, "a number of each state's")):
        if not (np.isfinite(value) and value >= 0):
            raise InvalidValue(f"simulate_system: {label} must be at least 0, got {label}={value}: it is {what} deviation.")
    system = load_system(name_or_path, **(parameters or {}))
    record = system.record
    _check_times(system, dt, step, solver)
    swept, values = _swept(system, sweep, n_trajectories)
    begin = np.asarray(system.start if start is None else start, dtype=np.float64)
    if begin.ndim not in (1, 2) or begin.shape[-1] != system.dim or not np.all(np.isfinite(begin)):
        raise InvalidValue(
            f"simulate_system: start must be finite with shape (M,) or (B, M), M={system.dim} ({', '.join(system.names[:8])}), "
            f"got shape {begin.shape}."
        )
    if n_trajectories > 1 and begin.ndim == 2:
        raise InvalidValue(f"simulate_system: start holds {len(begin)} starts already; leave out n_trajectories, or pass one start (M,).")
    own = start is None and not parameters and not sweep
    if n_trajectories > 1:
        begin, own = _starts(system, begin, n_trajectories, spread, key), own and record.kind == "sde"
    _check_field(system, begin, values)
    interval = system.dt if dt is None else float(dt)
    if transient is None:
        transient = 0 if own else DEFAULT_TRANSIENT
        if isinstance(swept, SystemDelay):
            transient = math.ceil(_DELAYS * float(np.max(swept.lags)) / interval)
    total = points + transient
    with x64():
        branch = jr.fold_in(_key(key), 2)
    tolerances = {"rtol": rtol, "atol": atol, "max_steps": 1000 * total + 10_000 if max_steps is None else max_steps}
    states, status = _run(swept, begin, total, interval, values is not None, solver, step, branch, tolerances)
    if not status.ok:
        finite = np.sum(np.isfinite(states).all(-1), -1)
        reached, lane = int(np.min(finite)), int(np.argmin(finite))
        which = "" if values is None or sweep is None else f" with {next(iter(sweep))}={values[1][lane]:g}"
        raise DataError(f"{record.name}{which}: the simulation ended at point {reached} of {total} ({status.value}). {status.remedy}")
    states = states[..., transient:, :]
    states = _with_noise(record.wrap(states) if wrap else states, noise, key)
    notes = [] if not noise else [f"observation noise of {noise:g} standard deviations added"]
    about: dict[str, Any] = {"dt": interval, "names": system.names, "time_unit": record.file.time.unit, "source": record.name}
    if parameters:
        notes.insert(0, f"parameters changed: {', '.join(_changed(*pair) for pair in parameters.items())}")
    if values is not None:
        name, numbers = values
        about |= {"inputs": np.broadcast_to(numbers[:, None, None], (len(numbers), points, 1)), "input_names": (name,)}
        notes.append(f"one trajectory for each value of the parameter {name}, which is the input {name}")
    series = TimeSeries(states, notes=notes, **about)
    return series if observe is None else series.select(observe)


def _run(
    system: AnySystem,
    begin: np.ndarray,
    total: int,
    interval: float,
    batched: bool,
    solver: Any,
    step: float | None,
    key: Array,
    tolerances: Any,
) -> tuple[np.ndarray, Status]:
    """States (total, M) or (B, total, M) of any kind of system."""
    if isinstance(system, SystemMap):
        return iterate(system, begin, total, batched)
    times = np.arange(max(total, 2)) * interval
    if isinstance(system, SystemDelay):
        solution = solve_delay(system, begin, times, dt=step, rtol=tolerances["rtol"], batched_system=batched)
    elif isinstance(system, SystemStochastic):
        substeps = _SUBSTEPS if step is None else max(1, math.ceil(interval / step - 1e-9))
        solution = solve_stochastic(system, begin, times, key=key, method=solver, substeps=substeps, batched_system=batched)
    elif system.record.kind == "field":
        from dynsys.integrate.spectral import solve_field

        solution = solve_field(system, begin, times, dt=step, batched_flow=batched)
    else:
        solution = solve(system, begin, times, solver=solver or "dopri8", batched_flow=batched, **tolerances)
    return np.asarray(solution.states)[..., :total, :], solution.status


def _check_times(system: AnySystem, dt: float | None, step: float | None, solver: Any) -> None:
    """InvalidValue for a dt, a step or a solver that the kind of system has no use for."""
    kind, name, unit = system.record.kind, system.record.name, system.record.file.time.unit
    if dt is not None and kind == "map":
        raise InvalidValue(f"simulate_system: {name} is a map and has no dt, got dt={dt}; leave it out.")
    for label, value, what in (("dt", dt, "the sampling interval"), ("step", step, "the longest inner step")):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise InvalidValue(f"simulate_system: {label} must be positive, got {label}={value}: {what} in {unit}.")
    if step is not None and kind in ("flow", "map"):
        raise InvalidValue(f"simulate_system: step={step} belongs to the kinds delay, sde and field; {name} is a {kind}. Leave it out.")
    if solver is not None and kind not in ("flow", "sde"):
        raise InvalidValue(f"simulate_system: there is one method for {name}, of kind {kind!r}; leave out solver={solver!r}.")


def _swept(system: AnySystem, sweep: Mapping[str, Any] | None, n_trajectories: int) -> tuple[AnySystem, tuple[str, np.ndarray] | None]:
    """The system with a leading axis on its parameters, and the name and values (B,) of the one that is swept."""
    if sweep is None:
        return system, None
    if len(sweep) != 1 or n_trajectories > 1:
        raise InvalidValue(
            f"simulate_system: a sweep takes one parameter, one trajectory a value, got {', '.join(sweep) or 'none'}"
            f"{f' and n_trajectories={n_trajectories}' if n_trajectories > 1 else ''}. Use SystemFlow.sweep and solve for more."
        )
    name, given = next(iter(sweep.items()))
    if name in dict(system.record.file.sizes):
        raise InvalidValue(f"simulate_system: {name} is a size of {system.record.name} and can't be swept; run once for each value.")
    values = np.asarray(given, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.all(np.isfinite(values)):
        raise InvalidValue(f"simulate_system: the values of {name} must be finite numbers (B,), got {given!r}.")
    return system.sweep(**{name: values}), (name, values)


def _starts(system: AnySystem, begin: np.ndarray, count: int, spread: float, key: Array | int) -> np.ndarray:
    """(B, M): the start, then starts that are moved by `spread` deviations; of a field, with the same means."""
    if system.record.kind == "sde":
        return np.tile(begin, (count, 1))
    with x64():
        moved = np.array(jr.normal(jr.fold_in(_key(key), 1), (count, len(begin)), dtype=jnp.float64))
    fact = system.record.fact("std")
    size = np.abs(begin) if fact is None else np.broadcast_to(np.asarray(fact.value, dtype=np.float64), begin.shape)
    usual = size[size > 0].mean() if np.any(size > 0) else 1.0
    moved *= spread * np.where(size > 0, size, usual)
    if system.record.kind == "field":  # many fields conserve the mean
        shape = (count, len(system.record.file.state), -1)
        moved = (moved.reshape(shape) - moved.reshape(shape).mean(-1, keepdims=True)).reshape(moved.shape)
    moved[0] = 0.0
    return begin + moved


def _check_field(system: AnySystem, begin: np.ndarray, values: tuple[str, np.ndarray] | None) -> None:
    """DataError that names the equations that have no finite value at the start, before an integrator runs into them."""
    starts, parameters = np.atleast_2d(begin), dict(system.parameters)
    lanes = [(z, parameters) for z in starts]
    if values is not None:
        name, numbers = values
        if len(starts) not in (1, len(numbers)):
            raise InvalidValue(f"simulate_system: start has {len(starts)} rows for {len(numbers)} values of {name}; pass one, or one each.")
        starts = np.broadcast_to(starts, (len(numbers), starts.shape[1]))
        lanes = [(z, parameters | {name: number}) for z, number in zip(starts, numbers, strict=True)]
    record, past = system.record, len(system.lags) if isinstance(system, SystemDelay) else 0
    for z, known in lanes[:100]:
        delayed = np.tile(z, (past, 1)) if past else None
        with np.errstate(all="ignore"):
            found = record.field(0.0, z, None, known, delayed)
            if isinstance(system, SystemStochastic):
                found = found + record.diffusion(0.0, z, None, known)
        bad = ~np.isfinite(found)
        if np.any(bad):
            which = ", ".join(name for name, wrong in zip(system.names, bad, strict=True) if wrong)
            raise DataError(
                f"{record.name}: the equation of {which} is {found[bad][0]} at the start {np.array2string(z, precision=6, threshold=8)}. "
                "Pass another start=..., or see whether the equation divides by zero or takes a root or logarithm of a negative number."
            )


def iterate(system: AbstractMap, start: np.ndarray, points: int, batched: bool = False) -> tuple[np.ndarray, Status]:
    """The start and the points - 1 states after it, (points, M) or (B, points, M), and DIVERGED if they do not stay finite.

    batched: every array of the map carries a leading axis B.
    """
    with x64():
        states = np.asarray(_iterate(system, jnp.asarray(start), points, batched))
    return states, Status.SUCCESS if np.all(np.isfinite(states)) else Status.DIVERGED


@eqx.filter_jit
def _iterate(system: AbstractMap, start: Array, points: int, batched: bool) -> Array:
    def orbit(system: AbstractMap, z: Array) -> Array:
        return jax.lax.scan(lambda state, _: (system.step(state), state), z, None, length=points)[1]

    if not batched and start.ndim == 1:
        return orbit(system, start)
    return eqx.filter_vmap(orbit, in_axes=(eqx.if_array(0) if batched else None, 0 if start.ndim == 2 else None))(system, start)


def _changed(name: str, value: Any) -> str:
    shape = np.shape(value)
    return f"{name} with shape {shape}" if shape else f"{name}={value}"


def _key(key: Array | int) -> Array:
    return jr.key(key) if isinstance(key, int) else key


def _with_noise(states: np.ndarray, noise: float, key: Array | int) -> np.ndarray:
    if not noise:
        return states
    with x64():
        numbers = np.asarray(jr.normal(_key(key), states.shape, dtype=jnp.float64))
    deviation = states.reshape(-1, states.shape[-1]).std(0)
    return states + noise * deviation * numbers

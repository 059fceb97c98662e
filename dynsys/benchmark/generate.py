"""The series of one system for the benchmark: integrated to 1e-9, checked by another method, without JAX where that is faster.

For the usual 1,200 points SciPy's DOP853 on the NumPy field of a system takes 0.1 to 0.5 s, less than compiling one diffrax
solve (0.65 s and more). For the long series (100,000 points and more) the compiled solve wins; see `long_series`.
Methods: Hairer, Norsett, Wanner 1993 (DOP853); Petzold 1983 (LSODA).
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from dynsys_datasets.catalogue import SystemRecord, system
from dynsys_datasets.errors import DataError, InvalidValue

MOST_CALLS = 300_000  # of the field per 1,000 points in DOP853; a stiffer system goes to LSODA
LARGEST_ERROR = 1e-4  # standard deviations between two solvers within the first Lyapunov time
LONG_STEPS = 15  # of the compiled solver, a point, in the mean: the hardest system that is sampled at 100 points a period takes 6
FAR = 1000.0  # times the largest state of the short series: there an orbit has left its attractor
DELAY_COLUMNS = 10  # x(t - j tau / 9), j = 0..9: how the literature's collection shows a delay equation


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How the series of a data set are made: the same recipe gives the same numbers, whatever computes them.

    per_period: points in one dominant period (that of the system's [time] table). points: of the series (training part, then
    test part, contiguous); validation: points of a second series of the same orbit, `gap` points later. long: points of each
    of the two long series, 0 for none. rtol: relative tolerance of a step; atol is rtol times the size of the state.
    check: integrate the first Lyapunov time again with another method, 100 times tighter.
    """

    per_period: int = 100
    points: int = 1200
    validation: int = 1200
    gap: int = 300
    long: int = 100_000
    rtol: float = 1e-9
    check: bool = True

    def __post_init__(self):
        for name, least in (("per_period", 2), ("points", 2), ("validation", 0), ("gap", 0), ("long", 0)):
            if getattr(self, name) < least:
                raise InvalidValue(f"Recipe: {name} must be at least {least}, got {getattr(self, name)}.")
        if not 0 < self.rtol < 1:
            raise InvalidValue(f"Recipe: rtol must be in (0, 1), got {self.rtol}.")


@dataclasses.dataclass(frozen=True)
class Made:
    """The series of one system: arrays by name ('series', 'validation', 'long_train', 'long_test'), (T, N), and facts about them."""

    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


def generate(name: str, recipe: Recipe) -> Made:
    """All series of a system, by name or .toml file. Raises DataError if it can't be integrated or fails its check.

    A system whose long series can't be made (its chaos ends, or the solver gets stuck) has none; the fact `no_long` says why.
    """
    record = system(Path(name) if name.endswith(".toml") else name)
    dt = sampling(record, recipe.per_period)
    counts = recipe.points + recipe.gap + recipe.validation if recipe.validation else recipe.points
    facts: dict[str, Any] = {"dt": dt, "period": record.file.time.period, "kind": record.kind, "lyapunov": _exponent(record)}
    if record.kind == "map":
        states, facts["solver"] = _orbit(record, counts), "iteration"
        names = record.state_names
    elif record.kind == "flow":
        names = record.state_names
        states, more = _checked_trajectory(record, dt, counts, recipe)
        facts |= more
    elif record.kind == "delay":
        states, names = _delay_series(name, record, dt, counts)
        facts["solver"] = "method of steps, Runge-Kutta 4 with a cubic history"
    else:
        raise DataError(f"{record.name}: a system of kind {record.kind!r} is not part of the benchmark's data; wanted flow, map or delay.")
    arrays = {"series": states[: recipe.points]}
    if recipe.validation:
        arrays["validation"] = states[recipe.points + recipe.gap :]
    if recipe.long:
        try:
            both = long_series(name, record, dt, 2 * recipe.long + recipe.gap, arrays["series"], facts["solver"])
            arrays["long_train"] = both[: recipe.long].astype(np.float32)
            arrays["long_test"] = both[recipe.long + recipe.gap :].astype(np.float32)
        except DataError as error:  # the short series are good all the same
            facts["no_long"] = str(error)
    for label, values in arrays.items():
        if not np.all(np.isfinite(values)):
            raise DataError(f"{record.name}: the {label} did not stay finite; the system diverges from its start.")
    facts["names"] = list(names)
    facts["wraps"] = _periods(record) if record.kind != "delay" else [0.0] * len(names)
    return Made(arrays, facts)


def sampling(record: SystemRecord, per_period: int) -> float:
    """The sampling interval: a `per_period`-th of the period in [time]; 1 for a map. DataError if a flow has no period there."""
    if record.kind == "map":
        return 1.0
    if record.file.time.period is None:
        raise DataError(f"{record.name}: its file has no [time] period, so points per period mean nothing. Add period = ... to [time].")
    return record.file.time.period / per_period


def trajectory(record: SystemRecord, start: np.ndarray, dt: float, points: int, rtol: float) -> tuple[np.ndarray, str, int]:
    """States at 0, dt, ... from a start, (points, M), the method that made them and the calls of the field it took.

    DOP853 first; where it would need more than MOST_CALLS calls per 1,000 points, LSODA. The choice depends on the count of
    calls alone, so it is the same on every machine. Raises DataError if neither reaches the end.
    """
    times = np.arange(points) * dt
    limit = int(MOST_CALLS * max(1.0, points / 1000))
    try:
        states, calls = _integrate(record, start, times, "DOP853", rtol, limit)
        return states, "DOP853", calls
    except _TooStiff:
        states, calls = _integrate(record, start, times, "LSODA", rtol, 20 * limit)
        return states, "LSODA", calls


class _TooStiff(Exception):
    """The method takes too many steps."""


def _integrate(record: SystemRecord, start: np.ndarray, times: np.ndarray, method: str, rtol: float, limit: int) -> tuple[np.ndarray, int]:
    from scipy.integrate import solve_ivp

    parameters, calls = record.parameters, 0

    def field(t: float, z: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls > limit:
            raise _TooStiff
        return record.field(t, z, None, parameters)

    size = max(float(np.abs(start).max()), 1e-3)
    with np.errstate(all="ignore"):
        try:
            solved = solve_ivp(field, (0.0, times[-1]), start, method=method, rtol=max(rtol, 3e-14), atol=rtol * size, t_eval=times)
        except _TooStiff:
            if method == "DOP853":
                raise
            raise DataError(f"{record.name}: {method} needs more than {limit} calls of the field; the system is too stiff.") from None
    if not solved.success or solved.y.shape[1] != len(times):
        raise DataError(f"{record.name}: the integration ended at t = {solved.t[-1] if len(solved.t) else 0.0:g}: {solved.message}")
    return solved.y.T, calls


def _checked_trajectory(record: SystemRecord, dt: float, points: int, recipe: Recipe) -> tuple[np.ndarray, dict[str, Any]]:
    """The series and how it was made; one that differs from the other method's is made again, 100 times tighter, before it is refused."""
    for rtol in (recipe.rtol, max(1e-2 * recipe.rtol, 1e-13)):
        states, solver, calls = trajectory(record, record.start, dt, points, rtol)
        made = {"solver": solver, "calls": calls, "rtol": rtol}
        if not recipe.check:
            return states, made
        made["check_time"], made["check_error"] = check(record, states, dt, recipe, "Radau" if solver == "LSODA" else "LSODA")
        if made["check_error"] < LARGEST_ERROR:
            return states, made
    raise DataError(
        f"{record.name}: two solvers differ by {made['check_error']:.1e} standard deviations within {made['check_time']:g} time units, "
        "at a tight tolerance too; the series can't be trusted. See whether the equations jump."
    )


def check(record: SystemRecord, states: np.ndarray, dt: float, recipe: Recipe, method: str) -> tuple[float, float]:
    """The time and the largest error over the first Lyapunov time (of a system without chaos or facts: over one period), in
    deviations of the columns, against another method at a tolerance 100 times tighter: LSODA (multistep) for what the one-step
    DOP853 made, Radau for what LSODA made.
    """
    exponent = _exponent(record)
    period = recipe.per_period * dt
    span = min(1.0 / exponent, 5 * period) if exponent and exponent > 0.01 / period else period
    points = min(len(states), max(2, math.ceil(span / dt) + 1))
    tight = max(1e-2 * recipe.rtol, 1e-13)
    times = np.arange(points) * dt
    limit = 20 * int(MOST_CALLS * max(1.0, points / 1000))
    again, _ = _integrate(record, states[0], times, method, tight, limit)
    error = np.abs(again - states[:points]) / np.maximum(states.std(axis=0), 1e-12)
    return float(times[-1]), float(np.max(error))


def long_series(name: str, record: SystemRecord, dt: float, points: int, known: np.ndarray, solver: str) -> np.ndarray:
    """A long series of the system, (points, M), by the compiled solver of its kind; LSODA if the `known` short series (T, M) needed it.

    Raises DataError if the orbit leaves the known states by a thousand times their size, or needs more than LONG_STEPS steps a point.
    """
    if record.kind == "map":
        return _orbit(record, points)
    if record.kind == "delay":
        return _delay_series(name, record, dt, points)[0]
    if solver == "LSODA":
        return trajectory(record, record.start, dt, points, 1e-9)[0]
    from dynsys.integrate import solve
    from dynsys.status import Status
    from dynsys.systems import SystemFlow

    flow = SystemFlow(parameters=record.parameters, record=record)  # pyright: ignore[reportCallIssue]
    times = np.arange(points) * dt
    # a clock among the states goes on for ever: it must fit into the bound
    bound = FAR * float(np.abs(known).max()) + float(times[-1])
    solved = solve(flow, record.start, times, solver="dopri8", rtol=1e-9, atol=1e-9, max_steps=LONG_STEPS * points, bound=bound)
    states = np.asarray(solved.states)
    if solved.ok:
        return states
    reached = int(np.argmin(np.isfinite(states).all(axis=1)))
    why = "left the attractor" if solved.status is Status.DIVERGED else f"needed more than {LONG_STEPS} steps a point"
    raise DataError(f"{record.name}: no long series: after {reached} points of {points} the orbit {why}")


def _orbit(record: SystemRecord, points: int) -> np.ndarray:
    states, parameters = np.empty((points, record.dim)), record.parameters
    state = record.start
    with np.errstate(all="ignore"):
        for row in range(points):
            states[row] = state
            state = record.field(0.0, state, None, parameters)
    return states


def _delay_series(name: str, record: SystemRecord, dt: float, points: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """x(t - j tau / 9), j = 0..9, of every state after a transient, (points, 10 M): one scalar equation seen in many columns."""
    from dynsys.integrate import simulate_system

    tau = max(record.lags())
    finest = tau / (DELAY_COLUMNS - 1)
    step = dt / max(1, math.ceil(dt / finest))  # fine enough that a lag of tau / 9 is met within half a step, then interpolated
    stride = round(dt / step)
    back = math.ceil(tau / step) + 2
    series = simulate_system(name, points * stride + back, dt=step, transient=math.ceil(20 * tau / step))
    values = np.asarray(series.trajectories[0])
    at = back + np.arange(points) * stride
    columns, names = [], []
    for j in range(DELAY_COLUMNS):
        place = at - j * finest / step
        for i, state in enumerate(record.state_names):
            columns.append(_cubic(values[:, i], place))
            names.append(f"{state}(t-{j * finest:.4g})" if j else state)
    return np.stack(columns, axis=1), tuple(names)


def _cubic(values: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Values between the rows by a cubic through the four nearest ones (exact at whole places)."""
    row = np.clip(np.floor(place).astype(int), 1, len(values) - 3)
    s = place - row
    a, b, c, d = (values[row + k] for k in (-1, 0, 1, 2))
    return b + s * (-a / 3 - b / 2 + c - d / 6) + s**2 * (a / 2 - b + c / 2) + s**3 * (-a / 6 + b / 2 - c / 2 + d / 6)


def _exponent(record: SystemRecord) -> float | None:
    """The maximal exponent of the system's facts, if it is positive by three standard errors: only then is there a Lyapunov time."""
    fact = record.fact("lyapunov_spectrum")
    if fact is None:
        return None
    value, error = (np.ravel(np.asarray(part, dtype=float))[0] for part in (fact.value, fact.error))
    return float(value) if value > 3 * error else None


def _periods(record: SystemRecord) -> list[float]:
    """For each state the period of its angle, 0 where it is none."""
    periods = dict(record.file.wraps)
    return [period for family in record.file.state for period in [periods.get(family.name, 0.0)] * record.file.block(family).size]

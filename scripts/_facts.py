"""The facts of one system, computed: exponents, mean divergence, dimensions, period, mean and deviation, with errors and flags.

A series at about 40 points a period (RK4, with as many substeps as a test of step halving asks for) gives the statistics; a run
of the tangent dynamics with the same step gives the exponents. Both take as long as a budget of seconds allows.
"""

import dataclasses
import math
import re
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.signal import welch

from dynsys.analysis import correlation_dimension, kaplan_yorke_dimension, lyapunov_spectrum
from dynsys.precision import x64
from dynsys.systems import SystemFlow, SystemMap, load_system

SEGMENTS = 16
MOST_SUBSTEPS = 4096
PROBE = 2000  # points on which the step is chosen
TOLERANCE, TIGHT = 1e-6, 1e-10  # error of one sampling interval in standard deviations; the second where volume is conserved
KINKS = re.compile(r"\b(?:sign|heaviside|where|abs|min|max)\(")
Fact = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass
class Found:
    """Facts by name (value and error, arrays of one shape), flags by name with what is wrong, and how they were computed."""

    facts: dict[str, Fact] = dataclasses.field(default_factory=dict)
    flags: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)


def compute(name: str, seconds: float) -> Found:
    """All facts of a system or a .toml file, in about `seconds` after compilation."""
    found = Found()
    system, interval, substeps, start, every = prepare(name, found)
    if start is None:
        return found
    begin = time.perf_counter()
    probe = series(system, start, 500, interval, substeps)
    rate = 500 / max(time.perf_counter() - begin, 1e-6)
    points = int(np.clip(0.2 * seconds * rate, 5_000, 400_000))
    raw = series(system, probe[-1], points, interval, substeps)
    if not np.isfinite(raw).all():
        found.flags["DIVERGED"] = f"after {int(np.isfinite(raw).all(1).sum())} points"
        return found
    found.notes |= {"interval": round(interval, 6), "substeps": substeps, "points": points}
    statistics(found, system, raw, interval)
    exponents(found, system, raw[-1], interval / substeps, every, 0.6 * seconds)
    return found


def prepare(name: str, found: Found) -> tuple[Any, float, int, np.ndarray | None, int]:
    """The system, its sampling interval, substeps, a start after a transient (None if it diverged), steps between two QRs."""
    system = load_system(name)
    if isinstance(system, SystemMap):
        start = series(system, system.start, PROBE, 1.0, 1)[-1]
        if not np.isfinite(start).all():
            found.flags["DIVERGED"] = "in the transient"
        return system, 1.0, 1, start if np.isfinite(start).all() else None, 1
    interval, period = system.dt, system.record.file.time.period
    if period:
        interval *= max(1, int(period / (40 * system.dt)))
    substeps, states = choose_step(system, interval, found)
    if states is None:
        found.flags["DIVERGED"] = f"in the transient, with {MOST_SUBSTEPS} substeps"
        return system, interval, substeps, None, 1
    with x64():
        sizes = eqx.filter_jit(jax.vmap(lambda z: jnp.abs(system.jacobian(0.0, z)).sum(1).max()))(jnp.asarray(states))
    spread = 2 * float(np.max(np.asarray(sizes))) * interval / substeps  # exponents part by this much a step at most
    return system, interval, substeps, states[-1], int(np.clip(12 / max(spread, 1e-9), 1, 16))


def choose_step(system: SystemFlow, interval: float, found: Found) -> tuple[int, np.ndarray | None]:
    """Substeps of an interval whose error, by halving, is small at all points of a probe, and the probe."""
    kinks = bool(KINKS.search(" ".join(text for _, text in (*system.record.file.equations, *system.record.file.define))))
    if kinks:
        found.notes["kinks"] = True
    trial = 32
    while trial <= MOST_SUBSTEPS:
        states = series(system, system.start, PROBE, interval, trial)
        if not np.isfinite(states).all():
            trial *= 4
            continue
        scale = np.maximum(states.std(0), 1e-6 * max(states.std(0).max(), 1e-300))
        volume = divergence(system, states[:: max(1, len(states) // 500)])
        means = np.array([part.mean() for part in np.array_split(volume, 10)])
        conserved = abs(means.mean()) <= 3 * means.std(ddof=1) / 3.0 + 1e-9
        needed, error = 2, math.inf
        while needed <= MOST_SUBSTEPS:
            coarse, fine = (advance(system, states, interval, n) for n in (needed, 2 * needed))
            errors = np.nan_to_num(np.abs(coarse - fine) / scale, nan=np.inf).max(1)
            # a step across a kink has a larger error however short it is; there are few of them
            error = float(np.quantile(errors, 0.95) if kinks else errors.max())
            if error <= (TIGHT if conserved else TOLERANCE):
                break
            needed *= 2
        if needed <= trial or trial == MOST_SUBSTEPS:
            if needed > MOST_SUBSTEPS:
                found.flags["STEP"] = f"error {error:.1e} with {MOST_SUBSTEPS} substeps"
            return min(needed, MOST_SUBSTEPS), states
        trial = min(needed, MOST_SUBSTEPS)
    return trial, None


def series(system: Any, start: np.ndarray, points: int, interval: float, substeps: int) -> np.ndarray:
    """States after 1, ..., points intervals, (points, M), angles not wrapped."""
    with x64():
        blocks, z = [], jnp.asarray(start, float)
        size = min(points, 500)
        for _ in range(-(-points // size)):  # one compiled program for every length
            z, states = _series(system, z, jnp.asarray(interval / substeps), jnp.asarray(substeps), size)
            z = jnp.asarray(_settled(system, np.asarray(z)))
            blocks.append(np.asarray(states))
        return np.concatenate(blocks)[:points]


def _settled(system: Any, z: np.ndarray) -> np.ndarray:
    """The state with angles wrapped, so that they do not lose digits in a long run."""
    return np.asarray(system.record.wrap(z)) if np.isfinite(z).all() else z


def advance(system: Any, states: np.ndarray, interval: float, substeps: int) -> np.ndarray:
    """Every state one interval later, (T, M) -> (T, M)."""
    with x64():
        return np.asarray(_advance(system, jnp.asarray(states), jnp.asarray(interval / substeps), jnp.asarray(substeps)))


@eqx.filter_jit
def _series(system: Any, z: jax.Array, h: jax.Array, substeps: jax.Array, points: int) -> Any:
    def one(state: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        state = _interval(system, state, h, substeps)
        return state, state

    return jax.lax.scan(one, z, None, length=points)


@eqx.filter_jit
def _advance(system: Any, states: jax.Array, h: jax.Array, substeps: jax.Array) -> jax.Array:
    return jax.vmap(lambda z: _interval(system, z, h, substeps))(states)


def _interval(system: Any, z: jax.Array, h: jax.Array, substeps: jax.Array) -> jax.Array:
    """One step of a map, or `substeps` steps of Runge and Kutta's method of order four (the length of a step is traced here)."""
    if not isinstance(system, SystemFlow):
        return system.step(z)

    def step(_: Any, z: jax.Array) -> jax.Array:
        a = system.field(0.0, z)
        b = system.field(0.0, z + h / 2 * a)
        c = system.field(0.0, z + h / 2 * b)
        d = system.field(0.0, z + h * c)
        return z + h / 6 * (a + 2 * b + 2 * c + d)

    return jax.lax.fori_loop(0, substeps, step, z)


def statistics(found: Found, system: Any, raw: np.ndarray, interval: float) -> None:
    """Mean divergence, period, correlation dimension, mean and deviation of a series of states."""
    values = np.asarray(system.record.wrap(raw))
    found.facts["mean_divergence"] = over_segments(divergence(system, raw))
    found.facts["mean"] = over_segments(values)
    deviations = np.array([part.std(0) for part in np.array_split(values, SEGMENTS)])
    found.facts["std"] = values.std(0), deviations.std(0, ddof=1) / math.sqrt(SEGMENTS)
    line = np.linspace(-1, 1, len(values))
    for column, label in zip(values.T, system.names, strict=True):
        if column.std() > 0 and abs(np.corrcoef(line, column)[0, 1]) > 0.9:
            found.flags["TREND"] = f"{label} grows"
    moving, clocks = on_circles(system, raw)
    if moving.shape[1] == 0:
        found.flags["CONSTANT"] = "no state moves"
        return
    if isinstance(system, SystemFlow):
        free = moving[:, ~clocks] if (~clocks).any() else moving
        periods = np.array([dominant_period(part, interval) for part in np.array_split(free, SEGMENTS)])
        found.facts["period"] = np.asarray(dominant_period(free, interval, SEGMENTS)), np.asarray(periods.std(ddof=1) / math.sqrt(SEGMENTS))
    measured = correlation_dimension(moving, points=20_000 if moving.shape[1] <= 6 else 8_000)
    if math.isfinite(measured.dimension):
        found.facts["correlation_dimension"] = np.asarray(measured.dimension), np.asarray(measured.error)


def on_circles(system: Any, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The standardised states that move, a wrapped one as its sine and cosine, (T, C); and which columns are clocks, (C,).

    A clock is a wrapped state that advances at a constant speed: the phase of a driving force.
    """
    periods, columns, clocks, place = dict(system.record.file.wraps), [], [], 0
    for family in system.record.file.state:
        size = system.record.file.block(family).size
        for column in raw[:, place : place + size].T:
            if family.name in periods:
                angle = 2 * np.pi * column / periods[family.name]
                speed = np.diff(np.unwrap(angle))
                clock = bool(speed.std() <= 1e-9 * max(abs(speed.mean()), 1e-300))
                columns += [np.cos(angle), np.sin(angle)]
                clocks += [clock, clock]
            else:
                columns.append(column)
                clocks.append(False)
        place += size
    table = np.stack(columns, axis=1)
    spread = table.std(0)
    alive = spread > 1e-9 * np.maximum(np.abs(table).max(0), 1e-300)
    return (table[:, alive] - table[:, alive].mean(0)) / spread[alive], np.array(clocks)[alive]


def exponents(found: Found, system: Any, start: np.ndarray, step: float, every: int, seconds: float, count: int | None = None) -> None:
    """Lyapunov spectrum and Kaplan-Yorke dimension, and the checks: their sum, a zero for a flow."""
    flow = isinstance(system, SystemFlow)
    settings = {"dt": step, "every": every, "segments": SEGMENTS, "n_exponents": count}
    first = SEGMENTS * every * 16
    lyapunov_spectrum(system, start, steps=first, transient=0, **settings)
    begin = time.perf_counter()
    lyapunov_spectrum(system, start, steps=8 * first, transient=0, **settings)
    rate = 8 * first / (time.perf_counter() - begin)
    steps = int(np.clip(0.9 * seconds * rate, 8 * first, 2_000_000_000))
    run = lyapunov_spectrum(system, start, steps=steps, transient=steps // 20, **settings)
    found.notes |= {"steps": run.steps, "every": every, "time": round(run.steps * step, 3)}
    if not run.status.ok:
        found.flags["DIVERGED"] = "in the run of the tangent dynamics"
        return
    found.facts["lyapunov_spectrum"] = run.exponents, run.errors
    zero = 3 * float(run.errors[np.argmin(np.abs(run.exponents))])
    dimension = kaplan_yorke_dimension(run.exponents, tolerance=zero)
    if count is None or dimension < count:
        found.facts["kaplan_yorke"] = np.asarray(dimension), kaplan_yorke_error(run.exponents, run.errors, zero)
    check_exponents(found, flow)


def check_exponents(found: Found, flow: bool) -> None:
    """Flags: the sum of the exponents is the mean divergence; a flow that is not at rest has a zero exponent."""
    values, errors = found.facts["lyapunov_spectrum"]
    if "mean_divergence" in found.facts:
        volume, doubt = found.facts["mean_divergence"]
        gap, allowed = abs(values.sum() - volume), 3 * math.hypot(errors.sum(), float(doubt)) + 2e-3 * max(abs(float(volume)), values[0])
        if not gap <= allowed:
            found.flags["SUM"] = f"exponents {values.sum():.4g}, divergence {float(volume):.4g}, allowed {allowed:.2g}"
    if flow:
        k = int(np.argmin(np.abs(values)))
        if abs(values[k]) > 3 * errors[k] + 2e-3 * max(abs(values[0]), 1e-3):
            found.flags["ZERO"] = f"the smallest exponent is {values[k]:.3g} +- {errors[k]:.2g}"
    if values[0] <= 3 * errors[0]:
        found.flags["REGULAR"] = f"the largest exponent is {values[0]:.3g} +- {errors[0]:.2g}"


def divergence(system: Any, values: np.ndarray) -> np.ndarray:
    """Local rate of change of volume at each state, (T,): trace of the Jacobian, or ln |det J| of a map."""

    def rate(z: jax.Array) -> jax.Array:
        if isinstance(system, SystemMap):
            return jnp.linalg.slogdet(system.jacobian(z))[1]
        return jnp.trace(system.jacobian(0.0, z))

    with x64():
        batched, blocks = eqx.filter_jit(jax.vmap(rate)), np.array_split(values, max(1, len(values) // 20_000))
        return np.concatenate([np.asarray(batched(jnp.asarray(block))) for block in blocks])


def over_segments(values: np.ndarray) -> Fact:
    """The mean over time and its standard error from independent segments."""
    means = np.array([part.mean(0) for part in np.array_split(values, SEGMENTS)])
    return np.asarray(values.mean(0)), np.asarray(means.std(0, ddof=1) / math.sqrt(SEGMENTS))


def kaplan_yorke_error(values: np.ndarray, errors: np.ndarray, zero: float, draws: int = 500) -> np.ndarray:
    """Spread of the dimension when the exponents vary by their errors."""
    samples = values + errors * np.random.default_rng(0).standard_normal((draws, len(values)))
    return np.asarray(np.std([kaplan_yorke_dimension(sample, tolerance=zero) for sample in samples]))


def dominant_period(values: np.ndarray, dt: float, parts: int = 1) -> float:
    """1/f at the highest peak of f S(f), the peak placed by a parabola through three points of its logarithm; columns standardised."""
    spread = values.std(0)
    scaled = (values - values.mean(0)) / np.where(spread > 0, spread, 1.0)
    frequency, power = welch(scaled, fs=1 / dt, nperseg=len(values) // (4 * parts), axis=0)
    weight = frequency * power.sum(1)
    top = int(np.clip(np.argmax(weight), 1, len(weight) - 2))
    left, middle, right = np.log(weight[top - 1 : top + 2] + 1e-300)
    bend = left - 2 * middle + right
    offset = float(np.clip(0.5 * (left - right) / bend, -0.5, 0.5)) if bend < 0 else 0.0
    return 1 / (frequency[top] + offset * (frequency[1] - frequency[0]))

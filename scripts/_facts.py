"""The facts of one system, computed: exponents, mean divergence, dimensions, period, mean and deviation, with errors and flags.

A series at about 40 points a period gives the statistics; a run of the tangent dynamics with the same step gives the exponents.
Both take as long as a budget of seconds allows. The step is halved until halving it again changes nothing: of Runge and Kutta's
method of order four, or, where volume is conserved and an error of energy would add up, of Dormand and Prince's of order eight.
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
from scipy.integrate import DOP853
from scipy.signal import welch

from dynsys.analysis import correlation_dimension, kaplan_yorke_dimension, lyapunov_spectrum
from dynsys.errors import InvalidValue
from dynsys.integrate.delay import DelayMap, choose_step as choose_delay_step
from dynsys.precision import x64
from dynsys.systems import SystemDelay, SystemFlow, SystemMap, load_system

SEGMENTS = 16
MOST_SUBSTEPS = 4096
BLOCK = 500  # points of one compiled run
PROBE = 2000  # points on which the step is chosen
TOLERANCE, TIGHT = 1e-6, 1e-10  # error of one sampling interval in standard deviations; the second where volume is conserved
DELAY_EXPONENTS = 6  # of a delay equation, which has infinitely many
KINKS = re.compile(r"\b(?:sign|heaviside|where|floor|mod|abs|min|max)\(")
Fact = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass
class Found:
    """Facts by name (value and error, arrays of one shape), flags by name with what is wrong, and how they were computed."""

    facts: dict[str, Fact] = dataclasses.field(default_factory=dict)
    flags: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What to run: a flow with a stepper, a map, or a delay equation as a map; `interval` between points in `substeps` steps."""

    system: Any
    interval: float = 1.0
    substeps: int = 1
    every: int = 1
    stepper: Any = None

    @property
    def flow(self) -> bool:
        """Whether time is continuous and the state finite."""
        return isinstance(self.system, SystemFlow)

    @property
    def record(self) -> Any:
        """The record of the database."""
        return self.system.system.record if isinstance(self.system, DelayMap) else self.system.record


def compute(name: str, seconds: float) -> Found:
    """All facts of a system or a .toml file, in about `seconds` after compilation."""
    found = Found()
    setting, start = prepare(name, found)
    if start is None:
        return found
    start = series(setting, start, BLOCK)[1]
    begin = time.perf_counter()
    start = series(setting, start, BLOCK)[1]
    rate = BLOCK / max(time.perf_counter() - begin, 1e-6)
    points = int(np.clip(0.2 * seconds * rate, 5_000, max(50_000, 1_200_000 // setting.record.dim)))
    raw, last = series(setting, start, min(points, 400_000))
    if not np.isfinite(raw).all():
        found.flags["DIVERGED"] = f"after {int(np.isfinite(raw).all(1).sum())} points"
        return found
    found.notes |= {"interval": round(setting.interval, 6), "substeps": setting.substeps, "points": len(raw)}
    if setting.stepper is not None:
        found.notes["method"] = setting.stepper.__name__
    statistics(found, setting, raw)
    if "JUMP" not in found.flags:
        exponents(found, setting, last, 0.6 * seconds)
    return found


def prepare(name: str, found: Found) -> tuple[Setting, np.ndarray | None]:
    """How to run a system, and a start after a transient (None if it diverged)."""
    system = load_system(name)
    record, period = system.record, system.record.file.time.period
    if isinstance(system, SystemMap):
        setting = Setting(system)
        start = series(setting, system.start, PROBE)[1]
    elif isinstance(system, SystemFlow):
        interval = system.dt * (max(1, int(period / (40 * system.dt))) if period else 1)
        setting, start = choose_step(system, interval, found)
    elif isinstance(system, SystemDelay):
        interval = system.dt * (max(1, int(period / (40 * system.dt))) if period else 1)
        interval = min(interval, max(system.lags) / 4)  # exponents of one interval must not part too far
        step = min(choose_delay_step(system, record.start, rtol=1e-6), min(system.lags))
        setting = Setting(DelayMap(system, dt=interval, substeps=max(1, math.ceil(interval / step))))  # pyright: ignore[reportCallIssue]
        setting = dataclasses.replace(setting, interval=interval)
        start = setting.system.lift(jnp.asarray(record.start))
        for _ in range(5):
            start = series(setting, start, PROBE)[1]
    else:
        raise InvalidValue(f"{record.name}: facts are computed for flows, maps and delay equations, not for kind {record.kind!r}.")
    if start is not None and not np.isfinite(start).all():
        found.flags["DIVERGED"], start = "in the transient", None
    return setting, start


def choose_step(system: SystemFlow, interval: float, found: Found) -> tuple[Setting, np.ndarray | None]:
    """Method and substeps of an interval whose error, by halving, is small at all points of a probe, and its last point."""
    text = " ".join(text for _, text in (*system.record.file.equations, *system.record.file.define))
    kinks, setting = bool(KINKS.search(text)), Setting(system, interval, 32, 1, rk4)
    while True:
        states, last = series(setting, system.start, PROBE)
        if np.isfinite(states).all():
            needed, error = needed_substeps(setting, states, kinks)
            if needed <= setting.substeps:
                break
            if setting.substeps >= MOST_SUBSTEPS:
                found.flags["STEP"] = f"error {error:.1e} with {MOST_SUBSTEPS} substeps"
                break
        elif setting.substeps >= MOST_SUBSTEPS:
            found.flags["DIVERGED"] = f"in the transient, with {MOST_SUBSTEPS} substeps"
            return setting, None
        else:
            needed = 4 * setting.substeps
        setting = dataclasses.replace(setting, substeps=min(needed, MOST_SUBSTEPS))
    if conserves(system, states):
        setting = dataclasses.replace(setting, stepper=dop853)
        needed, error = needed_substeps(setting, states, kinks)
    setting = dataclasses.replace(setting, substeps=min(needed, MOST_SUBSTEPS))
    if kinks and jumps(setting, states):
        found.flags["JUMP"] = "the field jumps: the derivative misses what happens there, no exponents"
    with x64():
        rows = eqx.filter_jit(jax.vmap(lambda z: jnp.abs(system.jacobian(0.0, z)).sum(1).max()))(jnp.asarray(states))
    sizes = np.asarray(rows) * interval
    # a step of order four with h |J| = 2 is stable, and gives the contraction 3 % wrong: exponents want 1/2 or less
    most = int(2 ** np.ceil(np.log2(max(2 * float(np.quantile(sizes, 0.99)), 1.0))))
    setting = dataclasses.replace(setting, substeps=int(np.clip(most, setting.substeps, MOST_SUBSTEPS)))
    spread = 2 * float(sizes.max()) / setting.substeps  # exponents part by this much a step at most
    return dataclasses.replace(setting, every=int(np.clip(12 / max(spread, 1e-9), 1, 16))), last


def needed_substeps(setting: Setting, states: np.ndarray, kinks: bool) -> tuple[int, float]:
    """The first power of two whose error over an interval is small, twice the largest allowed if none is, and the error."""
    scale = np.maximum(states.std(0), 1e-6 * max(states.std(0).max(), 1e-300))
    goal = TIGHT if setting.stepper is dop853 else TOLERANCE
    needed = 32 if kinks else 1
    finer, error = advance(setting, states, needed), math.inf
    while needed <= MOST_SUBSTEPS:
        coarse, finer = finer, advance(setting, states, 2 * needed)
        errors = np.nan_to_num(np.abs(coarse - finer) / scale, nan=np.inf).max(1)
        # a step across a kink has a larger error however short it is; there are few of them
        error = float(np.quantile(errors, 0.95) if kinks else errors.max())
        if error <= goal:
            break
        needed *= 2
    return needed, error


def conserves(system: SystemFlow, states: np.ndarray) -> bool:
    """Whether the mean divergence of a probe is zero within three standard errors."""
    means = np.array([part.mean() for part in np.array_split(divergence(system, states), 10)])
    return bool(abs(means.mean()) <= means.std(ddof=1) + 1e-9)


def jumps(setting: Setting, states: np.ndarray) -> bool:
    """Whether the field changes as much over a 64th of an interval as over an interval, at a state that is no clock.

    A jump at set times (of a wrapped state that advances by itself) does not count: all orbits meet it together.
    """
    record, system = setting.record, setting.system
    free = set(record.state_names) - {name for name, _ in record.file.wraps}
    inside = " ".join(
        re.findall(
            r"(?:sign|heaviside|where|floor|mod)\(([^,()]*(?:\([^()]*\))?[^,()]*)",
            " ".join(t for _, t in (*record.file.equations, *record.file.define)),
        )
    )
    if not free & set(re.findall(r"[A-Za-z_]\w*", inside)):
        return False
    with x64():
        field = eqx.filter_jit(jax.vmap(lambda z: system.field(0.0, z)))
        largest = []
        for part in (1, 64):
            moved = dataclasses.replace(setting, interval=setting.interval / part)
            dense = series(moved, states[-1], 200 * part)[0]
            largest.append(np.abs(np.diff(np.asarray(field(jnp.asarray(dense))), axis=0)).max(0))
    return bool((largest[1] > 0.3 * largest[0]).any())


def series(setting: Setting, start: Any, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Observed states after 1, ..., points intervals, (points, M), rounded up to whole blocks, and the last whole state."""
    with x64():
        blocks, z = [], jnp.asarray(start, float)
        h, substeps = jnp.asarray(setting.interval / setting.substeps), jnp.asarray(setting.substeps)
        for _ in range(-(-points // BLOCK)):  # one compiled program for every length
            z, states = _series(setting.system, setting.stepper, z, h, substeps)
            if setting.flow and np.isfinite(np.asarray(z)).all():  # a large angle would lose digits
                z = jnp.asarray(setting.record.wrap(np.asarray(z)))
            blocks.append(np.asarray(states))
        return np.concatenate(blocks), np.asarray(z)


def advance(setting: Setting, states: np.ndarray, substeps: int) -> np.ndarray:
    """Every state of a flow one interval later, (T, M) -> (T, M)."""
    with x64():
        step = jnp.asarray(setting.interval / substeps)
        return np.asarray(_advance(setting.system, setting.stepper, jnp.asarray(states), step, jnp.asarray(substeps)))


@eqx.filter_jit
def _series(system: Any, stepper: Any, z: jax.Array, h: jax.Array, substeps: jax.Array) -> Any:
    def one(state: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        state = _interval(system, stepper, state, h, substeps)
        return state, state if isinstance(system, SystemFlow) else system.observe(state)

    return jax.lax.scan(one, z, None, length=BLOCK)


@eqx.filter_jit
def _advance(system: Any, stepper: Any, states: jax.Array, h: jax.Array, substeps: jax.Array) -> jax.Array:
    return jax.vmap(lambda z: _interval(system, stepper, z, h, substeps))(states)


def _interval(system: Any, stepper: Any, z: jax.Array, h: jax.Array, substeps: jax.Array) -> jax.Array:
    """One step of a map, or `substeps` steps of length h of a flow."""
    if not isinstance(system, SystemFlow):
        return system.step(z)
    return jax.lax.fori_loop(0, substeps, lambda _, z: stepper(system, 0.0, z, None, h), z)


def rk4(flow: Any, t: Any, z: Any, u: Any, dt: Any) -> Any:
    """One step of order four (Kutta 1901); here the length of a step may be traced."""
    a = flow.field(t, z, u)
    b = flow.field(t, z + dt / 2 * a, u)
    c = flow.field(t, z + dt / 2 * b, u)
    d = flow.field(t, z + dt * c, u)
    return z + dt / 6 * (a + 2 * b + 2 * c + d)


def dop853(flow: Any, t: Any, z: Any, u: Any, dt: Any) -> Any:
    """One step of order eight (Dormand & Prince; Hairer, Norsett, Wanner 1993), with the coefficients that scipy keeps."""
    stages = []
    for row in np.asarray(DOP853.A):
        stages.append(flow.field(t, z + dt * sum(a * k for a, k in zip(row, stages, strict=False) if a) if stages else z, u))
    return z + dt * sum(b * k for b, k in zip(np.asarray(DOP853.B), stages, strict=True) if b)


def statistics(found: Found, setting: Setting, raw: np.ndarray) -> None:
    """Mean divergence, period, correlation dimension, mean and deviation of a series of states."""
    record = setting.record
    values = np.asarray(record.wrap(raw))
    if not isinstance(setting.system, DelayMap) and "JUMP" not in found.flags:
        found.facts["mean_divergence"] = over_segments(divergence(setting.system, raw))
    line = np.linspace(-1, 1, len(values))
    grows = np.array([column.std() > 0 and abs(np.corrcoef(line, column)[0, 1]) > 0.9 for column in values.T])
    if grows.any():
        found.flags["TREND"] = f"{', '.join(np.array(record.state_names)[grows])} grows: no mean and std, left out of the dimension"
    else:
        found.facts["mean"] = over_segments(values)
        deviations = np.array([part.std(0) for part in np.array_split(values, SEGMENTS)])
        found.facts["std"] = values.std(0), deviations.std(0, ddof=1) / math.sqrt(SEGMENTS)
    moving, clocks = on_circles(record, raw, grows)
    if moving.shape[1] == 0:
        found.flags["CONSTANT"] = "no state moves"
        return
    if not isinstance(setting.system, SystemMap):
        free = moving[:, ~clocks] if (~clocks).any() else moving
        periods = np.array([dominant_period(part, setting.interval) for part in np.array_split(free, SEGMENTS)])
        found.facts["period"] = (
            np.asarray(dominant_period(free, setting.interval, SEGMENTS)),
            np.asarray(periods.std(ddof=1) / math.sqrt(SEGMENTS)),
        )
    embedding: dict[str, Any] = {}
    if isinstance(setting.system, DelayMap):  # seven points of the past, a sixth of the delay apart
        embedding = {"delay": max(1, round(max(setting.system.system.lags) / 6 / setting.interval)), "dimension": 7}
    columns = moving.shape[1] * embedding.get("dimension", 1)
    measured = correlation_dimension(moving, points=20_000 if columns <= 6 else 8_000, **embedding)
    if math.isfinite(measured.dimension):
        found.facts["correlation_dimension"] = np.asarray(measured.dimension), np.asarray(measured.error)


def on_circles(record: Any, raw: np.ndarray, grows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The standardised states that move in a bounded range, a wrapped one as its sine and cosine, (T, C); which are clocks, (C,).

    A clock is a wrapped state that advances at a constant speed: the phase of a driving force.
    """
    periods, columns, clocks, place = dict(record.file.wraps), [], [], 0
    for family in record.file.state:
        size = record.file.block(family).size
        for column in raw[:, place : place + size].T[~grows[place : place + size]]:
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
    if not columns:
        return np.zeros((len(raw), 0)), np.zeros(0, dtype=bool)
    table = np.stack(columns, axis=1)
    spread = table.std(0)
    alive = spread > 1e-9 * np.maximum(np.abs(table).max(0), 1e-300)
    return (table[:, alive] - table[:, alive].mean(0)) / spread[alive], np.array(clocks)[alive]


def exponents(found: Found, setting: Setting, start: np.ndarray, seconds: float) -> None:
    """Lyapunov spectrum and Kaplan-Yorke dimension, and the checks: their sum, a zero for a flow."""
    system, every, step = setting.system, setting.every, setting.interval / setting.substeps if setting.flow else setting.interval
    count = DELAY_EXPONENTS if isinstance(system, DelayMap) else None
    settings: dict[str, Any] = {"dt": step, "every": every, "segments": SEGMENTS, "n_exponents": count}
    settings |= {"stepper": setting.stepper} if setting.flow else {}
    steps, spent = SEGMENTS * every, 0.0
    lyapunov_spectrum(system, start, steps=steps, transient=0, **settings)  # compiles
    while spent < 0.05 * seconds and steps < 100_000_000:
        steps *= 8
        begin = time.perf_counter()
        lyapunov_spectrum(system, start, steps=steps, transient=0, **settings)
        spent = time.perf_counter() - begin
    steps = int(min(0.85 * seconds * steps / spent, 4e9))
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
    check_exponents(found, not isinstance(system, SystemMap))


def check_exponents(found: Found, flow: bool) -> None:
    """Flags: the sum of the exponents is the mean divergence; a flow that is not at rest has a zero exponent."""
    values, errors = found.facts["lyapunov_spectrum"]
    if "mean_divergence" in found.facts:
        volume, doubt = found.facts["mean_divergence"]
        gap, allowed = abs(values.sum() - volume), 3 * math.hypot(errors.sum(), float(doubt)) + 2e-3 * max(abs(float(volume)), values[0])
        if not gap <= allowed:
            found.flags["SUM"] = f"exponents {values.sum():.4g}, divergence {float(volume):.4g}, allowed {allowed:.2g}"
    if flow and values[-1] < 0:  # of a delay equation, the largest exponents may all be positive
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

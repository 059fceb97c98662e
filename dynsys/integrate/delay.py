"""Delay equations by the method of steps, with a cubic history.

    dz/dt = field(t, z(t), z(t - tau_1), ..., z(t - tau_L)),     z(t) = history(t) for t <= t0

A Runge-Kutta step of length h no longer than the smallest delay needs only states that are known already. The past is kept
at the steps as values and derivatives, and between them it is their cubic (Hermite), off by h**4: with Kutta's method the
whole is of order four. A solution that leaves its history at t0 has a kink there, which comes back, one derivative
smoother, after every delay; h divides the smallest delay (and all of them, if they are commensurate), so that the kinks
that matter fall onto steps.
Sources: Bellman & Zverkina; Bellen & Zennaro, Numerical Methods for Delay Differential Equations, 2003, chapters 4 and 6.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from dynsys.dynamics import AbstractMap, AnyInput, AnyObservation, AnyState
from dynsys.errors import InvalidValue
from dynsys.integrate.solve import Solution
from dynsys.precision import x64
from dynsys.systems import SystemDelay

_STAGES = np.array([0.0, 0.5, 1.0])  # where in a step Kutta's method looks
_MOST_STEPS = 100_000  # a delay


def solve_delay(
    system: eqx.Module,
    history: Any,
    times: Any,
    *,
    dt: float | None = None,
    rtol: float = 1e-8,
    bound: float = 1e12,
    batched_system: bool = False,
) -> Solution:
    """Integrate a delay equation from a past to given times, in float64; the states at `times`, (T, M) or (B, T, M).

    history: a state (M,), or (B, M), that was constant; a function t -> (M,) or (B, M) for t <= times[0]; or past samples,
    a pair of times (S,), increasing up to times[0], and values (S, M) or (B, S, M), which a cubic spline joins.
    times (T,): increasing, in the system's unit; times[0] is the end of the history. dt: the longest step; the step taken
    divides the smallest delay; the error falls as dt**4. Default: such that the cubic between the steps is off by no more
    than `rtol` of the size of the state, see `choose_step`. bound: a lane whose largest |z| passes it has DIVERGED, and is
    NaN from there on. batched_system: every parameter carries a leading axis B (see `SystemDelay.sweep`); delays may differ.

    Inputs are zero. The solution can be differentiated by the history (constant or samples) and by the parameters that do
    not enter a delay, with dt given. Raises InvalidValue for shapes and times that do not fit and a dt that is not positive.
    """
    if not isinstance(system, SystemDelay):
        raise InvalidValue(f"solve_delay: wanted a system of kind 'delay', got {type(system).__name__}; use solve for a flow.")
    times = np.asarray(times, dtype=np.float64)
    if times.ndim != 1 or len(times) < 2 or not np.all(np.diff(times) > 0):
        raise InvalidValue(
            f"solve_delay: times must have shape (T,), T >= 2, be finite and increase, got {np.array2string(times, threshold=6)}: "
            "first the end of the history, then the times asked for."
        )
    if not (rtol > 0 and bound > 0):
        raise InvalidValue(f"solve_delay: rtol and bound must be positive, got rtol={rtol}, bound={bound}.")
    with x64():
        past = _past(system, history, float(times[0]))
        lags = np.atleast_2d(np.asarray(system.lags, dtype=np.float64))  # (1, L), or (B, L)
        if batched_system != (np.ndim(system.lags) == 2):
            raise InvalidValue(f"solve_delay: batched_system={batched_system}, but the system {'has' if len(lags) > 1 else 'is no'} sweep.")
        if dt is None:
            dt = choose_step(system, history, float(times[0]), rtol=rtol)
        if not (np.isfinite(dt) and dt > 0):
            raise InvalidValue(f"solve_delay: dt must be positive, got dt={dt}: the longest step.")
        grid = _grid(lags, dt)
        z, d = past(grid)
        lanes = {len(values) for values, batched in ((lags, batched_system), (z, z.ndim == 3)) if batched}
        if len(lanes) > 1:
            raise InvalidValue(f"solve_delay: the history has {len(z)} lanes and the system {len(lags)}; wanted one length B.")
        steps = math.ceil(float(times[-1] - times[0]) / grid.h.min() - 1e-9)
        axes = (
            eqx.if_array(0) if batched_system else None,
            0 if z.ndim == 3 else None,
            0 if len(grid.h) > 1 else None,
            0 if len(grid.whole) > 1 else None,
        )
        clean = dataclasses.replace(system, lags=())  # so that other delays share the compiled code
        arrays = (
            grid.h if len(grid.h) > 1 else grid.h[0],
            *((grid.whole, grid.part) if len(grid.whole) > 1 else (grid.whole[0], grid.part[0])),
        )
        h, whole, part = (jnp.asarray(array) for array in arrays)
        return _run(clean, z, d, h, whole, part, jnp.asarray(times), jnp.asarray(bound), steps, axes if lanes else None)


@dataclasses.dataclass(frozen=True)
class _Grid:
    """Steps and where the delayed states lie on them: z(t_n + c h - lag) is at step n + whole + part. Leading axis 1 or B."""

    h: np.ndarray  # (B,)
    whole: np.ndarray  # (B, 3, L), not above 0
    part: np.ndarray  # (B, 3, L), in [0, 1)

    @property
    def size(self) -> int:
        """K, how many steps back the oldest state lies that is needed, and the present one."""
        return 1 - int(self.whole.min())


def _grid(lags: np.ndarray, dt: float) -> _Grid:
    """The longest step of at most dt that divides the smallest delay of every lane, and if possible all of them."""
    smallest = lags.min(axis=1, keepdims=True)
    least = max(2, math.ceil(float(smallest.max()) / dt - 1e-9))
    if least > _MOST_STEPS:
        raise InvalidValue(f"solve_delay: dt={dt:g} cuts the smallest delay {smallest.max():g} into {least} steps; at most {_MOST_STEPS}.")
    ratios = lags / smallest
    whole = (k for k in range(least, 4 * least) if np.allclose(ratios * k, np.round(ratios * k), rtol=0, atol=1e-9 * k))
    count = next(whole, least)
    return _places(lags, smallest[:, 0] / count)


def _places(lags: np.ndarray, h: np.ndarray) -> _Grid:
    at = _STAGES[:, None] - (lags / h[:, None])[:, None, :]
    near = np.round(2 * at) / 2  # a delay of a whole number of steps is one, in spite of rounding
    at = np.where(np.abs(at - near) < 1e-9 * np.maximum(1.0, np.abs(at)), near, at)
    whole = np.floor(at)
    if (whole == whole[:1]).all() and (at == at[:1]).all():
        whole, at = whole[:1], at[:1]  # one gather for all lanes
    return _Grid(h, whole.astype(int), at - whole)


def _past(system: SystemDelay, history: Any, t0: float) -> Callable[[_Grid], tuple[Array, Array]]:
    """A function that gives values and derivatives at t0, t0 - h, ..., newest first, (K, M) or (B, K, M)."""
    dim = system.dim
    who = f"solve_delay: history of {system.record.name}"
    if callable(history):
        return partial(_from_function, history, t0, dim, who)
    if isinstance(history, tuple):
        from scipy.interpolate import CubicSpline

        if len(history) != 2:
            raise InvalidValue(f"{who}: samples are a pair (times (S,), values (S, M)), got {len(history)} arrays.")
        known, values = (np.asarray(part, dtype=np.float64) for part in history)
        if known.ndim != 1 or values.ndim not in (2, 3) or values.shape[-2:] != (len(known), dim) or len(known) < 4:
            raise InvalidValue(
                f"{who}: samples must be times (S,) and values (S, {dim}) or (B, S, {dim}), S >= 4, got {known.shape} and {values.shape}."
            )
        if not (np.all(np.diff(known) > 0) and abs(known[-1] - t0) <= 1e-9 * max(1.0, abs(t0))) or not np.all(np.isfinite(values)):
            raise InvalidValue(f"{who}: samples must be finite, at times that increase and end at times[0]={t0:g}, got {known}.")
        if known[0] > t0 - np.max(system.lags) * (1 - 1e-9):
            raise InvalidValue(f"{who}: samples begin at {known[0]:g}; the delays reach back to {t0 - np.max(system.lags):g}.")
        return partial(_from_function, CubicSpline(known, np.moveaxis(values, -2, 0)), t0, dim, who)
    start = jnp.asarray(history, dtype=jnp.float64)
    finite = isinstance(start, Tracer) or bool(jnp.all(jnp.isfinite(start)))
    if start.ndim not in (1, 2) or start.shape[-1] != dim or not finite:
        raise InvalidValue(f"{who}: a constant past must be finite with shape ({dim},) or (B, {dim}), got shape {start.shape}.")

    def constant(grid: _Grid) -> tuple[Array, Array]:
        z = jnp.repeat(start[..., None, :], grid.size, axis=-2)
        return z, jnp.zeros_like(z)

    return constant


def _from_function(function: Any, t0: float, dim: int, who: str, grid: _Grid) -> tuple[Array, Array]:
    """Values and derivatives of a function; the derivative from five points behind each time, of order four."""
    h = grid.h[:, None]
    at = t0 - h * np.arange(grid.size)  # (1 or B, K)
    back, weights = 1e-3 * np.min(grid.h), np.array([25 / 12, -4.0, 3.0, -4 / 3, 1 / 4])

    def row(times: np.ndarray, lane: int) -> np.ndarray:
        """(K, M) or (B, K, M); of a batch only the lane if the steps differ between lanes."""
        found = np.stack([np.asarray(function(t), dtype=np.float64) for t in times], axis=-2)
        return found[lane] if found.ndim == 3 and len(at) > 1 else found

    def values(times: np.ndarray) -> np.ndarray:
        rows = [row(lane, number) for number, lane in enumerate(times)]
        return np.stack(rows) if len(at) > 1 else rows[0]

    z = values(at)
    if z.ndim not in (2, 3) or z.shape[-1] != dim or not np.all(np.isfinite(z)):
        raise InvalidValue(f"{who}: the function must give finite states ({dim},) or (B, {dim}) for t <= {t0:g}, got {z[..., 0, :].shape}.")
    d = sum(weight * values(at - k * back) for k, weight in enumerate(weights)) / back
    return jnp.asarray(z), jnp.asarray(d)


def _hermite(z0: Any, z1: Any, d0: Any, d1: Any, s: Any, h: Any) -> Any:
    """The cubic through z0 and z1, h apart, with the derivatives d0 and d1, at the share s of the way."""
    r = 1 - s
    return (1 + 2 * s) * r * r * z0 + (1 + 2 * r) * s * s * z1 + h * s * r * (r * d0 - s * d1)


def _kutta(system: Any, t: Any, z: Any, late: Any, k1: Any, h: Any) -> Any:
    """One step; late (3, L, M): the delayed states at its beginning, middle and end; k1: the field at its beginning."""
    k2 = system.field(t + h / 2, z + h / 2 * k1, late[1])
    k3 = system.field(t + h / 2, z + h / 2 * k2, late[1])
    k4 = system.field(t + h, z + h * k3, late[2])
    return z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


@eqx.filter_jit
def _run(system: Any, z: Any, d: Any, h: Any, whole: Any, part: Any, times: Any, bound: Any, steps: int, axes: Any) -> Solution:
    run = partial(_lane, steps=steps)
    if axes is None:
        found = run(system, z, d, h, whole, part, times, bound)
    else:
        system_axis, past, step, place = axes
        in_axes = (system_axis, past, past, step, place, place, None, None)
        found = eqx.filter_vmap(run, in_axes=in_axes)(system, z, d, h, whole, part, times, bound)
    return Solution(times, *found)


def _lane(system: Any, z: Array, d: Array, h: Any, whole: Array, part: Array, times: Array, bound: Any, *, steps: int) -> Any:
    """One lane: states (T, M), code, steps, rejected steps. z, d (K, M): the past, newest first."""
    size = z.shape[0]
    before = d[0]  # the derivative at t0 from the left; the field gives the one from the right
    t0, span = times[0], times[-1] - times[0]
    slots = -jnp.arange(size) % size
    ring = (jnp.zeros_like(z).at[slots].set(z), jnp.zeros_like(d).at[slots].set(d))
    share = part[..., None]

    def advance(carry: Any, n: Array) -> Any:
        (values, slopes), now, alive = carry
        low = n + whole
        left, right = low % size, (low + 1) % size
        # the interval that ends at t0 belongs to the history
        late_slopes = jnp.where((low + 1 == 0)[..., None], before, slopes[right])
        late = _hermite(values[left], values[right], slopes[left], late_slopes, share, h)
        t = t0 + n * h
        k1 = system.field(t, now, late[0])
        after = _kutta(system, t, now, late, k1, h)
        good = jnp.max(jnp.abs(now)) < bound  # NaN is not below the bound
        lived = alive & (good | (n * h > span + h))
        ring = values.at[(n + 1) % size].set(after), slopes.at[n % size].set(k1)
        return (ring, after, lived), (jnp.where(lived, now, jnp.nan), k1)

    (_, _, alive), (states, slopes) = jax.lax.scan(advance, (ring, z[0], jnp.asarray(True)), jnp.arange(steps + 1))
    at = (times - t0) / h
    row = jnp.clip(jnp.floor(at + 1e-9).astype(int), 0, steps - 1)
    s = (at - row)[:, None]
    found = _hermite(states[row], states[row + 1], slopes[row], slopes[row + 1], s, h)
    # a state that is on a step is that state, even if the next one is lost
    found = jnp.where(jnp.abs(s) < 1e-9, states[row], found)
    return found, jnp.where(alive, 0, 2), jnp.asarray(steps), jnp.zeros((), dtype=int)


def choose_step(system: SystemDelay, history: Any, t0: float = 0.0, *, rtol: float = 1e-8, delays: int = 12) -> float:
    """The step at which the cubic between steps is off by about rtol times the size of the state, by a trial in NumPy.

    The trial runs over `delays` of the largest delay from the first lane of the history. There the middle of two steps is
    predicted by the cubic over both; its error, 16 times that of a cubic over one step, gives the step, as it falls as h**4.
    The kinks that come from the history are left out. Raises InvalidValue where parameters are traced: pass dt there.
    """
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((system, history if not callable(history) else ()))):
        raise InvalidValue("solve_delay: pass dt=..., the longest step, where parameters or the history are traced by JAX.")
    swept = np.ndim(system.lags) == 2
    lanes = range(len(system.lags)) if swept else (None,)
    if swept and len(system.lags) > 8:
        lanes = np.unique(np.linspace(0, len(system.lags) - 1, 8).round().astype(int))
    with x64():
        return min(_trial(_one(system, lane), history, t0, rtol, delays) for lane in lanes)


def _one(system: SystemDelay, lane: int | None) -> SystemDelay:
    """One lane of a sweep, its parameters as NumPy numbers."""
    values = {name: np.asarray(value if lane is None else value[lane])[()] for name, value in system.parameters.items()}
    return dataclasses.replace(system, parameters=values, lags=system.lags if lane is None else system.lags[lane])


def _trial(system: SystemDelay, history: Any, t0: float, rtol: float, delays: int) -> float:
    lags = np.asarray([system.lags])
    longest, smallest = float(lags.max()), float(lags.min())
    grid = _grid(lags, smallest / 32)
    z, d = (np.asarray(part) for part in _past(system, history, t0)(grid))
    z, d = (z[0], d[0]) if z.ndim == 3 else (z, d)
    wanted = smallest
    for trial in range(4):
        h = float(grid.h[0])
        steps = math.ceil((delays if trial == 0 else 1.25) * longest / h)
        values, slopes, error, size = _defect(system, z, d, grid, t0, steps)
        wanted = h * min(4.0, (rtol * max(size, 1e-300) / max(error, 1e-300)) ** 0.25)
        if not np.isfinite(error) or h <= smallest / 4000:
            return h
        if wanted > 0.5 * h:  # near enough for the fourth order to hold
            break
        grid = _grid(lags, max(wanted, smallest / 4000))
        at = np.maximum(len(values) - 1 - np.arange(grid.size) * float(grid.h[0]) / h, 0.0)
        row = np.minimum(at.astype(int), len(values) - 2)
        s = (at - row)[:, None]
        z = _hermite(values[row], values[row + 1], slopes[row], slopes[row + 1], s, h)
        d = (1 - s) * slopes[row] + s * slopes[row + 1]
    return min(wanted, smallest / 16)


def _defect(system: SystemDelay, z: np.ndarray, d: np.ndarray, grid: _Grid, t0: float, steps: int) -> tuple[Any, Any, float, float]:
    """A run of `steps`: its states and derivatives, the error of the cubic between steps, and the largest |z|; inf if it diverges."""
    size, h, whole, part = len(z) - 1, float(grid.h[0]), grid.whole[0], grid.part[0][..., None]
    values = np.concatenate([z[::-1], np.full((steps, z.shape[1]), np.nan)])
    slopes = np.concatenate([d[::-1], np.full((steps, z.shape[1]), np.nan)])
    before = d[0].copy()
    with np.errstate(all="ignore"):
        for n in range(steps):
            low = n + whole + size
            ends = np.where((low + 1 == size)[..., None], before, slopes[low + 1])
            late = _hermite(values[low], values[low + 1], slopes[low], ends, part, h)
            slopes[n + size] = system.field(t0 + n * h, values[n + size], late[0])
            values[n + size + 1] = _kutta(system, t0 + n * h, values[n + size], late, slopes[n + size], h)
        values, slopes = values[:-1], slopes[:-1]  # the last state has no derivative yet
        middle = np.arange(size + 1, size + steps - 1)
        smooth = middle[(middle - size) % round(min(system.lags) / h) != 0]
        made = _hermite(values[smooth - 1], values[smooth + 1], slopes[smooth - 1], slopes[smooth + 1], 0.5, 2 * h)
        error, largest = np.max(np.abs(made - values[smooth])) / 16, np.max(np.abs(values[size:]))
    bounded = np.isfinite(error) and largest < 1e9
    return values, slopes, float(error) if bounded else math.inf, float(largest)


class DelayMap(AbstractMap):
    """A delay equation as a map of its past: one sampling interval dt in `substeps` steps; the present state is observed.

    Its state is z(t), z(t - h), ..., z(t - K h), then the derivatives at t - h, ..., t - K h, flattened, h = dt / substeps and
    K h just above the largest delay: (2 K + 1) M numbers. A delay equation has infinitely many exponents; those of this map
    approach the largest of them as h falls, with order four. It keeps one derivative for each time: a past with a kink at its end,
    as `lift` makes it, costs the first orbit two orders (`solve_delay` keeps both sides); on the attractor there is none. For
    everything that takes a map: `lyapunov_spectrum` (n_exponents=k), `rollout`. The equation must not depend on t, and inputs are
    zero.
    """

    system: SystemDelay
    dt: float = eqx.field(static=True)
    substeps: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        if np.ndim(self.system.lags) != 1:
            raise InvalidValue("DelayMap: the system has a sweep; load one value of its parameters.")
        if not self.dt > 0 or self.substeps < 1:
            raise InvalidValue(f"DelayMap: needs dt > 0 and substeps >= 1, got dt={self.dt}, substeps={self.substeps}.")
        if self.h > min(self.system.lags) * (1 + 1e-9):
            raise InvalidValue(
                f"DelayMap: the step dt/substeps={self.h:g} must not be longer than the smallest delay {min(self.system.lags):g}. "
                f"Take dt={min(self.system.lags) / 50:g}, or more substeps."
            )
        if self._grid.size > _MOST_STEPS:
            raise InvalidValue(f"DelayMap: the delay {max(self.system.lags):g} holds {self._grid.size} steps; at most {_MOST_STEPS}.")

    @property
    def h(self) -> float:
        """The step, in the system's unit of time."""
        return self.dt / self.substeps

    @property
    def _grid(self) -> _Grid:
        return _places(np.asarray([self.system.lags]), np.asarray([self.h]))

    @property
    def dim(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """(2 K + 1) M, the numbers that hold the past."""
        return (2 * self._grid.size - 1) * self.system.dim

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """M, the number of states of the equation."""
        return self.system.dim

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """0: inputs are zero."""
        return 0

    def step(self, z: AnyState, u: AnyInput = None) -> AnyState:
        """The past one sampling interval later, ((2 K + 1) M,) -> the same."""
        grid, dim = self._grid, self.system.dim
        size, share = grid.size, grid.part[0][..., None]
        left, right = -grid.whole[0], -grid.whole[0] - 1  # newest first
        z = jnp.asarray(z)
        values, slopes = z[: size * dim].reshape(size, dim), z[size * dim :].reshape(size - 1, dim)

        def advance(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
            values, slopes = carry
            # the newest derivative is not known before the field is; where the delay is a step long it is needed at the end only
            first = _hermite(
                values[left[0]],
                values[jnp.maximum(right[0], 0)],
                slopes[left[0] - 1],
                slopes[jnp.maximum(right[0], 1) - 1],
                share[0],
                self.h,
            )
            k1 = self.system.field(0.0, values[0], first)
            known = jnp.concatenate([k1[None], slopes])
            ends = jnp.maximum(right, 0)  # right = -1 only with share 0
            late = _hermite(values[left], values[ends], known[left], known[ends], share, self.h)
            after = _kutta(self.system, 0.0, values[0], late, k1, self.h)
            return (jnp.concatenate([after[None], values[:-1]]), known[:-1]), None

        (values, slopes), _ = jax.lax.scan(advance, (values, slopes), None, length=self.substeps)
        return jnp.concatenate([values.ravel(), slopes.ravel()])

    def observe(self, z: AnyState) -> AnyObservation:
        """The present state, (M,)."""
        return z[: self.system.dim]

    def lift(self, x: AnyObservation) -> AnyState:
        """The past that was constant at x."""
        x = jnp.asarray(x)
        size = self._grid.size
        return jnp.concatenate([jnp.tile(x, size), jnp.zeros((size - 1) * self.system.dim, dtype=x.dtype)])

    def correct(self, z: AnyState, x: AnyObservation) -> AnyState:
        """The past z with its present value replaced by x."""
        return jnp.concatenate([jnp.asarray(x), jnp.asarray(z)[self.system.dim :]])

    @property
    def memory(self) -> int:
        """How many observed points cover the largest delay."""
        return math.ceil(max(self.system.lags) / self.dt)

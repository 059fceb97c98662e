"""One block of lanes, each with its own step size, in one loop: Tsitouras 5(4) with states at asked times.

Every turn of the loop tries one step of every lane: a lane with too large an error keeps its state and shrinks its step. When
a step passes the asked time number i the interpolant fills row i. A lane that has filled row i goes on, but a step
beyond times[i+1] is put off (it is tried again, with the same result) until all lanes have filled row i; so
one row is open at a time, and it is written without scatter operations, which are slow on a CPU.
"""

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from dynsys.integrate.tsitouras import E, between, combine, stages

_RUNNING, _MAX_STEPS, _DIVERGED = 0, 1, 2  # codes of `Solution`: a lane that still runs when all rows are full has succeeded
_SAFETY, _SHRINK, _GROW, _POWER, _MEMORY = 0.9, 0.2, 10.0, 0.17, 0.04  # 0.17 = 1/5 - 0.75 * 0.04, Hairer I, II.4


class Tolerances(NamedTuple):
    """When a step is good enough, and when to give up."""

    rtol: Array
    atol: Array
    bound: Array
    max_steps: Array


class _Rows(NamedTuple):
    """The output: rows (T, M, L), the open row, and which lanes have filled it."""

    rows: Array
    open: Array
    filled: Array


class _Lane(NamedTuple):
    """Where every lane is: time, state, slope, step size, last error, outcome, steps tried and refused."""

    t: Array
    z: Array
    slope: Array
    h: Array
    error: Array
    code: Array
    steps: Array
    refused: Array


def adaptive_block(per_lane: Any, shared: Any, static: Any, times: Array, limits: Tolerances) -> tuple[Array, Array, Array, Array]:
    """States (L, T, M), codes, steps taken and steps refused (L,), of the lanes in `per_lane`, whose arrays are batch last."""
    given = {**shared, **per_lane}
    flow, inputs, rows = given["flow"], given.get("inputs"), times.shape[0]
    own, held_by_all = -1 if "flow" in per_lane else None, "inputs" in shared
    start: Any = partial(_start, static=static, limits=limits)
    advance: Any = partial(_advance, static=static, limits=limits, fresh=inputs is not None)
    advance = jax.vmap(advance, in_axes=(own, -1, -1, -1, -1, -1), out_axes=-1)
    inside = jax.vmap(between, in_axes=-1, out_axes=-1)

    def next_time(out: _Rows) -> Array:
        """The first time that a lane has not filled yet, (L,)."""
        return jnp.where(out.filled, times[jnp.minimum(out.open + 1, rows - 1)], times[jnp.minimum(out.open, rows - 1)])

    def held(out: _Rows) -> Array | None:
        """The input of every lane's interval, (K, L)."""
        if inputs is None:
            return None
        now, after = inputs[out.open - 1], inputs[jnp.minimum(out.open, rows - 2)]
        return jnp.where(out.filled[None], *((after[:, None], now[:, None]) if held_by_all else (after, now)))

    def turn(state: tuple[_Lane, _Rows]) -> tuple[_Lane, _Rows]:
        lane, out = state
        running = (lane.code == _RUNNING) & ~(out.filled & (out.open == rows - 1))
        end = times[-1] if inputs is None else next_time(out)  # an input jumps at every time: no step straddles one
        cut = lane.t + 1.000001 * lane.h >= end
        h = jnp.where(cut, end - lane.t, lane.h)
        after = jnp.where(cut, end, lane.t + h)
        slopes, z, error = advance(flow, lane.t, h, lane.z, lane.slope, held(out))
        good, bad, failed = running & (error <= 1), running & ~(error <= 1), lane.code != _RUNNING  # NaN is bad
        blown = good & ~(jnp.max(jnp.abs(z), axis=0) < limits.bound)
        arrives = good & ~blown

        def due(out: _Rows) -> Array:
            return ~out.filled & (failed | (arrives & (next_time(out) <= after))) & (out.open < rows)

        def fill(out: _Rows) -> _Rows:
            now = due(out)
            state = jnp.where(failed[None], jnp.nan, inside(lane.z, slopes, h, (next_time(out) - lane.t) / h))
            row = jnp.where(now[None], state, jax.lax.dynamic_index_in_dim(out.rows, out.open, keepdims=False))
            filled = out.filled | now
            full = jnp.all(filled)
            return _Rows(jax.lax.dynamic_update_index_in_dim(out.rows, row, out.open, 0), out.open + full, filled & ~full)

        out = jax.lax.while_loop(lambda out: jnp.any(due(out)), fill, out)
        over = (out.open == rows) | (out.filled & (out.open == rows - 1))
        taken = arrives & (over | (next_time(out) > after))
        small = jnp.clip(jnp.where(error < 1e6, error, 1e6), 1e-6, 1e6).astype(jnp.float32)  # powers are cheap in float32
        factor = _SAFETY * jnp.exp(-_POWER * jnp.log(small) + _MEMORY * jnp.log(lane.error))
        grown = h * jnp.clip(factor, _SHRINK, jnp.where(bad, 1.0, _GROW).astype(factor.dtype)).astype(h.dtype)
        grown = jnp.where(cut & taken, jnp.maximum(lane.h, grown), grown)
        steps = lane.steps + (taken | bad | blown)
        stuck = bad & (h < 1e-15 * jnp.maximum(jnp.abs(lane.t), times[-1] - times[0]))
        spent = running & ~over & (steps >= limits.max_steps)
        lane = _Lane(
            t=jnp.where(taken, after, lane.t),
            z=jnp.where(taken[None], z, lane.z),
            slope=jnp.where(taken[None], slopes[-1], lane.slope),
            h=jnp.where(taken | bad, grown, lane.h),
            error=jnp.where(taken, jnp.maximum(small, 1e-4), lane.error),
            code=jnp.where(blown | stuck, _DIVERGED, jnp.where(spent, _MAX_STEPS, lane.code)),
            steps=steps,
            refused=lane.refused + bad,
        )
        return lane, out

    z0 = given["z"]
    lanes = z0.shape[1]
    out = _Rows(jnp.zeros((rows, *z0.shape)).at[0].set(z0), jnp.asarray(1), jnp.zeros(lanes, bool))
    lane = jax.vmap(start, in_axes=(own, None, -1, -1), out_axes=-1)(flow, times, z0, held(out))
    lane, out = jax.lax.while_loop(lambda state: state[1].open < rows, turn, (lane, out))
    return jnp.moveaxis(out.rows, -1, 0), lane.code, lane.steps - lane.refused, lane.refused


def _rms(x: Array) -> Array:
    return jnp.sqrt(jnp.mean(x**2))


def _advance(
    arrays: Any, t: Array, h: Array, z: Array, slope: Array, u: Array | None, *, static: Any, limits: Tolerances, fresh: bool
) -> tuple[list[Array], Array, Array]:
    """One lane, one step: all slopes, the state at t + h, and the error in units of the tolerance."""
    flow = eqx.combine(arrays, static)
    first = flow.field(t, z, u) if fresh else slope
    slopes, after = stages(lambda t, z: flow.field(t, z, u), t, z, first, h)
    scale = limits.atol + limits.rtol * jnp.maximum(jnp.abs(z), jnp.abs(after))
    return slopes, after, _rms(h * combine(E, slopes) / scale)


def _start(arrays: Any, times: Array, z: Array, u: Array | None, *, static: Any, limits: Tolerances) -> _Lane:
    """One lane at times[0], its first step from the sizes of its slope and of the slope's change (Hairer I, II.4)."""
    flow, t = eqx.combine(arrays, static), times[0]
    slope = flow.field(t, z, u)
    scale = limits.atol + limits.rtol * jnp.abs(z)
    size, speed = _rms(z / scale), _rms(slope / scale)
    trial = jnp.where((size < 1e-5) | (speed < 1e-5), 1e-6, 0.01 * size / speed)
    bend = _rms((flow.field(t + trial, z + trial * slope, u) - slope) / scale) / trial
    steepest = jnp.maximum(speed, bend)
    h = jnp.where(steepest <= 1e-15, jnp.maximum(1e-6, trial * 1e-3), (0.01 / steepest) ** 0.2)
    h = jnp.minimum(jnp.minimum(100 * trial, h), times[-1] - t)
    h = jnp.where(jnp.isfinite(h), h, 1e-6)
    code = jnp.where(jnp.all(jnp.isfinite(slope)), _RUNNING, _DIVERGED)
    zero = jnp.zeros((), jnp.int64)
    return _Lane(t, z, slope, h, jnp.asarray(1e-4, jnp.float32), code, zero, zero)

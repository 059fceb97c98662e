"""Many trajectories of one flow at once: with a fixed step, or with a step size that each trajectory chooses for itself.

    ensemble            z[n+1] = one step of length dt of a fixed method,  the state kept every so many steps
    ensemble_adaptive   Tsitouras 5(4), each lane with its own steps, states at the asked times

`solve` (diffrax) is the tool for few trajectories, stiff flows and gradients; these two are for thousands. Fields are
unbatched as everywhere; states are laid out batch last and in blocks, see `dynsys.integrate.lanes`.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from dynsys.dynamics import AbstractFlow, Stepper, runge_kutta_4
from dynsys.errors import InvalidValue, UnknownName
from dynsys.integrate.adaptive import Tolerances, adaptive_block
from dynsys.integrate.lanes import block_size, compiled, in_blocks, usable_cores
from dynsys.integrate.solve import Solution
from dynsys.integrate.tsitouras import tsitouras_5
from dynsys.precision import x64

STEPPERS: Mapping[str, Stepper] = {"rk4": runge_kutta_4, "tsit5": tsitouras_5}


def ensemble(
    flow: AbstractFlow,
    z0: Any,
    *,
    dt: float,
    steps: int,
    save_every: int | None = None,
    method: str | Stepper = "rk4",
    t0: float = 0.0,
    inputs: Any = None,
    bound: float = 1e12,
    batched_flow: bool = False,
    block: int | None = None,
    threads: int | None = None,
) -> Solution:
    """Integrate every row of z0 (B, M) by `steps` steps of length dt, in float64; (M,) is one trajectory without batch axis.

    save_every: steps between two kept states, a divisor of `steps`; default: only the start and the end. The states are
    (B, T, M), T = steps / save_every + 1, the first of them z0. method: 'rk4' (order 4), 'tsit5' (order 5), or any `Stepper`.
    t0: the time of z0, in the flow's unit. inputs (T-1, K) or (B, T-1, K): row k is held from the kept state k to the next;
    without them a flow with inputs gets u = None. bound: a lane has DIVERGED at the first kept state whose largest |z|
    passes it or is not a number; its states are NaN from there on. batched_flow: every array of the flow carries a leading
    axis B (see `SystemFlow.sweep`); then z0 may be (M,), shared. block: lanes computed side by side, threads: blocks at a
    time; by default chosen for this machine (an accelerator takes all lanes at once).

    Raises InvalidValue for shapes and numbers that do not fit, UnknownName for a method. There is no error control: halve dt
    and compare. Can be differentiated by flow, z0 and inputs. Sources: Kutta 1901; Tsitouras 2011.
    """
    stepper = _stepper(method)
    every = steps if save_every is None else save_every
    for name, value in {"steps": steps, "save_every": every}.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise InvalidValue(f"ensemble: {name} must be a whole number of at least 1, got {name}={value!r}.")
    if steps % every:
        raise InvalidValue(f"ensemble: save_every must divide steps, got save_every={every} with steps={steps}.")
    if not (np.isfinite(dt) and dt > 0):
        raise InvalidValue(f"ensemble: dt must be positive, got dt={dt}: the length of a step in the flow's own unit of time.")
    _positive("ensemble", bound=bound)
    kept = int(steps // every)
    with x64():
        times = t0 + dt * every * jnp.arange(kept + 1, dtype=jnp.float64)
        lane = _Lanes("ensemble", flow, z0, inputs, kept, batched_flow)
        numbers = (jnp.asarray(t0, jnp.float64), jnp.asarray(bound, jnp.float64))
        states, codes = lane.run(
            lambda *lanes: compiled(_fixed)(*lanes, lane.static, numbers, float(dt), stepper, kept, int(every)),
            "ensemble",
            block,
            threads,
        )
        counts = jnp.full(codes.shape, steps, codes.dtype)
        return lane.solution(times, states, codes, counts, jnp.zeros_like(counts))


def ensemble_adaptive(
    flow: AbstractFlow,
    z0: Any,
    times: Any,
    *,
    rtol: float = 1e-8,
    atol: float = 1e-8,
    inputs: Any = None,
    max_steps: int = 1_000_000,
    bound: float = 1e12,
    batched_flow: bool = False,
    block: int | None = None,
    threads: int | None = None,
) -> Solution:
    """Integrate every row of z0 (B, M) from times[0] to all `times` with error control, each with its own steps, in float64.

    times (T,): increasing, in the flow's unit. States (B, T, M), the first of them z0, between steps by the method's own
    interpolant of order 4; (M,) is one trajectory without batch axis. rtol, atol: relative and absolute tolerance of one step
    (root mean square over the components). inputs (T-1, K) or (B, T-1, K): row k is held from times[k] to times[k+1], and
    steps end at every time. max_steps: the most steps a lane may try. bound: a lane whose largest |z| passes it, whose field
    is not finite at z0, or whose steps shrink to nothing has DIVERGED; failed lanes are NaN from there on and stop nobody.
    batched_flow, block, threads: as in `ensemble`.

    Lanes of a block wait for each other at the asked times, at most one interval apart. For stiff flows and reverse-mode
    gradients use `solve`. Raises InvalidValue as `solve` does. Source: Tsitouras 2011; step size control by Hairer,
    Norsett & Wanner, Solving Ordinary Differential Equations I, II.4 (PI with beta = 0.04).
    """
    who = "ensemble_adaptive"
    _positive(who, rtol=rtol, atol=atol, bound=bound, max_steps=max_steps)
    with x64():
        times = jnp.asarray(times, dtype=jnp.float64)
        _check_times(who, times)
        lane = _Lanes(who, flow, z0, inputs, times.shape[0] - 1, batched_flow)
        real = partial(jnp.asarray, dtype=jnp.float64)
        limits = Tolerances(real(rtol), real(atol), real(bound), jnp.asarray(max_steps, jnp.int32))
        found = lane.run(lambda *lanes: compiled(adaptive_block)(*lanes, lane.static, times, limits), who, block, threads)
        return lane.solution(times, *found)


class _Lanes:
    """Checked arguments, split into what every lane has for itself (batch last) and what all share."""

    def __init__(self, who: str, flow: AbstractFlow, z0: Any, inputs: Any, kept: int, batched_flow: bool):
        z0 = jnp.asarray(z0, dtype=jnp.float64)
        inputs = None if inputs is None else jnp.asarray(inputs, dtype=jnp.float64)
        arrays, self.static = eqx.partition(flow, eqx.is_array)
        sizes = {
            "z0": z0.shape[0] if z0.ndim == 2 else None,
            "inputs": inputs.shape[0] if inputs is not None and inputs.ndim == 3 else None,
        }
        if batched_flow:
            sizes["flow"] = _leading(who, arrays)
        self.batched = any(size is not None for size in sizes.values())
        self.lanes = _common(who, sizes)
        dim = None if batched_flow else flow.dim
        if z0.ndim not in (1, 2) or (dim is not None and z0.shape[-1] != dim):
            raise InvalidValue(f"{who}: z0 must have shape (B, M) or (M,) with M={dim}, got {z0.shape}.")
        if not isinstance(z0, Tracer) and not np.all(np.isfinite(z0)):
            bad = int(np.argmin(np.isfinite(np.atleast_2d(z0)).all(-1)))
            raise InvalidValue(f"{who}: z0 holds NaN or inf in row {bad}; a start must be finite.")
        if inputs is not None and (inputs.ndim not in (2, 3) or inputs.shape[-2:] != (kept, flow.n_inputs)):
            raise InvalidValue(
                f"{who}: inputs must have shape (T-1, K) or (B, T-1, K) with T-1={kept} and K={flow.n_inputs}, got {inputs.shape}."
            )
        self.dim = z0.shape[-1]
        self.per_lane: dict[str, Any] = {"z": z0.T if z0.ndim == 2 else jnp.broadcast_to(z0[:, None], (self.dim, self.lanes))}
        self.shared: dict[str, Any] = {}
        (self.per_lane if batched_flow else self.shared)["flow"] = (
            jax.tree.map(lambda a: jnp.moveaxis(a, 0, -1), arrays) if batched_flow else arrays
        )
        if inputs is not None:
            (self.per_lane if inputs.ndim == 3 else self.shared)["inputs"] = jnp.moveaxis(inputs, 0, -1) if inputs.ndim == 3 else inputs

    def run(self, program: Any, who: str, block: int | None, threads: int | None) -> Any:
        """The program's arrays for all lanes."""
        for name, value in {"block": block, "threads": threads}.items():
            if value is not None and value < 1:
                raise InvalidValue(f"{who}: {name} must be at least 1, got {name}={value}.")
        size = block_size(self.lanes, self.dim) if block is None else block
        return in_blocks(
            program, self.per_lane, self.shared, lanes=self.lanes, block=size, threads=usable_cores() if threads is None else threads
        )

    def solution(self, times: Array, *found: Any) -> Solution:
        """The result, without the batch axis if nothing had one."""
        return Solution(times, *(found if self.batched else (leaf[0] for leaf in found)))


def _fixed(
    per_lane: Any, shared: Any, static: Any, numbers: Any, dt: float, stepper: Stepper, kept: int, every: int
) -> tuple[Array, Array]:
    """States (L, T, M) and codes (L,) of one block."""
    t0, bound = numbers
    given = {**shared, **per_lane}
    axes = (-1 if "flow" in per_lane else None, -1, -1 if "inputs" in per_lane else None)

    def advance(t: Array, z: Array, u: Array | None) -> Array:
        def step(arrays: Any, z: Array, u: Array | None) -> Array:
            return stepper(eqx.combine(arrays, static), t, z, u, dt)

        return jax.vmap(step, in_axes=axes, out_axes=-1)(given["flow"], z, u)

    def interval(z: Array, xs: Any) -> tuple[Array, Array]:
        k, u = xs
        z = jax.lax.fori_loop(0, every, lambda i, z: advance(t0 + (k * every + i) * dt, z, u), z)
        return z, z

    z0 = given["z"]
    states = jax.lax.scan(interval, z0, (jnp.arange(kept), given.get("inputs")))[1]
    states = jnp.moveaxis(jnp.concatenate([z0[None], states]), -1, 0)
    lost = jnp.cumsum(~(jnp.max(jnp.abs(states), axis=-1) < bound), axis=-1) > 0  # NaN is lost too, hence the negation
    return jnp.where(lost[..., None], jnp.nan, states), jnp.where(lost[:, -1], 2, 0)


def _stepper(method: Any) -> Stepper:
    if isinstance(method, str) and method not in STEPPERS:
        raise UnknownName("fixed-step method", method, STEPPERS)
    return STEPPERS[method] if isinstance(method, str) else method


def _positive(who: str, **values: Any) -> None:
    for name, value in values.items():
        if not value > 0:
            raise InvalidValue(f"{who}: {name} must be positive, got {name}={value}.")


def _check_times(who: str, times: Array) -> None:
    if times.ndim != 1 or times.shape[0] < 2:
        raise InvalidValue(f"{who}: times must have shape (T,) with T >= 2, got {times.shape}: first the time of z0, then those asked for.")
    steps = np.diff(np.asarray(times)) if not isinstance(times, Tracer) else np.ones(1)
    if not np.all(steps > 0):  # NaN too
        at = int(np.argmin(steps > 0))
        raise InvalidValue(
            f"{who}: times must be finite and increase, but times[{at}]={times[at]:g} and times[{at + 1}]={times[at + 1]:g}."
        )


def _leading(who: str, arrays: Any) -> int:
    shapes = [leaf.shape for leaf in jax.tree.leaves(arrays)]
    sizes = {shape[:1] for shape in shapes}
    if len(sizes) != 1 or () in sizes:
        raise InvalidValue(
            f"{who}: with batched_flow=True every array of the flow must carry a leading axis of one length B; got shapes {shapes}. "
            "SystemFlow.sweep(...) or eqx.filter_vmap makes such a flow."
        )
    return int(sizes.pop()[0])


def _common(who: str, sizes: dict[str, int | None]) -> int:
    given = {name: size for name, size in sizes.items() if size is not None}
    if len(set(given.values())) > 1 or 0 in given.values():
        shown = ", ".join(f"{name} has {size}" for name, size in given.items())
        raise InvalidValue(f"{who}: all batch axes must have one length B of at least 1, but {shown}.")
    return next(iter(given.values()), 1)

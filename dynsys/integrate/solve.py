"""Adaptive integration of a flow from given starts to given times, by diffrax.

    dz/dt = field(t, z, u(t)),   z(times[0]) = z0   ->   z(times[k]), k = 0, 1, ...,   until event(t, z) = 0 if there is one

Local errors stay below atol + rtol |z|. Starts and parameters may carry a batch axis; each lane has its own step size.
A run that fails is a Status with a remedy; its states are NaN from the failure on.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from dynsys import registry
from dynsys.dynamics import AbstractFlow
from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys.status import Status

_CODES = (Status.SUCCESS, Status.MAX_STEPS, Status.DIVERGED, Status.EVENT)
_DIRECTIONS = {"up": True, "down": False, "both": None}


class Solution(eqx.Module):
    """States at the asked times, (T, M) or (B, T, M), how each lane ended, and how many steps it took.

    Where an event was asked for: its times (B,) and the states there (B, M), NaN in a lane that it did not end.
    """

    times: Float[Array, " T"]
    states: Float[Array, "*B T M"]
    codes: Int[Array, "*B"]
    steps: Int[Array, "*B"]
    rejected: Int[Array, "*B"]
    event_times: Float[Array, "*B"] | None = None
    event_states: Float[Array, "*B M"] | None = None

    @property
    def statuses(self) -> tuple[Status, ...]:
        """One Status a lane; of length 1 without a batch."""
        return tuple(_CODES[code] for code in np.ravel(np.asarray(self.codes)))

    @property
    def status(self) -> Status:
        """SUCCESS if all lanes succeeded, else DIVERGED if one diverged, else MAX_STEPS; EVENT if events ended some and none failed."""
        codes = set(np.ravel(np.asarray(self.codes)).tolist())
        return next(_CODES[code] for code in (2, 1, 3, 0) if code in codes)

    @property
    def ok(self) -> bool:
        """True if every lane reached the last time or its event."""
        return self.status.ok


def solve(
    flow: AbstractFlow,
    z0: Any,
    times: Any,
    *,
    inputs: Any = None,
    solver: str | diffrax.AbstractSolver = "tsit5",
    rtol: float = 1e-8,
    atol: float = 1e-8,
    max_steps: int = 1_000_000,
    dt0: float | None = None,
    bound: float = 1e12,
    event: Callable[[Any, Any], Any] | None = None,
    direction: str = "both",
    batched_flow: bool = False,
) -> Solution:
    """Integrate a flow with error control, in float64, and return the states at `times`.

    z0 (M,) or (B, M): the state at times[0]. times (T,): increasing, in the flow's unit. inputs (T, K), (T-1, K) or with a
    leading B: row k is held from times[k] to times[k+1]; without them a flow with inputs gets u = None.
    solver: 'tsit5' (order 5, the default), 'dopri8' (order 8, for rtol below 1e-8 and smooth fields), 'kvaerno5' (stiff),
    any name of the registry, or a diffrax solver. rtol, atol: relative and absolute tolerance of one step.
    max_steps: the most steps a lane may take. dt0: the first step; chosen by the method if None. bound: a lane whose
    largest |z| passes it, or whose field is not finite at z0, has DIVERGED. event: a function of (t, z (M,)) with one real
    value; a lane ends where it passes zero (going up, down, or both: `direction`), found by Newton steps on the interpolant of the step,
    with Status EVENT, the place in `event_times` and `event_states`, and NaN for the times after it.
    batched_flow: every array of the flow carries a leading axis B (see `SystemFlow.sweep`); then z0 may be (M,), shared, or (B, M).

    Raises InvalidValue for shapes that do not fit, times that do not increase and tolerances that are not positive.
    The solution can be differentiated by flow, z0 and inputs. Methods: Tsitouras 2011; Prince & Dormand 1981;
    Kvaerno 2004, all as in diffrax (Kidger 2021).
    """
    method: Any = registry.lookup("solver", solver)() if isinstance(solver, str) else solver
    for name, value in {"rtol": rtol, "atol": atol, "bound": bound, "max_steps": max_steps}.items():
        if not value > 0:
            raise InvalidValue(f"solve: {name} must be positive, got {name}={value}.")
    if direction not in _DIRECTIONS:
        raise InvalidValue(f"solve: direction must be one of {', '.join(_DIRECTIONS)}, got {direction!r}.")
    with x64():
        times, z0 = jnp.asarray(times, dtype=jnp.float64), jnp.asarray(z0, dtype=jnp.float64)
        inputs = None if inputs is None else jnp.asarray(inputs, dtype=jnp.float64)
        batch = _check(flow, z0, times, inputs, batched_flow)
        numbers = (jnp.asarray(rtol), jnp.asarray(atol), jnp.asarray(bound), None if dt0 is None else jnp.asarray(dt0))
        axes = (0 if batched_flow else None, 0 if z0.ndim == 2 else None, 0 if inputs is not None and inputs.ndim == 3 else None)
        stop = None if event is None else (event, _DIRECTIONS[direction])
        return _run(method, max_steps, flow, z0, times, inputs, numbers, axes if batch else None, stop)


@eqx.filter_jit
def _run(method: Any, max_steps: int, flow: Any, z0: Any, times: Any, inputs: Any, numbers: Any, axes: Any, stop: Any) -> Solution:
    run = partial(_trajectory, method=method, max_steps=max_steps, stop=stop)
    if axes is None:
        found = run(flow, z0, times, inputs, numbers)
    else:
        flow_axis = eqx.if_array(0) if axes[0] == 0 else None
        found = eqx.filter_vmap(run, in_axes=(flow_axis, axes[1], None, axes[2], None))(flow, z0, times, inputs, numbers)
    return Solution(times, *found)


def _trajectory(
    flow: AbstractFlow, z0: Array, times: Array, inputs: Array | None, numbers: Any, *, method: Any, max_steps: int, stop: Any
) -> Any:
    """One lane: states (T, M), code, steps, rejected steps; with an event its time and state too."""
    rtol, atol, bound, dt0 = numbers
    if inputs is None:
        term = diffrax.ODETerm(lambda t, z, _: flow.field(t, z))
    else:
        # times[k] <= t < times[k+1]; the solver steps exactly onto every time, so that no step straddles a jump
        term = diffrax.ODETerm(lambda t, z, _: flow.field(t, z, _held(inputs, times, t)))
    controller: Any = diffrax.PIDController(rtol=rtol, atol=atol)
    if times.shape[0] == 2:
        pass  # no time in between to step onto
    elif inputs is not None:
        controller = diffrax.ClipStepSizeController(controller, jump_ts=times[1:-1])
    elif _interpolates_poorly(method):
        controller = diffrax.ClipStepSizeController(controller, step_ts=times[1:-1])
    solved = diffrax.diffeqsolve(
        term,
        method,
        times[0],
        times[-1],
        dt0,
        z0,
        saveat=diffrax.SaveAt(subs=[diffrax.SubSaveAt(ts=times), diffrax.SubSaveAt(t1=True)]),
        stepsize_controller=controller,
        event=_event(bound, stop),
        max_steps=max_steps,
        throw=False,
    )
    finished = solved.result == diffrax.RESULTS.successful
    mask: Any = solved.event_mask
    diverged = mask[0]
    nowhere = ~jnp.all(jnp.isfinite(term.vf(times[0], z0, None)))  # then no step can be taken, however small
    code = jnp.where(finished, 0, jnp.where(diverged | nowhere, 2, 1))
    saved: Any = solved.ys
    states, last = saved[0], saved[1][0]
    states = jnp.where(jnp.isfinite(states), states, jnp.nan)  # diffrax fills the times that were not reached with inf
    counts = solved.stats["num_steps"], solved.stats["num_rejected_steps"]
    if stop is None:
        return states, code, *counts
    when: Any = solved.ts
    met = mask[1] & ~diverged & ~nowhere
    return states, jnp.where(met, 3, code), *counts, jnp.where(met, when[1][0], jnp.nan), jnp.where(met, last, jnp.nan)


def _event(bound: Any, stop: Any) -> diffrax.Event:
    """What ends a lane: the bound on |z|, which NaN must pass too, hence the negated comparison; and the asked event."""

    def left(t: Any, y: Array, args: Any, **kwargs: Any) -> Array:  # diffrax names the state y, and calls by name
        return ~(jnp.max(jnp.abs(y)) < bound)

    if stop is None:
        return diffrax.Event((left,))
    function, upward = stop

    def passes(t: Any, y: Array, args: Any, **kwargs: Any) -> Array:
        return jnp.asarray(function(t, y), dtype=jnp.float64)

    return diffrax.Event((left, passes), optimistix.Newton(rtol=1e-10, atol=1e-10, norm=optimistix.rms_norm), direction=(None, upward))


def _interpolates_poorly(method: Any) -> bool:
    """True for a method without an interpolant of its own (Kvaerno5): between steps it is a cubic at best, 1e-7 off at a
    tolerance of 1e-9, so that the solver must step onto every asked time.
    """
    interpolant = method.interpolation_cls
    return getattr(interpolant, "__self__", interpolant) in (
        diffrax.ThirdOrderHermitePolynomialInterpolation,
        diffrax.LocalLinearInterpolation,
    )


def _held(inputs: Array, times: Array, t: Any) -> Array:
    row = jnp.searchsorted(times, t, side="right") - 1
    return inputs[jnp.clip(row, 0, inputs.shape[0] - 1)]


def _check(flow: AbstractFlow, z0: Array, times: Array, inputs: Array | None, batched_flow: bool) -> bool:
    """Shapes and times; True if there is a batch."""
    if times.ndim != 1 or times.shape[0] < 2:
        raise InvalidValue(f"solve: times must have shape (T,) with T >= 2, got {times.shape}: first the time of z0, then those asked for.")
    if not isinstance(times, Tracer):
        steps = np.diff(np.asarray(times))
        if not np.all(steps > 0):  # NaN too
            at = int(np.argmin(steps > 0))
            raise InvalidValue(
                f"solve: times must be finite and increase, but times[{at}]={times[at]:g} and times[{at + 1}]={times[at + 1]:g}."
            )
    lanes = _lanes(flow) if batched_flow else None
    dim = None if batched_flow else flow.dim
    if z0.ndim not in (1, 2) or (dim is not None and z0.shape[-1] != dim):
        raise InvalidValue(f"solve: z0 must have shape (M,) or (B, M) with M={dim}, got {z0.shape}.")
    if not isinstance(z0, Tracer) and not np.all(np.isfinite(z0)):
        raise InvalidValue("solve: z0 holds NaN or inf; a start must be finite.")
    sizes = {"z0": z0.shape[0] if z0.ndim == 2 else None, "flow": lanes}
    if inputs is not None:
        if inputs.ndim not in (2, 3) or inputs.shape[-2] not in (times.shape[0], times.shape[0] - 1):
            raise InvalidValue(
                f"solve: inputs must have shape (T, K) or (T-1, K), one row for each of the T={times.shape[0]} times, "
                f"or the same with a leading B, got {inputs.shape}."
            )
        if inputs.shape[-1] != flow.n_inputs:
            raise InvalidValue(f"solve: inputs must have K={flow.n_inputs} columns, the flow's n_inputs, got {inputs.shape[-1]}.")
        sizes["inputs"] = inputs.shape[0] if inputs.ndim == 3 else None
    given = {name: size for name, size in sizes.items() if size is not None}
    if len(set(given.values())) > 1:
        shown = ", ".join(f"{name} has {size}" for name, size in given.items())
        raise InvalidValue(f"solve: all batch axes must have one length B, but {shown}.")
    return bool(given)


def _lanes(flow: AbstractFlow) -> int:
    shapes = [leaf.shape for leaf in jax.tree.leaves(flow) if eqx.is_array(leaf)]
    sizes = {shape[:1] for shape in shapes}
    if len(sizes) != 1 or () in sizes:
        raise InvalidValue(
            "solve: with batched_flow=True every array of the flow must carry a leading axis of one length B; "
            f"got shapes {shapes}. SystemFlow.sweep(...) or eqx.filter_vmap makes such a flow."
        )
    return int(sizes.pop()[0])

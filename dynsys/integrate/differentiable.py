"""Many states of a flow through one adaptive solve, made to be differentiated: the inner part of training a neural ODE.

    dz_b/dt = field(t, z_b, u_b),   z_b(times[0]) = z0_b   ->   z_b(times[k]),   b = 1..B together, one step size for all

The batch is the state of one diffrax solve, so that a step is one matrix product a layer; under `jax.vmap` every lane would have
a step size of its own and nothing would be gained. `dynsys.integrate.solve` is for accuracy (float64, a step size a lane), this
for gradients in the precision of z0. Lanes with times of their own run on clocks: t_b = times_b[0] + s (times_b[-1] - times_b[0]).
Gradients: 'checkpointed', reverse mode that recomputes what it has not kept (Stumm, Walther 2010; the default); 'backsolve', the
adjoint equation backwards in time (Chen et al. 2018; little memory, its own errors, slow); 'direct', reverse or forward mode
through a loop of fixed length (for forward mode and higher derivatives). All as in diffrax (Kidger 2021).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from dynsys import registry
from dynsys.dynamics import AbstractFlow
from dynsys.errors import InvalidValue
from dynsys.status import Status

ADJOINTS = ("checkpointed", "backsolve", "direct")
_CODES = (Status.SUCCESS, Status.MAX_STEPS, Status.DIVERGED)


class BatchSolution(eqx.Module):
    """States (B, T, M) at the asked times, how the solve ended, steps taken and refused, and evaluations of the field.

    An evaluation is one call of the field for the whole batch, in the solve itself (not in its gradient).
    """

    times: Float[Array, "*B T"]
    states: Float[Array, "B T M"]
    code: Int[Array, ""]
    steps: Int[Array, ""]
    rejected: Int[Array, ""]
    evaluations: Int[Array, ""]

    @property
    def status(self) -> Status:
        """SUCCESS; DIVERGED if the state or its rate of change left every bound; else MAX_STEPS. The states not reached are NaN."""
        return _CODES[int(self.code)]

    @property
    def ok(self) -> bool:
        """True if the last time was reached."""
        return self.status.ok


def solve_batch(
    flow: AbstractFlow,
    z0: Any,
    times: Any,
    inputs: Any = None,
    *,
    solver: str | diffrax.AbstractERK = "tsit5",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    adjoint: str = "checkpointed",
    max_steps: int = 1000,
    bound: float = 1e6,
) -> BatchSolution:
    """The states of a batch at `times`, differentiable by flow and z0 (and by inputs), in the precision of z0.

    z0 (B, M): the states at the first time. times (T,), or (B, T) for lanes with times of their own, increasing, in the flow's unit.
    inputs (B, T, K) or (T, K): row k is held from times[k] to times[k+1], and the solver steps exactly onto the times; without them a
    flow with inputs gets u = None. solver: an explicit Runge-Kutta method, by name ('tsit5', 'dopri5', 'dopri8') or from diffrax.
    rtol, atol: tolerance of the root mean square over the batch of the error of one step. max_steps: the most steps, tried or taken;
    the memory of lanes with times of their own, and the time of 'direct', grow with it. bound: a state beyond it counts as diverged.

    A run that fails is a code, never an exception (so it works inside jit and scan): `status` is MAX_STEPS or DIVERGED, the states
    not reached (with times of their own: all states) are NaN, and so are losses of them. Raises InvalidValue for shapes that don't
    fit and unknown options.
    """
    return solve_probed(
        flow, z0, times, inputs, solver=solver, rtol=rtol, atol=atol, adjoint=adjoint, max_steps=max_steps, bound=bound, place=None
    )[0]


def solve_probed(
    flow: AbstractFlow,
    z0: Any,
    times: Any,
    inputs: Any = None,
    *,
    solver: str | diffrax.AbstractERK,
    rtol: float,
    atol: float,
    adjoint: str,
    max_steps: int,
    bound: float = 1e6,
    place: Any,
) -> tuple[BatchSolution, Any]:
    """As `solve_batch`; with a `place` () between 0 and 1 along the clock also the error (B, M) of one step from there.

    The error is that of the step that the solver took there, h () (shortened where inputs would jump within it), recomputed from the
    state at the place, which counts as a constant, as h does: h sum_i E_i k_i over the tolerance. Its gradient by the flow is local:
    one step, no solve. 'backsolve' can't give it.
    """
    z0, times = jnp.asarray(z0), jnp.asarray(times)
    method = _checked(flow, z0, times, inputs, solver, adjoint, {"rtol": rtol, "atol": atol, "max_steps": max_steps, "bound": bound})
    params, static = eqx.partition(flow, eqx.is_inexact_array)
    clock = _clock(static, times.astype(z0.dtype), None if inputs is None else jnp.asarray(inputs, z0.dtype))
    term = diffrax.ODETerm(clock.rate)
    args = (params, clock.given)
    back = adjoint == "backsolve"  # it can save one thing only
    subs: list[Any] = [diffrax.SubSaveAt(ts=clock.saved)] if clock.inside is None else []
    subs += [] if back else [diffrax.SubSaveAt(t1=True)]
    at = None
    if place is not None:
        at = clock.begin + jnp.asarray(place, z0.dtype) * (clock.end - clock.begin)
        subs += [diffrax.SubSaveAt(ts=at[None]), diffrax.SubSaveAt(steps=True, fn=lambda t, y, args: t)]
    controller: Any = diffrax.PIDController(rtol=rtol, atol=atol)
    if clock.jumps is not None:
        controller = diffrax.ClipStepSizeController(controller, jump_ts=clock.jumps)
    solved = diffrax.diffeqsolve(
        term,
        method,
        clock.begin,
        clock.end,
        _first_step(term, method, clock, z0, args, rtol, atol),
        z0,
        args,
        saveat=diffrax.SaveAt(ts=clock.saved) if back else diffrax.SaveAt(subs=subs, dense=clock.inside is not None),
        stepsize_controller=controller,
        adjoint=_adjoint(adjoint, method, controller),
        max_steps=max_steps,
        throw=False,
    )
    saved: list[Any] = [solved.ys] if back else list(solved.ys)  # pyright: ignore[reportArgumentType]
    if clock.inside is None:
        states = jnp.moveaxis(saved.pop(0), 0, 1)
    else:
        states = _per_lane(solved, clock.inside)
    states = jnp.where(jnp.isfinite(states), states, jnp.nan)  # diffrax fills what was not reached with inf
    last = _last_reached(states) if back else saved.pop(0)[0]
    code = jax.lax.cond(
        solved.result == diffrax.RESULTS.successful,
        lambda: jnp.asarray(0),
        lambda: jnp.where(_lost(last, bound) | _lost(term.vf(clock.end, last, args), jnp.inf), 2, 1),
    )
    tried, refused = solved.stats["num_steps"], solved.stats["num_rejected_steps"]
    evaluations = _evaluations(method, tried, 0 if clock.jumps is None else clock.jumps.shape[0])
    solution = BatchSolution(times, states, code, tried - refused, refused, evaluations)
    if at is None:
        return solution, None
    after = saved[1]  # the ends of the steps, then inf
    held = jnp.searchsorted(after, at, side="left")
    begin = jnp.where(held == 0, clock.begin, after[jnp.maximum(held - 1, 0)])
    length = after[held] - begin
    if clock.jumps is not None:  # the solver never steps over a jump of the inputs, so its error is not asked for either
        coming = jnp.append(clock.jumps, jnp.inf)
        length = jnp.minimum(length, (1 - 1e-3) * (coming[jnp.searchsorted(coming, at, side="right")] - at))
    fixed = jax.lax.stop_gradient((at, saved[0][0], length))
    return solution, _step_error(term, method, args, *fixed, rtol, atol)


def _lost(z: Array, bound: float) -> Array:
    return ~jnp.all(jnp.abs(z) < bound)  # negated, so that NaN is lost too


def _first_step(term: Any, method: Any, clock: "_Clock", z0: Array, args: Any, rtol: float, atol: float) -> Array:
    """The first step from the sizes of the slope and of its change (Hairer, Norsett, Wanner, Solving ODEs I, II.4)."""

    def size(z: Array) -> Array:
        return jnp.sqrt(jnp.mean((z / scale) ** 2))

    z0, args = jax.lax.stop_gradient((z0, args))
    scale, t, z = atol + rtol * jnp.abs(z0), clock.begin, z0
    slope = term.vf(t, z, args)
    speed = size(slope)
    trial = jnp.where((size(z) < 1e-5) | (speed < 1e-5), 1e-6, 0.01 * size(z) / speed)
    bend = size(term.vf(t + trial, z + trial * slope, args) - slope) / trial
    steepest = jnp.maximum(speed, bend)
    step = jnp.where(steepest <= 1e-15, jnp.maximum(1e-6, 1e-3 * trial), (0.01 / steepest) ** (1 / method.order(term)))
    step = jnp.minimum(jnp.minimum(100 * trial, step), clock.end - t)
    return jnp.where(step > 0, step, 1e-6)  # a slope that is not finite: the solve will say so


def _step_error(term: Any, method: Any, args: Any, t: Array, z: Array, h: Array, rtol: float, atol: float) -> Array:
    """The method's own estimate of the error of one step of length h from z, in units of the tolerance, (B, M)."""
    begun = method.init(term, t, t + h, z, args)
    after, error, *_ = method.step(term, t, t + h, z, args, begun, made_jump=False)
    return error / (atol + rtol * jax.lax.stop_gradient(jnp.maximum(jnp.abs(z), jnp.abs(after))))


class _Clock(NamedTuple):
    """The time s that the solver sees: from `begin` to `end`, with the states asked for at `saved` (T,) or, lane by lane, `inside` (B, T).

    rate(s, z, args) is dz/ds of the batch; `given` are the arrays that it takes besides the flow's; no step straddles one of `jumps`.
    """

    begin: Array
    end: Array
    rate: Callable[[Any, Any, Any], Any]
    given: Any
    saved: Array | None = None
    inside: Array | None = None
    jumps: Array | None = None


def _clock(static: Any, times: Array, inputs: Array | None) -> _Clock:
    if times.ndim == 1 and inputs is None:

        def plain(t: Any, z: Any, args: Any) -> Any:
            return jax.vmap(eqx.combine(args[0], static).field, (None, 0))(t, z)

        return _Clock(times[0], times[-1], plain, None, saved=times)
    if inputs is None:

        def stretched(s: Any, z: Any, args: Any) -> Any:
            start, length = args[1]
            return length[:, None] * jax.vmap(eqx.combine(args[0], static).field)(start + s * length, z)

        start, length = times[:, 0], times[:, -1] - times[:, 0]
        inside = (times - start[:, None]) / length[:, None]
        zero = jnp.zeros((), times.dtype)
        return _Clock(zero, zero + 1, stretched, (start, length), inside=inside)
    # a clock that passes the k-th time of every lane at once, so that inputs jump only where a step ends
    saved = times if times.ndim == 1 else jnp.arange(times.shape[1], dtype=times.dtype)
    own = times[:, None] if times.ndim == 1 else times.T  # (T, 1) or (T, B)
    held = jnp.moveaxis(inputs, -2, 0)  # (T, K) or (T, B, K)

    def knotted(s: Any, z: Any, args: Any) -> Any:
        own, held = args[1]
        row = jnp.clip(jnp.searchsorted(saved, s, side="right") - 1, 0, saved.shape[0] - 2)
        speed = (own[row + 1] - own[row]) / (saved[row + 1] - saved[row])
        now = jnp.broadcast_to(own[row] + (s - saved[row]) * speed, z.shape[:1])
        each = (0, 0, 0 if held.ndim == 3 else None)
        return speed[:, None] * jax.vmap(eqx.combine(args[0], static).field, each)(now, z, held[row])

    return _Clock(saved[0], saved[-1], knotted, (own, held), saved=saved, jumps=saved[1:-1] if saved.shape[0] > 2 else None)


def _per_lane(solved: Any, inside: Array) -> Array:
    """States (B, T, M) of lane b at inside[b], off the interpolants of the steps, of which each lane takes its own part."""
    whole = solved.interpolation

    def parts(found: Any) -> Any:  # all that holds states: (..., B, M)
        return found.infos, found.y0_if_trivial

    def lane(own: Any, at: Array) -> Array:
        return jax.vmap(eqx.tree_at(parts, whole, own).evaluate)(at)

    states = jax.vmap(lane, (-2, 0))(parts(whole), inside)
    return jnp.where(solved.result == diffrax.RESULTS.successful, states, jnp.nan)


def _last_reached(states: Array) -> Array:
    reached = jnp.sum(jnp.all(jnp.isfinite(states), axis=(0, 2)))
    return states[:, jnp.maximum(reached - 1, 0)]


def _adjoint(name: str, method: Any, controller: Any) -> Any:
    if name == "backsolve":
        return diffrax.BacksolveAdjoint(solver=method, stepsize_controller=controller)
    return diffrax.DirectAdjoint() if name == "direct" else diffrax.RecursiveCheckpointAdjoint()


def _evaluations(method: Any, tried: Array, jumps: int) -> Array:
    """Calls of the field: the stages of every step that was tried, the two that choose the first step, and the first
    stage where nothing is reused: at the start and after every jump.

    A step that is refused right after a jump takes one more, which is not counted.
    """
    tableau = method.tableau
    reused = bool(tableau.fsal)  # the last stage is the first of the next step, unless the field has jumped
    return tried * (tableau.num_stages - reused) + 2 + (1 + jumps) * reused


def _checked(
    flow: AbstractFlow, z0: Array, times: Array, inputs: Any, solver: str | diffrax.AbstractERK, adjoint: str, numbers: dict[str, float]
) -> Any:
    """The method; InvalidValue for what can't be solved."""
    for name, value in numbers.items():
        if not isinstance(value, Tracer) and not value > 0:
            raise InvalidValue(f"solve_batch: {name} must be positive, got {name}={value}.")
    if adjoint not in ADJOINTS:
        raise InvalidValue(f"solve_batch: adjoint must be one of {', '.join(ADJOINTS)}, got {adjoint!r}.")
    method = registry.lookup("solver", solver)() if isinstance(solver, str) else solver
    if adjoint == "backsolve" and (inputs is not None or times.ndim == 2):
        raise InvalidValue(
            "solve_batch: adjoint='backsolve' takes no inputs and no times of their own for the lanes: backwards in time it would start "
            "on the wrong side of every jump. Use adjoint='checkpointed'."
        )
    if not isinstance(method, diffrax.AbstractERK):
        raise InvalidValue(
            f"solve_batch: solver must be an explicit Runge-Kutta method, such as 'tsit5' or 'dopri5', got {solver!r}. "
            "A stiff flow is solved, and differentiated, by dynsys.integrate.solve."
        )
    if z0.ndim != 2 or z0.shape[1] != flow.dim or not jnp.issubdtype(z0.dtype, jnp.floating):
        raise InvalidValue(f"solve_batch: z0 must be floats of shape (B, M) with M={flow.dim}, got {z0.shape} of {z0.dtype}.")
    if times.ndim not in (1, 2) or times.shape[-1] < 2 or (times.ndim == 2 and len(times) != len(z0)):
        raise InvalidValue(f"solve_batch: times must have shape (T,) or (B, T) with T >= 2 and B={len(z0)}, got {times.shape}.")
    if not isinstance(times, Tracer) and not np.all(np.diff(np.asarray(times), axis=-1) > 0):
        raise InvalidValue("solve_batch: times must be finite and increase.")
    if inputs is not None and np.shape(inputs) not in [(*lead, times.shape[-1], flow.n_inputs) for lead in ((), (len(z0),))]:
        raise InvalidValue(
            f"solve_batch: inputs must have shape (T, K) or (B, T, K) with B={len(z0)}, T={times.shape[-1]}, K={flow.n_inputs}, "
            f"got {np.shape(inputs)}."
        )
    return method

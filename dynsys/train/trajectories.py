"""Train any flow on trajectories, by solving pieces of them with error control: multiple shooting, on any times, with gaps.

    loss = mean over observed points (z[:N] - x)^2  +  continuity * mean |z_s(end) - z_(s+1)(start)|^2  +  regularise * E

A trajectory is cut into segments; each is solved from its own start, which is the data's first point or, with a `continuity` weight,
an unknown that is trained as well and tied to the end of the segment before it. Missing values (NaN) have no part in the loss.
E is the solver's own estimate of the error of the one step that it took at a random time, in units of the tolerance: making it small
makes the field cheap to solve. It is local: the state and the length of that step count as constants.
Sources: multiple shooting: Bock, Plitt, IFAC 1984; Voss, Timmer, Kurths 2004; local regularisation: Pal, Edelman, Rackauckas, ICML 2023.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from dynsys.dynamics import AbstractFlow
from dynsys.errors import InvalidValue
from dynsys.integrate.differentiable import solve_probed
from dynsys.status import Status


class FlowFit(eqx.Module):
    """The trained flow and how it got there, update by update: the loss without E, evaluations of the field in the solve, and E.

    starts (S, M): the states at which the segments begin, as trained or as the data have them. skipped: updates without a finite
    gradient, which changed nothing.
    """

    flow: AbstractFlow
    starts: Float[Array, "S M"]
    losses: Float[Array, " steps"]
    evaluations: Int[Array, " steps"]
    errors: Float[Array, " steps"]
    skipped: Int[Array, ""]
    status: Status = eqx.field(static=True)


class Segments(NamedTuple):
    """S pieces of L + 1 points: values (S, L+1, N), times from the start of each (S, L+1), inputs; whether the next piece follows on."""

    xs: np.ndarray
    times: np.ndarray
    inputs: np.ndarray | None
    follows: np.ndarray


class _Options(NamedTuple):
    solver: Any
    rtol: float
    atol: float
    adjoint: str
    max_steps: int
    continuity: float | None
    regularise: float
    batch: int


def train_trajectories(
    flow: AbstractFlow,
    series: Any,
    times: Any,
    *,
    inputs: Any = None,
    segment: int | None = None,
    continuity: float | None = None,
    steps: int = 1000,
    batch: int = 64,
    optimizer: optax.GradientTransformation | None = None,
    solver: Any = "tsit5",
    rtol: float = 1e-4,
    atol: float = 1e-4,
    adjoint: str = "checkpointed",
    max_steps: int = 256,
    regularise: float = 0.0,
    key: Array,
) -> FlowFit:
    """Train a flow, all updates in one compiled loop.

    series: (T, N), (B, T, N) or a list of (T_i, N), NaN where a value is missing; they are the first N states. times: (T,), (B, T) or a
    list, in the flow's unit, increasing. inputs: as the series, with K columns; row k is held until the next time.
    segment: steps in a piece (default: whole trajectories, of equal length); the field is called with t counted from a piece's start.
    continuity: None starts every piece at the data (missing values interpolated, unobserved states zero); a weight trains the starts.
    batch: pieces in one update, drawn at random. optimizer: default Adam at 1e-3. rtol, atol, solver, adjoint, max_steps: as in
    `solve_batch`. regularise: the weight of E; 0 leaves it out.

    Raises InvalidValue for shapes that don't fit, and weights that are negative. A run whose gradients stop being finite has
    status NOT_FINITE_LOSS. The same key gives the same result.
    """
    if regularise < 0 or (continuity is not None and continuity < 0) or steps < 1 or batch < 1:
        raise InvalidValue(
            "train_trajectories: weights can't be negative and counts must be positive, got "
            f"regularise={regularise}, continuity={continuity}, steps={steps}, batch={batch}."
        )
    if regularise and adjoint == "backsolve":
        raise InvalidValue("train_trajectories: adjoint='backsolve' can't regularise; use 'checkpointed'.")
    cut = cut_segments(series, times, inputs, segment=segment)
    n_obs = cut.xs.shape[-1]
    if n_obs > flow.dim:
        raise InvalidValue(f"train_trajectories: the series has {n_obs} columns, more than the {flow.dim} states of the flow.")
    dtype = jnp.result_type(*jax.tree.leaves(eqx.filter(flow, eqx.is_inexact_array)))
    starts = np.zeros((len(cut.xs), flow.dim))
    starts[:, :n_obs] = _filled(cut)
    same = np.allclose(cut.times, cut.times[:1], rtol=0, atol=1e-9 * np.max(cut.times))
    data = (cut.xs, cut.times[0] if same else cut.times, cut.inputs)
    xs, own, us = jax.tree.map(lambda a: jnp.asarray(a, dtype), data)
    options = _Options(solver, rtol, atol, adjoint, max_steps, continuity, regularise, min(batch, len(cut.xs)))
    optimizer = optax.adam(1e-3) if optimizer is None else optimizer
    found, starts, (losses, evaluations, errors, good) = _run(
        flow, jnp.asarray(starts, dtype), xs, own, us, jnp.asarray(cut.follows), optimizer, options, jr.split(key, steps)
    )
    late = np.asarray(good)[-max(1, steps // 10) :]
    status = Status.SUCCESS if np.mean(late) > 0.5 else Status.NOT_FINITE_LOSS
    return FlowFit(found, starts, losses, evaluations, errors, jnp.sum(~good), status)


def cut_segments(series: Any, times: Any, inputs: Any = None, *, segment: int | None = None) -> Segments:
    """The pieces of `segment` steps that train; a last piece that would be short begins earlier and follows on to none.

    Raises InvalidValue for shapes that don't fit, times that don't increase and series shorter than a piece.
    """
    runs = _runs(series, "series")
    clocks = [np.asarray(t, float) for t in times] if isinstance(times, list | tuple) else list(np.atleast_2d(np.asarray(times, float)))
    clocks = clocks * len(runs) if len(clocks) == 1 else clocks
    drives = None if inputs is None else _runs(inputs, "inputs")
    if len(clocks) != len(runs) or (drives is not None and len(drives) != len(runs)):
        raise InvalidValue(f"train_trajectories: {len(runs)} series need as many times and inputs, got {len(clocks)} times.")
    pieces: list[tuple[Any, ...]] = []
    for i, (x, t) in enumerate(zip(runs, clocks, strict=True)):
        length = len(x) - 1 if segment is None else segment
        if t.shape != (len(x),) or not np.all(np.diff(t) > 0):
            raise InvalidValue(f"train_trajectories: times of series {i} must be {len(x)} increasing numbers, got shape {t.shape}.")
        if not 1 <= length < len(x):
            raise InvalidValue(f"train_trajectories: segment must be in [1, {len(x) - 1}], the steps of series {i}, got {length}.")
        begins = list(range(0, len(x) - length, length))
        if begins[-1] + length < len(x) - 1:
            begins.append(len(x) - 1 - length)
        for begin, after in zip(begins, [*begins[1:], -1], strict=True):
            rows = slice(begin, begin + length + 1)
            pieces.append((x[rows], t[rows] - t[begin], None if drives is None else drives[i][rows], after == begin + length))
    lengths = {len(piece[0]) for piece in pieces}
    if len(lengths) > 1:
        raise InvalidValue(f"train_trajectories: series of unequal length need segment=..., got lengths {sorted(lengths)}.")
    xs, own, us, follows = zip(*pieces, strict=True)
    return Segments(np.stack(xs), np.stack(own), None if drives is None else np.stack(us), np.array(follows))


def _runs(values: Any, what: str) -> list[np.ndarray]:
    runs = [np.asarray(v, float) for v in values] if isinstance(values, list | tuple) else np.asarray(values, float)
    if isinstance(runs, np.ndarray):
        runs = [runs] if runs.ndim == 2 else list(runs)
    if not runs or any(run.ndim != 2 or run.shape[1] != runs[0].shape[1] for run in runs):
        raise InvalidValue(f"train_trajectories: {what} must have shape (T, N) or (B, T, N), or be a list of (T, N) with one N.")
    return runs


def _filled(cut: Segments) -> np.ndarray:
    """The first points (S, N), what is missing there taken from the nearest value of the piece, or zero if it has none."""
    first = cut.xs[:, 0].copy()
    for s, n in np.argwhere(np.isnan(first)):
        known = np.flatnonzero(np.isfinite(cut.xs[s, :, n]))
        first[s, n] = cut.xs[s, known[0], n] if len(known) else 0.0
    return first


@eqx.filter_jit
def _run(flow: Any, starts: Array, xs: Array, times: Array, us: Any, follows: Array, optimizer: Any, options: _Options, keys: Array) -> Any:
    params, static = eqx.partition(flow, eqx.is_inexact_array)
    trained = options.continuity is not None
    first = 0 if trained else 1  # a start that is the data's own has no error
    seen = jnp.isfinite(xs).at[:, :first].set(False)
    xs = jnp.where(seen, xs, 0.0)

    def objective(free: Any, chosen: Array, place: Array) -> Any:
        params, begins = free
        own = times if times.ndim == 1 else times[chosen]
        solution, error = solve_probed(
            eqx.combine(params, static),
            begins[chosen],
            own,
            None if us is None else us[chosen],
            solver=options.solver,
            rtol=options.rtol,
            atol=options.atol,
            adjoint=options.adjoint,
            max_steps=options.max_steps,
            place=place if options.regularise else None,
        )
        gone, here = solution.states, seen[chosen]
        off = jnp.where(here, gone[..., : xs.shape[-1]] - xs[chosen], 0.0)
        loss = jnp.sum(off**2) / jnp.maximum(jnp.sum(here), 1)
        if options.continuity:
            gap = gone[:, -1] - begins[jnp.minimum(chosen + 1, len(begins) - 1)]
            loss = loss + options.continuity * jnp.mean(jnp.where(follows[chosen, None], gap, 0.0) ** 2)
        size = jnp.zeros_like(loss) if error is None else jnp.sqrt(jnp.mean(error**2) + 1e-12)
        return loss + options.regularise * size, (loss, solution.evaluations, size)

    def update(state: Any, key: Array) -> Any:
        params, begins, opt_state = state
        draw, where = jr.split(key)
        chosen = jr.permutation(draw, len(xs))[: options.batch]
        place = jr.uniform(where, dtype=begins.dtype)
        free = (params, begins)
        grads, (loss, evaluations, size) = jax.grad(objective, has_aux=True)(free, chosen, place)
        if not trained:
            grads = (grads[0], jnp.zeros_like(begins))
        good = jnp.isfinite(loss) & jax.tree.reduce(jnp.logical_and, jax.tree.map(lambda g: jnp.all(jnp.isfinite(g)), grads))
        moves, after = optimizer.update(grads, opt_state, free)
        moved = (eqx.apply_updates(params, moves[0]), eqx.apply_updates(begins, moves[1]) if trained else begins)
        state = jax.tree.map(lambda new, old: jnp.where(good, new, old), (*moved, after), state)
        return state, (loss, evaluations, size, good)

    (params, starts, _), history = jax.lax.scan(update, (params, starts, optimizer.init((params, starts))), keys)
    return eqx.combine(params, static), starts, history

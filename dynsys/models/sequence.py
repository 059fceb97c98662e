"""A cell along sequences of inputs, with a hand-made reverse pass, and the sequence model: inputs to targets.

    h[t] = step(h[t-1], x[t], gap[t]),    y[t] = W read(h[t]) + b

What the inputs alone decide (`dynsys.models.driven`) is computed first, for all times at once. Where a step has many activations
(the sigmoids of a liquid network), they cost less to compute again than to store and load: then the forward scan keeps the hidden
states and nothing else, and a scan backwards in time pulls the adjoint through each step from the state before it, one sample
after the other if a single one fills the nearest cache, and adds up the parameters' gradient.
"""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dynsys.errors import InvalidValue
from dynsys.models.base import check_sizes, uniform
from dynsys.models.cell import AbstractCell
from dynsys.models.driven import AbstractDriven, AnyDrive


def run_cell(
    cell: AbstractCell,
    xs: Float[Array, "T B I"],
    gaps: Float[Array, "..."],
    h0: Float[Array, "B S"],
) -> Float[Array, "T B S"]:
    """Hidden states after each of T inputs, from h0 before the first; gaps[t] is how long xs[t] acts.

    Reverse-mode differentiable by the cell's parameters, the inputs, the gaps and the start. Raises InvalidValue if the cell takes
    another number of inputs or hidden states, or the gaps are not of the inputs.
    """
    if xs.shape[-1] != cell.n_in or h0.shape[-1] != cell.n_state:
        raise InvalidValue(
            f"run_cell: this {type(cell).__name__} takes {cell.n_in} inputs and {cell.n_state} hidden numbers, "
            f"got xs {xs.shape} and h0 {h0.shape}. xs is (T, B, I), h0 is (B, S)."
        )
    if gaps.shape not in (xs.shape[:1], xs.shape[:2]):
        raise InvalidValue(f"run_cell: gaps must be (T,) or (T, B), one for every input, got gaps {gaps.shape} with xs {xs.shape}.")
    cell = cell.prepared()
    if gaps.ndim == 1:
        gaps = jnp.broadcast_to(gaps[:, None], xs.shape[:2])
    if not isinstance(cell, AbstractDriven):
        return _scan(jax.vmap(cell.step), h0, xs, gaps)
    drives = jax.vmap(jax.vmap(cell.drive))(xs)
    return _scan(cell.advance_all, h0, drives, gaps) if cell.reverse == "stored" else _recomputed(cell, h0, drives, gaps)


def _scan(step: Any, h0: Array, drives: AnyDrive, gaps: Array) -> Array:
    """All states after h0; step is (h, drive, gap) -> h for a batch."""

    def body(h, now):
        h = step(h, *now)
        return h, h

    return jax.lax.scan(body, h0, (drives, gaps))[1]


def _recomputed(cell: AbstractDriven, h0: Array, drives: AnyDrive, gaps: Array) -> Array:
    """All states after h0, with the scan backwards of this module's head."""
    arrays, static = eqx.partition(cell, eqx.is_array)
    params, masks = eqx.partition(arrays, eqx.is_inexact_array)  # masks are handed in too: what is closed over may be a tracer
    one, many = type(cell).advance, type(cell).advance_all

    def advance(step, params, masks, h, drive, gap):
        return step(eqx.combine(params, masks, static), h, drive, gap)

    @jax.custom_vjp
    def run(params, masks, h0, drives, gaps):
        return forward(params, masks, h0, drives, gaps)[0]

    def forward(params, masks, h0, drives, gaps):
        hs = _scan(partial(advance, many, params, masks), h0, drives, gaps)
        return hs, (params, masks, h0, hs, drives, gaps)

    def backward(kept, cotangents):
        params, masks, h0, hs, drives, gaps = kept
        before = jnp.concatenate([h0[None], hs[:-1]])

        def pulled(step, total, now):
            h, drive, gap, adjoint = now
            pull = jax.vjp(lambda params, h, drive, gap: advance(step, params, masks, h, drive, gap), params, h, drive, gap)[1]
            more, *others = pull(adjoint)
            return jax.tree.map(jnp.add, total, more), tuple(others)

        def body(carry, now):
            adjoint, total = carry
            h, drive, gap, cotangent = now
            now = h, drive, gap, adjoint + cotangent
            if cell.reverse == "by-sample":
                total, (adjoint, by_drive, by_gap) = jax.lax.scan(partial(pulled, one), total, now)
            else:
                total, (adjoint, by_drive, by_gap) = pulled(many, total, now)
            return (adjoint, total), (by_drive, by_gap)

        start = jnp.zeros_like(h0), jax.tree.map(jnp.zeros_like, params)
        (first, total), (by_drive, by_gap) = jax.lax.scan(body, start, (before, drives, gaps, cotangents), reverse=True)
        return total, None, first, by_drive, by_gap

    run.defvjp(forward, backward)
    return run(params, masks, h0, drives, gaps)


class SequenceModel(eqx.Module):
    """A cell with a linear head: targets of a regression, or logits of classes, at every step or after the last.

    P is the number of targets (or classes), O what the cell reads out; `last` asks for the step after the last input alone.
    """

    cell: AbstractCell
    W: Float[Any, "P O"]
    b: Float[Any, " P"]
    last: bool = eqx.field(static=True, default=False)

    @classmethod
    def init(cls, cell: AbstractCell, n_targets: int, *, last: bool = False, key: Array) -> "SequenceModel":
        """The model with a random head for `n_targets` numbers or classes."""
        check_sizes("SequenceModel", n_targets=n_targets)
        return cls(cell, uniform(key, (n_targets, cell.n_out), cell.n_out), jnp.zeros(n_targets), last)

    def __call__(self, xs: Float[Array, "T I"], gaps: Float[Array, " T"] | None = None) -> Float[Array, "..."]:
        """Targets of one sequence, (T, I), (T,) -> (T, P), or (P,) of the `last` step; without gaps every gap is 1."""
        return self.batched(xs[:, None], gaps)[..., 0, :]

    def batched(self, xs: Float[Array, "T B I"], gaps: Float[Array, " T"] | Float[Array, "T B"] | None = None) -> Float[Array, "..."]:
        """Targets of a batch, (T, B, I), (T,) or (T, B) -> (T, B, P), or (B, P) of the `last` step; from a hidden state of zeros."""
        gaps = jnp.ones(xs.shape[0], xs.dtype) if gaps is None else gaps
        hs = run_cell(self.cell, xs, gaps, jnp.zeros((xs.shape[1], self.cell.n_state), xs.dtype))
        hs = hs[-1] if self.last else hs
        read = jax.vmap(self.cell.read)(hs.reshape(-1, hs.shape[-1])).reshape(*hs.shape[:-1], self.cell.n_out)
        return read @ self.W.T + self.b[(None,) * (hs.ndim - 1)]

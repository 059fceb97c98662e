"""Training of sequence models: inputs to targets, by regression or classification, all updates compiled.

    loss = mean (y - target)^2,   or the cross-entropy of the logits y where the targets are whole numbers (labels)

Several models of one architecture (seeds) train at once. At checkpoints the validation loss is computed and the best parameters of
every seed are kept. Update k draws its batch from fold_in(key, k).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from dynsys.errors import DataError, InvalidValue
from dynsys.models.sequence import SequenceModel
from dynsys.status import Status
from dynsys.train.ensemble import all_seeds

CHUNK = 50  # updates in one compiled call at most
EVALUATED = 256  # sequences in one batch of an evaluation


class Sequences(eqx.Module):
    """E sequences of T samples: inputs (E, T, I), gaps (E, T), targets (E, T, P) or (E, P), or labels (E, T) or (E,) of whole numbers.

    gaps[e, t] is how long inputs[e, t] acts. Make it with `Sequences.of`.
    """

    inputs: Float[Array, "E T I"]
    gaps: Float[Array, "E T"]
    targets: Array

    @classmethod
    def of(cls, inputs: Any, targets: Any, gaps: Any = None, *, dtype: Any = jnp.float32) -> "Sequences":
        """From arrays; without gaps each is 1. Raises DataError for shapes that don't fit, numbers that aren't finite, gaps below 0."""
        inputs, targets = np.asarray(inputs), np.asarray(targets)
        if inputs.ndim != 3 or 0 in inputs.shape:
            raise DataError(f"Sequences: inputs must be (E, T, I): sequences, samples, columns; got shape {inputs.shape}.")
        gaps = np.ones(inputs.shape[:2]) if gaps is None else np.asarray(gaps, float)
        labels = targets.dtype.kind in "iub"
        fitting = (inputs.shape[:1], inputs.shape[:2])
        if (targets.shape if labels else targets.shape[:-1]) not in fitting or gaps.shape != inputs.shape[:2]:
            raise DataError(
                f"Sequences: inputs {inputs.shape} need gaps {inputs.shape[:2]} and targets {inputs.shape[:2]} or {inputs.shape[:1]} and "
                f"one more axis (none for labels, which are whole numbers), got gaps {gaps.shape} and targets {targets.shape}."
            )
        if not (np.isfinite(inputs).all() and np.isfinite(gaps).all() and np.isfinite(targets).all()):
            raise DataError("Sequences: inputs, gaps or targets hold NaN or inf. Fill or leave out these sequences.")
        if (gaps < 0).any() or (labels and targets.min() < 0):
            raise DataError("Sequences: gaps and labels can't be negative.")
        kept = jnp.asarray(targets, jnp.int32) if labels else jnp.asarray(targets, dtype)
        return cls(jnp.asarray(inputs, dtype), jnp.asarray(gaps, dtype), kept)

    @property
    def count(self) -> int:
        """E."""
        return self.inputs.shape[0]

    def take(self, rows: Array) -> "Sequences":
        """Some of the sequences."""
        return Sequences(self.inputs[rows], self.gaps[rows], self.targets[rows])


@dataclasses.dataclass(frozen=True)
class SequenceRow:
    """One line of the history: a seed at an update, its mean training loss since the last line and its validation loss."""

    seed: int
    step: int
    loss: float
    validation: float


@dataclasses.dataclass(frozen=True)
class FittedSequences:
    """The kept model of every seed, its validation loss, the update it is from and how it went; the best seed is `best`."""

    models: tuple[SequenceModel, ...]
    losses: tuple[float, ...]
    kept_at: tuple[int, ...]
    status: tuple[Status, ...]
    history: tuple[SequenceRow, ...]

    @property
    def best(self) -> int:
        """The seed with the lowest validation loss."""
        return int(np.argmin(self.losses))


class State(eqx.Module):
    """What one seed (or all, stacked) carries from update to update."""

    params: PyTree
    optimizer: PyTree


def sequence_loss(model: SequenceModel, data: Sequences) -> Float[Array, ""]:
    """The mean loss over sequences (and samples)."""
    made = model.batched(jnp.swapaxes(data.inputs, 0, 1), data.gaps.T)
    made = made if model.last else jnp.swapaxes(made, 0, 1)
    if jnp.issubdtype(data.targets.dtype, jnp.integer):
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(made, data.targets))
    return jnp.mean((made - data.targets) ** 2)


def evaluate_sequences(model: SequenceModel, data: Sequences) -> float:
    """The loss on all sequences, in batches of EVALUATED."""
    parts = [jnp.arange(a, min(a + EVALUATED, data.count)) for a in range(0, data.count, EVALUATED)]
    return float(sum(float(_loss(model, data.take(rows))) * len(rows) for rows in parts) / data.count)


_loss = eqx.filter_jit(sequence_loss)


def fit_sequences(
    models: SequenceModel | Sequence[SequenceModel],
    train: Sequences,
    validation: Sequences | None = None,
    *,
    steps: int = 2000,
    batch: int = 32,
    learning_rate: float = 3e-3,
    final_learning_rate: float = 3e-4,
    optimizer: optax.GradientTransformation | None = None,
    clip: float = 1.0,
    checkpoints: int = 10,
    progress: Callable[[SequenceRow], None] | None = None,
    key: Array,
) -> FittedSequences:
    """Train one model, or several of one architecture at once, each with its own batches.

    steps: updates, of `batch` sequences each, rounded up to whole compiled calls. The default optimiser is Adam with a rate that decays
    exponentially from learning_rate to final_learning_rate, and gradients clipped to the norm `clip`. validation: what the best of
    `checkpoints` looks is chosen by; the training sequences without it. progress: called with every line of the history.

    A run whose loss is not finite ends with Status.NOT_FINITE_LOSS and keeps what was best before. Raises InvalidValue for settings that
    can't work, targets that are not those of the model, and models of unequal architecture.
    """
    models = (models,) if isinstance(models, SequenceModel) else tuple(models)
    validation = train if validation is None else validation
    _check(models, train, validation, steps=steps, batch=batch, checkpoints=checkpoints)
    if optimizer is None:
        decay = optax.exponential_decay(learning_rate, steps, final_learning_rate / learning_rate)
        optimizer = optax.adam(decay)
    optimizer = optax.chain(optax.clip_by_global_norm(clip), optimizer)
    dtype = train.inputs.dtype
    parts = [eqx.partition(model, eqx.is_inexact_array) for model in models]
    static = parts[0][1]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves).astype(dtype), *[part for part, _ in parts])
    each = -(-steps // checkpoints)
    chunk = -(-each // -(-each // CHUNK))

    def one_seed(states: State, seed: Array, data: Sequences, key: Array, first: Array) -> tuple[State, Array]:
        state, key = jax.tree.map(lambda leaf: leaf[seed], states), jr.fold_in(key, seed)

        def update(state: State, count: Array) -> tuple[State, Array]:
            rows = jr.randint(jr.fold_in(key, count), (batch,), 0, data.count)
            drawn = data.take(rows)
            loss, gradient = jax.value_and_grad(lambda params: sequence_loss(eqx.combine(params, static), drawn))(state.params)
            changes, opt = optimizer.update(gradient, state.optimizer, state.params)
            return State(optax.apply_updates(state.params, changes), opt), loss

        state, losses = jax.lax.scan(update, state, first + jnp.arange(chunk))
        return state, jnp.mean(losses)

    advance = all_seeds(one_seed, len(models))
    states = State(params, jax.vmap(optimizer.init)(params))
    kept, worst = list(models), [float("inf")] * len(models)
    kept_at, history, done, since = [0] * len(models), [], 0, []
    while done < steps:
        states, losses = advance(states, train, key, jnp.asarray(done))
        done += chunk
        since.append(np.asarray(losses))
        if done < steps and done // each == (done - chunk) // each:
            continue
        means, since = np.mean(since, axis=0), []
        for seed in range(len(models)):
            model = eqx.combine(jax.tree.map(lambda leaf, seed=seed: leaf[seed], states.params), static)
            found = evaluate_sequences(model, validation)
            history.append(SequenceRow(seed, done, float(means[seed]), found))
            if found < worst[seed]:
                kept[seed], worst[seed], kept_at[seed] = model, found, done
            if progress is not None:
                progress(history[-1])
        if not np.isfinite(means).any():
            break
    last = {row.seed: row for row in history}
    status = tuple(
        Status.SUCCESS if np.isfinite(last[i].loss) and np.isfinite(worst[i]) else Status.NOT_FINITE_LOSS for i in range(len(models))
    )
    return FittedSequences(tuple(kept), tuple(worst), tuple(kept_at), status, tuple(history))


def _check(models: tuple[SequenceModel, ...], train: Sequences, validation: Sequences, **counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise InvalidValue(f"fit_sequences: {name} must be at least 1, got {name}={count}.")
    if not models:
        raise InvalidValue("fit_sequences: no model given; pass at least one.")
    if len({(jax.tree.structure(model), *(jnp.shape(leaf) for leaf in jax.tree.leaves(model))) for model in models}) > 1:
        raise InvalidValue("fit_sequences: all models must have the same architecture; only their parameters may differ.")
    model, (_, _, columns) = models[0], train.inputs.shape
    if model.cell.n_in != columns:
        raise InvalidValue(f"fit_sequences: the model takes {model.cell.n_in} inputs, the sequences have {columns}.")
    for data in (train, validation):
        labels = jnp.issubdtype(data.targets.dtype, jnp.integer)
        wanted = data.inputs.shape[:1] if model.last else data.inputs.shape[:2]
        shape = data.targets.shape if labels else data.targets.shape[:-1]
        outputs = model.b.shape[-1]
        if shape != wanted or (not labels and data.targets.shape[-1] != outputs):
            raise InvalidValue(
                f"fit_sequences: a model with last={model.last} and {outputs} outputs wants targets {(*wanted, outputs)} or labels "
                f"{wanted}, got {data.targets.shape}."
            )
        if labels and int(data.targets.max()) >= outputs:
            raise InvalidValue(f"fit_sequences: a label is {int(data.targets.max())}, but the model tells {outputs} classes apart.")

"""The training loop: all seeds and all updates between two scores in one compiled program.

A block is a few updates after one look at the forcing strength; a chunk is many blocks in one call of a jitted scan, for
all seeds at once (train.ensemble). Between chunks, on the host: progress, and at checkpoints the free run is scored, the
best parameters of every seed are kept, and the state is handed to `save`. All randomness of update k is drawn from
fold_in(key, k), so a run that continues from a checkpoint repeats the uninterrupted one bit for bit.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from dynsys.dynamics import AbstractFlow, AbstractMap
from dynsys.errors import InvalidValue
from dynsys.models.base import AbstractRNN
from dynsys.status import Status
from dynsys.train.ensemble import all_seeds
from dynsys.train.forced import forced_run
from dynsys.train.forcing import AbstractForcing, jacobian_growth
from dynsys.train.loss import Loss
from dynsys.train.windows import Streamed, Windows

WORST_SCORE = 1e6


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long and how to train; all counts are in updates.

    `block`: updates between two looks at the forcing strength; `chunk`: updates in one compiled call; `checkpoints`: how
    often the free run is scored; `noise`: standard deviation of noise added to what forces; `clip`: bound of the gradient's
    norm; `bound`: |A_i| is kept at most this after every update; `patience`: skipped updates in a row that end a run.
    """

    steps: int = 30_000
    batch: int = 16
    block: int = 5
    chunk: int = 250
    checkpoints: int = 10
    noise: float = 0.0
    clip: float | None = 1.0
    bound: float | None = None
    patience: int = 100

    def __post_init__(self):
        for name in ("steps", "batch", "block", "chunk", "checkpoints", "patience"):
            if getattr(self, name) < 1:
                raise InvalidValue(f"training: {name} must be at least 1, got {name}={getattr(self, name)}.")
        if self.chunk % self.block:
            raise InvalidValue(f"training: chunk must be a multiple of block, got chunk={self.chunk} with block={self.block}.")
        if self.noise < 0:
            raise InvalidValue(f"training: noise must not be negative, got noise={self.noise}.")

    @property
    def chunks(self) -> int:
        """How many compiled calls a run takes: `steps` rounded up to whole chunks."""
        return -(-self.steps // self.chunk)

    def is_checkpoint(self, done: int) -> bool:
        """Whether the free run is scored after `done` chunks: `checkpoints` times, evenly, and at the end."""
        count = min(self.checkpoints, self.chunks)
        return done > 0 and done * count // self.chunks > (done - 1) * count // self.chunks


class State(eqx.Module):
    """Everything that one seed (or S of them at once) carries from update to update."""

    params: PyTree
    optimizer: PyTree
    strength: Float[Array, "*S"]
    skipped: Int[Array, "*S"]
    in_a_row: Int[Array, "*S"]


@dataclasses.dataclass(frozen=True)
class Scored:
    """What a scorer says of one model: `total` ranks (low is good), `parts` are shown and stored."""

    total: float
    parts: tuple[tuple[str, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the history: a seed at an update. `score` is None between checkpoints."""

    seed: int
    step: int
    loss: float
    strength: float
    skipped: int
    score: Scored | None = None


@dataclasses.dataclass(frozen=True)
class Progress:
    """What the loop tells after every chunk."""

    step: int
    steps: int
    rows: tuple[Row, ...]
    seconds: float
    best: tuple[float, ...]


@dataclasses.dataclass
class Run:
    """A training run between two chunks: all that a checkpoint has to hold."""

    state: State
    best: PyTree
    best_score: np.ndarray
    best_step: np.ndarray
    chunks: int = 0
    history: list[Row] = dataclasses.field(default_factory=list)
    status: Status = Status.SUCCESS


@dataclasses.dataclass(frozen=True)
class Trained:
    """What `train` returns: for every seed the kept (best-scored) and the last model, and how it went."""

    kept: tuple[AbstractMap, ...]
    last: tuple[AbstractMap, ...]
    scores: tuple[float, ...]
    kept_at: tuple[int, ...]
    history: tuple[Row, ...]
    status: tuple[Status, ...]

    @property
    def best(self) -> int:
        """The seed with the lowest score."""
        return int(np.argmin(self.scores))


class Trainer:
    """Trains an ensemble of one architecture. `advance` is the compiled inner function; replace it to try another engine.

    Arrays of the models that are not floats (a mask of units) are kept as they are; they may differ from member to member.
    streams: for every member, which stream of random numbers it draws from; by default each its own. Members of one stream
    see the same windows.
    """

    def __init__(
        self,
        models: tuple[AbstractMap, ...],
        windows: Windows | Streamed,
        *,
        forcing: AbstractForcing,
        optimizer: optax.GradientTransformation,
        loss: Loss | None = None,
        plan: Plan | None = None,
        streams: Sequence[int] | None = None,
        key: Array,
    ):
        self.source = windows
        windows = windows.windows(0) if isinstance(windows, Streamed) else windows
        if not models:
            raise InvalidValue("train: no model given; pass at least one.")
        for model in models:
            _check(model, windows)
        self.plan = Plan() if plan is None else plan
        self.dtype, self.forcing, self.loss, self.key = windows.values.dtype, forcing, Loss() if loss is None else loss, key
        clip = optax.identity() if self.plan.clip is None else optax.clip_by_global_norm(self.plan.clip)
        self.optimizer = optax.chain(clip, optimizer)
        models = tuple(
            jax.tree.map(lambda leaf: leaf.astype(self.dtype) if eqx.is_inexact_array(leaf) else leaf, model) for model in models
        )
        parts = [eqx.partition(model, lambda leaf: isinstance(leaf, jax.Array | np.ndarray)) for model in models]
        if any(jax.tree.structure(static) != jax.tree.structure(parts[0][1]) for _, static in parts):
            raise InvalidValue("train: all models of an ensemble must have the same architecture; only their parameters may differ.")
        self.static = parts[0][1]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[arrays for arrays, _ in parts])
        self.params, self.held = eqx.partition(stacked, eqx.is_inexact_array)
        self.seeds = len(models)
        self.streams = jnp.arange(self.seeds) if streams is None else jnp.asarray(streams)
        self.advance = all_seeds(self._one_seed, self.seeds)

    def begin(self) -> Run:
        """The run before its first update."""
        strength = jnp.full(self.seeds, self.forcing.initial(), self.dtype)
        zeros = jnp.zeros(self.seeds, jnp.int32)
        state = State(self.params, jax.vmap(self.optimizer.init)(self.params), strength, zeros, zeros)
        worst = np.full(self.seeds, np.inf)
        return Run(state, jax.tree.map(np.asarray, self.params), worst, np.zeros(self.seeds, int))

    def model(self, params: PyTree, seed: int) -> AbstractMap:
        """The model of one seed from stacked parameters."""
        return eqx.combine(jax.tree.map(lambda leaf: jnp.asarray(leaf[seed]), params), self._static(seed))

    def _static(self, seed: Any) -> PyTree:
        """All of one seed's model but its parameters."""
        return eqx.combine(jax.tree.map(lambda leaf: leaf[seed], self.held), self.static)

    def run(self, run: Run, scorer: Callable[[AbstractMap], Scored], save: Callable[[Run], None] | None = None) -> Iterator[Progress]:
        """Go on to the end, yielding after every chunk; `run` is updated in place, `save` is called at checkpoints."""
        begun = time.perf_counter()
        while run.chunks < self.plan.chunks and run.status is Status.SUCCESS:
            first = run.chunks * self.plan.chunk
            windows = self.source.windows(run.chunks) if isinstance(self.source, Streamed) else self.source
            run.state, losses = jax.block_until_ready(self.advance(run.state, windows, self.key, jnp.asarray(first)))
            run.chunks += 1
            scored = self._score(run, scorer) if self.plan.is_checkpoint(run.chunks) else [None] * self.seeds
            strengths, skipped = np.asarray(run.state.strength), np.asarray(run.state.skipped)
            rows = tuple(
                Row(seed, run.chunks * self.plan.chunk, float(losses[seed]), float(strengths[seed]), int(skipped[seed]), scored[seed])
                for seed in range(self.seeds)
            )
            run.history.extend(rows)
            if np.all(np.asarray(run.state.in_a_row) >= self.plan.patience):
                run.status = Status.NOT_FINITE_LOSS
            if save is not None and (scored[0] is not None or not run.status.ok):
                save(run)
            seconds = time.perf_counter() - begun
            yield Progress(run.chunks * self.plan.chunk, self.plan.chunks * self.plan.chunk, rows, seconds, tuple(run.best_score))

    def result(self, run: Run) -> Trained:
        """The models of a finished (or stopped) run."""
        finished = run.chunks >= self.plan.chunks or not run.status.ok
        in_a_row = np.asarray(run.state.in_a_row)

        def status(seed: int) -> Status:
            if in_a_row[seed] >= self.plan.patience:
                return Status.NOT_FINITE_LOSS
            if not finished:
                return Status.STOPPED
            return Status.DEAD if run.best_score[seed] >= WORST_SCORE else Status.SUCCESS

        seeds = range(self.seeds)
        return Trained(
            kept=tuple(self.model(run.best, seed) for seed in seeds),
            last=tuple(self.model(run.state.params, seed) for seed in seeds),
            scores=tuple(float(min(score, WORST_SCORE)) for score in run.best_score),  # inf: never scored
            kept_at=tuple(int(step) for step in run.best_step),
            history=tuple(run.history),
            status=tuple(status(seed) for seed in seeds),
        )

    def _score(self, run: Run, scorer: Callable[[AbstractMap], Scored]) -> list[Scored]:
        scored = [scorer(self.model(run.state.params, seed)) for seed in range(self.seeds)]
        for seed, score in enumerate(scored):
            total = score.total if np.isfinite(score.total) else WORST_SCORE
            if total < run.best_score[seed]:
                run.best_score[seed], run.best_step[seed] = total, run.chunks * self.plan.chunk
                run.best = jax.tree.map(lambda best, now, seed=seed: _with_row(best, np.asarray(now), seed), run.best, run.state.params)
        return scored

    def _one_seed(self, states: State, seed: Array, windows: Windows, key: Array, first: Array) -> tuple[State, Float[Array, ""]]:
        """One chunk of one seed, out of the states of all: its state after it and its mean loss."""
        starts = first + self.plan.block * jnp.arange(self.plan.chunk // self.plan.block)
        state, key = jax.tree.map(lambda leaf: leaf[seed], states), jr.fold_in(key, self.streams[seed])
        static = self._static(seed)
        state, losses = jax.lax.scan(lambda state, start: self._block(state, static, windows, key, start), state, starts)
        return state, jnp.nanmean(jnp.where(jnp.isfinite(losses), losses, jnp.nan))

    def _block(self, state: State, static: PyTree, windows: Windows, key: Array, start: Array) -> tuple[State, Array]:
        def growth(estimate: str) -> Array:
            xs, us = windows.draw(self.plan.batch, key=jr.fold_in(jr.fold_in(key, start), 1))  # a key of its own, apart from the updates'
            model = eqx.combine(state.params, static)
            states = forced_run(model, self.forcing, state.strength, xs, us)[:-1]
            ts = jnp.arange(states.shape[0])
            force = jax.vmap(jax.vmap(self.forcing.apply, (None, 0, 0, None, None)), (None, 0, 0, 0, None))
            forced = force(model, states, xs[:-1], ts, state.strength)
            return jacobian_growth(model, forced, None if us is None else us[:-1], estimate)

        strength = self.forcing.update(state.strength, growth)
        state = eqx.tree_at(lambda s: s.strength, state, strength)
        counts = start + jnp.arange(self.plan.block)
        return jax.lax.scan(lambda state, count: self._update(state, static, windows, jr.fold_in(key, count)), state, counts)

    def _update(self, state: State, static: PyTree, windows: Windows, key: Array) -> tuple[State, Array]:
        draw, noise = jr.split(key)
        xs, us = windows.draw(self.plan.batch, key=draw)
        forced_by = xs + self.plan.noise * jr.normal(noise, xs.shape, xs.dtype) if self.plan.noise else xs

        def objective(params: PyTree) -> Array:
            return self.loss(eqx.combine(params, static), self.forcing, state.strength, xs, forced_by, us)

        loss, gradient = jax.value_and_grad(objective)(state.params)
        healthy = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(gradient))
        changes, optimizer = self.optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, changes)
        if self.plan.bound is not None:
            params = eqx.filter(_clamped(eqx.combine(params, static), self.plan.bound), eqx.is_inexact_array)

        def keep(new: PyTree, old: PyTree) -> PyTree:
            return jax.tree.map(lambda a, b: jnp.where(healthy, a, b), new, old)

        in_a_row = jnp.where(healthy, 0, state.in_a_row + 1)
        state = State(keep(params, state.params), keep(optimizer, state.optimizer), state.strength, state.skipped + ~healthy, in_a_row)
        return state, loss


def _with_row(stack: np.ndarray, rows: np.ndarray, row: int) -> np.ndarray:
    stack = np.array(stack)
    stack[row] = rows[row]
    return stack


def _clamped(model: Any, bound: float) -> AbstractMap:
    if not isinstance(model, AbstractRNN):
        raise InvalidValue(f"training: bound keeps |A| below a limit, but {type(model).__name__} has no diagonal A. Leave bound out.")
    return model.clamped(bound)


def _check(model: AbstractMap, windows: Windows) -> None:
    if isinstance(model, AbstractFlow):
        raise InvalidValue(
            f"train: {type(model).__name__} is a flow, in continuous time; training steps through samples. "
            "Make it a map first: Discretized(flow, dt), with dt the sampling interval of the series."
        )
    if not isinstance(model, AbstractMap):
        raise InvalidValue(f"train: expected a model (an AbstractMap), got {type(model).__name__}.")
    if model.n_obs != windows.values.shape[1]:
        raise InvalidValue(f"train: the model observes n_obs={model.n_obs} components, the series has {windows.values.shape[1]} columns.")
    inputs = 0 if windows.inputs is None else windows.inputs.shape[1]
    if model.n_inputs != inputs:
        raise InvalidValue(f"train: the model takes n_inputs={model.n_inputs}, the series has {inputs} input columns.")

"""Learn a candidate, alone or together with its controller, so that its level 1 encloses as much of a box as it can.

    loss = mean w(x) [F(x) + margin]_+ / margin + 50 w(x) [step(x) outside the box]_+  +  growth * mean [log V(x) + 0.05]_+
    w(x) = [1.1 - V(x)]_+, at most 1

F is the relative increase of V in a step (`attack.py`). The first two terms fall when V decreases along the loop, or when x leaves the set;
the third draws every state of the box into it. Between them the border of the set moves to where the loop can no longer return. The states
are random ones, at all distances from the goal, and adversaries: a population that climbs F by one projected gradient step at each update,
so that a training run is a few compiled scans. Between these the cube is renewed from which half of the states are drawn, that of the set
(`frames.enclosing`): in four dimensions the set may be a hundredth of its box. Counterexamples of a verifier join the adversaries, and
training goes on (CEGIS).
Sources: Chang, Roohi, Gao, NeurIPS 2019 (loss, CEGIS); Yang et al., ICML 2024, eqs. 13-16 (invariant set in a box, gradient attacks).
The weight of the set in the loss, its growth and the persistent adversaries are ours.
"""

import itertools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float

from dynsys.dynamics import AbstractFlow
from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys.status import Status
from dynsys.verify.attack import Loop, badness, box_of, climb, increase, outside, scattered
from dynsys.verify.frames import enclosing
from dynsys.verify.level import Level, largest_level, on_faces
from dynsys.verify.lyapunov import AbstractLyapunov, QuadraticLyapunov

Verifier = Callable[[AbstractLyapunov, Any, float], tuple[bool, Any]]
STAGES = 4
SLACK = 1.1  # levels up to here count as the set in training


class Recipe(eqx.Module):
    """How to train. steps: updates of Adam; batch: random states in each; adversaries: how many; margin: how much faster than asked V is
    to fall, per step of a map or unit of time of a flow (None: twice the rate, or 0.002 without one); growth: the weight of the region;
    inside: whether the set must stay off the faces of the box, as `certify` wants it; else (maps) only the next state may not leave it.
    """

    steps: int = eqx.field(static=True, default=3000)
    batch: int = eqx.field(static=True, default=1024)
    adversaries: int = eqx.field(static=True, default=512)
    learning_rate: float = 3e-3
    margin: float | None = None
    growth: float = 0.02
    inside: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        if min(self.steps, self.batch, self.adversaries) < 1:
            raise InvalidValue(
                f"Recipe: steps, batch and adversaries must be at least 1, got {self.steps}, {self.batch} and {self.adversaries}."
            )


class Learned(eqx.Module):
    """V and policy in float64; level, volume and its standard error, as far as random states and attacks tell, or as the verifier proved.

    quadratic, quadratic_level: the plain quadratic of the Lyapunov equation for the first policy, and how far it holds; None where the
    loop is not stable at the goal. loss (steps,): of the last training run. rounds: training runs. proved: whether a verifier said so.
    Status: SUCCESS; MAX_STEPS where a verifier neither proved nor refuted the last level; FAILED with level 0 where V fails at the goal.
    """

    V: AbstractLyapunov
    policy: Any
    level: float
    volume: float
    error: float
    quadratic: QuadraticLyapunov | None
    quadratic_level: Level | None
    loss: Float[np.ndarray, " T"]
    rounds: int
    proved: bool
    status: Status = eqx.field(static=True)


def learn(
    plant: Any,
    V: AbstractLyapunov,
    low: Any,
    high: Any,
    *,
    policy: Any = None,
    train_policy: bool = True,
    rate: float = 0.0,
    recipe: Recipe | None = None,
    verifier: Verifier | None = None,
    rounds: int = 5,
    key: Array | int = 0,
) -> Learned:
    """Train V, and with it the policy, on the box [low, high] (n,) around V.goal; then find the largest level.

    plant: a map or a flow; with policy None it is autonomous. V and policy: where training starts, as `lqr_start` makes them; V should be
    near 1 at the border of the box. verifier(V, policy, level) -> (proved, states (S, n)), such as `by_certify`, is asked about each
    result: states that refute it are trained on, in at most `rounds` runs; without any, the level is lowered by 5 %.
    Raises InvalidValue for a box without the goal inside or a V that has nothing to train.
    """
    recipe = Recipe() if recipe is None else recipe  # pyright: ignore[reportCallIssue]
    with x64():
        low, high = box_of("learn", low, high, V.goal)
        inside = recipe.inside or isinstance(plant, AbstractFlow)
        keys = jr.split(jr.key(key) if isinstance(key, int) else key, rounds + 1)
        quadratic = _plain(plant, policy, V.goal)
        beside = None if quadratic is None else largest_level(quadratic, _loop(plant, policy), low, high, rate=rate, inside=inside)
    spec = _trainable(V, policy, train_policy)
    found, known, loss, proved, status, done = None, np.zeros((0, V.dim)), np.zeros(0), False, Status.FAILED, 0
    for done in range(1, rounds + 1):
        V, policy, loss = _train(plant, V, policy, spec, low, high, known, rate, recipe, inside, keys[done], done == 1)
        level = largest_level(V, _loop(plant, policy), low, high, rate=rate, inside=inside, key=keys[0])
        found, status = level, Status.SUCCESS if level.level > 0 else Status.FAILED
        if verifier is None or not status.ok:
            break
        proved, states, found = _ask(verifier, V, policy, level)
        if proved:
            break
        known, status = np.concatenate([known, states]), Status.MAX_STEPS
    found = Level(0.0, 0.0, 0.0) if found is None else found  # pyright: ignore[reportCallIssue]
    return Learned(V, policy, found.level, found.volume, found.error, quadratic, beside, loss, done, proved, status)  # pyright: ignore[reportCallIssue]


def _ask(verifier: Verifier, V: AbstractLyapunov, policy: Any, level: Level, tries: int = 4) -> tuple[bool, np.ndarray, Level]:
    """Ask about lower and lower levels until one is proved or refuted."""
    states = np.zeros((0, V.dim))
    for i in range(tries):
        now = level.level * 0.95**i
        proved, states = verifier(V, policy, now)
        states = np.asarray(states, float).reshape(-1, V.dim)
        if proved or len(states):
            return bool(proved), states, Level(now, level.volume, level.error)  # pyright: ignore[reportCallIssue]
    return False, states, level


def _loop(plant: Any, policy: Any) -> Loop:
    return Loop(plant, policy)  # pyright: ignore[reportCallIssue]


def _plain(plant: Any, policy: Any, goal: Array) -> QuadraticLyapunov | None:
    """The quadratic of the Lyapunov equation of the linearised loop, if it is stable."""
    loop = _loop(plant, policy)
    try:
        return QuadraticLyapunov.of_linear(jax.jacfwd(loop.step)(goal), goal, continuous=loop.continuous)
    except InvalidValue:
        return None


def _trainable(V: AbstractLyapunov, policy: Any, train_policy: bool) -> Any:
    """A tree of booleans: which leaves of (V, policy) training may change."""
    if not V.free():
        raise InvalidValue(f"learn: a {type(V).__name__} has nothing to train; take a NeuralLyapunov, or report it by largest_level.")
    spec = jax.tree.map(lambda _: False, (V, policy))
    chosen = [jax.tree.map(lambda _: True, V.free())]
    spec = eqx.tree_at(lambda pair: pair[0].free(), spec, chosen[0])
    if policy is not None and train_policy and policy.free():
        spec = eqx.tree_at(lambda pair: pair[1].free(), spec, jax.tree.map(lambda _: True, policy.free()))
    return spec


def _train(
    plant: Any,
    V: AbstractLyapunov,
    policy: Any,
    spec: Any,
    low: Array,
    high: Array,
    known: np.ndarray,
    rate: float,
    recipe: Recipe,
    inside: bool,
    key: Array,
    first: bool,
) -> tuple[AbstractLyapunov, Any, np.ndarray]:
    """One run in float32; the trained leaves go back into float64, the others stay as they were."""
    with x64():
        single = _as((plant, V, policy, low, high), jnp.float32)
        count = recipe.adversaries
        extra = np.resize(known, (count, V.dim)) if len(known) else np.asarray(scattered(key, count, V.goal, low, high))
        margin = recipe.margin if recipe.margin is not None else 2 * rate or 0.002
        numbers = jnp.asarray([rate, margin, recipe.growth, recipe.learning_rate * (1.0 if first else 0.3)], jnp.float32)
        extra = jnp.asarray(extra, jnp.float32)
        free, _ = eqx.partition(single[1:3], spec)
        carry, losses, keys = (free, _optimizer(recipe).init(free), extra), [], jr.split(key, recipe.steps)
        edges = np.linspace(0, recipe.steps, min(STAGES, recipe.steps) + 1).astype(int)
        for a, b in itertools.pairwise(edges):
            cube = jnp.asarray(enclosing(V, 1.0, low, high), jnp.float32)
            carry, loss = _run(single, spec, extra, cube, carry, jnp.asarray(a), keys[a:b], numbers, recipe, inside)
            V, policy = jax.tree.map(
                lambda new, old: old if new is None else jnp.asarray(new, old.dtype), carry[0], (V, policy), is_leaf=lambda z: z is None
            )
            losses.append(np.asarray(loss, float))
        return V, policy, np.concatenate(losses)


def _optimizer(recipe: Recipe) -> optax.GradientTransformation:
    schedule = optax.cosine_decay_schedule(1.0, recipe.steps, 0.02)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam(), optax.scale_by_schedule(schedule))


@eqx.filter_jit
def _run(
    single: Any, spec: Any, extra: Array, cube: Array, carry: Any, first: Array, keys: Array, numbers: Array, recipe: Recipe, inside: bool
) -> tuple[Any, Array]:
    """Updates from number `first` on, one for each key; carry: what is trained, the state of the optimizer, the adversaries."""
    plant, V, policy, low, high = single
    rate, margin, growth, learning_rate = numbers
    _, fixed = eqx.partition((V, policy), spec)
    optimizer = _optimizer(recipe)
    half = len(extra) // 2  # of the adversaries start again at counterexamples, the others at random states

    def update(carry: Any, now: tuple[Array, Array]) -> tuple[Any, Array]:
        free, state, adversaries = carry
        i, key = now
        drawn, which, faces, again = jr.split(key, 4)
        x = scattered(drawn, recipe.batch, V.goal, low, high, cube, 1e-3)
        new = jnp.concatenate([extra[jr.randint(again, (half,), 0, len(extra))], jnp.resize(x, (len(extra) - half, x.shape[1]))])
        adversaries = jnp.where(jr.bernoulli(which, 0.05, (len(extra),))[:, None], new, adversaries)
        now_V, now_policy = eqx.combine(free, fixed)
        loop, level = _loop(plant, now_policy), jnp.asarray(1.05, low.dtype)

        def score(y: Array) -> Array:
            return badness(now_V, loop, y, low, high, level, rate)

        adversaries = jax.vmap(lambda y: climb(score, y, now_V, low, high, level, jnp.asarray(0.05, low.dtype)))(adversaries)
        border = on_faces(faces, recipe.batch // 4, low, high) if inside else None
        share = growth * jnp.minimum(1.0, 2.0 - 2.0 * i / recipe.steps)  # at the end the decrease alone counts
        numbers = rate, margin, share
        loss, slope = jax.value_and_grad(_loss)(free, fixed, plant, x, adversaries, border, low, high, numbers)
        change, state = optimizer.update(slope, state)
        free = eqx.apply_updates(free, jax.tree.map(lambda d: -learning_rate * d, change))
        return (free, state, adversaries), loss

    return jax.lax.scan(update, carry, (first + jnp.arange(len(keys)), keys))


def _loss(free: Any, fixed: Any, plant: Any, x: Array, adversaries: Array, border: Any, low: Array, high: Array, numbers: Any) -> Array:
    V, policy = eqx.combine(free, fixed)
    return loss_of(V, _loop(plant, policy), x, adversaries, border, low, high, numbers)


def loss_of(V: AbstractLyapunov, loop: Loop, x: Array, adversaries: Array, border: Any, low: Array, high: Array, numbers: Any) -> Array:
    """The loss of the module's head; numbers: rate, margin, growth. x: as `scattered` draws them; border: states on faces to keep off."""
    rate, margin, growth = numbers
    F, value, after = jax.vmap(lambda y: increase(V, loop, y, rate))(jnp.concatenate([x, adversaries]))
    broken = jax.nn.relu(F + margin) / margin
    if not loop.continuous:
        broken = broken + 50 * jax.nn.relu(jax.vmap(lambda y: outside(y, low, high))(after) + 0.01)
    broken = jnp.minimum(broken, 50 + 0.01 * broken)
    loss = jnp.mean(jnp.clip(SLACK - value, 0.0, 1.0) * broken)
    if border is not None:
        loss = loss + 10 * jnp.mean(jax.nn.relu(SLACK - jax.vmap(V.value)(border)))
    everywhere = value[: len(x) : 2]  # those of x that are uniform in the box
    return loss + growth * jnp.mean(jax.nn.relu(jnp.log(jnp.maximum(everywhere, 1e-9)) + 0.05))


def _as(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype) if eqx.is_inexact_array(leaf) else leaf, tree)

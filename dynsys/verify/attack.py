"""Search for states at which a candidate fails: projected gradient ascent from many starts at once, in one compiled program.

    map     F(x) = V(step(x)) / V(x) - (1 - rate),       flow    F(x) = (grad V . field)(x) / V(x) + rate
    a counterexample: x in the box, V(x) <= level, and F(x) > 0, or (map) step(x) outside the box

F does not change with the scale of V, so that states near the goal count as much as states far from it. A state that is not found proves
nothing; a state that is found is evaluated again, in double precision, and is real.
Source: Madry et al., ICLR 2018 (projected gradient); Yang et al., ICML 2024, sec. 3.3 (for candidates).
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from dynsys.dynamics import AbstractFlow
from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys.verify.frames import enclosing
from dynsys.verify.lyapunov import AbstractLyapunov

Vector = Callable[[Array], Array]


class Attack(eqx.Module):
    """States (S, n) where the candidate failed, worst first, and by how much, F (S,); none if S = 0. tried: how many were evaluated."""

    states: Float[Array, "S n"]
    violation: Float[Array, " S"]
    tried: int

    @property
    def found(self) -> bool:
        """Whether there is a counterexample."""
        return len(self.violation) > 0


class Loop(eqx.Module):
    """What the search needs of a closed loop: where a state goes, as a map or as a flow."""

    plant: Any
    policy: Any

    @property
    def continuous(self) -> bool:
        """Whether the plant is a flow."""
        return isinstance(self.plant, AbstractFlow)

    def step(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """The next state of a map, or the velocity of a flow, (n,) -> (n,)."""
        u = None if self.policy is None else self.policy(x)
        return self.plant.field(0.0, x, u) if self.continuous else self.plant.step(x, u)


def increase(V: AbstractLyapunov, loop: Any, x: Float[Array, " n"], rate: Any) -> tuple[Array, Array, Array]:
    """F(x), V(x), and the next state of a map (a flow: x itself)."""
    if loop.continuous:
        value, slope = jax.jvp(V.value, (x,), (loop.step(x),))
        return slope / _positive(value) + rate, value, x
    after = loop.step(x)
    value = V.value(x)
    return V.value(after) / _positive(value) - (1 - rate), value, after


def outside(x: Float[Array, " n"], low: Float[Array, " n"], high: Float[Array, " n"]) -> Float[Array, ""]:
    """By how much x leaves a box, in half-widths; negative inside."""
    return jnp.max(jnp.maximum(low - x, x - high) / ((high - low) / 2))


def attack(
    V: AbstractLyapunov,
    loop: Any,
    low: Any,
    high: Any,
    level: float,
    *,
    rate: float = 0.0,
    starts: int = 4096,
    steps: int = 50,
    key: Array | int = 0,
) -> Attack:
    """Counterexamples in {V <= level} inside the box [low, high] (n,), by `steps` ascents from `starts` random states; in float64.

    loop: a `Loop`, or a `ClosedLoop` (at the middle of its disturbances). rate: of decrease, a step of a map or a unit of time of a flow.
    Half of the starts lie uniformly in the box, the others in the cube that encloses the set, of these half at distances from the goal that
    are uniform on a logarithmic scale down to 1e-6 of it.
    Raises InvalidValue for a box that is empty or does not hold the goal, or counts below 1.
    """
    with x64():
        low, high = box_of("attack", low, high, V.goal)
        if min(starts, steps) < 1:
            raise InvalidValue(f"attack: starts and steps must be at least 1, got {starts} and {steps}.")
        key = jr.key(key) if isinstance(key, int) else key
        cube = enclosing(V, level, low, high)
        x, F = _search(V, loop, low, high, cube, jnp.asarray(level, float), jnp.asarray(rate, float), key, starts, steps)
        order = jnp.argsort(-F)
        count = int(jnp.sum(F > 0))
        return Attack(x[order[:count]], F[order[:count]], starts * (steps + 1))  # pyright: ignore[reportCallIssue]


@eqx.filter_jit
def _search(
    V: AbstractLyapunov, loop: Any, low: Array, high: Array, cube: Array, level: Array, rate: Array, key: Array, starts: int, steps: int
) -> tuple[Array, Array]:
    def score(x: Array) -> Array:
        return badness(V, loop, x, low, high, level, rate)

    def ascend(carry: tuple[Array, Array, Array], i: Array) -> tuple[tuple[Array, Array, Array], None]:
        x, best, worst = carry
        x = jax.vmap(lambda y: climb(score, y, V, low, high, level, 0.1 * 0.85**i))(x)
        F = jax.vmap(lambda y: real(V, loop, y, low, high, level, rate))(x)
        better = worst < F
        return (x, jnp.where(better[:, None], x, best), jnp.where(better, F, worst)), None

    x = scattered(key, starts, V.goal, low, high, cube)
    x = jax.vmap(lambda y: inward(V, y, level))(x)
    F = jax.vmap(lambda y: real(V, loop, y, low, high, level, rate))(x)
    (_, best, worst), _ = jax.lax.scan(ascend, (x, x, F), jnp.arange(steps) % 25)
    return best, worst


def badness(V: AbstractLyapunov, loop: Any, x: Array, low: Array, high: Array, level: Array, rate: Array) -> Array:
    """What the ascent climbs: the larger of F and of what a map's next state leaves the box by."""
    F, _, after = increase(V, loop, x, rate)
    return F if loop.continuous else jnp.maximum(F, outside(after, low, high))


def real(V: AbstractLyapunov, loop: Any, x: Array, low: Array, high: Array, level: Array, rate: Array) -> Array:
    """badness of a counterexample; -inf for a state that is none because it lies outside the set or is the goal."""
    inside = (V.value(x) <= level) & (outside(x, low, high) <= 0) & jnp.any(x != V.goal)
    bad = badness(V, loop, x, low, high, level, rate)
    return jnp.where(inside, jnp.where(jnp.isnan(bad), jnp.inf, bad), -jnp.inf)


def climb(score: Vector, x: Array, V: AbstractLyapunov, low: Array, high: Array, level: Array, size: Array) -> Array:
    """One projected step along the sign of the gradient, `size` times the distance to the goal, back into the set."""
    slope = jnp.nan_to_num(jax.grad(score)(x))
    reach = jnp.max(jnp.abs(x - V.goal) / (high - low))
    x = jnp.clip(x + size * reach * (high - low) * jnp.sign(slope), low, high)
    return inward(V, x, level)


def inward(V: AbstractLyapunov, x: Array, level: Array, halvings: int = 12) -> Array:
    """x, or where V(x) > level the last state on the way to the goal that a bisection finds inside."""

    def half(bounds: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        near, far = bounds
        middle = (near + far) / 2
        fits = V.value(V.goal + middle * (x - V.goal)) <= level
        return (jnp.where(fits, middle, near), jnp.where(fits, far, middle)), None

    (near, _), _ = jax.lax.scan(half, (jnp.zeros_like(level), jnp.ones_like(level)), None, length=halvings)
    return jnp.where(V.value(x) <= level, x, V.goal + near * (x - V.goal))


def scattered(
    key: Array, count: int, goal: Array, low: Array, high: Array, cube: Array | None = None, smallest: float = 1e-6
) -> Float[Array, "count n"]:
    """States (count, n): the even ones uniform in the box, the others in goal + cube [-1, 1]^n, without one in the box too.

    Of the latter every second is drawn towards the goal by a factor between `smallest` and 1. What leaves the box stays at its border.
    """
    where, how, which = jr.split(key, 3)
    x = jr.uniform(where, (count, len(goal)), low.dtype, minval=low[None, :], maxval=high[None, :])
    inner = x if cube is None else goal[None, :] + jr.uniform(which, x.shape, low.dtype, minval=-1.0, maxval=1.0) @ cube.T
    number = jnp.arange(count)
    factor = jnp.exp(jr.uniform(how, (count,), low.dtype, minval=jnp.log(smallest), maxval=0.0))
    factor = jnp.where(number % 4 == 3, factor, 1.0)
    x = jnp.where((number % 2 == 0)[:, None], x, jnp.clip(inner, low[None, :], high[None, :]))
    return goal[None, :] + factor[:, None] * (x - goal[None, :])


def box_of(who: str, low: Any, high: Any, goal: Array) -> tuple[Array, Array]:
    """A box as two arrays (n,). Raises InvalidValue unless it is finite and holds the goal inside."""
    low, high = (jnp.broadcast_to(jnp.asarray(side, float), goal.shape) for side in (low, high))
    if not bool(jnp.all(jnp.isfinite(low) & jnp.isfinite(high) & (low < goal) & (goal < high))):
        raise InvalidValue(f"{who}: the box must be finite and hold the goal {goal.tolist()}, got {low.tolist()} to {high.tolist()}.")
    return low, high


def _positive(value: Array) -> Array:
    return jnp.where(value > 0, value, 1.0)

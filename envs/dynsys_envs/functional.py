"""Environments as pure functions: what is controlled, what the agent sees, what is rewarded, when it is over.

    after = dynamics.step(state, u),    observation = observe(state),    reward(state, u, after),    terminal(after)

A state (M,) is everything: it holds no hidden clock and no hidden noise, so an environment can be planned from any state without copying
anything. Everything is unbatched, differentiable JAX: `jax.vmap` is the batch. `dynamics` observes the whole state, which is what `cost()`
is written in; what the agent sees is `observe`. Limits and weights are tuples, so that they are part of the program; the parameters are
the leaves of `dynamics`.
"""

import abc
import functools
import operator
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float

from dynsys.control.cost import AbstractCost, Quadratic
from dynsys.control.task import Bordered, Seen, Task
from dynsys.dynamics import AbstractMap
from dynsys.errors import InvalidValue
from dynsys.precision import x64

Numbers = tuple[float, ...]
UNROLLED = 12  # states up to this size are treated component by component


class AbstractEnvironment(eqx.Module):
    """A control task. Inputs are K numbers between `low` and `high`; an episode is cut off after `max_steps` steps of length `dt`.

    observation_low, observation_high (N,): between which every observation lies, infinite where nothing is known. goal (M,): the state to
    be reached. angles: which components of the state are angles. n_random: how many random numbers make a first state.
    scene: draws it (see `dynsys_envs.scenes`).
    """

    dynamics: eqx.AbstractVar[AbstractMap]
    low: eqx.AbstractVar[Numbers]
    high: eqx.AbstractVar[Numbers]
    observation_low: eqx.AbstractVar[Numbers]
    observation_high: eqx.AbstractVar[Numbers]
    goal: eqx.AbstractVar[Numbers]
    angles: eqx.AbstractVar[tuple[int, ...]]
    max_steps: eqx.AbstractVar[int]
    dt: eqx.AbstractVar[float]
    n_random: eqx.AbstractVar[int]
    scene: eqx.AbstractVar[Callable[..., Any]]

    @abc.abstractmethod
    def place(self, numbers: Float[Array, " R"]) -> Float[Array, " M"]:
        """The first state of an episode that `n_random` uniform numbers in [0, 1) stand for."""

    @abc.abstractmethod
    def observe(self, state: Float[Array, " M"]) -> Float[Array, " N"]:
        """What the agent sees of a state."""

    @abc.abstractmethod
    def reward(self, state: Float[Array, " M"], u: Float[Array, " K"], after: Float[Array, " M"]) -> Float[Array, ""]:
        """What a step from `state` to `after` under the input u is worth."""

    @abc.abstractmethod
    def terminal(self, after: Float[Array, " M"]) -> Bool[Array, ""]:
        """Whether an episode is over at this state, whatever the time."""

    @abc.abstractmethod
    def cost(self) -> AbstractCost:
        """What a planner should minimise, in terms of states."""

    def initial(self, key: Array) -> Float[Array, " M"]:
        """A random first state."""
        return self.place(jr.uniform(key, (self.n_random,)))

    def step(
        self, state: Float[Array, " M"], u: Float[Array, " K"]
    ) -> tuple[Float[Array, " M"], Float[Array, " N"], Float[Array, ""], Bool[Array, ""]]:
        """(the state after, its observation, the reward, whether it is terminal) of one step; u is clipped to its limits first."""
        u = jnp.clip(u, jnp.asarray(self.low, state.dtype), jnp.asarray(self.high, state.dtype))
        after = self.dynamics.step(state, u)
        return after, self.observe(after), self.reward(state, u, after), self.terminal(after)


class Regulation(AbstractEnvironment):
    """Bring a map to a goal and keep it there: reward = -c(state, u), c = (state - goal)'Q(state - goal) + (u - rest)'R(u - rest).

    Q (M,) and R (K,) are diagonal; components in `angles` are compared around the circle. A state further than `box` (M,) from the goal
    is terminal, and reaching one costs max_steps c besides, so that no return is raised by giving up. First states lie uniformly within
    `spread` (M,) of `start` (M,), or, with `modes` (R, M), are start + sum_r (2 v_r - 1) modes_r.
    The agent sees the state, with (cos, sin) in place of each angle and without the components in `hidden`.
    """

    dynamics: AbstractMap
    goal: Numbers = eqx.field(static=True)
    rest: Numbers = eqx.field(static=True)
    low: Numbers = eqx.field(static=True)
    high: Numbers = eqx.field(static=True)
    Q: Numbers = eqx.field(static=True)
    R: Numbers = eqx.field(static=True)
    start: Numbers = eqx.field(static=True)
    spread: Numbers = eqx.field(static=True)
    box: Numbers = eqx.field(static=True)
    scene: Callable[..., Any] = eqx.field(static=True)
    dt: float = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)
    angles: tuple[int, ...] = eqx.field(static=True, default=())
    hidden: tuple[int, ...] = eqx.field(static=True, default=())
    bounds: Numbers = eqx.field(static=True, default=())  # (M,): what |state| never passes; empty: nothing is known
    modes: tuple[Numbers, ...] = eqx.field(static=True, default=())

    def __check_init__(self):
        M, K = self.dynamics.dim, self.dynamics.n_inputs
        for name in ("goal", "Q", "start", "spread", "box"):
            _length(name, getattr(self, name), M)
        for name in ("rest", "low", "high", "R"):
            _length(name, getattr(self, name), K)
        if self.bounds:
            _length("bounds", self.bounds, M)
        for mode in self.modes:
            _length("modes", mode, M)
        if not all(a < b for a, b in zip(self.low, self.high, strict=True)):
            raise InvalidValue(f"Regulation: low must be below high, got low={self.low}, high={self.high}.")
        if self.max_steps < 1 or not self.dt > 0:
            raise InvalidValue(f"Regulation: needs max_steps >= 1 and dt > 0, got max_steps={self.max_steps}, dt={self.dt}.")

    @property
    def n_random(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """R, one a mode, or one a component."""
        return len(self.modes) or len(self.start)

    @property
    def observation_high(self) -> Numbers:  # pyright: ignore[reportIncompatibleVariableOverride]
        """1 for cosines and sines, else `bounds`, (N,)."""
        found: list[float] = []
        for i in range(len(self.goal)):
            if i in self.hidden:
                continue
            found += [1.0, 1.0] if i in self.angles else [self.bounds[i] if self.bounds else np.inf]
        return tuple(found)

    @property
    def observation_low(self) -> Numbers:  # pyright: ignore[reportIncompatibleVariableOverride]
        """-observation_high."""
        return tuple(-value for value in self.observation_high)

    def place(self, numbers: Float[Array, " R"]) -> Float[Array, " M"]:
        """Uniform about `start`."""
        if self.modes:
            return jnp.asarray(self.start, numbers.dtype) + (2 * numbers - 1) @ jnp.asarray(self.modes, numbers.dtype)
        return jnp.stack(
            [middle + wide * (2 * numbers[i] - 1) for i, (middle, wide) in enumerate(zip(self.start, self.spread, strict=True))]
        )

    def observe(self, state: Float[Array, " M"]) -> Float[Array, " N"]:
        """The state without what is hidden, angles as (cos, sin)."""
        if not self.angles and not self.hidden:
            return state
        parts: list[Array] = []
        for i in range(len(self.goal)):
            if i not in self.hidden:
                parts += [jnp.cos(state[i]), jnp.sin(state[i])] if i in self.angles else [state[i]]
        return jnp.stack(parts)

    def off(self, state: Float[Array, " M"]) -> Float[Array, " M"]:
        """How far a state is from the goal, angles in [-pi, pi)."""
        if self.angles:
            return jnp.stack(self._off(state))
        return state - jnp.asarray(self.goal, state.dtype)

    def _off(self, state: Array) -> list[Array]:
        """The components of `off` one by one: over a batch each is one contiguous row, many times faster than a matrix with short rows."""
        return [self._apart(state[i], i) for i in range(len(self.goal))]

    def _apart(self, value: Array, i: int) -> Array:
        apart = value - self.goal[i]
        if i not in self.angles:
            return apart
        return apart - 2 * np.pi * jnp.floor((apart + np.pi) / (2 * np.pi))  # several times faster than a remainder

    def _c(self, state: Array, u: Array) -> Array:
        if len(self.goal) > UNROLLED:
            off, push = self.off(state), u - jnp.asarray(self.rest, u.dtype)
            return jnp.sum(jnp.asarray(self.Q, off.dtype) * off**2) + jnp.sum(jnp.asarray(self.R, u.dtype) * push**2)
        weighted = [q * off**2 for q, off in zip(self.Q, self._off(state), strict=True) if q]
        weighted += [r * (u[k] - self.rest[k]) ** 2 for k, r in enumerate(self.R)]
        return functools.reduce(operator.add, weighted)

    def reward(self, state: Float[Array, " M"], u: Float[Array, " K"], after: Float[Array, " M"]) -> Float[Array, ""]:
        """-c(state, u), and -max_steps c(after, u) besides if `after` is terminal."""
        now = -self._c(state, u)
        if not np.isfinite(self.box).any():
            return now
        return now - jnp.where(self.terminal(after), self.max_steps * self._c(after, u), 0.0)

    def terminal(self, after: Float[Array, " M"]) -> Bool[Array, ""]:
        """Whether a component has left the box, or is no number."""
        if len(self.goal) > UNROLLED:
            return ~jnp.all(jnp.abs(self.off(after)) <= jnp.asarray(self.box, after.dtype))
        over = jnp.zeros((), bool)
        for i, edge in enumerate(self.box):
            if np.isfinite(edge):
                over = over | ~(jnp.abs(self._apart(after[i], i)) <= edge)
        return over

    def cost(self) -> AbstractCost:
        """c, with the last state weighted like any other."""
        return Quadratic.of(list(self.Q), list(self.R), goal=list(self.goal), rest=list(self.rest), angles=self.angles)


def known_task(environment: AbstractEnvironment) -> Task:
    """What is known of a task: the cost of observations and which of them are angles; nothing where a part of the state is hidden."""
    if not isinstance(environment, Regulation) or environment.hidden:
        return Task()
    with x64():  # or the weights are rounded to float32
        cost: AbstractCost = environment.cost()
        goal, box = np.asarray(environment.goal), np.asarray(environment.box)
        if np.isfinite(box).any():
            cost = Bordered.of(cost, goal - box, goal + box, weight=float(environment.max_steps))
    if not environment.angles:
        return Task(cost)
    firsts = [i + sum(j < i for j in environment.angles) for i in environment.angles]
    return Task(Seen(cost, environment.angles), ";".join(f"{i},{i + 1}" for i in firsts))  # pyright: ignore[reportCallIssue]


def in_precision(environment: AbstractEnvironment, dtype: Any) -> AbstractEnvironment:
    """The environment with the arrays among its parameters in float32 or float64 (and complex64 or complex128)."""
    dtype = np.dtype(dtype)
    pair = {"f": dtype, "c": np.result_type(dtype, np.complex64)}

    def cast(leaf: Any) -> Any:
        return jnp.asarray(leaf, pair[leaf.dtype.kind]) if eqx.is_array(leaf) and leaf.dtype.kind in pair else leaf

    return jax.tree.map(cast, environment)


def numbers(*values: Any) -> Numbers:
    """A tuple of floats."""
    return tuple(float(value) for value in values)


def _length(name: str, value: Numbers, wanted: int) -> None:
    if len(value) != wanted or np.isnan(value).any():
        raise InvalidValue(f"Regulation: {name} must hold {wanted} numbers, got {value}.")

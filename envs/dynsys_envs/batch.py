"""Many environments in one compiled step, as a pure function: what `VectorEnvironment` does, for programs that stay in JAX.

    fleet = begin(environment, 16_384, seed=0);    fleet, outcome = advance(environment, fleet, actions)

The state is stored with the batch last, (M, B), so that every operation runs along contiguous memory. First states are hashed from
(seed, environment, episode), so no generator has to be run for the whole batch where a few episodes end.
When an episode ends, its next state is a first one: in the same step (`SAME`; the outcome holds the last state and its observation
besides), in the next one (`NEXT`; that step ignores its action and gives no reward), or never (`OFF`).
"""

import enum

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from dynsys_envs.functional import AbstractEnvironment
from dynsys_envs.hashing import hashed_uniform


class Reset(enum.Enum):
    """When an episode that has ended is followed by the next."""

    SAME = "same"
    NEXT = "next"
    OFF = "off"


class Fleet(eqx.Module):
    """B environments: their states, how many steps and episodes each has behind it, and whether its episode has ended."""

    states: Float[Array, "M B"]
    steps: Int[Array, " B"]
    episodes: UInt32[Array, " B"]
    ended: Bool[Array, " B"]
    seed: UInt32[Array, ""]


class Outcome(eqx.Module):
    """What a step led to. last_states, last_observations: before a reset in the same step; else the same as the present ones."""

    observations: Float[Array, "B N"]
    rewards: Float[Array, " B"]
    terminated: Bool[Array, " B"]
    truncated: Bool[Array, " B"]
    last_states: Float[Array, "M B"]
    last_observations: Float[Array, "B N"]


def begin(environment: AbstractEnvironment, count: int, seed: int | UInt32[Array, ""] = 0) -> Fleet:
    """`count` environments at first states, float32; the same seed gives the same states."""
    seed, episodes = jnp.asarray(seed, jnp.uint32), jnp.zeros(count, jnp.uint32)
    states = first_states(environment, seed, episodes)
    return Fleet(states, jnp.zeros(count, jnp.int32), episodes, jnp.zeros(count, bool), seed)


def first_states(environment: AbstractEnvironment, seed: UInt32[Array, ""], episodes: UInt32[Array, " B"]) -> Float[Array, "M B"]:
    """The first state of a given episode of each environment."""
    lanes = jnp.arange(len(episodes), dtype=jnp.uint32)
    drawn = hashed_uniform(seed, lanes, episodes, environment.n_random)
    return jax.vmap(environment.place, in_axes=1, out_axes=1)(drawn)


def observations(environment: AbstractEnvironment, states: Float[Array, "M B"]) -> Float[Array, "B N"]:
    """What is seen of states."""
    return jax.vmap(environment.observe, in_axes=1, out_axes=1)(states).T


def advance(
    environment: AbstractEnvironment,
    fleet: Fleet,
    actions: Float[Array, "B K"],
    *,
    max_steps: int | None = None,
    reset: Reset = Reset.SAME,
) -> tuple[Fleet, Outcome]:
    """One step of all environments, to be called inside a compiled program; actions are clipped. max_steps: default the task's."""
    limit = environment.max_steps if max_steps is None else max_steps
    low, high = (jnp.asarray(limit, actions.dtype)[None] for limit in (environment.low, environment.high))
    u = jnp.clip(actions, low, high)
    after = jax.vmap(environment.dynamics.step, in_axes=(1, 0), out_axes=1)(fleet.states, u)
    steps = fleet.steps + 1
    after = _settled(after, steps[0] > 0)
    rewards = jax.vmap(environment.reward, in_axes=(1, 0, 1))(fleet.states, u, after)
    over = jax.vmap(environment.terminal, in_axes=1)(after)
    late = steps >= limit if limit > 0 else jnp.zeros_like(over)
    ended = over | late
    if reset is Reset.OFF:
        seen = observations(environment, after)
        return Fleet(after, steps, fleet.episodes, ended, fleet.seed), Outcome(seen, rewards, over, late, after, seen)
    fresh = ended if reset is Reset.SAME else fleet.ended
    episodes = fleet.episodes + fresh.astype(jnp.uint32)
    states = _settled(jnp.where(fresh[None], first_states(environment, fleet.seed, episodes), after), steps[0] > 0)
    now = _settled(jax.vmap(environment.observe, in_axes=1, out_axes=1)(states), steps[0] >= 0).T
    steps = jnp.where(fresh, 0, steps)
    if reset is Reset.NEXT:
        quiet = jnp.zeros((), rewards.dtype)
        rewards, over, late, ended = jnp.where(fresh, quiet, rewards), over & ~fresh, late & ~fresh, ended & ~fresh
        return Fleet(states, steps, episodes, ended, fleet.seed), Outcome(now, rewards, over, late, states, now)
    return Fleet(states, steps, episodes, jnp.zeros_like(ended), fleet.seed), Outcome(
        now, rewards, over, late, after, observations(environment, after)
    )


def _settled(x: Float[Array, "M B"], always: Bool[Array, ""]) -> Float[Array, "M B"]:
    """The same. A branch that is always taken, unknown to the compiler, keeps it from computing x anew, slowly, wherever x is used."""
    return jax.lax.cond(always, lambda x: x, jnp.zeros_like, x)


def restarted(environment: AbstractEnvironment, fleet: Fleet, which: Bool[Array, " B"] | np.ndarray, seed: UInt32[Array, ""]) -> Fleet:
    """The fleet with the environments of a mask at first states of a new seed."""
    which = jnp.asarray(which)
    episodes = fleet.episodes + which.astype(jnp.uint32)
    states = jnp.where(which[None], first_states(environment, seed, episodes), fleet.states)
    return Fleet(states, jnp.where(which, 0, fleet.steps), episodes, fleet.ended & ~which, seed)

"""One stateful adapter: any pure environment as a `gymnasium.Env`, computed in float64, observations in float32.

    env = Environment("Pendulum", g=9.81)        or Environment(a pure environment), or gymnasium.make("dynsys/Pendulum-v0", g=9.81)

`terminated` is what the task says of the state, `truncated` only that the time is up; both may be true at once. An episode can be begun
at any state: `env.reset(options={"state": z})` or `env.set_state(z)`; `info["state"]` and `env.state` hold all there is of it.
"""

import functools
from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from dynsys.control.task import Task
from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys_envs.functional import AbstractEnvironment, in_precision, known_task
from dynsys_envs.registry import task as make_task

KEPT = 64  # compiled programs


class Environment(gymnasium.Env[np.ndarray, np.ndarray]):
    """A pure environment, or the name of a task with its parameters, as gymnasium knows it.

    max_steps: after how many steps an episode is truncated; default the task's own; 0 for no limit. Actions beyond the limits are clipped.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012  (as gymnasium declares it)

    def __init__(self, task: str | AbstractEnvironment, *, render_mode: str | None = None, max_steps: int | None = None, **parameters: Any):
        pure = pure_environment("Environment", task, parameters)
        if render_mode not in (None, "rgb_array"):
            raise InvalidValue(f"Environment: render_mode must be None or 'rgb_array', got {render_mode!r}.")
        if max_steps is not None and max_steps < 0:
            raise InvalidValue(f"Environment: max_steps must be at least 0 (no limit), got {max_steps}.")
        with x64():
            self.task = in_precision(pure, np.float64)
        self.render_mode = render_mode
        self.max_steps = pure.max_steps if max_steps is None else max_steps
        self.observation_space, self.action_space = spaces_of(pure)
        self.metadata = {**type(self).metadata, "render_fps": frames_per_second(pure)}
        self._place, self._step, self._observe = _programs(self.task)
        self._state: np.ndarray | None = None
        self._steps = 0
        self._history: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        self._renderer: Any = None

    @property
    def state(self) -> np.ndarray:
        """The whole state (M,), float64, a copy."""
        return self._known().copy()

    def set_state(self, state: Any, *, steps: int = 0) -> None:
        """Go on from a state (M,), as if `steps` steps of the episode had passed. Raises InvalidValue unless it is finite and (M,)."""
        found = np.asarray(state, np.float64)
        M = self.task.dynamics.dim
        if found.shape != (M,) or not np.isfinite(found).all():
            raise InvalidValue(f"Environment: a state must be {M} finite numbers, got {state!r}.")
        self._state, self._steps = found.copy(), steps
        self._history = ([self._state], [np.zeros(len(self.task.low))])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """(observation (N,), info); options {"state": z} begins there and not at a random state."""
        super().reset(seed=seed)
        given = None if options is None else options.get("state")
        if given is None:
            with x64():
                given = np.asarray(self._place(self.np_random.random(self.task.n_random)))
        self.set_state(given)
        with x64():
            seen = np.array(self._observe(self._state), np.float32)
        return seen, {"state": self.state}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """(observation, reward, terminated, truncated, info). Raises InvalidValue for an action of another shape or with NaN."""
        state, u = self._known(), checked_action("Environment", action, (len(self.task.low),))
        with x64():
            after, seen, reward, over = self._step(state, u)
            after, seen = np.array(after), np.array(seen, np.float32)
        self._state, self._steps = after, self._steps + 1
        if self.render_mode is not None:
            self._history[0].append(after)
            self._history[1].append(np.clip(u, self.task.low, self.task.high))
        late = self.max_steps > 0 and self._steps >= self.max_steps
        return seen, float(reward), bool(over), late, {"state": after.copy()}

    def known_task(self) -> Task:
        """The cost of what the agent sees, for planners on a learned model; unknown where a part of the state is hidden."""
        return known_task(self.task)

    def render(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The present frame (400, 400, 3), uint8; None, with a warning, without render_mode="rgb_array"."""
        if self.render_mode is None:
            gymnasium.logger.warn("render was called without a render mode; make the environment with render_mode='rgb_array'.")
            return None
        self._known()
        if self._renderer is None:
            from dynsys_envs.render import Renderer

            self._renderer = Renderer(self.task)
        return self._renderer.frame(np.stack(self._history[0]), np.stack(self._history[1]))

    def close(self) -> None:
        """Let the figure go."""
        self._renderer = None

    def _known(self) -> np.ndarray:
        if self._state is None:
            raise InvalidValue("Environment: there is no state yet. Call reset() first.")
        return self._state


class Registered(Environment):
    """What gymnasium.make makes: its wrapper TimeLimit counts the steps, to which max_episode_steps is given."""

    def __init__(self, task: str | AbstractEnvironment, *, render_mode: str | None = None, **parameters: Any):
        if "max_steps" in parameters:
            raise InvalidValue("gymnasium.make counts the steps of every environment itself: pass max_episode_steps=..., not max_steps.")
        super().__init__(task, render_mode=render_mode, max_steps=0, **parameters)


def pure_environment(who: str, task: str | AbstractEnvironment, parameters: dict[str, Any]) -> AbstractEnvironment:
    """The environment itself, or the task of that name; InvalidValue for parameters beside an environment that is made already."""
    if isinstance(task, str):
        return make_task(task, **parameters)
    if not isinstance(task, AbstractEnvironment):
        raise InvalidValue(f"{who}: wants the name of a task or an AbstractEnvironment, got {type(task).__name__}.")
    if parameters:
        raise InvalidValue(f"{who}: parameters ({', '.join(parameters)}) go with the name of a task; this environment is made already.")
    return task


def spaces_of(pure: AbstractEnvironment) -> tuple[spaces.Box, spaces.Box]:
    """The spaces of observations and of actions."""
    seen = spaces.Box(np.asarray(pure.observation_low, np.float32), np.asarray(pure.observation_high, np.float32), dtype=np.float32)
    return seen, spaces.Box(np.asarray(pure.low, np.float32), np.asarray(pure.high, np.float32), dtype=np.float32)


def frames_per_second(pure: AbstractEnvironment) -> int:
    """So many that a recording runs as fast as the task, where dt is in seconds; between 1 and 50."""
    return int(np.clip(round(1 / pure.dt), 1, 50))


def checked_action(who: str, action: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The action as float64; InvalidValue for another shape, or NaN."""
    try:
        u = np.asarray(action, np.float64)
    except (TypeError, ValueError):
        raise InvalidValue(f"{who}: an action must be numbers of shape {shape}, got {action!r}.") from None
    if u.shape != shape:
        raise InvalidValue(f"{who}: an action must have shape {shape}, got {u.shape}.")
    if np.isnan(u).any():
        raise InvalidValue(f"{who}: the action holds NaN: {u}. The controller that made it has failed.")
    return u


def _programs(pure: AbstractEnvironment) -> tuple[Callable[..., Any], ...]:
    """The compiled place, step and observe of an environment; shared by all that are equal."""
    leaves, form = jax.tree.flatten(pure)
    values = tuple((leaf.shape, str(leaf.dtype), leaf.tobytes()) if hasattr(leaf, "tobytes") else leaf for leaf in map(_plain, leaves))
    return _compiled(_Equal((form, values), pure))


def _plain(leaf: Any) -> Any:
    return np.asarray(leaf) if isinstance(leaf, jax.Array | np.ndarray) else leaf


class _Equal:
    """An environment that is equal to another one with the same key."""

    def __init__(self, key: Any, pure: AbstractEnvironment):
        self.key, self.pure = key, pure

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Equal) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@functools.lru_cache(maxsize=KEPT)
def _compiled(equal: _Equal) -> tuple[Callable[..., Any], ...]:
    pure = equal.pure

    def step(state: Any, u: Any) -> Any:
        return pure.step(jnp.asarray(state), jnp.asarray(u))

    return jax.jit(lambda numbers: pure.place(numbers)), jax.jit(step), jax.jit(lambda state: pure.observe(state))

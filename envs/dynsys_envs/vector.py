"""Thousands of environments as one `gymnasium.vector.VectorEnv`: one compiled step for all, in float32.

    envs = gymnasium.make_vec("dynsys/Pendulum-v0", num_envs=16_384)
    envs = VectorEnvironment(a pure environment, num_envs=1000, autoreset_mode="SameStep")

The work is done by `dynsys_envs.batch`; this adapter checks actions and turns arrays into NumPy's. `envs.states` holds the whole states.
"""

from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys_envs.batch import Fleet, Outcome, Reset, advance, begin, observations, restarted
from dynsys_envs.functional import AbstractEnvironment, in_precision
from dynsys_envs.gym import checked_action, frames_per_second, pure_environment, spaces_of

MODES = {AutoresetMode.NEXT_STEP: Reset.NEXT, AutoresetMode.SAME_STEP: Reset.SAME, AutoresetMode.DISABLED: Reset.OFF}


class VectorEnvironment(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """`num_envs` copies of a pure environment, or of a task by its name with its parameters.

    max_episode_steps: default the task's; 0 for no limit. autoreset_mode: 'NextStep' (gymnasium's default), 'SameStep', whose infos hold
    final_obs and final_info, or 'Disabled', which wants reset(options={"reset_mask": mask}) for what has ended.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30, "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        task: str | AbstractEnvironment,
        num_envs: int = 1,
        *,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        **parameters: Any,
    ):
        if num_envs < 1:
            raise InvalidValue(f"VectorEnvironment: num_envs must be at least 1, got {num_envs}.")
        if render_mode not in (None, "rgb_array"):
            raise InvalidValue(f"VectorEnvironment: render_mode must be None or 'rgb_array', got {render_mode!r}.")
        if "max_steps" in parameters and max_episode_steps is not None:
            raise InvalidValue("VectorEnvironment: pass max_episode_steps=..., not max_steps besides; gymnasium.make_vec gives the former.")
        known = {mode.value: mode for mode in AutoresetMode}
        if not isinstance(autoreset_mode, AutoresetMode) and autoreset_mode not in known:
            raise InvalidValue(f"VectorEnvironment: autoreset_mode must be one of {', '.join(known)}, got {autoreset_mode!r}.")
        pure = pure_environment("VectorEnvironment", task, parameters)
        self.task = in_precision(pure, np.float32)
        self.num_envs, self.render_mode = num_envs, render_mode
        self.max_steps = pure.max_steps if max_episode_steps is None else max_episode_steps
        self.mode = autoreset_mode if isinstance(autoreset_mode, AutoresetMode) else known[autoreset_mode]
        self.single_observation_space, self.single_action_space = spaces_of(pure)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = {**type(self).metadata, "render_fps": frames_per_second(pure), "autoreset_mode": self.mode}
        self._fleet: Fleet | None = None
        self._renderer: Any = None
        environment, limit, reset = self.task, self.max_steps, MODES[self.mode]

        def step(fleet: Fleet, actions: Any) -> tuple[Fleet, tuple[Any, ...], Any]:
            fleet, outcome = advance(environment, fleet, actions, max_steps=limit, reset=reset)
            return fleet, *_told(outcome, reset)

        self._step = jax.jit(step)
        self._begin = jax.jit(lambda seed: begin(environment, num_envs, seed))
        self._restart = jax.jit(lambda fleet, which, seed: restarted(environment, fleet, which, seed))
        self._observe = jax.jit(lambda fleet: observations(environment, fleet.states))

    @property
    def states(self) -> np.ndarray:
        """The whole states (num_envs, M), float32, a copy."""
        return np.array(self._known().states.T)

    def set_states(self, states: Any) -> None:
        """Go on from these states (num_envs, M), as if their episodes had just begun."""
        fleet, found = self._known(), np.asarray(states, np.float32)
        wanted = (self.num_envs, self.task.dynamics.dim)
        if found.shape != wanted or not np.isfinite(found).all():
            raise InvalidValue(f"VectorEnvironment: states must be finite numbers of shape {wanted}, got shape {found.shape}.")
        idle = jnp.zeros(self.num_envs, bool)
        self._fleet = Fleet(jnp.asarray(found.T), jnp.zeros_like(fleet.steps), fleet.episodes, idle, fleet.seed)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """(observations (num_envs, N), infos); options {"reset_mask": mask (num_envs,)} resets only these."""
        super().reset(seed=seed)
        mask = None if options is None else options.get("reset_mask")
        drawn = np.uint32(self.np_random.integers(1 << 32))
        if mask is not None:
            mask = np.asarray(mask)
            if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
                raise InvalidValue(
                    f"VectorEnvironment: reset_mask must hold {self.num_envs} booleans, at least one of them True, got {mask!r}."
                )
        with x64(False):
            self._fleet = self._begin(drawn) if mask is None else self._restart(self._known(), mask, drawn)
            return np.array(self._observe(self._fleet)), {}

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """(observations, rewards, terminations, truncations, infos). Raises InvalidValue for actions of another shape or with NaN."""
        fleet = self._known()
        u = self._checked(actions)
        if self.mode is AutoresetMode.DISABLED and bool(np.asarray(fleet.ended).any()):
            raise InvalidValue('VectorEnvironment: some episodes have ended; reset them first by reset(options={"reset_mask": mask}).')
        with x64(False):
            self._fleet, told, last = self._step(fleet, u)
            seen, rewards, over, late = (np.array(x) for x in told)
        return seen, rewards, over, late, {} if last is None else self._final(over | late, *last)

    def render(self) -> tuple[np.ndarray, ...] | None:
        """One frame for each environment, without its past."""
        if self.render_mode is None:
            gymnasium.logger.warn("render was called without a render mode; make the environments with render_mode='rgb_array'.")
            return None
        if self._renderer is None:
            from dynsys_envs.render import Renderer

            self._renderer = Renderer(self.task)
        still = np.zeros((1, len(self.task.low)))
        return tuple(self._renderer.frame(state[None], still) for state in self.states.astype(float))

    def _known(self) -> Fleet:
        if self._fleet is None:
            raise InvalidValue("VectorEnvironment: there are no states yet. Call reset() first.")
        return self._fleet

    def _checked(self, actions: Any) -> np.ndarray:
        """Actions in float32, as they are if they are that already."""
        shape = (self.num_envs, len(self.task.low))
        if isinstance(actions, np.ndarray) and actions.dtype == np.float32 and actions.shape == shape:
            if np.isnan(actions.sum()) and np.isnan(actions).any():  # the sum alone is NaN for inf - inf, too
                raise InvalidValue(f"VectorEnvironment: the actions of {int(np.isnan(actions).any(1).sum())} environments hold NaN.")
            return actions
        return checked_action("VectorEnvironment", actions, shape).astype(np.float32)

    def _final(self, ended: np.ndarray, seen: Any, states: Any) -> dict[str, Any]:
        """final_obs and final_info of the environments that have ended, as gymnasium's own vector environments give them."""
        if not ended.any():
            return {}
        seen, states = np.asarray(seen), np.asarray(states).T
        final = np.full(self.num_envs, None, dtype=object)
        for i in np.flatnonzero(ended):
            final[i] = seen[i].copy()
        kept = np.where(ended[:, None], states, 0).astype(np.float32)
        info = {"state": kept, "_state": ended.copy()}
        return {"final_obs": final, "_final_obs": ended.copy(), "final_info": info, "_final_info": ended.copy()}


def _told(outcome: Outcome, reset: Reset) -> tuple[tuple[Any, ...], tuple[Any, Any] | None]:
    """What has to leave the compiled step."""
    told = (outcome.observations, outcome.rewards, outcome.terminated, outcome.truncated)
    return told, (outcome.last_observations, outcome.last_states) if reset is Reset.SAME else None

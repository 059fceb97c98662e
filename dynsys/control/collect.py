"""Acting in a Gymnasium environment: made by name, stepped with checks, what it shows recorded.

A `Session` is one environment whose steps are recorded. An environment that raises, or shows NaN or another shape, ends the session with
`EnvironmentFailed`; what was met up to there is in `session.episode`.
"""

import time
import warnings
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

import numpy as np

from dynsys.config import Options
from dynsys.control.experience import Episode
from dynsys.control.known import KNOWN
from dynsys.control.task import Task, TaskKnown
from dynsys.errors import DynsysError, InvalidValue, UnknownName, require
from dynsys.precision import x64

WHO = "dynsys.control"


class EnvironmentFailed(DynsysError):
    """The environment raised, or showed what no observation can be."""


def make_environment(name: str, options: Options | None = None, *, render_mode: str | None = None) -> Any:
    """An environment by its id, such as "Pendulum-v1" or "dynsys/CartPoleSwingUp-v0"; options are keywords of gymnasium.make.

    Packages that declare the entry point `gymnasium.envs` are loaded if the id is not known without them. Raises UnknownName for an id
    that is not there, InvalidValue for options that the environment refuses, MissingExtra (extra 'control') without gymnasium.
    """
    gymnasium = require("gymnasium", extra="control", who=WHO)
    if name not in gymnasium.registry and ":" not in name:
        load_plugins()
    known = gymnasium.registry
    if name not in known and ":" not in name:
        raise UnknownName("environment", name, sorted(known))
    extra = dict(options.pairs) if options is not None else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return gymnasium.make(name, render_mode=render_mode, **extra)
    except DynsysError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidValue(f"{name}: gymnasium can't make this environment with {extra or 'its defaults'}: {reason}") from None


def load_plugins() -> None:
    """Register what installed packages declare under `gymnasium.envs`; gymnasium itself has not done so since version 1.0."""
    for point in entry_points(group="gymnasium.envs"):
        point.load()()


def environments() -> list[tuple[str, str]]:
    """(id, what it is) of those that come with dynsys and those of Gymnasium whose reward is known as a function."""
    gymnasium = require("gymnasium", extra="control", who=WHO)
    load_plugins()
    ours = [name for name in gymnasium.registry if name.startswith("dynsys/")]
    own = [(name, f"{gymnasium.registry[name].max_episode_steps} steps; see docs/environments") for name in ours]
    return own + [(name, KNOWN[name]().goal) for name in KNOWN if name in gymnasium.registry]


def check_spaces(env: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Limits of the actions (K,), (K,) and of the observations (N,), (N,).

    Raises InvalidValue unless actions are a finite box and observations a box, both flat.
    """
    gymnasium = require("gymnasium", extra="control", who=WHO)
    name = env.spec.id if getattr(env, "spec", None) is not None else type(env.unwrapped).__name__
    acts, sees = env.action_space, env.observation_space
    if not isinstance(acts, gymnasium.spaces.Box) or len(acts.shape) != 1:
        raise InvalidValue(
            f"{name}: its actions are {acts}; dynsys controls a Box of K numbers. Wrap the environment so that it takes one "
            "(gymnasium.ActionWrapper), or use a continuous task: dynsys list environments."
        )
    if not isinstance(sees, gymnasium.spaces.Box) or len(sees.shape) != 1:
        raise InvalidValue(
            f"{name}: its observations are {sees}; dynsys needs N numbers. Wrap it with gymnasium.wrappers.FlattenObservation."
        )
    low, high = np.asarray(acts.low, float), np.asarray(acts.high, float)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise InvalidValue(f"{name}: its actions have no limits ({acts}). Wrap it with gymnasium.wrappers.ClipAction or RescaleAction.")
    return low, high, np.asarray(sees.low, float), np.asarray(sees.high, float)


def task_of(env: Any) -> Task:
    """What is known of an environment's task: it says so itself, or Gymnasium's documentation does; else nothing is known."""
    pure = env.unwrapped
    with x64():  # or the weights of its cost are rounded to float32
        if isinstance(pure, TaskKnown):
            return pure.known_task()
        spec = getattr(env, "spec", None)
        return KNOWN[spec.id]() if spec is not None and spec.id in KNOWN else Task()


class Session:
    """An environment that is being acted in; `episode` is what was met since the last `reset`."""

    def __init__(self, env: Any):
        self.env = env
        self.low, self.high, self.seen_low, self.seen_high = check_spaces(env)
        self.dtype = env.action_space.dtype
        self._observations: list[np.ndarray] = []
        self._inputs: list[np.ndarray] = []
        self._rewards: list[float] = []
        self._terminated = self._truncated = False
        self._seed = 0

    @property
    def episode(self) -> Episode:
        """What was met since the last reset."""
        N, K = len(self.seen_low), len(self.low)
        seen = np.array(self._observations) if self._observations else np.zeros((1, N))
        return Episode(
            seen,
            np.array(self._inputs).reshape(-1, K),
            np.array(self._rewards, float),
            self._terminated,
            self._truncated,
            self._seed,
        )

    def __len__(self) -> int:
        """Steps since the last reset."""
        return len(self._inputs)

    @property
    def over(self) -> bool:
        """Whether the episode has ended."""
        return self._terminated or self._truncated

    def reset(self, seed: int) -> np.ndarray:
        """Begin an episode; the first observation (N,)."""
        self._observations, self._inputs, self._rewards = [], [], []
        self._terminated = self._truncated = False
        self._seed = seed
        seen = self._guarded("reset", lambda: np.asarray(self.env.reset(seed=seed)[0], float))
        self._observations.append(self._checked(seen))
        return self._observations[-1]

    def step(self, u: np.ndarray) -> np.ndarray:
        """Act with u (K,), clipped to the limits; the observation (N,) after it."""
        u = np.clip(np.asarray(u, float), self.low, self.high)
        if not np.isfinite(u).all():
            raise InvalidValue(f"Session: the input holds NaN: {u.tolist()}. The controller that made it has failed.")
        seen, reward, terminated, truncated = self._guarded("step", lambda: self._answer(u))
        found = self._checked(seen)
        if not np.isfinite(reward):
            raise EnvironmentFailed(f"step {len(self._inputs)}: the environment gave the reward {reward}. What came before it is kept.")
        self._observations.append(found)
        self._inputs.append(u)
        self._rewards.append(reward)
        self._terminated, self._truncated = terminated, truncated
        return found

    def _answer(self, u: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        """What the environment returns, as numbers; another kind of answer raises here, where it costs the session nothing."""
        seen, reward, terminated, truncated, _ = self.env.step(u.astype(self.dtype))
        return np.asarray(seen, float), float(reward), bool(terminated), bool(truncated)

    def _guarded(self, what: str, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise EnvironmentFailed(
                f"step {len(self._inputs)}: the environment's {what} raised {type(error).__name__}: {reason}. What came before it is kept."
            ) from error

    def _checked(self, found: np.ndarray) -> np.ndarray:
        if found.shape != self.seen_low.shape:
            raise EnvironmentFailed(
                f"step {len(self._inputs)}: the environment showed an observation of shape {found.shape}, its space says "
                f"{self.seen_low.shape}. What came before it is kept."
            )
        if not np.isfinite(found).all():
            raise EnvironmentFailed(
                f"step {len(self._inputs)}: the observation holds NaN or inf: {found.tolist()}. What came before it is kept. "
                "The simulation behind it has failed: try smaller inputs or a shorter time step."
            )
        return found


def acted(session: Session, act: Callable[[np.ndarray], np.ndarray], steps: int) -> tuple[int, list[float]]:
    """Act from the last observation until the episode is over, at most `steps` steps; how many, and the seconds each decision took."""
    seconds: list[float] = []
    seen = session.episode.observations[-1]
    while not session.over and len(seconds) < steps:
        began = time.perf_counter()
        u = act(seen)
        seconds.append(time.perf_counter() - began)
        seen = session.step(u)
    return len(seconds), seconds

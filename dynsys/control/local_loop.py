"""`dynsys control --method local-ilqr`: learned locally-linear iLQR in an environment, from one start; no model is learned.

Every rollout begins with env.reset(seed=settings.seed). The plan and its gains become a controller that follows it; it is for that start
and for what the gains reach around it, and for as many steps as were planned. The first of the episodes played at the end has that start.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dynsys.config import to_toml
from dynsys.control.collect import EnvironmentFailed, Session, task_of
from dynsys.control.controller import Following
from dynsys.control.experience import Episode, Experience
from dynsys.control.folder import ControlFolder
from dynsys.control.history import Row
from dynsys.control.local_linear import LearnedPlan, LocalSearch, local_ilqr_rig
from dynsys.control.loop import Controlled, Told, fingerprint
from dynsys.control.play import play
from dynsys.control.rig import Policies
from dynsys.control.settings import ControlSettings
from dynsys.errors import InvalidValue
from dynsys.status import Status
from dynsys_datasets.files import replacing

LONGEST = 200  # steps of a plan, unless asked for more
ROLLOUTS_FILE = "rollouts.h5"


def learn_locally(
    env: Any,
    settings: ControlSettings,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[Told], None] | None = None,
) -> Controlled:
    """Optimise the inputs of one episode by rollouts alone; arguments, folder and result as `learn_to_control`.

    The folder holds rollouts.h5 with every rollout, whose first and best are in experience.h5. The search is not gone on with: the same
    call on a finished folder begins again. Raises InvalidValue where the reward is not known as a function.
    """
    session, task, local = Session(env), task_of(env), settings.local
    if task.cost is None:
        raise InvalidValue(
            "local-ilqr: needs a reward that is known as a function of observation and input; of this environment it is not. Use "
            "--method model, which learns the reward, or give the environment a method known_task()."
        )
    folder = None if out is None else ControlFolder(Path(out))
    if folder is not None:
        folder.begin(fingerprint(settings), to_toml(settings), overwrite=overwrite)
    horizon = local.horizon or min(LONGEST, session_length(env))
    rollouts = Rollouts(session, settings.seed, horizon, progress or (lambda told: None), local.iterations * (local.rollouts + 4) * horizon)
    sigma = local.sigma * float(np.min(session.high - session.low))
    search = LocalSearch(iterations=local.iterations, rollouts=local.rollouts, sigma=sigma, estimator=local.estimator)
    guess = np.random.default_rng(settings.seed).normal(size=(horizon, len(session.low)))
    guess = 0.5 * (session.low + session.high) + 0.01 * (session.high - session.low) * guess
    found = local_ilqr_rig(
        rollouts, task.cost, guess, n_obs=len(session.seen_low), low=session.low, high=session.high, search=search, key=settings.seed
    )
    if folder is not None:
        _write(found, folder.path / ROLLOUTS_FILE)  # at once: playing may fail
    controller = Following.of(found.plan, low=session.low, high=session.high)
    status = Status.FAILED if found.plan.status is Status.FAILED else Status.SUCCESS
    played = None
    if settings.episodes and status.ok:
        played = play(env, controller, settings.episodes, seed=settings.seed, longest=horizon)
    experience = Experience(rollouts.shown)
    rows = tuple(_rows(found, horizon))
    reason = found.reason
    if found.plan.status is Status.DIVERGED:
        reason = "The search gave up after ten iterations in a row in which too few rollouts lasted; the best plan until then is kept. "
        reason += "Set a smaller local.sigma, a shorter local.horizon, or more local.rollouts."
    result = Controlled(controller, (), task, experience, rows, played, settings, status, reason)
    if folder is not None:
        folder.finish(result)
    return result


def session_length(env: Any) -> int:
    """The steps of an episode as the environment declares them; LONGEST if it does not."""
    declared = env.spec.max_episode_steps if getattr(env, "spec", None) is not None else None
    return LONGEST if declared is None else int(declared)


class Rollouts:
    """The environment as a rig; `shown` holds its first rollout and the last one that ran to its end."""

    def __init__(self, session: Session, seed: int, horizon: int, tell: Callable[[Told], None], steps: int):
        self.session, self.seed, self.horizon, self.tell, self.steps = session, seed, horizon, tell, steps
        self.count = 0
        self.episodes: list[Episode] = []

    @property
    def shown(self) -> tuple[Episode, ...]:
        """The first and the last whole rollout."""
        return tuple(self.episodes)

    def __call__(self, policies: Policies) -> np.ndarray:
        """States (n, T + 1, N); NaN from where a rollout ended before its time. Raises EnvironmentFailed if the first one fails."""
        states = np.full((len(policies), self.horizon + 1, policies.nominal.shape[1]), np.nan)
        for row, act in zip(states, policies, strict=True):
            try:
                row[0] = self.session.reset(self.seed)
                for t in range(self.horizon):
                    row[t + 1] = self.session.step(act(t, row[t]))
                    if self.session.over:
                        break
            except EnvironmentFailed:
                if not self.episodes:
                    raise
            episode = self.session.episode
            self.count += episode.steps
            if episode.steps == self.horizon or not self.episodes:
                self.episodes = [*self.episodes[:1], episode]
        self.tell(Told(self.count, self.steps, None))
        return states


def _rows(found: LearnedPlan, horizon: int) -> list[Row]:
    """A row an iteration: the return is minus the cost of the nominal trajectory."""
    nan = float("nan")
    return [
        Row(i, int(count) * horizon, horizon, -float(cost), "truncated", nan, nan, nan, nan, "iteration")
        for i, (cost, count) in enumerate(zip(found.costs, found.rollouts, strict=True))
    ]


def _write(found: LearnedPlan, path: Path) -> None:
    """All rollouts, in float32."""
    import h5py

    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        for name in ("states", "inputs"):
            file.create_dataset(name, data=np.asarray(getattr(found, name), np.float32), compression="gzip")

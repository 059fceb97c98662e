"""From a few steps of an environment to a controller: collect, fit, plan, act, add, repeat.

    random inputs -> [ fit a model to all experience -> act with a receding horizon on it, until the episode ends or a refit is due ] ...

Steps are counted over everything: the random ones, too. Every episode is planned on a model of all that came before it, and is judged by
that model first: the error in the history is one of prediction, not of fit. Given a folder, the experience is written after every
episode, and the same call goes on from there, to the bit of the uninterrupted run on the same machine.
"""

import dataclasses
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import dynsys
from dynsys.config import to_toml
from dynsys.control.collect import EnvironmentFailed, Session, acted, task_of
from dynsys.control.controller import AbstractController, RecedingHorizon
from dynsys.control.cost import AbstractCost, Scaled
from dynsys.control.experience import Episode, Experience
from dynsys.control.fitting import check_model, fitted
from dynsys.control.folder import ControlFolder
from dynsys.control.history import Row
from dynsys.control.members import OverMembers, SideBySide, forecasts, one_step_error
from dynsys.control.play import Played, play
from dynsys.control.reward import LearnedReward
from dynsys.control.settings import ControlSettings
from dynsys.control.store import check_storable
from dynsys.control.task import Task
from dynsys.dynamics import AbstractMap
from dynsys.errors import DynsysError, InvalidValue
from dynsys.precision import x64
from dynsys.status import Status

PLAYED = 1_000_000  # seeds of the episodes at the end: this and up to twice as much; those of the collected ones are below and above
APART = 100_003  # between the first collected episodes of a seed and the next


@dataclasses.dataclass(frozen=True)
class Controlled:
    """What came out: the controller, its model(s), all experience, a row an episode, and the episodes played at the end.

    status FAILED: the environment failed, `reason` says how; the controller is of what had been collected.
    """

    controller: AbstractController
    models: tuple[AbstractMap, ...]
    task: Task
    experience: Experience
    history: tuple[Row, ...]
    played: Played | None
    settings: ControlSettings
    status: Status
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Told:
    """Progress: environment steps so far, of how many, and the row that was just made (None while an episode runs)."""

    steps: int
    of: int
    row: Row | None


def learn_to_control(
    env: Any,
    settings: ControlSettings | None = None,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[Told], None] | None = None,
) -> Controlled:
    """Learn a model of an environment and a controller that plans on it.

    env: a gymnasium.Env with flat boxes of observations and finite actions. out: a run folder (config.toml, experience.h5,
    controller.h5, history.csv, scores.json); without it nothing is written. A folder that holds the beginning of this very run is gone on
    with; one that holds another run is an error unless `overwrite`.
    Raises InvalidValue or UnknownName for an environment or settings that can't work. An environment that fails on the way is no
    exception: see `Controlled.status`; what was collected is kept.
    """
    session = Session(env)
    settings = resolved(ControlSettings() if settings is None else settings, session)
    check_model(settings)
    task = task_of(env)
    folder = None if out is None else ControlFolder(Path(out))
    mark = fingerprint(settings)
    if folder is not None and task.cost is not None:
        check_storable(task.cost)
    done = Experience() if folder is None else folder.begin(mark, to_toml(settings), overwrite=overwrite)
    if done.steps > settings.steps:
        raise InvalidValue(f"{out}: holds {done.steps} steps already; steps={settings.steps} can't take any back. Give as many, or more.")
    rows = () if folder is None else folder.rows(done)
    learner = Learner(session, settings, task, done, list(rows), folder, progress or (lambda told: None))
    status, reason = Status.SUCCESS, ""
    try:
        learner.run()
    except EnvironmentFailed as error:
        status, reason = Status.FAILED, str(error)
    if learner.experience.steps < 8:
        if reason:
            raise EnvironmentFailed(f"{reason} Only {learner.experience.steps} steps were met: too few for a model.")
        raise InvalidValue(f"learn_to_control: {learner.experience.steps} steps are too few for a model.")
    learner.refit()
    controller = learner.controller
    played = None
    if status.ok and settings.episodes:
        played = play(env, controller, settings.episodes, seed=PLAYED + settings.seed % PLAYED)
        status, reason = (status, reason) if played.status.ok else (played.status, played.reason)
    found = Controlled(controller, learner.models, task, learner.experience, tuple(learner.rows), played, settings, status, reason)
    if folder is not None:
        folder.finish(found)
    return found


def resolved(settings: ControlSettings, session: Session) -> ControlSettings:
    """The settings with what was left open: 100 random features up to four variables and inputs, 300 beyond (tried on cart-pole)."""
    model = settings.model
    if model.name != "random-features" or model.options.get("features") is not None:
        return settings
    features = 100 if len(session.seen_low) + len(session.low) <= 4 else 300
    return dataclasses.replace(settings, model=dataclasses.replace(model, options=model.options.with_option("features", features)))


def fingerprint(settings: ControlSettings) -> str:
    """A digest of all settings; the episodes at the end, and how many steps may be spent, do not belong to it."""
    open_ended = dataclasses.replace(settings, episodes=0, steps=8)
    return hashlib.sha256(f"{dynsys.__version__}\ncontrol\n{to_toml(open_ended)}".encode()).hexdigest()


def collected_seed(seed: int, number: int) -> int:
    """What episode `number` of a run is reset with: another one for every seed and number, and none of the episodes at the end."""
    at = seed * APART + number
    return at if at < PLAYED else at + 2 * PLAYED


class Learner:
    """The loop and where it stands."""

    def __init__(
        self,
        session: Session,
        settings: ControlSettings,
        task: Task,
        experience: Experience,
        rows: list[Row],
        folder: ControlFolder | None,
        tell: Callable[[Told], None],
    ):
        self.session, self.settings, self.task = session, settings, task
        self.experience, self.rows, self.folder, self.tell = experience, rows, folder, tell
        self.models: tuple[AbstractMap, ...] = ()
        self.controller: Any = None
        self._fitted_to: tuple[int, int] = (-1, -1)
        self._fit_seconds = 0.0
        self._kind = "random"

    def run(self) -> None:
        """Episode after episode until the steps are spent; raises EnvironmentFailed, or what a fit raises, with the broken episode kept."""
        while self.experience.steps < self.settings.steps:
            number = len(self.experience.episodes)
            self._kind = "random" if self.experience.steps < self.settings.explore.random else "planned"
            try:
                self._episode(number)
            except DynsysError:
                if len(self.experience.episodes) == number:
                    self._keep(self.session.episode, float("nan"), [])
                raise

    def _episode(self, number: int) -> None:
        self.session.reset(collected_seed(self.settings.seed, number))
        rng = np.random.default_rng([self.settings.seed, number])
        seconds: list[float] = []
        left = self.settings.steps - self.experience.steps
        wanted = self.settings.explore.random - self.experience.steps
        if wanted > 0:
            self._fit_seconds = 0.0
            acted(self.session, self._random(rng), min(left, wanted))
            self._keep(self.session.episode, float("nan"), seconds)
            return
        self.refit()
        judges = self.models
        state = self.controller.init(jr.fold_in(jr.key(self.settings.seed), number))
        explore = self.settings.explore
        spread = explore.noise * (self.session.high - self.session.low)

        def act(seen: np.ndarray) -> np.ndarray:
            nonlocal state
            u, state = self.controller.act(seen, state)
            return u + spread * rng.normal(size=len(u)) if explore.noise else u

        while not self.session.over and left > 0:
            count, took = acted(self.session, act, min(left, explore.refit))
            left -= count
            seconds += took
            self.tell(Told(self.experience.steps + self.session.episode.steps, self.settings.steps, None))
            if not self.session.over and left > 0:
                self.refit(self.session.episode)
                state = dataclasses.replace(state, z=self._carried(self.session.episode))
        episode = self.session.episode
        self._keep(episode, self._error(judges[0], episode), seconds)

    def _random(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        """Uniform inputs, each held."""
        hold, low, high = self.settings.explore.hold, self.session.low, self.session.high
        count, u = 0, low

        def act(seen: np.ndarray) -> np.ndarray:
            nonlocal count, u
            if count % hold == 0:
                u = rng.uniform(low, high)
            count += 1
            return u

        return act

    def refit(self, running: Episode | None = None) -> None:
        """The models and the controller of all experience, and of a running episode; nothing to do if they are so already."""
        experience = self.experience if running is None else self.experience.plus(running)
        stands = (len(experience.episodes), experience.steps)
        if stands == self._fitted_to:
            return
        began = time.perf_counter()
        key = jr.fold_in(jr.key(self.settings.seed), 1_000_000 + stands[1])
        self.models = fitted(experience, self.task, (self.session.seen_low, self.session.seen_high), self.settings, key)
        self.controller = planner(self.models, self._cost(experience, key), self.session, self.settings, experience)
        self._fitted_to, self._fit_seconds = stands, time.perf_counter() - began

    def _carried(self, episode: Episode) -> jax.Array:
        """The state of the new model at the end of a running episode, which is not that of the model before in its own coordinates."""
        acts: RecedingHorizon = self.controller
        with x64(not acts.single):
            x, u = (a.astype(acts.low.dtype) for a in (np.tile(episode.observations, (1, acts.copies)), episode.inputs))
            return jnp.asarray(forecasts(acts.model, x, u)[0][-1])

    def _cost(self, experience: Experience, key: jax.Array) -> AbstractCost:
        if self.task.cost is not None:
            return self.task.cost
        before, inputs, rewards, ended = experience.rows()
        price = self.settings.planner.price
        price = 10.0 * float(np.abs(rewards).mean() + rewards.std()) if price is None else price
        with x64():
            return LearnedReward.from_steps(before, inputs, rewards, ended, price=price, key=key)

    def _error(self, model: AbstractMap, episode: Episode) -> float:
        with x64():
            return one_step_error(model, episode.observations, episode.inputs)

    def _keep(self, episode: Episode, error: float, seconds: list[float]) -> None:
        if episode.steps == 0:
            return
        self.experience = self.experience.plus(episode)
        milliseconds = 1e3 * np.asarray(seconds[2:] or seconds or [np.nan])  # the first two may compile
        row = Row(
            episode=len(self.experience.episodes) - 1,
            steps=self.experience.steps,
            length=episode.steps,
            total=episode.total,
            ended="terminated" if episode.terminated else "truncated" if episode.truncated else "cut off",
            error=error,
            fit_seconds=self._fit_seconds,
            plan_median=float(np.median(milliseconds)),
            plan_late=float(np.quantile(milliseconds, 0.95)),
            kind=self._kind,
        )
        self.rows.append(row)
        if self.folder is not None:
            self.folder.keep(self.experience, self.rows)
        self.tell(Told(self.experience.steps, self.settings.steps, row))


def planner(
    models: tuple[AbstractMap, ...], cost: AbstractCost, session: Session, settings: ControlSettings, experience: Experience
) -> RecedingHorizon:
    """The receding horizon of the settings on one model or on several side by side."""
    plan, model = settings.planner, models[0]
    if len(models) > 1:
        with x64():
            scale = np.concatenate([episode.observations for episode in experience.episodes]).std(axis=0)
            scale = np.where(scale > 0, scale, 1.0)
            cost = OverMembers(cost, scale, len(models), plan.caution)  # pyright: ignore[reportCallIssue]
            model = SideBySide.of(models)
    return RecedingHorizon.of(
        model,
        Scaled(cost, plan.end),  # pyright: ignore[reportCallIssue]
        low=session.low,
        high=session.high,
        horizon=plan.horizon,
        iterations=plan.iterations,
        first=plan.first,
        starts=plan.starts,
        block=plan.block,
        copies=len(models),
        precision=plan.precision,
    )

"""Every setting of `dynsys control`, as frozen dataclasses: what a run's config.toml holds and what `--set` changes."""

from dataclasses import dataclass, field
from typing import Literal

from dynsys.config import Options
from dynsys.errors import InvalidValue
from dynsys.reconstruct.settings import ModelSettings, TrainingSettings

Method = Literal["model", "local-ilqr"]


@dataclass(frozen=True)
class EnvironmentSettings:
    """The id of the environment, and keywords of gymnasium.make."""

    id: str = "Pendulum-v1"
    options: Options = field(default_factory=Options)


@dataclass(frozen=True)
class ExploreSettings:
    """How experience is collected.

    random: steps with random inputs at the beginning, each held for `hold` steps. refit: after how many steps the model is fitted
    anew, besides at the beginning of every episode. noise: standard deviation of noise on the inputs, as a share of their range.
    """

    random: int = 200
    hold: int = 3
    refit: int = 200
    noise: float = 0.0

    def __post_init__(self):
        if self.random < 8 or self.hold < 1 or self.refit < 1 or not 0 <= self.noise < 1:
            raise InvalidValue(
                f"explore: needs random >= 8, hold >= 1, refit >= 1 and 0 <= noise < 1, got random={self.random}, hold={self.hold}, "
                f"refit={self.refit}, noise={self.noise}."
            )


@dataclass(frozen=True)
class PlannerSettings:
    """The receding horizon: see dynsys.control.controller.RecedingHorizon.

    end: weight of the cost of the last state of a plan. members: models fitted with other random numbers that plans are made on together,
    caution: the price of their disagreement (negative: a reward for it). price: what ending an episode costs, in rewards, where the
    reward is learned; chosen from the rewards if None.
    """

    horizon: int = 40
    iterations: int = 2
    first: int = 10
    starts: int = 3
    block: int = 5
    end: float = 3.0
    members: int = 1
    caution: float = 0.0
    price: float | None = None
    precision: Literal["float32", "float64"] = "float64"

    def __post_init__(self):
        for name in ("horizon", "iterations", "first", "starts", "block", "members"):
            if getattr(self, name) < 1:
                raise InvalidValue(f"planner.{name} must be at least 1, got {getattr(self, name)}.")
        if not self.end >= 0:
            raise InvalidValue(f"planner.end must be 0 or more, got {self.end}.")


@dataclass(frozen=True)
class LocalSettings:
    """Learned locally-linear iLQR: see dynsys.control.local_linear. horizon: steps of a plan; 0: the episode's length, at most 200.

    rollouts: perturbed ones an iteration. sigma: size of the perturbations, as a share of the inputs' range. estimator: "transitions"
    wants few rollouts and observations that are the whole state, nearly without noise; "least-squares" is the paper's.
    """

    iterations: int = 50
    horizon: int = 0
    rollouts: int = 12
    sigma: float = 0.01
    estimator: Literal["transitions", "least-squares", "correlation"] = "transitions"

    def __post_init__(self):
        if self.iterations < 1 or self.horizon < 0 or self.rollouts < 2 or not 0 < self.sigma < 1:
            raise InvalidValue(
                f"local: needs iterations >= 1, horizon >= 0, rollouts >= 2 and 0 < sigma < 1, got {self.iterations}, {self.horizon}, "
                f"{self.rollouts} and {self.sigma}."
            )


@dataclass(frozen=True)
class ControlSettings:
    """All settings. steps: environment steps that may be spent on learning. episodes: played at the end, not learned from.

    training: of models that are trained, not of those fitted in closed form; its seeds are planner.members.
    """

    environment: EnvironmentSettings = field(default_factory=EnvironmentSettings)
    method: Method = "model"
    model: ModelSettings = field(default_factory=lambda: ModelSettings("random-features"))
    steps: int = 1000
    episodes: int = 10
    seed: int = 0
    explore: ExploreSettings = field(default_factory=ExploreSettings)
    planner: PlannerSettings = field(default_factory=PlannerSettings)
    training: TrainingSettings = field(default_factory=lambda: TrainingSettings(steps=3000, checkpoints=3))
    local: LocalSettings = field(default_factory=LocalSettings)

    def __post_init__(self):
        if self.steps < 8 or self.episodes < 0 or self.seed < 0:
            raise InvalidValue(f"needs steps >= 8, episodes >= 0 and seed >= 0, got {self.steps}, {self.episodes} and {self.seed}.")

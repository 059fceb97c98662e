"""Every setting of a fit, as frozen dataclasses: what a run folder's config.toml holds and what `--set` changes.

None means "chosen from the data"; `dynsys.reconstruct.defaults` chooses, and the run folder holds what it chose.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from dynsys.config import Options
from dynsys.errors import InvalidValue
from dynsys.prepare.preparation import PreparationConfig

Forcing = Literal["generalised", "adaptive", "annealed", "sparse", "free"]


@dataclass(frozen=True)
class ModelSettings:
    """The model's registered name and its own options (dim, hidden, n_relu, bases, observation …)."""

    name: str = "clipped-shallow-plrnn"
    options: Options = field(default_factory=Options)


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    steps: updates. window: points in one training window. learning_rate decays exponentially to final_learning_rate.
    forcing: see dynsys.train.forcing; alpha is its strength (the floor of 'adaptive', the end of 'annealed'), interval the
    steps between two sparse forcings, complete resets unobserved states too. noise: standard deviation of noise added to
    the forcing series, in standard deviations of the data. l2, manifold: weights of the regularisers. clip: bound of the
    gradient's norm. bound: keep |A| at most this. seeds: models trained at once. seed: where the random numbers begin.
    checkpoints: how often the free run is scored. resident: numbers of a streamed file held in memory.
    """

    steps: int = 30_000
    batch: int = 16
    window: int | None = None
    seeds: int = 4
    seed: int = 0
    optimizer: str = "radam"
    learning_rate: float | None = None
    final_learning_rate: float | None = None
    forcing: Forcing | None = None
    alpha: float | None = None
    interval: int | None = None
    complete: bool = False
    noise: float = 0.0
    l2: float = 0.0
    manifold: float = 0.0
    manifold_share: float = 0.5
    clip: float | None = 1.0
    bound: float | None = None
    checkpoints: int = 12
    chunk: int = 250
    precision: Literal["float32", "float64"] = "float32"
    resident: int = 2**24

    def __post_init__(self):
        for name in ("steps", "batch", "seeds", "checkpoints", "chunk", "resident"):
            if getattr(self, name) < 1:
                raise InvalidValue(f"training.{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("window", "interval"):
            value = getattr(self, name)
            if value is not None and value < 2 - (name == "interval"):
                raise InvalidValue(f"training.{name} must be at least {2 - (name == 'interval')}, got {value}.")
        for name in ("learning_rate", "final_learning_rate", "clip", "bound"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InvalidValue(f"training.{name} must be positive and finite, got {value}.")
        for name in ("noise", "l2", "manifold"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InvalidValue(f"training.{name} must be 0 or more, and finite, got {getattr(self, name)}.")


@dataclass(frozen=True)
class SelectionSettings:
    """How the free run is scored at checkpoints: `starts` runs of `steps` points from states of the training and validation parts.

    score = D_stsp of all runs pooled + 3 D_H + 8 x (share of dead runs) + max(0, D_stsp of the worst run - veto).
    bins, smoothing: of D_stsp and D_H. veto: chosen from the true data's own spread if None.
    """

    starts: int = 15
    steps: int = 10_000
    bins: int | None = None
    smoothing: float | None = None
    veto: float | None = None

    def __post_init__(self):
        if self.starts < 1 or self.steps < 10:
            raise InvalidValue(f"selection: needs starts >= 1 and steps >= 10, got starts={self.starts}, steps={self.steps}.")


@dataclass(frozen=True)
class SplitSettings:
    """Shares of every trajectory, in order of time: the first part trains, then validation, then test."""

    validation: float = 0.15
    test: float = 0.15

    def __post_init__(self):
        if not (0 <= self.validation < 1 and 0 <= self.test < 1 and self.validation + self.test < 1):
            raise InvalidValue(
                f"split: shares must lie in [0, 1) and leave something to train on, got validation={self.validation}, test={self.test}."
            )


@dataclass(frozen=True)
class FitSettings:
    """All settings of a fit."""

    model: ModelSettings = field(default_factory=ModelSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    split: SplitSettings = field(default_factory=SplitSettings)
    preparation: PreparationConfig = field(default_factory=PreparationConfig)

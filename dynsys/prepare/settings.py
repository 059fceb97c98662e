"""The settings of a preparation: what is done to the data before training, checked when they are made."""

from dataclasses import dataclass

import numpy as np

from dynsys.errors import InvalidValue, UnknownName
from dynsys.prepare.embedding import RULES


@dataclass(frozen=True)
class PreparationConfig:
    """What to do to the data. Raises InvalidValue for settings that can't work.

    standardise: subtract the mean and divide by the standard deviation of each column (inputs too).
    detrend: 'none', 'linear', or 'gaussian', a moving average whose sigma is `detrend_width` in the series' unit of time.
    smooth_width: sigma of a Gaussian in SAMPLES of the recording, because it goes with `downsample`; 0: none.
    downsample: keep every k-th row, after smoothing.
    embedding: 'auto' embeds a single column, or if delay or dimension is given; 'delay' always; 'none' never.
    delay: in rows that are left after downsampling; dimension: delays a column. What is None is chosen by `rule`.
    """

    standardise: bool = True
    detrend: str = "none"
    detrend_width: float | None = None
    smooth_width: float = 0.0
    downsample: int = 1
    embedding: str = "auto"
    delay: int | None = None
    dimension: int | None = None
    rule: str = "noise-amplification"

    def __post_init__(self):
        for kind, value, known in (
            ("detrend", self.detrend, ("none", "linear", "gaussian")),
            ("embedding", self.embedding, ("auto", "none", "delay")),
            ("embedding rule", self.rule, RULES),
        ):
            if value not in known:
                raise UnknownName(kind, value, known)
        if (self.detrend == "gaussian") != (self.detrend_width is not None):
            raise InvalidValue(
                f"prepare: detrend='gaussian' needs detrend_width, and nothing else has one; got detrend={self.detrend!r}, "
                f"detrend_width={self.detrend_width}. It is the sigma of the moving average in the series' unit of time."
            )
        if self.detrend_width is not None and not 0 < self.detrend_width < np.inf:
            raise InvalidValue(
                f"prepare: detrend_width must be positive, got {self.detrend_width}. It is a sigma in the series' unit of time."
            )
        if not 0 <= self.smooth_width < np.inf:
            raise InvalidValue(
                f"prepare: smooth_width must be 0 or more, got {self.smooth_width}. It is a sigma in samples of the recording."
            )
        for name in ("downsample", "delay", "dimension"):
            value = getattr(self, name)
            if (value is not None or name == "downsample") and (type(value) is not int or value < 1):
                raise InvalidValue(f"prepare: {name} must be a whole number of at least 1, got {name}={value!r}.")
        if not isinstance(self.standardise, bool):
            raise InvalidValue(f"prepare: standardise must be true or false, got {self.standardise!r}.")
        if self.embedding == "none" and (self.delay is not None or self.dimension is not None):
            raise InvalidValue(
                f"prepare: embedding='none' has no delay and no dimension, got delay={self.delay}, dimension={self.dimension}. "
                "Use embedding='delay', or leave both out."
            )
        object.__setattr__(self, "smooth_width", float(self.smooth_width))
        object.__setattr__(self, "detrend_width", None if self.detrend_width is None else float(self.detrend_width))

    @property
    def filtered(self) -> bool:
        """True if whole trajectories are needed at once: a trend or smoothing."""
        return self.detrend != "none" or self.smooth_width > 0

"""A protocol is data: one TOML file that says what a model gets, what it must do, and how that is scored.

    about, source, kind ('forecast' or 'reconstruct'), systems, rank        [data] per_period, train, test, noise, observe, angles

A user's own file works as well as a name: `dynsys benchmark --protocols my.toml`.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from dynsys.benchmark.dataset import Series
from dynsys.config import read_config
from dynsys.errors import InvalidValue, UnknownName

_FOLDER = Path(__file__).parent / "protocols"
LOWER_IS_BETTER = {
    **dict.fromkeys(("smape", "mase", "d_stsp", "d_h", "lyapunov_error", "outside", "seconds"), True),
    **dict.fromkeys(("vpt", "vpt_periods"), False),
}


@dataclass(frozen=True)
class DataSettings:
    """What of a system's series a model sees.

    per_period: points a period. train, test: points to learn from and to be scored on. noise: standard deviation of observation
    noise on the training part, as a share of each column's. observe: all columns, or the first that is no angle. angles: as
    their sine, or raw in their interval.
    """

    per_period: int = 100
    train: int = 1000
    test: int = 200
    noise: float = 0.0
    observe: Literal["all", "first"] = "all"
    angles: Literal["sine", "raw"] = "sine"

    def __post_init__(self):
        for name, least in (("per_period", 2), ("train", 10), ("test", 1)):
            if getattr(self, name) < least:
                raise InvalidValue(f"data.{name} must be at least {least}, got {getattr(self, name)}.")
        if not 0 <= self.noise < 100:
            raise InvalidValue(f"data.noise must be at least 0, a share of each column's deviation, got {self.noise}.")


@dataclass(frozen=True)
class Protocol:
    """One task of the benchmark; see the module."""

    about: str
    kind: Literal["forecast", "reconstruct"]
    source: str = ""
    systems: str = "chaos"
    rank: str = "smape"
    data: DataSettings = field(default_factory=DataSettings)
    name: str = ""

    def __post_init__(self):
        if self.rank not in LOWER_IS_BETTER:
            raise UnknownName("score to rank by", self.rank, LOWER_IS_BETTER)

    @property
    def keys(self) -> tuple[str, ...]:
        """The series of a data set that it needs."""
        return ("series",) if self.kind == "forecast" else ("long_train", "long_test")

    def parts(self, series: Series, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Training part (train, N) with its noise, and clean test part (test, N); the noise depends on protocol, system and seed.

        Forecast: the test part begins where the training part ends, at the same place for every length of it. Raises
        InvalidValue if the data set holds too few points.
        """
        known = self.data
        if self.kind == "forecast":
            values = series.shown("series", angles=known.angles)
            end = len(values) - known.test
            if end < known.train:
                raise InvalidValue(f"{self.name}: needs {known.train} + {known.test} points a system, the data set has {len(values)}.")
            train, test = values[end - known.train : end], values[end:]
        else:
            train, test = (series.shown(key, angles=known.angles) for key in self.keys)
            if len(train) < known.train or len(test) < known.test:
                raise InvalidValue(
                    f"{self.name}: needs long series of {known.train} and {known.test} points; "
                    f"the data set has {len(train)} and {len(test)}."
                )
            train, test = train[: known.train], test[: known.test]
        if known.observe == "first":
            column = next((i for i, period in enumerate(series.wraps) if not period), 0)
            train, test = train[:, column : column + 1], test[:, column : column + 1]
        if known.noise:
            digest = hashlib.sha256(f"{self.name}/{series.name}/{seed}".encode()).digest()
            generator = np.random.default_rng(int.from_bytes(digest[:8], "big"))
            train = train + known.noise * train.std(axis=0) * generator.standard_normal(train.shape)
        return train, test


def protocol_names() -> tuple[str, ...]:
    """Names of the protocols that come with the package."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def load_protocol(name_or_path: str | Path) -> Protocol:
    """A protocol by name, or from a user's .toml file. Raises UnknownName with close matches, InvalidValue for a wrong file."""
    text = str(name_or_path)
    if not text.endswith(".toml") and text not in protocol_names():
        raise UnknownName("protocol", text, protocol_names())
    path = Path(text) if text.endswith(".toml") else _FOLDER / f"{text}.toml"
    found = read_config(Protocol, path)
    return Protocol(**{**{name: getattr(found, name) for name in Protocol.__dataclass_fields__}, "name": found.name or path.stem})

"""A score is a number with its definition: what was computed, with which settings, and how good it could be at all.

    floor = the same score between the two halves of the true data

A made series can't be told from the true one once its score reaches the floor, so a score is read against it, not against 0.
"""

import dataclasses
import inspect
import json
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Real

from dynsys.analysis.arrays import check_series
from dynsys.errors import DataError, InvalidValue
from dynsys.registry import lookup

Setting = int | float | str | bool | None | tuple[int | float | str | bool | None, ...]
_WORDS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


@dataclasses.dataclass(frozen=True)
class Score:
    """One number with all that it depends on.

    name: its name in the registry. value; floor: the same score between two halves of the true data, None where that has no
    meaning. definition: in words. settings: every choice that changes the number, with the lengths of both series. spread:
    lowest and highest value over seeds or starts, if there were several.
    """

    name: str
    value: float
    floor: float | None
    definition: str
    settings: tuple[tuple[str, Setting], ...]
    spread: tuple[float, float] | None = None

    def to_json(self) -> str:
        """The score as one line of strict JSON; inf and NaN become the words "inf", "-inf" and "nan"."""
        return json.dumps({field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Score":
        """The score that `to_json` wrote. Raises DataError if the text is something else."""
        try:
            fields = json.loads(text)
            settings = tuple((str(name), _setting(value)) for name, value in fields["settings"])
            floor, spread = fields["floor"], fields["spread"]
            return cls(
                name=str(fields["name"]),
                value=_number(fields["value"]),
                floor=None if floor is None else _number(floor),
                definition=str(fields["definition"]),
                settings=settings,
                spread=None if spread is None else (_number(spread[0]), _number(spread[1])),
            )
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise DataError(
                f"Score.from_json: not a score ({type(error).__name__}: {error}). It reads what Score.to_json writes."
            ) from None


def score_between(metric: str, true: Real[Any, "..."], made: Real[Any, "..."], *, floor: bool = True, **settings: Any) -> Score:
    """The registered score `metric` of a made against a true series, with its floor, definition and full settings.

    For scores that compare two series: d_stsp_binned, d_stsp_gmm, d_h, smape, valid_prediction_time. `settings` are keywords of
    the metric; those left out are stored with their defaults, and the lengths of the series with them. floor: also compute
    `floor_of`; only the divergences and d_h have one, elsewhere it is None.

    Raises UnknownName for a metric that is not registered, InvalidValue for a keyword that it does not have.
    """
    function = lookup("metric", metric)
    chosen = _settings(metric, function, settings)
    lengths: tuple[tuple[str, Setting], ...] = (("n_true", np.shape(true)[-2]), ("n_made", np.shape(made)[-2]))
    lowest = None
    if floor and metric in _WITH_FLOOR:
        lowest, lengths = floor_of(metric, true, **settings), (*lengths, ("n_floor", np.shape(true)[-2] // 2))
    return Score(metric, float(function(true, made, **settings)), lowest, definition(function), chosen + lengths)


_WITH_FLOOR = ("d_stsp_binned", "d_stsp_gmm", "d_h")


def floor_of(metric: str | Callable[..., float], true: Real[Any, "T N"], **settings: Any) -> float:
    """The score between the first and the second half of the true series (T, N), with the given settings of the metric.

    It is what a perfect model would get from so much data; shorter series have higher floors, and so have halves against wholes.
    metric: a registered name, or a function of (true, made). A `length` longer than half the series is cut to it.
    Raises InvalidValue for fewer than 4 points.
    """
    function = lookup("metric", metric) if isinstance(metric, str) else metric
    check_series("floor_of", "true", true)
    half = np.shape(true)[0] // 2
    if half < 2:
        raise InvalidValue(f"floor_of: two halves need at least 4 points, got {np.shape(true)[0]}.")
    if settings.get("length") is not None:
        settings = {**settings, "length": min(settings["length"], half)}
    return float(function(true[:half], true[half : 2 * half], **settings))


def definition(metric: Callable[..., Any]) -> str:
    """What a metric computes, in words: the first two paragraphs of its documentation, each on one line."""
    paragraphs = (inspect.getdoc(metric) or "").split("\n\n")
    return " ".join(" ".join(paragraph.split()) for paragraph in paragraphs[:2])


def _settings(name: str, function: Callable[..., Any], given: dict[str, Any]) -> tuple[tuple[str, Setting], ...]:
    """All keyword-only settings of a metric, in its own order: the given ones, and defaults for the rest."""
    keywords = {p.name: p.default for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}
    unknown = sorted(set(given) - set(keywords))
    missing = sorted(key for key, default in keywords.items() if default is inspect.Parameter.empty and key not in given)
    if unknown or missing:
        raise InvalidValue(f"{name}: unknown settings {unknown}, missing settings {missing}; it has {list(keywords)}.")
    return tuple((key, _storable(given.get(key, default))) for key, default in keywords.items())


def _storable(value: Any) -> Setting:
    """A setting as a plain value: arrays and random keys become tuples of numbers."""
    if isinstance(value, jax.Array) and jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    if isinstance(value, (np.ndarray, np.generic, jax.Array, list, tuple)):
        flat = np.asarray(value)
        return flat.item() if flat.ndim == 0 else tuple(flat.ravel().tolist())
    return value


def _plain(value: Any) -> Any:
    """The value with numbers that JSON does not know written as words."""
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else str(float(value))
    return value


def _number(value: Any) -> float:
    return _WORDS[value] if isinstance(value, str) else float(value)


def _setting(value: Any) -> Setting:
    if isinstance(value, list):
        return tuple(_setting(part) for part in value)  # pyright: ignore[reportReturnType]
    return _WORDS.get(value, value) if isinstance(value, str) else value

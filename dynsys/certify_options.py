"""The options of `dynsys certify` that hold several numbers, read from text."""

import math
from typing import Any

from dynsys_datasets.errors import InvalidValue


def ranges(option: str, text: str, count: int, what: str) -> tuple[list[float], list[float]]:
    """Low and high of "-3..3,-8..8"; one range is that of all."""
    found = parsed(option, text, what)
    if len(found) == 1:
        found = found * count
    if len(found) != count:
        raise InvalidValue(f"{option} {text!r}: wants {count} ranges, one for each {what}, got {len(found)}.")
    return [low for low, _ in found], [high for _, high in found]


def parsed(option: str, text: str, what: str) -> list[tuple[float, float]]:
    """The ranges of "-3..3,-8..8", however many there are. Raises InvalidValue unless low < high, both finite."""
    parts = [part.split("..") for part in text.split(",")]
    try:
        found = [(float(low), float(high)) for low, high in parts]
    except ValueError:
        raise InvalidValue(f'{option} {text!r}: expected one range for each {what}, such as "-3..3,-8..8".') from None
    if any(not (low < high and math.isfinite(high - low)) for low, high in found):
        raise InvalidValue(f"{option} {text!r}: wants finite ranges with low < high.")
    return found


def positive(limit: str | None, **values: float | None) -> None:
    """Raises InvalidValue, with the option, for a number that is not positive; a rate may be 0."""
    for option, value in values.items():
        if value is not None and not (value > 0 or (option == "--rate" and value == 0)):
            raise InvalidValue(f"{option} {value:g}: must be positive.")
    if any(not part > 0 for part in numbers("--limit", limit) or ()):
        raise InvalidValue(f"--limit {limit}: must be positive, the largest |u - rest|.")


def numbers(option: str, text: str | None, count: int | None = None) -> list[float] | None:
    """The numbers of "0,0"; one number is that of all. count None: however many there are."""
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise InvalidValue(f'{option} {text!r}: expected numbers such as "0,0".') from None
    if count is None:
        return values
    if len(values) == 1:
        values = values * count
    if len(values) != count:
        raise InvalidValue(f"{option} {text!r}: wants {count} numbers, got {len(values)}.")
    return values


def weights(text: str | None, plant: Any) -> tuple[Any, Any]:
    """The diagonal matrices Q and R of "1,1;0.1"; (None, None) without text."""
    if text is None:
        return None, None
    import numpy as np

    states, _, inputs = text.partition(";")
    return np.diag(numbers("--weights", states, plant.dim) or []), np.diag(numbers("--weights", inputs or "1", plant.n_inputs) or [])


def parameter(text: str) -> tuple[str, float]:
    """Name and value of "m=0.15"."""
    name, _, value = text.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError:
        raise InvalidValue(f"--set {text!r}: expected name=number, such as m=0.15.") from None

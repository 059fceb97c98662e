"""What a caller of `read_series` asked for, checked once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dynsys_datasets.errors import DataError, did_you_mean

MISSING = ("error", "interpolate", "drop")
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "space": " ", "whitespace": " ", "\\t": "\t"}

Column = str | int


@dataclass(frozen=True)
class Options:
    """The keywords of `read_series`; None means: find out from the file."""

    dataset: str | None = None
    columns: tuple[Column, ...] | None = None
    time: Column | bool | None = None
    episode: Column | bool | None = None
    inputs: tuple[Column, ...] | None = None
    header: bool | None = None
    separator: str | None = None
    missing: str = "error"
    dt: float | None = None
    lazy: bool | None = None


def as_columns(columns: Column | Sequence[Column] | None) -> tuple[Column, ...] | None:
    """One column or several as a tuple."""
    if columns is None or isinstance(columns, tuple):
        return columns
    return (columns,) if isinstance(columns, str | int) else tuple(columns)


def check_options(options: Options) -> Options:
    """The options with the separator's name resolved; DataError for a value that can't be meant."""
    if options.missing not in MISSING:
        raise DataError(
            f"read_series: missing={options.missing!r} is not one of "
            f"{', '.join(map(repr, MISSING))}.{did_you_mean(options.missing, MISSING)}"
        )
    if options.dt is not None and not (np.isfinite(options.dt) and options.dt > 0):
        raise DataError(
            f"read_series: dt must be a positive number, got dt={options.dt}. It is the sampling interval: 1/360 for 360 Hz in seconds."
        )
    if options.columns == ():
        raise DataError("read_series: columns is empty; name at least one column, or leave it out to read all.")
    return options


def choice(name: str, value: bool | str) -> bool | None:
    """True, False or None for "auto"."""
    if value == "auto":
        return None
    if isinstance(value, bool):
        return value
    raise DataError(f'read_series: {name}={value!r} must be True, False or "auto".')


def as_separator(separator: str) -> str | None:
    """One character, by itself or by name; None for "auto"."""
    if separator == "auto":
        return None
    found = SEPARATORS.get(separator, separator)
    if len(found) != 1 or found.isalnum() or found in '.+-"\n\r':
        raise DataError(
            f'read_series: separator={separator!r} must be "auto", one of {", ".join(SEPARATORS)}, or one character such as "|".'
        )
    return found

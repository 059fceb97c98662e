"""The errors of dynsys: where it happened, what was found, what was wanted, what to do.

They live in the lowest package so that every layer can raise them; `dynsys.errors` shows them again.
"""

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class DynsysError(Exception):
    """Base of every error that dynsys raises on purpose; its text is meant for the user."""


class InvalidValue(DynsysError, ValueError):
    """An argument, a setting or an object that can't work, found before any work began."""


class DataError(DynsysError, ValueError):
    """A file or a time series that can't be used as it is."""


class UnknownName(DynsysError, ValueError):
    """A name that is not registered; the text lists close matches."""

    def __init__(self, kind: str, name: str, known: Iterable[str]):
        known, guess = sorted(known), did_you_mean(name, known)
        if len(known) <= 30:
            shown = f"known: {', '.join(known) or 'none'}."
        elif guess:  # a long list would hide the guess
            shown = f"{len(known)} are known."
        else:
            shown = f"known: {', '.join(known[:30])}, … ({len(known)} in all)."
        super().__init__(f"unknown {kind} {name!r}; {shown}{guess}")


class MissingExtra(DynsysError, ImportError):
    """An optional package that is not installed; the text says which extra brings it."""

    def __init__(self, who: str, package: str, extra: str):
        super().__init__(f"{who} needs {package}, which is not installed. Install it with: pip install 'dynsys[{extra}]'")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?`, or nothing if no known name is close (upper and lower case count as equal)."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f" Did you mean {by_lower[close[0]]!r}?" if close else ""


def require(package: str, *, extra: str, who: str) -> ModuleType:
    """Import an optional package late; MissingExtra with the install command if it is absent."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        if error.name is not None and error.name.split(".")[0] == package.split(".")[0]:
            raise MissingExtra(who, package.split(".")[0], extra) from None
        raise

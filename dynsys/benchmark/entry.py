"""A model as it takes part in the benchmark: a registered name, with settings in brackets if they are not the usual ones.

    alrnn      nvar[delays=2]      clipped-shallow-plrnn[hidden=50,training.steps=3000]

The text is the model's name in the results, so two settings of one model are two rows of the table.
"""

import dataclasses
import tomllib
from typing import Any

from dynsys import registry
from dynsys.errors import InvalidValue, UnknownName


@dataclasses.dataclass(frozen=True)
class Entry:
    """A model's label, its registered name, the options of the model and the settings of `dynsys.fit` (with a dot in their name)."""

    label: str
    name: str
    options: tuple[tuple[str, Any], ...] = ()
    settings: tuple[str, ...] = ()


def parse_entry(text: str) -> Entry:
    """Read 'name' or 'name[key=value,...]'. Raises UnknownName for a model that is not registered, InvalidValue for bad brackets."""
    name, bracket, rest = text.strip().partition("[")
    if name not in registry.names("model"):
        raise UnknownName("model", name, registry.names("model"))
    if not bracket:
        return Entry(name, name)
    if not rest.endswith("]"):
        raise InvalidValue(f"model {text!r}: wanted name[key=value,...], the closing bracket is missing.")
    options, settings = [], []
    for part in _parts(rest[:-1]):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not key or not value:
            raise InvalidValue(f"model {text!r}: {part!r} is no key=value, such as n_relu=10 or training.steps=3000.")
        if "." in key:
            settings.append(f"{key}={value}")
        else:
            options.append((key, _value(value)))
    label = f"{name}[{','.join([*(f'{key}={value}' for key, value in options), *settings])}]"
    return Entry(label, name, tuple(options), tuple(settings))


def split_entries(text: str) -> tuple[str, ...]:
    """The models of a list separated by commas that stand outside brackets."""
    return tuple(_parts(text))


def _parts(text: str) -> list[str]:
    parts, depth, current = [], 0, ""
    for sign in text:
        depth += (sign == "[") - (sign == "]")
        if sign == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += sign
    return [part.strip() for part in [*parts, current] if part.strip()]


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text

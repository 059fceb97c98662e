"""TOML files and `--set a.b=1` to frozen dataclasses and back; no dictionary passes this door.

Every field of a settings class is a number, a string, a truth value, a tuple of those, None, another settings class, or
`Options` (names that belong to a plug-in such as a model, checked where the plug-in is made). TOML has no null: None is left out
where it is the default, and "none" elsewhere.
"""

import dataclasses
import tomllib
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from dynsys.errors import InvalidValue, UnknownName

Scalar = bool | int | float | str
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Options:
    """Named settings of a plug-in, in the order given; `pairs` holds (name, value)."""

    pairs: tuple[tuple[str, Scalar], ...] = ()

    def with_option(self, name: str, value: Scalar) -> "Options":
        """The same options with one set anew."""
        return Options((*(pair for pair in self.pairs if pair[0] != name), (name, value)))

    def get(self, name: str) -> Scalar | None:
        """The value of an option, or None."""
        return next((value for key, value in self.pairs if key == name), None)


def to_toml(config: Any) -> str:
    """A settings object as TOML text; `from_toml(type(config), text)` gives it back."""
    return tomli_w.dumps(_plain(config))


def from_toml(cls: type[T], text: str, *, where: str = "settings") -> T:
    """Read TOML text into a settings class.

    Raises InvalidValue for text that is no TOML or a value of the wrong type, UnknownName for a key that the class lacks;
    `where` (a file's name, say) begins the message.
    """
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidValue(f"{where}: not valid TOML: {error}.") from None
    return _build(cls, tree, where, "")


def read_config(cls: type[T], path: str | Path) -> T:
    """Read a TOML file into a settings class; raises InvalidValue if it can't be read."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValue(f"{path}: can't be read as a settings file: {error}.") from None
    return from_toml(cls, text, where=str(path))


def with_settings(config: T, assignments: Iterable[str]) -> T:
    """The settings with values changed by texts such as 'section.name=value', as `--set` takes them; checked when all are in.

    A value is read as TOML (1, 0.5, true, "text", [1, 2]); a bare word is text. Raises InvalidValue or UnknownName.
    """
    tree = _plain(config)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path.strip():
            raise InvalidValue(f"--set {assignment!r}: expected section.name=value, such as training.steps=5000.")
        try:
            value = tomllib.loads(f"value = {text.strip()}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        _assign(tree, type(config), path.strip().split("."), value, f"--set {assignment}")
    return _build(type(config), tree, "--set", "")


def _assign(tree: dict[str, Any], cls: type, keys: list[str], value: Any, where: str) -> None:
    """Put a value into the tree of a settings class; the name of a plug-in's option may stand beside the class's own."""
    if cls is Options:
        if len(keys) != 1 or not isinstance(value, bool | int | float | str):
            raise InvalidValue(f"{where}: expected one name and a number, a truth value or a word.")
        tree[keys[0]] = value
        return
    hints = _types(cls)
    name = keys[0]
    if name not in hints:
        open_ended = next((field for field, hint in hints.items() if hint is Options), None)
        if len(keys) > 1 or open_ended is None:
            raise UnknownName("setting", name, hints)
        _assign(tree.setdefault(open_ended, {}), Options, keys, value, where)  # model.dim=20 means model.options.dim=20
    elif dataclasses.is_dataclass(hints[name]):
        if len(keys) == 1:
            first = next(iter(_types(hints[name])), "name")
            raise InvalidValue(f"{where}: {name!r} is a section; set one of its names, such as {name}.{first}.")
        _assign(tree.setdefault(name, {}), hints[name], keys[1:], value, where)
    elif len(keys) > 1:
        raise InvalidValue(f"{where}: {name!r} is a single value, it has no {keys[1]!r}.")
    else:
        tree[name] = _convert(value, hints[name], where)


def _plain(value: Any) -> Any:
    if isinstance(value, Options):
        return dict(value.pairs)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = ((field, _plain(getattr(value, field.name))) for field in dataclasses.fields(value))
        return {field.name: "none" if item is None else item for field, item in items if item is not None or field.default is not None}
    return list(value) if isinstance(value, tuple) else value


def _types(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _build(cls: type[T], tree: dict[str, Any], where: str, prefix: str) -> T:
    if cls is Options:
        for key, item in tree.items():
            if not isinstance(item, Scalar):
                raise InvalidValue(f"{where}: {prefix}{key}: expected a number, a truth value or a word, got {item!r}.")
        return typing.cast(T, Options(tuple(tree.items())))
    hints = _types(cls)
    values = {}
    for key, item in tree.items():
        if key not in hints:
            raise UnknownName(f"setting in {where}:", f"{prefix}{key}", [f"{prefix}{name}" for name in hints])
        hint = hints[key]
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            if not isinstance(item, dict):
                raise InvalidValue(f"{where}: {prefix}{key} must be a table, got {item!r}.")
            values[key] = _build(hint, item, where, f"{prefix}{key}.")
        else:
            values[key] = _convert(item, hint, f"{where}: {prefix}{key}")
    try:
        return cls(**values)
    except TypeError as error:
        raise InvalidValue(f"{where}: {error}.") from None


def _convert(value: Any, hint: Any, where: str) -> Any:
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if (value is None or value == "none") and type(None) in options:
        return None
    for option in options:
        if option is float and isinstance(value, int | float) and not isinstance(value, bool) and value == value:
            return float(value)
        if option in (int, str, bool) and type(value) is option:
            return value
        if option is int and isinstance(value, float) and value.is_integer():
            return int(value)
        if typing.get_origin(option) is tuple and isinstance(value, list | tuple):
            inner = typing.get_args(option)
            item_hints = [inner[0]] * len(value) if len(inner) == 2 and inner[1] is Ellipsis else list(inner)
            if len(item_hints) == len(value):
                return tuple(_convert(item, item_hint, where) for item, item_hint in zip(value, item_hints, strict=True))
        if typing.get_origin(option) is typing.Literal and value in typing.get_args(option):
            return value
    wanted = " or ".join(_describe(option) for option in options)
    raise InvalidValue(f"{where}: expected {wanted}, got {value!r}.")


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(repr(choice) for choice in typing.get_args(hint))
    plain = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "none"}
    return plain.get(hint, str(hint))

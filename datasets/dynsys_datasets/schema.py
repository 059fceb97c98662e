"""The typed record of one system file: what a TOML file may say, checked key by key.

    name, kind, source, about, state, inputs, calculus        [parameters] [sizes] [index] [define] [equations]
    [diffusion] (sde)   [grid] [linear] (field)               [start] [time] [wraps]   [[computed]]

Nothing is guessed: an unknown key, a missing equation, a name used twice or a parameter without a value is a DataError
that names the file and the key.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from dynsys_datasets.equation import Block, Names, constant, parse_target
from dynsys_datasets.equation.syntax import check_name, parse
from dynsys_datasets.equation.tree import Item, Name, walk
from dynsys_datasets.errors import DataError, did_you_mean

KINDS = ("flow", "map", "delay", "sde", "field")
MAX_FILE = 200_000
MAX_STATES = 1_000_000

Nested: TypeAlias = float | tuple["Nested", ...]

_REQUIRED = ("name", "kind", "source", "about", "equations")
_KEYS = (
    *("name", "kind", "source", "about", "state", "inputs", "calculus", "parameters", "sizes", "index", "define", "equations"),
    *("diffusion", "grid", "linear", "start", "time", "wraps", "computed"),
)
_ONLY = {"diffusion": "sde", "calculus": "sde", "grid": "field", "linear": "field"}


@dataclass(frozen=True)
class Parameter:
    """A constant of the equations: its exact text (8/3), its value, and its shape (() for a number)."""

    name: str
    text: str
    value: Nested
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Family:
    """A state or an input as declared, x or x[i]: its name and the names of its indices."""

    name: str
    indices: tuple[str, ...]


@dataclass(frozen=True)
class Axis:
    """One axis of a field's periodic grid: points, a number or the name of a size; length, a number or a parameter's name."""

    name: str
    points: int | str
    length: float | str


@dataclass(frozen=True)
class Time:
    """`dt`: the usual sampling interval; `period`: the dominant period or None; both in `unit`.

    `step`: the step of the integrator that is accurate enough for a field, at most dt; None for other kinds.
    """

    dt: float
    period: float | None
    unit: str
    step: float | None = None


@dataclass(frozen=True)
class Computed:
    """A fact that we computed: value and error (a number, or one per component), with the script and version that did it."""

    name: str
    value: Nested
    error: Nested
    script: str
    version: str


@dataclass(frozen=True)
class SystemFile:
    """The contents of one system file, checked. Tables are tuples of pairs in the file's order, so that it can be hashed."""

    file: str
    name: str
    kind: str
    source: str
    about: str
    state: tuple[Family, ...]
    inputs: tuple[Family, ...]
    parameters: tuple[Parameter, ...]
    sizes: tuple[tuple[str, int], ...]
    index: tuple[tuple[str, str | int], ...]
    define: tuple[tuple[str, str], ...]
    equations: tuple[tuple[str, str], ...]
    diffusion: tuple[tuple[str, str], ...]
    calculus: str
    grid: tuple[Axis, ...]
    linear: tuple[tuple[str, str], ...]
    start: tuple[tuple[str, Nested | str], ...]  # a text is an expression of the place, x or i
    time: Time
    wraps: tuple[tuple[str, float], ...]
    computed: tuple[Computed, ...]

    def indices(self) -> dict[str, int]:
        """How many values each index takes; the axes of a grid are indices too."""
        sizes = dict(self.sizes)
        counts = (*self.index, *((axis.name, axis.points) for axis in self.grid))
        return {name: size if isinstance(size, int) else sizes[size] for name, size in counts}

    def names(self) -> Names:
        """What an equation of this file may name, with shapes."""
        indices = self.indices()
        return Names(
            state=tuple(self.block(family) for family in self.state),
            parameters=tuple(Block(parameter.name, parameter.shape) for parameter in self.parameters),
            inputs=tuple(self.block(family) for family in self.inputs),
            sizes=dict(self.sizes),
            indices=indices,
            grid={axis.name: axis.length for axis in self.grid},
            time=self.kind != "map",
        )

    def block(self, family: Family) -> Block:
        """A declared family with its shape."""
        indices = self.indices()
        return Block(family.name, tuple(indices[name] for name in (family.indices or tuple(axis.name for axis in self.grid))))


def read_file(path: str | Path) -> SystemFile:
    """Read and check a system file; DataError if it can't be read or anything in it is wrong."""
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror or error}") from None
    if len(raw) > MAX_FILE:
        raise DataError(f"{path.name}: {len(raw)} bytes; a system file has at most {MAX_FILE}")
    try:
        table = tomllib.loads(raw.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path.name}: is no TOML file: {error}. Wanted key = value lines and [tables], see docs/systems.md") from None
    return from_table(table, path.name)


def from_table(table: Mapping[str, Any], where: str) -> SystemFile:
    """Check a table as TOML gives it; `where` names the file in errors."""
    _check_keys(table, _KEYS, _REQUIRED, where)
    kind = _text(table, "kind", where)
    if kind not in KINDS:
        raise DataError(f"{where}: kind is {kind!r}; known: {', '.join(KINDS)}.{did_you_mean(kind, KINDS)}")
    for key, wanted in _ONLY.items():
        if key in table and kind != wanted:
            raise DataError(f"{where}: {key!r} belongs to kind = {wanted!r}, this file has kind = {kind!r}")
    if kind in ("sde", "field") and (missing := {"sde": "diffusion", "field": "grid"}[kind]) not in table:
        raise DataError(f"{where}: kind = {kind!r} needs a table [{missing}]")
    sizes = tuple((name, _count(size, f"{where}: sizes.{name}")) for name, size in _table(table, "sizes", where).items())
    grid = tuple(_axis(name, axis, dict(sizes), where) for name, axis in _table(table, "grid", where).items())
    found = SystemFile(
        file=where,
        name=_text(table, "name", where),
        kind=kind,
        source=_text(table, "source", where),
        about=_text(table, "about", where),
        state=_families(table, "state", where),
        inputs=_families(table, "inputs", where),
        parameters=tuple(_parameter(name, value, where) for name, value in _table(table, "parameters", where).items()),
        sizes=sizes,
        index=tuple((name, _range(value, dict(sizes), f"{where}: index.{name}")) for name, value in _table(table, "index", where).items()),
        define=_pairs(table, "define", where),
        equations=_pairs(table, "equations", where),
        diffusion=_pairs(table, "diffusion", where),
        calculus=_calculus(table, where),
        grid=grid,
        linear=_pairs(table, "linear", where),
        start=tuple((name, _start(value, f"{where}: start.{name}")) for name, value in _table(table, "start", where).items()),
        time=_time(table, kind, where),
        wraps=tuple((name, constant(value, f"{where}: wraps.{name}")) for name, value in _table(table, "wraps", where).items()),
        computed=tuple(_computed(entry, where) for entry in _list(table, "computed", where)),
    )
    _check_names(found, where)
    _check_start(found, where)
    return found


def _check_names(found: SystemFile, where: str) -> None:
    """Every name once, every family over declared indices, every wrap of a state."""
    if not found.state:
        raise DataError(f'{where}: state is empty; wanted the names of the state variables, state = ["x", "y", "z"]')
    states = [family.name for family in found.state]
    defined = [parse_target(name, where)[0] for name, _ in found.define]
    groups = {"state": states, "inputs": [family.name for family in found.inputs], "parameters": [p.name for p in found.parameters]}
    groups |= {"sizes": [n for n, _ in found.sizes], "index": [n for n, _ in found.index], "define": defined}
    groups["grid"] = [axis.name for axis in found.grid]
    seen: dict[str, str] = {}
    for group, members in groups.items():
        for name in members:
            check_name(name, f"{where}: {group}")
            if name in seen:
                again = "twice" if seen[name] == group else f"and in {seen[name]} too"
                raise DataError(f"{where}: the name {name!r} stands in {group} {again}; each name may have one meaning")
            seen[name] = group
    indices = found.indices()
    for axis in found.grid:
        numbers = [parameter.name for parameter in found.parameters if isinstance(parameter.value, float) and parameter.value > 0]
        if isinstance(axis.length, str) and axis.length not in numbers:
            raise DataError(
                f"{where}: grid.{axis.name}.length is {axis.length!r}; wanted a positive number, or the name of a parameter "
                f"that is one: {', '.join(numbers) or 'none'}.{did_you_mean(axis.length, numbers)}"
            )
    for family in (*found.state, *found.inputs):
        for index in family.indices:
            if index not in indices:
                known = ", ".join(sorted(indices)) or "none"
                raise DataError(f"{where}: {family.name}[{index}] has no index {index!r}; declare it in [index]. Known: {known}")
    for name, period in found.wraps:
        if name not in states:
            raise DataError(f"{where}: wraps.{name} is not in state; known: {', '.join(sorted(states))}.{did_you_mean(name, states)}")
        if not period > 0:
            raise DataError(f'{where}: wraps.{name} must be the period of an angle, a positive number as "2*pi", got {period:g}')
    size = sum(found.block(family).size for family in found.state)
    if size > MAX_STATES:
        raise DataError(f"{where}: the state has {size} numbers; at most {MAX_STATES} are allowed")


def _check_start(found: SystemFile, where: str) -> None:
    states = {family.name: found.block(family) for family in found.state}
    given = dict(found.start)
    for name, value in given.items():
        if name not in states:
            raise DataError(f"{where}: start.{name} is not in state; known: {', '.join(sorted(states))}.{did_you_mean(name, states)}")
        shape = () if isinstance(value, str) else _shape(value, f"{where}: start.{name}")
        if shape not in ((), states[name].shape):
            raise DataError(f"{where}: start.{name} has shape {shape}, wanted a number or shape {states[name].shape}")
    missing = sorted(set(states) - set(given))
    if missing:
        raise DataError(f"{where}: [start] has no value for {', '.join(missing)}; wanted a state on the attractor")


def _check_keys(table: Mapping[str, Any], known: tuple[str, ...], required: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            raise DataError(f"{where}: unknown key {key!r}; known: {', '.join(known)}.{did_you_mean(key, known)}")
    for key in required:
        if key not in table:
            raise DataError(f"{where}: the key {key!r} is missing; every file needs {', '.join(required)}")


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table[key]
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: {key} is {value!r}; wanted a text that is not empty")
    return " ".join(value.split())


def _table(table: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise DataError(f"{where}: {key} is {value!r}; wanted a table, [{key}]")
    return value


def _list(table: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = table.get(key, [])
    if not isinstance(value, list):
        wanted = "entries [[computed]]" if key == "computed" else 'a list of names as ["x", "y"]'
        raise DataError(f"{where}: {key} is {value!r}; wanted {wanted}")
    return value


def _pairs(table: Mapping[str, Any], key: str, where: str) -> tuple[tuple[str, str], ...]:
    found = []
    for name, value in _table(table, key, where).items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = repr(value)
        if not isinstance(value, str):
            raise DataError(f'{where}: {key}.{name} is {value!r}; wanted an equation as text, {name} = "..."')
        found.append((name, value))
    return tuple(found)


def _families(table: Mapping[str, Any], key: str, where: str) -> tuple[Family, ...]:
    found = []
    for entry in _list(table, key, where):
        if not isinstance(entry, str):
            raise DataError(f'{where}: {key} holds {entry!r}; wanted a name as "x", or a family as "x[i]"')
        found.append(Family(*parse_target(entry, f"{where}: {key}")))
    return tuple(found)


def _count(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_STATES:
        raise DataError(f"{where} is {value!r}; wanted a whole number from 1 to {MAX_STATES}")
    return value


def _range(value: Any, sizes: Mapping[str, int], where: str) -> str | int:
    """An index runs over 0..n-1: "0..n-1" with n from [sizes], or "0..19"; the name of the size, or the number of values."""
    first, dots, last = str(value).replace(" ", "").partition("..")
    if isinstance(value, str) and first == "0" and dots:
        if last.isdecimal() and len(last) <= 7:
            return int(last) + 1
        if last.endswith("-1") and last[:-2] in sizes:
            return last[:-2]
    known = ", ".join(sorted(sizes)) or "none"
    raise DataError(f'{where} is {value!r}; wanted "0..n-1" with n from [sizes] (known: {known}), or "0..19"')


def _axis(name: str, value: Any, sizes: Mapping[str, int], where: str) -> Axis:
    if not isinstance(value, dict):
        raise DataError(f'{where}: grid.{name} is {value!r}; wanted {{points = 128, length = "2*pi"}}')
    _check_keys(value, ("points", "length"), ("points", "length"), f"{where}: grid.{name}")
    points, length = value["points"], value["length"]
    if not (isinstance(points, str) and points in sizes):
        points = _count(points, f"{where}: grid.{name}.points")
    if not (isinstance(length, str) and isinstance(parse(length, f"{where}: grid.{name}.length"), Name)) or length == "pi":
        length = constant(length, f"{where}: grid.{name}.length")
        if not length > 0:
            raise DataError(f"{where}: grid.{name}.length must be positive, got {length:g}")
    return Axis(name, points, length)


def _parameter(name: str, value: Any, where: str) -> Parameter:
    place = f"{where}: parameters.{name}"
    if value in ("", [], {}):
        raise DataError(f'{place} has no value; wanted a number, a text as "8/3", or a list of them')
    found = _nested(value, place)
    return Parameter(name, str(value), found, _shape(found, place))


def _nested(value: Any, where: str, depth: int = 0) -> Nested:
    if isinstance(value, list) and depth < 3:
        return tuple(_nested(part, where, depth + 1) for part in value)
    return constant(value, where)


def _start(value: Any, where: str) -> Nested | str:
    """Numbers, or the text of an expression that names something: `catalogue.py` compiles it."""
    if isinstance(value, str) and any(isinstance(part, Name | Item) and part != Name("pi") for part in walk(parse(value, where))):
        return value
    return _nested(value, where)


def _shape(value: Nested, where: str) -> tuple[int, ...]:
    if not isinstance(value, tuple):
        return ()
    shapes = {_shape(part, where) for part in value}
    if len(shapes) != 1:
        raise DataError(f"{where}: the rows of a matrix must all have the same length, and none may be empty")
    return (len(value), *shapes.pop())


def _calculus(table: Mapping[str, Any], where: str) -> str:
    value = table.get("calculus", "ito")
    if value not in ("ito", "stratonovich"):
        raise DataError(f"{where}: calculus is {value!r}; known: ito, stratonovich")
    return value


def _time(table: Mapping[str, Any], kind: str, where: str) -> Time:
    if kind == "map" and "time" not in table:
        return Time(1.0, None, "steps")
    value = _table(table, "time", where)
    _check_keys(value, ("dt", "period", "unit", "step"), ("dt",), f"{where}: time")
    dt = constant(value["dt"], f"{where}: time.dt")
    period = constant(value["period"], f"{where}: time.period") if "period" in value else None
    if not dt > 0 or (period is not None and not period > 0):
        raise DataError(f"{where}: time.dt and time.period must be positive, got dt = {dt:g}, period = {period}")
    unit = _text(value, "unit", f"{where}: time") if "unit" in value else "time units of the equations"
    step = constant(value["step"], f"{where}: time.step") if "step" in value else None
    if step is not None and (kind != "field" or not 0 < step <= dt):
        raise DataError(f"{where}: time.step belongs to kind = 'field' and lies between 0 and dt = {dt:g}, got {step:g} in kind = {kind!r}")
    return Time(dt, period, unit, step)


def _computed(entry: Any, where: str) -> Computed:
    place = f"{where}: computed"
    if not isinstance(entry, dict):
        raise DataError(f"{place} is {entry!r}; wanted entries [[computed]]")
    keys = ("name", "value", "error", "script", "version")
    _check_keys(entry, keys, keys, place)
    texts = [_text(entry, key, place) for key in ("name", "script", "version")]
    value, error = (_nested(entry[key], f"{place} {texts[0]}") for key in ("value", "error"))
    if _shape(value, place) != _shape(error, place):
        raise DataError(f"{place} {texts[0]}: value and error must have the same shape")
    return Computed(texts[0], value, error, texts[1], texts[2])

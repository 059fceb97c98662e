"""The chaos database: find a system by name, or read a user's own file; get its equations as functions of arrays.

names()  ->  ("Chen", "Chua", ...)        system("Lorenz")  ->  SystemRecord        system("my_system.toml")
"""

import dataclasses
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from dynsys_datasets.equation import Program, compile_program
from dynsys_datasets.equation.latex import latex, symbol
from dynsys_datasets.equation.syntax import parse
from dynsys_datasets.equation.tree import Binary, Item, Name, Node, Number, walk
from dynsys_datasets.errors import DataError, InvalidValue, UnknownName
from dynsys_datasets.schema import KINDS, Computed, Family, SystemFile, read_file

_SYSTEMS = Path(__file__).parent / "systems"


@functools.cache
def _paths() -> dict[str, tuple[str, Path]]:
    found = {}
    for kind in KINDS:
        for path in sorted((_SYSTEMS / kind).glob("*.toml")):
            match = re.search(r'^name = "([^"]+)"', path.read_text(encoding="utf-8"), re.MULTILINE)
            if match:
                found[match[1]] = kind, path
    return dict(sorted(found.items()))


def names(kind: str | None = None) -> tuple[str, ...]:
    """Names of all systems that ship with the package, or of one kind ('flow', 'map', 'delay', 'sde', 'field'), sorted."""
    if kind is not None and kind not in KINDS:
        raise UnknownName("kind of system", kind, KINDS)
    return tuple(name for name, (found, _) in _paths().items() if kind in (None, found))


def path_of(name: str) -> Path:
    """The file of a system that ships with the package; UnknownName with close matches if there is none."""
    if name not in _paths():
        raise UnknownName("system", name, _paths())
    return _paths()[name][1]


def system(name: str | Path, **sizes: Any) -> "SystemRecord":
    """The record of a system: a name of `names()`, matched exactly, or the path of a .toml file.

    `sizes` change the number of members of a family, `system("Lorenz96", n=40)`. Raises UnknownName with close matches,
    or DataError if a file is wrong.
    """
    if isinstance(name, Path) or str(name).endswith(".toml"):
        record = SystemRecord(read_file(name))
    else:
        record = _shipped(str(name))
    return record.resized(**sizes) if sizes else record


@functools.cache
def _shipped(name: str) -> "SystemRecord":
    return SystemRecord(read_file(path_of(name)))


class SystemRecord:
    """One system, compiled: its file, its equations as functions of arrays, its facts. Immutable; equal if its file is equal."""

    def __init__(self, file: SystemFile):
        self.file = file
        self._hash = hash(file)
        self._values = {parameter.name: np.asarray(parameter.value, dtype=np.float64)[()] for parameter in file.parameters}
        self._program = self._compile(file.equations)
        self._diffusion = self._compile(file.diffusion) if file.kind == "sde" else None
        self._linear = self._compile(file.linear) if file.linear else None
        self._starts = self._compile_start()

    def _compile(self, equations: tuple[tuple[str, str], ...]) -> Program:
        return compile_program(self.file.names(), dict(equations), dict(self.file.define), where=self.file.file)

    def _compile_start(self) -> Program | None:
        """The program of the starts that are expressions of the place, if there are any; they may name no state, input or time."""
        given = dict(self.file.start)
        if not any(isinstance(value, str) for value in given.values()):
            return None
        texts, names = {}, self.file.names()
        for family in self.file.state:
            value = given[family.name]
            index = f"[{', '.join(family.indices)}]" if family.indices else ""
            texts[family.name + index] = value if isinstance(value, str) else "0"
        where = f"{self.file.file}: [start]"
        for text in texts.values():
            used = {part.name for part in walk(parse(text, where)) if isinstance(part, Name | Item)}
            for block in (*names.state, *names.inputs):
                if block.name in used:
                    raise DataError(f"{where}: {text!r} names {block.name!r}; a start is made of numbers, parameters, indices and axes")
        return compile_program(dataclasses.replace(names, time=False), texts, {}, where=where)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SystemRecord) and self.file == other.file

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[type["SystemRecord"], tuple[SystemFile]]:
        return SystemRecord, (self.file,)

    def __repr__(self) -> str:
        return f"SystemRecord({self.name!r}, kind={self.kind!r}, dim={self.dim})"

    @property
    def name(self) -> str:
        """The name of the system."""
        return self.file.name

    @property
    def kind(self) -> str:
        """'flow', 'map', 'delay', 'sde' or 'field'."""
        return self.file.kind

    @property
    def dim(self) -> int:
        """M, how many numbers the state has."""
        return sum(self.file.block(family).size for family in self.file.state)

    @property
    def n_inputs(self) -> int:
        """K, how many numbers the input has; 0 for an autonomous system."""
        return sum(self.file.block(family).size for family in self.file.inputs)

    @property
    def state_names(self) -> tuple[str, ...]:
        """A name for each number of the state; members of a family x[i] are x[0], x[1], ..."""
        return self._flat(self.file.state)

    @property
    def input_names(self) -> tuple[str, ...]:
        """A name for each number of the input."""
        return self._flat(self.file.inputs)

    def _flat(self, families: tuple[Family, ...]) -> tuple[str, ...]:
        found = []
        for family in families:
            shape = self.file.block(family).shape
            places = [",".join(map(str, place)) for place in np.ndindex(shape)]
            found += [f"{family.name}[{place}]" for place in places] if shape else [family.name]
        return tuple(found)

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters by name in float64: NumPy scalars, and arrays for vectors and matrices."""
        return dict(self._values)

    @property
    def start(self) -> np.ndarray:
        """A state on the attractor (near it, if sizes were changed), (M,), float64."""
        made = self._starts(0.0, np.zeros(self.dim), None, self._values) if self._starts else np.zeros(self.dim)
        given, begin = dict(self.file.start), 0
        for family in self.file.state:
            block, value = self.file.block(family), given[family.name]
            if not isinstance(value, str):
                made[begin : begin + block.size] = np.broadcast_to(np.asarray(value, dtype=np.float64), block.shape).ravel()
            begin += block.size
        return made

    @property
    def dt(self) -> float:
        """The usual sampling interval, in `time.unit`; 1 for a map."""
        return self.file.time.dt

    @property
    def period(self) -> float | None:
        """The dominant period: the computed one if there is one, else the file's, else None."""
        computed = self.fact("period")
        return float(computed.value) if computed and not isinstance(computed.value, tuple) else self.file.time.period

    def fact(self, name: str) -> Computed | None:
        """A computed fact, as 'lyapunov_spectrum', with its error and where it came from; None if the file has none."""
        return next((entry for entry in self.file.computed if entry.name == name), None)

    def field(self, t: Any, z: Any, u: Any = None, parameters: Mapping[str, Any] | None = None, delayed: Any = None) -> Any:
        """The right-hand side (dz/dt, or z[t+1] of a map), (), (M,), (K,) -> (M,), on the array library of z.

        `parameters` replaces all parameters by name (default: the file's). `delayed` (L, M) holds the states at
        t - lags(parameters), for a delay equation. An input that is declared but not given is zero.
        """
        values = self._values if parameters is None else parameters
        found = self._program(t, z, u, values, delayed)
        return found + self._linear(t, z, u, values) if self._linear else found

    def linear(self, t: Any, z: Any, u: Any = None, parameters: Mapping[str, Any] | None = None) -> Any:
        """The part of a field's right-hand side that stands in [linear], (M,); InvalidValue if the file has none."""
        return self.linear_program(t, z, u, self._values if parameters is None else parameters)

    def nonlinear(self, t: Any, z: Any, u: Any = None, parameters: Mapping[str, Any] | None = None) -> Any:
        """The part of the right-hand side that stands in [equations], (M,); `field` is the sum of it and of `linear`."""
        return self._program(t, z, u, self._values if parameters is None else parameters)

    @property
    def linear_program(self) -> Program:
        """The compiled [linear] part, with its syntax trees and its `symbol`; InvalidValue if the file has none."""
        if self._linear is None:
            raise InvalidValue(f"{self.name}: there is no table [linear] in this system of kind {self.kind!r}.")
        return self._linear

    def diffusion(self, t: Any, z: Any, u: Any = None, parameters: Mapping[str, Any] | None = None) -> Any:
        """The noise amplitude of each state of a stochastic system, (M,); each state has its own Wiener process."""
        if self._diffusion is None:
            raise InvalidValue(f"{self.name}: a system of kind {self.kind!r} has no diffusion; only kind 'sde' has one.")
        return self._diffusion(t, z, u, self._values if parameters is None else parameters)

    def lags(self, parameters: Mapping[str, Any] | None = None) -> tuple[float, ...]:
        """The delays of a delay equation, in its unit of time; empty for every other kind."""
        return self._program.lags(self._values if parameters is None else parameters)

    def wrap(self, z: Any) -> Any:
        """States (..., M) with every declared angle in [-period/2, period/2); the others unchanged."""
        periods = dict(self.file.wraps)
        if not periods:
            return z
        xp = array_namespace(z)
        sizes = [(periods.get(family.name), self.file.block(family).size) for family in self.file.state]
        period = np.concatenate([np.full(size, 1.0 if length is None else length) for length, size in sizes])
        angle = np.concatenate([np.full(size, length is not None) for length, size in sizes])
        shape = (1,) * (z.ndim - 1) + (-1,)
        period, angle = xp.asarray(period.reshape(shape), dtype=z.dtype), xp.asarray(angle.reshape(shape))
        return xp.where(angle, z - period * xp.floor(z / period + 0.5), z)

    def resized(self, **sizes: Any) -> "SystemRecord":
        """The same system with other sizes (n of a family x[i], i = 0..n-1); starts of families are interpolated round the ring.

        Such a start lies near the attractor only: let a transient pass. Raises UnknownName for a size that the file has not.
        """
        known = dict(self.file.sizes)
        for name, size in sizes.items():
            if name not in known:
                raise UnknownName(f"size of {self.name}", name, known)
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise InvalidValue(f"{self.name}: {name} must be a whole number of at least 1, got {name}={size!r}.")
        file = dataclasses.replace(self.file, sizes=tuple((name, sizes.get(name, size)) for name, size in known.items()), computed=())
        blocks = {family.name: file.block(family).shape for family in file.state}
        start = tuple((name, _stretched(value, blocks[name], name, self.name)) for name, value in file.start)
        return SystemRecord(dataclasses.replace(file, start=start))

    @property
    def trees(self) -> tuple[tuple[str, tuple[str, ...], Node], ...]:
        """(target, its indices, syntax tree) of every definition and equation, in the order in which they are evaluated."""
        return self._program.trees

    def latex(self) -> str:
        r"""The equations as LaTeX, an `aligned` block: definitions first, then one line for each state (linear part first)."""
        states = {family.name for family in self.file.state}
        linear = {name: tree for name, _, tree in self._linear.trees if name in states} if self._linear else {}
        lines = []
        for name, indices, tree in self._program.trees:
            if name in linear:
                tree = linear[name] if tree == Number(0) else Binary("+", linear[name], tree)
            left = f"{symbol(name)}_{{{','.join(indices)}}}" if indices else symbol(name)
            if name in states:
                left = rf"{left}(t+1)" if self.kind == "map" else rf"\dot{{{symbol(name)}}}{left[len(symbol(name)) :]}"
            lines.append(f"{left} &= {latex(tree)}")
        return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"


def _stretched(value: Any, shape: tuple[int, ...], name: str, who: str) -> Any:
    if isinstance(value, str):
        return value
    values = np.asarray(value, dtype=np.float64)
    if values.ndim == 0 or values.shape == shape:
        return value
    if values.ndim > 1:
        raise DataError(f"{who}: the start of {name!r} is a table and can't be stretched; pass start=... yourself")
    places = np.arange(shape[0]) * (len(values) / shape[0])
    return tuple(np.interp(places, np.arange(len(values) + 1), [*values, values[0]]).tolist())

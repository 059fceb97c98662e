"""Syntax trees -> closures: every name is looked up once, here, so that running a program is arithmetic alone.

Inside, every value is a scalar or has one axis for each declared index, of length 1 where the value does not depend on
it. Then broadcasting needs no alignment, a family's neighbour x[i+1] is one `roll`, and a sum over j is a sum along the
axis of j; the work does not grow with the number of members.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from dynsys_datasets.equation.program import Closure, Env, Names, Program
from dynsys_datasets.equation.syntax import Text, check_name, parse, parse_target
from dynsys_datasets.equation.tree import Binary, Call, Compare, Delayed, Derivative, Item, Name, Negative, Node, Sum, fold, walk
from dynsys_datasets.errors import DataError, did_you_mean

Axes: TypeAlias = frozenset[str]

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "**": lambda a, b: a**b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}


def constant(value: Any, where: str) -> float:
    """A number of a file: a TOML number, or text such as "8/3" or "2*pi" that is exact; DataError for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        found: float | None = float(value)
    elif isinstance(value, str):
        found = fold(parse(value, where))
    else:
        raise DataError(f'{where}: got {value!r}; wanted a number, or text of numbers and pi as "8/3"')
    if found is None:
        raise DataError(f"{where}: got {value!r}; a constant may hold numbers, pi and functions only, no names")
    if not math.isfinite(found):
        raise DataError(f"{where}: {value!r} is not a finite number")
    return float(found)


def compile_program(names: Names, equations: Mapping[str, str], define: Mapping[str, str], *, where: str) -> Program:
    """Compile one right side for every state, in the order of the state. DataError, starting with `where`, if it can't be done."""
    defined = _parse_all(define, where)
    wanted = _parse_all(equations, where)
    states = {block.name: block for block in names.state}
    for name in wanted:
        if name not in states:
            known = ", ".join(sorted(states))
            raise DataError(f"{where}: an equation for {name!r}, which is not in state; known: {known}.{did_you_mean(name, states)}")
    for name in states:
        if name not in wanted:
            raise DataError(f'{where}: state {name!r} has no equation; add  {name} = "..."  to [equations]')
    compiler = _Compiler(names, {name: indices for name, (indices, _, _) in defined.items()}, where)
    definitions = []
    for name in _ordered(defined, where):
        indices, text, tree = defined[name]
        definitions.append((name, compiler.equation(name, indices, text, tree)))
    trees = [(name, defined[name][0], defined[name][2]) for name, _ in definitions]
    outputs = []
    for block in names.state:
        indices, text, tree = wanted[block.name]
        if len(indices or names.grid) != len(block.shape):
            raise DataError(f"{where}: the equation of {block.name!r} has {len(indices)} indices, the state has {len(block.shape)}")
        outputs.append(compiler.equation(block.name, indices, text, tree))
        trees.append((block.name, indices, tree))
    return Program(names, definitions, outputs, compiler.lags, trees)


def _parse_all(texts: Mapping[str, str], where: str) -> dict[str, tuple[tuple[str, ...], str, Node]]:
    found: dict[str, tuple[tuple[str, ...], str, Node]] = {}
    for target, text in texts.items():
        name, indices = parse_target(target, where)
        check_name(name, where)
        if not isinstance(text, str):
            text = repr(text) if isinstance(text, int | float) and not isinstance(text, bool) else text
        if not isinstance(text, str):
            raise DataError(f'{where}: {target} is {text!r}; wanted an equation as text, {target} = "..."')
        if name in found:
            raise DataError(f"{where}: {name!r} has two equations")
        found[name] = indices, text, parse(text, where)
    return found


def _ordered(defined: Mapping[str, tuple[tuple[str, ...], str, Node]], where: str) -> list[str]:
    """Definitions sorted so that each stands after those it uses; DataError if they go in a circle."""
    uses = {
        name: {part.name for part in walk(tree) if isinstance(part, Name | Item) and part.name in defined}
        for name, (_, _, tree) in defined.items()
    }
    done: list[str] = []
    while len(done) < len(uses):
        ready = [name for name in uses if name not in done and uses[name] <= set(done)]
        if not ready:
            circle = [next(name for name in uses if name not in done)]
            while circle.count(circle[-1]) < 2:
                circle.append(next(name for name in sorted(uses[circle[-1]]) if name not in done))
            shown = " -> ".join(circle[circle.index(circle[-1]) :])
            raise DataError(f"{where}: circular definition {shown}; a definition may use states, parameters and earlier definitions")
        done.extend(ready)
    return done


class _Compiler:
    """Resolves names and turns trees into closures; remembers the lags that it met."""

    def __init__(self, names: Names, defined: Mapping[str, tuple[str, ...]], where: str):
        self.names, self.where = names, where
        self.axes = {name: position for position, name in enumerate(names.indices)}
        self.shapes = {block.name: block.shape for block in (*names.parameters, *names.state, *names.inputs)}
        for name, indices in defined.items():
            unknown = [index for index in indices if index not in names.indices]
            if unknown:
                raise DataError(f"{where}: {name}[{', '.join(indices)}] has no index {unknown[0]!r}; declare it in [index]")
            self.shapes[name] = tuple(names.indices[index] for index in (indices or tuple(names.grid)))
        self.lags: list[Closure] = []
        self.lag_trees: list[Node] = []
        self.source = Text(where, "")

    def known(self) -> list[str]:
        return sorted({*self.shapes, *self.names.indices, *self.names.sizes})

    def equation(self, name: str, indices: tuple[str, ...], text: str, tree: Node) -> Closure:
        """A closure that yields an array of the target's own shape."""
        self.source = Text(self.where, " ".join(text.split()))
        indices = indices or tuple(self.names.grid)
        for index, size in zip(indices, self.shapes[name], strict=True):
            if self.names.indices.get(index) != size:
                self.source.refuse(f"{name}[{', '.join(indices)}] = @: {index!r} is no index of size {size}; declare it in [index]")
        closure, _ = self.visit(tree, frozenset(indices))
        if not indices:
            return closure
        return self.spread(closure, indices)

    def spread(self, closure: Closure, indices: tuple[str, ...]) -> Closure:
        full = tuple(self.names.indices[name] if name in indices else 1 for name in self.axes)
        canonical = sorted(indices, key=self.axes.__getitem__)
        shape = tuple(self.names.indices[name] for name in canonical)
        order = tuple(canonical.index(name) for name in indices)

        def run(env: Env) -> Any:
            value = env.xp.reshape(env.xp.broadcast_to(env.array(closure(env)), full), shape)
            return value if order == tuple(range(len(order))) else env.xp.permute_dims(value, order)

        return run

    def visit(self, node: Node, free: Axes) -> tuple[Closure, Axes]:
        """The closure of a node and the indices that its value depends on; `free` are the indices that may be used here."""
        value = fold(node)
        if value is not None:
            if not math.isfinite(value):
                self.source.refuse("a part of @ that holds only numbers is undefined or overflows")
            return (lambda env: value), frozenset()
        match node:
            case Name(name):
                return self.name(name, free)
            case Item(name, index):
                return self.item(name, index, free)
            case Negative(operand):
                inner, axes = self.visit(operand, free)
                return (lambda env: -inner(env)), axes
            case Binary(op, left, right) | Compare(op, left, right):
                return self.binary(op, left, right, free)
            case Call(function, arguments):
                return self.call(function, arguments, free)
            case Sum(index, body):
                return self.sum(index, body, free)
            case Delayed(what, lag):
                return self.delayed(what, lag, free)
            case Derivative(body, axis, order):
                return self.derivative(body, axis, order, free)
        self.source.refuse(f"{type(node).__name__} in @ is not part of the language")

    def name(self, name: str, free: Axes) -> tuple[Closure, Axes]:
        if name == "t":
            if not self.names.time:
                self.source.refuse("t in @: a map has no continuous time; add a state that counts the steps")
            return (lambda env: env.t), frozenset()
        if name in self.names.sizes and name not in self.shapes:
            size = self.names.sizes[name]
            return (lambda env: size), frozenset()
        if name in self.names.indices:
            self.usable(name, free)
            size, length = self.names.indices[name], self.names.grid.get(name)
            positions = np.arange(size, dtype=np.float64).reshape([size if other == name else 1 for other in self.axes])
            if length is not None:  # an axis of a grid is the coordinate, from 0 to length
                return (lambda env: env.xp.asarray(positions / size, dtype=env.like.dtype) * _length(env, length)), frozenset((name,))
            return (lambda env: env.xp.asarray(positions, dtype=env.like.dtype)), frozenset((name,))
        if name not in self.shapes:
            known = self.known()
            self.source.refuse(f"unknown name {name!r} in @; known: {', '.join(known)}.{did_you_mean(name, known)}")
        if self.shapes[name]:
            if self.names.grid and len(self.shapes[name]) == len(self.names.grid):
                return self.item(name, tuple((axis, 0) for axis in self.names.grid), free)
            places = ", ".join("ijk"[: len(self.shapes[name])])
            self.source.refuse(f"{name!r} in @ has {self.shapes[name]} members; write which one as {name}[{places}]")
        return (lambda env: env.values[name]), frozenset()

    def usable(self, index: str, free: Axes) -> None:
        if index not in self.names.indices:
            known = sorted(self.names.indices)
            self.source.refuse(f"unknown index {index!r} in @; known: {', '.join(known) or 'none'}.{did_you_mean(index, known)}")
        if index not in free:
            self.source.refuse(f"the index {index!r} in @ is on the left of no equation here; sum over it with sum({index}, ...)")

    def item(self, name: str, index: tuple[tuple[str | None, int], ...], free: Axes) -> tuple[Closure, Axes]:
        """Roll along shifted axes, take fixed positions, then put the axes in the order of [index]."""
        if name not in self.shapes:
            known = self.known()
            self.source.refuse(f"unknown name {name!r} in @; known: {', '.join(known)}.{did_you_mean(name, known)}")
        shape = self.shapes[name]
        if len(index) != len(shape):
            self.source.refuse(f"{name!r} in @ has {len(shape)} subscripts, got {len(index)}")
        take, rolls, used = [], [], []
        for size, (axis, shift) in zip(shape, index, strict=True):
            if axis is None:
                if shift >= size:
                    self.source.refuse(f"{name}[{shift}] in @ is past the end; the members are 0 to {size - 1}")
                take.append(shift)
                continue
            self.usable(axis, free)
            if self.names.indices[axis] != size:
                self.source.refuse(f"{name}[{axis}] in @: the index has {self.names.indices[axis]} values, {name!r} has {size}")
            if axis in used:
                self.source.refuse(f"{name!r} in @ has the index {axis!r} twice; use two indices of equal size")
            if shift % size:
                rolls.append((len(used), -shift))
            take.append(slice(None))
            used.append(axis)
        picks = tuple(take)
        order = tuple(used.index(axis) for axis in sorted(used, key=self.axes.__getitem__))
        full = tuple(self.names.indices[axis] if axis in used else 1 for axis in self.axes) if used else ()
        picked, turned = any(isinstance(pick, int) for pick in picks), order != tuple(range(len(order)))

        def run(env: Env) -> Any:
            value = env.values[name]
            if picked:
                value = value[picks]
            for axis, shift in rolls:
                value = env.xp.roll(value, shift, axis=axis)
            if turned:
                value = env.xp.permute_dims(value, order)
            return env.xp.reshape(value, full) if value.shape != full else value

        return run, frozenset(used)

    def binary(self, op: str, left: Node, right: Node, free: Axes) -> tuple[Closure, Axes]:
        (a, a_axes), (b, b_axes), operator = self.visit(left, free), self.visit(right, free), _OPERATORS[op]
        if op in ("<", "<=", ">", ">=", "==", "!="):
            return (lambda env: operator(env.array(a(env)), b(env))), a_axes | b_axes  # an array even where both are numbers
        if op == "+":
            return (lambda env: a(env) + b(env)), a_axes | b_axes
        if op == "*":
            return (lambda env: a(env) * b(env)), a_axes | b_axes
        return (lambda env: operator(a(env), b(env))), a_axes | b_axes

    def call(self, function: str, arguments: tuple[Node, ...], free: Axes) -> tuple[Closure, Axes]:
        pairs = [self.visit(argument, free) for argument in arguments]
        inner = [closure for closure, _ in pairs]
        axes: Axes = frozenset().union(*(axes for _, axes in pairs))
        first = inner[0]
        if function == "where":
            return (lambda env: env.xp.where(first(env), env.array(inner[1](env)), env.array(inner[2](env)))), axes
        if function == "heaviside":
            return (lambda env: _heaviside(env, env.array(first(env)))), axes
        if function == "mod":
            return (lambda env: env.xp.remainder(env.array(first(env)), env.array(inner[1](env)))), axes
        if function in ("min", "max"):
            return (lambda env: _extreme(env, function, [closure(env) for closure in inner])), axes
        return (lambda env: getattr(env.xp, function)(env.array(first(env)))), axes

    def sum(self, index: str, body: Node, free: Axes) -> tuple[Closure, Axes]:
        if index in free:
            self.source.refuse(f"sum({index}, ...) in @ runs over an index that is already in use; declare another of equal size")
        self.usable(index, free | {index})
        inner, axes = self.visit(body, free | {index})
        position, size = self.axes[index], self.names.indices[index]
        if index not in axes:
            return (lambda env: size * inner(env)), axes
        rest = axes - {index}
        if rest:
            return (lambda env: env.xp.sum(inner(env), axis=position, keepdims=True)), rest
        return (lambda env: env.xp.sum(inner(env))), rest

    def delayed(self, what: Name | Item, lag: Node, free: Axes) -> tuple[Closure, Axes]:
        if what.name not in {block.name for block in self.names.state}:
            self.source.refuse(f"delay({what.name}, ...) in @: only a state has a past")
        allowed = {"pi", *self.names.sizes, *(block.name for block in self.names.parameters)}
        if any(not (isinstance(part, Name) and part.name in allowed) and isinstance(part, Name | Item | Delayed) for part in walk(lag)):
            self.source.refuse("the lag of delay(...) in @ must be made of numbers and parameters")
        if lag not in self.lag_trees:
            self.lags.append(self.visit(lag, frozenset())[0])
            self.lag_trees.append(lag)
        position = self.lag_trees.index(lag)
        inner, axes = self.visit(what, free)
        return (lambda env: inner(env.delayed[position])), axes

    def derivative(self, body: Node, axis: str | None, order: int, free: Axes) -> tuple[Closure, Axes]:
        """Spectral derivative on the periodic grid: multiplication by (i k)**order in Fourier space."""
        if not self.names.grid:
            self.source.refuse("a spatial derivative in @; only systems of kind 'field' have a [grid]")
        if axis is not None and axis not in self.names.grid:
            known = sorted(self.names.grid)
            self.source.refuse(f"unknown axis {axis!r} in @; known: {', '.join(known)}.{did_you_mean(axis, known)}")
        inner, _ = self.visit(body, free)
        full = tuple(self.names.indices[name] if name in self.names.grid else 1 for name in self.axes)
        return (self.inverse(inner, full) if order < 0 else self.spectral(inner, axis, order, full)), frozenset(self.names.grid)

    def spectral(self, inner: Closure, axis: str | None, order: int, full: tuple[int, ...]) -> Closure:
        """diff along one axis, or with axis None the sum over all axes."""
        along = []
        for name in [axis] if axis else self.names.grid:
            half, whole = (self.multiplier(name, order, waves) for waves in (_half, _whole))
            along.append((self.axes[name], self.names.indices[name], self.names.grid[name], half, whole))

        def run(env: Env) -> Any:
            xp = env.xp
            value = xp.broadcast_to(env.array(inner(env)), full)
            parts = []
            for k, points, length, half, whole in along:
                # a copy: JAX keeps what it made of an array it has seen, and a run in float32 would spoil later ones in float64
                factor = xp.asarray((whole if env.waves else half).copy()) / _length(env, length) ** order
                parts.append(value * factor if env.waves else xp.fft.irfft(xp.fft.rfft(value, axis=k) * factor, n=points, axis=k))
            return sum(parts[1:], parts[0])

        return run

    def inverse(self, inner: Closure, full: tuple[int, ...]) -> Closure:
        """The periodic solution of laplacian(p) = v - mean(v) that has mean zero."""
        axes = tuple(self.axes[name] for name in self.names.grid)
        squares = [(self.multiplier(name, 2, _whole), length) for name, length in self.names.grid.items()]
        mean = np.zeros(full, dtype=bool)
        mean[(0,) * len(full)] = True

        def run(env: Env) -> Any:
            xp = env.xp
            value = xp.broadcast_to(env.array(inner(env)), full)
            laplacian = sum(xp.real(xp.asarray(factor.copy())) / _length(env, length) ** 2 for factor, length in squares)
            first = xp.asarray(mean)
            factor = xp.where(first, xp.zeros_like(laplacian), 1.0 / xp.where(first, xp.ones_like(laplacian), laplacian))
            return value * factor if env.waves else xp.real(xp.fft.ifftn(xp.fft.fftn(value, axes=axes) * factor, axes=axes))

        return run

    def multiplier(self, axis: str, order: int, waves: Callable[[int], np.ndarray]) -> np.ndarray:
        """(i k)**order for the waves of an axis of length 1, along that axis of the values."""
        points = self.names.indices[axis]
        wave = waves(points)
        if order % 2 and points % 2 == 0:
            wave[points // 2] = 0.0  # the highest wave of an even grid has no sign, hence no odd derivative
        return ((2j * np.pi * wave) ** order).reshape([-1 if name == axis else 1 for name in self.axes])


def _half(points: int) -> np.ndarray:
    return np.arange(points // 2 + 1, dtype=np.float64)


def _whole(points: int) -> np.ndarray:
    return np.fft.fftfreq(points, 1 / points)


def _length(env: Env, length: float | str) -> Any:
    """The length of an axis: its number, or the value of the parameter that it names."""
    return env.values[length] if isinstance(length, str) else length


def _heaviside(env: Env, value: Any) -> Any:
    """1 for a positive value, else 0."""
    return env.xp.where(value > 0, env.xp.ones_like(value), env.xp.zeros_like(value))


def _extreme(env: Env, function: str, values: list[Any]) -> Any:
    choose = env.xp.minimum if function == "min" else env.xp.maximum
    found = env.array(values[0])
    for value in values[1:]:
        found = choose(found, env.array(value))
    return found

"""The syntax tree of the language: ten kinds of node, and what can be asked of a tree without any values."""

import math
from dataclasses import dataclass
from typing import TypeAlias

MAX_EXPONENT = 32


@dataclass(frozen=True)
class Number:
    """A literal number; whole numbers stay int, so that x**2 is a product and not a logarithm."""

    value: float | int


@dataclass(frozen=True)
class Name:
    """A parameter, state, input, definition, index, `t` or `pi`."""

    name: str


@dataclass(frozen=True)
class Item:
    """One member of a family, x[i+1, 3]: for each axis (index name, shift), or (None, position)."""

    name: str
    index: tuple[tuple[str | None, int], ...]


@dataclass(frozen=True)
class Negative:
    """-a."""

    operand: "Node"


@dataclass(frozen=True)
class Binary:
    """a op b with op one of + - * / **."""

    op: str
    left: "Node"
    right: "Node"


@dataclass(frozen=True)
class Compare:
    """a op b with op one of < <= > >= == !=; only the first argument of `where`."""

    op: str
    left: "Node"
    right: "Node"


@dataclass(frozen=True)
class Call:
    """A function of the whitelist."""

    function: str
    arguments: tuple["Node", ...]


@dataclass(frozen=True)
class Sum:
    """sum(j, body): the sum of the body over all values of an index."""

    index: str
    body: "Node"


@dataclass(frozen=True)
class Delayed:
    """delay(x, lag): a state variable at time t - lag."""

    what: Name | Item
    lag: "Node"


@dataclass(frozen=True)
class Derivative:
    """diff(body, axis, order): a spatial derivative on the periodic grid of a field.

    With axis None it is the Laplacian (order 2) or its inverse with mean zero (order -2).
    """

    body: "Node"
    axis: str | None
    order: int


Node: TypeAlias = Number | Name | Item | Negative | Binary | Compare | Call | Sum | Delayed | Derivative


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly below a node."""
    match node:
        case Negative(operand):
            return (operand,)
        case Binary(_, left, right) | Compare(_, left, right):
            return left, right
        case Call(_, arguments):
            return arguments
        case Sum(_, body) | Derivative(body, _, _):
            return (body,)
        case Delayed(what, lag):
            return what, lag
    return ()


def walk(node: Node) -> list[Node]:
    """A node and all nodes below it."""
    found, pending = [], [node]
    while pending:
        current = pending.pop()
        found.append(current)
        pending.extend(children(current))
    return found


def fold(node: Node) -> float | int | None:
    """The value of an expression made of numbers and pi alone; None if it has names, nan if it is undefined or overflows."""
    match node:
        case Number(value):
            return value
        case Name("pi"):
            return math.pi
        case Negative(operand):
            value = fold(operand)
            return None if value is None else -value
        case Binary(op, left, right):
            return _fold_binary(op, fold(left), fold(right))
        case Call(function, (argument,)):
            value = fold(argument)
            return None if value is None else _fold_call(function, value)
    return None


def _fold_binary(op: str, a: float | int | None, b: float | int | None) -> float | int | None:
    if a is None or b is None:
        return None
    try:
        if op == "**":
            value = float(a) ** b if abs(b) <= MAX_EXPONENT else math.nan
            return math.nan if isinstance(value, complex) else value
        return {"+": a + b, "-": a - b, "*": a * b, "/": math.nan if b == 0 else a / b}[op]
    except (ArithmeticError, ValueError):
        return math.nan


def _fold_call(function: str, value: float | int) -> float | int | None:
    if function in ("abs", "sign", "heaviside"):
        return {"abs": abs(value), "sign": float((value > 0) - (value < 0)), "heaviside": float(value > 0)}[function]
    try:
        return getattr(math, function)(value)
    except (ArithmeticError, ValueError):
        return math.nan

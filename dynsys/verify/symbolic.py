"""Candidates that a person can read: expressions in the language of the database's system files, positive by their very syntax.

    SymbolicLyapunov("2*(x + 0.5*y)**2 + y**2 + 3*(1 - cos(x))", names=("x", "y"))          x, y: deviations from the goal

V must be a sum of terms that nobody can make negative (even powers, abs, 1 - cos, products and sums of such, with positive factors), vanish
at the goal, and hold squares of as many independent linear forms as there are states; else `floor` |d|^2 is added.
"""

import functools
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys.verify.lyapunov import AbstractLyapunov
from dynsys_datasets.equation import Block, Names, Program, compile_program, parse
from dynsys_datasets.equation.tree import Binary, Call, Name, Negative, Node, Number, fold

WHERE = "SymbolicLyapunov"


class SymbolicLyapunov(AbstractLyapunov):
    """text: the expression of the deviations d = x - goal, whose names are `names`; V = text(d) + floor |d|^2."""

    goal: Float[Array, " n"]
    text: str = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    floor: float = eqx.field(static=True, default=0.0)

    @classmethod
    def of(cls, text: str, names: Any, goal: Any = None, floor: float = 0.0) -> "SymbolicLyapunov":
        """Check and compile. DataError for text that is not of the language, InvalidValue for a V that is not seen to be positive."""
        with x64():
            goal = jnp.zeros(len(names)) if goal is None else jnp.asarray(goal, float)
            return cls(goal, text, tuple(names), float(floor))  # pyright: ignore[reportCallIssue]

    def __check_init__(self):
        if len(self.names) != self.goal.shape[0] or not self.floor >= 0:
            raise InvalidValue(f"{WHERE}: wants a name for each of {self.goal.shape[0]} states and a floor that is not negative.")
        tree, program = parse(self.text, WHERE), _program(self.text, self.names)
        if not nonnegative(tree):
            raise InvalidValue(
                f"{WHERE}: {self.text!r} is not seen to be nowhere negative. Write it as a sum of even powers, abs(...) and (1 - cos(...)) "
                "with positive factors: x**2 + x*y + y**2 as (x + 0.5*y)**2 + 0.75*y**2."
            )
        n = len(self.names)
        if float(program(0.0, np.zeros(1), np.zeros(n), {})[0]) != 0.0:
            raise InvalidValue(f"{WHERE}: {self.text!r} is not zero where all deviations are; take constants off, as in 1 - cos(x).")
        if self.floor == 0.0 and _rank(tree, self.names) < n:
            raise InvalidValue(
                f"{WHERE}: {self.text!r} may vanish away from the goal: it holds squares of fewer than {n} independent linear forms. Add "
                "such squares, or a floor."
            )

    @property
    def degree(self) -> int:
        """2."""
        return 2

    def value(self, x: Float[Array, " n"]) -> Float[Array, ""]:
        """The expression at x - goal, and the floor."""
        d = x - self.goal
        value = _program(self.text, self.names)(0.0, jnp.zeros(1, d.dtype), d, {})[0]
        return value + self.floor * jnp.dot(d, d) if self.floor else value


@functools.lru_cache(maxsize=256)
def _program(text: str, names: tuple[str, ...]) -> Program:
    """The expression as the equation of a state V with the deviations as inputs."""
    blocks = Names(state=(Block("value"),), inputs=tuple(Block(name) for name in names), time=False)
    return compile_program(blocks, {"value": text}, {}, where=WHERE)


def nonnegative(node: Node) -> bool:
    """Whether the form of an expression alone shows that it is nowhere negative."""
    value = fold(node)
    if value is not None:
        return value >= 0
    match node:
        case Binary("+" | "*", left, right) if nonnegative(left) and nonnegative(right):
            return True
        case Binary("/", left, right):
            value = fold(right)
            return value is not None and value > 0 and nonnegative(left)
        case Binary("*", left, right):
            return left == right
        case Binary("**", base, power):
            exponent = fold(power)
            return exponent is not None and exponent == int(exponent) and exponent >= 0 and (exponent % 2 == 0 or nonnegative(base))
        case Binary("-", one, Call("cos" | "sin" | "tanh", _)):
            value = fold(one)
            return value is not None and value >= 1
        case Negative(Negative(inner)):
            return nonnegative(inner)
        case Call("abs" | "exp", _):
            return True
        case Call("max", arguments):
            return any(nonnegative(argument) for argument in arguments)
        case Call("min", arguments):
            return all(nonnegative(argument) for argument in arguments)
        case Call("log", (Binary("+", one, inner),)):
            value = fold(one)
            return value is not None and value >= 1 and nonnegative(inner)
    return False


def _rank(tree: Node, names: tuple[str, ...]) -> int:
    """How many independent linear forms stand squared, with a positive factor, as terms of the outermost sum."""
    rows = [row for term in _terms(tree) if (row := _squared_form(term, names)) is not None]
    return int(np.linalg.matrix_rank(np.array(rows), tol=1e-9)) if rows else 0


def _terms(node: Node) -> list[Node]:
    match node:
        case Binary("+", left, right):
            return [*_terms(left), *_terms(right)]
    return [node]


def _squared_form(term: Node, names: tuple[str, ...]) -> np.ndarray | None:
    """The linear form of a term c * form**2 or form**2 / c with c > 0, at unit length; None for any other term."""
    match term:
        case Binary("*", left, right):
            value, rest = (fold(left), right) if fold(left) is not None else (fold(right), left)
            return _squared_form(rest, names) if value is not None and value > 0 else None
        case Binary("/", left, right):
            value = fold(right)
            return _squared_form(left, names) if value is not None and value > 0 else None
        case Binary("**", base, Number(2)):
            row = _linear(base, names)
            return None if row is None or not np.any(row) else row / np.linalg.norm(row)
    return None


def _linear(node: Node, names: tuple[str, ...]) -> np.ndarray | None:
    """Coefficients of an expression that is linear in the names without a constant; None if it is not seen to be."""
    match node:
        case Name(name) if name in names:
            return np.eye(len(names))[names.index(name)]
        case Negative(inner):
            row = _linear(inner, names)
            return None if row is None else -row
        case Binary("+" | "-" as op, left, right):
            a, b = _linear(left, names), _linear(right, names)
            return None if a is None or b is None else (a + b if op == "+" else a - b)
        case Binary("*", left, right):
            value, rest = (fold(left), right) if fold(left) is not None else (fold(right), left)
            row = _linear(rest, names) if value is not None else None
            return None if row is None or value is None else value * row
        case Binary("/", left, right):
            value, row = fold(right), _linear(left, names)
            return None if row is None or not value else row / value
    return None

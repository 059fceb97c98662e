"""The programs of a certificate: straight lines of text over vectors of real numbers, read and run by the checker.

    v3 = matrix k1 x          k: constants of the file; x, w: state and disturbance
    v4 = tanh v3
    v5 = sums 4 v4            the sums of each 4 entries in a row
    v6 = pick i0 v4 x         entries number i0[0], i0[1], ... of v4 and x, one after the other
    v7 = choose v5 v1 v2      entry by entry, v1 where v5 > 0, else v2
    return v6

`add sub mul div max min`: two vectors, of which one may have a single entry; `neg abs` and `sin cos tanh logistic atan exp log sqrt`: one.
A number such as 0.05 is a vector with one entry: the float64 number that is nearest to it, as everything here is read over the reals.

A program runs on any kind of numbers with the methods of `check_numbers.Model`. `Dual` numbers carry the derivative along a direction.
Near the goal, each vector also has a name for its value there, so that phi(x) - phi(goal) is known to be exactly zero.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dynsys.errors import InvalidValue
from dynsys.verify.check_numbers import SMOOTH, Smooth

TWO = ("add", "sub", "mul", "div", "max", "min")
ONE = ("neg", "abs", *(name for name in SMOOTH if name != "reciprocal"))
WITH = ("matrix", "pick", "sums")  # their first word is no argument
LONGEST = 200_000  # lines


class Line(NamedTuple):
    """One operation: its name, its whole number or its array of the file (or None), and what it is applied to."""

    op: str
    extra: Any
    arguments: tuple[Any, ...]


class Program(NamedTuple):
    """The lines, each argument the number of an earlier vector; the vectors are x, w, the constants, then the lines."""

    constants: tuple[np.ndarray, ...]
    lines: tuple[Line, ...]
    result: int
    jumps: bool


def parse(text: str, arrays: dict[str, np.ndarray], n: int, p: int, result: int) -> Program:
    """A program of x (n,) and w (p,) that returns `result` entries. Raises InvalidValue, with the line, if it is not a proper one."""
    sizes, known, constants, lines = [n, p], {"x": 0, "w": 1}, [], []
    found = [line.split() for line in text.splitlines() if line.strip()]
    if len(found) > LONGEST or not found or found[-1][0] != "return" or len(found[-1]) != 2:
        raise InvalidValue(f"program: wants at most {LONGEST} lines, the last of them 'return ...'.")
    body, last = found[:-1], found[-1][1]

    used = [word for parts in body for word in parts[4 if parts[2:3] and parts[2] in WITH else 3 :]]
    for word in dict.fromkeys([*used, last]):
        value = arrays.get(word) if word.startswith("k") else _literal(word)
        if value is not None:
            if value.ndim != 1 or value.dtype != np.float64 or not np.isfinite(value).all():
                raise InvalidValue(f"program: the constant {word} must be a vector of finite float64 numbers.")
            known[word] = len(sizes)
            sizes.append(len(value))
            constants.append(value)
    for parts in body:
        where = " ".join(parts)
        if len(parts) < 4 or parts[1] != "=" or not parts[0].startswith("v") or parts[0] in known:
            raise InvalidValue(f"program: {where!r} is no 'v = operation arguments' with a new name.")
        line, size = _line(parts[2], parts[3:], known, sizes, arrays, where)
        known[parts[0]] = len(sizes)
        sizes.append(size)
        lines.append(line)
    if last not in known or sizes[known[last]] != result:
        raise InvalidValue(f"program: must return {result} entries.")
    return Program(tuple(constants), tuple(lines), known[last], any(line.op == "choose" for line in lines))


def _literal(word: str) -> np.ndarray | None:
    try:
        return np.array([float(word)])
    except ValueError:
        return None


def _line(
    op: str, words: list[str], known: dict[str, int], sizes: list[int], arrays: dict[str, np.ndarray], where: str
) -> tuple[Line, int]:
    extra, first = None, words[0]
    if op in ("matrix", "pick"):
        extra, words = arrays.get(first), words[1:]
    elif op == "sums":
        extra, words = int(first) if first.isdigit() and first.isascii() and len(first) < 10 else 0, words[1:]
    if not words or any(word not in known for word in words):
        raise InvalidValue(f"program: {where!r} uses what is not there.")
    arguments = tuple(known[word] for word in words)
    given = [sizes[i] for i in arguments]
    size, most = -1, max(given)
    if op in ONE and len(given) == 1:
        size = given[0]
    elif (op in TWO and len(given) == 2) or (op == "choose" and len(given) == 3):
        size = most if all(k in (1, most) for k in given) else -1
    elif op == "sums" and len(given) == 1 and extra and given[0] % extra == 0:
        size = given[0] // int(extra)
    elif op == "matrix" and len(given) == 1 and isinstance(extra, np.ndarray) and extra.ndim == 2 and extra.shape[1] == given[0]:
        size = extra.shape[0] if extra.dtype == np.float64 and np.isfinite(extra).all() else -1
    elif op == "pick" and isinstance(extra, np.ndarray) and extra.ndim == 1 and extra.dtype == np.int64 and extra.size:
        size = len(extra) if extra.min() >= 0 and extra.max() < sum(given) else -1
    if size < 0:
        raise InvalidValue(f"program: {where!r} is no known operation on vectors of {given} entries.")
    return Line(op, extra, arguments), size


class Names:
    """Names of values at the goal: equal names, equal values."""

    def __init__(self):
        self.known: dict[Any, int] = {}

    def of(self, key: Any) -> int:
        """The name of a value that is made so."""
        return self.known.setdefault(key, len(self.known))

    def vector(self, value: np.ndarray) -> int:
        """The name of a value that is known; 0.0 and -0.0 are equal."""
        return self.of(("vector", (np.asarray(value, float) + 0.0).tobytes()))


def run(program: Program, x: Any, w: Any, names: Names | None = None, here: int | None = None) -> tuple[Any, int | None]:
    """The result; and, with `here` the name of x at the goal, the name of the result there. x, w: numbers of one kind."""
    values = [x, w, *(x.constant(value) for value in program.constants)]
    named: list[int | None] = [None] * len(values)
    if names is not None:
        named = [here, names.of("w"), *(names.vector(value) for value in program.constants)]
    for line in program.lines:
        arguments = [values[i] for i in line.arguments]
        under = [named[i] for i in line.arguments]
        result = apply(line, arguments)
        if names is not None and line.op == "sub" and under[0] is not None and under[0] == under[1]:
            result = result.vanishing()
        values.append(result)
        unnamed = names is None or None in under or line.op == "choose"  # what jumps at the goal need not tend to its value there
        extra = line.extra.tobytes() if isinstance(line.extra, np.ndarray) else line.extra
        named.append(None if unnamed or names is None else names.of((line.op, extra, *under)))
    return values[program.result], named[program.result]


def apply(line: Line, a: list[Any]) -> Any:
    """One operation on numbers."""
    match line.op:
        case "add" | "sub" | "mul":
            return getattr(a[0], line.op)(a[1])
        case "div":
            return a[0].mul(a[1].smooth(SMOOTH["reciprocal"]))
        case "neg":
            return a[0].neg()
        case "max":
            return larger(a[0], a[1])
        case "min":
            return larger(a[0].neg(), a[1].neg()).neg()
        case "abs":
            return larger(a[0], a[0].neg())
        case "matrix":
            return a[0].matrix(line.extra)
        case "sums":
            return a[0].sums(line.extra)
        case "pick":
            return a[0].join(a[1:]).pick(line.extra)
        case "choose":
            return chosen(*a)
    return a[0].smooth(SMOOTH[line.op])


def larger(x: Any, y: Any) -> Any:
    """max(x, y): the one that is surely the larger, else y + max(x - y, 0)."""
    if isinstance(x, Dual):
        value = larger(x.value, y.value)
        return Dual(value, chosen(x.value.sub(y.value), x.tangent, y.tangent))
    apart = x.sub(y)
    low, high = apart.lead()
    return x.where(low >= 0, y.where(high <= 0, y.add(apart.relu())))


def chosen(which: Any, yes: Any, no: Any) -> Any:
    """`yes` where which > 0 for sure, `no` where which < 0 for sure, else what contains both."""
    low, high = (which.value if isinstance(which, Dual) else which).lead()
    return yes.where(low > 0, no.where(high < 0, yes.hull(no)))


class Dual:
    """A number and its derivative along a direction, by the rules of calculus; where max has a kink, all slopes between."""

    def __init__(self, value: Any, tangent: Any):
        self.value, self.tangent = value, tangent

    def constant(self, value: np.ndarray) -> "Dual":
        """An exact vector."""
        return Dual(self.value.constant(value), self.value.constant(np.zeros_like(value)))

    def vanishing(self) -> "Dual":
        """As of Series, for the number."""
        return Dual(self.value.vanishing(), self.tangent)

    def add(self, other: "Dual") -> "Dual":
        """x + y."""
        return Dual(self.value.add(other.value), self.tangent.add(other.tangent))

    def neg(self) -> "Dual":
        """-x."""
        return Dual(self.value.neg(), self.tangent.neg())

    def sub(self, other: "Dual") -> "Dual":
        """x - y."""
        return self.add(other.neg())

    def mul(self, other: "Dual") -> "Dual":
        """x y."""
        return Dual(self.value.mul(other.value), self.value.mul(other.tangent).add(self.tangent.mul(other.value)))

    def matrix(self, W: np.ndarray) -> "Dual":
        """W x."""
        return Dual(self.value.matrix(W), self.tangent.matrix(W))

    def sums(self, terms: int) -> "Dual":
        """The sums of each `terms` entries in a row."""
        return Dual(self.value.sums(terms), self.tangent.sums(terms))

    def pick(self, index: np.ndarray) -> "Dual":
        """The entries of these numbers."""
        return Dual(self.value.pick(index), self.tangent.pick(index))

    def join(self, others: Sequence["Dual"]) -> "Dual":
        """The entries of all."""
        return Dual(self.value.join([x.value for x in others]), self.tangent.join([x.tangent for x in others]))

    def smooth(self, f: Smooth) -> "Dual":
        """f(x)."""
        value = self.value.smooth(f)
        return Dual(value, RATES[f.name](self.value, value).mul(self.tangent))


def _number(like: Any, value: float) -> Any:
    return like.constant(np.array([value]))


RATES = {  # f' as an expression in z and f = f(z)
    "sin": lambda z, f: z.smooth(SMOOTH["cos"]),
    "cos": lambda z, f: z.smooth(SMOOTH["sin"]).neg(),
    "tanh": lambda z, f: _number(z, 1.0).sub(f.mul(f)),
    "logistic": lambda z, f: f.mul(_number(z, 1.0).sub(f)),
    "atan": lambda z, f: _number(z, 1.0).add(z.mul(z)).smooth(SMOOTH["reciprocal"]),
    "exp": lambda z, f: f,
    "log": lambda z, f: z.smooth(SMOOTH["reciprocal"]),
    "sqrt": lambda z, f: f.smooth(SMOOTH["reciprocal"]).mul(_number(z, 0.5)),
    "reciprocal": lambda z, f: f.mul(f).neg(),
}

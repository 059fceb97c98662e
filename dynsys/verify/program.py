"""A function written in jnp as a straight-line program that a person can read and a checker can run without JAX.

    program = trace(lambda loop, x, w: loop.advance(x, w), loop, n=2, p=0)
    program.text              v0 = matrix k0 x
                              v1 = tanh v0 ...             the language: `check_program.py`

The jaxpr of the function is rewritten: every array becomes a flat vector; whatever only moves entries becomes one `pick`, whose numbers
are found by running the primitive on positions; products of arrays become `matrix` (one factor constant) or `mul` and `sums`; comparisons
become `choose`. Constants are not computed with, so that phi(goal) stays a formula: floats would round it. An operation outside the list
is an error.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from dynsys.errors import InvalidValue
from dynsys.precision import x64

SAME = ("copy", "copy_p", "stop_gradient", "optimization_barrier")
INLINED = (
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "custom_jvp_call",
    "custom_vjp_call",
    "custom_vjp_call_jaxpr",
    "remat",
    "checkpoint",
    "remat2",
)
MOVING = (
    "broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "slice", "rev", "split", "gather", "dynamic_slice", "concatenate",
    "stack", "pad", "dynamic_update_slice", "scatter",
)  # fmt: skip
EXACT = (
    *MOVING,
    "neg",
    "abs",
    "max",
    "min",
    "iota",
    "convert_element_type",
    "floor",
    "ceil",
    "clamp",
    "select_n",
    "sign",
    "argmax",
    "argmin",
)
ONE = {"neg": "neg", "abs": "abs", "sin": "sin", "cos": "cos", "tanh": "tanh", "logistic": "logistic", "atan": "atan", "exp": "exp",
       "log": "log", "sqrt": "sqrt"}  # fmt: skip
TWO = {"add": "add", "add_any": "add", "sub": "sub", "mul": "mul", "div": "div"}
UNROLLED = 256  # longest scan that is written out


@dataclass(frozen=True)
class ProgramText:
    """The lines, and the arrays that they name: k0, ... float64 vectors and matrices, i0, ... int64 vectors."""

    text: str
    arrays: dict[str, np.ndarray]


class Vector(NamedTuple):
    """A value of the program: its name, and the shape that it has in the function."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many entries it has."""
        return math.prod(self.shape)


class Truth(NamedTuple):
    """A comparison: `of` > 0, or not that."""

    of: Vector
    turned: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """As of what is compared."""
        return self.of.shape


def trace(f: Callable[..., Any], tree: Any, *, n: int, p: int | None = None) -> ProgramText:
    """The program of f(tree, x), or of f(tree, x, w) if p is given; x (n,), w (p,). The arrays of `tree` are its constants.

    Raises InvalidValue for an operation that a program can't have, or for float32 inside f.
    """
    with x64():
        leaves, structure = jax.tree_util.tree_flatten(tree)
        arrays = [np.asarray(x) for x in leaves if eqx.is_array(x)]
        inputs = [jnp.zeros(n)] if p is None else [jnp.zeros(n), jnp.zeros(p)]

        def flat(arrays: Any, *inputs: Any) -> Any:
            given = iter(arrays)
            return f(jax.tree_util.tree_unflatten(structure, [next(given) if eqx.is_array(x) else x for x in leaves]), *inputs)

        closed = jax.make_jaxpr(flat)(arrays, *inputs)
        writer = _Writer()
        named = [Vector("x", (n,)), Vector("w", (p or 0,))][: len(inputs)]
        (result,) = writer.run(closed.jaxpr, closed.consts, [*arrays, *named])
        last = writer.vector(result).name
    return ProgramText("\n".join([*writer.lines, f"return {last}"]) + "\n", writer.arrays)


def evaluate(program: ProgramText, x: Any, w: Any = ()) -> np.ndarray:
    """What the program gives in plain floats."""
    known = {"x": np.asarray(x, float), "w": np.asarray(w, float), **program.arrays}
    functions: dict[str, Callable[..., Any]] = {
        "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "max": np.maximum, "min": np.minimum, "neg": np.negative,
        "abs": np.abs, "sin": np.sin, "cos": np.cos, "tanh": np.tanh, "exp": np.exp, "log": np.log, "sqrt": np.sqrt, "atan": np.arctan,
        "logistic": lambda z: 0.5 * (1 + np.tanh(0.5 * z)), "choose": lambda s, yes, no: np.where(s > 0, yes, no),
        "matrix": lambda W, z: W @ z, "sums": lambda k, z: z.reshape(-1, int(k[0])).sum(1), "pick": lambda i, *z: np.concatenate(z)[i],
    }  # fmt: skip
    *body, last = (line.split() for line in program.text.splitlines())
    value = last[1]

    def read(word: str) -> np.ndarray:
        return known[word] if word in known else np.array([float(word)])

    for name, _, op, *words in body:
        known[name] = functions[op](*(read(word) for word in words))
    return read(value)


class _Writer:
    """Values are exact arrays, Vectors or Truths; lines that are equal are written once."""

    def __init__(self):
        self.lines: list[str] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.written: dict[Any, str] = {}

    def vector(self, value: Any) -> Vector:
        """A value as a vector; an exact one becomes a constant."""
        if isinstance(value, Vector):
            return value
        value = np.asarray(value, float)
        flat = value.ravel() + 0.0
        if not np.isfinite(flat).all():
            raise InvalidValue("program: a constant is not finite.")
        if flat.size and np.all(flat == flat[0]) and flat.size == 1:
            return Vector(repr(float(flat[0])), value.shape)
        return Vector(self.array("k", flat), value.shape)

    def array(self, letter: str, value: np.ndarray) -> str:
        """The name of an array of the file."""
        key = (letter, value.shape, value.tobytes())
        if key not in self.written:
            self.written[key] = f"{letter}{sum(name[0] == letter for name in self.arrays)}"
            self.arrays[self.written[key]] = np.ascontiguousarray(value)
        return self.written[key]

    def line(self, shape: Any, *words: str) -> Vector:
        """A new vector."""
        text = " ".join(words)
        if text not in self.written:
            self.written[text] = f"v{len(self.lines)}"
            self.lines.append(f"{self.written[text]} = {text}")
        return Vector(self.written[text], tuple(shape))

    def operate(self, op: str, *values: Any) -> Vector:
        """An operation entry by entry; operands of one entry stay so."""
        shape = np.broadcast_shapes(*(np.shape(x) if not isinstance(x, Vector) else x.shape for x in values))
        size = math.prod(shape)
        made = [self.vector(x) for x in values]
        words = [x.name if x.size in (1, size) else self.spread(x, shape).name for x in made]
        if size != 1 and all(x.size == 1 for x in made):
            words[0] = self.spread(made[0], shape).name
        return self.line(shape, op, *words)

    def spread(self, x: Vector, shape: Any) -> Vector:
        """A vector repeated to a shape."""
        return self.pick([x], np.broadcast_to(np.arange(x.size).reshape(x.shape), shape))

    def pick(self, sources: list[Vector], index: Any) -> Vector:
        """Entries of vectors put one after the other."""
        flat = np.asarray(index, np.int64).ravel()
        total = sum(x.size for x in sources)
        if flat.size and not (flat.min() >= 0 and flat.max() < total):
            raise InvalidValue("program: an index leaves its array.")
        if len(sources) == 1 and flat.size == total and np.array_equal(flat, np.arange(total)):
            return Vector(sources[0].name, np.shape(index))
        return self.line(np.shape(index), "pick", self.array("i", flat), *(x.name for x in sources))

    def run(self, jaxpr: Any, consts: Any, arguments: Any) -> list[Any]:
        known: dict[Any, Any] = dict(zip(jaxpr.constvars, map(_exact, consts), strict=True)) | dict(
            zip(jaxpr.invars, arguments, strict=True)
        )

        def read(atom: Any) -> Any:
            return np.asarray(atom.val) if isinstance(atom, Literal) else known[atom]

        for equation in jaxpr.eqns:
            results = self.step(equation, [read(atom) for atom in equation.invars])
            known.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def step(self, equation: Any, x: list[Any]) -> list[Any]:
        name, params, out = equation.primitive.name, equation.params, equation.outvars[0].aval if equation.outvars else None
        if name in INLINED:
            inner = next(params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params)
            return self.run(inner.jaxpr if hasattr(inner, "consts") else inner, getattr(inner, "consts", ()), x)
        if name in SAME:
            return x
        if name == "scan" and params["length"] <= UNROLLED:
            return self.scan(params, x)
        floats = any(jnp.issubdtype(v.aval.dtype, jnp.floating) for v in equation.outvars)
        if not any(isinstance(z, Vector | Truth) for z in x) and (name in EXACT or not floats):
            with jax.ensure_compile_time_eval():
                made = equation.primitive.bind(*(jnp.asarray(z) for z in x), **params)
            return [np.asarray(z) for z in (made if equation.primitive.multiple_results else [made])]
        if floats and out is not None and out.dtype != jnp.float64:
            raise InvalidValue(f"program: {name} gives {out.dtype}, but certificates are in float64.")
        if name in MOVING:
            return self.move(equation, x)
        result = self.apply(name, params, x, () if out is None else out.shape)
        if result is None:
            raise InvalidValue(
                f"program: '{name}' is no operation of certificates. They have sums, products, quotients, whole powers, abs, max, min, "
                f"clip, where, {', '.join(ONE)}."
            )
        return [result]

    def scan(self, params: Any, x: list[Any]) -> list[Any]:
        """A loop of known length, written out."""
        a, b = params["num_consts"], params["num_consts"] + params["num_carry"]
        consts, carry, rows, collected = x[:a], x[a:b], x[b:], []
        for i in range(params["length"])[:: -1 if params["reverse"] else 1]:
            now = [self.spot(z, i) for z in rows]
            out = self.run(params["jaxpr"].jaxpr, params["jaxpr"].consts, [*consts, *carry, *now])
            carry = out[: b - a]
            collected.append(out[b - a :])
        columns = zip(*(collected[:: -1 if params["reverse"] else 1]), strict=True)
        return [*carry, *(self.stack([self.vector(z) for z in column]) for column in columns)]

    def spot(self, z: Any, i: int) -> Any:
        if not isinstance(z, Vector):
            return z[i]
        return self.pick([z], np.arange(z.size).reshape(z.shape)[i])

    def stack(self, parts: list[Vector]) -> Vector:
        return self.pick(parts, np.arange(sum(x.size for x in parts)).reshape(len(parts), *parts[0].shape))

    def move(self, equation: Any, x: list[Any]) -> list[Any]:
        """Entries moved: the primitive, run on positions in the operands put one after the other."""
        if isinstance(x[0], Truth):
            return [Truth(moved, x[0].turned) for moved in self.move(equation, [x[0].of, *x[1:]])]
        whole = {"concatenate": len(x), "stack": len(x), "pad": 2, "dynamic_update_slice": 2}.get(equation.primitive.name, 1)
        moving = (0, 2) if equation.primitive.name == "scatter" else tuple(range(whole))
        sources, given, at = [], list(x), 0
        for i in moving:
            sources.append(self.vector(x[i]))
            given[i] = np.arange(at, at + sources[-1].size).reshape(sources[-1].shape)
            at += sources[-1].size
        if any(isinstance(z, Vector | Truth) for z in given):
            raise InvalidValue(f"program: the indices of '{equation.primitive.name}' must not depend on the state.")
        with jax.ensure_compile_time_eval():
            made = equation.primitive.bind(*(jnp.asarray(z) for z in given), **equation.params)
        return [self.pick(sources, np.asarray(z)) for z in (made if equation.primitive.multiple_results else [made])]

    def apply(self, name: str, params: Any, x: list[Any], shape: Any) -> Any:
        """One operation on values of which at least one is a vector or the result is not exact; None if it is not of the list."""
        if name in TWO:
            return self.operate(TWO[name], *x)
        if name in ONE and not isinstance(x[0], Truth):
            return self.operate(ONE[name], x[0])
        match name:
            case "max" | "min":
                return self.limited(name, x[0], x[1])
            case "clamp":
                return self.limited("min", self.limited("max", x[1], x[0]), x[2])
            case "square":
                return self.operate("mul", x[0], x[0])
            case "integer_pow":
                return self.power(self.vector(x[0]), params["y"])
            case "pow" if not isinstance(x[1], Vector) and np.ndim(x[1]) == 0:
                p = float(x[1])
                if p == int(p):
                    return self.power(self.vector(x[0]), int(p))
                return self.operate("exp", self.operate("mul", np.float64(p), self.operate("log", x[0])))
            case "rsqrt":
                return self.operate("div", np.float64(1.0), self.operate("sqrt", x[0]))
            case "tan":
                return self.operate("div", self.operate("sin", x[0]), self.operate("cos", x[0]))
            case "dot_general":
                return self.dot(x[0], x[1], params["dimension_numbers"], shape)
            case "reduce_sum":
                v = self.vector(x[0])
                kept = [i for i in range(len(v.shape)) if i not in params["axes"]]
                index = np.arange(v.size).reshape(v.shape).transpose([*kept, *params["axes"]])
                terms = math.prod(v.shape[i] for i in params["axes"])
                return self.summed(self.pick([v], index.reshape(*shape, terms)), terms, shape)
            case "reduce_max" | "reduce_min":
                v = self.vector(x[0])
                index = np.moveaxis(np.arange(v.size).reshape(v.shape), params["axes"], range(len(params["axes"]))).reshape(-1, *shape)
                parts = [self.pick([v], row) for row in index]
                while len(parts) > 1:
                    parts = [self.operate(name[7:], *parts[i : i + 2]) if i + 1 < len(parts) else parts[i] for i in range(0, len(parts), 2)]
                return parts[0]
            case "gt" | "lt" | "ge" | "le" if not isinstance(x[0], Truth) and not isinstance(x[1], Truth):
                more, less = x if name in ("gt", "le") else x[::-1]  # x >= y is not (y > x), x <= y is not (x > y)
                apart = more if not isinstance(less, Vector) and not np.any(less) else self.operate("sub", more, less)
                apart = self.vector(apart)
                return Truth(apart if apart.shape == tuple(shape) else self.spread(apart, shape), name in ("ge", "le"))
            case "not" if isinstance(x[0], Truth):
                return Truth(x[0].of, not x[0].turned)
            case "and" | "or":
                one, two = x
                if isinstance(one, Truth) and isinstance(two, Truth) and one.turned == two.turned:
                    return Truth(self.operate("min" if (name == "and") != one.turned else "max", one.of, two.of), one.turned)
            case "select_n" if len(x) == 3:
                return self.select(x[0], x[1], x[2])
            case "sign":
                down = self.operate("choose", self.operate("neg", x[0]), np.full(shape, -1.0), np.zeros(shape))
                return self.operate("choose", x[0], np.ones(shape), down)
            case "convert_element_type" if isinstance(x[0], Truth):
                return self.select(x[0], np.zeros(shape), np.ones(shape))
            case "convert_element_type":
                return x[0]
        return None

    def limited(self, op: str, x: Any, y: Any) -> Any:
        """max or min; limits that are infinite are none."""
        if not isinstance(x, Vector):
            x, y = y, x
        if isinstance(y, Vector) or np.isfinite(y).all():
            return self.operate(op, x, y)
        if not np.all(np.isfinite(y) | (y == (-np.inf if op == "max" else np.inf))):
            raise InvalidValue(f"program: {op} with an infinite constant is constant.")
        shape = np.broadcast_shapes(x.shape, np.shape(y))
        x, y = self.spread(x, shape), np.broadcast_to(y, shape)
        there = np.flatnonzero(np.isfinite(y))
        if not len(there):
            return x
        some = self.operate(op, self.pick([x], there), y.ravel()[there])
        index = np.arange(x.size)
        index[there] = x.size + np.arange(len(there))
        return self.pick([x, some], index.reshape(shape))

    def select(self, which: Any, no: Any, yes: Any) -> Any:
        """`yes` where a comparison holds; where(x > 0, x, 0) and where(x > 0, x, a x), 0 <= a <= 1, are max."""
        if isinstance(no, Truth) or isinstance(yes, Truth):
            return None
        if not isinstance(which, Truth):
            return self.choose_exactly(which, no, yes)
        if which.turned:
            no, yes = yes, no
        if isinstance(yes, Vector) and yes.name == which.of.name:
            if not isinstance(no, Vector) and not np.any(no):
                return self.operate("max", yes, np.float64(0.0))
            words = next((line.split()[2:] for line in self.lines if isinstance(no, Vector) and line.startswith(f"{no.name} = mul ")), [])
            factors = [word for word in words[1:] if word != yes.name]
            if yes.name in words[1:] and len(factors) == 1 and _between(factors[0]):
                return self.operate("max", yes, no)
        return self.operate("choose", which.of, yes, no)

    def choose_exactly(self, which: Any, no: Any, yes: Any) -> Any:
        no, yes = self.vector(no), self.vector(yes)
        index = np.arange(no.size).reshape(no.shape)
        return self.pick([no, yes], np.where(np.broadcast_to(which, no.shape), index + no.size, index))

    def power(self, x: Vector, y: int) -> Vector:
        """x^y by repeated squaring."""
        if y < 0:
            return self.operate("div", np.float64(1.0), self.power(x, -y))
        if y == 0:
            return self.vector(np.ones(x.shape))
        if y == 1:
            return x
        half = self.power(x, y // 2)
        square = self.operate("mul", half, half)
        return self.operate("mul", square, x) if y % 2 else square

    def summed(self, x: Vector, terms: int, shape: Any) -> Vector:
        return Vector(x.name, tuple(shape)) if terms == 1 else self.line(shape, "sums", str(terms), x.name)

    def dot(self, x: Any, y: Any, numbers: Any, shape: Any) -> Vector:
        """A general product of arrays: a matrix times a vector if one factor is exact, else products and their sums.

        If both are, one is taken as the vector, so that phi(goal) is written as phi(x) is.
        """
        if not isinstance(x, Vector) and not isinstance(y, Vector):
            x, y = (x, self.vector(y)) if np.ndim(y) <= np.ndim(x) else (self.vector(x), y)
        for exact, v, first in ((x, y, True), (y, x, False)):
            if not isinstance(exact, Vector) and isinstance(v, Vector):
                with jax.ensure_compile_time_eval():  # the columns of the matrix: sums of one number and zeros are exact
                    units = jnp.eye(v.size).reshape(v.size, *v.shape)
                    W = jax.vmap(lambda e, k=exact, first=first: jax.lax.dot_general(*((k, e) if first else (e, k)), numbers))(units)
                return self.line(shape, "matrix", self.array("k", np.asarray(W).reshape(v.size, -1).T + 0.0), v.name)
        x, y = self.vector(x), self.vector(y)
        (xc, yc), (xb, yb) = numbers
        terms = math.prod(x.shape[i] for i in xc)
        fx, fy = ([i for i in range(len(z.shape)) if i not in (*c, *b)] for z, c, b in ((x, xc, xb), (y, yc, yb)))
        batch, nx, ny = (tuple(z.shape[i] for i in axes) for z, axes in ((x, xb), (x, fx), (y, fy)))
        whole = (math.prod(batch), math.prod(nx), math.prod(ny), terms)
        left = np.arange(x.size).reshape(x.shape).transpose([*xb, *fx, *xc]).reshape(whole[0], whole[1], 1, terms)
        right = np.arange(y.size).reshape(y.shape).transpose([*yb, *fy, *yc]).reshape(whole[0], 1, whole[2], terms)
        product = self.operate("mul", *(self.pick([z], np.broadcast_to(i, whole)) for z, i in ((x, left), (y, right))))
        return self.summed(product, terms, shape)


def _exact(value: Any) -> np.ndarray:
    return np.asarray(value)


def _between(word: str) -> bool:
    try:
        return 0 <= float(word) <= 1
    except ValueError:
        return False

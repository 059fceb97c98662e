"""Bounds of any function written in jnp: its program (jaxpr) run on numbers with known bounds instead of floats.

    bounded(f, *arguments) -> what f returns, as numbers

Arguments are trees whose leaves are exact arrays or numbers. f is read as a formula over the real numbers in which every constant is the
float64 number that it is written as; the bounds contain its value, whatever rounding does.

Near the goal, every value also carries a name for what it is at the goal (value numbering), so that phi(x) - phi(goal) is known to be
exactly zero there, which no arithmetic with rounding would tell.
"""

import itertools
import traceback
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import Literal

from dynsys.errors import InvalidValue
from dynsys.verify import rules
from dynsys.verify.affine import Affine, Verdict, lift
from dynsys.verify.functions import COS, FUNCTIONS, SIN, power
from dynsys.verify.germ import Germ

INLINED = {
    "jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr",
    "remat", "checkpoint", "remat2",
}  # fmt: skip
UNNAMED = {"sign", "select_n", "eq", "ne", "lt", "le", "gt", "ge"}  # their numbers need not be what they are at the goal
UNROLLED = 256  # longest scan that is written out
SAME = {"copy", "copy_p", "stop_gradient", "optimization_barrier"}


class Names:
    """Names of values at the goal: equal names, equal values. Objects are kept, so that their ids stay theirs."""

    def __init__(self):
        self.known: dict[Any, int] = {}
        self.of: dict[int, int] = {}
        self.kept: list[Any] = []

    def give(self, value: Any, key: Any) -> None:
        """Name a value by what it is made of."""
        self.kept.append(value)
        self.of[id(value)] = self.known.setdefault(key, len(self.known))

    def made(self, value: Any, kind: str, *operands: Any) -> Any:
        """The value, named by what it is made of if all of that has a name."""
        parts = tuple(x if isinstance(x, int | str) else self.of.get(id(x)) for x in operands)
        if None not in parts and id(value) not in self.of:
            self.give(value, (kind, parts))
        return value

    def has(self, value: Any) -> bool:
        """Whether a value has a name: then no choice between formulas lies behind it, and it is near the goal what it is at the goal."""
        return id(value) in self.of

    def same(self, x: Any, y: Any) -> bool:
        """Whether two values have the same name."""
        name = self.of.get(id(x))
        return name is not None and name == self.of.get(id(y))


def bounded(f: Callable[..., Any], *arguments: Any, names: Names | None = None, seen: list[Any] | None = None) -> Any:
    """f of numbers; see the module. seen: gets (whether of a product, plane) of every operand that is bent.

    Raises InvalidValue for a primitive without a rule, or for float32 inside f.
    """
    names = Names() if names is None else names
    leaves, tree = jax.tree_util.tree_flatten(arguments, is_leaf=_is_value)
    moving = [rules.numeric(x) or eqx.is_array(x) for x in leaves]
    values = [x for x, m in zip(leaves, moving, strict=True) if m]

    def flat(*given: Any) -> Any:
        left = iter(given)
        return f(*jax.tree_util.tree_unflatten(tree, [next(left) if m else x for x, m in zip(leaves, moving, strict=True)]))

    blanks = [jax.ShapeDtypeStruct(x.shape, jnp.float64 if rules.numeric(x) else x.dtype) for x in values]
    closed, shapes = jax.make_jaxpr(flat, return_shape=True)(*blanks)
    program = _Program(names, seen)
    outputs = program.run(closed.jaxpr, closed.consts, values)
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(shapes), outputs)


def reached(jaxpr: Any, inputs: list[bool]) -> list[bool]:
    """Which outputs of a program the marked inputs may reach."""
    marked = {variable for variable, mark in zip(jaxpr.invars, inputs, strict=True) if mark}
    for equation in jaxpr.eqns:
        given = [not isinstance(atom, Literal) and atom in marked for atom in equation.invars]
        if any(given):
            through = [True] * len(equation.outvars)
            if equation.primitive.name in INLINED:
                inner = _inner(equation)[0]
                through = reached(inner, given) if len(inner.invars) == len(given) else through
            marked |= {variable for variable, mark in zip(equation.outvars, through, strict=True) if mark}
    return [not isinstance(atom, Literal) and atom in marked for atom in jaxpr.outvars]


def _inner(equation: Any) -> tuple[Any, Any]:
    """The program inside of a call and its constants."""
    inner = next(equation.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in equation.params)
    return (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, ())


def _is_value(x: Any) -> bool:
    return isinstance(x, Affine | Germ)


class _Program:
    """Runs a program equation by equation.

    Remembered, by the id of a value q: `scaled` (factor, x) where q = factor x, for leaky rectifiers; `larger` (x, y) where q = max(x, y),
    and `smaller`, because JAX finds the derivative of max by asking whether x == q.
    """

    def __init__(self, names: Names, seen: list[Any] | None = None):
        self.names = names
        self.seen = seen
        self.within: list[Any] = []
        self.scaled: dict[int, tuple[float, Any]] = {}
        self.larger: dict[int, tuple[Any, Any]] = {}
        self.smaller: dict[int, tuple[Any, Any]] = {}

    def run(self, jaxpr: Any, consts: Any, arguments: Any) -> list[Any]:
        known: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True)) | dict(zip(jaxpr.invars, arguments, strict=True))

        for value in consts:
            if not self.names.has(value):
                self.names.give(value, ("constant", id(value)))

        def read(atom: Any) -> Any:
            if isinstance(atom, Literal):
                value = np.asarray(atom.val)
                self.names.give(value, ("literal", str(value.dtype), value.shape, value.tobytes()))
                return value
            return known[atom]

        for equation in jaxpr.eqns:
            operands = [read(atom) for atom in equation.invars]
            results = self.step(equation, operands)
            for variable, result in zip(equation.outvars, results, strict=True):
                known[variable] = result
        return [read(atom) for atom in jaxpr.outvars]

    def step(self, equation: Any, operands: list[Any]) -> list[Any]:
        name, params = equation.primitive.name, equation.params
        if name in INLINED:
            jaxpr, consts = _inner(equation)
            self.within.append(equation)
            results = self.run(jaxpr, consts, operands)
            self.within.pop()
            return results
        if name in SAME:
            return operands
        if name == "scan" and params["length"] <= UNROLLED:
            return self.scan(params, operands)
        exact = not any(rules.numeric(x) or isinstance(x, Verdict) for x in operands)
        floats = any(jnp.issubdtype(v.aval.dtype, jnp.floating) for v in equation.outvars)
        if exact and (name in rules.EXACT or not floats):
            results = _bind(equation, operands)
        else:
            if floats and any(v.aval.dtype != jnp.float64 for v in equation.outvars if jnp.issubdtype(v.aval.dtype, jnp.floating)):
                raise InvalidValue(
                    f"bounds: {name} gives {equation.outvars[0].aval.dtype}, but proofs are in float64.{self.where(equation)}"
                )
            result = self.apply(name, params, operands, equation)
            results = result if isinstance(result, list) else [result]
        self.baptise(equation, operands, results)
        return results

    def baptise(self, equation: Any, operands: list[Any], results: list[Any]) -> None:
        parts = [self.names.of.get(id(x)) for x in operands]
        if None in parts or (equation.primitive.name in UNNAMED and not all(_plain(x) for x in operands)):
            return
        for i, result in enumerate(results):
            if id(result) not in self.names.of:
                self.names.give(result, (equation.primitive.name, str(equation.params), tuple(parts), i))

    def scan(self, params: Any, operands: list[Any]) -> list[Any]:
        """A loop of known length, written out."""
        n_consts, n_carry, length = params["num_consts"], params["num_carry"], params["length"]
        consts, carry, xs = operands[:n_consts], operands[n_consts : n_consts + n_carry], operands[n_consts + n_carry :]
        collected = []
        order = range(length - 1, -1, -1) if params["reverse"] else range(length)
        for i in order:
            rows = [x.moved(lambda z, i=i: z[i]) if rules.numeric(x) else x[i] for x in xs]
            rows = [self.names.made(row, "row", x, i) for row, x in zip(rows, xs, strict=True)]
            out = self.run(params["jaxpr"].jaxpr, params["jaxpr"].consts, [*consts, *carry, *rows])
            carry = out[:n_carry]
            collected.append(out[n_carry:])
        if params["reverse"]:
            collected.reverse()
        columns = zip(*collected, strict=True)
        return [*carry, *(self.names.made(_joined(lambda *z: jnp.stack(z), list(c)), "stack", *c) for c in columns)]

    def apply(self, name: str, params: Any, x: Any, equation: Any) -> Any:
        """The rule of one primitive, on operands of which at least one is a number or the result is not exact."""
        if self.seen is not None and (name in rules.BENT or name in rules.PRODUCTS):
            planes = [z.a for z in x if isinstance(z, Affine) and z.a is not None]
            product = name in rules.PRODUCTS
            self.seen += [(product, a) for a in planes if len(planes) == 2 or not product]
        if name in rules.PLAIN | rules.PICKING and not isinstance(x[0], Verdict) and rules.numeric(x[0]):
            return _split(x[0], params) if name == "split" else x[0].moved(lambda z: equation.primitive.bind(z, *x[1:], **params))
        if name in rules.PLAIN and isinstance(x[0], Verdict):
            return Verdict(*(equation.primitive.bind(z, **params) for z in x[0][:2]))
        if name in rules.JOINING:
            return self.join(name, params, x, equation)
        if name in FUNCTIONS:
            return _number(x[0]).smooth(FUNCTIONS[name])
        match name:
            case "add" | "add_any":
                return rules.add(*_numbers(x))
            case "sub":
                if self.names.same(*x):
                    difference = rules.subtract(*_numbers(x))
                    return difference.at_rest(None) if isinstance(difference, Germ) else jnp.zeros(difference.shape)
                return rules.subtract(*_numbers(x))
            case "mul":
                product = rules.multiply(*_numbers(x))
                for factor, other in (x, x[::-1]):
                    if not rules.numeric(factor) and np.ndim(factor) == 0 and not isinstance(factor, Tracer):
                        self.names.kept.append(product)
                        self.scaled[id(product)] = (float(factor), other)
                return product
            case "div":
                return rules.divide(*x)
            case "neg":
                return x[0].negated()
            case "abs":
                return x[0].absolute()
            case "sign":
                return x[0].sign()
            case "max" | "min":
                known = self.leaky(x[0], x[1]) or self.leaky(x[1], x[0]) if name == "max" else None
                result = known or (rules.maximum if name == "max" else rules.minimum)(*x)
                self.names.kept.append(result)
                (self.larger if name == "max" else self.smaller)[id(result)] = (x[0], x[1])
                return result
            case "clamp":
                return rules.clamp(*x)
            case "square":
                return _number(x[0]).times(x[0])
            case "integer_pow":
                return rules.integer_power(_number(x[0]), params["y"])
            case "pow":
                exponent = x[1]
                if rules.numeric(exponent) or isinstance(exponent, Tracer) or np.ndim(exponent):
                    raise InvalidValue(f"bounds: the exponent of a power must be a plain number.{self.where(equation)}")
                p = float(exponent)
                return rules.integer_power(_number(x[0]), int(p)) if p == int(p) else _number(x[0]).smooth(power(p))
            case "tan":
                return rules.divide(_number(x[0]).smooth(SIN), _number(x[0]).smooth(COS))
            case "exp2":
                return _number(x[0]).times(lift(jnp.asarray(2.0)).smooth(FUNCTIONS["log"])).smooth(FUNCTIONS["exp"])
            case "dot_general":
                left, right = _numbers(x)
                return rules.dot(left, right, params["dimension_numbers"])
            case "reduce_sum":
                return rules.total(_number(x[0]), params["axes"])
            case "reduce_max":
                return rules.fold(x[0], params["axes"], rules.maximum)
            case "reduce_min":
                return rules.fold(x[0], params["axes"], rules.minimum)
            case "eq" | "ne" | "lt" | "le" | "gt" | "ge" if not any(isinstance(z, Verdict) for z in x):
                return (self.attained(*x) or self.attained(*x[::-1]) if name == "eq" else None) or rules.compare(name, *x)
            case "not":
                return Verdict(x[0].no, x[0].yes)
            case "and":
                return rules.both(*x)
            case "or":
                return rules.either(*x)
            case "is_finite":
                known = jnp.isfinite(sum(x[0].range()))
                return Verdict(known, jnp.zeros_like(known))
            case "select_n" if len(x) == 3:
                leak = self.leaky_select(*x)
                return rules.select(*x) if leak is None else self.names.made(leak, "rectifier", x[1], x[2])
            case "convert_element_type":
                if isinstance(x[0], Verdict):
                    return x[0] if params["new_dtype"] == jnp.bool_ else rules.indicator(x[0])
                if params["new_dtype"] == jnp.float64:
                    return x[0]
        raise InvalidValue(
            f"bounds: no rule for the primitive '{name}'. Write the function with sums, products, divisions, powers, abs, max, min, clip, "
            f"where, {', '.join(sorted(FUNCTIONS))}.{self.where(equation)}"
        )

    def join(self, name: str, params: Any, x: list[Any], equation: Any) -> Any:
        """Several operands put together."""
        if name in ("concatenate", "stack"):
            return _joined(lambda *z: equation.primitive.bind(*z, **params), x)
        if name == "pad":
            return _joined(lambda *z: equation.primitive.bind(*z, **params), x)
        if name == "scatter":  # operand, indices, updates
            return _joined(lambda a, b: equation.primitive.bind(a, x[1], b, **params), [x[0], x[2]])
        return _joined(lambda a, b: equation.primitive.bind(a, b, *x[2:], **params), x[:2])

    def where(self, equation: Any) -> str:
        """The line of the user's function, if it is known."""
        for inner in (equation, *reversed(self.within)):
            raw = inner.source_info.traceback
            frames = [] if raw is None else traceback.extract_tb(raw.as_python_traceback())
            own = [f for f in frames if "site-packages" not in f.filename and not f.filename.endswith("dynsys/verify/interpret.py")]
            if own:
                return f" It stands in {own[-1].filename}, line {own[-1].lineno}: {own[-1].line}"
        return ""

    def leaky(self, x: Any, q: Any) -> Any:
        """max(x, factor x) as one rectifier."""
        factor, base = self.scaled.get(id(q), (2.0, None))
        return x.rectified(factor) if base is x and -1 <= factor <= 1 else None

    def attained(self, x: Any, q: Any) -> Any:
        """x == max(x, y) as x >= y, and x == min(x, y) as x <= y."""
        for kind, known in (("ge", self.larger), ("le", self.smaller)):
            if id(q) in known:
                first, second = known[id(q)]
                for this, other in ((first, second), (second, first)):
                    if this is x or self.names.same(this, x):
                        return rules.compare(kind, this, other)
        return None

    def leaky_select(self, which: Any, no: Any, yes: Any) -> Any:
        """where(x > 0, x, factor x) as one rectifier."""
        if not isinstance(which, Verdict) or which.left is not yes or not rules.is_zero(which.right):
            return None
        if rules.is_zero(no):
            return yes.rectified()
        return self.leaky(yes, no)


def _plain(x: Any) -> bool:
    return not rules.numeric(x) and not isinstance(x, Verdict)


def _number(x: Any) -> Any:
    return x if rules.numeric(x) else lift(x)


def _numbers(x: list[Any]) -> list[Any]:
    """Operands of which at least one is a number."""
    return x if any(rules.numeric(z) for z in x) else [lift(x[0]), *x[1:]]


def _joined(join: Callable[..., Any], x: list[Any]) -> Any:
    if any(isinstance(z, Verdict) for z in x):
        return Verdict(*(join(*column) for column in zip(*((rules.verdict(z).yes, rules.verdict(z).no) for z in x), strict=True)))
    germ = next((z for z in x if isinstance(z, Germ)), None)
    return Affine.joined(join, x) if germ is None else germ.joined(join, x)


def _split(x: Any, params: Any) -> list[Any]:
    edges = np.cumsum([0, *params["sizes"]])
    return [x.moved(lambda z, a=int(a), b=int(b): jax.lax.slice_in_dim(z, a, b, axis=params["axis"])) for a, b in itertools.pairwise(edges)]


def _bind(equation: Any, operands: list[Any]) -> list[Any]:
    """The primitive itself; at once where its operands are known already."""
    if any(isinstance(x, Tracer) for x in operands):
        results = equation.primitive.bind(*operands, **equation.params)
    else:
        with jax.ensure_compile_time_eval():
            results = equation.primitive.bind(*operands, **equation.params)
    return list(results) if equation.primitive.multiple_results else [results]

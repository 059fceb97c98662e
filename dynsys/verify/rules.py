"""What each primitive of JAX does to numbers with known bounds (`affine.py`, `germ.py`).

A value is an exact array (also of integers and booleans), a number, or a Verdict (a comparison of numbers). A rule takes the parameters of
the primitive and its operands. PLAIN ones pick and repeat entries, JOINING ones put several operands together; the others do arithmetic.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from dynsys.verify.affine import Affine, Verdict, lift
from dynsys.verify.functions import FUNCTIONS, RECIPROCAL
from dynsys.verify.germ import Germ

Number = Affine | Germ
PLAIN = {"broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "slice", "rev", "copy", "copy_p", "split"}
PICKING = {"gather", "dynamic_slice"}  # the operand may be a number; the indices are exact
JOINING = {  # several operands; indices, if any, are exact
    "concatenate", "stack", "pad", "dynamic_update_slice", "scatter",
}  # fmt: skip
EXACT = {  # of exact arrays, these give exact arrays
    *PLAIN, *PICKING, *JOINING,
    "neg", "abs", "max", "min", "sign", "clamp", "select_n", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "xor", "iota",
    "convert_element_type", "stop_gradient", "is_finite", "floor", "ceil", "reduce_max", "reduce_min", "reduce_and", "reduce_or",
    "argmax", "argmin", "random_bits",
}  # fmt: skip
BENT = {*FUNCTIONS, "abs", "max", "min", "clamp", "square", "integer_pow", "pow", "tan", "exp2", "gt", "ge", "lt", "le"}  # not linear
PRODUCTS = {"mul", "dot_general", "div"}  # linear in each operand alone


def numeric(x: Any) -> bool:
    """Whether a value is a number rather than an exact array or a verdict."""
    return isinstance(x, Affine | Germ)


def as_number(x: Any, like: Any) -> Any:
    """An exact array or a constant as a number of the same kind as `like`."""
    return like.constant(x) if isinstance(like, Germ) else lift(x)


def add(x: Any, y: Any) -> Number:
    """x + y."""
    return x.plus(y) if isinstance(x, Germ) or (numeric(x) and not isinstance(y, Germ)) else y.plus(x)


def subtract(x: Any, y: Any) -> Number:
    """x - y."""
    if isinstance(y, Germ):
        return y.negated().plus(x)
    return x.minus(y) if numeric(x) else y.negated().plus(x)


def multiply(x: Any, y: Any) -> Number:
    """x y."""
    return x.times(y) if isinstance(x, Germ) or (numeric(x) and not isinstance(y, Germ)) else y.times(x)


def divide(x: Any, y: Any) -> Number:
    """x / y; the divisor must stay away from zero."""
    y = y if numeric(y) else lift(y)
    return multiply(y.smooth(RECIPROCAL), x)


def is_zero(y: Any) -> bool:
    """Whether a value is known to be zero while the program is being built."""
    return not numeric(y) and not isinstance(y, Tracer) and not np.any(np.asarray(y))


def maximum(x: Any, y: Any) -> Number:
    """max(x, y) = y + max(x - y, 0). An exact y may be infinite: no limit."""
    if not numeric(x):
        x, y = y, x
    if numeric(y):
        return add(subtract(x, y).rectified(), y)
    if is_zero(y):
        return x.to(jnp.broadcast_shapes(x.shape, np.shape(y))).rectified()
    y = jnp.broadcast_to(y, jnp.broadcast_shapes(x.shape, y.shape))
    x = x.to(y.shape)
    finite = jnp.isfinite(y)
    safe = jnp.where(finite, y, 0.0)
    unlimited = x.chosen(y < 0, x.times(jnp.full(y.shape, jnp.nan)))
    return subtract(x, safe).rectified().plus(safe).chosen(finite, unlimited)


def minimum(x: Any, y: Any) -> Number:
    """min(x, y)."""
    x, y = (z.negated() if numeric(z) else -z for z in (x, y))
    return maximum(x, y).negated()


def clamp(low: Any, x: Any, high: Any) -> Any:
    """x inside the limits."""
    return minimum(maximum(x, low), high)


def total(x: Number, axes: tuple[int, ...]) -> Number:
    """The sum over some axes."""
    terms = math.prod(x.shape[i] for i in axes)
    return x.contracted(lambda _, q: jnp.sum(q, axis=axes), jnp.ones(()), terms)


def fold(x: Number, axes: tuple[int, ...], f: Callable[[Any, Any], Number]) -> Number:
    """The largest or smallest entry over some axes."""
    for axis in sorted(axes, reverse=True):
        entries = [x.moved(functools.partial(jnp.take, indices=i, axis=axis)) for i in range(x.shape[axis])]
        while len(entries) > 1:
            entries = [f(*entries[i : i + 2]) if i + 1 < len(entries) else entries[i] for i in range(0, len(entries), 2)]
        x = entries[0]
    return x


def dot(x: Any, y: Any, dimension_numbers: Any) -> Number:
    """A general product of arrays; with one constant factor no error of second order arises."""
    (xc, yc), (xb, yb) = dimension_numbers
    terms = math.prod(x.shape[i] for i in xc)
    if numeric(x) and not _varies(y):
        return x.contracted(lambda W, q: jax.lax.dot_general(q, W, dimension_numbers), y, terms)
    if not _varies(x):
        return y.contracted(lambda W, q: jax.lax.dot_general(W, q, dimension_numbers), x, terms)
    batch = [x.shape[i] for i in xb]
    fx, fy = ([i for i in range(len(z.shape)) if i not in (*c, *b)] for z, c, b in ((x, xc, xb), (y, yc, yb)))
    nx, ny = [x.shape[i] for i in fx], [y.shape[i] for i in fy]
    shape = (*batch, math.prod(nx), math.prod(ny), terms)

    def left(z: Any) -> Any:
        return jnp.broadcast_to(z.transpose((*xb, *fx, *xc)).reshape((*batch, math.prod(nx), 1, terms)), shape)

    def right(z: Any) -> Any:
        return jnp.broadcast_to(z.transpose((*yb, *fy, *yc)).reshape((*batch, 1, math.prod(ny), terms)), shape)

    products = multiply(x.moved(left), y.moved(right))
    return total(products, (len(shape) - 1,)).moved(lambda z: z.reshape((*batch, *nx, *ny)))


def integer_power(x: Number, y: int) -> Number:
    """x^y by repeated squaring."""
    if y == 0:
        return as_number(jnp.ones(x.shape), x)
    if y < 0:
        return integer_power(x, -y).smooth(RECIPROCAL)
    half = integer_power(x, y // 2) if y > 1 else None
    square = None if half is None else half.times(half)
    return x if square is None else (square.times(x) if y % 2 else square)


def compare(kind: str, x: Any, y: Any) -> Verdict:
    """A comparison as a verdict."""
    shape = jnp.broadcast_shapes(np.shape(x) if not numeric(x) else x.shape, np.shape(y) if not numeric(y) else y.shape)
    if x is y:
        same = jnp.full(shape, kind in ("eq", "ge", "le"))
        return Verdict(same, ~same, x, y)
    if kind in ("lt", "le"):
        return compare({"lt": "gt", "le": "ge"}[kind], y, x)
    apart = as_number(x, x if numeric(x) else y) if is_zero(y) else subtract(x, y)
    apart = apart.to(shape)
    if kind in ("gt", "ge"):
        return apart.verdict(kind == "gt")._replace(left=x, right=y)
    more, less = apart.verdict(True), apart.negated().verdict(True)
    differ = more.yes | less.yes
    return Verdict(differ, jnp.zeros_like(differ)) if kind == "ne" else Verdict(jnp.zeros_like(differ), differ)


def verdict(x: Any) -> Verdict:
    """An exact boolean as a verdict."""
    return x if isinstance(x, Verdict) else Verdict(x, ~x)


def either(x: Any, y: Any) -> Verdict:
    """x or y."""
    x, y = verdict(x), verdict(y)
    return Verdict(x.yes | y.yes, x.no & y.no)


def both(x: Any, y: Any) -> Verdict:
    """x and y."""
    x, y = verdict(x), verdict(y)
    return Verdict(x.yes & y.yes, x.no | y.no)


def select(which: Any, no: Any, yes: Any) -> Any:
    """`yes` where the verdict holds, `no` where it does not, else what contains both."""
    if isinstance(no, Verdict) or isinstance(yes, Verdict):
        which, no, yes = verdict(which), verdict(no), verdict(yes)
        same_yes, same_no = no.yes & yes.yes, no.no & yes.no
        return Verdict((which.yes & yes.yes) | (which.no & no.yes) | same_yes, (which.yes & yes.no) | (which.no & no.no) | same_no)
    like = next((z for z in (no, yes) if isinstance(z, Germ)), None) or next((z for z in (no, yes) if numeric(z)), None)
    if like is None:
        like = lift(jnp.zeros(np.shape(no)))
    no, yes = as_number(no, like), as_number(yes, like)
    if isinstance(which, Verdict):
        return yes.chosen(_wide(which.yes, no.shape), no.chosen(_wide(which.no, no.shape), yes.hull(no)))
    return yes.chosen(_wide(which, no.shape), no)


def indicator(x: Verdict) -> Affine:
    """1 where a verdict holds, else 0."""
    open_ = ~(x.yes | x.no)
    return Affine(jnp.where(open_, 0.5, jnp.where(x.yes, 1.0, 0.0)), None, jnp.where(open_, 0.5, 0.0))


def _wide(which: Any, shape: tuple[int, ...]) -> Any:
    return jnp.broadcast_to(which, shape)


def _varies(x: Any) -> bool:
    return isinstance(x, Germ) or (isinstance(x, Affine) and x.a is not None)

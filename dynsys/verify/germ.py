"""Numbers near the equilibrium, for all distances at once: x = goal + r d, with d on the surface of a cube and r in (0, r0].

q = q0 + r s1 + r^2 s2

q0 is the value at the goal; q0, s1 and s2 are affine numbers on a piece of the surface (and on the box of disturbances). A part that is
None is exactly zero. Where q0 is a plain float64 number, such as cos 0, it is kept (`known`): 1 - cos is exactly zero then, unrounded.
What holds of s1 (or of s2, where q0 and s1 are None) on the surface holds of q for every r: no hole is left.
Every rule below is an identity or a mean-value form at each (r, d); only r and the mean-value points are forgotten. What is multiplied by r
once more than the leading part is kept as a constant with an error: it matters little, and planes are dear.

    product      s1 = q0 t1 + p0 s1,   s2 = q0 t2 + p0 s2 + s1 t1 + r (s1 t2 + s2 t1) + r^2 s2 t2
    smooth f     s1 = f'(q0) s1,       s2 = f'(q0) s2 + f''(.) (s1 + r s2)^2 / 2
    max(q, 0)    where q0 is None: r max(s1 + r s2, 0), of degree one; elsewhere the slope between q0 and q
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from dynsys.verify.affine import Affine, Verdict, between, lift
from dynsys.verify.functions import Smooth

Part = Affine | None


class Germ:
    """See the module; `r` is r0. known: what q0 is exactly, if that is known while the program is being built; zeros make q0 None."""

    def __init__(self, shape: tuple[int, ...], r: Any, q0: Part, s1: Part = None, s2: Part = None, known: np.ndarray | None = None):
        self.shape, self.r, self.q0, self.s1, self.s2 = shape, r, q0, s1, s2
        self.known = np.zeros(shape) if q0 is None else known
        if known is not None:
            self.q0 = lift(known) if np.any(known) else None

    @property
    def parts(self) -> tuple[Part, Part, Part]:
        """(q0, s1, s2)."""
        return self.q0, self.s1, self.s2

    def constant(self, x: Any) -> "Germ":
        """A number that does not depend on r."""
        if isinstance(x, Germ):
            return x
        known = None if isinstance(x, Affine | Tracer) else np.asarray(x, float)
        x = lift(x)
        return Germ(x.shape, self.r, x, known=known)

    def at_rest(self, value: Any) -> "Germ":
        """With a declared value at the goal; None: zero."""
        return Germ(self.shape, self.r, None if value is None else lift(value), self.s1, self.s2)

    @property
    def slope(self) -> Affine:
        """s1 + r s2 = (q - q0) / r, without its plane."""
        return _filled(_sum(_flat(self.s1), self._shrunk(_flat(self.s2))), self.shape)

    @property
    def whole(self) -> Affine:
        """q itself, without its plane."""
        return _filled(_sum(_flat(self.q0), self._shrunk(self.slope)), self.shape)

    def range(self) -> tuple[Array, Array]:
        """Lower and upper bounds of q."""
        return self.whole.range()

    def to(self, shape: tuple[int, ...]) -> "Germ":
        """The number repeated to a shape."""
        return self if shape == self.shape else self.moved(lambda x: jnp.broadcast_to(x, shape))

    def moved(self, move: Callable[[Array], Array]) -> "Germ":
        """As of Affine."""
        known = self.known
        if known is not None:
            with jax.ensure_compile_time_eval():
                known = move(jnp.asarray(known))
            known = None if isinstance(known, Tracer) else np.asarray(known)
        return self._linear(lambda x: x.moved(move), move(jnp.zeros(self.shape)).shape, known)

    def contracted(self, apply: Callable[[Array, Array], Array], weight: Any, terms: int) -> "Germ":
        """As of Affine."""
        shape = apply(jnp.zeros(weight.shape), jnp.zeros(self.shape)).shape
        return self._linear(lambda x: x.contracted(apply, weight, terms), shape)

    def plus(self, other: Any) -> "Germ":
        """The sum."""
        x, y = self._pair(other)
        known = _exact(x.known, y.known, np.add, Fraction.__add__)
        q0, s1, s2 = (_sum(a, b) for a, b in zip(x.parts, y.parts, strict=True))
        return Germ(x.shape, self.r, q0, s1, s2, known)

    def negated(self) -> "Germ":
        """The number with its sign turned."""
        return self._linear(lambda x: x.negated(), self.shape, None if self.known is None else np.asarray(-self.known))

    def minus(self, other: Any) -> "Germ":
        """The difference."""
        return self.plus(other.negated() if isinstance(other, Germ | Affine) else -other)

    def times(self, other: Any) -> "Germ":
        """The product."""
        x, y = self._pair(other)
        (q, s, ss), (p, t, tt) = x.parts, y.parts
        first = _sum(_product(q, t), _product(p, s))
        s_, t_, ss_, tt_ = (_flat(z) for z in (s, t, ss, tt))
        rest = self._shrunk(_sum(_sum(_product(s_, tt_), _product(ss_, t_)), self._shrunk(_product(ss_, tt_))))
        if first is None:  # the second part leads
            second = _sum(_sum(_product(q, tt), _product(p, ss)), _sum(_product(s, t), rest))
        else:
            second = _sum(_sum(_product(_flat(q), tt_), _product(_flat(p), ss_)), _sum(_product(s_, t_), rest))
        return Germ(x.shape, self.r, _product(q, p), first, second, _exact(x.known, y.known, np.multiply, Fraction.__mul__))

    def smooth(self, f: Smooth) -> "Germ":
        """f of the number."""
        rest, (known, slope) = _filled(self.q0, self.shape), self._at_rest(f)
        value = rest.smooth(f)
        if self.s1 is None and self.s2 is None:
            return Germ(self.shape, self.r, value, known=known)
        D = between(*f.slopes(rest.c, rest.reach())) if slope is None else (lift(jnp.full(self.shape, slope)) if slope else None)
        leads = self.s1 is None or D is None  # the second part
        moving = _filled(_sum(self.s1 if leads else _flat(self.s1), self._shrunk(_flat(self.s2))), self.shape)
        whole = self.whole
        rad = whole.reach()
        low, high = f.bends(whole.c, rad)
        inside = f.defined(whole.c - rad, whole.c + rad)
        bend = between(0.5 * low, jnp.where(inside, 0.5 * high, jnp.nan)).times(moving.times(moving))
        first, second = _product(D, self.s1), _sum(_product(D, self.s2 if leads else _flat(self.s2)), bend)
        return Germ(self.shape, self.r, value, first, second, known)

    def rectified(self, leak: float = 0.0) -> "Germ":
        """As of Affine."""
        if self.q0 is None:
            if self.s1 is None:
                return Germ(self.shape, self.r, None, None, None if self.s2 is None else self.s2.rectified(leak))
            return Germ(self.shape, self.r, None, self.s1.rectified(leak), None if self.s2 is None else self.s2.flat().part(leak, 1.0))
        low, high = self.range()
        known = jnp.where(low >= 0, 1.0, jnp.where(high <= 0, leak, 0.5 * (1 + leak)))
        open_ = jnp.where((low >= 0) | (high <= 0), 0.0, 0.5 * (1 - leak) * (1 + 2.0**-50))
        slope = Affine(known, None, open_)
        rest, s1, s2 = self.q0.rectified(leak), _product(slope, self.s1), _product(slope, _flat(self.s2))
        if self.s1 is None:
            return Germ(self.shape, self.r, rest, s1, s2)
        # entries that are exactly zero at the goal, such as units that rest at their border: of degree one, as above
        zero = (self.q0.c == 0) & (self.q0.e == 0) & (self.q0.spread == 0)
        rest = lift(jnp.zeros(self.shape)).chosen(zero, rest)
        s1 = self.s1.rectified(leak).chosen(zero, _filled(s1, self.shape))
        s2 = None if self.s2 is None else self.s2.flat().part(leak, 1.0).chosen(zero, _filled(s2, self.shape))
        return Germ(self.shape, self.r, rest, s1, s2)

    def absolute(self) -> "Germ":
        """|q|."""
        return self.rectified(-1.0)

    def verdict(self, strict: bool) -> Verdict:
        """Of q > 0, or of q >= 0."""
        return (self.slope if self.q0 is None else self.whole).verdict(strict)

    def sign(self) -> "Germ":
        """-1, 0 or 1; a number of its own at every (r, d), so its q0 is no value at the goal."""
        return self.constant((self.slope if self.q0 is None else self.whole).sign())

    def hull(self, other: Any) -> "Germ":
        """What contains both numbers."""
        return self._with(other, lambda x, y: x.hull(y))

    def chosen(self, which: Array, other: Any) -> "Germ":
        """Entry by entry this number where `which`, else the other."""
        return self._with(other, lambda x, y: x.chosen(which, y))

    def joined(self, join: Callable[..., Array], parts: Sequence[Any]) -> "Germ":
        """As of Affine."""
        lifted = [self.constant(x) for x in parts]
        shape = join(*(jnp.zeros(x.shape) for x in lifted)).shape
        made = []
        for column in zip(*(x.parts for x in lifted), strict=True):
            filled = [_filled(x, y.shape) for x, y in zip(column, lifted, strict=True)]
            made.append(None if all(x is None for x in column) else Affine.joined(join, filled))
        return Germ(shape, self.r, made[0], made[1], made[2])

    def _shrunk(self, x: Part) -> Part:
        """A part times something in [0, r0]."""
        return None if x is None else x.up_to(self.r)

    def _at_rest(self, f: Smooth) -> tuple[np.ndarray | None, float | None]:
        """f and f' at the goal, if they are known without error."""
        if f.at is None or self.known is None or not np.all(self.known == f.at[0]):
            return None, None
        return np.full(self.shape, f.at[1]), f.at[2]

    def _linear(self, f: Callable[[Affine], Affine], shape: tuple[int, ...], known: np.ndarray | None = None) -> "Germ":
        q0, s1, s2 = (None if x is None else f(x) for x in self.parts)
        return Germ(shape, self.r, q0, s1, s2, known)

    def _pair(self, other: Any) -> tuple["Germ", "Germ"]:
        x, y = self, self.constant(other)
        shape = jnp.broadcast_shapes(x.shape, y.shape)
        return x.to(shape), y.to(shape)

    def _with(self, other: Any, f: Callable[[Affine, Affine], Affine]) -> "Germ":
        x, y = self._pair(other)
        pairs = zip(x.parts, y.parts, strict=True)
        q0, s1, s2 = (None if a is None and b is None else f(_filled(a, x.shape), _filled(b, x.shape)) for a, b in pairs)
        return Germ(x.shape, self.r, q0, s1, s2)


def _sum(x: Part, y: Part) -> Part:
    return y if x is None else (x if y is None else x.plus(y))


def _product(x: Part, y: Part) -> Part:
    return None if x is None or y is None else x.times(y)


def _flat(x: Part) -> Part:
    return None if x is None else x.flat()


def _filled(x: Part, shape: tuple[int, ...]) -> Affine:
    return lift(jnp.zeros(shape)) if x is None else x


def _exact(x: np.ndarray | None, y: np.ndarray | None, f: Any, exactly: Callable[[Fraction, Fraction], Fraction]) -> np.ndarray | None:
    """f of two known arrays, if no entry of it is rounded; None if one is not known."""
    if x is None or y is None or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    made = np.asarray(f(x, y))
    pairs = zip(x.ravel(), y.ravel(), made.ravel(), strict=True)
    return made if np.isfinite(made).all() and all(exactly(Fraction(a), Fraction(b)) == Fraction(c) for a, b, c in pairs) else None

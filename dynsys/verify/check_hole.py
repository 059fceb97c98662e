"""Numbers of the checker near the goal, for all distances at once: x = goal + r T d, d on the surface of [-1, 1]^n, 0 < r <= r0.

    q = q0 + r q1 + r^2 q2

q0, q1 and q2 are numbers of `check_numbers.py` on a piece of the surface (and on the box of disturbances). What has a power of r above 2
goes into q2, with r replaced by all of [0, r0]. Each rule is an identity or a mean-value form for every single r and d:

    product    q1 = x0 y1 + x1 y0,   q2 = x0 y2 + x2 y0 + x1 y1 + r (x1 y2 + x2 y1) + r^2 x2 y2
    smooth f   q1 = f'(x0) x1,       q2 = f'(x0) x2 + f''(.) (x1 + r x2)^2 / 2
    max(q, 0)  where q0 = 0, it is r max(q1 + r q2, 0); elsewhere it has a slope in [0, 1] between q0 and q

If q0 is exactly zero, so is it to every r: then q1 (or q2, if q1 is exactly zero too) decides the sign of q for all r in (0, r0].
"""

from collections.abc import Sequence

import numpy as np

from dynsys.verify.check_numbers import Model, Smooth, U


class Series:
    """See the module; r is r0."""

    def __init__(self, r: float, q0: Model, q1: Model, q2: Model):
        self.r, self.q0, self.q1, self.q2 = r, q0, q1, q2

    @property
    def parts(self) -> tuple[Model, Model, Model]:
        """(q0, q1, q2)."""
        return self.q0, self.q1, self.q2

    @property
    def radius(self) -> Model:
        """All of [0, r0] as a number."""
        return Model.between(np.zeros((1, 1)), np.full((1, 1), self.r))

    @property
    def slope(self) -> Model:
        """(q - q0) / r = q1 + r q2."""
        return self.q1.add(self.radius.mul(self.q2))

    @property
    def whole(self) -> Model:
        """q."""
        return self.q0.add(self.radius.mul(self.slope))

    def settled(self, value: np.ndarray) -> "Series":
        """With a value (k,) at the goal that is known."""
        return Series(self.r, Model.constant(value), self.q1, self.q2)

    def vanishing(self) -> "Series":
        """With an exact zero at the goal."""
        return self.settled(np.zeros(self.q0.e.shape[1]))

    def constant(self, value: np.ndarray) -> "Series":
        """An exact vector."""
        return still(self.r, Model.constant(value))

    def add(self, other: "Series") -> "Series":
        """The sum; what is exactly zero at the goal leaves the other as it is there."""
        (x0, x1, x2), (y0, y1, y2) = self.parts, other.parts
        return Series(self.r, x0.where(y0.zero, y0.where(x0.zero, x0.add(y0))), x1.add(y1), x2.add(y2))

    def neg(self) -> "Series":
        """The number with its sign turned."""
        return Series(self.r, *(x.neg() for x in self.parts))

    def sub(self, other: "Series") -> "Series":
        """The difference."""
        return self.add(other.neg())

    def mul(self, other: "Series") -> "Series":
        """The product."""
        (x0, x1, x2), (y0, y1, y2) = self.parts, other.parts
        r = self.radius
        beyond = x1.mul(y2).add(x2.mul(y1)).add(r.mul(x2.mul(y2)))
        q2 = x0.mul(y2).add(x2.mul(y0)).add(x1.mul(y1)).add(r.mul(beyond))
        return Series(self.r, x0.mul(y0), x0.mul(y1).add(x1.mul(y0)), q2)

    def matrix(self, W: np.ndarray) -> "Series":
        """W times the vector."""
        return Series(self.r, *(x.matrix(W) for x in self.parts))

    def sums(self, terms: int) -> "Series":
        """The sums of each `terms` entries in a row."""
        return Series(self.r, *(x.sums(terms) for x in self.parts))

    def pick(self, index: np.ndarray) -> "Series":
        """The entries of these numbers."""
        return Series(self.r, *(x.pick(index) for x in self.parts))

    def join(self, others: Sequence["Series"]) -> "Series":
        """The entries of all."""
        return Series(self.r, *(x.join([other.parts[i] for other in others]) for i, x in enumerate(self.parts)))

    def where(self, mask: np.ndarray, other: "Series") -> "Series":
        """This number where the mask is true, else the other."""
        return Series(self.r, *(x.where(mask, y) for x, y in zip(self.parts, other.parts, strict=True)))

    def hull(self, other: "Series") -> "Series":
        """What contains both numbers."""
        return Series(self.r, *(x.hull(y) for x, y in zip(self.parts, other.parts, strict=True)))

    def range(self) -> tuple[np.ndarray, np.ndarray]:
        """Bounds of q."""
        return self.whole.range()

    def lead(self) -> tuple[np.ndarray, np.ndarray]:
        """Bounds of what decides the sign: q, or q / r where q0 is exactly zero, or q / r^2 where q1 is so as well."""
        q0, q1, q2, slope = self.q0, self.q1, self.q2, self.slope
        deciding = q2.where(q0.zero & q1.zero, slope.where(q0.zero, self.whole))
        return deciding.range()

    def relu(self) -> "Series":
        """max(q, 0)."""
        low, high = self.lead()
        q0, q1, q2 = self.parts
        some = Model.between(np.zeros((1, 1)), np.ones((1, 1)))
        away = Series(self.r, q0.relu(), some.mul(q1), some.mul(q2))
        first = Series(self.r, q0, q1.relu(), some.mul(q2))
        second = Series(self.r, q0, q1, q2.relu())
        bent = second.where(q0.zero & q1.zero, first.where(q0.zero, away))
        nothing = still(self.r, Model(np.zeros((*low.shape, 1)), np.zeros_like(low)))
        return self.where(low >= 0, nothing.where(high <= 0, bent))

    def smooth(self, f: Smooth) -> "Series":
        """f of the number."""
        q0 = self.q0.compact
        slope = f.slopes(self.range(), *q0.range())
        bend = f.bends(*self.range()).mul(Model.constant(np.array([0.5])))
        q2 = slope.mul(self.q2).add(bend.mul(self.slope.mul(self.slope)))
        return Series(self.r, q0.smooth(f), slope.mul(self.q1), q2)


def still(r: float, q0: Model) -> Series:
    """A number that does not depend on r."""
    nothing = Model(np.zeros((*q0.e.shape, 1)), np.zeros_like(q0.e))
    return Series(r, q0, nothing, nothing)


def decided(q: Series) -> tuple[np.ndarray, np.ndarray]:
    """Bounds (B,) of q / r^k, k = 1 or 2, for all r in (0, r0], of a number with one entry; NaN if q is not exactly zero at the goal.

    With q1 not exactly zero, inf q1 + min(0, r0 inf q2) <= q / r <= sup q1 + max(0, r0 sup q2); q1 keeps its dependence on d.
    """
    (low1, high1), (low2, high2) = q.q1.range(), q.q2.range()
    pad = 4 * U * (np.abs(low1) + np.abs(high1) + q.r * (np.abs(low2) + np.abs(high2)))
    low = np.where(q.q1.zero, low2, low1 + np.minimum(0.0, q.r * low2) - pad)
    high = np.where(q.q1.zero, high2, high1 + np.maximum(0.0, q.r * high2) + pad)
    unknown = np.where(q.q0.zero, 0.0, np.nan)
    return (low + unknown)[:, 0], (high + unknown)[:, 0]

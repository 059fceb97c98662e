"""The claim that is proved, box by box. Coordinates y in [-1, 1]^n: x = goal + T y. For every y outside the hole,

    V(x) > level,   or   V(x) > 0,  x+ and x inside the domain,  and  V(x+) <= max((1 - rate) V(x), core)           (maps)
                                                                 or   dV/dt <= -rate V(x) where V(x) > core         (flows)

and V > level on the border of [-1, 1]^n. In the hole |y| <= r0 the same is proved for y = r d, |d| = 1, 0 < r <= r0 (`germ.py`).

A quadratic part of V is treated apart: with V = v'Pv + W(x), v = x - goal, and any matrix A (a linearisation, of whatever quality),
x+ = goal + A v + N or dx/dt = A v + N,

    maps    V(x+) - (1 - rate) V(x) = v'(A'PA - (1 - rate) P) v + (2 A v + N)'P N + W(x+) - (1 - rate) W(x)
    flows   dV/dt + rate V          = v'(A'P + PA + rate P) v   + 2 v'P N         + W'(x) dx/dt + rate W(x)

The first terms are maximised exactly over a box, together with the plane of the rest (`square.py`), so that nothing of second order is
lost but the true curvature of the loop.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dynsys.verify.affine import TINY, Affine, U, lift, variables
from dynsys.verify.germ import Germ
from dynsys.verify.interpret import Names, bounded
from dynsys.verify.loop import ClosedLoop
from dynsys.verify.parts import rest
from dynsys.verify.rules import add, dot, multiply, subtract
from dynsys.verify.square import Factors, Square, enclosed, opposite, product, upper

LEAST = 2.0**-40  # half-width, relative to the cube, of a box that is not split any further
INNER = (((0,), (0,)), ((), ()))


class Numbers(eqx.Module):
    """What a claim depends on beside loop and V; all arrays, so that another value compiles nothing.

    T (n, n); inverse: about T^-1; low, high (n,): the domain; A, P (n, n), P known within P_off; level, rate, core, r0: scalars.
    margin, minus_V: factors of the quadratic forms in y, of whatever quality.
    """

    T: Float[Array, "n n"]
    inverse: Float[Array, "n n"]
    low: Float[Array, " n"]
    high: Float[Array, " n"]
    A: Float[Array, "n n"]
    P: Float[Array, "n n"]
    P_off: Float[Array, "n n"]
    level: Float[Array, ""]
    rate: Float[Array, ""]
    core: Float[Array, ""]
    r0: Float[Array, ""]
    margin: Factors
    minus_V: Factors


class Shape(NamedTuple):
    """What a compiled claim depends on: n; the kind of time; whether V has a quadratic part and another one; whether the cube of y is the
    domain; whether there is a core; which leaves of (loop, V) are the goal; whether the quadratic
    form of the decrease is not negative everywhere."""

    n: int
    continuous: bool
    quadratic: bool
    general: bool
    walled: bool
    cored: bool
    goals: tuple[int, ...]
    rising: bool = False


class Forms(NamedTuple):
    """Numbers on a box: W and the rest of the decrease; x or its deviation and x+, with their bounds (number, low, high); V after."""

    value: Any
    margin: Any
    held: list[tuple[Any, Any, Any]]
    after: Any


class Squares(NamedTuple):
    """Quadratic forms in y: of the decrease, and of -V; lever: 2 T'P (flows) or 2 T'A'P (maps), what N is multiplied by from the left."""

    margin: Square
    minus_V: Square
    lever: Affine


class Bounds(NamedTuple):
    """Of one box: whether it is proved; how much splitting each coordinate would help; lower bound of V, upper bound of the decrease."""

    proved: Array
    scores: Array
    value: Array
    margin: Array


def squares(c: Numbers, shape: Shape) -> Squares | None:
    """The quadratic forms, enclosed; None without any."""
    if not shape.quadratic:
        return None
    T, A, P = lift(c.T), lift(c.A), Affine(c.P, None, c.P_off)
    turned = T.moved(jnp.transpose)
    PA = product(P, A)
    if shape.continuous:
        M, lever = PA.plus(PA.moved(jnp.transpose)).plus(P.times(c.rate)), product(turned, P)
    else:
        before = P.times(lift(jnp.ones(())).minus(c.rate))
        M, lever = product(A.moved(jnp.transpose), PA).minus(before), product(turned, PA.moved(jnp.transpose))
    margin, minus_V = (product(product(turned, form), T) for form in (M, P.negated()))
    return Squares(enclosed(margin, c.margin), enclosed(minus_V, c.minus_V), lever.times(jnp.full((), 2.0)))


def forms(loop: ClosedLoop, V: Any, c: Numbers, shape: Shape, sq: Squares | None, y: Any, w: Any) -> Forms:
    """The numbers of a claim at y (n,), under w (p,); for affine numbers and for germs."""
    names, germ = Names(), isinstance(y, Germ)
    v = y.contracted(lambda W, q: W @ q, c.T, shape.n)
    x = v.plus(c_goal := loop.goal)
    leaves = [z for z in jax.tree_util.tree_leaves((loop, V)) if eqx.is_array(z)]
    for i, leaf in enumerate(leaves):
        names.give(leaf, "goal" if i in shape.goals else ("leaf", i))
    if germ:
        names.give(x, "goal")
    names.give(w, "disturbance")
    after = bounded(lambda loop, x, w: loop.advance(x, w), loop, x, w, names=names)
    if germ:
        # where a choice between formulas lies behind it, the value near the goal need not be that at the goal: nothing is declared then
        rests = names.has(after)
        after = as_germ(after, y)
        if rests:
            after = after.at_rest(None if shape.continuous else c_goal)
        if rests and not shape.continuous:
            names.give(after, "goal")
        moved = after if shape.continuous else after.plus(-c_goal)
        moved = moved.at_rest(None) if rests else moved
    else:
        moved = after if shape.continuous else after.minus(c_goal)
    value, margin, V_after = None, None, None
    if shape.general:
        value = number(bounded(rest, V, x, names=names), y)
        if shape.continuous:
            drift = bounded(lambda V, x, f: jax.jvp(lambda z: rest(V, z), (x,), (f,))[1], V, x, after, names=names)
            margin = add(number(drift, y), value.times(c.rate))
        else:
            V_after = number(bounded(rest, V, after, names=names), y)
            margin = subtract(V_after, multiply(value, lift(jnp.ones(())).minus(c.rate)))
    if sq is not None:
        P = Affine(c.P, None, c.P_off)
        N = moved.minus(v.contracted(lambda W, q: W @ q, c.A, shape.n))
        # 2 v'P N = y' (2 T'P N): a product with y, whose entries have one symbol each, loses less than one with v
        bent = dot(y, N.contracted(lambda W, q: W @ q, sq.lever, shape.n), INNER)
        if not shape.continuous:
            bent = add(bent, dot(N, N.contracted(lambda W, q: W @ q, P, shape.n), INNER))
        margin = _plus(bent, margin)
        if shape.rising:
            up = y.contracted(lambda W, q: W @ q, sq.margin.up, shape.n)
            margin = add(margin, dot(up, up, INNER))
        if shape.cored and not shape.continuous:
            V_after = _plus(dot(moved, moved.contracted(lambda W, q: W @ q, P, shape.n), INNER), V_after)
    return Forms(value, margin, held(c, shape, x, after, moved), V_after)


def held(c: Numbers, shape: Shape, x: Any, after: Any, moved: Any) -> list[tuple[Any, Any, Any]]:
    """What must stay between bounds: x and x+ in the domain; x+ in the cube of y."""
    made = [] if shape.walled else [(x, c.low, c.high)]
    if not shape.continuous:
        if not shape.walled:
            made.append((after, c.low, c.high))
        # y+ = T^-1 moved: with E = I - inverse T, |y+| <= |inverse moved| / (1 - |E|) in the largest-entry norm
        E = lift(jnp.eye(shape.n)).minus(lift(c.inverse).contracted(lambda W, q: q @ W, c.T, shape.n))
        off = jnp.max(jnp.sum(jnp.abs(E.c) + E.e, axis=1)) * (1 + 64 * U)
        ones = jnp.ones(shape.n)
        made.append((moved.contracted(lambda W, q: W @ q, c.inverse, shape.n), -ones * (1 - off), ones * (1 - off)))
    return made


def on_box(loop: ClosedLoop, V: Any, c: Numbers, shape: Shape, sq: Squares | None, mid: Array, rad: Array) -> Bounds:
    """The bounds of a claim on the box mid +- rad of (y, disturbance scaled to [-1, 1]), both (n + p,)."""
    n = shape.n
    both = variables(mid, rad)
    y, w = both.moved(lambda z: z[:n]), _disturbance(loop, both.moved(lambda z: z[n:]))
    f = forms(loop, V, c, shape, sq, y, w)
    value = _affine(f.value)
    minus_V = upper(None if sq is None else sq.minus_V, mid, rad, value.negated())
    margin = upper(None if sq is None else sq.margin, mid, rad, _affine(f.margin))
    low_V = -minus_V.total
    stays, held_scores = _stays(f.held, rad)
    touching = jnp.stack([mid + rad >= 1, mid - rad <= -1])[:, :n]
    walled = jnp.all(~touching | (minus_V.on_faces()[:, :n] < -c.level))
    decreases = margin.total <= 0
    if shape.cored:
        after = opposite(None if sq is None else sq.minus_V, mid, rad, value) if shape.continuous else _affine(f.after).range()[1]
        decreases = decreases | (after <= c.core)
    positive = jnp.asarray(True) if shape.cored else low_V > 0  # with a core > 0, nothing is claimed where V is not above it
    proved = (low_V > c.level) | (decreases & positive & stays & walled)
    hole = jnp.max(jnp.abs(mid[:n]) + rad[:n]) <= c.r0
    scores = (
        jnp.where(decreases, 0.0, _share(margin.widths))
        + jnp.where(positive & walled & stays, 0.0, _share(minus_V.widths))
        + jnp.where(stays, 0.0, held_scores)
    )
    return Bounds(proved | hole, _weighed(scores, rad), low_V, margin.total)


def on_face(loop: ClosedLoop, V: Any, c: Numbers, shape: Shape, sq: Squares | None, mid: Array, rad: Array) -> Bounds:
    """The same for all r in (0, r0]: mid +- rad is a box of (d, disturbance), d on the surface of the cube; bounds divided by r or r^2."""
    n = shape.n
    both = variables(mid, rad)
    y = Germ((n,), c.r0, None, both.moved(lambda z: z[:n]))
    w = y.constant(_disturbance(loop, both.moved(lambda z: z[n:])))
    f = forms(loop, V, c, shape, sq, y, w)
    value, value_widths = _germ_upper(None if sq is None else sq.minus_V, mid, rad, _negated(f.value), c.r0)
    margin, margin_widths = _germ_upper(None if sq is None else sq.margin, mid, rad, f.margin, c.r0)
    stays, held_scores = _stays([(z if isinstance(z, Affine) else z.whole, a, b) for z, a, b in f.held], rad)
    decreases, positive = margin <= 0, value < 0
    scores = (
        jnp.where(decreases, 0.0, _share(margin_widths))
        + jnp.where(positive, 0.0, _share(value_widths))
        + jnp.where(stays, 0.0, held_scores)
    )
    return Bounds(decreases & positive & stays, _weighed(scores, rad), -value, margin)


def refutes(loop: ClosedLoop, V: Any, c: Numbers, shape: Shape, mid: Array, rad: Array, noise: Array) -> tuple[Array, Array]:
    """Whether the claim looks false in plain floats at the middle of a box, or on the face of the cube that it touches; and that point."""
    n = shape.n
    face = jnp.where(mid + rad >= 1, 1.0, jnp.where(mid - rad <= -1, -1.0, mid))
    face = jnp.where(jnp.arange(mid.shape[0]) < n, face, mid)
    on_border = (V.value(loop.goal + c.T @ face[:n]) <= c.level) & jnp.any(face != mid)
    x = loop.goal + c.T @ mid[:n]
    w = 0.5 * (loop.low + loop.high) + 0.5 * (loop.high - loop.low) * mid[n:]
    after, value = loop.advance(x, w), V.value(x)
    outside = jnp.any((x < c.low) | (x > c.high))
    if shape.continuous:
        rises = (jax.jvp(V.value, (x,), (after,))[1] + c.rate * value > noise * jnp.abs(value)) & (value > c.core)
    else:
        V_after = V.value(after)
        rises = (V_after > (1 - c.rate + noise) * value) & (V_after > c.core)
        outside = outside | jnp.any((after < c.low) | (after > c.high))
    if not shape.cored:
        rises = rises | (value <= 0)
    return ((value <= c.level) & (rises | outside) & (jnp.max(jnp.abs(mid[:n])) > c.r0)) | on_border, jnp.where(on_border, face, mid)


def _germ_upper(square: Square | None, mid: Array, rad: Array, form: Germ | None, r0: Array) -> tuple[Array, Array]:
    """Upper bound of (form + square) / r^k over r in (0, r0], k = 1 or 2 its degree; and the widths."""
    zero = Affine(jnp.zeros(()), None, jnp.zeros(()))
    q0, s1, s2 = (None, None, None) if form is None else form.parts
    if q0 is not None:  # not seen to be zero at the goal: nothing is proved
        return jnp.asarray(jnp.nan), rad
    second = upper(square, mid, rad, zero if s2 is None else s2)
    if s1 is None:
        return second.total, second.widths
    first = upper(None, mid, rad, s1)
    rise = r0 * jnp.maximum(second.total, 0.0)
    return (first.total + rise) + 8 * U * (jnp.abs(first.total) + rise), first.widths + r0 * second.widths


def _stays(conditions: list[tuple[Any, Any, Any]], rad: Array) -> tuple[Array, Array]:
    stays, lost, scores = jnp.asarray(True), jnp.asarray(False), jnp.zeros_like(rad)
    for x, low, high in conditions:
        least, most = x.range()
        inside = (least >= low) & (most <= high)
        stays = stays & jnp.all(inside)
        lost = lost | jnp.any((least > high) | (most < low))
        if x.a is not None:
            scores = scores + jnp.sum(jnp.where(inside[None], 0.0, jnp.abs(x.a)), axis=1)
        scores = scores + jnp.sum(jnp.where(inside, 0.0, x.e)) * rad
    return stays, jnp.where(lost, 0.0, _share(scores))  # where it is outside already, only V > level can help


def _disturbance(loop: ClosedLoop, z: Affine) -> Affine:
    """w of its scaled coordinates z in [-1, 1]."""
    mid, half = 0.5 * (loop.low + loop.high), 0.5 * (loop.high - loop.low)
    wide = half * (1 + 8 * U) + 4 * U * (jnp.abs(loop.low) + jnp.abs(loop.high))
    return z.times(wide).plus(mid)


def _share(x: Array) -> Array:
    return x / jnp.maximum(jnp.sum(x), TINY)


def _weighed(scores: Array, rad: Array) -> Array:
    """Scores to split by: those that are known, and a little of the width; never a coordinate that has none."""
    known = jnp.all(jnp.isfinite(scores))
    return jnp.where(rad > LEAST / 2, jnp.where(known, scores, 0.0) + jnp.where(known, 1e-3, 1.0) * _share(rad), -1.0)


def _plus(x: Any, y: Any) -> Any:
    return x if y is None else add(x, y)


def _negated(x: Any) -> Any:
    return None if x is None else x.negated()


def as_germ(x: Any, like: Germ) -> Germ:
    """A number or an exact array as a germ."""
    return x if isinstance(x, Germ) else like.constant(x)


def number(x: Any, like: Any) -> Any:
    """An exact array as a number like another."""
    return as_germ(x, like) if isinstance(like, Germ) else lift(x)


def _affine(x: Any) -> Affine:
    return Affine(jnp.zeros(()), None, jnp.zeros(())) if x is None else x

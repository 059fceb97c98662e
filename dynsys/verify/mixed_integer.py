"""The largest increase of a piecewise-affine V along a piecewise-affine loop, as mixed-integer linear programs: a check of `certify`.

    d+ = E d + e + sum_j G[:, j] max(N[j] d + b[j], 0),   V = max_i rows[i] d,   d = x - goal
    for every face i:   max  rows[i] d+ - (1 - rate) v     with  v >= rows d,  floor <= V(d),  V(d) <= level,  d in the box

A rectifier p = max(a, 0) with L <= a <= U is p >= a, p >= 0, p <= a - L (1 - s), p <= U s with s 0 or 1. V after the step needs no such
choice, one program a face takes its maximum; V(d) >= floor > 0 is a choice of a face. Below `floor` no border is crossed but those through
the goal: there d+ and V are homogeneous, and V(d+) <= (1 - rate) V(d) for V(d) = floor says so for all smaller V as well.

What the solver's tolerances mean: HiGHS takes a constraint for met within 1e-6 and s for an integer within 1e-6, so that a rectifier can be
off by 1e-6 (1 + max(-L, U)), and it stops 1e-6 short of the best. `Increase.tolerance` adds these up: a `bound` below its negative says
that V decreases, up to the solver's own rounding, and is no proof. A positive `value` is one: it is evaluated at `state` itself.
Sources: Tjeng, Xiao, Tedrake, ICLR 2019 (rectifiers); Chen, Fazlyab, Morari, Pappas, Preciado, HSCC 2021 (Lyapunov functions).
"""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dynsys.dynamics import AbstractPiecewiseLinear
from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys.verify.loop import ClosedLoop
from dynsys.verify.lyapunov import PiecewiseAffineLyapunov
from dynsys.verify.policy import SaturatedLinear

FEASIBLE = 1e-6  # HiGHS: mip_feasibility_tolerance and mip_abs_gap
CLOSE = 1e-12  # a border this near to the goal goes through it


class Rectified(NamedTuple):
    """A closed loop as E d + e + G max(N d + b, 0): E (n, n), e (n,), G (n, q), N (q, n), b (q,)."""

    E: np.ndarray
    e: np.ndarray
    G: np.ndarray
    N: np.ndarray
    b: np.ndarray

    def after(self, d: np.ndarray) -> np.ndarray:
        """The next deviation, (n,) -> (n,)."""
        return self.E @ d + self.e + self.G @ np.maximum(self.N @ d + self.b, 0.0)


class Increase(NamedTuple):
    """V(x+) - (1 - rate) V(x): no state with floor <= V <= level has more than `bound`, within `tolerance`; at `state` it is `value`."""

    bound: float
    tolerance: float
    value: float
    state: np.ndarray
    floor: float
    inside: bool  # whether {V <= level} lies inside the box

    @property
    def verdict(self) -> bool | None:
        """Whether V decreases on {V <= level} and that set lies inside the box; None if it is within the tolerance."""
        if self.value > 0 or not self.inside:
            return False
        return True if self.bound < -self.tolerance else None


def largest_increase(loop: ClosedLoop, V: PiecewiseAffineLyapunov, *, domain: tuple[Any, Any], rate: float, level: float) -> Increase:
    """See the module. domain: (low, high), each (n,); for a handful of states, rectifiers and faces: the time doubles with each of them.

    Raises InvalidValue for a loop that is not a sum of rectifiers (see `rectified`), or if the solver finds no optimum.
    """
    from scipy.optimize import Bounds, milp

    form, goal = rectified(loop), np.asarray(loop.goal)
    rows = np.asarray(V.rows) / level  # V / level: of order one, as the solver's tolerances are
    low, high = (np.broadcast_to(np.asarray(x, float), goal.shape) - goal for x in domain)
    n, q, faces = len(goal), len(form.b), len(rows)
    floor = 0.5 * _straight_level(form, rows)
    L, U = (sign * np.array([_most(sign * a, rows, low, high) for a in np.vstack([form.N, rows])]) for sign in (-1.0, 1.0))
    L, U = L - FEASIBLE * (1 + np.abs(L)), U + FEASIBLE * (1 + np.abs(U))
    least, L, U = L[q:], np.minimum(L[:q] + form.b, 0.0), np.maximum(U[:q] + form.b, 0.0)
    # columns: d (n), p (q), v, s (q), the face of V(d) >= floor (faces)
    eye, one, none = np.eye(q), np.ones((faces, 1)), np.zeros
    below = [  # each: matrix, right side
        (np.hstack([form.N, -eye, none((q, 1 + q + faces))]), -form.b),
        (np.hstack([-form.N, eye, none((q, 1)), np.diag(-L), none((q, faces))]), form.b - L),
        (np.hstack([none((q, n)), eye, none((q, 1)), np.diag(-U), none((q, faces))]), none(q)),
        (np.hstack([rows, none((faces, q)), -one, none((faces, q + faces))]), none(faces)),
        (np.hstack([-rows, none((faces, q + 1 + q)), np.diag(floor - least)]), -least),
        (np.concatenate([none(n + q + 1 + q), -np.ones(faces)])[None], -np.ones(1)),
    ]
    left, right = (np.concatenate(parts) for parts in zip(*below, strict=True))
    most = np.concatenate([high, U, [1.0], np.ones(q + faces)])
    limits: Any = Bounds(np.concatenate([low, none(q + 1 + q + faces)]), most)  # pyright: ignore[reportArgumentType]
    whole = np.concatenate([none(n + q + 1), np.ones(q + faces)])
    bound, tolerance, best, state = -np.inf, 0.0, -np.inf, goal
    for row in rows:
        weight = row @ form.G
        cost = -np.concatenate([row @ form.E, weight, [-(1 - rate)], none(q + faces)])
        found = milp(cost, constraints=(left, -np.inf, right), bounds=limits, integrality=whole, options={"mip_rel_gap": 0.0})
        if found.status != 0 or found.x is None:
            raise InvalidValue(f"largest_increase: HiGHS ended without an optimum ({found.message}). Is the box too small for the level?")
        bound = max(bound, float(row @ form.e - found.mip_dual_bound))
        tolerance = max(tolerance, FEASIBLE * (3 + float(np.abs(weight) @ (1 + np.maximum(-L, U)))))
        d = np.clip(found.x[:n], low, high)
        d = d / max(1.0, float(np.max(rows @ d)) * (1 + CLOSE))
        value = _increase(loop, V, goal + d, rate)
        if value > best:
            best, state = value, goal + d
    sides = np.vstack([np.eye(n), -np.eye(n)])
    inside = all(_most(side, rows) < edge for side, edge in zip(sides, np.concatenate([high, -low]), strict=True))
    return Increase(bound * level, tolerance * level, best, state, floor * level, inside)


def rectified(loop: ClosedLoop) -> Rectified:
    """The sum of rectifiers that a map without disturbance is, from its affine maps region by region and the limits of its policy.

    Raises InvalidValue for a plant that is not piecewise linear or whose regions do not add up, a policy other than SaturatedLinear, or
    disturbances. The sum is compared with the loop's own step at random states.
    """
    model, policy, goal = loop.plant, loop.policy, np.asarray(loop.goal)
    if not isinstance(model, AbstractPiecewiseLinear) or loop.low.shape[0] or not (policy is None or isinstance(policy, SaturatedLinear)):
        raise InvalidValue(
            "rectified: wants a piecewise-linear map under a SaturatedLinear policy or none, without disturbances; got "
            f"{type(model).__name__}, {type(policy).__name__} and {loop.low.shape[0]} disturbances."
        )
    with x64():
        N, b = (np.asarray(x, float) for x in model.switching())
        off = [np.asarray(x, float) for x in model.affine(jnp.zeros(len(N), bool))]
        N, b, codes = N[used := np.any(N != 0, axis=1)], b[used], np.eye(len(used), dtype=bool)[used]
        jumps = [np.asarray(model.affine(jnp.asarray(code))[0], float) - off[0] for code in codes]
        G = np.stack([jump @ row / (row @ row) for jump, row in zip(jumps, N, strict=True)], axis=1) if len(N) else np.zeros((len(goal), 0))
        E, e, b = off[0], off[0] @ goal + off[1] - goal, N @ goal + b
        if policy is not None:
            B = np.asarray(jax.jacfwd(lambda u: model.step(loop.goal, u))(policy.rest), float)
            K, rest, low, high = (np.asarray(x, float) for x in (policy.K, policy.rest, policy.low, policy.high))
            for column, gain, u, least, most in zip(B.T, K, rest, low, high, strict=True):
                E, e = E + np.outer(column, -gain), e + column * u
                for sign, room in ((1.0, least - u), (-1.0, most - u)):  # clip(w) = w + max(low - w, 0) - max(w - high, 0)
                    if np.isfinite(room):
                        N, b = np.vstack([N, sign * gain]), np.append(b, sign * room)
                        G = np.column_stack([G, sign * column])
        b = np.where(np.abs(b) <= CLOSE * (1 + np.abs(N).sum(axis=1)), 0.0, b)
        form = Rectified(E, e, G, N, b)
        tries = np.random.default_rng(0).normal(size=(64, len(goal))) * (1 + np.arange(64)[:, None])
        true = np.asarray(jax.vmap(loop.step)(jnp.asarray(goal + tries))) - goal
    miss = np.max(np.abs(np.stack([form.after(d) for d in tries]) - true) / (1 + np.abs(tries).max(axis=1, keepdims=True)))
    if not miss <= 1e-9 * (1 + np.abs(E).max() + np.abs(G).max(initial=0.0)):
        raise InvalidValue(f"rectified: the loop is no sum of one rectifier a border, it differs from one by {miss:.2g}.")
    return form


def norm_faces(M: Any, goal: Any = None) -> PiecewiseAffineLyapunov:
    """|M d|_1 with M (m, n), of rank n, as the largest of its 2**m sign combinations."""
    M = np.asarray(M, float)
    return PiecewiseAffineLyapunov.of(np.array(list(itertools.product((-1.0, 1.0), repeat=len(M)))) @ M, goal)


def _straight_level(form: Rectified, rows: np.ndarray) -> float:
    """The largest level, at most 1, below which only borders through the goal are crossed."""
    reach = [abs(b) / _most(-np.sign(b) * a, rows) for a, b in zip(form.N, form.b, strict=True) if b != 0 and np.any(a != 0)]
    return min([1.0, *reach])


def _most(a: np.ndarray, rows: np.ndarray, low: Any = None, high: Any = None) -> float:
    """The largest a d with rows d <= 1, in the box if there is one: a linear program."""
    from scipy.optimize import linprog

    box = [(None, None)] * len(a) if low is None else list(zip(low, high, strict=True))
    found = linprog(-a, A_ub=rows, b_ub=np.ones(len(rows)), bounds=box)
    if found.status != 0:
        raise InvalidValue(f"largest_increase: a linear program over the level set failed: {found.message}")
    return float(-found.fun)


def _increase(loop: ClosedLoop, V: PiecewiseAffineLyapunov, x: np.ndarray, rate: float) -> float:
    with x64():
        return float(V.value(loop.step(x)) - (1 - rate) * V.value(jnp.asarray(x)))

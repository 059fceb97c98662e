"""Sums of squares: polynomial Lyapunov functions of polynomial flows, everywhere or on the largest sublevel set that can be found.

    V = m'Gm, G > 0;      -(grad V . f) - rate V - s (1 - V) = q'Hq, H > 0;      s = r'Sr, S > 0            (s = 0: everywhere)

Where V < 1 the term s (1 - V) is positive, so V decreases there. With V and a level fixed this is an LMI in (H, S): a bisection finds the
largest level. (V for the region is given: the quadratic of the Lyapunov equation, or one that `learn` made.) At the end the identity is
made exact in fractions, and G, H, S are checked to be positive definite without rounding. Sources: Parrilo, PhD thesis, Caltech (2000);
Topcu, Packard, Seiler, Automatica 44 (2008).
"""

from fractions import Fraction
from typing import Any

import numpy as np

from dynsys.dynamics import AbstractFlow
from dynsys.errors import InvalidValue, require
from dynsys.status import Status
from dynsys.verify.exact import exactly_definite, fractions, least_eigenvalue
from dynsys.verify.lmi import EXTRA, Found, solve
from dynsys.verify.lyapunov import PolynomialLyapunov, QuadraticLyapunov
from dynsys.verify.polynomial import Power, Space, polynomial_field, powers

SMALL = 1e-6  # the least eigenvalue that G, H and S are asked to have


def sum_of_squares(flow: AbstractFlow, goal: Any, *, degree: int = 2, field_degree: int = 3, rate: float = 0.0) -> Found:
    """A polynomial V of an even degree that decreases everywhere along a polynomial flow of at most `field_degree`.

    Raises InvalidValue as `polynomial_field`, for a degree that is not even, or a goal that is not stable in the linear part.
    """
    cp: Any = require("cvxpy", extra=EXTRA, who="dynsys.verify.sos")
    p = _Problem(polynomial_field(flow, goal, field_degree), goal, degree, rate, multiplier=0)
    G, H = (cp.Variable((len(b), len(b)), symmetric=True) for b in (p.v, p.q))
    t = cp.Variable()
    v = p.gram_v @ cp.vec(G, order="C")
    slack = [G >> np.eye(len(p.v)) * 1e-3, H >> t * np.eye(len(p.q)), cp.trace(G) <= len(p.v), t <= 1]
    slack.append(-(p.along @ v) - rate * v == p.gram_q @ cp.vec(H, order="C"))
    solve(cp.Problem(cp.Maximize(t), slack))
    if G.value is None or not t.value > 0:
        return Found.none(f"no V of degree {degree} decreases everywhere; raise the degree, or take sum_of_squares_region")
    return p.proof(G.value, None, H.value)


def sum_of_squares_region(
    flow: AbstractFlow, goal: Any, V: Any = None, *, field_degree: int = 3, multiplier: int | None = None, rate: float = 0.0
) -> Found:
    """The largest level of V (a quadratic or a polynomial, such as one that was learned) that sums of squares prove, and V over it.

    V: the quadratic of the Lyapunov equation unless given. multiplier: the degree of s, even; by default 2 less than that of V, at least
    that of the field. The result is V scaled so that its set is {V <= 1}. Raises InvalidValue as `sum_of_squares`.
    """
    require("cvxpy", extra=EXTRA, who="dynsys.verify.sos")
    field = polynomial_field(flow, goal, field_degree)
    V = QuadraticLyapunov.of_linear(_linear(field), continuous=True) if V is None else V
    gram, degree = _gram(V)
    wide = _Problem(field, goal, degree, rate, multiplier=multiplier)
    reach = wide.reach(wide.gram_v @ gram.ravel())
    p = _Problem(field, goal, degree, rate, multiplier=multiplier, scale=reach)
    v, S = p.scaled(p.gram_v @ (gram * np.outer(p.units(p.v), p.units(p.v))).ravel())
    if S is None:
        return Found.none("no level of this V is proved; raise the degree of the multiplier, lower the rate, or scale the states")
    return p.finish(v)


def _linear(field: list[dict[Power, float]]) -> np.ndarray:
    """The matrix of the linear part."""
    n = len(field)
    return np.array([[terms.get(tuple(int(i == j) for i in range(n)), 0.0) for j in range(n)] for terms in field])


def _gram(V: Any) -> tuple[np.ndarray, int]:
    """The Gram matrix of a quadratic or polynomial V over all monomials of its degree, and the degree."""
    if isinstance(V, QuadraticLyapunov):
        return np.asarray(V.P)[::-1, ::-1], 2  # the monomials of degree 1 stand in the opposite order of the states
    if not isinstance(V, PolynomialLyapunov):
        raise InvalidValue(f"sum_of_squares_region: V must be quadratic or polynomial, got {type(V).__name__}. `certify` proves any other.")
    degree = 2 * max(sum(power) for power in V.exponents)
    basis = powers(V.dim, 1, degree // 2)
    R = np.zeros((V.R.shape[0], len(basis)))
    for column, power in zip(np.asarray(V.R, float).T, V.exponents, strict=True):
        R[:, basis.index(power)] += column
    gram = R.T @ R
    for i, value in enumerate(np.asarray(V.floor, float)):
        place = basis.index(tuple(int(i == j) for j in range(V.dim)))
        gram[place, place] += value
    return gram, degree


class _Problem:
    """The monomials and linear maps of one problem; polynomials are vectors over `space`."""

    def __init__(
        self,
        field: list[dict[Power, float]],
        goal: Any,
        degree: int,
        rate: float,
        *,
        multiplier: int | None,
        scale: np.ndarray | None = None,
    ):
        if degree < 2 or degree % 2:
            raise InvalidValue(f"sum_of_squares: degree must be even and at least 2, got degree={degree}.")
        self.goal, self.rate, self.n = np.asarray(goal, float), rate, len(field)
        top = max(sum(power) for terms in field for power in terms)
        if multiplier is None:
            multiplier = max(degree - 2, top - 1 + (top - 1) % 2, 2)
        if multiplier < 0 or multiplier % 2:
            raise InvalidValue(f"sum_of_squares_region: multiplier must be an even degree, got {multiplier}.")
        most = max(degree + top - 1, degree + multiplier)
        most += most % 2
        self.space = Space(self.n, most)
        self.v, self.s, self.q = (powers(self.n, 1, d // 2) for d in (degree, multiplier, most))
        self.scale = np.ones(self.n) if scale is None else scale  # states are in these units; powers of 2, so that nothing is rounded
        self.field = [
            {power: c * self.units([power])[0] / unit for power, c in f.items()} for f, unit in zip(field, self.scale, strict=True)
        ]
        self.gram_v, self.gram_s, self.gram_q = (self.space.gram(b) for b in (self.v, self.s, self.q))
        self.along = self.space.along([self.space.lift(terms) for terms in self.field])

    def units(self, basis: list[Power]) -> np.ndarray:
        """The size of each monomial where every state is one unit, (K,)."""
        return np.prod(self.scale[None] ** np.array(basis), axis=1)

    def reach(self, v: np.ndarray) -> np.ndarray:
        """A power of 2 for each state: about how far the largest set goes in which V decreases, as far as sampling can tell."""
        x = self.border(v / self.sampled(v))
        return 2.0 ** np.round(np.log2(np.maximum(np.abs(x).max(axis=0), 1e-12)))

    def rays(self, distances: np.ndarray) -> np.ndarray:
        """Points on random rays from the goal, (400, D, n)."""
        rays = np.random.default_rng(2).normal(size=(400, self.n))
        return (rays / np.linalg.norm(rays, axis=1, keepdims=True))[:, None] * distances[None, :, None]

    def sampled(self, v: np.ndarray) -> float:
        """The least V at which V does not decrease, on random rays."""
        monomials = self.space.values(self.rays(np.geomspace(1e-3, 1e3, 600)).reshape(-1, self.n))
        value = monomials @ v
        bad = monomials @ (self.along @ v + self.rate * v) >= 0
        return float(value[bad].min()) if bad.any() else float(value.max())

    def border(self, v: np.ndarray) -> np.ndarray:
        """The first points with V >= 1 on random rays, (B, n)."""
        x = self.rays(np.geomspace(1e-3, 1e3, 2000))
        over = (self.space.values(x.reshape(-1, self.n)) @ v).reshape(x.shape[:2]) >= 1
        found = over.any(axis=1)
        return x[np.flatnonzero(found), over[found].argmax(axis=1)]

    def decrease(self, v: Any, sv: Any, s: Any) -> Any:
        """Coefficients of -(grad V . f) - rate V - s + s V."""
        return -(self.along @ v) - self.rate * v - s + sv

    def multiplier(self, v: np.ndarray) -> np.ndarray | None:
        """S for the set {V <= 1}, or None."""
        import cvxpy as cp  # pyright: ignore[reportMissingImports]

        S, H, t = cp.Variable((len(self.s),) * 2, symmetric=True), cp.Variable((len(self.q),) * 2, symmetric=True), cp.Variable()
        s = self.gram_s @ cp.vec(S, order="C")
        equal = self.decrease(v, self.space.times(v) @ s, s) == self.gram_q @ cp.vec(H, order="C")
        solve(cp.Problem(cp.Maximize(t), [equal, S >> SMALL * np.eye(len(self.s)), H >> t * np.eye(len(self.q)), t <= 1]))
        return S.value if S.value is not None and t.value is not None and t.value > SMALL else None

    def scaled(self, v: np.ndarray, tries: int = 6) -> tuple[np.ndarray, np.ndarray | None]:
        """V over the largest level that a bisection proves, and the multiplier for it; None if there is none."""
        most = high = self.sampled(v)
        low, best = 0.0, None
        for share in (0.99, 0.95, 0.9, 0.8, 0.6, 0.4, 0.2, 0.1, 0.01, 1e-3):
            low, best = most * share, self.multiplier(v / (most * share))
            if best is not None:
                break
            high = low
        for _ in range(tries if best is not None and low < 0.99 * most else 0):
            middle = (low * high) ** 0.5
            S = self.multiplier(v / middle)
            low, high, best = (middle, high, S) if S is not None else (low, middle, best)
        return v / low, best

    def finish(self, v: np.ndarray) -> Found:
        """The proof for a level a little below 1, so that there is room for what rounding takes."""
        import cvxpy as cp  # pyright: ignore[reportMissingImports]

        G, t = cp.Variable((len(self.v),) * 2, symmetric=True), cp.Variable()
        solve(cp.Problem(cp.Maximize(t), [self.gram_v @ cp.vec(G, order="C") == v, G >> t * np.eye(len(self.v))]))
        for shrink in (1.001, 1.003, 1.01, 1.03):
            S = self.multiplier(v * shrink)
            if S is None or G.value is None:
                continue
            found = self.proof(G.value * shrink, S, None)
            if found.exact:
                return found
        return Found.none("the solver's last step could not be confirmed in exact arithmetic; scale the states, or lower the degree")

    def proof(self, G: np.ndarray, S: np.ndarray | None, H: np.ndarray | None) -> Found:
        """Make V from G, and check the identity for that very V in fractions."""
        import cvxpy as cp  # pyright: ignore[reportMissingImports]

        V, v = self.function((G + G.T) / 2)
        field = [self.space.lift({power: Fraction(value) for power, value in terms.items()}, object) for terms in self.field]
        target = -(self.space.along(field) @ v) - Fraction(float(self.rate)) * v
        margins, sure = [], True
        if S is not None:
            exact_S = fractions((S + S.T) / 2)
            s = fractions(self.gram_s) @ exact_S.ravel()
            target = target - s + self.space.times(v) @ s
            margins.append(least_eigenvalue(exact_S.astype(float)))
            sure = exactly_definite(exact_S)
        if H is None:
            made, t = cp.Variable((len(self.q),) * 2, symmetric=True), cp.Variable()
            equal = target.astype(float) == self.gram_q @ cp.vec(made, order="C")
            solve(cp.Problem(cp.Maximize(t), [equal, made >> t * np.eye(len(self.q)), t <= 1]))
            H = made.value
        if H is None:
            return Found.none("the identity of the sum of squares has no solution for the rounded V")
        exact_H = self.projected(fractions((H + H.T) / 2), target)
        margins.append(least_eigenvalue(exact_H.astype(float)))
        sure = sure and exactly_definite(exact_H)
        if not min(margins) > 0:
            return Found.none("a Gram matrix is not positive definite; raise the degree, or scale the states", float(min(margins)))
        level = 1.0 if S is not None else float("inf")
        return Found(V, float(min(margins)), sure, level, "", Status.SUCCESS)  # pyright: ignore[reportCallIssue]

    def function(self, G: np.ndarray) -> tuple[PolynomialLyapunov, np.ndarray]:
        """V as a sum of squares with a floor, and its coefficients in fractions."""
        first = [self.v.index(tuple(int(i == j) for i in range(self.n))) for j in range(self.n)]
        least = max(least_eigenvalue(G), 1e-12)
        floor = np.full(self.n, least / 2)
        rest = G.copy()
        rest[first, first] -= floor
        w, U = np.linalg.eigh(rest)
        R = np.sqrt(np.maximum(w, 0.0))[:, None] * U.T
        V = PolynomialLyapunov.of(R / self.units(self.v)[None], self.v, floor / self.scale**2, self.goal)
        exact_R, exact_floor = fractions(R), fractions(floor)
        square = exact_R.T @ exact_R
        square[first, first] = square[first, first] + exact_floor
        return V, fractions(self.gram_v) @ square.ravel()

    def projected(self, H: np.ndarray, target: np.ndarray) -> np.ndarray:
        """H moved the least way to m'Hm = target, exactly: each coefficient's error is shared by the entries that make it."""
        K = len(self.q)
        miss = target - fractions(self.gram_q) @ H.ravel()
        share = self.gram_q.sum(axis=1)
        owner = self.gram_q.argmax(axis=0)
        moved = H.ravel().copy()
        for place in range(K * K):
            moved[place] += miss[owner[place]] / Fraction(int(share[owner[place]]))
        return moved.reshape(K, K)

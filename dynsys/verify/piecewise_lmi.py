"""Quadratic and piecewise quadratic Lyapunov functions of piecewise-affine maps, such as AL-RNNs, by linear matrix inequalities.

    step: d -> J[r] d + c[r] in region r,  d = x - goal;   V = d' P[r] d.   For every r, s between which a step can lead:
    (1 - rate) P[r] - M' P[s] M - F' U F >= t I,   M = (J[r], c[r]),  F (d, 1) >= 0 in r, in the box, and with the next state in s,  U >= 0

With one P for all regions V is a common quadratic. U, with entries that are not negative, is the multiplier that restricts the inequality
to the region. t is maximised; what the solver returns is checked in exact arithmetic for the affine maps and the goal as given.
Sources: Johansson & Rantzer, IEEE TAC 43 (1998); Ferrari-Trecate, Cuzzola, Mignone, Morari, Automatica 38 (2002) (discrete time).
"""

import itertools
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dynsys.dynamics import AbstractPiecewiseLinear, AnyInput, AnyObservation, AnyState
from dynsys.errors import InvalidValue, require
from dynsys.precision import x64
from dynsys.status import Status
from dynsys.verify.exact import exactly_definite, fractions, least_eigenvalue
from dynsys.verify.lmi import EXTRA, Found, solve
from dynsys.verify.lyapunov import PiecewiseQuadraticLyapunov, QuadraticLyapunov

MOST_BORDERS = 6
CLOSE = 1e-9  # of the box: a border this near to the goal goes through it, a fixed point that moves less is one


class Regulated(AbstractPiecewiseLinear):
    """A piecewise-linear map with inputs under linear feedback u = rest - K (z - goal): again piecewise linear, without inputs."""

    model: AbstractPiecewiseLinear
    K: Float[Array, "k M"]
    goal: Float[Array, " M"]
    rest: Float[Array, " k"]

    @property
    def dim(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """M, as the map has it."""
        return self.model.dim

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """N, as the map has it."""
        return self.model.n_obs

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """0."""
        return 0

    def step(self, z: AnyState, u: AnyInput = None) -> AnyState:
        """The next state."""
        return self.model.step(z, self.rest - self.K @ (z - self.goal))

    def observe(self, z: AnyState) -> AnyObservation:
        """As the map has it."""
        return self.model.observe(z)

    def lift(self, x: AnyObservation) -> AnyState:
        """As the map has it."""
        return self.model.lift(x)

    def region(self, z: Float[Array, " M"]) -> Bool[Array, " R"]:
        """As the map has it."""
        return self.model.region(z)

    def switching(self) -> tuple[Float[Array, "R M"], Float[Array, " R"]]:
        """As the map has it."""
        return self.model.switching()

    def affine(self, region: Bool[Array, " R"]) -> tuple[Float[Array, "M M"], Float[Array, " M"]]:
        """(J - B K, h + B (rest + K goal)) with B the input's factor."""
        J, h = self.model.affine(region)
        B = jax.jacfwd(lambda u: self.model.step(self.goal, u))(self.rest)
        return J - B @ self.K, h + B @ (self.rest + self.K @ self.goal)


def piecewise_quadratic(
    model: AbstractPiecewiseLinear, goal: Any, *, low: Any = None, high: Any = None, rate: float = 0.0, common: bool = False
) -> Found:
    """A (piecewise) quadratic V around a fixed point of a piecewise-linear map without inputs, for all states or for a box [low, high].

    common: one quadratic for all regions. With a box, `level` of the result is the largest whose set lies in it, else inf. Raises
    InvalidValue for a goal that is no fixed point or lies outside the box, an unstable region at the goal, or more than 6 borders.
    """
    cp: Any = require("cvxpy", extra=EXTRA, who="dynsys.verify.piecewise_lmi")
    cells = _Cells(model, goal, low, high)
    n, regions = cells.n, cells.regions
    P: dict[int, Any] = {r: cp.Variable((n, n), symmetric=True) for r in regions}
    if common:
        P = dict.fromkeys(regions, P[regions[0]])
    t, floor, parts = cp.Variable(), cp.Variable(), []
    slack = [matrix - floor * np.eye(n) >> 0 for matrix in P.values()]
    for r, s in cells.pairs(common):
        M, F, eye = cells.inequality(r, s, common)
        U = cp.Variable((len(F), len(F)), symmetric=True)
        left = _left(P[r], P[s], M, F, U, eye, rate)
        slack += [left - t * np.eye(len(eye)) >> 0, U >= 0]
        parts.append((r, s, M, F, U, eye))
    slack.append(sum(cp.trace(matrix) for matrix in P.values()) == n * len(P))
    solve(cp.Problem(cp.Maximize(t), [*slack, floor >= 0.01]))
    if t.value is not None and t.value > 0:  # half of that margin leaves room for the roundest level set
        solve(cp.Problem(cp.Maximize(floor), [*slack, t >= t.value / 2]))
    if any(matrix.value is None for matrix in P.values()):
        return Found.none("the solver gave no solution; scale the states, or give a smaller box")
    values = {r: (matrix.value + matrix.value.T) / 2 for r, matrix in P.items()}
    margin, worst, sure = np.inf, (0, 0), True
    for r, s, M, F, U, eye in parts:
        weight = np.maximum((U.value + U.value.T) / 2, 0.0)
        least = least_eigenvalue(_left(values[r], values[s], M, F, weight, eye, rate))
        margin, worst = min((margin, worst), (least, (r, s)))
        a, b, c, d, e, f = (fractions(x) for x in (values[r], values[s], M, F, weight, eye))
        sure = sure and least > 0 and exactly_definite(_left(a, b, c, d, e, f, Fraction(float(rate))))
    least, region = min((least_eigenvalue(matrix), r) for r, matrix in values.items())
    if not min(margin, least) > 0:
        where = f"steps from region {cells.name(worst[0])}" + ("" if common else f" to region {cells.name(worst[1])}")
        return Found.none(
            f"no {'common' if common else 'piecewise'} quadratic function decreases on {where}, or P of region {cells.name(region)} is not "
            "positive; give a smaller box" + (", or try common=False" if common else ""),
            float(margin),
        )
    sure = sure and all(exactly_definite(fractions(matrix)) for matrix in values.values())
    if common:
        V = QuadraticLyapunov.of(values[regions[0]], cells.goal)
    else:
        filled = [values.get(r, np.eye(n)) for r in range(2 ** len(cells.N))]
        V = PiecewiseQuadraticLyapunov.of(filled, cells.N, cells.b, cells.goal)
    level, fits = cells.level(list(values.values()))
    return Found(V, float(min(margin, least)), bool(sure and fits), level, "", Status.SUCCESS)  # pyright: ignore[reportCallIssue]


def _left(P: Any, after: Any, M: Any, F: Any, U: Any, eye: Any, rate: Any) -> Any:
    """The matrix that must be positive definite, on (d, 1) or on d alone; eye (n + 1 or n, n) puts P in its place."""
    return (1 - rate) * (eye @ P @ eye.T) - M.T @ after @ M - F.T @ U @ F


class _Cells:
    """The regions of a map that meet the box, their affine maps around the goal, and which lead where."""

    def __init__(self, model: AbstractPiecewiseLinear, goal: Any, low: Any, high: Any):
        with x64():
            self.goal = np.asarray(goal, float)
            self.n = model.dim
            N, b = (np.asarray(x, float) for x in model.switching())
            who = "piecewise_quadratic"
            if self.goal.shape != (self.n,) or not np.isfinite(self.goal).all() or model.n_inputs:
                raise InvalidValue(f"{who}: wants a finite goal ({self.n},) and a map without inputs; `Regulated` closes a loop.")
            if len(N) > MOST_BORDERS:
                raise InvalidValue(
                    f"{who}: at most {MOST_BORDERS} borders, got {len(N)}: 2**{len(N)} regions are too many for this method."
                )
            self.N, self.b = N, b
            self.low, self.high = (None if side is None else np.broadcast_to(np.asarray(side, float), (self.n,)) for side in (low, high))
            if (self.low is None) != (self.high is None):
                raise InvalidValue(f"{who}: give both low and high, or neither.")
            self.box = self._box_rows()
            self.J, self.c = {}, {}
            size = 1.0 if self.high is None else float(np.min(self.high - self.low))
            borders = N @ self.goal + b
            borders[np.abs(borders) <= CLOSE * size * np.abs(N).sum(axis=1)] = 0.0
            self.around = borders  # the offsets of the borders as seen from the goal
            self.regions = [r for r in range(2 ** len(N)) if self._meets(np.vstack([self.rows(r), self.box]))]
            for r in self.regions:
                J, h = (np.asarray(x, float) for x in model.affine(jnp.asarray(self.code(r))))
                move = J @ self.goal + h - self.goal
                if self.at_goal(r):
                    if np.max(np.abs(move)) > CLOSE * max(size, 1.0):
                        raise InvalidValue(
                            f"{who}: the goal is no fixed point, it moves by {np.max(np.abs(move)):.2g} in region {self.name(r)}."
                        )
                    move = np.zeros(self.n)
                    radius = float(np.max(np.abs(np.linalg.eigvals(J))))
                    if len(N) == np.count_nonzero(borders) and radius >= 1:
                        raise InvalidValue(f"{who}: the goal is not stable: its region {self.name(r)} has spectral radius {radius:.4g}.")
                self.J[r], self.c[r] = J, move

    def code(self, r: int) -> np.ndarray:
        """The region's side of each border."""
        return np.array([bool(r >> i & 1) for i in range(len(self.N))])

    def name(self, r: int) -> str:
        """The code as digits, the first border first."""
        return "".join("1" if side else "0" for side in self.code(r)) or "(all)"

    def at_goal(self, r: int) -> bool:
        """Whether the goal lies in the region or on its border."""
        return bool(np.all(np.where(self.code(r), self.around, -self.around) >= 0))

    def rows(self, r: int) -> np.ndarray:
        """Rows (R, n + 1) that are not negative on (d, 1) in the region."""
        sign = np.where(self.code(r), 1.0, -1.0)
        return np.column_stack([sign[:, None] * self.N, sign * self.around])

    def inequality(self, r: int, s: int, common: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """M, F and eye of `_left`; on d alone where both regions touch the goal, so that the inequality can be strict."""
        F = np.vstack([self.rows(r), self.box, [[0.0] * self.n + [1.0]]])
        if not common:
            F = np.vstack([F, self._after(r, s)])
        if self.at_goal(r) and (common or self.at_goal(s)):
            return self.J[r], F[F[:, -1] == 0, : self.n], np.eye(self.n)
        return np.column_stack([self.J[r], self.c[r]]), F, np.eye(self.n + 1, self.n)

    def pairs(self, common: bool) -> list[tuple[int, int]]:
        """From which region a step can lead to which."""
        if common:
            return [(r, r) for r in self.regions]
        return [
            (r, s)
            for r, s in itertools.product(self.regions, self.regions)
            if self._meets(np.vstack([self.rows(r), self.box, self._after(r, s)]))
        ]

    def level(self, matrices: list[np.ndarray]) -> tuple[float, bool]:
        """The largest level whose ellipsoids all lie in the box, and whether they do so in exact arithmetic."""
        if self.high is None:
            return float("inf"), True
        reach = np.minimum(self.high - self.goal, self.goal - self.low)
        level = min(float(np.min(reach**2 / np.diag(np.linalg.inv(P)))) for P in matrices) * (1 - 1e-9)
        unit = np.eye(self.n)
        fits = all(
            exactly_definite(fractions(P) - Fraction(level) / Fraction(float(reach[i])) ** 2 * fractions(np.outer(unit[i], unit[i])))
            for P in matrices
            for i in range(self.n)
        )
        return level, fits

    def _after(self, r: int, s: int) -> np.ndarray:
        rows = self.rows(s)
        return np.column_stack([rows[:, : self.n] @ self.J[r], rows[:, : self.n] @ self.c[r] + rows[:, -1]])

    def _box_rows(self) -> np.ndarray:
        if self.high is None or self.low is None:
            return np.zeros((0, self.n + 1))
        if not np.all((self.low < self.goal) & (self.goal < self.high)):
            raise InvalidValue("piecewise_quadratic: the goal must lie inside the box.")
        eye = np.eye(self.n)
        return np.vstack([np.column_stack([-eye, self.high - self.goal]), np.column_stack([eye, self.goal - self.low])])

    def _meets(self, rows: np.ndarray) -> bool:
        """Whether some d has rows (d, 1) >= 0: a linear program, in which a touching border counts."""
        from scipy.optimize import linprog

        if not len(rows):
            return True
        scale = np.maximum(np.abs(rows).max(axis=1), 1e-300)[:, None]
        rows = rows / scale
        wanted = linprog(
            np.append(np.zeros(self.n), -1.0),
            A_ub=np.column_stack([-rows[:, :-1], np.ones(len(rows))]),
            b_ub=rows[:, -1],
            bounds=[(None, None)] * self.n + [(None, 1.0)],
        )
        return wanted.status != 0 or -wanted.fun >= -1e-9

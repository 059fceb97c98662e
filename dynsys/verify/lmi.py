"""Quadratic Lyapunov functions by linear matrix inequalities: one V = d'Pd for a linear system, known or uncertain.

    map    (1 - rate) P - A'PA >= t I            flow    -(A'P + PA) - rate P >= t I            for every vertex A,  P >= t I, tr P = n

The inequalities are affine in A only for flows, but by Schur's complement a P that serves the vertices serves every matrix between them,
at every moment another one. t is maximised; V exists if and only if it can be positive. The floats that the solver returns are then checked
in exact arithmetic (`exact.py`), so that a result with `exact` is a proof for the matrices as given.
Source: Boyd, El Ghaoui, Feron, Balakrishnan, Linear Matrix Inequalities in System and Control Theory (SIAM 1994), ch. 5.
"""

from fractions import Fraction
from typing import Any

import equinox as eqx
import numpy as np

from dynsys.errors import InvalidValue, require
from dynsys.status import Status
from dynsys.verify.exact import exactly_definite, fractions, least_eigenvalue
from dynsys.verify.lyapunov import AbstractLyapunov, QuadraticLyapunov

EXTRA = "control"


class Found(eqx.Module):
    """A candidate, or None with the reason.

    margin: the least eigenvalue of the matrices that must be positive definite, as recomputed from the candidate, with P of trace n.
    exact: whether they are so in exact arithmetic. level: {V <= level} is where it holds, inf if everywhere.
    """

    V: AbstractLyapunov | None
    margin: float
    exact: bool
    level: float
    reason: str = eqx.field(static=True)
    status: Status = eqx.field(static=True)

    @classmethod
    def none(cls, reason: str, margin: float = float("nan")) -> "Found":
        """No candidate."""
        return cls(None, margin, False, 0.0, reason, Status.FAILED)  # pyright: ignore[reportCallIssue]


def common_quadratic(matrices: Any, *, continuous: bool = False, rate: float = 0.0, goal: Any = None) -> Found:
    """One quadratic for all the vertices A (V, n, n) of a linear system that may switch or vary among them; one A (n, n) is a known system.

    rate: V falls by at least this part a step, or (flows) a unit of time. Raises InvalidValue for a vertex that is not stable (with that
    rate) on its own, MissingExtra without cvxpy. Stable vertices without a common V give status FAILED and the vertices that conflict.
    """
    cp: Any = require("cvxpy", extra=EXTRA, who="dynsys.verify.lmi")
    A = _vertices(matrices, continuous, rate)
    n = A.shape[1]
    P, t = cp.Variable((n, n), symmetric=True), cp.Variable()
    slack = [_left(P, vertex, continuous, rate) - t * np.eye(n) >> 0 for vertex in A]
    solve(cp.Problem(cp.Maximize(t), [*slack, P >> t * np.eye(n), cp.trace(P) == n]))
    if P.value is None:
        return Found.none("the solver gave no solution; scale the states so that the entries of A are near 1")
    value = (P.value + P.value.T) / 2
    margin = min(least_eigenvalue(value), *(least_eigenvalue(_left(value, vertex, continuous, rate)) for vertex in A))
    if not margin > 0:
        return Found.none(_conflict(slack), margin)
    exact = fractions(value)
    sure = exactly_definite(exact) and all(exactly_definite(_left(exact, fractions(v), continuous, Fraction(float(rate)))) for v in A)
    return Found(QuadraticLyapunov.of(value, goal), margin, sure, float("inf"), "", Status.SUCCESS)  # pyright: ignore[reportCallIssue]


def solve(problem: Any) -> None:
    """Solve a conic problem by CLARABEL, or by SCS where it fails; the caller looks at the values."""
    import cvxpy as cp  # pyright: ignore[reportMissingImports]

    for solver in ("CLARABEL", "SCS"):
        try:
            problem.solve(solver=solver)
        except cp.SolverError:
            continue
        if problem.status in ("optimal", "optimal_inaccurate", "infeasible", "unbounded"):
            return


def _left(P: Any, A: Any, continuous: bool, rate: Any) -> Any:
    """The matrix that must be positive definite; on numbers, fractions and variables alike."""
    return -(A.T @ P + P @ A) - rate * P if continuous else (1 - rate) * P - A.T @ P @ A


def _vertices(matrices: Any, continuous: bool, rate: float) -> np.ndarray:
    A = np.asarray(matrices, float)
    A = A[None] if A.ndim == 2 else A
    if A.ndim != 3 or A.shape[1] != A.shape[2] or not len(A) or not np.isfinite(A).all():
        raise InvalidValue(f"common_quadratic: wants matrices (V, n, n), all finite, got shape {A.shape}.")
    if not rate >= 0 or (not continuous and rate >= 1):
        raise InvalidValue(f"common_quadratic: rate must be at least 0, and below 1 for a map, got rate={rate}.")
    for i, vertex in enumerate(A):
        values = np.linalg.eigvals(vertex)
        worst = values[np.argmax(values.real if continuous else np.abs(values))]
        if not (2 * worst.real < -rate if continuous else abs(worst) ** 2 < 1 - rate):
            raise InvalidValue(
                f"common_quadratic: vertex {i} is not stable with rate {rate}, it has the eigenvalue {complex(worst):.4g}: no V can exist. "
                "Leave it out, lower the rate, or change the feedback."
            )
    return A


def _conflict(slack: list[Any]) -> str:
    """Names the vertices whose inequalities hold t down: those with a dual variable."""
    weight = np.array([0.0 if c.dual_value is None else float(np.trace(c.dual_value)) for c in slack])
    held = [str(i) for i in np.flatnonzero(weight > 1e-3 * max(weight.max(), 1e-12))]
    return (
        f"no quadratic function decreases for vertices {', '.join(held)} at once, though each is stable; try a piecewise quadratic one, "
        "a longer product of steps, or a smaller uncertainty"
    )

"""Quadratic programs that are solved again and again with other numbers: min 1/2 x'Hx + f'x, rows x <= bound, equal x = fixed.

H, rows and equal (sparse) are given once, f, bound and fixed at every solve. CLARABEL (interior point, no memory) and OSQP (starts where
the last solve ended, so digits below its tolerance depend on what was solved before) are called directly: between two solves of a small
program the bookkeeping of a modelling language takes several times as long as the solve. Any other solver goes through a parametrised
problem of cvxpy.
Sources: Goulart & Chen, arXiv 2405.12762 (2024); Stellato et al., Math. Program. Comput. 12, 637 (2020); Agrawal et al., NeurIPS 2019.
"""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from dynsys.errors import InvalidValue, require

WHO, EXTRA = "dynsys.control.MPC", "control"
TOLERANCE = 1e-8  # of OSQP; the others have theirs at about that
ITERATIONS = 20_000
Found = tuple[Float[np.ndarray, " V"] | None, str]  # the solution, or None and why there is none


@runtime_checkable
class Engine(Protocol):
    """What solves the program."""

    def solve(self, f: Float[np.ndarray, " V"], bound: Float[np.ndarray, " E"], fixed: Float[np.ndarray, " F"]) -> Found:
        """The minimiser, or None and the reason."""
        ...


def engine(solver: str, H: Any, rows: Any, equal: Any) -> Engine:
    """By the solver's name. Raises MissingExtra without cvxpy's solvers, InvalidValue for a name that cvxpy does not know either."""
    if solver in ("CLARABEL", "OSQP"):
        return {"CLARABEL": Clarabel, "OSQP": OSQP}[solver](H, rows, equal)
    return Modelled(H, rows, equal, solver)


class Clarabel:
    """The interior-point solver that cvxpy brings."""

    def __init__(self, H: Any, rows: Any, equal: Any):
        from scipy.sparse import triu, vstack

        self.package: Any = require("clarabel", extra=EXTRA, who=WHO)
        self.H, self.rows = triu(H, format="csc"), vstack([equal, rows], format="csc")
        cones = (self.package.ZeroConeT, equal.shape[0]), (self.package.NonnegativeConeT, rows.shape[0])
        self.cones = [cone(size) for cone, size in cones if size]
        self.settings = self.package.DefaultSettings()
        self.settings.verbose = False

    def solve(self, f: Float[np.ndarray, " V"], bound: Float[np.ndarray, " E"], fixed: Float[np.ndarray, " F"]) -> Found:
        """As the protocol has it."""
        found = self.package.DefaultSolver(self.H, f, self.rows, np.concatenate([fixed, bound]), self.cones, self.settings).solve()
        status = str(found.status)
        return (np.array(found.x), "") if status in ("Solved", "AlmostSolved") else (None, f"CLARABEL: {status}")


class OSQP:
    """The first-order solver that cvxpy brings."""

    def __init__(self, H: Any, rows: Any, equal: Any):
        from scipy.sparse import triu, vstack

        package: Any = require("osqp", extra=EXTRA, who=WHO)
        self.solver, self.free = package.OSQP(), np.full(rows.shape[0], -np.inf)
        zeros = np.zeros(equal.shape[0])
        self.solver.setup(
            triu(H, format="csc"),
            np.zeros(H.shape[0]),
            vstack([equal, rows], format="csc"),
            np.concatenate([zeros, self.free]),
            np.concatenate([zeros, np.zeros(rows.shape[0])]),
            verbose=False,
            eps_abs=TOLERANCE,
            eps_rel=TOLERANCE,
            max_iter=ITERATIONS,
        )

    def solve(self, f: Float[np.ndarray, " V"], bound: Float[np.ndarray, " E"], fixed: Float[np.ndarray, " F"]) -> Found:
        """As the protocol has it."""
        self.solver.update(q=f, l=np.concatenate([fixed, self.free]), u=np.concatenate([fixed, bound]))
        found = self.solver.solve(raise_error=False)
        status = str(found.info.status)
        if status in ("solved", "solved inaccurate"):
            return np.array(found.x), ""
        self.solver.warm_start(x=np.zeros(len(f)), y=np.zeros(len(fixed) + len(bound)))  # or the next solve starts from a certificate
        return None, f"OSQP: {status}"


class Modelled:
    """A parametrised problem of cvxpy, for any of its solvers."""

    def __init__(self, H: Any, rows: Any, equal: Any, solver: str):
        self.cp: Any = require("cvxpy", extra=EXTRA, who=WHO)
        cp, self.solver = self.cp, solver
        if solver not in cp.installed_solvers():
            raise InvalidValue(f"MPC: solver must be one that cvxpy finds here, {', '.join(cp.installed_solvers())}; got {solver!r}.")
        self.x, self.f = cp.Variable(H.shape[0]), cp.Parameter(H.shape[0])
        self.bound, self.fixed = cp.Parameter(rows.shape[0]), cp.Parameter(equal.shape[0])
        cost = 0.5 * cp.quad_form(self.x, cp.psd_wrap(H)) + self.f @ self.x
        kept = [rows @ self.x <= self.bound] if rows.shape[0] else []
        self.problem = cp.Problem(cp.Minimize(cost), kept + ([equal @ self.x == self.fixed] if equal.shape[0] else []))

    def solve(self, f: Float[np.ndarray, " V"], bound: Float[np.ndarray, " E"], fixed: Float[np.ndarray, " F"]) -> Found:
        """As the protocol has it."""
        self.f.value, self.bound.value, self.fixed.value = f, bound, fixed
        try:
            self.problem.solve(solver=self.solver, warm_start=True, enforce_dpp=True)
        except self.cp.error.SolverError as error:
            return None, f"{self.solver}: {str(error).splitlines()[0]}"
        if self.problem.status not in ("optimal", "optimal_inaccurate"):
            return None, f"{self.solver}: {self.problem.status}"
        return np.array(self.x.value), ""

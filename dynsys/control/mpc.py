"""Model predictive control of linear and Koopman-lifted models: the best inputs over a horizon, of which the first is done.

    z[t+1] = A z[t] + B u[t] + c,    x[t] = C z[t] + d,    z[0] = E lift(observation)
    J = sum_t (x - goal)'Q(x - goal) + (u - rest)'R(u - rest)  +  (z[T] - z_goal)'P(z[T] - z_goal)

under the constraints of `dynsys.control.constraints`. P is by default the cost-to-go of the regulator, so that without an active
constraint the input is that of LQR whatever the horizon. The quadratic program is written once (`dynsys.control.mpc_program`).
Sources: Rawlings, Mayne, Diehl, Model Predictive Control, 2nd ed. (2017), chs. 1 and 2; lifted: Korda & Mezic, Automatica 93, 149 (2018).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from dynsys.control.constraints import Breach, Constraints
from dynsys.control.controller import AbstractController
from dynsys.control.lqr import lqr
from dynsys.control.mpc_program import program
from dynsys.control.mpc_system import lifted_system, plain, weight
from dynsys.dynamics import AbstractMap
from dynsys.errors import InvalidValue
from dynsys.status import Status


@dataclass(frozen=True)
class Prediction:
    """states (T + 1, M), observations (T + 1, N), inputs (T, K) and cost J of the horizon.

    broken: the hard constraints that no inputs keep; the status is FAILED then, and the inputs are those that break them least.
    softened: the soft ones that are broken. reason: of a solver that failed; the inputs are the last ones, moved on by one step, then.
    """

    states: Float[np.ndarray, "S M"]
    observations: Float[np.ndarray, "S N"]
    inputs: Float[np.ndarray, "T K"]
    cost: float
    status: Status
    broken: tuple[Breach, ...] = ()
    softened: tuple[Breach, ...] = ()
    reason: str = ""

    @property
    def explanation(self) -> str:
        """What went wrong, in words; empty if nothing did."""
        return "; ".join(map(str, self.broken)) or self.reason


@dataclass(frozen=True)
class Predictive:
    """The state of an MPC: the model's state after the last input, that input, the step, and the last prediction."""

    z: Any
    last: Float[np.ndarray, " K"]
    step: int
    prediction: Prediction | None = None


class MPC(AbstractController):
    """Solves the program at every step. Made by `of`, for a linear system, or `lifted`, for a Koopman model.

    goal (S, N): of the observation at step t is row t (the last one for ever); rest (S, K) likewise; ends (S, M): the states of the goals.
    """

    A: Float[Any, "M M"]
    B: Float[Any, "M K"]
    c: Float[Any, " M"]
    C: Float[Any, "N M"]
    d: Float[Any, " N"]
    Q: Float[Any, "N N"]
    R: Float[Any, "K K"]
    P: Float[Any, "M M"]
    E: Float[Any, "M L"]
    goal: Float[Any, "S N"]
    rest: Float[Any, "S K"]
    ends: Float[Any, "S M"]
    constraints: Constraints
    model: AbstractMap | None
    horizon: int
    solver: str

    @classmethod
    def of(
        cls,
        A: Any,
        B: Any,
        Q: Any,
        R: Any,
        constraints: Constraints | None = None,
        *,
        c: Any = None,
        goal: Any = None,
        rest: Any = None,
        final: Any = None,
        horizon: int = 20,
        solver: str = "CLARABEL",
    ) -> "MPC":
        """Of x[t+1] = A x[t] + B u[t] + c. Q, R, final (the weight of the end): matrices, or vectors for diagonal ones.

        goal: zeros, one point (N,), or one a step (S, N). rest, (K,) or (S, K): by default what holds the goal, as well as one can; of a
        trajectory that is followed give its inputs.
        Raises InvalidValue for shapes that do not fit, weights that are no weights, and as `lqr` if `final` is left open.
        """
        A, B = np.asarray(A, float), np.asarray(B, float)
        n = len(A)
        c = np.zeros(n) if c is None else np.asarray(c, float)
        if A.shape != (n, n) or B.ndim != 2 or B.shape[0] != n or c.shape != (n,):
            raise InvalidValue(f"{cls.__name__}: wants A (M, M), B (M, K), c (M,); got {A.shape}, {B.shape}, {c.shape}.")
        system = (A, B, c, np.eye(n), np.zeros(n), np.eye(n), None)
        return cls._made(system, Q, R, constraints, goal, rest, final, horizon, solver)

    @classmethod
    def lifted(
        cls,
        model: AbstractMap,
        Q: Any,
        R: Any,
        constraints: Constraints | None = None,
        *,
        goal: Any = None,
        rest: Any = None,
        final: Any = None,
        horizon: int = 20,
        solver: str = "CLARABEL",
    ) -> "MPC":
        """Of a Koopman model with inputs; weights, goals and constraints are on what it observes, `final` too.

        final: by default the regulator's cost-to-go in latent space, or Q if no gain moves every unstable latent mode, as is usual where
        the system itself is unstable. Raises InvalidValue for a model that is bilinear or whose decoder is not affine, and as `of`.
        """
        return cls._made(lifted_system(cls.__name__, model), Q, R, constraints, goal, rest, final, horizon, solver)

    @classmethod
    def _made(cls, system: Any, Q: Any, R: Any, constraints: Any, goal: Any, rest: Any, final: Any, horizon: int, solver: str) -> "MPC":
        A, B, c, C, d, E, model = system
        who, n, k = cls.__name__, len(C), B.shape[1]
        if horizon < 1:
            raise InvalidValue(f"{who}: horizon must be at least 1 step, got horizon={horizon}.")
        Q, R = weight(who, "Q", Q, n), weight(who, "R", R, k)
        if np.linalg.eigvalsh(R)[0] <= 0:
            raise InvalidValue(f"{who}: R must be positive definite: every input costs something.")
        if final is not None:
            P = C.T @ weight(who, "final", final, n) @ C
        else:
            try:
                P = lqr(A, B, C.T @ Q @ C, R).P
            except InvalidValue:
                if model is None:
                    raise
                P = C.T @ Q @ C
        constraints = Constraints.of(n, k) if constraints is None else constraints
        if constraints.G.shape[1] != n or constraints.D.shape[1] != k:
            raise InvalidValue(
                f"{who}: the constraints are for {constraints.G.shape[1]} observations and {constraints.D.shape[1]} inputs, "
                f"the system has {n} and {k}."
            )
        goal = np.atleast_2d(np.zeros(n) if goal is None else np.asarray(goal, float))
        if goal.ndim != 2 or goal.shape[1] != n or not len(goal) or not np.isfinite(goal).all():
            raise InvalidValue(f"{who}: goal must be finite, ({n},) or one row a step (S, {n}); got {goal.shape}.")
        ends = np.stack([E @ (x if model is None else np.asarray(plain(model).lift(x), float)) for x in goal])
        if rest is None:
            rest = (ends - ends @ A.T - c[None, :]) @ C.T @ np.linalg.pinv(C @ B).T
        rest = np.atleast_2d(np.asarray(rest, float))
        if rest.shape not in ((1, k), (len(goal), k)) or not np.isfinite(rest).all():
            raise InvalidValue(f"{who}: rest must be finite, ({k},) or one row for each of {len(goal)} goals; got {rest.shape}.")
        rest = np.repeat(rest, len(goal) // len(rest), axis=0)
        return cls(A, B, c, C, d, Q, R, P, E, goal, rest, ends, constraints, model, horizon, solver)  # pyright: ignore[reportCallIssue]

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """N, the rows of C."""
        return self.C.shape[0]

    def init(self, key: Array | int = 0) -> Predictive:
        """Step 0; the input before it counts as the first resting one."""
        return Predictive(None, np.asarray(self.rest, float)[0], 0)

    def act(self, observation: Any, state: Predictive) -> tuple[Float[np.ndarray, " K"], Predictive]:
        """The first input of the best ones. What could not be done is in the state's `prediction`; nothing is raised for it."""
        x = self._checked(observation)
        model = None if self.model is None else plain(self.model)
        z = x if model is None else np.asarray(model.lift(x) if state.z is None else model.correct(state.z, x), float)
        found = self.predicted(x, np.asarray(self.E, float) @ z, state)
        u = self.constraints.clipped(found.inputs[0])
        z = x if model is None else np.asarray(model.step(z, u), float)
        return u, Predictive(z, u, state.step + 1, found)  # pyright: ignore[reportCallIssue]

    def predicted(self, x: Float[np.ndarray, " N"], z: Float[np.ndarray, " M"], state: Predictive) -> Prediction:
        """The horizon from the observation x, whose state is z (M,)."""
        goals, rests, ends = (_ahead(a, state.step, self.horizon) for a in (self.goal, self.rest, self.ends))
        arrays = {name: np.asarray(getattr(self, name), float) for name in ("A", "B", "c", "C", "d", "Q", "R", "P")}
        if np.isfinite(z).all():
            written = program(arrays, self.constraints, self.horizon, self.solver)
            found = written.solve(z, state.last, goals[1:], rests[:-1], ends[-1])
            inputs, broken, softened, reason = found.inputs, found.broken, found.softened, found.reason
        else:
            inputs, broken, softened, reason = None, (), (), "the model's state is not finite at this observation"
        if inputs is None:
            before = state.prediction
            inputs = rests[:-1] if before is None else np.concatenate([before.inputs[1:], before.inputs[-1:]])
        zs = [z]
        for u in inputs:
            zs.append(arrays["A"] @ zs[-1] + arrays["B"] @ u + arrays["c"])
        zs = np.stack(zs)
        xs = np.concatenate([x[None], zs[1:] @ arrays["C"].T + arrays["d"]])
        off, push, last = xs[:-1] - goals[:-1], inputs - rests[:-1], zs[-1] - ends[-1]
        J = np.sum(off * (off @ arrays["Q"])) + np.sum(push * (push @ arrays["R"])) + last @ arrays["P"] @ last
        status = Status.FAILED if broken or reason else Status.SUCCESS
        return Prediction(zs, xs, inputs, float(J), status, broken, softened, reason)


def _ahead(rows: Any, step: int, horizon: int) -> np.ndarray:
    """Rows step, ..., step + horizon; after the end the last one."""
    rows = np.asarray(rows, float)
    return rows[np.minimum(np.arange(step, step + horizon + 1), len(rows) - 1)]

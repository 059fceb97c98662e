"""State-dependent Riccati control: the regulator of x' = A(x) x + B(x) u, solved anew at every state as if A and B were constant.

    flow   dx/dt  = f(x, u)      f(x, u*) - f(x*, u*) = A(x) (x - x*),    df/du = B(x)     ->  u = u* - K(A(x), B(x)) (x - x*)
    map    x[t+1] = f(x[t], u[t])    likewise, with the Riccati equation in discrete time

A factorisation A always exists and is not unique; near the goal every one is the Jacobian, so near it the controller is LQR. `OnSegment`
has one for every map and flow, A(x) = int_0^1 df/dx(x* + s (x - x*)) ds (exact, by the fundamental theorem of calculus);
`dynsys.control.factored` has ones that a user writes down or that are learned from data. What holds far from the goal is only that A(x)
and B(x) are exact: stability there has to be checked. Where no gain stabilises A(x), B(x) the last gain is kept, with the status FAILED.
Sources: Cimen, Annu. Rev. Control 34, 32 (2010); Richards, Slotine, Azizan, Pavone, ICML 2023.
"""

import abc
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dynsys.control.controller import AbstractController
from dynsys.control.ilqr import doubled, limits
from dynsys.control.mpc_system import weight
from dynsys.control.riccati import gain
from dynsys.dynamics import AbstractFlow, AbstractMap
from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys.status import Status


class AbstractFactored(eqx.Module):
    """A factorisation around a goal: f(x, rest) - f(goal, rest) = A(x) (x - goal), and B = df/du."""

    continuous: eqx.AbstractVar[bool]
    n_inputs: eqx.AbstractVar[int]

    @abc.abstractmethod
    def matrices(
        self, x: Float[Array, " M"], goal: Float[Array, " M"], rest: Float[Array, " K"]
    ) -> tuple[Float[Array, "M M"], Float[Array, "M K"]]:
        """A(x) and B(x), of a flow or a map."""

    def check(self, who: str, goal: Float[Array, " M"], rest: Float[Array, " K"]) -> None:
        """Raise InvalidValue unless the factorisation is one about (goal, rest); by default every pair will do."""
        return


class OnSegment(AbstractFactored):
    """Of any map or flow that is affine in its inputs (B is taken at rest): the mean Jacobian between the goal and x.

    `nodes` of Gauss-Legendre quadrature integrate polynomials of degree 2 nodes - 1 along the segment exactly.
    """

    system: AbstractMap | AbstractFlow
    nodes: int = eqx.field(static=True, default=8)

    @property
    def continuous(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether it is a flow."""
        return isinstance(self.system, AbstractFlow)

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """K, of the system."""
        return self.system.n_inputs

    def rate(self, x: Float[Array, " M"], u: Float[Array, " K"]) -> Float[Array, " M"]:
        """f(x, u): a step of a map, the field of a flow."""
        return self.system.field(0.0, x, u) if isinstance(self.system, AbstractFlow) else self.system.step(x, u)

    def matrices(
        self, x: Float[Array, " M"], goal: Float[Array, " M"], rest: Float[Array, " K"]
    ) -> tuple[Float[Array, "M M"], Float[Array, "M K"]]:
        """The mean Jacobian, and df/du at (x, rest)."""
        at, weights = np.polynomial.legendre.leggauss(self.nodes)
        points = goal[None, :] + jnp.asarray((at + 1) / 2)[:, None] * (x - goal)[None, :]
        A = jnp.einsum("s,smn->mn", jnp.asarray(weights / 2), jax.vmap(jax.jacfwd(self.rate), (0, None))(points, rest))
        return A, jax.jacfwd(self.rate, argnums=1)(x, rest)

    def check(self, who: str, goal: Float[Array, " M"], rest: Float[Array, " K"]) -> None:
        """Raise InvalidValue unless (goal, rest) is an equilibrium of a system whose state is observed as it is."""
        _check_seen(who, self.system, goal)
        miss = float(jnp.max(jnp.abs(self.rate(goal, rest) - (0.0 if self.continuous else goal))))
        if not miss <= 1e-6 * max(1.0, float(jnp.max(jnp.abs(goal)))):
            raise InvalidValue(f"{who}: (goal, rest) is no equilibrium: the state moves by {miss:.2g} there.")


@dataclass(frozen=True)
class Regulated:
    """The state of an SDRE controller: the last gain (K, M), the steps done and failed, and how the last one ended."""

    K: Float[np.ndarray, "K M"]
    steps: int = 0
    failed: int = 0
    status: Status = Status.SUCCESS


class SDRE(AbstractController):
    """u = rest - K(x) (x - goal), inside the limits. Weights Q (M, M) and R (K, K), a step of a map or a unit of time of a flow."""

    factored: AbstractFactored
    Q: Float[Any, "M M"]
    R: Float[Any, "K K"]
    goal: Float[Any, " M"]
    rest: Float[Any, " K"]
    low: Float[Any, " K"]
    high: Float[Any, " K"]

    @classmethod
    def of(
        cls,
        system: AbstractFactored | AbstractMap | AbstractFlow,
        Q: Any,
        R: Any,
        goal: Any,
        rest: Any,
        *,
        low: Any = None,
        high: Any = None,
    ) -> "SDRE":
        """Of a factorisation, or of a map or flow by `OnSegment`; the whole state is observed. Q, R: matrices or their diagonals.

        Raises InvalidValue for shapes or weights that do not fit, a goal that is no equilibrium, and a goal that no gain stabilises.
        """
        who = cls.__name__
        made = system if isinstance(system, AbstractFactored) else OnSegment(system)  # pyright: ignore[reportCallIssue]
        with x64():
            goal, rest = jnp.asarray(goal, float), jnp.asarray(rest, float)
            if goal.ndim != 1 or rest.shape != (made.n_inputs,):
                raise InvalidValue(f"{who}: wants goal (M,) and rest ({made.n_inputs},), got {goal.shape} and {rest.shape}.")
            made.check(who, goal, rest)
            Q, R = weight(who, "Q", Q, len(goal)), weight(who, "R", R, len(rest))
            if np.linalg.eigvalsh(R)[0] <= 0:
                raise InvalidValue(f"{who}: R must be positive definite: every input costs something.")
            bounds = [np.asarray(limit) for limit in limits(who, low, high, len(rest))]
            whole = cls(doubled(made), Q, R, np.asarray(goal), np.asarray(rest), *bounds)  # pyright: ignore[reportCallIssue]
            if not bool(_regulate(whole, goal)[1]):
                raise InvalidValue(f"{who}: no gain stabilises the goal, or Q does not see an unstable mode there.")
        return whole

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """M, the whole state."""
        return self.goal.shape[-1]

    def init(self, key: Array | int = 0) -> Regulated:
        """The gain of the goal."""
        with x64():
            return Regulated(np.asarray(_regulate(self, jnp.asarray(self.goal, float))[0]))

    def act(self, observation: Any, state: Regulated) -> tuple[Float[np.ndarray, " K"], Regulated]:
        """The feedback with the gain of this state, or with the last one where there is none."""
        x = self._checked(observation)
        with x64():
            K, sound = (np.asarray(a) for a in _regulate(self, jnp.asarray(x)))
        K = K if sound else state.K
        u = np.clip(np.asarray(self.rest) - K @ (x - np.asarray(self.goal)), np.asarray(self.low), np.asarray(self.high))
        status = Status.SUCCESS if sound else Status.FAILED
        return u, Regulated(K, state.steps + 1, state.failed + (not sound), status)


def _check_seen(who: str, system: AbstractMap | AbstractFlow, goal: Array) -> None:
    """Raise InvalidValue unless goal is a state of the system, and a map observes its state as it is."""
    if goal.shape != (system.dim,):
        raise InvalidValue(f"{who}: wants goal ({system.dim},), a state of the {type(system).__name__}, got {goal.shape}.")
    if isinstance(system, AbstractMap):
        z = goal + jnp.linspace(0.1, 0.2, len(goal))
        if system.n_obs != system.dim or not np.allclose(system.observe(z), z):
            raise InvalidValue(f"{who}: the {type(system).__name__} does not observe its whole state as it is; plan on it instead.")


@eqx.filter_jit
def _regulate(controller: SDRE, x: Array) -> tuple[Float[Array, "K M"], Bool[Array, ""]]:
    goal, rest, Q, R = (jnp.asarray(a, float) for a in (controller.goal, controller.rest, controller.Q, controller.R))
    A, B = controller.factored.matrices(x, goal, rest)
    return gain(A, B, Q, R, continuous=controller.factored.continuous)

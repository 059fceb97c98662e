"""Costs of a trajectory: J = sum_t stage(x[t], u[t], t) + final(x[T]), x the observation of the model's state.

A cost is a module with two methods, written for JAX, so planners can differentiate it. `Quadratic` is the usual one; `Function` wraps two
functions of the user, `Scaled` weighs the end of another cost.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dynsys.errors import InvalidValue
from dynsys.precision import x64


class AbstractCost(eqx.Module):
    """What a trajectory costs."""

    @abc.abstractmethod
    def stage(self, x: Float[Array, " N"], u: Float[Array, " K"], t: Any) -> Float[Array, ""]:
        """The cost of being at x with the input u at step t."""

    @abc.abstractmethod
    def final(self, x: Float[Array, " N"]) -> Float[Array, ""]:
        """The cost of ending at x."""


class Quadratic(AbstractCost):
    """(x - goal)'Q(x - goal) + (u - rest)'R(u - rest) + 2 (x - goal)'C(u - rest), and (x - goal)'F(x - goal) at the end.

    Components of x whose number is in `angles` are compared around the circle.
    """

    Q: Float[Array, "N N"]
    R: Float[Array, "K K"]
    F: Float[Array, "N N"]
    C: Float[Array, "N K"]
    goal: Float[Array, " N"]
    rest: Float[Array, " K"]
    angles: tuple[int, ...] = eqx.field(static=True, default=())

    @classmethod
    def of(
        cls, Q: Any, R: Any, F: Any = None, *, C: Any = None, goal: Any = None, rest: Any = None, angles: tuple[int, ...] = ()
    ) -> "Quadratic":
        """Matrices, or vectors for diagonal ones. F: default Q. goal, rest: default zeros. Raises InvalidValue for bad shapes."""
        Q, R = _matrix(Q), _matrix(R)
        F = Q if F is None else _matrix(F)
        n, k = len(Q), len(R)
        C = np.zeros((n, k)) if C is None else np.asarray(C, float)
        goal = np.zeros(n) if goal is None else np.asarray(goal, float)
        rest = np.zeros(k) if rest is None else np.asarray(rest, float)
        if Q.shape != (n, n) or R.shape != (k, k) or F.shape != (n, n) or C.shape != (n, k) or goal.shape != (n,) or rest.shape != (k,):
            shapes = [x.shape for x in (Q, R, F, C, goal, rest)]
            raise InvalidValue(f"Quadratic: wants Q (N, N), R (K, K), F (N, N), C (N, K), goal (N,), rest (K,); got {shapes}.")
        if any(not 0 <= i < n for i in angles):
            raise InvalidValue(f"Quadratic: angles must be numbers of components below {n}, got {angles}.")
        return cls(*(jnp.asarray(x) for x in (Q, R, F, C, goal, rest)), tuple(angles))  # pyright: ignore[reportCallIssue]

    def weighted(self, *, states: float = 1.0, inputs: float = 1.0, end: float = 1.0) -> "Quadratic":
        """The same cost with Q, R and F times these numbers (C times the root of the first two); an easier one to begin with."""
        with x64():  # so that float64 weights stay so
            Q, R, F, C = states * self.Q, inputs * self.R, end * self.F, (states * inputs) ** 0.5 * self.C
        return Quadratic(Q, R, F, C, self.goal, self.rest, self.angles)  # pyright: ignore[reportCallIssue]

    def _off(self, x: Float[Array, " N"]) -> Float[Array, " N"]:
        off = x - self.goal
        if not self.angles:
            return off
        at = jnp.asarray(self.angles)
        return off.at[at].set(jnp.mod(off[at] + jnp.pi, 2 * jnp.pi) - jnp.pi)

    def stage(self, x: Float[Array, " N"], u: Float[Array, " K"], t: Any) -> Float[Array, ""]:
        """As above; the same at every step."""
        off, push = self._off(x), u - self.rest
        return off @ self.Q @ off + push @ self.R @ push + 2 * (off @ self.C @ push)

    def final(self, x: Float[Array, " N"]) -> Float[Array, ""]:
        """(x - goal)'F(x - goal)."""
        off = self._off(x)
        return off @ self.F @ off


class Function(AbstractCost):
    """Two functions of the user: running(x, u, t) and ending(x)."""

    running: Callable[[Any, Any, Any], Any] = eqx.field(static=True)
    ending: Callable[[Any], Any] | None = eqx.field(static=True, default=None)

    def stage(self, x: Float[Array, " N"], u: Float[Array, " K"], t: Any) -> Float[Array, ""]:
        """running(x, u, t)."""
        return jnp.asarray(self.running(x, u, t))

    def final(self, x: Float[Array, " N"]) -> Float[Array, ""]:
        """ending(x), or 0."""
        return jnp.zeros((), x.dtype) if self.ending is None else jnp.asarray(self.ending(x))


class Scaled(AbstractCost):
    """Another cost with the end weighted by `weight`."""

    cost: AbstractCost
    weight: float = eqx.field(static=True)

    def stage(self, x: Float[Array, " N"], u: Float[Array, " K"], t: Any) -> Float[Array, ""]:
        """As the other has it."""
        return self.cost.stage(x, u, t)

    def final(self, x: Float[Array, " N"]) -> Float[Array, ""]:
        """`weight` times that of the other."""
        return self.weight * self.cost.final(x)


def _matrix(x: Any) -> np.ndarray:
    x = np.asarray(x, float)
    return np.diag(x) if x.ndim == 1 else np.atleast_2d(x)

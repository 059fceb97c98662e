"""Candidates: functions V with V(goal) = 0 and V > 0 elsewhere, whatever their parameters. With d = x - goal:

    QuadraticLyapunov           d' P d
    PolynomialLyapunov          |R m(d)|^2 + d' D d,  m: monomials from degree 1 on                     (a sum of squares)
    NeuralLyapunov              |phi(x) - phi(goal)|^2 + d' (eps I + R'R) d                             ("squared")
                                |phi(x) - phi(goal)|_1 + |(eps I + R'R) d|_1                            ("absolute")
    PiecewiseAffineLyapunov     max_i rows[i] d
    PiecewiseQuadraticLyapunov  d' P[r] d,  r: the region that d lies in

`degree` is the power of |d| with which V leaves zero: 2 for squares, 1 for norms. Expressions that a person can read are in `symbolic.py`.
Sources: network forms: Chang, Roohi, Gao, NeurIPS 2019; Yang, Dai, Shi, Hsieh, Tedrake, Zhang, ICML 2024, eqs. 7 and 8.
"""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dynsys.errors import InvalidValue, UnknownName
from dynsys.precision import x64
from dynsys.verify.network import Network

FORMS = ("squared", "absolute")


class AbstractLyapunov(eqx.Module):
    """A candidate on states (n,); `goal` is the equilibrium."""

    goal: eqx.AbstractVar[Float[Array, " n"]]

    @property
    @abc.abstractmethod
    def degree(self) -> int:
        """The power of |x - goal| with which V leaves zero."""

    @abc.abstractmethod
    def value(self, x: Float[Array, " n"]) -> Float[Array, ""]:
        """V(x), (n,) -> ()."""

    def free(self) -> tuple[Any, ...]:
        """The parts that training may change, for `eqx.tree_at`: V stays positive whatever they become."""
        return ()

    @property
    def dim(self) -> int:
        """n, the number of states."""
        return self.goal.shape[0]


class QuadraticLyapunov(AbstractLyapunov):
    """d' P d with P (n, n) symmetric and positive definite."""

    P: Float[Array, "n n"]
    goal: Float[Array, " n"]

    @classmethod
    def of(cls, P: Any, goal: Any = None) -> "QuadraticLyapunov":
        """From a matrix (its symmetric part counts). Raises InvalidValue unless it is positive definite."""
        P = definite(cls.__name__, P)
        with x64():
            return cls(jnp.asarray(P), _goal(cls.__name__, goal, len(P)))  # pyright: ignore[reportCallIssue]

    @classmethod
    def of_linear(cls, A: Any, goal: Any = None, Q: Any = None, *, continuous: bool = False) -> "QuadraticLyapunov":
        """The solution of the Lyapunov equation A'PA - P = -Q, or A'P + PA = -Q; Q is the identity unless given.

        Raises InvalidValue for an A (n, n) that is not stable, with its worst eigenvalue.
        """
        from scipy.linalg import solve_continuous_lyapunov, solve_discrete_lyapunov

        A = np.asarray(A, float)
        if A.ndim != 2 or A.shape[0] != A.shape[1]:
            raise InvalidValue(f"QuadraticLyapunov: A must be square, got {A.shape}.")
        Q = np.eye(len(A)) if Q is None else definite(cls.__name__, Q)
        values = np.linalg.eigvals(A)
        worst = values[np.argmax(values.real if continuous else np.abs(values))]
        if not (worst.real < 0 if continuous else abs(worst) < 1):
            raise InvalidValue(
                f"QuadraticLyapunov: the linear system is not stable, it has the eigenvalue {complex(worst):.4g}: no quadratic V exists. "
                "Stabilise it first (dynsys certify --controller lqr, dynsys.control.lqr), or choose another equilibrium."
            )
        return cls.of((solve_continuous_lyapunov(A.T, -Q) if continuous else solve_discrete_lyapunov(A.T, Q)), goal)

    @property
    def degree(self) -> int:
        """2."""
        return 2

    def value(self, x: Float[Array, " n"]) -> Float[Array, ""]:
        """d' P d."""
        d = x - self.goal
        return jnp.dot(d, self.P @ d)

    def volume(self, level: Any) -> Float[Array, ""]:
        """The volume of {V <= level}, by the formula for an ellipsoid."""
        n = self.dim
        ball = 2 * np.prod([2 * np.pi / i for i in range(n, 1, -2)]) if n % 2 else np.prod([2 * np.pi / i for i in range(n, 0, -2)])
        with x64():
            return ball * level ** (n / 2) / jnp.sqrt(jnp.linalg.det(self.P))


class PolynomialLyapunov(AbstractLyapunov):
    """|R m(d)|^2 + d' diag(floor) d; R (r, K) acts on K monomials, `exponents` are theirs, K times n; floor (n,) is positive."""

    R: Float[Array, "r K"]
    floor: Float[Array, " n"]
    goal: Float[Array, " n"]
    exponents: tuple[tuple[int, ...], ...] = eqx.field(static=True)

    @classmethod
    def of(cls, R: Any, exponents: Any, floor: Any, goal: Any = None) -> "PolynomialLyapunov":
        """From a factor R of the Gram matrix, the powers of its columns, and the floor. InvalidValue for a floor not above 0."""
        powers = tuple(tuple(int(p) for p in power) for power in exponents)
        n = len(powers[0]) if powers else 0
        floor = np.broadcast_to(np.asarray(floor, float), (n,))
        if not np.all(floor > 0):
            raise InvalidValue(f"PolynomialLyapunov: floor must be positive, or V need not be; got {floor.tolist()}.")
        with x64():
            return cls(jnp.asarray(R, float), jnp.asarray(floor), _goal(cls.__name__, goal, n), powers)  # pyright: ignore[reportCallIssue]

    def __check_init__(self):
        if any(sum(power) < 1 or min(power) < 0 or len(power) != len(self.goal) for power in self.exponents):
            raise InvalidValue(
                "PolynomialLyapunov: every monomial needs one power a state, none negative, not all zero: V(goal) must be 0."
            )
        if self.R.shape[1] != len(self.exponents):
            raise InvalidValue(f"PolynomialLyapunov: R must have one column a monomial, got {self.R.shape[1]} for {len(self.exponents)}.")

    @property
    def degree(self) -> int:
        """2."""
        return 2

    def free(self) -> tuple[Any, ...]:
        """R."""
        return (self.R,)

    def value(self, x: Float[Array, " n"]) -> Float[Array, ""]:
        """|R m(d)|^2 + d' diag(floor) d."""
        d = x - self.goal
        y = self.R @ monomials(d, self.exponents)
        return jnp.dot(y, y) + jnp.dot(d, self.floor * d)


class NeuralLyapunov(AbstractLyapunov):
    """A network beside a quadratic or a norm. form: "squared" or "absolute"; eps > 0."""

    net: Network
    R: Float[Array, "r n"]
    goal: Float[Array, " n"]
    eps: float = eqx.field(static=True, default=0.01)
    form: str = eqx.field(static=True, default="squared")

    def __check_init__(self):
        if self.form not in FORMS:
            raise UnknownName("form", self.form, FORMS)
        if not self.eps > 0:
            raise InvalidValue(f"NeuralLyapunov: eps must be positive, or V need not be; got eps={self.eps}.")

    @property
    def degree(self) -> int:
        """2 for "squared", 1 for "absolute"."""
        return 2 if self.form == "squared" else 1

    def free(self) -> tuple[Any, ...]:
        """The network and R."""
        return self.net, self.R

    def value(self, x: Float[Array, " n"]) -> Float[Array, ""]:
        """The form of the class's description."""
        d = x - self.goal
        y, z = self.net(x) - self.net(self.goal), self.R @ d
        if self.form == "squared":
            return jnp.dot(y, y) + self.eps * jnp.dot(d, d) + jnp.dot(z, z)
        return jnp.sum(jnp.abs(y)) + jnp.sum(jnp.abs(self.eps * d + self.R.T @ z))


class PiecewiseAffineLyapunov(AbstractLyapunov):
    """max_i rows[i] d, rows (F, n): the gauge of a polytope around the goal."""

    rows: Float[Array, "F n"]
    goal: Float[Array, " n"]

    @classmethod
    def of(cls, rows: Any, goal: Any = None) -> "PiecewiseAffineLyapunov":
        """From the faces rows[i] d = 1 of a polytope. Raises InvalidValue unless it is bounded, with a direction in which it is not."""
        rows = np.asarray(rows, float)
        if rows.ndim != 2 or not np.isfinite(rows).all():
            raise InvalidValue(f"PiecewiseAffineLyapunov: rows must be a finite matrix (faces, states), got {rows.shape}.")
        _check_bounded(rows)
        with x64():
            return cls(jnp.asarray(rows), _goal(cls.__name__, goal, rows.shape[1]))  # pyright: ignore[reportCallIssue]

    @property
    def degree(self) -> int:
        """1."""
        return 1

    def value(self, x: Float[Array, " n"]) -> Float[Array, ""]:
        """The largest of rows d."""
        return jnp.max(self.rows @ (x - self.goal))


class PiecewiseQuadraticLyapunov(AbstractLyapunov):
    """d' P[r] d with one positive definite P[r] (n, n) a region; bit i of r is 1 where normals[i] x + offsets[i] > 0.

    V jumps at the borders between regions, which a Lyapunov function of a map may.
    """

    P: Float[Array, "r n n"]
    normals: Float[Array, "s n"]
    offsets: Float[Array, " s"]
    goal: Float[Array, " n"]

    @classmethod
    def of(cls, P: Any, normals: Any, offsets: Any, goal: Any = None) -> "PiecewiseQuadraticLyapunov":
        """From matrices (2**s, n, n) and the borders (s, n), (s,). Raises InvalidValue unless every matrix is positive definite."""
        P = np.stack([definite(cls.__name__, matrix) for matrix in P])
        with x64():
            borders = jnp.asarray(normals, float), jnp.asarray(offsets, float)
            return cls(jnp.asarray(P), *borders, _goal(cls.__name__, goal, P.shape[1]))  # pyright: ignore[reportCallIssue]

    def __check_init__(self):
        if len(self.P) != 2 ** len(self.normals):
            raise InvalidValue(f"PiecewiseQuadraticLyapunov: wants 2**{len(self.normals)} matrices, one a region, got {len(self.P)}.")

    @property
    def degree(self) -> int:
        """2."""
        return 2

    def value(self, x: Float[Array, " n"]) -> Float[Array, ""]:
        """d' P[r] d."""
        d = x - self.goal
        side = self.normals @ x + self.offsets
        values = [jnp.dot(d, P @ d) for P in self.P]
        for i in range(len(self.normals)):  # halves by the lowest bit of r that is left
            values = [jnp.where(side[i] > 0, values[j + 1], values[j]) for j in range(0, len(values), 2)]
        return values[0]


def monomials(d: Float[Array, " n"], exponents: tuple[tuple[int, ...], ...]) -> Float[Array, " K"]:
    """The products of powers of d, one for each entry of `exponents`."""
    powers = [[None, d[i]] for i in range(d.shape[0])]
    for column in powers:
        for _ in range(2, 1 + max((max(power) for power in exponents), default=1)):
            column.append(column[-1] * column[1])
    made = []
    for exponent in exponents:
        factors = [powers[i][p] for i, p in enumerate(exponent) if p]
        product = factors[0]
        for factor in factors[1:]:
            product = product * factor
        made.append(product)
    return jnp.stack(made)


def definite(who: str, P: Any) -> np.ndarray:
    """The symmetric part of a matrix. Raises InvalidValue unless it is square, finite and positive definite."""
    P = np.asarray(P, float)
    if P.ndim != 2 or P.shape[0] != P.shape[1] or not np.isfinite(P).all():
        raise InvalidValue(f"{who}: the matrix must be square and finite, got shape {P.shape}.")
    P = (P + P.T) / 2
    least = float(np.linalg.eigvalsh(P)[0])
    if not least > 1e-14 * np.abs(P).max():
        raise InvalidValue(f"{who}: the matrix must be positive definite, its smallest eigenvalue is {least:.3g}.")
    return P


def _goal(who: str, goal: Any, n: int) -> Array:
    goal = jnp.zeros(n) if goal is None else jnp.asarray(goal, float)
    if goal.shape != (n,):
        raise InvalidValue(f"{who}: goal must be ({n},), got {goal.shape}.")
    return goal


def _check_bounded(rows: np.ndarray) -> None:
    """Whether rows d <= 0 has the only solution d = 0: a linear program for each direction of each axis."""
    from scipy.optimize import linprog

    for axis in range(rows.shape[1]):
        for sign in (1.0, -1.0):
            cost = np.zeros(rows.shape[1])
            cost[axis] = -sign
            found = linprog(cost, A_ub=rows, b_ub=np.zeros(len(rows)), bounds=(-1, 1))
            if found.status != 0 or -found.fun > 1e-9:
                way = [] if found.x is None else np.round(found.x, 4).tolist()
                raise InvalidValue(f"PiecewiseAffineLyapunov: V is not positive in the direction {way}; add faces until 0 is enclosed.")

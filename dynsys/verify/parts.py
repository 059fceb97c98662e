"""V = (x - goal)' P (x - goal) + W(x): the quadratic part of a candidate, which proofs treat exactly, and the rest.

`quadratic(V)` gives P, a bound of its rounding, and whether there is a W; `rest(V, x)` is W. A candidate of your own needs nothing: its P
is zero and its W is V. Register both functions for a class whose quadratic part is worth telling.
"""

import functools
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from dynsys.verify.lyapunov import NeuralLyapunov, QuadraticLyapunov

U = 2.0**-53


@functools.singledispatch
def quadratic(V: Any) -> tuple[Array, Array, bool] | None:
    """P (n, n), |P - true P| at most (n, n), whether there is another part; None if there is no quadratic part."""
    return None


@functools.singledispatch
def rest(V: Any, x: Any) -> Any:
    """W(x)."""
    return V.value(x)


@quadratic.register
def _(V: QuadraticLyapunov) -> tuple[Array, Array, bool]:
    mean = 0.5 * (V.P + V.P.T)
    return mean, jnp.where(V.P == V.P.T, 0.0, 2 * U * (jnp.abs(V.P) + jnp.abs(V.P.T))), False


@quadratic.register
def _(V: NeuralLyapunov) -> tuple[Array, Array, bool] | None:
    if V.form != "squared":
        return None
    P = V.eps * jnp.eye(V.dim) + V.R.T @ V.R
    return P, 8 * (len(V.R) + 4) * U * (V.eps * jnp.eye(V.dim) + jnp.abs(V.R.T) @ jnp.abs(V.R)), True


@rest.register
def _(V: NeuralLyapunov, x: Any) -> Any:
    if V.form != "squared":
        return V.value(x)
    y = V.net(x) - V.net(V.goal)
    return jnp.dot(y, y)

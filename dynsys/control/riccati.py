"""Riccati equations of small systems inside compiled programs, by structure-preserving doubling.

    discrete    P = A'P (I + G P)^-1 A + Q,    G = B R^-1 B'
    doubling    A <- A W A,   G <- G + A W G A',   P <- P + A'P W A,   W = (I + G P)^-1,    from (A, G, Q)

One doubling is as many steps of the Riccati recursion as all before it together, so about 6 to 12 of them suffice, and P grows from Q to
the stabilising solution. In continuous time the same iteration follows a Cayley transform with a shift c > 0:

    a = A - c I,   w = a' + Q a^-1 G,   (A, G, Q) <- (I + 2 c w'^-1,   2 c a^-1 G w^-1,   2 c w^-1 Q a^-1)

`gain` also says whether the result is a stabilising solution. For one system on the host, or large ones, use `dynsys.control.lqr`.
Sources: Chu, Fan, Lin, Wang, Int. J. Control 77, 767 (2004); Chu, Fan, Lin, Linear Algebra Appl. 396, 55 (2005).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

DOUBLINGS = 40  # 2**40 steps of the recursion; fewer are done where it has settled
SETTLED = 1e-13  # relative change of P
RESIDUAL = 1e-6  # of the equation, relative to the size of its terms


def gain(A: Array, B: Array, Q: Array, R: Array, *, continuous: bool = False) -> tuple[Float[Array, "K M"], Bool[Array, ""]]:
    """The gain K of u = -K x for A (M, M), B (M, K), Q (M, M), R (K, K), and whether it solves the equation and stabilises."""
    G = B @ jnp.linalg.solve(R, B.T)
    if continuous:
        P = _doubled(*_cayley(A, G, Q))
        K = jnp.linalg.solve(R, B.T @ P)
        miss, size = A.T @ P + P @ A - P @ G @ P + Q, jnp.abs(A.T @ P) + jnp.abs(P @ G @ P) + jnp.abs(Q)
    else:
        P = _doubled(A, G, Q)
        K = jnp.linalg.solve(R + B.T @ P @ B, B.T @ P @ A)
        miss, size = A.T @ P @ (A - B @ K) + Q - P, jnp.abs(P) + jnp.abs(Q) + jnp.abs(A.T @ P @ A)
    solved = jnp.max(jnp.abs(miss)) <= RESIDUAL * jnp.max(size)
    return K, solved & jnp.all(jnp.isfinite(K)) & _stable(A - B @ K, continuous)


def riccati(A: Array, B: Array, Q: Array, R: Array, *, continuous: bool = False) -> Float[Array, "M M"]:
    """The cost-to-go P of the same."""
    G = B @ jnp.linalg.solve(R, B.T)
    return _doubled(*_cayley(A, G, Q)) if continuous else _doubled(A, G, Q)


def _cayley(A: Array, G: Array, Q: Array) -> tuple[Array, Array, Array]:
    eye = jnp.eye(A.shape[0], dtype=A.dtype)
    hamiltonian = jnp.concatenate([jnp.concatenate([A, -G], axis=1), jnp.concatenate([-Q, -A.T], axis=1)])
    c = 1.1 * jnp.sqrt(jnp.sum(hamiltonian**2) / A.shape[0]) + 1e-3  # any c > 0 works; near the eigenvalues' size it settles soonest
    a = A - c * eye
    inner = jnp.linalg.solve(a, jnp.concatenate([G, eye], axis=1))
    aG, inverse = inner[:, : A.shape[0]], inner[:, A.shape[0] :]
    w = jnp.linalg.inv(a.T + Q @ aG)
    return eye + 2 * c * w.T, 2 * c * aG @ w, 2 * c * w @ Q @ inverse


def _doubled(A: Array, G: Array, P: Array) -> Float[Array, "M M"]:
    eye = jnp.eye(A.shape[0], dtype=A.dtype)

    def going(carry: Any) -> Array:
        _, _, _, change, k = carry
        return (change > SETTLED) & (k < DOUBLINGS)

    def double(carry: Any) -> Any:
        A, G, P, _, k = carry
        moved = jnp.linalg.solve(eye + G @ P, jnp.concatenate([A, G], axis=1))  # W A, W G
        WA, WG = moved[:, : A.shape[0]], moved[:, A.shape[0] :]
        more = A.T @ P @ WA
        G, after = G + A @ WG @ A.T, P + (more + more.T) / 2
        change = jnp.max(jnp.abs(more)) / jnp.maximum(jnp.max(jnp.abs(after)), jnp.finfo(P.dtype).tiny)
        return A @ WA, (G + G.T) / 2, after, change, k + 1

    start = (A, G, P, jnp.asarray(jnp.inf, P.dtype), 0)
    return jax.lax.while_loop(going, double, start)[2]


def _stable(closed: Array, continuous: bool) -> Bool[Array, ""]:
    """Whether every eigenvalue is inside: repeated squaring of the closed loop, or of its Cayley transform, shrinks it to nothing."""
    eye = jnp.eye(closed.shape[0], dtype=closed.dtype)
    if continuous:
        c = jnp.sqrt(jnp.sum(closed**2)) + 1e-3
        closed = jnp.linalg.solve(c * eye - closed, c * eye + closed)
    power = jax.lax.fori_loop(0, 30, lambda _, x: jnp.clip(x @ x, -1e100, 1e100), closed)
    return jnp.max(jnp.abs(power)) < 0.5

"""Coordinates y in which boxes are split: x = goal + T y. The cube |y_i| <= 1 encloses the set.

    box          y is the domain's, scaled
    diagonal     y diagonalises the quadratic part of V and its linear decrease together
    directions   y are the linear forms g x that the loop bends: what goes into sin, clip, tanh, products, ...

A nonlinear term depends on few of the latter, so that halving one of them halves what is not known of the term; along the diagonal every
term depends on every y. With n coupled pendulums the boxes then grow about tenfold a pair of states instead of a hundredfold (`docs/
benchmarks.md`). A loop that bends in more than n directions at once, such as one with a network, has none that are its own.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dynsys.errors import InvalidValue
from dynsys.verify.affine import variables
from dynsys.verify.interpret import bounded
from dynsys.verify.loop import ClosedLoop

FRAMES = ("box", "diagonal", "directions")
ROOM = 1.01  # the cube reaches beyond the set of the quadratic part, so that its border is easily seen to lie outside
NEAR = 1e-6  # a box around the goal, relative to which the loop's operands are linear
APART = 0.3  # sine of the angle, as V measures it, between a direction and those already there


def diagonal(P: np.ndarray, M: np.ndarray, level: float) -> Float[np.ndarray, "n n"]:
    """T with T'PT = level ROOM^2 I and T'MT diagonal; M: the matrix of the linear decrease."""
    from scipy.linalg import eigh

    return eigh(M, P)[1] * np.sqrt(level) * ROOM


def along(G: np.ndarray, P: np.ndarray, level: float) -> Float[np.ndarray, "n n"]:
    """T such that y_i is the linear form G[i] over its largest value, times ROOM, where v'Pv <= level."""
    reach = np.sqrt(level * np.einsum("ij,ij->i", G, np.linalg.solve(P, G.T).T)) * ROOM
    return np.linalg.inv(G) * reach


def directions(loop: ClosedLoop, P: np.ndarray, M: np.ndarray) -> Float[np.ndarray, "n n"] | None:
    """n linear forms, rows: those that the loop bends, in the order of its program, then what is left, diagonal for M.

    None for a loop that is linear, or that bends more than n forms far enough apart.
    """
    n = loop.dim
    forms = bent_forms(loop)
    L = np.linalg.cholesky(P)  # where V is |z|^2, a form g is L^-1 g
    chosen: list[np.ndarray] = []
    distinct: list[np.ndarray] = []
    for g in forms:
        z = np.linalg.solve(L, g)
        z = z / np.linalg.norm(z)
        if all(np.sqrt(max(1 - float(z @ other) ** 2, 0.0)) > APART for other in distinct):
            distinct.append(z)
        left = z - sum(((z @ q) * q for q in np.linalg.qr(np.stack(chosen).T)[0].T), np.zeros(n)) if chosen else z
        if np.linalg.norm(left) > APART and len(chosen) < n:
            chosen.append(z)
    if not chosen or len(distinct) > n:
        return None
    basis = np.linalg.qr(np.stack(chosen).T, mode="complete")[0][:, len(chosen) :]
    M_z = np.linalg.solve(L, np.linalg.solve(L, M).T)
    basis = (basis @ np.linalg.eigh(basis.T @ M_z @ basis)[1]).T
    return np.concatenate([np.stack(chosen), basis]) @ L.T


def bent_forms(loop: ClosedLoop) -> list[np.ndarray]:
    """The linear parts at the goal, (n,) each, of what goes into functions and limits of the loop, and then into its products."""
    seen: list[tuple[bool, Array]] = []
    reach = NEAR * (1 + jnp.max(jnp.abs(loop.goal)))
    here = variables(loop.goal, jnp.full(loop.dim, reach))
    bounded(lambda loop, x, w: loop.advance(x, w), loop, here, 0.5 * (loop.low + loop.high), seen=seen)
    made = []
    for products in (False, True):
        for is_product, a in seen:
            rows = np.asarray(a).reshape(loop.dim, -1).T / float(reach)
            most = np.max(np.abs(rows), initial=0.0)
            made += [row for row in rows if is_product == products and np.linalg.norm(row) > 1e-3 * most]
    return made


def frame_of(
    frame: Any, loop: ClosedLoop, found: tuple[np.ndarray, bool] | None, M: np.ndarray, low: np.ndarray, high: np.ndarray, level: float
) -> tuple[np.ndarray, bool]:  # fmt: skip
    """T, and whether the cube of y is the domain. found: P of the quadratic part, and whether V has another; M: its linear decrease.

    Raises InvalidValue for a frame that does not fit.
    """
    goal = np.asarray(loop.goal)
    half = np.maximum(high - goal, goal - low)
    if isinstance(frame, str) and frame == "box":
        if not np.isfinite(half).all():
            raise InvalidValue("certify: this V needs a finite domain (low, high).")
        same = np.abs((high - goal) - (goal - low)) <= 8 * np.finfo(float).eps * (np.abs(high) + np.abs(low) + np.abs(goal))
        return np.diag(half), bool(np.all(same))
    walled = not np.isfinite(half).any()
    if isinstance(frame, str):
        if frame not in FRAMES or found is None:
            raise InvalidValue(
                f"certify: frame must be 'box', 'diagonal' or 'directions' (for a V with a quadratic part) or a matrix, got {frame!r}."
            )
        G = directions(loop, found[0], M) if frame == "directions" else None
        return diagonal(found[0], M, level) if G is None else along(G, found[0], level), walled
    T = np.asarray(frame, float)
    if T.shape != (len(goal), len(goal)) or not np.linalg.matrix_rank(T) == len(T):
        raise InvalidValue(f"certify: frame must be an invertible matrix {(len(goal),) * 2}, got {T.shape}.")
    return T, walled

"""Coordinates y in which boxes are split: x = goal + T y. The cube |y_i| <= 1 encloses the set.

    box          y is the domain's, scaled
    diagonal     y diagonalises the quadratic part of V and its linear decrease together
    directions   y are the linear forms g x that the loop bends: what goes into sin, clip, tanh, products, ...
    curvature    as the diagonal, with the curvature of V at the goal, scaled to enclose the set as far as rays from the goal tell

A nonlinear term depends on few of the latter, so that halving one of them halves what is not known of the term; along the diagonal every
term depends on every y. With n coupled pendulums the boxes then grow about tenfold a pair of states instead of a hundredfold (`docs/
benchmarks.md`). A loop that bends in more than n directions at once, such as one with a network, has none that are its own. For a V with a
network, curvature against box made the difference between 4 million boxes and none at the end of 45 million.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from dynsys.errors import InvalidValue
from dynsys.verify.affine import variables
from dynsys.verify.interpret import bounded
from dynsys.verify.loop import ClosedLoop

FRAMES = ("box", "diagonal", "directions", "curvature")
ROOM = 1.01  # the cube reaches beyond the set of the quadratic part, so that its border is easily seen to lie outside
WIDER = 1.03  # the same where the set is known from rays only
NEAR = 1e-6  # a box around the goal, relative to which the loop's operands are linear
RAYS = 4096
NARROWER = (0.3, 0.1, 0.03, 0.01)  # how far the rays of one round lie apart from the best of the last one
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


def curvature(loop: ClosedLoop, V: Any, rate: float, level: float, low: np.ndarray, high: np.ndarray) -> Float[np.ndarray, "n n"] | None:
    """T that diagonalises half of V's second derivative at the goal and its linear decrease; None where that is not positive definite."""
    H = 0.5 * np.asarray(jax.hessian(V.value)(loop.goal))
    A = np.asarray(jax.jacfwd(lambda x: loop.advance(x, 0.5 * (loop.low + loop.high)))(loop.goal))
    if not (np.isfinite(H).all() and np.isfinite(A).all() and np.linalg.eigvalsh(H)[0] > 1e-9 * np.abs(H).max()):
        return None
    T = diagonal(H, decrease(A, H, rate, loop.continuous), level)
    return T * np.asarray(_reach(V, jnp.asarray(T), jnp.asarray(level), jnp.asarray(low), jnp.asarray(high))) * WIDER


def enclosing(V: Any, level: float, low: Any, high: Any) -> Float[Array, "n n"]:
    """T such that the cube goal + T [-1, 1]^n encloses {V <= level} in the box as far as rays tell; the box where V has no curvature.

    Most random states of a box lie outside of a set in many dimensions; of this cube, not as many do.
    """
    return _enclosing(V, *(jnp.asarray(z, float) for z in (level, low, high)))


@eqx.filter_jit
def _enclosing(V: Any, level: Array, low: Array, high: Array) -> Array:
    H = 0.5 * jax.hessian(V.value)(V.goal)
    box = jnp.diag(jnp.maximum(high - V.goal, V.goal - low))
    fine = jnp.all(jnp.isfinite(H))
    values, vectors = jnp.linalg.eigh(jnp.where(fine, H, jnp.eye(len(H))))
    fine = fine & (values[0] > 1e-9 * values[-1])
    T = vectors * jnp.sqrt(level / jnp.maximum(values, 1e-9 * values[-1]))[None, :]
    T = T * (_reach(V, T, level, low, high) * WIDER)[None, :]
    smaller = jnp.abs(jnp.linalg.det(T)) < jnp.prod(jnp.diag(box))
    return jnp.where(fine & smaller & jnp.all(jnp.isfinite(T)), T, box)


@eqx.filter_jit
def _reach(V: Any, T: Array, level: Array, low: Array, high: Array, halvings: int = 30) -> Array:
    """The largest |y_i| (n,) at which rays from the goal leave the set or the domain: random rays, then others around the best of each."""
    n = T.shape[0]

    def inside(y: Array) -> Array:
        x = V.goal + T @ y
        return (V.value(x) <= level) & jnp.all((x >= low) & (x <= high))

    def end(y: Array) -> Array:
        far = jax.lax.while_loop(lambda s: inside(s * y) & (s < 1e6), lambda s: 1.1 * s, jnp.asarray(1e-3))
        near, _ = jax.lax.fori_loop(0, halvings, lambda _, b: _half(inside, y, b), (far / 1.1, far))
        return near * y

    def unit(y: Array) -> Array:
        return y / jnp.max(jnp.abs(y), axis=-1, keepdims=True)

    both = jnp.concatenate([jnp.eye(n), -jnp.eye(n)])
    keys = jr.split(jr.key(0), len(NARROWER) + 1)
    ends = jax.vmap(end)(jnp.concatenate([both, unit(jr.normal(keys[0], (RAYS, n)))]))
    best = ends[jnp.argmax(ends @ both.T, axis=0)]
    for spread, key in zip(NARROWER, keys[1:], strict=True):
        rays = unit(unit(best)[:, None] + spread * jr.normal(key, (2 * n, RAYS // 16, n)))
        ends = jnp.concatenate([best[:, None], jax.vmap(jax.vmap(end))(rays)], axis=1)
        best = jax.vmap(lambda row, way: row[jnp.argmax(row @ way)])(ends, both)
    return jnp.max(jnp.abs(jnp.sum(best * both, axis=1)).reshape(2, n), axis=0)


def _half(inside: Any, y: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
    middle = 0.5 * (bounds[0] + bounds[1])
    fits = inside(middle * y)
    return jnp.where(fits, middle, bounds[0]), jnp.where(fits, bounds[1], middle)


def decrease(A: np.ndarray, P: np.ndarray, rate: float, continuous: bool) -> np.ndarray:
    """The matrix of the decrease of v'Pv along the linear system A, claimed rate included."""
    return A.T @ P + P @ A + rate * P if continuous else A.T @ P @ A - (1 - rate) * P


def frame_of(
    frame: Any, loop: ClosedLoop, V: Any, P: np.ndarray | None, rate: float, level: float, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, bool]:  # fmt: skip
    """T, and whether the cube of y is the domain. P: the matrix of V's quadratic part, if there is one.

    Raises InvalidValue for a frame that does not fit.
    """
    goal = np.asarray(loop.goal)
    half = np.maximum(high - goal, goal - low)
    with np.errstate(invalid="ignore"):  # of infinite sides
        apart = np.abs((high - goal) - (goal - low))
    same = np.isfinite(half) & (apart <= 8 * np.finfo(float).eps * (np.abs(high) + np.abs(low) + np.abs(goal)))
    everywhere, symmetric = bool(np.all(np.isneginf(low) & np.isposinf(high))), bool(np.all(same))
    if not isinstance(frame, str):
        T = np.asarray(frame, float)
        if T.shape != (len(goal), len(goal)) or not np.linalg.matrix_rank(T) == len(T):
            raise InvalidValue(f"certify: frame must be an invertible matrix {(len(goal),) * 2}, got {T.shape}.")
        return T, everywhere or (symmetric and bool(np.all(np.diag(half) == T)))
    if frame == "box":
        if not np.isfinite(half).all():
            raise InvalidValue("certify: this V needs a finite domain (low, high).")
        return np.diag(half), symmetric
    T = None
    if frame in ("diagonal", "directions") and P is not None:
        A = np.asarray(jax.jacfwd(lambda x: loop.advance(x, 0.5 * (loop.low + loop.high)))(loop.goal))
        M = decrease(A, P, rate, loop.continuous)
        G = directions(loop, P, M) if frame == "directions" else None
        T = diagonal(P, M, level) if G is None else along(G, P, level)
    if frame == "curvature":
        T = curvature(loop, V, rate, level, low, high)
    if T is None:
        raise InvalidValue(
            "certify: frame must be 'box', 'diagonal' or 'directions' (a V with a quadratic part), 'curvature' (a V whose second "
            f"derivative at the goal is definite) or a matrix, got {frame!r}."
        )
    return T, everywhere

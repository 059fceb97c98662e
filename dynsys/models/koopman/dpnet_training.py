"""The scores that an invariant representation psi maximises, and the compiled loop that does it.

    C_X = cov(psi(x)),   C_Y = cov(psi(y)),   C_XY = cov(psi(x), psi(y)),   y the point after x

    projection   P = |C_X^+1/2 C_XY C_Y^+1/2|_F^2            a sum of squared cosines: how much of psi(y) psi(x) tells
    relaxed      S = |C_XY|_F^2 / (|C_X| |C_Y|) <= P         operator norms; no inverse, so its gradient is tame
    distortion   R(C) = tr(C^2 - C - ln C) >= 0,  0 only at C = I

    maximise  (P or S) - gamma (R(C_X) + R(C_Y))

The covariances are centred, which takes the constant function out of the search; at the maximum psi spans the leading left singular
functions of the transfer operator. One network stands for both of the paper's, as it does for a stationary process. To C in ln C, and to
what P inverts, a small multiple of the identity is added, so that a batch with dependent features has a finite score.
Source: Kostic, Novelli, Grazzi, Lounici, Pontil, ICLR 2024 (arXiv 2307.09912), sec. 3.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from dynsys.errors import InvalidValue, UnknownName
from dynsys.models.koopman.network_dictionary import NetworkDictionary

SCORES = ("relaxed", "projection")
FLOOR = 1e-6  # added to the covariances where they are inverted
CLIP = 10.0  # the largest norm of a gradient
CHUNK = 250  # updates in one compiled call
DECAY = 0.1  # the learning rate at the end, as a share of that at the start

Square = Float[Array, "F F"]


def covariances(x: Float[Array, "B F"], y: Float[Array, "B F"]) -> tuple[Square, Square, Square]:
    """C_X, C_Y, C_XY of a batch of features before and after, centred by the batch's own means."""
    x, y = x - x.mean(axis=0)[None, :], y - y.mean(axis=0)[None, :]
    return x.T @ x / len(x), y.T @ y / len(y), x.T @ y / len(x)


def relaxed_score(C_X: Square, C_Y: Square, C_XY: Square) -> Float[Array, ""]:
    """S."""
    largest = [jnp.linalg.svd(C, compute_uv=False)[0] for C in (C_X, C_Y)]
    return jnp.sum(C_XY**2) / (largest[0] * largest[1])


def projection_score(C_X: Square, C_Y: Square, C_XY: Square) -> Float[Array, ""]:
    """P, with FLOOR I added to C_X and C_Y."""
    floor = FLOOR * jnp.eye(len(C_X), dtype=C_X.dtype)
    return jnp.sum(jnp.linalg.solve(C_X + floor, C_XY) * jnp.linalg.solve(C_Y + floor, C_XY.T).T)


def distortion(C: Square) -> Float[Array, ""]:
    """R(C), with FLOOR I added to C in the logarithm."""
    determinant = jnp.linalg.slogdet(C + FLOOR * jnp.eye(len(C), dtype=C.dtype))[1]
    return jnp.sum(C**2) - jnp.trace(C) - determinant


def objective(psi: NetworkDictionary, before: Array, after: Array, gamma: Any, score: str) -> Float[Array, ""]:
    """What is maximised, for windows (B, V) before and after."""
    found = covariances(psi(before), psi(after))
    gain = relaxed_score(*found) if score == "relaxed" else projection_score(*found)
    return gain - gamma * (distortion(found[0]) + distortion(found[1]))


def train(
    psi: NetworkDictionary,
    v: Float[np.ndarray, "R V"],
    before: Int[np.ndarray, " P"],
    *,
    score: str,
    gamma: float,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
) -> tuple[NetworkDictionary, Float[np.ndarray, " steps"]]:
    """The trained network, and the objective at every update, NaN where nothing could be learned from it.

    Rows `before` of v and the rows after each are the pairs. Adam in float32, gradients clipped, the learning rate falls exponentially to a
    tenth. Raises UnknownName for another score, InvalidValue if most of the last updates had no finite gradient.
    """
    if score not in SCORES:
        raise UnknownName("score", score, SCORES)
    params, static = eqx.partition(jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), psi), eqx.is_inexact_array)
    state = params, optax.scale_by_adam().init(params)
    data, rows = jnp.asarray(v, jnp.float32), jnp.asarray(before, jnp.int32)
    chunks = -(-steps // CHUNK)
    chunk = -(-steps // chunks)  # all chunks have one length and so one compilation; the last may end in updates of no size
    rates = np.append(learning_rate * DECAY ** (np.arange(steps) / max(1, steps - 1)), np.zeros(chunks * chunk - steps))
    keys, told = jr.split(jr.key(seed), len(rates)), []
    for a in range(0, steps, chunk):
        now = jnp.asarray(rates[a : a + chunk], jnp.float32), keys[a : a + chunk]
        state, values = _updates(state, static, data, rows, now, jnp.float32(gamma), score, min(batch, len(before)))
        told.append(np.asarray(values))
    history = np.concatenate(told)[:steps].astype(float)
    if not np.isfinite(history[-max(1, steps // 10) :]).mean() >= 0.5:
        raise InvalidValue(
            "DPNet: the score or its gradient did not stay finite. Try a lower learning_rate, fewer features or a larger batch."
        )
    trained = eqx.combine(state[0], static)
    return jax.tree.map(lambda a: np.asarray(a, float), trained), history


@eqx.filter_jit
def _updates(state: Any, static: Any, data: Array, rows: Array, now: Any, gamma: Array, score: str, batch: int) -> Any:
    clip = optax.clip_by_global_norm(CLIP)

    def update(state: Any, now: Any) -> Any:
        params, moments = state
        rate, key = now
        chosen = rows[jr.randint(key, (batch,), 0, len(rows))] if batch < len(rows) else rows

        def loss(params: Any) -> Array:
            return -objective(eqx.combine(params, static), data[chosen], data[chosen + 1], gamma, score)

        value, grads = jax.value_and_grad(loss)(params)
        good = jnp.isfinite(value) & jnp.isfinite(optax.tree.norm(grads))
        grads = clip.update(grads, clip.init(params))[0]
        moves, after = optax.scale_by_adam().update(grads, moments)
        moved = jax.tree.map(lambda p, m: p - rate * m, params, moves)
        return jax.tree.map(lambda new, old: jnp.where(good, new, old), (moved, after), state), jnp.where(good, -value, jnp.nan)

    return jax.lax.scan(update, state, now)

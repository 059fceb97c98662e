"""Markov parameters of a trajectory from rollouts, and what follows from them: locally linear models, gains, the gradient of a cost.

    psi[t, s] = dx[t]/du[s], s < t, with the feedback u = v + K (x - x_nominal) in place
    least squares   min sum_i |dx_i[t] - sum_{s<t} psi[t, s] w_i[s]|^2 + ridge |psi|^2      w: the perturbations of the inputs
    correlation     psi[t, s] = cov(dx[t], w[s]) / var(w[s])
    transitions     psi[t, s] = F[t-1] .. F[s+1] B[s],   (F, B)[t] by regression of dx[t+1] on (dx[t], w[t]); ours, for little data
    factorisation   C[t] = [psi[t, t-1] .. psi[t, 0]],   (A[t] + B[t] K[t]) C[t] = [psi[t+1, t-1] .. psi[t+1, 0]],   B[t] = psi[t+1, t]
    gradient        dJ/dv[s] = c_u[s] + sum_{t>s} psi[t, s]'(c_x[t] + K[t]'c_u[t])

The factorisation is that of Ho & Kalman (1966) with the states themselves as output, so that (A, B) come in the coordinates of x. It needs
C[t] of full rank, hence the burn-in: the first ceil(M / K) steps have no gain.
One Cholesky factor serves the regressions of all t: the equations of t are a leading block of those of t + 1, and the factor of a leading
block is the leading block of the factor.
Source: Pfrommer, Simchowitz, Westenbroek, Matni, Tu, ICML 2023 (arXiv:2305.09619).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dynsys.control.small import product, solve

UNROLLED = 8  # largest matrices that are eliminated in line: LAPACK calls on a batch of tiny ones cost more than the arithmetic
FLOOR = 1e-13  # of the trace: added to the diagonal of a Gram matrix that is inverted
SINGULAR = 1e-8  # the same where it is known to be singular: the root of the rounding error


def markov_least_squares(
    w: Float[Array, "N T K"], dx: Float[Array, "N S M"], weight: Float[Array, " N"], ridge: Any
) -> Float[Array, "S T M K"]:
    """psi by least squares. dx: the rollouts' states less the nominal ones, S = T + 1; weight 0 drops a rollout (then free of NaN).

    ridge: in units of the mean square perturbation, so that it is a number without unit; needed where there are fewer rollouts than inputs.
    """
    N, T, K = w.shape
    M = dx.shape[2]
    W = (w * weight[:, None, None]).reshape(N, T * K)
    G = W.T @ W
    trace = jnp.trace(G)
    L = jnp.linalg.cholesky(G + (ridge + FLOOR) * trace / (T * K) * jnp.eye(T * K, dtype=w.dtype))
    y = jax.scipy.linalg.solve_triangular(L, W.T @ dx[:, 1:].reshape(N, T * M), lower=True)
    past = jnp.asarray(np.repeat(np.arange(T)[:, None] <= np.arange(T)[None, :], K, axis=0))
    y = jnp.where(past[:, :, None], y.reshape(T * K, T, M), 0.0).reshape(T * K, T * M)
    psi = jax.scipy.linalg.solve_triangular(L, y, lower=True, trans="T").reshape(T, K, T, M).transpose(2, 0, 3, 1)
    return jnp.concatenate([jnp.zeros_like(psi[:1]), psi])


def markov_correlation(
    w: Float[Array, "N T K"], dx: Float[Array, "N S M"], weight: Float[Array, " N"], ridge: Any
) -> Float[Array, "S T M K"]:
    """psi by correlation; arguments as for least squares. Needs many more rollouts: its error falls as 1 / sqrt(N), not with sigma."""
    T = w.shape[1]
    count = jnp.maximum(jnp.sum(weight), 1.0)
    kept = weight[:, None, None]
    w = kept * (w - jnp.sum(kept * w, axis=0, keepdims=True) / count)
    dx = kept * (dx - jnp.sum(kept * dx, axis=0, keepdims=True) / count)
    power = jnp.sum(w**2, axis=0)
    power = power + (ridge + FLOOR) * jnp.mean(power)
    psi = jnp.einsum("ntm,nsk->tsmk", dx, w / power[None])
    past = np.arange(T)[None, :] < np.arange(T + 1)[:, None]
    return jnp.where(jnp.asarray(past)[:, :, None, None], psi, 0.0)


def markov_transitions(
    w: Float[Array, "N T K"], dx: Float[Array, "N S M"], weight: Float[Array, " N"], ridge: Any
) -> Float[Array, "S T M K"]:
    """psi as products of one-step models; arguments as for least squares. A few rollouts more than M + K are enough, whatever T.

    For systems whose whole state is seen without noise: noise in dx, here a regressor, biases it, as it does not bias the other two.
    """
    T, M, K = w.shape[1], dx.shape[2], w.shape[2]
    seen = jnp.concatenate([dx[:, :-1], w], axis=2) * weight[:, None, None]
    gram = jnp.einsum("nti,ntj->tij", seen, seen)
    size = jnp.sqrt(jnp.diagonal(gram, axis1=1, axis2=2))
    size = jnp.where(size > 0, size, 1.0)
    gram = gram / (size[:, :, None] * size[:, None, :]) + (ridge + FLOOR) * jnp.eye(M + K, dtype=w.dtype)[None]
    found = spd_solve(gram, jnp.einsum("nti,ntm->tim", seen, dx[:, 1:]) / size[:, :, None]) / size[:, :, None]
    F, B = jnp.swapaxes(found[:, :M], 1, 2), jnp.swapaxes(found[:, M:], 1, 2)

    def onward(psi: Array, now: Any) -> tuple[Array, Array]:
        F, B, t = now
        psi = jnp.einsum("mn,snk->smk", F, psi).at[t].set(B)
        return psi, psi

    first = jnp.zeros((T, M, K), w.dtype)
    return jnp.concatenate([first[None], jax.lax.scan(onward, first, (F, B, jnp.arange(T)))[1]])


def burn_in(M: int, K: int) -> int:
    """Steps before the inputs can have reached every direction of the state: ceil(M / K)."""
    return -(-M // K)


def locally_linear(
    psi: Float[Array, "S T M K"], gains: Float[Array, "T K M"], window: int | None = None
) -> tuple[Float[Array, "T M M"], Float[Array, "T M K"]]:
    """(A, B) along the trajectory, from Markov parameters measured under `gains`; window: how many past inputs enter C (default all).

    In the burn-in A is the least-norm answer, right only on what the inputs have reached.
    """
    T, M = psi.shape[1], psi.shape[2]
    age = np.arange(T)[:, None] - np.arange(T)[None, :]
    used = jnp.asarray((age > 0) & (age <= (T if window is None else window)))[:, :, None, None]
    C, after = jnp.where(used, psi[:-1], 0.0), jnp.where(used, psi[1:], 0.0)
    gram = jnp.einsum("tsmk,tsnk->tmn", C, C)
    trace = jnp.trace(gram, axis1=1, axis2=2)
    unreached = jnp.arange(T) < burn_in(M, psi.shape[3])  # there the Gram matrix is singular, and zero at t = 0
    floor = jnp.where(unreached, SINGULAR, FLOOR) * trace + (trace == 0)
    closed = spd_solve(gram + floor[:, None, None] * jnp.eye(M, dtype=psi.dtype)[None], jnp.einsum("tsmk,tsnk->tmn", C, after))
    now = np.arange(T)
    B = psi[1:][now, now]
    return jnp.swapaxes(closed, 1, 2) - B @ gains, B


def spd_solve(H: Float[Array, "T M M"], rows: Float[Array, "T M P"]) -> Float[Array, "T M P"]:
    """H^-1 rows for a batch of symmetric positive definite H; small ones by elimination written out, all T at once."""
    M = H.shape[1]
    if M > UNROLLED:
        return jnp.linalg.solve(H, rows)
    if M == 2:
        a, b, d = H[:, 0, 0], H[:, 0, 1], H[:, 1, 1]
        top = d[:, None] * rows[:, 0] - b[:, None] * rows[:, 1]
        return jnp.stack([top, a[:, None] * rows[:, 1] - b[:, None] * rows[:, 0]], axis=1) / (a * d - b * b)[:, None, None]
    joint = jnp.concatenate([H, rows], axis=2)
    for i in range(M):
        row = joint[:, i] / joint[:, i, i][:, None]
        joint = (joint - joint[:, :, i][:, :, None] * row[:, None, :]).at[:, i].set(row)
    return joint[:, :, M:]


def regulator(
    A: Float[Array, "T M M"],
    B: Float[Array, "T M K"],
    Q: Float[Array, "S M M"],
    R: Float[Array, "T K K"],
    C: Float[Array, "T K M"],
    first: int,
) -> tuple[Float[Array, "T K M"], Float[Array, "T K K"]]:
    """Gains u = K x that are best for the weights x'Qx + u'Ru + 2 u'Cx, by the Riccati recursion; none before step `first`.

    Also H = R + B'PB (T, K, K), the second derivative of the cost-to-go by the input under these gains.
    """

    def back(P: Array, now: Any) -> tuple[Array, tuple[Array, Array]]:
        A, B, Q, R, C, on = now
        PA = product(P, A)
        H, G = R + product(B.T, product(P, B)), product(B.T, PA) + C
        K = jnp.where(on, -solve(H, G), 0.0)
        cross = product(K.T, G)
        P = Q + product(A.T, PA) + cross + cross.T + product(K.T, product(H, K))
        return 0.5 * (P + P.T), (K, H)

    on = jnp.arange(len(A)) >= first
    return jax.lax.scan(back, Q[-1], (A, B, Q[:-1], R, C, on), reverse=True)[1]


def policy_gradient(
    psi: Float[Array, "S T M K"], gains: Float[Array, "T K M"], cost_x: Float[Array, "S M"], cost_u: Float[Array, "T K"]
) -> Float[Array, "T K"]:
    """dJ/dv (T, K) from the slopes of the cost along the trajectory, with the feedback in place."""
    through = cost_x[:-1] + jnp.einsum("tkm,tk->tm", gains, cost_u)
    return cost_u + jnp.einsum("tsmk,tm->sk", psi, jnp.concatenate([through, cost_x[-1:]]))

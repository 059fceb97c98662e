"""How far the closed loop of an imitation can get from that of its expert.

    x[t+1] = f(x[t], pi(x[t] + w[t])),   x*[t+1] = f(x*[t], pi*(x*[t])),   x[0] = x*[0],   |w[t]| <= noise

    |x[t] - x*[t]| <= c l_u (eps + (L + L*) radius + L noise) (1 - lam^t) / (1 - lam)

Assumptions: on a set that holds both trajectories, |f(x, u) - f(x, v)| <= l_u |u - v|; pi and pi* have Lipschitz constants L and L*; pi is
within eps of pi* at the demonstrations, and every point is within `radius` of one; and the expert's loop forgets its start,
|F^t(x) - F^t(y)| <= c lam^t |x - y|.
Proof: with d[s] = x[s+1] - F(x[s]), x[t] - F^t(x[0]) = sum_s F^(t-1-s)(x[s+1]) - F^(t-1-s)(F(x[s])), whose terms are at most
c lam^(t-1-s) |d[s]|; and |d[s]| <= l_u |pi(x + w) - pi*(x)|, where going by way of the nearest demonstration gives the bracket.
The setting is that of Makdah, Krishnan, Pasqualetti, arXiv 2103.16629 (2021), secs. II and III; the statement and its proof are ours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from dynsys.control.imitation import Imitation
from dynsys.dynamics import AbstractMap
from dynsys.errors import InvalidValue
from dynsys.precision import x64

GRID = 2_000_000  # points of the largest grid


@dataclass(frozen=True)
class Loop:
    """Constants of the system and the expert: l_u, L*, c and lam; `estimated` names those that were only sampled, from below."""

    input_gain: float
    expert_lipschitz: float
    overshoot: float
    decay: float
    estimated: tuple[str, ...] = ()

    @classmethod
    def linear(cls, A: Any, B: Any, K: Any) -> "Loop":
        """Exact ones of x[t+1] = A x + B u, u = -K x. Raises InvalidValue unless that is stable.

        lam is half way from the spectral radius to 1; with P - (A - BK)'P(A - BK) / lam^2 = I, c is the root of P's condition.
        """
        from scipy.linalg import solve_discrete_lyapunov

        A, B, K = (np.asarray(M, float) for M in (A, B, K))
        closed = A - B @ K
        radius = float(np.abs(np.linalg.eigvals(closed)).max())
        if radius >= 1:
            raise InvalidValue(f"Loop.linear: the expert's loop is not stable, its largest eigenvalue has modulus {radius:.4g}.")
        decay = (1 + radius) / 2
        P = solve_discrete_lyapunov(closed.T / decay, np.eye(len(A)))
        return cls(float(np.linalg.norm(B, 2)), float(np.linalg.norm(K, 2)), float(np.sqrt(np.linalg.cond(P))), decay)

    @classmethod
    def sampled(
        cls, model: AbstractMap, expert: Callable[[Any], Any], points: Any, *, steps: int = 50, apart: float = 1e-3, key: Array
    ) -> "Loop":
        """Estimates from `points` (S, N) of a map that observes its state: none is a proof, each is the largest value that was seen.

        expert: from observations to inputs, (N,) -> (K,), called point by point. The loop is run `steps` steps from every point and from
        one beside it, a distance `apart` away in a random direction.
        """
        points = np.asarray(points, float)
        if points.ndim != 2 or points.shape[1] != model.n_obs or model.n_obs != model.dim or len(points) < 2 or steps < 2:
            raise InvalidValue(
                f"Loop.sampled: wants at least 2 points (S, {model.dim}) of a map that observes its whole state, and 2 steps; "
                f"got {points.shape} and steps={steps}."
            )
        with x64():
            away = np.asarray(jr.normal(key, points.shape))
            beside = points + apart * away / np.linalg.norm(away, axis=1, keepdims=True)
            step = jax.jit(jax.vmap(model.step))
            slope = jax.jit(jax.vmap(jax.jacfwd(model.step, argnums=1)))
            here, there, slopes, ratios, gains = points, beside, [], [], []
            for _ in range(steps):
                u, v = (np.stack([np.asarray(expert(x), float) for x in at]) for at in (here, there))
                far = np.linalg.norm(here - there, axis=1)
                gains.append(float(np.linalg.norm(np.asarray(slope(jnp.asarray(here), jnp.asarray(u))), 2, axis=(1, 2)).max()))
                slopes.append(_largest(np.linalg.norm(u - v, axis=1), far))
                here, there = (np.asarray(step(jnp.asarray(x), jnp.asarray(w))) for x, w in ((here, u), (there, v)))
                ratios.append(_largest(np.linalg.norm(here - there, axis=1), np.full(len(points), apart)))
        r = np.array([1.0, *ratios])
        decay = float(np.max(r[steps // 2 :] ** (1 / np.arange(steps // 2, steps + 1))))
        overshoot = float(np.max(r / decay ** np.arange(steps + 1))) if decay > 0 else 1.0
        names = ("input_gain", "expert_lipschitz", "overshoot", "decay")
        return cls(max(gains), max(slopes), overshoot, decay, names)


@dataclass(frozen=True)
class Bound:
    """deviation (T + 1,) of the states by step, and its limit (inf if the expert's loop does not forget); what rests on samples."""

    deviation: Float[np.ndarray, " S"]
    limit: float
    estimated: tuple[str, ...]


def closed_loop_bound(found: Imitation, loop: Loop, *, radius: float, steps: int, noise: float = 0.0) -> Bound:
    """The bound above. radius: of the demonstrations' cover, see `covering_radius`; noise: the largest error of an observation."""
    if not (radius >= 0 and noise >= 0 and steps >= 0):
        raise InvalidValue(f"closed_loop_bound: radius, noise and steps must be at least 0, got {radius}, {noise}, {steps}.")
    L = found.policy.lipschitz
    each = loop.input_gain * (found.error + (L + loop.expert_lipschitz) * radius + L * noise)
    sums = np.concatenate([[0.0], np.cumsum(loop.decay ** np.arange(steps))])
    limit = loop.overshoot * each / (1 - loop.decay) if loop.decay < 1 else np.inf
    return Bound(loop.overshoot * each * sums, float(limit), loop.estimated)


def covering_radius(x: Any, low: Any, high: Any, *, cells: int = 50) -> float:
    """A radius within which every point of the box [low, high] (N,) has a demonstration x (S, N): an upper bound, by a grid of cells^N.

    It exceeds the least such radius by at most half the diagonal of a cell. Raises InvalidValue for a grid of too many points.
    """
    from scipy.spatial import KDTree

    x, low, high = (np.asarray(a, float) for a in (x, low, high))
    n = x.shape[-1]
    if x.ndim != 2 or low.shape != (n,) or high.shape != (n,) or not np.all(low < high) or cells < 1:
        raise InvalidValue(f"covering_radius: wants x (S, N) and low < high (N,), got {x.shape}, {low.shape}, {high.shape}.")
    if cells**n > GRID:
        raise InvalidValue(f"covering_radius: a grid of {cells}^{n} points is too large; take fewer cells.")
    size = (high - low) / cells
    centres = np.stack(np.meshgrid(*(a + s * (np.arange(cells) + 0.5) for a, s in zip(low, size, strict=True)), indexing="ij"), axis=-1)
    return float(KDTree(x).query(centres.reshape(-1, n))[0].max() + np.linalg.norm(size) / 2)


def _largest(top: np.ndarray, bottom: np.ndarray) -> float:
    seen = bottom > 1e-12
    return float(np.max(top[seen] / bottom[seen], initial=0.0))

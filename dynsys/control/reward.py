"""A reward learned from experience, where no function is known: ridge regression on random Fourier features of (x, u).

    r(x[t], u[t]) ~ w phi(v) + b,    v = ((x - m) / s, (u - m_u) / s_u),    phi(v) = (v, v^2, sqrt(2/F) cos(Om v + p))

The squares are there because most rewards are quadratic somewhere. The width and the ridge are those that err least on a held-out
quarter. A step that ended the episode counts `price` less: planners then keep away from where others ended.
Source of the features: Rahimi & Recht, NIPS 2007.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dynsys.control.cost import AbstractCost
from dynsys.errors import InvalidValue
from dynsys.models.regressed import generator
from dynsys.models.ridge import Regression

RIDGES = tuple(10.0**p for p in range(-12, 0, 2))
WIDTHS = (1.0, 2.0, 4.0, 8.0)
HELD = 4  # every so many-th step is held out for the choice


class LearnedReward(AbstractCost):
    """Minus the learned reward at every step; nothing at the end."""

    w: Float[Any, " F"]
    b: Float[Any, ""]
    waves: Float[Any, "R V"]
    phase: Float[Any, " R"]
    centre: Float[Any, " V"]
    size: Float[Any, " V"]
    held_out: Float[Any, ""]  # the error: an array, since a refit must not change the program that plans

    @property
    def error(self) -> float:
        """Of held-out rewards, relative to their spread."""
        return float(self.held_out)

    @classmethod
    def from_steps(
        cls,
        before: Any,
        inputs: Any,
        rewards: Any,
        ended: Any = None,
        *,
        price: float = 0.0,
        features: int = 100,
        key: Any = None,
    ) -> "LearnedReward":
        """From steps (L, N), (L, K), (L,); ended (L,): which of them ended an episode. Raises InvalidValue for fewer than 8 steps."""
        v = np.concatenate([np.asarray(before, float), np.asarray(inputs, float)], axis=1)
        r = np.asarray(rewards, float)
        if len(v) < 8 or r.shape != (len(v),):
            raise InvalidValue(f"LearnedReward: needs at least 8 steps and one reward for each, got {len(v)} and {r.shape}.")
        r = r if ended is None else r - price * np.asarray(ended, float)
        centre, size = v.mean(axis=0), v.std(axis=0)
        size = np.where(size > 1e-12 * (1 + np.abs(centre)), size, 1.0)
        v, rng = (v - centre[None, :]) / size[None, :], generator(key)
        directions, phase = rng.normal(size=(features, v.shape[1])), rng.uniform(0, 2 * np.pi, features)
        held = np.arange(len(v)) % HELD == HELD - 1
        spread = max(float(r.std()), np.finfo(float).tiny)
        best: tuple[float, float, float] = (np.inf, WIDTHS[0], RIDGES[-1])
        for width in WIDTHS:
            phi = _features(np, v, directions / width, phase)
            W, b = Regression.of(lambda phi=phi: [(phi[~held], r[~held, None])]).solve(phi.shape[1], np.array(RIDGES))
            errors = np.sqrt(np.mean((phi[held] @ W[:, :, 0].T + b[None, :, 0] - r[held, None]) ** 2, axis=0)) / spread
            at = int(np.argmin(errors))
            best = min(best, (float(errors[at]), width, RIDGES[at]))
        error, width, ridge = best
        phi = _features(np, v, directions / width, phase)
        W, b = Regression.of(lambda: [(phi, r[:, None])]).solve(phi.shape[1], np.array([ridge]))
        return cls(W[0, :, 0], np.asarray(b[0, 0]), directions / width, phase, centre, size, np.asarray(error))  # pyright: ignore[reportCallIssue]

    def stage(self, x: Float[Array, " N"], u: Float[Array, " K"], t: Any) -> Float[Array, ""]:
        """Minus the reward of acting with u at x."""
        v = (jnp.concatenate([x, u]) - self.centre) / self.size
        return -(_features(jnp, v, self.waves, self.phase) @ self.w + self.b)

    def final(self, x: Float[Array, " N"]) -> Float[Array, ""]:
        """0: the reward is that of a step."""
        return jnp.zeros((), x.dtype)


def _features(xp: Any, v: Any, waves: Any, phase: Any) -> Any:
    angle = v @ waves.T + (phase if v.ndim == 1 else phase[None, :])
    return xp.concatenate([v, v**2, (2.0 / phase.shape[0]) ** 0.5 * xp.cos(angle)], axis=-1)

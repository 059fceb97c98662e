"""Where training starts: a network beside the regulator of the linearised plant, both nearly silent, so that V holds near the goal at once.

V = |phi(x) - phi(goal)|^2 + d'(eps I + R'R) d,  R'R proportional to the cost-to-go P of the regulator
u = clip(psi(x) - psi(goal) + rest - K d)
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from dynsys.control.lqr import lqr_of
from dynsys.precision import x64
from dynsys.verify.attack import box_of
from dynsys.verify.lyapunov import NeuralLyapunov
from dynsys.verify.network import Network
from dynsys.verify.policy import NeuralPolicy, equilibrium


def lqr_start(
    plant: Any,
    goal: Any,
    rest: Any,
    low: Any,
    high: Any,
    *,
    input_low: Any = None,
    input_high: Any = None,
    Q: Any = None,
    R: Any = None,
    hidden: tuple[int, ...] = (16, 16),
    features: int = 8,
    activation: str = "tanh",
    form: str = "squared",
    eps: float = 1e-4,
    key: Array | int = 0,
) -> tuple[NeuralLyapunov, NeuralPolicy]:
    """A candidate and a controller for a map or flow with an equilibrium (goal (n,), rest (k,)), to be learned on the box [low, high] (n,).

    Q, R: weights of the regulator, identities unless given. features: outputs of phi. V is 1 where the first axis of the box leaves it.
    Raises InvalidValue as `lqr_of` and for limits or a box that do not hold the equilibrium.
    """
    with x64():
        goal, rest = np.atleast_1d(np.asarray(goal, float)), np.atleast_1d(np.asarray(rest, float))
        n, k = len(goal), len(rest)
        limits = equilibrium("lqr_start", n, k, goal, rest, input_low, input_high)
        low, high = box_of("lqr_start", low, high, limits[0])
        regulator = lqr_of(plant, goal, rest, np.eye(n) if Q is None else Q, np.eye(k) if R is None else R)
        half = np.asarray(high - low) / 2
        P = regulator.P / float(np.max(np.diag(regulator.P) * half**2))
        phi, psi = jr.split(jr.key(key) if isinstance(key, int) else key)
        nets = [
            _scaled(Network.init((n, *hidden, out), activation=activation, last=0.1, key=now), half)
            for now, out in ((phi, features), (psi, k))
        ]
        V = NeuralLyapunov(
            net=nets[0], R=jnp.asarray(np.linalg.cholesky(P).T), goal=limits[0], eps=eps * float(np.min(np.diag(P))), form=form
        )
        return V, NeuralPolicy.of(nets[1], regulator.K, *limits)


def _scaled(net: Network, half: np.ndarray) -> Network:
    """The network on a box of these half-widths: its first layer then covers about three standard widths of its units."""
    return eqx.tree_at(lambda net: net.W[0], net, net.W[0] * jnp.asarray(3.0 / half)[None, :])

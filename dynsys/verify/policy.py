"""Controllers as plain functions of the state, u = policy(x), that the bounds of this package can read.

    SaturatedLinear    u = clip(rest - K (x - goal), low, high)
    NeuralPolicy       u = clip(net(x) - net(goal) + rest - K (x - goal), low, high)

Both give `rest` exactly at the goal when it lies inside the limits, so that an equilibrium (goal, rest) of the plant is one of the loop.
"""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys.verify.network import Network


class AbstractPolicy(eqx.Module):
    """A static state feedback, (n,) -> (k,)."""

    goal: eqx.AbstractVar[Float[Array, " n"]]
    rest: eqx.AbstractVar[Float[Array, " k"]]
    low: eqx.AbstractVar[Float[Array, " k"]]
    high: eqx.AbstractVar[Float[Array, " k"]]

    @abc.abstractmethod
    def wanted(self, x: Float[Array, " n"]) -> Float[Array, " k"]:
        """The input before the limits, (n,) -> (k,)."""

    def free(self) -> tuple[Any, ...]:
        """The parts that training may change, for `eqx.tree_at`."""
        return ()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " k"]:
        """The input at a state, inside the limits, (n,) -> (k,)."""
        return jnp.minimum(jnp.maximum(self.wanted(x), self.low), self.high)


class SaturatedLinear(AbstractPolicy):
    """Linear feedback inside limits; infinite limits are none."""

    K: Float[Array, "k n"]
    goal: Float[Array, " n"]
    rest: Float[Array, " k"]
    low: Float[Array, " k"]
    high: Float[Array, " k"]

    @classmethod
    def of(cls, K: Any, goal: Any = None, rest: Any = None, low: Any = None, high: Any = None) -> "SaturatedLinear":
        """From a gain K (k, n), as of `dynsys.control.lqr.lqr`. InvalidValue for shapes that do not fit or rest outside the limits."""
        with x64():
            K = _matrix(cls.__name__, K)
        return cls(K, *equilibrium(cls.__name__, K.shape[1], K.shape[0], goal, rest, low, high))  # pyright: ignore[reportCallIssue]

    def free(self) -> tuple[Any, ...]:
        """K."""
        return (self.K,)

    def wanted(self, x: Float[Array, " n"]) -> Float[Array, " k"]:
        """rest - K (x - goal)."""
        return self.rest - self.K @ (x - self.goal)


class NeuralPolicy(AbstractPolicy):
    """A network beside a linear feedback, inside limits; the network's offset at the goal is taken off."""

    net: Network
    K: Float[Array, "k n"]
    goal: Float[Array, " n"]
    rest: Float[Array, " k"]
    low: Float[Array, " k"]
    high: Float[Array, " k"]

    @classmethod
    def of(cls, net: Network, K: Any = None, goal: Any = None, rest: Any = None, low: Any = None, high: Any = None) -> "NeuralPolicy":
        """From a network (n,) -> (k,) and a gain K (k, n), zero unless given. Raises InvalidValue as `SaturatedLinear.of`."""
        k, n = net.W[-1].shape[0], net.W[0].shape[1]
        with x64():
            K = jnp.zeros((k, n)) if K is None else _matrix(cls.__name__, K)
        if K.shape != (k, n):
            raise InvalidValue(f"NeuralPolicy: K must be ({k}, {n}) as the network takes {n} states and gives {k} inputs, got {K.shape}.")
        goal, rest, low, high = equilibrium(cls.__name__, n, k, goal, rest, low, high)
        return cls(net=net, K=K, goal=goal, rest=rest, low=low, high=high)

    def free(self) -> tuple[Any, ...]:
        """The network and K."""
        return self.net, self.K

    def wanted(self, x: Float[Array, " n"]) -> Float[Array, " k"]:
        """net(x) - net(goal) + rest - K (x - goal)."""
        return self.net(x) - self.net(self.goal) + self.rest - self.K @ (x - self.goal)


def equilibrium(who: str, n: int, k: int, goal: Any, rest: Any, low: Any, high: Any) -> tuple[Array, Array, Array, Array]:
    """goal (n,) and rest (k,), zero unless given, and limits (k,), infinite unless given. Raises InvalidValue if they do not fit."""
    goal = np.zeros(n) if goal is None else np.asarray(goal, float)
    rest = np.zeros(k) if rest is None else np.asarray(rest, float)
    low, high = (
        np.broadcast_to(np.asarray(limit, float), (k,)) for limit in (-np.inf if low is None else low, np.inf if high is None else high)
    )
    if goal.shape != (n,) or rest.shape != (k,):
        raise InvalidValue(f"{who}: goal must be ({n},) and rest ({k},), got {goal.shape} and {rest.shape}.")
    if not np.all((low < rest) & (rest < high)):
        raise InvalidValue(
            f"{who}: rest must lie inside the limits, got rest={rest.tolist()}, low={low.tolist()}, high={high.tolist()}. The loop "
            "could not stay at the goal."
        )
    with x64():
        return jnp.asarray(goal), jnp.asarray(rest), jnp.asarray(low), jnp.asarray(high)


def _matrix(who: str, K: Any) -> Any:
    K = jnp.asarray(K, float)
    if K.ndim != 2 or not bool(jnp.all(jnp.isfinite(K))):
        raise InvalidValue(f"{who}: K must be a finite matrix (inputs, states), got shape {K.shape}.")
    return K

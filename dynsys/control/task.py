"""What is known of a control task beyond its steps: its cost in terms of observations, and which columns are angles.

A reward is a cost with the other sign. Where nothing is known of it, it is learned (`dynsys.control.reward`).
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dynsys.control.cost import AbstractCost
from dynsys.errors import InvalidValue


@dataclass(frozen=True)
class Task:
    """cost: of observations (N,) and inputs (K,), or None where it has to be learned.

    angles: pairs of columns that are cosine and sine of an angle, such as "0,1" or "0,1;2,3". goal: in words, for the report.
    """

    cost: AbstractCost | None = None
    angles: str = ""
    goal: str = ""


@runtime_checkable
class TaskKnown(Protocol):
    """An environment that says what is known of its task."""

    def known_task(self) -> Task:
        """What is known."""
        ...


class Seen(AbstractCost):
    """A cost of states, for one who sees (cosine, sine) in the place of each angle."""

    cost: AbstractCost
    angles: tuple[int, ...] = eqx.field(static=True)

    def state(self, x: Float[Array, " N"]) -> Float[Array, " M"]:
        """The state of an observation, (N,) -> (M,), its angles in [-pi, pi]; `angles` counts components of the state."""
        parts, at = [], 0
        for i in range(x.shape[0] - len(self.angles)):
            if i in self.angles:
                parts.append(jnp.arctan2(x[at + 1], x[at]))
                at += 1
            else:
                parts.append(x[at])
            at += 1
        return jnp.stack(parts)

    def stage(self, x: Float[Array, " N"], u: Float[Array, " K"], t: Any) -> Float[Array, ""]:
        """As the other cost has it for the state."""
        return self.cost.stage(self.state(x), u, t)

    def final(self, x: Float[Array, " N"]) -> Float[Array, ""]:
        """As the other cost has it for the state."""
        return self.cost.final(self.state(x))


class Bordered(AbstractCost):
    """Another cost, and weight (d / (margin (high - low)))^2 for every component that is deeper than its margin in by d.

    An environment ends there, which a planner can't see: the border is felt before it is reached. Infinite limits have no border.
    """

    cost: AbstractCost
    low: Float[Any, " N"]
    high: Float[Any, " N"]
    weight: float = eqx.field(static=True, default=1.0)
    margin: float = eqx.field(static=True, default=0.1)

    @classmethod
    def of(cls, cost: AbstractCost, low: Any, high: Any, *, weight: float = 1.0, margin: float = 0.1) -> "Bordered":
        """low, high (N,): where it ends. Raises InvalidValue unless low < high and 0 < margin < 0.5."""
        low, high = np.asarray(low, float), np.asarray(high, float)
        if low.shape != high.shape or not np.all(low < high) or not 0 < margin < 0.5:
            raise InvalidValue(f"Bordered: wants low < high and margin in (0, 0.5), got {low.tolist()}, {high.tolist()} and {margin}.")
        return cls(cost, jnp.asarray(low), jnp.asarray(high), float(weight), float(margin))  # pyright: ignore[reportCallIssue]

    def _border(self, x: Array) -> Array:
        finite = jnp.isfinite(self.low) & jnp.isfinite(self.high)
        low, high = jnp.where(finite, self.low, -1.0), jnp.where(finite, self.high, 1.0)
        room = self.margin * (high - low)
        deep = jnp.maximum(low + room - x, 0.0) + jnp.maximum(x - high + room, 0.0)
        return self.weight * jnp.sum(jnp.where(finite, deep / room, 0.0) ** 2)

    def stage(self, x: Float[Array, " N"], u: Float[Array, " K"], t: Any) -> Float[Array, ""]:
        """The other cost and the border's."""
        return self.cost.stage(x, u, t) + self._border(x)

    def final(self, x: Float[Array, " N"]) -> Float[Array, ""]:
        """The other cost and the border's."""
        return self.cost.final(x) + self._border(x)

"""Tasks of Gymnasium whose reward is a known function: what a planner minimises in them.

Constants as the documentation of Gymnasium states them (Towers et al., arXiv:2407.17032, 2024).
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from dynsys.control.cost import AbstractCost, Quadratic
from dynsys.control.task import Seen, Task


class MountainCarCost(AbstractCost):
    """0.1 u^2 + 0.01 weight max(0, goal - x)^2 a step, and 100 weight max(0, goal - x)^2 at the end.

    The reward's price of the push, and the way that is left in place of the bonus of 100. The bonus itself is a
    step, along which no derivative leads.
    """

    weight: float = eqx.field(static=True, default=1.0)
    goal: float = eqx.field(static=True, default=0.46)

    def stage(self, x: Float[Array, " N"], u: Float[Array, " K"], t: Any) -> Float[Array, ""]:
        """x = (position, velocity)."""
        return 0.1 * u[0] ** 2 + 0.01 * self.weight * jnp.maximum(self.goal - x[0], 0.0) ** 2

    def final(self, x: Float[Array, " N"]) -> Float[Array, ""]:
        """The way that is left at the end of the horizon counts most: there is no earning anything on the way."""
        return 100.0 * self.weight * jnp.maximum(self.goal - x[0], 0.0) ** 2


class ReacherCost(AbstractCost):
    """The distance of the fingertip from the target, its last `columns` observations, and `push` |u|^2, as the reward has it."""

    push: float = eqx.field(static=True, default=1.0)
    columns: int = eqx.field(static=True, default=2)

    def stage(self, x: Float[Array, " N"], u: Float[Array, " K"], t: Any) -> Float[Array, ""]:
        """The distance (m), rounded off below 1 mm, and the push."""
        return self.final(x) + self.push * (u @ u)

    def final(self, x: Float[Array, " N"]) -> Float[Array, ""]:
        """The distance (m), rounded off below 1 mm."""
        apart = x[-self.columns :]
        return jnp.sqrt(apart @ apart + 1e-6)


def _pendulum() -> Task:
    cost = Quadratic.of([1.0, 0.1], [0.001], angles=(0,))
    return Task(Seen(cost, (0,)), "0,1", "swing a rod up and hold it")  # pyright: ignore[reportCallIssue]


def _mountain_car() -> Task:
    return Task(MountainCarCost(), "", "drive up the hill on the right")  # pyright: ignore[reportCallIssue]


def _inverted_pendulum() -> Task:
    """The reward is 1 for every step on which the pole stands; staying far from |theta| = 0.2 is what earns it."""
    return Task(Quadratic.of([0.01, 1.0, 0.01, 0.1], [1e-4]), "", "balance a pole on a cart")


def _reacher() -> Task:
    """Observations: cosines of both joints, sines of both, target, speeds, fingertip minus target."""
    return Task(ReacherCost(), "0,2;1,3", "touch a target with a two-link arm")  # pyright: ignore[reportCallIssue]


KNOWN: dict[str, Callable[[], Task]] = {
    "Pendulum-v1": _pendulum,
    "MountainCarContinuous-v0": _mountain_car,
    "InvertedPendulum-v5": _inverted_pendulum,
    "Reacher-v5": _reacher,
}

# Returns that others report: (what, environment steps, mean return).
PUBLISHED: dict[str, tuple[tuple[str, int, float], ...]] = {
    "Pendulum-v1": (("best, RL Zoo", 20_000, -151.0), ("others, RL Zoo", 20_000, -157.0)),
    "MountainCarContinuous-v0": (("solved, as Gymnasium defines it", 0, 90.0),),
}

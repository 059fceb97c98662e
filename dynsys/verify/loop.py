"""Closed loops: a plant, a policy, an equilibrium that is declared and checked, and disturbances in a box.

    map    x+ = step(x, policy(x)),    flow   dx/dt = field(x, policy(x));    w in [low, high] enters as `enter` says

`enter(plant, x, u, w)` gives x+ or dx/dt; there are `on_input` (u + w), `on_state` (w is added to the result) and `on_parameters`.
"""

import itertools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dynsys.dynamics import AbstractFlow, AbstractMap
from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys.verify.affine import Affine, U, lift
from dynsys.verify.interpret import bounded, reached

CORNERS = 64  # of the disturbance box, at which the equilibrium is checked


class ClosedLoop(eqx.Module):
    """x+ or dx/dt of a state x (n,) and a disturbance w (p,), p = 0 without any. `goal` (n,) is the equilibrium, `rest` (k,) its input."""

    plant: AbstractMap | AbstractFlow
    policy: Callable[..., Any] | None
    goal: Float[Array, " n"]
    rest: Float[Array, " k"] | None
    low: Float[Array, " p"]
    high: Float[Array, " p"]
    enter: Callable[..., Any] | None = eqx.field(static=True, default=None)

    @classmethod
    def of(
        cls,
        plant: AbstractMap | AbstractFlow,
        policy: Callable[..., Any] | None = None,
        *,
        goal: Any,
        rest: Any = None,
        disturbance: tuple[Any, Any] | None = None,
        enter: Callable[..., Any] | None = None,
    ) -> "ClosedLoop":
        """A loop in float64. policy: a state feedback (n,) -> (k,), none for a plant without inputs; disturbance: (low, high), each (p,).

        Raises InvalidValue for shapes that do not fit, for a field that depends on time, or if (goal, rest) is no equilibrium at the
        middle of the disturbances.
        """
        with x64():
            goal = jnp.asarray(goal, float)
            if goal.shape != (plant.dim,):
                raise InvalidValue(f"ClosedLoop: goal must be ({plant.dim},), the equilibrium of the plant, got {goal.shape}.")
            low, high = (jnp.asarray(x, float).reshape(-1) for x in (disturbance or ((), ())))
            if low.shape != high.shape or not bool(jnp.all(low <= high)) or not bool(jnp.all(jnp.isfinite(high - low))):
                raise InvalidValue(f"ClosedLoop: disturbance must be (low, high), finite and of equal length, got {low} and {high}.")
            if low.shape[0] and enter is None:
                enter = on_input
            rest = None if rest is None else jnp.asarray(rest, float)
            loop = cls(plant, policy, goal, rest, low, high, enter)  # pyright: ignore[reportCallIssue]
            if policy is not None and rest is not None:
                off = float(jnp.max(jnp.abs(policy(goal) - rest)))
                if not off <= 1e-12 * (1 + float(jnp.max(jnp.abs(rest)))):
                    raise InvalidValue(f"ClosedLoop: the policy does not give `rest` at the goal, it is off by {off:.2g}.")
            if depends_on_time(plant):
                raise InvalidValue(
                    "ClosedLoop: the field depends on the time t, and a certificate is about a field that does not. Make the clock a "
                    "state, or what t does a disturbance in a box."
                )
            loop.check(0.5 * (low + high)[None])
        return loop

    @property
    def continuous(self) -> bool:
        """Whether the plant is a flow."""
        return isinstance(self.plant, AbstractFlow)

    @property
    def dim(self) -> int:
        """n."""
        return self.goal.shape[0]

    def advance(self, x: Float[Array, " n"], w: Float[Array, " p"]) -> Float[Array, " n"]:
        """x+ of a map, dx/dt of a flow."""
        u = None if self.policy is None else self.policy(x)
        if self.enter is not None and self.low.shape[0]:
            return self.enter(self.plant, x, u, w)
        return respond(self.plant, x, u)

    def step(self, x: Any, w: Any = None) -> Float[Array, " n"]:
        """The next state of a map; w: the middle of the disturbances unless given."""
        return self.advance(jnp.asarray(x), 0.5 * (self.low + self.high) if w is None else jnp.asarray(w))

    def field(self, x: Any, w: Any = None) -> Float[Array, " n"]:
        """The time derivative of the state of a flow; w as in `step`."""
        return self.step(x, w)

    def check(self, disturbances: Float[Array, "q p"]) -> None:
        """Raises InvalidValue unless the goal is an equilibrium for these disturbances, within a few roundings of the plant's terms."""
        moved, miss = (np.asarray(x) for x in _moved(self, disturbances))
        if np.all(miss <= 0):
            return
        row, i = np.unravel_index(int(np.argmax(np.nan_to_num(miss, nan=np.inf))), miss.shape)
        raise InvalidValue(
            f"ClosedLoop: goal is no equilibrium: state {i} moves by {float(moved[row, i]):.3g} there"
            + (f" under the disturbance {np.asarray(disturbances[row]).tolist()}" if disturbances.shape[1] else "")
            + ". Give the exact equilibrium (`certified` finds it where none is given), or for disturbances that do not vanish there a "
            "`core` to `certify`."
        )

    def check_all(self) -> None:
        """As `check`, at the corners of the disturbances and at random points."""
        low, high = np.asarray(self.low), np.asarray(self.high)
        corners = [np.where(bits, high, low) for bits in itertools.islice(itertools.product([False, True], repeat=len(low)), CORNERS)]
        inside = np.random.default_rng(0).uniform(low, high, size=(8, len(low)))
        self.check(jnp.asarray(np.concatenate([np.stack(corners), inside])))


class LoopFlow(AbstractFlow):
    """The loop of a flow as a flow of its own, whose inputs are the disturbances."""

    loop: ClosedLoop

    @property
    def dim(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """n."""
        return self.loop.dim

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """p."""
        return self.loop.low.shape[0]

    def field(self, t: Any, z: Any, u: Any = None) -> Array:
        """dx/dt; without inputs at the middle of the disturbances."""
        return self.loop.field(z, u)


@eqx.filter_jit
def _moved(loop: ClosedLoop, disturbances: Array) -> tuple[Array, Array]:
    """How far the goal moves under each disturbance (q, n), and by how much that is beyond what roundings explain."""

    def one(w: Array) -> tuple[Array, Array]:
        here = Affine(loop.goal, None, jnp.zeros_like(loop.goal))
        moved = lift(bounded(lambda loop, x, w: loop.advance(x, w), loop, here, w))
        off = moved if loop.continuous else moved.minus(loop.goal)
        floor = 32 * U * (1 + jnp.max(jnp.abs(loop.goal)))
        return off.c, jnp.abs(off.c) - 8 * off.e - floor

    return jax.vmap(one)(disturbances)


def respond(plant: AbstractMap | AbstractFlow, x: Any, u: Any) -> Any:
    """x+ of a map, dx/dt of a flow."""
    return plant.field(0.0, x, u) if isinstance(plant, AbstractFlow) else plant.step(x, u)


def depends_on_time(plant: AbstractMap | AbstractFlow) -> bool:
    """Whether t enters the field of a flow, or of the flow inside of a map, as far as its program shows: 0 t counts as t."""
    flow = plant if isinstance(plant, AbstractFlow) else next((x for x in vars(plant).values() if isinstance(x, AbstractFlow)), None)
    if flow is None:
        return False
    u = jnp.zeros(flow.n_inputs) if flow.n_inputs else None
    program = jax.make_jaxpr(lambda t: flow.field(t, jnp.zeros(flow.dim), u))(jnp.zeros(()))
    return any(reached(program.jaxpr, [True]))


def on_input(plant: Any, x: Any, u: Any, w: Any) -> Any:
    """w is added to the input, after its limits."""
    return respond(plant, x, u + w)


def on_state(plant: Any, x: Any, u: Any, w: Any) -> Any:
    """w is added to x+ or dx/dt."""
    return respond(plant, x, u) + w


def on_parameters(*names: str) -> Callable[..., Any]:
    """w replaces the named fields of the plant, or the named parameters of a system of the database; they must be numbers."""

    def chosen(plant: Any) -> list[Any]:
        own = getattr(plant, "parameters", {})
        return [own[name] if name in own else getattr(plant, name) for name in names]

    def enter(plant: Any, x: Any, u: Any, w: Any) -> Any:
        return respond(eqx.tree_at(chosen, plant, [w[i] for i in range(len(names))]), x, u)

    return enter

"""Controllers: what acts. A controller has a state of its own and turns observations into inputs.

    state = controller.init(key);    action, state = controller.act(observation, state)

`predict(observation, state)` is the same call in the words of stable-baselines3. A controller of a model is given what the model observes;
it lifts the observation to the model's state (`correct` keeps what one observation does not show).
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from dynsys.control.cost import AbstractCost
from dynsys.control.ilqr import Search, doubled, limits, search_from
from dynsys.control.lqr import LQR
from dynsys.control.plan import Plan
from dynsys.dynamics import AbstractMap
from dynsys.errors import InvalidValue
from dynsys.precision import x64

FEW_STEPS = (1.0, 0.9, 0.68, 0.42, 0.22, 0.09)  # step sizes of a search that has milliseconds


class AbstractController(eqx.Module):
    """Acts on observations (N,) with inputs (K,)."""

    n_obs: eqx.AbstractVar[int]

    def init(self, key: Array | int = 0) -> Any:
        """The controller's state before the first observation."""
        return ()

    @abc.abstractmethod
    def act(self, observation: Any, state: Any) -> tuple[Float[np.ndarray, " K"], Any]:
        """The input for an observation (N,), and the controller's next state."""

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True) -> tuple[np.ndarray, Any]:
        """As `act`; without a state, or where an episode starts, from a fresh one. The last argument is there for compatibility."""
        fresh = state is None or (episode_start is not None and bool(np.all(episode_start)))
        return self.act(observation, self.init() if fresh else state)

    def _checked(self, observation: Any) -> np.ndarray:
        x = np.asarray(observation, float)
        if x.shape != (self.n_obs,):
            raise InvalidValue(f"{type(self).__name__}: wants an observation ({self.n_obs},), got {x.shape}. Is it of another environment?")
        if not np.isfinite(x).all():
            raise InvalidValue(
                f"{type(self).__name__}: the observation holds NaN or inf: {x.tolist()}. The environment has failed; reset it."
            )
        return x


class LinearFeedback(AbstractController):
    """u = rest - K (x - goal), inside the limits; components in `angles` are compared around the circle."""

    K: Float[Any, "K N"]
    goal: Float[Any, " N"]
    rest: Float[Any, " K"]
    low: Float[Any, " K"]
    high: Float[Any, " K"]
    angles: tuple[int, ...] = eqx.field(static=True, default=())

    @classmethod
    def of(
        cls, regulator: LQR, goal: Any, rest: Any, *, low: Any = None, high: Any = None, angles: tuple[int, ...] = ()
    ) -> "LinearFeedback":
        """From a regulator of deviations from the equilibrium (goal, rest)."""
        bounds = [np.asarray(limit) for limit in limits(cls.__name__, low, high, len(regulator.K))]
        return cls(regulator.K, np.asarray(goal, float), np.asarray(rest, float), *bounds, tuple(angles))  # pyright: ignore[reportCallIssue]

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """N, the columns of K."""
        return self.K.shape[-1]

    def act(self, observation: Any, state: Any = ()) -> tuple[Float[np.ndarray, " K"], Any]:
        """The feedback."""
        off = self._checked(observation) - np.asarray(self.goal)
        for i in self.angles:
            off[i] = np.mod(off[i] + np.pi, 2 * np.pi) - np.pi
        return np.clip(np.asarray(self.rest) - np.asarray(self.K) @ off, np.asarray(self.low), np.asarray(self.high)), state


class Following(AbstractController):
    """Follows a plan on observed states: its inputs with its gains, inside the limits; after its end its last step again."""

    states: Float[Any, "S M"]
    inputs: Float[Any, "T K"]
    gains: Float[Any, "T K M"]
    low: Float[Any, " K"]
    high: Float[Any, " K"]

    @classmethod
    def of(cls, plan: Plan, *, low: Any = None, high: Any = None) -> "Following":
        """Of a plan whose model observes its whole state."""
        bounds = limits(cls.__name__, low, high, plan.inputs.shape[1])
        return cls(*(np.asarray(part) for part in (plan.states, plan.inputs, plan.gains, *bounds)))  # pyright: ignore[reportCallIssue, reportArgumentType]

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """M, the states of the plan."""
        return self.states.shape[1]

    def init(self, key: Array | int = 0) -> int:
        """Step 0."""
        return 0

    def act(self, observation: Any, state: int) -> tuple[Float[np.ndarray, " K"], int]:
        """The plan's input at this step, corrected by its gain."""
        t = min(state, len(self.inputs) - 1)
        states, inputs, gains = (np.asarray(part) for part in (self.states, self.inputs, self.gains))
        u = inputs[t] + gains[t] @ (self._checked(observation) - states[t])
        return np.clip(u, np.asarray(self.low), np.asarray(self.high)), state + 1


class Horizon(eqx.Module):
    """The state of a receding horizon: the inputs that were planned (T, K), the model's state, the key, whether it has begun."""

    inputs: Float[Array, "T K"]
    z: Float[Array, " M"]
    key: Any
    begun: bool = eqx.field(static=True, default=False)


class RecedingHorizon(AbstractController):
    """Plans over the next `horizon` steps at every step, and does the first of them.

    The search starts from the last plan, moved on by one step, and from `starts` - 1 random ones, blocks of `block` equal inputs inside
    the limits; the cheapest plan counts. first: iterations at the first step of an episode, which has no plan to start from. copies: how
    many models stand side by side in `model`, each of which is shown the whole observation.
    """

    model: AbstractMap
    cost: AbstractCost
    low: Float[Array, " K"]
    high: Float[Array, " K"]
    horizon: int = eqx.field(static=True)
    iterations: int = eqx.field(static=True)
    first: int = eqx.field(static=True)
    starts: int = eqx.field(static=True)
    single: bool = eqx.field(static=True)
    block: int = eqx.field(static=True, default=5)
    copies: int = eqx.field(static=True, default=1)

    @classmethod
    def of(
        cls,
        model: AbstractMap,
        cost: AbstractCost,
        *,
        low: Any,
        high: Any,
        horizon: int = 40,
        iterations: int = 2,
        first: int = 10,
        starts: int = 3,
        block: int = 5,
        copies: int = 1,
        precision: str = "float32",
    ) -> "RecedingHorizon":
        """Of a model with inputs and a cost of what it observes. low, high: finite limits of the inputs, between which starts are drawn.

        Raises InvalidValue for limits that are not finite or counts below 1.
        """
        who = cls.__name__
        if min(horizon, iterations, first, starts, block, copies) < 1 or precision not in ("float32", "float64"):
            raise InvalidValue(f"{who}: horizon, iterations, first, starts, block must be at least 1, and precision float32 or float64.")
        with x64():
            bounds = limits(who, low, high, model.n_inputs)
            if not all(bool(jnp.all(jnp.isfinite(limit))) for limit in bounds):
                raise InvalidValue(f"{who}: low and high must be finite, got {low} and {high}: random starts are drawn between them.")
            counts = (horizon, iterations, first, starts, precision == "float32", block, copies)
            whole = cls(doubled(model), doubled(cost), *bounds, *counts)  # pyright: ignore[reportCallIssue, reportArgumentType]
            if precision == "float32":
                whole = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, whole)
            return whole

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """N, as the model has it."""
        return self.model.n_obs // self.copies

    def init(self, key: Array | int = 0) -> Horizon:
        """No plan yet."""
        with x64(not self.single):
            key = jr.key(key) if isinstance(key, int) else key
            zeros = jnp.zeros((self.horizon, self.model.n_inputs), self.low.dtype)
            return Horizon(zeros, jnp.zeros(self.model.dim, self.low.dtype), key)  # pyright: ignore[reportCallIssue]

    def act(self, observation: Any, state: Horizon) -> tuple[Float[np.ndarray, " K"], Horizon]:
        """The first input of a new plan."""
        with x64(not self.single):
            x = jnp.asarray(np.tile(self._checked(observation), self.copies), self.low.dtype)
            key, now = jr.split(state.key)
            u, inputs, z = _decide(self, x, state.inputs, state.z, now, state.begun)
            return np.asarray(u, float), Horizon(inputs, z, key, True)  # pyright: ignore[reportCallIssue]


@eqx.filter_jit
def _decide(controller: RecedingHorizon, x: Array, planned: Array, z: Array, key: Any, begun: bool) -> tuple[Array, Array, Array]:
    """The input, the plan that will start the next search, and the model's state at the next step."""
    model, low, high = controller.model.prepared(), controller.low, controller.high
    z = model.correct(z, x) if begun else model.lift(x)
    T, K = planned.shape
    blocks = jr.uniform(key, (controller.starts - 1, -(-T // controller.block), K), low.dtype, minval=low, maxval=high)
    guesses = jnp.concatenate([planned[None], jnp.repeat(blocks, controller.block, axis=1)[:, :T]])
    search = Search(
        iterations=controller.iterations if begun else controller.first,
        step_sizes=FEW_STEPS,
        at_once=True,
        mu=1e-6,
        factor=2.0,
        on="states",
    )  # pyright: ignore[reportCallIssue]
    found = jax.vmap(lambda us: search_from(model, controller.cost, z, us, low, high, search))(guesses)
    best = jnp.argmin(jnp.where(jnp.isfinite(found.cost), found.cost, jnp.inf))
    inputs = found.inputs[best]
    return inputs[0], jnp.concatenate([inputs[1:], inputs[-1:]]), model.step(z, inputs[0])

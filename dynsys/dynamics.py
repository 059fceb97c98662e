"""The two nouns of the toolkit: a map in discrete time and a flow in continuous time.

    map    z[t+1] = step(z[t], u[t]),   x[t] = observe(z[t]);   a timed map also steps over any gap
    flow   dz/dt  = field(t, z, u)

z is the latent state (M,), u an external input (K,), x the observation (N,). Everything is unbatched: `jax.vmap` is
the batch. `step`, `observe`, `lift` and `field` are array-agnostic: they run unchanged on JAX, NumPy and PyTorch.
"""

import abc
from typing import Any, ClassVar, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dynsys.errors import InvalidValue

AnyState = Float[Any, " M"]
AnyInput = Float[Any, " K"] | None
AnyObservation = Float[Any, " N"]


class AbstractMap(eqx.Module):
    """A dynamical system in discrete time with an observation.

    `dim` is M, the number of latent states; `n_obs` is N; `n_inputs` is K (0: autonomous).
    """

    dim: eqx.AbstractVar[int]
    n_obs: eqx.AbstractVar[int]
    n_inputs: eqx.AbstractVar[int]
    forcing: ClassVar[str] = "adaptive"  # the kind of teacher forcing that trains it best; see dynsys.train.forcing

    @abc.abstractmethod
    def step(self, z: AnyState, u: AnyInput = None) -> AnyState:
        """The next state, (M,), (K,) -> (M,)."""

    @abc.abstractmethod
    def observe(self, z: AnyState) -> AnyObservation:
        """The observation of a state, (M,) -> (N,)."""

    @abc.abstractmethod
    def lift(self, x: AnyObservation) -> AnyState:
        """A state that observes to x as well as any, (N,) -> (M,)."""

    def correct(self, z: AnyState, x: AnyObservation) -> AnyState:
        """The state z moved so that it observes to x, with what x does not determine left as it is.

        The default, z + lift(x) - lift(observe(z)), is the smallest such move when `lift` is the pseudo-inverse.
        """
        return z + self.lift(x) - self.lift(self.observe(z))

    @property
    def memory(self) -> int:
        """How many observed points before the present one a start needs; 0 where a lifted observation is as good a start as any."""
        return 0

    def prepared(self) -> "AbstractMap":
        """The same map with what depends on its parameters alone computed once, for use inside loops; by default itself."""
        return self

    def jacobian(self, z: Float[Array, " M"], u: Float[Array, " K"] | None = None) -> Float[Array, "M M"]:
        """Derivative of `step` by the state, (M, M); by forward-mode differentiation unless a model knows better."""
        return jax.jacfwd(lambda state: self.step(state, u))(z)

    def orbit(self, z: Float[Array, " M"], steps: int, inputs: Float[Array, "T K"] | None = None) -> Float[Array, "T M"]:
        """The `steps` states after z, (M,) -> (steps, M), step by step unless a model knows better; see `rollout`, which checks."""

        def advance(state: Array, u: Array | None) -> tuple[Array, Array]:
            state = self.step(state, u)
            return state, state

        return jax.lax.scan(advance, z, inputs, length=steps)[1]

    @property
    def parallel(self) -> bool:
        """Whether `orbit` is something faster than its steps one by one; a free run is trained through it then."""
        return False

    def own_loss(self, states: Float[Array, "T M"], xs: Float[Array, "T N"]) -> Float[Array, ""] | float:
        """What the model adds to the loss of a window xs (T, N) along which it ran through `states` (T, M); by default nothing."""
        return 0.0


class AbstractFlow(eqx.Module):
    """A dynamical system in continuous time, dz/dt = field(t, z, u)."""

    dim: eqx.AbstractVar[int]
    n_inputs: eqx.AbstractVar[int]

    @abc.abstractmethod
    def field(self, t: Any, z: AnyState, u: AnyInput = None) -> AnyState:
        """The time derivative of the state, (), (M,), (K,) -> (M,); t in the system's own unit of time."""

    def jacobian(self, t: Any, z: Float[Array, " M"], u: Float[Array, " K"] | None = None) -> Float[Array, "M M"]:
        """Derivative of `field` by the state, (M, M); by forward-mode differentiation unless a flow knows better."""
        return jax.jacfwd(lambda state: self.field(t, state, u))(z)


class AbstractTimed(AbstractMap):
    """A map whose step may span any time, so that it can follow irregular samples.

    `gap` counts sampling intervals: 1 is the typical one of the recording, which `step` takes; it is positive.
    """

    @abc.abstractmethod
    def over(self, z: AnyState, u: AnyInput, gap: Any) -> AnyState:
        """The state a time `gap` later, (M,), (K,), () -> (M,); the input is held."""

    def step(self, z: AnyState, u: AnyInput = None) -> AnyState:
        """The state one sampling interval later."""
        return self.over(z, u, 1.0)


class Gapped(AbstractMap):
    """A timed map driven by irregular samples: its last input is the gap to the next sample, in sampling intervals.

    So everything that hands inputs on (windows, forced runs, scores) handles irregular series without knowing of them. Without any
    input the gap is 1.
    """

    model: AbstractTimed

    @property
    def dim(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """M, as the map has it."""
        return self.model.dim

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """N, as the map has it."""
        return self.model.n_obs

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """K + 1: the inputs of the map, then the gap."""
        return self.model.n_inputs + 1

    @property
    def memory(self) -> int:
        """As the map has it."""
        return self.model.memory

    def step(self, z: AnyState, u: AnyInput = None) -> AnyState:
        """The state at the next sample, (M,), (K + 1,) -> (M,)."""
        if u is None:
            return self.model.step(z)
        return self.model.over(z, u[:-1] if self.model.n_inputs else None, u[-1])

    def observe(self, z: AnyState) -> AnyObservation:
        """As the map has it."""
        return self.model.observe(z)

    def lift(self, x: AnyObservation) -> AnyState:
        """As the map has it."""
        return self.model.lift(x)

    def correct(self, z: AnyState, x: AnyObservation) -> AnyState:
        """As the map has it."""
        return self.model.correct(z, x)

    def own_loss(self, states: Float[Array, "T M"], xs: Float[Array, "T N"]) -> Float[Array, ""] | float:
        """As the map has it."""
        return self.model.own_loss(states, xs)

    def prepared(self) -> "Gapped":
        """With the prepared map."""
        return Gapped(self.model.prepared())  # pyright: ignore[reportArgumentType, reportCallIssue]


class AbstractPiecewiseLinear(AbstractMap):
    """A map that is affine on each of finitely many regions: step(z, u) = J(r) z + h(r) + (a term in u), r = region(z)."""

    @abc.abstractmethod
    def region(self, z: Float[Array, " M"]) -> Bool[Array, " R"]:
        """Which side of each switching manifold z lies on; equal codes share one affine map."""

    @abc.abstractmethod
    def affine(self, region: Bool[Array, " R"]) -> tuple[Float[Array, "M M"], Float[Array, " M"]]:
        """The affine map (J, h) of a region, without the input's term."""

    @abc.abstractmethod
    def switching(self) -> tuple[Float[Array, "R M"], Float[Array, " R"]]:
        """The switching manifolds N z + b = 0, (R, M) and (R,); region(z) is N z + b > 0, row by row."""

    def frozen(self, z: Float[Array, " M"], region: Bool[Array, " R"]) -> Float[Array, " M"]:
        """The affine map of `region` at z, wherever z lies: J z + h. A model overrides it where it need not form J."""
        J, h = self.affine(region)
        return J @ z + h

    def jacobian(self, z: Float[Array, " M"], u: Float[Array, " K"] | None = None) -> Float[Array, "M M"]:
        """Exact derivative of `step`, the linear part of the region's map."""
        return self.affine(self.region(z))[0]


@runtime_checkable
class Stepper(Protocol):
    """One step of fixed length of a flow."""

    def __call__(self, flow: AbstractFlow, t: Any, z: Any, u: Any, dt: Any) -> Any:
        """The state at t + dt; the input u is held over the step."""
        ...


def runge_kutta_4(flow: AbstractFlow, t: Any, z: Any, u: Any, dt: Any) -> Any:
    """One step of the classical Runge-Kutta method of order four (Kutta 1901)."""
    a = flow.field(t, z, u)
    b = flow.field(t + dt / 2, z + dt / 2 * a, u)
    c = flow.field(t + dt / 2, z + dt / 2 * b, u)
    d = flow.field(t + dt, z + dt * c, u)
    return z + dt / 6 * (a + 2 * b + 2 * c + d)


def euler(flow: AbstractFlow, t: Any, z: Any, u: Any, dt: Any) -> Any:
    """One step of Euler's method, of order one."""
    return z + dt * flow.field(t, z, u)


class Discretized(AbstractTimed):
    """A flow as a map: `substeps` steps of a fixed-step method over one sampling interval dt (or `gap` of them); all states are observed.

    The flow must be autonomous in time (`field` is called with t counted from 0 at the start of each interval).
    """

    flow: AbstractFlow
    dt: float = eqx.field(static=True)
    stepper: Stepper = eqx.field(static=True, default=runge_kutta_4)
    substeps: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        if not self.dt > 0:
            raise InvalidValue(f"Discretized: dt must be positive, got dt={self.dt}: the sampling interval in the flow's own unit of time.")
        if self.substeps < 1:
            raise InvalidValue(f"Discretized: substeps must be at least 1, got substeps={self.substeps}.")

    @property
    def dim(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """M, the number of states of the flow."""
        return self.flow.dim

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """N = M: every state is observed."""
        return self.flow.dim

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """K, the number of inputs of the flow."""
        return self.flow.n_inputs

    def over(self, z: AnyState, u: AnyInput, gap: Any) -> AnyState:
        """The state `gap` sampling intervals later, in the same number of substeps."""
        length = gap * (self.dt / self.substeps)
        for i in range(self.substeps):
            z = self.stepper(self.flow, i * length, z, u, length)
        return z

    def observe(self, z: AnyState) -> AnyObservation:
        """The state itself."""
        return z

    def lift(self, x: AnyObservation) -> AnyState:
        """The observation itself."""
        return x


def rollout(model: AbstractMap, z: Float[Array, " M"], steps: int, inputs: Float[Array, "T K"] | None = None) -> Float[Array, "T M"]:
    """Free run of a map: the states z[1], ..., z[steps] after the start z[0] = z, shape (steps, M).

    `inputs` (steps, K), if any, holds u[0], ..., u[steps-1]. Raises InvalidValue if its length is not `steps`.
    """
    if inputs is not None and inputs.shape[0] != steps:
        raise InvalidValue(f"rollout: inputs must have one row a step, got {inputs.shape[0]} rows for steps={steps}.")
    return model.orbit(jnp.asarray(z), steps, inputs)


def warm_up(model: AbstractMap, context: Float[Array, "L N"], inputs: Float[Array, "_ K"] | None = None) -> Float[Array, " M"]:
    """The state at the last of L observed points, (L, N) -> (M,): lifted at the first, then led, z = correct(step(z), x).

    A model with a `memory` forecasts poorly from a context of no more than `memory` points. inputs (L - 1, K): u[t] acts between
    the points t and t + 1.
    """

    def lead(z: Array, now: tuple[Array, Array | None]) -> tuple[Array, None]:
        x, u = now
        return model.correct(model.step(z, u), x), None

    context = jnp.asarray(context)
    return jax.lax.scan(lead, model.lift(context[0]), (context[1:], inputs))[0]

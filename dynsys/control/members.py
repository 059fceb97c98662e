"""Several models of one system at once, for planning that knows what it does not know; and a model in the units of the user.

    SideBySide   z = (z_1, ..., z_E), each with its own step under the same input; x = (x_1, ..., x_E)
    OverMembers  J = mean_i c(x_i, u) + caution sum_n var_i(x_i[n]) / scale[n]^2

A positive caution keeps plans where the models agree, a negative one sends them to where they don't: exploration.
Source: Chua, Calandra, McAllister, Levine, NeurIPS 2018 (ensembles of trajectories).
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Array, Float

from dynsys.control.cost import AbstractCost
from dynsys.dynamics import AbstractMap, AnyInput, AnyObservation, AnyState
from dynsys.errors import InvalidValue


class SideBySide(AbstractMap):
    """Models of the same shape, run under the same inputs; it observes what each of them observes."""

    members: tuple[AbstractMap, ...]

    @classmethod
    def of(cls, members: Sequence[AbstractMap]) -> "SideBySide":
        """Of at least one model. Raises InvalidValue unless they have the same sizes."""
        sizes = {(model.dim, model.n_obs, model.n_inputs) for model in members}
        if len(sizes) != 1:
            raise InvalidValue(f"SideBySide: needs models of the same dim, n_obs and n_inputs, got {sorted(sizes)}.")
        return cls(tuple(members))  # pyright: ignore[reportCallIssue]

    @property
    def dim(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """E M."""
        return len(self.members) * self.members[0].dim

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """E N."""
        return len(self.members) * self.members[0].n_obs

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """K, as each has it."""
        return self.members[0].n_inputs

    def _each(self, z: Any, size: int) -> list[Any]:
        return [z[i * size : (i + 1) * size] for i in range(len(self.members))]

    def step(self, z: AnyState, u: AnyInput = None) -> AnyState:
        """Each one step further."""
        parts = self._each(z, self.members[0].dim)
        return array_namespace(z).concat([model.step(part, u) for model, part in zip(self.members, parts, strict=True)])

    def observe(self, z: AnyState) -> AnyObservation:
        """What each observes, (E M,) -> (E N,)."""
        parts = self._each(z, self.members[0].dim)
        return array_namespace(z).concat([model.observe(part) for model, part in zip(self.members, parts, strict=True)])

    def lift(self, x: AnyObservation) -> AnyState:
        """Each from its own observation."""
        parts = self._each(x, self.members[0].n_obs)
        return array_namespace(x).concat([model.lift(part) for model, part in zip(self.members, parts, strict=True)])

    def correct(self, z: AnyState, x: AnyObservation) -> AnyState:
        """Each by its own observation."""
        states, seen = self._each(z, self.members[0].dim), self._each(x, self.members[0].n_obs)
        return array_namespace(z).concat([model.correct(s, o) for model, s, o in zip(self.members, states, seen, strict=True)])


class OverMembers(AbstractCost):
    """The mean cost of models side by side, and `caution` times their disagreement; scale (N,) is the size of the observations."""

    cost: AbstractCost
    scale: Float[Any, " N"]
    members: int = eqx.field(static=True)
    caution: float = eqx.field(static=True, default=0.0)

    def _apart(self, x: Array) -> Array:
        return x.reshape(self.members, x.shape[0] // self.members)

    def _doubt(self, xs: Array) -> Array:
        return self.caution * jnp.sum(jnp.var(xs, axis=0) / self.scale**2)

    def stage(self, x: Float[Array, " N"], u: Float[Array, " K"], t: Any) -> Float[Array, ""]:
        """The mean over the members and their disagreement; x is (E N,)."""
        xs = self._apart(x)
        return jnp.mean(jax.vmap(lambda x: self.cost.stage(x, u, t))(xs)) + self._doubt(xs)

    def final(self, x: Float[Array, " N"]) -> Float[Array, ""]:
        """The mean over the members and their disagreement; x is (E N,)."""
        xs = self._apart(x)
        return jnp.mean(jax.vmap(self.cost.final)(xs)) + self._doubt(xs)


class InUnits(AbstractMap):
    """A model of standardised data in the user's units: x = mean + std observe(z), and inputs (u - input_mean) / input_std."""

    model: AbstractMap
    mean: Float[Any, " N"]
    std: Float[Any, " N"]
    input_mean: Float[Any, " K"]
    input_std: Float[Any, " K"]

    @property
    def dim(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """M, as the model has it."""
        return self.model.dim

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """N, as the model has it."""
        return self.model.n_obs

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """K, as the model has it."""
        return self.model.n_inputs

    def step(self, z: AnyState, u: AnyInput = None) -> AnyState:
        """The next state; without u the input is 0 in the user's units."""
        u = 0.0 * self.input_mean if u is None else u
        return self.model.step(z, (u - self.input_mean) / self.input_std)

    def observe(self, z: AnyState) -> AnyObservation:
        """In the user's units."""
        return self.mean + self.std * self.model.observe(z)

    def lift(self, x: AnyObservation) -> AnyState:
        """From the user's units."""
        return self.model.lift((x - self.mean) / self.std)

    def correct(self, z: AnyState, x: AnyObservation) -> AnyState:
        """From the user's units."""
        return self.model.correct(z, (x - self.mean) / self.std)


def one_step_error(model: AbstractMap, x: Float[np.ndarray, "T N"], u: Float[np.ndarray, "S K"]) -> float:
    """The error of one-step forecasts along a recording, relative to that of "it stays where it is"; NaN for less than one step.

    The model is corrected by every observation (T = S + 1), so that a latent state that is not observed is carried along.
    """
    if len(x) < 2:
        return float("nan")
    _, made = forecasts(model, x, u)
    scale = np.sqrt(np.mean((x[1:] - x[:-1]) ** 2, axis=0))
    scale = np.where(scale > 0, scale, 1.0)
    return float(np.sqrt(np.mean(((made - x[1:]) / scale[None, :]) ** 2)))


def forecasts(
    model: AbstractMap, x: Float[np.ndarray, "T N"], u: Float[np.ndarray, "S K"]
) -> tuple[Float[np.ndarray, "S M"], Float[np.ndarray, "S N"]]:
    """The states and observations of steps 1, ..., S along a recording, each as forecast before the observation there is shown."""
    size = 1 << (len(u) - 1).bit_length()  # so that recordings of many lengths share a compiled program
    xs, us = (np.concatenate([a, np.repeat(a[-1:], size - len(a), axis=0)]) for a in (x[:-1], u))
    states, seen = _forecasts(model, jnp.asarray(xs), jnp.asarray(us))
    return np.asarray(states)[: len(u)], np.asarray(seen)[: len(u)]


@eqx.filter_jit
def _forecasts(model: AbstractMap, xs: Array, us: Array) -> tuple[Array, Array]:
    def advance(z: Array, now: Any) -> Any:
        seen, u = now
        z = model.step(model.correct(z, seen), u)
        return z, (z, model.observe(z))

    return jax.lax.scan(advance, model.lift(xs[0]), (xs, us))[1]

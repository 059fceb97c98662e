"""A recurrent cell as a dynamical model: the network reads its own output, and z = (x, h) is its state.

    h' = cell.step(h, (x, u), gap),    x' = x + gap (U cell.read(h') + b)

The first N components are the observation, so forcing, free runs, exponents and control are those of any map. The increment
of x is proportional to the gap, as it is for any smooth signal between two near samples.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from array_api_compat import array_namespace
from jaxtyping import Array, Float

from dynsys.dynamics import AbstractTimed, AnyInput, AnyObservation, AnyState
from dynsys.models.arrays import zeros
from dynsys.models.base import matvec, uniform
from dynsys.models.cell import AbstractCell
from dynsys.models.observation import IdentityObservation


class AbstractCellMap(AbstractTimed):
    """z = (x, h), x (N,) the observation and h (S,) the hidden state of the cell, whose inputs are x and u."""

    cell: eqx.AbstractVar[AbstractCell]
    U: eqx.AbstractVar[Float[Any, "N O"]]
    b: eqx.AbstractVar[Float[Any, " N"]]

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """N, the number of observed components."""
        return self.b.shape[-1]

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """K, the number of external inputs."""
        return self.cell.n_in - self.n_obs

    @property
    def dim(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """M = N + S."""
        return self.n_obs + self.cell.n_state

    @property
    def memory(self) -> int:
        """How many observed points lead the hidden state from rest to where it belongs."""
        return 20

    def over(self, z: AnyState, u: AnyInput, gap: Any) -> AnyState:
        """The state a time `gap` later, (M,), (K,), () -> (M,)."""
        xp = array_namespace(z)
        x, h = z[: self.n_obs], z[self.n_obs :]
        if self.n_inputs == 0:
            features = x
        else:
            features = xp.concat([x, zeros(self.n_inputs, like=z) if u is None else u])
        h = self.cell.step(h, features, gap)
        return xp.concat([x + gap * (matvec(self.U, self.cell.read(h)) + self.b), h])

    @property
    def observation(self) -> IdentityObservation:
        """The first N components are seen."""
        return IdentityObservation(n_obs=self.n_obs, dim=self.dim)

    def observe(self, z: AnyState) -> AnyObservation:
        """The first N components."""
        return self.observation.observe(z)

    def lift(self, x: AnyObservation) -> AnyState:
        """x with a hidden state at rest: a poor start; see `dynsys.dynamics.warm_up`."""
        return self.observation.lift(x)

    def correct(self, z: AnyState, x: AnyObservation) -> AnyState:
        """z with its observation replaced; the hidden state stays."""
        return self.observation.correct(z, x)

    def prepared(self) -> "AbstractCellMap":
        """The same map with the prepared cell."""
        return eqx.tree_at(lambda model: model.cell, self, self.cell.prepared())


def readout(n_obs: int, n_out: int, *, key: Array) -> tuple[Float[Array, "N O"], Float[Array, " N"]]:
    """Small random output weights (N, O) and zeros (N,)."""
    return 0.1 * uniform(key, (n_obs, n_out), n_out), jnp.zeros(n_obs)

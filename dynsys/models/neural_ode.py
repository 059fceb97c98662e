"""Neural ODE: a flow with a network, discretised by a fixed-step method so that it is a map like every other model.

    z = (x, a),   dz/ds = field(z, u),   z[t+1] = RK4 over one sampling interval in `substeps` steps,   x = z[:N]

s counts sampling intervals. The first N components are the observation; further ones (a) augment the state, hold velocities
(second-order) or momenta (Hamiltonian). Because it is a map, generalised teacher forcing trains it, and so does sparse forcing, which
is multiple shooting from the data: every `interval` steps the state restarts at the data. A gap is one interval of another length, so
irregular samples need nothing more. To solve the same flow with error control take `model.flow` and `dynsys.integrate.solve`.
Sources: Chen, Rubanova, Bettencourt, Duvenaud, NeurIPS 2018; augmented: Dupont, Doucet, Teh, NeurIPS 2019; multiple shooting: Bock,
Plitt 1984; as forcing: Hess, Monfared, Brenner, Durstewitz, ICML 2023.
"""

from typing import Any

import equinox as eqx
from jaxtyping import Array

from dynsys import registry
from dynsys.dynamics import AbstractFlow, AbstractTimed, AnyInput, AnyObservation, AnyState, Discretized
from dynsys.errors import InvalidValue
from dynsys.models.base import check_sizes
from dynsys.models.fields import AbstractNetworkField
from dynsys.models.observation import IdentityObservation


class NeuralODE(AbstractTimed):
    """Any flow in units of one sampling interval, of whose state the first N components are observed."""

    flow: AbstractFlow
    n_obs: int = eqx.field(static=True)
    substeps: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        check_sizes("NeuralODE", n_obs=self.n_obs, substeps=self.substeps)
        if self.n_obs > self.flow.dim:
            raise InvalidValue(f"NeuralODE: the state must hold all n_obs={self.n_obs} observed components, got dim={self.flow.dim}.")

    @classmethod
    def init(
        cls,
        n_obs: int,
        n_inputs: int = 0,
        *,
        field: str = "mlp",
        dim: int | None = None,
        hidden: int = 64,
        depth: int = 2,
        activation: str = "tanh",
        substeps: int = 1,
        key: Array,
    ) -> "NeuralODE":
        """Random parameters for N observed components and K inputs.

        field: 'mlp', 'second-order', 'hamiltonian' or another registered network field; dim: M, by default N, or 2 N for a field with
        velocities or momenta; `depth` hidden layers of `hidden` units. substeps: RK4 steps in one sampling interval.
        Raises UnknownName for a field that is not there, InvalidValue for sizes that do not fit.
        """
        kind = registry.lookup("flow", field)
        if not issubclass(kind, AbstractNetworkField):
            raise InvalidValue(
                f"NeuralODE: field={field!r} is not made of a network alone; make the flow yourself and pass it: "
                "NeuralODE(flow=..., n_obs=..., substeps=...)."
            )
        dim = kind.order * n_obs if dim is None else dim
        flow = kind.init(dim, n_inputs, hidden=hidden, depth=depth, activation=activation, key=key)
        return cls(flow=flow, n_obs=n_obs, substeps=substeps)  # pyright: ignore[reportCallIssue]

    @property
    def dim(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """M, as the flow has it."""
        return self.flow.dim

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """K, as the flow has it."""
        return self.flow.n_inputs

    @property
    def memory(self) -> int:
        """How many observed points lead the unobserved components to where they belong; 0 where all are observed."""
        return 0 if self.dim == self.n_obs else 20

    def over(self, z: AnyState, u: AnyInput, gap: Any) -> AnyState:
        """The state `gap` sampling intervals later, (M,), (K,), () -> (M,), in `substeps` steps of RK4; the input is held."""
        return Discretized(self.flow, 1.0, substeps=self.substeps).over(z, u, gap)  # pyright: ignore[reportCallIssue]

    @property
    def observation(self) -> IdentityObservation:
        """The first N components are seen."""
        return IdentityObservation(n_obs=self.n_obs, dim=self.dim)

    def observe(self, z: AnyState) -> AnyObservation:
        """The first N components."""
        return self.observation.observe(z)

    def lift(self, x: AnyObservation) -> AnyState:
        """x with the other components at zero: a poor start if there are any; see `dynsys.dynamics.warm_up`."""
        return self.observation.lift(x)

    def correct(self, z: AnyState, x: AnyObservation) -> AnyState:
        """z with its observation replaced; the other components stay."""
        return self.observation.correct(z, x)

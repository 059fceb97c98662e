"""A plan: the trajectory that a planner found, with gains that keep the system on it."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from dynsys.status import Status


class Plan(eqx.Module):
    """states (T + 1, M), inputs (T, K), gains (T, K, M): near the plan, u = inputs[t] + gains[t] (z - states[t]).

    cost: J of the plan. iterations: of the planner. violation: the largest breach of a constraint, 0 without any. A status that is not
    ok says what ended the search (MAX_STEPS: the iterations, before it had converged); the plan is the best that was found.
    """

    states: Float[Array, "S M"]
    inputs: Float[Array, "T K"]
    gains: Float[Array, "T K M"]
    cost: float
    status: Status = eqx.field(static=True)
    iterations: int
    violation: float = 0.0

    def act(self, z: Float[Array, " M"], t: int) -> Float[Array, " K"]:
        """The input at step t (the last one after the end) for a state near the plan, (M,) -> (K,); limits are not applied again."""
        t = min(t, len(self.inputs) - 1)
        return self.inputs[t] + self.gains[t] @ (jnp.asarray(z) - self.states[t])

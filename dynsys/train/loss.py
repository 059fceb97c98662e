"""The training loss: mean squared one-step-ahead error along a forced run, plus regularisers.

    loss = mean_{b,t,n} (observe(z[t+1]) - x[t+1])^2 + l2 |theta|^2 + manifold * R(model) + mean_b (the model's own_loss)

R is the manifold-attractor regulariser: for a share of the latent units it pulls A_i to 1 and the rows of all other
terms that feed the unit to 0, so that these units keep what they hold.
Sources: regulariser: Schmidt, Koppe, Monfared, Beutelspacher, Durstewitz, ICLR 2021, eq. 3.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dynsys.dynamics import AbstractMap
from dynsys.errors import InvalidValue
from dynsys.models.base import AbstractRNN
from dynsys.train.forced import forced_run
from dynsys.train.forcing import AbstractForcing


class Loss(eqx.Module):
    """Weights of the terms; `manifold_share` is the share of latent units (the last ones) that R acts on."""

    l2: float = eqx.field(static=True, default=0.0)
    manifold: float = eqx.field(static=True, default=0.0)
    manifold_share: float = eqx.field(static=True, default=0.5)

    def __check_init__(self):
        if self.l2 < 0 or self.manifold < 0:
            raise InvalidValue(f"Loss: weights can't be negative, got l2={self.l2}, manifold={self.manifold}.")
        if not 0 < self.manifold_share <= 1:
            raise InvalidValue(f"Loss: manifold_share must be in (0, 1], got {self.manifold_share}.")

    def __call__(
        self,
        model: AbstractMap,
        forcing: AbstractForcing,
        strength: Float[Array, ""],
        targets: Float[Array, "T B N"],
        forced_by: Float[Array, "T B N"],
        inputs: Float[Array, "T B K"] | None,
    ) -> Float[Array, ""]:
        """The loss of a batch; `forced_by` is the series that forces (the targets, or those with noise added)."""
        states = forced_run(model, forcing, strength, forced_by, inputs)
        error = jax.vmap(jax.vmap(model.observe))(states[1:]) - targets[1:]
        own = jax.vmap(model.own_loss, (1, 1))(states, targets)
        return jnp.mean(error**2) + self.penalty(model) + jnp.mean(own)

    def penalty(self, model: AbstractMap) -> Float[Array, ""] | float:
        """The regularisers alone."""
        total = 0.0
        if self.l2:
            total = total + self.l2 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)))
        if self.manifold:
            total = total + self.manifold * _manifold_attractor(model, self.manifold_share)
        return total


def _manifold_attractor(model: AbstractMap, share: float) -> Float[Array, ""]:
    """sum over the last units i of (A_i - 1)^2 + |row i of every other term|^2."""
    if not isinstance(model, AbstractRNN):
        raise InvalidValue(
            f"the manifold-attractor regulariser needs a piecewise-linear RNN with a diagonal A; {type(model).__name__} is none. "
            "Set training.manifold=0."
        )
    kept = max(1, round(share * model.dim))
    return jnp.sum((model.A[-kept:] - 1.0) ** 2) + sum(jnp.sum(row[-kept:] ** 2) for row in model.unit_rows())

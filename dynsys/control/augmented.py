"""State constraints c(x, u, t) <= 0 by the augmented Lagrangian: iLQR on a cost whose multipliers are raised until no constraint is broken.

    L = J + sum_t 1 / (2 rho) (|max(0, lambda_t + rho c_t)|^2 - |lambda_t|^2),    lambda_t <- max(0, lambda_t + rho c_t)

rho grows where the breach did not fall enough. Limits of the inputs stay with the planner, which keeps them exactly.
Source: Howell, Jackson, Manchester, IROS 2019; Nocedal & Wright, Numerical Optimization (2006), sec. 17.4.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dynsys.control.cost import AbstractCost
from dynsys.control.ilqr import Search, as_plan, check_problem, doubled, limits, solve, total
from dynsys.control.plan import Plan
from dynsys.dynamics import AbstractMap
from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys.status import Status

Constraint = Callable[[Any, Any, Any], Any]  # (x (N,), u (K,), t) -> (P,), kept at or below 0; at the end u is zero


class Augmented(AbstractCost):
    """A cost with the terms of the constraints."""

    cost: AbstractCost
    multipliers: Float[Array, "S P"]
    weight: Float[Array, ""]
    constraint: Constraint = eqx.field(static=True)
    n_inputs: int = eqx.field(static=True)

    def _term(self, c: Array, multiplier: Array) -> Array:
        pushed = jnp.maximum(0.0, multiplier + self.weight * c)
        return jnp.sum(pushed**2 - multiplier**2) / (2 * self.weight)

    def stage(self, x: Float[Array, " N"], u: Float[Array, " K"], t: Any) -> Float[Array, ""]:
        """The cost's own and the constraints' at step t."""
        return self.cost.stage(x, u, t) + self._term(jnp.atleast_1d(self.constraint(x, u, t)), self.multipliers[t])

    def final(self, x: Float[Array, " N"]) -> Float[Array, ""]:
        """The same at the end."""
        last = self.multipliers.shape[0] - 1
        c = jnp.atleast_1d(self.constraint(x, jnp.zeros(self.n_inputs, x.dtype), last))
        return self.cost.final(x) + self._term(c, self.multipliers[last])


def constrained_ilqr(
    model: AbstractMap,
    cost: AbstractCost,
    start: Any,
    inputs: Any,
    constraint: Constraint,
    *,
    low: Any = None,
    high: Any = None,
    search: Search | None = None,
    tolerance: float = 1e-6,
    rounds: int = 20,
    weight: float = 1.0,
    growth: float = 10.0,
) -> Plan:
    """Plan as `ilqr`, with constraint(x, u, t) (P,) at or below 0 at every step.

    tolerance: the breach that is allowed. rounds: updates of the multipliers; weight: the first rho, growth: its factor. A plan that still
    breaks a constraint has status FAILED and says by how much (`violation`): it may be infeasible from this start. Errors as `ilqr`.
    """
    search = Search() if search is None else search
    with x64():
        model, cost = doubled(model), doubled(cost)
        z, us = jnp.asarray(start, float), jnp.asarray(inputs, float)
        check_problem("constrained_ilqr", model, z, us)
        bounds = limits("constrained_ilqr", low, high, model.n_inputs)
        T, K = us.shape
        first = np.atleast_1d(np.asarray(constraint(model.observe(z), us[0], 0)))
        if first.ndim != 1 or not np.isfinite(first).all():
            raise InvalidValue(f"constrained_ilqr: constraint must give finite numbers (P,), got shape {first.shape} at the start.")
        multipliers, rho, worst = jnp.zeros((T + 1, len(first))), jnp.asarray(float(weight)), np.inf
        iterations, left = 0, max(1, rounds)
        while True:
            found = solve(model, Augmented(cost, multipliers, rho, constraint, K), z, us, *bounds, search)  # pyright: ignore[reportCallIssue]
            us, iterations = found.inputs, iterations + int(found.iterations)
            c = _values(model, constraint, found.states, us)
            breach = max(0.0, float(jnp.max(c)))
            left -= 1
            if breach <= tolerance or not np.isfinite(breach) or left == 0:
                break
            multipliers = jnp.maximum(0.0, multipliers + rho * c)
            if breach > 0.25 * worst:
                rho = rho * growth
            worst = breach
        plan = as_plan(found, violation=breach)
        status = plan.status if breach <= tolerance or plan.status is Status.DIVERGED else Status.FAILED
        own = float(total(model, cost, found.states, found.inputs))
        return Plan(plan.states, plan.inputs, plan.gains, own, status, iterations, breach)  # pyright: ignore[reportCallIssue]


@eqx.filter_jit
def _values(model: AbstractMap, constraint: Constraint, zs: Array, us: Array) -> Float[Array, "S P"]:
    xs = jax.vmap(model.observe)(zs)
    padded = jnp.concatenate([us, jnp.zeros_like(us[:1])])
    return jax.vmap(lambda x, u, t: jnp.atleast_1d(constraint(x, u, t)))(xs, padded, jnp.arange(len(xs)))

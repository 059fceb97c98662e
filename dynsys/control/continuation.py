"""Planning through easier problems: each search starts from the plan of the one before, and the last one is the problem itself.

Swing-ups have long narrow valleys: with cheap inputs and a heavy end, iLQR reaches the goal soon and then creeps, step size by step size,
past local optima in which the swing comes late. With dearer inputs and a lighter end the same search takes full steps; its optimum lies in
the right valley, from which the problem itself needs few iterations. On the cart-pole of scripts/bench_ilqr.py:

    hard = Quadratic.of(...)
    stages = [(hard.weighted(inputs=30, end=0.1), Search(iterations=450)), (hard.weighted(inputs=10), Search()), (hard, Search())]

Source: Allgower & Georg, Numerical Continuation Methods (1990); which weights to ease was found by trial.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from dynsys.control.cost import AbstractCost
from dynsys.control.ilqr import Search, as_plan, check_problem, doubled, limits, solve
from dynsys.control.plan import Plan
from dynsys.dynamics import AbstractMap
from dynsys.errors import InvalidValue
from dynsys.precision import x64


def ilqr_through(
    model: AbstractMap,
    stages: Sequence[tuple[AbstractCost, Search]],
    start: Any,
    inputs: Any,
    *,
    low: Any = None,
    high: Any = None,
) -> Plan:
    """Plan as `ilqr` through (cost, search) pairs, the problem last: its cost and status are the plan's; iterations are those of all.

    start (M,), inputs (T, K); limits hold at every stage. A stage that ends without converging hands on the best that it found.
    Raises InvalidValue without a stage, and as `ilqr`.
    """
    if not stages:
        raise InvalidValue("ilqr_through: needs at least one (cost, search) pair, got none. The last one is the problem itself.")
    with x64():
        model, z, us = doubled(model), jnp.asarray(start, float), jnp.asarray(inputs, float)
        check_problem("ilqr_through", model, z, us)
        bounds = limits("ilqr_through", low, high, model.n_inputs)
        found = solve(model, doubled(stages[0][0]), z, us, *bounds, stages[0][1])
        spent = found.iterations
        for cost, search in stages[1:]:
            found = solve(model, doubled(cost), z, found.inputs, *bounds, search)
            spent = spent + found.iterations
        plan = as_plan(found)
        return Plan(plan.states, plan.inputs, plan.gains, plan.cost, plan.status, int(spent), plan.violation)  # pyright: ignore[reportCallIssue]

"""Iterative LQR and differential dynamic programming, with input limits handled exactly.

    forwards   linearise z' = step(z, u) along the trajectory, and the cost to second order
    backwards  Q_x = l_x + A'V_x,   Q_xx = l_xx + A'V_xx A (+ V_x . f_xx),   and so for u
               k = argmin over low - u <= k <= high - u of 1/2 k'Q_uu k + Q_u'k,   K = -Q_uu^-1 Q_ux on the inputs that are free
               V_x = Q_x + K'Q_uu k + K'Q_u + Q_ux'k,   V_xx = Q_xx + K'Q_uu K + K'Q_ux + Q_ux'K
    forwards   u <- clip(u + alpha k + K (z - z_old)), the first alpha of the step sizes that pays

Without the terms in f_xx it is iLQR (Gauss-Newton), with them DDP (`second_order`). mu is added to Q_uu ("inputs") or to V_xx of the next
step ("states") where the gains are computed, and nowhere else: the value function is that of the gains used, so cross terms stay right.
The whole search is one compiled loop; `ilqr_starts` runs many of them in one program.
Sources: Li & Todorov, ICINCO 2004; Tassa, Erez, Todorov, IROS 2012; limits: Tassa, Mansard, Todorov, ICRA 2014.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dynsys.control.boxqp import box_step, solve_free
from dynsys.control.cost import AbstractCost
from dynsys.control.plan import Plan
from dynsys.control.small import applied, positive, product
from dynsys.dynamics import AbstractMap
from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys.status import Status

STEP_SIZES = tuple(float(1.1 ** -(k * k)) for k in range(11))
PAYS = 1e-4  # share of the expected gain that a step must bring
MU_LEAST, MU_MOST = 1e-6, 1e10
MU_TELLS = 1.0  # a larger regularisation makes every step short, which says nothing of what is left to gain


class Search(eqx.Module):
    """How to search. `mu`: the first regularisation, `factor` by which it changes, `on` what it acts ("inputs" or "states").

    tolerance: relative gain below which the search has converged. step_sizes: in falling order, of which the first that pays is taken;
    tried one after another until then, or all in one batched rollout (`at_once`, for an accelerator). The plan is the same.
    """

    iterations: int = eqx.field(static=True, default=200)
    second_order: bool = eqx.field(static=True, default=False)
    mu: float = 0.0
    factor: float = 4.0
    on: str = eqx.field(static=True, default="inputs")
    tolerance: float = 1e-8
    step_sizes: tuple[float, ...] = eqx.field(static=True, default=STEP_SIZES)
    at_once: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if self.on not in ("inputs", "states"):
            raise InvalidValue(f"Search: on must be 'inputs' or 'states', got {self.on!r}.")
        if self.iterations < 1 or not self.step_sizes or min(self.step_sizes) <= 0:
            raise InvalidValue(f"Search: needs iterations >= 1 and positive step_sizes, got {self.iterations} and {self.step_sizes}.")


class Solution(eqx.Module):
    """Where a search stands; all arrays, so that it can be batched."""

    states: Float[Array, "S M"]
    inputs: Float[Array, "T K"]
    gains: Float[Array, "T K M"]
    cost: Float[Array, ""]
    mu: Float[Array, ""]
    iterations: Int[Array, ""]
    converged: Bool[Array, ""]
    stuck: Bool[Array, ""]


def ilqr(
    model: AbstractMap,
    cost: AbstractCost,
    start: Any,
    inputs: Any,
    *,
    low: Any = None,
    high: Any = None,
    search: Search | None = None,
) -> Plan:
    """Plan from a state `start` (M,), beginning with `inputs` (T, K), in float64.

    model: any map with inputs; the cost sees what it observes. low, high (K,) or numbers: limits of the inputs.
    Raises InvalidValue for shapes or limits that do not fit. A search that did not converge, or whose first trajectory is not finite, is
    no exception: see `Plan.status`.
    """
    search = Search() if search is None else search
    with x64():
        model, cost = doubled(model), doubled(cost)
        z, us = jnp.asarray(start, float), jnp.asarray(inputs, float)
        check_problem("ilqr", model, z, us)
        found = solve(model, cost, z, us, *limits("ilqr", low, high, model.n_inputs), search)
        return as_plan(found)


def ilqr_starts(
    model: AbstractMap, cost: AbstractCost, start: Any, inputs: Any, *, low: Any = None, high: Any = None, search: Search | None = None
) -> tuple[Plan, Float[np.ndarray, " S"]]:
    """As `ilqr`, from S first guesses (S, T, K) in one compiled program; the best plan, and the costs of all."""
    search = Search() if search is None else search
    with x64():
        model, cost = doubled(model), doubled(cost)
        z, us = jnp.asarray(start, float), jnp.asarray(inputs, float)
        if us.ndim != 3:
            raise InvalidValue(f"ilqr_starts: inputs must have shape (S, T, K), got {us.shape}.")
        check_problem("ilqr_starts", model, z, us[0])
        found = solve_starts(model, cost, z, us, *limits("ilqr_starts", low, high, model.n_inputs), search)
        costs = np.nan_to_num(np.asarray(found.cost), nan=np.inf)
        best = int(np.argmin(costs))
        return as_plan(jax.tree.map(lambda leaf: leaf[best], found)), costs


@eqx.filter_jit
def solve(model: AbstractMap, cost: AbstractCost, z: Array, us: Array, low: Array, high: Array, search: Search) -> Solution:
    """The search as one compiled program, in the precision of its arguments."""
    return search_from(model, cost, z, us, low, high, search)


@eqx.filter_jit
def solve_starts(model: AbstractMap, cost: AbstractCost, z: Array, us: Array, low: Array, high: Array, search: Search) -> Solution:
    """Searches from many first guesses (S, T, K)."""
    return jax.vmap(lambda u: search_from(model, cost, z, u, low, high, search))(us)


def search_from(model: AbstractMap, cost: AbstractCost, z: Array, us: Array, low: Array, high: Array, search: Search) -> Solution:
    """The search itself, to be called inside a compiled program; no argument is checked."""
    us = jnp.clip(us, low[None, :], high[None, :])
    zs = trajectory(model, z, us)
    T, K = us.shape
    first = Solution(
        states=zs,
        inputs=us,
        gains=jnp.zeros((T, K, z.shape[0]), z.dtype),
        cost=total(model, cost, zs, us),
        mu=jnp.asarray(search.mu, z.dtype),
        iterations=jnp.asarray(0),
        converged=jnp.asarray(False),
        stuck=jnp.asarray(False),
    )  # pyright: ignore[reportCallIssue]
    sizes = jnp.asarray(search.step_sizes, z.dtype)

    def going(now: Solution) -> Array:
        return ~now.converged & ~now.stuck & (now.iterations < search.iterations) & jnp.isfinite(now.cost)

    def improve(now: Solution) -> Solution:
        k, gains, gain_1, gain_2, sound = backward(model, cost, now.states, now.inputs, low, high, now.mu, search)
        expected = -(sizes * gain_1 + 0.5 * sizes**2 * gain_2)

        def run(alpha: Array, expected: Array) -> tuple[Array, Array, Array, Array]:
            zs, us = followed(model, now.states, now.inputs, alpha * k, gains, low, high)
            value = total(model, cost, zs, us)
            return zs, us, value, (now.cost - value > PAYS * jnp.maximum(expected, 0.0)) & jnp.isfinite(value) & sound

        tried_z, tried_u, value, took = first_that_pays(run, sizes, expected, sound, search.at_once)
        reduction = now.cost - value
        nothing_left = sound & (expected[0] <= search.tolerance * (1.0 + jnp.abs(now.cost))) & (now.mu <= MU_TELLS)
        small = took & (reduction <= search.tolerance * (1.0 + jnp.abs(now.cost))) & (now.mu <= MU_LEAST)
        lower = jnp.where(now.mu / search.factor < MU_LEAST, 0.0, now.mu / search.factor)
        mu = jnp.where(took, lower, jnp.maximum(MU_LEAST, now.mu * search.factor))

        def keep(new: Array, old: Array) -> Array:
            return jnp.where(took, new, old)

        return Solution(
            states=keep(tried_z, now.states),
            inputs=keep(tried_u, now.inputs),
            gains=jnp.where(took | nothing_left, gains, now.gains),
            cost=keep(value, now.cost),
            mu=mu,
            iterations=now.iterations + 1,
            converged=nothing_left | small,
            stuck=mu > MU_MOST,
        )  # pyright: ignore[reportCallIssue]

    return jax.lax.while_loop(going, improve, first)


def first_that_pays(run: Any, sizes: Array, expected: Array, worth: Array, at_once: bool) -> tuple[Array, Array, Array, Array]:
    """What run(size, expected) gives, (..., whether it pays), for the first size that pays; for the last one if none does."""
    if at_once:
        tried = jax.vmap(run)(sizes, expected)
        at = jnp.where(jnp.any(tried[3]), jnp.argmax(tried[3]), len(sizes) - 1)
        return jax.tree.map(lambda leaf: leaf[at], tried)

    def more(state: Any) -> Any:
        i, _ = state
        return i + 1, run(sizes[i], expected[i])

    def wanted(state: Any) -> Array:
        i, tried = state
        return worth & ~tried[3] & (i < len(sizes))

    return jax.lax.while_loop(wanted, more, (1, run(sizes[0], expected[0])))[1]


def backward(
    model: AbstractMap, cost: AbstractCost, zs: Array, us: Array, low: Array, high: Array, mu: Array, search: Search
) -> tuple[Array, Array, Array, Array, Array]:
    """Offsets k (T, K), gains (T, K, M), the two terms of the expected change alpha g_1 + alpha^2 g_2 / 2, and whether it is sound."""
    M, K = zs.shape[1], us.shape[1]
    joint = jnp.concatenate([zs[:-1], us], axis=1)

    def step(zu: Array) -> Array:
        return model.step(zu[:M], zu[M:])

    def stage(zu: Array, t: Array) -> Array:
        return cost.stage(model.observe(zu[:M]), zu[M:], t)

    def final(z: Array) -> Array:
        return cost.final(model.observe(z))

    ts = jnp.arange(us.shape[0])
    F = jax.vmap(jax.jacfwd(step))(joint)
    l1, l2 = jax.vmap(jax.grad(stage))(joint, ts), jax.vmap(jax.hessian(stage))(joint, ts)
    curved = jax.vmap(jax.jacfwd(jax.jacfwd(step)))(joint) if search.second_order else jnp.zeros((us.shape[0], 0))
    V1, V2 = jax.grad(final)(zs[-1]), jax.hessian(final)(zs[-1])
    eye = jnp.eye(K, dtype=zs.dtype)

    def back(carry: Any, now: Any) -> Any:
        V1, V2 = carry
        F, l1, l2, curved, u = now
        Q1, Q2 = l1 + applied(F.T, V1), l2 + product(F.T, product(V2, F))
        if search.second_order:
            Q2 = Q2 + jnp.tensordot(V1, curved, axes=1)
        Qu, Quu, Qux = Q1[M:], Q2[M:, M:], Q2[M:, :M]
        if search.on == "inputs":
            H, rows = Quu + mu * eye, Qux
        else:
            B = F[:, M:]
            H, rows = Quu + mu * product(B.T, B), Qux + mu * product(B.T, F[:, :M])
        k, free = box_step(H, Qu, low - u, high - u)
        gain = solve_free(H, rows, free)
        V1 = Q1[:M] + applied(gain.T, applied(Quu, k) + Qu) + applied(Qux.T, k)
        V2 = Q2[:M, :M] + product(gain.T, product(Quu, gain) + Qux) + product(Qux.T, gain)
        return (V1, 0.5 * (V2 + V2.T)), (k, gain, Qu, Quu, H)

    _, (k, gains, Qu, Quu, H) = jax.lax.scan(back, (V1, V2), (F, l1, l2, curved, us), reverse=True)
    g1, g2 = jnp.sum(k * Qu), jnp.sum(k[:, :, None] * Quu * k[:, None, :])
    return k, gains, g1, g2, jnp.all(jax.vmap(positive)(H)) & jnp.all(jnp.isfinite(k))


def trajectory(model: AbstractMap, z: Array, us: Array) -> Float[Array, "S M"]:
    """The states z[0..T] under inputs (T, K)."""

    def advance(z: Array, u: Array) -> tuple[Array, Array]:
        z = model.step(z, u)
        return z, z

    return jnp.concatenate([z[None], jax.lax.scan(advance, z, us)[1]])


def followed(model: AbstractMap, zs: Array, us: Array, k: Array, gains: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """States and inputs when the plan is followed with offsets k and gains, inside the limits."""

    def advance(z: Array, now: Any) -> Any:
        old, u, k, gain = now
        u = jnp.clip(u + k + applied(gain, z - old), low, high)
        after = model.step(z, u)
        return after, (after, u)

    _, (rest, inputs) = jax.lax.scan(advance, zs[0], (zs[:-1], us, k, gains))
    return jnp.concatenate([zs[:1], rest]), inputs


def total(model: AbstractMap, cost: AbstractCost, zs: Array, us: Array) -> Float[Array, ""]:
    """J of a trajectory."""
    xs = jax.vmap(model.observe)(zs)
    return jnp.sum(jax.vmap(cost.stage)(xs[:-1], us, jnp.arange(us.shape[0]))) + cost.final(xs[-1])


def as_plan(found: Solution, violation: float = 0.0) -> Plan:
    """The plan of a solution, with its status."""
    if not np.isfinite(float(found.cost)):
        status = Status.DIVERGED
    else:
        status = Status.SUCCESS if bool(found.converged) else Status.STOPPED if bool(found.stuck) else Status.MAX_STEPS
    return Plan(found.states, found.inputs, found.gains, float(found.cost), status, int(found.iterations), violation)  # pyright: ignore[reportCallIssue]


def limits(who: str, low: Any, high: Any, n_inputs: int) -> tuple[Array, Array]:
    """Limits (K,) each; infinite where there are none. Raises InvalidValue unless low <= high."""
    a = np.broadcast_to(np.asarray(-np.inf if low is None else low, float), (n_inputs,))
    b = np.broadcast_to(np.asarray(np.inf if high is None else high, float), (n_inputs,))
    if not np.all(a <= b):
        raise InvalidValue(f"{who}: low must not be above high, got low={a.tolist()}, high={b.tolist()}.")
    return jnp.asarray(a), jnp.asarray(b)


def check_problem(who: str, model: AbstractMap, z: Array, us: Array) -> None:
    """Raise InvalidValue unless the start is (M,) and the inputs are (T, K) of a model that takes inputs."""
    if not isinstance(model, AbstractMap) or model.n_inputs == 0:
        raise InvalidValue(f"{who}: needs a map with inputs, got {type(model).__name__}. A flow becomes one by Discretized(flow, dt).")
    if z.shape != (model.dim,) or us.ndim != 2 or us.shape[1] != model.n_inputs or not len(us):
        raise InvalidValue(f"{who}: wants a start ({model.dim},) and inputs (T, {model.n_inputs}), got {z.shape} and {us.shape}.")


def doubled(tree: Any) -> Any:
    """The same module with its real numbers in float64 (inside x64)."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, float) if eqx.is_inexact_array(leaf) else leaf, tree)

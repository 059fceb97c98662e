"""Learned locally-linear iLQR: the inputs of a system are optimised from its rollouts alone, along gains that are learned on the way.

    perturb     N rollouts of u = u_n + K_n (x - x_n) + w,  w = +-sigma
    estimate    Markov parameters psi (dynsys.control.markov), from them (A, B) along the trajectory, stabilising gains K, and dJ/du
    improve     v = u_n - step(dJ/du), inside the limits, by any first-order optimiser of optax (dynsys.control.local_step)
    roll out    x_n+1, u_n+1 = the rollout of u = v + K_n (x - x_n), with the old gains; then switch to K_n+1 = K

Only the cost is differentiated, at states that were visited. Without gains an unstable system spreads the perturbations exponentially
with the horizon; with them the Markov parameters stay small and the rollouts near the trajectory.
Two doors: `local_ilqr` for a map, whose whole search is one compiled scan, and `local_ilqr_rig` for anything that can run a policy.
Source: Pfrommer, Simchowitz, Westenbroek, Matni, Tu, ICML 2023 (arXiv:2305.09619): `LocalSearch.published()`. Ours: limits of the inputs,
several step sizes, refused steps, the metric "cost" (the default), and the estimator "transitions".
"""

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int

from dynsys.control.cost import AbstractCost
from dynsys.control.ilqr import check_problem, doubled, limits
from dynsys.control.local_step import (
    PATIENCE,
    LocalSearch as LocalSearch,
    Standing,
    Trajectory,
    begun,
    either,
    move,
    perturbations,
    propose,
)
from dynsys.control.plan import Plan
from dynsys.control.rig import Recorder, Rig
from dynsys.dynamics import AbstractMap
from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys.status import Status


class LearnedPlan(eqx.Module):
    """The best plan that was rolled out, and how the search went; iteration 0 is the rollout of the first guess.

    costs (I + 1,): of the nominal trajectory after each iteration; rollouts (I + 1,): of the system, until then, all counted. A plan's
    status that is not ok says why the search ended (STOPPED: by an interrupt, or because no step kept its promise, so that more rollouts
    or another sigma are needed); `reason` is what the rig raised, if it did. For a rig, `states` (R, T + 1, M) and `inputs` (R, T, K) hold
    every rollout, those that failed too (NaN from there on), as data for a model; for a map they are empty.
    """

    plan: Plan
    costs: Float[np.ndarray, " I"]
    rollouts: Int[np.ndarray, " I"]
    states: Float[np.ndarray, "R S M"]
    inputs: Float[np.ndarray, "R T K"]
    reason: str = eqx.field(static=True, default="")


def local_ilqr(
    model: AbstractMap,
    cost: AbstractCost,
    start: Any,
    inputs: Any,
    *,
    low: Any = None,
    high: Any = None,
    search: LocalSearch | None = None,
    key: Array | int = 0,
) -> LearnedPlan:
    """Search on a map that is only rolled out, from a state `start` (M,) and first inputs (T, K), in float64; one compiled program.

    The search sees what the map observes; its plan's states and gains are in observed coordinates. low, high (K,) or numbers: limits.
    Raises InvalidValue for shapes or limits that do not fit.
    """
    search = LocalSearch() if search is None else search
    with x64():
        model, cost = doubled(model), doubled(cost)
        z, us = jnp.asarray(start, float), jnp.asarray(inputs, float)
        check_problem("local_ilqr", model, z, us)
        weights = weights_of("local_ilqr", search, len(us), model.n_obs, model.n_inputs)
        key = jr.key(key) if isinstance(key, int) else key
        last, costs, counts = learn(model, cost, z, us, *limits("local_ilqr", low, high, model.n_inputs), search, weights, key)
        costs, counts = np.asarray(costs), np.asarray(counts)
        ran = np.append(True, np.diff(counts) > 0)  # a search that gave up stands still until the end of the scan
        none = np.zeros((0, len(us) + 1, model.n_obs)), np.zeros((0, *us.shape))
        return _result(search, last, costs[ran], counts[ran], *none)


def local_ilqr_rig(
    rig: Rig,
    cost: AbstractCost,
    inputs: Any,
    *,
    n_obs: int,
    low: Any = None,
    high: Any = None,
    search: LocalSearch | None = None,
    key: Array | int = 0,
) -> LearnedPlan:
    """The same search on a callable rig(policies) -> states (n, T + 1, M), M = n_obs; see `dynsys.control.rig`.

    What the rig raises in its first rollout is raised; later the search ends with status FAILED and the `reason`, and an interrupt with
    STOPPED, each with the best plan and all rollouts so far. Raises InvalidValue for shapes or limits that do not fit.
    """
    search, who = LocalSearch() if search is None else search, "local_ilqr_rig"
    with x64():
        cost, us = doubled(cost), jnp.asarray(inputs, float)
        if us.ndim != 2 or not us.size or n_obs < 1:
            raise InvalidValue(f"{who}: wants inputs (T, K) and n_obs >= 1, got {us.shape} and {n_obs}.")
        T, K = us.shape
        bounds, weights = limits(who, low, high, K), weights_of(who, search, T, n_obs, K)
        iterations, search = search.iterations, replace(search, iterations=1)  # so that searches of any length share compiled programs
        key = jr.key(key) if isinstance(key, int) else key
        ask = Recorder(rig, *(np.asarray(limit) for limit in bounds))
        us = jnp.clip(us, bounds[0][None], bounds[1][None])
        zero = jnp.zeros((T + 1, n_obs)), jnp.zeros((T, K, n_obs))
        standing = begun(cost, search, jnp.asarray(ask(us[None], zero[1], zero[0])[0]), us)
        costs, counts = [float(standing.now.cost)], [1]
        status, reason = None, ""
        try:
            while len(costs) <= iterations and standing.failures < PATIENCE:
                key, now = jr.split(key)
                w = perturbations(now, search, T, K)
                at = standing.now
                proposal = propose(cost, search, weights, standing, jnp.asarray(ask(at.inputs[None] + w, at.gains, at.states)), w, *bounds)
                sound = bool(proposal.sound)
                shown = ask(proposal.inputs, at.gains, at.states) if sound else np.full((len(proposal.inputs), T + 1, n_obs), np.nan)
                standing = move(cost, search, standing, proposal, jnp.asarray(shown), *bounds)
                costs.append(float(standing.now.cost))
                counts.append(int(standing.rollouts))
        except KeyboardInterrupt:
            status = Status.STOPPED
        except Exception as error:  # whatever a rig may raise must not cost what was collected
            status, reason = Status.FAILED, f"{type(error).__name__}: {error}"
        return _result(search, standing, np.array(costs), np.array(counts), *ask.collected(), status, reason)


@eqx.filter_jit
def learn(
    model: AbstractMap, cost: AbstractCost, z: Array, us: Array, low: Array, high: Array, search: LocalSearch, weights: Any, key: Any
) -> tuple[Standing, Array, Array]:
    """The whole search as one program: where it ends, costs (I + 1,) and rollouts (I + 1,); no argument is checked."""
    T, K = us.shape

    def run(v: Array, at: Trajectory) -> Array:
        def advance(z: Array, now: Any) -> Any:
            x, (v, old, gain) = model.observe(z), now
            u = jnp.clip(v + jnp.sum(gain * (x - old)[None, :], axis=1), low, high)
            return model.step(z, u), x

        last, xs = jax.lax.scan(advance, z, (v, at.states[:-1], at.gains))
        return jnp.concatenate([xs, model.observe(last)[None]])

    us = jnp.clip(us, low[None], high[None])
    still = Trajectory(jnp.zeros((T + 1, model.n_obs)), us, jnp.zeros((T, K, model.n_obs)), jnp.asarray(jnp.inf))  # pyright: ignore[reportCallIssue]
    first = begun(cost, search, run(us, still), us)

    def iterate(standing: Standing, key: Any) -> Any:
        w = perturbations(key, search, T, K)
        at = standing.now
        shown = jax.vmap(lambda v: run(v, at))(at.inputs[None] + w)
        proposal = propose(cost, search, weights, standing, shown, w, low, high)
        after = move(cost, search, standing, proposal, jax.vmap(lambda v: run(v, at))(proposal.inputs), low, high)
        after = either(standing.failures < PATIENCE, after, standing)
        return after, (after.now.cost, after.rollouts)

    def following(key: Any, _: None) -> Any:
        key, now = jr.split(key)
        return key, now

    keys = jax.lax.scan(following, key, None, length=search.iterations)[1]
    last, (costs, counts) = jax.lax.scan(iterate, first, keys)
    return last, jnp.concatenate([first.now.cost[None], costs]), jnp.concatenate([first.rollouts[None], counts])


def weights_of(who: str, search: LocalSearch, T: int, M: int, K: int) -> tuple[Array, Array, Array]:
    """The weights of the Riccati recursion, in the metric "inputs": Q (T + 1, M, M), R (T, K, K), C (T, K, M)."""
    Q = jnp.eye(M) if search.Q is None else jnp.asarray(search.Q, float)
    R = jnp.eye(K) if search.R is None else jnp.asarray(search.R, float)
    if Q.shape != (M, M) or R.shape != (K, K):
        raise InvalidValue(f"{who}: LocalSearch wants Q ({M}, {M}) and R ({K}, {K}), got {Q.shape} and {R.shape}.")
    return jnp.tile(Q, (T + 1, 1, 1)), jnp.tile(R, (T, 1, 1)), jnp.zeros((T, K, M))


def _result(
    search: LocalSearch,
    last: Standing,
    costs: np.ndarray,
    counts: np.ndarray,
    states: np.ndarray,
    inputs: np.ndarray,
    status: Status | None = None,
    reason: str = "",
) -> LearnedPlan:
    best = last.now if last.now.cost <= last.best.cost else last.best
    if status is None:
        most = max(1, 3 * len(costs) // 4)
        early, late = costs[:most].min(), costs.min()
        small, idle = search.tolerance * abs(late), min(PATIENCE, len(costs) - most)
        if last.failures >= max(1, idle):  # no step lowers the cost: fine where none was promised to
            gave_up = Status.STOPPED if last.failures >= PATIENCE else Status.MAX_STEPS
            status = Status.SUCCESS if last.expected <= small else gave_up
            status = Status.DIVERGED if last.lost >= min(PATIENCE, len(costs) - 1) else status
        else:
            status = Status.SUCCESS if early <= late + small else Status.MAX_STEPS
    plan = Plan(best.states, best.inputs, best.gains, float(best.cost), status, len(costs) - 1)  # pyright: ignore[reportCallIssue]
    return LearnedPlan(plan, costs, counts, states, inputs, reason)  # pyright: ignore[reportCallIssue]

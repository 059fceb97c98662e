"""One iteration of learned locally-linear iLQR: what rollouts teach (`propose`), and where the search goes (`move`).

    estimate    psi[t, s] = dx[t]/du[s] from rollouts of u = u_n + K_n (x - x_n) + w; (A, B) along the trajectory; dJ/du
    metric      "inputs":  d = dJ/du,            gains of the Riccati recursion with weights Q and R
                "cost":    d[t] = H[t]^-1 dJ/du[t],   H = c_uu + B'PB,   gains of the recursion with the curvature of the cost;
                           inside limits -d[t] is the minimiser of d'H d / 2 + d . dJ/du[t] in the box (dynsys.control.boxqp)
    move        v = clip(u_n + share * size * step(d), low, high), each size rolled out under the old gains; the cheapest is x_n+1, u_n+1

Under the gains of the cost's own curvature the second derivative of J by the inputs is block-diagonal with blocks H[t] (completing the
square; the burn-in, which has no gains, apart), so a step of length 1 in the metric "cost" is the step of iLQR in the learned model; one
that does not lower the cost is not taken, and the next is half as long. In the metric "inputs" only a step whose rollout is not finite is
refused.
Source: see dynsys.control.local_linear.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from dynsys.control.boxqp import box_step
from dynsys.control.cost import AbstractCost
from dynsys.control.markov import (
    burn_in,
    locally_linear,
    markov_correlation,
    markov_least_squares,
    markov_transitions,
    policy_gradient,
    regulator,
)
from dynsys.errors import InvalidValue

ESTIMATORS = {"least-squares": markov_least_squares, "correlation": markov_correlation, "transitions": markov_transitions}
PATIENCE = 10  # iterations in a row that move nowhere, each with half the step of the last, after which a search ends
STEP_SIZES = (1.0, 0.5, 0.2, 0.05)
PLAIN, ADAM = optax.sgd(1.0), optax.adam(0.1)


class LocalSearch(eqx.Module):
    """How to search. rollouts: N an iteration, beside the nominal ones; sigma: size of the perturbations, in units of the
    inputs, a number or (K,).

    estimator: "least-squares", "correlation" or "transitions" (see dynsys.control.markov); ridge: its regularisation, without unit.
    gains: whether feedback is learned. metric: "cost" (needs gains), or "inputs", where Q (M, M) and R (K, K) weigh the Riccati recursion
    (default identities) and the optimiser is given dJ/du itself.
    optimizer: any of optax, in units of the inputs; step_sizes: the shares of its step that are rolled out, of which the cheapest counts.
    window: how many past inputs enter the factorisation (default all). fewest: rollouts that must be finite for an iteration to count
    (default half of N). tolerance: relative gain over the last quarter of the search below which it counts as converged.
    `published` makes the search of the paper.
    """

    iterations: int = eqx.field(static=True, default=100)
    rollouts: int = eqx.field(static=True, default=20)
    sigma: Any = 1e-3
    estimator: str = eqx.field(static=True, default="least-squares")
    ridge: float = 1e-6
    gains: bool = eqx.field(static=True, default=True)
    metric: str = eqx.field(static=True, default="cost")
    Q: Float[Any, "M M"] | None = None
    R: Float[Any, "K K"] | None = None
    window: int | None = eqx.field(static=True, default=None)
    fewest: int | None = eqx.field(static=True, default=None)
    tolerance: float = eqx.field(static=True, default=1e-3)
    optimizer: optax.GradientTransformation = eqx.field(static=True, default=PLAIN)
    step_sizes: tuple[float, ...] = eqx.field(static=True, default=STEP_SIZES)

    def __check_init__(self):
        if self.estimator not in ESTIMATORS:
            raise InvalidValue(f"LocalSearch: estimator must be one of {', '.join(ESTIMATORS)}, got {self.estimator!r}.")
        if self.iterations < 1 or self.rollouts < 2 or not np.all(np.asarray(self.sigma) > 0) or self.ridge < 0:
            raise InvalidValue(
                "LocalSearch: needs iterations >= 1, rollouts >= 2, sigma > 0 and ridge >= 0, "
                f"got {self.iterations}, {self.rollouts}, {self.sigma} and {self.ridge}."
            )
        if self.metric not in ("inputs", "cost") or (self.metric == "cost" and not (self.gains and self.Q is None and self.R is None)):
            raise InvalidValue(
                f"LocalSearch: metric must be 'inputs', or 'cost' with gains and without Q and R, got {self.metric!r}. "
                "LocalSearch.published(...) takes the metric of the inputs."
            )
        if not self.step_sizes or min(self.step_sizes) <= 0:
            raise InvalidValue(f"LocalSearch: step_sizes must be positive and at least one, got {self.step_sizes}.")

    @classmethod
    def published(cls, **changes: Any) -> "LocalSearch":
        """Steps along the gradient itself, by Adam, one size, with gains of identity weights; any setting may be changed."""
        return cls(**{"metric": "inputs", "optimizer": ADAM, "step_sizes": (1.0,), **changes})  # pyright: ignore[reportCallIssue]

    @property
    def least(self) -> int:
        """The finite rollouts that an iteration needs."""
        return -(-self.rollouts // 2) if self.fewest is None else self.fewest


class Trajectory(eqx.Module):
    """States, inputs, gains and cost of a rollout."""

    states: Float[Array, "S M"]
    inputs: Float[Array, "T K"]
    gains: Float[Array, "T K M"]
    cost: Float[Array, ""]


class Standing(eqx.Module):
    """Where a search stands: the nominal trajectory with the gains to use, the best one, the optimiser, the share of its step, and counts.

    expected: what the last whole step promised to gain. failures: iterations in a row that did not move; lost: that found no finite
    rollout to move to.
    """

    now: Trajectory
    best: Trajectory
    optimizer: Any
    share: Float[Array, ""]
    expected: Float[Array, ""]
    failures: Int[Array, ""]
    lost: Int[Array, ""]
    rollouts: Int[Array, ""]


class Proposal(eqx.Module):
    """What an iteration learned: P inputs to try (under the old gains), new gains, the optimiser, the gain that the whole step
    promises to first order, and whether enough rollouts were finite."""

    inputs: Float[Array, "P T K"]
    gains: Float[Array, "T K M"]
    optimizer: Any
    expected: Float[Array, ""]
    sound: Bool[Array, ""]


def perturbations(key: Any, search: LocalSearch, T: int, K: int) -> Float[Array, "N T K"]:
    """+-sigma with equal chance, (N, T, K)."""
    return _sizes(search, K)[None] * jr.rademacher(key, (search.rollouts, T, K), dtype=float)


@eqx.filter_jit
def propose(
    cost: AbstractCost, search: LocalSearch, weights: Any, standing: Standing, shown: Array, w: Array, low: Array, high: Array
) -> Proposal:
    """What rollouts `shown` (N, T + 1, M) under perturbations w (N, T, K) teach."""
    at = standing.now
    T, M = at.inputs.shape[0], at.states.shape[1]
    kept = jnp.all(jnp.isfinite(shown), axis=(1, 2))
    dx = jnp.where(kept[:, None, None], shown - at.states[None], 0.0)
    fed = at.inputs[None] + jnp.einsum("tkm,ntm->ntk", at.gains, dx[:, :-1])
    w = jnp.clip(fed + w, low[None, None], high[None, None]) - fed  # what was felt of the perturbation inside the limits
    psi = ESTIMATORS[search.estimator](w, dx, kept.astype(w.dtype), search.ridge)
    ts = jnp.arange(T)
    cost_x, cost_u = jax.vmap(jax.grad(cost.stage, argnums=(0, 1)))(at.states[:-1], at.inputs, ts)
    cost_x = jnp.concatenate([cost_x, jax.grad(cost.final)(at.states[-1])[None]])
    slope = gradient = policy_gradient(psi, at.gains, cost_x, cost_u)
    gains = jnp.zeros_like(at.gains)
    if search.gains:
        A, B = locally_linear(psi, at.gains, search.window)
        Q, R, C = curvature(cost, at.states, at.inputs) if search.metric == "cost" else weights
        gains, H = regulator(A, B, Q, R, C, burn_in(M, w.shape[2]))
        gains = _free(search, gains, at.inputs, low, high)
        if search.metric == "cost":
            gradient = -jax.vmap(box_step)(H, gradient, low[None] - at.inputs, high[None] - at.inputs)[0]
    step, optimizer = search.optimizer.update(gradient, standing.optimizer, at.inputs)
    sizes = jnp.concatenate([jnp.ones(1), standing.share * jnp.asarray(search.step_sizes)])
    v = jnp.clip(at.inputs[None] + sizes[:, None, None] * jnp.asarray(step)[None], low[None, None], high[None, None])
    expected, v = -jnp.sum(slope * (v[0] - at.inputs)), v[1:]
    sound = (jnp.sum(kept) >= search.least) & jnp.all(jnp.isfinite(v)) & jnp.all(jnp.isfinite(gains))
    return Proposal(v, gains, optimizer, expected, sound)  # pyright: ignore[reportCallIssue]


@eqx.filter_jit
def move(
    cost: AbstractCost, search: LocalSearch, standing: Standing, proposal: Proposal, shown: Array, low: Array, high: Array
) -> Standing:
    """The cheapest of the rollouts `shown` (P, T + 1, M) of the proposal becomes the trajectory; the new gains are switched to."""
    at, sound = standing.now, proposal.sound
    known = jnp.where(sound, proposal.gains, at.gains)
    here = Trajectory(at.states, at.inputs, known, at.cost)  # pyright: ignore[reportCallIssue]
    best = either(sound & (at.cost <= standing.best.cost), here, standing.best)
    off = shown[:, :-1] - at.states[None, :-1]
    us = jnp.clip(proposal.inputs + jnp.einsum("tkm,ptm->ptk", at.gains, off), low[None, None], high[None, None])
    J = jax.vmap(lambda x, u: _total(cost, x, u))(shown, us)
    J = jnp.where(jnp.isfinite(J) & jnp.all(jnp.isfinite(shown), axis=(1, 2)), J, jnp.inf)
    took = jnp.argmin(J)
    finite = sound & jnp.isfinite(J[took])
    went = finite & (J[took] < at.cost) if search.metric == "cost" else finite
    there = Trajectory(shown[took], us[took], _free(search, proposal.gains, us[took], low, high), J[took])  # pyright: ignore[reportCallIssue]
    return Standing(
        now=either(went, there, here),
        best=best,
        optimizer=either(went, proposal.optimizer, standing.optimizer),
        share=jnp.where(went, jnp.minimum(1.0, 2 * standing.share), jnp.where(sound, 0.5 * standing.share, standing.share)),
        expected=jnp.where(sound, proposal.expected, standing.expected),
        failures=jnp.where(went, 0, standing.failures + 1),
        lost=jnp.where(finite, 0, standing.lost + 1),
        rollouts=standing.rollouts + search.rollouts + len(search.step_sizes) * sound,
    )  # pyright: ignore[reportCallIssue]


def _sizes(search: LocalSearch, K: int) -> Float[Array, "1 K"]:
    return jnp.broadcast_to(jnp.asarray(search.sigma, float), (K,))[None]


def _free(search: LocalSearch, gains: Array, us: Array, low: Array, high: Array) -> Float[Array, "T K M"]:
    """The gains, zero for inputs that a limit holds."""
    margin = _sizes(search, us.shape[1])
    return jnp.where(((us <= low[None] + margin) | (us >= high[None] - margin))[:, :, None], 0.0, gains)


def curvature(cost: AbstractCost, xs: Array, us: Array) -> tuple[Array, Array, Array]:
    """c_xx (T + 1, M, M), c_uu (T, K, K) and c_ux (T, K, M) along a trajectory, with negative eigenvalues of each step raised to zero."""
    M = xs.shape[1]

    def bent(xu: Array, t: Array) -> Array:
        return _raised(jax.hessian(lambda xu: cost.stage(xu[:M], xu[M:], t))(xu))

    stage = jax.vmap(bent)(jnp.concatenate([xs[:-1], us], axis=1), jnp.arange(us.shape[0]))
    final = _raised(jax.hessian(cost.final)(xs[-1]))
    return jnp.concatenate([stage[:, :M, :M], final[None]]), stage[:, M:, M:], stage[:, M:, :M]


def _raised(H: Array) -> Array:
    values, vectors = jnp.linalg.eigh(H)
    return vectors @ (jnp.maximum(values, 1e-9 * jnp.max(jnp.abs(values)))[:, None] * vectors.T)


@eqx.filter_jit
def begun(cost: AbstractCost, search: LocalSearch, shown: Array, us: Array) -> Standing:
    """At the rollout of the first guess, without gains."""
    J = _total(cost, shown, us)
    J = jnp.where(jnp.isfinite(J), J, jnp.inf)
    first = Trajectory(shown, us, jnp.zeros((*us.shape, shown.shape[1])), J)  # pyright: ignore[reportCallIssue]
    failures = jnp.where(jnp.isfinite(J), 0, PATIENCE)
    return Standing(first, first, search.optimizer.init(us), jnp.ones(()), jnp.asarray(jnp.inf), failures, failures, jnp.asarray(1))  # pyright: ignore[reportCallIssue]


def either(chosen: Array, new: Any, old: Any) -> Any:
    """`new` where chosen (), else `old`, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(chosen, a, b), new, old)


def _total(cost: AbstractCost, xs: Array, us: Array) -> Float[Array, ""]:
    return jnp.sum(jax.vmap(cost.stage)(xs[:-1], us, jnp.arange(us.shape[0]))) + cost.final(xs[-1])

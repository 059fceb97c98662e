"""Factorisations for state-dependent Riccati control that a user writes down, or that are learned from data.

    f(x, u) = f* + A(x) (x - goal) + B(x) (u - rest),    f* = 0 for a flow, goal for a map

so that (goal, rest) is an equilibrium and the factorisation is exact for the learned f, both by construction.

    learned    (A(x), B(x)) = (A0, B0) + net((x - goal) / scale),    (A0, B0) by least squares
    loss       mean |(y - f(x, u)) / s|^2 + gauge mean |A(x) - A0|^2 / |A0|^2          y = dx/dt or x[t+1],   s: its size

Many A(x) give the same f; the last term takes a small one. The whole training is one compiled scan.
Source: Richards, Slotine, Azizan, Pavone, Learning control-oriented dynamical structure from data, ICML 2023 (there f, B and A are
networks of their own, tied by a penalty over pairs of states, for tracking of trajectories).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float

from dynsys.control.sdre import AbstractFactored
from dynsys.errors import InvalidValue
from dynsys.precision import x64

FRESH = 0.01  # size of the last layer of a fresh network beside the others
RIDGE = 1e-8  # of the least squares for (A0, B0), relative


class Written(AbstractFactored):
    """By two functions of the user, A(x) (M, M) and B(x) (M, K), about the goal 0 and no input."""

    A: Callable[[Any], Any] = eqx.field(static=True)
    B: Callable[[Any], Any] = eqx.field(static=True)
    n_inputs: int = eqx.field(static=True)
    continuous: bool = eqx.field(static=True)

    def matrices(
        self, x: Float[Array, " M"], goal: Float[Array, " M"], rest: Float[Array, " K"]
    ) -> tuple[Float[Array, "M M"], Float[Array, "M K"]]:
        """A(x - goal) and B(x - goal)."""
        return jnp.asarray(self.A(x - goal), float), jnp.asarray(self.B(x - goal), float)


class Learned(AbstractFactored):
    """A linear part and a network of tanh units; W (l, ...) and b are its weights and offsets."""

    A0: Float[Any, "M M"]
    B0: Float[Any, "M K"]
    W: tuple[Float[Any, "_ _"], ...]
    b: tuple[Float[Any, " _"], ...]
    goal: Float[Any, " M"]
    rest: Float[Any, " K"]
    scale: Float[Any, " M"]
    continuous: bool = eqx.field(static=True)

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """K, the columns of B0."""
        return self.B0.shape[-1]

    def matrices(
        self, x: Float[Array, " M"], goal: Float[Array, " M"], rest: Float[Array, " K"]
    ) -> tuple[Float[Array, "M M"], Float[Array, "M K"]]:
        """A(x) and B(x); the goal is that of the training."""
        y = (x - self.goal) / self.scale
        for W, b in zip(self.W[:-1], self.b[:-1], strict=True):
            y = jnp.tanh(W @ y + b)
        M, K = self.B0.shape
        both = (self.W[-1] @ y + self.b[-1]).reshape(M, M + K)
        return self.A0 + both[:, :M], self.B0 + both[:, M:]

    def check(self, who: str, goal: Float[Array, " M"], rest: Float[Array, " K"]) -> None:
        """Raise InvalidValue for another equilibrium than that of the training: A(x) multiplies the way to that one."""
        if not (np.array_equal(goal, np.asarray(self.goal)) and np.array_equal(rest, np.asarray(self.rest))):
            own, got = ([np.asarray(a).tolist() for a in pair] for pair in ((self.goal, self.rest), (goal, rest)))
            raise InvalidValue(
                f"{who}: this factorisation was learned about goal={own[0]}, rest={own[1]}; got {got[0]} and {got[1]}. Learn another."
            )

    def rate(self, x: Float[Array, " M"], u: Float[Array, " K"]) -> Float[Array, " M"]:
        """f(x, u): dx/dt of a flow, the next state of a map."""
        A, B = self.matrices(x, jnp.asarray(self.goal), jnp.asarray(self.rest))
        moved = A @ (x - self.goal) + B @ (u - self.rest)
        return moved if self.continuous else self.goal + moved


@dataclass(frozen=True)
class Fit:
    """A learned factorisation, the loss along its training (steps,), and the relative error of f on data that were held out."""

    factored: Learned
    losses: Float[np.ndarray, " T"]
    error: float

    @property
    def linear(self) -> tuple[np.ndarray, np.ndarray]:
        """A and B at the goal: the system linearised there, as learned."""
        with x64():
            A, B = self.factored.matrices(*(jnp.asarray(a, float) for a in (self.factored.goal, self.factored.goal, self.factored.rest)))
        return np.asarray(A), np.asarray(B)


def transitions(series: Sequence[Any], inputs: Sequence[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x[t], u[t], x[t+1]) of trajectories [(T_i, M), ...] with inputs [(T_i, K), ...], one under the other."""
    xs, us = [np.asarray(x, float) for x in series], [np.asarray(u, float) for u in inputs]
    return (
        np.concatenate([x[:-1] for x in xs]),
        np.concatenate([u[: len(x) - 1] for x, u in zip(xs, us, strict=True)]),
        np.concatenate([x[1:] for x in xs]),
    )


def learn(
    x: Any,
    u: Any,
    y: Any,
    *,
    goal: Any,
    rest: Any,
    continuous: bool,
    hidden: int = 32,
    depth: int = 2,
    steps: int = 4000,
    batch: int = 256,
    rate: float = 1e-2,
    gauge: float = 1e-3,
    holdout: float = 0.1,
    key: Array,
) -> Fit:
    """From states x (S, M), inputs u (S, K) and y (S, M): derivatives if `continuous`, else next states; (goal, rest) is an equilibrium.

    hidden, depth: of the network; steps, batch, rate: of Adam, whose rate falls to nothing as a cosine; gauge: the weight that prefers
    an A(x) near A0; holdout: the share of the data that is scored and not fitted. Raises InvalidValue for shapes that do not fit,
    numbers that are not finite, or too few data for the linear part.
    """
    x, u, y, goal, rest = (np.asarray(a, float) for a in (x, u, y, goal, rest))
    M, K = goal.shape[-1], rest.shape[-1]
    if x.shape != (len(x), M) or u.shape != (len(x), K) or y.shape != x.shape:
        raise InvalidValue(f"learn: wants x (S, {M}), u (S, {K}), y (S, {M}); got {x.shape}, {u.shape}, {y.shape}.")
    if not all(np.isfinite(a).all() for a in (x, u, y, goal, rest)):
        raise InvalidValue("learn: x, u, y, goal or rest hold NaN or inf. Leave these samples out.")
    if min(hidden, depth, steps, batch) < 1 or not 0 < holdout < 1 or not rate > 0 or gauge < 0:
        raise InvalidValue("learn: hidden, depth, steps, batch must be at least 1, rate positive, gauge not negative, holdout in (0, 1).")
    split, shuffle, start = jr.split(key, 3)
    order = np.asarray(jr.permutation(split, len(x)))
    left = order[round(holdout * len(x)) :]
    if len(left) < M + K or len(left) == len(x):
        raise InvalidValue(f"learn: {len(x)} samples are too few for {M} states and {K} inputs with holdout={holdout}.")
    with x64():
        model = _fresh(x[left], u[left], y[left], goal, rest, continuous, hidden, depth, start)
        data = tuple(jnp.asarray(a[left]) for a in (x, u, y))
        moved = y - (0.0 if continuous else x)
        size = jnp.asarray(np.maximum(moved[left].std(axis=0), 1e-12 + 1e-6 * np.abs(moved).max()))
        model, losses = _train(model, data, size, gauge, rate, steps, min(batch, len(left)), shuffle)
        out = np.setdiff1d(order, left)
        miss = np.asarray(jax.vmap(model.rate)(jnp.asarray(x[out]), jnp.asarray(u[out]))) - y[out]
        error = float(np.sqrt(np.mean((miss / np.asarray(size)) ** 2)))
    return Fit(jax.tree.map(np.asarray, model), np.asarray(losses), error)


def _fresh(x: Any, u: Any, y: Any, goal: Any, rest: Any, continuous: bool, hidden: int, depth: int, key: Array) -> Learned:
    rows = np.concatenate([x - goal, u - rest], axis=1)
    gram = rows.T @ rows
    both = np.linalg.solve(gram + RIDGE * np.trace(gram) * np.eye(len(gram)), rows.T @ (y - (0.0 if continuous else goal)))
    M, K = len(goal), len(rest)
    sizes = [M, *[hidden] * depth, M * (M + K)]
    keys = jr.split(key, len(sizes) - 1)
    W = [jr.normal(k, (after, before)) / before**0.5 for k, before, after in zip(keys, sizes, sizes[1:], strict=False)]
    W[-1] = FRESH * W[-1]
    b = tuple(jnp.zeros(size) for size in sizes[1:])
    scale = np.maximum(np.abs(x - goal).max(axis=0), 1e-12) / 2
    return Learned(*(jnp.asarray(a) for a in (both[:M].T, both[M:].T)), tuple(W), b, *map(jnp.asarray, (goal, rest, scale)), continuous)  # pyright: ignore[reportCallIssue]


@eqx.filter_jit
def _train(model: Learned, data: Any, size: Array, gauge: float, rate: float, steps: int, batch: int, key: Array) -> tuple[Learned, Array]:
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))
    x, u, y = data

    def trained(m: Learned) -> Any:
        return (m.A0, m.B0, m.W, m.b)

    def loss(parts: Any, rows: Array) -> Array:
        made = eqx.tree_at(trained, model, parts)
        A, _ = jax.vmap(lambda z: made.matrices(z, jnp.asarray(made.goal), jnp.asarray(made.rest)))(x[rows])
        miss = (jax.vmap(made.rate)(x[rows], u[rows]) - y[rows]) / size[None, :]
        apart = jnp.mean(jnp.sum((A - made.A0[None]) ** 2, axis=(1, 2))) / jnp.sum(model.A0**2)
        return jnp.mean(miss**2) + gauge * apart

    def update(carry: Any, k: Array) -> Any:
        parts, state = carry
        rows = jr.randint(jr.fold_in(key, k), (batch,), 0, len(x))
        value, slope = jax.value_and_grad(loss)(parts, rows)
        change, state = optimizer.update(slope, state, parts)
        return (optax.apply_updates(parts, change), state), value

    parts = trained(model)
    (parts, _), losses = jax.lax.scan(update, (parts, optimizer.init(parts)), jnp.arange(steps))
    return eqx.tree_at(trained, model, parts), losses

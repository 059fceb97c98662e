"""Imitation of an expert by a network whose Lipschitz constant is at most L, whatever its parameters.

    y[0] = x - centre,   y[l+1] = maxmin(W[l] y[l] + b[l]),   u = offset + L V y
    W'W = I or WW' = I by a Cayley transform,   |V| <= 1,   maxmin sorts neighbouring pairs (p, q) -> (max, min)

No factor stretches a distance, so |pi(x) - pi(x')| <= L |x - x'| in the Euclidean norm: the smaller L, the less a disturbance of the
observation can do, and the worse an expert that is steeper can be followed. `dynsys.control.imitation_bound` says what follows for the
closed loop. Sources: Makdah, Krishnan, Pasqualetti, Learning Lipschitz feedback policies from expert demonstrations, arXiv 2103.16629
(2021); network: Anil, Lucas, Grosse, ICML 2019; Cayley: Trockman & Kolter, ICLR 2021.
"""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float

from dynsys.control.controller import AbstractController
from dynsys.control.ilqr import limits
from dynsys.errors import InvalidValue
from dynsys.precision import x64


class LipschitzPolicy(AbstractController):
    """u = offset + bound V net(x - centre), clipped to the limits (which stretches nothing either)."""

    W: tuple[Float[Any, "_ _"], ...]
    b: tuple[Float[Any, " _"], ...]
    V: Float[Any, "K H"]
    centre: Float[Any, " N"]
    offset: Float[Any, " K"]
    low: Float[Any, " K"]
    high: Float[Any, " K"]
    bound: float

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """N, of the observation."""
        return self.centre.shape[-1]

    def act(self, observation: Any, state: Any = ()) -> tuple[Float[np.ndarray, " K"], Any]:
        """The policy at an observation."""
        return self.inputs(self._checked(observation)[None])[0], state

    def inputs(self, x: Float[np.ndarray, "S N"]) -> Float[np.ndarray, "S K"]:
        """The policy at many observations."""
        y = np.asarray(x, float) - np.asarray(self.centre)
        for W, b in zip(self.W, self.b, strict=True):
            y = (y @ np.asarray(W).T + np.asarray(b)).reshape(len(y), -1, 2)
            y = np.concatenate([y.max(axis=-1), y.min(axis=-1)], axis=1)
        return np.clip(np.asarray(self.offset) + self.bound * y @ np.asarray(self.V).T, np.asarray(self.low), np.asarray(self.high))

    @property
    def lipschitz(self) -> float:
        """An upper bound of the Lipschitz constant: L times the largest singular values of the stored matrices, which are 1 or less."""
        return float(self.bound * np.prod([np.linalg.norm(np.asarray(M, float), 2) for M in (*self.W, self.V)]))


@dataclass(frozen=True)
class Imitation:
    """A policy fitted to demonstrations, with its loss (steps,) and the largest and root-mean-square error |pi(x) - u| on them."""

    policy: LipschitzPolicy
    losses: Float[np.ndarray, " T"]
    error: float
    rms: float


def imitate(
    x: Any,
    u: Any,
    *,
    lipschitz: float,
    low: Any = None,
    high: Any = None,
    hidden: int = 32,
    depth: int = 2,
    steps: int = 3000,
    batch: int = 256,
    rate: float = 1e-2,
    key: Array,
) -> Imitation:
    """Fit to demonstrations: observations x (S, N) and the expert's inputs u (S, K). lipschitz: L, in units of u a unit of x.

    low, high: limits of the inputs. hidden (an even number), depth: of the network; steps, batch, rate: of Adam, whose rate falls to
    nothing as a cosine. Raises InvalidValue for shapes that do not fit, numbers that are not finite, or L that is not positive.
    """
    x, u = np.asarray(x, float), np.asarray(u, float)
    if x.ndim != 2 or u.ndim != 2 or len(x) != len(u) or not len(x):
        raise InvalidValue(f"imitate: wants x (S, N) and u (S, K), got {x.shape} and {u.shape}.")
    if not (np.isfinite(x).all() and np.isfinite(u).all()):
        raise InvalidValue("imitate: the demonstrations hold NaN or inf. Leave these samples out.")
    if not 0 < lipschitz < np.inf:
        raise InvalidValue(f"imitate: lipschitz must be positive and finite, got {lipschitz}: the most that u changes with a unit of x.")
    if hidden < 2 or hidden % 2 or min(depth, steps, batch) < 1 or not rate > 0:
        raise InvalidValue("imitate: hidden must be an even number of at least 2, depth, steps, batch at least 1, and rate positive.")
    with x64():
        centre, offset = x.mean(axis=0), u.mean(axis=0)
        size = max(float(np.abs(x - centre).max()), 1e-12)  # the network sees lengths of about 1
        start, shuffle = jr.split(key)
        sizes = [x.shape[1], *[hidden] * depth]
        keys = jr.split(start, depth + 1)
        raw = tuple(jr.normal(k, (b, a)) for k, a, b in zip(keys, sizes, sizes[1:], strict=False))
        parts = raw, tuple(jnp.zeros(hidden) for _ in raw), jr.normal(keys[-1], (u.shape[1], hidden)) / hidden**0.5
        data = jnp.asarray((x - centre) / size), jnp.asarray((u - offset) / (lipschitz * size))
        (raw, b, V), losses = _train(parts, data, rate, steps, min(batch, len(x)), shuffle)
        W = tuple(_at_most_one(np.asarray(cayley(w))) for w in raw)
        bounds = [np.asarray(limit) for limit in limits("imitate", low, high, u.shape[1])]
        b = tuple(size * np.asarray(offsets) for offsets in b)
        policy = LipschitzPolicy(W, b, _at_most_one(np.asarray(V)), centre, offset, *bounds, float(lipschitz))  # pyright: ignore[reportCallIssue]
    miss = np.linalg.norm(policy.inputs(x) - u, axis=1)
    return Imitation(policy, np.asarray(losses) * (lipschitz * size) ** 2, float(miss.max()), float(np.sqrt(np.mean(miss**2))))


def cayley(raw: Float[Array, "P Q"]) -> Float[Array, "P Q"]:
    """A matrix with orthonormal columns, or rows if there are fewer, by the Cayley transform of any matrix of its shape."""
    if raw.shape[0] < raw.shape[1]:
        return cayley(raw.T).T
    q = raw.shape[1]
    top, rest = raw[:q], raw[q:]
    A, eye = top - top.T + rest.T @ rest, jnp.eye(q, dtype=raw.dtype)
    inverse = jnp.linalg.inv(eye + A)
    return jnp.concatenate([inverse @ (eye - A), -2 * rest @ inverse])


def _at_most_one(M: np.ndarray) -> np.ndarray:
    return M / max(1.0, float(np.linalg.norm(M, 2)))


@eqx.filter_jit
def _train(parts: Any, data: Any, rate: float, steps: int, batch: int, key: Array) -> Any:
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))
    x, u = data

    def loss(parts: Any, rows: Array) -> Array:
        raw, b, V = parts
        y = x[rows]
        for w, offsets in zip(raw, b, strict=True):
            y = (y @ cayley(w).T + offsets[None, :]).reshape(batch, -1, 2)
            y = jnp.concatenate([y.max(axis=-1), y.min(axis=-1)], axis=1)
        norm = jnp.sqrt(jnp.linalg.eigvalsh(V @ V.T)[-1])
        miss = y @ V.T / jnp.maximum(norm, 1.0) - u[rows]
        return jnp.mean(jnp.sum(miss**2, axis=1))

    def update(carry: Any, k: Array) -> Any:
        parts, state = carry
        rows = jr.randint(jr.fold_in(key, k), (batch,), 0, len(x))
        value, slope = jax.value_and_grad(loss)(parts, rows)
        change, state = optimizer.update(slope, state, parts)
        return (optax.apply_updates(parts, change), state), value

    (parts, _), losses = jax.lax.scan(update, (parts, optimizer.init(parts)), jnp.arange(steps))
    return parts, losses

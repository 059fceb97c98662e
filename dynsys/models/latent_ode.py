"""Latent ODE: a whole series, sampled at irregular times and partly missing, as the path of one latent state of a flow.

    encoder   backwards in time:  h <- c + exp(-rate gap) (h - c),   h <- GRU(h, (x * m, m));    (mu, sigma) = read(h)
    latent    z(t0) ~ N(mu, sigma^2),   dz/dt = field(z)        decoder   x(t) ~ N(net(z(t)), noise^2)
    ELBO      sum over observed points log N(x | net(z(t)), noise^2) - KL(N(mu, sigma^2) || N(0, 1))

m is the mask of what was observed. Between two samples the hidden state of the encoder decays towards a rest c, at learnt
rates, for the time that passed; so it knows the gaps without solving an equation of its own. The field is solved forwards once, with
error control, for the whole batch, whose series may all have different times.
Sources: Rubanova, Chen, Duvenaud, NeurIPS 2019; Chen et al., NeurIPS 2018; the decay between samples: Che, Purushotham, Cho, Sontag,
Liu, Scientific Reports 8 (2018) 6085; the GRU: Cho et al., EMNLP 2014.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array, Float

from dynsys.dynamics import AbstractFlow
from dynsys.errors import InvalidValue
from dynsys.integrate.differentiable import solve_batch
from dynsys.models.base import check_sizes
from dynsys.models.fields import MLPField
from dynsys.status import Status

LEAD = 1e-3  # units of time


class Encoder(eqx.Module):
    """A gated recurrent unit over (x * m, m), whose hidden state (H,) decays between the samples."""

    W: Float[Any, "G F"]
    U: Float[Any, "G H"]
    b: Float[Any, " G"]
    rate: Float[Any, " H"]
    rest: Float[Any, " H"]
    R: Float[Any, "L H"]
    r: Float[Any, " L"]

    @classmethod
    def init(cls, n_obs: int, latent: int, hidden: int, *, key: Array) -> "Encoder":
        """Random weights; the rates begin at softplus(-2) = 0.13 a unit of time."""
        keys = jr.split(key, 3)
        return cls(
            W=jr.normal(keys[0], (3 * hidden, 2 * n_obs)) / (2 * n_obs) ** 0.5,
            U=jr.normal(keys[1], (3 * hidden, hidden)) / hidden**0.5,
            b=jnp.zeros(3 * hidden),
            rate=jnp.full((hidden,), -2.0),
            rest=jnp.zeros(hidden),
            R=0.1 * jr.normal(keys[2], (2 * latent, hidden)) / hidden**0.5,
            r=jnp.concatenate([jnp.zeros(latent), jnp.full((latent,), -2.0)]),
        )

    def __call__(self, xs: Float[Any, "T N"], seen: Any, times: Float[Any, " T"]) -> tuple[Array, Array]:
        """Mean and standard deviation of the latent state at times[0], (L,) each; `seen` (T, N) tells what was observed."""
        gaps = jnp.append(times[1:] - times[:-1], 0.0)  # what lies between a sample and the one that is read before it

        def read(h: Array, now: Any) -> tuple[Array, None]:
            x, m, gap = now
            h = self.rest + (h - self.rest) * jnp.exp(-jax.nn.softplus(self.rate) * gap)
            wx, uh = jnp.split(self.W @ jnp.concatenate([x, m]) + self.b, 3), jnp.split(self.U @ h, 3)
            reset, keep = jax.nn.sigmoid(wx[0] + uh[0]), jax.nn.sigmoid(wx[1] + uh[1])
            new = keep * h + (1 - keep) * jnp.tanh(wx[2] + reset * uh[2])
            return jnp.where(jnp.any(m > 0), new, h), None

        masks = jnp.asarray(seen, xs.dtype)
        h = jax.lax.scan(read, jnp.zeros_like(self.rest), (xs * masks, masks, gaps), reverse=True)[0]
        mean, size = jnp.split(self.R @ h + self.r, 2)
        return mean, jax.nn.softplus(size) + 1e-4


class LatentODE(eqx.Module):
    """A recognition network, a latent flow and a decoder; all methods take a batch of series.

    Arrays are (B, T, N) with NaN for what is missing, times are (T,) or (B, T), in the unit that the field is to have (choose it so
    that a series lasts a few units). `noise` is the standard deviation of the observations that the ELBO assumes.
    """

    encoder: Encoder
    flow: AbstractFlow
    V: tuple[Float[Any, "_ _"], ...]
    c: tuple[Float[Any, " _"], ...]
    noise: float = eqx.field(static=True, default=0.05)
    rtol: float = eqx.field(static=True, default=1e-3)
    max_steps: int = eqx.field(static=True, default=256)

    @classmethod
    def init(cls, n_obs: int, *, latent: int = 6, hidden: int = 32, units: int = 32, noise: float = 0.05, key: Array) -> "LatentODE":
        """Random parameters: `latent` states L, `hidden` units H of the encoder, `units` of the field and of the decoder."""
        check_sizes("LatentODE", n_obs=n_obs, latent=latent, hidden=hidden, units=units)
        if not noise > 0:
            raise InvalidValue(f"LatentODE: noise must be positive, got {noise}: the standard deviation of the observations.")
        keys = jr.split(key, 4)
        V = (jr.normal(keys[2], (units, latent)) / latent**0.5, jr.normal(keys[3], (n_obs, units)) / units**0.5)
        return cls(
            encoder=Encoder.init(n_obs, latent, hidden, key=keys[0]),
            flow=MLPField.init(latent, hidden=units, scale=0.5, key=keys[1]),
            V=V,
            c=(jnp.zeros(units), jnp.zeros(n_obs)),
            noise=noise,
        )

    def encode(self, xs: Any, times: Any) -> tuple[Float[Array, "B L"], Float[Array, "B L"]]:
        """Mean and standard deviation of the latent state at the first time of every series."""
        xs, times = _batch(self, xs, times)
        seen = jnp.isfinite(xs)
        return jax.vmap(self.encoder, (0, 0, 0 if times.ndim == 2 else None))(jnp.where(seen, xs, 0.0), seen, times)

    def decode(self, zs: Float[Array, "*any L"]) -> Float[Array, "*any N"]:
        """The observations of latent states."""
        return jnp.tanh(zs @ self.V[0].T + _row(self.c[0], zs)) @ self.V[1].T + _row(self.c[1], zs)

    def reconstruct(self, xs: Any, times: Any) -> Float[Array, "B T N"]:
        """What the model holds for the truth at the times of the data, from the mean latent state."""
        return self.extrapolate(xs, times, times)

    def extrapolate(self, xs: Any, times: Any, wanted: Any) -> Float[Array, "B S N"]:
        """The series at other times (S,) or (B, S), increasing, none before the first time of the data; NaN where the solve failed."""
        xs, times = _batch(self, xs, times)
        wanted = jnp.asarray(wanted, xs.dtype)
        if times.ndim != wanted.ndim:  # all lanes then have times of their own
            times, wanted = (jnp.broadcast_to(t, (len(xs), t.shape[-1])) for t in (times, wanted))
        return self.decode(self._path(self.encode(xs, times)[0], times, wanted))

    def _path(self, z0: Array, times: Array, wanted: Array) -> Array:
        """Latent states (B, S, L) at `wanted`; z0 stands LEAD before the first of `times`, so that the solver's times increase."""
        clock = jnp.concatenate([times[..., :1] - LEAD, wanted], axis=-1)
        return solve_batch(self.flow, z0, clock, rtol=self.rtol, atol=self.rtol, max_steps=self.max_steps).states[:, 1:]

    def elbo(self, xs: Any, times: Any, *, weight: Any = 1.0, key: Array) -> Float[Array, ""]:
        """The evidence lower bound a series (mean over the batch), with `weight` on the KL term, from one draw of the latent state."""
        xs, times = _batch(self, xs, times)
        mean, size = self.encode(xs, times)
        z0 = mean + size * jr.normal(key, mean.shape, mean.dtype)
        made = self.decode(self._path(z0, times, times))
        seen = jnp.isfinite(xs)
        off = jnp.where(seen, made - jnp.where(seen, xs, 0.0), 0.0) / self.noise
        each = jnp.where(seen, -0.5 * off**2 - np.log(self.noise) - 0.5 * np.log(2 * np.pi), 0.0)
        divergence = jnp.sum(0.5 * (mean**2 + size**2 - 1.0) - jnp.log(size), axis=-1)
        return jnp.mean(jnp.sum(each, axis=(1, 2)) - weight * divergence)


class LatentFit(eqx.Module):
    """The trained model, and the ELBO at every update."""

    model: LatentODE
    elbos: Float[Array, " steps"]
    status: Status = eqx.field(static=True)


def fit_latent_ode(
    model: LatentODE,
    xs: Any,
    times: Any,
    *,
    steps: int = 2000,
    batch: int = 32,
    optimizer: optax.GradientTransformation | None = None,
    anneal: int | None = None,
    key: Array,
) -> LatentFit:
    """Maximise the ELBO over random batches of series, all updates in one compiled loop.

    xs (B, T, N), NaN where missing; times (T,) or (B, T), increasing. optimizer: default Adam at 1e-2 falling to a tenth, gradients clipped
    at norm 1. anneal: updates over which the weight of the KL term rises from 0 to 1 (default: half of them).
    Raises InvalidValue for shapes that don't fit; updates without a finite gradient change nothing, and NOT_FINITE_LOSS says so.
    """
    xs, times = _batch(model, xs, times)
    rate = optax.exponential_decay(1e-2, steps, 0.1)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)) if optimizer is None else optimizer
    rise = max(1, steps // 2 if anneal is None else anneal)
    trained, elbos, good = _run(model, xs, times, optimizer, min(batch, len(xs)), rise, jr.split(key, steps))
    late = np.asarray(good)[-max(1, steps // 10) :]
    return LatentFit(trained, elbos, Status.SUCCESS if np.mean(late) > 0.5 else Status.NOT_FINITE_LOSS)  # pyright: ignore[reportCallIssue]


@eqx.filter_jit
def _run(model: Any, xs: Array, times: Array, optimizer: Any, batch: int, rise: int, keys: Array) -> Any:
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def update(state: Any, now: Any) -> Any:
        params, opt_state = state
        number, key = now
        pick, draw = jr.split(key)
        chosen = jr.permutation(pick, len(xs))[:batch]

        def objective(params: Any) -> Array:
            own = times if times.ndim == 1 else times[chosen]
            weight = jnp.minimum(1.0, number / rise)
            return -eqx.combine(params, static).elbo(xs[chosen], own, weight=weight, key=draw)

        loss, grads = jax.value_and_grad(objective)(params)
        good = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads))
        moves, after = optimizer.update(grads, opt_state, params)
        state = jax.tree.map(lambda new, old: jnp.where(good, new, old), (eqx.apply_updates(params, moves), after), state)
        return state, (-loss, good)

    numbers = jnp.arange(len(keys), dtype=xs.dtype)
    (params, _), (elbos, good) = jax.lax.scan(update, (params, optimizer.init(params)), (numbers, keys))
    return eqx.combine(params, static), elbos, good


def _batch(model: LatentODE, xs: Any, times: Any) -> tuple[Array, Array]:
    dtype = model.encoder.W.dtype
    xs, times = jnp.asarray(xs, dtype), jnp.asarray(times, dtype)
    n_obs = model.V[-1].shape[0]
    if xs.ndim != 3 or xs.shape[-1] != n_obs or times.shape not in (xs.shape[1:2], xs.shape[:2]):
        raise InvalidValue(
            f"LatentODE: series must have shape (B, T, N) with N={n_obs} and times (T,) or (B, T), got {xs.shape} and {times.shape}."
        )
    if not isinstance(times, Tracer):
        clock = np.asarray(jnp.concatenate([times[..., :1] - LEAD, times], axis=-1))
        if not np.all(np.diff(clock, axis=-1) > 0):
            raise InvalidValue(
                f"LatentODE: times must increase, also in the model's precision ({dtype}), got {clock[..., 1:3].ravel()[:2]}, ... "
                "Count them from the start of the series, in a unit of which it lasts a few."
            )
    return xs, times


def _row(b: Array, like: Array) -> Array:
    return b[(None,) * (like.ndim - 1)]

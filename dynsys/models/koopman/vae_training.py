"""Training a Koopman VAE: the evidence lower bound, the linearity of the prior's draws, and where the eigenvalues of A may lie.

    loss = -ELBO / (T N) + alpha mean |z[t+1] - A z[t]|^2 / mean |z|^2 + gamma penalty(A),    A by least squares over the same draws

    penalty = sum over the `unit` largest (|lambda| - 1)^2 + sum over the others max(|lambda| - 1, 0)^2

The second term is relative to the size of the draws, so that nothing is gained by small ones.
Source: Naiman, Erichson, Ren, Mahoney, Azencot, ICLR 2024 (arXiv 2310.02619), sec. 4.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float

from dynsys.errors import InvalidValue
from dynsys.models.koopman.vae import KoopmanVAE, gaps_of
from dynsys.models.regressed import checked_options
from dynsys.status import Status

RIDGE = 1e-5  # of the least squares for A, relative to the mean square of the draws
CLIP = 1.0  # the largest norm of a gradient
CHUNK = 250  # updates in one compiled call
DECAY = 0.05  # the learning rate at the end, as a share of that at the start
RISE = 0.2  # of the updates, over which the weight of the KL rises from 0 to beta
DRAWN_FROM = 5000  # series, at most, from which the distribution of the start is estimated
LEAST_START = 1e-6  # variance of it in any direction
DRAWS = 1000  # sequences of the prior to which the model's own A is fitted


class KoopmanVAEFit(eqx.Module):
    """The trained model, and at every update the ELBO a series (nats) and the share of the draws' size that A leaves unexplained."""

    model: KoopmanVAE
    elbos: Float[np.ndarray, " steps"]
    unexplained: Float[np.ndarray, " steps"]
    status: Status = eqx.field(static=True)


def likelihood(model: KoopmanVAE, xs: Float[Array, "T N"], zs: Float[Array, "T L"]) -> Float[Array, ""]:
    """ln N(x | decode(z), noise^2), summed over what was seen of a standardised series, in the standardised units."""
    noise = (model.noise / model.scale)[None, :]
    seen = jnp.isfinite(xs)
    made = (jax.vmap(model.decode)(zs) - model.mean[None, :]) / model.scale[None, :]
    off = jnp.where(seen, made - jnp.where(seen, xs, 0.0), 0.0) / noise
    return jnp.sum(jnp.where(seen, -0.5 * off**2 - jnp.log(noise) - 0.5 * np.log(2 * np.pi), 0.0))


def linear_map(zs: Float[Array, "B T L"]) -> Float[Array, "L L"]:
    """A = argmin sum |z[t+1] - A z[t]|^2 + ridge |A|^2 over sequences."""
    before, after = (z.reshape(-1, zs.shape[-1]) for z in (zs[:, :-1], zs[:, 1:]))
    G = before.T @ before / len(before)
    ridge = RIDGE * jnp.trace(G) / len(G)
    return jnp.linalg.solve(G + ridge * jnp.eye(len(G), dtype=G.dtype), before.T @ after / len(before)).T


def prediction_loss(A: Float[Array, "L L"], zs: Float[Array, "B T L"]) -> Float[Array, ""]:
    """mean |z[t+1] - A z[t]|^2 / mean |z|^2."""
    return jnp.mean((zs[:, 1:] - zs[:, :-1] @ A.T) ** 2) / jnp.mean(zs**2)


def circle_penalty(A: Float[Array, "L L"], unit: int) -> Float[Array, ""]:
    """The `unit` eigenvalues of largest modulus are drawn onto the unit circle, the others into it."""
    values = jnp.linalg.eigvals(A)
    moduli = jnp.sort(jnp.sqrt(values.real**2 + values.imag**2 + jnp.finfo(A.dtype).eps ** 2), descending=True)
    return jnp.sum((moduli[:unit] - 1.0) ** 2) + jnp.sum(jnp.maximum(moduli[unit:] - 1.0, 0.0) ** 2)


def fit_koopman_vae(
    model: KoopmanVAE,
    xs: Any,
    times: Any = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    gamma: float = 0.0,
    unit: int = 0,
    steps: int = 3000,
    batch: int = 32,
    learning_rate: float = 1e-2,
    key: Array,
) -> KoopmanVAEFit:
    """Train on series xs (B, T, N), NaN where missing, in the precision of the model; hundreds of updates in each compiled call.

    times: (T,) or (B, T), increasing, in sampling intervals; None: 1 apart. alpha: weight of the prior's linearity. beta: of the KL, in
    full after a fifth of the updates. gamma: of the eigenvalue penalty, `unit` of them going onto the circle. learning_rate: of Adam, at
    the start; it falls exponentially to a twentieth. Updates without a finite gradient change nothing; if they are most of the last tenth,
    the status is NOT_FINITE_LOSS. Raises InvalidValue for shapes or settings that can't be.
    """
    who, dtype = "fit_koopman_vae", model.A.dtype
    checked_options(who, least={"steps": 1, "batch": 1, "unit": 0}, steps=steps, batch=batch, unit=unit)
    checked_options(who, alpha=alpha, beta=beta, gamma=gamma, learning_rate=learning_rate)
    xs = jnp.asarray(xs, dtype)
    if xs.ndim != 3 or xs.shape[-1] != model.n_obs or xs.shape[1] < 2:
        raise InvalidValue(f"{who}: series must have shape (B, T, N) with T >= 2 and N={model.n_obs}, got {xs.shape}.")
    if unit > model.n_latent:
        raise InvalidValue(f"{who}: unit={unit} eigenvalues can't lie on the circle, A has {model.n_latent}.")
    xs = (xs - model.mean[None, None, :]) / model.scale[None, None, :]
    gaps = gaps_of(times, xs.shape[:2], dtype)
    params, static = eqx.partition(model, _trained(model))
    state = params, optax.scale_by_adam().init(params)
    chunks = -(-steps // CHUNK)
    chunk = -(-steps // chunks)  # all chunks have one length and so one compilation; the last may end in updates of no size
    rates = np.append(learning_rate * DECAY ** (np.arange(steps) / max(1, steps - 1)), np.zeros(chunks * chunk - steps))
    betas = beta * np.minimum(1.0, (np.arange(len(rates)) + 1) / max(1.0, RISE * steps))
    keys, told, weights = jr.split(key, len(rates) + 1), [], jnp.asarray([alpha, gamma], dtype)
    for a in range(0, steps, chunk):
        now = jnp.asarray(rates[a : a + chunk], dtype), jnp.asarray(betas[a : a + chunk], dtype), keys[a : a + chunk]
        state, values = _updates(state, static, xs, gaps, now, weights, unit if gamma > 0 else None, min(batch, len(xs)))
        told.append(np.asarray(values))
    elbos, unexplained = np.concatenate(told, axis=1)[:, :steps].astype(float)
    start, draws = jr.split(keys[-1])
    trained = own_map(own_start(eqx.combine(state[0], static), xs[:DRAWN_FROM], gaps[:DRAWN_FROM], start), xs.shape[1], draws)
    good = np.isfinite(elbos[-max(1, steps // 10) :]).mean() > 0.5
    return KoopmanVAEFit(trained, elbos, unexplained, Status.SUCCESS if good else Status.NOT_FINITE_LOSS)  # pyright: ignore[reportCallIssue]


def own_start(model: KoopmanVAE, xs: Float[Array, "B T N"], gaps: Float[Array, "B T"], key: Array) -> KoopmanVAE:
    """The model whose sequences begin with the moments that posterior draws of a have over standardised series.

    Among normal distributions these make the bound largest. As it was, if they are not finite.
    """
    a = np.asarray(_starts(model, xs, gaps, jr.normal(key, (len(xs), model.n_latent), xs.dtype)), float)
    if not np.isfinite(a).all() or len(a) < 2:
        return model
    root = np.linalg.cholesky(np.cov(a.T).reshape(a.shape[1], -1) + LEAST_START * np.eye(a.shape[1]))
    moments = jnp.asarray(a.mean(axis=0), model.A.dtype), jnp.asarray(root, model.A.dtype)
    return eqx.tree_at(lambda m: (m.start_mean, m.start_root), model, moments)


@eqx.filter_jit
def _starts(model: KoopmanVAE, xs: Array, gaps: Array, normals: Array) -> Array:
    def one(xs: Array, gaps: Array, normal: Array) -> Array:
        e = model.states(xs, gaps)[0]
        a, b = model.correction(jnp.zeros(model.prior.n_state, e.dtype), e)
        return a + b * normal

    return jax.vmap(one)(xs, gaps, normals)


def own_map(model: KoopmanVAE, length: int, key: Array) -> KoopmanVAE:
    """The model with A fitted in float64 to DRAWS sequences of its prior; as it was, if these are not finite."""
    zs = np.asarray(_drawn(model, jr.normal(key, (DRAWS, length, model.n_latent), model.A.dtype)), float)
    if not np.isfinite(zs).all():
        return model
    before, after = (z.reshape(-1, zs.shape[-1]) for z in (zs[:, :-1], zs[:, 1:]))
    A = np.linalg.lstsq(before, after, rcond=None)[0].T
    return eqx.tree_at(lambda m: m.A, model, jnp.asarray(A, model.A.dtype))


@eqx.filter_jit
def _drawn(model: KoopmanVAE, normals: Array) -> Array:
    return jax.vmap(model.draw)(normals, jnp.ones(normals.shape[:2], normals.dtype))


def _trained(model: KoopmanVAE) -> Any:
    """Which leaves are trained: all but A and the moments of the start, which are fitted, and the columns' mean and scale."""
    every = jax.tree.map(eqx.is_inexact_array, model)
    return eqx.tree_at(lambda m: (m.A, m.mean, m.scale, m.start_mean, m.start_root), every, (False,) * 5)


@eqx.filter_jit
def _updates(state: Any, static: Any, xs: Array, gaps: Array, now: Any, weights: Array, unit: int | None, batch: int) -> Any:
    length, n_obs = xs.shape[1:]
    clip = optax.clip_by_global_norm(CLIP)

    def update(state: Any, now: Any) -> Any:
        params, moments = state
        rate, beta, key = now
        pick, draws = jr.split(key)
        chosen = jr.randint(pick, (batch,), 0, len(xs))
        normals = jr.normal(draws, (2 * batch, length, static.n_latent), xs.dtype)
        free = jnp.arange(2 * batch) >= batch  # the second half are draws of the prior
        clock = jnp.concatenate([gaps[chosen], jnp.ones((batch, length), xs.dtype)])

        def loss(params: Any) -> Any:
            model = eqx.combine(params, static)
            es = jax.vmap(model.states)(xs[chosen], gaps[chosen])
            zs, kl = jax.vmap(model.path)(jnp.concatenate([es, jnp.zeros_like(es)]), normals, clock, free)
            fit, kl = jnp.mean(jax.vmap(likelihood, (None, 0, 0))(model, xs[chosen], zs[:batch])), jnp.sum(kl) / batch
            made = zs[batch:]
            A = linear_map(made)
            off = prediction_loss(A, made)
            total = (beta * kl - fit) / (length * n_obs) + weights[0] * off
            return total if unit is None else total + weights[1] * circle_penalty(A, unit), jnp.stack([fit - kl, off])

        (value, told), grads = jax.value_and_grad(loss, has_aux=True)(params)
        good = jnp.isfinite(value) & jnp.isfinite(optax.tree.norm(grads))
        grads = clip.update(grads, clip.init(params))[0]
        moves, after = optax.scale_by_adam().update(grads, moments)
        moved = jax.tree.map(lambda p, m: p - rate * m, params, moves)
        kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), (moved, after), state)
        return kept, jnp.where(good, told, jnp.nan)

    state, told = jax.lax.scan(update, state, now)
    return state, told.T

"""Koopman VAE: a generator of time series whose latent sequence is drawn to be linear, z[t+1] ~ A z[t].

    prior      z[1] = g(a), a ~ N(0, 1),   h[t] = GRU(h[t-1], z[t-1]),   z[t] | z[<t] ~ N(z[t-1] + R h[t] + r, s(h[t])^2)
    encoder    e[t] = GRU backwards over what was observed at t, t+1, ...
    posterior  z[t] | z[<t], x ~ N(mu + s a, (s b)^2),   mu, s the prior's (at t = 1: z = g of N(a, b^2)),   (a, b) = Q h[t] + U e[t] + q
    decoder    x[t] ~ N(net(z[t]), noise^2)

    ELBO       sum over observed x of ln N(x | net(z[t]), noise^2) - beta sum_t KL[t],    KL[t] = sum (a^2 + b^2 - 1) / 2 - ln b
    A          argmin sum |z[t+1] - A z[t]|^2 over draws of the prior

A is differentiated through in training, whose loss asks that the draws obey it (`dynsys.models.koopman.vae_training`), and fitted anew in
float64 at the end. Then, too, the distribution of a at t = 1, standard normal in training, is replaced by the best normal one, with the
moments that a has over the data. As a map the model is y[t+1] = A y[t]; `generate` draws from the prior.

Differences from the paper: the posterior is conditioned on its own past and the KL is that of the conditionals (the paper's posterior is
independent in time, and its KL is taken beside an independent draw of the prior); the decoder sees one z at a time; gaps enter the
recurrent units as an input, where the paper has a neural controlled equation; `noise` is learned.
Sources: Naiman, Erichson, Ren, Mahoney, Azencot, ICLR 2024 (arXiv 2310.02619); the conditional posterior: Fraccaro, Sonderby, Paquet,
Winther, NeurIPS 2016.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Array, Float

from dynsys.dynamics import AnyInput, AnyObservation
from dynsys.errors import InvalidValue
from dynsys.models.arrays import zeros
from dynsys.models.base import check_sizes, matvec
from dynsys.models.gated import GRU
from dynsys.models.gates import sigmoid, softplus
from dynsys.models.koopman.candidate import within_circle
from dynsys.models.koopman.lifted import AbstractLinear, check_period
from dynsys.models.koopman.network import Offsets, Weights, network, random_network
from dynsys.models.regressed import Regressed, checked_options, checked_series, generator, moments

LEAST = 1e-3  # standard deviation of the prior's step
LEAST_NOISE = 1e-2  # of the observations, in standard deviations of the columns
MOST_WINDOWS = 20_000  # that a model is trained on; of more, evenly spread ones
FEWEST_STEPS, MOST_STEPS, EPOCHS = 300, 3000, 30  # updates by default: so many passes over the windows, within limits


class KoopmanVAE(Regressed, AbstractLinear):  # pyright: ignore[reportIncompatibleVariableOverride]
    """A generator of series whose latent sequence has a linear prior.

    L latent components; encoder and prior have H hidden units each. `mean` and `scale` of the columns are those of the data.
    """

    encoder: GRU
    prior: GRU
    start_W: Weights
    start_b: Offsets
    start_mean: Float[Any, " L"]
    start_root: Float[Any, "L L"]
    R: Float[Any, "G H"]
    r: Float[Any, " G"]
    Q: Float[Any, "G H"]
    U: Float[Any, "G E"]
    q: Float[Any, " G"]
    decoder_W: Weights
    decoder_b: Offsets
    size: Float[Any, " N"]
    A: Float[Any, "L L"]
    mean: Float[Any, " N"]
    scale: Float[Any, " N"]
    delays: int = eqx.field(static=True, default=1)
    reencode: int = eqx.field(static=True, default=0)

    random: ClassVar[bool] = True
    trains: ClassVar[bool] = True

    def __check_init__(self):
        check_sizes("KoopmanVAE", delays=self.delays)
        check_period("KoopmanVAE", self.reencode)

    @classmethod
    def init(
        cls,
        n_obs: int,
        *,
        latent: int = 16,
        hidden: int = 32,
        mean: Any = None,
        scale: Any = None,
        delays: int = 1,
        reencode: int = 0,
        key: Array,
    ) -> "KoopmanVAE":
        """Random parameters for N columns: L = `latent`, H = `hidden` units of each network.

        mean, scale (N,): of the data's columns (default 0 and 1). delays: how many points `encode` reads. Raises InvalidValue for sizes
        that can't be.
        """
        check_sizes("KoopmanVAE", n_obs=n_obs, latent=latent, hidden=hidden)
        keys = jr.split(key, 7)
        W, b = random_network([latent, hidden, n_obs], key=keys[4])
        start_W, start_b = random_network([latent, hidden, latent], key=keys[6])
        return cls(
            encoder=GRU.init(2 * n_obs, hidden, key=keys[0]),
            prior=GRU.init(latent, hidden, key=keys[1]),
            start_W=start_W,
            start_b=start_b,
            start_mean=jnp.zeros(latent),
            start_root=jnp.eye(latent),
            R=0.1 * jr.normal(keys[2], (2 * latent, hidden)) / hidden**0.5,
            r=jnp.concatenate([jnp.zeros(latent), jnp.full(latent, -2.0)]),
            Q=0.1 * jr.normal(keys[3], (2 * latent, hidden)) / hidden**0.5,
            U=0.1 * jr.normal(keys[5], (2 * latent, hidden)) / hidden**0.5,
            q=jnp.concatenate([jnp.zeros(latent), jnp.full(latent, 2.0)]),
            decoder_W=W,
            decoder_b=b,
            size=jnp.full(n_obs, -1.0),
            A=jnp.eye(latent),
            mean=jnp.zeros(n_obs) if mean is None else jnp.asarray(mean, float),
            scale=jnp.ones(n_obs) if scale is None else jnp.asarray(scale, float),
            delays=delays,
            reencode=reencode,
        )  # pyright: ignore[reportCallIssue]

    @classmethod
    def from_series(
        cls,
        series: Sequence[Any],
        *,
        length: int = 24,
        latent: int = 16,
        hidden: int = 32,
        alpha: float = 1.0,
        beta: float = 1.0,
        gamma: float = 0.0,
        unit: int = 0,
        steps: int | None = None,
        batch: int = 32,
        learning_rate: float = 1e-2,
        stable: bool = False,
        delays: int = 1,
        reencode: int = 0,
        key: Any = None,
    ) -> "KoopmanVAE":
        """Train on all windows of `length` points of trajectories [(T_i, N), ...] (or of as many as the longest has).

        latent, hidden: L and H. alpha, beta, gamma, unit, batch, learning_rate: see `dynsys.models.koopman.vae_training.fit_koopman_vae`.
        steps: updates; None: 30 passes over the windows, at least 300 and at most 3,000. stable: eigenvalues of A beyond the
        unit circle are moved onto it. delays: points that are encoded. reencode: steps between two encodings in a run, 0: none. Raises
        InvalidValue for settings or data that can't be used.
        """
        from dynsys.models.koopman.vae_training import fit_koopman_vae

        who = cls.__name__
        whole = {"length": length, "latent": latent, "hidden": hidden, "batch": batch, "delays": delays, "steps": steps, "unit": unit}
        checked_options(who, least={**dict.fromkeys(whole, 1), "length": 2, "unit": 0}, **whole)
        long = checked_series(who, series)
        length = min(length, max(len(x) for x in long))
        cut = windows_of(long, length)
        mean, scale = moments(long)
        random, train = jr.split(jr.key(int(generator(key).integers(2**31))))
        fresh = eqx.filter_jit(cls.init)  # one compilation for all of its small operations
        model = fresh(len(mean), latent=latent, hidden=hidden, mean=mean, scale=scale, delays=delays, reencode=reencode, key=random)
        model = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), model)
        updates = min(MOST_STEPS, max(FEWEST_STEPS, EPOCHS * len(cut) // batch)) if steps is None else steps
        weights = {"alpha": alpha, "beta": beta, "gamma": gamma, "unit": unit}
        found = fit_koopman_vae(model, cut, steps=updates, batch=batch, learning_rate=learning_rate, **weights, key=train)
        if not found.status.ok:
            raise InvalidValue(f"{who}: the training did not stay finite. Try a lower learning_rate.")
        model = jax.tree.map(lambda a: np.asarray(a, float), found.model)
        return eqx.tree_at(lambda m: m.A, model, within_circle(model.A)) if stable else model

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """N, the number of observed components."""
        return self.mean.shape[-1]

    @property
    def n_latent(self) -> int:
        """L."""
        return self.A.shape[-1]

    @property
    def matrix(self) -> Float[Any, "L L"]:
        """A."""
        return self.A

    @property
    def noise(self) -> Float[Any, " N"]:
        """Standard deviations of the observations around the decoded latent state, in the units of the data."""
        return self.scale * (softplus(self.size) + LEAST_NOISE)

    def follow(self, h: Any, z: Any, gap: Any) -> tuple[Any, Any, Any]:
        """The prior after the latent state z: its new hidden state (H,), and the mean and standard deviation (L,) of the next one."""
        h = self.prior.step(h, z, gap)
        told = matvec(self.R, h) + self.r
        return h, z + told[: self.n_latent], softplus(told[self.n_latent :]) + LEAST

    def begin(self, a: Any) -> Any:
        """g(a) = a + net(a): the first latent state, standard normal numbers made into another distribution, (L,) -> (L,)."""
        return a + network(self.start_W, self.start_b, a, "tanh")

    def correction(self, h: Any, e: Any) -> tuple[Any, Any]:
        """How the posterior moves and narrows the prior, in its standard deviations: a (L,) and b (L,), 0 < b < 1."""
        return self._correction(matvec(self.Q, h), matvec(self.U, e) + self.q)

    def _correction(self, from_prior: Any, from_data: Any) -> tuple[Any, Any]:
        told = from_prior + from_data
        return told[: self.n_latent], sigmoid(told[self.n_latent :])

    def read(self, h: Any, x: Any, seen: Any, gap: Any) -> Any:
        """The encoder's hidden state after a standardised point, `gap` before the one read last; x is 0 where `seen` is."""
        return self.encoder.step(h, array_namespace(x).concat([x, seen]), gap)

    def encode(self, w: Float[Any, " DN"]) -> Float[Any, " L"]:
        """The posterior's mean at the newest of D points, each the mean given those before, (D N,) -> (L,)."""
        n, e, read = self.n_obs, zeros(self.encoder.n_state, like=w), []
        for d in range(self.delays):  # newest first
            x = (w[d * n : (d + 1) * n] - self.mean) / self.scale
            e = self.read(e, x, array_namespace(x).ones_like(x), 1.0 if d else 0.0)
            read.append(e)
        h = zeros(self.prior.n_state, like=w)
        z = self.begin(self.correction(h, read[-1])[0])
        for e in reversed(read[:-1]):
            h, mu, s = self.follow(h, z, 1.0)
            z = mu + s * self.correction(h, e)[0]
        return z

    def decode(self, y: Float[Any, " L"]) -> AnyObservation:
        """mean + scale net(y), (L,) -> (N,)."""
        return self.mean + self.scale * network(self.decoder_W, self.decoder_b, y, "tanh")

    def advance(self, y: Float[Any, " L"], u: AnyInput = None) -> Float[Any, " L"]:
        """A y."""
        return matvec(self.A, y)

    def states(self, xs: Float[Array, "T N"], gaps: Float[Array, " T"]) -> Float[Array, "T H"]:
        """The encoder's hidden states e along a standardised series, NaN where nothing was seen, read backwards.

        A point of which nothing was seen is not read; the next one is told the whole gap.
        """
        masks = jnp.asarray(jnp.isfinite(xs), xs.dtype)
        drives = jax.vmap(self.encoder.drive)(jnp.concatenate([jnp.where(masks > 0, xs, 0.0), masks], axis=1))

        def back(state: Any, now: Any) -> Any:
            e, waited = state
            drive, some, gap = now
            waited = waited + gap
            e = jnp.where(some, self.encoder.advance(e, drive, waited), e)
            return (e, jnp.where(some, 0.0, waited)), e

        start = jnp.zeros(self.encoder.n_state, xs.dtype), jnp.zeros((), xs.dtype)
        return jax.lax.scan(back, start, (drives, jnp.any(masks > 0, axis=1), jnp.append(gaps[1:], 0.0)), reverse=True)[1]

    def path(self, es: Float[Array, "T H"], normals: Float[Array, "T L"], gaps: Float[Array, " T"], free: Any) -> tuple[Array, Array]:
        """A latent sequence (T, L) from standard normal numbers, and KL[t] (T,): of the posterior, or of the prior where `free` is true."""
        told = es @ self.U.T + self.q[None, :]

        def corrected(from_prior: Any, from_data: Any) -> tuple[Array, Array]:
            a, b = self._correction(from_prior, from_data)
            return jnp.where(free, 0.0, a), jnp.where(free, 1.0, b)

        def step(state: Any, now: Any) -> Any:
            (h, z), (from_data, normal, gap) = state, now
            h, mu, s = self.follow(h, z, gap)
            a, b = corrected(matvec(self.Q, h), from_data)
            z = mu + s * (a + b * normal)
            return (h, z), (z, divergence(a, b))

        a, b = corrected(0.0, told[0])
        start = self.start_mean + matvec(self.start_root, normals[0])
        z = self.begin(jnp.where(free, start, a + b * normals[0]))
        zs, kl = jax.lax.scan(step, (jnp.zeros(self.prior.n_state, es.dtype), z), (told[1:], normals[1:], gaps[1:]))[1]
        return jnp.concatenate([z[None, :], zs]), jnp.append(divergence(a, b), kl)

    def posterior(self, xs: Float[Array, "T N"], normals: Float[Array, "T L"], gaps: Float[Array, " T"]) -> tuple[Array, Array]:
        """A draw (T, L) of the latent sequence given a standardised series with NaN where nothing was seen, and KL[t] (T,)."""
        return self.path(self.states(xs, gaps), normals, gaps, False)

    def draw(self, normals: Float[Array, "T L"], gaps: Float[Array, " T"]) -> Float[Array, "T L"]:
        """A latent sequence of the prior; gaps[t] lies before t, that of the first has no meaning."""
        return self.path(jnp.zeros((len(normals), self.encoder.n_state), normals.dtype), normals, gaps, True)[0]

    def generate(self, count: int, length: int, *, times: Any = None, noise: bool = True, key: Array) -> Float[Array, "B T N"]:
        """`count` series of `length` points drawn from the prior, in the units of the data, (B, T, N).

        times: (T,) or (B, T), increasing, in sampling intervals (default: 1 apart). noise: with that of the observations. Raises
        InvalidValue for sizes or times that can't be.
        """
        check_sizes("KoopmanVAE.generate", count=count, length=length)
        gaps = gaps_of(times, (count, length), self.A.dtype)
        latent, seen = jr.split(key)
        return _generated(self, jr.normal(latent, (count, length, self.n_latent), self.A.dtype), gaps, seen if noise else None)

    def reconstruct(self, xs: Any, times: Any = None) -> Float[Array, "B T N"]:
        """Series (B, T, N), NaN where missing, as the model has them: decoded from the posterior's means. times as in `generate`."""
        xs = jnp.asarray(xs, self.A.dtype)
        if xs.ndim != 3 or xs.shape[-1] != self.n_obs:
            raise InvalidValue(f"KoopmanVAE.reconstruct: series must have shape (B, T, {self.n_obs}), got {xs.shape}.")
        return _reconstructed(self, xs, gaps_of(times, xs.shape[:2], self.A.dtype))


def windows_of(series: Sequence[np.ndarray], length: int) -> Float[np.ndarray, "B T N"]:
    """Windows of `length` points of the trajectories that are long enough; at most MOST_WINDOWS of them, evenly spread."""
    found = np.concatenate([np.lib.stride_tricks.sliding_window_view(x, length, axis=0) for x in series if len(x) >= length])
    return found[:: -(-len(found) // MOST_WINDOWS)].swapaxes(1, 2)


def divergence(a: Float[Array, " L"], b: Float[Array, " L"]) -> Float[Array, ""]:
    """KL(N(mu + s a, (s b)^2) || N(mu, s^2)), summed over the components."""
    return jnp.sum((a**2 + b**2 - 1.0) / 2 - jnp.log(b))


def gaps_of(times: Any, shape: tuple[int, int], dtype: Any) -> Float[Array, "B T"]:
    """The gap before every point, (B, T); 1 before the first. Raises InvalidValue for times of another shape, or that do not increase."""
    if times is None:
        return jnp.ones(shape, dtype)
    clock = np.asarray(times, float)
    if clock.shape not in (shape, shape[1:]):
        raise InvalidValue(f"KoopmanVAE: times must have shape (T,) or (B, T) with B={shape[0]}, T={shape[1]}, got {clock.shape}.")
    if not np.all(np.diff(clock, axis=-1) > 0):
        raise InvalidValue("KoopmanVAE: times must increase; count them in sampling intervals.")
    gaps = np.concatenate([np.ones((*clock.shape[:-1], 1)), np.diff(clock, axis=-1)], axis=-1)
    return jnp.asarray(np.broadcast_to(gaps, shape), dtype)


@eqx.filter_jit
def _generated(model: KoopmanVAE, normals: Array, gaps: Array, key: Any) -> Array:
    xs = jax.vmap(jax.vmap(model.decode))(jax.vmap(model.draw)(normals, gaps))
    return xs if key is None else xs + model.noise[None, None, :] * jr.normal(key, xs.shape, xs.dtype)


@eqx.filter_jit
def _reconstructed(model: KoopmanVAE, xs: Array, gaps: Array) -> Array:
    standard = (xs - model.mean[None, None, :]) / model.scale[None, None, :]
    normals = jnp.zeros((*xs.shape[:2], model.n_latent), xs.dtype)
    return jax.vmap(jax.vmap(model.decode))(jax.vmap(model.posterior)(standard, normals, gaps)[0])

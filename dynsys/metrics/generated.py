"""Scores of generated series beside real ones: can a classifier tell them apart, and do they teach a forecaster what the real ones would?

    discriminative   |accuracy - 1/2| of a GRU that was trained to tell real from generated, on series it has not seen: 0 is best
    predictive       mean |x[t+1] - f(x[..t])| over real series, of a GRU f that was trained on generated ones: as low as real ones make it

Both depend on the size and training of the network, so all of it is a visible keyword, and only scores with equal settings can be compared.
Always read them beside those of real series against other real series. The networks are trained on columns standardised by the real series'
moments, in float32; Adam at a constant rate.
Source: Yoon, Jarrett, van der Schaar, NeurIPS 2019 (TimeGAN), whose networks have two layers of N // 2 units and whose predictive score
forecasts the last column from the others (`column=-1`).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, Real

from dynsys.errors import InvalidValue
from dynsys.models.base import check_sizes, uniform
from dynsys.models.gated import GRU


class Reader(eqx.Module):
    """A GRU with a linear read-out of every hidden state."""

    cell: GRU
    W: Float[Array, "O H"]
    b: Float[Array, " O"]

    @classmethod
    def init(cls, n_in: int, n_out: int, hidden: int, *, key: Array) -> "Reader":
        """Random weights in float32."""
        keys = jr.split(key)
        made = cls(GRU.init(n_in, hidden, key=keys[0]), uniform(keys[1], (n_out, hidden), hidden), jnp.zeros(n_out))  # pyright: ignore[reportCallIssue]
        return jax.tree.map(lambda a: a.astype(jnp.float32), made)

    def __call__(self, xs: Float[Array, "T I"]) -> Float[Array, "T O"]:
        """The outputs after every point."""

        def step(h: Array, drive: Array) -> tuple[Array, Array]:
            h = self.cell.advance(h, drive, 0.0)
            return h, h

        hs = jax.lax.scan(step, jnp.zeros(self.cell.n_state, xs.dtype), jax.vmap(self.cell.drive)(xs))[1]
        return hs @ self.W.T + self.b[None, :]


def discriminative_score(
    true: Real[Any, "B T N"],
    made: Real[Any, "C T N"],
    *,
    hidden: int = 8,
    steps: int = 1000,
    batch: int = 128,
    learning_rate: float = 5e-3,
    test: float = 0.2,
    key: Array,
) -> float:
    """|accuracy - 1/2| of a classifier on held-out series, in [0, 1/2].

    As many series are taken of each kind as there are of the rarer one, a share `test` of each is held out. hidden: units of the GRU.
    steps: updates, each on `batch` series. A balanced accuracy by chance deviates from 1/2 by about 0.4 / sqrt(held-out series).
    Raises InvalidValue for series that don't fit together, hold NaN, or are too few.
    """
    who = "discriminative_score"
    x, y = _standardised(who, true, made)
    check_sizes(who, hidden=hidden, steps=steps, batch=batch)
    count = min(len(x), len(y))
    held = round(test * count)
    if not 0 < test < 1 or held < 1 or held == count:
        raise InvalidValue(f"{who}: test={test} of {count} series of each kind leaves none to train or none to test on.")
    shuffle, random, train = jr.split(key, 3)
    orders = [np.asarray(jr.permutation(k, len(part)))[:count] for k, part in zip(jr.split(shuffle), (x, y), strict=True)]
    parts = [part[order] for part, order in zip((x, y), orders, strict=True)]
    series = np.concatenate([parts[0][held:], parts[1][held:]])
    labels = np.repeat([1.0, 0.0], count - held).astype(np.float32)
    reader = Reader.init(x.shape[-1], 1, hidden, key=random)
    trained = _trained(
        reader, jnp.asarray(series), jnp.asarray(labels), learning_rate, "class", min(batch, len(series)), jr.split(train, steps)
    )
    scores = np.asarray(_last(trained, jnp.asarray(np.concatenate([parts[0][:held], parts[1][:held]]))))
    return abs(float(np.mean(np.append(scores[:held] > 0, scores[held:] <= 0))) - 0.5)


def predictive_score(
    true: Real[Any, "B T N"],
    made: Real[Any, "C T N"],
    *,
    column: int | None = None,
    hidden: int = 8,
    steps: int = 1000,
    batch: int = 128,
    learning_rate: float = 5e-3,
    key: Array,
) -> float:
    """Mean absolute error on `true` of a one-step forecaster trained on `made`, in the units of the data.

    column: None: all columns from all columns; a number: that column from the others, as in the source. hidden: units of the GRU; steps:
    updates on `batch` series each, of the absolute error. Raises InvalidValue for series that don't fit together or hold NaN, or a column
    that is not there.
    """
    who = "predictive_score"
    x, y = _standardised(who, true, made)
    check_sizes(who, hidden=hidden, steps=steps, batch=batch)
    n = x.shape[-1]
    if column is not None and (n < 2 or not -n <= column < n):
        raise InvalidValue(f"{who}: column={column} can't be forecast from the others of {n} columns; use column=None for all from all.")
    wanted = np.arange(n) if column is None else np.array([column % n])
    given = np.arange(n) if column is None else np.delete(np.arange(n), column)
    random, train = jr.split(key)
    reader = Reader.init(len(given), len(wanted), hidden, key=random)
    pairs = [(jnp.asarray(part[:, :-1, given]), jnp.asarray(part[:, 1:, wanted])) for part in (x, y)]
    trained = _trained(reader, *pairs[1], learning_rate, "forecast", min(batch, len(y)), jr.split(train, steps))
    off = np.asarray(jnp.mean(jnp.abs(_all(trained, pairs[0][0]) - pairs[0][1]), axis=(0, 1)), float)
    return float(np.mean(off * _moments(np.asarray(true, float))[1][wanted]))


def _moments(x: Float[np.ndarray, "B T N"]) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    scale = x.std(axis=(0, 1))
    return x.mean(axis=(0, 1)), np.where(scale > 0, scale, 1.0)


def _standardised(who: str, true: Any, made: Any) -> tuple[Float[np.ndarray, "B T N"], Float[np.ndarray, "C T N"]]:
    x, y = np.asarray(true, float), np.asarray(made, float)
    if x.ndim != 3 or y.ndim != 3 or x.shape[1:] != y.shape[1:] or 0 in x.shape or 0 in y.shape or x.shape[1] < 2:
        raise InvalidValue(f"{who}: true and made must be series (B, T, N) of one T >= 2 and N, got shapes {x.shape} and {y.shape}.")
    for name, series in (("true", x), ("made", y)):
        if not np.isfinite(series).all():
            raise InvalidValue(f"{who}: {name} holds NaN or inf. Fill or drop these series first.")
    mean, scale = (a[None, None, :] for a in _moments(x))
    return ((x - mean) / scale).astype(np.float32), ((y - mean) / scale).astype(np.float32)


@eqx.filter_jit
def _all(reader: Reader, xs: Array) -> Array:
    return jax.vmap(reader)(xs)


@eqx.filter_jit
def _last(reader: Reader, xs: Array) -> Array:
    return jax.vmap(reader)(xs)[:, -1, 0]


@eqx.filter_jit
def _trained(reader: Reader, xs: Array, targets: Array, learning_rate: float, task: str, batch: int, keys: Array) -> Reader:
    optimizer = optax.adam(learning_rate)

    def update(state: Any, key: Array) -> tuple[Any, None]:
        reader, moments = state
        chosen = jr.randint(key, (batch,), 0, len(xs))

        def loss(reader: Reader) -> Array:
            told = jax.vmap(reader)(xs[chosen])
            if task == "class":
                return jnp.mean(optax.sigmoid_binary_cross_entropy(told[:, -1, 0], targets[chosen]))
            return jnp.mean(jnp.abs(told - targets[chosen]))

        moves, moments = optimizer.update(jax.grad(loss)(reader), moments)
        return (eqx.apply_updates(reader, moves), moments), None

    return jax.lax.scan(update, (reader, optimizer.init(reader)), keys)[0][0]  # pyright: ignore[reportArgumentType]

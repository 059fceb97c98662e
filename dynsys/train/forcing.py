"""Teacher forcing: how the data correct the state of a model while it is trained.

    sparse        z~[t] = zhat[t] if t is a multiple of tau, else z[t]          (tau = `interval`)
    generalised   z~[t] = alpha zhat[t] + (1 - alpha) z[t]                      (0 <= alpha <= 1)

and z[t+1] = step(z~[t]). zhat[t] is the state that the observation x[t] suggests: by default z[t] with only what x[t]
determines replaced (`complete=False`), else lift(x[t]), which also resets what is not observed. alpha = 1 is one-step
prediction, alpha = 0 a free run from the window's first point.
Sources: sparse: Mikhaeil, Monfared, Durstewitz, NeurIPS 2022; generalised, annealed, adaptive: Hess, Monfared, Brenner,
Durstewitz, ICML 2023 (adaptive: alpha* = max(0, 1 - 1/sigma)).
"""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dynsys.dynamics import AbstractMap
from dynsys.errors import InvalidValue

Growth = Callable[[str], Array]


class AbstractForcing(eqx.Module):
    """Moves a state towards the data, with a strength that may change from one block of updates to the next."""

    @abc.abstractmethod
    def initial(self) -> float:
        """The strength at the first update."""

    @abc.abstractmethod
    def apply(self, model: AbstractMap, z: Array, x: Array, t: Array, strength: Array) -> Array:
        """The forced state, (M,), (N,) -> (M,); t counts from 0 at the window's start."""

    @property
    def looks_at_states(self) -> bool:
        """Whether `update` needs states along a batch; if not, none are computed for it."""
        return False

    def update(self, strength: Array, growth: Growth) -> Array:
        """The strength for the next block; by default it stays."""
        return strength


class SparseForcing(AbstractForcing):
    """Replace the state by the data every `interval` steps, and let it run between."""

    interval: int = eqx.field(static=True)
    complete: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if self.interval < 1:
            raise InvalidValue(f"SparseForcing: interval must be at least 1 step, got interval={self.interval}.")

    def initial(self) -> float:
        """1: forcing is full where it happens."""
        return 1.0

    def apply(self, model: AbstractMap, z: Array, x: Array, t: Array, strength: Array) -> Array:
        """zhat at multiples of the interval, z elsewhere."""
        return jnp.where(t % self.interval == 0, _suggested(model, z, x, self.complete), z)


class FreeRunning(AbstractForcing):
    """No forcing: the window is a free run from its first point."""

    def initial(self) -> float:
        """0."""
        return 0.0

    def apply(self, model: AbstractMap, z: Array, x: Array, t: Array, strength: Array) -> Array:
        """z."""
        return z


class AbstractStrength(eqx.Module):
    """How alpha of generalised forcing changes from block to block."""

    looks_at_states: ClassVar[bool] = False

    @abc.abstractmethod
    def initial(self) -> float:
        """alpha at the first update."""

    @abc.abstractmethod
    def next(self, strength: Array, growth: Growth) -> Array:
        """alpha for the next block; `growth(estimate)` is sigma along the current batch."""


class Constant(AbstractStrength):
    """A forcing strength that stays as it is."""

    value: float = eqx.field(static=True)

    def __check_init__(self):
        _check_strength("Constant", value=self.value)

    def initial(self) -> float:
        """The value."""
        return self.value

    def next(self, strength: Array, growth: Growth) -> Array:
        """The value."""
        return strength


class Annealed(AbstractStrength):
    """A strength that decays by `decay` at every block of updates, from `start` down to `floor`."""

    start: float = eqx.field(static=True, default=1.0)
    decay: float = eqx.field(static=True, default=0.999)
    floor: float = eqx.field(static=True, default=0.0)

    def __check_init__(self):
        _check_strength("Annealed", start=self.start, decay=self.decay, floor=self.floor)

    def initial(self) -> float:
        """The start."""
        return self.start

    def next(self, strength: Array, growth: Growth) -> Array:
        """Decayed once, not below the floor."""
        return jnp.maximum(strength * self.decay, self.floor)


class Adaptive(AbstractStrength):
    """A strength that follows alpha* = max(0, 1 - 1/sigma): raised at once, lowered with `decay`, never below `floor`.

    `estimate` says what sigma is: 'product', the T-th root of the norm of the product of Jacobians along a window (averaged
    over the batch), or 'mean', the norm of their arithmetic mean. Trials: without a floor (0.1 or more) the strength decays to
    values at which training on noisy data is poor.
    """

    start: float = eqx.field(static=True, default=0.3)
    decay: float = eqx.field(static=True, default=0.999)
    floor: float = eqx.field(static=True, default=0.1)
    estimate: str = eqx.field(static=True, default="product")
    looks_at_states: ClassVar[bool] = True

    def __check_init__(self):
        _check_strength("Adaptive", start=self.start, decay=self.decay, floor=self.floor)
        if self.estimate not in ("product", "mean"):
            raise InvalidValue(f"Adaptive: estimate must be 'product' or 'mean', got {self.estimate!r}.")

    def initial(self) -> float:
        """The start."""
        return max(self.start, self.floor)

    def next(self, strength: Array, growth: Growth) -> Array:
        """alpha* if that is higher, else a step towards it."""
        wanted = jnp.maximum(0.0, 1.0 - 1.0 / jnp.maximum(growth(self.estimate), 1e-12))
        wanted = jnp.where(jnp.isfinite(wanted), wanted, strength)
        lowered = self.decay * strength + (1.0 - self.decay) * wanted
        return jnp.maximum(jnp.where(wanted > strength, wanted, lowered), self.floor).astype(strength.dtype)


class GeneralizedForcing(AbstractForcing):
    """Mix state and data by a strength alpha that is constant, annealed or adaptive."""

    alpha: AbstractStrength
    complete: bool = eqx.field(static=True, default=False)

    def initial(self) -> float:
        """alpha at the first update."""
        return self.alpha.initial()

    def update(self, strength: Array, growth: Growth) -> Array:
        """alpha for the next block."""
        return self.alpha.next(strength, growth)

    def apply(self, model: AbstractMap, z: Array, x: Array, t: Array, strength: Array) -> Array:
        """alpha zhat + (1 - alpha) z."""
        return z + strength * (_suggested(model, z, x, self.complete) - z)

    @property
    def looks_at_states(self) -> bool:
        """True for an adaptive strength."""
        return self.alpha.looks_at_states


def jacobian_growth(model: AbstractMap, states: Float[Array, "T B M"], inputs: Any, estimate: str) -> Float[Array, ""]:
    """sigma of Hess et al. (2023), sec. 3.3, averaged over the batch; `estimate` as in `Adaptive`."""
    axes = (0, 0) if inputs is not None else (0, None)
    jacobians = jax.vmap(jax.vmap(model.jacobian, axes), axes)(states, inputs)
    if estimate == "mean":
        return jnp.mean(jax.vmap(_spectral_norm)(jacobians.mean(axis=0)))

    def multiply(carry: tuple[Array, Array], jacobian: Array) -> tuple[tuple[Array, Array], None]:
        product, log_size = carry
        product = jacobian @ product
        size = jnp.maximum(jnp.sqrt(jnp.sum(product**2, axis=(1, 2))), 1e-30)
        return (product / size[:, None, None], log_size + jnp.log(size)), None

    steps, batch, dim = states.shape
    start = jnp.broadcast_to(jnp.eye(dim, dtype=states.dtype), (batch, dim, dim))
    (product, log_size), _ = jax.lax.scan(multiply, (start, jnp.zeros(batch, states.dtype)), jacobians)
    return jnp.mean(jnp.exp((log_size + jnp.log(jnp.maximum(jax.vmap(_spectral_norm)(product), 1e-30))) / steps))


def _spectral_norm(matrix: Float[Array, "M M"], iterations: int = 8) -> Float[Array, ""]:
    """Largest singular value by power iteration on A'A: a few products instead of an SVD."""

    def sharpen(vector: Array, _: None) -> tuple[Array, None]:
        vector = matrix.T @ (matrix @ vector)
        return vector / jnp.maximum(jnp.linalg.norm(vector), 1e-30), None

    columns = jnp.sum(matrix**2, axis=0)
    start = matrix.T @ matrix[:, jnp.argmax(columns)]
    vector, _ = jax.lax.scan(sharpen, start / jnp.maximum(jnp.linalg.norm(start), 1e-30), None, length=iterations)
    return jnp.linalg.norm(matrix @ vector)


def _suggested(model: AbstractMap, z: Array, x: Array, complete: bool) -> Array:
    return model.lift(x) if complete else model.correct(z, x)


def _check_strength(who: str, **values: float) -> None:
    for name, value in values.items():
        if not 0.0 <= value <= 1.0:
            raise InvalidValue(f"{who}: {name} must be in [0, 1], got {name}={value}. 1 is full forcing, 0 a free run.")

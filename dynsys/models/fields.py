"""Vector fields made of a small network, for neural ODEs: dz/dt = field(z, u), without time.

    net(y)        y[l+1] = act(W[l] y[l] + b[l]),   the last layer is linear                        y[0] = (z, u)
    mlp           dz/dt = net(z, u)
    second-order  z = (q, v):   dq/dt = v,   dv/dt = net(q, v, u)
    hamiltonian   z = (q, p):   dq/dt = dH/dp,   dp/dt = -dH/dq,   H = w . (the last hidden layer of (q, p, u))

The gradient of H is the network's own backward pass written out, so that it runs on JAX, NumPy and PyTorch and can itself be
differentiated. Fresh networks end in small weights: the state moves slowly at first.
Sources: Chen, Rubanova, Bettencourt, Duvenaud, NeurIPS 2018; second order: Norcliffe et al., NeurIPS 2020; Hamiltonian:
Greydanus, Dzamba, Yosinski, NeurIPS 2019.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from array_api_compat import array_namespace
from jaxtyping import Array, Float

from dynsys.dynamics import AbstractFlow, AnyInput, AnyState
from dynsys.errors import InvalidValue, UnknownName
from dynsys.models.arrays import zeros
from dynsys.models.base import check_sizes, matvec, uniform

ACTIVATIONS = ("tanh", "softplus", "silu")
FRESH = 0.1  # size of the last layer of a fresh network beside the others


class AbstractNetworkField(AbstractFlow):
    """A field whose network has weights W[l], offsets b[l] and an activation by name: 'tanh', 'softplus' or 'silu'."""

    W: eqx.AbstractVar[tuple[Float[Any, "_ _"], ...]]
    b: eqx.AbstractVar[tuple[Float[Any, " _"], ...]]
    activation: eqx.AbstractVar[str]
    order: ClassVar[int] = 1  # of the differential equation that the observed part obeys: 2 where z holds velocities too

    def __check_init__(self):
        if self.activation not in ACTIVATIONS:
            raise UnknownName("activation", self.activation, ACTIVATIONS)
        if self.dim % self.order:
            raise InvalidValue(
                f"{type(self).__name__}: dim must be even, half positions and half velocities or momenta, got dim={self.dim}."
            )

    @classmethod
    def _out(cls, dim: int) -> int:
        """How many numbers the network gives for a state of `dim` numbers."""
        return dim

    @classmethod
    def init(
        cls, dim: int, n_inputs: int = 0, *, hidden: int = 64, depth: int = 2, activation: str = "tanh", scale: float = FRESH, key: Array
    ) -> "AbstractNetworkField":
        """A random field of M = `dim` states and K inputs: `depth` hidden layers of `hidden` units; `scale` shrinks the last layer.

        Raises InvalidValue for sizes that are not positive or an odd dim of a second-order or Hamiltonian field, UnknownName for an
        activation that is not there.
        """
        check_sizes(cls.__name__, dim=dim, hidden=hidden, depth=depth)
        sizes = [dim + n_inputs, *[hidden] * depth, cls._out(dim)]
        keys = jr.split(key, 2 * depth + 1)
        W = [jr.normal(k, (after, before)) / before**0.5 for k, before, after in zip(keys, sizes, sizes[1:], strict=False)]
        b = [uniform(k, (width,), before) for k, before, width in zip(keys[depth + 1 :], sizes, sizes[1:-1], strict=False)]
        return cls(W=(*W[:-1], scale * W[-1]), b=cls._offsets(b, dim), activation=activation, dim=dim)  # pyright: ignore[reportCallIssue]

    @classmethod
    def _offsets(cls, hidden: list[Any], dim: int) -> tuple[Any, ...]:
        return (*hidden, jnp.zeros(cls._out(dim)))

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """K, the columns of the first layer that are no states."""
        return self.W[0].shape[-1] - self.dim

    def network(self, z: AnyState, u: AnyInput = None) -> Any:
        """The output of the last, linear layer; a missing input is zero."""
        y = self._features(z, u)
        for W, b in zip(self.W[:-1], self.b, strict=False):
            y = activate(self.activation, matvec(W, y) + b)
        return matvec(self.W[-1], y) + self.b[-1]

    def _features(self, z: AnyState, u: AnyInput) -> Any:
        if self.n_inputs == 0:
            return z
        return array_namespace(z).concat([z, zeros(self.n_inputs, like=z) if u is None else u])


class MLPField(AbstractNetworkField):
    """dz/dt = net(z, u)."""

    W: tuple[Float[Any, "_ _"], ...]
    b: tuple[Float[Any, " _"], ...]
    activation: str = eqx.field(static=True)
    dim: int = eqx.field(static=True)

    def field(self, t: Any, z: AnyState, u: AnyInput = None) -> AnyState:
        """The network itself, (), (M,), (K,) -> (M,)."""
        return self.network(z, u)


class SecondOrderField(AbstractNetworkField):
    """z = (q, v), half and half: dq/dt = v, and the network gives dv/dt."""

    W: tuple[Float[Any, "_ _"], ...]
    b: tuple[Float[Any, " _"], ...]
    activation: str = eqx.field(static=True)
    dim: int = eqx.field(static=True)
    order: ClassVar[int] = 2

    @classmethod
    def _out(cls, dim: int) -> int:
        return dim // 2

    def field(self, t: Any, z: AnyState, u: AnyInput = None) -> AnyState:
        """(v, net(q, v, u)), (), (M,), (K,) -> (M,)."""
        return array_namespace(z).concat([z[self.dim // 2 :], self.network(z, u)])


class HamiltonianField(AbstractNetworkField):
    """z = (q, p), half and half, that moves along the level sets of a learnt energy while the input is held.

    b has one array less than W: an offset of the energy moves nothing.
    """

    W: tuple[Float[Any, "_ _"], ...]
    b: tuple[Float[Any, " _"], ...]
    activation: str = eqx.field(static=True)
    dim: int = eqx.field(static=True)
    order: ClassVar[int] = 2

    @classmethod
    def _out(cls, dim: int) -> int:
        return 1

    @classmethod
    def _offsets(cls, hidden: list[Any], dim: int) -> tuple[Any, ...]:
        return tuple(hidden)

    def energy(self, z: AnyState, u: AnyInput = None) -> Any:
        """H(q, p, u), (M,), (K,) -> ()."""
        y = self._features(z, u)
        for W, b in zip(self.W[:-1], self.b, strict=True):
            y = activate(self.activation, matvec(W, y) + b)
        return matvec(self.W[-1], y)[0]

    def field(self, t: Any, z: AnyState, u: AnyInput = None) -> AnyState:
        """(dH/dp, -dH/dq), (), (M,), (K,) -> (M,)."""
        y, slopes = self._features(z, u), []
        for W, b in zip(self.W[:-1], self.b, strict=True):
            drive = matvec(W, y) + b
            y = activate(self.activation, drive)
            slopes.append(slope(self.activation, drive, y))
        back = self.W[-1][0]
        for W, s in zip(reversed(self.W[:-1]), reversed(slopes), strict=True):
            back = (back * s) @ W
        half = self.dim // 2
        return array_namespace(z).concat([back[half : self.dim], -back[:half]])


def activate(name: str, drive: Any) -> Any:
    """The activation of an array, on its own array library."""
    xp = array_namespace(drive)
    if name == "tanh":
        return xp.tanh(drive)
    if name == "softplus":
        return xp.logaddexp(drive, xp.zeros_like(drive))
    return drive * _sigmoid(drive)


def slope(name: str, drive: Any, active: Any) -> Any:
    """The derivative of the activation where its argument is `drive` and its value `active`."""
    if name == "tanh":
        return 1 - active * active
    s = _sigmoid(drive)
    return s if name == "softplus" else s + active * (1 - s)


def _sigmoid(drive: Any) -> Any:
    return 0.5 * (1 + array_namespace(drive).tanh(0.5 * drive))

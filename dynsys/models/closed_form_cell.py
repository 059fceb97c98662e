"""Closed-form continuous-time cell (CfC): an explicit formula in the gap where a liquid network has a differential equation.

    default   h' = (1 - s) tanh(a) + s tanh(b),    s = sigmoid(p gap + q)
    no-gate   h' = tanh(a) + s tanh(b)
    pure      h' = A - A a exp(-gap (|w| + |a|))

The heads a, b, p, q (in the pure form a alone) are linear in the features z of a backbone, z = act(V x + R h + c), possibly of several
layers; without a backbone they are linear in x and h, and may then be wired. All heads are one matrix product.
Source: Hasani, Lechner, Amini, Liebenwein, Ray, Tschaikowski, Teschl, Rus, Nature Machine Intelligence 4, 992 (2022), eqs. 2, 4 and
the ablations of its methods.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from array_api_compat import array_namespace
from jaxtyping import Array, Float, Int

from dynsys.errors import InvalidValue
from dynsys.models.base import check_sizes, matvec, uniform
from dynsys.models.cell import AnyFeatures, AnyHidden
from dynsys.models.driven import AbstractDriven, AnyDrive
from dynsys.models.gates import ACTIVATIONS, factors, masked, sigmoid
from dynsys.models.wiring import Wiring

HEADS = {"default": 4, "no-gate": 4, "pure": 1}


class CfC(AbstractDriven):
    """S hidden numbers, of which the first `n_out` are read.

    V (I, D), the product R (S, D) of `recurrent` and c (D,) lead to the backbone of D units, or without one to the heads, D = 4 S
    (pure: S). `layers` and `biases` lead on from there, the last to the heads. `masks` (I, D), (S, D) multiply V and R if there are
    any. `asymptote` is (A, w) in the pure form and empty otherwise.
    """

    V: Float[Any, "I D"]
    recurrent: tuple[Float[Any, "_ _"], ...]
    c: Float[Any, " D"]
    layers: tuple[Float[Any, "_ _"], ...]
    biases: tuple[Float[Any, " _"], ...]
    asymptote: tuple[Float[Any, " S"], ...]
    masks: tuple[Int[Any, "_ _"], ...]
    n_out: int = eqx.field(static=True)
    mode: str = eqx.field(static=True, default="default")
    activation: str = eqx.field(static=True, default="lecun-tanh")

    def __check_init__(self):
        if self.mode not in HEADS or self.activation not in ACTIVATIONS:
            raise InvalidValue(
                f"CfC: mode must be one of {', '.join(HEADS)} and activation one of {', '.join(ACTIVATIONS)}, "
                f"got mode={self.mode!r} and activation={self.activation!r}."
            )

    @classmethod
    def init(
        cls,
        wiring: Wiring,
        *,
        mode: str = "default",
        backbone: int = 128,
        depth: int = 1,
        activation: str = "lecun-tanh",
        key: Array,
    ) -> "CfC":
        """Random weights; `backbone` units in each of `depth` layers, 0 units: heads directly on x and h.

        A wiring with a mask or a rank acts on the heads and so refuses a backbone.
        """
        if mode not in HEADS:
            raise InvalidValue(f"CfC: mode must be one of {', '.join(HEADS)}, got mode={mode!r}.")
        if backbone and (wiring.rank is not None or not wiring.complete):
            raise InvalidValue(
                f"CfC: a sparse or low-rank wiring needs heads that see the neurons themselves, got backbone={backbone}. Set backbone=0."
            )
        check_sizes(cls.__name__, depth=depth, **({"backbone": backbone} if backbone else {}))
        inputs, S, heads = wiring.n_in, wiring.units, HEADS[mode]
        keys = jr.split(key, depth + 3)
        width = backbone or heads * S
        recurrent = (uniform(keys[1], (S, width), inputs + S),) if backbone else factors(wiring, heads, key=keys[1])
        sizes = [*([backbone] * depth), heads * S] if backbone else []
        layers = [uniform(k, (a, b), a) for k, a, b in zip(keys[2:], sizes, sizes[1:], strict=False)]
        masks = (jnp.tile(jnp.asarray(abs(mask)), (1, heads)) for mask in (wiring.sensory, wiring.recurrent))
        return cls(  # pyright: ignore[reportCallIssue]
            V=uniform(keys[0], (inputs, width), inputs + S),
            recurrent=recurrent,
            c=jnp.zeros(width),
            layers=tuple(layers),
            biases=tuple(jnp.zeros(size) for size in sizes[1:]),
            asymptote=(jnp.ones(S), jnp.zeros(S)) if mode == "pure" else (),
            masks=() if wiring.complete else tuple(masks),
            n_out=wiring.n_out,
            mode=mode,
            activation=activation,
        )

    @property
    def n_in(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """I, the number of inputs."""
        return self.V.shape[0]

    @property
    def n_state(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """S, the hidden numbers."""
        return self.recurrent[0].shape[0]

    def drive(self, x: AnyFeatures) -> AnyDrive:
        """V x + c, (I,) -> (D,)."""
        return matvec((self.V * self.masks[0] if self.masks else self.V).T, x) + self.c

    def advance(self, h: AnyHidden, drive: AnyDrive, gap: Any) -> AnyHidden:
        """The formula of the mode."""
        act = ACTIVATIONS[self.activation]
        z = drive + matvec(masked(self.recurrent, self.masks, HEADS[self.mode]).T, h)
        for W, c in zip(self.layers, self.biases, strict=True):
            z = matvec(W.T, act(z)) + c
        xp, S = array_namespace(h), self.n_state
        if self.mode == "pure":
            A, w = self.asymptote
            return A - A * z * xp.exp(-gap * (xp.abs(w) + xp.abs(z)))
        a, b, s = xp.tanh(z[:S]), xp.tanh(z[S : 2 * S]), sigmoid(z[2 * S : 3 * S] * gap + z[3 * S :])
        return a + s * b if self.mode == "no-gate" else a + s * (b - a)

    def read(self, h: AnyHidden) -> Float[Any, " O"]:
        """The first n_out hidden numbers."""
        return h[: self.n_out]

    def prepared(self) -> "CfC":
        """With the masked weights at hand."""
        if not self.masks and len(self.recurrent) == 1:
            return self
        V = self.V * self.masks[0] if self.masks else self.V
        R = (masked(self.recurrent, self.masks, HEADS[self.mode]),)
        return dataclasses.replace(self, V=V, recurrent=R, masks=())

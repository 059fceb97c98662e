"""Gated cells for comparison: LSTM, which does not see the time, and GRU, to which the gap is one more input.

    LSTM   c' = sigmoid(f + 1) c + sigmoid(i) tanh(g),    y' = sigmoid(o) tanh(c'),    h = (y, c)
    GRU    h' = (1 - u) n + u h,    n = tanh(n_x + r n_h),    u, r sigmoids

Sources: Hochreiter, Schmidhuber 1997 with the forget gate of Gers et al. 2000, which starts open (Jozefowicz et al. 2015); Cho et al.
2014 with the reset gate after the product.
"""

from typing import Any

import jax.numpy as jnp
import jax.random as jr
from array_api_compat import array_namespace
from jaxtyping import Array, Float

from dynsys.models.base import check_sizes, matvec, uniform
from dynsys.models.cell import AnyFeatures, AnyHidden
from dynsys.models.driven import AbstractDriven, AnyDrive
from dynsys.models.gates import sigmoid


class LSTM(AbstractDriven):
    """S = 2 Y hidden numbers: the Y outputs, then the memory. The columns of V, R, b are g, i, f, o."""

    V: Float[Any, "I G"]
    R: Float[Any, "Y G"]
    b: Float[Any, " G"]

    @classmethod
    def init(cls, n_in: int, units: int, *, key: Array) -> "LSTM":
        """Random weights for I inputs and Y = `units` outputs."""
        check_sizes(cls.__name__, n_in=n_in, units=units)
        keys = jr.split(key)
        return cls(  # pyright: ignore[reportCallIssue]
            V=uniform(keys[0], (n_in, 4 * units), units),
            R=uniform(keys[1], (units, 4 * units), units),
            b=jnp.zeros(4 * units),
        )

    @property
    def n_in(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """I, the number of inputs."""
        return self.V.shape[0]

    @property
    def n_out(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Y, the outputs."""
        return self.R.shape[0]

    @property
    def n_state(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """2 Y."""
        return 2 * self.n_out

    def drive(self, x: AnyFeatures) -> AnyDrive:
        """V x + b."""
        return matvec(self.V.T, x) + self.b

    def advance(self, h: AnyHidden, drive: AnyDrive, gap: Any) -> AnyHidden:
        """One step, whatever the gap."""
        xp, Y = array_namespace(h), self.n_out
        z = drive + matvec(self.R.T, h[:Y])
        memory = h[Y:] * sigmoid(z[2 * Y : 3 * Y] + 1.0) + xp.tanh(z[:Y]) * sigmoid(z[Y : 2 * Y])
        return xp.concat([sigmoid(z[3 * Y :]) * xp.tanh(memory), memory])

    def read(self, h: AnyHidden) -> Float[Any, " O"]:
        """The outputs."""
        return h[: self.n_out]


class GRU(AbstractDriven):
    """S hidden numbers, all read. The columns of V, R and b are r, u, n; `by_gap` is the row of V that the gap meets; d belongs to n_h."""

    V: Float[Any, "I G"]
    by_gap: Float[Any, " G"]
    R: Float[Any, "S G"]
    b: Float[Any, " G"]
    d: Float[Any, " S"]

    @classmethod
    def init(cls, n_in: int, units: int, *, key: Array) -> "GRU":
        """Random weights for I inputs and S = `units` hidden numbers."""
        check_sizes(cls.__name__, n_in=n_in, units=units)
        keys = jr.split(key, 3)
        return cls(  # pyright: ignore[reportCallIssue]
            V=uniform(keys[0], (n_in, 3 * units), units),
            by_gap=uniform(keys[1], (3 * units,), units),
            R=uniform(keys[2], (units, 3 * units), units),
            b=jnp.zeros(3 * units),
            d=jnp.zeros(units),
        )

    @property
    def n_in(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """I, the number of inputs without the gap."""
        return self.V.shape[0]

    @property
    def n_state(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """S, the hidden numbers."""
        return self.R.shape[0]

    @property
    def n_out(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """S: all are read."""
        return self.R.shape[0]

    def drive(self, x: AnyFeatures) -> AnyDrive:
        """V x + b."""
        return matvec(self.V.T, x) + self.b

    def advance(self, h: AnyHidden, drive: AnyDrive, gap: Any) -> AnyHidden:
        """One step; the gap enters as an input."""
        xp, S = array_namespace(h), self.n_state
        from_input, from_state = drive + gap * self.by_gap, matvec(self.R.T, h)
        r, u = sigmoid(from_input[:S] + from_state[:S]), sigmoid(from_input[S : 2 * S] + from_state[S : 2 * S])
        n = xp.tanh(from_input[2 * S :] + r * (from_state[2 * S :] + self.d))
        return n + u * (h - n)

    def read(self, h: AnyHidden) -> Float[Any, " O"]:
        """The hidden state."""
        return h

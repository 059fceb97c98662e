"""Liquid time-constant networks: neurons whose time constants depend on the input and on each other.

    LTC              dh/dt = -(1/tau + f) h + f A,    f = g sigmoid(V x + R h + b)
    conductance LTC  c_j dh_j/dt = l_j (e_j - h_j) + sum_i w_ij s_ij (E_ij - h_j),    s_ij = sigmoid(gamma_ij (h_i - mu_ij))

In the second the sum also runs over the inputs, with synapses of their own. Both are linear in h once the gates are known, so the
fused solver takes the gates from the old state and the rest from the new one, `unfoldings` times over a gap:

    h' = (h + d f A) / (1 + d (1/tau + f)),    h'_j = (c_j h_j + d (l_j e_j + sum_i w_ij s_ij E_ij)) / (c_j + d (l_j + sum_i w_ij s_ij))

with d = gap / unfoldings. Each is a weighted mean of the old state, 0 and A (of e and E), so no step, however long, leaves their
range. `field` is the right-hand side, for any other solver (`LiquidFlow`).
Sources: Hasani, Lechner, Amini, Rus, Grosu, AAAI 2021, eqs. 1-3, algorithm 1, theorems 1-2 (their W is our g); for synapses as
conductances Lechner et al., Nature Machine Intelligence 2, 642 (2020), eqs. 1-4.
"""

import abc
import dataclasses
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from array_api_compat import array_namespace
from jaxtyping import Array, Float, Int

from dynsys.dynamics import AbstractFlow, AnyInput, AnyState
from dynsys.models.base import check_sizes, matvec, uniform
from dynsys.models.cell import AnyFeatures, AnyHidden
from dynsys.models.driven import AbstractDriven, AnyDrive
from dynsys.models.gates import factors, inverse_softplus, masked, sigmoid, softplus
from dynsys.models.wiring import Wiring

EPSILON = 1e-8  # added to the sum of conductances, as the authors' implementation has it
UNROLLED = 64  # up to so many neurons the sum over sources is written out: one pass with every gate in a register


class AbstractLiquid(AbstractDriven):
    """A cell that is an ordinary differential equation, dh/dt = field(h, x), with a solver of its own in `advance`."""

    unfoldings: eqx.AbstractVar[int]

    @abc.abstractmethod
    def field(self, h: AnyHidden, x: AnyFeatures) -> AnyHidden:
        """The time derivative of the hidden state, (S,), (I,) -> (S,)."""


class LiquidFlow(AbstractFlow):
    """A liquid cell as a flow whose input x is held, so that any solver of flows integrates it."""

    cell: AbstractLiquid

    @property
    def dim(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """S, the hidden numbers."""
        return self.cell.n_state

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """I, the inputs of the cell."""
        return self.cell.n_in

    def field(self, t: Any, z: AnyState, u: AnyInput = None) -> AnyState:
        """dh/dt of the cell, (), (S,), (I,) -> (S,)."""
        return self.cell.field(z, u)


class LTC(AbstractLiquid):
    """The liquid time-constant cell of the paper; S neurons, of which the first `n_out` are read.

    tau and g are positive: `raw_tau` and `raw_gain` pass through a softplus. R is the product of `recurrent`, one matrix (S, S) or
    two of low rank, and V and R are multiplied by `masks` if there are any.
    """

    V: Float[Any, "I S"]
    recurrent: tuple[Float[Any, "_ _"], ...]
    b: Float[Any, " S"]
    raw_tau: Float[Any, " S"]
    raw_gain: Float[Any, " S"]
    A: Float[Any, " S"]
    masks: tuple[Int[Any, "_ _"], ...]
    n_out: int = eqx.field(static=True)
    unfoldings: int = eqx.field(static=True, default=6)

    @classmethod
    def init(cls, wiring: Wiring, *, unfoldings: int = 6, key: Array) -> "LTC":
        """Random weights and equilibria; every tau and every g is 1, in units of the gap."""
        check_sizes(cls.__name__, unfoldings=unfoldings)
        keys = jr.split(key, 3)
        one = jnp.full(wiring.units, inverse_softplus(1.0))
        return cls(  # pyright: ignore[reportCallIssue]
            V=uniform(keys[0], (wiring.n_in, wiring.units), wiring.n_in),
            recurrent=factors(wiring, 1, key=keys[1]),
            b=jnp.zeros(wiring.units),
            raw_tau=one,
            raw_gain=one,
            A=jr.uniform(keys[2], (wiring.units,), minval=-1.0, maxval=1.0),
            masks=() if wiring.complete else (jnp.asarray(abs(wiring.sensory)), jnp.asarray(abs(wiring.recurrent))),
            n_out=wiring.n_out,
            unfoldings=unfoldings,
        )

    @property
    def n_in(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """I, the number of inputs."""
        return self.V.shape[0]

    @property
    def n_state(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """S, the number of neurons."""
        return self.V.shape[1]

    @property
    def reverse(self) -> Literal["recomputed"]:
        """Gates for every unfolding."""
        return "recomputed"

    def gates(self, h: AnyHidden, drive: AnyDrive) -> AnyHidden:
        """f, by which every rate rises, (S,)."""
        return softplus(self.raw_gain) * sigmoid(drive + matvec(masked(self.recurrent, self.masks, 1).T, h))

    def drive(self, x: AnyFeatures) -> AnyDrive:
        """V x + b."""
        return matvec((self.V * self.masks[0] if self.masks else self.V).T, x) + self.b

    def advance(self, h: AnyHidden, drive: AnyDrive, gap: Any) -> AnyHidden:
        """The fused solver over a gap."""
        cell, length = self.prepared(), gap / self.unfoldings
        leak = 1.0 / softplus(self.raw_tau)
        for _ in range(self.unfoldings):
            f = cell.gates(h, drive)
            h = (h + length * f * self.A) / (1.0 + length * (leak + f))
        return h

    def field(self, h: AnyHidden, x: AnyFeatures) -> AnyHidden:
        """-(1/tau + f) h + f A."""
        f = self.gates(h, self.drive(x))
        return -(1.0 / softplus(self.raw_tau) + f) * h + f * self.A

    def time_constants(self, h: AnyHidden, x: AnyFeatures) -> AnyHidden:
        """tau / (1 + tau f), in units of the gap: between tau / (1 + tau g) and tau (theorem 1)."""
        tau = softplus(self.raw_tau)
        return tau / (1.0 + tau * self.gates(h, self.drive(x)))

    def read(self, h: AnyHidden) -> Float[Any, " O"]:
        """The first n_out neurons."""
        return h[: self.n_out]

    def prepared(self) -> "LTC":
        """With the masked weights at hand."""
        if not self.masks and len(self.recurrent) == 1:
            return self
        V = self.V * self.masks[0] if self.masks else self.V
        R = masked(self.recurrent, self.masks, 1)
        return dataclasses.replace(self, V=V, recurrent=(R,), masks=())


class ConductanceLTC(AbstractLiquid):
    """Neurons with a capacity c, a leak l to a potential e, and synapses of conductance w with sigmoid gates; (source, target).

    c, l and w are positive: `raw_c`, `raw_leak`, `raw_w` and `raw_w_in` pass through a softplus. The inputs are scaled (x * scale +
    shift) before they meet their synapses (mu_in, gamma_in, E_in), and so are the first `n_out` neurons where they are read.
    Inputs and states are of order one.
    """

    raw_w: Float[Any, "S S"]
    mu: Float[Any, "S S"]
    gamma: Float[Any, "S S"]
    E: Float[Any, "S S"]
    raw_w_in: Float[Any, "I S"]
    mu_in: Float[Any, "I S"]
    gamma_in: Float[Any, "I S"]
    E_in: Float[Any, "I S"]
    raw_leak: Float[Any, " S"]
    e: Float[Any, " S"]
    raw_c: Float[Any, " S"]
    scale: Float[Any, " I"]
    shift: Float[Any, " I"]
    out_scale: Float[Any, " O"]
    out_shift: Float[Any, " O"]
    mask_in: Int[Any, "I S"]
    mask: Int[Any, "S S"]
    unfoldings: int = eqx.field(static=True, default=6)

    @classmethod
    def init(cls, wiring: Wiring, *, unfoldings: int = 6, key: Array) -> "ConductanceLTC":
        """Random synapses in the ranges of the authors' implementation; E starts at the sign of each synapse."""
        check_sizes(cls.__name__, unfoldings=unfoldings)
        keys = iter(jr.split(key, 9))
        draw = lambda shape, low, high: jr.uniform(next(keys), shape, minval=low, maxval=high)  # noqa: E731
        inputs, S = wiring.sensory.shape
        return cls(  # pyright: ignore[reportCallIssue]
            raw_w=inverse_softplus(draw((S, S), 0.001, 1.0)),
            mu=draw((S, S), 0.3, 0.8),
            gamma=draw((S, S), 3.0, 8.0),
            E=jnp.asarray(wiring.recurrent, float),
            raw_w_in=inverse_softplus(draw((inputs, S), 0.001, 1.0)),
            mu_in=draw((inputs, S), 0.3, 0.8),
            gamma_in=draw((inputs, S), 3.0, 8.0),
            E_in=jnp.asarray(wiring.sensory, float),
            raw_leak=inverse_softplus(draw((S,), 0.001, 1.0)),
            e=draw((S,), -0.2, 0.2),
            raw_c=inverse_softplus(draw((S,), 0.4, 0.6)),
            scale=jnp.ones(inputs),
            shift=jnp.zeros(inputs),
            out_scale=jnp.ones(wiring.n_out),
            out_shift=jnp.zeros(wiring.n_out),
            mask_in=jnp.asarray(abs(wiring.sensory)),
            mask=jnp.asarray(abs(wiring.recurrent)),
            unfoldings=unfoldings,
        )

    @property
    def n_in(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """I, the number of inputs."""
        return self.scale.shape[0]

    @property
    def n_state(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """S, the number of neurons."""
        return self.e.shape[0]

    @property
    def n_out(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """O, the neurons that are read."""
        return self.out_scale.shape[0]

    def drive(self, x: AnyFeatures) -> AnyDrive:
        """Currents and conductances of the inputs' synapses and the leak, (I,) -> (S,), (S,)."""
        return self.prepared().drive(x)

    def advance(self, h: AnyHidden, drive: AnyDrive, gap: Any) -> AnyHidden:
        """The fused solver over a gap."""
        return self.prepared().advance(h, drive, gap)

    def field(self, h: AnyHidden, x: AnyFeatures) -> AnyHidden:
        """(sum of the currents) / c."""
        return self.prepared().field(h, x)

    def read(self, h: AnyHidden) -> Float[Any, " O"]:
        """The first n_out neurons, scaled."""
        return h[: self.n_out] * self.out_scale + self.out_shift

    def prepared(self) -> "Conductances":  # pyright: ignore[reportIncompatibleMethodOverride]
        """The same cell by its effective conductances."""
        w, w_in, leak = softplus(self.raw_w) * self.mask, softplus(self.raw_w_in) * self.mask_in, softplus(self.raw_leak)
        return Conductances(  # pyright: ignore[reportCallIssue]
            gamma=self.gamma,
            offset=-self.gamma * self.mu,
            w=w,
            wE=w * self.E,
            gamma_in=self.gamma_in * self.scale[:, None],
            offset_in=self.gamma_in * (self.shift[:, None] - self.mu_in),
            w_in=w_in,
            wE_in=w_in * self.E_in,
            leak=leak,
            rest=leak * self.e,
            c=softplus(self.raw_c),
            out_scale=self.out_scale,
            out_shift=self.out_shift,
            unfoldings=self.unfoldings,
        )


class Conductances(AbstractLiquid):
    """A conductance LTC with everything computed that does not change in time: s_ij = sigmoid(gamma_ij h_i + offset_ij)."""

    gamma: Float[Any, "S S"]
    offset: Float[Any, "S S"]
    w: Float[Any, "S S"]
    wE: Float[Any, "S S"]
    gamma_in: Float[Any, "I S"]
    offset_in: Float[Any, "I S"]
    w_in: Float[Any, "I S"]
    wE_in: Float[Any, "I S"]
    leak: Float[Any, " S"]
    rest: Float[Any, " S"]
    c: Float[Any, " S"]
    out_scale: Float[Any, " O"]
    out_shift: Float[Any, " O"]
    unfoldings: int = eqx.field(static=True)

    @property
    def n_in(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """I, the number of inputs."""
        return self.w_in.shape[0]

    @property
    def n_state(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """S, the number of neurons."""
        return self.w.shape[0]

    @property
    def n_out(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """O, the neurons that are read."""
        return self.out_scale.shape[0]

    @property
    def reverse(self) -> Literal["by-sample"]:
        """A gate for every pair of neurons."""
        return "by-sample"

    def drive(self, x: AnyFeatures) -> AnyDrive:
        """Currents, then conductances, of the inputs' synapses and the leak, two arrays: slices of one would keep XLA from fusing."""
        xp = array_namespace(x)
        s = sigmoid(self.gamma_in * x[:, None] + self.offset_in)
        return xp.sum(s * self.wE_in, axis=0) + self.rest, xp.sum(s * self.w_in, axis=0) + self.leak

    def synapses(self, h: AnyHidden, drive: AnyDrive) -> tuple[AnyHidden, AnyHidden]:
        """The current into each neuron were it at 0, and its conductance, both (S,)."""
        xp, (current, conductance) = array_namespace(h), drive
        s = sigmoid(self.gamma * h[:, None] + self.offset)
        return current + xp.sum(s * self.wE, axis=0), conductance + xp.sum(s * self.w, axis=0)

    def advance(self, h: AnyHidden, drive: AnyDrive, gap: Any) -> AnyHidden:
        """The fused solver over a gap."""
        length = gap / self.unfoldings
        for _ in range(self.unfoldings):
            current, conductance = self.synapses(h, drive)
            h = (self.c * h + length * current) / (self.c + length * (conductance + EPSILON))
        return h

    def advance_all(self, h: Float[Array, "B S"], drive: AnyDrive, gap: Float[Array, " B"]) -> Float[Array, "B S"]:
        """`advance` of a batch, the sums over sources written out: XLA makes one loop of it, twice as fast as two sums over gates."""
        S = self.n_state
        if S > UNROLLED:
            return super().advance_all(h, drive, gap)
        c, length = self.c[None, :], (gap / self.unfoldings)[:, None]
        for _ in range(self.unfoldings):
            current, conductance = drive
            for i in range(S):
                s = sigmoid(self.gamma[i][None, :] * h[:, i][:, None] + self.offset[i][None, :])
                current, conductance = current + s * self.wE[i][None, :], conductance + s * self.w[i][None, :]
            h = (c * h + length * current) / (c + length * (conductance + EPSILON))
        return h

    def field(self, h: AnyHidden, x: AnyFeatures) -> AnyHidden:
        """(sum of the currents) / c."""
        current, conductance = self.synapses(h, self.drive(x))
        return (current - conductance * h) / self.c

    def read(self, h: AnyHidden) -> Float[Any, " O"]:
        """The first n_out neurons, scaled."""
        return h[: self.n_out] * self.out_scale + self.out_shift

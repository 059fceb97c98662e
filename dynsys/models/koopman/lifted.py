"""What all Koopman models share: an observed window is encoded, moves in latent space, and is decoded.

    y = encode(w),    y[t+1] = advance(y[t], u[t]),    x[t] = decode(y[t]),    w[t] = (x[t], x[t-1], ..., x[t-D+1])

The state is z = (y, w, k). The window w is part of it only where D > 1, so that a model with delays is led along data exactly; it
plays no part in a free run. With `reencode` = p > 0, every p-th step ends with y = encode(w) (k counts), which brings the state back
onto the set of encoded points (Fathi et al., ICLR 2024, arXiv 2310.15386). With p = 0, the default, a run stays in latent space from
its start to its end, as the operator has it.
"""

import abc
import dataclasses
from typing import Any

import equinox as eqx
import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float

from dynsys.dynamics import AbstractMap, AnyInput, AnyObservation, AnyState
from dynsys.errors import InvalidValue
from dynsys.models.arrays import zeros


class AbstractLifted(AbstractMap):
    """A map whose dynamics are those of a latent state, encoded from the last `delays` points."""

    delays: eqx.AbstractVar[int]
    reencode: eqx.AbstractVar[int]

    @property
    @abc.abstractmethod
    def n_latent(self) -> int:
        """L, the number of latent components."""

    @abc.abstractmethod
    def encode(self, w: Float[Any, " DN"]) -> Float[Any, " L"]:
        """The latent state of a window, newest point first, (D N,) -> (L,)."""

    @abc.abstractmethod
    def decode(self, y: Float[Any, " L"]) -> AnyObservation:
        """The observation of a latent state, (L,) -> (N,)."""

    @abc.abstractmethod
    def advance(self, y: Float[Any, " L"], u: AnyInput = None) -> Float[Any, " L"]:
        """The latent state one sampling interval later, (L,), (K,) -> (L,)."""

    @property
    def dim(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """M = L, and D N for the window if there are delays, and 1 for the count if it is encoded anew now and then."""
        return self.n_latent + self._window + (1 if self.reencode > 1 else 0)

    @property
    def _window(self) -> int:
        return self.delays * self.n_obs if self.delays > 1 else 0

    @property
    def memory(self) -> int:
        """D - 1."""
        return self.delays - 1

    def step(self, z: AnyState, u: AnyInput = None) -> AnyState:
        """The next state, (M,), (K,) -> (M,)."""
        xp, a, b = array_namespace(z), self.n_latent, self.n_latent + self._window
        y = self.advance(z[:a], u)
        parts = [y]
        if self.delays > 1:
            parts.append(xp.concat([self.bounded(self.decode(y)), z[a : b - self.n_obs]]))
        if self.reencode == 1:
            parts[0] = self._anew(parts)
        elif self.reencode > 1:
            count = z[b:] + 1.0
            due = count >= self.reencode
            parts[0] = xp.where(due, self._anew(parts), y)
            parts.append(xp.where(due, xp.zeros_like(count), count))
        return parts[0] if len(parts) == 1 else xp.concat(parts)

    def _anew(self, parts: list[Any]) -> Any:
        return self.encode(parts[1] if self.delays > 1 else self.bounded(self.decode(parts[0])))

    def bounded(self, x: AnyObservation) -> AnyObservation:
        """A decoded point as it may be encoded again; a model that knows the range of its data keeps it near there."""
        return x

    def observe(self, z: AnyState) -> AnyObservation:
        """The decoded latent state."""
        return self.decode(z[: self.n_latent])

    def lift(self, x: AnyObservation) -> AnyState:
        """The state of a window that has always been at x: with delays a poor start; see `dynsys.dynamics.warm_up`."""
        return self._of(x if self.delays == 1 else array_namespace(x).concat([x] * self.delays))

    def correct(self, z: AnyState, x: AnyObservation) -> AnyState:
        """The state of the window whose newest point is x."""
        if self.delays == 1:
            return self._of(x)
        a = self.n_latent
        return self._of(array_namespace(z).concat([x, z[a + self.n_obs : a + self._window]]))

    def _of(self, w: Any) -> Any:
        parts = [self.encode(w)] + ([w] if self.delays > 1 else []) + ([zeros(1, like=w)] if self.reencode > 1 else [])
        return parts[0] if len(parts) == 1 else array_namespace(w).concat(parts)

    def reencoded(self, period: int) -> Any:
        """The same model, encoded anew every `period` steps (0: never). Raises InvalidValue for a negative period."""
        check_period(type(self).__name__, period)
        return dataclasses.replace(self, reencode=int(period))  # pyright: ignore[reportCallIssue]


class AbstractLinear(AbstractLifted):
    """A lifted model with a linear latent map, y[t+1] = `matrix` y[t] + (a term in u)."""

    @property
    @abc.abstractmethod
    def matrix(self) -> Float[Any, "L L"]:
        """The latent map of the autonomous system, (L, L): `advance(y) = matrix y`."""


def windows(x: Float[np.ndarray, "T N"], delays: int) -> Float[np.ndarray, "R DN"]:
    """All windows of a trajectory, newest point first, (T, N) -> (T - D + 1, D N)."""
    return x if delays == 1 else np.concatenate([x[delays - 1 - j : len(x) - j] for j in range(delays)], axis=1)


def check_period(who: str, period: Any) -> None:
    """Raise InvalidValue unless `period` is a whole number of at least 0."""
    if isinstance(period, bool) or not isinstance(period, int | np.integer) or period < 0:
        raise InvalidValue(
            f"{who}: reencode must be a whole number of at least 0 (0: never), got reencode={period!r}: steps between two encodings."
        )

"""Kuramoto's order parameter: how much do N phases agree?

    r(t) exp(i psi(t)) = (1/N) sum_j exp(i theta_j(t)),      r = 1: all equal, r ~ 1 / sqrt(N): independent

Source: Kuramoto, Chemical Oscillations, Waves, and Turbulence, Springer (1984), section 5.4.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Real

from dynsys.errors import InvalidValue


@dataclasses.dataclass(frozen=True)
class OrderParameter:
    """r(t) (T,) in [0, 1] and the mean phase psi(t) (T,) in (-pi, pi] (any number where r is 0)."""

    r: Float[np.ndarray, " T"]
    psi: Float[np.ndarray, " T"]

    @property
    def mean(self) -> float:
        """The mean of r over time."""
        return float(self.r.mean())


def kuramoto_order(phases: Real[Any, "..."], *, harmonic: int = 1) -> OrderParameter:
    """The order parameter of phases (T, N) in radians, wrapped or not.

    harmonic: h > 1 gives Daido's order parameter of exp(i h theta), which sees h equal clusters. Raises InvalidValue for
    another shape, phases that are not finite, or harmonic < 1.
    """
    who = "kuramoto_order"
    theta = np.asarray(phases, dtype=float)
    if theta.ndim != 2 or 0 in theta.shape:
        raise InvalidValue(f"{who}: phases must have shape (T, N), got shape {theta.shape}.")
    if not np.isfinite(theta).all():
        raise InvalidValue(f"{who}: phases hold NaN or inf. Drop these points first.")
    if harmonic < 1:
        raise InvalidValue(f"{who}: harmonic must be at least 1, got harmonic={harmonic}.")
    order = np.exp(1j * harmonic * theta).mean(axis=1)
    return OrderParameter(np.abs(order), np.angle(order))

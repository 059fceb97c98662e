"""Eigenvalues of a Koopman operator, each with the residual that says how far to trust it.

    residual^2 = mean |phi(y) - lambda phi(x)|^2 / mean |phi(x)|^2,    y one step after x

What a small residual proves: lambda lies within it of the approximate point spectrum where the operator is normal (as on a
conservative attractor), and in the pseudospectrum of that level otherwise. It does so for L2 of the measure that the data sample,
and in the limit of many samples; the standard error beside a residual says how far from the limit the data are, if they are long
beside the system's memory. What a large one proves: that this pair is no eigenpair; the number may still lie in the spectrum.
Noise adds to every residual: no function of a noise-driven state moves exactly as lambda^t, the true eigenfunctions of the
averaged operator included.
Source: Colbrook & Townsend, Commun. Pure Appl. Math. 77, 221 (2024), sec. 3.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Complex, Float, Int

from dynsys.errors import InvalidValue

LIMIT = 0.05  # the residual up to which an eigenpair is trusted
CONSTANT = 1e-8  # an eigenvalue so near 1 is that of the constants
SPURIOUS = 5.0  # limits: a residual above so many is called spurious, one in between doubtful


@dataclass(frozen=True)
class KoopmanSpectrum:
    """S eigenpairs, smallest residual first: phi_i(x) = psi(x)^T vectors[:, i], mean |phi_i|^2 = 1 over the data.

    values (S,): for one sampling interval `dt`. residuals (S,) and their standard errors (S,), NaN where unknown. floors (S,):
    residuals below are rounding. vectors (F, S). modes (S, N): x ~ sum_i phi_i(x) modes[i]; None if not asked for. count: pairs of
    points. steps: sampling intervals between the two points of a pair: residuals are those of (lambda^steps, phi).
    """

    values: Complex[np.ndarray, " S"]
    residuals: Float[np.ndarray, " S"]
    errors: Float[np.ndarray, " S"]
    floors: Float[np.ndarray, " S"]
    vectors: Complex[np.ndarray, "F S"]
    modes: Complex[np.ndarray, "S N"] | None
    count: int
    dt: float = 1.0
    steps: int = 1
    notes: tuple[str, ...] = ()

    @property
    def continuous(self) -> Complex[np.ndarray, " S"]:
        """log(values) / dt, the generator's eigenvalues, in the strip |imag| <= pi / dt; -inf for the value 0."""
        with np.errstate(divide="ignore"):
            return np.log(np.abs(self.values)) / self.dt + 1j * (np.angle(self.values) / self.dt)

    @property
    def growth_rates(self) -> Float[np.ndarray, " S"]:
        """The real parts, per unit of time."""
        return np.real(self.continuous)

    @property
    def frequencies(self) -> Float[np.ndarray, " S"]:
        """The imaginary parts over 2 pi, in cycles per unit of time."""
        return np.imag(self.continuous) / (2 * np.pi)

    @property
    def rate_bounds(self) -> Float[np.ndarray, " S"]:
        """The largest |d continuous| of numbers within the residual of lambda, per unit of time; inf where 0 is among them."""
        size = np.abs(self.values) ** self.steps
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(self.residuals < size, self.residuals / size, 1.0)
            return -np.log1p(-share) / (self.dt * self.steps)

    def trusts(self, limit: float = LIMIT) -> Bool[np.ndarray, " S"]:
        """Which residuals are at most `limit`. Raises InvalidValue unless it is positive."""
        if not limit > 0:
            raise InvalidValue(f"KoopmanSpectrum: limit must be positive, got limit={limit}: the largest residual that is trusted.")
        return self.residuals <= limit

    def trusted(self, limit: float = LIMIT) -> "KoopmanSpectrum":
        """The filtered spectrum: the eigenpairs of residual at most `limit`."""
        return self.taken(np.flatnonzero(self.trusts(limit)))

    def taken(self, index: Int[np.ndarray, " K"]) -> "KoopmanSpectrum":
        """Eigenpairs by number, in that order; `taken(np.argsort(-abs(values)))` sorts by modulus."""
        parts: dict[str, Any] = {name: getattr(self, name)[index] for name in ("values", "residuals", "errors", "floors")}
        modes = None if self.modes is None else self.modes[index]
        return dataclasses.replace(self, **parts, vectors=self.vectors[:, index], modes=modes)

    def eigenfunctions(self, psi: Float[np.ndarray, "R F"]) -> Complex[np.ndarray, "R S"]:
        """phi of features, (R, F) -> (R, S)."""
        return psi @ self.vectors

    def words(self, limit: float = LIMIT, most: int = 10) -> tuple[str, ...]:
        """Plain sentences: a summary, one for each eigenvalue (conjugates together; `most` trusted and `most` others), the notes."""
        good = self.trusts(limit)
        one = [i for i in range(len(self.values)) if self.values[i].imag >= 0]  # conjugate pairs once
        said = [
            f"{int(good.sum())} of {len(self.values)} eigenpairs have a residual of at most {limit:g} and are trusted, "
            f"from {self.count} pairs of points."
        ]
        for wanted in (True, False):
            rows = [i for i in one if bool(good[i]) is wanted]
            said += [self._sentence(i, limit) for i in rows[:most]]
            if len(rows) > most:
                start = f"{self.residuals[rows[most]]:.2g}"
                said.append(f"{len(rows) - most} more are {'' if wanted else 'not '}trusted; their residuals start at {start}.")
        return (*said, *self.notes)

    def _sentence(self, i: int, limit: float) -> str:
        value, residual, error = self.values[i], float(self.residuals[i]), float(self.errors[i])
        shown = f"{residual:.2g} ± {error:.1g}" if np.isfinite(error) and error > self.floors[i] else f"{residual:.2g}"
        shown = shown if residual > self.floors[i] else f"0 to rounding (below {self.floors[i]:.1g})"
        start = f"eigenvalue {_number(value)}: residual {shown}"
        if np.isfinite(error) and abs(residual - limit) < 2 * error:
            return f"{start}: undecided: the limit {limit:g} is within two standard errors. More data would decide."
        if not np.isfinite(residual):
            return f"{start}: no eigenfunction: it vanishes on the data."
        if residual > limit:
            verdict = "spurious" if residual > SPURIOUS * limit else "doubtful"
            what = "lambda" if self.steps == 1 else f"lambda^{self.steps}"
            return f"{start}: {verdict}: over {_steps(self.steps)} its function misses {what} times itself by {_percent(residual)}."
        told, bound = f"{start}: trusted", float(self.rate_bounds[i])
        if not np.isfinite(bound):
            return f"{told}, but 0 lies within it: its function is gone after {_steps(self.steps)}, and no rate is known."
        rate = self.continuous[i]
        told += f": growth rate {rate.real:.3g}, frequency {rate.imag / (2 * np.pi):.3g}"
        told += f", the rate known to within {bound:.1g} per unit of time." if bound > 0 else "."
        if abs(value - 1) > CONSTANT and residual > abs(value**self.steps - 1):
            told += " Over so short a time it can't be told from a constant of the motion: test it over more steps."
        return told


def ordering(values: Complex[np.ndarray, " S"], residuals: Float[np.ndarray, " S"]) -> Int[np.ndarray, " S"]:
    """Smallest residual first; conjugates side by side, the one of positive frequency first."""
    digits = np.array([float(f"{r:.6e}") for r in residuals])  # equal for conjugates whatever the rounding
    return np.lexsort((-np.imag(values), -np.round(np.abs(values), 12), digits))


def _number(value: complex) -> str:
    if value.imag == 0:
        return f"{value.real:.4g}"
    return f"{value.real:.4g} ± {abs(value.imag):.4g}i"


def _steps(count: int) -> str:
    return "one step" if count == 1 else f"{count} steps"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if 0.1 <= share < 10 else f"{100 * share:.2g} %"

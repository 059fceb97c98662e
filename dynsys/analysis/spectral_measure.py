"""Spectral measures: how an observable of a measure-preserving system splits into frequencies, continuous parts and all.

    mean g(x[t+n]) conj(g(x[t])) = integral exp(i n theta) d nu(theta),    -pi <= theta < pi

A lone frequency (quasi-periodic motion) is an atom of nu, chaos a density. What is computed is nu smoothed by a kernel, rho = K * nu:

    from a series       K(theta) = (1/2 pi) sum_{|n|<=N} f(n/N) exp(-i n theta),     f one of the filters below
    from moments        K(theta) = (1/2 pi) Im sum_j c_j cot((theta - eps a_j) / 2),     sum_j c_j a_j^k = [k = 0], k < m
        rho(theta) = (1/2 pi) Re sum_j c_j < (w_j + K)(w_j - K)^-1 g, g >,    w_j = exp(i (theta - eps a_j)), K the operator

with a_j = 2j/(m+1) - 1 + i. The second is the rational kernel of order m on the line, made periodic; m = 1 is the Poisson kernel.
Where nu has a smooth density the error falls as eps^m (times a logarithm), or as N^-p with the filter's order p. Kernels of
higher order are negative in places, and so may rho be.
Source: Colbrook & Townsend, Commun. Pure Appl. Math. 77, 221 (2024), sec. 4 (filters) and 5 (rational kernels).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Complex, Float, Inexact, Num

from dynsys.analysis.compression import Compression, compressed
from dynsys.errors import InvalidValue
from dynsys.models.koopman.moments import Moments

Filter = Callable[[Float[np.ndarray, " K"]], Float[np.ndarray, " K"]]
INVARIANT = 0.05  # relative change of mean |g|^2 over a step up to which a measure passes for invariant
BUMP = math.log(4.0 / math.log(2.0)) / 16.0  # makes bump(1/2) = 1/2


def hat(s: Float[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
    """1 - |s|: order 1; the smoothed measure is nowhere negative."""
    return 1.0 - np.abs(s)


def cosine(s: Float[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
    """(1 + cos(pi s)) / 2: order 2."""
    return (1.0 + np.cos(np.pi * s)) / 2.0


def fourth_order(s: Float[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
    """1 - s^4 (35 - 84 |s| + 70 s^2 - 20 |s|^3): order 4."""
    a = np.abs(s)
    return 1.0 - a**4 * (35.0 - 84.0 * a + 70.0 * a**2 - 20.0 * a**3)


def bump(s: Float[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
    """exp(-2 / (1 - |s|) exp(-c / s^4)), c such that it is 1/2 at 1/2: faster than any power for smooth densities."""
    a = np.clip(np.abs(s), 1e-9, 1.0 - 1e-9)
    with np.errstate(over="ignore", under="ignore"):
        return np.where(np.abs(s) < 1.0, np.exp(-2.0 / (1.0 - a) * np.exp(-BUMP / a**4)), 0.0)


@dataclass(frozen=True)
class FourierKernel:
    """The kernel of a filter on lags up to N."""

    lags: int
    filter: Filter = bump

    def __post_init__(self):
        if isinstance(self.lags, bool) or not isinstance(self.lags, int | np.integer) or self.lags < 1:
            raise InvalidValue(f"FourierKernel: lags must be a whole number of at least 1, got lags={self.lags!r}.")

    @property
    def weights(self) -> Float[np.ndarray, " L"]:
        """f(n/N) for n = 0..N."""
        return self.filter(np.arange(self.lags + 1) / self.lags)

    @property
    def width(self) -> float:
        """2 pi / N: structure finer than this is smoothed away."""
        return 2 * np.pi / self.lags

    def __call__(self, theta: Float[np.ndarray, "*P"]) -> Float[np.ndarray, "*P"]:
        """K(theta), of integral 1 over the circle."""
        flat = np.ravel(theta)
        return transformed(self.weights.astype(complex), flat).reshape(np.shape(theta))


@dataclass(frozen=True)
class RationalKernel:
    """The rational kernel of order m and width epsilon, made periodic."""

    order: int = 6
    epsilon: float = 0.1

    def __post_init__(self):
        if isinstance(self.order, bool) or not isinstance(self.order, int | np.integer) or not 1 <= self.order <= 20:
            raise InvalidValue(f"RationalKernel: order must be a whole number in [1, 20], got order={self.order!r}.")
        if not 0 < self.epsilon < np.pi:
            raise InvalidValue(f"RationalKernel: epsilon must be in (0, pi), got epsilon={self.epsilon}: its width as an angle.")

    @property
    def poles(self) -> Complex[np.ndarray, " m"]:
        """a_j, equispaced on the line of imaginary part 1."""
        return 2.0 * np.arange(1, self.order + 1) / (self.order + 1) - 1.0 + 1j

    @property
    def weights(self) -> Complex[np.ndarray, " m"]:
        """c_j = prod_{k != j} a_k / (a_k - a_j), the solution of the Vandermonde system."""
        a = self.poles
        return np.array([np.prod([a[k] / (a[k] - a[j]) for k in range(len(a)) if k != j]) for j in range(len(a))], complex)

    @property
    def width(self) -> float:
        """epsilon."""
        return self.epsilon

    def __call__(self, theta: Float[np.ndarray, "*P"]) -> Float[np.ndarray, "*P"]:
        """K(theta), of integral 1 over the circle."""
        shifted = np.asarray(theta)[..., None] - self.epsilon * self.poles
        return np.imag((1.0 / np.tan(shifted / 2.0)) @ self.weights) / (2 * np.pi)


@dataclass(frozen=True)
class SpectralMeasure:
    """The smoothed density rho at `angles` (P,), radians per sampling interval: the mass between two angles is its integral.

    mass: nu of the whole circle, mean |g|^2. kernel: what nu was smoothed with. bounds (P,): how far a larger dictionary can move
    the density (in the limit of many samples); None from a series, which knows no dictionary. note: how to read it.
    """

    angles: Float[np.ndarray, " P"]
    density: Float[np.ndarray, " P"]
    mass: float
    kernel: FourierKernel | RationalKernel
    bounds: Float[np.ndarray, " P"] | None
    note: str

    def frequencies(self, dt: float = 1.0) -> Float[np.ndarray, " P"]:
        """The angles in cycles per unit of time; dt: sampling interval."""
        return self.angles / (2 * np.pi * dt)


def spectral_measure(
    source: Moments | Compression,
    observable: Inexact[np.ndarray, " F"],
    angles: Float[np.ndarray, " P"],
    *,
    kernel: RationalKernel | None = None,
    rank: int | None = None,
) -> SpectralMeasure:
    """The measure of g = psi^T observable, by the resolvent in the span of the dictionary; kernel: RationalKernel() if None.

    The system must preserve the measure that the data sample (the note says by how much it does not). A small epsilon needs a
    large dictionary: `bounds` = sum_j |c_j w_j| |R u_j| |g| / (pi (|w_j| - 1)) with u_j = (w_j - A)^-1 g, and R what leaves the span.
    Raises InvalidValue for coefficients of another length or angles that are not finite.
    """
    space, kernel = compressed(source, rank), RationalKernel() if kernel is None else kernel
    angles = np.asarray(angles, float)
    if observable.shape != space.W.shape[:1] or angles.ndim != 1 or not np.isfinite(angles).all():
        raise InvalidValue(
            f"spectral_measure: wants {space.W.shape[0]} coefficients of an observable and finite angles (P,), "
            f"got shapes {observable.shape} and {angles.shape}."
        )
    from scipy.linalg import schur

    g = (space.coordinates @ observable).astype(complex)
    T, Q = schur(space.A.astype(complex), output="complex")[:2]
    start, mass = Q.conj().T @ g, float(np.vdot(g, g).real)
    density, bounds = np.full(len(angles), -mass), np.zeros(len(angles))
    leaving = space.R @ Q
    for a, c in zip(kernel.poles, kernel.weights, strict=True):
        w = np.exp(1j * (angles - kernel.epsilon * a))
        u = _resolved(T, w, start)
        density += 2.0 * np.real(c * w * (u @ start.conj()))
        gone = np.linalg.norm(u @ leaving.T, axis=1)
        bounds += 2.0 * np.abs(c * w) * gone * mass**0.5 / (np.abs(w) - 1.0)
    note = f"Smoothed over {kernel.width:.2g} rad: an atom of mass m is a peak of height {kernel(np.zeros(1))[0]:.2g} m."
    if space.expansion > INVARIANT:
        note += (
            f" The mean of |g|^2 changes by up to {100 * space.expansion:.2g} % over a step: the data do not sample an invariant "
            "measure, or too few of them, and this is no spectral measure."
        )
    return SpectralMeasure(angles, density / (2 * np.pi), mass, kernel, bounds / (2 * np.pi), note)


def spectral_measure_of_series(
    series: Any, angles: Float[np.ndarray, " P"] | None = None, *, kernel: FourierKernel | None = None, centred: bool = False
) -> SpectralMeasure:
    """The measure of an observable along trajectories: one (T,), real or complex, or a list of them.

    angles: None: 4 N of them over [-pi, pi). kernel: None: the bump filter on a tenth of the longest trajectory, at most 1000 lags.
    centred: take the mean off, and with it the atom at 0. Raises InvalidValue if no trajectory is longer than the lags.
    """
    who = "spectral_measure_of_series"
    runs = _runs(who, series)
    kernel = _default(runs) if kernel is None else kernel
    angles = _circle(4 * kernel.lags) if angles is None else np.asarray(angles, float)
    if angles.ndim != 1 or not np.isfinite(angles).all():
        raise InvalidValue(f"{who}: angles must be finite and of shape (P,), got shape {angles.shape}.")
    found = autocorrelations(runs, kernel.lags, centred=centred)
    note = (
        f"Smoothed over {kernel.width:.2g} rad: an atom of mass m is a peak of height {kernel(np.zeros(1))[0]:.2g} m. "
        "It is the measure of an ergodic system seen on its attractor: leave transients out."
    )
    return SpectralMeasure(angles, transformed(kernel.weights * found, angles), float(found[0].real), kernel, None, note)


def autocorrelations(series: Any, lags: int, *, centred: bool = False) -> Complex[np.ndarray, " L"]:
    """mean_t g[t+n] conj(g[t]) for n = 0..lags, over all pairs of the trajectories; by zero-padded FFT."""
    runs = _runs("autocorrelations", series)
    longest = max(len(g) for g in runs)
    if not 0 <= lags < longest:
        raise InvalidValue(f"autocorrelations: lags must be in [0, {longest - 1}], got {lags}: a trajectory has at most {longest} points.")
    if centred:
        mean = np.concatenate(runs).mean()
        runs = [g - mean for g in runs]
    total, count = np.zeros(lags + 1, complex), np.zeros(lags + 1)
    for g in runs:
        size = 1 << (2 * len(g)).bit_length()
        power = np.abs(np.fft.fft(g, size)) ** 2
        some = min(lags, len(g) - 1) + 1
        total[:some] += np.fft.ifft(power)[:some]
        count[:some] += len(g) - np.arange(some)
    return total / count


def atoms(
    series: Any, *, kernel: FourierKernel | None = None, least: float = 0.01
) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"]]:
    """Angles and masses of the atoms that hold at least a share `least` of the measure, heaviest first: (K,), (K,).

    The highest peak is taken for an atom if its height over K(0) hardly falls (by less than a quarter) from N/2 to N lags, where it
    halves for a density; its waves are taken off the autocorrelations, all masses fitted anew, and the next peak is looked at. Atoms
    closer than two widths of the kernel are taken for one, and a density's peak narrower than the kernel is taken for an atom: more
    lags tell. Raises InvalidValue for fewer than 8 lags or `least` outside (0, 1).
    """
    runs = _runs("atoms", series)
    kernel = _default(runs) if kernel is None else kernel
    if kernel.lags < 8 or not 0 < least < 1:
        raise InvalidValue(f"atoms: needs a kernel of at least 8 lags and least in (0, 1), got {kernel.lags} lags and {least=}.")
    a, half, n = autocorrelations(runs, kernel.lags), FourierKernel(kernel.lags // 2, kernel.filter), np.arange(kernel.lags + 1)
    angles, top, top_half = _circle(16 * kernel.lags), kernel(np.zeros(1))[0], half(np.zeros(1))[0]
    free, left = np.ones(len(angles), bool), a
    theta, mass = np.zeros(0), np.zeros(0)
    while free.any():
        rho = transformed(kernel.weights * left, angles) / top
        i = int(np.argmax(np.where(free, rho, -np.inf)))
        if rho[i] < least * a[0].real:
            break
        free &= _apart(angles, angles[i]) > 2 * kernel.width
        below, above = rho[i - 1], rho[(i + 1) % len(rho)]
        bend = below - 2 * rho[i] + above
        place = angles[i : i + 1] + (angles[1] - angles[0]) * np.clip(0.5 * (below - above) / bend if bend < 0 else 0.0, -0.5, 0.5)
        coarse = transformed(half.weights * left[: half.lags + 1], place) / top_half
        if rho[i] > 0.75 * coarse[0]:
            theta = np.append(theta, place)
            gram = kernel(theta[:, None] - theta[None, :])
            mass = np.linalg.solve(gram, transformed(kernel.weights * a, theta))
            left = a - np.exp(1j * n[:, None] * theta[None, :]) @ mass
    order = np.argsort(-mass, kind="stable")
    return theta[order], mass[order]


def transformed(a: Complex[np.ndarray, " L"], theta: Float[np.ndarray, " P"]) -> Float[np.ndarray, " P"]:
    """(1/2 pi) sum_{|n|<=N} a_n exp(-i n theta) with a_{-n} = conj(a_n), at any angles, by Horner's scheme."""
    turn, total = np.exp(-1j * theta), np.zeros(len(theta), complex)
    for one in a[:0:-1]:
        total = (total + one) * turn
    return (a[0].real + 2.0 * np.real(total)) / (2 * np.pi)


def _resolved(T: Complex[np.ndarray, "r r"], w: Complex[np.ndarray, " P"], g: Complex[np.ndarray, " r"]) -> Complex[np.ndarray, "P r"]:
    """(w - T)^-1 g for upper triangular T at P points, by back substitution on all of them."""
    u = np.zeros((len(w), len(g)), complex)
    for i in range(len(g) - 1, -1, -1):
        u[:, i] = (g[i] + u[:, i + 1 :] @ T[i, i + 1 :]) / (w - T[i, i])
    return u


def _default(runs: list[Num[np.ndarray, " T"]]) -> FourierKernel:
    return FourierKernel(int(np.clip(max(len(g) for g in runs) // 10, 1, 1000)))


def _apart(angles: Float[np.ndarray, " P"], place: float) -> Float[np.ndarray, " P"]:
    return np.abs((angles - place + np.pi) % (2 * np.pi) - np.pi)


def _circle(points: int) -> Float[np.ndarray, " P"]:
    return -np.pi + 2 * np.pi * np.arange(points) / points


def _runs(who: str, series: Any) -> list[Num[np.ndarray, " T"]]:
    runs = [np.asarray(g) for g in series] if isinstance(series, Sequence) and np.ndim(series[0]) else [np.asarray(series)]
    if any(g.ndim != 1 or len(g) == 0 or not np.isfinite(g).all() for g in runs):
        raise InvalidValue(
            f"{who}: wants finite numbers of shape (T,), one trajectory or a list, got shapes {[g.shape for g in runs][:5]}."
        )
    return runs

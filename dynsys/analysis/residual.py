"""Residual dynamic mode decomposition: eigenpairs of a fitted Koopman operator, tested on the operator itself.

    K v = lambda v,    phi(x) = psi(x)^T v,    residual^2 = mean |phi(y) - lambda phi(x)|^2 / mean |phi(x)|^2

A regression on F functions always has F eigenvalues, most of them often of no meaning. The residual is the one-step error of the
eigenfunction over the data, not of the regression inside its span, so it sees what leaves the span.

    residual_dmd            from moments, which see residuals down to about 1e-8
    residual_dmd_of_pairs   from features of pairs, down to about 1e-14; in memory
    koopman_spectrum        of any linear Koopman model, on trajectories of any length; with standard errors and modes

Source: Colbrook & Townsend, Commun. Pure Appl. Math. 77, 221 (2024), algorithms 1 and 2.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Complex, Float

from dynsys.analysis.arrays import as_float
from dynsys.analysis.compression import EPS, Compression, compressed
from dynsys.analysis.koopman_spectrum import KoopmanSpectrum, ordering
from dynsys.errors import InvalidValue
from dynsys.models.koopman.lifted import AbstractLifted, AbstractLinear, windows
from dynsys.models.koopman.moments import BLOCK, Lift, Moments, lifted_runs
from dynsys.models.regressed import as_numpy
from dynsys.precision import x64

BATCHES = 32  # parts of the data whose spread gives the standard error
VANISHING = 1e-13  # an eigenfunction so much smaller than its terms is zero to rounding
DRIVEN = (
    "The model has inputs and is analysed without them (u = 0): on data that inputs drove, residuals hold their effect too. "
    "Give a stretch without inputs."
)

REENCODED = (
    "The model is encoded anew in a run (reencode={}): these are the eigenpairs of its latent matrix, not of such a run, which is a "
    "nonlinear map."
)


def residual_dmd(
    moments: Moments | Compression,
    *,
    ridge: float = 0.0,
    rank: int | None = None,
    dt: float = 1.0,
    observed: Float[np.ndarray, "F N"] | None = None,
) -> KoopmanSpectrum:
    """Eigenpairs of K = G^+ A (`moments.solve(ridge, rank)`, zeros of a cut rank left out) with residuals.

    ridge: relative to the largest eigenvalue of the scaled G. rank: directions kept; None: all but those that are rounding.
    dt: sampling interval. observed: coefficients C of observables x = psi^T C, for their modes. Standard errors need the data and
    are NaN. Raises InvalidValue for bad settings.
    """
    _check_dt("residual_dmd", dt)
    space = compressed(moments, rank)
    values, C = np.linalg.eig(space.operator(ridge))
    values, C = values.astype(complex), C.astype(complex)
    C /= np.linalg.norm(C, axis=0)
    residuals, vectors = space.residual(values, C), space.W @ C
    order = ordering(values, residuals)
    unknown = np.full(len(values), np.nan)
    modes = None if observed is None else np.linalg.pinv(C[:, order]) @ (space.coordinates @ observed)
    return KoopmanSpectrum(values[order], residuals[order], unknown, space.floors(C)[order], vectors[:, order], modes, space.count, dt)


def residual_dmd_of_pairs(
    before: Float[np.ndarray, "P F"],
    after: Float[np.ndarray, "_ _"],
    weights: Float[np.ndarray, " _"] | None = None,
    *,
    ridge: float = 0.0,
    rank: int | None = None,
    dt: float = 1.0,
    observed: Float[np.ndarray, "F N"] | None = None,
) -> KoopmanSpectrum:
    """The same from features of P pairs, with weights (P,) of sum 1 (default: all equal), such as those of a quadrature rule."""
    return residual_dmd(Compression.of_pairs(before, after, weights, rank), ridge=ridge, dt=dt, observed=observed)


def koopman_spectrum(model: AbstractLinear, series: Any, *, dt: float = 1.0, steps: int = 1, with_modes: bool = True) -> KoopmanSpectrum:
    """Eigenpairs of the model's latent matrix with their residuals on trajectories [(T, N), ...] or one (T, N).

    A left eigenvector v of `matrix` is an eigenfunction, phi(w) = v^T encode(w). dt: sampling interval. steps: of a pair: where
    sampling is fine, everything smooth has a small residual over one step; over n steps residuals are those of (lambda^n, phi).
    with_modes: fit x ~ sum_i phi_i modes_i to the data too. Data that the model was not fitted on give the honest residual.

    Everything is read once, in blocks. Raises InvalidValue for bad settings, series too short, or values that are not finite.
    """
    who = "koopman_spectrum"
    _check_dt(who, dt)
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
        raise InvalidValue(f"{who}: steps must be a whole number of at least 1, got steps={steps!r}: between the points of a pair.")
    runs = trajectories(who, series, model.n_obs)
    pairs = sum(max(0, x.shape[0] - model.delays + 1 - steps) for x in runs)
    if pairs < 2:
        raise InvalidValue(f"{who}: no two pairs of points {steps} steps apart after {model.delays} delays; give longer trajectories.")
    values, V = np.linalg.eig(np.asarray(as_numpy(model).matrix, float).T)
    values, V = values.astype(complex), V.astype(complex)
    half = np.flatnonzero(np.imag(values) >= 0)  # LAPACK puts conjugates side by side, this one first: it does for both
    both = np.cumsum(np.imag(values) >= 0) - 1
    moved, parts = values[half] ** steps, np.concatenate([np.real(V[:, half]), np.imag(V[:, half])], axis=1)
    block = int(np.clip(pairs // BATCHES, 1, BLOCK))
    missed, size = [], []
    G, cross = np.zeros((len(values),) * 2), np.zeros((len(values), model.n_obs))
    for x, psi in _stretches(encoder(model, block + steps), runs, model.delays, steps, block):
        if not np.isfinite(psi).all():
            raise InvalidValue(f"{who}: encoding the series gives NaN or inf. Drop such points, or choose functions that stay finite.")
        real, imaginary = np.split(psi @ parts, 2, axis=1)
        phi = real + 1j * imaginary
        missed.append(_squares(phi[steps:] - phi[:-steps] * moved[None, :]))
        size.append(_squares(phi[:-steps]))
        G += psi[:-steps].T @ psi[:-steps] / pairs
        cross += psi[:-steps].T @ x[:-steps] / pairs
    largest = np.sqrt(np.diag(G)) @ np.abs(V)  # phi without any cancellation
    residuals, errors, norm = (one[both] for one in _ratio(np.array(missed), np.array(size), pairs, VANISHING * largest[half]))
    V, largest = V / norm[None, :], largest / norm
    floors = EPS * (1 + np.abs(values) ** steps) * largest
    order = ordering(values, residuals)
    modes = None
    if with_modes:
        modes = np.linalg.lstsq(V.conj().T @ G @ V, V.conj().T @ cross, rcond=1e-12)[0][order]
    return KoopmanSpectrum(
        values[order],
        residuals[order],
        errors[order],
        floors[order],
        V[:, order],
        modes,
        pairs,
        dt,
        int(steps),
        ((DRIVEN,) if model.n_inputs else ()) + ((REENCODED.format(model.reencode),) if model.reencode else ()),
    )


def latent_moments(model: AbstractLifted, series: Any) -> Moments:
    """The moments of a model's latent states along trajectories, for pseudospectra and spectral measures; streamed."""
    return Moments.of(lifted_runs(encoder(model), trajectories("latent_moments", series, model.n_obs), model.delays))


def encoder(model: AbstractLifted, rows: int = BLOCK + 1) -> Lift:
    """`model.encode` of many windows at once, (R, D N) -> (R, L), in float64: compiled for `rows` windows at a time.

    A dictionary of the user that is written for NumPy alone is called row by row.
    """
    with x64():
        batched = jax.jit(jax.vmap(as_float(model).encode))
    plain: list[Callable[[Any], Any]] = []

    def compiled(w: np.ndarray) -> np.ndarray:
        parts = []
        for a in range(0, len(w), rows):
            part = w[a : a + rows]
            filled = np.concatenate([part, np.repeat(part[-1:], rows - len(part), axis=0)])
            parts.append(np.asarray(batched(filled))[: len(part)])
        return np.concatenate(parts)

    def lift(w: np.ndarray) -> np.ndarray:
        if not plain:
            try:
                with x64():
                    return compiled(w)
            except jax.errors.TracerArrayConversionError:
                plain.append(as_numpy(model).encode)
        return np.stack([plain[0](row) for row in w])

    return lift


def trajectories(who: str, series: Any, n_obs: int) -> list[Any]:
    """The trajectories of a list, or the one array as a list. Raises InvalidValue unless all are (T, N)."""
    runs = list(series) if isinstance(series, Sequence) else [series]
    shapes = [tuple(np.shape(x)) for x in runs]
    if not runs or any(len(shape) != 2 or shape[1] != n_obs for shape in shapes):
        raise InvalidValue(f"{who}: wants trajectories of shape (T, {n_obs}), one or a list, as the model observes; got {shapes[:5]}.")
    return runs


def _stretches(
    lift: Lift, runs: list[Any], delays: int, steps: int, block: int
) -> Iterator[tuple[Float[np.ndarray, "R N"], Float[np.ndarray, "R F"]]]:
    """Points and features of stretches of at most `block` pairs and `steps` rows more."""
    for x in runs:
        rows = x.shape[0] - delays + 1
        for a in range(0, rows - steps, block):
            stretch = np.asarray(x[a : min(a + block + steps, rows) + delays - 1], float)
            yield stretch[delays - 1 :], lift(windows(stretch, delays))


def _ratio(
    missed: Float[np.ndarray, "B S"], size: Float[np.ndarray, "B S"], pairs: int, least: Float[np.ndarray, " S"]
) -> tuple[Float[np.ndarray, " S"], Float[np.ndarray, " S"], Float[np.ndarray, " S"]]:
    """sqrt(sum missed / sum size), its standard error from the spread of batches (a ratio estimator), and root mean size.

    Where that is at most `least` (S,), the function vanishes on the data: inf, NaN and 1.
    se(q) = sqrt(B/(B-1) sum_b (missed_b - q size_b)^2) / sum size,  q = residual^2;  se(residual) = se(q) / (2 residual).
    """
    cuts = np.unique(np.linspace(0, len(missed), min(BATCHES, len(missed)) + 1).astype(int))[:-1]
    missed, size = np.add.reduceat(missed, cuts, axis=0), np.add.reduceat(size, cuts, axis=0)
    total, batches = size.sum(axis=0), len(size)
    seen = total > pairs * least**2
    safe = np.where(seen, total, 1.0)
    square = missed.sum(axis=0) / safe
    spread = np.sqrt(batches / max(batches - 1, 1) * np.sum((missed - square[None, :] * size) ** 2, axis=0)) / safe
    residual = np.sqrt(square)
    error = np.where(residual > 0, spread / np.where(residual > 0, 2 * residual, 1.0), 0.0)
    error = np.where(seen, error if batches > 1 else np.nan, np.nan)
    return np.where(seen, residual, np.inf), error, np.where(seen, np.sqrt(total / pairs), 1.0)


def _squares(phi: Complex[np.ndarray, "R S"]) -> Float[np.ndarray, " S"]:
    return np.sum(np.real(phi) ** 2 + np.imag(phi) ** 2, axis=0)


def _check_dt(who: str, dt: float) -> None:
    if not 0 < dt < np.inf:
        raise InvalidValue(f"{who}: dt must be positive and finite, got dt={dt}: the sampling interval.")

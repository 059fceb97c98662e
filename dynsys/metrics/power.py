"""D_H: how far the power spectra of a free run are from those of the data, as a Hellinger distance in [0, 1].

    D_H = mean over dimensions of sqrt(1 - sum_f sqrt(P(f) Q(f))) = mean of sqrt(1/2 sum_f (sqrt P(f) - sqrt Q(f))^2)

P and Q: normalised power spectra of the true and of the made series (mean removed), smoothed by a Gaussian over frequency
bins. The bins are 1 / T wide, so a smoothing of 20 bins means another bandwidth for another T: **compare values of D_H only
for equal T.** Amplitude and phase play no part. Source: Mikhaeil, Monfared & Durstewitz, NeurIPS 2022; Hess et al., ICML 2023.
"""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Real

from dynsys.analysis.arrays import check_series, check_true, namespace
from dynsys.analysis.spectrum import normalised_power
from dynsys.errors import InvalidValue
from dynsys.precision import x64

DEAD = 1e-6  # a made column whose range is below this share of the true column's range counts as constant


def power_spectrum_distance(true: Real[Any, "..."], made: Real[Any, "..."], *, smoothing: float = 20.0, length: int | None = None) -> float:
    """Mean over dimensions of the Hellinger distance of normalised, Gaussian-smoothed power spectra: 0 equal, 1 disjoint.

    smoothing: sigma of the Gaussian in frequency bins of width 1 / T. length: T; both series are cut to their first T points
    (default: the shorter one's length). The value depends on T: state it, and compare only values of equal T.

    true (T, N) or (B, T, N): the spectra of several true series are averaged. made (S, N) or (B, S, N): the distances of
    several runs are averaged, so that a dead run counts. A made column that is constant (range below 1e-6 of the true one)
    has distance 1; a run that holds a value that is not finite has distance 1 in every dimension.
    Raises InvalidValue for input that can't be compared. Source: Mikhaeil et al., NeurIPS 2022; Hess et al., ICML 2023.
    """
    who = "power_spectrum_distance"
    check_series(who, "true", true, batched=True)
    check_series(who, "made", made, batched=True)
    if np.shape(true)[-1] != np.shape(made)[-1]:
        raise InvalidValue(f"{who}: true has N={np.shape(true)[-1]} columns but made has {np.shape(made)[-1]}; both must observe the same.")
    shorter = min(np.shape(true)[-2], np.shape(made)[-2])
    steps = shorter if length is None else length
    if not 2 <= steps <= shorter:
        raise InvalidValue(f"{who}: length must be in [2, {shorter}], the shorter series' length, got {steps}.")
    if not smoothing >= 0:
        raise InvalidValue(f"{who}: smoothing must be at least 0 bins, got smoothing={smoothing}.")
    true = true[..., :steps, :]
    check_true(who, true)
    with x64():
        distance = spectral_distance if namespace(true, made) is np else _compiled_distance
        return float(distance(true, made[..., :steps, :], smoothing=smoothing))


def spectral_distance(true: Real[Any, "*series T N"], made: Real[Any, "*runs T N"], *, smoothing: float) -> Float[Any, ""] | float:
    """`power_spectrum_distance` for series of equal length, without checks: for use inside jit."""
    xp = namespace(true, made)
    reference = xp.asarray(true, dtype=float)
    reference = reference.reshape(-1, *reference.shape[-2:])
    runs = xp.asarray(made, dtype=float).reshape(-1, *reference.shape[-2:])
    least = DEAD * (reference.max(axis=(0, 1)) - reference.min(axis=(0, 1)))
    if xp is np:
        p = np.mean([normalised_power(series, smoothing) for series in reference], axis=0)
        return float(np.mean([_distance(p, run, least, smoothing, xp) for run in runs]))
    p = jax.vmap(lambda series: normalised_power(series, smoothing))(reference).mean(axis=0)
    return jax.vmap(lambda run: _distance(p, run, least, smoothing, xp))(runs).mean()


_compiled_distance = jax.jit(spectral_distance, static_argnames="smoothing")  # as one program of the accelerator


def _distance(p: Float[Any, "F N"], run: Float[Any, "T N"], least: Float[Any, " N"], smoothing: float, xp: Any) -> Float[Any, " N"]:
    """Hellinger distance in every dimension; 1 for a dead column, 1 throughout for a run that is not finite."""
    finite = xp.isfinite(run).all()
    safe = xp.where(xp.isfinite(run), run, 0.0)
    dead = (safe.max(axis=0) - safe.min(axis=0) < least) | ~finite
    ramp = xp.arange(len(run), dtype=safe.dtype)[:, None]  # any series that is not constant, to keep NaN out of the dead columns
    return xp.where(dead, 1.0, hellinger(p, normalised_power(xp.where(dead[None, :], ramp, safe), smoothing)))


def hellinger(p: Float[Any, "F ..."], q: Float[Any, "F ..."]) -> Float[Any, "..."]:
    """Hellinger distance of two distributions along the first axis, in [0, 1]; in the form that is exactly 0 for p = q."""
    xp = namespace(p, q)
    return xp.sqrt(xp.clip(0.5 * ((xp.sqrt(p) - xp.sqrt(q)) ** 2).sum(axis=0), 0.0, 1.0))

"""Lyapunov spectrum: the mean growth rates of small displacements along an orbit.

    z[t+1] = f(z[t]),   Y[t+1] = Df(z[t]) Q[t],   every few steps Y = Q R,   lambda_i = <ln R_ii> / time between two QRs

The displacements are pushed through the linearised step (for a flow: the derivative of the fixed-step method itself, not
of the field), and re-orthonormalised, few of them by modified Gram-Schmidt, which is faster than LAPACK there.
Sources: Benettin et al., Meccanica 15 (1980); Kaplan & Yorke 1979 (dimension).
"""

import dataclasses
import math
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Real

from dynsys.analysis.arrays import as_float
from dynsys.dynamics import AbstractFlow, AbstractMap, Stepper, runge_kutta_4
from dynsys.errors import InvalidValue
from dynsys.integrate.lanes import block_size, in_blocks, usable_cores
from dynsys.precision import x64
from dynsys.status import Status

_GRAM_SCHMIDT_MAX = 4  # exponents; above, LAPACK's QR runs as fast as the column loop and compiles sooner


@dataclasses.dataclass(frozen=True)
class LyapunovSpectrum:
    """Exponents (k,), largest first, per unit of time (per step for a map without dt), with standard errors (k,).

    The errors come from independent segments of the run. `kaplan_yorke` is the Lyapunov dimension, NaN if k < M exponents do not
    determine it. `steps` were averaged over; `dt` is the length of one step or None. `status` is DIVERGED (all NaN) if the
    orbit left the finite numbers.
    """

    exponents: Float[np.ndarray, " k"]
    errors: Float[np.ndarray, " k"]
    kaplan_yorke: float
    steps: int
    dt: float | None
    status: Status

    @property
    def maximal(self) -> float:
        """The maximal exponent."""
        return float(self.exponents[0])


def lyapunov_spectrum(
    system: AbstractMap | AbstractFlow,
    z0: Real[Any, "*B M"],
    *,
    steps: int,
    transient: int = 1000,
    dt: float | None = None,
    every: int | None = None,
    n_exponents: int | None = None,
    segments: int = 10,
    stepper: Stepper = runge_kutta_4,
) -> LyapunovSpectrum:
    """Lyapunov exponents of a map or a flow along the orbit of z0 (M,), or mean over the orbits of z0 (B, M), without inputs.

    Some 64 orbits take little longer than one, so that (B, M) is the quick way to small errors; all must begin in the basin
    of one attractor, and apart. steps: steps of each orbit that are averaged over, rounded up to whole segments; transient:
    steps before them, which let the orbit reach the attractor and the displacements turn into place. dt: length of a step in
    units of time; a flow needs it and takes one `stepper` step of it; a map uses it to give exponents per unit of time.
    every: steps between two orthonormalisations (default 1 for a map, 10 for a flow): exponents whose spread over `every`
    steps exceeds 36 / every per step are lost in rounding. n_exponents: only the largest k. segments: parts of each orbit;
    the standard errors come from all parts of all orbits.

    In float64 whatever the model's precision; u = None. A singular Jacobian gives -inf. Raises InvalidValue for bad settings.
    """
    flow = isinstance(system, AbstractFlow)
    count = system.dim if n_exponents is None else n_exponents
    between = (10 if flow else 1) if every is None else every
    _check(system, z0, steps, transient, dt, between, count, segments)
    per_segment = -(-steps // (between * segments))
    with x64():
        step = _FlowStep(as_float(system), float(dt), stepper) if flow and dt is not None else _MapStep(as_float(system))
        z = jnp.asarray(z0, float)
        # lengths are arrays: a run of another length uses the same compiled program
        lengths = jnp.asarray(-(-transient // between)), jnp.asarray(per_segment)
        if z.ndim == 1:
            sums, finite = _run(step, z, count, *lengths, segments, between)
        else:
            lanes = len(z)
            block = block_size(lanes, system.dim * (1 + count))
            program = partial(_run_lanes, count=count, lengths=lengths, segments=segments, every=between)
            sums, finite = in_blocks(program, z.T, step, lanes=lanes, block=block, threads=usable_cores())
        sums, finite = np.asarray(sums).reshape(-1, count), bool(finite.all())
    length = per_segment * between * (1.0 if dt is None else dt)
    rates = sums / length if finite else np.full_like(sums, np.nan)
    with np.errstate(invalid="ignore"):
        exponents, errors = rates.mean(axis=0), rates.std(axis=0, ddof=1) / math.sqrt(len(rates))
    order = np.argsort(-exponents)
    exponents, errors = exponents[order], errors[order]
    dimension = kaplan_yorke_dimension(exponents)
    if count < system.dim and dimension == count:
        dimension = math.nan
    used = per_segment * between * len(rates)
    return LyapunovSpectrum(exponents, errors, dimension, used, dt, Status.SUCCESS if finite else Status.DIVERGED)


def kaplan_yorke_dimension(exponents: Real[Any, " k"], *, tolerance: float = 0.0) -> float:
    """Lyapunov dimension j + (lambda_1 + ... + lambda_j) / |lambda_{j+1}|, j the last index with a sum that is not negative.

    exponents (k,) in any order; those within `tolerance` of 0 count as 0 (a limit cycle's -1e-5 would otherwise give 0, not
    1). k if no sum is negative; 0 for a stable fixed point; NaN if an exponent is NaN. Source: Kaplan & Yorke 1979.
    """
    ordered = np.sort(np.asarray(exponents, dtype=float))[::-1]
    if np.isnan(ordered).any():
        return math.nan
    ordered = np.where(np.abs(ordered) <= tolerance, 0.0, ordered)
    sums = np.cumsum(ordered)
    below = np.flatnonzero(sums < 0)
    if not below.size:
        return float(len(ordered))
    j = int(below[0])
    return j + (float(sums[j - 1] / -ordered[j]) if j else 0.0)


class _MapStep(eqx.Module):
    """One step of a map."""

    system: AbstractMap

    def __call__(self, z: Float[Array, " M"]) -> Float[Array, " M"]:
        return self.system.step(z)


class _FlowStep(eqx.Module):
    """One step of a fixed-step method along a flow."""

    system: AbstractFlow
    dt: float
    stepper: Stepper = eqx.field(static=True)

    def __call__(self, z: Float[Array, " M"]) -> Float[Array, " M"]:
        return self.stepper(self.system, 0.0, z, None, self.dt)


@eqx.filter_jit
def _run(
    step: Any, z: Float[Array, "M *L"], count: int, transient: Int[Array, ""], per_segment: Int[Array, ""], segments: int, every: int
) -> tuple[Float[Array, "segments k *L"], Bool[Array, "*L"]]:
    """Sums of ln R_ii over every segment, and whether the last state and all sums (but for -inf) are numbers.

    z (M,) is one orbit; (M, L) are L of them, batch last.
    """
    advance: Any = partial(_advance, step)
    orthonormalise: Any = _orthonormalise
    # not the unit vectors: where the Jacobian maps one of them to zero, its column would be lost though k exponents are finite
    q, none = jnp.asarray(_frame(z.shape[0], count), z.dtype), jnp.zeros(count, z.dtype)
    if z.ndim == 2:
        advance, orthonormalise = (jax.vmap(work, in_axes=-1, out_axes=-1) for work in (advance, orthonormalise))
        q, none = (jnp.repeat(start[..., None], z.shape[1], axis=-1) for start in (q, none))

    def block(_: Any, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        z, q, total = carry
        # not unrolled: XLA compiles ten copies of the step 10 times longer into a program that is 10 times slower (Lorenz, CPU)
        z, q = jax.lax.fori_loop(0, every, lambda _, state: advance(*state), (z, q))
        q, logs = orthonormalise(q)
        return z, q, total + logs

    def segment(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        z, q, total = jax.lax.fori_loop(0, per_segment, block, (*carry, none))
        return (z, q), total

    z, q, _ = jax.lax.fori_loop(0, transient, block, (z, q, none))
    (z, q), sums = jax.lax.scan(segment, (z, q), None, length=segments)
    return sums, jnp.isfinite(z).all(0) & ~jnp.isnan(sums).any((0, 1)) & (sums < jnp.inf).all((0, 1))


def _frame(dim: int, count: int) -> Float[np.ndarray, "M k"]:
    """Orthonormal columns in general position, always the same."""
    return np.linalg.qr(np.random.default_rng(0).standard_normal((dim, count)))[0]


def _run_lanes(
    z: Any, step: Any, *, count: int, lengths: tuple[Array, Array], segments: int, every: int
) -> tuple[Float[Array, "L segments k"], Bool[Array, " L"]]:
    """`_run` of many orbits z (M, L), lanes first in the result."""
    sums, finite = _run(step, jnp.asarray(z), count, *lengths, segments, every)
    return jnp.moveaxis(sums, -1, 0), finite


def _advance(step: Any, z: Float[Array, " M"], q: Float[Array, "M k"]) -> tuple[Float[Array, " M"], Float[Array, "M k"]]:
    """The next state and the displacements after it, by forward-mode differentiation of the step itself."""
    z, push = jax.linearize(step, z)
    return z, jax.vmap(push, in_axes=1, out_axes=1)(q)


def _orthonormalise(y: Float[Array, "M k"]) -> tuple[Float[Array, "M k"], Float[Array, " k"]]:
    """Orthonormal columns of the same nested spans, and ln R_ii.

    A column that vanished, or of which only rounding is left beside the others, has ln 0 = -inf.
    """
    count = y.shape[1]
    least = 4 * y.shape[0] * jnp.finfo(y.dtype).eps * jnp.sqrt((y**2).sum(0))
    if count > _GRAM_SCHMIDT_MAX:
        q, r = jnp.linalg.qr(y)
        size = jnp.abs(jnp.diagonal(r))
        return q, jnp.log(jnp.where(size <= least, 0.0, size))  # not so for NaN
    columns, norms = [y[:, i] for i in range(count)], []
    for i in range(count):
        norm = jnp.sqrt((columns[i] ** 2).sum())
        norm = jnp.where(norm <= least[i], 0.0, norm)  # not so for NaN
        norms.append(norm)
        columns[i] = jnp.where(norm == 0, 0.0, columns[i] / jnp.where(norm == 0, 1.0, norm))
        for j in range(i + 1, count):
            columns[j] = columns[j] - (columns[i] * columns[j]).sum() * columns[i]
    return jnp.stack(columns, axis=1), jnp.log(jnp.stack(norms))


def _check(system: Any, z0: Any, steps: int, transient: int, dt: float | None, every: int, count: int, segments: int) -> None:
    who = "lyapunov_spectrum"
    if isinstance(system, AbstractFlow) and dt is None:
        raise InvalidValue(
            f"{who}: a flow needs dt, the length of one integration step in its own unit of time. Try a 100th of its period."
        )
    if dt is not None and not dt > 0:
        raise InvalidValue(f"{who}: dt must be positive, got dt={dt}.")
    shape = np.shape(z0)
    if len(shape) not in (1, 2) or shape[-1] != system.dim or 0 in shape:
        raise InvalidValue(f"{who}: z0 must be one state of shape ({system.dim},) or states of shape (B, {system.dim}), got shape {shape}.")
    if not 1 <= count <= system.dim:
        raise InvalidValue(f"{who}: n_exponents must be in [1, {system.dim}], got {count}.")
    if steps < 1 or transient < 0 or every < 1 or segments < (1 if len(shape) == 2 and shape[0] > 1 else 2):
        raise InvalidValue(
            f"{who}: needs steps >= 1, transient >= 0, every >= 1 and segments >= 2 (1 with several orbits), "
            f"got {steps=}, {transient=}, {every=}, {segments=}."
        )

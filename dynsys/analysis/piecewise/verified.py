"""Candidates become records: values and Jacobians at many points, least periods, duplicates, eigenvalues, residuals.

    map    value(z) = F(z),   a cycle Z = (z_0, ..., z_{k-1}) solves F(z_t) = z_{t+1 mod k}
    flow   value(z) = f(z) at t = 0,   an equilibrium solves f(z) = 0

Everything here expects to run within `x64()`.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Shaped

from dynsys.analysis.arrays import as_float
from dynsys.analysis.piecewise.cycle import Cycle
from dynsys.dynamics import AbstractFlow, AbstractMap, AbstractPiecewiseLinear

System = AbstractMap | AbstractFlow
MERGE = 1e-7  # two points nearer than this share of the scale are one


def in_double(system: Any) -> Any:
    """The system with every real parameter a float64 array: plain Python floats too, so that a new value does not compile again."""
    return as_float(jax.tree.map(lambda leaf: jnp.asarray(leaf, float) if isinstance(leaf, float) else leaf, system))


def value_and_jacobian(system: System, z: Float[Array, " M"]) -> tuple[Float[Array, " M"], Float[Array, "M M"]]:
    """F(z) and DF(z) of a map, f(0, z) and Df(0, z) of a flow, without input."""
    if isinstance(system, AbstractFlow):
        return system.field(0.0, z), system.jacobian(0.0, z)
    return system.step(z), system.jacobian(z)


@eqx.filter_jit
def _pointwise(system: System, points: Array) -> tuple[Array, Array]:
    return jax.vmap(lambda z: value_and_jacobian(system, z))(points)


@eqx.filter_jit
def _regions(model: AbstractPiecewiseLinear, points: Array) -> Array:
    return jax.vmap(model.region)(points)


def padded(points: Shaped[np.ndarray, "n _"], least: int = 8) -> Shaped[np.ndarray, "m _"]:
    """The rows, filled up with copies of the first one to a power of two, so that few shapes are ever compiled."""
    size = max(least, 1 << (len(points) - 1).bit_length())
    return np.concatenate([points, np.repeat(points[:1], size - len(points), axis=0)])


def pointwise(system: System, points: Float[np.ndarray, "n M"]) -> tuple[Float[np.ndarray, "n M"], Float[np.ndarray, "n M M"]]:
    """`value_and_jacobian` at every row."""
    values, jacobians = _pointwise(system, jnp.asarray(padded(points)))
    return np.asarray(values)[: len(points)], np.asarray(jacobians)[: len(points)]


def regions_of(model: AbstractPiecewiseLinear, points: Float[np.ndarray, "n M"]) -> np.ndarray:
    """The region of every row, (n, R)."""
    return np.asarray(_regions(model, jnp.asarray(padded(points))))[: len(points)]


def eigenvalues(matrix: Float[np.ndarray, "M M"], *, continuous: bool = False) -> Complex[np.ndarray, " M"]:
    """Largest modulus (flow: largest real part) first; of a pair the one above the real axis first. NaN if not finite."""
    if not np.isfinite(matrix).all():
        return np.full(len(matrix), complex(np.nan, np.nan))
    found = np.asarray(np.linalg.eigvals(matrix), complex)
    size = np.real(found) if continuous else np.abs(found)
    return found[np.lexsort((-np.imag(found), -np.round(size, 12)))]


def composed(jacobians: Float[np.ndarray, "k M M"]) -> Float[np.ndarray, "M M"]:
    """J_{k-1} ... J_0."""
    product = jacobians[0]
    for factor in jacobians[1:]:
        product = factor @ product
    return product


def least_period(points: Float[np.ndarray, "k M"], close: Any) -> int:
    """The smallest divisor d of k by which the points repeat; close (M,): how near counts as equal."""
    k = len(points)
    for d in range(1, k):
        if k % d == 0 and (np.abs(points - np.roll(points, d, axis=0)) <= close).all():
            return d
    return k


def verified(system: System, points: Float[np.ndarray, "k M"], close: Any) -> Cycle:
    """The record of one candidate, with its least period, residual, eigenvalues and regions."""
    return verified_all(system, [points], close)[0]


def verified_all(system: System, candidates: list[np.ndarray], close: Any) -> list[Cycle]:
    """The records of candidates (k, M) of one or several periods; residuals are stated, not judged."""
    if not candidates:
        return []
    continuous = isinstance(system, AbstractFlow)
    orbits = [points[: least_period(points, close)] for points in candidates]
    stacked = np.concatenate(orbits)
    values, jacobians = pointwise(system, stacked)
    codes = regions_of(system, stacked) if isinstance(system, AbstractPiecewiseLinear) else None
    found, at = [], 0
    for points in orbits:
        here = slice(at, at := at + len(points))
        miss = values[here] if continuous else values[here] - np.roll(points, -1, axis=0)
        found.append(
            Cycle(
                points=points + 0.0,  # no minus zero
                eigenvalues=eigenvalues(composed(jacobians[here]), continuous=continuous),
                residual=float(np.abs(miss).max()),
                regions=None if codes is None else codes[here],
                continuous=continuous,
            )
        )
    return found


def same_cycle(points: Float[np.ndarray, "k M"], others: Float[np.ndarray, "n k M"], close: Any) -> bool:
    """Whether `points` is one of `others`, whichever of its points is the first."""
    return any(bool((np.abs(others - np.roll(points, d, axis=0)) <= close).all((1, 2)).any()) for d in range(len(points)))

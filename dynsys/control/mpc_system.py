"""Linear systems for MPC: a lifted model as matrices, a map linearised, and the checks that they need."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dynsys.dynamics import AbstractMap
from dynsys.errors import InvalidValue
from dynsys.models.koopman.lifted import AbstractLinear
from dynsys.precision import x64

ALIKE = 1e-6  # relative error up to which a function counts as affine


def linearised(model: AbstractMap, z: Any, u: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(A, B, c) of step(z + dz, u + du) = A (z + dz) + B (u + du) + c to first order, in float64; the point need be no equilibrium."""
    with x64():
        z, u = jnp.asarray(z, float), jnp.asarray(u, float)
        A, B = (np.asarray(J) for J in jax.jacfwd(model.step, argnums=(0, 1))(z, u))
        return A, B, np.asarray(model.step(z, u)) - A @ np.asarray(z) - B @ np.asarray(u)


def plain(model: AbstractMap) -> AbstractMap:
    """The same model on NumPy: a step of a small one takes microseconds."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, float) if eqx.is_inexact_array_like(leaf) and np.ndim(leaf) else leaf, model)


def lifted_system(who: str, model: Any) -> tuple[Any, ...]:
    """(A, B, c, C, d, E, model) of a lifted model, without the latent components that stay as they are whatever happens, such as 1."""
    if not isinstance(model, AbstractLinear) or model.n_inputs == 0:
        raise InvalidValue(
            f"{who}.lifted: needs a Koopman model with inputs, got {type(model).__name__}. Fit one with inputs=, or plan on any map with "
            "RecedingHorizon."
        )
    on_numpy: Any = plain(model)
    L, n, k = model.n_latent, model.n_obs, model.n_inputs
    zero, none, eye = np.zeros(L), np.zeros(k), np.eye(L)
    A = np.stack([on_numpy.advance(y, none) for y in eye], axis=1) - on_numpy.advance(zero, none)[:, None]
    B = np.stack([on_numpy.advance(zero, v) for v in np.eye(k)], axis=1) - on_numpy.advance(zero, none)[:, None]
    C, d = np.stack([on_numpy.decode(y) for y in eye], axis=1) - on_numpy.decode(zero)[:, None], np.asarray(on_numpy.decode(zero))
    rng = np.random.default_rng(0)
    y, v, w = rng.normal(size=L), rng.normal(size=k), rng.normal(size=(2, model.delays * n))
    after, seen = on_numpy.advance(y, v), on_numpy.decode(y)
    if np.abs(after - A @ y - B @ v - on_numpy.advance(zero, none)).max() > ALIKE * (1 + np.abs(after).max()):
        raise InvalidValue(f"{who}.lifted: the latent map is not linear in state and input (bilinear?). Plan on it with RecedingHorizon.")
    if np.abs(seen - C @ y - d).max() > ALIKE * (1 + np.abs(seen).max()):
        raise InvalidValue(f"{who}.lifted: the decoder is not affine. Use decoder='linear' or skip=True, or plan with RecedingHorizon.")
    kept = np.ones(L, bool)
    for i in range(L):
        kept[i] = not (np.array_equal(A[i], eye[i]) and not B[i].any())
    fixed = np.stack([on_numpy.encode(row) for row in w])[:, ~kept]
    if not np.array_equal(fixed[0], fixed[1]):  # a conserved quantity, not a constant
        kept[:] = True
    still = np.asarray(on_numpy.encode(w[0])) * ~kept
    c = A @ still + on_numpy.advance(zero, none)
    E = np.eye(L, model.dim)[kept]
    return A[np.ix_(kept, kept)], B[kept], c[kept], C[:, kept], d + C @ still, E, model


def weight(who: str, name: str, given: Any, size: int) -> np.ndarray:
    """A symmetric weight (size, size) of a matrix or the vector of its diagonal. Raises InvalidValue unless it is one, at least 0."""
    W = np.asarray(given, float)
    W = np.diag(W) if W.ndim == 1 else np.atleast_2d(W)
    if W.shape != (size, size) or not np.isfinite(W).all():
        raise InvalidValue(f"{who}: {name} must be finite, ({size}, {size}) or its diagonal ({size},); got {np.shape(given)}.")
    W = (W + W.T) / 2
    if np.linalg.eigvalsh(W)[0] < -1e-9 * max(1.0, float(np.abs(W).max())):
        raise InvalidValue(f"{who}: {name} must be positive semidefinite: no deviation may be rewarded.")
    return W

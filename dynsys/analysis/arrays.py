"""Where a computation on arrays runs: on the accelerator or inside `jit` with JAX, everywhere else with NumPy.

    traced, or on an accelerator -> jax.numpy,    lists, NumPy and JAX arrays on the CPU -> numpy

The small, irregular work of scores (counting, sorting, comparing) needs no compilation on a CPU; moving a long free run
off a GPU to count it would cost more than counting it there.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from dynsys.errors import InvalidValue


def namespace(*arrays: Any) -> Any:
    """`jax.numpy` if an array is traced or lives on an accelerator, else `numpy`."""
    for array in arrays:
        if isinstance(array, Tracer):
            return jnp
        if isinstance(array, jax.Array) and any(device.platform != "cpu" for device in array.devices()):
            return jnp
    return np


def as_float(tree: Any) -> Any:
    """A model with its real arrays in the precision of the context: float64 within `x64()`."""

    def cast(leaf: Any) -> Any:
        real = isinstance(leaf, (np.ndarray, jax.Array)) and jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.asarray(leaf, float) if real else leaf

    return jax.tree.map(cast, tree)


def check_series(who: str, name: str, x: Any, *, batched: bool = False) -> None:
    """Raise InvalidValue unless x is a non-empty array (T, N), or (B, T, N) where several series are allowed."""
    shape = np.shape(x)
    wanted = "(T, N) or (B, T, N)" if batched else "(T, N)"
    if len(shape) not in ((2, 3) if batched else (2,)) or 0 in shape:
        raise InvalidValue(f"{who}: {name} must be an array of shape {wanted} with at least one point, got shape {shape}.")


def check_true(who: str, x: Any) -> None:
    """Raise InvalidValue unless the true series is finite and no column of it is constant (both make a score meaningless)."""
    xp = namespace(x)
    flat = xp.asarray(x).reshape(-1, np.shape(x)[-1])
    if not bool(xp.isfinite(flat).all()):
        raise InvalidValue(f"{who}: true holds NaN or inf. A score needs a finite true series: drop or interpolate these points first.")
    constant = np.flatnonzero(np.asarray(flat.max(axis=0) == flat.min(axis=0)))
    if constant.size:
        raise InvalidValue(f"{who}: column {int(constant[0])} of true is constant, so there is nothing to compare. Leave that column out.")

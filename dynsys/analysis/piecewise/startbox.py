"""Where a search for fixed points starts: a box of states, from the user, from an orbit, or from a free run of the system."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dynsys.dynamics import AbstractFlow, AbstractMap, rollout
from dynsys.errors import InvalidValue
from dynsys.integrate.ensemble import ensemble_adaptive
from dynsys.systems import SystemFlow, SystemMap, SystemStochastic

_RUN = 2000  # points of a free run
_LARGE = 1e8  # a free run beyond this tells nothing of the attractor


def start_box(
    who: str, system: AbstractMap | AbstractFlow, states: Any, box: tuple[Any, Any] | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, list[str]]:
    """(low (M,), high (M,), states (T, M) or None, notes). See `fixed_points` for the rule."""
    dim, notes = system.dim, []
    if states is not None:
        states = np.asarray(states, float)
        if states.ndim != 2 or states.shape[1] != dim or not len(states):
            raise InvalidValue(f"{who}: states must be latent states of shape (T, {dim}), got {states.shape}.")
        states = states[np.isfinite(states).all(1)]
        states = states if len(states) else None
    if box is not None:
        low, high = (np.broadcast_to(np.asarray(side, float), (dim,)) for side in box)
        if not (low < high).all():
            raise InvalidValue(f"{who}: box must be (low, high) with low < high in each of the {dim} coordinates, got {box}.")
        return low, high, states, notes
    if states is None:
        states = _free_run(system, rng)
        if states is None and isinstance(system, AbstractFlow):
            raise InvalidValue(f"{who}: where should it look? Give states (T, {dim}) of an orbit, or box=(low, high).")
        if states is None:
            notes.append("Every free run diverged, so the starts are of the order of 1; give states or a box to look elsewhere.")
            states = rng.normal(size=(_RUN, dim))
    low, high = states.min(0), states.max(0)
    size = np.maximum(high - low, 1e-3 * max(float((high - low).max()), 1e-3 * float(np.abs(states).max()), 1e-6))
    middle = (low + high) / 2
    return middle - size, middle + size, states, notes


def _free_run(system: AbstractMap | AbstractFlow, rng: np.random.Generator) -> np.ndarray | None:
    """States on or near the attractor, if a start is known or the system is a map; None if they are not finite."""
    if isinstance(system, SystemFlow | SystemStochastic):
        times = system.dt * np.arange(_RUN)
        runs = np.asarray(ensemble_adaptive(system, system.start, times, rtol=1e-6, atol=1e-6).states)[None]
    elif isinstance(system, AbstractMap):
        starts = system.start[None] if isinstance(system, SystemMap) else rng.normal(size=(100, system.dim))
        steps = _RUN // len(starts)
        runs = np.asarray(jax.jit(jax.vmap(lambda z: rollout(system, z, steps + 500)[500:]))(jnp.asarray(starts)))
    else:
        return None
    runs = runs[(np.abs(runs) < _LARGE).all((1, 2))]  # NaN fails too
    return runs.reshape(-1, system.dim) if len(runs) else None

"""How often a Koopman model is encoded anew during a free run, chosen on held-out data.

    error(p) = mean over starts, steps and components of min(|x - f_p| / sd, 2),    f_p: free runs with y = encode(decode(y)) every p steps

Latent runs drift off the set of encoded points, where the latent map was never fitted; encoding anew brings them back, and costs the
linear structure. p = 0 is a run that never does; p = 1 iterates the one-step map.
Source: Fathi, Gehring, Pilault, Kanaa, Bacon, Goroshin, Course correcting Koopman representations, ICLR 2024.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dynsys.dynamics import rollout, warm_up
from dynsys.errors import InvalidValue
from dynsys.models.koopman.lifted import AbstractLifted, check_period
from dynsys.models.regressed import FEWEST, Holdout, checked_series
from dynsys.precision import x64

PERIODS = (0, 1, 2, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class Reencoding:
    """The best period, and the error of every one that was tried; `reencoded` gives the model."""

    period: int
    errors: tuple[tuple[int, float], ...]

    def reencoded(self, model: AbstractLifted) -> Any:
        """The model with the best period."""
        return model.reencoded(self.period)


def choose_reencoding(
    model: AbstractLifted,
    series: Sequence[Any],
    inputs: Sequence[Any] | None = None,
    *,
    periods: Sequence[int] = PERIODS,
    share: float = 0.9,
) -> Reencoding:
    """The period with the least error of free runs on trajectories [(T_i, N), ...] that were not fitted, in the model's own units.

    inputs: [(T_i, K), ...], u[t] acts between the points t and t + 1. Runs begin in the last `share` of a trajectory and last 60 % of it,
    at most 300 steps; the points before lead to their starts. Of equal errors the period that was named first is taken. Raises
    InvalidValue for series, periods or a share that can't be used.
    """
    who = "choose_reencoding"
    if not periods:
        raise InvalidValue(f"{who}: no period given; 0 stands for never.")
    for period in periods:
        check_period(who, period)
    if not 0 < share < 1:
        raise InvalidValue(f"{who}: share must be between 0 and 1, got share={share}: the part of a trajectory in which runs begin.")
    held = Holdout.of(checked_series(who, series), share)
    drives = None if inputs is None else [np.asarray(u, float) for x, u in zip(series, inputs, strict=True) if len(x) >= FEWEST]
    _check_inputs(who, model, held, drives)
    steps, before = held.true.shape[1], model.memory
    with x64():
        starts = jnp.asarray(held.windows(before + 1))
        rows = None if drives is None else np.stack([drives[i][_rows(row, before, steps)] for i, row in held.starts])
        past, driven = (None, None) if rows is None else (jnp.asarray(rows[:, :before]), jnp.asarray(rows[:, before:]))
        made = [np.asarray(_runs(_doubled(model.reencoded(period)), starts, past, driven, steps)) for period in periods]
    errors = held.error(np.stack(made)).tolist()
    return Reencoding(int(periods[int(np.argmin(errors))]), tuple((int(p), float(e)) for p, e in zip(periods, errors, strict=True)))


def _rows(row: int, before: int, steps: int) -> np.ndarray:
    """The rows of the inputs that act from `before` points ahead of a start on; the first one again where there are none."""
    return np.maximum(np.arange(row - before, row + steps), 0)


def _check_inputs(who: str, model: AbstractLifted, held: Holdout, drives: list[np.ndarray] | None) -> None:
    columns = held.true.shape[2]
    if model.n_obs != columns:
        raise InvalidValue(f"{who}: the model observes n_obs={model.n_obs} components, the series have {columns} columns.")
    if (drives is None) != (model.n_inputs == 0):
        given = "none were given" if drives is None else "inputs were given"
        raise InvalidValue(f"{who}: the model takes n_inputs={model.n_inputs}, {given}.")
    if drives is not None and any(u.shape != (len(x), model.n_inputs) for x, u in zip(held.series, drives, strict=True)):
        raise InvalidValue(
            f"{who}: inputs must have the rows of their trajectory and {model.n_inputs} columns, got {drives[0].shape} first."
        )


@eqx.filter_jit
def _runs(model: AbstractLifted, starts: Float[Array, "S W N"], past: Any, driven: Any, steps: int) -> Float[Array, "S H N"]:
    def one(x: Array, led_by: Any, u: Any) -> Array:
        return jax.vmap(model.observe)(rollout(model, warm_up(model, x, led_by), steps, u))

    return jax.vmap(one, (0, None if past is None else 0, None if driven is None else 0))(starts, past, driven)


def _doubled(model: AbstractLifted) -> AbstractLifted:
    """The model in float64."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, float) if eqx.is_inexact_array(leaf) else leaf, model)

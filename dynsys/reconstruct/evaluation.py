"""All scores of a reconstruction on a series, each with its definition, settings and floor.

The state space of a score is what the model sees: the standardised columns, or their delay vectors. Forecast errors in
percent are in the user's units.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from dynsys.dynamics import AbstractMap, warm_up
from dynsys.errors import DataError, InvalidValue
from dynsys.metrics.divergence import MAX_BINNED, principal_components
from dynsys.metrics.forecast import mase, prediction_errors, smape, valid_prediction_times
from dynsys.metrics.invariants import lyapunov_max
from dynsys.metrics.score import Score, definition, score_between
from dynsys.precision import x64
from dynsys.prepare.preparation import Preparation, Prepared
from dynsys.reconstruct.scoring import dtype_of, free_runs, sensible_bins
from dynsys.reconstruct.timed import with_gaps

LONGEST = 100_000  # rows of the series that are scored
LEAD = 50  # observed points that lead a model with hidden states to its start
PLANES = 3  # principal components for D_stsp when there are too many dimensions for bins


def evaluate(
    model: AbstractMap,
    preparation: Preparation,
    data: Prepared,
    *,
    starts: int = 8,
    horizon: int = 100,
    longest: int = 1000,
    bins: int | None = None,
    lyapunov: float | None = None,
    seed: int = 0,
) -> tuple[Score, ...]:
    """Scores on a prepared series. Raises DataError if it is too short for any, InvalidValue for starts or lengths below 1.

    D_stsp, D_H, share outside the box: a free run from the first state, as long as the series (at most 100,000 points);
    `spread` is over runs of the same length from `starts` further states (without inputs only). Forecasts: `starts` of them,
    `horizon` steps long for errors in percent, `longest` for the valid prediction time. lyapunov: the system's true exponent
    per unit of time, if known.
    """
    for name, value in (("starts", starts), ("horizon", horizon), ("longest", longest)):
        if value < 1:
            raise InvalidValue(f"evaluate: {name} must be at least 1, got {name}={value}.")
    trajectory = int(np.argmax([x.shape[0] for x in data.trajectories]))
    true = np.asarray(data.trajectories[trajectory][:LONGEST], float)
    inputs = None if data.inputs is None else np.asarray(data.inputs[trajectory][:LONGEST], float)
    if len(true) < 20:
        raise DataError(f"evaluate: needs at least 20 rows after preparation, got {len(true)}. Give a longer series.")
    bare, model = model, with_gaps(model, data)
    dt = data.dt * (float(np.mean(inputs[:, -1])) if data.gapped and inputs is not None else 1.0)  # the mean time between rows
    lead = min(lead_of(model), len(true) // 4)
    scores = _long_run(model, preparation, true, inputs, starts, sensible_bins(len(true)) if bins is None else bins, seed)
    scores += _one_to_many_steps(model, preparation, true, inputs, min(20, len(true) // 4), lead)
    scores += _forecasts(model, preparation, true, inputs, starts, horizon, longest, lead, dt, lyapunov)
    if bare.n_inputs == 0:
        steps = min(10_000, max(1000, len(true)))
        rows = min(model.memory, len(true) // 4)
        first = warm_up(model, jnp.asarray(true[: rows + 1]), None if inputs is None else jnp.asarray(inputs[:rows]))
        value = lyapunov_max(bare, np.asarray(first), steps=steps, dt=data.dt)
        settings = (("steps", steps), ("transient", 1000), ("dt", data.dt), ("of the true system", lyapunov))
        scores.append(Score("lyapunov_max", value, None, definition(lyapunov_max), settings))
    return tuple(scores)


def lead_of(model: AbstractMap) -> int:
    """How many observed points lead a model to its start: its memory, or LEAD if one observation does not show all its states, else 0."""
    return model.memory or (LEAD if model.dim > model.n_obs else 0)


def run_from(
    model: AbstractMap,
    starts: np.ndarray,
    steps: int,
    inputs: np.ndarray | None = None,
    past: np.ndarray | None = None,
) -> np.ndarray:
    """Free runs in the model's own precision, (B, steps, N); the (last) start itself is the first row.

    starts: (B, N), or (B, W, N) whose first W - 1 points lead the model to the last. inputs (steps - 1, K) or more drive all
    runs, past (W - 1, K) what leads to them.
    """
    dtype = dtype_of(model)
    starts = starts[:, None] if starts.ndim == 2 else starts

    def every(rows: np.ndarray | None, count: int) -> Array | None:
        return None if rows is None else jnp.broadcast_to(jnp.asarray(rows[:count], dtype), (len(starts), count, rows.shape[1]))

    with x64(dtype.itemsize == 8):
        windows = jnp.asarray(starts, dtype)
        runs = free_runs(model, windows, steps - 1, every(past, windows.shape[1] - 1), every(inputs, steps - 1))
        return np.concatenate([np.asarray(windows[:, -1:]), np.asarray(runs)], axis=1).astype(float)


def _long_run(
    model: AbstractMap, preparation: Preparation, true: np.ndarray, inputs: np.ndarray | None, starts: int, bins: int, seed: int
) -> list[Score]:
    past = min(model.memory, len(true) // 4)  # what leads to a start is not compared
    rows = np.random.default_rng(seed).integers(past, len(true), starts if inputs is None else 0)
    windows = np.stack([true[row - past : row + 1] for row in [past, *rows.tolist()]])
    true = true[past:]
    led, driven = (None, None) if inputs is None else (inputs[:past], inputs[past:])
    made = run_from(model, windows[:1], len(true), driven, led)[0]
    others = run_from(model, windows[1:], len(true)) if len(rows) else np.zeros((0, *true.shape))
    extra: tuple[tuple[str, Any], ...] = ()
    scores, plane, first, rest = [], true, made, others
    if true.shape[1] > MAX_BINNED:
        plane, first = principal_components(true, made, PLANES)
        rest = principal_components(true, others, PLANES)[1] if len(others) else others
        extra = (("coordinates", f"first {PLANES} principal components of {true.shape[1]} coordinates"),)
        scores.append(score_between("d_stsp_gmm", true, made, key=jax.random.key(seed)))
    spread = [score_between("d_stsp_binned", plane, run, floor=False, bins=bins).value for run in rest]
    scores.insert(0, _with(score_between("d_stsp_binned", plane, first, bins=bins), spread, extra))
    scores.append(_with(score_between("fraction_outside", plane, first, floor=False), [], extra))
    n = preparation.n_obs
    smoothing = max(1.0, 20.0 * min(1.0, len(true) / 5000))
    spread = [score_between("d_h", true[:, :n], run, floor=False, smoothing=smoothing).value for run in others[..., :n]]
    scores.append(_with(score_between("d_h", true[:, :n], made[:, :n], smoothing=smoothing), spread))
    return scores


def _one_to_many_steps(
    model: AbstractMap, preparation: Preparation, true: np.ndarray, inputs: np.ndarray | None, longest: int, lead: int
) -> list[Score]:
    true, inputs = true[:20_000], None if inputs is None else inputs[:20_000]
    errors = prediction_errors(model, true, steps=longest, warmup=lead, columns=preparation.n_obs, inputs=inputs)
    ahead = sorted({1, min(5, longest), longest})
    words = "Mean squared error of the n-step forecast of the observation from every point, in standardised units (of the training part)."
    settings = (("warmup", lead), ("n_true", len(true)))
    return [Score("prediction_error", float(errors[n - 1]), None, words, (("steps", n), *settings)) for n in ahead]


def _forecasts(
    model: AbstractMap,
    preparation: Preparation,
    true: np.ndarray,
    inputs: np.ndarray | None,
    starts: int,
    horizon: int,
    longest: int,
    lead: int,
    dt: float,
    lyapunov: float | None,
) -> list[Score]:
    longest = max(1, min(longest, (len(true) - lead) // 2))
    horizon = max(1, min(horizon, longest))
    rows = np.unique(np.linspace(lead, len(true) - longest - 1, max(starts, 1)).astype(int)).tolist()
    made = []
    for a in rows:
        past, coming = (None, None) if inputs is None else (inputs[a - lead : a], inputs[a : a + longest])
        made.append(run_from(model, true[None, a - lead : a + 1], longest + 1, coming, past)[0, 1:])
    made, seen = np.stack(made), np.stack([true[a + 1 : a + 1 + longest] for a in rows])
    n = preparation.n_obs
    x = preparation.backward(seen[:, :horizon])
    f = preparation.backward(np.where(np.isfinite(made), made, 1e30)[:, :horizon])
    about = (("forecasts", len(rows)), ("dt", dt), ("warmup", lead))
    times = valid_prediction_times(seen[..., :n], made[..., :n], dt=dt, lyapunov=lyapunov, scale=true[:, :n].std(axis=0))
    limit = longest * dt * (1.0 if lyapunov is None else lyapunov)
    more = (("horizon", longest), ("threshold", 0.4), ("lyapunov", lyapunov), ("share beyond the horizon", float(np.mean(times >= limit))))
    mase_words = f"{definition(mase)} Here `train` is the evaluated series itself."
    return [
        Score(
            "valid_prediction_time",
            float(times.mean()),
            None,
            definition(valid_prediction_times),
            (*about, *more),
            (float(times.min()), float(times.max())),
        ),
        Score("smape", smape(x, f), None, definition(smape), (*about, ("horizon", horizon))),
        Score("mase", mase(x, f, preparation.backward(true)), None, mase_words, (*about, ("horizon", horizon), ("period", 1))),
    ]


def _with(score: Score, values: list[float], extra: tuple[tuple[str, Any], ...] = ()) -> Score:
    """The score with the range of the same score over runs of the same length from further starts."""
    spread = (float(np.min(values)), float(np.max(values))) if values else None
    return Score(score.name, score.value, score.floor, score.definition, (*score.settings, *extra, ("starts", len(values))), spread)

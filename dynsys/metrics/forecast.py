"""Forecast scores: how well a model says what comes next, for as long as chaos allows.

    PE(n)  = mean over starts t and columns i of (x_i[t+n] - forecast_i[t+n])^2
    VPT    = time until sqrt(mean_i (error_i / sd_i)^2) first exceeds a threshold
    sMAPE  = 200 mean |x - f| / (|x| + |f|),     MASE = mean |x - f| / mean |train[t] - train[t - period]|

A low forecast error does not make a good reconstruction (a chaotic system forgets its start), nor a high one a bad one:
read these beside D_stsp and D_H. Sources: Hyndman & Koehler 2006 (MASE); Makridakis et al. 2020 (M4: sMAPE on the 0-200
scale); Vlachas et al. 2020 (valid prediction time).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from dynsys.analysis.arrays import as_float, check_series
from dynsys.dynamics import AbstractMap
from dynsys.errors import InvalidValue
from dynsys.precision import x64


def prediction_error(
    model: AbstractMap, true: Real[Any, "T N"], *, steps: int = 20, warmup: int = 0, inputs: Real[Any, "..."] | None = None
) -> float:
    """Mean squared error of the `steps`-ahead forecast, from every start in `true`, in squared units of `true`.

    See `prediction_errors`, of which this is the last entry. Infinite if a forecast is not finite.
    """
    return float(prediction_errors(model, true, steps=steps, warmup=warmup, inputs=inputs)[-1])


def prediction_errors(
    model: AbstractMap,
    true: Real[Any, "T N"],
    *,
    steps: int = 20,
    warmup: int = 0,
    columns: int | None = None,
    inputs: Real[Any, "..."] | None = None,
) -> Float[np.ndarray, " steps"]:
    """Mean squared errors of the 1-, 2-, ..., `steps`-ahead forecasts of a model in the coordinates of `true`, (steps,).

    Every t is a start: z = lift(x[t]); then `warmup` forced steps z = correct(step(z), x), which let a model with hidden states
    find them; then a free run. columns: average over the first so many columns only (of delay vectors: the present observation;
    the others are known in part). All lead times are averaged over the same T - warmup - steps starts. inputs (T, K): u[t] acts
    between t and t + 1. Computed in float64, in blocks of starts. Raises InvalidValue for shapes that do not fit.
    """
    who = "prediction_error"
    check_series(who, "true", true)
    total, n_obs = np.shape(true)
    starts = total - warmup - steps
    if steps < 1 or warmup < 0 or starts < 1:
        raise InvalidValue(
            f"{who}: needs steps >= 1, warmup >= 0 and more than steps + warmup points, got {steps=}, {warmup=}, {total} points."
        )
    if n_obs != model.n_obs:
        raise InvalidValue(f"{who}: true has N={n_obs} columns but the model observes n_obs={model.n_obs}.")
    if model.n_inputs and inputs is None:
        raise InvalidValue(f"{who}: the model has n_inputs={model.n_inputs}; pass inputs of shape ({total}, {model.n_inputs}).")
    if inputs is not None and np.shape(inputs) != (total, model.n_inputs):
        raise InvalidValue(f"{who}: inputs must have shape ({total}, {model.n_inputs}), got {np.shape(inputs)}.")
    with x64():
        x = jnp.asarray(true, float)
        u = None if inputs is None else jnp.asarray(inputs, float)
        errors = np.asarray(_mean_errors(as_float(model), x, u, starts, warmup, steps, n_obs if columns is None else columns))
    return np.where(np.isfinite(errors), errors, np.inf)


@eqx.filter_jit
def _mean_errors(
    model: AbstractMap, x: Float[Array, "T N"], u: Float[Array, "T K"] | None, starts: int, warmup: int, steps: int, columns: int
) -> Float[Array, " steps"]:
    def input_at(t: Array) -> Array | None:
        return None if u is None else u[t]

    def one_start(start: Array) -> Float[Array, " steps"]:
        def forced(z: Array, t: Array) -> tuple[Array, None]:
            return model.correct(model.step(z, input_at(t)), x[t + 1]), None

        def free(z: Array, t: Array) -> tuple[Array, Array]:
            z = model.step(z, input_at(t))
            return z, ((model.observe(z) - x[t + 1])[:columns] ** 2).mean()

        z = jax.lax.scan(forced, model.lift(x[start]), start + jnp.arange(warmup))[0]
        return jax.lax.scan(free, z, start + warmup + jnp.arange(steps))[1]

    block = min(starts, 4096)
    blocks = -(-starts // block)
    index = jnp.arange(blocks * block).reshape(blocks, block)

    def add(total: Array, part: Array) -> tuple[Array, None]:
        errors = jax.vmap(one_start)(jnp.minimum(part, starts - 1))
        return total + jnp.where((part < starts)[:, None], errors, 0.0).sum(axis=0), None

    return jax.lax.scan(add, jnp.zeros(steps, x.dtype), index)[0] / starts


def valid_prediction_times(
    true: Real[Any, "..."],
    forecast: Real[Any, "..."],
    *,
    threshold: float = 0.4,
    dt: float = 1.0,
    lyapunov: float | None = None,
    scale: Real[Any, " N"] | None = None,
) -> Float[np.ndarray, " B"]:
    """How long each forecast stays good, (B,): the time before sqrt(mean_i (error_i / scale_i)^2) first exceeds `threshold`.

    true and forecast: (T, N) or (B, T, N) of one shape, row 0 one step after the start. The unit is that of `dt`, the sampling
    interval; with `lyapunov` (the maximal exponent, per unit of time) it is Lyapunov times. scale (N,): standard deviations
    of the columns; default: those of `true`, over all its forecasts. A forecast that never fails gets the whole length T dt,
    a lower bound; a value that is not finite counts as a failure.
    Raises InvalidValue for shapes that differ, a constant column without `scale`, or settings that are not positive.
    Source: Vlachas et al., Neural Networks 126 (2020) (threshold 0.5 there).
    """
    who = "valid_prediction_time"
    x, f = _pair(who, true, forecast)
    if not threshold > 0 or not dt > 0 or (lyapunov is not None and not lyapunov > 0):
        raise InvalidValue(f"{who}: threshold, dt and lyapunov must be positive, got {threshold=}, {dt=}, {lyapunov=}.")
    sd = x.reshape(-1, x.shape[-1]).std(axis=0) if scale is None else np.asarray(scale, dtype=float)
    if sd.shape != (x.shape[-1],) or not (sd > 0).all():
        raise InvalidValue(f"{who}: scale must be {x.shape[-1]} positive standard deviations, got {sd}. Pass those of the training data.")
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.sqrt((((f - x) / sd) ** 2).mean(axis=-1))
    failed = ~(error <= threshold)
    steps = np.where(failed.any(axis=-1), failed.argmax(axis=-1), x.shape[1])
    return steps * dt * (1.0 if lyapunov is None else lyapunov)


def valid_prediction_time(
    true: Real[Any, "..."],
    forecast: Real[Any, "..."],
    *,
    threshold: float = 0.4,
    dt: float = 1.0,
    lyapunov: float | None = None,
    scale: Real[Any, " N"] | None = None,
) -> float:
    """Mean over forecasts of the time for which the normalised error stays within `threshold`, in time or in Lyapunov times.

    See `valid_prediction_times` for the definition, the keywords and the errors raised.
    """
    return float(valid_prediction_times(true, forecast, threshold=threshold, dt=dt, lyapunov=lyapunov, scale=scale).mean())


def smape(true: Real[Any, "..."], forecast: Real[Any, "..."]) -> float:
    """Symmetric mean absolute percentage error on the 0-200 scale: mean of 200 |x - f| / (|x| + |f|), where 0 / 0 counts as 0.

    true and forecast: (T, N) or (B, T, N) of one shape. A forecast value that is not finite counts 200. It depends on where
    zero lies: it means little for data that cross zero. Source: Makridakis, Spiliotis & Assimakopoulos 2020 (M4).
    """
    x, f = _pair("smape", true, forecast)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        terms = 200.0 * np.abs(x - f) / (np.abs(x) + np.abs(f))
    terms = np.where((x == 0) & (f == 0), 0.0, np.where(np.isfinite(f), terms, 200.0))
    return float(terms.mean())


def mase(true: Real[Any, "..."], forecast: Real[Any, "..."], train: Real[Any, "S N"], *, period: int = 1) -> float:
    """Mean absolute scaled error: mean |x - f| over the mean |train[t] - train[t - period]|, in every column, then averaged.

    Below 1: better than the (seasonal) naive forecast inside the training series. true and forecast: (T, N) or (B, T, N) of one
    shape; train (S, N), S > period; period: season in steps. Infinite if a forecast value is not finite.
    Raises InvalidValue if `train` is too short or repeats itself exactly. Source: Hyndman & Koehler 2006.
    """
    x, f = _pair("mase", true, forecast)
    check_series("mase", "train", train)
    past = np.asarray(train, dtype=float)
    if past.shape[1] != x.shape[-1] or not 1 <= period < len(past):
        raise InvalidValue(f"mase: train must have {x.shape[-1]} columns and more than period={period} >= 1 rows, got shape {past.shape}.")
    naive = np.abs(past[period:] - past[:-period]).mean(axis=0)
    if not (naive > 0).all():
        raise InvalidValue(
            f"mase: column {int(np.argmin(naive))} of train never changes over {period} steps, so there is no scale to divide by."
        )
    if not np.isfinite(f).all():
        return float("inf")
    return float((np.abs(x - f).mean(axis=(0, 1)) / naive).mean())


def _pair(who: str, true: Any, forecast: Any) -> tuple[Float[np.ndarray, "B T N"], Float[np.ndarray, "B T N"]]:
    """Both as (B, T, N) float64 arrays, of one shape."""
    check_series(who, "true", true, batched=True)
    if np.shape(true) != np.shape(forecast):
        raise InvalidValue(f"{who}: true and forecast must have one shape, got {np.shape(true)} and {np.shape(forecast)}.")
    x, f = np.asarray(true, dtype=float), np.asarray(forecast, dtype=float)
    if not np.isfinite(x).all():
        raise InvalidValue(f"{who}: true holds NaN or inf. Drop or interpolate these points first.")
    return x.reshape(-1, *x.shape[-2:]), f.reshape(-1, *f.shape[-2:])

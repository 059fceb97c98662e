"""A preparation in words, and from the JSON text of a model file."""

import dataclasses
import json
from typing import Any

import numpy as np

from dynsys.errors import DataError, DynsysError
from dynsys.prepare.preparation import Preparation
from dynsys.prepare.settings import PreparationConfig


def describe(preparation: Preparation) -> tuple[str, ...]:
    """One line for each thing that is done to the data, and how to change the choice."""
    p, config, unit = preparation, preparation.config, preparation.time_unit or "units of time"
    lines = []
    if config.detrend == "linear":
        lines.append("trend: a straight line subtracted from each trajectory; outputs are about it")
    if config.detrend == "gaussian":
        lines.append(
            f"trend: Gaussian moving average of sigma {config.detrend_width:g} {unit} subtracted; outputs are about it".replace("  ", " ")
        )
    if config.smooth_width > 0:
        lines.append(
            f"smoothing: Gaussian of sigma {config.smooth_width:g} samples ({config.smooth_width * p.dt:.4g} {unit}), not causal".replace(
                " )", ")"
            )
        )
    if config.downsample > 1:
        lines.append(f"downsampling: every {config.downsample}. row kept, dt {p.dt:.6g} -> {p.prepared_dt:.6g} {unit}".rstrip())
    if p.gapped:
        lines.append(f"irregular samples: the gap to the next one, in units of the typical {p.dt:.6g} {unit}, is an input".rstrip())
    if config.standardise:
        shown = ", ".join(f"{name} ({m:.4g}, {s:.4g})" for name, m, s in zip(p.names[:6], p.mean, p.scale, strict=False))
        lines.append(f"standardised by mean and standard deviation of the training part: {shown}{', ...' if p.n_obs > 6 else ''}")
    if p.dimension > 1 or config.embedding == "delay":
        window = (p.dimension - 1) * p.delay * p.prepared_dt
        apart = f"{p.delay} rows ({p.delay * p.prepared_dt:.4g} {unit}) apart"
        lines.append(f"delay embedding: {p.dimension} values {apart}, a window of {window:.4g} {unit}")
        lines.append(f"how chosen: {'; '.join(p.choice)}")
    else:
        lines.append(f"no delay embedding: {'; '.join(p.choice)}")
    return tuple(lines)


def parse(text: str) -> Preparation:
    """A Preparation from JSON; DataError unless it has exactly the fields, types and sizes of one."""
    try:
        found = json.loads(text)
        result = Preparation(**_typed({"gapped": False, **found, "config": PreparationConfig(**found["config"])}))
    except DynsysError as error:
        raise DataError(f"Preparation.from_json: {error}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise DataError(f"Preparation.from_json: not a preparation that was saved by to_json ({type(error).__name__}: {error}).") from None
    sizes_fit = len(result.names) == len(result.mean) == len(result.scale) > 0 and len(result.input_mean) == len(result.input_scale)
    numbers = (*result.mean, *result.scale, *result.input_mean, *result.input_scale, result.dt)
    if not sizes_fit or not np.isfinite(numbers).all() or min((*result.scale, *result.input_scale, result.dt)) <= 0:
        raise DataError(
            "Preparation.from_json: mean, scale and names must have one finite value a column, and scales and dt must be positive."
        )
    if result.delay < 1 or result.dimension < 1:
        raise DataError(f"Preparation.from_json: delay and dimension must be at least 1, got {result.delay} and {result.dimension}.")
    return result


def _typed(found: dict[str, Any]) -> dict[str, Any]:
    """Lists as tuples of the right kind; TypeError for a field that is missing, unknown or of the wrong type."""
    known = {field.name for field in dataclasses.fields(Preparation)}
    if found.keys() != known:
        raise TypeError(f"fields {sorted(found.keys() ^ known)} are missing or unknown")
    result = dict(found)
    for name, kind in (("names", str), ("choice", str), ("mean", float), ("scale", float), ("input_mean", float), ("input_scale", float)):
        if not isinstance(found[name], list) or not all(type(value) is kind for value in found[name]):
            raise TypeError(f"{name} must be a list of {kind.__name__}")
        result[name] = tuple(found[name])
    for name, kinds in (("dt", (float,)), ("delay", (int,)), ("dimension", (int,)), ("gapped", (bool,)), ("time_unit", (str, type(None)))):
        if type(found[name]) not in kinds:
            raise TypeError(f"{name} must be {kinds[0].__name__}, got {found[name]!r}")
    return result

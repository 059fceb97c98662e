"""Scores of a reconstruction against data: one name, one definition, every choice a visible keyword."""

from dynsys.metrics.divergence import (
    VisitHistogram,
    fraction_outside,
    principal_components,
    state_space_divergence_binned,
    state_space_divergence_gmm,
)
from dynsys.metrics.forecast import mase, prediction_error, prediction_errors, smape, valid_prediction_time, valid_prediction_times
from dynsys.metrics.invariants import lyapunov_max
from dynsys.metrics.power import power_spectrum_distance
from dynsys.metrics.score import Score, definition, floor_of, score_between

__all__ = [
    "Score",
    "VisitHistogram",
    "definition",
    "floor_of",
    "fraction_outside",
    "lyapunov_max",
    "mase",
    "power_spectrum_distance",
    "prediction_error",
    "prediction_errors",
    "principal_components",
    "score_between",
    "smape",
    "state_space_divergence_binned",
    "state_space_divergence_gmm",
    "valid_prediction_time",
    "valid_prediction_times",
]

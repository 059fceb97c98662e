"""Models at irregular samples: inside training and scoring they take the gap as their last input, outside they don't."""

import dataclasses

import numpy as np

from dynsys.dynamics import AbstractMap, AbstractTimed, Gapped
from dynsys.errors import InvalidValue
from dynsys.prepare.preparation import Preparation, Prepared
from dynsys.train.trainer import Trained


def with_gaps(model: AbstractMap, of: Preparation | Prepared) -> AbstractMap:
    """The model as it is driven by data prepared so: with the gap as its last input, if their samples are irregular.

    Raises InvalidValue for a model in discrete time at irregular samples.
    """
    if not of.gapped:
        return model
    if not isinstance(model, AbstractTimed):
        raise InvalidValue(f"{type(model).__name__} steps in equal times, but the samples are irregular. Call .resample(dt) first.")
    return Gapped(model)  # pyright: ignore[reportCallIssue]


def without_gaps(trained: Trained) -> Trained:
    """The trained models themselves."""
    bare = [tuple(model.model if isinstance(model, Gapped) else model for model in models) for models in (trained.kept, trained.last)]
    return dataclasses.replace(trained, kept=bare[0], last=bare[1])


def at_typical_gaps(inputs: np.ndarray | None, steps: int, of: Preparation) -> np.ndarray | None:
    """The inputs (steps, K) of a free run at even samples, with the column of gaps, all 1, if the model was trained with gaps."""
    if not of.gapped:
        return inputs
    ones = np.ones((steps if inputs is None else len(inputs), 1))
    return ones if inputs is None else np.column_stack([inputs, ones])

"""Sample entropy: how much less likely is it that two stretches match for m + 1 samples than for m? (Richman & Moorman 2000.)

    SampEn(m, r) = -ln(A / B),    B: pairs (i, j), i != j, i and j < T - m, with max_{k<m}  |x[i + k] - x[j + k]| <= r
                                  A: the same pairs with                         max_{k<=m} |x[i + k] - x[j + k]| <= r

Independent numbers give -ln P(|X - Y| <= r) whatever m; for a normal distribution of deviation s, -ln erf(r / (2 s)).
Source: Richman & Moorman, Am. J. Physiol. Heart Circ. Physiol. 278, H2039 (2000).
"""

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Float, Real
from scipy.spatial import KDTree

from dynsys.analysis.neighbours import finite_series
from dynsys.errors import InvalidValue

_BLOCKS = 20


@dataclasses.dataclass(frozen=True)
class SampleEntropy:
    """The entropy in nats with its error, the radius r in units of x, and the numbers of matching pairs `longer` A and `shorter` B."""

    entropy: float
    error: float
    radius: float
    longer: int
    shorter: int


def sample_entropy(x: Real[Any, "..."], *, dimension: int = 2, tolerance: float = 0.2, delay: int = 1) -> SampleEntropy:
    """Sample entropy of a series (T,) or (T, 1), in nats.

    dimension: m, the length of a stretch. tolerance: r in standard deviations of x. delay: samples between the members of a
    stretch (1 in the source). The error is a block jackknife over 20 stretches of time. inf if B > 0 but no pair stays
    together (then SampEn is at least ln B - ln ln 2 or so: raise tolerance), NaN if B = 0 too.

    Matches near in time count, as in the source: a finely sampled flow has a low entropy. Raises InvalidValue for bad
    settings, or a series that is not finite, constant, too short or of several columns.
    """
    who = "sample_entropy"
    series = finite_series(who, x)
    if series.shape[1] != 1:
        raise InvalidValue(f"{who}: x must be one observation, shape (T,) or (T, 1), got shape {np.shape(x)}. Pass one column.")
    rows = len(series) - dimension * delay
    if dimension < 1 or delay < 1 or not tolerance > 0 or rows < 2 * _BLOCKS:
        raise InvalidValue(
            f"{who}: needs dimension >= 1, delay >= 1, tolerance > 0 and {2 * _BLOCKS} stretches, "
            f"got {dimension=}, {delay=}, {tolerance=}, {rows} stretches."
        )
    values, radius = series[:, 0], tolerance * float(series.std())
    stretches = np.stack([values[k * delay : k * delay + rows] for k in range(dimension + 1)], axis=1)
    shorter, longer = _matches(stretches[:, :dimension], radius), _matches(stretches, radius)
    a, b = int(longer.sum()) // 2, int(shorter.sum()) // 2
    if a == 0:
        return SampleEntropy(math.inf if b else math.nan, math.inf, radius, a, b)
    blocks = [[part.sum() for part in np.array_split(counts, _BLOCKS)] for counts in (longer, shorter)]
    left_a, left_b = longer.sum() - np.array(blocks[0]), shorter.sum() - np.array(blocks[1])
    estimates = -np.log(np.maximum(left_a, 0.5) / np.maximum(left_b, 0.5))
    # twice: a block left out as first member still takes part as second one, so that the jackknife sees half of its influence;
    # for independent numbers, where single pairs make the scatter and not blocks, this is too much by a factor of 1.4
    error = 2 * math.sqrt((_BLOCKS - 1) / _BLOCKS * float(((estimates - estimates.mean()) ** 2).sum()))
    return SampleEntropy(-math.log(a / b), error, radius, a, b)


def _matches(stretches: Float[np.ndarray, "S m"], radius: float) -> np.ndarray:
    """How many other stretches lie within `radius` of each, in the maximum norm, (S,)."""
    tree: Any = KDTree(stretches)
    return np.asarray(tree.query_ball_point(stretches, radius, p=np.inf, return_length=True)) - 1

"""Events in a scalar series: peaks above a threshold, the intervals between them and their heights."""

import numpy as np
from jaxtyping import Float

from dynsys.errors import InvalidValue


def peaks(
    x: Float[np.ndarray, " T"], *, dt: float, prominence: float, refractory: float
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Times (from the first point) and heights of the peaks of a series (T,).

    prominence: how far a peak stands above its surroundings, in units of x. refractory: least time between two peaks; of two
    closer ones the higher stays. Values that are not finite end the search. Raises InvalidValue unless all three are positive.
    Source: scipy.signal.find_peaks.
    """
    from scipy.signal import find_peaks

    if not (dt > 0 and prominence > 0 and refractory > 0):
        raise InvalidValue(f"peaks: dt, prominence and refractory must be positive, got {dt=}, {prominence=}, {refractory=}.")
    bad = np.flatnonzero(~np.isfinite(x))
    x = x[: bad[0]] if bad.size else x
    where, _ = find_peaks(x, prominence=prominence, distance=max(1, round(refractory / dt)))
    return where * dt, x[where]

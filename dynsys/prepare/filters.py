"""Trend removal, smoothing and downsampling of one trajectory.

    trend      x - (a + b t)            or   x - G_s * x
    smoothing  G_s * x,                 G_s(j) ~ exp(-j^2 / (2 s^2)), |j| <= ceil(4 s), sum 1
    sampling   x[0], x[k], x[2k], ...

The Gaussian of standard deviation s samples passes the frequency f (cycles a sample) with gain exp(-(2 pi f s)^2 / 2) and no
delay. It is not causal: an output depends on up to 4 s samples of the future, so a forecast from the end of a recording
rests on values that the mirror image at the edge replaced. Edges: the series is mirrored about its ends with the end value
repeated (d c b a | a b c d | d c b a). Every function works on each trajectory by itself; nothing crosses from one to another.
"""

import numpy as np
from jaxtyping import Float
from scipy.signal import oaconvolve

from dynsys.errors import InvalidValue

TRUNCATE = 4.0


def gaussian_kernel(sigma: float) -> Float[np.ndarray, " J"]:
    """Sampled Gaussian of `sigma` samples, cut at ceil(4 sigma) and summing to 1, shape (2 ceil(4 sigma) + 1,)."""
    if not sigma > 0 or not np.isfinite(sigma):
        raise InvalidValue(f"gaussian_kernel: sigma must be a positive number of samples, got sigma={sigma}.")
    offsets = np.arange(-int(np.ceil(TRUNCATE * sigma)), int(np.ceil(TRUNCATE * sigma)) + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    return weights / weights.sum()


def gaussian_smooth(x: Float[np.ndarray, "T N"], sigma: float) -> Float[np.ndarray, "T N"]:
    """Each column convolved with a Gaussian of standard deviation `sigma` samples; mirrored edges; (T, N) -> (T, N)."""
    kernel = gaussian_kernel(sigma)
    centre = x.mean(axis=0, keepdims=True)  # the FFT's rounding is relative to the largest value: take a large offset out first
    padded = np.pad(x - centre, ((kernel.size // 2, kernel.size // 2), (0, 0)), mode="symmetric")
    return oaconvolve(padded, kernel[:, None], mode="valid", axes=0) + centre


def remove_gaussian_trend(x: Float[np.ndarray, "T N"], sigma: float) -> Float[np.ndarray, "T N"]:
    """x minus its Gaussian moving average of `sigma` samples: a high-pass filter with gain 1 - exp(-(2 pi f sigma)^2 / 2)."""
    return x - gaussian_smooth(x, sigma)


def remove_linear_trend(x: Float[np.ndarray, "T N"]) -> Float[np.ndarray, "T N"]:
    """x minus the straight line, fitted by least squares to each column; (T, N) -> (T, N)."""
    time = np.arange(x.shape[0]) - (x.shape[0] - 1) / 2
    centred = x - x.mean(axis=0, keepdims=True)
    energy = float(time @ time)
    return centred - np.outer(time, time @ centred / energy) if energy > 0 else centred


def downsample(x: Float[np.ndarray, "T N"], every: int) -> Float[np.ndarray, "S N"]:
    """Rows 0, k, 2k, ... of x, S = ceil(T / k). Smooth first with sigma of about k/2 or more, or frequencies fold over."""
    return x[::every]


def average_inputs(u: Float[np.ndarray, "T K"], every: int) -> Float[np.ndarray, "S K"]:
    """Mean of the inputs over each block of k rows, S = ceil(T / k); a short last block is averaged over the rows it has.

    Row i acts while the state goes from sample i k to (i + 1) k, so the mean over that interval is the held input that moves
    the state alike to first order; taking every k-th value would miss a pulse between two samples.
    """
    if every == 1:
        return u
    starts = np.arange(0, u.shape[0], every)
    counts = np.minimum(every, u.shape[0] - starts)
    return np.add.reduceat(u, starts, axis=0) / counts[:, None]

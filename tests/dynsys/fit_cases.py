"""Small series with known dynamics and settings that train in a second; shared by the tests of the main path."""

import numpy as np

from dynsys_datasets.series import TimeSeries

TINY = (
    "model.hidden=8",
    "training.chunk=10",
    "training.window=10",
    "training.checkpoints=2",
    "training.batch=8",
    "selection.steps=50",
    "selection.starts=2",
)


def rotation(angle: float = 0.2, radius: float = 1.0) -> np.ndarray:
    return radius * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def orbit(
    matrix: np.ndarray, points: int, start=(1.0, 0.0), inputs: np.ndarray | None = None, drive: np.ndarray | None = None
) -> np.ndarray:
    """x[t+1] = matrix x[t] + drive u[t], written as a plain loop."""
    x = [np.asarray(start, float)]
    for t in range(points - 1):
        x.append(matrix @ x[-1] + (0.0 if inputs is None or drive is None else drive @ inputs[t]))
    return np.array(x)


def circle(points: int = 400, **about) -> TimeSeries:
    """A noiseless rotation, about (10, -3), of radius 5 and 1."""
    values = orbit(rotation(), points) * [5.0, 1.0] + [10.0, -3.0]
    return TimeSeries(values, **({"dt": 0.1, "names": ["a", "b"], "units": "mV", "time_unit": "s", "source": "circle"} | about))


def driven(points: int = 1500, seed: int = 0) -> TimeSeries:
    """A damped rotation that is kept going by one random input column."""
    u = np.random.default_rng(seed).normal(size=(points, 1))
    return TimeSeries(orbit(rotation(0.3, 0.9), points, inputs=u, drive=np.array([[0.5], [0.1]])), inputs=u, dt=1.0, source="driven")

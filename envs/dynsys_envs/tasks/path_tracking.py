"""A car that is steered along a circle at constant speed.

    dd/dt = v sin(e),    de/dt = v u / L - v cos(e) / (R - d)

d (m) is the distance from the path, e (rad) the heading error, u the tangent of the steering angle, |u| <= 0.84 (40 degrees). An episode
ends where |d| > 3 m or |e| > pi/2. Source: the system `PathTracking` of the database (Snider 2009).
"""

from typing import Any

import numpy as np

from dynsys.dynamics import Discretized
from dynsys_envs.functional import Regulation, numbers
from dynsys_envs.maps import flow_named
from dynsys_envs.scenes import car_scene


def path_tracking(*, steer: float = 0.84, dt: float = 0.05, max_steps: int = 200, **parameters: Any) -> Regulation:
    """The task `dynsys/PathTracking-v0`; parameters: speed (m/s), length (m, wheel base), radius (m)."""
    flow = flow_named("PathTracking", **parameters)
    straight = float(flow.parameters["length"]) / float(flow.parameters["radius"])
    return Regulation(
        dynamics=Discretized(flow, dt),  # pyright: ignore[reportCallIssue]
        goal=(0.0, 0.0),
        rest=numbers(straight),
        low=numbers(-steer),
        high=numbers(steer),
        Q=(1.0, 1.0),
        R=(0.1,),
        start=(0.0, 0.0),
        spread=(2.0, 1.0),
        box=numbers(3, np.pi / 2),
        scene=car_scene,
        dt=dt,
        max_steps=max_steps,
    )

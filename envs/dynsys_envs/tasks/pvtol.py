"""A vertical take-off and landing aircraft in a plane, whose rolling moment also pushes it sideways (epsilon): slightly non-minimum phase.

    dvx/dt = -thrust sin(theta) + epsilon roll cos(theta),  dvy/dt = thrust cos(theta) + epsilon roll sin(theta) - 1,  domega/dt = roll

State (x, y, theta, vx, vy, omega), inputs (thrust, roll), in units where gravity is 1; 0 <= thrust <= 2, |roll| <= 1. An episode ends
further than 5 from the goal. Source: the system `PVTOL` of the database (Hauser, Sastry, Meyer 1992).
"""

from typing import Any

import numpy as np

from dynsys.dynamics import Discretized
from dynsys_envs.functional import Regulation, numbers
from dynsys_envs.maps import flow_named
from dynsys_envs.scenes import flyer_scene


def pvtol(*, dt: float = 0.05, max_steps: int = 300, **parameters: Any) -> Regulation:
    """The task `dynsys/PVTOL-v0`; parameter: epsilon."""
    return Regulation(
        dynamics=Discretized(flow_named("PVTOL", **parameters), dt),  # pyright: ignore[reportCallIssue]
        goal=numbers(0, 0, 0, 0, 0, 0),
        rest=(1.0, 0.0),
        low=(0.0, -1.0),
        high=(2.0, 1.0),
        Q=(1.0, 1.0, 0.5, 0.2, 0.2, 0.1),
        R=(0.05, 0.05),
        start=numbers(0, 0, 0, 0, 0, 0),
        spread=(1.5, 1.5, 0.3, 0.2, 0.2, 0.2),
        box=numbers(5, 5, np.inf, np.inf, np.inf, np.inf),
        angles=(2,),
        scene=flyer_scene,
        dt=dt,
        max_steps=max_steps,
    )

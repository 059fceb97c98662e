"""A beam with a rotor at each end, flown in a vertical plane to a point where it hovers.

    m dvx/dt = -(r + l) sin(theta),    m dvy/dt = (r + l) cos(theta) - m g,    I domega/dt = a (r - l)

State (x, y, theta, vx, vy, omega) in m, rad, s; inputs the thrusts r, l (N) of the right and the left rotor, from 0 to `lift` times what
hovering needs. An episode ends further than 5 m from the goal. Source and constants: the system `PlanarQuadrotor` of the database.
"""

from typing import Any

import numpy as np

from dynsys.dynamics import Discretized
from dynsys_envs.functional import Regulation, numbers
from dynsys_envs.maps import flow_named
from dynsys_envs.scenes import flyer_scene


def planar_quadrotor(*, lift: float = 2.0, dt: float = 0.02, max_steps: int = 250, **parameters: Any) -> Regulation:
    """The task `dynsys/PlanarQuadrotor-v0`; parameters: g, m, inertia, arm."""
    flow = flow_named("PlanarQuadrotor", **parameters)
    hover = float(flow.parameters["m"]) * float(flow.parameters["g"]) / 2
    return Regulation(
        dynamics=Discretized(flow, dt),  # pyright: ignore[reportCallIssue]
        goal=numbers(0, 0, 0, 0, 0, 0),
        rest=numbers(hover, hover),
        low=(0.0, 0.0),
        high=numbers(lift * hover, lift * hover),
        Q=(1.0, 1.0, 0.5, 0.1, 0.1, 0.02),
        R=(0.05, 0.05),
        start=numbers(0, 0, 0, 0, 0, 0),
        spread=(1.5, 1.5, 0.5, 0.5, 0.5, 0.5),
        box=numbers(5, 5, np.inf, np.inf, np.inf, np.inf),
        angles=(2,),
        scene=flyer_scene,
        dt=dt,
        max_steps=max_steps,
    )

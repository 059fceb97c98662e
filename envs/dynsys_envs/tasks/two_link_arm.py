"""Two links in a vertical plane with a motor in each joint, to be swung up from hanging.

    M(q) dw/dt = tau + (Coriolis) - (weight),    dq/dt = w

q1 (rad) is the angle of the first link from hanging, q2 (rad) that of the second against the first. The motor of the shoulder gives 10 N m,
half of what holds the stretched arm level, so the arm has to be swung. An episode ends where a joint turns faster than 25 rad/s.
Source and constants: the system `TwoLinkArm` of the database (Murray, Li, Sastry 1994; Sutton 1996).
"""

from typing import Any

import numpy as np

from dynsys.dynamics import Discretized
from dynsys_envs.functional import Regulation, numbers
from dynsys_envs.maps import flow_named
from dynsys_envs.scenes import arm_scene


def two_link_arm(*, torques: tuple[float, float] = (10.0, 10.0), dt: float = 0.05, max_steps: int = 200, **parameters: Any) -> Regulation:
    """The task `dynsys/TwoLinkArm-v0`; torques: limits (N m) of shoulder and elbow; parameters: g, m1, m2, l1, c1, c2, I1, I2."""
    return Regulation(
        dynamics=Discretized(flow_named("TwoLinkArm", **parameters), dt, substeps=2),  # pyright: ignore[reportCallIssue]
        goal=numbers(np.pi, 0, 0, 0),
        rest=(0.0, 0.0),
        low=numbers(*(-torque for torque in torques)),
        high=numbers(*torques),
        Q=(1.0, 1.0, 0.05, 0.05),
        R=(0.001, 0.001),
        start=numbers(0, 0, 0, 0),
        spread=(0.1, 0.1, 0.1, 0.1),
        box=numbers(np.inf, np.inf, 25, 25),
        angles=(0, 1),
        scene=arm_scene,
        dt=dt,
        max_steps=max_steps,
    )

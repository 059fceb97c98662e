"""A particle in a potential with two wells, to be held on the ridge between them.

    dx/dt = v,    dv/dt = -delta v - alpha x - beta x^3 + u,    |u| <= 0.3

The goal, (0, 0), is a saddle. An episode ends where |x| or |v| passes 4.
Source: the system `DuffingControlled` of the database (Guckenheimer & Holmes 1983, section 2.2).
"""

from typing import Any

from dynsys.dynamics import Discretized
from dynsys_envs.functional import Regulation, numbers
from dynsys_envs.maps import flow_named
from dynsys_envs.scenes import plane_scene


def duffing(*, limit: float = 0.3, dt: float = 0.1, max_steps: int = 200, **parameters: Any) -> Regulation:
    """The task `dynsys/Duffing-v0`; |u| <= limit; parameters: delta, alpha, beta."""
    return Regulation(
        dynamics=Discretized(flow_named("DuffingControlled", **parameters), dt),  # pyright: ignore[reportCallIssue]
        goal=(0.0, 0.0),
        rest=(0.0,),
        low=numbers(-limit),
        high=numbers(limit),
        Q=(1.0, 0.5),
        R=(0.1,),
        start=(0.0, 0.0),
        spread=(1.5, 1.0),
        box=(4.0, 4.0),
        scene=plane_scene,
        dt=dt,
        max_steps=max_steps,
    )

"""Van der Pol's oscillator in reversed time: stable at the origin, but only inside a limit cycle that repels.

    dx/dt = -y,    dy/dt = x + (x^2 - 1) y + u,    |u| <= 1

First states lie on both sides of the cycle; an episode ends where |x| or |y| passes 5.
Source: the system `ReversedVanDerPol` of the database (Khalil 2002, example 8.8).
"""

from dynsys.dynamics import Discretized
from dynsys_envs.functional import Regulation, numbers
from dynsys_envs.maps import flow_named
from dynsys_envs.scenes import plane_scene


def reverse_van_der_pol(*, limit: float = 1.0, dt: float = 0.05, max_steps: int = 200) -> Regulation:
    """The task `dynsys/ReverseVanDerPol-v0`; |u| <= limit."""
    return Regulation(
        dynamics=Discretized(flow_named("ReversedVanDerPol"), dt),  # pyright: ignore[reportCallIssue]
        goal=(0.0, 0.0),
        rest=(0.0,),
        low=numbers(-limit),
        high=numbers(limit),
        Q=(1.0, 1.0),
        R=(0.1,),
        start=(0.0, 0.0),
        spread=(2.0, 2.0),
        box=(5.0, 5.0),
        scene=plane_scene,
        dt=dt,
        max_steps=max_steps,
    )

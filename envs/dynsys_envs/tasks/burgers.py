"""Burgers' equation on a ring, to be brought to rest by actuators before its waves have decayed by themselves.

    du/dt = nu u_xx - u u_x + sum_j a_j b_j(x),    b_j: a bump at x = j L / m

64 points, 4 actuators with |a_j| <= 1, held over dt = 0.05; the goal is u = 0. An episode ends where |u| > 10. Steps are ETDRK4 with 2/3
dealiasing. Source: the system `Burgers` of the database (Kunisch & Volkwein 1999).
"""

from typing import Any

from dynsys_envs.functional import Regulation
from dynsys_envs.maps import flow_named
from dynsys_envs.tasks.kuramoto_sivashinsky import at_rest, waves


def burgers(*, limit: float = 1.0, dt: float = 0.05, max_steps: int = 200, **parameters: Any) -> Regulation:
    """The task `dynsys/Burgers-v0`; parameters: L, nu, width, and the sizes n (points) and m (actuators)."""
    flow = flow_named("Burgers", **parameters)
    return at_rest(flow, dt, limit, max_steps, modes=waves(flow.dim, 3, 0.4), edge=10.0)

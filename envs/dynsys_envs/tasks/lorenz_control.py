"""Lorenz's system, to be held at one of its unstable spirals by a small push on y.

    dx/dt = sigma (y - x),    dy/dt = x (rho - z) - y + u,    dz/dt = x y - beta z

The goal is (a, a, rho - 1), a = sqrt(beta (rho - 1)). |u| is at most 5 % of the field's root mean square along the attractor.
Sources: Lorenz, J. Atmos. Sci. 20, 130 (1963); control by small pushes: Ott, Grebogi, Yorke, Phys. Rev. Lett. 64, 1196 (1990).
"""

import math
from typing import Any

from dynsys_envs.functional import Regulation
from dynsys_envs.tasks.system import system


def lorenz_control(
    sigma: float = 10.0, rho: float = 28.0, beta: float = 8 / 3, *, limit: Any = None, dt: float = 0.02, max_steps: int = 500
) -> Regulation:
    """The task `dynsys/LorenzControl-v0`; limit: the largest |u|."""
    a = math.sqrt(beta * (rho - 1)) if rho > 1 else 0.0
    goal = (a, a, rho - 1 if rho > 1 else 0.0)
    return system("Lorenz", push="y", goal=goal, limit=limit, dt=dt, max_steps=max_steps, sigma=sigma, rho=rho, beta=beta)

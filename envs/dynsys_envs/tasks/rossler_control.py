"""Rössler's system, to be held at the unstable spiral in its middle by a small push on y.

    dx/dt = -y - z,    dy/dt = x + a y + u,    dz/dt = b + z (x - c)

The goal is (a q, -q, q), q = (c - sqrt(c^2 - 4 a b)) / (2 a). |u| is at most 5 % of the field's root mean square along the attractor.
Source: Rössler, Phys. Lett. A 57, 397 (1976).
"""

import math
from typing import Any

from dynsys.errors import InvalidValue
from dynsys_envs.functional import Regulation
from dynsys_envs.tasks.system import system


def rossler_control(
    a: float = 0.2, b: float = 0.2, c: float = 5.7, *, limit: Any = None, dt: float = 0.05, max_steps: int = 600
) -> Regulation:
    """The task `dynsys/RosslerControl-v0`; limit: the largest |u|. Raises InvalidValue where there is no fixed point."""
    if c**2 < 4 * a * b or a == 0:
        raise InvalidValue(f"RosslerControl: there is no fixed point unless c^2 >= 4 a b and a != 0, got a={a}, b={b}, c={c}.")
    q = (c - math.sqrt(c**2 - 4 * a * b)) / (2 * a)
    return system("Rossler", push="y", goal=(a * q, -q, q), limit=limit, dt=dt, max_steps=max_steps, a=a, b=b, c=c)

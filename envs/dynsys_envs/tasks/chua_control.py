"""Chua's circuit, to be held in the middle of one of its two scrolls by a small push on y.

    dx/dt = alpha (y - x - f(x)),    dy/dt = x - y + z + u,    dz/dt = -beta y,    f(x) = m1 x + (m0 - m1)/2 (|x + 1| - |x - 1|)

The goal is (k, 0, -k), k = (m1 - m0) / (m1 + 1). |u| is at most 5 % of the field's root mean square along the attractor.
Source: Matsumoto, Chua, Komuro, IEEE Trans. Circuits Syst. 32, 797 (1985).
"""

from typing import Any

from dynsys.errors import InvalidValue
from dynsys_envs.functional import Regulation
from dynsys_envs.tasks.system import system


def chua_control(
    alpha: float = 15.6,
    beta: float = 28.0,
    m0: float = -8 / 7,
    m1: float = -5 / 7,
    *,
    limit: Any = None,
    dt: float = 0.02,
    max_steps: int = 500,
) -> Regulation:
    """The task `dynsys/ChuaControl-v0`; limit: the largest |u|. Raises InvalidValue where the outer fixed point does not exist."""
    k = (m1 - m0) / (m1 + 1) if m1 != -1 else 0.0
    if k <= 1:
        raise InvalidValue(f"ChuaControl: there is no fixed point beyond |x| = 1 with m0={m0}, m1={m1}: (m1 - m0)/(m1 + 1) must pass 1.")
    given: dict[str, Any] = {"alpha": alpha, "beta": beta, "m0": m0, "m1": m1}
    return system("Chua", push="y", goal=(k, 0.0, -k), limit=limit, dt=dt, max_steps=max_steps, **given)

"""Pendulum swing-up, with the constants, the integrator, the reward and the first states of Gymnasium's Pendulum-v1.

    omega' = clip(omega + dt (3 g / (2 l) sin(theta) + 3 / (m l^2) u), -8, 8),    theta' = theta + dt omega'

theta (rad) is the angle of a uniform rod of mass m (kg) and length l (m) from the upright, u (N m) the torque, |u| <= 2.
Source: Towers et al., Gymnasium, arXiv:2407.17032 (2024), environment Pendulum-v1.
"""

from typing import Any

import equinox as eqx
import numpy as np
from array_api_compat import array_namespace

from dynsys.dynamics import AnyInput, AnyState
from dynsys_envs.functional import Regulation, numbers
from dynsys_envs.maps import AbstractSeen
from dynsys_envs.scenes import pendulum_scene

MAX_SPEED = 8.0


class PendulumMap(AbstractSeen):
    """One step of the pendulum; state (theta, omega), input (u,)."""

    g: Any
    m: Any
    l: Any  # noqa: E741
    dt: Any
    dim: int = eqx.field(static=True, default=2)
    n_inputs: int = eqx.field(static=True, default=1)

    def step(self, z: AnyState, u: AnyInput = None) -> AnyState:
        """The state dt later, (2,), (1,) -> (2,)."""
        xp = array_namespace(z)
        torque = 0.0 if u is None else u[0]
        turn = 3 * self.g / (2 * self.l) * xp.sin(z[0]) + 3 / (self.m * self.l**2) * torque
        omega = xp.clip(z[1] + turn * self.dt, -MAX_SPEED, MAX_SPEED)
        return xp.stack([z[0] + omega * self.dt, omega])


def pendulum(g: Any = 10.0, m: Any = 1.0, l: Any = 1.0, *, dt: float = 0.05, max_steps: int = 200) -> Regulation:  # noqa: E741
    """The task `dynsys/Pendulum-v0`; g (m/s^2), m (kg), l (m), dt (s)."""
    return Regulation(
        dynamics=PendulumMap(g=g, m=m, l=l, dt=dt),  # pyright: ignore[reportCallIssue]
        goal=(0.0, 0.0),
        rest=(0.0,),
        low=(-2.0,),
        high=(2.0,),
        Q=(1.0, 0.1),
        R=(0.001,),
        start=(0.0, 0.0),
        spread=numbers(np.pi, 1.0),
        box=numbers(np.inf, np.inf),
        bounds=numbers(np.inf, MAX_SPEED),
        angles=(0,),
        scene=pendulum_scene,
        dt=dt,
        max_steps=max_steps,
    )

"""Swing-up of a pole that hangs from a cart, by a force on the cart.

    dv/dt     = (u + m s (l omega^2 - g c)) / (M + m s^2)
    domega/dt = (-u c - m l omega^2 c s + (M + m) g s) / (l (M + m s^2)),        s = sin(theta), c = cos(theta)

x (m) and v of the cart of mass M (kg); theta (rad) from the upright, positive to the right, of a massless pole of length l (m) with a
point mass m at its end; no friction. |u| <= 10 N; an episode ends where |x| > 5 m.
Source: Tedrake, Underactuated Robotics, course notes for MIT 6.832 (2023), chapter Acrobots, Cart-Poles and Quadrotors, with theta turned.
"""

from typing import Any

import equinox as eqx
import numpy as np
from array_api_compat import array_namespace

from dynsys.dynamics import AbstractFlow, AnyInput, AnyState, Discretized
from dynsys_envs.functional import Regulation, numbers
from dynsys_envs.scenes import cart_pole_scene


class CartPoleFlow(AbstractFlow):
    """The equations above; state (x, v, theta, omega), input (u,)."""

    cart: Any
    pole: Any
    length: Any
    g: Any
    dim: int = eqx.field(static=True, default=4)
    n_inputs: int = eqx.field(static=True, default=1)

    def field(self, t: Any, z: AnyState, u: AnyInput = None) -> AnyState:
        """The time derivative, (), (4,), (1,) -> (4,)."""
        xp = array_namespace(z)
        push = 0.0 if u is None else u[0]
        s, c, w = xp.sin(z[2]), xp.cos(z[2]), z[3]
        M, m, l, g = self.cart, self.pole, self.length, self.g  # noqa: E741
        bottom = M + m * s**2
        forward = (push + m * s * (l * w**2 - g * c)) / bottom
        turn = (-push * c - m * l * w**2 * c * s + (M + m) * g * s) / (l * bottom)
        return xp.stack([z[1], forward, w, turn])


def cart_pole_swing_up(
    cart: Any = 1.0, pole: Any = 0.1, length: Any = 0.5, g: Any = 9.81, *, force: float = 10.0, dt: float = 0.05, max_steps: int = 200
) -> Regulation:
    """The task `dynsys/CartPoleSwingUp-v0`; masses (kg), length (m), g (m/s^2), the largest force (N), dt (s), held inputs, RK4."""
    flow = CartPoleFlow(cart=cart, pole=pole, length=length, g=g)  # pyright: ignore[reportCallIssue]
    return Regulation(
        dynamics=Discretized(flow, dt),  # pyright: ignore[reportCallIssue]
        goal=numbers(0, 0, 0, 0),
        rest=(0.0,),
        low=numbers(-force),
        high=numbers(force),
        Q=(0.1, 0.01, 1.0, 0.01),
        R=(0.001,),
        start=numbers(0, 0, np.pi, 0),
        spread=(0.1, 0.1, 0.1, 0.1),
        box=numbers(5, np.inf, np.inf, np.inf),
        angles=(2,),
        scene=cart_pole_scene,
        dt=dt,
        max_steps=max_steps,
    )

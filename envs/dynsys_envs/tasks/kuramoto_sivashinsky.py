"""The Kuramoto-Sivashinsky equation on a ring, chaotic at L = 22, to be brought to rest by actuators.

    du/dt = -u_xx - u_xxxx - u u_x + sum_j a_j b_j(x),    b_j: a Gaussian bump at x = j L / m

64 points, 4 actuators with |a_j| <= 0.5, held over dt = 0.25; the goal is the unstable state u = 0. An episode ends where |u| > 20.
Steps are ETDRK4 with 2/3 dealiasing. Source: Bucci et al., Proc. R. Soc. A 475, 20190351 (2019).
"""

from pathlib import Path
from typing import Any

import numpy as np

from dynsys.integrate.spectral import FieldMap
from dynsys_envs.functional import Numbers, Regulation, numbers
from dynsys_envs.maps import flow_named
from dynsys_envs.scenes import field_scene

FILE = Path(__file__).parents[1] / "systems" / "kuramoto_sivashinsky_controlled.toml"


def kuramoto_sivashinsky(*, limit: float = 0.5, dt: float = 0.25, max_steps: int = 400, **parameters: Any) -> Regulation:
    """The task `dynsys/KuramotoSivashinsky-v0`; parameters: L, spread, and the sizes n (points) and m (actuators)."""
    flow = flow_named(str(FILE), **parameters)
    return at_rest(flow, dt, limit, max_steps, modes=waves(flow.dim, 4, 1.0), edge=20.0)


def waves(n: int, highest: int, amplitude: float) -> tuple[Numbers, ...]:
    """Cosines and sines of the first `highest` wave numbers on a ring of n points."""
    x = 2 * np.pi * np.arange(n) / n
    return tuple(numbers(*(amplitude * f(k * x))) for k in range(1, highest + 1) for f in (np.cos, np.sin))


def at_rest(flow: Any, dt: float, limit: float, max_steps: int, *, modes: tuple[Numbers, ...], edge: float) -> Regulation:
    """A field that is to be brought to 0; c is the mean square of the field and a tenth of that of the inputs in units of their limit."""
    M, K = flow.dim, flow.n_inputs
    return Regulation(  # pyright: ignore[reportCallIssue]
        dynamics=FieldMap.init(flow, dt).prepared(),
        goal=numbers(*np.zeros(M)),
        rest=numbers(*np.zeros(K)),
        low=numbers(*np.full(K, -limit)),
        high=numbers(*np.full(K, limit)),
        Q=numbers(*np.full(M, 1 / M)),
        R=numbers(*np.full(K, 0.1 / (K * limit**2))),
        start=numbers(*np.zeros(M)),
        spread=numbers(*np.zeros(M)),
        modes=modes,
        box=numbers(*np.full(M, edge)),
        scene=field_scene,
        dt=dt,
        max_steps=max_steps,
    )

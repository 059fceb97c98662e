"""The tasks by name, and their registration with gymnasium under `dynsys/NAME-v0`.

A task is one file in `tasks`, one line here, and one line in docs/environments.md; the tests pick it up.
"""

import importlib
import inspect
from typing import Any

from dynsys.errors import UnknownName
from dynsys_envs.functional import AbstractEnvironment

# name: (where its function is, after how many steps gymnasium.make cuts an episode off)
TASKS: dict[str, tuple[str, int]] = {
    "Pendulum": ("dynsys_envs.tasks.pendulum:pendulum", 200),
    "CartPoleSwingUp": ("dynsys_envs.tasks.cart_pole_swing_up:cart_pole_swing_up", 200),
    "PlanarQuadrotor": ("dynsys_envs.tasks.planar_quadrotor:planar_quadrotor", 250),
    "PVTOL": ("dynsys_envs.tasks.pvtol:pvtol", 300),
    "PathTracking": ("dynsys_envs.tasks.path_tracking:path_tracking", 200),
    "ReverseVanDerPol": ("dynsys_envs.tasks.reverse_van_der_pol:reverse_van_der_pol", 200),
    "Duffing": ("dynsys_envs.tasks.duffing:duffing", 200),
    "TwoLinkArm": ("dynsys_envs.tasks.two_link_arm:two_link_arm", 200),
    "LorenzControl": ("dynsys_envs.tasks.lorenz_control:lorenz_control", 500),
    "RosslerControl": ("dynsys_envs.tasks.rossler_control:rossler_control", 600),
    "ChuaControl": ("dynsys_envs.tasks.chua_control:chua_control", 500),
    "System": ("dynsys_envs.tasks.system:system", 500),
    "KuramotoSivashinsky": ("dynsys_envs.tasks.kuramoto_sivashinsky:kuramoto_sivashinsky", 400),
    "Burgers": ("dynsys_envs.tasks.burgers:burgers", 200),
    "LinearPlant": ("dynsys_envs.tasks.linear_plant:linear_plant", 200),
}


def names() -> tuple[str, ...]:
    """The names of all tasks."""
    return tuple(TASKS)


def task(name: str, **parameters: Any) -> AbstractEnvironment:
    """The pure environment of a task with some parameters changed; UnknownName for a name or a parameter that is not there."""
    if name not in TASKS:
        raise UnknownName("task", name, TASKS)
    module, attribute = TASKS[name][0].split(":")
    make = getattr(importlib.import_module(module), attribute)
    known = inspect.signature(make).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        for given in parameters:
            if given not in known:
                raise UnknownName(f"parameter of {name}", given, known)
    return make(**parameters)


def register() -> None:
    """Make the tasks known to gymnasium; a second call does nothing."""
    import gymnasium

    for name, (_, max_steps) in TASKS.items():
        if f"dynsys/{name}-v0" not in gymnasium.registry:
            gymnasium.register(
                id=f"dynsys/{name}-v0",
                entry_point="dynsys_envs.gym:Registered",
                vector_entry_point="dynsys_envs.vector:VectorEnvironment",
                max_episode_steps=max_steps,
                kwargs={"task": name},
            )

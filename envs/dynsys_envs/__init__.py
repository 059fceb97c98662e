"""Gymnasium environments of dynsys: pure functions, one stateful adapter, one batched one.

    import dynsys_envs                                   registers dynsys/Pendulum-v0, dynsys/CartPoleSwingUp-v0, ...
    env = gymnasium.make("dynsys/CartPoleSwingUp-v0")    or gymnasium.make("dynsys_envs:dynsys/CartPoleSwingUp-v0") without the import

Gymnasium 1.0 and later load no plug-ins by themselves, so one of these two is needed in a program; the entry point `gymnasium.envs` is
there for programs that load them. The pure environments, `dynsys_envs.registry.task(name)`, need no gymnasium.
"""

import importlib.util

from dynsys_envs.registry import register

if importlib.util.find_spec("gymnasium") is not None:
    register()

"""Any system of the database with inputs, to be held at an unstable fixed point: the control of chaos, for one.

    dz/dt = field(z, u),    |u - rest| <= limit,    goal: field(goal, rest) = 0

The goal is the fixed point that lies nearest to the middle of the attractor, measured in its standard deviations; Newton's method is
started from the middle and from places around it. The limit is small by default, 5 % of the field's typical size along the attractor
(root mean square): enough near the fixed point, too little to force the orbit there, so a controller has to wait for the right moment
(Ott, Grebogi, Yorke, Phys. Rev. Lett. 64, 1196 (1990)). First states are those of the free attractor, moved a little. An episode ends
where the state is further from the goal than ten times the size of the attractor.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import root

from dynsys.dynamics import AbstractFlow, AbstractMap, Discretized
from dynsys.errors import InvalidValue, UnknownName
from dynsys.integrate.spectral import FieldMap
from dynsys.precision import x64
from dynsys.systems import SystemFlow, SystemMap
from dynsys_envs.functional import Regulation, numbers
from dynsys_envs.maps import Pushed, is_timed, system_named
from dynsys_envs.scenes import field_scene, plane_scene, space_scene, traces_scene

PUSHED = {"Lorenz": ("y",), "Rossler": ("y",), "Chua": ("y",)}  # declare no input; these equations get one by default
FREE_STEPS = 2000
SHARE = 0.05
EVERY = 40  # steps between the states of the free orbit that first states are taken from


def system(
    system: str = "Lorenz",
    *,
    push: str | tuple[str, ...] | None = None,
    goal: Any = None,
    rest: Any = None,
    limit: Any = None,
    dt: float | None = None,
    substeps: int = 1,
    max_steps: int = 500,
    **parameters: Any,
) -> Regulation:
    """The task `dynsys/System-v0`: a flow, field or map of the database, by its exact name or a user's .toml file.

    push: the states whose equations get an additional input, for a system that declares none. goal (M,): default as above. rest (K,): the
    inputs that hold it there, default 0. limit: the most by which an input may differ from rest, a number or (K,). dt: default the
    file's. parameters: values that replace the file's. Raises UnknownName for names, InvalidValue for a system without inputs, one that
    depends on the time, or a goal that is no fixed point.
    """
    found = system_named(system, **parameters)
    name, start = found.record.name, np.asarray(found.start, float)
    pushed = _pushed(found, push)
    K = len(pushed) or found.n_inputs
    if not K:
        raise InvalidValue(
            f"System: {name} declares no input. Name the states that are to be pushed: push={found.names[0]!r} adds an input to the "
            "equation of that state; or declare inputs in a .toml file of your own."
        )
    if isinstance(found, SystemFlow) and is_timed(found, start):
        raise InvalidValue(f"System: the field of {name} depends on the time, so it has no fixed point; use an autonomous system.")
    hold = np.zeros(K) if rest is None else np.broadcast_to(np.asarray(rest, float), (K,))
    dynamics, rate = _dynamics(found, pushed, found.dt if dt is None else dt, substeps)
    orbit = free_orbit(dynamics, start, hold)
    middle, size = orbit.mean(0), np.maximum(orbit.std(0), 1e-3 + 0.1 * np.abs(orbit).max())
    target = _fixed_point(name, rate, hold, middle, size) if goal is None else _checked(name, rate, hold, goal)
    if limit is None:
        limit = SHARE * float(np.sqrt(np.mean(np.sum(rate_along(rate, orbit, hold) ** 2, axis=1))))
    reach = np.broadcast_to(np.asarray(limit, float), (K,))
    return regulation(dynamics, found, orbit, target, hold, reach, max_steps)


def regulation(
    dynamics: AbstractMap, found: Any, orbit: np.ndarray, goal: np.ndarray, rest: np.ndarray, reach: np.ndarray, max_steps: int
) -> Regulation:
    """The task of holding `dynamics` at `goal`; first states are mixtures of the goal and of states of the free orbit (T, M)."""
    M, size = len(goal), np.maximum(orbit.std(0), 1e-3 + 0.1 * np.abs(orbit).max())
    middle = orbit.mean(0)
    axes = np.linalg.svd(orbit[::EVERY] - middle, full_matrices=False)
    most = min(8, M)
    modes = axes[1][:most, None] * axes[2][:most] * np.sqrt(3 / len(orbit[::EVERY]))  # as wide as the attractor along its own axes
    angles = tuple(i for i, period in enumerate(_periods(found)) if period is not None and abs(period - 2 * np.pi) < 1e-9)
    grid = found.record.kind == "field"
    scene = field_scene if grid else {1: traces_scene, 2: plane_scene}.get(M, space_scene if M == 3 else traces_scene)
    return Regulation(  # pyright: ignore[reportCallIssue]
        dynamics=dynamics,
        goal=numbers(*goal),
        rest=numbers(*rest),
        low=numbers(*(rest - reach)),
        high=numbers(*(rest + reach)),
        Q=numbers(*(1 / (M * size**2))),
        R=numbers(*(0.01 / (len(reach) * reach**2))),
        start=numbers(*middle),
        spread=numbers(*size),
        modes=tuple(numbers(*mode) for mode in modes),
        box=numbers(*(np.inf if i in angles else width for i, width in enumerate(10 * (size + np.abs(orbit - goal).max(0))))),
        angles=angles,
        scene=scene,
        dt=float(getattr(dynamics, "dt", 1.0)),
        max_steps=max_steps,
    )


def free_orbit(dynamics: AbstractMap, start: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """FREE_STEPS states (T, M) of the system at rest, in float64, without those from where they are not finite."""
    with x64():
        states = np.asarray(_free(dynamics, jnp.asarray(start, float), jnp.asarray(rest, float)))
    finite = np.isfinite(states).all(1) & (np.abs(states) < 1e6).all(1)
    return states[: max(2, int(np.argmin(finite)))] if not finite.all() else states


@eqx.filter_jit
def _free(dynamics: AbstractMap, z: Any, u: Any) -> Any:
    return jax.lax.scan(lambda z, _: (dynamics.step(z, u), z), z, None, length=FREE_STEPS)[1]


def rate_along(rate: Any, orbit: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """The field along an orbit, (T, M)."""
    with x64():
        return np.asarray(jax.vmap(lambda z: rate(z, jnp.asarray(rest, float)))(jnp.asarray(orbit, float)))


def _pushed(found: Any, push: str | tuple[str, ...] | None) -> tuple[int, ...]:
    names = (push,) if isinstance(push, str) else push
    if names is None:
        names = PUSHED.get(found.record.name, ()) if not found.n_inputs else ()
    for name in names:
        if name not in found.names:
            raise UnknownName(f"state of {found.record.name}", name, found.names)
    if names and (found.n_inputs or not isinstance(found, SystemFlow) or found.record.kind != "flow"):
        raise InvalidValue(f"System: push={push!r} is for flows that declare no input; {found.record.name} is no such flow. Leave it out.")
    return tuple(found.names.index(name) for name in names)


def _dynamics(found: Any, pushed: tuple[int, ...], dt: float, substeps: int) -> tuple[AbstractMap, Any]:
    """The map, and the function whose zeros are its fixed points: the field of a flow, step - state of a map."""
    if isinstance(found, SystemMap):
        return found, lambda z, u: found.step(z, u) - z
    if found.record.kind == "field":
        return FieldMap.init(found, dt).prepared(), lambda z, u: found.field(0.0, z, u)
    flow: AbstractFlow = Pushed(found, pushed) if pushed else found  # pyright: ignore[reportCallIssue]
    return Discretized(flow, dt, substeps=substeps), lambda z, u: flow.field(0.0, z, u)  # pyright: ignore[reportCallIssue]


def _periods(found: Any) -> list[float | None]:
    record = found.record
    periods = dict(record.file.wraps)
    return [periods.get(family.name) for family in record.file.state for _ in range(record.file.block(family).size)]


def _fixed_point(name: str, rate: Any, rest: np.ndarray, middle: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The zero of `rate` nearest to the middle of the attractor, by Newton's method from the middle and 24 places around it."""
    offsets = np.random.default_rng(0).normal(size=(24, len(middle)))
    best, nearest = None, np.inf
    with x64():
        u = jnp.asarray(rest, float)
        value, slope = jax.jit(lambda z: rate(z, u)), jax.jit(jax.jacfwd(lambda z: rate(z, u)))
        for begin in [middle, *(middle + size * offsets)]:
            found = root(lambda z: np.asarray(value(jnp.asarray(z))), begin, jac=lambda z: np.asarray(slope(jnp.asarray(z))))
            if not np.isfinite(found.x).all() or np.abs(found.fun).max() > 1e-9 * (1 + np.abs(found.x).max()):
                continue
            apart = float(np.sqrt(np.mean(((found.x - middle) / size) ** 2)))
            if apart < nearest - 1e-6 or (apart < nearest + 1e-2 and best is not None and tuple(found.x) > tuple(best + 1e-6)):
                best, nearest = found.x, min(apart, nearest)
    if best is None:
        raise InvalidValue(
            f"System: no fixed point of {name} was found with the inputs {rest.tolist()}. Pass goal=..., or rest=... that hold one."
        )
    return best


def _checked(name: str, rate: Any, rest: np.ndarray, goal: Any) -> np.ndarray:
    goal = np.asarray(goal, float)
    with x64():
        moved = np.asarray(rate(jnp.asarray(goal), jnp.asarray(rest, float))) if goal.ndim == 1 else np.inf
    if not np.abs(moved).max() <= 1e-4 * (1 + np.abs(goal).max()):
        raise InvalidValue(
            f"System: goal={goal.tolist()} is no fixed point of {name} with rest={rest.tolist()}: the field there is {moved}."
        )
    return goal

"""What a frame of a task shows: lines and points, computed with NumPy from the states of the episode so far.

scene(environment, states (T, M), inputs (T, K)) -> Scene       inputs[t] led to states[t]; inputs[0] is zero
"""

import dataclasses
from typing import Any

import numpy as np

BODY, MARK, FAINT, PUSH = "#2f5d8a", "#c0392b", "#b8c4cf", "#e08a1e"
TRAIL = 400
Real = int | float


@dataclasses.dataclass(frozen=True)
class Line:
    """A polyline, or points if `marker` is given."""

    x: Any
    y: Any
    color: str = BODY
    width: int | float = 2
    marker: str = ""


@dataclasses.dataclass(frozen=True)
class Scene:
    """Lines in the window (left, right, bottom, top). equal: one unit is as long both ways. labels: of the axes; else none are drawn."""

    lines: list[Line]
    window: tuple[Real, Real, Real, Real]
    equal: bool = True
    labels: tuple[str, str] | None = None


def pendulum_scene(environment: Any, states: np.ndarray, inputs: np.ndarray) -> Scene:
    """The rod, and the torque as an arc."""
    theta = states[-1, 0]
    lean = inputs[-1, 0] / environment.high[0]
    arc = np.linspace(0, 1.5 * lean, 20)
    rod = Line([0, -np.sin(theta)], [0, np.cos(theta)], width=10)
    push = Line(-0.35 * np.sin(arc), 0.35 * np.cos(arc), PUSH, 4)
    return Scene([Line([0], [1], MARK, 9, "o"), rod, push, Line([0], [0], "black", 9, "o")], (-1.4, 1.4, -1.4, 1.4))


def cart_pole_scene(environment: Any, states: np.ndarray, inputs: np.ndarray) -> Scene:
    """The cart on its track, the pole, and the force as a bar."""
    x, theta = states[-1, 0], states[-1, 2]
    length = float(environment.dynamics.flow.length)
    track = environment.box[0]
    push = inputs[-1, 0] / environment.high[0]
    tip = (x + length * np.sin(theta), length * np.cos(theta))
    left, right = (-track - 0.5, track + 0.5) if abs(x) > 2 else (-2.5, 2.5)
    lines = [
        Line([-track, track], [-0.12, -0.12], FAINT, 2),
        Line([x - 0.2, x + 0.2, x + 0.2, x - 0.2, x - 0.2], [-0.1, -0.1, 0.1, 0.1, -0.1], BODY, 3),
        Line([x, x + 0.5 * push], [-0.25, -0.25], PUSH, 4),
        Line([x, tip[0]], [0, tip[1]], "black", 4),
        Line([tip[0]], [tip[1]], MARK, 9, "o"),
    ]
    return Scene(lines, (left, right, -1.5, 1.5))


def flyer_scene(environment: Any, states: np.ndarray, inputs: np.ndarray) -> Scene:
    """The beam, its thrusts, where it has been and where it is to go."""
    x, y, theta = states[-1, :3]
    half = 0.3
    right, up = np.array([np.cos(theta), np.sin(theta)]), np.array([-np.sin(theta), np.cos(theta)])
    share = inputs[-1] / np.asarray(environment.high)
    ends = [share[0], share[1]] if environment.low[1] == 0 else [share[0] / 2 + share[1] / 4, share[0] / 2 - share[1] / 4]
    lines = [
        Line(states[-TRAIL:, 0], states[-TRAIL:, 1], FAINT, 1.5),
        Line([environment.goal[0]], [environment.goal[1]], MARK, 12, "+"),
        Line([x - half * right[0], x + half * right[0]], [y - half * right[1], y + half * right[1]], BODY, 6),
    ]
    for side, thrust in zip((1, -1), ends, strict=True):
        root = np.array([x, y]) + side * half * right
        tip = root + 0.8 * thrust * up
        lines.append(Line([root[0], tip[0]], [root[1], tip[1]], PUSH, 3))
    reach = max(2.5, float(np.max(np.abs(states[-1, :2] - np.asarray(environment.goal[:2])))) + 0.5)
    return Scene(lines, (-reach, reach, -reach, reach))


def car_scene(environment: Any, states: np.ndarray, inputs: np.ndarray) -> Scene:
    """The circle from above, and the car on its way round it; the angle travelled is summed up from the states."""
    flow, dt = environment.dynamics.flow, environment.dt
    radius, speed, length = (float(flow.parameters[name]) for name in ("radius", "speed", "length"))
    d, e = states[:, 0], states[:, 1]
    phase = np.concatenate([[0.0], np.cumsum(speed * np.cos(e[:-1]) / (radius - d[:-1]) * dt)])
    x, y = (radius - d) * np.cos(phase), (radius - d) * np.sin(phase)
    heading = phase[-1] + np.pi / 2 + e[-1]
    around = np.linspace(0, 2 * np.pi, 200)
    steer = heading + np.arctan(inputs[-1, 0])
    nose = (x[-1] + length * np.cos(heading), y[-1] + length * np.sin(heading))
    lines = [
        Line(radius * np.cos(around), radius * np.sin(around), FAINT, 6),
        Line(x[-TRAIL:], y[-TRAIL:], MARK, 1.5),
        Line([x[-1], nose[0]], [y[-1], nose[1]], BODY, 9),
        Line([nose[0], nose[0] + 0.7 * np.cos(steer)], [nose[1], nose[1] + 0.7 * np.sin(steer)], PUSH, 4),
    ]
    edge = radius + 3.5
    return Scene(lines, (-edge, edge, -edge, edge))


def arm_scene(environment: Any, states: np.ndarray, inputs: np.ndarray) -> Scene:
    """Both links; the torques as arcs about their joints."""
    q1, q2 = states[-1, :2]
    l1 = float(environment.dynamics.flow.parameters["l1"])
    l2 = 2 * float(environment.dynamics.flow.parameters["c2"])
    elbow = np.array([l1 * np.sin(q1), -l1 * np.cos(q1)])
    hand = elbow + l2 * np.array([np.sin(q1 + q2), -np.cos(q1 + q2)])
    share = inputs[-1] / np.asarray(environment.high)
    lines = [Line([0], [l1 + l2], MARK, 12, "+"), Line([0, elbow[0], hand[0]], [0, elbow[1], hand[1]], BODY, 7)]
    for (x, y), turn, base in (((0.0, 0.0), share[0], q1), ((elbow[0], elbow[1]), share[1], q1 + q2)):
        arc = base + np.linspace(0, 1.5 * turn, 20)
        lines += [Line(x + 0.3 * np.sin(arc), y - 0.3 * np.cos(arc), PUSH, 3), Line([x], [y], "black", 7, "o")]
    edge = 1.15 * (l1 + l2)
    return Scene(lines, (-edge, edge, -edge, edge))


def plane_scene(environment: Any, states: np.ndarray, inputs: np.ndarray) -> Scene:
    """The first two states as a curve in their plane, the goal, and the input as a bar below."""
    return _orbit(environment, states, inputs, 0, 1)


def space_scene(environment: Any, states: np.ndarray, inputs: np.ndarray) -> Scene:
    """The first and the third state as a curve in their plane."""
    return _orbit(environment, states, inputs, 0, 2)


def _orbit(environment: Any, states: np.ndarray, inputs: np.ndarray, i: int, j: int) -> Scene:
    near, wide = np.asarray(environment.start), 2.2 * np.asarray(environment.spread)
    seen = states[-TRAIL:]
    low = np.minimum(near - wide, np.minimum(np.asarray(environment.goal) - 0.2 * wide, seen.min(0)))
    high = np.maximum(near + wide, np.maximum(np.asarray(environment.goal) + 0.2 * wide, seen.max(0)))
    left, right, bottom, top = low[i], high[i], low[j], high[j]
    span = top - bottom
    share = (inputs[-1, 0] - environment.rest[0]) / (environment.high[0] - environment.rest[0])
    middle = (left + right) / 2
    lines = [
        Line(seen[:, i], seen[:, j], BODY, 1.2),
        Line([environment.goal[i]], [environment.goal[j]], MARK, 14, "+"),
        Line([seen[-1, i]], [seen[-1, j]], "black", 7, "o"),
        Line([middle, middle + 0.4 * (right - left) * share], [bottom - 0.04 * span] * 2, PUSH, 5),
    ]
    return Scene(lines, (left, right, bottom - 0.08 * span, top), equal=False, labels=(f"state {i + 1}", f"state {j + 1}"))


def field_scene(environment: Any, states: np.ndarray, inputs: np.ndarray) -> Scene:
    """The field round the ring, the goal, and the actuators as bars."""
    n, K = states.shape[1], inputs.shape[1]
    x, at = np.arange(n) / n, np.arange(K) / K
    edge = max(1e-9, float(np.abs(states).max()), *(abs(value) for value in environment.goal)) * 1.2
    lines = [Line(x, environment.goal, FAINT, 2), Line(x, states[-1], BODY, 2.5)]
    for place, value, limit in zip(at, inputs[-1], environment.high, strict=True):
        lines.append(Line([place, place], [0, 0.5 * edge * value / limit], PUSH, 5))
    return Scene(lines, (-0.03, 1.03, -edge, edge), equal=False, labels=("place / length", "field"))


def traces_scene(environment: Any, states: np.ndarray, inputs: np.ndarray) -> Scene:
    """The states against time, each in units of three usual spreads (more if it goes further), and the inputs below."""
    seen = [i for i in range(states.shape[1]) if i not in environment.hidden][:8]
    scale = np.maximum(np.asarray(environment.spread), 1e-12)
    off = (states - np.asarray(environment.goal)) / scale
    off /= np.maximum(3.0, np.abs(off).max(0))
    time = np.arange(len(states)) * environment.dt
    lines: list[Line] = []
    for row, i in enumerate(seen):
        height = 2.0 * (len(seen) - row)
        lines += [Line([0, time[-1] + environment.dt], [height] * 2, FAINT, 1), Line(time, height + off[:, i], BODY, 1.6)]
    half = (np.asarray(environment.high) - np.asarray(environment.low)) / 2
    for k in range(inputs.shape[1]):
        lines.append(Line(time, (inputs[:, k] - environment.rest[k]) / half[k], PUSH, 1.2))
    longest = max(time[-1], 20 * environment.dt)
    return Scene(
        lines, (0.0, float(longest), -1.3, 2.0 * len(seen) + 1.3), equal=False, labels=("time", "states from the top, inputs below")
    )

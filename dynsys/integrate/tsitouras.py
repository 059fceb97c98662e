"""The Runge-Kutta pair 5(4) of Tsitouras: seven stages of which the last is the first of the next step.

    k_1 = f(t, z),   k_i = f(t + c_i h, z + h sum_j a_ij k_j),   z(t + h) = z + h sum_i b_i k_i,   b_i = a_7i
    z(t + theta h) = z + h sum_i k_i sum_p P_ip theta^p          (order 4 between the steps, no further stage)

E_i is the difference of the two pairs' weights, from which the local error is h sum_i E_i k_i.
Source: Tsitouras, Computers & Mathematics with Applications 62 (2011) 770-775, table 1 and section 5.
"""

from collections.abc import Callable, Sequence
from typing import Any

C = (0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0)
A = (
    (0.161,),
    (-0.008480655492356989, 0.335480655492357),
    (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
    (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
    (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
    (0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774),
)
E = (
    0.0017800110522257773,
    0.0008164344596567463,
    -0.007880878010261994,
    0.1447110071732629,
    -0.5823571654525552,
    0.45808210592918686,
    -1 / 66,
)
P = (  # powers 1 to 4 of theta
    (1.0, -2.763706197274826, 2.9132554618219126, -1.0530884977290216),
    (0.0, 0.1317, -0.2234, 0.1017),
    (0.0, 3.9302962368947516, -5.941033872131505, 2.490627285651253),
    (0.0, -12.411077166933676, 30.33818863028232, -16.548102889244902),
    (0.0, 37.50931341651104, -88.1789048947664, 47.37952196281928),
    (0.0, -27.896526289197286, 65.09189467479366, -34.87065786149661),
    (0.0, 1.5, -4.0, 2.5),
)


def combine(weights: Sequence[Any], stages: Sequence[Any]) -> Any:
    """sum_i weights_i stages_i."""
    total = weights[0] * stages[0]
    for weight, stage in zip(weights[1:], stages[1:], strict=True):
        total = total + weight * stage
    return total


def stages(field: Callable[[Any, Any], Any], t: Any, z: Any, first: Any, h: Any) -> tuple[list[Any], Any]:
    """All seven slopes from the first, and the state at t + h."""
    slopes, state = [first], z
    for row, c in zip(A, C[1:], strict=True):
        state = z + h * combine(row, slopes)
        slopes.append(field(t + c * h, state))
    return slopes, state


def between(z: Any, slopes: Sequence[Any], h: Any, theta: Any) -> Any:
    """The state at t + theta h, 0 <= theta <= 1."""
    weights = [theta * (p1 + theta * (p2 + theta * (p3 + theta * p4))) for p1, p2, p3, p4 in P]
    return z + h * combine(weights, slopes)


def tsitouras_5(flow: Any, t: Any, z: Any, u: Any, dt: Any) -> Any:
    """One step of fixed length of order five: a `Stepper` with six evaluations of the field."""
    slopes, state = [flow.field(t, z, u)], z
    for row, c in zip(A, C[1:], strict=True):
        state = z + dt * combine(row, slopes)
        if len(slopes) < 6:
            slopes.append(flow.field(t + c * dt, state, u))
    return state

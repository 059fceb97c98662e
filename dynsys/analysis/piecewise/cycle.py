"""A fixed point or cycle, with what decides its fate nearby: the eigenvalues of the return map.

    map    z* = F^k(z*),   eigenvalues of DF^k(z*): stable if all |lambda| < 1
    flow   f(z*) = 0,      eigenvalues of Df(z*):   stable if all Re(lambda) < 0

A virtual cycle solves the equations of a sequence of regions that its own points do not visit: it is no orbit of the map, but
its nearness to the border tells of a border collision.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Complex, Float

from dynsys.status import Status

HYPERBOLIC = 1e-7  # an eigenvalue nearer than this to the stability border counts as on it


@dataclasses.dataclass(frozen=True)
class Cycle:
    """A k-cycle of a map (k = 1: a fixed point), or an equilibrium of a flow (`continuous`, k = 1).

    points (k, M) in the order in which they are visited; eigenvalues (M,) of the k-step map (flow: of the field, per unit of
    time), largest modulus (real part) first; residual: largest |F(z_t) - z_{t+1}| over the cycle, in the state's units;
    regions (k, R): the code of each point, None for a smooth system; virtual: see the module.
    """

    points: Float[np.ndarray, "k M"]
    eigenvalues: Complex[np.ndarray, " M"]
    residual: float
    regions: Bool[np.ndarray, "k R"] | None = None
    virtual: bool = False
    continuous: bool = False

    @property
    def period(self) -> int:
        """k, in steps; 1 for a fixed point or an equilibrium."""
        return len(self.points)

    @property
    def growth(self) -> Float[np.ndarray, " M"]:
        """ln |lambda| per k steps (map) or Re lambda per unit of time (flow): negative contracts."""
        if self.continuous:
            return np.real(self.eigenvalues)
        with np.errstate(divide="ignore"):
            return np.log(np.abs(self.eigenvalues))

    @property
    def n_unstable(self) -> int:
        """The dimension of its unstable manifold."""
        return int((self.growth > HYPERBOLIC).sum())

    @property
    def hyperbolic(self) -> bool:
        """False if an eigenvalue lies on the border of stability."""
        return bool((np.abs(self.growth) > HYPERBOLIC).all())

    @property
    def stable(self) -> bool:
        """Every nearby orbit converges to it."""
        return bool((self.growth < -HYPERBOLIC).all())

    @property
    def spiral(self) -> bool:
        """Whether the slowest contracting or the fastest expanding direction turns: its eigenvalue is complex."""
        return bool(np.abs(np.imag(self.eigenvalues[0])) > 1e-9 * max(1.0, abs(self.eigenvalues[0])))

    @property
    def kind(self) -> str:
        """Stable or unstable node or spiral, saddle or saddle-focus (some direction turns); centre or non-hyperbolic on the border."""
        turning = np.abs(np.imag(self.eigenvalues)) > 1e-9 * np.maximum(1.0, np.abs(self.eigenvalues))
        if not self.hyperbolic:
            neutral = ~(np.abs(self.growth) > HYPERBOLIC)
            return "centre" if turning[neutral].all() and self.n_unstable == 0 else "non-hyperbolic"
        if 0 < self.n_unstable < len(self.eigenvalues):
            return "saddle-focus" if turning.any() else "saddle"
        return f"{'stable' if self.stable else 'unstable'} {'spiral' if self.spiral else 'node'}"


@dataclasses.dataclass(frozen=True)
class Cycles:
    """What a search found: cycles by period and then by number of unstable directions; the virtual ones apart.

    status: SUCCESS, even if there are none; MAX_STEPS if the budget ended an exhaustive search. notes: one sentence for
    everything that a reader must know (what was singular, what was out of bounds, that nothing was found and what to try).
    about: settings and counts of the search, by name.
    """

    cycles: tuple[Cycle, ...]
    virtual: tuple[Cycle, ...] = ()
    status: Status = Status.SUCCESS
    notes: tuple[str, ...] = ()
    about: tuple[tuple[str, Any], ...] = ()

    def of_period(self, period: int) -> tuple[Cycle, ...]:
        """The cycles of one (least) period."""
        return tuple(cycle for cycle in self.cycles if cycle.period == period)

    @property
    def fixed_points(self) -> tuple[Cycle, ...]:
        """The cycles of period 1."""
        return self.of_period(1)

    def __len__(self) -> int:
        return len(self.cycles)

    def __iter__(self) -> Iterator[Cycle]:
        return iter(self.cycles)


def ordered(cycles: list[Cycle]) -> tuple[Cycle, ...]:
    """By period, then by number of unstable directions, then by position."""
    return tuple(sorted(cycles, key=lambda cycle: (cycle.period, cycle.n_unstable, tuple(np.round(cycle.points[0], 9)))))

"""What following a cycle over a parameter gives: branches of cycles, and the events where their number or stability changes.

eigenvalue crosses   map +1, flow 0: fold, transcritical, pitchfork      map -1: flip      complex pair: Neimark-Sacker, flow Hopf
a point meets a switching manifold: border collision, nonsmooth fold, vanishes, merges
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Complex, Float, Int

from dynsys.status import Status


@dataclasses.dataclass(frozen=True)
class Branch:
    """n points of a curve of k-cycles (flow: equilibria, k = 1) over the parameter; a branch may turn back at folds.

    values (n,): the parameter; points (n, k, M); eigenvalues (n, M) of the k-step map (flow: of the field), largest modulus (real
    part) first; regions (n, k, R) for a piecewise-linear map. Where a border is crossed there are two entries at the same value, with
    the eigenvalues of each side.
    """

    values: Float[np.ndarray, " n"]
    points: Float[np.ndarray, "n k M"]
    eigenvalues: Complex[np.ndarray, "n M"]
    regions: Bool[np.ndarray, "n k R"] | None = None
    continuous: bool = False

    @property
    def period(self) -> int:
        """k, in steps."""
        return self.points.shape[1]

    @property
    def n_unstable(self) -> Int[np.ndarray, " n"]:
        """The number of unstable directions at each point."""
        return np.array([count_unstable(row, self.continuous) for row in self.eigenvalues])

    @property
    def stable(self) -> Bool[np.ndarray, " n"]:
        """Where the cycle attracts."""
        return self.n_unstable == 0

    def coordinate(self, i: int) -> Float[np.ndarray, "n k"]:
        """Coordinate i of every point of the cycles: what a bifurcation diagram shows over `values`."""
        return self.points[..., i]

    def __len__(self) -> int:
        return len(self.values)


@dataclasses.dataclass(frozen=True)
class Event:
    """A bifurcation: the value of the parameter, its kind, the branch (index) and cycle (k, M) where it happens, and what it means.

    kind: 'fold', 'branch point', 'transcritical', 'pitchfork', 'flip', 'Neimark-Sacker', 'Hopf', 'merges' (a k-cycle shrinks onto a
    cycle of smaller period: the other side of a flip), and for borders 'border collision' (the cycle goes on in the next region),
    'nonsmooth fold' (it meets another one, and both end), 'vanishes'. eigenvalue: the one on the border of stability, NaN at a border.
    """

    value: float
    kind: str
    branch: int
    points: Float[np.ndarray, "k M"]
    eigenvalue: complex
    what: str


@dataclasses.dataclass(frozen=True)
class Branches:
    """All branches, and the events in the order of the parameter. status FAILED: nothing was found to follow; notes say more."""

    branches: tuple[Branch, ...]
    events: tuple[Event, ...]
    status: Status = Status.SUCCESS
    notes: tuple[str, ...] = ()

    def of_kind(self, kind: str) -> tuple[Event, ...]:
        """The events of one kind."""
        return tuple(event for event in self.events if event.kind == kind)

    def __len__(self) -> int:
        return len(self.branches)


def count_unstable(eigenvalues: Complex[np.ndarray, " M"], continuous: bool) -> int:
    """How many eigenvalues lie beyond the border of stability."""
    return int((np.real(eigenvalues) > 0).sum() if continuous else (np.abs(eigenvalues) > 1).sum())


def critical(eigenvalues: Complex[np.ndarray, " M"], continuous: bool) -> complex:
    """The eigenvalue nearest to the border of stability."""
    with np.errstate(divide="ignore"):
        gap = np.abs(np.real(eigenvalues)) if continuous else np.abs(np.log(np.abs(eigenvalues)))
    return complex(eigenvalues[int(np.argmin(gap))])


def kind_of(eigenvalue: complex, continuous: bool, turns: bool) -> tuple[str, str]:
    """The kind of a loss of stability and what it means; turns: the branch turns back in the parameter there."""
    if abs(eigenvalue.imag) > 1e-3 * max(abs(eigenvalue), 1e-6):
        if continuous:
            turn = abs(eigenvalue.imag)
            return "Hopf", f"a pair +-{turn:.4g}i crosses the imaginary axis: a limit cycle of period {2 * np.pi / turn:.4g}"
        return "Neimark-Sacker", f"a pair leaves the unit circle at an angle of {abs(np.angle(eigenvalue)):.4g}: an invariant circle"
    if not continuous and eigenvalue.real < 0:
        return "flip", "an eigenvalue passes -1: a cycle of twice the period"
    if turns:
        return "fold", "two cycles meet and end"
    return "branch point", f"an eigenvalue passes {'0' if continuous else '1'} without a fold: another branch crosses"

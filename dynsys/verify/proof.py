"""What a proof says: how it ended, the level, the boxes, a counterexample, and what is assumed. `certify.py` makes it."""

import enum
import hashlib
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from dynsys.verify.branch import Search


class Outcome(enum.Enum):
    """How a proof ended."""

    PROVED = "proved"
    COUNTEREXAMPLE = "counterexample"
    UNDECIDED = "undecided"

    @property
    def ok(self) -> bool:
        """Whether the claim holds."""
        return self is Outcome.PROVED

    @property
    def remedy(self) -> str:
        """What to try next, in words."""
        return {
            Outcome.PROVED: "",
            Outcome.COUNTEREXAMPLE: "The claim is false at `counterexample`. Lower the level or the rate, or train V with that state.",
            Outcome.UNDECIDED: "Give more time or boxes (the search goes on with resume=proof), or lower the level or the rate a little.",
        }[self]


@dataclass(frozen=True)
class Counterexample:
    """A state at which the claim is false, shown with the same bounds as a proof; what fails; V and the excess there."""

    state: np.ndarray
    disturbance: np.ndarray
    what: str
    value: float
    excess: float


@dataclass(frozen=True)
class Proof:
    """What came out. `level` is the claim's; `bracket` (proved, refuted) levels, nan where unknown.

    r0: half-width of the cube of y around the goal that was proved from its surface (nan: none); frame T (n, n): x = goal + T y,
    |y_i| <= 1. Boxes are in y, then the disturbance scaled to [-1, 1]. volume: the proved share of the cube. fingerprint: of loop and V.
    """

    outcome: Outcome
    reason: str
    level: float
    bracket: tuple[float, float]
    rate: float
    core: float
    boxes: int
    seconds: float
    compile_seconds: float
    volume: float
    r0: float
    face_boxes: int
    smallest: float
    frame: np.ndarray
    domain: tuple[np.ndarray, np.ndarray]
    counterexample: Counterexample | None
    assumptions: tuple[str, ...]
    search: Search = field(repr=False)
    fingerprint: str = ""

    @property
    def proved(self) -> bool:
        """Whether the claim holds at `level`."""
        return self.outcome is Outcome.PROVED

    @property
    def leaves(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The proved boxes: mid, rad, (lower bound of V, upper bound of the decrease); the tree of a certificate."""
        if not self.search.leaves:
            n = len(self.frame)
            return np.zeros((0, n)), np.zeros((0, n)), np.zeros((0, 2))
        mid, rad, bounds = (np.concatenate(x) for x in zip(*self.search.leaves, strict=True))
        return mid, rad, bounds

    @property
    def remaining(self) -> tuple[np.ndarray, np.ndarray]:
        """Boxes that are open or too small to split: mid and rad."""
        left = [*self.search.open, *self.search.aside]
        if not left:
            return np.zeros((0, len(self.frame))), np.zeros((0, len(self.frame)))
        return np.concatenate([x[0] for x in left]), np.concatenate([x[1] for x in left])


def fingerprint(loop: Any, V: Any) -> str:
    """A digest of the classes of plant, policy and V and of every array in loop and V, by which a proof knows what it is about."""
    words = [f"{type(part).__module__}.{type(part).__qualname__}" for part in (loop.plant, loop.policy, V)]
    arrays = [np.asarray(x, float) if np.asarray(x).dtype.kind == "f" else np.asarray(x) for x in jax.tree_util.tree_leaves((loop, V))]
    return hashlib.sha256("\n".join(words).encode() + b"".join(str(x.shape).encode() + x.tobytes() for x in arrays)).hexdigest()

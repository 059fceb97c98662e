"""What a proof says: how it ended, the level, the boxes, a counterexample, and what is assumed. `certify.py` makes it."""

import enum
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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
            Outcome.COUNTEREXAMPLE: "Lower the level or the rate, widen the domain if the set leaves it, or take another V.",
            Outcome.UNDECIDED: "Give more time or more boxes, or lower the level or the rate a little.",
        }[self]


@dataclass(frozen=True)
class Counterexample:
    """A state at which the claim is false, shown with the same bounds as a proof; what fails; V and the excess there."""

    state: np.ndarray
    disturbance: np.ndarray
    what: str
    value: float
    excess: float

    def words(self, names: Sequence[str] = ()) -> str:
        """Where the claim is false, and what fails there."""
        names = names or [f"x{i}" for i in range(len(self.state))]
        where = [f"{name} = {value:.6g}" for name, value in zip(names, self.state, strict=True)]
        where += [f"w{i} = {value:.6g}" for i, value in enumerate(self.disturbance)]
        return f"{self.what} at {', '.join(where)}, where V = {self.value:.6g}"


@dataclass(frozen=True)
class Proof:
    """What came out. `level` is the claim's; `bracket` (proved, refuted) levels, nan where unknown.

    r0: half-width of the cube of y around the goal that was proved from its surface (nan: none); frame T (n, n): x = goal + T y,
    |y_i| <= 1. Boxes are in y, then the disturbance scaled to [-1, 1]. volume: the proved share of the cube. fingerprint: of loop and V.
    limit: what fails at the refuted level of the bracket; "" where none is known.
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
    fingerprint: "Fingerprint | None" = field(default=None, repr=False)
    limit: str = ""

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


class Fingerprint(NamedTuple):
    """Of loop and V: a digest of every array, and what is no array (classes, static fields); equal for equal ones."""

    digest: str
    structure: Any


def fingerprint(loop: Any, V: Any) -> Fingerprint:
    """By which a proof knows what it is about."""
    leaves, structure = jax.tree_util.tree_flatten((loop, V))
    arrays = [np.asarray(x, float) if np.asarray(x).dtype.kind == "f" else np.asarray(x) for x in leaves]
    return Fingerprint(hashlib.sha256(b"".join(str(x.shape).encode() + x.tobytes() for x in arrays)).hexdigest(), structure)

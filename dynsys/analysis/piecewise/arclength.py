"""Following cycles of smooth systems over a parameter by pseudo-arclength continuation, through folds.

    X = (Z / scale, (value - first) / range),   G(X) = 0 and  t . (X - X_predicted) = 0,   t the unit tangent: DG t = 0

Events between two points of a branch are located by bisection along the chord, each trial corrected onto the branch.
Source: Keller, in Applications of Bifurcation Theory (1977); Allgower & Georg, Introduction to Numerical Continuation Methods (2003).
"""

import dataclasses
from collections.abc import Callable
from functools import cached_property, partial
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from dynsys.analysis.piecewise.branches import Branch, Event, count_unstable, critical, kind_of
from dynsys.analysis.piecewise.verified import System, composed, eigenvalues, pointwise
from dynsys.dynamics import AbstractFlow

_MAX_POINTS = 5000
_SHARP = 0.9  # cosine of the largest turn of the tangent in one step
_BISECTIONS = 60


@dataclasses.dataclass(frozen=True)
class Place:
    """A point on a branch: cycle (k, M), parameter, unit tangent in scaled coordinates, eigenvalues."""

    Z: Float[np.ndarray, "k M"]
    value: float
    tangent: Float[np.ndarray, " n"]
    eigenvalues: np.ndarray


@dataclasses.dataclass(frozen=True)
class Curves:
    """The family on [first, last] in scaled coordinates. scale: a length of state space; step: the longest arc between two points."""

    family: Callable[[float], System]
    first: float
    last: float
    scale: float
    step: float
    bound: float

    @cached_property
    def continuous(self) -> bool:
        """Whether the systems are flows."""
        return isinstance(self.family(self.first), AbstractFlow)

    def value_of(self, x: float) -> float:
        """The parameter of a scaled one."""
        return self.first + x * (self.last - self.first)

    def packed(self, Z: np.ndarray, value: float) -> np.ndarray:
        """Scaled coordinates (k M + 1,)."""
        return np.append(Z.ravel() / self.scale, (value - self.first) / (self.last - self.first))

    def equations(self, X: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """G (k M,), DG (k M, k M + 1) in scaled coordinates, and the Jacobians (k, M, M)."""
        k, M = shape
        value, h = self.value_of(X[-1]), 1e-7
        Z = X[:-1].reshape(shape) * self.scale
        image, J = pointwise(self.family(value), Z)
        later = pointwise(self.family(self.value_of(X[-1] + h)), Z)[0]  # the family need not be differentiable by JAX
        G = image if self.continuous else image - np.roll(Z, -1, axis=0)
        D = np.zeros((k * M, k * M + 1))
        for t in range(k):
            rows, following = slice(t * M, (t + 1) * M), (t + 1) % k
            D[rows, rows] += J[t]
            if not self.continuous:
                D[rows, following * M : (following + 1) * M] -= np.eye(M)
        D[:, -1] = ((later - image) / h).ravel() / self.scale
        return G.ravel() / self.scale, D, J

    def corrected(
        self, X: np.ndarray, normal: np.ndarray, shape: tuple[int, ...], iterations: int = 8
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """The point of the branch in the plane through X across `normal`, with DG and Jacobians there; None if Newton fails."""
        X, begin = X.copy(), X
        for _ in range(iterations):
            G, D, J = self.equations(X, shape)
            if not (np.isfinite(G).all() and np.isfinite(D).all()):
                return None
            size = max(1.0, float(np.abs(X).max()))
            if np.abs(G).max() <= 1e-11 * size and abs(normal @ (X - begin)) <= 1e-9:
                return X, D, J
            try:
                X = X - np.linalg.solve(np.vstack([D, normal]), np.append(G, normal @ (X - begin)))
            except np.linalg.LinAlgError:
                return None
        G, D, J = self.equations(X, shape)
        return (X, D, J) if np.isfinite(G).all() and np.abs(G).max() <= 1e-9 * max(1.0, float(np.abs(X).max())) else None

    def place(self, found: tuple[np.ndarray, np.ndarray, np.ndarray], shape: tuple[int, ...], along: np.ndarray) -> Place:
        """The record of a corrected point; its tangent points the same way as `along`."""
        X, D, J = found
        tangent = np.linalg.svd(D)[2][-1]
        tangent = tangent * (1.0 if tangent @ along >= 0 else -1.0)
        multipliers = eigenvalues(composed(J), continuous=self.continuous)
        return Place(X[:-1].reshape(shape) * self.scale, self.value_of(X[-1]), tangent, multipliers)

    def at(self, Z: np.ndarray, value: float) -> np.ndarray | None:
        """The cycle near Z at one value of the parameter, (k, M); None if Newton fails."""
        across = np.append(np.zeros(Z.size), 1.0)
        found = self.corrected(self.packed(Z, value), across, Z.shape)
        return None if found is None else found[0][:-1].reshape(Z.shape) * self.scale

    def trace(self, Z: np.ndarray, value: float) -> tuple[list[Place], list[Event], str]:
        """The branch through a cycle, in order, with its events (branch index still -1), and why it ended if not at the range's ends."""
        shape = Z.shape
        across = np.append(np.zeros(Z.size), 1.0)
        found = self.corrected(self.packed(Z, value), across, shape)
        if found is None:
            return [], [], f"A cycle at {value:.6g} could not be refined; it lies near a fold."
        here = self.place(found, shape, across)
        forward, closed, why = self._march(here)
        backward: list[Place] = []
        if not closed:
            turned = dataclasses.replace(here, tangent=-here.tangent)
            backward, _, other = self._march(turned)
            why = why or other
        places = [dataclasses.replace(place, tangent=-place.tangent) for place in reversed(backward)] + [here, *forward]
        events = [event for a, b in pairwise(places) for event in self._events(a, b)]
        k = shape[0]
        for end, before in ((places[0], places[1:2]), (places[-1], places[-2:-1])):
            for d in (d for d in range(1, k) if k % d == 0):
                if before and _folded(end.Z, d) < 1e-3 * self.scale:
                    words = f"the {k}-cycle shrinks onto a {d}-cycle"
                    events.append(Event(end.value, "merges", -1, end.Z[:d], complex(np.nan, np.nan), words))
                    break
        return places, events, why

    def _march(self, start: Place) -> tuple[list[Place], bool, str]:
        """The points after `start` along its tangent, whether the branch closed on itself, and why it ended early."""
        found: list[Place] = []
        here, step, shape = start, self.step, start.Z.shape
        origin = self.packed(start.Z, start.value)
        while len(found) < _MAX_POINTS:
            X = self.packed(here.Z, here.value)
            ahead = X + step * here.tangent
            trial = self.corrected(ahead, here.tangent, shape, 5)
            new = None if trial is None else self.place(trial, shape, here.tangent)
            if trial is None or new is None or new.tangent @ here.tangent < _SHARP or np.linalg.norm(trial[0] - ahead) > step:
                step /= 2
                if step < 1e-7 * self.step:
                    return found, False, f"A branch could not be followed beyond {here.value:.6g}."
                continue
            x = trial[0][-1]
            if not 0 <= x <= 1:
                end = self._at_end(here, new, 0.0 if x < 0 else 1.0)
                return [*found, *([end] if end else [])], False, ""
            crossing = self._collapse(here, new)
            if crossing is not None:
                return [*found, crossing], False, ""
            found.append(new)
            if np.abs(new.Z).max() > self.bound:
                return found, False, f"A branch was left at {new.value:.6g}, where a coordinate passed {self.bound:.4g}."
            if len(found) > 2 and np.linalg.norm(trial[0] - origin) < step and new.tangent @ start.tangent > _SHARP:
                return [*found[:-1], start], True, ""
            here, step = new, min(self.step, 1.5 * step)
        return found, False, f"A branch was left after {_MAX_POINTS} points."

    def _at_end(self, a: Place, b: Place, x: float) -> Place | None:
        """Where the branch leaves the range of the parameter, between a and b."""
        one, other = self.packed(a.Z, a.value), self.packed(b.Z, b.value)
        guess = one + (x - one[-1]) / (other[-1] - one[-1]) * (other - one) if other[-1] != one[-1] else one
        found = self.corrected(guess, np.append(np.zeros(a.Z.size), 1.0), a.Z.shape)
        if found is None:
            return None
        # to the last bit: what is searched at this value must be seen to lie on the branch
        return dataclasses.replace(self.place(found, a.Z.shape, a.tangent), value=self.last if x else self.first)

    def _collapse(self, a: Place, b: Place) -> Place | None:
        """Where a k-cycle passes through one of smaller period (and would go on as itself, begun at another point)."""
        k = len(a.Z)
        for d in (d for d in range(1, k) if k % d == 0):
            one, other = a.Z - np.roll(a.Z, d, axis=0), b.Z - np.roll(b.Z, d, axis=0)
            if (one * other).sum() < 0:
                return self._bisected(a, b, partial(_against, d, one))[0]
        return None

    def _bisected(self, a: Place, b: Place, beyond: Callable[[Place], bool]) -> tuple[Place, Place]:
        """Two near places on either side of where `beyond` becomes true, between a (not yet) and b (already)."""
        one, other = self.packed(a.Z, a.value), self.packed(b.Z, b.value)
        chord = (other - one) / np.linalg.norm(other - one)
        low, high, left, right = 0.0, 1.0, a, b
        for _ in range(_BISECTIONS):
            if (high - low) * np.linalg.norm(other - one) < 1e-12:
                break
            middle = None
            for share in (0.5, 0.35, 0.65):  # a trial can hit the singular point itself
                s = low + share * (high - low)
                found = self.corrected(one + s * (other - one), chord, a.Z.shape)
                if found is not None:
                    middle = self.place(found, a.Z.shape, a.tangent)
                    break
            if middle is None:
                break
            if beyond(middle):
                high, right = s, middle
            else:
                low, left = s, middle
        return left, right

    def _differs(self, count: int, place: Place) -> bool:
        return count_unstable(place.eigenvalues, self.continuous) != count

    def _events(self, a: Place, b: Place) -> list[Event]:
        """The changes of stability between two neighbours, and a fold that leaves it as it is."""
        found: list[Event] = []
        turned = bool(a.tangent[-1] * b.tangent[-1] < 0)
        folded = False
        left = a
        for _ in range(len(a.eigenvalues)):
            count = count_unstable(left.eigenvalues, self.continuous)
            if count == count_unstable(b.eigenvalues, self.continuous):
                break
            before, after = self._bisected(left, b, partial(self._differs, count))
            eigenvalue = critical(after.eigenvalues, self.continuous)
            real = bool(abs(eigenvalue.imag) <= 1e-3 * max(abs(eigenvalue), 1e-6) and (self.continuous or eigenvalue.real > 0))
            kind, what = kind_of(eigenvalue, self.continuous, turned and real)
            folded = folded or kind == "fold"
            found.append(Event((before.value + after.value) / 2, kind, -1, after.Z, eigenvalue, what))
            left = after
        if turned and not folded:
            before, after = self._bisected(a, b, lambda p: p.tangent[-1] * a.tangent[-1] < 0)
            what = "the branch turns back without a change of stability"
            found.append(Event((before.value + after.value) / 2, "fold", -1, after.Z, critical(after.eigenvalues, self.continuous), what))
        return found


def _against(d: int, direction: np.ndarray, place: Place) -> bool:
    return bool(((place.Z - np.roll(place.Z, d, axis=0)) * direction).sum() < 0)


def _folded(Z: np.ndarray, d: int) -> float:
    return float(np.abs(Z - np.roll(Z, d, axis=0)).max())


def branch_of(places: list[Place], continuous: bool) -> Branch:
    """The arrays of a traced branch."""
    return Branch(
        np.array([place.value for place in places]),
        np.stack([place.Z for place in places]),
        np.stack([place.eigenvalues for place in places]),
        continuous=continuous,
    )

"""Following cycles of piecewise-linear maps over a parameter: exactly solved in their known regions, and watched at the borders.

    in the regions r_0 ... r_{k-1}:  z(value) solves the word's affine equations;  it is a cycle as long as every z_t lies in r_t

Where a point meets a switching manifold (a border collision), the word on the other side of it is solved on both sides of that value:
admissible beyond, the cycle persists; admissible before, two cycles meet (nonsmooth fold); neither, it vanishes.
Source: di Bernardo, Budd, Champneys & Kowalczyk, Piecewise-smooth Dynamical Systems (2008), section 3.1.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Float

from dynsys.analysis.piecewise.branches import Branch, Event, count_unstable, critical, kind_of
from dynsys.analysis.piecewise.regions import hyperplanes
from dynsys.analysis.piecewise.verified import composed, eigenvalues, least_period
from dynsys.analysis.piecewise.words import affine_maps, border_distances, canonical, root, solved
from dynsys.dynamics import AbstractPiecewiseLinear

_BISECTIONS = 60
_TURNS = 200  # collisions after which a branch is left
_NEAR = 1e-6  # how far beside a collision the next word is tried, in ranges of the parameter


@dataclasses.dataclass(frozen=True)
class Solved:
    """The cycle of a word at one value: points (k, M), eigenvalues, and the signed distance of the point nearest to leaving its region."""

    value: float
    word: Bool[np.ndarray, "k R"]
    Z: Float[np.ndarray, "k M"]
    eigenvalues: np.ndarray
    distances: Float[np.ndarray, "k R"]  # to the borders, negative where a point is on the wrong side

    @property
    def inside(self) -> float:
        """The smallest of the distances; inf without borders, NaN without a solution."""
        return float(self.distances.min(initial=np.inf))


@dataclasses.dataclass(frozen=True)
class Borders:
    """The family on a grid of values; scale: a length of state space."""

    family: Callable[[float], Any]
    values: Float[np.ndarray, " n"]
    scale: float

    @property
    def width(self) -> float:
        """The range of the parameter."""
        return float(self.values[-1] - self.values[0])

    def solve(self, word: Bool[np.ndarray, "k R"], value: float) -> Solved:
        """The cycle of a word, admissible or not."""
        model = cast(AbstractPiecewiseLinear, self.family(value))
        J, h = affine_maps(model, word)
        with np.errstate(all="ignore"):
            Z = solved(J[None], h[None])[0]
        if not np.isfinite(Z).all():
            none = np.full(Z.shape, np.nan)
            return Solved(value, word, none, eigenvalues(composed(J)), np.full(word.shape, np.nan))
        distance = border_distances(Z, hyperplanes(model))
        return Solved(value, word, Z, eigenvalues(composed(J)), np.where(word, distance, -distance))

    def admissible(self, found: Solved) -> bool:
        """Whether all points lie in their regions; a solution that has run away does not count."""
        return found.inside > -1e-11 * self.scale and bool(np.abs(found.Z).max() < 1e9 * self.scale)

    def trace(self, word: Bool[np.ndarray, "k R"], index: int) -> tuple[list[Solved], list[Event], list[str]]:
        """The branch through the cycle of a word at values[index], its events (branch index -1), and notes."""
        here = self.solve(word, float(self.values[index]))
        forward, events, notes, closed = self._march(here, +1)
        backward: list[Solved] = []
        if not closed:
            backward, more, other, _ = self._march(here, -1)
            events, notes = [*events, *more], [*notes, *other]
        return [*reversed(backward), here, *forward], events, notes

    def _march(self, start: Solved, direction: int) -> tuple[list[Solved], list[Event], list[str], bool]:
        """What follows a cycle in one direction of the parameter, through collisions; whether it closed on itself."""
        found: list[Solved] = []
        events: list[Event] = []
        here = start
        for _ in range(_TURNS):
            here, blocked = self._run(here, direction, found, events, start)
            if blocked is None:
                return found, events, [], bool(found) and _same(found[-1], start)
            last, event, onward, direction = self._collision(here, blocked, direction)
            found.append(last)
            events.append(event)
            if onward is None:
                return found, events, [], False
            found.append(onward)
            here = onward
        return found, events, [f"A branch was left after {_TURNS} border collisions."], False

    def _run(self, here: Solved, direction: int, found: list[Solved], events: list[Event], start: Solved) -> tuple[Solved, Solved | None]:
        """Go on with the same word from grid value to grid value, up to the first solution that is not admissible.

        That one is None at the end of the range, and where a closed branch comes back to its start.
        """
        ahead = self.values[self.values > here.value] if direction > 0 else self.values[self.values < here.value][::-1]
        for value in ahead:
            new = self.solve(here.word, float(value))
            if not self.admissible(new):
                edge, _ = self._bisected(here, new, lambda s: not self.admissible(s))
                events += self._changes(here, edge)
                return here, new
            events += self._changes(here, new)
            found.append(new)
            here = new
            if _same(new, start):
                break
        return here, None

    def _bisected(self, a: Solved, b: Solved, beyond: Callable[[Solved], bool]) -> tuple[Solved, Solved]:
        """Two near solutions of one word on either side of where `beyond` becomes true."""
        for _ in range(_BISECTIONS):
            value = (a.value + b.value) / 2
            if value in (a.value, b.value):
                break
            middle = self.solve(a.word, value)
            a, b = (a, middle) if beyond(middle) else (middle, b)
        return a, b

    def _changes(self, a: Solved, b: Solved) -> list[Event]:
        """Changes of stability between two admissible solutions of one word."""
        found = []
        for _ in range(len(a.eigenvalues)):
            count = count_unstable(a.eigenvalues, False)
            if count == count_unstable(b.eigenvalues, False):
                break
            before, after = self._bisected(a, b, partial(_differs, count))
            eigenvalue = critical(after.eigenvalues, False)
            kind, what = kind_of(eigenvalue, False, turns=False)
            found.append(Event((before.value + after.value) / 2, kind, -1, before.Z, eigenvalue, what))
            a = after
        return found

    def _collision(self, here: Solved, blocked: Solved, direction: int) -> tuple[Solved, Event, Solved | None, int]:
        """The cycle at the border, the event, how it goes on there (None: it does not), and in which direction of the parameter."""
        last, outside = self._bisected(here, blocked, lambda s: not self.admissible(s))
        nan = complex(np.nan, np.nan)
        if not np.isfinite(outside.inside) or np.abs(outside.Z).max() >= 1e9 * self.scale:
            what = "the cycle runs away to infinity: an eigenvalue of its regions' map passes 1"
            return last, Event(last.value, "vanishes", -1, last.Z, critical(last.eigenvalues, False), what), None, direction
        step = direction * _NEAR * self.width
        beside = self.solve(last.word, last.value + step)
        wrong = beside.distances < 0
        wrong |= last.distances <= 1e-9 * self.scale if not wrong.any() else False
        where = ", ".join(f"point {t} and row {r}" for t, r in np.argwhere(wrong)[:3])
        crossed = last.word ^ wrong
        k, d = len(last.Z), least_period(last.Z, 1e-6 * self.scale)
        if d < k:
            what = f"the {k}-cycle shrinks onto a {d}-cycle on the border ({where})"
            return last, Event(last.value, "merges", -1, last.Z[:d], nan, what), None, direction
        if (d := len(root(crossed))) < k:
            what = f"the {k}-cycle ends on a switching manifold ({where}): beyond, its regions are those of a {d}-cycle, which flips there"
            return last, Event(last.value, "vanishes", -1, last.Z, nan, what), None, direction
        beyond, before = self.solve(crossed, last.value + step), self.solve(crossed, last.value - step)
        at_border = self.solve(crossed, last.value)
        if self.admissible(beyond):
            what = f"a point crosses a switching manifold ({where}) and the cycle goes on in the next region"
            was, now = (count_unstable(s.eigenvalues, False) for s in (last, beyond))
            what += f"; unstable directions {was} -> {now}" if was != now else ""
            return last, Event(last.value, "border collision", -1, last.Z, nan, what), at_border, direction
        if self.admissible(before):
            what = f"two cycles meet on a switching manifold ({where}) and end"
            return last, Event(last.value, "nonsmooth fold", -1, last.Z, nan, what), at_border, -direction
        what = f"a point reaches a switching manifold ({where}) and the cycle does not go on in the next region"
        return last, Event(last.value, "vanishes", -1, last.Z, nan, what), None, direction


def _same(one: Solved, other: Solved) -> bool:
    """Whether two solutions are one: the value and the word decide it."""
    return one.value == other.value and canonical(one.word) == canonical(other.word)


def _differs(count: int, found: Solved) -> bool:
    return count_unstable(found.eigenvalues, False) != count


def branch_of(places: list[Solved]) -> Branch:
    """The arrays of a traced branch."""
    return Branch(
        np.array([place.value for place in places]),
        np.stack([place.Z for place in places]),
        np.stack([place.eigenvalues for place in places]),
        np.stack([place.word for place in places]),
    )

"""Check a certificate from its file alone, sharing no code with the search that made it.

    verdict = check("cert.h5")        # verdict.valid, verdict.reason, verdict.claim, verdict.assumptions

The claim, with x = goal + T y and the cube |y_i| <= 1: for every x in the cube with V(x) <= level, x != goal, and every disturbance w,

    x lies in the domain,  V(x) > 0,  and   V(x+) <= (1 - rate) V(x) and x+ lies in the cube        (maps)
                                      or    dV/dt <= -rate V(x)                                     (flows)

and V > level on the border of the cube, so that {V <= level} in the cube is left by no trajectory. It is proved anew, in five steps:

    frame        T is invertible
    equilibrium  F(goal, w) = goal (maps) or 0 (flows): exactly, or to a few roundings, and then as a declared fact
    border       V > level on the 2n faces of the cube
    hole         what is said of x, for x = goal + r T d, all d on the faces and all r in (0, r0] at once (`check_hole.py`); where these
                 numbers are too coarse for the r0 of the file, with r0 / 2, r0 / 4, ...
    leaves       the boxes of the file cover the cube without a gap; each lies in the hole, or above the level, or has what is said of x

Bounds that the file holds are not read. A box that the arithmetic here (`check_numbers.py`) can't close is halved, `depth` times at most.
With core > 0 nothing is said near the goal: the decrease is V(x+) <= max((1 - rate) V(x), core), or as above where V(x) > core.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import islice, product
from typing import Any, NamedTuple

import numpy as np

from dynsys.errors import InvalidValue
from dynsys.verify.check_cover import FINEST, covers, faces
from dynsys.verify.check_file import Claim, NoCertificate, read, read_about
from dynsys.verify.check_hole import Series, decided, still
from dynsys.verify.check_numbers import Model, U, padded, triangle, variables, width
from dynsys.verify.check_program import Dual, Names, run
from dynsys.verify.check_words import assumptions, in_words

ENTRIES = 2_000_000  # of one coefficient array: sets how many boxes are bounded at once
SHRUNK = 8  # values of r0 that are tried
FACE_DEPTH = 12  # halvings of a face, per coordinate
CORNERS = 64  # of the disturbances, at which the equilibrium is checked
WHY = (
    "",
    "V is not seen to be positive",
    "V is not seen to decrease",
    "x+ is not seen to stay in the cube",
    "x is not seen to lie in the domain",
    "V is not seen to be above the level on the border of the cube",
)


@dataclass(frozen=True)
class Verdict:
    """valid, or the reason why not; the claim and what it assumes, in words; boxes bounded, how many of them by halving boxes of the file;
    seconds; the volume of {V <= level} between two bounds (up to the rounding of det T), for a valid certificate.

    stated_volume: the file's own (volume, error), which is refused if it is not in these bounds; nan if not read. about: what the file is
    about (system, command, ...), in the words of its author; they are no part of the claim, and nothing checks them. readable: False for
    a file that is no certificate, or is cut off; `reason` then says what it is.
    """

    valid: bool
    reason: str
    claim: str
    assumptions: tuple[str, ...]
    boxes: int
    split: int
    seconds: float
    volume: tuple[float, float]
    stated_volume: tuple[float, float]
    about: dict[str, str]
    readable: bool


class Bounds(NamedTuple):
    """Of boxes: why each is not closed (0: it is), how much each coordinate promises, and where V <= level surely, or surely not."""

    why: np.ndarray
    scores: np.ndarray
    inside: np.ndarray
    outside: np.ndarray


class Refused(Exception):
    """The reason why a certificate is not valid."""


@dataclass
class Work:
    """What is allowed and what was done."""

    until: float
    depth: int
    boxes: int = 0
    split: int = 0


def check(path: Any, *, seconds: float = 3600.0, depth: int = 24) -> Verdict:
    """Whether the claim of a certificate holds; see the module. Whatever is wrong with the file is a verdict, not an error."""
    began = time.perf_counter()
    work = Work(began + seconds, depth)
    words, told, about, volume, reason = "", (), {}, (float("nan"), float("nan")), ""
    stated, readable = volume, True
    try:
        with np.errstate(all="ignore"):
            claim = read(path)
            words, about, stated = in_words(claim), read_about(path), (claim.volume, claim.volume_error)
            told, volume = _prove(claim, work)
    except Refused as refused:
        reason = str(refused)
    except NoCertificate as error:
        reason, readable = str(error), False
    except InvalidValue as error:
        reason = f"file: {error}"
    except (ValueError, TypeError, LookupError, OverflowError, MemoryError) as error:
        reason = f"it can't be checked: {error}"
    seconds = time.perf_counter() - began
    return Verdict(not reason, reason, words, told, work.boxes, work.split, seconds, volume, stated, about, readable)


def _prove(claim: Claim, work: Work) -> tuple[tuple[str, ...], tuple[float, float]]:
    """The five steps: assumptions and volume. Raises Refused."""
    n = len(claim.goal)
    if claim.continuous and claim.V.jumps:
        raise Refused("V: it has `choose`, so it may jump, and then its derivative says nothing along a flow.")
    inverse, inner = frame(claim.T)
    walled = cube_in_domain(claim)
    exact = equilibrium(claim)
    if not covers(claim.mid, claim.rad):
        raise Refused("leaves: the boxes do not cover the cube exactly once.")
    closed(lambda mid, rad: on_border(claim, mid, rad), *faces(n, 0), work, "border", count=False)
    if claim.core == 0:
        claim = without_hole(claim, inverse, inner, walled, work)
    everything = (claim, inverse, inner, walled)
    shares = closed(lambda mid, rad: in_box(*everything, mid, rad), claim.mid, claim.rad, work, "leaves", count=True)
    whole = 2.0**n * abs(np.linalg.det(claim.T))
    volume = (shares[0] * whole * (1 - 1e-9), shares[1] * whole * (1 + 1e-9))
    if not (claim.volume + claim.volume_error >= volume[0] and claim.volume - claim.volume_error <= volume[1]):
        raise Refused(
            f"volume: the file says {claim.volume:.6g} +- {claim.volume_error:.2g}, but it is in [{volume[0]:.6g}, {volume[1]:.6g}]."
        )
    return assumptions(claim, exact, walled), volume


def frame(T: np.ndarray) -> tuple[np.ndarray, float]:
    """About T^-1, and s < 1 such that |T^-1 v| <= 1 wherever |inverse v| <= s (largest entries). With E = 1 - inverse T, s = 1 - |E|."""
    try:
        inverse = np.linalg.inv(T)
    except np.linalg.LinAlgError:
        raise Refused("frame: T is not invertible.") from None
    n = len(T)
    E = np.abs(np.eye(n) - inverse @ T) + 4 * (n + 4) * U * (1 + np.abs(inverse) @ np.abs(T))
    off = float(np.max(np.sum(E, axis=1))) * (1 + 1e-9)
    if not off < 0.5:
        raise Refused("frame: T is not seen to be invertible.")
    return inverse, 1 - off - 2 * U


def cube_in_domain(claim: Claim) -> bool:
    """Whether the whole cube lies in the domain, in exact fractions: goal[i] +- sum_j |T[i, j]|."""
    for goal, row, low, high in zip(claim.goal, claim.T, claim.low, claim.high, strict=True):
        reach = sum((abs(Fraction(float(t))) for t in row), Fraction(0))
        if (low > -np.inf and Fraction(float(goal)) - reach < Fraction(float(low))) or (
            high < np.inf and Fraction(float(goal)) + reach > Fraction(float(high))
        ):
            return False
    return True


def equilibrium(claim: Claim) -> bool:
    """Whether F(goal, w) - goal (maps) or F(goal, w) (flows) is zero exactly for all w. Raises Refused if it is more than roundings."""
    if claim.core > 0:
        return False
    p = len(claim.w_low)
    box = _disturbance(claim, Model.box(np.zeros((1, p)), np.ones((1, p))))
    if bool(np.all(_moved(claim, box).zero)):
        return True
    corners = islice(product(*zip(claim.w_low, claim.w_high, strict=True)), CORNERS)
    points = np.stack([*(np.array(corner) for corner in corners), 0.5 * (claim.w_low + claim.w_high)])
    moved = _moved(claim, Model(points[..., None], np.zeros_like(points)))
    if not bool(np.all(np.abs(moved.p[..., 0]) <= 8 * moved.e)):
        raise Refused("equilibrium: the goal moves by more than rounding explains.")
    return False


def without_hole(claim: Claim, inverse: np.ndarray, inner: float, walled: bool, work: Work) -> Claim:
    """The claim with the largest r0, of the file's halved again and again, for which what is said near the goal is seen. Raises Refused."""
    sides = faces(len(claim.goal), len(claim.w_low))
    for k in range(SHRUNK):
        now = replace(claim, r0=claim.r0 * 0.5**k)
        try:
            closed(partial(in_hole, now, inverse, inner, walled), *sides, work, "hole", count=False)
        except Refused:
            if k == SHRUNK - 1 or time.perf_counter() > work.until:
                raise
        else:
            return now
    return claim


def _moved(claim: Claim, w: Model) -> Model:
    after, _ = run(claim.loop, Model.constant(claim.goal), w)
    return after if claim.continuous else after.sub(Model.constant(claim.goal))


def closed(
    bound: Callable[[np.ndarray, np.ndarray], Bounds], mid: np.ndarray, rad: np.ndarray, work: Work, step: str, *, count: bool
) -> tuple[float, float]:
    """Bound boxes until all are closed, halving those that are not; raises Refused. Shares of the cube: V <= level surely; or maybe."""
    batch = max(16, ENTRIES // (32 * width(mid.shape[1])))
    waiting, sure, possible = [(mid[i : i + batch], rad[i : i + batch], 0) for i in range(0, len(mid), batch)], 0.0, 0.0
    while waiting:
        if time.perf_counter() > work.until:
            raise Refused(f"time: the limit was met in the step '{step}'. Give more seconds.")
        mid, rad, depth = waiting.pop()
        found = bound(mid, rad)
        work.boxes += len(mid)
        open_ = found.why > 0
        share = np.prod(rad, axis=1)
        sure += float(np.sum(share[~open_ & found.inside]))
        possible += float(np.sum(share[~open_ & ~found.outside]))
        if not np.any(open_):
            continue
        first = int(np.argmax(open_))
        if depth >= (work.depth if count else FACE_DEPTH * mid.shape[1]):
            raise Refused(f"{step}: {WHY[found.why[first]]}, in the box {mid[first].tolist()} +- {rad[first].tolist()}.")
        mid, rad, scores = mid[open_], rad[open_], np.where(rad > 0, found.scores, -1.0)[open_]
        rows, axis = np.arange(len(mid)), np.argmax(scores, axis=1)
        half = np.zeros_like(rad)
        half[rows, axis] = 0.5 * rad[rows, axis]
        if np.any(half[rows, axis] < FINEST):
            raise Refused(f"{step}: {WHY[found.why[first]]}, in a box that is too small to be halved.")
        work.split += 2 * len(mid) if count else 0
        for side in (mid - half, mid + half):
            waiting.append((side, rad - half, depth + 1))
    return sure, possible


def on_border(claim: Claim, mid: np.ndarray, rad: np.ndarray) -> Bounds:
    """V > level on pieces of the faces."""
    value, _ = run(claim.V, _state(claim, Model.box(mid, rad)), Model.constant(np.zeros(0)))
    above = value.range()[0][:, 0] > claim.level
    return Bounds(np.where(above, 0, 5), influence(value, rad), ~above, above)


def in_box(claim: Claim, inverse: np.ndarray, inner: float, walled: bool, mid: np.ndarray, rad: np.ndarray) -> Bounds:
    """What is said of x, on boxes (y, scaled disturbance)."""
    n = len(claim.goal)
    both = Model.box(mid, rad)
    x = _state(claim, both.pick(np.arange(n)))
    value, _ = run(claim.V, x, Model.constant(np.zeros(0)))
    low, high = (z[:, 0] for z in value.range())
    outside = low > claim.level
    hole = (np.max(np.abs(mid[:, :n]) + rad[:, :n], axis=1) <= claim.r0) if claim.core == 0 else np.zeros(len(mid), bool)
    why, scores = np.zeros(len(mid), int), influence(value, rad)
    todo = np.flatnonzero(~outside & ~hole)
    if len(todo):
        both = Model.box(mid[todo], rad[todo])
        x, w = _state(claim, both.pick(np.arange(n))), _disturbance(claim, both.pick(np.arange(n, mid.shape[1])))
        value, margin, after_V, after = along(claim, x, w)
        decreases = margin.range()[1][:, 0] <= 0
        if claim.core > 0:
            decreases |= (value if after_V is None else after_V).range()[1][:, 0] <= claim.core
        positive = (value.range()[0][:, 0] > 0) | (claim.core > 0)
        stays = _stays(claim, inverse, inner, after)
        why[todo] = _first(positive, decreases, stays, walled | _in_domain(claim, x))
        scores[todo] = np.where(decreases[:, None], scores[todo], influence(margin, rad[todo]))
    return Bounds(why, scores, high <= claim.level, outside)


def in_hole(claim: Claim, inverse: np.ndarray, inner: float, walled: bool, mid: np.ndarray, rad: np.ndarray) -> Bounds:
    """What is said of x = goal + r T d for all r in (0, r0], on boxes (d, scaled disturbance)."""
    n = len(claim.goal)
    both = Model.box(mid, rad)
    d, w = both.pick(np.arange(n)), still(claim.r0, _disturbance(claim, both.pick(np.arange(n, mid.shape[1]))))
    goal = Model.constant(claim.goal)
    x = Series(claim.r0, goal, d.matrix(claim.T), still(claim.r0, goal).q1)
    value, margin, _, after = along(claim, x, w)
    positive, decreases = decided(value)[0] > 0, decided(margin)[1] <= 0
    why = _first(positive, decreases, _stays(claim, inverse, inner, after), walled | _in_domain(claim, x))
    leading = np.where(
        decreases[:, None], influence(value.q1, rad) + influence(value.q2, rad), influence(margin.q1, rad) + influence(margin.q2, rad)
    )
    nothing = np.zeros(len(mid), bool)
    return Bounds(why, leading, nothing, nothing)


def along(claim: Claim, x: Any, w: Any) -> tuple[Any, Any, Any, Any]:
    """V(x); V(x+) - (1 - rate) V(x), or dV/dt + rate V(x); V(x+) and x+, or None for flows. In any numbers; near the goal with names."""
    near = isinstance(x, Series)
    names = Names() if near else None
    here = names.vector(claim.goal) if names is not None else None
    nobody, rate = x.constant(np.zeros(0)), x.constant(np.array([claim.rate]))
    after, name = run(claim.loop, x, w, names, here)
    if near and name is not None:  # a continuous F: it tends to F(goal, w), which is declared
        after = after.settled(np.zeros(len(claim.goal)) if claim.continuous else claim.goal)
    if claim.continuous:
        both, _ = run(claim.V, Dual(x, after), Dual(nobody, nobody), names, here)
        return both.value, both.tangent.add(rate.mul(both.value)), None, None
    value, _ = run(claim.V, x, nobody, names, here)
    exactly = not near or name is not None or bool(np.all(after.sub(after.constant(claim.goal)).q0.zero))
    after_V, _ = run(claim.V, after, nobody, names, here if exactly else None)
    return value, after_V.sub(value).add(rate.mul(value)), after_V, after


def _state(claim: Claim, y: Model) -> Model:
    return y.matrix(claim.T).add(Model.constant(claim.goal))


def _disturbance(claim: Claim, z: Model) -> Model:
    """w in [w_low, w_high], or a little more, of z in [-1, 1]."""
    half = 0.5 * (claim.w_high - claim.w_low)
    half = half * (1 + 8 * U) + 4 * U * (np.abs(claim.w_low) + np.abs(claim.w_high)) * (half > 0)
    mid = np.where(half > 0, 0.5 * (claim.w_low + claim.w_high), claim.w_low)
    return z.mul(Model.constant(half)).add(Model.constant(mid))


def _stays(claim: Claim, inverse: np.ndarray, inner: float, after: Any) -> np.ndarray:
    """Whether x+ lies in the cube; of flows that is not asked."""
    if after is None:
        return np.array(True)
    low, high = after.sub(after.constant(claim.goal)).matrix(inverse).range()
    return np.all((low >= -inner) & (high <= inner), axis=1)


def _in_domain(claim: Claim, x: Any) -> np.ndarray:
    """Whether x lies in the domain, widened by a few roundings of its limits."""
    low, high = x.range()
    slack = [16 * U * (np.abs(np.where(np.isfinite(z), z, 0.0)) + np.abs(claim.goal)) for z in (claim.low, claim.high)]
    return np.all((low >= claim.low - slack[0]) & (high <= claim.high + slack[1]), axis=1)


def _first(*conditions: np.ndarray) -> np.ndarray:
    """The number of the first condition that is not true; 0 if all are."""
    false = ~np.stack(np.broadcast_arrays(*conditions))
    return np.where(np.any(false, axis=0), np.argmax(false, axis=0) + 1, 0)


def influence(q: Model, rad: np.ndarray) -> np.ndarray:
    """How much each coordinate widens a number with one entry, (B, N), and a little of the width itself."""
    p = padded(q.p, width(rad.shape[1]))[:, 0]
    n, (i, j) = variables(p.shape[-1]), triangle(p.shape[-1])
    share = np.abs(p[:, 1 : n + 1])
    for column, (a, b) in enumerate(zip(i, j, strict=True)):
        share[:, [a, b]] += np.abs(p[:, [n + 1 + column]])
    width_share = rad / np.maximum(np.sum(rad, axis=1, keepdims=True), 1e-300)
    total = share + q.e[:, :1] * width_share
    total = total / np.maximum(np.sum(total, axis=1, keepdims=True), 1e-300)
    return np.where(np.isfinite(total), total, 0.0) + 1e-3 * width_share

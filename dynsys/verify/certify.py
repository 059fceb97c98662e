"""Proofs about closed loops: on {V <= level}, V decreases, the set is invariant, and every trajectory goes to the goal; no hole is left.

    proof = certify(loop, V, domain=(low, high), rate=0.001, level=0.9)        # or level=None: the largest that can be proved

PROVED means, for the real-number reading of the plant, the policy and V (every constant is the float64 number it is stored as): the set
S = {x in the cube: V(x) <= level} lies inside the domain and off the border of the cube; for every x != goal in S, V(x) > 0 and, under
every disturbance, V(x+) <= (1 - rate) V(x) and x+ in S (maps), or dV/dt <= -rate V(x) (flows; where V has kinks, for every limit of its
gradients). See `claim.py` for what is bounded and how. What is assumed is listed in `Proof.assumptions`.
"""

import time
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys.verify import branch, claim
from dynsys.verify.frames import decrease, frame_of
from dynsys.verify.loop import ClosedLoop
from dynsys.verify.parts import quadratic
from dynsys.verify.proof import Counterexample as Counterexample, Outcome as Outcome, Proof as Proof, fingerprint
from dynsys.verify.search import STICKS_OUT, Claimed, Limits, Told, hole, search_boxes
from dynsys.verify.square import Factors

GROWTH, GROWN = 1.25, 6  # of a cube that does not enclose the set: by how much, how often


def certify(
    loop: ClosedLoop,
    V: Any,
    *,
    domain: tuple[Any, Any] | None,
    rate: float | int,
    level: float | int | None = None,
    core: float | int = 0.0,
    frame: Any = None,
    batch: int = 1024,
    seconds: float | int = 600.0,
    boxes: int = 50_000_000,
    waiting: int = 20_000_000,
    keep_leaves: bool = True,
    resume: Proof | None = None,
    progress: Told | None = None,
    sharpness: float = 0.97,
) -> Proof:
    """Prove that V decreases on {V <= level} inside the domain; see the module.

    domain: (low, high), each (n,), with the goal inside; None (a quadratic V only): all of the state space. rate: decrease a step (maps),
    or a unit of time (flows). level None: searched, until proved / refuted level is above `sharpness` or the limits are met.
    core > 0: nothing is claimed below it but that it is invariant, for disturbances that do not vanish at the goal.
    frame: the coordinates of the boxes (`frames.py`): "box", "diagonal", "directions" (the default for a quadratic V), "curvature" (for any
    other; "box" where it does not exist), or T (n, n). The set that is meant is that inside the cube |y_i| <= 1, off its border.
    resume: a proof of the same claim that was stopped. progress(proved share of the volume, boxes, seconds); True from it stops.

    Raises InvalidValue for arguments that do not fit, a goal that is no equilibrium, or a function without bounds.
    """
    with x64():
        rate, core, level = float(rate), float(core), None if level is None else float(level)
        limits = Limits(float(seconds), int(boxes), int(waiting), int(batch), keep_leaves)
        V = jax.tree_util.tree_map(lambda x: x.astype(jnp.float64) if eqx.is_inexact_array(x) else x, V)
        _check(loop, V, rate, level, core, limits)
        if resume is not None:
            _check_resumed(resume, loop, V, domain, rate, level, core)
        if level is not None and resume is not None:
            return _prove(_claimed(loop, V, domain, rate, level, core, resume.frame), limits, resume, progress)
        if level is not None:
            return _attempt(loop, V, domain, rate, level, core, frame, limits, progress)
        return _largest(loop, V, domain, rate, core, frame, limits, progress, sharpness)


def _check(loop: ClosedLoop, V: Any, rate: float, level: float | None, core: float, limits: Limits) -> None:
    who = "certify"
    if V.goal.shape != loop.goal.shape or not bool(jnp.all(V.goal == loop.goal)):
        raise InvalidValue(f"{who}: V and the loop must have the same goal, got {V.goal} and {loop.goal}.")
    if not 0 <= rate < (np.inf if loop.continuous else 1):
        raise InvalidValue(f"{who}: rate must be in [0, {'inf' if loop.continuous else 1}), got rate={rate}.")
    if level is not None and not 0 <= core < level < np.inf:
        raise InvalidValue(f"{who}: wants 0 <= core < level, got core={core} and level={level}.")
    if limits.batch < 1 or limits.boxes < 1 or not limits.seconds > 0:
        raise InvalidValue(f"{who}: batch, boxes and seconds must be positive.")
    if core == 0:
        loop.check_all()


def _check_resumed(proof: Proof, loop: ClosedLoop, V: Any, domain: Any, rate: float, level: float | None, core: float) -> None:
    """Raises InvalidValue unless the proof is undecided, with boxes left, and of this claim: what it has proved is taken as it is."""
    sides = (np.full(loop.dim, -np.inf), np.full(loop.dim, np.inf)) if domain is None else tuple(np.asarray(x, float) for x in domain)
    if proof.outcome is not Outcome.UNDECIDED or not (proof.search.open or proof.search.aside) or proof.r0 > 0.5:
        raise InvalidValue(f"certify: a proof that ended as '{proof.outcome.value}' can't go on; resume takes one that met a limit.")
    for name, now, before in (
        ("level", level, proof.level),
        ("rate", rate, proof.rate),
        ("core", core, proof.core),
        ("domain", np.stack(sides), np.stack(proof.domain)),
    ):
        if now is None or not np.array_equal(now, before):
            raise InvalidValue(f"certify: resume needs the claim that the proof was begun with; {name}: {before} then, {now} now.")
    if fingerprint(loop, V) != proof.fingerprint:
        raise InvalidValue("certify: resume needs the claim that the proof was begun with, but the loop and V are other ones.")


def _claimed(loop: ClosedLoop, V: Any, domain: Any, rate: float, level: float, core: float, frame: Any) -> Claimed:
    """The coordinates, matrices and static facts of a claim."""
    n, goal = loop.dim, np.asarray(loop.goal)
    low, high = (np.full(n, -np.inf), np.full(n, np.inf)) if domain is None else (np.asarray(x, float) for x in domain)
    if low.shape != (n,) or high.shape != (n,):
        raise InvalidValue(f"certify: domain must be (low, high), each ({n},), got {low} and {high}.")
    if not np.all((low < goal) & (goal < high)):
        raise InvalidValue(
            f"certify: the goal {goal.tolist()} must lie strictly inside the domain, which goes from {low.tolist()} to {high.tolist()}."
        )
    found = quadratic(V)
    P, P_off, general = (jnp.zeros((n, n)), jnp.zeros((n, n)), True) if found is None else found
    w = 0.5 * (loop.low + loop.high)
    A = jnp.zeros((n, n)) if found is None else jax.jacfwd(lambda x: loop.advance(x, w))(loop.goal)
    T, walled = frame_of(frame, loop, V, None if found is None else np.asarray(P), rate, level, low, high)
    form = decrease(np.asarray(A), np.asarray(P), rate, loop.continuous)
    margin, minus_V = Factors.of(T.T @ form @ T), Factors.of(-T.T @ np.asarray(P) @ T, concave=True)
    leaves = [x for x in jax.tree_util.tree_leaves((loop, V)) if eqx.is_array(x)]
    goals = tuple(i for i, x in enumerate(leaves) if x.shape == (n,) and bool(jnp.all(x == loop.goal)))
    numbers = claim.Numbers(
        jnp.asarray(T), jnp.asarray(np.linalg.inv(T)), jnp.asarray(low), jnp.asarray(high), A, P, P_off,
        jnp.asarray(level, float), jnp.asarray(rate, float), jnp.asarray(core, float), jnp.asarray(0.0),
        margin, minus_V,
    )  # fmt: skip
    shape = claim.Shape(n, loop.continuous, found is not None, general, walled, core > 0, goals, bool(np.any(margin.up)))
    return Claimed(loop, V, numbers, shape, (low, high))


def _attempt(
    loop: ClosedLoop, V: Any, domain: Any, rate: float, level: float, core: float, frame: Any, limits: Limits, progress: Told | None
) -> Proof:
    """The proof of one level. A frame that is not given is chosen; where the set is found to stick out of its cube, the cube grows."""
    if frame is not None:
        return _prove(_claimed(loop, V, domain, rate, level, core, frame), limits, None, progress)
    found = quadratic(V)
    if found is not None and not found[2]:
        return _prove(_claimed(loop, V, domain, rate, level, core, "directions"), limits, None, progress)
    try:
        claimed = _claimed(loop, V, domain, rate, level, core, "curvature")
    except InvalidValue:
        return _prove(_claimed(loop, V, domain, rate, level, core, "box"), limits, None, progress)
    began, endless = time.perf_counter(), domain is None or not np.isfinite(np.concatenate([np.ravel(x) for x in domain])).all()
    proof = _prove(claimed, limits, None, progress)
    for k in range(1, GROWN + 1):
        if proof.counterexample is None or proof.counterexample.what != STICKS_OUT:
            return proof
        frame = GROWTH**k * np.asarray(claimed.numbers.T) if k < GROWN or endless else "box"
        left = max(limits.seconds - (time.perf_counter() - began - proof.compile_seconds), 0.1)
        proof = _prove(_claimed(loop, V, domain, rate, level, core, frame), replace(limits, seconds=left), None, progress)
    return proof


def _prove(claimed: Claimed, limits: Limits, resume: Proof | None, progress: Told | None) -> Proof:
    """The whole proof of one claim."""
    began = time.perf_counter()
    extra = claimed.loop.low.shape[0]
    r0, face_boxes, compiling = 0.0, 0, 0.0
    search = branch.start(*branch.grid(claimed.shape.n, extra))
    if resume is not None:
        r0, face_boxes = float(np.nan_to_num(resume.r0)), resume.face_boxes
        search = resume.search._replace(open=[*resume.search.open, *resume.search.aside], aside=[], point=None)
    if r0 == 0 and not claimed.shape.cored:
        r0, face_boxes, compiling = hole(claimed, limits, began)
    claimed = replace(claimed, numbers=eqx.tree_at(lambda c: c.r0, claimed.numbers, jnp.asarray(r0)))
    search, reason, counterexample, more = search_boxes(claimed, search, limits, began + compiling, progress)
    outcome = Outcome.PROVED if not reason else (Outcome.COUNTEREXAMPLE if counterexample is not None else Outcome.UNDECIDED)
    numbers, level = claimed.numbers, float(claimed.numbers.level)
    smallest = min((float(np.min(np.max(x[1], axis=1))) for x in [*search.leaves, *search.aside]), default=float("nan"))
    return Proof(
        outcome, reason, level,
        (level if outcome.ok else float("nan"), level if counterexample is not None else float("nan")),
        float(numbers.rate), float(numbers.core), search.boxes, time.perf_counter() - began - compiling - more, compiling + more,
        search.volume, r0 if r0 > 0 else float("nan"), face_boxes, smallest, np.asarray(numbers.T), claimed.domain,
        counterexample, assumptions(claimed), search, fingerprint(claimed.loop, claimed.V),
    )  # fmt: skip


def _largest(
    loop: ClosedLoop, V: Any, domain: Any, rate: float, core: float, frame: Any, limits: Limits, progress: Told | None, sharpness: float
) -> Proof:
    """Bisection of the level between proved and refuted ones."""
    began, stopped = time.perf_counter(), []

    def watch(share: float, boxes: int, seconds: float) -> bool:
        if progress is not None and progress(share, boxes, seconds) is True:
            stopped.append(True)
        return bool(stopped)

    level = _first_level(loop, V, domain)
    found, unit = quadratic(V), None
    if frame is None and found is not None and not found[2]:  # of any level but for its size: found once
        unit = np.asarray(_claimed(loop, V, domain, rate, 1.0, core, "directions").numbers.T)
    proved, bad, false, what, best, last, compiling, share = 0.0, np.inf, np.inf, "", None, None, 0.0, 0.25
    while time.perf_counter() - began - compiling < limits.seconds:
        left = limits.seconds - (time.perf_counter() - began - compiling)
        part = replace(limits, seconds=max(min(left, max(2.0, share * limits.seconds)), 0.1))
        last = _attempt(loop, V, domain, rate, level, core, frame if unit is None else np.sqrt(level) * unit, part, watch)
        compiling += last.compile_seconds
        if last.proved:
            proved, best = level, last
        elif last.counterexample is not None:
            here = min(level, max(last.counterexample.value, proved))
            false, what = (here, last.counterexample.what) if here <= false else (false, what)
            bad = min(bad, false)
        else:
            bad = min(bad, level)
        if stopped:
            break
        if bad < np.inf and (proved > sharpness * bad or bad < 1e-12):
            break
        level = 2 * proved if bad == np.inf else (0.5 * bad if proved == 0 else float(np.sqrt(proved * bad)))
    result = best if best is not None else last
    if result is None:
        raise InvalidValue(f"certify: seconds must leave time for one proof, got {limits.seconds}.")
    return replace(
        result,
        bracket=(float(proved) if proved else float("nan"), float(false) if false < np.inf else float("nan")),
        limit=what,
        seconds=time.perf_counter() - began - compiling,
        compile_seconds=compiling,
    )


def _first_level(loop: ClosedLoop, V: Any, domain: Any) -> float:
    """The least V on points of the border of the domain, above which no level set lies inside; 1 without a domain."""
    if domain is None or not np.isfinite(np.concatenate([np.ravel(x) for x in domain])).all():
        return 1.0
    rng = np.random.default_rng(0)
    low, high = (np.asarray(x, float) for x in domain)
    points = rng.uniform(low, high, size=(4096, loop.dim))
    axis = rng.integers(loop.dim, size=len(points))
    side = np.where(rng.integers(2, size=len(points)) > 0, high[axis], low[axis])
    points[np.arange(len(points)), axis] = side
    return float(np.min(jax.vmap(V.value)(jnp.asarray(points))))


def assumptions(claimed: Claimed) -> tuple[str, ...]:
    """What a reader of the proof has to believe beside it."""
    loop, shape = claimed.loop, claimed.shape
    told = [
        "Constants of plant, policy, V, domain, level and rate are the float64 numbers that they are stored as.",
        "Float64 additions, products, divisions and square roots round to nearest (relative error 2^-53); "
        "sin, cos, tanh, exp, log and the like are within 2^-47 of the truth, relatively.",
    ]
    if not shape.cored:
        told.append(f"The goal {np.asarray(loop.goal).tolist()} is an exact equilibrium (checked to a few roundings).")
    if shape.continuous:
        told.append("The flow does not depend on time, and its solutions exist and are unique (the field is locally Lipschitz).")
    if loop.low.shape[0]:
        kind = "measurable in time" if shape.continuous else "any sequence"
        told.append(f"The disturbance stays in its box ({kind}).")
    return tuple(told)

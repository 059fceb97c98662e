"""From a plant to a proof: equilibrium, controller, the plain quadratic first, then what was asked for, each with the largest level proved.

    u = rest - K (x - goal) inside the limits (the regulator of the linearised plant);   V = (x - goal)'P (x - goal)

P is the regulator's cost-to-go, or, for a plant without inputs, the solution of the Lyapunov equation. Other candidates are made from there
on (`candidates.py`): trained, formulas, sums of squares. What is certified with the larger volume is the result; the plain quadratic stays
beside it. A proof that a limit stopped is handed out, and goes on when it is handed back.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Float

from dynsys.control.lqr import lqr_of
from dynsys.dynamics import AbstractFlow, AbstractMap
from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys.verify.candidates import KINDS, MAKERS, Wanted, going_on, polynomial_flow
from dynsys.verify.certify import Outcome, Proof, certify
from dynsys.verify.learn import Learned, Recipe
from dynsys.verify.level import volume_in
from dynsys.verify.loop import ClosedLoop
from dynsys.verify.lyapunov import AbstractLyapunov, QuadraticLyapunov
from dynsys.verify.policy import AbstractPolicy, SaturatedLinear
from dynsys.verify.unfinished import can_go_on

CANDIDATES = ("quadratic", *MAKERS)
CONTROLLERS = ("lqr", "none")
WORDS = {"neural": "training V and the controller", "symbolic": "searching for a formula", "sos": "searching for sums of squares"}
SHARE = 0.01  # of the slowest linear decrease of V: the rate that is claimed of a flow unless told
STEP_RATE = 0.001  # and of a map
NEWTON = 50
BOXES = 50_000_000
AGAIN = 0.25  # of the seconds: for the plain quadratic beside another proof that goes on

Side = tuple[ClosedLoop, AbstractLyapunov, Proof, tuple[float, float]]
Unfinished = tuple[ClosedLoop, AbstractLyapunov, Proof]
Watch = Callable[[float, int, float], Any]


@dataclass(frozen=True)
class Certified:
    """The result: loop, V and proof; volume (n-dimensional, with its standard error) of the certified set; the plain quadratic's beside it.

    other: the same of the candidate that was asked for, if it was not the plain quadratic and one was found; words: what it is, or why
    there is none; learned: how the training went, if there was one. unfinished: loop, V and proof of what a limit stopped, for
    `save_unfinished` or `certified(resume=)`: of the candidate, or, if that was not reached or nothing is proved, of the plain one.
    """

    loop: ClosedLoop
    V: AbstractLyapunov
    proof: Proof
    volume: tuple[float, float]
    plain: Side
    learned: Learned | None = None
    other: Side | None = None
    words: str = ""
    unfinished: Unfinished | None = None


def certified(
    plant: AbstractMap | AbstractFlow,
    low: Any,
    high: Any,
    *,
    goal: Any = None,
    rest: Any = None,
    controller: str = "lqr",
    limit: Any = None,
    inputs: tuple[Any, Any] | None = None,
    candidate: str = "quadratic",
    rate: float | None = None,
    level: float | None = None,
    Q: Any = None,
    R: Any = None,
    seconds: float = 60.0,
    boxes: int = BOXES,
    hidden: tuple[int, ...] | None = None,
    recipe: Recipe | None = None,
    names: tuple[str, ...] = (),
    key: Any = 0,
    resume: Unfinished | None = None,
    progress: Callable[[str], None] | None = None,
    watch: Watch | None = None,
) -> Certified:
    """Certify a plant on the box [low, high] (n,).

    goal (n,), rest (k,): the equilibrium; found near the middle of the box, with inputs 0, unless given. controller: "lqr" (weights Q, R,
    identities unless given; |u - rest| <= limit, or inputs = (low, high), each (k,)) or "none". candidate: "quadratic", "neural" (trained,
    with the controller), "symbolic" (a short formula in `names`, one a state), or "sos" (sums of squares; polynomial flows). rate: of the
    decrease, per step of a map or unit of time of a flow. level: default the largest that can be proved. seconds, boxes: of every search
    for a proof. hidden, recipe: of the training (`candidates.usual` unless given). resume: `Certified.unfinished` of the same arguments,
    whose proof goes on. watch(proved share, boxes, seconds) is called in proofs; True from it ends them. Raises InvalidValue for a plant
    without an equilibrium there, one that the linear controller does not stabilise, or arguments that do not fit each other.
    """
    tell = progress or (lambda words: None)
    _check(plant, candidate, controller, limit, inputs)
    keys = jr.split(jr.key(key) if isinstance(key, int) else key, 3)
    with x64():
        low, high = np.asarray(low, float), np.asarray(high, float)
        rest = np.zeros(plant.n_inputs) if rest is None else np.asarray(rest, float)
        limits = _limits(rest, limit, inputs)
        if resume is not None:
            _check_resumed(resume, plant, controller, candidate, (low, high), rate, level, goal, limits)
            goal = resume[0].goal
        goal = equilibrium_near(plant, 0.5 * (low + high), rest) if goal is None else np.asarray(goal, float)
        loop, V = regulated(plant, goal, rest, controller, limit, Q, R, inputs)
        if candidate == "sos":
            polynomial_flow(loop)
        rate = slowest(loop, V) * SHARE if rate is None and loop.continuous else STEP_RATE if rate is None else rate
    work = Work(low, high, rate, level, seconds, boxes, keys[0], watch)
    tell("proving the plain quadratic")
    if resume is not None and isinstance(resume[1], QuadraticLyapunov):
        loop, V = resume[0], resume[1]
        plain, resume = work.side(loop, V, resume[2]), None
    else:
        plain = work.side(loop, V, share=1.0 if resume is None else AGAIN)
    if candidate == "quadratic" or work.stopped:
        return _result(plain)
    if resume is None:
        tell(WORDS[candidate])
        made = MAKERS[candidate](
            Wanted(loop, V, low, high, rate, limits, (Q, R), names, seconds, hidden, recipe, keys[1:], work.told, lambda: work.stopped)
        )
    else:
        made = going_on(resume[0], resume[1], candidate)
    tell(made.words)
    if made.V is None:
        return _result(plain, words=made.words)
    tell("proving it")
    other = work.side(made.loop, made.V, None if resume is None else resume[2], level=made.level)
    return _result(plain, other, made.words, made.learned)


class Work:
    """What is claimed and how long a proof may take; whether the caller has ended it."""

    def __init__(self, low: Any, high: Any, rate: float, level: float | None, seconds: float, boxes: int, key: Any, watch: Watch | None):
        self.low, self.high, self.rate, self.level, self.seconds, self.boxes, self.key = low, high, rate, level, seconds, boxes, key
        self.watch, self.stopped = watch, False

    def told(self, share: float, boxes: int, seconds: float) -> bool:
        """Hands on to the caller; True once that wanted an end."""
        if self.watch is not None and self.watch(share, boxes, seconds) is True:
            self.stopped = True
        return self.stopped

    def side(self, loop: Any, V: Any, before: Proof | None = None, *, level: float | None = None, share: float = 1.0) -> Side:
        """Prove, or go on with a proof, within a share of the seconds; and the volume. level: beside the one that was asked for."""
        domain, level = (self.low, self.high), self.level if level is None else level
        limits = {"seconds": share * self.seconds, "boxes": self.boxes, "progress": self.told}
        if before is None:
            proof = certify(loop, V, domain=domain, rate=self.rate, level=level, **limits)
        else:
            proof = certify(loop, V, domain=domain, rate=before.rate, level=before.level, core=before.core, resume=before, **limits)
            proof = replace(proof, seconds=proof.seconds + before.seconds)
        return loop, V, proof, volume_of(V, proof, self.low, self.high, self.key)


def _check(plant: Any, candidate: str, controller: str, limit: Any, inputs: Any) -> None:
    if candidate not in CANDIDATES or controller not in CONTROLLERS:
        raise InvalidValue(
            f"certified: candidate is one of {CANDIDATES} and controller one of {CONTROLLERS}, got {candidate}, {controller}."
        )
    alone = controller == "none" or plant.n_inputs == 0
    if candidate == "neural" and alone:
        raise InvalidValue(
            "certified: a neural candidate is trained with its controller; it needs a plant with inputs and controller='lqr'."
        )
    if limit is not None and inputs is not None:
        raise InvalidValue("certified: give limit, the largest |u - rest|, or inputs, (low, high) of u, not both.")
    if inputs is not None and alone:
        raise InvalidValue("certified: inputs are limits of a controller, and there is none.")


def _check_resumed(
    resume: Unfinished, plant: Any, controller: str, candidate: str, domain: Any, rate: Any, level: Any, goal: Any, limits: Any
) -> None:
    """Raises InvalidValue for a proof of another claim than the arguments make, as far as they were given."""
    loop, V, proof = resume
    if not isinstance(V, (QuadraticLyapunov, *([KINDS[candidate]] if candidate in KINDS else []))):
        raise InvalidValue(f"certified: the proof that goes on is about a {type(V).__name__}, which is no candidate of '{candidate}'.")
    pairs = [("domain", domain, proof.domain), ("rate", rate, proof.rate), ("level", level, proof.level), ("goal", goal, loop.goal)]
    if isinstance(loop.policy, AbstractPolicy) and limits[0] is not None:
        there = np.stack([loop.policy.low, loop.policy.high])
        pairs.append(("inputs", np.stack([np.broadcast_to(side, there.shape[1:]) for side in limits]), there))
    if not bool(eqx.tree_equal(plant, loop.plant)) or (loop.policy is None) != (controller == "none" or plant.n_inputs == 0):
        raise InvalidValue("certified: the proof that goes on is about another plant, or another kind of controller, than was given.")
    for name, given, there in pairs:
        if given is not None and not np.array_equal(np.asarray(given, float), np.asarray(there, float)):
            told = [np.asarray(side, float).tolist() for side in (there, given)]
            raise InvalidValue(f"certified: the proof that goes on has {name} {told[0]}, not {told[1]}. Give what it was begun with.")


def _result(plain: Side, other: Side | None = None, words: str = "", learned: Learned | None = None) -> Certified:
    """The larger of what is proved; what a limit stopped."""
    better = other is not None and ((other[2].proved and other[3][0] > plain[3][0]) or not plain[2].proved)
    best = other if better and other is not None else plain
    sides = [plain] if other is None else [other, plain] if not best[2].proved else [other]
    unfinished = next((side[:3] for side in sides if can_go_on(side[2])), None)
    return Certified(*best, plain, learned, other, words, unfinished)


def equilibrium_near(plant: AbstractMap | AbstractFlow, start: Any, rest: Any) -> Float[np.ndarray, " n"]:
    """The equilibrium that Newton's method finds from `start` with inputs `rest` held. Raises InvalidValue if it finds none."""
    u = jnp.asarray(rest, float) if plant.n_inputs else None

    def off(x: Any) -> Any:
        return plant.field(0.0, x, u) if isinstance(plant, AbstractFlow) else plant.step(x, u) - x

    x = jnp.asarray(start, float)
    if float(jnp.max(jnp.abs(off(x)))) == 0.0:
        return np.asarray(x)
    for _ in range(NEWTON):
        x = x - jnp.linalg.lstsq(jax.jacfwd(off)(x), off(x))[0]
    miss = float(jnp.max(jnp.abs(off(x))))
    if not miss <= 1e-12 * (1 + float(jnp.max(jnp.abs(x)))):
        raise InvalidValue(
            f"certified: found no equilibrium near {np.asarray(start).tolist()} (the state moves by {miss:.2g}); give the goal."
        )
    snapped = jnp.round(x * 2.0**20) / 2.0**20  # what is meant to be 0 or 0.5 is not 1e-17 beside it
    return np.asarray(snapped if float(jnp.max(jnp.abs(off(snapped)))) == 0.0 else x)


def regulated(
    plant: Any, goal: Any, rest: Any, controller: str, limit: Any, Q: Any, R: Any, inputs: tuple[Any, Any] | None = None
) -> tuple[ClosedLoop, QuadraticLyapunov]:
    """The loop with the linear controller inside |u - rest| <= limit, or `inputs` = (low, high), each (k,); and the plain quadratic."""
    n, k = len(goal), plant.n_inputs
    if controller == "none" or k == 0:
        if np.any(rest):
            raise InvalidValue("certified: without a controller the inputs are 0; leave rest out.")
        loop = ClosedLoop.of(plant, goal=goal)
        A = jax.jacfwd(lambda x: loop.advance(x, loop.low))(loop.goal)
        try:
            return loop, QuadraticLyapunov.of_linear(np.asarray(A), goal, Q, continuous=loop.continuous)
        except InvalidValue as error:
            raise InvalidValue(f"certified: without a controller, at the equilibrium {np.asarray(goal).tolist()}: {error}") from None
    regulator = lqr_of(plant, goal, rest, np.eye(n) if Q is None else Q, np.eye(k) if R is None else R)
    policy = SaturatedLinear.of(regulator.K, goal, rest, *_limits(rest, limit, inputs))
    return ClosedLoop.of(plant, policy, goal=goal, rest=rest), QuadraticLyapunov.of(np.asarray(regulator.P), goal)


def _limits(rest: Any, limit: Any, inputs: tuple[Any, Any] | None) -> tuple[Any, Any]:
    """(low, high) of the inputs, None each without any."""
    if inputs is not None:
        return np.asarray(inputs[0], float), np.asarray(inputs[1], float)
    if limit is None:
        return None, None
    return np.asarray(rest, float) - np.asarray(limit, float), np.asarray(rest, float) + np.asarray(limit, float)


def slowest(loop: ClosedLoop, V: QuadraticLyapunov) -> float:
    """The least relative decrease of V along the linearised loop, per step or unit of time."""
    from scipy.linalg import eigh

    A, P = np.asarray(jax.jacfwd(lambda x: loop.advance(x, 0.5 * (loop.low + loop.high)))(loop.goal)), np.asarray(V.P)
    M = -(A.T @ P + P @ A) if loop.continuous else P - A.T @ P @ A
    least = float(eigh(M, P, eigvals_only=True)[0])
    if not least > 0:
        raise InvalidValue(f"certified: the quadratic of the linearised loop does not decrease (rate {least:.2g}); is the loop stable?")
    return least


def volume_of(V: AbstractLyapunov, proof: Proof, low: Any, high: Any, key: Any, samples: int = 400_000) -> tuple[float, float]:
    """The volume of the certified set with its standard error, by uniform states of the cube of the proof; (0, 0) if nothing is proved.

    low, high: only states between them count. A quadratic V has it by formula.
    """
    if proof.outcome is not Outcome.PROVED:
        return 0.0, 0.0
    if isinstance(V, QuadraticLyapunov):
        return float(V.volume(proof.level)), 0.0
    return volume_in(V, proof.level, low, high, proof.frame, key=key, samples=samples)

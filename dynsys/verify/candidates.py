"""Candidates beside the plain quadratic of a loop, each made by its own search and then proved like any other.

    neural      V and the controller are trained together; states that refute a proof are trained on
    symbolic    the best short formula of a search; `Made.words` shows it
    sos         a polynomial that sums of squares show to decrease: everywhere, if there is one; else a trained one of degree 4, or 2

Sums of squares are of the loop without its input limits, and know no domain; what `certify` proves in the end is the loop with both.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from dynsys.errors import DataError, InvalidValue
from dynsys.verify.cegis import by_certify
from dynsys.verify.learn import Learned, Recipe, learn
from dynsys.verify.loop import ClosedLoop, LoopFlow
from dynsys.verify.lyapunov import AbstractLyapunov, NeuralLyapunov, PolynomialLyapunov, QuadraticLyapunov
from dynsys.verify.polynomial import polynomial_field, powers
from dynsys.verify.start import lqr_start
from dynsys.verify.symbolic import SymbolicLyapunov
from dynsys.verify.symbolic_search import search_symbolic
from dynsys_datasets.equation.syntax import check_name

KINDS: dict[str, type[AbstractLyapunov]] = {"neural": NeuralLyapunov, "symbolic": SymbolicLyapunov, "sos": PolynomialLyapunov}
TRAINING = 4  # proofs that a training may ask for
FIELDS = (3, 5)  # degrees of polynomial fields that are tried
EVERYWHERE = (2, 4)  # degrees of V
SMALL = 0.01  # of the quadratic on the border of the box: the squares of higher degree with which the training of a polynomial begins
FLOOR = 1e-3


@dataclass(frozen=True)
class Wanted:
    """What a candidate is made for: the loop with its plain quadratic V, the box, the rate; how, and when to stop.

    limits: (low, high) of the inputs, each (k,), or None each. stop(): whether the caller wants an end.
    """

    loop: ClosedLoop
    V: QuadraticLyapunov
    low: np.ndarray
    high: np.ndarray
    rate: float
    limits: tuple[Any, Any] = (None, None)
    weights: tuple[Any, Any] = (None, None)
    names: tuple[str, ...] = ()
    seconds: float = 60.0
    hidden: tuple[int, ...] | None = None
    recipe: Recipe | None = None
    keys: Any = None
    watch: Callable[[float, int, float], Any] | None = None
    stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Made:
    """A candidate: its loop, V (None: nothing was found), a level that is known to be provable (None: none is), what it is in words."""

    loop: ClosedLoop
    V: AbstractLyapunov | None
    words: str
    level: float | None = None
    learned: Learned | None = None


class Stopped(Exception):
    """The caller ended a training; what there was: V, policy, level."""


def neural(wanted: Wanted) -> Made:
    """A trained V with a trained controller."""
    loop = wanted.loop
    goal, rest = np.asarray(loop.goal), np.asarray(loop.rest)
    (low, high), (Q, R) = wanted.limits, wanted.weights
    hidden, recipe = usual(loop.dim)
    hidden, recipe = wanted.hidden or hidden, wanted.recipe or recipe
    begin = lqr_start(
        loop.plant, goal, rest, wanted.low, wanted.high, input_low=low, input_high=high, Q=Q, R=R, hidden=hidden, key=wanted.keys[0]
    )
    prove = by_certify(loop.plant, wanted.low, wanted.high, rest=rest, rate=wanted.rate, seconds=wanted.seconds, progress=wanted.watch)

    def ask(V: AbstractLyapunov, policy: Any, level: float) -> tuple[bool, Any]:
        told = prove(V, policy, level)
        if wanted.stop():
            raise Stopped(V, policy, level)
        return told

    known = {"rate": wanted.rate, "recipe": recipe, "verifier": ask, "rounds": TRAINING, "key": wanted.keys[1]}
    try:
        made = learn(loop.plant, begin[0], wanted.low, wanted.high, policy=begin[1], **known)
    except Stopped as end:
        V, policy, level = end.args
        return Made(ClosedLoop.of(loop.plant, policy, goal=goal, rest=rest), V, "trained function (training was stopped)", level)
    other = ClosedLoop.of(loop.plant, made.policy, goal=goal, rest=rest)
    return Made(other, made.V, "trained function", made.level if made.proved else None, made)


def usual(n: int) -> tuple[tuple[int, ...], Recipe]:
    """Hidden units and recipe. Beyond two dimensions one wide layer: two narrow ones gave smaller sets, whose proofs took longer."""
    if n <= 2:
        return (16, 16), Recipe()  # pyright: ignore[reportCallIssue]
    return (32,), Recipe(steps=12_000, batch=2048, adversaries=1024, growth=0.03)  # pyright: ignore[reportCallIssue]


def symbolic(wanted: Wanted) -> Made:
    """The best short formula, for the loop as it is."""
    loop, goal = wanted.loop, np.asarray(wanted.loop.goal)
    names = formula_names(wanted.names, loop.dim)
    found = search_symbolic(loop.plant, names, wanted.low, wanted.high, goal=goal, policy=loop.policy, rate=wanted.rate, key=wanted.keys[0])
    if found.V is None:
        return Made(loop, None, f"no formula of {found.tried} decreases near the goal")
    return Made(loop, found.V, f"{_formula(found.V)}; the best of {found.tried}")


def going_on(loop: ClosedLoop, V: AbstractLyapunov, kind: str) -> Made:
    """What comes of a file."""
    return Made(loop, V, _formula(V) if isinstance(V, SymbolicLyapunov) else f"{kind} function, whose proof went on")


def _formula(V: SymbolicLyapunov) -> str:
    return f"formula V = {V.text}, where {', '.join(V.names)} {'are deviations' if len(V.names) > 1 else 'is the deviation'} from the goal"


def sums_of_squares(wanted: Wanted) -> Made:
    """A polynomial of a polynomial flow. Raises InvalidValue for a plant that is none, MissingExtra (extra 'control') without cvxpy."""
    from dynsys.verify.sos import sum_of_squares, sum_of_squares_region

    loop, goal, rate = wanted.loop, np.asarray(wanted.loop.goal), wanted.rate
    flow, degree = polynomial_flow(loop)
    for top in EVERYWHERE:
        found = sum_of_squares(flow, goal, degree=top, field_degree=degree, rate=rate)
        if found.V is not None:
            return Made(loop, found.V, f"sum of squares of degree {top}, for all of the loop without limits")
    made = learn(
        loop.plant, _quartic(wanted), wanted.low, wanted.high, policy=loop.policy, train_policy=False, rate=rate, recipe=wanted.recipe,
        rounds=1, key=wanted.keys[1],
    )  # fmt: skip
    for V, top in ((made.V, 4), (wanted.V, 2)):
        found = sum_of_squares_region(flow, goal, V, field_degree=degree, rate=rate)
        if found.V is not None:
            return Made(loop, found.V, f"sum of squares of degree {top}, for a part of the loop without limits")
    return Made(loop, None, f"no sum of squares was found: {found.reason}")


MAKERS: dict[str, Callable[[Wanted], Made]] = {"neural": neural, "symbolic": symbolic, "sos": sums_of_squares}


def formula_names(names: tuple[str, ...], n: int) -> tuple[str, ...]:
    """The names of the states as far as the language of formulas takes them; x1, x2, ... if it does not."""
    try:
        for name in names:
            check_name(name, "certified")
    except DataError:
        names = ()
    return tuple(names) if len(set(names)) == n else tuple(f"x{i + 1}" for i in range(n))


def polynomial_flow(loop: ClosedLoop) -> tuple[LoopFlow, int]:
    """The loop without input limits, and the degree of its field. Raises InvalidValue for maps, and for fields that are no polynomials."""
    if not loop.continuous:
        raise InvalidValue("certified: candidate 'sos' is for flows, and this plant is a map; take another candidate, or leave --dt out.")
    if loop.policy is not None:
        none = jnp.full(loop.plant.n_inputs, jnp.inf)
        loop = eqx.tree_at(lambda loop: (loop.policy.low, loop.policy.high), loop, (-none, none))
    flow, reason = LoopFlow(loop), ""  # pyright: ignore[reportCallIssue]
    for degree in FIELDS:
        try:
            polynomial_field(flow, loop.goal, degree)
        except InvalidValue as error:
            reason = str(error)
        else:
            return flow, degree
    raise InvalidValue(f"certified: candidate 'sos' needs a flow with a polynomial field. {reason} Take candidate 'symbolic' or 'neural'.")


def _quartic(wanted: Wanted) -> PolynomialLyapunov:
    """The plain quadratic, about 1 on the border of the box, with small squares of all monomials of degree 2."""
    n, half = wanted.loop.dim, 0.5 * (wanted.high - wanted.low)
    P = np.asarray(wanted.V.P) / np.max(np.diag(np.asarray(wanted.V.P)) * half**2)
    basis = powers(n, 1, 2)
    R = np.diag([SMALL / np.prod(half ** np.array(power)) for power in basis])
    first = [basis.index(tuple(int(i == j) for i in range(n))) for j in range(n)]
    R[np.ix_(range(n), first)] = np.linalg.cholesky((1 - FLOOR) * P).T
    least = FLOOR * float(np.linalg.eigvalsh(P)[0])
    return PolynomialLyapunov.of(R, basis, least, wanted.loop.goal)

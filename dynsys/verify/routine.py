"""From a plant to a proof: equilibrium, controller, the plain quadratic first, then what was asked for, each with the largest level proved.

    u = rest - K (x - goal) inside the limits (the regulator of the linearised plant);   V = (x - goal)'P (x - goal)

P is the regulator's cost-to-go, or, for a plant without inputs, the solution of the Lyapunov equation. `candidate="neural"` trains V, and
the controller with it, from there on; the verifier's counterexamples are trained on (`dynsys.verify.learn`). What is certified with the
larger volume is the result; the plain quadratic stays beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Float

from dynsys.control.lqr import lqr_of
from dynsys.dynamics import AbstractFlow, AbstractMap
from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys.verify.cegis import by_certify
from dynsys.verify.certify import Outcome, Proof, certify
from dynsys.verify.learn import Learned, Recipe, learn
from dynsys.verify.loop import ClosedLoop
from dynsys.verify.lyapunov import AbstractLyapunov, QuadraticLyapunov
from dynsys.verify.policy import SaturatedLinear
from dynsys.verify.start import lqr_start

CANDIDATES = ("quadratic", "neural")
CONTROLLERS = ("lqr", "none")
SHARE = 0.01  # of the slowest linear decrease of V: the rate that is claimed of a flow unless told
STEP_RATE = 0.001  # and of a map
NEWTON = 50
TRAINING = 4  # proofs that a training may ask for


@dataclass(frozen=True)
class Certified:
    """The result: loop, V and proof; volume (n-dimensional, with its standard error) of the certified set; the plain quadratic's beside it.

    learned: how the training went, if there was one.
    """

    loop: ClosedLoop
    V: AbstractLyapunov
    proof: Proof
    volume: tuple[float, float]
    plain: tuple[ClosedLoop, AbstractLyapunov, Proof, tuple[float, float]]
    learned: Learned | None = None


def certified(
    plant: AbstractMap | AbstractFlow,
    low: Any,
    high: Any,
    *,
    goal: Any = None,
    rest: Any = None,
    controller: str = "lqr",
    limit: Any = None,
    candidate: str = "quadratic",
    rate: float | None = None,
    level: float | None = None,
    Q: Any = None,
    R: Any = None,
    seconds: float = 60.0,
    hidden: tuple[int, ...] = (16, 16),
    recipe: Recipe | None = None,
    key: Any = 0,
    progress: Callable[[str], None] | None = None,
) -> Certified:
    """Certify a plant on the box [low, high] (n,).

    goal (n,), rest (k,): the equilibrium; found near the middle of the box, with inputs 0, unless given. controller: "lqr" (weights Q, R,
    identities unless given; |u - rest| <= limit) or "none". candidate: "quadratic", or "neural", which is trained. rate: of the decrease,
    per step of a map or unit of time of a flow. level: default the largest that can be proved. seconds: of every search for a proof.
    Raises InvalidValue for a plant without an equilibrium there, or one that the linear controller does not stabilise.
    """
    tell = progress or (lambda words: None)
    if candidate not in CANDIDATES or controller not in CONTROLLERS:
        raise InvalidValue(
            f"certified: candidate is one of {CANDIDATES} and controller one of {CONTROLLERS}, got {candidate}, {controller}."
        )
    if candidate == "neural" and (controller == "none" or plant.n_inputs == 0):
        raise InvalidValue(
            "certified: a neural candidate is trained with its controller; it needs a plant with inputs and controller='lqr'."
        )
    with x64():
        low, high = np.asarray(low, float), np.asarray(high, float)
        rest = np.zeros(plant.n_inputs) if rest is None else np.asarray(rest, float)
        goal = equilibrium_near(plant, 0.5 * (low + high), rest) if goal is None else np.asarray(goal, float)
        loop, V = regulated(plant, goal, rest, controller, limit, Q, R)
        rate = slowest(loop, V) * SHARE if rate is None and loop.continuous else STEP_RATE if rate is None else rate
    tell("proving the plain quadratic")
    keys = jr.split(jr.key(key) if isinstance(key, int) else key, 3)
    proof = certify(loop, V, domain=(low, high), rate=rate, level=level, seconds=seconds)
    plain = (loop, V, proof, volume_of(V, proof, low, high, keys[0]))
    if candidate == "quadratic":
        return Certified(*plain[:2], proof, plain[3], plain)
    tell("training V and the controller")
    bounds = (None, None) if limit is None else (rest - np.asarray(limit, float), rest + np.asarray(limit, float))
    begin = lqr_start(plant, goal, rest, low, high, input_low=bounds[0], input_high=bounds[1], Q=Q, R=R, hidden=hidden, key=keys[1])

    verifier = by_certify(plant, low, high, rest=rest, rate=rate, seconds=seconds)
    made = learn(plant, begin[0], low, high, policy=begin[1], rate=rate, recipe=recipe, verifier=verifier, rounds=TRAINING, key=keys[2])
    tell("proving the trained V")
    other = ClosedLoop.of(plant, made.policy, goal=goal, rest=rest)
    final = certify(other, made.V, domain=(low, high), rate=rate, level=made.level if made.proved else level, seconds=seconds)
    volume = volume_of(made.V, final, low, high, keys[0])
    if not final.proved or volume[0] <= plain[3][0]:
        return Certified(*plain[:2], proof, plain[3], plain, made)
    return Certified(other, made.V, final, volume, plain, made)


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


def regulated(plant: Any, goal: Any, rest: Any, controller: str, limit: Any, Q: Any, R: Any) -> tuple[ClosedLoop, QuadraticLyapunov]:
    """The loop with the linear controller, and the plain quadratic."""
    n, k = len(goal), plant.n_inputs
    if controller == "none" or k == 0:
        if np.any(rest):
            raise InvalidValue("certified: without a controller the inputs are 0; leave rest out.")
        loop = ClosedLoop.of(plant, goal=goal)
        A = jax.jacfwd(lambda x: loop.advance(x, loop.low))(loop.goal)
        return loop, QuadraticLyapunov.of_linear(np.asarray(A), goal, Q, continuous=loop.continuous)
    regulator = lqr_of(plant, goal, rest, np.eye(n) if Q is None else Q, np.eye(k) if R is None else R)
    reach = np.full(k, np.inf) if limit is None else np.broadcast_to(np.asarray(limit, float), (k,))
    policy = SaturatedLinear.of(regulator.K, goal, rest, np.asarray(rest) - reach, np.asarray(rest) + reach)
    return ClosedLoop.of(plant, policy, goal=goal, rest=rest), QuadraticLyapunov.of(np.asarray(regulator.P), goal)


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
    """The volume of the certified set with its standard error, by uniform states of the box; (0, 0) if nothing is proved."""
    if proof.outcome is not Outcome.PROVED:
        return 0.0, 0.0
    with x64():
        if isinstance(V, QuadraticLyapunov):
            return float(V.volume(proof.level)), 0.0
        low, high = jnp.asarray(low, float), jnp.asarray(high, float)
        x = low + (high - low) * jr.uniform(key, (samples, len(low)))
        share = float(jnp.mean(jax.vmap(V.value)(x) <= proof.level))
        whole = float(jnp.prod(high - low))
        return whole * share, whole * float(np.sqrt(share * (1 - share) / samples))

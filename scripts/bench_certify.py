"""Certificates of standard problems: areas and volumes that are proved, without a hole and with rounding, and the time that it takes.

discrete  pendulum and path tracking in steps of 0.05 (Euler), V(x+) <= (1 - 0.001) V(x), the set inside the box: V and controller are
          trained here. Rivals' areas are those that the released functions of Yang et al. (ICML 2024) certify, with a hole.
flows     quadratic V with the saturated regulator: reverse van der Pol, pendulum, path tracking, cart-pole, planar quadrotor; then V and
          controller trained (on reverse van der Pol only V). Published volumes stand beside, with the state box in the row.
cost      boxes and seconds against the dimension: chains of saturated oscillators with 2, 4, 6, 8, 10 states, the same share of the level.

One JSON row a case. `area` is the volume of {V <= level}, its standard error from random states where it is not an ellipsoid.

    python scripts/bench_certify.py [--toy] [--groups discrete,flows,cost] [--seconds 60]
"""

import argparse
import json
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from dynsys.control.lqr import lqr_of
from dynsys.dynamics import AbstractFlow, AbstractMap
from dynsys.precision import x64
from dynsys.systems import load_system
from dynsys.verify.cegis import by_certify
from dynsys.verify.certify import certify
from dynsys.verify.learn import Recipe, learn
from dynsys.verify.loop import ClosedLoop
from dynsys.verify.lyapunov import NeuralLyapunov, QuadraticLyapunov
from dynsys.verify.network import Network
from dynsys.verify.policy import SaturatedLinear
from dynsys.verify.routine import regulated, volume_of
from dynsys.verify.start import lqr_start

DT = 0.05


class PendulumSteps(AbstractMap):
    """Yang et al.: m .15, l .5, b .1, g 9.81; theta from the upright."""

    dim: int = eqx.field(static=True, default=2)
    n_obs: int = eqx.field(static=True, default=2)
    n_inputs: int = eqx.field(static=True, default=1)

    def step(self, z: Any, u: Any = None) -> Any:
        """Euler."""
        turn = 9.81 / 0.5 * jnp.sin(z[0]) + (u[0] - 0.1 * z[1]) / (0.15 * 0.5**2)
        return jnp.stack([z[0] + DT * z[1], z[1] + DT * turn])

    def observe(self, z: Any) -> Any:
        """The state."""
        return z

    def lift(self, x: Any) -> Any:
        """The state."""
        return x


class PathSteps(PendulumSteps):
    """Yang et al.: speed 2, wheelbase 1, radius 10; (distance, heading) errors, u the tangent of the steering angle, 0.1 on the path."""

    def step(self, z: Any, u: Any = None) -> Any:
        """Euler."""
        s, c = jnp.sin(z[1]), jnp.cos(z[1])
        return jnp.stack([z[0] + DT * 2 * s, z[1] + DT * (2 * u[0] - c / (5 - s))])


class PendulumFlow(AbstractFlow):
    """The same pendulum in continuous time."""

    dim: int = eqx.field(static=True, default=2)
    n_inputs: int = eqx.field(static=True, default=1)

    def field(self, t: Any, z: Any, u: Any = None) -> Any:
        """(omega, acceleration)."""
        return jnp.stack([z[1], 9.81 / 0.5 * jnp.sin(z[0]) + (u[0] - 0.1 * z[1]) / (0.15 * 0.5**2)])


class PathFlow(PendulumFlow):
    """The same car in continuous time."""

    def field(self, t: Any, z: Any, u: Any = None) -> Any:
        """(distance, heading)."""
        s, c = jnp.sin(z[1]), jnp.cos(z[1])
        return jnp.stack([2 * s, 2 * u[0] - c / (5 - s)])


class CartPoleFlow(AbstractFlow):
    """Cart 1 kg, pole 0.1 kg at 1 m, g 9.81; (x, theta, v, omega), theta from the upright."""

    dim: int = eqx.field(static=True, default=4)
    n_inputs: int = eqx.field(static=True, default=1)

    def field(self, t: Any, z: Any, u: Any = None) -> Any:
        """Point mass on a massless rod."""
        s, c, w = jnp.sin(z[1]), jnp.cos(z[1]), z[3]
        bottom = 1.0 + 0.1 * s * s
        forward = (u[0] + 0.1 * s * (w * w - 9.81 * c)) / bottom
        turn = (-u[0] * c - 0.1 * w * w * c * s + 1.1 * 9.81 * s) / bottom
        return jnp.stack([z[2], w, forward, turn])


class QuadrotorFlow(AbstractFlow):
    """Planar quadrotor: m .486, l .25, I .00383; (x, y, theta, and their rates), two thrusts."""

    dim: int = eqx.field(static=True, default=6)
    n_inputs: int = eqx.field(static=True, default=2)

    def field(self, t: Any, z: Any, u: Any = None) -> Any:
        """Rigid body."""
        lift = (u[0] + u[1]) / 0.486
        return jnp.stack([z[3], z[4], z[5], -lift * jnp.sin(z[2]), lift * jnp.cos(z[2]) - 9.81, (u[0] - u[1]) * 0.25 / 0.00383])


class Chain(AbstractFlow):
    """n / 2 pendulums about their upright, each with its own torque and a spring to the next one."""

    dim: int = eqx.field(static=True)

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """A torque each."""
        return self.dim // 2

    def field(self, t: Any, z: Any, u: Any = None) -> Any:
        """(angles, speeds)."""
        m = self.dim // 2
        q, w = z[:m], z[m:]
        apart = [q[i + 1] - q[i] for i in range(m - 1)]
        pull = [(apart[i] if i < m - 1 else 0.0) - (apart[i - 1] if i else 0.0) for i in range(m)]
        return jnp.stack([*(w[i] for i in range(m)), *(jnp.sin(q[i]) + 0.5 * pull[i] + u[i] for i in range(m))])


# name: plant, half-width of the box, limit of the input, rest, area of the released function
DISCRETE = {
    "pendulum 6": (PendulumSteps(), 12.0, 6.0, 0.0, 253.0),
    "pendulum .75": (PendulumSteps(), 12.0, 0.75, 0.0, 203.0),
    "path .84": (PathSteps(), 3.0, 0.84, 0.1, 19.6),
    "path .5": (PathSteps(), 3.0, 0.5, 0.1, 11.2),
}


def discrete(toy: bool, seconds: float) -> None:
    """Trained V and controller; every proof is made twice, so that the second one compiles nothing."""
    for name, (plant, half, limit, rest, known) in list(DISCRETE.items())[: 1 if toy else None]:
        began = time.perf_counter()
        box = [-half, -half], [half, half]
        V, policy = lqr_start(plant, [0.0, 0.0], [rest], *box, input_low=-limit, input_high=limit, key=0)
        verifier = by_certify(plant, *box, rest=[rest], rate=0.001, seconds=seconds)
        recipe = Recipe(steps=200, batch=64, adversaries=32) if toy else Recipe()  # pyright: ignore[reportCallIssue]
        made = learn(plant, V, *box, policy=policy, rate=0.001, recipe=recipe, verifier=verifier, key=0)
        trained = time.perf_counter() - began
        loop = ClosedLoop.of(plant, made.policy, goal=[0.0, 0.0], rest=[rest])
        level = made.level
        for _ in range(2):
            proof = certify(loop, made.V, domain=box, rate=0.001, level=level, seconds=seconds)
        area, error = volume_of(made.V, proof, *box, jr.key(1))
        plain = None if made.quadratic_level is None else made.quadratic_level.volume
        told(
            name, "discrete", proof, area, error, box=half, limit=limit, known=known, plain=plain, train_seconds=trained, rounds=made.rounds
        )


PATIENCE = 1800.0  # seconds for a trained V
HOVER = 0.5 * 0.486 * 9.81  # a thrust
CART_BOX = ([-3.6, -2.4, -12, -12], [3.6, 2.4, 12, 12])
# name: plant, rest, limits of the input, weights Q (R: ones), domain (None: everywhere), rate, volumes known elsewhere
QUADRATIC: dict[str, tuple[Any, ...]] = {
    "reverse van der Pol": (None, [0.0], None, None, ([-3, -3], [3, 3]), 0.001, "13.83, the true region"),
    "pendulum 6": (PendulumFlow(), [0.0], ([-6.0], [6.0]), np.eye(2), ([-20, -100], [20, 100]), 0.01, "1169, in the same box"),
    "path tracking .84": (PathFlow(), [0.1], ([-0.84], [0.84]), np.eye(2), ([-10, -10], [10, 10]), 0.01, "122"),
    "cart-pole 30": (CartPoleFlow(), [0.0], ([-30.0], [30.0]), np.diag([0.0404, 0.0442, 0.0371, 4.1962]), None, 0.001, "trial 546, 587"),
    "cart-pole 30, in its box": (
        CartPoleFlow(), [0.0], ([-30.0], [30.0]), np.diag([0.371, 0.779, 0.481, 2.508]), CART_BOX, 0.001, "trial 27.3",
    ),
    "planar quadrotor": (
        QuadrotorFlow(), [HOVER, HOVER], ([0.0, 0.0], [2.5 * HOVER, 2.5 * HOVER]), np.diag([1.13, 0.87, 1.89, 1.11, 0.58, 1.44]), None,
        0.001, "trial 7044",
    ),
}  # fmt: skip
# name: plant, rest, limits, weights Q, box, rate, hidden units, recipe, share of the level that is asked first, volumes known elsewhere
NEURAL: dict[str, tuple[Any, ...]] = {
    "pendulum 6": (PendulumFlow(), [0.0], 6.0, None, ([-20, -100], [20, 100]), 0.01, (16, 16), {"steps": 4000}, 1.0, "1169, same box"),
    "path tracking .84": (PathFlow(), [0.1], 0.84, None, ([-10, -10], [10, 10]), 0.01, (16, 16), {"steps": 4000}, 1.0, "122"),
    "cart-pole 30": (
        CartPoleFlow(), [0.0], 30.0, np.diag([0.371, 0.779, 0.481, 2.508]), CART_BOX, 0.001, (32,),
        {"steps": 12_000, "batch": 2048, "adversaries": 1024, "growth": 0.03, "margin": 0.05}, 0.9, "306, in the same box, in 21 hours",
    ),
}  # fmt: skip


def flows(toy: bool, seconds: float, only: str = "") -> None:
    """Quadratic V with the saturated regulator; then V and controller trained."""
    for name, (plant, rest, limits, Q, domain, rate, known) in list(QUADRATIC.items())[: 1 if toy else None]:
        if only not in name:
            continue
        plant = load_system("ReversedVanDerPol") if plant is None else plant
        with x64():
            if limits is None:
                loop, V = regulated(plant, np.zeros(plant.dim), np.asarray(rest), "none", None, None, None)
            else:
                regulator = lqr_of(plant, np.zeros(plant.dim), np.asarray(rest), Q, np.eye(len(rest)))
                policy = SaturatedLinear.of(regulator.K, np.zeros(plant.dim), rest, *limits)
                loop, V = ClosedLoop.of(plant, policy, goal=np.zeros(plant.dim), rest=rest), QuadraticLyapunov.of(regulator.P)
        proof = certify(loop, V, domain=domain, rate=rate, seconds=2.0 if toy else seconds, sharpness=0.95, keep_leaves=False)
        last = certify(loop, V, domain=domain, rate=rate, level=proof.level, seconds=seconds, keep_leaves=False)
        area = float(V.volume(proof.level)) if proof.proved else 0.0
        told(
            name,
            "flow, quadratic",
            proof,
            area,
            0.0,
            box=domain,
            limits=limits,
            known=known,
            last_boxes=last.boxes,
            last_seconds=round(last.seconds, 3),
        )
    if only in "reverse van der Pol, trained":
        van_der_pol(toy, seconds)
    for name in () if toy else NEURAL:
        if only in f"{name}, trained":
            neural(name, *NEURAL[name], seconds)


def neural(
    name: str, plant: Any, rest: Any, limit: float, Q: Any, box: Any, rate: float, hidden: Any, recipe: Any, share: float, known: str,
    seconds: float,
) -> None:  # fmt: skip
    """A trained V and controller; the first level that is asked for is `share` of what attacks allow, then 5 % less, and so on."""
    zero = np.zeros(plant.dim)
    began = time.perf_counter()
    start = lqr_start(plant, zero, rest, *box, input_low=-limit, input_high=limit, Q=Q, hidden=hidden, key=0)
    made = learn(plant, start[0], *box, policy=start[1], rate=max(rate, 0.01), recipe=Recipe(**recipe), key=0)
    trained = time.perf_counter() - began
    loop = ClosedLoop.of(plant, made.policy, goal=zero, rest=rest)
    proof, level = None, share * made.level
    while proof is None or (not proof.proved and level > 0.5 * made.level):
        proof = certify(loop, made.V, domain=box, rate=rate, level=level, seconds=max(seconds, PATIENCE), boxes=10**9, keep_leaves=False)
        level = 0.95 * level
    area, error = volume_of(made.V, proof, *box, jr.key(1))
    told(f"{name}, trained", "flow, neural", proof, area, error, box=box, limit=limit, known=known, train_seconds=trained)


def van_der_pol(toy: bool, seconds: float) -> None:
    """A trained V; the true region is measured by simulation of 100,000 states."""
    plant, half = load_system("ReversedVanDerPol"), np.array([2.2, 2.8])
    with x64():
        P = np.asarray(QuadraticLyapunov.of_linear([[0.0, -1.0], [1.0, -1.0]], continuous=True).P)
        net = Network.init((2, 24, 24, 8), last=0.1, key=jr.key(0))
        net = eqx.tree_at(lambda net: net.W[0], net, net.W[0] * jnp.asarray(3 / half)[None, :])
        R = jnp.asarray(np.linalg.cholesky(P / np.max(np.diag(P) * half**2)).T)
        V = NeuralLyapunov(net=net, R=R, goal=jnp.zeros(2), eps=1e-4)  # pyright: ignore[reportCallIssue]
    recipe = Recipe(steps=200, batch=64, adversaries=32) if toy else Recipe(steps=10_000, growth=0.05, margin=0.004)  # pyright: ignore[reportCallIssue]
    began = time.perf_counter()
    made = learn(
        plant, V, -half, half, rate=0.001, recipe=recipe, verifier=by_certify(plant, -half, half, rate=0.001, seconds=seconds), key=0
    )
    trained = time.perf_counter() - began
    loop = ClosedLoop.of(plant, goal=[0.0, 0.0])
    for _ in range(2):
        proof = certify(loop, made.V, domain=(-half, half), rate=0.001, level=made.level, seconds=seconds)
    area, error = volume_of(made.V, proof, -half, half, jr.key(1))
    told(
        "reverse van der Pol, trained",
        "flow, neural",
        proof,
        area,
        error,
        box=half.tolist(),
        known=region(plant, half),
        train_seconds=trained,
    )


def region(plant: Any, half: np.ndarray, samples: int = 100_000) -> float:
    """The area of the true region of attraction: states that go home within 60 units of time (Runge-Kutta, steps of 0.02)."""
    from dynsys.dynamics import Discretized

    with x64():
        model = Discretized(plant, 0.02)
        x = jnp.asarray(half) * jr.uniform(jr.key(5), (samples, 2), minval=-1.0, maxval=1.0)
        step = jax.vmap(lambda z: jnp.clip(model.step(z), -1e3, 1e3))
        last = jax.jit(lambda x: jax.lax.fori_loop(0, 3000, lambda _, x: step(x), x))(x)
        return float(4 * np.prod(half) * jnp.mean(jnp.linalg.norm(last, axis=1) < 0.1))


def cost(toy: bool, seconds: float) -> None:
    """The same share, half, of the level at which the first counterexample is known, for every dimension."""
    for n in (2,) if toy else (2, 4, 6, 8, 10):
        plant = Chain(n)  # pyright: ignore[reportCallIssue]
        m = n // 2
        with x64():
            regulator = lqr_of(plant, np.zeros(n), np.zeros(m), np.eye(n), np.eye(m))
            policy = SaturatedLinear.of(regulator.K, low=-np.full(m, 1.5), high=np.full(m, 1.5))
            loop, V = ClosedLoop.of(plant, policy, goal=np.zeros(n), rest=np.zeros(m)), QuadraticLyapunov.of(np.asarray(regulator.P))
            level = 0.5 * lowest_known(loop, V)
        proof = certify(loop, V, domain=None, rate=0.01, level=level, seconds=seconds, keep_leaves=False)
        told(f"chain of {m}", "cost", proof, float(V.volume(level)), 0.0, dimension=n)


def lowest_known(loop: ClosedLoop, V: QuadraticLyapunov, samples: int = 400_000) -> float:
    """The least V at which a random state breaks the decrease."""
    n = loop.dim
    y = jr.normal(jr.key(0), (samples, n))
    y = y / jnp.linalg.norm(y, axis=1, keepdims=True) * 6.0 * jr.uniform(jr.key(1), (samples, 1)) ** (1 / n)
    T = jnp.linalg.inv(jnp.linalg.cholesky(V.P).T)
    x = y @ T.T

    def rise(x: Any) -> Any:
        value, slope = jax.jvp(V.value, (x,), (loop.advance(x, loop.low),))
        return jnp.where(slope + 0.01 * value > 0, value, jnp.inf)

    return float(jnp.min(jax.lax.map(rise, x, batch_size=10_000)))


def told(name: str, group: str, proof: Any, area: float, error: float, **more: Any) -> None:
    """Print a row."""
    row = {
        "case": name, "group": group, "outcome": proof.outcome.value, "reason": proof.reason, "area": area, "area_error": error,
        "level": proof.level, "bracket": [None if b != b else float(b) for b in proof.bracket], "rate": proof.rate, "boxes": proof.boxes,
        "face_boxes": proof.face_boxes, "seconds": round(proof.seconds, 3), "compile_seconds": round(proof.compile_seconds, 1),
        "r0": proof.r0, **more,
    }  # fmt: skip
    print(json.dumps(row, default=float), flush=True)


def main() -> None:
    """Run it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--toy", action="store_true", help="tiny sizes, to see that it runs")
    options.add_argument("--groups", default="discrete,flows,cost")
    options.add_argument("--only", default="", help="only the cases of flows whose name holds this")
    options.add_argument("--seconds", type=float, default=60.0, help="limit of every search for a proof")
    chosen = options.parse_args()
    for group in ["cost"] if chosen.toy else chosen.groups.split(","):
        if group == "flows":
            flows(chosen.toy, chosen.seconds, chosen.only)
        else:
            {"discrete": discrete, "cost": cost}[group](chosen.toy, chosen.seconds)


if __name__ == "__main__":
    main()

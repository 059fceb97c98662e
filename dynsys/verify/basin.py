"""The region of attraction by simulation, beside the set that is proved: where the trajectories of a closed loop from many starts end.

    fates    start -> CONVERGED (it came to the goal and stayed), AWAY (it left FAR times the box, or all bounds) or UNDECIDED
    basin    starts uniform in a box: volume of the region of attraction R, share of R in the set S = {V <= level}; and starts in S,
             of which all must converge
    paths    trajectories to look at

R holds the starts in the box whose trajectory goes to the goal, though it may leave the box on its way. A simulation proves nothing: it
shows how much of R a proof leaves out, and a start in a proved S that does not converge would show an error. Flows are integrated with
error control (Tsitouras 5(4), tolerance 1e-6). Disturbances are drawn at random, half of them from the corners of their box.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dynsys.errors import InvalidValue
from dynsys.integrate.ensemble import ensemble_adaptive
from dynsys.precision import x64
from dynsys.verify.attack import box_of, inward, scattered
from dynsys.verify.loop import ClosedLoop, LoopFlow
from dynsys.verify.lyapunov import AbstractLyapunov

CONVERGED, UNDECIDED, AWAY = 1, 0, -1
NEAR, FAR = 1e-3, 100.0  # half-widths of the box
BLOCK = 1024  # starts that are simulated side by side: one shape, so that it compiles once
HOLDS = 4  # times that the disturbance of a flow changes in a stretch
TOLERANCE = 1e-6
TRIES = 20_000  # steps of a flow in a stretch
STRETCHES = 60  # before a start is left undecided

Arrived = Callable[[Array], Array]


@dataclass(frozen=True)
class Fates:
    """codes (S,): CONVERGED, AWAY or UNDECIDED; ends (S, n): the last state, NaN where it left all bounds; time until the last look."""

    codes: Int[np.ndarray, " S"]
    ends: Float[np.ndarray, "S n"]
    time: float


@dataclass(frozen=True)
class Basin:
    """Starts (S, n), uniform in the box [low, high], with their V (S,) and codes; and starts inside {V <= level}, (I, n), with theirs."""

    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]
    level: float
    starts: Float[np.ndarray, "S n"]
    values: Float[np.ndarray, " S"]
    codes: Int[np.ndarray, " S"]
    inner: Float[np.ndarray, "I n"]
    inner_codes: Int[np.ndarray, " I"]

    @property
    def region(self) -> tuple[float, float]:
        """The volume of the region of attraction in the box, and its standard error."""
        return _scaled(_share(self.codes == CONVERGED), float(np.prod(self.high - self.low)))

    @property
    def certified(self) -> tuple[float, float]:
        """The volume of {V <= level} in the box, and its standard error."""
        return _scaled(_share(self.values <= self.level), float(np.prod(self.high - self.low)))

    @property
    def covered(self) -> tuple[float, float]:
        """The share of the region of attraction that lies in {V <= level}, and its standard error; nan without a start that converges."""
        return _share(self.values[self.codes == CONVERGED] <= self.level)

    @property
    def kept(self) -> float:
        """The share of the starts in {V <= level} that converge: 1 for a proved set."""
        codes = np.concatenate([self.inner_codes, self.codes[self.values <= self.level]])
        return float(np.mean(codes == CONVERGED))

    @property
    def astray(self) -> Float[np.ndarray, "A n"]:
        """The starts in {V <= level} that do not converge; none for a proved set."""
        inside = self.values <= self.level
        lost = np.concatenate([self.inner_codes, self.codes[inside]]) != CONVERGED
        return np.concatenate([self.inner, self.starts[inside]])[lost]


def basin(
    loop: ClosedLoop,
    V: AbstractLyapunov,
    level: float,
    low: Any,
    high: Any,
    *,
    samples: int = 4096,
    inside: int = 2048,
    core: float = 0.0,
    stretches: int = STRETCHES,
    key: Any = 0,
) -> Basin:
    """Simulate from `samples` starts, uniform in the box [low, high] (n,), and from `inside` starts in {V <= level}, many on its border.

    core > 0: a trajectory has arrived where V <= core. stretches: see `fates`. Raises InvalidValue for a box that is not finite or does
    not hold the goal, or for counts below 1.
    """
    if min(samples, inside) < 1:
        raise InvalidValue(f"basin: samples and inside must be at least 1, got {samples} and {inside}.")
    with x64():
        low, high = box_of("basin", low, high, V.goal)
        one, two, three = jr.split(jr.key(key) if isinstance(key, int) else key, 3)
        starts = jr.uniform(one, (samples, len(low)), minval=low[None, :], maxval=high[None, :])
        inner = _inwards(V, scattered(two, inside, V.goal, low, high, smallest=1e-2), jnp.asarray(level, float))
        values = _values(V, starts)
        starts, inner = np.asarray(starts), np.asarray(inner)
        arrived = None if core <= 0 else (lambda x: V.value(x) <= core)
        found = fates(loop, np.concatenate([starts, inner]), low, high, arrived=arrived, stretches=stretches, key=three).codes
    return Basin(
        np.asarray(low), np.asarray(high), float(level), starts, np.asarray(values), found[:samples], inner, found[samples:]
    )  # fmt: skip


def fates(
    loop: ClosedLoop, starts: Any, low: Any, high: Any, *, arrived: Arrived | None = None, stretches: int = STRETCHES, key: Any = 0
) -> Fates:
    """Where the trajectories from `starts` (S, n) end; [low, high] (n,) is the box whose half-widths are the units of near and far.

    arrived: whether a state (n,) counts as the goal; by default within NEAR of it. A start has CONVERGED when it has arrived at two looks
    in a row; looks are one `stretch` apart, about the slowest time constant of the linearised loop.
    """
    with x64():
        low, high = box_of("fates", low, high, loop.goal)
        starts = np.asarray(starts, float)
        if starts.ndim != 2 or starts.shape[1] != loop.dim or not np.isfinite(starts).all():
            raise InvalidValue(f"fates: starts must be finite and (S, {loop.dim}), got {starts.shape}.")
        goal, half = np.asarray(loop.goal), np.asarray(high - low) / 2
        apart = stretch(loop)
        bound = float(np.max(np.abs(goal)) + FAR * np.max(half))
        key = jr.key(key) if isinstance(key, int) else key
        codes, ends = np.zeros(len(starts), int), starts.copy()
        open, before, looked = np.arange(len(starts)), np.zeros(len(starts), bool), 0
        while len(open) and looked < stretches:
            looked += 1
            states, failed = _onward(loop, ends[open], apart, bound, float(TOLERANCE * np.min(half)), jr.fold_in(key, looked))
            off = np.max(np.abs(states - goal[None, :]) / half[None, :], axis=1)
            lost = ~failed & ~(off <= FAR)
            here = off <= NEAR if arrived is None else _arrived(arrived, states)
            ends[open] = states
            codes[open[lost]], codes[open[here & before & ~lost]] = AWAY, CONVERGED
            goes_on = ~lost & ~failed & ~(here & before)
            open, before = open[goes_on], here[goes_on]
    return Fates(codes, ends, looked * apart)


def paths(
    loop: ClosedLoop, starts: Any, low: Any, high: Any, *, stretches: float = 8.0, count: int = 200, key: Any = 0
) -> tuple[Float[np.ndarray, " T"], Float[np.ndarray, "S T n"]]:
    """Trajectories from `starts` (S, n) over some stretches: times (T,), states (S, T, n), NaN once they are FAR; T about `count`.

    A map's times are whole steps, all of them up to `count`.
    """
    with x64():
        low, high = box_of("paths", low, high, loop.goal)
        goal, half = np.asarray(loop.goal), np.asarray(high - low) / 2
        key = jr.key(key) if isinstance(key, int) else key
        starts = np.asarray(starts, float)
        span = stretches * stretch(loop)
        if loop.continuous:
            times = np.linspace(0.0, span, count)
            w = _draws(loop, key, (len(starts), count - 1))
            flow = LoopFlow(loop)  # pyright: ignore[reportCallIssue]
            bound = float(np.max(np.abs(goal)) + FAR * np.max(half))
            atol = float(TOLERANCE * np.min(half))
            found = ensemble_adaptive(flow, starts, times, inputs=w, rtol=TOLERANCE, atol=atol, bound=bound, max_steps=100 * TRIES)
            states = np.asarray(found.states)
        else:
            steps = int(min(max(round(span), 8), count))
            times = np.arange(steps + 1.0)
            states = np.asarray(_orbits(loop, jnp.asarray(starts), _draws(loop, key, (len(starts), steps)), steps))
        lost = np.cumsum(~(np.max(np.abs(states - goal) / half, axis=2) <= FAR), axis=1) > 0
    return times, np.where(lost[:, :, None], np.nan, states)


def stretch(loop: ClosedLoop) -> float:
    """The time between looks: about the slowest time constant of the linearised loop; of a map a whole number of steps, 10 to 1000."""
    with x64():
        middle = 0.5 * (loop.low + loop.high)
        values = np.linalg.eigvals(np.asarray(jax.jacfwd(lambda x: loop.advance(x, middle))(loop.goal)))
    largest = max(float(np.max(np.abs(values))), 1e-300)
    if loop.continuous:
        slowest = -float(np.max(values.real))
        return 1 / slowest if slowest > 1e-3 * largest else 10 / largest if largest > 1e-12 else 1.0
    return float(np.clip(np.ceil(-1 / np.log(largest)), 10, 1000)) if largest < 1 else 100.0


def _onward(
    loop: ClosedLoop, states: Float[np.ndarray, "S n"], apart: float, bound: float, atol: float, key: Array
) -> tuple[Float[np.ndarray, "S n"], Bool[np.ndarray, " S"]]:
    """The states one stretch later, and for which of them the integrator gave up."""
    count = len(states)
    blocks = -(-count // BLOCK)
    full = np.concatenate([states, np.broadcast_to(np.asarray(loop.goal), (blocks * BLOCK - count, loop.dim))])
    if loop.continuous:
        w = _draws(loop, key, (len(full), HOLDS))
        times = np.linspace(0.0, apart, 2 if w is None else HOLDS + 1)
        flow = LoopFlow(loop)  # pyright: ignore[reportCallIssue]
        limits = {"rtol": TOLERANCE, "atol": atol, "bound": bound, "max_steps": TRIES}
        found = ensemble_adaptive(flow, full, times, inputs=w, block=BLOCK, **limits)
        return np.asarray(found.states)[:count, -1], np.asarray(found.codes)[:count] == 1  # no program is compiled for each count
    ends = []
    for i in range(blocks):
        part = jnp.asarray(full[i * BLOCK : (i + 1) * BLOCK])
        ends.append(np.asarray(_last(loop, part, jr.fold_in(key, i), int(apart))))
    return np.concatenate(ends)[:count], np.zeros(count, bool)


@eqx.filter_jit
def _last(loop: ClosedLoop, x: Array, key: Array, steps: int) -> Array:
    """The states (B, n) of a map after so many steps under random disturbances."""

    def advance(x: Array, i: Array) -> tuple[Array, None]:
        return jax.vmap(loop.advance)(x, _random(loop, jr.fold_in(key, i), (x.shape[0],))), None

    return jax.lax.scan(advance, x, jnp.arange(steps))[0]


@eqx.filter_jit
def _orbits(loop: ClosedLoop, x: Array, w: Array | None, steps: int) -> Array:
    """All states (B, steps + 1, n)."""

    def advance(x: Array, w: Array | None) -> tuple[Array, Array]:
        x = jax.vmap(lambda x, w: loop.step(x, w))(x, w)
        return x, x

    w = None if w is None else jnp.swapaxes(w, 0, 1)
    after = jax.lax.scan(advance, x, w, length=steps)[1]
    return jnp.swapaxes(jnp.concatenate([x[None], after]), 0, 1)


def _draws(loop: ClosedLoop, key: Array, shape: tuple[int, ...]) -> Array | None:
    return _random(loop, key, shape) if loop.low.shape[0] else None


def _random(loop: ClosedLoop, key: Array, shape: tuple[int, ...]) -> Array:
    """Disturbances (*shape, p): half of them uniform, half at corners."""
    p = loop.low.shape[0]
    if not p:
        return jnp.zeros((*shape, 0))
    one, two = jr.split(key)
    z = jr.uniform(one, (*shape, p), minval=-1.0, maxval=1.0)
    z = jnp.where(jr.bernoulli(two, shape=(*shape, 1)), jnp.sign(z), z)
    lead = (None,) * len(shape)
    return 0.5 * (loop.low + loop.high)[lead] + 0.5 * (loop.high - loop.low)[lead] * z


def _arrived(arrived: Arrived, states: Float[np.ndarray, "S n"]) -> Bool[np.ndarray, " S"]:
    good = np.all(np.isfinite(states), axis=1)
    return np.logical_and(np.asarray(jax.vmap(arrived)(jnp.asarray(np.where(good[:, None], states, 0.0)))), good)


@eqx.filter_jit
def _values(V: AbstractLyapunov, x: Array) -> Array:
    return jax.vmap(V.value)(x)


@eqx.filter_jit
def _inwards(V: AbstractLyapunov, x: Array, level: Array) -> Array:
    return jax.vmap(lambda y: inward(V, y, level, 30))(x)


def _share(which: Bool[np.ndarray, " S"]) -> tuple[float, float]:
    """A share and its standard error, which counts one more of each kind, so that it is never 0."""
    count = len(which)
    if not count:
        return float("nan"), float("nan")
    guess = (np.sum(which) + 1) / (count + 2)
    return float(np.mean(which)), float(np.sqrt(guess * (1 - guess) / count))


def _scaled(share: tuple[float, float], by: float) -> tuple[float, float]:
    return share[0] * by, share[1] * by

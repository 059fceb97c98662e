"""Fixed points and cycles of any map, equilibria of any flow: Newton's method from many starts, then with what it found deflated.

    Newton      delta solves DG(Z) delta = -G(Z),    G(Z)_t = F(z_t) - z_{t+1 mod k}   (flow: G = f, k = 1)
    deflation   G is multiplied by m(Z) = prod_i (1 + 1/|Z - Z_i|^2) over the roots Z_i found so far, which repels from them.
                With mu = ln m the step stays Newton's, only its length changes: delta / (1 - grad mu . delta)

All k points are unknowns (multiple shooting); the cyclic system is condensed to the first of them. All starts step side by side.
Source: Farrell, Birkisson & Funke, SIAM J. Sci. Comput. 37 (2015), eqs. 2.4 and 3.5 with power 2 and shift 1; Sherman-Morrison.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from dynsys.analysis.piecewise.cycle import Cycle, Cycles, ordered
from dynsys.analysis.piecewise.startbox import start_box
from dynsys.analysis.piecewise.verified import MERGE, System, in_double, same_cycle, value_and_jacobian, verified_all
from dynsys.dynamics import AbstractFlow
from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys.status import Status

_LENGTHS = (1.0, 0.3, 0.1, 0.03)  # step lengths that are tried at once
_FREE = 4  # every so many steps the full one is taken whatever it does: it leaves local minima of the residual
_FAR = 3.0  # the longest step, in box sizes
_DEFLATED = 512  # roots that can be deflated; beyond them the starts have found what they can
_LANES = 256  # starts that step side by side in one program; once roots are deflated, the first so many are used again
_POLISH = 4  # steps after convergence


def fixed_points(
    system: System,
    *,
    period: int | Sequence[int] = 1,
    starts: int = 1000,
    states: Any = None,
    box: tuple[Any, Any] | None = None,
    tolerance: float = 1e-10,
    iterations: int = 60,
    rounds: int = 10,
    max_cycles: int = 1000,
    key: int = 0,
) -> Cycles:
    """Cycles of a map whose least period divides `period` (or one of several periods); equilibria of a flow at t = 0.

    starts: Newton starts for each period; half of them near rows of states (T, M), such as an orbit, if given, the others
    uniform in box = (low (M,), high (M,)). Default of the box: the range of `states` (or of a free run of the system: of a
    database system, or of a map from random states) widened by half its size on every side. tolerance: largest residual of
    a cycle, relative to max(1, |z|). iterations: Newton steps of a start. rounds: how often the search is repeated from
    the same starts (at most 256 of them) with all found roots deflated; it ends early once a round finds nothing new.
    max_cycles: where to stop if fixed points are not isolated. key: seed of the starts.

    Every cycle is verified by the system's own step in float64. What is not found is not proved absent. Raises InvalidValue for
    a flow with a period other than 1, and for a flow of which neither states nor box nor a start are known.
    """
    periods = [period] if isinstance(period, int | np.integer) else list(period)
    _check(system, periods, starts, tolerance)
    with x64():
        system = in_double(system)
        rng = np.random.default_rng(key)
        low, high, states, notes = start_box("fixed_points", system, states, box, rng)
        scale = np.maximum(high - low, 1e-12)
        z0 = low + (high - low) * rng.random((starts, system.dim))
        if states is not None:
            near = states[rng.integers(len(states), size=starts // 2)]
            z0[: starts // 2] = near + 1e-3 * scale * rng.normal(size=near.shape)
        search = _Search(system, scale, tolerance, iterations, rounds, max_cycles)
        for k in sorted({int(k) for k in periods}):
            search.run(z0, k)
        notes = [*notes, *search.notes, *_time(system, z0)]
    if not search.cycles:
        notes.append(
            "Nothing was found: give states of an orbit, a box where fixed points are expected, or more starts. There may be none."
        )
    status = Status.MAX_STEPS if len(search.cycles) >= max_cycles else Status.SUCCESS
    about = {
        "period": tuple(periods),
        "starts": starts,
        "tolerance": tolerance,
        "key": key,
        "box": (tuple(low), tuple(high)),
        **search.counts,
    }
    return Cycles(ordered(search.cycles), status=status, notes=tuple(notes), about=tuple(about.items()))


class _Search:
    """The roots found so far, over the periods and rounds of one call."""

    def __init__(self, system: System, scale: np.ndarray, tolerance: float, iterations: int, rounds: int, max_cycles: int):
        self.system, self.scale, self.tolerance = system, scale, tolerance
        self.iterations, self.rounds, self.max_cycles = iterations, rounds, max_cycles
        self.cycles: list[Cycle] = []
        self.notes: list[str] = []
        self.counts = {"found by deflation": 0}

    def run(self, z0: np.ndarray, k: int) -> None:
        """Search cycles whose period divides k from the starts z0 (B, M)."""
        begin = _orbits(self.system, jnp.asarray(z0), k)
        begin = jnp.where(jnp.isfinite(begin).all((1, 2), keepdims=True), begin, jnp.asarray(z0)[:, None])
        outcome = np.zeros(3, int)
        for n in range(self.rounds + 1):
            roots = self._roots(k)
            if len(self.cycles) >= self.max_cycles or (n and len(roots) > _DEFLATED):
                break
            found, outcome_n = self._newton(begin[:: -(-len(z0) // _LANES)] if n else begin, roots if n else roots[:0], k)
            outcome = outcome if n else outcome_n
            new = self._merge(found)
            self.counts["found by deflation"] += new if n else 0
            if n and not new:
                break
        converged, singular, _ = outcome
        of = f" of period {k}" if k > 1 else ""
        self.notes.append(
            f"Newton's method{of} converged from {converged} of {len(z0)} starts"
            + (f", and met a singular Jacobian from {singular}." if singular else ".")
        )
        degenerate = sum(self._degenerate(cycle) for cycle in self.cycles)
        if degenerate:
            self.notes.append(
                f"{degenerate} of the cycles have the eigenvalue that makes Newton's method singular: they may not be isolated."
            )

    def _newton(self, begin: Array, roots: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Converged cycles (n, k, M), and how many starts converged, met a singular Jacobian, or did neither."""
        room = _room(len(roots), 32, 8)
        known = np.zeros((room, k, self.system.dim))
        known[: len(roots)] = roots
        live = np.arange(room) < len(roots)
        numbers = (jnp.asarray(self.scale), jnp.asarray(self.tolerance), jnp.asarray(self.iterations))
        parts = []
        for i in range(0, len(begin), _LANES):
            part = begin[i : i + _LANES]
            fill = jnp.concatenate([part, jnp.repeat(part[:1], min(_LANES, _room(len(begin))) - len(part), axis=0)])
            ended = _newton(self.system, fill, jnp.asarray(known), jnp.asarray(live), *numbers)
            parts.append([np.asarray(a)[: len(part)] for a in ended])
        Z, miss, singular = (np.concatenate(a) for a in zip(*parts, strict=True))
        good = miss <= self.tolerance
        return Z[good], np.array([good.sum(), (singular & ~good).sum(), (~singular & ~good).sum()])

    def _roots(self, k: int) -> np.ndarray:
        """All found cycles whose period divides k, as k-tuples from each of their points, (n, k, M)."""
        shape = (0, k, self.system.dim)
        rows = [np.roll(c.points, -s, axis=0) for c in self.cycles if k % c.period == 0 for s in range(c.period)]
        return np.stack([np.tile(row, (k // len(row), 1)) for row in rows]) if rows else np.zeros(shape)

    def _merge(self, found: np.ndarray) -> int:
        """Add what is new of (n, k, M); how many cycles that were."""
        before = len(self.cycles)
        known: dict[int, list[np.ndarray]] = {}
        for cycle in self.cycles:
            known.setdefault(cycle.period, []).append(cycle.points)
        size = np.abs(found).max((0, 1), initial=0.0)  # a box can be much wider than what lies in it
        close = MERGE * np.maximum(np.minimum(self.scale, size), max(1e-9 * float(self.scale.max()), 10 * self.tolerance / MERGE))
        for cycle in verified_all(self.system, _thinned(found, close), close):
            wide = close * (1e3 if self._degenerate(cycle) else 10)  # a double root is known to the square root of its residual
            same = known.setdefault(cycle.period, [])
            limit = self.tolerance * max(1.0, float(np.abs(cycle.points).max()))
            if cycle.residual <= limit and not (same and same_cycle(cycle.points, np.stack(same), wide)):
                same.append(cycle.points)
                self.cycles.append(cycle)
                if len(self.cycles) >= self.max_cycles:
                    self.notes.append(
                        f"The search ended at max_cycles={self.max_cycles}: fixed points fill a continuum, or there are very many."
                    )
                    break
        return len(self.cycles) - before

    def _degenerate(self, cycle: Cycle) -> bool:
        return bool((np.abs(cycle.eigenvalues - (0.0 if cycle.continuous else 1.0)) < 1e-4).any())


def _thinned(found: np.ndarray, close: np.ndarray) -> list[np.ndarray]:
    """One of each group of equal rows; rows that a cell border parts stay two, and are merged later."""
    if not len(found):
        return []
    cells = np.round(found / (10 * close)).reshape(len(found), -1)
    return list(found[np.sort(np.unique(cells, axis=0, return_index=True)[1])])


def _room(n: int, least: int = 8, factor: int = 2) -> int:
    """At least n, one of few sizes, so that few programs are compiled."""
    room = least
    while room < n:
        room *= factor
    return room


@eqx.filter_jit
def _orbits(system: System, z0: Array, k: int) -> Array:
    """z_0 and its k - 1 images, (B, k, M)."""
    if isinstance(system, AbstractFlow):
        return z0[:, None]
    return jnp.moveaxis(jax.lax.scan(lambda z, _: (jax.vmap(lambda s: system.step(s))(z), z), z0, None, length=k)[1], 0, 1)


def residual(system: System, Z: Array) -> Array:
    """G(Z), (k, M)."""
    if isinstance(system, AbstractFlow):
        return jax.vmap(lambda z: system.field(0.0, z))(Z)
    return jax.vmap(lambda z: system.step(z))(Z) - jnp.roll(Z, -1, axis=0)


def newton_direction(system: System, Z: Array) -> tuple[Array, Array]:
    """G(Z) and the full Newton step, both (k, M); the step is not finite where the Jacobian is singular."""
    values, J = jax.vmap(lambda z: value_and_jacobian(system, z))(Z)
    if isinstance(system, AbstractFlow):
        return values, jnp.linalg.solve(J[0], -values[0])[None]
    G = values - jnp.roll(Z, -1, axis=0)

    def push(carry: tuple[Array, Array], at: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        (P, c), (Jt, g) = carry, at
        return (Jt @ P, Jt @ c + g), None

    one = jnp.eye(Z.shape[1])
    (P, c), _ = jax.lax.scan(push, (one, jnp.zeros(Z.shape[1])), (J, G))
    first = jnp.linalg.solve(one - P, c)  # delta_{t+1} = J_t delta_t + G_t, and delta_k = delta_0
    rest = jax.lax.scan(lambda d, at: (at[0] @ d + at[1], d), first, (J, G))[1]
    return G, rest


@eqx.filter_jit
def _newton(
    system: System, begin: Array, roots: Array, live: Array, scale: Array, tolerance: Array, iterations: Array
) -> tuple[Array, Array, Array]:
    """Cycles (B, k, M), their residuals relative to max(1, |Z|) (B,), and whether a lane met a singular Jacobian (B,)."""

    def relative(G: Array, Z: Array) -> Array:
        miss = jnp.max(jnp.abs(G)) / jnp.maximum(1.0, jnp.max(jnp.abs(Z)))
        return jnp.where(jnp.isfinite(miss), miss, jnp.inf)

    def log_m(Z: Array) -> Array:
        square = jnp.sum(((Z[None] - roots) / scale[None, None]) ** 2, axis=(1, 2))
        return jnp.sum(jnp.where(live, jnp.log1p(1.0 / (square + 1e-300)), 0.0))

    def merit(Z: Array) -> Array:
        size = 0.5 * jnp.log(jnp.sum((residual(system, Z) / scale[None]) ** 2) + 1e-300) + log_m(Z)
        return jnp.where(jnp.isnan(size), jnp.inf, size)

    def advance(Z: Array, free: Array) -> tuple[Array, Array, Array]:
        G, delta = newton_direction(system, Z)
        singular = ~jnp.isfinite(delta).all() & jnp.isfinite(G).all()
        shrink = 1.0 - jnp.sum(jax.grad(log_m)(Z) * delta)
        delta = delta / jnp.where(jnp.abs(shrink) < 1e-12, 1e-12, shrink)
        delta = delta * jnp.minimum(1.0, _FAR / jnp.max(jnp.abs(delta / scale[None])))
        tries = Z[None] + jnp.asarray(_LENGTHS)[:, None, None] * delta[None]
        best = jnp.argmin(jax.vmap(merit)(tries))
        return tries[jnp.where(free, 0, best)], relative(G, Z), singular

    def body(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        n, Z, more, singular = carry
        moved, miss, broken = jax.vmap(advance, (0, None))(Z, n % _FREE == _FREE - 1)
        more = jnp.where(jnp.isfinite(moved).all((1, 2)), more - (miss <= tolerance), 0)  # a few more steps polish the root
        return n + 1, jnp.where((more > 0)[:, None, None], moved, Z), more, singular | broken

    lanes = begin.shape[0]
    first = (jnp.asarray(0), begin, jnp.full(lanes, _POLISH), jnp.zeros(lanes, bool))
    _, Z, _, singular = jax.lax.while_loop(lambda carry: (carry[0] < iterations) & (carry[2] > 0).any(), body, first)
    return Z, jax.vmap(lambda Z: relative(residual(system, Z), Z))(Z), singular


def _time(system: System, z0: np.ndarray) -> list[str]:
    """A note if the field depends on time."""
    if not isinstance(system, AbstractFlow):
        return []
    field, states = system.field, jnp.asarray(z0[:16])
    at = [np.asarray(jax.vmap(lambda z, t=t: field(t, z))(states)) for t in (0.0, 0.37, 1.7)]
    if all(np.allclose(at[0], later, rtol=1e-12, atol=1e-12, equal_nan=True) for later in at[1:]):
        return []
    return ["The field depends on time: these are zeros of the field at t = 0, not orbits that stay."]


def _check(system: System, periods: list[int], starts: int, tolerance: float) -> None:
    if not periods or min(periods) < 1:
        raise InvalidValue(f"fixed_points: period must be a whole number of at least 1, or several of them, got {periods}.")
    if isinstance(system, AbstractFlow) and periods != [1]:
        raise InvalidValue(
            f"fixed_points: a flow has equilibria (period=1), got period={periods}. For cycles of its sampled map "
            "pass Discretized(flow, dt)."
        )
    if starts < 1 or not tolerance > 0:
        raise InvalidValue(f"fixed_points: needs starts >= 1 and tolerance > 0, got {starts=}, {tolerance=}.")

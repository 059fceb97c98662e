"""Reading a map in one call: its orbit, regions, symbols, fixed points, cycles, exponents and dimensions.

    found = structure(model, z0, dt=0.01, data=x, system="Lorenz")
    found.code.n_symbols, found.cycles.fixed_points, found.spectrum.exponents, found.invariants

Every map has an orbit, exponents and dimensions. A piecewise-linear one has regions, a symbolic code, and all its cycles found by
regions; of any other map the cycles come from Newton's method, and regions and symbols are absent. What could not be computed
is None, and a note says why.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from dynsys.analysis.arrays import as_float
from dynsys.analysis.comparison import Invariant, compare
from dynsys.analysis.lyapunov import LyapunovSpectrum, lyapunov_spectrum
from dynsys.analysis.neighbours import default_theiler
from dynsys.analysis.piecewise.cycle import Cycles
from dynsys.analysis.piecewise.newton import fixed_points
from dynsys.analysis.piecewise.search import find_cycles
from dynsys.analysis.settled import with_settled
from dynsys.analysis.symbols import SymbolicCode, symbolic_code
from dynsys.dynamics import AbstractMap, AbstractPiecewiseLinear, rollout
from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys.status import Status
from dynsys.systems import SystemFlow, SystemMap, load_system

PERIODS = 8  # of the cycles of a piecewise-linear map
_LANES = 16  # orbits that exponents are averaged over
_ALL_EXPONENTS = 32  # states up to which all exponents are computed
_FEW = 5  # exponents of larger models
_LEAST = 200  # points of an orbit that say something of regions and exponents
_SOLVED = 1e5  # M^3 up to which Newton's method has its full budget, M = 46
_BOUND = 1e12  # an orbit beyond it has left


@dataclasses.dataclass(frozen=True, eq=False)
class Structure:
    """What was found. `positions`, `virtual_positions`, `observed` and `equilibria` are observations, in the user's units.

    model: the name of its class; digest: of its parameters; dim: M; dt: time a step or None. start (M,): the first state of the orbit;
    states (T, M): the orbit (None when read from a file); observed (T, N): how it is seen. code: the symbolic code, None for
    a smooth map or a dead orbit. cycles: see `Cycles`; positions: one (k, N) for each of them, virtual_positions for each
    virtual one. spectrum: Lyapunov exponents; invariants: the table beside data and system.
    equilibria (E, N): fixed points of the true system, where it is known and all its states are observed.
    about: settings by name.
    """

    model: str
    digest: str
    dim: int
    dt: float | None
    start: Float[np.ndarray, " M"]
    states: Float[np.ndarray, "T M"] | None
    observed: Float[np.ndarray, "T N"]
    code: SymbolicCode | None
    cycles: Cycles
    positions: tuple[np.ndarray, ...]
    virtual_positions: tuple[np.ndarray, ...]
    spectrum: LyapunovSpectrum | None
    invariants: tuple[Invariant, ...]
    equilibria: Float[np.ndarray, "E N"] | None = None
    notes: tuple[str, ...] = ()
    about: tuple[tuple[str, Any], ...] = ()

    def __repr__(self) -> str:
        regions = "smooth" if self.code is None else f"{self.code.n_symbols} regions visited"
        found = f"{len(self.cycles.fixed_points)} fixed points, {len(self.cycles) - len(self.cycles.fixed_points)} cycles"
        exponent = "" if self.spectrum is None else f", maximal exponent {self.spectrum.maximal:.3g}"
        return f"Structure({self.model}, {regions}, {found}{exponent})"

    @property
    def size(self) -> float:
        """The size of the attractor: the largest extent of the orbit over the observed columns; NaN without an orbit."""
        return float(np.ptp(self.observed, axis=0).max()) if len(self.observed) else float("nan")

    @property
    def distances(self) -> Float[np.ndarray, " E"]:
        """How far each of the true system's equilibria is from the nearest fixed point of the model, as a share of `size`."""
        mine = np.array([p[0] for p, cycle in zip(self.positions, self.cycles, strict=True) if cycle.period == 1])
        if self.equilibria is None or not len(mine):
            return np.zeros(0) if self.equilibria is None else np.full(len(self.equilibria), np.inf)
        return np.linalg.norm(self.equilibria[:, None] - mine[None], axis=-1).min(axis=1) / self.size


def structure(
    model: AbstractMap,
    states: Real[Any, "..."],
    *,
    dt: float | None = None,
    data: Real[Any, "S N"] | None = None,
    system: str | Path | None = None,
    columns: tuple[str, ...] = (),
    outward: Callable[[np.ndarray], np.ndarray] | None = None,
    max_period: int | None = None,
    starts: int | None = None,
    points: int = 20_000,
    transient: int = 1000,
    key: int = 0,
) -> Structure:
    """Everything that can be read off a map, (M,) or (T, M) -> Structure, in float64 and without inputs.

    states: an orbit (T, M) on its attractor, or a state (M,), from which `transient` steps are left out and `points` kept. dt: time a
    step. data (S, N): observations to compare with, as the model sees them. system: the true one, by name or .toml file, with its
    computed facts; columns: which of its states were observed, in order (default: all). outward: (T, N) -> (T, N'), from the model's
    observations into the user's units. max_period: of the cycles (default: 8; of smooth maps 1, as each period is a search of its
    own). starts: of the search (default: 10,000; of Newton's method
    1,000, and as few as 8 for hundreds of states). key: of the random starts.

    An orbit that leaves all bounds, a search that finds nothing and a series that settles at a point are notes, never exceptions.
    Raises InvalidValue for states or settings of the wrong shape or size, UnknownName for a system that is not there.
    """
    shape = np.shape(states)
    if len(shape) not in (1, 2) or shape[-1] != model.dim or 0 in shape:
        raise InvalidValue(
            f"structure: states must have shape ({model.dim},) or (T, {model.dim}), got {shape}: latent states, not observed."
        )
    if points < _LEAST or transient < 0 or (max_period is not None and max_period < 1) or (starts is not None and starts < 1):
        raise InvalidValue(
            f"structure: needs points >= {_LEAST}, transient >= 0, max_period >= 1 and starts >= 1, "
            f"got {points=}, {transient=}, {max_period=}, {starts=}."
        )
    true = None if system is None else load_system(system)
    record = None if true is None else true.record
    outward = np.asarray if outward is None else outward
    notes: list[str] = []
    if model.n_inputs:
        notes.append(f"The model has {model.n_inputs} inputs; it is read as it is without them.")
    with x64():
        wide = as_float(model)
        start, orbit = _orbit(wide, np.asarray(states, float), points, transient)
    alive = len(orbit) >= min(_LEAST, shape[0] if len(shape) == 2 else _LEAST)
    if not alive:
        notes.append(f"The orbit leaves all bounds after {len(orbit)} steps: no regions, symbols and exponents. {Status.DIVERGED.remedy}")
    code = _symbols(wide, orbit, dt) if alive else None
    longest = max_period or (PERIODS if isinstance(model, AbstractPiecewiseLinear) else 1)
    cycles = _cycles(wide, orbit if alive else None, longest, starts, key)
    cycles = with_settled(cycles, wide, orbit) if alive else cycles
    spectrum = _spectrum(wide, orbit, dt) if alive else None
    if spectrum is not None and not spectrum.status.ok:
        notes.append("The exponents are not known: an orbit beside this one left all bounds.")
    if spectrum is not None and np.isneginf(spectrum.exponents).any():
        notes.append("Some exponents are -inf: the Jacobian is singular, so displacements in some directions vanish in a few steps.")
    seen, *places = _observed(wide, [orbit, *(cycle.points for cycle in (*cycles, *cycles.virtual))])
    moves = alive and float(np.ptp(seen[len(seen) // 2 :], axis=0).max()) > 1e-6 * max(1.0, float(np.abs(seen).max()))
    if moves and (turn := default_theiler(seen)) > longest:
        notes.append(
            f"A turn of the orbit takes about {turn} steps, more than the longest period that was searched (max_period = {longest}): "
            f"unstable cycles that go round the attractor are not among those listed. find_cycles(model, periods=[{turn}, ...]) looks for "
            "them, at a cost that grows with the period."
        )
    rows, words = compare(seen if alive else None, spectrum, data=data, record=record, dt=dt)
    known = None if true is None else _equilibria(true, columns)
    return Structure(
        model=type(model).__name__,
        digest=digest_of(model),
        dim=model.dim,
        dt=dt,
        start=start,
        states=orbit,
        observed=outward(seen),
        code=code,
        cycles=cycles,
        positions=tuple(outward(place) for place in places[: len(cycles)]),
        virtual_positions=tuple(outward(place) for place in places[len(cycles) :]),
        spectrum=spectrum,
        invariants=rows,
        equilibria=known,
        notes=(*notes, *words, *cycles.notes),
        about=(("points", len(orbit)), ("system", None if record is None else record.name)),
    )


def digest_of(model: AbstractMap) -> str:
    """A digest of a model's class, sizes and parameters, by which a file knows whose structure it holds."""
    digest = hashlib.sha256(type(model).__name__.encode())
    for field in dataclasses.fields(model):
        value = getattr(model, field.name)
        if isinstance(value, bool | int | float | str):
            digest.update(f"{field.name}={value!r};".encode())
    for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array)):
        digest.update(np.ascontiguousarray(np.asarray(leaf)).tobytes())
    return digest.hexdigest()


def _orbit(model: AbstractMap, states: np.ndarray, points: int, transient: int) -> tuple[np.ndarray, np.ndarray]:
    """The first state and the orbit up to where it leaves all bounds."""
    if states.ndim == 1:
        run = np.asarray(_run(model, jnp.asarray(states), transient + points))
        left = ~(np.abs(run).max(axis=1) < _BOUND)
        run = run[: int(np.argmax(left))] if left.any() else run
        states = run[transient:]
        if not len(states):
            return (run[0] if len(run) else np.zeros(model.dim)), np.zeros((0, model.dim))
    left = ~(np.abs(states).max(axis=1) < _BOUND)
    states = states[: int(np.argmax(left))] if left.any() else states
    return (states[0] if len(states) else np.zeros(model.dim)), states


@eqx.filter_jit
def _run(model: AbstractMap, z: Float[Array, " M"], steps: int) -> Float[Array, "T M"]:
    return rollout(model, z, steps)


def _observed(model: AbstractMap, parts: list[np.ndarray]) -> list[np.ndarray]:
    """How the states of every part (k, M) are seen, (k, N)."""
    with x64():
        seen = np.asarray(_see(model, jnp.asarray(np.concatenate(parts))), float)
    return np.split(seen, np.cumsum([len(part) for part in parts])[:-1])


@eqx.filter_jit
def _see(model: AbstractMap, states: Float[Array, "T M"]) -> Float[Array, "T N"]:
    return jax.vmap(model.observe)(states)


def _symbols(model: AbstractMap, orbit: np.ndarray, dt: float | None) -> SymbolicCode | None:
    return symbolic_code(model, orbit, dt=dt) if isinstance(model, AbstractPiecewiseLinear) else None


def _cycles(model: AbstractMap, orbit: np.ndarray | None, longest: int, starts: int | None, key: int) -> Cycles:
    """By regions for a piecewise-linear map, by Newton's method for others."""
    if isinstance(model, AbstractPiecewiseLinear):
        return find_cycles(model, longest, starts=starts or 10_000, states=orbit, key=key)
    # every start solves a system of M equations at every iteration: a large model gets few of both
    room = float(np.clip(_SOLVED / model.dim**3, 0.0, 1.0))
    many = starts or max(8, int(1000 * room))
    iterations, rounds = (60, 10) if room == 1 else (25, 1)
    periods = list(range(1, longest + 1))
    return fixed_points(model, period=periods, starts=many, iterations=iterations, rounds=rounds, states=orbit, key=key)


def _spectrum(model: AbstractMap, orbit: np.ndarray, dt: float | None) -> LyapunovSpectrum:
    """Exponents over 16 stretches that begin on the orbit, each a few thousand steps long; of a large model 4 shorter ones."""
    few = model.dim > _ALL_EXPONENTS
    rows = np.linspace(0, len(orbit) - 1, 4 if few else _LANES).astype(int)
    steps = 500 if few else 4000
    return lyapunov_spectrum(
        model, orbit[rows], steps=steps, transient=200, dt=dt, n_exponents=min(_FEW, model.dim) if few else None, segments=2
    )


def _equilibria(true: Any, columns: tuple[str, ...]) -> np.ndarray | None:
    """The fixed points of the true system as the observed columns see them, (E, N); None if a column is no state of it."""
    columns = columns or true.names
    if not isinstance(true, SystemFlow | SystemMap) or true.record.kind == "field" or not set(columns) <= set(true.names):
        return None
    order = [true.names.index(name) for name in columns]
    return np.array([cycle.points[0][order] for cycle in fixed_points(true)]).reshape(-1, len(order))

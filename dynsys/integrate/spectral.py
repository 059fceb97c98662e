"""Fields on a periodic grid: exponential time differencing of order four (ETDRK4), dealiased.

    dz/dt = L z + N(t, z, u)

L is the stiff linear part, the file's [linear]: in Fourier space a number, or a small matrix, for each wave, so that it is
solved exactly. N is the file's [equations], computed on the grid. With h the step, E = exp(h L), phi_1(x) = (e^x - 1) / x,
phi_k(x) = (phi_{k-1}(x) - 1 / (k-1)!) / x:

    a  = E^(1/2) z + h/2 phi_1(hL/2) N(t, z)                 b = E^(1/2) z + h/2 phi_1(hL/2) N(t + h/2, a)
    c  = E^(1/2) a + h/2 phi_1(hL/2) (2 N(t + h/2, b) - N(t, z))
    z' = E z + h [(phi_1 - 3 phi_2 + 4 phi_3) N(t, z) + (2 phi_2 - 4 phi_3) (N(.., a) + N(.., b)) + (4 phi_3 - phi_2) N(t + h, c)]

Sources: Cox & Matthews, J. Comput. Phys. 176 (2002) 430, eqs. 26-29; phi by contour integrals, Kassam & Trefethen, SIAM J.
Sci. Comput. 26 (2005) 1214; where L couples states, phi by one matrix exponential, Al-Mohy & Higham, SIAM J. Sci. Comput.
33 (2011) 488, theorem 2.1. Dealiasing: N sees and feeds only waves below 2/3 of the highest (Orszag 1971).
"""

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from dynsys.dynamics import AbstractMap, AnyInput, AnyObservation, AnyState
from dynsys.errors import InvalidValue
from dynsys.integrate.solve import Solution, _check
from dynsys.precision import x64
from dynsys.systems import SystemFlow
from dynsys_datasets.catalogue import SystemRecord

_CONTOUR = 32
_AGREES = 1e-8


def solve_field(
    flow: SystemFlow,
    z0: Any,
    times: Any,
    *,
    inputs: Any = None,
    dt: float | None = None,
    dealias: bool | float = True,
    bound: float = 1e12,
    batched_flow: bool = False,
) -> Solution:
    """Integrate a system of kind 'field' by ETDRK4, in float64, and return the states at `times`, as `solve` does.

    z0 (M,) or (B, M): the state at times[0], the values on the grid, one state of the file after the other. times (T,):
    equally spaced, in the system's unit. inputs (T, K), (T-1, K) or with a leading B: row k is held from times[k] to
    times[k+1]. dt: the longest step; each interval of `times` is cut into equal ones; default: the file's `step`, else the
    interval. The error falls as dt**4. dealias: True for the 2/3 rule, exact for products of two; a fraction in (0, 1], as
    1/2 for products of three; False to keep all waves. bound: a lane whose largest |z| passes it has DIVERGED and is NaN
    from there on. batched_flow: every array of the flow carries a leading axis B (see `SystemFlow.sweep`).

    Raises InvalidValue for another kind of system, shapes and times that do not fit, and a [linear] part that is not linear
    with constant coefficients. The solution can be differentiated by flow, z0 and inputs.
    """
    kind, keep = _checked(flow), _fraction(dealias)
    if not bound > 0:
        raise InvalidValue(f"solve_field: bound must be positive, got bound={bound}.")
    times = np.asarray(times, dtype=np.float64)
    with x64():
        z0 = jnp.asarray(z0, dtype=jnp.float64)
        inputs = None if inputs is None else jnp.asarray(inputs, dtype=jnp.float64)
        batch = _check(flow, z0, jnp.asarray(times), inputs, batched_flow)
        intervals = np.diff(times)
        if not np.allclose(intervals, intervals.mean(), rtol=1e-6, atol=0):
            raise InvalidValue(
                f"solve_field: times must be equally spaced, but intervals run from {intervals.min():g} to {intervals.max():g}; "
                "the coefficients belong to one step. Call it once for each spacing, from the last state."
            )
        substeps = _substeps(flow.record, float(intervals.mean()), dt)
        axes = (0 if batched_flow else None, 0 if z0.ndim == 2 else None, 0 if inputs is not None and inputs.ndim == 3 else None)
        return _run(kind, keep, substeps, flow, z0, jnp.asarray(times), inputs, jnp.asarray(bound), axes if batch else None)


class FieldMap(AbstractMap):
    """A field as a map: one sampling interval dt of ETDRK4 in `substeps` steps; all states are observed.

    For everything that takes a map: `lyapunov_spectrum`, `rollout`, control. The field must not depend on t. `prepared()`
    computes the coefficients once; without it every step computes them anew.
    """

    flow: SystemFlow
    dt: float = eqx.field(static=True)
    substeps: int = eqx.field(static=True)
    keep: float | None = eqx.field(static=True)
    coefficients: "Coefficients | None" = None

    @classmethod
    def init(cls, flow: SystemFlow, dt: float | None = None, *, step: float | None = None, dealias: bool | float = True) -> "FieldMap":
        """dt: the sampling interval (default: the file's); step: the longest step of the method (default: the file's)."""
        _checked(flow)
        dt = flow.dt if dt is None else float(dt)
        if not dt > 0:
            raise InvalidValue(f"FieldMap: dt must be positive, got dt={dt}: the sampling interval.")
        substeps, keep = _substeps(flow.record, dt, step), _fraction(dealias)
        return cls(flow=flow, dt=dt, substeps=substeps, keep=keep)  # pyright: ignore[reportCallIssue]

    @property
    def dim(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """M, the number of values on the grid, all states together."""
        return self.flow.dim

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """N = M: every value is observed."""
        return self.flow.dim

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """K, the number of inputs of the field."""
        return self.flow.n_inputs

    def prepared(self) -> "FieldMap":
        """The same map with its coefficients computed."""
        with x64():
            made = coefficients(_checked(self.flow), self.keep, self.flow, self.dt / self.substeps)
        return eqx.tree_at(lambda tree: tree.coefficients, self, made, is_leaf=lambda leaf: leaf is None)

    def step(self, z: AnyState, u: AnyInput = None) -> AnyState:
        """The values one sampling interval later, (M,), (K,) -> (M,)."""
        made = self.coefficients or self.prepared().coefficients
        shape = _shape(self.flow.record)
        v = _interval(self.flow, made, 0.0, _waves(jnp.asarray(z), shape), u, self.dt / self.substeps, self.substeps)
        return _values(v, shape)

    def observe(self, z: AnyState) -> AnyObservation:
        """The state itself."""
        return z

    def lift(self, x: AnyObservation) -> AnyState:
        """The observation itself."""
        return x


class Coefficients(eqx.Module):
    """The numbers of one step for every wave, (C, *K), or (C, C, *K) where the linear part couples the C states; mask (*K)."""

    whole: Array  # exp(h L)
    half: Array  # exp(h L / 2)
    q: Array  # h/2 phi_1(h L / 2)
    first: Array  # h (phi_1 - 3 phi_2 + 4 phi_3)
    middle: Array  # h (2 phi_2 - 4 phi_3)
    last: Array  # h (4 phi_3 - phi_2)
    mask: Array


def coefficients(kind: str, keep: float | None, flow: SystemFlow, h: Any) -> Coefficients:
    """The coefficients of a step of length h; kind: 'none', 'diagonal' or 'blocks', the form of the linear part."""
    shape = _shape(flow.record)
    highest = shape[-1] // 2 + 1
    if kind == "none":
        symbol = jnp.zeros((*shape[:-1], highest), dtype=jnp.complex128)
    else:
        symbol = flow.record.linear_program.symbol(jnp, flow.parameters)[..., :highest]
        symbol = jnp.moveaxis(jnp.diagonal(symbol), -1, 0) if kind == "diagonal" else symbol
    x = h * symbol
    phi = _phi_blocks if kind == "blocks" else _phi_contour
    half, phi1, _, _ = phi(x / 2)
    whole, f1, f2, f3 = phi(x)
    last = h * (4 * f3 - f2)
    return Coefficients(whole, half, h / 2 * phi1, h * (f1 - 3 * f2 + 4 * f3), h * (2 * f2 - 4 * f3), last, _mask(shape[1:], keep))


def _phi_contour(x: Complex[Array, "*K"]) -> tuple[Array, ...]:
    """exp, phi_1, phi_2, phi_3 at x: means over a circle about x, which stays at least 1/2 away from 0, where they cancel."""
    circle = jnp.exp(2j * np.pi * (jnp.arange(_CONTOUR) + 0.5) / _CONTOUR)
    radius = jnp.where(jnp.abs(x) > 1, 0.5, 2.0)
    on = x[..., None] + radius[..., None] * circle.reshape((1,) * x.ndim + (-1,))
    phi1 = (jnp.exp(on) - 1) / on
    phi2 = (phi1 - 1) / on
    phi3 = (phi2 - 0.5) / on
    return jnp.exp(x), phi1.mean(-1), phi2.mean(-1), phi3.mean(-1)


def _phi_blocks(x: Complex[Array, "C C *K"]) -> tuple[Array, ...]:
    """The same of matrices: the first block row of exp([[x, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]])."""
    count = x.shape[0]
    x = jnp.moveaxis(x, (0, 1), (-2, -1))
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, 3 * count)] * 2)
    shift = jnp.eye(4 * count, k=count, dtype=x.dtype).reshape((1,) * (x.ndim - 2) + (4 * count, 4 * count))
    row = _expm(padded + shift)[..., :count, :]
    return tuple(jnp.moveaxis(row[..., k * count : (k + 1) * count], (-2, -1), (0, 1)) for k in range(4))


def _expm(x: Complex[Array, "*K n n"]) -> Complex[Array, "*K n n"]:
    """exp of matrices by scaling to a norm below 1/2, a Taylor polynomial of degree 16 and up to 40 squarings.

    jax.scipy.linalg.expm (0.10) scales to a norm between 5.4 and 10.7, where its Pade approximant has lost eight digits.
    """
    norm = jnp.max(jnp.sum(jnp.abs(x), -1), -1)
    squarings = jnp.ceil(jnp.log2(jnp.maximum(2 * norm, 1.0)))[..., None, None]
    x = x / 2**squarings
    unit = jnp.broadcast_to(jnp.eye(x.shape[-1], dtype=x.dtype), x.shape)
    found = unit
    for k in range(16, 0, -1):
        found = unit + x @ found / k

    def square(found: Array, k: Array) -> tuple[Array, None]:
        return jnp.where(k < squarings, found @ found, found), None

    return jax.lax.scan(square, found, jnp.arange(40))[0]


def _mask(grid: tuple[int, ...], keep: float | None) -> Array:
    """1 for the waves that N sees and feeds: below `keep` times the highest along every axis; all of them for None."""
    kept = np.ones((*grid[:-1], grid[-1] // 2 + 1))
    for axis, points in enumerate(grid):
        wave = np.abs(np.fft.fftfreq(points, 1 / points))[: kept.shape[axis]]
        below = np.ones_like(wave) if keep is None else (wave < keep * points / 2 - 1e-9).astype(float)
        kept = kept * below.reshape([-1 if other == axis else 1 for other in range(len(grid))])
    return jnp.asarray(kept)


@eqx.filter_jit
def _run(kind: str, keep: float | None, substeps: int, flow: Any, z0: Any, times: Any, inputs: Any, bound: Any, axes: Any) -> Solution:
    run = functools.partial(_trajectory, kind, keep, substeps)
    if axes is None:
        found = run(flow, z0, times, inputs, bound)
    else:
        flow_axis = eqx.if_array(0) if axes[0] == 0 else None
        found = eqx.filter_vmap(run, in_axes=(flow_axis, axes[1], None, axes[2], None))(flow, z0, times, inputs, bound)
    return Solution(times, *found)


def _trajectory(kind: str, keep: float | None, substeps: int, flow: SystemFlow, z0: Array, times: Array, inputs: Any, bound: Any) -> Any:
    """One lane: states (T, M), code, steps, rejected steps."""
    h = (times[-1] - times[0]) / ((times.shape[0] - 1) * substeps)
    made, shape = coefficients(kind, keep, flow, h), _shape(flow.record)
    rows = None if inputs is None else inputs[: times.shape[0] - 1]

    def interval(carry: tuple[Array, Array], at: tuple[Array, Array | None]) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        v, alive = carry
        v = _interval(flow, made, at[0], v, at[1], h, substeps)
        z = _values(v, shape)
        alive = alive & (jnp.max(jnp.abs(z)) < bound)  # NaN is not below the bound
        return (v, alive), (jnp.where(alive, z, jnp.nan), alive)

    begin = jnp.max(jnp.abs(z0)) < bound
    (_, alive), (states, lived) = jax.lax.scan(interval, (_waves(z0, shape), begin), (times[:-1], rows))
    return jnp.concatenate([z0[None], states]), jnp.where(alive, 0, 2), jnp.sum(lived) * substeps, jnp.zeros((), dtype=int)


def _interval(flow: SystemFlow, made: Any, t: Any, v: Array, u: Any, h: Any, substeps: int) -> Array:
    """`substeps` steps of length h from time t, with the input u held; v (C, *K)."""

    def advance(v: Array, k: Array) -> tuple[Array, None]:
        return _hermitian(_step(flow, made, t + k * h, v, u, h), _shape(flow.record)), None

    return jax.lax.scan(advance, v, jnp.arange(substeps))[0]


def _step(flow: SystemFlow, made: Coefficients, t: Any, v: Array, u: Any, h: Any) -> Array:
    shape, mask = _shape(flow.record), made.mask[None]

    def right(time: Any, waves: Array) -> Array:
        return mask * _waves(flow.record.nonlinear(time, _values(mask * waves, shape), u, flow.parameters), shape)

    n = right(t, v)
    rest = _times(made.half, v)
    a = rest + _times(made.q, n)
    na = right(t + h / 2, a)
    nb = right(t + h / 2, rest + _times(made.q, na))
    nc = right(t + h, _times(made.half, a) + _times(made.q, 2 * nb - n))
    return _times(made.whole, v) + _times(made.first, n) + _times(made.middle, na + nb) + _times(made.last, nc)


def _hermitian(v: Complex[Array, "C *K"], shape: tuple[int, ...]) -> Complex[Array, "C *K"]:
    """The waves of a real field: the half spectrum holds two columns twice, and the inverse transform reads half of what they say.

    Without this the other half, which N never sees, grows from rounding errors wherever the linear part is unstable.
    """
    axes = tuple(range(1, v.ndim - 1))
    for column in (0, shape[-1] // 2) if shape[-1] % 2 == 0 else (0,):
        held = v[..., column]
        mirrored = jnp.roll(jnp.flip(held, axes), (1,) * len(axes), axes) if axes else held
        v = v.at[..., column].set((held + jnp.conj(mirrored)) / 2)
    return v


def _times(coefficient: Array, v: Array) -> Array:
    """A number, or a matrix over the states, times v (C, *K) for every wave."""
    return coefficient * v if coefficient.ndim == v.ndim else jnp.sum(coefficient * v[None], axis=1)


def _waves(z: Float[Array, " M"], shape: tuple[int, ...]) -> Complex[Array, "C *K"]:
    return jnp.fft.rfftn(z.reshape(shape), axes=tuple(range(1, len(shape))))


def _values(v: Complex[Array, "C *K"], shape: tuple[int, ...]) -> Float[Array, " M"]:
    return jnp.fft.irfftn(v, s=shape[1:], axes=tuple(range(1, len(shape)))).ravel()


def _shape(record: SystemRecord) -> tuple[int, ...]:
    """(C, *grid): the number of states and the points of every axis."""
    indices = record.file.indices()
    return (len(record.file.state), *(indices[axis.name] for axis in record.file.grid))


def _substeps(record: SystemRecord, interval: float, dt: float | None) -> int:
    step = (record.file.time.step or interval) if dt is None else dt
    if not (math.isfinite(step) and step > 0):
        raise InvalidValue(f"{record.name}: the longest step must be positive, got {step}, in {record.file.time.unit}.")
    return max(1, math.ceil(interval / step - 1e-6))


def _fraction(dealias: bool | float) -> float | None:
    if isinstance(dealias, bool):
        return 2 / 3 if dealias else None
    if not 0 < dealias <= 1:
        raise InvalidValue(
            f"dealias must be True (the 2/3 rule), False, or a fraction in (0, 1] of the waves, got dealias={dealias}; "
            "0.5 suits products of three."
        )
    return float(dealias)


def _checked(flow: SystemFlow) -> str:
    """The form of the linear part: 'none', 'diagonal' or 'blocks'; InvalidValue if the system is no field that this method solves."""
    record = getattr(flow, "record", None)
    if not isinstance(record, SystemRecord) or record.kind != "field":
        what = f"{record.name} of kind {record.kind!r}" if isinstance(record, SystemRecord) else type(flow).__name__
        raise InvalidValue(
            f"ETDRK4 needs a system of kind 'field' with a periodic [grid], got {what}; use dynsys.integrate.solve for a flow."
        )
    return _linear_form(record)


@functools.cache
def _linear_form(record: SystemRecord) -> str:
    """Compare [linear] on random values with its symbol: equal only if it is linear, homogeneous and the same at every place."""
    axes = tuple(axis.name for axis in record.file.grid)
    for family in record.file.state:
        if family.indices not in ((), axes):
            raise InvalidValue(
                f"{record.name}: the state {family.name}[{','.join(family.indices)}] does not lie on the grid {axes}; "
                "ETDRK4 needs every state to be declared by its name alone. Use dynsys.integrate.solve with 'kvaerno5'."
            )
    if not record.file.linear:
        return "none"
    rng = np.random.default_rng(0)
    # random constants: a coupling must count even where the file's own value of it is 0
    parameters = {name: np.asarray(v * rng.uniform(0.5, 1.5) + rng.uniform(0, 0.01)) for name, v in record.parameters.items()}
    shape = _shape(record)
    z, u = rng.normal(size=record.dim), rng.normal(size=record.n_inputs)
    axes = tuple(range(1, len(shape)))
    with np.errstate(all="ignore"):
        symbol = record.linear_program.symbol(np, parameters)
        direct = record.linear(rng.normal(), z, u, parameters)
    waves = np.sum(symbol * np.fft.fftn(z.reshape(shape), axes=axes)[None], axis=1)
    expected = np.real(np.fft.ifftn(waves, axes=axes)).ravel()
    if not np.abs(direct - expected).max() <= _AGREES * np.abs(direct).max():
        raise InvalidValue(
            f"{record.name}: the table [linear] holds something that is not linear with constant coefficients (a product of states, a "
            "constant, an input, the time, or a factor that depends on the place). Move that term to [equations]."
        )
    apart = ~np.eye(shape[0], dtype=bool)
    return "blocks" if np.any(symbol[apart]) else "diagonal"

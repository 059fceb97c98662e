"""Stochastic differential equations at a fixed step, Ito or Stratonovich.

    dz_i = f_i(t, z) dt + g_i(t, z) dW_i,     one Wiener process for each state

With h the step, J = W(t+h) - W(t) ~ N(0, h) and K = int_t^t+h (W(s) - W(t)) ds:

    euler-maruyama   z' = z + f h + g J                                          Ito, strong order 1/2, weak 1
    milstein         ... + g g_z (J**2 - h)/2,   g_z = dg_i/dz_i                 Ito, 1, if g_i depends on z_i alone
    heun             y = z + f h + g J;  z' = z + (f + f(y)) h/2 + (g + g(y)) J/2    Stratonovich, 1, under the same condition
    sra1             y = z + 3/4 f h + 3/2 g K/h;  z' = z + (f + 2 f(y)) h/3 + g J + (g(t+h) - g)(J - K/h)   g free of z, 3/2

Stratonovich's equation with drift f is Ito's with drift f + g g_z/2: a method of the other calculus gets the drift changed so.
Sources: Kloeden & Platen 1992, sections 10.2-10.3 and 4.9; Rumelin 1982 (Heun); Rossler, SIAM J. Numer. Anal. 48 (2010) 922,
table 6.2 (SRA1).
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from dynsys.dynamics import AbstractFlow
from dynsys.errors import InvalidValue, UnknownName
from dynsys.integrate.solve import Solution, _check
from dynsys.precision import x64
from dynsys.systems import SystemStochastic
from dynsys_datasets.catalogue import SystemRecord

_CALCULUS = {"euler-maruyama": "ito", "milstein": "ito", "heun": "stratonovich", "sra1": None}
METHODS = tuple(_CALCULUS)


class BrownianPath(eqx.Module):
    """The Wiener processes of one or many lanes on a grid of steps: increments J and time integrals K, (T-1, S, M) or (B, T-1, S, M).

    T - 1 intervals between the asked times, S steps in each, M states; K is the integral of W - W(t) over the step.
    """

    increments: Float[Array, "*B I S M"]
    integrals: Float[Array, "*B I S M"]

    def coarser(self, times: Any, factor: int = 2) -> "BrownianPath":
        """The same path seen at steps `factor` times longer; `times` are those it was made for."""
        steps = self.increments.shape[-2]
        if factor < 1 or steps % factor:
            raise InvalidValue(f"BrownianPath.coarser: {steps} steps an interval can't be joined by {factor}; wanted a divisor.")
        with x64():
            length = (jnp.diff(jnp.asarray(times, dtype=jnp.float64)) / steps)[:, None, None, None]
            shape = (*self.increments.shape[:-2], steps // factor, factor, self.increments.shape[-1])
            j, k = self.increments.reshape(shape), self.integrals.reshape(shape)
            before = jnp.cumsum(j, axis=-2) - j
            length = length.reshape((1,) * (j.ndim - 4) + length.shape)
            return BrownianPath(j.sum(-2), (k + length * before).sum(-2))


def brownian_path(key: Array | int, times: Any, dim: int, *, substeps: int = 1, lanes: int | None = None) -> BrownianPath:
    """The path that `solve_stochastic` takes for this key, times and substeps, for M = dim states; lanes: B, or None without a batch."""
    with x64():
        times = jnp.asarray(times, dtype=jnp.float64)
        key = _key(key)
        length = jnp.diff(times) / substeps

        def lane(key: Array) -> tuple[Array, Array]:
            keys = jax.vmap(functools.partial(jr.fold_in, key))(jnp.arange(len(length)))
            return jax.vmap(lambda key, h: _numbers(key, h, substeps, dim))(keys, length)

        return BrownianPath(*(lane(key) if lanes is None else jax.vmap(lane)(jr.split(key, lanes))))


def solve_stochastic(
    system: AbstractFlow,
    z0: Any,
    times: Any,
    *,
    key: Array | int | None = None,
    path: BrownianPath | None = None,
    inputs: Any = None,
    method: str | None = None,
    substeps: int = 1,
    bound: float = 1e12,
    batched_system: bool = False,
    lanes: int | None = None,
) -> Solution:
    """One or many paths of a stochastic system, in float64; the states at `times`, (T, M) or (B, T, M).

    z0 (M,) or (B, M): the state at times[0]. times (T,): increasing. key: a JAX key or a whole number; the same key, times
    and substeps give the same path, and every lane has its own. path: given Wiener processes instead, with their own
    steps, see `brownian_path`. inputs (T, K), (T-1, K) or with a leading B: row k is held from times[k] to times[k+1].
    method: 'euler-maruyama', 'milstein', 'heun' or 'sra1', each for either calculus; default: 'sra1' for noise whose
    amplitude does not depend on the state, else 'heun' for Stratonovich, 'milstein' for Ito, or 'euler-maruyama' where an
    amplitude depends on other states. substeps: equal steps between two times. bound: a lane whose largest |z| passes it
    has DIVERGED and is NaN from there on. batched_system: every parameter carries a leading axis B. lanes: B paths from
    one start of one system, where nothing else has a batch axis.

    Raises InvalidValue for shapes and times that do not fit, and for a method whose condition the amplitudes do not meet.
    The solution can be differentiated by the system, z0 and inputs, along a fixed path.
    """
    if not isinstance(system, SystemStochastic):
        raise InvalidValue(f"solve_stochastic: wanted a system of kind 'sde', got {type(system).__name__}; use solve for a flow.")
    if (key is None) == (path is None):
        raise InvalidValue("solve_stochastic: pass either key=, for a new path, or path=, the Wiener processes themselves.")
    if not bound > 0 or isinstance(substeps, bool) or substeps < 1:
        raise InvalidValue(f"solve_stochastic: needs bound > 0 and substeps >= 1, got bound={bound}, substeps={substeps}.")
    name = _method(system, method)
    with x64():
        times, z0 = jnp.asarray(times, dtype=jnp.float64), jnp.asarray(z0, dtype=jnp.float64)
        inputs = None if inputs is None else jnp.asarray(inputs, dtype=jnp.float64)
        batch = _check(system, z0, times, inputs, batched_system)
        if path is not None:
            count, substeps = (path.increments.shape[0] if path.increments.ndim == 4 else None), path.increments.shape[-2]
            wanted = (len(times) - 1, substeps, z0.shape[-1])
            if path.increments.shape[-3:] != wanted:
                raise InvalidValue(f"solve_stochastic: the path has shape {path.increments.shape}; wanted (T-1, S, M) = {wanted}.")
            noise: Any = path
        else:
            count, noise = lanes, _key(key)
        sizes = [z0.shape[0] if z0.ndim == 2 else None, inputs.shape[0] if inputs is not None and inputs.ndim == 3 else None, count]
        sizes.append(len(jax.tree.leaves(system.parameters)[0]) if batched_system else None)
        given = {size for size in sizes if size is not None}
        if len(given) > 1:
            raise InvalidValue(f"solve_stochastic: z0, inputs, path or lanes, and system have batch axes {sizes}; wanted one length B.")
        if given and path is None:
            noise = jr.split(noise, given.pop())
            batch = True
        axes = (
            eqx.if_array(0) if batched_system else None,
            0 if z0.ndim == 2 else None,
            0 if inputs is not None and inputs.ndim == 3 else None,
            0 if path is None or count is not None else None,
        )
        return _run(name, substeps, system, z0, times, inputs, noise, jnp.asarray(bound), axes if batch or count is not None else None)


def _key(key: Any) -> Array:
    return jr.key(int(key)) if isinstance(key, int | np.integer) else key


def _numbers(key: Array, h: Any, steps: int, dim: int) -> tuple[Array, Array]:
    """J and K of `steps` steps of length h, (S, M) each: K has variance h**3/3 and covariance h**2/2 with J."""
    a, b = jr.normal(key, (2, steps, dim), dtype=jnp.float64)
    j = jnp.sqrt(h) * a
    return j, h / 2 * (j + jnp.sqrt(h / 3) * b)


@eqx.filter_jit
def _run(name: str, substeps: int, system: Any, z0: Any, times: Any, inputs: Any, noise: Any, bound: Any, axes: Any) -> Solution:
    run = functools.partial(_lane, name, substeps)
    if axes is None:
        found = run(system, z0, inputs, noise, times, bound)
    else:
        found = eqx.filter_vmap(run, in_axes=(*axes, None, None))(system, z0, inputs, noise, times, bound)
    return Solution(times, *found)


def _lane(name: str, substeps: int, system: SystemStochastic, z0: Array, inputs: Any, noise: Any, times: Array, bound: Any) -> Any:
    """One path: states (T, M), code, steps, rejected steps."""
    intervals = times.shape[0] - 1
    advance = _STEPS[name]
    shift = _drift_change(system.calculus, _CALCULUS[name])
    dim = z0.shape[0]

    def interval(carry: tuple[Array, Array], at: Any) -> Any:
        z, alive = carry
        k, u, drawn = at
        h = (times[k + 1] - times[k]) / substeps
        j, integral = drawn if isinstance(noise, BrownianPath) else _numbers(jr.fold_in(noise, k), h, substeps, dim)

        def drift(t: Any, z: Array) -> Array:
            found = system.field(t, z, u)
            return found if shift == 0 else found + shift * _own_slope(system, t, z, u)[1]

        def one(z: Array, now: Any) -> tuple[Array, None]:
            i, j, integral = now
            return advance(system, drift, times[k] + i * h, z, u, h, j, integral), None

        z = jax.lax.scan(one, z, (jnp.arange(substeps), j, integral))[0]
        alive = alive & (jnp.max(jnp.abs(z)) < bound)  # NaN is not below the bound
        return (z, alive), (jnp.where(alive, z, jnp.nan), alive)

    rows = None if inputs is None else inputs[:intervals]
    drawn = (noise.increments, noise.integrals) if isinstance(noise, BrownianPath) else None
    begin = jnp.max(jnp.abs(z0)) < bound
    (_, alive), (states, lived) = jax.lax.scan(interval, (z0, begin), (jnp.arange(intervals), rows, drawn))
    return jnp.concatenate([z0[None], states]), jnp.where(alive, 0, 2), jnp.sum(lived) * substeps, jnp.zeros((), dtype=int)


def _drift_change(calculus: str, wanted: str | None) -> float:
    """How much of g g_z turns the drift of one calculus into that of the other."""
    if wanted is None or calculus == wanted:
        return 0.0
    return 0.5 if wanted == "ito" else -0.5


def _own_slope(system: SystemStochastic, t: Any, z: Array, u: Any) -> tuple[Array, Array]:
    """g and g_i dg_i/dz_i, (M,) each."""
    if _dependence(system.record) == "others":
        slopes = jnp.diagonal(jax.jacfwd(lambda z: system.diffusion(t, z, u))(z))
        g = system.diffusion(t, z, u)
        return g, g * slopes
    # the Jacobian is diagonal, so that its product with g has what is wanted
    g = system.diffusion(t, z, u)
    return g, jax.jvp(lambda z: system.diffusion(t, z, u), (z,), (g,))[1]


def _euler(system: Any, drift: Callable[..., Array], t: Any, z: Array, u: Any, h: Any, j: Array, k: Array) -> Array:
    return z + h * drift(t, z) + system.diffusion(t, z, u) * j


def _milstein(system: Any, drift: Callable[..., Array], t: Any, z: Array, u: Any, h: Any, j: Array, k: Array) -> Array:
    g, slope = _own_slope(system, t, z, u)
    return z + h * drift(t, z) + g * j + slope * (j * j - h) / 2


def _heun(system: Any, drift: Callable[..., Array], t: Any, z: Array, u: Any, h: Any, j: Array, k: Array) -> Array:
    f, g = drift(t, z), system.diffusion(t, z, u)
    y = z + h * f + g * j
    return z + h / 2 * (f + drift(t + h, y)) + (g + system.diffusion(t + h, y, u)) * j / 2


def _sra1(system: Any, drift: Callable[..., Array], t: Any, z: Array, u: Any, h: Any, j: Array, k: Array) -> Array:
    now, later = system.diffusion(t, z, u), system.diffusion(t + h, z, u)
    f = drift(t, z)
    y = z + 0.75 * h * f + 1.5 * later * k / h
    return z + h / 3 * (f + 2 * drift(t + 0.75 * h, y)) + later * j + (now - later) * k / h


_STEPS = {"euler-maruyama": _euler, "milstein": _milstein, "heun": _heun, "sra1": _sra1}


def _method(system: SystemStochastic, method: str | None) -> str:
    """The method by name, or the best one for the system; InvalidValue if the amplitudes do not meet its condition."""
    depends, who = _dependence(system.record), system.record.name
    if method is None:
        if depends == "none":
            return "sra1"
        return "heun" if system.calculus == "stratonovich" else "euler-maruyama" if depends == "others" else "milstein"
    if method not in METHODS:
        raise UnknownName("method for stochastic systems", method, METHODS)
    if method == "sra1" and depends != "none":
        raise InvalidValue(
            f"solve_stochastic: 'sra1' needs noise that does not depend on the state, that of {who} does. Use 'milstein' or 'heun'."
        )
    if method == "milstein" and depends == "others":
        raise InvalidValue(
            f"solve_stochastic: 'milstein' needs every amplitude to depend on its own state only, in {who} one depends on another state. "
            "Use 'euler-maruyama' (Ito) or 'heun' (Stratonovich)."
        )
    return method


@functools.cache
def _dependence(record: SystemRecord) -> str:
    """On what the amplitudes depend: 'none' of the states, each on its 'own', or on 'others' too; by differences at random states."""
    rng = np.random.default_rng(0)
    base = {name: np.asarray(value) * rng.uniform(0.9, 1.1) for name, value in record.parameters.items()}
    # a parameter that is 0 in the file may be another one in use
    parameters = {name: value + (value == 0) * rng.uniform(0.1, 0.2) for name, value in base.items()}
    found = "none"
    for _ in range(4):
        z, u = record.start + rng.normal(size=record.dim), rng.normal(size=record.n_inputs)
        t = rng.uniform()
        with np.errstate(all="ignore"):
            here = record.diffusion(t, z, u, parameters)
            for state in range(record.dim):
                moved = z.copy()
                moved[state] += rng.normal()
                there = record.diffusion(t, moved, u, parameters)
                changed = (there != here) & ~(np.isnan(there) & np.isnan(here))
                if np.any(np.delete(changed, state)):
                    return "others"
                found = "own" if changed[state] else found
    return found

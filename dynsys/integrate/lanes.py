"""Many trajectories by one compiled program: in blocks, several at a time on a CPU, all at once on an accelerator.

States are laid out batch last, (M, B): each operation of the field then runs along the trajectories ("lanes"), which the
processor's vector units fill. A block is so small that everything of one step stays in the fastest cache.
"""

import functools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from dynsys.precision import x64

Program = Callable[[PyTree, PyTree], PyTree]  # (arrays with the lanes on the last axis, what all share) -> arrays with the lanes first


def block_size(lanes: int, dim: int, width: int = 768) -> int:
    """Lanes of one block on this machine: about `width` numbers a state vector on a CPU (32 to 256 lanes), else all."""
    if jax.default_backend() != "cpu":
        return lanes
    return min(lanes, max(32, min(256, 2 ** round(math.log2(max(1.0, width / dim))))))


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def compiled(work: Callable[..., Any]) -> Callable[..., Any]:
    """`eqx.filter_jit(work)`; on a CPU with vectors of 512 bits, of which XLA uses half unless asked (a fifth of the time).

    The option is left out where the compiler does not know it, and inside other programs, to which it cannot be given.
    """
    options, jit = {"xla_cpu_prefer_vector_width": 512}, cast(Any, eqx.filter_jit)  # its annotations leave out what jax.jit takes
    plain = wide = jit(work)
    if jax.default_backend() == "cpu":
        try:
            jax.jit(lambda x: x, compiler_options=options).lower(0.0).compile()
            wide = jit(work, compiler_options=options)
        except (jax.errors.JaxRuntimeError, ValueError):
            pass
    return lambda *given: (plain if _is_traced(given) else wide)(*given)


def _is_traced(given: PyTree) -> bool:
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(given))


def in_blocks(program: Program, per_lane: PyTree, shared: PyTree, *, lanes: int, block: int, threads: int) -> PyTree:
    """program(per_lane, shared) with `block` lanes at a time; arrays of `per_lane` have their lanes last, those of the result first.

    The last block is filled up with copies of the last lane, so that all blocks run the same compiled program; what a lane
    gives does not depend on the number of threads or on what other lanes hold. All runs in float64. Under a JAX transformation
    (a gradient, vmap) the blocks run one after the other inside the traced program.
    """
    block = min(block, lanes)
    count = -(-lanes // block)
    if count == 1:
        return program(per_lane, shared)
    if _is_traced((per_lane, shared)):
        return _traced(lambda part: program(part, shared), per_lane, lanes, block, count)
    parts = [jax.tree.map(lambda leaf, i=i: _part(np.asarray(leaf), i * block, block), per_lane) for i in range(count)]

    def work(part: PyTree) -> PyTree:
        with x64():  # the setting belongs to the thread
            return jax.block_until_ready(program(part, shared))

    first = work(parts[0])  # alone, so that no two threads compile
    with ThreadPoolExecutor(max(1, min(threads, count - 1))) as pool:
        rest = list(pool.map(work, parts[1:]))
    return jax.tree.map(lambda *leaves: jnp.asarray(np.concatenate([np.asarray(leaf) for leaf in leaves])[:lanes]), first, *rest)


def _part(leaf: np.ndarray, start: int, block: int) -> np.ndarray:
    found = leaf[..., start : start + block]
    short = block - found.shape[-1]
    return np.concatenate([found, np.repeat(found[..., -1:], short, axis=-1)], axis=-1) if short else np.ascontiguousarray(found)


def _traced(program: Callable[[PyTree], PyTree], per_lane: PyTree, lanes: int, block: int, count: int) -> PyTree:
    def split(leaf: Any) -> Any:
        wide = jnp.concatenate([leaf, jnp.repeat(leaf[..., -1:], count * block - lanes, axis=-1)], axis=-1)
        return jnp.moveaxis(wide.reshape(*leaf.shape[:-1], count, block), -2, 0)

    found = jax.lax.map(program, jax.tree.map(split, per_lane))
    return jax.tree.map(lambda leaf: leaf.reshape(count * block, *leaf.shape[2:])[:lanes], found)

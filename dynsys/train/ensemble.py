"""All seeds of an ensemble, one chunk further: side by side on an accelerator, in threads on a CPU.

    advance(states, *rest) = (states after, losses),    row i of both = one_seed(states, i, *rest)

An accelerator wants large arrays: vmap over the seeds. On a CPU vmap turns the matrix products of the seeds into batched ones,
which fill one core and are no faster than the seeds one after another (32 AL-RNNs: slower), and it compiles two to three times as
long. There the same program runs once a seed, as many at a time as there are cores; so what becomes of a seed depends
neither on how many there are nor on the cores.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

# A small network's step is many kernels of microseconds. XLA would hand slices of each to its thread pool, which costs more than the
# kernel: an update of a liquid network of 32 units takes 60 to 105 ms so, and 48 ms on the thread that called.
SERIAL = {"xla_disable_hlo_passes": "cpu-parallel-task-assigner"}

OneSeed = Callable[..., Any]  # (states of all, seed, *rest) -> (state, loss) of that seed
Advance = Callable[..., Any]  # (states of all, *rest) -> (states, losses) of all


def all_seeds(one_seed: OneSeed, seeds: int) -> Advance:
    """The compiled `advance` for this machine's default device."""
    return InThreads(one_seed, seeds) if jax.default_backend() == "cpu" else side_by_side(one_seed, seeds)


def side_by_side(one_seed: OneSeed, seeds: int) -> Advance:
    """All seeds in one program, by vmap."""

    def advance(states: PyTree, *rest: Any) -> Any:
        return jax.vmap(lambda seed: one_seed(states, seed, *rest))(jnp.arange(seeds))

    return eqx.filter_jit(advance, donate="none")


class InThreads:
    """One compiled program for one seed, called for each; the calls release Python's lock while they compute."""

    def __init__(self, one_seed: OneSeed, seeds: int, threads: int | None = None):
        self.threads = min(seeds, usable_cores() if threads is None else threads)
        self.jitted: Any = eqx.filter_jit(one_seed, donate="none")
        self.program: Any = None
        self.seeds = seeds

    def lower(self, states: PyTree, *rest: Any) -> Any:
        """The lowered program of one seed, as of a jitted function."""
        return self.jitted.lower(states, jnp.asarray(0), *rest)

    def __call__(self, states: PyTree, *rest: Any) -> Any:
        """(states, losses) of all seeds; compiles at the first call, so that no two threads do."""
        if self.program is None:
            self.program = self.lower(states, *rest).compile(compiler_options=SERIAL)
        program, seeds = self.program, [jnp.asarray(seed) for seed in range(self.seeds)]
        with ThreadPoolExecutor(self.threads) as pool:
            rows = list(pool.map(lambda seed: jax.block_until_ready(program(states, seed, *rest)), seeds))
        return _stacked(rows)


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@jax.jit
def _stacked(rows: list[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)

"""Seeds in threads: the same bits for any number of threads and seeds, and the numbers of vmap."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from dynsys.train.ensemble import InThreads, side_by_side


def one_seed(states, seed, scale):
    """A little chaos, so that a difference in the last digit would grow: the logistic map from each seed's state."""
    z = jax.tree.map(lambda leaf: leaf[seed], states)
    noise = 1e-3 * jr.uniform(jr.fold_in(jr.key(0), seed), z["x"].shape)
    x = jax.lax.fori_loop(0, 20, lambda _, x: scale * x * (1 - x), z["x"] + noise)
    return {"x": x, "n": z["n"] + 1}, x.sum()


def start(seeds):
    return {"x": jnp.linspace(0.2, 0.4, 4 * seeds).reshape(seeds, 4), "n": jnp.zeros(seeds, jnp.int32)}


def test_threads_and_their_number_change_no_bit():
    scale = jnp.asarray(3.9)
    runs = [InThreads(one_seed, 5, threads)(start(5), scale) for threads in (1, 2, 5)]
    for states, losses in runs[1:]:
        assert_array_equal(states["x"], runs[0][0]["x"])
        assert_array_equal(losses, runs[0][1])
    assert_array_equal(runs[0][0]["n"], np.ones(5))


def test_a_seed_does_not_depend_on_the_others():
    five, _ = InThreads(one_seed, 5)(start(5), jnp.asarray(3.9))
    two, _ = InThreads(one_seed, 2)({"x": start(5)["x"][:2], "n": jnp.zeros(2, jnp.int32)}, jnp.asarray(3.9))
    assert_array_equal(five["x"][:2], two["x"])


def test_threads_give_the_numbers_of_vmap():
    scale = jnp.asarray(3.9)
    (a, la), (b, lb) = InThreads(one_seed, 3)(start(3), scale), side_by_side(one_seed, 3)(start(3), scale)
    # twenty steps stretch a rounding error of 1e-16 by at most 3.9**20 = 7e11; in practice by 2**20
    assert_allclose(a["x"], b["x"], atol=1e-9)
    assert_allclose(la, lb, atol=1e-8)
    assert not np.allclose(a["x"][0], a["x"][1])

"""Wirings: counts, ranks and layers are exact, and every motor neuron hears the world."""

import jax.random as jr
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dynsys.errors import InvalidValue
from dynsys.models.gates import factors, masked
from dynsys.models.wiring import auto_ncp, full, low_rank, make_wiring, ncp, random

ONE = {"sensory_fanout": 1, "inter_fanout": 1, "recurrent_command": 1, "motor_fanin": 1}
MAKERS = [full, random, low_rank, lambda n_in, units, n_out, seed=0: auto_ncp(n_in, units, n_out, seed=seed)]


@pytest.mark.parametrize("make", MAKERS)
def test_signs_shapes_and_seeds(make):
    wiring = make(4, 12, 3, seed=1)
    assert (wiring.n_in, wiring.units, wiring.n_out) == (4, 12, 3)
    assert set(np.unique(wiring.recurrent)) <= {-1, 0, 1}
    assert {-1, 1} <= set(np.unique(wiring.sensory))
    assert_array_equal(wiring.recurrent, make(4, 12, 3, seed=1).recurrent)
    assert not np.array_equal(wiring.recurrent, make(4, 12, 3, seed=2).recurrent)
    assert wiring.synapses == (wiring.sensory != 0).sum() + (wiring.recurrent != 0).sum()


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.5, 0.9])
def test_sparsity_is_exact(sparsity):
    wiring = random(5, 20, sparsity=sparsity)
    assert np.count_nonzero(wiring.recurrent) == round(400 * (1 - sparsity))
    assert np.count_nonzero(wiring.sensory) == round(100 * (1 - sparsity))
    assert wiring.complete == (sparsity == 0.0)
    assert full(5, 20).complete
    lean = low_rank(5, 20, rank=3, sparsity=sparsity)
    assert np.count_nonzero(lean.recurrent) == round(400 * (1 - sparsity))
    assert np.count_nonzero(lean.sensory) == 100


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("rank", [1, 3, 8])
def test_rank_is_exact_and_the_factors_are_the_best(rank, heads):
    wiring = low_rank(2, 8, rank=rank, sparsity=0.25)
    made = np.split(np.asarray(masked(factors(wiring, heads, key=jr.key(0)), (), heads)), heads, axis=1)
    wanted = np.split(np.asarray(factors(full(2, 8), heads, key=jr.key(0))[0]), heads, axis=1)  # the matrix they approximate
    mask = abs(wiring.recurrent)
    within = masked(factors(wiring, heads, key=jr.key(0)), (None, np.tile(mask, (1, heads))), heads)
    for i, (low, whole) in enumerate(zip(made, wanted, strict=True)):
        assert np.linalg.matrix_rank(low) == rank
        # Eckart-Young: what the best approximation misses is the norm of the other singular values
        missed = np.linalg.norm(np.linalg.svd(whole, compute_uv=False)[rank:])
        assert_allclose(np.linalg.norm(whole - low), missed, atol=1e-12)
        assert_array_equal(np.asarray(within)[:, 8 * i : 8 * i + 8], low * mask)


def reachable(wiring):
    """Which neurons an input influences after any number of steps, (I, S)."""
    now = wiring.sensory != 0
    for _ in range(wiring.units):
        now = now | (now @ (wiring.recurrent != 0))
    return now


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.95])
@pytest.mark.parametrize(("n_in", "units", "n_out"), [(1, 4, 2), (3, 12, 3), (40, 19, 4)])
def test_every_input_reaches_a_motor_neuron_and_every_neuron_hears_an_input(n_in, units, n_out, sparsity):
    for seed in range(5):
        wiring = auto_ncp(n_in, units, n_out, sparsity=sparsity, seed=seed)
        reached = reachable(wiring)
        assert reached.any(axis=0).all()
        assert reached[:, wiring.layers["motor"]].any(axis=1).all()


def test_a_policy_has_its_layers_and_fans():
    wiring = ncp(6, 10, 7, 3, sensory_fanout=4, inter_fanout=3, recurrent_command=9, motor_fanin=5, seed=3)
    motor, command, inter = (list(wiring.layers[name]) for name in ("motor", "command", "inter"))
    assert (motor, command, inter) == ([0, 1, 2], list(range(3, 10)), list(range(10, 20)))
    between = {(a, b): np.count_nonzero(wiring.recurrent[np.ix_(x, y)]) for a, x in zip("mci", (motor, command, inter), strict=True)
               for b, y in zip("mci", (motor, command, inter), strict=True)}  # fmt: skip
    assert [between[pair] for pair in (("m", "m"), ("m", "c"), ("m", "i"), ("c", "i"), ("i", "m"), ("i", "i"))] == [0] * 6
    assert between["c", "c"] == 9
    assert np.count_nonzero(wiring.sensory[:, motor + command]) == 0
    assert (np.count_nonzero(wiring.sensory, axis=1) >= 4).all()
    assert (np.count_nonzero(wiring.recurrent[inter], axis=1) >= 3).all()
    assert (np.count_nonzero(wiring.recurrent[np.ix_(command, motor)], axis=0) >= 5).all()


def test_fans_are_exact_where_nobody_is_forgotten():
    wiring = ncp(6, 3, 3, 2, sensory_fanout=3, inter_fanout=3, recurrent_command=0, motor_fanin=3)
    assert wiring.synapses == 6 * 3 + 3 * 3 + 3 * 2


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (lambda: random(3, 5, sparsity=1.0), r"sparsity is the fraction of synapses left out, in \[0, 1\), got sparsity=1.0"),
        (lambda: random(3, 5, 6), "n_out=6 with units=5"),
        (lambda: full(0, 5), "n_in must be a whole number of at least 1"),
        (lambda: low_rank(3, 5, rank=6), "rank must be from 1 to the number of neurons, got rank=6"),
        (lambda: auto_ncp(3, 5, 4), "n_out=4 with units=5. Take more units"),
        (
            lambda: ncp(3, 4, 2, 1, sensory_fanout=5, inter_fanout=1, recurrent_command=1, motor_fanin=1),
            "sensory_fanout must be from 1 to 4",
        ),
        (lambda: make_wiring("ring", 3, 5, None, sparsity=0.5, rank=2, seed=0), "'full', 'random', 'ncp' or 'low-rank', got wiring='ring'"),
    ],
)
def test_impossible_wirings_are_refused(work, words):
    with pytest.raises(InvalidValue, match=words):
        work()

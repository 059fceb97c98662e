"""Windows: every draw is a stretch of one trajectory, all equally likely, at a cost that does not grow with the series."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.stats import chisquare

from dynsys.errors import DataError, InvalidValue
from dynsys.train.windows import Streamed, Windows


def labelled(lengths, columns=2):
    """Trajectories whose numbers say where they stand: trajectory * 10^5 + row, and its negative; inputs say it again, halved."""
    values = [np.stack([(1e5 * i + np.arange(n)) * (-1.0) ** c for c in range(columns)], axis=1) for i, n in enumerate(lengths)]
    return values, [0.5 * x[:, :1] for x in values]


class Recorded:
    """An array that counts which rows were asked for, and gives them only as slices."""

    def __init__(self, rows):
        self.all, self.shape, self.asked = rows, rows.shape, []

    def __len__(self):
        return len(self.all)

    def __getitem__(self, index):
        assert isinstance(index, slice), "only slices may be read"
        rows = self.all[index]
        self.asked.append(len(rows))
        return rows


def starts_of(windows, batch, key):
    """The labels of the first rows of a drawn batch, after checking that every window is one true stretch with its inputs."""
    xs, us = windows.draw(batch, key=key)
    xs, us = np.asarray(xs), np.asarray(us)
    first = xs[0, :, 0]
    wanted = first[None, :] + np.arange(windows.length)[:, None]
    np.testing.assert_array_equal(xs, np.stack([wanted, -wanted], axis=2))
    np.testing.assert_array_equal(us, 0.5 * xs[:, :, :1])
    return first


def test_draws_are_stretches_of_one_trajectory_and_uniform():
    lengths, length = (9, 3, 14, 5, 4), 5  # the second and the last are too short
    values, inputs = labelled(lengths)
    windows = Windows.of(values, inputs, length=length, dtype=jnp.float64)
    valid = [1e5 * i + a for i, n in enumerate(lengths) for a in range(n - length + 1)]
    assert windows.count == len(valid) == 5 + 10 + 1
    first = starts_of(windows, 8000, jr.key(0))
    found, counts = np.unique(first, return_counts=True)
    assert found.tolist() == sorted(valid)
    assert chisquare(counts).pvalue > 0.01  # the key is fixed: 500 expected for each of 16 starts


def test_one_window_and_no_inputs():
    windows = Windows.of([np.arange(6.0)[:, None]], length=6)
    xs, us = windows.draw(3, key=jr.key(1))
    assert us is None
    assert xs.shape == (6, 3, 1)
    assert xs.dtype == jnp.float32
    np.testing.assert_array_equal(np.asarray(xs)[:, :, 0], np.arange(6.0)[:, None] * np.ones(3))


@pytest.mark.parametrize("make", [Windows.of, Streamed], ids=["Windows", "Streamed"])
@pytest.mark.parametrize(
    ("length", "error", "words"), [(1, InvalidValue, "length must be at least 2"), (8, DataError, "longest has 7 points")]
)
def test_impossible_lengths_are_refused(make, length, error, words):
    with pytest.raises(error, match=words):
        make(labelled((7, 3))[0], length=length)


def test_the_cost_of_an_update_does_not_depend_on_the_length_of_the_series():
    """Point 8: the compiled draw holds the same small temporary memory for 100,000 rows as for 1,000: no copy."""

    def compiled(rows):
        windows = Windows.of([np.zeros((rows, 5))], [np.zeros((rows, 2))], length=50)

        def updates(windows, keys):
            return jax.lax.scan(lambda total, key: (total + windows.draw(16, key=key)[0].sum(), None), jnp.float32(0), keys)[0]

        return jax.jit(updates).lower(windows, jr.split(jr.key(0), 20)).compile()

    short, long = compiled(1_000), compiled(100_000)
    memory = [program.memory_analysis().temp_size_in_bytes for program in (short, long)]
    assert memory[0] == memory[1] < 1_000_000


# streamed

LENGTHS = (6000, 900, 3, 5000)


def streamed(seed=0, resident=3 * 4096 * 20):
    values, inputs = ([Recorded(x) for x in arrays] for arrays in labelled(LENGTHS))
    return Streamed(values, inputs, length=10, seed=seed, resident=resident, dtype=jnp.float64), values, inputs


def test_streamed_windows_read_slices_only_and_no_more_than_is_resident():
    source, values, inputs = streamed()
    source.windows(0)
    for arrays in (values, inputs):
        rows = sum(sum(array.asked) for array in arrays)
        assert 0 < rows <= source.blocks * source.rows
        assert max(max(array.asked, default=0) for array in arrays) <= source.rows
    assert source.blocks * source.rows * 3 <= 3 * 4096 * 20


def test_streamed_windows_have_one_shape_and_depend_on_seed_and_chunk_alone():
    first, again = streamed()[0], streamed()[0]
    shapes = {tuple(leaf.shape for leaf in jax.tree.leaves(first.windows(chunk))) for chunk in range(5)}
    assert len(shapes) == 1
    for chunk in (3, 0):
        for a, b in zip(jax.tree.leaves(first.windows(chunk)), jax.tree.leaves(again.windows(chunk)), strict=True):
            np.testing.assert_array_equal(a, b)
    values = np.asarray(first.windows(0).values)
    assert not np.array_equal(values, first.windows(1).values)
    assert not np.array_equal(values, streamed(seed=1)[0].windows(0).values)


def test_streamed_draws_are_true_stretches_from_every_trajectory_in_its_share():
    source = streamed()[0]
    counts = np.zeros(4)
    for chunk in range(60):
        first = starts_of(source.windows(chunk), 200, jr.key(chunk))
        which, row = np.divmod(first, 1e5)
        assert np.all(row + 10 <= np.array(LENGTHS)[which.astype(int)])
        counts += np.bincount(which.astype(int), minlength=4)
    windows = np.maximum(0, np.array(LENGTHS) - 9)
    # 60 chunks of 20 blocks each: shares scatter by 1 / sqrt(1200) of themselves or less, 3 % at most; 10 % is generous to a fixed seed
    np.testing.assert_allclose(counts / counts.sum(), windows / windows.sum(), atol=0.1)
    assert counts[1] > 0.5 * counts.sum() * windows[1] / windows.sum()

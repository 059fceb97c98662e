"""D_stsp: closed forms, a dense histogram as independent computation, what happens outside the box, memory."""

import subprocess
import sys
import tracemalloc

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.special import logsumexp

from dynsys.analysis import arrays, spectrum
from dynsys.errors import InvalidValue
from dynsys.metrics import (
    VisitHistogram,
    divergence,
    fraction_outside,
    power,
    power_spectrum_distance,
    principal_components,
    state_space_divergence_binned,
    state_space_divergence_gmm,
)


def series(seed, steps, n, spread=1.0):
    """Correlated columns, so that some bins are visited often and most never."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(steps, n)) @ (np.eye(n) + 0.5 * np.ones((n, n))) * spread


def dense(true, made, bins=30, pad=0.1, smoothing=1e-5):
    """The same definition through numpy's full histogram."""
    margin = pad * true.std(axis=0)
    box = list(zip(true.min(axis=0) - margin, true.max(axis=0) + margin, strict=True))
    h, g = (np.histogramdd(x, bins=bins, range=box)[0] for x in (true, made))
    p, q = ((x + smoothing) / (x.sum() + smoothing * x.size) for x in (h, g))
    return (p * np.log(p / q)).sum()


def test_two_bins_by_hand():
    true = np.array([[0.0], [0.1], [0.2], [1.0]])  # 3 visits in [0, 0.5), 1 in [0.5, 1]
    made = np.array([[0.3], [0.9]])
    expected = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    assert state_space_divergence_binned(true, made, bins=2, pad=0.0, smoothing=1e-12) == pytest.approx(expected, abs=1e-10)


def test_uniform_against_its_upper_half_in_closed_form():
    k, e, n = 30, 1e-5, 100
    centres = (np.arange(k) + 0.5) / k
    true = np.concatenate([[0.0, 1.0], np.repeat(centres, n)])[:, None]  # two points fix the box [0, 1] when pad = 0
    made = np.repeat(centres[k // 2 :], 2 * n)[:, None]
    p = (np.full(k, n) + np.eye(k)[0] + np.eye(k)[-1] + e) / (k * n + 2 + e * k)
    q = (np.where(np.arange(k) >= k // 2, 2 * n, 0) + e) / (k * n + e * k)
    assert state_space_divergence_binned(true, made, pad=0.0) == pytest.approx((p * np.log(p / q)).sum(), rel=1e-12)


def test_identical_series_give_exactly_nothing():
    x = series(0, 5000, 3)
    assert state_space_divergence_binned(x, x) == pytest.approx(0.0, abs=1e-14)
    assert state_space_divergence_binned(x, x[::-1]) == pytest.approx(0.0, abs=1e-14)  # time order plays no part


@pytest.mark.parametrize("limit", [0, 2**20])
@pytest.mark.parametrize(("n", "bins"), [(1, 30), (2, 30), (3, 30), (4, 30), (5, 10), (2, 7)])
def test_agrees_with_the_dense_histogram(n, bins, limit, monkeypatch):
    monkeypatch.setattr(divergence, "_DENSE", limit)  # 0: the sorted form, for every size
    true, made = series(1, 4000, n), series(2, 3000, n, spread=1.3)
    for smoothing, pad in ((1e-5, 0.1), (0.1, 0.5)):
        ours = state_space_divergence_binned(true, made, bins=bins, smoothing=smoothing, pad=pad)
        assert ours == pytest.approx(dense(true, made, bins, pad, smoothing), rel=1e-10)


@pytest.mark.parametrize("limit", [0, 2**20])
def test_inside_jit_and_under_vmap(limit, monkeypatch):
    monkeypatch.setattr(divergence, "_DENSE", limit)
    true, runs = series(3, 5000, 3), np.stack([series(4, 2000, 3, 1.2), series(5, 2000, 3, 0.7), np.full((2000, 3), np.nan)])
    histogram = VisitHistogram.of(true)
    one_by_one = [state_space_divergence_binned(true, run) for run in runs]
    np.testing.assert_allclose(histogram.each(runs), one_by_one, rtol=1e-12)
    np.testing.assert_allclose(eqx.filter_jit(lambda h, x: h.each(x))(histogram, jnp.asarray(runs)), one_by_one, rtol=1e-12)
    pooled = eqx.filter_jit(lambda h, x: h.divergence(x))(histogram, jnp.asarray(runs[:2]))
    assert float(pooled) == pytest.approx(dense(true, runs[:2].reshape(-1, 3)), rel=1e-10)
    with jax.enable_x64(False):  # float32 moves few points over an edge and rounds sums: 1e-3 of a value of order 1
        single = jax.jit(lambda x: histogram.divergence(x))(jnp.asarray(runs[0], jnp.float32))
        assert single.dtype == jnp.float32
        assert float(single) == pytest.approx(one_by_one[0], rel=1e-3)


@pytest.mark.parametrize("n", [3, 5])
def test_the_accelerator_path_gives_the_same_numbers(n, monkeypatch):
    true, made = series(20, 1500, n), series(21, 1000, n, 1.2)
    by_numpy = (
        state_space_divergence_binned(true, made),
        VisitHistogram.of(true).outside(made),
        power_spectrum_distance(true, made, smoothing=5.0),
    )
    for module in (arrays, divergence, power, spectrum):  # arrays of an accelerator are computed by JAX, outside jit
        monkeypatch.setattr(module, "namespace", lambda *_: jnp)
    with jax.enable_x64(False):  # the caller's setting must not matter
        x, y = jnp.asarray(true, jnp.float32), jnp.asarray(made, jnp.float32)
        by_jax = state_space_divergence_binned(x, y), VisitHistogram.of(x).outside(y), power_spectrum_distance(x, y, smoothing=5.0)
    np.testing.assert_allclose([float(value) for value in by_jax], by_numpy, rtol=1e-2)  # float32 data: some points change bins


@pytest.mark.gpu
def test_scores_of_arrays_on_a_gpu():
    true, made = (jax.device_put(series(seed, 100_000, 5), jax.devices("gpu")[0]) for seed in (22, 23))
    host = np.asarray(true), np.asarray(made)
    assert state_space_divergence_binned(true, made) == pytest.approx(state_space_divergence_binned(*host), rel=1e-9)
    assert power_spectrum_distance(true, made) == pytest.approx(power_spectrum_distance(*host), rel=1e-9)


def test_invariant_under_order_and_units():
    true, made = series(6, 4000, 3), series(7, 4000, 3, 1.4)
    value = state_space_divergence_binned(true, made)
    order = np.random.default_rng(0).permutation(4000)
    assert state_space_divergence_binned(true[order], made[order]) == pytest.approx(value, rel=1e-12)
    assert state_space_divergence_binned(true[:, [2, 0, 1]], made[:, [2, 0, 1]]) == pytest.approx(value, rel=1e-12)
    # powers of two are exact; a shift may carry a point over an edge, one of 4,000
    assert state_space_divergence_binned(true * [4.0, 0.5, 1.0], made * [4.0, 0.5, 1.0]) == pytest.approx(value, rel=1e-12)
    assert state_space_divergence_binned(true + 17.3, made + 17.3) == pytest.approx(value, rel=1e-2)


def test_points_outside_the_box_are_dropped_and_reported():
    true, made = series(8, 4000, 2), series(9, 3000, 2)
    far = np.concatenate([made, np.full((1000, 2), 1e6)])
    assert state_space_divergence_binned(true, far) == pytest.approx(state_space_divergence_binned(true, made), rel=1e-12)
    inside = 1.0 - fraction_outside(true, made)
    assert fraction_outside(true, far) == pytest.approx(1.0 - inside * 0.75, rel=1e-12)
    assert VisitHistogram.of(true).outside(far) == pytest.approx(fraction_outside(true, far), rel=1e-12)
    assert fraction_outside(true, true) == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_diverged_run_is_the_worst(bad):
    rng = np.random.default_rng(10)
    angle = rng.uniform(0, 2 * np.pi, 5000)
    true = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    made = true.copy()
    made[4321, 1] = bad
    at_rest = np.zeros((5000, 2))  # the middle of the ring is never visited
    worst = state_space_divergence_binned(true, made)
    assert np.isfinite(worst)
    # all points in one bin that the true series never visits; only that bin's own pseudo-count is left out of the bound
    assert worst == pytest.approx(state_space_divergence_binned(true, at_rest), abs=1e-6)
    assert worst >= state_space_divergence_binned(true, at_rest)
    assert state_space_divergence_binned(true, true + 100.0) == worst  # nothing inside the box
    for other in (true * 0.5, np.tile(true[:1], (5000, 1)), true + 0.3):
        assert state_space_divergence_binned(true, other) < worst


def test_six_dimensions_are_refused_with_a_way_out():
    x = series(11, 100, 6)
    with pytest.raises(InvalidValue, match=r"N=6.*outweigh.*state_space_divergence_gmm.*principal_components\(true, made, n=3\)"):
        state_space_divergence_binned(x, x)
    assert state_space_divergence_binned(*principal_components(x, x)) == pytest.approx(0.0, abs=1e-14)


@pytest.mark.parametrize(
    ("true", "made", "settings", "message"),
    [
        (np.zeros((5, 2)), np.ones((5, 2)), {}, "column 0 of true is constant"),
        (np.array([[1.0], [np.nan]]), np.ones((5, 1)), {}, "true holds NaN or inf"),
        (np.arange(4.0)[:, None], np.ones((5, 2)), {}, "N=1 columns but made has 2"),
        (np.arange(4.0)[:, None], np.ones((0, 1)), {}, "at least one point"),
        (np.arange(4.0)[:, None], np.ones((5, 1)), {"bins": 1}, "bins >= 2"),
        (np.arange(4.0)[:, None], np.ones((5, 1)), {"pad": -0.1}, "pad >= 0"),
        (np.arange(4.0)[:, None], np.ones((5, 1)), {"smoothing": 0.0}, "smoothing > 0"),
        (np.arange(20.0).reshape(4, 5), np.ones((5, 5)), {"bins": 10_000}, "Use fewer bins"),
    ],
)
def test_bad_input_is_named(true, made, settings, message):
    with pytest.raises(InvalidValue, match=message):
        state_space_divergence_binned(true, made, **settings)


def test_five_dimensions_take_little_memory():
    true, made = series(12, 100_000, 5), series(13, 100_000, 5)
    tracemalloc.start()
    state_space_divergence_binned(true, made)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6  # the dense histograms alone would take 2 * 30^5 * 8 = 390 MB


def test_hundred_thousand_points_in_six_dimensions_stay_below_two_gigabytes():
    # VmHWM is this program's own peak; ru_maxrss keeps the size of the process that started it, here a test run of gigabytes.
    code = """
import pathlib, re, resource, sys, jax.random as jr, numpy as np
from dynsys.metrics import principal_components, state_space_divergence_binned, state_space_divergence_gmm
x, y = np.random.default_rng(0).normal(size=(2, 100_000, 6))
print(state_space_divergence_binned(*principal_components(x, y)), state_space_divergence_gmm(x, y, key=jr.key(0)))
status = pathlib.Path("/proc/self/status")
if status.exists():
    print(int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text()).group(1)) / 1024**2)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**3 if sys.platform == "darwin" else 1024**2))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    values, gigabytes = done.stdout.splitlines()
    assert all(0 <= float(value) < 0.5 for value in values.split())
    assert float(gigabytes) < 2.0


def test_principal_components_keep_what_three_axes_hold():
    rng = np.random.default_rng(14)
    plane = np.linalg.qr(rng.normal(size=(6, 3)))[0]
    true, made = (rng.normal(size=(500, 3)) * [3.0, 2.0, 1.0] @ plane.T + 5.0 for _ in range(2))
    p, q = principal_components(true, made)
    gaps = np.linalg.norm(true[:, None] - made[None, :], axis=-1)
    np.testing.assert_allclose(np.linalg.norm(p[:, None] - q[None, :], axis=-1), gaps, atol=1e-9)  # distances survive
    assert (np.diff(p.var(axis=0)) < 0).all()
    np.testing.assert_allclose(np.cov(p.T), np.diag(np.diag(np.cov(p.T))), atol=1e-9)
    np.testing.assert_array_equal(principal_components(true, made * 100)[0], p)  # the axes come from true alone
    with pytest.raises(InvalidValue, match="n must be in"):
        principal_components(true, made, 7)


def test_gmm_of_single_gaussians_in_closed_form():
    true, made, scale, n = np.array([[0.0, 0.0, 0.1], [0.0, 0.0, 0.1 + 1e-9]]), np.array([[1.0, 2.0, 0.1]]), 2.0, 50_000
    true[1] += 1e-9  # two points, else the columns would be constant
    exact = 5.0 / (2 * scale)  # |d|^2 / (2 sigma^2)
    value = state_space_divergence_gmm(true, made, scale=scale, samples=n, key=jr.key(0))
    assert value == pytest.approx(exact, abs=4 * np.sqrt(5.0 / scale / n))  # sd of ln p/q is |d| / sigma; 4 standard errors


@pytest.mark.parametrize(("n", "scale"), [(6, 1.0), (2, 0.25)])
def test_gmm_of_many_points_is_that_of_the_smoothed_gaussians(n, scale):
    rng = np.random.default_rng(15)
    true, made = rng.normal(size=(5000, n)), 1.5 * rng.normal(size=(5000, n)) + 0.5
    a, b = 1.0 + scale, 1.5**2 + scale  # variances of the points plus those of the kernels
    exact = n * 0.5 * (a / b - 1 + 0.25 / b + np.log(b / a))
    value = state_space_divergence_gmm(true, made, scale=scale, samples=5000, key=jr.key(1))
    assert value == pytest.approx(exact, rel=0.15)  # grain of 5,000 centres and of the draws: up to 8 % seen over seeds


def test_gmm_blocks_agree_with_the_full_sum():
    rng = np.random.default_rng(16)
    x, centres = rng.normal(size=(50, 4)), rng.normal(size=(4099, 4)) * 3  # two full blocks and three points
    square = ((x[:, None] - centres[None]) ** 2).sum(axis=-1)
    expected = logsumexp(-square / (2 * 0.1), axis=1) - np.log(4099)
    np.testing.assert_allclose(divergence._log_density(jnp.asarray(x), jnp.asarray(centres), 0.1), expected, rtol=1e-9)


def test_gmm_pools_runs_repeats_itself_and_refuses_nonsense():
    true, made = series(17, 300, 2), series(18, 400, 2)
    value = state_space_divergence_gmm(true, made, key=jr.key(3))
    assert state_space_divergence_gmm(true, made.reshape(4, 100, 2), key=jr.key(3)) == value
    assert state_space_divergence_gmm(true, made, key=jr.key(4)) != value
    assert abs(state_space_divergence_gmm(true, true, key=jr.key(3))) < 1e-12
    made[7, 0] = np.nan
    assert state_space_divergence_gmm(true, made, key=jr.key(3)) == np.inf
    with pytest.raises(InvalidValue, match="scale > 0"):
        state_space_divergence_gmm(true, true, scale=0.0, key=jr.key(3))

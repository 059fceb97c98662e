"""Lyapunov exponents: maps with exponents by formula, published values, and a plain QR product as independent computation."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsys.analysis import kaplan_yorke_dimension, lyapunov_spectrum
from dynsys.analysis.lyapunov import _frame
from dynsys.dynamics import AbstractFlow, AbstractMap, Discretized
from dynsys.errors import InvalidValue
from dynsys.metrics import lyapunov_max
from dynsys.models.alrnn import ALRNN
from dynsys.models.observation import IdentityObservation
from dynsys.status import Status


class _Map(AbstractMap):
    @property
    def n_obs(self):
        return self.dim

    @property
    def n_inputs(self):
        return 0

    def observe(self, z):
        return z

    def lift(self, x):
        return x


class Logistic(_Map):
    dim: int = 1

    def step(self, z, u=None):
        return 4.0 * z * (1.0 - z)


class Henon(_Map):
    dim: int = 2

    def step(self, z, u=None):
        return jnp.stack([1.0 - 1.4 * z[0] ** 2 + z[1], 0.3 * z[0]])


class Tanh(_Map):
    W: jnp.ndarray

    @property
    def dim(self):
        return self.W.shape[0]

    def step(self, z, u=None):
        return jnp.tanh(self.W @ z + 0.1)


class Linear(Tanh):
    def step(self, z, u=None):
        return self.W @ z


class Lorenz(AbstractFlow):
    dim: int = 3
    n_inputs: int = 0

    def field(self, t, z, u=None):
        x, y, w = z
        return jnp.stack([10.0 * (y - x), x * (28.0 - w) - y, x * y - 8 / 3 * w])


START = np.array([1.0, 2.0, 20.0])


def test_logistic_map_has_ln_2():
    # ln|4 - 8 x| is a coboundary plus ln 2 (conjugate to the tent map): the mean's error shrinks as 1 / n, not 1 / sqrt(n)
    found = lyapunov_spectrum(Logistic(), np.array([0.3]), steps=200_000, transient=100)
    assert found.maximal == pytest.approx(np.log(2), abs=5e-4)
    assert found.kaplan_yorke == 1.0
    assert found.status.ok
    assert lyapunov_max(Logistic(), np.array([0.3]), steps=200_000, transient=100, dt=0.5) == pytest.approx(2 * np.log(2), abs=1e-3)


@pytest.mark.parametrize("every", [1, 7, 12])
def test_henon_map(every):
    found = lyapunov_spectrum(Henon(), np.array([0.1, 0.1]), steps=400_000, every=every)
    # |det| = 0.3 at every step, so the sum is exact up to rounding: e^(2.04 * 12) of 1e-16 at every = 12
    assert found.exponents.sum() == pytest.approx(np.log(0.3), abs=1e-5 if every == 12 else 1e-9)
    # Sprott 2003: 0.41922, -1.62319; own standard error about 0.0004
    np.testing.assert_allclose(found.exponents, [0.41922, -1.62319], atol=2e-3)
    assert found.kaplan_yorke == pytest.approx(1.25827, abs=2e-3)
    assert (found.errors > 1e-5).all()
    assert (found.errors < 2e-3).all()


def test_lorenz_published_within_half_a_second():
    def once():
        return lyapunov_spectrum(Lorenz(), START, steps=200_000, dt=0.01)  # T = 2,000

    once()
    clock = []
    for _ in range(3):
        begin = time.perf_counter()
        once()
        clock.append(time.perf_counter() - begin)
    assert min(clock) < 0.5  # 0.03 s on a quiet machine
    found = lyapunov_spectrum(Lorenz(), START, steps=5_000_000, dt=0.01)
    # Sprott 2003: 0.9056, 0, -14.5723. T = 50,000 has a standard error of 0.0005; published scatter 0.0004
    assert (np.abs(found.exponents - [0.9056, 0.0, -14.5723]) < [0.003, 0.002, 0.003]).all()
    assert found.exponents.sum() == pytest.approx(-(10 + 1 + 8 / 3), abs=1e-3)  # trace of the Jacobian; error of the step dt^4
    assert found.kaplan_yorke == pytest.approx(2.0622, abs=5e-4)
    assert found.errors[0] < 1.5e-3
    assert found.steps == 5_000_000


def test_many_orbits_are_the_mean_of_single_ones():
    z0 = START + 0.5 * np.arange(3)[:, None]
    # short: two roundings of one chaotic orbit agree for 5 time units to e^(0.9 * 5) of 1e-13
    together = lyapunov_spectrum(Lorenz(), z0, steps=500, transient=0, dt=0.01, segments=2)
    single = [lyapunov_spectrum(Lorenz(), z, steps=500, transient=0, dt=0.01, segments=2) for z in z0]
    np.testing.assert_allclose(together.exponents.sum(), np.mean([run.exponents.sum() for run in single]), atol=1e-9)
    np.testing.assert_allclose(together.maximal, np.mean([run.maximal for run in single]), atol=1e-6)
    assert together.steps == 1500
    six = lyapunov_spectrum(Lorenz(), np.tile(START, (100, 1)), steps=100, transient=0, dt=0.01, segments=1)  # two blocks
    np.testing.assert_allclose(six.errors, 0.0, atol=1e-10)
    assert six.steps == 10_000


def test_lorenz_from_many_orbits_to_0_002_within_half_a_second():
    z0 = START + np.random.default_rng(0).normal(size=(256, 3))

    def once():
        return lyapunov_spectrum(Lorenz(), z0, steps=20_000, transient=2000, dt=0.01, segments=1)  # T = 51,200

    found, clock = once(), []
    for _ in range(3):
        begin = time.process_time()
        once()
        clock.append(time.process_time() - begin)
    assert min(clock) < 0.5  # 0.3 s of processor time on two cores
    # standard error 0.0005 to 0.0008; the step of 0.01 moves the sum by less than 0.001
    assert (np.abs(found.exponents - [0.9056, 0.0, -14.5723]) < [0.002, 0.002, 0.003]).all()
    assert found.errors[0] < 1.2e-3


def test_many_orbits_of_a_map_with_all_exponents_by_lapack():
    rng = np.random.default_rng(3)
    W, z0 = rng.normal(size=(6, 6)) * 0.6, rng.normal(size=(5, 6))
    together = lyapunov_spectrum(Tanh(jnp.asarray(W)), z0, steps=300, transient=0)
    single = [lyapunov_spectrum(Tanh(jnp.asarray(W)), z, steps=300, transient=0).exponents for z in z0]
    np.testing.assert_allclose(together.exponents, np.mean(single, axis=0), rtol=1e-8)
    assert lyapunov_spectrum(Henon(), np.array([[0.1, 0.1], [10.0, 10.0]]), steps=100).status is Status.DIVERGED


def test_standard_errors_cover_the_scatter():
    runs = [lyapunov_spectrum(Lorenz(), START + 0.1 * i, steps=50_000, dt=0.01) for i in range(20)]
    scatter, stated = np.std([run.maximal for run in runs], ddof=1), np.mean([run.errors[0] for run in runs])
    # the stated error is on the safe side: what a segment gains at its end the next one loses (ratio 2.1 for segments of 50 units)
    assert 0.7 < stated / scatter < 4.0


def test_a_flow_and_its_map_agree():
    flow = lyapunov_spectrum(Lorenz(), START, steps=300_000, dt=0.01)
    as_map = lyapunov_spectrum(Discretized(Lorenz(), 0.02, substeps=2), START, steps=150_000, dt=0.02)
    assert abs(flow.maximal - as_map.maximal) < 4 * np.hypot(flow.errors[0], as_map.errors[0])
    assert as_map.exponents.sum() == pytest.approx(flow.exponents.sum(), abs=1e-6)


@pytest.mark.parametrize("n", [3, 6])  # Gram-Schmidt, LAPACK
def test_linear_map_has_the_logarithms_of_its_eigenvalues(n):
    rng = np.random.default_rng(n)
    A = rng.normal(size=(n, n))
    A *= 0.9 / np.abs(np.linalg.eigvals(A)).max()
    expected = np.sort(np.log(np.abs(np.linalg.eigvals(A))))[::-1]
    found = lyapunov_spectrum(Linear(jnp.asarray(A)), np.ones(n) * 1e-3, steps=20_000)
    # a non-normal matrix or a complex pair leaves a bounded remainder, ln(condition) of order 5, over 20,000 steps
    np.testing.assert_allclose(found.exponents, expected, atol=5e-4)


@pytest.mark.parametrize("n", [2, 4, 5, 9])
def test_against_a_plain_qr_product(n):
    rng = np.random.default_rng(10 + n)
    W, z = rng.normal(size=(n, n)) * 0.9 / np.sqrt(n), rng.normal(size=n)
    found = lyapunov_spectrum(Tanh(jnp.asarray(W)), z, steps=200, transient=0)
    q, total = _frame(n, n), np.zeros(n)  # 200 steps still know where the displacements began
    for _ in range(200):
        z = np.tanh(W @ z + 0.1)
        q, r = np.linalg.qr((1 - z**2)[:, None] * W @ q)
        total += np.log(np.abs(np.diag(r)))
    np.testing.assert_allclose(found.exponents, np.sort(total / 200)[::-1], rtol=1e-8)


def test_fewer_exponents_are_the_largest_ones():
    full, part = (lyapunov_spectrum(Lorenz(), START, steps=20_000, dt=0.01, n_exponents=n) for n in (3, 2))
    np.testing.assert_allclose(part.exponents[0], full.exponents[0], atol=4 * full.errors[0])
    assert part.exponents.shape == (2,)
    assert np.isnan(part.kaplan_yorke)  # 0.9 + 0 is not negative: two exponents do not tell


def test_float32_models_are_computed_in_float64():
    W = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32) * 0.5
    with jax.enable_x64(False):
        single = lyapunov_spectrum(Tanh(jnp.asarray(W)), np.ones(3, np.float32), steps=100)
    double = lyapunov_spectrum(Tanh(jnp.asarray(W, jnp.float64)), np.ones(3), steps=100)
    assert single.exponents.dtype == np.float64
    np.testing.assert_allclose(single.exponents, double.exponents, rtol=1e-12)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_unit_vector_that_the_jacobian_loses_costs_no_exponent(lost):
    # a linear map of rank two in three dimensions with the exponents ln 2 and ln 0.5; one unit vector goes to zero
    J = jnp.asarray(np.roll([[0.0, 0.0, 0.0], [0.0, 2.0, 1.0], [0.0, 0.0, 0.5]], (lost, lost), axis=(0, 1)))
    two, three = (lyapunov_spectrum(Linear(J), np.zeros(3), steps=500, n_exponents=n).exponents for n in (2, 3))
    assert two == pytest.approx(np.log([2.0, 0.5]), abs=1e-9)
    assert three[:2] == pytest.approx(two, abs=1e-12)
    assert three[2] == -np.inf


@pytest.mark.parametrize("x", [-0.1, 0.1])
def test_the_lozi_map_as_an_rnn_of_rank_two_keeps_both_exponents(x):
    # x' = 1 - 1.7 |x| + y, y' = 0.5 x with the state (y, x, -x): |det| = 0.5 on the plane of the states, the third direction vanishes
    W = jnp.array([[0.0, 0.5, -0.5], [1.0, -1.7, -1.7], [-1.0, 1.7, 1.7]])
    observation = IdentityObservation(n_obs=3, dim=3)
    model = ALRNN(jnp.zeros(3), W, jnp.array([0.0, 1.0, -1.0]), jnp.zeros((3, 0)), observation, n_relu=2)
    for count in (2, 3):
        found = lyapunov_spectrum(model, np.array([0.0, x, -x]), steps=5000, n_exponents=count).exponents
        assert found[:2].sum() == pytest.approx(np.log(0.5), abs=1e-9)
        assert found[0] > 0.4


def test_a_singular_map_has_minus_infinity():
    found = lyapunov_spectrum(Linear(jnp.diag(jnp.array([0.5, 0.0]))), np.ones(2), steps=100)
    assert found.exponents[0] == pytest.approx(np.log(0.5))
    assert found.exponents[1] == -np.inf
    assert found.kaplan_yorke == 0.0


def test_divergence_is_a_status():
    found = lyapunov_spectrum(Henon(), np.array([10.0, 10.0]), steps=1000)
    assert found.status is Status.DIVERGED
    assert np.isnan(found.exponents).all()
    assert np.isnan(found.kaplan_yorke)
    assert np.isnan(lyapunov_max(Henon(), np.array([10.0, 10.0]), steps=1000))


@pytest.mark.parametrize(
    ("exponents", "dimension"),
    [
        ([0.9056, 0.0, -14.5723], 2 + 0.9056 / 14.5723),
        ([-14.5723, 0.9056, 0.0], 2 + 0.9056 / 14.5723),
        ([-0.1, -0.2], 0.0),
        ([0.0, -0.3, -1.0], 1.0),
        ([0.1, 0.0, -0.1], 3.0),
        ([0.5, 0.2], 2.0),
        ([0.2, -np.inf], 1.0),
        ([0.3, 0.1, -0.2, -0.5, -3.0], 3 + 0.2 / 0.5),
    ],
)
def test_kaplan_yorke_by_hand(exponents, dimension):
    assert kaplan_yorke_dimension(np.array(exponents)) == pytest.approx(dimension)


def test_kaplan_yorke_of_a_limit_cycle():
    assert kaplan_yorke_dimension(np.array([-1e-5, -0.5])) == 0.0
    assert kaplan_yorke_dimension(np.array([-1e-5, -0.5]), tolerance=1e-3) == 1.0


@pytest.mark.parametrize(
    ("system", "z0", "settings", "message"),
    [
        (Lorenz(), START, {}, "a flow needs dt"),
        (Lorenz(), START, {"dt": -0.1}, "dt must be positive"),
        (Henon(), START, {}, r"z0 must be one state of shape \(2,\) or states of shape \(B, 2\), got shape \(3,\)"),
        (Henon(), START[:2], {"n_exponents": 3}, r"n_exponents must be in \[1, 2\], got 3"),
        (Henon(), START[:2], {"segments": 1}, "segments >= 2"),
        (Henon(), START[:2], {"every": 0}, "every >= 1"),
    ],
)
def test_bad_settings_are_named(system, z0, settings, message):
    with pytest.raises(InvalidValue, match=message):
        lyapunov_spectrum(system, z0, steps=100, **settings)

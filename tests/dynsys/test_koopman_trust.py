"""Residuals, filtered spectra and pseudospectra: systems whose Koopman operator is known, and independent computations."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from array_api_compat import array_namespace
from numpy.polynomial import chebyshev, legendre
from numpy.testing import assert_allclose
from scipy.integrate import quad

from dynsys.analysis.compression import Compression
from dynsys.analysis.koopman_spectrum import KoopmanSpectrum
from dynsys.analysis.pseudospectrum import pseudo_eigenfunction, pseudospectrum, unit_grid
from dynsys.analysis.residual import _ratio, encoder, koopman_spectrum, latent_moments, residual_dmd, residual_dmd_of_pairs
from dynsys.errors import InvalidValue
from dynsys.models.koopman.lifted import AbstractLinear, windows
from dynsys.models.koopman.moments import Moments

OMEGA = np.sqrt(2.0)
ALPHA = 2.0
BETA = -1.0 - np.exp(-ALPHA)


class Quadratic(AbstractLinear):
    """y = (1, w, w_i w_j): linear systems move it linearly; matrix as given."""

    K: Any
    delays: int = eqx.field(static=True, default=1)
    reencode: int = eqx.field(static=True, default=0)
    n_obs: int = eqx.field(static=True, default=2)
    n_inputs: int = eqx.field(static=True, default=0)
    plain: bool = eqx.field(static=True, default=False)

    @property
    def n_latent(self):
        return self.K.shape[0]

    @property
    def matrix(self):
        return self.K.T

    def encode(self, w):
        xp = np if self.plain else array_namespace(w)
        w = np.asarray(w) if self.plain else w  # as a function of a user who knows NumPy alone
        products = [w[i : i + 1] * w[i:] for i in range(w.shape[0])]
        return xp.concat([xp.ones_like(w[:1]), w, *products])

    def decode(self, y):
        return y[1 : 1 + self.n_obs]

    def advance(self, y, u=None):
        return self.matrix @ y


def waves(theta, most):
    parts = [part(k * theta) for k in range(1, most + 1) for part in (np.cos, np.sin)]
    return np.stack([np.ones_like(theta), *parts], axis=1)


def rotation(most=5, points=64):
    """Features of equispaced points of the circle and of their images; sums over the points are exact integrals."""
    theta = 2 * np.pi * np.arange(points) / points
    return waves(theta, most), waves(theta + OMEGA, most)


def gauss_map(x):
    return np.exp(-ALPHA * x**2) + BETA


def gauss_legendre(nodes=200):
    """Nodes and weights, of sum 1, on [-1, 0]."""
    x, w = legendre.leggauss(nodes)
    return (x - 1) / 2, w / 2


def legendre_features(x, count):
    return legendre.legvander(2 * x + 1, count - 1)


def linear_runs(B, runs=4, steps=60, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(runs):
        x = [rng.normal(size=len(B))]
        for _ in range(steps):
            x.append(B @ x[-1])
        made.append(np.array(x))
    return made


DAMPED = np.array([[0.9, 0.3], [-0.3, 0.9]]) * 0.99 @ np.diag([1.0, 0.9])


def quadratic_spectrum(B):
    a, b = np.linalg.eigvals(B)
    return np.array([1, a, b, a * a, a * b, b * b])


def assert_same_set(found, wanted, atol):
    distance = np.abs(np.asarray(found)[:, None] - np.asarray(wanted)[None, :])
    assert len(found) == len(wanted)
    rows, columns = scipy.optimize.linear_sum_assignment(distance)
    assert distance[rows, columns].max() < atol


def quadratic_model(B, runs, **options):
    model = Quadratic(np.eye(6), **options)
    lift = encoder(model)
    before, after = (np.concatenate([lift(x[part]) for x in runs]) for part in (slice(None, -1), slice(1, None)))
    return Quadratic(np.linalg.lstsq(before, after, rcond=None)[0], **options), before, after


def test_a_rotation_has_its_eigenvalues_and_no_residual():
    before, after = rotation()
    wanted = np.exp(1j * OMEGA * np.arange(-5, 6))
    found = residual_dmd_of_pairs(before, after)
    assert_same_set(found.values, wanted, 1e-12)  # rounding of an 11 x 11 orthogonal matrix
    assert found.residuals.max() < 1e-12
    coarse = residual_dmd(Moments.of_pairs(before, after))
    assert_same_set(coarse.values, wanted, 1e-12)
    assert coarse.residuals.max() < 20 * coarse.floors[0] < 1e-6  # moments see residuals down to the root of eps
    assert_allclose(np.mean(np.abs(found.eigenfunctions(before)) ** 2, axis=0), 1.0, rtol=1e-12)


def test_frequencies_and_growth_rates_are_per_unit_of_time():
    before, after = rotation(1)
    found = residual_dmd_of_pairs(before, 0.5 * after, dt=0.25)  # K of this "system": half a rotation
    assert_allclose(found.growth_rates, np.log(0.5) / 0.25, rtol=1e-12)
    assert_allclose(np.sort(np.abs(found.frequencies)), np.array([0, 1, 1]) * OMEGA / (2 * np.pi) / 0.25, atol=1e-12)


def test_floors_are_where_rounding_is():
    """x -> (x + 1)/2 on monomials, phi = (x - 1)^k: residuals are zero in truth; rounding grows with the cancellation in phi."""
    x = np.linspace(0, 1, 101)
    before, after = (np.vander(v, 8, increasing=True) for v in (x, (x + 1) / 2))
    for found in (residual_dmd(Moments.of_pairs(before, after)), residual_dmd_of_pairs(before, after)):
        assert (found.residuals < 30 * found.floors).all()
        assert (found.residuals > found.floors / 1e4).any()  # the floors are no mere excuse
        assert found.floors.max() > 10 * found.floors.min()


@pytest.mark.filterwarnings("error")
def test_the_eigenvalue_zero_has_no_rate():
    none, one = np.zeros(2), np.full(2, 0.01)
    found = KoopmanSpectrum(np.array([0.0, -0.5 + 0j]), one, none, none, np.eye(2, dtype=complex), None, 10, dt=0.5)
    assert_allclose(found.growth_rates, [-np.inf, 2 * np.log(0.5)])
    assert_allclose(found.frequencies, [0.0, 1.0])
    assert_allclose(found.rate_bounds, [np.inf, -2 * np.log(1 - 0.02)])


def test_eigenvalues_are_those_of_the_regression_with_ridge_or_rank():
    rng = np.random.default_rng(0)
    before = rng.normal(size=(200, 7))
    size = 10.0 ** np.arange(-3, 4)  # columns of very different size
    before, after = before * size, (before @ rng.normal(size=(7, 7)) / 7 + np.tanh(before)) * size
    moments = Moments.of_pairs(before, after)
    for options in ({}, {"ridge": 0.1}, {"rank": 4}, {"rank": 5, "ridge": 0.03}):
        K = moments.solve(options.get("ridge", 0.0), options.get("rank"))
        wanted = sorted(np.linalg.eigvals(K), key=abs)[7 - options.get("rank", 7) :]  # a cut leaves zeros
        for found in (residual_dmd(moments, **options), residual_dmd_of_pairs(before, after, **options)):
            assert_same_set(found.values, wanted, 1e-10)  # the scaled G is well conditioned
            phi, moved = before @ found.vectors, after @ found.vectors
            by_hand = np.sqrt(np.mean(np.abs(moved - phi * found.values) ** 2, axis=0) / np.mean(np.abs(phi) ** 2, axis=0))
            assert_allclose(found.residuals, by_hand, rtol=1e-8)


@pytest.mark.parametrize("count", [10, 20])
def test_residuals_of_the_gauss_map_are_those_of_adaptive_quadrature(count):
    """Data: 20,000 midpoints of [-1, 0], an error of order 1/20000^2 = 2.5e-9; truth: scipy's adaptive rule on the functions."""
    x = -(np.arange(20_000) + 0.5) / 20_000
    found = residual_dmd(Moments.of_pairs(legendre_features(x, count), legendre_features(gauss_map(x), count)))
    for i in range(0, count, 3):

        def phi(x, i=i):
            return legendre_features(np.atleast_1d(x), count)[0] @ found.vectors[:, i]

        def missed(x, i=i, phi=phi):
            return abs(phi(gauss_map(x)) - found.values[i] * phi(x)) ** 2

        top, bottom = (quad(f, -1, 0, limit=200)[0] for f in (missed, lambda x, phi=phi: abs(phi(x)) ** 2))
        assert_allclose(found.residuals[i], np.sqrt(top / bottom), rtol=1e-5, atol=1e-6)


def test_the_gauss_map_keeps_its_true_eigenvalues_and_loses_the_others():
    """On analytic functions the eigenvalues are powers of the slopes at fixed points (here 1, and those of the attracting end)."""
    x, w = gauss_legendre()
    fine = residual_dmd_of_pairs(legendre_features(x, 40), legendre_features(gauss_map(x), 40), w)
    coarse = residual_dmd_of_pairs(legendre_features(x, 20), legendre_features(gauss_map(x), 20), w)
    good = fine.trusted(1e-3)
    assert 5 < len(good.values) < 35
    for value, residual in zip(coarse.values, coarse.residuals, strict=True):
        # what a small dictionary says it knows, a larger one confirms: the bound is the operator's, not the dictionary's
        space = Compression.of_pairs(legendre_features(x, 40), legendre_features(gauss_map(x), 40), w)
        assert pseudospectrum(space, np.array([value]))[0] <= residual + 1e-10
    bad = fine.values[fine.residuals > 0.05]
    assert len(bad) > 10
    assert np.abs(bad).min() > 0.3  # the ring of spurious eigenvalues
    said = fine.words(0.01)
    assert said[1].startswith("eigenvalue 1: residual")
    assert sum(": spurious: " in line for line in said) > 5


def test_the_logistic_map_has_no_eigenvalue_but_one():
    """K is an isometry, so an eigenpair of its projection has residual sqrt(1 - |lambda|^2) exactly; that of T_n is T_2n."""
    theta = np.pi * (np.arange(200) + 0.5) / 200  # Gauss-Chebyshev nodes: exact for the arcsine measure
    x = np.cos(theta)
    found = residual_dmd_of_pairs(chebyshev.chebvander(x, 19), chebyshev.chebvander(2 * x**2 - 1, 19))
    assert_allclose(found.values[0], 1.0, atol=1e-12)
    assert found.residuals[0] < 1e-12
    assert_allclose(found.residuals[1:], np.sqrt(1 - np.abs(found.values[1:]) ** 2), atol=1e-12)
    assert found.residuals[1:].min() > 0.99
    assert len(found.trusted().values) == 1
    said = found.words()
    assert said[0].startswith("1 of 20 eigenpairs")
    assert ": trusted" in said[1]
    assert all(": spurious: over one step its function misses lambda times itself by 100 %" in line for line in said[2:12])


def test_the_logistic_map_from_an_orbit():
    """20,000 points: means off by about 1/sqrt(20000), eigenvalues of a nilpotent matrix by its fourth root or so."""
    x = np.empty(20_001)
    x[0] = 0.3
    for t in range(20_000):
        x[t + 1] = 4 * x[t] * (1 - x[t])
    psi = legendre.legvander(2 * x - 1, 9)
    found = residual_dmd(Moments.of([psi]))
    assert_allclose(found.values[0], 1.0, atol=1e-10)
    assert found.residuals[0] < 1e-6
    assert found.residuals[1:].min() > 0.9
    assert_allclose(found.residuals, residual_dmd_of_pairs(psi[:-1], psi[1:]).residuals, atol=1e-6)


def test_a_linear_system_has_products_of_its_eigenvalues():
    runs = linear_runs(DAMPED)
    model, before, after = quadratic_model(DAMPED, runs)
    wanted = quadratic_spectrum(DAMPED)
    pairs = residual_dmd_of_pairs(before, after)
    assert_same_set(pairs.values, wanted, 1e-10)
    assert pairs.residuals.max() < 1e-11
    streamed = koopman_spectrum(model, runs, dt=0.5)
    assert_same_set(streamed.values, wanted, 1e-10)
    assert streamed.residuals.max() < 1e-11
    assert streamed.count == len(before) == 240
    assert_allclose(streamed.continuous, np.log(streamed.values) / 0.5)
    assert_allclose(np.mean(np.abs(streamed.eigenfunctions(before)) ** 2, axis=0), 1.0, rtol=1e-12)


def test_modes_put_the_observation_together():
    runs = linear_runs(DAMPED)
    model, before, after = quadratic_model(DAMPED, runs)
    found = koopman_spectrum(model, runs)
    x = np.concatenate([run[:-1] for run in runs])
    assert_allclose(found.eigenfunctions(before) @ found.modes, x, atol=1e-9)
    made = found.eigenfunctions(before) * found.values**3 @ found.modes  # and move it: three steps ahead
    assert_allclose(made, x @ np.linalg.matrix_power(DAMPED, 3).T, atol=1e-9)
    assert koopman_spectrum(model, runs, with_modes=False).modes is None
    C = np.eye(6)[:, 1:3]
    for other in (residual_dmd_of_pairs(before, after, observed=C), residual_dmd(Moments.of_pairs(before, after), observed=C)):
        assert_allclose(before @ other.vectors @ other.modes, x, atol=1e-8)


def test_blocks_trajectories_and_steps_leave_the_residuals_the_same(monkeypatch):
    rng = np.random.default_rng(1)
    x = np.cumsum(rng.normal(size=(500, 2)), axis=0) % 3.0
    runs = [x[:200], x[200:203], x[203:205], x[205:]]
    model = Quadratic(rng.normal(size=(6, 6)) / 3)
    for steps in (1, 4):
        lift = encoder(model)
        before, after = (
            np.concatenate([lift(run[part]) for run in runs if len(run) > steps]) for part in (slice(0, -steps), slice(steps, None))
        )
        found = koopman_spectrum(model, runs, steps=steps)
        assert found.count == len(before)
        phi, moved = before @ found.vectors, after @ found.vectors
        assert_allclose(found.residuals, np.sqrt(np.mean(np.abs(moved - phi * found.values**steps) ** 2, axis=0)), rtol=1e-10)
        monkeypatch.setattr("dynsys.analysis.residual.BLOCK", 7)
        assert_allclose(koopman_spectrum(model, runs, steps=steps).residuals, found.residuals, rtol=1e-12)
        monkeypatch.undo()


def test_delays_are_encoded_as_windows():
    """One coordinate of a rotation and its last value: a linear system of two variables."""
    x = np.cos(0.7 * np.arange(300))[:, None]
    model = Quadratic(np.eye(6), delays=2, n_obs=1)
    psi = encoder(model)(windows(x, 2))
    model = Quadratic(np.linalg.lstsq(psi[:-1], psi[1:], rcond=None)[0], delays=2, n_obs=1)
    found = koopman_spectrum(model, x)
    # the square of the radius is constant, so the features are dependent: one combination vanishes on the data
    assert np.isinf(found.residuals).sum() == 1
    good = found.trusted(1e-8)
    assert_same_set(good.values[np.abs(good.values) > 0.1], np.exp(0.7j * np.array([-2, -1, 0, 1, 2])), 1e-8)
    assert_allclose(found.eigenfunctions(psi) @ found.modes, x[1:], atol=1e-6)


def test_a_function_of_numpy_alone_is_called_row_by_row():
    runs = linear_runs(DAMPED, runs=1)
    model, before, _ = quadratic_model(DAMPED, runs, plain=True)
    assert_allclose(encoder(model)(runs[0][:-1]), before, atol=0)
    assert koopman_spectrum(model, runs).residuals.max() < 1e-10


def test_float32_parameters_are_analysed_in_float64():
    runs = linear_runs(DAMPED)
    model, _, _ = quadratic_model(DAMPED, runs)
    rough = Quadratic(jnp.asarray(model.K, jnp.float32))
    assert latent_moments(rough, runs).G.dtype == np.float64
    found = koopman_spectrum(rough, runs)
    assert found.values.dtype == np.complex128
    assert 1e-9 < found.residuals.max() < 1e-4  # the parameters' rounding


def noisy(seed, steps):
    """x' = a x + noise of unit variance: phi = x has lambda = a and residual^2 = var(noise) / var(x) = 1 - a^2."""
    rng = np.random.default_rng(seed)
    x = np.empty((steps, 1))
    x[0] = rng.normal() / np.sqrt(1 - 0.64)
    for t in range(steps - 1):
        x[t + 1] = 0.8 * x[t] + rng.normal()
    return x


def test_standard_errors_are_the_spread_over_realisations():
    model = Quadratic(np.diag([1.0, 0.8, 0.64]), n_obs=1)
    found = [koopman_spectrum(model, noisy(seed, 3200), with_modes=False) for seed in range(24)]
    mine = [(s.residuals[k], s.errors[k]) for s in found for k in [int(np.argmin(np.abs(s.values - 0.8)))]]
    residuals, errors = np.array(mine).T
    # 24 realisations know a spread to 1/sqrt(48) = 15 %, 32 batches theirs to 13 %; three times that
    assert_allclose(errors.mean(), residuals.std(ddof=1), rtol=0.5)
    assert_allclose(residuals.mean(), 0.6, atol=3 * errors.mean() / np.sqrt(24))
    said = next(line for line in found[0].words() if line.startswith("eigenvalue 0.8:"))
    assert f"residual {residuals[0]:.2g} ± {errors[0]:.1g}: spurious" in said
    constant = int(np.argmin(np.abs(found[0].values - 1.0)))
    assert found[0].errors[constant] == 0


def test_two_batches_have_the_standard_error_of_their_mean():
    """Data of one size: residual^2 is a mean, here of 1 and 3, and its standard error std(ddof=1) / sqrt(2)."""
    residual, error, size = _ratio(np.array([[1.0], [3.0]]), np.ones((2, 1)), 8, np.zeros(1))
    assert_allclose(residual, np.sqrt(2.0))
    assert_allclose(error, np.std([1, 3], ddof=1) / np.sqrt(2) / (2 * np.sqrt(2.0)))
    assert_allclose(size, 0.5)


def test_a_fine_sampling_is_seen_through():
    """Any smooth function has a small residual over 0.001 time units; over 1000 steps only a true one does."""
    dt = 0.001
    B = np.array([[np.cos(dt), np.sin(dt)], [-np.sin(dt), np.cos(dt)]])
    runs = linear_runs(B, runs=2, steps=4000)
    wrong = Quadratic(np.eye(6) * np.exp(-0.1 * dt))
    near = koopman_spectrum(wrong, runs, dt=dt)
    assert near.residuals.max() < 0.01
    assert "can't be told from a constant of the motion" in " ".join(near.words())
    assert near.rate_bounds[-1] > 0.5  # which is what the bound says
    assert koopman_spectrum(wrong, runs, dt=dt, steps=1000).residuals.max() > 0.5


def test_words_tell_what_is_known():
    values = np.array([1.0, 0.9 + 0.3j, 0.9 - 0.3j, 0.5, 0.4, -1.02, 1e-9])
    residuals = np.array([0.0, 0.01, 0.01, 0.05, 0.1, 0.61, 0.02])
    errors = np.array([0.0, 0.003, 0.003, 0.03, 0.003, 0.02, 0.001])
    one = KoopmanSpectrum(values, residuals, errors, np.full(7, 1e-12), np.eye(7, dtype=complex), None, 100, notes=("A note.",))
    said = one.words()
    assert said[0] == "5 of 7 eigenpairs have a residual of at most 0.05 and are trusted, from 100 pairs of points."
    assert said[1] == "eigenvalue 1: residual 0 to rounding (below 1e-12): trusted: growth rate 0, frequency 0."
    assert said[2].startswith(
        "eigenvalue 0.9 ± 0.3i: residual 0.01 ± 0.003: trusted: growth rate -0.0527, frequency 0.0512, the rate known to"
    )
    assert said[3].startswith("eigenvalue 0.5: residual 0.05 ± 0.03: undecided")
    assert "but 0 lies within it" in said[4]
    assert said[5] == "eigenvalue 0.4: residual 0.1 ± 0.003: doubtful: over one step its function misses lambda times itself by 10 %."
    assert said[6] == "eigenvalue -1.02: residual 0.61 ± 0.02: spurious: over one step its function misses lambda times itself by 61 %."
    assert said[7:] == ("A note.",)
    assert "3 more are trusted; their residuals start at 0.01." in one.words(most=1)
    assert list(one.trusted(0.015).residuals) == [0.0, 0.01, 0.01]
    assert_allclose(one.taken(np.argsort(-np.abs(values))).values[0], -1.02)
    assert one.trusted().vectors.shape == (7, 5)


def test_inputs_are_mentioned():
    runs = linear_runs(DAMPED)
    model, _, _ = quadratic_model(DAMPED, runs, n_inputs=1)
    assert "u = 0" in koopman_spectrum(model, runs).words()[-1]


def test_an_eigenfunction_that_vanishes_on_the_data_is_said():
    model = Quadratic(np.diag([1.0, 0.5, 0.4, 0.25, 0.2, 0.16]))
    x = np.stack([0.5 ** np.arange(20), np.zeros(20)], axis=1)
    found = koopman_spectrum(model, x)
    assert np.isinf(found.residuals).sum() == 3
    assert "vanishes on the data" in " ".join(found.words())


def test_a_pseudospectrum_of_a_rotation_is_the_distance_to_its_spectrum():
    """K restricted to the span is unitary, so normal: res(z) = min |z - exp(i k omega)|."""
    before, after = rotation()
    grid = unit_grid(1.5, 31)
    wanted = np.abs(grid[..., None] - np.exp(1j * OMEGA * np.arange(-5, 6))).min(axis=-1)
    assert_allclose(pseudospectrum(Compression.of_pairs(before, after), grid), wanted, atol=1e-12)
    assert_allclose(pseudospectrum(Moments.of_pairs(before, after), grid), wanted, atol=1e-7)
    at_one = np.exp(1j * OMEGA * np.array([[0], [3]]))
    assert pseudospectrum(Compression.of_pairs(before, after), at_one).max() < 1e-12


@pytest.mark.parametrize("resolution", [2, 31, 50, 97])
def test_a_grid_is_symmetric_to_the_last_digit(resolution):
    grid = unit_grid(1.3, resolution)
    np.testing.assert_array_equal(grid, grid[::-1].conj())
    assert_allclose([grid[0, 0], grid[-1, -1]], [-1.3 - 1.3j, 1.3 + 1.3j])


def test_a_pseudospectrum_is_the_generalised_eigenvalue_problem():
    x, w = gauss_legendre()
    m = Moments.of_pairs(legendre_features(x, 12), legendre_features(gauss_map(x), 12), w)
    z = np.array([0.0, 0.5 + 0.5j, -0.9, 1.2 - 0.3j, 0.1 + 1.0j])
    wanted = []
    for one in z:
        H = m.L - one * m.A.T - np.conj(one) * m.A + np.abs(one) ** 2 * m.G
        wanted.append(np.sqrt(max(scipy.linalg.eigh(H, m.G, eigvals_only=True)[0], 0.0)))
    assert_allclose(pseudospectrum(m, z), wanted, rtol=1e-6, atol=1e-7)
    for one, res in zip(z, wanted, strict=True):
        found, v = pseudo_eigenfunction(m, one)
        phi, moved = legendre_features(x, 12) @ v, legendre_features(gauss_map(x), 12) @ v
        assert_allclose(found, res, rtol=1e-6, atol=1e-7)
        assert_allclose(w @ np.abs(phi) ** 2, 1.0, rtol=1e-9)
        assert_allclose(np.sqrt(w @ np.abs(moved - one * phi) ** 2), res, rtol=1e-6, atol=1e-7)


def test_a_pseudospectrum_lies_below_the_residuals_and_falls_with_the_dictionary():
    x, w = gauss_legendre()
    grid = unit_grid(1.2, 9)
    levels = []
    for count in (5, 10, 20):
        space = Compression.of_pairs(legendre_features(x, count), legendre_features(gauss_map(x), count), w)
        found = residual_dmd(space)
        assert (pseudospectrum(space, found.values) <= found.residuals + 1e-12).all()
        levels.append(pseudospectrum(space, grid))
    assert (levels[1] <= levels[0] + 1e-12).all()
    assert (levels[2] <= levels[1] + 1e-12).all()
    assert (levels[2] < 0.99 * levels[0]).any()
    assert_allclose(levels[2], levels[2][::-1], atol=0)  # conjugates


def test_dependent_features_are_left_out():
    before, after = rotation(2)
    twice = [np.concatenate([a, a[:, 1:3]], axis=1) for a in (before, after)]
    for source in (Moments.of_pairs(*twice), Compression.of_pairs(*twice)):
        found = residual_dmd(source)
        assert_same_set(found.values, np.exp(1j * OMEGA * np.arange(-2, 3)), 1e-12)
        assert found.vectors.shape == (7, 5)
        assert found.residuals.max() < 1e-6


def test_an_invariant_measure_is_told_from_another():
    before, after = rotation()
    assert Compression.of_pairs(before, after).expansion < 1e-12
    x, w = gauss_legendre()  # Lebesgue measure is not invariant under the Gauss map
    assert Compression.of_pairs(legendre_features(x, 5), legendre_features(gauss_map(x), 5), w).expansion > 0.5


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda m: residual_dmd(m, rank=0), "rank must be"),
        (lambda m: residual_dmd(m, rank=12), "rank must be"),
        (lambda m: residual_dmd(m, ridge=-1.0), "ridge must be"),
        (lambda m: residual_dmd(m, dt=0.0), "dt must be"),
        (lambda m: residual_dmd(Moments(0 * m.G, m.A, m.L, 1)), "all zero"),
        (lambda m: residual_dmd(m).trusted(0.0), "limit must be"),
        (lambda m: residual_dmd_of_pairs(np.ones((3, 2)), np.ones((3, 3))), "one shape"),
        (lambda m: residual_dmd_of_pairs(np.ones((3, 2)), np.full((3, 2), np.nan)), "must be finite"),
        (lambda m: pseudospectrum(m, np.array([np.nan + 0j])), "NaN"),
        (lambda m: unit_grid(0.0), "radius"),
        (lambda m: koopman_spectrum(Quadratic(np.eye(6)), np.ones((9, 3))), r"shape \(T, 2\)"),
        (lambda m: koopman_spectrum(Quadratic(np.eye(6)), np.ones((2, 2))), "longer trajectories"),
        (lambda m: koopman_spectrum(Quadratic(np.eye(6)), np.ones((9, 2)), steps=0), "steps must be"),
        (lambda m: koopman_spectrum(Quadratic(np.eye(6)), np.full((9, 2), np.inf)), "NaN or inf"),
    ],
)
def test_what_can_not_be_done_is_refused(call, word):
    before, after = rotation()
    with pytest.raises(InvalidValue, match=word):
        call(Moments.of_pairs(before, after))

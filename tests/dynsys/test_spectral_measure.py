"""Spectral measures of systems that have them in closed form: rotations (atoms), skew products and expanding maps (densities)."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dynsys.analysis.compression import Compression
from dynsys.analysis.spectral_measure import (
    FourierKernel,
    RationalKernel,
    atoms,
    autocorrelations,
    bump,
    cosine,
    fourth_order,
    hat,
    spectral_measure,
    spectral_measure_of_series,
    transformed,
)
from dynsys.errors import InvalidValue
from dynsys.models.koopman.moments import Moments

GOLDEN = np.pi * (np.sqrt(5.0) - 1.0)  # an angle that is hard to approximate by fractions
ANGLES = -np.pi + 2 * np.pi * np.arange(400) / 400
FILTERS = (hat, cosine, fourth_order, bump)
CIRCLE = 2 * np.pi * np.arange(128) / 128  # sums over it are exact integrals of trigonometric polynomials


def waves(theta, most):
    parts = [part(k * theta) for k in range(1, most + 1) for part in (np.cos, np.sin)]
    return np.stack([np.ones_like(theta), *parts], axis=1)


def smoothed_atoms(kernel, angles, places, masses):
    return sum(m * kernel(angles - p) for p, m in zip(places, masses, strict=True))


def skew_product(steps, x=0.3, y=0.1):
    """Anzai: (x, y) -> (x + omega, y + x) on the torus."""
    t = np.arange(steps)
    return x + GOLDEN * t, y + x * t + GOLDEN * t * (t - 1) / 2


def test_filters_are_one_at_zero_and_zero_at_one_and_their_order_is_their_flatness():
    s = np.linspace(0, 1, 201)
    for one, order in zip(FILTERS, (1, 2, 4, None), strict=True):
        assert_allclose(one(np.array([0.0])), 1.0, atol=1e-15)
        assert_allclose(one(np.array([1.0, -1.0])), 0.0, atol=1e-15)
        assert_allclose(one(-s), one(s), atol=0)
        assert (np.diff(one(s)) <= 1e-15).all()
        near = np.array([0.01, 0.02])
        if order is None:
            assert (1 - one(np.array([0.1])) < 1e-15).all()
        else:
            first, second = 1 - one(near)
            assert_allclose(np.log2(second / first), order, atol=0.1)
    assert_allclose(bump(np.array([0.5])), 0.5, rtol=1e-14)


def test_kernels_have_integral_one_and_moments_up_to_their_order():
    theta = np.linspace(-np.pi, np.pi, 20_001)[:-1] + np.pi / 20_000
    step = theta[1] - theta[0]
    for kernel in (*(FourierKernel(20, one) for one in FILTERS), *(RationalKernel(m, 0.2) for m in (1, 2, 4, 6, 9))):
        assert_allclose(kernel(theta).sum() * step, 1.0, atol=1e-10)  # the rule is exact to rounding for analytic periodic functions
    for m in (1, 2, 3, 4, 6, 9):
        a, c = RationalKernel(m).poles, RationalKernel(m).weights
        vandermonde = a[None, :] ** np.arange(m)[:, None]
        assert_allclose(vandermonde @ c, np.eye(m)[0], atol=1e-9)
    poisson = RationalKernel(1, 0.3)
    r = np.exp(-0.3)
    assert_allclose(poisson(theta), (1 - r**2) / (1 - 2 * r * np.cos(theta) + r**2) / (2 * np.pi), rtol=1e-10)
    assert_allclose(FourierKernel(7, hat)(theta), np.sin(3.5 * theta) ** 2 / np.sin(theta / 2) ** 2 / 7 / (2 * np.pi), atol=1e-12)  # Fejer


@pytest.mark.parametrize("order", [1, 2, 3, 4, 6])
def test_a_rotation_has_atoms_with_the_masses_of_its_fourier_coefficients(order):
    """g = 1/2 + cos t + 0.6 sin 2t: masses 1/4 at 0, 1/4 at +-omega, 0.09 at +-2 omega; the density is the kernel at these."""
    before, after = waves(CIRCLE, 4), waves(CIRCLE + GOLDEN, 4)
    g = np.array([0.5, 1.0, 0, 0, 0.6, 0, 0, 0, 0])
    kernel = RationalKernel(order, 0.05)
    wanted = smoothed_atoms(kernel, ANGLES, GOLDEN * np.array([0, 1, -1, 2, -2]), [0.25, 0.25, 0.25, 0.09, 0.09])
    for source in (Moments.of_pairs(before, after), Compression.of_pairs(before, after)):
        found = spectral_measure(source, g, ANGLES, kernel=kernel)
        assert_allclose(found.density, wanted, atol=1e-10)
        assert_allclose(found.mass, 0.93, rtol=1e-12)
        assert found.bounds is not None
        # nothing leaves this span; moments see that to 1e-8, which 1/epsilon and the weights of order 6 (sum about 100) enlarge
        assert found.bounds.max() < (1e-3 if isinstance(source, Moments) else 1e-9)
        assert "invariant" not in found.note
    complex_g = np.array([0, 1.0, 1j, 0, 0, 0, 0, 0, 0])  # exp(i t): one atom at omega, none at -omega
    found = spectral_measure(Moments.of_pairs(before, after), complex_g, ANGLES, kernel=kernel)
    assert_allclose(found.density, kernel(ANGLES - GOLDEN), atol=1e-10)


def test_the_series_of_a_rotation_gives_the_same_atoms():
    theta = 0.2 + GOLDEN * np.arange(100_000)
    g = 0.5 + np.cos(theta) + 0.6 * np.sin(2 * theta)
    places, masses = GOLDEN * np.array([0, 1, -1, 2, -2]), [0.25, 0.25, 0.25, 0.09, 0.09]
    for one in FILTERS:
        kernel = FourierKernel(50, one)
        found = spectral_measure_of_series(g, ANGLES, kernel=kernel)
        # means over T points are off by about 1/T times 1/|1 - exp(i k omega)| (below 5) and 50 lags add up
        assert_allclose(found.density, smoothed_atoms(kernel, ANGLES, places, masses), atol=50 * 5 / 100_000)
    at, mass = atoms(g, kernel=FourierKernel(200))
    turned = (places + np.pi) % (2 * np.pi) - np.pi
    assert len(at) == 5
    assert_allclose(np.sort(at), np.sort(turned), atol=1e-3)
    assert_allclose(np.sort(mass), np.sort(masses), rtol=0.01)
    without = spectral_measure_of_series(g, np.zeros(1), kernel=FourierKernel(50), centred=True)
    assert abs(without.density[0]) < 0.01 < spectral_measure_of_series(g, np.zeros(1), kernel=FourierKernel(50)).density[0]


def test_mass_around_an_atom_is_its_integral():
    theta = GOLDEN * np.arange(20_000)
    found = spectral_measure_of_series(np.exp(1j * theta) + 0.5 * np.exp(2j * theta), kernel=FourierKernel(200))
    step = found.angles[1] - found.angles[0]
    for k, mass in ((1, 1.0), (2, 0.25)):
        place = (k * GOLDEN + np.pi) % (2 * np.pi) - np.pi
        near = np.abs((found.angles - place + np.pi) % (2 * np.pi) - np.pi) < 0.3
        assert_allclose(found.density[near].sum() * step, mass, atol=0.005)
    assert_allclose(found.density.sum() * step, found.mass, rtol=1e-12)
    assert_allclose(found.mass, 1.25, atol=1e-3)
    assert_allclose(found.frequencies(0.5), found.angles / np.pi)


def test_a_skew_product_has_lebesgue_spectrum():
    """exp(iy) is orthogonal to all its images exp(i(y + n x + ...)): density 1/(2 pi). exp(ix) has one atom; their sum has both."""
    x, y = skew_product(200_000)
    flat = spectral_measure_of_series(np.exp(1j * y), ANGLES, kernel=FourierKernel(30))
    # correlations are off by 1/T times 1/|1 - exp(i n omega)|, largest near the Fibonacci number 21: about 21; 60 terms
    assert_allclose(flat.density, 1 / (2 * np.pi), atol=60 * 21 / 200_000 / (2 * np.pi))
    assert len(atoms(np.exp(1j * y), kernel=FourierKernel(30))[0]) == 0
    mixed = np.exp(1j * y) + np.exp(1j * x)
    kernel = FourierKernel(30)
    found = spectral_measure_of_series(mixed, ANGLES, kernel=kernel)
    # cross terms exp(+-i(y - x)) are quadratic Weyl sums, each of order 1/sqrt(T); at worst 60 of them, twice, add up
    assert_allclose(found.density, 1 / (2 * np.pi) + kernel(ANGLES - GOLDEN), atol=120 / np.sqrt(200_000) / (2 * np.pi))
    at, mass = atoms(mixed, kernel=FourierKernel(200))
    assert_allclose((at - GOLDEN + np.pi) % (2 * np.pi) - np.pi, 0, atol=2e-3)
    assert_allclose(mass, 1.0, atol=0.02)  # the density adds 2 pi rho / sum f = 1/200 to the atom


def anzai_features(most, points=24):
    """cos and sin of k x + y, k = 0..most, on a grid that integrates them exactly."""
    x, y = (v.ravel() for v in np.meshgrid(*(2 * np.pi * np.arange(points) / points,) * 2))

    def psi(x, y):
        return np.stack([part(k * x + y) for k in range(most + 1) for part in (np.cos, np.sin)], axis=1)

    return psi(x, y), psi(x + GOLDEN, y + x)


def test_the_resolvent_of_a_skew_product_gives_the_flat_density():
    before, after = anzai_features(6)
    e = np.zeros(14, complex)
    e[:2] = 1.0, 1j
    found = spectral_measure(Compression.of_pairs(before, after), e, ANGLES, kernel=RationalKernel(4, 0.3))
    assert_allclose(found.density, 1 / (2 * np.pi), atol=1e-12)
    assert found.bounds is not None
    # K e_6 leaves the span, and u = (w - A)^-1 e has the component w^-7 there
    w = np.exp(0.3)
    assert_allclose(found.bounds, np.abs(RationalKernel(4).weights).sum() * w**-6 / (w - 1) / np.pi, rtol=1e-9)


@pytest.mark.parametrize("order", [1, 2, 3, 4, 6])
def test_a_rational_kernel_of_order_m_converges_at_order_m(order):
    """g = e + K e / 2 with K^n e orthonormal: density |1 + exp(i t)/2|^2 / (2 pi) = (5/4 + cos t) / (2 pi)."""
    before, after = anzai_features(4)
    g = np.zeros(10, complex)
    g[:4] = 1.0, 1j, 0.5, 0.5j  # K exp(iy) = exp(i(x + y))
    space, errors = Compression.of_pairs(before, after), []
    for epsilon in (0.2, 0.1, 0.05):
        found = spectral_measure(space, g, ANGLES, kernel=RationalKernel(order, epsilon))
        errors.append(np.abs(found.density - (1.25 + np.cos(ANGLES)) / (2 * np.pi)).max())
    assert_allclose(np.log2(errors[1] / errors[2]), order, atol=0.25)
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize(("one", "order"), [(hat, 1), (cosine, 2), (fourth_order, 4)])
def test_a_filter_of_order_p_converges_at_order_p(one, order):
    """The density (5/4 + cos t) / (2 pi) again, from its exact correlations."""
    errors = []
    for lags in (20, 40, 80):
        kernel = FourierKernel(lags, one)
        a = np.zeros(lags + 1, complex)
        a[:2] = 1.25, 0.5
        errors.append(np.abs(transformed(kernel.weights * a, ANGLES) - (1.25 + np.cos(ANGLES)) / (2 * np.pi)).max())
    assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), order, atol=0.2)


def test_the_bound_holds_where_the_dictionary_is_too_small():
    """A rotation seen through ten smooth bumps, which it moves out of their span; the truth is the kernel at the atoms k omega."""
    centres = 2 * np.pi * np.arange(10) / 10

    def bumps(theta):
        return np.exp(2.0 * (np.cos(theta[:, None] - centres[None, :]) - 1.0))

    before, after = bumps(CIRCLE), bumps(CIRCLE + GOLDEN)
    g = np.zeros(10)
    g[0] = 1.0
    coefficients = np.fft.fft(before[:, 0]) / len(CIRCLE)
    k = np.arange(-20, 21)
    loose = []
    for epsilon in (0.5, 0.2):
        kernel = RationalKernel(2, epsilon)
        found = spectral_measure(Compression.of_pairs(before, after), g, ANGLES, kernel=kernel)
        wanted = smoothed_atoms(kernel, ANGLES, k * GOLDEN, np.abs(coefficients[k]) ** 2)
        off = np.abs(found.density - wanted)
        assert found.bounds is not None
        assert off.max() > 1e-6
        assert (off <= found.bounds).all()
        loose.append(found.bounds.max())
    assert loose[1] > loose[0]  # a sharper kernel needs more functions


def test_a_cut_rank_projects_the_observable():
    before, after = waves(CIRCLE, 3), waves(CIRCLE + GOLDEN, 3)
    twice = [np.concatenate([a, a[:, 1:2]], axis=1) for a in (before, after)]  # cos t is there twice: G is singular
    g = np.array([0, 0.25, 0, 0, 0, 0, 0, 0.75])
    for source in (Moments.of_pairs(*twice), Compression.of_pairs(*twice)):
        found = spectral_measure(source, g, ANGLES)
        assert_allclose(found.mass, 0.5, rtol=1e-10)
        assert_allclose(found.density, smoothed_atoms(found.kernel, ANGLES, [GOLDEN, -GOLDEN], [0.25, 0.25]), atol=1e-8)


def test_a_measure_that_is_not_invariant_is_said():
    theta = CIRCLE
    found = spectral_measure(Moments.of_pairs(waves(theta, 2), waves(theta + 0.9 * np.sin(theta), 2)), np.eye(5)[1], ANGLES)
    assert "do not sample an invariant measure" in found.note


def test_autocorrelations_are_the_plain_sums():
    rng = np.random.default_rng(0)
    runs = [rng.normal(size=n) + 1j * rng.normal(size=n) for n in (30, 5, 17)]
    found = autocorrelations(runs, 8)
    for n in range(9):
        pairs = [g[t + n] * np.conj(g[t]) for g in runs for t in range(len(g) - n)]
        assert_allclose(found[n], np.mean(pairs), rtol=1e-12)
    assert_allclose(autocorrelations(list(runs[0].real), 3), autocorrelations(runs[0].real, 3))
    shifted = [g + 7.0 for g in runs]
    assert_allclose(autocorrelations(shifted, 3, centred=True), autocorrelations(runs, 3, centred=True), atol=1e-10)


def test_chaos_has_no_atoms_but_its_mean():
    """The logistic map: x has mean 1/2 and its fluctuations are uncorrelated (T_1 and its images): atom 1/4, density 1/8 / (2 pi)."""
    x = np.empty(50_000)
    x[0] = 0.3
    for t in range(len(x) - 1):
        x[t + 1] = 4 * x[t] * (1 - x[t])
    at, mass = atoms(x, kernel=FourierKernel(50))
    assert_allclose(at, [0.0], atol=1e-3)
    assert_allclose(mass, [0.25], atol=0.01)
    found = spectral_measure_of_series(x, ANGLES, kernel=FourierKernel(30), centred=True)
    # correlations are off by about (1/8)/sqrt(T); 60 terms add at random, five deviations over all angles
    assert_allclose(found.density, 0.125 / (2 * np.pi), atol=5 * np.sqrt(60) * 0.125 / np.sqrt(50_000) / (2 * np.pi))


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda m: spectral_measure(m, np.ones(4), ANGLES), "wants 5 coefficients"),
        (lambda m: spectral_measure(m, np.ones(5), np.array([np.nan])), "finite angles"),
        (lambda m: RationalKernel(0), "order must be"),
        (lambda m: RationalKernel(2, 0.0), "epsilon must be"),
        (lambda m: FourierKernel(0), "lags must be"),
        (lambda m: spectral_measure_of_series(np.ones(10), kernel=FourierKernel(10)), r"lags must be in \[0, 9\]"),
        (lambda m: spectral_measure_of_series(np.ones((10, 2))), r"shape \(T,\)"),
        (lambda m: spectral_measure_of_series([np.ones(10), np.array([1, np.inf])]), "finite numbers"),
        (lambda m: atoms(np.ones(100), kernel=FourierKernel(4)), "at least 8 lags"),
    ],
)
def test_what_can_not_be_done_is_refused(call, word):
    with pytest.raises(InvalidValue, match=word):
        call(Moments.of_pairs(waves(CIRCLE, 2), waves(CIRCLE + GOLDEN, 2)))

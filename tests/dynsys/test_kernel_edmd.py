"""Kernel EDMD against dense formulas, dictionaries, linear systems and a stochastic process whose eigenvalues are known."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import torch
from numpy.testing import assert_allclose

from dynsys.dynamics import rollout, warm_up
from dynsys.errors import InvalidValue
from dynsys.models.autoregressive import monomials
from dynsys.models.koopman import kernel_edmd
from dynsys.models.koopman.kernel_edmd import KernelEDMD, leading
from dynsys.models.koopman.kernels import KERNELS, ORDERS, Gaussian, Landmarks, Matern, Polynomial, kernel_of
from dynsys.models.koopman.moments import Moments
from dynsys.models.regressed import as_numpy, free_run

from .model_cases import waves


def henon(points, seed=0):
    """The Henon map (a = 1.4, b = 0.3) on its attractor."""
    z = np.array([0.1, 0.1]) + 1e-3 * np.random.default_rng(seed).normal(size=2)
    path = np.empty((points + 100, 2))
    for t in range(len(path)):
        z = np.array([1.0 - 1.4 * z[0] ** 2 + z[1], 0.3 * z[0]])
        path[t] = z
    return path[100:]


def standard(x):
    return (x - x.mean(axis=0)) / x.std(axis=0)


def distance(a, b):
    """The largest distance of an eigenvalue of either set to the other set."""
    apart = np.abs(np.asarray(a)[:, None] - np.asarray(b)[None, :])
    return max(apart.min(axis=0).max(), apart.min(axis=1).max())


def spectrum(model):
    return np.linalg.eigvals(model.M)


def dense(v, kernel, rank, g, method):
    """Eigenvalues and one-step predictions of every v from the n x n kernel matrices, Kostic et al. 2022, secs. 3 and 4: the operator is
    k(., X) U V^T k(., Y) / n, where (K_Y K_X / n^2) U = s^2 (K_X / n + g) U, U^T K_X (K_X / n + g) U / n = 1 and V = K_X U / n."""
    x, y = v[:-1], v[1:]
    n = len(x)
    K, L, YX = (kernel.gram(a, b) / n for a, b in ((x, x), (y, y), (y, x)))
    if method == "reduced-rank":
        values, vectors = scipy.linalg.eig(L @ K, K + g * np.eye(n))
        U = vectors[:, np.argsort(-values.real)[:rank]].real
        U = U / np.sqrt(np.einsum("ir,ir->r", U, K @ (K + g * np.eye(n)) @ U))[None, :]
        V = K @ U
    else:
        values, vectors = np.linalg.eigh(K)
        U = V = vectors[:, -rank:] / np.sqrt(values[-rank:] + g)[None, :]
    return np.linalg.eigvals(V.T @ YX @ U), kernel.gram(v, x) @ U @ (V.T @ y) / n


# kernels


@pytest.mark.parametrize(("name", "twice"), ORDERS.items())
def test_matern_kernels_are_the_general_formula(name, twice):
    from scipy.special import gamma, kv

    r, w, nu = np.linspace(0.01, 4.0, 30), 0.7, twice / 2  # Rasmussen & Williams, eq. 4.14
    scaled = np.sqrt(2 * nu) * r / w
    found = kernel_of(name, w, 1).gram(r[:, None], np.zeros((1, 1)))[:, 0]
    assert_allclose(found, 2 ** (1 - nu) / gamma(nu) * scaled**nu * kv(nu, scaled), rtol=1e-12)


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_agree_in_all_forms_and_libraries(name):
    kernel, v = kernel_of(name, 0.8, 3, 0.5), waves(20)
    expected = kernel.gram(v, v[:7])
    for made in (kernel(v, v[:7]), kernel(jnp.asarray(v), jnp.asarray(v[:7])), kernel(torch.from_numpy(v), torch.from_numpy(v[:7]))):
        assert_allclose(np.asarray(made), expected, rtol=1e-12)
    assert_allclose(kernel(v[3], v[:7]), expected[3], rtol=1e-12)
    assert_allclose(kernel.power(v), np.diag(kernel.gram(v, v)), rtol=1e-12)
    assert np.linalg.eigvalsh(kernel.gram(v, v)).min() > -1e-10 * kernel.power(v).max()
    slope = jax.jacrev(lambda a: kernel(a, jnp.asarray(v[:7])))(jnp.asarray(v[2]))  # at a centre, where r = 0; forward mode needs no care
    assert np.isfinite(np.asarray(slope)).all()


def test_landmarks_span_their_windows():
    v, kernel = standard(henon(200)), Gaussian(0.5)
    every = Landmarks.among(kernel, v, 200)
    # what is left of a window is below 1e-13; an inner product of two of them below the same
    assert_allclose(every(v) @ every(v).T, kernel.gram(v, v), atol=1e-11)
    few = Landmarks.among(kernel, v, 12)
    left = 1.0 - (few(v) ** 2).sum(axis=1)
    assert len(few.Z) == 12
    assert left.min() > -1e-9
    assert 1e-6 < left.max() < 0.5
    W = np.random.default_rng(0).normal(size=(12, 3))
    assert_allclose(kernel.gram(v, few.Z) @ few.coefficients(W), few(v) @ W, atol=1e-8)


# the estimator


@pytest.mark.parametrize("method", ["reduced-rank", "principal"])
@pytest.mark.parametrize(("kernel", "ridge"), [("gaussian", 1e-5), ("matern-3/2", 1e-4), ("polynomial", 1e-5)])
def test_it_is_the_estimator_of_the_dense_formula(method, kernel, ridge):
    x = henon(201)
    given = {} if kernel == "polynomial" else {"width": 0.7}
    model = KernelEDMD.from_series([x], kernel=kernel, rank=8, ridge=ridge, method=method, **given)
    own = kernel_of(kernel, 0.7, 3)
    values, predicted = dense(standard(x), own, 8, ridge * own.power(standard(x)[:-1]).mean(), method)
    # the dense formula solves an unsymmetric pencil of condition number 1 / ridge with a null space: it has about eight digits where the
    # kernel matrix has full rank, and seven with the polynomial one
    tolerance = 1e-6 if kernel == "polynomial" else 1e-8
    assert distance(spectrum(model), values) < tolerance
    ahead = np.stack([model.observe(model.step(model.lift(point))) for point in x])
    assert_allclose(standard_like(ahead, x), predicted, atol=tolerance)
    assert_allclose(model.observe(model.lift(x[5])), x[5], atol=1e-14)


def standard_like(made, x):
    return (made - x.mean(axis=0)) / x.std(axis=0)


def test_a_polynomial_kernel_of_full_rank_is_edmd_on_monomials():
    x, degree = henon(400), 3
    v = standard(x)
    psi = np.concatenate([np.ones((len(v), 1)), monomials(v, degree)], axis=1)
    expected = np.linalg.eigvals(Moments.of([psi]).solve())
    for method in ("reduced-rank", "principal"):
        model = KernelEDMD.from_series([x], kernel="polynomial", degree=degree, rank=10, ridge=0.0, method=method)
        assert distance(spectrum(model), expected) < 1e-6
    with pytest.raises(InvalidValue, match="rank=11, but the kernel matrix of these data has 10 directions"):
        KernelEDMD.from_series([x], kernel="polynomial", degree=degree, rank=11, ridge=0.0)


def test_eigenvalues_of_a_linear_system():
    A = np.array([[0.9, -0.3], [0.2, 0.7]])
    rng = np.random.default_rng(0)
    runs = []
    for _ in range(20):
        path = [rng.normal(size=2)]
        for _ in range(12):
            path.append(A @ path[-1])
        runs.append(np.array(path))
    lam = np.linalg.eigvals(A)
    model = KernelEDMD.from_series(runs, kernel="polynomial", degree=2, rank=6, ridge=0.0)
    products = np.concatenate([[1.0], lam, [lam[0] ** 2, lam[0] * lam[1], lam[1] ** 2]])  # degree 2 is invariant
    assert distance(spectrum(model), products) < 1e-8
    assert distance(np.linalg.eigvals(model.matrix), np.append(products, 0.0)) < 1e-7
    path = free_run(model, runs[0][:1], 12)
    assert_allclose(path, runs[0][1:], atol=1e-8)


@pytest.mark.parametrize("kernel", ["gaussian", "polynomial"])
def test_eigenvalues_of_an_ornstein_uhlenbeck_process(kernel):
    # x' = -theta x + noise, sampled exactly every dt: eigenvalues e^(-k theta dt), eigenfunctions Hermite polynomials. With 10 starts in
    # equilibrium of 10,000 points each, the standard error of the first eigenvalue, sqrt((1 - a^2) / 100,000), is 0.2 % of it
    rng, decay = np.random.default_rng(1), 0.8
    x = rng.normal(size=(10, 1))
    paths = [x]
    for _ in range(9999):
        x = decay * x + np.sqrt(1 - decay**2) * rng.normal(size=(10, 1))
        paths.append(x)
    given = {"width": 2.0} if kernel == "gaussian" else {"degree": 4}  # whose five directions are all kept
    model = KernelEDMD.from_series(list(np.stack(paths, axis=1)), kernel=kernel, rank=5, ridge=1e-6, centres=60, **given)
    values = np.sort(spectrum(model).real)[::-1]
    assert_allclose(values[:3], decay ** np.arange(3), rtol=0.02)
    assert_allclose(np.log(values[1]), np.log(decay), rtol=0.02)  # theta itself


def test_landmarks_may_be_all_points_or_a_few():
    x = henon(600)
    settings = {"width": 0.5, "rank": 10, "ridge": 1e-6}
    full = KernelEDMD.from_series([x], **settings)
    every = KernelEDMD.from_series([x], centres=600, **settings)
    assert distance(spectrum(full), spectrum(every)) < 1e-12
    few = KernelEDMD.from_series([x], centres=60, **settings)
    assert few.Z.shape == (60, 2)
    assert distance(spectrum(full), spectrum(few)) < 1e-2
    coarse = KernelEDMD.from_series([x], centres=15, **settings)
    assert distance(spectrum(full), spectrum(coarse)) > distance(spectrum(full), spectrum(few))


def test_a_sketch_finds_the_same_eigenvalues():
    x = henon(400)
    settings = {"width": 0.2, "rank": 6, "ridge": 1e-4}
    exact, sketched = (KernelEDMD.from_series([x], sketch=sketch, **settings) for sketch in (False, True))
    assert distance(spectrum(exact), spectrum(sketched)) < 1e-6
    assert not np.array_equal(exact.U, sketched.U)  # it was another way


def test_leading_directions_span_what_singular_vectors_span():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(400, 400)) * np.exp(-0.02 * np.arange(400))[None, :]
    u = np.linalg.svd(A)[0][:, :8]
    for sketch in (False, True):
        found = leading(A, 8, sketch, rng)
        assert_allclose(found.T @ found, np.eye(8), atol=1e-10)
        assert np.linalg.norm(u - found @ (found.T @ u)) < 1e-7  # residuals of 1e-10 over gaps of about 1e-2


def test_a_long_series_is_fitted_in_constant_memory():
    def peak(points):
        x = henon(points)
        tracemalloc.start()
        KernelEDMD.from_series([x], width=0.5, rank=5, ridge=1e-6, centres=50)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    kernel_edmd.FULL, before = 500, kernel_edmd.FULL
    try:
        short, long = peak(4000), peak(40_000)
    finally:
        kernel_edmd.FULL = before
    # the features of 40,000 points would be 16 MB more; a sample for landmarks is at most 20,000 windows of 16 bytes
    assert long - short < 2e6


# as a model


@pytest.mark.parametrize(("delays", "reencode"), [(1, 0), (3, 0), (1, 1), (2, 3)])
def test_runs_agree_on_numpy_and_jax(delays, reencode):
    x = waves(80)
    model = KernelEDMD.from_series([x], width=2.0, rank=6, ridge=1e-6, delays=delays, reencode=reencode)
    assert model.dim == 9 + (3 * delays if delays > 1 else 0) + (1 if reencode > 1 else 0)
    compiled = jax.tree.map(jnp.asarray, model)
    made = jax.vmap(compiled.observe)(rollout(compiled, warm_up(compiled, jnp.asarray(x)), 20))
    assert_allclose(free_run(model, x, 20), made, atol=1e-8)
    c = model.encode(x[-1 : -delays - 1 : -1].ravel())
    assert_allclose(model.advance(c), model.matrix @ c, atol=1e-12)
    held = as_numpy(model)
    assert_allclose(held.decode(c), x[-1], atol=1e-14)


def test_a_run_encoded_anew_stays_in_its_box():
    growing = np.exp(0.1 * np.arange(60.0))[:, None] * np.array([[1.0, -0.5]])
    model = KernelEDMD.from_series([growing], kernel="polynomial", degree=2, rank=3, ridge=1e-9, bound=2.0, reencode=1)
    run = free_run(model, growing, 300)
    # the next point of one in the box: all of them are finite, and near what the polynomial has on the box
    assert np.isfinite(run).all()
    assert_allclose(model.bounded(np.array([1e9, -1e9])), [growing[:, 0].max() + 2 * np.ptp(growing[:, 0]), model.low[1]], rtol=1e-12)


def test_open_settings_are_chosen_and_forecast():
    x = henon(400)
    model = KernelEDMD.from_series([x[:390]], reencode=1)
    # the Henon map is a quadratic polynomial: a smooth kernel that is encoded anew at every step follows it for some steps
    assert_allclose(free_run(model, x[:390], 5), x[390:395], atol=0.02)
    assert not np.allclose(free_run(model.reencoded(0), x[:390], 10), free_run(model, x[:390], 10), atol=1e-3)


def test_free_runs_of_the_choice_are_those_of_the_model():
    from dynsys.models.koopman.data import Data
    from dynsys.models.regressed import Holdout

    x = henon(300)
    model = KernelEDMD.from_series([x], width=0.5, rank=10, ridge=1e-6, delays=2, reencode=2)
    data, held = Data.of("test", [x], None, 2), Holdout.of([x])
    landmarks = Landmarks(Gaussian(0.5), model.Z, np.eye(len(model.Z)))
    made = kernel_edmd._runs(landmarks, (model.U, model.M, model.B), data, held, 2, (model.low, model.high))
    expected = [free_run(model, window, held.true.shape[1]) for window in held.windows(2)]
    assert_allclose(made[:, :8], np.stack(expected)[:, :8], atol=1e-7)  # later, chaos shows the rounding


# refusals


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kernel": "gausian"}, "kernel must be one of .* Did you mean 'gaussian'"),
        ({"width": 0.0}, "width must be positive and finite, got width=0"),
        ({"width": -1.0}, "width must be a finite number of at least 0"),
        ({"kernel": "polynomial", "width": 1.0}, "the polynomial kernel has no width"),
        ({"kernel": "polynomial", "degree": 0}, "degree must be a whole number of at least 1"),
        ({"method": "principle"}, "method must be one of .* Did you mean 'principal'"),
        ({"rank": 60}, "rank=60 needs at least as many pairs of points, got 59"),
        ({"rank": 0}, "rank must be a whole number"),
        ({"ridge": -1.0}, "ridge must be a finite number"),
        ({"reencode": -1}, "reencode must be"),
        ({"centres": 5, "rank": 6, "width": 1.0, "ridge": 1e-6}, "rank=6, but the kernel matrix of these data has 5 directions"),
        ({"width": 5.0, "rank": 5, "ridge": 0.0}, r"with ridge=0, .* has, only \d+ are numerically there. Set ridge=1e-10"),
        ({"width": 20.0, "rank": 35, "ridge": 1e-30, "method": "principal"}, "with a rank up to"),
    ],
)
def test_what_cant_be_used_is_refused_in_words(settings, words):
    with pytest.raises(InvalidValue, match=words):
        KernelEDMD.from_series([waves(60)], **settings)


def test_bad_numbers_are_refused():
    with pytest.raises(InvalidValue, match="NaN or inf"):
        KernelEDMD.from_series([np.where(waves(60) > 1.4, np.nan, waves(60))])
    with pytest.raises(InvalidValue, match="1, 3 or 5"):
        Matern(1.0, 2)
    with pytest.raises(InvalidValue, match="offset"):
        Polynomial(2, -1.0)


@pytest.mark.parametrize("series", [waves(10), waves(25, 1), waves(30, 12), np.column_stack([waves(40, 2), np.ones(40)]), np.ones((20, 2))])
def test_short_wide_and_constant_series_are_fitted(series):
    run = free_run(KernelEDMD.from_series([series]), series, 20)
    assert run.shape == (20, series.shape[1])
    assert np.isfinite(run).all()

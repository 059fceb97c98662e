"""EDMD, its dictionaries and its generator: known operators, inputs, re-encoding, streaming, bad input in words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.linalg import expm

import dynsys
from dynsys import registry
from dynsys.dynamics import rollout, warm_up
from dynsys.errors import InvalidValue
from dynsys.models.koopman.dictionary import Custom, FourierFeatures, Hermite, Joined, Monomials, Product, RadialBasis, exponents
from dynsys.models.koopman.edmd import EDMD
from dynsys.models.koopman.generator import GeneratorEDMD
from dynsys.models.koopman.moments import Moments
from dynsys.models.regressed import free_run

from .koopman_cases import linear_runs, near, runs_of, slow_manifold


def in_jax(model):
    return jax.tree.map(jnp.asarray, model)


def observed(model, z, steps, inputs=None):
    return jax.vmap(model.observe)(rollout(model, z, steps, inputs))


def test_a_linear_system_has_its_eigenvalues_and_their_products():
    runs, A, values = linear_runs(count=30, steps=20)
    model = EDMD.from_series(runs, degree=2, ridge=0.0)
    products = (values[:, None] * values[None, :]).ravel()
    assert near(np.linalg.eigvals(model.A), [1.0, *values]) < 1e-10
    assert near(np.linalg.eigvals(model.A), products) < 1e-8
    # the eigenfunction of 0.99 is linear: a left eigenvector of A with no part on the squares, and that of the system itself
    found, vectors = np.linalg.eig(model.A.T)
    v = np.real(vectors[:, np.argmin(np.abs(found - 0.99))])
    slope = v[1:5] / model.scale
    left, rows = np.linalg.eig(A.T)
    exact = np.real(rows[:, np.argmin(np.abs(left - 0.99))])
    assert_allclose(v[5:], 0.0, atol=1e-8 * np.abs(v).max())
    assert_allclose(np.abs(slope @ exact) / np.linalg.norm(slope), 1.0, atol=1e-10)


def test_the_slow_manifold_is_linear_in_three_functions():
    step = slow_manifold()
    runs = runs_of(step, np.random.default_rng(0).normal(size=(20, 2)), 10)
    square = Custom(lambda v: v[..., :1] ** 2, ("x1²",))
    model = EDMD.from_series(runs, dictionary=square, ridge=0.0)
    assert model.n_latent == 4  # with the constant
    assert near(np.linalg.eigvals(model.A), [1.0, 0.9, 0.5, 0.81]) < 1e-10
    far = np.array([3.0, -2.0])
    assert_allclose(free_run(model, far[None], 30), runs_of(step, far[None], 30)[0][1:], atol=1e-9)


def test_monomials_and_hermite_polynomials_span_the_same():
    runs = runs_of(slow_manifold(), np.random.default_rng(0).normal(size=(30, 2)), 6)
    a, b = (EDMD.from_series(runs, dictionary=name, degree=3, ridge=0.0) for name in ("monomials", "hermite"))
    assert near(np.linalg.eigvals(a.A), np.linalg.eigvals(b.A)) < 1e-7


def test_hermite_polynomials_are_orthogonal_for_gaussian_data():
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    v = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2)
    w = np.outer(weights, weights).ravel() / weights.sum() ** 2
    psi = Hermite(3)(v)
    gram = psi.T @ (w[:, None] * psi)
    sizes = [np.prod([np.prod(np.arange(1, p + 1)) for p in powers]) for powers in exponents(2, 3)]
    assert_allclose(gram, np.diag(sizes), atol=1e-10)  # E He_p^2 = p!


def test_random_waves_make_a_gaussian_kernel():
    rng = np.random.default_rng(0)
    v = rng.normal(size=(30, 2))
    psi = FourierFeatures.learn(v, features=40_000, width=1.5, rng=rng)(v)
    distance = ((v[:, None] - v[None]) ** 2).sum(-1)
    assert_allclose(psi @ psi.T, np.exp(-distance / (2 * 1.5**2)), atol=0.03)  # 40,000 draws: 0.005 a standard error


@pytest.mark.parametrize("name", registry.names("dictionary"))
def test_every_dictionary_is_one_function_of_each_row_and_says_its_terms(name):
    rng = np.random.default_rng(0)
    v = rng.normal(size=(80, 2))
    maker = registry.lookup("dictionary", name).learn
    small = {"radial": {"features": 7}, "fourier": {"features": 7}, "joined": {"features": 7}}.get(name, {})
    dictionary = maker(v, **small, rng=rng)
    rows = np.asarray(dictionary(v))
    assert rows.shape == (80, len(dictionary.terms(("x", "y"))))
    assert_allclose(dictionary(v[3]), rows[3], atol=1e-12)
    assert_allclose(in_jax(dictionary)(jnp.asarray(v)), rows, atol=1e-12)
    assert np.isfinite(jax.jacfwd(in_jax(dictionary))(jnp.asarray(v[0]))).all()
    assert np.linalg.matrix_rank(rows - rows.mean(axis=0)) > 1


def test_products_and_unions_hold_what_they_say():
    v = np.random.default_rng(0).normal(size=(5, 2))
    a, b = Monomials(2), Hermite(2)
    assert_allclose(Joined((a, b))(v), np.concatenate([a(v), b(v)], axis=1))
    whole = Product(a, b)(v)
    assert whole.shape == (5, 15)
    assert_allclose(whole[:, 4], v[:, 1] * b(v)[:, 1])
    assert Product(a, b).terms(("x", "y"))[4] == "y·x·y"
    assert Monomials(3).terms(("x", "y")) == ("x²", "x·y", "y²", "x³", "x²·y", "x·y²", "y³")


def test_radial_functions_have_their_slopes_at_the_centres():
    v = np.random.default_rng(0).normal(size=(40, 2))
    dictionary = in_jax(RadialBasis.learn(v, features=5, rng=np.random.default_rng(1)))
    assert np.isfinite(jax.jacfwd(dictionary)(dictionary.centres[2])).all()


@pytest.mark.parametrize("bilinear", [False, True])
def test_inputs_enter_as_they_did(bilinear):
    """A system that is exactly bilinear in its lifted state is found exactly, and not by a model that is only linear."""
    rng = np.random.default_rng(0)
    us, runs = rng.uniform(-1, 1, (6, 40, 1)), []
    for u in us:
        x = [rng.normal(size=2)]
        for t in range(39):
            a, b = x[-1]
            x.append(np.array([0.9 * a + 0.3 * u[t, 0], 0.7 * b + 0.2 * a**2 + (0.4 * a * u[t, 0] if bilinear else 0.0)]))
        runs.append(np.array(x))
    square = Custom(lambda v: v[..., :1] ** 2)
    model = in_jax(EDMD.from_series(runs, dictionary=square, inputs=list(us), bilinear=True, ridge=1e-14))
    x = np.array([0.5, -1.0])
    y = model.step(model.lift(jnp.asarray(x)), jnp.array([0.7]))
    wanted = np.array([0.9 * 0.5 + 0.21, -0.7 + 0.2 * 0.25 + (0.4 * 0.5 * 0.7 if bilinear else 0.0)])
    assert_allclose(model.observe(y), wanted, atol=1e-8)
    if bilinear:
        poor = in_jax(EDMD.from_series(runs, dictionary=square, inputs=list(us), ridge=1e-14))
        assert np.abs(poor.observe(poor.step(poor.lift(jnp.asarray(x)), jnp.array([0.7]))) - wanted).max() > 0.02


def test_delays_are_led_exactly():
    """The delayed logistic map, x' = 2.1 x[t] (1 - x[t-1]): a polynomial of two points, so one step from a led state is exact."""
    x = [0.4, 0.5]
    for _ in range(300):
        x.append(2.1 * x[-1] * (1 - x[-2]))
    x = np.array(x)[:, None]
    model = in_jax(EDMD.from_series([x[:250]], degree=2, delays=2, ridge=0.0))
    z = warm_up(model, jnp.asarray(x[100:110]))
    assert_allclose(model.observe(z), x[109], atol=1e-12)
    assert_allclose(model.observe(model.step(z)), x[110], atol=1e-7)
    assert model.memory == 1


def test_a_run_stays_in_latent_space_unless_told_otherwise():
    """Never repeated one-step predictions: with reencode=0 the run is the matrix's powers; with 1 it is the nonlinear map."""
    runs = runs_of(lambda x: 1 - 1.2 * x**2, np.random.default_rng(0).uniform(-0.5, 0.5, (20, 1)), 30)
    model = in_jax(EDMD.from_series(runs, degree=3, ridge=1e-10))
    x = jnp.array([0.3])
    y, powers = model.lift(x), []
    for t in range(12):
        powers.append(model.decode(jnp.linalg.matrix_power(model.A, t + 1) @ y))
    assert_allclose(observed(model, y, 12), jnp.stack(powers), atol=1e-9)
    every = model.reencoded(1)
    now, path = x, []
    for _ in range(12):
        now = model.decode(model.A @ model.encode(now))
        path.append(now)
    assert_allclose(observed(every, every.lift(x), 12), jnp.stack(path), atol=1e-9)
    third = model.reencoded(3)
    z = third.lift(x)
    a = observed(third, z, 3)
    assert_allclose(a, jnp.stack(powers[:3]), atol=1e-9)
    assert_allclose(observed(third, z, 6)[3:], observed(third, third.lift(a[-1]), 3), atol=1e-9)
    assert np.abs(observed(model, y, 12) - jnp.stack(path)).max() > 1e-3  # or the test would see no difference


def test_streaming_gives_the_same_and_reads_blocks():
    """An array that hands out slices only, as one on disk does, and counts the largest."""

    class Disk:
        def __init__(self, x):
            self.x, self.shape, self.largest = x, x.shape, 0

        def __len__(self):
            return len(self.x)

        def __getitem__(self, rows):
            assert isinstance(rows, slice)
            self.largest = max(self.largest, len(self.x[rows]))
            return self.x[rows]

    runs = runs_of(lambda x: 1 - 1.4 * x**2, np.array([[0.3]]), 50_000)
    disk = Disk(runs[0])
    found = EDMD.from_series([disk], degree=3, ridge=1e-12)
    assert_allclose(found.A, EDMD.from_series(runs, degree=3, ridge=1e-12).A, atol=1e-12)
    monkey = Disk(np.tile(runs[0], (5, 1)))
    EDMD.from_series([monkey], degree=3, ridge=1e-12)
    assert monkey.largest <= 100_000


def test_moments_are_the_means_of_products():
    psi = np.random.default_rng(0).normal(size=(50, 3))
    found = Moments.of([psi[:21], psi[20:]])
    assert_allclose(found.G, psi[:-1].T @ psi[:-1] / 49, atol=1e-14)
    assert_allclose(found.A, psi[:-1].T @ psi[1:] / 49, atol=1e-14)
    assert_allclose(found.L, psi[1:].T @ psi[1:] / 49, atol=1e-14)
    pairs = Moments.of_pairs(psi[:-1], psi[1:])
    for a, b in ((found.G, pairs.G), (found.A, pairs.A), (found.L, pairs.L)):
        assert_allclose(a, b, atol=1e-14)
    assert_allclose(found.solve(), np.linalg.lstsq(psi[:-1], psi[1:], rcond=None)[0], atol=1e-12)


def test_the_generator_of_a_linear_flow():
    G = np.array([[-0.1, 1.0], [-1.0, -0.1]])
    runs = runs_of(lambda x: x @ expm(0.02 * G).T, np.random.default_rng(0).normal(size=(10, 2)), 100)
    model = GeneratorEDMD.from_series(runs, degree=2, ridge=0.0)
    values = np.array([-0.1 + 1j, -0.1 - 1j])
    # fourth-order differences: (w dt)^4 / 30 = 5e-9 of a rate of 1; the squares turn twice as fast
    assert near(np.linalg.eigvals(model.generator) / 0.02, [0.0, *values]) < 1e-8
    assert near(np.linalg.eigvals(model.generator) / 0.02, [*(2 * values), -0.2]) < 3e-7
    assert_allclose(model.A, expm(model.generator), atol=1e-12)


def test_the_generator_of_an_ornstein_uhlenbeck_process():
    x = np.random.default_rng(0).normal(size=(500, 1))
    model = GeneratorEDMD.from_derivatives(x, -0.7 * x, np.full((500, 1, 1), 1.3), degree=4)
    assert_allclose(np.sort(np.linalg.eigvals(model.generator).real), -0.7 * np.arange(5)[::-1], atol=1e-8)


def test_an_ornstein_uhlenbeck_process_from_its_path():
    """Eigenvalues exp(-k theta dt); 100,000 points of correlation time 10 leave about 1 % of statistical error in the second."""
    rng, a = np.random.default_rng(0), np.exp(-0.1)
    x = np.zeros(200_000)
    for t in range(len(x) - 1):
        x[t + 1] = a * x[t] + np.sqrt(1 - a * a) * rng.normal()
    model = EDMD.from_series([x[:, None]], dictionary="hermite", degree=3, ridge=0.0)
    assert near(np.linalg.eigvals(model.A), [1.0, a, a**2]) < 0.02 * a**2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"degree": 9, "ridge": 0.0}, r"29 pairs of points do not determine 55 functions by plain least squares\. Set a ridge"),
        ({"dictionary": Custom(lambda v: np.exp(800 * v[..., :1]), ("exp(800 x1)",)), "ridge": 0.0}, r"'exp\(800 x1\)' overflows"),
        ({"dictionary": Custom(lambda v: 2 * v[..., :1], ("2·x1",)), "ridge": 0.0}, r"rank 3 of 4\. Most involved: (2·x1, x1|x1, 2·x1)"),
        ({"dictionary": "fourier", "degree": 3}, "the dictionary 'fourier' has no option degree; it takes: features, width"),
        ({"dictionary": "monomial"}, "Did you mean 'monomials'"),
        ({"delays": 40}, r"at least 41 points for delays=40, the longest has 30\. Give longer trajectories or fewer delays"),
        ({"bound": -1.0}, "bound must be positive"),
        ({"ridge": -1.0}, "ridge must be a finite number of at least 0"),
        ({"reencode": -2}, "reencode must be a whole number"),
    ],
)
def test_bad_input_is_explained(options, words):
    x = np.random.default_rng(0).normal(size=(30, 2))
    with pytest.raises((InvalidValue, LookupError, ValueError), match=words):
        EDMD.from_series([x], **options)


def test_a_constant_column_is_named():
    x = np.random.default_rng(0).normal(size=(30, 2))
    x[:, 1] = 4.0
    with pytest.raises(InvalidValue, match=r"rank 2 of 3.*x2 \(zero everywhere: a constant column\?\)|Most involved: x2"):
        EDMD.from_series([x], degree=1, ridge=0.0)
    assert np.isfinite(EDMD.from_series([x], degree=1).A).all()  # a ridge copes


def test_what_is_left_open_is_chosen():
    runs = runs_of(lambda x: 1 - 1.2 * x**2, np.random.default_rng(0).uniform(-0.5, 0.5, (20, 1)), 30)
    model = EDMD.from_series(runs, reencode=1)
    assert isinstance(model.dictionary, Monomials)
    assert model.dictionary.degree >= 2  # the map is a parabola
    assert_allclose(model.observe(model.step(model.lift(np.array([0.3])))), [1 - 1.2 * 0.09], atol=1e-4)


def test_a_rank_is_kept():
    runs, _, _ = linear_runs()
    values = np.linalg.eigvals(EDMD.from_series(runs, degree=2, rank=1).A)
    assert np.sum(np.abs(values) > 1e-9) == 2  # one direction is left beside the constants' 1, and the rest of the matrix is zero


def test_a_driven_series_goes_through_fit(tmp_path):
    """x' = 0.8 x + 0.5 u from a file's columns to forecasts with inputs and back from the run folder."""
    rng = np.random.default_rng(0)
    u, x = rng.uniform(-1, 1, (300, 1)), np.zeros((300, 1))
    for t in range(299):
        x[t + 1] = 0.8 * x[t] + 0.5 * u[t]
    series = dynsys.TimeSeries(x, inputs=u, dt=0.1)
    found = dynsys.fit(series, model="edmd", set=["model.degree=1"], out=tmp_path / "run", progress=False)
    for again in (found, dynsys.load(tmp_path / "run")):
        made = again.forecast(dynsys.TimeSeries(x[:50], inputs=u[:50], dt=0.1), 20, inputs=u[50:70])
        assert_allclose(np.asarray(made.trajectories[0]), x[50:70], atol=1e-6)

"""Models fitted in closed form: exact systems are found exactly, forecasts are those of plain loops, the pipeline takes them all."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import dynsys
from dynsys import registry
from dynsys.dynamics import rollout, warm_up
from dynsys.errors import DataError, InvalidValue
from dynsys.models.autoregressive import NVAR, VAR, PolynomialFlowMap, monomials, n_monomials
from dynsys.models.baseline import Mean, Parrot, Persistence
from dynsys.models.regressed import Holdout, checked_series, free_run
from dynsys.models.reservoir import EchoStateNetwork
from dynsys.models.ridge import Regression, svd
from dynsys_datasets.series import TimeSeries

from .fit_cases import driven, orbit, rotation
from .model_cases import LIFTED, REGRESSED, SMALL, fitted, waves


def henon(points):
    """x' = 1 - 1.4 x^2 + y, y' = 0.3 x."""
    x = [np.array([0.1, 0.1])]
    for _ in range(points - 1):
        a, b = x[-1]
        x.append(np.array([1 - 1.4 * a**2 + b, 0.3 * a]))
    return np.array(x)


def lorenz(points, dt=0.02):
    """The Lorenz system by Runge-Kutta steps of dt / 4, after a transient."""

    def field(z):
        return np.array([10 * (z[1] - z[0]), z[0] * (28 - z[2]) - z[1], z[0] * z[1] - 8 / 3 * z[2]])

    z, path, h = np.array([1.0, 1.0, 20.0]), [], dt / 4
    for i in range(4 * (points + 500)):
        a = field(z)
        b = field(z + h / 2 * a)
        c = field(z + h / 2 * b)
        d = field(z + h * c)
        z = z + h / 6 * (a + 2 * b + 2 * c + d)
        if i >= 2000 and i % 4 == 3:
            path.append(z)
    return np.array(path)


@pytest.fixture(scope="module")
def attractor():
    return lorenz(1100)


# the regression


def test_every_ridge_and_every_leading_set_solves_its_normal_equations():
    rng = np.random.default_rng(0)
    A, Y = rng.normal(size=(50, 6)) * [1, 5, 0.1, 1, 2, 3] + 4.0, rng.normal(size=(50, 2)) - 7.0
    regression = Regression.of(lambda: [(A[:20], Y[:20]), (A[20:], Y[20:])])
    ridges = np.array([0.0, 1e-3, 0.5])
    S, T = (A - A.mean(0)) / A.std(0), (Y - Y.mean(0)) / Y.std(0)
    for columns in (1, 4, 6):
        W, b = regression.solve(columns, ridges)
        for i, ridge in enumerate(ridges):
            P = S[:, :columns]
            w = np.linalg.solve(P.T @ P + ridge * np.linalg.norm(P, 2) ** 2 * np.eye(columns), P.T @ T)
            wanted = (P @ w) * Y.std(0) + Y.mean(0)
            assert_allclose(A[:, :columns] @ W[i] + b[i], wanted, atol=1e-12)


@pytest.mark.parametrize(("variables", "degree"), [(1, 4), (2, 3), (3, 2), (4, 1), (3, 5)])
def test_monomials_are_all_products_once(variables, degree):
    v = np.random.default_rng(1).normal(size=(2, variables))
    wanted = [
        np.prod(v[:, list(which)], axis=1)
        for p in range(1, degree + 1)
        for which in itertools.combinations_with_replacement(range(variables), p)
    ]
    made = monomials(v, degree)
    assert made.shape[1] == n_monomials(variables, degree) == len(wanted)
    assert_allclose(np.sort(made, axis=1), np.sort(np.array(wanted).T, axis=1), rtol=1e-14)


# what they find


def test_a_linear_system_is_found_by_a_vector_autoregression():
    x = orbit(rotation(0.3, 0.995), 200) @ np.array([[2.0, 0.5], [0.0, 1.0]]) + [3.0, -50.0]
    model = VAR.from_series([x[:150]])
    assert_allclose(free_run(model, x[:150], 50), x[150:], atol=1e-6)  # 50 steps of rounding in a contracting map, times conditioning


def test_second_order_needs_two_delays():
    t = np.arange(120.0)[:, None]
    x = np.sin(0.37 * t)  # x[t+1] = 2 cos(.37) x[t] - x[t-1]
    two = VAR.from_series([x[:100]], delays=2, ridge=0.0)
    assert_allclose(two.W[:, 0] / two.scale[0] + [1, 0], [2 * np.cos(0.37), -1.0], atol=1e-9)
    assert_allclose(free_run(two, x[:100], 20), x[100:], atol=1e-9)
    one = VAR.from_series([x[:100]], delays=1, ridge=0.0)
    assert np.abs(free_run(one, x[:100], 20) - x[100:]).max() > 0.5


def test_the_henon_map_is_a_polynomial_of_degree_two():
    x = henon(300)
    model = PolynomialFlowMap.from_series([x[:280]], delays=1, degree=2, ridge=0.0)
    far = np.random.default_rng(0).uniform(-1, 1, (20, 2))
    wanted = np.stack([1 - 1.4 * far[:, 0] ** 2 + far[:, 1], 0.3 * far[:, 0]], axis=1)
    assert_allclose([model.step(z) for z in far], wanted, atol=1e-10)
    chosen = PolynomialFlowMap.from_series([x[:280]])
    assert chosen.degree >= 2
    # errors grow by e^0.42 a step: 1e-13 e^(0.42 * 20) = 5e-10
    assert_allclose(free_run(chosen, x[:280], 20), x[280:], atol=1e-6)


@pytest.mark.parametrize(("cls", "limit"), [(PolynomialFlowMap, 1e-3), (NVAR, 0.5), (EchoStateNetwork, 8.0)])
def test_lorenz_is_forecast(attractor, cls, limit):
    """100 steps are 2 units of time, in which errors grow by e^1.8 = 6; the range of x is 40."""
    options = {"units": 60, "leak": 0.3, "input_scale": 0.1} if cls is EchoStateNetwork else {"delays": 3}
    model = cls.from_series([attractor[:1000]], **options)
    assert np.abs(free_run(model, attractor[:1000], 100) - attractor[1000:]).max() < limit


def test_several_trajectories_are_one_regression_without_the_jumps_between(attractor):
    parts = [attractor[:400], attractor[600:1000]]
    model = PolynomialFlowMap.from_series(parts, delays=2, degree=3)
    made = free_run(model, attractor[:450], 50)
    assert np.abs(made - attractor[450:500]).max() < 0.1


def test_noise_makes_the_choice_heavier(attractor):
    noisy = attractor[:1000] + 0.05 * attractor.std(0) * np.random.default_rng(0).normal(size=(1000, 3))
    model = PolynomialFlowMap.from_series([noisy], degree=2)
    run = free_run(model, noisy, 1000)
    assert model.delays > 1
    assert np.all((run.min(0) > 1.5 * attractor.min(0) - 10) & (run.max(0) < 1.5 * attractor.max(0) + 10))


def test_the_parrot_repeats_a_period():
    x = np.tile(np.random.default_rng(0).normal(size=(17, 2)), (6, 1))
    model = Parrot.from_series([x[:90]])
    assert_array_equal(free_run(model, x[:90], 12), x[90:102])
    assert_array_equal(free_run(model, x[:30], 40), x[30:70])


def test_the_parrot_goes_on_where_the_series_ends():
    t = np.arange(400.0)[:, None]
    x = np.concatenate([np.sin(0.1 * t), np.cos(0.1 * t)], axis=1)
    model = Parrot.from_series([x], delays=2)
    far = free_run(model, x, 3000)
    # on the circle, a copy is off by half a sample or less at every jump back; it never stands still
    assert_allclose(np.linalg.norm(far, axis=1), 1.0, atol=1e-12)
    assert_allclose(np.linalg.norm(np.diff(far, axis=0), axis=1), 2 * np.sin(0.05), rtol=0.6)
    assert (
        np.linalg.norm(far[:60] - np.stack([np.sin(0.1 * (400 + np.arange(60))), np.cos(0.1 * (400 + np.arange(60)))], 1), axis=1).max()
        < 0.06
    )
    assert_array_equal(free_run(Parrot.from_series([x], delays=2, library=100), x, 5).shape, (5, 2))


def test_a_parrot_finds_the_last_turn_and_not_the_last_step():
    """A spiral of 200 points a turn that grows by 10 % a turn: a step is .03 long, the turn before lies .1 away."""
    angle = 2 * np.pi * np.arange(900) / 200
    x = (1.1 ** (angle / (2 * np.pi)))[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    model = Parrot.from_series([x], delays=1)
    assert_allclose(model.successor[-1], 900 - 200, atol=5)


def test_a_parrot_never_reads_from_one_trajectory_into_the_next():
    a, b = waves(50), waves(60) + 10.0
    model = Parrot.from_series([a, b], delays=3)
    for z in (a, b):
        run = free_run(model, z[:5], 300)
        steps = np.abs(np.diff(run[:40], axis=0)).max()
        assert steps < 2.0  # the two are 10 apart


def test_mean_and_persistence_are_what_they_say():
    x = waves(30)
    assert_allclose(free_run(Mean.from_series([x[:10], x[10:]]), x, 3), np.tile(x.mean(0), (3, 1)))
    assert_allclose(free_run(Persistence.from_series([x]), x, 3), np.tile(x[-1], (3, 1)))


def test_an_echo_state_network_has_the_radius_and_leak_asked_for():
    model = EchoStateNetwork.from_series([waves(80)], units=50, radius=0.7, leak=0.25, input_scale=0.3, ridge=1e-6, key=3)
    assert_allclose(np.abs(np.linalg.eigvals(model.W)).max(), 0.7, rtol=1e-10)
    assert model.leak == 0.25
    assert np.abs(model.V).max() <= 0.3
    again = EchoStateNetwork.from_series([waves(80)], units=50, radius=0.7, leak=0.25, input_scale=0.3, ridge=1e-6, key=3)
    assert_array_equal(model.U, again.U)
    other = EchoStateNetwork.from_series([waves(80)], units=50, radius=0.7, leak=0.25, input_scale=0.3, ridge=1e-6, key=jax.random.key(1))
    assert not np.array_equal(model.W, other.W)


def test_the_choice_of_an_echo_state_network_runs_the_model_it_returns(attractor):
    """The batched validation runs and the fitted model are two programs for one equation."""
    from dynsys.models import reservoir

    held = Holdout.of([(attractor[:300] - attractor.mean(0)) / attractor.std(0)])
    network = reservoir._network(30, 3, np.random.default_rng(0))
    setting, ridge = np.array([[0.9, 0.3, 0.5]]), np.array([1e-6])
    U, b = reservoir._readouts(held.fitted, 20, network, setting, ridge)
    own = EchoStateNetwork(  # pyright: ignore[reportCallIssue]
        W=0.9 * network[0], V=0.5 * network[1], c=0.5 * network[2], U=U[0, 0], b=b[0, 0], mean=np.zeros(3), scale=np.ones(3),
        low=np.full(3, -50.0), high=np.full(3, 50.0), leak=0.3, washout=20,
    )  # fmt: skip
    made = np.stack([free_run(own, window, held.true.shape[1]) for window in held.windows(21)])
    assert_allclose(held.error(made), reservoir._errors(held, 20, network, setting, U, b)[0, 0], rtol=1e-9)


# what all of them share


@pytest.mark.parametrize("name", REGRESSED)
def test_numpy_and_compiled_runs_agree(name):
    model = fitted(name)
    x = waves(40)
    z = warm_up(model, jnp.asarray(x[-model.memory - 1 :]))
    made = jax.vmap(model.observe)(rollout(model, z, 15))
    assert_allclose(free_run(model, x, 15), made, atol=1e-9)
    assert model.memory + 1 <= 40


@pytest.mark.parametrize("name", REGRESSED)
def test_a_context_longer_than_the_memory_changes_nothing(name):
    model = fitted(name)
    x = waves(60)
    assert_array_equal(free_run(model, x, 5), free_run(model, x[-model.memory - 1 :], 5))


@pytest.mark.parametrize("name", ["var", "nvar", "polynomial-flow-map", "esn"])
def test_a_diverging_run_stays_in_its_box(name):
    growing = np.exp(0.1 * np.arange(60.0))[:, None] * np.array([[1.0, -0.5]])
    fixed = {"polynomial-flow-map": {"degree": 3, "delays": 1}}.get(name, {})
    model = registry.lookup("model", name).from_series([growing], bound=2.0, **fixed)
    run = free_run(model, growing, 2000)
    spread = np.ptp(growing, axis=0)
    assert np.isfinite(run).all()
    assert np.all(run >= growing.min(0) - 2.0 * spread - 1e-9)
    assert np.all(run <= growing.max(0) + 2.0 * spread + 1e-9)


@pytest.mark.parametrize("name", REGRESSED)
@pytest.mark.parametrize("series", [waves(10), waves(25, 1), waves(30, 12), np.column_stack([waves(40, 2), np.ones(40)])])
def test_short_wide_and_constant_series_are_fitted(name, series):
    quick = SMALL[name] if name in ("dpnet", "koopman-vae") else {}  # these train
    model = registry.lookup("model", name).from_series([series], **quick)
    run = free_run(model, series, 20)
    assert run.shape == (20, series.shape[1])
    assert np.isfinite(run).all()


@pytest.mark.parametrize("name", [name for name in REGRESSED if name not in ("mean", "persistence")])
def test_series_that_cant_be_used_are_refused(name):
    cls = registry.lookup("model", name)
    few, words = (1, "a trajectory of at least") if name in (*LIFTED, "random-features") else (5, "at least 10 points, the longest has 5")
    with pytest.raises(InvalidValue, match=words):  # many trajectories of two points are as good as a long one to Koopman models
        cls.from_series([waves(few)])
    with pytest.raises(InvalidValue, match="NaN or inf"):
        cls.from_series([np.where(waves(40) > 1.4, np.nan, waves(40))])
    with pytest.raises(InvalidValue, match="same columns"):
        cls.from_series([waves(40, 2), waves(40, 3)])
    with pytest.raises(InvalidValue, match="same columns"):
        checked_series(name, [])


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda: VAR.from_series([waves()], delays=0), "delays must be a whole number of at least 1, got delays=0"),
        (lambda: VAR.from_series([waves()], ridge=-1.0), "ridge must be a finite number"),
        (lambda: VAR.from_series([waves()], bound=0.0), "bound must be positive"),
        (lambda: VAR.from_series([waves()], delays=70), "no setting fits 60 points"),
        (lambda: PolynomialFlowMap.from_series([waves(60, 40)], degree=3), "no setting fits .*40 columns"),
        (lambda: Parrot.from_series([waves()], delays=70), "70 delays need a trajectory of 72 points"),
        (lambda: EchoStateNetwork.from_series([waves()], leak=1.5), r"leak must be in \(0, 1\]"),
        (lambda: EchoStateNetwork.from_series([waves()], units=0), "units must be"),
        (lambda: free_run(fitted("var"), waves(10, 2), 5), r"context of shape \(L, 3\)"),
        (lambda: VAR(**{**vars(fitted("var")), "degree": 3}), "do not make 6 features"),
    ],
)
def test_wrong_settings_are_refused(attempt, words):
    with pytest.raises(InvalidValue, match=words):
        attempt()


# the pipeline


@pytest.fixture(scope="module")
def recording():
    return TimeSeries(henon(500) * [2.0, 30.0] + 5.0, dt=0.5, names=["a", "b"], source="henon")


def quick(series, name, *changes, **about):
    return dynsys.fit(series, model=name, set=["selection.steps=60", "selection.starts=3", *changes], progress=False, **about)


@pytest.mark.parametrize("name", ["parrot", "polynomial-flow-map", "esn"])
def test_fit_save_load_forecast(recording, name, tmp_path):
    small = ["model.units=20", "model.radius=0.5", "model.leak=1", "model.input_scale=0.5"] if name == "esn" else []
    found = quick(recording, name, *small, seeds=2, out=tmp_path / "run")
    assert len(found.ensemble) == (2 if name == "esn" else 1)
    assert {score.name for score in found.scores} >= {"d_stsp_binned", "smape", "lyapunov_max"}
    back = dynsys.load(tmp_path / "run")
    begin = TimeSeries(recording.trajectories[0][:450], dt=0.5, names=["a", "b"])
    assert_array_equal(back.forecast(begin, 5).trajectories[0], found.forecast(begin, 5).trajectories[0])
    assert_array_equal(back.simulate(30).trajectories[0], found.simulate(30).trajectories[0])
    if name == "polynomial-flow-map":
        assert_allclose(found.forecast(begin, 5).trajectories[0], recording.trajectories[0][450:455], rtol=1e-6)
        exponent = next(score.value for score in found.scores if score.name == "lyapunov_max")
        assert_allclose(exponent * 0.5, 0.419, atol=0.06)  # Hénon's exponent a step; 1,000 steps give it to about 0.02
    again = quick(recording, name, *small, seeds=2, out=tmp_path / "run")  # a finished run is read
    assert again.outcome.seconds == found.outcome.seconds


def test_options_reach_the_model_and_wrong_ones_are_refused(recording):
    found = dynsys.fit(recording, model="var", set=["model.delays=3", "selection.steps=20", "selection.starts=2"], progress=False, seeds=4)
    model: Any = found.model
    assert model.delays == 3
    assert model.W.dtype == jnp.float64
    assert len(found.outcome.scores) == 1
    assert any("no random numbers" in line for line in found.outcome.choices)
    with pytest.raises(dynsys.errors.UnknownName, match=r"unknown option of var 'delay'.*Did you mean 'delays'"):
        dynsys.fit(recording, model="var", set=["model.delay=3"], progress=False)


def test_a_driven_recording_is_refused():
    with pytest.raises(DataError, match="autonomous, but the recording has 1 input columns"):
        quick(driven(200), "var")


def test_an_svd_on_which_divide_and_conquer_fails_is_done_by_iteration(monkeypatch):
    """LAPACK's gesdd fails to converge on some finite matrices (InteriorSquirmer, 550 points, is one)."""
    A = np.random.default_rng(0).normal(size=(7, 4)) * 10.0 ** np.arange(4)[None, :]

    def fails(*_, **__):
        raise np.linalg.LinAlgError("SVD did not converge")

    monkeypatch.setattr(np.linalg, "svd", fails)
    U, s, Vt = svd(A)
    assert U.shape == (7, 4)
    np.testing.assert_allclose((U * s[None, :]) @ Vt, A, rtol=1e-12)
    np.testing.assert_allclose(U.T @ U, np.eye(4), atol=1e-14)

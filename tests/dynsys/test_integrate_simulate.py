"""simulate_system: from a name or a file to a time series."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import solve_ivp
from scipy.spatial import cKDTree

from dynsys.errors import DataError, InvalidValue, UnknownName
from dynsys.integrate import simulate_system, solve_delay
from dynsys.precision import x64
from dynsys.systems import load_system
from dynsys_datasets.catalogue import path_of, system


def values(*args, **kwargs):
    return np.asarray(simulate_system(*args, **kwargs).trajectories[0])


FLOWS = ["Chua", "DoublePendulum", "Halvorsen", "Lorenz", "Rossler", "Thomas"]


@pytest.mark.parametrize("name", FLOWS)
def test_agrees_with_an_independent_solver_and_comes_back_to_its_start(name):
    record = system(name)
    orbit = values(name, 20_000, wrap=False)
    points = 1 + int(0.5 * record.period / record.dt)
    times = np.arange(points) * record.dt
    reference = solve_ivp(record.field, (0, times[-1]), record.start, method="DOP853", rtol=1e-12, atol=1e-12, t_eval=times)
    # half a period: errors of 1e-9 a step grow little; Chua's field has corners, which cost one step's accuracy each
    assert_allclose(orbit[:points], reference.y.T, atol=1e-6 * (1 + np.abs(reference.y).max()))
    if record.fact("kaplan_yorke").value < 3:
        # 20,000 points come back near any point of an attractor of dimension about 2; they never do to a point off it
        later = orbit[20 * points :] / orbit.std(0)
        nearest = cKDTree(later).query(record.start / orbit.std(0))[0]
        usual = cKDTree(later).query(orbit[: 10 * points] / orbit.std(0))[0]
        assert nearest <= 1.5 * usual.max()
        assert nearest < 0.3


def test_the_series_carries_its_names_interval_and_source():
    series = simulate_system("Lorenz", 41)
    assert series.names == ("x", "y", "z")
    assert series.given_dt == 0.01
    assert series.source == "Lorenz"
    assert series.trajectories[0].shape == (41, 3)
    assert series.trajectories[0].dtype == np.float64
    assert_array_equal(series.trajectories[0][0], system("Lorenz").start)
    assert simulate_system("Lorenz96", 10).names[:2] == ("x[0]", "x[1]")


def test_interval_transient_parameters_and_starts():
    every = values("Lorenz", 41)
    assert_allclose(values("Lorenz", 41, dt=0.02)[:21], every[::2], atol=1e-6)
    assert_allclose(values("Lorenz", 11, transient=30), every[30:], atol=1e-6)
    fixed = values("Lorenz", 2, parameters={"rho": 10.0}, dt=1.0, transient=39)  # a stable fixed point at sqrt(beta (rho - 1))
    assert_allclose(np.abs(fixed), np.tile([24**0.5, 24**0.5, 9.0], (2, 1)), atol=1e-6)
    many = simulate_system("Lorenz", 5, start=np.ones((3, 3)), transient=0)
    assert many.n_trajectories == 3
    assert values("Lorenz96", 3, parameters={"n": 8}).shape == (3, 8)


def test_a_map():
    x, y = system("Henon").start
    for row in values("Henon", 20):
        assert_allclose(row, [x, y], atol=1e-10)
        x, y = 1 - 1.4 * x * x + y, 0.3 * x
    assert simulate_system("Henon", 5).given_dt == 1.0
    assert simulate_system("Henon", 5, start=[[0.1, 0.1], [0.2, 0.1]], transient=0).lengths == (5, 5)


def test_noise_is_a_fraction_of_each_columns_deviation_and_repeats():
    clean, noisy = values("Lorenz", 20_000), values("Lorenz", 20_000, noise=0.05, key=3)
    ratio = (noisy - clean).std(0) / clean.std(0)
    assert_allclose(ratio, 0.05, rtol=0.03)  # 20,000 draws: 0.5 % standard error
    assert_array_equal(noisy, values("Lorenz", 20_000, noise=0.05, key=3))
    assert np.abs(noisy - values("Lorenz", 20_000, noise=0.05, key=4)).max() > 0.1
    with x64(False):
        assert_array_equal(noisy, values("Lorenz", 20_000, noise=0.05, key=3))
    assert "noise" in simulate_system("Lorenz", 5, noise=0.1).notes[0]


def test_angles_are_wrapped_and_energy_is_kept():
    free, wrapped = values("DoublePendulum", 3000, wrap=False), values("DoublePendulum", 3000)
    assert np.abs(free[:, :2]).max() > np.pi  # it turns over
    assert np.abs(wrapped[:, :2]).max() <= np.pi
    assert_allclose(np.cos(wrapped[:, :2]), np.cos(free[:, :2]), atol=1e-9)
    assert_array_equal(wrapped[:, 2:], free[:, 2:])
    th1, th2, p1, p2 = free.T
    cosine, sine = np.cos(th1 - th2), np.sin(th1 - th2)
    energy = (p1**2 + 2 * p2**2 - 2 * p1 * p2 * cosine) / (2 * (1 + sine**2)) - 2 * 9.81 * np.cos(th1) - 9.81 * np.cos(th2)
    # starts at 0 of about 60 between its extremes; 60 time units at 1e-9 a step
    assert np.abs(energy).max() < 1e-5


def test_a_users_own_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(path_of("Lorenz").read_text().replace('name = "Lorenz"', 'name = "Mine"'))
    assert_array_equal(values(path, 41), values("Lorenz", 41))
    assert simulate_system(str(path), 41).source == "Mine"


def test_starts_beside_the_start():
    many = simulate_system("Lorenz", 50, n_trajectories=4, transient=0, key=1)
    starts = np.array([rows[0] for rows in many.trajectories])
    assert_array_equal(starts[0], system("Lorenz").start)
    assert_allclose(many.trajectories[0], values("Lorenz", 50), atol=1e-6)
    moved = (starts[1:] - starts[0]) / system("Lorenz").fact("std").value
    assert 0.003 < moved.std() < 0.03
    assert_array_equal(starts, [rows[0] for rows in simulate_system("Lorenz", 5, n_trajectories=4, transient=0, key=1).trajectories])
    later = np.array([rows[0] for rows in simulate_system("Lorenz", 2, n_trajectories=4).trajectories])
    assert np.ptp(later[:, 2]) > 1.0  # 1,000 points later they are far from each other
    assert simulate_system("Henon", 5, n_trajectories=3, spread=0.001).lengths == (5, 5, 5)


def test_a_sweep_is_one_labelled_trajectory_a_value():
    made = simulate_system("Lorenz", 2, sweep={"rho": [5.0, 10.0, 15.0]}, dt=1.0, transient=60)
    assert made.input_names == ("rho",)
    for rho, rows, label in zip((5.0, 10.0, 15.0), made.trajectories, made.inputs, strict=True):
        assert_array_equal(label, np.full((2, 1), rho))
        assert_allclose(np.abs(rows[-1]), [(8 / 3 * (rho - 1)) ** 0.5] * 2 + [rho - 1], atol=1e-5)
    # the fixed points of the logistic map, 1 - 1/r
    logistic = simulate_system("Logistic", 3, sweep={"r": [2.0, 2.5]}, start=[0.3], transient=500)
    assert_allclose([rows[-1, 0] for rows in logistic.trajectories], [0.5, 0.6], atol=1e-9)
    late = simulate_system("MackeyGlass", 300, sweep={"tau": [2.0, 17.0]}, dt=1.0, transient=1000)
    assert np.ptp(late.trajectories[0]) < 1e-3 < 0.5 < np.ptp(late.trajectories[1])  # a fixed point, then chaos


def test_observed_states():
    every = simulate_system("Lorenz", 20, noise=0.1, key=2)
    some = simulate_system("Lorenz", 20, noise=0.1, key=2, observe=["z", 0])
    assert some.names == ("z", "x")
    assert_array_equal(some.trajectories[0], np.asarray(every.trajectories[0])[:, [2, 0]])
    assert simulate_system("Lorenz", 5, observe="y").names == ("y",)


def test_a_delay_equation_forgets_its_constant_past():
    late = simulate_system("MackeyGlass", 100, parameters={"tau": 17.0}, dt=1.0)
    direct = solve_delay(load_system("MackeyGlass", tau=17.0), system("MackeyGlass").start, np.arange(440.0), dt=17 / 200)
    assert_allclose(late.trajectories[0], direct.states[340:], atol=1e-4)  # 20 delays; errors of 1e-9 grow by e^(440 * 0.007)
    assert late.time_unit == "days"
    several = simulate_system("MackeyGlass", 10, n_trajectories=2, transient=0)
    assert several.trajectories[1][0] != several.trajectories[0][0]


def test_stochastic_systems_have_their_own_noise():
    walks = simulate_system("OrnsteinUhlenbeck", 400, n_trajectories=200, key=1)
    states = np.array([rows[:, 0] for rows in walks.trajectories])
    assert np.all(states[:, 0] == 0.0)
    assert_allclose(states[:, 100:].var(), 0.5, rtol=0.05)
    again = simulate_system("OrnsteinUhlenbeck", 400, n_trajectories=200, key=1)
    assert_array_equal(again.trajectories[7], walks.trajectories[7])
    assert np.abs(simulate_system("OrnsteinUhlenbeck", 10, key=2).trajectories[0][1:] - states[0, 1:10, None]).max() > 1e-3
    swept = simulate_system("GeometricBrownianMotion", 3, sweep={"sigma": [0.0, 0.1]}, solver="heun", transient=0, dt=0.5, step=0.01)
    assert_allclose(swept.trajectories[0][:, 0], np.exp(0.05 * np.array([0, 0.5, 1.0])), rtol=1e-6)


def test_fields():
    # a small Burgers field decays as heat: exp(-nu k^2 t)
    x = np.arange(16) * (float(system("Burgers").parameters["L"]) / 16)
    k = 2 * np.pi / float(system("Burgers").parameters["L"])
    made = simulate_system("Burgers", 3, parameters={"n": 16, "nu": 0.1}, start=1e-6 * np.sin(k * x), dt=0.5, transient=0)
    assert_allclose(made.trajectories[0][2], 1e-6 * np.exp(-0.1 * k**2) * np.sin(k * x), atol=1e-11)
    many = simulate_system("KuramotoSivashinsky", 5, parameters={"n": 32}, n_trajectories=3, transient=0, observe=[0, 5])
    assert many.names == ("u[0]", "u[5]")
    full = simulate_system("KuramotoSivashinsky", 5, parameters={"n": 32}, n_trajectories=3, transient=0)
    assert_allclose([np.asarray(rows).mean(1) for rows in full.trajectories], 0.0, atol=1e-10)  # it keeps its mean
    longer = simulate_system("KuramotoSivashinsky", 3, parameters={"n": 32}, sweep={"L": [4.0, 6.0]}, transient=200)
    assert max(np.abs(rows).max() for rows in longer.trajectories) < 1e-3  # below 2 pi every wave decays


GROWING = """
name = "Growing"
kind = "{kind}"
source = "Test."
about = "Test."
state = ["x"]
[equations]
x = "{equation}"
[start]
x = 1
[time]
dt = 0.1
"""


@pytest.mark.parametrize(("kind", "equation", "message"), [
    ("flow", "x**2", r"ended at point 1\d of 100 \(diverged\)\. The state left every bound"),
    ("map", "3*x**2", r"\(diverged\)"),
    ("flow", "-1e9*(x - 2)", r"\(max_steps\).*kvaerno5"),
    ("flow", "sqrt(0.5 - t)", r"ended at point \d of 100"),
    ("flow", "sqrt(-x)", r"the equation of x is nan at the start \[1\.\]"),
    ("map", "1/(x - 1)", r"the equation of x is inf at the start"),
])  # fmt: skip
def test_a_run_that_fails_says_so(tmp_path, kind, equation, message):
    path = tmp_path / "growing.toml"
    path.write_text(GROWING.format(kind=kind, equation=equation))
    with pytest.raises(DataError, match=message):
        simulate_system(path, 100, max_steps=2000)


def test_a_sweep_that_fails_names_its_value(tmp_path):
    path = tmp_path / "growing.toml"
    path.write_text(GROWING.format(kind="flow", equation="a*x**2 - x**3").replace("[equations]", "[parameters]\na = 0.5\n[equations]"))
    assert simulate_system(path, 5, sweep={"a": [0.1, 0.2]}).n_trajectories == 2
    path.write_text(path.read_text().replace("- x**3", ""))
    with pytest.raises(DataError, match=r"Growing with a=3: the simulation ended at point \d"):
        simulate_system(path, 100, sweep={"a": [-1.0, 3.0]})
    for kind, extra in (("delay", "+ delay(x, 1)"), ("sde", "")):
        text = GROWING.format(kind=kind, equation=f"x**2 {extra}")
        path.write_text(text.replace("[start]", "[diffusion]\nx = 0.1\n[start]") if kind == "sde" else text)
        with pytest.raises(DataError, match=r"\(diverged\)"):
            simulate_system(path, 100)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"points": 0}, InvalidValue, "points must be a whole number of at least 1"),
        ({"transient": -1}, InvalidValue, "transient must be"),
        ({"noise": -0.1}, InvalidValue, "noise must be at least 0"),
        ({"noise": float("nan")}, InvalidValue, "noise must be at least 0"),
        ({"dt": 0.0}, InvalidValue, "dt must be positive"),
        ({"start": [1.0, 2.0]}, InvalidValue, r"M=3 \(x, y, z\)"),
        ({"start": [1.0, 2.0, np.inf]}, InvalidValue, "must be finite"),
        ({"parameters": {"rh": 1}}, UnknownName, "Did you mean 'rho'"),
        ({"name_or_path": "Henon", "dt": 0.5}, InvalidValue, "is a map and has no dt"),
        ({"name_or_path": "Lorentz"}, UnknownName, "Did you mean 'Lorenz'"),
        ({"solver": "euler"}, UnknownName, "unknown solver 'euler'"),
        ({"spread": -1.0}, InvalidValue, "spread must be at least 0"),
        ({"n_trajectories": 0}, InvalidValue, "n_trajectories must be a whole number"),
        ({"n_trajectories": 2, "start": np.ones((2, 3))}, InvalidValue, "start holds 2 starts already"),
        ({"step": 0.1}, InvalidValue, "belongs to the kinds delay, sde and field; Lorenz is a flow"),
        ({"name_or_path": "MackeyGlass", "step": 0.0}, InvalidValue, "step must be positive"),
        ({"name_or_path": "MackeyGlass", "solver": "tsit5"}, InvalidValue, "one method for MackeyGlass, of kind 'delay'"),
        ({"name_or_path": "OrnsteinUhlenbeck", "solver": "tsit5"}, UnknownName, "milstein"),
        ({"observe": "w"}, DataError, "w"),
        ({"sweep": {"rho": [20.0], "beta": [1.0]}}, InvalidValue, "takes one parameter"),
        ({"sweep": {"rho": [20.0]}, "n_trajectories": 3}, InvalidValue, "n_trajectories=3"),
        ({"sweep": {"rho": 20.0}}, InvalidValue, r"finite numbers \(B,\)"),
        ({"sweep": {"rh": [20.0]}}, UnknownName, "Did you mean 'rho'"),
        ({"name_or_path": "Lorenz96", "sweep": {"n": [4, 5]}}, InvalidValue, "is a size of Lorenz96"),
        ({"sweep": {"rho": [20.0, 30.0]}, "start": np.ones((3, 3))}, InvalidValue, "start has 3 rows for 2 values"),
    ],
)
def test_wrong_arguments(change, error, message):
    arguments = {"name_or_path": "Lorenz", "points": 10} | change
    with pytest.raises(error, match=message):
        simulate_system(arguments.pop("name_or_path"), arguments.pop("points"), **arguments)

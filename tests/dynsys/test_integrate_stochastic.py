"""Stochastic integrators: strong and weak order against exact solutions on the same Brownian path, stationary laws, calculi."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dynsys.errors import InvalidValue, UnknownName
from dynsys.integrate import brownian_path, solve_stochastic
from dynsys.precision import x64
from dynsys.status import Status
from dynsys.systems import load_system
from dynsys_datasets.catalogue import names

FILE = """
name = "Noisy"
kind = "sde"
calculus = "{calculus}"
source = "Test."
about = "Test."
state = ["x", "y"]
[parameters]
a = 0.5
b = 0.8
[equations]
x = "{x}"
y = "{y}"
[diffusion]
x = "{gx}"
y = "{gy}"
[start]
x = 1
y = 1
[time]
dt = 0.1
"""


@pytest.fixture
def make(tmp_path):
    def write(x="a*x", y="a*y", gx="b*x", gy="b*y", calculus="ito"):
        path = tmp_path / "noisy.toml"
        path.write_text(FILE.format(x=x, y=y, gx=gx, gy=gy, calculus=calculus))
        return load_system(path)

    return write


TIMES = np.array([0.0, 0.5, 1.0])


def strong_errors(system, exact, method, lanes=400, finest=64, count=4):
    """Mean |z(1) - exact| at steps 1, 2, 4, ... times the finest."""
    path = brownian_path(7, TIMES, 2, substeps=finest, lanes=lanes)
    w = np.asarray(path.increments.sum((1, 2)))
    wanted = exact(w, path)
    found = []
    for level in range(count):
        seen = path.coarser(TIMES, 2**level)
        found.append(np.abs(solve_stochastic(system, [1.0, 1.0], TIMES, path=seen, method=method).states[:, -1] - wanted).mean())
    return np.array(found)


def growth(calculus):
    """Geometric Brownian motion at t = 1: exp((a - b^2/2) + b W), without the b^2 in Stratonovich's sense (Kloeden & Platen 4.4)."""
    return lambda w, path: np.exp(0.5 - (0.32 if calculus == "ito" else 0.0) + 0.8 * w)


@pytest.mark.parametrize("calculus", ["ito", "stratonovich"])
@pytest.mark.parametrize(("method", "order"), [("euler-maruyama", 0.5), ("milstein", 1.0), ("heun", 1.0)])
def test_strong_order_on_geometric_brownian_motion(make, calculus, method, order):
    error = strong_errors(make(calculus=calculus), growth(calculus), method)
    slope = np.polyfit(np.arange(len(error)), np.log2(error), 1)[0]
    assert_allclose(slope, order, atol=0.15)


def test_sra1_has_strong_order_one_and_a_half(make):
    # no formula; the path at 512 steps stands for it
    system = make(x="sin(2*x)", y="-y + sin(x)", gx="1 + 0.5*cos(3*t)", gy="b")
    path = brownian_path(7, TIMES, 2, substeps=512, lanes=200)
    fine = solve_stochastic(system, [1.0, 1.0], TIMES, path=path, method="sra1").states[:, -1]
    steps = [64, 32, 16, 8]
    error = [
        np.abs(solve_stochastic(system, [1.0, 1.0], TIMES, path=path.coarser(TIMES, 512 // n)).states[:, -1] - fine).mean() for n in steps
    ]
    assert_allclose(np.polyfit(np.arange(4), np.log2(error), 1)[0], 1.5, atol=0.2)
    euler = solve_stochastic(system, [1.0, 1.0], TIMES, path=path.coarser(TIMES, 8), method="euler-maruyama").states[:, -1]
    assert error[0] < 0.1 * np.abs(euler - fine).mean()


def test_sra1_is_exact_for_a_time_dependent_amplitude(make):
    # dx = t dW: x(1) = 1 + int t dW = 1 + W(1) - int W dt, which the path holds
    system = make(x="0*x", y="0*y", gx="t", gy="1")
    path = brownian_path(1, [0.0, 1.0], 2, substeps=1, lanes=50)
    found = solve_stochastic(system, [1.0, 1.0], [0.0, 1.0], path=path, method="sra1").states[:, -1]
    w, integral = np.asarray(path.increments)[:, 0, 0], np.asarray(path.integrals)[:, 0, 0]
    assert_allclose(found[:, 0], 1 + w[:, 0] - integral[:, 0], atol=1e-12)
    assert_allclose(found[:, 1], 1 + w[:, 1], atol=1e-12)


@pytest.mark.parametrize("method", ["euler-maruyama", "milstein", "heun"])
def test_weak_order_one(make, method):
    # E x(1) = exp(a) and E x(1)^2 = exp(2a + b^2) in Ito's sense; 100,000 lanes on the same path: differences of the means are sharp
    moments = []
    path = brownian_path(3, TIMES, 2, substeps=8, lanes=100_000)
    w = np.asarray(path.increments.sum((1, 2)))
    exact = growth("ito")(w, path)
    for factor in (1, 2, 4):
        found = np.asarray(solve_stochastic(make(), [1.0, 1.0], TIMES, path=path.coarser(TIMES, factor), method=method).states[:, -1])
        moments.append([abs((found - exact).mean()), abs((found**2 - exact**2).mean())])
    moments = np.array(moments)
    assert_allclose(exact.mean(), np.exp(0.5), rtol=0.005)
    assert_allclose((exact**2).mean(), np.exp(1.64), rtol=0.02)
    assert_allclose(np.log2(moments[1:] / moments[:-1]), 1.0, atol=0.3)
    if method != "heun":
        assert_allclose(moments[:, 0], np.exp(0.5) - (1 + 0.5 / np.array([16, 8, 4])) ** np.array([16, 8, 4]), rtol=0.15)  # Euler's mean


def test_stationary_law_of_ornstein_uhlenbeck():
    system = load_system("OrnsteinUhlenbeck", theta=2.0, sigma=0.6, mu=1.0)
    found = np.asarray(solve_stochastic(system, [1.0], np.arange(2001) * 0.05, key=0, lanes=400).states)[:, 200:, 0]
    assert_allclose(found.mean(), 1.0, atol=0.005)
    assert_allclose(found.var(), 0.6**2 / 4, rtol=0.01)  # sigma^2 / (2 theta)
    centred = found - 1.0
    assert_allclose((centred[:, :-10] * centred[:, 10:]).mean() / centred.var(), np.exp(-2 * 0.5), atol=0.01)


def test_stationary_law_of_the_double_well():
    found = np.asarray(solve_stochastic(load_system("DoubleWell"), [1.0], np.arange(1001) * 0.5, key=0, lanes=400, substeps=10).states)
    x = np.linspace(-2.5, 2.5, 5001)
    density = np.exp(-2 * (x**4 / 4 - x**2 / 2) / 0.25)
    wanted = (x**2 * density).sum() / density.sum()
    assert_allclose((found[:, 200:, 0] ** 2).mean(), wanted, rtol=0.01)
    assert abs((found[:, -1, 0] > 0).mean() - 0.5) < 0.12  # both wells


def test_calculi_are_two_names_of_one_equation(make):
    # Stratonovich with drift f is Ito with f + g g_z/2, here a x + b^2 x/2
    path = brownian_path(5, TIMES, 2, substeps=16, lanes=10)
    one = solve_stochastic(make(calculus="stratonovich"), [1.0, 1.0], TIMES, path=path, method="milstein").states
    two = solve_stochastic(make(x="a*x + b**2*x/2", y="a*y + b**2*y/2"), [1.0, 1.0], TIMES, path=path, method="milstein").states
    assert_allclose(one, two, rtol=1e-12)
    # amplitudes that depend on the other state: the change of the drift is g_i dg_i/dz_i, here 0
    crossed = {"x": "0*x", "y": "0*y", "gx": "b*y", "gy": "b*x"}
    one = solve_stochastic(make(**crossed), [1.0, 1.0], TIMES, path=path, method="heun").states
    two = solve_stochastic(make(**crossed, calculus="stratonovich"), [1.0, 1.0], TIMES, path=path, method="heun").states
    assert_allclose(one, two, rtol=1e-12)


def test_the_same_key_is_the_same_path(make):
    system = make()
    times = np.arange(21) * 0.1
    run = solve_stochastic(system, [1.0, 1.0], times, key=3, substeps=4)
    assert_array_equal(run.states, solve_stochastic(system, [1.0, 1.0], times, key=3, substeps=4).states)
    assert_array_equal(run.states, solve_stochastic(system, [1.0, 1.0], times, key=jax.random.key(3), substeps=4).states)
    assert_allclose(run.states, solve_stochastic(system, [1.0, 1.0], times, path=brownian_path(3, times, 2, substeps=4)).states, rtol=1e-12)
    assert np.abs(run.states - solve_stochastic(system, [1.0, 1.0], times, key=4, substeps=4).states).max() > 0.01
    with x64(False):
        assert_array_equal(run.states, solve_stochastic(system, [1.0, 1.0], times, key=3, substeps=4).states)
    # a longer run begins in the same way
    longer = solve_stochastic(system, [1.0, 1.0], np.arange(41) * 0.1, key=3, substeps=4).states
    assert_allclose(longer[:21], run.states, rtol=1e-12)


def test_lanes(make):
    system, times = make(), np.arange(6) * 0.1
    sweep = system.sweep(b=[0.0, 0.1, 0.2])
    found = solve_stochastic(sweep, [1.0, 1.0], times, key=0, batched_system=True).states
    assert found.shape == (3, 6, 2)
    assert_allclose(found[0], np.tile(1.05 ** np.arange(6)[:, None], (1, 2)), rtol=1e-12)  # no noise: Euler
    path = brownian_path(0, times, 2, lanes=3)
    assert_allclose(solve_stochastic(sweep, [1.0, 1.0], times, path=path, batched_system=True).states, found, rtol=1e-12)
    starts = solve_stochastic(system, np.array([[1.0, 1.0], [2.0, 2.0]]), times, key=0).states
    assert np.abs(starts[1] / starts[0] - 2.0).max() > 1e-3  # each lane has its own noise
    driven = solve_stochastic(system, [1.0, 1.0], times, key=0, lanes=2).states
    assert np.abs(driven[1] - driven[0]).max() > 1e-3


def test_divergence_is_a_status(make):
    system = make(x="x**2", gx="0", y="0", gy="0")
    found = solve_stochastic(system, np.array([[1.0, 0.0], [-1.0, 0.0]]), np.arange(31) * 0.1, key=0, substeps=100)
    assert found.statuses == (Status.DIVERGED, Status.SUCCESS)
    assert np.all(np.isfinite(found.states[0, :10]))
    assert np.all(np.isnan(found.states[0, 12:]))
    assert_allclose(found.states[1, -1, 0], -1 / 4, rtol=1e-6)


@pytest.mark.parametrize("name", names("sde"))
def test_every_system_stays_finite_and_without_noise_is_its_flow(name):
    system = load_system(name)
    times = np.arange(200) * system.dt
    assert solve_stochastic(system, system.start, times, key=0, substeps=10).ok
    quiet = load_system(name, sigma=0.0)
    path = solve_stochastic(quiet, quiet.start, times, key=0, substeps=50).states
    from dynsys.integrate import solve

    assert_allclose(path[:50], solve(quiet, quiet.start, times[:50]).states, atol=2e-2 * np.abs(path).max())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"key": None}, InvalidValue, "either key="),
        ({"substeps": 0}, InvalidValue, "substeps >= 1"),
        ({"method": "euler"}, UnknownName, "unknown method for stochastic systems 'euler'.*euler-maruyama"),
        ({"method": "sra1"}, InvalidValue, "'sra1' needs noise that does not depend on the state"),
        ({"z0": [1.0]}, InvalidValue, "z0 must have shape"),
        ({"times": [0.0]}, InvalidValue, "T >= 2"),
        ({"z0": np.ones((2, 2)), "lanes": 3}, InvalidValue, "one length B"),
        ({"system": load_system("Lorenz"), "z0": [1.0, 1.0, 1.0]}, InvalidValue, "use solve for a flow"),
    ],
)
def test_wrong_arguments(make, change, error, message):
    arguments = {"system": make(), "z0": [1.0, 1.0], "times": TIMES, "key": 0} | change
    with pytest.raises(error, match=message):
        solve_stochastic(**arguments)


def test_milstein_refuses_amplitudes_that_cross(make):
    with pytest.raises(InvalidValue, match="depend on its own state only"):
        solve_stochastic(make(gx="b*y"), [1.0, 1.0], TIMES, key=0, method="milstein")
    with pytest.raises(InvalidValue, match="can't be joined by 3"):
        brownian_path(0, TIMES, 2, substeps=4).coarser(TIMES, 3)
    with pytest.raises(InvalidValue, match="the path has shape"):
        solve_stochastic(make(), [1.0, 1.0], TIMES, path=brownian_path(0, [0.0, 1.0], 2))

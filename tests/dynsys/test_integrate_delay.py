"""Delay equations: a solution in polynomials, order of convergence, exponents from the characteristic equation."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import lambertw

from dynsys.analysis import lyapunov_spectrum
from dynsys.dynamics import rollout
from dynsys.errors import InvalidValue
from dynsys.integrate import DelayMap, simulate_system, solve_delay
from dynsys.integrate.delay import choose_step
from dynsys.precision import x64
from dynsys.status import Status
from dynsys.systems import load_system
from dynsys_datasets.catalogue import names

LINEAR = """
name = "Linear"
kind = "delay"
source = "Test."
about = "Test."
state = ["x"]
[parameters]
a = 1
tau = 1
[equations]
x = "{}"
[start]
x = 1
[time]
dt = 0.1
"""


@pytest.fixture
def make(tmp_path):
    def write(equation="-a*delay(x, tau)", **parameters):
        path = tmp_path / "linear.toml"
        path.write_text(LINEAR.format(equation))
        return load_system(path, **parameters)

    return write


def polynomials(t, a=1.0, tau=1.0):
    """The solution of x' = -a x(t - tau) that was 1 up to t = 0: a polynomial of degree k + 1 on the k-th delay."""
    return sum((-a) ** j * max(0.0, t - (j - 1) * tau) ** j / math.factorial(j) for j in range(int(t / tau) + 2))


TIMES = np.linspace(0.0, 6.3, 64)  # not on the steps


def test_converges_at_order_four_to_the_known_solution(make):
    exact = np.array([polynomials(t) for t in TIMES])
    error = [np.abs(solve_delay(make(), [1.0], TIMES, dt=1 / n).states[:, 0] - exact).max() for n in (8, 16, 32, 64)]
    assert np.all(np.log2(np.divide(error[:-1], error[1:])) > 3.8)
    assert error[-1] < 1e-8


def test_two_delays_converge_too(make):
    # 1 and 1.5 are commensurate, so both fall onto steps; against a fine run
    system = make("-a*delay(x, tau) + 0.5*delay(x, 1.5)*x")
    fine = solve_delay(system, [0.5], TIMES, dt=1 / 256).states
    error = [np.abs(solve_delay(system, [0.5], TIMES, dt=1 / n).states - fine).max() for n in (8, 16, 32)]
    assert np.all(np.log2(np.divide(error[:-1], error[1:])) > 3.7)


@pytest.mark.parametrize("lag", [1.0, math.sqrt(2)])
def test_a_smooth_history_is_followed_whatever_the_delay(make, lag):
    # x = cos(omega t) solves x' = omega x(t - tau) for omega tau = 3 pi/2; the second delay makes the first one end between steps
    omega = 1.5 * np.pi / lag
    system = make("a*delay(x, tau) + 0*delay(x, 0.7)", a=omega, tau=lag)
    times = np.linspace(2.0, 8.0, 50)
    samples = np.linspace(2.0 - lag, 2.0, 300)
    exact = np.cos(omega * times)[:, None]
    for history in (lambda t: np.array([np.cos(omega * t)]), (samples, np.cos(omega * samples)[:, None])):
        error = [np.abs(solve_delay(system, history, times, dt=1 / n).states - exact).max() for n in (20, 40, 80, 160)]
        # where in a step the larger delay ends changes with n, and the error with it
        assert 3.7 < -np.polyfit(np.arange(4), np.log2(error), 1)[0] < 5.0
        assert error[-1] < 1e-5


def test_lanes_have_their_own_past_and_their_own_delays(make):
    sweep = make().sweep(tau=[1.0, 0.7, 1.3], a=[1.0, 1.0, 2.0])
    found = solve_delay(sweep, [1.0], TIMES, dt=0.01, batched_system=True)
    assert found.states.shape == (3, 64, 1)
    for lane, (tau, a) in enumerate(((1.0, 1.0), (0.7, 1.0), (1.3, 2.0))):
        assert_allclose(found.states[lane, :, 0], [polynomials(t, a, tau) for t in TIMES], atol=1e-7)
    scaled = solve_delay(make(), [[1.0], [2.0]], TIMES, dt=0.05).states
    assert_allclose(scaled[1], 2 * scaled[0], atol=1e-12)
    both = solve_delay(sweep, [[1.0], [2.0], [3.0]], TIMES, dt=0.01, batched_system=True).states
    assert_allclose(both, found.states * np.array([1.0, 2.0, 3.0])[:, None, None], rtol=1e-10, atol=1e-12)
    of_time = solve_delay(sweep, lambda t: np.ones(1), TIMES, dt=0.01, batched_system=True).states
    assert_allclose(of_time, found.states, atol=1e-9)


@pytest.mark.parametrize("name", names("delay"))
def test_the_chosen_step_is_accurate_and_the_system_stays_bounded(name):
    system = load_system(name)
    step = choose_step(system, system.start)
    times = np.linspace(0.0, 4 * system.lags[0], 200)
    found = solve_delay(system, system.start, times, dt=step)
    fine = solve_delay(system, system.start, times, dt=step / 3)
    assert found.ok
    assert_allclose(found.states, fine.states, atol=3e-7 * np.abs(fine.states).max())  # rtol 1e-8, and what grows in four delays
    series = np.asarray(simulate_system(name, 2000, step=step).trajectories[0])
    assert np.all(np.isfinite(series))
    assert series.std() > 0.05


def test_double_precision_whatever_the_setting(make):
    system = make()
    expected = solve_delay(system, [1.0], TIMES).states
    with x64(False):
        assert_array_equal(solve_delay(system, [1.0], TIMES).states, expected)


def test_gradients(make):
    system = make()

    def last(start, a):
        import equinox as eqx

        changed = eqx.tree_at(lambda tree: tree.parameters["a"], system, a)
        return solve_delay(changed, start[None], [0.0, 1.0, 2.0], dt=0.1).states[-1, 0]

    # x(2) = x0 (1 - 2a + a^2/2)
    by_start, by_a = jax.grad(last, argnums=(0, 1))(jnp.asarray(1.0), jnp.asarray(1.0))
    assert_allclose([by_start, by_a], [-0.5, -1.0], atol=1e-12)
    with pytest.raises(InvalidValue, match="can't be traced"):
        jax.grad(lambda tau: load_system("MackeyGlass", tau=tau).field(0.0, jnp.ones(1), jnp.ones((1, 1)))[0])(17.0)


def test_divergence_is_a_status(make):
    found = solve_delay(make("x**2 + delay(x, tau)"), [[1.0], [-0.1]], np.linspace(0.0, 3.0, 31), dt=0.01)
    assert found.statuses == (Status.DIVERGED, Status.SUCCESS)
    assert np.isnan(found.states[0, -1, 0])
    assert np.all(np.isfinite(found.states[1]))
    # x' = x^2 + 1 from 1: tan(t + pi/4) up to pi/4
    finite = np.isfinite(found.states[0, :, 0])
    assert finite.sum() == 8
    assert_allclose(found.states[0, :7, 0], np.tan(np.arange(7) * 0.1 + np.pi / 4), rtol=1e-4)


@pytest.mark.parametrize("a", [0.3, 1.0])
def test_exponents_are_the_roots_of_the_characteristic_equation(make, a):
    # x = exp(s t): s = -a exp(-s), so s = W_k(-a)
    roots = np.sort(lambertw(-a, np.arange(-4, 5)).real)[::-1][:4]
    system = DelayMap(make(a=a), 1 / 20)
    found = lyapunov_spectrum(system, system.lift(np.ones(1)), steps=4000, dt=1 / 20, n_exponents=4, transient=400)
    # a pair of complex roots turns: its two exponents are known to 1/time
    assert_allclose(found.exponents, roots, atol=0.01)


def test_mackey_glass_is_periodic_at_16_and_chaotic_at_23():
    spectra = {}
    for tau in (16.0, 23.0):
        system = DelayMap(load_system("MackeyGlass", tau=tau), tau / 40)
        spectra[tau] = lyapunov_spectrum(
            system, system.lift(np.array([0.9])), steps=24_000, dt=tau / 40, n_exponents=5, transient=4000, every=10
        )
    assert abs(spectra[16.0].maximal) < 1.5e-3
    # Farmer 1982, Physica 4D, 366, table 1: at 23 one positive exponent, 9.56e-3 bits/s there; dimension 2.82 to 3.2
    assert 0.005 < spectra[23.0].maximal < 0.014
    assert 2.7 < spectra[23.0].kaplan_yorke < 3.4


def test_the_map_follows_the_solution():
    system = load_system("MackeyGlass", tau=17.0)
    h, size = 0.25, 69
    orbit = np.asarray(solve_delay(system, [1.2], np.arange(2000) * h, dt=h).states)
    delayed = orbit[: 2000 - 68]
    slopes = np.concatenate([np.zeros((68, 1)), [system.field(0.0, z, past[None]) for z, past in zip(orbit[68:], delayed, strict=True)]])
    at = 1000
    z = np.concatenate([orbit[at : at - size : -1].ravel(), slopes[at - 1 : at - size : -1].ravel()])
    made = DelayMap(system, dt=2 * h, substeps=2)
    assert made.dim == len(z) == 2 * size - 1
    assert made.memory == 34
    assert_allclose(rollout(made, jnp.asarray(z), 400)[:, 0], orbit[at + 2 : at + 802 : 2, 0], atol=1e-8)
    assert_array_equal(made.observe(made.correct(z, np.array([3.0]))), [3.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": [0.0]}, r"T >= 2"),
        ({"times": [0.0, -1.0]}, "increase"),
        ({"history": [1.0, 2.0]}, r"a constant past must be finite with shape \(1,\)"),
        ({"history": [np.nan]}, "finite"),
        ({"history": lambda t: np.array([np.log(t)])}, "finite states"),
        ({"history": (np.linspace(-1, 0, 9), np.ones((8, 1)))}, "samples must be times"),
        ({"history": (np.linspace(-0.5, 0, 9), np.ones((9, 1)))}, "samples begin at -0.5"),
        ({"dt": 0.0}, "dt must be positive"),
        ({"rtol": 0.0}, "rtol and bound must be positive"),
        ({"dt": 1e-9}, "at most 100000"),
        ({"batched_system": True}, "batched_system=True"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value", "ignore:divide by zero")
def test_wrong_arguments(make, change, message):
    arguments = {"system": make(), "history": [1.0], "times": [0.0, 1.0], "dt": 0.1} | change
    with pytest.raises(InvalidValue, match=message):
        solve_delay(**arguments)


def test_wrong_delays_and_maps(make):
    with pytest.raises(InvalidValue, match="must be positive"):
        make(tau=0.0)
    with pytest.raises(InvalidValue, match="no equation has a delay"):
        make("-a*x*tau")
    with pytest.raises(InvalidValue, match="must not be longer than the smallest delay"):
        DelayMap(make(), dt=2.0)
    with pytest.raises(InvalidValue, match="has a sweep"):
        DelayMap(make().sweep(a=[1.0, 2.0]), dt=0.1)

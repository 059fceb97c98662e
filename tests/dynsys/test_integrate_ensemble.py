"""Ensembles against closed forms: orders, tolerances, lanes that do not know of each other, divergence, inputs, sweeps."""

import itertools
from functools import partial

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from dynsys.dynamics import AbstractFlow
from dynsys.errors import InvalidValue, UnknownName
from dynsys.integrate import ensemble, ensemble_adaptive, tsitouras
from dynsys.status import Status
from dynsys.systems import load_system

A = np.array([[-0.3, 2.0, 0.0], [-2.0, -0.3, 0.5], [0.1, 0.0, -1.0]])
STARTS = np.random.default_rng(0).normal(size=(5, 3))


class Linear(AbstractFlow):
    A: jnp.ndarray
    n_inputs: int = eqx.field(static=True, default=0)

    @property
    def dim(self):
        return self.A.shape[-1]

    def field(self, t, z, u=None):
        return self.A @ z + (0.0 if u is None else u)


class Riccati(AbstractFlow):
    """z' = z^2: z0 / (1 - z0 t), which leaves every bound at t = 1 / z0 for z0 > 0."""

    dim: int = 1
    n_inputs: int = 0

    def field(self, t, z, u=None):
        return z**2


class Clock(AbstractFlow):
    """z' = cos t: sin t, whatever the state."""

    dim: int = 1
    n_inputs: int = 0

    def field(self, t, z, u=None):
        return jnp.cos(t) + 0 * z


class Root(AbstractFlow):
    """z' = -sqrt(z): (sqrt(z0) - t/2)^2; there is no field below 0."""

    dim: int = 1
    n_inputs: int = 0

    def field(self, t, z, u=None):
        return -jnp.sqrt(z)


LINEAR = Linear(jnp.asarray(A))


def by_scipy(field, z0, times):
    """States (B, T, M) by DOP853 at 1e-12, an independent program."""
    return np.stack([solve_ivp(field, times[[0, -1]], z, "DOP853", times, rtol=1e-12, atol=1e-12).y.T for z in np.atleast_2d(z0)])


def lorenz(t, z, rho=28.0):
    x, y, w = z
    return [10 * (y - x), x * (rho - w) - y, x * y - 8 / 3 * w]


def exact(times):
    return np.stack([STARTS @ expm(t * A).T for t in times], axis=1)


@pytest.mark.parametrize(("method", "order", "counts"), [("rk4", 4, (20, 40, 80)), ("tsit5", 5, (20, 40, 80))])
def test_order(method, order, counts):
    errors = [np.abs(ensemble(LINEAR, STARTS, dt=2 / n, steps=n, method=method).states[:, -1] - exact([2.0])[:, 0]).max() for n in counts]
    # the next term of the error is h times smaller: at h = 0.1 it changes the slope by less than 0.25
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), order, atol=0.25)


@pytest.mark.parametrize("method", ["rk4", "tsit5"])
def test_the_time_reaches_the_field(method):
    found = ensemble(Clock(), np.zeros((2, 1)), dt=0.01, steps=300, save_every=100, method=method, t0=1.0)
    np.testing.assert_allclose(found.times, [1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(found.states[1, :, 0], np.sin(found.times) - np.sin(1.0), atol=1e-10)


def test_kept_states_and_the_last_one_agree():
    every = ensemble(LINEAR, STARTS, dt=0.02, steps=60, save_every=20)
    last = ensemble(LINEAR, STARTS, dt=0.02, steps=60)
    assert every.states.shape == (5, 4, 3)
    assert last.states.shape == (5, 2, 3)
    np.testing.assert_allclose(every.states[:, -1], last.states[:, -1], rtol=1e-13)
    np.testing.assert_allclose(every.states, exact(every.times), atol=1e-7)
    single = ensemble(LINEAR, STARTS[2], dt=0.02, steps=60, save_every=20)
    assert single.states.shape == (4, 3)
    assert single.codes.shape == ()
    np.testing.assert_allclose(single.states, every.states[2], rtol=1e-12, atol=1e-14)


def test_tableau_is_that_of_the_paper():
    # the same constants as another implementation, and the order conditions of the interpolant, up to order 4
    theirs = diffrax.Tsit5.tableau
    for ours, row in zip(tsitouras.A, theirs.a_lower, strict=True):
        np.testing.assert_array_equal(ours, row)
    np.testing.assert_allclose(tsitouras.E, theirs.b_error, rtol=1e-15)
    a, c, powers = np.zeros((7, 7)), np.array(tsitouras.C), np.arange(1, 5)
    for i, row in enumerate(tsitouras.A):
        a[i + 1, : len(row)] = row
    np.testing.assert_allclose(a.sum(1), c, atol=1e-14)
    np.testing.assert_allclose(np.sum(tsitouras.P, axis=1)[:6], tsitouras.A[-1], atol=1e-13)
    trees = {1: [1 + 0 * c], 2: [c], 3: [c**2, a @ c], 4: [c**3, c * (a @ c), a @ c**2, a @ a @ c]}
    gamma = {1: [1], 2: [2], 3: [3, 6], 4: [4, 8, 12, 24]}
    for order, weights in trees.items():
        for weight, density in zip(weights, gamma[order], strict=True):
            np.testing.assert_allclose(weight @ np.array(tsitouras.P), (powers == order) / density, atol=1e-13)


def test_adaptive_error_follows_the_tolerance():
    times, tolerances = np.linspace(0, 5, 61), (1e-5, 1e-7, 1e-9)
    runs = [ensemble_adaptive(LINEAR, STARTS, times, rtol=tol, atol=tol) for tol in tolerances]
    errors = [np.abs(run.states - exact(times)).max() for run in runs]
    # stable flow: the error stays near the tolerance; a factor of 100 in tolerance is about one of 100 in error
    assert all(error < 10 * tol for error, tol in zip(errors, tolerances, strict=True))
    assert all(30 < wide / tight < 300 for wide, tight in itertools.pairwise(errors))
    assert all(run.ok for run in runs)
    steps = [int(run.steps.max()) for run in runs]
    np.testing.assert_allclose(np.divide(steps[1:], steps[:-1]), 100**0.2, rtol=0.15)  # step length as tol^(1/5)


@pytest.mark.parametrize("count", [2, 7, 1001])  # fewer times than steps, and many times a step
def test_adaptive_states_between_steps(count):
    times = np.linspace(0.0, 20.0, count) + 0.5
    found = ensemble_adaptive(Linear(jnp.array([[0.0, 1.0], [-1.0, 0.0]])), np.array([[1.0, 0.0], [0.0, 3.0]]), times)
    wanted = np.stack([np.cos(times - 0.5), -np.sin(times - 0.5)], -1)
    np.testing.assert_allclose(found.states[0], wanted, atol=2e-6)
    np.testing.assert_allclose(found.states[1], 3 * wanted[:, ::-1] * [-1, 1], atol=6e-6)
    if count > 2:  # how many times are asked for does not change the steps
        assert (
            found.steps[0] == ensemble_adaptive(LINEAR.__class__(jnp.array([[0.0, 1.0], [-1.0, 0.0]])), np.eye(2)[0], times[[0, -1]]).steps
        )


def test_lorenz_against_scipy():
    flow, times = load_system("Lorenz"), np.linspace(0, 3, 31)
    z0 = flow.start + STARTS
    truth = by_scipy(lorenz, z0, times)
    found = ensemble_adaptive(flow, z0, times, rtol=1e-9, atol=1e-9)
    # errors of 1e-9 a step grow by e^(0.9 * 3) on average, by more than 10 times that on the worst of five paths
    assert np.abs(found.states - truth).max() < 1e-5
    fixed = ensemble(flow, z0, dt=0.001, steps=3000, save_every=100)
    assert np.abs(fixed.states - truth).max() < 1e-5


@pytest.mark.parametrize("threads", [1, 3])
def test_lanes_do_not_know_of_each_other(threads):
    flow = load_system("Lorenz")
    z0 = flow.start + np.random.default_rng(1).normal(size=(11, 3))
    for run in (
        lambda z, **options: ensemble(flow, z, dt=0.01, steps=200, save_every=50, **options),
        lambda z, **options: ensemble_adaptive(flow, z, np.linspace(0, 2, 5), **options),
    ):
        together, blocks = run(z0, block=11), run(z0, block=4, threads=threads)  # blocks of 4, 4, and 3 filled up to 4
        assert blocks.states.dtype == np.float64
        # other block sizes may round otherwise; e^(0.9 * 2) of 1e-15, times 30 for a coordinate of that size, times 100
        np.testing.assert_allclose(blocks.states, together.states, atol=1e-11)
        np.testing.assert_array_equal(blocks.steps, together.steps)
        alone = run(z0[7:8])
        np.testing.assert_allclose(alone.states[0], together.states[7], atol=1e-11)
        assert alone.steps[0] == together.steps[7]


@pytest.mark.parametrize("block", [2, 8])
def test_a_diverging_lane_is_a_status_and_disturbs_nobody(block):
    z0 = np.array([[-1.0], [0.8], [0.1], [-2.0]])  # the second blows up at t = 1.25
    times = np.linspace(0, 2, 5)
    for found, tolerance in (
        (ensemble_adaptive(Riccati(), z0, times, block=block), 1e-7),
        (ensemble(Riccati(), z0, dt=0.001, steps=2000, save_every=500, block=block), 1e-9),
    ):
        assert found.statuses == (Status.SUCCESS, Status.DIVERGED, Status.SUCCESS, Status.SUCCESS)
        assert found.status is Status.DIVERGED
        np.testing.assert_allclose(found.states[[0, 2, 3], :, 0], z0[[0, 2, 3]] / (1 - z0[[0, 2, 3]] * times), atol=tolerance)
        np.testing.assert_allclose(found.states[1, :3, 0], 0.8 / (1 - 0.8 * times[:3]), atol=1e-6)
        assert np.isnan(found.states[1, 3:]).all()


def test_all_lanes_may_fail():
    found = ensemble_adaptive(Riccati(), np.array([[1.0], [2.0]]), np.linspace(0, 2, 5))
    assert found.statuses == (Status.DIVERGED,) * 2
    assert np.isfinite(found.states[0, :2]).all()


def test_a_field_without_a_value_at_the_start_or_later():
    # sqrt(0.01 ...) reaches 0 at t = 0.2 and has no real values beyond; a negative start has none at all
    found = ensemble_adaptive(Root(), np.array([[9.0], [-1.0], [0.01]]), np.array([0.0, 0.1, 1.0]))
    assert found.statuses == (Status.SUCCESS, Status.DIVERGED, Status.DIVERGED)
    np.testing.assert_allclose(found.states[0, :, 0], [9.0, 2.95**2, 6.25], atol=1e-7)
    np.testing.assert_allclose(found.states[2, 1, 0], 0.05**2, atol=1e-7)
    assert np.isnan(found.states[1, 1:]).all()
    assert np.isnan(found.states[2, 2])


def test_too_few_steps_is_a_status():
    found = ensemble_adaptive(LINEAR, STARTS * np.array([1, 1, 1, 1, 0])[:, None], [0.0, 50.0], max_steps=60)
    assert found.statuses == (Status.MAX_STEPS,) * 4 + (Status.SUCCESS,)
    assert (found.steps + found.rejected <= 60).all()


def test_refused_steps_are_counted_and_harmless():
    # slow, then fast: van der Pol's relaxation, against a method of order 8
    flow = _Relaxation()
    times = np.linspace(0, 30, 7)
    found = ensemble_adaptive(flow, np.array([[2.0, 0.0], [0.5, 1.0]]), times)
    assert (found.rejected > 0).all()
    truth = by_scipy(lambda t, z: flow.field(t, z).tolist(), np.array([[2.0, 0.0], [0.5, 1.0]]), times)
    assert np.abs(found.states - truth).max() < 1e-4  # within a relaxation the state moves by 10 in a time of 0.1


class _Relaxation(AbstractFlow):
    dim: int = 2
    n_inputs: int = 0

    def field(self, t, z, u=None):
        x, v = z
        stack = np.stack if isinstance(z, np.ndarray) else jnp.stack
        return stack([v, 8.0 * (1 - x**2) * v - x])


@pytest.mark.parametrize("own", [False, True])
def test_held_inputs(own):
    # x' = -x + u, u constant in each interval: x after it is u + (x - u) e^(-length)
    flow, z0 = Linear(-jnp.eye(1), 1), np.array([[1.0], [2.0], [3.0]])
    inputs = np.random.default_rng(2).normal(size=(3, 4, 1))
    times, wanted = np.arange(5) * 0.5, [z0]
    for k in range(4):
        u = inputs[:, k] if own else inputs[0, k]
        wanted.append(u + (wanted[-1] - u) * np.exp(-0.5))
    given = inputs if own else inputs[0]
    for found in (
        ensemble_adaptive(flow, z0, times, inputs=given, block=2),
        ensemble(flow, z0, dt=0.01, steps=200, save_every=50, inputs=given, block=2),
    ):
        np.testing.assert_allclose(found.states, np.stack(wanted, 1), atol=2e-7)


def test_a_sweep_of_parameters():
    flow = load_system("Lorenz").sweep(rho=np.array([10.0, 28.0, 45.0]))
    times = np.linspace(0, 1, 3)
    truth = np.concatenate([by_scipy(partial(lorenz, rho=rho), STARTS[0], times) for rho in (10.0, 28.0, 45.0)])
    np.testing.assert_allclose(ensemble_adaptive(flow, STARTS[0], times, batched_flow=True, block=2).states, truth, atol=1e-5)
    np.testing.assert_allclose(ensemble(flow, STARTS[:3], dt=0.01, steps=5, batched_flow=True).states[:, 0], STARTS[:3])
    np.testing.assert_allclose(ensemble(flow, STARTS[0], dt=0.001, steps=1000, save_every=500, batched_flow=True).states, truth, atol=1e-6)
    matrices = Linear(jnp.stack([jnp.asarray(A), 0.5 * jnp.asarray(A)]))  # arrays of more than one axis
    found = ensemble(matrices, STARTS[0], dt=0.01, steps=100, batched_flow=True).states[:, -1]
    np.testing.assert_allclose(found, [expm(A) @ STARTS[0], expm(A / 2) @ STARTS[0]], atol=1e-8)


def test_gradient_by_start_and_matrix_in_blocks():
    def loss(flow, z0):
        return jnp.sum(ensemble(flow, z0, dt=0.01, steps=100, block=2).states[:, -1])

    flow_gradient, gradient = jax.grad(loss, argnums=(0, 1))(LINEAR, jnp.asarray(STARTS))
    np.testing.assert_allclose(gradient, np.tile(expm(A).sum(0), (5, 1)), atol=1e-8)
    by_flow = jax.grad(lambda flow: loss(flow, STARTS))(LINEAR)  # starts that are not traced, a flow that is
    np.testing.assert_allclose(by_flow.A, flow_gradient.A, rtol=1e-12)
    inside = jax.jit(lambda: ensemble_adaptive(LINEAR, STARTS, [0.0, 1.0], block=2).states[:, -1])()  # nothing is traced but the call
    np.testing.assert_allclose(inside, exact([1.0])[:, 0], atol=1e-7)
    bump = np.zeros((3, 3))
    bump[0, 1] = 1e-5
    slope = (loss(Linear(jnp.asarray(A + bump)), STARTS) - loss(Linear(jnp.asarray(A - bump)), STARTS)) / 2e-5
    np.testing.assert_allclose(flow_gradient.A[0, 1], slope, rtol=1e-7)


def test_float64_whatever_the_setting():
    with jax.enable_x64(False):
        found = ensemble_adaptive(load_system("Lorenz"), np.ones((5, 3), np.float32), [0.0, 0.5], block=2)
        fixed = ensemble(load_system("Lorenz"), np.ones((5, 3), np.float32), dt=0.001, steps=500, block=2)
    assert found.states.dtype == fixed.states.dtype == np.float64
    np.testing.assert_allclose(found.states[:, -1], fixed.states[:, -1], rtol=1e-7)  # float32 would leave 1e-6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dt": 0.0}, "dt must be positive"),
        ({"dt": float("nan")}, "dt must be positive"),
        ({"steps": 0}, "steps must be a whole number"),
        ({"steps": 10, "save_every": 3}, "save_every must divide steps"),
        ({"z0": STARTS[:, :2]}, r"z0 must have shape \(B, M\)"),
        ({"z0": np.where(np.arange(5)[:, None] == 2, np.nan, STARTS)}, "row 2; a start must be finite"),
        ({"inputs": np.zeros((3, 1))}, "inputs must have shape"),
        ({"block": 0}, "block must be at least 1"),
        ({"bound": -1.0}, "bound must be positive"),
        ({"batched_flow": True}, "all batch axes must have one length B"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(InvalidValue, match=message):
        ensemble(LINEAR, settings.pop("z0", STARTS), **({"dt": 0.1, "steps": 10} | settings))


def test_bad_times_and_methods_are_named():
    with pytest.raises(UnknownName, match="rk4"):
        ensemble(LINEAR, STARTS, dt=0.1, steps=1, method="rk5")
    with pytest.raises(InvalidValue, match="increase"):
        ensemble_adaptive(LINEAR, STARTS, [0.0, 1.0, 0.5])
    with pytest.raises(InvalidValue, match="T >= 2"):
        ensemble_adaptive(LINEAR, STARTS, [0.0])
    with pytest.raises(InvalidValue, match="rtol must be positive"):
        ensemble_adaptive(LINEAR, STARTS, [0.0, 1.0], rtol=0.0)

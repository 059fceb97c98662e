"""solve against closed forms, an independent stiff solver, and itself one by one; failures are values."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from numpy.testing import assert_allclose
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from dynsys import registry
from dynsys.dynamics import AbstractFlow
from dynsys.errors import InvalidValue, UnknownName
from dynsys.integrate import solve
from dynsys.precision import x64
from dynsys.status import Status
from dynsys.systems import load_system


class Linear(AbstractFlow):
    """dz/dt = A z + C u."""

    A: Array
    C: Array

    @property
    def dim(self):
        return self.A.shape[-1]

    @property
    def n_inputs(self):
        return self.C.shape[-1]

    def field(self, t, z, u=None):
        return self.A @ z if u is None else self.A @ z + self.C @ u


class Scalar(AbstractFlow):
    """dz/dt = a function of (t, z)."""

    right: object = eqx.field(static=True)
    dim: int = 1
    n_inputs: int = 0

    def field(self, t, z, u=None):
        return self.right(t, z)


class VanDerPol(AbstractFlow):
    """x'' = mu (1 - x^2) x' - x."""

    mu: Array
    dim: int = 2
    n_inputs: int = 0

    def field(self, t, z, u=None):
        return jnp.stack([z[1], self.mu * (1 - z[0] ** 2) * z[1] - z[0]])


A = jnp.array([[-0.3, 2.0, 0.0], [-2.0, -0.3, 1.0], [0.0, 0.5, -1.0]])
LINEAR = Linear(A, jnp.array([[1.0], [0.0], [2.0]]))
Z0 = np.array([1.0, -0.5, 2.0])


@pytest.mark.parametrize("solver", registry.names("solver"))
@pytest.mark.parametrize("tolerance", [1e-6, 1e-9])
def test_linear_flow_is_the_matrix_exponential(solver, tolerance):
    times = np.linspace(1.0, 6.0, 41)  # an autonomous flow does not care where time begins
    solution = solve(LINEAR, Z0, times, solver=solver, rtol=tolerance, atol=tolerance)
    expected = np.stack([expm(np.asarray(A) * (t - 1.0)) @ Z0 for t in times])
    assert solution.ok
    # the local error is kept below the tolerance; over 5 units of a damped flow it adds up to some tens of it
    assert np.abs(np.asarray(solution.states) - expected).max() < 50 * tolerance
    assert_allclose(solution.states[0], Z0, rtol=0, atol=1e-15)


@pytest.mark.parametrize(("solver", "order"), [("tsit5", 5), ("dopri8", 8), ("kvaerno5", 5)])
def test_work_grows_as_the_order_promises(solver, order):
    # smaller tolerance by 1e-4 takes 10^(4/order) times the steps
    steps = [
        int(solve(LINEAR, Z0, np.array([0.0, 40.0]), solver=solver, rtol=tolerance, atol=tolerance).steps) for tolerance in (1e-6, 1e-10)
    ]
    assert_allclose(np.log(steps[1] / steps[0]) / np.log(10.0), 4 / order, rtol=0.25)


def test_oscillator_keeps_its_energy():
    flow = Linear(jnp.array([[0.0, 1.0], [-1.0, 0.0]]), jnp.zeros((2, 0)))
    solution = solve(flow, [1.0, 0.0], np.linspace(0, 200 * np.pi, 1001), solver="dopri8", rtol=1e-12, atol=1e-12)
    energy = np.sum(np.asarray(solution.states) ** 2, axis=1)
    # 100 periods, about 1000 steps of 1e-12 at worst
    assert np.abs(energy - 1).max() < 1e-9


def test_logistic_growth_and_explicit_time():
    logistic = Scalar(lambda t, z: z * (1 - z))
    times = np.linspace(0, 10, 21)
    found = solve(logistic, [0.1], times).states[:, 0]
    assert_allclose(found, 1 / (1 + 9 * np.exp(-times)), atol=2e-8)
    driven = Scalar(lambda t, z: jnp.cos(t) * jnp.ones(1))
    assert_allclose(solve(driven, [0.0], times + 0.5).states[:, 0], np.sin(times + 0.5) - np.sin(0.5), atol=5e-8)


def test_stiff_van_der_pol_agrees_with_radau():
    times = np.linspace(0, 1000, 101)  # one jump of the relaxation oscillation near t = 807
    solution = solve(VanDerPol(jnp.asarray(1000.0)), [2.0, 0.0], times, solver="kvaerno5", rtol=1e-8, atol=1e-8)
    right = lambda t, z: [z[1], 1000 * (1 - z[0] ** 2) * z[1] - z[0]]  # noqa: E731
    jacobian = lambda t, z: [[0, 1], [-2000 * z[0] * z[1] - 1, 1000 * (1 - z[0] ** 2)]]  # noqa: E731
    reference = solve_ivp(right, (0, 1000), [2.0, 0.0], method="Radau", jac=jacobian, rtol=1e-10, atol=1e-12, t_eval=times)
    assert solution.ok
    # the state moves by 2e-3 in a unit of time between jumps: a jump 1e-3 off in time shows as 2e-6
    assert_allclose(solution.states[:, 0], reference.y[0], atol=1e-5)
    assert int(solution.steps) < 20_000  # an explicit method needs about 2e6


def test_robertson_conserves_mass_and_agrees_with_radau():
    def right(t, z):
        a, b = 0.04 * z[0], 1e4 * z[1] * z[2]
        c = 3e7 * z[1] ** 2
        return jnp.stack([-a + b, a - b - c, c])

    class Robertson(AbstractFlow):
        dim: int = 3
        n_inputs: int = 0

        def field(self, t, z, u=None):
            return right(t, z)

    times = np.concatenate([[0.0], np.logspace(-3, 5, 17)])
    solution = solve(Robertson(), [1.0, 0.0, 0.0], times, solver="kvaerno5", rtol=1e-8, atol=1e-12)
    plain = lambda t, z: np.array([-0.04 * z[0] + 1e4 * z[1] * z[2], 0.04 * z[0] - 1e4 * z[1] * z[2] - 3e7 * z[1] ** 2, 3e7 * z[1] ** 2])  # noqa: E731
    reference = solve_ivp(plain, (0, 1e5), [1.0, 0.0, 0.0], method="Radau", rtol=1e-10, atol=1e-14, t_eval=times)
    assert solution.ok
    assert_allclose(np.asarray(solution.states).sum(1), 1.0, atol=1e-9)
    # output between steps is interpolated; the two solvers agree to a few 1e-7 of each component
    assert_allclose(solution.states, reference.y.T, rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize("solver", ["tsit5", "dopri8"])
def test_batch_equals_one_by_one(solver):
    flow = load_system("Lorenz")
    starts = flow.start + np.random.default_rng(0).normal(size=(5, 3))
    times = np.linspace(0, 2, 21)
    together = solve(flow, starts, times, solver=solver)
    assert together.states.shape == (5, 21, 3)
    assert len(together.statuses) == 5
    assert len(set(np.asarray(together.steps).tolist())) > 1  # each lane has its own step size
    for lane, start in enumerate(starts):
        alone = solve(flow, start, times, solver=solver)
        assert int(alone.steps) == int(together.steps[lane])
        # the same steps; rounding (1e-16) grows by e^(0.9 * 2)
        assert_allclose(together.states[lane], alone.states, atol=1e-10)


def test_batch_over_parameters_shared_and_own_starts():
    flow = load_system("Lorenz")
    rho, times = np.array([14.0, 28.0, 60.0]), np.linspace(0, 1, 5)
    shared = solve(flow.sweep(rho=rho), flow.start, times, batched_flow=True)
    own = solve(flow.sweep(rho=rho), flow.start + np.arange(3.0)[:, None], times, batched_flow=True)
    for lane, value in enumerate(rho):
        alone = solve(load_system("Lorenz", rho=value), flow.start, times)
        assert_allclose(shared.states[lane], alone.states, atol=1e-10)
        alone = solve(load_system("Lorenz", rho=value), flow.start + lane, times)
        assert_allclose(own.states[lane], alone.states, atol=1e-10)


@pytest.mark.parametrize("rows", [20, 21])
def test_inputs_are_held_between_times(rows):
    times = np.sort(np.random.default_rng(1).uniform(0, 5, 21))
    inputs = np.random.default_rng(2).normal(size=(rows, 1)) * 5
    solution = solve(LINEAR, Z0, times, inputs=inputs)
    z, expected = Z0, [Z0]
    for k in range(20):
        # exact for a constant input: the exponential of the augmented matrix
        augmented = np.zeros((4, 4))
        augmented[:3, :3], augmented[:3, 3] = np.asarray(A), np.asarray(LINEAR.C) @ inputs[k]
        z = (expm(augmented * (times[k + 1] - times[k])) @ np.append(z, 1.0))[:3]
        expected.append(z)
    # 20 intervals of local errors 1e-8 of states up to 10
    assert_allclose(solution.states, expected, atol=1e-6)


def test_inputs_may_differ_between_lanes():
    times = np.linspace(0, 1, 6)
    inputs = np.random.default_rng(2).normal(size=(3, 5, 1))
    together = solve(LINEAR, Z0, times, inputs=inputs)
    for lane in (0, 2):
        assert_allclose(together.states[lane], solve(LINEAR, Z0, times, inputs=inputs[lane]).states, atol=1e-12)


def test_blow_up_is_a_status_with_a_remedy():
    flow = Scalar(lambda t, z: z**2)  # z = 1 / (1 - t)
    times = np.linspace(0, 2, 21)
    solution = solve(flow, [1.0], times)
    assert solution.status is Status.DIVERGED
    assert not solution.ok
    assert "smaller step" in solution.status.remedy
    states = np.asarray(solution.states)[:, 0]
    assert_allclose(states[:9], 1 / (1 - times[:9]), rtol=1e-6)
    assert np.all(np.isnan(states[11:]))


def test_one_bad_lane_does_not_spoil_the_others():
    solution = solve(Scalar(lambda t, z: z**2), [[1.0], [0.1], [-1.0]], np.linspace(0, 2, 5))
    assert solution.statuses == (Status.DIVERGED, Status.SUCCESS, Status.SUCCESS)
    assert solution.status is Status.DIVERGED
    assert_allclose(solution.states[1:, -1, 0], [0.1 / 0.8, -1 / 3], rtol=1e-6)


def test_too_few_steps_is_a_status_with_a_remedy():
    solution = solve(VanDerPol(jnp.asarray(1000.0)), [2.0, 0.0], np.linspace(0, 1000, 11), max_steps=500)
    assert solution.status is Status.MAX_STEPS
    assert int(solution.steps) == 500
    assert "kvaerno5" in solution.status.remedy
    assert np.all(np.isnan(np.asarray(solution.states)[-1]))


def test_a_field_of_nan_ends():
    on_the_way = solve(Scalar(lambda t, z: jnp.sqrt(0.5 - t) - z), [1.0], np.linspace(0, 1, 5), max_steps=3000)
    assert not on_the_way.ok
    assert np.all(np.isfinite(np.asarray(on_the_way.states)[:2]))
    at_start = solve(Scalar(lambda t, z: z * jnp.nan), [1.0], np.linspace(0, 1, 5), solver="kvaerno5", max_steps=3000)
    assert at_start.status is Status.DIVERGED
    assert "Start on the attractor" in at_start.status.remedy


def test_float64_whatever_the_setting():
    with x64(False):
        solution = solve(load_system("Lorenz"), load_system("Lorenz").start, np.linspace(0, 1, 11), rtol=1e-11, atol=1e-11)
        assert solution.states.dtype == jnp.float64
    plain = lambda t, z: [10 * (z[1] - z[0]), z[0] * (28 - z[2]) - z[1], z[0] * z[1] - 8 / 3 * z[2]]  # noqa: E731
    reference = solve_ivp(plain, (0, 1), load_system("Lorenz").start, method="DOP853", rtol=1e-12, atol=1e-12, t_eval=np.linspace(0, 1, 11))
    # far below float32's 1e-6
    assert_allclose(np.asarray(solution.states), reference.y.T, atol=2e-8)


def test_a_solution_can_be_differentiated_by_start_and_parameter():
    def end(a, z0):
        return solve(Linear(a * jnp.eye(1), jnp.zeros((1, 0))), z0, np.array([0.0, 2.0]), max_steps=64).states[-1, 0]

    by_a, by_z = jax.grad(end, argnums=(0, 1))(jnp.asarray(-0.5), jnp.array([3.0]))
    assert_allclose(by_a, 2 * 3 * np.exp(-1.0), rtol=1e-6)
    assert_allclose(by_z, [np.exp(-1.0)], rtol=1e-6)


def test_any_diffrax_solver_and_first_step():
    solution = solve(LINEAR, Z0, np.array([0.0, 1.0]), solver=diffrax.Bosh3(), rtol=1e-9, atol=1e-9, dt0=1e-3)
    assert_allclose(solution.states[-1], expm(np.asarray(A)) @ Z0, atol=1e-7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z0": [1.0, 2.0]}, r"z0 must have shape \(M,\) or \(B, M\) with M=3"),
        ({"z0": np.ones((2, 2, 3))}, "z0 must have shape"),
        ({"z0": [1.0, np.nan, 0.0]}, "NaN or inf"),
        ({"times": [0.0]}, "T >= 2"),
        ({"times": 3.0}, "T >= 2"),
        ({"times": [0.0, 1.0, 1.0]}, r"times\[1\]=1 and times\[2\]=1"),
        ({"times": [0.0, np.nan]}, "must be finite and increase"),
        ({"times": [1.0, 0.0]}, "must be finite and increase"),
        ({"inputs": np.ones((7, 1))}, r"shape \(T, K\) or \(T-1, K\)"),
        ({"inputs": np.ones((4, 2))}, "K=1 columns"),
        ({"inputs": np.ones((2, 4, 1)), "z0": np.ones((3, 3))}, "z0 has 3, inputs has 2"),
        ({"rtol": 0.0}, "rtol must be positive"),
        ({"atol": -1.0}, "atol must be positive"),
        ({"max_steps": 0}, "max_steps must be positive"),
        ({"batched_flow": True, "flow": Linear(A, jnp.ones((2, 1)))}, "leading axis"),
    ],
)
def test_wrong_arguments(change, message):
    arguments = {"flow": LINEAR, "z0": Z0, "times": [0.0, 1.0, 2.0, 3.0]} | change
    with pytest.raises(InvalidValue, match=message):
        solve(arguments.pop("flow"), arguments.pop("z0"), arguments.pop("times"), **arguments)


def test_unknown_solver():
    with pytest.raises(UnknownName, match="Did you mean 'dopri"):
        solve(LINEAR, Z0, [0.0, 1.0], solver="dopri9")


class Spring(AbstractFlow):
    """x'' = -x."""

    dim: int = 2
    n_inputs: int = 0

    def field(self, t, z, u=None):
        return jnp.stack([z[1], -z[0]])


@pytest.mark.parametrize(("direction", "expected"), [("both", np.pi / 2), ("down", np.pi / 2), ("up", 3 * np.pi / 2)])
def test_an_event_ends_a_lane_where_the_function_passes_zero(direction, expected):
    times = np.linspace(0, 10, 101)
    found = solve(Spring(), [1.0, 0.0], times, rtol=1e-10, atol=1e-10, event=lambda t, z: z[0], direction=direction)
    assert found.status is Status.EVENT
    assert found.ok
    # the solution is known to about 1e-9 here, its interpolant of order four at steps of 0.1 to 1e-8
    assert_allclose(found.event_times, expected, atol=1e-7)
    assert_allclose(found.event_states, [0.0, -np.sin(expected)], atol=1e-7)
    before = times <= expected
    assert_allclose(found.states[before, 0], np.cos(times[before]), atol=1e-7)
    assert np.isnan(found.states[~before]).all()


def test_lanes_have_events_of_their_own():
    found = solve(Spring(), [[1.0, 0.0], [3.0, 0.0], [0.1, 0.0]], np.linspace(0, 4, 41), event=lambda t, z: z[0] + 0.5)
    assert found.statuses == (Status.EVENT, Status.EVENT, Status.SUCCESS)
    assert found.status is Status.EVENT
    assert_allclose(found.event_times[:2], [np.arccos(-0.5), np.arccos(-0.5 / 3)], atol=1e-6)
    assert np.isnan(found.event_times[2])
    assert np.isfinite(found.states[2]).all()
    with pytest.raises(InvalidValue, match="direction must be one of up, down, both"):
        solve(Spring(), [1.0, 0.0], [0.0, 1.0], event=lambda t, z: z[0], direction="left")

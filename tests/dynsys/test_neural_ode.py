"""Neural ODEs: fields on three array libraries, conserved energy, order of the discretisation, solves and their three gradients."""

import io

import diffrax
import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import torch
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose

from dynsys import registry
from dynsys.dynamics import AbstractFlow, runge_kutta_4
from dynsys.errors import InvalidValue, UnknownName
from dynsys.integrate import solve
from dynsys.integrate.differentiable import solve_batch, solve_probed
from dynsys.models.fields import ACTIVATIONS, MLPField
from dynsys.models.neural_ode import NeuralODE
from dynsys.models.store import read_model, write_model
from dynsys.models.universal import Known, Universal
from dynsys.status import Status
from dynsys.systems import load_system
from dynsys.train.forced import forced_run
from dynsys.train.forcing import SparseForcing

FIELDS = ("mlp", "second-order", "hamiltonian")
LORENZ = {"mean": [0.0, 0.0, 23.5], "scale": [7.9, 9.0, 8.6], "dt": 0.01}


def make_field(name, dim=4, n_inputs=2, **options):
    return registry.lookup("flow", name).init(dim, n_inputs, hidden=8, scale=1.0, key=jr.key(0), **options)


def known(**options):
    return Known.of("Lorenz", **(LORENZ | options))


FLOWS = {
    **{
        f"{name}-{activation}": lambda name=name, a=activation: make_field(name, activation=a)
        for name in FIELDS
        for activation in ACTIVATIONS
    },
    "known": lambda: known(train=("rho",)),
    "universal": lambda: Universal.init(known(), 2, dim=5, hidden=8, scale=1.0, key=jr.key(0)),
}


@pytest.mark.parametrize("name", FLOWS)
def test_fields_agree_on_jax_numpy_and_torch(name):
    flow = FLOWS[name]()
    z = jr.normal(jr.key(1), (flow.dim,))
    u = jr.normal(jr.key(2), (2,)) if flow.n_inputs else None
    arrays, static = eqx.partition(flow, eqx.is_array)
    as_numpy = eqx.combine(jax.tree.map(np.asarray, arrays), static)
    as_torch = eqx.combine(jax.tree.map(lambda a: torch.from_numpy(np.array(a)), arrays), static)
    expected = flow.field(0.0, z, u)
    assert expected.shape == (flow.dim,)
    found = as_numpy.field(0.0, np.asarray(z), None if u is None else np.asarray(u))
    in_torch = as_torch.field(0.0, torch.from_numpy(np.array(z)), None if u is None else torch.from_numpy(np.array(u)))
    assert isinstance(found, np.ndarray)
    assert isinstance(in_torch, torch.Tensor)
    assert_allclose(found, expected, atol=1e-13)  # the same operations in float64, in another order of summation
    assert_allclose(in_torch.numpy(), expected, atol=1e-13)
    if u is not None:  # a missing input is zero, and an input is not ignored
        assert_allclose(flow.field(0.0, z), flow.field(0.0, z, jnp.zeros(2)), atol=0)
        assert not np.allclose(expected, flow.field(0.0, z), atol=1e-3)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_hamiltonian_field_is_the_turned_gradient_of_its_energy(activation):
    flow = make_field("hamiltonian", activation=activation)
    z, u = jr.normal(jr.key(1), (4,)), jr.normal(jr.key(2), (2,))
    q, p = jnp.split(jax.grad(flow.energy)(z, u), 2)
    assert_allclose(flow.field(0.0, z, u), jnp.concatenate([p, -q]), atol=1e-13)


def test_energy_stays_along_the_exact_flow_and_not_along_another():
    flow = make_field("hamiltonian", n_inputs=0)
    start = jnp.array([0.5, -0.3, 0.8, 0.4])
    path = solve(flow, start, np.linspace(0.0, 20.0, 41), rtol=1e-10, atol=1e-10).states
    energy = jax.vmap(flow.energy)(path)
    assert np.max(np.abs(np.asarray(path) - np.asarray(start))) > 0.5  # it went somewhere
    assert_allclose(energy, energy[0], atol=1e-8)  # 20 time units at a local error of 1e-10
    other = make_field("second-order", n_inputs=0)
    path = solve(other, start, np.linspace(0.0, 2.0, 5), rtol=1e-10, atol=1e-10).states
    assert float(jnp.ptp(jax.vmap(flow.energy)(path))) > 1e-3


def test_second_order_velocity_is_the_derivative_of_the_position():
    flow = make_field("second-order", n_inputs=0)
    times = np.linspace(0.0, 1.0, 101)
    path = solve(flow, jnp.array([0.5, -0.3, 0.8, 0.4]), times, rtol=1e-11, atol=1e-11).states
    # central differences are off by h^2/6 times a third derivative of order one
    assert_allclose((path[2:, :2] - path[:-2, :2]) / 0.02, path[1:-1, 2:], atol=1e-4)
    assert_allclose(flow.field(0.0, path[7])[2:], flow.network(path[7]), atol=0)


def test_discretisation_converges_at_order_four():
    flow = make_field("mlp", n_inputs=0)
    z = jnp.array([0.5, -0.3, 0.8, 0.4])
    exact = solve(flow, z, np.array([0.0, 2.5]), rtol=1e-13, atol=1e-13).states[-1]
    counts = (4, 8, 16)
    error = [float(jnp.linalg.norm(NeuralODE(flow=flow, n_obs=2, substeps=n).over(z, None, 2.5) - exact)) for n in counts]
    # the ratio of successive errors tends to 16; at 4 steps of 0.6 the next order still shows
    assert_allclose(np.log2(np.divide(error[:-1], error[1:])), 4.0, atol=0.4)
    assert error[-1] < 1e-4


def test_map_observes_lifts_and_steps_as_its_flow():
    model = NeuralODE.init(2, 1, dim=3, hidden=6, substeps=2, key=jr.key(0))
    z, u = jr.normal(jr.key(1), (3,)), jnp.array([0.3])
    half = runge_kutta_4(model.flow, 0.0, z, u, 0.5)
    assert_allclose(model.step(z, u), runge_kutta_4(model.flow, 0.0, half, u, 0.5), atol=1e-14)
    assert_allclose(model.correct(z, jnp.array([7.0, 8.0])), [7.0, 8.0, z[2]], atol=0)
    assert_allclose(model.lift(jnp.array([7.0, 8.0])), [7.0, 8.0, 0.0], atol=0)
    fresh = NeuralODE.init(3, key=jr.key(0))
    assert float(jnp.max(jnp.abs(fresh.step(jnp.ones(3)) - 1.0))) < 0.5  # a fresh model moves slowly
    assert fresh.memory == 0
    assert model.memory > 0


@pytest.mark.parametrize("field", FIELDS)
def test_options_make_the_field_that_they_name(field):
    model = NeuralODE.init(2, 1, field=field, hidden=5, depth=3, activation="softplus", key=jr.key(0))
    assert type(model.flow) is registry.lookup("flow", field)
    assert model.dim == (2 if field == "mlp" else 4)
    assert (model.n_obs, model.n_inputs, len(model.flow.W)) == (2, 1, 4)


def test_wrong_options_are_refused_in_words():
    with pytest.raises(InvalidValue, match="dim must be even"):
        NeuralODE.init(2, field="hamiltonian", dim=5, key=jr.key(0))
    with pytest.raises(InvalidValue, match="must hold all n_obs=3"):
        NeuralODE.init(3, dim=2, key=jr.key(0))
    with pytest.raises(UnknownName, match="second-order"):
        NeuralODE.init(2, field="secondorder", key=jr.key(0))
    with pytest.raises(InvalidValue, match="make the flow yourself"):
        NeuralODE.init(3, field="known", key=jr.key(0))
    with pytest.raises(UnknownName, match="activation"):
        NeuralODE.init(2, activation="tan", key=jr.key(0))


def test_sparse_forcing_is_multiple_shooting_from_the_data():
    model = NeuralODE.init(3, hidden=6, key=jr.key(0))
    xs = jr.normal(jr.key(1), (9, 1, 3))
    states = forced_run(model, SparseForcing(4), jnp.asarray(1.0), xs)[:, 0]
    for start in (0, 4):
        z = xs[start, 0]
        for k in range(1, 5):
            z = model.step(z)
            assert_allclose(states[start + k], z, atol=1e-13)


# known equations


def test_known_equations_are_the_system_in_standardised_coordinates():
    system = load_system("Lorenz", rho=30.0)
    flow = known(parameters={"rho": 30.0})
    mean, scale, dt = (jnp.asarray(LORENZ[name]) for name in ("mean", "scale", "dt"))
    z = jnp.array([0.4, -1.0, 0.7])
    assert_allclose(flow.field(0.0, z), dt / scale * system.field(0.0, mean + scale * z), rtol=1e-13)
    universal = Universal.init(flow, hidden=8, key=jr.key(0))  # a fresh network is zero
    assert_allclose(universal.field(0.0, z), flow.field(0.0, z), atol=0)
    # ten sampling intervals of the map, and 0.1 time units of the system
    end = NeuralODE(flow=universal, n_obs=3, substeps=20).over(z, None, 10.0)
    exact = solve(system, mean + scale * z, np.array([0.0, 0.1])).states[-1]
    assert_allclose(mean + scale * end, exact, atol=1e-4)  # RK4 at a step of 0.005: errors of order 1e-6


def test_only_named_parameters_are_trained():
    assert jax.tree.leaves(eqx.filter(known(), eqx.is_inexact_array)) == []
    flow = known(train=("rho",))
    assert [float(leaf) for leaf in jax.tree.leaves(flow)] == [28.0]
    gradient = eqx.filter_grad(lambda flow: flow.field(0.0, jnp.array([1.0, 0.0, 0.0]))[1])(flow)
    # dy/dt = x (rho - z) - y: by rho it is x dt / scale_y, x = mean + scale
    assert_allclose(gradient.theta[0], 7.9 * 0.01 / 9.0, rtol=1e-12)
    for bad, words in (({"train": ("roh",)}, "roh"), ({"parameters": {"sgima": 1.0}}, "sigma")):
        with pytest.raises(UnknownName, match=words):
            known(**bad)
    with pytest.raises(InvalidValue, match="scale and dt must be positive"):
        known(scale=[1.0, 0.0, 1.0])
    with pytest.raises(InvalidValue, match="is of kind 'map'"):
        Known.of("Henon")
    with pytest.raises(UnknownName, match="no/such"):
        Known.of("no/such.toml")


@pytest.mark.parametrize("field", [*FIELDS, "universal"])
def test_every_kind_comes_back_from_a_file(field):
    if field == "universal":
        flow = Universal.init(known(train=("rho", "beta")), dim=5, hidden=8, scale=1.0, key=jr.key(0))
        model = NeuralODE(flow=flow, n_obs=3, substeps=2)
    else:
        model = NeuralODE.init(2, 1, field=field, hidden=5, activation="silu", key=jr.key(0))
    with h5py.File(io.BytesIO(), "w") as file:
        write_model(file.create_group("model"), model)
        back = read_model(file["model"], "memory")
    assert eqx.tree_equal(back, model)


# solve_batch


class Swing(AbstractFlow):
    """A driven pendulum; counts its calls."""

    calls: list = eqx.field(static=True)
    dim: int = eqx.field(static=True, default=2)
    n_inputs: int = eqx.field(static=True, default=1)

    def field(self, t, z, u=None):
        def tick(t):
            self.calls.append(0)
            return np.asarray(t)

        t = jax.pure_callback(tick, jax.ShapeDtypeStruct(jnp.shape(t), jnp.result_type(t)), t, vmap_method="expand_dims")
        return jnp.stack([z[1] + 0 * t, -jnp.sin(z[0])]) + (0.0 if u is None else u[0])


@pytest.mark.parametrize(("solver", "driven"), [("tsit5", False), (diffrax.Heun(), False), ("tsit5", True)])
def test_evaluations_of_the_field_are_counted_right(solver, driven):
    calls = []
    times, inputs = jnp.linspace(0.0, 3.0, 4), jnp.ones((4, 1)) if driven else None
    found = jax.jit(lambda z: solve_batch(Swing(calls), z, times, inputs, solver=solver))(jnp.array([[1.0, 0.0], [2.0, 0.5]]))
    jax.block_until_ready(found)
    assert found.status is Status.SUCCESS
    if driven:  # a step that is refused right after a jump takes one more
        assert int(found.evaluations) <= len(calls) <= int(found.evaluations) + int(found.rejected)
    else:
        assert int(found.evaluations) == len(calls)


def test_batched_solve_agrees_with_the_accurate_one_with_and_without_times_of_their_own():
    flow = make_field("mlp", 3, 0)
    z0 = jr.normal(jr.key(1), (4, 3))
    shared = jnp.linspace(0.0, 2.0, 6)
    own = shared[None] * jnp.array([1.0, 0.5, 0.3, 0.8])[:, None]
    exact = solve(flow, z0, shared).states
    solved = jax.jit(lambda times: solve_batch(flow, z0, times, rtol=1e-9, atol=1e-9).states)
    assert_allclose(solved(shared), exact, atol=1e-7)
    # interpolants of the steps are of order 4: less exact than the steps themselves
    assert_allclose(solved(jnp.tile(shared, (4, 1))), exact, atol=1e-6)
    for b, found in enumerate(solved(own)):
        assert_allclose(found, solve(flow, z0[b], own[b]).states, atol=1e-6)


def test_inputs_are_held_between_the_times():
    flow = make_field("mlp", 3, 2)
    z0, u = jr.normal(jr.key(1), (2, 3)), jr.normal(jr.key(2), (2, 5, 2))
    own = jnp.array([[0.0, 0.3, 0.5, 1.2, 1.3], [0.0, 0.1, 0.9, 1.0, 2.0]])
    found = jax.jit(lambda: solve_batch(flow, z0, own, u, rtol=1e-9, atol=1e-9).states)()
    for b in range(2):
        assert_allclose(found[b], solve(flow, z0[b], own[b], inputs=u[b]).states, atol=1e-6)


def test_three_adjoints_and_finite_differences_agree():
    flow = MLPField.init(2, hidden=6, depth=1, scale=1.0, key=jr.key(0))
    z0, times = jr.normal(jr.key(1), (3, 2)), jnp.linspace(0.0, 1.5, 4)

    def loss(free, adjoint):
        return jnp.mean(solve_batch(*free, times, rtol=1e-9, atol=1e-9, adjoint=adjoint, max_steps=64).states ** 2)

    def gradient(adjoint):
        return ravel_pytree(eqx.filter(eqx.filter_jit(eqx.filter_grad(loss))((flow, z0), adjoint), eqx.is_array))[0]

    ours = gradient("checkpointed")
    assert_allclose(gradient("direct"), ours, atol=1e-12)  # the same derivative, in another order of work
    assert_allclose(gradient("backsolve"), ours, atol=1e-7)  # another approximation, at a tolerance of 1e-9
    numbers, back = ravel_pytree((eqx.filter(flow, eqx.is_inexact_array), z0))
    direction = jr.normal(jr.key(3), numbers.shape)
    static = eqx.filter(flow, eqx.is_inexact_array, inverse=True)

    @jax.jit
    def along(h):
        params, start = back(numbers + h * direction)
        return loss((eqx.combine(params, static), start), "checkpointed")

    slope = (along(1e-5) - along(-1e-5)) / 2e-5
    assert_allclose(jnp.dot(ours, direction), slope, rtol=1e-5)


class Blowing(AbstractFlow):
    """dz/dt = z^2, which from 1 leaves every bound at t = 1."""

    dim: int = eqx.field(static=True, default=1)
    n_inputs: int = eqx.field(static=True, default=0)

    def field(self, t, z, u=None):
        return z**2


def test_failures_are_codes():
    run = jax.jit(lambda z0, end: solve_batch(Blowing(), z0, jnp.linspace(0.0, 1.0, 5) * end, max_steps=150))
    one = jnp.ones((2, 1))
    assert run(one, 0.9).status is Status.SUCCESS
    assert_allclose(run(one, 0.9).states[0, :, 0], 1 / (1 - 0.9 * np.linspace(0, 1, 5)), rtol=1e-3)
    blown = run(one, 2.0)
    assert blown.status is Status.DIVERGED
    assert np.array_equal(np.isnan(blown.states[0, :, 0]), [False, False, False, True, True]) or np.isnan(blown.states[0, -1, 0])
    assert run(one * jnp.nan, 0.5).status is Status.DIVERGED
    assert jax.jit(lambda z0: solve_batch(Blowing(), z0, jnp.array([0.0, 0.9]), max_steps=2))(one).status is Status.MAX_STEPS


def test_wrong_calls_are_refused_in_words():
    flow, z0, times = make_field("mlp", 3, 0), jnp.zeros((2, 3)), jnp.linspace(0, 1, 3)
    for bad, words in (
        ({"adjoint": "reverse"}, "adjoint must be one of checkpointed"),
        ({"solver": "kvaerno5"}, "explicit Runge-Kutta"),
        ({"rtol": 0.0}, "rtol must be positive"),
        ({"inputs": jnp.zeros((3, 1))}, "inputs must have shape"),
        ({"times": times[::-1]}, "increase"),
        ({"times": jnp.zeros((3, 3))}, r"times must have shape \(T,\) or \(B, T\)"),
        ({"times": jnp.tile(times, (2, 1)), "adjoint": "backsolve"}, "wrong side of every jump"),
        ({"z0": jnp.zeros(3)}, "z0 must be floats of shape"),
    ):
        call = {"z0": z0, "times": times} | bad
        with pytest.raises(InvalidValue, match=words):
            solve_batch(flow, call.pop("z0"), call.pop("times"), call.pop("inputs", None), **call)


def test_the_probed_error_is_that_of_one_step_in_units_of_the_tolerance():
    flow = make_field("mlp", 3, 0)
    z0, times = jr.normal(jr.key(1), (4, 3)), jnp.linspace(0.0, 2.0, 6)
    options = {"solver": "tsit5", "rtol": 1e-6, "atol": 1e-6, "adjoint": "checkpointed", "max_steps": 64}
    errors = jax.jit(jax.vmap(lambda place: solve_probed(flow, z0, times, place=place, **options)[1]))(jnp.linspace(0.05, 0.8, 6))
    sizes = np.sqrt(np.mean(np.asarray(errors) ** 2, axis=(1, 2)))
    # the controller aims at 0.9^5 = 0.6 of the tolerance and accepts up to 1; a step from the middle of one differs a little
    assert np.all(sizes < 3.0)
    assert np.median(sizes) > 0.01


class Integrator(AbstractFlow):
    """dz/dt = a u: every Runge-Kutta method is exact between the jumps of u."""

    a: jax.Array
    dim: int = eqx.field(static=True, default=1)
    n_inputs: int = eqx.field(static=True, default=1)

    def field(self, t, z, u=None):
        return self.a * u


@pytest.mark.parametrize("own_times", [False, True])
def test_the_error_of_a_step_does_not_see_the_jumps_of_the_inputs(own_times):
    times = jnp.array([[0.0, 1.0, 2.0], [0.0, 0.5, 3.0]]) if own_times else jnp.array([0.0, 1.0, 2.0])
    inputs = jnp.array([[0.0], [5.0], [0.0]])
    options = {"solver": "tsit5", "rtol": 1e-4, "atol": 1e-4, "adjoint": "checkpointed", "max_steps": 64}

    def error(place):
        return solve_probed(Integrator(jnp.ones(())), jnp.zeros((2, 1)), times, inputs, place=place, **options)[1]

    errors = jax.jit(jax.vmap(error))(jnp.array([0.1, 0.3, 0.45, 0.499, 0.6, 0.95]))
    assert np.max(np.abs(errors)) < 1e-2  # 83 where steps reach over the jump

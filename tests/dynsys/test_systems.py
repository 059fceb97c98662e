"""Systems as flows and maps: parameters as leaves, exact Jacobians, sweeps, clear errors."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from dynsys.dynamics import AbstractFlow, AbstractMap, Discretized, rollout
from dynsys.errors import InvalidValue, UnknownName
from dynsys.precision import x64
from dynsys.systems import SystemDelay, SystemFlow, SystemMap, SystemStochastic, load_system
from dynsys_datasets import catalogue
from dynsys_datasets.catalogue import names


def right_side(system, z):
    return system.step(z) if isinstance(system, SystemMap) else system.field(0.0, z)


@pytest.mark.parametrize("name", names())
def test_every_system_is_a_noun_with_a_start(name):
    system = load_system(name)
    noun = {"map": AbstractMap, "delay": SystemDelay}.get(system.record.kind, AbstractFlow)
    assert isinstance(system, noun)
    assert system.start.shape == (system.dim,) == (len(system.names),)
    assert system.dt > 0
    assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(system))


@pytest.mark.parametrize("name", [name for name in names() if name not in names("delay") and catalogue.system(name).dim <= 200][::8])
def test_jacobian_agrees_with_central_differences(name):
    system = load_system(name)
    z = np.random.default_rng(0).normal(size=system.dim) + system.start
    jacobian = system.jacobian(jnp.asarray(z)) if isinstance(system, SystemMap) else system.jacobian(0.0, jnp.asarray(z))
    h, unit = 1e-5, np.eye(system.dim)
    numeric = np.stack([(right_side(system, z + h * e) - right_side(system, z - h * e)) / (2 * h) for e in unit], axis=1)
    # h^2 times third derivatives (up to 1e3) plus rounding 1e-16 * 1e3 / h
    assert_allclose(jacobian, numeric, atol=1e-6 * (1 + np.abs(numeric).max()))


@pytest.mark.parametrize("name", ["Lorenz", "Lorenz96", "Henon"])
def test_numpy_and_torch_states_give_their_own_kind(name):
    system = load_system(name)
    z = system.start
    assert type(right_side(system, z)) is np.ndarray
    found = right_side(system, torch.from_numpy(np.array(z)))
    assert isinstance(found, torch.Tensor)
    assert_allclose(found.numpy(), right_side(system, jnp.asarray(z)), atol=1e-12)


def test_parameters_are_exact_whatever_the_setting():
    with x64(False):
        flow = load_system("Lorenz")
    assert flow.parameters["beta"].dtype == jnp.float64
    assert float(flow.parameters["beta"]) == 8 / 3
    with x64(False):
        assert flow.field(0.0, jnp.ones(3)).dtype == jnp.float32


def test_parameters_can_be_changed_mapped_and_differentiated():
    flow = load_system("Lorenz", rho=45)
    z = jnp.array([1.0, 2.0, 3.0])
    assert float(flow.field(0.0, z)[1]) == 1.0 * (45 - 3.0) - 2.0
    found = jax.vmap(lambda rho: load_system("Lorenz", rho=rho).field(0.0, z)[1])(jnp.array([10.0, 20.0]))
    assert_allclose(found, [5.0, 15.0])
    gradient = eqx.filter_grad(lambda flow: flow.field(0.0, flow.start)[1])(flow)
    assert_allclose(gradient.parameters["rho"], flow.start[0])


def test_sweep_puts_a_leading_axis_on_every_parameter():
    flow = load_system("Lorenz").sweep(rho=np.array([10.0, 20.0, 30.0]), sigma=[1.0, 2.0, 3.0])
    assert {name: value.shape for name, value in flow.parameters.items()} == {"sigma": (3,), "rho": (3,), "beta": (3,)}
    z = jnp.array([1.0, 2.0, 3.0])
    found = eqx.filter_vmap(lambda flow: flow.field(0.0, z), in_axes=eqx.if_array(0))(flow)
    assert_allclose(found[:, 1], [5.0, 15.0, 25.0])
    assert_allclose(found[:, 0], [1.0, 2.0, 3.0])
    assert_allclose(found[:, 2], 2.0 - 8.0)


def test_flows_of_one_system_share_compiled_code():
    count = 0

    @eqx.filter_jit
    def run(flow, z):
        nonlocal count
        count += 1
        return flow.field(0.0, z)

    run(load_system("Lorenz"), jnp.ones(3))
    run(load_system("Lorenz", rho=45.0), jnp.ones(3))
    assert count == 1


def test_sizes_are_parameters_too():
    flow = load_system("Lorenz96", n=40, F=10)
    assert flow.dim == 40
    assert_allclose(flow.field(0.0, np.zeros(40)), 10.0)


def test_a_flow_becomes_a_map_and_a_map_rolls_out():
    stepped = Discretized(load_system("Lorenz"), dt=0.01)
    assert stepped.step(jnp.asarray(stepped.flow.start)).shape == (3,)
    henon = load_system("Henon")
    states = rollout(henon, jnp.asarray(henon.start), 50)
    x, y = henon.start
    for state in np.asarray(states):
        x, y = 1 - 1.4 * x * x + y, 0.3 * x
        assert_allclose(state, [x, y], atol=1e-6)  # rounding grows by e^0.42 a step, e^21 = 1e9 in 50
    assert_allclose(henon.lift(henon.observe(henon.start)), henon.start)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("lorenz",), UnknownName, "Did you mean 'Lorenz'"),
        (("Lorenz", {"roh": 3}), UnknownName, "unknown parameter of Lorenz 'roh'.*Did you mean 'rho'"),
        (("Lorenz", {"rho": [1.0, 2.0]}), InvalidValue, r"rho must have shape \(\), got \(2,\).*sweep\(rho=values\)"),
        (("Lorenz", {"rho": "28"}), InvalidValue, "got the text '28'"),
        (("Lorenz96", {"n": 0}), InvalidValue, "at least 1"),
        (("Lorenz96", {"n": 4.0}), InvalidValue, "whole number"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    name, parameters = (*arguments, {})[:2]
    with pytest.raises(error, match=message):
        load_system(name, **parameters)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({}, InvalidValue, "no parameter was named; known: sigma, rho, beta"),
        ({"rho": 28.0}, InvalidValue, r"must have shape \(B, \*\(\)\)"),
        ({"rho": [1.0, 2.0], "beta": [1.0]}, InvalidValue, "one length"),
        ({"roh": [1.0]}, UnknownName, "Did you mean 'rho'"),
    ],
)
def test_wrong_sweeps(values, error, message):
    with pytest.raises(error, match=message):
        load_system("Lorenz").sweep(**values)


def test_a_size_that_is_the_length_of_a_vector_says_what_to_do(tmp_path):
    path = tmp_path / "ring.toml"
    path.write_text(
        'name = "Ring"\nkind = "flow"\nsource = "Test."\nabout = "Test."\nstate = ["x[i]"]\n[sizes]\nn = 3\n[index]\ni = "0..n-1"\n'
        '[parameters]\nw = [1, 2, 3]\n[equations]\n"x[i]" = "-w[i]*x[i]"\n[start]\nx = 1\n[time]\ndt = 0.1\n'
    )
    assert load_system(path, w=[3.0, 2.0, 1.0]).dim == 3
    with pytest.raises(InvalidValue, match=r"n=5 does not fit the parameters whose lengths are that size too: w \(3,\)\. Change both"):
        load_system(path, n=5)


@pytest.mark.parametrize(
    ("name", "kind"), [("Lorenz", SystemFlow), ("Henon", SystemMap), ("MackeyGlass", SystemDelay), ("OrnsteinUhlenbeck", SystemStochastic)]
)
def test_every_kind_has_its_noun(name, kind):
    assert type(load_system(name)) is kind


def test_a_delay_equation_and_its_delays():
    late = load_system("MackeyGlass", tau=17.0)
    assert late.lags == (17.0,)
    z, past = np.array([0.5]), np.array([[1.2]])
    assert_allclose(late.field(0.0, z, past), 0.2 * 1.2 / (1 + 1.2**10) - 0.05)
    assert late.sweep(beta=[0.1, 0.2]).lags == ((17.0,), (17.0,))


def test_a_stochastic_system_is_its_drift_and_its_amplitudes():
    noisy, z = load_system("StochasticLorenz", sigma=0.5), np.array([1.0, -2.0, 3.0])
    assert_allclose(noisy.field(0.0, z), load_system("Lorenz").field(0.0, z))
    assert_allclose(noisy.diffusion(0.0, z), 0.5 * z)
    assert noisy.calculus == "ito"

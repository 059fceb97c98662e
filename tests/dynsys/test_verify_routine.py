"""From a plant to a proof: the equilibrium is found, the plain quadratic is proved up to near where it fails, volumes by formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from dynsys.dynamics import Discretized, euler
from dynsys.errors import InvalidValue
from dynsys.systems import load_system
from dynsys.verify.routine import certified, equilibrium_near, slowest


@pytest.fixture(scope="module")
def pendulum():
    return certified(load_system("Pendulum"), [-3.0, -8.0], [3.0, 8.0], limit=6.0, seconds=15.0)


def test_the_plain_quadratic_of_a_saturated_pendulum_is_proved(pendulum):
    proof = pendulum.proof
    assert proof.proved
    assert proof.bracket[0] / proof.bracket[1] > 0.9  # a real counterexample is that near
    P = np.asarray(pendulum.V.P)
    assert_allclose(pendulum.volume[0], np.pi * proof.level / np.sqrt(np.linalg.det(P)), rtol=1e-12)  # an ellipse
    assert pendulum.plain[2] is proof
    assert_allclose(proof.rate, 0.01 * slowest(pendulum.loop, pendulum.V))


def test_states_of_the_certified_set_go_home(pendulum):
    """Runge-Kutta from 200 states on the border of the set: V falls along all of them."""
    loop, V, level = pendulum.loop, pendulum.V, pendulum.proof.level
    half = np.linalg.cholesky(np.linalg.inv(np.asarray(V.P))) * np.sqrt(level)
    turn = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    model = Discretized(load_system("Pendulum"), 0.01)
    x = jnp.asarray((half @ np.stack([np.cos(turn), np.sin(turn)])).T)
    step, value = jax.jit(jax.vmap(lambda x: model.step(x, loop.policy(x)))), jax.jit(jax.vmap(V.value))
    before = value(x)
    assert_allclose(before, level, rtol=1e-9)
    for _ in range(300):
        x = step(x)
        assert bool(jnp.all(value(x) < before))
        before = value(x)
    assert float(jnp.max(before)) < 0.1 * level


def test_an_equilibrium_is_found_and_exact_numbers_are_kept():
    assert_allclose(equilibrium_near(load_system("Pendulum"), [3.0, 0.4], [0.0]), [np.pi, 0.0], atol=1e-12)
    assert equilibrium_near(load_system("ReversedVanDerPol"), [0.3, 0.2], [0.0]).tolist() == [0.0, 0.0]
    with pytest.raises(InvalidValue, match="give the goal"):
        equilibrium_near(load_system("Rossler", a=0.2, b=40.0, c=0.1), [0.0, 0.0, 0.0], [])


def test_a_plant_without_a_controller_must_be_stable():
    with pytest.raises(InvalidValue, match="not stable"):
        certified(load_system("Pendulum"), [-1.0, -1.0], [1.0, 1.0], controller="none")
    found = certified(load_system("ReversedVanDerPol"), [-3.0, -3.0], [3.0, 3.0], controller="none", seconds=10.0)
    assert found.proof.proved
    assert 5.0 < found.volume[0] < 23.3  # the region of attraction itself has about 24.6 (Topcu et al. 2008: 23.3 is certified)


def test_a_map_is_proved_at_its_own_rate():
    plant = Discretized(load_system("Pendulum", g=9.81, m=0.15, l=0.5), 0.05, euler)
    found = certified(plant, [-12.0, -12.0], [12.0, 12.0], limit=6.0, seconds=15.0)
    assert found.proof.proved
    assert found.proof.rate == 0.001


def test_what_cannot_be_is_refused():
    plant = load_system("Pendulum")
    with pytest.raises(InvalidValue, match="needs a plant with inputs"):
        certified(plant, [-1, -1], [1, 1], candidate="neural", controller="none")
    with pytest.raises(InvalidValue, match="one of"):
        certified(plant, [-1, -1], [1, 1], candidate="polynomial")
    with pytest.raises(InvalidValue, match="no equilibrium"):
        certified(plant, [-1, -1], [1, 1], goal=[0.5, 0.0])

"""The control plants and the network of neurons: equilibria, power balance, linearisations, other people's formulas."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from dynsys.systems import load_system

PI = np.pi
EQUILIBRIA = [
    ("Pendulum", [0, 0], [0]),
    ("Pendulum", [PI, 0], [0]),
    ("InvertedPendulum", [PI, 0], [0]),
    ("CartPole", [3, 0, 0, 0], [0]),
    ("CartPole", [0, 0, PI, 0], [0]),
    ("VanDerPolControlled", [0, 0], [0]),
    ("VanDerPolControlled", [1.5, 0], [1.5]),
    ("ReversedVanDerPol", [0, 0], [0]),
    ("DuffingControlled", [1, 0], [0]),
    ("DuffingControlled", [-1, 0], [0]),
    ("PlanarQuadrotor", [1, 2, 0, 0, 0, 0], [2.38383, 2.38383]),
    ("PVTOL", [1, 2, 0, 0, 0, 0], [1, 0]),
    ("DuctedFan", [1, 2, 0, 0, 0, 0], [0, 39.2]),
    ("PathTracking", [0, 0], [0.1]),
    ("ReactionWheel", [0, 0, 40], [0]),
    ("ReactionWheel", [PI, 0, -3], [0]),
    ("TwoLinkArm", [0, 0, 0, 0], [0, 0]),
    ("TwoLinkArm", [PI, 0, 0, 0], [0, 0]),
    ("TwoLinkArm", [PI / 2, 0, 0, 0], [9.8 * 2, 9.8 * 0.5]),  # stretched out: weights times arms 0.5 + 1.5, and 0.5
    ("Acrobot", [PI, PI, 0, 0], [0]),
]
PLANTS = sorted({name for name, _, _ in EQUILIBRIA})


def field(flow, z, u):
    return flow.field(0.0, jnp.asarray(z, dtype=float), jnp.asarray(u, dtype=float))


def random(flow, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=flow.dim)), jnp.asarray(rng.normal(size=flow.n_inputs))


def test_there_are_at_least_ten_with_inputs():
    assert len(PLANTS) >= 10
    assert all(load_system(name).n_inputs > 0 for name in PLANTS)


@pytest.mark.parametrize(("name", "z", "u"), EQUILIBRIA)
def test_equilibria(name, z, u):
    assert_allclose(field(load_system(name), z, u), 0.0, atol=1e-12)


def quadrotor(z):
    return 0.243 * (z[3] ** 2 + z[4] ** 2) + 0.001915 * z[5] ** 2 + 0.486 * 9.81 * z[1]


def links(z):
    """Kinetic and potential energy of two links from the places of their centres, by differentiation along the motion."""
    q, w = z[:2], z[2:]

    def places(q):
        elbow = jnp.stack([jnp.sin(q[0]), -jnp.cos(q[0])])
        return jnp.concatenate([elbow / 2, elbow + jnp.stack([jnp.sin(q[0] + q[1]), -jnp.cos(q[0] + q[1])]) / 2])

    at, speed = jax.jvp(places, (q,), (w,))
    return 0.5 * speed @ speed + 0.5 * w[0] ** 2 + 0.5 * (w[0] + w[1]) ** 2 + 9.8 * (at[1] + at[3])


# energy as mechanics has it, and the power of the inputs less that of friction
BALANCES = {
    "Pendulum": (lambda z: z[1] ** 2 / 6 + 5 * jnp.cos(z[0]), lambda z, u: u[0] * z[1]),
    "InvertedPendulum": (
        lambda z: 0.5 * 0.15 * 0.25 * z[1] ** 2 + 0.15 * 9.81 * 0.5 * jnp.cos(z[0]),
        lambda z, u: u[0] * z[1] - 0.1 * z[1] ** 2,
    ),
    "CartPole": (
        lambda z: 0.55 * z[1] ** 2 + 0.05 * z[1] * z[3] * jnp.cos(z[2]) + 0.1 * 0.25 * 2 / 3 * z[3] ** 2 + 0.49 * jnp.cos(z[2]),
        lambda z, u: u[0] * z[1],
    ),
    "DuffingControlled": (lambda z: z[1] ** 2 / 2 - z[0] ** 2 / 2 + z[0] ** 4 / 4, lambda z, u: u[0] * z[1] - 0.25 * z[1] ** 2),
    "PlanarQuadrotor": (
        quadrotor,
        lambda z, u: u.sum() * (z[4] * jnp.cos(z[2]) - z[3] * jnp.sin(z[2])) + 0.25 * (u[0] - u[1]) * z[5],
    ),
    "DuctedFan": (
        lambda z: 2 * (z[3] ** 2 + z[4] ** 2) + 0.02375 * z[5] ** 2 + 39.2 * z[1],
        lambda z, u: (
            u[0] * (z[3] * jnp.cos(z[2]) + z[4] * jnp.sin(z[2]) + 0.25 * z[5])
            + u[1] * (z[4] * jnp.cos(z[2]) - z[3] * jnp.sin(z[2]))
            - 0.05 * (z[3] ** 2 + z[4] ** 2)
        ),
    ),
    "ReactionWheel": (
        lambda z: (
            0.5 * (0.02 * 0.063**2 + 0.3 * 0.125**2 + 47e-6) * z[1] ** 2
            + 0.5 * 32e-6 * (z[1] + z[2]) ** 2
            + (0.02 * 0.063 + 0.3 * 0.125) * 9.8 * jnp.cos(z[0])
        ),
        lambda z, u: u[0] * z[2],
    ),
    "TwoLinkArm": (links, lambda z, u: u @ z[2:]),
    "Acrobot": (links, lambda z, u: u[0] * z[3]),
}


@pytest.mark.parametrize("name", BALANCES)
def test_energy_changes_by_the_power_of_the_inputs(name):
    flow = load_system(name)
    energy, power = BALANCES[name]
    for seed in range(3):
        z, u = random(flow, seed)
        change = jax.jvp(energy, (z,), (field(flow, z, u),))[1]
        assert_allclose(change, power(z, u), rtol=1e-10, atol=1e-10)


def test_the_two_links_obey_lagranges_equations():
    flow = load_system("TwoLinkArm")

    def lagrangian(q, w):
        still = links(jnp.concatenate([q, jnp.zeros(2)]))  # the potential energy
        return links(jnp.concatenate([q, w])) - 2 * still

    for seed in range(3):
        z, u = random(flow, seed)
        q, w = z[:2], z[2:]
        by_w = jax.grad(lagrangian, 1)
        mass = jax.jacobian(by_w, 1)(q, w)
        force = u + jax.grad(lagrangian)(q, w) - jax.jacobian(by_w, 0)(q, w) @ w
        assert_allclose(field(flow, z, u), jnp.concatenate([w, jnp.linalg.solve(mass, force)]), atol=1e-12)


def jacobians(name, z, u):
    flow = load_system(name)
    return [np.asarray(jax.jacfwd(lambda *x: field(flow, *x), k)(jnp.asarray(z, dtype=float), jnp.asarray(u, dtype=float))) for k in (0, 1)]


def test_linearisations_in_closed_form():
    A, B = jacobians("Pendulum", [PI, 0], [0])
    assert_allclose(A, [[0, 1], [-15, 0]], atol=1e-12)  # a rod: omega^2 = 3 g / (2 l)
    assert_allclose(B, [[0], [3]])
    A, _ = jacobians("ReversedVanDerPol", [0, 0], [0])
    assert_allclose(np.sort_complex(np.linalg.eigvals(A)), [-0.5 - 0.75**0.5 * 1j, -0.5 + 0.75**0.5 * 1j])
    A, B = jacobians("PlanarQuadrotor", [0] * 6, [2.38383] * 2)
    expected = np.zeros((6, 6))
    expected[[0, 1, 2, 3], [3, 4, 5, 2]] = 1, 1, 1, -9.81
    assert_allclose(A, expected, atol=1e-12)
    assert_allclose(B[4:], [[1 / 0.486] * 2, [0.25 / 0.00383, -0.25 / 0.00383]])
    A, B = jacobians("PathTracking", [0, 0], [0.1])
    assert_allclose(A, [[0, 2], [-2 / 100, 0]], atol=1e-15)
    assert_allclose(B, [[0], [2]])
    A, B = jacobians("PVTOL", [0] * 6, [1, 0])
    assert A[3, 2] == -1
    assert_allclose(B[3:], [[0, 0.01], [1, 0], [0, 1]])
    A, B = jacobians("CartPole", [0] * 4, [0])  # a pole: g / (l (4/3 - m / (M + m)))
    assert_allclose(A[3, 2], 9.8 / (0.5 * (4 / 3 - 0.1 / 1.1)))
    assert_allclose(B[3, 0], -1 / 1.1 / (0.5 * (4 / 3 - 0.1 / 1.1)))


def test_gymnasiums_pendulum():
    env, flow = gymnasium.make("Pendulum-v1").unwrapped, load_system("Pendulum")
    env.reset(seed=0)
    z, u = np.array([0.7, -0.4]), np.array([1.3])
    env.state = z
    env.step(u)
    change = (env.state - z) / env.dt
    assert_allclose(field(flow, z, u)[1], change[1], rtol=1e-12)


def test_gymnasiums_cart_pole():
    env, flow = gymnasium.make("CartPole-v1").unwrapped, load_system("CartPole")
    env.reset(seed=0)
    z = np.array([0.3, -0.4, 0.15, 0.8])
    for action, force in ((0, -10.0), (1, 10.0)):
        env.state = tuple(z)
        env.step(action)  # an Euler step
        assert_allclose(field(flow, z, [force]), (np.asarray(env.state) - z) / env.tau, rtol=1e-10)


def test_gymnasiums_acrobot():
    env, flow = gymnasium.make("Acrobot-v1").unwrapped, load_system("Acrobot")
    z, u = (np.asarray(part) for part in random(flow))
    assert_allclose(field(flow, z, u), env._dsdt(np.append(z, u))[:4], rtol=1e-12)


# ---- the network of neurons


def neurons(x, y, phi, n, R):
    """One step of the network by loops over neurons."""
    made = np.zeros((3, n))
    for i in range(n):
        ring = sum(x[(i + s) % n] - x[i] for s in range(-R, R + 1)) * 0.02 / (2 * R)
        star = 0.001 * (sum(x[j] - x[0] for j in range(n)) if i == 0 else x[0] - x[i])
        flux = -0.5 * x[i] * (0.1 + 0.6 * phi[i] ** 2)
        made[:, i] = (
            x[i] ** 2 * np.exp(y[i] - x[i]) + 0.03 + flux + ring + star,
            0.89 * y[i] - 0.18 * x[i] + 0.28,
            0.1 * x[i] - 0.2 * phi[i],
        )
    return made.ravel()


@pytest.mark.parametrize(("n", "R"), [(20, 5), (7, 2), (31, 1)])
def test_chialvo_network_by_loops(n, R):
    network = load_system("ChialvoNetwork", n=n, R=R)
    assert network.start.shape == (3 * n,)
    z = network.start + np.random.default_rng(0).normal(size=3 * n)
    assert_allclose(network.step(z), neurons(*z.reshape(3, n), n, R), rtol=1e-12, atol=1e-13)


def test_equal_neurons_stay_equal_and_do_not_feel_each_other():
    network, apart = load_system("ChialvoNetwork", n=11), load_system("ChialvoNetwork", n=11, mu=0.0, sigma=0.0)
    z = np.repeat([0.4, 0.7, 0.1], 11)
    assert_allclose(network.step(z), apart.step(z), atol=1e-15)
    assert_allclose(np.ptp(network.step(z).reshape(3, 11), axis=1), 0.0, atol=1e-15)

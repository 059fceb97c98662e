"""Each task against what is known of it: Gymnasium's pendulum, energies, linearisations, published modes, fixed points, noise."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import expm

from dynsys.dynamics import rollout
from dynsys.errors import InvalidValue, UnknownName
from dynsys_envs.registry import task
from dynsys_envs.tasks.linear_plant import MODULUS, PLANTS, held, quiet


def test_the_pendulum_is_gymnasiums():
    ours, theirs = gymnasium.make("dynsys/Pendulum-v0"), gymnasium.make("Pendulum-v1")
    theirs.reset(seed=3)
    ours.reset(seed=3, options={"state": theirs.unwrapped.state})
    rng = np.random.default_rng(0)
    for step in range(200):
        action = rng.uniform(-2.5, 2.5, 1).astype(np.float32)  # beyond the limits, too
        a, b = ours.step(action), theirs.step(action)
        # theirs computes with a float32 torque; the pendulum is not chaotic, so the difference stays near 1e-7
        assert_allclose(a[0], b[0], atol=1e-6)
        assert_allclose(a[1], b[1], atol=1e-6)
        assert a[2:4] == b[2:4] == (False, step == 199)
        assert_allclose(a[4]["state"], theirs.unwrapped.state, atol=1e-6)


def test_the_pendulum_begins_where_gymnasiums_does():
    env = gymnasium.make("dynsys/Pendulum-v0")
    states = np.array([env.reset(seed=seed)[1]["state"] for seed in range(400)])
    assert np.abs(states[:, 0]).max() <= np.pi
    assert np.abs(states[:, 1]).max() <= 1
    # uniform: mean 0 within 4 standard errors, width that of a uniform distribution within 10 % (its standard error is 2 %)
    assert_allclose(states.mean(0), 0, atol=4 * np.pi / np.sqrt(3 * 400))
    assert_allclose(states.std(0), np.array([np.pi, 1]) / np.sqrt(3), rtol=0.1)


def test_parameters_reach_the_pendulum():
    heavy, usual = task("Pendulum", g=20.0), task("Pendulum")
    z = jnp.array([0.3, 0.1])
    gain = (heavy.dynamics.step(z, jnp.zeros(1)) - usual.dynamics.step(z, jnp.zeros(1)))[1]
    assert_allclose(gain, 0.05 * 15 * np.sin(0.3), rtol=1e-12)


def test_the_cart_pole_keeps_its_energy_and_accelerates_its_centre_of_mass():
    env = task("CartPoleSwingUp")
    flow, (M, m, long, g) = env.dynamics.flow, (1.0, 0.1, 0.5, 9.81)

    def energy(z):
        _, v, th, w = z
        vx, vy = v + long * w * jnp.cos(th), -long * w * jnp.sin(th)
        return M * v**2 / 2 + m * (vx**2 + vy**2) / 2 + m * g * long * jnp.cos(th)

    z, u = jnp.array([0.2, -0.5, 2.0, 1.5]), jnp.array([3.0])
    assert_allclose(jax.grad(energy)(z) @ flow.field(0.0, z, jnp.zeros(1)), 0, atol=1e-12)
    assert_allclose(jax.grad(energy)(z) @ flow.field(0.0, z, u), u[0] * z[1], rtol=1e-12)  # power of the force
    momentum = lambda z: (M + m) * z[1] + m * long * z[3] * jnp.cos(z[2])  # noqa: E731
    assert_allclose(jax.grad(momentum)(z) @ flow.field(0.0, z, u), u[0], rtol=1e-12)


def test_the_track_of_the_cart_has_ends_and_leaving_costs_a_whole_episode():
    env = task("CartPoleSwingUp")
    z = jnp.array([4.999, 5.0, 0.0, 0.0])
    after, _, reward, over = env.step(z, jnp.zeros(1))
    assert bool(over)
    worst = 0.1 * float(after[0]) ** 2 + 0.01 * float(after[1]) ** 2 + float(after[2]) ** 2 + 0.01 * float(after[3]) ** 2
    assert_allclose(-float(reward), 0.1 * 4.999**2 + 0.01 * 25 + 200 * worst, rtol=1e-9)
    assert bool(env.terminal(jnp.full(4, jnp.nan)))  # what is no number is over


def test_both_may_be_told_at_once():
    env = gymnasium.make("dynsys/CartPoleSwingUp-v0", max_episode_steps=1)
    env.reset(options={"state": [4.999, 5.0, 0.0, 0.0]})
    assert env.step(np.zeros(1, np.float32))[2:4] == (True, True)


@pytest.mark.parametrize(("name", "stable"), [("PlanarQuadrotor", False), ("Duffing", False), ("ReverseVanDerPol", True)])
def test_the_stability_of_the_goal_is_the_known_one(name, stable):
    env = task(name)
    A = jax.jacfwd(lambda z: env.dynamics.flow.field(0.0, z, jnp.asarray(env.rest)))(jnp.asarray(env.goal))
    assert (np.linalg.eigvals(A).real.max() < 0) == stable


def test_the_arm_has_to_be_swung():
    env = task("TwoLinkArm")
    q = jnp.array([np.pi / 2, 0.0, 0.0, 0.0])  # stretched and level: 1 kg at 0.5 m, 1 kg at 1.5 m
    rate = env.dynamics.flow.field(0.0, q, jnp.array([9.8 * 2.0, 9.8 * 0.5]))
    assert_allclose(rate, 0, atol=1e-12)  # these torques hold it
    assert env.high[0] < 0.6 * 9.8 * 2.0


@pytest.mark.parametrize("name", ["LorenzControl", "RosslerControl", "ChuaControl"])
def test_the_goal_of_chaos_control_is_unstable_and_the_push_is_small(name):
    env = task(name)
    flow, goal = env.dynamics.flow, jnp.asarray(env.goal)
    assert_allclose(flow.field(0.0, goal, jnp.zeros(1)), 0, atol=1e-12)
    A = jax.jacfwd(lambda z: flow.field(0.0, z, jnp.zeros(1)))(goal)
    assert np.linalg.eigvals(A).real.max() > 0.05
    z = jnp.asarray(flow.flow.start)
    orbit = rollout(env.dynamics, z, 4000, jnp.zeros((4000, 1)))[1000:]
    size = np.sqrt(np.mean(np.sum(np.asarray(jax.vmap(lambda z: flow.field(0.0, z))(orbit)) ** 2, axis=1)))
    assert_allclose(env.high[0], 0.05 * size, rtol=0.15)  # another stretch of the attractor
    u = jnp.array([0.2])
    assert_allclose(flow.field(0.0, z, u) - flow.field(0.0, z), [0, 0.2, 0], atol=1e-12)  # on y


def test_system_finds_the_fixed_point_of_lorenz():
    a = np.sqrt(8 / 3 * 27)
    assert_allclose(task("System", system="Lorenz").goal, [a, a, 27], rtol=1e-9)
    pushed = task("System", system="Aizawa", push=("x", "z"))
    assert len(pushed.low) == 2
    hover = task("System", system="PlanarQuadrotor", rest=0.486 * 9.81 / 2, goal=np.zeros(6), limit=1.0, max_steps=50)
    assert_allclose(hover.low, 0.486 * 9.81 / 2 - 1)
    assert hover.angles == (2,)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"system": "Lorentz"}, UnknownName, "Did you mean 'Lorenz'"),
        ({"system": "Aizawa"}, InvalidValue, "declares no input.*push='x'"),
        ({"system": "Lorenz", "push": "yy"}, UnknownName, "Did you mean 'y'"),
        ({"system": "PVTOL", "push": "x"}, InvalidValue, "declare no input"),
        ({"system": "Lorenz", "goal": [1.0, 2.0, 3.0]}, InvalidValue, "is no fixed point"),
        ({"system": "Lorenz", "rhoo": 3.0}, UnknownName, "Did you mean 'rho'"),
        ({"system": "MackeyGlass"}, InvalidValue, "kind 'delay'"),
        ({"system": "Torus", "push": "x"}, InvalidValue, "depends on the time"),
        ({"system": "PlanarQuadrotor"}, InvalidValue, "no fixed point of PlanarQuadrotor"),
    ],
)
def test_system_says_what_is_wrong(options, error, words):
    with pytest.raises(error, match=words):
        gymnasium.make("dynsys/System-v0", **options)


def test_the_actuators_of_kuramoto_sivashinsky_are_gaussian_bumps():
    env = task("KuramotoSivashinsky")
    rate = np.asarray(env.dynamics.flow.field(0.0, jnp.zeros(64), jnp.array([0.0, 1.0, 0.0, 0.0])))
    x = 22 * np.arange(64) / 64 - 22 / 4
    assert_allclose(rate, np.exp(-(x**2) / (2 * 0.4**2)), atol=0.01)  # a Gaussian on the ring differs from a periodic one in order (sd/L)^2
    end = rollout(env.dynamics, env.place(jnp.full(8, 0.7)), 400, jnp.zeros((400, 4)))[-1]
    assert 0.5 < float(jnp.std(end)) < 3  # it lives on its attractor (std 1.3 at L = 22)


def test_burgers_decays_by_itself():
    env = task("Burgers")
    seed = env.place(jnp.full(6, 0.9))
    before = float(jnp.std(seed))
    after = rollout(env.dynamics, seed, 200, jnp.zeros((200, 4)))[-1]
    assert float(jnp.std(after)) < 0.5 * before


MODES = {  # open-loop eigenvalues as published
    "helicopter": ([0.2758 + 0.2576j, 0.2758 - 0.2576j, -0.2325, -2.0727], 1e-3),
    "reactor": ([1.991, 0.0635, -5.057, -8.666], 1e-3),
    "distillation": ([-1 / 75, -1 / 75], 1e-12),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_plant_has_its_known_modes(plant):
    A = np.asarray(PLANTS[plant][0])
    expected, digits = MODES[plant]
    assert_allclose(np.sort_complex(np.linalg.eigvals(A)), np.sort_complex(np.array(expected, complex)), rtol=digits)
    env = quiet(task("LinearPlant", plant=plant))
    M = len(A)
    z = jnp.concatenate([jnp.ones(M), jnp.array([5.0])])
    assert_allclose(env.dynamics.step(z)[:M], expm(A * env.dt) @ np.ones(M), rtol=1e-9)


def test_held_inputs_are_integrated_exactly():
    A, B = np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([[0.0], [1.0]])
    Ad, Bd = held(A, B, 0.3)
    assert_allclose(Ad, [[1, 0.3], [0, 1]], atol=1e-14)
    assert_allclose(Bd, [[0.045], [0.3]], atol=1e-14)


def test_the_noise_of_a_plant_is_white_normal_and_the_states_own():
    env = task("LinearPlant", plant="distillation", noise=0.5)  # stable: the others would run away and round the noise off
    T, M = 4000, 2
    z0 = jnp.concatenate([jnp.zeros(M), jnp.array([77.0])])
    z = np.asarray(rollout(env.dynamics, z0, T, jnp.zeros((T, 2))))
    A = np.asarray(env.dynamics.A)
    w = (z[1:, :M] - z[:-1, :M] @ A.T) / np.asarray(env.dynamics.noise)
    size = T**-0.5
    assert_allclose(w.mean(0), 0, atol=4 * size)
    assert_allclose(np.cov(w.T), np.eye(M), atol=5 * size)  # variances have sqrt(2) of it
    assert_allclose((w[1:].T @ w[:-1]) / T, 0, atol=4.5 * size)  # 4 numbers
    assert_allclose((w**4).mean(0), 3, atol=5 * np.sqrt(96) * size)
    assert_array_equal(env.dynamics.step(z0, jnp.zeros(2)), env.dynamics.step(z0, jnp.zeros(2)))
    assert len(np.unique(z[:, M])) == T  # of full period
    assert z[:, M].max() < MODULUS
    assert env.observe(z0).shape == (M,)
    low = jnp.asarray(z0, jnp.float32)  # single precision draws the same noise
    assert float(env.dynamics.step(low, jnp.zeros(2, jnp.float32))[M]) == z[0, M]


def test_an_unknown_plant_task_and_parameter_are_named():
    with pytest.raises(UnknownName, match="Did you mean 'reactor'"):
        task("LinearPlant", plant="reacter")
    with pytest.raises(UnknownName, match="Did you mean 'Pendulum'"):
        task("Pendulums")
    with pytest.raises(UnknownName, match="Did you mean 'force'"):
        gymnasium.make("dynsys/CartPoleSwingUp-v0", forces=3)

"""The adapters: what they refuse, the batched environment against the single one, its resets, the hash behind them."""

import functools
import subprocess
import sys

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from dynsys.errors import InvalidValue
from dynsys_envs.batch import Reset, advance, begin
from dynsys_envs.gym import Environment
from dynsys_envs.hashing import hashed_normal, hashed_uniform
from dynsys_envs.registry import names, task
from dynsys_envs.vector import VectorEnvironment


@functools.cache
def made(name):
    return task(name)


def test_actions_that_can_not_be_taken_are_refused_in_words():
    env = Environment("Pendulum")
    with pytest.raises(InvalidValue, match=r"Call reset\(\) first"):
        env.step([0.0])
    env.reset(seed=0)
    before = env.state
    for action, words in (
        ([0.0, 1.0], r"shape \(1,\), got \(2,\)"),
        (0.5, r"got \(\)"),
        ([np.nan], "holds NaN"),
        ("left", "numbers of shape"),
    ):
        with pytest.raises(InvalidValue, match=words):
            env.step(action)
    assert_array_equal(env.state, before)
    assert env.step([np.inf])[4]["state"][1] <= 8  # an infinite action is clipped
    with pytest.raises(InvalidValue, match="2 finite numbers"):
        env.set_state([1.0, np.nan])
    with pytest.raises(InvalidValue, match="render_mode"):
        Environment("Pendulum", render_mode="ascii")
    with pytest.raises(InvalidValue, match="made already"):
        Environment(made("Pendulum"), g=3.0)
    with pytest.raises(InvalidValue, match="pass max_episode_steps"):
        gymnasium.make("dynsys/Pendulum-v0", max_steps=10)


def test_states_are_copies():
    env = Environment("Pendulum")
    env.reset(seed=0)
    taken, (_, _, _, _, info) = env.state, env.step([1.0])
    taken[:] = 99
    info["state"][:] = 99
    assert np.abs(env.state).max() < 9


def test_environments_that_are_equal_share_their_program():
    a, b, c = Environment("CartPoleSwingUp"), Environment("CartPoleSwingUp"), Environment("CartPoleSwingUp", pole=0.2)
    assert a._step is b._step
    assert a._step is not c._step
    for env in (a, c):
        env.reset(seed=0)
        env.set_state([0.0, 0.0, 1.0, 0.0])
    assert a.step([5.0])[4]["state"][1] != c.step([5.0])[4]["state"][1]


@pytest.mark.parametrize(("name", "mode"), [*((name, "NextStep") for name in names()), ("CartPoleSwingUp", "SameStep")])
def test_many_step_as_one_does(name, mode):
    B = 3
    envs = VectorEnvironment(made(name), B, autoreset_mode=mode)
    seen, _ = envs.reset(seed=1)
    states = envs.states
    rng = np.random.default_rng(0)
    low, high = np.asarray(envs.task.low), np.asarray(envs.task.high)
    singles = [Environment(made(name)) for _ in range(B)]
    for single, state, one in zip(singles, states, seen, strict=True):
        alone, _ = single.reset(options={"state": state})
        assert_allclose(one, alone, rtol=1e-5, atol=1e-6)
    for _ in range(2):
        actions = (low + rng.uniform(0.3, 0.7, (B, len(low))) * (high - low)).astype(np.float32)
        seen, rewards, over, late, _ = envs.step(actions)
        for i, single in enumerate(singles):
            one = single.step(actions[i])
            # single against double precision over two steps, of states up to 50 and rates up to a few hundred
            assert_allclose(seen[i], one[0], rtol=2e-4, atol=2e-4)
            assert_allclose(rewards[i], one[1], rtol=1e-3, atol=1e-3)
            assert (over[i], late[i]) == one[2:4]
    assert envs.observation_space.shape == seen.shape
    assert seen.dtype == np.float32


def test_make_vec_takes_the_batched_one_and_lets_parameters_through():
    envs = gymnasium.make_vec("dynsys/Pendulum-v0", num_envs=5, vectorization_mode="vector_entry_point", g=0.0, max_episode_steps=4)
    assert isinstance(envs.unwrapped, VectorEnvironment)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    envs.reset(seed=0)
    speeds = envs.unwrapped.states[:, 1]
    seen, *_ = envs.step(np.zeros((5, 1), np.float32))
    assert_allclose(seen[:, 2], speeds, rtol=1e-6)  # without gravity and torque nothing accelerates
    ends = [envs.step(np.zeros((5, 1), np.float32))[3] for _ in range(3)]
    assert_array_equal(np.array(ends)[:, 0], [False, False, True])
    with pytest.raises(InvalidValue, match="pass max_episode_steps"):
        gymnasium.make_vec("dynsys/Pendulum-v0", num_envs=2, max_steps=4)


def test_the_next_step_resets_without_a_reward():
    envs = VectorEnvironment("Pendulum", 4, max_episode_steps=3)
    envs.reset(seed=0)
    push = np.full((4, 1), 2.0, np.float32)
    for step in range(1, 12):
        before = envs.states
        seen, rewards, over, late, info = envs.step(push)
        assert info == {}
        assert not over.any()
        assert late.tolist() == [step % 4 == 3] * 4
        if step % 4 == 0:  # the step after the third: a first state, the action does nothing
            assert_array_equal(rewards, 0)
            assert np.abs(envs.states[:, 1]).max() <= 1
            assert not np.allclose(envs.states, before)
        else:
            assert (rewards < 0).all()
        assert_allclose(seen[:, 2], envs.states[:, 1])


def test_the_same_step_tells_the_last_observation():
    envs = VectorEnvironment("CartPoleSwingUp", 3, max_episode_steps=50, autoreset_mode=AutoresetMode.SAME_STEP)
    envs.reset(seed=0)
    states = envs.states
    states[1] = [4.99, 5.0, 0.0, 0.0]  # leaves its track
    envs.set_states(states)
    seen, rewards, over, late, info = envs.step(np.zeros((3, 1), np.float32))
    assert over.tolist() == [False, True, False]
    assert not late.any()
    assert info["_final_obs"].tolist() == over.tolist()
    assert info["final_obs"][0] is None
    assert info["final_obs"][1][0] > 5
    assert info["final_info"]["state"][1, 0] > 5
    assert info["final_info"]["_state"].tolist() == over.tolist()
    assert abs(seen[1, 0]) < 0.2  # and begins anew
    assert rewards[1] < 10 * rewards[0]
    assert envs.step(np.zeros((3, 1), np.float32))[4] == {}


def test_without_automatic_resets_a_mask_resets_some():
    envs = VectorEnvironment("Pendulum", 3, max_episode_steps=2, autoreset_mode="Disabled")
    envs.reset(seed=0)
    still = np.zeros((3, 1), np.float32)
    envs.step(still)
    assert envs.step(still)[3].all()
    with pytest.raises(InvalidValue, match="some episodes have ended"):
        envs.step(still)
    before = envs.states
    envs.reset(options={"reset_mask": np.array([True, False, True])})
    assert_array_equal(envs.states[1], before[1])
    assert not np.allclose(envs.states[[0, 2]], before[[0, 2]])
    for mask in ([True, False], np.zeros(3, bool)):
        with pytest.raises(InvalidValue, match="reset_mask must hold 3 booleans"):
            envs.reset(options={"reset_mask": mask})


def test_the_batched_one_refuses_in_words_and_stays_where_it_is():
    envs = VectorEnvironment("Pendulum", 3)
    with pytest.raises(InvalidValue, match="Call reset"):
        envs.step(np.zeros((3, 1)))
    envs.reset(seed=0)
    before = envs.states
    wrong = np.zeros((3, 1), np.float32)
    wrong[1] = np.nan
    with pytest.raises(InvalidValue, match="actions of 1 environments hold NaN"):
        envs.step(wrong)
    with pytest.raises(InvalidValue, match=r"shape \(3, 1\), got \(3,\)"):
        envs.step(np.zeros(3))
    with pytest.raises(InvalidValue, match="finite numbers of shape"):
        envs.set_states(np.zeros((2, 2)))
    assert_array_equal(envs.states, before)
    for options in ({"num_envs": 0}, {"autoreset_mode": "Never"}, {"render_mode": "human"}):
        with pytest.raises(InvalidValue, match="VectorEnvironment: "):
            VectorEnvironment("Pendulum", **options)


def test_seeds_of_the_batched_one():
    envs = VectorEnvironment("Pendulum", 50)
    a, _ = envs.reset(seed=3)
    b, _ = envs.reset()
    c, _ = envs.reset(seed=3)
    d, _ = envs.reset(seed=4)
    assert_array_equal(a, c)
    assert not np.isin(a[:, 0], b[:, 0]).any()
    assert not np.isin(a[:, 0], d[:, 0]).any()
    assert len(np.unique(a[:, 0])) == 50
    a[:] = 0  # what was returned is the user's
    assert np.abs(envs.reset(seed=3)[0]).max() > 0


def test_the_batched_one_draws_each():
    envs = VectorEnvironment("Pendulum", 2, render_mode="rgb_array")
    envs.reset(seed=0)
    frames = envs.render()
    assert len(frames) == 2
    assert (frames[0] != frames[1]).any()


def test_a_fleet_runs_inside_a_program_of_the_users():
    env = made("Pendulum")

    @jax.jit
    def total(fleet):
        def body(fleet, _):
            fleet, outcome = advance(env, fleet, jnp.zeros((64, 1), jnp.float32), max_steps=5, reset=Reset.SAME)
            return fleet, (outcome.truncated, fleet.steps)

        return jax.lax.scan(body, fleet, None, length=12)

    fleet, (late, steps) = total(begin(env, 64, 1))
    assert_array_equal(np.asarray(late)[:, 0], [(k + 1) % 5 == 0 for k in range(12)])
    assert int(steps.max()) == 4  # the fifth is the first state of the next episode
    assert_array_equal(fleet.episodes, 2)


def test_the_hash_is_uniform_and_independent():
    lanes, counts = (jnp.asarray(x.ravel(), jnp.uint32) for x in np.meshgrid(np.arange(2000), np.arange(10), indexing="ij"))
    u = np.asarray(hashed_uniform(jnp.uint32(7), lanes, counts, 6), float)
    n = u.shape[1]
    assert u.min() > 0
    assert u.max() < 1
    for row in u:
        assert stats.kstest(row, "uniform").pvalue > 1e-4  # 6 tests: a sound hash fails one time in 1,700
    flat = u.reshape(6, 2000, 10)
    other = np.asarray(hashed_uniform(jnp.uint32(8), lanes, counts, 6), float)
    pairs = [(u[i], u[j]) for i in range(6) for j in range(i)]
    pairs += [(flat[i, 1:].ravel(), flat[i, :-1].ravel()) for i in range(6)]  # neighbouring environments
    pairs += [(flat[i, :, 1:].ravel(), flat[i, :, :-1].ravel()) for i in range(6)]  # following episodes
    pairs += [(u[i], other[i]) for i in range(6)]  # following seeds
    for a, b in pairs:
        assert abs(np.corrcoef(a, b)[0, 1]) < 4.5 / np.sqrt(len(a))
        counted = np.histogram2d(a, b, bins=8, range=[[0, 1], [0, 1]])[0]
        assert stats.chisquare(counted.ravel()).pvalue > 1e-5
    assert len(np.unique(u)) > 0.98 * min(6 * n, 2**23)  # of 23 bits; a birthday collision is rare
    x = np.asarray(jax.vmap(lambda lane: hashed_normal(jnp.uint32(1), lane, 3))(jnp.arange(5000, dtype=jnp.uint32)), float)
    assert all(stats.kstest(column, "norm").pvalue > 1e-4 for column in x.T)


PROGRAM = """
import gymnasium
{first}
env = gymnasium.make("{prefix}dynsys/CartPoleSwingUp-v0")
env.reset(seed=0)
print(env.step(env.action_space.sample())[0].shape)
"""


@pytest.mark.parametrize(("first", "prefix"), [("import dynsys_envs", ""), ("", "dynsys_envs:")])
def test_gymnasium_makes_them_by_their_ids(first, prefix):
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(first=first, prefix=prefix)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(5,)"

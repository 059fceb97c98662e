"""Every task keeps the promises of an environment: gymnasium's checker, seeds, time limits, derivatives, planning, frames."""

import functools
import itertools
import tomllib
import warnings

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from house import ROOT
from numpy.testing import assert_allclose, assert_array_equal

from dynsys.control.cost import Scaled
from dynsys.control.ilqr import Search, ilqr
from dynsys.dynamics import AbstractMap, rollout
from dynsys_envs import registry
from dynsys_envs.functional import AbstractEnvironment, Regulation
from dynsys_envs.gym import Environment
from dynsys_envs.registry import names, task

ALL = [*names()]
# what gymnasium's checker may say: inputs are in the task's own units, and most states have no bound
REASONED = ("symmetric and normalized space", "minimum value is -infinity", "maximum value is infinity")


@functools.cache
def made(name):
    """A task, made once."""
    return task(name)


def slowly(quick):
    """All tasks, those marked slow that are not named: their programs take long to compile."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in ALL]


def make(name, **options):
    return gymnasium.make(f"dynsys/{name}-v0", **options)


@pytest.mark.parametrize("name", ALL)
def test_gymnasiums_checker_has_nothing_to_say(name):
    env = make(name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env.unwrapped)
    said = [str(w.message) for w in caught if not any(reason in str(w.message) for reason in REASONED)]
    assert not said


@pytest.mark.parametrize("name", ALL)
def test_a_task_is_what_it_says(name):
    env = made(name)
    assert isinstance(env, AbstractEnvironment)
    assert isinstance(env.dynamics, AbstractMap)
    M, K = env.dynamics.dim, env.dynamics.n_inputs
    assert len(env.goal) == M
    assert len(env.low) == len(env.high) == K > 0
    assert all(0 <= i < M for i in env.angles)
    assert env.max_steps == registry.TASKS[name][1] == gymnasium.spec(f"dynsys/{name}-v0").max_episode_steps
    z = env.initial(jr.key(0))
    assert z.shape == (M,)
    assert not bool(env.terminal(z))
    assert env.observe(z).shape == (len(env.observation_high),)
    assert env.dynamics.observe(z).shape == (M,)
    assert float(jnp.abs(env.initial(jr.key(1)) - z).max()) > 0  # first states differ


@pytest.mark.parametrize("name", ALL)
def test_the_goal_is_held_by_the_input_at_rest_and_is_worth_most(name):
    env = made(name)
    goal, rest = jnp.asarray(env.goal), jnp.asarray(env.rest)
    if name == "LinearPlant":
        from dynsys_envs.tasks.linear_plant import quiet

        env = quiet(env)
    after = env.dynamics.step(goal, rest)
    seen = np.array([i not in env.hidden for i in range(len(goal))])
    assert_allclose(np.asarray(after)[seen], np.asarray(goal)[seen], atol=1e-8)  # goals are roots to 1e-9; RK4 keeps equilibria
    assert not bool(env.terminal(after))
    best = float(env.reward(goal, rest, goal))
    assert_allclose(best, 0, atol=1e-12)
    assert float(env.reward(env.initial(jr.key(0)), rest, goal)) < best


@pytest.mark.parametrize("name", ALL)
def test_the_cost_of_a_planner_is_minus_the_reward(name):
    env = made(name)
    cost = env.cost()
    for seed in range(3):
        z, v = env.initial(jr.key(seed)), jr.uniform(jr.key(seed + 9), (len(env.low),))
        u = jnp.asarray(env.low) + v * (jnp.asarray(env.high) - jnp.asarray(env.low))
        assert_allclose(cost.stage(z, u, 0), -env.reward(z, u, z), rtol=1e-12)


@pytest.mark.parametrize("name", slowly([name for name in ALL if name not in ("TwoLinkArm", "Burgers", "System")]))
def test_ten_steps_are_differentiable_by_state_inputs_and_parameters(name):
    env = made(name)
    K, steps = len(env.low), 10
    low, high = jnp.asarray(env.low), jnp.asarray(env.high)
    mix = 0.3 + 0.4 * jr.uniform(jr.key(3), (steps, K))
    inputs = low[None] + mix * (high - low)[None]
    start = 0.5 * (env.initial(jr.key(5)) + jnp.asarray(env.goal))  # away from the speed limit of the pendulum
    if env.hidden:
        start = start.at[np.array(env.hidden)].set(12345.0)
    shown = np.array([i not in env.hidden for i in range(len(env.goal))], float)
    numbers = [i for i, leaf in enumerate(jax.tree.leaves(env.dynamics)) if isinstance(leaf, float | int) and not isinstance(leaf, bool)]

    def ret(parts):
        shift, inputs, scale = parts
        leaves, form = jax.tree.flatten(env.dynamics)
        for i, factor in zip(numbers, scale, strict=True):
            leaves[i] = leaves[i] * factor
        moved = eqx.tree_at(lambda tree: tree.dynamics, env, jax.tree.unflatten(form, leaves))

        def advance(z, u):
            after, _, reward, _ = moved.step(z, u)
            return after, reward

        return jax.lax.scan(advance, start + shift * shown, inputs)[1].sum()

    at = (jnp.zeros_like(start), inputs, [jnp.ones(()) for _ in numbers])
    slope = jax.jit(jax.grad(ret))(at)
    value = jax.jit(ret)
    flat, back = jax.flatten_util.ravel_pytree(slope)
    assert np.isfinite(np.asarray(flat)).all()
    point, _ = jax.flatten_util.ravel_pytree(at)
    # along three random directions; central differences err by h^2 and by eps/h: 1e-5 of the largest slope is far above either
    for seed in range(3):
        way = jr.normal(jr.key(seed), point.shape) / np.sqrt(len(point))
        h = 1e-5
        found = (value(back(point + h * way)) - value(back(point - h * way))) / (2 * h)
        assert_allclose(found, flat @ way, rtol=1e-4, atol=1e-6 * float(jnp.abs(flat).max()))


@pytest.mark.parametrize("name", ALL)
def test_an_episode_is_cut_off_after_exactly_its_length(name):
    env = make(name, max_episode_steps=7)
    env.reset(seed=0)
    rest = np.asarray(env.unwrapped.task.rest, np.float32)
    told = [env.step(rest)[2:4] for _ in range(7)]
    assert [late for _, late in told] == [False] * 6 + [True]
    own = Environment(made(name), max_steps=3)
    own.reset(seed=0)
    assert [own.step(rest)[3] for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_gives_the_same_episode_and_a_state_can_be_returned_to(name):
    env = Environment(made(name))
    first, info = env.reset(seed=5)
    env.action_space.seed(1)
    actions = [env.action_space.sample() for _ in range(6)]
    run = [env.step(action) for action in actions]
    again, _ = env.reset(seed=5)
    assert_array_equal(first, again)
    for action, (seen, reward, *_) in zip(actions[:3], run, strict=False):
        now = env.step(action)
        assert_array_equal(now[0], seen)
        assert now[1] == reward
    env.reset(seed=6)
    env.set_state(run[2][4]["state"])  # the state alone, noise included
    for action, (seen, reward, *_) in zip(actions[3:], run[3:], strict=True):
        now = env.step(action)
        assert_array_equal(now[0], seen)
        assert now[1] == reward
    other, told = env.reset(options={"state": info["state"]})
    assert_array_equal(other, first)
    assert_array_equal(told["state"], info["state"])


@pytest.mark.parametrize("name", ALL)
def test_the_adapter_steps_as_the_pure_environment_does(name):
    env, pure = Environment(made(name)), made(name)
    _, info = env.reset(seed=2)
    wild = 3 * np.asarray(pure.high)  # clipped
    seen, reward, over, late, told = env.step(wild)
    after, pure_seen, pure_reward, pure_over = pure.step(jnp.asarray(info["state"]), jnp.asarray(pure.high))
    # compiled and not: the order of operations differs
    near = 1e-9 if name in ("KuramotoSivashinsky", "Burgers") else 1e-12  # an FFT of a compiled and an uncompiled step
    assert_allclose(told["state"], after, rtol=near, atol=near)
    assert_allclose(seen, pure_seen, rtol=1e-6, atol=1e-6)  # float32
    assert_allclose(reward, pure_reward, rtol=1e-10)  # of the state before
    assert (over, late) == (bool(pure_over), False)
    free = rollout(pure.dynamics, jnp.asarray(info["state"]), 1, jnp.asarray(pure.high)[None])
    assert_allclose(free[0], after, rtol=near, atol=near)


@pytest.mark.parametrize("name", slowly(("Pendulum", "CartPoleSwingUp", "LorenzControl", "LinearPlant")))
def test_it_is_planned_from_a_state_inside_an_episode(name):
    env = Environment(made(name))
    env.reset(seed=3)
    rest = np.asarray(env.task.rest)
    for _ in range(4):
        env.step(rest)
    T = 15
    plan = ilqr(
        env.task.dynamics, Scaled(env.task.cost(), 5.0), env.state, np.tile(rest, (T, 1)), low=env.task.low, high=env.task.high,
        search=Search(iterations=8),
    )  # fmt: skip
    before = env.state
    idle = rollout(env.task.dynamics, jnp.asarray(before), T, jnp.asarray(np.tile(rest, (T, 1))))
    cost = Scaled(env.task.cost(), 5.0)
    states = jnp.concatenate([jnp.asarray(before)[None], idle])
    value = sum(float(cost.stage(z, jnp.asarray(rest), 0)) for z in states[:-1]) + float(cost.final(states[-1]))
    assert plan.cost <= value
    assert_array_equal(env.state, before)  # planning moved nothing
    total = 0.0
    for u, z in zip(plan.inputs, plan.states[:-1], strict=True):
        assert_allclose(env.state, z, rtol=1e-9, atol=1e-9)
        total -= env.step(u)[1]
    if not env.task.hidden:
        assert_allclose(total + float(cost.final(jnp.asarray(env.state))), plan.cost, rtol=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_frames_are_pictures_that_change(name):
    env = Environment(made(name), render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    assert before.shape == (400, 400, 3)
    assert before.dtype == np.uint8
    assert 0.001 < np.mean(before.min(-1) < 250) < 0.9  # neither empty nor full
    for _ in range(3):
        env.step(env.task.high)
    after = env.render()
    assert np.mean(before != after) > 1e-4
    env.close()


def test_the_ids_and_the_page_and_the_entry_point_agree():
    page = (ROOT / "docs/environments.md").read_text()
    registered = {key for key in gymnasium.registry if key.startswith("dynsys/")}
    assert registered == {f"dynsys/{name}-v0" for name in ALL}
    assert all(f"`{name}`" in page for name in ALL)
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["gymnasium.envs"]
    module, attribute = points["dynsys"].split(":")
    import importlib

    getattr(importlib.import_module(module), attribute)()  # a second call changes nothing
    assert {key for key in gymnasium.registry if key.startswith("dynsys/")} == registered


def test_no_two_tasks_are_the_same():
    starts = {name: (made(name).goal, made(name).low, made(name).dt) for name in ALL if name != "System"}
    assert all(a != b for a, b in itertools.combinations(starts.values(), 2))


def test_a_pure_environment_of_a_user_is_an_environment():
    from dynsys_envs.tasks.reverse_van_der_pol import reverse_van_der_pol

    mine = eqx.tree_at(lambda tree: tree.dynamics.flow.parameters, reverse_van_der_pol(limit=0.5), {})
    assert isinstance(mine, Regulation)
    env = Environment(mine)
    env.reset(seed=0)
    assert env.action_space.high[0] == 0.5

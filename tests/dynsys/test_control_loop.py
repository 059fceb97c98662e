"""The model-based loop: what it learns of a linear cart, what it keeps when an environment fails, that a stopped run goes on to the bit."""

import dataclasses
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dynsys.config import with_settings
from dynsys.control.collect import EnvironmentFailed, Session, acted, environments, make_environment, task_of
from dynsys.control.controller import LinearFeedback, RecedingHorizon
from dynsys.control.cost import Quadratic
from dynsys.control.experience import Episode, Experience, load_experience
from dynsys.control.known import KNOWN
from dynsys.control.loop import learn_to_control
from dynsys.control.lqr import lqr
from dynsys.control.members import OverMembers, SideBySide, one_step_error
from dynsys.control.play import play
from dynsys.control.reward import LearnedReward
from dynsys.control.settings import ControlSettings
from dynsys.control.store import load_controller, save_controller
from dynsys.control.task import Bordered, Seen
from dynsys.errors import DataError, InvalidValue, UnknownName
from dynsys.status import Status

from .control_cases import LinearMap
from .environment_cases import Cart, Discrete

QUICK = with_settings(
    ControlSettings(),
    ["steps=100", "episodes=2", "explore.random=60", "model.features=20", "planner.horizon=10", "planner.starts=2", "planner.first=3"],
)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    out = tmp_path_factory.mktemp("cart") / "run"
    return learn_to_control(Cart(), QUICK, out=out), out


def test_a_linear_cart_is_learned_and_driven_home(learned):
    """The reward is learned, too, so the best is not asked for: twice as good as random inputs, and a model that is exact."""
    found, out = learned
    assert found.status is Status.SUCCESS
    assert found.experience.steps == 100
    assert [row.kind for row in found.history] == ["random", "random", "planned", "planned"]
    assert found.history[-1].error < 1e-3
    cost = found.controller.cost.cost  # inside the weight of the end
    assert isinstance(cost, LearnedReward)
    assert cost.error < 0.05
    exact = play(Cart(), best_feedback(), 2, seed=1_000_000)
    idle = play(Cart(), still(), 2, seed=1_000_000)
    got, best, worst = found.played.returns.mean(), exact.returns.mean(), idle.returns.mean()
    assert got > best - 0.3 * (best - worst)
    told = json.loads((out / "scores.json").read_text())
    assert_allclose(told["played"]["returns"], found.played.returns)


def best_feedback():
    A, B = np.array([[1.0, 0.1], [0.0, 1.0]]), np.array([[0.0], [0.1]])
    return LinearFeedback.of(lqr(A, B, np.diag([1.0, 0.1]), np.array([[0.01]])), np.zeros(2), np.zeros(1), low=-1.0, high=1.0)


def still():
    return LinearFeedback(np.zeros((1, 2)), np.zeros(2), np.zeros(1), -np.ones(1), np.ones(1))


def test_a_controller_from_a_file_acts_as_the_one_that_was_written(learned):
    found, out = learned
    again = load_controller(out)
    state, other = found.controller.init(3), again.init(3)
    rng = np.random.default_rng(0)
    for _ in range(3):
        x = rng.normal(size=2)
        u, state = found.controller.act(x, state)
        v, other = again.act(x, other)
        assert_array_equal(u, v)


def test_a_run_that_was_stopped_goes_on_to_the_bit(learned, tmp_path):
    found, _ = learned

    class Stopped(Exception):
        pass

    def stop(told):
        if told.row is not None and told.row.episode == 2:
            raise Stopped

    with pytest.raises(Stopped):
        learn_to_control(Cart(), QUICK, out=tmp_path / "run", progress=stop)
    assert load_experience(tmp_path / "run" / "experience.h5").steps == 90
    again = learn_to_control(Cart(), QUICK, out=tmp_path / "run")
    for mine, other in zip(again.experience.episodes, found.experience.episodes, strict=True):
        assert_array_equal(mine.observations, other.observations)
        assert_array_equal(mine.inputs, other.inputs)
    assert_array_equal(again.played.returns, found.played.returns)
    assert [row.total for row in again.history] == [row.total for row in found.history]


def test_more_steps_go_on_where_a_finished_run_ended(learned, tmp_path):
    _, out = learned
    shutil.copytree(out, tmp_path / "run")
    more = learn_to_control(Cart(), dataclasses.replace(QUICK, steps=130, episodes=0), out=tmp_path / "run")
    assert more.experience.steps == 130
    with pytest.raises(DataError, match="of another run"):
        learn_to_control(Cart(), dataclasses.replace(QUICK, seed=1), out=tmp_path / "run")


@pytest.mark.parametrize(
    ("fault", "words"), [("raise", "motor is on fire"), ("nan", "NaN"), ("shape", r"\(3,\)"), ("reward", "reward nan")]
)
def test_what_was_collected_before_an_environment_fails_is_kept(fault, words, tmp_path):
    found = learn_to_control(Cart(faults={45: fault}), QUICK, out=tmp_path / "run")
    assert found.status is Status.FAILED
    assert found.played is None
    kept = load_experience(tmp_path / "run" / "experience.h5")
    assert [episode.steps for episode in kept.episodes] == [30, 14]
    assert all(np.isfinite(episode.observations).all() for episode in kept.episodes)
    assert re.search(words, found.reason)
    assert load_controller(tmp_path / "run").n_obs == 2  # a controller of what there was
    assert json.loads((tmp_path / "run" / "scores.json").read_text())["status"] == "failed"


def test_an_environment_that_fails_at_once_is_an_error():
    with pytest.raises(EnvironmentFailed, match=r"motor is on fire.*too few"):
        learn_to_control(Cart(faults={3: "raise"}), QUICK)


def test_an_episode_that_fails_while_played_is_told():
    found = play(Cart(faults={40: "nan"}), best_feedback(), 3)
    assert found.status is Status.FAILED
    assert [episode.steps for episode in found.episodes] == [30, 9]


def test_a_task_that_ends_and_a_time_that_is_up_are_told_apart():
    session = Session(Cart(length=10, faults={5: "end"}))
    session.reset(0)
    acted(session, lambda seen: np.zeros(1), 100)
    assert (session.episode.steps, session.episode.terminated, session.episode.truncated) == (5, True, False)
    session.reset(0)
    acted(session, lambda seen: np.zeros(1), 100)
    assert (session.episode.steps, session.episode.terminated, session.episode.truncated) == (10, False, True)


def test_actions_outside_the_box_are_clipped_and_nan_is_refused():
    session = Session(Cart())
    session.reset(0)
    session.step(np.array([7.0]))  # the cart itself refuses what is outside
    assert session.episode.inputs[0, 0] == 1.0
    with pytest.raises(InvalidValue, match="NaN"):
        session.step(np.array([np.nan]))


def test_what_cannot_be_controlled_is_refused_in_words():
    with pytest.raises(InvalidValue, match="Discrete"):
        learn_to_control(Discrete(), QUICK)
    with pytest.raises(InvalidValue, match="takes no inputs"):
        learn_to_control(Cart(), with_settings(QUICK, ["model.name=esn", "model.features=none"]))
    with pytest.raises(UnknownName, match="Did you mean 'features'"):
        learn_to_control(Cart(), with_settings(QUICK, ["model.featres=10"]))
    with pytest.raises(UnknownName, match="Did you mean 'Pendulum-v1'"):
        make_environment("Pendulun-v1")
    with pytest.raises(InvalidValue, match="wants 2 observations"):
        play(make_environment("Pendulum-v1"), still(), 1)


def test_environments_of_ours_are_found_without_an_import():
    assert dict(environments())["dynsys/Pendulum-v0"]
    env = make_environment("dynsys/CartPoleSwingUp-v0")
    task = task_of(env)
    assert task.angles == "2,3"
    state = np.array([0.3, 0.1, 2.0, -0.4])
    env.reset(options={"state": state})
    state, u = jnp.asarray(state), jnp.array([2.0])
    seen = env.unwrapped.task.observe(state)
    assert_allclose(task.cost.stage(seen, u, 0), env.unwrapped.task.cost().stage(state, u, 0), rtol=1e-12)
    near = jnp.array([4.6, 0.0, 2.0, 0.0])  # the track ends at 5 m, and is felt from 4 m on
    seen = env.unwrapped.task.observe(near)
    assert task.cost.stage(seen, u, 0) > env.unwrapped.task.cost().stage(near, u, 0) + 10


@pytest.mark.parametrize("name", KNOWN)
def test_the_known_cost_of_a_task_of_gymnasium_is_its_reward(name):
    """Pendulum and Reacher to rounding (the distance is rounded off below 1 mm); the others are stand-ins for a step, named so."""
    if name.endswith("-v5"):
        pytest.importorskip("mujoco")
    env = make_environment(name)
    cost = task_of(env).cost
    seen, _ = env.reset(seed=3)
    rng = np.random.default_rng(0)
    for _ in range(20):
        u = rng.uniform(env.action_space.low, env.action_space.high)
        after, reward, *_ = env.step(u.astype(env.action_space.dtype))
        value = float(cost.stage(jnp.asarray(after if name == "Reacher-v5" else seen, float), jnp.asarray(u), 0))
        if name == "Pendulum-v1":
            assert_allclose(-value, reward, rtol=1e-4, atol=1e-4)
        elif name == "Reacher-v5":
            assert_allclose(-value, reward, atol=2e-3)
        assert np.isfinite(value)
        assert value >= 0
        seen = after


def test_models_side_by_side_each_keep_their_own_state():
    rng = np.random.default_rng(0)
    models = [LinearMap(jnp.asarray(rng.normal(size=(2, 2))), jnp.asarray(rng.normal(size=(2, 1)))) for _ in range(3)]
    both, z, u = SideBySide.of(models), jnp.asarray(rng.normal(size=6)), jnp.ones(1)
    expected = np.concatenate([model.step(z[2 * i : 2 * i + 2], u) for i, model in enumerate(models)])
    assert_allclose(both.step(z, u), expected)
    assert_allclose(both.lift(both.observe(z)), z)
    cost = OverMembers(Quadratic.of([1.0, 0.0], [0.0]), np.array([1.0, 2.0]), 3, 0.5)
    x = jnp.asarray([1.0, 0.0, 2.0, 0.0, 3.0, 6.0])
    # mean of 1, 4, 9; half the variances 2/3 and 8 / 4
    assert_allclose(cost.final(x), 14 / 3 + 0.5 * (2 / 3 + 8 / 4))
    with pytest.raises(InvalidValue, match="same dim"):
        SideBySide.of([models[0], LinearMap(jnp.eye(3), jnp.ones((3, 1)))])


def test_an_ensemble_is_planned_on_and_stored(tmp_path):
    settings = with_settings(QUICK, ["planner.members=3", "planner.caution=0.1", "episodes=1", "steps=70"])
    found = learn_to_control(Cart(), settings, out=tmp_path / "run")
    assert len(found.models) == 3
    assert isinstance(found.controller, RecedingHorizon)
    x, state = np.array([0.5, 0.0]), found.controller.init(0)
    assert_array_equal(found.controller.act(x, state)[0], load_controller(tmp_path / "run").act(x, state)[0])
    assert found.played.returns.mean() > play(Cart(), still(), 1, seed=1_000_000).returns.mean()


def test_the_error_of_a_model_is_relative_to_standing_still():
    model = LinearMap(jnp.eye(2), jnp.zeros((2, 1)))  # it says that everything stays
    x = np.cumsum(np.random.default_rng(0).normal(size=(50, 2)), axis=0)
    assert_allclose(one_step_error(model, x, np.zeros((49, 1))), 1.0)
    assert np.isnan(one_step_error(model, x[:1], np.zeros((0, 1))))


def test_a_reward_is_learned_and_what_ends_an_episode_is_dear():
    rng = np.random.default_rng(0)
    x, u = rng.normal(size=(400, 2)), rng.uniform(-1, 1, (400, 1))
    r = -(x[:, 0] ** 2) - 0.1 * u[:, 0] ** 2 + 0.5
    cost = LearnedReward.from_steps(x, u, r, key=0)
    at = jnp.array([0.5, -0.3]), jnp.array([0.2])
    assert_allclose(cost.stage(*at, 0), 0.25 + 0.004 - 0.5, atol=1e-4)
    assert jax.grad(cost.stage)(*at, 0)[0] == pytest.approx(1.0, abs=1e-3)
    ended = x[:, 0] > 1.0
    dear = LearnedReward.from_steps(x, u, r, ended, price=100.0, key=0)
    assert dear.stage(jnp.array([1.8, 0.0]), jnp.zeros(1), 0) > cost.stage(jnp.array([1.8, 0.0]), jnp.zeros(1), 0) + 50
    with pytest.raises(InvalidValue, match="at least 8"):
        LearnedReward.from_steps(x[:5], u[:5], r[:5])


def test_a_border_is_felt_before_it_is_reached_and_has_no_force_inside():
    cost = Bordered.of(Quadratic.of([0.0, 0.0], [0.0]), [-1.0, -np.inf], [1.0, np.inf], weight=2.0, margin=0.1)
    assert cost.final(jnp.array([0.7, 100.0])) == 0.0
    assert_allclose(cost.final(jnp.array([1.0, 0.0])), 2.0)  # as deep as its margin
    assert_allclose(cost.final(jnp.array([-0.9, 0.0])), 0.5)
    assert np.isfinite(np.asarray(jax.grad(cost.final)(jnp.array([0.95, 5.0])))).all()
    with pytest.raises(InvalidValue, match="low < high"):
        Bordered.of(cost, [1.0], [0.0])


def test_angles_are_read_from_their_cosine_and_sine():
    cost = Seen(Quadratic.of([1.0, 2.0, 3.0], [1.0], angles=(1,)), (1,))
    x = jnp.array([0.5, np.cos(3.0), np.sin(3.0), -1.0])
    assert_allclose(cost.state(x), [0.5, 3.0, -1.0])
    assert_allclose(cost.final(x), 0.25 + 2 * 9 + 3)


def test_experience_survives_its_file_and_damage_is_told(tmp_path):
    rng = np.random.default_rng(0)
    episode = Episode(rng.normal(size=(4, 2)), rng.normal(size=(3, 1)), rng.normal(size=3), True, False, 7)
    one = Experience().plus(episode).plus(Episode(np.zeros((1, 2)), np.zeros((0, 1)), np.zeros(0)))
    path = one.save(tmp_path / "e.h5")
    again = load_experience(path)
    assert len(again.episodes) == 1  # the empty one is no experience
    assert_array_equal(again.episodes[0].observations, episode.observations)
    assert (again.episodes[0].terminated, again.episodes[0].truncated, again.episodes[0].seed) == (True, False, 7)
    before, inputs, rewards, ended = again.rows()
    assert (len(before), len(inputs), len(rewards), ended.tolist()) == (3, 3, 3, [False, False, True])
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="can't be read"):
        load_experience(path)


def test_a_recording_is_an_animated_gif(tmp_path):
    image = pytest.importorskip("PIL.Image")
    play(Cart(render_mode="rgb_array"), still(), 1, record=tmp_path / "cart.gif")
    with image.open(tmp_path / "cart.gif") as gif:
        assert gif.is_animated
        assert gif.size == (20, 20)
    with pytest.raises(InvalidValue, match="rgb_array"):
        play(Cart(), still(), 1, record=tmp_path / "other.gif")
    with pytest.raises(InvalidValue, match="gif"):
        play(Cart(render_mode="rgb_array"), still(), 1, record=tmp_path / "cart.mp4")


def test_a_feedback_without_limits_is_stored(tmp_path):
    free = LinearFeedback.of(lqr([[1.0]], [[1.0]], [[1.0]], [[1.0]]), [0.0], [0.0], angles=(0,))
    save_controller(free, tmp_path / "c.h5")
    again = load_controller(tmp_path / "c.h5")
    assert_array_equal(again.act(np.array([3.0]), ())[0], free.act(np.array([3.0]), ())[0])
    (tmp_path / "c.h5").write_bytes(b"nothing")
    with pytest.raises(DataError, match="can't be read"):
        load_controller(tmp_path / "c.h5")
    with pytest.raises(DataError, match="no controller here"):
        load_controller(tmp_path)


class Unregistered(Quadratic):
    """A cost that no file can name."""


class OwnCost(Cart):
    def known_task(self):
        from dynsys.control.task import Task

        cost = Unregistered(*(jnp.asarray(x) for x in (np.eye(2), np.eye(1), np.eye(2), np.zeros((2, 1)), np.zeros(2), np.zeros(1))))
        return Task(cost)


def test_a_cost_that_no_file_can_hold_is_refused_before_the_work(tmp_path):
    with pytest.raises(DataError, match="not registered"):
        learn_to_control(OwnCost(faults={1: "raise"}), QUICK, out=tmp_path / "run")  # it never comes to the first step
    assert not (tmp_path / "run").exists()


def test_a_run_that_has_more_steps_than_asked_is_refused(learned):
    with pytest.raises(InvalidValue, match=r"holds 1[0-9]* steps already"):
        learn_to_control(Cart(), dataclasses.replace(QUICK, steps=90), out=learned[1])

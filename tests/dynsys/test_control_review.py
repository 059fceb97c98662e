"""What a review of the control package found wrong, each with the answer that it should give."""

import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dynsys.config import with_settings
from dynsys.control.collect import EnvironmentFailed, Session, task_of
from dynsys.control.constraints import Constraints
from dynsys.control.controller import RecedingHorizon
from dynsys.control.cost import Quadratic
from dynsys.control.experience import load_experience
from dynsys.control.factored import Learned
from dynsys.control.imitation_bound import Loop
from dynsys.control.known import KNOWN
from dynsys.control.local_linear import LocalSearch, local_ilqr_rig
from dynsys.control.loop import PLAYED, collected_seed, learn_to_control
from dynsys.control.members import forecasts
from dynsys.control.reward import LearnedReward
from dynsys.control.rig import environment_rig
from dynsys.control.sdre import SDRE
from dynsys.control.settings import ControlSettings
from dynsys.errors import DataError, InvalidValue
from dynsys.precision import x64
from dynsys.status import Status
from dynsys_envs.functional import known_task
from dynsys_envs.registry import task

from .control_cases import LinearMap
from .environment_cases import Cart

QUICK = with_settings(
    ControlSettings(),
    ["steps=50", "episodes=0", "explore.random=30", "model.features=20", "planner.horizon=5", "planner.starts=1", "planner.first=1"],
)


def test_a_learned_reward_that_is_learned_anew_needs_no_new_program():
    """Nothing of it but sizes may be static: a planner is compiled once for all refits."""
    rng = np.random.default_rng(0)
    costs = [LearnedReward.from_steps(x, x[:, :1], -np.sum(x**2, axis=1) + rng.normal(size=20), key=0) for x in rng.normal(size=(2, 20, 2))]
    assert costs[0].error != costs[1].error
    assert jax.tree.structure(costs[0]) == jax.tree.structure(costs[1])
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(costs[0]))  # a plain number would be static in filter_jit


def test_one_program_forecasts_recordings_of_many_lengths_as_a_loop_does():
    model = LinearMap(jnp.array([[1.0, 0.1], [-0.2, 0.9]]), jnp.array([[0.0], [0.1]]))  # pyright: ignore[reportCallIssue]
    rng = np.random.default_rng(1)
    for steps in (1, 5, 7, 8):
        x, u = rng.normal(size=(steps + 1, 2)), rng.normal(size=(steps, 1))
        states, seen = forecasts(model, x, u)
        by_hand = [np.asarray(model.A) @ x[t] + np.asarray(model.B) @ u[t] for t in range(steps)]
        assert_allclose(states, by_hand, atol=1e-14)
        assert_array_equal(seen, states)


def test_after_a_refit_the_state_is_that_of_the_new_model(monkeypatch):
    """Another fit has other latent coordinates, so the state before it means nothing; here it is followed by hand from the first step."""
    settings = with_settings(QUICK, ["explore.refit=10", "planner.members=2", "planner.precision=float32"])
    met, misses, act = [], [], RecedingHorizon.act

    def watched(self, observation, state):
        if not state.begun:
            met.clear()
        if len(met) == 10:  # the refit was just before
            model = self.model
            z = model.lift(jnp.asarray(np.tile(met[0][0], self.copies), self.low.dtype))
            for x, u in met:
                z = model.step(model.correct(z, jnp.asarray(np.tile(x, self.copies), z.dtype)), jnp.asarray(u, z.dtype))
            misses.append(np.abs(np.asarray(z) - np.asarray(state.z)).max())
            assert state.z.dtype == self.low.dtype
        u, after = act(self, observation, state)
        met.append((np.asarray(observation), u))
        return u, after

    monkeypatch.setattr(RecedingHorizon, "act", watched)
    learn_to_control(Cart(), settings)
    assert len(misses) == 1
    assert misses[0] < 1e-5  # float32 rounding of numbers of about 1; that of the model before is off by far more


@pytest.mark.parametrize(
    "answer",
    [
        lambda seen, r: (seen, r, False, {}),
        lambda seen, r: ({"x": seen}, r, False, False, {}),
        lambda seen, r: (seen, None, False, False, {}),
    ],
)
def test_an_answer_that_is_none_loses_nothing(answer, tmp_path):
    """Four values as before Gymnasium 0.26, a dictionary of observations, no reward: each ends the collection, none costs it."""

    class Odd(Cart):
        def step(self, action):  # pyright: ignore[reportIncompatibleMethodOverride]
            seen, reward, *rest = super().step(action)
            return answer(seen, reward) if self.total_steps == 45 else (seen, reward, *rest)

    found = learn_to_control(Odd(), QUICK, out=tmp_path / "run")
    assert found.status is Status.FAILED
    assert [episode.steps for episode in load_experience(tmp_path / "run" / "experience.h5").episodes] == [30, 14]
    assert [row.kind for row in found.history] == ["random", "planned"]  # also the one that broke
    session = Session(Odd())
    session.reset(0)
    for _ in range(44):
        session.step(np.zeros(1))
    with pytest.raises(EnvironmentFailed):
        session.step(np.zeros(1))
    assert len(session) == 44


def test_a_fit_that_fails_in_an_episode_does_not_lose_it(tmp_path, monkeypatch):
    from dynsys.control import loop

    fits = []

    def failing(*args):
        fits.append(args)
        if len(fits) == 2:
            raise DataError("no model fits this")
        return fitted(*args)

    fitted = loop.fitted
    monkeypatch.setattr(loop, "fitted", failing)
    with pytest.raises(DataError, match="no model"):
        learn_to_control(Cart(), with_settings(QUICK, ["explore.refit=10"]), out=tmp_path / "run")
    assert [episode.steps for episode in load_experience(tmp_path / "run" / "experience.h5").episodes] == [30, 10]


def test_no_two_episodes_have_the_same_seed():
    """Of the runs 0 to 40, collected and played; PLAYED itself falls between the seeds of run 9 and run 10."""
    collected = [collected_seed(seed, number) for seed in range(41) for number in range(300)]
    assert len(set(collected)) == len(collected)
    played = {PLAYED + seed % PLAYED + i for seed in (0, 10, 40, 10**6 - 1) for i in range(1000)}
    assert not played & set(collected)


@pytest.mark.parametrize("make", [*KNOWN.values(), lambda: known_task(task("CartPoleSwingUp")), lambda: known_task(task("TwoLinkArm"))])
def test_known_costs_are_double_whatever_the_callers_setting(make):
    """Weights such as 0.1 differ by 1e-9 once they were float32."""

    class Known(Cart):
        def known_task(self):
            return make()

    with x64(False):
        cost = task_of(Known()).cost
    leaves = [leaf for leaf in jax.tree.leaves(cost) if hasattr(leaf, "dtype")]
    assert {str(leaf.dtype) for leaf in leaves} <= {"float64"}


def test_prices_of_soft_limits_come_in_the_order_of_the_docstring():
    found = Constraints.of(2, 1, x_low=[-1, -2], x_high=[1, np.inf], G=[[1, 1]], g=[3], soft=[1, 2, 3, 4])
    assert_array_equal(found.G, [[1, 0], [-1, 0], [0, -1], [1, 1]])
    assert_array_equal(found.price, [1, 2, 3, 4])
    assert "each finite limit of x_high, then of x_low, then for\n        each row of G" in (Constraints.of.__doc__ or "")


def test_a_learned_factorisation_is_refused_for_another_goal():
    """Its A(x) multiplies x less the goal of its training: with another goal the feedback would be wrong in silence."""
    A, B = np.array([[1.0, 0.1], [0.0, 1.0]]), np.array([[0.0], [0.1]])
    made = Learned(A, B, (np.zeros((6, 2)),), (np.zeros(6),), np.ones(2), np.zeros(1), np.ones(2), False)  # pyright: ignore[reportCallIssue]
    assert SDRE.of(made, [1, 1], [1], [1, 1], [0]).act(np.ones(2), SDRE.of(made, [1, 1], [1], [1, 1], [0]).init())[0] == 0
    for goal, rest in (([0, 0], [0]), ([1, 1], [1])):
        with pytest.raises(InvalidValue, match="learned about goal"):
            SDRE.of(made, [1, 1], [1], goal, rest)


def test_sampled_constants_do_not_depend_on_the_callers_precision():
    model = LinearMap(jnp.array([[0.9, 0.1], [0.0, 0.8]]), jnp.array([[0.0], [0.1]]))  # pyright: ignore[reportCallIssue]
    points = np.random.default_rng(0).normal(size=(5, 2))
    loops = []
    for wide in (True, False):
        with x64(wide):
            loops.append(Loop.sampled(model, lambda x: np.zeros(1), points, steps=5, key=jr.key(0)))
    assert dataclasses.asdict(loops[0]) == dataclasses.asdict(loops[1])


@pytest.mark.parametrize(("rollouts_fail", "status"), [(True, Status.DIVERGED), (False, Status.MAX_STEPS)])
def test_a_short_search_that_never_moved_is_no_success(rollouts_fail, status):
    """It costs the same all along, which is what convergence looks like. No rollout is finite, or no step keeps its promise."""

    def rig(policies):
        if len(policies) == 6:  # the perturbed ones: x+ = x + u
            steps = np.stack([policies.inputs[:, t] for t in range(policies.horizon)], axis=1)
            x = 1 + np.concatenate([np.zeros((6, 1, 1)), np.cumsum(steps, axis=1)], axis=1)
            return x * np.nan if rollouts_fail else x
        return np.full((len(policies), 4, 1), 1.0)  # what is tried never helps

    search = LocalSearch(iterations=3, rollouts=6, sigma=0.1)
    found = local_ilqr_rig(rig, Quadratic.of([1.0], [0.01]), np.zeros((3, 1)), n_obs=1, search=search)
    assert len(set(found.costs.tolist())) == 1
    assert found.plan.status is status


def test_a_reset_that_fails_costs_one_rollout():
    class Stuck(Cart):
        resets = 0

        def reset(self, *, seed=None, options=None):
            self.resets += 1
            if self.resets == 4:
                raise RuntimeError("the brake is on")
            return super().reset(seed=seed)

        def step(self, action):
            return super().step(action.astype(np.float32))

    search = LocalSearch(iterations=1, rollouts=6, sigma=0.5)
    rig = environment_rig(Stuck(), 5, seed=0)
    with pytest.warns(UserWarning, match="the brake is on"):
        found = local_ilqr_rig(rig, Quadratic.of([1.0, 0.1], [0.01]), np.zeros((5, 1)), n_obs=2, low=-1, high=1, search=search)
    lost = np.isnan(found.states).all(axis=(1, 2))
    assert lost.sum() == 1
    assert len(found.states) == 1 + 6 + len(search.step_sizes)

"""Control from few steps: Pendulum-v1 with models learned from 400 steps, against the same planner on the true model.

For every data seed a run of `learn_to_control` with 400 environment steps in all; then the mean return over seeded starts, which are the
same for all. One JSON row a data seed, one for the true model with a few seeds of the planner, and one with the count of data seeds that
come within 8 of the true model's mean.

    python scripts/bench_control.py [--toy] [--seeds 10] [--starts 50] [--steps 400] [--model random-features]
"""

import argparse
import dataclasses
import json
import time

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from dynsys.control.collect import Session, make_environment
from dynsys.control.known import KNOWN
from dynsys.control.loop import learn_to_control, planner
from dynsys.control.play import play
from dynsys.control.settings import ControlSettings, ExploreSettings
from dynsys.dynamics import AbstractMap
from dynsys.reconstruct.settings import ModelSettings
from dynsys_envs.registry import task as make_task


class TruePendulum(AbstractMap):
    """The simulator of Pendulum-v1, which shows (cos, sin, speed)."""

    pendulum: AbstractMap
    dim: int = eqx.field(static=True, default=2)
    n_obs: int = eqx.field(static=True, default=3)
    n_inputs: int = eqx.field(static=True, default=1)

    def step(self, z, u=None):
        """One step of the simulator."""
        return self.pendulum.step(z, u)

    def observe(self, z):
        """(cos, sin, speed)."""
        return jnp.stack([jnp.cos(z[0]), jnp.sin(z[0]), z[1]])

    def lift(self, x):
        """Angle and speed."""
        return jnp.stack([jnp.arctan2(x[1], x[0]), x[2]])

    def correct(self, z, x):
        """Angle and speed."""
        return self.lift(x)


def main() -> None:
    """Run it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--toy", action="store_true", help="tiny sizes, to see that it runs")
    options.add_argument("--seeds", type=int, default=10, help="data seeds")
    options.add_argument("--starts", type=int, default=50, help="seeded starts on which all are judged")
    options.add_argument("--steps", type=int, default=400, help="environment steps to learn from, in all")
    options.add_argument("--planners", type=int, default=3, help="planner seeds of the true model")
    options.add_argument("--model", default="random-features")
    chosen = options.parse_args()
    if chosen.toy:
        chosen.seeds, chosen.starts, chosen.steps, chosen.planners = 1, 1, 210, 1
    env = make_environment("Pendulum-v1")
    settings = ControlSettings(model=ModelSettings(chosen.model), steps=chosen.steps, episodes=0, explore=ExploreSettings(random=200))
    truth = TruePendulum(make_task("Pendulum").dynamics)
    true_controller = planner((truth,), KNOWN["Pendulum-v1"]().cost, Session(env), settings, None)
    means = []
    for number in range(chosen.planners):
        played = play(env, true_controller, chosen.starts, seed=20_000)
        means.append(row("true model", number, played)["mean"])
        true_controller = Shuffled(true_controller, number + 1)
    band = float(np.mean(means))
    found = []
    for seed in range(chosen.seeds):
        began = time.perf_counter()
        learned = learn_to_control(env, dataclasses.replace(settings, seed=seed))
        seconds = time.perf_counter() - began
        played = play(env, learned.controller, chosen.starts, seed=20_000)
        found.append(row(chosen.model, seed, played, env_steps=learned.experience.steps, learn_seconds=round(seconds, 1))["mean"])
    near = int(np.sum(np.array(found) >= band - 8.0))
    told = {"case": "summary", "true_mean": band, "mean": float(np.mean(found)), "within_8": near, "of": len(found), "steps": chosen.steps}
    print(json.dumps(told), flush=True)


def row(case, seed, played, **more):
    """Print and return the row of some episodes."""
    about = played.summary()
    kept = ("mean", "standard_error", "worst", "plan_ms_median", "plan_ms_95", "decisions_per_second")
    told = {"case": case, "seed": seed, "starts": len(played.episodes), **{name: about[name] for name in kept}, **more}
    print(json.dumps(told), flush=True)
    return told


class Shuffled:
    """A controller whose random numbers begin elsewhere."""

    def __init__(self, controller, offset):
        self.controller = getattr(controller, "controller", controller)
        self.offset, self.n_obs = offset, controller.n_obs

    def init(self, key):
        """With another key."""
        return self.controller.init(jr.fold_in(key, self.offset))

    def act(self, observation, state):
        """As the other."""
        return self.controller.act(observation, state)


if __name__ == "__main__":
    main()

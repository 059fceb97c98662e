"""Control from few steps on other tasks than the pendulum: one run of `learn_to_control` a seed, then episodes that are not learned from.

Every row says how many environment steps were spent, the returns, how many episodes were solved, and how the settings differ from the
defaults. Solved: cart-pole: the cosine of the angle is above 0.97 in each of the last 50 steps; Lorenz: within 0.1 of the unstable point in
each of the last 50 steps; mountain car: return at least 90; inverted pendulum: the whole 1,000 steps; reacher has no such border.
The last two need MuJoCo (pip install mujoco).

    python scripts/bench_tasks.py [--toy] [--cases cart-pole,lorenz,...] [--seeds 3] [--episodes 10]
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from dynsys.config import with_settings
from dynsys.control.collect import make_environment
from dynsys.control.loop import learn_to_control
from dynsys.control.settings import ControlSettings

POINT = np.array([np.sqrt(72.0), np.sqrt(72.0), 27.0])


def upright(episode: Any) -> bool:
    """The pole stands at the end."""
    return bool((episode.observations[-50:, 2] > 0.97).all())


def settled(episode: Any) -> bool:
    """Lorenz rests at its unstable point."""
    return bool((np.linalg.norm(episode.observations[-50:] - POINT[None], axis=1) < 0.1).all())


def there(episode: Any) -> bool:
    """The car is on the hill, and it was cheap."""
    return episode.total >= 90.0


def standing(episode: Any) -> bool:
    """The pole stood to the end."""
    return episode.steps >= 1000


Judge = Callable[[Any], bool] | None
CASES: dict[str, tuple[str, tuple[str, ...], Judge]] = {
    "cart-pole": ("dynsys/CartPoleSwingUp-v0", ("steps=3000",), upright),
    "lorenz": ("dynsys/LorenzControl-v0", ("steps=800", "planner.horizon=80", "planner.starts=6"), settled),
    "mountain-car": (
        "MountainCarContinuous-v0",
        ("steps=2000", "explore.hold=20", "explore.refit=50", "planner.horizon=100", "planner.block=20", "planner.starts=5"),
        there,
    ),
    "inverted-pendulum": ("InvertedPendulum-v5", ("steps=400",), standing),
    "reacher": ("Reacher-v5", ("steps=1000", "planner.horizon=15"), None),
}


def main() -> None:
    """Run it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--toy", action="store_true", help="tiny sizes, to see that it runs")
    options.add_argument("--cases", default="cart-pole,lorenz,mountain-car,inverted-pendulum,reacher")
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--episodes", type=int, default=10)
    chosen = options.parse_args()
    names = ["lorenz"] if chosen.toy else chosen.cases.split(",")
    for name in names:
        env_id, changes, judge = CASES[name]
        changes = ("steps=120", "explore.random=100", "planner.horizon=5") if chosen.toy else changes
        for seed in range(1 if chosen.toy else chosen.seeds):
            episodes = 1 if chosen.toy else chosen.episodes
            about = [f'environment.id="{env_id}"', f"seed={seed}", f"episodes={episodes}", *changes]
            settings = with_settings(ControlSettings(), about)
            began = time.perf_counter()
            found = learn_to_control(make_environment(env_id), settings)
            told, met = found.played.summary(), list(zip(found.history, found.experience.episodes, strict=True))
            row = {
                "case": name,
                "seed": seed,
                "env_steps": found.experience.steps,
                "first_solved_at": next((row.steps for row, episode in met if judge is not None and judge(episode)), None),
                "solved": None if judge is None else sum(judge(episode) for episode in found.played.episodes),
                "episodes": episodes,
                **{key: told[key] for key in ("mean", "standard_error", "worst", "plan_ms_median", "decisions_per_second")},
                "model_error": found.history[-1].error,
                "seconds": round(time.perf_counter() - began, 1),
                "settings": " ".join(changes),
            }
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

"""Make the kinematics task: walking robots seen at irregular times, under a fixed seeded policy.

    python scripts/make_kinematics.py --out kinematics --episodes 56 --frames 400

Writes <out>/Walker2d-v5.npz and <out>/HalfCheetah-v5.npz: `values` (E, T, N) observations and `times` (E, T) in seconds, where 10 % of
the frames were dropped at random. Needs gymnasium[mujoco]. The policy is a mixture of a seeded linear feedback and a rhythm:
action = tanh(K (o - o_ref) + A sin(w t + phase)); nothing of it is shown to the models. Walker2d does not stop when it falls.
"""

import argparse
from pathlib import Path

import gymnasium
import numpy as np

ENVIRONMENTS = ("Walker2d-v5", "HalfCheetah-v5")


def policy(n_obs: int, n_actions: int, seed: int):
    """The fixed policy: (observation, time) -> action in [-1, 1]."""
    rng = np.random.default_rng(seed)
    K = 0.1 * rng.normal(size=(n_actions, n_obs)) / np.sqrt(n_obs)
    amplitude, phase = rng.uniform(0.5, 1.0, n_actions), rng.uniform(0, 2 * np.pi, n_actions)
    return lambda o, t: np.tanh(K @ np.clip(o, -5, 5) + amplitude * np.sin(2 * np.pi * 1.5 * t + phase))


def record(name: str, episodes: int, frames: int, dropped: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Observations (E, T, N) and times (E, T) of the frames that are left."""
    about = {"terminate_when_unhealthy": False} if name.startswith("Walker2d") else {}
    env = gymnasium.make(name, max_episode_steps=frames + 1, **about)
    dt = float(env.unwrapped.dt)
    act = policy(env.observation_space.shape[0], env.action_space.shape[0], seed)
    rng = np.random.default_rng(seed + 1)
    kept = round(frames * (1 - dropped))
    values, times = [], []
    for episode in range(episodes):
        o, _ = env.reset(seed=seed + 1000 + episode)
        seen = [o]
        for step in range(frames - 1):
            o = env.step(act(o, step * dt).astype(env.action_space.dtype))[0]
            seen.append(o)
        rows = np.sort(rng.choice(frames, kept, replace=False))
        values.append(np.asarray(seen)[rows])
        times.append(rows * dt)
    env.close()
    return np.array(values), np.array(times)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("kinematics"))
    parser.add_argument("--episodes", type=int, default=56)
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--dropped", type=float, default=0.1, help="share of the frames that are dropped")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    for name in ENVIRONMENTS:
        values, times = record(name, asked.episodes, asked.frames, asked.dropped, asked.seed)
        np.savez_compressed(asked.out / f"{name}.npz", values=values, times=times)
        print(f"{name}: {values.shape[0]} episodes of {values.shape[1]} frames, {values.shape[2]} columns")


if __name__ == "__main__":
    main()

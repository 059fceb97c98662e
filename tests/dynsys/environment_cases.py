"""Small Gymnasium environments for tests: a linear cart that is quick, and ones that fail in every way that an environment can."""

import gymnasium
import numpy as np
from gymnasium import spaces


class Cart(gymnasium.Env):
    """x' = x + 0.1 v, v' = v + 0.1 u; reward -(x^2 + 0.1 v^2 + 0.01 u^2); 30 steps; drawn as a grey square."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  (as gymnasium declares it)

    def __init__(self, render_mode=None, length=30, faults=()):
        self.render_mode = render_mode
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.length, self.faults = length, dict(faults)
        self.total_steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.steps = self.np_random.uniform(-1, 1, 2), 0
        return self.x.astype(np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action), f"outside the box: {action!r}"
        u = float(action[0])
        reward = -(self.x[0] ** 2 + 0.1 * self.x[1] ** 2 + 0.01 * u**2)
        self.x = np.array([self.x[0] + 0.1 * self.x[1], self.x[1] + 0.1 * u])
        self.steps += 1
        self.total_steps += 1
        seen = self.x.astype(np.float32)
        fault = self.faults.get(self.total_steps)
        if fault == "raise":
            raise RuntimeError("the motor is on fire")
        if fault == "nan":
            seen = np.full(2, np.nan, np.float32)
        if fault == "shape":
            seen = np.zeros(3, np.float32)
        if fault == "reward":
            reward = float("nan")
        return seen, reward, fault == "end", self.steps >= self.length, {}

    def render(self):
        frame = np.zeros((20, 20, 3), np.uint8)
        frame[5:10, 5 + self.steps % 5 : 10] = 200
        return frame


class Discrete(Cart):
    """Actions that are no box."""

    def __init__(self):
        super().__init__()
        self.action_space = spaces.Discrete(2)

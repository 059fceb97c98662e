"""What a search by rollouts asks of a real system: `rig(policies) -> states`, one rollout a policy, all from the same start.

    u = clip(inputs[i, t] + gains[t] (x - nominal[t]), low, high)

A rig is any callable: a loop around hardware, a simulator without derivatives, an environment of Gymnasium (`environment_rig`). It returns
states (n, T + 1, M), the start first; a rollout that failed is a row with NaN, and is left out.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from dynsys.errors import InvalidValue


@dataclass(frozen=True)
class Policies:
    """n policies that share their feedback: inputs (n, T, K), gains (T, K, M), nominal states (T + 1, M), limits (K,)."""

    inputs: Float[np.ndarray, "n T K"]
    gains: Float[np.ndarray, "T K M"]
    nominal: Float[np.ndarray, "S M"]
    low: Float[np.ndarray, " K"]
    high: Float[np.ndarray, " K"]

    def __len__(self) -> int:
        """How many rollouts are wanted."""
        return len(self.inputs)

    def __iter__(self) -> Iterator[Callable[[int, Any], Float[np.ndarray, " K"]]]:
        """The policies one by one: act(t, x) -> u."""
        return ((lambda t, x, i=i: self.act(i, t, x)) for i in range(len(self)))

    @property
    def horizon(self) -> int:
        """T, the steps of a rollout."""
        return self.inputs.shape[1]

    def act(self, i: int | slice, t: int, x: Any) -> Float[np.ndarray, "*n K"]:
        """The input of policy i at step t in state x (M,); of many policies at once for a slice and states (n, M)."""
        off = np.asarray(x, float) - self.nominal[t]
        return np.clip(self.inputs[i, t] + off @ self.gains[t].T, self.low, self.high)


Rig = Callable[[Policies], Any]


class Recorder:
    """A rig whose answers are checked and kept."""

    def __init__(self, rig: Rig, low: np.ndarray, high: np.ndarray):
        self.rig, self.low, self.high = rig, low, high
        self.states: list[np.ndarray] = []
        self.inputs: list[np.ndarray] = []

    def __call__(self, inputs: Any, gains: Any, nominal: Any) -> Float[np.ndarray, "n S M"]:
        """The states of n rollouts; InvalidValue for an answer of another shape."""
        policies = Policies(np.asarray(inputs), np.asarray(gains), np.asarray(nominal), self.low, self.high)
        states = np.asarray(self.rig(policies), float)
        wanted = (len(policies), *policies.nominal.shape)
        if states.shape != wanted:
            raise InvalidValue(f"rig: it must return states (n, T + 1, M) = {wanted}, got {states.shape}.")
        self.states.append(states)
        self.inputs.append(np.stack([policies.act(slice(None), t, states[:, t]) for t in range(policies.horizon)], axis=1))
        return states

    def collected(self) -> tuple[Float[np.ndarray, "R S M"], Float[np.ndarray, "R T K"]]:
        """States and inputs of all rollouts so far."""
        return np.concatenate(self.states), np.concatenate(self.inputs)


def environment_rig(
    env: Any, horizon: int, *, seed: int = 0, options: dict[str, Any] | None = None, see: Callable[[Any, dict[str, Any]], Any] | None = None
) -> Rig:
    """A rig of a gymnasium.Env: each rollout begins with env.reset(seed=seed, options=options) and has `horizon` steps.

    The observation is taken as the state, or see(observation, info) (M,) where it shows the state only in part. Float32 observations
    are rounded: let sigma be 0.01 of an input's range or more. A rollout that terminates, is truncated or raises before its end is NaN
    from there on, with a warning that says why.
    """
    if horizon < 1:
        raise InvalidValue(f"environment_rig: horizon must be at least 1, got {horizon}.")

    def shown(observation: Any, info: dict[str, Any]) -> np.ndarray:
        return np.atleast_1d(np.asarray(observation if see is None else see(observation, info), float))

    def rig(policies: Policies) -> Float[np.ndarray, "n S M"]:
        if policies.horizon != horizon:
            raise InvalidValue(f"environment_rig: made for {horizon} steps, but the search plans over {policies.horizon}; let them agree.")
        states = np.full((len(policies), horizon + 1, policies.nominal.shape[1]), np.nan)
        for i, (row, act) in enumerate(zip(states, policies, strict=True)):
            try:
                row[0] = shown(*env.reset(seed=seed, options=options))
            except Exception as error:
                if i == 0:  # nothing is lost yet
                    raise
                warnings.warn(f"environment_rig: a reset raised {type(error).__name__}: {error}", stacklevel=2)
                continue
            for t in range(horizon):
                try:
                    observation, _, terminated, truncated, info = env.step(act(t, row[t]))
                    row[t + 1] = shown(observation, info)
                except Exception as error:  # whatever an environment may raise costs this rollout only
                    warnings.warn(f"environment_rig: a rollout raised {type(error).__name__} at step {t}: {error}", stacklevel=2)
                    break
                if not np.isfinite(row[t + 1]).all():
                    break
                if (terminated or truncated) and t + 1 < horizon:
                    why = "terminated" if terminated else "was truncated; make it with a larger max_episode_steps"
                    warnings.warn(f"environment_rig: a rollout of {horizon} steps ended after {t + 1}: it {why}.", stacklevel=2)
                    break
        return states

    return rig

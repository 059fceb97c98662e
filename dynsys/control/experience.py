"""What was met in an environment: episodes of observations, inputs and rewards, in memory and as one HDF5 file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from dynsys.errors import DataError
from dynsys_datasets.files import replacing

FORMAT = "dynsys-experience-1"


@dataclass(frozen=True)
class Episode:
    """One stretch of an environment: observations (T + 1, N), inputs (T, K), rewards (T,).

    terminated: the task ended it; truncated: the time was up; neither: it was broken off. seed: what it was reset with.
    """

    observations: Float[np.ndarray, "S N"]
    inputs: Float[np.ndarray, "T K"]
    rewards: Float[np.ndarray, " T"]
    terminated: bool = False
    truncated: bool = False
    seed: int = 0

    @property
    def steps(self) -> int:
        """T."""
        return len(self.rewards)

    @property
    def total(self) -> float:
        """The return: the sum of all rewards."""
        return float(np.sum(self.rewards))


@dataclass(frozen=True)
class Experience:
    """Episodes in the order in which they were met."""

    episodes: tuple[Episode, ...] = ()

    @property
    def steps(self) -> int:
        """Environment steps in all."""
        return sum(episode.steps for episode in self.episodes)

    def plus(self, episode: Episode) -> "Experience":
        """With one episode more; one without a step is left out."""
        return self if episode.steps == 0 else Experience((*self.episodes, episode))

    def series(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Trajectories [(T + 1, N), ...] and inputs of the same length, whose last row acts on nothing and repeats the one before."""
        inputs = [np.concatenate([episode.inputs, episode.inputs[-1:]]) for episode in self.episodes]
        return [episode.observations for episode in self.episodes], inputs

    def rows(self) -> tuple[Float[np.ndarray, "L N"], Float[np.ndarray, "L K"], Float[np.ndarray, " L"], Bool[np.ndarray, " L"]]:
        """All steps: where, what was done, the reward, and whether it ended the episode."""
        ends = [np.arange(e.steps) == (e.steps - 1 if e.terminated else -1) for e in self.episodes]
        return (
            np.concatenate([e.observations[:-1] for e in self.episodes]),
            np.concatenate([e.inputs for e in self.episodes]),
            np.concatenate([e.rewards for e in self.episodes]),
            np.concatenate(ends),
        )

    def save(self, path: str | Path) -> Path:
        """Write one HDF5 file, whole or not at all."""
        import h5py

        path = Path(path)
        with replacing(path) as temporary, h5py.File(temporary, "w") as file:
            file.attrs["format"] = np.bytes_(FORMAT.encode())
            file.attrs["episodes"] = len(self.episodes)
            for i, episode in enumerate(self.episodes):
                group = file.create_group(f"{i:06d}")
                for name in ("observations", "inputs", "rewards"):
                    group.create_dataset(name, data=getattr(episode, name))
                for name in ("terminated", "truncated", "seed"):
                    group.attrs[name] = int(getattr(episode, name))
        return path


def load_experience(path: str | Path) -> Experience:
    """Read what `Experience.save` wrote. Raises DataError if it can't be read or its arrays don't fit together."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if bytes(file.attrs.get("format", b"")).decode() != FORMAT:
                raise DataError(f"{path}: is no file of experience (format {FORMAT!r}).")
            return Experience(tuple(_episode(file[name], f"{path}: episode {name}") for name in sorted(file)))
    except DataError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: can't be read as experience ({reason}). Is it complete?") from None


def _episode(group: Any, where: str) -> Episode:
    x, u, r = (np.asarray(group[name][()], float) for name in ("observations", "inputs", "rewards"))
    if x.ndim != 2 or u.ndim != 2 or r.ndim != 1 or not len(x) == len(u) + 1 == len(r) + 1 or not np.isfinite(x).all():
        raise DataError(f"{where}: observations {x.shape}, inputs {u.shape} and rewards {r.shape} don't fit together. It is damaged.")
    return Episode(x, u, r, bool(group.attrs["terminated"]), bool(group.attrs["truncated"]), int(group.attrs["seed"]))

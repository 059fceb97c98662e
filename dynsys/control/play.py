"""A controller at work: seeded episodes in an environment, their returns and timings, and a recording as an animated GIF."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax.random as jr
import numpy as np
from jaxtyping import Float

from dynsys.control.collect import EnvironmentFailed, Session
from dynsys.control.controller import AbstractController
from dynsys.control.experience import Episode
from dynsys.errors import InvalidValue, require
from dynsys.status import Status
from dynsys_datasets.files import check_target, replacing

LONGEST = 100_000  # steps of an episode that never ends
FRAMES = 1500  # of a recording


@dataclasses.dataclass(frozen=True)
class Played:
    """Episodes that were played, and the milliseconds that every decision took, compilation apart.

    status FAILED: the environment failed in the last of them, `reason` says how.
    """

    episodes: tuple[Episode, ...]
    milliseconds: Float[np.ndarray, " D"]
    status: Status = Status.SUCCESS
    reason: str = ""

    @property
    def returns(self) -> Float[np.ndarray, " E"]:
        """The return of every episode."""
        return np.array([episode.total for episode in self.episodes])

    def summary(self) -> dict[str, Any]:
        """Numbers for a JSON file: returns with mean, standard error and worst, lengths, and timings in milliseconds."""
        found, ms = self.returns, self.milliseconds
        return {
            "status": self.status.value,
            "reason": self.reason,
            "seeds": [episode.seed for episode in self.episodes],
            "returns": [float(value) for value in found],
            "lengths": [episode.steps for episode in self.episodes],
            "terminated": [episode.terminated for episode in self.episodes],
            "mean": float(found.mean()) if len(found) else None,
            "standard_error": float(found.std(ddof=1) / np.sqrt(len(found))) if len(found) > 1 else None,
            "worst": float(found.min()) if len(found) else None,
            "plan_ms_median": float(np.median(ms)) if len(ms) else None,
            "plan_ms_95": float(np.quantile(ms, 0.95)) if len(ms) else None,
            "decisions_per_second": float(1e3 / np.mean(ms)) if len(ms) else None,
        }


def play(
    env: Any,
    controller: AbstractController,
    episodes: int,
    *,
    seed: int = 0,
    record: str | Path | None = None,
    longest: int = LONGEST,
) -> Played:
    """Play episodes with seeds seed, seed + 1, ... to their ends, at most `longest` steps each.

    record: write the first one as a GIF (needs render_mode="rgb_array").

    Raises InvalidValue if controller and environment don't fit together, or nothing can be recorded.
    """
    session = Session(env)
    if controller.n_obs != len(session.seen_low):
        raise InvalidValue(
            f"play: the controller wants {controller.n_obs} observations, the environment shows {len(session.seen_low)}. "
            "Was it made for another one?"
        )
    if record is not None:
        _check_record(env, Path(record))
    played: list[Episode] = []
    seconds: list[float] = []
    frames: list[np.ndarray] = []
    status, reason = Status.SUCCESS, ""
    for number in range(episodes):
        try:
            seen, state = session.reset(seed + number), controller.init(jr.key(seed + number))
            if number == 0:
                _warm(controller, seen)
            while not session.over and len(session) < longest:
                if record is not None and number == 0 and len(frames) < FRAMES:
                    frames.append(np.asarray(env.render()))
                began = time.perf_counter()
                u, state = controller.act(seen, state)
                seconds.append(time.perf_counter() - began)
                seen = session.step(u)
        except EnvironmentFailed as error:
            status, reason = Status.FAILED, str(error)
        if session.episode.steps:
            played.append(session.episode)
        if not status.ok:
            break
    if record is not None and frames:
        write_gif(frames, record, fps=float(env.metadata.get("render_fps", 30)))
    return Played(tuple(played), 1e3 * np.array(seconds), status, reason)


def _warm(controller: AbstractController, seen: np.ndarray) -> None:
    """Two decisions that nobody sees, so that what compiles at the first or the second one of an episode is compiled."""
    state = controller.init(jr.key(0))
    for _ in range(2):
        _, state = controller.act(seen, state)


def write_gif(frames: list[np.ndarray], path: str | Path, *, fps: float = 30.0) -> Path:
    """Write frames (H, W, 3) uint8 as an animated GIF; MissingExtra (extra 'report') without Pillow."""
    image = require("PIL.Image", extra="report", who="dynsys.control.play")
    path = Path(path)
    shown = [image.fromarray(np.asarray(frame, np.uint8)).quantize(64) for frame in frames]
    with replacing(path) as temporary:
        first, *rest = shown
        first.save(temporary, format="GIF", save_all=True, append_images=rest, duration=max(20, round(1000 / fps)), loop=0)
    return path


def _check_record(env: Any, path: Path) -> None:
    if path.suffix.lower() != ".gif":
        raise InvalidValue(f"--record {path}: recordings are animated GIFs; give a name that ends in .gif.")
    check_target(path)
    if env.render_mode != "rgb_array":
        raise InvalidValue('play: to record, make the environment with render_mode="rgb_array".')
    check_drawn(env)


def check_drawn(env: Any) -> None:
    """Raise InvalidValue unless the environment can draw itself: its reason, such as a package that is missing."""
    try:
        env.reset(seed=0)
        frame = np.asarray(env.render())
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidValue(f"the environment can't be recorded: {reason}") from None
    if frame.ndim != 3 or frame.shape[2] != 3:
        raise InvalidValue(f"the environment can't be recorded: it draws frames of shape {frame.shape}, wanted are (H, W, 3).")

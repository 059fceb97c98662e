"""The run folder of dynsys control: config.toml, experience.h5, history.csv, controller.h5, scores.json; each whole or not at all."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dynsys.control.experience import Experience, load_experience
from dynsys.control.history import Row, from_csv, to_csv
from dynsys.control.store import CONTROLLER_FILE, save_controller
from dynsys.errors import DataError
from dynsys.reconstruct.folder import CONFIG_FILE, HISTORY_FILE, MARK_FILE, SCORES_FILE
from dynsys_datasets.files import replacing

EXPERIENCE_FILE = "experience.h5"
OURS = (CONFIG_FILE, EXPERIENCE_FILE, HISTORY_FILE, CONTROLLER_FILE, SCORES_FILE, MARK_FILE, "report.html")


@dataclasses.dataclass(frozen=True)
class ControlFolder:
    """A folder that belongs to one run, known by the fingerprint of its settings."""

    path: Path

    def begin(self, mark: str, config: str, *, overwrite: bool) -> Experience:
        """Make the folder, or take it up again; the experience it holds. Raises DataError if it holds something else or can't be made."""
        try:
            if self.path.exists() and not self.path.is_dir():
                raise DataError(f"{self.path}: is a file; a run needs a folder. Pass another --out.")
            self.path.mkdir(parents=True, exist_ok=True)
            if overwrite:
                for name in OURS:
                    (self.path / name).unlink(missing_ok=True)
            known = self.path / MARK_FILE
            same = known.exists() and known.read_bytes() == mark.encode()
            there = sorted(file.name for file in self.path.iterdir())
        except OSError as error:
            raise DataError(f"{self.path}: can't be read or made ({error.strerror}). Pass another --out.") from None
        if there and not same and not overwrite:
            raise DataError(
                f"{self.path}: holds {', '.join(there[:4])}{'…' if len(there) > 4 else ''} of another run or of something else. Give the "
                "same settings (and the same version of dynsys) to go on, another --out, or --overwrite to begin anew."
            )
        self._write(MARK_FILE, mark)
        self._write(CONFIG_FILE, config)
        saved = self.path / EXPERIENCE_FILE
        return load_experience(saved) if saved.exists() else Experience()

    def rows(self, experience: Experience) -> tuple[Row, ...]:
        """The history of the episodes that are there; those whose row was lost get one without timings."""
        path = self.path / HISTORY_FILE
        try:
            found = from_csv(path.read_text(encoding="utf-8")) if path.exists() else ()
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: can't be read as the history of a run ({error}). Remove it to go on without.") from None
        nan, steps, rows = float("nan"), 0, []
        for i, episode in enumerate(experience.episodes):
            steps += episode.steps
            ended = "terminated" if episode.terminated else "truncated" if episode.truncated else "cut off"
            lost = Row(i, steps, episode.steps, episode.total, ended, nan, nan, nan, nan, "unknown")
            rows.append(found[i] if i < len(found) and found[i].steps == steps else lost)
        return tuple(rows)

    def keep(self, experience: Experience, rows: Sequence[Row]) -> None:
        """Write what was met so far."""
        experience.save(self.path / EXPERIENCE_FILE)
        self._write(HISTORY_FILE, to_csv(rows))

    def finish(self, found: Any) -> None:
        """Write the controller and the scores of a `Controlled`."""
        self.keep(found.experience, found.history)
        save_controller(found.controller, self.path / CONTROLLER_FILE)
        told = {
            "status": found.status.value,
            "reason": found.reason,
            "steps": found.history[-1].steps if found.history else found.experience.steps,
            "played": None if found.played is None else found.played.summary(),
        }
        self._write(SCORES_FILE, json.dumps(told, indent=2, default=_number) + "\n")

    def _write(self, name: str, text: str) -> None:
        with replacing(self.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")


def _number(value: Any) -> Any:
    return np.asarray(value).tolist()

"""The run folder: config.toml, checkpoint.h5, history.csv, model.h5, scores.json; every file is written whole or not at all."""

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path

from dynsys.errors import DataError
from dynsys.metrics.score import Score
from dynsys.reconstruct.reconstruction import MODEL_FILE, Outcome
from dynsys.train.checkpoint import read_history
from dynsys.train.trainer import Row
from dynsys_datasets.files import replacing

CONFIG_FILE = "config.toml"
CHECKPOINT_FILE = "checkpoint.h5"
HISTORY_FILE = "history.csv"
SCORES_FILE = "scores.json"
SCAN_FILE = "scan.json"
MARK_FILE = ".fingerprint"
OURS = (CONFIG_FILE, CHECKPOINT_FILE, HISTORY_FILE, SCORES_FILE, SCAN_FILE, MODEL_FILE, MARK_FILE, "report.html")


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A folder that belongs to one run, known by the fingerprint of its settings and data; `result` is the file written last."""

    path: Path
    result: str = MODEL_FILE

    def is_finished(self, mark: str, *, overwrite: bool) -> bool:
        """Whether the folder holds the end of the run with this mark; nothing is written.

        Raises DataError if it holds another run (unless `overwrite`), is a file or can't be read.
        """
        try:
            if self.path.exists() and not self.path.is_dir():
                raise DataError(f"{self.path}: is a file; a run needs a folder. Pass another --out.")
            if overwrite:
                return False
            known = self.path / MARK_FILE
            if known.exists() and known.read_bytes() == mark.encode():
                return (self.path / self.result).exists()
            there = [name for name in OURS if (self.path / name).exists()]
            foreign = [] if there or not self.path.is_dir() else sorted(file.name for file in self.path.iterdir())
        except OSError as error:
            raise DataError(f"{self.path}: can't be read ({error.strerror}). Pass another --out.") from None
        if there:
            raise DataError(
                f"{self.path}: holds {', '.join(there)} of a run with other settings or data. "
                "Give the same ones (and the same version of dynsys) to go on, another --out, or --overwrite to begin anew."
            )
        if foreign:
            raise DataError(
                f"{self.path}: holds {len(foreign)} other files ({', '.join(foreign[:3])}…), none of a run. "
                "Give a new or empty folder, or --overwrite to write beside them."
            )
        return False

    def begin(self, mark: str, config: str, *, overwrite: bool) -> None:
        """Make the folder, or take it up again; `overwrite` first removes what a run writes. Raises DataError if it can't be made.

        The mark is written first: a run that is killed at once is known again.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if overwrite:
                self.clear()
        except OSError as error:
            raise DataError(f"{self.path}: can't be made or emptied ({error.strerror}). Pass another --out.") from None
        self.write_text(MARK_FILE, mark)
        self.write_text(CONFIG_FILE, config)

    def clear(self) -> None:
        """Remove what a run writes."""
        for name in OURS:
            (self.path / name).unlink(missing_ok=True)

    def rows(self, mark: str) -> tuple[Row, ...]:
        """The history of a finished run."""
        return read_history(self.path / CHECKPOINT_FILE, fingerprint=mark)

    def write_history(self, rows: Sequence[Row]) -> None:
        """history.csv: a line a seed and chunk; the parts of the score at checkpoints."""
        parts = next((row.score.parts for row in rows if row.score is not None), ())
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["seed", "step", "loss", "forcing", "skipped", "score", *(name for name, _ in parts)])
        for row in rows:
            score = [""] * (1 + len(parts)) if row.score is None else [row.score.total, *(value for _, value in row.score.parts)]
            writer.writerow([row.seed, row.step, row.loss, row.strength, row.skipped, *score])
        self.write_text(HISTORY_FILE, text.getvalue())

    def write_scores(self, scores: Sequence[Score], outcome: Outcome) -> None:
        """scores.json: every score of the test part with definition, settings and floor, and the seeds' validation scores."""
        told = {"test": [json.loads(score.to_json()) for score in scores], "training": dataclasses.asdict(outcome)}
        self.write_text(SCORES_FILE, json.dumps(told, indent=2) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """One file, whole or not at all."""
        with replacing(self.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")

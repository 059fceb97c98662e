"""The results of a benchmark: one SQLite file with write-ahead log, one row per (protocol, system, model, seed).

A row is written in one transaction when its task has ended, well or not; the key is unique, so nothing is there twice. A
second process may read while the first writes.
"""

import contextlib
import dataclasses
import json
import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dynsys.errors import DataError

_SCHEMA = """
create table if not exists results (
    protocol text not null, system text not null, model text not null, seed integer not null,
    status text not null, reason text not null, scores text not null, seconds real not null, fit_seconds real,
    memory_mb real, versions text not null, finished text not null, attempts integer not null,
    primary key (protocol, system, model, seed)
) without rowid;
create table if not exists pictures (
    protocol text not null, system text not null, model text not null, rows integer not null, columns integer not null,
    data blob not null, primary key (protocol, system, model)
) without rowid;
"""
_COLUMNS = ("protocol", "system", "model", "seed", "status", "reason", "scores", "seconds", "fit_seconds", "memory_mb", "versions")
TRUTH = ""  # the model name under which the picture of the data itself is kept


@dataclasses.dataclass(frozen=True)
class Row:
    """One finished task. scores: name and value (inf and NaN allowed); memory_mb: the peak of its process; versions: of packages."""

    protocol: str
    system: str
    model: str
    seed: int
    status: str
    reason: str = ""
    scores: tuple[tuple[str, float], ...] = ()
    seconds: float = 0.0
    fit_seconds: float | None = None
    memory_mb: float | None = None
    versions: tuple[tuple[str, str], ...] = ()
    attempts: int = 1
    finished: str = dataclasses.field(default="", compare=False)  # when it was written, UTC; filled when read

    @property
    def key(self) -> tuple[str, str, str, int]:
        """(protocol, system, model, seed)."""
        return self.protocol, self.system, self.model, self.seed

    def score(self, name: str) -> float:
        """A score by name, or NaN."""
        return dict(self.scores).get(name, math.nan)


class Store:
    """A results file; made if it is not there (unless `must_exist`)."""

    def __init__(self, path: str | Path, *, must_exist: bool = False):
        self.path = Path(path)
        if must_exist and not self.path.exists():
            raise DataError(f"{self.path}: there are no results. Make some: dynsys benchmark --out {self.path.parent}.")
        if not self.path.parent.is_dir():
            raise DataError(f"{self.path}: there is no folder {str(self.path.parent)!r}. Make it first.")
        with self._connected() as db:
            db.execute("pragma journal_mode=wal")
            db.executescript(_SCHEMA)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            db = sqlite3.connect(self.path, timeout=60.0)
            try:
                with db:  # one transaction
                    yield db
            finally:
                db.close()
        except sqlite3.DatabaseError as error:
            raise DataError(f"{self.path}: {error}. Is it a results file of dynsys, on a disk that can be written?") from error

    def finished(self, *, failed_too: bool = True) -> set[tuple[str, str, str, int]]:
        """The keys that have a row; without `failed_too` only of those that did not fail."""
        where = "" if failed_too else " where status <> 'failed'"
        with self._connected() as db:
            return {(p, s, m, seed) for p, s, m, seed in db.execute(f"select protocol, system, model, seed from results{where}")}

    def add(self, row: Row, picture: np.ndarray | None = None, truth: np.ndarray | None = None) -> None:
        """Write a row, and the pictures (points, columns) of the made and the true attractor if given; replaces a row of the same key."""
        values = dataclasses.asdict(row) | {"scores": json.dumps(_finite(dict(row.scores))), "versions": json.dumps(dict(row.versions))}
        named = [*_COLUMNS, "attempts"]
        with self._connected() as db:
            db.execute(
                f"insert or replace into results ({', '.join(named)}, finished) values ({', '.join('?' * len(named))}, datetime('now'))",
                [values[name] for name in named],
            )
            for model, points in ((row.model, picture), (TRUTH, truth)):
                if points is not None:
                    data = np.ascontiguousarray(points, dtype="<f4")
                    db.execute(
                        "insert or replace into pictures values (?, ?, ?, ?, ?, ?)",
                        (row.protocol, row.system, model, *data.shape, data.tobytes()),
                    )

    def rows(self, protocol: str | None = None) -> list[Row]:
        """All rows, or those of one protocol, ordered by their key."""
        query = f"select {', '.join(_COLUMNS)}, attempts, finished from results"
        with self._connected() as db:
            found = db.execute(query + (" where protocol = ?" if protocol else ""), (protocol,) if protocol else ()).fetchall()
        rows = []
        for line in found:
            values = dict(zip((*_COLUMNS, "attempts", "finished"), line, strict=True))
            values["scores"] = tuple((name, float(value)) for name, value in json.loads(values["scores"]).items())
            values["versions"] = tuple(json.loads(values["versions"]).items())
            rows.append(Row(**values))
        return sorted(rows, key=lambda row: row.key)

    def picture(self, protocol: str, system: str, model: str = TRUTH) -> np.ndarray | None:
        """Points (rows, columns) of the made attractor of a model, or of the true one; None if there is no picture."""
        with self._connected() as db:
            found = db.execute(
                "select rows, columns, data from pictures where protocol = ? and system = ? and model = ?", (protocol, system, model)
            ).fetchone()
        return None if found is None else np.frombuffer(found[2], dtype="<f4").reshape(found[0], found[1])


def _finite(scores: dict[str, float]) -> dict[str, float | str]:
    """Numbers that JSON does not know as words: float() reads them back."""
    return {name: value if math.isfinite(value) else str(value) for name, value in scores.items()}

"""What the leaderboard page shows of a results file, as arrays and as strict JSON.

    Store -> board(store, protocol) -> Board;    Pictures -> attractors as bytes;    embedded(boards) -> the page's data

Letters: G models (best first), S systems. Numbers travel with five significant digits, attractors as two bytes a point.
"""

import base64
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynsys.benchmark.leaderboard import Table, protocols_of, table, value_of, without_meaning
from dynsys.benchmark.protocol import LOWER_IS_BETTER
from dynsys.benchmark.store import TRUTH, Row, Store
from dynsys.errors import DataError, UnknownName
from dynsys_datasets.catalogue import names as system_names, system
from dynsys_datasets.collections import is_polynomial

POINTS = 300  # of an attractor's picture at most
FEWEST_POINTS = 80  # below that a picture says little: rather fewer pictures
PICTURE_CHARACTERS = 1_400_000  # of all pictures together, so that the page stays below 3 MB
REASONS, REASON_LENGTH = 400, 160  # reasons of failures that travel with the heat maps
NOT_RANKED = ("lyapunov", "d_stsp_of_training")  # no scores of a model: its exponent, and a number of the data
MEANING = {
    "smape": "sMAPE on raw values, 0 to 200",
    "mase": "Mean absolute error over that of the naive one-step forecast",
    "vpt": "Valid prediction time in Lyapunov times",
    "vpt_periods": "Valid prediction time in periods",
    "d_stsp": "State-space divergence of a long free run, in nats",
    "d_h": "Hellinger distance of the power spectra of a long free run",
    "lyapunov_error": "Relative error of the maximal Lyapunov exponent",
    "outside": "Share of points outside the data's box",
    "seconds": "Seconds a task",
}
GAP = 255  # a coordinate outside the picture's box
MARGIN = 0.12  # of the truth's range, on each side of the box


@dataclass(frozen=True)
class Board:
    """One protocol. scores: name -> (G, S), NaN without a row; counts (G, S): rows; trouble: (model, system) -> failed, diverged, why."""

    table: Table
    rows: tuple[Row, ...]
    scores: dict[str, np.ndarray]
    counts: np.ndarray
    trouble: dict[tuple[int, int], tuple[int, int, str]]

    @property
    def models(self) -> tuple[str, ...]:
        """Best first."""
        return tuple(place.model for place in self.table.places)

    @property
    def seconds(self) -> list[float]:
        """For every model the median over systems of the median over seeds of a task's seconds."""
        return [float(np.nanmedian(line)) for line in self.scores["seconds"]]


def boards(store: Store, protocol: str | None, score: str | None, systems: tuple[str, ...] | None) -> list[Board]:
    """The boards of one protocol or of all that have rows, ranked by `score` where the rows have it, else by the protocol's own.

    Raises DataError if there are no rows, UnknownName if no protocol has the score.
    """
    names = protocols_of(store) if protocol is None else (protocol,)
    kept = {name: [row for row in store.rows(name) if systems is None or row.system in systems] for name in names}
    kept = {name: rows for name, rows in kept.items() if rows}
    if not kept:
        what = "" if protocol is None else f" of the protocol {protocol!r}"
        raise DataError(
            f"{store.path}: there are no rows{what}{'' if systems is None else ' of these systems'}, so there is nothing to show."
        )
    having = {name: {each for row in rows for each, _ in row.scores} | {"seconds"} for name, rows in kept.items()}
    if score is not None and not any(score in known for known in having.values()):
        raise UnknownName("score", score, sorted(set().union(*having.values())))
    return [_board(store, name, score if score in having[name] else None, systems, rows) for name, rows in kept.items()]


def _board(store: Store, protocol: str, score: str | None, systems: tuple[str, ...] | None, rows: list[Row]) -> Board:
    try:
        found = table(store, protocol, score, systems)
    except UnknownName:  # no row has the protocol's own score, as when every task failed
        found = table(store, protocol, min({name for row in rows for name, _ in row.scores} | {"seconds"}), systems)
    models = {place.model: i for i, place in enumerate(found.places)}
    places = {name: j for j, name in enumerate(found.systems)}
    cells: dict[tuple[int, int], list[Row]] = defaultdict(list)
    for row in rows:
        cells[models[row.model], places[row.system]].append(row)
    known = {name for row in rows for name, _ in row.scores} - set(NOT_RANKED) | {found.score, "seconds"}
    order = sorted(known, key=lambda name: (name != found.score, name == "seconds", name))
    shape = (len(models), len(places))
    scores = {name: np.full(shape, np.nan) for name in order}
    counts = np.zeros(shape, int)
    undefined = {name: without_meaning(rows, name) for name in order}
    trouble = {}
    for place, here in cells.items():
        counts[place] = len(here)
        for name in order:
            if here[0].system in undefined[name]:
                continue
            scores[name][place] = value_of(here[0], name) if len(here) == 1 else np.median([value_of(row, name) for row in here])
        failed = [row for row in here if row.status == "failed"]
        other = [row for row in here if row.status not in ("failed", "success")]
        if failed or other:
            trouble[place] = len(failed), len(other), next((row.reason for row in (*failed, *other) if row.reason), "")
    return Board(found, tuple(rows), scores, counts, trouble)


def facts(name: str) -> tuple[float | None, bool | None]:
    """Of a system: the maximal Lyapunov exponent times the dominant period, and if it is polynomial; None for what is not known."""
    if name not in system_names():
        return None, None
    record = system(name)
    spectrum, period = record.fact("lyapunov_spectrum"), record.period
    growth = None if spectrum is None or period is None else float(np.max(spectrum.value)) * period
    return growth, is_polynomial(record)


class Pictures:
    """Attractors in the plane, as text: base64 of a byte for x and one for y of each point; equal pictures are kept once."""

    def __init__(self, store: Store, found: list[Board]):
        count = sum(len(each.table.systems) * (len(each.models) + 1) for each in found)
        characters = PICTURE_CHARACTERS // max(count, 1)
        self.store = store
        self.points = int(np.clip(characters * 3 // 8, FEWEST_POINTS, POINTS))
        self.share = min(1.0, characters * 3 / 8 / FEWEST_POINTS)  # of the systems that get pictures
        self.texts: list[str] = []
        self._places: dict[str, int] = {}

    def of(self, board: Board) -> dict[str, Any]:
        """Places in `texts`, -1 for none: truth (S,), made (G, S); line (S,): joined points or dots; kinds of axes in words."""
        size = len(board.table.systems)
        truth, line, axes = [-1] * size, [0] * size, [""] * size
        made = [[-1] * size for _ in board.models]
        for j in self._chosen(board):
            name = board.table.systems[j]
            true = self.store.picture(board.table.protocol, name, TRUTH)
            if true is None or len(true) < 2:
                continue
            plane = _Plane(np.asarray(true, float), self.points)
            truth[j], line[j], axes[j] = self._kept(plane.packed(true)), int(plane.line), plane.axes
            for i, model in enumerate(board.models):
                points = self.store.picture(board.table.protocol, name, model)
                if points is not None and len(points) and points.shape[1] == true.shape[1]:
                    made[i][j] = self._kept(plane.packed(points))
        return {"truth": truth, "made": made, "line": line, "axes": axes}

    def _chosen(self, board: Board) -> list[int]:
        """Systems that get a picture: all, or some spread evenly from the easiest to the hardest."""
        size = len(board.table.systems)
        count = max(1, math.floor(size * self.share))
        values = board.scores[board.table.score]
        hard = np.argsort(np.nanmedian(values, axis=0), kind="stable")  # every system has a row
        return sorted(int(hard[k]) for k in np.unique(np.linspace(0, size - 1, count).round().astype(int)))

    def _kept(self, text: str) -> int:
        if text not in self._places:
            self._places[text] = len(self.texts)
            self.texts.append(text)
        return self._places[text]


class _Plane:
    """The plane in which a system's attractor is drawn: two principal components of the scaled truth; time and value of one column.

    line: the points follow one another closely, so they are joined; then they are the first ones, else dots over the whole orbit.
    """

    def __init__(self, true: np.ndarray, points: int):
        self.mean, self.scale = true.mean(axis=0), np.where(true.std(axis=0) > 0, true.std(axis=0), 1.0)
        self.turn, self.axes = None, "time, value"
        if true.shape[1] > 1:
            _, _, turn = np.linalg.svd((true - self.mean) / self.scale, full_matrices=False)
            turn = turn[:2]
            self.turn = turn * np.sign(turn[[0, 1], np.abs(turn).argmax(axis=1)])[:, None]
            self.axes = "principal components 1, 2"
        self.length = len(true)
        flat = self._flat(true)
        low, high = flat.min(axis=0), flat.max(axis=0)
        span = np.where(high > low, high - low, 1.0)
        self.low, self.span = low - MARGIN * span, (1 + 2 * MARGIN) * span
        moves = np.median(np.linalg.norm(np.diff(flat / span, axis=0), axis=1))
        self.line = bool(self.turn is None or moves < 0.12)
        stride = max(1, min(int(0.06 / max(moves, 1e-9)), math.ceil(len(true) / points))) if self.turn is not None else None
        close = self.line and stride is not None
        shown = np.arange(0, len(true), stride)[:points] if close else np.linspace(0, len(true) - 1, min(points, len(true)))
        self.shown = np.unique(shown.round().astype(int))

    def _flat(self, values: np.ndarray) -> np.ndarray:
        scaled = (values - self.mean) / self.scale
        if self.turn is None:
            return np.stack([np.arange(len(values)) / max(self.length - 1, 1), scaled[:, 0]], axis=1)
        return scaled @ self.turn.T

    def packed(self, values: np.ndarray) -> str:
        """The points of the plane as text; GAP for a point outside the box of the truth."""
        flat = self._flat(np.asarray(values, float))[self.shown[self.shown < len(values)]]
        place = np.floor((flat - self.low) / self.span * GAP)
        inside = ((place >= 0) & (place < GAP)).all(axis=1)
        return base64.b64encode(np.where(inside[:, None], place, GAP).astype(np.uint8).tobytes()).decode("ascii")


def embedded(found: list[Board], pictures: Pictures) -> dict[str, Any]:
    """The data of the page; holds no NaN and no infinity: null and the text "Infinity" stand for them."""
    reasons: dict[str, int] = {}
    every = sorted({name for each in found for name in each.table.systems})
    protocols = []
    for each in found:
        trouble = []
        for (i, j), (failed, diverged, reason) in sorted(each.trouble.items()):
            text = reason if len(reason) <= REASON_LENGTH else reason[: REASON_LENGTH - 1] + "…"
            if text and text not in reasons and len(reasons) < REASONS:
                reasons[text] = len(reasons)
            trouble.append([i, j, failed, diverged, reasons.get(text, -1)])
        protocols.append(
            {
                "name": each.table.protocol,
                "models": each.models,
                "systems": [every.index(name) for name in each.table.systems],
                "scores": [
                    {
                        "name": name,
                        "what": MEANING.get(name, ""),
                        "lower": LOWER_IS_BETTER.get(name, True),
                        "values": [[_number(v) for v in line] for line in values],
                    }
                    for name, values in each.scores.items()
                ],
                "counts": each.counts.tolist(),
                "trouble": trouble,
                "pictures": pictures.of(each),
            }
        )
    known = [facts(name) for name in every]
    return {
        "protocols": protocols,
        "systems": [[name, _number(at), poly] for name, (at, poly) in zip(every, known, strict=True)],
        "reasons": list(reasons),
        "pictures": pictures.texts,
        "share": pictures.share,
    }


def _number(value: float | None) -> float | int | str | None:
    """Five significant digits; None for NaN; text for an infinity."""
    if value is None or math.isnan(value):
        return None
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    short = float(f"{value:.5g}")
    return int(short) if short.is_integer() and abs(short) < 1e6 else short

"""The table of a benchmark: for every model the median of a score over all systems, its spread, and what failed.

    value(model, system) = median over seeds,     table(model) = median and quartiles over systems of value

A task that failed, or has no finite score, counts as the worst value there is: it is never left out. A system without a
known positive exponent has no Lyapunov time and no relative error of an exponent: it is left out of these two, for all models.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from dynsys.benchmark.protocol import LOWER_IS_BETTER, load_protocol
from dynsys.benchmark.store import Row, Store
from dynsys.errors import DataError, UnknownName

WORST = {"smape": 200.0}
NEED_EXPONENT = ("vpt", "lyapunov_error")  # scores that mean nothing for a system whose exponent is unknown or not positive


@dataclasses.dataclass(frozen=True)
class Place:
    """One line of the table. failed: share of tasks that failed or diverged; rank: mean over the systems; seconds: median a task."""

    model: str
    median: float
    lower: float
    upper: float
    rank: float
    systems: int
    failed: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Table:
    """All models on all systems under one protocol. values (models, systems) in the order of `places` and `systems`; NaN: no row,
    or a score that means nothing for this system."""

    protocol: str
    score: str
    lower_is_better: bool
    places: tuple[Place, ...]
    systems: tuple[str, ...]
    values: np.ndarray
    seeds: int


def protocols_of(store: Store) -> tuple[str, ...]:
    """The protocols that have rows."""
    return tuple(sorted({row.protocol for row in store.rows()}))


def table(store: Store, protocol: str, score: str | None = None, systems: tuple[str, ...] | None = None) -> Table:
    """The table of one protocol by one score (default: the protocol's own), best model first, on all systems or some.

    Raises DataError if the protocol has no rows, UnknownName for a score that no row has.
    """
    rows = [row for row in store.rows(protocol) if systems is None or row.system in systems]
    if not rows:
        raise DataError(
            f"{store.path}: there are no rows of the protocol {protocol!r}; it holds {', '.join(protocols_of(store)) or 'nothing'}."
        )
    known = sorted({name for row in rows for name, _ in row.scores} | {"seconds"})
    score = score or _rank_of(protocol)
    if score not in known and len(known) > 1:  # where every task failed there is no score to look for
        raise UnknownName(f"score under {protocol}:", score, known)
    lower = LOWER_IS_BETTER.get(score, True)
    names = tuple(sorted({row.system for row in rows}))
    models = sorted({row.model for row in rows})
    cells: dict[tuple[str, str], list[float]] = {}
    undefined = without_meaning(rows, score)
    for row in rows:
        if row.system not in undefined:
            cells.setdefault((row.model, row.system), []).append(value_of(row, score))
    values = np.array([[np.median(cells.get((model, system), [np.nan])) for system in names] for model in models])
    ranks = _ranks(values if lower else -values)
    places = [
        Place(
            model,
            *(_quantile(values[i], q) for q in (0.5, 0.25, 0.75)),
            rank=float(np.nanmean(ranks[i])) if np.isfinite(ranks[i]).any() else math.nan,
            systems=int(np.isfinite(ranks[i]).sum()),
            failed=float(np.mean([row.status != "success" for row in rows if row.model == model])),
            seconds=float(np.median([row.seconds for row in rows if row.model == model])),
        )
        for i, model in enumerate(models)
    ]
    order = sorted(range(len(models)), key=lambda i: (places[i].median if lower else -places[i].median, places[i].rank))
    seeds = max(len({row.seed for row in rows if row.model == model}) for model in models)
    return Table(protocol, score, lower, tuple(places[i] for i in order), names, values[order], seeds)


def without_meaning(rows: Sequence[Row], score: str) -> set[str]:
    """The systems for which a score means nothing, whatever the model: tasks that did not fail could not compute it."""
    if score not in NEED_EXPONENT:
        return set()
    # a valid prediction time is always a number, unless there is no Lyapunov time; a model's own exponent may be NaN
    return {
        row.system
        for row in rows
        if row.status != "failed" and (math.isnan(row.score(score)) if score == "vpt" else score not in dict(row.scores))
    }


def value_of(row: Row, score: str) -> float:
    """A row's score; the worst there is for a task that failed or a value that is no number."""
    if score == "seconds":
        return row.seconds
    value = row.score(score)
    lower = LOWER_IS_BETTER.get(score, True)
    if math.isnan(value):
        return WORST.get(score, math.inf) if lower else 0.0
    return value


def _rank_of(protocol: str) -> str:
    try:
        return load_protocol(protocol).rank
    except UnknownName:  # a user's own protocol, whose file is not here
        return "smape"


def _ranks(values: np.ndarray) -> np.ndarray:
    """For every system the rank of each model, 1 the best, equal values sharing the mean rank; NaN where there is no row."""
    from scipy.stats import rankdata

    return rankdata(values, axis=0, nan_policy="omit")


def _quantile(values: np.ndarray, share: float) -> float:
    known = np.sort(values[~np.isnan(values)])
    if not len(known):
        return math.nan
    place = share * (len(known) - 1)
    low, high = known[math.floor(place)], known[math.ceil(place)]
    share = place - math.floor(place)
    return float(low if low == high or share == 0 else high if share == 1 else low + share * (high - low))

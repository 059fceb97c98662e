"""The history of a run of dynsys control: one row an episode, and its CSV."""

import csv
import dataclasses
import io
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Row:
    """One episode. steps: environment steps up to its end; total: its return; ended: "terminated", "truncated" or "cut off".

    error: of the model's one-step forecasts along it, relative to "it stays where it is", before the model had seen it. fit_seconds: of
    the last fit. plan_median, plan_late: milliseconds a decision took, median and 95 %. kind: "random" or "planned".
    """

    episode: int
    steps: int
    length: int
    total: float
    ended: str
    error: float
    fit_seconds: float
    plan_median: float
    plan_late: float
    kind: str


def to_csv(rows: Sequence[Row]) -> str:
    """The rows as CSV, with a line of names."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in dataclasses.fields(Row)])
    for row in rows:
        writer.writerow(dataclasses.astuple(row))
    return text.getvalue()


def from_csv(text: str) -> tuple[Row, ...]:
    """What `to_csv` wrote. Raises ValueError or KeyError for another text."""
    types = {field.name: field.type for field in dataclasses.fields(Row)}
    return tuple(Row(**{name: types[name](value) for name, value in row.items()}) for row in csv.DictReader(io.StringIO(text)))  # pyright: ignore[reportCallIssue]

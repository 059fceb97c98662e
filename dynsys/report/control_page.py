"""The report of a control run as one HTML file that needs no network, and no scripts: text, tables and pictures.

    Controlled -> render_control -> str;    write_control_report = render + atomic write

The page forbids itself every connection and every script (Content-Security-Policy: default-src 'none'). Every picture is there twice,
for a wide and for a narrow screen, and the browser takes one.
"""

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

import dynsys
from dynsys.config import to_toml
from dynsys.control.experience import Episode
from dynsys.control.loop import Controlled
from dynsys.report import control_figures as figures, control_words as words
from dynsys.report.content import number
from dynsys.report.still import document, named, origin, pictures
from dynsys.report.tables import esc, table, tidy
from dynsys_datasets.files import replacing

OPEN = 30  # rows of a table that is shown unfolded
MOST = 1000  # rows of a table
PACKAGES = ("jax", "equinox", "numpy", "gymnasium", "mujoco")


def write_control_report(found: Controlled, path: str | os.PathLike[str], *, command: str = "") -> Path:
    """Write the report of a control run to `path` and return it; a reader sees the old or the whole new file. About 0.5 MB.

    command: the command line that made the run, shown if given. The folder is made if needed.
    Raises MissingExtra (extra 'report') if matplotlib is absent.
    """
    path = Path(path)
    text = render_control(found, command=command)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
    return path


def render_control(found: Controlled, *, command: str = "") -> str:
    """The page as text. Raises MissingExtra (extra 'report') if matplotlib is absent."""
    created = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    goal = f"{found.task.goal} · " if found.task.goal else ""
    spent = words.many(words.used(found), "environment step")
    meta = f"{goal}{spent} · seed {found.settings.seed} · {created} · dynsys {dynsys.__version__}"
    return document(words.title(found), meta, words.lead(found), words.warnings(found), _sections(found, command, created))


def _sections(found: Controlled, command: str, created: str) -> list[tuple[str, str, str]]:
    """Key, heading and body of every section; an empty body means that there is nothing to show."""
    drawn = _pictures(found)
    figure = {name: drawn.get(name, "") for name in words.alts(found)}
    return [
        ("returns", "Return", figure["returns"]),
        ("trajectories", "Trajectories", figure["trajectories"] + figure["field"]),
        ("error", "Model error", figure["error"]),
        ("timing", "Planning time", figure["timing"]),
        ("played", "Played episodes", _played(found)),
        ("history", "History", _history(found)),
        ("task", "Task", named(words.task_rows(found))),
        ("settings", "Settings and origin", _settings(found, command, created)),
    ]


def _pictures(found: Controlled) -> dict[str, str]:
    """Every picture that there is something for."""
    rows, played = found.history, found.played
    returns, decisions = (np.zeros(0), np.zeros(0)) if played is None else (played.returns, np.asarray(played.milliseconds, float))
    shown = () if played is None else words.chosen(played.episodes)
    low, high = words.limits_of(found) or (None, None)
    N, K = words.sizes_of(found) or (0, 0)
    names = words.names_of(N, found.task.angles)
    drawers: dict[str, Callable[[bool], Any]] = {
        "returns": lambda wide: figures.returns_figure(rows, returns, words.published(found), wide),
        "error": lambda wide: figures.error_figure(rows, wide),
        "timing": lambda wide: figures.timing_figure(rows, decisions, wide),
    }
    if shown:
        inputs = min(K, words.INPUTS)
        drawers["trajectories"] = lambda wide: figures.trajectories_figure(shown, names, low, high, wide, inputs=inputs)
        if N > words.COLUMNS:
            drawers["field"] = lambda wide: figures.field_figure(shown[0][1], wide)
    return pictures(drawers, words.alts(found), words.captions(found))


def _played(found: Controlled) -> str:
    episodes = () if found.played is None else found.played.episodes
    rows = [_cells(str(e.seed), number(e.total, 5), f"{e.steps:,}") + f"<td>{_ended(e)}</td>" for e in episodes]
    return _table(("seed", "return", "steps"), ("ended",), rows)


def _history(found: Controlled) -> str:
    """A row an episode, with the seed that it was reset with; or a row an iteration."""
    searched = figures.searches(found.history)
    seeds = [] if searched else [str(episode.seed) for episode in found.experience.episodes]
    rows = []
    for row in found.history:
        seed = [seeds[row.episode] if row.episode < len(seeds) else "–"] if not searched else []
        total = -row.total if searched else row.total
        numbers = (number(total, 5), f"{row.length:,}", f"{row.steps:,}", *map(_measured, (row.error, row.fit_seconds)))
        cells = _cells(str(row.episode), *seed, *numbers, *map(_measured, (row.plan_median, row.plan_late)))
        rows.append(cells + f"<td>{esc(row.kind)}</td><td>{esc(row.ended)}</td>")
    what = ("iteration", "cost") if searched else ("episode", "seed", "return")
    return _table((*what, "steps", "steps so far", "one-step error", "fit [s]", "decision [ms]", "95 % [ms]"), ("inputs", "ended"), rows)


def _table(numbers: tuple[str, ...], texts: tuple[str, ...], rows: list[str]) -> str:
    """A table, folded if it is long, cut if it is very long; empty without rows."""
    if not rows:
        return ""
    head = "".join(f'<th scope="col" class="number">{name}</th>' for name in numbers)
    head += "".join(f'<th scope="col">{name}</th>' for name in texts)
    body = table(head, [f"<tr>{row}</tr>" for row in rows[:MOST]])
    cut = f", the first {MOST:,}" if len(rows) > MOST else ""
    return body if len(rows) <= OPEN else f"<details><summary>{len(rows):,} rows{cut}</summary>{body}</details>"


def _cells(*texts: str) -> str:
    return "".join(f'<td class="number">{tidy(text)}</td>' for text in texts)


def _measured(value: float) -> str:
    """A number that need not be there: NaN stands for none."""
    return "–" if np.isnan(value) else number(value)


def _ended(episode: Episode) -> str:
    return "terminated" if episode.terminated else "truncated" if episode.truncated else "broken off"


def _settings(found: Controlled, command: str, created: str) -> str:
    """The command, the configuration and the versions."""
    config = f'<pre tabindex="0">{esc(to_toml(found.settings).strip())}</pre>'
    return f"{origin(command, created, PACKAGES)}\n{config}"

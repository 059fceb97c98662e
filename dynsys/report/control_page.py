"""The report of a control run as one HTML file that needs no network, and no scripts: text, tables and pictures.

    Controlled -> render_control -> str;    write_control_report = render + atomic write

The page forbids itself every connection and every script (Content-Security-Policy: default-src 'none'). Every picture is there twice,
for a wide and for a narrow screen, and the browser takes one.
"""

import base64
import os
import platform
from collections.abc import Callable
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

import dynsys
from dynsys.config import to_toml
from dynsys.control.experience import Episode
from dynsys.control.loop import Controlled
from dynsys.report import control_figures as figures, control_words as words
from dynsys.report.canvas import STYLE, encoded, few_colours, load_matplotlib
from dynsys.report.content import number
from dynsys.report.tables import esc, table, tidy
from dynsys_datasets.files import replacing

DPI = 200
OPEN = 30  # rows of a table that is shown unfolded
MOST = 1000  # rows of a table
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
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
    sections = [section for section in _sections(found, command, created) if section[2]]
    style = files("dynsys.report").joinpath("page.css").read_text(encoding="utf-8").replace("\r\n", "\n")
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="generator" content="dynsys">',
            f"<title>{esc(words.title(found))}</title>",
            f"<style>\n{style}</style>",
            "</head>",
            "<body>",
            _header(found, sections, created),
            "<main>",
            *(
                f'<section id="{key}" aria-labelledby="h-{key}">\n<h2 id="h-{key}">{head}</h2>\n{body}\n</section>'
                for key, head, body in sections
            ),
            "</main>",
            "<footer><p>Written by dynsys. This file is complete: it loads nothing from the network.</p></footer>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _header(found: Controlled, sections: list[tuple[str, str, str]], created: str) -> str:
    goal = f"{found.task.goal} · " if found.task.goal else ""
    meta = (
        f"{goal}{words.many(words.used(found), 'environment step')} · seed {found.settings.seed} · {created} · dynsys {dynsys.__version__}"
    )
    lead = "".join(f"<li>{esc(line)}</li>" for line in words.lead(found))
    notes = "".join(f'<div class="warning" role="note"><strong>Note.</strong> {esc(line)}</div>' for line in words.warnings(found))
    links = "".join(f'<a href="#{key}">{head}</a>' for key, head, _ in sections)
    head = f'<h1>{esc(words.title(found))}</h1>\n<p class="meta">{esc(meta)}</p>\n<ul class="plain lead">{lead}</ul>'
    return f'<header>\n{head}{notes}\n<nav aria-label="Sections">{links}</nav>\n</header>'


def _sections(found: Controlled, command: str, created: str) -> list[tuple[str, str, str]]:
    """Key, heading and body of every section; an empty body means that there is nothing to show."""
    drawn, alts, captions = _pictures(found), words.alts(found), words.captions(found)
    figure = {name: _figure(drawn[name], alts[name], captions[name]) if name in drawn else "" for name in alts}
    return [
        ("returns", "Return", figure["returns"]),
        ("trajectories", "Trajectories", figure["trajectories"] + figure["field"]),
        ("error", "Model error", figure["error"]),
        ("timing", "Planning time", figure["timing"]),
        ("played", "Played episodes", _played(found)),
        ("history", "History", _history(found)),
        ("task", "Task", _named(words.task_rows(found))),
        ("settings", "Settings and origin", _settings(found, command, created)),
    ]


def _pictures(found: Controlled) -> dict[str, tuple[bytes, bytes]]:
    """Every picture that there is something for, wide and narrow."""
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
    made = {}
    with load_matplotlib().rc_context(STYLE):
        for name, draw in drawers.items():
            pair = (draw(True), draw(False))
            if None not in pair:
                made[name] = tuple(few_colours(encoded(figure, "png", DPI)) for figure in pair)
    return made


def _figure(pair: tuple[bytes, bytes], alt: str, caption: str) -> str:
    wide, narrow = (f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}" for data in pair)
    picture = f'<picture><source media="(max-width: 640px)" srcset="{narrow}"><img alt="{esc(alt)}" src="{wide}"></picture>'
    return f"<figure>{picture}<figcaption>{esc(caption)}</figcaption></figure>"


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


def _named(rows: tuple[tuple[str, str], ...]) -> str:
    body = "".join(f'<tr><th scope="row">{esc(what)}</th><td>{esc(text)}</td></tr>' for what, text in rows)
    return f'<div class="wide"><table><tbody>{body}</tbody></table></div>'


def _cells(*texts: str) -> str:
    return "".join(f'<td class="number">{tidy(text)}</td>' for text in texts)


def _measured(value: float) -> str:
    """A number that need not be there: NaN stands for none."""
    return "–" if np.isnan(value) else number(value)


def _ended(episode: Episode) -> str:
    return "terminated" if episode.terminated else "truncated" if episode.truncated else "broken off"


def _settings(found: Controlled, command: str, created: str) -> str:
    """The command, the configuration and the versions."""
    about = [("dynsys", dynsys.__version__), ("Python", platform.python_version()), ("machine", platform.platform())]
    for name in PACKAGES:
        try:
            about.append((name, version(name)))
        except PackageNotFoundError:  # an environment need not need it
            continue
    intro = f"<p>{'The command that made this run; the' if command else 'The'} report is of {esc(created)}.</p>"
    shown = f'<pre class="command" tabindex="0">{esc(command)}</pre>' if command else ""
    versions = " · ".join(f"{esc(name)}&nbsp;{esc(text)}" for name, text in about)
    return f'{intro}\n{shown}\n<pre tabindex="0">{esc(to_toml(found.settings).strip())}</pre>\n<p class="meta">{versions}</p>'

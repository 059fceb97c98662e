"""The leaderboard of a benchmark as one HTML file that needs no network: tables in the file, figures drawn by one small script.

    Store -> render_leaderboard -> str;    write_leaderboard = render + atomic write

For every protocol: ranking, heat map systems x models, score against the Lyapunov exponent, attractors true and made, and what
failed. The page forbids itself every connection and runs only the two scripts whose SHA-256 it names. Without scripts the tables
are there, for each protocol's own score.
"""

import base64
import hashlib
import json
import os
from collections import Counter
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from dynsys.benchmark.protocol import load_protocol, protocol_names
from dynsys.benchmark.store import Row, Store
from dynsys.report.content import number
from dynsys.report.leaderboard_data import MEANING, Board, Pictures, boards, embedded
from dynsys.report.page import MARK_SCRIPTED
from dynsys.report.tables import esc
from dynsys_datasets.files import replacing

SHOWN_FAILURES = 50
COLUMNS = ("model", "median", "lower quartile", "upper quartile", "mean rank", "systems", "failed or diverged", "seconds")


def write_leaderboard(
    store: Store,
    path: str | os.PathLike[str],
    *,
    protocol: str | None = None,
    score: str | None = None,
    systems: tuple[str, ...] | None = None,
) -> Path:
    """Write the page of one protocol or of all, on all systems or some; returns `path`. The folder is made if needed.

    A reader sees the old or the whole new file. Raises DataError without rows, UnknownName for a score that no row has.
    """
    path = Path(path)
    text = render_leaderboard(store, protocol=protocol, score=score, systems=systems)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
    return path


def render_leaderboard(
    store: Store, *, protocol: str | None = None, score: str | None = None, systems: tuple[str, ...] | None = None
) -> str:
    """The page as text; arguments and errors as for `write_leaderboard`. Below 3 MB for 10 protocols of 135 systems x 10 models."""
    found = boards(store, protocol, score, systems)
    data = embedded(found, Pictures(store, found))
    text = json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c").replace("&", "\\u0026")
    drawing = _resource("leaderboard.js")
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        f"script-src {_hash(MARK_SCRIPTED)} {_hash(drawing)}"
    )
    links = "".join(f'<a href="#{_anchor(each)}">{esc(each.table.protocol)}</a>' for each in found)
    every = {name for each in found for name in each.table.systems}
    models = {name for each in found for name in each.models}
    counted = f"{_many(len(models), 'model')} · {_many(len(every), 'system')} · {_many(sum(len(each.rows) for each in found), 'row')}"
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="generator" content="dynsys">',
            "<title>Leaderboard</title>",
            f"<style>\n{_resource('page.css')}{_resource('leaderboard.css')}</style>",
            f"<script>{MARK_SCRIPTED}</script>",
            "</head>",
            "<body>",
            f'<header>\n<h1>Leaderboard</h1>\n<p class="meta">{counted} · written {written}</p>',
            '<p class="unscripted">The figures of this page, and the choice of score and systems, need scripts. The tables do not.</p>',
            f'<nav aria-label="Protocols">{links}</nav>\n</header>',
            "<main>",
            *(_section(place, each) for place, each in enumerate(found)),
            "</main>",
            "<footer><p>Written by dynsys. This file is complete: it loads nothing from the network.</p></footer>",
            f'<script type="application/json" id="board-data">{text}</script>',
            f"<script>{drawing}</script>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _section(place: int, board: Board) -> str:
    """One protocol: its tables as HTML, and the empty frames that the script fills."""
    name, score = board.table.protocol, board.table.score
    direction = "lower" if board.table.lower_is_better else "higher"
    lines = [
        f'<section class="protocol" id="{esc(_name(board))}" data-place="{place}" aria-labelledby="b{place}-head">',
        f'<h2 id="b{place}-head">{esc(name)}</h2>',
        f'<p class="meta">{esc(_about(name))}</p>',
        '<div class="controls live"></div>',
        f'<h3>Ranking by <span class="score">{esc(score)}</span></h3>',
        f'<div class="wide rank">{_ranking(board)}</div>',
        f'<p class="meta note"><span class="what">{MEANING.get(score, esc(score))}</span> (<span class="direction">{direction}</span> is '
        "better). Median and quartiles over systems of the median over seeds. A task that failed or has no finite score counts as the "
        "worst there is. Rank: mean over systems, 1 the best.</p>",
        f'<h3>Systems and models: <span class="score">{esc(score)}</span></h3>',
        '<div class="controls live order"></div>',
        f'<div class="heat" tabindex="0" role="region" aria-label="Scores of all systems and models">{_values(board)}</div>',
        '<div class="live legend-heat"></div>',
        '<h3>Score against the Lyapunov exponent</h3>\n<figure class="scatter live"></figure>',
        '<h3>Attractors</h3>\n<div class="controls live whose"></div>\n<div class="thumbs live"></div>',
        '<p class="unscripted meta">The last two figures are drawn by a script, which does not run here.</p>',
        f"<h3>About</h3>\n{_origin(board)}",
        "</section>",
    ]
    return "\n".join(lines)


def _ranking(board: Board) -> str:
    head = "".join(f'<th scope="col"{"" if k == 0 else " class=number"}>{name}</th>' for k, name in enumerate(COLUMNS))
    rows = []
    for place, seconds in zip(board.table.places, board.seconds, strict=True):
        numbers = [number(v) for v in (place.median, place.lower, place.upper, place.rank)]
        numbers += [str(place.systems), f"{100 * place.failed:.0f} %", number(seconds)]
        rows.append(f'<tr><th scope="row">{esc(place.model)}</th>' + "".join(f'<td class="number">{v}</td>' for v in numbers) + "</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _values(board: Board) -> str:
    head = "".join(f'<th scope="col"><span>{esc(model)}</span></th>' for model in board.models)
    values = board.scores[board.table.score]
    rows = []
    for j, system in enumerate(board.table.systems):
        cells = []
        for i in range(len(board.models)):
            failed = board.trouble.get((i, j), (0, 0, ""))[0]
            words = "–" if not board.counts[i, j] else "failed" if failed == board.counts[i, j] else number(values[i, j])
            cells.append(f"<td>{words}</td>")
        rows.append(f'<tr><th scope="row">{esc(system)}</th>{"".join(cells)}</tr>')
    return f'<table><thead><tr><th scope="col">system</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _origin(board: Board) -> str:
    """The protocol's definition, versions and machines, and what failed."""
    name, rows = board.table.protocol, board.rows
    lines = [("rows", f"{len(rows)}: " + ", ".join(f"{count} {status}" for status, count in Counter(row.status for row in rows).items()))]
    lines.append(("seeds", f"up to {board.table.seeds} a model"))
    if name in protocol_names():
        protocol = load_protocol(name)
        known = protocol.data
        lines.append(("task", f"{protocol.kind}, ranked by {protocol.rank}; systems: {protocol.systems}"))
        train, test = f"{known.train:,} points to learn from", f"{known.test:,} to be scored on"
        rest = f"{known.per_period} a period; noise {number(known.noise)}; observed: {known.observe}; angles: {known.angles}"
        lines += [("data", f"{train}, {test}, {rest}"), ("source", protocol.source)]
    used = Counter(f"{key} {value}" for row in rows for key, value in row.versions)
    lines.append(
        ("versions and machine", ", ".join(f"{what} ({count} rows)" if count < len(rows) else what for what, count in used.items()))
    )
    body = "".join(f'<tr><th scope="row">{key}</th><td>{esc(text)}</td></tr>' for key, text in lines if text)
    return f'<div class="wide"><table><tbody>{body}</tbody></table></div>{_failures(rows)}'


def _failures(rows: tuple[Row, ...]) -> str:
    bad = [row for row in rows if row.status != "success"]
    if not bad:
        return "<p>No task failed, and no free run diverged.</p>"
    bad.sort(key=lambda row: (row.status == "diverged", row.key))
    head = "".join(f'<th scope="col">{name}</th>' for name in ("model", "system", "seed", "status", "reason"))
    shown = [(row.model, row.system, row.seed, row.status, row.reason[:500]) for row in bad[:SHOWN_FAILURES]]
    body = "".join("<tr>" + "".join(f"<td>{esc(value)}</td>" for value in line) + "</tr>" for line in shown)
    more = f", the first {SHOWN_FAILURES}" if len(bad) > SHOWN_FAILURES else ""
    summary = f"<summary>{_many(len(bad), 'task')} failed or diverged{more}</summary>"
    return f'<details>{summary}<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></details>'


def _about(name: str) -> str:
    return load_protocol(name).about if name in protocol_names() else "A user's own protocol; its definition is not part of the package."


def _name(board: Board) -> str:
    """The section's id. White space may not stand in one."""
    return "protocol/" + "".join("_" if letter.isspace() else letter for letter in board.table.protocol)


def _anchor(board: Board) -> str:
    return quote(_name(board), safe="/")


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode('utf-8')).digest()).decode('ascii')}'"


def _resource(name: str) -> str:
    return files("dynsys.report").joinpath(name).read_text(encoding="utf-8").replace("\r\n", "\n")

"""The report as one HTML file that needs no network: text, tables, figures that turn, and a still picture behind each.

    ReportContent -> render -> str;    write_report = render + atomic write

The page forbids itself every connection (Content-Security-Policy: default-src 'none'), and runs only the scripts whose
SHA-256 it names, so that no text that came with the data can run, whatever it holds.
"""

import base64
import hashlib
import json
import os
from importlib.resources import files
from pathlib import Path

from dynsys.errors import require
from dynsys.report import figures, interactive
from dynsys.report.content import ReportContent, number
from dynsys.report.koopman_section import koopman_section
from dynsys.report.structure_section import structure_section
from dynsys.report.structure_view import Naming
from dynsys.report.tables import choices, duration, esc, event_table, score_table, settings
from dynsys.report.views import PANELS, project
from dynsys_datasets.files import replacing

MARK_SCRIPTED = "document.documentElement.classList.add('scripted');"


def write_report(content: ReportContent, path: str | os.PathLike[str]) -> Path:
    """Write the report to `path` and return it; a reader sees the old or the whole new file. About 6 MB, most of it plotly.js.

    The folder is made if needed. Raises MissingExtra (extra 'report') if plotly or matplotlib is absent.
    """
    path = Path(path)
    text = render(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
    return path


def render(content: ReportContent) -> str:
    """The page as text. Raises MissingExtra (extra 'report') if plotly or matplotlib is absent."""
    plotly = require("plotly.offline", extra="report", who="dynsys.report").get_plotlyjs().replace("\r\n", "\n").replace("\r", "\n")
    stills = figures.pictures(content, small=True)
    plots = {
        "attractor": interactive.attractor(content),
        "overlay": interactive.overlay(content),
        "spectra": interactive.spectra(content),
        "histograms": interactive.histograms(content),
        "history": interactive.training(content),
    }
    plots = {name: plot for name, plot in plots.items() if plot is not None}
    drawing = _resource("page.js")
    policy = (
        "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        f"script-src 'unsafe-eval' {' '.join(_hash(script) for script in (MARK_SCRIPTED, plotly, drawing))}"
    )
    sections = [section for section in _sections(content, stills, set(plots)) if section[2]]
    specs = {name: {"height": p.height, "webgl": p.webgl, "traces": p.traces, "layout": p.layout} for name, p in plots.items()}
    data = json.dumps(specs, allow_nan=False, default=float).replace("<", "\\u003c").replace("&", "\\u0026")
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="generator" content="dynsys">',
            f"<title>{esc(content.title)}</title>",
            f"<style>\n{_resource('page.css')}</style>",
            f"<script>{MARK_SCRIPTED}</script>",
            "</head>",
            "<body>",
            _header(content, sections),
            "<main>",
            *(
                f'<section id="{key}" aria-labelledby="h-{key}">\n<h2 id="h-{key}">{head}</h2>\n{body}\n</section>'
                for key, head, body in sections
            ),
            "</main>",
            "<footer><p>Written by dynsys. This file is complete: it loads nothing from the network.</p></footer>",
            f'<script type="application/json" id="figures">{data}</script>',
            f"<script>{plotly}</script>",
            f"<script>{drawing}</script>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _header(content: ReportContent, sections: list[tuple[str, str, str]]) -> str:
    rows, columns = content.true.shape
    what = f"{columns} variable{'s' if columns > 1 else ''}" if columns > 3 else ", ".join(content.names)
    took = f" · {duration(content.seconds)}" if content.seconds is not None else ""
    meta = f"{what} · {content.part} part of {rows:,} points every {number(content.dt)} {content.time_unit} · {content.created}{took}"
    links = "".join(f'<a href="#{key}">{head}</a>' for key, head, _ in sections)
    lead = "".join(f"<li>{esc(line)}</li>" for line in content.summary)
    warnings = "".join(f'<div class="warning" role="note"><strong>Note.</strong> {esc(line)}</div>' for line in content.warnings)
    lead = f'<ul class="plain lead">{lead}</ul>' if lead else ""
    head = f'<h1>{esc(content.title)}</h1>\n<p class="meta">{esc(meta)}</p>'
    return f'<header>\n{head}\n{lead}{warnings}\n<nav aria-label="Sections">{links}</nav>\n</header>'


def _sections(content: ReportContent, stills: dict[str, bytes], plots: set[str]) -> list[tuple[str, str, str]]:
    """Key, heading and body of every section, in reading order; an empty body means that there is nothing to show."""
    names = ", ".join(content.names[:PANELS])
    few = f" The first {PANELS} of {len(content.names)} variables are drawn." if len(content.names) > PANELS else ""
    captions = _captions(content, few)
    alts = {
        "attractor": f"Attractor of the data and of the reconstruction: {names}",
        "overlay": f"Data and free run over time from the same start: {names}",
        "spectra": f"Power spectra of data and free run: {names}",
        "histograms": "Histograms of events in data and free run",
        "history": "Loss, forcing strength and validation score over the updates, for all seeds",
    }
    figure = {name: _figure(name, alts[name], stills[name], captions[name]) if name in plots else "" for name in alts}
    return [
        ("attractor", "Attractor", figure["attractor"]),
        ("series", "Time series", figure["overlay"]),
        ("scores", "Scores", score_table(content)),
        ("spectra", "Power spectra", figure["spectra"]),
        ("events", "Events", figure["histograms"] + event_table(content.histograms)),
        ("koopman", "Koopman spectrum", "" if content.koopman is None else koopman_section(content.koopman)),
        ("structure", "Structure", _structure(content)),
        ("training", "Training", figure["history"]),
        ("choices", "What was chosen", choices(content)),
        ("settings", "Settings and origin", settings(content)),
    ]


def _structure(content: ReportContent) -> str:
    """What was read off the model; empty if it was not asked for."""
    if content.structure is None:
        return ""
    return structure_section(content.structure, Naming(content.names, content.units, content.time_unit, content.delay), content.basins)


def _captions(content: ReportContent, few: str) -> dict[str, str]:
    """The caption of every figure, as HTML; `few` says how many variables are drawn."""
    key = '<span class="key true"></span>data &nbsp; <span class="key made"></span>reconstruction (a free run of the model). '
    view = project(content)
    turn = '<span class="live">Drag to turn both together, scroll to zoom. </span>' if len(view.labels) == 3 else ""
    length = f"{number(len(content.overlay_true) * content.dt)} {content.time_unit}"
    note = f" {content.spectrum.note}" if content.spectrum is not None and content.spectrum.note else ""
    seeds = f"{len(content.histories)} seed{'s' if len(content.histories) != 1 else ''}"
    return {
        "attractor": key + turn + esc(" ".join(view.notes)),
        "overlay": esc(
            f"Both start from the same state; then the model runs freely for {length}. Chaotic orbits part however good the model is; "
            "what should stay alike is their look. Below: the distance between both, root mean square over the variables, in standard "
            f"deviations of the data; dashed: √2, the level of two unrelated states.{few}"
        ),
        "spectra": f"{key}Both axes are logarithmic.{esc(note)}{few}",
        "histograms": f"{key}Both have the same bins, and each its area set to one.",
        "history": f"{seeds}; coloured: the chosen one. Dots: the model that was kept of each. The loss depends on the forcing strength, "
        "so it does not rank models; the validation score of the free run does.",
    }


def _figure(name: str, alt: str, still: bytes, caption: str) -> str:
    """A live figure with the still picture that stands in for it on paper, without scripts and without WebGL."""
    label = f'role="img" aria-label="{esc(alt)}"'
    image = f'<img alt="{esc(alt)}" src="data:image/png;base64,{base64.b64encode(still).decode("ascii")}">'
    return f'<figure><div class="plot" id="plot-{name}" {label}></div>{image}<figcaption>{caption}</figcaption></figure>'


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode('utf-8')).digest()).decode('ascii')}'"


def _resource(name: str) -> str:
    return files("dynsys.report").joinpath(name).read_text(encoding="utf-8").replace("\r\n", "\n")

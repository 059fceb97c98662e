"""A page of text, tables and pictures that needs no network and no scripts, from its parts.

    sections -> document -> str;    figures, wide and narrow -> pictures -> <figure>

The page forbids itself every connection and every script (Content-Security-Policy: default-src 'none'). Every picture is there twice,
for a wide and for a narrow screen, and the browser takes one.
"""

import base64
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import Any

import dynsys
from dynsys.report.canvas import STYLE, encoded, few_colours, load_matplotlib
from dynsys.report.tables import esc

DPI = 200
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

Section = tuple[str, str, str]  # key, heading, body


def document(title: str, meta: str, lead: Sequence[str], notes: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole page. title, meta, lead and notes are plain text; headings and bodies of sections are HTML; empty sections are left out."""
    sections = [section for section in sections if section[2]]
    style = files("dynsys.report").joinpath("page.css").read_text(encoding="utf-8").replace("\r\n", "\n")
    said = "".join(f"<li>{esc(line)}</li>" for line in lead)
    warned = "".join(f'<div class="warning" role="note"><strong>Note.</strong> {esc(line)}</div>' for line in notes)
    links = "".join(f'<a href="#{key}">{head}</a>' for key, head, _ in sections)
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="generator" content="dynsys">',
            f"<title>{esc(title)}</title>",
            f"<style>\n{style}</style>",
            "</head>",
            "<body>",
            f'<header>\n<h1>{esc(title)}</h1>\n<p class="meta">{esc(meta)}</p>\n<ul class="plain lead">{said}</ul>{warned}',
            f'<nav aria-label="Sections">{links}</nav>\n</header>',
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


def pictures(drawers: Mapping[str, Callable[[bool], Any]], alts: Mapping[str, str], captions: Mapping[str, str]) -> dict[str, str]:
    """A <figure> for each drawer, which makes a matplotlib figure, wide or narrow, or None; "" for None.

    Raises MissingExtra (extra 'report') if matplotlib is absent.
    """
    made = {}
    with load_matplotlib().rc_context(STYLE):
        for name, draw in drawers.items():
            drawn = (draw(True), draw(False))
            made[name] = "" if None in drawn else _figure(_data(drawn[0]), _data(drawn[1]), alts[name], captions[name])
    return made


def named(rows: Sequence[tuple[str, str]]) -> str:
    """A table of (what, text), text being plain."""
    body = "".join(f'<tr><th scope="row">{esc(what)}</th><td>{esc(text)}</td></tr>' for what, text in rows)
    return f'<div class="wide"><table><tbody>{body}</tbody></table></div>'


def origin(command: str, created: str, packages: Sequence[str]) -> str:
    """The command and the versions, as HTML."""
    about = [("dynsys", dynsys.__version__), ("Python", platform.python_version()), ("machine", platform.platform())]
    for name in packages:
        try:
            about.append((name, version(name)))
        except PackageNotFoundError:  # an environment need not need it
            continue
    intro = f"<p>{'The command that made this; the' if command else 'The'} report is of {esc(created)}.</p>"
    shown = f'<pre class="command" tabindex="0">{esc(command)}</pre>' if command else ""
    return f'{intro}\n{shown}\n<p class="meta">{" · ".join(f"{esc(name)}&nbsp;{esc(text)}" for name, text in about)}</p>'


def _data(figure: Any) -> str:
    return f"data:image/png;base64,{base64.b64encode(few_colours(encoded(figure, 'png', DPI))).decode('ascii')}"


def _figure(wide: str, narrow: str, alt: str, caption: str) -> str:
    picture = f'<picture><source media="(max-width: 640px)" srcset="{narrow}"><img alt="{esc(alt)}" src="{wide}"></picture>'
    return f"<figure>{picture}<figcaption>{esc(caption)}</figcaption></figure>"

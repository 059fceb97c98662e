"""The report of a certificate as one HTML file that needs no network, and no scripts.

Proof, ClosedLoop, V -> view_of -> render_certificate -> str;    write_certificate_report = all of it + atomic write
"""

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import dynsys
from dynsys.report import certificate_figures as figures, certificate_words as words
from dynsys.report.certificate_view import CertificateView, view_of
from dynsys.report.still import document, named, origin, pictures
from dynsys.report.tables import esc, table
from dynsys.verify.certify import Proof
from dynsys.verify.loop import ClosedLoop
from dynsys.verify.lyapunov import AbstractLyapunov
from dynsys_datasets.files import replacing

PACKAGES = ("jax", "equinox", "numpy", "scipy")


def write_certificate_report(
    proof: Proof,
    loop: ClosedLoop,
    V: AbstractLyapunov,
    path: str | os.PathLike[str],
    *,
    names: Sequence[str] | None = None,
    title: str = "",
    command: str = "",
    baseline: tuple[Proof, AbstractLyapunov] | None = None,
    seconds: float | None = None,
) -> Path:
    """Write the report of a proof, whatever its outcome, to `path` and return it; a reader sees the old or the whole new file.

    names (n): of the states. title: what is certified. command: the command line that made it. baseline: the plain quadratic that is shown
    beside, its proof and V. seconds: of the whole run, training included. It simulates some 20,000 trajectories.
    Raises InvalidValue for names that do not fit, MissingExtra (extra 'report') without matplotlib.
    """
    path = Path(path)
    view = view_of(proof, loop, V, names=names, baseline=baseline)
    text = render_certificate(view, title=title, command=command, seconds=seconds)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
    return path


def render_certificate(view: CertificateView, *, title: str = "", command: str = "", seconds: float | None = None) -> str:
    """The page as text. Raises MissingExtra (extra 'report') if matplotlib is absent."""
    created = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    drawers = {
        "region": lambda wide: figures.region_figure(view, wide),
        "boxes": lambda wide: figures.boxes_figure(view, wide),
        "decrease": lambda wide: figures.decrease_figure(view, wide),
    }
    drawn = pictures(drawers, words.alts(view), words.captions(view))
    assumed = "".join(f"<li>{esc(line)}</li>" for line in view.proof.assumptions)
    sections = [
        ("region", "Certified set and region of attraction", drawn["region"]),
        ("decrease", "Decrease", drawn["decrease"]),
        ("boxes", "Boxes of the proof", drawn["boxes"]),
        ("claim", "Claim", named(words.claim_rows(view))),
        ("loop", "Plant and controller", named(words.loop_rows(view))),
        ("assumptions", "Assumptions", f'<ul class="plain">{assumed}</ul>' if assumed else ""),
        ("proof", "Proof", _proof(view, seconds)),
        ("simulation", "Simulation and attack", named(words.simulation_rows(view))),
        ("origin", "Origin", origin(command, created, PACKAGES)),
    ]
    meta = f"{created} · dynsys {dynsys.__version__}"
    return document(words.title(view, title), meta, words.lead(view), words.notes(view), sections)


def _proof(view: CertificateView, seconds: float | None) -> str:
    heads = ("", "this proof", *(["plain quadratic"] if view.plain is not None else []))
    head = "".join(f'<th scope="col">{esc(text)}</th>' for text in heads)
    rows = words.proof_rows(view, seconds)
    body = [f'<tr><th scope="row">{esc(what)}</th>{"".join(f"<td>{esc(text)}</td>" for text in cells)}</tr>' for what, *cells in rows]
    return table(head, body)

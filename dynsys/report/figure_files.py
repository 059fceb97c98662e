"""`dynsys figures`: every picture that a run folder has something for, as files for a paper.

model.h5 + structure.json   regions, transitions, code, cycles, eigenvalues, basins
a recording beside it       attractor, overlay, spectra: the model's free run against the data; of a Koopman model, koopman_*
scan.json                   knee
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dynsys.analysis.structure import Structure
from dynsys.errors import InvalidValue
from dynsys.reconstruct import Reconstruction
from dynsys.reconstruct.scan import Scan, allowance
from dynsys.report.canvas import FORMATS, STYLE, encoded, load_matplotlib, write
from dynsys.report.content import BasinMap, ReportContent
from dynsys.report.figures import pictures
from dynsys.report.koopman_pictures import koopman_pictures
from dynsys.report.koopman_view import KoopmanView
from dynsys.report.structure_maps import knee_figure
from dynsys.report.structure_pictures import missing, structure_pictures
from dynsys.report.structure_view import Naming

DPI = 200
OF_DATA = ("attractor", "overlay", "spectra")


def write_figures(
    found: Structure,
    naming: Naming,
    folder: str | os.PathLike[str],
    format: str = "pdf",
    *,
    content: ReportContent | None = None,
    basins: BasinMap | None = None,
    koopman: KoopmanView | None = None,
) -> tuple[tuple[Path, ...], tuple[tuple[str, str], ...]]:
    """Write all pictures of a structure, with `content` those of the report, with `basins` and `koopman` theirs.

    Returns (paths, (picture, why it is not there)).

    `format` is pdf, png (200 dpi) or svg. Pictures of the report that would have the name of one of the structure's keep their own. The
    folder is made if needed. Raises InvalidValue for another format, MissingExtra (extra 'report') without matplotlib.
    """
    folder = _folder(folder, format)
    made = structure_pictures(found, naming, format, basins=basins, dpi=DPI)
    absent = missing(found)
    if koopman is not None:
        made |= koopman_pictures(koopman, format, dpi=DPI)
        absent += koopman.missing
    if content is None:
        absent += tuple((name, "it compares with data: name the recording after the run folder") for name in OF_DATA)
    else:
        made = pictures(content, format, dpi=DPI) | made
    return tuple(write(folder / f"{name}.{format}", data) for name, data in made.items()), absent


def write_knee(scan: Scan, folder: str | os.PathLike[str], format: str = "pdf") -> Path:
    """Write the picture of a scan over P; returns its path. Errors as `write_figures`."""
    folder, rows = _folder(folder, format), scan.rows
    about = {"allowance": allowance(rows), "regions": [row.regions for row in rows]}
    scores = [row.scores for row in rows]
    return write_picture(folder / f"knee.{format}", knee_figure, [row.n_relu for row in rows], scores, scan.knee, **about)


def write_picture(path: str | os.PathLike[str], draw: Callable[..., Any], *given: Any, **settings: Any) -> Path:
    """Write the figure that `draw(*given, **settings)` makes, such as `branches_figure`; the suffix of the path chooses the format.

    Raises InvalidValue for a suffix other than .pdf, .png and .svg, MissingExtra without matplotlib.
    """
    path = Path(path)
    if path.suffix[1:] not in FORMATS:
        raise InvalidValue(f"write_picture: the file must end in .png, .pdf or .svg, got {path.name!r}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with load_matplotlib().rc_context(STYLE):
        return write(path, encoded(draw(*given, **settings), path.suffix[1:], DPI))


def naming_of(found: Reconstruction) -> Naming:
    """Names and units of what a reconstruction observes."""
    units = found.units if isinstance(found.units, str) or found.units is None else ", ".join(found.units)
    preparation = found.preparation
    delay = preparation.delay if preparation.dimension > 1 else None
    return Naming(preparation.names, units, preparation.time_unit or "units of time", delay)


def _folder(folder: str | os.PathLike[str], format: str) -> Path:
    if format not in FORMATS:
        raise InvalidValue(f"write_figures: format must be one of {', '.join(FORMATS)}, got {format!r}.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder

"""What all still pictures share: colours, style, an empty figure, and the way into a file.

Colours are Okabe and Ito's, which all readers can tell apart (jfly.uni-koeln.de/color, 2008).
"""

import io
from pathlib import Path
from typing import Any

from dynsys.errors import require
from dynsys_datasets.files import replacing

BLUE, ORANGE, INK, GREY = "#0072B2", "#D55E00", "#22262b", "#9aa3ad"
FORMATS = ("png", "pdf", "svg")
STYLE = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "grid.color": "#e3e6ea",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "text.color": INK,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "agg.path.chunksize": 10_000,
    "path.simplify": True,
}


def load_matplotlib() -> Any:
    """The package. Raises MissingExtra (extra 'report') if it is absent."""
    return require("matplotlib", extra="report", who="dynsys.report")


def canvas(width: float, height: float) -> Any:
    """An empty figure of so many inches that needs no screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def margins(figure: Any, *, top: float, gap: float) -> None:
    """Fixed margins: `top` in inches, `gap` between rows in heights of a panel. Laying out by the text takes twice as long."""
    width, height = figure.get_size_inches()
    figure.subplots_adjust(left=0.8 / width, right=1 - 0.15 / width, bottom=0.5 / height, top=1 - top / height, hspace=gap, wspace=0.25)


def encoded(figure: Any, format: str, dpi: int) -> bytes:
    """The figure as the bytes of a png, pdf or svg file."""
    stream = io.BytesIO()
    meta = {"Creator": "dynsys"} if format != "png" else {"Software": "dynsys"}
    figure.savefig(stream, format=format, dpi=dpi, metadata=meta)
    return stream.getvalue()


def few_colours(png: bytes) -> bytes:
    """The same picture in 128 colours, about a third of the size; Pillow comes with matplotlib."""
    from PIL import Image

    stream = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(128).save(stream, format="png", optimize=True)
    return stream.getvalue()


def write(path: Path, data: bytes) -> Path:
    """Write a file so that a reader sees the old or the whole new one: temporary file, then rename."""
    with replacing(path) as part:
        part.write_bytes(data)
    return path


def safe(text: str) -> str:
    """A user's text for matplotlib, which would read `$…$` as a formula."""
    return text.replace("\\", "\\\\").replace("$", r"\$") if "$" in text else text

"""Still pictures: all there, in the format asked for, with both curves in them, whatever the names are."""

import io
import struct

import numpy as np
import pytest

from dynsys.errors import InvalidValue
from dynsys.report import hero, static_figures
from dynsys.report.figures import pictures

from . import report_cases as cases

MAGIC = {"png": b"\x89PNG\r\n", "pdf": b"%PDF", "svg": b"<?xml"}
ALL = ["attractor", "histograms", "history", "overlay", "spectra"]


def share(png: bytes, color: str) -> float:
    """Share of the picture's points that lean to blue or to orange, thin and faint lines included."""
    from matplotlib.image import imread

    red, _, blue = np.moveaxis(imread(io.BytesIO(png))[..., :3], -1, 0)
    return float(np.mean((blue - red if color == "blue" else red - blue) > 0.15))


@pytest.mark.parametrize("format", MAGIC)
def test_files_are_written_in_their_format(format, tmp_path):
    written = static_figures(cases.content(2), tmp_path / "figures", format)
    assert sorted(path.name for path in written) == [f"{name}.{format}" for name in ALL]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [f"{name}.{format}" for name in ALL]
    for path in written:
        assert path.read_bytes().startswith(MAGIC[format])


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_pictures_show_truth_and_reconstruction(n):
    made = pictures(cases.content(n))
    assert sorted(made) == ALL
    for name, png in made.items():
        assert share(png, "orange") > 5e-4, (
            name
        )  # a curve across half of a picture 500 points high is 1e-3, its legend or heading less than 4e-4
        assert name == "history" or share(png, "blue") > 4e-3, name


def test_a_dead_free_run_is_not_drawn():
    alive, dead = (
        pictures(cases.content(3, spectrum=None, histories=(), histograms=(), **changes))
        for changes in ({}, {"made": np.full((50, 3), np.nan)})
    )
    assert share(dead["attractor"], "orange") < 1.5e-3 < 4e-3 < share(alive["attractor"], "orange")


def test_what_is_not_there_is_left_out():
    assert sorted(pictures(cases.content(3, spectrum=None, histories=(), histograms=()))) == ["attractor", "overlay"]


def test_names_with_dollars_are_no_formulas():
    pictures(cases.content(2, names=("$\\undefined{", "$"), units="$^", time_unit="\\$"))


@pytest.mark.parametrize("n", [2, 3])
def test_hero_is_wide_and_shows_both(n, tmp_path):
    path = hero(cases.content(n, title="5 $ and $\\oops"), tmp_path / "new" / "hero.png")
    data = path.read_bytes()
    assert struct.unpack(">II", data[16:24]) == (1600, 900)
    assert share(data, "blue") > 2e-3
    assert share(data, "orange") > 2e-3


def test_unknown_formats_are_refused(tmp_path):
    with pytest.raises(InvalidValue, match="format must be one of png, pdf, svg, got 'gif'"):
        static_figures(cases.content(2), tmp_path, "gif")
    with pytest.raises(InvalidValue, match=r"must end in .png, .pdf or .svg, got 'hero.gif'"):
        hero(cases.content(2), tmp_path / "hero.gif")

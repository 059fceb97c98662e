"""The Koopman section of a report and its pictures: what they compute is known for rotations, tones and maps in closed form."""

import dataclasses
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import dynsys
from dynsys.analysis.koopman_file import StoredSpectrum, read_spectrum, to_json, write_spectrum
from dynsys.analysis.koopman_spectrum import KoopmanSpectrum
from dynsys.errors import DataError, InvalidValue
from dynsys.models.autoregressive import VAR
from dynsys.models.koopman.dmd import HankelDMD
from dynsys.models.koopman.edmd import EDMD
from dynsys.report import koopman_figures, render
from dynsys.report.build import write_report
from dynsys.report.canvas import STYLE, load_matplotlib
from dynsys.report.koopman_pictures import NAMES, captions, drawers, koopman_pictures
from dynsys.report.koopman_section import cells, koopman_section, residual
from dynsys.report.koopman_view import koopman_view, leading, rows_of, untested, verdict
from dynsys_datasets.series import TimeSeries

from . import report_cases as cases
from .fit_cases import circle
from .koopman_cases import linear_runs


def fitted(series, kind, **options):
    """A reconstruction whose model is one of a Koopman class, fitted to the prepared series."""
    found = dynsys.fit(series, model="mean", set=["preparation.embedding='none'"], progress=False)
    model = kind.from_series([np.asarray(x) for x in found.preparation.forward(series).trajectories], **options)
    return dataclasses.replace(found, model=model, last=model, parts=(series,))


def view_of(found, **about):
    return koopman_view(found, found.preparation.forward(found.parts[0]), words="the test part", **about)


@pytest.fixture(scope="module")
def linear():
    """Eigenvalues 0.99, 0.9, 0.95 exp(+-0.3 i) every 0.1 s; functions 1 and x, so that the operator is exact on them."""
    runs = linear_runs(count=8, steps=60)[0]
    return fitted(TimeSeries(runs, dt=0.1, names=list("abcd"), time_unit="s", units="mV"), EDMD, degree=1, ridge=0.0)


@pytest.fixture(scope="module")
def turning():
    """A rotation by 0.2 every 0.1 s, 314.16 points being ten turns."""
    return fitted(circle(1257), EDMD, degree=1, ridge=0.0)


@pytest.fixture(scope="module")
def logistic():
    x = [0.3]
    for _ in range(1499):
        x.append(4 * x[-1] * (1 - x[-1]))
    return fitted(TimeSeries(np.array(x)[:, None], dt=1.0, names=["p"]), EDMD, degree=4, ridge=0.0)


# numbers


def test_the_table_of_a_linear_system_has_its_rates_and_frequencies(linear):
    view = view_of(linear, pictures=False)
    rows = {row[1]: row for row in (cells(view.spectrum, int(i), view.limit) for i in rows_of(view.spectrum))}
    # with 1 among the functions; printed with 4 digits; rates are log|lambda| / 0.1 s, the frequency is 0.3 / (2 pi 0.1 s)
    assert set(rows) == {"1", "0.99", "0.9", "0.9076 ± 0.2807i"}
    assert rows["0.99"][4:6] == (f"{np.log(0.99) / 0.1:.3g}".replace("-", "−"), "–")
    assert rows["0.9"][4:6] == (f"{np.log(0.9) / 0.1:.3g}".replace("-", "−"), "–")
    assert rows["0.9076 ± 0.2807i"][4:6] == (f"{np.log(0.95) / 0.1:.3g}".replace("-", "−"), f"{0.3 / (2 * np.pi * 0.1):.4g}")
    assert {row[-1] for row in rows.values()} == {"trusted"}
    section = koopman_section(view)
    for words in ("0.9076 ± 0.2807i", "growth rate [1/s]", "frequency [1/s]", "5 of 5 eigenpairs", "tested on the test part"):
        assert words in section
    assert "spurious:" not in section


def test_spurious_eigenvalues_are_called_so(logistic):
    view = view_of(logistic)
    # r = 4 mixes: no square-integrable eigenfunction but the constant, so every other eigenvalue of the regression is spurious
    words = [verdict(view.spectrum, int(i), view.limit) for i in rows_of(view.spectrum)]
    assert words == ["trusted"] + ["spurious"] * (len(words) - 1)
    assert len(words) > 1
    section = koopman_section(view)
    assert "are spurious: the regression has them, but their functions are no eigenfunctions of the system." in section
    assert section.count('<td class="name">spurious</td>') == len(words) - 1
    assert ": spurious: over one step its function misses lambda times itself by" in section
    assert dict(view.missing)["koopman_eigenfunctions"] == "all eigenvalues but that of the constants are spurious"
    assert "No eigenfunctions: all eigenvalues but" in section
    assert NAMES[3] not in drawers(view)


def test_verdicts_are_the_words_of_the_sentences():
    # limit 0.05 +- 2 errors; 5 limits; a function that vanishes
    residuals, errors = np.array([0.01, 0.045, 0.07, 0.2, 0.3, np.inf]), np.array([0.001, 0.01, 0.005, 0.01, 0.01, np.nan])
    values = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], complex)
    found = KoopmanSpectrum(values, residuals, errors, np.zeros(6), np.eye(6, dtype=complex), None, 100)
    told = [verdict(found, i, 0.05) for i in range(6)]
    assert told == ["trusted", "undecided", "doubtful", "doubtful", "spurious", "no eigenfunction"]
    for i, word in enumerate(told):
        sentence = found.taken(np.array([i])).words(0.05)[1]
        assert f": {word}" in sentence
    blind = dataclasses.replace(found, count=0)
    assert verdict(blind, 0, 0.05) == "not tested"
    assert residual(blind, 0) == "–"
    assert residual(found, 0) == "0.01 ± 0.001"
    assert residual(dataclasses.replace(found, floors=np.full(6, 0.02)), 0) == "< 0.02"


def test_eigenvalues_without_data(linear):
    found = untested(linear.model, 0.1)
    assert_allclose(np.abs(found.values), [1.0, 0.99, 0.95, 0.95, 0.9], atol=1e-9)
    assert found.count == 0
    assert cells(found, 1, 0.05)[3:] == ("–", "−0.101", "–", "–", "not tested")


# what is drawn


def test_the_pseudospectrum_of_a_rotation_is_the_distance_to_its_spectrum(turning):
    view = view_of(turning)
    levels = view.levels
    # the operator is unitary on 1, x, y over whole turns, so res is the distance; 1,256 pairs are 40 turns to 1e-3 of one
    wanted = np.array([1.0, np.exp(0.2j), np.exp(-0.2j)])
    grid = levels.axis[None, :] + 1j * levels.axis[:, None]
    distance = np.abs(grid[..., None] - wanted).min(axis=-1)
    assert_allclose(levels.res, distance, atol=2e-3)
    assert (levels.rank, levels.size) == (3, 3)
    with load_matplotlib().rc_context(STYLE):
        axes = koopman_figures.pseudospectrum_figure(view, levels).axes[0]
    dots = np.concatenate([np.asarray(one.get_offsets()) for one in axes.collections[-2:]])
    assert_allclose(np.sort(dots[:, 1]), [-np.sin(0.2), 0, np.sin(0.2)], atol=1e-9)


def test_eigenfunctions_over_a_plane_are_those_of_the_rotation(turning):
    functions = view_of(turning).functions
    assert functions.kind == "plane"
    assert len(functions.values) == 1  # the constant and one of the conjugates are left out
    x, y = (functions.x[None, :] - 10) / 5, functions.y[:, None] + 3  # about the centre, in radii
    value = functions.values[0]
    seen = np.isfinite(value)
    assert 0.05 < seen.mean() < 0.6  # near the circle only
    # x + i y turns by exp(0.2 i); mean square 1 on the circle of radius 1; the data's mean is off the centre by 1e-3 at most
    factor = (value / (x + 1j * y))[seen]
    assert_allclose(factor, np.full(seen.sum(), factor[0]), atol=2e-2)
    assert abs(factor[0]) == pytest.approx(1.0, abs=5e-3)


def test_an_eigenfunction_over_a_line():
    x = 0.8 ** np.arange(12)
    runs = [s * x[:, None] for s in (1.0, -2.0, 3.0, 0.5, -1.0)]
    found = fitted(TimeSeries(runs, dt=1.0, names=["p"]), EDMD, degree=1, ridge=0.0)
    functions = view_of(found).functions
    rms = np.sqrt(np.mean(np.concatenate([r[:-1] for r in runs]) ** 2))
    assert functions.kind == "line"
    assert_allclose(np.abs(functions.values[0]), np.abs(functions.x) / rms, rtol=1e-6)  # phi(x) = x, mean square 1
    with load_matplotlib().rc_context(STYLE):
        figure = koopman_figures.eigenfunctions_figure(view_of(found), functions)
    curve = figure.axes[0].lines[0].get_ydata()
    assert curve[np.argmax(np.abs(curve))] > 0  # of the two signs the one that all machines draw


def test_two_tones_in_delays():
    """Amplitudes 1 and 1/2: of a sine of amplitude a the mode of either conjugate is a/2."""
    t = 0.1 * np.arange(2000)
    series = TimeSeries((np.sin(t) + 0.5 * np.cos(5**0.5 * t))[:, None], dt=0.1, names=["u"], time_unit="s")
    view = view_of(fitted(series, HankelDMD, delays=20))
    kept = leading(view, 6)
    frequency = view.spectrum.frequencies[kept]
    order = np.argsort(frequency)
    assert_allclose(frequency[order], np.array([1, 5**0.5]) / (2 * np.pi), rtol=1e-6)
    # the deviation is sqrt(1/2 + 1/8) up to the ends of the series, 1 % here
    assert_allclose(np.abs(view.spectrum.modes[kept[order], 0]), np.array([0.5, 0.25]) / np.sqrt(0.625), rtol=0.02)
    functions = view.functions
    assert (functions.kind, functions.columns[0]) == ("points", 0)
    assert_allclose(np.abs(functions.values), 1.0, atol=0.05)  # |exp(i w t)| = 1 along the orbit, mean square 1
    with load_matplotlib().rc_context(STYLE):
        axes = koopman_figures.measure_figure(view).axes[0]
    density = np.asarray(axes.lines[0].get_xydata())
    assert_allclose(density[density[:, 1].argmax(), 0], 1 / (2 * np.pi), atol=0.002)  # the strong tone
    assert np.trapezoid(density[:, 1], density[:, 0]) == pytest.approx(1.0, abs=0.03)  # side lobes below 0 are cut off
    assert_allclose(sorted(line.get_xdata()[0] for line in axes.lines[1:]), np.array([1, 5**0.5]) / (2 * np.pi), rtol=1e-6)
    assert "Smoothed over" in captions(view)[NAMES[4]]


def test_eigenvalues_are_filled_where_they_are_trusted(logistic):
    view = view_of(logistic)
    with load_matplotlib().rc_context(STYLE):
        figure = koopman_figures.eigenvalues_figure(view)
    hollow, filled = figure.axes[0].collections[:2]
    assert_allclose(np.asarray(filled.get_offsets()), [[1.0, 0.0]], atol=1e-9)
    assert len(hollow.get_offsets()) == len(view.spectrum.values) - 1
    assert len(hollow.get_facecolors()) == 0
    assert len(filled.get_facecolors()) == 1
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert told[:2] == ["trusted (1)", f"not trusted ({len(view.spectrum.values) - 1})"]


@pytest.mark.parametrize("format", ["pdf", "svg"])
def test_all_pictures_in_a_papers_formats(linear, format):
    made = koopman_pictures(view_of(linear), format)
    assert set(made) == set(NAMES[:4])  # 61 points have no spectral measure
    assert all(data.startswith(b"%PDF" if format == "pdf" else b"<?xml") for data in made.values())


def test_modes_of_many_variables_are_lines(linear):
    view = view_of(linear, pictures=False)
    many = dataclasses.replace(view, columns=tuple(f"$v{i}" for i in range(20)), n_obs=20)
    many = dataclasses.replace(many, spectrum=dataclasses.replace(view.spectrum, modes=np.tile(view.spectrum.modes, (1, 5))))
    with load_matplotlib().rc_context(STYLE):
        lines = koopman_figures.modes_figure(many).axes[0].lines
        bars = koopman_figures.modes_figure(dataclasses.replace(view, columns=("$a", "$b^", "\\c", "d"))).axes[0].patches
    assert [len(line.get_xdata()) for line in lines] == [20, 20, 20]
    assert len(bars) == 12  # three pairs, four variables
    assert_allclose(sorted(bar.get_height() for bar in bars), np.sort(np.abs(view.spectrum.modes[leading(view, 9)]).ravel()))


# the page


def test_the_section_is_in_the_page_of_a_koopman_model_only(linear, tmp_path, monkeypatch):
    page = write_report(linear, tmp_path / "report.html", structure=False).read_text()
    assert '<section id="koopman"' in page
    section = page[page.index('<section id="koopman"') :]
    section = section[: section.index("</section>")]
    assert section.count('<figure class="still"') == 4
    assert "What a small residual proves" in section
    assert "0.9076 ± 0.2807i" in section
    assert not re.search(r'(src|href)="(?!data:|#)', section)
    assert "tested on the recording" in section
    assert 'id="koopman"' not in render(cases.content(3))
    other = fitted(circle(300), VAR, delays=1)
    monkeypatch.setattr("dynsys.report.page.render", lambda content: str(content.koopman))
    assert write_report(other, tmp_path / "other.html", structure=False).read_text() == "None"


def test_what_can_not_be_tested_is_a_note_and_no_lost_report(tmp_path):
    found = fitted(circle(400), HankelDMD, delays=30)
    short = dataclasses.replace(found, parts=(circle(30),))  # one window, and no pair of them
    page = write_report(short, tmp_path / "report.html", structure=False).read_text()
    assert '<section id="koopman"' not in page
    assert "No Koopman spectrum: koopman_spectrum: no two pairs of points" in page
    with pytest.raises(InvalidValue, match="needs a linear Koopman model, such as edmd, got a VAR"):
        view_of(fitted(circle(300), VAR, delays=1))


def test_names_are_no_markup(linear):
    view = dataclasses.replace(view_of(linear), columns=("<b>a", "$x$", "\\undefined{", "d"), units="$^", time_unit="<i>")
    section = koopman_section(view)
    assert "<b>a" not in section
    assert "<i>" not in section
    assert "&lt;b&gt;a" in section


# the file


def test_a_spectrum_is_read_as_it_was_written(linear, logistic, tmp_path):
    for found in (linear, logistic):
        one = view_of(found, pictures=False).spectrum
        one = dataclasses.replace(one, errors=np.where(np.arange(len(one.values)) == 1, np.nan, one.errors), notes=("A note.",))
        told = StoredSpectrum(
            one, "EDMD", "0", "a.csv", found.preparation.prepared_names, "s", 0.1, ("trusted",) * len(one.values), ("A word.",)
        )
        read = read_spectrum(write_spectrum(told, tmp_path / "spectrum.json"))
        for name in ("values", "residuals", "errors", "floors", "vectors", "modes"):
            assert_array_equal(getattr(read.spectrum, name), getattr(one, name))
        assert to_json(read) == to_json(told)
        assert (read.spectrum.count, read.spectrum.dt, read.spectrum.steps, read.spectrum.notes) == (one.count, one.dt, 1, ("A note.",))
    (tmp_path / "spectrum.json").write_text('{"format": "dynsys-koopman-1", "eigenpairs": [{}]}')
    with pytest.raises(DataError, match=r"spectrum.json: is damaged .* writes it anew"):
        read_spectrum(tmp_path / "spectrum.json")
    (tmp_path / "spectrum.json").write_text('{"format": "other"}')
    with pytest.raises(DataError, match="holds no Koopman spectrum of this version"):
        read_spectrum(tmp_path / "spectrum.json")
    (tmp_path / "spectrum.json").write_text("{")
    with pytest.raises(DataError, match="is no JSON"):
        read_spectrum(tmp_path / "spectrum.json")
    with pytest.raises(DataError, match="can't be read"):
        read_spectrum(tmp_path / "absent.json")

"""Pictures and tables of what was read off a model: what is drawn where, in which colour, and what is said of it."""

import dataclasses
import io
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dynsys.analysis.comparison import Estimate, Invariant
from dynsys.analysis.lyapunov import LyapunovSpectrum
from dynsys.analysis.piecewise import branches
from dynsys.analysis.piecewise.cycle import Cycle, Cycles
from dynsys.analysis.settled import repeats
from dynsys.analysis.structure import Structure
from dynsys.analysis.symbols import SymbolicCode
from dynsys.errors import InvalidValue
from dynsys.report import render
from dynsys.report.canvas import STYLE, encoded, load_matplotlib
from dynsys.report.content import BasinMap
from dynsys.report.figure_files import write_figures, write_picture
from dynsys.report.structure_figures import code_figure, cycles_figure, eigenvalues_figure, per_step, regions_figure
from dynsys.report.structure_graph import circle_order, graph_arrays, graph_figure
from dynsys.report.structure_maps import Event, Line, basins_figure, bifurcation_figure, branches_figure, knee_figure
from dynsys.report.structure_pictures import captions, missing, structure_pictures
from dynsys.report.structure_section import cycle_rows, estimate, structure_section, summary, unit_of
from dynsys.report.structure_view import COLOURS, KINDS, Naming, kind_of, region_colour, scene_of, window
from dynsys.status import Status

from . import report_cases as cases

MAGIC = {"png": b"\x89PNG\r\n", "pdf": b"%PDF", "svg": b"<?xml"}
ALL = ["code", "cycles", "eigenvalues", "regions", "transitions"]


def cycle(points, eigenvalues, regions=None) -> Cycle:
    regions = None if regions is None else np.array(regions, bool).reshape(len(points), -1)
    return Cycle(np.array(points, float), np.array(eigenvalues, complex), 1e-13, regions)


def made(n: int = 3, rows: int = 1500, **changes) -> Structure:
    """A quasi-periodic orbit that stays 10 steps in each of three regions, a saddle, a stable 2-cycle and a saddle-focus."""
    time = np.arange(rows)[:, None] * 0.05
    observed = np.sin(time * np.sqrt(np.arange(2, n + 2))[None, :]) + 0.3 * np.cos(time)
    labels = (np.arange(rows) // 10) % 3
    code = SymbolicCode(labels, np.bincount(labels), np.array([[0, 0], [0, 1], [1, 1]], bool), dt=0.05)
    found = (
        cycle([[0.0, 0.1, 0.0]], [1.5, 0.2, 0.1], [[0, 1]]),
        cycle([[0.3, 0.2, 0.0]], [1.1, 0.5 + 0.1j, 0.5 - 0.1j], [[1, 0]]),
        cycle([[0.2, 0.1, 0.0], [0.1, 0.2, 0.0]], [0.25, 0.1, 0.0], [[0, 0], [1, 1]]),
    )
    fields = {
        "model": "ALRNN",
        "digest": "0",
        "dim": 3,
        "dt": 0.05,
        "start": np.zeros(3),
        "states": None,
        "observed": observed,
        "code": code,
        "cycles": Cycles(found),
        "positions": (np.full((1, n), 0.1), np.full((1, n), -0.4), np.linspace(0, 0.5, 2 * n).reshape(2, n)),
        "virtual_positions": (),
        "spectrum": LyapunovSpectrum(np.array([0.9, -1.0]), np.array([0.01, 0.02]), 1.9, 1000, 0.05, Status.SUCCESS),
        "invariants": (Invariant("Lyapunov exponent 1", "1/time", "QR", Estimate(0.9, 0.0123), None, Estimate(0.9056, 0.0002)),),
        "equilibria": np.full((1, n), 0.12),
        "notes": ("A <note>.",),
    }
    return Structure(**(fields | changes))


def naming(n: int = 3, **about) -> Naming:
    return Naming(tuple("abcdefgh"[:n]), **({"units": "mV", "time_unit": "s"} | about))


def pixels(data: bytes) -> np.ndarray:
    from matplotlib.image import imread

    return imread(io.BytesIO(data))[..., :3]


def share(data: bytes, colour: str, near: float = 0.06) -> float:
    """Share of the picture's points in a colour."""
    wanted = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return float((np.abs(pixels(data) - wanted).max(axis=-1) < near).mean())


def draw(figure_of, *arguments, **about) -> bytes:
    with load_matplotlib().rc_context(STYLE):
        return encoded(figure_of(*arguments, **about), "png", 100)


# where things are drawn


def test_a_single_variable_is_drawn_in_delay_coordinates():
    x = np.arange(20.0)[:, None]
    scene = scene_of(x, naming(1, delay=3), 0.5)
    assert_array_equal(scene.points[0], [6, 3, 0])  # x(t), x(t - 3), x(t - 6) at the first t that has all of them
    assert scene.first == 6
    assert "τ = 3 samples (1.5 s)" in scene.note
    assert scene.labels[1] == "a(t − τ) [mV]"
    # a fixed point lies on the diagonal; of a 4-cycle x(t - 3) is the next point
    assert_array_equal(scene.place(np.array([[5.0]])), [[5, 5, 5]])
    assert_array_equal(scene.place(np.array([[0.0], [1.0], [2.0], [3.0]]))[:, 1], [1, 2, 3, 0])
    # what an orbit on the cycle is drawn at is where the cycle is drawn
    on = scene_of(np.tile([0.0, 1.0, 2.0, 3.0], 10)[:, None], naming(1, delay=3), None)
    placed = {tuple(row) for row in on.place(np.arange(4.0)[:, None]).tolist()}
    assert {tuple(row) for row in on.points.tolist()} == placed


def test_many_variables_are_drawn_in_principal_components():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 6)) * np.array([1, 2, 3, 4, 5, 100.0])
    scene = scene_of(x, naming(6), None)
    assert scene.points.shape == (500, 3)
    assert scene.labels[0] == "PC 1"
    assert_allclose(scene.place(x[:7]), scene.points[:7], atol=1e-12)  # the same axes for cycles
    assert scene_of(x[:, :2], naming(2), None).points.shape == (500, 2)
    assert_array_equal(scene_of(x[:, :3], naming(3), None).place(x[:4, :3]), x[:4, :3])


def test_regions_and_kinds_have_their_colours():
    assert [region_colour(0), region_colour(len(COLOURS)), region_colour(10**6)] == [COLOURS[0], *2 * [region_colour(99)]]
    kinds = {
        "stable": [0.5],
        "saddle": [1.5, 0.5],
        "saddle-focus": [1.5, 0.5 + 0.1j, 0.5 - 0.1j],
        "unstable": [2.0, 1.5],
        "on the border": [1.0, 0.5],
    }
    for kind, eigenvalues in kinds.items():
        assert kind_of(cycle([np.zeros(len(eigenvalues))], eigenvalues)) == kind
    assert set(kinds) == set(KINDS)
    assert [window(np.zeros(10), 5), window(np.zeros(10**5), 50), window(np.zeros(10**5), 9999)] == [10, 600, 2000]


# what is drawn


@pytest.mark.parametrize("format", MAGIC)
def test_all_pictures_in_every_format(format):
    written = structure_pictures(made(), naming(), format)
    assert sorted(written) == ALL
    assert all(data.startswith(MAGIC[format]) for data in written.values())


@pytest.mark.parametrize("n", [1, 2, 5])
def test_all_pictures_in_other_dimensions(n):
    assert sorted(structure_pictures(made(n), naming(n))) == ALL
    assert set(captions(made(n), naming(n))) == set(ALL)


def test_each_region_has_its_share_of_the_points():
    found = made(2)
    uneven = np.sort(np.random.default_rng(0).choice(3, len(found.observed), p=[0.8, 0.15, 0.05]))
    data = draw(regions_figure, scene_of(found.observed, naming(2), 0.05), uneven)
    seen = np.array([share(data, COLOURS[i]) for i in range(3)])
    # dots overlap and the legend has one of each colour, so shares are no exact measure; their order is
    assert seen[0] > 2 * seen[1] > 2 * seen[2] > 0


def test_cycles_are_drawn_by_kind_and_those_outside_are_counted():
    found = made(2, equilibria=None)
    scene = scene_of(found.observed, naming(2), 0.05)

    def drawn(cycles, positions):
        data = draw(cycles_figure, scene, cycles, positions)
        return {kind: share(data, colour, 0.02) for kind, (colour, _) in KINDS.items()}

    only = drawn(found.cycles.cycles[:1], found.positions[:1])
    assert only["saddle"] > 5e-5 > only["saddle-focus"] == only["stable"] == 0
    all_ = drawn(found.cycles.cycles, found.positions)
    assert min(all_["saddle"], all_["saddle-focus"], all_["stable"]) > 5e-5
    far = drawn(found.cycles.cycles[:1], (np.full((1, 2), 99.0),))
    assert far["saddle"] == 0


def test_eigenvalues_are_brought_to_one_step():
    turned = cycle(np.zeros((3, 2)), [8j, -8j])
    radius = np.hypot(*per_step(turned).T)
    assert_allclose(radius, 2.0)  # 8^(1/3)
    assert_allclose(per_step(turned)[0], [0.0, 2.0], atol=1e-12)
    assert_allclose(per_step(cycle(np.zeros((2, 1)), [-0.25])), [[-0.5, 0.0]], atol=1e-12)
    assert_allclose(per_step(cycle(np.zeros((1, 1)), [0.0])), [[0.0, 0.0]])


def test_an_eigenvalue_is_drawn_outside_the_circle_where_it_is_unstable():
    def reach(eigenvalue):
        """How far right of the circle's right end the coloured mark is, in radii."""
        from matplotlib.figure import Figure

        with load_matplotlib().rc_context(STYLE):
            figure = eigenvalues_figure([cycle([[0.0]], [eigenvalue])])
        assert isinstance(figure, Figure)
        low, high = figure.axes[0].get_xlim()
        assert low == -high
        marks = [line for line in figure.axes[0].lines if line.get_marker() not in ("None", None, "")]
        return float(marks[0].get_xdata()[0]), high

    at, limit = reach(3.0)
    assert at == pytest.approx(3.0)
    assert limit > 3
    assert reach(0.5)[1] == pytest.approx(1.15)


def test_the_bar_has_the_colours_of_its_labels():
    labels = np.repeat([0, 1, 0, 2], 50)
    data = draw(code_figure, np.sin(np.arange(200) / 9), labels, name="x", dt=0.1, time_unit="s")
    blue, orange, green = (share(data, COLOURS[i]) for i in range(3))
    # two quarters of the bar are 0, one quarter each 1 and 2; the legend adds one small dot each
    assert blue / orange == pytest.approx(2.0, rel=0.05)
    assert green == pytest.approx(orange, rel=0.05)


def test_the_graph_says_where_the_orbit_goes_when_it_leaves():
    code = SymbolicCode.of(np.array([0, 0, 0, 1, 0, 0, 2, 2, 0, 1, 0, 0]))
    counts, stay, leave = graph_arrays(code, 3)
    assert_array_equal(counts, [8, 2, 2])
    # from 0: four times to itself, twice to 1, once to 2
    assert_allclose(stay, [4 / 7, 0, 1 / 2])
    assert_allclose(leave, [[0, 2 / 3, 1 / 3], [1, 0, 0], [1, 0, 0]])
    counts, stay, leave = graph_arrays(code, 2)
    assert_allclose(leave, [[0, 2 / 3], [1, 0]])  # what goes to regions that are not drawn is missing from the row


def test_regions_stand_on_the_circle_as_they_do_in_the_attractor():
    angle = np.array([0.0, 2.0, 4.0, 1.0, 3.0, 5.0])
    order = circle_order(np.stack([3 * np.cos(angle), np.sin(angle)], axis=1))
    along = angle[order]
    turns = np.diff(np.r_[along, along[0]]) % (2 * np.pi)
    # neighbours on the circle are neighbours in the plane, in one sense of rotation or the other
    assert np.sum(turns) == pytest.approx(2 * np.pi) or np.sum(2 * np.pi - turns) == pytest.approx(2 * np.pi)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 30, 45])
def test_graphs_from_one_region_to_too_many(n):
    walk = np.cumsum(np.random.default_rng(0).integers(-1, 2, 5000)) % n
    data = draw(graph_figure, SymbolicCode.of(walk))
    assert share(data, COLOURS[0]) > 1e-4  # a disc, however small
    with load_matplotlib().rc_context(STYLE):
        words = [text.get_text() for text in graph_figure(SymbolicCode.of(walk)).texts]
    assert (n == 45) == any("30 most visited of 45" in word for word in words)


def test_the_knee_and_the_dead_are_marked():
    scores = [[1e6, 1e6], [9.0, 1e6], [1.2, 1.0], [0.9, 1.1]]
    with load_matplotlib().rc_context(STYLE):
        figure = knee_figure([0, 1, 2, 5], scores, 2, allowance=0.2, regions=[1, 2, 3, 20])
    axes = figure.axes[0]
    words = [text.get_text() for text in axes.texts]
    assert {"2 dead", "1 dead", "knee: P = 2"} <= set(words)
    best = axes.lines[4]
    assert_array_equal(best.get_ydata(), [np.nan, 9.0, 1.0, 0.9])
    ring = axes.lines[5]
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (2, 1.0)  # third place on the axis
    with load_matplotlib().rc_context(STYLE):
        dead = knee_figure([3], [[1e6]], None).axes[0]
    assert "the free run of every model dies" in [text.get_text() for text in dead.texts]
    assert len(dead.get_yticks()) == 0  # no scale of scores that are not there


def basin_case() -> BasinMap:
    x, y = np.linspace(-1, 1, 40), np.linspace(-1, 1, 30)
    labels = np.where(x[None, :] + 0 * y[:, None] > 0.5, 1, 0)
    labels[:3] = -1
    labels[-2:] = -2
    return BasinMap(
        labels=labels, x=x, y=y, xlabel="x", ylabel="y [mV]", names=("left",), marks=np.array([[0.0, 0.0]]), trace=np.zeros((0, 2))
    )


def test_basins_have_the_colours_of_their_attractors():
    with load_matplotlib().rc_context(STYLE):
        figure = basins_figure(basin_case())
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words[0].startswith("not decided, 6.7%")
    assert words[1].startswith("leaves all bounds, 10.0%")
    assert [word.split(",")[0] for word in words[2:]] == ["left", "attractor 1", "stable cycle (projected)"]
    with load_matplotlib().rc_context(STYLE):
        full = basins_figure(dataclasses.replace(basin_case(), labels=np.zeros((30, 40), int), names=("chaotic or quasi-periodic",)))
        edge = full.legends[0].get_window_extent(full.canvas.get_renderer()).x1
    assert edge <= full.bbox.x1  # the longest words that there are do not leave the picture
    image = figure.axes[0].images[0]
    # the middle of the first pixel is the first value of x, and row 0 is the lowest y
    assert_allclose(image.get_extent()[:2], [-1 - 1 / 39, 1 + 1 / 39])
    assert image.origin == "lower"
    assert "basins" in structure_pictures(made(), naming(), basins=basin_case())
    with pytest.raises(InvalidValue, match="labels must have shape"):
        dataclasses.replace(basin_case(), x=np.zeros(3))


def test_branches_are_dashed_where_they_are_unstable():
    r = np.linspace(0, 2, 21)
    line = Line(r, r[:, None], r < 1, "fixed point")
    with load_matplotlib().rc_context(STYLE):
        figure = bifurcation_figure([line], [Event(1.0, 1.0, "flip"), Event(2.0, 1e9, "vanishes")], xlabel="r", ylabel="x")
    solid, dashed = figure.axes[0].lines[:2]
    assert (solid.get_linestyle(), dashed.get_linestyle()) == ("-", "--")
    assert np.nanmax(solid.get_ydata()) == pytest.approx(0.9)
    assert np.nanmin(dashed.get_ydata()) == pytest.approx(0.9)  # drawn on to the last stable point, so that no gap is left
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["fixed point", "stable", "unstable", "flip", "vanishes"]
    assert figure.axes[0].get_ylim()[1] < 3  # what happens at infinity does not flatten the picture


def test_branches_of_follow_are_drawn_as_they_are(tmp_path):
    values = np.array([0.0, 1.0, 2.0])
    points = np.array([[[0.0, 5.0]], [[1.0, 5.0]], [[2.0, 5.0]]])
    eigenvalues = np.array([[0.5, 0.1], [-1.0, 0.1], [-2.0, 0.1]], complex)
    branch = branches.Branch(values, points, eigenvalues)
    found = branches.Branches((branch,), (branches.Event(1.0, "flip", 0, points[1], -1.0 + 0j, ""),))
    with load_matplotlib().rc_context(STYLE):
        figure = branches_figure(found, xlabel="r", ylabel="x", coordinate=0)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["fixed point", "stable", "unstable", "flip"]
    solid, dashed, flip = figure.axes[0].lines
    assert_array_equal(solid.get_ydata(), [0.0, 1.0, np.nan])
    assert_array_equal(dashed.get_ydata(), [np.nan, 1.0, 2.0])
    assert_array_equal(np.ravel(flip.get_xydata()), [1.0, 1.0])
    path = write_picture(tmp_path / "new" / "branches.svg", branches_figure, found, xlabel="r", ylabel="x")
    assert path.read_bytes().startswith(MAGIC["svg"])
    with pytest.raises(InvalidValue, match=r"must end in .png, .pdf or .svg, got 'a.gif'"):
        write_picture(tmp_path / "a.gif", branches_figure, found, xlabel="r", ylabel="x")


# what is said


def test_estimates_have_the_digits_of_their_errors():
    assert estimate(Estimate(0.90488, 0.0123)) == "0.905 ± 0.012"
    assert estimate(Estimate(-14.57154, 0.00028)) == "−14.57154 ± 0.00028"
    assert estimate(Estimate(1.0, 0.0)) == "1"
    assert estimate(Estimate(123.4, 20.0)) == "123 ± 20"
    assert estimate(Estimate(1234567.0, 400.0)) == "1234567 ± 400" or "·10" in estimate(Estimate(1234567.0, 400.0))
    assert estimate(Estimate(-np.inf, np.nan)) == "−∞"
    assert estimate(None) == "–"
    assert unit_of("1/time", naming()) == "1/s"
    assert unit_of("1/time", naming(time_unit="dimensionless")) == "1/time"
    assert unit_of("1/step", naming()) == "1/step"


def test_the_words_count_what_there_is():
    found = made()
    lines = summary(found)
    assert lines[0] == "A free run of 1,500 steps visits 3 linear regions."
    # every region is followed by itself and by the next: the golden mean's sister, 1 + w for w^3 = 1 has radius 2
    assert "at most 0.693 nats a step" in lines[1]
    assert lines[2] == "2 fixed points and 1 cycle of period 2 were found; 1 of them is stable."
    # the true point (0.12, 0.12, 0.12) is 0.02 sqrt(3) from (0.1, 0.1, 0.1)
    assert f"{0.02 * 3**0.5 / found.size:.1%} of the attractor's size" in lines[3]
    none = made(cycles=Cycles(()), positions=(), code=None, equilibria=None)
    assert summary(none) == ("No fixed points and no cycles were found.",)


def test_what_a_search_leaves_of_a_zero_is_zero():
    found = made(equilibria=np.array([[0.0, -8.35e-83, 0.12]]), positions=(np.full((1, 3), 3e-17), *made().positions[1:]))
    assert any("at (0, 0, 0.12)" in line for line in summary(found))
    assert_array_equal(cycle_rows(found)[0][4], np.zeros(3))


def test_a_run_that_repeats_itself_is_said_to():
    angle = 2 * np.pi * np.arange(1500) / 50
    ring = np.stack([np.cos(angle), np.sin(angle), np.sin(2 * angle)], axis=1)
    fading = ring + 0.5 * np.exp(-np.arange(1500) / 40)[:, None]  # e^-18 after half of the run
    for run in (ring, fading):
        assert repeats(run) == 50
    golden = np.stack([np.cos(angle * 1.618), np.cos(angle)], axis=1)
    assert repeats(golden) is None
    assert repeats(np.ones((300, 2))) == 1
    assert repeats(np.zeros((0, 3))) is None
    lines = summary(made(observed=fading))
    assert lines[1] == "The free run repeats itself every 50 steps: it is on a cycle, and the entropies of its region sequence are 0."
    assert not any("nats" in line for line in lines)  # those of the way there say nothing


def test_the_caption_of_the_graph_names_what_is_drawn():
    few = captions(made(), naming())["transitions"]
    assert "the number on them" in few
    assert "p: the probability to stay" in few
    labels = np.arange(1500) % 20
    many = captions(made(code=SymbolicCode(labels, np.full(20, 75), np.zeros((20, 2), bool), dt=0.05)), naming())["transitions"]
    assert "number" not in many
    assert "p:" not in many
    assert "below 1% are left out" in many


def test_the_regions_of_cycles_are_named_as_in_the_pictures():
    rows = cycle_rows(made())
    assert [row[:3] for row in rows] == [(1, "saddle", 1), (1, "saddle-focus", 1), (2, "stable node", 0)]
    assert [row[5] for row in rows] == ["1", "*", "0 2"]
    assert [row[3] for row in rows] == [1.5, 1.1, 0.25]
    assert_array_equal(rows[2][4], made().positions[2][0])  # the first point of the 2-cycle, in the regions' order


def test_the_section_is_in_the_page_if_asked_for():
    content = cases.content(3)
    assert 'id="structure"' not in render(content)
    page = render(dataclasses.replace(content, structure=made()))
    assert 'id="structure"' in page
    section = page[page.index('<section id="structure"') :]
    section = section[: section.index("</section>")]
    assert section.count('<figure class="still"') == 5
    assert section.count("data:image/png;base64,") == 5
    for words in ("saddle-focus", "0.900 ± 0.012", "0.90560 ± 0.00020", "A &lt;note&gt;.", "Lyapunov exponent 1 [1/s]", "true system"):
        assert words in section
    assert not re.search(r'(src|href)="(?!data:|#)', section)  # nothing from the network


def test_names_are_no_markup():
    section = structure_section(made(3), Naming(("<b>a", "$x$", "\\undefined{"), units="$^", time_unit="\\$"))
    assert "<b>a" not in section
    assert "&lt;b&gt;a" in section


def test_a_smooth_model_has_no_pictures_of_regions(tmp_path):
    found = made(code=None, model="EchoStateNetwork")
    assert sorted(structure_pictures(found, naming())) == ["cycles", "eigenvalues"]
    assert dict(missing(found))["regions"] == "a model of class EchoStateNetwork is not piecewise linear"
    section = structure_section(found, naming())
    assert section.count("<figure") == 2
    assert "regions</th>" not in section
    dead = made(code=None, spectrum=None, cycles=Cycles(()), positions=(), observed=np.zeros((0, 3)), invariants=(), equilibria=None)
    assert dict(missing(dead)) == {
        **dict.fromkeys(("regions", "transitions", "code"), "its orbit leaves all bounds"),
        **dict.fromkeys(("cycles", "eigenvalues"), "no fixed point or cycle was found"),
    }
    words = structure_section(dead, naming())
    assert "None was found." in words
    assert "None could be computed" in words
    paths, absent = write_figures(dead, naming(), tmp_path / "figures")
    assert paths == ()
    assert len(absent) == 8


def test_files_are_written_and_data_are_drawn_where_there_are_some(tmp_path):
    paths, absent = write_figures(made(), naming(), tmp_path / "new" / "figures", "svg")
    assert sorted(path.name for path in paths) == [f"{name}.svg" for name in ALL]
    assert [name for name, _ in absent] == ["attractor", "overlay", "spectra"]
    paths, absent = write_figures(made(), naming(), tmp_path, "pdf", content=cases.content(3, histories=(), histograms=()))
    assert sorted(path.stem for path in paths) == sorted([*ALL, "attractor", "overlay", "spectra"])
    assert absent == ()
    with pytest.raises(InvalidValue, match="format must be one of png, pdf, svg, got 'gif'"):
        write_figures(made(), naming(), tmp_path, "gif")


def test_a_run_that_hardly_visits_a_region_twice_has_no_entropies():
    labels = np.arange(1500)
    many = made(code=SymbolicCode(labels, np.ones(1500, int), np.zeros((1500, 2), bool), dt=0.05))
    lines = summary(many)
    assert lines[0] == "A free run of 1,500 steps visits 1,500 linear regions; none of them takes at least 1 % of the time."
    assert lines[1].startswith("These are too many regions")
    assert not any("not known" in line or "nats" in line for line in lines)
    assert any("nats a step" in line for line in summary(made()))


def test_regions_too_many_to_show_are_left_out_with_the_reason():
    labels = np.arange(1500)
    many = made(code=SymbolicCode(labels, np.ones(1500, int), np.zeros((1500, 2), bool), dt=0.05))
    assert set(structure_pictures(many, naming())) == {"cycles", "eigenvalues"}
    assert dict(missing(many))["code"].startswith("the 30 most visited of 1,500 regions take 2.0% of the time")  # 30 / 1500
    assert "<h3>Fixed points and cycles</h3>" in structure_section(many, naming())
    # 100 regions of equal share: 30 %, enough
    some = made(code=SymbolicCode(labels % 100, np.full(100, 15), np.zeros((100, 2), bool), dt=0.05))
    assert "code" not in dict(missing(some))

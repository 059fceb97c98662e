"""The report of a certificate: what it says is what the proof and an independent formula say, and nothing is fetched or run."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from dynsys.control.lqr import lqr_of
from dynsys.errors import InvalidValue
from dynsys.report import (
    certificate_figures as figures,
    certificate_page,
    certificate_terms as terms,
    certificate_view,
    certificate_words as words,
    still,
)
from dynsys.report.certificate_page import render_certificate, write_certificate_report
from dynsys.report.certificate_view import view_of
from dynsys.systems import load_system
from dynsys.verify.basin import CONVERGED
from dynsys.verify.certify import Outcome, certify
from dynsys.verify.loop import ClosedLoop
from dynsys.verify.lyapunov import QuadraticLyapunov
from dynsys.verify.network import Network
from dynsys.verify.policy import NeuralPolicy, SaturatedLinear
from dynsys.verify.symbolic import SymbolicLyapunov

from .test_report_control import EVIL, Page
from .verify_cases import linear_flow

BOX = (-2 * np.ones(2), 2 * np.ones(2))
P, NARROW = np.diag([1.0, 2.0]), np.diag([1.0, 8.0])
RING = linear_flow(-np.eye(2), cubic=1.0)  # from |x| < 1 to 0; V = x'Px decreases by 2 (1 - |x|^2) V a unit of time


def proved(level, matrix=P, **settings):
    return certify(RING, QuadraticLyapunov.of(matrix), domain=BOX, rate=0.1, level=level, **settings)


@pytest.fixture(scope="module")
def proof():
    """{x'Px <= 0.5}: |x|^2 <= 0.5 inside, so that the rate is at least 1; its area is pi 0.5 / sqrt 2."""
    found = proved(0.5)
    assert found.proved
    return found


@pytest.fixture(scope="module")
def view(proof):
    return view_of(
        proof,
        RING,
        QuadraticLyapunov.of(P),
        names=("a", "b"),
        baseline=(proved(0.5, NARROW), QuadraticLyapunov.of(NARROW)),
        samples=1500,
        resolution=40,
    )


@pytest.fixture(scope="module")
def page(view):
    return Page(render_certificate(view, title="Ring", command="dynsys certify ring.toml", seconds=100.0))


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are made but not rasterised, which takes most of the time."""
    monkeypatch.setattr(still, "encoded", lambda figure, format, dpi: b"")
    monkeypatch.setattr(still, "few_colours", lambda png: png)


def test_the_page_has_every_section_and_two_pictures_of_each_figure_with_a_text(page):
    assert page.sections() == ["region", "decrease", "boxes", "claim", "loop", "assumptions", "proof", "simulation", "origin"]
    assert page.text("title") == page.text("h1") == "Ring: proved"
    wide, narrow = page.of("img"), page.of("source")
    assert len(wide) == len(narrow) == 3
    assert all(len(image["alt"]) > 40 for image in wide)
    assert not [a for a in page.of("div") if a.get("class") == "warning"]


def test_nothing_is_fetched_and_nothing_runs(page):
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "form", "base"}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "srcset", "href"):
            assert attributes.get(name, "#").startswith(("data:image/png;base64,", "#"))
    policy = next(a["content"] for a in page.of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "url(" not in page.text("style")


def test_the_lead_says_the_claim_and_the_areas(page, view):
    lead = page.text("li")
    assert "Proved: on the set where V ≤ 0.5 in the cube of the proof (see Claim)" in lead
    assert "decreases at a rate of at least 10 % of V per unit of time" in lead
    assert "goes to (a = 0, b = 0)" in lead
    # ellipses: area pi level / sqrt det P: pi 0.5 / sqrt 2 = 1.1107 and pi 0.5 / sqrt 8 = 0.55536, twice as much
    assert "The set has area 1.1107." in lead
    assert "certifies 0.55536; this one 1.1107, 2 times as much" in lead
    share, error = (float(x) for x in re.search(r"That is ([\d.]+) ± ([\d.]+) % of the region", lead).groups())
    assert abs(share - 100 / np.sqrt(8)) < 4 * error  # of the disc's pi: 1 / (2 sqrt 2)


def test_simulation_and_formula_agree(view):
    assert abs(view.basin.region[0] - np.pi) < 4 * view.basin.region[1]
    assert view.basin.kept == 1.0
    # F = -2 (1 - |x|^2) + rate, largest at the tip (sqrt 0.5, 0) of the ellipse
    assert_allclose(view.worst.largest, -2 * 0.5 + 0.1, atol=2e-3)
    assert_allclose(np.abs(view.worst.state), [np.sqrt(0.5), 0.0], atol=0.02)
    assert view.F.max() <= view.worst.largest + 1e-9
    assert_allclose(view.F.min(), -1.9, atol=1e-3)


def test_planes_hold_V_fates_and_directions(view):
    (plane,) = view.planes
    a, b = np.meshgrid(plane.x, plane.y)
    assert_allclose(plane.V, a**2 + 2 * b**2)
    assert_allclose(plane.plain, a**2 + 8 * b**2, rtol=1e-6)  # as read from the frame of its proof
    clear = np.abs(np.hypot(a, b) - 1) > 1e-2
    assert_allclose((plane.codes == CONVERGED)[clear], (np.hypot(a, b) < 1)[clear])
    x, y = np.meshgrid(plane.ax, plane.ay)
    assert_allclose(plane.arrows, (x**2 + y**2 - 1)[..., None] * np.stack([x, y], axis=-1), atol=1e-12)


def test_trajectories_are_told_apart_and_V_falls_along_those_of_the_set(view):
    assert set(view.roles) == {"inside", "outside", "leaves"}
    for line, heights, role in zip(view.lines, view.heights, view.roles, strict=True):
        good = np.isfinite(heights)
        assert_allclose(heights[good], np.einsum("ti,ij,tj->t", line, P, line)[good])
        assert (heights[0] <= 0.5) == (role == "inside")
        assert (np.sum(line[0] ** 2) < 1) == (role != "leaves")
        if role == "inside":
            assert np.all(heights <= heights[0] * np.exp(-view.proof.rate * view.times) + 1e-9)


def test_figures_draw_the_level_the_boxes_and_the_limit(view):
    region = figures.region_figure(view, True)
    labels = [text.get_text() for text in region.legends[0].get_texts()]
    assert labels[:2] == ["certified set, V ≤ 0.5", "plain quadratic's certified set"]
    assert "leaves" in labels
    boxes = figures.boxes_of(view)
    mid, _, bounds = view.proof.leaves
    assert len(boxes.corners) == len(mid)
    # the corners span what the frame says: boxes of y cover [-1, 1]^2, of area 4 |det T|
    sides = boxes.corners[:, [1, 3]] - boxes.corners[:, [0]]
    area = np.abs(sides[:, 0, 0] * sides[:, 1, 1] - sides[:, 0, 1] * sides[:, 1, 0])
    assert_allclose(area.sum(), 4 * abs(np.linalg.det(view.proof.frame)))
    assert_allclose(np.sum(2.0 ** (2 - boxes.depth)), 4.0)
    assert np.sum(boxes.meets) == np.sum(bounds[:, 0] <= 0.5)
    counts = figures.boxes_figure(view, False).axes[1].get_lines()
    assert sum(line.get_ydata().sum() for line in counts) == len(mid)
    decrease = figures.decrease_figure(view, False)
    left, right = decrease.axes
    assert [line.get_label() for line in left.get_lines()] == ["left: largest that was found", "left: limit of the claim"]
    assert_allclose(left.get_lines()[1].get_xdata(), 0.0)
    assert_allclose(right.get_lines()[0].get_ydata(), np.exp(-0.1 * view.times))  # the first is drawn behind the others
    strokes = [(key.get_color(), key.get_linestyle(), key.get_linewidth()) for key in decrease.legends[0].get_lines()]
    assert len(set(strokes)) == len(strokes) == 6


def test_the_tables_hold_claim_proof_and_origin(page, view):
    cells = page.text("td")
    for part in (
        "LinearFlow, a flow of 2 states; controller: none",
        "[−2, 2] × [−2, 2]",
        "x = goal + T y with all |y_i| ≤ 1, whose border is shown to lie outside of the set. As V is quadratic, this is all of V ≤ 0.5.",
        "[1, 0; 0, 2] (rounded; in full in the certificate file)",
        f"{view.proof.boxes:,}",
        "1 min 40 s",
        "no violation",
    ):
        assert part in cells
    assert view.proof.assumptions[0] in page.text("li")
    assert "dynsys certify ring.toml" in page.text("pre")


def test_a_counterexample_is_said_first_and_is_no_volume(undrawn):
    found = proved(1.5)
    assert found.counterexample is not None
    view = view_of(found, RING, QuadraticLyapunov.of(P), samples=200, resolution=10)
    page = Page(render_certificate(view))
    assert page.text("title") == "LinearFlow: counterexample"
    lead = page.text("li")
    assert "False at level 1.5: V does not decrease at (x1 = " in lead
    assert "The set has" not in lead
    assert Outcome.COUNTEREXAMPLE.remedy in page.text("div")
    assert view.basin.kept < 1
    assert view.worst.largest > 0


def test_what_is_left_is_said_and_drawn(undrawn):
    found = proved(0.9, batch=16, boxes=16)
    assert found.outcome is Outcome.UNDECIDED
    view = view_of(found, RING, QuadraticLyapunov.of(P), samples=200, resolution=10)
    page = Page(render_certificate(view))
    left = len(found.remaining[0])
    assert f"{left:,} boxes are left" in page.text("li")
    assert Outcome.UNDECIDED.remedy in page.text("div")
    assert figures.boxes_of(view).left.sum() == left


def test_a_proof_that_the_simulation_contradicts_is_called_out(view):
    lost = dataclasses.replace(view.basin, inner_codes=np.full(len(view.basin.inner), -1))
    assert "did not arrive" in words.notes(dataclasses.replace(view, basin=lost))[0]
    bad = dataclasses.replace(view.worst, largest=0.5)
    assert "please report it" in words.notes(dataclasses.replace(view, worst=bad))[0]
    assert words.notes(view) == ()


def test_more_states_show_three_slices_and_boxes_of_two_coordinates(undrawn):
    loop = linear_flow(-np.diag([1.0, 1.0, 2.0, 3.0]), cubic=1.0)
    V = QuadraticLyapunov.of(np.diag([1.0, 2.0, 1.0, 1.0]))
    found = certify(loop, V, domain=(-2 * np.ones(4), 2 * np.ones(4)), rate=0.1, level=0.4)
    assert found.proved
    view = view_of(found, loop, V, samples=300, resolution=16)
    assert len(view.planes) == certificate_view.PLANES
    for plane in view.planes:
        a, b = np.meshgrid(plane.x, plane.y)
        weight = np.diag(np.asarray(V.P))
        assert_allclose(plane.V, weight[plane.i] * a**2 + weight[plane.j] * b**2)
    assert figures.boxes_of(view).corners.shape[1:] == (4, 2)
    page = Page(render_certificate(view))
    assert "4-dimensional volume" in page.text("li")
    assert "Of 6 planes those that show most are drawn." in page.text("figcaption")


def test_one_state_is_drawn_as_a_line(undrawn):
    loop = linear_flow(-np.eye(1), cubic=1.0)
    V = QuadraticLyapunov.of(np.eye(1))
    found = certify(loop, V, domain=([-2.0], [2.0]), rate=0.1, level=0.5)
    page = Page(render_certificate(view_of(found, loop, V, samples=200)))
    assert "length 1.4142" in page.text("li")  # 2 sqrt 0.5
    assert "boxes" not in page.sections()


def test_a_formula_is_shown(proof, view, undrawn):
    V = SymbolicLyapunov.of("a**2 + 2*b**2", ("a", "b"))
    page = Page(render_certificate(dataclasses.replace(view, main=dataclasses.replace(view.main, V=V))))
    assert "a**2 + 2*b**2" in page.text("dd") + page.text("td")


def pendulum(policy):
    """The view of a proof on the pendulum, upside down."""
    plant = load_system("Pendulum", g=9.81)
    loop = ClosedLoop.of(plant, policy, goal=[0.0, 0.0], rest=[0.0])
    V = QuadraticLyapunov.of(lqr_of(plant, [0.0, 0.0], [0.0], np.eye(2), np.eye(1)).P)
    found = certify(loop, V, domain=([-3.0, -8.0], [3.0, 8.0]), rate=0.01, level=0.2)
    return view_of(found, loop, V, names=plant.names, samples=64, resolution=8)


def test_plant_and_controller_can_be_made_again_from_the_page():
    K = lqr_of(load_system("Pendulum", g=9.81), [0.0, 0.0], [0.0], np.eye(2), np.eye(1)).K
    view = pendulum(SaturatedLinear.of(K, low=-6.25, high=6.0))
    rows = dict(words.loop_rows(view))
    assert "g = 9.81" in rows["parameters of the plant"]
    assert rows["controller"] == "u = clip(rest − K (x − goal), low, high)"
    shown = re.match(r"\[(.*)\] \(rounded", rows["gain K"]).group(1).replace("−", "-")
    assert_allclose([float(x) for x in shown.split(", ")], np.ravel(K), rtol=1e-4)
    assert rows["goal of the controller"] == "(theta = 0, omega = 0)"
    assert (rows["rest, the input at the goal"], rows["limits of u, [low, high]"]) == ("(0)", "[−6.25, 6]")
    assert dict(words.claim_rows(view))["loop"] == "Pendulum, a flow of 2 states; controller: below"
    assert words.title(view, "my/pole.toml") == "Pendulum: proved"
    assert words.title(view, "my run") == "my run: proved"
    net = Network.init((2, 5, 3, 1), last=0.0, key=jax.random.key(0))
    neural = NeuralPolicy.of(net, K, low=-6.0, high=6.0)
    rows = dict(words.loop_rows(dataclasses.replace(view, loop=ClosedLoop.of(view.loop.plant, neural, goal=[0.0, 0.0], rest=[0.0]))))
    assert rows["network"] == "layers of 2 → 5 → 3 → 1, tanh between them; its numbers are in the certificate file"
    assert rows["limits of u, [low, high]"] == "[−6, 6]"


def test_levels_are_refuted_only_where_they_are(view):
    side = dataclasses.replace(view.main, proof=dataclasses.replace(view.proof, bracket=(0.5, 1.02)))
    assert words.bracket(side) == "proved at 0.5, refuted at 1.02"
    assert words.bracket(dataclasses.replace(side, proof=dataclasses.replace(side.proof, bracket=(0.5, float("nan"))))) == "proved at 0.5"
    assert "The search for the largest level: proved at 0.5, refuted at 1.02." in words.lead(dataclasses.replace(view, main=side))


def test_a_full_count_has_no_error(view):
    every = dataclasses.replace(view, basin=dataclasses.replace(view.basin, codes=np.ones_like(view.basin.codes)))
    lead = " ".join(words.lead(every))
    # an area of pi 0.5 / sqrt 2 in the 16 of the domain
    assert "That is 6.942 % of the domain; in the simulation all starts in it arrive, 1,500." in lead
    rows = dict(words.simulation_rows(every))
    assert rows["starts, uniform in the domain"] == "1,500: all starts in the domain arrive"
    assert rows["region of attraction in the domain"] == "all of it, as far as the starts tell"
    open = np.where(np.arange(1500) < 375, 0, np.where(np.arange(1500) < 750, -1, 1))
    rows = dict(words.simulation_rows(dataclasses.replace(view, basin=dataclasses.replace(view.basin, codes=open))))
    assert rows["starts, uniform in the domain"] == (
        "1,500: 50.0 % go to the goal, 25.0 % leave, the rest, 25.0 %, neither arrive nor leave within the simulated time"
    )


def test_nothing_is_claimed_of_the_set_outside_of_the_cube():
    """As for a V whose {V <= level} has a second part far away; here by a cube that is made too small for the level."""
    found = proved(0.5)
    small = dataclasses.replace(found, level=1.5)
    view = view_of(small, RING, QuadraticLyapunov.of(P), samples=400, resolution=20)
    off = np.abs(np.linalg.solve(found.frame, view.elsewhere.T)).max(axis=0)
    assert len(off) > 0
    assert off.min() > 1
    assert np.all(np.abs(np.linalg.solve(found.frame, view.basin.inner.T)) <= 1)
    assert np.abs(np.linalg.solve(found.frame, view.worst.state)).max() <= 1
    (plane,) = view.planes
    a, b = np.meshgrid(plane.x, plane.y)
    outside = np.abs(np.einsum("ij,jyx->iyx", np.linalg.inv(found.frame), np.stack([a, b]))).max(axis=0) > 1
    assert plane.S[outside].min() > 1.5
    assert_allclose(plane.S[~outside], plane.V[~outside])
    assert "nothing is claimed there" in words.notes(view)[0]


def test_wrong_names_are_refused(proof):
    V = QuadraticLyapunov.of(P)
    with pytest.raises(InvalidValue, match="one name a state, 2, got 1"):
        view_of(proof, RING, V, names=("a",))


def test_hostile_names_are_text(view, undrawn):
    page = Page(render_certificate(dataclasses.replace(view, names=(EVIL, EVIL)), title=EVIL, command=EVIL))
    assert not page.of("script")
    assert page.text("title") == f"{EVIL}: proved"
    assert EVIL in page.text("pre")


def test_errors_decide_the_digits():
    assert terms.with_error(13.869140625, 0.2737) == "13.87 ± 0.27"
    assert terms.with_error(46.26, 1.26) == "46.3 ± 1.3"
    assert terms.with_error(1.1107207, 0.0) == "1.1107"


def test_the_file_is_written_whole(view, tmp_path, monkeypatch, undrawn):
    monkeypatch.setattr(certificate_page, "view_of", lambda *given, **settings: view)
    path = write_certificate_report(view.proof, RING, QuadraticLyapunov.of(P), tmp_path / "new" / "cert.html", title="Ring")
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [file.name for file in path.parent.iterdir()] == ["cert.html"]

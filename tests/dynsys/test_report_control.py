"""The report of a control run: its numbers are those of the run, its lines are where they belong, and nothing is fetched or run."""

import base64
import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dynsys.config import Options
from dynsys.control.controller import LinearFeedback, RecedingHorizon
from dynsys.control.cost import Quadratic, Scaled
from dynsys.control.experience import Episode, Experience
from dynsys.control.history import Row
from dynsys.control.known import PUBLISHED
from dynsys.control.loop import Controlled
from dynsys.control.play import Played
from dynsys.control.reward import LearnedReward
from dynsys.control.settings import ControlSettings, EnvironmentSettings
from dynsys.control.task import Seen, Task
from dynsys.models.random_features import RandomFeatures
from dynsys.report import control_figures as figures, control_words as words, still
from dynsys.report.content import number
from dynsys.report.control_page import render_control, write_control_report
from dynsys.status import Status

EVIL = "<script>alert(1)</script><img src=x onerror=\"document.title='gone'\">]]></style> $\\frac{ &amp; 'q'"
VOID = {"meta", "img", "source", "br"}
NAN = float("nan")


class Page(HTMLParser):
    """Tags with their attributes, and text by the tag that holds it; fails if tags are not closed in order."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.tags, self.texts, self.open = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def text(self, *tags):
        return " ".join(text for holder, text in self.texts if holder in tags)

    def sections(self):
        return [attributes["id"] for attributes in self.of("section")]


def episode(N=3, K=1, T=40, seed=0, *, scale=1.0, truncated=True):
    """Waves; the rewards add up to -scale T."""
    t = np.arange(T + 1)[:, None] / 5
    seen = np.cos(t + np.arange(N)[None, :] + seed)
    return Episode(seen, np.clip(1.5 * np.sin(t[:-1] + np.arange(K)[None, :]), -1, 1), np.full(T, -scale), False, truncated, seed)


def row(i, **changes):
    fields = {"episode": i, "steps": 40 * (i + 1), "length": 40, "total": -100.0 / (i + 1), "ended": "truncated", "error": 0.1**i}
    fields |= {"fit_seconds": 0.25, "plan_median": 6.0, "plan_late": 9.0, "kind": "planned"}
    return Row(**(fields | changes))


def feedback(N=3, K=1, limit=2.0):
    return LinearFeedback(np.zeros((K, N)), np.zeros(N), np.zeros(K), -limit * np.arange(1, K + 1), 0.5 * limit * np.arange(1, K + 1))


def controlled(N=3, K=1, *, id="Pendulum-v1", **changes):
    """Three episodes, the first one random, and four that were played, with returns -40, -80, -20 and -60."""
    experience = Experience(tuple(episode(N, K, seed=70 + i) for i in range(3)))
    history = (row(0, kind="random", error=NAN, plan_median=NAN, plan_late=NAN, fit_seconds=0.0), row(1), row(2, ended="cut off"))
    played = Played(
        tuple(episode(N, K, seed=1_000_000 + i, scale=s) for i, s in enumerate((1.0, 2.0, 0.5, 1.5))), np.linspace(2.0, 30.0, 159)
    )
    task = Task(Seen(Quadratic.of([1.0, 0.1], [0.001], angles=(0,)), (0,)), "0,1", "swing up")
    settings = ControlSettings(EnvironmentSettings(id), steps=120, episodes=4)
    fields = {"controller": feedback(N, K), "models": (), "task": task, "experience": experience, "history": history, "played": played}
    return Controlled(**(fields | {"settings": settings, "status": Status.SUCCESS} | changes))


def learned(N, K, *, noise=0.0):
    """A controller on a learned reward, (u^2 and noise), of one episode of waves."""
    met = Experience(tuple(episode(N, K, seed=i) for i in range(3)))
    before, inputs, _, _ = met.rows()
    rewards = -np.sum(inputs**2, axis=1) + noise * np.random.default_rng(0).normal(size=len(inputs))
    reward = LearnedReward.from_steps(list(before), list(inputs), list(rewards), key=0)
    xs, us = met.series()
    model = RandomFeatures.from_series(xs, inputs=us, features=20)
    return RecedingHorizon.of(model, Scaled(reward, 3.0), low=-np.ones(K), high=np.ones(K)), model


@pytest.fixture(scope="module")
def found():
    return controlled()


@pytest.fixture(scope="module")
def page(found):
    return Page(render_control(found, command="dynsys control Pendulum-v1 --out runs/p"))


def test_the_page_has_every_section_and_two_pictures_of_each_figure_with_a_text(page):
    assert page.sections() == ["returns", "trajectories", "error", "timing", "played", "history", "task", "settings"]
    assert page.text("title") == page.text("h1") == "Pendulum-v1: planning on random-features"
    wide, narrow = page.of("img"), page.of("source")
    assert len(wide) == len(narrow) == 4
    for image, source in zip(wide, narrow, strict=True):
        assert len(image["alt"]) > 40
        sizes = []
        for data in (image["src"], source["srcset"]):
            png = base64.b64decode(data.removeprefix("data:image/png;base64,"))
            assert png.startswith(b"\x89PNG")
            sizes.append(int.from_bytes(png[16:20]))
        assert sizes == [2000, 860]  # inches by 200 dots
        assert source["media"] == "(max-width: 640px)"
    assert "−50 ± 12.9" in wide[0]["alt"]


def test_nothing_is_fetched_and_nothing_runs(page):
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "form", "base"}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "srcset", "href"):
            assert attributes.get(name, "#").startswith(("data:image/png;base64,", "#"))
    policy = next(a["content"] for a in page.of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "script" not in policy
    assert "url(" not in page.text("style")
    assert "@import" not in page.text("style")


def test_the_lead_says_what_the_summary_says(page, found):
    about = found.played.summary()
    lead = page.text("li")
    assert f"{number(about['mean'], 4)} ± {number(about['standard_error'])} (standard error)" in lead
    # by hand: returns -40, -80, -20, -60 have mean -50 and standard error sqrt(2000 / 3) / 2
    assert "over 4 played episodes: −50 ± 12.9" in lead
    assert "the worst is −80" in lead
    assert "120 environment steps in 3 episodes, 40 of them with random inputs" in lead
    # 2 to 30 ms, evenly: median and mean 16 ms, 62.5 a second
    assert "takes 16 ms (median; 95 %: 28.6 ms), 62.5 decisions per second" in lead
    assert "best, RL Zoo −151 after 20,000 steps" in lead
    assert not [a for a in page.of("div") if a.get("class") == "warning"]


def test_the_tables_hold_episodes_history_task_and_settings(page):
    cells = page.text("td")
    assert re.search(r"1000001 −80 40 truncated", cells)
    assert re.search(r"0 70 −100 40 40 – 0 – – random truncated", cells)
    assert re.search(r"2 72 −33.333 40 120 0.01 0.25 6 9 planned cut off", cells)
    for part in (
        "swing up",
        "known as a function (Quadratic)",
        "observations 0 and 1 are cosine and sine of an angle",
        "1, within [−2, 1]",
    ):
        assert part in cells
    assert 'id = "Pendulum-v1"' in page.text("pre")
    assert "dynsys control Pendulum-v1 --out runs/p" in page.text("pre")


@pytest.fixture
def undrawn(monkeypatch):
    """The figures of a page, which are made but not rasterised: that takes most of the time."""
    made = []
    monkeypatch.setattr(still, "encoded", lambda figure, format, dpi: made.append(figure) or b"")
    monkeypatch.setattr(still, "few_colours", lambda png: png)
    return made


def lines(axes, style=None):
    """Heights of the level lines of a panel, of one line style or of all."""
    drawn = [line for line in axes.get_lines() if len(line.get_ydata()) == 2 and len(set(line.get_ydata())) == 1]
    return sorted(float(line.get_ydata()[0]) for line in drawn if style is None or line.get_linestyle() == style)


@pytest.mark.parametrize("wide", [True, False])
def test_limits_are_dashed_lines_in_the_panels_of_the_inputs_only(wide):
    found = controlled(4, 2)
    low, high = words.limits_of(found)
    assert_allclose(low, [-2, -4])
    assert_allclose(high, [1, 2])
    shown = words.chosen(found.played.episodes)
    figure = figures.trajectories_figure(shown, words.names_of(4, "0,1"), low, high, wide, inputs=2)
    panels = {axes.get_ylabel(): axes for axes in figure.axes if axes.get_visible()}
    observed = ["obs 0 (cos)", "obs 1 (sin)", "obs 2", "obs 3"]
    assert {name: lines(axes, "--") for name, axes in panels.items()} == {name: [] for name in observed} | {
        "input 0": [-2.0, 1.0],
        "input 1": [-4.0, 2.0],
    }
    for axes in (panels["input 0"], panels["input 1"]):
        assert axes.get_ylim()[0] < lines(axes, "--")[0]
        assert lines(axes, "--")[1] < axes.get_ylim()[1]
    drawn = panels["input 1"].get_lines()[1]
    assert_allclose(drawn.get_ydata(), shown[1][1].inputs[:, 1])
    assert_allclose(panels["obs 2"].get_lines()[0].get_ydata(), shown[0][1].observations[:, 2])


def test_infinite_limits_are_not_drawn():
    found = controlled(controller=LinearFeedback(np.zeros((1, 3)), np.zeros(3), np.zeros(1), np.full(1, -np.inf), np.full(1, 3.0)))
    shown = words.chosen(found.played.episodes)
    figure = figures.trajectories_figure(shown, words.names_of(3, ""), *words.limits_of(found), True, inputs=1)
    assert lines(figure.axes[3], "--") == [3.0]


def test_returns_stand_at_their_steps_with_published_results_and_the_mean(found):
    returns = found.played.returns
    figure = figures.returns_figure(found.history, returns, (("A", 100, -70.0), ("B", 20_000, -30.0)), True)
    collected, played = figure.axes
    points = {line.get_label(): line.get_xydata().tolist() for line in collected.get_lines()}
    assert points["random inputs"] == [[40, -100]]
    assert points["planned"] == [[80, -50]]
    assert points["planned, cut off"] == [[120, -100 / 3]]
    assert "random inputs, cut off" not in points
    for axes in (collected, played):
        assert lines(axes) == [-70, -50, -30]
        band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
        assert_allclose([band.y0, band.y1], [-50 - np.sqrt(2000 / 3) / 2, -50 + np.sqrt(2000 / 3) / 2])
    assert [100.0, -70.0] in [line.get_xydata()[0].tolist() for line in collected.get_lines()]  # where A's steps are
    assert_allclose(played.get_lines()[0].get_ydata(), returns)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "A, 100 steps: −70" in legend
    assert "B, 20,000 steps: −30" in legend


def test_errors_and_timings_are_those_of_the_rows(found):
    (axes,) = figures.error_figure(found.history, True).axes
    assert axes.get_yscale() == "log"
    assert_allclose(axes.get_lines()[1].get_xydata(), [[80, 0.1], [120, 0.01]])
    assert figures.error_figure(found.history[:1], True) is None
    along, spread = figures.timing_figure(found.history, found.played.milliseconds, False).axes
    assert 20.0 in lines(along, "--")
    assert_allclose(along.get_lines()[0].get_xydata(), [[80, 6], [120, 6]])
    outline = spread.collections[0].get_paths()[0].vertices
    assert outline[:, 1].max() <= 159
    fifty = [line for line in spread.get_lines() if line.get_label() == "50 Hz"]
    assert_allclose(fifty[0].get_xdata(), 20.0)
    assert figures.timing_figure(found.history[:1], np.zeros(0), True) is None
    # 2 + 28 k / 158 > 20 for k > 101.57: 57 of 159
    assert "57 of 159 played decisions took longer" in words.captions(found)["timing"]


def test_first_median_and_worst_are_drawn_each_once():
    episodes = [episode(scale=s) for s in (1.0, 2.0, 0.5, 1.5)]
    assert [label for label, _ in words.chosen(episodes)] == ["first and median: −40", "worst: −80"]
    assert words.chosen(episodes)[1][1] is episodes[1]
    assert [label for label, _ in words.chosen(episodes[:1])] == ["played: −40"]
    assert words.chosen(()) == ()


def test_hostile_names_are_text(found, undrawn):
    task = dataclasses.replace(found.task, goal=EVIL)
    played = dataclasses.replace(found.played, status=Status.FAILED, reason=EVIL)
    page = Page(render_control(controlled(id=EVIL, task=task, played=played, status=Status.FAILED, reason=EVIL), command=EVIL))
    assert not page.of("script")
    assert len(page.of("img")) == 4
    assert page.text("title") == f"{EVIL}: planning on random-features"
    assert EVIL in page.text("p")
    assert EVIL in page.text("div")
    assert page.text("pre").startswith(EVIL)


def test_a_failed_environment_is_said_first_with_its_remedy(undrawn):
    found = controlled(played=None, status=Status.FAILED, reason="step 3: the environment's step raised RuntimeError: boom.")
    page = Page(render_control(found))
    assert page.sections() == ["returns", "error", "timing", "history", "task", "settings"]
    note = page.text("div")
    assert "failed: step 3: the environment's step raised RuntimeError: boom." in note
    assert Status.FAILED.remedy in note
    assert "No episode was played" in page.text("li")


def test_a_status_without_a_reason_is_said_with_its_remedy():
    assert words.warnings(controlled(status=Status.STOPPED)) == (f"stopped: {Status.STOPPED.remedy}",)


def test_a_broken_off_episode_is_said_to_be_one(found):
    played = Played((*found.played.episodes, episode(truncated=False)), np.zeros(0), Status.FAILED, "boom")
    assert words.warnings(controlled(played=played))[0].startswith("1 played episode ended before the task did")


def test_nothing_at_all_still_makes_a_page(undrawn):
    found = controlled(played=Played((), np.zeros(0)), history=(), experience=Experience())
    assert Page(render_control(found)).sections() == ["task", "settings"]
    found = controlled(played=Played((episode(),), np.array([3.0])), history=(), experience=Experience())
    page = Page(render_control(found))
    assert page.sections() == ["returns", "trajectories", "timing", "played", "task", "settings"]
    assert "One episode was played with the controller: a return of −40." in page.text("li")


def test_many_columns_are_cut_with_a_note(undrawn):
    found = controlled(40, 9, task=Task(), id="Wide-v0")
    page = Page(render_control(found))
    assert "The first 8 of 40 observed components are drawn. The first 6 of 9 inputs are drawn." in page.text("figcaption")
    assert "× …" in page.text("td")
    shown = [attributes["alt"] for attributes in page.of("img")]
    assert [alt.startswith("All observed components") for alt in shown] == [False, False, True, False, False]
    (image,) = figures.field_figure(found.played.episodes[0], False).axes[0].get_images()
    seen = found.played.episodes[0].observations
    assert_allclose(image.get_array()[7], seen[:, 7] / np.abs(seen[:, 7]).max())
    assert words.names_of(40, "") == tuple(f"obs {i}" for i in range(8))


def test_a_learned_reward_says_how_far_it_errs():
    controller, model = learned(3, 2)
    found = controlled(3, 2, controller=controller, models=(model, model), task=Task())
    reward = words.learned_reward(found)
    assert reward is not None
    assert reward.error < 0.01
    rows = dict(words.task_rows(found))
    assert rows["cost"] == f"learned from the rewards; errs by {number(100 * reward.error)} % of their spread on held-out steps"
    assert rows["model"].endswith("2 members, planned on together")
    assert rows["inputs"] == "2, within [−1, 1]"
    assert not words.warnings(found)
    noisy, _ = learned(3, 2, noise=100.0)
    assert "learned reward errs" in words.warnings(dataclasses.replace(found, controller=noisy))[0]


def test_iterations_of_a_search_are_costs_and_their_plot_has_no_published_returns(undrawn):
    rows = tuple(row(i, kind="iteration", total=-1000.0 / (i + 1), error=NAN, plan_median=NAN, plan_late=NAN) for i in range(40))
    rows = (*rows, row(40, kind="iteration", total=float("-inf"), error=NAN, plan_median=NAN, plan_late=NAN))
    settings = ControlSettings(method="local-ilqr")
    found = controlled(history=rows, settings=settings, experience=Experience())
    page = Page(render_control(found))
    assert page.text("h1") == "Pendulum-v1: learned locally-linear iLQR"
    assert "1,640 environment steps in 41 iterations" in page.text("li")
    assert "error" not in page.sections()
    assert "41 rows" in page.text("summary")
    assert "∞" in page.text("td")
    assert "1 500 40 80 – 0.25 – – iteration truncated" in page.text("td")
    cost, played = undrawn[0].axes
    assert cost.get_yscale() == "log"
    assert lines(cost) == []
    assert_allclose(cost.get_lines()[0].get_ydata()[:40], 1000.0 / np.arange(1, 41))
    assert lines(played) == [-157, -151, -50]


def test_published_results_are_of_the_environment_as_it_comes(found):
    assert words.published(found) == PUBLISHED["Pendulum-v1"]
    settings = ControlSettings(EnvironmentSettings("Pendulum-v1", Options((("g", 5.0),))))
    other = controlled(settings=settings)
    assert words.published(other) == ()
    assert words.published(controlled(id="Wide-v0")) == ()
    assert "left out: they are of the environment without g=5.0" in words.captions(other)["returns"]


def test_the_file_is_whole_or_not_there(found, tmp_path, monkeypatch, undrawn):
    path = tmp_path / "new" / "report.html"
    assert write_control_report(found, path) == path
    Page(path.read_text(encoding="utf-8"))
    monkeypatch.setattr("dynsys.report.control_page.render_control", lambda *given, **named: "\ud800")  # can't be written as UTF-8
    whole = path.read_bytes()
    with pytest.raises(UnicodeEncodeError):
        write_control_report(found, path)
    assert path.read_bytes() == whole
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]

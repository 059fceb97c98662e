"""The page: complete without a network, safe against what the data are called, and showing the numbers that it was given."""

import base64
import dataclasses
import functools
import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dynsys.errors import DataError, MissingExtra
from dynsys.report import page as page_module, render, write_report

from . import report_cases as cases

EVIL = "<script>alert(1)</script><img src=x onerror=\"document.title='gone'\">]]></style> $\\frac{ &amp; 'q'"
VOID = {"meta", "img", "br", "link", "circle", "line"}


class Page(HTMLParser):
    """Every tag with its attributes, every text by the tag that holds it; fails if tags are not closed in order."""

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

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def joined(self, *tags):
        return ["".join(text for holder, text in self.texts if holder == tag) for tag in tags]

    def visible(self):
        return " ".join(text for holder, text in self.texts if holder not in ("script", "style"))

    def figures(self):
        return json.loads(next(text for holder, text in self.texts if holder == "script" and text.startswith('{"attractor"')))


@functools.cache
def standard(n):
    return render(cases.content(n))


@pytest.fixture(scope="module")
def evil_text():
    names = (EVIL, "a&b <b>c</b>", "_hidden", "$x$", "</script>")
    texts = ("title", "command", "created", "units", "time_unit", "part", "settings_toml")
    changes = dict.fromkeys(texts, EVIL) | dict.fromkeys(("summary", "warnings", "data_notes"), (EVIL,))
    changes |= dict.fromkeys(("preparation", "versions"), ((EVIL, EVIL),))
    changes["histories"] = (dataclasses.replace(cases.history(), score_name=EVIL),)
    changes["histograms"] = (cases.Histogram(name=EVIL, unit=EVIL, true=np.arange(5.0), made=np.full(3, np.nan), distance=float("inf")),)
    changes["scores"] = (cases.Score(EVIL, 1.0, 1.0, EVIL, ((EVIL, EVIL),), (0.5, 2.0)),)
    return render(cases.content(5, names=names, seed_values=((EVIL, (1.0, 2.0)),), **changes))


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_every_dimension_has_all_sections_and_figures(n):
    page = Page(standard(n))
    assert [a["id"] for a in page.of("section")] == [
        "attractor",
        "series",
        "scores",
        "spectra",
        "events",
        "training",
        "choices",
        "settings",
    ]
    figures = page.figures()
    assert set(figures) == {"attractor", "overlay", "spectra", "histograms", "history"}
    assert {f"plot-{name}" for name in figures} == {a["id"] for a in page.of("div") if "plot" in a.get("class", "")}
    assert figures["attractor"]["webgl"] == (n != 2)
    assert [trace["meta"]["role"] for trace in figures["attractor"]["traces"]] == ["true", "made"]
    assert len(figures["overlay"]["traces"]) == 2 * n + 2
    stills = page.of("img")
    assert len(stills) == 5
    for image in stills:
        assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
        assert image["alt"]
    assert ("principal components" in page.visible()) == (n > 3)
    assert ("Delay coordinates" in page.visible()) == (n == 1)


def unpacked(spec):
    return np.frombuffer(base64.b64decode(spec["bdata"]), {"f4": "<f4", "f8": "<f8"}[spec["dtype"]])


def test_figures_hold_the_series_that_were_given():
    content = cases.content(3)
    figures = Page(standard(3)).figures()
    true, made = figures["attractor"]["traces"]
    for trace, values in ((true, content.true), (made, content.made)):
        for axis, column in zip("xyz", values.T, strict=True):
            assert_allclose(unpacked(trace[axis]), column, atol=1e-6)  # float32
    first = figures["overlay"]["traces"][0]
    assert_allclose(unpacked(first["x"]), np.arange(200) * 0.05, rtol=1e-6)
    assert_allclose(unpacked(first["y"]), content.overlay_true[:, 0], atol=1e-6)
    spectrum = figures["spectra"]["traces"][1]
    assert_allclose(unpacked(spectrum["y"]), content.spectrum.made[1:, 0], rtol=1e-6)  # without frequency zero, which a log axis can't show
    loss = [trace for trace in figures["history"]["traces"] if trace["yaxis"] == "y"]
    assert [trace["meta"]["role"] for trace in loss] == ["other", "kept"]  # the chosen seed is drawn last, on top
    assert_allclose(unpacked(loss[1]["y"]), content.histories[0].loss, rtol=1e-6)


def test_the_numbers_are_in_the_tables():
    text = Page(standard(3)).visible()
    for part in (
        "d_stsp_binned",
        "0.25",
        "0.125",
        "bins=30, pad=0.1",
        "KL(true || made) in nats.",
        "1 of 3 not finite",
        "beat interval",
        "0.02",
    ):
        assert part in text
    for part in (
        "A model was fitted.",
        "One run died.",
        "3 rows were interpolated.",
        "dynsys fit orbit.csv",
        "[model]\nname = 'alrnn'",
        "2 min 5 s",
    ):
        assert part in text


def test_a_dead_free_run_and_empty_parts_leave_a_readable_page():
    true = cases.content(3).true
    made = true.copy()
    made[50:] = np.nan
    overlay = true[:200].copy()
    overlay[20:] = np.inf
    empty = cases.History(seed=0, steps=np.zeros(0, int), loss=np.zeros(0), alpha=np.zeros(0), scores=np.zeros(0))
    for changes in ({"made": np.full_like(true, np.nan), "histories": ()}, {"made": made, "overlay_made": overlay, "histories": (empty,)}):
        nothing = {"scores": (), "spectrum": None, "histograms": (), "summary": (), "warnings": (), "preparation": (), "data_notes": ()}
        page = Page(render(cases.content(3, **changes, **nothing, settings_toml="", versions=(), seed_values=())))
        assert set(page.figures()) == {"attractor", "overlay"}
        assert "of 600 points of the free run are not finite" in page.visible()
        assert [a["id"] for a in page.of("section")] == ["attractor", "series", "settings"]
        links = {a["href"] for a in page.of("a")}
        assert links == {"#attractor", "#series", "#settings"}


def test_nothing_is_loaded_from_anywhere(evil_text):
    for text in (standard(3), evil_text):
        page = Page(text)
        assert not page.of("link")
        assert not page.of("iframe")
        for _, attributes in page.tags:
            for name in ("src", "href", "srcset", "action", "data", "poster", "background"):
                assert attributes.get(name, "#").startswith(("#", "data:"))
            assert not any(name.startswith("on") for name in attributes)
            assert "url(" not in (attributes.get("style") or "")
        (style,) = page.joined("style")
        assert "@import" not in style
        assert "url(" not in style
        assert "showSendToCloud: false" in text  # plotly.js would offer to upload the chart


def test_only_our_three_scripts_may_run(evil_text):
    page = Page(evil_text)
    policy = next(a["content"] for a in page.of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")
    script_rule = re.search(r"script-src ([^;]*)", policy)[1]
    assert "unsafe-inline" not in script_rule
    assert "http" not in policy
    scripts = re.findall(r"<script>(.*?)</script>", evil_text, re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts]
    assert len(scripts) == 3
    assert sorted(hashes) == sorted(re.findall(r"'sha256-[^']*'", script_rule))
    assert len(page.of("script")) == 4  # and the data, which is no program
    assert evil_text.index("Content-Security-Policy") < evil_text.index("<script>")


def test_names_are_shown_and_not_run(evil_text):
    page = Page(evil_text)
    assert not [a for a in page.of("img") if not a["src"].startswith("data:image/png")]
    assert page.joined("title", "h1") == [EVIL, EVIL]
    assert page.visible().count(EVIL) >= 14
    assert EVIL not in evil_text
    figures = page.figures()
    shown = [
        axis["title"]["text"] for plot in figures.values() for key, axis in plot["layout"].items() if key.startswith(("xaxis", "yaxis"))
    ]
    shown += [trace["name"] for plot in figures.values() for trace in plot["traces"] if "name" in trace]
    assert any("script" in text for text in shown)
    for text in shown:  # plotly.js reads tags in its texts
        assert "<" not in text
        assert html.unescape(text).count("&lt;") == 0  # escaped once


def test_the_figure_data_are_strict_json_without_a_way_out(evil_text):
    data = re.search(r'<script type="application/json" id="figures">(.*?)</script>', evil_text, re.DOTALL)[1]
    assert "<" not in data
    json.loads(data, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_a_report_is_small_enough_to_send():
    content = cases.content(3, rows=100_000)
    text = render(content)
    assert len(text) < 6.5e6  # 4.8 MB of it is plotly.js
    for figure in Page(text).figures().values():
        for trace in figure["traces"]:
            assert len(unpacked(trace["x"])) <= 20_000


def test_writing_is_atomic(tmp_path, monkeypatch):
    monkeypatch.setattr(page_module, "render", lambda content: f"<p>{content.title} ✓")
    path = tmp_path / "deep" / "report.html"
    assert write_report(cases.content(2), path) == path
    assert path.read_text(encoding="utf-8") == "<p>A quasi-periodic orbit ✓"
    assert os.listdir(path.parent) == ["report.html"]

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(DataError, match="disk full"):
        write_report(cases.content(2, title="another"), path)
    assert path.read_text(encoding="utf-8") == "<p>A quasi-periodic orbit ✓"
    assert os.listdir(path.parent) == ["report.html"]


@pytest.mark.parametrize("package", ["plotly", "matplotlib"])
def test_a_missing_package_is_named_with_its_extra(package, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"needs {package}, .*pip install 'dynsys\[report\]'"):
        write_report(cases.content(2), tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

if CHROMIUM:

    def test_a_browser_draws_every_figure(evil_text, tmp_path):
        path = tmp_path / "report.html"
        path.write_text(evil_text, encoding="utf-8")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
        flags += ["--disable-component-update", "--disable-sync", "--virtual-time-budget=10000", f"--user-data-dir={tmp_path / 'profile'}"]
        done = subprocess.run([CHROMIUM, *flags, "--dump-dom", path.as_uri()], capture_output=True, timeout=120, check=True)
        page = done.stdout.decode()
        states = re.findall(r'<div class="(plot[^"]*)" id="plot-(\w+)"', page)
        frames = dict(zip([name for _, name in states], re.findall(r"<figure([^>]*)>", page), strict=True))
        assert set(frames) == {"attractor", "overlay", "spectra", "histograms", "history"}
        for state, name in states:  # drawn, or its still picture is shown because this browser has no WebGL
            assert "drawn" in state or (name == "attractor" and "still" in frames[name])
        assert f"<title>{html.escape(EVIL, quote=False)}</title>" in page

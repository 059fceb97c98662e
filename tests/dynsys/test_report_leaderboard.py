"""The leaderboard page: complete without a network, safe against what models are called, and showing the table's numbers."""

import base64
import hashlib
import html
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from dynsys.benchmark.leaderboard import table
from dynsys.benchmark.store import Row, Store
from dynsys.errors import DataError, UnknownName
from dynsys.report.content import number
from dynsys.report.leaderboard import render_leaderboard, write_leaderboard
from dynsys.report.leaderboard_data import GAP, Pictures, boards, facts

EVIL = "<script>alert(1)</script><img src=x onerror=\"document.title='gone'\">]]></style> &amp; 'q' λ✓"
VOID = {"meta", "img", "br", "link"}
SYSTEMS = ("Lorenz", "Rossler", "Chua", EVIL)
MODELS = ("esn", "nvar[degree=2]", "mean", EVIL)


def cell(model, system, seed=0, protocol="forecast-2023", status="success", reason="", **scores):
    return Row(
        protocol, system, model, seed, status, reason, tuple(scores.items()), seconds=0.5, versions=(("jax", "1.2"), ("machine", "x"))
    )


def orbit(rows=200):
    t = np.linspace(0, 4 * np.pi, rows)
    return np.stack([np.sin(t), np.cos(t), 0.2 * np.sin(3 * t)], axis=1)


@pytest.fixture
def store(tmp_path):
    """Four models on four systems, two seeds; failures, a divergence, infinities, a hole, hostile names everywhere."""
    made = Store(tmp_path / "r.sqlite")
    generator = np.random.default_rng(3)
    for i, model in enumerate(MODELS):
        for j, system in enumerate(SYSTEMS):
            if (i, j) == (2, 1):
                continue  # no row
            for seed in (0, 1):
                smape = float(generator.uniform(0, 200))
                row = cell(model, system, seed, smape=smape, vpt=smape / 50)
                if (i, j) == (0, 2):
                    row = cell(model, system, seed, status="failed", reason=f"ValueError: {EVIL}")
                elif (i, j, seed) == (1, 0, 1):
                    row = cell(model, system, seed, status="diverged", reason="not finite from point 3 on", smape=200.0, vpt=math.inf)
                elif (i, j) == (3, 3):
                    row = cell(model, system, seed, smape=math.nan, vpt=math.inf)
                made.add(row, *(orbit() * (1 + i), orbit()) if seed == 0 and row.status == "success" else ())
    made.add(cell("mean", "Lorenz", protocol=f"mine {EVIL}", smape=1.0))
    return made


class Page(HTMLParser):
    """Every tag with its attributes, every text by the tag that holds it; fails if tags are not closed in order."""

    def __init__(self, text):
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

    def visible(self):
        return " ".join(text for holder, text in self.texts if holder not in ("script", "style"))


def embedded(text):
    data = re.search(r'<script type="application/json" id="board-data">(.*?)</script>', text, re.DOTALL)[1]
    assert "<" not in data
    return json.loads(data, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def cells(text, kind):
    """The rows of the first table of a kind ('wide rank', 'heat'), as lists of texts."""
    found = re.search(rf'class="{kind}"[^>]*>(<table>.*?</table>)', text, re.DOTALL)[1]
    rows = re.findall(r"<tr>(.*?)</tr>", found, re.DOTALL)
    return [
        [html.unescape(re.sub(r"<[^>]*>", "", part)) for part in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)] for row in rows
    ]


def test_the_tables_are_there_without_scripts(store):
    text = render_leaderboard(store)
    found = table(store, "forecast-2023")
    rows = cells(text, "wide rank")
    assert [row[0] for row in rows[1:]] == [place.model for place in found.places]
    for row, place in zip(rows[1:], found.places, strict=True):
        assert row[1:5] == [number(value) for value in (place.median, place.lower, place.upper, place.rank)]
        assert row[5:] == [str(place.systems), f"{100 * place.failed:.0f} %", "0.5"]
    heat = cells(text, "heat")
    models = heat[0][1:]
    shown = {row[0]: dict(zip(models, row[1:], strict=True)) for row in heat[1:]}
    assert sorted(shown) == sorted(SYSTEMS)
    for i, place in enumerate(found.places):
        for j, system in enumerate(found.systems):
            want = {("mean", "Rossler"): "–", ("esn", "Chua"): "failed"}.get((place.model, system), number(found.values[i, j]))
            assert shown[system][place.model] == want
    visible = Page(text).visible()
    for part in ("Gilpin", "jax 1.2", "3 tasks failed or diverged", f"ValueError: {EVIL}", "need scripts", "user's own protocol"):
        assert part in visible


def test_nothing_is_loaded_and_only_our_two_scripts_may_run(store):
    text = render_leaderboard(store)
    page = Page(text)
    assert {tag for tag, _ in page.tags} & {"link", "iframe", "img", "object", "embed", "form", "base"} == set()
    for _, attributes in page.tags:
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in text
    assert "@import" not in text
    addresses = re.findall(r"https?://[^\"' ]*", text)
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}  # a name, fetched by nobody
    policy = next(a["content"] for a in page.of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")
    rule = re.search(r"script-src ([^;]*)", policy)[1]
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts]
    assert len(hashes) == 2
    assert sorted(rule.split()) == sorted(hashes)  # nothing else, 'unsafe-inline' least of all
    assert text.index("Content-Security-Policy") < text.index("<script>")
    assert "innerHTML" not in scripts[1]
    assert EVIL not in text
    assert len(page.of("script")) == 3
    assert len({a["id"] for _, a in page.tags if "id" in a}) == sum("id" in a for _, a in page.tags)


def test_the_embedded_numbers_are_those_of_the_rows(store):
    data = embedded(render_leaderboard(store))
    found, own = data["protocols"]
    assert (found["name"], own["name"]) == ("forecast-2023", f"mine {EVIL}")
    assert [score["name"] for score in found["scores"]] == ["smape", "vpt", "seconds"]
    assert [score["lower"] for score in found["scores"]] == [True, False, True]
    systems = [data["systems"][k][0] for k in found["systems"]]
    for score in found["scores"]:
        known = table(store, "forecast-2023", score["name"])
        order = [[place.model for place in known.places].index(model) for model in found["models"]]
        values = np.array([[math.nan if v is None else float(v) for v in line] for line in score["values"]])
        np.testing.assert_allclose(values, known.values[order][:, [known.systems.index(name) for name in systems]], rtol=1e-4)
    i, j = found["models"].index("esn"), systems.index("Chua")
    failed = next(entry for entry in found["trouble"] if entry[:2] == [i, j])
    assert failed[2:4] == [2, 0]
    assert data["reasons"][failed[4]].startswith("ValueError: <script>")
    assert found["counts"][found["models"].index("mean")][systems.index("Rossler")] == 0


def test_facts_of_systems():
    growth, polynomial = facts("Lorenz")
    assert polynomial is True
    assert growth == pytest.approx(0.9056 * 0.7598, rel=0.05)  # 0.9056: Sprott, Chaos and Time-Series Analysis (2003), table A.5
    assert facts("Chua")[1] is False
    assert facts(EVIL) == facts("nothing.toml") == (None, None)


def test_pictures_are_the_orbit_in_its_plane(store):
    found = boards(store, "forecast-2023", None, None)
    pictures = Pictures(store, found)
    shown = pictures.of(found[0])
    j = found[0].table.systems.index("Lorenz")
    points = np.frombuffer(base64.b64decode(pictures.texts[shown["truth"][j]]), np.uint8).reshape(-1, 2).astype(float)
    assert shown["line"][j] == 1
    assert 100 <= len(points) <= 200
    # two components of an orbit on a curve of unit speed: the picture fills its box but for the margin, and no point is outside
    assert points.max() < GAP
    np.testing.assert_allclose(points.min(axis=0), 0.12 / 1.24 * 255, atol=2)
    np.testing.assert_allclose(points.max(axis=0), 1.12 / 1.24 * 255, atol=2)
    assert abs(np.corrcoef(points.T)[0, 1]) < 0.1  # principal components do not go together
    same = pictures.texts[shown["made"][found[0].models.index("esn")][j]]
    assert same == pictures.texts[shown["truth"][j]]  # the model that is the truth
    larger = np.frombuffer(base64.b64decode(pictures.texts[shown["made"][found[0].models.index("mean")][j]]), np.uint8)
    assert (larger == GAP).any()  # three times as large: it leaves the frame


def test_one_model_on_one_system_and_wide_or_constant_or_single_columns(tmp_path):
    for k, truth in enumerate((np.zeros((50, 3)), np.sin(np.arange(200.0))[:, None], np.random.default_rng(0).normal(size=(1500, 3)))):
        store = Store(tmp_path / f"{k}.sqlite")
        store.add(cell("mean", "Henon", smape=0.0, vpt_periods=1.0, lyapunov=0.4), 1e30 * truth, truth)
        data = embedded(render_leaderboard(store))
        (only,) = data["protocols"]
        assert only["pictures"]["truth"] == [0]
        assert only["pictures"]["line"] == [int(k < 2)]  # white noise is dots
        assert "lyapunov" not in [score["name"] for score in only["scores"]]  # an exponent is no score
        assert data["systems"][0][1] is None  # a map has no period
    everything_failed = Store(tmp_path / "f.sqlite")
    everything_failed.add(cell("mean", "Henon", protocol="reconstruct", status="failed", reason="no"))
    assert "1 task failed or diverged" in render_leaderboard(everything_failed)


def test_only_what_was_asked_for(store):
    text = render_leaderboard(store, protocol="forecast-2023", score="vpt", systems=("Lorenz", "Chua"))
    (only,) = embedded(text)["protocols"]
    assert only["scores"][0]["name"] == "vpt"
    assert [row[0] for row in cells(text, "heat")[1:]] == ["Chua", "Lorenz"]
    assert [row[0] for row in cells(text, "wide rank")[1:]] == [
        place.model for place in table(store, "forecast-2023", "vpt", ("Lorenz", "Chua")).places
    ]
    with pytest.raises(UnknownName, match="score"):
        render_leaderboard(store, score="smap")
    with pytest.raises(DataError, match="no rows"):
        render_leaderboard(store, protocol="reconstruct")
    with pytest.raises(DataError, match="no rows"):
        render_leaderboard(store, systems=("Nothing",))


def test_writing_is_atomic_and_makes_the_folder(store, tmp_path):
    path = write_leaderboard(store, tmp_path / "deep" / "page.html")
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [entry.name for entry in path.parent.iterdir()] == ["page.html"]


class Memory(Store):
    """The whole benchmark without a file: 135 systems x 10 models x 10 protocols, each with pictures that are like no other."""

    def __init__(self):
        self.path = "memory"
        self.generator = np.random.default_rng(0)
        names, models = [f"System{j:03d}" for j in range(135)], [f"model-with-a-name[option={i}]" for i in range(10)]
        values = self.generator.lognormal(sigma=2, size=(10, 135, 10, 4)).tolist()
        scores = ("smape", "mase", "vpt", "vpt_periods")
        self.kept = {
            f"protocol-{p}": [
                cell(model, name, protocol=f"protocol-{p}", **dict(zip(scores, values[p][j][i], strict=True)))
                for j, name in enumerate(names)
                for i, model in enumerate(models)
            ]
            for p in range(10)
        }

    def rows(self, protocol=None):
        return self.kept[protocol] if protocol else [row for rows in self.kept.values() for row in rows]

    def picture(self, protocol, system, model=""):
        return self.generator.random((200, 3), dtype=np.float32)


def test_the_page_of_the_whole_benchmark_is_small():
    text = render_leaderboard(Memory())
    assert 1.5e6 < len(text.encode()) < 3e6
    data = embedded(text)
    assert 0.3 < data["share"] < 0.7  # not every system gets a picture; every number is there
    assert sum(place >= 0 for place in data["protocols"][0]["pictures"]["truth"]) == math.floor(135 * data["share"])
    assert all(len(line) == 135 for each in data["protocols"] for score in each["scores"] for line in score["values"])


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ACTS = """
const shown = document.querySelector("section.shown");
const order = () => [...shown.querySelectorAll(".rank tbody tr")].map((row) => [...row.children].map((cell) => cell.textContent));
const press = (key) => shown.querySelector(`.rank button[data-key="${key}"]`).click();
const sorted = () => [...shown.querySelectorAll(".rank th[aria-sort]")].map((cell) => [cell.textContent, cell.getAttribute("aria-sort")]);
const seen = { first: order(), at: sorted() };
press("model"); seen.byModel = order(); seen.byModelAt = sorted();
press("model"); seen.back = order(); seen.backAt = sorted();
seen.focus = document.activeElement.dataset.key;
const heat = () => [...shown.querySelectorAll(".heat tbody tr")].map((row) => [...row.children].map((cell) => cell.textContent));
seen.heat = heat(); seen.failed = shown.querySelector(".heat td.failed").title;
const box = shown.querySelector("input"); box.value = "lorenz, ross"; box.dispatchEvent(new Event("input"));
press("median"); seen.some = order(); seen.someHeat = heat();
box.value = ""; box.dispatchEvent(new Event("input"));
const score = shown.querySelector("select"); score.value = "1"; score.dispatchEvent(new Event("change"));
seen.vpt = order(); seen.vptAt = sorted();
seen.marks = shown.querySelectorAll(".scatter path[data-model]").length;
shown.querySelector(".legend button").click();
seen.fewer = shown.querySelectorAll(".scatter path[data-model]").length;
document.body.dataset.seen = JSON.stringify(seen);
location.hash = decodeURIComponent(document.querySelectorAll("nav a")[1].getAttribute("href").slice(1));
"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_a_browser_sorts_filters_and_draws(store, tmp_path):
    text = render_leaderboard(store)
    allowed = base64.b64encode(hashlib.sha256(ACTS.encode()).digest()).decode()  # the page runs nothing else than its own: allow the acts
    text = text.replace("script-src ", f"script-src 'sha256-{allowed}' ", 1).replace("</body>", f"<script>{ACTS}</script>\n</body>")
    path = tmp_path / "page.html"
    path.write_text(text, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", "--window-size=1300,4000"]
    page = ""
    for budget in (5_000, 30_000, 120_000):  # pictures are drawn when they come into view, which a loaded machine reports late
        last = [f"--virtual-time-budget={budget}", f"--user-data-dir={tmp_path / str(budget)}", "--dump-dom", path.as_uri()]
        page = subprocess.run([CHROMIUM, *flags, *last], capture_output=True, timeout=120, check=True).stdout.decode()
        if 'class="drawn"' in page:
            break
    assert "<title>Leaderboard</title>" in page
    seen = json.loads(html.unescape(re.search(r'data-seen="([^"]*)"', page)[1]))

    def lines(found):
        """The table's numbers as the page shows them, without the column of the bars."""
        return [[p.model, *(number(v) for v in (p.median, p.lower, p.upper)), "", number(p.rank), str(p.systems)] for p in found.places]

    whole = table(store, "forecast-2023")
    assert [line[:7] for line in seen["first"]] == lines(whole)
    assert seen["at"] == [["median", "ascending"]]
    assert [line[0] for line in seen["byModel"]] == sorted(MODELS)
    assert [line[0] for line in seen["back"]] == sorted(MODELS, reverse=True)
    assert (seen["byModelAt"], seen["backAt"], seen["focus"]) == ([["model", "ascending"]], [["model", "descending"]], "model")
    assert [line[:7] for line in seen["some"]] == lines(table(store, "forecast-2023", systems=("Lorenz", "Rossler")))
    assert sorted(line[0] for line in seen["someHeat"]) == ["Lorenz", "Rossler"]
    assert [line[:7] for line in seen["vpt"]] == lines(table(store, "forecast-2023", "vpt"))
    assert seen["vptAt"] == [["median", "descending"]]
    assert {line[0]: line[1:] for line in seen["heat"]} == {line[0]: line[1:] for line in cells(text, "heat")[1:]}
    assert seen["failed"].startswith("esn on Chua: failed (2 of 2 failed; ValueError: <script>")
    assert seen["marks"] > seen["fewer"] > 0  # the legend takes a model away
    shown = re.findall(r'<section class="protocol( shown)?"', page)
    assert shown == ["", " shown"]  # the other protocol, by its address, whatever it is called
    assert re.search(r'aria-current="true">mine', page)
    assert 'class="drawn"' in page

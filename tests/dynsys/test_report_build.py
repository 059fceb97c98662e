"""From a reconstruction to the contents of its report: which part is shown, in which units, and what is said of failures."""

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose

import dynsys
from dynsys.errors import InvalidValue
from dynsys.reconstruct.evaluation import run_from
from dynsys.report.build import content_of, write_report

from .fit_cases import TINY, circle


@pytest.fixture(scope="module")
def found():
    return dynsys.fit(circle(300), seeds=2, steps=20, set=TINY, progress=False)


@pytest.fixture(scope="module")
def content(found):
    return content_of(found, command="dynsys fit circle.csv")


def test_the_test_part_is_shown_beside_a_free_run_in_the_users_units(found, content):
    test = found.parts[-1].trajectories[0]
    assert content.part == "test"
    assert_allclose(content.true, test, atol=1e-12)
    prepared = found.preparation.forward(found.parts[-1]).trajectories[0]
    assert_allclose(content.made, found.preparation.backward(run_from(found.model, prepared[:1], len(test))[0]), atol=1e-12)
    assert_allclose(content.made[0], test[0], atol=1e-5)  # the model's float32
    assert (content.names, content.units, content.dt, content.time_unit) == (("a", "b"), "mV", pytest.approx(0.1), "s")
    assert len(content.overlay_true) == len(content.overlay_made) == len(test)
    assert content.delay is None


def test_every_seed_has_its_curves_and_one_was_chosen(found, content):
    assert [history.seed for history in content.histories] == [0, 1]
    assert [history.chosen for history in content.histories].index(True) == found.outcome.best
    for history in content.histories:
        rows = [row for row in found.history if row.seed == history.seed and row.score is not None]
        assert history.steps.tolist() == [10, 20]
        assert history.loss.tolist() == [row.loss for row in rows]
        assert history.scores.tolist() == [row.score.total for row in rows]
        assert history.kept == found.outcome.kept_at[history.seed]


def test_settings_scores_and_command_are_those_of_the_run(found, content):
    assert [score.value for score in content.scores] == [score.value for score in found.scores]
    assert content.command == "dynsys fit circle.csv"
    assert "clipped-shallow-plrnn" in content.settings_toml
    assert content.seed_values[0][1] == found.outcome.scores
    # A 2, W1 and W2 16 each, h1 2, h2 8, C none
    assert "44 parameters" in content.summary[0]
    assert dict(content.versions)["dynsys"] == dynsys.__version__


def test_a_model_that_fails_is_said_to(found):
    status = tuple("not_finite_loss" for _ in found.outcome.status)
    failed = dataclasses.replace(found, outcome=dataclasses.replace(found.outcome, status=status), scores=())
    warnings = content_of(failed).warnings
    assert any(line.startswith("not_finite_loss: ") and "learning rate" in line for line in warnings)
    assert any("no scores" in line for line in warnings)


def test_parts_are_named_by_the_split(found):
    whole = dataclasses.replace(found, parts=(circle(80),))
    assert content_of(whole).part == "whole"
    no_test = dataclasses.replace(
        found, parts=found.parts[:2], settings=dataclasses.replace(found.settings, split=type(found.settings.split)(0.15, 0.0))
    )
    assert content_of(no_test).part == "validation"
    short = dataclasses.replace(found, parts=(*found.parts[:2], circle(10)))
    assert content_of(short).part == "validation"


def test_longer_runs_and_events(found):
    def crossings(values, dt):
        up = np.flatnonzero((values[:-1, 0] < 10.0) & (values[1:, 0] >= 10.0))
        return [("period", "s", dt * np.diff(up))]

    content = content_of(found, points=200, events=crossings)
    assert content.made.shape == content.true.shape == (45, 2)  # events are counted in the whole run, the part is what is shown
    period = content.histograms[0]
    assert (period.name, period.unit) == ("period", "s")
    # a turn of 2 pi in steps of .2 rad takes 31.4 steps of .1 s; parts are never joined
    assert_allclose(period.true.mean(), 3.14, atol=0.06)


def test_without_data_there_is_nothing_to_show(found, tmp_path):
    loaded = dynsys.load(found.save(tmp_path / "model.h5"))
    with pytest.raises(InvalidValue, match=r"loaded without its data; pass series="):
        write_report(loaded, tmp_path / "report.html")
    assert write_report(loaded, tmp_path / "against.html", series=circle(100)).exists()
    with pytest.raises(InvalidValue, match="no part of the recording has 20 rows"):
        write_report(dataclasses.replace(found, parts=(circle(10),)), tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_the_page_is_written(found, tmp_path):
    page = write_report(found, tmp_path / "report.html", title="A circle").read_text()
    assert "A circle" in page
    assert "clipped-shallow-plrnn" in page

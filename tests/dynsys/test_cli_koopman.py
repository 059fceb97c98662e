"""`dynsys spectrum` and the Koopman pictures of `dynsys figures`, run in this process: what they print and write, and how they refuse."""

import dataclasses
import json

import numpy as np
import pytest

import dynsys
from dynsys.analysis.koopman_file import read_spectrum
from dynsys.models.autoregressive import VAR
from dynsys.models.koopman.dmd import HankelDMD
from dynsys.models.koopman.edmd import EDMD
from dynsys.structure_commands import koopman_of
from dynsys_datasets.series import write_series

from .fit_cases import circle

PICTURES = {f"koopman_{name}" for name in ("eigenvalues", "pseudospectrum", "eigenfunctions", "modes", "measure")}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A rotation by 0.2 every 0.1 s, as an EDMD of degree 1 and a VAR, and data of it."""
    folder = tmp_path_factory.mktemp("koopman")
    base = dynsys.fit(circle(600), model="mean", progress=False)
    x = [np.asarray(one) for one in base.preparation.forward(circle(600)).trajectories]
    models = {
        "turn": EDMD.from_series(x, degree=1, ridge=0.0),
        "other": VAR.from_series(x, delays=1),
        "delays": HankelDMD.from_series(x, delays=40),
    }
    for name, model in models.items():
        (folder / name).mkdir()
        dataclasses.replace(base, model=model, last=model).save(folder / name / "model.h5")
    write_series(circle(600), folder / "circle.csv")
    write_series(circle(60).select("a"), folder / "narrow.csv")
    write_series(circle(40), folder / "short.csv")
    write_series(circle(60, dt=0.3), folder / "slow.csv")
    return folder


def test_spectrum_prints_and_writes_what_is_known_of_a_rotation(run, place):
    code, out, err = run("spectrum", place / "turn", place / "circle.csv")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"EDMD, tested on {place / 'circle.csv'}"
    assert "frequency [1/s]" in lines[1]
    row = next(line for line in lines if "0.9801 ± 0.1987i" in line)  # cos 0.2, sin 0.2
    assert row.split()[-1] == "trusted"
    assert f"{0.2 / (2 * np.pi * 0.1):.4g}" in row
    assert "3 of 3 eigenpairs have a residual of at most 0.05" in out
    assert lines[-1] == f"spectrum: {place / 'turn' / 'spectrum.json'}"
    read = read_spectrum(place / "turn" / "spectrum.json")
    assert read.verdicts == ("trusted",) * 3
    np.testing.assert_allclose(np.sort(read.spectrum.frequencies), [-1 / np.pi, 0, 1 / np.pi], atol=1e-9)


def test_spectrum_as_json_elsewhere(run, place, tmp_path):
    words = ("spectrum", place / "turn", place / "circle.csv", "--json", "--steps", 3, "--limit", 0.2, "--out", tmp_path / "s.json")
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    told = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert told == json.loads((tmp_path / "s.json").read_text())
    assert (told["steps"], told["limit"], told["pairs_of_points"], told["dt"]) == (3, 0.2, 597, 0.1)
    assert told["columns"] == ["a", "b"]
    assert [row["verdict"] for row in told["eigenpairs"]] == ["trusted"] * 3
    assert max(row["residual"] for row in told["eigenpairs"]) < 1e-6  # noiseless, and linear
    assert len(told["vectors"]) == len(told["vectors"][0]) == 3


def test_without_a_recording_nothing_is_tested(run, place, tmp_path):
    code, out, _ = run("spectrum", place / "turn", "--out", tmp_path / "s.json")
    assert code == 0
    assert "3 eigenvalues, not tested. Name a recording after the run folder" in out
    assert "trusted" not in out
    assert read_spectrum(tmp_path / "s.json").verdicts == ("not tested",) * 3


def test_figures_draw_the_spectrum_with_the_steps_and_limit_that_were_asked_for(run, place, tmp_path, monkeypatch):
    run("spectrum", place / "turn", place / "circle.csv", "--steps", 5, "--limit", 0.3)
    run("structure", place / "turn", "--starts", 20, "--points", 1000)
    from dynsys.report import koopman_view as module

    seen, real = {}, module.koopman_view
    monkeypatch.setattr(module, "koopman_view", lambda *given, **about: seen.update(about) or real(*given, **about))
    monkeypatch.setattr("dynsys.report.structure_basins.basin_map", lambda *_, **__: (None, "not here"))  # which takes seconds
    code, _, err = run("figures", place / "turn", place / "circle.csv", "--format", "svg", "--out", tmp_path / "made")
    assert (code, err) == (0, "")
    assert {path.stem for path in (tmp_path / "made").iterdir()} >= PICTURES
    assert (seen["steps"], seen["limit"]) == (5, 0.3)
    none, why = koopman_of(place / "turn", dynsys.load(place / "turn"), None, None, (0, 1))
    assert none is None
    assert why == (("koopman_*", "it is tested on data: name the recording after the run folder"),)


def test_of_another_model_nothing_is_drawn(place):
    assert koopman_of(place / "other", dynsys.load(place / "other"), circle(600), "circle.csv", (0, 1)) == (None, ())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{p}"], "there is no model here"),
        (["{p}/other", "{p}/circle.csv"], "its model is a VAR, which has no Koopman spectrum. Models that have one: "),
        (["{p}/turn", "{p}/absent.csv"], "absent.csv"),
        (["{p}/turn", "{p}/narrow.csv"], "narrow.csv"),
        (["{p}/turn", "{p}/slow.csv"], "sampled every 0.3"),
        (["{p}/delays", "{p}/short.csv"], "no two pairs of points 1 steps apart after 40 delays; give longer trajectories"),
        (["{p}/turn", "{p}/circle.csv", "--steps", "0"], "--steps 0: must be at least 1"),
        (["{p}/turn", "{p}/circle.csv", "--limit", "0"], "--limit 0.0: must be positive"),
        (["{p}/turn", "{p}/circle.csv", "--out", "{p}/s.txt"], "ends in .json"),
        (["{p}/turn", "{p}/circle.csv", "--out", "{p}/none/s.json"], "there is no folder"),
    ],
)
def test_wrong_uses_are_one_line(run, place, words, message):
    code, _, err = run("spectrum", *(word.format(p=place) for word in words))
    assert code == 2
    assert err.startswith("dynsys: ")
    assert err.count("\n") == 1
    assert message in err


def test_the_models_that_are_named_have_a_spectrum(run, place):
    _, _, err = run("spectrum", place / "other")
    named = err.split("Models that have one: ")[1].split(". ")[0].split(", ")
    assert {"edmd", "dmd", "hankel-dmd"} <= set(named)
    assert not {"var", "alrnn", "esn"} & set(named)


def test_stopped_by_the_user(run, place, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("dynsys.report.koopman_view.koopman_spectrum", stop)
    code, _, err = run("spectrum", place / "turn", place / "circle.csv")
    assert code == 130
    assert "dynsys: stopped." in err

"""The command line, run in this process: what it writes, what it says, and how it refuses."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import dynsys
from dynsys import registry
from dynsys.reconstruct import pipeline
from dynsys_datasets.series import read_series, write_series

from .fit_cases import TINY, circle, driven

FIT = ["--seeds", "1", "--steps", "10", *(part for change in TINY for part in ("--set", change))]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a recording, one of other columns, a driven one, and the run of a tiny fit of the first."""
    folder = tmp_path_factory.mktemp("cli")
    write_series(circle(300), folder / "circle.csv")
    write_series(circle(60).select("a"), folder / "narrow.csv")
    write_series(circle(60, dt=0.3), folder / "slow.csv")
    write_series(circle(5), folder / "short.csv")
    write_series(driven(200), folder / "driven.csv")
    (folder / "words.csv").write_text("a,b\n1,2\n3,n/a\n5,6\n")
    (folder / "empty.csv").write_text("")
    (folder / "text.h5").write_text("no HDF5")
    (folder / "settings.toml").write_text("[training]\nstps = 3\n")
    dynsys.fit(read_series(folder / "circle.csv"), seeds=1, steps=10, set=TINY, out=folder / "run", progress=False)
    return folder


def test_fit_writes_a_run_folder_and_says_what_it_did(run, place, tmp_path):
    code, out, err = run("fit", place / "circle.csv", "--out", tmp_path / "new", *FIT, "--no-report")
    assert (code, err) == (0, "")
    assert {path.name for path in (tmp_path / "new").iterdir()} >= {
        "config.toml",
        "model.h5",
        "checkpoint.h5",
        "history.csv",
        "scores.json",
    }
    lines = out.splitlines()
    assert lines[0].startswith("TimeSeries(300 points every 0.1 s, a, b)")
    assert any(line.startswith("step 10/10  loss ") for line in lines)  # plain lines: this is no terminal
    assert "\x1b" not in out
    assert "\r" not in out
    assert any("d_stsp_binned" in line for line in lines)
    assert any(line.startswith("seed 0: validation score") for line in lines)
    assert lines[-1] == f"run folder: {tmp_path / 'new'}"
    with open(tmp_path / "new" / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["10"]
    assert float(rows[0]["loss"]) > 0
    stored = json.loads((tmp_path / "new" / "scores.json").read_text(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert stored["training"]["best"] == 0
    np.testing.assert_array_equal(dynsys.load(tmp_path / "new").model.W1, dynsys.load(place / "run").model.W1)
    again = run("fit", place / "circle.csv", "--out", tmp_path / "new", *FIT, "--no-report", "--quiet")
    assert again == (0, "", "")


def test_fit_writes_a_report(run, place):
    code, out, err = run("fit", place / "circle.csv", "--out", place / "run", *FIT)
    assert (code, err) == (0, "")
    assert f"report: {place / 'run' / 'report.html'}" in out
    page = (place / "run" / "report.html").read_text()
    assert "dynsys fit" in page
    assert "clipped-shallow-plrnn" in page


def test_evaluate_prints_all_scores(run, place):
    code, out, _ = run("evaluate", place / "run", place / "circle.csv", "--horizon", 10, "--starts", 2)
    assert code == 0
    for name in ("d_stsp_binned", "d_h", "valid_prediction_time", "smape", "mase", "lyapunov_max", "KL(true || made)"):
        assert name in out
    code, out, _ = run("evaluate", place / "run", place / "circle.csv", "--horizon", 10, "--starts", 2, "--json")
    found = {score["name"]: score for score in json.loads(out)}
    assert found["d_h"]["definition"]
    assert found["d_h"]["settings"]


def test_forecast_continues_a_file(run, place, tmp_path):
    code, out, _ = run("forecast", place / "run", "--from", place / "circle.csv", "--steps", 7, "--out", tmp_path / "next.csv")
    assert code == 0
    assert out.startswith(f"{tmp_path / 'next.csv'}: TimeSeries(7 points every 0.1 s, a, b)")
    made = read_series(tmp_path / "next.csv")
    wanted = dynsys.load(place / "run").forecast(circle(300), 7)
    np.testing.assert_array_equal(made.trajectories[0], wanted.trajectories[0])
    np.testing.assert_allclose(made.times[0], 29.9 + 0.1 * np.arange(1, 8))


def test_simulate_a_system_and_a_model(run, place, tmp_path):
    code, _, _ = run("simulate", "Lorenz", "--points", 20, "--out", tmp_path / "lorenz.h5", "--set", "rho=20", "--dt", 0.01)
    assert code == 0
    assert read_series(tmp_path / "lorenz.h5").lengths == (20,)
    assert read_series(tmp_path / "lorenz.h5").notes == ("parameters changed: rho=20",)
    code, _out, _ = run("simulate", place / "run", "--points", 20, "--out", tmp_path / "made.tsv")
    assert code == 0
    np.testing.assert_array_equal(
        read_series(tmp_path / "made.tsv").trajectories[0], dynsys.load(place / "run").simulate(20).trajectories[0]
    )


def test_simulate_sweeps_trajectories_and_observed_states(run, tmp_path):
    out = tmp_path / "sweep.csv"
    code, _, err = run("simulate", "Henon", "--points", 5, "--out", out, "--sweep", "a=0.2:0.4:0.1", "--observe", "y,x", "--transient", 9)
    assert (code, err.count("\n")) == (0, 1)  # the note
    series = read_series(out)
    assert (series.names, series.input_names, series.lengths) == (("y", "x"), ("a",), (5, 5, 5))
    np.testing.assert_allclose([rows[0, 0] for rows in series.inputs], [0.2, 0.3, 0.4])
    code, _, _ = run("simulate", "OrnsteinUhlenbeck", "--points", 20, "--out", tmp_path / "walk.h5", "--trajectories", 3, "--step", 0.01)
    assert code == 0
    assert read_series(tmp_path / "walk.h5").lengths == (20, 20, 20)


def test_report_against_another_recording(run, place, tmp_path):
    code, out, err = run("report", place / "run", place / "circle.csv", "--out", tmp_path / "page.html")
    assert (code, err) == (0, "")
    assert out == f"report: {tmp_path / 'page.html'}\n"
    assert "<html" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("kind", ["models", "systems", "metrics", "solvers", "samples"])
def test_list_names_everything(run, kind):
    code, out, _ = run("list", kind)
    assert code == 0
    lines = out.splitlines()
    assert len(lines) >= 3
    assert all(len(line.split("  ", 1)) == 2 and line.split("  ", 1)[1].strip() for line in lines)
    if kind in ("models", "metrics", "solvers"):
        assert [line.split()[0] for line in lines] == list(registry.names(kind.removesuffix("s")))


def test_version_and_help(run):
    assert run("--version") == (0, f"dynsys {dynsys.__version__}\n", "")
    code, out, _ = run("fit", "--help")
    assert code == 0
    assert "--seeds" in out
    assert run("fit", "-h")[:2] == (code, out)
    assert run("dataset", "build", "-h")[0] == 0


WRONG = {
    "missing file": ("fit {p}/absent.csv --out {t}/r", "absent.csv"),
    "unknown extension": ("fit {p}/settings.toml --out {t}/r", "settings.toml"),
    "text in a column": ("fit {p}/words.csv --out {t}/r", "n/a.*--missing interpolate"),
    "empty file": ("fit {p}/empty.csv --out {t}/r", "empty.csv"),
    "damaged file": ("fit {p}/text.h5 --out {t}/r", "text.h5"),
    "too short": ("fit {p}/short.csv --out {t}/r --set training.window=10", "5|4|3"),
    "unknown column": ("fit {p}/circle.csv --out {t}/r --columns a,c", "'c'"),
    "unknown model": ("fit {p}/circle.csv --out {t}/r --model alrn", "unknown model 'alrn'.*Did you mean 'alrnn'"),
    "unknown setting": ("fit {p}/circle.csv --out {t}/r --set training.stps=3", "unknown setting 'stps'.*Did you mean 'steps'"),
    "unknown section": ("fit {p}/circle.csv --out {t}/r --set trainin.steps=3", "Did you mean 'training'"),
    "wrong value": ("fit {p}/circle.csv --out {t}/r --set training.steps=many", "expected a whole number, got 'many'"),
    "no value": ("fit {p}/circle.csv --out {t}/r --set training.steps", "expected section.name=value"),
    "unknown option of a model": ("fit {p}/circle.csv --out {t}/r --set model.hiden=3", "Did you mean 'hidden'"),
    "no steps": ("fit {p}/circle.csv --out {t}/r --steps 0", "training.steps must be at least 1"),
    "bad config": (
        "fit {p}/circle.csv --out {t}/r --config {p}/settings.toml",
        "settings.toml.*'training.stps'.*Did you mean 'training.steps'",
    ),
    "absent config": ("fit {p}/circle.csv --out {t}/r --config {p}/absent.toml", "absent.toml: can't be read as a settings file"),
    "folder of another run": ("fit {p}/circle.csv --out {p}/run --steps 10", "holds .* of a run with other settings or data"),
    "out is a file": ("fit {p}/circle.csv --out {p}/words.csv --steps 10", "words.csv: is a file; a run needs a folder"),
    "out under a file": ("fit {p}/circle.csv --out {p}/words.csv/r --steps 10", "words.csv"),
    "unknown sample": ("fit sample:ecgg --out {t}/r", "ecg"),
    "columns of a sample": ("fit sample:ecg --out {t}/r --time t", "samples are read as they are; leave out --time"),
    "no model there": ("evaluate {p} {p}/circle.csv", "there is no model here"),
    "model is a table": ("evaluate {p}/circle.csv {p}/circle.csv", "can't be read as a model file"),
    "other columns": ("evaluate {p}/run {p}/narrow.csv", "'b'"),
    "other sampling": (
        "evaluate {p}/run {p}/slow.csv",
        r"sampled every 0.3, but the model was trained on data sampled every 0.1.*Call \.resample\(dt=0\.1\)",
    ),
    "no starts": ("evaluate {p}/run {p}/circle.csv --starts 0", "starts must be at least 1"),
    "no steps ahead": ("forecast {p}/run --from {p}/circle.csv --steps 0 --out {t}/x.csv", "steps must be at least 1"),
    "unknown format": ("forecast {p}/run --from {p}/circle.csv --steps 3 --out {t}/x.xls", "can't write '.xls'"),
    "folder absent": ("forecast {p}/run --from {p}/circle.csv --steps 3 --out {t}/no/x.csv", "there is no folder"),
    "out is a folder": ("forecast {p}/run --from {p}/circle.csv --steps 3 --out {d}", "d.csv: is a folder"),
    "inputs that are not wanted": (
        "forecast {p}/run --from {p}/circle.csv --steps 3 --out {t}/x.csv --inputs-from {p}/circle.csv",
        "trained without inputs",
    ),
    "unknown system": (
        "simulate Lorentz --points 5 --out {t}/x.csv",
        "^dynsys: unknown system 'Lorentz'; [0-9]+ are known. Did you mean 'Lorenz'",
    ),
    "out is looked at first": ("simulate Lorentz --points 5 --out {t}/x.xls", "can't write '.xls'"),
    "unknown parameter": ("simulate Lorenz --points 5 --out {t}/x.csv --set roh=3", "roh.*rho"),
    "parameter of words": ("simulate Lorenz --points 5 --out {t}/x.csv --set rho=big", "expected name=number, such as rho=30"),
    "unknown solver": ("simulate Lorenz --points 5 --out {t}/x.csv --solver tsit6", "tsit5"),
    "no points": ("simulate Lorenz --points 0 --out {t}/x.csv", "points must be"),
    "parameters of a model": ("simulate {p}/run --points 5 --out {t}/x.csv --set rho=3", "is a reconstruction; --set belongs to systems"),
    "sweep of a model": ("simulate {p}/run --points 5 --out {t}/x.csv --sweep rho=3,4", "is a reconstruction; --sweep"),
    "sweep of words": ("simulate Lorenz --points 5 --out {t}/x.csv --sweep rho=big", "such as rho=20:40:5"),
    "endless sweep": ("simulate Lorenz --points 5 --out {t}/x.csv --sweep rho=2:3:0", "such as rho=20:40:5"),
    "sweep of a stranger": ("simulate Lorenz --points 5 --out {t}/x.csv --sweep roh=2,3", "Did you mean 'rho'"),
    "unknown state": ("simulate Henon --points 5 --out {t}/x.csv --observe z", "z"),
    "no trajectories": ("simulate Henon --points 5 --out {t}/x.csv --trajectories 0", "n_trajectories must be"),
    "a step of a flow": ("simulate Lorenz --points 5 --out {t}/x.csv --step 0.1", "belongs to the kinds delay, sde and field"),
    "absent system file": ("simulate absent.toml --points 5 --out {t}/x.csv", "absent.toml"),
    "report without a model": ("report {t} {p}/circle.csv", "there is no model here"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_uses_are_one_line_on_stderr(run, place, tmp_path, case):
    (tmp_path / "d.csv").mkdir()
    command, words = WRONG[case]
    code, _, err = run(*(word.format(p=place, t=tmp_path, d=tmp_path / "d.csv") for word in command.split()))
    assert code == 2, err
    assert err.startswith("dynsys: ")
    assert err.count("\n") == 1
    import re

    assert re.search(words, err), err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("words", [["list", "modles"], ["fit"], ["fit", "x.csv"], ["evaluate", "--nothing"], ["nothing"]])
def test_usage_errors_end_with_2(run, words):
    code, _, err = run(*words)
    assert code == 2
    assert "Error" in err
    assert "Traceback" not in err


def test_unexpected_trouble_of_the_file_system_is_one_line_too(run, place, monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", "secret.csv")

    monkeypatch.setattr("dynsys_datasets.series.read_series", refuse)
    assert run("fit", place / "circle.csv", "--out", tmp_path / "r") == (2, "", "dynsys: secret.csv: Permission denied.\n")


def test_ctrl_c_is_one_line_and_130(run, place, monkeypatch, tmp_path):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "train", stop)
    code, _, err = run("fit", place / "circle.csv", "--out", tmp_path / "r", *FIT)
    assert code == 130
    assert err == "\ndynsys: stopped. The fit goes on from here when the same command is given again.\n"


def test_a_driven_model_from_the_command_line(run, place, tmp_path):
    code, _, err = run(
        "fit", place / "driven.csv", "--columns", "x0,x1", "--inputs", "u0", "--out", tmp_path / "r", *FIT, "--no-report", "-q"
    )
    assert (code, err) == (0, "")
    assert dynsys.load(tmp_path / "r").model.n_inputs == 1
    write_series(driven(30).replace(values=driven(30).inputs, inputs=None, names=["u0"], input_names=[]), tmp_path / "coming.csv")
    code, _, err = run(
        "forecast", tmp_path / "r", "--from", place / "driven.csv", "--inputs", "u0", "--columns", "x0,x1",
        "--steps", 12, "--inputs-from", tmp_path / "coming.csv", "--out", tmp_path / "next.csv",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert read_series(tmp_path / "next.csv").lengths == (12,)


def test_the_installed_command_has_no_traceback():
    program = os.path.join(os.path.dirname(sys.executable), "dynsys")
    done = subprocess.run([program, "fit", "absent.csv", "--out", "nowhere"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("dynsys: absent.csv")
    assert "Traceback" not in done.stderr

"""The commands that compare: what they write, what they print, and how a mistake reads."""

import pytest


def test_from_the_data_to_the_page(run, tmp_path):
    data, out = tmp_path / "data.h5", tmp_path / "out"
    code, told, _ = run("dataset", "build", "--out", data, "--systems", "Henon,Lorenz", "--long", 0, "--validation", 0, "--jobs", 2)
    assert code == 0
    assert "2 systems, 0 were there, 0 failed" in told
    words = ("benchmark", "--models", "mean,persistence", "--systems", "Henon,Lorenz", "--data", data, "--out", out, "--jobs", 1)
    code, told, _ = run(*words)
    assert code == 0
    assert "4 tasks: 0 had a row, 4 ran, 0 failed" in told
    assert "forecast-2023: smape, 2 systems, 1 seed" in told
    code, told, _ = run(*words)
    assert "4 tasks: 4 had a row, 0 ran" in told
    code, told, _ = run("leaderboard", out, "--score", "mase")
    assert code == 0
    assert "forecast-2023: mase" in told
    assert "persistence" in (out / "leaderboard.html").read_text(encoding="utf-8")


def test_a_system_that_fails_is_named_and_the_exit_code_says_so(run, tmp_path):
    own = tmp_path / "runaway.toml"
    own.write_text(
        'name = "Runaway"\nkind = "flow"\nsource = "None."\nabout = "It diverges."\nstate = ["x"]\n'
        '[equations]\nx = "x**2"\n[start]\nx = 1\n[time]\ndt = 0.01\nperiod = 1\n'
    )
    code, told, _ = run("dataset", "build", "--out", tmp_path / "d.h5", "--systems", f"Henon,{own}", "--long", 0, "--jobs", 1)
    assert code == 1
    assert "Runaway: the integration ended at t =" in told.replace("\n", " ")


def test_show_tells_what_the_file_says(run):
    code, told, _ = run("show", "Lorenz")
    assert code == 0
    for part in ("sigma*(y - x)", "beta = 8/3", "Lyapunov exponents", "Journal of the Atmospheric Sciences"):
        assert part in told
    code, told, _ = run("show", "Lorenz", "--latex")
    assert told.startswith(r"\begin{aligned}")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("show", "Lorens"), "Did you mean 'Lorenz'"),
        (("leaderboard", "nowhere"), "there are no results"),
        (("benchmark", "--models", "esm", "--out", "x"), "Did you mean 'esn'"),
        (("benchmark", "--models", "esn", "--protocols", "forecast", "--out", "x"), "unknown protocol 'forecast'"),
        (("benchmark", "--models", "esn", "--systems", "Lorens", "--out", "x"), "Did you mean 'Lorenz'"),
        (("dataset", "build", "--out", "x.h5", "--points", "1"), "points must be at least 2"),
    ],
)
def test_mistakes_are_one_line(run, tmp_path, monkeypatch, words, part):
    monkeypatch.chdir(tmp_path)
    code, told, complaint = run(*words)
    assert code == 2
    assert complaint.startswith("dynsys: ")
    assert part in complaint
    assert complaint.count("\n") == 1
    assert told == ""

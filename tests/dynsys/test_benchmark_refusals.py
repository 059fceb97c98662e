"""What the benchmark refuses before anything runs, and how it ends when it is stopped."""

import json
import os
import signal
import subprocess
import sys
import time

import h5py
import pytest

import dynsys.benchmark
from dynsys import cli
from dynsys.benchmark import Dataset, Recipe, Row, Store, benchmark, build
from dynsys.errors import DataError, InvalidValue, UnknownName

SMALL = Recipe(points=1200, validation=0, long=0, check=False)
QUICK = {"jobs": 1, "systems": "Henon"}


@pytest.mark.parametrize(
    ("model", "change", "error", "words"),
    [
        ("nvar[delys=3]", {}, UnknownName, "option of nvar 'delys'.*Did you mean 'delays'"),
        ("nvar[delays=x]", {}, InvalidValue, "model.delays: expected int, got 'x'"),
        ("nvar[training.steps=5]", {}, InvalidValue, "fitted in closed form"),
        ("alrnn[n_rel=3]", {}, UnknownName, "Did you mean 'n_relu'"),
        ("alrnn[training.stps=3]", {}, UnknownName, "Did you mean 'steps'"),
        ("mean", {"executor": "lokal"}, UnknownName, "Did you mean 'local'"),
        ("mean", {"jobs": 0}, InvalidValue, "jobs must be at least 1"),
        ("mean", {"timeout": -1.0}, InvalidValue, "timeout must be a positive number"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(tmp_path, model, change, error, words):
    with pytest.raises(error, match=words):
        benchmark([model], out=tmp_path / "out", **(QUICK | change))
    assert not (tmp_path / "out").exists()


OWN = 'name = "Own"\nkind = "map"\nsource = "s"\nabout = "a"\nstate = ["x"]\n[equations]\nx = "4*x*(1-x)"\n[start]\nx = 0.3\n'


def test_series_of_another_file_of_the_same_name_are_not_taken(tmp_path):
    own, settings = tmp_path / "own.toml", {"out": tmp_path / "out", "jobs": 1}
    own.write_text(OWN.replace('"Own"', '"Henon"'))
    benchmark(["mean"], systems="Henon", **settings)
    with pytest.raises(InvalidValue, match="'Henon' come from another file"):
        benchmark(["mean"], systems=str(own), **settings)
    own.write_text(OWN)
    assert benchmark(["mean"], systems=str(own), **settings).ran == 1
    assert benchmark(["mean"], systems=str(own), **settings).ran == 0
    own.write_text(OWN.replace("4*", "3.9*"))
    with pytest.raises(InvalidValue, match="'Own' come from another file or an earlier version"):
        benchmark(["mean"], systems=str(own), **settings)


def test_two_systems_of_one_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own.toml").write_text(OWN)
    with pytest.raises(InvalidValue, match="have the same name 'Own'"):
        build(tmp_path / "d.h5", systems=[str(tmp_path / folder / "own.toml") for folder in "ab"], recipe=SMALL)


def test_overwrite_spares_a_file_that_is_no_data_set(tmp_path):
    path = tmp_path / "recording.h5"
    with h5py.File(path, "w") as file:
        file["mine"] = [1.0, 2.0]
    for overwrite in (False, True):
        with pytest.raises(DataError, match="is no data set of dynsys"):
            build(path, systems="Henon", recipe=SMALL, overwrite=overwrite)
    with h5py.File(path) as file:
        assert set(file) == {"mine"}
    with pytest.raises(DataError, match="is a folder"):
        build(tmp_path, systems="Henon", recipe=SMALL)
    with pytest.raises(InvalidValue, match="jobs must be at least 1"):
        build(tmp_path / "new.h5", systems="Henon", recipe=SMALL, jobs=0)


def test_data_that_were_begun_for_another_protocol_are_made_anew(tmp_path):
    parts = tmp_path / "data.h5.parts"
    parts.mkdir()
    recipe = {"check": True, "gap": 300, "long": 7, "per_period": 100, "points": 300, "rtol": 1e-9, "validation": 0}
    (parts / "recipe.json").write_text(json.dumps(recipe | {"version": dynsys.__version__}))
    assert benchmark(["mean"], out=tmp_path, **QUICK).failed == 0
    assert Dataset(tmp_path / "data.h5").recipe.points == 1200


def test_data_of_another_version_are_named(tmp_path):
    path = build(tmp_path / "data.h5", systems="Henon", recipe=SMALL, jobs=1).path
    with h5py.File(path, "a") as file:
        file.attrs["recipe"] = json.dumps(json.loads(str(file.attrs["recipe"])) | {"version": "0.0.1"})
    with pytest.raises(InvalidValue, match=r"was made by dynsys 0\.0\.1.*--data"):
        benchmark(["mean"], out=tmp_path, **QUICK)


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        "import subprocess\nfrom dynsys.benchmark.workers import work\nif __name__ == '__main__':\n"
        f"    list(work(subprocess.call, [('a', (['sh', '-c', 'echo $PPID > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; "
        "exec sleep 60'],))], jobs=1))\n"
    )
    running = subprocess.Popen([sys.executable, str(script)], start_new_session=True)
    try:
        _until(lambda: (tmp_path / "pid").exists())
        worker = int((tmp_path / "pid").read_text())
        assert _alive(worker)
        running.kill()
        running.wait()
        _until(lambda: not _alive(worker))
    finally:
        os.killpg(running.pid, signal.SIGKILL)


def _until(true, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("words", [["dataset", "build", "--out", "d.h5"], ["benchmark", "--out", "b", "--models", "mean"]])
def test_ctrl_c_is_one_line_and_130(monkeypatch, capsys, words):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(dynsys.benchmark, words[1] if words[0] == "dataset" else words[0], stop)
    monkeypatch.setattr(sys, "argv", ["dynsys", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 130
    assert "goes on from here when the same command is given again" in capsys.readouterr().err


def test_the_table_shows_the_settings_of_a_model(tmp_path, monkeypatch, capsys):
    store = Store(tmp_path / "results.sqlite")
    for delays in (1, 2):
        store.add(Row("forecast-2023", "Lorenz", f"nvar[delays={delays}]", 0, "success", scores=(("smape", 1.0 * delays),)))
    monkeypatch.setattr(sys, "argv", ["dynsys", "leaderboard", str(tmp_path), "--no-html"])
    with pytest.raises(SystemExit):
        cli.main()
    shown = capsys.readouterr().out
    assert "nvar[delays=1]" in shown
    assert "nvar[delays=2]" in shown

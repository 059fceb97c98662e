"""A run that is killed at any moment and started again ends, to the bit, where the uninterrupted one does."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

import dynsys
from dynsys.errors import DataError
from dynsys.reconstruct import pipeline
from dynsys.reconstruct.folder import RunFolder
from dynsys_datasets.series import TimeSeries

from .fit_cases import TINY, circle

SETTINGS = (*TINY, "training.checkpoints=100", "training.noise=0.1")


def told(folder: Path) -> dict[str, object]:
    """Everything that a finished run folder says, except how long it took."""
    found: dict[str, object] = {name: (folder / name).read_bytes() for name in ("config.toml", "history.csv", ".fingerprint")}
    scores = json.loads((folder / "scores.json").read_text())
    scores["training"].pop("seconds")
    found["scores.json"] = scores

    def note(name, item):
        if isinstance(item, h5py.Dataset) and name != "about":
            found[name] = (item.dtype.str, item.shape, item[()].tobytes())
        found[f"{name} attributes"] = dict(item.attrs)

    with h5py.File(folder / "model.h5") as file:
        file.visititems(note)
        about = json.loads(bytes(file["about"][()]))
    about["outcome"].pop("seconds")
    found["about"] = about
    return found


def assert_same(folder: Path, reference: Path) -> None:
    ours, wanted = told(folder), told(reference)
    assert ours.keys() == wanted.keys()
    assert [key for key in wanted if ours[key] != wanted[key]] == []
    left = [path.name for path in folder.iterdir() if path.name.endswith(".part")]
    assert set(path.name for path in folder.iterdir()) - set(left) == set(path.name for path in reference.iterdir())


# killed from outside

SCRIPT = """
import sys, dynsys
from fit_cases import circle
dynsys.fit(circle(), out=sys.argv[1], seeds=2, steps=int(sys.argv[2]), set=sys.argv[3:], progress=lambda told: print(told.step, flush=True))
print("done", flush=True)
"""


def start(folder: Path, steps: int, cache: Path) -> subprocess.Popen:
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parent),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),  # so that starting again costs a second, not ten
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-c", SCRIPT, str(folder), str(steps), *SETTINGS]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> None:
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert out.splitlines()[-1] == "done"


def kill_again_and_again(tmp_path: Path, steps: int, kills: int, seed: int) -> None:
    finish(start(tmp_path / "whole", steps, tmp_path / "cache"))
    draw, reached = random.Random(seed), []
    for _ in range(kills):
        process = start(tmp_path / "killed", steps, tmp_path / "cache")
        lines = [process.stdout.readline() for _ in range(draw.randint(1, max(1, steps // 10 // (kills + 1))))]
        time.sleep(draw.random() * 0.03)
        process.kill()
        process.communicate()
        reached.append(lines[-1].strip())
        if "done" in lines[-1] or not lines[-1]:
            break
    assert len(reached) >= min(kills, 2), "the run ended before it could be killed: raise its steps"
    finish(start(tmp_path / "killed", steps, tmp_path / "cache"))
    steps_seen = [int(text) for text in reached if text.isdigit()]
    assert steps_seen == sorted(steps_seen)  # every start went on from where the last one was
    assert_same(tmp_path / "killed", tmp_path / "whole")


def test_a_run_killed_at_random_moments_ends_as_the_uninterrupted_one(tmp_path):
    kill_again_and_again(tmp_path, steps=300, kills=3, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_a_run_killed_many_times_ends_as_the_uninterrupted_one(tmp_path, seed):
    kill_again_and_again(tmp_path, steps=1500, kills=12, seed=seed)


# stopped inside, at every single write


class Killed(BaseException):
    """Like SIGKILL, nothing catches it."""


@pytest.fixture
def fit(monkeypatch):
    """`fit` of one small recording with one trainer, so that it is compiled once; more settings and another series can be given."""
    return lambda folder, *changes, series=None, **about: dynsys.fit(
        circle() if series is None else series,
        seeds=2,
        steps=40,
        set=[*SETTINGS, *changes],
        out=folder,
        progress=about.pop("tell", False),
        **about,
    )


@pytest.fixture(scope="module")
def trainers():
    return {}


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch, trainers):
    make = pipeline.make_trainer

    def remembered(settings, data, series, models):
        key = (settings, data.trajectories[0].tobytes())
        if key not in trainers:
            trainers[key] = make(settings, data, series, models)
        return trainers[key]

    monkeypatch.setattr(pipeline, "make_trainer", remembered)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    dynsys.fit(circle(), seeds=2, steps=40, set=SETTINGS, out=folder, progress=False)
    return folder


def test_a_run_that_ends_at_any_write_is_taken_up_again(fit, whole, tmp_path, monkeypatch):
    """The process dies just before, or just after, each of the files is put in its place."""
    replace, count = os.replace, []
    monkeypatch.setattr(os, "replace", lambda *paths: (count.append(Path(paths[1]).name), replace(*paths))[1])
    fit(tmp_path / "counted")
    names = list(count)
    assert names[:2] == [".fingerprint", "config.toml"]
    assert names[-1] == "model.h5"
    assert names.count("checkpoint.h5") == 4
    for moment in range(len(names)):
        for after in (False, True):
            folder, calls = tmp_path / f"{moment}-{after}", iter(range(10**6))

            def die(source, target, calls=calls, moment=moment, after=after):
                if next(calls) == moment:
                    if after:
                        replace(source, target)
                    raise Killed
                replace(source, target)

            monkeypatch.setattr(os, "replace", die)
            with pytest.raises(Killed):
                fit(folder)
            monkeypatch.setattr(os, "replace", replace)
            fit(folder)
            assert_same(folder, whole)


@pytest.mark.parametrize("where", ["after a chunk", "while scoring"])
def test_ctrl_c_keeps_the_last_whole_chunk(fit, whole, tmp_path, monkeypatch, where):
    def stop(told):
        if told.step == 30:
            raise KeyboardInterrupt

    changes = ["training.checkpoints=1"] if where == "after a chunk" else []
    make, calls = pipeline.make_scorer, iter(range(100))

    def interrupted(*arguments):
        scorer = make(*arguments)

        def score(model):
            if next(calls) == 5:  # the third checkpoint, its second seed: the first one's best is already replaced
                raise KeyboardInterrupt
            return scorer(model)

        return score

    with monkeypatch.context() as patch:
        if where == "while scoring":
            patch.setattr(pipeline, "make_scorer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "run", *changes, tell=stop if changes else False)
    rows = (tmp_path / "run" / "history.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * (3 if where == "after a chunk" else 2)
    again = fit(tmp_path / "run", *changes)
    assert len(again.history) == 8
    if changes:
        fit(tmp_path / "other", *changes)
    assert_same(tmp_path / "run", tmp_path / "other" if changes else whole)


def test_a_finished_run_is_returned_at_once(fit, whole, monkeypatch):
    monkeypatch.setattr(pipeline, "make_trainer", lambda *_: pytest.fail("trained again"))
    before = told(whole)
    found = fit(whole)
    assert told(whole) == before
    assert len(found.parts) == 3
    assert len(found.history) == 8
    assert found.outcome.best in (0, 1)


def altered(row: int) -> TimeSeries:
    values = circle().trajectories[0].copy()
    values[row, 1] += 1e-9
    return circle().replace(values=values)


@pytest.mark.parametrize(
    ("changes", "about"),
    [
        (("training.learning_rate=0.5",), {}),
        ((), {"series": altered(0)}),
        ((), {"series": altered(-1)}),  # in the test part
        ((), {"series": circle(399)}),
        ((), {"series": circle(dt=0.2)}),
    ],
)
def test_a_folder_of_another_run_is_refused_and_left_alone(fit, whole, changes, about):
    before = told(whole)
    with pytest.raises(DataError, match=r"run: holds config.toml, .* of a run with other settings or data. Give the same ones"):
        fit(whole, *changes, **about)
    assert told(whole) == before


def test_overwrite_begins_anew(fit, whole, tmp_path):
    fit(tmp_path / "run", "training.learning_rate=0.5")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    fit(tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    (tmp_path / "run" / "notes.txt").unlink()
    assert_same(tmp_path / "run", whole)
    with pytest.raises(DataError):  # settings that can't work delete nothing
        fit(tmp_path / "run", "training.window=1000", overwrite=True)
    assert_same(tmp_path / "run", whole)


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "text":
        path.write_text("hello")
    elif how == "empty":
        path.write_bytes(b"")
    else:
        with h5py.File(path, "r+") as file:
            if how == "array gone":
                del file["state/0"]
            elif how == "other shape":
                del file["state/0"]
                file["state/0"] = np.zeros(3)
            elif how == "other run":
                file.attrs["fingerprint"] = np.bytes_("0")
            elif how == "history":
                del file["history"]
                file["history"] = np.frombuffer(b"[[1, 2]]", np.uint8)
            elif how == "best":
                del file["best_score"]
                file["best_score"] = np.zeros(7)


@pytest.mark.parametrize("how", ["cut", "text", "empty", "array gone", "other shape", "history", "best", "other run"])
def test_a_damaged_checkpoint_says_what_to_do(fit, tmp_path, how):
    def stop(told):
        if told.step == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "run", tell=stop)
    damage(tmp_path / "run" / "checkpoint.h5", how)
    words = (
        "belongs to a run with other settings"
        if how == "other run"
        else "checkpoint.h5: can't be read as a checkpoint .*Delete it to begin anew"
    )
    with pytest.raises(DataError, match=words):
        fit(tmp_path / "run")


def test_a_finished_run_survives_the_loss_of_its_checkpoint(fit, tmp_path):
    fit(tmp_path / "run")
    damage(tmp_path / "run" / "checkpoint.h5", "text")
    assert fit(tmp_path / "run").history == ()


def test_places_that_are_no_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is a file; a run needs a folder"):
        RunFolder(tmp_path / "file").is_finished("mark", overwrite=False)
    with pytest.raises(DataError, match="can't be made or emptied"):
        RunFolder(tmp_path / "file" / "under").begin("mark", "", overwrite=False)
    (tmp_path / "run" / "model.h5").mkdir(parents=True)
    with pytest.raises(DataError, match="can't be made or emptied"):
        RunFolder(tmp_path / "run").begin("mark", "", overwrite=True)
    with pytest.raises(DataError, match=r"holds model\.h5"):
        RunFolder(tmp_path / "run").is_finished("mark", overwrite=False)

"""The benchmark as a whole: rows that are right, no row twice, none lost by a kill, and a reason for every failure; on Ray as well."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from dynsys.benchmark import Dataset, Recipe, Store, benchmark, build
from dynsys.benchmark.executor import execute
from dynsys.benchmark.runner import DATA, RESULTS
from dynsys.errors import InvalidValue, UnknownName
from dynsys.metrics import smape

SYSTEMS = "Chen,Halvorsen,Lorenz,Rossler"
SMALL = Recipe(points=1200, validation=0, long=0, check=False)
PROTOCOL = """
about = "A small one."
kind = "forecast"
[data]
train = 200
test = 50
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return build(tmp_path_factory.mktemp("data") / "data.h5", systems=SYSTEMS, recipe=SMALL, jobs=2).path


def keys(folder):
    return [row.key for row in Store(folder / RESULTS).rows()]


def test_the_mean_and_persistence_score_what_the_formula_says(tmp_path, data):
    told = []
    ran = benchmark(["mean", "persistence"], systems=SYSTEMS, data=data, out=tmp_path, jobs=2, progress=told.append)
    assert (ran.tasks, ran.before, ran.ran, ran.failed) == (8, 0, 8, 0)
    assert [seen.done for seen in told] == list(range(1, 9))
    rows = {(row.system, row.model): row for row in Store(ran.path).rows()}
    x = Dataset(data).series("Rossler").arrays["series"]
    mean = np.broadcast_to(x[:1000].mean(axis=0), (200, 3))
    last = np.broadcast_to(x[999], (200, 3))
    assert rows["Rossler", "mean"].score("smape") == pytest.approx(smape(x[1000:], mean), rel=1e-9)
    assert rows["Rossler", "persistence"].score("smape") == pytest.approx(smape(x[1000:], last), rel=1e-9)
    assert rows["Rossler", "mean"].memory_mb > 20
    assert dict(rows["Rossler", "mean"].versions)["jax"]
    assert Store(ran.path).picture("forecast-2023", "Rossler").shape == (200, 3)


def test_a_second_run_repeats_nothing_and_adds_what_is_new(tmp_path, data):
    first = benchmark(["mean"], systems="Lorenz", data=data, out=tmp_path, jobs=1)
    before = (tmp_path / RESULTS).stat().st_mtime_ns
    again = benchmark(["mean"], systems="Lorenz", data=data, out=tmp_path, jobs=1)
    assert (again.before, again.ran) == (1, 0)
    assert first.path == again.path
    more = benchmark(["mean", "persistence"], systems="Lorenz,Chen", protocols=["forecast-100"], seeds=3, data=data, out=tmp_path, jobs=1)
    assert more.ran == 4  # models without randomness, data without noise: one seed
    noisy = benchmark(["mean"], systems="Lorenz", protocols=["forecast-noise-5"], seeds=3, data=data, out=tmp_path, jobs=1)
    assert noisy.ran == 3
    assert len(keys(tmp_path)) == len(set(keys(tmp_path))) == 8
    assert before > 0


def test_the_data_are_made_when_they_are_not_given(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(PROTOCOL)
    ran = benchmark(["persistence"], systems="Henon", protocols=[str(path)], out=tmp_path / "out", jobs=1)
    assert ran.failed == 0
    assert Dataset(tmp_path / "out" / DATA).systems == ("Henon",)
    assert keys(tmp_path / "out") == [("mine", "Henon", "persistence", 0)]


def test_a_model_that_fails_is_a_row_with_its_reason_and_can_be_retried(tmp_path, data):
    ran = benchmark(["var[delays=100000]", "mean"], systems="Lorenz", data=data, out=tmp_path, jobs=1)
    assert (ran.ran, ran.failed) == (2, 1)
    failed = next(row for row in Store(ran.path).rows() if row.status == "failed")
    assert failed.model == "var[delays=100000]"
    assert failed.reason.startswith("VAR: no setting fits")
    assert benchmark(["var[delays=100000]"], systems="Lorenz", data=data, out=tmp_path, jobs=1).ran == 0
    assert benchmark(["var[delays=100000]"], systems="Lorenz", data=data, out=tmp_path, jobs=1, retry_failed=True).ran == 1


def test_a_system_without_data_is_a_row_with_its_reason(tmp_path, data):
    told = []
    ran = benchmark(["mean"], systems="Thomas,Lorenz", data=data, out=tmp_path, jobs=1, progress=told.append)
    assert ran.failed == 1
    assert (ran.before, ran.ran) == (0, 2)
    assert [(seen.done, seen.row.status) for seen in told] == [(1, "failed"), (2, "success")]
    assert "has no series of this system" in next(row for row in Store(ran.path).rows() if row.system == "Thomas").reason


def test_wrong_calls_are_refused_before_anything_runs(tmp_path, data):
    with pytest.raises(UnknownName, match="Did you mean 'persistence'"):
        benchmark(["persistance"], out=tmp_path, data=data)
    with pytest.raises(InvalidValue, match="named twice"):
        benchmark(["mean", "mean"], out=tmp_path, data=data)
    with pytest.raises(InvalidValue, match="at least one model"):
        benchmark([], out=tmp_path, data=data)
    assert not (tmp_path / RESULTS).exists()


def test_a_killed_run_goes_on_without_repeating_a_row(tmp_path, data):
    script = tmp_path / "run.py"
    arguments = f"['esn', 'nvar'], systems={SYSTEMS!r}, data={str(data)!r}, out={str(tmp_path)!r}, jobs=2"
    script.write_text(f"from dynsys.benchmark import benchmark\nif __name__ == '__main__':\n    benchmark({arguments})\n")
    running = subprocess.Popen([sys.executable, str(script)], start_new_session=True)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and running.poll() is None:
        if (tmp_path / RESULTS).exists() and len(keys(tmp_path)) >= 2:
            break
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    kept = {row.key: row for row in Store(tmp_path / RESULTS).rows()}
    assert 2 <= len(kept) < 8, "the kill came too late to test anything"
    ran = benchmark(["esn", "nvar"], systems=SYSTEMS, data=data, out=tmp_path, jobs=2)
    assert ran.ran == 8 - len(kept)
    rows = Store(ran.path).rows()
    assert len(rows) == len({row.key for row in rows}) == 8
    assert all(row.status == "success" for row in rows)
    for row in rows:  # what was there before is there unchanged
        assert row.key not in kept or row == kept[row.key]


def test_on_a_ray_cluster_of_two_nodes_every_row_is_there_once_though_a_worker_is_killed(tmp_path, data):
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="ray is not installed (extra 'cluster')")
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    killed = []

    def kill_one(seen):
        if not killed:
            found = subprocess.run(["pgrep", "-f", "ray::_guarded"], capture_output=True, text=True, check=False).stdout.split()
            for pid in found[:1]:
                os.kill(int(pid), signal.SIGKILL)
                killed.append(int(pid))

    try:
        arguments = {"systems": SYSTEMS, "data": data, "out": tmp_path, "executor": "ray", "address": cluster.address}
        ran = benchmark(["esn", "nvar", "mean"], **arguments, progress=kill_one)
        assert killed, "no worker was caught at work"
        assert (ran.ran, ran.failed) == (12, 0)
        assert len(keys(tmp_path)) == len(set(keys(tmp_path))) == 12
        local = tmp_path / "local"
        benchmark(["mean"], systems=SYSTEMS, data=data, out=local, jobs=1)
        for row in Store(local / RESULTS).rows():  # the cluster computes the same
            assert row.scores == next(found for found in Store(ran.path).rows() if found.key == row.key).scores
    finally:
        cluster.shutdown()


def test_a_time_limit_on_ray_does_not_count_the_time_a_task_waits():
    ray = pytest.importorskip("ray", reason="ray is not installed (extra 'cluster')")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        list(execute(time.sleep, [("warm", lambda: (0,))], executor="ray"))
        tasks = [(number, lambda: (2.0,)) for number in range(3)]  # one after the other, six seconds in all
        reasons = [outcome.reason for outcome in execute(time.sleep, tasks, executor="ray", timeout=3.5)]
    finally:
        ray.shutdown()
    assert reasons == [None] * 3

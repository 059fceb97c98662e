"""The data set: right numbers, the same for any number of workers, complete after any kill, and a reason for what can't be made."""

import math
import os
import re
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from dynsys.benchmark import Dataset, Recipe, build
from dynsys.benchmark.generate import generate
from dynsys.errors import DataError, InvalidValue, UnknownName

SYSTEMS = ["Lorenz", "Rossler", "Henon", "DoublePendulum"]
SMALL = Recipe(points=300, validation=100, gap=50, long=0)
UNSTABLE = """
name = "Runaway"
kind = "flow"
source = "None."
about = "It diverges."
state = ["x"]
[equations]
x = "x**2"
[start]
x = 1
[time]
dt = 0.01
period = 1
"""


def contents(path):
    with h5py.File(path) as file:
        found = {}
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
        return found, {name: dict(file[name].attrs) for name in file}, dict(file.attrs)


def same(one, other):
    assert one[0].keys() == other[0].keys()
    for name, values in one[0].items():
        np.testing.assert_array_equal(values, other[0][name])
    assert one[1:] == other[1:]


def test_the_series_are_those_of_the_equations():
    made = generate("Lorenz", SMALL)
    start, dt = made.arrays["series"][0], 1.5008 / 100

    def lorenz(t, z):
        x, y, z = z
        return [10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z]

    truth = solve_ivp(lorenz, (0, 100 * dt), start, method="Radau", rtol=1e-11, atol=1e-11, t_eval=np.arange(100) * dt).y.T
    # 1e-9 grows by exp(0.9 * 1.5) over the hundred points, and Radau's own error is of the same size
    np.testing.assert_allclose(made.arrays["series"][:100], truth, atol=1e-6)
    assert made.arrays["series"].shape == (300, 3)
    assert made.arrays["validation"].shape == (100, 3)
    assert made.facts["check_error"] < 1e-6
    assert made.facts["check_time"] == pytest.approx(1 / made.facts["lyapunov"], abs=0.02)


@pytest.mark.parametrize(("error", "known"), [(0.1, 0.9), (0.31, None)])
def test_an_exponent_counts_only_if_it_is_positive_beyond_its_error(tmp_path, error, known):
    text = UNSTABLE.replace("x**2", "-x")
    fact = 'name = "lyapunov_spectrum"\nvalue = [0.9]\nerror = [{}]\nscript = "s"\nversion = "1"\n'
    (tmp_path / "made.toml").write_text(text + "[[computed]]\n" + fact.format(error))
    assert generate(str(tmp_path / "made.toml"), SMALL).facts["lyapunov"] == known


def test_any_number_of_workers_makes_the_same_file(tmp_path):
    one = build(tmp_path / "one.h5", systems=SYSTEMS, recipe=SMALL, jobs=1)
    two = build(tmp_path / "two.h5", systems=SYSTEMS[::-1], recipe=SMALL, jobs=3)
    assert one.systems == two.systems == tuple(sorted(SYSTEMS))
    same(contents(one.path), contents(two.path))
    assert not (tmp_path / "one.h5.parts").exists()


def test_a_killed_build_goes_on_and_ends_with_the_same_file(tmp_path):
    whole = build(tmp_path / "whole.h5", systems=SYSTEMS, recipe=SMALL, jobs=2)
    code = f"""
from dynsys.benchmark import Recipe, build
if __name__ == "__main__":
    build({str(tmp_path / "killed.h5")!r}, systems={SYSTEMS!r}, recipe=Recipe(points=300, validation=100, gap=50, long=0), jobs=1)
"""
    script = tmp_path / "run.py"
    script.write_text(code)
    parts = tmp_path / "killed.h5.parts"
    running = subprocess.Popen([sys.executable, str(script)], start_new_session=True)
    deadline = time.monotonic() + 120
    while len(list(parts.glob("*.npz")) if parts.exists() else []) < 2 and time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.005)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    kept = len(list(parts.glob("*.npz")))
    assert 2 <= kept < 4, "the kill came too late to test anything"
    told = []
    found = build(tmp_path / "killed.h5", systems=SYSTEMS, recipe=SMALL, jobs=2, progress=lambda done, total, outcome: told.append(done))
    assert found.reused == kept
    assert len(told) == 4 - kept
    same(contents(whole.path), contents(found.path))


def test_a_file_grows_by_what_it_lacks_and_refuses_another_recipe(tmp_path):
    path = tmp_path / "data.h5"
    build(path, systems="Lorenz", recipe=SMALL, jobs=1)
    found = build(path, systems="Lorenz,Henon", recipe=SMALL, jobs=1)
    assert found.systems == ("Henon", "Lorenz")
    assert found.reused == 1
    with pytest.raises(InvalidValue, match="another recipe"):
        build(path, systems="Lorenz", recipe=Recipe(points=400, validation=0, long=0), jobs=1)
    build(path, systems="Lorenz", recipe=Recipe(points=400, validation=0, long=0), jobs=1, overwrite=True)
    assert Dataset(path).series("Lorenz").arrays["series"].shape == (400, 3)


def test_what_fails_is_named_and_the_rest_is_there(tmp_path):
    own = tmp_path / "runaway.toml"
    own.write_text(UNSTABLE)
    timeless = tmp_path / "timeless.toml"
    timeless.write_text(UNSTABLE.replace("period = 1\n", "").replace("Runaway", "Timeless").replace("x**2", "-x"))
    found = build(tmp_path / "d.h5", systems=["Henon", str(own), str(timeless)], recipe=SMALL, jobs=2)
    assert found.systems == ("Henon",)
    reasons = dict(found.failed)
    assert "Runaway: the integration ended" in reasons[str(own)]
    assert "has no [time] period" in reasons[str(timeless)]


def test_reading_names_what_is_not_there(tmp_path):
    path = tmp_path / "d.h5"
    build(path, systems="Henon", recipe=SMALL, jobs=1)
    data = Dataset(path)
    assert data.recipe == SMALL
    assert data.facts("Henon")["solver"] == "iteration"
    with pytest.raises(UnknownName, match="Lorenz"):
        data.series("Lorenz")
    with pytest.raises(DataError, match="has no long_train"):
        data.series("Henon", ("long_train",))
    (tmp_path / "none.h5").write_bytes(b"no HDF5")
    with pytest.raises(DataError, match="can't be opened"):
        Dataset(tmp_path / "none.h5")
    with h5py.File(tmp_path / "other.h5", "w"):
        pass
    with pytest.raises(DataError, match="no data set of dynsys"):
        Dataset(tmp_path / "other.h5")


@pytest.mark.slow
def test_long_series_continue_the_system(tmp_path):
    made = generate("Lorenz", Recipe(points=300, validation=0, long=20_000))
    assert made.arrays["long_train"].shape == made.arrays["long_test"].shape == (20_000, 3)
    assert made.arrays["long_train"].mean(axis=0)[2] == pytest.approx(23.56, abs=0.3)


GROWING = """
name = "Growing"
kind = "flow"
source = "A spiral out of the origin: every period makes it exp(0.01 * 2 pi) times larger."
about = "It leaves any bound, but slowly."
state = ["x", "y"]
[equations]
x = "0.01*x - y"
y = "x + 0.01*y"
[start]
x = 1
y = 0
[time]
dt = 0.0628
period = 6.2832
"""


def test_a_system_that_leaves_its_attractor_keeps_its_short_series_and_says_why_there_is_no_long_one(tmp_path):
    path = tmp_path / "growing.toml"
    path.write_text(GROWING)
    made = generate(str(path), Recipe(points=300, validation=0, long=20_000))
    assert set(made.arrays) == {"series"}
    # 1000 times the size at t = 3 periods, plus the length of the run, is passed after 137 to 141 periods of 100 points
    reached = int(re.search(r"after (\d+) points of 40300 the orbit left the attractor", made.facts["no_long"])[1])
    size = math.exp(0.01 * 0.062832 * 300)
    assert reached == pytest.approx(
        math.log(1000 * size + 0.062832 * 40300) / 0.01 / 0.062832, rel=0.03
    )  # the bound is seen at the end of a step

    built = build(tmp_path / "data.h5", systems=[str(path)], recipe=Recipe(points=300, validation=0, long=20_000), jobs=1)
    data = Dataset(built.path)
    assert data.lacking("Growing", ("series",)) == ""
    assert "left the attractor" in data.lacking("Growing", ("long_train", "long_test"))
    with pytest.raises(DataError, match="left the attractor"):
        data.series("Growing", ("long_train",))

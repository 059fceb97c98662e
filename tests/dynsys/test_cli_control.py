"""`dynsys control` and `dynsys play`, run in this process: what they print and write, how they go on, and how they refuse."""

import json

import gymnasium
import numpy as np
import pytest

from dynsys.control.experience import load_experience
from dynsys.control.store import load_controller
from dynsys.control.task import Task

from .environment_cases import Cart

QUICK = ("--set", "explore.random=40", "--set", "planner.horizon=8", "--set", "planner.starts=2", "--set", "planner.first=3")


class KnownCart(Cart):
    """The cart that tells its cost."""

    def known_task(self):
        from dynsys.control.cost import Quadratic

        return Task(Quadratic.of([1.0, 0.1], [0.01]), "", "drive home")


@pytest.fixture(scope="module", autouse=True)
def carts():
    names = {"test/Cart-v0": {}, "test/Failing-v0": {"faults": {45: "raise"}}}
    for name, more in names.items():
        gymnasium.register(id=name, entry_point=KnownCart, max_episode_steps=30, kwargs=more)
    yield
    for name in names:
        del gymnasium.registry[name]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("control")


def test_control_learns_writes_and_tells(run, place):
    out = place / "run"
    code, told, err = run("control", "test/Cart-v0", "--steps", "70", "--episodes", "2", "--out", out, *QUICK, "--record", place / "a.gif")
    assert (code, err) == (0, "")
    lines = told.splitlines()
    assert sum("random episode" in line for line in lines) == 2
    assert sum("planned episode" in line for line in lines) == 1
    assert any("2 episodes: mean return" in line and "a decision takes" in line for line in lines)
    assert {"config.toml", "experience.h5", "history.csv", "controller.h5", "scores.json", "report.html"} <= {p.name for p in out.iterdir()}
    assert (place / "a.gif").read_bytes()[:3] == b"GIF"
    assert load_experience(out / "experience.h5").steps == 70
    assert load_controller(out).n_obs == 2
    assert "test/Cart-v0" in (out / "report.html").read_text(encoding="utf-8")


def test_play_repeats_itself_and_speaks_json(run, place):
    first = run("play", place / "run", "--episodes", "2", "--seed", "5", "--json")
    second = run("play", place / "run", "--episodes", "2", "--seed", "5", "--json")
    assert first[0] == 0
    one, two = json.loads(first[1]), json.loads(second[1])
    assert one["returns"] == two["returns"]
    assert one["seeds"] == [5, 6]
    code, out, _ = run("play", place / "run", "--episodes", "1", "--seed", "5")
    assert code == 0
    assert f"seed 5: return {one['returns'][0]:.4g} in 30 steps, truncated" in out


def test_more_steps_go_on_and_other_settings_are_refused(run, place):
    code, out, _ = run("control", "test/Cart-v0", "--steps", "90", "--episodes", "1", "--out", place / "run", *QUICK, "--no-report")
    assert code == 0
    assert out.count("episode of") == 1  # only the new one
    code, _, err = run("control", "test/Cart-v0", "--steps", "90", "--seed", "3", "--out", place / "run", *QUICK)
    assert code != 0
    assert "of another run" in err


def test_an_environment_that_fails_leaves_what_there_was(run, place):
    code, _, err = run("control", "test/Failing-v0", "--steps", "90", "--out", place / "failing", *QUICK)
    assert code != 0
    assert "motor is on fire" in err
    assert load_experience(place / "failing" / "experience.h5").steps == 44
    assert "motor is on fire" in (place / "failing" / "report.html").read_text(encoding="utf-8")


def test_rollouts_alone_find_a_plan(run, place):
    arguments = ("--method", "local-ilqr", "--set", "local.iterations=8", "--set", "local.rollouts=6", "--episodes", "1", "--no-report")
    code, out, err = run("control", "test/Cart-v0", "--out", place / "local", *arguments)
    assert (code, err) == (0, "")
    # from the start that was planned for, at most 60 % of what doing nothing costs
    played = json.loads((place / "local" / "scores.json").read_text())["played"]["returns"][0]
    cart = KnownCart()
    cart.reset(seed=0)
    idle = sum(cart.step(np.zeros(1, np.float32))[1] for _ in range(30))
    assert played > 0.6 * idle
    assert (place / "local" / "rollouts.h5").is_file()
    assert "1 episode: mean return" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("control", "test/Card-v0", "--out", "x"), "Did you mean 'test/Cart-v0'"),
        (("control", "CartPole-v1", "--out", "x"), "Discrete"),
        (("control", "test/Cart-v0", "--out", "x", "--steps", "3"), "steps >= 8"),
        (("control", "test/Cart-v0", "--out", "x", "--set", "planner.horizont=3"), "Did you mean 'horizon'"),
        (("control", "test/Cart-v0", "--out", "x", "--record", "x.mp4"), r"ends in .gif"),
        (("control", "test/Cart-v0", "--out", "x", "--set", "environment.colour=red"), "colour"),
        (("play", "nowhere"), "no controller here"),
    ],
)
def test_what_cannot_be_is_refused_in_words(run, arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*arguments)
    assert code != 0
    assert words in err
    assert "Traceback" not in err

"""`dynsys certify` and `dynsys verify`, run in this process: what they print and write, and how they refuse."""

import json

import h5py
import numpy as np
import pytest

PENDULUM = ("Pendulum", "--limit", "6", "--domain", "-3..3,-8..8", "--level", "2.0", "--rate", "0.01")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("certify")


def test_certify_writes_what_verify_finds_valid(run, place):
    code, out, err = run("certify", *PENDULUM, "--out", place / "c.h5")
    assert (code, err) == (0, "")
    assert "proved: plain quadratic, level 2" in out
    assert (place / "c.html").stat().st_size > 10_000
    code, out, _ = run("verify", place / "c.h5")
    assert code == 0
    assert "\nvalid:" in out
    code, out, _ = run("verify", place / "c.h5", "--json")
    assert json.loads(out)["valid"] is True


def test_verify_refuses_a_file_that_claims_more(run, place):
    (place / "d.h5").write_bytes((place / "c.h5").read_bytes())
    with h5py.File(place / "d.h5", "r+") as file:
        found = []
        file.visititems(lambda name, item: found.append(name) if name.split("/")[-1] == "level" else None)
        if found:
            file[found[0]][...] = 50.0
        else:
            file.attrs["level"] = 50.0
    code, _, err = run("verify", place / "d.h5")
    assert code != 0
    assert "not valid" in err


def test_a_system_that_no_controller_stabilises_and_levels_that_are_false_are_told(run, place):
    code, _, err = run("certify", "Pendulum", "--controller", "none", "--domain", "-3..3,-8..8", "--out", place / "e.h5")
    assert code != 0
    assert "not stable" in err
    code, _, err = run("certify", *PENDULUM[:5], "--level", "1000", "--rate", "0.01", "--out", place / "f.h5", "--no-report")
    assert code != 0
    assert "not proved" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("certify", "Pendulm", "--domain", "-1..1", "--out", "x.h5"), "Did you mean 'Pendulum'"),
        (("certify", "Pendulum", "--domain", "-1..1,0..0", "--out", "x.h5"), "low < high"),
        (("certify", "Pendulum", "--domain", "-1:1", "--out", "x.h5"), "one range a state"),
        (("certify", "Pendulum", "--domain", "-1..1", "--out", "x.json"), "ends in .h5"),
        (("certify", "Pendulum", "--domain", "-1..1", "--limit", "a", "--out", "x.h5"), "--limit"),
        (("certify", "Pendulum", "--domain", "-1..1", "--set", "mass", "--out", "x.h5"), "name=number"),
        (("certify", "Pendulum", "--domain", "-1..1", "--goal", "0.5,0", "--out", "x.h5"), "no equilibrium"),
        (("verify", "nowhere.h5"), "nowhere.h5: there is no such file"),
    ],
)
def test_what_cannot_be_is_refused_in_words(run, arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*arguments)
    assert code != 0
    assert words in err
    assert "Traceback" not in err


def test_a_learned_model_is_certified_with_its_regulator(run, place):
    """A random-features model of the pendulum near upright, from a run of dynsys control on a task whose state is seen whole."""
    arguments = ("--steps", "120", "--episodes", "0", "--set", "explore.random=100", "--set", "planner.horizon=5", "--no-report")
    assert run("control", "dynsys/ReverseVanDerPol-v0", "--out", place / "run", *arguments)[0] == 0
    code, out, err = run("certify", place / "run", "--domain", "-0.5..0.5", "--limit", "1", "--out", place / "g.h5", "--seconds", "20")
    assert (code, err) == (0, "")
    assert "proved" in out
    assert np.isfinite(float(out.split("level ")[1].split()[0].strip(",")))

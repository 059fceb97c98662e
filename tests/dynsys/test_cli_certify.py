"""`dynsys certify` and `dynsys verify`, run in this process: what they print and write, and how they refuse."""

import functools
import io
import json
import re
import shlex
import signal

import h5py
import numpy as np
import pytest
import typer
from rich.console import Console

from dynsys.certify_commands import _watched
from dynsys.verify import candidates, routine
from dynsys.verify.certificate import load_certificate

PENDULUM = ("Pendulum", "--limit", "6", "--domain", "-3..3,-8..8", "--level", "2.0", "--rate", "0.01")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("certify")


def test_certify_writes_what_verify_finds_valid(run, place):
    code, first, err = run("certify", *PENDULUM, "--out", place / "c.h5")
    assert (code, err) == (0, "")
    assert "proved: plain quadratic, level 2" in first
    assert (place / "c.html").stat().st_size > 10_000
    code, out, _ = run("verify", place / "c.h5")
    assert code == 0
    assert "\nvalid:" in out
    sizes = [text.split(mark)[1].split()[0].rstrip(";") for text, mark in ((first, ", volume "), (out, "volume of the set: "))]
    assert sizes[0] == sizes[1]
    for words in ("system: Pendulum", "states: theta, omega", "controller: u = rest - K (x - goal) between [-6.0] and [6.0]; K = [["):
        assert words in out
    code, out, _ = run("verify", place / "c.h5", "--json")
    told = json.loads(out)
    assert told["valid"] is True
    assert told["about"]["system"] == "Pendulum"


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
    (place / "d.h5").write_bytes((place / "c.h5").read_bytes()[:5000])
    for name, words in (("d.h5", "the HDF5 file is cut off or damaged."), ("c.html", "it is no HDF5 file."), ("", "is a folder")):
        code, out, err = run("verify", place / name)
        assert (code, out) == (2, "")
        assert words in err


def test_a_system_that_no_controller_stabilises_and_levels_that_are_false_are_told(run, place):
    code, _, err = run("certify", "Pendulum", "--controller", "none", "--domain", "-3..3,-8..8", "--out", place / "e.h5")
    assert code != 0
    assert "not stable" in err
    code, _, err = run("certify", *PENDULUM[:5], "--level", "1000", "--rate", "0.01", "--out", place / "f.h5", "--no-report")
    assert code != 0
    assert re.search(r"the claim is false: .* at theta = [-\d.e]+, omega = [-\d.e]+, where V = ", err)


TIMED = """name = "Faded"
kind = "flow"
source = "a test"
about = "stable at t = 0, and not on the average"
state = ["x"]
[equations]
x = "-x*(4*cos(t) - 3)"
[start]
x = 0.5
[time]
dt = 0.01
"""


@pytest.mark.parametrize("more", [(), ("--dt", "0.05")])
def test_a_field_that_depends_on_time_is_refused(run, place, more):
    (place / "faded.toml").write_text(TIMED)
    code, _, err = run("certify", place / "faded.toml", "--controller", "none", "--domain", "-2..2", "--out", place / "t.h5", *more)
    assert code != 0
    assert "depends on the time t" in err
    assert not (place / "t.h5").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("certify", "Pendulm", "--domain", "-1..1", "--out", "x.h5"), "Did you mean 'Pendulum'"),
        (("certify", "Pendulum", "--domain", "-1..1,0..0", "--out", "x.h5"), "low < high"),
        (("certify", "Pendulum", "--domain", "-1:1", "--out", "x.h5"), "one range for each state"),
        (("certify", "Pendulum", "--domain", "-1..1", "--out", "x.json"), "ends in .h5"),
        (("certify", "Pendulum", "--domain", "-1..1", "--limit", "a", "--out", "x.h5"), "--limit"),
        (("certify", "Pendulum", "--domain", "-1..1", "--set", "mass", "--out", "x.h5"), "name=number"),
        (("certify", "Pendulum", "--domain", "-1..1", "--goal", "0.5,0", "--out", "x.h5"), "no equilibrium"),
        (
            ("certify", "Pendulum", "--domain", "-1..1", "--inputs", "-1..1,0..1", "--out", "x.h5"),
            "wants 1 ranges, one for each input, got 2",
        ),
        (("certify", "Pendulum", "--domain", "-1..1", "--inputs", "-1..1", "--limit", "1", "--out", "x.h5"), "not both"),
        (("certify", "Pendulum", "--domain", "-1..1", "--inputs", "0..1", "--out", "x.h5"), "rest must lie inside the limits"),
        (("certify", "Pendulum", "--domain", "-1..1", "--inputs", "-1..1", "--controller", "none", "--out", "x.h5"), "there is none"),
        (("certify", "Pendulum", "--domain", "-1..1", "--candidate", "sos", "--out", "x.h5"), "needs a flow with a polynomial field"),
        (("certify", "Pendulum", "--domain", "-1..1", "--candidate", "sos", "--dt", "0.1", "--out", "x.h5"), "is for flows"),
        (("certify", "Pendulum", "--domain", "-1..1", "--resume", "none.h5", "--out", "x.h5"), "none.h5: there is no such file"),
        (("certify", "Pendulum", "--domain", "-1..inf", "--out", "x.h5"), "finite ranges"),
        (("certify", "Pendulum", "--domain", "1..2", "--goal", "0,0", "--out", "x.h5"), "the goal [0.0, 0.0] must lie strictly inside"),
        (("certify", "Pendulum", "--domain", "-1..1", "--limit", "-6", "--out", "x.h5"), "--limit -6: must be positive"),
        (("certify", "Pendulum", "--domain", "-1..1", "--seconds", "0", "--out", "x.h5"), "--seconds 0: must be positive"),
        (("certify", "Pendulum", "--domain", "-1..1", "--rate", "-1", "--out", "x.h5"), "--rate -1: must be positive"),
        (("certify", "KuramotoSivashinsky", "--domain", "-1..1", "--out", "x.h5"), "kind 'field'"),
        (("certify", "Pendulum", "--domain", "-1..1", "--out", "/proc/x.h5"), "the folder '/proc' takes no files"),
        (("certify", "y.h5", "--domain", "-1..1", "--out", "x.h5"), "dynsys verify"),
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


# Limits, and going on

VAN_DER_POL = ("ReversedVanDerPol", "--controller", "none", "--domain", "-3..3,-3..3", "--level", "2.2", "--rate", "0.01", "--no-report")


def again(err):
    """The command that an error or a line ends with, without the name of the program."""
    return shlex.split(err.split("goes on with: dynsys ")[1])


def test_a_proof_that_meets_a_limit_is_kept_and_the_command_that_is_told_finishes_it(run, place):
    code, out, err = run("certify", *VAN_DER_POL, "--boxes", "1", "--out", place / "v.h5")
    assert code != 0
    assert "not proved (boxes" in err
    assert not (place / "v.h5").exists()
    words = again(err)
    assert "--boxes" not in words  # the limit that it met
    assert words[-2:] == ["--resume", str(place / "v.unfinished.h5")]
    code, out, err = run(*words, "--boxes", "1")  # again one batch of boxes: a new file, and the same command
    assert code != 0
    assert again(err) == words
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    assert "proved: plain quadratic, level 2.2" in out
    code, out, _ = run("verify", place / "v.h5")
    assert code == 0
    assert "\nvalid:" in out
    code, _, err = run(*words, "--set", "mu=2")
    assert code != 0
    assert "mu" in err


def test_a_proof_of_other_parameters_or_another_claim_does_not_go_on(run, place):
    arguments = ("Pendulum", "--limit", "6", "--domain", "-3..3,-8..8", "--level", "7.9", "--rate", "0.01", "--no-report")
    assert run("certify", *arguments, "--boxes", "1", "--out", place / "r.h5")[0] != 0
    rest = ("--resume", place / "r.unfinished.h5", "--out", place / "r.h5")
    for more, words in (
        (("--set", "m=0.2"), "another system, or other parameters"),
        (("--domain", "-3..3,-9..9"), "has domain"),
        (("--limit", "5"), "has inputs [[-6.0], [6.0]], not [[-5.0], [5.0]]"),
    ):
        code, _, err = run("certify", *arguments, *more, *rest)
        assert code != 0
        assert words in err


def test_ctrl_c_during_a_proof_keeps_it(run, place, monkeypatch):
    certify = routine.certify

    def interrupted(*arguments, **known):
        signal.raise_signal(signal.SIGINT)
        return certify(*arguments, **known)

    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(routine, "certify", interrupted)
        code, _, err = run("certify", *VAN_DER_POL, "--out", place / "i.h5")
    assert code != 0
    assert "Ctrl-C again stops at once" in err
    assert "stopped" in err
    assert signal.getsignal(signal.SIGINT) is before
    code, out, _ = run(*again(err))
    assert code == 0
    assert "proved" in out


def test_the_second_ctrl_c_ends_the_program():
    reached = []

    def twice():
        with _watched(Console(file=io.StringIO())) as (_, watch):
            reached.append(watch(0.1, 10, 1.0))
            signal.raise_signal(signal.SIGINT)
            reached.append(watch(0.2, 20, 2.0))
            signal.raise_signal(signal.SIGINT)
            reached.append("on")

    with pytest.raises(typer.Exit) as caught:
        twice()
    assert reached == [False, True]
    assert caught.value.exit_code == 130


@pytest.mark.parametrize(("terminal", "quiet"), [(True, False), (False, False), (True, True)])
def test_the_bar_is_for_terminals(terminal, quiet):
    file = io.StringIO()
    with _watched(Console(file=file, force_terminal=terminal, quiet=quiet, width=120)) as (tell, watch):
        tell("proving")
        watch(0.25, 1000, 1.0)
        watch(0.5, 4000, 2.0)
    drawn = file.getvalue()
    assert ("4,000 boxes, 3,000 a second" in drawn) == (terminal and not quiet)
    assert ("50%" in drawn) == (terminal and not quiet)
    assert ("proving" in drawn) == (not quiet)


# Candidates and inputs

TWO = """name = "Two"
kind = "flow"
source = "a test"
about = "everything goes to 0"
state = ["x", "y"]
inputs = ["u", "v"]
[equations]
x = "y - x - x**3 + u"
y = "-x - y - y**3 + v"
[start]
x = 0.1
y = 0.1
[time]
dt = 0.05
"""


def test_a_formula_is_found_proved_and_told(run, place, monkeypatch):
    few = functools.partial(candidates.search_symbolic, generations=2, population=8, steps=150)
    monkeypatch.setattr(candidates, "search_symbolic", few)
    arguments = (*PENDULUM[:5], "--candidate", "symbolic", "--no-report")
    code, out, err = run("certify", *arguments, "--out", place / "s.h5")
    assert (code, err) == (0, "")
    formula = out.split("formula ")[1].split(", where theta, omega are deviations")[0]
    assert formula.startswith("V = ")
    assert "proved: formula, level" in out
    plain = float(out.split("the plain quadratic proves ")[1].split(";")[0])
    assert 18 < plain < 19  # the formula has more
    about = load_certificate(place / "s.h5").words["about"]
    assert formula in about["candidate"]
    assert run("verify", place / "s.h5")[0] == 0


def test_a_sum_of_squares_is_found_and_proved(run, place):
    pytest.importorskip("cvxpy")
    (place / "two.toml").write_text(TWO)
    arguments = ("--domain", "-2..2", "--candidate", "sos", "--seconds", "5", "--no-report", "--out", place / "o.h5")
    code, out, err = run("certify", place / "two.toml", *arguments, "--controller", "none")
    assert (code, err) == (0, "")
    assert "sum of squares of degree 2, for all of the loop" in out  # everything goes to 0
    proved = float(
        out.split("volume ")[1].split()[0].strip(";")
    )  # of it or of the plain quadratic: both are the disc that touches the domain,
    assert 0.9 * 4 * np.pi < proved < 1.01 * 4 * np.pi  # up to the sharpness of the search
    assert run("verify", place / "o.h5")[0] == 0


def test_inputs_need_not_be_symmetric(run, place):
    (place / "two.toml").write_text(TWO)
    known = ("--goal", "0.5,0", "--rest", "0.625,0.5", "--domain", "0..1,-0.5..0.5", "--level", "0.05", "--no-report")
    code, _, err = run("certify", place / "two.toml", *known, "--inputs", "0..5.96,0..0.625", "--out", place / "n.h5")
    assert (code, err) == (0, "")
    with h5py.File(place / "n.h5") as file:
        np.testing.assert_array_equal(file["modules/policy/low"], [0, 0])
        np.testing.assert_array_equal(file["modules/policy/high"], [5.96, 0.625])
    assert run("verify", place / "n.h5")[0] == 0

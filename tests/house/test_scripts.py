"""The set-up behind scripts/test and scripts/demo: which Python it takes, what it says if there is none, when it does nothing."""

import ast
import importlib.machinery
import importlib.util
import os
import subprocess
import sys

import pytest
from house import ROOT


@pytest.fixture
def setup(tmp_path, monkeypatch):
    """The module scripts/_setup.py, pointed at a repository in a temporary folder."""
    spec = importlib.util.spec_from_file_location("_setup_under_test", ROOT / "scripts/_setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "tests").mkdir()
    for name in ("pyproject.toml", "constraints.txt", "tests/no-deps.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.setattr(module, "ROOT", str(tmp_path))
    return module


@pytest.fixture
def pythons(tmp_path, monkeypatch):
    """A PATH with interpreters by name; they need not run, for a probe is passed along."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_the_first_interpreter_that_will_do_is_taken(setup, pythons):
    versions = {"python3": ((3, 9), True), "python3.13": (None, False), "python3.12": ((3, 12), False), "python3.11": ((3, 11), True)}
    chosen = setup.choose_interpreter(["python3", "python3.13", "python3.12", "python3.11"], probe=lambda p: versions[os.path.basename(p)])
    assert chosen == str(pythons / "python3.11")


def test_only_old_interpreters_are_named_with_what_to_do(setup, pythons):
    with pytest.raises(setup.SetupError) as caught:
        setup.choose_interpreter(["python3"], probe=lambda path: ((3, 9), True))
    text = str(caught.value)
    assert "needs Python 3.11 or later" in text
    assert f"{pythons / 'python3'} is Python 3.9" in text
    assert "Install a newer one" in text


def test_no_interpreter_at_all_is_said(setup):
    with pytest.raises(setup.SetupError, match="no Python 3 at all"):
        setup.choose_interpreter(["python3"], probe=lambda path: (None, False))


def test_a_python_without_venv_is_named_with_the_package_to_install(setup, pythons):
    with pytest.raises(setup.SetupError, match=r"apt install python3.12-venv"):
        setup.choose_interpreter(["python3"], probe=lambda path: ((3, 12), False))


def test_the_probe_reads_a_real_interpreter(setup, pythons):
    assert setup._probe(sys.executable) == (sys.version_info[:2], True)
    assert setup._probe(str(pythons / "python3")) == (None, False)


@pytest.fixture
def faked(setup, monkeypatch):
    """Set-up whose steps are recorded and not run."""
    steps = []
    state = {"working": False}

    def make(base, home):
        os.makedirs(home)
        state["working"] = True
        steps.append("make")

    monkeypatch.setattr(setup, "_make", make)
    monkeypatch.setattr(setup, "_is_working", lambda python, home: state["working"])
    monkeypatch.setattr(setup, "_install", lambda python, extras, say: steps.append(",".join(extras)))
    return setup, steps, state


def test_a_second_call_does_nothing_and_a_change_installs_again(faked, tmp_path):
    setup, steps, _ = faked
    python = setup.environment(["report"], say=str)
    assert python == str(tmp_path / ".venv" / "bin" / "python")
    setup.environment(["report"], say=str)
    assert steps == ["make", "report"]
    setup.environment(["all", "dev"], say=str)  # the extras grow together: the demo's stay
    setup.environment(["report"], say=str)
    assert steps == ["make", "report", "all,dev,report"]
    with open(tmp_path / "constraints.txt", "a") as file:
        file.write("another==1.0\n")
    setup.environment(["report"], say=str)
    assert steps[-1] == "all,dev,report"
    assert len(steps) == 4


def test_an_interrupted_installation_is_done_again(faked, monkeypatch, tmp_path):
    setup, steps, _ = faked
    setup.environment(["report"], say=str)

    def fail(python, extras, say):
        raise setup.SetupError("no connection")

    with monkeypatch.context() as patch:
        patch.setattr(setup, "_install", fail)
        with pytest.raises(setup.SetupError, match="no connection"):
            setup.environment(["dev"], say=str)
    setup.environment(["dev"], say=str)
    assert steps[-1].split(",")[0] == "dev"


def test_a_folder_that_is_no_environment_is_left_alone(setup, tmp_path):
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "thesis.txt").write_text("mine")
    with pytest.raises(setup.SetupError, match="no virtual environment"):
        setup.environment(["report"], say=str)
    assert (tmp_path / ".venv" / "thesis.txt").read_text() == "mine"


def test_torch_is_installed_first_alone_and_exactly(setup, monkeypatch):
    commands = []
    monkeypatch.setattr(setup.subprocess, "call", lambda command, **_: commands.append(command) or 0)
    setup._install("python", ["all", "dev"], say=str)
    assert commands[0][-1] == "torch==2.13.0"
    assert all("-c" in command for command in commands)
    commands.clear()
    setup._install("python", ["report"], say=str)
    assert not any(word.startswith("torch") for command in commands for word in command)


def test_packages_to_compare_with_come_last_and_without_their_dependencies(setup, monkeypatch, tmp_path):
    commands = []
    monkeypatch.setattr(setup.subprocess, "call", lambda command, **_: commands.append(command) or 0)
    setup._install("python", ["dev"], say=str)
    assert commands[-1][-3:] == ["--no-deps", "-r", str(tmp_path / "tests" / "no-deps.txt")]
    assert not any("--no-deps" in command for command in commands[:-1])
    commands.clear()
    setup._install("python", ["report"], say=str)
    assert not any("--no-deps" in command for command in commands)


def test_a_change_of_the_packages_to_compare_with_installs_again(setup, tmp_path):
    before = setup._state()
    with open(tmp_path / "tests" / "no-deps.txt", "a") as file:
        file.write("another==1.0\n")
    assert setup._state() != before


@pytest.mark.parametrize("name", ["_setup.py", "test", "demo"])
def test_the_scripts_parse_on_an_old_python(name):
    ast.parse((ROOT / "scripts" / name).read_text(), feature_version=(3, 6))


@pytest.mark.parametrize("name", ["test", "demo"])
def test_the_scripts_answer_help_from_any_folder_and_through_a_link(name, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(ROOT / "scripts" / name)
    done = subprocess.run([sys.executable, str(link), "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"scripts/{name}" in done.stdout


@pytest.fixture(scope="module")
def checks():
    """The function in scripts/test that lists the checks."""
    loader = importlib.machinery.SourceFileLoader("_test_script", str(ROOT / "scripts/test"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module.checks


def test_a_broken_link_fails_the_documentation_check(checks, tmp_path):
    command = dict(checks(sys.executable, slow=False, gpu=False, rest=[]))["documentation"]
    (tmp_path / "docs").mkdir()
    (tmp_path / "mkdocs.yml").write_text("site_name: toy\n")

    def build(text):
        (tmp_path / "docs/index.md").write_text(text)
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120).returncode

    assert build("# Toy\n") == 0
    assert build("# Toy\n\nSee [there](missing.md).\n") != 0  # --quiet would hide the warnings that --strict counts


def test_slow_and_gpu_choose_the_tests(checks):
    chosen = [dict(checks("python", slow=slow, gpu=gpu, rest=["-x"]))["tests"][-3:] for slow, gpu in ((0, 0), (1, 0), (1, 1))]
    assert chosen == [["-m", "not slow and not gpu", "-x"], ["-m", "not gpu", "-x"], ["-m", "", "-x"]]

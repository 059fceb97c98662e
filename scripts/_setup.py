"""The virtual environment that scripts/test and scripts/demo share: made once, then found again in a moment.

`environment(extras)` returns the interpreter of `.venv` in the repository root, with dynsys installed in editable mode and
the versions of constraints.txt. A stamp in the environment remembers what was installed from which files, so a second call
does nothing. Standard library only, and written for any Python 3, so that one that is too old can still say so.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
OLDEST = (3, 11)
TESTED = ("python3.13", "python3.12", "python3.11")
BUILD = ["hatchling", "editables"]
NO_DEPENDENCIES = os.path.join("tests", "no-deps.txt")
PROBE = "import sys; print('%d.%d' % sys.version_info[:2]); import venv, ensurepip"


class SetupError(Exception):
    """Something on this machine keeps dynsys from being installed; the text says what, and what to do."""


def environment(extras, say=print):
    """Path of the environment's interpreter, with dynsys and `extras` installed; SetupError if that can't be done."""
    home = os.path.join(ROOT, ".venv")
    python = os.path.join(home, *(["Scripts", "python.exe"] if os.name == "nt" else ["bin", "python"]))
    with _one_at_a_time(say):
        stamp = os.path.join(home, "dynsys-setup.json")
        found = _read_stamp(stamp)
        wanted = sorted(set(extras) | set(found.get("extras", [])))
        working = _is_working(python, home)
        if working and found.get("extras") == wanted and found.get("state") == _state():
            return python
        began = time.time()
        if not working:
            base = choose_interpreter()
            say(f"Making a virtual environment in {home} with {base}")
            _make(base, home)
        elif os.path.exists(stamp):
            os.remove(stamp)
        _install(python, wanted, say)
        with open(stamp + ".new", "w") as file:
            json.dump({"extras": wanted, "state": _state()}, file)
        os.replace(stamp + ".new", stamp)
        say(f"Installed in {time.time() - began:.0f} s.")
    return python


def choose_interpreter(candidates=None, probe=None):
    """The first interpreter that is new enough and can make environments; SetupError says what each one lacked.

    Tried in turn: the one that runs this script, then python3.13, python3.12, python3.11 and python3 of the PATH.
    """
    candidates = candidates or [sys.executable, *TESTED, "python3"]
    found = []
    for name in candidates:
        path = shutil.which(name) if name else None
        if path is None or path in [line[0] for line in found]:
            continue
        version, has_venv = (probe or _probe)(path)
        if version is None:
            continue
        if version >= OLDEST and has_venv:
            return path
        found.append((path, version, has_venv))
    raise SetupError(_lacking(found))


def _lacking(found):
    """What to do when no interpreter will do: `found` lists (path, version, has_venv)."""
    oldest = "{}.{}".format(*OLDEST)
    listed = "; ".join("{} is Python {}.{}".format(path, *version) for path, version, _ in found) or "no Python 3 at all"
    enough = [(path, version) for path, version, _ in found if version >= OLDEST]
    if not enough:
        return (
            f"dynsys needs Python {oldest} or later. Found: {listed}.\n"
            f"Install a newer one (from your package manager, python.org, conda or pyenv), see that python{oldest} or later is on "
            "the PATH, and run this command again."
        )
    path, version = enough[0]
    package = "python{}.{}-venv".format(*version)
    return (
        f"{path} has no venv or no pip: its modules `venv` and `ensurepip` can't be imported.\n"
        f"On Debian and Ubuntu: sudo apt install {package}. Elsewhere install a complete Python {oldest} or later. "
        "Then run this command again."
    )


def _probe(path):
    """((major, minor) or None if it does not run, whether it can make environments with pip)."""
    done = subprocess.run(
        [path, "-c", PROBE], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=child_environment()
    )
    try:
        major, minor = done.stdout.decode().split()[0].split(".")
        return (int(major), int(minor)), done.returncode == 0
    except (IndexError, ValueError):
        return None, False


def child_environment(**more):
    """The environment for programs inside .venv: without what would lead Python or pip elsewhere."""
    leads_away = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "__PYVENV_LAUNCHER__")
    kept = {name: value for name, value in os.environ.items() if name not in leads_away}
    return dict(kept, **more)


def _state():
    """Everything that makes an installation out of date when it changes: the three files, and where the repository lies."""
    digest = hashlib.sha256(ROOT.encode())
    for name in ("pyproject.toml", "constraints.txt", NO_DEPENDENCIES):
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def _read_stamp(path):
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def _is_working(python, home):
    """True if the environment has a Python that runs, is new enough, lives there and has pip."""
    if not os.path.exists(python):
        return False
    code = f"import sys, pip; sys.exit(not (sys.version_info >= {OLDEST} and sys.prefix == {os.path.realpath(home)!r}))"
    return subprocess.call([python, "-c", code], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=child_environment()) == 0


def _make(base, home):
    if os.path.exists(home) and not os.path.exists(os.path.join(home, "pyvenv.cfg")):
        raise SetupError(f"{home} exists and is no virtual environment. Move it away and run this command again.")
    if subprocess.call([base, "-m", "venv", "--clear", home], stdin=subprocess.DEVNULL, env=child_environment()) != 0:
        raise SetupError(f"{base} could not make a virtual environment in {home}; its words stand above. Is the disk full or read-only?")


def _install(python, extras, say):
    """PyTorch comes first and alone, in the exact version of the constraints: any other choice would bring a second one."""
    pip = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "-c",
        os.path.join(ROOT, "constraints.txt"),
    ]
    steps = []
    if {"all", "torch"} & set(extras):
        version = _pinned("torch")
        steps.append((f"Installing PyTorch {version} (large; takes minutes on a slow line)", [*pip, f"torch=={version}"]))
    steps.append(("Installing the build tool", [*pip, *BUILD]))
    target = "{}[{}]".format(ROOT, ",".join(extras)) if extras else ROOT
    named = "dynsys[{}]".format(",".join(extras)) if extras else "dynsys"
    steps.append((f"Installing {named} and what it needs", [*pip, "--no-build-isolation", "-e", target]))
    if "dev" in extras:
        words = "Installing the packages that tests compare with"
        steps.append((words, [*pip, "--no-deps", "-r", os.path.join(ROOT, NO_DEPENDENCIES)]))
    for words, command in steps:
        say(f"{words} ...")
        if subprocess.call(command, stdin=subprocess.DEVNULL, env=child_environment()) != 0:
            raise SetupError(
                f"{words} failed; pip's words stand above. It needs a connection to a package index and about 3 GB of disk. "
                "Running this command again goes on from here."
            )


def _pinned(package):
    with open(os.path.join(ROOT, "constraints.txt")) as file:
        for line in file:
            if line.startswith(package + "=="):
                return line.strip().split("==")[1]
    raise SetupError(f"constraints.txt has no line for {package}.")


@contextlib.contextmanager
def _one_at_a_time(say):
    """Two calls at once would install over each other: the second waits. The lock is on the folder, so no file is left behind."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("Another set-up is at work in this folder; waiting for it ...")
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)

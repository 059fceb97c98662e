"""What a fresh interpreter loads: `import dynsys` stays light, and `dynsys --help` answers at once."""

import ast
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from house import ROOT

HEAVY = ("torch", "gymnasium", "cvxpy", "ray", "matplotlib", "h5py", "plotly", "pandas", "pyarrow", "netCDF4", "scipy.io", "torchdiffeq")


def loaded_by(code):
    """Names in sys.modules after running code in an interpreter of its own."""
    program = f"import sys, json\n{code}\nprint('\\n' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "package",
    [
        "dynsys",
        "dynsys.models.alrnn",
        "dynsys.models.shallow",
        "dynsys.dynamics",
        "dynsys.registry",
        "dynsys_datasets",
        "dynsys_datasets.series",
    ],
)
def test_importing_brings_in_nothing_heavy(package):
    assert loaded_by(f"import {package}").isdisjoint(HEAVY)


def test_the_probe_sees_a_heavy_import():
    assert "h5py" in loaded_by("import h5py")


def test_datasets_alone_need_no_jax():
    assert loaded_by("import dynsys_datasets, dynsys_datasets.series").isdisjoint({"jax", "dynsys"})


HELP = "from dynsys.cli import main\nsys.argv = ['dynsys', '--help']\ntry:\n    main()\nexcept SystemExit as end:\n    assert not end.code"


def test_help_loads_no_jax():
    assert loaded_by(HELP).isdisjoint({"jax", "diffrax", "equinox", "scipy", *HEAVY})


def test_help_answers_within_half_a_second():
    program = Path(sys.executable).parent / "dynsys"  # what a user types; `python -m` would leave out the entry point's own cost
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        done = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=60)
        seconds.append(time.perf_counter() - began)
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout
    assert statistics.median(seconds) < 0.5, seconds


def test_every_public_name_resolves_and_the_list_for_type_checkers_agrees():
    import dynsys

    for name in dynsys.__all__:
        assert getattr(dynsys, name) is not None
        assert name in dir(dynsys)
    tree = ast.parse((ROOT / "dynsys/__init__.py").read_text())
    (typed,) = [node for node in tree.body if isinstance(node, ast.If)]
    stated = {alias.asname or alias.name for node in typed.body for alias in node.names}
    assert stated == set(dynsys.__all__) - {"__version__"}


def test_an_unknown_public_name_is_an_attribute_error():
    import dynsys

    with pytest.raises(AttributeError, match="no_such_name"):
        dynsys.no_such_name  # noqa: B018

"""What is shipped: the version, the changelog, the licence, and a wheel with everything that the packages need."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest
from house import PACKAGES, ROOT

import dynsys


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with a wheel and a source archive, built without network."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    """Names of the files in the wheel."""
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def shipped(folder):
    """Files of a package as they lie in the repository, relative to where the package lies."""
    base = ROOT / folder
    files = (path for path in base.rglob("*") if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith("."))
    return {path.relative_to(base.parent).as_posix() for path in files}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_wheel_holds_every_file_of_a_package(wheel, package):
    missing = shipped(PACKAGES[package]) - wheel
    assert not missing
    assert f"{package}/__init__.py" in wheel


def test_the_wheel_holds_data_samples_and_licences(wheel):
    assert sum(name.startswith("dynsys_datasets/systems/") and name.endswith(".toml") for name in wheel) >= 10
    samples = {name for name in wheel if name.startswith("dynsys_datasets/samples/")}
    assert any(name.lower().endswith(("license", "licence", ".txt", ".md", ".toml")) for name in samples)
    assert any(name.endswith((".npz", ".h5", ".csv")) for name in samples)
    assert any(name.endswith("licenses/LICENSE") for name in wheel)


def test_the_wheel_holds_nothing_else(wheel):
    tops = {name.split("/")[0] for name in wheel}
    assert tops == {*PACKAGES, f"dynsys-{dynsys.__version__}.dist-info"}


def test_the_source_archive_builds_too(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "dynsys/__init__.py", "datasets/dynsys_datasets/__init__.py"} <= names


def test_changelog_and_package_agree_on_the_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(\d[^\]]*)\]", text, flags=re.MULTILINE)
    assert versions[0] == dynsys.__version__


def test_the_constraints_cover_every_direct_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(item for name, items in extras.items() if name != "cuda" for item in items)]
    names = {re.match(r"[A-Za-z0-9_-]+", item).group().lower().replace("_", "-") for item in wanted} - {"dynsys"}
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in lines)  # names and versions, nothing of one machine
    pinned = {line.split("==")[0] for line in lines}
    assert names <= pinned
    assert "torch==2.13.0" in lines


def test_the_licence_is_apache_2():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text

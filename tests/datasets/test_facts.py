"""The computed facts in the files: consistent with one another, with published numbers, and recomputed for a sample that rotates."""

import datetime
import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynsys_datasets.catalogue import names, system

ROOT = Path(__file__).parents[2]
SCRIPT = "scripts/regenerate_facts.py"


@functools.cache
def with_facts():
    """Names of the systems whose file holds computed facts."""
    return tuple(name for name in names() if system(name).file.computed)


def having(fact):
    return [name for name in with_facts() if system(name).fact(fact)]


def fact(name, key):
    """Value and error of a fact as arrays."""
    found: Any = system(name).fact(key)
    return np.asarray(found.value, dtype=float), np.asarray(found.error, dtype=float)


PUBLISHED = {
    "Lorenz": [(0, 0.9056, 0.003), (1, 0.0, 0.002), (2, -14.572, 0.003)],  # Sprott 2003, Chaos and Time-Series Analysis
    "Rossler": [(0, 0.0714, 0.002), (1, 0.0, 0.002), (2, -5.3943, 0.005)],  # the same
    "Henon": [(0, 0.4192, 0.002), (1, -1.623, 0.002)],  # the same: 0.41922, -1.62319
    "Chen": [(0, 2.027, 0.03), (1, 0.0, 0.01), (2, -12.027, 0.03)],  # Chen & Ueta system, e.g. Lu, Chen 2002
}

# Name -> why the check does not hold. Every entry is a property of the system, not of the computation.
NO_ZERO = {
    "Chua": "the kinks of its resistor: a step of order four across them leaves 1e-3",
}


def test_there_are_facts():
    assert {"Lorenz", "Rossler", "Henon", "Thomas"} <= set(with_facts())


@pytest.mark.parametrize("name", with_facts())
def test_facts_have_provenance_the_right_shape_and_no_nan(name):
    record = system(name)
    for entry in record.file.computed:
        assert entry.script == SCRIPT
        assert entry.version
        value, error = np.asarray(entry.value, dtype=float), np.asarray(entry.error, dtype=float)
        assert np.isfinite(value).all()
        assert np.isfinite(error).all()
        assert (error >= 0).all()
        if entry.name in ("mean", "std"):
            assert value.shape == (record.dim,)
        elif entry.name == "lyapunov_spectrum":
            assert value.shape == (6 if record.kind == "delay" else record.dim,)
            assert (np.diff(value) <= 1e-12).all()
        else:
            assert value.shape == ()


@pytest.mark.parametrize("name", [name for name in having("lyapunov_spectrum") if system(name).kind in ("flow", "map")])
def test_the_sum_of_the_exponents_is_the_mean_divergence(name):
    values, errors = fact(name, "lyapunov_spectrum")
    if system(name).fact("mean_divergence") is None:
        return  # a map whose Jacobian is singular has none
    volume, doubt = fact(name, "mean_divergence")
    # from runs of their own: four standard errors of both, 3e-3 of the largest for the fourth-order step
    assert abs(values.sum() - volume) <= 4 * (doubt + errors.sum()) + 3e-3 * np.abs(values).max()


@pytest.mark.parametrize("name", [name for name in having("lyapunov_spectrum") if system(name).kind in ("flow", "delay")])
def test_a_flow_has_a_zero_exponent(name):
    if name in NO_ZERO:
        pytest.skip(NO_ZERO[name])
    values, errors = fact(name, "lyapunov_spectrum")
    if values[-1] > 0:
        return  # of a delay equation only the largest are computed
    nearest = np.argmin(np.abs(values))
    # the neutral direction along the orbit (a clock, too, is a state): its mean vanishes like 1 / T
    assert abs(values[nearest]) < 4 * errors[nearest] + 5e-3 * max(abs(values[0]), 1e-3)


@pytest.mark.parametrize("name", having("kaplan_yorke"))
def test_the_kaplan_yorke_dimension_follows_from_the_spectrum(name):
    values, errors = fact(name, "lyapunov_spectrum")
    value, error = fact(name, "kaplan_yorke")
    nearest = np.argmin(np.abs(values))
    values = np.where(np.abs(values) <= 3.2 * errors[nearest], 0.0, values)  # the script takes those for zero
    sums = np.cumsum(values)
    below = np.flatnonzero(sums < 0)
    wanted = below[0] + (sums[below[0] - 1] / -values[below[0]] if below[0] else 0.0) if below.size else len(values)
    assert abs(value - wanted) < 0.02 + 4 * error
    assert 0 <= value <= system(name).dim or system(name).kind == "delay"


@pytest.mark.parametrize("name", having("correlation_dimension"))
def test_the_correlation_dimension_does_not_exceed_the_number_of_states(name):
    value, error = fact(name, "correlation_dimension")
    assert value > 0
    if system(name).kind != "delay":
        assert value < system(name).dim + 0.2 + 4 * error


@pytest.mark.parametrize("name", having("mean"))
def test_the_start_lies_in_the_attractor(name):
    record = system(name)
    mean, std = fact(name, "mean")[0], fact(name, "std")[0]
    # a chaotic attractor seldom reaches beyond six standard deviations of its mean; bursts and pulses do: thirty
    assert np.all(np.abs(record.wrap(record.start) - mean) < 30 * std + 1e-6 * (1 + np.abs(mean)))


@pytest.mark.parametrize(("name", "index", "value", "tolerance"), [(n, *row) for n, rows in PUBLISHED.items() for row in rows])
def test_stored_exponents_agree_with_published_ones(name, index, value, tolerance):
    if name not in with_facts():
        pytest.skip("not computed yet")
    assert abs(fact(name, "lyapunov_spectrum")[0][index] - value) <= tolerance


def _is_settled(name):
    """Chaotic beyond doubt, with an exponent known to 5 %: where a run of two seconds must find it again."""
    values, errors = fact(name, "lyapunov_spectrum")
    return values[0] > 20 * errors[0] and name != "Sakarya"  # whose chaos ends in longer runs


def sample():
    """Henon and one flow of low dimension that changes with the day."""
    small = [name for name in having("lyapunov_spectrum") if system(name).kind == "flow" and system(name).dim <= 4 and _is_settled(name)]
    return ["Henon", small[datetime.date.today().toordinal() % len(small)]]


def test_stored_facts_are_recomputed_by_their_script():
    chosen = sample()
    command = [sys.executable, str(ROOT / SCRIPT), *chosen, "--dry", "--seconds", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    assert done.returncode == 0, done.stderr[-2000:]
    for name, line in zip(chosen, done.stdout.splitlines(), strict=True):
        row = json.loads(line)
        assert row["system"] == name
        assert not {"DIVERGED", "FAILED"} & set(row["flags"])
        value, error = (np.asarray(part) for part in row["lyapunov_spectrum"])
        stored, doubt = fact(name, "lyapunov_spectrum")
        # a short run: 6 of its standard errors (16 segments know them to a fifth), and 2 % of the largest for slow modulations
        assert np.all(np.abs(value - stored) < 6 * (error + doubt) + 0.02 * np.abs(stored).max()), name


def test_the_script_keeps_the_file_and_says_what_it_did(tmp_path):
    text = (ROOT / "datasets/dynsys_datasets/systems/map/henon.toml").read_text().split("[[computed]]")[0]
    path = tmp_path / "mine.toml"
    path.write_text(text)
    command = [sys.executable, str(ROOT / SCRIPT), str(path), "--seconds", "0.2"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert path.read_text().startswith(text.rstrip())
    record = system(path)
    assert {entry.name for entry in record.file.computed} == {
        *("lyapunov_spectrum", "mean_divergence", "kaplan_yorke", "correlation_dimension", "mean", "std")
    }
    again = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)
    assert again.stdout == ""  # facts of this version are there
    assert "0 systems" in again.stderr

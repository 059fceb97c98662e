"""scripts/compare_embedding_rules.py runs at toy size, and its measures are right where the answer is known."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

SCRIPT = Path(__file__).parents[2] / "scripts" / "compare_embedding_rules.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("compare_embedding_rules", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_toy_run_prints_rows_and_tables():
    done = subprocess.run([sys.executable, str(SCRIPT), "--toy"], capture_output=True, text=True, timeout=120, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert {row["rule"] for row in rows} == {
        "noise-amplification",
        "autocorrelation",
        "mutual-information",
        "window",
        "window, cycle known",
    }
    assert all(np.isfinite(row["error_1"]) for row in rows)
    assert "| rule | error 1 |" in done.stdout


def test_a_linear_oscillation_is_predicted_exactly_and_has_no_false_neighbours(script):
    # irrational period: no point comes twice. x[t+h] is a linear function of x[t], x[t-d]
    x = np.sin(2 * np.pi * np.arange(3000) / np.sqrt(1000))[:, None]
    # the ridge of 1e-9 in the fit is what is left
    assert_allclose(script.prediction_errors(x, x, 6, 2, (1, 10)), 0, atol=1e-5)
    assert script.false_neighbours(x, 6, 2) == 0
    assert script.false_neighbours(x, 6, 1) > 0.2  # one value does not tell rising from falling


def test_white_noise_is_not_predicted(script):
    x = np.random.default_rng(0).standard_normal((4000, 1))
    # the mean of 9 neighbours and two fitted slopes: somewhat worse than the standard deviation
    assert 1 < script.prediction_errors(x, x, 1, 2, (1,))[0] < 1.6

"""Every benchmark program runs at toy size and prints one JSON object a line, so that none of them can rot."""

import json
import os
import subprocess
import sys

import pytest
from house import ROOT

PROGRAMS = sorted(path.name for path in (ROOT / "scripts").glob("bench_*.py"))


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_benchmark_runs_at_toy_size_and_prints_rows(name, tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / name), "--toy"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
    assert rows
    assert all(isinstance(row, dict) and row for row in rows)

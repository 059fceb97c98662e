"""What several test files of dynsys share."""

import sys

import pytest

from dynsys import cli


@pytest.fixture
def run(monkeypatch, capsys):
    """run(words) -> (exit code, stdout, stderr) of the command line, in this process."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["dynsys", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        told = capsys.readouterr()
        return code, told.out, told.err

    return call

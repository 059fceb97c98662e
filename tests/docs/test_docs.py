"""The documentation is executed: every Python block runs, every command line names a command and options that exist."""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import pages
import pytest

ROOT = Path(__file__).parents[2]
PAGES = [path.relative_to(ROOT).as_posix() for path in pages.all_pages(ROOT)]
NOT_RUN = 6  # blocks in all pages together that may say `no-run`: a block that isn't run is a block that rots


def run(source, name, folder):
    """Run Python source in an interpreter of its own, in an empty folder, as a user would."""
    starter = "import sys; name = sys.argv.pop(1); exec(compile(sys.stdin.read(), name, 'exec'), {'__name__': '__main__'})"
    environment = {**os.environ, "MPLBACKEND": "Agg", "JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "default"}
    command = [sys.executable, "-c", starter, name]
    return subprocess.run(command, input=source, capture_output=True, text=True, cwd=folder, env=environment, timeout=400)


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(page, tmp_path):
    source = pages.program((ROOT / page).read_text(encoding="utf-8"))
    if not source.strip():
        return  # a page without Python is read by mkdocs alone
    done = run(source, page, tmp_path)
    if done.returncode != 0:
        pytest.fail(f"{page}:\n{done.stderr[-3000:]}", pytrace=False)


GROUPS = ("dataset",)  # commands that have commands


@functools.cache
def options_of(*command):
    """The options that `dynsys COMMAND --help` lists; None if there is no such command."""
    environment = {**os.environ, "COLUMNS": "250", "TERM": "dumb", "NO_COLOR": "1"}
    arguments = [str(Path(sys.executable).parent / "dynsys"), *command, "--help"]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=60, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        return None
    return set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", done.stdout)) | {"--help"}


def unknown(words):
    """What a command line of the documentation gets wrong; empty if nothing."""
    if len(words) < 2 or words[1].startswith("-"):
        return "" if words[1:] in (["--help"], ["--version"]) else "names no command"
    command = words[1:3] if words[1] in GROUPS else words[1:2]
    known = options_of(*command)
    if known is None:
        return f"there is no command {' '.join(command)!r}"
    used = {word.split("=")[0] for word in words[2:] if re.match(r"--?[a-zA-Z]", word)}
    return f"unknown options {sorted(used - known)}" if used - known else ""


@pytest.mark.parametrize("page", PAGES)
def test_the_command_lines_of_a_page_name_what_exists(page):
    found = pages.commands((ROOT / page).read_text(encoding="utf-8"))
    wrong = [f"{page}:{line}: {' '.join(words)}: {unknown(words)}" for line, words in found if unknown(words)]
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)


def test_few_blocks_are_left_unrun():
    left = [block for page in PAGES for block in pages.blocks((ROOT / page).read_text(encoding="utf-8")) if not block.runs]
    assert len(left) <= NOT_RUN


def test_images_and_pages_of_the_readme_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)", text) + re.findall(r'(?:src|href)="([^"#]+)"', text)
    missing = [target for target in targets if "://" not in target and not (ROOT / target).exists()]
    assert not missing


PAGE = """Text.

```python
value = 1
```

```python no-run
this is no Python
```

- a list

    ```python
    if value:
        print(value + later)
    ```

```console
$ dynsys fit data.csv \\
    --seeds 5   # five
$ ls
```
"""


def test_blocks_run_in_one_namespace_and_fail_at_their_own_line(tmp_path):
    source = pages.program(PAGE)
    assert len(source.splitlines()) == len(PAGE.splitlines())
    done = run(source, "page.md", tmp_path)
    assert done.returncode == 1
    assert 'File "page.md", line 15' in done.stderr  # value is known from the first block, later is not
    assert "name 'later' is not defined" in done.stderr
    assert run(source.replace("later", "1"), "page.md", tmp_path).stdout == "2\n"


def test_command_lines_are_read_with_continuations_and_comments():
    assert pages.commands(PAGE) == [(19, ["dynsys", "fit", "data.csv", "--seeds", "5"])]


def test_wrong_command_lines_are_refused():
    assert "no command 'fitt'" in unknown(["dynsys", "fitt", "a.csv"])
    assert "--no-such-option" in unknown(["dynsys", "fit", "a.csv", "--no-such-option=3"])
    assert unknown(["dynsys", "fit", "a.csv", "--help"]) == ""
    assert "no command 'dataset biuld'" in unknown(["dynsys", "dataset", "biuld", "--out", "a.h5"])
    assert unknown(["dynsys", "dataset", "build", "--out", "a.h5"]) == ""


def test_a_block_that_is_never_closed_is_refused():
    with pytest.raises(ValueError, match="line 2: this code block is never closed"):
        pages.blocks("a\n```python\nx = 1\n")

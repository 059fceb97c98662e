"""Reading a documentation page: its code blocks, each at the line where it stands."""

import dataclasses
import re
import shlex
from pathlib import Path

FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<info>.*)$")


@dataclasses.dataclass(frozen=True)
class Block:
    """One fenced block: the words after the ticks, the number of its first line (from 1), and its lines without indentation."""

    info: str
    line: int
    lines: tuple[str, ...]

    @property
    def language(self) -> str:
        """The first word after the ticks."""
        return re.split(r"[\s{]+", self.info.strip(" {."))[0]

    @property
    def runs(self) -> bool:
        """True unless the block says `no-run`."""
        return "no-run" not in self.info


def blocks(text: str) -> list[Block]:
    """All fenced blocks of a page, in order. ValueError for a fence that is never closed."""
    found, opened, lines = [], None, []
    for number, line in enumerate(text.splitlines(), start=1):
        fence = FENCE.match(line)
        if opened is None:
            if fence:
                opened, lines = (fence, number), []
        elif fence and len(fence["ticks"]) >= len(opened[0]["ticks"]) and not fence["info"].strip():
            found.append(Block(opened[0]["info"].strip(), opened[1] + 1, tuple(lines)))
            opened = None
        else:
            lines.append(line.removeprefix(opened[0]["indent"]))
    if opened is not None:
        raise ValueError(f"line {opened[1]}: this code block is never closed")
    return found


def program(text: str) -> str:
    """The Python of a page as one program, every line at its own number, so that a traceback names the line of the page."""
    lines = [""] * len(text.splitlines())
    for block in blocks(text):
        if block.language == "python" and block.runs:
            lines[block.line - 1 : block.line - 1 + len(block.lines)] = block.lines
    return "\n".join(lines) + "\n"


def commands(text: str) -> list[tuple[int, list[str]]]:
    """The `dynsys ...` command lines of a page's bash and console blocks, as (line, words), continuations joined."""
    found = []
    for block in blocks(text):
        if block.language not in ("bash", "console", "sh", "shell"):
            continue
        joined, start = "", block.line
        for number, line in enumerate(block.lines, start=block.line):
            start = start if joined else number
            joined += line.strip().removeprefix("$ ")
            if joined.endswith("\\"):
                joined = joined[:-1] + " "
                continue
            if joined.split()[:1] == ["dynsys"]:
                found.append((start, shlex.split(joined, comments=True)))
            joined = ""
    return found


def all_pages(root: Path) -> list[Path]:
    """README.md and every page below docs."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]

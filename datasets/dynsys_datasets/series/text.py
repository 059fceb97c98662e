"""Text tables: csv, tsv, txt. Separator and header are detected; columns that nobody asked for are not even parsed.

Lines that start with # before the table are comments. Separator: the one of tab ; , | and white space that cuts every line
into the same number of cells, most of them numbers. Header: the first row, if it holds words where numbers follow; a second
row of short words over numbers holds the units, as in the exports of PhysioNet. Numbers are 12, -0.5, 1e-3; nan, NA, n/a,
null, none, -, ? and empty cells are missing; inf is a number that is not finite.
"""

import csv
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from dynsys_datasets.errors import DataError
from dynsys_datasets.series.assemble import Raw
from dynsys_datasets.series.guard import reading
from dynsys_datasets.series.options import Options
from dynsys_datasets.series.roles import UNITS, Roles, assign_roles, check_unique
from dynsys_datasets.series.sniff import cells, find_header, find_separator, find_units, is_missing, is_number, tidy
from dynsys_datasets.series.table import Table, from_table, metadata_options

METADATA = "# dynsys series: "
HEAD_BYTES = 65_536
LONGEST_LINE = 10_000_000
BLOCK_ROWS = 20_000


def read_text(path: Path, options: Options) -> Raw:
    """The series of a text table; DataError with the line for everything that is no table of numbers."""
    where = path.name
    _check_is_text(path)
    with reading(path, "a text table"), path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        comments, skipped, lines = _head(file)
        about = _metadata(where, comments)
        separator = options.separator or about.get("separator") or find_separator(lines)
        top = [row for row in cells(lines, separator) if row][:4]
        if not top:
            raise DataError(f"{where}: holds no row, only comments or empty lines. Was the file written to its end?")
        header = options.header if options.header is not None else bool(about) or find_header(where, top)
        names = _names(where, top[0], comments, separator, header)
        check_unique(where, [name for name in names or [] if name])
        file.seek(0)
        for _ in range(skipped):
            file.readline(LONGEST_LINE)
        rows = csv.reader(file, delimiter=separator, skipinitialspace=True) if separator != " " else (line.split() for line in file)
        units = find_units(top) if header and not about else None
        first = (1 if header else 0) + (1 if units else 0)
        for _ in range(first):
            next(rows)
        return _parse(where, rows, skipped + first + 1, len(top[0]), names, top[first:], options, about, units)


def _check_is_text(path: Path) -> None:
    with reading(path, "a text table"), path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path.name}: is UTF-16 text. Save it as UTF-8 (in a spreadsheet: 'CSV UTF-8').")
    if b"\0" in head:
        raise DataError(
            f"{path.name}: is not text (byte 0 at position {head.index(0)}). Does its extension fit? Binary files are .npy, .npz, .h5, "
            ".mat, ..."
        )


def _head(file: TextIO) -> tuple[list[str], int, list[str]]:
    """(comment lines, number of lines before the table, the first lines of the table)."""
    comments, skipped, lines = [], 0, []
    while line := file.readline(LONGEST_LINE):
        if not lines and (line.startswith("#") or not line.strip()):
            skipped += 1
            if line.strip():
                comments.append(line.rstrip("\r\n"))
            continue
        lines.append(line)
        if len(lines) == 50:
            break
    return comments, skipped, lines


def _metadata(where: str, comments: Sequence[str]) -> dict[str, Any]:
    """What `write_series` left in the first comment; empty for other files."""
    if not comments or not comments[0].startswith(METADATA):
        return {}
    try:
        about = json.loads(comments[0].removeprefix(METADATA))
    except (ValueError, RecursionError):
        about = None
    if not isinstance(about, dict):
        raise DataError(
            f"{where}, line 1: the description after {METADATA!r} is damaged. Delete this line to read the file as a plain table."
        )
    return about


def _names(where: str, first: Sequence[str], comments: Sequence[str], separator: str, header: bool) -> list[str] | None:
    """The names of the columns, empty for those without; None if the file has none."""
    if header:
        names = [tidy(cell) for cell in first]
    else:
        # numpy.savetxt writes its header as a comment
        found = cells([comments[-1].lstrip("# ")], separator)[0] if comments else []
        if len(found) != len(first) or any(is_number(cell) or not cell.strip() for cell in found):
            return None
        names = [tidy(cell) for cell in found]
    damaged = [name for name in names if any("\udc80" <= letter <= "\udcff" for letter in name)]
    if damaged:
        raise DataError(f"{where}: the column names are not UTF-8 text: {damaged[0]!a}. Save the file as UTF-8.")
    return names


def _parse(
    where: str,
    rows: Iterator[list[str]],
    line: int,
    width: int,
    names: list[str] | None,
    top: Sequence[Sequence[str]],
    options: Options,
    about: dict[str, Any],
    units: Sequence[str] | None,
) -> Raw:
    """The body of the table; `line` is the number of its first line, `top` its first rows, `units` the row of units."""
    notes: tuple[str, ...] = ()
    called = [name or f"column{i + 1}" for i, name in enumerate(names)] if names else [f"x{i}" for i in range(width)]
    options = metadata_options(where, about, options)
    roles = assign_roles(where, called, options, named=names is not None)
    if (
        names
        and not names[0]
        and options.columns is None
        and roles.time != 0
        and all(row and row[0] == str(i) for i, row in enumerate(top))
    ):
        roles = Roles(tuple(i for i in roles.observed if i), roles.inputs, roles.time, roles.episode, roles.time_unit)
        notes = ("left out the first column, a row index without a name",)
        if not roles.observed:
            raise DataError(f"{where}: holds only a row index. A series needs values.")
    dates = roles.time is not None and bool(top) and not is_number(top[0][roles.time]) and not is_missing(top[0][roles.time])
    if units:
        notes = (*notes, f"line {line - 1} was read as the units")
        about = {"units": [units[i] for i in roles.observed]}
        if roles.time is not None and not dates:
            about["time_unit"] = UNITS.get(units[roles.time].lower(), units[roles.time])
    words = {i for i in (roles.episode, roles.time if dates else None) if i is not None}
    numbers = [i for i in (*roles.observed, *roles.inputs, *([roles.time] if roles.time is not None else [])) if i not in words]
    parser = _Parser(where, line, width, called, numbers, sorted(words), names is not None)
    parser.read(rows)
    texts = parser.texts
    table = Table(
        names=called,
        numbers=parser.arrays(),
        words=parser.words,
        n_rows=parser.n_rows,
        row_name=lambda row: f"line {line + row}",
        cell_text=lambda row, column: repr(texts[column][1]) if column in texts and texts[column][0] == row else None,
    )
    return from_table(where, table, roles, about, notes)


class _Parser:
    """Rows of cells to float64 columns, block by block; the first cell that is no number is kept for the error."""

    def __init__(self, where: str, line: int, width: int, names: Sequence[str], numbers: Sequence[int], words: Sequence[int], header: bool):
        self.where, self.line, self.width, self.names, self.header = where, line, width, names, header
        self.numbers: dict[int, list[np.ndarray]] = {i: [] for i in numbers}
        self.words: dict[int, list[str]] = {i: [] for i in words}
        self.texts: dict[int, tuple[int, str]] = {}
        self.wrong: tuple[int, int, str] | None = None
        self.wrong_rows: set[int] = set()
        self.n_rows = 0
        self.blank: int | None = None

    def read(self, rows: Iterator[list[str]]) -> None:
        """Take every row; DataError for rows of unequal length and for text in a number column."""
        while block := list(itertools.islice(rows, BLOCK_ROWS)):
            if any(len(row) != self.width for row in block) or self.blank is not None:
                block = self._checked(block)
            self._take(block)
        if self.wrong is not None:
            row, column, text = self.wrong
            hint = (
                " Decimal commas are not read: write 1.5, not 1,5."
                if text.replace(",", ".", 1) != text and is_number(text.replace(",", ".", 1))
                else ""
            )
            shown = repr(text) if text.isprintable() else ascii(text)
            raise DataError(
                f"{self.where}, line {self.line + row}: column {self.names[column]!r} holds {shown}, not a number. "
                f"{len(self.wrong_rows)} of {self.n_rows} rows are affected; correct them, or leave the column out with "
                f"columns=[...].{hint}"
            )

    def arrays(self) -> dict[int, np.ndarray]:
        """The columns of numbers, (T,) each."""
        return {i: np.concatenate(parts) if parts else np.zeros(0) for i, parts in self.numbers.items()}

    def _checked(self, block: list[list[str]]) -> list[list[str]]:
        """The block without empty lines at the end of the file; an empty line in a one-column table is a missing value."""
        kept = []
        for i, row in enumerate(block):
            if not row:
                self.blank = self.n_rows + i if self.blank is None else self.blank
                continue
            here = self.n_rows + i
            if self.blank is not None:
                if self.width > 1:
                    raise DataError(
                        f"{self.where}, line {self.line + self.blank}: is empty, but rows follow. Delete the empty line, or split the "
                        "file there."
                    )
                kept += [[""]] * (here - self.blank)
                self.blank = None
            if len(row) != self.width:
                title = "the header" if self.header else "the first row"
                raise DataError(
                    f"{self.where}, line {self.line + here}: has {len(row)} cells, {title} has {self.width}. "
                    "All rows must have the same columns; the row is damaged, the file truncated, or the separator another one "
                    "(separator=...)."
                )
            kept.append(row)
        return kept

    def _take(self, block: list[list[str]]) -> None:
        for i, parts in self.numbers.items():
            parts.append(self._converted([row[i] for row in block], i))
        for i, words in self.words.items():
            words.extend(row[i].strip() for row in block)
        self.n_rows += len(block)

    def _converted(self, column: list[str], number: int) -> np.ndarray:
        """One column of a block; float() is the fast way for what only numbers can be, cell by cell otherwise."""
        joined = "".join(column)
        if joined.isascii() and "_" not in joined:
            try:
                return np.fromiter(map(float, column), np.float64, len(column))
            except ValueError:
                pass
        out = np.full(len(column), np.nan)
        for i, cell in enumerate(column):
            if is_number(cell):
                out[i] = float(cell)
            elif is_missing(cell):
                self.texts.setdefault(number, (self.n_rows + i, cell))
            else:
                self.wrong_rows.add(self.n_rows + i)
                if self.wrong is None or self.n_rows + i < self.wrong[0]:
                    self.wrong = (self.n_rows + i, number, cell)
        return out

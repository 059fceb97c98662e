"""Guessing how a text table is written: the separator and whether the first row holds names."""

import csv
import re
from collections import Counter
from collections.abc import Sequence

from dynsys_datasets.errors import DataError

NUMBER = re.compile(r"\s*[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf|infinity|nan)\s*", re.IGNORECASE | re.ASCII)
MISSING = frozenset({"", "na", "n/a", "nan", "#n/a", "null", "none", "missing", "-", "--", "?", ".", "nil"})
SEPARATORS = ("\t", ";", ",", "|", " ")


def cells(lines: Sequence[str], separator: str) -> list[list[str]]:
    """Lines as rows of cells; a blank separates at any run of white space."""
    if separator == " ":
        return [line.split() for line in lines]
    return list(csv.reader(lines, delimiter=separator, skipinitialspace=True))


def is_number(cell: str) -> bool:
    """True for a number as programs write it, inf and nan included."""
    return NUMBER.fullmatch(cell) is not None


def is_missing(cell: str) -> bool:
    """True for an empty cell and the usual words for a missing value."""
    return cell.strip().lower() in MISSING


def find_separator(lines: Sequence[str]) -> str:
    """The separator of the first lines of a table; a comma if nothing cuts them (one column)."""
    best, best_score = ",", (0.0, 0.0)
    lines = [line for line in lines if line.strip()]
    for separator in SEPARATORS:
        rows = cells(lines, separator)
        width, count = Counter(len(row) for row in rows).most_common(1)[0] if rows else (1, 0)
        if width < 2:
            continue
        body = [cell for row in rows[1:] or rows for cell in row]
        # a decimal comma counts as a number here, so that the columns are found and the reader can speak of the comma
        numeric = sum(is_number(cell) or is_missing(cell) or _has_decimal_comma(cell, separator) for cell in body) / max(1, len(body))
        score = (numeric if count == len(rows) else 0.5 * numeric * count / len(rows), count / len(rows))
        if score > best_score:
            best, best_score = separator, score
    return best


def _has_decimal_comma(cell: str, separator: str) -> bool:
    return separator != "," and cell.count(",") == 1 and is_number(cell.replace(",", "."))


def find_header(where: str, rows: Sequence[Sequence[str]]) -> bool:
    """True if the first row holds names; DataError if it could be either."""
    first, below = rows[0], rows[1:]
    numbers = [is_number(cell) for cell in first]
    words = [not number and not is_missing(cell) for number, cell in zip(numbers, first, strict=True)]
    if not any(words):
        counts = [cell.strip() for cell in first if cell.strip()] == [str(i) for i in range(sum(bool(cell.strip()) for cell in first))]
        if counts and len(first) > 1 and any("." in cell for row in below for cell in row):
            raise DataError(f"{where}: the first row is {', '.join(first)[:60]}: column numbers or data? Pass header=True or header=False.")
        return False
    if not any(numbers):
        return True
    if not any(word and any(len(row) > i and is_number(row[i]) for row in below) for i, word in enumerate(words)):
        return False
    plain = [cell.strip() for cell, number in zip(first, numbers, strict=True) if number]
    counting = plain in ([str(i) for i in range(len(plain))], [str(i + 1) for i in range(len(plain))])
    if counting or (all(cell.isdigit() for cell in plain) and len(set(plain)) == len(plain) and sum(words) * 2 >= len(first)):
        return True
    raise DataError(
        f"{where}, first row: holds both text ({next(c for c, w in zip(first, words, strict=True) if w)!r}) and numbers ({plain[0]!r}). "
        "Pass header=True if these are column names, header=False if they are data."
    )


def find_units(rows: Sequence[Sequence[str]]) -> list[str] | None:
    """The units, if the row below the header holds one short word a column and the row below that mostly numbers."""
    if len(rows) < 3 or len(rows[1]) < 2 or not len(rows[0]) == len(rows[1]) == len(rows[2]):
        return None
    units = [tidy(cell) for cell in rows[1]]
    words = all(unit and len(unit) <= 16 and not is_number(unit) and not is_missing(unit) for unit in units)
    return units if words and 2 * sum(is_number(cell) for cell in rows[2]) >= len(units) else None


def tidy(cell: str) -> str:
    """A name without surplus blanks and without the single quotes that PhysioNet writes around it."""
    name = " ".join(cell.split())
    return name[1:-1] if len(name) > 2 and name[0] == name[-1] == "'" else name

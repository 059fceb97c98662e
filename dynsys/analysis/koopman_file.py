"""spectrum.json: the eigenpairs of a Koopman model with their residuals, as JSON that any language reads.

    write_spectrum(StoredSpectrum(found, ...), "spectrum.json");    stored = read_spectrum("spectrum.json")

A complex number is a pair [real, imaginary]; numbers that JSON does not have are the texts "nan", "inf" and "-inf". Every eigenpair
stands with its rates, which follow from value and dt. Vectors of more than 100 functions are left out: the model has them.
"""

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from dynsys.analysis.koopman_spectrum import LIMIT, KoopmanSpectrum
from dynsys.errors import DataError
from dynsys_datasets.files import replacing

FORMAT = "dynsys-koopman-1"
SPECTRUM_FILE = "spectrum.json"  # its name in a run folder
VECTORS = 100  # functions up to which eigenvectors are stored


@dataclasses.dataclass(frozen=True, eq=False)
class StoredSpectrum:
    """A spectrum and what it is of: class and digest of the model, the data's name ("" if there were none), the columns of the modes.

    modes are in standard deviations of each column. After reading, `spectrum.vectors` is (0, S) if they were left out.
    """

    spectrum: KoopmanSpectrum
    model: str
    digest: str
    data: str
    columns: tuple[str, ...]
    time_unit: str
    limit: float = LIMIT
    verdicts: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


def write_spectrum(found: StoredSpectrum, path: str | os.PathLike[str]) -> Path:
    """Write it whole or not at all; returns the path. Raises DataError if the folder is absent or read-only."""
    path = Path(path)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(to_json(found), allow_nan=False) + "\n", encoding="utf-8", newline="\n")
    return path


def to_json(found: StoredSpectrum) -> dict[str, Any]:
    """The same as plain values."""
    one, modes = found.spectrum, found.spectrum.modes
    numbers = ("residuals", "errors", "floors", "growth_rates", "frequencies", "rate_bounds")
    names = ("residual", "error", "floor", "growth_rate", "frequency", "rate_bound")
    table = {name: [_plain(x) for x in getattr(one, field).tolist()] for name, field in zip(names, numbers, strict=True)}
    pairs = []
    for i in range(len(one.values)):
        row: dict[str, Any] = {"value": _pair(one.values[i]), "modulus": float(abs(one.values[i]))}
        row |= {name: column[i] for name, column in table.items()}
        row["verdict"] = found.verdicts[i] if found.verdicts else None
        row["mode"] = None if modes is None else [_pair(x) for x in modes[i]]
        pairs.append(row)
    kept = 0 < len(one.vectors) <= VECTORS
    return {
        "format": FORMAT,
        "model": found.model,
        "digest": found.digest,
        "data": found.data,
        "columns": list(found.columns),
        "dt": one.dt,
        "time_unit": found.time_unit,
        "steps": one.steps,
        "limit": found.limit,
        "pairs_of_points": one.count,
        "eigenpairs": pairs,
        "vectors": [[_pair(x) for x in column] for column in one.vectors.T] if kept else None,
        "words": list(found.words),
        "notes": list(one.notes),
    }


def read_spectrum(path: str | os.PathLike[str]) -> StoredSpectrum:
    """What `write_spectrum` wrote. Raises DataError for anything else."""
    path = Path(path)
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror}). dynsys spectrum RUN FILE writes it.") from None
    except ValueError:
        raise DataError(f"{path}: is no JSON, so it is damaged. dynsys spectrum RUN FILE writes it anew.") from None
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise DataError(f"{path}: holds no Koopman spectrum of this version of dynsys (wanted format {FORMAT!r}).")
    try:
        return _stored(told)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(f"{path}: is damaged ({error}). dynsys spectrum RUN FILE writes it anew.") from None


def _stored(told: dict[str, Any]) -> StoredSpectrum:
    rows, columns = told["eigenpairs"], tuple(str(name) for name in told["columns"])
    count = len(rows)
    modes = None if any(row["mode"] is None for row in rows) else _complex([row["mode"] for row in rows], count, len(columns))
    vectors = np.zeros((0, count), complex) if told["vectors"] is None else _complex(told["vectors"], count, count).T
    residuals, errors, floors = (np.array([float(row[name]) for row in rows]) for name in ("residual", "error", "floor"))
    spectrum = KoopmanSpectrum(
        _complex([row["value"] for row in rows], count),
        residuals,
        errors,
        floors,
        vectors,
        modes,
        int(told["pairs_of_points"]),
        float(told["dt"]),
        int(told["steps"]),
        tuple(str(note) for note in told["notes"]),
    )
    verdicts = tuple(str(row["verdict"]) for row in rows if row["verdict"] is not None)
    about = (str(told["model"]), str(told["digest"]), str(told["data"]), columns, str(told["time_unit"]), float(told["limit"]))
    return StoredSpectrum(spectrum, *about, verdicts, tuple(str(line) for line in told["words"]))


def _complex(pairs: Any, *shape: int) -> np.ndarray:
    numbers = np.array(pairs, float).reshape(*shape, 2)
    return numbers[..., 0] + 1j * numbers[..., 1]


def _pair(value: complex) -> list[float | str]:
    return [_plain(float(value.real)), _plain(float(value.imag))]


def _plain(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)

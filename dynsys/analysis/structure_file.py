"""structure.json: everything of a `Structure` but the latent orbit, as JSON that any language reads.

    write_structure(found, "structure.json");    found = read_structure("structure.json")

Numbers that JSON does not have are the texts "nan", "inf" and "-inf"; a complex number is a pair; labels are runs (symbol, steps).
The observed orbit is stored with 7 digits, all else to the last bit.
"""

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from dynsys.analysis.comparison import Estimate, Invariant
from dynsys.analysis.lyapunov import LyapunovSpectrum
from dynsys.analysis.piecewise.cycle import Cycle, Cycles
from dynsys.analysis.structure import Structure
from dynsys.analysis.symbols import SymbolicCode
from dynsys.errors import DataError
from dynsys.status import Status
from dynsys_datasets.files import replacing

FORMAT = "dynsys-structure-1"
STRUCTURE_FILE = "structure.json"  # its name in a run folder
_WORDS = 6  # longest forbidden words that are listed
_LISTED = 100  # forbidden words at most


def write_structure(found: Structure, path: str | os.PathLike[str]) -> Path:
    """Write it whole or not at all; returns the path. Raises DataError if the folder is absent or read-only."""
    path = Path(path)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(to_json(found), allow_nan=False) + "\n", encoding="utf-8", newline="\n")
    return path


def to_json(found: Structure) -> dict[str, Any]:
    """The same as plain values."""
    return {
        "format": FORMAT,
        "model": found.model,
        "digest": found.digest,
        "dim": found.dim,
        "dt": found.dt,
        "start": _plain(found.start),
        "regions": None if found.code is None else _code(found.code),
        "fixed_points": len(found.cycles.fixed_points),
        "cycles": [_cycle(cycle, seen) for cycle, seen in zip(found.cycles, found.positions, strict=True)],
        "virtual": [_cycle(cycle, seen) for cycle, seen in zip(found.cycles.virtual, found.virtual_positions, strict=True)],
        "search": {"status": found.cycles.status.value, "notes": list(found.cycles.notes), "about": _plain(dict(found.cycles.about))},
        "spectrum": None
        if found.spectrum is None
        else _plain(dataclasses.asdict(found.spectrum) | {"status": found.spectrum.status.value}),
        "invariants": [_plain(dataclasses.asdict(row)) for row in found.invariants],
        "equilibria": None if found.equilibria is None else _plain(found.equilibria),
        "distances": _plain(found.distances),
        "notes": list(found.notes),
        "about": _plain(dict(found.about)),
        "columns": found.observed.shape[1],
        "observed": [[float(f"{x:.7g}") for x in row] for row in found.observed.tolist()],
    }


def read_structure(path: str | os.PathLike[str]) -> Structure:
    """What `write_structure` wrote; `states` is None. Raises DataError for anything else."""
    path = Path(path)
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror}). dynsys structure RUN writes it.") from None
    except ValueError:
        raise DataError(f"{path}: is no JSON, so it is damaged. dynsys structure RUN writes it anew.") from None
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise DataError(f"{path}: holds no structure of this version of dynsys (wanted format {FORMAT!r}).")
    try:
        return _structure(told)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: is damaged ({error}). dynsys structure RUN writes it anew.") from None


def _structure(told: dict[str, Any]) -> Structure:
    search, spectrum = told["search"], told["spectrum"]
    return Structure(
        model=str(told["model"]),
        digest=str(told["digest"]),
        dim=int(told["dim"]),
        dt=told["dt"],
        start=_numbers(told["start"]),
        states=None,
        observed=_numbers(told["observed"]).reshape(len(told["observed"]), int(told["columns"])),
        code=None if told["regions"] is None else _read_code(told["regions"], told["dt"]),
        cycles=Cycles(
            tuple(_read_cycle(one) for one in told["cycles"]),
            tuple(_read_cycle(one) for one in told["virtual"]),
            Status(search["status"]),
            tuple(search["notes"]),
            tuple(search["about"].items()),
        ),
        positions=tuple(_numbers(one["observed"]) for one in told["cycles"]),
        virtual_positions=tuple(_numbers(one["observed"]) for one in told["virtual"]),
        spectrum=None if spectrum is None else _read_spectrum(spectrum),
        invariants=tuple(_read_invariant(row) for row in told["invariants"]),
        equilibria=None if told["equilibria"] is None else _numbers(told["equilibria"]).reshape(len(told["equilibria"]), -1),
        notes=tuple(told["notes"]),
        about=tuple(told["about"].items()),
    )


def _code(code: SymbolicCode) -> dict[str, Any]:
    change = np.flatnonzero(np.concatenate([[True], code.labels[1:] != code.labels[:-1]]))
    lengths = np.diff(np.concatenate([change, [len(code.labels)]]))
    growth, blocks = code.word_growth(), code.block_entropies()
    return {
        "n": code.n_symbols,
        "counts": code.counts.tolist(),
        "codes": _texts(code.codes),
        "transitions": [[edge.source, edge.target, edge.count] for edge in code.edges],
        "entropies": _plain({"unit": "nats a step", "graph": code.graph_entropy, "words": growth.entropy, "metric": blocks.entropy}),
        "forbidden": [{"word": list(one.word), "expected": one.expected} for one in forbidden(code)],
        "labels": np.stack([code.labels[change], lengths], axis=1).tolist(),
    }


def forbidden(code: SymbolicCode) -> tuple[Any, ...]:
    """The likeliest minimal forbidden words; fewer symbols a word where there are many symbols."""
    longest = _WORDS if code.n_symbols <= 10 else 3 if code.n_symbols <= 100 else 1
    return code.forbidden_words(longest)[:_LISTED]


def _read_code(told: dict[str, Any], dt: float | None) -> SymbolicCode:
    runs = np.array(told["labels"], np.int64).reshape(-1, 2)
    return SymbolicCode(np.repeat(runs[:, 0], runs[:, 1]), np.array(told["counts"], np.int64), _bits(told["codes"]), dt=dt)


def _cycle(cycle: Cycle, seen: np.ndarray) -> dict[str, Any]:
    return {
        "period": cycle.period,
        "kind": cycle.kind,
        "n_unstable": cycle.n_unstable,
        "observed": _plain(seen),
        "points": _plain(cycle.points),
        "eigenvalues": [[_plain(float(z.real)), _plain(float(z.imag))] for z in cycle.eigenvalues],
        "residual": _plain(cycle.residual),
        "regions": _texts(cycle.regions),
        "virtual": cycle.virtual,
    }


def _read_cycle(told: dict[str, Any]) -> Cycle:
    pairs = _numbers(told["eigenvalues"]).reshape(-1, 2)
    about = (float(told["residual"]), _bits(told["regions"]), bool(told["virtual"]))
    return Cycle(_numbers(told["points"]), pairs[:, 0] + 1j * pairs[:, 1], *about)


def _read_spectrum(told: dict[str, Any]) -> LyapunovSpectrum:
    numbers = (_numbers(told["exponents"]), _numbers(told["errors"]), float(told["kaplan_yorke"]))
    return LyapunovSpectrum(*numbers, int(told["steps"]), told["dt"], Status(told["status"]))


def _read_invariant(told: dict[str, Any]) -> Invariant:
    columns = {
        name: None if told[name] is None else Estimate(float(told[name]["value"]), float(told[name]["error"]))
        for name in ("model", "data", "system")
    }
    return Invariant(str(told["name"]), str(told["unit"]), str(told["definition"]), **columns)


def _texts(codes: np.ndarray | None) -> list[str] | None:
    """Each row of bits as a text of 0 and 1."""
    return None if codes is None else ["".join("1" if bit else "0" for bit in row) for row in codes.tolist()]


def _bits(texts: list[str] | None) -> np.ndarray | None:
    return None if texts is None else np.array([[bit == "1" for bit in text] for text in texts], bool).reshape(len(texts), -1)


def _plain(value: Any) -> Any:
    """Arrays as lists, and what is no JSON number as a text."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _numbers(value: Any) -> np.ndarray:
    """The array of nested lists of numbers and texts such as "inf"."""
    return np.array(value, dtype=object).astype(float)

"""A certificate as it lies on disk, read without trust: every array is finite, of its shape and no larger than it may be.

attributes   format, version, time ("map" or "flow"), level, rate, core, r0 (nan: none), volume, volume_error, digest
/goal (n,)  /frame (n, n)  /domain (2, n)  /disturbance (2, p)
/loop, /V    a program each: `text`, and its arrays k0, i0, ... (see `check_program.py`)
/words       a JSON text for readers: who made it, what was assumed; nothing of it is checked
/leaves      mid (L, n + p), rad (L, n + p): boxes of y and of the disturbance scaled to [-1, 1]; bounds (L, 2), which nobody trusts
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dynsys.errors import InvalidValue
from dynsys.verify.check_program import Program, parse

FORMAT = "dynsys certificate"
VERSION = 1
LARGEST = 2**32  # bytes of one array


@dataclass(frozen=True)
class Claim:
    """What a file claims. x = goal + T y, |y_i| <= 1; loop gives x+ or dx/dt of (x, w); low, high: the domain; w_low, w_high: the w."""

    continuous: bool
    goal: np.ndarray
    T: np.ndarray
    low: np.ndarray
    high: np.ndarray
    w_low: np.ndarray
    w_high: np.ndarray
    level: float
    rate: float
    core: float
    r0: float
    volume: float
    volume_error: float
    loop: Program
    V: Program
    mid: np.ndarray
    rad: np.ndarray


def read(path: Any) -> Claim:
    """The claim of a file. Raises InvalidValue for whatever is not as it should be."""
    import h5py

    try:
        with h5py.File(Path(path), "r") as file:
            if not _known(file):
                raise InvalidValue(f"it is no certificate of version {VERSION}.")
            if _text(file, "digest") != digest(file):
                raise InvalidValue("the digest does not fit: the file was changed after it was written.")
            return _claim(file)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, OverflowError, RuntimeError, MemoryError) as error:
        if isinstance(error, InvalidValue):
            raise
        raise InvalidValue(f"it can't be read: {str(error).strip() or type(error).__name__}.") from None


def _known(file: Any) -> bool:
    return _text(file, "format") == FORMAT and int(file.attrs["version"]) == VERSION


def digest(file: Any) -> str:
    """SHA-256 over names, attributes (but `digest` of the file), types, shapes and contents of all groups and arrays, in order of name."""
    import h5py

    made, found = hashlib.sha256(), {"/": file}
    file.visititems(lambda name, item: found.__setitem__("/" + name, item))
    for name in sorted(found):
        item = found[name]
        _feed(made, name)
        for key in sorted(item.attrs):
            if not (name == "/" and key == "digest"):
                value = np.asarray(item.attrs[key])
                _feed(made, key, value.dtype.str, value.shape, value.tobytes())
        if isinstance(item, h5py.Dataset):
            value = _array(item)
            _feed(made, value.dtype.str, value.shape, value.tobytes())
    return made.hexdigest()


def _feed(made: Any, *parts: Any) -> None:
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        made.update(len(data).to_bytes(8, "big") + data)


def _array(item: Any) -> np.ndarray:
    if item.nbytes > LARGEST or item.dtype.kind not in "fiS":
        raise InvalidValue(f"{item.name} is too large, or holds neither numbers nor a text of fixed length.")
    return np.ascontiguousarray(item[()])


def _text(file: Any, key: str) -> str:
    return bytes(file.attrs[key] if key in file.attrs else _array(file[key]).item()).decode()


def _finite(file: Any, name: str, *shape: int) -> np.ndarray:
    value = _array(file[name])
    if value.dtype != np.float64 or value.shape != shape or not np.isfinite(value).all():
        raise InvalidValue(f"{name} must be finite float64 numbers {shape}, got {value.dtype} {value.shape}.")
    return value


def _number(file: Any, key: str) -> float:
    value = np.asarray(file.attrs[key])
    if value.shape != () or value.dtype != np.float64:
        raise InvalidValue(f"the attribute {key} must be a float64 number.")
    return float(value)


def _claim(file: Any) -> Claim:
    n, p = file["goal"].shape[0], file["disturbance"].shape[1]
    kind, count = _text(file, "time"), file["leaves/mid"].shape[0]
    level, rate, core, r0 = (_number(file, key) for key in ("level", "rate", "core", "r0"))
    domain = _array(file["domain"])
    w = _finite(file, "disturbance", 2, p)
    goal = _finite(file, "goal", n)
    mid, rad = _finite(file, "leaves/mid", count, n + p), _finite(file, "leaves/rad", count, n + p)
    if kind not in ("map", "flow") or n < 1:
        raise InvalidValue(f"time must be 'map' or 'flow', got {kind!r}.")
    if not 0 <= rate < (1 if kind == "map" else np.inf) or not 0 <= core < level < np.inf:
        raise InvalidValue(f"wants 0 <= rate (< 1 for maps) and 0 <= core < level, got {rate}, {core}, {level}.")
    if core == 0 and not 0 < r0 <= 1:
        raise InvalidValue(f"r0 must be in (0, 1], got {r0}: nothing is claimed near the goal.")
    if domain.dtype != np.float64 or domain.shape != (2, n) or not np.all((domain[0] < goal) & (goal < domain[1])):
        raise InvalidValue("the domain must have the goal strictly inside.")
    if not np.all(w[0] <= w[1]):
        raise InvalidValue("the disturbances must have low <= high.")
    programs = [
        parse(_text(file[name], "text"), {key: _array(item) for key, item in file[name].items() if key[0] in "ki"}, n, k, m)
        for name, k, m in (("loop", p, n), ("V", 0, 1))
    ]
    return Claim(
        kind == "flow", goal, _finite(file, "frame", n, n), domain[0], domain[1], w[0], w[1], level, rate, core, r0,
        _number(file, "volume"), _number(file, "volume_error"), programs[0], programs[1], mid, rad,
    )  # fmt: skip

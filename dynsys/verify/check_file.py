"""A certificate as it lies on disk, read without trust: every array is finite, of its shape and no larger than it may be.

attributes   format, version, time ("map" or "flow"), level, rate, core, r0 (nan: none), volume, volume_error, digest
/goal (n,)  /frame (n, n)  /domain (2, n)  /disturbance (2, p)
/loop, /V    a program each: `text`, and its arrays k0, i0, ... (see `check_program.py`)
/words       a JSON text for readers: what it is about, in the author's words, what was assumed; nothing of it is checked
/leaves      mid (L, n + p), rad (L, n + p): boxes of y and of the disturbance scaled to [-1, 1]; bounds (L, 2), which nobody trusts
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dynsys.errors import InvalidValue
from dynsys.verify.check_program import Program, parse

FORMAT = "dynsys certificate"
VERSION = 1
UNFINISHED = "dynsys unfinished proof"  # the format of `unfinished.py`
LARGEST = 2**32  # bytes of one array
LONGEST = 2000  # characters of a word of the author that are told
ATTRIBUTES = ("time", "level", "rate", "core", "r0", "volume", "volume_error")
ARRAYS = ("goal", "frame", "domain", "disturbance", "loop/text", "V/text", "leaves/mid", "leaves/rad")
DAMAGED = "the HDF5 file is cut off or damaged."
BROKEN = (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, OverflowError)  # h5py raises them all


class NoCertificate(InvalidValue):
    """A file that can't be read as a certificate at all; the message says what it is instead."""


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
    """The claim of a file. Raises NoCertificate for a file of another kind, InvalidValue for whatever else is not as it should be."""
    try:
        with _opened(path) as file:
            _check_whole(file)
            missing = [name for name in ATTRIBUTES if name not in file.attrs] + [name for name in ARRAYS if name not in file]
            if missing:
                raise InvalidValue(f"it has no '{missing[0]}'.")
            return _claim(file)
    except InvalidValue:
        raise
    except (*BROKEN, MemoryError) as error:
        raise InvalidValue(f"it is not laid out as a certificate: {str(error).strip() or type(error).__name__}.") from None


def read_about(path: Any) -> dict[str, str]:
    """What a certificate is about (system, command, ...) in the words of its author, each on one line; empty if there are none.

    They are no part of the claim: nothing checks them.
    """
    try:
        with _opened(path) as file:
            found = json.loads(_text(file, "words"))["about"]
            return {_line(key): _line(x if isinstance(x, str) else json.dumps(x, ensure_ascii=False)) for key, x in found.items()}
    except (InvalidValue, *BROKEN, MemoryError):
        return {}


def _line(text: str) -> str:
    """Text that does nothing to a terminal."""
    return "".join(c if c.isprintable() else " " for c in text[:LONGEST])


def _opened(path: Any) -> Any:
    """The HDF5 file, open. Raises NoCertificate if there is none."""
    import h5py

    try:
        return h5py.File(Path(path), "r")
    except FileNotFoundError:
        raise NoCertificate("there is no such file.") from None
    except OSError as error:
        if error.errno:
            raise NoCertificate(f"it can't be opened: {os.strerror(error.errno)}.") from None
        raise NoCertificate(DAMAGED if h5py.is_hdf5(Path(path)) else "it is no HDF5 file.") from None
    except (ValueError, TypeError) as error:
        raise NoCertificate(f"it can't be opened: {error}.") from None


def _check_whole(file: Any) -> None:
    """Raises NoCertificate for a file of another kind, or one that HDF5 can't read; InvalidValue for one that was changed."""
    try:
        form, version = file.attrs.get("format"), file.attrs.get("version")
        if form is None:
            raise NoCertificate("it is no certificate of dynsys: it has no 'format'.")
        form = form.decode("utf-8", "replace") if isinstance(form, bytes) else str(form)
        if form == UNFINISHED:
            raise NoCertificate("it is an unfinished proof, not a certificate; go on with dynsys certify ... --resume FILE.")
        if form != FORMAT:
            raise NoCertificate(f"it is no certificate of dynsys: its format is {form[:80]!r}.")
        if not np.array_equal(version, VERSION):
            raise NoCertificate(f"it is a certificate of version {_line(str(version)[:80])}; this dynsys reads version {VERSION}.")
        if "digest" not in file.attrs:
            raise InvalidValue("it has no 'digest'.")
        sealed = _text(file, "digest") == digest(file)
    except InvalidValue:
        raise
    except BROKEN:
        raise NoCertificate(DAMAGED) from None
    if not sealed:
        raise InvalidValue("the digest does not fit: the file was changed after it was written.")


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
    value = np.asarray(file.attrs[key]) if key in file.attrs else _array(file[key])
    if value.size != 1 or value.dtype.kind != "S":
        raise InvalidValue(f"{key} must be one text of fixed length, got {value.dtype} {value.shape}.")
    return value.item().decode()


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

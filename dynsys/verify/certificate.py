"""Certificates: a proof as one HDF5 file, which the independent checker (`checker.py`) proves again from the file alone.

    save_certificate(proof, loop, V, "cert.h5", about={"system": "pendulum", "controller": "lqr"})
    check("cert.h5").valid

The layout is in `check_file.py`. The loop and V are stored as programs (`program.py`), text that a person can read; and as modules, from
which they can be made again (`load_modules`), if their classes are registered.
"""

import contextlib
import json
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from dynsys.errors import DataError, DynsysError, InvalidValue
from dynsys.models.store import read_module, write_module
from dynsys.precision import x64
from dynsys.verify.certify import Proof
from dynsys.verify.check_file import FORMAT, VERSION, Claim, digest, read
from dynsys.verify.loop import ClosedLoop
from dynsys.verify.lyapunov import QuadraticLyapunov
from dynsys.verify.program import ProgramText, trace
from dynsys.verify.proof import fingerprint
from dynsys_datasets.files import replacing

SAMPLES = 200_000
SIGMAS = 4.0  # standard errors in the error bar of the volume


@dataclass(frozen=True)
class Certificate:
    """A certificate read back: the claim as the checker reads it, the bounds of the leaves (L, 2), the programs' texts, and the words."""

    claim: Claim
    bounds: np.ndarray
    loop: str
    V: str
    words: dict[str, Any]


def save_certificate(
    proof: Proof,
    loop: ClosedLoop,
    V: Any,
    path: str | Path,
    *,
    about: dict[str, Any] | None = None,
    volume: tuple[float, float] | None = None,
) -> Path:
    """Write a proved claim about `loop` and `V`, the same as were given to `certify`; atomic. about: what a reader should know.

    volume: of {V <= level} in the cube, with its standard error, as `routine.volume_of` gives them. Where it is not given, or is 0, it is
    that of the formula for a quadratic V, else from random states. Raises InvalidValue for a proof that is not complete, kept no boxes or
    is about another loop or V, for functions that no program can hold, or an `about` that can't be written as JSON.
    """
    import h5py

    mid, rad, bounds = proof.leaves
    if not proof.proved or not len(mid):
        raise InvalidValue(
            f"save_certificate: the proof ended as '{proof.outcome.value}' with {len(mid)} boxes kept. A certificate needs a whole proof; "
            "call certify with keep_leaves=True and a level that it can prove."
        )
    V = in_float64(V)
    if proof.fingerprint and fingerprint(loop, V) != proof.fingerprint:
        raise InvalidValue(
            "save_certificate: the proof is about another loop or another V than are given here. Give the same as were given to certify."
        )
    size, error = _volume(V, loop, proof) if volume is None or volume[0] == 0 else volume
    if not (0 <= size < np.inf and 0 <= error < np.inf):
        raise InvalidValue(f"save_certificate: volume must be (value, standard error), finite and not negative, got {volume}.")
    numbers = {"r0": proof.r0, "volume": size, "volume_error": SIGMAS * error}
    path = Path(path)
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        write_claim(file, proof, loop, V, numbers, about)
        write_arrays(file, "leaves", mid=mid, rad=rad, bounds=bounds)
        for name, module in (("plant", loop.plant), ("policy", loop.policy), ("candidate", V)):
            _write_module(file, name, module)
        seal(file, FORMAT, VERSION)
    return path


def write_claim(file: Any, proof: Proof, loop: ClosedLoop, V: Any, numbers: dict[str, float], about: dict[str, Any] | None) -> None:
    """What a proof is about, finished or not: level, rate, core and more `numbers`, goal, coordinates, domain, programs, words."""
    words = {
        "about": _plain(about or {}),
        "assumptions": list(proof.assumptions),
        "bracket": [None if np.isnan(x) else float(x) for x in proof.bracket],
        "boxes": proof.boxes,
        "seconds": proof.seconds,
        "rest": None if loop.rest is None else np.asarray(loop.rest).tolist(),
        "versions": versions(),
    }
    texts = programs(loop, V)
    for key, value in {"level": proof.level, "rate": proof.rate, "core": proof.core, **numbers}.items():
        file.attrs[key] = np.float64(value)
    file.attrs["time"] = np.bytes_(b"flow" if loop.continuous else b"map")
    for name, array in (
        ("goal", loop.goal),
        ("frame", proof.frame),
        ("domain", np.stack(proof.domain)),
        ("disturbance", np.stack([loop.low, loop.high])),
    ):
        file[name] = np.asarray(array, np.float64)
    for name, program in texts.items():
        _write_program(file.create_group(name), program)
    file["words"] = np.bytes_(json.dumps(words, indent=1).encode())


def seal(file: Any, form: str, version: int) -> None:
    """What the file is, and the digest of all that it holds."""
    file.attrs["format"], file.attrs["version"] = np.bytes_(form.encode()), version
    file.attrs["digest"] = np.bytes_(digest(file).encode())


def write_arrays(file: Any, group: str, **arrays: Any) -> None:
    """Float64 arrays under a group, packed."""
    for name, array in arrays.items():
        file.create_dataset(f"{group}/{name}", data=np.asarray(array, np.float64), compression="gzip", shuffle=True)


def programs(loop: ClosedLoop, V: Any) -> dict[str, ProgramText]:
    """The loop and V as programs. Raises InvalidValue for functions that no program can hold."""
    return {
        "loop": trace(lambda loop, x, w: loop.advance(x, w), loop, n=loop.dim, p=loop.low.shape[0]),
        "V": trace(lambda V, x: V.value(x), V, n=loop.dim),
    }


def in_float64(V: Any) -> Any:
    """V with its floats as `certify` reads them."""
    with x64():
        return jax.tree_util.tree_map(lambda x: x.astype(jnp.float64) if eqx.is_inexact_array(x) else x, V)


def load_modules(path: str | Path) -> dict[str, Any]:
    """`plant`, `policy` and `candidate` of a file as modules, those of them that it holds.

    Raises DataError for a file that can't be read, or a class that is not registered here.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return read_modules(file, str(path))
    except (OSError, KeyError, TypeError, RuntimeError) as error:
        raise DataError(f"{path}: it can't be read: {error}.") from None


def read_modules(file: Any, where: str) -> dict[str, Any]:
    """As `load_modules`, of a file that is open; `where` begins every message."""
    return {name: read_module(group, where, eqx.Module) for name, group in file["modules"].items()} if "modules" in file else {}


def load_certificate(path: str | Path) -> Certificate:
    """What a file holds, after the checks of its form but without any proof. Raises InvalidValue for whatever is not as it should be."""
    import h5py

    try:
        claim = read(path)
        with h5py.File(path, "r") as file:
            return _loaded(claim, file)
    except InvalidValue as error:
        raise InvalidValue(f"{path}: {error}") from None
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InvalidValue(f"{path}: it can't be read: {error}.") from None


def _loaded(claim: Claim, file: Any) -> Certificate:
    loop, V, words = (bytes(file[name][()]).decode() for name in ("loop/text", "V/text", "words"))
    return Certificate(claim, np.asarray(file["leaves/bounds"][()]), loop, V, json.loads(words))


def volume_in_cube(V: Any, goal: np.ndarray, proof: Proof, samples: int = SAMPLES, seed: int = 0) -> tuple[float, float]:
    """The volume of {V <= level} in the cube of the frame, from uniform samples, and its standard error."""
    with x64():
        y = jr.uniform(jr.key(seed), (samples, len(goal)), minval=-1.0)
        inside = jax.vmap(lambda y: V.value(goal + jnp.asarray(proof.frame) @ y) <= proof.level)(y)
        share = float(jnp.mean(inside))
    whole = 2.0 ** len(goal) * abs(float(np.linalg.det(proof.frame)))
    return whole * share, whole * float(np.sqrt(max(share * (1 - share), 1 / samples) / samples))


def _volume(V: Any, loop: ClosedLoop, proof: Proof) -> tuple[float, float]:
    if isinstance(V, QuadraticLyapunov):  # a convex set that does not meet the border of the cube: all of the ellipsoid is in it
        return float(V.volume(proof.level)), 0.0
    return volume_in_cube(V, np.asarray(loop.goal), proof)


def versions() -> dict[str, str]:
    """What the proof was made with."""
    made = {"python": platform.python_version()}
    for name in ("dynsys", "jax", "jaxlib", "numpy", "equinox"):
        with contextlib.suppress(PackageNotFoundError):
            made[name] = version(name)
    return made


def _plain(about: dict[str, Any]) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(about))
    except (TypeError, ValueError):
        raise InvalidValue(f"about must be a dictionary of plain values, got {about!r}.") from None


def _write_program(group: Any, program: ProgramText) -> None:
    group["text"] = np.bytes_(program.text.encode())
    for name, array in program.arrays.items():
        group[name] = array


def _write_module(file: Any, name: str, module: Any) -> None:
    """A registered module under `modules`; nothing if it can't be stored, as the program is there."""
    if not isinstance(module, eqx.Module):
        return
    try:
        write_module(file.create_group(f"modules/{name}"), module)
    except (DynsysError, TypeError):
        del file[f"modules/{name}"]

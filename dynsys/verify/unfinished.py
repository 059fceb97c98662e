"""Proofs that met a limit, as one HDF5 file, from which they go on: nothing that was proved is lost.

    save_unfinished(proof, loop, V, "rest.h5")                 proof.outcome is UNDECIDED
    loop, V, proof = load_unfinished("rest.h5", plant)         the plant is yours, the policy and V come from the file
    proof = certify(loop, V, domain=proof.domain, rate=proof.rate, level=proof.level, core=proof.core, resume=proof)

The layout is that of a certificate (`check_file.py`), with the boxes that are `open`, put `aside` and proved (`leaves`), and without a
volume of the set. A file is not evidence: whoever writes one can leave boxes out. `dynsys verify` proves what comes of it again.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dynsys.errors import DataError, DynsysError, InvalidValue
from dynsys.models.store import LARGEST, read_text, write_module, write_text
from dynsys.precision import x64
from dynsys.verify.branch import Search
from dynsys.verify.certificate import in_float64, programs, read_modules, seal, write_arrays, write_claim
from dynsys.verify.certify import Outcome, Proof
from dynsys.verify.check_file import digest
from dynsys.verify.loop import ClosedLoop
from dynsys.verify.proof import fingerprint
from dynsys_datasets.files import replacing

FORMAT = "dynsys unfinished proof"
VERSION = 1
PARTS = {"open": ("mid", "rad"), "aside": ("mid", "rad"), "leaves": ("mid", "rad", "bounds")}
WHOLE = 1e-6  # the shares of the cube that are open, aside and proved add up to 1 this well
UNREADABLE = (OSError, KeyError, ValueError, TypeError, AttributeError, OverflowError, RuntimeError, MemoryError, EOFError)


def can_go_on(proof: Proof) -> bool:
    """Whether a limit of time, boxes or memory, or a caller, stopped a proof that has boxes left to split."""
    return proof.outcome is Outcome.UNDECIDED and bool(proof.search.open)


def save_unfinished(proof: Proof, loop: ClosedLoop, V: Any, path: str | Path, about: dict[str, Any] | None = None) -> Path:
    """Write a stopped proof about `loop` and `V`, the same as were given to `certify`; atomic. about: what a reader should know.

    Raises InvalidValue for a proof that is decided, a policy or V whose class is not registered (`dynsys.registry`), or functions that no
    program can hold; DataError if the file can't be written.
    """
    import h5py

    if not can_go_on(proof):
        told = proof.reason or "no box is open"
        raise InvalidValue(f"save_unfinished: the proof ended as '{proof.outcome.value}' ({told}); it can't go on.")
    V, path = in_float64(V), Path(path)
    numbers = {"r0": proof.r0, "share": proof.volume}
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        write_claim(file, proof, loop, V, numbers, about)
        file.attrs["boxes"], file.attrs["face_boxes"], file.attrs["seconds"] = proof.boxes, proof.face_boxes, np.float64(proof.seconds)
        write_text(file, "reason", proof.reason)
        if loop.rest is not None:
            file["rest"] = np.asarray(loop.rest, np.float64)
        for name, columns in PARTS.items():
            write_arrays(file, name, **dict(zip(columns, _joined(getattr(proof.search, name), columns, loop), strict=True)))
        for name, module in (("policy", loop.policy), ("candidate", V)):
            if module is not None:
                _store(file, name, module)
        seal(file, FORMAT, VERSION)
    return path


def load_unfinished(path: str | Path, plant: Any, *, enter: Any = None) -> tuple[ClosedLoop, Any, Proof]:
    """The loop, V and the proof to hand to `certify(resume=proof)`.

    plant: the same map or flow, with the same parameters, as the proof was begun with. enter: how disturbances enter, as in
    `ClosedLoop.of`, if the loop has any. Raises DataError for a file that is not there, InvalidValue for one that is damaged or of another
    kind, or that was made with another plant.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file. Give an unfinished proof that dynsys certify wrote.")
    try:
        with x64(), h5py.File(path, "r") as file:
            _check_form(file)
            proof = _proof(file)
            modules = read_modules(file, str(path))
            loop, V = _loop(file, plant, modules, proof, enter), in_float64(modules["candidate"])
            kind = "flow" if loop.continuous else "map"
            if read_text(file, "time") != kind or (kind == "map" and proof.rate >= 1):
                raise InvalidValue(_other(f"it is about a {read_text(file, 'time')}, this plant is a {kind}"))
            _check_same(file, loop, V)
            proof = replace(proof, fingerprint=fingerprint(loop, V))
    except DynsysError as error:
        raise InvalidValue(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    except UNREADABLE as error:
        raise InvalidValue(f"{path}: it can't be read: {str(error).strip() or type(error).__name__}. It is damaged.") from None
    return loop, V, proof


def _store(file: Any, name: str, module: Any) -> None:
    try:
        write_module(file.create_group(f"modules/{name}"), module)
    except (DataError, TypeError) as error:
        raise InvalidValue(
            f"save_unfinished: the {name}, a {type(module).__name__}, can't be stored: {error} To go on in this process, hand the proof to "
            "certify(resume=proof)."
        ) from None


def _joined(parts: list[Any], columns: tuple[str, ...], loop: ClosedLoop) -> list[np.ndarray]:
    """Each column of the boxes in one array, in the order in which the search has them."""
    if parts:
        return [np.concatenate(column) for column in zip(*parts, strict=True)]
    width = loop.dim + loop.low.shape[0]
    return [np.zeros((0, 2 if column == "bounds" else width)) for column in columns]


def _check_form(file: Any) -> None:
    if "format" not in file.attrs or read_text(file, "format") != FORMAT or int(file.attrs["version"]) != VERSION:
        raise InvalidValue(f"it is no unfinished proof of version {VERSION}. Give a file that dynsys certify wrote when it met a limit.")
    if read_text(file, "digest") != digest(file):
        raise InvalidValue("the digest does not fit: the file is damaged, or was changed after it was written.")


def _array(file: Any, name: str, *shape: int) -> np.ndarray:
    item = file[name]
    if item.dtype != np.float64 or item.shape != shape or item.nbytes > LARGEST:
        raise InvalidValue(f"{name} must be float64 numbers {shape}, got {item.dtype} {item.shape}. It is damaged.")
    return np.asarray(item[()])


def _proof(file: Any) -> Proof:
    """What the file says of the proof, after the checks of its form."""
    n, p = file["goal"].shape[0], file["disturbance"].shape[1]
    level, rate, core, r0, share, seconds = (float(file.attrs[key]) for key in ("level", "rate", "core", "r0", "share", "seconds"))
    if not 0 <= core < level < np.inf or not 0 <= rate < np.inf or not (np.isnan(r0) or 0 < r0 <= 0.5):
        raise InvalidValue(f"wants 0 <= core < level, 0 <= rate and r0 in (0, 0.5], got {core}, {level}, {rate}, {r0}. It is damaged.")
    boxes = {
        name: [_array(file, f"{name}/{key}", file[f"{name}/mid"].shape[0], 2 if key == "bounds" else n + p) for key in columns]
        for name, columns in PARTS.items()
    }
    sizes = {name: float(np.sum(np.prod(np.where(x[1] > 0, x[1], 1.0), axis=1))) for name, x in boxes.items()}
    if not abs(sizes["open"] + sizes["aside"] + share - 1) < WHOLE or (
        len(boxes["leaves"][0]) and not abs(sizes["leaves"] - share) < WHOLE
    ):
        raise InvalidValue("its boxes do not fill the cube: some are missing. It is damaged.")
    kept: list[Any] = [[tuple(x)] if len(x[0]) else [] for x in boxes.values()]
    search = Search(kept[0], kept[1], kept[2], share, int(file.attrs["boxes"]), None)
    assumptions = tuple(json.loads(bytes(file["words"][()]))["assumptions"])
    domain = _array(file, "domain", 2, n)
    smallest = min((float(np.min(np.max(x[1], axis=1))) for x in (boxes["leaves"], boxes["aside"]) if len(x[1])), default=float("nan"))
    nan = float("nan")
    return Proof(
        Outcome.UNDECIDED, read_text(file, "reason"), level, (nan, nan), rate, core, search.boxes, seconds, 0.0, share, r0,
        int(file.attrs["face_boxes"]), smallest, _array(file, "frame", n, n), (domain[0], domain[1]), None, assumptions, search,
    )  # fmt: skip


def _loop(file: Any, plant: Any, modules: dict[str, Any], proof: Proof, enter: Any) -> ClosedLoop:
    """The plant with the policy of the file. Raises InvalidValue for a plant of another size, or whose equilibrium is elsewhere."""
    n, p = len(proof.frame), file["disturbance"].shape[1]
    goal, rest = _array(file, "goal", n), _array(file, "rest", *file["rest"].shape) if "rest" in file else None
    disturbance = _array(file, "disturbance", 2, p)
    policy = modules.get("policy")
    if plant.dim != n:
        raise InvalidValue(_other(f"it has {n} states, this plant {plant.dim}"))
    if policy is not None:
        shape = jax.eval_shape(policy, jax.ShapeDtypeStruct((n,), jnp.float64)).shape
        if shape != (plant.n_inputs,):
            raise InvalidValue(_other(f"its policy gives inputs of shape {shape}, this plant takes {plant.n_inputs}"))
    try:
        return ClosedLoop.of(plant, policy, goal=goal, rest=rest, disturbance=(disturbance[0], disturbance[1]) if p else None, enter=enter)
    except (TypeError, ValueError, IndexError) as error:  # an equilibrium elsewhere; inputs or disturbances that the plant does not take
        raise InvalidValue(_other(str(error))) from None


def _check_same(file: Any, loop: ClosedLoop, V: Any) -> None:
    """Whether the programs of the file are those of this loop and V, to the last bit."""
    for name, program in programs(loop, V).items():
        group = file[name]
        same = bytes(group["text"][()]).decode() == program.text and sorted(group) == sorted(["text", *program.arrays])
        if not same or any(group[key][()].tobytes() != array.tobytes() for key, array in program.arrays.items()):
            raise InvalidValue(
                _other("its loop is another than that of this plant")
                if name == "loop"
                else "its V is not what its program says. It is damaged."
            )


def _other(why: str) -> str:
    return (
        f"the proof was made with another system, or other parameters: {why}. Give the same system, parameters and step as for the proof."
    )

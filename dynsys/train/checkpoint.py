"""Checkpoints: a training run on disk, so that a killed one goes on as if nothing had happened, to the bit.

One HDF5 file holds every array of the state as raw numbers, the kept parameters of every seed, and the history. It is
written whole and then renamed. `fingerprint` (of settings and data) is compared on reading, so that a run never goes on with
other data than it began with.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dynsys.errors import DataError
from dynsys.models.store import read_text, write_text
from dynsys.status import Status
from dynsys.train.trainer import Row, Run, Scored
from dynsys_datasets.files import replacing


class _OtherRun(DataError):
    """A checkpoint that is whole, but of other settings or data."""


def save_checkpoint(run: Run, path: Path, *, fingerprint: str) -> None:
    """Write a run between two chunks; atomic. Raises DataError if the file can't be written."""
    import h5py

    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        write_text(file, "fingerprint", fingerprint)
        write_text(file, "progress", json.dumps({"chunks": run.chunks, "status": run.status.value}))
        file.create_dataset("history", data=np.frombuffer(_history_text(run).encode(), np.uint8))
        for name, tree in (("state", run.state), ("best", run.best)):
            group = file.create_group(name)
            for i, leaf in enumerate(jax.tree.leaves(tree)):
                group.create_dataset(str(i), data=np.asarray(leaf))
        file.create_dataset("best_score", data=run.best_score)
        file.create_dataset("best_step", data=run.best_step)


def load_checkpoint(path: Path, like: Run, *, fingerprint: str) -> Run:
    """The run that `save_checkpoint` wrote, shaped as the fresh run `like`.

    Raises DataError if the file is damaged or belongs to other settings or data.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if read_text(file, "fingerprint") != fingerprint:
                raise _OtherRun(
                    f"{path}: belongs to a run with other settings or data. Give the same ones to go on, "
                    "or another --out, or --overwrite to begin anew."
                )
            progress = json.loads(read_text(file, "progress"))
            return Run(
                state=jax.tree.map(jnp.asarray, _fill(file["state"], like.state)),
                best=_fill(file["best"], like.best),
                best_score=_fill({"0": file["best_score"]}, like.best_score),
                best_step=_fill({"0": file["best_step"]}, like.best_step),
                chunks=int(progress["chunks"]),
                history=_history(bytes(_numbers(file["history"]))),
                status=Status(progress["status"]),
            )
    except _OtherRun:
        raise
    except Exception as error:  # h5py raises many kinds on a damaged file
        raise DataError(f"{path}: can't be read as a checkpoint ({error}). Delete it to begin anew.") from error


def read_history(path: Path, *, fingerprint: str) -> tuple[Row, ...]:
    """The history in a checkpoint; empty if there is none or it belongs to another run."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return tuple(_history(bytes(_numbers(file["history"])))) if read_text(file, "fingerprint") == fingerprint else ()
    except Exception:  # h5py raises many kinds on a damaged file; a finished run is worth as much without its curves
        return ()


def _numbers(dataset: Any) -> np.ndarray:
    return np.asarray(dataset[()])


def _fill(group: Any, like: Any) -> Any:
    leaves, structure = jax.tree.flatten(like)
    stored = [group[str(i)][()] for i in range(len(leaves))]
    for leaf, new in zip(leaves, stored, strict=True):
        if not isinstance(new, np.ndarray | np.generic) or new.shape != leaf.shape or new.dtype != leaf.dtype:
            raise DataError(f"an array has shape {np.shape(new)} {np.asarray(new).dtype}, the model needs {leaf.shape} {leaf.dtype}")
    return jax.tree.unflatten(structure, stored)


def _history_text(run: Run) -> str:
    return json.dumps([dataclasses.astuple(row) for row in run.history])


def _history(text: bytes) -> list[Row]:
    rows = []
    for *numbers, score in json.loads(text):
        parts = None if score is None else Scored(score[0], tuple((name, value) for name, value in score[1]))
        rows.append(Row(*numbers, score=parts))
    return rows

"""The data of the benchmark: the series of all systems in one HDF5 file, made in parallel, resumable, the same for any number of workers.

    chaos.h5   /Lorenz/series (1200, 3)  /Lorenz/validation  /Lorenz/long_train  /Lorenz/long_test   + attributes
               attributes of the file: recipe (JSON), version

While it is being made, every finished system is a file of its own in `chaos.h5.parts/`; a build that was killed goes on with
those that are missing, and the last step puts all into one file, written whole or not at all.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import dynsys
from dynsys.benchmark.generate import Recipe, generate
from dynsys.benchmark.workers import Outcome, work
from dynsys_datasets.catalogue import names, system
from dynsys_datasets.collections import collection, is_polynomial
from dynsys_datasets.errors import DataError, InvalidValue, UnknownName
from dynsys_datasets.files import replacing

NOTE = "recipe.json"  # in the folder of parts


@dataclasses.dataclass(frozen=True)
class Built:
    """What a build did: the file, the systems that are in it, those that failed with the reason, and how many were there before."""

    path: Path
    systems: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    reused: int


def build(
    path: str | Path,
    *,
    systems: Sequence[str] | str = "chaos",
    recipe: Recipe | None = None,
    jobs: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int, Outcome], None] | None = None,
) -> Built:
    """Make (or complete) the data set of `systems` in an HDF5 file.

    systems: names, .toml files, the name of a collection ('chaos': the 135 continuous systems of the literature's collection;
    'maps'; 'all'), or several of those. jobs: processes (default: one a core). progress is called after every system with
    (done, all, outcome). A file that is there already with the same recipe keeps its systems and gets those that it lacks.

    Raises InvalidValue if the file was made by another recipe (unless `overwrite`), UnknownName for systems that are not there.
    A system that fails is left out and named in the result. The script that calls this needs the usual
    `if __name__ == "__main__":`, since workers import it.
    """
    target, chosen = Path(path), recipe or Recipe()
    if jobs is not None and jobs < 1:
        raise InvalidValue(f"build: jobs must be at least 1, got {jobs}.")
    wanted = resolve_systems(systems)
    parts = _parts(target)
    if target.is_dir():
        raise DataError(f"{target}: is a folder; give the name of a file.")
    if target.exists():
        Dataset(target)  # also with overwrite: what is no data set is someone's own file
    if overwrite:
        target.unlink(missing_ok=True)
        shutil.rmtree(parts, ignore_errors=True)
    mark = json.dumps({**dataclasses.asdict(chosen), "version": dynsys.__version__}, sort_keys=True)
    if target.exists():
        with _opened(target) as file:
            _same_recipe(str(file.attrs.get("recipe", "")), mark, target)
            present = set(file)
    else:
        present = set()
    parts.mkdir(parents=True, exist_ok=True)
    note = parts / NOTE
    if note.exists():
        _same_recipe(note.read_text(encoding="utf-8"), mark, target)
    else:
        with replacing(note) as new:
            Path(new).write_text(mark, encoding="utf-8")
    check_sources(target, wanted)
    there = {name for name in wanted if label_of(name) in present or (parts / f"{label_of(name)}.npz").exists()}
    failed = []
    missing = [name for name in wanted if name not in there]
    tasks = [(name, (name, chosen, str(parts / f"{label_of(name)}.npz"))) for name in sorted(missing, key=_slow_first)]
    done = len(there)
    for outcome in work(_make_part, tasks, jobs=jobs or cores()):
        done += 1
        if outcome.reason is not None:
            failed.append((outcome.label, outcome.reason))
        if progress is not None:
            progress(done, len(wanted), outcome)
    _assemble(target, parts, mark)
    shutil.rmtree(parts, ignore_errors=True)
    with _opened(target) as file:
        held = tuple(file)
    return Built(target, held, tuple(sorted(failed)), len(there))


def begun(path: str | Path) -> tuple[Recipe | None, str]:
    """The recipe of a data set that is there or was begun, and the version that made it; (None, "") if nothing is there.

    Raises DataError for a file that is no data set.
    """
    target = Path(path)
    if target.exists():
        there = Dataset(target)
        return there.recipe, there.version
    note = _parts(target) / NOTE
    return _recipe(note.read_text(encoding="utf-8")) if note.exists() else (None, "")


def check_sources(path: str | Path, systems: Iterable[str]) -> None:
    """InvalidValue if series in a data set (or in one that was begun) come from another file than the system of that name now."""
    target = Path(path)
    present: Any = Dataset(target) if target.exists() else None
    for name in systems:
        label, facts = label_of(name), None
        part = _parts(target) / f"{label}.npz"
        if present is not None and label in present.systems:
            facts = present.facts(label)
        elif part.exists():
            with np.load(part, allow_pickle=False) as held:
                facts = json.loads(str(held["facts"]))
        if facts is not None and facts.get("source", "") != _source(name):
            raise InvalidValue(
                f"{target}: its series of {label!r} come from another file or an earlier version of it, not from {name}. "
                "Change the name in the file, or make the data anew in another place."
            )


def _source(name: str) -> str:
    """A mark of a user's file, which can change while its name stays; nothing for a system of the database."""
    return hashlib.sha256(Path(name).read_bytes()).hexdigest()[:16] if name.endswith(".toml") else ""


def resolve_systems(systems: Sequence[str] | str) -> tuple[str, ...]:
    """Names of systems from names, .toml files and collections, each once, in order; UnknownName with close matches otherwise."""
    given = [systems] if isinstance(systems, str) else list(systems)
    found: dict[str, None] = {}
    for entry in (part.strip() for text in given for part in text.split(",")):
        if not entry:
            continue
        if entry in COLLECTIONS:
            found.update(dict.fromkeys(COLLECTIONS[entry]()))
        elif entry.endswith(".toml"):
            system(entry)
            found[entry] = None
        elif entry in names():
            found[entry] = None
        else:
            raise UnknownName("system or collection", entry, [*names(), *COLLECTIONS])
    if not found:
        raise InvalidValue(f"systems: nothing was named; wanted names, .toml files or one of {', '.join(COLLECTIONS)}.")
    by_label: dict[str, str] = {}
    for entry in found:  # series and rows are kept by label
        other = by_label.setdefault(label_of(entry), entry)
        if other != entry:
            raise InvalidValue(f"systems: {other} and {entry} have the same name {label_of(entry)!r}. Change the name in one of the files.")
    return tuple(found)


COLLECTIONS: dict[str, Callable[[], Iterable[str]]] = {
    "chaos": lambda: collection("chaos"),
    "all": lambda: collection("chaos"),
    "non-polynomial": lambda: [name for name in collection("chaos") if not is_polynomial(system(name))],
    "maps": lambda: names("map"),
}


def label_of(name: str) -> str:
    """The name under which a system's series are stored: its own, also for a .toml file."""
    return system(Path(name)).name if name.endswith(".toml") else name


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclasses.dataclass(frozen=True)
class Series:
    """The series of one system in a data set, (T, N) each, with what is known of it.

    dt in the system's unit; period: points in one; lyapunov: the maximal exponent per unit of time or None; wraps: for each
    column the period of its angle, 0 for none.
    """

    name: str
    columns: tuple[str, ...]
    dt: float
    per_period: int
    lyapunov: float | None
    wraps: tuple[float, ...]
    arrays: dict[str, np.ndarray]

    def shown(self, key: str, *, angles: str = "sine") -> np.ndarray:
        """A series with its angles as sine(2 pi angle / period) ('sine', what forecasts are scored on), or as they are ('raw')."""
        values = np.asarray(self.arrays[key], dtype=np.float64)
        if angles == "raw":
            return values
        values = values.copy()
        for i, period in enumerate(self.wraps):
            if period:
                values[:, i] = np.sin(2 * np.pi * values[:, i] / period)
        return values


class Dataset:
    """A data set file, read one system at a time."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        with _opened(self.path) as file:
            if "recipe" not in file.attrs:
                raise DataError(f"{self.path}: is no data set of dynsys (it has no recipe). Make one: dynsys dataset build --out FILE.")
            self.recipe, self.version = _recipe(str(file.attrs["recipe"]))
            self.systems = tuple(file)

    def series(self, name: str, keys: Sequence[str] = ("series",)) -> Series:
        """The asked series of a system; UnknownName if the system is not in the file, DataError if a series is not."""
        if name not in self.systems:
            raise UnknownName(f"system in {self.path.name}:", name, self.systems)
        with _opened(self.path) as file:
            group = file[name]
            lacking = [key for key in keys if key not in group]
            if lacking:
                raise DataError(f"{self.path.name}: {self.lacking(name, keys)}")
            facts = json.loads(str(group.attrs["facts"]))
            arrays = {key: np.asarray(group[key]) for key in keys}
        return Series(name, tuple(facts["names"]), facts["dt"], self.recipe.per_period, facts["lyapunov"], tuple(facts["wraps"]), arrays)

    def lacking(self, name: str, keys: Sequence[str]) -> str:
        """Why a system can't give the asked series; empty if it can."""
        if name not in self.systems:
            return f"{self.path.name} has no series of this system"
        with _opened(self.path) as file:
            missing = [key for key in keys if key not in file[name]]
        if not missing:
            return ""
        return self.facts(name).get("no_long") or f"{name} has no {', '.join(missing)}. Build it with --long."

    def facts(self, name: str) -> dict[str, Any]:
        """What is known of the making of a system's series: solver, calls of the field, error of the check."""
        with _opened(self.path) as file:
            return json.loads(str(file[name].attrs["facts"]))


def _make_part(name: str, recipe: Recipe, path: str) -> dict[str, Any]:
    """Make one system's series and write them to a file of their own; runs in a worker."""
    made = generate(name, recipe)
    with replacing(Path(path)) as new, open(new, "wb") as file:
        np.savez(file, **{"facts": np.array(json.dumps(made.facts | {"source": _source(name)})), **made.arrays})  # pyright: ignore[reportArgumentType]
    return {key: made.facts.get(key) for key in ("solver", "calls", "check_error")}


def _assemble(target: Path, parts: Path, mark: str) -> None:
    """One file from the old one and the parts, sorted by name; replaces the old one whole."""
    pieces = {path.stem: path for path in parts.glob("*.npz")}
    if target.exists():
        with _opened(target) as old:
            pieces |= {name: target for name in old if name not in pieces}
    with replacing(target) as new, _opened(Path(new), "w") as file:
        file.attrs["recipe"] = mark
        for name in sorted(pieces):
            _copy(file, name, pieces[name], target)


def _copy(file: Any, name: str, source: Path, target: Path) -> None:
    if source == target:
        with _opened(target) as old:
            old.copy(name, file)
        return
    with np.load(source, allow_pickle=False) as part:
        group = file.create_group(name)
        group.attrs["facts"] = str(part["facts"])
        for key in sorted(set(part) - {"facts"}):
            group.create_dataset(key, data=part[key])


def _parts(target: Path) -> Path:
    return target.with_name(target.name + ".parts")


def _recipe(text: str) -> tuple[Recipe, str]:
    made = json.loads(text)
    version = made.pop("version", "")
    return Recipe(**made), version


def _same_recipe(found: str, wanted: str, path: Path) -> None:
    if found != wanted:
        there, asked = json.loads(found), json.loads(wanted)
        differ = ", ".join(f"{key} is {there.get(key)}, wanted {asked.get(key)}" for key in asked if there.get(key) != asked.get(key))
        raise InvalidValue(f"{path}: was made by another recipe: {differ}. Choose another file, or make it anew with --overwrite.")


def _slow_first(name: str) -> tuple[int, str]:
    """Delay equations first: they compile; then by name. The order changes the time, not the content."""
    kind = system(Path(name) if name.endswith(".toml") else name).kind
    return (0 if kind == "delay" else 1, name)


def _opened(path: Path, mode: str = "r") -> Any:
    import h5py

    try:
        return h5py.File(path, mode)
    except OSError as error:
        words = " ".join(str(error).split())
        raise DataError(f"{path}: can't be opened as HDF5: {words}. Wanted a file of dynsys dataset build.") from None

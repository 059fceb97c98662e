"""`benchmark`: every model on every system under every protocol, once, into one results file.

    out/results.sqlite   the rows           out/data.h5   the series, made if they are not given

A run that was killed goes on with the tasks that have no row; a task that failed has a row that says why.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dynsys
from dynsys import registry
from dynsys.benchmark.dataset import Built, Dataset, begun, build, check_sources, label_of, resolve_systems
from dynsys.benchmark.entry import Entry, parse_entry
from dynsys.benchmark.executor import check_executor, execute
from dynsys.benchmark.generate import Recipe
from dynsys.benchmark.learner import check_entry
from dynsys.benchmark.protocol import Protocol, load_protocol
from dynsys.benchmark.store import Row, Store
from dynsys.benchmark.task import Task, run_task
from dynsys.benchmark.workers import Outcome
from dynsys.errors import InvalidValue

RESULTS = "results.sqlite"
DATA = "data.h5"


@dataclasses.dataclass(frozen=True)
class Ran:
    """What a run did: the results file, its tasks, how many had a row before, how many ran now, and how many of those failed."""

    path: Path
    tasks: int
    before: int
    ran: int
    failed: int


@dataclasses.dataclass(frozen=True)
class Told:
    """Progress: tasks finished of all, and the row that was just written."""

    done: int
    tasks: int
    row: Row


def benchmark(
    models: Sequence[str],
    *,
    out: str | Path,
    systems: Sequence[str] | str | None = None,
    protocols: Sequence[str] = ("forecast-2023",),
    seeds: int = 1,
    data: str | Path | None = None,
    executor: str = "local",
    address: str | None = None,
    jobs: int | None = None,
    timeout: float | None = None,
    retry_failed: bool = False,
    progress: Callable[[Told], None] | None = None,
    building: Callable[[int, int, Outcome], None] | None = None,
) -> Ran:
    """Run the benchmark, or go on with it.

    models: registered names, with settings in brackets if need be ('alrnn[n_relu=5]'). systems: names, .toml files or
    collections; default: those of each protocol. protocols: names or .toml files. seeds: 0 ... seeds - 1, for the model and
    for the noise; a model without randomness on data without noise runs for seed 0 only. data: a data set file; default:
    out/data.h5, made now as far as it is missing. executor: 'local' or 'ray' (with the cluster's address); jobs: at once.
    timeout: seconds a task may take. retry_failed: run tasks again that failed. progress is called after every task, building
    after every system of the data.

    Raises UnknownName or InvalidValue for what can't be run, before anything runs.
    """
    check_executor(executor, jobs, timeout)
    entries = [parse_entry(text) for text in models]
    for entry in entries:
        check_entry(entry)
    chosen = [load_protocol(name) for name in protocols]
    if not entries or not chosen or seeds < 1:
        raise InvalidValue(f"benchmark: needs at least one model, one protocol and one seed, got {len(entries)}, {len(chosen)}, {seeds}.")
    if doubled := sorted({entry.label for entry in entries if sum(other.label == entry.label for other in entries) > 1}):
        raise InvalidValue(f"benchmark: the models {doubled} are named twice.")
    wanted = {protocol.name: resolve_systems(protocol.systems if systems is None else systems) for protocol in chosen}
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    check_sources(folder / DATA if data is None else data, dict.fromkeys(name for found in wanted.values() for name in found))
    store = Store(folder / RESULTS)
    before = store.finished(failed_too=not retry_failed)
    keys = [(p, s, e, seed) for p in chosen for s in wanted[p.name] for e in entries for seed in seeds_of(e, p, seeds)]
    missing = [key for key in keys if (key[0].name, label_of(key[1]), key[2].label, key[3]) not in before]
    failed, ran = 0, len(missing)
    if missing:
        dataset = prepared(folder, data, chosen, {key[1] for key in missing}, jobs, building)
        lost, missing = _without_data(missing, dataset)
        done = len(keys) - ran
        for (protocol, system, entry, seed), reason in lost:
            done += 1
            row = Row(protocol.name, label_of(system), entry.label, seed, "failed", reason)
            store.add(row)
            failed += 1
            if progress is not None:
                progress(Told(done, len(keys), row))
        for outcome in execute(run_task, _tasks(missing, dataset), executor=executor, jobs=jobs, address=address, timeout=timeout):
            done += 1
            if outcome.value is not None:
                store.add(outcome.value.row, outcome.value.picture, outcome.value.truth)
                row = outcome.value.row
            else:
                protocol, system, model, seed = outcome.label
                reason = outcome.reason or "the task ended without a word"
                row = Row(protocol, system, model, seed, "failed", reason, seconds=outcome.seconds, attempts=outcome.attempts)
                store.add(row)
            failed += row.status == "failed"
            if progress is not None:
                progress(Told(done, len(keys), row))
    return Ran(store.path, len(keys), len(keys) - ran, ran, failed)


def seeds_of(entry: Entry, protocol: Protocol, seeds: int) -> range:
    """The seeds that can differ: only the first for a model without randomness on data without noise."""
    random = getattr(registry.lookup("model", entry.name), "random", True)
    return range(seeds if random or protocol.data.noise else 1)


def prepared(
    folder: Path,
    data: str | Path | None,
    protocols: Sequence[Protocol],
    systems: set[str],
    jobs: int | None,
    building: Callable[[int, int, Outcome], None] | None,
) -> Dataset:
    """The data set: the given file as it is, or out/data.h5, completed."""
    per_period = {protocol.data.per_period for protocol in protocols}
    if len(per_period) > 1:
        raise InvalidValue(f"benchmark: the protocols want {sorted(per_period)} points a period; run them into separate folders.")
    if data is not None:
        found = Dataset(data)
        if found.recipe.per_period not in per_period:
            raise InvalidValue(f"{data}: has {found.recipe.per_period} points a period, the protocols want {per_period.pop()}.")
        return found
    path = folder / DATA
    short = max([p.data.train + p.data.test for p in protocols if p.kind == "forecast"], default=1200)
    long = max([max(p.data.train, p.data.test) for p in protocols if p.kind == "reconstruct"], default=0)
    recipe = Recipe(per_period=per_period.pop(), points=max(1200, short), long=long)
    there, version = begun(path)
    if there is not None and version != dynsys.__version__:
        raise InvalidValue(
            f"{path}: was made by dynsys {version}, this is {dynsys.__version__}. Give it with --data to use it as it is, or remove it."
        )
    if there is not None and there.points >= recipe.points and there.long >= recipe.long and there.per_period == recipe.per_period:
        recipe = there
    built: Built = build(
        path,
        systems=sorted(systems),
        recipe=recipe,
        jobs=jobs,
        overwrite=there is not None and there != recipe,
        progress=building,
    )
    return Dataset(built.path)


def _without_data(keys: list[Any], dataset: Dataset) -> tuple[list[tuple[Any, str]], list[Any]]:
    """The keys whose system the data set can't serve, with the reason, and the others."""
    asked = {(label_of(key[1]), key[0].keys) for key in keys}
    reasons = {pair: dataset.lacking(*pair) for pair in asked}
    found = [(key, reasons[label_of(key[1]), key[0].keys]) for key in keys]
    return [(key, reason) for key, reason in found if reason], [key for key, reason in found if not reason]


def _tasks(keys: list[tuple[Protocol, str, Entry, int]], dataset: Dataset) -> Iterator[tuple[Any, Callable[[], tuple[Task]]]]:
    """(key of the row, function that reads the series and makes the task's arguments)."""
    for protocol, system, entry, seed in keys:
        label = label_of(system)

        def arguments(protocol: Protocol = protocol, label: str = label, entry: Entry = entry, seed: int = seed) -> tuple[Task]:
            return (Task(protocol, dataset.series(label, protocol.keys), entry, seed),)

        yield (protocol.name, label, entry.label, seed), arguments

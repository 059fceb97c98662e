"""A small pool of processes that outlives its workers: a task whose process dies is tried again, and one that fails is a result.

    for outcome in work(function, tasks, jobs=2):  outcome.label, outcome.value or outcome.reason

Each worker is a fresh interpreter with one thread for linear algebra, so that `jobs` of them fill as many cores. When the
parent dies, by whatever signal, its workers read the end of their pipe and stop.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from dynsys_datasets.errors import DynsysError

ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


LARGEST = 2 * 2**30  # bytes: a worker that holds more after a task is replaced, since every compiled program stays in its memory


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a task: its value, or the reason (one line) why there is none; seconds of work; how often it was begun."""

    label: Any
    value: Any
    reason: str | None
    seconds: float
    attempts: int = 1


@dataclasses.dataclass
class _Worker:
    process: Any
    pipe: Connection
    task: tuple[Any, tuple[Any, ...]] | None = None
    since: float = 0.0


def work(
    function: Callable[..., Any],
    tasks: Iterable[tuple[Any, Callable[[], tuple[Any, ...]] | tuple[Any, ...]]],
    *,
    jobs: int,
    timeout: float | None = None,
    attempts: int = 2,
    environment: Mapping[str, str] | None = None,
    largest: int = LARGEST,
) -> Iterator[Outcome]:
    """Run function(*arguments) for every task (label, arguments) in `jobs` processes; outcomes come as they are ready.

    function: of a module's top level. arguments: a tuple, or a function that makes it when the task is begun. timeout: seconds
    after which a task is stopped and its process replaced. attempts: how often a task is begun whose process dies under it.
    environment: variables that the workers see besides ONE_THREAD. largest: bytes of memory that a worker may hold after a task.
    Leaving the loop early stops all workers.
    """
    waiting: Iterator[Any] = iter(tasks)
    again: list[tuple[Any, Any]] = []
    begun: dict[Any, int] = {}
    workers: list[_Worker] = []
    try:
        while True:
            while len(workers) < jobs or any(worker.task is None for worker in workers):
                task = again.pop() if again else next(waiting, None)
                if task is None:
                    break
                idle = next((worker for worker in workers if worker.task is None), None)
                if idle is None:
                    idle = _start(function, largest, environment or {})
                    workers.append(idle)
                label, arguments = task
                begun[label] = begun.get(label, 0) + 1
                idle.task, idle.since = (label, arguments), time.monotonic()
                # a worker that died while it was idle: the end of its pipe is seen below, where the task is put back
                with contextlib.suppress(BrokenPipeError, OSError):
                    idle.pipe.send(arguments() if callable(arguments) else arguments)
            busy = [worker for worker in workers if worker.task is not None]
            if not busy:
                return
            ready = wait([worker.pipe for worker in busy], timeout=0.2 if timeout else 1.0)
            for worker in busy:
                label, arguments = worker.task or (None, ())
                seconds = time.monotonic() - worker.since
                if worker.pipe in ready:
                    try:
                        value, reason, tired = worker.pipe.recv()
                        worker.task = None
                        if tired:
                            _stop(worker)
                            workers.remove(worker)
                        yield Outcome(label, value, reason, seconds, begun[label])
                    except (EOFError, OSError):
                        code = _stop(worker)
                        workers.remove(worker)
                        if begun[label] < attempts:
                            again.append((label, arguments))
                        else:
                            yield Outcome(label, None, f"the worker process died (exit code {code})", seconds, begun[label])
                elif timeout is not None and seconds > timeout:
                    _stop(worker)
                    workers.remove(worker)
                    yield Outcome(label, None, f"stopped after the time limit of {timeout:g} s", seconds, begun[label])
    finally:
        for worker in workers:
            _stop(worker)


def _start(function: Callable[..., Any], largest: int, more: Mapping[str, str]) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, function, largest), daemon=True)
    wanted = {**ONE_THREAD, **more}
    kept = {name: os.environ.get(name) for name in wanted}
    os.environ.update({name: f"{kept[name]} {value}" if name == "XLA_FLAGS" and kept[name] else value for name, value in wanted.items()})
    try:
        process.start()
    finally:
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
    theirs.close()
    return _Worker(process, ours)


def _stop(worker: _Worker) -> int | None:
    worker.pipe.close()
    if worker.process.is_alive() and worker.task is not None:
        worker.process.kill()
    worker.process.join(5)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()
    return worker.process.exitcode


def _serve(pipe: Connection, function: Callable[..., Any], largest: int) -> None:
    """The loop of a worker: arguments in, (value, None or the reason why there is none, whether it wants to be replaced) out."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        while True:
            arguments = pipe.recv()
            try:
                answer = function(*arguments), None
            except Exception as error:
                answer = None, one_line(error)
            pipe.send((*answer, _resident() > largest))


def _resident() -> int:
    """Bytes of memory that this process holds (Linux; elsewhere 0)."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _die_with_parent() -> None:
    """End this process in the middle of a task when the parent is killed: nobody is left to take the answer."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def one_line(error: BaseException) -> str:
    """An error as one line: its kind (of our own errors, which say what happened, nothing) and its first words."""
    text = " ".join(str(error).split())
    if isinstance(error, DynsysError):
        return text[:500]
    return f"{type(error).__name__}: {text[:500]}" if text else type(error).__name__

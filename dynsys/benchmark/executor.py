"""Where the tasks run: processes of this machine, or a Ray cluster. Both give each task back once, whatever dies meanwhile.

execute(function, tasks, executor="local", jobs=2)           execute(function, tasks, executor="ray", address="auto")
"""

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from dynsys.benchmark.dataset import cores
from dynsys.benchmark.workers import ONE_THREAD, Outcome, one_line, work
from dynsys.errors import InvalidValue, MissingExtra, UnknownName

EXECUTORS = ("local", "ray")


def execute(
    function: Callable[..., Any],
    tasks: Iterable[tuple[Any, Callable[[], tuple[Any, ...]]]],
    *,
    executor: str = "local",
    jobs: int | None = None,
    address: str | None = None,
    timeout: float | None = None,
    attempts: int = 3,
) -> Iterator[Outcome]:
    """Run function(*arguments()) for every task (label, arguments); outcomes come as they are ready, one a task.

    jobs: processes (local; default one a core), or tasks in flight (ray; default two a CPU of the cluster; with a timeout one
    at most). address: of a Ray cluster; None starts one on this machine. timeout: seconds a task may take. attempts: how often a
    task is begun whose process or node dies. Raises UnknownName for an executor that is not there, MissingExtra without ray.
    """
    check_executor(executor, jobs, timeout)
    if executor == "local":
        return _on_this_machine(function, tasks, jobs or cores(), timeout, attempts)
    return _on_ray(function, tasks, jobs, address, timeout, attempts)


def _on_this_machine(
    function: Callable[..., Any],
    tasks: Iterable[tuple[Any, Callable[[], tuple[Any, ...]]]],
    jobs: int,
    timeout: float | None,
    attempts: int,
) -> Iterator[Outcome]:
    """Local processes that share what they compile: systems of equal dimension need the same programs, and a task of an RNN with
    2,000 updates spent half of its time in compiling. The folder lives as long as the run, so no other machine ever reads it.
    """
    with tempfile.TemporaryDirectory(prefix="dynsys-compiled-") as folder:
        shared = {"JAX_COMPILATION_CACHE_DIR": folder, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}
        yield from work(function, tasks, jobs=jobs, timeout=timeout, attempts=attempts, environment=shared)


def check_executor(executor: str, jobs: int | None, timeout: float | None) -> None:
    """UnknownName or InvalidValue for what `execute` can't run with."""
    if executor not in EXECUTORS:
        raise UnknownName("executor", executor, EXECUTORS)
    if jobs is not None and jobs < 1:
        raise InvalidValue(f"benchmark: jobs must be at least 1, got {jobs}.")
    if timeout is not None and not timeout > 0:
        raise InvalidValue(f"benchmark: timeout must be a positive number of seconds, got {timeout:g}.")


def _on_ray(
    function: Callable[..., Any],
    tasks: Iterable[tuple[Any, Callable[[], tuple[Any, ...]]]],
    jobs: int | None,
    address: str | None,
    timeout: float | None,
    attempts: int,
) -> Iterator[Outcome]:
    try:
        import ray
        from ray.exceptions import RayError
    except ImportError:
        raise MissingExtra("dynsys.benchmark on a cluster", "ray", "cluster") from None
    import time

    own = not ray.is_initialized()
    if own:
        ray.init(address=address, log_to_driver=False, include_dashboard=False if address is None else None, logging_level=logging.ERROR)
    # Ray repeats a task whose worker or node died; an error of the task itself comes back as a value and is not repeated
    remote = ray.remote(num_cpus=1, max_retries=attempts - 1, runtime_env={"env_vars": ONE_THREAD})(_guarded)
    waiting, flying, since = iter(tasks), {}, {}
    # the clock of a task starts when it is handed over: with a time limit none may wait behind another
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
    most = (jobs or 2 * cpus) if timeout is None else min(jobs or cpus, cpus)
    try:
        while True:
            while len(flying) < most and (task := next(waiting, None)) is not None:
                label, arguments = task
                reference = remote.remote(function, arguments())
                flying[reference], since[reference] = label, time.monotonic()
            if not flying:
                return
            ready, _ = ray.wait(list(flying), num_returns=1, timeout=1.0)
            for reference in ready:
                label, seconds = flying.pop(reference), time.monotonic() - since.pop(reference)
                try:
                    value, reason, seconds = ray.get(reference)
                except RayError as error:
                    value, reason = None, f"the worker died {attempts} times: {one_line(error)}"
                yield Outcome(label, value, reason, seconds)
            for reference in [r for r in flying if timeout is not None and time.monotonic() - since[r] > timeout]:
                ray.cancel(reference, force=True)
                yield Outcome(flying.pop(reference), None, f"stopped after the time limit of {timeout:g} s", since.pop(reference))
    finally:
        for reference in flying:
            ray.cancel(reference, force=True)
        if own:
            ray.shutdown()


def _guarded(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, str | None, float]:
    """The value, or the reason why there is none, and the seconds of work; runs on a node of the cluster."""
    import time

    began = time.perf_counter()
    try:
        return function(*arguments), None, time.perf_counter() - began
    except Exception as error:
        return None, one_line(error), time.perf_counter() - began

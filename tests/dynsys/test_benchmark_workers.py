"""The pool: every task comes back once, with its value or the reason why there is none, whatever happens to its process."""

import math
import os
import subprocess
import time

import pytest

from dynsys.benchmark.executor import execute
from dynsys.benchmark.workers import work
from dynsys.errors import UnknownName


def test_values_and_errors_come_back_once():
    outcomes = list(work(math.sqrt, [(n, (n,)) for n in range(-3, 20)], jobs=2))
    assert sorted(outcome.label for outcome in outcomes) == list(range(-3, 20))
    for outcome in outcomes:
        if outcome.label < 0:
            assert outcome.value is None
            assert outcome.reason.startswith("ValueError:")
        else:
            assert outcome.reason is None
            assert outcome.value == math.sqrt(outcome.label)


def test_a_process_that_dies_is_replaced_and_its_task_tried_again(tmp_path):
    # the first attempt makes the folder and kills its own worker, the second finds the folder there
    script = f"mkdir {tmp_path / 'begun'} 2>/dev/null && kill -9 $PPID; echo done"
    outcomes = list(work(subprocess.check_output, [("kill", (["sh", "-c", script],)), ("other", (["echo", "here"],))], jobs=1))
    found = {outcome.label: outcome for outcome in outcomes}
    assert len(outcomes) == 2
    assert found["kill"].value == b"done\n"
    assert found["kill"].attempts == 2
    assert found["other"].value == b"here\n"


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the system does not tell the memory of a process")
def test_a_worker_that_holds_too_much_memory_is_replaced():
    def workers(**limit):
        return [outcome.value for outcome in work(os.getpid, [(n, ()) for n in range(4)], jobs=1, **limit)]

    assert len(set(workers(largest=1))) == 4  # every process holds more than a byte
    assert len(set(workers())) == 1


def test_workers_see_the_variables_they_are_given_and_the_parent_does_not():
    (outcome,) = work(os.getenv, [("name", ("DYNSYS_TEST_VARIABLE",))], jobs=1, environment={"DYNSYS_TEST_VARIABLE": "here"})
    assert outcome.value == "here"
    assert "DYNSYS_TEST_VARIABLE" not in os.environ


def test_a_task_that_always_kills_its_process_is_given_up():
    (outcome,) = work(os._exit, [("dies", (3,))], jobs=1, attempts=2)
    assert outcome.value is None
    assert "exit code 3" in outcome.reason
    assert outcome.attempts == 2


def test_a_task_that_takes_too_long_is_stopped_and_the_others_go_on():
    began = time.monotonic()
    found = {o.label: o for o in work(time.sleep, [("long", (60.0,)), ("short", (0.0,))], jobs=1, timeout=3.0)}
    assert "time limit of 3 s" in found["long"].reason
    assert found["short"].reason is None
    assert time.monotonic() - began < 30


def test_arguments_are_made_when_the_task_begins():
    made = []

    def arguments(n):
        return lambda: made.append(n) or (n,)

    pool = work(math.sqrt, [(n, arguments(n)) for n in range(50)], jobs=1)
    next(pool)
    assert len(made) < 5  # a data set larger than memory is never read ahead
    pool.close()


def test_an_unknown_executor_gets_the_right_name():
    with pytest.raises(UnknownName, match="Did you mean 'local'"):
        execute(math.sqrt, [], executor="locl")

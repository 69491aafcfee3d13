"""Workers that the command line runs: what it says when it cannot, and how one ends."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import Any

import pytest

from tests.cli.conftest import Program
from tests.waiting import DEADLINE_S

TASKS = """
import anyio, coordinator

worker = coordinator.Worker()
other = coordinator.Worker()

@worker.job("summarize")
async def summarize(context: coordinator.JobContext, page: int) -> int:
    return page * 2

@worker.job("stubborn")
async def stubborn(context, payload):
    while True:
        try:
            await anyio.sleep(0.05)
        except BaseException:
            pass
"""

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("place", "message", "hint"),
    [
        ("nowhere:worker", "module nowhere was not found", "PYTHONPATH"),
        ("tasks.py:worker", "not the name of a module", "tasks:worker"),
        ("tasks:workr", 'does not contain a worker called "workr"', "tasks:worker"),
        ("tasks:summarize", "does not contain", "tasks:other, tasks:worker"),
        ("tasks", "contains several workers", "tasks:other, tasks:worker"),
        ("tasks:other", "no function", "@worker.job"),
        ("broken", "ZeroDivisionError: division by zero", "broken.py, line 2"),
        (
            "plain",
            'ConfigurationError: <lambda>, which runs jobs of type "x", is not an async function',
            "plain.py, line 2",
        ),
        ("empty:worker", "does not contain", "coordinator.Worker()"),
    ],
)
def test_what_cannot_be_run_is_named_with_what_to_do(program: Program, place: str, message: str, hint: str) -> None:
    (program.folder / "tasks.py").write_text(TASKS, "utf-8")
    (program.folder / "broken.py").write_text("\n1 / 0\n", "utf-8")
    (program.folder / "empty.py").write_text("", "utf-8")
    plain = "import coordinator\ncoordinator.Worker().job('x')(lambda context, payload: 1)\n"
    (program.folder / "plain.py").write_text(plain, "utf-8")
    error = program.fails(78, "worker", "run", place)
    assert message in error["message"]
    assert hint in error["hint"]


def _started(program: Program, *arguments: str) -> subprocess.Popen[Any]:
    (program.folder / "tasks.py").write_text(TASKS, "utf-8")
    return program.start("worker", "run", "tasks:worker", "--agent", "w", "--concurrency", "3", *arguments)


def _until(process: subprocess.Popen[Any], event: str) -> dict[str, Any]:
    """Read log lines until one says this, and return it."""
    assert process.stderr
    for line in process.stderr:
        said: dict[str, Any] = json.loads(line)
        if said["event"] == event:
            return said
    raise AssertionError(f"it ended without {event}")


def test_a_worker_says_what_it_does_and_ends_in_order(program: Program) -> None:
    parent = f"00-{TRACE}-00f067aa0ba902b7-01"
    # Before it starts: no daemon would wake it.
    done = program.run("job", "enqueue", "summarize", "21", TRACEPARENT=parent)
    good = json.loads(done.stdout)["id"]
    bad = program.json("job", "enqueue", "summarize", '"x"')["id"]
    with _started(program) as process:
        started = _until(process, "worker.started")
        assert (started["agent"], started["types"], started["concurrency"]) == ("w", ["stubborn", "summarize"], 3)
        traces = {line["job"]: line.get("trace_id") for line in (_until(process, "job.started") for _ in range(2))}
        assert traces == {good: TRACE, bad: None}
        failed = _until(process, "job.failed")
        assert (failed["job"], failed["project"], failed["agent"]) == (bad, "default", "w")
        assert "Expected `int`" in failed["error"]
        completed = _until(process, "job.completed")
        assert (completed["job"], completed["trace_id"]) == (good, TRACE)
        process.send_signal(signal.SIGTERM)
        _until(process, "worker.stopped")
        assert process.wait(DEADLINE_S) == 0
    assert program.json("job", "show", good)["result"] == 42
    assert program.json("worker", "list") == []


def test_a_job_that_ignores_its_cancellation_does_not_prevent_the_worker_from_ending(program: Program) -> None:
    job = program.json("job", "enqueue", "stubborn")["id"]
    with _started(program) as process:
        _until(process, "job.started")
        process.send_signal(signal.SIGTERM)
        _until(process, "worker.stopping")
        process.send_signal(signal.SIGTERM)
        assert _until(process, "job.stuck")["job"] == job
        assert process.wait(DEADLINE_S) == 1
    assert program.json("job", "show", job)["status"] == "queued"

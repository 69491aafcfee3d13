"""A program for each event. The test is the relay: it numbers what was emitted."""

from __future__ import annotations

import json
import signal
import subprocess

import anyio
import pytest

from coordinator.db.database import Database
from coordinator.operations import events
from coordinator.operations.work import RelayStep
from tests.cli.conftest import Program
from tests.cli.test_tail import emit
from tests.waiting import DEADLINE_S, until


def handled(program: Program) -> list[str]:
    path = program.folder / "handled"
    return path.read_text("utf-8").split() if path.exists() else []


def line(*more: str, fails_at: str = "none") -> list[str]:
    """Watch with a handler that notes the key of each event, and fails at one while there is no file "repaired"."""
    handler = (
        f'test "$COORDINATOR_EVENT_KEY" != {fails_at} -o -e repaired || exit 3; echo $COORDINATOR_EVENT_KEY >>handled'
    )
    return ["event", "watch", "--exec", handler, "--topic", "signal.*", *more]


async def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    with anyio.fail_after(DEADLINE_S):
        _, err = await anyio.to_thread.run_sync(process.communicate, abandon_on_cancel=True)
    return process.returncode, err


@pytest.mark.slow
async def test_nothing_is_lost_over_restarts_and_failures_with_a_cursor_file(program: Program, db: Database) -> None:
    await emit(db, "before")
    kept = ("--cursor-file", "position")
    assert program.run(*line(*kept, "--timeout", "10ms")).returncode == 8  # its "now" is the start of all
    await emit(db, "a", "b", "c")  # while nobody watches
    failed = program.run(*line(*kept, "--limit", "3", fails_at="b"))
    assert failed.returncode == 3
    assert "exit code 3" in json.loads(failed.stderr)["error"]["message"]
    assert handled(program) == ["a"]
    (program.folder / "repaired").touch()
    assert program.run(*line(*kept, "--limit", "2", fails_at="b")).returncode == 0
    assert handled(program) == ["a", "b", "c"]
    await db.run(events.Emit(project="default", type="custom.x"))
    await db.run(RelayStep())
    head = await db.run(events.Head())

    async def moved() -> bool:  # without a match, once a watch has had the time to connect
        assert (await anyio.to_thread.run_sync(program.run, *line(*kept, "--timeout", "1s"))).returncode == 8
        return (program.folder / "position").read_text("utf-8").strip() == head

    await until(moved, "the position is the head of the log")


async def test_a_handler_gets_the_event_and_the_watch_ends_after_it(program: Program, db: Database) -> None:
    handler = "cat >event; touch begun; trap 'touch told' TERM; while ! test -e told; do sleep 0.05; done; echo $COORDINATOR_EVENT_KEY >>handled"
    await emit(db, "a", "b")
    arguments = ("--after", (await db.run(events.Since(limit=1)))[0].cursor, "--cursor-file", "position")
    process = program.start("event", "watch", "--exec", handler, *arguments)
    await until((program.folder / "begun").exists, "the handler runs")
    assert "another watch" in program.fails(4, *line("--cursor-file", "position"))["message"]
    process.send_signal(signal.SIGTERM)
    assert await ended(process) == (0, "")
    assert handled(program) == ["b"]
    event = json.loads((program.folder / "event").read_text("utf-8"))
    assert (event["key"], event["type"]) == ("b", "signal.set")
    assert (program.folder / "position").read_text("utf-8") == event["cursor"] + "\n"


@pytest.mark.parametrize(("content", "code"), [("", 78), (b"\xff", 78), ("nonsense", 5)])
def test_an_unusable_cursor_file_is_an_error_and_not_a_new_start(
    program: Program, content: str | bytes, code: int
) -> None:
    (program.folder / "position").write_bytes(content if isinstance(content, bytes) else content.encode())
    program.fails(code, *line("--cursor-file", "position"))
    program.fails(78, *line("--cursor-file", "nowhere/position"))


@pytest.mark.parametrize("verb", [["tail"], ["tail", "--follow"], ["watch", "--exec", "true"]])
def test_a_topic_that_no_event_can_have_is_refused(program: Program, verb: list[str]) -> None:
    assert program.fails(5, "event", *verb, "--topic", "signl.*")["hint"] == "Did you mean signal.*?"
    assert program.fails(5, "event", *verb, "--topic", "directive.send")["hint"] == "Did you mean directive.sent?"
    assert "signal.set" in program.fails(5, "event", *verb, "--topic", "xyz.*")["hint"]

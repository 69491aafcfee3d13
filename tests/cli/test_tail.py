"""Printing and following events. The test is the relay: it numbers what was emitted."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import anyio
import pytest

from coordinator.db.database import Database
from coordinator.operations import events, signals
from coordinator.operations.work import RelayStep
from tests.cli.conftest import Program
from tests.conftest import admin
from tests.daemon import Daemon
from tests.ports import reserve_port
from tests.waiting import DEADLINE_S


async def emit(db: Database, *keys: str) -> None:
    for key in keys:
        await db.run(signals.Set(project="default", key=key, value=1))
    await db.run(RelayStep())


def keys(lines: str) -> list[str]:
    return [json.loads(line)["key"] for line in lines.splitlines()]


@contextmanager
def tailing(program: Program, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = program.start("event", "tail", "--follow", *arguments)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def next_key(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    with anyio.fail_after(DEADLINE_S):
        line = await anyio.to_thread.run_sync(process.stdout.readline, abandon_on_cancel=True)
    return str(json.loads(line)["key"])


async def test_without_follow_it_prints_what_is_retained_and_ends(program: Program, db: Database) -> None:
    await emit(db, *(f"k/{n}" for n in range(5)))
    await db.run(events.Emit(project="default", type="custom.hi", key="x"))
    await db.run(RelayStep())
    done = program.run("event", "tail")
    assert keys(done.stdout) == [*(f"k/{n}" for n in range(5)), "x"]
    third = json.loads(done.stdout.splitlines()[2])
    assert set(third) == {
        "cursor",
        "seq",
        "type",
        "project",
        "key",
        "actor",
        "at",
        "data",
        "transaction",
        "more",
        "traceparent",
    }
    assert keys(program.run("event", "tail", "--after", third["cursor"]).stdout) == ["k/3", "k/4", "x"]
    assert keys(program.run("event", "tail", "--topic", "custom.*").stdout) == ["x"]
    assert keys(program.run("event", "tail", "--limit", "2").stdout) == ["k/0", "k/1"]
    assert program.run("event", "tail", "--after", "now").stdout == ""
    assert program.run("event", "tail", "--project", "other").stdout == ""
    assert len(program.run("event", "tail", "--all-projects").stdout.splitlines()) == 6
    assert program.json("event", "head")["cursor"] == json.loads(done.stdout.splitlines()[-1])["cursor"]
    (line,) = program.run("event", "tail", "--topic", "custom.*", "-o", "text").stdout.splitlines()
    assert line.split()[0] == json.loads(done.stdout.splitlines()[-1])["cursor"]
    assert line.split()[2:4] == ["custom.hi", "x"]


async def test_it_follows_by_topic_and_ends_with_0_at_shutdown(program: Program, db: Database) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with tailing(
            program, "--topic", "signal.*", "--topic", "custom.*", "--after", (await db.run(events.Head()))
        ) as process:
            await emit(db, "first")
            assert await next_key(process) == "first"
            await emit(db, "second", "third")
            assert [await next_key(process), await next_key(process)] == ["second", "third"]
            process.send_signal(number)
            assert process.wait(DEADLINE_S) == 0
            assert process.stderr
            assert process.stderr.read() == ""


async def test_it_chooses_by_key_and_by_who_made_the_change(program: Program, db: Database) -> None:
    for actor in ("coder", "tester"):
        for key in ("task/1", "task/2", "note"):
            await db.run(events.Emit(project="default", type="custom.x", key=key, actor=actor))
    await db.run(RelayStep())
    chosen = program.run("event", "tail", "--key", "task/*", "--key", "no*", "--by", "tester")
    assert keys(chosen.stdout) == ["task/1", "task/2", "note"]
    assert program.fails(5, "event", "tail", "--key", "")["hint"]


async def test_it_ends_even_if_nothing_reads_its_output(program: Program, db: Database) -> None:
    with tailing(program) as process:
        await db.run(signals.Set(project="default", key="large", value="x" * 200_000))
        await emit(db, "more")
        assert process.stdout
        with anyio.fail_after(DEADLINE_S):  # the first bytes are there, and the pipe is full
            await anyio.to_thread.run_sync(process.stdout.read, 1, abandon_on_cancel=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0


async def test_it_ends_after_the_limit_of_events(program: Program, db: Database) -> None:
    await emit(db, "a", "b", "c")
    done = program.run("event", "tail", "--follow", "--limit", "2")
    assert (done.returncode, keys(done.stdout)) == (0, ["a", "b"])


async def test_it_resumes_after_the_last_event_when_its_connection_is_lost(
    program: Program, db: Database, database_url: str
) -> None:
    with tailing(program) as process:
        await emit(db, "before")
        assert await next_key(process) == "before"
        await admin(
            database_url,
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
            " and query ~ 'events_since' and pid <> pg_backend_pid()",
        )
        await emit(db, "after")
        assert await next_key(process) == "after"


@pytest.mark.slow
async def test_an_outage_of_the_daemon_is_one_line_and_its_end_another(
    tmp_path: Path, db: Database, database_url: str
) -> None:
    port = reserve_port()
    program = Program(tmp_path, {"COORDINATOR_DATABASE_URL": f"http://127.0.0.1:{port}"})
    with ExitStack() as stack:
        daemon = stack.enter_context(Daemon(database_url, port=port))
        await daemon.ready()
        process = stack.enter_context(tailing(program))
        assert process.stderr
        await emit(db, "before")
        assert await next_key(process) == "before"
        daemon.kill()
        with anyio.fail_after(DEADLINE_S):  # it does not wait for the next poll of the log
            lost = await anyio.to_thread.run_sync(process.stderr.readline, abandon_on_cancel=True)
        assert "trying again" in lost
        await stack.enter_context(Daemon(database_url, port=port)).ready()  # which takes several attempts
        await emit(db, "after")
        assert await next_key(process) == "after"
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
        (again,) = process.stderr.read().splitlines()
        assert "connected again" in again


async def test_a_reset_is_reported_on_standard_error_and_in_the_stream(program: Program, db: Database) -> None:
    await emit(db, "a")
    done = program.run("event", "tail", "--after", "elsewhere.7")
    assert json.loads(done.stdout)["type"] == "reset"
    assert done.stderr.startswith("reset: ")


async def test_a_cursor_that_the_server_has_not_reached_is_an_error_and_no_reset(
    program: Program, db: Database
) -> None:
    epoch, _, seq = (await db.run(events.Head())).partition(".")
    done = program.run("event", "tail", "--after", f"{epoch}.{int(seq) + 1000}")
    assert (done.returncode, done.stdout) == (7, "")
    assert "has not reached" in done.stderr
    assert "try again" in done.stderr


async def test_a_reader_that_closes_its_pipe_ends_the_tail(program: Program, db: Database) -> None:
    with tailing(program) as process:
        await emit(db, "a")
        await next_key(process)
        assert process.stdout
        process.stdout.close()
        with anyio.fail_after(DEADLINE_S):
            while process.poll() is None:
                await emit(db, "more")
                await anyio.sleep(0.05)
        assert process.stderr
        assert (process.returncode, process.stderr.read()) == (0, "")
        process.stdout = None


@pytest.mark.parametrize("follow", [[], ["--follow"]])
def test_it_does_not_wait_for_a_first_connection(lone: Program, follow: list[str]) -> None:
    lone.fails(7, "event", "tail", *follow)

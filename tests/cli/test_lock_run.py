"""Commands under locks; with a real daemon where a death has to be noticed."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest

from coordinator.db.database import Database
from coordinator.model.lock import Lock
from coordinator.operations import locks
from tests.cli.conftest import Program
from tests.conftest import admin
from tests.daemon import Daemon
from tests.daemon import note as measured
from tests.faults.test_agents_lost import let_go
from tests.waiting import DEADLINE_S, LASTING_S, until

PYTHON = sys.executable


async def held(db: Database) -> list[Lock]:
    return await db.run(locks.List(project="default"))


async def waiters(db: Database) -> int:
    return len(await db.run(locks.ListWaiting(project="default", resource="a")))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def running(program: Program, *line: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    process = program.start("lock", "run", *line, **options)
    try:
        yield process
    finally:
        process.kill()
        with suppress(subprocess.TimeoutExpired, ValueError):  # whatever of the command should have survived a failure
            process.communicate(timeout=5)


async def pids(path: Path, count: int) -> list[int]:
    """Wait for what the command wrote about its processes."""

    async def look() -> list[int]:
        found = path.read_text("ascii").split() if path.exists() else []
        return [int(pid) for pid in found] if len(found) >= count else []

    return await until(look, "the command runs")


async def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    with anyio.fail_after(DEADLINE_S):
        _, err = await anyio.to_thread.run_sync(process.communicate, abandon_on_cancel=True)
    return process.returncode, err


def test_the_command_gets_the_tokens_and_its_exit_code_is_returned(program: Program) -> None:
    script = (
        "import os, json; print(json.dumps([os.environ['COORDINATOR_FENCING_TOKEN'], "
        "json.loads(os.environ['COORDINATOR_FENCING_TOKENS']), os.environ['COORDINATOR_AGENT_ID']])); raise SystemExit(7)"
    )
    done = program.run("lock", "run", "src/", "./a.py", "--as", "me", "--", PYTHON, "-c", script)
    assert (done.returncode, done.stderr) == (7, "")
    token, tokens, _ = json.loads(done.stdout)
    assert tokens == {"src/": int(token), "a.py": int(token)}
    assert program.json("lock", "list") == []
    assert program.json("agent", "list") == []


@pytest.mark.slow
def test_commands_within_a_lock_act_as_its_agent(program: Program) -> None:
    """Each of them takes COORDINATOR_AGENT_ID for an absent --agent."""
    script = """
set -e
coordinator lock check src/a.py
coordinator lock acquire b
coordinator lock renew b --token "$(coordinator lock show b | sed 's/.*"fencing_token":\\([0-9]*\\).*/\\1/')"
coordinator signal set k 1 --ephemeral
coordinator agent heartbeat
coordinator directive inbox
coordinator directive acknowledge "$(coordinator directive send x --to-agent $COORDINATOR_AGENT_ID --output text)"
"""
    program.install()
    done = program.run("lock", "run", "src/", "--", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[0])[0]["state"] == "mine"
    assert program.json("signal", "list") == []  # it ended with the agent
    assert program.json("lock", "list") == []
    error = program.fails(3, "lock", "acquire", "b", COORDINATOR_AGENT_ID="nonsense")
    assert "nonsense" in error["message"]


@pytest.mark.slow
def test_arguments_after_the_dashes_belong_to_the_command(program: Program) -> None:
    done = program.run("lock", "run", "a", "--", "echo", "--ttl", "--", "-x")
    assert (done.returncode, done.stdout) == (0, "--ttl -- -x\n")
    assert program.run("lock", "run", "a", "--", "cat", stdin=b"in").stdout == "in"
    assert program.run("lock", "run", "a", "--", "sh", "-c", "kill -KILL $$").returncode == 137
    done = program.run("lock", "run", "a", "--", "no-such-command")
    assert done.returncode == 127
    error = json.loads(done.stderr)["error"]
    assert error["message"] == "command not found: no-such-command"
    assert error["hint"]


def test_a_run_within_a_run_is_a_part_of_its_owner(program: Program) -> None:
    program.install()
    script = "echo $COORDINATOR_AGENT_ID $COORDINATOR_LOCK_OWNER"
    both = f"{script}; coordinator lock run src/a.py src/ -- sh -c '{script}'"
    done = program.run("lock", "run", "src/", "--", "sh", "-c", both)
    assert done.returncode == 0, done.stderr
    (agent, owner), (same, part) = (line.split() for line in done.stdout.splitlines())
    assert same == agent
    assert part.startswith(f"{owner}/")


def test_a_run_is_a_part_of_an_owner_of_the_agent_of_a_name(program: Program) -> None:
    agent = program.text("agent", "register", "coder-1", "--ttl", "1h").strip()
    program.json("lock", "acquire", "src/", "--agent", "coder-1", "--owner", "session")
    words = ("lock", "run", "src/a.py", "--", "sh", "-c", "echo $COORDINATOR_AGENT_ID")
    done = program.run(*words, COORDINATOR_AGENT_ID="coder-1", COORDINATOR_LOCK_OWNER="session")
    assert (done.returncode, done.stdout.strip()) == (0, agent)
    unknown = program.run(*words, COORDINATOR_AGENT_ID="coder-l", COORDINATOR_LOCK_OWNER="session")
    assert unknown.returncode == 3
    assert 'Did you mean "coder-1"?' in unknown.stderr.replace('\\"', '"')


async def test_a_lock_of_another_is_a_conflict_or_is_waited_for(program: Program, db: Database, tmp_path: Path) -> None:
    note = tmp_path / "pids"
    with running(program, "a", "--as", "first", "--", "sh", "-c", f"echo $$ > {note}; exec sleep 600") as first:
        (pid,) = await pids(note, 1)
        error = program.fails(4, "lock", "run", "a", "--", "true")
        assert error["detail"]["agent"] == "first"
        # On a slow machine, these waits would be reported, too.
        program.constants = {"coordinator.cli.lock_run.SILENT_S": LASTING_S}
        error = program.fails(8, "lock", "run", "a", "--wait", "10ms", "--", "true")
        assert 'locked by agent "first"' in error["message"]
        with running(program, "a", "--wait", "1h", "--", "true") as second:
            await until(lambda: waiters(db), "it waits")
            second.send_signal(signal.SIGINT)
            assert await ended(second) == (130, "")
            assert await waiters(db) == 0
        program.constants = {}
        with running(program, "a", "--wait", "1h", "--", "true") as third:
            assert third.stderr is not None
            said = json.loads(await anyio.to_thread.run_sync(third.stderr.readline, abandon_on_cancel=True))["notice"]
            assert 'agent "first"' in said["message"]
            assert [holder["agent"] for holder in said["holders"]] == ["first"]
            assert said["place"] == 1
            third.send_signal(signal.SIGINT)
            assert (await ended(third))[0] == 130
        first.send_signal(signal.SIGTERM)
        assert await ended(first) == (143, "")
        assert not alive(pid)
        assert await held(db) == []


@pytest.mark.slow
async def test_a_signal_reaches_the_command_and_its_group(program: Program, tmp_path: Path) -> None:
    note = tmp_path / "pids"
    script = f"trap 'echo told; exit 5' USR1 TERM; echo $$ > {note}; while :; do sleep 0.05; done"
    for number in (signal.SIGUSR1, signal.SIGTERM):
        with running(program, "a", "--", "sh", "-c", script) as process:
            await pids(note, 1)
            process.send_signal(number)
            out, _ = await anyio.to_thread.run_sync(process.communicate)
            assert (process.returncode, out) == (5, "told\n")
        note.unlink()


@pytest.mark.slow
async def test_a_lost_lock_ends_the_command_with_all_it_started(
    program: Program, db: Database, database_url: str, tmp_path: Path
) -> None:
    note = tmp_path / "pids"
    # Deaf to SIGTERM, and so is its child.
    script = f"trap '' TERM; sleep 600 & echo $$ $! > {note}; while :; do sleep 0.05; done"
    with Daemon(database_url) as daemon:
        await daemon.ready()
        with running(program, "a", "--ttl", "10m", "--grace", "0.5s", "--", "sh", "-c", script) as process:
            both = await pids(note, 2)
            program.json("lock", "break", "a", "--reason", "it hangs", "--actor", "boss")
            assert process.stderr is not None
            with anyio.fail_after(DEADLINE_S):  # its next renewal would be in minutes
                told = await anyio.to_thread.run_sync(process.stderr.readline, abandon_on_cancel=True)
            code, err = await ended(process)
            message = json.loads(told)["error"]["message"]
            assert '"boss" broke the lock' in message
            assert "it hangs" in message
        assert (code, err) == (4, "")  # it says so once
        assert not any(map(alive, both))
        assert await held(db) == []


@pytest.mark.slow
async def test_without_a_database_the_command_ends_before_the_lock_does(
    program: Program, server_url: str, database_url: str, tmp_path: Path
) -> None:
    note = tmp_path / "pids"
    name = urlsplit(database_url).path.removeprefix("/")
    script = f"echo $$ > {note}; exec sleep 600"
    with running(program, "a", "--ttl", "6s", "--", "sh", "-c", script) as process:
        (pid,) = await pids(note, 1)
        await admin(
            server_url,
            f"alter database {name} allow_connections false",
            f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'",
        )
        code, err = await ended(process)
    error = json.loads(err.splitlines()[-1])["error"]
    assert code == 4, err
    assert "could not be renewed within its TTL" in error["message"]
    assert "lock show" in error["hint"]
    assert "Traceback" not in err
    assert not alive(pid)


@pytest.mark.slow
async def test_kill_9_kills_the_command_and_releases_the_lock_within_two_heartbeats(
    program: Program, db: Database, database_url: str, tmp_path: Path
) -> None:
    note = tmp_path / "pids"
    with Daemon(database_url) as daemon:
        await (await daemon.ready()).lead()
        await admin(
            database_url,  # a daemon gives nobody up in the server's first 10 seconds
            "create or replace function coordinator.server_settled() returns boolean "
            "language sql stable parallel safe return true",
        )
        script = f"sleep 600 & echo $$ $! > {note}; wait"
        with running(program, "a", "--ttl", "10m", "--", "sh", "-c", script) as process:
            both = await pids(note, 2)
            assert all(map(alive, both))
            (lock,) = await held(db)
            process.kill()

            async def free() -> bool:
                return not await held(db)

            await until(lambda: not any(map(alive, both)), "the command is gone")
            await let_go(database_url, lock.agent_id)
            began = await daemon.heartbeats()
            took = await daemon.heartbeats_until(free, "the lock is free", since=began)
    measured("lock_run_killed_heartbeats", [took])
    assert took <= 2


async def test_processes_that_the_command_leaves_running_continue_if_no_lock_was_lost(
    program: Program, tmp_path: Path
) -> None:
    note = tmp_path / "pids"
    done = program.run("lock", "run", "a", "--", "sh", "-c", f"sleep 600 >&- 2>&- & echo $! > {note}")
    assert done.returncode == 0
    (left,) = await pids(note, 1)
    assert alive(left)
    os.kill(left, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs terminals")
async def test_on_a_terminal_the_command_is_in_the_foreground(program: Program) -> None:
    pid, terminal = pty.fork()
    if pid == 0:  # the child: a session of its own, on the new terminal
        os.chdir(program.folder)
        line = [*program.command("lock", "run", "a", "--", "sh", "-c", "read line; echo got $line")]
        os.execve(PYTHON, [str(word) for word in line], program.environment)  # noqa: S606
    try:
        os.write(terminal, b"hello\n")
        seen = b""
        with anyio.fail_after(DEADLINE_S):
            while b"got hello" not in seen:
                await anyio.wait_readable(terminal)
                seen += os.read(terminal, 4096)
            _, status = await anyio.to_thread.run_sync(os.waitpid, pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
    finally:
        os.close(terminal)

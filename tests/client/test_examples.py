from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from anyio.streams.text import TextReceiveStream

import coordinator
from coordinator.db.database import Database
from tests.client.conftest import relayed
from tests.daemon import Daemon
from tests.forked import Forked, forking
from tests.ports import reserve_port
from tests.waiting import DEADLINE_S

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"


async def until_printed(watcher: anyio.abc.Process, wanted: str) -> str:
    """Read whole lines, however the program writes them, until one has the text."""
    assert watcher.stdout
    text = ""
    async for chunk in TextReceiveStream(watcher.stdout):
        text += chunk
        if wanted in text and text.endswith("\n"):
            break
    return text


async def test_worker_manager_and_watcher_do_what_they_say(db: Database, database_url: str) -> None:
    watching = [sys.executable, str(EXAMPLES / "watcher.py"), database_url]
    async with relayed(db), await anyio.open_process(watching) as watcher:
        with anyio.fail_after(DEADLINE_S):
            for _ in range(2):  # the second run finds what the first one left
                async with await anyio.open_process([*forking("examples.worker"), database_url]) as worker:
                    manager = await anyio.run_process([*forking("examples.manager"), database_url])
                    assert await worker.wait() == 0
                lines = manager.stdout.decode().splitlines()
                assert sorted(lines) == [f"task/{n} {{'length': 14}} by worker-1" for n in range(3)]
            seen = await until_printed(watcher, "agent.deregistered")
        watcher.kill()
    assert "signal.set task/2/COMPLETED worker-1" in seen
    assert "signal.set task/0/CLAIMED worker-1" in seen


async def test_the_tasks_run_jobs(db: Database, database_url: str) -> None:
    async with (
        relayed(db),
        coordinator.connect(database_url) as client,
    ):
        worker = Forked("examples.tasks", database_url, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        jobs = [
            await client.jobs.enqueue("summarize", {"text": "Of mice and men"}),
            await client.jobs.enqueue("summarize", {"text": ""}),
            await client.jobs.enqueue("shell", ["sh", "-c", "echo $COORDINATOR_JOB_ID"]),
        ]
        done = [await client.jobs.wait(job.id, timeout=DEADLINE_S) for job in jobs]
        worker.terminate()
        assert worker.wait(DEADLINE_S) == 0
    assert done[0].result == {"words": 4, "by": done[0].worker}
    assert (done[1].status, done[1].error) == ("failed", "the text is empty")
    assert done[2].result == f"{jobs[2].id}\n"


async def test_an_example_says_what_is_wrong_with_its_address() -> None:
    result = await anyio.run_process([sys.executable, str(EXAMPLES / "watcher.py"), "mysql://x"], check=False)
    assert result.returncode != 0
    assert b"ConfigurationError" in result.stderr


async def test_the_listener_notices_a_lost_notification(db: Database, database_url: str) -> None:
    command = [sys.executable, str(EXAMPLES / "listener.py"), database_url]
    async with coordinator.connect(database_url) as client, relayed(db), await anyio.open_process(command) as listener:
        with anyio.fail_after(DEADLINE_S):
            while True:  # until it listens
                await client.signals.set("begin")
                with anyio.move_on_after(0.1):
                    await until_printed(listener, "begin")
                    break
            await client.signals.set("told")
            await client.events.configure("head")
            await client.signals.set("lost")
            while not await client.events.since(keys=["lost"]):  # numbered, and not notified
                await anyio.sleep(0.005)
            await client.events.configure("full")
            await client.signals.set("last")
            seen = await until_printed(listener, "last")
        listener.kill()
    keys = [line.split()[2] for line in seen.splitlines()]
    assert keys[-3:] == ["told", "lost", "last"]


async def test_the_watcher_in_shell_continues_where_it_was_when_the_daemon_returns(database_url: str) -> None:
    port = reserve_port()
    url = f"http://127.0.0.1:{port}"

    async def set_signal(key: str) -> None:
        async with coordinator.connect(database_url) as client:
            await client.signals.set(key)

    with Daemon(database_url, port=port) as daemon:
        await daemon.ready()
        watcher = await anyio.open_process([str(EXAMPLES / "watch.sh"), url, "4"], stderr=subprocess.DEVNULL)
        with anyio.fail_after(DEADLINE_S):
            await set_signal("one")
            seen = await until_printed(watcher, "\n")
            while seen.count("\n") < 2:
                seen += await until_printed(watcher, "\n")
    await set_signal("two")
    with Daemon(database_url, port=port) as daemon, anyio.fail_after(DEADLINE_S):
        await daemon.ready()
        await set_signal("three")
        assert watcher.stdout
        async for chunk in TextReceiveStream(watcher.stdout):
            seen += chunk
        assert await watcher.wait() == 0
    await watcher.aclose()
    cursors = [int(line.split()[0].partition(".")[2]) for line in seen.splitlines()]
    assert len(cursors) == 4
    assert cursors == sorted(set(cursors))

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import msgspec
import pytest

import coordinator
from coordinator.db.database import Database
from coordinator.demo.main import Play
from coordinator.demo.place import Place
from tests.client.conftest import relayed
from tests.waiting import DEADLINE_S

TREE = Path(__file__).parents[2] / "coordinator"


def start(folder: Path, **environment: str) -> subprocess.Popen[bytes]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COORDINATOR_")}
    inherited.pop("DATABASE_URL", None)
    return subprocess.Popen(
        [sys.executable, "-m", "coordinator", "demo", str(TREE)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=inherited | {"TMPDIR": str(folder), "COORDINATOR_DATA_DIR": str(folder / "none")} | environment,
        start_new_session=True,
    )


def left_over(folder: Path) -> list[str]:
    """Command lines of processes that this folder tells as the demonstration's."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = process.joinpath("cmdline").read_bytes()
            if bytes(folder) in words + process.joinpath("environ").read_bytes():
                found.append(words.replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


async def all_gone(folder: Path) -> None:
    with anyio.fail_after(DEADLINE_S):
        while left_over(folder):
            await anyio.sleep(0.05)


def check(report: dict[str, Any]) -> None:
    assert report["faults"] == []
    assert report["accepted"] == report["shares"]
    assert len(report["agents"]) == 6
    assert report["rejection"]["cleared"] == ["COMPLETED", "QA_PASSED"]
    assert report["killed"]["reason"] == "process died"
    assert report["killed"]["completed_by"] != report["killed"]["agent"]
    events = report["events"]
    assert (events["lost"], events["duplicates"], events["out_of_order"], events["gaps"]) == (0, 0, 0, 0)
    assert events["delivered"] > 100


async def test_the_demonstration_keeps_its_promises_on_a_machine_without_a_database(tmp_path: Path) -> None:
    demo = start(tmp_path)
    out, complaint = await anyio.to_thread.run_sync(demo.communicate, None, DEADLINE_S)
    assert demo.returncode == 0, (out, complaint)
    check(msgspec.json.decode(out))
    assert left_over(tmp_path) == []
    assert list(tmp_path.glob("coordinator-demo-*")) == []


@pytest.mark.long
async def test_the_demonstration_keeps_its_promises_on_a_configured_database(tmp_path: Path, database_url: str) -> None:
    demo = start(tmp_path, COORDINATOR_DATABASE_URL=database_url)
    out, complaint = await anyio.to_thread.run_sync(demo.communicate, None, DEADLINE_S)
    assert demo.returncode == 0, (out, complaint)
    check(msgspec.json.decode(out))
    assert left_over(tmp_path) == []
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("select array_agg(name) from coordinator.projects") == ["default"]
    await connection.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_a_demonstration_that_is_ended_leaves_no_process_behind(tmp_path: Path, number: signal.Signals) -> None:
    demo = start(tmp_path)
    deadline = time.monotonic() + 30
    try:
        while not any("coordinator.demo.agent" in line for line in left_over(tmp_path)):
            assert time.monotonic() < deadline
            assert demo.poll() is None
            await anyio.sleep(0.05)
    finally:
        demo.send_signal(number)
        await anyio.to_thread.run_sync(demo.communicate, None, DEADLINE_S)
    await all_gone(tmp_path)


async def test_a_demonstration_that_takes_too_long_says_so_and_ends_its_processes(
    tmp_path: Path, db: Database, database_url: str
) -> None:
    place = Place(database_url, None, None, "a test")
    async with coordinator.connect(database_url, project="demo") as client:
        await client.projects.create("demo")
        play = Play(client, place, TREE, tmp_path, await client.events.head())
        # Nothing relays here, so nothing can come of it.
        await play.run(time.monotonic() + 3)
        assert play.faults == ["not finished within 60 seconds"]
        assert len(list(tmp_path.glob("agent-*.log"))) == 6
        assert await play.read_log() == []
    assert left_over(tmp_path) == []


async def test_a_process_that_ends_before_its_time_is_told(tmp_path: Path, db: Database, database_url: str) -> None:
    async with coordinator.connect(database_url, project="demo") as client, relayed(db):
        await client.projects.create("demo")
        nowhere = Place("postgresql:///x?host=/nowhere", None, None, "a test")
        play = Play(client, nowhere, TREE, tmp_path, await client.events.head())
        await play.run(time.monotonic() + DEADLINE_S)
        assert len(play.faults) == 1
        assert "ended with exit code 1: DatabaseUnavailable" in play.faults[0]

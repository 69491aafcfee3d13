from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import asyncpg
import msgspec
import pytest

import coordinator
from coordinator.db.database import Database
from coordinator.model.event import Event
from examples.fleet import work
from tests.client.conftest import relayed
from tests.daemon import Daemon
from tests.examples.verdict import faults
from tests.waiting import until

ROOT = Path(__file__).parents[2]
TREE = ROOT / "coordinator"
LIMIT_S = 150
fleet = importlib.import_module("examples.fleet.__main__")


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "examples.fleet", str(TREE), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(folder), "COORDINATOR_DATABASE_URL": "postgresql:///?host=/nowhere"},
        start_new_session=True,
    )


def left_over(folder: Path) -> list[str]:
    """Command lines of the processes whose arguments or environment name the folder."""
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
    async def gone() -> bool:
        return not left_over(folder)

    await until(gone, "every process is gone")


async def check(folder: Path, *arguments: str) -> None:
    """Run the fleet to its end, and judge what it told and recorded."""
    record = folder / "events.json"
    run = start(folder, "--events", str(record), *arguments)
    out, complaint = await anyio.to_thread.run_sync(run.communicate, None, LIMIT_S)
    told = out.decode()
    assert run.returncode == 0, (told, complaint)
    assert "Nothing lost." in told
    assert ", 0 missing" in told
    assert "reaped: process died" in told
    events = msgspec.json.decode(record.read_bytes(), type=list[Event])
    plans = {event.key: event.data["value"] for event in events if (event.key or "").endswith("/FILES")}
    counted = {int(str(key).split("/")[1]): work.count(TREE, files) for key, files in plans.items()}
    assert faults(events, counted) == []
    assert len(events) > 100
    await all_gone(folder)
    assert list(folder.glob("coordinator-fleet-*")) == []


def test_the_example_uses_the_public_client_only() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "examples" / "fleet").glob("*.py"))
    imports = [line for line in source.splitlines() if re.match(r"\s*(import|from) coordinator\b", line)]
    assert {line.split()[1] for line in imports} == {"coordinator", "coordinator.errors"}


async def test_the_fleet_keeps_its_promises_on_a_machine_without_a_database(short_path: Path) -> None:
    await check(short_path)


@pytest.mark.long
async def test_the_fleet_keeps_its_promises_on_a_given_database(tmp_path: Path, database_url: str) -> None:
    with Daemon(database_url) as daemon:
        await daemon.lead()
        await check(tmp_path, "--url", database_url)
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("select array_agg(name) from coordinator.projects") == ["default"]
    await connection.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_a_fleet_that_is_ended_leaves_no_process_behind(short_path: Path, number: signal.Signals) -> None:
    run = start(short_path)

    async def working() -> bool:
        assert run.poll() is None
        return any("examples.fleet.agent" in line for line in left_over(short_path))

    try:
        await until(working, "agents run", every_s=0.05)
    finally:
        run.send_signal(number)
        await anyio.to_thread.run_sync(run.communicate, None, LIMIT_S)
    await all_gone(short_path)


async def test_a_fleet_that_takes_too_long_says_so_and_ends_its_processes(
    tmp_path: Path,
    db: Database,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(fleet, "LIMIT_S", 1.0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert await fleet.main(TREE, database_url, None) == 1, "nothing relays here, so nothing can come of it"
    assert "Failed: not finished within 1 seconds" in capsys.readouterr().out
    assert left_over(tmp_path) == []


async def test_a_process_that_ends_before_its_time_is_told(tmp_path: Path, db: Database, database_url: str) -> None:
    async with coordinator.connect(database_url, project="fleet") as client, relayed(db):
        await client.projects.create("fleet")
        with fleet.processes(tmp_path) as start_one:
            play = fleet.Fleet(client, tmp_path, start_one)
            after = await client.events.head()
            failure = await play.run(("postgresql:///x?host=/nowhere", "fleet", str(TREE), after), after, 0.0)
    assert " failed:\n" in failure
    assert "DatabaseUnavailable" in failure
    assert left_over(tmp_path) == []


async def test_processes_that_have_all_failed_since_the_last_look_are_told(tmp_path: Path) -> None:
    play = fleet.Fleet(None, tmp_path, None)
    with subprocess.Popen(["false"]) as process:
        process.wait()
        play._processes["manager"] = process
        (tmp_path / "manager.log").write_text("why")
        assert await play._watch() == "manager failed:\nwhy"


@pytest.mark.parametrize("make", [lambda path: path, lambda path: path / "none"])
def test_a_tree_that_is_too_small_is_refused(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    (tmp_path / "one.py").write_text("x = 1\n")
    run = subprocess.run(
        [sys.executable, "-m", "examples.fleet", str(make(tmp_path))], capture_output=True, cwd=ROOT, check=False
    )
    assert run.returncode == 2
    assert b"fewer than 36 files; give a larger source tree" in run.stderr

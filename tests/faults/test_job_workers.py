"""Workers that are killed, paused and stopped, while daemons, connections and the database fail: every job ends once."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

from coordinator import embedded
from tests.daemon import note, opened
from tests.faults.job_fleet import LIGHT, Fleet, check_ends, enqueue, prepare
from tests.faults.plane import SETTINGS

LONG_S = float(os.environ.get("COORDINATOR_FAULTS_S", "60"))

CALLS = "tests.faults.job_worker"  # makes the calls of the client itself
WORKER = "tests.faults.worker_program"  # uses the class Worker


@pytest.mark.parametrize(
    ("program", "jobs", "faults", "least"),
    [
        pytest.param(CALLS, 300, 6, 0.9, id="short"),
        pytest.param(WORKER, 80, 3, 0.8, id="short-worker"),
        pytest.param(CALLS, 10_000, int(LONG_S), 0.9, marks=pytest.mark.long, id="long"),
        pytest.param(WORKER, 10_000, int(LONG_S), 0.8, marks=pytest.mark.long, id="long-worker"),
    ],
)
async def test_every_job_ends_once_whatever_happens_to_its_workers(  # noqa: PLR0917
    database_url: str, seed: int, program: str, jobs: int, faults: int, least: float
) -> None:
    await prepare(database_url)
    fleet = Fleet(database_url, seed=seed, ttl_s=2.0, program=program)
    with fleet.running():
        ids: set[object] = set()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fleet.befall, LIGHT, faults)
            ids = await enqueue(database_url, jobs)
        await fleet.finished()
    note(f"jobs {jobs}: befallen {dict(fleet.befallen)}", [])
    statuses = await check_ends(database_url, ids)
    assert statuses["completed"] > jobs * least, statuses


@pytest.mark.long
async def test_every_job_ends_once_while_an_old_snapshot_is_open(database_url: str, seed: int) -> None:
    """Claims begin where the last one ended, while jobs are cancelled, released and moved between lanes."""
    await prepare(database_url)
    fleet = Fleet(database_url, seed=seed, ttl_s=10.0, batch=50)
    async with opened(database_url) as holder, holder.transaction(isolation="repeatable_read", readonly=True):
        await holder.fetchval("select count(*) from coordinator.jobs_open")
        with fleet.running(workers=4, daemons=1):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fleet.befall, ("cancel", "kill", "reshape", "stop"), int(LONG_S))
                ids = await enqueue(database_url, 8_000)
            await fleet.finished()
    await check_ends(database_url, ids)


@pytest.mark.parametrize(
    "program", ["tests.faults.worker_program", pytest.param("tests.faults.job_worker", marks=pytest.mark.long)]
)
async def test_every_job_ends_once_when_the_database_restarts(data_dir: Path, seed: int, program: str) -> None:
    async with embedded.run(data_dir, settings=SETTINGS) as server:
        await prepare(server.dsn)
        fleet = Fleet(server.dsn, seed=seed, ttl_s=30.0, steady=True, program=program)
        with fleet.running(workers=2, daemons=1):
            ids = await enqueue(server.dsn, 200)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fleet.restart, server)
                ids |= await enqueue(server.dsn, 200, first=200)
            await fleet.finished()
        assert await check_ends(server.dsn, ids) == {"completed": 400}


@pytest.mark.parametrize("jobs", [400, pytest.param(10_000, marks=pytest.mark.long)])
async def test_a_burst_of_jobs_is_worked_off_and_nothing_is_left(database_url: str, seed: int, jobs: int) -> None:
    await prepare(database_url)
    fleet = Fleet(database_url, seed=seed, ttl_s=30.0, steady=True, batch=100)
    with fleet.running(workers=3, daemons=1):
        async with anyio.create_task_group() as tasks:
            found: list[set[object]] = []

            async def part(first: int) -> None:
                found.append(await enqueue(database_url, jobs // 4, first=first))

            for number in range(4):
                tasks.start_soon(part, number * (jobs // 4))
        await fleet.finished()
    assert await check_ends(database_url, set().union(*found)) == {"completed": jobs}

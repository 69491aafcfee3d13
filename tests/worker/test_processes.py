"""Workers with real processes: a sidecar, two daemons of which one is killed, and an idle worker that makes few calls."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Any
from uuid import UUID

import anyio
import asyncpg
import pytest

import coordinator
from coordinator import JobContext, Worker
from coordinator.db.database import Database
from tests.client.conftest import relayed
from tests.daemon import Daemon, opened
from tests.db.test_pool import limited_role
from tests.sidecar.conftest import sidecar
from tests.waiting import until
from tests.worker.conftest import working

CHILDREN = 3


def family() -> Worker:
    """Return a worker whose roots enqueue children once, and wait for their end without it."""
    worker = Worker(concurrency=20)

    @worker.job("root")
    async def root(context: JobContext, payload: int) -> int:
        async with context.step("children", type=list[UUID]) as step:
            if not step.done:
                orders: list[Any] = [
                    {"type": "child", "parent": context.id, "dedupe_key": f"{payload}/{n}", "on_duplicate": "skip"}
                    for n in range(CHILDREN)
                ]
                step.result = [job.id for job in await context.client.jobs.enqueue_many(orders)]
        statuses = await context.wait_for_jobs("ended", step.result)
        assert {*statuses.values()} == {"completed"}
        return payload

    @worker.job("child")
    async def child(context: JobContext, payload: Any) -> None:
        await anyio.sleep(0.01)

    @worker.job("beat")
    async def beat(context: JobContext, payload: Any) -> None:
        pass

    return worker


async def counts(connection: asyncpg.Connection) -> Counter[tuple[str, str]]:
    rows = await connection.fetch("select type, status, count(*) as jobs from coordinator.jobs group by 1, 2")
    return Counter({(row["type"], row["status"]): row["jobs"] for row in rows})


@pytest.mark.slow
async def test_waits_trees_and_crons_survive_the_death_of_a_daemon(database_url: str) -> None:
    """Nothing is lost, nothing is done twice, and nothing sleeps."""
    roots, beats = 8, 2
    with ExitStack() as stack:
        daemons = [stack.enter_context(Daemon(database_url)) for _ in range(2)]
        for daemon in daemons:
            await daemon.ready()
        leader = await until(lambda: _leader(daemons), "a daemon leads")
        async with (
            working(family(), database_url),
            coordinator.connect(database_url, agent="tester") as client,
            opened(database_url) as connection,
        ):
            await client.crons.set("beat", "0 0 1 1 *", {"type": "beat"})
            for beat in range(beats):
                orders: list[Any] = [{"type": "root", "payload": beat * roots + n} for n in range(roots // beats)]
                made = await client.jobs.enqueue_many(orders)
                await client.limits.set(f"tree {beat}", slots=1, tree=made[0].id)
                await connection.execute("update coordinator.crons set due_at = now(), next_at = now()")
                if beat == 0:
                    leader.kill()
                await until(lambda fired=beat + 1: _fired(connection, fired), "the cron fired")

            wanted = Counter(
                {("root", "completed"): roots, ("child", "completed"): roots * CHILDREN, ("beat", "completed"): beats}
            )
            found: Counter[tuple[str, str]] = Counter()

            async def done() -> bool:
                nonlocal found
                found = await counts(connection)
                return found == wanted

            await until(done, "all jobs are done", every_s=0.1)


async def _leader(daemons: list[Daemon]) -> Daemon | None:
    return next((daemon for daemon in daemons if daemon.leads), None)


async def _fired(connection: asyncpg.Connection, times: int) -> bool:
    return bool(await connection.fetchval("select count(*) from coordinator.jobs where type = 'beat'") == times)


@pytest.mark.slow
async def test_a_worker_works_through_a_sidecar(database_url: str, db: Database) -> None:
    worker = Worker()

    @worker.job("double")
    async def double(context: JobContext, payload: int) -> int:
        await context.progress(50)
        return payload * 2

    with sidecar(database_url, "--agent", "pod") as beside:
        await beside.started()
        async with (
            relayed(db),
            working(worker, beside.url),
            coordinator.connect(database_url, agent="tester") as client,
        ):
            job = await client.jobs.enqueue("double", 21)
            assert (await client.jobs.wait(job.id, timeout=60)).result == 42


@pytest.mark.slow
async def test_an_idle_worker_asks_less_than_once_a_second(server_url: str, database_url: str) -> None:
    """It has its own role, which distinguishes its sessions from those of the daemon."""
    worker = Worker(name="idle")

    @worker.job("one")
    async def one(context: JobContext, payload: Any) -> None:
        pass

    async with limited_role(server_url, database_url, 20) as (role, url), opened(database_url) as connection:
        await connection.execute(f"select coordinator.schema_grant('{role}')")
        try:
            with Daemon(database_url) as daemon:
                await daemon.ready()
                async with working(worker, url):
                    await connection.execute("select coordinator.job_enqueue('default', 'one')")
                    await until(lambda: _ended(connection), "the job has ended")
                    assert await connection.fetchval("select count(*) from pg_stat_activity where usename = $1", role)

                    async def idle() -> bool:
                        """It may still be busy with the end of its job."""
                        return len(await asked(connection, role)) < 4

                    await until(idle, "it asks less than once a second")
        finally:
            await connection.execute(f"drop owned by {role}")


async def asked(connection: asyncpg.Connection, role: str) -> set[tuple[int, object]]:
    """Return what the sessions of a role ask within 4 seconds of the server's clock."""
    found: set[tuple[int, object]] = set()
    began = await connection.fetchval("select clock_timestamp()")
    while await connection.fetchval("select clock_timestamp() < $1::timestamptz + interval '4 seconds'", began):
        rows = await connection.fetch(
            "select pid, query_start from pg_stat_activity where usename = $1 and query_start > $2", role, began
        )
        found.update((row["pid"], row["query_start"]) for row in rows)
        await anyio.sleep(0.02)
    return found


async def _ended(connection: asyncpg.Connection) -> bool:
    return bool(await connection.fetchval("select exists (select from coordinator.jobs_completed)"))

"""Answers to calls of a worker are lost on the way, whatever it asked for: every job ends once, and nothing is left."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from urllib.parse import urlsplit

import anyio
import pytest

import coordinator
from coordinator import JobContext, RetryJob, Worker
from tests.daemon import Daemon, opened
from tests.faults.proxy import Proxy
from tests.waiting import until, until_true
from tests.worker.conftest import working

JOBS = 40
LOSES = 0.3
CUTS = 12
OPEN = "select count(*) from coordinator.jobs_open"
ENDS = "select j::uuid from coordinator.events, jsonb_array_elements_text(data -> 'ids') j where type in ('job.completed', 'job.cancelled')"


class Cutter:
    """Passes HTTP on to a daemon, and cuts a connection in place of the response to a verb of jobs, which it has done.

    The first response to each verb is lost, and later ones sometimes.
    """

    def __init__(self, target: str, choose: random.Random) -> None:
        self._target = urlsplit(target)
        self._choose = choose
        self.lost: set[str] = set()
        self.url = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Cutter]:
        server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield self

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there = await asyncio.open_connection(self._target.hostname, self._target.port)
        verb = ""

        async def requests() -> None:
            nonlocal verb
            while part := await reader.read(65536):
                if part.startswith(b"POST /v1/jobs/"):
                    verb = part.split(b" ", 2)[1].decode().rpartition("/")[2]
                there.write(part)

        async def responses() -> None:
            nonlocal verb
            while part := await there_reader.read(65536):
                if verb and (verb not in self.lost or self._choose.random() < LOSES):
                    self.lost.add(verb)
                    return
                verb = ""
                writer.write(part)

        ways = [asyncio.create_task(requests()), asyncio.create_task(responses())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            with suppress(BaseException):
                await asyncio.gather(*ways)
            writer.transport.abort()
            there.transport.abort()


@asynccontextmanager
async def losing(way: str, database_url: str, seed: int) -> AsyncIterator[tuple[str, set[str]]]:
    """Return an address whose answers are sometimes lost, and where it is HTTP, the verbs whose answers were."""
    choose = random.Random(seed)
    with Daemon(database_url) as daemon:
        await daemon.ready()
        if way == "http":
            async with Cutter(daemon.url, choose).serving() as cutter:
                yield cutter.url, cutter.lost
            return
        async with Proxy(database_url).serving() as proxy, anyio.create_task_group() as tasks:

            async def cut() -> None:
                async with opened(database_url) as connection:
                    await until_true(connection, "select exists (select from coordinator.jobs_running)")
                for _ in range(CUTS):
                    proxy.lose_answer()
                    await anyio.sleep(choose.uniform(0, 0.5))

            tasks.start_soon(cut)
            yield proxy.url, {"claim", "fail", "progress", "release"}
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize("way", ["sql", "http"])
async def test_every_job_ends_once_although_responses_are_lost_at_every_verb(
    database_url: str, seed: int, way: str
) -> None:
    worker = Worker(concurrency=5, name="w")
    done: dict[int, list[int]] = {}

    @worker.job("work")
    async def work(context: JobContext, payload: int) -> dict[str, int]:
        if payload % 3 == 0:
            with suppress(coordinator.DatabaseUnavailable):
                await context.progress(50, checkpoint=payload)
        if payload % 5 == 0 and context.attempt == 1:
            raise RetryJob("a test", at=datetime.now(UTC))
        if payload % 10 == 7:
            await anyio.sleep_forever()
        done.setdefault(payload, []).append(context.fence)
        return {"fence": context.fence}

    async with losing(way, database_url, seed) as (url, lost), opened(database_url) as connection:
        orders = [{"type": "work", "payload": number, "max_attempts": 100} for number in range(JOBS)]
        rows = await connection.fetch("select id from coordinator.job_enqueue_many('default', $1)", orders)
        async with working(worker, url):

            async def ended() -> bool:
                for row in rows[7::10]:  # as soon as they run, and again: the worker may get them twice
                    await connection.execute(
                        "select coordinator.job_cancel('default', id) from coordinator.jobs_running where id = $1 and cancel_at is null",
                        row["id"],
                    )
                return not await connection.fetchval(OPEN)

            await until(ended, "every job has ended", every_s=0.1)
        jobs = {row["id"]: row for row in await connection.fetch("select * from coordinator.jobs")}
        for number, row in enumerate(rows):
            job = jobs[row["id"]]
            assert job["status"] == ("cancelled" if number % 10 == 7 else "completed"), number
            if job["status"] == "completed":
                assert job["result"] == {"fence": job["fence"]}
                assert job["fence"] == done[number][-1]
        ends = [row[0] for row in await connection.fetch(ENDS)]
        assert sorted(ends) == sorted(row["id"] for row in rows)
        assert not await connection.fetchval("select count(*) from coordinator.jobs_running")
    assert {"claim", "fail"} <= lost

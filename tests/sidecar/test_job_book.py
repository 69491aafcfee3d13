"""The jobs that an agent claims through its sidecar, whatever becomes of answers and of the sidecar."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx

from tests.daemon import Daemon, opened
from tests.http_client import http_client
from tests.sidecar.conftest import Sidecar, sidecar
from tests.waiting import LASTING_S, OFTEN, until

Call = Callable[..., Awaitable[Any]]
CLAIM = "select id, fence from coordinator.job_claim('default', $1)"
STATUS = "select status from coordinator.jobs where id = $1"
LONG_AGO = "update coordinator.jobs_running set started_at = started_at - interval '1 minute' where id = $1"
EXPIRED = "update coordinator.agents set expires_at = now() where id = $1"
PROMPT = {"coordinator.client.lease.RENEWALS_PER_TTL": OFTEN, "coordinator.sidecar.job_book.NOTICE_S": 0.2}


@asynccontextmanager
async def beside(url: str) -> AsyncIterator[tuple[Sidecar, Call, asyncpg.Connection]]:
    """Run a sidecar, and return it with what calls verbs of jobs through it, and a connection to the database.

    Its jobs are compared often, although a third of its TTL is beyond the deadline of a test.
    """
    arguments = ("--agent", "w", "--job-type", "work", "--ttl", f"{2 * LASTING_S:g}s")
    with sidecar(url, *arguments, constants=PROMPT) as running:
        await running.started()
        async with http_client() as client, opened(url) as connection:

            async def call(verb: str, **body: object) -> Any:
                answer = await client.post(f"{running.url}/v1/jobs/{verb}", json={"agent": "w", **body})
                return answer.json() if answer.status_code == httpx.codes.OK else answer.json()["code"]

            yield running, call, connection


async def enqueue(connection: asyncpg.Connection) -> Any:
    return await connection.fetchval("select id from coordinator.job_enqueue('default', 'work')")


async def states(running: Sidecar) -> dict[int, str]:
    return {job["fence"]: job["state"] for job in (await running.report())["jobs"]}


async def test_a_job_whose_claim_was_not_answered_is_released_and_the_others_are_not(database_url: str) -> None:
    async with beside(database_url) as (running, call, connection):
        other = await enqueue(connection)
        (held,) = (await call("claim"))["items"]
        assert held["id"] == str(other)
        lost = await enqueue(connection)
        await connection.fetchrow(CLAIM, running.agent)  # as if its answer had not arrived
        await connection.execute(LONG_AGO, lost)
        await until(lambda: bool(running.lines("job.released")), "it was released")
        assert [await connection.fetchval(STATUS, job) for job in (lost, other)] == ["queued", "running"]
        assert await states(running) == {held["fence"]: "HELD"}
        (again,) = (await call("claim", finished=[held["id"]], fences=[held["fence"]], results=[1]))["items"]
        assert await states(running) == {again["fence"]: "HELD"}
        assert (await call("complete", job=again["id"], fence=again["fence"]))["status"] == "completed"
        assert await states(running) == {}
        assert len(running.lines("job.released")) == 1


async def test_the_report_says_which_jobs_are_cancelled_and_which_are_lost(database_url: str) -> None:
    async with beside(database_url) as (running, call, connection):
        await enqueue(connection), await enqueue(connection)
        one, two = (await call("claim", limit=2))["items"]
        await connection.execute("select coordinator.job_cancel('default', $1)", one["id"])
        await connection.execute(
            "select coordinator.job_fail('default', $1, $2, $3, 'x')", two["id"], running.agent, two["fence"]
        )

        async def told() -> bool:
            return await states(running) == {one["fence"]: "CANCELLED", two["fence"]: "LOST"}

        await until(told, "both are known")
        assert await call("complete", job=two["id"], fence=two["fence"]) == "ZC320"
        assert (await call("release", job=one["id"], fence=one["fence"]))["status"] == "cancelled"
        assert await states(running) == {two["fence"]: "LOST"}


async def test_a_sidecar_that_was_stopped_past_its_ttl_knows_that_its_jobs_are_lost(database_url: str) -> None:
    with Daemon(database_url) as daemon:
        await daemon.ready()
        async with beside(database_url) as (running, call, connection):
            job = await enqueue(connection)
            (held,) = (await call("claim"))["items"]
            running.process.send_signal(signal.SIGSTOP)
            try:
                next_agent = await connection.fetchval(
                    "select id from coordinator.agent_register('default', 'next', p_job_types => '{work}', p_ttl => '1 hour')"
                )

                async def rescued() -> Any:
                    await connection.execute(EXPIRED, running.agent)  # also if a heartbeat was under way
                    return await connection.fetchrow(CLAIM, next_agent)

                taken = await until(rescued, "another worker has the job", every_s=0.1)
            finally:
                running.process.send_signal(signal.SIGCONT)
            assert await call("complete", job=str(job), fence=held["fence"]) in ("ZC320", "ZC202")

            async def lost() -> bool:
                return await states(running) == {held["fence"]: "LOST"}

            await until(lost, "the sidecar knows")
            assert (taken["id"], await connection.fetchval(STATUS, job)) == (job, "running")

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import anyio
import pytest

import coordinator
from coordinator.errors import InvalidArgument, NotFound, WaitTimedOut
from coordinator.operations import agents, jobs, waiting
from tests.daemon import Daemon
from tests.waiting import DEADLINE_S

P = "default"


class Work:
    """A worker and its jobs, over the client's own connection."""

    def __init__(self, client: coordinator.Client) -> None:
        self.run = client._caller.run

    async def register(self) -> UUID:
        operation = agents.Register(project=P, name="w1", job_types=["t"], ttl=timedelta(days=1))
        return (await self.run(operation)).id

    async def enqueue(self, **options: Any) -> UUID:
        return (await self.run(jobs.Enqueue(project=P, type="t", **options))).id

    async def complete(self, agent: UUID, result: Any) -> None:
        (grant,) = await self.run(jobs.Claim(project=P, agent=agent))
        await self.run(jobs.Complete(project=P, job=grant.id, agent=agent, fence=grant.fence, result=result))

    async def fail(self, agent: UUID, error: str) -> None:
        (grant,) = await self.run(jobs.Claim(project=P, agent=agent))
        await self.run(jobs.Fail(project=P, job=grant.id, agent=agent, fence=grant.fence, error=error, final=True))


@pytest.fixture(params=["database", "daemon"])
async def address(database_url: str, request: pytest.FixtureRequest) -> Any:
    """Where the client connects to. Without a daemon nothing numbers events."""
    with Daemon(database_url) as daemon:
        await daemon.ready()
        yield database_url if request.param == "database" else daemon.url


async def test_jobs_are_shown_listed_explained_and_retried(address: str) -> None:
    async with coordinator.connect(address) as client:
        work = Work(client)
        agent = await work.register()
        job = await work.enqueue(payload={"user": 7})
        await work.fail(agent, "boom")
        shown = await client.jobs.show(job)
        assert (shown.status, shown.error, shown.payload, shown.ended) == ("failed", "boom", {"user": 7}, True)
        assert [one.id async for one in client.jobs.list(payload={"user": 7}, status=["failed"])] == [job]
        assert [one.id async for one in client.jobs.list(payload={"user": 8})] == []
        assert [one.outcome for one in await client.jobs.attempts(job)] == ["failed"]
        assert (await client.jobs.why(job)).sentence.endswith(
            'attempt 1 of 3 by "w1" failed: boom; the error was final.'
        )
        (made,) = await client.jobs.retry(job)
        assert (made.retry_of, made.created) == (job, True)
        assert (await client.jobs.retry(job))[0].id == made.id
        (stats,) = await client.jobs.stats(period=timedelta(hours=1))
        assert (stats.queue, stats.type, stats.failed, stats.queued) == ("default", "t", 1, 1)
        (worker,) = await client.workers.list(type="t")
        assert (worker.id, worker.status) == (agent, "idle")
        with pytest.raises(NotFound):
            await client.jobs.show(agent)
        with pytest.raises(InvalidArgument):
            await client.jobs.retry()


async def test_a_wait_returns_the_job_as_soon_as_it_has_ended(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "POLL_S", 2 * DEADLINE_S)  # so that only the event ends it
    async with coordinator.connect(address) as client:
        work = Work(client)
        agent = await work.register()
        job, other = await work.enqueue(), await work.enqueue()
        results: list[object] = []

        async def wait() -> None:
            results.append((await client.jobs.wait(job)).result)

        with anyio.fail_after(DEADLINE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
                await work.complete(agent, {"sum": 7})
        assert results == [{"sum": 7}]
        assert (await client.jobs.wait(job)).status == "completed"
        with pytest.raises(WaitTimedOut):
            await client.jobs.wait(other, timeout=0.05)

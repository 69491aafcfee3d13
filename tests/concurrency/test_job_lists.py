"""Jobs end while they are listed: each is on exactly one page, and in every snapshot exactly once."""

from __future__ import annotations

from datetime import timedelta

import anyio

from coordinator.config import Config
from coordinator.db.database import Database
from coordinator.model.page import walk
from coordinator.operations import agents, job_history, jobs

P = "default"
JOBS = 300


async def test_no_job_is_lost_from_a_list_or_listed_twice_while_it_ends(database_url: str, config: Config) -> None:
    walks = 0
    async with Database.open(database_url, config) as db:
        agent = await db.run(agents.Register(project=P, name="w", job_types=["t"], ttl=timedelta(days=1)))
        made = await db.run(jobs.EnqueueMany(project=P, jobs=[{"type": "t", "backoff": 0}] * JOBS))
        expected = sorted((job.id for job in made), reverse=True)
        working = 3

        async def work(number: int) -> None:
            nonlocal working
            while grants := await db.run(jobs.Claim(project=P, agent=agent.id, limit=3)):
                for grant in grants:
                    held = {"project": P, "job": grant.id, "agent": agent.id, "fence": grant.fence}
                    if (grant.fence + number) % 5 == 0:
                        await db.run(jobs.Release(**held))
                    elif (grant.fence + number) % 5 == 1:
                        await db.run(jobs.Fail(**held, error="boom", final=True))
                    else:
                        await db.run(jobs.Complete(**held))
            working -= 1

        async with anyio.create_task_group() as tasks:
            for number in range(working):
                tasks.start_soon(work, number)
            while working or not walks:
                pages = [page async for page in walk(db.run, job_history.List(project=P, limit=40))]
                assert [job.id for page in pages for job in page] == expected
                whole = await db.run(job_history.List(project=P))
                assert [job.id for job in whole] == expected
                walks += 1
        ended = await db.run(job_history.List(project=P, status=["completed", "failed"]))
        assert [job.id for job in ended] == expected
        stats = await db.run(job_history.Stats(project=P))
        assert [(s.completed + s.failed, s.queued, s.running) for s in stats] == [(JOBS, 0, 0)]

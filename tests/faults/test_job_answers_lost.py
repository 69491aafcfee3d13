"""The connection breaks after the server has done what a verb asked, before its answer: what the caller does then is safe."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.daemon import opened
from tests.faults.job_worker import LOST
from tests.faults.proxy import Proxy

CLAIM = "select id, fence, attempt from coordinator.job_claim('default', $1, 10, p_request_id => $2)"
RECONCILE = "select verdict from coordinator.job_reconcile('default', $1, $2, p_grace => '0 seconds')"
STATUS = "select f.status from coordinator.projects p, coordinator.job_find(p.id, $1) f where p.name = 'default'"


class Answers:
    """A caller whose responses can be lost, and a connection that loses none."""

    def __init__(self, proxy: Proxy, direct: asyncpg.Connection, agent: UUID) -> None:
        self.proxy = proxy
        self.direct = direct
        self.agent = agent

    async def lose(self, query: str, *values: object) -> None:
        """Call, and lose the answer of the call."""
        async with opened(self.proxy.url) as connection:
            await connection.prepare(query)
            self.proxy.lose_answer()
            with pytest.raises(LOST):
                await connection.fetch(query, *values)

    async def enqueue(self) -> UUID:
        return UUID(str(await self.direct.fetchval("select id from coordinator.job_enqueue('default', 'work')")))

    async def claim(self) -> tuple[UUID, int]:
        """Enqueue a job and claim it."""
        await self.enqueue()
        (row,) = await self.direct.fetch(CLAIM, self.agent, None)
        return row["id"], row["fence"]


@asynccontextmanager
async def answers(url: str) -> AsyncIterator[Answers]:
    async with Proxy(url).serving() as proxy, opened(url) as direct:
        agent = await direct.fetchval(
            "select id from coordinator.agent_register('default', 'worker', p_job_types => '{work}', p_ttl => '1 hour')"
        )
        yield Answers(proxy, direct, agent)


async def test_an_enqueue_whose_answer_was_lost_is_repeated_with_its_key_and_exists_once(database_url: str) -> None:
    one = "select id, created from coordinator.job_enqueue('default', 'work', p_dedupe_key => 'k', p_on_duplicate => 'skip')"
    many = (
        "select id, created from coordinator.job_enqueue_many('default', (select jsonb_agg(jsonb_build_object('type', 'work', "
        "'dedupe_key', 'k' || n, 'on_duplicate', 'skip')) from generate_series(1, 300) n))"
    )
    async with answers(database_url) as caller:
        for query, jobs in ((one, 1), (many, 301)):
            await caller.lose(query)
            assert not any(row["created"] for row in await caller.direct.fetch(query))
            assert await caller.direct.fetchval("select count(*) from coordinator.jobs_open") == jobs


async def test_a_claim_whose_answer_was_lost_is_repeated_by_its_request_id(database_url: str) -> None:
    async with answers(database_url) as caller:
        jobs = {await caller.enqueue() for _ in range(3)}
        request = uuid4()
        await caller.lose(CLAIM, caller.agent, request)
        await caller.enqueue()
        first = await caller.direct.fetch(CLAIM, caller.agent, request)
        assert {row["id"] for row in first} == jobs
        assert await caller.direct.fetch(CLAIM, caller.agent, request) == first


async def test_a_claim_whose_response_was_lost_is_released_by_reconciling(database_url: str) -> None:
    async with answers(database_url) as caller:
        kept = await caller.claim()
        job = await caller.enqueue()
        await caller.lose(CLAIM, caller.agent, None)
        assert await caller.direct.fetchval(STATUS, job) == "running"
        assert [row["verdict"] for row in await caller.direct.fetch(RECONCILE, caller.agent, [kept[1]])] == ["released"]
        assert await caller.direct.fetchval(STATUS, kept[0]) == "running"
        (row,) = await caller.direct.fetch(CLAIM, caller.agent, None)
        assert (row["id"], row["attempt"]) == (job, 1)


async def test_a_claim_that_also_finishes_and_whose_answer_was_lost_finishes_once(database_url: str) -> None:
    query = (
        "select id, fence, stale from coordinator.job_claim('default', $1, 10, p_request_id => $2, p_finished => $3, p_fences => $4, "
        "p_results => '[1]')"
    )
    async with answers(database_url) as caller:
        job, fence = await caller.claim()
        await caller.enqueue()
        values = caller.agent, uuid4(), [job], [fence]
        await caller.lose(query, *values)
        (row,) = await caller.direct.fetch(query, *values)
        assert not row["stale"]
        assert await caller.direct.fetchval(STATUS, job) == "completed"
        assert await caller.direct.fetchval("select count(*) from coordinator.jobs_ended") == 1


@pytest.mark.parametrize(
    ("verb", "more", "status"),
    [
        ("job_complete", ({"n": 1},), "completed"),
        ("job_fail", ("an error",), "scheduled"),
        ("job_snooze", (timedelta(hours=1),), "scheduled"),
        ("job_release", (), "queued"),
        ("job_progress", (50.0, "half"), "running"),
        ("assert_job", (), "running"),
    ],
)
async def test_a_verb_whose_answer_was_lost_took_effect_once_and_can_be_repeated(
    database_url: str, verb: str, more: tuple[object, ...], status: str
) -> None:
    async with answers(database_url) as caller:
        job, fence = await caller.claim()
        values = (job, fence) if verb == "assert_job" else (job, caller.agent, fence, *more)
        query = f"select coordinator.{verb}('default', {', '.join(f'${number + 1}' for number in range(len(values)))})"
        await caller.lose(query, *values)
        state = (
            "select (select to_jsonb(o) from coordinator.jobs_open o where o.id = $1), "
            "(select to_jsonb(r) - 'progress_at' from coordinator.jobs_running r where r.id = $1), "
            "(select to_jsonb(e) from coordinator.jobs_ended e where e.id = $1)"
        )
        before = await caller.direct.fetchrow(state, job)
        assert await caller.direct.fetchval(STATUS, job) == status
        try:
            await caller.direct.fetch(query, *values)
        except asyncpg.PostgresError as error:
            assert error.sqlstate == "ZC320", error
            assert status in ("scheduled", "queued")
        assert await caller.direct.fetchrow(state, job) == before


async def test_a_cancel_whose_answer_was_lost_can_be_repeated(database_url: str) -> None:
    cancel = "select coordinator.job_cancel('default', $1)"
    async with answers(database_url) as caller:
        running, _ = await caller.claim()
        for job, status, again in ((running, "running", None), (await caller.enqueue(), "cancelled", "ZC323")):
            await caller.lose(cancel, job)
            assert await caller.direct.fetchval(STATUS, job) == status
            try:
                await caller.direct.fetch(cancel, job)
            except asyncpg.PostgresError as error:
                assert error.sqlstate == again, error
            assert await caller.direct.fetchval(STATUS, job) == status

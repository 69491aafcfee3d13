from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

import coordinator
from coordinator.errors import Conflict, InvalidArgument, NotFound, PermissionDenied


async def test_many_jobs_are_mappings_of_what_enqueue_takes(database_url: str) -> None:
    async with coordinator.connect(database_url) as client:
        at = datetime.now(UTC) + timedelta(hours=1)
        made = await client.jobs.enqueue_many(
            [
                {"type": "x", "payload": {"page": 1}, "queue": "a"},
                {"type": "x", "delay": timedelta(minutes=10), "labels": ("gpu",)},
                {"type": "x", "delay": 600, "parent": None},
                {"type": "x", "delay": "10m"},
                {"type": "x", "at": at},
            ]
        )
        assert [job.status for job in made] == ["queued", *["scheduled"] * 4]
        assert made[1].scheduled_at == made[2].scheduled_at == made[3].scheduled_at
        assert made[4].scheduled_at == at
        assert (await client.queues.get("a")).queued_count == 1
        with pytest.raises(InvalidArgument) as refused:
            await client.jobs.enqueue_many([{"type": "x"}, {"type": "x", "priority": 101}])
        assert refused.value.detail == '{"job": 1}'


async def test_an_attempt_is_given_as_what_was_claimed_or_by_id_and_fence(database_url: str) -> None:
    async with coordinator.connect(database_url, agent="w", job_types=["x"]) as client:
        await client.jobs.enqueue_many([{"type": "x"}] * 2)
        first, second = await client.jobs.claim(2)
        assert (await client.jobs.complete(first, {"n": 1})).status == "completed"
        assert (await client.jobs.complete(second.id, fence=second.fence)).status == "completed"
        with pytest.raises(InvalidArgument, match="fence"):
            await client.jobs.complete(second.id)
        with pytest.raises(Conflict) as stale:
            await client.jobs.fail(second.id, "x", fence=second.fence + 1)
        assert stale.value.code == "ZC320"


async def test_a_lost_answer_of_a_claim_or_completion_is_asked_for_again(database_url: str) -> None:
    async with coordinator.connect(database_url, agent="w", job_types=["x"]) as client:
        await client.jobs.enqueue("x")
        request_id = uuid4()
        (grant,) = await client.jobs.claim(request_id=request_id)
        assert await client.jobs.claim(request_id=request_id) == [grant]
        assert await client.jobs.claim() == []
        assert await client.jobs.complete(grant) == await client.jobs.complete(grant)


async def test_without_an_agent_or_job_types_nothing_is_claimed(database_url: str) -> None:
    async with coordinator.connect(database_url) as client:
        with pytest.raises(InvalidArgument, match="no agent"):
            await client.jobs.claim()
        with pytest.raises(NotFound):
            await client.jobs.cancel(uuid4())
    async with coordinator.connect(database_url, agent="idle") as client:
        with pytest.raises(InvalidArgument, match="job_types"):
            await client.jobs.claim()


async def test_a_worker_stores_steps_waits_and_asks(database_url: str) -> None:
    async with coordinator.connect(database_url, agent="w", job_types=["x"]) as client:
        await client.jobs.enqueue("x")
        (job,) = await client.jobs.claim()
        assert job.steps == 0
        assert (await client.jobs.step(job, "fetch", [1])).result == [1]
        assert (await client.jobs.step(job.id, "fetch", [1], fence=job.fence)).place == 1
        done = await client.jobs.suspend(job, "now", [{"delay": 0}], ttl=3600)
        assert (done.status, done.result["met"]) == ("running", 0)  # type: ignore[index, call-overload]
        asked = await client.jobs.ask(job, "go", "Deploy?", options=["yes", "no"], ttl=600, fallback="no")
        assert (asked.status, asked.due_at is not None) == ("waiting", True)
        assert [question.question async for question in client.jobs.questions()] == ["Deploy?"]
        with pytest.raises(PermissionDenied):
            await client.jobs.answer(job.id, "yes")
        async with coordinator.connect(database_url) as boss:
            answered = await boss.jobs.answer(job.id, "yes", reason="ok", step="go", ordinal=1)
            assert (answered.result["answer"], answered.actor != "w") == ("yes", True)  # type: ignore[index, call-overload]
        (job,) = await client.jobs.claim()
        assert [step.name async for step in client.jobs.steps(job.id)] == ["fetch", "now", "go"]
        await client.jobs.fail(job, "e", final=True)
        (new,) = await client.jobs.retry(job.id, from_step="go")
        assert new.steps == 2

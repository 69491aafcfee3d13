"""What jobs, directives and events keep of the trace of the call that made them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from coordinator.db.database import Database
from coordinator.model.job import JobGrant
from coordinator.model.job_history import Job
from coordinator.operations import agents, directives, events, job_history, jobs, signals
from coordinator.telemetry import tracing
from coordinator.telemetry.tracing import parsed
from tests.conftest import Transaction
from tests.spans import Spans

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
OTHER = f"00-{'a' * 32}-{'b' * 16}-00"


async def _claim(tx: Transaction | Database) -> list[JobGrant]:
    worker = await tx.run(agents.Register(project="default", name="w", job_types=["t"]))
    return await tx.run(jobs.Claim(project="default", agent=worker.id, limit=10))


def _enqueue(**fields: Any) -> jobs.Enqueue:
    return jobs.Enqueue(project="default", type="t", payload={}, **fields)


async def test_a_claim_returns_the_context_of_the_call_that_enqueued_the_job(db: Database) -> None:
    with tracing.received("x", "server", {}, parsed(PARENT)):
        await db.run(_enqueue(priority=2))
    await db.run(_enqueue(priority=1))
    assert [grant.traceparent for grant in await _claim(db)] == [PARENT, None]


async def test_each_job_of_many_has_the_context(tx: Transaction) -> None:
    with tracing.received("x", "server", {}, parsed(PARENT)):
        await tx.run(jobs.EnqueueMany(project="default", jobs=[{"type": "t"}, {"type": "t", "priority": 5}]))
    assert [grant.traceparent for grant in await _claim(tx)] == [PARENT, PARENT]


async def test_a_repeated_claim_returns_it_again_and_so_does_a_second_attempt(tx: Transaction) -> None:
    from uuid import uuid4

    with tracing.received("x", "server", {}, parsed(PARENT)):
        await tx.run(_enqueue())
    worker = await tx.run(agents.Register(project="default", name="w", job_types=["t"]))
    claim = jobs.Claim(project="default", agent=worker.id, limit=10, request_id=uuid4())
    for _ in range(2):
        (grant,) = await tx.run(claim)
        assert grant.traceparent == PARENT
    await tx.run(jobs.Release(project="default", agent=worker.id, job=grant.id, fence=grant.fence))
    (grant,) = await tx.run(jobs.Claim(project="default", agent=worker.id, limit=10))
    assert grant.traceparent == PARENT


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "expired"])
async def test_a_job_has_it_while_it_waits_and_runs_and_after_its_end(tx: Transaction, status: str) -> None:
    await tx.set_clock(timedelta())
    now = await tx.connection.fetchval("select coordinator.now_utc()")
    await tx.run(_enqueue(priority=-5))  # before the transaction has a context
    with tracing.received("x", "server", {}, parsed(PARENT)):
        job = (await tx.run(_enqueue(start_by=now + timedelta(hours=1)))).id

    async def shown() -> Job:
        found = await tx.run(job_history.Show(project="default", job=job))
        (listed,) = [one for one in await tx.run(job_history.List(project="default")) if one.id == job]
        assert found == listed
        return found

    assert (await shown()).traceparent == PARENT
    if status in ("completed", "failed"):
        worker = await tx.run(agents.Register(project="default", name="w", job_types=["t"]))
        (grant,) = await tx.run(jobs.Claim(project="default", agent=worker.id, limit=1))
        assert (await shown()).traceparent == PARENT
        held = {"project": "default", "agent": worker.id, "job": job, "fence": grant.fence}
        await tx.run(jobs.Complete(**held) if status == "completed" else jobs.Fail(**held, error="x", final=True))
    elif status == "cancelled":
        await tx.run(jobs.Cancel(project="default", job=job))
    else:
        await tx.set_clock(timedelta(hours=2))
        await tx.run(jobs.Expire())
    ended = await shown()
    assert (ended.status, ended.traceparent) == (status, PARENT)
    (other,) = await tx.run(job_history.List(project="default", status=["queued"]))
    assert other.traceparent is None


async def test_a_directive_has_it_for_who_sends_and_who_reads(tx: Transaction) -> None:
    with tracing.received("x", "server", {}, parsed(PARENT)):
        sent = await tx.run(directives.Send(project="default", body="go", to_agent="a"))
    assert sent.traceparent == PARENT
    assert sent.recipients == 0
    (read,) = await tx.run(directives.Inbox(project="default", agent="a"))
    (listed,) = await tx.run(directives.List(project="default"))
    assert read.traceparent == listed.traceparent == PARENT


async def test_an_event_has_it_in_lists_and_in_notifications(db: Database) -> None:
    from tests.client.conftest import relayed

    async with relayed(db):
        with tracing.received("x", "server", {}, parsed(PARENT)):
            await db.run(signals.Set(project="default", key="a", value=1))
        await db.run(signals.Set(project="default", key="b", value=1))
        from tests.waiting import until

        async def look() -> list[tuple[str | None, str | None]] | None:
            found = [(event.key, event.traceparent) for event in await db.run(events.Since(topics=["signal.set"]))]
            return found if len(found) == 2 else None

        assert await until(look, "both events are in the log") == [("a", PARENT), ("b", None)]


async def test_in_plain_sql_a_setting_of_the_transaction_says_it(tx: Transaction) -> None:
    await tx.connection.execute(f"set local coordinator.traceparent = '{PARENT}'")
    await tx.connection.execute("select coordinator.job_enqueue('default', 't', '{}')")
    await tx.connection.execute(f"set local coordinator.traceparent = '{OTHER}'")
    await tx.connection.execute("select coordinator.job_enqueue('default', 't', '{}')")
    assert {grant.traceparent for grant in await _claim(tx)} == {PARENT, OTHER}


@pytest.mark.parametrize(
    "given",
    [
        "",
        "x",
        "0" * 55,
        PARENT.upper(),
        PARENT + "0",
        "00-" + "'" * 32 + PARENT[35:],
        "-" * 55,
        '00-"' + PARENT[4:],
        "é" * 55,
    ],
)
async def test_a_malformed_setting_is_ignored(tx: Transaction, given: str) -> None:
    await tx.connection.execute("select set_config('coordinator.traceparent', $1, true)", given)
    await tx.connection.execute("select coordinator.job_enqueue('default', 't', '{}')")
    (grant,) = await _claim(tx)
    assert grant.traceparent is None


async def test_the_context_of_a_call_ends_with_it(db: Database) -> None:
    with tracing.received("x", "server", {}, parsed(PARENT)):
        await db.run(_enqueue())
    async with db.transaction() as transaction:  # on the same connection
        await transaction.run(directives.Send(project="default", body="go", to_agent="a"))
    (read,) = await db.run(directives.Inbox(project="default", agent="a"))
    assert read.traceparent is None


async def test_a_traced_call_gives_the_span_of_its_sql_call(db: Database, spans: Spans) -> None:
    sent = await db.run(directives.Send(project="default", body="go", to_agent="a"))
    call = spans.one("SELECT coordinator.directive_send")
    assert (
        sent.traceparent
        == f"00-{call.context.trace_id:032x}-{call.context.span_id:016x}-{int(call.context.trace_flags):02x}"
    )

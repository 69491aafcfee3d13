from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from coordinator.operations import agents, directives, jobs
from tests.conftest import Transaction
from tests.sql.refusal import refused


async def send(tx: Transaction, body: str = "x", **options: object) -> int:
    if not options.keys() & {"to_agent", "to_role", "everyone"}:
        options["to_agent"] = "a"
    return (await tx.run(directives.Send(project="default", body=body, **options))).id  # type: ignore[arg-type]


async def inbox(tx: Transaction, agent: str = "a") -> list[str]:
    return [directive.body for directive in await tx.run(directives.Inbox(project="default", agent=agent))]


async def acknowledge(
    tx: Transaction, directive: int, status: str = "done", agent: str = "a", reason: str | None = None
) -> None:
    await tx.run(
        directives.Acknowledge(project="default", directive=directive, agent=agent, status=status, reason=reason)
    )


async def test_an_inbox_is_by_priority_and_then_in_order_of_sending(tx: Transaction) -> None:
    for body, priority in (("1", 0), ("2", 5), ("3", 0), ("4", -5), ("5", 5)):
        await send(tx, body, priority=priority)
    assert await inbox(tx) == ["2", "5", "1", "3", "4"]


async def test_who_registers_later_gets_what_is_for_its_name_role_and_everyone(tx: Transaction) -> None:
    await send(tx, "name", to_agent="late")
    await send(tx, "role", to_role="coder")
    await send(tx, "all", everyone=True)
    await send(tx, "other", to_role="tester")
    assert await inbox(tx, "late") == ["name", "all"]
    await tx.run(agents.Register(project="default", name="late", role="coder"))
    assert await inbox(tx, "late") == ["name", "role", "all"]


async def test_a_restarted_agent_still_has_what_it_has_not_answered(tx: Transaction) -> None:
    first = await tx.run(agents.Register(project="default", name="a", role="coder"))
    answered, seen = await send(tx, "answered", to_role="coder"), await send(tx, "seen", to_role="coder")
    await acknowledge(tx, answered)
    await acknowledge(tx, seen, "seen")
    await tx.run(agents.Deregister(agent=first.id))
    await tx.run(agents.Register(project="default", name="a", role="coder"))
    (left,) = await tx.run(directives.Inbox(project="default", agent="a"))
    assert (left.body, left.status) == ("seen", "seen")


async def test_who_sends_to_everyone_does_not_send_to_itself(tx: Transaction) -> None:
    await tx.run(agents.Register(project="default", name="boss"))
    await tx.run(agents.Register(project="default", name="a"))
    await send(tx, "all", everyone=True, actor="boss")
    assert await inbox(tx, "boss") == []
    assert [p.agent for p in await tx.run(directives.ListPending(project="default"))] == ["a"]


async def test_each_recipient_answers_for_itself(tx: Transaction) -> None:
    for name in "ab":
        await tx.run(agents.Register(project="default", name=name, role="r"))
    sent = await send(tx, to_role="r")
    await acknowledge(tx, sent, agent="a")
    assert await inbox(tx, "a") == []
    assert await inbox(tx, "b") == ["x"]
    assert [(p.agent, p.status) for p in await tx.run(directives.ListPending(project="default"))] == [("b", "unseen")]


async def test_pending_distinguishes_unseen_from_seen_and_takes_one_directive(tx: Transaction) -> None:
    first, second = await send(tx), await send(tx, to_agent="b")
    await acknowledge(tx, first, "seen")
    pending = await tx.run(directives.ListPending(project="default"))
    assert [(p.id, p.agent, p.status) for p in pending] == [(first, "a", "seen"), (second, "b", "unseen")]
    assert [p.id for p in await tx.run(directives.ListPending(project="default", directive=second))] == [second]
    await acknowledge(tx, first, "refused", reason="busy")
    assert [p.id for p in await tx.run(directives.ListPending(project="default"))] == [second]


async def test_the_view_of_what_is_pending_says_the_same_as_the_function(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    for name, role in (("a", "r"), ("a", "r"), ("b", "r"), ("c", None), ("boss", None)):
        await tx.run(agents.Register(project="default", name=name, role=role))
    sent = [
        await send(tx, to_agent="a"),
        await send(tx, to_agent="nobody", priority=7),
        await send(tx, to_role="r", priority=-7),
        await send(tx, everyone=True, actor="boss"),
        await send(tx, everyone=True, ttl=timedelta(seconds=1)),
    ]
    await tx.run(directives.Revoke(project="default", directive=await send(tx)))
    await acknowledge(tx, sent[3], "seen", agent="a")
    await acknowledge(tx, sent[3], agent="b")
    await tx.set_clock(timedelta(seconds=2))
    pending = await tx.run(directives.ListPending(project="default"))
    assert [(p.id, p.agent, p.status) for p in pending] == [
        (sent[1], "nobody", "unseen"),
        (sent[0], "a", "unseen"),
        (sent[3], "a", "seen"),
        (sent[3], "c", "unseen"),
        (sent[2], "a", "unseen"),
        (sent[2], "b", "unseen"),
    ]
    rows = await tx.connection.fetch("select id, agent, status from coordinator.directives_pending")
    assert {tuple(row) for row in rows} == {(p.id, p.agent, p.status) for p in pending}


async def test_seen_then_done_keeps_the_time_at_which_it_was_first_seen(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    sent = await send(tx)
    await tx.set_clock(timedelta(seconds=1))
    seen = await tx.run(directives.Acknowledge(project="default", directive=sent, agent="a", status="seen"))
    await tx.set_clock(timedelta(seconds=5))
    done = await tx.run(directives.Acknowledge(project="default", directive=sent, agent="a", reason="fine"))
    assert (done.status, done.reason, done.seen_at) == ("done", "fine", seen.seen_at)
    assert done.acknowledged_at - done.seen_at == timedelta(seconds=4)


async def test_saying_the_same_again_changes_nothing(tx: Transaction) -> None:
    sent = await send(tx)
    first = await tx.run(directives.Acknowledge(project="default", directive=sent, agent="a", reason="fine"))
    count = len(await tx.events())
    for status in ("done", "seen"):
        again = await tx.run(directives.Acknowledge(project="default", directive=sent, agent="a", status=status))
        assert again == first
    assert len(await tx.events()) == count


async def test_an_answer_stands(tx: Transaction) -> None:
    sent = await send(tx)
    await acknowledge(tx, sent)
    await refused(
        tx, directives.Acknowledge(project="default", directive=sent, agent="a", status="refused", reason="no"), "ZC303"
    )


async def test_a_directive_for_somebody_else_cannot_be_answered(tx: Transaction) -> None:
    await tx.run(agents.Register(project="default", name="b", role="tester"))
    named, role = await send(tx), await send(tx, to_role="coder")
    error = await refused(tx, directives.Acknowledge(project="default", directive=named, agent="b"), "ZC105")
    assert '"a"' in str(error.hint)
    error = await refused(tx, directives.Acknowledge(project="default", directive=role, agent="b"), "ZC105")
    assert '"coder"' in str(error.hint)


async def test_a_newer_directive_supersedes_the_open_one_of_the_same_key_and_target(tx: Transaction) -> None:
    old = await send(tx, "old", key="k")
    await send(tx, "other target", to_agent="b", key="k")
    await send(tx, "other key", key="l")
    new = await send(tx, "new", key="k")
    assert await inbox(tx) == ["other key", "new"]
    assert await inbox(tx, "b") == ["other target"]
    (event,) = [row for row in await tx.events() if row["type"] == "directive.superseded"]
    assert (event["key"], event["data"]) == (str(old), {"by": new})
    await refused(tx, directives.Acknowledge(project="default", directive=old, agent="a"), "ZC304")
    await refused(tx, directives.Revoke(project="default", directive=old), "ZC304")


async def test_revoke_takes_back_and_again_says_so(tx: Transaction) -> None:
    sent = await send(tx)
    assert await tx.run(directives.Revoke(project="default", directive=sent, reason="changed my mind")) is True
    count = len(await tx.events())
    assert await tx.run(directives.Revoke(project="default", directive=sent)) is False
    assert len(await tx.events()) == count
    assert await inbox(tx) == []
    await refused(tx, directives.Acknowledge(project="default", directive=sent, agent="a"), "ZC304")


async def test_what_was_done_before_a_revocation_may_be_said_again(tx: Transaction) -> None:
    sent = await send(tx)
    await acknowledge(tx, sent)
    await tx.run(directives.Revoke(project="default", directive=sent))
    await acknowledge(tx, sent)


async def test_an_expired_directive_is_absent_before_it_is_marked(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    sent = await send(tx, ttl=timedelta(seconds=10))
    await tx.set_clock(timedelta(seconds=11))
    assert await inbox(tx) == []
    assert await tx.run(directives.ListPending(project="default")) == []
    assert await tx.run(directives.List(project="default")) == []
    assert [d.status for d in await tx.run(directives.List(project="default", open=False))] == ["expired"]
    await refused(tx, directives.Acknowledge(project="default", directive=sent, agent="a"), "ZC304")
    await refused(tx, directives.Revoke(project="default", directive=sent), "ZC304")
    assert [await tx.run(directives.Expire()) for _ in range(2)] == [1, 0]
    last = (await tx.events())[-1]
    assert (last["type"], last["key"], last["actor"]) == ("directive.expired", str(sent), "coordinator")


async def test_list_continues_after_a_number_and_can_show_what_ended(tx: Transaction) -> None:
    first, second, third = [await send(tx) for _ in range(3)]
    await tx.run(directives.Revoke(project="default", directive=second))
    assert [d.id for d in await tx.run(directives.List(project="default"))] == [first, third]
    assert [d.id for d in await tx.run(directives.List(project="default", after=[str(first)]))] == [third]
    everything = await tx.run(directives.List(project="default", open=False, limit=2))
    assert [(d.id, d.status) for d in everything] == [(first, "open"), (second, "revoked")]


async def test_prune_deletes_what_ended_long_ago_with_its_receipts_and_nothing_open(tx: Transaction) -> None:
    ended, still_open = await send(tx, ttl=timedelta(days=366)), await send(tx, ttl=timedelta(days=366))
    await acknowledge(tx, ended)
    await tx.run(directives.Revoke(project="default", directive=ended))
    await tx.set_clock(timedelta(days=29))
    assert await tx.run(directives.Prune()) == 0
    await tx.set_clock(timedelta(days=31))
    count = len(await tx.events())
    assert [await tx.run(directives.Prune()) for _ in range(2)] == [1, 0]
    assert [d.id for d in await tx.run(directives.List(project="default", open=False))] == [still_open]
    assert await tx.connection.fetchval("select count(*) from coordinator.directive_receipts") == 0
    assert len(await tx.events()) == count


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        (directives.Send(project="default", body="", to_agent="a"), "ZC101"),
        (directives.Send(project="default", body="x"), "ZC105"),
        (directives.Send(project="default", body="x", to_agent="a", to_role="r"), "ZC105"),
        (directives.Send(project="default", body="x", to_agent="a", everyone=True), "ZC105"),
        (directives.Send(project="default", body="x", to_agent="a\n"), "ZC103"),
        (directives.Send(project="default", body="x", to_role=""), "ZC101"),
        (directives.Send(project="default", body="x", to_agent="a", priority=101), "ZC104"),
        (directives.Send(project="default", body="x", to_agent="a", priority=-101), "ZC104"),
        (directives.Send(project="default", body="x", to_agent="a", ttl=timedelta(0)), "ZC104"),
        (directives.Send(project="default", body="x", to_agent="a", key=""), "ZC101"),
        (directives.Send(project="default", body="x\x00", to_agent="a"), "22021"),
        (directives.Inbox(project="default", agent=""), "ZC101"),
        (directives.Inbox(project="default", agent="a", limit=0), "ZC104"),
        (directives.Acknowledge(project="default", directive=10**15, agent="a"), "ZC204"),
        (directives.Acknowledge(project="default", directive=1, agent="a", status="maybe"), "ZC105"),
        (directives.Acknowledge(project="default", directive=1, agent="a", status="refused"), "ZC101"),
        (directives.Acknowledge(project="default", directive=1, agent=""), "ZC101"),
        (directives.Revoke(project="default", directive=10**15), "ZC204"),
        (directives.Revoke(project="default", directive=1, reason="x" * 2001), "ZC102"),
        (directives.List(project="default", limit=-1), "ZC104"),
        (directives.Prune(retention=timedelta(0)), "ZC104"),
    ],
)
async def test_bad_input_is_refused(tx: Transaction, operation: object, code: str) -> None:
    await refused(tx, operation, code)  # type: ignore[arg-type]


async def test_a_directive_of_another_project_is_not_found(tx: Transaction) -> None:
    sent = await send(tx)
    await tx.connection.execute("select coordinator.project_create('p')")
    await refused(tx, directives.Acknowledge(project="p", directive=sent, agent="a"), "ZC204")
    await refused(tx, directives.Revoke(project="p", directive=sent), "ZC204")


async def test_a_null_everyone_in_sql_never_means_everyone(tx: Transaction) -> None:
    with pytest.raises(asyncpg.PostgresError) as raised:
        await tx.connection.execute("select coordinator.directive_send('default', 'x', p_everyone => null)")
    assert raised.value.sqlstate == "ZC105"


async def test_a_page_of_what_is_pending_looks_at_the_recipients_of_few_directives(tx: Transaction) -> None:
    for number in range(30):
        await tx.run(agents.Register(project="default", name=f"a{number}"))
    for _ in range(30):
        await send(tx, everyone=True)
    query = "select (idx_tup_fetch + seq_tup_read)::bigint from pg_stat_xact_user_tables where relname = 'agents'"
    before = await tx.connection.fetchval(query)
    assert len(await tx.run(directives.ListPending(project="default", limit=40))) == 40
    assert await tx.connection.fetchval(query) - before <= 60 * 2


async def running(tx: Transaction, name: str = "w") -> tuple[UUID, dict[str, Any]]:
    """Enqueue a job, and let a worker run it; return the job and what each verb of the worker needs."""
    agent = await tx.run(agents.Register(project="default", name=name, job_types=["t"]))
    await tx.run(jobs.Enqueue(project="default", type="t"))
    (grant,) = await tx.run(jobs.Claim(project="default", agent=agent.id))
    return grant.id, {"project": "default", "job": grant.id, "agent": agent.id, "fence": grant.fence}


async def inbox_of(tx: Transaction, agent: str) -> list[int]:
    return [directive.id for directive in await tx.run(directives.Inbox(project="default", agent=agent))]


async def test_a_directive_for_a_job_is_for_its_workers_until_one_answers(tx: Transaction) -> None:
    job, attempt = await running(tx)
    sent = await tx.run(directives.Send(project="default", body="Skip the appendix.", to_job=job, actor="boss"))
    assert (sent.to_job, sent.to_agent, sent.recipients, sent.meant) == (job, None, 1, None)
    pending = directives.ListPending(project="default")
    assert await inbox_of(tx, "w") == [sent.id]
    assert [row.agent for row in await tx.run(pending)] == ["w"]
    await tx.run(jobs.Release(**attempt))
    assert await inbox_of(tx, "w") == []
    assert [row.agent for row in await tx.run(pending)] == [None]
    other = await tx.run(agents.Register(project="default", name="v", job_types=["t"]))
    acknowledge = directives.Acknowledge(project="default", directive=sent.id, agent="v")
    error = await refused(tx, acknowledge, "ZC105")
    assert str(job) in (error.hint or "")
    await tx.run(jobs.Claim(project="default", agent=other.id))
    assert await inbox_of(tx, "v") == [sent.id]
    await tx.run(acknowledge)
    assert await inbox_of(tx, "v") == []
    assert await tx.run(pending) == []
    rows = await tx.connection.fetch("select agent from coordinator.directives_pending")
    assert [row["agent"] for row in rows] == []


async def test_a_directive_for_a_job_expires_with_it(tx: Transaction) -> None:
    job, attempt = await running(tx)
    first = await tx.run(directives.Send(project="default", body="x", to_job=job, key="k"))
    second = await tx.run(directives.Send(project="default", body="y", to_job=job, key="k"))
    assert await inbox_of(tx, "w") == [second.id]
    assert await tx.run(directives.Expire()) == 0
    await tx.run(jobs.Complete(**attempt))
    assert "directive_expire" in await tx.connection.fetchval("select coordinator.work_due()")
    assert await tx.run(directives.Expire()) == 1
    assert await tx.run(directives.Expire()) == 0
    listed = await tx.run(directives.List(project="default", open=False))
    assert {row.id: row.status for row in listed} == {first.id: "superseded", second.id: "expired"}
    await refused(tx, directives.Send(project="default", body="x", to_job=job), "ZC323")
    await refused(tx, directives.Send(project="default", body="x", to_job=UUID(int=1)), "ZC209")
    await refused(tx, directives.Send(project="default", body="x", to_job=job, everyone=True), "ZC105")

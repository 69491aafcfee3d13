from __future__ import annotations

import json
from uuid import uuid4

import pytest

from coordinator.errors import Conflict, InvalidArgument, NotFound, WaitTimedOut
from coordinator.model.agent import Agent
from coordinator.model.lock import Grant
from coordinator.operations import agents, locks
from tests.conftest import Transaction
from tests.sql.lock.test_lock import acquire, holders, register, release, s, tx, types

__all__ = ["tx"]


async def wait(tx: Transaction, agent: Agent, *resources: str, **options: object) -> Grant:
    return (await acquire(tx, agent, *resources, **{"wait": s(60), **options}))[0]


async def poll(tx: Transaction, agent: Agent, ticket: Grant) -> Grant:
    return (await tx.run(locks.Poll(project="default", ticket=ticket.ticket or 0, agent=agent.id)))[0]


async def crew(tx: Transaction, count: int = 4) -> list[Agent]:
    return [await register(tx, name) for name in ("ann", "bob", "cid", "dan")[:count]]


async def waiting(tx: Transaction) -> list[str]:
    return [
        r["agent"]
        for r in await tx.connection.fetch("select agent from coordinator.lock_waiters order by ticket, resource")
    ]


async def test_a_free_lock_is_granted_at_once_to_a_caller_that_would_wait(tx: Transaction) -> None:
    ann, _ = await crew(tx, 2)
    grant = await wait(tx, ann, "a")
    assert (grant.granted, grant.ticket) == (True, None)


async def test_release_hands_the_lock_to_the_first_waiter_in_the_same_transaction(tx: Transaction) -> None:
    ann, bob, cid, _ = await crew(tx)
    (held,) = await acquire(tx, ann, "a")
    first, second = await wait(tx, bob, "a"), await wait(tx, cid, "a")
    assert not first.granted
    assert (second.ticket or 0) > (first.ticket or 0)
    assert await waiting(tx) == ["bob", "cid"]
    await release(tx, ann, held)
    assert await holders(tx) == {("bob", "a")}
    assert await waiting(tx) == ["cid"]
    event = (await tx.events())[-1]
    assert (event["type"], event["key"], event["data"]["ticket"]) == ("lock.granted", "a", first.ticket)
    got = await poll(tx, bob, first)
    assert got.granted
    assert (got.fencing_token or 0) > (held.fencing_token or 0)
    assert not (await poll(tx, cid, second)).granted
    await release(tx, bob, got)
    assert (await poll(tx, cid, second)).granted


async def test_nobody_overtakes_a_waiter_neither_to_share_nor_without_waiting(tx: Transaction) -> None:
    ann, bob, cid, _ = await crew(tx)
    (held,) = await acquire(tx, ann, "src/a.py", shared=True)
    ticket = await wait(tx, bob, "src/")
    with pytest.raises(Conflict) as raised:
        await acquire(tx, cid, "src/a.py", shared=True)
    assert json.loads(raised.value.detail or "")["ticket"] == ticket.ticket
    with pytest.raises(Conflict):
        await acquire(tx, cid, "src/free.py")
    assert (await acquire(tx, cid, "docs/x"))[0].granted
    later = await wait(tx, cid, "src/a.py", shared=True)
    await release(tx, ann, held)
    assert (await poll(tx, bob, ticket)).granted
    assert not (await poll(tx, cid, later)).granted


async def test_waiters_that_share_are_served_together_up_to_the_next_exclusive_one(tx: Transaction) -> None:
    ann, bob, cid, dan = await crew(tx)
    (held,) = await acquire(tx, ann, "a")
    for agent, shared in ((bob, True), (cid, True), (dan, False)):
        await wait(tx, agent, "a", shared=shared)
    await release(tx, ann, held)
    assert await holders(tx) == {("bob", "a"), ("cid", "a")}
    assert await waiting(tx) == ["dan"]


async def test_several_resources_wait_until_all_are_free(tx: Transaction) -> None:
    ann, bob, cid, _ = await crew(tx)
    (a,), (b,) = await acquire(tx, ann, "a"), await acquire(tx, bob, "b")
    ticket = await wait(tx, cid, "a", "b", "c")
    await release(tx, ann, a)
    assert await holders(tx) == {("bob", "b")}
    with pytest.raises(Conflict):
        await acquire(tx, ann, "c")
    await release(tx, bob, b)
    assert await holders(tx) == {("cid", "a"), ("cid", "b"), ("cid", "c")}
    assert len(await tx.run(locks.Poll(project="default", ticket=ticket.ticket or 0, agent=cid.id))) == 3


async def test_slots_are_handed_on_in_order(tx: Transaction) -> None:
    ann, bob, cid, dan = await crew(tx)
    held = [await wait(tx, agent, "name:gpu", slots=2) for agent in (ann, bob)]
    tickets = [await wait(tx, agent, "name:gpu", slots=2) for agent in (cid, dan)]
    await release(tx, ann, held[0])
    assert (await poll(tx, cid, tickets[0])).slot == 1
    assert not (await poll(tx, dan, tickets[1])).granted
    await release(tx, bob, held[1])
    assert (await poll(tx, dan, tickets[1])).slot == 2


@pytest.mark.parametrize("end", ["expire", "break", "agent", "poll"])
async def test_however_a_lock_ends_the_next_is_served(tx: Transaction, end: str) -> None:
    ann, bob, _, _ = await crew(tx)
    await acquire(tx, ann, "src/", ttl=s(10))
    ticket = await wait(tx, bob, "src/a.py")
    await tx.set_clock(s(11 if end in ("expire", "poll") else 5))
    if end == "expire":
        assert await tx.run(locks.Expire()) == 1
    elif end == "break":
        await tx.run(locks.Break(project="default", resource="src/", reason="x"))
    elif end == "agent":
        await tx.run(agents.Deregister(agent=ann.id))
    if end != "poll":
        assert await holders(tx) == {("bob", "src/a.py")}
    assert (await poll(tx, bob, ticket)).granted


@pytest.mark.parametrize("end", ["cancel", "agent", "timeout and sweep", "timeout and newcomer"])
async def test_a_waiter_that_leaves_blocks_nobody(tx: Transaction, end: str) -> None:
    ann, bob, cid, dan = await crew(tx)
    await acquire(tx, ann, "a", shared=True, ttl=s(100))
    ticket = await wait(tx, bob, "a", wait=s(10))
    later = await wait(tx, cid, "a", shared=True)
    await tx.set_clock(s(11 if end.startswith("timeout") else 5))
    if end == "cancel":
        assert await tx.run(locks.Cancel(project="default", ticket=ticket.ticket or 0, agent=bob.id))
        assert not await tx.run(locks.Cancel(project="default", ticket=ticket.ticket or 0, agent=bob.id))
    elif end == "agent":
        await tx.run(agents.Deregister(agent=bob.id))
    elif end == "timeout and sweep":
        await tx.run(locks.Expire())
    else:
        assert (await acquire(tx, dan, "a", shared=True))[0].granted
    assert ("cid", "a") in await holders(tx)
    assert (await poll(tx, cid, later)).granted
    with pytest.raises(NotFound if end == "agent" else WaitTimedOut):
        await poll(tx, bob, ticket)


async def test_a_wait_that_timed_out_is_reported(tx: Transaction) -> None:
    ann, bob, _, _ = await crew(tx)
    await acquire(tx, ann, "a", ttl=s(100))
    ticket = await wait(tx, bob, "a", wait=s(10))
    await tx.set_clock(s(10))
    with pytest.raises(WaitTimedOut):
        await poll(tx, bob, ticket)
    assert "lock_expire" in await tx.connection.fetchval("select coordinator.work_due()")


async def test_a_lock_that_its_waiter_does_not_claim_goes_to_the_next(tx: Transaction) -> None:
    ann, bob, cid, _ = await crew(tx)
    (held,) = await acquire(tx, ann, "a")
    ticket, later = await wait(tx, bob, "a", ttl=s(50)), await wait(tx, cid, "a")
    await release(tx, ann, held)
    await tx.set_clock(s(10))
    assert await tx.run(locks.Expire()) == 1
    assert (await poll(tx, cid, later)).granted
    with pytest.raises(WaitTimedOut):
        await poll(tx, bob, ticket)


async def test_the_ttl_begins_when_the_lock_is_claimed(tx: Transaction) -> None:
    ann, bob, _, _ = await crew(tx)
    (held,) = await acquire(tx, ann, "a")
    ticket = await wait(tx, bob, "a", ttl=s(50))
    await release(tx, ann, held)
    await tx.set_clock(s(9))
    first = await poll(tx, bob, ticket)
    await tx.set_clock(s(30))
    assert await poll(tx, bob, ticket) == first
    await tx.set_clock(s(58))
    assert await holders(tx) == {("bob", "a")}


async def test_cancel_releases_what_was_just_handed_on(tx: Transaction) -> None:
    ann, bob, cid, _ = await crew(tx)
    (held,) = await acquire(tx, ann, "a")
    ticket, _ = await wait(tx, bob, "a"), await wait(tx, cid, "a")
    await release(tx, ann, held)
    assert await tx.run(locks.Cancel(project="default", ticket=ticket.ticket or 0, agent=bob.id))
    assert await holders(tx) == {("cid", "a")}


async def test_asking_again_with_the_request_id_finds_the_ticket_and_then_the_lock(tx: Transaction) -> None:
    ann, bob, _, _ = await crew(tx)
    (held,) = await acquire(tx, ann, "a")
    request = uuid4()
    first = await wait(tx, bob, "a", request_id=request)
    assert await wait(tx, bob, "a", request_id=request) == first
    assert await waiting(tx) == ["bob"]
    await release(tx, ann, held)
    again = await wait(tx, bob, "a", request_id=request)
    assert (again.granted, again.ticket) == (True, first.ticket)


async def test_a_request_id_that_waits_for_something_else_is_refused(tx: Transaction) -> None:
    ann, bob, _, _ = await crew(tx)
    await acquire(tx, ann, "a", "b", "c")
    request = uuid4()
    ticket = await wait(tx, bob, "b", "a", request_id=request)
    for other in (("c",), ("a",), ("a", "b", "c")):
        with pytest.raises(Conflict) as raised:
            await wait(tx, bob, *other, request_id=request)
        assert raised.value.code == "ZC305"
    assert await wait(tx, bob, "a", "b", request_id=request) == ticket
    assert await waiting(tx) == ["bob", "bob"]


async def test_a_deadlock_is_rejected_with_the_agents_and_resources_of_its_cycle_and_changes_nothing(
    tx: Transaction,
) -> None:
    ann, bob, cid, _ = await crew(tx)
    for agent, resource in ((ann, "a"), (bob, "b/"), (cid, "c")):
        await acquire(tx, agent, resource)
    await wait(tx, ann, "b/x")
    await wait(tx, bob, "c")
    before = await tx.events()
    with pytest.raises(Conflict) as raised:
        await wait(tx, cid, "a")
    assert raised.value.code == "ZC313"
    steps = json.loads(raised.value.detail or "")["cycle"]
    assert [(c["agent"], c["waits_for"], c["of_agent"], c["locked"]) for c in steps] == [
        ("cid", "a", "ann", "a"),
        ("ann", "b/x", "bob", "b/"),
        ("bob", "c", "cid", "c"),
    ]
    for word in ("ann", "bob", "cid", "b/"):
        assert word in raised.value.message
    assert await tx.events() == before
    assert await waiting(tx) == ["ann", "bob"]


async def test_two_that_share_cannot_both_wait_to_be_exclusive(tx: Transaction) -> None:
    ann, bob, _, _ = await crew(tx)
    await acquire(tx, ann, "a", shared=True)
    (theirs,) = await acquire(tx, bob, "a", shared=True)
    ticket = await wait(tx, ann, "a")
    with pytest.raises(Conflict) as raised:
        await wait(tx, bob, "a")
    assert raised.value.code == "ZC313"
    await release(tx, bob, theirs)
    got = await poll(tx, ann, ticket)
    assert (got.granted, got.mode) == (True, "exclusive")
    assert await tx.connection.fetchval("select count(*) from coordinator.locks") == 1


async def test_a_cycle_through_the_queue_is_detected(tx: Transaction) -> None:
    ann, bob, cid, _ = await crew(tx)
    await acquire(tx, ann, "a")
    await acquire(tx, cid, "c")
    await wait(tx, bob, "a", "b")
    await wait(tx, ann, "c")
    with pytest.raises(Conflict) as raised:  # behind bob, who waits for ann, who waits for cid
        await wait(tx, cid, "b")
    assert raised.value.code == "ZC313"


async def test_the_view_shows_who_waits_for_whom(tx: Transaction) -> None:
    ann, bob, cid, _ = await crew(tx)
    await acquire(tx, ann, "src/")
    await wait(tx, bob, "src/a.py")
    await wait(tx, cid, "src/*.py")
    rows = await tx.connection.fetch(
        "select agent, for_agent, for_resource, for_ticket is null as holds from coordinator.lock_waits_for order by 1, 2"
    )
    assert [tuple(r) for r in rows] == [
        ("bob", "ann", "src/", True), ("cid", "ann", "src/", True), ("cid", "bob", "src/a.py", False),
    ]  # fmt: skip
    names = [w.agent for w in await tx.run(locks.ListWaiting(project="default", resource="src/a.py"))]
    assert names == ["bob", "cid"]


async def test_waiters_with_another_number_of_slots_are_rejected(tx: Transaction) -> None:
    ann, bob, cid, _ = await crew(tx)
    (held,) = await acquire(tx, ann, "name:gpu", slots=1)
    await wait(tx, bob, "name:gpu", slots=1)
    with pytest.raises(Conflict) as raised:
        await wait(tx, cid, "name:gpu", slots=2)
    assert raised.value.code == "ZC314"
    await release(tx, ann, held)
    assert await types(tx) == ["lock.granted", "lock.waiting", "lock.released", "lock.granted"]


async def test_no_more_than_a_thousand_wait_for_one_resource(tx: Transaction) -> None:
    ann, bob, _, _ = await crew(tx)
    await acquire(tx, ann, "a")
    ticket = await wait(tx, bob, "a")
    await tx.connection.execute(
        """
        insert into coordinator.lock_waits (ticket, project_id, resource, kind, mode, agent_id, agent_name, ttl, delay, enqueued_at, expires_at)
        select nextval('coordinator.lock_tickets'), project_id, resource, kind, mode, agent_id, agent_name, ttl, delay, enqueued_at, expires_at
        from coordinator.lock_waits, generate_series(1, 999) where ticket = $1
        """,
        ticket.ticket,
    )
    with pytest.raises(Conflict) as raised:
        await wait(tx, bob, "a")
    assert raised.value.code == "ZC315"


async def test_a_wait_below_a_second_ends_at_its_time_and_none_is_refused_at_once(tx: Transaction) -> None:
    ann, bob, cid, _ = await crew(tx)
    await acquire(tx, ann, "a", ttl=s(100), wait=s(0.2))
    ticket = await wait(tx, bob, "a", wait=s(0.2))
    assert not (await poll(tx, bob, ticket)).granted
    with pytest.raises(Conflict) as raised:
        await wait(tx, cid, "a", wait=s(0))
    assert raised.value.code == "ZC310"
    assert await waiting(tx) == ["bob"]
    await tx.set_clock(s(60))
    with pytest.raises(WaitTimedOut):
        await poll(tx, bob, ticket)
    for value in (-0.1, 86401):
        with pytest.raises(InvalidArgument) as refused:
            await wait(tx, cid, "b", wait=s(value))
        assert refused.value.hint

"""Owners below an agent: who excludes whom, who may use what, and how often each has to release."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest

from coordinator.errors import Conflict, InvalidArgument, NotFound, WaitTimedOut
from coordinator.model.agent import Agent
from coordinator.model.lock import Grant
from coordinator.operations import agents, locks
from tests.conftest import Transaction
from tests.sql.lock.test_lock import acquire, register, s, tx

__all__ = ["tx"]


async def owners(tx: Transaction, resource: str = "a") -> list[str]:
    rows = await tx.connection.fetch(
        "select owner from coordinator.lock_holders where resource = $1 order by fencing_token", resource
    )
    return [row["owner"] for row in rows]


async def release(tx: Transaction, agent: Agent, *grants: Grant, **options: object) -> None:
    for grant in grants:
        await tx.run(
            locks.Release(
                project="default", resources=[grant.resource], agent=agent.id, tokens=[grant.fencing_token or 0],
                **options,  # type: ignore[arg-type]
            )
        )  # fmt: skip


async def poll(tx: Transaction, agent: Agent, ticket: int | None) -> Grant:
    return (await tx.run(locks.Poll(project="default", ticket=ticket or 0, agent=agent.id)))[0]


@pytest.mark.parametrize("resource", ["a", "name:x", "src/", "src/*.py"])
async def test_owners_of_one_agent_exclude_each_other_and_end_separately(tx: Transaction, resource: str) -> None:
    ann = await register(tx, "ann")
    (first,) = await acquire(tx, ann, resource, owner="one")
    with pytest.raises(Conflict, match='owner "one" of the same agent') as raised:
        await acquire(tx, ann, resource, owner="two")
    assert raised.value.code == "ZC310"
    with pytest.raises(Conflict):
        await acquire(tx, ann, resource)  # the agent is above its owners, not below them
    (waiting,) = await acquire(tx, ann, resource, owner="two", wait=s(60))
    assert not waiting.granted
    assert await tx.run(locks.Cancel(project="default", ticket=waiting.ticket or 0, agent=ann.id))
    assert await owners(tx, resource) == ["one"]
    (waiting,) = await acquire(tx, ann, resource, owner="two", wait=s(60))
    await release(tx, ann, first)
    assert (await poll(tx, ann, waiting.ticket)).granted
    assert await owners(tx, resource) == ["two"]


async def test_an_owner_may_use_what_those_above_it_hold_and_siblings_exclude_each_other(tx: Transaction) -> None:
    ann, bob = await register(tx, "ann"), await register(tx, "bob")
    (top,) = await acquire(tx, ann, "src/")
    (session,) = await acquire(tx, ann, "src/a", owner="s")
    (part,) = await acquire(tx, ann, "src/a", owner="s/one")
    for stranger in ("s/two", "s2", "s/on"):
        with pytest.raises(Conflict):
            await acquire(tx, ann, "src/a", owner=stranger)
    with pytest.raises(Conflict):
        await acquire(tx, ann, "src/", owner="t")  # overlaps what s holds
    await release(tx, ann, session, top)
    assert await owners(tx, "src/a") == ["s/one"]
    with pytest.raises(Conflict):
        await acquire(tx, bob, "src/a")
    await release(tx, ann, part)
    await acquire(tx, bob, "src/a")


async def test_owners_of_one_agent_hold_several_slots(tx: Transaction) -> None:
    ann = await register(tx, "ann")
    slots = [(await acquire(tx, ann, "name:gpu", owner=owner, slots=2))[0].slot for owner in ("s", "s/one")]
    assert slots == [1, 2]
    with pytest.raises(Conflict):
        await acquire(tx, ann, "name:gpu", owner="s/two", slots=2)


async def test_owners_upgrade_separately(tx: Transaction) -> None:
    ann = await register(tx, "ann")
    (one,) = await acquire(tx, ann, "a", owner="one", shared=True)
    await acquire(tx, ann, "a", owner="two", shared=True)
    with pytest.raises(Conflict):
        await acquire(tx, ann, "a", owner="two")
    await release(tx, ann, one)
    (grant,) = await acquire(tx, ann, "a", owner="two")
    assert grant.mode == "exclusive"


async def test_a_named_owner_releases_as_often_as_it_acquired(tx: Transaction) -> None:
    ann = await register(tx, "ann")
    first, again = uuid4(), uuid4()
    (one,) = await acquire(tx, ann, "a", owner="s", request_id=first)
    (two,) = await acquire(tx, ann, "a", owner="s", request_id=again, ttl=s(300))
    await acquire(tx, ann, "a", owner="s", request_id=again)  # a repetition does not count
    assert two.fencing_token == one.fencing_token
    await release(tx, ann, two, request_id=again)
    with pytest.raises(Conflict):
        await release(tx, ann, two, request_id=again)  # nor does a repeated release
    assert await owners(tx) == ["s"]
    await release(tx, ann, one)
    assert await owners(tx) == []


async def test_the_agent_itself_acquires_again_without_harm(tx: Transaction) -> None:
    ann = await register(tx, "ann")
    (one,) = await acquire(tx, ann, "a", request_id=uuid4())
    mine = uuid4()
    await acquire(tx, ann, "a", request_id=mine)
    with pytest.raises(Conflict):
        await release(tx, ann, one, request_id=mine)  # that request was granted nothing new
    await release(tx, ann, one)
    assert await owners(tx) == []


async def test_a_renewal_does_not_shorten_what_another_acquisition_relies_on(tx: Transaction) -> None:
    ann = await register(tx, "ann")
    (one,) = await acquire(tx, ann, "a", owner="s", ttl=s(300))
    await acquire(tx, ann, "a", owner="s", ttl=s(10))
    (renewal,) = await tx.run(
        locks.Renew(project="default", resources=["a"], agent=ann.id, tokens=[one.fencing_token or 0], ttl=s(10))
    )
    assert renewal.expires_at == one.expires_at


async def test_a_deadlock_is_found_between_owners_of_agents_and_of_one_agent(tx: Transaction) -> None:
    ann, bob = await register(tx, "ann"), await register(tx, "bob")
    await acquire(tx, ann, "a", owner="one")
    await acquire(tx, ann, "b", owner="two")
    await acquire(tx, bob, "c")
    await acquire(tx, ann, "b", owner="one", wait=s(60))
    with pytest.raises(Conflict, match='"ann/two" waits for "a" of "ann/one"') as raised:
        await acquire(tx, ann, "a", owner="two", wait=s(60))
    assert raised.value.code == "ZC313"
    await acquire(tx, bob, "a", wait=s(60))  # behind one, which waits for two, which waits for nobody
    with pytest.raises(Conflict) as raised:
        await acquire(tx, ann, "c", owner="two", wait=s(60))
    assert raised.value.code == "ZC313"
    await acquire(tx, ann, "c", owner="three", wait=s(60))  # holds nothing


async def test_an_owner_waits_with_those_below_it(tx: Transaction) -> None:
    ann, bob = await register(tx, "ann"), await register(tx, "bob")
    await acquire(tx, ann, "a", owner="s")
    await acquire(tx, bob, "b")
    await acquire(tx, ann, "b", owner="s/part", wait=s(60))
    with pytest.raises(Conflict) as raised:
        await acquire(tx, bob, "a", wait=s(60))
    assert raised.value.code == "ZC313"


async def test_a_deadlock_is_found_through_what_is_around_a_request(tx: Transaction) -> None:
    ann, bob = await register(tx, "ann"), await register(tx, "bob")
    await acquire(tx, ann, "a", owner="outer")
    await acquire(tx, bob, "b")
    await acquire(tx, ann, "b", owner="inner", wait=s(60), within=["other", "outer"])
    with pytest.raises(Conflict, match=r'"bob" waits for "a" of "ann/outer"') as raised:
        await acquire(tx, bob, "a", wait=s(60))
    assert raised.value.code == "ZC313"


async def test_a_request_that_closes_a_cycle_around_it_is_refused(tx: Transaction) -> None:
    ann, bob = await register(tx, "ann"), await register(tx, "bob")
    await acquire(tx, ann, "a", owner="outer")
    await acquire(tx, bob, "b")
    await acquire(tx, bob, "a", wait=s(60))
    await acquire(tx, ann, "b", owner="apart", wait=s(60))  # outer may release it meanwhile
    with pytest.raises(Conflict) as raised:
        await acquire(tx, ann, "b", owner="inner", wait=s(60), within=["outer"])
    assert raised.value.code == "ZC313"
    with pytest.raises(Conflict) as raised:
        await acquire(tx, ann, "a", owner="inner", wait=s(60), within=["outer"])
    assert raised.value.code == "ZC313"


async def test_an_agent_that_waits_for_its_own_owner_is_not_a_deadlock(tx: Transaction) -> None:
    ann = await register(tx, "ann")
    (one,) = await acquire(tx, ann, "a", owner="one")
    (waiting,) = await acquire(tx, ann, "a", wait=s(60))
    await release(tx, ann, one)
    assert (await poll(tx, ann, waiting.ticket)).granted


async def test_all_owners_end_with_their_agent(tx: Transaction) -> None:
    ann, bob = await register(tx, "ann"), await register(tx, "bob")
    await acquire(tx, ann, "a", owner="one")
    await acquire(tx, ann, "a", owner="two", wait=s(60))
    (waiting,) = await acquire(tx, bob, "a", wait=s(60))
    await tx.run(agents.Deregister(agent=ann.id))
    assert (await poll(tx, bob, waiting.ticket)).granted


@pytest.mark.parametrize("owner", [" s", "s/", "/s", "s//t", "a\nb", "x" * 201, "s" * 100 + "/" + "t" * 100])
async def test_a_malformed_owner_is_refused(tx: Transaction, owner: str) -> None:
    ann = await register(tx, "ann")
    with pytest.raises(InvalidArgument) as raised:
        await acquire(tx, ann, "a", owner=owner)
    assert raised.value.hint


async def test_a_check_compares_agents(tx: Transaction) -> None:
    ann, bob = await register(tx, "ann"), await register(tx, "bob")
    await acquire(tx, ann, "a", owner="s")
    for agent, state in ((ann, "mine"), (bob, "held")):
        (check,) = await tx.run(locks.Check(project="default", paths=["a"], agent=agent.id))
        assert (check.state, check.owner) == (state, "s")


async def test_the_slots_of_a_held_lock_change(tx: Transaction) -> None:
    ann, bob = await register(tx, "ann"), await register(tx, "bob")

    async def resize(slots: int, resource: str = "name:gpu") -> int:
        return await tx.run(locks.Resize(project="default", resource=resource, slots=slots))

    with pytest.raises(NotFound):
        await resize(3)
    (held,) = await acquire(tx, ann, "name:gpu", slots=1)
    waiting = [(await acquire(tx, bob, "name:gpu", owner=o, slots=1, wait=s(60)))[0] for o in ("one", "two")]
    assert await resize(2) == 1
    assert [(await poll(tx, bob, ticket.ticket)).granted for ticket in waiting] == [True, False]
    with pytest.raises(Conflict, match="2 slots, not 1"):
        await acquire(tx, bob, "name:gpu", slots=1)
    assert await resize(1) == 2
    await release(tx, ann, held)
    assert not (await poll(tx, bob, waiting[1].ticket)).granted  # one still holds a slot
    await acquire(tx, ann, "name:plain")
    with pytest.raises(Conflict) as raised:
        await resize(2, "name:plain")
    assert raised.value.code == "ZC314"


async def test_a_wait_ends_with_one_error_which_names_the_blocking_agent(tx: Transaction) -> None:
    ann, bob = await register(tx, "ann"), await register(tx, "bob")
    await acquire(tx, ann, "a", ttl=s(600))
    (waiting,) = await acquire(tx, bob, "a", wait=s(1), ttl=s(600))
    await tx.set_clock(s(2))
    with pytest.raises(WaitTimedOut, match='locked by agent "ann"'):
        await poll(tx, bob, waiting.ticket)
    await tx.run(locks.Expire())
    with pytest.raises(WaitTimedOut):
        await poll(tx, bob, waiting.ticket)
    with pytest.raises(NotFound) as raised:
        await poll(tx, bob, (waiting.ticket or 0) + 1)
    assert raised.value.code == "ZC208"


async def test_a_lock_lives_as_long_as_its_answer_says_even_if_nobody_sends_heartbeats(tx: Transaction) -> None:
    ann, bob = await register(tx, "ann"), await register(tx, "bob")

    async def lives(agent: Agent) -> bool:
        return await tx.connection.fetchval(
            "select expires_at > coordinator.now_utc() from coordinator.agents where id = $1", agent.id
        )

    (held,) = await acquire(tx, ann, "a", ttl=s(300))
    (waiting,) = await acquire(tx, bob, "a", wait=s(3600), ttl=s(600))
    await tx.set_clock(s(290))
    await tx.run(agents.Heartbeat(agent=ann.id))
    await tx.run(locks.Renew(project="default", resources=["a"], agent=ann.id, tokens=[held.fencing_token or 0]))
    await poll(tx, bob, waiting.ticket)
    await tx.set_clock(s(580))
    assert await lives(ann)
    assert await lives(bob)
    await release(tx, ann, held)
    assert (await poll(tx, bob, waiting.ticket)).granted
    await tx.set_clock(s(1170))
    assert await lives(bob)


async def test_an_agent_whose_life_covers_the_lease_is_not_written(tx: Transaction) -> None:
    ann = await tx.run(agents.Register(project="default", name="ann", ttl=timedelta(seconds=10)))

    async def version() -> object:
        return await tx.connection.fetchval("select ctid from coordinator.agents where id = $1", ann.id)

    (held,) = await acquire(tx, ann, "a", ttl=s(300))
    before = await version()
    await tx.set_clock(s(100))
    await acquire(tx, ann, "b", ttl=s(300))
    await tx.run(locks.Renew(project="default", resources=["a"], agent=ann.id, tokens=[held.fencing_token or 0]))
    assert await version() == before

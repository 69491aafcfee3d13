from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import asyncpg
import msgspec
import pytest
import pytest_asyncio

from coordinator.model.agent import KnownAgent
from coordinator.operations import agents, signals
from coordinator.operations.work import ProcessRegister
from tests.conftest import Transaction, admin
from tests.sql.refusal import refused
from tests.waiting import until_true


@pytest_asyncio.fixture(loop_scope="session")
async def settled(tx: Transaction) -> Transaction:
    """The server's first ten seconds are over."""
    await tx.connection.execute(
        "create or replace function coordinator.server_settled() returns boolean language sql stable return true"
    )
    return tx


async def test_each_start_of_an_agent_has_an_id_of_its_own(tx: Transaction) -> None:
    first = await tx.run(agents.Register(project="default", name="a"))
    second = await tx.run(agents.Register(project="default", name="a"))
    assert first.id != second.id
    assert [agent.name for agent in await tx.run(agents.List(project="default"))] == ["a", "a"]


async def test_register_returns_what_was_given(tx: Transaction) -> None:
    made = await tx.run(
        agents.Register(
            project="default",
            name="a",
            role="coder",
            job_types=["build", "test"],
            labels=["gpu", "eu"],
            metadata={"pid": 1},
            ttl=timedelta(minutes=1),
        )
    )
    assert (made.role, made.job_types, made.labels, made.metadata, made.ttl) == (
        "coder",
        ["build", "test"],
        ["gpu", "eu"],
        {"pid": 1},
        timedelta(minutes=1),
    )
    assert made.expires_at - made.heartbeat_at == timedelta(minutes=1)
    (listed,) = await tx.run(agents.List(project="default"))
    assert listed == KnownAgent(*msgspec.structs.astuple(made), ended_at=None, end_reason=None)


async def test_list_is_by_name_and_can_be_of_one_role(tx: Transaction) -> None:
    for name, role in (("c", "x"), ("a", "y"), ("b", "x")):
        await tx.run(agents.Register(project="default", name=name, role=role))
    assert [a.name for a in await tx.run(agents.List(project="default"))] == ["a", "b", "c"]
    assert [a.name for a in await tx.run(agents.List(project="default", role="x"))] == ["b", "c"]
    assert [a.name for a in await tx.run(agents.List(project="default", limit=1))] == ["a"]


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        (agents.Register(project="default", name=""), "ZC101"),
        (agents.Register(project="default", name="a\tb"), "ZC103"),
        (agents.Register(project="default", name="a", role=" r"), "ZC103"),
        (agents.Register(project="default", name="a", role=""), "ZC101"),
        (agents.Register(project="default", name="a", job_types=["a\nb"]), "ZC103"),
        (agents.Register(project="default", name="a", labels=["a\nb"]), "ZC103"),
        (agents.Register(project="default", name="a", ttl=timedelta(0)), "ZC104"),
        (agents.Register(project="default", name="a", ttl=timedelta(days=365000)), "ZC104"),
        (agents.Register(project="default", name="a", process=2_000_000_000), "ZC202"),
        (agents.List(project="default", limit=0), "ZC104"),
        (agents.Heartbeat(agent=uuid4()), "ZC202"),
        (agents.Deregister(agent=uuid4()), "ZC202"),
    ],
)
async def test_bad_input_is_refused(tx: Transaction, operation: object, code: str) -> None:
    await refused(tx, operation, code)  # type: ignore[arg-type]


async def test_metadata_must_be_an_object(tx: Transaction) -> None:
    await refused(tx, agents.Register(project="default", name="a", metadata=[1]), "ZC105")  # type: ignore[arg-type]


async def test_job_types_and_labels_may_be_null_in_sql(tx: Transaction) -> None:
    row = await tx.connection.fetchrow(
        "select * from coordinator.agent_register('default', 'a', p_job_types => null, p_labels => null)"
    )
    assert (row["job_types"], row["labels"]) == ([], [])


async def test_an_agent_that_ended_keeps_its_labels(tx: Transaction) -> None:
    made = await tx.run(agents.Register(project="default", name="a", job_types=["build"], labels=["gpu"]))
    (event,) = await tx.events()
    assert event["data"]["labels"] == ["gpu"]
    await tx.run(agents.Deregister(agent=made.id))
    (ended,) = await tx.run(agents.List(project="default", ended=True))
    assert (ended.job_types, ended.labels) == (["build"], ["gpu"])


async def test_a_heartbeat_lengthens_a_life_and_makes_no_event(tx: Transaction) -> None:
    made = await tx.run(agents.Register(project="default", name="a"))
    await tx.set_clock(timedelta(seconds=20))
    count = len(await tx.events())
    until = await tx.run(agents.Heartbeat(agent=made.id))
    (listed,) = await tx.run(agents.List(project="default"))
    assert until == listed.expires_at == listed.heartbeat_at + timedelta(seconds=30)
    assert until > made.expires_at
    assert len(await tx.events()) == count


async def test_a_silent_agent_is_reaped_with_what_it_held(settled: Transaction) -> None:
    quiet = await settled.run(agents.Register(project="default", name="quiet", ttl=timedelta(seconds=30)))
    lively = await settled.run(agents.Register(project="default", name="lively", ttl=timedelta(seconds=60)))
    await settled.run(signals.Set(project="default", key="q", value=1, agent=quiet.id, ephemeral=True))
    await settled.run(signals.Set(project="default", key="l", value=1, agent=lively.id, ephemeral=True))
    assert (await settled.run(agents.Reap())).reaped == 0
    await settled.set_clock(timedelta(seconds=40))
    done = await settled.run(agents.Reap())
    assert (done.reaped, done.agents) == (1, [f"{quiet.name} ({quiet.id}): expired"])
    assert [a.name for a in await settled.run(agents.List(project="default"))] == ["lively"]
    assert [s.key for s in await settled.run(signals.List(project="default"))] == ["l"]
    ended, reaped = (await settled.events())[-2:]
    assert (ended["type"], ended["key"], ended["actor"]) == ("signal.ended", "q", "coordinator")
    assert (reaped["type"], reaped["data"]["reason"], reaped["key"]) == ("agent.reaped", "expired", str(quiet.id))
    await refused(settled, agents.Heartbeat(agent=quiet.id), "ZC202")


async def test_nobody_is_reaped_while_everybody_reconnects_to_a_new_server(tx: Transaction) -> None:
    await tx.connection.execute(
        "create or replace function coordinator.server_settled() returns boolean language sql stable return false"
    )
    await tx.run(agents.Register(project="default", name="a"))
    await tx.set_clock(timedelta(hours=1))
    assert (await tx.run(agents.Reap())).reaped == 0


async def test_reap_takes_at_most_its_limit(settled: Transaction) -> None:
    for name in "abc":
        await settled.run(agents.Register(project="default", name=name))
    await settled.set_clock(timedelta(hours=1))
    assert [(await settled.run(agents.Reap(limit=2))).reaped for _ in range(3)] == [2, 1, 0]


class Process:
    """A registered process in a session of its own, that can be made to die."""

    def __init__(self, session: asyncpg.Connection, id: int) -> None:
        self.session = session
        self.id = id

    async def die(self, seen_by: Transaction) -> None:
        await self.session.close()
        await until_true(seen_by.connection, "select not coordinator.process_alive($1)", self.id)


@pytest_asyncio.fixture(loop_scope="session")
async def process(shared_url: str) -> AsyncIterator[Process]:
    session = await asyncpg.connect(shared_url)
    yield Process(session, await session.fetchval("select coordinator.process_register('client', 'here:1')"))
    await session.close()
    await admin(shared_url, "delete from coordinator.processes")


async def test_an_agent_ends_with_its_process_after_a_moment_of_grace(process: Process, settled: Transaction) -> None:
    await settled.run(agents.Register(project="default", name="a", process=process.id))
    assert (await settled.run(agents.Reap())).reaped == 0
    await process.die(settled)
    first = await settled.run(agents.Reap())
    assert (first.reaped, first.missing) == (0, 1)
    await settled.connection.execute(
        "update coordinator.processes set missing_at = missing_at - interval '0.8 seconds'"
    )
    second = await settled.run(agents.Reap())
    assert (second.reaped, second.missing) == (1, 0)
    assert (await settled.events())[-1]["data"]["reason"] == "process died"
    assert await settled.connection.fetchval("select count(*) from coordinator.processes") == 0


async def test_an_agent_that_joins_ends_with_the_process_that_it_last_named(
    process: Process, settled: Transaction, shared_url: str
) -> None:
    async def joined(process: int | None) -> int | None:
        made = await settled.run(agents.Join(project="default", name="a", process=process))
        return await settled.connection.fetchval("select process_id from coordinator.agents where id = $1", made.id)

    assert await joined(None) is None
    other = await asyncpg.connect(shared_url)
    try:
        second = await other.fetchval("select coordinator.process_register('client', 'here:2')")
        assert [await joined(one) for one in (second, process.id, None, 2_000_000_000)] == [second, *[process.id] * 3]
        await process.die(settled)
        await settled.run(agents.Reap())
        await settled.connection.execute("update coordinator.processes set missing_at = missing_at - interval '1 hour'")
        assert await joined(second) == second  # resumed in another terminal
        assert (await settled.run(agents.Reap())).reaped == 0
        assert await joined(process.id) == second
    finally:
        await other.close()
    await until_true(settled.connection, "select not coordinator.process_alive($1)", second)
    await settled.run(agents.Reap())
    await settled.connection.execute("update coordinator.processes set missing_at = missing_at - interval '1 hour'")
    assert (await settled.run(agents.Reap())).reaped == 1


async def test_a_process_that_reconnects_keeps_its_agents(process: Process, settled: Transaction) -> None:
    await settled.run(agents.Register(project="default", name="a", process=process.id))
    await process.die(settled)
    assert (await settled.run(agents.Reap())).missing == 1
    assert await settled.run(ProcessRegister(kind="client", name="here:1", id=process.id)) == process.id
    await settled.connection.execute("update coordinator.processes set missing_at = missing_at - interval '1 hour'")
    again = await settled.run(agents.Reap())
    assert (again.reaped, again.missing) == (0, 0)


async def test_a_process_whose_id_was_given_again_gets_a_new_one(process: Process, settled: Transaction) -> None:
    """A fail-over lost its row, and the id went to another process, which has not reconnected yet."""
    await process.die(settled)
    assert await settled.run(ProcessRegister(kind="client", name="there:2", id=process.id)) != process.id


async def test_deregister_emits_who_it_was(tx: Transaction) -> None:
    made = await tx.run(agents.Register(project="default", name="a", role="r"))
    assert await tx.run(agents.Deregister(agent=made.id))
    last = (await tx.events())[-1]
    assert (last["type"], last["actor"], last["data"]) == ("agent.deregistered", "a", {"name": "a", "role": "r"})
    await refused(tx, agents.Deregister(agent=made.id), "ZC202")

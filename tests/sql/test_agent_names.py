"""Agents are given by name or id, and one that is not registered is an error that says what became of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
import pytest_asyncio

from coordinator import operations
from coordinator.errors import CoordinatorError
from coordinator.model.agent import Agent
from coordinator.model.agent_ref import AgentRef, takes_agent
from coordinator.model.operation import Operation
from coordinator.model.page import Page, walk
from coordinator.operations import agents, directives, locks, signals
from coordinator.operations.transactions import Run
from tests.conftest import Transaction
from tests.samples import sample
from tests.sql.refusal import refused

BY_AGENT = [
    kind
    for kind in operations.every()
    if any(field.name == "agent" and takes_agent(field.type) for field in msgspec.structs.fields(kind))
]


@pytest_asyncio.fixture(loop_scope="session")
async def settled(tx: Transaction) -> Transaction:
    await tx.connection.execute(
        "create or replace function coordinator.server_settled() returns boolean language sql stable return true"
    )
    return tx


async def registered(tx: Transaction, name: str = "coder-1", **fields: Any) -> Agent:
    return await tx.run(agents.Register(project="default", name=name, **fields))


async def outcome(tx: Transaction, operation: Operation[Any]) -> object:
    undone = tx.connection.transaction()
    await undone.start()
    try:
        answer = await tx.run(operation)
        return answer if isinstance(answer, bool | int) else type(answer)
    except CoordinatorError as error:
        return error.code, error.message
    finally:
        await undone.rollback()


def test_every_operation_that_names_an_agent_takes_a_name() -> None:
    assert {"lock_acquire", "lock_renew", "lock_list", "signal_set", "agent_heartbeat"} <= {
        kind.function for kind in BY_AGENT
    }
    for kind in operations.every():
        for field in msgspec.structs.fields(kind):
            assert (
                kind.internal or field.name != "agent" or field.type in (str, str | None) or takes_agent(field.type)
            ), kind


@pytest.mark.parametrize("kind", BY_AGENT, ids=lambda kind: kind.function)
async def test_a_name_does_what_the_id_does(tx: Transaction, kind: type[Operation[Any]]) -> None:
    made = await registered(tx)
    assert await outcome(tx, sample(kind, project="default", agent=made.name)) == await outcome(
        tx, sample(kind, project="default", agent=made.id)
    )


@pytest.mark.parametrize("kind", BY_AGENT, ids=lambda kind: kind.function)
async def test_an_unknown_name_is_an_error_with_what_was_probably_meant(
    tx: Transaction, kind: type[Operation[Any]]
) -> None:
    await registered(tx)
    error = await refused(tx, sample(kind, project="default", agent="coder-l"), "ZC202")
    assert error.message == 'no agent in project "default" is called "coder-l"'
    assert (error.hint or "").startswith('Did you mean "coder-1"?')


async def test_without_a_similar_name_the_hint_says_where_names_are(tx: Transaction) -> None:
    error = await refused(tx, agents.Find(project="default", agent="x"), "ZC202")
    assert error.hint == 'See "coordinator agent list --all".'


async def test_a_name_that_several_agents_have_asks_for_an_id(tx: Transaction) -> None:
    ids = sorted([(await registered(tx)).id, (await registered(tx)).id])
    error = await refused(tx, agents.Find(project="default", agent="coder-1"), "ZC105")
    assert (error.message, error.hint) == ('2 agents are called "coder-1"', f"Give an id: {ids[0]}, {ids[1]}")


async def test_a_name_is_looked_up_in_the_project_of_the_call(tx: Transaction) -> None:
    made = await registered(tx)
    await tx.connection.execute("select coordinator.project_create('shop')")
    assert await tx.run(agents.Find(project="default", agent="coder-1")) == made.id
    await refused(tx, agents.Find(project="shop", agent="coder-1"), "ZC202")
    error = await refused(tx, agents.Heartbeat(agent="coder-1"), "ZC101")
    assert "the project" in (error.hint or "")
    await refused(tx, agents.Heartbeat(agent=made.id, project="shop"), "ZC202")
    await refused(tx, agents.Deregister(agent=made.id, project="shop"), "ZC202")
    await refused(tx, locks.List(project="shop", agent=made.id), "ZC202")


async def test_a_part_of_a_transaction_names_its_agent(tx: Transaction) -> None:
    made = await registered(tx)
    signal = {"verb": "signal_set", "key": "k", "value": 1, "agent": "coder-1", "ephemeral": True}
    await tx.run(Run(project="default", writes=[signal]))
    assert (await tx.run(signals.Get(project="default", key="k"))).agent_id == made.id
    error = await refused(tx, Run(project="default", writes=[{**signal, "agent": "coder-l"}]), "ZC202")
    assert "Did you mean" in (error.hint or "")


@pytest.mark.parametrize("end", ["expired", "deregistered"])
async def test_the_calls_of_an_ended_agent_report_how_it_ended(settled: Transaction, end: str) -> None:
    tx = settled
    await tx.set_clock(timedelta(0))
    made = await registered(tx)
    (grant,) = await tx.run(locks.Acquire(project="default", resources=["name:x"], agent=made.id))
    await tx.set_clock(timedelta(minutes=5))
    if end == "expired":
        assert (await tx.run(agents.Reap())).reaped == 1
    else:
        await tx.run(agents.Deregister(agent=made.id))
    became = f'agent "coder-1" ({made.id}) {"was reaped" if end == "expired" else "deregistered"} at '
    given: AgentRef
    for given in (made.id, "coder-1"):
        for operation in (
            agents.Heartbeat(agent=given, project="default"),
            agents.Deregister(agent=given, project="default"),
            locks.Acquire(project="default", resources=["name:x"], agent=given),
            locks.Poll(project="default", ticket=1, agent=given),
            locks.List(project="default", agent=given),
            signals.Set(project="default", key="k", value=1, agent=given),
        ):
            error = await refused(tx, operation, "ZC202")
            assert error.message.startswith(became)
            assert ("no heartbeat" in error.message) == (end == "expired")
            assert msgspec.json.decode(error.detail or "")["reason"] == end
    renew = locks.Renew(project="default", resources=["name:x"], agent=made.id, tokens=[grant.fencing_token or 0])
    assert f'of agent {made.id} "coder-1", which ' in (await refused(tx, renew, "ZC311")).message


async def test_agents_that_ended_are_listed_page_by_page_until_they_are_pruned(settled: Transaction) -> None:
    tx = settled
    await tx.set_clock(timedelta(0))
    for name in ("a", "b", "c"):
        await registered(tx, name, role="r")
        await tx.run(agents.Deregister(agent=(await registered(tx, name)).id))
    await tx.set_clock(timedelta(minutes=1))
    await tx.run(agents.Reap())
    living = await registered(tx, "b")

    async def listed(limit: int) -> list[tuple[str, UUID, str | None]]:
        rows: Page[Any] = Page()
        async for page in walk(tx.run, agents.List(project="default", ended=True, limit=limit)):
            assert len(page) <= limit
            rows += page
        return [(row.name, row.id, row.end_reason) for row in rows]

    rows = await listed(1000)
    assert rows == sorted(rows)
    assert rows == await listed(1) == await listed(2)
    ends = [(name, end) for name, _, end in rows]
    assert sorted(ends, key=str) == sorted(
        [*((name, end) for name in "abc" for end in ("deregistered", "expired")), ("b", None)], key=str
    )
    assert [row.id for row in await tx.run(agents.List(project="default"))] == [living.id]
    known = await tx.connection.fetch("select name, id, end_reason from coordinator.agents_known order by name, id")
    assert [tuple(row) for row in known] == rows
    assert len(await tx.run(agents.List(project="default", role="r", ended=True))) == 3
    assert await tx.run(agents.Prune()) == 0
    await tx.set_clock(timedelta(days=31))
    assert [await tx.run(agents.Prune(limit=4)) for _ in range(3)] == [4, 2, 0]


async def test_who_may_not_see_a_project_does_not_learn_of_its_agents(tx: Transaction) -> None:
    await tx.connection.execute("select coordinator.project_create('shop')")
    made = await tx.run(agents.Register(project="shop", name="secret"))
    await tx.run(agents.Deregister(agent=made.id))
    assert '"secret"' in (await refused(tx, agents.Heartbeat(agent=made.id), "ZC202")).message
    await tx.connection.execute(
        "create or replace function coordinator.projects_visible() returns text[] language sql stable return '{default}'::text[]"
    )
    assert '"secret"' not in (await refused(tx, agents.Heartbeat(agent=made.id), "ZC202")).message


async def test_a_deleted_project_leaves_no_ended_agents(tx: Transaction) -> None:
    await tx.connection.execute("select coordinator.project_create('shop')")
    await tx.run(agents.Deregister(agent=(await tx.run(agents.Register(project="shop", name="a"))).id))
    await tx.connection.execute("select coordinator.project_delete('shop')")
    assert await tx.connection.fetchval("select count(*) from coordinator.agents_ended") == 0


async def test_an_inbox_and_an_answer_take_a_name_or_an_id_of_a_known_agent(tx: Transaction) -> None:
    made = await registered(tx)
    sent = await tx.run(directives.Send(project="default", body="x", to_agent=str(made.id)))
    assert (sent.to_agent, sent.recipients, sent.meant) == ("coder-1", 1, None)
    for agent in ("coder-1", str(made.id)):
        assert [d.id for d in await tx.run(directives.Inbox(project="default", agent=agent))] == [sent.id]
    answer = directives.Acknowledge(project="default", directive=sent.id, agent=str(made.id))
    assert (await tx.run(answer)).agent == "coder-1"
    for agent in ("coder-l", str(uuid4())):
        await refused(tx, directives.Inbox(project="default", agent=agent), "ZC202")
        await refused(tx, directives.Acknowledge(project="default", directive=sent.id, agent=agent), "ZC202")
    await refused(tx, directives.Send(project="default", body="x", to_agent=str(uuid4())), "ZC202")
    await tx.run(directives.Send(project="default", body="x", to_agent="coder-l"))
    assert await tx.run(directives.Inbox(project="default", agent="coder-l"))  # something was sent to it
    await tx.run(agents.Deregister(agent=made.id))
    assert await tx.run(directives.Inbox(project="default", agent="coder-1")) == []  # it ended, and is known
    await tx.connection.execute(
        "select coordinator.token_create('ci', 'agent', repeat('a', 64), 'coo_aaaa', 'default')"
    )
    assert await tx.run(directives.Inbox(project="default", agent="ci")) == []


@pytest.mark.parametrize(
    ("target", "recipients", "meant"),
    [
        ({"to_role": "coder"}, 2, None),
        ({"to_role": "codr"}, 0, "coder"),
        ({"to_role": "tester"}, 0, None),
        ({"to_agent": "coder-1"}, 1, None),
        ({"to_agent": "coder-l"}, 0, "coder-1"),
        ({"everyone": True}, 2, None),
        ({"everyone": True, "actor": "coder-1"}, 1, None),
    ],
)
async def test_sending_says_how_many_receive_it_and_who_was_meant(
    tx: Transaction, target: dict[str, Any], recipients: int, meant: str | None
) -> None:
    for name in ("coder-1", "coder-2"):
        await registered(tx, name, role="coder")
    sent = await tx.run(directives.Send(project="default", body="x", **target))
    assert (sent.recipients, sent.meant) == (recipients, meant)


@pytest.mark.parametrize("target", [{"to_role": "coder"}, {"everyone": True}])
async def test_a_directive_that_nobody_read_is_pending_although_nobody_is_registered(
    tx: Transaction, target: dict[str, Any]
) -> None:
    async def pending() -> list[tuple[str | None, str]]:
        rows = await tx.run(directives.ListPending(project="default"))
        viewed = await tx.connection.fetch("select agent, status from coordinator.directives_pending")
        assert [tuple(row) for row in viewed] == [(row.agent, row.status) for row in rows]
        return [(row.agent, row.status) for row in rows]

    sent = await tx.run(directives.Send(project="default", body="x", **target))
    assert await pending() == [(None, "unseen")]
    made = await registered(tx, role="coder")
    assert await pending() == [("coder-1", "unseen")]
    answer = directives.Acknowledge(project="default", directive=sent.id, agent="coder-1", status="seen")
    await tx.run(answer)
    assert await pending() == [("coder-1", "seen")]
    await tx.run(agents.Deregister(agent=made.id))
    assert await pending() == [(None, "unseen")]  # it was reaped before it answered
    await registered(tx, role="coder")
    await tx.run(msgspec.structs.replace(answer, status="done"))
    assert await pending() == []
    pages = [page async for page in walk(tx.run, directives.ListPending(project="default", limit=1))]
    assert pages == [[]]

"""Briefings: everything that is new, once, whoever asks."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from coordinator.db.connection import mapped_errors
from coordinator.errors import InvalidArgument
from coordinator.model.briefing import BriefingItem
from coordinator.operations import agents, briefings, directives, locks, projects, signals
from tests.conftest import Open, Transaction
from tests.sql.refusal import refused
from tests.waiting import until_blocked

NEWS = "select * from coordinator.briefing_read('default', 'coder', p_news => true)"


async def join(tx: Transaction, name: str, **fields: object) -> str:
    agent = await tx.run(agents.Register(project="default", name=name, ttl=timedelta(hours=1), **fields))  # type: ignore[arg-type]
    return str(agent.id)


async def send(tx: Transaction, body: str, to_agent: str = "coder", priority: int = 0) -> int:
    sent = await tx.run(
        directives.Send(project="default", body=body, to_agent=to_agent, actor="lead", priority=priority)
    )
    return sent.id


async def news(tx: Transaction, agent: str = "coder") -> list[tuple[str, str | None, str | None]]:
    items = await tx.run(briefings.Read(project="default", agent=agent, news=True))
    return [(item.kind, item.key, item.text) for item in items]


async def brief(tx: Transaction, *, again: bool = True) -> list[BriefingItem]:
    return await tx.run(briefings.Read(project="default", agent="coder", again=again))


async def test_a_directive_is_news_once_and_becomes_seen(tx: Transaction) -> None:
    await join(tx, "coder")
    first = await send(tx, "Add tests.")
    assert await news(tx) == [("directive", str(first), "Add tests.")]
    assert await news(tx) == []
    (pending,) = await tx.run(directives.ListPending(project="default"))
    assert (pending.id, pending.agent, pending.status) == (first, "coder", "seen")
    second = await send(tx, "Urgent.", priority=9)
    assert await news(tx) == [("directive", str(second), "Urgent.")]


async def test_a_greeting_repeats_what_was_seen_and_not_answered_unless_it_is_remembered(tx: Transaction) -> None:
    await join(tx, "coder")
    ids = [await send(tx, body) for body in ("one", "two", "three")]
    await news(tx)
    await tx.run(directives.Acknowledge(project="default", directive=ids[0], agent="coder"))
    new = await send(tx, "four")
    assert [item.key for item in await brief(tx, again=False)] == [str(new)]
    assert [item.key for item in await brief(tx)] == [str(ids[1]), str(ids[2]), str(new)]


async def test_of_many_directives_five_are_seen_and_the_rest_counted(tx: Transaction) -> None:
    await join(tx, "coder")
    ids = [await send(tx, f"{n}") for n in range(12)]
    for shown in (ids[:5], ids[5:10], ids[10:]):
        items = await tx.run(briefings.Read(project="default", agent="coder", news=True))
        assert [item.key for item in items] == [str(one) for one in shown]
        assert [item.more for item in items] == [0] * (len(shown) - 1) + [11 - ids.index(shown[-1])]
    assert await news(tx) == []


async def test_watched_signals_are_news_when_others_set_or_delete_them(tx: Transaction) -> None:
    await join(tx, "coder")
    await tx.run(signals.Set(project="default", key="build/state", value="red", actor="ci"))
    watching = await tx.run(
        briefings.Subscribe(project="default", agent="coder", patterns=["build/*", "*/DONE", "100%_x"])
    )
    assert watching.patterns == ["build/*", "*/DONE", "100%_x"]
    assert await news(tx) == []  # what was set before is known
    await tx.run(signals.Set(project="default", key="build/state", value="green", actor="ci"))
    await tx.run(signals.Set(project="default", key="task/7/DONE", value=True, actor="ci"))
    await tx.run(signals.Set(project="default", key="100-x", value=True, actor="ci"))
    await tx.run(signals.Set(project="default", key="build/mine", value=1, actor="coder"))
    assert await news(tx) == [("signal", "build/state", '"green"'), ("signal", "task/7/DONE", "true")]
    assert await news(tx) == []
    await tx.run(signals.Delete(project="default", key="build/state", actor="ci"))
    assert await news(tx) == [("signal", "build/state", None)]
    await tx.run(signals.Set(project="default", key="build/state", value="green", actor="ci"))
    assert await news(tx) == [("signal", "build/state", '"green"')]
    await tx.run(briefings.Subscribe(project="default", agent="coder", patterns=[]))
    await tx.run(signals.Set(project="default", key="build/state", value="red", actor="ci"))
    assert await news(tx) == []


async def test_many_changed_signals_come_in_parts_and_none_is_lost(tx: Transaction) -> None:
    await join(tx, "coder")
    await tx.run(briefings.Subscribe(project="default", agent="coder", patterns=["k/*"]))
    for n in range(12):
        await tx.run(signals.Set(project="default", key=f"k/{n:02}", value=n, actor="ci"))
    told = []
    while items := await news(tx):
        assert len(items) <= 5
        told += [key for _, key, _ in items]
    assert told == [f"k/{n:02}" for n in range(12)]


async def test_an_expired_signal_is_not_set_any_more(tx: Transaction) -> None:
    await join(tx, "coder")
    await tx.run(signals.Set(project="default", key="s", value=1, ttl=timedelta(minutes=1), actor="ci"))
    await tx.run(briefings.Subscribe(project="default", agent="coder", patterns=["s"]))
    await tx.set_clock(timedelta(minutes=2))
    assert await news(tx) == [("signal", "s", None)]


async def test_a_greeting_says_who_is_at_work_and_what_they_hold(tx: Transaction) -> None:
    me = await join(tx, "coder")
    other = await join(tx, "other", metadata={"task": "Fix the login", "worktree": "feature"})
    await tx.run(locks.Acquire(project="default", resources=["src/mine.py"], agent=me))
    await tx.run(locks.Acquire(project="default", resources=["src/a.py"], agent=other))
    found = {item.kind: item for item in await brief(tx)}
    assert set(found) == {"agent", "lock"}
    assert (found["agent"].agent, found["agent"].key, found["agent"].text) == ("other", "feature", "Fix the login")
    assert (found["lock"].key, found["lock"].agent, found["lock"].text) == ("src/a.py", "other", "Fix the login")
    assert await tx.run(briefings.Read(project="default", agent="coder", news=True)) == []


async def test_a_large_project_gives_a_short_greeting(tx: Transaction) -> None:
    await join(tx, "coder")
    await tx.connection.execute(
        "select coordinator.agent_register('default', 'a' || n, p_ttl => '1 hour') from generate_series(1, 30) n"
    )
    await tx.connection.execute(
        "select coordinator.lock_acquire('default', array['f' || l.n], a.id, p_ttl => '1 hour') "
        "from generate_series(1, 50) l (n), lateral (select id from coordinator.agents where name = 'a' || (l.n % 30 + 1)) a"
    )
    items = await brief(tx)
    assert [sum(item.kind == kind for item in items) for kind in ("agent", "lock")] == [10, 20]
    assert [item.more for item in items if item.more] == [20, 30]


async def test_the_briefing_of_an_agent_outlives_its_registration(tx: Transaction) -> None:
    me = await join(tx, "coder")
    await tx.run(briefings.Subscribe(project="default", agent="coder", patterns=["s"]))
    await send(tx, "Add tests.")
    await tx.run(signals.Set(project="default", key="s", value=1, actor="ci"))
    assert len(await news(tx)) == 2
    await tx.run(agents.Deregister(agent=me))
    await join(tx, "coder")
    assert await news(tx) == []


async def test_an_unknown_agent_and_bad_patterns_are_refused(tx: Transaction) -> None:
    await refused(tx, briefings.Read(project="default", agent="nobody"), "ZC202")
    await refused(tx, briefings.Subscribe(project="default", agent="nobody", patterns=["a"]), "ZC202")
    await join(tx, "coder")
    await refused(tx, briefings.Subscribe(project="default", agent="coder", patterns=[""]), "ZC101")
    for patterns in ("array[['a'],['b']]", "'[0:1]={a,b}'::text[]"):
        with pytest.raises(InvalidArgument, match="not a plain list"), mapped_errors():
            async with tx.connection.transaction():
                await tx.connection.execute(f"select coordinator.briefing_subscribe('default', 'coder', {patterns})")


async def test_old_briefings_are_forgotten_and_a_project_takes_its_own_with_it(tx: Transaction) -> None:
    await join(tx, "coder")
    await brief(tx)
    await tx.set_clock(timedelta(days=29))
    assert await tx.run(briefings.Prune()) == 0
    await tx.set_clock(timedelta(days=31))
    assert await tx.run(briefings.Prune()) == 1
    await tx.run(projects.Create(project="p"))
    await tx.connection.execute("select coordinator.agent_register('p', 'coder')")
    await tx.run(briefings.Read(project="p", agent="coder"))
    await tx.run(projects.Delete(project="p"))
    assert await tx.connection.fetchval("select count(*) from coordinator.briefings") == 0


async def test_of_two_calls_at_once_the_second_waits_and_gets_no_news(session: Open) -> None:
    first, second, looker = [await session() for _ in range(3)]
    await first.execute("select coordinator.agent_register('default', 'coder')")
    await first.execute("select coordinator.briefing_subscribe('default', 'coder', '{s}')")
    await first.execute("select coordinator.directive_send('default', 'Add tests.', 'coder', p_actor => 'lead')")
    await first.execute("select coordinator.signal_set('default', 's', '1', p_actor => 'ci')")
    transaction = first.transaction()
    await transaction.start()
    assert [row["kind"] for row in await first.fetch(NEWS)] == ["directive", "signal"]
    waiting = asyncio.create_task(second.fetch(NEWS))
    await until_blocked(looker, second)
    await transaction.commit()
    assert await waiting == []


async def test_a_failed_call_does_not_count_as_told(session: Open) -> None:
    first, second = await session(), await session()
    await first.execute("select coordinator.agent_register('default', 'coder')")
    await first.execute("select coordinator.directive_send('default', 'Add tests.', 'coder', p_actor => 'lead')")
    transaction = first.transaction()
    await transaction.start()
    assert len(await first.fetch(NEWS)) == 1
    await transaction.rollback()
    assert len(await second.fetch(NEWS)) == 1

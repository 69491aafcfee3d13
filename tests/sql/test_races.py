"""Documented races, each with two connections and, where a lock decides, at the very moment when one waits for the other."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TypeVar

import asyncpg
import msgspec
import pytest

from coordinator.db.call import call
from coordinator.errors import Conflict, CoordinatorError, InvalidArgument, NotFound
from coordinator.model.operation import Operation
from coordinator.model.token import Token
from coordinator.operations import (
    agents,
    directives,
    events,
    jobs,
    locks,
    projects,
    queues,
    rules,
    sessions,
    signals,
    tokens,
)
from coordinator.operations.work import LeaderRenew, RelayStep
from tests import waiting
from tests.conftest import Open
from tests.waiting import until, until_blocked

R = TypeVar("R")


async def while_uncommitted(
    session: Open, first: Operation[object], second: Operation[R], *, commit: bool = True
) -> tuple[object, R | CoordinatorError]:
    """Run `second` on a connection of its own while `first` is done and not committed: see `waiting`."""
    return await waiting.while_uncommitted(*[await session() for _ in range(3)], first, second, commit=commit)


async def outcomes(session: Open, operations: list[Operation[R]]) -> list[R | CoordinatorError]:
    """Run all at once, each on a connection of its own."""
    connections = [await session() for _ in operations]
    results = await asyncio.gather(
        *(call(c, o) for c, o in zip(connections, operations, strict=True)), return_exceptions=True
    )
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, CoordinatorError):
            raise result
    return results  # type: ignore[return-value]


RESUME = "select pg_advisory_unlock(7)"


async def pause(watcher: asyncpg.Connection, change: str) -> None:
    """Let others pause at a change, as in a trigger, until the watcher executes `RESUME`."""
    await watcher.execute(f"""
        create function public.pause() returns trigger language plpgsql as
          $$ begin perform pg_advisory_xact_lock(7); return new; end $$;
        create trigger pause {change} execute function public.pause();
        select pg_advisory_lock(7)""")


def put(key: str, value: object = 1, **options: object) -> signals.Set:
    return signals.Set(project="default", key=key, value=value, **options)  # type: ignore[arg-type]


async def listed(connection: asyncpg.Connection) -> list[str]:
    return [signal.key for signal in await call(connection, signals.List(project="default"))]


async def test_of_many_that_set_an_absent_key_exactly_one_wins(session: Open) -> None:
    results = await outcomes(session, [put("k", n, expect=0) for n in range(8)])
    won = [result for result in results if not isinstance(result, CoordinatorError)]
    assert len(won) == 1
    assert all(isinstance(r, Conflict) and r.code == "ZC301" for r in results if isinstance(r, CoordinatorError))
    assert (await call(await session(), signals.Get(project="default", key="k"))).value == won[0].value


@pytest.mark.parametrize("commit", [True, False])
async def test_a_compare_and_set_waits_for_the_other_and_loses_only_if_it_commits(session: Open, commit: bool) -> None:
    made = await call(await session(), put("k"))
    _, second = await while_uncommitted(
        session, put("k", 2, expect=made.version), put("k", 3, expect=made.version), commit=commit
    )
    assert isinstance(second, Conflict) == commit


async def test_a_delete_and_a_set_of_one_version_exclude_each_other(session: Open) -> None:
    made = await call(await session(), put("k"))
    results = await outcomes(
        session,
        [signals.Delete(project="default", key="k", expect=made.version), put("k", 2, expect=made.version)],  # type: ignore[list-item]
    )
    assert len([r for r in results if isinstance(r, CoordinatorError)]) == 1


@pytest.mark.parametrize("prefix", ["", "task/7/"])
async def test_rules_that_clear_each_others_keys_leave_the_one_that_was_set_last(session: Open, prefix: str) -> None:
    watcher = await session()
    await call(watcher, rules.Set(project="default", when_set="A", clears=["B"]))
    await call(watcher, rules.Set(project="default", when_set="B", clears=["A"]))
    await while_uncommitted(session, put(f"{prefix}A"), put(f"{prefix}B"))
    assert await listed(watcher) == [f"{prefix}B"]


async def test_rules_that_clear_each_others_keys_never_deadlock(session: Open) -> None:
    watcher = await session()
    names = ["A", "B", "C", "D"]
    for name in names:
        await call(watcher, put(name))
        await call(watcher, put(f"t/{name}"))
    for name in names:
        await call(watcher, rules.Set(project="default", when_set=name, clears=[n for n in names if n != name]))
    for _ in range(5):
        operations = [put(prefix + name) for name in names for prefix in ("", "t/")]
        assert not [r for r in await outcomes(session, operations) if isinstance(r, CoordinatorError)]
        assert len(await listed(watcher)) == 2


async def test_a_rule_and_the_end_of_an_agent_do_not_deadlock(session: Open) -> None:
    holder, one, two, watcher = [await session() for _ in range(4)]
    await call(watcher, rules.Set(project="default", when_set="B", clears=["A"]))
    agent = await call(watcher, agents.Register(project="default", name="a"))
    for key in ("B", "A"):
        await call(watcher, put(key, agent=agent.id, ephemeral=True))
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("select from coordinator.signals where key = 'A' for update")
    ends = asyncio.create_task(call(one, agents.Deregister(agent=agent.id)))
    await until_blocked(watcher, one)
    sets = asyncio.create_task(call(two, put("B")))
    await until_blocked(watcher, two)
    await transaction.commit()
    assert await ends
    await sets
    assert await listed(watcher) == ["B"]


async def test_a_rule_leaves_what_appears_after_it_looked_to_the_end_of_an_agent(session: Open) -> None:
    """The rule holds B. The agent sets A, which B clears, and ends: it has A and waits for B. So the rule must not want A."""
    one, two, watcher = [await session() for _ in range(3)]
    for connection in (one, two):
        await connection.execute("set deadlock_timeout = '50ms'")
    await call(watcher, rules.Set(project="default", when_set="B", clears=["A"]))
    agent = await call(watcher, agents.Register(project="default", name="a"))
    await call(watcher, put("B", agent=agent.id, ephemeral=True))
    await pause(watcher, "before update on coordinator.signals for each row when (new.key = 'B')")
    sets = asyncio.create_task(call(one, put("B")))
    await until_blocked(watcher, one)
    await call(watcher, put("A", agent=agent.id, ephemeral=True))
    ends = asyncio.create_task(call(two, agents.Deregister(agent=agent.id)))
    await until_blocked(watcher, two)
    await watcher.execute(RESUME)
    await sets
    assert await ends
    assert await listed(watcher) == ["B"]


async def test_a_signal_set_while_its_project_is_deleted_is_never_seen_and_is_pruned(session: Open) -> None:
    one, two = await session(), await session()
    await call(one, projects.Create(project="p"))
    transaction = one.transaction()
    await transaction.start()
    await call(one, signals.Set(project="p", key="k", value=1))
    assert await call(two, projects.Delete(project="p"))
    await transaction.commit()
    assert await two.fetchval("select count(*) from coordinator.signals") == 1
    assert await two.fetch("select * from coordinator.signals_live") == []
    assert await call(two, signals.Prune()) == 1
    assert await call(two, signals.Prune()) == 0
    await call(two, projects.Create(project="p"))
    with pytest.raises(NotFound):
        await call(two, signals.Get(project="p", key="k"))


SEND = directives.Send(project="p", body="x", to_agent="a", key="k")
BREAK = locks.Break(project="p", resource="name:x", reason="it hangs")
GRANT = tokens.Create(name="t", role="agent", hash="c" * 64, prefix="coo_abcd", project="p")


@pytest.mark.parametrize(
    ("table", "operation"),
    [("directives", SEND), ("lock_breaks", BREAK), ("tokens", GRANT)],
    ids=lambda part: str(part)[:10],
)
async def test_who_inserts_for_a_project_after_it_locked_its_rows_does_not_deadlock_with_its_end(
    session: Open, table: str, operation: Operation[object]
) -> None:
    """Each locks a row that ends with the project, then the project, by the foreign key of what it inserts."""
    one, two, watcher = [await session() for _ in range(3)]
    for connection in (one, two):
        await connection.execute("set deadlock_timeout = '50ms'")
    await call(watcher, projects.Create(project="p"))
    await call(watcher, SEND)
    agent = await call(watcher, agents.Register(project="p", name="a"))
    await call(watcher, locks.Acquire(project="p", resources=["name:x"], agent=agent.id))
    await call(watcher, msgspec.structs.replace(GRANT, hash="d" * 64))
    await watcher.execute(
        "update coordinator.tokens set expires_at = now() - interval '1 year', created_at = now() - interval '2 years'"
    )
    await pause(watcher, f"before insert on coordinator.{table} for each row")
    writes = asyncio.create_task(call(one, operation))
    await until_blocked(watcher, one)
    deletes = asyncio.create_task(call(two, projects.Delete(project="p")))
    await until_blocked(watcher, two)
    await watcher.execute(RESUME)
    await writes
    assert await deletes


@pytest.mark.parametrize(
    "operation",
    [
        agents.Register(project="p", name="a"),
        BREAK,
        GRANT,
        SEND,
        directives.Send(project="p", body="x", everyone=True),
        rules.Set(project="p", when_set="A", clears=["B"]),
        jobs.Enqueue(project="p", type="x"),
        sessions.Create(project="p"),
    ],
    ids=lambda operation: operation.function,
)
async def test_inserts_into_a_project_that_is_deleted_meanwhile_report_that_it_is_gone(
    session: Open, operation: Operation[object]
) -> None:
    await call(await session(), projects.Create(project="p"))
    _, gone = await while_uncommitted(session, projects.Delete(project="p"), operation)
    assert getattr(gone, "code", gone) == "ZC201"


async def test_each_function_that_inserts_for_a_project_holds_it(session: Open) -> None:
    """By the foreign keys to projects: no other function inserts into such a table."""
    rows = await (await session()).fetch("""
        select c.conrelid::regclass::text as "table", p.proname, p.prosrc ~ 'project_hold' as holds
        from pg_constraint c join pg_proc p on p.prosrc ~ ('insert into ' || c.conrelid::regclass || '\\M')
        where c.confrelid = 'coordinator.projects'::regclass and c.contype = 'f'""")
    assert {row["table"] for row in rows} == {
        f"coordinator.{name}"
        for name in (
            "agents",
            "artifact_blobs",
            "artifact_usage",
            "artifacts",
            "audit_applied",
            "audit_policies",
            "crons",
            "directives",
            "job_limits",
            "lock_breaks",
            "project_imports",
            "queues",
            "retention",
            "retention_sweeps",
            "sessions",
            "signal_rules",
            "tokens",
            "webhooks",
        )
    }
    held_by_callers = {"artifact_enter", "artifact_place", "artifact_use", "import_line", "import_open"}
    for_all_projects = {"retention_configure"}
    looks_for_itself = {"audit_copy_part", "retention_sweep"}
    assert {row["proname"] for row in rows if not row["holds"]} == held_by_callers | for_all_projects | looks_for_itself


async def test_of_two_that_delete_a_project_one_does(session: Open) -> None:
    await call(await session(), projects.Create(project="p"))
    results = await outcomes(session, [projects.Delete(project="p"), projects.Delete(project="p")])
    assert sorted(getattr(result, "code", "done") for result in results) == ["ZC201", "done"]


async def test_one_key_sent_by_many_leaves_exactly_one_open(session: Open) -> None:
    sends = [directives.Send(project="default", body=str(n), to_agent="a", key="k") for n in range(8)]
    sent = await outcomes(session, sends)
    assert not [result for result in sent if isinstance(result, CoordinatorError)]
    everything = await call(await session(), directives.List(project="default", open=False))
    assert sorted(directive.status for directive in everything) == ["open"] + ["superseded"] * 7
    assert everything[-1].status == "open", "the newest is not the one that stayed"


async def send(session: Open) -> int:
    return (await call(await session(), directives.Send(project="default", body="x", to_agent="a"))).id


async def test_an_acknowledgement_waits_for_a_revocation_and_is_too_late(session: Open) -> None:
    sent = await send(session)
    _, second = await while_uncommitted(
        session,
        directives.Revoke(project="default", directive=sent),
        directives.Acknowledge(project="default", directive=sent, agent="a"),
    )
    assert isinstance(second, Conflict)
    assert second.code == "ZC304"


async def test_a_revocation_waits_for_an_acknowledgement_and_leaves_it_on_record(session: Open) -> None:
    sent = await send(session)
    _, second = await while_uncommitted(
        session,
        directives.Acknowledge(project="default", directive=sent, agent="a"),
        directives.Revoke(project="default", directive=sent),
    )
    assert second is True
    assert await (await session()).fetchval("select status from coordinator.directive_receipts") == "done"


@pytest.mark.parametrize(("again", "code"), [("done", None), ("seen", None), ("refused", "ZC303")])
async def test_two_incarnations_of_a_name_answer_once(session: Open, again: str, code: str | None) -> None:
    sent = await send(session)
    first, second = await while_uncommitted(
        session,
        directives.Acknowledge(project="default", directive=sent, agent="a", reason="I did"),
        directives.Acknowledge(project="default", directive=sent, agent="a", status=again, reason="me too"),
    )
    assert getattr(second, "code", None) == code
    assert code or second == first
    emitted = "select count(*) from coordinator.events where type = 'directive.acknowledged'"
    assert await (await session()).fetchval(emitted) == 1


async def test_an_ephemeral_signal_set_while_its_agent_ends_ends_with_it(session: Open) -> None:
    watcher = await session()
    agent = await call(watcher, agents.Register(project="default", name="a"))
    await while_uncommitted(session, put("k", agent=agent.id, ephemeral=True), agents.Deregister(agent=agent.id))
    assert await listed(watcher) == []


async def test_an_ephemeral_signal_cannot_be_set_for_an_agent_that_is_ending(session: Open) -> None:
    watcher = await session()
    agent = await call(watcher, agents.Register(project="default", name="a"))
    _, second = await while_uncommitted(
        session, agents.Deregister(agent=agent.id), put("k", agent=agent.id, ephemeral=True)
    )
    assert isinstance(second, NotFound)
    assert await listed(watcher) == []


async def test_the_reaper_passes_over_an_agent_that_is_busy_and_takes_it_next_time(session: Open) -> None:
    one, two = await session(), await session()
    await two.execute(
        "create or replace function coordinator.server_settled() returns boolean language sql stable return true"
    )
    agent = await call(one, agents.Register(project="default", name="a", ttl=timedelta(seconds=1)))
    await two.execute("select set_config('coordinator.fake_now', (now() + interval '1 hour')::text, false)")
    transaction = one.transaction()
    await transaction.start()
    await call(one, put("k", agent=agent.id, ephemeral=True))
    assert (await call(two, agents.Reap())).reaped == 0
    await transaction.commit()
    assert (await call(two, agents.Reap())).reaped == 1
    assert await listed(one) == []


async def test_a_heartbeat_before_the_reaper_saves_the_agent_and_after_it_fails(session: Open) -> None:
    reaper = await session()
    await reaper.execute(
        "create or replace function coordinator.server_settled() returns boolean language sql stable return true"
    )
    agent = await call(reaper, agents.Register(project="default", name="a", ttl=timedelta(seconds=1)))
    await reaper.execute("update coordinator.agents set expires_at = now() - interval '1 second'")
    results = await outcomes(session, [agents.Heartbeat(agent=agent.id), agents.Reap()])  # type: ignore[list-item]
    left = await reaper.fetchval("select count(*) from coordinator.agents")
    if isinstance(results[0], NotFound):
        assert left == 0
    else:
        assert left == 1, "an agent that was told that it lives was reaped"


async def test_of_many_that_would_lead_one_does(session: Open) -> None:
    connections = [await session() for _ in range(6)]
    ids = [await c.fetchval("select coordinator.process_register('daemon', 'x')") for c in connections]
    leads = await asyncio.gather(*(call(c, LeaderRenew(process=own)) for c, own in zip(connections, ids, strict=True)))
    assert [lead.leads for lead in leads].count(True) == 1
    assert {lead.term for lead in leads} == {1}


async def test_pruning_a_partition_and_the_relay_do_not_deadlock(session: Open) -> None:
    relay, pruner, watcher = [await session() for _ in range(3)]
    await watcher.execute("select setval('coordinator.event_ids', 999998)")
    for _ in range(2):
        await call(watcher, events.Emit(project="default", type="custom.x"))
        await call(watcher, RelayStep())
    transaction = relay.transaction()
    await transaction.start()
    await relay.execute("lock table coordinator.relay in share row exclusive mode")  # as relay_step begins
    await pruner.execute("set coordinator.fake_now = '2100-01-01'")
    prunes = asyncio.create_task(call(pruner, events.Prune()))
    await until_blocked(watcher, pruner)
    await call(relay, RelayStep())
    await transaction.commit()

    async def pruned() -> bool:
        await call(watcher, events.Emit(project="default", type="custom.x"))
        await call(watcher, RelayStep())
        return await call(pruner, events.Prune()) > 0

    # 0 as long as a transaction that is older than the partition's end is open elsewhere on the server, as one of another test.
    if not await prunes:
        await until(pruned)


LEAD = tokens.Create(name="lead", role="manager", hash="a" * 64, prefix="coo_abcd", project="default")
AS_AGENT = agents.Register(project="default", name="lead", unreserved=True)


@pytest.mark.parametrize("first", [LEAD, AS_AGENT], ids=["token", "agent"])
async def test_an_agent_and_a_token_of_one_name_do_not_overlook_each_other(
    session: Open, first: Operation[object]
) -> None:
    """One waits until it sees the other, however close they are."""
    second = AS_AGENT if first is LEAD else LEAD
    _, refusal = await while_uncommitted(session, first, second)
    assert getattr(refusal, "code", refusal) == ("42501" if first is LEAD else "ZC301")
    undone = agents.Register(project="default", name="other", unreserved=True)
    token = msgspec.structs.replace(LEAD, name="other", hash="b" * 64)
    _, made = await while_uncommitted(session, undone, token, commit=False)
    assert isinstance(made, Token)


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
@pytest.mark.parametrize("taker", [LEAD, AS_AGENT], ids=["token", "agent"])
async def test_a_name_is_not_taken_in_a_snapshot_that_may_hide_who_has_it(
    session: Open, taker: Operation[object], level: str
) -> None:
    connection = await session()
    await connection.execute(f"begin isolation level {level}")
    with pytest.raises(InvalidArgument, match="only in read committed transactions"):
        await call(connection, taker)


async def test_of_agents_and_tokens_that_race_for_a_name_one_kind_wins(session: Open) -> None:
    for round_ in range(5):
        name = f"n{round_}"
        agent = msgspec.structs.replace(AS_AGENT, name=name)
        token = msgspec.structs.replace(LEAD, name=name, hash=f"{round_:064x}")
        results = await outcomes(session, [agent, token])  # type: ignore[list-item]
        assert sum(isinstance(result, CoordinatorError) for result in results) == 1


FAIR = queues.Set(project="default", queue="mail", fair_by="key", ageing=timedelta(minutes=1))
MAIL = jobs.Enqueue(project="default", queue="mail", type="x", key="acme", priority=3)


async def placed(connection: asyncpg.Connection) -> list[tuple[bool, bool]]:
    """Return for each queued job whether it is in a lane with a permit, and whether its rank is that of its queue's policy."""
    rows = await connection.fetch(
        """
        select exists (select from coordinator.job_lanes l join coordinator.job_permits p on p.lane_id = l.id
                       where l.id = r.lane_id and l.key = j.key) as in_lane,
               r.rank = coordinator.job_rank(j.scheduled_at, j.priority, q.ageing) as in_place
        from coordinator.jobs_ready r join coordinator.jobs_open j on j.id = r.id
        join coordinator.queues q on q.project_id = j.project_id and q.name = j.queue"""
    )
    return [(row["in_lane"], row["in_place"]) for row in rows]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("enqueue_first", [True, False])
async def test_a_job_that_is_enqueued_while_its_queue_becomes_fair_has_a_lane(
    session: Open, known: bool, enqueue_first: bool
) -> None:
    if known:
        await call(await session(), queues.Set(project="default", queue="mail"))
    pair: tuple[Operation[object], Operation[object]] = (MAIL, FAIR) if enqueue_first else (FAIR, MAIL)
    await while_uncommitted(session, *pair)
    assert await placed(await session()) == [(True, True)]


@pytest.mark.parametrize("commit", [True, False])
async def test_a_job_that_is_claimed_while_its_queue_becomes_fair_is_gone_or_has_a_lane(
    session: Open, commit: bool
) -> None:
    connection = await session()
    agent = await call(connection, agents.Register(project="default", name="w", job_types=["x"]))
    await call(connection, MAIL)
    claim = jobs.Claim(project="default", agent=agent.id)
    granted, _ = await while_uncommitted(session, claim, FAIR, commit=commit)
    assert len(granted) == 1  # type: ignore[arg-type]
    assert await placed(connection) == ([] if commit else [(True, True)])
    assert len(await call(connection, claim)) == (0 if commit else 1)


async def test_a_job_that_is_released_while_its_queue_is_no_longer_fair_has_no_lane(session: Open) -> None:
    connection = await session()
    agent = await call(connection, agents.Register(project="default", name="w", job_types=["x"]))
    await call(connection, FAIR)
    await call(connection, MAIL)
    (grant,) = await call(connection, jobs.Claim(project="default", agent=agent.id))
    plain = queues.Set(project="default", queue="mail", fair_by="none")
    released = jobs.Release(project="default", job=grant.id, agent=agent.id, fence=grant.fence)
    await while_uncommitted(session, plain, released)
    assert await placed(connection) == [(False, True)]
    assert len(await call(connection, jobs.Claim(project="default", agent=agent.id))) == 1


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_a_policy_is_not_set_in_a_snapshot_that_may_hide_jobs(session: Open, level: str) -> None:
    connection = await session()
    await connection.execute(f"begin isolation level {level}")
    with pytest.raises(InvalidArgument, match="only in read committed transactions"):
        await call(connection, FAIR)


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_no_job_is_queued_or_claimed_in_a_snapshot_that_may_hide_a_policy(session: Open, level: str) -> None:
    connection, old = await session(), await session()
    agent = await call(connection, agents.Register(project="default", name="w", job_types=["x"]))
    await call(connection, MAIL)
    (grant,) = await call(connection, jobs.Claim(project="default", agent=agent.id))
    for operation in (
        MAIL,
        jobs.EnqueueMany(project="default", jobs=[{"type": "x"}]),
        jobs.Claim(project="default", agent=agent.id),
        jobs.Release(project="default", job=grant.id, agent=agent.id, fence=grant.fence),
    ):
        await old.execute(f"begin isolation level {level}")
        with pytest.raises(InvalidArgument, match="only in read committed transactions") as refused:
            await call(old, operation)
        assert refused.value.hint
        await old.execute("rollback")


async def test_of_policies_that_are_set_at_once_both_apply(session: Open) -> None:
    await while_uncommitted(session, FAIR, queues.Set(project="default", queue="mail", max_waiting=5))
    queue = await call(await session(), queues.Get(project="default", queue="mail"))
    assert (queue.fair_by, queue.ageing, queue.max_waiting) == ("key", timedelta(minutes=1), 5)


DELETE = queues.Delete(project="default", queue="mail")


@pytest.mark.parametrize("commit", [True, False])
async def test_a_queue_to_which_a_job_is_being_added_is_deleted_only_without_it(session: Open, commit: bool) -> None:
    connection = await session()
    await call(connection, queues.Set(project="default", queue="mail"))
    _, outcome = await while_uncommitted(session, MAIL, DELETE, commit=commit)
    if commit:
        assert isinstance(outcome, Conflict)
        assert outcome.code == "ZC326"
    else:
        assert outcome is True
    names = [queue.queue for queue in await call(connection, queues.List(project="default"))]
    assert names == (["mail"] if commit else [])


@pytest.mark.parametrize("commit", [True, False])
async def test_a_job_that_is_enqueued_while_its_queue_is_deleted_creates_it_again(session: Open, commit: bool) -> None:
    connection = await session()
    await call(connection, FAIR)
    _, receipt = await while_uncommitted(session, DELETE, MAIL, commit=commit)
    assert not isinstance(receipt, CoordinatorError)
    (queue,) = await call(connection, queues.List(project="default"))
    assert (queue.queued_count, queue.fair_by) == (1, "none" if commit else "key")


@pytest.mark.parametrize("commit", [True, False])
async def test_a_policy_that_is_set_while_its_queue_is_deleted_applies(session: Open, commit: bool) -> None:
    connection = await session()
    await call(connection, queues.Set(project="default", queue="mail"))
    _, outcome = await while_uncommitted(session, DELETE, FAIR, commit=commit)
    assert not isinstance(outcome, CoordinatorError)
    (queue,) = await call(connection, queues.List(project="default"))
    assert queue.fair_by == "key"


async def test_a_queue_whose_job_is_being_moved_is_not_deleted(session: Open) -> None:
    """Whatever moves a job in an open transaction, the job is still where it was."""
    one, two = await session(), await session()
    agent = await call(one, agents.Register(project="default", name="w", job_types=["x"]))
    await call(one, MAIL)
    transaction = one.transaction()
    await transaction.start()
    (grant,) = await call(one, jobs.Claim(project="default", agent=agent.id))
    with pytest.raises(Conflict, match="1 queued"):
        await call(two, DELETE)
    await transaction.commit()
    transaction = one.transaction()
    await transaction.start()
    await call(one, jobs.Complete(project="default", job=grant.id, agent=agent.id, fence=grant.fence))
    with pytest.raises(Conflict, match="1 running"):
        await call(two, DELETE)
    await transaction.commit()
    assert await call(two, DELETE) is True

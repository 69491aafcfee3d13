"""Leadership and the liveness of processes: two sessions, since both live by session-level advisory locks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from coordinator.config import Config
from coordinator.db.connection import connect
from coordinator.errors import Conflict
from coordinator.loops.table import table
from coordinator.model.work import Lead
from coordinator.operations import agents, directives, signals
from coordinator.operations.work import LeaderRenew, ProcessRegister
from tests.conftest import Transaction
from tests.db.test_pool import limited_role
from tests.sql.refusal import refused
from tests.waiting import until, until_true

DAY = timedelta(days=1)


@asynccontextmanager
async def session(url: str) -> AsyncIterator[Transaction]:
    """A session of its own that commits."""
    connection = await connect(url)
    try:
        yield Transaction(connection)
    finally:
        await connection.close()


async def register(of: Transaction) -> int:
    return await of.run(ProcessRegister(kind="daemon", name="host:1"))


def shown(lead: Lead) -> tuple[bool, int, list[str]]:
    return lead.leads, lead.term, lead.due


async def test_one_leads_and_the_other_learns_the_term(database_url: str) -> None:
    async with session(database_url) as one, session(database_url) as two:
        first, second = await register(one), await register(two)
        assert first != second
        assert shown(await one.run(LeaderRenew(process=first, ttl=DAY))) == (True, 1, [])
        assert shown(await two.run(LeaderRenew(process=second, ttl=DAY))) == (False, 1, [])
        assert (await one.run(LeaderRenew(process=first, ttl=DAY))).term == 1


async def test_the_lead_of_a_dead_process_is_taken_at_once(database_url: str) -> None:
    async with session(database_url) as two:
        second = await register(two)
        async with session(database_url) as one:
            first = await register(one)
            await one.run(LeaderRenew(process=first, ttl=DAY))
        await until_true(two.connection, "select not coordinator.process_alive($1)", first)
        assert shown(await two.run(LeaderRenew(process=second))) == (True, 2, ["agent_reap"])


async def test_an_expired_lead_of_a_living_process_is_taken_and_it_learns_so(database_url: str) -> None:
    async with session(database_url) as one, session(database_url) as two:
        first, second = await register(one), await register(two)
        await one.run(LeaderRenew(process=first))
        await two.connection.execute("update coordinator.leaders set expires_at = clock_timestamp()")
        assert (await two.run(LeaderRenew(process=second, ttl=DAY))).leads
        assert shown(await one.run(LeaderRenew(process=first))) == (False, 2, [])


async def test_a_leader_learns_which_loops_have_work(tx: Transaction) -> None:
    async def due() -> list[str]:
        return (await tx.run(LeaderRenew(process=process))).due

    await tx.set_clock(timedelta(0))
    process = await register(tx)
    assert await due() == []
    await tx.run(signals.Set(project="default", key="k", value=1, ttl=timedelta(seconds=1)))
    await tx.run(directives.Send(project="default", body="x", to_agent="a", ttl=timedelta(seconds=1)))
    await tx.run(agents.Register(project="default", name="a", ttl=timedelta(seconds=1)))
    assert await due() == ["relay"]
    await tx.set_clock(timedelta(seconds=2))
    assert await due() == ["relay", "signal_expire", "directive_expire", "agent_reap"]


async def test_a_leader_runs_every_loop_if_a_damaged_row_hides_which_have_work(tx: Transaction) -> None:
    process = await register(tx)
    loops = {loop.name for loop in table(Config(artifact_store="s3://objects/x"))}
    await tx.connection.execute("""
        create or replace function coordinator.limit_due(p_now timestamptz, p_limit integer) returns bigint[]
        language plpgsql stable as $$ begin raise data_corrupted; end $$""")
    leads, _, due = shown(await tx.run(LeaderRenew(process=process, ttl=DAY)))
    assert leads
    assert {"signal_expire", "agent_reap", "limit_refill", "upkeep_analyze"} <= {*due} - {"relay", "webhook"} <= loops
    assert {"relay", "webhook"} <= {*due}


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        (ProcessRegister(kind="cat", name="x"), "ZC105"),
        (ProcessRegister(kind="daemon", name=""), "ZC101"),
        (LeaderRenew(process=1, ttl=timedelta(0)), "ZC104"),
    ],
)
async def test_bad_input_is_refused(tx: Transaction, operation: object, code: str) -> None:
    await refused(tx, operation, code)  # type: ignore[arg-type]


async def test_the_id_of_a_living_process_cannot_be_taken(database_url: str) -> None:
    async with session(database_url) as one, session(database_url) as two:
        living = await register(one)
        await refused(two, ProcessRegister(kind="daemon", name="x", id=living), "ZC302")


async def test_a_process_that_returns_ends_the_session_that_it_lost_and_takes_its_lock(database_url: str) -> None:
    async with session(database_url) as lost, session(database_url) as new:
        process = await register(lost)
        assert await new.run(ProcessRegister(kind="daemon", name="host:1", id=process)) == process
        await until(lost.connection.is_closed, "the lost session has ended")
        assert await new.connection.fetchval("select coordinator.process_alive($1)", process)


async def test_the_lock_of_a_process_that_returns_is_free_at_no_moment(database_url: str) -> None:
    """When the session that it lost has ended, and its call goes on, it holds the lock."""
    async with session(database_url) as lost, session(database_url) as new:
        inherit = await new.connection.fetchval("select pg_get_functiondef('coordinator.advisory_inherit'::regproc)")
        ended = "perform pg_terminate_backend(p) from unnest(v_pids) p;"
        assert ended in inherit
        held = (
            "from pg_locks where locktype = 'advisory' and granted and objid = p_object::oid and pid = pg_backend_pid()"
        )
        await new.connection.execute(
            inherit.replace(ended, ended.replace("(p)", "(p, 60000)") + f" perform 1 / count(*) {held};")
        )
        process = await register(lost)
        assert await new.run(ProcessRegister(kind="daemon", name="host:1", id=process)) == process
        await until(lost.connection.is_closed, "the lost session has ended")


async def test_a_process_takes_over_the_lock_of_a_session_that_does_not_share_it(database_url: str) -> None:
    """As sessions of earlier releases hold it."""
    async with session(database_url) as lost, session(database_url) as new:
        process = await register(lost)
        await lost.connection.execute("select pg_advisory_lock(1129267026, $1)", process)
        await lost.connection.execute("select pg_advisory_unlock_shared(1129267026, $1)", process)
        assert await new.run(ProcessRegister(kind="daemon", name="host:1", id=process)) == process
        await until(lost.connection.is_closed, "the lost session has ended")
        assert await new.connection.fetchval("select coordinator.process_alive($1)", process)


async def test_a_process_is_not_taken_over_by_another_role(server_url: str, database_url: str) -> None:
    async with limited_role(server_url, database_url, 2) as (role, url), session(database_url) as living:
        await living.connection.execute(f"grant coordinator_agent to {role}")
        process = await register(living)
        async with session(url) as stranger:
            with pytest.raises(Conflict, match=f"process {process} is alive"):
                await stranger.run(ProcessRegister(kind="daemon", name="host:1", id=process))
        assert not living.connection.is_closed()


async def test_no_session_of_another_role_is_ended_for_a_process_that_returns(
    server_url: str, database_url: str
) -> None:
    async with limited_role(server_url, database_url, 2) as (_, url), session(database_url) as new:
        stranger = await connect(url)
        process = await register(new)
        await new.connection.execute("select pg_advisory_unlock_all()")
        await stranger.execute("select pg_advisory_lock(1129267026, $1)", process)
        await refused(new, ProcessRegister(kind="daemon", name="host:1", id=process), "ZC302")
        await stranger.close()


async def test_ids_of_processes_begin_again_after_the_last_one(database_url: str) -> None:
    """At a hundred short-lived processes a second, that is after eight months."""
    async with session(database_url) as one, session(database_url) as two, session(database_url) as three:
        first = await register(one)
        sequence = "pg_get_serial_sequence('coordinator.processes', 'id')"
        await one.connection.execute(f"select setval({sequence}, 2147483646)")
        assert await register(two) == 2147483647
        await one.connection.execute(
            "insert into coordinator.processes overriding system value values (2, 'client', 'dead', now(), now())"
        )
        assert first == 1
        assert await register(three) == 3


async def test_the_id_of_a_reaped_process_is_not_used_again(tx: Transaction) -> None:
    assert await tx.run(ProcessRegister(kind="daemon", name="x", id=1_000_000)) != 1_000_000
    assert not await tx.connection.fetchval("select coordinator.process_alive(1000000)")

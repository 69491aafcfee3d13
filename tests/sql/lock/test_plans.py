"""What a lock costs does not depend on how many are held: the rows that are read are counted."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest

from coordinator.model.lock import Grant
from coordinator.operations import agents, locks
from tests.conftest import Transaction

HELD = 20_000

FILL = """
insert into coordinator.locks (project_id, resource, slot, kind, prefix, pattern, mode, agent_id, agent_name, fencing_token, ttl, delay,
                               acquired_at, expires_at, free_at)
select p.id, case when n % 100 = 0 then format('src/m%s/*_%s.py', n % 1000, n) else format('src/m%s/f%s.py', n % 1000, n) end, 0,
       case when n % 100 = 0 then 'glob' else 'path' end, case when n % 100 = 0 then format('src/m%s', n % 1000) end,
       case when n % 100 = 0 then format('^src/m%s/[^/]*_%s\\.py$', n % 1000, n) end, 'exclusive', $1, 'many', n, '1 hour', '0',
       clock_timestamp(), clock_timestamp() + interval '1 hour', clock_timestamp() + interval '1 hour'
from coordinator.projects p, generate_series(1, $2::integer) n where p.name = 'default'
"""
READ = """
select sum(seq_scan)::bigint as scans, sum(coalesce(idx_tup_fetch, 0) + seq_tup_read)::bigint as rows
from pg_stat_xact_user_tables where schemaname = 'coordinator' and relname in ('locks', 'lock_waits')
"""


async def read(connection: asyncpg.Connection) -> tuple[int, int]:
    row = await connection.fetchrow(READ)
    return row["scans"], row["rows"]


@pytest.mark.parametrize("analyzed", ["never", "empty", "full"])
async def test_conflicts_are_found_by_index_however_many_locks_are_held(tx: Transaction, analyzed: str) -> None:
    many = await tx.run(agents.Register(project="default", name="many"))
    mine = (await tx.run(agents.Register(project="default", name="mine"))).id

    async def cycle(agent: UUID, resource: str, n: int) -> None:
        (grant,) = await tx.run(locks.Acquire(project="default", resources=[resource.format(n)], agent=agent))
        token = grant.fencing_token or 0
        await tx.run(locks.Renew(project="default", resources=[resource.format(n)], agent=agent, tokens=[token]))
        await tx.run(locks.Check(project="default", paths=["src/m7/x.py"], agent=agent))
        await tx.run(locks.Release(project="default", resources=[resource.format(n)], agent=agent, tokens=[token]))

    kinds = ("src/m7/new{}.py", "src/new{}/", "src/new{}/**/*.py", "name:new{}")
    if analyzed == "empty":
        await tx.connection.execute("analyze coordinator.locks, coordinator.lock_waits")
    for resource in kinds:  # plans are made, and kept, while the tables are empty
        for n in range(7):
            await cycle(mine, resource, n)
    await tx.connection.execute(FILL, many.id, HELD)
    if analyzed == "full":
        await tx.connection.execute("analyze coordinator.locks")
    for resource in kinds:
        before = await read(tx.connection)
        await cycle(mine, resource, 8)
        after = await read(tx.connection)
        assert after[0] == before[0], resource
        assert after[1] - before[1] < 60, resource
    before = await read(tx.connection)
    token = await tx.connection.fetchval("select fencing_token from coordinator.locks where resource = 'src/m8/f8.py'")
    await tx.run(locks.Release(project="default", resources=["src/m8/f8.py"], agent=many.id, tokens=[token]))
    after = await read(tx.connection)
    assert after[1] - before[1] < 60, "the agent that holds them all"


async def test_a_hand_off_does_not_read_the_whole_queue(tx: Transaction) -> None:
    crew = [(await tx.run(agents.Register(project="default", name=f"a{n}"))).id for n in range(100)]
    wait = timedelta(hours=1)

    async def ask(agent: UUID) -> Grant:
        return (await tx.run(locks.Acquire(project="default", resources=["src/a.py"], agent=agent, wait=wait)))[0]

    tickets = [await ask(agent) for agent in crew]
    before = await read(tx.connection)
    token = tickets[0].fencing_token or 0
    await tx.run(locks.Release(project="default", resources=["src/a.py"], agent=crew[0], tokens=[token]))
    (granted,) = await tx.run(locks.Poll(project="default", ticket=tickets[1].ticket or 0, agent=crew[1]))
    assert granted.granted
    for n in (2, 99):
        (waits,) = await tx.run(locks.Poll(project="default", ticket=tickets[n].ticket or 0, agent=crew[n]))
        assert not waits.granted
    after = await read(tx.connection)
    assert after[0] == before[0]
    assert after[1] - before[1] < 100


async def test_a_check_reads_each_glob_once_however_many_paths_it_has(tx: Transaction) -> None:
    many = (await tx.run(agents.Register(project="default", name="many"))).id
    for start in (0, 100, 200):
        globs = [f"src/**/*_{n}.py" for n in range(start, start + 100)]
        await tx.run(locks.Acquire(project="default", resources=globs, agent=many))
    before = await read(tx.connection)
    checks = await tx.run(locks.Check(project="default", paths=[f"src/a/b_{n}.py" for n in range(1000)]))
    assert [check.state for check in checks] == ["held"] * 300 + ["free"] * 700
    after = await read(tx.connection)
    assert after[1] - before[1] <= 300


async def test_comparing_long_globs_takes_no_more_than_a_few_steps(tx: Transaction) -> None:
    """3,000 pairs that agree at both ends; character by character, they took 340 ms each."""
    held = ["a" * 60 + "/" + "?" * 7 + "b" * 860 + f"{n:04}" + "*x" for n in range(30)]
    wanted = ["a" * 60 + "/" + "?" * 7 + "b" * 860 + f"{n:04}" + "*x" for n in range(1000, 1100)]
    one, two = [(await tx.run(agents.Register(project="default", name=name))).id for name in "ab"]
    await tx.run(locks.Acquire(project="default", resources=held, agent=one))
    await tx.run(locks.Acquire(project="default", resources=wanted, agent=two))


async def test_what_each_waiter_waits_for_is_listed_in_linear_time(tx: Transaction) -> None:
    crew = [(await tx.run(agents.Register(project="default", name=f"a{n}"))).id for n in range(100)]
    for agent in crew:
        await tx.run(locks.Acquire(project="default", resources=["src/a.py"], agent=agent, wait=timedelta(hours=1)))
    before = await read(tx.connection)
    rows = await tx.connection.fetch("select agent, for_agent, for_ticket from coordinator.lock_waits_for")
    after = await read(tx.connection)
    assert {(row["agent"], row["for_agent"]) for row in rows if row["for_ticket"] is None} == {
        (f"a{n}", "a0") for n in range(1, 100)
    }
    assert {(row["agent"], row["for_agent"]) for row in rows if row["for_ticket"] is not None} == {
        (f"a{n}", f"a{n - 1}") for n in range(2, 100)
    }
    assert after[1] - before[1] < 100 * 10

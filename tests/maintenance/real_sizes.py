"""Days of load by a simulated clock, vacuumed as autovacuum would: no table and no index grows from one day to the next.

The daemon's own loops expire and prune, with a retention of half a day. After each half hour, what autovacuum would vacuum by now, by
the settings of each table, is vacuumed.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import structlog

from coordinator.config import Config
from coordinator.db.single import Single
from coordinator.loops.loop import Loop
from coordinator.loops.table import table
from coordinator.operations import (
    agents,
    directives,
    documents,
    events,
    idempotency,
    jobs,
    locks,
    logs,
    retentions,
    signals,
)
from coordinator.operations.work import LeaderRenew, ProcessRegister, RelayRecover, RelayStep
from tests.daemon import opened

PROJECT = "default"
DAYS = 3  # jobs that ended are kept for half a day after the end of theirs
STEP = timedelta(minutes=30)
KEPT = timedelta(hours=12)
CALLS = 6  # of each kind in a step
SHARE = 50  # of a busy day is its fiftieth; so are the numbers of rows from which autovacuum comes
RUNS = 100  # of a loop in a step, at most: an error
GROWTH, SLACK_BYTES = 1.1, 4 * 8192  # of a day over the day before: a few pages that happen to be full

DUE = """
with settings as (
  select c.oid, c.relname, c.reltuples, coalesce(o.options, '{}') as options
  from pg_class c, lateral (select jsonb_object_agg(option_name, option_value) as options from pg_options_to_table(c.reloptions)) o
  where c.relnamespace = 'coordinator'::regnamespace and c.relkind = 'r'),
bounds as (
  select s.*,
    coalesce((options ->> 'autovacuum_vacuum_threshold')::float, current_setting('autovacuum_vacuum_threshold')::float) / $1
      + coalesce((options ->> 'autovacuum_vacuum_scale_factor')::float, current_setting('autovacuum_vacuum_scale_factor')::float)
      * greatest(reltuples, 0) as dead,
    coalesce((options ->> 'autovacuum_vacuum_insert_threshold')::float, current_setting('autovacuum_vacuum_insert_threshold')::float) / $1 as inserts,
    coalesce((options ->> 'autovacuum_vacuum_insert_scale_factor')::float, current_setting('autovacuum_vacuum_insert_scale_factor')::float)
      * greatest(reltuples, 0) as more_inserts
  from settings s)
select b.relname from bounds b join pg_stat_all_tables t on t.relid = b.oid
where t.n_dead_tup > b.dead or b.inserts >= 0 and t.n_ins_since_vacuum > b.inserts + b.more_inserts
"""
# Partitions are counted together: they come and go.
SIZES = """
select coalesce(r.relname, c.relname) || coalesce(' ' || x.relname, '') as name, sum(pg_relation_size(coalesce(x.oid, c.oid)))::bigint as bytes
from pg_class c
left join lateral (select relid from pg_partition_ancestors(c.oid) relid where relid <> c.oid order by (select count(*) from pg_partition_ancestors(relid)) limit 1) a on true
left join pg_class r on r.oid = a.relid
left join lateral (select i.oid, i.relname from pg_index n join pg_class i on i.oid = n.indexrelid where n.indrelid = c.oid and r.oid is null
                   union all select null, null) x on true
where c.relnamespace = 'coordinator'::regnamespace and c.relkind = 'r'
group by 1
"""


def bounded(loop: Loop) -> Loop:
    """Return a loop that keeps nothing longer than `KEPT`."""
    names = {field.name for field in msgspec.structs.fields(loop.operation)} & {"retention", "completed", "other"}
    changed = msgspec.structs.replace(loop.operation, **dict.fromkeys(names, KEPT))
    return msgspec.structs.replace(loop, operation=changed)


class Day:
    """The load, on one connection. `step` is half an hour."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._single = Single(connection)
        self._loops = [bounded(loop) for loop in table(Config()) if loop.name != "metric_sample"]
        self._now = datetime(2030, 1, 1, tzinfo=UTC)
        self._number = 0

    async def begin(self) -> None:
        await self._move()
        self._process = await self._run(ProcessRegister(kind="daemon", name="simulated"))
        await self._run(RelayRecover())
        for subject in ("log", "document"):
            await self._run(retentions.Set(project=PROJECT, subject=subject, max_age=KEPT, max_count=20))
        await self._run(retentions.Set(project=PROJECT, subject="log", kind="audit", max_age=KEPT))  # else a year

    async def step(self) -> None:
        self._number += 1
        for call in range(CALLS):
            await self._calls(f"{self._number}/{call}", call)
        self._now += STEP
        await self._move()
        await self._run(LeaderRenew(process=self._process))
        while (await self._run(RelayStep())).moved:
            pass
        for loop in self._loops:
            for _ in range(RUNS):
                run = await loop.run(self._single)
                if not run.handled and run.again_s is None:
                    break
            else:
                raise AssertionError(f"{loop.name} does not end")
        await self._connection.execute("select pg_stat_force_next_flush()")
        for row in await self._connection.fetch(DUE, float(SHARE)):
            await self._connection.execute(f"vacuum analyze coordinator.{row['relname']}")

    async def sizes(self) -> dict[str, int]:
        return {row["name"]: row["bytes"] for row in await self._connection.fetch(SIZES)}

    async def _move(self) -> None:
        await self._connection.execute("select set_config('coordinator.fake_now', $1, false)", self._now.isoformat())

    async def _run(self, operation: Any) -> Any:
        return await self._single.run(operation)

    async def _calls(self, name: str, call: int) -> None:
        run = self._run
        agent = (
            await run(agents.Register(project=PROJECT, name=name, job_types=["work"], ttl=timedelta(minutes=20)))
        ).id
        for _ in range(3):
            await run(agents.Heartbeat(agent=agent))
        await run(signals.Set(project=PROJECT, key=f"passing/{name}", value=name, ttl=timedelta(hours=2)))
        await run(signals.Set(project=PROJECT, key=f"kept/{call}", value={"text": "x" * 200}, critical=True))
        grants = await run(locks.Acquire(project=PROJECT, resources=[f"lock/{name}", f"same/{call}"], agent=agent))
        await run(
            locks.Release(
                project=PROJECT,
                resources=[grant.resource for grant in grants],
                agent=agent,
                tokens=[grant.fencing_token for grant in grants],
            )
        )
        later = timedelta(minutes=30) if call % 3 == 0 else None
        await run(
            jobs.Enqueue(
                project=PROJECT, type="work", payload={"n": call}, key=f"k{call}", dedupe_key=name, delay=later
            )
        )
        for job in await run(jobs.Claim(project=PROJECT, agent=agent, limit=10)):
            given = {"project": PROJECT, "job": job.id, "agent": agent, "fence": job.fence}
            if call % 5 == 0:
                await run(jobs.Fail(**given, error="broken", final=True))
            else:
                await run(jobs.Complete(**given, result={"n": call}))
        sent = await run(directives.Send(project=PROJECT, to_agent=str(agent), body="Do it.", ttl=timedelta(hours=2)))
        await run(directives.Acknowledge(project=PROJECT, directive=sent.id, agent=str(agent)))
        await run(events.Emit(project=PROJECT, type="custom.load", key=name))
        key = {"project": PROJECT, "caller": "x", "key": name}
        await run(idempotency.Claim(**key, request="r"))
        await run(idempotency.Store(**key, response="{}"))
        value = msgspec.Raw(b'{"text": "' + b"x" * 300 + b'"}')
        await run(
            logs.Append(project=PROJECT, kind="note", key=f"log/{call}", entries=msgspec.Raw(b'[{"data": "entry"}]'))
        )
        await run(
            logs.Append(
                project=PROJECT,
                kind="note",
                key=f"passing/{self._number % 20}",
                entries=msgspec.Raw(b'[{"data": "entry"}]'),
            )
        )
        await run(documents.Put(project=PROJECT, kind="note", key=f"same/{call}", value=value))
        await run(documents.Put(project=PROJECT, kind="note", key=name, value=value, ttl=KEPT))
        if call % 2:
            await run(agents.Deregister(agent=agent))  # the others are reaped


async def test_days_of_load_leave_the_sizes_of_tables_and_indexes_as_they_were(database_url: str) -> None:
    with structlog.testing.capture_logs():
        largest = await lived_through(database_url)
    before, last = largest[-2:]
    for name in sorted(last, key=lambda name: -last[name])[:15]:
        print(f"{name}: {[sizes.get(name, 0) for sizes in largest]}")  # noqa: T201
    bounds = {name: GROWTH * before.get(name, 0) + SLACK_BYTES for name in last}
    assert {name: [sizes.get(name, 0) for sizes in largest] for name in last if last[name] > bounds[name]} == {}


async def lived_through(url: str) -> list[dict[str, int]]:
    """Return the largest size of each table and index, of each day."""
    async with opened(url) as connection:
        await connection.execute("set statement_timeout = 0")
        day = Day(connection)
        await day.begin()
        largest: list[dict[str, int]] = []
        for _ in range(DAYS):
            sizes: dict[str, int] = {}
            for _ in range(timedelta(days=1) // STEP):
                await day.step()
                sizes = {name: max(bytes_, sizes.get(name, 0)) for name, bytes_ in (await day.sizes()).items()}
            largest.append(sizes)
        return largest

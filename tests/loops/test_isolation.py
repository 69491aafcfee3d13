"""No loop waits for what a transaction holds in one project: what is due in all others is done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from coordinator.config import Config
from coordinator.db.call import Transaction, call
from coordinator.loops.loop import Loop
from coordinator.loops.table import table
from coordinator.model.operation import Operation
from coordinator.operations import webhooks
from tests.conftest import Transaction as Shared
from tests.daemon import opened
from tests.populated import populate

pytestmark = pytest.mark.usefixtures("bounded_waits")

# The work of these loops belongs to no project. Every other loop needs work in WORK.
COMMON = {
    "event_extend",
    "event_prune",
    "job_extend",
    "job_index",
    "job_prune",
    "upkeep_analyze",
    "server_measure",
    "metric_sample",
}
STORE = "s3://objects/x"
CLOCK = """
create or replace function coordinator.now_utc() returns timestamptz language sql volatile parallel safe
return clock_timestamp() + interval '1 day';
create or replace function coordinator.server_settled() returns boolean language sql stable return true
"""
# What is due in a project, in addition to what `populate` leaves. Some of it takes hours to come about, so it is written directly.
WORK = """
do $do$
declare
  v_project bigint := coordinator.project_id('{project}');
  v_agent   uuid := (select id from coordinator.agent_register('{project}', 'worker', p_job_types => '{{asked}}'));
  v_job     record;
begin
  perform coordinator.signal_set('{project}', 'short', '1', p_ttl => '1 second');
  perform coordinator.directive_send('{project}', 'soon over', 'a', p_ttl => '1 minute');
  perform coordinator.directive_send('{project}', 'over', 'a', p_ttl => '1 minute');
  perform coordinator.lock_acquire('{project}', '{{short.py}}', v_agent, p_ttl => '1 second');
  perform coordinator.lock_break('{project}', 'x.py', 'why');
  perform coordinator.queue_set('{project}', 'fair', p_fair_by => 'key');
  perform coordinator.limit_set('{project}', 'rate', p_rate => 1, p_per => '1 second', p_type => 'x');
  perform coordinator.limit_set('{project}', 'each', p_rate => 1, p_per => '1 second', p_type => 'y', p_per_key => true);
  perform coordinator.job_enqueue('{project}', 'later', p_queue => 'fair', p_key => 'a', p_delay => '1 hour');
  perform coordinator.job_enqueue('{project}', 'expiring', p_start_by => now() + interval '1 hour', p_dedupe_key => 'one', p_dedupe_for => '1 hour');
  perform coordinator.job_enqueue('{project}', 'after', p_queue => 'fair', p_key => 'b',
    p_after => array[(select id from coordinator.job_enqueue('{project}', 'before'))]);
  perform coordinator.job_enqueue('{project}', 'asked', p_queue => 'fair', p_key => 'c');
  select * into v_job from coordinator.job_claim('{project}', v_agent);
  perform coordinator.job_suspend('{project}', v_job.id, v_agent, v_job.fence, 'wait', '[{{"signal": "told"}}]');
  perform coordinator.signal_set('{project}', 'told', '1');
  perform coordinator.cron_set('{project}', 'hourly', '0 * * * *', '{{"type": "fired", "queue": "fair", "key": "d"}}');
  perform coordinator.webhook_add('{project}', 'https://example.com/other', '{{signal.*}}');
  perform coordinator.limit_set('{project}', 'gone', p_slots => 1);
  update coordinator.job_limits set tree = gen_random_uuid() where name = 'gone';
  insert into coordinator.job_changes (project_id, jobs, actor, requested_at)
  select v_project, array[id], 'a', now() from coordinator.job_enqueue('{project}', 'doomed');
  insert into coordinator.job_limit_waits (limit_id, due_at) select id, now() from coordinator.job_limits where name = 'rate' on conflict do nothing;
  insert into coordinator.job_keys (limit_id, hash) select id, 1 from coordinator.job_limits where name = 'each' on conflict do nothing;
  insert into coordinator.job_classes (project_id, queue, type) select v_project, 'fair', 'idle ' || n from generate_series(1, 501) n;
  insert into coordinator.job_placements (class_id, ageings, began_at)
  select id, '{{}}', now() from coordinator.job_classes where type = 'before' on conflict do nothing;
  insert into coordinator.jobs_unsettled select after_id, true from coordinator.job_dependencies on conflict do nothing;
  insert into coordinator.idempotency_keys (project, key, request, created_at, expires_at) values ('{project}', 'k', '', now(), now());
  perform coordinator.retention_set('{project}', 'session', '*', '1 hour');
  perform coordinator.retention_set('{project}', 'artifact', '*', '1 hour');
  insert into coordinator.signals (project_id, key, value, version, critical, actor, created_at, updated_at)
  values (-v_project, 'gone', '1', 1, true, 'a', now(), now());
  insert into coordinator.logs (project_id, kind, key, epoch, updated_at) values (1e9 + v_project, 'gone', 'gone', 0, now());
  insert into coordinator.documents (project_id, kind, key, version, epoch, actor, created_at, updated_at)
  values (1e9 + v_project, 'gone', 'gone', 1, 0, 'a', now(), now());
  insert into coordinator.artifact_objects (store, key, created_at, due_at) values ('{store}', '{project}', now(), now());
  update coordinator.jobs_waiting set due_at = now() where cause = 'jobs';
  update coordinator.jobs_running set deadline_at = now();
  update coordinator.directives set status = 'expired', ended_at = now() - interval '100 days' where body = 'over';
  update coordinator.lock_breaks set broken_at = now() - interval '100 days';
  update coordinator.files_seen set seen_at = now() - interval '100 days';
  update coordinator.briefings set read_at = now() - interval '100 days';
  perform coordinator.agent_deregister((select id from coordinator.agent_register('{project}', 'ended')));
  update coordinator.agents_ended set ended_at = now() - interval '100 days';
  update coordinator.logs set trim_at = now() where kind <> 'audit';
  update coordinator.documents set expires_at = now();
  update coordinator.sessions set trim_at = now();
  update coordinator.artifacts set trim_at = now();
  update coordinator.artifact_blobs set due_at = now();
  update coordinator.webhook_deliveries set status = 'dead', ended_at = now() - interval '100 days' where type = 'x';
  perform coordinator.webhook_queue(id, '', 'y', null, '{{}}', now()) from coordinator.webhooks where project_id = v_project and paused_at is null;
end
$do$;
"""
OWNERS = {
    "project_id": "t.project_id",
    "project": "(select p.id from coordinator.projects p where p.name = t.project)",
    "log_id": "(select o.project_id from coordinator.logs o where o.id = t.log_id)",
    "document_id": "(select o.project_id from coordinator.documents o where o.id = t.document_id)",
    "directive_id": "(select o.project_id from coordinator.directives o where o.id = t.directive_id)",
    "blob_id": "(select o.project_id from coordinator.artifact_blobs o where o.id = t.blob_id)",
    "webhook_id": "(select o.project_id from coordinator.webhooks o where o.id = t.webhook_id)",
    "class_id": "(select o.project_id from coordinator.job_classes o where o.id = t.class_id)",
    "limit_id": "(select o.project_id from coordinator.job_limits o where o.id = t.limit_id)",
    "job_id": "(select o.project_id from coordinator.jobs_open o where o.id = t.job_id)",
    "id": "(select o.project_id from coordinator.jobs_open o where o.id = t.id)",
}
# Columns by which a loop finds its work, or records it.
DUE = ("expires_at", "free_at", "due_at", "start_by", "deadline_at", "trim_at")
POSITIONS = ("swept_to", "after_seq", "seq", "claim")
KEYS = """
select pg_advisory_xact_lock(k) from (
  select coordinator.lock_queue_key({held}) union all select hashtextextended('', {held})
  union all select coordinator.limit_key({held}) union all select coordinator.limit_class_key({held})
  union all select coordinator.queue_key(q.project_id, q.name) from coordinator.queues q where q.project_id = {held}) k (k)"""


MAX_RUNS = 20


async def columns(connection: asyncpg.Connection) -> dict[str, list[str]]:
    """Return the columns of each table that name its project, or when something is due."""
    rows = await connection.fetch(
        """
        select c.relname, array_agg(a.attname::text order by array_position($1, a.attname::text))
        from pg_class c join pg_attribute a on a.attrelid = c.oid and not a.attisdropped and a.attnum > 0
        where c.relnamespace = 'coordinator'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
          and a.attname = any ($1::text[]) and (a.attname <> 'id' or c.relname in ('projects', 'jobs_unsettled'))
        group by 1 order by c.relname <> 'projects', 1""",
        [*OWNERS, *DUE, *POSITIONS],
    )
    return dict(rows)


def owner(table: str, names: list[str]) -> str:
    """Return an expression for the project of a row of a table t."""
    return "t.id" if table == "projects" else OWNERS.get(names[0], "null::bigint")


def state_of_others(found: dict[str, list[str]], held: int) -> str:
    """Return a query for how much there is, and is due, in all projects except one."""
    values = [
        (table, name, value)
        for table, names in found.items()
        for name, value in [
            ("rows", "count(*)"),
            *((name, f"count(*) filter (where t.{name} <= coordinator.now_utc())") for name in names if name in DUE),
            *((name, f"max(t.{name})") for name in names if name in POSITIONS),
        ]
    ]
    return " union all ".join(
        f"select '{table}.{name}', {value} from coordinator.{table} t where {owner(table, found[table])} is distinct from {held}"
        for table, name, value in values
    )


@asynccontextmanager
async def undone(connection: asyncpg.Connection) -> AsyncIterator[None]:
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()


async def run(connection: asyncpg.Connection, one: Loop | Operation[Any]) -> None:
    """Run a loop until it has done what it can do."""
    if isinstance(one, Loop):
        for _ in range(MAX_RUNS):
            result = await one.run(Transaction(connection))
            if not result.handled and result.again_s is None:
                return
    else:
        # Not twice in one transaction: PostgreSQL checks a foreign key again if the transaction has changed the row before.
        for _ in range(1 if isinstance(one, webhooks.Fill) else 2):
            await call(connection, one)


async def test_what_a_transaction_holds_in_one_project_obstructs_a_loop_in_no_other(database_url: str) -> None:
    """Whatever is held in one project, a loop does the same in all others as if nothing was held. The held project comes first in every order."""
    loops: dict[str, Loop | Operation[Any]] = {
        loop.name: loop if type(loop) is Loop else loop.operation for loop in table(Config(artifact_store=STORE))
    }
    loops |= {one.function: one for one in (webhooks.Fill(), webhooks.ClaimDeliveries())}
    async with opened(database_url) as connection, opened(database_url) as holder:
        for project in ("held", "free"):
            await connection.execute("select coordinator.project_create($1)", project)
            await populate(connection, project)
            await connection.execute(WORK.format(project=project, store=STORE))
        await connection.execute("select * from coordinator.relay_step()")
        await connection.execute(CLOCK)
        held = await connection.fetchval("select coordinator.project_id('held')")
        found = await columns(connection)
        state = await connection.prepare(state_of_others(found, held))
        before = dict(await state.fetch())

        async def outcome(name: str) -> dict[str, tuple[int, int]]:
            async with undone(connection):
                await run(connection, loops[name])
                return {key: (before[key], value) for key, value in await state.fetch() if value != before[key]}

        async def hold(tables: set[str]) -> None:
            for one, names in found.items():
                if one in tables and (of := owner(one, names)) != "null::bigint":
                    await holder.execute(f"select from coordinator.{one} t where {of} = {held} for update")
            await holder.execute(KEYS.format(held=held))

        expected = {name: await outcome(name) for name in loops}
        assert {name for name, changes in expected.items() if not changes} == COMMON, expected
        owned = set(found) - {"events"}
        due = {table for table in owned if {*found[table]} & {*DUE}}
        for what, by in (
            ("all that due rows need", hold(owned - due)),
            ("all rows", hold(owned)),
            ("a project that is being deleted", holder.execute("select coordinator.project_delete('held')")),
        ):
            async with undone(holder):
                await by
                for name in loops:
                    assert await outcome(name) == expected[name], (what, name)


async def test_a_flood_in_one_project_leaves_others_their_share_of_a_run(tx: Shared) -> None:
    await tx.set_clock(timedelta(0))
    for project, count in (("flood", 30), ("calm", 2)):
        await tx.connection.execute("select coordinator.project_create($1)", project)
        for _ in range(count):
            await tx.connection.execute("select coordinator.job_enqueue($1, 'x', p_delay => '1 second')", project)
        await tx.set_clock(timedelta(milliseconds=10))
    await tx.set_clock(timedelta(minutes=1))
    left = "select count(*) from coordinator.jobs_later l join coordinator.jobs_open j using (id) where j.project_id = coordinator.project_id($1)"
    assert await tx.connection.fetchval("select coordinator.job_promote(10)") == 7
    assert await tx.connection.fetchval(left, "calm") == 0
    assert await tx.connection.fetchval(left, "flood") == 25


async def test_a_flood_of_waits_that_end_by_time_leaves_those_of_others_their_share(tx: Shared) -> None:
    await tx.set_clock(timedelta(0))
    for project, count in (("flood", 30), ("calm", 2)):
        await tx.connection.execute("select coordinator.project_create($1)", project)
        agent = await tx.connection.fetchval(
            "select id from coordinator.agent_register($1, 'a', p_job_types => '{x}')", project
        )
        for _ in range(count):
            await tx.connection.execute("select coordinator.job_enqueue($1, 'x')", project)
            await tx.connection.execute(
                """
                select coordinator.job_suspend($1, c.id, $2, c.fence, 'w', '[{"signal": "never"}]', p_ttl => '1 minute')
                from coordinator.job_claim($1, $2) c""",
                project,
                agent,
            )
        await tx.set_clock(timedelta(milliseconds=10))
    await tx.set_clock(timedelta(minutes=2))
    left = "select count(*) from coordinator.job_waits where project_id = coordinator.project_id($1)"
    await tx.connection.execute("select coordinator.job_wait_match(10)")
    assert await tx.connection.fetchval(left, "calm") == 0
    assert await tx.connection.fetchval(left, "flood") == 25


async def test_a_flood_of_waits_on_one_event_delays_no_wait_of_others(database_url: str) -> None:
    """They end with 10 MB of outcomes, of which a run collects 4. The waits of others are compared with later events in the same run."""
    async with opened(database_url) as connection, opened(database_url) as holder:
        for project, count in (("flood", 40), ("calm", 1)):
            await connection.execute("select coordinator.project_create($1)", project)
            agent = await connection.fetchval(
                "select id from coordinator.agent_register($1, 'a', p_job_types => '{x}')", project
            )
            await connection.execute(
                "select coordinator.job_enqueue($1, 'x') from generate_series(1, $2)", project, count
            )
            await connection.execute(
                """
                select coordinator.job_suspend($1, c.id, $2, c.fence, 'w', '[{"signal": "told"}]')
                from coordinator.job_claim($1, $2, $3) c""",
                project,
                agent,
                count,
            )
        await connection.execute("select * from coordinator.relay_step()")
        await connection.execute("select coordinator.job_wait_match()")  # all of them have caught up
        for project, size in (("flood", 250_000), ("calm", 1)):
            await connection.execute(
                "select coordinator.signal_set($1, 'told', to_jsonb(repeat('x', $2)))", project, size
            )
            await connection.execute("select * from coordinator.relay_step()")
        await connection.execute("select coordinator.signal_set('flood', 'told', '2')")
        await connection.execute("select * from coordinator.relay_step()")
        left = "select count(*) from coordinator.job_waits where project_id = coordinator.project_id($1)"
        async with undone(holder):
            # One of them cannot fall behind: the loop stays at the event for now, and the others wait no longer.
            await holder.execute("""
                select from coordinator.job_waits where project_id = coordinator.project_id('flood')
                order by job_id desc limit 1 for update""")
            await connection.execute("select coordinator.job_wait_match()")
        assert await connection.fetchval(left, "flood") > 0
        while await connection.fetchval(left, "flood") > 0:
            assert await connection.fetchval("select coordinator.job_wait_match()") > 0
            assert await connection.fetchval(left, "calm") == 0
        sizes = "select octet_length(s.result #>> '{signal,value}') from coordinator.job_steps_open s"
        assert sorted(row[0] for row in await connection.fetch(sizes)) == [1, *[250_000] * 40]


async def test_what_is_due_behind_a_flood_is_not_limited_to_what_is_due_before_its_end(tx: Shared) -> None:
    for project in ("flood", "calm"):
        await tx.connection.execute("select coordinator.project_create($1)", project)
    for at, (project, count) in enumerate((("flood", 8), ("calm", 1), ("flood", 20), ("calm", 9))):
        await tx.set_clock(timedelta(milliseconds=at))
        await tx.connection.execute(
            "select coordinator.job_enqueue($1, 'x', p_delay => '1 second') from generate_series(1, $2)", project, count
        )
    await tx.set_clock(timedelta(minutes=1))
    assert await tx.connection.fetchval("select coordinator.job_promote(10)") == 10
    left = "select count(*) from coordinator.jobs_later l join coordinator.jobs_open j using (id) where j.project_id = coordinator.project_id($1)"
    assert await tx.connection.fetchval(left, "calm") == 5
    assert await tx.connection.fetchval(left, "flood") == 23


async def test_a_wait_that_is_locked_and_behind_delays_no_other_one(database_url: str) -> None:
    async with opened(database_url) as connection, opened(database_url) as holder:
        for project in ("held", "free"):
            await connection.execute("select coordinator.project_create($1)", project)
            agent = await connection.fetchval(
                "select id from coordinator.agent_register($1, 'a', p_job_types => '{x}')", project
            )
            await connection.execute("select coordinator.job_enqueue($1, 'x')", project)
            await connection.execute(
                """
                select coordinator.job_suspend($1, c.id, $2, c.fence, 'w', '[{"signal": "told"}]')
                from coordinator.job_claim($1, $2) c""",
                project,
                agent,
            )
            await connection.execute("select * from coordinator.relay_step()")
        await connection.execute("select coordinator.signal_set('free', 'told', '1')")
        await connection.execute("select * from coordinator.relay_step()")
        # As if the log had been read further than these waits, which begin in different chunks.
        await connection.execute("""
            update coordinator.job_waits w set behind = true, after_seq = coalesce((
              select max(c.first_seq) - 1 from coordinator.event_chunks c where w.project_id = coordinator.project_id('free')), 0)""")
        await connection.execute(
            "update coordinator.job_wait_log set seq = (select max(last_seq) from coordinator.event_chunks)"
        )
        async with undone(holder):
            await holder.execute(
                "select from coordinator.job_waits w where project_id = coordinator.project_id('held') for update"
            )
            await connection.execute("select coordinator.job_wait_match()")
            assert await connection.fetchval("select count(*) from coordinator.job_waits") == 1


async def test_a_run_is_bounded_however_many_projects_have_work(tx: Shared) -> None:
    for n in range(30):
        await tx.connection.execute("select coordinator.project_create($1)", f"p{n}")
        await tx.connection.execute("select coordinator.job_enqueue($1, 'x', p_delay => '1 second')", f"p{n}")
    await tx.set_clock(timedelta(minutes=1))
    assert [await tx.connection.fetchval("select coordinator.job_promote(10)") for _ in range(4)] == [10, 10, 10, 0]


async def test_obstructed_projects_hide_no_others_however_many_they_are(database_url: str) -> None:
    async with opened(database_url) as connection, opened(database_url) as holder:
        for n in range(13):
            await connection.execute("select coordinator.project_create($1)", f"p{n:02}")
            await connection.execute("select coordinator.job_enqueue($1, 'x', p_delay => '1 second')", f"p{n:02}")
        await connection.execute("update coordinator.jobs_later set due_at = now()")
        async with undone(holder):
            await holder.execute("""
                select from coordinator.jobs_later l join coordinator.jobs_open j using (id)
                where j.project_id <> coordinator.project_id('p12') for update of l""")
            assert [await connection.fetchval("select coordinator.job_promote(5)") for _ in range(3)] == [0, 0, 1]
        assert [await connection.fetchval("select coordinator.job_promote(5)") for _ in range(4)] == [5, 5, 2, 0]


async def test_a_flood_that_takes_long_to_step_over_is_not_stepped_over_in_each_run(tx: Shared) -> None:
    for at, (project, count) in enumerate((("flood", 40), ("calm", 2))):
        await tx.set_clock(timedelta(seconds=at))
        await tx.connection.execute("select coordinator.project_create($1)", project)
        await tx.connection.execute(
            "select coordinator.job_enqueue($1, 'x', p_delay => '1 second') from generate_series(1, $2)", project, count
        )
    await tx.set_clock(timedelta(minutes=1))
    left = "select count(*) from coordinator.jobs_later l join coordinator.jobs_open j using (id) where j.project_id = coordinator.project_id($1)"
    until = "select set_config('coordinator.loops', format('{\"job_promote\": {\"until\": %s}}', $1::double precision), true)"
    await tx.connection.execute(until, 1e12)
    assert await tx.connection.fetchval("select coordinator.job_promote(10)") == 10
    assert [await tx.connection.fetchval(left, project) for project in ("flood", "calm")] == [30, 2]
    await tx.connection.execute(until, 0)
    await tx.connection.execute("alter function coordinator.project_due(text, bigint[], integer) rename to slow_due")
    await tx.connection.execute("""
        create function coordinator.project_due(p_due text, p_except bigint[], p_limit integer, out projects bigint[], out items text[])
        language plpgsql volatile as $$
        begin
          perform pg_sleep(0.06);
          select d.* into projects, items from coordinator.slow_due(p_due, p_except, p_limit) d;
        end
        $$""")
    began = await tx.connection.fetchval("select extract(epoch from clock_timestamp())::double precision")
    assert await tx.connection.fetchval("select coordinator.job_promote(10)") == 7
    assert [await tx.connection.fetchval(left, project) for project in ("flood", "calm")] == [25, 0]
    again = await tx.connection.fetchval(
        "select (current_setting('coordinator.loops')::jsonb #>> '{job_promote,until}')::double precision"
    )
    assert again > began + 0.6


async def test_a_run_begins_with_the_project_after_the_last_one_of_a_run_that_took_too_long(tx: Shared) -> None:
    projects = [f"p{n}" for n in range(3)]
    for project in projects:
        await tx.connection.execute("select coordinator.project_create($1)", project)
        await tx.connection.execute("select coordinator.job_enqueue($1, 'x', p_delay => '1 second')", project)
    await tx.set_clock(timedelta(minutes=1))
    await tx.connection.execute("""
        select set_config('coordinator.loops', jsonb_build_object('job_promote', jsonb_build_object('after', coordinator.project_id('p0')))::text, true)""")
    assert await tx.connection.fetchval("select coordinator.job_promote(10)") == 3
    told = [event["project"] for event in await tx.events() if event["type"] == "job.enqueued"]
    assert told == ["p1", "p2", "p0"]

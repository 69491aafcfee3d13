"""What the verbs of jobs read: in tables of any size, with any statistics, and with a month of history.

Nothing here looks at plans. A verb runs in a savepoint; PostgreSQL counts which tables it scanned and how many rows and pages it read
(a search of a whole index reads pages, and few rows), and its locks say which partitions it opened, even for nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Iterator
from uuid import uuid4

import pytest

from coordinator.db.connection import connect
from coordinator.model.json import value_of
from tests.conftest import ADOPT_EPOCH, UNTENDED, Transaction, admin, cloned, with_database
from tests.sql.test_job_history import enqueue, worker
from tests.sql.test_queue_place import at_once

MANY = 5_000
MOST = 200  # rows of one table that a call for a handful of jobs may read
PAGES = 2_000  # that a call may read: of jobs_open alone, a scan of an index would read four times as many
DAYS = 30

# As one enqueue, claim and completion each would leave them, in 15 classes of 3 queues, one of them fair.
FILL = """
with n as materialized (
  select n, (lpad(to_hex(n), 12, '0') || '70008000000000000000')::uuid as id, 'q' || n % 3 as queue, 't' || n % 5 as type, (n % 100)::text as key from generate_series(1, {n}) n),
queue as (
  insert into coordinator.queues (project_id, name, fair, actor, created_at, updated_at)
  select {project}, 'q' || n, n = 2, 'a', now(), now() from generate_series(0, 2) n on conflict do nothing),
class as (
  insert into coordinator.job_classes (project_id, queue, type) select distinct {project}, queue, type from n returning id, queue, type),
lane as (
  insert into coordinator.job_lanes (class_id, key)
  select distinct c.id, n.key from n join class c using (queue, type) where n.queue = 'q2' returning id, class_id, key),
permit as (
  insert into coordinator.job_permits (class_id, turn, lane_id) select class_id, nextval('coordinator.job_turns'), id from lane),
job as (
  insert into coordinator.jobs_open (id, project_id, class_id, queue, type, key, payload, actor, created_at, scheduled_at, dedupe_key)
  select n.id, {project}, c.id, n.queue, n.type, n.key, '{{}}', 'a', now(), now(), case when n.n % 3 = 0 then 'd' || n.n end
  from n join class c using (queue, type)),
dedupe as (
  insert into coordinator.job_dedupes (project_id, key, job_id) select {project}, 'd' || n, id from n where n % 3 = 0),
ready as (
  insert into coordinator.jobs_ready (class_id, lane_id, rank, id)
  select c.id, coalesce(l.id, 0), coordinator.job_rank(now(), 0, null) + n.n, n.id
  from n join class c using (queue, type) left join lane l on l.class_id = c.id and l.key = n.key where n.n % 4 < 2),
later as (
  insert into coordinator.jobs_later (id, class_id, due_at) select n.id, c.id, now() + interval '1 hour' from n join class c using (queue, type) where n.n % 4 = 2),
step as (
  insert into coordinator.job_steps_open (job_id, place, name, ordinal, kind, result, fence, actor, finished_at, bytes)
  select id, 1, 's', 1, 'step', '1', 1, 'a', now(), 1 from n),
waiting as (
  insert into coordinator.jobs_waiting (id, class_id, cause) select gen_random_uuid(), c.id, 'wait' from n join class c using (queue, type) returning id),
wait as (
  insert into coordinator.job_waits (job_id, project_id, name, ordinal, conditions, fence, worker, began_at, due_at, after_seq, behind)
  select id, {project}, 's', 1, '[]', 1, 'a', now(), now() + interval '1 hour', 0, false from waiting),
watch as (
  insert into coordinator.job_watches (project, topic, key, job_id) select 'default', 'custom.x', id::text, id from waiting),
agent as (
  insert into coordinator.agents (project_id, project, name, job_types, ttl, registered_at, heartbeat_at, expires_at)
  select {project}, 'default', 'a' || n, '{{t0}}', interval '1 day', now(), now(), now() + interval '1 day' from generate_series(1, {n} / 20) n
  returning id)
insert into coordinator.jobs_running (id, fence, agent_id, class_id, attempt, started_at, deadline_at)
select n.id, nextval('coordinator.job_fences'), gen_random_uuid(), c.id, 1, now(), now() + interval '1 day'
from n join class c using (queue, type) where n.n % 4 = 3"""

ENDED = """
insert into coordinator.jobs_ended (id, project_id, queue, type, priority, payload, labels, max_attempts, actor, created_at, scheduled_at,
                                    status, attempts, completed_at, ended_by)
select (lpad(to_hex(n), 12, '0') || '70008000000000000000')::uuid, {project}, 'q', 't', 0, '{{}}', '{{}}', 3, 'a', now(), now(), case n % 2 when 0 then 'completed' else 'failed' end, 1,
       now() - n * interval '{days} days' / {n}, 'a'
from generate_series(1, {n}) n"""

# Others wait for locks and for their tree, and reserve of budgets.
OTHERS = """
with n as materialized (select n, gen_random_uuid() as id from generate_series(1, {n}) n),
class as (select c.id, n.cause from unnest(array['lock', 'limit']) n (cause), (select id from coordinator.job_classes where queue = 'q0' and type = 't0') c),
open as (
  insert into coordinator.jobs_open (id, project_id, class_id, queue, type, payload, actor, created_at, scheduled_at, parent_id, root_id, depth)
  select n.id, {project}, c.id, 'q0', 't0', '{{}}', 'a', now(), now(), '{root}', '{root}', 1 from n join class c on c.cause = 'limit'),
waiting as (
  insert into coordinator.jobs_waiting (id, class_id, cause)
  select case c.cause when 'limit' then n.id else md5(n.n::text)::uuid end, c.id, c.cause from n cross join class c),
tree as (
  insert into coordinator.job_tree_waits (job_id, limit_id, class_id, rank)
  select n.id, l.id, c.id, n.n from n join class c on c.cause = 'limit' join coordinator.job_limits l on l.name = 'tree'),
lock as (
  insert into coordinator.job_lock_waits (job_id, project_id, blocker, wanted, class_id, rank)
  select md5(n.n::text)::uuid, {project}, 'd' || n.n, 'd' || n.n, c.id, n.n from n join class c on c.cause = 'lock')
insert into coordinator.job_charges (limit_id, period_at, job_id, reserved)
select l.id - n.n % 2, case when n.n % 2 = 0 then now() - interval '1 day' else '-infinity' end, n.id, 1 from n join coordinator.job_limits l on l.name = 'budget'"""

# q0 has none.
LIMITS = [
    "'budget', p_budget => 1000000",
    "'slots', p_slots => 3000, p_queue => 'q1'",
    "'rate', p_rate => 1000000, p_queue => 'q1'",
    "'keys', p_slots => 1000, p_per_key => true, p_queue => 'q2'",
    "'rates', p_rate => 1000, p_per_key => true, p_queue => 'q2'",
    "'budgets', p_budget => 1000, p_reserve => 1, p_per_key => true, p_queue => 'q2'",
]

HOT = [
    "jobs_open",
    "jobs_ready",
    "jobs_later",
    "jobs_running",
    "job_classes",
    "job_lanes",
    "job_permits",
    "job_dedupes",
    "job_steps_open",
    "job_waits",
    "job_watches",
    "jobs_waiting",
    "job_slots",
    "job_keys",
    "job_buckets",
    "job_limit_waits",
    "job_tree_waits",
    "job_lock_waits",
    "job_charges",
    "job_placements",
    "agents",
]
# Of few rows, one for each key. With statistics of an empty table, a claim may read them all (until upkeep_analyze).
SPARED = {"emptied": ["job_classes", "job_keys", "job_lanes"], "stale": ["job_keys"]}
SIZES = {
    "never analysed": (0, False),
    "small": (20, True),
    "large": (MANY, True),
    "stale": (MANY, False),
    "emptied": (MANY, False),
    "huge": (1_000_000, True),
}


@pytest.fixture(
    scope="module",
    params=[*list(SIZES)[:-1], pytest.param("huge", marks=pytest.mark.long)],
    ids=lambda name: name.replace(" ", "_"),
)
def filled_database(server_url: str, template: str, request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """Name of a database of this size, which is copied and never used itself, and the time of its clock."""
    name = f"filled_{uuid4().hex[:8]}"
    asyncio.run(admin(server_url, f"create database {name} template {template}"))
    yield name, asyncio.run(fill(with_database(server_url, name), request.param))
    asyncio.run(admin(server_url, f"drop database {name} with (force)"))


async def fill(url: str, size: str) -> str:
    rows, analysed = SIZES[size]
    connection = await connect(url)
    await connection.execute(ADOPT_EPOCH)
    project = await connection.fetchval("select id from coordinator.projects where name = 'default'")
    for day in range(1, DAYS):
        await connection.execute(
            "select set_config('coordinator.fake_now', (now() - make_interval(days => $1))::text, false)", day
        )
        await connection.execute("select coordinator.job_extend(0)")
    await connection.execute("select set_config('coordinator.fake_now', '', false)")
    await connection.execute(UNTENDED)  # the statistics are those that the case says, however long it takes
    tables = ", ".join(f"coordinator.{name}" for name in [*HOT, "queues", "jobs_ended"])
    if size == "stale":  # as if there were nothing
        await connection.execute(f"analyze {tables}", timeout=600)
    if rows:
        await connection.execute("set statement_timeout = 0")
        await connection.execute(FILL.format(n=rows, project=project), timeout=600)
        await connection.execute(ENDED.format(n=min(rows, 100_000), project=project, days=DAYS - 1), timeout=600)
    for limit in LIMITS:
        await connection.execute(f"select coordinator.limit_set('default', {limit})", timeout=600)
    root = await connection.fetchval("select id from coordinator.job_enqueue('default', 'root', p_queue => 'trees')")
    for tree in ("'tree', p_slots => 3", "'tree rate', p_rate => 1000000", "'tree budget', p_budget => 1000000"):
        await connection.execute(f"select coordinator.limit_set('default', {tree}, p_tree => '{root}')")
    if rows:
        await connection.execute(OTHERS.format(n=rows // 2, project=project, root=root), timeout=600)
    if analysed:
        await connection.execute(f"analyze {tables}", timeout=600)
    if size == "emptied":  # a vacuum found nothing but the places of rows, and then they came
        names = ", ".join(f"'coordinator.{name}'" for name in HOT)
        await connection.execute(
            f"update pg_class set reltuples = 0, relpages = 100 where oid = any (array[{names}]::regclass[])"
        )
    at = await connection.fetchval("select now()::text")
    await connection.close()
    return str(at)


@pytest.fixture
async def filled(server_url: str, filled_database: tuple[str, str]) -> AsyncIterator[Transaction]:
    """A session of a database of its own: whoever creates a partition has it locked to the end of the transaction."""
    name, at = filled_database
    async with cloned(server_url, name) as url:
        connection = await connect(url)
        # The day does not end.
        await connection.execute("select set_config('coordinator.fake_now', $1, false)", at)
        await connection.execute("set statement_timeout = 0")
        yield Transaction(connection)
        await connection.close()


async def reads(tx: Transaction) -> dict[str, tuple[int, int]]:
    """Whole scans and rows read, by table."""
    rows = await tx.connection.fetch(
        "select relname, seq_scan, seq_tup_read + coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables where schemaname = 'coordinator'"
    )
    return {name: (scans, read) for name, scans, read in rows}


async def opened(tx: Transaction) -> set[str]:
    """Partitions of history that the transaction has locked."""
    rows = await tx.connection.fetch(
        "select distinct c.relname from pg_locks l join pg_class c on c.oid = l.relation"
        " where l.pid = pg_backend_pid() and c.relname ~ '^jobs_(un)?completed_(\\d+|default)$'"
    )
    return {row[0] for row in rows}


class Seen:
    """What calls read, at most."""

    def __init__(self) -> None:
        self.scanned: set[str] = set()
        self.rows: dict[str, int] = {}
        self.partitions: set[str] = set()
        self.pages = 0

    async def call(self, tx: Transaction, sql: str) -> None:
        transaction = tx.connection.transaction()
        await transaction.start()
        before = await reads(tx)
        text = await tx.connection.fetchval(f"explain (analyze, buffers, timing off, format json) {sql}")
        self.pages = max(self.pages, value_of(text)[0]["Plan"]["Shared Hit Blocks"])
        self.partitions |= await opened(tx)
        for name, (scans, read) in (await reads(tx)).items():
            if name in HOT or name.startswith("jobs_"):
                old_scans, old_read = before.get(name, (0, 0))
                self.rows[name] = max(self.rows.get(name, 0), read - old_read)
                if scans > old_scans:
                    self.scanned.add(name)
        await transaction.rollback()

    def faults(self, partitions: set[str], spared: Collection[str] = ()) -> dict[str, object]:
        found = {
            "scanned": self.scanned,
            "read": {name: rows for name, rows in self.rows.items() if rows > MOST and name not in spared},
            "opened": self.partitions - partitions,
            "pages": {self.pages for _ in range(self.pages > PAGES)},
        }
        return {what: len(names) if what == "opened" else names for what, names in found.items() if names}


VERBS = {
    "enqueue": "select coordinator.job_enqueue('default', 't0', p_queue => 'q0', p_dedupe_key => 'new')",
    "enqueue to a fair queue": "select coordinator.job_enqueue('default', 't0', p_queue => 'q2', p_key => '7')",
    "enqueue later": "select coordinator.job_enqueue('default', 't0', p_queue => 'q0', p_delay => '1 hour')",
    "enqueue many": """select coordinator.job_enqueue_many('default', '[{"type": "t0", "queue": "q0"}, {"type": "t1", "queue": "q2", "key": "8"}]')""",
    "claim": "select coordinator.job_claim('default', {agent}, 5)",
    "claim of a type": "select coordinator.job_claim('default', {agent}, 5, p_types => '{t1}', p_queues => '{q1}')",
    "claim with slots and a rate": "select coordinator.job_claim('default', {agent}, 5, p_queues => '{q1}')",
    "claim with slots per key": "select coordinator.job_claim('default', {agent}, 5, p_queues => '{q2}')",
    "complete with slots": "select coordinator.job_complete('default', {limited}, {agent}, {limited_fence})",
    "complete with slots per key": "select coordinator.job_complete('default', {keyed}, {agent}, {keyed_fence})",
    "claim of a tree": "select coordinator.job_claim('default', {agent}, 5, p_queues => '{treed}')",
    "claim with a budget": "select coordinator.job_claim('default', {agent}, 5, p_queues => '{charged}')",
    "claim with locks": "select coordinator.job_claim('default', {agent}, 5, p_queues => '{locked}')",
    "complete of a tree": "select coordinator.job_complete('default', {treed}, {agent}, {treed_fence})",
    "complete with a budget": "select coordinator.job_complete('default', {charged}, {agent}, {charged_fence})",
    "complete with locks": "select coordinator.job_complete('default', {locked}, {agent}, {locked_fence})",
    "spend": "select coordinator.job_spend('default', {charged}, {agent}, {charged_fence}, 'budget', 1)",
    "claim and finish": "select coordinator.job_claim('default', {agent}, 5, p_finished => array[{job}], p_fences => array[{fence}], p_results => '[1]')",
    "complete": "select coordinator.job_complete('default', {job}, {agent}, {fence})",
    "fail": "select coordinator.job_fail('default', {job}, {agent}, {fence}, 'boom')",
    "fail for good": "select coordinator.job_fail('default', {job}, {agent}, {fence}, 'boom', true)",
    "progress": "select coordinator.job_progress('default', {job}, {agent}, {fence}, 5, 'x')",
    "snooze": "select coordinator.job_snooze('default', {job}, {agent}, {fence}, '1 hour')",
    "release": "select coordinator.job_release('default', {job}, {agent}, {fence})",
    "step": "select coordinator.job_step('default', {job}, {agent}, {fence}, 'new')",
    "suspend": """select coordinator.job_suspend('default', {job}, {agent}, {fence}, 'new', '[{"event": "custom.x", "key": "k"}]', '1 hour')""",
    "ask": "select coordinator.job_ask('default', {job}, {agent}, {fence}, 'new', '?')",
    "steps": "select coordinator.job_steps('default', {job})",
    "reconcile": "select coordinator.job_reconcile('default', {agent}, array[{fence}])",
    "assert": "select coordinator.assert_job('default', {job}, {fence})",
    "cancel": "select coordinator.job_cancel('default', {waiting})",
    "cancel what runs": "select coordinator.job_cancel('default', {job})",
}
ENDS = {
    "claim and finish": ["completed"],
    "complete": ["completed"],
    "complete of a tree": ["completed"],
    "complete with a budget": ["completed"],
    "complete with locks": ["completed"],
    "complete with slots": ["completed"],
    "complete with slots per key": ["completed"],
    "fail for good": ["uncompleted"],
    "cancel": ["uncompleted"],
}
LOOPS = ["job_promote", "job_rescue", "job_expire", "job_dedupe_prune", "job_wait_match", "limit_refill", "queue_place"]
# Of a queue whose jobs have neither lanes nor ages, of one with slots, and of one whose keys have limits and so keep their lanes.
POLICIES = {
    "q0": "p_fair_by => 'key'",
    "q1": "p_ageing => '1 minute'",
    "q2": "p_fair_by => 'none', p_ageing => '1 minute'",
}


async def of_verbs(tx: Transaction) -> dict[str, str]:
    """The arguments: a worker that has a job, and a job that waits."""
    agent = await worker(tx, "mine", "t0 t1 t2 mine")
    await enqueue(tx, "mine", queue="'mine'")
    (grant,) = await tx.connection.fetch(
        "select * from coordinator.job_claim('default', $1, 1, p_types => '{mine}')", agent
    )
    waiting = await enqueue(tx, "t0", queue="'q0'")
    others = {}
    root = await tx.connection.fetchval("select tree from coordinator.job_limits where tree is not null")
    for name, queue, fields in (
        ("limited", "q1", {}),
        ("keyed", "q2", {}),
        ("treed", "treed", {"parent": f"'{root}'"}),
        ("charged", "charged", {"limits": """'{"budget": 5}'"""}),
        ("locked", "locked", {"locks": "'{src/}'"}),
    ):
        await enqueue(tx, "mine", queue=f"'{queue}'", key="'7'", **fields)
        (other,) = await tx.connection.fetch(
            "select * from coordinator.job_claim('default', $1, 1, p_queues => array[$2])", agent, queue
        )
        others |= {name: f"'{other['id']}'::uuid", f"{name}_fence": f"{other['fence']}::bigint"}
        if fields:
            await enqueue(tx, "mine", queue=f"'{queue}'", **fields)
    return {
        **others,
        "agent": f"'{agent}'::uuid",
        "job": f"'{grant['id']}'::uuid",
        "fence": f"{grant['fence']}::bigint",
        "waiting": f"'{waiting}'::uuid",
    }


async def test_no_verb_scans_a_table_or_opens_a_partition_that_it_does_not_need(
    filled: Transaction, request: pytest.FixtureRequest
) -> None:
    arguments = await of_verbs(filled)
    today = await filled.connection.fetchval("select to_char(coordinator.now_utc() at time zone 'UTC', 'YYYYMMDD')")
    faults = {}
    for verb, sql in VERBS.items():
        seen = Seen()
        for _ in range(7):  # with plans for these values, and from the sixth on with those for any
            await seen.call(
                filled,
                re.sub(
                    r"(?<!')\{(\w+)\}",
                    lambda match: arguments[match[1]],
                    sql,
                ),
            )
        needed = {f"jobs_{part}_{today}" for part in ENDS.get(verb, ())}
        if found := seen.faults(needed, SPARED.get(request.node.callspec.params["filled_database"], ())):
            faults[verb] = found
    assert faults == {}


async def test_no_loop_scans_a_table_when_it_has_nothing_to_do(
    filled: Transaction, request: pytest.FixtureRequest
) -> None:
    await filled.connection.execute("select moved from coordinator.relay_step()")
    await filled.connection.execute("select coordinator.job_wait_match()")
    await filled.connection.execute(
        "create or replace function coordinator.server_settled() returns boolean language sql stable return true;"
        "update coordinator.jobs_running set agent_id = (select id from coordinator.agents limit 1)"
    )
    faults = {}
    for loop in LOOPS:
        seen = Seen()
        for _ in range(7):
            await seen.call(filled, f"select coordinator.{loop}()")
        if found := seen.faults(set(), SPARED.get(request.node.callspec.params["filled_database"], ())):
            faults[loop] = found
    assert faults == {}


async def test_a_batch_of_a_new_policy_reads_the_jobs_that_it_places_and_scans_no_table(filled: Transaction) -> None:
    await at_once(filled.connection)
    while await filled.connection.fetchval("select coordinator.queue_place()"):  # what the limits began
        pass
    faults = {}
    for queue, policy in POLICIES.items():
        await filled.connection.execute(f"select coordinator.queue_set('default', '{queue}', {policy})", timeout=600)
        await filled.connection.fetchval("select coordinator.queue_place(20)", timeout=600)  # the first one counts them
        seen = Seen()
        for _ in range(7):
            await seen.call(filled, "select coordinator.queue_place(20)")
        if found := seen.faults(set()):
            faults[queue] = found
        await filled.connection.execute("truncate coordinator.job_placements")  # of the rest, for the next queue
    assert faults == {}

"""Plans of the statements that must stay quick with millions of rows, as the planner sees them with statistics of such."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from coordinator.model.json import value_of
from tests.conftest import Transaction


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


async def explain(tx: Transaction, sql: str) -> list[dict[str, Any]]:
    text = await tx.connection.fetchval(f"explain (format json) {sql}")
    return list(nodes(value_of(text)[0]["Plan"]))


async def statement(tx: Transaction, function: str, pattern: str, **variables: str) -> str:
    """One statement out of a function's body, with its variables replaced; fails when the function no longer has it."""
    source = await tx.connection.fetchval(
        "select prosrc from pg_proc where proname = $1 and pronamespace = 'coordinator'::regnamespace", function
    )
    found = re.search(pattern, source, re.DOTALL)
    assert found, f"{function} has changed: adapt the test"
    sql = found[0]
    for name, value in variables.items():
        sql = re.sub(rf"\b{name.replace('__', '.')}\b", value, sql)
    return sql


def indexes(plan: list[dict[str, Any]]) -> set[str]:
    return {node["Index Name"] for node in plan if "Index Name" in node}


def scanned(plan: list[dict[str, Any]]) -> set[str]:
    return {node["Relation Name"] for node in plan if node["Node Type"] == "Seq Scan"}


@pytest_asyncio.fixture(loop_scope="session")
async def full(tx: Transaction) -> Transaction:
    """A few thousand rows in each table, and statistics."""
    await tx.connection.execute("""
      insert into coordinator.projects (name, created_at, updated_at) select 'p' || n, now(), now() from generate_series(1, 20) n;
      insert into coordinator.signals (project_id, key, value, version, critical, actor, created_at, updated_at, expires_at)
        select p.id, 'dir' || n % 50 || '/' || n, '1', n, false, 'a', now(), now(), now() + n * interval '1 second'
        from coordinator.projects p, generate_series(1, 500) n;
      insert into coordinator.agents (project_id, project, name, role, process_id, ttl, registered_at, heartbeat_at, expires_at)
        select p.id, p.name, 'a' || n, 'r' || n % 5, case when n % 10 = 0 then n end, interval '30 seconds', now(), now(), now() + n * interval '1 second'
        from coordinator.projects p, generate_series(1, 200) n;
      insert into coordinator.directives (project_id, to_agent, body, priority, status, actor, sent_at, expires_at, ended_at)
        select p.id, 'a' || n % 100, 'x', n % 5, case when n % 10 = 0 then 'open' else 'revoked' end, 'boss', now(), now() + n * interval '1 second',
               case when n % 10 <> 0 then now() - n * interval '1 minute' end
        from coordinator.projects p, generate_series(1, 500) n;
      insert into coordinator.events (xid, id, type, project, actor, at, data)
        select (n / 10 + 1000)::text::xid8, n + 2990000, 'custom.x', 'default', 'a', now(), '{}' from generate_series(1, 20000) n;
      analyze coordinator.projects, coordinator.signals, coordinator.agents, coordinator.directives, coordinator.events""")
    return tx


def partitions(plan: list[dict[str, Any]]) -> set[str]:
    return {node["Relation Name"] for node in plan if node.get("Relation Name", "").startswith("events_")}


async def test_a_chunk_is_read_by_its_transactions_in_the_partitions_of_its_ids_only(full: Transaction) -> None:
    """The function is inlined, so that the plan has its bounds."""
    chunk = (
        "row(1, 500, '{2001,2002,2007}', 2999990, 3000005, false, '3:3:', 0, 0, '3', now())::coordinator.event_chunks"
    )
    plan = await explain(full, f"select * from coordinator.chunk_events({chunk}, 7, 'default', '^signal')")
    assert partitions(plan) == {"events_000002", "events_000003"}
    assert scanned(plan) == set()


async def test_the_relay_finds_its_candidates_by_transaction_in_the_newest_partitions(full: Transaction) -> None:
    sql = await statement(
        full, "relay_step", r"\(select l\.\* from.*?order by xid, id limit p_limit \+ 1",
        v_prev__base_id="3000990", v_xmax="'2990'::xid8", v_snap="'2900:3000:2901,2950'::pg_snapshot",
        v_late="'{2901,2950}'::xid8[]", v_late_id="3000007", v_own="null::xid8", v_top="3001000", p_limit="500",
    )  # fmt: skip
    plan = await explain(full, sql)
    assert partitions(plan) == {"events_000003"}
    assert indexes(plan) == {"events_000003_xid_id_idx"}
    assert scanned(plan) == set()


MANY = 20_000
PAGES = {
    "signals": (
        """insert into coordinator.signals (project_id, key, value, version, critical, actor, created_at, updated_at)
           select id, n, '1', n::bigint, true, 'a', now(), now() from p, n""",
        {
            "signal_list('default', p_after => array[$1::text], p_limit => 10)": "15000",
            "signal_list('default', '1', p_after => array[$1::text], p_limit => 10)": "15000",
        },
    ),
    "agents": (
        """insert into coordinator.agents (project_id, project, name, ttl, registered_at, heartbeat_at, expires_at)
           select id, 'default', 'same', '1 day', now(), now(), now() + interval '1 day' from p, n""",
        {"agent_list('default', p_after => array['same', $1::text], p_limit => 10)": str(UUID(int=2**127))},
    ),
    "directives": (
        """insert into coordinator.directives (project_id, body, priority, status, actor, sent_at, expires_at)
           select id, 'x', 0, 'open', 'boss', now(), now() + interval '1 day' from p, n""",
        {
            "directive_list('default', p_after => array[$1::text], p_limit => 10)": "id",
            "directive_list('default', false, array[$1::text], 10)": "id",
            "directive_inbox('default', 'a', array['0', $1::text], 10)": "id",
        },
    ),
    "signal_rules": (
        """insert into coordinator.signal_rules (project_id, when_set, clears, created_at) select id, n, '{X}', now() from p, n""",
        {"rule_list('default', array[$1::text, 'default'], 10)": "15000"},
    ),
    "tokens": (
        """insert into coordinator.tokens (hash, prefix, name, role, actor, created_at, expires_at)
           select encode(sha256(n::bytea), 'hex'), 'coo_abcd', 'a', 'reader', 'a', now(), now() from n""",
        {"token_list(array[$1::text], 10)": "id"},
    ),
    "projects": (
        "insert into coordinator.projects (name, created_at, updated_at) select 'p' || n, now(), now() from n",
        {"project_list(array[$1::text], 10)": "p15000"},
    ),
    "locks": (
        """insert into coordinator.locks (project_id, resource, slot, kind, mode, agent_id, agent_name, fencing_token, ttl, delay,
                                          acquired_at, expires_at, free_at)
           select id, n, 0, 'path', 'exclusive', gen_random_uuid(), 'a', n::bigint, '1 hour', '0', now(), now() + interval '1 hour', now() from p, n""",
        {"lock_list('default', p_after => array[$1::text, '0'], p_limit => 10)": "15000"},
    ),
}


@pytest.mark.parametrize("table", PAGES)
async def test_a_page_reads_what_it_gives_however_far_into_the_list_it_is(tx: Transaction, table: str) -> None:
    fill, calls = PAGES[table]
    connection = tx.connection
    await connection.execute("select coordinator.agent_register('default', 'a')")

    async def rows_read(call: str, place: str) -> int:
        query = f"select sum(coalesce(idx_tup_fetch, 0) + seq_tup_read)::bigint from pg_stat_xact_user_tables where relname = '{table}'"
        before = await connection.fetchval(query)
        rows = await connection.fetch(f"select * from coordinator.{call}", place)
        assert len(rows) == 10, call
        return int(await connection.fetchval(query) - before)

    await connection.execute(
        f"with p as (select id from coordinator.projects where name = 'default'), "
        f"n as (select n::text from generate_series(1, {MANY}) n) {fill}; analyze coordinator.{table}"
    )
    for call, given in calls.items():
        middle = f"select max(id) - {MANY // 2} from coordinator.{table}"
        place = str(await connection.fetchval(middle)) if given == "id" else given
        for _ in range(7):  # with a plan for these values, and from the sixth on with one for any
            assert await rows_read(call, place) < 100, call


async def test_signals_are_listed_by_prefix_through_the_primary_key(full: Transaction) -> None:
    sql = await statement(
        full, "signal_list", r"select p_project, s\.key.*?limit p_limit",
        p_project="'default'", v_project="1", p_prefix="'dir7/'", p_after="(null::text[])", p_limit="100",
    )  # fmt: skip
    plan = await explain(full, sql)
    assert indexes(plan) == {"signals_pkey"}
    condition = next(node["Index Cond"] for node in plan if node.get("Index Name") == "signals_pkey")
    assert "key < " in condition, "the prefix is a filter and no range"


async def test_expired_signals_are_found_by_their_time(full: Transaction) -> None:
    sql = await statement(
        full, "signal_expire", r"select project_id, key from .*?for update skip locked", v_now="now()", p_limit="10"
    )
    assert "signals_expires_at_idx" in indexes(await explain(full, sql))


async def test_an_inbox_reads_the_open_directives_of_its_project(full: Transaction) -> None:
    sql = await statement(
        full, "directive_inbox", r"select d\.id, p_project.*?limit p_limit",
        p_project="'default'", v_project="1", p_agent="'a7'", v_roles="'{r1}'::text[]", v_jobs="'{}'::uuid[]", p_after="(null::text[])", p_limit="100",
    )  # fmt: skip
    plan = await explain(full, sql)
    assert "directives_open_idx" in indexes(plan)
    assert "directives" not in scanned(plan)


async def test_directives_that_are_due_or_old_are_found_by_their_time(full: Transaction) -> None:
    sql = await statement(
        full, "directive_expire", r"select d\.id from .*?for update skip locked", v_now="now()", p_limit="10"
    )
    assert {"directives_expires_at_idx", "directives_job_idx"} <= indexes(await explain(full, sql))
    call = await statement(full, "directive_prune", r"\('coordinator\..*?\);")
    table, instant, _, _, which = re.findall(r"'(?:[^']|'')+'|\w+", call)
    text = await statement(full, "prune_rows", r"(?<=format\()'.*?'(?=,)")
    sql = await full.connection.fetchval(f"select format({text}, {table}, {which}, {instant})")
    sql = sql.replace("$1", "now() - interval '8 hours'").replace("$2", "10")
    assert "directives_ended_at_idx" in indexes(await explain(full, sql))


async def test_agents_of_a_name_are_found_by_index(full: Transaction) -> None:
    sql = await statement(
        full, "directive_inbox", r"select distinct a\.role.*?is not null", v_project="1", p_agent="'a7'"
    )
    assert indexes(await explain(full, sql)) == {"agents_name_idx"}


@pytest.mark.parametrize(
    ("condition", "index"),
    [
        ("coordinator.agents where expires_at <= now()", "agents_expires_at_idx"),
        ("coordinator.agents a where a.process_id = 10", "agents_process_idx"),
        ("coordinator.signals where agent_id = '00000000-0000-0000-0000-000000000000'", "signals_agent_idx"),
        ("coordinator.signals where expires_at <= now()", "signals_expires_at_idx"),
        ("coordinator.directives where status = 'open' and expires_at <= now()", "directives_expires_at_idx"),
    ],
)
async def test_the_loops_look_for_work_through_indexes(full: Transaction, condition: str, index: str) -> None:
    """As in work_due, agent_end and agent_reap, asked every second: on a quiet system nothing is read whole."""
    assert index in indexes(await explain(full, f"select from {condition} limit 1"))


async def test_the_rule_of_a_key_is_found_by_index_when_there_are_many(full: Transaction) -> None:
    await full.connection.execute("""
      insert into coordinator.signal_rules (project_id, when_set, clears, created_at)
        select 1, 'R' || n, '{X}', now() from generate_series(1, 2000) n;
      analyze coordinator.signal_rules""")
    sql = await statement(
        full, "signal_set", r"select r\.when_set, r\.clears into.*?limit 1", p_key="'t/R7'", v_project="1"
    )
    assert "signal_rules_when_set_key" in indexes(await explain(full, sql.replace("into v_rule", "")))


async def test_the_reaper_finds_lost_agents_without_reading_all(full: Transaction) -> None:
    for function, part, given in (
        ("agent_reap", r"\(select e\.project_id.*limit \$3\)", {}),
        (
            "agent_reap_in",
            r"select a\.id, a\.name, case when.*?for update of a skip locked",
            {"p_items": "array[gen_random_uuid()]", "p_project_id": "1"},
        ),
    ):
        sql = await statement(full, function, part, v_now="now()", **given)
        for number, value in enumerate(("now()", "'{}'::bigint[]", "1000"), 1):
            sql = sql.replace(f"${number}", value)
        plan = await explain(full, sql)
        assert "agents" not in scanned(plan), plan


async def test_the_reaper_reads_no_agent_of_a_process_that_lives(full: Transaction) -> None:
    await full.connection.execute("""
      insert into coordinator.processes (id, kind, name, started_at) overriding system value
        select distinct process_id, 'client', 'c', now() from coordinator.agents where process_id is not null;
      update coordinator.agents set expires_at = now() + interval '1 hour'""")
    due = await statement(full, "agent_reap", r"\(select e\.project_id.*limit \$3\)")
    read = "select seq_tup_read + coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables where relname = 'agents'"
    before = await full.connection.fetchval(read)
    assert await full.connection.fetchval("select projects from coordinator.project_due($1, '{}', 1000)", due) is None
    assert await full.connection.fetchval(read) - before < 100  # of 400 with 20 processes


NOTHING_DUE = """
create temp table n on commit drop as
  select n, gen_random_uuid() as id, now() + interval '1 hour' + n * interval '1 second' as t, p.id as p
  from generate_series(1, 2000) n, coordinator.projects p where p.name = 'default';
insert into coordinator.signals (project_id, key, value, version, critical, actor, created_at, updated_at, expires_at)
  select p, 'k' || n, '1', n, false, 'a', now(), now(), t from n;
insert into coordinator.agents (id, project_id, project, name, ttl, registered_at, heartbeat_at, expires_at)
  select id, p, 'default', 'a' || n, '1 hour', now(), t - interval '1 hour', t from n;
insert into coordinator.agents_ended
    (id, project_id, name, job_types, metadata, ttl, registered_at, heartbeat_at, expires_at, ended_at, end_reason, labels)
  select id, p, 'a' || n, '{}', '{}', '1 hour', t, t, t, t - interval '2 days', 'expired', '{}' from n;
insert into coordinator.directives (project_id, body, priority, status, actor, sent_at, expires_at)
  select p, 'x', 0, 'open', 'a', now(), t from n;
insert into coordinator.locks
    (project_id, resource, slot, kind, mode, agent_id, agent_name, fencing_token, ttl, delay, acquired_at, expires_at, free_at)
  select p, 'name:' || n, 0, 'name', 'exclusive', id, 'a', n, '1 hour', '0', now(), t, t from n;
insert into coordinator.lock_waits (ticket, project_id, resource, kind, mode, agent_id, agent_name, ttl, delay, enqueued_at, expires_at)
  select n, p, 'name:' || n, 'name', 'exclusive', id, 'a', '1 hour', '0', now(), t from n;
insert into coordinator.jobs_open (id, project_id, class_id, queue, type, payload, start_by, actor, created_at, scheduled_at)
  select id, p, 1, 'q', 't', '1', t, 'a', now(), now() from n;
insert into coordinator.jobs_later (id, class_id, due_at) select id, 1, t from n;
insert into coordinator.jobs_waiting (id, class_id, cause, due_at) select id, 1, 'wait', t from n;
insert into coordinator.job_waits (job_id, project_id, name, ordinal, conditions, fence, worker, began_at, due_at, after_seq)
  select id, p, 'w', 1, '{}', n, 'w', now(), t, 0 from n;
insert into coordinator.jobs_running (id, fence, agent_id, class_id, attempt, started_at, deadline_at) select id, n, id, 1, 1, now(), t from n;
insert into coordinator.crons (project_id, name, schedule, zone, missed, job, next_at, due_at, actor, created_at, updated_at)
  select p, 'c' || n, '* * * * *', 'UTC', 'once', '{}', t, t, 'a', now(), now() from n;
insert into coordinator.sessions (project_id, key, actor, created_at, updated_at, trim_at) select p, 's' || n, 'a', now(), now(), t from n;
"""


async def test_a_heartbeat_reads_no_table_to_learn_that_nothing_is_due(tx: Transaction) -> None:
    """Its plan is one for any instant, and so expects a third of each table to be due; without statistics, too."""
    await tx.connection.execute(NOTHING_DUE)
    await tx.connection.execute("set local plan_cache_mode = force_generic_plan")
    # A second at which it reads the catalogue as well.
    await tx.connection.execute("select set_config('coordinator.fake_now', (date_trunc('minute', now()))::text, true)")
    catalogue = await tx.connection.fetchval("select pg_relation_size('pg_class') / 8192")
    tables = set(re.findall(r"insert into (\S+)", NOTHING_DUE))
    read = "select relname, seq_tup_read + coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables"
    names = ", ".join(f"'{table}'::regclass" for table in tables)
    emptied = f"update pg_class set reltuples = 0, relpages = 100 where oid in ({names})"  # by a vacuum, before they were filled
    for statistics in ("select 1", f"analyze {', '.join(tables)}", emptied):
        await tx.connection.execute(statistics)
        assert "signal_expire" not in await tx.connection.fetchval("select coordinator.work_due()")
        before = dict(await tx.connection.fetch(read))
        text = await tx.connection.fetchval(
            "explain (analyze, buffers, timing off, format json) select coordinator.work_due()"
        )
        rows = {name: count - before.get(name, 0) for name, count in await tx.connection.fetch(read)}
        assert value_of(text)[0]["Plan"]["Shared Hit Blocks"] < 20 * len(tables) + catalogue, [
            (n, c) for n, c in rows.items() if c > 1
        ]


async def test_each_key_of_a_batch_is_looked_up_among_the_lanes_even_if_there_seem_to_be_none(tx: Transaction) -> None:
    await tx.connection.execute(
        "select coordinator.queue_set('default', 'q'); analyze coordinator.job_lanes;"
        " update pg_class set relpages = 1, reltuples = 0 where oid = 'coordinator.job_lanes'::regclass;"
        " set local enable_seqscan = off; set local enable_bitmapscan = off; set local plan_cache_mode = force_generic_plan"
    )
    sql = await statement(tx, "job_lanes_enter", r"with lane as materialized.*?(?=;\n)")
    sql = re.sub("--.*", "", sql).replace("into v_lanes, v_new, v_hashes", "")
    for number, variable in enumerate(("p_classes", "p_keys", "v_laned"), 1):
        sql = sql.replace(variable, f"${number}")
    await tx.connection.execute(f"prepare lanes (bigint[], text[], bigint[]) as {sql}")
    plan = await explain(tx, "execute lanes ('{1}', '{a}', '{1}')")
    looked_up = [
        node["Index Cond"] for node in plan if node.get("Relation Name") == "job_lanes" and "Index Cond" in node
    ]
    assert looked_up
    assert all("class_id" in condition and "key" in condition for condition in looked_up)
    assert not any(node.get("Join Type") == "Anti" for node in plan)

"""Functions: each defined once, in a file of sql/functions, with everything pinned, closed to PUBLIC."""

from __future__ import annotations

import re
from pathlib import Path

import asyncpg

from coordinator.db import schema

ROOT = Path(__file__).parent.parent.parent
DEFINITION = re.compile(r"^create (?:or replace )?(?:function|procedure) coordinator\.(\w+)\s*\(", re.MULTILINE)
# On the hottest path, or called for each pair of globs: setting it costs as much as they do, or prevents that they are inlined.
WITHIN_THEIR_CALLERS = (
    "chunk_events", "event_append", "lock_enter_plain", "lock_segments_meet", "lock_starts_meet", "log_append_any", "log_plain_drafts", "relay_payloads",
    "relay_run", "session_continue",
)  # fmt: skip
IN_SCHEMA = "p.pronamespace = 'coordinator'::regnamespace"


def defined() -> dict[str, str]:
    """Name of each function and the text of the file that defines it."""
    return {
        name: file.text for file in schema.files() if file.kind == "functions" for name in DEFINITION.findall(file.text)
    }


async def names(catalogue: asyncpg.Connection, condition: str) -> list[str]:
    query = f"select p.proname from pg_proc p join pg_language l on l.oid = p.prolang where {IN_SCHEMA} and {condition} order by 1"
    return [row[0] for row in await catalogue.fetch(query)]


async def test_a_function_is_defined_by_exactly_one_file(catalogue: asyncpg.Connection) -> None:
    found = [name for file in schema.files() if file.kind == "functions" for name in DEFINITION.findall(file.text)]
    assert sorted(found) == sorted(set(found)), "defined twice"
    assert sorted(defined()) == sorted(await names(catalogue, "true"))


async def test_no_function_is_overloaded(catalogue: asyncpg.Connection) -> None:
    # A parameter that is added silently makes a second function; the first must be dropped by a migration.
    query = f"select p.proname from pg_proc p where {IN_SCHEMA} group by 1 having count(*) > 1"
    assert await catalogue.fetch(query) == []


async def test_the_body_in_the_catalogue_is_that_of_the_file(catalogue: asyncpg.Connection) -> None:
    rows = await catalogue.fetch(
        f"select p.proname, p.prosrc from pg_proc p where {IN_SCHEMA} and p.prosqlbody is null"
    )
    files = defined()
    assert [row["proname"] for row in rows if row["prosrc"] not in files[row["proname"]]] == []


async def test_no_view_calls_a_function_that_each_query_plans_again(catalogue: asyncpg.Connection) -> None:
    # A function in SQL with a set clause is not inlined: before version 18, PostgreSQL parses and plans it in every query.
    rows = await catalogue.fetch(
        f"""
        select distinct p.proname from pg_depend d join pg_proc p on p.oid = d.refobjid join pg_language l on l.oid = p.prolang
        where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_proc'::regclass
          and l.lanname = 'sql' and p.proconfig is not null and {IN_SCHEMA}
        """
    )
    assert [row[0] for row in rows] == []


async def test_a_function_in_sql_without_settings_is_inlined(catalogue: asyncpg.Connection) -> None:
    # Otherwise, PostgreSQL plans it again in each transaction that calls it. It has a subquery, or is less constant than it says: for instance,
    # text || bigint depends on settings, and text || bigint::text does not.
    rows = await catalogue.fetch(
        f"""
        select p.proname, p.proretset, array(select format_type(t, null) from unnest(p.proargtypes) with ordinality u (t, n) order by n) as types
        from pg_proc p join pg_language l on l.oid = p.prolang
        where l.lanname = 'sql' and p.proconfig is null and p.prokind = 'f' and {IN_SCHEMA} order by 1
        """
    )
    called = []
    for name, is_set, types in rows:
        columns = ", ".join(["1 as n", *(f"null::{kind} as a{n}" for n, kind in enumerate(types))])
        call = f"coordinator.{name}({', '.join(f's.a{n}' for n in range(len(types)))})"
        source = f"(select {columns} from generate_series(1, 2) offset 0) s"
        query = f"select r from {source} cross join {call} r" if is_set else f"select {call} from {source}"
        plan = "\n".join(row[0] for row in await catalogue.fetch(f"explain (verbose, costs off) {query}"))
        called += [name] if f"coordinator.{name}(" in plan else []
    assert rows
    assert called == []


async def test_what_reads_chunks_of_the_log_does_not_plan_each_read(catalogue: asyncpg.Connection) -> None:
    # PostgreSQL prefers to plan again: the log has partitions, and a plan for known ids names only a few. That takes longer than reading a chunk.
    rows = await catalogue.fetch(
        f"select p.proname from pg_proc p where p.prosrc ~ 'coordinator\\.chunk_events\\(' and {IN_SCHEMA}"
        " and 'plan_cache_mode=force_generic_plan' <> all (coalesce(p.proconfig, '{}'))"
    )
    # events_since reads all chunks of a page at once, in the transaction of a reader, which would keep locks on all partitions.
    assert {row[0] for row in rows} == {"events_since"}


async def test_what_forbids_table_scans_and_must_scan_is_not_compiled(catalogue: asyncpg.Connection) -> None:
    # A forbidden scan costs 1e10. Before PostgreSQL 18, that is worth compiling the whole statement, each time that it runs: seconds.
    scanned = {
        row[0]
        for row in await catalogue.fetch(
            """
            select c.relname from pg_class c
            where c.relnamespace = 'coordinator'::regnamespace
              and (c.relkind = 'S'
                   or c.relkind = 'r' and (not exists (select from pg_index i where i.indrelid = c.oid)
                                           or exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'singleton')))
            """
        )
    }
    rows = await catalogue.fetch(
        f"select p.proname, concat(p.prosrc, pg_get_function_sqlbody(p.oid)), coalesce(p.proconfig, '{{}}') from pg_proc p where {IN_SCHEMA}"
    )
    settings = {name: set(config) for name, _, config in rows}
    scans = {name for name, text, _ in rows if scanned & set(re.findall(r"\b(?:from|join) coordinator\.(\w+)", text))}
    calls = {name: settings.keys() & set(re.findall(r"coordinator\.(\w+)\(", text)) for name, text, _ in rows}
    found = []
    for name, config in settings.items():
        reached = {name} if "enable_seqscan=off" in config else set()
        while more := {other for each in reached if "jit=off" not in settings[each] for other in calls[each]} - reached:
            reached |= more
        found += [(name, each) for each in reached & scans if "jit=off" not in settings[each]]
    assert {"work_due", "lock_poll", "relay_step"} <= scans
    assert sorted(found) == []


async def test_function_files_can_be_applied_again_without_any_difference(catalogue: asyncpg.Connection) -> None:
    query = f"select p.oid::regprocedure::text, pg_get_functiondef(p.oid) from pg_proc p where {IN_SCHEMA} order by 1"
    before = await catalogue.fetch(query)
    for file in schema.files():
        if file.kind == "functions":
            await catalogue.execute(file.text)
    await catalogue.execute("select coordinator.schema_close()")
    assert await catalogue.fetch(query) == before


async def test_every_function_pins_its_search_path_or_has_a_parsed_body(catalogue: asyncpg.Connection) -> None:
    pinned = "'search_path=pg_catalog, pg_temp' = any (coalesce(p.proconfig, '{}'))"
    assert await names(catalogue, f"p.prosqlbody is null and not {pinned}") == sorted(WITHIN_THEIR_CALLERS)


async def test_what_inherits_its_search_path_runs_as_its_caller_and_is_open_to_nobody(
    catalogue: asyncpg.Connection,
) -> None:
    inherits = f"p.proname in ({', '.join(map(repr, WITHIN_THEIR_CALLERS))})"
    rights = "p.proname in (select function from coordinator.rights)"
    assert await names(catalogue, f"{inherits} and (p.prosecdef or {rights})") == []


async def test_a_security_definer_is_in_a_safe_language_with_a_pinned_path(catalogue: asyncpg.Connection) -> None:
    unsafe = "(p.proconfig is null or 'search_path=pg_catalog, pg_temp' <> all (p.proconfig) or l.lanname not in ('sql', 'plpgsql'))"
    assert await names(catalogue, f"p.prosecdef and {unsafe}") == []


async def test_a_function_in_plpgsql_or_sql_needs_no_extension(catalogue: asyncpg.Connection) -> None:
    assert await names(catalogue, "l.lanname not in ('sql', 'plpgsql')") == []


async def test_nothing_is_open_to_public(catalogue: asyncpg.Connection) -> None:
    query = """
      select o.name from (
        select proname::text, coalesce(proacl, acldefault('f', proowner)) from pg_proc
        where pronamespace = 'coordinator'::regnamespace
        union all
        select relname::text, coalesce(relacl, acldefault(case relkind when 'S' then 's' else 'r' end::"char", relowner)) from pg_class
        where relnamespace = 'coordinator'::regnamespace
        union all
        select nspname::text, coalesce(nspacl, acldefault('n', nspowner)) from pg_namespace where nspname = 'coordinator'
      ) o (name, acl), aclexplode(o.acl) a where a.grantee = 0"""
    assert [row[0] for row in await catalogue.fetch(query)] == []


async def test_parameters_and_only_they_begin_with_p(catalogue: asyncpg.Connection) -> None:
    query = f"""
      select p.proname, a.name from pg_proc p, unnest(p.proargnames, p.proargmodes) a (name, mode)
      where {IN_SCHEMA} and (a.name like 'p\\_%') <> (coalesce(a.mode, 'i') = 'i')"""
    assert await catalogue.fetch(query) == []


async def test_volatility_is_stated(catalogue: asyncpg.Connection) -> None:
    words = {"i": "immutable", "s": "stable", "v": "volatile"}
    files = defined()
    silent = []
    for row in await catalogue.fetch(
        f"select p.proname, p.provolatile from pg_proc p where {IN_SCHEMA} and p.prokind = 'f'"
    ):
        text = files[row["proname"]]
        head = text[re.search(rf"function coordinator\.{row['proname']}\s*\(", text).start() :]  # type: ignore[union-attr]
        stated = re.search(r"^language \w+ (immutable|stable|volatile)", head, re.MULTILINE) or re.search(
            r"\blanguage \w+ (immutable|stable|volatile)", head
        )
        if stated is None or stated[1] != words[row["provolatile"].decode()]:
            silent.append(row["proname"])
    assert silent == []


def test_the_products_clock_reads_no_setting() -> None:
    """Whoever could move the clock could take what others hold."""
    (text,) = [file.text for file in schema.files() if file.name == "clock.sql"]
    assert re.search(r"function coordinator\.now_utc\(\)[^;]*return clock_timestamp\(\);", text)
    for file in schema.files():
        assert "fake_now'" not in file.text
        assert not re.search(r"(?<!prosrc )\bnow\(\)|current_timestamp|localtimestamp", file.text), file.name


async def test_the_clock_of_the_product_cannot_be_moved(catalogue: asyncpg.Connection) -> None:
    await catalogue.execute("set local coordinator.fake_now = '2001-01-01'")
    assert await catalogue.fetchval("select coordinator.now_utc() > '2020-01-01'")


async def test_whoever_notifies_asks_first_whether_the_queue_has_room(catalogue: asyncpg.Connection) -> None:
    """A full queue fails the commit. relay_tell gets its bound from relay_step."""
    assert await names(catalogue, r"p.prosrc ~* '\m(pg_notify|notify\s+\w)'") == ["relay_notify", "relay_tell"]
    assert all("pg_notification_queue_usage" in defined()[name] for name in ("relay_notify", "relay_room"))
    program = [path for path in (ROOT / "coordinator").rglob("*.py") if "pg_notify" in path.read_text("utf-8")]
    assert program == []

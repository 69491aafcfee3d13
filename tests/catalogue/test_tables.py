"""Tables: foreign keys that say what happens, indexes that say what for."""

from __future__ import annotations

import re

import asyncpg

from coordinator.db import schema

MIGRATIONS = "\n".join(file.text for file in schema.files() if file.kind in ("bootstrap", "migration"))

# (table, constraint) → why the deletion of the row that is referred to need not find these by an index.
UNINDEXED = {
    ("projects", "projects_user_fkey"): "hundreds of rows; read whole when a user is deleted",
    ("signal_rules", "signal_rules_project_fkey"): "tens of rows; read whole when a project is deleted",
    ("retention", "retention_project_fkey"): "tens of rows; read whole when a project is deleted",
    ("retention_sweeps", "retention_sweeps_project_fkey"): "nearly always empty",
}


async def test_every_foreign_key_says_on_delete(catalogue: asyncpg.Connection) -> None:
    query = """
      select conname from pg_constraint where connamespace = 'coordinator'::regnamespace and contype = 'f' and confdeltype = 'a'
        and conparentid = 0 order by 1"""
    silent = [row[0] for row in await catalogue.fetch(query)]
    written = [name for name in silent if re.search(rf"{name}\b[^,;]*on delete no action", MIGRATIONS)]
    assert silent == written


async def test_every_foreign_key_has_an_index_or_a_reason(catalogue: asyncpg.Connection) -> None:
    query = """
      select c.conrelid::regclass::text as "table", c.conname from pg_constraint c
      where c.connamespace = 'coordinator'::regnamespace and c.contype = 'f' and c.conparentid = 0
        and not exists (
          select from pg_index i where i.indrelid = c.conrelid and i.indpred is null
            and (i.indkey::int2[])[0:cardinality(c.conkey) - 1] @> c.conkey)
      order by 1, 2"""
    found = {(row["table"].removeprefix("coordinator."), row["conname"]) for row in await catalogue.fetch(query)}
    assert found == set(UNINDEXED) & found
    assert set(UNINDEXED) == found, "a reason for nothing"


async def test_every_index_says_in_its_line_which_query_it_serves(catalogue: asyncpg.Connection) -> None:
    # A key that only guards needs no query: its constraint is its purpose.
    query = """
      select c.relname, coalesce(k.contype::text, '') as kind from pg_index i
      join pg_class c on c.oid = i.indexrelid
      left join pg_constraint k on k.conindid = c.oid and k.contype in ('p', 'u', 'x')
      where c.relnamespace = 'coordinator'::regnamespace and not c.relispartition order by 1"""
    silent = []
    for name, kind in await catalogue.fetch(query):
        line = next((line for line in MIGRATIONS.splitlines() if re.search(rf"\b{name}\b", line)), "")
        if kind != "p" and not re.search(r"-- \w+", line):
            silent.append(name)
    assert silent == []


async def test_every_constraint_is_named_in_the_migration(catalogue: asyncpg.Connection) -> None:
    query = """
      select conname from pg_constraint c join pg_class t on t.oid = c.conrelid
      where connamespace = 'coordinator'::regnamespace and contype in ('c', 'f', 'p', 'u', 'x') and not t.relispartition"""
    assert [name for (name,) in await catalogue.fetch(query) if f"constraint {name}" not in MIGRATIONS] == []


async def test_texts_that_order_or_are_compared_by_prefix_are_of_collation_c(catalogue: asyncpg.Connection) -> None:
    """Another collation makes prefix queries slow, and an upgrade of the C library could break its indexes."""
    query = """
      select a.attrelid::regclass::text || '.' || a.attname from pg_index i
      join pg_class t on t.oid = i.indrelid and t.relnamespace = 'coordinator'::regnamespace and not t.relispartition
      join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey::int2[])
      where a.atttypid = 'text'::regtype and a.attcollation <> '"C"'::regcollation
        and t.relname not in ('schema_files', 'schema_roles')"""
    assert [row[0] for row in await catalogue.fetch(query)] == []


async def test_ids_are_identities_that_are_always_generated(catalogue: asyncpg.Connection) -> None:
    query = """
      select a.attrelid::regclass::text from pg_attribute a join pg_class c on c.oid = a.attrelid
      where c.relnamespace = 'coordinator'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
        and c.relname <> 'events' -- its default also rings the doorbell
        and a.attname = 'id' and a.atttypid in ('bigint'::regtype, 'integer'::regtype) and a.attidentity <> 'a'"""
    assert [row[0] for row in await catalogue.fetch(query)] == []

r"""`\d+` and `\df+` read like documentation: whatever people can meet in psql has a comment."""

from __future__ import annotations

import asyncpg


async def missing(catalogue: asyncpg.Connection, query: str) -> list[str]:
    return [row[0] for row in await catalogue.fetch(query)]


async def test_the_schema_has_a_comment(catalogue: asyncpg.Connection) -> None:
    assert await catalogue.fetchval("select obj_description('coordinator'::regnamespace, 'pg_namespace')")


async def test_every_table_view_and_sequence_has_a_comment(catalogue: asyncpg.Connection) -> None:
    # The sequence of an identity column is part of the column.
    query = """
      select c.oid::regclass::text from pg_class c
      where c.relnamespace = 'coordinator'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'S', 'f')
        and coalesce(obj_description(c.oid, 'pg_class'), '') = ''
        and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'i'
                          and c.relkind = 'S')
      order by 1"""
    assert await missing(catalogue, query) == []


async def test_every_column_of_tables_and_views_has_a_comment(catalogue: asyncpg.Connection) -> None:
    # The columns of a partition are those of its table.
    query = """
      select format('%s.%s', c.oid::regclass, a.attname) from pg_class c join pg_attribute a on a.attrelid = c.oid
      where c.relnamespace = 'coordinator'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition
        and a.attnum > 0 and not a.attisdropped and coalesce(col_description(c.oid, a.attnum), '') = ''
      order by 1"""
    assert await missing(catalogue, query) == []


async def test_every_function_and_type_has_a_comment(catalogue: asyncpg.Connection) -> None:
    query = """
      select p.oid::regprocedure::text from pg_proc p
      where p.pronamespace = 'coordinator'::regnamespace and coalesce(obj_description(p.oid, 'pg_proc'), '') = ''
      union all
      select format_type(t.oid, null) from pg_type t left join pg_class c on c.oid = t.typrelid
      where t.typnamespace = 'coordinator'::regnamespace and (t.typtype in ('d', 'e', 'r') or c.relkind = 'c')
        and coalesce(obj_description(t.oid, 'pg_type'), '') = ''
      order by 1"""
    assert await missing(catalogue, query) == []


async def test_comments_say_more_than_the_name(catalogue: asyncpg.Connection) -> None:
    query = """
      select d.description from pg_description d
      where d.classoid in ('pg_class'::regclass, 'pg_proc'::regclass) and length(d.description) < 5
        and (d.objoid in (select oid from pg_class where relnamespace = 'coordinator'::regnamespace)
             or d.objoid in (select oid from pg_proc where pronamespace = 'coordinator'::regnamespace))"""
    assert await missing(catalogue, query) == []

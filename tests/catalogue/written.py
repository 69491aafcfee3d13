"""Which lists can show what a call has written: those whose functions and views name one of its tables, however indirectly.

All names in the schema's functions and views are qualified, since their search path does not have it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

import asyncpg

__all__ = ["SCANS", "Written", "readers"]

SOURCES = """
select proname as name, coalesce(pg_get_function_sqlbody(oid), prosrc) as text
from pg_proc where pronamespace = 'coordinator'::regnamespace
union all
select relname, case relkind when 'v' then pg_get_viewdef(oid) else '' end
from pg_class where relnamespace = 'coordinator'::regnamespace and relkind in ('r', 'p', 'v')
"""
# Also what was rolled back; and each partition as its table. A table that came or went is in pg_class. The view with these
# numbers, pg_stat_xact_all_tables, also counts what was read, from each index.
COUNTS = """
select t.relname as name, sum(pg_stat_get_xact_tuples_inserted(c.oid) + pg_stat_get_xact_tuples_updated(c.oid)
  + pg_stat_get_xact_tuples_deleted(c.oid))::bigint as rows
from pg_class c join pg_class t on t.oid = case when c.relispartition then pg_partition_root(c.oid) else c.oid end
where c.relkind in ('r', 'p') and (c.relnamespace = 'coordinator'::regnamespace or c.oid = 'pg_class'::regclass) group by t.relname
"""


SCANS = """
select c.relname as name, sum(s.seq_scan + coalesce(s.idx_scan, 0))::bigint as scans
from pg_stat_xact_all_tables s join pg_class c on c.oid = coalesce(pg_partition_root(s.relid), s.relid)
where s.schemaname = 'coordinator' group by c.relname
"""
NO_CODE = re.compile(r"--[^\n]*|'(?:[^']|'')*'")  # hints name functions


class Written:
    """What a transaction has written, from one look to the next."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._before: dict[str, int] = {}

    async def tables(self) -> set[str]:
        """Return the tables that were written since the last look."""
        counts = {row["name"]: row["rows"] for row in await self._connection.fetch(COUNTS)}
        changed = {name for name, rows in counts.items() if rows != self._before.get(name, 0)}
        self._before = counts
        return changed


async def readers(connection: asyncpg.Connection, functions: Iterable[str]) -> dict[str, set[str]]:
    """Return, for each table, which of the functions may read it. One that puts names of tables into its queries may read any."""
    named: dict[str, set[str]] = defaultdict(set)
    free: set[str] = set()
    for row in await connection.fetch(SOURCES):
        text, code = row["text"], NO_CODE.sub("", row["text"])
        makes_queries = bool(re.search(r"\bexecute\b", code, re.IGNORECASE))
        named[row["name"]].update(re.findall(r"\bcoordinator\.(\w+)", text if makes_queries else code))
        if makes_queries and "coordinator.%" in text:
            free.add(row["name"])
    found: dict[str, set[str]] = {"pg_class": set(functions)}
    for function in found["pg_class"]:
        reached, ahead = {function}, [function]
        while ahead:
            new = named[ahead.pop()] & named.keys() - reached
            reached |= new
            ahead += new
        for name in named if reached & free else reached:
            found.setdefault(name, set()).add(function)
    return found

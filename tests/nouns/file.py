from __future__ import annotations

import asyncpg

from coordinator.operations import files
from tests.conftest import Transaction
from tests.nouns import Known, Pages

LIMITS = {
    "name": [
        "coordinator.file_leave('default', repeat('a', $1::integer))",
    ],
    "lock_resources": [
        "coordinator.file_edit('default', 's', array(select 'f' || n from generate_series(1, $1::integer) n))",
        "coordinator.file_record('default', 's', array(select 'f' || n from generate_series(1, $1::integer) n))",
    ],
    "file_hash": [
        "coordinator.file_edit('default', 's', '{a}', array[repeat('a', $1::integer)])",
        "coordinator.file_record('default', 's', '{a}', array[repeat('a', $1::integer)])",
    ],
    "lock_owner": [
        "coordinator.file_edit('default', 's', '{a}', p_owner => repeat('x', $1::integer))",
        "coordinator.file_leave('default', 's', p_owner => repeat('x', $1::integer))",
    ],
    "lock_ttl_max": [
        "coordinator.file_edit('default', 's', '{a}', p_ttl => make_interval(secs => $1))",
        "coordinator.file_edit('default', 's', '{a}', p_wait => make_interval(secs => $1))",
    ],
    "page": [
        "coordinator.file_list('default', p_limit => $1::integer)",
        "coordinator.file_prune(p_limit => $1::integer)",
    ],
}

JSON = {
    "file_edit": "coordinator.file_edit('default', 's', '{a}', p_metadata => jsonb_build_object('k', $1::text::jsonb))",
    "file_record": "coordinator.file_record('default', 's', '{a}', p_metadata => jsonb_build_object('k', $1::text::jsonb))",
}

ARGUMENTS = {
    "hashes": "'{{}}'",
    "step": "'read'",
    ("file_edit", "paths"): "'{{seen.py}}'",
    ("file_record", "paths"): "'{{seen.py}}'",
}

PYTHON_LACKS = {
    "file_edit": {"unreserved": "the gateway sets it"},
    "file_record": {"unreserved": "the gateway sets it"},
}
OPTIONS_LACK = {
    "file_edit": {"unreserved": "the gateway sets it"},
    "file_record": {"unreserved": "the gateway sets it"},
}
SPELLED = {
    "file_edit": {"hashes": "hash"},
    "file_record": {"hashes": "hash"},
    "file_leave": {"paths": "path"},
}


async def populate(connection: asyncpg.Connection, project: str, known: Known) -> None:
    await connection.execute("select coordinator.file_record($1, 'viewer', '{seen.py}', '{abc}')", project)


async def some_views(tx: Transaction) -> None:
    for name in ("a", "b"):
        for owner in ("s", "s/1"):
            await tx.run(files.Record(project="default", agent=name, owner=owner, paths=["x.py", "y.py", "y/z.py"]))


PAGES = [
    Pages(some_views, files.List(project="default"), 12),
    Pages(some_views, files.List(project="default", agent="a"), 6),
]

"""sql/previous.json: the parts of the schema that the previous release uses and this one must keep. `python -m tests.generate previous <commit>`.

It contains the commit of that release, its newest migration, and from its schema: the parameters, results and rights of
functions, the columns of views and tables, and the data of events. Functions and tables that a comment calls internal
are included if the program's own text contains their names.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import asyncpg

from coordinator.db import schema

ROOT = Path(__file__).parent.parent.parent
PREVIOUS = ROOT / "sql" / "previous.json"

FUNCTIONS = """
select p.proname as name, case p.prokind when 'p' then 'procedure' else 'function' end as kind,
       pg_get_function_result(p.oid) as result, rt.relname as row_of, r.role,
       coalesce(obj_description(p.oid, 'pg_proc'), '') ~ '\\mInternal\\M' as internal,
       (select array_agg(concat_ws(' ', a.name, format_type(a.type, null),
                                   case when a.place > p.pronargs - p.pronargdefaults then 'default' end) order by a.place)
        from unnest(p.proargnames[1:p.pronargs], p.proargtypes::oid[]) with ordinality a (name, type, place)) as parameters,
       (select array_agg(a.name || ' ' || format_type(a.type, null) order by a.place)
        from unnest(p.proargnames, p.proallargtypes, p.proargmodes) with ordinality a (name, type, mode, place)
        where a.mode = 't') as columns
from pg_proc p
join pg_type t on t.oid = p.prorettype
left join pg_class rt on rt.oid = t.typrelid and rt.relnamespace = 'coordinator'::regnamespace
left join coordinator.rights r on r.function = p.proname
where p.pronamespace = 'coordinator'::regnamespace and t.typname <> 'trigger'
order by p.proname collate "C"
"""
RELATIONS = """
select c.relname as name, c.relkind <> 'v' or coalesce(obj_description(c.oid, 'pg_class'), '') ~ '\\mInternal\\M' as internal,
       (select array_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod) order by a.attnum) from pg_attribute a
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns
from pg_class c
where c.relnamespace = 'coordinator'::regnamespace and c.relkind in ('r', 'p', 'v', 'c') and not c.relispartition
order by c.relname collate "C"
"""
EVENTS = 'select type, data from coordinator.event_types order by type collate "C"'


class HistoryMissing(Exception):
    """The previous release's commit is not in this clone."""


def unpack(commit: str, folder: Path) -> Path:
    """Write the files of a commit into a folder, and return it.

    Raises: ``HistoryMissing`` with what to do.
    """
    archive = subprocess.run(["git", "-C", ROOT, "archive", commit], capture_output=True, check=False)
    if archive.returncode != 0:
        raise HistoryMissing(
            f"git does not have commit {commit}, which {PREVIOUS.relative_to(ROOT)} names: {archive.stderr.decode().strip()}"
            " (a shallow clone gets it with: git fetch --unshallow, or a checkout with fetch-depth: 0)"
        )
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


def text_of(folder: Path, kind: str) -> str:
    return "\n".join(path.read_text("utf-8") for path in sorted(folder.rglob(f"*.{kind}")))


async def contract(connection: asyncpg.Connection, text: str) -> dict[str, Any]:
    """Return what a program with this text uses of the schema in the connection's database."""
    said, read = set(re.findall(r"\w+", text)), set(re.findall(r"\bcoordinator\.(\w+)", text))
    functions = {
        row["name"]: {
            "kind": row["kind"],
            "parameters": row["parameters"] or [],
            # The columns of a row are compared separately, since more may be added.
            "result": "rows" if row["columns"] else row["result"],
            "columns": row["columns"] or [],
            "role": row["role"],
        }
        for row in await connection.fetch(FUNCTIONS)
        if row["name"] in said or not row["internal"]
    }
    rows = {row["row_of"] for row in await connection.fetch(FUNCTIONS) if row["name"] in functions}
    relations = {
        row["name"]: row["columns"]
        for row in await connection.fetch(RELATIONS)
        if row["name"] in read | rows or not row["internal"]
    }
    events = {row["type"]: row["data"] for row in await connection.fetch(EVENTS)}
    return {"functions": functions, "relations": relations, "events": events}


def migrations(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "sql" / "migrations").glob("*.sql"))


def digest(root: Path) -> str:
    """Return a checksum of all function files."""
    files = [file.checksum for file in schema.files_in(root / "sql") if file.kind == "functions"]
    return hashlib.sha256("\n".join(files).encode()).hexdigest()


def written(facts: dict[str, Any]) -> str:
    """Return the text of the file: a line for each function, relation and event."""
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict):
            entries = ",\n".join(f"    {json.dumps(key)}: {json.dumps(entry)}" for key, entry in value.items())
            lines.append(f"  {json.dumps(name)}: {{\n{entries}\n  }}")
        else:
            lines.append(f"  {json.dumps(name)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def version_of(root: Path) -> str:
    return str(re.search(r'^version = "(.+?)"', (root / "pyproject.toml").read_text("utf-8"), re.MULTILINE)[1])  # type: ignore[index]


async def previous(connection: asyncpg.Connection, commit: str, folder: Path) -> dict[str, Any]:
    """Return the facts of a release: its schema is applied to the connection's empty database."""
    root = unpack(commit, folder)
    files = schema.files_in(root / "sql")
    ours = schema.files
    try:
        schema.files = lambda: files  # type: ignore[assignment]
        await schema.apply(connection)
    finally:
        schema.files = ours
    return {
        "commit": commit,
        "version": version_of(root),
        "migration": migrations(root)[-1],
        "functions_sha256": digest(root),
        **await contract(connection, text_of(root / "coordinator", "py")),
    }

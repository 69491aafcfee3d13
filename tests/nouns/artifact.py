from __future__ import annotations

import asyncpg

from coordinator.operations import artifacts
from tests.conftest import Transaction
from tests.nouns import Known, Pages

LIMITS = {
    "artifact_bytes": ["coordinator.artifact_begin('default', 'a', p_bytes => $1::bigint)"],
    "artifact_part_bytes": [
        "coordinator.artifact_put('default', 'a', repeat('x', $1::integer)::bytea)",
        "w from coordinator.artifact_begin('default', 'a') b, coordinator.artifact_write('default', b.upload, 1, repeat('x', $1::integer)::bytea) w",
    ],
    "artifact_parts": [
        "coordinator.artifact_write('default', b.upload, $1::integer, 'x') from coordinator.artifact_begin('default', 'a') b"
    ],
    "artifact_uploads": [
        "count(b.upload) from generate_series(1, $1::integer) n, lateral coordinator.artifact_begin('default', 'a' || n) b"
    ],
    "artifacts": ["coordinator.artifact_use(coordinator.project_id('default'), $1::bigint, 0)"],
    "artifacts_bytes": ["coordinator.artifact_use(coordinator.project_id('default'), 0, $1::bigint)"],
    "artifact_media_type": ["coordinator.artifact_put('default', 'a', 'x', 'text/' || repeat('x', $1::integer - 5))"],
    "key": [
        "coordinator.artifact_put('default', repeat('ü', $1::integer), 'x')",
        "coordinator.artifact_put('default', 'a', 'x', p_session => repeat('ü', $1::integer))",
    ],
    "page": [
        "coordinator.artifact_list('default', p_limit => $1::integer)",
        "coordinator.artifact_prune($1::integer)",
        "coordinator.artifact_object_delete('s3://b', $1::integer)",
    ],
}

ARGUMENTS = {
    "artifact": "'one'",
    "upload": "'{upload}'",
    "number": "1",
}

NOT_IN_PYTHON = {
    "artifact_abort": "client.artifacts.put(…) joins them",
    "artifact_begin": "client.artifacts.put(…) joins them",
    "artifact_finish": "client.artifacts.put(…) joins them",
    "artifact_write": "client.artifacts.put(…) joins them",
    "artifact_part": "client.artifacts.get(…) and stream(…)",
}
NOT_ON_THE_COMMAND_LINE = {
    "artifact_abort": "artifact put joins them",
    "artifact_begin": "artifact put joins them",
    "artifact_finish": "artifact put joins them",
    "artifact_write": "artifact put joins them",
    "artifact_part": "artifact get",
}
PYTHON_DEFAULTS = {"artifact_put": {"media_type": "what the name suggests"}}
PYTHON_ADDS = {
    "artifact_put": {"moved": "artifact_write again and again"},
}
SPELLED = {
    "artifact_put": {"artifact": "name", "media_type": "type"},
    "artifact_list": {"media_type": "type"},
}


async def drive(tx: Transaction) -> None:
    await tx.run(artifacts.Put(project="default", artifact="a", data=b"x", session="s"))
    await tx.run(artifacts.Keep(project="default", artifact="a", session="s"))
    await tx.run(artifacts.Delete(project="default", artifact="a", session="s"))


async def populate(connection: asyncpg.Connection, project: str, known: Known) -> None:
    await connection.execute("select coordinator.artifact_put($1, 'one', 'x')", project)
    known["upload"] = await connection.fetchval("select upload from coordinator.artifact_begin($1, 'one')", project)


async def some_artifacts(tx: Transaction) -> None:
    for name, session in (("a", None), ("a", "s"), ("a", "t"), ("b", None), ("é", "s"), ("é", None)):
        await tx.run(artifacts.Put(project="default", artifact=name, session=session, data=b"x"))


PAGES = [
    Pages(some_artifacts, artifacts.List(project="default"), 6),
    Pages(some_artifacts, artifacts.List(project="default", prefix="a"), 3),
]

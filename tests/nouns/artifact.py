from __future__ import annotations

from coordinator.operations import artifacts
from tests.conftest import Transaction

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
    "artifact_media_type": ["coordinator.artifact_put('default', 'a', 'x', 'text/' || repeat('x', $1::integer - 5))"],
    "key": [
        "coordinator.artifact_put('default', repeat('ü', $1::integer), 'x')",
        "coordinator.artifact_put('default', 'a', 'x', p_session => repeat('ü', $1::integer))",
    ],
    "page": [
        "coordinator.artifact_list('default', p_limit => $1::integer)",
        "coordinator.artifact_prune($1::integer)",
    ],
}


async def drive(tx: Transaction) -> None:
    await tx.run(artifacts.Put(project="default", artifact="a", data=b"x", session="s"))
    await tx.run(artifacts.Keep(project="default", artifact="a", session="s"))
    await tx.run(artifacts.Delete(project="default", artifact="a", session="s"))

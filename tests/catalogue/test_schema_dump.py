from __future__ import annotations

import asyncpg

from tests.dump_schema import TARGET, dump


async def test_schema_sql_is_what_the_files_make(catalogue: asyncpg.Connection) -> None:
    assert await dump(catalogue) == TARGET.read_text("utf-8"), 'run "make schema" and read the difference'

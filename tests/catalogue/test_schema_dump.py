from __future__ import annotations

import asyncpg

from tests import dump_schema


async def test_schema_sql_is_what_the_files_make(catalogue: asyncpg.Connection) -> None:
    written = dump_schema.SCHEMA.read_text("utf-8")
    assert await dump_schema.dump(catalogue) == written, 'run "make schema" and read the difference'


async def test_the_python_catalogue_is_what_the_files_declare(catalogue: asyncpg.Connection) -> None:
    written = dump_schema.CATALOGUE.read_text("utf-8")
    assert await dump_schema.catalogue(catalogue) == written, 'run "make schema" and read the difference'

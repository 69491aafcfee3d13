"""What is generated is what its source makes of it."""

from __future__ import annotations

import asyncpg

from tests.generate import docs, manifests, schema


async def test_schema_sql_is_what_the_files_make(catalogue: asyncpg.Connection) -> None:
    written = schema.SCHEMA.read_text("utf-8")
    assert await schema.dump(catalogue) == written, 'run "make schema" and read the difference'


async def test_the_python_catalogue_is_what_the_files_declare(catalogue: asyncpg.Connection) -> None:
    written = schema.CATALOGUE.read_text("utf-8")
    assert await schema.catalogue(catalogue) == written, 'run "make schema" and read the difference'


async def test_the_tables_in_docs_are_what_the_program_declares(catalogue: asyncpg.Connection) -> None:
    for page, text in (await docs.pages(catalogue)).items():
        assert text == page.read_text("utf-8"), f'{page.name}: run "make docs" and read the difference'


def test_the_manifest_of_alerts_has_the_rules_and_alerts_of_prometheus() -> None:
    for path, text in manifests.files().items():
        assert text == path.read_text("utf-8"), f'{path.name}: run "make docs" and read the difference'

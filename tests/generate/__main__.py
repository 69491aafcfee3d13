"""Write the generated files from a fresh database: `schema`, `docs`, or both; or `previous <commit>`.

`COORDINATOR_TEST_DATABASE_URL` may name its server, as for the suite.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from uuid import uuid4

from coordinator.db import schema
from coordinator.db.connection import connect
from tests.conftest import admin, local_server, with_database
from tests.generate import docs, manifests
from tests.generate.previous import PREVIOUS, previous, written
from tests.generate.schema import CATALOGUE, SCHEMA, catalogue, dump


async def _write(server_url: str, *what: str) -> None:
    name = f"generate_{uuid4().hex[:8]}"
    await admin(server_url, f"create database {name}")
    connection = await connect(with_database(server_url, name))
    try:
        if what[0] == "previous":
            commit = what[1]
            with tempfile.TemporaryDirectory() as folder:
                PREVIOUS.write_text(written(await previous(connection, commit, Path(folder))), "utf-8")
            return
        await schema.apply(connection)
        files = {}
        if "schema" in what:
            files |= {SCHEMA: await dump(connection), CATALOGUE: await catalogue(connection)}
        if "docs" in what:
            files |= await docs.pages(connection) | manifests.files()
        for path, text in files.items():
            path.write_text(text, "utf-8")
    finally:
        await connection.close()
        await admin(server_url, f"drop database {name}")


if __name__ == "__main__":
    given = os.environ.get("COORDINATOR_TEST_DATABASE_URL")
    with nullcontext(given) if given else local_server() as url:
        asyncio.run(_write(url, *sys.argv[1:]))

"""Apply the schema in a process of its own, and print how many files were applied: `<url> [stuck]`.

With `stuck`, it sleeps within the transaction, after everything else.
"""

from __future__ import annotations

import sys

import anyio

from coordinator.db import schema
from coordinator.db.connection import connect


async def main(url: str) -> None:
    connection = await connect(url)
    print(len(await schema.apply(connection)))  # noqa: T201
    await connection.close()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sound = schema.files()
        stuck = schema.SqlFile(sound[-1].kind, "zz_stuck.sql", "select pg_sleep(1000)", "0")
        schema.files = lambda: (*sound, stuck)  # type: ignore[assignment]
    anyio.run(main, sys.argv[1])

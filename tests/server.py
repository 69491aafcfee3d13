"""The PostgreSQL of the suite, as a program: it prints its address, and ends when its standard input ends."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

from coordinator import embedded
from coordinator.telemetry import logs

# Nothing in the suite loses power; tests of durability start servers of their own.
SETTINGS = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "max_connections": "300"}


async def main(folder: Path) -> None:
    async with embedded.run(folder, settings=SETTINGS) as server:
        print(server.dsn, flush=True)  # noqa: T201
        await anyio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)


if __name__ == "__main__":
    logs.configure(level="warning")
    anyio.run(main, Path(sys.argv[1]))

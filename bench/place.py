"""The place where a benchmark runs: a fresh cluster with full durability, the schema, and a daemon in a separate process."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import asyncpg
import msgspec

from coordinator import embedded
from coordinator.config import Config
from coordinator.daemon import serve
from coordinator.db import schema
from coordinator.db.connection import connect, retire
from coordinator.telemetry import logs

__all__ = ["SETTINGS", "Options", "Place", "daemon", "fresh"]

DAEMON_READY_S = 20.0
DRAIN_S = 120.0
WAITING = "select 'relay' = any (coordinator.work_due())"
SHOWN = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size", "wal_level")
# A checkpoint in the middle of a round would hit one side only.
SETTINGS = {"max_wal_size": "4GB", "checkpoint_timeout": "30min"}


class Options(msgspec.Struct, frozen=True):
    """The options of the command line."""

    bin_dir: Path | None
    rounds: int
    round_s: float
    snapshot_s: float
    jobs: int
    entries: int


class Place(msgspec.Struct):
    """A running server with the schema."""

    dsn: str
    version: str
    bin_dir: Path
    socket_dir: Path
    settings: dict[str, str]

    async def connect(self) -> asyncpg.Connection:
        """Open a connection; the caller closes it."""
        return await connect(self.dsn)

    async def drained(self) -> float:
        """Wait until the relay has numbered all events; return how long that took, in seconds."""
        connection = await self.connect()
        began = time.perf_counter()
        try:
            with anyio.fail_after(DRAIN_S):
                while await connection.fetchval(WAITING):
                    await anyio.sleep(0.005)
        finally:
            await retire(connection)
        return time.perf_counter() - began

    async def execute(self, *statements: str) -> None:
        """Run statements, each in its own transaction."""
        connection = await self.connect()
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await retire(connection)

    async def muted(self, statement: str) -> str:
        """Create a database with a schema that emits no events after ``statement``, and return its address."""
        await self.execute("create database mute")
        dsn = self.dsn.replace("/coordinator?", "/mute?")
        connection = await connect(dsn)
        try:
            await schema.apply(connection)
            await connection.execute(statement)
        finally:
            await retire(connection)
        return dsn


@asynccontextmanager
async def fresh(
    options: Options, *, disk: Path | None = None, settings: dict[str, str] | None = None
) -> AsyncIterator[Place]:
    """Start a fresh cluster, and remove it at the end."""
    with tempfile.TemporaryDirectory(prefix="coordinator-bench-", dir=disk, ignore_cleanup_errors=True) as folder:
        async with embedded.run(
            Path(folder), bin_dir=options.bin_dir, settings={**SETTINGS, **(settings or {})}
        ) as server:
            connection = await connect(server.dsn)
            try:
                await schema.apply(connection)
                shown = {name: await connection.fetchval("select current_setting($1)", name) for name in SHOWN}
            finally:
                await retire(connection)
            yield Place(server.dsn, server.version, server.bin_dir, server.socket_dir, shown)


@asynccontextmanager
async def daemon(place: Place) -> AsyncIterator[int]:
    """Run a daemon on the server; the context begins when it leads, with its process id."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.place", place.dsn)
    try:
        connection = await place.connect()
        try:
            with anyio.fail_after(DAEMON_READY_S):
                while process.returncode is None and not await connection.fetchval(
                    "select identity <> '' from coordinator.relay"
                ):
                    await anyio.sleep(0.1)
        finally:
            await retire(connection)
        if process.returncode is not None:
            raise SystemExit("the daemon ended unexpectedly")
        yield process.pid
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


if __name__ == "__main__":
    logs.configure(level="warning")
    anyio.run(serve, Config(database_url=sys.argv[1], port=0))

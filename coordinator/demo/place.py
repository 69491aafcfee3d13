"""Where the demonstration plays: the configured database, the embedded server that runs already, or one of its own.

With a configured database a daemon is started beside it for the duration: another may lead there, and nothing is harmed.
An embedded server that runs has its daemon. Else a daemon with an embedded server in a temporary folder is started.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import msgspec

from coordinator import embedded
from coordinator.config import Config
from coordinator.demo import processes
from coordinator.errors import DatabaseUnavailable

__all__ = ["Place", "open_place"]

START_S = 30.0
POLL_S = 0.05
SETTLES_S = 11.0  # a server gives up nobody in its first 10 seconds
STARTED = '"daemon.started"'


class Place(msgspec.Struct, frozen=True):
    """A database with a daemon; its server gives agents up from ``settled_at`` on (seconds since 1970), where known."""

    url: str
    direct_url: str | None
    settled_at: float | None
    description: str


@asynccontextmanager
async def open_place(config: Config, folder: Path) -> AsyncIterator[Place]:
    """Find or make a place until the context ends; ``folder`` is for what it needs.

    Raises: ``DatabaseUnavailable`` and what else a daemon that is started complains about.
    """
    if config.database_url is not None:
        extra = {"COORDINATOR_DATABASE_URL": config.database_url, "COORDINATOR_SCHEMA": config.schema}
        if config.direct_url is not None:
            extra["COORDINATOR_DIRECT_URL"] = config.direct_url
        async with _daemon([], extra, folder):
            yield Place(config.database_url, config.direct_url, None, "the configured database")
        return
    running = embedded.find(config.data_dir)
    if running is not None:
        yield _embedded(running, f"the server that runs on {running.data_dir}")
        return
    async with _daemon(["--data-dir", str(folder / "data")], {}, folder):
        own = embedded.find(folder / "data")
        if own is None:
            raise DatabaseUnavailable("the demonstration's own server has ended", hint="Try again.")
        yield _embedded(own, "a server of its own")


def _embedded(server: embedded.Server, description: str) -> Place:
    lines = (server.data_dir / "postgres" / "postmaster.pid").read_text("utf-8", "replace").splitlines()
    return Place(server.dsn, None, float(lines[2]) + SETTLES_S, description)


@asynccontextmanager
async def _daemon(arguments: list[str], extra: dict[str, str], folder: Path) -> AsyncIterator[None]:
    """Run a daemon that is told everything, and hears nothing of this process's own settings."""
    settings = folder / "coordinator.yaml"
    settings.touch()
    environment = processes.environment(COORDINATOR_CONFIG=str(settings), **extra)
    command = [
        "coordinator.demo.leash",
        sys.executable,
        "-m",
        "coordinator",
        "serve",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--log-format",
        "json",
        *arguments,
    ]
    daemon = processes.start("daemon", command, folder, environment=environment)
    try:
        await _await(daemon)
        yield
    finally:
        await processes.end([daemon])


async def _await(daemon: processes.Child) -> None:
    deadline = time.monotonic() + START_S
    while STARTED not in daemon.log.read_text("utf-8", "replace"):
        if daemon.process.poll() is not None or time.monotonic() > deadline:
            raise DatabaseUnavailable(
                "no daemon could be started for the demonstration",
                hint='Does "coordinator serve" start?',
                detail=daemon.tail(),
            )
        await anyio.sleep(POLL_S)

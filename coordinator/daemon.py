"""The daemon: builds everything long-lived, and takes it down in order.

Up: the listening socket (a taken port is noticed first), the embedded PostgreSQL if no database is configured, the first
connection (with back-off up to ``connect_limit_s``), the schema, the pool, a probe of the direct connection, this
process's liveness lock, heartbeat and loops and relay, HTTP.

Down, within 10 seconds of SIGTERM or SIGINT: ``/readyz`` answers 503; HTTP takes no more connections and finishes what is
under way; relay and loops stop (what they did not do waits in the database for another daemon); the liveness lock goes
with its connection, so another daemon leads at its next heartbeat; the pool; the embedded PostgreSQL. A second signal
ends at once.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import anyio
import structlog

import coordinator
from coordinator.api.app import Readiness, create_app
from coordinator.api.server import bind, serving
from coordinator.config import Config
from coordinator.db import embedded, schema
from coordinator.db.connection import connect
from coordinator.db.database import Database
from coordinator.db.session import Session
from coordinator.errors import ConfigurationError, DatabaseUnavailable
from coordinator.loops.agent_reap import agent_reap
from coordinator.loops.directive_expire import directive_expire
from coordinator.loops.gauge_sample import gauge_sample
from coordinator.loops.keeper import Keeper
from coordinator.loops.prune import directive_prune, event_prune, signal_prune
from coordinator.loops.signal_expire import signal_expire
from coordinator.operations.work import ProcessRegister
from coordinator.relay.relay import Relay

__all__ = ["serve"]

READY_WITHIN_S = 5.0  # since the last answer to a heartbeat
BACKOFF_FIRST_S = 0.1
BACKOFF_MOST_S = 5.0
PROBE_S = 5.0

log = structlog.get_logger()


async def serve(config: Config) -> None:
    """Run the daemon until SIGTERM or SIGINT.

    Raises: ``ConfigurationError``, ``DatabaseUnavailable`` (no connection within ``connect_limit_s``), ``SchemaMismatch``.
    """
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_until_shutdown, stop, tasks.cancel_scope)
        with bind(config.host, config.port) as listener:
            async with _database(config) as (database, place):
                await _run(config, database, listener, place, stop)
        tasks.cancel_scope.cancel()
    log.info("daemon.stopped")


async def _until_shutdown(stop: anyio.Event, scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            if stop.is_set():
                log.warning("daemon.aborted", signal=number.name)
                scope.cancel()
            elif number:
                log.info("daemon.stopping", signal=number.name)
                stop.set()


@asynccontextmanager
async def _database(config: Config) -> AsyncIterator[tuple[Database, dict[str, str]]]:
    """Open the configured database, or the embedded one, with the schema in place."""
    if config.database_url is not None:
        await _prepare(config, config.database_url, config.direct_url)
        async with Database.open(config.database_url, config) as database:
            yield database, {"psql": f"psql {without_password(config.database_url)!r}"}
        return
    async with embedded.run(config.data_dir) as server:
        await _prepare(config, server.dsn, None)
        async with Database.open(server.dsn, config, direct_dsn=server.dsn) as database:
            yield database, {"data": str(server.data_dir), "psql": server.psql}


async def _prepare(config: Config, url: str, direct_url: str | None) -> None:
    """Wait for the database and see to its schema."""
    deadline = time.monotonic() + config.connect_limit_s
    delay_s = BACKOFF_FIRST_S
    while True:
        try:
            connection = await connect(direct_url or url, call_timeout_s=config.call_timeout_s)
            break
        except DatabaseUnavailable as error:
            if time.monotonic() + delay_s > deadline:
                raise DatabaseUnavailable(
                    f"no database within {config.connect_limit_s:g} seconds: {error.message}",
                    hint=f"Is {without_password(url)} right, and is the server up?",
                ) from error
            log.warning("database.awaited", error=error.message, retry_s=round(delay_s, 2))
            await anyio.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311
            delay_s = min(delay_s * 2, BACKOFF_MOST_S)
    try:
        if config.schema == "apply":
            applied = await schema.apply(connection)
            if applied:
                log.info("schema.applied", files=applied)
        else:
            await schema.verify(connection)
    finally:
        connection.terminate()


async def _run(
    config: Config, database: Database, listener: socket.socket, place: dict[str, str], stop: anyio.Event
) -> None:
    """Run everything on an open database; each context ends after those within it."""
    process: int | None = None

    async def register(session: Session) -> None:
        nonlocal process
        process = await session.run(
            ProcessRegister(kind="daemon", name=f"{socket.gethostname()}:{os.getpid()}", id=process)
        )

    await _probe(database)
    session = database.session()
    session.on_connect = register
    relay = Relay(database)
    keeper = Keeper(
        database,
        [
            signal_expire(),
            directive_expire(),
            agent_reap(),
            event_prune(config.event_retention),
            directive_prune(config.directive_retention),
            signal_prune(),
            gauge_sample(),
        ],
        process=lambda: process if session.connected else None,
        on_due=lambda name: relay.nudge() if name == "relay" else None,
    )

    def readiness() -> Readiness:
        if stop.is_set():
            return Readiness(ready=False, leads=keeper.leads, reason="shutting down")
        if time.monotonic() - keeper.heard_at > READY_WITHIN_S:
            return Readiness(ready=False, leads=keeper.leads, reason="no answer from the database")
        return Readiness(ready=True, leads=keeper.leads)

    async with session.kept(), anyio.create_task_group() as tasks:
        tasks.start_soon(keeper.run_forever)
        tasks.start_soon(keeper.while_leading, relay.run_forever)
        async with serving(create_app(readiness), listener):
            _announce(listener, place)
            await stop.wait()
        tasks.cancel_scope.cancel()


async def _probe(database: Database) -> None:
    """Check that the direct connection is one: that what the pool notifies arrives.

    Raises: ``ConfigurationError`` where a pooler stands between.
    """
    channel = f"coordinator.probe.{os.getpid()}.{random.getrandbits(32):x}"
    async with database.session(channel).kept() as session:
        wake = session.wake(channel)
        await wake.wait(0)
        await database.notify(channel)
        with anyio.move_on_after(PROBE_S) as scope:
            await wake.wait(PROBE_S * 2)
        if scope.cancelled_caught:
            raise ConfigurationError(
                "notifications do not arrive on the direct connection",
                hint="A pooler in transaction mode cannot carry them: set COORDINATOR_DIRECT_URL to the server itself.",
            )


def _announce(listener: socket.socket, place: dict[str, str]) -> None:
    host, port = listener.getsockname()[:2]
    http = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    log.info("daemon.started", version=coordinator.__version__, pid=os.getpid(), http=http, **place)
    if sys.stderr.isatty():
        lines = {"HTTP": http, "data": place.get("data", "external"), "psql": place["psql"]}
        sys.stderr.write("".join(f"  {name:5} {value}\n" for name, value in lines.items()))


def without_password(url: str) -> str:
    """Write a database's address for people: without its password."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", "@")))

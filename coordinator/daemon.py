"""The daemon: builds everything long-lived, and shuts it down in order.

Start: the listening socket (first, so that a port in use is reported at once), the embedded PostgreSQL if no database is
configured, the first connection (retried for ``connect_limit_s``), the schema, the pool, a probe of the direct connection,
the liveness lock of this process, heartbeat, loops and relay, HTTP. Calls have a pool; heartbeats, loops, relay, webhooks, gateway and
checks of tokens have connections of their own, so that calls that wait cannot stop them.

Shutdown, within 10 seconds of SIGTERM or SIGINT: ``/readyz`` responds with 503. HTTP accepts no more connections, closes
streams and long-polls, and finishes running requests. Relay, loops and webhooks stop; the rest of their work waits in the database for
another daemon. The liveness lock ends with its connection, so another daemon leads at its next heartbeat. The pool closes,
and the embedded PostgreSQL stops. A second signal, or a signal during the start, ends the daemon at once.
"""

from __future__ import annotations

import os
import random
import shlex
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import structlog
from anyio import to_thread

from coordinator import embedded
from coordinator.api.access import Access, is_loopback, is_open
from coordinator.api.app import create_app
from coordinator.api.forwarded import Forwarded, trusted_proxies
from coordinator.api.gateway import Gateway
from coordinator.api.origin import origin_middleware, origins_of
from coordinator.api.server import bind, serving, url_of
from coordinator.api.tls import Certificate, certificate_of
from coordinator.api.tokens import CHECKS, TOKEN_CHANNEL
from coordinator.config import Config
from coordinator.db import schema
from coordinator.db.database import Database, connect_within
from coordinator.db.session import ServerSession
from coordinator.errors import ConfigurationError
from coordinator.hooks.http import hook_handlers
from coordinator.lifetime import Lifetime, run_until_shutdown
from coordinator.loops.keeper import Keeper
from coordinator.loops.table import table
from coordinator.mcp.mount import Mount
from coordinator.model.address import without_password
from coordinator.model.network import Networks
from coordinator.model.readiness import Readiness
from coordinator.objects import ObjectStore
from coordinator.operations.executor import Runner
from coordinator.operations.liveness import Liveness
from coordinator.relay import Relay
from coordinator.replica import Replica
from coordinator.telemetry import tracing
from coordinator.version import version
from coordinator.webhooks.deliveries import WebhookDeliveries

__all__ = ["serve"]

LOOPS = 2  # connections on which loops run
LOOP_TIMEOUT_S = 60.0
DELIVERERS = 1  # connections for webhooks, from the first one on
READY_WITHIN_S = 5.0  # without progress of direct connection, gateway or relay
PROBE_S = 5.0

log = structlog.get_logger()


async def serve(config: Config) -> None:
    """Run the daemon until SIGTERM or SIGINT.

    Raises: ``ConfigurationError``, ``DatabaseUnavailable`` (no connection within ``connect_limit_s``), ``SchemaMismatch``.
    """
    is_open(config)  # raises before anything is started
    origins_of(config)
    trusted_proxies(config)
    ObjectStore(config).check()
    Networks(config.webhook_networks)
    certificate = certificate_of(config)

    async def run(lifetime: Lifetime) -> None:
        with bind(config.host, config.port) as listener:
            # Neither the checks of tokens nor the loops queue behind calls.
            async with (
                _database(config) as (database, place),
                database.aside("tokens", CHECKS) as checks,
                database.aside("loops", LOOPS, LOOP_TIMEOUT_S) as executor,
            ):
                await _run(config, database, checks, executor, listener, place, lifetime, certificate)

    if config.tracing == "on":
        tracing.start("coordinator-daemon")
    try:
        await run_until_shutdown("daemon", run)
    finally:
        await to_thread.run_sync(tracing.stop)  # with what is left of the spans


@asynccontextmanager
async def _database(config: Config) -> AsyncIterator[tuple[Database, dict[str, str]]]:
    """Open the configured database, or the embedded one, with the schema in place."""
    if config.database_url is not None:
        await _prepare(config, config.database_url, config.direct_url)
        async with Database.open(config.database_url, config, raw_json=True) as database:
            shown = without_password(config.database_url)
            yield database, {"database": shown, "psql": shlex.join(["psql", shown])}
        return
    async with embedded.run(config.data_dir) as server:
        await _prepare(config, server.dsn, None)
        async with Database.open(server.dsn, config, direct_dsn=server.dsn, raw_json=True) as database:
            place = {
                "database": server.dsn,
                "data": str(server.data_dir),
                "postgres": server.version,
                "psql": server.psql,
            }
            yield database, place


async def _prepare(config: Config, url: str, direct_url: str | None) -> None:
    """Wait for the database, and apply or verify its schema."""
    connection = await connect_within(config.connect_limit_s, direct_url or url, call_timeout_s=config.call_timeout_s)
    try:
        if config.schema == "apply":
            applied = await schema.apply(connection)
            if applied:
                log.info("schema.applied", files=len(applied))
        if newer := await schema.verify(connection):
            log.info("schema.newer", program=newer)
    finally:
        connection.terminate()


async def _run(  # noqa: PLR0917
    config: Config,
    database: Database,
    checks: Database,
    executor: Runner,
    listener: socket.socket,
    place: dict[str, str],
    lifetime: Lifetime,
    certificate: Certificate | None,
) -> None:
    """Run everything on an open database: ``checks`` checks tokens, and ``executor`` runs loops."""
    await _probe(database)
    session = database.session(TOKEN_CHANNEL)
    deliveries = WebhookDeliveries(lambda: database.aside("webhooks", DELIVERERS), Networks(config.webhook_networks))
    relay = Relay(database, deliveries.heard)
    keeper = _keeper(config, database, session, executor, {"relay": relay.nudge, "webhook": deliveries.nudge})
    gateway = Gateway(database, config)
    pools = [database] if is_open(config) else [database, checks]
    access = Access(None if is_open(config) else checks)
    place = {**place, "access": "open" if is_open(config) else "tokens"}
    replica = _replica(config, checks)
    mount = Mount(access, gateway, config.mcp_listeners)

    obstacles: tuple[Callable[[], str | None], ...] = (
        lambda: "shutting down" if lifetime.stop.is_set() else None,
        keeper.obstacle,
        *(pool.obstacle for pool in pools),
        partial(session.obstacle, READY_WITHIN_S),
        partial(gateway.obstacle, READY_WITHIN_S),
        partial(relay.obstacle, READY_WITHIN_S),
    )

    def readiness() -> Readiness:
        reason = next(filter(None, (obstacle() for obstacle in obstacles)), None)
        return Readiness(ready=reason is None, leads=keeper.leads, reason=reason)

    middleware = origin_middleware(config, loopback=is_loopback(config.host))
    hooks = hook_handlers(database, lifetime.stop)
    app = create_app(readiness, database, gateway, access, middleware, hooks, mount.over, replica)
    if proxies := trusted_proxies(config):
        app = Forwarded(app, proxies)

    async with session.kept(), anyio.create_task_group() as tasks:
        tasks.start_soon(keeper.run_forever)
        tasks.start_soon(keeper.while_leading, relay.run_forever)
        tasks.start_soon(keeper.while_leading, deliveries.run_forever)
        tasks.start_soon(gateway.run_forever)
        for pool in pools:
            tasks.start_soon(pool.stay_open)
        if replica is not None:
            tasks.start_soon(replica.run_forever)
        tasks.start_soon(access.run_forever, session.wake(TOKEN_CHANNEL))
        tasks.start_soon(mount.run_forever)
        with anyio.move_on_after(PROBE_S):
            await gateway.started.wait()
        async with serving(app, listener, config, certificate):
            _announce(url_of(listener, tls=certificate is not None), place)
            lifetime.started()
            await lifetime.stop.wait()
            gateway.close()
        tasks.cancel_scope.cancel()


def _keeper(
    config: Config,
    database: Database,
    session: ServerSession,
    executor: Runner,
    wakers: Mapping[str, Callable[[], None]],
) -> Keeper:
    """Create the keeper of the lead and of the loops; ``wakers`` wake the relay and the webhooks when they have work."""
    liveness = Liveness(session, "daemon")
    keeper = Keeper(
        session,
        executor,
        table(config),
        process=lambda: liveness.process if session.connected else None,
        on_due=lambda name: wakers[name]() if name in wakers else None,
        on_epoch=database.epochs.saw,
    )
    session.on_change = keeper.hurry
    return keeper


def _replica(config: Config, primary: Runner) -> Replica | None:
    if not (url := config.replica_url):
        return None
    return Replica(partial(Database.open, url, config, direct_dsn=url, raw_json=True, name="replica"), primary)


async def _probe(database: Database) -> None:
    """Check that notifications from the pool arrive on the direct connection.

    Raises: ``ConfigurationError`` if they do not, because of a pooler.
    """
    channel = f"coordinator.probe.{os.getpid()}.{random.getrandbits(32):x}"
    async with database.session(channel).kept() as session:
        wake = session.wake(channel)
        await wake.wait(0)
        if not await database.notify(channel):
            log.warning(
                "daemon.probe_skipped", reason="the notification queue is full: end the listener that does not read"
            )
            return
        with anyio.move_on_after(PROBE_S) as scope:
            await wake.wait(PROBE_S * 2)
        if scope.cancelled_caught:
            raise ConfigurationError(
                "notifications do not arrive on the direct connection",
                hint="A pooler in transaction mode cannot carry them: set COORDINATOR_DIRECT_URL to the server itself.",
            )


def _announce(http: str, place: dict[str, str]) -> None:
    log.info("daemon.started", version=version(), pid=os.getpid(), http=http, **place)
    if sys.stderr.isatty():
        sys.stderr.write(_banner(http, place))


def _banner(http: str, place: dict[str, str]) -> str:
    """Return what a person needs next, in another terminal."""
    folder = Path(sys.argv[0]).resolve().parent
    path = [] if shutil.which("coordinator") else [f'export PATH="{folder}:$PATH"']
    lines = [
        ("HTTP", f"{http} ({http}/schema describes it)"),
        ("database", shlex.quote(place["database"])),
        *([("data", place["data"])] if "data" in place else []),
        ("psql", place["psql"]),
        *(("next", command) for command in (*path, "coordinator status", "coordinator event tail --follow")),
    ]
    return "".join(f"  {name:8}  {value}\n" for name, value in lines) + "  Ctrl-C stops the daemon.\n"

"""Checks that only a client can make: a table of small functions, each of which returns its findings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from coordinator.config import SETTINGS, Config
from coordinator.db import probes, schema
from coordinator.db.single import Connection
from coordinator.doctor.diagnosis import Diagnosis, critical, ok, unknown, warning
from coordinator.errors import CoordinatorError, PermissionDenied, SchemaMismatch

__all__ = ["CHECKS", "ClientCheck", "Site"]

CLOCK_WARNING_S, CLOCK_CRITICAL_S = 2.0, 60.0
HEARD_S = 3.0  # for a notification
QUEUE_FULL = 0.9

DIRECT_URL = SETTINGS["direct_url"].variable
CACHE_SIZE = SETTINGS["statement_cache_size"].variable


def host_time() -> datetime:
    """Return the time by this host's clock."""
    return datetime.now(UTC)


Opener = Callable[[], AbstractAsyncContextManager[Connection]]


class Site(NamedTuple):
    """The subject of the checks: the settings, and two connections, each with a way to open another one, or the error of opening it."""

    config: Config
    call: Connection
    another_call: Opener
    direct: Connection | CoordinatorError
    another_direct: Opener


async def pooler(site: Site) -> Diagnosis:
    """Detect a pooler and its mode, by its effect on connections."""
    if await probes.pinned(site.call):
        return ok("There is no pooler: connection settings reach the server.")
    match await probes.pool_mode(site.call, site.another_call):
        case "statement":
            return critical(
                "Calls go through a pooler in statement mode, which refuses transactions.",
                "Set pool_mode = transaction for this database in pgbouncer.ini; see docs/pgbouncer.md.",
            )
        case "session":
            return ok(
                "Calls go through a pooler in session mode: each connection occupies one of the server while it is open."
            )
        case "transaction" if site.config.statement_cache_size:
            return warning(
                "Calls go through a pooler in transaction mode, and prepared statements are on.",
                f"Set {CACHE_SIZE}=0, unless the pooler is PgBouncer 1.21 or newer with max_prepared_statements; see docs/pgbouncer.md.",
            )
        case "transaction":
            return ok("Calls go through a pooler in transaction mode.")
        case None:
            return unknown(
                "Calls go through a pooler, which has no free connection: its mode is unknown.",
                "Run it again when the pooler is less busy, or raise default_pool_size.",
            )


async def direct(site: Site) -> Diagnosis:
    """Compare the direct connection with the connection for calls: it must be direct, and lead to the same database."""
    if isinstance(site.direct, CoordinatorError):
        return critical(f"The direct connection fails: {site.direct.message}.", site.direct.hint)
    ours, theirs = await probes.server(site.call), await probes.server(site.direct)
    if (ours.started_at, ours.database) != (theirs.started_at, theirs.database):
        return critical(
            f'The direct connection leads to another server or database than calls do: "{theirs.database}", started {theirs.started_at:%F %T}.',
            f"Correct {DIRECT_URL}: set it to the address of the same database, without a pooler.",
        )
    if await probes.pinned(site.direct):
        return ok("The direct connection reaches the same server as calls.")
    remedy = f"Set {DIRECT_URL} to the address of the server itself; see docs/pgbouncer.md."
    if await probes.pool_mode(site.direct, site.another_direct) == "session":
        return warning(
            "The direct connection goes through a pooler in session mode. It works, but the pooler ignores its settings and may close it.",
            remedy,
        )
    return critical(
        "The direct connection goes through a pooler. No process can listen, lead, or hold a liveness lock.", remedy
    )


async def version(site: Site) -> Diagnosis:
    """Compare the version of the server with the oldest supported version."""
    found = await probes.server(site.call)
    if found.major < schema.OLDEST_SERVER:
        return critical(
            f"The server is PostgreSQL {found.version}.",
            f"Upgrade it: coordinator needs PostgreSQL {schema.OLDEST_SERVER} or newer.",
        )
    return ok(f"The server is PostgreSQL {found.version}.")


async def schema_(site: Site) -> Diagnosis:
    """Check whether the schema supports this program."""
    try:
        files = await schema.status(site.call)
        if not any(file.applied_at for file in files):
            return critical("The database has no schema.", 'Run "coordinator schema apply", or start a daemon.')
        newer = await schema.verify(site.call)
    except PermissionDenied as error:
        return unknown(
            f"This role cannot read the list of schema files: {error.message}.",
            "Run the check as the owner of the schema.",
        )
    except SchemaMismatch as error:
        return critical(f"The schema does not fit this program: {error.message}.", error.hint)
    if newer is not None:
        return ok(f"The database has the schema of coordinator {newer}, which supports this program.")
    return ok(f"The database has the schema of this program: {len(files)} files.")


async def host_clock(site: Site) -> Diagnosis:
    """Compare the server's clock with that of this host."""
    before = host_time()
    theirs = await probes.server_time(site.call)
    after = host_time()
    distance = max(before - theirs, theirs - after, timedelta(0)).total_seconds()
    ahead = "ahead of" if theirs > after else "behind"
    if distance < CLOCK_WARNING_S:
        return ok("The clocks of the database and this host agree.")
    finding = critical if distance >= CLOCK_CRITICAL_S else warning
    return finding(
        f"The clock of the database is {distance:.1f} s {ahead} the clock of this host.",
        "Synchronize both with NTP. Leases and TTLs use the clock of the database; logs, tokens and certificates use the clock of the host.",
    )


async def listening(site: Site) -> Diagnosis:
    """Listen on the direct connection for a notification from the other one, as every daemon does."""
    if isinstance(site.direct, CoordinatorError):
        return unknown("Listening needs a direct connection.")
    if (await probes.server(site.direct)).standby:
        return ok("The server is a standby. Nobody can listen there, so readers poll.")
    if await probes.queue_usage(site.call) > QUEUE_FULL:
        return critical("The notification queue is full: no notification can be sent.", 'See "notifications".')
    took_s = await probes.round_trip(site.direct, site.call, HEARD_S)
    if took_s is None:
        return critical(
            f"A notification did not arrive within {HEARD_S:g} s.",
            'See "pooler", "direct" and "notifications". Nothing is lost meanwhile: events come up to a second late.',
        )
    return ok(f"A notification arrived after {1000 * took_s:.0f} ms.")


class ClientCheck(NamedTuple):
    """A check of the client: its name, its function, and a description of what it examines."""

    name: str
    look: Callable[[Site], Awaitable[Diagnosis]]
    meaning: str


CHECKS = (
    ClientCheck("direct", direct, "The direct connection without a pooler, for listening and liveness locks."),
    ClientCheck("pooler", pooler, "Whether calls go through a pooler, in which mode, and the settings for it."),
    ClientCheck("version", version, "Version of the server."),
    ClientCheck("schema", schema_, "The schema, compared with the files of this program."),
    ClientCheck("host_clock", host_clock, "The clock of the database, compared with the clock of this host."),
    ClientCheck("listening", listening, "Whether notifications arrive."),
)

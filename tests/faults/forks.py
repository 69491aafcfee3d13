"""Servers whose history parts: copies of one folder, what each of them issues, and what must hold after the fork."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import asyncpg

from coordinator import embedded
from coordinator.db.call import call
from coordinator.model.event import RESET
from coordinator.operations import events
from coordinator.operations.work import RelayStep

__all__ = ["SETTINGS", "Issued", "check_fork", "issue", "numbered", "standby"]

SETTINGS = {"fsync": "off", "max_prepared_transactions": "2"}


class Issued(NamedTuple):
    """Where the log ended, and the last numbers that were issued."""

    cursor: str
    token: int
    version: int
    ticket: int


async def numbered(connection: asyncpg.Connection, *keys: str) -> None:
    """Emit events, and give each a number."""
    await connection.execute("select coordinator.event_emit('default', 'custom.x', k) from unnest($1::text[]) k", keys)
    while (await call(connection, RelayStep())).again:
        pass


async def issue(connection: asyncpg.Connection, name: str, times: int = 1) -> Issued:
    """Emit events ``name 0`` and so on, grant and hand on a lock, set a signal."""
    await numbered(connection, *(f"{name} {n}" for n in range(times)))
    agent, waiting = [
        await connection.fetchval(
            "select id from coordinator.agent_register('default', $1)", f"{name}-{n}".replace(" ", "-")
        )
        for n in range(2)
    ]
    for _ in range(times):
        token = await connection.fetchval(
            "select fencing_token from coordinator.lock_acquire('default', '{a.py}', $1)", agent
        )
        ticket = await connection.fetchval(
            "select ticket from coordinator.lock_acquire('default', '{a.py}', $1, p_wait => '1 minute')", waiting
        )
        await connection.execute(
            "select coordinator.lock_release('default', '{a.py}', $1, array[$2::bigint])", agent, token
        )
        (granted,) = await connection.fetch(
            "select fencing_token from coordinator.lock_poll('default', $1, $2)", ticket, waiting
        )
        assert token < granted[0]
        await connection.execute(
            "select coordinator.lock_release('default', '{a.py}', $1, array[$2::bigint])", waiting, granted[0]
        )
        version = await connection.fetchval("select version from coordinator.signal_set('default', 'k', '1')")
    await numbered(connection)
    return Issued(await call(connection, events.Head()), granted[0], version, ticket)


async def check_fork(connection: asyncpg.Connection, shared: Issued, lost: Issued) -> None:
    """Check that nothing issued from now on was issued before; ``lost`` was, after the fork, by the other server."""
    (early,) = await call(connection, events.Since(after=lost.cursor))
    assert early.type == RESET
    new = await issue(connection, "new", times=2)
    for field in ("token", "version", "ticket"):
        assert max(getattr(shared, field), getattr(lost, field)) < getattr(new, field) < 2**53
    await numbered(connection, *(f"further {n}" for n in range(99)))  # past where the lost history ended
    keys = [event.key for event in await call(connection, events.Since(after=shared.cursor))]
    assert "new 0" in keys
    assert not [key for key in keys if key and key.startswith("lost")]
    assert RESET not in [event.type for event in await call(connection, events.Since(after=shared.cursor))]
    first, *_ = await call(connection, events.Since(after=lost.cursor))
    assert (first.type, first.data["reason"]) == (RESET, "restored")
    assert first.seq > int(lost.cursor.split(".")[1]), "the head has passed it"


def give(folder: Path, like: Path) -> None:
    """Give files to the owner of another: who is root runs the server as another user."""
    owner = like.stat()
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


@asynccontextmanager
async def standby(
    of: embedded.Server, folder: Path, signal: str = "standby.signal", **settings: str
) -> AsyncIterator[str]:
    """Copy a running server, and start the copy with a signal file; yield the address."""
    data = folder / "postgres"
    copy = [of.bin_dir / "pg_basebackup", "-D", data, "-d", of.dsn, "-R", "-X", "stream", "--checkpoint=fast"]
    subprocess.run(copy, check=True, stderr=subprocess.DEVNULL)
    (data / "standby.signal").rename(data / signal)
    give(folder, Path(of.socket_dir))
    async with embedded.run(folder, settings={**SETTINGS, **settings}) as server:
        yield server.dsn

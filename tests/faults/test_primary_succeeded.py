"""A server that is behind: a standby, or a primary that was paused, continues, and does not know that another one has succeeded it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import httpx
import pytest
from msgspec.structs import replace

from coordinator import embedded
from coordinator.config import Config
from coordinator.db.call import call
from coordinator.db.connection import connect
from coordinator.db.database import Database
from coordinator.errors import Conflict, NotFound, ServerBehind
from coordinator.model.event import RESET, epoch_order
from coordinator.model.operation import JsonText, Operation
from coordinator.operations import events, logs, signals
from coordinator.operations.positions import Included
from coordinator.operations.waiting import followed
from tests.api.sse import emit, stream
from tests.api.test_mcp import connected
from tests.daemon import Daemon, opened
from tests.db.test_several_hosts import joined
from tests.faults.forks import SETTINGS, numbered, standby
from tests.faults.proxy import Proxy
from tests.http_client import http_client
from tests.sidecar.conftest import sidecar
from tests.waiting import DEADLINE_S, until, until_true

R = TypeVar("R")

APPEND = logs.Append(project="default", kind="note", key="k", entries=JsonText(b'[{"data": 1}]'))
READ = logs.Read(project="default", kind="note", key="k")
SET = signals.Set(project="default", key="k", value=1)
WRITE = "select coordinator.position_now() from coordinator.signal_set('default', 'k', '1')"


@asynccontextmanager
async def servers(data_dir: Path) -> AsyncIterator[tuple[embedded.Server, str]]:
    """A primary, and the address of its standby."""
    async with embedded.run(data_dir, settings=SETTINGS) as server:
        async with opened(server.dsn) as connection:
            await numbered(connection, "shared")
        async with standby(server, data_dir.with_name("new")) as url:
            yield server, url


async def refused_as_behind(asking: Awaitable[object]) -> None:
    with pytest.raises(ServerBehind, match="has not reached") as refused:
        await asking
    assert (refused.value.code, refused.value.http_status) == ("ZC710", 503)
    assert "try again" in (refused.value.hint or "")


async def replayed(primary: asyncpg.Connection, replica: asyncpg.Connection) -> None:
    end = await primary.fetchval("select pg_current_wal_lsn()::text")
    await until_true(replica, "select pg_last_wal_replay_lsn() >= $1::text::pg_lsn", end)


async def configure(connection: asyncpg.Connection, name: str, value: str) -> None:
    await connection.execute(f"alter system set {name} = '{value}'")
    await connection.execute("select pg_reload_conf()")
    await until_true(connection, "select current_setting($1) = $2", name, value)


async def test_a_server_that_is_behind_resets_nobody(data_dir: Path) -> None:
    async with servers(data_dir) as (server, url), opened(server.dsn) as old, opened(url) as new:
        # A standby has not replayed what its primary says.
        await call(old, APPEND)
        await replayed(old, new)
        await new.execute("select pg_wal_replay_pause()")
        await until_true(new, "select pg_get_wal_replay_pause_state() = 'paused'")
        entry = await call(old, APPEND)
        await numbered(old, "not replayed yet")
        cursor = await call(old, events.Head())
        of_log = replace(READ, after=[entry.epoch, str(entry.last_seq)])
        since = events.Since(after=cursor)
        for beyond in (call(new, since), call(new, of_log)):
            await refused_as_behind(beyond)
        await new.execute("select pg_wal_replay_resume()")
        await replayed(old, new)
        assert (await call(new, since), await call(new, of_log)) == ([], [])

        # A commit that waits for a standby is visible there first.
        before = cursor
        writer = await connect(server.dsn, call_timeout_s=10 * DEADLINE_S)
        try:
            await old.execute("select coordinator.event_emit('default', 'custom.x', 'waits')")
            await configure(old, "synchronous_standby_names", "nobody")
            await until_true(writer, "select current_setting('synchronous_standby_names') = 'nobody'")
            waiting = asyncio.create_task(numbered(writer))

            async def moved() -> bool:
                return await call(new, events.Head()) != before

            await until(moved, "the standby has the number of the event")
            cursor = await call(new, events.Head())
            with pytest.raises(ServerBehind):
                await call(old, events.Since(after=cursor))
            await configure(old, "synchronous_standby_names", "")
            await waiting
        finally:
            writer.terminate()
        assert await call(old, events.Since(after=cursor)) == []

        # It is succeeded, and does not know.
        assert await new.fetchval("select pg_promote()")
        await numbered(new, "new")
        async with new.transaction():
            position = await new.fetchval(WRITE)
        cursor = await call(new, events.Head())
        assert epoch_order(cursor.partition(".")[0]) > epoch_order(before.partition(".")[0]) > 0
        refused: tuple[Operation[Any], ...] = (
            events.Since(after=cursor),
            Included(position=cursor),
            Included(position=position),
            Included(position=position, in_log=False),
        )
        for behind in refused:
            await refused_as_behind(call(old, behind))
        assert await call(old, events.Since(after=before, limit=1)), "what it shares, it gives"
        # What it writes is of an earlier epoch than the present one, and lost with it.
        async with old.transaction():
            lost = await old.fetchval(WRITE)
        await numbered(old, *map(str, range(9)))
        for position in (lost, await call(old, events.Head())):
            with pytest.raises(Conflict, match="may be lost"):
                await call(new, Included(position=position))

        async with check_log_followed(old, new, of_log):
            await check_passed_over(server.dsn, url, before, cursor)


@asynccontextmanager
async def check_log_followed(old: asyncpg.Connection, new: asyncpg.Connection, read: logs.Read) -> AsyncIterator[None]:
    """Check that who follows a log loses nothing at a server that is behind, and is reset where, after the context, this history is lost."""
    server = Moving(new)
    follower = followed(server, read, Asleep())
    await call(new, APPEND)
    assert [one.seq for one in await anext(follower)] == [3]
    server.connection = old
    with pytest.raises(ServerBehind):
        await anext(follower)
    expected = await call(new, APPEND)
    with pytest.raises(Conflict) as conflict:
        await call(old, replace(APPEND, expect=expected.last_seq, epoch=expected.epoch))
    assert "this server is no longer the primary" in (conflict.value.hint or "")
    server.connection = new
    follower = followed(server, read, Asleep())
    await anext(follower)
    yield
    server.connection = old
    with pytest.raises(NotFound, match="does not belong to the current log"):
        await anext(follower)


class Moving:
    """What runs operations, on one server and then on another."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection

    async def run(self, operation: Operation[R]) -> R:
        return await call(self.connection, operation)


class Asleep:
    """A wake that nobody rings."""

    topics: frozenset[str] = frozenset()

    async def wait(self, timeout_s: float) -> bool:
        await asyncio.sleep(timeout_s)
        return False


async def check_passed_over(old: str, new: str, before: str, cursor: str) -> None:
    """Check that a process that knows of the successor passes the old primary over, and leaves it."""
    first, second = Proxy(old), Proxy(new)
    async with first.serving(), second.serving():
        opening = Database.open(joined(first, second), Config(min_connections=1, max_connections=2))
        async with opening as database:
            assert (await database.run(events.Head())).partition(".")[0] == before.partition(".")[0]
            database.epochs.saw(cursor.partition(".")[0])
            found = await database.connect()
            assert await call(found, events.Since(after=cursor)) is not None
            found.terminate()
            await database.run(events.Since(after=cursor))  # on a connection to the old one first, which it closes
            position = await database.run(events.Head())
            assert position.partition(".")[0] == cursor.partition(".")[0]
            async with database.aside("more", 1) as aside:
                assert await aside.run(events.Head()) == position
            await second.refuse()
            with pytest.raises(ServerBehind, match="another one has succeeded it"):
                await database.connect()

            # Its operator decides to use it, so the other history is lost.
            async with opened(old) as decided:
                await decided.execute("select pg_stat_reset_shared('bgwriter')")
            found = await database.connect()
            (reset,) = await call(found, events.Since(after=cursor))
            assert (reset.type, reset.data["reason"]) == (RESET, "restored")
            found.terminate()


async def test_a_daemon_that_meets_the_old_primary_again_writes_nothing_there_and_its_streams_are_exact(
    data_dir: Path,
) -> None:
    async with (
        servers(data_dir) as (server, url),
        opened(server.dsn) as old,
        opened(url) as new,
        Proxy(server.dsn).serving() as proxy,
    ):
        with Daemon(proxy.url, http_heartbeat_s=1.0) as daemon:
            await daemon.ready()
            async with (
                http_client(daemon.url) as http,
                stream(http, topic="custom.*") as frames,
                beside_it(daemon) as beside,
            ):
                await frames.until("ready")
                await emit(http, "default", "before")
                assert [frame.data["key"] for frame in await frames.events(1)] == ["before"]
                await replayed(old, new)  # its number, too
                await proxy.refuse()
                assert await new.fetchval("select pg_promote()")
                await proxy.accept(url)
                await until(daemon.is_ready, "the daemon uses the successor")
                await emit(http, "default", "after")
                assert [frame.data["key"] for frame in await frames.events(1)] == ["after"]
                renewed_at = await new.fetchval("select clock_timestamp()")
                for _ in range(2):  # the second one follows the answer to the first, which has the epoch
                    await until_true(new, "select renewed_at > $1 from coordinator.leaders", renewed_at)
                    renewed_at = await new.fetchval("select renewed_at from coordinator.leaders")
                await proxy.refuse()
                state = "select l::text || max(e.id) from coordinator.leaders l, coordinator.events e group by l"
                untouched = await old.fetchval(state)
                await proxy.accept(server.dsn)

                async def unready() -> bool:
                    return not await daemon.is_ready()

                await daemon.logged("server.behind")
                await until(unready, "the daemon does not use it")
                await check_told(daemon, beside)
                assert await old.fetchval(state) == untouched
                await proxy.refuse()
                await proxy.accept(url)
                await until(daemon.is_ready, "the daemon uses the successor again")
                await emit(http, "default", "last")
                assert [frame.data["key"] for frame in await frames.events(1)] == ["last"]


@asynccontextmanager
async def beside_it(daemon: Daemon) -> AsyncIterator[str]:
    """The address of a sidecar that reaches the database through a daemon."""
    with sidecar(daemon.url, "--agent", "beside") as process:
        yield (await process.started()).url


async def check_told(daemon: Daemon, beside: str) -> None:
    """Check that the daemon, a sidecar and a tool over MCP say that the server is behind, and that nothing is lost."""
    async with connected(f"{daemon.url}/mcp") as client:

        async def told_over(http: httpx.AsyncClient) -> bool:
            answer = await http.post("/v1/signals/set", json={"key": "lost", "value": 1})
            assert answer.status_code == 503, answer.text
            return bool(answer.json()["code"] == "ZC710") and "retry-after" in answer.headers

        async def told_by_tool() -> bool:
            result = await client.call_tool("signal_set", {"key": "lost", "value": 1})
            assert result.is_error
            return "another one has succeeded it" in str(result.content)

        for url in (daemon.url, beside):
            async with http_client(url) as http:
                await until(partial(told_over, http), f"{url} says that the server is behind")
        await until(told_by_tool, "the tool says that the server is behind")

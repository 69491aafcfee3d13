"""While no connection can be opened, /readyz says so, even if heartbeats continue; when one can be opened, it says so without a call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpx

from tests.conftest import admin
from tests.daemon import Daemon, check_unavailable
from tests.db.test_pool import limited_role
from tests.faults.proxy import Proxy
from tests.http_client import http_client
from tests.sidecar.conftest import Sidecar, sidecar
from tests.waiting import until

Said = Callable[[], Awaitable[bool]]


def said(http: httpx.AsyncClient, *parts: str) -> Said:
    """Return what looks whether it is not ready for that reason; without parts, whether it is ready."""

    async def look() -> bool:
        answer = await http.get("/readyz")
        reason = answer.json()["reason"]
        return all(part in reason for part in parts) if parts and reason else not parts and answer.status_code == 200

    return look


@asynccontextmanager
async def looking(beside: Daemon | Sidecar) -> AsyncIterator[httpx.AsyncClient]:
    async with http_client(beside.url) as http:
        await until(said(http), "it is ready", every_s=0.02)
        yield http


async def test_a_daemon_without_its_pooler_is_not_ready_although_it_leads(database_url: str) -> None:
    async with Proxy(database_url).serving() as pooler:
        with Daemon(pooler.url, direct_url=database_url) as daemon:
            await (await daemon.ready()).lead()
            async with looking(daemon) as http:
                await pooler.refuse()
                await until(said(http, "no connection for calls: no answer from the database"), "/readyz says so")
                check_unavailable(await http.get("/v1/signals"))
                assert (await http.get("/livez")).status_code == httpx.codes.OK
                beats = await daemon.heartbeats()

                async def beats_on() -> bool:
                    return await daemon.heartbeats() > beats + 1

                await until(beats_on, "heartbeats go on", every_s=0.1)
                assert await said(http, "no connection for calls")()
                await pooler.accept()
                await until(said(http), "it is ready, though nobody has called")
                assert (await http.get("/v1/signals")).status_code == httpx.codes.OK
            assert [line["leads"] for line in daemon.lines("leader.changed")] == [True]


async def test_connections_that_end_at_their_age_and_cannot_be_replaced_are_reported(
    server_url: str, database_url: str
) -> None:
    """The direct connections continue: they are closed when another one has replaced them."""
    name = urlsplit(database_url).path[1:]
    settings = {"COORDINATOR_MAX_CONNECTION_AGE_S": "1s"}
    with (
        Daemon(database_url, access="tokens", max_connection_age_s=1) as daemon,
        sidecar(database_url, "--agent", "coder", **settings) as beside,
    ):
        await daemon.logged("daemon.started")
        await beside.started()
        async with looking(daemon) as http, looking(beside) as agents:
            await admin(server_url, f'alter database "{name}" with allow_connections false')
            for asked in (http, agents):
                await until(said(asked, "no connection for calls", "accepting connections"), "/readyz says why")
                assert (await asked.get("/livez")).status_code == httpx.codes.OK
            check_unavailable(await agents.get("/v1/signals"))
            assert not daemon.lines("session.lost")
            await admin(server_url, f'alter database "{name}" with allow_connections true')
            for asked in (http, agents):
                await until(said(asked), "it is ready, though nobody has called")


async def test_a_direct_connection_that_cannot_be_opened_is_reported(server_url: str, database_url: str) -> None:
    async with limited_role(server_url, database_url, -1) as (role, url):
        await admin(database_url, f"select coordinator.schema_grant('{role}')")
        constants = {"coordinator.daemon.READY_WITHIN_S": 0.05, "coordinator.loops.keeper.RETRY_S": 0.05}
        try:
            with Daemon(url, constants=constants) as daemon:
                await (await daemon.ready()).lead()
                async with looking(daemon) as http:
                    await admin(
                        database_url,
                        f"alter role {role} connection limit 1",
                        f"select pg_terminate_backend(pid) from pg_stat_activity join pg_locks using (pid)"
                        f" where usename = '{role}' and locktype = 'advisory'",
                    )
                    await until(said(http, "no direct connection: too many connections for role"), "/readyz says why")
                    assert (await http.get("/v1/signals")).status_code == httpx.codes.OK
                    tries = 'coordinator_call_seconds_count{function="event_head"}'
                    before = await daemon.metric(tries)

                    async def tried() -> bool:
                        return await daemon.metric(tries) >= before + 5

                    await until(tried, "heartbeats go on without the lead", every_s=0.05)
                    await admin(database_url, f"alter role {role} connection limit -1")
                    await until(said(http), "it is ready again")
                assert len(daemon.lines("leader.renew_failed")) <= 2
        finally:
            await admin(database_url, f"drop owned by {role}")

"""While the database is unavailable, every caller learns so; when it returns, everything continues automatically."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import get_args

import anyio
import httpx
import pytest

from coordinator import embedded
from coordinator.config import Config
from coordinator.db.database import Database
from coordinator.model.token import new_secret
from coordinator.operations import tokens
from tests.api.sse import emit, stream
from tests.daemon import Daemon, check_unavailable
from tests.faults.plane import SETTINGS, Way
from tests.faults.proxy import Proxy
from tests.http_client import http_client
from tests.sidecar.conftest import Sidecar
from tests.waiting import DEADLINE_S, until

TICK = {"type": "custom.tick", "key": "away"}
REQUESTS: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("GET", "/v1/signals", {}),
    ("POST", "/v1/events/emit", {"json": TICK}),
    ("POST", "/v1/events/emit", {"json": TICK, "headers": {"idempotency-key": "once"}}),
    ("GET", "/v1/events?after=start", {}),
    ("GET", "/v1/events?after=now&wait=60", {}),
)


@asynccontextmanager
async def guarded(way: Way, dsn: str, secret: str) -> AsyncIterator[tuple[Daemon, str]]:
    """What asks for tokens on that way to the database, and the address to ask at."""
    with Daemon(dsn, access="tokens", call_timeout_s=600) as daemon:
        await daemon.logged("daemon.started")
        if way == "daemon":
            yield daemon, daemon.url
            return
        url, environment = dsn, {"COORDINATOR_ACCESS": "tokens", "COORDINATOR_CALL_TIMEOUT_S": "600s"}
        if way != "sidecar":
            url, environment = daemon.url, {"COORDINATOR_TOKEN": secret, "COORDINATOR_CALL_TIMEOUT_S": "600s"}
        beside = Sidecar(url, "--agent", "coder", **environment)
        try:
            await beside.started()
            yield daemon, beside.url
            assert not beside.lines("request.failed"), beside.output()
        finally:
            beside.close()


@pytest.mark.parametrize("way", get_args(Way))
async def test_while_the_database_is_unavailable_every_call_and_stream_is_refused_with_503_and_works_again_afterwards(
    data_dir: Path, config: Config, way: Way
) -> None:
    """Also at those who ask for tokens, which nobody can check then."""
    secret = new_secret()
    async with AsyncExitStack() as stack:
        async with embedded.run(data_dir, settings=SETTINGS) as server:
            async with Database.open(server.dsn, config) as database:
                await database.run(
                    tokens.Create(name="pods", role="admin", hash=secret.hash, prefix=secret.prefix, project=None)
                )
            daemon, url = await stack.enter_async_context(guarded(way, server.dsn, secret.text))
            headers = {"authorization": f"Bearer {secret.text}"}
            http = await stack.enter_async_context(http_client(url, headers=headers))
            standing = await stack.enter_async_context(stream(http, topic="custom.*"))
            await standing.until("ready")
            await emit(http, "default", "before")
            before = (await standing.events(1))[0]
            dsn = server.dsn

        for request in REQUESTS:
            await refused(http, *request)
        if way == "sidecar through the daemon":  # it is open to its machine: its streams wait, as the standing one does
            waiting = await stack.enter_async_context(stream(http, topic="custom.*", after=before.id))
            assert waiting.response.status_code == httpx.codes.OK
        else:
            waiting = standing

            async def not_believed_any_more() -> bool:
                async with stream(http, topic="custom.*") as opened_now:
                    if opened_now.response.status_code == httpx.codes.OK:
                        return False
                    check_unavailable(opened_now.response)
                    return True

            await until(not_believed_any_more, "a new stream is refused")
            check_unavailable(await http.get("/v1/signals", headers={"authorization": f"Bearer {new_secret().text}"}))
            async with http_client(url) as nobody:
                assert (await nobody.get("/v1/signals")).status_code == httpx.codes.UNAUTHORIZED

        if way == "daemon":
            await told_by_readyz(daemon)

        async with embedded.run(data_dir, settings=SETTINGS) as server:
            assert server.dsn == dsn

            async def answered() -> bool:
                answer = await http.get("/v1/signals")
                if answer.status_code != httpx.codes.OK:
                    check_unavailable(answer)
                return answer.status_code == httpx.codes.OK

            await until(answered, "calls are answered again", every_s=0.05)
            await emit(http, "default", "after")
            for one in {id(one): one for one in (standing, waiting)}.values():
                (event,) = await one.events(1)
                assert event.data["key"] == "after"
            async with stream(http, topic="custom.*", after=before.id) as frames:
                assert [event.data["key"] for event in await frames.events(1)] == ["after"]
            await (await daemon.ready()).lead()
            assert not daemon.lines("request.failed"), daemon.output()
            await stack.aclose()


async def told_by_readyz(daemon: Daemon) -> None:
    async def away() -> bool:
        """A server that still shuts down says so in its own words first."""
        answer = await daemon.get("/readyz")
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            return False
        said = answer.json()
        assert said["ready"] is False
        return str(said["reason"]).startswith("no answer from the database")

    await until(away, "/readyz answers 503 without an answer from the database", every_s=0.05)
    assert (await daemon.get("/livez")).status_code == httpx.codes.OK

    async def lost_the_lead() -> bool:
        return not await daemon.metric("coordinator_leader")

    await until(lost_the_lead, "the lead has ended", every_s=0.05)


def readyz(daemon: Daemon, status: int) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return (await daemon.get("/readyz")).status_code == status

    return look


async def test_readyz_follows_each_short_outage(database_url: str) -> None:
    proxy = Proxy(database_url)
    # Only the lost connection can reveal an outage, and only a repeated heartbeat its end.
    constants = {"coordinator.loops.keeper.HEARTBEAT_S": 3600, "coordinator.loops.keeper.SILENT_S": 3600}
    async with proxy.serving():
        with Daemon(proxy.url, constants=constants) as daemon:
            await daemon.ready()
            for _ in range(3):
                await proxy.refuse()
                await until(readyz(daemon, 503), "/readyz reports the refused connection", every_s=0.02)
                await proxy.accept()
                await until(readyz(daemon, 200), "/readyz reports the recovery", every_s=0.02)


async def test_readyz_reports_a_database_that_says_nothing(database_url: str) -> None:
    proxy = Proxy(database_url)
    async with proxy.serving():
        # Neither a call nor a ping fails: only the silence can reveal it.
        constants = {
            "coordinator.loops.keeper.SILENT_S": 2,
            "coordinator.loops.keeper.LEAD_S": 3600,
            "coordinator.db.database.CALL_TIMEOUT_S": 3600,
            "coordinator.db.session.PING_S": 3600,
        }
        with Daemon(proxy.url, constants=constants) as daemon:
            await daemon.ready()
            proxy.go_silent()

            async def reason() -> str:
                answer = await daemon.get("/readyz")
                return str(answer.json()["reason"]) if answer.status_code == 503 else ""

            assert "for 2 seconds" in await until(reason, "/readyz reports the silence", every_s=0.05)
            proxy.speak_again()
            await until(readyz(daemon, 200), "/readyz reports the recovery", every_s=0.05)


async def refused(http: httpx.AsyncClient, method: str, path: str, more: dict[str, object]) -> None:
    with anyio.fail_after(DEADLINE_S / 2):  # at once: every deadline of the product is longer
        check_unavailable(await http.request(method, path, **more))  # type: ignore[arg-type]


async def test_a_sidecar_that_is_started_before_its_database_waits_for_it(data_dir: Path) -> None:
    async with embedded.run(data_dir, settings=SETTINGS) as server:
        dsn = server.dsn
    waits, ends = Sidecar(dsn, "--agent", "waits"), Sidecar(dsn, "--agent", "ends")
    try:
        for beside in (waits, ends):

            async def awaits(beside: Sidecar = beside) -> bool:
                assert beside.process.poll() is None, beside.output()
                return bool(beside.lines("database.connect_failed"))

            await until(awaits, "the sidecar says that it waits")
        ends.process.send_signal(signal.SIGTERM)
        assert await ends.ended() == 0
        async with embedded.run(data_dir, settings=SETTINGS):
            await waits.started()
    finally:
        waits.close()
        ends.close()

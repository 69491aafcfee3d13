"""The replica: a standby that serves lists which may be old, and nothing that is older than its reader allows."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import anyio
import httpx
import psutil

import coordinator
from coordinator import embedded
from coordinator.replica import Replica
from tests.cli.conftest import Program
from tests.conftest import admin, with_database
from tests.daemon import Daemon, opened
from tests.faults.proxy import Proxy
from tests.faults.test_log_promoted import standby
from tests.http_client import http_client
from tests.waiting import until, until_true

LAG = "replica-lag"


async def test_a_standby_serves_lists_within_their_lag_and_the_primary_everything_else(data_dir: Path) -> None:  # noqa: PLR0915 - one pair of servers
    async with (
        embedded.run(data_dir, settings={"fsync": "off"}) as server,
        standby(server, data_dir.with_name("standby")) as url,
        opened(url) as replay,
        Proxy(url).serving() as network,
    ):
        # A call may take longer than this test.
        with Daemon(server.dsn, replica_url=network.url, call_timeout_s=600) as daemon:
            await daemon.ready()
            async with http_client(daemon.url) as http:

                async def listed(**query: str) -> httpx.Response:
                    answer = await http.get("/v1/signals", params={"project": "default", **query})
                    assert answer.status_code == 200, answer.text
                    return answer

                async def served(**query: str) -> httpx.Response | None:
                    answer = await listed(max_lag="1h", **query)
                    return answer if LAG in answer.headers else None

                async def write(value: int) -> str:
                    body = {"project": "default", "key": "k", "value": value}
                    return (await http.post("/v1/signals/set", json=body)).headers["position"]

                def values(answer: httpx.Response) -> list[int]:
                    return [one["value"] for one in answer.json()["items"]]

                async def lacked(answer: httpx.Response) -> list[int]:
                    """Gives the values of the events that follow the cursor of the list."""
                    query = {"project": "default", "after": answer.json()["event_cursor"], "topic": "signal.*"}
                    events = (await http.get("/v1/events", params=query)).json()["items"]
                    return [event["data"]["value"] for event in events]

                async def seen(value: int) -> httpx.Response | None:
                    answer = await served()
                    return answer if answer and values(answer) == [value] and not await lacked(answer) else None

                await write(1)
                found = await until(lambda: seen(1), "the replica serves the list, and its event has a number there")
                assert 0 <= float(found.headers[LAG]) < 3600
                assert LAG not in (await listed()).headers
                assert LAG not in (await listed(max_lag="0s")).headers
                assert (await daemon.metric("coordinator_replica_lag_seconds")) >= 0
                refused = await http.get("/v1/signals/k", params={"project": "default", "max_lag": "1s"})
                assert refused.status_code == 422
                for wrong in ("x", "-1s", "2d", "9" * 60):
                    answer = await http.get("/v1/signals", params={"project": "default", "max_lag": wrong})
                    assert (answer.status_code, "max_lag" in answer.json()["detail"]) == (422, True), answer.text

                # It stops to replay: it serves only who allows that, and never without what a reader has written.
                await replay.execute("select pg_wal_replay_pause()")
                await until_true(replay, "select pg_get_wal_replay_pause_state() = 'paused'")
                position = await write(2)
                old = await served()
                assert old is not None
                assert values(old) == [1]
                own = await listed(max_lag="1h", at_least=position)
                assert (LAG in own.headers, values(own)) == (False, [2])
                assert values(await listed()) == [2]

                # No gap: what follows the list's cursor is what the list lacks.
                assert await until(lambda: lacked(old), "the event has its number") == [2]

                async def late() -> bool:
                    return LAG not in (await listed(max_lag="100ms")).headers

                await until(late, "the primary serves who wants it newer")
                await replay.execute("select pg_wal_replay_resume()")
                with_own = await until(lambda: served(at_least=position), "the replica includes it")
                assert values(with_own) == [2]

                # The Python client and the command line say it, too.
                before = await daemon.metric('coordinator_replica_reads_total{outcome="served"}')
                async with coordinator.connect(daemon.url) as client:
                    assert [one.value for one in await client.max_lag(3600).signals.list()] == [2]
                    assert [one.value for one in await client.signals.list()] == [2]
                line = ("signal", "list", "--max-lag", "1h", "--url", daemon.url)
                shown = await anyio.to_thread.run_sync(Program(data_dir.parent, {}).json, *line)
                assert [one["value"] for one in shown] == [2]
                assert await daemon.metric('coordinator_replica_reads_total{outcome="served"}') == before + 2

                # A project that it does not have yet: the primary serves.
                await replay.execute("select pg_wal_replay_pause()")
                await until_true(replay, "select pg_get_wal_replay_pause_state() = 'paused'")
                await http.post("/v1/projects/create", json={"project": "new"})
                fresh = await http.get("/v1/signals", params={"project": "new", "max_lag": "1h"})
                assert (fresh.status_code, LAG in fresh.headers) == (200, False)

                # All its processes stand still, or no packet passes: reads that wait for it come from the primary soon, later ones at once.
                await replay.execute("select pg_wal_replay_resume()")
                failed = 'coordinator_replica_reads_total{outcome="failed"}'

                async def survived(fault: Callable[[], AbstractContextManager[None]]) -> bool:
                    await until(served, "the replica serves again")
                    before = await daemon.metric(failed)
                    with fault():
                        assert LAG not in (await listed(max_lag="1h")).headers
                        waited = await daemon.metric(failed) - before
                        assert LAG not in (await listed(max_lag="1h")).headers
                        assert await daemon.metric(failed) - before == waited
                    return bool(waited)  # else a check came first

                for fault in (partial(halted, data_dir.with_name("standby")), partial(silent, network)):
                    await until(partial(survived, fault), "a read was waiting for the replica")
                    await until(served, "the replica serves again")


@contextmanager
def silent(network: Proxy) -> Iterator[None]:
    """Pass nothing on within the context, and close no connection."""
    network.go_silent()
    try:
        yield
    finally:
        network.speak_again()


@contextmanager
def halted(folder: Path) -> Iterator[None]:
    """Let all processes of a server stand still within the context; those that it starts first are stopped too."""
    postmaster = psutil.Process(int((folder / "postgres" / "postmaster.pid").read_text().split()[0]))
    postmaster.suspend()
    processes = [postmaster, *postmaster.children(recursive=True)]
    try:
        for process in processes[1:]:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


async def test_no_error_of_the_standby_ends_the_daemon() -> None:
    attempts = 0

    @asynccontextmanager
    async def opened() -> AsyncIterator[Any]:
        nonlocal attempts
        attempts += 1
        raise ZeroDivisionError
        yield

    async with anyio.create_task_group() as tasks:
        replica = Replica(opened, cast("Any", None))
        tasks.start_soon(replica.run_forever)
        await until(lambda: attempts > 1, "it tries again")
        assert replica.within(3600) is None
        tasks.cancel_scope.cancel()


async def test_another_database_is_not_a_replica(server_url: str, database_url: str, template: str) -> None:
    name = f"other_{uuid4().hex[:8]}"
    await admin(server_url, f"create database {name} template {template}")
    try:
        other = with_database(server_url, name)
        with Daemon(other) as its_own, Daemon(database_url, replica_url=other) as daemon:
            await (await its_own.ready()).lead()
            await (await daemon.ready()).lead()
            await daemon.logged("replica.skipped", reason="another database")
            async with http_client(daemon.url) as http:
                assert math.isnan(await daemon.metric("coordinator_replica_lag_seconds"))
                answer = await http.get("/v1/signals", params={"project": "default", "max_lag": "1h"})
                assert (answer.status_code, LAG in answer.headers) == (200, False)
    finally:
        await admin(server_url, f"drop database {name} with (force)")

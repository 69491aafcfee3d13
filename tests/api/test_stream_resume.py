"""Whatever is cut, killed or terminated: who goes on from the cursor sees every event once, in order."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

import anyio
import asyncpg
import httpx
import pytest

from coordinator.config import Config
from coordinator.db.database import Database
from coordinator.errors import DatabaseUnavailable
from coordinator.operations import events
from tests.api.sse import DEADLINE_S, Frame, Frames
from tests.daemon import Daemon, log_of, until

CUTS = (httpx.HTTPError, TimeoutError)


class Subscriber:
    """A client that resumes by cursor, and is cut at random moments."""

    def __init__(self, url: str, seed: int, **query: str) -> None:
        self.url = url
        self.query = query
        self.frames: list[Frame] = []
        self.connections = 0
        self._random = random.Random(seed)  # noqa: S311
        self._cursor: str | None = None

    async def run(self) -> None:
        """Read until the last event has come."""
        async with httpx.AsyncClient(base_url=self.url, timeout=DEADLINE_S) as http:
            while not self._done():
                with suppress(*CUTS):
                    await self._connect(http)
                await anyio.sleep(0.01)

    async def _connect(self, http: httpx.AsyncClient) -> None:
        headers = {"Last-Event-ID": self._cursor} if self._cursor else {}
        query = {"after": "start", **self.query}
        async with http.stream("GET", "/v1/events/stream", params=query, headers=headers) as response:
            if response.status_code != 200:
                assert response.status_code == 503
                return
            self.connections += 1
            frames = Frames(response)
            for _ in range(self._random.choice([0, 1, 5, 50, 500, 5000])):
                frame = await frames.next()
                if frame is None or self._done():
                    return
                self._cursor = frame.id or self._cursor
                if frame.event not in (None, "ready", "bye"):
                    self.frames.append(frame)

    def _done(self) -> bool:
        return bool(self.frames) and self.frames[-1].data["key"] == "last"


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


async def write(url: str, config: Config, enough: anyio.Event) -> None:
    """Emit events as long as the faults last, again where it is not known whether it was done."""

    async def emit(key: str) -> None:
        while True:
            try:
                await database.run(events.Emit(project="default", type="custom.tick", key=key))
            except DatabaseUnavailable:
                continue
            return

    async with Database.open(url, config) as database:
        number = 0
        while not enough.is_set():
            await emit(str(number))
            number += 1
            if number % 10 == 0:
                await anyio.sleep(0.01)  # about 500 a second
        await emit("last")


async def test_a_client_that_is_cut_resumes_without_loss_or_disorder_over_kills_and_terminations(
    database_url: str, config: Config, port: int
) -> None:
    url = f"http://127.0.0.1:{port}"
    subscribers = [
        Subscriber(url, 1),
        Subscriber(url, 2),
        Subscriber(url, 3, topic="custom.*", project="default"),
        Subscriber(url, 4, topic="custom.tick", exclude_self="nobody"),
    ]

    enough, finished = anyio.Event(), anyio.Event()

    def start() -> Daemon:
        return Daemon(database_url, port=port, http_ring_events=100, http_page=50, http_heartbeat_s=1.0)

    async def further(count: int) -> None:
        """Wait until the slowest subscriber has so many more events."""
        wanted = min(len(subscriber.frames) for subscriber in subscribers) + count

        async def look() -> bool:
            return min(len(subscriber.frames) for subscriber in subscribers) >= wanted

        await until(look, "the subscribers have more events", every_s=0.02)

    async def faults() -> None:
        daemon = start()
        try:
            await daemon.ready()
            for _ in range(2):
                await further(100)
                await terminate(database_url)
                await further(100)
                daemon.kill()
                daemon.__exit__(None, None, None)
                daemon = start()
                await daemon.ready()
            enough.set()
            await finished.wait()
            assert not daemon.lines("request.failed"), daemon.output()
        finally:
            daemon.__exit__(None, None, None)

    with anyio.fail_after(100):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write, database_url, config, enough)
            tasks.start_soon(faults)
            async with anyio.create_task_group() as reading:
                for subscriber in subscribers:
                    reading.start_soon(subscriber.run)
            finished.set()
    log = [(event["seq"], event["key"]) for event in await log_of(database_url) if event["type"] == "custom.tick"]
    assert [seq for seq, _ in log] == sorted(seq for seq, _ in log)
    for subscriber in subscribers:
        seen = dict.fromkeys((frame.data["seq"], frame.data["key"]) for frame in subscriber.frames)
        assert list(seen) == log
        assert subscriber.connections > 3


async def terminate(url: str) -> None:
    """End every connection of the daemon, as an administrator or a failover does."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )
    finally:
        await connection.close()

"""Writers that record their transactions, readers that resume, and a check of the log against both."""

from __future__ import annotations

import os
import random
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple
from uuid import uuid4

import anyio
import asyncpg
import httpx
import msgspec

from coordinator.db.connection import connect, mapped_errors
from coordinator.db.database import Database
from coordinator.errors import DatabaseUnavailable
from coordinator.operations import events
from coordinator.operations.log_reader import LogReader
from tests.daemon import check_unavailable

LONG_S = float(os.environ.get("COORDINATOR_FAULTS_S", "60"))  # duration of each long run


class Written(NamedTuple):
    """One event of a transaction that was committed between these two instants of this process's clock."""

    key: str
    began: float
    committed: float


class Load:
    """Writers with their own connections, all in one process, so that one clock orders everything."""

    def __init__(self, url: str, *, seed: int = 0) -> None:
        self._url = url
        self._random = random.Random(seed)
        self.committed: list[Written] = []
        self.rolled_back: set[str] = set()
        self.unknown: set[str] = set()  # the answer to the commit never came
        self.repeated = 0  # requests that were sent again

    async def run(self, writers: int, duration_s: float, *, pace_s: float = 0.0) -> None:
        """Write for some time, and on a slow machine until there is something to judge."""
        enough = len(self.committed) + 5
        async with self.running(writers, pace_s=pace_s):
            await anyio.sleep(duration_s)
            while len(self.committed) < enough:
                await anyio.sleep(0.01)

    @asynccontextmanager
    async def running(self, writers: int, *, pace_s: float = 0.0) -> AsyncIterator[None]:
        """Write during the block; transactions that are open at its end are completed."""
        enough = anyio.Event()
        async with anyio.create_task_group() as tasks:
            for _ in range(writers):
                tasks.start_soon(self._write, enough, pace_s)
            yield
            enough.set()

    async def _write(self, enough: anyio.Event, pace_s: float) -> None:
        connection = await connect(self._url)
        try:
            while not enough.is_set():
                await self._transaction(connection)
                await anyio.sleep(self._random.uniform(0, 2 * pace_s))
        finally:
            connection.terminate()

    async def _transaction(self, connection: asyncpg.Connection) -> None:
        keys = [uuid4().hex for _ in range(self._random.randint(1, 3))]
        began = time.monotonic()
        transaction = connection.transaction()
        await transaction.start()
        for key in keys:
            await connection.execute("select coordinator.event_emit('default', 'custom.load', $1)", key)
            await anyio.sleep(self._random.choice((0, 0, 0, 0.001, 0.02)))
        if self._random.random() < 0.1:
            await transaction.rollback()
            self.rolled_back.update(keys)
        else:
            await transaction.commit()
            self.committed += [Written(key, began, time.monotonic()) for key in keys]

    async def call(self, database: Database, enough: anyio.Event) -> None:
        """Emit one event per call until stopped. After a typed error the outcome is unknown; any other error ends the test."""
        while not enough.is_set():
            key, began = uuid4().hex, time.monotonic()
            try:
                await database.run(events.Emit(project="default", type="custom.load", key=key))
                self.committed.append(Written(key, began, time.monotonic()))
            except DatabaseUnavailable:
                self.unknown.add(key)
            await anyio.sleep(self._random.uniform(0, 0.02))

    async def post(self, http: httpx.AsyncClient, enough: anyio.Event, keys: Iterable[str] | None = None) -> None:
        """Emit one event per request, with these keys or until stopped; repeat each with its key until it is acknowledged."""
        async with http:
            for key in keys or iter(lambda: uuid4().hex, None):
                if keys is None and enough.is_set():
                    return
                began = time.monotonic()
                body = {"type": "custom.load", "key": key}
                while not await self._acknowledged(http, body, {"idempotency-key": key}):
                    self.repeated += 1
                    await anyio.sleep(0.02)
                self.committed.append(Written(key, began, time.monotonic()))
                await anyio.sleep(self._random.uniform(0, 0.01))

    async def _acknowledged(self, http: httpx.AsyncClient, body: dict[str, str], headers: dict[str, str]) -> bool:
        try:
            answer = await http.post("/v1/events/emit", json=body, headers=headers)
        except httpx.HTTPError:
            return False
        if answer.status_code != httpx.codes.OK:
            check_unavailable(answer)
        return answer.status_code == httpx.codes.OK

    def judge(self, log: Sequence[asyncpg.Record]) -> None:
        """Check the whole log against what was written: nothing is lost, doubled, invented, or out of order."""
        assert [event["seq"] for event in log] == list(range(1, len(log) + 1)), "the log has gaps"
        keys = [event["key"] for event in log if event["type"] == "custom.load"]
        assert len(keys) == len(set(keys)), "an event is there twice"
        written = {one.key: one for one in self.committed}
        assert not (written.keys() - set(keys)), "a committed event is lost"
        assert not (set(keys) & self.rolled_back), "an event of a transaction that was rolled back is there"
        assert set(keys) <= written.keys() | self.unknown, "an event that nobody wrote is there"
        latest_begin = 0.0
        for one in (written[key] for key in keys if key in written):
            # If A was committed before B began, A comes first; so nothing may follow on what began after its commit.
            assert one.committed >= latest_begin, "an event comes after one that began when it was committed"
            latest_begin = max(latest_begin, one.began)


class Reader:
    """Follows the log from the beginning, and continues where it was after any error."""

    def __init__(self) -> None:
        self.seqs: list[int] = []
        self.keys: list[str] = []
        self.resumed = 0
        self._cursor: str | None = None

    async def follow(self, database: Database) -> None:
        """Read until cancelled."""
        reader = LogReader()  # its position survives connections
        while True:
            try:
                async with database.wake() as wake:
                    while True:
                        for event in await reader.next(database, wake):
                            assert event.type != "reset", event.data
                            self.take(event)
            except DatabaseUnavailable:
                self.resumed += 1
                await anyio.sleep(0.02)

    def take(self, event: events.Event) -> None:
        """Keep an event that is new."""
        self._cursor = event.cursor
        if not self.seqs or event.seq > self.seqs[-1]:
            self.seqs.append(event.seq)
            self.keys.append(event.key or "")


class Listener(Reader):
    """Takes events from the payloads on the project's channel, and fills gaps from the log."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = 0

    async def listen(self, url: str, database: Database) -> None:
        """Listen until cancelled."""
        while True:
            with suppress(DatabaseUnavailable):
                await self._listen(url, database)
            self.resumed += 1
            await anyio.sleep(0.02)

    async def _listen(self, url: str, database: Database) -> None:
        send, receive = anyio.create_memory_object_stream[str](100_000)
        connection = await connect(url)
        try:
            connection.add_termination_listener(lambda _: send.close())
            with mapped_errors():
                await connection.add_listener(
                    "coordinator.default.custom", lambda *heard: send.send_nowait(str(heard[3]))
                )
            await self.heal(database)  # what was notified before LISTEN
            async for payload in receive:
                event = msgspec.json.decode(payload)
                if event.get("pointer") or not self.seqs or event["previous"] > self.seqs[-1]:
                    await self.heal(database)
                else:
                    self.heard += 1
                    self.take(msgspec.json.decode(payload, type=events.Event))
        finally:
            connection.terminate()
            send.close()
            receive.close()

    async def heal(self, database: Database) -> None:
        """Read the log from the last cursor."""
        while page := await database.run(events.Since(after=self._cursor)):
            for event in page:
                self.take(event)

"""The gateway survives what it does not expect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from coordinator.api.filter import Filter
from coordinator.api.gateway import Gateway
from coordinator.api.stream import StreamResponse
from coordinator.config import Config
from coordinator.db.database import Database
from coordinator.model.event import parsed_cursor
from coordinator.operations import signals
from coordinator.operations.events import Head
from coordinator.operations.work import RelayStep
from coordinator.telemetry import metrics
from tests.daemon import opened
from tests.faults.proxy import Proxy
from tests.waiting import DEADLINE_S, until


class Stream:
    """A reader that notes what it gets, and where it has to continue alone."""

    def __init__(self, gateway: Gateway) -> None:
        self.filter = Filter([], [], gateway.config.http_topics)
        self.exclude = None
        self.epoch = gateway.epoch
        self.seq = gateway.ring.head
        self.pushed: list[int] = []
        self.interrupted = anyio.Event()
        self.got = anyio.Event()

    def push(self, data: bytes, first_seq: int) -> None:
        assert data
        self.pushed.append(first_seq)
        self.got.set()

    def beat(self, now: float) -> None:
        pass

    def interrupt(self) -> None:
        self.interrupted.set()


@pytest.fixture(autouse=True)
def rest_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.api.gateway.REST_AFTER_S", 0)
    monkeypatch.setattr("coordinator.api.gateway.HEAD_S", 0)


@asynccontextmanager
async def running(db: Database) -> AsyncIterator[Gateway]:
    gateway = Gateway(db, Config())
    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(gateway.run_forever)
            await gateway.started.wait()
            yield gateway
            tasks.cancel_scope.cancel()


async def emit(db: Database, *keys: str) -> None:
    for key in keys:
        await db.run(signals.Set(project="default", key=key, value=1))
    await db.run(RelayStep())


async def test_no_stream_begins_before_what_another_has_read(db: Database) -> None:
    """A stream may read the log before the gateway does, which a notification has not reached yet."""
    async with running(db) as gateway, gateway.connection():
        epoch, head = parsed_cursor(await gateway.cursor(db))
        gateway.seen(epoch, head + 2)
        gateway.seen(epoch, head + 1)
        gateway.seen("lost", head + 9)
        assert await gateway.cursor(db) == f"{epoch}.{head + 2}"


async def test_a_page_that_cannot_be_delivered_is_left_to_each_stream_and_the_next_one_is_delivered(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver = Gateway._publish

    async def publish(self: Gateway, events: list[Any], reader: Any) -> None:
        if any(event.key == "bad" for event in events):
            raise ZeroDivisionError
        await deliver(self, events, reader)

    monkeypatch.setattr(Gateway, "_publish", publish)
    async with running(db) as gateway:
        first, second = Stream(gateway), Stream(gateway)
        async with gateway.connection(first), gateway.connection(second):
            start = first.seq = gateway.ring.head
            gateway.join(first)
            await emit(db, "bad")
            await first.interrupted.wait()
            assert first.seq == start, "it would miss the page"
            assert gateway.obstacle(0)
            second.seq = gateway.ring.head
            gateway.join(second)
            await emit(db, "good")
            await second.got.wait()
            assert second.pushed == [start + 2]
            assert first.pushed == []


async def test_a_lost_direct_connection_is_an_obstacle_although_nobody_needs_events(
    database_url: str, config: Config
) -> None:
    async with (
        Proxy(database_url).serving() as proxy,
        Database.open(database_url, config, direct_dsn=proxy.url) as db,
        running(db) as gateway,
    ):

        def clear() -> bool:
            return gateway.obstacle(0) is None

        await until(clear, "it rests")
        await proxy.refuse()
        await until(lambda: "no direct connection" in (gateway.obstacle(0) or ""), "it says that it cannot listen")
        await proxy.accept()
        await until(clear, "it listens again")


async def test_while_nobody_is_connected_nothing_is_read(db: Database) -> None:
    async with running(db) as gateway:
        await emit(db, "a", "b")
        assert await gateway.cursor(db) == await db.run(Head())
        assert gateway.ring.head == 0, "nobody needed the events"
        stream = Stream(gateway)
        async with gateway.connection(stream):
            gateway.join(stream)
            await stream.got.wait()
        await emit(db, "c")  # wakes it once more, and then it rests
        await until(lambda: not gateway._awake.is_set(), "the gateway rests")
        read = metrics.CALL_SECONDS.labels("events_since")._sum.get()
        await emit(db, "d", "e")
        assert await gateway.cursor(db) == await db.run(Head())
        assert metrics.CALL_SECONDS.labels("events_since")._sum.get() == read


async def test_what_happens_after_a_rest_has_ended_reaches_a_stream_however_much_it_is(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(db) as gateway:
        monkeypatch.setattr("coordinator.api.gateway.FILL_EVENTS", 2)
        await emit(db, *"abcdef")
        stream = Stream(gateway)
        async with gateway.connection(stream):
            stream.seq = parsed_cursor(await db.run(Head()))[1]
            assert gateway.ring.floor == stream.seq - 2, "it begins shortly before the end"
            gateway.join(stream)
            await emit(db, *"ghijkl")
            await stream.got.wait()
            assert stream.pushed[0] == stream.seq + 1


async def test_a_waiter_on_a_resting_gateway_is_woken_by_what_follows(db: Database) -> None:
    async with running(db) as gateway:
        await emit(db, *"abc")
        async with gateway.connection():
            with gateway.watch(Filter([], ["signal.set"], 10), lambda data: data["version"] > 3) as wake:
                await emit(db, "d")
                assert await wake.wait(DEADLINE_S)


async def test_events_that_were_pruned_before_a_rest_ended_reset_no_stream(db: Database) -> None:
    async with running(db) as gateway:
        await emit(db, *"ab")
        await emit(db, *"cd")
        async with opened(db.dsn) as connection:
            await connection.execute(
                "delete from coordinator.event_chunks where last_seq <= 2; select setval('coordinator.event_floor', 2)"
            )
        stream = Stream(gateway)
        async with gateway.connection(stream):
            stream.seq = parsed_cursor(await db.run(Head()))[1]
            gateway.join(stream)
            await emit(db, "e")
            await stream.got.wait()
            assert stream.pushed == [stream.seq + 1]
            assert gateway.ring.floor == 2


FORGET_EPOCH = "select setval('coordinator.epoch_mark', 1)"  # as after a start of the server


async def test_streams_continue_into_another_epoch_without_a_reset(db: Database, database_url: str) -> None:
    async with running(db) as gateway, opened(database_url) as connection:
        stream = Stream(gateway)
        async with gateway.connection(stream):
            gateway.join(stream)
            await emit(db, "a")
            await stream.got.wait()
            before = gateway.epoch
            await connection.execute(FORGET_EPOCH)
            await db.run(RelayStep())
            stream.got = anyio.Event()
            await emit(db, "b")
            await stream.got.wait()
            assert stream.pushed == [1, 2], "a reset is pushed, too"
            assert not stream.interrupted.is_set()
            assert gateway.epoch != before
            assert await gateway.cursor(db) == await db.run(Head())


def response(gateway: Gateway, executor: Any, seq: int) -> StreamResponse:
    after = f"{gateway.epoch}.{seq}"
    return StreamResponse(gateway, executor, cast("Any", None), Stream(gateway).filter, after=after, exclude=None)


async def test_a_stream_reads_again_if_an_epoch_began_while_it_found_nothing(db: Database) -> None:
    async with running(db) as gateway:

        class Late:
            """Reads a page as it was before the gateway published the reset of another epoch."""

            async def run(self, operation: Any) -> list[Any]:
                gateway.epoch = "later"
                return []

        with gateway.memory.hold() as hold:
            looks_again = await response(gateway, Late(), gateway.ring.head + 7)._catch_up_some(hold)
        assert looks_again, "else it would join without what was published"


async def test_a_stream_that_leaves_its_group_continues_in_the_epoch_of_the_gateway(db: Database) -> None:
    async with running(db) as gateway:
        stream = response(gateway, db, 1)
        stream._transport = cast("Any", SimpleNamespace(get_write_buffer_size=lambda: 2**40))
        gateway.epoch = "later"
        stream.push(b"what a full socket does not take", 9)
        assert (stream.epoch, stream.seq) == ("later", 8)


async def test_metrics_say_which_streams_are_behind_and_how_soon_events_were_sent(db: Database) -> None:
    await emit(db, "first")  # the first step in a copy of a database begins an epoch
    async with running(db) as gateway:
        slow, live = Stream(gateway), Stream(gateway)
        async with gateway.connection(slow), gateway.connection(live):
            _, head = parsed_cursor(await db.run(Head()))

            async def sent() -> bool:
                await emit(db, "more")
                return sends() > before

            await until(lambda: gateway.ring.head == head, "the gateway has read the log")
            slow.seq = live.seq = head
            gateway.join(live)
            await emit(db, "a", "b")
            await until(lambda: gateway.ring.head == head + 2, "the gateway has read both")
            assert value("coordinator_stream_connections") == 2
            assert value("coordinator_stream_behind") == 1
            assert value("coordinator_stream_behind_events") == 2
            slow.seq = head + 2
            gateway.join(slow)
            assert value("coordinator_stream_behind") == value("coordinator_stream_behind_events") == 0
            before = sends()
            await until(sent, "how soon an event was sent")


def value(name: str) -> float | None:
    return metrics.REGISTRY.get_sample_value(name)


def sends() -> float:
    return value("coordinator_stream_send_seconds_count") or 0

"""Daemons deliver to a real receiver, whatever happens to them."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import anyio
import asyncpg
import pytest

from coordinator.config import Config
from coordinator.db.connection import connect
from coordinator.db.database import Database
from coordinator.errors import DatabaseUnavailable
from coordinator.model.network import Networks
from coordinator.operations import events, webhooks
from coordinator.telemetry import tracing
from coordinator.webhooks import deliveries as delivering
from coordinator.webhooks import sender as sending
from coordinator.webhooks.deliveries import WebhookDeliveries
from tests.daemon import Daemon, opened
from tests.waiting import DEADLINE_S, until, until_true
from tests.webhooks.receiver import Received, Receiver, answer

NETWORKS = "127.0.0.0/8"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Bench:
    """A database with webhooks, and what delivers for it in this process."""

    def __init__(self, database: Database, connection: asyncpg.Connection) -> None:
        self.database = database
        self.connection = connection
        self._deliveries: list[WebhookDeliveries] = []

    async def add(self, url: str, project: str = "default") -> int:
        return (await self.database.run(webhooks.Add(project=project, url=url, topics=["custom.*"]))).webhook

    async def emit(self, *keys: str, project: str = "default") -> None:
        for key in keys:
            await self.database.run(events.Emit(project=project, type="custom.x", key=key))
        await self.number()
        self.nudge()

    async def number(self) -> None:
        while await self.connection.fetchval("select moved from coordinator.relay_step()"):
            pass

    def nudge(self) -> None:
        for deliveries in self._deliveries:
            deliveries.nudge()

    @asynccontextmanager
    async def delivering(self, database: Any = None) -> AsyncIterator[None]:
        @asynccontextmanager
        async def opened() -> AsyncIterator[Any]:
            yield database or self.database

        deliveries = WebhookDeliveries(opened, Networks(NETWORKS))
        self._deliveries.append(deliveries)
        deliveries.nudge()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(deliveries.run_forever)
            yield
            tasks.cancel_scope.cancel()
        self._deliveries.remove(deliveries)

    async def all_end(self, *, hurried: bool = True) -> None:
        """Wait until nothing waits; unless it is not to be hurried, what would be retried later is due now."""

        async def ended() -> bool:
            if hurried:
                await self.hurry()
            return await self.connection.fetchval(
                "select not exists (select from coordinator.webhook_deliveries where status = 'waiting') and 'webhook' <> all (coordinator.work_due())"
            )

        await until(ended, "all deliveries have ended")

    async def hurry(self) -> None:
        """Let what waits for a retry be due, unless somebody attempts it."""
        await self.connection.execute(
            "update coordinator.webhook_deliveries set due_at = now() where status = 'waiting' and due_at > now()"
        )
        await self.connection.execute(
            "select coordinator.webhook_next(array(select id from coordinator.webhooks where claimed_until is null and waiting > 0), now())"
        )
        self.nudge()


class Counting:
    """Runs operations, and counts those of a kind."""

    def __init__(self, database: Database, kind: type) -> None:
        self._database = database
        self._kind = kind
        self.count = 0

    async def run(self, operation: Any) -> Any:
        answer = await self._database.run(operation)
        self.count += isinstance(operation, self._kind)
        return answer


@pytest.fixture
async def bench(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(sending, "ATTEMPT_S", DEADLINE_S)  # no call and no attempt ends because the machine stood still
    monkeypatch.setattr(sending, "CONNECT_S", DEADLINE_S)
    connection = await connect(database_url)
    config = Config(min_connections=1, max_connections=4, call_timeout_s=DEADLINE_S)
    async with Database.open(database_url, config) as database:
        yield Bench(database, connection)
    await connection.close()


def keys(receiver: Receiver) -> list[str]:
    return [json.loads(request.body)["data"]["key"] for request in receiver.received]


def ids(receiver: Receiver) -> list[str]:
    return [request.headers["webhook-id"] for request in receiver.received]


async def test_a_delivery_has_the_trace_of_the_call_that_made_its_event_also_when_it_is_repeated(bench: Bench) -> None:
    async def failing(received: Received, writer: asyncio.StreamWriter) -> None:
        await answer(500 if len(receiver.received) == 1 else 200)(received, writer)

    async with Receiver(failing) as receiver:
        await bench.add(receiver.url)
        async with bench.delivering():
            with tracing.received("x", "server", {}, tracing.parsed(PARENT)):
                await bench.emit("traced")
            await bench.all_end()
            await bench.emit("other")
            await receiver.got(3)
        assert keys(receiver) == ["traced", "traced", "other"]
        for request in receiver.received[:2]:
            assert request.headers["traceparent"][:35] == PARENT[:35]
            assert json.loads(request.body)["data"]["traceparent"][:35] == PARENT[:35]
        assert "traceparent" not in receiver.received[2].headers


async def test_a_hostile_receiver_delays_no_other_webhook(bench: Bench) -> None:
    """Every slot that slow webhooks may have is taken by receivers that never respond."""
    held = asyncio.Event()

    async def never(_received: Received, _writer: asyncio.StreamWriter) -> None:
        await held.wait()

    async with Receiver(never) as hostile, Receiver() as good:
        for number in range(3):
            await bench.connection.execute("select coordinator.project_create($1)", f"p{number}")
            for _ in range(12):
                await bench.add(hostile.url, f"p{number}")
        mine = await bench.add(good.url)
        async with bench.delivering():
            await bench.emit("a", project="p0")
            await bench.emit("a", project="p1")
            await bench.emit("a", project="p2")
            await hostile.got(36)
            await bench.emit("b", "c", "d")
            assert [json.loads(one.body)["data"]["key"] for one in await good.got(3)] == ["b", "c", "d"]
            assert len(hostile.received) == 36
        assert (await bench.database.run(webhooks.Show(project="default", webhook=mine))).status == "active"


async def test_what_fails_is_retried_in_order_with_one_id_until_it_is_delivered(bench: Bench) -> None:
    responses = iter([500, 302, 429, 200, 404])

    async def respond(received: Received, writer: asyncio.StreamWriter) -> None:
        await answer(next(responses, 200))(received, writer)

    async with Receiver(respond) as receiver, bench.delivering():
        await bench.add(receiver.url)
        await bench.emit("a", "b", "c")
        await bench.all_end()
    assert keys(receiver) == ["a", "a", "a", "a", "b", "b", "c"]
    assert len(dict.fromkeys(zip(keys(receiver), ids(receiver), strict=True))) == 3


async def test_a_process_that_dies_between_delivery_and_commit_repeats_it_with_the_same_id(bench: Bench) -> None:
    class Dying:
        """Delivers, and then never comes to store what became of it."""

        def __init__(self, database: Database) -> None:
            self._database = database
            self.stored = asyncio.Event()

        async def run(self, operation: Any) -> Any:
            if isinstance(operation, webhooks.Finish):
                self.stored.set()
                await asyncio.sleep(2 * DEADLINE_S)
            return await self._database.run(operation)

    async with Receiver() as receiver:
        await bench.add(receiver.url)
        await bench.emit("a", "b")
        dying = Dying(bench.database)
        async with bench.delivering(dying):
            with anyio.fail_after(DEADLINE_S):
                await dying.stored.wait()
        await bench.connection.execute("update coordinator.webhooks set claimed_until = now(), due_at = now()")
        async with bench.delivering():
            await bench.all_end()
    assert keys(receiver) == ["a", "b", "a", "b"]
    assert ids(receiver)[:2] == ids(receiver)[2:]


async def test_an_outcome_is_stored_through_an_outage_of_the_database(bench: Bench) -> None:
    class Away:
        def __init__(self, database: Database) -> None:
            self._database = database
            self.failures = 3

        async def run(self, operation: Any) -> Any:
            lost = isinstance(operation, webhooks.Finish) and self.failures > 0
            if lost:
                self.failures -= 1
            if lost and self.failures:
                raise DatabaseUnavailable("away")
            answer = await self._database.run(operation)
            if lost:
                raise DatabaseUnavailable("the answer was lost")
            return answer

    async with Receiver() as receiver, bench.delivering(Away(bench.database)):
        await bench.add(receiver.url)
        await bench.emit("a", "b")
        await bench.all_end()
        assert keys(receiver) == ["a", "b"]


async def test_two_who_lead_at_once_deliver_in_order_and_may_only_repeat(bench: Bench) -> None:
    wanted = [str(number) for number in range(40)]
    async with Receiver() as one, Receiver() as two, AsyncExitStack() as stack:
        for receiver in (one, two):
            await bench.add(receiver.url)
        for _ in range(2):
            await stack.enter_async_context(bench.delivering())
        for key in wanted:
            await bench.emit(key)
            # A claim that ends while its holder is still at work: the other one takes over.
            await bench.connection.execute(
                "update coordinator.webhooks set claimed_until = now(), due_at = now() where claimed_until is not null"
            )
        await bench.all_end()
    for receiver in (one, two):
        first = list(dict.fromkeys(keys(receiver)))
        assert first == wanted
        assert len(dict.fromkeys(zip(keys(receiver), ids(receiver), strict=True))) == len(wanted)


async def test_a_webhook_gives_its_slot_to_whoever_waits(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one slot, two webhooks with much to deliver take turns."""
    monkeypatch.setattr(delivering, "SLOTS", 1)
    wanted = [str(number) for number in range(20)]  # more than a claim hands out
    order: list[str] = []

    def noting(name: str) -> Any:
        async def respond(received: Received, writer: asyncio.StreamWriter) -> None:
            order.append(name)
            await answer(200)(received, writer)

        return respond

    async with Receiver(noting("one")) as one, Receiver(noting("two")) as two:
        for receiver in (one, two):
            await bench.add(receiver.url)
        await bench.emit(*wanted)
        while await bench.database.run(webhooks.Fill()):
            pass
        async with bench.delivering():
            await bench.all_end(hurried=False)
    assert keys(one) == keys(two) == wanted
    assert [name for name, _ in itertools.groupby(order)] == ["one", "two"] * 2


async def test_a_loop_that_fails_keeps_attempts_that_are_in_progress(bench: Bench) -> None:
    class Failing:
        def __init__(self, database: Database) -> None:
            self._database = database
            self.fails = False
            self.failed = asyncio.Event()

        async def run(self, operation: Any) -> Any:
            if self.fails and isinstance(operation, webhooks.Fill):
                self.failed.set()
                raise DatabaseUnavailable("away")
            return await self._database.run(operation)

    release = asyncio.Event()

    async def later(received: Received, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        await answer(200)(received, writer)

    failing = Failing(bench.database)
    async with Receiver(later) as receiver, bench.delivering(failing):
        webhook = await bench.add(receiver.url)
        await bench.emit("a")
        await receiver.got(1)
        failing.fails = True
        bench.nudge()
        with anyio.fail_after(DEADLINE_S):
            await failing.failed.wait()
        release.set()

        async def delivered() -> bool:
            (one,) = await bench.database.run(webhooks.Deliveries(project="default", webhook=webhook))
            return one.status == "delivered"

        await until(delivered, "it was delivered")
        assert len(receiver.received) == 1


async def test_what_is_in_memory_is_bounded_by_bytes_however_many_webhooks_have_large_events(bench: Bench) -> None:
    """Each body takes 3 of the 64 slots of 128 KiB, so 22 are in memory while nobody responds."""
    release = asyncio.Event()

    async def later(received: Received, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        await answer(200)(received, writer)

    async with Receiver(later) as receiver:
        for number in range(5):
            await bench.connection.execute("select coordinator.project_create($1)", f"p{number}")
            for _ in range(6):
                await bench.add(receiver.url, f"p{number}")
            await bench.database.run(events.Emit(project=f"p{number}", type="custom.x", data={"x": "x" * 262_000}))
        await bench.connection.execute(
            "update coordinator.webhooks set delivered_at = now()"
        )  # else they get fewer slots
        await bench.number()
        while await bench.database.run(webhooks.Fill()):
            pass
        fills = Counting(bench.database, webhooks.Fill)
        async with bench.delivering(fills):
            await receiver.got(22)
            for _ in range(3):  # it has looked for more
                count = fills.count
                bench.nudge()
                await until(lambda: asyncio.sleep(0, fills.count > count), "it looked again")  # noqa: B023
            assert len(receiver.received) == 22
            assert sum(len(request.body) for request in receiver.received) < 64 * 131_072
            release.set()
            await bench.all_end()
        assert len(receiver.received) == 30


@pytest.mark.slow
async def test_daemons_deliver_and_another_one_continues_when_the_leader_is_killed(database_url: str) -> None:
    """The leader dies while it waits for a response: the other one repeats what had been claimed, and goes on."""
    release = asyncio.Event()

    async def later(received: Received, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        await answer(200)(received, writer)

    async with opened(database_url) as connection, Receiver(later) as receiver, AsyncExitStack() as stack:
        parts = urlsplit(database_url)
        named = parts._replace(query=f"{parts.query}&application_name=first".lstrip("&")).geturl()
        first = stack.enter_context(Daemon(named, webhook_networks=NETWORKS))
        await (await first.ready()).lead()
        await connection.execute("select coordinator.webhook_add('default', $1, '{custom.*}')", receiver.url)
        await connection.execute("select coordinator.event_emit('default', 'custom.x', 'a')")
        await receiver.got(1)
        second = stack.enter_context(Daemon(database_url, webhook_networks=NETWORKS))
        await second.ready()
        first.kill()
        release.set()
        await connection.execute("select coordinator.event_emit('default', 'custom.x', 'b')")
        gone = "select not exists (select from pg_stat_activity where application_name = 'first')"
        await until_true(connection, gone)  # until then, the server may still run what it had asked for
        # What it had claimed would wait for a minute.
        await connection.execute(
            "update coordinator.webhooks set claimed_until = now(), due_at = now() where claimed_until is not null"
        )
        await receiver.got(3)
        assert keys(receiver) == ["a", "a", "b"]
        assert ids(receiver)[0] == ids(receiver)[1]
        await until(_counted(second), "it counts what it delivered")


def _counted(daemon: Daemon) -> Any:
    async def look() -> bool:
        return await daemon.metric('coordinator_webhook_attempts_total{outcome="delivered"}') == 2

    return look

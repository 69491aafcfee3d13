"""The gateway survives what it does not expect."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from coordinator.api.filter import Filter
from coordinator.api.gateway import Gateway
from coordinator.config import Config
from coordinator.db.database import Database
from coordinator.operations import signals
from coordinator.operations.work import RelayStep
from tests.waiting import DEADLINE_S


class Stream:
    """A reader that notes what it gets, and where it has to continue alone."""

    def __init__(self, gateway: Gateway) -> None:
        self.filter = Filter([], [], gateway.config.http_topics)
        self.exclude = None
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


async def test_a_page_that_cannot_be_delivered_is_left_to_each_stream_and_the_next_one_is_delivered(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def emit(key: str) -> None:
        await db.run(signals.Set(project="default", key=key, value=1))
        await db.run(RelayStep(limit=1000))

    deliver = Gateway._publish

    async def publish(self: Gateway, events: list[Any], reader: Any) -> None:
        if any(event.key == "bad" for event in events):
            raise ZeroDivisionError
        await deliver(self, events, reader)

    monkeypatch.setattr(Gateway, "_publish", publish)
    gateway = Gateway(db, Config())
    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(gateway.run_forever)
            await gateway.started.wait()
            first, second = Stream(gateway), Stream(gateway)
            start = gateway.ring.head
            gateway.join(first)
            await emit("bad")
            await first.interrupted.wait()
            assert first.seq == start, "it would miss the page"
            assert gateway.obstacle(0)
            second.seq = gateway.ring.head
            gateway.join(second)
            await emit("good")
            await second.got.wait()
            assert second.pushed == [start + 2]
            assert first.pushed == []
            tasks.cancel_scope.cancel()

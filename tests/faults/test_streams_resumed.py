"""Whatever is cut, killed or restarted: readers that continue from a cursor see every event once, in order.

One harness: writers that repeat each write with its idempotency key until it is acknowledged, subscribers that are cut at
random moments, all at the same addresses, others straight at the database, and faults between them. Since each subscriber must have seen
exactly the log, any two have seen the same; since numbers only rise on a connection, no live event overtakes the backlog.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import get_args

import anyio
import pytest

from coordinator import embedded
from coordinator.config import Config
from coordinator.db.database import Database
from tests.daemon import log_of
from tests.faults.plane import SETTINGS, Plane, Way
from tests.faults.subscriber import ClientSubscriber, Subscriber
from tests.http_client import http_client
from tests.relay.load import LONG_S, Load
from tests.waiting import DEADLINE_S, until

BETWEEN = 40  # events that everybody gets between two faults
LAST = "last"


@pytest.mark.parametrize("duration_s", [0.0, pytest.param(LONG_S, marks=pytest.mark.long)], ids=["short", "long"])
@pytest.mark.parametrize("way", get_args(Way))
async def test_a_client_that_is_cut_resumes_without_loss_or_disorder_over_every_fault(
    data_dir: Path, config: Config, seed: int, way: Way, duration_s: float
) -> None:
    """Every fault once, in any order, and at random for as long as it shall last."""
    async with embedded.run(data_dir, settings=SETTINGS) as server:
        plane, load = Plane(server, way, data_dir.parent), Load(server.dsn, seed=seed)
        first, last = plane.urls[0], plane.urls[-1]
        cut = [
            Subscriber(first, seed),
            Subscriber(last, seed + 1),
            Subscriber(last, seed + 2, project="default", topic="custom.load", exclude_self="nobody"),
        ]
        subscribers = [*cut, ClientSubscriber(last, seed), ClientSubscriber(server.dsn, seed)]
        async with plane.running(), Database.open(server.dsn, config) as database:
            with anyio.fail_after(5 * DEADLINE_S + 2 * duration_s):
                await befall(plane, load, database, subscribers, seed, duration_s)
            log = await log_of(server.dsn)
    load.judge(log)
    written = [(event["seq"], event["key"]) for event in log if event["type"] == "custom.load"]
    for subscriber in subscribers:
        assert list(subscriber.seen.items()) == written
    assert all(subscriber.connections > 2 for subscriber in cut)
    assert load.repeated, "no writer noticed a fault: they tested nothing"


async def befall(  # noqa: PLR0917
    plane: Plane, load: Load, database: Database, subscribers: list[Subscriber], seed: int, duration_s: float
) -> None:
    """Write, read, and let the faults happen."""
    chance, enough = random.Random(seed), anyio.Event()
    ends_at = time.monotonic() + duration_s

    async def further() -> None:
        wanted = min(len(subscriber.seen) for subscriber in subscribers) + BETWEEN
        await until(
            lambda: min(len(subscriber.seen) for subscriber in subscribers) >= wanted,
            "every subscriber has more events",
            every_s=0.02,
        )

    async with anyio.create_task_group() as reading:
        for subscriber in subscribers:
            reading.start_soon(subscriber.run, LAST)
        async with anyio.create_task_group() as writing:
            for url in plane.urls:
                writing.start_soon(load.post, http_client(url), enough)
            writing.start_soon(load.call, database, enough)
            faults = chance.sample(list(plane.faults), len(plane.faults))
            while faults:
                await further()
                await plane.faults[faults.pop()]()
                if not faults and time.monotonic() < ends_at:
                    faults = [chance.choice(list(plane.faults))]
            await further()
            enough.set()
        await load.post(http_client(plane.urls[0]), enough, keys=[LAST])

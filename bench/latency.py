"""Latency from the call to a LISTEN client, under a paced load and after idleness, and the cost of an idle daemon."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator

import anyio

from bench.listener import Heard, listening
from bench.load import SET_KEYS, paced
from bench.place import Options, Place, daemon, fresh
from bench.report import Table, load, percentile
from coordinator.db.call import call
from coordinator.operations import signals

__all__ = ["CHANNEL", "SET", "run"]

CHANNEL = "coordinator.default.signal"
SET = (
    SET_KEYS
    + "select * from coordinator.signal_set('default', 'task/' || :client_id || '/' || :k, '{\"state\": \"done\"}');"
)
CLIENTS = 16
RATE = 5000
REACHED = 0.95  # of the rate, or the round is not valid
WARM_S = 2.0
FIRST_EVENTS = 60
IDLE_S = 30.0
SETTLE_S = 13.0  # every loop has run once, and idle sessions have reported what they changed (after 10 s)


async def run(options: Options) -> AsyncIterator[Table]:
    """Measure all three on one server."""
    async with fresh(options) as place, daemon(place):
        # In this order, because after load, the server's own work (autovacuum) would count as queries of an idle daemon.
        yield await _idle(place)
        yield await _after_idle(place)
        yield await _under_load(place, options)


async def _under_load(place: Place, options: Options) -> Table:
    rows = []
    for number in range(1, options.rounds + 1):
        async with listening(place, CHANNEL) as heard:
            seconds = options.round_s + WARM_S
            async with paced(place, SET, clients=CLIENTS, rate=RATE, seconds=seconds) as task:
                rate = await task
            await _settled(heard)
            found = heard.latencies()
        began = found[0][0] + WARM_S
        values = [latency for arrival, latency in found if arrival >= began]
        p50, p99 = percentile(values, 50), percentile(values, 99)
        verdict = "met" if p50 <= 5 and p99 <= 20 else "MISSED"
        if rate < RATE * REACHED:
            verdict += ", and the machine was too busy for the load"
        figures = [f"{figure:.1f}" for figure in (p50, p99, max(values))]
        rows.append([str(number), f"{rate:,.0f}", f"{len(values):,}", *figures, f"≤ 5, ≤ 20: {verdict}"])
    return Table(
        f"Call to LISTEN client at {RATE:,} events a second",
        ["round", "events a second", "events", "p50 ms", "p99 ms", "most ms", "target"],
        rows,
        [
            f"{CLIENTS} writers, one event a transaction, one listener of every event; the commit is part of the latency.",
            f"Load average at the end {load():.1f}.",
        ],
    )


async def _settled(heard: Heard) -> None:
    """Wait until no event has arrived for a while."""
    with anyio.fail_after(30):
        while time.time() - (heard.last() or time.time()) < 0.5:
            await anyio.sleep(0.1)


async def _after_idle(place: Place) -> Table:
    connection = await place.connect()
    since_answer, since_call = [], []
    try:
        async with listening(place, CHANNEL) as heard:
            for number in range(FIRST_EVENTS):
                await anyio.sleep(0.3 + random.random() * 0.3)
                heard.clear()
                await call(connection, signals.Set(project="default", key="first", value=number))
                answered = time.time()
                with anyio.fail_after(5):
                    while heard.last() is None:
                        await anyio.sleep(0)
                ((arrived, latency),) = heard.latencies()
                since_answer.append(max(0.0, arrived - answered) * 1000)
                since_call.append(latency)
    finally:
        await connection.close()
    rows = []
    for label, values, target in (
        (
            "from the writer's answer",
            since_answer,
            f"p50 ≤ 5: {'met' if percentile(since_answer, 50) <= 5 else 'MISSED'}",
        ),
        ("from the call", since_call, ""),
    ):
        rows.append(
            [label, f"{percentile(values, 50):.1f}", f"{percentile(values, 99):.1f}", f"{max(values):.1f}", target]
        )
    return Table(
        "First event after idleness, to a LISTEN client",
        ["counted", "p50 ms", "p99 ms", "most ms", "target"],
        rows,
        [f"{FIRST_EVENTS} events, 0.3 to 0.6 s apart; the relay sleeps in between."],
    )


async def _idle(place: Place) -> Table:
    connection = await place.connect()
    try:

        async def count() -> int:
            # The statistics of this server's other sessions are at most a second old.
            value = await connection.fetchval(
                "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()"
            )
            return int(value)

        await anyio.sleep(SETTLE_S)
        await place.execute("vacuum analyze")  # or autovacuum's transactions on the fresh catalogue would count
        before = await count()
        await anyio.sleep(IDLE_S)
        queries = (await count() - before - 1) / IDLE_S
    finally:
        await connection.close()
    return Table(
        "An idle daemon",
        ["queries a second", "target"],
        [[f"{queries:.2f}", f"≤ 2: {'met' if queries <= 2 else 'MISSED'}"]],
        [f"Transactions of the whole database during {IDLE_S:g} s, the server's own included."],
    )

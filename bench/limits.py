"""Limits of jobs: queues with slots, a rate, slots per key and a rate per key, compared with a plain one, also with commits that take 2 ms longer."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from statistics import median

from bench.jobs import COLUMNS, notes, rounds, row
from bench.place import Options, Place, daemon, fresh
from bench.queues.claimer import Claimer
from bench.queues.order import PAYLOAD
from bench.queues.process import side
from bench.report import Table, load, ratio
from coordinator.db import schema
from coordinator.db.connection import connect

__all__ = ["run"]

KEYS = 10_000
SETUP = [
    "select coordinator.limit_set('default', 'slots', p_slots => 1000, p_queue => 'slots')",
    "select coordinator.limit_set('default', 'rate', p_rate => 1000000000, p_burst => 1000000000, p_queue => 'rate')",
    "select coordinator.limit_set('default', 'keyed', p_slots => 1, p_per_key => true, p_queue => 'keyed')",
    "select coordinator.limit_set('default', 'rated', p_rate => 1000, p_per_key => true, p_queue => 'rated')",
]
LABELS = {
    "plain": "plain",
    "slots": "1,000 slots of the queue",
    "rate": "a rate of the queue",
    "keyed": f"1 slot for each of {KEYS:,} keys",
    "rated": f"a rate for each of {KEYS:,} keys",
}
TARGETS = {"slots": 0.8, "rate": 0.8, "keyed": 0.65}
DELAY = {"commit_delay": "2000", "commit_siblings": "0"}
DELAYED = {"slots": 0.8, "rate": 0.5}
FULL = 9_900
SIZE = 100
TURNS = 60
CALL_S = 600.0
FILL = """
select count(*) from coordinator.job_enqueue_many('default', (
  select jsonb_agg(jsonb_build_object('type', 'summarize', 'queue', 'keyed', 'key', 'k' || n, 'payload', $3::jsonb)) from generate_series($1::integer, $2::integer) n))
"""


async def run(options: Options) -> AsyncIterator[Table]:
    """Measure all three."""
    async with fresh(options) as place, daemon(place) as relay:
        yield await _beside(place, relay, options, "Jobs drained from queues with limits", TARGETS)
    async with fresh(options, settings=DELAY) as place, daemon(place) as relay:
        title = "Jobs drained from queues with limits, each commit 2 ms longer"
        yield await _beside(place, relay, options, title, DELAYED)
    async with fresh(options) as place:
        yield await _full(place)


async def _beside(place: Place, relay: int, options: Options, title: str, targets: dict[str, float]) -> Table:
    await place.execute(*SETUP)
    async with AsyncExitStack() as stack:
        sides = {
            name: await stack.enter_async_context(
                side(place, "ours", name, str(KEYS) if name in {"keyed", "rated"} else "0", relay=relay)
            )
            for name in LABELS
        }
        costs = (await rounds(sides, ("enqueue", "drain"), options))["drain"]
    rows = []
    for name, each in costs.items():
        cells = row(LABELS[name], costs["plain"], each, None)
        if name != "plain":
            value = ratio([cost.rate for cost in each], [cost.rate for cost in costs["plain"]])
            cells[2] = f"{value:.2f}"
            if name in targets:
                cells[-1] = f"≥ {targets[name]:g}: {'met' if value >= targets[name] else 'MISSED'}"
        rows.append(cells)
    columns = ["queue", *COLUMNS]
    columns[2] = "ratio to plain"
    return Table(title, columns, rows, notes(options))


async def _full(place: Place) -> Table:
    """Claim from a hundred free keys, with none or 9,900 full ones."""
    sides = {}
    for name, full in (("free", 0), ("full", FULL)):
        await place.execute(f"create database keys_{name}")
        connection = await connect(
            place.dsn.replace("/coordinator?", f"/keys_{name}?"), call_timeout_s=CALL_S, raw_json=True
        )
        await schema.apply(connection)
        await connection.execute(SETUP[2])
        worker = await Claimer.start(connection, name, "keyed")
        for _ in range(2 if full else 0):  # the first of each key runs, the second waits
            for first in range(0, full, 900):
                await connection.execute(FILL, KEYS + first, KEYS + first + 899, PAYLOAD)
        held = await Claimer.start(connection, "held", "keyed")
        for _ in range(0, full, 900):
            await held.claim.fetch(held.agent, 900, ["keyed"], [], [], [])
        await connection.execute("vacuum analyze")
        sides[name] = worker
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(TURNS + 3):
        for name, worker in sides.items():
            await worker.connection.execute(FILL, 1, SIZE, PAYLOAD)
            began = time.perf_counter()
            await worker.turn(SIZE)
            if turn >= 3:
                times[name].append((time.perf_counter() - began) * 1000)
            if len(worker.finished) != SIZE:
                raise SystemExit("a full key was in the way")
    for worker in sides.values():
        await worker.connection.close()
    value = ratio(times["full"], times["free"])
    return Table(
        f"{SIZE} jobs of {SIZE} keys finished and as many claimed, in one call",
        ["keys", "p50 ms", "to the first", "target"],
        [
            [f"{SIZE} free", f"{median(times['free']):.2f}", "1.00", ""],
            [f"{SIZE} free, {FULL:,} full", f"{median(times['full']):.2f}", f"{value:.2f}",
             f"≤ 1.5: {'met' if value <= 1.5 else 'MISSED'}"],
        ],
        [f"{TURNS} interleaved turns of one client; load average at the end {load():.1f}."],
    )  # fmt: skip

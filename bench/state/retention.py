"""Retention: many entries leave a log, by age and by count, in paced batches, while four writers append to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import asyncpg

from bench.place import Options, Place, fresh
from bench.report import Table, load, percentile, ratio
from coordinator.loops.table import PAUSE_S

__all__ = ["run"]

WRITERS = 4
GOING = 20_000  # entries that leave the log in each second of a round
STAYING = 10_000  # the newest, which the policy keeps
TIMES = 3.0
WAIT_MS = 100.0
APPEND = """select coordinator.log_append('default', 'observation', 'busy', '[{"data": {"text": "x"}}]'::json)"""
FILL = """
insert into coordinator.entries (log_id, seq, epoch, actor, created_at, data)
select l.id, l.last_seq + n, 0, 'bench', now() - case when n <= $1::integer / 2 then interval '8 days' else interval '1 hour' end, '{"text": "x"}'
from coordinator.logs l, generate_series(1, $1::integer) n where l.key = 'busy'"""
HEADER = """
update coordinator.logs set last_seq = last_seq + $1::integer, count = count + $1::integer, trim_at = now() where key = 'busy'"""


async def run(options: Options) -> AsyncIterator[Table]:
    """Measure it."""
    async with fresh(options) as place:
        yield await _trims(place, options)


async def _write(connection: asyncpg.Connection, times: list[float], done: asyncio.Event) -> None:
    while not done.is_set():
        began = time.perf_counter()
        await connection.execute(APPEND)
        times.append((time.perf_counter() - began) * 1000)


async def _trim(connection: asyncpg.Connection) -> int:
    """Trim in paced batches until nothing is due; return how many entries were removed."""
    gone = 0
    while results := await connection.fetch("select removed from coordinator.log_trim()"):
        gone += sum(row["removed"] for row in results)
        await asyncio.sleep(PAUSE_S)
    return gone


async def _round(place: Place, seconds: float, going: int) -> tuple[list[float], int, float]:
    """Append for some seconds, or until the entries are removed; return how long each append took, how many entries were removed, and in what time."""
    connections = [await place.connect() for _ in range(WRITERS + 1)]
    trimmer, writers = connections[0], connections[1:]
    times: list[float] = []
    done = asyncio.Event()
    gone, began = 0, time.perf_counter()
    try:
        if going:
            async with trimmer.transaction():
                await trimmer.execute(FILL, going)
                await trimmer.execute(HEADER, going)
        tasks = [asyncio.create_task(_write(writer, times, done)) for writer in writers]
        began = time.perf_counter()
        if going:
            gone = await _trim(trimmer)
        else:
            await asyncio.sleep(seconds)
        took = time.perf_counter() - began
        done.set()
        await asyncio.gather(*tasks)
    finally:
        for connection in connections:
            await connection.close()
    return times, gone, took


async def _trims(place: Place, options: Options) -> Table:
    began = load()
    await place.execute(APPEND)
    alone: list[float] = []
    beside: list[float] = []
    longest, gone, took = 0.0, 0, 0.0
    for _ in range(options.rounds):
        times, _, _ = await _round(place, options.round_s / 2, 0)
        alone.append(percentile(times, 99))
        times, went, seconds = await _round(place, options.round_s / 2, int(GOING * options.round_s))
        beside.append(percentile(times, 99))
        longest, gone, took = max(longest, *times), gone + went, took + seconds
    times_more = ratio(beside, alone)
    all_gone = gone >= options.rounds * int(GOING * options.round_s) - STAYING
    met = times_more <= TIMES and longest <= WAIT_MS and all_gone
    return Table(
        "Retention: entries leave a log to which four writers append",
        ["p99 without, ms", "p99 while they leave, ms", "ratio", "longest wait, ms", "entries a second", "target"],
        [
            [
                f"{max(alone):.1f}",
                f"{max(beside):.1f}",
                f"{times_more:.2f}",
                f"{longest:.0f}",
                f"{gone / took:,.0f}",
                f"≤ {TIMES:g} times, no wait beyond {WAIT_MS:g}: {'met' if met else 'MISSED'}",
            ]
        ],
        [f"{gone:,} entries left in {took:.0f} s, by age and by count; load average {began:.1f} to {load():.1f}."],
    )

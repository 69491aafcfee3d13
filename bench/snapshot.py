"""A snapshot held open for minutes: latency at 1,000 events per second must not grow without bound."""

from __future__ import annotations

from collections.abc import AsyncIterator
from statistics import median

import anyio

from bench.latency import CHANNEL, CLIENTS, SET
from bench.listener import listening
from bench.load import paced
from bench.place import Options, daemon, fresh
from bench.report import Table, load, percentile

__all__ = ["run"]

RATE = 1000
WINDOW_S = 10.0
EDGE = 3  # windows at each end; their median is compared, so that one noisy window does not decide
BOUND = 3.0  # last to first; steady growth of a few minutes would pass it, the noise of a shared machine does not
SHOWN = 16  # windows


async def run(options: Options) -> AsyncIterator[Table]:
    """Measure before, during and after the snapshot."""
    seconds = WINDOW_S + options.snapshot_s + 2 * WINDOW_S
    async with fresh(options) as place, daemon(place):
        holder = await place.connect()
        await holder.execute("set idle_in_transaction_session_timeout = 0")  # the product pins one minute
        async with (
            listening(place, CHANNEL) as heard,
            paced(place, SET, clients=CLIENTS, rate=RATE, seconds=seconds) as task,
        ):
            await anyio.sleep(WINDOW_S)
            snapshot = holder.transaction(isolation="repeatable_read", readonly=True)
            await snapshot.start()
            await holder.fetchval("select count(*) from coordinator.signals")
            await anyio.sleep(options.snapshot_s)
            kept = await holder.fetchrow(
                "select sum(pg_total_relation_size(relid)) as events, pg_total_relation_size('coordinator.event_chunks') as chunks"
                " from pg_partition_tree('coordinator.events')"
            )
            await snapshot.rollback()
            await task
        await holder.close()
        found = heard.latencies()
    began = found[0][0]
    windows: dict[int, list[float]] = {}
    for arrival, latency in found:
        windows.setdefault(int((arrival - began) // WINDOW_S), []).append(latency)
    last_held = int(options.snapshot_s // WINDOW_S)
    p99 = [percentile(windows[index], 99) for index in range(1, last_held + 1)]
    first, last = median(p99[:EDGE]), median(p99[-EDGE:])
    verdict = f"last / first ≤ {BOUND:g}: {'met' if last <= BOUND * first else 'MISSED'}"
    rows = []
    for index, values in sorted(windows.items()):
        if len(values) < RATE:
            continue
        state = "held" if 1 <= index <= last_held else "before" if index < 1 else "after"
        figures = [f"{figure:.1f}" for figure in (percentile(values, 50), percentile(values, 99), max(values))]
        rows.append([f"{index * WINDOW_S:.0f} s", state, *figures, verdict if index == last_held else ""])
    if len(rows) > SHOWN:  # the target applies to the ends; between them, every third is shown
        rows = [row for index, row in enumerate(rows) if index < 4 or index >= len(rows) - 6 or index % 3 == 0]
    yield Table(
        f"Call to LISTEN client at {RATE:,} events a second, a snapshot held for {options.snapshot_s:g} s",
        ["window", "snapshot", "p50 ms", "p99 ms", "most ms", "target"],
        rows,
        [
            f"Median p99 of the first {EDGE} held windows {first:.1f} ms, of the last {EDGE} {last:.1f} ms.",
            (
                f"At the end of the snapshot the log took {kept['events'] / 1e6:.0f} MB, its chunks {kept['chunks'] / 1e6:.0f} MB; "
                f"load average at the end {load():.1f}."
            ),
        ],
    )

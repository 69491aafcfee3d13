"""Logs: appends of two messages, compared with SQLAlchemySession of openai-agents, with and without their event; the last 20 of many entries.

Each side is what a program calls: our client on a database, with a pool of 16 connections, and a session of the other with an engine of as many.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import median
from typing import Any

import coordinator
from bench.place import Options, Place, daemon, fresh
from bench.report import Table, load, percentile, ratio
from coordinator.config import Config
from coordinator.db.connection import connect

__all__ = ["run"]

WRITERS = 16
TEXT = "What is left to do is to write the tests, and then to read the whole once more. " * 4
MESSAGES: list[Any] = [{"role": "user", "content": TEXT}, {"role": "assistant", "content": TEXT}]
LAST = "select seq, role, data from coordinator.log_read('default', 'note', $1, p_last => 20)"
TARGETS = {"p50": 4.0, "rate": 5.0, "event": 0.75}
LAST_MS = 2.0
TIMES = 4.0

# In another database of the same server: append without the event.
WITHOUT_EVENT = """
do $do$ begin
  execute (select regexp_replace(pg_get_functiondef(oid), 'insert into coordinator\\.events.*?;\\n', '')
           from pg_proc where proname = 'log_append' and pronamespace = 'coordinator'::regnamespace);
end $do$"""

# Each conversation has its entries on other pages, as they come.
FILL = """
insert into coordinator.entries (log_id, seq, epoch, actor, created_at, role, data)
select l.id, n, 0, 'bench', now(), 'user', json_build_object('role', 'user', 'content', repeat('x', 300))
from generate_series($1::integer, $2::integer) n, coordinator.logs l where l.kind = 'note' order by n, l.id"""
HEADERS = """
insert into coordinator.logs (project_id, kind, key, epoch, last_seq, count, updated_at)
select 1, 'note', 'k' || n, 0, $2, $2, now() from generate_series(1, $1::integer) n"""

Append = Callable[[str], Awaitable[object]]


async def run(options: Options) -> AsyncIterator[Table]:
    """Measure all of it."""
    async with fresh(options) as place, daemon(place):
        yield await _appends(place, await place.muted(WITHOUT_EVENT), options)
    async with fresh(options) as place:
        yield await _last(place, options)


@asynccontextmanager
async def _of_ours(dsn: str) -> AsyncIterator[Append]:
    config = Config(min_connections=WRITERS, max_connections=WRITERS)
    async with coordinator.connect(dsn, config=config) as client:

        async def append(key: str) -> None:
            await client.messages.extend(key, *MESSAGES)

        yield append


@asynccontextmanager
async def _of_openai(place: Place) -> AsyncIterator[Append | None]:
    try:
        from agents.extensions.memory.sqlalchemy_session import SQLAlchemySession  # noqa: PLC0415
        from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415
    except ImportError:
        yield None
        return
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda *_, **__: connect(place.dsn),
        pool_size=WRITERS,
        max_overflow=0,
    )
    first = SQLAlchemySession("first", engine=engine, create_tables=True)
    await first.add_items([*MESSAGES])
    sessions: dict[str, Any] = {}

    async def append(key: str) -> None:
        session = sessions.setdefault(key, None) or SQLAlchemySession(key, engine=engine)
        sessions[key] = session
        await session.add_items([*MESSAGES])

    yield append
    await engine.dispose()


async def _round(append: Append, writers: int, seconds: float, name: str) -> tuple[float, list[float]]:
    """Append in a log of each writer's own for a number of seconds; return appends per second, and how long each took in milliseconds."""
    times: list[float] = []
    ends_at = time.perf_counter() + seconds

    async def write(key: str) -> None:
        while (began := time.perf_counter()) < ends_at:
            await append(key)
            times.append((time.perf_counter() - began) * 1000)

    began = time.perf_counter()
    await asyncio.gather(*(write(f"{name}/{writer}") for writer in range(writers)))
    return len(times) / (time.perf_counter() - began), times


async def _appends(place: Place, mute: str, options: Options) -> Table:
    began = load()
    async with AsyncExitStack() as stack:
        sides: dict[str, Append | None] = {
            "ours": await stack.enter_async_context(_of_ours(place.dsn)),
            "ours, without its event": await stack.enter_async_context(_of_ours(mute)),
            "SQLAlchemySession of openai-agents": await stack.enter_async_context(_of_openai(place)),
        }
        present = {name: append for name, append in sides.items() if append is not None}
        rates: dict[str, list[float]] = {name: [] for name in present}
        middles: dict[str, list[float]] = {name: [] for name in present}
        tails: dict[str, list[float]] = {name: [] for name in present}
        for number in range(options.rounds):
            for name, append in present.items():
                _, times = await _round(append, 1, options.round_s / 2, f"one/{number}")
                rate, _ = await _round(append, WRITERS, options.round_s / 2, f"many/{number}")
                rates[name].append(rate)
                middles[name].append(median(times))
                tails[name].append(percentile(times, 95))
    rows = []
    for name in present:
        faster = ratio(middles[name], middles["ours"])
        more = ratio(rates["ours"], rates[name])
        target = "-"
        if name.startswith("SQL"):
            met = faster >= TARGETS["p50"] and more >= TARGETS["rate"]
            target = f"≥ {TARGETS['p50']:g} and {TARGETS['rate']:g}: {'met' if met else 'MISSED'}"
        elif name != "ours":
            target = f"≥ {TARGETS['event']:g}: {'met' if more >= TARGETS['event'] else 'MISSED'}"
        rows.append(
            [name, f"{median(middles[name]):.2f}", f"{median(tails[name]):.2f}", f"{median(rates[name]):,.0f}", f"{faster:.2f}", f"{more:.2f}", target]
        )  # fmt: skip
    columns = [
        "two messages",
        "p50 ms",
        "p95 ms",
        f"per s, {WRITERS} writers",
        "p50 / ours",
        "ours / its rate",
        "target",
    ]
    notes = [
        f"{options.rounds} rounds of {options.round_s:g} s, a log for each writer. Load average at the start: {began:.1f}."
    ]
    return Table("Appends of two messages", columns, rows, notes)


async def _last(place: Place, options: Options) -> Table:
    began = load()
    connection = await connect(place.dsn)
    rows: list[list[str]] = []
    small = 0.0
    try:
        for total in sorted({10_000, options.entries}):
            logs = max(1, total // 100)
            await connection.execute("truncate coordinator.logs, coordinator.entries cascade")
            await connection.fetch(HEADERS, logs, 100)
            for first in range(1, 101, 10):
                await connection.execute(FILL, first, first + 9)
            await connection.execute("vacuum (analyze) coordinator.logs, coordinator.entries")
            times = []
            for number in range(2000):
                key = f"k{number * 7919 % logs + 1}"
                start = time.perf_counter()
                await connection.fetch(LAST, key)
                times.append((time.perf_counter() - start) * 1000)
            middle, tail = median(times), percentile(times, 95)
            small = small or middle
            met = tail <= LAST_MS and middle <= TIMES * small
            rows.append([f"{total:,}", f"{middle:.2f}", f"{tail:.2f}", f"{middle / small:.1f}", f"p95 ≤ {LAST_MS:g} ms, ≤ {TIMES:g} times: {'met' if met else 'MISSED'}"])  # fmt: skip
    finally:
        await connection.close()
    columns = ["entries", "p50 ms", "p95 ms", "p50 / that of 10,000", "target"]
    return Table(
        "The last 20 entries of a log",
        columns,
        rows,
        [f"100 entries in each log. Load average at the start: {began:.1f}."],
    )

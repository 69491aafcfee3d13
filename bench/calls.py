"""One operation through the Python layer, compared with the same call through bare asyncpg, by one client in sequence."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from statistics import median

import asyncpg

from bench.place import Options, Place, fresh
from bench.report import Table, load, ratio
from coordinator.config import Config
from coordinator.db.call import statement
from coordinator.db.database import Database
from coordinator.operations import signals

__all__ = ["ROUNDS", "Caller", "rounds", "run"]

KEY = "bench/call"
VALUE = {"state": "done", "by": "a"}
JSON = '{"state": "done", "by": "a"}'
WARM = 300
ROUNDS = 7
TARGET = 1.5

Caller = Callable[[], Awaitable[object]]


async def run(options: Options) -> AsyncIterator[Table]:
    """Measure reading and setting one signal, in interleaved rounds."""
    async with fresh(options) as place:
        yield await _measure(place, options)


async def _measure(place: Place, options: Options) -> Table:
    bare = await asyncpg.connect(place.dsn)
    config = Config(database_url=place.dsn)
    rows = []
    try:
        async with (
            Database.open(place.dsn, config) as database,
            asyncpg.create_pool(place.dsn, min_size=5, max_size=20) as pool,
        ):
            get = signals.Get(project="default", key=KEY)
            set_ = signals.Set(project="default", key=KEY, value=VALUE)
            for label, operation, arguments in (
                ("signal get", get, ("default", KEY)),
                ("signal set", set_, ("default", KEY, JSON, None, False, None, None, False, None)),
            ):
                await database.run(set_)
                text = statement(type(operation))
                prepared = await bare.prepare(text)
                callers: dict[str, Caller] = {
                    "layer": partial(database.run, operation),
                    "bare": partial(prepared.fetch, *arguments),
                    "pool": partial(_pooled, pool, text, arguments),
                }
                found = await rounds(callers, seconds=options.round_s * options.rounds / ROUNDS / len(callers))
                value = ratio(found["layer"], found["bare"])
                verdict = f"≤ {TARGET:g}: {'met' if value <= TARGET else 'MISSED'}"
                rows.append([label, "Database.run", f"{median(found['layer']):.0f}", f"{value:.2f}", verdict])
                rows.append(["", "bare asyncpg, prepared, connection held", f"{median(found['bare']):.0f}", "", ""])
                pooled = ratio(found["layer"], found["pool"])
                rows.append(
                    ["", "bare asyncpg, its pool with its reset", f"{median(found['pool']):.0f}", f"{pooled:.2f}", ""]
                )
    finally:
        await bare.close()
    return Table(
        "One operation through the Python layer",
        ["operation", "way", "µs a call", "layer / it", "target"],
        rows,
        [
            f"{ROUNDS} interleaved rounds; the time of a round is the median of its calls. Load average at the end {load():.1f}."
        ],
    )


async def _pooled(pool: asyncpg.Pool, text: str, arguments: tuple[object, ...]) -> object:
    async with pool.acquire() as connection:
        return await connection.fetch(text, *arguments)


async def rounds(callers: dict[str, Caller], seconds: float) -> dict[str, list[float]]:
    """Return the median microseconds of a call in each round."""
    found: dict[str, list[float]] = {name: [] for name in callers}
    for caller in callers.values():
        for _ in range(WARM):
            await caller()
    for _ in range(ROUNDS):
        for name, caller in callers.items():
            times = []
            deadline = time.perf_counter() + seconds
            while (began := time.perf_counter()) < deadline:
                await caller()
                times.append(time.perf_counter() - began)
            found[name].append(median(times) * 1e6)
    return found

"""Documents: one item of a list that 12 agents write, compared with get and put with ``expect``; a state of 100 kB, compared with a bare table."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from statistics import median
from typing import Any

import anyio
import asyncpg

from bench.place import Options, Place, daemon, fresh
from bench.report import Table, load, percentile, ratio
from coordinator.db.call import call
from coordinator.errors import Conflict
from coordinator.model.json import text_of
from coordinator.operations import documents

__all__ = ["run"]

AGENTS = 12
UPDATES = 240
AT_ONCE = 20  # saves, then loads, of a round
ITEM_TARGET, SAVE_TARGET = 1.5, 2.0


async def run(options: Options) -> AsyncIterator[Table]:
    """Measure both."""
    async with fresh(options) as place, daemon(place):
        yield await _items(place, options)
        yield await _states(place, options)


async def _items(place: Place, options: Options) -> Table:
    sessions = [await place.connect() for _ in range(AGENTS)]
    rates: dict[str, list[float]] = {"item": [], "get and put": []}
    conflicts: list[int] = []
    try:
        for number in range(options.rounds + 1):  # the first warms up
            for name, change in (("item", _item), ("get and put", _get_and_put)):
                key = f"{name} {number}"
                items = [{"id": n, "status": "PENDING", "text": "what is to be done"} for n in range(UPDATES)]
                await call(sessions[0], _put(key, items, kind="todo"))
                began = time.perf_counter()
                lost = await _together(sessions, key, change)
                elapsed = time.perf_counter() - began
                found = await call(sessions[0], documents.Get(project="default", kind="todo", key=key))
                if any(item["status"] != "COMPLETED" for item in found.value):
                    raise SystemExit(f"{name}: an update is lost")
                if number:
                    rates[name].append(UPDATES / elapsed)
                    if name != "item":
                        conflicts.append(lost)
    finally:
        for session in sessions:
            await session.close()
    found_ratio = ratio(rates["item"], rates["get and put"])
    met = "met" if found_ratio >= ITEM_TARGET else "MISSED"
    return Table(
        f"{UPDATES} updates of the items of one list by {AGENTS} agents",
        ["how", "updates a second (rounds)", "item / it", "target"],
        [
            ["document_item", _numbers(rates["item"]), "", ""],
            ["document_get, document_put with expect", _numbers(rates["get and put"]), f"{found_ratio:.2f}", f"≥ {ITEM_TARGET:g}: {met}"],
        ],
        [
            f"{options.rounds} rounds, interleaved; load average at the end {load():.1f}. No update was lost.",
            f"Conflicts of a round: none with document_item, {min(conflicts)} to {max(conflicts)} with get and put.",
        ],
    )  # fmt: skip


async def _together(
    sessions: Sequence[asyncpg.Connection], key: str, change: Callable[[asyncpg.Connection, str, int], Awaitable[int]]
) -> int:
    conflicts = 0

    async def agent(number: int) -> None:
        nonlocal conflicts
        for n in range(number, UPDATES, AGENTS):
            conflicts += await change(sessions[number], key, n)

    async with anyio.create_task_group() as tasks:
        for number in range(AGENTS):
            tasks.start_soon(agent, number)
    return conflicts


async def _item(session: asyncpg.Connection, key: str, n: int) -> int:
    patch = text_of({"status": "COMPLETED"})
    await call(session, documents.Item(project="default", kind="todo", key=key, item=str(n), patch=patch))
    return 0


async def _get_and_put(session: asyncpg.Connection, key: str, n: int) -> int:
    for conflicts in itertools.count():
        read = await call(session, documents.Get(project="default", kind="todo", key=key))
        read.value[n]["status"] = "COMPLETED"
        try:
            await call(session, _put(key, read.value, kind="todo", expect=read.version, epoch=read.epoch))
        except Conflict:
            continue
        return conflicts
    raise AssertionError


def _put(key: str, value: Any, **fields: Any) -> documents.Put:
    return documents.Put(project="default", key=key, value=text_of(value), **fields)


async def _states(place: Place, options: Options) -> Table:
    state = {"steps": [{"id": n, "text": f"some words about step {n}", "done": n % 2 == 0} for n in range(1600)]}
    state_text = text_of(state)
    text = bytes(state_text).decode()
    found: dict[str, list[float]] = {name: [] for name in ("save", "insert", "load", "select")}
    every: dict[str, list[float]] = {name: [] for name in found}
    session = await place.connect()
    get = documents.Get(project="default", kind="plan", key="big")
    numbers = itertools.count(1)

    async def save() -> None:
        await call(session, documents.Put(project="default", kind="plan", key="big", value=state_text))

    async def insert() -> None:
        await session.execute("insert into bench.states values ($1, $2::text::jsonb)", next(numbers), text)

    async def read() -> None:
        await call(session, get)

    async def select() -> None:
        await session.fetchval("select value::text from bench.states where id = 1")

    try:
        await session.execute(
            "create schema bench; create table bench.states (id bigint primary key, value jsonb not null)"
        )
        for number in range(options.rounds + 1):  # the first warms up
            for name, step in (("save", save), ("insert", insert), ("load", read), ("select", select)):
                times = []
                for _ in range(AT_ONCE):
                    began = time.perf_counter()
                    await step()
                    times.append((time.perf_counter() - began) * 1000)
                if number:
                    found[name].append(median(times))
                    every[name] += times
    finally:
        await session.close()
    rows = []
    for ours, bare in (("save", "insert"), ("load", "select")):
        value = ratio(found[ours], found[bare])
        verdict = f"≤ {SAVE_TARGET:g}: {'met' if value <= SAVE_TARGET else 'MISSED'}"
        rows.append([ours, _milliseconds(every[ours]), _milliseconds(every[bare]), f"{value:.2f}", verdict])
    return Table(
        f"A document of {len(bytes(state_text)) // 1000} kB beside a bare row of jsonb",
        ["what", "ms, p50 (p95)", "bare insert or select", "ratio of p50", "target"],
        rows,
        [f"{options.rounds} rounds of {AT_ONCE} calls, interleaved; load average at the end {load():.1f}."],
    )


def _numbers(values: Sequence[float]) -> str:
    return f"{median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def _milliseconds(values: Sequence[float]) -> str:
    return f"{median(values):.2f} ({percentile(values, 95):.2f})"

"""A hundred clients of a daemon, each with one call a second: appends, windows, states, todo items and searches; what a write leaves behind."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from statistics import median
from typing import Any

import anyio

import coordinator
from bench.gateway import process
from bench.place import Options, Place, fresh
from bench.report import Table, load, percentile
from coordinator.client import Client
from coordinator.config import Config
from coordinator.errors import CoordinatorError

__all__ = ["run"]

CLIENTS = 100
LISTS = 10  # each is written by ten clients
MESSAGES = 50  # of each session at the start
MEMORIES = 500
WRITES = 500
TARGET_MS = 100.0
TEXT = "It rains in Paris, and will do so until tomorrow evening. " * 4
STATE = {"steps": [{"id": number, "note": TEXT[:40]} for number in range(40)]}
WEIGHTS = {"append": 30, "window": 20, "state save": 15, "state load": 15, "todo item": 10, "search": 10}


async def run(options: Options) -> AsyncIterator[Table]:
    """Run the mixed load, then measure what writes leave behind."""
    async with fresh(options) as place:
        async with process("daemon", place.dsn) as (port, _), AsyncExitStack() as stack:
            config = Config(min_connections=1, max_connections=4)
            url = f"http://127.0.0.1:{port}"
            clients = [await stack.enter_async_context(coordinator.connect(url, config=config)) for _ in range(CLIENTS)]
            await _fill(clients)
            yield await _mixed(clients, options.round_s)
        yield await _left(place)


async def _fill(clients: list[Client]) -> None:
    first = clients[0]
    words = [f"w{number}" for number in range(200)]
    for number in range(MEMORIES):
        await first.memories.record(" ".join(random.Random(number).sample(words, 20)), context="bench")
    items = [{"id": number, "status": "PENDING"} for number in range(LISTS)]
    for number in range(LISTS):
        await first.todos.save(f"list/{number}", items)
    for number, client in enumerate(clients):
        await client.messages.extend(f"s{number}", *({"role": "user", "content": TEXT} for _ in range(MESSAGES)))
        await client.states.save(f"s{number}", STATE)


def _verbs(client: Client, number: int, rng: random.Random) -> dict[str, Callable[[], Awaitable[Any]]]:
    session = f"s{number}"

    async def search() -> None:
        await client.memories.search(f"w{rng.randrange(200)} w{rng.randrange(200)}")

    return {
        "append": lambda: client.messages.append(session, "user", TEXT),
        "window": lambda: client.messages.window(session, tokens=5000),
        "state save": lambda: client.states.save(session, STATE),
        "state load": lambda: client.states.load(session),
        "todo item": lambda: client.todos.item(f"list/{number % LISTS}", number // LISTS, {"status": "COMPLETED"}),
        "search": search,
    }


async def _mixed(clients: list[Client], seconds: float) -> Table:
    times: dict[str, list[float]] = defaultdict(list)
    errors: dict[str, int] = defaultdict(int)

    async def client_of(client: Client, number: int) -> None:
        rng = random.Random(number)
        verbs = _verbs(client, number, rng)
        await anyio.sleep(number / CLIENTS)
        ends_at = time.perf_counter() + seconds
        due_at = time.perf_counter()
        while due_at < ends_at:
            await anyio.sleep(max(0.0, due_at - time.perf_counter()))
            (verb,) = rng.choices([*WEIGHTS], [*WEIGHTS.values()])
            try:
                await verbs[verb]()
            except CoordinatorError:
                errors[verb] += 1
            times[verb].append((time.perf_counter() - due_at) * 1000)  # a call that begins late waits, too
            due_at += 1.0

    async with anyio.create_task_group() as tasks:
        for number, client in enumerate(clients):
            tasks.start_soon(client_of, client, number)
    every = [each for found in times.values() for each in found]
    p95 = percentile(every, 95)
    met = p95 < TARGET_MS and not errors
    rows = [
        [verb, f"{len(times[verb])}", f"{median(times[verb]):.1f}", f"{percentile(times[verb], 95):.1f}", str(errors[verb]), ""]
        for verb in WEIGHTS
    ]  # fmt: skip
    rows.append([
        "all", f"{len(every)}", f"{median(every):.1f}", f"{p95:.1f}", str(sum(errors.values())),
        f"p95 < {TARGET_MS:g} ms, no error: {'met' if met else 'MISSED'}",
    ])  # fmt: skip
    note = f"{seconds:g} seconds, through one daemon, the clients in one process; load average at the end {load():.1f}."
    return Table(
        f"{CLIENTS} clients, each with one call a second",
        ["call", "calls", "p50 ms", "p95 ms", "errors", "target"],
        rows,
        [note],
    )


async def _left(place: Place) -> Table:
    """Measure the WAL of a write and the row versions that it leaves to vacuum, without a daemon."""
    writes = {
        "append of a message": "select coordinator.message_append('default', 's0', to_json($1::text), 'user')",
        "put of a state": "select coordinator.document_put('default', 'state', 's0', json_build_object('text', $1::text))",
        "change of a todo item": "select coordinator.document_item('default', 'todo', 'list/0', '1', json_build_object('note', $1::text))",
    }
    counted = "select pg_stat_force_next_flush()"
    dead = "select sum(n_tup_upd + n_tup_del), sum(n_tup_hot_upd) from pg_stat_user_tables where schemaname = 'coordinator'"
    connection = await place.connect()
    rows = []
    try:
        for label, statement in writes.items():
            await connection.fetch(statement, TEXT)
            await connection.execute(counted)
            before, begun = (
                await connection.fetchrow(dead),
                await connection.fetchval("select pg_current_wal_insert_lsn()"),
            )
            for _ in range(WRITES):
                await connection.fetch(statement, TEXT)
            wal = await connection.fetchval("select pg_current_wal_insert_lsn() - $1", begun)
            await connection.execute(counted)
            after = await connection.fetchrow(dead)
            changed, hot = after[0] - before[0], after[1] - before[1]
            rows.append(
                [label, f"{wal / WRITES:.0f}", f"{changed / WRITES:.2f}", f"{hot / WRITES:.2f}", "for information"]
            )
    finally:
        await connection.close()
    note = f"{WRITES} writes of {len(TEXT)} characters, one after another, after a first one; events included."
    return Table(
        "What a write leaves behind", ["write", "bytes of WAL", "dead rows", "of these HOT", "target"], rows, [note]
    )

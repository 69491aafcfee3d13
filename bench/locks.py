"""Locks: one client compared with bare writes and other lock servers, 32 clients, a million held locks, and one with 200 waiters."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from datetime import timedelta
from statistics import median
from uuid import UUID

import anyio
import asyncpg
import msgspec

from bench import rivals
from bench.load import throughput
from bench.place import Options, Place, daemon, fresh
from bench.report import Table, load, percentile, ratio
from coordinator.db import schema
from coordinator.db.connection import connect

__all__ = ["run"]

CLIENTS = 32
HELD = 1_000_000
WAITERS, HAND_OFFS = 200, 10_000
LOST_S = 5.0
SLICE_S = 0.5

ACQUIRE = "select fencing_token from coordinator.lock_acquire('default', $1::text[], $2::uuid)"
RELEASE = "select coordinator.lock_release('default', $1::text[], $2::uuid, $3::bigint[])"
INSERT = "insert into bench.bare values ($1, $2, clock_timestamp() + '30 seconds')"
DELETE = "delete from bench.bare where key = $1"
AGENT = "('00000000-0000-4000-8000-' || lpad(:client_id::text, 12, '0'))::uuid"
KEY = "'src/m' || :client_id || '/f' || :k || '.py'"
PATHS = f"""\\set k random(1, 1000)
select fencing_token as token from coordinator.lock_acquire('default', array[{KEY}], {AGENT}) \\gset
select coordinator.lock_release('default', array[{KEY}], {AGENT}, array[:token::bigint]);
"""
ROWS = f"""\\set k random(1, 1000)
insert into bench.bare values ({KEY}, {AGENT}, clock_timestamp() + '30 seconds');
delete from bench.bare where key = {KEY};
"""
PREPARE = """
create schema bench;
create table bench.bare (key text primary key, holder uuid not null, expires_at timestamptz not null);
select coordinator.agent_register('default', 'agent' || n, p_ttl => '1 day') from generate_series(0, 199) n;
update coordinator.agents set id = ('00000000-0000-4000-8000-' || lpad(substr(name, 6), 12, '0'))::uuid;
"""
FILL = """
insert into coordinator.locks (project_id, resource, slot, kind, prefix, pattern, mode, agent_id, agent_name, fencing_token, ttl,
                               delay, acquired_at, expires_at, free_at)
select p.id, format('src/m%s/%s%s.py', n % 1000, case when n % 100 = 0 then '*_' else 'f' end, n), 0,
       case when n % 100 = 0 then 'glob' else 'path' end, case when n % 100 = 0 then format('src/m%s', n % 1000) end,
       case when n % 100 = 0 then format('^src/m%s/[^/]*_%s\\.py$', n % 1000, n) end,
       'exclusive', '00000000-0000-4000-8000-000000000199', 'agent199', n, '1 day', '0', clock_timestamp(),
       clock_timestamp() + interval '1 day', clock_timestamp() + interval '1 day'
from coordinator.projects p, generate_series(1, $1::integer) n where p.name = 'default'
"""
ME = UUID("00000000-0000-4000-8000-000000000000")

Pair = Callable[[], Awaitable[None]]


async def run(options: Options) -> AsyncIterator[Table]:
    """Measure all four."""
    async with fresh(options) as place:
        await place.execute(PREPARE)
        yield await _alone(place, options)
        yield await _apart(place, options, "native disk", 0.35)
        slow = (
            "alter system set commit_delay = 2000",
            "alter system set commit_siblings = 0",
            "select pg_reload_conf()",
        )
        await place.execute(*slow)
        yield await _apart(place, options, "+2 ms commit latency", 0.85)
    async with fresh(options) as place:
        await place.execute(PREPARE)
        yield await _million(place, options)
    async with fresh(options) as place:
        await place.execute(PREPARE)
        async with daemon(place):
            yield await _hot(place)


async def _locks(connection: asyncpg.Connection, resource: str) -> Pair:
    acquire, release = await connection.prepare(ACQUIRE), await connection.prepare(RELEASE)

    async def pair() -> None:
        token = await acquire.fetchval([resource], ME)
        await release.fetchval([resource], ME, [token])

    return pair


async def _rounds(pairs: dict[str, Pair], rounds: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the median milliseconds of a pair in each round, and all measurements."""
    medians: dict[str, list[float]] = {name: [] for name in pairs}
    every: dict[str, list[float]] = {name: [] for name in pairs}
    for pair in pairs.values():
        for _ in range(50):
            await pair()
    for _ in range(rounds):
        for name, pair in pairs.items():
            times = []
            deadline = time.perf_counter() + SLICE_S
            while (began := time.perf_counter()) < deadline:
                await pair()
                times.append((time.perf_counter() - began) * 1000)
            medians[name].append(median(times))
            every[name] += times
    return medians, every


async def _alone(place: Place, options: Options) -> Table:
    connection = await place.connect()
    insert, delete = await connection.prepare(INSERT), await connection.prepare(DELETE)
    lock = await connection.prepare("select pg_advisory_lock(1)")
    unlock = await connection.prepare("select pg_advisory_unlock(1)")

    async def bare() -> None:
        await insert.fetchval("src/app/main.py", ME)
        await delete.fetchval("src/app/main.py")

    async def advisory() -> None:
        await lock.fetchval()
        await unlock.fetchval()

    pairs: dict[str, Pair] = {
        "lock_acquire + lock_release": await _locks(connection, "src/app/main.py"),
        "two bare single-row writes": bare,
        "session advisory lock (not durable, no lease)": advisory,
    }
    with ExitStack() as stack:
        for name, rival in (
            ("Redis SET NX PX + fenced delete, synced", rivals.redis(durable=True)),
            ("Redis SET NX PX + fenced delete, in memory", rivals.redis(durable=False)),
            ("etcd lock + unlock (JSON gateway)", rivals.etcd()),
        ):
            if other := stack.enter_context(rival):
                pairs[name] = _awaitable(other)
        medians, every = await _rounds(pairs, max(5, options.rounds))
    await connection.close()
    names = list(pairs)
    value = ratio(medians[names[0]], medians[names[1]])
    rows = [
        [name, f"{median(every[name]):.2f}", f"{percentile(every[name], 99):.2f}",
         f"{ratio(medians[names[0]], medians[name]):.2f}", ""] for name in names
    ]  # fmt: skip
    rows[1][4] = f"≤ 2: {'met' if value <= 2 else 'MISSED'}"
    return Table(
        "A lock acquired and released, one client",
        ["way", "p50 ms", "p99 ms", "lock / it", "target"],
        rows,
        [f"{max(5, options.rounds)} interleaved rounds of {SLICE_S:g} s each; load average at the end {load():.1f}."],
    )


def _awaitable(pair: Callable[[], None]) -> Pair:
    async def run_it() -> None:
        pair()

    return run_it


async def _apart(place: Place, options: Options, title: str, target: float) -> Table:
    found: dict[str, list[float]] = {PATHS: [], ROWS: []}
    for script in found:
        await throughput(place, script, clients=CLIENTS, seconds=1)
    for _ in range(options.rounds):
        for script, rates in found.items():
            rates.append(await throughput(place, script, clients=CLIENTS, seconds=options.round_s))
            await place.execute("checkpoint", "vacuum coordinator.locks, bench.bare")
    value = ratio(found[PATHS], found[ROWS])
    shown = [f"{median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})" for rates in found.values()]
    return Table(
        f"Locks on paths of their own in one project, {CLIENTS} clients, {title}",
        ["variant", "pairs a second (rounds)", "locks / it", "target"],
        [
            ["lock_acquire + lock_release", shown[0], "", ""],
            [
                "bare insert + delete",
                shown[1],
                f"{value:.2f}",
                f"≥ {target:g}: {'met' if value >= target else 'MISSED'}",
            ],
        ],
        [f"{options.rounds} rounds of {options.round_s:g} s, interleaved; load average at the end {load():.1f}."],
    )


async def _million(place: Place, options: Options) -> Table:
    await place.execute("create database many")
    many = await connect(place.dsn.replace("/coordinator?", "/many?"), call_timeout_s=300)
    await schema.apply(many)
    await many.execute(PREPARE)
    began = time.perf_counter()
    await many.execute(FILL, HELD)
    filled_s = time.perf_counter() - began
    await many.execute("vacuum analyze coordinator.locks")
    few = await place.connect()
    times: dict[str, list[float]] = {}
    for name in ("src/m7/new.py", "src/new/", "src/m7/new_*.txt", "name:new"):
        medians, _ = await _rounds(
            {"few": await _locks(few, name), "many": await _locks(many, name)}, max(5, options.rounds)
        )
        times[name] = [median(medians["few"]), median(medians["many"]), ratio(medians["many"], medians["few"])]
    await few.close()
    await many.close()
    return Table(
        f"{HELD:,} locks held in one project",
        ["resource", "empty table, p50 ms", "full table, p50 ms", "full / empty", "target"],
        [
            [name, f"{one:.2f}", f"{two:.2f}", f"{value:.2f}", f"≤ 2: {'met' if value <= 2 else 'MISSED'}"]
            for name, (one, two, value) in times.items()
        ],
        [
            f"Acquire and release, one client, interleaved; one lock in a hundred is a glob; filled in {filled_s:.0f} s.",
            "Each directory src/m… holds 1,000 of them.",
            f"Load average at the end {load():.1f}.",
        ],
    )


class _Hot:
    """Waiters of one lock: each waits for the event of its ticket, polls, releases, and waits again."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self.pool = pool
        self.heard: dict[int, anyio.Event] = {}
        self.released_at = 0.0
        self.times_ms: list[float] = []
        self.lost = 0

    def event(self, ticket: int) -> anyio.Event:
        return self.heard.setdefault(ticket, anyio.Event())

    def hear(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        event = msgspec.json.decode(str(payload))
        if event["type"] == "lock.granted" and event["data"]["ticket"] is not None:
            self.event(event["data"]["ticket"]).set()

    async def wait(self, number: int, scope: anyio.CancelScope) -> None:
        agent = UUID(f"00000000-0000-4000-8000-{number:012}")
        while True:
            row = await self.pool.fetchrow(
                "select * from coordinator.lock_acquire('default', '{src/hot.py}', $1, p_ttl => '1 hour', p_wait => $2)",
                agent, timedelta(hours=1),
            )  # fmt: skip
            while not row["granted"]:
                await self.event(row["ticket"]).wait()
                row = await self.pool.fetchrow(
                    "select * from coordinator.lock_poll('default', $1, $2)", row["ticket"], agent
                )
                if row["granted"]:
                    self.times_ms.append((time.perf_counter() - self.released_at) * 1000)
            self.heard.pop(row["ticket"], None)
            if len(self.times_ms) >= HAND_OFFS:
                scope.cancel()
            await self.pool.fetchval(RELEASE, ["src/hot.py"], agent, [row["fencing_token"]])
            self.released_at = time.perf_counter()

    async def watch(self) -> None:
        """Wake all waiters, and count a lost wake-up, if the lock has not changed hands for long."""
        while True:
            before = len(self.times_ms)
            await anyio.sleep(LOST_S)
            if len(self.times_ms) == before:
                self.lost += 1
                for event in list(self.heard.values()):
                    event.set()


async def _hot(place: Place) -> Table:
    listener = await place.connect()
    async with asyncpg.create_pool(place.dsn, min_size=8, max_size=8) as pool:
        hot = _Hot(pool)
        await listener.add_listener("coordinator.default.lock", hot.hear)
        began = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hot.watch)
            for number in range(WAITERS):
                tasks.start_soon(hot.wait, number, tasks.cancel_scope)
        took_s = time.perf_counter() - began
    await listener.close()
    return Table(
        f"One lock that {WAITERS} wait for",
        ["hand-offs", "a second", "p50 ms", "p99 ms", "lost wake-ups", "target"],
        [
            [
                f"{len(hot.times_ms):,}", f"{len(hot.times_ms) / took_s:,.0f}", f"{median(hot.times_ms):.1f}",
                f"{percentile(hot.times_ms, 99):.1f}", str(hot.lost), f"p50 < 10, none lost: {_verdict(hot)}",
            ]
        ],
        [
            ("From the answer of release to the answer that grants it to the next, who is told by NOTIFY through the relay. Each "
            f"waits again at once. Load average at the end {load():.1f}."),
        ],
    )  # fmt: skip


def _verdict(hot: _Hot) -> str:
    return "met" if median(hot.times_ms) < 10 and not hot.lost else "MISSED"

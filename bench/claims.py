"""Claims of jobs among a million others, and the time from an enqueue to the start."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from statistics import median

import anyio
import asyncpg
import msgspec

from bench.load import paced
from bench.place import Options, Place, daemon, fresh
from bench.queues.claimer import Claimer
from bench.queues.order import PAYLOAD
from bench.report import Table, load, percentile, ratio
from coordinator.db import schema
from coordinator.db.connection import connect

__all__ = ["run"]

FEW, MANY = 5_000, 1_000_000
SIZE = 100
TURNS = 60
CALL_S = 600.0
CHANNEL = "coordinator.default.job"
FILL = """
select count(*) from coordinator.job_enqueue_many('default', (
  select jsonb_agg(jsonb_build_object('type', 'summarize', 'queue', 'default', 'payload', $2::jsonb)) from generate_series(1, $1::integer)))
"""
FINISHED = """
insert into coordinator.jobs_ended (id, project_id, queue, type, priority, payload, labels, max_attempts, actor, created_at, scheduled_at,
                                    status, attempts, agent_id, worker, fence, started_at, completed_at, ended_by)
select gen_random_uuid(), p.id, 'default', 'summarize', 0, $2::jsonb, '{}', 3, 'bench', clock_timestamp(), clock_timestamp(),
       'completed', 1, gen_random_uuid(), 'worker', n, clock_timestamp(), clock_timestamp(), 'bench'
from coordinator.projects p, generate_series(1, $1::integer) n where p.name = 'default'
"""
# The clock that the call reads, so its commit is part of the time.
ENQUEUE = "select count(*) from coordinator.job_enqueue('default', 'summarize', to_jsonb(extract(epoch from clock_timestamp())));"
WARM, FIRST = 3, 60
RATE, CLIENTS = 1000, 8


async def run(options: Options) -> AsyncIterator[Table]:
    """Measure both."""
    async with fresh(options) as place:
        yield await _among(place)
    async with fresh(options) as place, daemon(place):
        yield await _start(place, options)


async def _filled(place: Place, name: str, queued: int, finished: int) -> Claimer:
    await place.execute(f"create database {name}")
    connection = await connect(place.dsn.replace("/coordinator?", f"/{name}?"), call_timeout_s=CALL_S, raw_json=True)
    await schema.apply(connection)
    for _ in range(0, queued, 5_000):
        await connection.execute(FILL, 5_000, PAYLOAD)
    if finished:
        await connection.execute(FINISHED, finished, PAYLOAD)
    await connection.execute("vacuum analyze")
    await connection.execute("checkpoint")
    return await Claimer.start(connection, name, "default")


async def _among(place: Place) -> Table:
    sides = {
        "few": await _filled(place, "few", FEW, 0),
        "queued": await _filled(place, "queued", MANY, 0),
        "finished": await _filled(place, "finished", FEW, MANY),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(TURNS):
        for name, worker in sides.items():
            began = time.perf_counter()
            await worker.turn(SIZE)
            times[name].append((time.perf_counter() - began) * 1000)
            await worker.connection.execute(FILL, SIZE, PAYLOAD)
    for worker in sides.values():
        await worker.connection.close()
    labels = {"few": f"{FEW:,} queued", "queued": f"{MANY:,} queued", "finished": f"{FEW:,} queued, {MANY:,} finished"}
    rows = []
    for name, each in times.items():
        value = ratio(each, times["few"])
        verdict = "" if name == "few" else f"≤ 1.5: {'met' if value <= 1.5 else 'MISSED'}"
        rows.append([labels[name], f"{median(each):.2f}", f"{percentile(each, 99):.2f}", f"{value:.2f}", verdict])
    return Table(
        f"{SIZE} jobs finished and {SIZE} claimed, in one call",
        ["jobs", "p50 ms", "p99 ms", "to the first", "target"],
        rows,
        [f"{TURNS} interleaved turns of one client; load average at the end {load():.1f}."],
    )


class _Starts:
    """A worker that claims one job at a time when an event wakes it, and the times at which jobs started."""

    def __init__(self, connection: asyncpg.Connection, worker: Claimer) -> None:
        self.connection = connection
        self.worker = worker
        self.woken = anyio.Event()
        self.times_ms: list[float] = []

    def hear(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        if "job.enqueued" in str(payload):
            self.woken.set()

    async def work(self) -> None:
        """Claim at each event until nothing is left, then wait for the next."""
        while True:
            rows = await self.worker.claim.fetch(
                self.worker.agent, SIZE, [self.worker.queue], self.worker.finished, self.worker.fences,
                [None] * len(self.worker.fences),
            )  # fmt: skip
            now = time.time()
            self.times_ms += [(now - msgspec.json.decode(row["payload"])) * 1000 for row in rows if not row["stale"]]
            self.worker.finished, self.worker.fences = [row["id"] for row in rows], [row["fence"] for row in rows]
            if not rows:
                await self.woken.wait()
                self.woken = anyio.Event()


async def _start(place: Place, options: Options) -> Table:
    feeder, listener, connection = [await connect(place.dsn, raw_json=True) for _ in range(3)]
    starts = _Starts(connection, await Claimer.start(connection, "worker", "default"))
    await listener.add_listener(CHANNEL, starts.hear)
    enqueue = await feeder.prepare(ENQUEUE.rstrip(";"))
    rows = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(starts.work)
        for number in range(WARM + FIRST):
            await anyio.sleep(0.2 + 0.01 * (number % 10))
            await enqueue.fetchval()
            await _started(starts, number + 1)
        rows.append(_row("idle", starts.times_ms[WARM:], "p50", 10))
        starts.times_ms.clear()
        async with paced(place, ENQUEUE, clients=CLIENTS, rate=RATE, seconds=options.round_s) as task:
            reached = await task
        await place.drained()
        await _started(starts, round(reached * options.round_s * 0.95))
        rows.append(_row(f"{reached:,.0f} jobs a second", starts.times_ms, "p99", 50))
        tasks.cancel_scope.cancel()
    for each in (feeder, listener, connection):
        await each.close()
    return Table(
        "From the call that enqueues a job to its start",
        ["worker", "jobs", "p50 ms", "p99 ms", "target"],
        rows,
        [
            "The worker hears of jobs by NOTIFY through the relay, and claims; both commits are part of the time.",
            f"Load average at the end {load():.1f}.",
        ],
    )


async def _started(starts: _Starts, number: int) -> None:
    with anyio.fail_after(30):
        while len(starts.times_ms) < number:
            await anyio.sleep(0.001)


def _row(label: str, times_ms: list[float], which: str, most: float) -> list[str]:
    p50, p99 = percentile(times_ms, 50), percentile(times_ms, 99)
    met = (p50 if which == "p50" else p99) <= most
    return [
        label,
        f"{len(times_ms):,}",
        f"{p50:.1f}",
        f"{p99:.1f}",
        f"{which} ≤ {most:g}: {'met' if met else 'MISSED'}",
    ]

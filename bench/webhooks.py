"""Deliveries of webhooks: how many one daemon makes in a second, and what each costs it, compared with a bare loop that posts the same bodies."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import anyio

from bench.gateway import cpu_s, process, resident_kb
from bench.place import Options, Place, fresh
from bench.report import Table, load, ratio

__all__ = ["run"]

PROJECTS, WEBHOOKS = 4, 32
EVENTS = 50  # of each project: 6,400 deliveries of a round
ALONE = 1000  # of the project with one webhook
AT_ONCE = 64
DRAIN_S = 120.0
EMIT = "select count(*) from (select coordinator.event_emit($1, 'custom.x', 'k' || n, '{\"text\": \"0123456789012345678901234567890123456789\"}') from generate_series(1, $2) n) e"
BODY = json.dumps(
    {"type": "custom.x", "timestamp": "2030-01-01T00:00:00.000000Z", "data": {"text": "x" * 350}}
).encode()


async def run(options: Options) -> AsyncIterator[Table]:
    """Deliver rounds of events to a receiver in a process of its own, and post as many bodies in a bare loop."""
    many: list[tuple[float, float]] = []
    bare: list[tuple[float, float]] = []
    alone: list[tuple[float, float]] = []
    async with _receiver() as receiver, fresh(options) as place, process("daemon", place.dsn) as (_, pid):
        await _add(place, receiver.url)
        await _delivered(place, pid, receiver, _projects(), EVENTS)  # warms up
        for _ in range(options.rounds):
            many.append(await _delivered(place, pid, receiver, _projects(), EVENTS))
            bare.append(await _posted(receiver, EVENTS * WEBHOOKS * PROJECTS))
            alone.append(await _delivered(place, pid, receiver, ["alone"], ALONE))
        memory = resident_kb(pid) / 1024
    rate = [ratio([a for a, _ in side], [a for a, _ in bare]) for side in (many, alone)]
    cost = [ratio([b for _, b in side], [b for _, b in bare]) for side in (many, alone)]
    rows = [
        _row(
            f"{PROJECTS * WEBHOOKS} webhooks",
            many,
            rate[0],
            cost[0],
            f"≥ 1,000: {'met' if _middle(many) >= 1000 else 'MISSED'}",
        ),
        _row("one webhook, in order", alone, rate[1], cost[1], ""),
        _row(f"a bare loop of aiohttp, {AT_ONCE} at once", bare, None, None, ""),
    ]
    note = f"{options.rounds} rounds, interleaved; signed, from commit to the receiver's count. The daemon has {memory:.0f} MB at the end. Load average at the end {load():.1f}."
    columns = ["what", "deliveries a second", "µs of a processor each", "rate / bare", "cost / bare", "target"]
    yield Table("Deliveries of webhooks to a receiver on loopback", columns, rows, [note])


def _projects() -> list[str]:
    return [f"p{number}" for number in range(PROJECTS)]


def _webhooks(project: str) -> int:
    return 1 if project == "alone" else WEBHOOKS


def _middle(rounds: list[tuple[float, float]]) -> float:
    return sorted(rate for rate, _ in rounds)[len(rounds) // 2]


def _row(
    what: str, rounds: list[tuple[float, float]], rate: float | None, cost: float | None, target: str
) -> list[str]:
    rates, costs = sorted(one for one, _ in rounds), sorted(one for _, one in rounds)
    middle = len(rounds) // 2
    shown = f"{rates[middle]:,.0f} ({rates[0]:,.0f} to {rates[-1]:,.0f})"
    return [what, shown, f"{costs[middle]:.0f}", f"{rate:.2f}" if rate else "", f"{cost:.1f}" if cost else "", target]


async def _add(place: Place, url: str) -> None:
    connection = await place.connect()
    add = "select count(*) from generate_series(1, $3::integer) n cross join lateral coordinator.webhook_add($1, $2 || '?' || n, '{custom.*}')"
    for project in [*_projects(), "alone"]:
        await connection.execute("select coordinator.project_create($1)", project)
        await connection.execute(add, project, url, _webhooks(project))
    await connection.close()


async def _delivered(
    place: Place, pid: int, receiver: _Receiver, projects: list[str], events: int
) -> tuple[float, float]:
    """Emit events; return how many deliveries a second arrived, and the daemon's processor time for each, in µs."""
    count = events * sum(map(_webhooks, projects))
    connection = await place.connect()
    seen, cpu, began = await receiver.count(), cpu_s(pid), time.perf_counter()
    for project in projects:
        await connection.execute(EMIT, project, events)
    with anyio.fail_after(DRAIN_S):
        while await receiver.count() < seen + count:
            await anyio.sleep(0.02)
    seconds = time.perf_counter() - began
    cost = cpu_s(pid) - cpu
    await connection.close()
    return count / seconds, cost / count * 1e6


async def _posted(receiver: _Receiver, count: int) -> tuple[float, float]:
    """Post as many bodies from a process of its own; return how many a second, and its processor time for each, in µs."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.webhooks", "post", receiver.url, str(count), stdout=asyncio.subprocess.PIPE
    )
    output = (await child.communicate())[0]
    seconds, cost = map(float, output.split())
    return count / seconds, cost / count * 1e6


class _Receiver:
    """The receiver, a process that counts requests."""

    def __init__(self, child: asyncio.subprocess.Process, port: int) -> None:
        self._child = child
        self.url = f"http://127.0.0.1:{port}/hook"

    async def count(self) -> int:
        self._child.stdin.write(b"\n")  # type: ignore[union-attr]
        return int(await self._child.stdout.readline())  # type: ignore[union-attr]


@asynccontextmanager
async def _receiver() -> AsyncIterator[_Receiver]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.webhooks", "receive", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield _Receiver(child, int(await child.stdout.readline()))  # type: ignore[union-attr]
    finally:
        child.terminate()
        await child.wait()


class _Counter(asyncio.Protocol):
    """Responds to each request with 204 as soon as it is complete, and keeps the connection."""

    count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end].lower()
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            if len(self._data) < end + 4 + length:
                return
            self._data = self._data[end + 4 + length :]
            _Counter.count += 1
            self._transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")  # type: ignore[attr-defined]


async def _receive() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Counter, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()

    def asked() -> None:
        if not os.read(0, 1):
            loop.stop()
        sys.stdout.write(f"{_Counter.count}\n")
        sys.stdout.flush()

    loop.add_reader(0, asked)
    await server.serve_forever()


async def _post(url: str, count: int) -> None:
    left = iter(range(count))

    async def some(session: aiohttp.ClientSession) -> None:
        for _ in left:
            async with session.post(url, data=BODY) as answer:
                await answer.read()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE)) as session:
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(some(session) for _ in range(AT_ONCE)))
        print(time.perf_counter() - began, time.process_time() - cpu)


def _main(kind: str, *arguments: str) -> None:
    import uvloop  # noqa: PLC0415 - as the daemon

    uvloop.run(_receive() if kind == "receive" else _post(arguments[0], int(arguments[1])))


if __name__ == "__main__":
    _main(*sys.argv[1:])

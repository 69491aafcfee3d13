"""HTTP and its streams: latency from commit to subscriber, memory of idle streams, fan-out compared with a bare broadcast, calls."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from statistics import median

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from bench.http import Connection, Counter, Timer, request, subscribe
from bench.load import paced
from bench.place import Options, Place, fresh
from bench.report import Table, load, percentile, ratio
from coordinator.client.http import HttpExecutor
from coordinator.config import Config
from coordinator.daemon import serve
from coordinator.db.database import Database
from coordinator.operations import signals
from coordinator.telemetry import logs

__all__ = ["run"]

RATE = 5000
CLIENTS = 16
IDLE = (2000, 10_000)
OPEN_AT_ONCE = 200
FANS = 500
BURST = 2000
SINGLE = 100
SINGLE_S = 0.02
BURST_SQL = (
    "select coordinator.event_emit('default', 'custom.burst', 'k' || g, '{\"n\": 1}') "
    f"from generate_series(1, {BURST}) g"
)
SINGLE_SQL = "select coordinator.event_emit('default', 'custom.burst', 'k', '{\"n\": 1}')"
READY_S = 20.0
CALLS_AT_ONCE = 16
MEMORY_DISK = Path("/dev/shm")  # noqa: S108
STREAM = "/v1/events/stream?project=default&topic=signal.*"
EMIT = "select coordinator.event_emit('default', 'custom.tick', 'k' || :client_id, '{\"state\": \"done\"}');"
BODY = b'{"key": "bench/call", "value": {"state": "done", "by": "a"}}'
PAGE_KB = 1024


async def run(options: Options) -> AsyncIterator[Table]:
    """Measure calls on a memory disk, and everything else on one server and one daemon."""
    async with fresh(options) as place, process("daemon", place.dsn) as (port, pid):
        yield await _latency(place, port, options)
        yield await _fan_out(place, port, pid)
        yield await _memory(port, pid)
    # A slow disk would hide what HTTP adds to a write.
    async with (
        fresh(options, disk=MEMORY_DISK if MEMORY_DISK.is_dir() else None) as place,
        process("daemon", place.dsn) as (port, _),
    ):
        yield await _calls(place, port, options)


@asynccontextmanager
async def process(kind: str, *arguments: str) -> AsyncIterator[tuple[int, int]]:
    """Run a server in a separate process; yield its port and process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    child = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.gateway", kind, str(port), *arguments)
    try:
        with anyio.fail_after(READY_S):
            while True:
                try:
                    (await asyncio.open_connection("127.0.0.1", port))[1].close()
                    break
                except OSError:
                    await anyio.sleep(0.05)
        await anyio.sleep(1.0)  # the relay leads
        yield port, child.pid
    finally:
        child.terminate()
        await child.wait()


async def _latency(place: Place, port: int, options: Options) -> Table:
    rows = []
    for number in range(1, options.rounds + 1):
        timer = Timer()
        transport = await subscribe(port, "/v1/events/stream?topic=custom.*", timer)
        async with paced(place, EMIT, clients=CLIENTS, rate=RATE, seconds=options.round_s + 1) as task:
            rate = await task
        await place.drained()
        await anyio.sleep(0.5)
        transport.abort()
        found = timer.latencies[RATE:]  # the first second warms up
        p50, p99 = percentile(found, 50), percentile(found, 99)
        met = "met" if p50 <= 5 and p99 <= 20 else "MISSED"
        rows.append([str(number), f"{rate:,.0f}", f"{len(found):,}", f"{p50:.1f}", f"{p99:.1f}", f"≤ 5, ≤ 20: {met}"])
    return Table(
        f"From the call to the SSE client, {RATE:,} events a second",
        ["round", "events/s", "measured", "p50 ms", "p99 ms", "target"],
        rows,
        [f"Load average at the end {load():.1f}."],
    )


async def _calls(place: Place, port: int, options: Options) -> Table:
    """Compare callers in turns: first one client in sequence, then many clients in parallel."""
    set_request, get_request = request("POST", "/v1/signals/set", BODY), request("GET", "/v1/signals/bench/call")
    set_ = signals.Set(project="default", key="bench/call", value={"state": "done", "by": "a"})
    get = signals.Get(project="default", key="bench/call")
    config = Config(database_url=place.dsn)
    async with (
        Database.open(place.dsn, config) as database,
        HttpExecutor.open(f"http://127.0.0.1:{port}", config) as client,
        process("bare") as (bare_port, _),
    ):
        connection = await Connection.open(port)
        rows = []
        for label, verb, operation, message in (("set", "POST", set_, set_request), ("get", "GET", get, get_request)):
            ours = f"{verb}, our Python client"
            callers: dict[str, Callable[[], Awaitable[object]]] = {
                f"{verb}, a bare socket": partial(connection.send, message),
                ours: partial(client.run, operation),
                "Database.run": partial(database.run, operation),
            }
            found = await _in_turns(callers, options)
            layer = found["Database.run"]
            for name, values in found.items():
                times = ratio(values, layer)
                verdict = f"≤ 3: {'met' if times <= 3 else 'MISSED'}" if name == ours else ""
                shown = "" if values is layer else f"{times:.2f}"
                rows.append([f"signal {label}, {name}, one client", f"{median(values):.0f}", "", shown, verdict])
        connection.close()
        seconds = options.round_s
        bare = await _rate(bare_port, request("POST", "/bare", BODY), seconds)
        set_rate = await _rate(port, request("POST", "/v1/signals/set", BODY), seconds)
        get_rate = await _rate(port, get_request, seconds)  # of what was set just now
    return Table(
        "Calls over HTTP",
        ["what", "µs p50", "requests/s", "ratio", "target"],
        [
            *rows,
            [f"signal set, POST, {CALLS_AT_ONCE} clients", "", f"{set_rate:,.0f}", f"{set_rate / bare:.2f}", ""],
            [f"signal get, GET, {CALLS_AT_ONCE} clients", "", f"{get_rate:,.0f}", f"{get_rate / bare:.2f}", ""],
            [f"bare Starlette handler, {CALLS_AT_ONCE} clients", "", f"{bare:,.0f}", "", ""],
        ],
        [
            "Of one client the ratio is to Database.run in the same round; of many, to the bare handler.",
            f"The load comes from the same machine. Load average at the end {load():.1f}.",
        ],
    )


async def _in_turns(callers: dict[str, Callable[[], Awaitable[object]]], options: Options) -> dict[str, list[float]]:
    """Return the median microseconds of a call in each round; within a round the callers alternate call by call."""
    found: dict[str, list[float]] = {name: [] for name in callers}
    for _ in range(options.rounds * 4):
        times: dict[str, list[float]] = {name: [] for name in callers}
        deadline = time.perf_counter() + options.round_s / 4
        while time.perf_counter() < deadline:
            for name, caller in callers.items():
                began = time.perf_counter()
                await caller()
                times[name].append((time.perf_counter() - began) * 1e6)
        for name, values in times.items():
            found[name].append(median(values))
    return found


async def _rate(port: int, message: bytes, seconds: float) -> float:
    count = 0

    async def one(number: int) -> None:
        nonlocal count
        connection = await Connection.open(port)
        own = message.replace(b"bench/call", b"bench/ca%02d" % number)  # every agent writes its own keys
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            await connection.send(own)
            count += 1
        connection.close()

    async with anyio.create_task_group() as tasks:
        for number in range(CALLS_AT_ONCE):
            tasks.start_soon(one, number)
    return count / seconds


async def _fan_out(place: Place, port: int, pid: int) -> Table:
    """Deliver to many streams, then send the same bytes from a server that only writes them."""
    size = await _size(place, port) // BURST
    rows = []
    for shape, count in (("at once", BURST), ("one by one", SINGLE)):
        found: dict[str, list[tuple[float, float]]] = {}
        pieces = "burst" if count == BURST else "single"
        async with process("broadcast", pieces, str(size), str(count)) as (bare_port, bare_pid):
            for _ in range(3):
                for name, its_port, its_pid in (("gateway", port, pid), ("bare", bare_port, bare_pid)):
                    found.setdefault(name, []).append(
                        await _deliver(place, its_port, its_pid, size * count, count, name)
                    )
        ratios = [gateway[0] / bare[0] for gateway, bare in zip(found["gateway"], found["bare"], strict=True)]
        costs = [bare[1] / gateway[1] for gateway, bare in zip(found["gateway"], found["bare"], strict=True)]
        ratio = median(ratios if count == BURST else costs)
        for name, values in found.items():
            rate, cost = (median(value) for value in zip(*values, strict=True))
            verdict = (
                [f"{ratio:.2f}", f"≥ 0.5: {'met' if ratio >= 0.5 else 'MISSED'}"] if name == "gateway" else ["", ""]
            )
            rows.append([f"{count:,} events {shape}", name, f"{rate:,.0f}", f"{cost:.2f}", *verdict])
    return Table(
        f"Fan-out to {FANS:,} streams",
        ["what", "way", "deliveries/s", "server's µs of processor a delivery", "ratio", "target"],
        rows,
        [
            (
                f"{size} bytes an event. At once: from the first byte at the first client to the last at the last, the bare server "
                "writes pieces of 64 KB; the ratio is of deliveries a second. One by one: a write for each event and client, 50 "
                "events a second; the ratio is of processor time, the gateway's with relay, log, encoding and loops in it."
            ),
            f"Load average at the end {load():.1f}.",
        ],
    )


async def _size(place: Place, port: int) -> int:
    """Return how many bytes a burst has on the wire."""
    first = Counter()
    transport = await subscribe(port, "/v1/events/stream?topic=custom.burst", first)
    await anyio.sleep(0.5)
    head = first.size
    await place.execute(BURST_SQL)
    size = 0
    while size != first.size - head or not size:
        size = first.size - head
        await anyio.sleep(1.0)
    transport.abort()
    return size


async def _deliver(  # noqa: PLR0917
    place: Place, port: int, pid: int, size: int, count: int, name: str
) -> tuple[float, float]:
    """Return deliveries per second, and microseconds of the server's processor time per delivery."""
    counters = [Counter() for _ in range(FANS)]
    transports = [await subscribe(port, "/v1/events/stream?topic=custom.burst", counter) for counter in counters]
    await anyio.sleep(0.5)
    for counter in counters:
        counter.wanted = counter.size + size * 95 // 100  # what is around the events differs a little
    used = cpu_s(pid)
    if name != "gateway":
        await subscribe(port, "/go", Counter())
    elif count == BURST:
        await place.execute(BURST_SQL)
    else:
        connection = await place.connect()
        for _ in range(count):
            await connection.execute(SINGLE_SQL)
            await anyio.sleep(SINGLE_S)
        await connection.close()
    with anyio.fail_after(60):
        for counter in counters:
            await counter.done.wait()
    wall = time.perf_counter() - min(counter.began for counter in counters)
    for transport in transports:
        transport.abort()
    return FANS * count * 0.95 / wall, (cpu_s(pid) - used) / (FANS * count) * 1e6


async def _memory(port: int, pid: int) -> Table:
    rows = []
    before = resident_kb(pid)
    transports: list[asyncio.Transport] = []
    for count in IDLE:
        while len(transports) < count:
            opened = [
                subscribe(port, f"{STREAM}&exclude_self=agent-{len(transports) + number}", Counter())
                for number in range(min(OPEN_AT_ONCE, count - len(transports)))
            ]
            transports += await asyncio.gather(*opened)
        await anyio.sleep(3.0)
        grown_kb = resident_kb(pid) - before
        verdict = f"≤ 250 MB: {'met' if grown_kb <= 250 * PAGE_KB else 'MISSED'}" if count == IDLE[-1] else ""
        rows.append([f"{count:,}", f"{grown_kb / PAGE_KB:.0f}", f"{grown_kb / count:.1f}", verdict])
    used, began = cpu_s(pid), time.perf_counter()
    await anyio.sleep(20.0)
    idle = (cpu_s(pid) - used) / (time.perf_counter() - began) * 100
    for transport in transports:
        transport.abort()
    return Table(
        "Idle streams on one daemon",
        ["streams", "MB more", "KB a stream", "target"],
        rows,
        [
            f"With {IDLE[-1]:,} idle streams the daemon takes {idle:.0f} % of a processor, heartbeats and loops included."
        ],
    )


def cpu_s(pid: int) -> float:
    """Return the processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_kb(pid: int) -> int:
    """Return the resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


class _Broadcaster(asyncio.Protocol):
    """A server that writes bytes to all connected clients when one requests /go."""

    everybody: set[asyncio.Transport]
    pieces: list[bytes]
    pause_s: float

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not data.startswith(b"GET /go"):
            self.everybody.add(self._transport)  # type: ignore[arg-type]
            return
        self._write(self.pieces)

    def _write(self, pieces: list[bytes]) -> None:
        for transport in self.everybody:
            transport.write(pieces[0])
        if len(pieces) > 1:
            asyncio.get_running_loop().call_later(self.pause_s, self._write, pieces[1:])

    def connection_lost(self, _error: Exception | None) -> None:
        self.everybody.discard(self._transport)


async def _broadcast(port: int, shape: str, size: int, count: int) -> None:
    _Broadcaster.everybody = set()
    _Broadcaster.pause_s = SINGLE_S if shape == "single" else 0
    data, length = b"x" * (size * count), size if shape == "single" else 65536
    _Broadcaster.pieces = [data[start : start + length] for start in range(0, len(data), length)]
    server = await asyncio.get_running_loop().create_server(_Broadcaster, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


async def _bare(request: Request) -> JSONResponse:
    return JSONResponse(await request.json())


def _main(kind: str, port: int, *arguments: str) -> None:
    logs.configure(level="error")
    if kind == "daemon":
        config = Config(database_url=arguments[0], port=port, access="open", webhook_networks="127.0.0.0/8")
        anyio.run(serve, config, backend_options={"use_uvloop": True})
    elif kind == "broadcast":
        anyio.run(
            _broadcast, port, arguments[0], int(arguments[1]), int(arguments[2]), backend_options={"use_uvloop": True}
        )
    else:
        app = Starlette(routes=[Route("/bare", _bare, methods=["POST"])])
        uvicorn.run(app, port=port, http="httptools", loop="uvloop", access_log=False, log_level="error")


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])

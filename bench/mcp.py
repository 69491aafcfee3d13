"""A tool call over the Model Context Protocol, compared with the same operation over HTTP, by one client in sequence."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from statistics import median
from urllib.parse import urlsplit

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from bench.calls import ROUNDS, Caller, rounds
from bench.gateway import MEMORY_DISK, cpu_s, process
from bench.http import Connection, request
from bench.place import Options, fresh
from bench.report import Table, load, ratio
from coordinator.client.http import HttpExecutor
from coordinator.client.wire import message_of
from coordinator.config import Config
from coordinator.operations import signals

__all__ = ["run"]

KEY = "bench/call"
VALUE = {"state": "done", "by": "a"}
TARGET = 2
BLOCKS, CALLS = 8, 250
HOP = ("host", "connection", "accept-encoding", "content-length", "transfer-encoding")  # of each connection


async def run(options: Options) -> AsyncIterator[Table]:
    """Measure reading and setting one signal, as bytes on a connection and through the clients, in interleaved rounds."""
    rows = []
    async with (
        fresh(options, disk=MEMORY_DISK if MEMORY_DISK.is_dir() else None) as place,
        process("daemon", place.dsn) as (port, pid),
        HttpExecutor.open(f"http://127.0.0.1:{port}", Config()) as http,
        httpx2.AsyncClient(timeout=60) as wire,
        Client(streamable_http_client(f"http://127.0.0.1:{port}/mcp", http_client=wire)) as client,
    ):
        sent: list[httpx2.Request] = []

        async def keep(made: httpx2.Request) -> None:
            sent.append(made)

        for label, operation, tool, given in (
            ("signal set", signals.Set(project="default", key=KEY, value=VALUE), "signal_set", {"value": VALUE}),
            ("signal get", signals.Get(project="default", key=KEY), "signal_get", {}),
        ):
            arguments = {"key": KEY, **given}
            wire.event_hooks["request"] = [keep]
            await client.call_tool(tool, arguments)
            wire.event_hooks["request"] = []
            plain, framed = await Connection.open(port), await Connection.open(port)
            callers: dict[str, Caller] = {
                "mcp": partial(
                    framed.send, _bytes(next(one for one in reversed(sent) if b'"tools/call"' in one.content))
                ),
                "http": partial(plain.send, _plain(operation)),
                "mcp client": partial(client.call_tool, tool, arguments),
                "http client": partial(http.run, operation),
            }
            found = await rounds(callers, seconds=options.round_s * options.rounds / ROUNDS / len(callers))
            spent = await _spent(pid, {way: callers[way] for way in ("mcp", "http")})
            for connection in (plain, framed):
                connection.close()
            value = ratio(found["mcp"], found["http"])
            rows.append([label, "tool call", f"{median(found['mcp']):.0f}", f"{value:.2f}", _met(value)])
            rows.append(["", "HTTP", f"{median(found['http']):.0f}", "", ""])
            clients = ratio(found["mcp client"], found["http client"])
            rows.append(
                ["", "tool call, client of the SDK", f"{median(found['mcp client']):.0f}", f"{clients:.2f}", ""]
            )
            rows.append(["", "HTTP, our client", f"{median(found['http client']):.0f}", "", ""])
            value = spent["mcp"] / spent["http"]
            rows.append(["", "tool call, processor of the daemon", f"{spent['mcp']:.0f}", f"{value:.2f}", _met(value)])
            rows.append(["", "HTTP, processor of the daemon", f"{spent['http']:.0f}", "", ""])
    note = (
        f"{ROUNDS} interleaved rounds on a memory disk; the time of a round is the median of its calls. Without a client, the bytes that it"
        f" sends go over one connection. Processor time: {BLOCKS} blocks of {CALLS} calls each, in alternation. Load average at the end {load():.1f}."
    )
    yield Table(
        "A tool call over the Model Context Protocol",
        ["operation", "way", "µs a call", "MCP / HTTP", "target"],
        rows,
        [note],
    )


async def _spent(pid: int, callers: dict[str, Caller]) -> dict[str, float]:
    """Return the microseconds of a processor that each way's call costs the daemon."""
    spent = dict.fromkeys(callers, 0.0)
    for _ in range(BLOCKS):
        for way, call in callers.items():
            before = cpu_s(pid)
            for _ in range(CALLS):
                await call()
            spent[way] += cpu_s(pid) - before
    return {way: seconds / (BLOCKS * CALLS) * 1e6 for way, seconds in spent.items()}


def _met(value: float) -> str:
    return f"≤ {TARGET}: {'met' if value <= TARGET else 'MISSED'}"


def _plain(operation: signals.Set | signals.Get) -> bytes:
    message = message_of(operation)
    return request(message.method, message.path, message.content or b"")


def _bytes(made: httpx2.Request) -> bytes:
    """Return a request as the SDK sent it."""
    target = urlsplit(str(made.url))
    lines = [f"{name}: {value}" for name, value in made.headers.items() if name not in HOP]
    head = "\r\n".join(
        [f"POST {target.path} HTTP/1.1", "host: localhost", *lines, f"content-length: {len(made.content)}"]
    )
    return f"{head}\r\n\r\n".encode() + made.content

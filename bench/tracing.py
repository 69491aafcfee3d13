"""What tracing costs a call: switched off, which is the default, and on.

Processor time of the calling process alone is compared, since a machine that does other work changes wall time more than tracing does. What
is switched off is measured alone, in a loop, and set in relation to a whole call: in a comparison of calls, the noise would hide it.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from statistics import median
from typing import Any

from starlette.types import Receive, Scope, Send

from bench.place import Options, fresh
from bench.report import Table
from coordinator.api.access import Access
from coordinator.api.app import create_app
from coordinator.api.gateway import Gateway
from coordinator.api.local import Local
from coordinator.api.server import bind, serving
from coordinator.api.tracing import Traced
from coordinator.config import Config
from coordinator.db.database import Database
from coordinator.model.operation import Operation
from coordinator.model.readiness import Readiness
from coordinator.operations import signals
from coordinator.telemetry import slow, tracing

__all__ = ["run"]

KEY = "bench/tracing"
CALLS = 400
ROUNDS = 11
LOOPS = 20_000
HEADERS = [(b"user-agent", b"bench"), (b"accept", b"application/json"), (b"authorization", b"Bearer coo_0")]
TARGET = 2.0
CLIENT = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
def get():
    connection.request("GET", "/v1/signals/" + sys.argv[2])
    connection.getresponse().read()
get()
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[3])):
    get()
print("done", flush=True)
"""


async def run(options: Options) -> AsyncIterator[Table]:
    """Measure a read and a write, through the Python layer and as a request to the application."""
    async with fresh(options) as place, Database.open(place.dsn, Config(), raw_json=True) as database:
        get = signals.Get(project="default", key=KEY)
        set_ = signals.Set(project="default", key=KEY, value={"state": "done"})
        await database.run(set_)
        rows = [
            await _layer(database, name, operation) for name, operation in (("signal get", get), ("signal set", set_))
        ]
        rows += [await _requests(database, Config())]
        on = [await _on(database, name, operation) for name, operation in (("signal get", get), ("signal set", set_))]
    yield Table(
        "What tracing costs when it is off",
        ["call", "µs of a processor", "of these for tracing", "share", "target"],
        rows,
        [
            "In the calling process alone; the server's part is not in it.",
            "A request is that of a client in another process, over a connection that is kept; its share contains the id that each request gets.",
        ],
    )
    yield Table(
        "What tracing costs when it is on",
        ["call", "off, µs", "on, µs", "ratio"],
        on,
        ["Each call makes two spans, which are recorded and thrown away. A collector is another process."],
    )


def _off(operation: Operation[Any]) -> float:
    """Return the seconds that the interface of a call takes when it is off."""

    def interface() -> None:
        with tracing.operation(operation), tracing.statement(operation, ""):
            tracing.exemplar()
            tracing.traceparent()
            _ = slow.threshold_s <= 0

    def nothing() -> None:
        pass

    return _looped(interface) - _looped(nothing)


def _looped(function: Callable[[], None]) -> float:
    began = time.process_time()
    for _ in range(LOOPS):
        function()
    return (time.process_time() - began) / LOOPS


async def _calls(database: Database, operation: Operation[Any]) -> float:
    began = time.process_time()
    for _ in range(CALLS):
        await database.run(operation)
    return (time.process_time() - began) / CALLS


async def _layer(database: Database, name: str, operation: Operation[Any]) -> list[str]:
    await _calls(database, operation)
    return _row(name, [(await _calls(database, operation), _off(operation)) for _ in range(ROUNDS)])


async def _requests(database: Database, config: Config) -> list[str]:
    app = create_app(lambda: Readiness(ready=True, leads=True), database, Gateway(database, config), Access(None), [])
    get = signals.Get(project="default", key=KEY)
    bare, traced = Local(_answer, HEADERS), Local(Traced(_answer), HEADERS)
    with bind("127.0.0.1", 0) as listener:
        async with serving(app, listener, config):
            port = listener.getsockname()[1]
            rounds = [
                (await _served(port), await _asked(traced) - await _asked(bare) + _off(get)) for _ in range(ROUNDS)
            ]
    return _row("GET /v1/signals/{key}", rounds)


async def _served(port: int) -> float:
    """Return the seconds of this process for each request of a client that is another process."""
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLIENT, str(port), KEY, str(CALLS), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert client.stdin is not None  # noqa: S101
    assert client.stdout is not None  # noqa: S101
    await client.stdout.readline()  # it has connected, and made its first request
    began = time.process_time()
    client.stdin.write(b"\n")
    await client.stdout.readline()
    spent_s = time.process_time() - began
    await client.wait()
    return spent_s / CALLS


async def _asked(local: Local) -> float:
    began = time.process_time()
    for _ in range(LOOPS // 10):
        await local.get("/v1/signals/a", {})
    return (time.process_time() - began) / (LOOPS // 10)


async def _answer(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b"{}"})


async def _on(database: Database, name: str, operation: Operation[Any]) -> list[str]:
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: PLC0415

    from coordinator.telemetry.otel import OpenTelemetry  # noqa: PLC0415

    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = OpenTelemetry(provider)
    off, on = [], []
    for _ in range(ROUNDS):
        off.append(await _calls(database, operation))
        tracing.use(tracer)
        on.append(await _calls(database, operation))
        tracing.use(None)
        exporter.clear()
    return [name, f"{median(off) * 1e6:.0f}", f"{median(on) * 1e6:.0f}", f"{median(on) / median(off):.2f}"]


def _row(name: str, rounds: Sequence[tuple[float, float]]) -> list[str]:
    """Return the medians of rounds, each of a call and of what tracing takes of one."""
    call_s, tracing_s = (median(values) for values in zip(*rounds, strict=True))
    share = median(off_s / whole_s for whole_s, off_s in rounds)
    return [name, f"{call_s * 1e6:.0f}", f"{tracing_s * 1e6:.2f}", f"{share:.1%}", f"at most {TARGET:g} %"]

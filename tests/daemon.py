"""Daemons as real processes, on a database that the test names: start, wait for, stop, pause, kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import weakref
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncpg
import httpx

from coordinator.db.connection import connect
from tests.forked import Forked
from tests.http_client import http_client
from tests.waiting import until


class Daemon:
    """One daemon process, killed when the block ends.

    `constants` sets constants of the daemon's modules, by their dotted names. Make a fallback slower than `DEADLINE_S`,
    so that the test passes only through the mechanism that it tests. `root` is another source tree, whose daemon is
    started.
    """

    def __init__(
        self,
        database_url: str | None,
        *,
        constants: Mapping[str, float] | None = None,
        root: Path | None = None,
        **settings: object,
    ) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the block
        given = {
            "database_url": database_url,
            "port": 0,
            "min_connections": 1,
            "max_connections": 5,
            "log_level": "debug",
            "access": "open",
            "slow_call_s": 3600,  # otherwise a busy machine adds lines to the log
            **settings,
        }
        arguments = ("tests.daemon_process", json.dumps(given, default=str))
        self.process: subprocess.Popen[Any] = (
            Forked(*arguments, constants=constants, stderr=self._output)
            if root is None
            else subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=root,
                env={**os.environ, "PYTHONPATH": str(root)},
                stderr=self._output,
            )
        )
        weakref.finalize(self, self.process.kill)  # whatever happens to the test

    def output(self) -> str:
        """Return everything that the process has written to standard error."""
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode()

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return the complete log lines, optionally only those of one event."""
        whole = self.output().rpartition("\n")[0].splitlines()
        return [line for line in map(json.loads, whole) if event in (None, line["event"])]

    def events(self) -> list[str]:
        """Return the names of the log lines, in order."""
        return [line["event"] for line in self.lines()]

    @property
    def url(self) -> str:
        """Address of its HTTP port."""
        return str(self.lines("daemon.started")[0]["http"])

    @property
    def leads(self) -> bool:
        """Whether it leads, according to its last log line about this."""
        return bool((self.lines("leader.changed") or [{"leads": False}])[-1]["leads"])

    async def get(self, path: str) -> httpx.Response:
        async with http_client() as client:
            return await client.get(self.url + path)

    async def metrics(self) -> Mapping[str, float]:
        """Return the values of all metrics, named with their labels; 0 for any that is absent."""
        lines = (line.rpartition(" ") for line in (await self.get("/metrics")).text.splitlines() if line[0] != "#")
        return defaultdict(float, {name: float(value) for name, _, value in lines})

    async def metric(self, name: str) -> float:
        """Return the value of a metric, named with its labels; 0 if the metric is absent."""
        return (await self.metrics())[name]

    async def heartbeats(self) -> int:
        """Return how many heartbeats it has sent: time as the daemon measures it, however slow the machine is."""
        return int(await self.metric('coordinator_call_seconds_count{function="leader_renew"}'))

    async def heartbeats_until(self, condition: Callable[[], Awaitable[object]], what: str, *, since: int) -> int:
        """Wait for a condition; return the heartbeats since that count, up to the last check at which it did not hold yet.

        A busy machine checks less often: it may count fewer heartbeats than there were, but never more.
        """
        seen = since

        async def look() -> bool:
            nonlocal seen
            count = await self.heartbeats()
            if await condition():
                return True
            seen = count
            return False

        await until(look, what, every_s=0.05)
        return seen - since

    async def is_ready(self) -> bool:
        assert self.process.poll() is None, self.output()
        return bool(self.lines("daemon.started")) and (await self.get("/readyz")).status_code == 200

    async def ready(self) -> Self:
        """Wait until it reports that it is ready."""
        await until(self.is_ready, "the daemon is ready", every_s=0.05)
        return self

    async def logged(self, event: str, **parts: str) -> dict[str, Any]:
        """Wait for a log line whose fields contain these parts, and return the first one."""

        def found() -> list[dict[str, Any]]:
            lines = self.lines(event)
            return [line for line in lines if all(part in line.get(field, "") for field, part in parts.items())]

        return (await until(found, f"the log says {event} {parts or ''}"))[0]

    async def lead(self) -> Self:
        """Wait until it leads."""
        await until(self.is_leading, "the daemon leads")
        return self

    async def is_leading(self) -> bool:
        return self.leads

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    async def ended(self) -> int:
        """Wait until the process has ended, and return its exit code."""
        await until(lambda: self.process.poll() is not None, "the process has ended")
        return self.process.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.kill()
        if error is not None:
            sys.stderr.write(self.output())
        self._output.close()


LOG = "(select e.* from coordinator.event_chunks c cross join coordinator.chunk_events(c) e) log"  # each event with its number


async def log_of(url: str) -> list[asyncpg.Record]:
    """Read the whole event log, by plain SQL."""
    async with opened(url) as connection:
        return await connection.fetch(f"select seq, type, key, data, actor, transaction, more from {LOG} order by seq")


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Open a connection with the product's codecs, for the duration of the block. Its transactions may be idle for long."""
    connection = await connect(url)
    try:
        await connection.execute("set idle_in_transaction_session_timeout = 0")
        yield connection
    finally:
        connection.terminate()


class Reopened:
    """A connection that is opened when it is first needed, and again after each error that is not a refusal of the product.

    Where a test would otherwise open many: each takes 20 ms of a processor until its first call has been planned.
    """

    def __init__(self, url: str, *, call_timeout_s: float = 30.0) -> None:
        self._url = url
        self._call_timeout_s = call_timeout_s
        self._connection: asyncpg.Connection | None = None

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[asyncpg.Connection]:
        """Lend the connection for the duration of the block."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._url, call_timeout_s=self._call_timeout_s)
        try:
            yield self._connection
        except BaseException as error:
            if not (getattr(error, "sqlstate", None) or "").startswith("ZC"):
                self.close()
            raise

    def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()


async def drained(url: str, count: int) -> list[asyncpg.Record]:
    """Wait until the log holds that many events of writers (custom.…), and return them."""

    async def look() -> list[asyncpg.Record] | None:
        events = [event for event in await log_of(url) if event["type"].startswith("custom.")]
        return events if len(events) >= count else None

    return await until(look, f"{count} events are in the log", every_s=0.05)


def check_unavailable(answer: httpx.Response) -> None:
    """Check that a response is a complete 503: a problem document with a hint, and Retry-After."""
    assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json().get("hint"), answer.text


def note(what: str, values: Sequence[float]) -> None:
    """Append a measurement to the file in COORDINATOR_TEST_NOTES, if that is set."""
    if path := os.environ.get("COORDINATOR_TEST_NOTES"):
        with Path(path).open("a") as file:
            file.write(json.dumps({what: [round(value, 3) for value in values]}) + "\n")

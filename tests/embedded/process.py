"""A stand-in for the daemon that runs an embedded PostgreSQL in a process that tests can kill.

As a program: `python -m tests.embedded.process <data_dir> [<bin_dir>]` prints one JSON line, the server
or the error, and runs until SIGTERM.
"""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import asyncpg
import structlog

from coordinator import embedded
from coordinator.embedded import processes
from coordinator.errors import CoordinatorError
from tests.forked import ROOT, Forked
from tests.waiting import DEADLINE_S

Answer = dict[str, Any]
QUICK = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition, blocking the event loop."""
    ends_at = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < ends_at, f"not within {DEADLINE_S:g} seconds: {what}"
        select.select([], [], [], 0.001)


async def soon(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition while the event loop runs."""
    with anyio.move_on_after(DEADLINE_S):
        while not condition():
            await anyio.sleep(0.005)
        return
    raise AssertionError(f"not within {DEADLINE_S:g} seconds: {what}")


async def query(dsn: str, statement: str) -> object:
    """Run one statement on a new connection and return its first value."""
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def query_when_up(dsn: str, statement: str) -> object:
    """Run one statement as soon as the server accepts connections again."""
    with anyio.fail_after(DEADLINE_S):
        while True:
            try:
                return await query(dsn, statement)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
                await anyio.sleep(0.01)


class Daemon:
    """A daemon process; leaving the block ends it and the server."""

    def __init__(self, data_dir: Path, bin_dir: Path | None = None, *, prefix: tuple[str, ...] = ()) -> None:
        self.data_dir = data_dir
        program = ["tests.embedded.process", str(data_dir), *([str(bin_dir)] if bin_dir else [])]
        self.process: subprocess.Popen[str] = (
            subprocess.Popen([*prefix, sys.executable, "-m", *program], stdout=subprocess.PIPE, cwd=ROOT, text=True)
            if prefix
            else Forked(*program, stdout=subprocess.PIPE, text=True)
        )

    def answer(self) -> Answer:
        """Wait for the daemon's line: the server, or the error."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "the daemon ended without output"
        answer: Answer = json.loads(line)
        return answer

    @property
    def server_pids(self) -> list[int]:
        return processes.servers_of(self.data_dir / "postgres")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def leave(self) -> int:
        self.process.terminate()
        return self.process.wait(DEADLINE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.kill()
        if self.process.stdout:
            self.process.stdout.close()
        pids = self.server_pids
        for pid in pids:
            processes.send(self.data_dir / "postgres", pid, signal.SIGQUIT)
        # Another daemon may start the next one at once.
        until(lambda: not {*pids} & {*self.server_pids}, "the server ended")


async def _main(*arguments: str) -> int:
    data_dir = Path(arguments[0])
    bin_dir = Path(arguments[1]) if arguments[1:] else None
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        with anyio.open_signal_receiver(signal.SIGTERM) as shutdowns:
            async with embedded.run(data_dir, bin_dir=bin_dir) as server:
                _say(
                    dsn=server.dsn,
                    psql=server.psql,
                    version=server.version,
                    owned=server.owned,
                    pid=server.pid,
                )
                async for _ in shutdowns:
                    break
    except CoordinatorError as error:
        _say(error=type(error).__name__, message=error.message, hint=error.hint, detail=error.detail)
        return error.exit_code
    return 0


def _say(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(anyio.run(_main, *sys.argv[1:], backend_options={"use_uvloop": True}))

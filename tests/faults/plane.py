"""A daemon, perhaps a sidecar, and their database, which are killed and started again at the same addresses."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import anyio

from coordinator import embedded
from tests.daemon import Daemon
from tests.faults.test_connections_lost import ALL, terminate
from tests.ports import reserve_port
from tests.sidecar.conftest import Sidecar
from tests.waiting import until

__all__ = ["FAST", "IMMEDIATE", "SETTINGS", "Plane", "Way", "restart"]

# What a server acknowledged is on its way to the disk; nobody loses power here.
SETTINGS = {"fsync": "off"}
FAST, IMMEDIATE = signal.SIGINT, signal.SIGQUIT
# So small that streams read ring and log by turns.
LIMITS = {"http_ring_events": 100, "http_page": 50, "http_heartbeat_s": 1.0}

Way = Literal["daemon", "sidecar", "sidecar through the daemon"]
Fault = Callable[[], Awaitable[None]]


async def restart(server: embedded.Server, how: signal.Signals) -> None:
    """End the server process, and wait until another one accepts connections."""
    before = embedded.find(server.data_dir)
    assert before
    os.kill(before.pid, how)

    async def look() -> bool:
        now = embedded.find(server.data_dir)
        return now is not None and now.pid != before.pid

    await until(look, "the server is back")


def check(process: Daemon | Sidecar) -> None:
    """Check that a process wrote nothing but log lines, and no error among them."""
    output = process.output().rpartition("\n")[0]
    assert all(line.startswith("{") and '"level": "error"' not in line for line in output.splitlines()), output


class Plane:
    """The plane between writers and subscribers; both connect to ``urls``."""

    def __init__(self, server: embedded.Server, way: Way, folder: Path) -> None:
        self.server = server
        self._way = way
        self._socket = folder / "s.sock"
        self._ports = {"daemon": reserve_port(), "sidecar": reserve_port()}
        self._daemon: Daemon
        self._sidecar: Sidecar | None = None
        self.urls = [f"http://127.0.0.1:{self._ports['daemon']}"]
        self.faults: dict[str, Fault] = {
            "connections terminated": self._terminate,
            "database stopped at once": partial(self._restart, IMMEDIATE),
        }
        if way == "daemon":
            self.faults["database stopped in order"] = partial(self._restart, FAST)
        if way != "sidecar":  # then the daemon only relays
            self.faults["daemon killed"] = self._kill_daemon
        if way != "daemon":
            self.urls = [f"http://127.0.0.1:{self._ports['sidecar']}", f"unix://{self._socket}"]
            self.faults["sidecar killed"] = self._kill_sidecar
        self.faults["all at once"] = self._all_at_once

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the processes during the block, and check their logs."""
        self._daemon = self._new_daemon()
        try:
            await self._daemon.ready()
            if self._way != "daemon":
                self._sidecar = self._new_sidecar()
                await self._sidecar.started()
            yield
            check(self._daemon)
            if self._sidecar is not None:
                check(self._sidecar)
        finally:
            self._daemon.__exit__(None, None, None)
            if self._sidecar is not None:
                self._sidecar.close()

    def _new_daemon(self) -> Daemon:
        return Daemon(self.server.dsn, port=self._ports["daemon"], **LIMITS)

    def _new_sidecar(self) -> Sidecar:
        url = self.server.dsn if self._way == "sidecar" else f"http://127.0.0.1:{self._ports['daemon']}"
        listen = ("--listen", f"127.0.0.1:{self._ports['sidecar']}", "--socket", str(self._socket))
        # Where the other side cut a connection, the HTTP client leaves its transport to the collector.
        return Sidecar(url, "--agent", "coder", *listen, PYTHONWARNINGS="error,ignore::ResourceWarning")

    async def _terminate(self) -> None:
        await terminate(self.server.dsn, ALL)

    async def _kill_daemon(self) -> None:
        self._daemon.kill()
        check(self._daemon)
        self._daemon.__exit__(None, None, None)
        self._daemon = self._new_daemon()
        await self._daemon.ready()

    async def _kill_sidecar(self) -> None:
        assert self._sidecar is not None
        self._sidecar.process.kill()
        self._sidecar.process.wait()
        check(self._sidecar)
        self._sidecar.close()
        self._sidecar = self._new_sidecar()
        await self._sidecar.started()

    async def _restart(self, how: signal.Signals) -> None:
        await restart(self.server, how)

    async def _all_at_once(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._restart, IMMEDIATE)
            tasks.start_soon(self._kill_daemon)
            if self._sidecar is not None:
                tasks.start_soon(self._kill_sidecar)

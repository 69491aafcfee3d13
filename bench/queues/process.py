"""The processes of the compared queues, and what an order costs each side: seconds, processor time, WAL, dead rows."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import anyio
import asyncpg
import msgspec

from bench.place import Place
from coordinator.db.connection import connect, retire

__all__ = ["Cost", "Side", "peers", "side"]

ROOT = Path(__file__).parents[2]
REQUIREMENTS = Path(__file__).parent / "requirements.txt"
INSTALL_S = 300.0
ORDER_S = 600.0
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
WROTE = (
    "select pg_current_wal_insert_lsn() - '0/0' as wal, "
    "(select coalesce(sum(n_tup_upd + n_tup_del), 0) from pg_stat_user_tables) as dead"
)


class Cost(msgspec.Struct, frozen=True):
    """What one order cost, in all."""

    jobs: int
    seconds: float
    server_s: float
    client_s: float
    relay_s: float
    wal: float
    dead: float

    @property
    def rate(self) -> float:
        """Return jobs per second."""
        return self.jobs / self.seconds


class _Answer(msgspec.Struct):
    seconds: float
    processor_s: float


class Side(msgspec.Struct):
    """One queue, in its own database and process."""

    orders: asyncio.StreamWriter
    answers: asyncio.StreamReader
    database: asyncpg.Connection
    postmaster: int
    relay: int | None

    async def order(self, verb: str, jobs: int) -> Cost:
        """Have the queue enqueue, drain or work on a number of jobs."""
        before, server, relay = await self.database.fetchrow(WROTE), _server_s(self.postmaster), _own_s(self.relay)
        self.orders.write(f"{verb} {jobs}\n".encode())
        with anyio.fail_after(ORDER_S):
            line = await self._answer()
            if self.relay is not None:
                while await self.database.fetchval("select 'relay' = any (coordinator.work_due())"):
                    await anyio.sleep(0.005)
        answer = msgspec.json.decode(line, type=_Answer)
        cost_s = _server_s(self.postmaster) - server, _own_s(self.relay) - relay
        self.orders.write(b"\n")
        await self._answer()  # its sessions have ended, so what they changed is counted
        after = await self.database.fetchrow(WROTE)
        return Cost(
            jobs, answer.seconds, cost_s[0], answer.processor_s, cost_s[1],
            float(after["wal"] - before["wal"]), float(after["dead"] - before["dead"]),
        )  # fmt: skip

    async def _answer(self) -> bytes:
        line = await self.answers.readline()
        if not line:
            raise SystemExit("the process of a queue ended unexpectedly")
        return line

    async def tidy(self) -> None:
        """Clean up after a round."""
        await self.database.execute("vacuum")
        await self.database.execute("checkpoint")


@asynccontextmanager
async def side(
    place: Place,
    module: str,
    *arguments: str,
    python: Path | None = None,
    relay: int | None = None,
    dsn: str | None = None,
) -> AsyncIterator[Side]:
    """Start the process of a queue; it gets a database of its own, unless a relay serves it or an address is given."""
    if relay is not None:
        dsn = place.dsn
    elif dsn is None:
        await place.execute(f"create database {module}")
        dsn = place.dsn.replace("/coordinator?", f"/{module}?")
    database = await connect(dsn, call_timeout_s=INSTALL_S)
    await database.execute("set lock_timeout = 0")  # `tidy` waits for autovacuum
    process = await asyncio.create_subprocess_exec(
        python or sys.executable, "-m", f"bench.queues.{module}", dsn, *arguments,
        cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    writer, reader = cast("asyncio.StreamWriter", process.stdin), cast("asyncio.StreamReader", process.stdout)
    try:
        yield Side(writer, reader, database, _parent(database.get_server_pid()), relay)
    finally:
        writer.close()
        await process.wait()
        await retire(database)


async def peers() -> Path:
    """Return the Python of the environment of the other queues, installed at first use."""
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    folder = ROOT / ".venv" / f"bench-queues-{wanted}"
    python = folder / "bin" / "python"
    if not (folder / "installed").is_file():
        print(f"Installing the queues of {REQUIREMENTS.relative_to(ROOT)} into {folder.relative_to(ROOT)}.", flush=True)
        with anyio.fail_after(INSTALL_S):
            await _checked(sys.executable, "-m", "venv", "--clear", folder)
            await _checked(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", REQUIREMENTS)
        (folder / "installed").touch()
    return python


async def _checked(*command: str | Path) -> None:
    # The project's own constraints would choose the versions of somebody else's dependencies.
    environment = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
    process = await asyncio.create_subprocess_exec(*command, env=environment)
    if await process.wait() != 0:
        raise SystemExit(f"{command[0]} failed")


def _stat(pid: int) -> list[str]:
    """Return the fields of a process after its name, the state first."""
    return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _own_s(pid: int | None) -> float:
    return sum(int(field) for field in _stat(pid)[11:13]) / TICKS_A_SECOND if pid is not None else 0.0


def _server_s(postmaster: int) -> float:
    """Return the processor seconds of a server: of its processes that have ended, and of those that run."""
    total = sum(int(field) for field in _stat(postmaster)[11:15]) / TICKS_A_SECOND
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if _parent(int(entry.name)) == postmaster:
                    total += _own_s(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended, and the postmaster counts it
    return total

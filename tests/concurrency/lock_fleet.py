"""Worker processes that take locks, and faults that happen to them."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import anyio
import asyncpg
import msgspec

from coordinator import embedded
from coordinator.db.connection import connect
from coordinator.errors import CoordinatorError
from tests.concurrency import lock_history as history
from tests.concurrency.lock_worker import Journal, Settings, Unknown
from tests.daemon import opened
from tests.faults.plane import IMMEDIATE, restart
from tests.forked import Forked
from tests.waiting import until

__all__ = ["LIGHT", "Fleet", "prepare"]

WORKERS = 3
PAUSE_S = 1.3  # over most TTLs
LIGHT = ("take", "take", "expire", "terminate", "resize")


async def prepare(url: str) -> None:
    """Make the tables that are written under locks."""
    async with opened(url) as connection:
        await connection.execute(
            "create table public.cells (cell text primary key, version integer not null default 0, token bigint);"
            "create table public.accesses (op text, cell text, writes boolean, token bigint, first integer, last integer)"
        )
        cells = sorted({cell for covered in history.COVERS.values() for cell in covered})
        await connection.executemany("insert into public.cells (cell) values ($1)", [(cell,) for cell in cells])


class Fleet:
    """Runs workers on a database; ``admin_url`` leads past any pooler."""

    def __init__(
        self,
        url: str,
        folder: Path,
        *,
        admin_url: str | None = None,
        seed: int = 1,
        cache_size: int = 100,
        poll_s: float = 0.01,
    ) -> None:
        self.url = url
        self.admin_url = admin_url or url
        self.folder = folder
        self.cache_size = cache_size
        self.seed = seed
        self.poll_s = poll_s
        self.choose = random.Random(seed)
        self.workers: dict[str, Forked] = {}
        self.journal = Journal(folder / "nemesis.jsonl", "nemesis")
        self.befallen: Counter[str] = Counter()
        self.started = 0

    @contextmanager
    def running(self, count: int = WORKERS) -> Iterator[None]:
        """Run workers during the block, and kill them at its end."""
        try:
            for _ in range(count):
                self.start()
            yield
        finally:
            for worker in self.workers.values():
                worker.kill()
            for worker in self.workers.values():
                worker.wait()
            self.journal.close()

    def start(self) -> None:
        self.started += 1
        name = f"w{self.started}"
        settings = Settings(
            self.url,
            str(self.folder / f"{name}.jsonl"),
            name,
            self.seed,
            alone=self.started % 2 == 0,
            statement_cache_size=self.cache_size,
            poll_s=self.poll_s,
        )
        self.workers[name] = Forked("tests.concurrency.lock_worker", msgspec.json.encode(settings))

    async def working(self) -> None:
        """Wait until every worker has been granted a lock."""

        async def look() -> bool:
            for name, worker in self.workers.items():
                assert worker.poll() is None, f"{name} has ended"
                path = self.folder / f"{name}.jsonl"
                if not path.exists() or b'"granted"' not in path.read_bytes():
                    return False
            return True

        await until(look, "all workers are at work")

    async def befall(self, faults: Sequence[str], seconds: float) -> None:
        """Inject faults at random for that many seconds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            fault = self.choose.choice(faults)
            try:
                await getattr(self, fault)()
                self.befallen[fault] += 1
            except (
                Unknown,
                OSError,
                CoordinatorError,
                asyncpg.PostgresError,
                asyncpg.InterfaceError,
                asyncpg.InternalClientError,
            ) as error:
                if (getattr(error, "sqlstate", "") or "").startswith("ZC2"):
                    continue  # nobody held it
                await anyio.sleep(0.05)
            await anyio.sleep(self.choose.uniform(0, 0.2))

    async def kill(self) -> None:
        """Kill a worker and start another; sometimes deregister its agents at once."""
        name = self.choose.choice(sorted(self.workers))
        worker = self.workers.pop(name)
        worker.kill()
        worker.wait()
        self.start()
        if self.choose.random() < 0.5:
            async with opened(self.admin_url) as connection:
                for row in await connection.fetch("select id from coordinator.agents where name like $1 || '-%'", name):
                    call = self.journal.call("deregister", row["id"])
                    leave = connection.execute("select coordinator.agent_deregister($1)", row["id"])
                    try:
                        await self.journal.run(call, leave)
                    except asyncpg.PostgresError as error:
                        if error.sqlstate != "ZC202":
                            raise  # else the worker's last call did it: a killed client's backend finishes it

    async def pause(self) -> None:
        worker = self.choose.choice(sorted(self.workers.items()))[1]
        worker.send_signal(signal.SIGSTOP)
        try:
            await anyio.sleep(PAUSE_S)
        finally:
            worker.send_signal(signal.SIGCONT)

    async def terminate(self) -> None:
        """Terminate a backend, whatever it is doing."""
        async with opened(self.admin_url) as connection:
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() "
                "and pid <> pg_backend_pid() and backend_type = 'client backend' order by random() limit 1"
            )

    async def take(self) -> None:
        resource = self.choose.choice(sorted(history.COVERS))
        async with opened(self.admin_url) as connection:
            call = self.journal.call("break", "", resources=(resource,))
            await self.journal.run(
                call, connection.fetchval("select coordinator.lock_break('default', $1, 'a test')", resource)
            )

    async def resize(self) -> None:
        """Change the number of slots, whoever holds or waits for them."""
        async with opened(self.admin_url) as connection:
            slots = self.choose.randint(history.POOL_SLOTS, history.POOL_SLOTS_MAX)
            await connection.execute("select coordinator.lock_resize('default', $1, $2)", history.POOL, slots)

    async def expire(self) -> None:
        async with opened(self.admin_url) as connection:
            await connection.execute("select coordinator.lock_expire()")

    async def restart(self, server: embedded.Server) -> None:
        """Kill the database server, and wait until another one accepts connections."""
        await restart(server, IMMEDIATE)
        self.befallen["restart"] += 1

    def lines(self) -> list[history.Line]:
        """Read all calls and answers so far."""
        return history.read(sorted(self.folder.glob("*.jsonl")))

    async def violations(self) -> list[str]:
        """Check all calls and answers against what is in the database."""
        lines = self.lines()  # before the table: what was acknowledged by now must be there
        connection = await connect(self.admin_url)
        try:  # what a killed client's backend had begun is over when the table can be locked
            async with connection.transaction():
                await connection.execute("lock table public.accesses in exclusive mode")
                rows = await connection.fetch("select op, cell, writes, token, first, last from public.accesses")
        finally:
            await connection.close()
        return history.check(lines, [history.Access(*row) for row in rows])

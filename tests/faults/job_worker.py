"""A process that works on jobs, writes under their fences, and continues after any fault.

As a program: `python -m tests.faults.job_worker <settings as JSON>`; it runs until it is killed, or SIGTERM has let it finish.
"""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar
from uuid import UUID, uuid4

import anyio
import asyncpg
import msgspec

from coordinator.db.connection import connect
from coordinator.errors import DatabaseUnavailable

__all__ = ["TABLE", "Settings"]

TABLE = "create table public.effects (n bigint generated always as identity, job uuid, fence bigint, primary key (job, fence))"
REGISTER = """
select id from coordinator.agent_register('default', $1, p_job_types => '{work}', p_ttl => make_interval(secs => $2))"""
CLAIM = """
select id, fence, stale from coordinator.job_claim('default', $1, $2, p_queues => $3, p_request_id => $4, p_finished => $5, p_fences => $6,
                                                   p_results => $7)"""
GUARD = "select coordinator.assert_job('default', $1, $2)"
EFFECT = "insert into public.effects (job, fence) values ($1, $2) on conflict do nothing"
RECONCILE = "select * from coordinator.job_reconcile('default', $1, $2, p_grace => '3 seconds')"
WAYS = {
    "complete": "select coordinator.job_complete('default', $1, $2, $3, $4)",
    "fail": "select coordinator.job_fail('default', $1, $2, $3, 'a test', p_retry_at => coordinator.now_utc())",
    "snooze": "select coordinator.job_snooze('default', $1, $2, $3, '1 second')",
    "release": "select coordinator.job_release('default', $1, $2, $3)",
}
LOST = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    DatabaseUnavailable,
    TimeoutError,
)

T = TypeVar("T")


class Settings(msgspec.Struct):
    """What a worker does."""

    url: str
    name: str
    seed: int
    queues: list[str]
    ttl_s: float
    batch: int = 5
    steady: bool = False  # completes everything at the first attempt


class Away(Exception):
    """No answer came: the call may have taken effect."""


class Stale(Exception):
    """Somebody else has the job, or it ended."""


class Gone(Exception):
    """The agent ended."""


class Worker:
    """One agent on one connection, which are replaced when they are lost."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.choose = random.Random(f"{settings.seed}/{settings.name}")
        self.connection: asyncpg.Connection | None = None
        self.agent: UUID | None = None
        self.done: list[tuple[UUID, int]] = []
        self.stopping = False

    async def call(self, run: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Run on the connection. Raises: ``Away``, ``Stale``, ``Gone``."""
        try:
            if self.connection is None or self.connection.is_closed():
                self.connection = await connect(self.settings.url, call_timeout_s=10)
            return await run(self.connection)
        except LOST as error:
            if self.connection is not None:
                self.connection.terminate()
            raise Away from error
        except asyncpg.PostgresError as error:
            code = error.sqlstate or ""
            if code in ("ZC320", "ZC209"):
                raise Stale from error
            if code == "ZC202":
                raise Gone from error
            if code.startswith("57") or code in ("55P03", "40P01"):
                raise Away from error
            raise

    async def insist(self, run: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Repeat a call until it is answered."""
        while True:
            try:
                return await self.call(run)
            except Away:
                await anyio.sleep(0.05)

    async def work(self) -> None:
        """Claim and work until the end of the process, or until it shall stop."""
        while not self.stopping:
            try:
                await self.turn()
            except Gone:
                self.agent, self.done = None, []
            except (Away, Stale):
                await anyio.sleep(0.05)
        with suppress(Gone):  # it was paused, or cut off, until it was reaped: all that it held is somebody else's
            for job, fence in self.done:
                await self.end("complete", job, fence)
            if self.agent is not None:
                agent = self.agent
                await self.insist(lambda c: c.execute("select coordinator.agent_deregister($1)", agent))

    async def turn(self) -> None:
        if self.agent is None:
            name, ttl_s = self.settings.name, self.settings.ttl_s
            self.agent = await self.call(lambda c: c.fetchval(REGISTER, name, ttl_s))
        rows = await self.claim()
        for number, row in enumerate(rows):
            if self.stopping:  # it has not begun with these
                for left in rows[number:]:
                    await self.end("release", left["id"], left["fence"])
                break
            await self.do(row["id"], row["fence"])
        if not rows:
            await anyio.sleep(0.02)
        if self.choose.random() < 0.1:
            await self.reconcile()

    async def claim(self) -> list[asyncpg.Record]:
        """Finish and claim in one call. After a lost answer, either repeat the request or forget it."""
        agent, request, done = self.agent, uuid4(), self.done
        values: list[Any] = [
            agent, self.settings.batch, self.settings.queues, request, [job for job, _ in done], [fence for _, fence in done],
            [{"fence": fence} for _, fence in done],
        ]  # fmt: skip

        async def run(connection: asyncpg.Connection) -> list[asyncpg.Record]:
            return list(await connection.fetch(CLAIM, *values))

        try:
            rows = await self.call(run)
        except Away:
            if self.choose.random() < 0.5:
                self.done = []  # what was finished, or will be rescued, is not its business any more
                await self.reconcile()
                return []
            rows = await self.insist(run)
        self.done = []
        return [row for row in rows if not row["stale"]]

    async def reconcile(self) -> None:
        agent, fences = self.agent, [fence for _, fence in self.done]
        await self.insist(lambda c: c.fetch(RECONCILE, agent, fences))

    async def do(self, job: UUID, fence: int) -> None:
        """Write under the fence, and end the attempt somehow."""

        async def effect(connection: asyncpg.Connection) -> None:
            async with connection.transaction():
                await connection.execute(GUARD, job, fence)
                await connection.execute(EFFECT, job, fence)

        try:
            await self.insist(effect)
        except Stale:
            return
        if not self.settings.steady and self.choose.random() < 0.15:
            await self.end(self.choose.choice(["fail", "snooze", "release"]), job, fence)
        elif self.choose.random() < 0.3:
            await self.end("complete", job, fence)
        else:
            self.done.append((job, fence))

    async def end(self, how: str, job: UUID, fence: int) -> None:
        agent, more = self.agent, [{"fence": fence}] if how == "complete" else []
        with suppress(Stale):  # the call before, whose answer was lost, ended it, or somebody else has it
            await self.insist(lambda c: c.execute(WAYS[how], job, agent, fence, *more))

    async def live(self) -> None:
        """Send heartbeats on a connection of their own."""
        connection = None
        while True:
            try:
                if connection is None or connection.is_closed():
                    connection = await connect(self.settings.url, call_timeout_s=10)
                if self.agent is not None:
                    await connection.execute("select coordinator.agent_heartbeat($1)", self.agent)
            except (asyncpg.PostgresError, *LOST):
                pass
            await anyio.sleep(self.settings.ttl_s / 8)


async def main(settings: Settings) -> None:
    worker = Worker(settings)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.live)
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:

            async def stop() -> None:
                async for _ in signals:
                    worker.stopping = True

            tasks.start_soon(stop)
            await worker.work()
            tasks.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main, msgspec.json.decode(sys.argv[1], type=Settings))

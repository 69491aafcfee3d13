"""A process whose clients take locks at random and work under them; it writes each call and answer to a file.

As a program: `python -m tests.concurrency.lock_worker <settings as JSON>`; it runs until it is terminated or killed.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar
from uuid import UUID, uuid4

import anyio
import asyncpg
import msgspec

from coordinator.db.connection import connect
from coordinator.errors import CoordinatorError, DatabaseUnavailable
from tests.concurrency.lock_history import COVERS, POOL, POOL_SLOTS, Answer, Call, cells_of

ACQUIRE = """
select ticket, fencing_token as token, slot, granted from coordinator.lock_acquire('default', $1, $2, p_shared => $3, p_slots => $4,
  p_ttl => make_interval(secs => $5), p_wait => make_interval(secs => $6), p_request_id => $7)
"""
POLL = "select ticket, fencing_token as token, slot, granted from coordinator.lock_poll('default', $1, $2)"
RENEW = "select fencing_token as token from coordinator.lock_renew('default', $1, $2, $3)"
RELEASE = "select coordinator.lock_release('default', $1, $2, $3)"
CANCEL = "select coordinator.lock_cancel('default', $1, $2)"
REGISTER = "select id from coordinator.agent_register('default', $1, p_ttl => '1 day')"
FENCE = "select coordinator.assert_fence('default', $1, $2)"
WRITE = "update public.cells set version = version + 1, token = $2 where cell = $1 returning version"
LOOK = "select version from public.cells where cell = $1"
KEEP = "insert into public.accesses (op, cell, writes, token, first, last) values ($1, $2, $3, $4, $5, $6)"
POLL_S = 0.01

T = TypeVar("T")
Rows = list[asyncpg.Record]


class Settings(msgspec.Struct):
    """The settings of a worker."""

    url: str
    path: str
    name: str
    seed: int
    clients: int = 3
    statement_cache_size: int = 100


class Unknown(Exception):
    """No answer came."""


class Journal:
    """Writes a history line by line, so that a killed process leaves what it wrote."""

    def __init__(self, path: Path, name: str) -> None:
        self._file = path.open("ab", buffering=0)
        self._name = name
        self._count = 0

    async def run(self, call: Call, sent: Awaitable[T]) -> T:
        """Write the call, wait for its answer, and write that. Raises: ``Unknown``; errors of the call."""
        self._file.write(msgspec.json.encode(call) + b"\n")
        try:
            answer = await sent
        except asyncpg.PostgresError as error:
            if (error.sqlstate or "")[:2] in ("57", "08", ""):
                raise Unknown from error
            self.answer(Answer(call.op, time.monotonic(), error.sqlstate or ""))
            raise
        except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError) as error:
            raise Unknown from error
        at = time.monotonic()
        if call.verb not in ("acquire", "poll"):
            self.answer(Answer(call.op, at, "done"))
        else:
            row = answer[0]  # type: ignore[index]
            outcome = "granted" if row["granted"] else "waiting"
            self.answer(Answer(call.op, at, outcome, row["ticket"], row["token"], row["slot"]))
        return answer

    def answer(self, answer: Answer) -> None:
        self._file.write(msgspec.json.encode(answer) + b"\n")

    def close(self) -> None:
        self._file.close()

    def call(self, verb: str, agent: object, **more: object) -> Call:
        """Return a call that begins now."""
        self._count += 1
        return Call(f"{self._name}/{self._count}", verb, time.monotonic(), str(agent), **more)  # type: ignore[arg-type]


class Client:
    """One connection, one agent, at most one grant at a time."""

    def __init__(self, settings: Settings, journal: Journal, number: int) -> None:
        self.settings = settings
        self.journal = journal
        self.name = f"{settings.name}-{number}"
        self.choose = random.Random(f"{settings.seed}/{self.name}")
        self.connection: asyncpg.Connection | None = None
        self.agent: UUID | None = None
        self.before: UUID | None = None

    async def run_forever(self) -> None:
        while True:
            try:
                if self.connection is None or self.connection.is_closed():
                    self.connection = await connect(
                        self.settings.url, statement_cache_size=self.settings.statement_cache_size, call_timeout_s=10
                    )
                if self.agent is None:
                    await self.leave(self.connection)
                    self.agent = await self.connection.fetchval(REGISTER, self.name)
                self.before = self.agent
                await self.once(self.connection, self.agent)
            except (
                Unknown,
                OSError,
                asyncpg.PostgresError,
                asyncpg.InterfaceError,
                asyncpg.InternalClientError,
                CoordinatorError,
                TimeoutError,
            ) as error:
                if getattr(error, "sqlstate", None) in ("ZC310", "ZC401"):
                    continue  # refused: as before
                # A client that does not know what it holds starts again, as a new agent.
                self.agent = None
                if isinstance(
                    error, (Unknown, OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, DatabaseUnavailable)
                ):
                    if self.connection is not None:
                        self.connection.terminate()
                    await anyio.sleep(0.05)

    async def leave(self, connection: asyncpg.Connection) -> None:
        """Mostly deregister the previous agent; otherwise what it holds lasts until its TTL."""
        before, self.before = self.before, None
        if before is not None and self.choose.random() < 0.8:
            call = self.journal.call("deregister", before)
            await self.journal.run(call, connection.execute("select coordinator.agent_deregister($1)", before))

    async def once(self, connection: asyncpg.Connection, agent: UUID) -> None:
        """Take locks, work under them, and release them; now and then do one of these badly."""
        choose = self.choose
        resources = tuple(sorted(choose.sample(sorted(COVERS), choose.choice((1, 1, 1, 2)))))
        if POOL in resources:
            resources = (POOL,)
        slots = POOL_SLOTS if POOL in resources else None
        shared = slots is None and choose.random() < 0.35
        ttl = choose.choice((1.0, 1.0, 2.0))
        wait = choose.choice((None, 1.0, 2.0))
        request = uuid4()

        async def acquire(connection: asyncpg.Connection) -> Rows:
            call = self.journal.call(
                "acquire", agent, resources=resources, shared=shared, ttl=ttl, request=str(request)
            )
            sent = connection.fetch(ACQUIRE, list(resources), agent, shared, slots, ttl, wait, request)
            return await self.journal.run(call, sent)

        try:
            rows = await acquire(connection)
        except Unknown:
            if choose.random() < 0.5:
                raise
            self.agent = None  # the first request may still be executed at any time, so this agent is used once
            connection.terminate()
            connection = self.connection = await connect(
                self.settings.url, statement_cache_size=self.settings.statement_cache_size, call_timeout_s=10
            )
            rows = await acquire(connection)
        while not rows[0]["granted"]:
            ticket = rows[0]["ticket"]
            if choose.random() < 0.002:
                await self.journal.run(
                    self.journal.call("cancel", agent, ticket=ticket), connection.fetch(CANCEL, ticket, agent)
                )
                self.agent = None  # it may have had the lock already
                return
            await anyio.sleep(POLL_S * choose.uniform(0.5, 2))
            poll = self.journal.call("poll", agent, ticket=ticket)
            rows = await self.journal.run(poll, connection.fetch(POLL, ticket, agent))
        token, slot = rows[0]["token"], rows[0]["slot"]
        for _ in range(choose.choice((1, 1, 2, 3))):
            await self.access(connection, agent, token, choose.choice(resources), slot, writes=not shared)
            if choose.random() < 0.2:
                renew = self.journal.call("renew", agent, resources=resources, token=token, ttl=ttl)
                await self.journal.run(renew, connection.fetch(RENEW, list(resources), agent, [token]))
        if choose.random() < 0.02:
            self.agent = None  # forgets what it holds
            return
        release = self.journal.call("release", agent, resources=resources, token=token)
        await self.journal.run(release, connection.fetch(RELEASE, list(resources), agent, [token]))

    async def access(
        self, connection: asyncpg.Connection, agent: UUID, token: int, resource: str, slot: int | None, *, writes: bool
    ) -> None:
        """Write or read a cell under the fence, in a transaction that may stall in the middle."""
        cell = self.choose.choice(cells_of([resource], slot))
        call = self.journal.call("write" if writes else "read", agent, resources=(resource,), token=token)
        stall_s = self.choose.choice((0, 0, 0.005, 0.03)) if self.choose.random() > 0.01 else 1.2

        async def transaction() -> None:
            async with connection.transaction():
                await connection.fetchval(FENCE, resource, token)
                first = await connection.fetchval(LOOK, cell)
                await anyio.sleep(stall_s)
                last = (
                    await connection.fetchval(WRITE, cell, token) if writes else await connection.fetchval(LOOK, cell)
                )
                await connection.execute(KEEP, call.op, cell, writes, token, first, last)

        await self.journal.run(call, transaction())


async def main(settings: Settings) -> None:
    journal = Journal(Path(settings.path), settings.name)
    async with anyio.create_task_group() as tasks:
        for number in range(settings.clients):
            tasks.start_soon(Client(settings, journal, number).run_forever)


if __name__ == "__main__":
    anyio.run(main, msgspec.json.decode(sys.argv[1], type=Settings))

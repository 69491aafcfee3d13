"""A process whose clients take locks at random and work under them; it writes each call and answer to a file.

As a program: `python -m tests.concurrency.lock_worker <settings as JSON>`; it runs until it is terminated or killed.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import NamedTuple, TypeVar
from uuid import UUID, uuid4

import anyio
import asyncpg
import msgspec

from coordinator.db.connection import connect
from coordinator.errors import CoordinatorError, DatabaseUnavailable
from tests.concurrency.lock_history import COVERS, POOL, POOL_SLOTS, POOL_SLOTS_MAX, Answer, Call, cells_of

ACQUIRE = """
select ticket, fencing_token as token, slot, granted from coordinator.lock_acquire('default', $1, $2, p_shared => $3, p_slots => $4,
  p_ttl => make_interval(secs => $5), p_wait => make_interval(secs => $6), p_request_id => $7, p_owner => $8)
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

T = TypeVar("T")
Rows = list[asyncpg.Record]


class Settings(msgspec.Struct):
    """The settings of a worker."""

    url: str
    path: str
    name: str
    seed: int
    clients: int = 3
    alone: bool = False  # each client is an agent; otherwise all are one, as its owners
    statement_cache_size: int = 100
    poll_s: float = 0.01


class Wish(NamedTuple):
    """What a client takes."""

    agent: UUID
    resources: tuple[str, ...]
    shared: bool
    slots: int | None
    ttl: float


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


class Crew:
    """One agent, which several clients may be at once, each as an owner of its own."""

    def __init__(self, name: str, *, alone: bool) -> None:
        self.name = name
        self.alone = alone
        self.agent: UUID | None = None
        self.before: UUID | None = None
        self._lock = anyio.Lock()

    async def join(self, client: Client, connection: asyncpg.Connection) -> UUID:
        """Return the agent; register one if there is none."""
        async with self._lock:
            if self.agent is None:
                await self._leave(client, connection)
                self.agent = self.before = await connection.fetchval(REGISTER, self.name)
            return self.agent

    def lose(self, agent: UUID | None) -> None:
        """Be another agent from now on."""
        if self.agent == agent:
            self.agent = None

    async def _leave(self, client: Client, connection: asyncpg.Connection) -> None:
        """Mostly deregister the previous agent; otherwise what it holds lasts until its TTL."""
        before, self.before = self.before, None
        if before is not None and client.choose.random() < 0.8:
            call = client.journal.call("deregister", before)
            await client.journal.run(call, connection.execute("select coordinator.agent_deregister($1)", before))


class Client:
    """One connection, one owner, at most one grant at a time, and now and then one of a part of the owner."""

    def __init__(self, settings: Settings, journal: Journal, number: int, crew: Crew) -> None:
        self.settings = settings
        self.journal = journal
        self.name = f"{settings.name}-{number}"
        self.choose = random.Random(f"{settings.seed}/{self.name}")
        self.connection: asyncpg.Connection | None = None
        self.crew = crew
        self.agent: UUID | None = None
        self.owner = ""
        self.lives = 0
        self.holding = False  # a refusal in between leaves it with the lock, and it starts again
        self.begin()

    def begin(self) -> None:
        """Start again as somebody else: whoever does not know what it holds is another owner, or another agent, from now on."""
        self.lives += 1
        self.holding = False
        if self.crew.alone or self.choose.random() < 0.2:
            self.crew.lose(self.agent)
        if not self.crew.alone:
            self.owner = f"{self.name}.{self.lives}"

    async def run_forever(self) -> None:
        while True:
            try:
                if self.connection is None or self.connection.is_closed():
                    self.connection = await connect(
                        self.settings.url, statement_cache_size=self.settings.statement_cache_size, call_timeout_s=10
                    )
                self.agent = await self.crew.join(self, self.connection)
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
                if getattr(error, "sqlstate", None) in ("ZC310", "ZC314", "ZC401") and not self.holding:
                    continue  # refused: as before
                if getattr(error, "sqlstate", None) == "ZC202":
                    self.crew.lose(self.agent)
                self.begin()
                if isinstance(
                    error, (Unknown, OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, DatabaseUnavailable)
                ):
                    if self.connection is not None:
                        self.connection.terminate()
                    await anyio.sleep(0.05)

    async def once(self, connection: asyncpg.Connection, agent: UUID) -> None:
        """Take locks, work under them, and release them; now and then do one of these badly."""
        choose = self.choose
        resources = tuple(sorted(choose.sample(sorted(COVERS), choose.choice((1, 1, 1, 2)))))
        if POOL in resources:
            resources = (POOL,)
        slots = choose.choice((POOL_SLOTS, POOL_SLOTS_MAX)) if POOL in resources else None
        shared = slots is None and choose.random() < 0.35
        wish = Wish(agent, resources, shared, slots, choose.choice((1.0, 1.0, 2.0)))
        owner, request, wait = self.owner, uuid4(), choose.choice((None, 1.0, 2.0))
        try:
            rows = await self.acquire(connection, wish, owner, request, wait)
        except Unknown:
            if choose.random() < 0.5:
                raise
            self.begin()  # the first request may still be executed at any time, so this owner is used once
            connection.terminate()
            connection = self.connection = await connect(
                self.settings.url, statement_cache_size=self.settings.statement_cache_size, call_timeout_s=10
            )
            rows = await self.acquire(connection, wish, owner, request, wait)
        while not rows[0]["granted"]:
            ticket = rows[0]["ticket"]
            if choose.random() < 0.002:
                await self.journal.run(
                    self.journal.call("cancel", agent, ticket=ticket), connection.fetch(CANCEL, ticket, agent)
                )
                self.begin()  # it may have had the lock already
                return
            await anyio.sleep(self.settings.poll_s * choose.uniform(0.5, 2))
            poll = self.journal.call("poll", agent, ticket=ticket)
            rows = await self.journal.run(poll, connection.fetch(POLL, ticket, agent))
        self.holding = True
        await self.work(connection, wish, owner, rows[0]["token"], rows[0]["slot"])

    async def work(self, connection: asyncpg.Connection, wish: Wish, owner: str, token: int, slot: int | None) -> None:
        """Work under locks, now and then again or as a part, and release them."""
        choose = self.choose
        for _ in range(choose.choice((1, 1, 2, 3))):
            await self.access(connection, wish, token, slot)
            if choose.random() < 0.2:
                renew = self.journal.call("renew", wish.agent, resources=wish.resources, token=token, ttl=wish.ttl)
                await self.journal.run(renew, connection.fetch(RENEW, [*wish.resources], wish.agent, [token]))
            if owner and wish.slots is None and choose.random() < 0.2:
                await self.work_again(connection, wish, owner)
        if choose.random() < 0.02:
            self.begin()  # forgets what it holds
            return
        if wish.slots is None and choose.random() < 0.2:  # the last to write: its token is greater
            await self.work_again(connection, wish, f"{owner or 'it'}/part")
        await self.release(connection, wish, token)
        self.holding = False

    async def work_again(self, connection: asyncpg.Connection, wish: Wish, owner: str) -> None:
        """Take what is held once more, as the same owner or as a part of it."""
        (row, *_) = await self.acquire(connection, wish, owner, uuid4(), None)
        await self.access(connection, wish, row["token"], None)
        await self.release(connection, wish, row["token"])

    async def acquire(
        self, connection: asyncpg.Connection, wish: Wish, owner: str, request: UUID, wait: float | None
    ) -> Rows:
        agent, resources, shared, slots, ttl = wish
        call = self.journal.call(
            "acquire", agent, resources=resources, shared=shared, ttl=ttl, request=str(request), owner=owner
        )
        sent = connection.fetch(ACQUIRE, [*resources], agent, shared, slots, ttl, wait, request, owner)
        return await self.journal.run(call, sent)

    async def release(self, connection: asyncpg.Connection, wish: Wish, token: int) -> None:
        call = self.journal.call("release", wish.agent, resources=wish.resources, token=token)
        await self.journal.run(call, connection.fetch(RELEASE, [*wish.resources], wish.agent, [token]))

    async def access(self, connection: asyncpg.Connection, wish: Wish, token: int, slot: int | None) -> None:
        """Write or read a cell under the fence, in a transaction that may stall in the middle."""
        resource, writes = self.choose.choice(wish.resources), not wish.shared
        cell = self.choose.choice(cells_of([resource], slot))
        call = self.journal.call("write" if writes else "read", wish.agent, resources=(resource,), token=token)
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
    together = Crew(f"{settings.name}-crew", alone=False)
    async with anyio.create_task_group() as tasks:
        for number in range(settings.clients):
            crew = Crew(f"{settings.name}-{number}", alone=True) if settings.alone else together
            tasks.start_soon(Client(settings, journal, number, crew).run_forever)


if __name__ == "__main__":
    anyio.run(main, msgspec.json.decode(sys.argv[1], type=Settings))

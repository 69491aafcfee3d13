from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar, cast

import pytest

from coordinator.client.lease import now_s
from coordinator.db.database import Database
from coordinator.db.session import ServerSession
from coordinator.errors import Conflict, DatabaseUnavailable
from coordinator.model.agent import Agent
from coordinator.model.catalogue import LIMITS
from coordinator.model.operation import Operation
from coordinator.operations import agents, locks
from coordinator.sidecar.lock_book import LockBook

R = TypeVar("R")
TTL_S = 600.0
PER_CALL = LIMITS["lock_resources"]


class Beside:
    """An agent whose locks a book renews; ``renewed`` counts the locks of each renewal that is asked for.

    ``before`` runs before a renewal reaches the database.
    """

    def __init__(self, database: Database, agent: Agent) -> None:
        self.agent = agent.id
        self.renewed: list[int] = []
        self.failure: Exception | None = None
        self.before: Callable[[], Awaitable[None]] | None = None
        self._database = database
        self.book = LockBook(cast("ServerSession", self), lambda: True)
        self.book.agent, self.book.name, self.book.project = agent.id, agent.name, agent.project

    async def run(self, operation: Operation[R]) -> R:
        """Run what the book asks for."""
        assert isinstance(operation, locks.Renew)
        self.renewed.append(len(operation.resources))
        if self.before is not None:
            await self.before()
        if self.failure is not None:
            raise self.failure
        return await self._database.run(operation)

    async def does(self, operation: Operation[R]) -> R:
        """Run what the agent asks for."""
        asked_at = now_s()
        result = await self._database.run(operation)
        self.book.note(operation, result, asked_at)
        return result

    async def acquire(self, *resources: str, ttl_s: float = TTL_S) -> int:
        token = 0
        for first in range(0, len(resources), PER_CALL):
            page = list(resources[first : first + PER_CALL])
            grants = await self.does(
                locks.Acquire(project="default", resources=page, agent=self.agent, ttl=timedelta(seconds=ttl_s))
            )
            token = grants[0].fencing_token or 0
        return token

    async def waited(self, db: Database, resource: str) -> locks.Poll:
        """Wait for a lock until it can be granted; return what asks for it."""
        other = await db.run(agents.Register(project="default", name="other"))
        (held,) = await db.run(locks.Acquire(project="default", resources=[resource], agent=other.id))
        ttl, wait = timedelta(seconds=TTL_S), timedelta(seconds=60)
        (waiting,) = await self.does(
            locks.Acquire(project="default", resources=[resource], agent=self.agent, ttl=ttl, wait=wait)
        )
        assert not waiting.granted
        await db.run(
            locks.Release(project="default", resources=[resource], agent=other.id, tokens=[held.fencing_token or 0])
        )
        return locks.Poll(project="default", ticket=waiting.ticket or 0, agent=self.agent)

    def states(self) -> dict[str, str]:
        return {report.resource: report.state for report in self.book.report()}

    def remaining_s(self) -> float:
        (report,) = self.book.report()
        return report.remaining_s


@pytest.fixture
async def beside(db: Database) -> Beside:
    return Beside(db, await db.run(agents.Register(project="default", name="coder")))


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Stop this machine's clock, and let time pass on it, and not on the database's."""
    stopped_s, moved_s = now_s(), 0.0

    def move(seconds: float) -> None:
        nonlocal moved_s
        moved_s += seconds

    monkeypatch.setattr(time, "clock_gettime", lambda _: stopped_s + moved_s)
    return move


@pytest.mark.parametrize(("held", "calls"), [(100, 1), (101, 2), (250, 3)])
async def test_locks_are_renewed_in_as_few_calls_as_the_server_takes(
    beside: Beside, passes: Callable[[float], None], held: int, calls: int
) -> None:
    await beside.acquire(*(f"f{number}" for number in range(held)))
    await beside.book.renew()
    assert beside.renewed == []
    for _ in range(3):
        passes(TTL_S / 3)
        await beside.book.renew()
        assert (len(beside.renewed), sum(beside.renewed)) == (calls, held)
        beside.renewed.clear()
        await beside.book.renew()
        assert beside.renewed == []
    assert set(beside.states().values()) == {"HELD"}


async def test_locks_that_were_acquired_one_by_one_are_soon_renewed_together(
    beside: Beside, passes: Callable[[float], None]
) -> None:
    for number in range(10):
        await beside.acquire(f"f{number}")
        passes(TTL_S / 3 / 10)
    for _ in range(20):
        passes(TTL_S / 3 / 10)
        await beside.book.renew()
    beside.renewed.clear()
    for _ in range(10):
        passes(TTL_S / 3 / 10)
        await beside.book.renew()
    assert set(beside.renewed) == {10}


async def test_one_lost_lock_among_many_is_found_by_halves_and_the_others_are_renewed(
    beside: Beside, db: Database, passes: Callable[[float], None]
) -> None:
    await beside.acquire(*(f"f{number:02}" for number in range(PER_CALL)))
    await db.run(locks.Break(project="default", resource="f42", reason="urgent"))
    passes(TTL_S / 3)
    await beside.book.renew()
    states = beside.states()
    assert states.pop("f42") == "LOST"
    assert set(states.values()) == {"HELD"}
    assert len(beside.renewed) < 20
    beside.renewed.clear()
    await beside.book.renew()
    assert beside.renewed == []


async def test_an_error_that_does_not_concern_the_lock_does_not_lose_it(
    beside: Beside, passes: Callable[[float], None]
) -> None:
    await beside.acquire("a", "b")
    for failure in (DatabaseUnavailable("away"), Conflict("deadlock detected", code="40P01"), TimeoutError()):
        beside.failure = failure
        passes(TTL_S / 3 if not beside.renewed else 1)
        await beside.book.renew()
        assert beside.states() == {"a": "UNKNOWN", "b": "UNKNOWN"}
    assert beside.renewed == [2, 2, 2]
    beside.failure = None
    passes(1)
    await beside.book.renew()
    assert beside.states() == {"a": "HELD", "b": "HELD"}


async def test_what_is_released_is_forgotten_however_it_was_spelled(beside: Beside) -> None:
    token = await beside.acquire("a", "b", "c")
    for resources in (["a"], ["./b"]):
        await beside.does(locks.Release(project="default", resources=resources, agent=beside.agent, tokens=[token]))
        await beside.book.renew()
    assert beside.states() == {"c": "HELD"}


async def test_a_response_that_extends_nothing_is_not_trusted_for_longer(
    beside: Beside, db: Database, passes: Callable[[float], None]
) -> None:
    poll = await beside.waited(db, "a")
    assert (await beside.does(poll))[0].granted
    assert beside.remaining_s() == TTL_S - 5
    passes(100)
    assert (await beside.does(poll))[0].granted  # the first response may have been lost: this is the same one
    assert beside.remaining_s() == TTL_S - 105
    await beside.acquire("a", ttl_s=60)  # held for longer already, and renewed for less from now on
    assert beside.remaining_s() == TTL_S - 105
    passes(20)
    await beside.book.renew()
    assert beside.remaining_s() == 55


@pytest.mark.parametrize("again", [False, True])
async def test_a_lock_that_is_released_while_its_renewal_is_on_the_way_is_not_lost(
    beside: Beside, passes: Callable[[float], None], *, again: bool
) -> None:
    token = await beside.acquire("a")

    async def release() -> None:
        await beside.does(locks.Release(project="default", resources=["a"], agent=beside.agent, tokens=[token]))
        if again:
            await beside.acquire("a")

    beside.before = release
    passes(TTL_S / 3)
    await beside.book.renew()
    assert beside.renewed == [1]
    assert beside.states() == ({"a": "HELD"} if again else {})


async def test_a_renewal_by_the_agent_itself_counts(beside: Beside, passes: Callable[[float], None]) -> None:
    token = await beside.acquire("a", ttl_s=60)
    passes(10)
    await beside.does(
        locks.Renew(
            project="default", resources=["a"], agent=beside.agent, tokens=[token], ttl=timedelta(seconds=TTL_S)
        )
    )
    assert beside.remaining_s() == TTL_S - 5


async def test_a_lock_that_the_agent_acquires_by_its_name_is_in_the_book(beside: Beside) -> None:
    name = beside.book.name
    ttl = timedelta(seconds=TTL_S)
    (grant,) = await beside.does(locks.Acquire(project="default", resources=["name:a"], agent=name, ttl=ttl))
    assert [report.resource for report in beside.book.report()] == ["name:a"]
    release = locks.Release(project="default", resources=["name:a"], agent=name, tokens=[grant.fencing_token or 0])
    await beside.does(release)
    assert beside.book.report() == []

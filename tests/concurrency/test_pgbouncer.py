"""Everything that a caller needs works through PgBouncer in transaction mode; the daemon has a direct connection besides."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path

import anyio
import pytest

from coordinator.config import Config
from coordinator.db import probes
from coordinator.db.database import Database
from coordinator.db.single import connected
from coordinator.doctor import checks, examination
from coordinator.doctor.examination import examine
from coordinator.model.doctor import Finding
from coordinator.model.event import Event
from coordinator.model.json import decoded
from coordinator.operations import agents, directives, events, locks, signals, webhooks
from tests.concurrency.lock_fleet import Fleet, prepare
from tests.concurrency.lock_history import grants
from tests.concurrency.pooler import CACHE_SIZE, POOL, pooled
from tests.daemon import Daemon, note
from tests.waiting import DEADLINE_S, until
from tests.webhooks.receiver import Receiver

CLIENTS = 12
TURNS = 9
GRANTS = 20
CONFIG = Config(min_connections=1, max_connections=CLIENTS, statement_cache_size=CACHE_SIZE)


@pytest.fixture
async def pooler_url(database_url: str, tmp_path: Path) -> AsyncIterator[str]:
    async with pooled(database_url, tmp_path / "pooler") as url:
        yield url


async def test_operations_work_through_a_pooler_when_connections_change_hands(
    pooler_url: str, database_url: str
) -> None:
    async with Database.open(pooler_url, CONFIG, direct_dsn=database_url) as database:

        async def work(n: int) -> None:
            agent = await database.run(agents.Register(project="default", name=f"agent{n}"))
            for turn in range(10):
                await database.run(
                    signals.Set(project="default", key=f"task/{n}", value={"turn": turn}, agent=agent.id)
                )
                signal = await database.run(signals.Get(project="default", key=f"task/{n}"))
                assert signal.value == {"turn": turn}
                (grant,) = await database.run(
                    locks.Acquire(
                        project="default", resources=[f"src/{n}.py"], agent=agent.id, ttl=timedelta(seconds=60)
                    )
                )
                assert grant.fencing_token
                await database.run(
                    locks.Release(
                        project="default", resources=[f"src/{n}.py"], agent=agent.id, tokens=[grant.fencing_token]
                    )
                )
                await database.run(agents.Heartbeat(agent=agent.id))
            sent = await database.run(directives.Send(project="default", body="stop", to_agent=f"agent{n}"))
            assert sent.id
            await database.run(agents.Deregister(agent=agent.id))

        async with anyio.create_task_group() as tasks:
            for n in range(CLIENTS):
                tasks.start_soon(work, n)


async def test_webhooks_are_managed_and_delivered_behind_a_pooler(pooler_url: str, database_url: str) -> None:
    settings = {"direct_url": database_url, "statement_cache_size": CACHE_SIZE, "webhook_networks": "127.0.0.0/8"}
    async with Receiver() as receiver, Database.open(pooler_url, CONFIG, direct_dsn=database_url) as database:
        with Daemon(pooler_url, **settings) as daemon:
            await (await daemon.ready()).lead()
            added = await database.run(webhooks.Add(project="default", url=receiver.url, topics=["custom.*"]))
            await database.run(events.Emit(project="default", type="custom.x", key="a"))
            await receiver.got(1)
            sent = await database.run(webhooks.Test(project="default", webhook=added.webhook))

            async def delivered() -> bool:
                found = await database.run(webhooks.Delivery(project="default", delivery=sent.delivery))
                return found.status == "delivered"

            await until(delivered, "the test is delivered")
            assert len(receiver.received) == 2


async def test_a_daemon_works_behind_a_pooler_with_a_direct_connection(pooler_url: str, database_url: str) -> None:
    with Daemon(pooler_url, direct_url=database_url, statement_cache_size=CACHE_SIZE) as daemon:
        await (await daemon.ready()).lead()
        async with Database.open(pooler_url, CONFIG, direct_dsn=database_url) as database:
            await database.run(signals.Set(project="default", key="a", value=1))

            async def logged() -> bool:
                found = await database.run(events.Since(project="default"))
                return any(event.key == "a" for event in found)

            await until(logged, "the relay has numbered the event")


async def test_the_documented_connect_query_bounds_what_a_dead_daemon_leaves_behind(pooler_url: str) -> None:
    async with Database.open(pooler_url, CONFIG) as database, database._pool.taken(DEADLINE_S) as connection:
        names = ["statement_timeout", "client_connection_check_interval"]
        assert [await connection.fetchval(f"show {name}") for name in names] == ["10s", "2s"]


async def test_the_log_is_complete_and_in_order_when_writers_share_connections(
    pooler_url: str, database_url: str
) -> None:
    """Two events a transaction; every third transaction is rolled back. Each writer reads the log through the pooler, too."""
    with Daemon(pooler_url, direct_url=database_url, statement_cache_size=CACHE_SIZE) as daemon:
        await (await daemon.ready()).lead()
        async with Database.open(pooler_url, CONFIG, direct_dsn=database_url) as database:

            async def write(writer: int) -> None:
                for turn in range(TURNS):
                    with suppress(ZeroDivisionError):
                        async with database.transaction() as transaction:
                            for half in "ab":
                                emit = events.Emit(
                                    project="default",
                                    type="custom.pooled",
                                    key=f"{writer}",
                                    data={"n": turn, "half": half},
                                )
                                await transaction.run(emit)
                            if turn % 3 == 2:
                                raise ZeroDivisionError

            async with anyio.create_task_group() as tasks:
                for writer in range(CLIENTS):
                    tasks.start_soon(write, writer)
            await database.run(events.Emit(project="default", type="custom.pooled", key="last"))
            seen: list[Event] = []

            async def all_seen() -> bool:
                after = seen[-1].cursor if seen else None
                seen.extend(await database.run(events.Since(after=after, topics=["custom.pooled"], limit=7)))
                return bool(seen) and seen[-1].key == "last"

            await until(all_seen, "the last event is read")
    assert [event.seq for event in seen] == sorted({event.seq for event in seen})
    for writer in range(CLIENTS):
        halves = [
            (data["n"], data["half"]) for event in seen if event.key == f"{writer}" and (data := decoded(event.data))
        ]
        assert halves == [(turn, half) for turn in range(TURNS) if turn % 3 != 2 for half in "ab"]
    for one, other in pairwise(seen[:-1]):
        assert one.more == (one.transaction == other.transaction)


async def test_histories_through_a_pooler_have_no_fault(pooler_url: str, database_url: str, tmp_path: Path) -> None:
    await prepare(database_url)
    folder = tmp_path / "history"
    folder.mkdir()
    fleet = Fleet(pooler_url, folder, admin_url=database_url, cache_size=CACHE_SIZE, seed=5)
    with fleet.running():
        await fleet.working()
        await fleet.befall(("take", "expire", "terminate"), 1.5)
        await fleet.kill()
        with anyio.fail_after(DEADLINE_S):
            while len(grants(fleet.lines())) <= GRANTS:
                await fleet.befall(("take", "expire"), 1)
    assert not await fleet.violations()
    granted = grants(fleet.lines())
    note("histories through a pooler: grants", [len(granted)])
    assert len(granted) > GRANTS


async def diagnosed(url: str, direct_url: str | None, cache_size: int = CACHE_SIZE) -> dict[str, Finding]:
    config = Config(database_url=url, direct_url=direct_url, statement_cache_size=cache_size)
    return {found.check: found async for found in examine(url, direct_url or url, config)}


@pytest.mark.parametrize("mode", ["transaction", "session", "statement"])
async def test_the_doctor_knows_the_mode_of_a_pooler_and_what_it_needs(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    async with pooled(database_url, tmp_path / "pooler", mode) as pooler_url:
        found = await diagnosed(pooler_url, database_url)
        assert [found[check].severity for check in ("connection", "direct", "listening", "grants")] == ["ok"] * 4
        assert f"a pooler in {mode} mode" in found["pooler"].message
        assert found["pooler"].severity == ("critical" if mode == "statement" else "ok")
        assert ("pool_mode = transaction" in (found["pooler"].remedy or "")) == (mode == "statement")
        monkeypatch.setattr(checks, "HEARD_S", 0.1)  # a listener behind the pooler gets no notification
        monkeypatch.setattr(examination, "CHECKS_OF_DATABASE", {})
        cached = await diagnosed(pooler_url, pooler_url, cache_size=100)
        assert cached["pooler"].severity == {"transaction": "warning", "session": "ok", "statement": "critical"}[mode]
        for found in (cached, await diagnosed(pooler_url, None)):
            assert found["direct"].severity == ("warning" if mode == "session" else "critical")
            assert "COORDINATOR_DIRECT_URL" in (found["direct"].remedy or "")


async def test_a_pooler_without_a_free_connection_has_an_unknown_mode(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "ANOTHER_S", 0.2)
    async with pooled(database_url, tmp_path / "pooler", "session") as url, AsyncExitStack() as stack:
        another = partial(connected, url, CONFIG)
        call, *_ = [await stack.enter_async_context(another()) for _ in range(POOL)]
        finding = await checks.pooler(checks.Site(CONFIG, call, another, call, another))
    assert (finding.severity, "no free connection" in finding.message) == ("unknown", True)

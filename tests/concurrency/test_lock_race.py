"""Locks over real connections: who is quicker, who waits for whom, and who must not."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import anyio
import asyncpg
import pytest

from coordinator.db.connection import connect
from tests.waiting import DEADLINE_S, until, until_blocked

ACQUIRE = "select resource, fencing_token, ticket, granted from coordinator.lock_acquire('default', $1, $2, p_shared => $3, p_wait => $4)"
RELEASE = "select coordinator.lock_release('default', $1, $2, $3)"
WAIT = timedelta(seconds=60)
TURN = timedelta(seconds=1)


class Client:
    def __init__(self, connection: asyncpg.Connection, agent: UUID) -> None:
        self.connection = connection
        self.agent = agent

    async def acquire(
        self, *resources: str, shared: bool = False, wait: timedelta | None = None
    ) -> list[asyncpg.Record]:
        return await self.connection.fetch(ACQUIRE, list(resources), self.agent, shared, wait)

    async def try_acquire(self, *resources: str) -> int | None:
        """The token, or None."""
        try:
            return (await self.acquire(*resources))[0]["fencing_token"]
        except asyncpg.PostgresError as error:
            assert error.sqlstate == "ZC310", error
            return None

    async def release(self, token: int, *resources: str) -> None:
        await self.connection.execute(RELEASE, list(resources), self.agent, [token])

    async def stop_clock(self, after: timedelta = timedelta(0)) -> None:
        """Stop the clock of this connection, at this distance from what it says."""
        await self.connection.execute(
            "select set_config('coordinator.fake_now', (coordinator.now_utc() + $1)::text, false)", after
        )

    async def poll(self, ticket: int) -> asyncpg.Record:
        rows = await self.connection.fetch("select * from coordinator.lock_poll('default', $1, $2)", ticket, self.agent)
        return rows[0]


@pytest.fixture
async def crew(database_url: str) -> AsyncIterator[list[Client]]:
    clients = []
    for n in range(6):
        connection = await connect(database_url)
        agent = await connection.fetchval(
            "select id from coordinator.agent_register('default', $1, p_ttl => '1 day')", f"agent{n}"
        )
        clients.append(Client(connection, agent))
    yield clients
    for client in clients:
        await client.connection.close(timeout=DEADLINE_S)


async def together(*calls: object) -> list[object]:
    results: list[object] = [None] * len(calls)

    async def run(n: int, call: object) -> None:
        results[n] = await call  # type: ignore[misc]

    async with anyio.create_task_group() as tasks:
        for n, call in enumerate(calls):
            tasks.start_soon(run, n, call)
    return results


@pytest.mark.parametrize("races", [200, pytest.param(5000, marks=pytest.mark.long)])
async def test_of_two_who_race_for_an_expired_lock_one_gets_it(crew: list[Client], races: int) -> None:
    one, two, owner, sweeper = crew[:4]
    for n in range(races):
        path = ("src/a.py", "src/", "src/*.py")[n % 3]
        await owner.acquire(path)
        await owner.connection.execute(
            "update coordinator.locks set expires_at = clock_timestamp(), free_at = clock_timestamp()"
        )
        calls = [one.try_acquire("src/a.py"), two.try_acquire(path)]
        if n % 2:
            calls.append(sweeper.connection.fetchval("select coordinator.lock_expire()"))
        first, second = (await together(*calls))[:2]
        assert (first is None) != (second is None), n
        if first is not None:
            await one.release(first, "src/a.py")  # type: ignore[arg-type]
        else:
            await two.release(second, path)  # type: ignore[arg-type]


async def test_overlapping_sets_in_any_order_never_deadlock_and_never_overlap(crew: list[Client]) -> None:
    names = ["src/", "src/a.py", "src/b.py", "src/b/", "src/b/*.py", "docs/x", "**/*.md", "name:deploy"]
    holding: dict[str, int] = {}
    granted = 0

    def clash(a: str, b: str) -> bool:
        return a == b or {a, b} in CLASHES

    async def run(n: int, client: Client) -> None:
        nonlocal granted
        choose = random.Random(n)
        for _ in range(60):
            chosen = choose.sample(names, 3)
            token = await client.try_acquire(*chosen)
            if token is None:
                continue
            granted += 1
            assert not [(a, b) for a in chosen for b, who in holding.items() if who != n and clash(a, b)]
            for name in chosen:
                holding[name] = n
            await anyio.lowlevel.checkpoint()
            for name in chosen:
                del holding[name]
            await client.release(token, *chosen)

    async with anyio.create_task_group() as tasks:
        for n, client in enumerate(crew):
            tasks.start_soon(run, n, client)
    assert granted > 20
    assert await crew[0].connection.fetchval("select count(*) from coordinator.locks") == 0


CLASHES = [
    {"src/", "src/a.py"}, {"src/", "src/b.py"}, {"src/", "src/b/"}, {"src/", "src/b/*.py"}, {"src/b/", "src/b/*.py"},
    {"src/", "**/*.md"}, {"src/b/", "**/*.md"},
]  # fmt: skip


async def test_waiters_are_served_in_order_and_none_is_forgotten(crew: list[Client]) -> None:
    """Each takes the lock again and again; the tokens must come in the order of the tickets."""
    served: list[tuple[int, int]] = []

    async def run(client: Client) -> None:
        for _ in range(25):
            row = (await client.acquire("src/a.py", wait=WAIT))[0]
            ticket = row["ticket"]
            with anyio.fail_after(DEADLINE_S):
                while not row["granted"]:
                    await anyio.sleep(0.001)
                    row = await client.poll(ticket)
            if ticket:
                served.append((ticket, row["fencing_token"]))
            await client.release(row["fencing_token"], "src/a.py")

    async with anyio.create_task_group() as tasks:
        for client in crew:
            tasks.start_soon(run, client)
    assert len(served) > 50
    assert [token for _, token in sorted(served)] == sorted(token for _, token in served)
    assert (
        await crew[0].connection.fetchval(
            "select (select count(*) from coordinator.lock_waits) + (select count(*) from coordinator.locks)"
        )
        == 0
    )


async def test_of_two_requests_that_would_close_a_cycle_at_once_one_is_refused(crew: list[Client]) -> None:
    one, two = crew[:2]

    async def wait(client: Client, resource: str) -> bool:
        try:
            await client.acquire(resource, wait=WAIT)
        except asyncpg.PostgresError as error:
            assert error.sqlstate == "ZC313", error
            return False
        return True

    for n in range(100):
        a, b = f"a{n}", f"b{n}"
        await one.acquire(a)
        await two.acquire(b)
        assert sorted(await together(wait(one, b), wait(two, a))) == [False, True]  # type: ignore[type-var]
        await one.connection.execute("delete from coordinator.lock_waits")


async def test_a_lock_released_while_a_request_enqueues_is_never_lost(crew: list[Client]) -> None:
    one, two = crew[:2]
    for n in range(300):
        token = (await one.acquire("src/a.py"))[0]["fencing_token"]
        resource = ("src/", "src/a.py", "src/*.py")[n % 3]
        _, rows = await together(one.release(token, "src/a.py"), two.acquire(resource, wait=WAIT))
        row = rows[0]  # type: ignore[index]
        if not row["granted"]:
            held = await two.connection.fetchval(
                "select count(*) from coordinator.locks where ticket = $1", row["ticket"]
            )
            assert held == 1, n
            row = await two.poll(row["ticket"])
        await two.release(row["fencing_token"], resource)


async def test_an_agent_that_ends_while_somebody_enqueues_hands_its_lock_on(crew: list[Client]) -> None:
    one, two = crew[:2]
    for n in range(100):
        agent = await one.connection.fetchval(
            "select id from coordinator.agent_register('default', 'x', p_ttl => '1 day')"
        )
        await Client(one.connection, agent).acquire("src/a.py")
        _, rows = await together(
            one.connection.execute("select coordinator.agent_deregister($1)", agent), two.acquire("src/", wait=WAIT)
        )
        row = rows[0]  # type: ignore[index]
        if not row["granted"]:
            assert (
                await two.connection.fetchval("select count(*) from coordinator.locks where ticket = $1", row["ticket"])
                == 1
            ), n
            row = await two.poll(row["ticket"])
        await two.release(row["fencing_token"], "src/")


async def test_a_paused_writer_overwrites_without_a_fence_and_cannot_with_one(crew: list[Client]) -> None:
    paused, other = crew[:2]
    await paused.connection.execute("create table public.work (body text); insert into public.work values ('')")
    old = (await paused.acquire("work"))[0]["fencing_token"]
    await other.connection.execute(
        "update coordinator.locks set expires_at = clock_timestamp(), free_at = clock_timestamp()"
    )
    new = (await other.acquire("work"))[0]["fencing_token"]

    async def write(client: Client, body: str, token: int | None) -> None:
        async with client.connection.transaction():
            if token is not None:
                await client.connection.execute("select coordinator.assert_fence('default', 'work', $1)", token)
            await client.connection.execute("update public.work set body = $1", body)

    await write(other, "new", new)
    with pytest.raises(asyncpg.PostgresError) as raised:
        await write(paused, "stale", old)
    assert raised.value.sqlstate == "ZC312"
    assert await other.connection.fetchval("select body from public.work") == "new"
    await write(paused, "stale", None)
    assert await other.connection.fetchval("select body from public.work") == "stale"


@pytest.mark.parametrize("taking", ["the same", "a directory over it", "the same agent"])
async def test_nobody_takes_over_before_a_guarded_transaction_is_over(crew: list[Client], taking: str) -> None:
    owner, other, watcher = crew[:3]
    token = (await owner.acquire("src/a.py"))[0]["fencing_token"]
    if taking == "the same agent":
        other = Client(other.connection, owner.agent)
    guarded = owner.connection.transaction()
    await guarded.start()
    await owner.connection.execute("select coordinator.assert_fence('default', 'src/a.py', $1)", token)
    await watcher.connection.execute(
        "update coordinator.locks set expires_at = clock_timestamp(), free_at = clock_timestamp()"
    )
    got: list[asyncpg.Record] = []

    async def take() -> None:
        got.extend(await other.acquire("src/" if taking == "a directory over it" else "src/a.py"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take)
        await until_blocked(watcher.connection, other.connection)
        assert not got
        await guarded.commit()
    assert got[0]["fencing_token"] > token


async def test_a_guarded_transaction_lets_renewals_pass_and_holds_up_neither_sweep_nor_break_nor_reaper(
    crew: list[Client],
) -> None:
    owner, other, third = crew[:3]
    token = (await owner.acquire("a"))[0]["fencing_token"]
    async with owner.connection.transaction():
        await owner.connection.execute("select coordinator.assert_fence('default', 'a', $1)", token)
        with anyio.fail_after(DEADLINE_S):
            await other.connection.execute(
                "select coordinator.lock_renew('default', '{a}', $1, $2)", owner.agent, [token]
            )
            row = (await third.acquire("a", wait=WAIT))[0]
            assert await other.connection.fetchval("select coordinator.lock_break('default', 'a', 'it hangs')") == 1
            assert await other.connection.fetchval("select coordinator.lock_expire()") == 0
            await other.connection.execute("select coordinator.agent_deregister($1)", owner.agent)
        assert not (await third.poll(row["ticket"]))["granted"]
    await other.connection.execute("select coordinator.lock_expire()")
    assert (await third.poll(row["ticket"]))["granted"]


async def test_paths_apart_do_not_wait_for_each_other(crew: list[Client]) -> None:
    one, two = crew[:2]
    async with one.connection.transaction():
        await one.acquire("src/a/b.py")
        with anyio.fail_after(DEADLINE_S):
            assert (await two.acquire("src/a/c.py"))[0]["granted"]
            assert (await two.acquire("docs/"))[0]["granted"]
            assert (await two.acquire("name:deploy"))[0]["granted"]


async def handed(crew: list[Client]) -> tuple[Client, Client, int, int]:
    """Return a holder, a waiter for the same lock, the holder's token and the waiter's ticket. The clocks of both stand still."""
    ann, bob = crew[:2]
    await ann.stop_clock()
    await bob.stop_clock()
    token = (await ann.acquire("x"))[0]["fencing_token"]
    return ann, bob, token, (await bob.acquire("x", wait=TURN))[0]["ticket"]


@pytest.mark.usefixtures("bounded_waits")
@pytest.mark.parametrize("committed", [True, False])
async def test_the_answer_to_a_poll_after_the_deadline_is_final(crew: list[Client], committed: bool) -> None:
    ann, bob, token, ticket = await handed(crew)
    transaction = ann.connection.transaction()
    await transaction.start()
    await ann.release(token, "x")
    await bob.stop_clock(2 * TURN)  # while the hand-off is not committed
    with anyio.fail_after(DEADLINE_S):
        assert not (await bob.poll(ticket))["granted"]
    if committed:
        await transaction.commit()
        assert (await bob.poll(ticket))["granted"]
        return
    await transaction.rollback()
    with pytest.raises(asyncpg.PostgresError) as raised:
        await bob.poll(ticket)
    assert raised.value.sqlstate == "ZC401"
    await ann.stop_clock(2 * TURN)
    await ann.release(token, "x")
    assert await crew[2].try_acquire("x")


async def test_a_poll_that_waits_for_an_open_hand_off_sees_it(crew: list[Client]) -> None:
    ann, bob, token, ticket = await handed(crew)
    transaction = ann.connection.transaction()
    await transaction.start()
    await ann.release(token, "x")
    await bob.stop_clock(2 * TURN)
    rows: list[asyncpg.Record] = []

    async def poll() -> None:
        rows.append(await bob.poll(ticket))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(poll)
        await until_blocked(crew[2].connection, bob.connection)
        await transaction.commit()
    assert rows[0]["granted"]


async def test_a_poll_does_not_wait_for_a_break_of_what_it_claims(crew: list[Client]) -> None:
    ann, bob, token, ticket = await handed(crew)
    await ann.release(token, "x")
    transaction = ann.connection.transaction()
    await transaction.start()
    await ann.connection.execute("select coordinator.lock_break('default', 'x', 'a test')")
    with anyio.fail_after(DEADLINE_S):
        row = await bob.poll(ticket)
    assert (row["granted"], row["fencing_token"]) == (False, None)
    await transaction.rollback()
    assert (await bob.poll(ticket))["granted"]


@pytest.mark.parametrize("resource", ["src/", "src/*.py"])
async def test_two_that_release_a_directory_or_glob_do_not_wait_for_each_other(
    crew: list[Client], resource: str
) -> None:
    watcher = crew[2].connection
    sharers = crew[:2]
    tokens = [(await sharer.acquire(resource, shared=True))[0]["fencing_token"] for sharer in sharers]
    key = await watcher.fetchval(
        "select coordinator.lock_key((select id from coordinator.projects where name = 'default'), $1)", resource
    )
    await watcher.execute("select pg_advisory_lock($1)", key)  # stops whoever takes the text for that of a path
    waiters = """
        select count(*) from pg_locks where locktype = 'advisory' and not granted
          and database = (select oid from pg_database where datname = current_database())"""
    left = len(sharers)

    async def release(sharer: Client, token: int) -> None:
        nonlocal left
        await sharer.release(token, resource)
        left -= 1

    async def stopped() -> bool:
        return bool(await watcher.fetchval(waiters) == left)

    async with anyio.create_task_group() as tasks:
        for sharer, token in zip(sharers, tokens, strict=True):
            tasks.start_soon(release, sharer, token)
        await until(stopped)
        await watcher.execute("select pg_advisory_unlock($1)", key)
    assert left == 0

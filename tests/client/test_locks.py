from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import anyio
import asyncpg
import msgspec
import pytest

import coordinator
from coordinator.client import Client, Handle, LeaseState, LockLost, lease, lock_wait
from coordinator.client.caller import Caller
from coordinator.db.database import Database
from coordinator.errors import Conflict, DatabaseUnavailable, InvalidArgument, NotFound, WaitTimedOut
from coordinator.model.lock import Lock
from coordinator.model.operation import Operation
from coordinator.operations import locks
from tests.client.conftest import relayed
from tests.forked import Forked
from tests.waiting import DEADLINE_S, LASTING_S, OFTEN, until


@asynccontextmanager
async def connected(url: str, name: str) -> AsyncIterator[Client]:
    """A client in a task of its own. A fixture starts and ends in different tasks, which cancel scopes do not allow."""
    ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def be() -> None:
        async with coordinator.connect(url, agent=name, ttl=600) as client:
            ready.set_result(client)
            await done.wait()

    task = asyncio.create_task(be())
    try:
        await asyncio.wait([ready, task], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            yield ready.result()
    finally:
        done.set()
        await task  # raises why it could not connect


@pytest.fixture
async def coder(database_url: str) -> AsyncIterator[Client]:
    async with connected(database_url, "coder") as client:
        yield client


@pytest.fixture
async def tester(database_url: str) -> AsyncIterator[Client]:
    async with connected(database_url, "tester") as client:
        yield client


async def held_by(db: Database) -> list[tuple[str, str]]:
    return [(lock.resource, lock.agent) for lock in await db.run(locks.List(project="default"))]


async def test_a_lock_is_held_while_the_block_runs_and_names_its_holder(
    coder: Client, tester: Client, db: Database
) -> None:
    async with coder.lock("src/app.py", "./docs/", ttl=LASTING_S) as mine:
        assert mine.state is LeaseState.HELD
        assert mine.tokens == {"src/app.py": mine.token, "docs/": mine.token}
        assert LASTING_S / 2 < mine.remaining_s < LASTING_S
        assert await held_by(db) == [("docs/", "coder"), ("src/app.py", "coder")]
        with pytest.raises(Conflict, match='locked by agent "coder"') as raised:
            async with tester.lock("src/"):
                pytest.fail("entered")
        assert raised.value.hint
        assert (await tester.locks.check("src/app.py"))[0].state == "held"
        assert (await coder.locks.check("src/app.py"))[0].state == "mine"
    assert mine.state is LeaseState.RELEASED
    assert mine.tokens == {"src/app.py": mine.token, "docs/": mine.token}  # for a note of what was done under it
    with pytest.raises(LockLost, match="was released"):
        mine.check()
    assert await held_by(db) == []


async def test_shared_locks_and_slots(coder: Client, tester: Client) -> None:
    async with coder.lock("a", shared=True), tester.lock("a", shared=True):
        assert len(await coder.locks.show("a")) == 2
    async with coder.lock("name:gpu", slots=2), tester.lock("name:gpu", slots=2):
        assert {lock.slot for lock in await coder.locks.show("name:gpu")} == {1, 2}
    with pytest.raises(NotFound):
        await coder.locks.show("a")


async def test_bad_input_is_refused_with_a_hint_and_changes_nothing(
    coder: Client, database_url: str, db: Database
) -> None:
    for resources, options in (
        ([], {}),
        ([""], {}),
        (["a", "../b"], {}),
        (["/etc/passwd"], {}),
        (["src/[a"], {}),
        (["a"], {"ttl": 0}),
        (["a"], {"ttl": 1e9}),
        (["a"], {"wait": -0.1}),
        (["a"], {"slots": 2}),
        ([f"f{n}" for n in range(10_000)], {}),
    ):
        with pytest.raises(InvalidArgument) as raised:
            async with coder.lock(*resources, **options):  # type: ignore[arg-type]
                pytest.fail("entered")
        assert raised.value.hint
    with pytest.raises(NotFound):
        await coder.locks.acquire("a", agent=UUID(int=7))
    async with coordinator.connect(database_url) as nobody:
        with pytest.raises(InvalidArgument, match="no agent"):
            await nobody.locks.acquire("a")
    assert await held_by(db) == []


async def test_a_lock_is_renewed_beyond_its_ttl(coder: Client, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWALS_PER_TTL", OFTEN)
    async with coder.lock("a", ttl=LASTING_S) as mine:
        (first,) = await db.run(locks.List(project="default"))
        ends = {first.expires_at}

        async def renewed() -> bool:
            (now,) = await db.run(locks.List(project="default"))
            assert now.expires_at >= max(ends)
            ends.add(now.expires_at)
            return len(ends) > 3

        await until(renewed, "it is renewed again and again")
        assert mine.state is LeaseState.HELD
        assert mine.token == first.fencing_token


async def test_a_waiter_gets_the_lock_within_moments_of_its_release(
    coder: Client, tester: Client, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_wait, "POLL_S", 3600)  # only the event can wake it
    served = 0

    async def wait() -> None:
        nonlocal served
        async with tester.lock("a", wait=3600):
            served += 1

    async with relayed(db), anyio.create_task_group() as tasks:
        for _ in range(3):
            async with coder.lock("a"):
                tasks.start_soon(wait)

                async def queued() -> bool:
                    return bool(await coder.locks.waiting("a"))

                await until(queued)

            async def free() -> bool:
                return not await held_by(db)

            await until(free)
    assert served == 3


@pytest.mark.parametrize("wait", [0.2, 1])
async def test_a_wait_times_out_and_leaves_the_queue(
    coder: Client, tester: Client, monkeypatch: pytest.MonkeyPatch, wait: float
) -> None:
    monkeypatch.setattr(lock_wait, "POLL_S", 3600)
    async with coder.lock("a", ttl=3600):
        started = time.monotonic()
        with anyio.fail_after(DEADLINE_S), pytest.raises(WaitTimedOut):
            await tester.locks.acquire("a", wait=wait)
        assert time.monotonic() - started > wait * 0.9
        assert await coder.locks.waiting("a") == []


async def test_a_wait_times_out_even_if_its_ticket_was_swept(
    coder: Client, tester: Client, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Caller.run

    async def after_a_sweep(self: Caller, operation: Operation[Any], *, again: bool = False) -> Any:
        if isinstance(operation, locks.Poll):
            await db.run(locks.Expire())
        return await run(self, operation, again=again)

    monkeypatch.setattr(Caller, "run", after_a_sweep)
    async with coder.lock("a"):
        with pytest.raises(WaitTimedOut):
            await tester.locks.acquire("a", wait=1)


@pytest.mark.usefixtures("unhurried")
async def test_whoever_stops_waiting_leaves_the_queue(coder: Client, tester: Client) -> None:
    async with coder.lock("a"), anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: tester.locks.acquire("a", wait=3600))

        async def queued() -> bool:
            return bool(await coder.locks.waiting("a"))

        await until(queued)
        tasks.cancel_scope.cancel()
    assert await tester.locks.waiting("a") == []


@pytest.mark.usefixtures("unhurried")
async def test_a_waiter_that_stops_before_it_learns_of_its_grant_releases_it(
    coder: Client, tester: Client, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Database.run
    granted = anyio.Event()

    async def once_unheard(self: Database, operation: object) -> object:
        result = await run(self, operation)  # type: ignore[arg-type]
        if isinstance(operation, locks.Poll) and result[0].granted and not granted.is_set():  # type: ignore[index]
            granted.set()
            await anyio.sleep_forever()
        return result

    monkeypatch.setattr(Database, "run", once_unheard)
    monkeypatch.setattr(lock_wait, "POLL_S", 0.05)
    async with anyio.create_task_group() as tasks:
        async with coder.lock("a"):
            tasks.start_soon(lambda: tester.locks.acquire("a", wait=3600, ttl=600))

            async def queued() -> bool:
                return bool(await coder.locks.waiting("a"))

            await until(queued)
        with anyio.fail_after(DEADLINE_S):
            await granted.wait()
        tasks.cancel_scope.cancel()
    assert await held_by(db) == []


async def test_a_deadlock_is_refused_and_the_error_lists_the_cycle(coder: Client, tester: Client) -> None:
    async with coder.lock("a"), tester.lock("b"), anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: coder.locks.acquire("b", wait=60))

        async def queued() -> bool:
            return bool(await coder.locks.waiting("b"))

        await until(queued)
        with pytest.raises(Conflict, match="deadlock") as raised:
            await tester.locks.acquire("a", wait=60)
        assert "cycle" in (raised.value.detail or "")
        tasks.cancel_scope.cancel()


async def test_a_deadlock_through_the_blocks_around_a_task_is_found(coder: Client, tester: Client) -> None:
    async def queued() -> bool:
        return bool(await coder.locks.waiting("b"))

    async def hold_and_wait() -> None:
        async with coder.lock("a"), coder.lock("c"), coder.lock("b", wait=3600):
            pass

    async with tester.lock("b"), anyio.create_task_group() as tasks:
        tasks.start_soon(hold_and_wait)
        await until(queued)
        with pytest.raises(Conflict, match="deadlock"):
            async with tester.lock("a", wait=3600):
                pytest.fail("entered")
        tasks.cancel_scope.cancel()
    async with coder.lock("a"):
        with pytest.raises(Conflict, match="deadlock"):  # with its own block
            async with coder.lock("a", wait=3600):
                pytest.fail("entered")
        with pytest.raises(Conflict, match="deadlock"):
            async with coder.lock("a", "b", wait=3600):
                pytest.fail("entered")
    assert coder.locks._blocks == {}


@pytest.mark.usefixtures("unhurried")
async def test_a_broken_lock_cancels_the_body_within_moments(coder: Client, tester: Client, db: Database) -> None:
    async with relayed(db):
        with pytest.raises(LockLost, match=r'"tester" broke the lock at .*: stuck'):  # noqa: PT012 - the whole block raises
            async with coder.lock("a", "b", ttl=600) as mine:
                await tester.locks.break_("a", "stuck")
                await anyio.sleep(DEADLINE_S)
                pytest.fail("the body was not cancelled; the next renewal would be in minutes")
    assert mine.state is LeaseState.LOST
    assert await held_by(db) == []  # the other lock is released


async def test_with_keep_the_body_continues_and_sees_the_loss(
    coder: Client, tester: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEWALS_PER_TTL", OFTEN)
    async with coder.lock("a", ttl=LASTING_S, on_lost="keep") as mine:
        await tester.locks.break_("a", "stuck")
        with anyio.fail_after(DEADLINE_S):
            await mine.lost.wait()
        assert mine.state is LeaseState.LOST
        with pytest.raises(LockLost):
            mine.check()


async def test_a_lock_that_was_lost_unnoticed_raises_at_the_end(coder: Client, tester: Client) -> None:
    with pytest.raises(LockLost):
        async with coder.lock("a", ttl=600):
            await tester.locks.break_("a", "stuck")


async def test_the_bodys_own_errors_pass_through_and_the_lock_is_released(coder: Client, db: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with coder.lock("a"):
            raise ZeroDivisionError
    assert await held_by(db) == []


@pytest.mark.usefixtures("unhurried")
async def test_two_blocks_of_a_client_exclude_each_other_and_end_separately(
    coder: Client, tester: Client, db: Database
) -> None:
    async def queued() -> bool:
        return bool(await coder.locks.waiting("a"))

    async with coder.lock("a") as first:
        with pytest.raises(Conflict, match="of the same agent"):
            async with coder.lock("a"):
                pytest.fail("entered")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: coder.locks.acquire("a", wait=3600))
            await until(queued)
            tasks.cancel_scope.cancel()
        async with anyio.create_task_group() as tasks:

            async def second() -> None:
                async with coder.lock("a", wait=3600):
                    pytest.fail("entered")

            tasks.start_soon(second)
            await until(queued)
            tasks.cancel_scope.cancel()
        with pytest.raises(Conflict, match='locked by agent "coder"'):
            await tester.locks.acquire("a")
        first.look()
        await anyio.sleep(0)
        assert first.state is LeaseState.HELD
    assert await held_by(db) == []


async def test_blocks_with_the_same_owner_share_a_lock_until_the_last_leaves(coder: Client, db: Database) -> None:
    async with coder.lock("a") as outer:
        async with coder.lock("a", "b", owner=outer.owner) as inner:
            assert inner.tokens["a"] == outer.token
        assert await held_by(db) == [("a", "coder")]
        async with coder.lock("a", owner=f"{outer.owner}/part"):
            assert await held_by(db) == [("a", "coder")] * 2
        assert await held_by(db) == [("a", "coder")]
    assert await held_by(db) == []


async def test_a_block_that_ends_while_another_acquires_leaves_it_no_dead_token(
    coder: Client, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Database.run
    answered, left = anyio.Event(), anyio.Event()

    async def slow(self: Database, operation: object) -> object:
        result = await run(self, operation)  # type: ignore[arg-type]
        if isinstance(operation, locks.Acquire) and len(operation.resources) > 1:
            answered.set()
            await left.wait()
        return result

    monkeypatch.setattr(Database, "run", slow)

    async def second() -> None:
        async with coder.lock("a", "b", owner="s") as held:
            assert await held_by(db) == [("a", "coder"), ("b", "coder")]
            await coder.locks.renew(*held.tokens, tokens=[*held.tokens.values()])

    async with anyio.create_task_group() as tasks:
        async with coder.lock("a", owner="s"):
            tasks.start_soon(second)
            with anyio.fail_after(DEADLINE_S):
                await answered.wait()
        left.set()
    assert await held_by(db) == []


@pytest.mark.usefixtures("unhurried")
async def test_a_request_that_is_cancelled_releases_no_lock_that_another_block_uses(
    coder: Client, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Database.run
    granted = anyio.Event()

    async def once_unheard(self: Database, operation: object) -> object:
        result = await run(self, operation)  # type: ignore[arg-type]
        if isinstance(operation, locks.Acquire) and len(operation.resources) > 1 and not granted.is_set():
            granted.set()
            await anyio.sleep_forever()
        return result

    monkeypatch.setattr(Database, "run", once_unheard)
    async with coder.lock("a", owner="s"):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: coder.locks.acquire("a", "b", owner="s"))
            with anyio.fail_after(DEADLINE_S):
                await granted.wait()
            tasks.cancel_scope.cancel()
        assert await held_by(db) == [("a", "coder")]


async def test_a_block_with_a_shorter_ttl_does_not_shorten_what_another_relies_on(
    coder: Client, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEWALS_PER_TTL", OFTEN)
    async with coder.lock("a", ttl=LASTING_S * 5, owner="s"), coder.lock("a", ttl=LASTING_S, owner="s"):
        (first,) = await db.run(locks.List(project="default"))

        async def renewed() -> Lock | None:
            (now,) = await db.run(locks.List(project="default"))
            return now if now.expires_at != first.expires_at else None

        now = await until(renewed, "it is renewed")
        assert now is not None
        assert now.expires_at > first.expires_at


async def test_a_handle_goes_through_json_and_is_resumed_by_another_process(database_url: str, db: Database) -> None:
    async with coordinator.connect(database_url) as first:
        agent = await first.agents.register("worker", ttl=600)
        async with first.lock("a", agent=agent.id, release=False) as mine:
            stored = msgspec.json.encode(mine.handle)
    assert await held_by(db) == [("a", "worker")]
    handle = msgspec.json.decode(stored, type=Handle)
    async with coordinator.connect(database_url) as second:
        async with second.locks.resume(handle) as again:
            assert again.token == mine.handle.tokens["a"]
        assert await held_by(db) == []
        with pytest.raises(LockLost):
            async with second.locks.resume(handle):
                pytest.fail("entered")
    async with coordinator.connect(database_url, project="other") as other:
        with pytest.raises(InvalidArgument):
            async with other.locks.resume(handle):
                pytest.fail("entered")


async def test_without_a_server_a_lock_is_unknown_and_then_lost_before_the_server_would_say(
    coder: Client, db: Database, root: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test moves the clock of this machine, but not that of the server."""
    now_s, ahead_s = lease.now_s, 0.0
    monkeypatch.setattr(lease, "now_s", lambda: now_s() + ahead_s)
    async with coder.lock("a", ttl=600, on_lost="keep") as mine:

        async def unanswered(_operation: object, **_: object) -> None:
            raise DatabaseUnavailable("away")

        async def stands(state: LeaseState) -> bool:
            return mine.state is state

        monkeypatch.setattr(mine._caller, "run", unanswered)
        assert mine.state is LeaseState.HELD
        ahead_s = 300
        await until(lambda: stands(LeaseState.UNKNOWN), "a renewal was not answered")
        ahead_s = 600 - lease.MARGIN_MAX_S
        assert mine.state is LeaseState.LOST, "before the server would say so"
        assert await held_by(db) == [("a", "coder")]  # at the server it lasts a little longer
        monkeypatch.undo()


async def test_the_local_deadline_counts_from_before_the_request(
    coder: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Database.run

    async def late(self: Database, operation: object) -> object:
        answer = await run(self, operation)  # type: ignore[arg-type]
        if isinstance(operation, locks.Acquire):
            await anyio.sleep(0.3)
        return answer

    monkeypatch.setattr(Database, "run", late)
    async with coder.lock("a", ttl=60) as mine:
        assert mine.remaining_s < 60 - lease.MARGIN_MAX_S - 0.3


async def test_past_its_local_deadline_a_lock_is_lost_permanently(
    coder: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LockLost, match="could not be renewed"):  # noqa: PT012 - the whole block is what raises
        async with coder.lock("a", ttl=60) as mine:
            asleep = lease.now_s() + 56
            monkeypatch.setattr(lease, "now_s", lambda: asleep)
            assert mine.state is LeaseState.LOST
            with pytest.raises(LockLost):
                _ = mine.token
            monkeypatch.undo()
            assert mine.state is LeaseState.LOST  # permanently
            mine.check()


async def test_a_process_that_was_stopped_past_the_ttl_sees_the_loss_when_it_wakes(
    database_url: str, db: Database
) -> None:
    process = Forked(
        "tests.client.lock_process",
        database_url,
        "4",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        assert await anyio.to_thread.run_sync(process.stdout.readline) == "held\n"
        process.send_signal(signal.SIGSTOP)

        async def expired() -> bool:
            return not await held_by(db)

        await until(expired)
        process.stdin.write("\n")
        process.stdin.flush()
        process.send_signal(signal.SIGCONT)
        with anyio.fail_after(DEADLINE_S):
            assert await anyio.to_thread.run_sync(process.stdout.readline, abandon_on_cancel=True) == "lost\n"
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


async def test_a_request_whose_response_was_lost_is_repeated(
    coder: Client, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Database.run
    lost = 0

    async def once_unheard(self: Database, operation: object) -> object:
        nonlocal lost
        answer = await run(self, operation)  # type: ignore[arg-type]
        if isinstance(operation, locks.Acquire) and not lost:
            lost += 1
            raise DatabaseUnavailable("the connection was lost")
        return answer

    monkeypatch.setattr(Database, "run", once_unheard)
    async with coder.lock("a") as mine:
        assert lost == 1
        (lock,) = await coder.locks.list()
        assert lock.fencing_token == mine.token

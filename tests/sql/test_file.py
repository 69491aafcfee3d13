from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from coordinator.db.database import Database
from coordinator.model.file import FileGrant, FileState, FileStep
from coordinator.operations import agents, files, locks, projects
from tests.conftest import Transaction
from tests.sql.refusal import refused
from tests.waiting import until_blocked

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


async def edit(tx: Any, name: str, *paths: str, project: str = "default", **options: Any) -> list[FileGrant]:
    return await tx.run(files.Edit(project=project, agent=name, paths=[*paths], **options))


async def states(tx: Any, name: str, *paths: str, **options: Any) -> list[str]:
    return [grant.state for grant in await edit(tx, name, *paths, **options)]


async def see(tx: Any, name: str, path: str, hash: str, step: FileStep = FileStep.READ, **options: Any) -> None:
    await tx.run(files.Record(project="default", agent=name, paths=[path], hashes=[hash], step=step, **options))


async def leave(tx: Any, name: str, **options: Any) -> int:
    return await tx.run(files.Leave(project="default", agent=name, **options))


async def held(tx: Any) -> list[tuple[str, str, str]]:
    return [(lock.resource, lock.agent, lock.owner) for lock in await tx.run(locks.List(project="default"))]


async def test_an_edit_registers_the_agent_and_leases_the_files(tx: Transaction) -> None:
    grants = await edit(tx, "s", "a.py", "b.py", metadata={"task": "fix"})
    assert [(grant.path, grant.state) for grant in grants] == [("a.py", "granted"), ("b.py", "granted")]
    (agent,) = await tx.run(agents.List(project="default"))
    assert (agent.name, agent.metadata, agent.id) == ("s", {"task": "fix"}, grants[0].agent_id)
    assert await held(tx) == [("a.py", "s", ""), ("b.py", "s", "")]


async def test_a_file_that_is_held_is_refused_with_its_holder_and_the_others_are_not_leased(tx: Transaction) -> None:
    await edit(tx, "first", "b.py", owner="s", metadata={"task": "rewrite b"})
    free, refusal = await edit(tx, "second", "a.py", "b.py")
    assert (free.state, free.holder) == (FileState.FREE, None)
    assert (
        refusal.state,
        refusal.holder,
        refusal.holder_owner,
        refusal.holder_task,
        refusal.held,
        refusal.waiting,
    ) == (
        FileState.HELD,
        "first",
        "s",
        "rewrite b",
        "b.py",
        0,
    )
    assert refusal.held_since < refusal.held_until  # type: ignore[operator]
    assert await held(tx) == [("b.py", "first", "s")]


async def test_a_refusal_counts_as_a_heartbeat(tx: Transaction) -> None:
    await edit(tx, "first", "a.py")
    await edit(tx, "second", "b.py")
    await tx.set_clock(timedelta(minutes=5))
    assert await states(tx, "second", "a.py") == ["held"]
    await tx.set_clock(timedelta(minutes=12))
    assert await held(tx) == [("b.py", "second", "")]


async def test_a_directory_that_is_locked_holds_its_files(tx: Transaction) -> None:
    agent = await tx.run(agents.Register(project="default", name="mover"))
    await tx.run(locks.Acquire(project="default", resources=["src/"], agent=agent.id))
    (refusal,) = await edit(tx, "s", "src/a.py")
    assert (refusal.state, refusal.holder, refusal.held) == (FileState.HELD, "mover", "src/")


async def test_its_own_lease_never_refuses_a_session_or_its_subagents(tx: Transaction) -> None:
    assert await states(tx, "s", "a.py", owner="s") == ["granted"]
    assert await states(tx, "s", "a.py", owner="s") == ["granted"]
    assert await states(tx, "s", "a.py", owner="s/1") == ["granted"]
    assert await states(tx, "s", "a.py", owner="s/2") == ["held"]  # siblings exclude each other
    await leave(tx, "s", owner="s/1")
    assert await states(tx, "s", "a.py", owner="s/2") == ["granted"]


async def test_an_edit_again_is_not_one_more_acquisition(tx: Transaction) -> None:
    for _ in range(3):
        await edit(tx, "s", "a.py", owner="s")
    assert await tx.connection.fetchval("select requests from coordinator.locks") is None


@pytest.mark.parametrize("call", ["edit", "record", "join"])
async def test_each_call_renews_all_leases_of_the_agent(tx: Transaction, call: str) -> None:
    await edit(tx, "s", "a.py", owner="s/1")
    await tx.set_clock(timedelta(minutes=9))
    if call == "edit":
        await edit(tx, "s", "b.py", owner="s")
    elif call == "record":
        await see(tx, "s", "b.py", "1")
    else:
        await tx.run(agents.Join(project="default", name="s"))
    await tx.set_clock(timedelta(minutes=18))
    assert ("a.py", "s", "s/1") in await held(tx)
    await tx.set_clock(timedelta(minutes=20))
    assert await held(tx) == []


async def test_an_edit_of_what_somebody_else_has_changed_since_is_stale(tx: Transaction) -> None:
    await see(tx, "a", "x.py", "1")
    await edit(tx, "b", "x.py", hashes=["1"])
    await see(tx, "b", "x.py", "2", FileStep.WRITTEN)
    await leave(tx, "b")
    (grant,) = await edit(tx, "a", "x.py", hashes=["2"])
    assert (grant.state, grant.changed_by) == (FileState.STALE, "b")
    assert await held(tx) == [("x.py", "a", "")]  # so that it does not change once more
    assert await states(tx, "a", "x.py", hashes=["2"]) == ["stale"]
    await see(tx, "a", "x.py", "2")
    assert await states(tx, "a", "x.py", hashes=["2"]) == ["granted"]


async def test_a_change_that_nobody_has_recorded_is_stale_too(tx: Transaction) -> None:
    await see(tx, "a", "x.py", "1")
    (grant,) = await edit(tx, "a", "x.py", hashes=["2"])
    assert (grant.state, grant.changed_by) == (FileState.STALE, None)


async def test_a_change_while_its_own_lease_lasts_is_its_own(tx: Transaction) -> None:
    await edit(tx, "a", "x.py", hashes=["1"], owner="s")
    await see(tx, "a", "x.py", "2", FileStep.WRITTEN, owner="s")
    assert await states(tx, "a", "x.py", hashes=["formatted"], owner="s") == ["granted"]
    await leave(tx, "a", owner="s")
    assert await states(tx, "a", "x.py", hashes=["formatted"], owner="s") == ["stale"]


async def test_a_change_by_a_subagent_is_stale_for_its_session(tx: Transaction) -> None:
    await edit(tx, "a", "x.py", owner="s", hashes=["1"])
    await see(tx, "a", "x.py", "1", owner="s")
    await edit(tx, "a", "x.py", owner="s/1", hashes=["1"])
    await see(tx, "a", "x.py", "2", FileStep.WRITTEN, owner="s/1")
    await leave(tx, "a", owner="s/1")
    (grant,) = await edit(tx, "a", "x.py", owner="s", hashes=["2"])
    assert (grant.state, grant.changed_by) == (FileState.STALE, "a/s/1")


async def test_content_that_came_back_is_not_stale(tx: Transaction) -> None:
    await see(tx, "a", "x.py", "1")
    await see(tx, "b", "x.py", "2", FileStep.WRITTEN)
    await see(tx, "b", "x.py", "1", FileStep.WRITTEN)
    assert await states(tx, "a", "x.py", hashes=["1"]) == ["granted"]


async def test_without_hashes_a_recorded_change_is_stale(tx: Transaction) -> None:
    async def record(name: str, step: FileStep) -> None:
        await tx.run(files.Record(project="default", agent=name, paths=["x.py"], step=step))

    await record("a", FileStep.READ)
    assert await states(tx, "a", "x.py") == ["granted"]
    await leave(tx, "a")
    await record("b", FileStep.WRITTEN)
    assert await states(tx, "a", "x.py") == ["stale"]


async def test_a_file_that_was_never_seen_may_be_edited(tx: Transaction) -> None:
    await see(tx, "b", "x.py", "2", FileStep.WRITTEN)
    assert await states(tx, "a", "x.py", hashes=["2"]) == ["granted"]


async def test_of_a_file_that_changes_while_it_is_read_the_earlier_content_counts(tx: Transaction) -> None:
    await see(tx, "a", "x.py", "1", FileStep.READING)
    await see(tx, "a", "x.py", "2", FileStep.READ)
    assert await states(tx, "a", "x.py", hashes=["2"]) == ["stale"]
    await see(tx, "a", "x.py", "2", FileStep.READING)
    await see(tx, "a", "x.py", "2", FileStep.READ)
    assert await states(tx, "a", "x.py", hashes=["2"]) == ["granted"]


async def test_a_caller_that_reports_no_reads_is_informed_once_of_each_change(tx: Transaction) -> None:
    await see(tx, "a", "x.py", "1", FileStep.WRITTEN)
    assert await states(tx, "a", "x.py", hashes=["2"], told=True) == ["stale"]
    assert await states(tx, "a", "x.py", hashes=["2"], told=True) == ["granted"]
    assert await states(tx, "a", "x.py", hashes=["3"], told=True) == ["stale"]


async def test_views_outlive_the_agent(tx: Transaction) -> None:
    await see(tx, "a", "x.py", "1")
    await leave(tx, "a", end=True)
    assert await tx.run(agents.List(project="default")) == []
    assert await states(tx, "a", "x.py", hashes=["2"]) == ["stale"]


async def test_who_waits_gets_the_files_when_the_holder_leaves(tx: Transaction) -> None:
    await edit(tx, "a", "x.py", "y.py", owner="s")
    waiting = await edit(tx, "b", "x.py", "z.py", wait=MINUTE)
    assert [grant.state for grant in waiting] == [FileState.WAITING, FileState.FREE]
    again = await edit(tx, "b", "x.py", "z.py", wait=MINUTE)
    assert {grant.ticket for grant in again} == {waiting[0].ticket}
    assert again[0].waiting == 1
    await leave(tx, "a", owner="s")
    assert all(
        grant.granted
        for grant in await tx.run(
            locks.Poll(project="default", ticket=waiting[0].ticket or 0, agent=waiting[0].agent_id)
        )
    )
    assert await states(tx, "b", "x.py", "z.py", wait=MINUTE) == ["granted", "granted"]


async def test_a_place_in_the_queue_lasts_as_long_as_its_call_is_repeated(tx: Transaction) -> None:
    await edit(tx, "a", "x.py", ttl=HOUR)
    (first,) = await edit(tx, "b", "x.py", wait=MINUTE)
    await edit(tx, "c", "x.py", wait=HOUR)
    for looks in (1, 2, 3):
        await tx.set_clock(0.9 * looks * MINUTE)
        (again,) = await edit(tx, "b", "x.py", wait=MINUTE)
        assert (again.state, again.ticket) == ("waiting", first.ticket)
    await tx.set_clock(5 * MINUTE)  # late, and nobody has swept it
    assert [grant.ticket for grant in await edit(tx, "b", "x.py", wait=MINUTE)] == [first.ticket]
    await tx.set_clock(7 * MINUTE)
    await leave(tx, "a")
    assert [who for _, who, _ in await held(tx)] == ["c"]  # b was killed
    assert await states(tx, "b", "x.py") == ["held"]


async def test_a_waiter_learns_who_holds_the_file_now_and_elsewhere(tx: Transaction) -> None:
    await edit(tx, "a", "x.py")
    await edit(tx, "far", ".git/worktrees/w/x.py")
    await edit(tx, "b", "x.py", wait=MINUTE)
    await leave(tx, "a")
    (granted,) = await edit(tx, "b", "x.py", wait=MINUTE)
    assert (granted.state, granted.elsewhere) == ("granted", "far in work tree w")
    await edit(tx, "c", "x.py", wait=MINUTE)
    await leave(tx, "b")
    await edit(tx, "d", "x.py", wait=MINUTE)
    (waits,) = await edit(tx, "d", "x.py")
    assert (waits.state, waits.holder) == ("waiting", "c")


async def test_two_identical_calls_at_once_are_one(db: Database, database_url: str) -> None:
    """A tool fires a hook twice; both calls are the first ones of the session, and wait for the same lock."""
    one, two, blocker = [await asyncpg.connect(database_url) for _ in range(3)]
    call = "select state, ticket from coordinator.file_edit('default', 's', '{x.py,y.py}', '{}', 's', p_wait => $1)"
    try:
        for holder, state in ((None, "granted"), ("other", "waiting")):
            if holder:
                await leave(db, "s")
                await edit(db, holder, "x.py")
            async with blocker.transaction():
                await blocker.execute(
                    "select coordinator.lock_enter((select id from coordinator.projects where name = 'default'), "
                    "coordinator.lock_parse_all('{x.py,y.py}'))"
                )
                calls = [asyncio.create_task(connection.fetch(call, MINUTE)) for connection in (one, two)]
                await until_blocked(blocker, one)
                await until_blocked(blocker, two)
            first, second = await asyncio.gather(*calls)
            assert first == second
            assert state in {row["state"] for row in first}
        assert len(await db.run(agents.List(project="default"))) == 2
        await leave(db, "other")
        assert await states(db, "s", "x.py", "y.py", owner="s", wait=MINUTE) == ["granted"] * 2
        assert await leave(db, "s", owner="s") == 2
        assert await held(db) == []
    finally:
        for connection in (one, two, blocker):
            connection.terminate()


async def test_a_wait_that_would_be_a_deadlock_is_refused(tx: Transaction) -> None:
    await edit(tx, "a", "x.py")
    await edit(tx, "b", "y.py")
    await edit(tx, "a", "y.py", wait=MINUTE)
    assert await states(tx, "b", "x.py", wait=MINUTE) == ["deadlock"]


async def test_readers_share_a_file(tx: Transaction) -> None:
    assert await states(tx, "a", "x.py", shared=True) == ["granted"]
    assert await states(tx, "b", "x.py", shared=True) == ["granted"]
    assert await states(tx, "b", "x.py") == ["held"]


async def test_leaving_releases_what_an_owner_and_those_below_it_hold(tx: Transaction) -> None:
    await edit(tx, "a", "1", owner="s")
    await edit(tx, "a", "2", owner="s/1")
    await edit(tx, "a", "3", owner="s/10")
    await edit(tx, "a", "4", owner="t")
    assert await leave(tx, "a", owner="s/1") == 1
    assert await leave(tx, "a", owner="s", paths=["1", "4"]) == 1
    assert await held(tx) == [("3", "a", "s/10"), ("4", "a", "t")]
    assert await leave(tx, "a") == 2
    assert await leave(tx, "a") == 0
    assert await leave(tx, "nobody") == 0


async def test_an_owner_above_the_one_that_leaves_keeps_its_locks_on_files(tx: Transaction) -> None:
    await edit(tx, "a", "both", owner="s")
    (before, _) = await edit(tx, "a", "one", "name:build", owner="s/1")
    await edit(tx, "a", "both", owner="s/1")
    await edit(tx, "a", "d/", owner="s/1/x")
    await edit(tx, "a", "read", owner="s/1", shared=True)
    await edit(tx, "a", "mine", owner="s/2")
    events = await tx.events()
    assert await leave(tx, "a", owner="s/1", heir="s") == 3
    assert await held(tx) == [("both", "a", "s"), ("d/", "a", "s"), ("mine", "a", "s/2"), ("one", "a", "s")]
    told = [(event["type"], event["key"], event["data"]["owner"]) for event in (await tx.events())[len(events) :]]
    assert told[told.index(("lock.ended", "one", "s/1")) + 1] == ("lock.granted", "one", "s")
    (token,) = [lock.fencing_token for lock in await tx.run(locks.List(project="default")) if lock.resource == "one"]
    assert before.agent_id is not None
    assert await states(tx, "a", "one", "d/", owner="s/2") == ["granted", "granted"]
    (renewed,) = await tx.run(locks.Renew(project="default", resources=["one"], agent=before.agent_id, tokens=[token]))
    assert renewed.fencing_token == token
    assert await leave(tx, "a", owner="s", heir="s") == 2  # the same resources below what it keeps
    assert await held(tx) == [(name, "a", "s") for name in ("both", "d/", "mine", "one")]
    assert await leave(tx, "a", owner="s") == 4


async def test_an_exclusive_lock_replaces_the_shared_one_of_the_owner_that_keeps_it(tx: Transaction) -> None:
    await edit(tx, "a", "x.py", owner="s", shared=True)
    await edit(tx, "a", "x.py", owner="s/1")
    await leave(tx, "a", owner="s/1", heir="s")
    assert [(lock.owner, lock.mode) for lock in await tx.run(locks.List(project="default"))] == [("s", "exclusive")]


async def test_only_an_owner_above_can_keep_locks(tx: Transaction) -> None:
    for heir in ("t", "s/1/x", "s/"):
        await refused(
            tx,
            files.Leave(project="default", agent="a", owner="s/1", heir=heir),
            "ZC103" if heir == "s/" else "ZC105",
        )
    await edit(tx, "a", "x.py", owner="s/1")
    assert await leave(tx, "a", owner="s/1", heir="") == 0
    assert await held(tx) == [("x.py", "a", "")]


async def test_whoever_may_use_what_the_owner_above_keeps_stops_waiting(db: Database, database_url: str) -> None:
    await edit(db, "a", "x.py", owner="s/1")
    (waits,) = await edit(db, "a", "x.py", owner="s/2", wait=HOUR)
    (stranger,) = await edit(db, "b", "x.py", wait=HOUR)
    assert (waits.state, stranger.state) == ("waiting", "waiting")
    one, two = [await asyncpg.connect(database_url) for _ in range(2)]
    try:
        async with one.transaction():
            await one.execute("select coordinator.file_leave('default', 'a', 's/1', p_heir => 's')")
            # This one asks while the lock is passed on, and waits for the queue.
            late = asyncio.create_task(
                two.fetch(
                    "select state from coordinator.file_edit('default', 'a', '{x.py}', '{}', 's', p_wait => '1h')"
                )
            )
            await until_blocked(one, two)
        assert [row["state"] for row in await late] == ["granted"]
        assert await states(db, "a", "x.py", owner="s/2", wait=HOUR) == ["granted"]
        assert await states(db, "b", "x.py", wait=HOUR) == ["waiting"]
    finally:
        for connection in (one, two):
            connection.terminate()


async def test_leaving_counts_no_acquisitions(tx: Transaction) -> None:
    (grant,) = await edit(tx, "a", "x.py", owner="s")
    await tx.run(locks.Acquire(project="default", resources=["x.py"], agent=grant.agent_id, owner="s"))
    assert await leave(tx, "a", owner="s") == 1
    assert await held(tx) == []


async def test_leaving_cancels_the_wait(tx: Transaction) -> None:
    await edit(tx, "a", "x.py")
    await edit(tx, "b", "x.py", owner="s", wait=HOUR)
    await leave(tx, "b", owner="s")
    assert await tx.run(locks.ListWaiting(project="default", resource="x.py")) == []


async def test_views_are_listed_and_pruned(tx: Transaction) -> None:
    await see(tx, "a", "x.py", "1")
    await tx.set_clock(timedelta(days=10))
    await see(tx, "b", "x.py", "2", FileStep.WRITTEN)
    views = await tx.run(files.List(project="default"))
    assert [(view.path, view.agent, view.hash, view.wrote_at is None) for view in views] == [
        ("x.py", "a", "1", True),
        ("x.py", "b", "2", False),
    ]
    await tx.set_clock(timedelta(days=15))
    assert await tx.run(files.Prune()) == 1
    assert [view.agent for view in await tx.run(files.List(project="default"))] == ["b"]


async def test_a_project_takes_its_views_with_it(tx: Transaction) -> None:
    await tx.run(projects.Create(project="p"))
    await tx.run(files.Record(project="p", agent="a", paths=["x.py"]))
    await tx.run(projects.Delete(project="p"))
    assert await tx.connection.fetchval("select count(*) from coordinator.files_seen") == 0


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"paths": []}, "ZC101"),
        ({"hashes": ["1", "2"]}, "ZC105"),
        ({"paths": ["/etc/passwd"]}, "ZC103"),
        ({"paths": ["a/../../b"]}, "ZC103"),
        ({"paths": ["a\nb"]}, "ZC103"),
        ({"owner": "x//y"}, "ZC103"),
    ],
)
async def test_malformed_files_are_refused(tx: Transaction, given: dict[str, Any], code: str) -> None:
    await refused(tx, files.Edit(**({"project": "default", "agent": "s", "paths": ["a"]} | given)), code)


async def test_two_that_join_under_one_name_at_the_same_time_are_one_agent(db: Database) -> None:
    joined = await asyncio.gather(*(db.run(agents.Join(project="default", name="s")) for _ in range(4)))
    assert len({agent.id for agent in joined}) == 1


async def test_joining_merges_metadata_and_keeps_the_longer_ttl(tx: Transaction) -> None:
    first = await tx.run(agents.Join(project="default", name="s", metadata={"tool": "x", "task": "a"}, ttl=HOUR))
    again = await tx.run(agents.Join(project="default", name="s", role="coder", metadata={"task": "b"}, ttl=MINUTE))
    assert (again.id, again.metadata, again.role, again.ttl) == (first.id, {"tool": "x", "task": "b"}, "coder", HOUR)


async def test_an_agent_that_was_reaped_joins_with_a_new_id(tx: Transaction) -> None:
    first = await tx.run(agents.Join(project="default", name="s"))
    await tx.run(agents.Deregister(agent=first.id))
    assert (await tx.run(agents.Join(project="default", name="s"))).id != first.id


async def test_patches_in_opposite_orders_are_granted_one_after_the_other(db: Database) -> None:
    async def patch(name: str, *paths: str) -> None:
        while await states(db, name, *paths) != ["granted", "granted"]:
            await asyncio.sleep(0)
        holders = {agent for _, agent, _ in await held(db)}
        assert holders == {name}
        await leave(db, name)

    orders = [("x.py", "y.py"), ("y.py", "x.py")]
    await asyncio.gather(*(patch(f"s{number}", *orders[number % 2]) for number in range(6)))
    assert await held(db) == []


async def test_the_same_file_in_another_work_tree_is_free_and_its_holder_named_once(tx: Transaction) -> None:
    async def grant(agent: str, path: str) -> FileGrant:
        (found,) = await tx.run(files.Edit(project="default", agent=agent, paths=[path]))
        assert found.state == "granted"
        return found

    assert (await grant("a", "src/x.py")).elsewhere is None
    assert (await grant("b", ".git/worktrees/feature/src/x.py")).elsewhere == "a in the main work tree"
    assert (await grant("b", ".git/worktrees/feature/src/x.py")).elsewhere is None
    assert (
        await grant("c", ".git/worktrees/other/src/x.py")
    ).elsewhere == "a in the main work tree, b in work tree feature"
    assert (await grant("d", ".git/worktrees/other/x.py")).elsewhere is None
    assert (await grant("d", "x.py")).elsewhere is None
    assert (await grant("e", "path:[id].py")).elsewhere is None
    await tx.run(files.Leave(project="default", agent="a"))
    assert (await grant("f", "src/x.py")).elsewhere == "b in work tree feature, c in work tree other"

"""Trees of jobs: enqueued below a parent, and cancelled, paused, resumed and listed as a whole."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest_asyncio

from coordinator.operations import job_history, job_trees, jobs
from tests.conftest import Transaction
from tests.sql.refusal import refused
from tests.sql.test_job import HOUR, World, batch_of, held
from tests.sql.test_job_after import status


@pytest_asyncio.fixture(loop_scope="session")
async def world(tx: Transaction) -> World:
    world = World(tx)
    await world.settle()
    return world


async def family(world: World) -> dict[str, UUID]:
    """Enqueue a root (claimed), a, b (scheduled) and c below it, aa (after b) and ab below a, and an unrelated job."""
    root = await world.enqueue("root")
    made = await world.run(
        batch_of(
            [
                {"type": "a", "parent": str(root.id)},
                {"type": "b", "parent": str(root.id), "delay": 3600},
                {"type": "c", "parent": str(root.id)},
                {"type": "aa", "parent": 0, "after": [1]},
                {"type": "ab", "parent": 0},
                {"type": "stranger"},
            ]
        )
    )
    return {"root": root.id, **{job.type: job.id for job in made}}


async def all_of(world: World, jobs_: dict[str, UUID]) -> dict[str, str]:
    return {name: (await status(world, job))[0] for name, job in jobs_.items()}


async def cancel(world: World, job: UUID, **fields: Any) -> Any:
    return await world.run(jobs.Cancel(project="default", job=job, **fields))


async def pause(world: World, job: UUID) -> Any:
    return await world.run(job_trees.Pause(project="default", job=job, tree=True, reason="lunch", actor="boss"))


async def resume(world: World, job: UUID) -> Any:
    return await world.run(job_trees.Resume(project="default", job=job, tree=True))


async def tree(world: World, job: UUID) -> list[UUID]:
    return [row.id for row in await world.run(job_trees.Tree(project="default", job=job))]


async def test_a_tree_is_cancelled_as_a_whole(world: World) -> None:
    own = await family(world)
    worker = await world.worker(job_types=["root", "c"])
    assert [grant.type for grant in await world.claim(worker, 2)] == ["root", "c"]
    outcome = await cancel(world, own["root"], tree=True, reason="enough")
    assert (outcome.status, outcome.due_at is None) == ("running", False)
    assert await all_of(world, own) == {
        "root": "running", "a": "cancelled", "b": "cancelled", "c": "running", "aa": "cancelled", "ab": "cancelled",
        "stranger": "queued",
    }  # fmt: skip
    found = await world.run(job_history.Show(project="default", job=own["aa"]))
    assert (found.reason, found.error) == ("cancelled", "enough")
    asked = [event["data"]["ids"] for event in await world.tx.events() if event["type"] == "job.cancel_requested"]
    assert asked == [[str(own["root"])], [str(own["c"])]] or asked == [sorted([str(own["root"]), str(own["c"])])]
    verdicts = await world.run(jobs.Reconcile(project="default", agent=worker.id, fences=[]))
    assert verdicts == []
    await refused(world.tx, jobs.Enqueue(project="default", type="x", parent=own["c"]), "ZC328")


async def test_a_part_of_a_tree_is_cancelled_below_a_job_that_has_ended(world: World) -> None:
    own = await family(world)
    worker = await world.worker(job_types=["a"])
    await world.run(jobs.Complete(**held(worker, await world.claim(worker))))
    await cancel(world, own["a"], tree=True)
    assert await all_of(world, own) == {
        "root": "queued", "a": "completed", "b": "scheduled", "c": "queued", "aa": "cancelled", "ab": "cancelled",
        "stranger": "queued",
    }  # fmt: skip
    await refused(world.tx, jobs.Cancel(project="default", job=own["a"], tree=True), "ZC323")
    await refused(world.tx, jobs.Cancel(project="default", job=own["a"]), "ZC323")


async def test_cancelling_one_job_leaves_its_children(world: World) -> None:
    own = await family(world)
    await cancel(world, own["a"])
    assert (await all_of(world, own))["ab"] == "queued"


async def test_a_worker_cancels_the_children_of_its_job_and_no_others(world: World) -> None:
    own = await family(world)
    worker = await world.worker(job_types=["a"])
    mine = held(worker, await world.claim(worker))
    for other in (own["c"], own["a"], own["root"], own["stranger"]):
        await refused(world.tx, job_trees.CancelChildren(**mine, children=[own["ab"], other]), "ZC328")
    await refused(world.tx, job_trees.CancelChildren(**mine, children=[UUID(int=1)]), "ZC209")
    await refused(world.tx, job_trees.CancelChildren(**{**mine, "fence": 1}), "ZC320")
    assert await world.run(job_trees.CancelChildren(**mine, children=[own["ab"]])) == 1
    assert (await all_of(world, own))["aa"] == "waiting"
    assert await world.run(job_trees.CancelChildren(**mine)) == 1
    assert await world.run(job_trees.CancelChildren(**mine)) == 0
    assert await all_of(world, own) == {
        "root": "queued", "a": "running", "b": "scheduled", "c": "queued", "aa": "cancelled", "ab": "cancelled",
        "stranger": "queued",
    }  # fmt: skip


async def test_nothing_of_a_paused_tree_is_claimed_until_it_is_resumed(world: World) -> None:
    own = await family(world)
    worker = await world.worker(job_types=["a", "b", "c", "aa", "ab", "root"])
    assert (await pause(world, own["root"])).status == "waiting"
    child = await world.enqueue("c", parent=own["a"])
    made = await world.run(batch_of([{"type": "c", "parent": str(own["b"])}, {"type": "c", "parent": 0}]))
    assert [child.status, *[job.status for job in made]] == ["waiting"] * 3
    await world.tx.set_clock(2 * HOUR)
    await world.run(jobs.Promote())
    assert await world.claim(worker, 10) == []
    assert set((await all_of(world, {**own, "stranger": own["a"]})).values()) == {"waiting"}
    explained = await world.run(job_history.Why(project="default", job=made[1].id))
    assert explained.sentence.startswith(f'The tree of job {own["root"]} was paused by "boss" at ')
    assert explained.sentence.endswith(": lunch.")
    assert (explained.cause, explained.names) == ("tree", ["boss"])
    before = len(await world.tx.events())
    await pause(world, own["root"])
    assert len(await world.tx.events()) == before
    await resume(world, own["root"])
    claimed = await world.claim(worker, 20)
    assert {grant.id for grant in claimed} == {
        *(own[name] for name in ("root", "a", "b", "c", "ab")), child.id, *(job.id for job in made)
    }  # fmt: skip
    assert (await world.told())[-2:] == [("job.enqueued", "default"), ("job.started", "default")]


async def test_attempts_of_a_paused_tree_continue_and_the_next_ones_wait(world: World) -> None:
    own = await family(world)
    worker = await world.worker(job_types=["a", "b", "c"])
    first, second, third = await world.claim(worker, 3), None, None
    first, second = first[:1], first[1:]
    await pause(world, own["root"])
    await world.run(jobs.Complete(**held(worker, first)))
    outcome = await world.run(jobs.Release(**held(worker, second)))
    assert (outcome.status, third) == ("waiting", None)
    await resume(world, own["root"])
    assert [grant.id for grant in await world.claim(worker)] == [own["c"]]


async def test_a_job_that_is_woken_in_a_paused_tree_waits_for_the_tree(world: World) -> None:
    first = await world.enqueue()
    waiting = await world.enqueue(after=[first.id])
    await world.run(job_trees.Pause(project="default", job=waiting.id))
    worker = await world.worker()
    await world.run(jobs.Complete(**held(worker, await world.claim(worker))))
    assert await status(world, waiting) == ("waiting", "tree")
    assert (await world.run(job_trees.Resume(project="default", job=waiting.id))).status == "queued"


async def test_a_pause_without_the_tree_leaves_children(world: World) -> None:
    own = await family(world)
    await world.run(job_trees.Pause(project="default", job=own["a"]))
    child = await world.enqueue("c", parent=own["a"])
    assert (await status(world, own["a"]), await status(world, own["ab"])) == (("waiting", "tree"), ("queued", None))
    assert child.status == "queued"


async def test_what_has_ended_is_neither_paused_nor_resumed(world: World) -> None:
    job = await world.enqueue()
    await cancel(world, job.id)
    for kind in (job_trees.Pause, job_trees.Resume):
        for whole in (False, True):
            await refused(world.tx, kind(project="default", job=job.id, tree=whole), "ZC323")
        await refused(world.tx, kind(project="default", job=UUID(int=1)), "ZC209")


async def test_a_tree_is_listed_with_what_has_ended_in_pages(world: World) -> None:
    own = await family(world)
    await cancel(world, own["a"])
    assert await tree(world, own["root"]) == [own[name] for name in ("root", "a", "b", "c", "aa", "ab")]
    assert await tree(world, own["a"]) == [own[name] for name in ("a", "aa", "ab")]
    page = await world.run(job_trees.Tree(project="default", job=own["root"], limit=2, after=[str(own["a"])]))
    assert [row.id for row in page] == [own["b"], own["c"]]
    assert [(row.root_id, row.depth) for row in await world.run(job_trees.Tree(project="default", job=own["aa"]))] == [
        (own["root"], 2)
    ]
    await refused(world.tx, job_trees.Tree(project="default", job=UUID(int=1)), "ZC209")

    async def listed(**fields: Any) -> list[UUID]:
        return [row.id for row in await world.run(job_history.List(project="default", **fields))]

    assert await listed(parent=own["a"]) == [own["ab"], own["aa"]]
    assert await listed(parent=own["a"], status=["cancelled"]) == []
    assert await listed(root=own["root"]) == [own[name] for name in ("ab", "aa", "c", "b", "a")]
    await refused(world.tx, job_history.List(project="default", parent=UUID(int=1)), "ZC209")


async def test_a_child_of_a_job_that_ended_or_is_being_cancelled_is_refused(world: World) -> None:
    worker = await world.worker()
    done = await world.start(worker)
    await world.run(jobs.Complete(**done))
    error = await refused(world.tx, jobs.Enqueue(project="default", type="x", parent=done["job"]), "ZC328")
    assert "has ended: it is completed" in error.message
    stopping = await world.start(worker)
    await cancel(world, stopping["job"])
    batch = batch_of([{"type": "x"}, {"type": "x", "parent": str(stopping["job"])}])
    error = await refused(world.tx, batch, "ZC328")
    assert error.message.startswith("job 1: the parent")


async def test_a_retried_child_stays_in_its_tree(world: World) -> None:
    own = await family(world)
    await cancel(world, own["ab"])
    (again,) = await world.run(job_history.Retry(project="default", job=own["ab"]))
    assert again.id in await tree(world, own["a"])
    await cancel(world, own["root"], tree=True)
    assert (await status(world, again.id))[0] == "cancelled"


async def test_a_job_that_was_paused_alone_is_paused_with_its_tree_afterwards(world: World) -> None:
    own = await family(world)
    await world.run(job_trees.Pause(project="default", job=own["a"]))
    await pause(world, own["root"])
    child = await world.enqueue("c", parent=own["a"])
    assert child.status == "waiting"
    await world.run(job_trees.Resume(project="default", job=own["a"], tree=True))
    assert (await status(world, own["a"]), await status(world, child)) == (("queued", None), ("queued", None))
    assert await status(world, own["c"]) == ("waiting", "tree")


async def due(world: World, limit: int) -> int:
    return await world.run(job_trees.ChangeDue(limit=limit))


async def cancel_later(world: World, job: UUID) -> None:
    """Leave the whole cancellation of a tree to the loop."""
    await world.tx.connection.execute(
        """
        insert into coordinator.job_changes (project_id, jobs, actor, requested_at)
        values (coordinator.project_id('default'), $1, 'boss', coordinator.now_utc())""",
        [job],
    )


async def cancellations(world: World) -> int:
    return int(await world.tx.connection.fetchval("select count(*) from coordinator.job_changes"))


async def test_a_tree_that_is_too_large_for_one_call_is_cancelled_in_portions(world: World) -> None:
    root = (await world.enqueue("root")).id
    made = await world.run(batch_of([{"type": "x", "parent": str(root)}] * 1003))
    last = made[-1].id
    worker = await world.worker()
    other = await world.enqueue("x")
    done = await cancel(world, root, tree=True, reason="enough", actor="boss")
    assert (done.status, done.cancelled, done.following) == ("cancelled", 1000, 4)
    assert (await status(world, last))[0] == "queued"
    why = await world.run(job_history.Why(project="default", job=last))
    assert (why.cause, why.names) == ("cancelling", ["boss"])
    assert "enough" in why.sentence
    # Until their portion comes, they neither start nor get children.
    assert [grant.id for grant in await world.claim(worker, limit=10)] == [other.id]
    await refused(world.tx, jobs.Enqueue(project="default", type="x", parent=last), "ZC328")
    assert await due(world, 3) == 3
    # A repeated call does the next portion, and asks for nothing twice.
    again = await cancel(world, root, tree=True)
    assert (again.cancelled, again.following) == (1, 0)
    assert {(await status(world, job.id))[0] for job in made[-5:]} == {"cancelled"}
    assert await due(world, 1000) == 0
    assert await cancellations(world) == 0


async def test_a_portion_reaches_what_is_below_an_ended_job_and_nothing_beside_it(world: World) -> None:
    worker = await world.worker(job_types=["a"])
    root = (await world.enqueue("root")).id
    middle = await world.enqueue("a", parent=root)
    own = held(worker, await world.claim(worker))
    below = [(await world.enqueue("b", parent=middle.id)).id for _ in range(3)]
    deep = (await world.enqueue("c", parent=below[0])).id
    beside = (await world.enqueue("d", parent=root)).id
    await world.run(jobs.Complete(**own))
    await cancel_later(world, middle.id)
    doomed = await world.tx.connection.fetchval(
        "select coordinator.job_doomed(coordinator.project_id('default'), $1, '{cancel}')",
        [root, middle.id, *below, deep, beside],
    )
    assert set(doomed) == {middle.id, *below, deep}
    assert [await due(world, 3) for _ in range(3)] == [3, 1, 0]
    states = [(await status(world, job))[0] for job in (root, *below, deep, beside)]
    assert states == ["queued", *["cancelled"] * 4, "queued"]


async def test_portions_ask_each_worker_to_stop_once(world: World) -> None:
    worker = await world.worker(job_types=["x"])
    root = (await world.enqueue("root")).id
    await world.run(batch_of([{"type": "x", "parent": str(root)}] * 3))
    first, second = await world.claim(worker, limit=2)
    await cancel_later(world, root)
    assert [await due(world, 2) for _ in range(3)] == [2, 2, 0]
    assert await cancellations(world) == 0
    asked = [event["data"]["ids"] for event in await world.tx.events() if event["type"] == "job.cancel_requested"]
    assert [one for ids in asked for one in ids] == [str(first.id), str(second.id)]


async def pause_later(world: World, job: UUID, root: UUID) -> None:
    """Leave the whole pause of a tree to the loop."""
    await world.tx.connection.execute(
        """
        insert into coordinator.job_changes (project_id, jobs, actor, requested_at, change, paused, root_id)
        values (coordinator.project_id('default'), $1, 'boss', coordinator.now_utc(), 'pause',
                jsonb_build_object('by', 'boss', 'at', coordinator.now_utc(), 'reason', 'lunch', 'job', $2::uuid, 'tree', true), $3)""",
        [job],
        job,
        root,
    )


async def test_a_tree_that_is_too_large_for_one_call_is_paused_and_resumed_in_portions(world: World) -> None:
    root = (await world.enqueue("root")).id
    made = await world.run(batch_of([{"type": "x", "parent": str(root)}] * 1003))
    last = made[-1].id
    worker = await world.worker()
    other = await world.enqueue("x")
    done = await pause(world, root)
    assert (done.status, done.following) == ("waiting", 4)
    assert await status(world, last) == ("queued", None)
    why = await world.run(job_history.Why(project="default", job=last))
    assert (why.cause, why.names) == ("tree", ["boss"])
    assert why.sentence.endswith(": lunch.")
    # Until their portion comes, they do not start, and their children will be paused, too.
    assert [grant.id for grant in await world.claim(worker, limit=10)] == [other.id]
    assert (await world.run(job_history.Why(project="default", job=last))).cause == "tree"
    child = await world.enqueue("x", parent=last)
    events = len(await world.tx.events())
    assert (await pause(world, root)).following == 5
    assert len(await world.tx.events()) == events
    assert [await due(world, 3) for _ in range(3)] == [3, 2, 0]
    assert [await status(world, job) for job in (last, child)] == [("waiting", "tree")] * 2
    assert await cancellations(world) == 0
    assert (await resume(world, root)).following == 5
    assert await due(world, 1000) == 5
    assert await cancellations(world) == 0
    assert {(await status(world, job))[0] for job in (root, made[0], last, child)} == {"queued"}


async def test_pauses_and_resumptions_of_a_tree_take_place_in_order(world: World) -> None:
    root = (await world.enqueue("root")).id
    middle = (await world.enqueue("a", parent=root)).id
    below = (await world.enqueue("x", parent=middle)).id
    beside = (await world.enqueue("x", parent=root)).id
    elsewhere = await world.enqueue("root")
    await pause_later(world, root, root)
    assert (await resume(world, middle)).following == 2  # after the pause
    await world.run(job_trees.Pause(project="default", job=below))
    assert (await pause(world, elsewhere.id)).following == 0
    worker = await world.worker(job_types=["root", "a", "x"])
    assert await world.claim(worker, 10) == []
    while await due(world, 1):
        pass
    states = [(await status(world, job))[0] for job in (root, middle, below, beside, elsewhere)]
    assert states == ["waiting", "queued", "waiting", "waiting", "waiting"]
    await resume(world, root)
    assert {grant.id for grant in await world.claim(worker, 10)} == {root, middle, below, beside}


async def test_a_job_that_waits_for_a_tree_that_was_resumed_meanwhile_is_woken(world: World) -> None:
    root = (await world.enqueue("root")).id
    worker = await world.worker(job_types=["root"])
    await pause_later(world, root, root)
    assert await world.claim(worker) == []
    await world.tx.connection.execute("delete from coordinator.job_changes")
    why = await world.run(job_history.Why(project="default", job=root))
    assert (why.cause, why.names) == ("tree", [])
    await world.tx.set_clock(HOUR)
    assert await world.run(jobs.WakeDue()) == 1
    assert [grant.id for grant in await world.claim(worker)] == [root]

from __future__ import annotations

import pytest

import coordinator
from coordinator.errors import Conflict


async def test_a_worker_enqueues_children_and_cancels_them(database_url: str) -> None:
    async with coordinator.connect(database_url, agent="w", job_types=["x"]) as client:
        await client.jobs.enqueue("x")
        (own,) = await client.jobs.claim()
        child, last = await client.jobs.enqueue_many(
            [{"type": "y", "parent": own.id}, {"type": "y", "parent": 0, "after": [0], "after_mode": "any"}]
        )
        other = await client.jobs.enqueue("y", after=[own.id, child.id], on_failure="run")
        assert [(job.id, job.depth) async for job in client.jobs.tree(own.id)] == [
            (own.id, 0),
            (child.id, 1),
            (last.id, 2),
        ]
        assert [job.id async for job in client.jobs.list(root=own.id, parent=child.id)] == [last.id]
        assert (await client.jobs.pause(child, tree=True, reason="lunch")).status == "waiting"
        assert (await client.jobs.resume(child.id, tree=True)).status == "queued"
        with pytest.raises(Conflict) as refused:
            await client.jobs.cancel_children(own, [other.id])
        assert refused.value.code == "ZC328"
        assert await client.jobs.cancel_children(own) == 2
        assert (await client.jobs.show(other.id)).status == "queued"
        assert (await client.jobs.cancel(own, tree=True)).status == "running"

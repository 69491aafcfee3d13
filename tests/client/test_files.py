from __future__ import annotations

import coordinator
from coordinator.model.file import FileStep


async def test_files_are_leased_recorded_listed_and_left(database_url: str) -> None:
    async with coordinator.connect(database_url) as client:
        await client.files.record("first", ["x.py"], hashes=["1"], step=FileStep.READ)
        (grant,) = await client.files.edit("second", ["x.py"], hashes=["1"], owner="s", metadata={"task": "t"})
        assert (grant.path, grant.state) == ("x.py", "granted")
        await client.files.record("second", ["x.py"], hashes=["2"], step=FileStep.WRITTEN, owner="s")
        (refusal,) = await client.files.edit("first", ["x.py"], hashes=["2"])
        assert (refusal.state, refusal.holder, refusal.holder_task) == ("held", "second", "t")
        assert await client.files.leave("second", owner="s") == 1
        (stale,) = await client.files.edit("first", ["x.py"], hashes=["2"])
        assert (stale.state, stale.changed_by) == ("stale", "second/s")
        assert [(view.agent, view.hash) async for view in client.files.list()] == [("first", "1"), ("second", "2")]
        assert await client.files.leave("first", end=True) == 1


async def test_an_agent_joins_under_its_name(database_url: str) -> None:
    async with coordinator.connect(database_url) as client:
        first = await client.agents.join("s", metadata={"task": "a"})
        again = await client.agents.join("s", role="coder", metadata={"tool": "b"})
        assert (again.id, again.role, again.metadata) == (first.id, "coder", {"task": "a", "tool": "b"})

"""The fixture of these tests really chooses the path that acquire and release take."""

from __future__ import annotations

import pytest

from coordinator.operations import agents, locks
from tests.conftest import Transaction


async def test_a_plain_lock_takes_the_path_of_its_fixture(tx: Transaction, request: pytest.FixtureRequest) -> None:
    agent = (await tx.run(agents.Register(project="default", name="a"))).id
    await tx.connection.execute("set local track_functions = 'all'")
    (grant,) = await tx.run(locks.Acquire(project="default", resources=["src/a.py"], agent=agent))
    tokens = [grant.fencing_token or 0]
    await tx.run(locks.Release(project="default", resources=["src/a.py"], agent=agent, tokens=tokens))
    called = {row[0] for row in await tx.connection.fetch("select funcname from pg_stat_xact_user_functions")}
    assert {"lock_acquire", "lock_release"} <= called
    general = request.node.callspec.params["shared_url"] == "general path"
    assert {"lock_acquire_any", "lock_release_any"} & called == (
        {"lock_acquire_any", "lock_release_any"} if general else set()
    )

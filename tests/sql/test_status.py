from __future__ import annotations

from datetime import timedelta

from coordinator.operations import agents, directives, events, locks, signals, status
from coordinator.operations.work import LeaderRenew, ProcessRegister
from tests.conftest import Transaction
from tests.sql.refusal import refused


async def test_status_counts_what_the_project_holds(tx: Transaction) -> None:
    agent = await tx.run(agents.Register(project="default", name="a"))
    other = await tx.run(agents.Register(project="default", name="b"))
    await tx.run(signals.Set(project="default", key="k", value=1))
    await tx.run(directives.Send(project="default", body="x", to_agent="a"))
    for resource in ("x", "y"):
        await tx.run(locks.Acquire(project="default", resources=[resource], agent=agent.id))
    await tx.run(locks.Acquire(project="default", resources=["x"], agent=other.id, wait=timedelta(minutes=1)))
    shown = await tx.run(status.Show(project="default"))
    counts = (shown.agent_count, shown.signal_count, shown.directive_count, shown.lock_count, shown.waiting_count)
    assert (shown.project, *counts) == ("default", 2, 1, 1, 2, 1)
    assert shown.head == await tx.run(events.Head())
    assert shown.postgres == await tx.connection.fetchval("show server_version")
    await refused(tx, status.Show(project="nowhere"), "ZC201")


async def test_status_names_the_leader_and_warns_where_there_is_none(tx: Transaction) -> None:
    before = await tx.run(status.Show(project="default"))
    assert (before.leader, before.daemon_count) == (None, 0)
    assert "No daemon leads" in before.warnings[0]
    process = await tx.run(ProcessRegister(kind="daemon", name="host:1"))
    try:
        await tx.run(LeaderRenew(process=process))
        after = await tx.run(status.Show(project="default"))
        assert (after.leader, after.daemon_count) == ("host:1", 1)
        assert not [warning for warning in after.warnings if "leads" in warning]
    finally:
        await tx.connection.execute("select pg_advisory_unlock_all()")

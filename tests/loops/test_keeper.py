"""Errors never stop the loops; the metrics agree with the lead."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from coordinator.config import Config
from coordinator.db.database import Database
from coordinator.loops import keeper as keeping
from coordinator.loops.keeper import Keeper
from coordinator.loops.loop import Loop
from coordinator.loops.table import table
from coordinator.model.agent import Reaped
from coordinator.model.metric import Sample
from coordinator.model.work import Lead
from coordinator.operations import agents, directives, signals
from coordinator.operations.work import LeaderRenew
from coordinator.telemetry import metrics
from tests.daemon import Daemon, log_of, opened
from tests.waiting import DEADLINE_S, until

BROKEN = """
create or replace function coordinator.signal_expire(p_limit integer default 1000) returns integer
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$ begin raise exception 'broken by a test'; end $$
"""


async def test_a_loop_that_fails_backs_off_without_delaying_others_and_recovers(
    db: Database, database_url: str
) -> None:
    async with opened(database_url) as connection:
        intact = await connection.fetchval("select pg_get_functiondef('coordinator.signal_expire'::regproc)")
        await connection.execute(BROKEN)
        with Daemon(database_url) as daemon:
            await (await daemon.ready()).lead()
            await db.run(signals.Set(project="default", key="due", value=1, ttl=timedelta(seconds=1)))

            def failures() -> list[dict[str, Any]]:
                """Return those of this loop: calls of others may fail when the machine pauses."""
                return [line for line in daemon.lines("loop.failed") if line["loop"] == "signal_expire"]

            async def backs_off() -> bool:
                """A daemon that stood still may lose the lead, and then begins with the shortest pause again."""
                return (0.5, 1.0) in pairwise(line["retry_s"] for line in failures())

            await until(backs_off, "the pause between two tries grows", every_s=0.1)

            async def late() -> bool:
                return await daemon.metric('coordinator_loop_lag_seconds{loop="signal_expire"}') > 0

            await until(late, "the loop is late", every_s=0.1)
            assert await daemon.metric('coordinator_loop_errors_total{loop="signal_expire"}') >= 2
            assert all("broken by a test" in line["error"] for line in failures())

            await db.run(directives.Send(project="default", body="due", everyone=True, ttl=timedelta(seconds=1)))

            async def others_go_on() -> bool:
                return "directive.expired" in [event["type"] for event in await log_of(database_url)]

            await until(others_go_on, "the other loops go on")

            await connection.execute(intact)

            async def recovered() -> bool:
                return "signal.expired" in [event["type"] for event in await log_of(database_url)]

            await until(recovered, "the loop works again")

            async def counted() -> bool:
                """The event may be in the log before the daemon has the answer of the loop's call."""
                return await daemon.metric('coordinator_loop_handled_total{loop="signal_expire"}') == 1

            async def in_time() -> bool:
                return await daemon.metric('coordinator_loop_lag_seconds{loop="signal_expire"}') == 0

            await until(counted, "the loop has counted what it did")
            await until(in_time, "the loop is in time")
            await daemon.ready()


async def test_a_relay_and_a_heartbeat_that_fail_recover(db: Database, database_url: str) -> None:
    functions = {
        "relay_step": "alter function coordinator.relay_step(integer, boolean) rename to",
        "leader_renew": "alter function coordinator.leader_renew(integer, interval) rename to",
    }
    async with opened(database_url) as connection:
        with Daemon(database_url) as daemon:
            await (await daemon.ready()).lead()
            for name, rename in functions.items():
                await connection.execute(f"{rename} {name}_away")
                line = "relay.failed" if name == "relay_step" else "leader.renew_failed"
                await db.run(signals.Set(project="default", key=name, value=1))
                await daemon.logged(line)
                await anyio.sleep(0.5)
                assert daemon.process.poll() is None
                await connection.execute(f"{rename.replace(name, f'{name}_away', 1)} {name}")

                async def recovered(name: str = name) -> bool:
                    return name in [event["key"] for event in await log_of(database_url)]

                await until(recovered, f"{name} works again")
            await daemon.ready()
            await daemon.lead()


class _OneAnswer:
    """Grants the lead once, and never answers again."""

    def __init__(self) -> None:
        self.asked = 0

    async def run(self, operation: object) -> Lead:
        assert isinstance(operation, LeaderRenew)
        self.asked += 1
        if self.asked > 1:
            await anyio.sleep_forever()
        return Lead(leads=True, term=1, due=[])


async def test_the_leader_metric_ends_with_the_lead_without_waiting_for_a_heartbeat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock_s = 100.0
    monkeypatch.setattr(keeping, "time", SimpleNamespace(monotonic=lambda: clock_s))
    monkeypatch.setattr(keeping, "HEARTBEAT_S", 0.0)
    server = _OneAnswer()
    keeper = Keeper(server, server, [], process=lambda: 1, on_due=lambda _: None)  # type: ignore[arg-type]

    def leader() -> float | None:
        return metrics.REGISTRY.get_sample_value("coordinator_leader")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keeper.run_forever)
        await until(lambda: server.asked == 2, "the keeper asks again")
        assert (keeper.leads, leader()) == (True, 1)
        clock_s += keeping.LEAD_S
        assert (keeper.leads, leader()) == (False, 0)
        tasks.cancel_scope.cancel()


async def test_a_process_that_no_longer_leads_drops_the_figures_that_it_sampled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock_s = 100.0
    monkeypatch.setattr(keeping, "time", SimpleNamespace(monotonic=lambda: clock_s))
    monkeypatch.setattr(keeping, "HEARTBEAT_S", 0.0)
    monkeypatch.setattr(keeping, "LEAD_S", 0.2)
    answer = _OneAnswer()
    keeper = Keeper(answer, answer, [], process=lambda: 1, on_due=lambda _: None)  # type: ignore[arg-type]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keeper.run_forever)
        metrics.SAMPLES.keep([Sample("coordinator_queues_paused", [], 1.0)])

        async def dropped() -> bool:
            nonlocal clock_s
            if answer.asked == 2:  # it led
                clock_s = 200.0
            return metrics.REGISTRY.get_sample_value("coordinator_queues_paused") is None

        await until(dropped, "the figures are gone")
        tasks.cancel_scope.cancel()


async def test_a_rare_loop_runs_soon_after_the_lead_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not after its interval, of up to an hour, because another daemon led when it was first due."""
    monkeypatch.setattr(keeping, "HEARTBEAT_S", 0.0)
    monkeypatch.setattr(keeping.random, "uniform", lambda *_: 0.0)
    leads = anyio.Event()
    ran = anyio.Event()

    class Answers:
        async def run(self, operation: Any) -> Any:
            await anyio.sleep(0)
            if isinstance(operation, LeaderRenew):
                return Lead(leads=leads.is_set(), term=1, due=[])
            ran.set()
            return 0

    server = Answers()
    keeper = Keeper(server, server, [Loop(signals.Expire(), every_s=3600)], process=lambda: 1, on_due=lambda _: None)  # type: ignore[arg-type]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keeper.run_forever)
        for _ in range(20):
            await anyio.sleep(0)
        assert not ran.is_set()
        leads.set()
        with anyio.fail_after(DEADLINE_S):
            await ran.wait()
        tasks.cancel_scope.cancel()


def test_a_reaped_agent_is_named_in_the_log() -> None:
    (loop,) = [loop for loop in table(Config()) if isinstance(loop.operation, agents.Reap)]
    with capture_logs() as lines:
        assert loop.judge(Reaped(1, 0, ["coder-1 (an id): expired"])).handled == 1
        assert loop.judge(Reaped(0, 0, [])).handled == 0
    (line,) = lines
    assert (line["event"], line["count"], line["agents"]) == ("agent.reaped", 1, ["coder-1 (an id): expired"])

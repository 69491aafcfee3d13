"""The relay against a model: writers whose transactions interleave in every way, steps of every size.

Held to: what was committed is in the log exactly once and nothing else is; events of one transaction keep their order; and
whatever was committed before a transaction began comes before its events.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from coordinator.db import schema
from coordinator.db.connection import connect
from tests.conftest import admin

EMIT = "select coordinator.event_emit('default', 'custom.x', $1)"
WRITERS = 4

writer = st.integers(0, WRITERS - 1)
limit = st.integers(1, 7)


class Relay(RuleBasedStateMachine):
    url: ClassVar[str]
    runner: ClassVar[asyncio.Runner]
    connections: ClassVar[list[asyncpg.Connection]]

    @initialize()
    def begin_at_the_head(self) -> None:
        self.count = 0
        self.pending: dict[int, list[str]] = {}
        self.before: dict[int, set[str]] = {}
        self.committed: list[tuple[list[str], set[str]]] = []
        self.done: set[str] = set()
        self.head = self.fetch(WRITERS, "select coalesce(max(seq), 0) from coordinator.events")

    def fetch(self, index: int, sql: str, *values: object) -> object:
        return self.runner.run(self.connections[index].fetchval(sql, *values))

    @rule(index=writer, count=st.integers(1, 4))
    def emit(self, index: int, count: int) -> None:
        if index not in self.pending:
            self.fetch(index, "begin")
            self.pending[index], self.before[index] = [], set(self.done)
        for _ in range(count):
            self.count += 1
            self.fetch(index, EMIT, str(self.count))
            self.pending[index].append(str(self.count))

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), commit=st.integers(0, 3).map(bool))
    def end(self, data: st.DataObject, commit: bool) -> None:
        index = data.draw(st.sampled_from(sorted(self.pending)))
        self.fetch(index, "commit" if commit else "rollback")
        names, before = self.pending.pop(index), self.before.pop(index)
        if commit:
            self.committed.append((names, before))
            self.done.update(names)

    @rule(limit=limit)
    def step(self, limit: int) -> None:
        self.fetch(WRITERS, "select coordinator.relay_step($1)", limit)

    @rule(limit=limit, more=st.booleans())
    def step_in_a_transaction_that_emits(self, limit: int, more: bool) -> None:
        names = [str(self.count + 1), str(self.count + 2)]
        self.count += 2
        before = set(self.done)
        self.fetch(WRITERS, "begin")
        self.fetch(WRITERS, EMIT, names[0])
        self.count += 1
        self.fetch(WRITERS + 1, EMIT, str(self.count))
        self.committed.append(([str(self.count)], set(self.done)))
        self.done.add(str(self.count))
        self.fetch(WRITERS, "select coordinator.relay_step($1)", limit)
        self.fetch(WRITERS, EMIT, names[1])
        if more:
            self.fetch(WRITERS, "select coordinator.relay_step($1)", limit)
        self.fetch(WRITERS, "commit")
        self.committed.append((names, before))
        self.done.update(names)

    @rule()
    def prune(self) -> None:
        self.fetch(WRITERS, "select coordinator.outbox_prune()")

    def teardown(self) -> None:
        if not hasattr(self, "head"):
            return
        for index in self.pending:
            self.fetch(index, "rollback")
        while self.fetch(WRITERS, "select again from coordinator.relay_step(5)"):
            pass
        log = self.fetch(
            WRITERS,
            "select coalesce(array_agg(key order by seq), '{}') from coordinator.events where seq > $1",
            self.head,
        )
        assert isinstance(log, list)
        place = {name: index for index, name in enumerate(log)}
        assert len(place) == len(log), "an event came twice"
        assert set(place) == self.done, "an event is missing, or of a transaction that never was"
        for names, before in self.committed:
            places = [place[name] for name in names]
            assert places == sorted(places), "out of order within a transaction"
            assert all(place[name] < places[0] for name in before), "before what was committed before it began"


def run(url: str, *, examples: int, phases: tuple[Phase, ...]) -> None:
    with asyncio.Runner() as runner:
        Relay.runner = runner
        Relay.connections = [runner.run(connect(url)) for _ in range(WRITERS + 2)]
        try:
            run_state_machine_as_test(
                Relay,
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=30,
                    deadline=None,
                    database=None,
                    phases=phases,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            for connection in Relay.connections:
                runner.run(connection.close())


def test_the_relay_keeps_to_the_model(database_url: str) -> None:
    run(database_url, examples=60, phases=(Phase.generate, Phase.shrink))


PLANTED = {
    "its own transaction counts as seen": (
        "coordinator.snapshot_without(pg_current_snapshot(), v_own)",
        "pg_current_snapshot()",
    ),
    "a transaction that was open is forgotten": ("xid = any (array(select pg_snapshot_xip(v_last.base)))", "false"),
    "a round ends at a later snapshot": ("else coalesce(v_last.round, v_snap) end,", "else v_snap end,"),
    "a batch that fills up ends the round": ("v_full := v_moved >= p_limit;", "v_full := v_moved > p_limit;"),
}


async def plant(url: str, sound: str, broken: str) -> None:
    connection = await connect(url)
    try:
        text = await connection.fetchval("select pg_get_functiondef('coordinator.relay_step'::regproc)")
        assert sound in text
        await connection.execute(text.replace(sound, broken))
    finally:
        await connection.close()


@pytest.mark.parametrize("bug", PLANTED)
def test_the_model_finds_a_planted_bug(database_url: str, bug: str) -> None:
    asyncio.run(plant(database_url, *PLANTED[bug]))
    with pytest.raises((AssertionError, asyncpg.PostgresError)):
        run(database_url, examples=100, phases=(Phase.generate,))

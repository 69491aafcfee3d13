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
from tests.daemon import LOG

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
        self.stepper: int | None = None
        self.pending: dict[int, list[str]] = {}
        self.before: dict[int, set[str]] = {}
        self.committed: list[tuple[list[str], set[str]]] = []
        self.done: set[str] = set()
        self.head = self.fetch(WRITERS, "select max(last_seq) from coordinator.event_chunks")

    def fetch(self, index: int, sql: str, *values: object) -> object:
        return self.runner.run(self.connections[index].fetchval(sql, *values))

    def begin(self, index: int) -> None:
        if index not in self.pending:
            self.fetch(index, "begin")
            self.pending[index], self.before[index] = [], set(self.done)

    @rule(index=writer, count=st.integers(1, 4))
    def emit(self, index: int, count: int) -> None:
        self.begin(index)
        for _ in range(count):
            self.count += 1
            self.fetch(index, EMIT, str(self.count))
            self.pending[index].append(str(self.count))

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), commit=st.integers(0, 3).map(bool))
    def end(self, data: st.DataObject, commit: bool) -> None:
        index = data.draw(st.sampled_from(sorted(self.pending)))
        self.fetch(index, "commit" if commit else "rollback")
        if self.stepper == index:
            self.stepper = None
        names, before = self.pending.pop(index), self.before.pop(index)
        if commit and names:
            self.committed.append((names, before))
            self.done.update(names)

    @rule(limit=limit)
    def step(self, limit: int) -> None:
        """Within the transaction of the writer that steps, if there is one: it holds the relay's lock."""
        self.fetch(WRITERS if self.stepper is None else self.stepper, "select coordinator.relay_step($1)", limit)

    @precondition(lambda self: self.stepper is None)
    @rule(index=writer, limit=limit)
    def step_within(self, index: int, limit: int) -> None:
        """In a transaction that has emitted, or has not yet."""
        self.begin(index)
        self.stepper = index
        self.fetch(index, "select coordinator.relay_step($1)", limit)

    @rule()
    def emit_at_once(self) -> None:
        """A transaction that is over when the next step looks, so that those that began before it come late."""
        self.count += 1
        self.committed.append(([str(self.count)], set(self.done)))
        self.fetch(WRITERS + 1, EMIT, str(self.count))
        self.done.add(str(self.count))

    @rule(index=writer)
    def get_an_id(self, index: int) -> None:
        """A transaction gets its id now, and emits later or never."""
        self.begin(index)
        self.fetch(index, "select pg_current_xact_id()")

    def teardown(self) -> None:
        if not hasattr(self, "head"):
            return
        for index in self.pending:
            self.fetch(index, "rollback")
        steps = 0
        while self.fetch(WRITERS, "select again from coordinator.relay_step(5)"):
            steps += 1
            assert steps <= self.count, "the relay does not come to an end"
        log = self.fetch(
            WRITERS,
            f"select coalesce(array_agg(key order by seq), '{{}}') from {LOG} where seq > $1",
            self.head,
        )
        assert isinstance(log, list)
        place = {name: index for index, name in enumerate(log)}
        assert len(place) == len(log), "an event came twice"
        assert set(place) == self.done, "an event is missing, or of a transaction that never was"
        for names, before in self.committed:
            places = [place[name] for name in names]
            assert places == list(range(places[0], places[0] + len(places))), "not together, or not in order"
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
    "its own transaction counts as seen": ("if v_own < pg_snapshot_xmax(v_next.base) then", "if false then"),
    "a transaction that was open is forgotten": ("l.xid = any (v_late)", "false"),
    "a chunk that is full numbers all": ("elsif v_next.xids[cardinality(v_next.xids)] >= v_xmax then", "elsif false then"),
    "a chunk ends within a transaction": ("w.xid < c.cut or c.cut is null", "true"),
    "a step that had its xid before proves something about ids": ("v_next.read_id := v_prev.read_id;", ""),
    "the bound on new ids is this step's": ("v_next.base_id := v_prev.read_id;", "v_next.base_id := v_next.read_id;"),
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

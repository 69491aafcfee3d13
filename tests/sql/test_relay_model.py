"""The relay against a model: writers whose transactions interleave in every way, steps of every size.

Held to: what was committed is in the log exactly once and nothing else is; events of one transaction keep their order; and
whatever was committed before a transaction began comes before its events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, NamedTuple

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from coordinator.db.connection import connect
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
    @rule(index=writer, commit=st.integers(0, 3).map(bool))
    def end(self, index: int, commit: bool) -> None:
        """The transaction of this writer, or of the next one that has any."""
        index = min(self.pending, key=lambda pending: (pending - index) % WRITERS)
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


@contextmanager
def connected(url: str) -> Iterator[None]:
    with asyncio.Runner() as runner:
        Relay.runner = runner
        Relay.connections = [runner.run(connect(url)) for _ in range(WRITERS + 2)]
        try:
            yield
        finally:
            for connection in Relay.connections:
                runner.run(connection.close())


def search(*, examples: int, phases: tuple[Phase, ...]) -> None:
    run_state_machine_as_test(
        Relay,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            database=None,
            phases=phases,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def play(history: str, *, times: int = 1) -> None:
    for _ in range(times):
        relay = Relay()
        relay.begin_at_the_head()
        for call in history.split(", "):
            name, *values = call.split()
            getattr(relay, name)(*map(int, values))
        relay.teardown()


class Bug(NamedTuple):
    sound: str
    broken: str
    history: str  # calls of the rules that lead to it


PLANTED = {
    "its own transaction counts as seen": Bug(
        "if v_own < pg_snapshot_xmax(v_next.base) then",
        "if false then",
        "emit 0 1, emit_at_once, step_within 0 7, end 0 1",
    ),
    "a transaction that was open is forgotten": Bug(
        "l.xid = any (v_late)",
        "false",
        "emit 0 1, emit_at_once, step 7, end 0 1",
    ),
    "a chunk that is full numbers all": Bug(
        "elsif v_next.xids[cardinality(v_next.xids)] >= v_xmax then",
        "elsif false then",
        "emit_at_once, emit_at_once, step 1",
    ),
    "a chunk ends within a transaction": Bug(
        "w.xid < c.cut or c.cut is null",
        "true",
        "emit 0 4, end 0 1, step 1",
    ),
    # Writer 1 emits before the step reads the ids, and gets its xid after all that the next step sees.
    "a step that had its xid before proves something about ids": Bug(
        "v_next.read_id := v_prev.read_id;",
        "",
        "emit 0 1, emit_at_once, emit 1 1, step_within 0 7, end 0 1, step 7, end 1 1",
    ),
    "the bound on new ids is this step's": Bug(
        "v_next.base_id := v_prev.read_id;",
        "v_next.base_id := v_next.read_id;",
        "emit_at_once, emit 1 1, step 7, end 1 1",
    ),
}
WRONG = "an event is missing|an event came twice|the relay does not come to an end"


async def plant(url: str, bug: Bug) -> None:
    connection = await connect(url)
    try:
        text = await connection.fetchval("select pg_get_functiondef('coordinator.relay_step'::regproc)")
        assert bug.sound in text, "the function has changed: plant the bug in its new text"
        await connection.execute(text.replace(bug.sound, bug.broken))
    finally:
        await connection.close()


@pytest.mark.slow
def test_the_relay_keeps_to_the_model(database_url: str) -> None:
    with connected(database_url):
        search(examples=60, phases=(Phase.generate, Phase.shrink))
        for bug in PLANTED.values():
            play(bug.history)


@pytest.mark.parametrize("bug", PLANTED)
def test_the_model_finds_a_planted_bug(database_url: str, bug: str) -> None:
    asyncio.run(plant(database_url, PLANTED[bug]))
    with connected(database_url), pytest.raises(AssertionError, match=WRONG):
        play(PLANTED[bug].history, times=10)  # a transaction elsewhere on the server, between two calls, may hide it


@pytest.mark.long
@pytest.mark.parametrize("bug", PLANTED)
def test_the_model_finds_a_planted_bug_by_chance(database_url: str, bug: str) -> None:
    asyncio.run(plant(database_url, PLANTED[bug]))
    with connected(database_url), pytest.raises(AssertionError, match=WRONG):
        search(examples=3000, phases=(Phase.generate,))

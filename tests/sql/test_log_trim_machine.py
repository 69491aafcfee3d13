"""Any history of appends, pops, kept entries and batches of retention, compared with a model of the log."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from coordinator.operations import retentions
from tests.sql.machine import Machine, check

HOUR = timedelta(hours=1)


class Entry:
    def __init__(self, seq: int, at: timedelta, needs: int | None) -> None:
        self.seq, self.at, self.needs, self.kept = seq, at, needs, False


class Log(Machine):
    """One log with a bound by age, by count, both or neither."""

    @initialize(max_age=st.sampled_from([None, 3, 10]), max_count=st.sampled_from([None, 1, 4]))
    def start(self, max_age: int | None, max_count: int | None) -> None:
        self.begin()
        self.clock, self.last, self.entries = timedelta(0), 0, list[Entry]()
        self.do(self.tx.set_clock(self.clock))
        self.change(max_age, max_count)

    @rule(max_age=st.sampled_from([None, 3, 10]), max_count=st.sampled_from([None, 1, 4]))
    def change(self, max_age: int | None, max_count: int | None) -> None:
        self.max_age = None if max_age is None else max_age * HOUR
        self.max_count = max_count
        self.do(
            self.tx.run(
                retentions.Set(project="default", subject="log", kind="note", max_age=self.max_age, max_count=max_count)
            )
        )

    @rule(needs=st.lists(st.integers(0, 5), min_size=1, max_size=6))
    def append(self, needs: list[int]) -> None:
        given = []
        for back in needs:
            self.last += 1
            need = -back if 0 < back < self.last else None
            given.append({"data": self.last, "needs": need})
            self.entries.append(Entry(self.last, self.clock, None if need is None else self.last + need))
        self.do(
            self.connection.execute(
                "select coordinator.log_append('default', 'note', 'k', $1::text::json)", json.dumps(given)
            )
        )

    @rule(count=st.integers(1, 3))
    def pop(self, count: int) -> None:
        if self.last:
            del self.entries[-count:]
            self.call("log_pop", f"p_last => {count}")

    @rule(place=st.integers(0, 30), kept=st.booleans())
    def keep(self, place: int, *, kept: bool) -> None:
        if place < len(self.entries):
            entry = self.entries[place]
            entry.kept = kept
            self.call("log_keep", f"p_kept => {kept}, p_first_seq => {entry.seq}, p_last_seq => {entry.seq}")

    @rule(kept=st.booleans())
    def clear(self, *, kept: bool) -> None:
        if self.last:
            left = set() if kept else self.protected()
            self.entries = [entry for entry in self.entries if entry.seq in left]
            self.call("log_clear", f"p_kept => {kept}")

    @rule(hours=st.integers(1, 8))
    def wait(self, hours: int) -> None:
        self.clock += hours * HOUR
        self.do(self.tx.set_clock(self.clock))

    @rule(limit=st.integers(1, 4))
    def trim_some(self, limit: int) -> None:
        """Whatever goes was beyond a bound, and neither kept nor needed."""
        may_go = self.beyond()
        results = self.do(self.tx.run(retentions.Trim(limit=limit)))
        present = set(self.present())
        gone = {entry.seq for entry in self.entries} - present
        assert gone <= may_go
        assert len(gone) == sum(result.removed for result in results) <= limit
        self.entries = [entry for entry in self.entries if entry.seq in present]

    @rule()
    def trim_all(self) -> None:
        """What would go, goes."""
        expected = self.beyond()
        forecast = self.do(self.tx.run(retentions.Preview(project="default")))
        assert sum(row.removed for row in forecast) == len(expected)
        self.do(self.tx.run(retentions.Run(project="default")))
        while self.do(self.tx.run(retentions.Sweep())):
            pass
        while self.do(self.tx.run(retentions.Trim(limit=3))):
            pass
        self.entries = [entry for entry in self.entries if entry.seq not in expected]

    @invariant()
    def the_header_counts_what_is_there(self) -> None:
        if hasattr(self, "entries"):
            assert self.present() == [entry.seq for entry in self.entries]
            assert self.count() == len(self.entries)

    def protected(self) -> set[int]:
        """Return what is kept, and what that needs."""
        protected: set[int] = set()
        by_seq = {entry.seq: entry for entry in self.entries}
        for entry in self.entries:
            if entry.kept:
                low = entry.seq
                protected.add(entry.seq)
                if entry.needs is not None:
                    low = entry.needs
                    while (
                        lower := min((by_seq[s].needs or s for s in range(low, entry.seq) if s in by_seq), default=low)
                    ) < low:
                        low = lower
                protected |= set(range(low, entry.seq))
        return protected

    def beyond(self) -> set[int]:
        """Return what is beyond a bound and may go."""
        protected = self.protected()
        newest = {entry.seq for entry in self.entries[-self.max_count if self.max_count else None :]}
        return {
            entry.seq
            for entry in self.entries
            if entry.seq not in protected
            and (entry.seq not in newest or (self.max_age is not None and entry.at + self.max_age <= self.clock))
        }

    def call(self, function: str, arguments: str = "") -> None:
        sql = f"select coordinator.{function}('default', 'note', 'k'{arguments and ', '}{arguments})"
        self.do(self.connection.execute(sql))

    def present(self) -> list[int]:
        query = "select e.seq from coordinator.entries e join coordinator.logs l on l.id = e.log_id where l.key = 'k' order by 1"
        return [row[0] for row in self.do(self.connection.fetch(query))]

    def count(self) -> int:
        return self.do(
            self.connection.fetchval("select coalesce((select count from coordinator.logs where key = 'k'), 0)")
        )


@pytest.mark.parametrize("examples", [12, pytest.param(1500, marks=pytest.mark.long)])
async def test_any_history_leaves_what_the_model_says(database_url: str, examples: int) -> None:
    await asyncio.to_thread(check, Log, database_url, examples=examples)

"""Logs against a small model: whatever is appended, taken away and read, in whatever order."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from coordinator.model.log import LogEntry
from coordinator.model.operation import JsonText
from coordinator.operations import logs
from tests.sql.machine import Machine, check


@dataclass
class Log:
    last_seq: int = 0
    gone_to: int = 0  # entries up to here were cleared
    deleted: bool = True
    entries: dict[int, dict[str, Any]] = field(default_factory=dict)


class Logs(Machine):
    @initialize()
    def begin(self) -> None:
        super().begin()
        self.logs = {"a": Log(), "b": Log()}
        self.positions: list[tuple[str, list[str], int]] = []

    keys = st.sampled_from(["a", "b"])
    given = st.fixed_dictionaries(
        {"data": st.integers(0, 3)},
        optional={
            "uid": st.sampled_from("uvwxyz"),
            "role": st.sampled_from(["user", "tool"]),
            "needs": st.integers(-2, 4),
        },
    )

    @rule(key=keys, batch=st.lists(given, min_size=1, max_size=4), expect=st.none() | st.integers(0, 6))
    def append(self, key: str, batch: list[dict[str, Any]], expect: int | None) -> None:
        log = self.logs[key]
        entries = JsonText(json.dumps(batch).encode())
        code, receipt = self.run(logs.Append(project="default", kind="k", key=key, entries=entries, expect=expect))
        uids = [one["uid"] for one in batch if "uid" in one]
        known = {one["uid"]: seq for seq, one in log.entries.items() if one.get("uid")}
        seqs, new = [], {}
        for one in batch:
            if one.get("uid") in known:
                seqs.append(known[one["uid"]])
                continue
            seq = log.last_seq + len(new) + 1
            seqs.append(seq)
            needs = one.get("needs")
            new[seq] = {**one, "needs": seq + needs if needs is not None and needs < 0 else needs}
        if len(uids) > len(set(uids)) or any(
            log.entries[known[one["uid"]]]["data"] != one["data"] for one in batch if one.get("uid") in known
        ):
            assert code == "ZC331"
        elif new and expect is not None and expect != (0 if log.deleted else log.last_seq):
            assert code == "ZC301"
        elif any(one["needs"] is not None and not 1 <= one["needs"] < seq for seq, one in new.items()):
            assert code == "ZC104"
        else:
            assert code is None
            assert (receipt.first_seq, receipt.last_seq, receipt.appended) == (min(seqs), max(seqs), len(new))
            if new:
                log.entries |= new
                log.last_seq += len(new)
                log.deleted = False

    @rule(key=keys, last=st.integers(1, 3), expect=st.none() | st.integers(0, 6))
    def pop(self, key: str, last: int, expect: int | None) -> None:
        log = self.logs[key]
        code, popped = self.run(logs.Pop(project="default", kind="k", key=key, last=last, expect=expect))
        if self.refused(code, log, expect):
            return
        wanted = sorted(log.entries)[-last:]
        assert [entry.seq for entry in popped] == wanted
        for seq in wanted:
            del log.entries[seq]

    @rule(key=keys, expect=st.none() | st.integers(0, 6), delete=st.booleans())
    def clear(self, key: str, expect: int | None, delete: bool) -> None:
        log = self.logs[key]
        kind = logs.Delete if delete else logs.Clear
        code, count = self.run(kind(project="default", kind="k", key=key, expect=expect))
        if self.refused(code, log, expect):
            return
        assert count == len(log.entries)
        log.entries.clear()
        log.gone_to = log.last_seq
        log.deleted = delete

    def refused(self, code: str | None, log: Log, expect: int | None) -> bool:
        wanted = "ZC216" if log.deleted else "ZC301" if expect not in (None, log.last_seq) else None
        assert code == wanted
        return code is not None

    @rule(key=keys, data=st.data(), before=st.none() | st.integers(0, 9), last=st.none() | st.integers(1, 3))
    def read(self, key: str, data: st.DataObject, before: int | None, last: int | None) -> None:
        log = self.logs[key]
        position = data.draw(st.none() | st.integers(0, log.last_seq + 1))
        after = None if position is None else ["", str(position)]
        code, rows = self.run(logs.Read(project="default", kind="k", key=key, after=after, before=before, last=last))
        if log.deleted:
            assert code == "ZC216"
        elif position is not None and not log.gone_to <= position <= log.last_seq:
            assert code == "ZC218"
        else:
            assert code is None
            wanted = [seq for seq in sorted(log.entries) if before is None or seq < before]
            wanted = wanted[-last:] if last is not None and position is None else wanted
            self.same(rows, log, [seq for seq in wanted if seq > (position or 0)])

    @invariant()
    def headers_agree_with_their_entries(self) -> None:
        query = """
          select l.key, l.last_seq, l.deleted, l.count, l.count = (select count(*) from coordinator.entries e where e.log_id = l.id) as right
          from coordinator.logs l where l.kind = 'k'"""
        for row in self.do(self.connection.fetch(query)) if hasattr(self, "logs") else []:
            log = self.logs[row["key"]]
            assert row["right"]
            assert (row["last_seq"], row["deleted"], row["count"]) == (log.last_seq, log.deleted, len(log.entries))

    @staticmethod
    def same(rows: list[LogEntry], log: Log, wanted: list[int]) -> None:
        assert [row.seq for row in rows] == wanted
        for row in rows:
            one = log.entries[row.seq]
            assert (row.data, row.uid, row.role, row.needs) == (
                one["data"],
                one.get("uid"),
                one.get("role"),
                one["needs"],
            )


@pytest.mark.parametrize("examples", [5, pytest.param(300, marks=[pytest.mark.long, pytest.mark.slow])])
def test_logs_do_what_the_model_does(database_url: str, examples: int) -> None:
    check(Logs, database_url, examples=examples)

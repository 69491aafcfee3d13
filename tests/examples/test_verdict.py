"""The judge of the fleet's runs finds what is planted, and nothing in a run that keeps its promises."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from coordinator.model.event import Event
from examples.fleet import work
from examples.fleet.board import AGENTS, MANAGER, ROLE, SHARES
from examples.fleet.outcome import Kill, lines, tell
from tests.examples import verdict

START = datetime(2026, 1, 1, tzinfo=UTC)
RESULT = {"files": 1, "lines": 10}


class Run:
    """A run as a follower received it: three shares, all promises kept."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        agents = [f"agent-{n}" for n in range(1, AGENTS + 1)]
        for name in agents:
            self.add("agent.registered", name, name, name=name, role=ROLE)
        for number in (1, 2, 3):
            self.set(number, "FILES", MANAGER, [f"{number}.py"])
        for name in agents:
            self.add("directive.acknowledged", "1", name, status="done")
        self.done(3, "agent-1", "agent-2")
        self.done(1, "agent-2", "agent-3")
        at = self.next_at()
        for flag in ("QA_PASSED", "COMPLETED"):
            self.add("signal.cleared", f"share/1/{flag}", MANAGER, at=at, rule="share/1/REJECTED")
        self.add("signal.set", "share/1/REJECTED", MANAGER, at=at, value="again")
        self.done(1, "agent-4", "agent-5")
        self.set(2, "CLAIMED", "agent-6")
        self.add("custom.share_half_done", "share/2", "agent-6")
        self.add("signal.ended", "share/2/CLAIMED", "coordinator")
        self.add("agent.reaped", "id", "coordinator", name="agent-6", role=ROLE, reason="process died")
        self.done(2, "agent-5", "agent-1")
        for name in agents[:-1]:
            self.add("agent.deregistered", "id", name, name=name, role=ROLE)

    def next_at(self) -> datetime:
        return START + timedelta(milliseconds=20 * len(self.events))

    def add(self, type: str, key: str, actor: str, at: datetime | None = None, **data: Any) -> None:
        seq = len(self.events) + 1
        self.events.append(Event(f"e.{seq}", seq, type, "fleet", key, actor, at or self.next_at(), data))

    def set(self, number: int, flag: str, actor: str, value: Any = True) -> None:
        self.add("signal.set", f"share/{number}/{flag}", actor, value=value)

    def done(self, number: int, actor: str, checker: str) -> None:
        self.set(number, "CLAIMED", actor)
        self.set(number, "COMPLETED", actor, RESULT)
        self.add("signal.deleted", f"share/{number}/CLAIMED", actor)
        self.set(number, "QA_PASSED", checker)

    def index(self, type: str, key: str = "", last: bool = False) -> int:
        found = [i for i, one in enumerate(self.events) if one.type == type and key in (one.key or "")]
        return found[-1 if last else 0]

    def drop(self, type: str, key: str = "", last: bool = False) -> None:
        del self.events[self.index(type, key, last)]

    def change(self, type: str, key: str = "", last: bool = False, **data: Any) -> None:
        event = self.events[self.index(type, key, last)]
        event.data.update(data)


@pytest.fixture(autouse=True)
def three_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict, "SHARES", 3)


def judge(run: Run, counted: dict[int, dict[str, int]] | None = None) -> list[str]:
    return verdict.faults(run.events, counted or {})


def test_a_run_that_keeps_all_promises_has_no_faults_and_its_outcome_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("examples.fleet.outcome.SHARES", 3)
    run = Run()
    assert judge(run, {1: RESULT, 2: RESULT, 3: RESULT}) == []
    kill = Kill("agent-6", 2, run.events[run.index("custom.share_half_done")].at)
    outcome = tell(run.events, kill)
    assert outcome.complete
    assert (outcome.rejected, sorted(outcome.cleared)) == (1, ["COMPLETED", "QA_PASSED"])
    assert (outcome.finished_by, outcome.reaped_after_s) == ("agent-5", 0.04)
    assert sorted(outcome.acknowledged) == [f"agent-{n}" for n in range(1, 7)]
    told = "\n".join(lines(outcome, kill))
    assert "Counted   3 files, 30 lines in 3 of 3 shares" in told
    assert "done again by agent-4" in told
    assert "Killed    agent-6 over share 2: reaped after 0.0 s, share finished by agent-5" in told
    assert {line.split()[0]: line.split()[1] for line in told.splitlines() if line.startswith("agent-")} == {
        "agent-1": "1", "agent-2": "0", "agent-3": "0", "agent-4": "1", "agent-5": "1", "agent-6": "0",
    }  # fmt: skip


def test_an_incomplete_run_is_not_told_as_complete() -> None:
    run = Run()
    kill = Kill("agent-6", 2, START)
    assert not tell(run.events, kill).complete, "it has fewer shares than the program gives out"
    assert not tell(run.events, None).complete


BREAKS: dict[str, tuple[Callable[[Run], None], str]] = {
    "lost": (lambda r: r.drop("custom.share_half_done"), "1 gaps in the numbers"),
    "repeated": (lambda r: r.events.append(r.events[-1]), "1 events came twice"),
    "disordered": (lambda r: r.events.insert(0, r.events.pop(3)), "1 events came out of order"),
    "unfinished": (lambda r: r.drop("signal.set", "share/2/COMPLETED"), "not completed and checked: share 2"),
    "unchecked": (lambda r: r.drop("signal.set", "share/3/QA_PASSED"), "not completed and checked: share 3"),
    "twice": (lambda r: r.set(3, "COMPLETED", "agent-2", RESULT), "share 3 was completed 2 times instead of 1"),
    "rule": (lambda r: r.drop("signal.cleared", "QA_PASSED"), "cleared ['COMPLETED'] in its transaction"),
    "unrejected": (lambda r: r.drop("signal.set", "REJECTED"), "no result was rejected"),
    "deaf": (lambda r: r.drop("directive.acknowledged", last=True), "5 agents acknowledged"),
    "unnoticed": (lambda r: r.drop("agent.reaped"), "one agent was to be reaped"),
    "expired": (lambda r: r.change("agent.reaped", reason="expired"), "one agent was to be reaped"),
    "held": (lambda r: r.drop("signal.ended"), "the claim of agent-6 did not end with it"),
    "abandoned": (lambda r: r.drop("signal.set", "share/2/CLAIMED", last=True), "was not finished by others"),
    "crashed": (lambda r: r.drop("agent.deregistered", last=True), "agent-5 did not leave"),
    "absent": (lambda r: r.drop("agent.registered"), "5 agents registered instead of 6"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_promise_is_told(name: str) -> None:
    break_it, complaint = BREAKS[name]
    run = Run()
    break_it(run)
    assert any(complaint in fault for fault in judge(run)), judge(run)


def test_a_death_that_is_noticed_late_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict, "REAPED_WITHIN_S", 0.03)
    assert judge(Run()) == ["the death of agent-6 was noticed after 0.0 s"]


def test_a_run_without_events_is_told() -> None:
    assert "no event came at all" in verdict.faults([], {})


def test_numbers_that_differ_from_a_recount_are_told() -> None:
    assert judge(Run(), {2: {"files": 1, "lines": 11}}) == ["the numbers of share 2 differ from those of a recount"]


def test_counting_finds_what_is_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import os\n\n\ndef f():\n    # TODO: more\n    async def g(): ...\n")
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "a.md").write_text("TODO\nFIXME def x\n")
    assert work.count(tmp_path, ["a.py"]) == {"files": 1, "lines": 6, "functions": 2, "todos": 1}
    assert work.count(tmp_path, ["broken.py", "a.md"]) == {"files": 2, "lines": 3, "functions": 1, "todos": 2}


def test_what_is_not_source_is_left_out(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("x")
    (tmp_path / "binary").write_bytes(b"a\0b")
    (tmp_path / "large.txt").write_text("x" * (work.MAX_SIZE + 1))
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "link.txt").symlink_to(tmp_path / "a.txt")
    assert work.find(tmp_path) == ["a.txt"]


def test_shares_hold_every_file_once_and_are_about_the_same_size(tmp_path: Path) -> None:
    files = [f"{n:03}" for n in range(200)]
    shares = [files[number - 1 :: SHARES] for number in range(1, SHARES + 1)]
    assert sorted(file for share in shares for file in share) == files
    assert max(map(len, shares)) - min(map(len, shares)) == 1

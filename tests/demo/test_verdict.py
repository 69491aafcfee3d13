from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from coordinator.config import Config
from coordinator.demo import main, source
from coordinator.demo.board import AGENTS, MANAGER, ROLE, Plan
from coordinator.demo.report import Report
from coordinator.demo.source import Review, SourceFile
from coordinator.demo.story import Kill, Received, Story, tell
from coordinator.demo.verdict import deliver, faults
from coordinator.errors import InvalidArgument
from coordinator.model.event import Event

START = datetime(2026, 1, 1, tzinfo=UTC)
RESULT = Review(files=1, lines=10)
KILL = Kill("agent-6", 2, START + timedelta(seconds=0.95))


class Run:
    """A run as a follower received it: three shares, all promises kept."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        agents = [f"agent-{n}" for n in range(1, AGENTS + 1)]
        for name in agents:
            self.add("agent.registered", name, name, name=name, role=ROLE)
        for number in (1, 2, 3):
            plan = Plan([SourceFile(f"{number}.py", 1, 1)], reserved=number == 3)
            self.set(number, "FILES", MANAGER, msgspec.to_builtins(plan))
        self.set(1, "CLAIMED", "agent-1")
        self.add("directive.sent", "1", MANAGER, to_agent="agent-1", data={"leave": 1, "take": 3})
        self.add("directive.acknowledged", "1", "agent-1", status="seen")
        self.add("signal.deleted", "share/1/CLAIMED", "agent-1")
        self.set(3, "CLAIMED", "agent-1")
        self.add("directive.acknowledged", "1", "agent-1", status="done")
        self.add("directive.sent", "2", MANAGER, to_agent=None, data={})
        for name in agents:
            self.add("directive.acknowledged", "2", name, status="done")
        self.done(3, "agent-1", "agent-2")
        self.set(1, "CLAIMED", "agent-2")
        self.done(1, "agent-2", "agent-3")
        at = self.next_at()
        for flag in ("QA_PASSED", "COMPLETED"):
            self.add("signal.cleared", f"share/1/{flag}", MANAGER, at=at, rule="share/1/REJECTED")
        self.add("signal.set", "share/1/REJECTED", MANAGER, at=at, value="again")
        self.set(1, "CLAIMED", "agent-4")
        self.done(1, "agent-4", "agent-5")
        self.set(2, "CLAIMED", "agent-6")
        self.add("signal.ended", "share/2/CLAIMED", "coordinator")
        self.add("agent.reaped", "id", "coordinator", name="agent-6", role=ROLE, reason="process died")
        self.set(2, "CLAIMED", "agent-5")
        self.done(2, "agent-5", "agent-1")
        for name in agents[:-1]:
            self.add("agent.deregistered", "id", name, name=name, role=ROLE)

    def next_at(self) -> datetime:
        return START + timedelta(milliseconds=20 * len(self.received))

    def add(self, type: str, key: str, actor: str, at: datetime | None = None, **data: Any) -> None:
        seq = len(self.received) + 1
        at = at or self.next_at()
        event = Event(f"e.{seq}", seq, type, "demo", key, actor, at, data)
        self.received.append(Received(event, at + timedelta(milliseconds=seq % 10)))

    def set(self, number: int, flag: str, actor: str, value: Any = True) -> None:
        self.add("signal.set", f"share/{number}/{flag}", actor, value=value)

    def done(self, number: int, actor: str, checker: str) -> None:
        self.set(number, "COMPLETED", actor, msgspec.to_builtins(RESULT))
        self.add("signal.deleted", f"share/{number}/CLAIMED", actor)
        self.set(number, "QA_PASSED", checker)

    def index(self, type: str, key: str = "", last: bool = False) -> int:
        found = [i for i, r in enumerate(self.received) if r.event.type == type and key in (r.event.key or "")]
        return found[-1 if last else 0]

    def drop(self, type: str, key: str = "", last: bool = False) -> None:
        del self.received[self.index(type, key, last)]

    def judge(self, counted: dict[int, Review] | None = None, kill: Kill | None = KILL) -> list[str]:
        log = [r.event.seq for r in self.received]
        return faults(self.story(kill), deliver(self.received, log, log), counted or {}, 3, settled=True)

    def story(self, kill: Kill | None = KILL) -> Story:
        return tell(self.received, kill)


def only_numbering(found: list[str]) -> list[str]:
    """What is wrong beside the numbers that a change of the run left out."""
    return [fault for fault in found if "numbers are missing" not in fault]


def test_a_run_that_keeps_all_promises_has_no_faults_and_its_story_is_told() -> None:
    run = Run()
    assert run.judge({1: RESULT, 2: RESULT, 3: RESULT}) == []
    story = run.story()
    assert story.rejection is not None
    assert (story.rejection.done_by, story.rejection.done_again_by) == ("agent-2", "agent-4")
    assert story.killed is not None
    assert (story.killed.claimed_again_by, story.killed.completed_by) == ("agent-5", "agent-5")
    assert {name: part.shares for name, part in story.parts.items() if part.shares} == {
        "agent-1": 1,
        "agent-4": 1,
        "agent-5": 1,
    }
    assert story.totals.lines == 30


def test_an_event_that_did_not_reach_the_follower_is_told() -> None:
    run = Run()
    log = [r.event.seq for r in run.received]
    run.received.pop(5)
    found = faults(run.story(), deliver(run.received, log, log), {}, 3, settled=True)
    assert "1 events of the log did not reach the follower" in found


def test_an_event_that_came_twice_or_out_of_order_or_is_missing_in_the_log_is_told() -> None:
    received = Run().received
    log = [r.event.seq for r in received]
    assert deliver([*received, received[-1]], log, log).duplicates == 1
    assert deliver([received[1], received[0], *received[2:]], log, log).out_of_order == 1
    assert deliver(received, log, [n for n in log if n != 7]).gaps == 1
    clean = deliver(received, log, log)
    assert (clean.lost, clean.duplicates, clean.out_of_order, clean.gaps) == (0, 0, 0, 0)
    assert clean.latency_p99_ms == 9


BREAKS: dict[str, tuple[Callable[[Run], None], str]] = {
    "unfinished": (lambda r: r.drop("signal.set", "share/2/COMPLETED"), "not completed and checked: share 2"),
    "unchecked": (lambda r: r.drop("signal.set", "share/3/QA_PASSED"), "not completed and checked: share 3"),
    "twice": (
        lambda r: r.set(3, "COMPLETED", "agent-2", msgspec.to_builtins(RESULT)),
        "share 3 was completed 2 times instead of 1",
    ),
    "rule": (lambda r: r.drop("signal.cleared", "QA_PASSED"), "cleared ['COMPLETED'] in its transaction"),
    "disobedient": (lambda r: r.drop("directive.acknowledged", "1", last=True), "as it was told"),
    "deaf": (lambda r: r.drop("directive.acknowledged", "2", last=True), "done by 5 agents"),
    "unnoticed": (lambda r: r.drop("agent.reaped"), "the death of agent-6 was not noticed"),
    "held": (lambda r: r.drop("signal.ended"), "did not end with it"),
    "crashed": (lambda r: r.drop("agent.deregistered", last=True), "agent-5 did not end by itself"),
    "absent": (lambda r: r.drop("agent.registered"), "5 agents registered instead of 6"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_promise_is_told(name: str) -> None:
    break_it, complaint = BREAKS[name]
    run = Run()
    break_it(run)
    assert any(complaint in fault for fault in only_numbering(run.judge())), run.judge()


def test_nobody_killed_and_nobody_noticed_in_time_are_told() -> None:
    assert "no agent was killed" in Run().judge(kill=None)
    late = msgspec.structs.replace(KILL, at=START - timedelta(seconds=30))
    assert any("was noticed after" in fault for fault in Run().judge(kill=late))


def test_numbers_that_differ_from_a_recount_are_told() -> None:
    assert Run().judge({2: Review(files=1, lines=11)}) == ["the numbers of share 2 differ from those of a recount"]


def test_a_report_with_a_fault_ends_with_another_code_than_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    for number in range(30):
        (tmp_path / f"{number}.txt").write_text("x\n")
    story = Run().story()

    def report(found: list[str]) -> Report:
        return Report(
            ok=not found, faults=found, notes=[], root="", place="", project="demo-1", seconds=1.0, shares=3, accepted=3,
            totals=story.totals, agents=[], rejection=None, redirect=None, broadcast=None, killed=None,
            events=deliver([], [], []),
        )  # fmt: skip

    for found, code in (([], 0), (["1 events of the log did not reach the follower"], 1)):

        async def demonstrate(*_: object, found: list[str] = found) -> Report:
            return report(found)

        monkeypatch.setattr(main, "_demonstrate", demonstrate)
        assert main.run(Config(), tmp_path) == code
        assert msgspec.json.decode(capsysbinary.readouterr().out)["faults"] == found


def test_a_tree_that_is_too_small_or_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("x = 1\n")
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(InvalidArgument) as raised:
            main.run(Config(), path)
        assert raised.value.hint


def test_shares_hold_every_file_once_and_are_about_the_same_size() -> None:
    files = [SourceFile(f"{n:03}", 50_000 if n % 10 == 0 else 100, 0) for n in range(200)]
    shares = source.split(files, 19)
    assert len(shares) == 19
    assert [file for share in shares for file in share] == files
    weights = [sum(file.size + source.FILE_WEIGHT for file in share) for share in shares]
    assert max(weights) < 2 * sum(weights) / len(weights)
    assert [len(share) for share in source.split(files[:19], 19)] == [1] * 19
    big_last = [SourceFile(str(n), 1, 0) for n in range(18)] + [SourceFile("big", 500_000, 0)]
    assert [len(share) for share in source.split(big_last, 19)] == [1] * 19


def test_a_review_counts_what_is_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        'import os, sys\n\n\ndef f():\n    # TODO: more\n    return "TODO"\n\n\nclass C: ...\n'
    )
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "a.md").write_text("TODO\nFIXME\n")
    assert source.review(tmp_path, "a.py") == Review(
        files=1, lines=9, bytes=76, functions=1, classes=1, imports=2, todos=1, longest=(3, "a.py:f")
    )
    assert source.review(tmp_path, "broken.py").lines == 1
    assert source.review(tmp_path, "a.md").todos == 2
    assert source.review(tmp_path, "gone.py") == Review(files=1)


def test_what_is_no_source_is_left_out(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("x")
    (tmp_path / "binary").write_bytes(b"a\0b")
    (tmp_path / "large.txt").write_text("x" * (source.FILE_MOST + 1))
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "link.txt").symlink_to(tmp_path / "a.txt")
    found, more = source.find(tmp_path)
    assert ([file.path for file in found], more) == (["a.txt"], False)
